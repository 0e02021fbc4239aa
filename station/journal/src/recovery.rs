//! What is done before a journal may be used: every live record is verified, the archive's headers are chained to
//! them, and a torn tail is recognised.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;

use tracing::warn;

use crate::archive::Blocks;
use crate::error::JournalError;
use crate::reader::Position;
use crate::record::Sequence;
use crate::segment::{Hash, proves_durable};
use crate::store::Store;

/// The last record of a log, and where the next one goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// [`Sequence::START`] in an empty log.
    pub sequence: Sequence,
    /// Its hash; zeros in an empty log.
    pub hash: Hash,
    /// When it was committed, if it lies in the last segment; else 0.
    pub time: u64,
    /// Where the next record begins.
    pub end: Position,
}

/// What verification found.
pub(crate) struct Verified {
    pub head: Head,
    /// How many bytes after the head are no record: a write that never finished. Zeros that were put there in advance
    /// do not count.
    pub torn: u64,
}

/// Where a verified segment ends.
struct End {
    path: PathBuf,
    offset: u64,
    next: Sequence,
    hash: Hash,
}

/// Reads the whole live log, and what the archived segments say of themselves; `None` where there is no log yet.
///
/// # Errors
/// The log is damaged anywhere but in a tail that was never durable.
pub(crate) fn verify(store: &Store) -> Result<Option<Verified>, JournalError> {
    if store.oldest()?.is_none() {
        return Ok(None);
    }
    let segments = store.segments();
    let (path, next) = (store.path(Sequence::START.next()), Sequence::START.next());
    let mut end = End { path, offset: 0, next, hash: Hash::default() };
    for segment in segments {
        if segment != end.next {
            let what = format!("the records {}..{segment} are missing", end.next);
            return Err(JournalError::damaged(&end.path, end.offset, what));
        }
        if !store.path(segment).exists() {
            end = archived(store, &end)?;
            continue;
        }
        let mut reader = store.open(segment)?;
        if reader.previous != Some(end.hash) {
            let what = "the segment does not follow from the one before";
            return Err(JournalError::damaged(reader.path(), 0, what));
        }
        let what = reader.walk()?;
        let hash = reader.previous.expect("a segment that is read from its header on knows its last hash");
        let position = reader.position();
        if store.is_last(segment) {
            let tail = if what.is_some() { reader.tail()? } else { Vec::new() };
            if let Some(what) = what
                && proves_durable(&tail, reader.next)
            {
                return Err(reader.damaged(what));
            }
            let sequence = Sequence::from(reader.next.get().saturating_sub(1));
            let head = Head { sequence, hash, time: reader.time, end: position };
            return Ok(Some(Verified { head, torn: tail.len() as u64 }));
        }
        if let Some(what) = what {
            return Err(reader.damaged(what));
        }
        end = End { path: reader.path().to_owned(), offset: position.offset, next: reader.next, hash };
    }
    // The segment that is written to is never archived.
    let what = format!("the records from {} on are missing", end.next);
    Err(JournalError::damaged(&end.path, end.offset, what))
}

/// Believes an archived segment what its header says, if that follows from what was before.
fn archived(store: &Store, before: &End) -> Result<End, JournalError> {
    let path = store.archive_path(before.next);
    let blocks = Blocks::open(&path)?;
    let summary = blocks.summary();
    if summary.first != before.next {
        let what =
            format!("the file is named after record {}, its header says {}", before.next, summary.first);
        return Err(JournalError::damaged(&path, 0, what));
    }
    if summary.previous != before.hash {
        return Err(JournalError::damaged(&path, 0, "the segment does not follow from the one before"));
    }
    Ok(End { offset: summary.length, next: summary.last.next(), hash: summary.head, path })
}

/// Cuts off what is no record, and makes durable what is: the last writer may have died before its sync.
///
/// Gives the last segment, to be written on.
pub(crate) fn settle(store: &Store, verified: &Verified) -> Result<File, JournalError> {
    let Verified { head, torn } = verified;
    let path = store.path(head.end.segment);
    let file = OpenOptions::new().write(true).open(&path).map_err(JournalError::io("open", &path))?;
    if *torn > 0 {
        warn!(path = %path.display(), bytes = torn, last = %head.sequence, "torn tail was cut off the journal");
    }
    file.set_len(head.end.offset).map_err(JournalError::io("cut", &path))?;
    file.sync_all().map_err(JournalError::io("sync", &path))?;
    Ok(file)
}
