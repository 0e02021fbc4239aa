//! What is done before a journal may be used: every record is verified, and a torn tail recognised.

use std::fs::{File, OpenOptions};

use tracing::warn;

use crate::error::JournalError;
use crate::record::Sequence;
use crate::segment::{Hash, proves_durable};
use crate::store::{Position, SegmentReader, Step, Store};

/// The last record of a log, and where the next one goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// [`Sequence::START`] in an empty log.
    pub sequence: Sequence,
    /// Its hash; zeros in an empty log.
    pub hash: Hash,
    /// Where the next record begins.
    pub end: Position,
}

/// What verification found.
pub(crate) struct Verified {
    pub head: Head,
    /// How many bytes after the head are no record: a write that never finished.
    pub torn: u64,
}

/// Reads the whole log; `None` where there is none yet.
///
/// # Errors
/// The log is damaged anywhere but in a tail that was never durable.
pub(crate) fn verify(store: &Store) -> Result<Option<Verified>, JournalError> {
    let Some(oldest) = store.oldest()? else { return Ok(None) };
    let mut reader = store.open(oldest)?;
    let mut what = walk(&mut reader)?;
    while !store.is_last(reader.position().segment) {
        if let Some(what) = what {
            return Err(reader.damaged(what));
        }
        reader = store.successor(&reader)?;
        what = walk(&mut reader)?;
    }
    if let Some(what) = what
        && proves_durable(&reader.tail()?, reader.next)
    {
        return Err(reader.damaged(what));
    }
    let torn = reader.length()? - reader.position().offset;
    let sequence = Sequence::from(reader.next.get().saturating_sub(1));
    let hash = reader.previous.expect("a segment that is read from its header on knows its last hash");
    Ok(Some(Verified { head: Head { sequence, hash, end: reader.position() }, torn }))
}

/// Cuts off what is no record, and makes durable what is: the last writer may have died before its sync.
///
/// Gives the last segment, to be written on.
pub(crate) fn settle(store: &Store, verified: &Verified) -> Result<File, JournalError> {
    let Verified { head, torn } = verified;
    let path = store.path(head.end.segment);
    let file = OpenOptions::new().append(true).open(&path).map_err(JournalError::io("open", &path))?;
    if *torn > 0 {
        file.set_len(head.end.offset).map_err(JournalError::io("cut", &path))?;
        warn!(path = %path.display(), bytes = torn, last = %head.sequence, "torn tail was cut off the journal");
    }
    file.sync_all().map_err(JournalError::io("sync", &path))?;
    Ok(file)
}

/// Reads to the end of a segment; says why, if that comes before the end of the file.
fn walk(reader: &mut SegmentReader) -> Result<Option<&'static str>, JournalError> {
    loop {
        match reader.step()? {
            Step::Frame(..) => {}
            Step::End => return Ok(None),
            Step::NoRecord(what) => return Ok(Some(what)),
        }
    }
}
