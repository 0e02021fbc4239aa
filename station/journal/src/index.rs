//! What can be looked up: records by their keys, their positions, the receivers' cursors. The only file that names sled.
//!
//! Nothing here is the truth. The index is not synced, so after a crash it lags; it may be damaged or gone. What it
//! learns at once it learns as a whole, and it remembers the last record it learnt of: the log knows the rest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::error::JournalError;
use crate::reader::Position;
use crate::record::{Cursor, Keys, Sequence};
use crate::segment::Hash;

/// What records can be found by.
#[derive(Clone, Copy)]
pub(crate) enum Topic {
    Unit,
    Run,
    Order,
    Mark,
}

impl Topic {
    const ALL: [Self; 4] = [Self::Unit, Self::Run, Self::Order, Self::Mark];

    /// A record's keys of this kind.
    pub(crate) fn of(self, keys: &Keys) -> impl Iterator<Item = &str> {
        let (one, marks) = match self {
            Self::Unit => (keys.unit.as_deref(), None),
            Self::Run => (keys.run.as_deref(), None),
            Self::Order => (keys.order.as_deref(), None),
            Self::Mark => (None, Some(&keys.marks)),
        };
        one.into_iter().chain(marks.into_iter().flatten().map(String::as_str))
    }
}

/// What the index learns about one record.
pub(crate) struct Note {
    pub sequence: Sequence,
    pub hash: Hash,
    /// Nanoseconds since 1970 UTC.
    pub time: u64,
    pub position: Position,
    pub content: Content,
}

/// What there is to learn from a record.
pub(crate) enum Content {
    Record(Keys),
    Cursor(Cursor),
}

/// An open index.
pub(crate) struct Index {
    db: sled::Db,
    /// See [`crate::Record::KEYS`].
    keys: u8,
    learnt: Mutex<Learnt>,
    failure: OnceLock<String>,
}

/// Where learning has arrived.
#[derive(Clone, Copy, Default)]
struct Learnt {
    sequence: Sequence,
    hash: Hash,
    /// The number of entries that are never overwritten: if one gets lost, somebody must notice.
    count: u64,
    minute: u64,
}

/// What the index was made for that does not say so itself, being older than that.
const OLDEST_KEYS: u8 = 1;

const HEAD: &[u8] = b"h";
const CURSOR: u8 = b'c';
const LANDMARK: u8 = b'p';
const MINUTE: u8 = b't';

/// Times are found this exactly; who looks for one walks on from there.
const NANOS_OF_MINUTE: u64 = 60_000_000_000;

/// The index knows the position of every so manieth record; who looks for another walks on from there. With all
/// positions a rebuild takes twice as long (204 800 records: 6.7 s instead of 3.7 s).
const LANDMARKS: u64 = 32;

/// sled takes this many records at once. More cost it memory out of all proportion: rebuilding 228 000 records took
/// 2.7 GB with 1024 at once, 120 MB with 64.
const LESSON: usize = 64;

// Most of the index is never asked for; the page cache serves the rest.
const CACHE_BYTES: u64 = 16 << 20;

impl Index {
    /// Opens the index in `dir`, or begins one, made for these `keys`; and checks it whole.
    pub(crate) fn open(dir: &Path, keys: u8) -> Result<Self, JournalError> {
        // Nobody waits for the index, so no thread has to flush it: closing it does.
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let (db, count) = guard(|| {
            let db = open_released(&config)?;
            let mut count = 0;
            for item in db.iter() {
                let (key, _) = item?;
                count += u64::from(key[0] != CURSOR && *key != *HEAD);
            }
            Ok((db, count))
        })
        .map_err(|reason| JournalError::Index { reason })?;

        let mut index = Self { db, keys, learnt: Mutex::default(), failure: OnceLock::new() };
        let learnt = match index.head_entry()? {
            Some((learnt, keys)) => {
                index.keys = keys;
                learnt
            }
            None => Learnt::default(),
        };
        if count != learnt.count {
            let reason = format!("it holds {count} entries instead of {}", learnt.count);
            return Err(JournalError::Index { reason });
        }
        index.learnt = Mutex::new(learnt);
        Ok(index)
    }

    /// Throws the index away and begins an empty one.
    pub(crate) fn begin_anew(dir: &Path, keys: u8) -> Result<Self, JournalError> {
        Self::remove(dir)?;
        Self::open(dir, keys)
    }

    /// Which keys it was made for.
    pub(crate) fn keys(&self) -> u8 {
        self.keys
    }

