//! Checks a whole log offline: every link, every head, every root; says what is wrong, and where.

use std::{
    collections::VecDeque,
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use factory_journal::Sequence;
use factory_proto::head::HeadStatement;

use super::{
    ProvenanceError,
    chain::{self, Chain, Flaw, Link, Step},
    draft::{Kept, kept, log_id},
    merkle::{self, Hash},
    signed::{self, HeadError},
};
use crate::record::HeadSigned;

/// So many findings are told; who wants more has seen enough.
const MOST_FINDINGS: usize = 100;

/// What a log was found to be.
#[derive(Debug, Default)]
pub struct Audit {
    /// Segments there are.
    pub segments: usize,
    /// Records that were read, and the first and last of them.
    pub records: u64,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Runs that were closed.
    pub closed_runs: u64,
    /// Runs closed behind the last head: nothing is signed of them yet.
    pub unsigned_runs: u64,
    /// The heads, oldest first.
    pub heads: Vec<HeadSeen>,
    /// What is wrong, in the order in which it was found.
    pub findings: Vec<Finding>,
}

/// A head in the log.
#[derive(Debug, Clone)]
pub struct HeadSeen {
    /// The record that holds it.
    pub record: Sequence,
    /// What it says.
    pub statement: HeadStatement,
    /// The head itself.
    pub head: HeadSigned,
    /// Whether everything about it is right.
    pub sound: bool,
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// At one record.
    At(Flaw),
    /// The records that a head covers are not what was signed.
    Range {
        /// The first and the last of them.
        records: (u64, u64),
        /// The segments that hold them.
        segments: Vec<PathBuf>,
        /// What is wrong.
        what: String,
    },
    /// Of the log as a whole.
    Whole(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(flaw) => flaw.fmt(f),
            Self::Range { records: (first, last), segments, what } => {
                let names = segments.iter().filter_map(|path| path.file_name()?.to_str());
                write!(f, "records {first} to {last} ({}): {what}", names.collect::<Vec<_>>().join(", "))
            }
            Self::Whole(what) => f.write_str(what),
        }
    }
}

/// Checks the log in `dir`. `trusted` are certificates, DER, of which one must stand behind every head; none
/// checks each head with the certificate that it brought. `kept` are heads from elsewhere, as from the MES.
///
/// # Errors
/// There is no log, or it cannot be read; what is wrong with it is no error but a finding.
pub fn audit(dir: &Path, trusted: &[Vec<u8>], kept: &[HeadSigned]) -> Result<Audit, ProvenanceError> {
    let segments = chain::segments(dir)?;
    let mut auditor = Auditor {
        audit: Audit { segments: segments.len(), ..Audit::default() },
        segments,
        trusted,
        outside: Vec::new(),
        log_id: None,
        open: VecDeque::new(),
        head_before: None,
    };
    for head in kept {
        auditor.take_outside(head)?;
    }
    let mut chain = Chain::open(dir, Sequence::START)?;
    while let Some(step) = chain.step()? {
        match step {
            Step::Link(link) => auditor.link(&link),
            Step::Flaw(flaw) => auditor.find(Finding::At(flaw)),
        }
    }
    Ok(auditor.end())
}

struct Auditor<'a> {
    audit: Audit,
    segments: Vec<(Sequence, PathBuf)>,
    trusted: &'a [Vec<u8>],
    /// Heads from elsewhere whose record was not reached yet.
    outside: Vec<HeadStatement>,
    log_id: Option<[u8; 16]>,
    /// The records that no head covered yet.
    open: VecDeque<Leaf>,
    head_before: Option<u64>,
}

struct Leaf {
    sequence: u64,
    hash: Hash,
    /// Runs closed up to and with it.
    closed_runs: u64,
}

