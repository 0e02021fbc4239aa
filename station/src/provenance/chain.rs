//! Walks over the raw records of a log, without its lock, and goes on behind what is wrong. Changes nothing.
//!
//! The journal itself stops at the first damage, which is right for who writes on; who looks for what was done to
//! a log wants to know all of it.

use std::{
    collections::VecDeque,
    fmt,
    io::{Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use factory_journal::{
    JournalError, SegmentFile, Sequence,
    segment::{self, Frame, HEADER_LEN, Hash, Header, PREFIX_LEN, Prefix},
    segment_files,
};

use super::ProvenanceError;

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The segment's file.
    pub segment: PathBuf,
    /// Its first byte there.
    pub offset: u64,
}

/// A record as it stands in the log.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where.
    pub place: Place,
    /// Its fields.
    pub frame: Frame,
    /// The bytes that the next record's hash covers.
    pub body: Vec<u8>,
    /// That hash.
    pub hash: Hash,
}

/// Something that nobody wrote that way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Where.
    pub place: Place,
    /// The record that should stand there.
    pub record: Sequence,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.place.segment.file_name().unwrap_or_default().to_string_lossy();
        write!(f, "record {} ({name}, byte {}): {}", self.record, self.place.offset, self.what)
    }
}

/// What the walk comes to.
#[derive(Debug)]
pub enum Step {
    /// A record; sound in itself, but see the flaws before it.
    Link(Link),
    /// Something wrong.
    Flaw(Flaw),
}

/// A walk over the records of a log, segment by segment.
pub struct Chain {
    dir: PathBuf,
    /// Not begun yet, oldest first.
    segments: VecDeque<PathBuf>,
    /// Begun last.
    current: PathBuf,
    reader: Option<Reader>,
    /// The record that comes next, and the hash of the one before; unknown before the first.
    next: Option<(Sequence, Option<Hash>)>,
    found: VecDeque<Step>,
}

struct Reader {
    path: PathBuf,
    file: SegmentFile,
    offset: u64,
}

/// The segment files in `dir`, live and archived, oldest first, each with the record that it begins with.
///
/// # Errors
/// The folder cannot be listed, or holds none.
pub fn segments(dir: &Path) -> Result<Vec<(Sequence, PathBuf)>, ProvenanceError> {
    let segments = segment_files(dir)?;
    if segments.is_empty() {
        return Err(ProvenanceError::NoLog(dir.to_owned()));
    }
    Ok(segments)
}

impl Chain {
    /// A walk that begins with the segment that holds record `from`, or with the oldest.
    ///
    /// # Errors
    /// There is no log in `dir`.
    pub fn open(dir: &Path, from: Sequence) -> Result<Self, ProvenanceError> {
        let segments = segments(dir)?;
        let holder = segments.partition_point(|(first, _)| *first <= from).saturating_sub(1);
        let segments = segments.into_iter().skip(holder).map(|(_, path)| path).collect();
        let (dir, current) = (dir.to_owned(), PathBuf::new());
        Ok(Self { dir, segments, current, reader: None, next: None, found: VecDeque::new() })
    }

