//! Moves closed segments to the archive, and settles what a crash left between the two places.
//!
//! The archived file is whole and durable before the live one is removed. A crash in between leaves both, and the
//! next start removes the one that is not needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::archive::{BLOCK_BYTES, Blocks, Summary, encode};
use crate::error::JournalError;
use crate::journal::lock_existing;
use crate::log::Log;
use crate::reader::{Position, SegmentReader, Step};
use crate::record::{Cursor, Sequence};
use crate::segment::Kind;
use crate::store::{Listing, Store, archive_dir, sync_dir, write_durably};

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Segments that were moved to the archive.
    pub segments: u64,
    /// Their size before, in bytes.
    pub before: u64,
    /// Their size there, in bytes.
    pub after: u64,
}

/// Archives the closed segments that all of these receivers have acknowledged, of a journal that nobody has open;
/// without any receivers, all closed segments. Needs no index and does not know the records. Blocks.
///
/// # Errors
/// Somebody has the journal open; there is none; it is damaged; the system refuses something.
pub fn compact_offline(dir: impl AsRef<Path>, receivers: &[&str]) -> Result<Compaction, JournalError> {
    let dir = dir.as_ref();
    let _lock = lock_existing(dir)?;
    settle(dir)?;
    let mut log = Log::open(dir)?;
    let mut cursors: BTreeMap<String, Sequence> = BTreeMap::new();
    for raw in log.by_ref() {
        let frame = raw?.frame;
        if frame.kind == Kind::Cursor {
            let decoded = minicbor::decode::<Cursor>(&frame.payload);
            let cursor =
                decoded.map_err(|source| JournalError::Decode { sequence: frame.sequence, source })?;
            cursors.insert(cursor.receiver, cursor.sequence);
        }
    }
    let cursor = |receiver: &&str| cursors.get(*receiver).copied().unwrap_or(Sequence::START);
    let acknowledged = receivers.iter().map(cursor).min().unwrap_or(log.head().0);
    compact(&Store::list(dir)?, acknowledged)
}

/// Archives the closed segments of which no record is after `acknowledged`.
pub(crate) fn compact(store: &Store, acknowledged: Sequence) -> Result<Compaction, JournalError> {
    let mut done = Compaction::default();
    let segments = store.segments();
    for pair in segments.windows(2) {
        let (segment, successor) = (pair[0], pair[1]);
        if successor.get() - 1 > acknowledged.get() {
            break;
        }
        if !store.path(segment).exists() {
            continue;
        }
        let (before, after) = archive(store, segment, successor)?;
        done.segments += 1;
        done.before += before;
        done.after += after;
    }
    if done.segments > 0 {
        info!(segments = done.segments, before = done.before, after = done.after, "journal compacted");
    }
    Ok(done)
}

fn archive(store: &Store, first: Sequence, successor: Sequence) -> Result<(u64, u64), JournalError> {
    let (live, archived) = (store.path(first), store.archive_path(first));
    let dir = archive_dir(store.dir());
    fs::create_dir_all(&dir).map_err(JournalError::io("create", &dir))?;
    sync_dir(store.dir()).map_err(JournalError::io("sync", store.dir()))?;

    let (summary, begins) = survey(&live, first)?;
    if summary.last.next() != successor {
        let what = format!("the records {}..{successor} are missing", summary.last.next());
        return Err(JournalError::damaged(&live, summary.length, what));
    }
    let segment = fs::read(&live).map_err(JournalError::io("read", &live))?;
    let summary = Summary { digest: Sha256::digest(&segment).into(), ..summary };
    let bytes = encode(&summary, &segment, &begins).map_err(JournalError::io("compress", &live))?;
    write_durably(&archived, &bytes)?;

    // What cannot be read back is not a reason to remove anything.
    if let Err(error) = verify(&archived, first) {
        fs::remove_file(&archived).map_err(JournalError::io("remove", &archived))?;
        return Err(error);
    }
    fs::remove_file(&live).map_err(JournalError::io("remove", &live))?;
    sync_dir(store.dir()).map_err(JournalError::io("sync", store.dir()))?;
    Ok((segment.len() as u64, bytes.len() as u64))
}

/// Verifies a closed segment; says what it holds and where its blocks shall begin.
fn survey(live: &Path, first: Sequence) -> Result<(Summary, Vec<u64>), JournalError> {
    let mut reader = SegmentReader::live(live.to_owned(), Position { segment: first, offset: 0 }, first)?;
    let previous = reader.previous.expect("a segment that is read from its header on knows its last hash");
    let mut begins = vec![0];
    loop {
        let offset = reader.position().offset;
        match reader.step()? {
            Step::Frame(_) if offset - begins[begins.len() - 1] >= BLOCK_BYTES as u64 => begins.push(offset),
            Step::Frame(_) => {}
            Step::End => break,
            Step::NoRecord(what) => return Err(reader.damaged(what)),
        }
    }
    let head = reader.previous.expect("as above");
    let last = Sequence::from(reader.next.get() - 1);
    let (length, digest) = (reader.position().offset, [0; 32]);
    Ok((Summary { first, last, previous, head, length, digest }, begins))
}

/// Verifies an archived segment alone: its bytes, its chain, and what its header says of it.
pub(crate) fn verify(path: &Path, first: Sequence) -> Result<Summary, JournalError> {
    let mut blocks = Blocks::open(path)?;
    let summary = blocks.summary().clone();
    // A block that does not decompress is told with its place by the walk below.
    let whole = blocks.is_whole().unwrap_or(false);
    let mut reader = SegmentReader::archived(path.to_owned(), Position { segment: first, offset: 0 }, first)?;
    let previous = reader.previous;
    if let Some(what) = reader.walk()? {
        return Err(reader.damaged(what));
    }
    let found = (first, previous, reader.next, reader.previous);
    if found != (summary.first, Some(summary.previous), summary.last.next(), Some(summary.head)) || !whole {
        return Err(JournalError::damaged(
            path,
            0,
            "the segment is not the one that the archive's header describes",
        ));
    }
    Ok(summary)
}

/// Removes drafts, and of each segment that is in both places one file.
pub(crate) fn settle(dir: &Path) -> Result<(), JournalError> {
    let Listing { live, archived, drafts } = Listing::of(dir)?;
    for draft in drafts {
        fs::remove_file(&draft).map_err(JournalError::io("remove", &draft))?;
    }
    let store = Store::list(dir)?;
    for segment in live.iter().copied().filter(|segment| archived.contains(segment)) {
        let archived = store.archive_path(segment);
        let superfluous = match verify(&archived, segment) {
            Ok(_) => store.path(segment),
            // It was never relied upon: the live one is still there.
            Err(error) => {
                warn!(%error, "archived segment was not finished and is removed");
                archived
            }
        };
        fs::remove_file(&superfluous).map_err(JournalError::io("remove", &superfluous))?;
    }
    Ok(())
}
