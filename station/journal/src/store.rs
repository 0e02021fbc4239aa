//! The segment files of a journal: listing, creating and reading them. Knows nothing of records' meaning.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::JournalError;
use crate::record::Sequence;
use crate::segment::{Frame, HEADER_LEN, Hash, Header, PREFIX_LEN, Prefix, RawFrame, hash};

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The first sequence of the segment that holds it.
    pub segment: Sequence,
    /// Its first byte there.
    pub offset: u64,
}

/// The segments of one journal, oldest first; never empty once the journal is open.
pub(crate) struct Store {
    dir: PathBuf,
    segments: RwLock<Vec<Sequence>>,
}

impl Store {
    /// Finds the segments in `dir`, and changes nothing.
    pub(crate) fn list(dir: &Path) -> Result<Self, JournalError> {
        let mut segments: Vec<_> = names(dir)?.iter().filter_map(|name| first_of(name)).collect();
        segments.sort_unstable();
        Ok(Self { dir: dir.to_owned(), segments: RwLock::new(segments) })
    }

    /// Finds the segments in `dir`; sweeps away one that was being created when the power went.
    pub(crate) fn find(dir: &Path) -> Result<Self, JournalError> {
        for name in names(dir)?.iter().filter(|name| name.ends_with(".log.new")) {
            let path = dir.join(name);
            fs::remove_file(&path).map_err(JournalError::io("remove", &path))?;
        }
        Self::list(dir)
    }

    /// The first segment; `None` where there is none yet.
    ///
    /// # Errors
    /// It does not hold the first record.
    pub(crate) fn oldest(&self) -> Result<Option<Sequence>, JournalError> {
        match self.segments().first().copied() {
            Some(first) if first != Sequence::START.next() => {
                let what = format!("the records before {first} are missing");
                Err(JournalError::damaged(&self.path(first), 0, what))
            }
            oldest => Ok(oldest),
        }
    }

    pub(crate) fn is_last(&self, segment: Sequence) -> bool {
        self.segments().last() == Some(&segment)
    }

    /// Opens a segment, to be read from its first record on.
    pub(crate) fn open(&self, segment: Sequence) -> Result<SegmentReader, JournalError> {
        SegmentReader::open(self.path(segment), segment)
    }

    /// Opens the segment that follows one that has been read to its end.
    pub(crate) fn successor(&self, read: &SegmentReader) -> Result<SegmentReader, JournalError> {
        let segments = self.segments();
        let after = segments.partition_point(|first| *first <= read.segment);
        match segments.get(after) {
            Some(next) if *next == read.next => {
                let successor = self.open(*next)?;
                if read.previous.is_some_and(|hash| successor.previous != Some(hash)) {
                    let what = "the segment does not follow from the one before";
                    return Err(JournalError::damaged(&successor.path, 0, what));
                }
                Ok(successor)
            }
            Some(next) => Err(read.damaged(format!("the records {}..{next} are missing", read.next))),
            None => Err(read.damaged(format!("the records from {} on are missing", read.next))),
        }
    }

    /// Adds an empty segment, durably: no crash leaves half a header.
    pub(crate) fn create(&self, header: &Header) -> Result<File, JournalError> {
        let path = self.path(header.first);
        let draft = path.with_extension("log.new");
        let write = || -> io::Result<File> {
            let mut file = File::create(&draft)?;
            file.write_all(&header.encode())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            sync_dir(&self.dir)?;
            Ok(file)
        };
        let file = write().map_err(JournalError::io("create", &path))?;
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(header.first);
        Ok(file)
    }

    pub(crate) fn path(&self, first: Sequence) -> PathBuf {
        self.dir.join(format!("segment-{:020}.log", first.get()))
    }

    pub(crate) fn segments(&self) -> Vec<Sequence> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the records `from..=until`, or from the oldest one on if `from` is older; `until` must be durable.
    pub(crate) fn read(self: &Arc<Self>, from: Sequence, until: Sequence) -> Result<Frames, JournalError> {
        let segments = self.segments();
        let holder = segments.partition_point(|first| *first <= from).saturating_sub(1);
        let Some(first) = segments.get(holder) else {
            return Ok(Frames { store: Arc::clone(self), reader: None, until });
        };
        let mut reader = self.open(*first)?;
        while reader.next < from && reader.next <= until {
            if !matches!(reader.step()?, Step::Frame(..)) {
                break;
            }
        }
        Ok(Frames { store: Arc::clone(self), reader: Some(reader), until })
    }

    /// Goes on reading at `position`, where the record `from` begins (or its segment ends).
    pub(crate) fn resume(
        self: &Arc<Self>,
        position: Position,
        from: Sequence,
        until: Sequence,
    ) -> Result<Frames, JournalError> {
        let reader = SegmentReader::resume(self.path(position.segment), position, from)?;
        Ok(Frames { store: Arc::clone(self), reader: Some(reader), until })
    }
}

/// A walk over records, from segment to segment; every link of the chain is checked on the way.
pub(crate) struct Frames {
    store: Arc<Store>,
    /// `None` after the end or an error.
    reader: Option<SegmentReader>,
    until: Sequence,
}

impl Frames {
    /// Where the next record will begin, if there is more to come.
    pub(crate) fn position(&self) -> Option<Position> {
        self.reader.as_ref().map(SegmentReader::position)
    }

