//! Brings the index level with the log, whatever state it is in.

use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use crate::error::JournalError;
use crate::index::{Content, Index, Note};
use crate::period::find_frames;
use crate::reader::Position;
use crate::record::{Cursor, Entry, Keys, Record, Sequence};
use crate::recovery::Head;
use crate::segment::{Frame, Kind, RawFrame};
use crate::store::Store;

/// So many records are held in memory while the index learns them.
const PAGE: usize = 1024;

/// Opens the index of a log that ends at `head`; an index that tells another story is thrown away.
///
/// # Errors
/// The index knows of records that the log has lost.
pub(crate) fn open_index<R: Record>(
    dir: &Path,
    store: &Arc<Store>,
    head: Option<Head>,
) -> Result<Index, JournalError> {
    match Index::open(dir, R::KEYS).and_then(|index| judge::<R>(index, dir, store, head)) {
        Err(JournalError::Index { reason }) => {
            warn!(reason, "journal index is rebuilt from the log");
            Index::begin_anew(dir, R::KEYS)
        }
        judged => judged,
    }
}

fn judge<R: Record>(
    index: Index,
    dir: &Path,
    store: &Arc<Store>,
    head: Option<Head>,
) -> Result<Index, JournalError> {
    let found = head.map_or(Sequence::START, |head| head.sequence);
    let Some((acknowledged, hash)) = index.head()? else {
        if found > Sequence::START {
            warn!(last = %found, "journal index is missing and is rebuilt from the log");
        }
        return Ok(index);
    };
    if acknowledged > found {
        let dir = dir.parent().unwrap_or(dir).to_owned();
        return Err(JournalError::Lost { dir, acknowledged, found });
    }
    if index.keys() != R::KEYS {
        return Err(JournalError::Index { reason: "it was made for other keys of the records".to_owned() });
    }
    match find_frames(store, &index, acknowledged, acknowledged)?.step()? {
        Some((_, raw)) if raw.hash == hash => Ok(index),
        _ => {
            Err(JournalError::Index { reason: format!("it disagrees with the log on record {acknowledged}") })
        }
    }
}

/// Teaches the index what it has not learnt yet, up to record `last`.
pub(crate) fn catch_up<R: Record>(
    index: &Index,
    store: &Arc<Store>,
    last: Sequence,
) -> Result<(), JournalError> {
    let learnt = index.head()?.map_or(Sequence::START, |(sequence, _)| sequence);
    let mut frames = store.read(learnt.next(), last)?;
    let mut notes = Vec::with_capacity(PAGE);
    while let Some((position, raw)) = frames.step()? {
        notes.push(note::<R>(position, &raw)?);
        if notes.len() == PAGE {
            index.learn(&notes)?;
            notes.clear();
        }
    }
    index.learn(&notes)
}

fn note<R: Record>(position: Position, raw: &RawFrame) -> Result<Note, JournalError> {
    let Frame { sequence, time, .. } = raw.frame;
    let content = match raw.frame.kind {
        Kind::Record => {
            let entry = Entry::<R>::from_frame(raw)?;
            Content::Record(entry.map_or_else(Keys::default, |entry| entry.record.keys()))
        }
        Kind::Cursor => {
            let cursor = minicbor::decode::<Cursor>(&raw.frame.payload);
            Content::Cursor(cursor.map_err(|source| JournalError::Decode { sequence, source })?)
        }
    };
    Ok(Note { sequence, hash: raw.hash, time, position, content })
}
