//! What a station may still start on its own: `record × budget → budget`, pure; time from outside.
//!
//! One allowance is in force: the newest by its time of issue. What was left of the one before is void then, so that
//! nothing adds up, and nothing that was in force once comes back.

use std::time::{Duration, SystemTime};

use factory_proto::ids::NestName;
use uuid::Uuid;

use super::allowance::Allowance;
use crate::record::{AllowedBy, BudgetGranted, BudgetTally, RunOpened};

// Clocks that are kept by NTP differ by less; beyond it, one of the two is wrong.
const SKEW: Duration = Duration::from_secs(300);

/// The allowance in force, and how much of it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget(Option<BudgetTally>);

/// What is left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// The allowance in force; absent when there is none.
    pub allowance: Option<Uuid>,
    /// Runs that it allows in all.
    pub units: u32,
    /// Runs that may be started now.
    pub left: u32,
    /// The last moment at which one may be.
    pub expires: Option<SystemTime>,
}

/// Why an allowance is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It names another.
    #[error("the allowance is for station {named}, this is {here}; have one issued for this station")]
    OtherStation {
        /// Which it names.
        named: NestName,
        /// Which this is.
        here: NestName,
    },
    /// Its time is over.
    #[error("the allowance expired at {expires}, and it is {now}; have a new one issued")]
    Expired {
        /// When.
        expires: Stamp,
        /// By the station's clock, or by its newest record where that is later.
        now: Stamp,
    },
    /// It comes from the future.
    #[error(
        "the allowance was issued at {issued}, and here it is {now}; see to the clocks of station and MES"
    )]
    NotYet {
        /// When.
        issued: Stamp,
        /// By the station's clock.
        now: Stamp,
    },
    /// A newer one is, or was, in force.
    #[error(
        "the allowance was issued at {issued}, not after the one that this station had last, of {known}; have a new \
         one issued"
    )]
    Older {
        /// When this one was.
        issued: Stamp,
        /// When that one was.
        known: Stamp,
    },
    /// The same id, other contents.
    #[error("allowance {0} is known here with other contents; have one issued under an id of its own")]
    Differs(Uuid),
}

/// Why no run may be started without the MES; each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// There is none.
    #[error(
        "this station has no offline allowance: see that the controller runs and is reached, or give the station a \
         signed allowance with `stationctl budget load`"
    )]
    None,
    /// Every unit of it is started.
    #[error(
        "all {units} units of offline allowance {allowance} are used up: see that the controller runs and is reached, \
         or give the station a new allowance with `stationctl budget load`"
    )]
    UsedUp {
        /// Which.
        allowance: Uuid,
        /// How many it had.
        units: u32,
    },
    /// Its time is over.
    #[error(
        "offline allowance {allowance} expired at {expires}, and it is {now}: see that the controller runs and is \
         reached, or give the station a new allowance with `stationctl budget load`"
    )]
    Expired {
        /// Which.
        allowance: Uuid,
        /// When.
        expires: Stamp,
        /// By the station's clock, or by its newest record where that is later.
        now: Stamp,
    },
    /// The station's clock was set back.
    #[error(
        "it is {now} here, before offline allowance {allowance} was issued at {issued}: set the station's clock right"
    )]
    ClockBehind {
        /// Which.
        allowance: Uuid,
        /// When.
        issued: Stamp,
        /// By the station's clock.
        now: Stamp,
    },
}

/// A moment as people are told it, RFC 3339 to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub SystemTime);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A clock before 1970 is told as 1970.
        humantime::format_rfc3339_seconds(self.0.max(SystemTime::UNIX_EPOCH)).fmt(f)
    }
}

impl Budget {
    /// As a checkpoint holds it.
    pub fn at(tally: Option<BudgetTally>) -> Self {
        Self(tally)
    }

    /// For a checkpoint whose reader learns the records of these open runs once more.
    pub fn without<'a>(&self, open: impl Iterator<Item = &'a RunOpened>) -> Option<BudgetTally> {
        let mut tally = self.0.clone()?;
        let id = tally.granted.id;
        let again = open.filter(|run| run.allowed == Some(AllowedBy::Budget(id))).count();
        tally.used = tally.used.saturating_sub(u32::try_from(again).unwrap_or(u32::MAX));
        Some(tally)
    }

    /// An allowance came into force.
    pub fn granted(&mut self, granted: BudgetGranted) {
        self.0 = Some(BudgetTally { granted, used: 0 });
    }

    /// A run was started; it counts if that was on the allowance in force.
    pub fn started(&mut self, run: &RunOpened) {
        if let (Some(tally), Some(AllowedBy::Budget(id))) = (&mut self.0, &run.allowed)
            && tally.granted.id == *id
        {
            tally.used = tally.used.saturating_add(1);
        }
    }

    /// Whether an allowance is a new one that may come into force; `false` where it is the one in force.
    ///
    /// # Errors
    /// It may not.
    pub fn is_new(&self, allowance: &Allowance, here: &NestName, now: SystemTime) -> Result<bool, NotTaken> {
        if allowance.station != *here {
            return Err(NotTaken::OtherStation { named: allowance.station.clone(), here: here.clone() });
        }
        if let Some(BudgetTally { granted, .. }) = &self.0 {
            if granted.id == allowance.id {
                let same = (granted.units, granted.issued, granted.expires)
                    == (allowance.units, allowance.issued, allowance.expires);
                return if same { Ok(false) } else { Err(NotTaken::Differs(allowance.id)) };
            }
            if allowance.issued <= granted.issued {
                let (issued, known) = (Stamp(allowance.issued), Stamp(granted.issued));
                return Err(NotTaken::Older { issued, known });
            }
        }
        if now > allowance.expires {
            return Err(NotTaken::Expired { expires: Stamp(allowance.expires), now: Stamp(now) });
        }
        if now + SKEW < allowance.issued {
            return Err(NotTaken::NotYet { issued: Stamp(allowance.issued), now: Stamp(now) });
        }
        Ok(true)
    }

    /// Counts one run that is about to be started.
    ///
    /// # Errors
    /// None may be.
    pub fn take(&mut self, now: SystemTime) -> Result<Uuid, Exhausted> {
        let Some(BudgetTally { granted, used }) = &mut self.0 else { return Err(Exhausted::None) };
        let allowance = granted.id;
        if now > granted.expires {
            return Err(Exhausted::Expired { allowance, expires: Stamp(granted.expires), now: Stamp(now) });
        }
        if now + SKEW < granted.issued {
            return Err(Exhausted::ClockBehind { allowance, issued: Stamp(granted.issued), now: Stamp(now) });
        }
        if *used >= granted.units {
            return Err(Exhausted::UsedUp { allowance, units: granted.units });
        }
        *used += 1;
        Ok(allowance)
    }

    /// What is left.
    pub fn left(&self, now: SystemTime) -> Left {
        let Some(BudgetTally { granted, used }) = &self.0 else { return Left::default() };
        let in_time = now <= granted.expires && now + SKEW >= granted.issued;
        Left {
            allowance: Some(granted.id),
            units: granted.units,
            left: if in_time { granted.units.saturating_sub(*used) } else { 0 },
            expires: Some(granted.expires),
        }
    }
}

#[cfg(test)]
mod tests;
