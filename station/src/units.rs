//! What the journal knows of runs: one of them, or a page.

use std::sync::Arc;

use factory_journal::{Entry, Journal, JournalError, Sequence};
use factory_proto::ids::OrderId;

use crate::record::{Identity, Record, RunClosed, RunId, RunOpened};

/// A run as far as it has come.
#[derive(Debug, Clone)]
pub struct Unit {
    /// What it began as.
    pub opened: RunOpened,
    /// The identity that it was given.
    pub identity: Option<Identity>,
    /// Its result; absent while it lasts.
    pub closed: Option<Box<RunClosed>>,
}

type Entries<'a> = Box<dyn Iterator<Item = Result<Entry<Record>, JournalError>> + 'a>;

/// Questions to the journal about runs.
#[derive(Clone)]
pub struct Units(Arc<Journal<Record>>);

impl Units {
    /// Answers from this journal.
    pub fn new(journal: Arc<Journal<Record>>) -> Self {
        Self(journal)
    }

    /// One run.
    pub fn find(&self, run: RunId) -> Result<Option<Unit>, JournalError> {
        let mut unit = None;
        for sequence in self.0.by_run(&run.to_string())? {
            let Some(entry) = self.0.get(sequence)? else { continue };
            match (&mut unit, entry.record) {
                (None, Record::RunOpened(opened)) => {
                    unit = Some(Unit { opened, identity: None, closed: None });
                }
                (Some(unit), Record::Issued(issued)) => unit.identity = Some(issued.identity),
                (Some(unit), Record::RunClosed(closed)) => unit.closed = Some(closed),
                _ => {}
            }
        }
        Ok(unit)
    }

    /// At most `size` runs whose first record lies at `from` or later, oldest first, and where the next
    /// page begins.
    pub fn page(
        &self,
        order: Option<&OrderId>,
        from: Sequence,
        size: usize,
    ) -> Result<(Vec<Unit>, Option<Sequence>), JournalError> {
        let mut page = Vec::new();
        for entry in self.of_order(order, from)? {
            let entry = entry?;
            let Record::RunOpened(opened) = entry.record else { continue };
            if page.len() == size {
                return Ok((page, Some(entry.sequence)));
            }
            page.extend(self.find(opened.run)?);
        }
        Ok((page, None))
    }

    fn of_order(&self, order: Option<&OrderId>, from: Sequence) -> Result<Entries<'_>, JournalError> {
        Ok(match order {
            None => Box::new(self.0.read(from)),
            Some(order) => {
                let sequences = self.0.by_order(order.as_str())?.into_iter();
                Box::new(
                    sequences
                        .filter(move |sequence| *sequence >= from)
                        .filter_map(|sequence| self.0.get(sequence).transpose()),
                )
            }
        })
    }
}
