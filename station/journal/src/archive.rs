//! The bytes of an archived segment: the segment itself, compressed, in a file that can be verified alone.
//!
//! The file is a sequence of Zstandard frames (RFC 8878), so `zstd -dc FILE` gives the segment's bytes. All numbers
//! are little-endian. The first frame is a skippable one, which decompressors ignore:
//!
//! | header | |
//! |---|---|
//! | 0..4 | 0x184D2A5A, the magic number of a skippable frame |
//! | 4..8 | length of what follows |
//! | 8..16 | `FACTARCH` |
//! | 16..20 | version of this format: 1 |
//! | 20..28 | sequence of the first record |
//! | 28..36 | sequence of the last record |
//! | 36..68 | hash of the record before the first one; zeros where there is none |
//! | 68..100 | hash of the last record |
//! | 100..108 | length of the segment, in bytes |
//! | 108..140 | SHA-256 of the segment's bytes |
//! | 140..144 | number of blocks |
//! | 16 for each block | 0..8 where in the segment it begins; 8..12 length of its frame; 12..16 CRC-32 of its frame |
//! | last 4 | CRC-32 (IEEE) of all before, from 8 on |
//!
//! Then come the blocks, one Zstandard frame each, compressed without knowledge of the others: who looks for one
//! record decompresses one block. A block begins with a record; the first one with the segment's header.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::JournalError;
use crate::record::Sequence;
use crate::segment::{Hash, MAX_PAYLOAD, take, take_u64};

const SKIPPABLE: u32 = 0x184D_2A5A;
const MAGIC: &[u8; 8] = b"FACTARCH";
const VERSION: u32 = 1;
const PREFIX_LEN: usize = 8;

/// A block ends with the record that reaches this many bytes: small enough to be decompressed for one record, large
/// enough to hold many that resemble each other.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;
/// No block is larger: a header that says so is damaged.
const MAX_BLOCK: u64 = (BLOCK_BYTES + 2 * MAX_PAYLOAD) as u64;
const MAX_HEADER: usize = 16 << 20;
const LEVEL: i32 = 3;

/// What an archived segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub first: Sequence,
    pub last: Sequence,
    /// The hash of the record before the first one.
    pub previous: Hash,
    /// The hash of the last record.
    pub head: Hash,
    /// The segment's length before compression.
    pub length: u64,
    /// SHA-256 of the segment's bytes.
    pub digest: Hash,
}

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    /// Its first byte in the segment.
    begins: u64,
    /// Its first byte in the file.
    at: u64,
    /// Its length in the file.
    length: u32,
    /// CRC-32 of these bytes: Zstandard's own checksum leaves some of them out.
    crc: u32,
}

/// The file of a segment; `begins` says where each block begins, the first at 0.
pub(crate) fn encode(summary: &Summary, segment: &[u8], begins: &[u64]) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    let mut table = Vec::new();
    let mut frames = Vec::new();
    for (index, begin) in begins.iter().enumerate() {
        let end = begins.get(index + 1).copied().unwrap_or(segment.len() as u64);
        let within = |at: u64| usize::try_from(at).expect("the segment is in memory");
        let frame = compressor.compress(&segment[within(*begin)..within(end)])?;
        table.extend_from_slice(&begin.to_le_bytes());
        table.extend_from_slice(&u32::try_from(frame.len()).expect("a block is small").to_le_bytes());
        table.extend_from_slice(&crc32fast::hash(&frame).to_le_bytes());
        frames.extend_from_slice(&frame);
    }

    let mut header = Vec::with_capacity(144 + table.len());
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&summary.first.get().to_le_bytes());
    header.extend_from_slice(&summary.last.get().to_le_bytes());
    header.extend_from_slice(&summary.previous);
    header.extend_from_slice(&summary.head);
    header.extend_from_slice(&summary.length.to_le_bytes());
    header.extend_from_slice(&summary.digest);
    header.extend_from_slice(&u32::try_from(begins.len()).expect("blocks are few").to_le_bytes());
    header.extend_from_slice(&table);
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());

    let length = u32::try_from(header.len()).expect("a header is small");
    Ok([&SKIPPABLE.to_le_bytes()[..], &length.to_le_bytes(), &header, &frames].concat())
}

/// The bytes of an archived segment, a block at a time.
pub(crate) struct Blocks {
    file: File,
    summary: Summary,
    table: Vec<Block>,
    /// The block to read after the one at hand.
    next: usize,
    block: Vec<u8>,
    /// How much of `block` was read.
    read: usize,
}

