//! Where a run is, as its records tell: `record × phase → phase`, pure.

use crate::{
    record::{Record, RunOpened},
    step::Step,
};

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Accepted, and not in a step yet.
    Opened(RunOpened),
    /// In a step, or between it and the next.
    Inside(RunOpened, Step),
    /// It has its result.
    Closed,
}

/// A record that cannot follow.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the record {record:?} cannot follow the phase {phase:?}")]
pub struct IllegalRecord {
    phase: Box<Option<Phase>>,
    record: Box<Record>,
}

impl Phase {
    /// The phase after one more record of the same run; `None` is the phase before the first.
    pub fn after(phase: Option<Self>, record: &Record) -> Result<Self, IllegalRecord> {
        use Phase::{Closed, Inside, Opened};
        Ok(match (phase, record) {
            (None, Record::RunOpened(opened)) => Opened(opened.clone()),
            (Some(Opened(run) | Inside(run, _)), Record::StepStarted(started)) => Inside(run, started.step),
            (Some(Inside(run, step)), Record::IssuanceAsked(_) | Record::Issued(_)) => Inside(run, step),
            (Some(Opened(_) | Inside(..)), Record::RunClosed(_)) => Closed,
            (phase, record) => {
                return Err(IllegalRecord { phase: Box::new(phase), record: Box::new(record.clone()) });
            }
        })
    }
}
