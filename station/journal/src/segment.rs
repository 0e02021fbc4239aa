//! The bytes on disk: how a segment file begins, how a record looks. Knows nothing of files.
//!
//! All numbers are little-endian. A segment is a header and then records back to back, nothing between them.
//!
//! | header, 64 bytes | |
//! |---|---|
//! | 0..8 | `FACTJRNL` |
//! | 8..12 | version of this format: 1 |
//! | 12..20 | sequence of the first record |
//! | 20..28 | time of creation, nanoseconds since 1970 UTC |
//! | 28..60 | hash of the record before the first one; zeros where there is none |
//! | 60..64 | CRC-32 (IEEE) of bytes 0..60 |
//!
//! | record | |
//! |---|---|
//! | 0..4 | length of what follows the CRC: 58 to 58 + 1 MiB |
//! | 4..8 | CRC-32 (IEEE) of what follows |
//! | 8..16 | sequence, one more than the record before |
//! | 16..24 | first sequence of the batch it was committed in |
//! | 24..32 | time, nanoseconds since 1970 UTC |
//! | 32 | kind: 1 a record, 2 a cursor (`{0: receiver, 1: sequence}`) |
//! | 33 | version of the payload |
//! | 34..66 | hash of the record before: SHA-256 of its bytes from 8 to its end |
//! | 66.. | payload, CBOR |
//!
//! A batch is written and synced as a whole before the next one begins, and lies in one segment. So a record
//! proves that everything before its batch was durable. Bytes that are no record are a **torn tail** when no record
//! after them proves that they were durable once; otherwise they are damage.
//!
//! A writer may fill the end of the last segment with zeros in advance: they are no record, and nothing follows them.

use sha2::{Digest, Sha256};

use crate::record::Sequence;

/// Size of a segment's header.
pub const HEADER_LEN: usize = 64;
/// The largest payload of one record.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Length and CRC, before what they cover.
pub const PREFIX_LEN: usize = 8;
const FIXED_LEN: usize = 58;
const MAGIC: &[u8; 8] = b"FACTJRNL";
const VERSION: u32 = 1;

/// SHA-256 of a record: its link in the chain.
pub type Hash = [u8; 32];

/// How a segment file begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sequence of the segment's first record.
    pub first: Sequence,
    /// Nanoseconds since 1970 UTC.
    pub created: u64,
    /// The hash of the record before the first one.
    pub previous: Hash,
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A record of the journal's user.
    Record,
    /// The move of a receiver's cursor.
    Cursor,
}

/// One record as it stands in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<P = Vec<u8>> {
    /// Its place in the log.
    pub sequence: Sequence,
    /// The first sequence of the batch it was committed in.
    pub batch: Sequence,
    /// Nanoseconds since 1970 UTC.
    pub time: u64,
    /// What it is for.
    pub kind: Kind,
    /// The payload's version.
    pub version: u8,
    /// The hash of the record before.
    pub previous: Hash,
    /// CBOR.
    pub payload: P,
}

/// One record with the bytes that its hash is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// What the bytes say.
    pub frame: Frame,
    /// SHA-256 of `body`: the record's link in the chain.
    pub hash: Hash,
    /// The record's bytes from 8 to its end: all that is hashed.
    pub body: Vec<u8>,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.first.get().to_le_bytes());
        bytes.extend_from_slice(&self.created.to_le_bytes());
        bytes.extend_from_slice(&self.previous);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.try_into().expect("the fields above make up a header")
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "the segment's header is incomplete";
        let covered = bytes.get(..HEADER_LEN - 4).ok_or(SHORT)?;
        if take(&mut bytes).ok_or(SHORT)? != *MAGIC {
            return Err("this is not a journal segment");
        }
        let version = u32::from_le_bytes(take(&mut bytes).ok_or(SHORT)?);
        let header = Self {
            first: take_u64(&mut bytes).ok_or(SHORT)?.into(),
            created: take_u64(&mut bytes).ok_or(SHORT)?,
            previous: take(&mut bytes).ok_or(SHORT)?,
        };
        if u32::from_le_bytes(take(&mut bytes).ok_or(SHORT)?) != crc32fast::hash(covered) {
            return Err("the checksum of the segment's header is wrong");
        }
        if version != VERSION {
            return Err("the segment has a format that this program does not know");
        }
        Ok(header)
    }
}

impl<P: AsRef<[u8]>> Frame<P> {
    /// Appends the record's bytes to `out`; gives its hash.
    ///
    /// # Panics
    /// The payload is larger than [`MAX_PAYLOAD`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Hash {
        let payload = self.payload.as_ref();
        assert!(payload.len() <= MAX_PAYLOAD, "the size is checked before a record is accepted");
        let length = u32::try_from(FIXED_LEN + payload.len()).expect("it is a little over 1 MiB at most");

        out.extend_from_slice(&length.to_le_bytes());
        let crc_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let body_at = out.len();
        out.extend_from_slice(&self.sequence.get().to_le_bytes());
        out.extend_from_slice(&self.batch.get().to_le_bytes());
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&[self.kind.code(), self.version]);
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(payload);

        let crc = crc32fast::hash(&out[body_at..]);
        out[crc_at..body_at].copy_from_slice(&crc.to_le_bytes());
        hash(&out[body_at..])
    }
}