impl Auditor<'_> {
    fn find(&mut self, finding: Finding) {
        if self.audit.findings.len() < MOST_FINDINGS {
            self.audit.findings.push(finding);
        }
    }

    /// A head that was kept elsewhere is only of use if it is genuine.
    fn take_outside(&mut self, head: &HeadSigned) -> Result<(), HeadError> {
        let statement = signed::check(head)?;
        if !self.trusted.is_empty() {
            signed::check_trust(head, self.trusted)?;
        }
        self.outside.push(statement);
        Ok(())
    }

    fn link(&mut self, link: &Link) {
        let sequence = link.frame.sequence.get();
        if self.audit.records == 0 {
            self.audit.first = sequence;
        }
        if sequence == 1 {
            self.log_id = Some(log_id(&link.hash));
        }
        self.audit.records += 1;
        self.audit.last = sequence;
        let kept = kept(link);
        self.audit.closed_runs += u64::from(matches!(kept, Ok(Kept::Closed)));
        let closed_runs = self.audit.closed_runs;
        self.compare_with_outside(sequence, link);
        match kept {
            Ok(Kept::Head(head)) => self.head(link, head),
            Ok(_) => {}
            Err(what) => self.find_at(link, what),
        }
        self.open.push_back(Leaf { sequence, hash: link.hash, closed_runs });
    }

    fn find_at(&mut self, link: &Link, what: String) {
        let (place, record) = (link.place.clone(), link.frame.sequence);
        self.find(Finding::At(Flaw { place, record, what }));
    }

    fn compare_with_outside(&mut self, sequence: u64, link: &Link) {
        let (now, later): (Vec<_>, Vec<_>) =
            self.outside.drain(..).partition(|head| head.last_sequence == sequence);
        self.outside = later;
        for head in now {
            if head.chain_hash != link.hash {
                let when = when(head.time);
                self.find_at(
                    link,
                    format!("it is not the record of which a head from elsewhere was signed ({when}): it, or one before it, was changed or replaced"),
                );
            }
        }
    }

    fn head(&mut self, link: &Link, head: HeadSigned) {
        let before = self.audit.findings.len();
        let statement = match HeadStatement::decode(&head.statement) {
            Ok(statement) => statement,
            Err(error) => return self.find_at(link, error.to_string()),
        };
        if let Err(error) = signed::check(&head) {
            self.find_at(link, error.to_string());
        } else if !self.trusted.is_empty()
            && let Err(error) = signed::check_trust(&head, self.trusted)
        {
            self.find_at(link, error.to_string());
        }
        if self.log_id.is_some_and(|id| id != statement.log_id) {
            self.find_at(link, "its head is of another log".to_owned());
        }
        self.compare(link, &statement);
        let sound = self.audit.findings.len() == before;
        self.audit.heads.push(HeadSeen { record: link.frame.sequence, statement, head, sound });
    }

    /// Compares what a head says with the records that it is about, and is done with them.
    fn compare(&mut self, link: &Link, head: &HeadStatement) {
        let (first, last) = (head.first_sequence, head.last_sequence);
        let expected = self.head_before.map_or(self.audit.first, |last| last + 1);
        if first > expected {
            self.find_range((expected, first - 1), "no head covers them: a head was taken out".to_owned());
        }
        if first < expected || last < first {
            let what = format!("its head is about records {first} to {last}, which cannot be");
            return self.find_at(link, what);
        }
        self.head_before = Some(last);
        let count = self.open.iter().take_while(|leaf| leaf.sequence <= last).count();
        let covered: Vec<Leaf> = self.open.drain(..count).filter(|leaf| leaf.sequence >= first).collect();
        let hashes: Vec<Hash> = covered.iter().map(|leaf| leaf.hash).collect();
        let signed = when(head.time);
        if merkle::root(&hashes) != head.merkle_root {
            let number = last - first + 1;
            let what = match covered.len() as u64 {
                found if found != number => format!("{number} were signed ({signed}), {found} are there"),
                _ => format!(
                    "they are not what was signed ({signed}): one of them, or one before, was changed"
                ),
            };
            return self.find_range((first, last), what);
        }
        let end = covered.last();
        if end.is_none_or(|leaf| leaf.hash != head.chain_hash) {
            self.find_at(link, "its head names another chain hash than its last record has".to_owned());
        }
        // What was moved away before the oldest segment is not there to be counted.
        if self.audit.first == 1 && end.is_some_and(|leaf| leaf.closed_runs != head.closed_runs) {
            let found = end.map_or(0, |leaf| leaf.closed_runs);
            let what = format!("its head counts {} closed runs, the log {found}", head.closed_runs);
            self.find_at(link, what);
        }
    }

    fn find_range(&mut self, records: (u64, u64), what: String) {
        let (first, last) = records;
        let begin = self.segments.partition_point(|(begin, _)| begin.get() <= first).saturating_sub(1);
        let holders = self.segments.iter().skip(begin).take_while(|(begin, _)| begin.get() <= last);
        let segments = holders.map(|(_, path)| path.clone()).collect();
        self.find(Finding::Range { records, segments, what });
    }

    fn end(mut self) -> Audit {
        let last = self.audit.last;
        for head in std::mem::take(&mut self.outside) {
            let when = when(head.time);
            let what = if self.log_id.is_some_and(|id| id != head.log_id) {
                format!(
                    "a head from elsewhere, signed {when}, is of another log: this one was begun anew in its place"
                )
            } else if head.last_sequence > last {
                format!(
                    "the log ends with record {last}, but up to record {} was signed {when}: its tail was cut off, \
                     or it was rolled back as a whole",
                    head.last_sequence
                )
            } else {
                format!(
                    "record {}, up to which a head from elsewhere was signed {when}, is missing",
                    head.last_sequence
                )
            };
            self.find(Finding::Whole(what));
        }
        let signed_runs = self.audit.heads.last().map_or(0, |head| head.statement.closed_runs);
        self.audit.unsigned_runs = if self.audit.first == 1 {
            self.audit.closed_runs.saturating_sub(signed_runs)
        } else {
            let before = self.open.front().map_or(self.audit.closed_runs, |leaf| leaf.closed_runs);
            self.audit.closed_runs - before
        };
        self.audit
    }
}

/// A statement's time, for people.
pub fn when(nanoseconds: u64) -> humantime::Rfc3339Timestamp {
    let time: SystemTime = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
    humantime::format_rfc3339_seconds(time)
}
