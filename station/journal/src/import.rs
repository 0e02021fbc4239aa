//! Makes a journal from an export, byte for byte; or says which line of it is not what was written.

use std::fs::{self, File};
use std::io::{BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::error::JournalError;
use crate::export::{KindName, Line, Record, VERSION};
use crate::journal::lock;
use crate::record::Sequence;
use crate::segment::{Frame, Hash, Header, Kind, MAX_PAYLOAD};
use crate::store::{Store, sync_dir};

/// Makes the journal in `dir`, which must be empty or not exist, from what `export` wrote; gives the last record's
/// sequence. All segments come to be live; the index is made when the journal is opened.
///
/// # Errors
/// The export lacks something, or something of it was changed, repeated or put elsewhere; the directory is not empty;
/// the system refuses something. Then `dir` holds no journal.
pub fn import(input: impl BufRead, dir: impl AsRef<Path>) -> Result<Sequence, JournalError> {
    let dir = dir.as_ref();
    let occupied = dir.is_dir() && fs::read_dir(dir).map_err(JournalError::io("list", dir))?.next().is_some();
    if occupied {
        return Err(JournalError::Occupied { dir: dir.to_owned() });
    }
    let _lock = lock(dir)?;
    let mut build = Build {
        dir,
        drafts: Vec::new(),
        file: None,
        next: Sequence::START.next(),
        head: Hash::default(),
        lines: Sha256::new(),
    };
    let done = build.read(input).and_then(|()| build.publish());
    if done.is_err() {
        for (draft, _) in &build.drafts {
            // The next start sweeps away what cannot be removed.
            let _ = fs::remove_file(draft);
        }
    }
    done.map(|()| Sequence::from(build.next.get() - 1))
}

struct Build<'a> {
    dir: &'a Path,
    /// What the segments are called until all are there, and then.
    drafts: Vec<(PathBuf, PathBuf)>,
    /// The segment that is written.
    file: Option<BufWriter<File>>,
    next: Sequence,
    head: Hash,
    /// Of all lines so far.
    lines: Sha256,
}