impl Blocks {
    /// Opens an archived segment and checks its header and its size.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        let mut file = File::open(path).map_err(JournalError::io("open", path))?;
        let header = read_header(&mut file).map_err(JournalError::io("read", path))?;
        let size = file.metadata().map_err(JournalError::io("read", path))?.len();
        let (summary, table) = decode(&header, size).map_err(|what| JournalError::damaged(path, 0, what))?;
        Ok(Self { file, summary, table, next: 0, block: Vec::new(), read: 0 })
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Reads on at `offset` of the segment.
    pub(crate) fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.next = self.table.partition_point(|block| block.begins <= offset).saturating_sub(1);
        let begins = self.table.get(self.next).map_or(0, |block| block.begins);
        self.load()?;
        let read = usize::try_from(offset - begins).unwrap_or(usize::MAX);
        self.read = read.min(self.block.len());
        Ok(())
    }

    /// Whether the segment's bytes are those that were archived. Reads from the current place to the end, so it is
    /// asked first of all.
    pub(crate) fn is_whole(&mut self) -> io::Result<bool> {
        let mut digest = Sha256::new();
        let length = io::copy(self, &mut digest)?;
        Ok(length == self.summary.length && <[u8; 32]>::from(digest.finalize()) == self.summary.digest)
    }

    /// Decompresses the next block; an empty one after the last.
    fn load(&mut self) -> io::Result<()> {
        (self.read, self.block) = (0, Vec::new());
        let Some(Block { begins, at, length, crc }) = self.table.get(self.next).copied() else {
            return Ok(());
        };
        let ends = self.table.get(self.next + 1).map_or(self.summary.length, |block| block.begins);
        let mut frame = vec![0; length as usize];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut frame)?;
        let damaged = |what: String| {
            let what = format!("the block at byte {at} of the file {what}");
            io::Error::new(ErrorKind::InvalidData, what)
        };
        if crc32fast::hash(&frame) != crc {
            return Err(damaged("has a wrong checksum".to_owned()));
        }
        // `decode` has bounded a block's length.
        let expected = usize::try_from(ends - begins).unwrap_or_default();
        self.block = zstd::bulk::decompress(&frame, expected)
            .map_err(|error| damaged(format!("cannot be decompressed: {error}")))?;
        if self.block.len() != expected {
            return Err(damaged("is shorter than it should be".to_owned()));
        }
        self.next += 1;
        Ok(())
    }
}

impl Read for Blocks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.read == self.block.len() {
            self.load()?;
        }
        let read = (&self.block[self.read..]).read(bytes)?;
        self.read += read;
        Ok(read)
    }
}

/// The header with its prefix, or as much of it as there is.
fn read_header(file: &mut File) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    file.by_ref().take(PREFIX_LEN as u64).read_to_end(&mut header)?;
    let length = header.last_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    let length = u64::from(length).min(MAX_HEADER as u64);
    file.by_ref().take(length).read_to_end(&mut header)?;
    Ok(header)
}

