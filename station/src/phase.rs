//! Where a run is, as its records tell: `record × phase → phase`, pure.

use crate::{
    record::{Record, RunOpened},
    step::Step,
};

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Between two steps.
    Between {
        /// The run.
        run: RunOpened,
        /// The last step that passed; absent before the first.
        done: Option<Step>,
    },
    /// In a step, which may have been done, or half done, or not begun.
    Inside {
        /// The run.
        run: RunOpened,
        /// The step.
        step: Step,
    },
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
        use Phase::{Between, Closed, Inside};
        Ok(match (phase, record) {
            (None, Record::RunOpened(opened)) => Between { run: opened.clone(), done: None },
            (Some(Between { run, done }), Record::StepStarted(started))
                if run.following(done) == Some(started.step) =>
            {
                Inside { run, step: started.step }
            }
            (Some(Inside { run, step }), Record::StepPassed(passed)) if passed.step == step => {
                Between { run, done: Some(step) }
            }
            (Some(Inside { run, step: Step::Flash }), Record::ChipSeen(_)) => {
                Inside { run, step: Step::Flash }
            }
            (Some(Inside { run, step: Step::Identity }), Record::IssuanceAsked(_) | Record::Issued(_)) => {
                Inside { run, step: Step::Identity }
            }
            (Some(Between { run, done }), Record::RunResumed(resumed))
                if not_beyond(resumed.resumption.goes_on_with, run.following(done)) =>
            {
                Between { done: run.preceding(resumed.resumption.goes_on_with), run }
            }
            // What was left in the middle may turn out to have been done.
            (Some(Inside { run, step }), Record::RunResumed(resumed))
                if not_beyond(resumed.resumption.goes_on_with, run.following(Some(step))) =>
            {
                Between { done: run.preceding(resumed.resumption.goes_on_with), run }
            }
            (Some(Between { .. } | Inside { .. }), Record::RunClosed(_)) => Closed,
            (phase, record) => {
                return Err(IllegalRecord { phase: Box::new(phase), record: Box::new(record.clone()) });
            }
        })
    }
}

impl Phase {
    /// The run, until it is closed.
    pub fn run(&self) -> Option<&RunOpened> {
        match self {
            Self::Between { run, .. } | Self::Inside { run, .. } => Some(run),
            Self::Closed => None,
        }
    }

    /// The step that the run was in, or behind; `None` before the first.
    pub fn step(&self) -> Option<Step> {
        match self {
            Self::Between { done, .. } => *done,
            Self::Inside { step, .. } => Some(*step),
            Self::Closed => None,
        }
    }
}

/// Whether a run may go on with `next` where it could go on with `limit`; `None` stands behind the last step.
fn not_beyond(next: Option<Step>, limit: Option<Step>) -> bool {
    match (next, limit) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(next), Some(limit)) => next <= limit,
    }
}

#[cfg(test)]
mod tests;
