//! What is journalled: records, their sequence numbers, and the keys to find them by. Knows nothing of files.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use minicbor::{Decode, Encode};

use crate::error::JournalError;
use crate::segment::{Hash, Kind, RawFrame};

/// The place of a record in the log, counted from 1.
///
/// Sequences only rise, but what a reader sees may have gaps: the journal keeps records of its own among yours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Sequence(#[n(0)] u64);

impl Sequence {
    /// Before the first record: where a new receiver's cursor stands.
    pub const START: Self = Self(0);

    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number itself, for the wire.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Sequence {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that can be journalled.
pub trait Record: Encode<()> + for<'bytes> Decode<'bytes, ()> + Send + Sized + 'static {
    /// Raise it when older programs would misread a new record; they will refuse it instead.
    const VERSION: u8 = 1;

    /// Raise it when records are found by other keys than before, those that were written before included: an index that
    /// was made for another number is rebuilt.
    const KEYS: u8 = 1;

    /// What the record can be found by.
    fn keys(&self) -> Keys;
}

/// What a record can be found by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The unit it is about.
    pub unit: Option<String>,
    /// The run it belongs to.
    pub run: Option<String>,
    /// The work order it counts for.
    pub order: Option<String>,
    /// Whatever else it tells of.
    pub marks: BTreeSet<String>,
}

/// A record as it was journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<R> {
    /// Its place in the log.
    pub sequence: Sequence,
    /// When it was committed, by this machine's clock.
    pub time: SystemTime,
    /// Its link in the chain: SHA-256 of its bytes, which hold the hash of the record before.
    pub hash: Hash,
    /// The record itself.
    pub record: R,
}

impl<R: Record> Entry<R> {
    /// Reads what a frame holds; `None` for a record of the journal's own.
    pub(crate) fn from_frame(raw: &RawFrame) -> Result<Option<Self>, JournalError> {
        let RawFrame { frame, hash, .. } = raw;
        let sequence = frame.sequence;
        if frame.kind != Kind::Record {
            return Ok(None);
        }
        if frame.version > R::VERSION {
            return Err(JournalError::Newer { sequence, version: frame.version });
        }
        let record =
            minicbor::decode(&frame.payload).map_err(|source| JournalError::Decode { sequence, source })?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(frame.time);
        Ok(Some(Self { sequence, time, hash: *hash, record }))
    }
}

/// How far a receiver got; a record of the journal itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Cursor {
    #[n(0)]
    pub receiver: String,
    #[n(1)]
    pub sequence: Sequence,
}
