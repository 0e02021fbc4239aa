//! The golden unit: a board that is known to be good, by which a nest proves at the begin of a shift that its fixture is.
//! Owns which units are golden, what the last one has shown in each nest, and so whether a nest must have one before it
//! takes another unit. What [`Rule`] says is pure: it is given the time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use factory_journal::JournalError;
use factory_proto::{
    ids::{NestName, RecipeName, Serial},
    outcome::Outcome,
};

use crate::{
    provenance::shift::{self, ShiftEnd},
    record::GoldenTried,
    units::Units,
};

/// What the station file says of golden units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Whether a nest must have passed one in the present shift before it takes another unit.
    pub required: bool,
    /// The golden units, and whose recipe each is made by.
    pub units: BTreeMap<Serial, RecipeName>,
    /// When shifts end.
    pub shift_ends: Vec<ShiftEnd>,
}

/// A nest must have a golden unit first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Since the shift began, or since a golden unit did not pass in it.
    pub since: SystemTime,
    /// Why, and what to do.
    pub reason: String,
}

/// How a nest stands to its golden unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Present when it must have one first.
    pub due: Option<Due>,
    /// What the last one has shown, in whichever shift.
    pub last: Option<GoldenTried>,
}

/// Why a unit is not taken for what it should be.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// Nothing is made of a golden unit.
    #[error(
        "unit {0} is a golden unit, or was one: nothing is made of it; start it as golden unit (StartGoldenUnit, stationctl \
         golden)"
    )]
    Golden(Serial),
    /// The station file does not name it.
    #[error(
        "unit {0} is no golden unit of this station: name it in [golden] of the station file, if it is one"
    )]
    NotNamed(Serial),
    /// It may have become a product.
    #[error(
        "unit {0} was started to become a product, and proves nothing now: take it out of [golden] of the station file"
    )]
    Product(Serial),
    /// It cannot be looked up.
    #[error("the journal cannot say what the unit was before")]
    Journal(#[from] JournalError),
}

impl Rule {
    /// Whether a nest whose last golden unit has shown this must have another one first. A unit counts in the shift in
    /// which it ended, and as long as the station file names it.
    pub fn due(&self, last: Option<&GoldenTried>, now: SystemTime) -> Option<Due> {
        let begin = shift::begin(&self.shift_ends, now).filter(|_| self.required)?;
        let in_this_shift = |last: &&GoldenTried| {
            self.units.contains_key(&last.serial) && shift::begin(&self.shift_ends, last.ended) == Some(begin)
        };
        let (since, what) = match last.filter(in_this_shift) {
            Some(GoldenTried { outcome: Outcome::Pass, .. }) => return None,
            Some(GoldenTried { serial, ended, outcome, reason, .. }) => (
                *ended,
                format!("golden unit {serial} ended there with {outcome} ({reason}): see to the fixture"),
            ),
            None => {
                let since = humantime::format_rfc3339_seconds(begin);
                (begin, format!("none has passed there since the shift began at {since}"))
            }
        };
        let units: Vec<&str> = self.units.keys().map(Serial::as_str).collect();
        let reason = format!(
            "{what}; lay {} in, and start it as golden unit (StartGoldenUnit, stationctl golden)",
            units.join(" or ")
        );
        Some(Due { since, reason })
    }
}

/// The golden units of a station; cheap to clone.
#[derive(Clone)]
pub struct Golden {
    rule: Arc<Rule>,
    units: Units,
    /// What the last one has shown in each nest.
    last: Arc<Mutex<BTreeMap<NestName, GoldenTried>>>,
}

impl Golden {
    /// Goes on with what the journal's books say of each nest.
    pub fn new(rule: Rule, units: Units, last: BTreeMap<NestName, GoldenTried>) -> Self {
        Self { rule: Arc::new(rule), units, last: Arc::new(Mutex::new(last)) }
    }

    /// How a nest stands to its golden unit.
    pub fn standing(&self, nest: &NestName, now: SystemTime) -> Standing {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).get(nest).cloned();
        Standing { due: self.rule.due(last.as_ref(), now), last }
    }

    /// Takes in what a golden unit has shown, once that is durable.
    pub fn learn(&self, tried: Option<GoldenTried>) {
        if let Some(tried) = tried {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.insert(tried.nest.clone(), tried);
        }
    }

    /// The recipe of a golden unit.
    ///
    /// # Errors
    /// It is none, or was started as something else.
    pub fn recipe(&self, serial: &Serial) -> Result<&RecipeName, GoldenError> {
        let recipe = self.rule.units.get(serial).ok_or_else(|| GoldenError::NotNamed(serial.clone()))?;
        if self.units.is_known(serial)? {
            return Err(GoldenError::Product(serial.clone()));
        }
        Ok(recipe)
    }

    /// Those that the station file names, and their recipes.
    pub fn named(&self) -> impl Iterator<Item = (&Serial, &RecipeName)> {
        self.rule.units.iter()
    }

    /// Whether the station file names it.
    pub fn is_named(&self, serial: &Serial) -> bool {
        self.rule.units.contains_key(serial)
    }

    /// Says whether a unit may become a product.
    ///
    /// # Errors
    /// It is a golden unit, or was one.
    pub fn check_product(&self, serial: &Serial) -> Result<(), GoldenError> {
        if self.is_named(serial) || self.units.was_golden(serial)? {
            return Err(GoldenError::Golden(serial.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