fn decode(mut bytes: &[u8], size: u64) -> Result<(Summary, Vec<Block>), &'static str> {
    const SHORT: &str = "the archive's header is incomplete";
    let whole = bytes.len() as u64;
    let bytes = &mut bytes;
    if u32::from_le_bytes(take(bytes).ok_or(SHORT)?) != SKIPPABLE {
        return Err("this is not an archived journal segment");
    }
    let length = u32::from_le_bytes(take(bytes).ok_or(SHORT)?);
    if bytes.len() != length as usize {
        return Err(SHORT);
    }
    let (covered, crc) = bytes.split_last_chunk().ok_or(SHORT)?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(covered) {
        return Err("the checksum of the archive's header is wrong");
    }
    *bytes = covered;
    if take(bytes).ok_or(SHORT)? != *MAGIC {
        return Err("this is not an archived journal segment");
    }
    if u32::from_le_bytes(take(bytes).ok_or(SHORT)?) != VERSION {
        return Err("the archive has a format that this program does not know");
    }
    let summary = Summary {
        first: take_u64(bytes).ok_or(SHORT)?.into(),
        last: take_u64(bytes).ok_or(SHORT)?.into(),
        previous: take(bytes).ok_or(SHORT)?,
        head: take(bytes).ok_or(SHORT)?,
        length: take_u64(bytes).ok_or(SHORT)?,
        digest: take(bytes).ok_or(SHORT)?,
    };
    let count = u32::from_le_bytes(take(bytes).ok_or(SHORT)?);
    let mut table: Vec<Block> = Vec::new();
    let mut at = whole;
    for _ in 0..count {
        let begins = take_u64(bytes).ok_or(SHORT)?;
        let length = u32::from_le_bytes(take(bytes).ok_or(SHORT)?);
        let crc = u32::from_le_bytes(take(bytes).ok_or(SHORT)?);
        let possible = table.last().map_or(0..=0, |before| before.begins + 1..=before.begins + MAX_BLOCK);
        if !possible.contains(&begins) {
            return Err("the archive's table of blocks is wrong");
        }
        table.push(Block { begins, at, length, crc });
        at += u64::from(length);
    }
    let last = table.last().map_or(0, |last| last.begins);
    if !bytes.is_empty() || summary.length < last || summary.length - last > MAX_BLOCK {
        return Err("the archive's table of blocks is wrong");
    }
    if at != size {
        return Err("the archive has another size than its header says");
    }
    Ok((summary, table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(segment: &[u8]) -> Summary {
        let (first, last) = (5.into(), 9.into());
        let (length, digest) = (segment.len() as u64, Sha256::digest(segment).into());
        Summary { first, last, previous: [1; 32], head: [2; 32], length, digest }
    }

    /// Frozen: archives written years ago must be readable.
    const FROZEN: &str = "\
        5a2a4d18ac000000464143544152434801000000050000000000000009000000000000000101010101010101010101010101\
        0101010101010101010101010101010101010202020202020202020202020202020202020202020202020202020202020202\
        15000000000000008835f082ea8e899d503d0949cbecf41551d688c27a4c7b436a203b27cf510a9802000000000000000000\
        0000140000006158c4b807000000000000001b000000b5b51b35b3be1dba28b52ffd24073900007365676d656e7469220d0b\
        28b52ffd240e7100007365676d656e747365676d656e748b793144\
        ";

    #[test]
    fn the_bytes_of_an_archive_stay_as_they_are() {
        let segment = b"segment".repeat(3);
        let frozen = data_encoding::HEXLOWER.decode(FROZEN.as_bytes()).unwrap();
        let (found, table) = decode(&frozen[..180], frozen.len() as u64).unwrap();
        assert_eq!((found, table.len()), (summary(&segment), 2));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive");
        std::fs::write(&path, &frozen).unwrap();
        let mut read = Vec::new();
        Blocks::open(&path).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, segment);

        // How well another version compresses is not frozen.
        let bytes = encode(&summary(&segment), &segment, &[0, 7]).unwrap();
        assert_eq!(bytes[8..152], frozen[8..152]);
    }

    #[test]
    fn a_segment_is_read_back_from_any_place() {
        let segment: Vec<u8> = (0..2000_u32).flat_map(u32::to_le_bytes).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive");
        std::fs::write(&path, encode(&summary(&segment), &segment, &[0, 100, 5000]).unwrap()).unwrap();
        let mut blocks = Blocks::open(&path).unwrap();
        assert_eq!(blocks.summary(), &summary(&segment));
        assert!(blocks.is_whole().unwrap());
        for offset in [0, 1, 99, 100, 4999, 5000, 7999, 8000] {
            blocks.seek(offset as u64).unwrap();
            let mut rest = Vec::new();
            blocks.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, segment[offset..], "from {offset}");
        }
        let foreign = zstd::bulk::decompress(&std::fs::read(&path).unwrap()[..], 10_000).unwrap();
        assert_eq!(foreign, segment, "any decompressor should read the file");
    }

    #[test]
    fn no_flipped_byte_goes_unnoticed() {
        let segment: Vec<u8> = (0..300_u32).flat_map(u32::to_le_bytes).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive");
        let bytes = encode(&summary(&segment), &segment, &[0, 600]).unwrap();
        let is_whole = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Blocks::open(&path).is_ok_and(|mut blocks| blocks.is_whole().unwrap_or(false))
        };
        assert!(is_whole(&bytes));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert!(!is_whole(&flipped), "flipped at {at}");
        }
        for length in 0..bytes.len() {
            assert!(!is_whole(&bytes[..length]), "cut at {length}");
        }
    }
}