    /// Forgets what was read ahead: the log may have grown over it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn refresh(&mut self) -> Result<(), ProvenanceError> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let sought = reader.file.seek(SeekFrom::Start(reader.offset));
        sought.map(drop).map_err(ProvenanceError::io("read", &reader.path))
    }

    /// The next step; `None` at the end of the log, where later calls go on if it has grown.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn step(&mut self) -> Result<Option<Step>, ProvenanceError> {
        loop {
            if let Some(step) = self.found.pop_front() {
                return Ok(Some(step));
            }
            match &mut self.reader {
                Some(reader) => {
                    let read = reader.read().map_err(ProvenanceError::io("read", &reader.path))?;
                    match read {
                        Found::Body(body, sound) => self.link(body, sound),
                        Found::End if !self.segments.is_empty() || self.successor()?.is_some() => {
                            self.reader = None;
                        }
                        Found::End => return Ok(None),
                        Found::NoRecord(what) => {
                            self.flaw_here(what);
                            self.reader = None;
                            self.next = self.next.map(|(next, _)| (next, None));
                        }
                    }
                }
                None => {
                    let next = match self.segments.pop_front() {
                        None => self.successor()?,
                        listed => listed,
                    };
                    let Some(path) = next else { return Ok(None) };
                    self.begin(path)?;
                }
            }
        }
    }

    /// A segment that was begun after the walk was.
    fn successor(&self) -> Result<Option<PathBuf>, ProvenanceError> {
        let Some((next, _)) = self.next else { return Ok(None) };
        let found = segment_files(&self.dir)?.into_iter().find(|(first, _)| *first == next);
        // A segment that is still empty begins with the record that comes next, and is not its own successor.
        Ok(found.map(|(_, path)| path).filter(|path| name(path) != name(&self.current)))
    }

    fn begin(&mut self, path: PathBuf) -> Result<(), ProvenanceError> {
        // Between the listing and now it may have gone to the archive.
        let path = segment_files(&self.dir)?
            .into_iter()
            .map(|(_, present)| present)
            .find(|present| name(present) == name(&path))
            .unwrap_or(path);
        self.current.clone_from(&path);
        let file = match SegmentFile::open(&path) {
            Err(JournalError::Damaged { path: segment, what, .. }) => {
                let record = self.next.map_or(Sequence::START.next(), |(next, _)| next);
                let place = Place { segment, offset: 0 };
                self.found.push_back(Step::Flaw(Flaw { place, record, what }));
                self.next = Some((record, None));
                return Ok(());
            }
            opened => opened?,
        };
        let mut reader = Reader { path, file, offset: 0 };
        let bytes = reader.take(HEADER_LEN).map_err(ProvenanceError::io("read", &reader.path))?;
        let place = Place { segment: reader.path.clone(), offset: 0 };
        let expected = self.next;
        let (record, what) = match Header::decode(&bytes) {
            Ok(header) => {
                self.next = Some((header.first, Some(header.previous)));
                let what = match expected {
                    Some((next, _)) if next < header.first => {
                        Some(format!("records {next} to {} are missing", header.first.get() - 1))
                    }
                    Some((next, _)) if next > header.first => {
                        Some("the segment begins with a record that was there before".to_owned())
                    }
                    Some((_, Some(hash))) if hash != header.previous => {
                        Some("the segment does not follow from the one before".to_owned())
                    }
                    _ => None,
                };
                (expected.map_or(header.first, |(next, _)| next), what)
            }
            Err(what) => {
                let record = expected.map_or(Sequence::START, |(next, _)| next);
                self.next = Some((record, None));
                (record, Some(what.to_owned()))
            }
        };
        self.found.extend(what.map(|what| Step::Flaw(Flaw { place, record, what })));
        reader.offset = HEADER_LEN as u64;
        self.reader = Some(reader);
        Ok(())
    }

    fn link(&mut self, body: Vec<u8>, sound: bool) {
        let Some(reader) = &mut self.reader else { return };
        let place = Place { segment: reader.path.clone(), offset: reader.offset };
        reader.offset += (PREFIX_LEN + body.len()) as u64;
        let (record, previous) = self.next.unwrap_or((Sequence::START, None));
        let mut flaw =
            |what: String| self.found.push_back(Step::Flaw(Flaw { place: place.clone(), record, what }));
        if !sound {
            flaw("its checksum is wrong: it was changed".to_owned());
        }
        let frame = match Frame::decode(&body) {
            Ok(frame) => frame,
            Err(what) => {
                flaw(what.to_owned());
                self.next = Some((record.next(), None));
                return;
            }
        };
        if frame.sequence > record {
            flaw(format!("record {} stands here: something is missing or was moved", frame.sequence));
        } else if frame.sequence < record {
            flaw(format!("record {} stands here: it was moved or repeated", frame.sequence));
        } else if previous.is_some_and(|hash| hash != frame.previous) {
            flaw("it does not follow from the record before, one of the two was changed".to_owned());
        }
        let hash = segment::hash(&body);
        self.next = Some((frame.sequence.next(), Some(hash)));
        self.found.push_back(Step::Link(Link { place, frame, body, hash }));
    }

    fn flaw_here(&mut self, what: String) {
        if let (Some(reader), Some((record, _))) = (&self.reader, self.next) {
            let place = Place { segment: reader.path.clone(), offset: reader.offset };
            self.found.push_back(Step::Flaw(Flaw { place, record, what }));
        }
    }
}

/// What a segment is called, live or archived.
fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.split('.').next()
}

/// What stands at one place in a segment.
enum Found {
    /// A record's bytes behind the prefix, and whether its checksum is right.
    Body(Vec<u8>, bool),
    End,
    NoRecord(String),
}

impl Reader {
    fn read(&mut self) -> std::io::Result<Found> {
        let prefix = self.take(PREFIX_LEN)?;
        if prefix.iter().all(|byte| *byte == 0) && self.only_zeros_follow()? {
            self.file.seek(SeekFrom::Start(self.offset))?;
            return Ok(Found::End);
        }
        let prefix: Result<[u8; PREFIX_LEN], _> = prefix.try_into();
        let Some(prefix) = prefix.ok().and_then(Prefix::decode) else {
            return Ok(Found::NoRecord("what stands here is no record: cut off or overwritten".to_owned()));
        };
        let body = self.take(prefix.length)?;
        if body.len() < prefix.length {
            let missing = prefix.length - body.len();
            return Ok(Found::NoRecord(format!("the record is cut off, {missing} bytes are missing")));
        }
        let sound = prefix.covers(&body);
        Ok(Found::Body(body, sound))
    }

    /// A writer may fill the end of the last segment with zeros in advance.
    fn only_zeros_follow(&mut self) -> std::io::Result<bool> {
        let mut rest = Vec::new();
        self.file.by_ref().take(segment::MAX_PAYLOAD as u64).read_to_end(&mut rest)?;
        Ok(rest.iter().all(|byte| *byte == 0))
    }

    fn take(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        self.file.by_ref().take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
