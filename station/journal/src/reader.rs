//! Reads one segment from front to back, wherever it is kept. Knows nothing of other segments.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::archive::Blocks;
use crate::error::JournalError;
use crate::record::Sequence;
use crate::segment::{Frame, HEADER_LEN, Hash, Header, PREFIX_LEN, Prefix, RawFrame, hash};

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The first sequence of the segment that holds it.
    pub segment: Sequence,
    /// Its first byte there; in an archived segment, its first byte before compression.
    pub offset: u64,
}

/// What stands at one place in a segment.
pub(crate) enum Step {
    /// A record.
    Frame(RawFrame),
    /// Nothing: the segment ends here.
    End,
    /// Bytes that are no whole record, and why not.
    NoRecord(&'static str),
}

/// A segment's bytes.
enum Input {
    Live(BufReader<File>),
    Archived(Blocks),
}

/// A segment and a place in it, from which it is read a record at a time.
pub(crate) struct SegmentReader {
    path: PathBuf,
    input: Input,
    segment: Sequence,
    offset: u64,
    /// The sequence of the record at `offset`, if one comes.
    pub(crate) next: Sequence,
    /// Unknown where reading began in the middle.
    header: Option<Header>,
    /// As above.
    pub(crate) previous: Option<Hash>,
    /// When the last record read was committed; 0 before the first.
    pub(crate) time: u64,
}

impl SegmentReader {
    /// Opens a file of the live log.
    ///
    /// # Errors
    /// Also where there is no such file (any more): [`io::ErrorKind::NotFound`].
    pub(crate) fn live(path: PathBuf, position: Position, next: Sequence) -> Result<Self, JournalError> {
        let file = File::open(&path).map_err(JournalError::io("open", &path))?;
        Self::begin(path, Input::Live(BufReader::new(file)), position, next)
    }

    /// Opens a file of the archive.
    pub(crate) fn archived(path: PathBuf, position: Position, next: Sequence) -> Result<Self, JournalError> {
        let blocks = Blocks::open(&path)?;
        Self::begin(path, Input::Archived(blocks), position, next)
    }

    fn begin(
        path: PathBuf,
        input: Input,
        Position { segment, offset }: Position,
        next: Sequence,
    ) -> Result<Self, JournalError> {
        let mut reader = Self { path, input, segment, offset, next, header: None, previous: None, time: 0 };
        if offset == 0 {
            let bytes = reader.read_up_to(HEADER_LEN)?;
            let header = Header::decode(&bytes).map_err(|what| reader.damaged(what))?;
            if header.first != segment {
                let what =
                    format!("the file is named after record {segment}, its header says {}", header.first);
                return Err(reader.damaged(what));
            }
            reader.offset = HEADER_LEN as u64;
            reader.previous = Some(header.previous);
            reader.header = Some(header);
        } else {
            reader.rewind()?;
        }
        Ok(reader)
    }

    /// Reads what stands at the current place; moves on only over a record.
    pub(crate) fn step(&mut self) -> Result<Step, JournalError> {
        let prefix = self.read_up_to(PREFIX_LEN)?;
        if prefix.is_empty() {
            return Ok(Step::End);
        }
        let Ok(prefix) = prefix.try_into() else { return Ok(Step::NoRecord("the record is incomplete")) };
        let Some(prefix) = Prefix::decode(prefix) else {
            return Ok(Step::NoRecord("the record's length is impossible"));
        };
        let body = self.read_up_to(prefix.length)?;
        if body.len() < prefix.length {
            return Ok(Step::NoRecord("the record is incomplete"));
        }
        if !prefix.covers(&body) {
            return Ok(Step::NoRecord("the record's checksum is wrong"));
        }

        // From here on it is what somebody wrote, so a mistake in it is never a torn write.
        let frame = Frame::decode(&body).map_err(|what| self.damaged(what))?;
        if frame.sequence != self.next {
            return Err(self.damaged(format!("record {} stands where {} should", frame.sequence, self.next)));
        }
        if self.previous.is_some_and(|hash| hash != frame.previous) {
            return Err(self.damaged("the record does not follow from the one before"));
        }
        let hash = hash(&body);
        self.offset += (PREFIX_LEN + body.len()) as u64;
        self.next = frame.sequence.next();
        self.previous = Some(hash);
        self.time = frame.time;
        Ok(Step::Frame(RawFrame { frame, hash, body }))
    }

    /// Reads up to where no record stands; says why, if that is not the end of the segment.
    pub(crate) fn walk(&mut self) -> Result<Option<&'static str>, JournalError> {
        loop {
            match self.step()? {
                Step::Frame(..) => {}
                Step::End => return Ok(None),
                Step::NoRecord(what) => return Ok(Some(what)),
            }
        }
    }

    /// Forgets what was read ahead, as a writer may have changed it since.
    pub(crate) fn rewind(&mut self) -> Result<(), JournalError> {
        let sought = match &mut self.input {
            Input::Live(file) => file.seek(SeekFrom::Start(self.offset)).map(|_| ()),
            Input::Archived(blocks) => blocks.seek(self.offset),
        };
        sought.map_err(|error| self.failed(error))
    }

    /// The bytes from the current place on, without the zeros at the end of the segment.
    pub(crate) fn tail(&mut self) -> Result<Vec<u8>, JournalError> {
        self.rewind()?;
        let mut tail = Vec::new();
        let read = self.input.read_to_end(&mut tail);
        read.map_err(|error| self.failed(error))?;
        tail.truncate(tail.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        Ok(tail)
    }

    pub(crate) fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }

    pub(crate) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    pub(crate) fn is_archived(&self) -> bool {
        matches!(self.input, Input::Archived(_))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> JournalError {
        JournalError::damaged(&self.path, self.offset, what)
    }

    fn read_up_to(&mut self, length: usize) -> Result<Vec<u8>, JournalError> {
        let mut bytes = Vec::with_capacity(length);
        let read = self.input.by_ref().take(length as u64).read_to_end(&mut bytes);
        read.map_err(|error| self.failed(error))?;
        Ok(bytes)
    }

    fn failed(&self, error: io::Error) -> JournalError {
        match error.kind() {
            io::ErrorKind::InvalidData => self.damaged(error.to_string()),
            _ => JournalError::io("read", &self.path)(error),
        }
    }
}

impl Read for Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Live(file) => file.read(bytes),
            Self::Archived(blocks) => blocks.read(bytes),
        }
    }
}