impl Build<'_> {
    fn read(&mut self, input: impl BufRead) -> Result<(), JournalError> {
        let mut ended = false;
        let mut number = 0;
        for line in input.lines() {
            number += 1;
            let bad = |what: String| JournalError::BadExport { line: number, what };
            let text = line.map_err(|error| bad(format!("it cannot be read: {error}")))?;
            let line = serde_json::from_str(&text);
            let line = line.map_err(|error| bad(format!("it is no line of an export: {error}")))?;
            if ended {
                return Err(bad("it comes after the end".to_owned()));
            }
            ended = matches!(line, Line::End { .. });
            self.take(line, number == 1)?.map_err(bad)?;
            self.lines.update(text + "\n");
        }
        if !ended {
            let what = "the export ends before its end".to_owned();
            return Err(JournalError::BadExport { line: number + 1, what });
        }
        Ok(())
    }

    /// The inner error says what is wrong with the line.
    fn take(&mut self, line: Line, is_first: bool) -> Result<Result<(), String>, JournalError> {
        Ok(match line {
            Line::Journal { version } if is_first && version == VERSION => Ok(()),
            Line::Journal { version } if is_first => {
                Err(format!("the export has version {version}, this program knows {VERSION}"))
            }
            Line::Journal { .. } => Err("it belongs at the beginning".to_owned()),
            _ if is_first => Err("the beginning is missing".to_owned()),
            Line::Segment { first, created, previous } => match self.header(first, created, &previous) {
                Ok(header) => return self.begin(&header).map(Ok),
                Err(what) => Err(what),
            },
            Line::Record(record) => match self.frame(&record) {
                Ok(bytes) => return self.write(&bytes).map(Ok),
                Err(what) => Err(what),
            },
            Line::End { sequence, hash, lines } => self.check_end(sequence, &hash, &lines),
        })
    }

    fn header(&self, first: u64, created: u64, previous: &str) -> Result<Header, String> {
        let header = Header { first: first.into(), created, previous: hash_of(previous)? };
        if header.first != self.next {
            return Err(format!("a segment begins with record {first} where {} should come", self.next));
        }
        if header.previous != self.head {
            return Err("the segment does not follow from the record before".to_owned());
        }
        if self.drafts.last().is_some_and(|(_, path)| *path == self.path(header.first)) {
            return Err("the segment before holds no record".to_owned());
        }
        Ok(header)
    }

    /// Checks a record, and gives its bytes.
    fn frame(&mut self, record: &Record) -> Result<Vec<u8>, String> {
        let Record { sequence, batch, time, version, .. } = *record;
        if sequence != self.next.get() {
            return Err(format!("record {sequence} stands where {} should", self.next));
        }
        if self.drafts.is_empty() {
            return Err("the record lies in no segment".to_owned());
        }
        let previous = hash_of(&record.previous)?;
        if previous != self.head {
            return Err(format!("record {sequence} does not follow from the one before"));
        }
        let payload = HEXLOWER.decode(record.payload.as_bytes());
        let payload = payload.map_err(|error| format!("the payload is not hexadecimal: {error}"))?;
        if payload.len() > MAX_PAYLOAD {
            return Err(format!("the payload of {} bytes is over the limit of {MAX_PAYLOAD}", payload.len()));
        }
        let kind = match record.kind {
            KindName::Record => Kind::Record,
            KindName::Cursor => Kind::Cursor,
        };
        let (sequence, batch) = (self.next, Sequence::from(batch));
        let mut bytes = Vec::new();
        let hash = Frame { sequence, batch, time, kind, version, previous, payload }.encode(&mut bytes);
        if hash != hash_of(&record.hash)? {
            return Err(format!("record {sequence} was changed: its hash is another"));
        }
        (self.next, self.head) = (sequence.next(), hash);
        Ok(bytes)
    }

    fn check_end(&self, sequence: u64, hash: &str, lines: &str) -> Result<(), String> {
        if sequence.saturating_add(1) != self.next.get() || hash_of(hash)? != self.head {
            return Err(format!("the journal ends at record {sequence}, the lines before it elsewhere"));
        }
        if hash_of(lines)? != Hash::from(self.lines.clone().finalize()) {
            return Err("a line before it was changed: their hash is another".to_owned());
        }
        Ok(())
    }

    fn path(&self, first: Sequence) -> PathBuf {
        self.dir.join(Store::name(first))
    }

    fn begin(&mut self, header: &Header) -> Result<(), JournalError> {
        self.finish()?;
        let path = self.path(header.first);
        let mut draft = path.clone().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let file = File::create(&draft).map_err(JournalError::io("create", &draft))?;
        self.file = Some(BufWriter::new(file));
        self.drafts.push((draft, path));
        self.write(&header.encode())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let file = self.file.as_mut().expect("a record lies in a segment");
        file.write_all(bytes).map_err(JournalError::io("write a segment in", self.dir))
    }

    fn finish(&mut self) -> Result<(), JournalError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let finished = file.into_inner().map_err(|error| error.into_error()).and_then(|file| file.sync_all());
        finished.map_err(JournalError::io("write a segment in", self.dir))
    }

    /// Gives the segments their names, the last first: no crash leaves a journal that ends too early.
    fn publish(&mut self) -> Result<(), JournalError> {
        self.finish()?;
        for (draft, path) in self.drafts.iter().rev() {
            fs::rename(draft, path).map_err(JournalError::io("create", path))?;
        }
        sync_dir(self.dir).map_err(JournalError::io("sync", self.dir))
    }
}

fn hash_of(text: &str) -> Result<Hash, String> {
    let bytes =
        HEXLOWER.decode(text.as_bytes()).map_err(|error| format!("a hash is not hexadecimal: {error}"))?;
    bytes.try_into().map_err(|_| "a hash has another length".to_owned())
}
