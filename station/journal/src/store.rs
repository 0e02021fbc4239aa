//! The segment files of a journal, live and archived: listing, creating, finding. Knows nothing of records' meaning.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::JournalError;
use crate::reader::{Position, SegmentReader, Step};
use crate::record::Sequence;
use crate::segment::{Header, RawFrame};

/// The segments of one journal, oldest first; never empty once the journal is open.
pub(crate) struct Store {
    dir: PathBuf,
    segments: RwLock<Vec<Sequence>>,
}

/// What lies in a journal's directory.
pub(crate) struct Listing {
    pub live: Vec<Sequence>,
    pub archived: Vec<Sequence>,
    /// Files that were being made when the power went.
    pub drafts: Vec<PathBuf>,
}

impl Listing {
    pub(crate) fn of(dir: &Path) -> Result<Self, JournalError> {
        let archive = archive_dir(dir);
        let (live, archived) = (names(dir)?, if archive.exists() { names(&archive)? } else { Vec::new() });
        let firsts = |names: &[String], end| {
            let mut firsts: Vec<_> = names.iter().filter_map(|name| first_of(name, end)).collect();
            firsts.sort_unstable();
            firsts
        };
        let drafts = |dir: &Path, names: &[String]| {
            let drafts = names.iter().filter(|name| name.starts_with("segment-") && name.ends_with(".new"));
            drafts.map(|name| dir.join(name)).collect::<Vec<_>>()
        };
        Ok(Self {
            drafts: [drafts(dir, &live), drafts(&archive, &archived)].concat(),
            live: firsts(&live, LIVE),
            archived: firsts(&archived, ARCHIVED),
        })
    }
}

const LIVE: &str = ".log";
const ARCHIVED: &str = ".log.zst";

impl Store {
    /// Finds the segments in `dir`, and changes nothing.
    pub(crate) fn list(dir: &Path) -> Result<Self, JournalError> {
        let Listing { live, archived, .. } = Listing::of(dir)?;
        let mut segments = [live, archived].concat();
        segments.sort_unstable();
        segments.dedup();
        Ok(Self { dir: dir.to_owned(), segments: RwLock::new(segments) })
    }

    /// The first segment; `None` where there is none yet.
    ///
    /// # Errors
    /// It does not hold the first record.
    pub(crate) fn oldest(&self) -> Result<Option<Sequence>, JournalError> {
        match self.segments().first().copied() {
            Some(first) if first != Sequence::START.next() => {
                let what = format!("the records before {first} are missing");
                Err(JournalError::damaged(&self.present_path(first), 0, what))
            }
            oldest => Ok(oldest),
        }
    }

    pub(crate) fn is_last(&self, segment: Sequence) -> bool {
        self.segments().last() == Some(&segment)
    }

    /// Opens a segment, to be read from its first record on.
    pub(crate) fn open(&self, segment: Sequence) -> Result<SegmentReader, JournalError> {
        self.open_at(Position { segment, offset: 0 }, segment)
    }

    /// Opens the segment that follows one that has been read to its end.
    pub(crate) fn successor(&self, read: &SegmentReader) -> Result<SegmentReader, JournalError> {
        let segments = self.segments();
        let after = segments.partition_point(|first| *first <= read.position().segment);
        match segments.get(after) {
            Some(next) if *next == read.next => {
                let successor = self.open(*next)?;
                if read.previous.is_some_and(|hash| successor.previous != Some(hash)) {
                    let what = "the segment does not follow from the one before";
                    return Err(JournalError::damaged(successor.path(), 0, what));
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
        let file = write_durably(&path, &header.encode())?;
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(header.first);
        Ok(file)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a segment is while it is live.
    pub(crate) fn path(&self, first: Sequence) -> PathBuf {
        self.dir.join(Self::name(first))
    }

    /// The name of a live segment's file.
    pub(crate) fn name(first: Sequence) -> String {
        format!("segment-{:020}{LIVE}", first.get())
    }

    /// Where a segment is once it is archived.
    pub(crate) fn archive_path(&self, first: Sequence) -> PathBuf {
        archive_dir(&self.dir).join(format!("segment-{:020}{ARCHIVED}", first.get()))
    }

    /// Where a segment is now.
    pub(crate) fn present_path(&self, first: Sequence) -> PathBuf {
        let live = self.path(first);
        if live.exists() { live } else { self.archive_path(first) }
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
        let reader = self.open_at(position, from)?;
        Ok(Frames { store: Arc::clone(self), reader: Some(reader), until })
    }

    /// A segment moves to the archive once and stays there: who does not find it live finds it there.
    fn open_at(&self, position: Position, next: Sequence) -> Result<SegmentReader, JournalError> {
        let Position { segment, .. } = position;
        match SegmentReader::live(self.path(segment), position, next) {
            Err(JournalError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                SegmentReader::archived(self.archive_path(segment), position, next)
            }
            opened => opened,
        }
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

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a file that is either there as a whole, whatever happens, or not at all. Gives it, positioned at its end.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<File, JournalError> {
    let dir = path.parent().expect("a journal's files are in its directory");
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let write = || -> io::Result<File> {
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        sync_dir(dir)?;
        Ok(file)
    };
    write().map_err(|error| {
        // What is left of it would be swept away at the next start; on a full disk it is in the way now.
        let _ = fs::remove_file(&draft);
        JournalError::io("create", path)(error)
    })
}

/// Where archived segments are.
pub(crate) fn archive_dir(dir: &Path) -> PathBuf {
    dir.join("archive")
}

fn names(dir: &Path) -> Result<Vec<String>, JournalError> {
    let list = || -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    };
    list().map_err(JournalError::io("list", dir))
}

fn first_of(name: &str, end: &str) -> Option<Sequence> {
    let number = name.strip_prefix("segment-")?.strip_suffix(end)?;
    number.parse::<u64>().ok().map(Sequence::from)
}