impl Frame {
    /// Reads what the prefix covers: a record's body, the bytes that are hashed.
    ///
    /// # Errors
    /// It is too short, or of a kind that this program does not know.
    pub fn decode(mut body: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "the record is too short";
        let bytes = &mut body;
        Ok(Self {
            sequence: take_u64(bytes).ok_or(SHORT)?.into(),
            batch: take_u64(bytes).ok_or(SHORT)?.into(),
            time: take_u64(bytes).ok_or(SHORT)?,
            kind: Kind::from_code(take::<1>(bytes).ok_or(SHORT)?[0])?,
            version: take::<1>(bytes).ok_or(SHORT)?[0],
            previous: take(bytes).ok_or(SHORT)?,
            payload: bytes.to_vec(),
        })
    }
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Cursor => 2,
        }
    }

    fn from_code(code: u8) -> Result<Self, &'static str> {
        match code {
            1 => Ok(Self::Record),
            2 => Ok(Self::Cursor),
            _ => Err("the record is of a kind that this program does not know"),
        }
    }
}

/// What stands before a record: how long it is and its checksum.
#[derive(Clone, Copy)]
pub struct Prefix {
    /// Bytes that follow.
    pub length: usize,
    crc: u32,
}

impl Prefix {
    /// `None` where no record can begin like this.
    pub fn decode([l0, l1, l2, l3, crc @ ..]: [u8; PREFIX_LEN]) -> Option<Self> {
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
        let possible = FIXED_LEN..=FIXED_LEN + MAX_PAYLOAD;
        possible.contains(&length).then_some(Self { length, crc: u32::from_le_bytes(crc) })
    }

    /// Whether `body` is what it was made for.
    pub fn covers(self, body: &[u8]) -> bool {
        body.len() == self.length && crc32fast::hash(body) == self.crc
    }
}

/// A record's link in the chain: SHA-256 of its body, the bytes after the prefix.
pub fn hash(body: &[u8]) -> Hash {
    Sha256::digest(body).into()
}

/// Looks in `tail`, which begins with something that is no record, for proof that record `missing` was durable.
pub(crate) fn proves_durable(tail: &[u8], missing: Sequence) -> bool {
    (0..tail.len()).any(|at| {
        let mut bytes = &tail[at..];
        let Some(prefix) = take(&mut bytes).and_then(Prefix::decode) else { return false };
        let Some(body) = bytes.get(..prefix.length) else { return false };
        let (Some(sequence), Some(batch)) = (take_u64(&mut bytes), take_u64(&mut bytes)) else {
            return false;
        };
        // A record takes more than one byte, so the tail bounds how far the sequence can have come. This runs at
        // every offset: the checksum comes last.
        let bound = missing.get().saturating_add(tail.len() as u64);
        missing.get() < batch && batch <= sequence && sequence < bound && prefix.covers(body)
    })
}

pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

pub(crate) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn frame() -> Frame {
        let (sequence, batch, time) = (0x0102.into(), 0x0101.into(), 0x0304_0506);
        let previous = [0xBB; 32];
        Frame { sequence, batch, time, kind: Kind::Cursor, version: 7, previous, payload: b"\x80".to_vec() }
    }

    /// Frozen: segments written years ago must be readable.
    #[test]
    fn the_bytes_of_a_header_stay_as_they_are() {
        let header = Header { first: 0x0102.into(), created: 0x0304_0506, previous: [0xAA; 32] };
        let bytes = header.encode();
        assert_eq!(
            hex(&bytes),
            "464143544a524e4c0100000002010000000000000605040300000000aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa9f520f40"
        );
        assert_eq!(Header::decode(&bytes), Ok(header));
    }

    /// Frozen, as above.
    #[test]
    fn the_bytes_of_a_record_stay_as_they_are() {
        let mut bytes = Vec::new();
        let link = frame().encode(&mut bytes);
        assert_eq!(
            hex(&bytes),
            "3b000000bbb6c2c70201000000000000010100000000000006050403000000000207bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb80"
        );
        assert_eq!(hex(&link), "36e276a0d0ea9357ac9ec4d36d8f395ac6470f22bbe4cf903e8d8887bc786f1f");
        assert_eq!(Frame::decode(&bytes[PREFIX_LEN..]), Ok(frame()));
    }

    #[test]
    fn only_a_sound_record_of_a_later_batch_proves_an_earlier_one() {
        let mut tail = b"rubbish".to_vec();
        frame().encode(&mut tail);
        assert!(proves_durable(&tail, 0x0100.into()));
        assert!(!proves_durable(&tail, 0x0101.into()), "it was in the same batch");
        assert!(!proves_durable(&tail[..tail.len() - 1], 0x0100.into()), "it is torn itself");
        assert!(!proves_durable(&tail, 0x0001.into()), "so many records do not fit before it");
        assert!(!proves_durable(&[], 1.into()));
    }
}