    /// The next record and where it begins.
    pub(crate) fn step(&mut self) -> Result<Option<(Position, RawFrame)>, JournalError> {
        while let Some(mut reader) = self.reader.take_if(|reader| reader.next <= self.until) {
            let position = reader.position();
            match reader.step()? {
                Step::Frame(raw) => {
                    self.reader = Some(reader);
                    return Ok(Some((position, raw)));
                }
                Step::End => self.reader = Some(self.store.successor(&reader)?),
                Step::NoRecord(what) => return Err(reader.damaged(what)),
            }
        }
        Ok(None)
    }
}

/// What stands at one place in a segment.
pub(crate) enum Step {
    /// A record.
    Frame(RawFrame),
    /// Nothing: the file ends here.
    End,
    /// Bytes that are no whole record, and why not.
    NoRecord(&'static str),
}

/// Reads one segment from front to back, a record at a time.
pub(crate) struct SegmentReader {
    path: PathBuf,
    file: BufReader<File>,
    segment: Sequence,
    pub(crate) offset: u64,
    pub(crate) next: Sequence,
    /// Unknown where reading began in the middle.
    pub(crate) previous: Option<Hash>,
}

impl SegmentReader {
    /// Opens the segment whose first record is `first`, and reads its header.
    pub(crate) fn open(path: PathBuf, first: Sequence) -> Result<Self, JournalError> {
        let mut file = BufReader::new(File::open(&path).map_err(JournalError::io("open", &path))?);
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        let limit = HEADER_LEN as u64;
        file.by_ref().take(limit).read_to_end(&mut bytes).map_err(JournalError::io("read", &path))?;
        let header = Header::decode(&bytes).map_err(|what| JournalError::damaged(&path, 0, what))?;
        if header.first != first {
            let what = format!("the file is named after record {first}, its header says {}", header.first);
            return Err(JournalError::damaged(&path, 0, what));
        }
        let previous = Some(header.previous);
        Ok(Self { path, file, segment: first, offset: limit, next: first, previous })
    }

    fn resume(path: PathBuf, position: Position, next: Sequence) -> Result<Self, JournalError> {
        let Position { segment, offset } = position;
        let mut file = File::open(&path).map_err(JournalError::io("open", &path))?;
        file.seek(SeekFrom::Start(offset)).map_err(JournalError::io("read", &path))?;
        Ok(Self { path, file: BufReader::new(file), segment, offset, next, previous: None })
    }

    /// Reads what stands at the current offset; moves on only over a record.
    pub(crate) fn step(&mut self) -> Result<Step, JournalError> {
        let prefix = self.read_up_to(PREFIX_LEN)?;
        if prefix.is_empty() {
            return Ok(Step::End);
        }
        let Ok(prefix) = prefix.try_into() else { return Ok(Step::NoRecord("the record is incomplete")) };
        let Some(prefix) = Prefix::decode(prefix) else {
            return Ok(Step::NoRecord("the record's length is impossible"));
        };
        let body = self.read_up_to(prefix.length)?;
        if body.len() < prefix.length {
            return Ok(Step::NoRecord("the record is incomplete"));
        }
        if !prefix.covers(&body) {
            return Ok(Step::NoRecord("the record's checksum is wrong"));
        }

        // From here on it is what somebody wrote, so a mistake in it is never a torn write.
        let frame = Frame::decode(&body).map_err(|what| self.damaged(what))?;
        if frame.sequence != self.next {
            return Err(self.damaged(format!("record {} stands where {} should", frame.sequence, self.next)));
        }
        if self.previous.is_some_and(|hash| hash != frame.previous) {
            return Err(self.damaged("the record does not follow from the one before"));
        }
        let hash = hash(&body);
        self.offset += (PREFIX_LEN + body.len()) as u64;
        self.next = frame.sequence.next();
        self.previous = Some(hash);
        Ok(Step::Frame(RawFrame { frame, hash, body }))
    }

    /// Forgets what was read ahead, as a writer may have changed it since.
    pub(crate) fn rewind(&mut self) -> Result<(), JournalError> {
        self.file.seek(SeekFrom::Start(self.offset)).map_err(JournalError::io("read", &self.path))?;
        Ok(())
    }

    /// The bytes from the current offset on, without the zeros at the end of the file.
    pub(crate) fn tail(&self) -> Result<Vec<u8>, JournalError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            let mut rest = Vec::new();
            file.read_to_end(&mut rest)?;
            rest.truncate(rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            Ok(rest)
        };
        read().map_err(JournalError::io("read", &self.path))
    }

    /// How many bytes the file has.
    pub(crate) fn length(&self) -> Result<u64, JournalError> {
        let length = fs::metadata(&self.path).map(|metadata| metadata.len());
        length.map_err(JournalError::io("read", &self.path))
    }

    pub(crate) fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> JournalError {
        JournalError::damaged(&self.path, self.offset, what)
    }

    fn read_up_to(&mut self, length: usize) -> Result<Vec<u8>, JournalError> {
        let mut bytes = Vec::with_capacity(length);
        let read = self.file.by_ref().take(length as u64).read_to_end(&mut bytes);
        read.map_err(JournalError::io("read", &self.path))?;
        Ok(bytes)
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn names(dir: &Path) -> Result<Vec<String>, JournalError> {
    let list = || -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    };
    list().map_err(JournalError::io("list", dir))
}

fn first_of(name: &str) -> Option<Sequence> {
    let number = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    number.parse::<u64>().ok().map(Sequence::from)
}
