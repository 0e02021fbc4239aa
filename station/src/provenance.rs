//! That the log is what it was: signed heads while the station runs, and the proof of them afterwards, offline.
//!
//! Each record of the log holds the hash of the one before. A **head** says what the log was up to a record: its
//! chain hash, the Merkle root over the hashes of all records since the head before, and how many runs were
//! closed. The signer signs it; it is a record itself, and is reported to the controller like a result, so that a
//! log that was cut or rolled back as a whole is found out too.
//!
//! The log's id is the first half of the hash of its first record, so every copy of a log has it and no two logs
//! have the same. A head's time is that of its last record: the same records always give the same statement, and
//! asking the signer again after a crash cannot give two heads that differ.

use std::io;
use std::path::{Path, PathBuf};

use factory_journal::JournalError;

pub mod audit;
pub mod chain;
pub mod draft;
pub mod merkle;
pub mod notary;
pub mod proof;
pub mod shift;
pub mod signed;

pub use notary::{Notary, Occasions, Trouble};

/// The heads' name among the journal's receivers: its cursor stands where the last signed head ends.
pub const RECEIVER: &str = "provenance";

/// Why something about a log's provenance could not be read or checked.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    /// The system refused something.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log's files cannot be read.
    #[error("the log cannot be read")]
    Journal(#[from] JournalError),
    /// There is no log.
    #[error("{} holds no segment of a log; name the folder that the station file calls state", .0.display())]
    NoLog(PathBuf),
    /// The log is not sound, so nothing can be said of it.
    #[error("the log is damaged: {0}; run stationctl provenance verify")]
    Damaged(chain::Flaw),
    /// A file is not what it should be.
    #[error("{} is no {what}: {why}", path.display())]
    NotA {
        /// What it should be.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The unit has no result, or no head covers it yet.
    #[error("{0}")]
    NoProof(String),
    /// A head that is signed is not what was asked for.
    #[error(transparent)]
    Head(#[from] signed::HeadError),
}

impl ProvenanceError {
    fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { act, path: path.to_owned(), source }
    }
}
