//! What can go wrong with a journal, and what to do about it.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::record::Sequence;
use crate::segment::MAX_PAYLOAD;

/// Why a journal did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
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
    /// Another process has the journal open, or this one does already.
    #[error("journal {} is in use; stop the other process first", dir.display())]
    Locked {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// The log holds something that was not written that way.
    #[error(
        "{} is damaged at byte {offset}: {what}; keep a copy of the journal, restore this file from a backup, \
         and see what else there is with: stationctl journal verify --state {}",
        path.display(),
        journal_of(path).display()
    )]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// Where in it the damaged record begins.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The index remembers a record that the log no longer holds.
    #[error(
        "journal {} ends at record {found}, but record {acknowledged} was acknowledged; \
         restore the last segment from a backup, or accept the loss with: \
         stationctl journal rebuild-index --state {}",
        dir.display(),
        dir.display()
    )]
    Lost {
        /// The journal's directory.
        dir: PathBuf,
        /// The last record that is known to have been acknowledged.
        acknowledged: Sequence,
        /// The last record that is there.
        found: Sequence,
    },
    /// The disk is full, the reserve is used up, and nothing of the records was written. The journal goes on when there
    /// is space.
    #[error("the disk of journal {} is full; make space, for example with: stationctl journal compact", dir.display())]
    Full {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// A record is too big to be journalled.
    #[error("record of {size} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLarge {
        /// Its size, encoded.
        size: usize,
    },
    /// A record refused to be encoded.
    #[error("cannot encode the record")]
    Encode {
        /// Its reason.
        source: minicbor::encode::Error<Infallible>,
    },
    /// A sound record does not have the shape that this program knows.
    #[error("cannot decode record {sequence}")]
    Decode {
        /// Which one.
        sequence: Sequence,
        /// What the decoder said.
        source: minicbor::decode::Error,
    },
    /// A record was written by a program that is newer than this one.
    #[error("record {sequence} has version {version}; use the program that wrote it, or a newer one")]
    Newer {
        /// Which one.
        sequence: Sequence,
        /// The version it was written with.
        version: u8,
    },
    /// A write failed earlier: nothing is accepted until the journal has been opened anew.
    #[error("the journal takes no more records since a write failed; remove the cause and restart")]
    Poisoned {
        /// The failure.
        source: Arc<JournalError>,
    },
    /// The index failed after it was opened; the log is not affected.
    #[error("the journal's index failed ({reason}); a restart rebuilds it")]
    Index {
        /// What it said.
        reason: String,
    },
    /// A cursor would stand behind the end of the log.
    #[error("receiver {receiver} acknowledged record {sequence}, but the last one is {last}")]
    AheadOfLog {
        /// Whose cursor.
        receiver: String,
        /// Where it would stand.
        sequence: Sequence,
        /// The last record there is.
        last: Sequence,
    },
    /// There is no journal where one was expected.
    #[error("there is no journal in {}; name the directory that holds its segment files", dir.display())]
    Nothing {
        /// The directory.
        dir: PathBuf,
    },
    /// A journal would be made where something is already.
    #[error("{} is not empty; name a directory that is empty or does not exist", dir.display())]
    Occupied {
        /// The directory.
        dir: PathBuf,
    },
    /// An export is not what was written, or not all of it.
    #[error("line {line} of the export: {what}; nothing was imported, use an unchanged export")]
    BadExport {
        /// Counted from 1.
        line: u64,
        /// What is wrong there.
        what: String,
    },
    /// The journal was closed while somebody waited for it.
    #[error("the journal was closed")]
    Closed,
}

impl JournalError {
    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, what: what.into() }
    }

    pub(crate) fn is_for_want_of_space(&self) -> bool {
        const WANT: [ErrorKind; 2] = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if WANT.contains(&source.kind()))
    }

    /// For `map_err`: turns an I/O error into one that says what was tried, and on what.
    pub(crate) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { act, path: path.to_owned(), source }
    }
}

/// The journal that a segment belongs to, live or archived.
fn journal_of(segment: &Path) -> &Path {
    let dir = segment.parent().unwrap_or(segment);
    if dir.file_name().is_some_and(|name| name == "archive") { dir.parent().unwrap_or(dir) } else { dir }
}
