//! How many results wait for the controller, since when, and which it refused.
//!
//! Counted once when the station starts and kept in memory from then on, so that asking costs nothing however
//! long the controller is away. Knows nothing of the connection.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use factory_journal::{Entry, Journal, JournalError, Sequence};
use tokio::sync::watch;

use super::RECEIVER;
use crate::record::{REFUSALS, Record, ReportRefused};

/// So many refused reports are remembered for those who ask; the journal has them all.
const REMEMBERED: usize = 100;

/// The counters; clones share them.
#[derive(Clone)]
pub struct Backlog(Arc<watch::Sender<Counts>>);

/// What waits, and what was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Results without an acknowledgement.
    pub results: u64,
    /// When the run of the oldest of these ended.
    pub oldest: Option<SystemTime>,
    /// What the controller refused, newest first, at most 100.
    pub refused: Vec<ReportRefused>,
}

struct Counts {
    // Two totals that only rise: an acknowledgement may be faster than the word that there is a result.
    closed: u64,
    settled: u64,
    oldest: Option<SystemTime>,
    /// The last record that is reported, and the last that is settled.
    newest: Sequence,
    reached: Sequence,
    refused: VecDeque<ReportRefused>,
}

impl Backlog {
    /// Counts what the journal holds. Blocks; reads what is not settled.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn count(journal: &Journal<Record>) -> Result<Self, JournalError> {
        let mut counts = Counts::settled_up_to(journal.cursor(RECEIVER));
        let refusals = journal.by_run(REFUSALS)?;
        for sequence in refusals.iter().skip(refusals.len().saturating_sub(REMEMBERED)) {
            if let Some(Record::ReportRefused(refused)) = journal.get(*sequence)?.map(|entry| entry.record) {
                counts.refuse(refused);
            }
        }
        for entry in journal.read(counts.reached.next()) {
            counts.learn(entry?);
        }
        Ok(Self(Arc::new(watch::channel(counts).0)))
    }

    /// What waits, and what was set aside.
    pub fn standing(&self) -> Standing {
        let counts = self.0.borrow();
        let (results, oldest) = (counts.waiting(), counts.oldest);
        Standing { results, oldest, refused: counts.refused.iter().cloned().collect() }
    }

    /// A run was closed: its result is durable, and is record `sequence`.
    pub fn closed(&self, sequence: Sequence, ended: SystemTime) {
        self.0.send_modify(|counts| counts.close(sequence, ended));
    }

    /// Another report is durable, as record `sequence`.
    pub fn reported(&self, sequence: Sequence) {
        self.0.send_modify(|counts| counts.newest = counts.newest.max(sequence));
    }

    /// Returns when the controller has settled every report that there is now and that comes meanwhile.
    pub async fn delivered(&self) {
        // The sender lives as long as this does.
        let _ = self.0.subscribe().wait_for(|counts| counts.reached >= counts.newest).await;
    }

    /// The newest report, as soon as there is one behind `seen`.
    pub async fn newer_than(&self, seen: Sequence) -> Sequence {
        let mut news = self.0.subscribe();
        match news.wait_for(|counts| counts.newest > seen).await {
            Ok(counts) => counts.newest,
            // The sender lives as long as this does.
            Err(_) => seen,
        }
    }

    /// The controller is done with `results` more, and with everything up to `reached`; the oldest result that is
    /// under way, if there is one, ended at `oldest`.
    pub(super) fn settle(&self, results: u64, reached: Sequence, oldest: Option<SystemTime>) {
        self.0.send_modify(|counts| {
            counts.settled += results;
            counts.reached = counts.reached.max(reached);
            // Between two windows the time of one just settled stands in for that of the next.
            counts.oldest = if counts.waiting() == 0 { None } else { oldest.or(counts.oldest) };
        });
    }

    /// The oldest result that waits is this one.
    pub(super) fn oldest_is(&self, ended: SystemTime) {
        self.0.send_modify(|counts| counts.oldest = (counts.waiting() > 0).then_some(ended));
    }

    /// A report was set aside.
    pub(super) fn refused(&self, refused: ReportRefused) {
        self.0.send_modify(|counts| counts.refuse(refused));
    }
}

impl Counts {
    fn settled_up_to(reached: Sequence) -> Self {
        let (newest, refused) = (Sequence::START, VecDeque::new());
        Self { closed: 0, settled: 0, oldest: None, newest, reached, refused }
    }

    fn waiting(&self) -> u64 {
        self.closed.saturating_sub(self.settled)
    }

    fn learn(&mut self, entry: Entry<Record>) {
        match entry.record {
            Record::RunClosed(closed) => self.close(entry.sequence, closed.ended),
            Record::HeadSigned(_) => self.newest = entry.sequence,
            _ => {}
        }
    }

    fn close(&mut self, sequence: Sequence, ended: SystemTime) {
        self.closed += 1;
        self.newest = self.newest.max(sequence);
        if self.waiting() == 1 {
            self.oldest = Some(ended);
        }
    }

    /// A report that was sent again after it was set aside is set aside once.
    fn refuse(&mut self, refused: ReportRefused) {
        self.refused.retain(|other| other.sequence != refused.sequence);
        self.refused.push_front(refused);
        self.refused.truncate(REMEMBERED);
    }
}
