//! The units that the line's controller did not let start, as far as somebody may want to look at them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factory_journal::{Journal, JournalError};

use crate::record::{REFUSED_UNITS, Record, UnitRefused};

/// So many are remembered for those who ask; the journal has them all.
const REMEMBERED: usize = 100;

/// The newest refusals; clones share them.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<VecDeque<UnitRefused>>>);

impl Refusals {
    /// What the journal holds. Blocks while it reads.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn of(journal: &Journal<Record>) -> Result<Self, JournalError> {
        let refusals = Self::default();
        let known = journal.by_run(REFUSED_UNITS)?;
        for sequence in known.iter().skip(known.len().saturating_sub(REMEMBERED)) {
            if let Some(Record::UnitRefused(refused)) = journal.get(*sequence)?.map(|entry| entry.record) {
                refusals.add(refused);
            }
        }
        Ok(refusals)
    }

    /// One more, which is durable.
    pub fn add(&self, refused: UnitRefused) {
        let mut newest = self.newest_first();
        newest.push_front(refused);
        newest.truncate(REMEMBERED);
    }

    /// At most 100, newest first.
    pub fn all(&self) -> Vec<UnitRefused> {
        self.newest_first().iter().cloned().collect()
    }

    // No step under this lock can fail half-way, so what a panicking holder left behind is whole.
    fn newest_first(&self) -> MutexGuard<'_, VecDeque<UnitRefused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
