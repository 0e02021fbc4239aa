//! What the journal knows of runs and units.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use factory_journal::{Entry, Journal, JournalError, Sequence};
use factory_proto::{
    ids::{OrderId, Serial},
    outcome::Outcome,
};
use uuid::Uuid;

use crate::{
    history::{History, Past},
    record::{AbortAsked, Identity, IssuanceAsked, Record, RunClosed, RunId, RunOpened, UnitDisposed},
};

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

    /// How a run, or what was to become one, was asked to stop.
    pub fn aborted(&self, run: RunId) -> Result<Option<AbortAsked>, JournalError> {
        for sequence in self.0.by_run(&run.to_string())? {
            if let Some(Record::AbortAsked(asked)) = self.0.get(sequence)?.map(|entry| entry.record) {
                return Ok(Some(asked));
            }
        }
        Ok(None)
    }

    /// What a run began as.
    pub fn opened(&self, run: RunId) -> Result<Option<RunOpened>, JournalError> {
        let Some(first) = self.0.by_run(&run.to_string())?.first().copied() else { return Ok(None) };
        Ok(self.0.get(first)?.and_then(opened))
    }

    /// What the last run of a unit began as that was opened before a record; of all its runs where
    /// that is absent.
    pub fn last_opened(
        &self,
        serial: &Serial,
        before: Option<Sequence>,
    ) -> Result<Option<RunOpened>, JournalError> {
        let sequences = self.0.by_unit(serial.as_str())?.into_iter().rev();
        for sequence in sequences.filter(|found| before.is_none_or(|before| *found < before)) {
            if let Some(run) = self.0.get(sequence)?.and_then(opened) {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// The issuances that were asked for a unit, in all its runs, oldest first.
    pub fn issuances(&self, serial: &Serial) -> Result<Vec<IssuanceAsked>, JournalError> {
        let asked = |record| if let Record::IssuanceAsked(asked) = record { Some(asked) } else { None };
        self.about(serial)?.filter_map(|record| record.map(asked).transpose()).collect()
    }

    /// Whether there was a run of this unit that was to make a product of it.
    pub fn is_known(&self, serial: &Serial) -> Result<bool, JournalError> {
        self.any_about(serial, |record| matches!(record, Record::RunOpened(run) if run.golden.is_none()))
    }

    /// Whether it was started as a golden unit.
    pub fn was_golden(&self, serial: &Serial) -> Result<bool, JournalError> {
        self.any_about(serial, |record| matches!(record, Record::RunOpened(run) if run.golden.is_some()))
    }

    /// The run of this unit that has passed.
    pub fn passed(&self, serial: &Serial) -> Result<Option<RunClosed>, JournalError> {
        for record in self.about(serial)? {
            if let Record::RunClosed(closed) = record?
                && closed.outcome == Outcome::Pass
            {
                return Ok(Some(*closed));
            }
        }
        Ok(None)
    }

    /// The runs of this unit that were closed: how many, and the `newest` of them, oldest first.
    pub fn closed(&self, serial: &Serial, newest: usize) -> Result<(usize, Vec<RunClosed>), JournalError> {
        let (mut closed, mut last) = (0, VecDeque::with_capacity(newest));
        for record in self.about(serial)? {
            if let Record::RunClosed(run) = record? {
                closed += 1;
                if last.len() == newest {
                    last.pop_front();
                }
                last.push_back(*run);
            }
        }
        Ok((closed, last.into()))
    }

    /// Whether this command has released the unit from its quarantine.
    pub fn was_released(&self, serial: &Serial, command: Uuid) -> Result<bool, JournalError> {
        self.any_about(serial, |record| matches!(record, Record::UnitReleased(by) if by.command == command))
    }

    /// What became of a unit, as was said last, and by which command.
    pub fn disposition(&self, serial: &Serial) -> Result<Option<UnitDisposed>, JournalError> {
        let disposed =
            |record| if let Record::UnitDisposed(disposed) = record { Some(disposed) } else { None };
        let mut all = self.about(serial)?.filter_map(|record| record.map(disposed).transpose());
        all.try_fold(None, |_, disposed| Ok(Some(disposed?)))
    }

    /// The units of which there was a run in an order.
    pub fn serials(&self, order: &OrderId) -> Result<BTreeSet<Serial>, JournalError> {
        let mut serials = BTreeSet::new();
        for sequence in self.0.by_order(order.as_str())? {
            if let Some(Record::RunOpened(opened)) = self.0.get(sequence)?.map(|entry| entry.record) {
                serials.insert(opened.serial);
            }
        }
        Ok(serials)
    }

    /// All that was recorded of a unit, oldest first, less what happened within its runs.
    pub fn story(&self, serial: &Serial) -> Result<Vec<Entry<Record>>, JournalError> {
        let sequences = self.0.by_unit(serial.as_str())?.into_iter();
        sequences.filter_map(|sequence| self.0.get(sequence).transpose()).collect()
    }

    /// What a unit went through, as the records up to and without `before` tell; all of them where that is absent.
    pub fn history(&self, serial: &Serial, before: Option<Sequence>) -> Result<History, JournalError> {
        let mut history = History::default();
        for sequence in self.0.by_unit(serial.as_str())? {
            if before.is_some_and(|before| sequence >= before) {
                break;
            }
            if let Some(entry) = self.0.get(sequence)? {
                history.learn(&entry.record);
            }
        }
        Ok(history)
    }

    /// What was known of a run's unit, as the records up to and without `before` tell; all of them where that is absent.
    /// Of most units nothing is recorded before their one run, as the index alone tells: to read more of a log that is
    /// archived takes milliseconds for each.
    pub fn past(&self, run: &RunOpened, before: Option<Sequence>) -> Result<Past, JournalError> {
        let known = self.0.by_unit(run.serial.as_str())?;
        if known.first() == self.0.by_run(&run.run.to_string())?.first() {
            return Ok(Past::New);
        }
        Ok(self.history(&run.serial, before)?.past)
    }

    fn any_about(&self, serial: &Serial, is_it: impl Fn(Record) -> bool) -> Result<bool, JournalError> {
        for record in self.about(serial)? {
            if is_it(record?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn about(
        &self,
        serial: &Serial,
    ) -> Result<impl Iterator<Item = Result<Record, JournalError>>, JournalError> {
        let sequences = self.0.by_unit(serial.as_str())?.into_iter();
        Ok(sequences.filter_map(|sequence| self.0.get(sequence).transpose()).map(|entry| Ok(entry?.record)))
    }

    /// What it answers from.
    pub fn journal(&self) -> &Journal<Record> {
        &self.0
    }
}

fn opened(entry: Entry<Record>) -> Option<RunOpened> {
    if let Record::RunOpened(opened) = entry.record { Some(opened) } else { None }
}
