//! The figures of the runs that somebody asks about, from the journal.

use std::time::SystemTime;

use factory_journal::{Entry, Journal, JournalError, Sequence};
use factory_proto::ids::{NestName, OrderId};

use super::Yields;
use crate::{
    listing::end_of_time,
    record::{Record, RunClosed},
    units::Units,
};

/// So many runs are looked at, the newest of those asked about: some seconds of reading.
pub const MOST: usize = 100_000;

/// Which runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Of this work order alone.
    pub order: Option<OrderId>,
    /// In this nest alone.
    pub nest: Option<NestName>,
    /// That ended then or later.
    pub from: Option<SystemTime>,
    /// That ended before then.
    pub to: Option<SystemTime>,
}

/// The figures of some runs.
#[derive(Debug, Default)]
pub struct Survey {
    /// The figures.
    pub yields: Yields,
    /// Runs that were asked about and not looked at, because there are too many: the oldest.
    pub left_out: usize,
}

impl Asked {
    /// Looks at all of them. Blocks, for seconds if there are very many.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn survey(&self, journal: &Journal<Record>, units: &Units) -> Result<Survey, JournalError> {
        // Found first and read again one by one: a result may hold a whole console log.
        let found = self.find(journal)?;
        let left_out = found.len().saturating_sub(MOST);
        let mut yields = Yields::default();
        for sequence in &found[left_out..] {
            if let Some(Entry { record: Record::RunClosed(closed), .. }) = journal.get(*sequence)? {
                let past = units.past(&closed.opened, Some(*sequence))?;
                yields.learn(&closed, past);
            }
        }
        Ok(Survey { yields, left_out })
    }

    fn find(&self, journal: &Journal<Record>) -> Result<Vec<Sequence>, JournalError> {
        let mut found = Vec::new();
        let mut look = |entry: Entry<Record>| {
            if matches!(&entry.record, Record::RunClosed(closed) if self.is_about(closed)) {
                found.push(entry.sequence);
            }
        };
        match &self.order {
            Some(order) => {
                for sequence in journal.by_order(order.as_str())? {
                    journal.get(sequence)?.into_iter().for_each(&mut look);
                }
            }
            None => {
                // A result is journalled when its run has ended, or later.
                let from = self.from.unwrap_or(SystemTime::UNIX_EPOCH);
                for entry in journal.by_time(from, end_of_time())? {
                    look(entry?);
                }
            }
        }
        Ok(found)
    }

    fn is_about(&self, closed: &RunClosed) -> bool {
        let is = |wanted: &Option<NestName>| wanted.as_ref().is_none_or(|nest| *nest == closed.opened.nest);
        // A golden unit says something of its nest, nothing of what is made.
        closed.opened.golden.is_none()
            && self.order.as_ref().is_none_or(|order| closed.opened.order.as_ref() == Some(order))
            && is(&self.nest)
            && self.from.is_none_or(|from| closed.ended >= from)
            && self.to.is_none_or(|to| closed.ended < to)
    }
}
