//! The newest units of each nest, and whether it has left the pack: `unit × windows → windows`, pure. Knows no clock
//! and no journal: what was made when is told by the records' numbers.

use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

use factory_journal::Sequence;
use factory_proto::{ids::NestName, outcome::Outcome};

use super::{Rule, chance::Tally};
use crate::{
    history::Past,
    record::{Mostly, NestLeftPack, RunClosed, RunId},
    yields::{Loss, losses},
};

/// What is known of all nests.
#[derive(Debug, Clone)]
pub struct Windows {
    rule: Rule,
    nests: BTreeMap<NestName, Window>,
}

#[derive(Debug, Clone, Default)]
struct Window {
    /// Each with the record in which its run was closed; oldest first, at most as many as the rule says.
    tried: VecDeque<(Sequence, Tried)>,
    /// What it left the pack by with the newest of them.
    left: Option<NestLeftPack>,
}

/// A unit that was tried for the first time: what is kept of its run.
#[derive(Debug, Clone)]
pub struct Tried {
    /// Where.
    pub nest: NestName,
    run: RunId,
    ended: SystemTime,
    recipe: [u8; 32],
    failed: bool,
    /// What it was lost by.
    losses: Vec<Loss>,
}

impl Tried {
    /// A run that was closed, if it says something of its nest: it is the first of its unit that says something of the unit.
    /// A golden unit is no product, and says what it says another way. `past` is what was known of the unit before.
    pub fn of(closed: &RunClosed, past: Past) -> Option<Self> {
        let is_first = past == Past::New && closed.opened.golden.is_none();
        let counts = is_first && matches!(closed.outcome, Outcome::Pass | Outcome::Fail);
        counts.then(|| Self {
            nest: closed.opened.nest.clone(),
            run: closed.opened.run,
            ended: closed.ended,
            recipe: closed.opened.recipe_digest,
            failed: closed.outcome == Outcome::Fail,
            losses: losses(closed),
        })
    }
}

impl Windows {
    /// Nothing is known yet.
    pub fn new(rule: Rule) -> Self {
        Self { rule, nests: BTreeMap::new() }
    }

    /// Takes in a unit whose run was closed in this record; units come in the order of their records.
    pub fn learn(&mut self, sequence: Sequence, tried: Tried) {
        if !self.rule.parks {
            return;
        }
        let nest = tried.nest.clone();
        let window = self.nests.entry(nest.clone()).or_default();
        window.tried.push_back((sequence, tried));
        if window.tried.len() > self.rule.window {
            window.tried.pop_front();
        }
        let left = self.judge(&nest);
        self.nests.entry(nest).or_default().left = left;
    }

    /// Whatever the nest made before this record says nothing of it any more.
    pub fn begin_anew(&mut self, nest: &NestName, sequence: Sequence) {
        if let Some(window) = self.nests.get_mut(nest) {
            window.tried.retain(|(closed, _)| *closed > sequence);
            window.left = None;
        }
    }

    /// What the nest has left the pack by with its newest unit, if it has.
    pub fn left(&self, nest: &NestName) -> Option<&NestLeftPack> {
        self.nests.get(nest)?.left.as_ref()
    }

    /// Whether a nest has left the pack with its newest unit. With one that passed, none does.
    fn judge(&self, nest: &NestName) -> Option<NestLeftPack> {
        let own = &self.nests.get(nest)?.tried;
        let (_, newest) = own.back().filter(|(_, newest)| newest.failed)?;
        let is_same = |(_, tried): &&(Sequence, Tried)| tried.recipe == newest.recipe;
        let own = || own.iter().filter(is_same);
        let (since, _) = own().next()?;
        let others = self.nests.iter().filter(|(other, _)| *other != nest);
        let others = others.flat_map(|(_, window)| &window.tried).filter(is_same);
        let (here, there) = (tally(own()), tally(others.filter(|(sequence, _)| sequence > since)));
        let rule = self.rule.broken_by(here, there)?;
        Some(NestLeftPack {
            nest: nest.clone(),
            run: newest.run,
            at: newest.ended,
            units: here.units,
            failed: here.failed,
            other_units: there.units,
            other_failed: there.failed,
            rule,
            mostly: mostly(own()),
        })
    }
}

fn tally<'a>(tried: impl Iterator<Item = &'a (Sequence, Tried)>) -> Tally {
    let mut tally = Tally::default();
    tried.for_each(|(_, tried)| tally.count(tried.failed));
    tally
}

/// What most failures were.
fn mostly<'a>(tried: impl Iterator<Item = &'a (Sequence, Tried)>) -> Option<Mostly> {
    let mut counted: BTreeMap<&Loss, u32> = BTreeMap::new();
    for loss in tried.flat_map(|(_, tried)| &tried.losses) {
        *counted.entry(loss).or_default() += 1;
    }
    let (loss, units) = counted.into_iter().max_by_key(|(_, units)| *units)?;
    let step = loss.step.map(|step| format!("{step}: ")).unwrap_or_default();
    Some(Mostly { what: format!("{step}{}", loss.cause), units })
}

#[cfg(test)]
mod tests;
