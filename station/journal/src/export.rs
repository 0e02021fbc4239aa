//! A journal as lines of JSON that hold everything, for other programs and for people. `import` reads them again.
//!
//! | `is` | |
//! |---|---|
//! | `journal` | the first line: `version` of this format, 1 |
//! | `segment` | begins a segment: the fields of its header |
//! | `record` | one record: the fields of its frame, its hash, and `reads`, its payload in CBOR's diagnostic notation |
//! | `end` | the last line: the last record's `sequence` and `hash`, and `lines`, the SHA-256 of all lines before it |
//!
//! Times are nanoseconds since 1970 UTC; hashes and payloads are lower-case hexadecimal. `reads` is for people and
//! says nothing that `payload` does not.

use std::io::{self, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::JournalError;
use crate::log::Log;
use crate::record::Sequence;
use crate::segment::{Header, Kind, RawFrame};

pub(crate) const VERSION: u32 = 1;

/// One line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Line {
    Journal { version: u32 },
    Segment { first: u64, created: u64, previous: String },
    Record(Record),
    End { sequence: u64, hash: String, lines: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub sequence: u64,
    pub batch: u64,
    pub time: u64,
    pub kind: KindName,
    pub version: u8,
    pub previous: String,
    pub payload: String,
    pub hash: String,
    pub reads: String,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KindName {
    Record,
    Cursor,
}

/// Writes all that the journal in `dir` holds, which may be in use; gives the last record's sequence.
///
/// # Errors
/// There is no journal, it is damaged, or the lines cannot be written; what was written then lacks its last line.
pub fn export(dir: impl AsRef<Path>, mut output: impl Write) -> Result<Sequence, JournalError> {
    let dir = dir.as_ref();
    let mut log = Log::open(dir)?;
    let mut digest = Sha256::new();
    let mut put = |line: &Line| -> Result<(), JournalError> {
        let line = serde_json::to_string(line).map_err(io::Error::from).map(|line| line + "\n");
        let written = line.and_then(|line| output.write_all(line.as_bytes()).map(|()| line));
        digest.update(written.map_err(JournalError::io("write the export of", dir))?);
        Ok(())
    };
    put(&Line::Journal { version: VERSION })?;
    let mut segment = None;
    while let Some(raw) = log.next().transpose()? {
        let header = log.segment().expect("the record lies in one");
        if segment != Some(header.first) {
            segment = Some(header.first);
            put(&segment_line(header))?;
        }
        put(&record_line(&raw))?;
    }
    let (sequence, hash) = log.head();
    if sequence == Sequence::START {
        return Err(JournalError::Nothing { dir: dir.to_owned() });
    }
    let (hash, lines) = (HEXLOWER.encode(&hash), HEXLOWER.encode(&digest.finalize()));
    let end = Line::End { sequence: sequence.get(), hash, lines };
    let end = serde_json::to_string(&end).map_err(io::Error::from);
    let written = end.and_then(|end| writeln!(output, "{end}")).and_then(|()| output.flush());
    written.map_err(JournalError::io("write the export of", dir))?;
    Ok(sequence)
}

fn segment_line(header: &Header) -> Line {
    let Header { first, created, previous } = header;
    Line::Segment { first: first.get(), created: *created, previous: HEXLOWER.encode(previous) }
}

fn record_line(raw: &RawFrame) -> Line {
    let RawFrame { frame, hash, .. } = raw;
    Line::Record(Record {
        sequence: frame.sequence.get(),
        batch: frame.batch.get(),
        time: frame.time,
        kind: match frame.kind {
            Kind::Record => KindName::Record,
            Kind::Cursor => KindName::Cursor,
        },
        version: frame.version,
        previous: HEXLOWER.encode(&frame.previous),
        payload: HEXLOWER.encode(&frame.payload),
        hash: HEXLOWER.encode(hash),
        reads: minicbor::display(&frame.payload).to_string(),
    })
}
