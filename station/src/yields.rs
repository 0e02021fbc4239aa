//! How well the line does, told by the runs that were closed: yields, where units are lost, how long steps take.
//! Pure but for `survey`; knows no clock.
//!
//! A run that counts (see [`crate::history`]) is a unit's **first**, or the first after **rework**, or a **retest** of what
//! has not changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use factory_proto::{
    ids::{NestName, Serial},
    outcome::Outcome,
};

use crate::{
    history::Past,
    record::{RunClosed, StepEnded},
    step::Step,
};

mod cause;
pub mod survey;
mod times;

pub use cause::losses;
pub use times::Times;

/// Counting runs of one kind, or units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tries {
    /// How many there were.
    pub runs: u64,
    /// How many of them passed.
    pub passed: u64,
}

impl Tries {
    fn count(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.passed += u64::from(outcome == Outcome::Pass);
    }
}

/// One way in which runs did not pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Loss {
    /// Never PASS.
    pub outcome: Outcome,
    /// Where; absent between two steps.
    pub step: Option<Step>,
    /// Why, without what differs from run to run.
    pub cause: String,
}

/// How often something was lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lost {
    /// Runs that ended so.
    pub runs: u64,
    /// Units of these.
    pub units: u64,
    /// The reason of the newest of them, in full.
    pub example: String,
    serials: BTreeSet<Serial>,
}

/// How well the line did.
#[derive(Debug, Clone, Default)]
pub struct Yields {
    /// All runs, by how they ended.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// First counting runs of units.
    pub first: Tries,
    /// Counting runs of units that had been tested before and were not reworked.
    pub retests: Tries,
    /// First counting runs after rework.
    pub reworks: Tries,
    losses: HashMap<Loss, Lost>,
    /// How long steps took, by step and nest; those that passed.
    pub steps: BTreeMap<(Step, NestName), Times>,
    /// How long runs took that passed, by nest.
    pub runs: BTreeMap<NestName, Times>,
    /// For how long nests were at a step, however it ended.
    busy: BTreeMap<Step, Duration>,
    /// How the last counting run of each unit ended.
    last: HashMap<Serial, Outcome>,
}

impl Yields {
    /// Takes in a run; runs come in the order in which they were closed. `past` is what was known of the unit before.
    pub fn learn(&mut self, closed: &RunClosed, past: Past) {
        let run = &closed.opened;
        *self.outcomes.entry(closed.outcome).or_default() += 1;
        if matches!(closed.outcome, Outcome::Pass | Outcome::Fail) {
            match past {
                Past::New => self.first.count(closed.outcome),
                Past::Failed | Past::Passed => self.retests.count(closed.outcome),
                Past::Reworked => self.reworks.count(closed.outcome),
            }
            self.last.insert(run.serial.clone(), closed.outcome);
        }
        for loss in cause::losses(closed) {
            let lost = self.losses.entry(loss).or_default();
            lost.runs += 1;
            lost.serials.insert(run.serial.clone());
            lost.units = lost.serials.len() as u64;
            lost.example = closed.stopped.as_ref().map_or_else(String::new, |stopped| stopped.reason.clone());
        }
        self.time(closed);
    }

    fn time(&mut self, closed: &RunClosed) {
        let nest = &closed.opened.nest;
        for StepEnded { step, started, ended, outcome } in &closed.findings.steps {
            // A clock that was set back in the middle of a step says nothing.
            let Ok(took) = ended.duration_since(*started) else { continue };
            *self.busy.entry(*step).or_default() += took;
            if *outcome == Outcome::Pass {
                self.steps.entry((*step, nest.clone())).or_default().add(took);
            }
        }
        // The time that a dead station left a unit lying is none of the run's.
        if closed.outcome == Outcome::Pass
            && closed.findings.resumptions.is_empty()
            && let Ok(took) = closed.ended.duration_since(closed.opened.started)
        {
            self.runs.entry(nest.clone()).or_default().add(took);
        }
    }

    /// Units of which a run counted, and those of them whose last one passed.
    pub fn units(&self) -> Tries {
        let mut units = Tries::default();
        self.last.values().for_each(|outcome| units.count(*outcome));
        units
    }

    /// Where units are lost: what cost most runs first.
    pub fn pareto(&self) -> Vec<(&Loss, &Lost)> {
        let mut losses: Vec<_> = self.losses.iter().collect();
        losses.sort_by(|(a, lost_a), (b, lost_b)| lost_b.runs.cmp(&lost_a.runs).then_with(|| a.cmp(b)));
        losses
    }

    /// The step that holds nests longest, and its share of the time that they are at steps at all.
    pub fn bottleneck(&self) -> Option<(Step, f64)> {
        let whole: Duration = self.busy.values().sum();
        let (step, longest) = self.busy.iter().max_by_key(|(_, busy)| **busy)?;
        (!whole.is_zero()).then(|| (*step, longest.as_secs_f64() / whole.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests;
