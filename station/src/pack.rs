//! Which nest fails more than the others: of units of the same recipe, made in the same time, each on its first try. Owns
//! the rule and the newest units of each nest. Parks nothing itself: see `nest/leave.rs`.
//!
//! **Only a unit's first run that counts** is looked at (see [`crate::history`]). Retests and reworked units are units that
//! failed before: one bad board that is tested three times would make three failures of one, and the nest in which people
//! use to test again would seem to be the worst.
//!
//! **The others' units in the same time** are what it is compared with: those that were made since the first of its own.
//! When a lot of bad boards comes, it comes to all of them, and then no nest has left the pack.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factory_journal::Sequence;
use factory_proto::ids::NestName;

use crate::record::{NestLeftPack, PackRule};
use chance::{Tally, by_chance};
use windows::Windows;

mod chance;
pub mod survey;
mod windows;

pub use windows::Tried;

/// When a nest has left the pack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Whether nests are looked at.
    pub parks: bool,
    /// So many of its newest units are, at most.
    pub window: usize,
    /// With fewer units nothing is said, neither of it nor by the others.
    pub least_units: u32,
    /// With fewer failures nothing is said.
    pub least_failures: u32,
    /// So much must its failure rate be above the others' together.
    pub least_excess: Percent,
    /// And so unlikely by chance.
    pub significance: Percent,
    /// Above this rate it is parked whatever the others do.
    pub max_failure_rate: Option<Percent>,
}

impl Rule {
    /// Of 8 nests that are alike and make 15 000 units a month each, one is parked by mistake in 20 months, whether they
    /// fail 2% or 20% of them; one of them that fails always among those that fail 2% is parked after 12 units
    /// (`windows/tests.rs` measures both).
    pub const USUAL: Self = Self {
        parks: true,
        window: 100,
        least_units: 20,
        least_failures: 5,
        least_excess: Percent(5.0),
        significance: Percent(0.001),
        max_failure_rate: None,
    };

    /// By what a nest with these newest units has left the others, if it has.
    fn broken_by(&self, here: Tally, there: Tally) -> Option<PackRule> {
        if here.units < self.least_units || here.failed < self.least_failures {
            return None;
        }
        if let Some(limit) = self.max_failure_rate
            && here.rate() > limit.share()
        {
            return Some(PackRule::Limit(limit.share()));
        }
        let excess = here.rate() - there.rate();
        if there.units < self.least_units || excess <= 0.0 || excess < self.least_excess.share() {
            return None;
        }
        let chance = by_chance(here, there);
        (chance < self.significance.share()).then_some(PackRule::Others(chance))
    }
}

/// A share, written as in `"5%"`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

impl Percent {
    /// The same as a number, 0 to 1.
    pub fn share(self) -> f64 {
        self.0 / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Why a text is not a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 0% to 100%, as in \"2.5%\"")]
pub struct PercentError;

impl FromStr for Percent {
    type Err = PercentError;
    fn from_str(text: &str) -> Result<Self, PercentError> {
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
        number.filter(|number| (0.0..=100.0).contains(number)).map(Self).ok_or(PercentError)
    }
}

/// The newest units of all nests; clones share them.
#[derive(Clone)]
pub struct Pack(Arc<Mutex<Windows>>);

impl Pack {
    /// Nothing is known yet.
    pub fn new(rule: Rule) -> Self {
        Self::of(Windows::new(rule))
    }

    fn of(windows: Windows) -> Self {
        Self(Arc::new(Mutex::new(windows)))
    }

    /// Takes in a unit whose run was closed in this record.
    pub fn learn(&self, sequence: Sequence, tried: Tried) {
        self.windows().learn(sequence, tried);
    }

    /// Whatever the nest made before this record says nothing of it any more.
    pub fn begin_anew(&self, nest: &NestName, sequence: Sequence) {
        self.windows().begin_anew(nest, sequence);
    }

    /// What the nest has left the pack by with its newest unit, if it has.
    pub fn left(&self, nest: &NestName) -> Option<NestLeftPack> {
        self.windows().left(nest).cloned()
    }

    // Nothing under this lock can fail half-way.
    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong, and what to do.
impl fmt::Display for NestLeftPack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nest, units, failed, other_units, other_failed, rule, mostly, .. } = self;
        write!(f, "{failed} of its newest {units} units failed, ")?;
        match rule {
            PackRule::Others(chance) => {
                write!(f, "{other_failed} of {other_units} in the other nests meanwhile, p = {chance:.1e}")?;
            }
            PackRule::Limit(limit) => write!(f, "more than {:.1}%", 100.0 * limit)?,
        }
        if let Some(mostly) = mostly {
            write!(f, "; most often {} ({} of {failed})", mostly.what, mostly.units)?;
        }
        write!(f, "; see to the nest's fixture, as to its contacts, then `stationctl nest enable {nest}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_with_its_sign() {
        let read = |text: &str| text.parse::<Percent>().map(Percent::share).ok();
        assert_eq!([read("5%"), read("0.001 %"), read("100%")], [Some(0.05), Some(0.00001), Some(1.0)]);
        assert_eq!(["", "%", "5", "101%", "-1%", "NaN%", "5%%"].map(read), [None; 7]);
        assert_eq!("2.5%".parse::<Percent>().unwrap().to_string(), "2.5%");
    }

    #[test]
    fn what_is_too_few_says_nothing_and_what_is_clear_says_it() {
        let rule = Rule { max_failure_rate: Some(Percent(30.0)), ..Rule::USUAL };
        let check = |here: (u32, u32), there: (u32, u32), by: Option<&str>| {
            let tally = |(units, failed)| Tally { units, failed };
            let broken = rule.broken_by(tally(here), tally(there)).map(|rule| match rule {
                PackRule::Others(_) => "others",
                PackRule::Limit(_) => "limit",
            });
            assert_eq!(broken, by, "{here:?} {there:?}");
        };
        check((0, 0), (0, 0), None);
        check((20, 6), (350, 4), Some("others"));
        // Too few units, failures; others.
        check((19, 19), (350, 4), None);
        check((100, 4), (10_000, 0), None);
        check((20, 6), (19, 0), None);
        // They all fail alike; it fails less.
        check((100, 20), (700, 140), None);
        check((100, 5), (700, 140), None);
        // Sure, but not worth it.
        check((1000, 40), (100_000, 500), None);
        check((1000, 60), (100_000, 500), Some("others"));
        // Alone it has nothing but the limit.
        check((100, 29), (0, 0), None);
        check((100, 31), (0, 0), Some("limit"));
        check((20, 20), (700, 700), Some("limit"));
    }
}
