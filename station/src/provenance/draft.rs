//! The next head while it is gathered: which records it covers, and what it will say of them. Signs nothing.

use std::path::Path;

use factory_journal::{Sequence, segment::Kind};
use factory_proto::head::HeadStatement;

use super::{
    ProvenanceError,
    chain::{self, Chain, Link, Step},
    merkle::{self, Hash},
};
use crate::record::{HeadSigned, Record};

/// The head that comes next.
pub struct Draft {
    chain: Chain,
    station: String,
    log_id: Option<[u8; 16]>,
    first: Sequence,
    /// The hashes of the records from `first` on.
    leaves: Vec<Hash>,
    /// Of the last of these, nanoseconds since 1970 UTC.
    time: u64,
    closed_runs: u64,
}

/// What a record is, as far as heads care.
pub(super) enum Kept {
    /// A run was closed.
    Closed,
    /// A head was signed.
    Head(HeadSigned),
    /// Something else.
    Other,
}

/// The id of the log whose first record has this hash.
pub fn log_id(first: &Hash) -> [u8; 16] {
    *first.first_chunk().expect("a hash is longer than an id")
}

/// What a record is, or why it cannot be read.
pub(super) fn kept(link: &Link) -> Result<Kept, String> {
    if link.frame.kind != Kind::Record {
        return Ok(Kept::Other);
    }
    Ok(
        match minicbor::decode(&link.frame.payload).map_err(|error| format!("it cannot be read: {error}"))? {
            Record::RunClosed(_) => Kept::Closed,
            Record::HeadSigned(head) => Kept::Head(head),
            _ => Kept::Other,
        },
    )
}

impl Draft {
    /// Begins behind the last head in the log in `dir`, or with its first record; looks no further than record
    /// `until`, which must be durable. Blocks.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn open(dir: &Path, station: String, until: Sequence) -> Result<Self, ProvenanceError> {
        let last = last_head(dir, until)?;
        let first = last.as_ref().map_or(Sequence::START, |last| last.last_sequence.into()).next();
        let chain = Chain::open(dir, first)?;
        let closed_runs = last.as_ref().map_or(0, |last| last.closed_runs);
        let log_id = last.map(|last| last.log_id);
        Ok(Self { chain, station, log_id, first, leaves: Vec::new(), time: 0, closed_runs })
    }

    /// How many records it covers.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether it covers nothing yet.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Takes in more records, up to and with `until`, which must be durable, but never more than `most` in all.
    /// Blocks.
    ///
    /// # Errors
    /// The log cannot be read, or is not sound.
    pub fn gather(&mut self, until: Sequence, most: usize) -> Result<(), ProvenanceError> {
        self.chain.refresh()?;
        while self.leaves.len() < most && self.first.get() + self.leaves.len() as u64 <= until.get() {
            let link = match self.chain.step()? {
                Some(Step::Link(link)) => link,
                Some(Step::Flaw(flaw)) => return Err(ProvenanceError::Damaged(flaw)),
                None => break,
            };
            if link.frame.sequence == Sequence::START.next() {
                self.log_id = Some(log_id(&link.hash));
            }
            // A segment is read from its beginning.
            if link.frame.sequence < self.first {
                continue;
            }
            let wrong = |what| {
                let (place, record) = (link.place.clone(), link.frame.sequence);
                ProvenanceError::Damaged(chain::Flaw { place, record, what })
            };
            let expected = self.first.get() + self.leaves.len() as u64;
            if link.frame.sequence.get() != expected {
                return Err(wrong(format!("record {expected} should come first, and no head covers it yet")));
            }
            self.leaves.push(link.hash);
            self.time = link.frame.time;
            let kept = kept(&link).map_err(wrong)?;
            self.closed_runs += u64::from(matches!(kept, Kept::Closed));
        }
        Ok(())
    }

    /// What the head will say of the records that were gathered; `None` where there are none.
    pub fn statement(&self) -> Option<HeadStatement> {
        let (chain_hash, log_id) = (*self.leaves.last()?, self.log_id?);
        let last = self.first.get() + self.leaves.len() as u64 - 1;
        Some(HeadStatement::new(
            self.station.clone(),
            log_id,
            (self.first.get(), last),
            chain_hash,
            merkle::root(&self.leaves),
            self.closed_runs,
            self.time,
        ))
    }

    /// The head is signed: the next one begins behind it.
    pub fn begin_next(&mut self) {
        self.first = Sequence::from(self.first.get() + self.leaves.len() as u64);
        self.leaves.clear();
    }
}

/// What the last head up to record `until` says. It lies near the end, so the segments are read from the last one
/// back.
fn last_head(dir: &Path, until: Sequence) -> Result<Option<HeadStatement>, ProvenanceError> {
    let segments = chain::segments(dir)?;
    let mut end = until.next();
    for (first, _) in segments.into_iter().rev().filter(|(first, _)| *first <= until) {
        let mut chain = Chain::open(dir, first)?;
        let (mut last, mut next) = (None, first);
        while next < end {
            let link = match chain.step()? {
                Some(Step::Link(link)) => link,
                Some(Step::Flaw(flaw)) => return Err(ProvenanceError::Damaged(flaw)),
                None => break,
            };
            next = link.frame.sequence.next();
            if let Ok(Kept::Head(head)) = kept(&link) {
                last = Some(head);
            }
        }
        if let Some(head) = last {
            return Ok(Some(HeadStatement::decode(&head.statement).map_err(super::signed::HeadError::from)?));
        }
        end = first;
    }
    Ok(None)
}
