//! Checks everything that a journal holds, segment by segment, and goes on after damage.
//!
//! Works beside a station that has the journal open.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::compaction;
use crate::error::JournalError;
use crate::log::{Found, read_on};
use crate::reader::SegmentReader;
use crate::record::Sequence;
use crate::segment::Hash;
use crate::store::Store;

/// What was found in one segment.
#[derive(Debug)]
pub struct Finding {
    /// Its file.
    pub path: PathBuf,
    /// Whether it lies in the archive.
    pub archived: bool,
    /// The sequence of its first record.
    pub first: Sequence,
    /// How many sound records were read, from its beginning on.
    pub records: u64,
    /// When the first and the last of them were committed.
    pub times: Option<(SystemTime, SystemTime)>,
    /// The hash of the last of them, or else of the record before the segment.
    pub hash: Hash,
    /// How many bytes after the last record are none, as the power leaves them that interrupts a write.
    pub torn: u64,
    /// The damage that ended the reading.
    pub damage: Option<JournalError>,
}

/// A walk over the segments of a journal, oldest first.
pub struct Audit {
    dir: PathBuf,
    /// The segments up to this one were checked.
    done: Option<Sequence>,
    /// Where the one before ended; unknown after damage.
    end: Option<(Sequence, Hash)>,
}

impl Audit {
    /// Begins the check of the journal in `dir`.
    ///
    /// # Errors
    /// There is no journal, or the directory cannot be read.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, JournalError> {
        let dir = dir.as_ref().to_owned();
        if Store::list(&dir)?.segments().is_empty() {
            return Err(JournalError::Nothing { dir });
        }
        Ok(Self { dir, done: None, end: Some((Sequence::START.next(), Hash::default())) })
    }

    fn step(&mut self) -> Result<Option<Finding>, JournalError> {
        let store = Store::list(&self.dir)?;
        let next = store.segments().into_iter().find(|segment| self.done.is_none_or(|done| done < *segment));
        let Some(first) = next else { return Ok(None) };
        let mut finding = Finding {
            path: store.present_path(first),
            archived: !store.path(first).exists(),
            first,
            records: 0,
            times: None,
            hash: Hash::default(),
            torn: 0,
            damage: None,
        };
        let before = self.end.take();
        match self.check(&store, &mut finding, before) {
            Ok(end) => self.end = Some(end),
            Err(damage) => finding.damage = Some(damage),
        }
        self.done = Some(first);
        Ok(Some(finding))
    }

    /// Fills the finding as far as it gets; says where the next segment must begin.
    fn check(
        &self,
        store: &Store,
        finding: &mut Finding,
        before: Option<(Sequence, Hash)>,
    ) -> Result<(Sequence, Hash), JournalError> {
        let Finding { first, .. } = *finding;
        let mut reader = store.open(first)?;
        let header = reader.header().expect("it was just read");
        finding.hash = header.previous;
        match before {
            Some((next, _)) if next != first => {
                let what = format!("the records {next}..{first} are missing before it");
                return Err(JournalError::damaged(&finding.path, 0, what));
            }
            Some((_, hash)) if hash != header.previous => {
                let what = "the segment does not follow from the one before";
                return Err(JournalError::damaged(&finding.path, 0, what));
            }
            _ => {}
        }
        self.walk(&mut reader, finding)?;
        if reader.is_archived() {
            compaction::verify(reader.path(), first)?;
        }
        Ok((reader.next, finding.hash))
    }

    fn walk(&self, reader: &mut SegmentReader, finding: &mut Finding) -> Result<(), JournalError> {
        loop {
            match read_on(&self.dir, reader)? {
                Found::Record(raw) => {
                    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(raw.frame.time);
                    finding.times = Some((finding.times.map_or(time, |(first, _)| first), time));
                    finding.hash = raw.hash;
                    finding.records += 1;
                }
                Found::Successor(_) => return Ok(()),
                Found::End { torn } => {
                    finding.torn = torn;
                    return Ok(());
                }
            }
        }
    }
}

impl Iterator for Audit {
    type Item = Result<Finding, JournalError>;

    /// An error ends the walk: the directory cannot be read any more. Damage is in the findings.
    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
