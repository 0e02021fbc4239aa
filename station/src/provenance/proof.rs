//! The proof of one unit's result, by itself: its record, the way to a signed root, and the signature.
//!
//! The file is one JSON object, all bytes in Base64: `format` is `factory provenance proof 1`; `record` are the
//! record's bytes as they stand in the log (`factory_journal::segment`, bytes 8 to the end), whose SHA-256 is a
//! leaf of the tree; `path` are the nodes beside the way from that leaf to the root (RFC 6962, section 2.1.1); `head`
//! is the signed head ([`super::signed`]). The leaf's number is the record's sequence minus the head's first.

use std::{fs, path::Path, time::SystemTime};

use data_encoding::BASE64;
use factory_journal::{
    Sequence,
    segment::{self, Frame, Kind},
};
use factory_proto::head::HeadStatement;
use serde::{Deserialize, Serialize};

use super::{
    ProvenanceError,
    chain::{Chain, Link, Step},
    draft::{Kept, kept},
    merkle::{self, Hash},
    signed::{self, HeadFile},
};
use crate::record::{HeadSigned, Record, RunClosed, RunId};

const FORMAT: &str = "factory provenance proof 1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    record: String,
    path: Vec<String>,
    head: HeadFile,
}

/// What a proof proves.
#[derive(Debug)]
pub struct Proven {
    /// The result.
    pub closed: Box<RunClosed>,
    /// Its record.
    pub sequence: u64,
    /// When that was made durable.
    pub journalled: SystemTime,
    /// What was signed about it.
    pub statement: HeadStatement,
}

/// The proof of a run's result, as its file. Blocks; reads the log from the beginning.
///
/// # Errors
/// The log has no result of the run, or no head that covers it; or the log is not what was signed.
pub fn prove(dir: &Path, run: RunId) -> Result<Vec<u8>, ProvenanceError> {
    let mut chain = Chain::open(dir, Sequence::START)?;
    // Records since the last head; a head comes soon enough to hold them all.
    let mut leaves: Vec<(u64, Hash)> = Vec::new();
    let mut found: Option<Link> = None;
    while let Some(step) = chain.step()? {
        let link = match step {
            Step::Link(link) => link,
            Step::Flaw(flaw) => return Err(ProvenanceError::Damaged(flaw)),
        };
        let sequence = link.frame.sequence.get();
        if let Ok(Kept::Head(head)) = kept(&link) {
            let statement = signed::check(&head)?;
            if let Some(found) =
                found.as_ref().filter(|it| it.frame.sequence.get() <= statement.last_sequence)
            {
                return write(found, &leaves, head, &statement);
            }
            leaves.retain(|(sequence, _)| *sequence > statement.last_sequence);
        }
        leaves.push((sequence, link.hash));
        if result(&link.frame).is_some_and(|closed| closed.opened.run == run) {
            found = Some(link);
        }
    }
    Err(ProvenanceError::NoProof(match found {
        None => format!("the log has no result of run {run}; stationctl list shows the runs"),
        Some(_) => {
            format!("no head covers the result of run {run} yet; one is signed at the end of the shift")
        }
    }))
}

fn write(
    link: &Link,
    leaves: &[(u64, Hash)],
    head: HeadSigned,
    statement: &HeadStatement,
) -> Result<Vec<u8>, ProvenanceError> {
    let covered = statement.first_sequence..=statement.last_sequence;
    let hashes: Vec<Hash> =
        leaves.iter().filter(|(sequence, _)| covered.contains(sequence)).map(|(_, hash)| *hash).collect();
    let index = link.frame.sequence.get().checked_sub(statement.first_sequence);
    let path = index.and_then(|index| merkle::path(&hashes, usize::try_from(index).ok()?));
    let (Some(path), true) = (path, merkle::root(&hashes) == statement.merkle_root) else {
        let why = "the log is not what its head says; run stationctl provenance verify";
        return Err(ProvenanceError::NoProof(why.to_owned()));
    };
    let file = File {
        format: FORMAT.to_owned(),
        record: BASE64.encode(&link.body),
        path: path.iter().map(|node| BASE64.encode(node)).collect(),
        head: HeadFile::from(&head),
    };
    Ok(serde_json::to_vec_pretty(&file).expect("texts can be written as JSON"))
}

/// Checks the proof in a file by itself. `trusted` are certificates, DER, one of which must stand behind the head.
///
/// # Errors
/// The file cannot be read, or does not prove anything.
pub fn check(path: &Path, trusted: &[Vec<u8>]) -> Result<Proven, ProvenanceError> {
    let text = fs::read(path).map_err(ProvenanceError::io("read", path))?;
    let not_a = |why: String| ProvenanceError::NotA { what: "proof", path: path.to_owned(), why };
    let file: File = serde_json::from_slice(&text).map_err(|error| not_a(error.to_string()))?;
    if file.format != FORMAT {
        return Err(not_a(format!("its format is {:?}, not {FORMAT:?}", file.format)));
    }
    let bytes = |text: &str| BASE64.decode(text.as_bytes()).map_err(|error| not_a(error.to_string()));
    let record = bytes(&file.record)?;
    let mut way = Vec::new();
    for node in &file.path {
        let node: Result<Hash, _> = bytes(node)?.try_into();
        way.push(node.map_err(|_| not_a("a node of the path is not 32 bytes long".to_owned()))?);
    }
    let head = HeadSigned::try_from(file.head).map_err(|error| not_a(error.to_string()))?;

    let statement = signed::check(&head)?;
    signed::check_trust(&head, trusted)?;
    let frame = Frame::decode(&record).map_err(|what| not_a(what.to_owned()))?;
    let (first, last) = (statement.first_sequence, statement.last_sequence);
    let sequence = frame.sequence.get();
    let root = sequence.checked_sub(first).and_then(|index| {
        let size = last.checked_sub(first)?.checked_add(1)?;
        merkle::root_from(&segment::hash(&record), index, size, &way)
    });
    if root != Some(statement.merkle_root) {
        let why =
            "the record is not under the root that was signed: the record, the path or the head was changed";
        return Err(ProvenanceError::NoProof(why.to_owned()));
    }
    let closed = result(&frame).ok_or_else(|| not_a("the record is no result of a run".to_owned()))?;
    let journalled = SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(frame.time);
    Ok(Proven { closed, sequence, journalled, statement })
}

fn result(frame: &Frame) -> Option<Box<RunClosed>> {
    if frame.kind != Kind::Record {
        return None;
    }
    match minicbor::decode(&frame.payload).ok()? {
        Record::RunClosed(closed) => Some(closed),
        _ => None,
    }
}