    /// Throws the index away.
    pub(crate) fn remove(dir: &Path) -> Result<(), JournalError> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::io("remove", dir)(error))
            }
            _ => Ok(()),
        }
    }

    /// The last record it learnt of, and that record's hash.
    pub(crate) fn head(&self) -> Result<Option<(Sequence, Hash)>, JournalError> {
        Ok(self.head_entry()?.map(|(learnt, _)| (learnt.sequence, learnt.hash)))
    }

    /// Learns about records, in their order. After a failure it learns no more, and knows nothing.
    pub(crate) fn learn(&self, notes: &[Note]) -> Result<(), JournalError> {
        notes.chunks(LESSON).try_for_each(|lesson| self.learn_at_once(lesson))
    }

    fn learn_at_once(&self, lesson: &[Note]) -> Result<(), JournalError> {
        let mut batch = sled::Batch::default();
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let mut after = *learnt;
        for Note { sequence, hash, time, position, content } in lesson {
            if *sequence == landmark_of(*sequence) {
                batch.insert(landmark_key(*sequence), landmark_value(*position));
                after.count += 1;
            }
            let minute = minute_of(*time);
            if minute != after.minute || after.sequence == Sequence::START {
                batch.insert(minute_key(minute, *sequence), &[]);
                after.count += 1;
            }
            (after.sequence, after.hash, after.minute) = (*sequence, *hash, minute);
            match content {
                Content::Record(keys) => {
                    for key in posting_keys(keys, *sequence) {
                        batch.insert(key, &[]);
                        after.count += 1;
                    }
                }
                Content::Cursor(Cursor { receiver, sequence }) => {
                    batch.insert(tagged(CURSOR, receiver.as_bytes()), &sequence.get().to_be_bytes());
                }
            }
        }
        let (sequence, count) = (after.sequence.get().to_be_bytes(), after.count.to_be_bytes());
        let minute = after.minute.to_be_bytes();
        batch.insert(HEAD, [&sequence[..], &after.hash, &count, &minute, &[self.keys]].concat());
        self.ask(|db| db.apply_batch(batch))?;
        *learnt = after;
        Ok(())
    }

    /// A record shortly before `sequence`, or itself, and where it begins.
    pub(crate) fn landmark(&self, sequence: Sequence) -> Result<Option<(Sequence, Position)>, JournalError> {
        let landmark = landmark_of(sequence);
        let value = self.ask(|db| db.get(landmark_key(landmark)))?;
        let split = |value: sled::IVec| {
            let (segment, offset) = value.split_first_chunk()?;
            let segment = u64::from_be_bytes(*segment).into();
            Some((landmark, Position { segment, offset: u64::from_be_bytes(offset.try_into().ok()?) }))
        };
        Ok(value.and_then(split))
    }

    /// The records that have `key`, oldest first.
    pub(crate) fn find(&self, topic: Topic, key: &str) -> Result<Vec<Sequence>, JournalError> {
        self.ask(|db| {
            let found = db.scan_prefix(posting_prefix(topic, key)).keys();
            found.filter_map(|key| key.map(|key| last_number(&key)).transpose()).collect()
        })
    }

    /// The first record of each stretch of records that were committed in the same minute, for the minutes that
    /// `from..until` touches; oldest first.
    ///
    /// A clock that is set back makes several stretches of one minute.
    pub(crate) fn stretches(&self, from: u64, until: u64) -> Result<Vec<Sequence>, JournalError> {
        let range =
            minute_key(minute_of(from), Sequence::START)..=minute_key(minute_of(until), u64::MAX.into());
        let mut found: Vec<Sequence> = self.ask(|db| {
            db.range(range).keys().filter_map(|key| key.map(|key| last_number(&key)).transpose()).collect()
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Where all receivers' cursors stand.
    pub(crate) fn cursors(&self) -> Result<BTreeMap<String, Sequence>, JournalError> {
        self.ask(|db| {
            let cursor = |item: sled::Result<(sled::IVec, sled::IVec)>| {
                let (key, value) = item?;
                let receiver = String::from_utf8_lossy(&key[1..]).into_owned();
                Ok(last_number(&value).map(|sequence| (receiver, sequence)))
            };
            db.scan_prefix([CURSOR]).filter_map(|item| cursor(item).transpose()).collect()
        })
    }

    /// Where learning has arrived, and for which keys.
    fn head_entry(&self) -> Result<Option<(Learnt, u8)>, JournalError> {
        let Some(value) = self.ask(|db| db.get(HEAD))? else { return Ok(None) };
        let split = || {
            let (sequence, rest) = value.split_first_chunk()?;
            let (hash, rest) = rest.split_first_chunk()?;
            let (count, rest) = rest.split_first_chunk()?;
            let (minute, rest) = rest.split_first_chunk()?;
            let keys = match rest {
                [] => OLDEST_KEYS,
                [keys] => *keys,
                _ => return None,
            };
            let (count, minute) = (u64::from_be_bytes(*count), u64::from_be_bytes(*minute));
            Some((
                Learnt { sequence: u64::from_be_bytes(*sequence).into(), hash: *hash, count, minute },
                keys,
            ))
        };
        split().map(Some).ok_or_else(|| JournalError::Index { reason: "its head is malformed".to_owned() })
    }

    fn ask<T>(&self, question: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, JournalError> {
        if let Some(reason) = self.failure.get() {
            return Err(JournalError::Index { reason: reason.clone() });
        }
        guard(|| question(&self.db)).map_err(|reason| {
            warn!(reason, "journal index failed; a restart rebuilds it");
            let reason = self.failure.get_or_init(|| reason).clone();
            JournalError::Index { reason }
        })
    }
}

/// The journal's lock keeps others out, but sled's own threads let go of the file only a moment after it was closed.
fn open_released(config: &sled::Config) -> sled::Result<sled::Db> {
    let patience = Instant::now() + Duration::from_secs(2);
    loop {
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") && Instant::now() < patience =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// sled 0.34 panics on some damaged files; the journal must outlive that.
fn guard<T>(act: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("sled panicked".to_owned()),
    }
}

fn posting_keys(keys: &Keys, sequence: Sequence) -> impl Iterator<Item = Vec<u8>> {
    let keys = Topic::ALL.into_iter().flat_map(|topic| topic.of(keys).map(move |key| (topic, key)));
    keys.map(move |(topic, key)| {
        let mut posting = posting_prefix(topic, key);
        posting.extend_from_slice(&sequence.get().to_be_bytes());
        posting
    })
}

/// The length comes first, so that no key is the beginning of another.
fn posting_prefix(topic: Topic, key: &str) -> Vec<u8> {
    let tag = match topic {
        Topic::Unit => b'u',
        Topic::Run => b'r',
        Topic::Order => b'o',
        Topic::Mark => b'm',
    };
    let length = (key.len() as u64).to_be_bytes();
    tagged(tag, &[&length, key.as_bytes()].concat())
}

fn landmark_of(sequence: Sequence) -> Sequence {
    Sequence::from(sequence.get() / LANDMARKS * LANDMARKS)
}

/// The minute that a time lies in, counted from 1970.
pub(crate) fn minute_of(time: u64) -> u64 {
    time / NANOS_OF_MINUTE
}

fn minute_key(minute: u64, sequence: Sequence) -> Vec<u8> {
    tagged(MINUTE, &[minute.to_be_bytes(), sequence.get().to_be_bytes()].concat())
}

fn landmark_key(sequence: Sequence) -> Vec<u8> {
    tagged(LANDMARK, &sequence.get().to_be_bytes())
}

fn landmark_value(Position { segment, offset }: Position) -> Vec<u8> {
    [segment.get().to_be_bytes(), offset.to_be_bytes()].concat()
}

fn tagged(tag: u8, key: &[u8]) -> Vec<u8> {
    [&[tag], key].concat()
}

fn last_number(bytes: &[u8]) -> Option<Sequence> {
    bytes.last_chunk().map(|number| u64::from_be_bytes(*number).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_from_before_keys_had_a_number_was_made_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), 2).unwrap();
        let (sequence, position) = (Sequence::from(1), Position { segment: 1.into(), offset: 0 });
        let content = Content::Record(Keys::default());
        index.learn(&[Note { sequence, hash: [7; 32], time: 0, position, content }]).unwrap();
        let head = index.db.get(HEAD).unwrap().unwrap();
        let (keys, before) = head.split_last().unwrap();
        assert_eq!(*keys, 2);
        index.db.insert(HEAD, before).unwrap();
        drop(index);
        assert_eq!(Index::open(dir.path(), 2).unwrap().keys(), 1);
    }

    #[test]
    fn an_index_that_lost_an_entry_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let note = |number: u64| {
            let (sequence, offset) = (Sequence::from(number), 100 * number);
            let position = Position { segment: 1.into(), offset };
            let unit = Some("one".to_owned());
            Note {
                sequence,
                hash: [7; 32],
                time: 0,
                position,
                content: Content::Record(Keys { unit, ..Keys::default() }),
            }
        };
        let index = Index::open(dir.path(), 1).unwrap();
        index.learn(&[note(31), note(32)]).unwrap();
        drop(index);
        let index = Index::open(dir.path(), 1).unwrap();
        let position = Position { segment: 1.into(), offset: 3200 };
        assert_eq!(index.landmark(40.into()).unwrap(), Some((32.into(), position)));
        assert_eq!(index.head().unwrap(), Some((32.into(), [7; 32])));
        assert_eq!(index.find(Topic::Unit, "one").unwrap(), [31, 32].map(Sequence::from));

        index.db.remove(landmark_key(32.into())).unwrap();
        drop(index);
        assert!(matches!(Index::open(dir.path(), 1), Err(JournalError::Index { .. })));
    }
}
