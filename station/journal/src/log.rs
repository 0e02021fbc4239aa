//! Reads a journal's bytes without its lock and without knowing what its records mean: for checks and copies.
//!
//! Works on a directory that nobody uses and on one that a station writes at the same moment.

use std::path::{Path, PathBuf};

use crate::error::JournalError;
use crate::reader::{SegmentReader, Step};
use crate::record::Sequence;
use crate::segment::{Hash, Header, RawFrame, proves_durable};
use crate::store::Store;

/// A walk over all records, oldest first; every link of the chain is checked on the way.
///
/// It ends where the log ends at that moment. Of a journal that is being written it may see records that are not
/// durable yet. After an error it has ended.
pub struct Log {
    dir: PathBuf,
    /// `None` before the first segment, at the end and after an error.
    reader: Option<SegmentReader>,
    begun: bool,
    torn: u64,
    head: (Sequence, Hash),
}

impl Log {
    /// Begins a walk over the journal in `dir`.
    ///
    /// # Errors
    /// There is no such directory, or it cannot be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, JournalError> {
        let dir = dir.as_ref().to_owned();
        Store::list(&dir)?;
        Ok(Self { dir, reader: None, begun: false, torn: 0, head: (Sequence::START, Hash::default()) })
    }

    /// The last record that was handed out, and its hash; [`Sequence::START`] and zeros before the first.
    pub fn head(&self) -> (Sequence, Hash) {
        self.head
    }

    /// After the end: how many bytes follow the last record that are no whole record, as a write leaves them that
    /// the power interrupted; a write that goes on at this moment looks the same. Zeros that a writer put there in
    /// advance do not count.
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// The header of the segment that holds the last record that was handed out; `None` before the first and after
    /// the end.
    pub fn segment(&self) -> Option<&Header> {
        self.reader.as_ref().and_then(SegmentReader::header)
    }

    fn step(&mut self) -> Result<Option<RawFrame>, JournalError> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None if self.begun => return Ok(None),
            None => {
                self.begun = true;
                let store = Store::list(&self.dir)?;
                let Some(oldest) = store.oldest()? else { return Ok(None) };
                store.open(oldest)?
            }
        };
        loop {
            match read_on(&self.dir, &mut reader)? {
                Found::Record(raw) => {
                    self.reader = Some(reader);
                    self.head = (raw.frame.sequence, raw.hash);
                    return Ok(Some(raw));
                }
                Found::Successor(store) => reader = store.successor(&reader)?,
                Found::End { torn } => {
                    self.torn = torn;
                    return Ok(None);
                }
            }
        }
    }
}

impl Iterator for Log {
    type Item = Result<RawFrame, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// What comes next in a segment that somebody may be writing.
pub(crate) enum Found {
    Record(RawFrame),
    /// The segment is finished, and there are later ones.
    Successor(Store),
    /// The log ends here.
    End {
        torn: u64,
    },
}

/// Reads on in a segment of the journal in `dir`.
pub(crate) fn read_on(dir: &Path, reader: &mut SegmentReader) -> Result<Found, JournalError> {
    if let Step::Frame(raw) = reader.step()? {
        return Ok(Found::Record(raw));
    }
    // A writer goes on meanwhile. When the successor of a segment is listed, the segment is finished: only what is
    // read after that is its end.
    let store = Store::list(dir)?;
    let last = store.is_last(reader.position().segment);
    reader.rewind()?;
    match reader.step()? {
        Step::Frame(raw) => Ok(Found::Record(raw)),
        Step::End if last && reader.is_archived() => {
            Err(reader.damaged(format!("the records from {} on are missing", reader.next)))
        }
        Step::End if last => Ok(Found::End { torn: 0 }),
        Step::End => Ok(Found::Successor(store)),
        Step::NoRecord(what) if last => end(reader, what),
        Step::NoRecord(what) => Err(reader.damaged(what)),
    }
}

/// Judges bytes after the last record.
fn end(reader: &mut SegmentReader, what: &str) -> Result<Found, JournalError> {
    let tail = reader.tail()?;
    // Read after the tail was: where a later batch stands in the tail, this record is whole by now.
    reader.rewind()?;
    if let Step::Frame(raw) = reader.step()? {
        return Ok(Found::Record(raw));
    }
    if proves_durable(&tail, reader.next) {
        return Err(reader.damaged(what));
    }
    Ok(Found::End { torn: tail.len() as u64 })
}
