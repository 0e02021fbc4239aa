//! How a run or a step can end.

use std::{fmt, str::FromStr};

use crate::station;

/// How a run or a step ended. Only `Fail` says that the product is wrong, and only it counts against yield.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// All that was asked was done and seen to be so.
    Pass,
    /// The product is wrong.
    Fail,
    /// The station, an instrument, the signer or the recipe is wrong.
    Error,
    /// A step did not end before its deadline.
    Timeout,
    /// Somebody asked the run to stop.
    Aborted,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Error => "ERROR",
            Self::Timeout => "TIMEOUT",
            Self::Aborted => "ABORTED",
        })
    }
}

impl FromStr for Outcome {
    type Err = UnknownOutcome;
    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        [Self::Pass, Self::Fail, Self::Error, Self::Timeout, Self::Aborted]
            .into_iter()
            .find(|outcome| outcome.to_string() == text)
            .ok_or_else(|| UnknownOutcome(text.to_owned()))
    }
}

/// A word that is no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no outcome")]
pub struct UnknownOutcome(String);

impl From<Outcome> for station::Outcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Pass => Self::Pass,
            Outcome::Fail => Self::Fail,
            Outcome::Error => Self::Error,
            Outcome::Timeout => Self::Timeout,
            Outcome::Aborted => Self::Aborted,
        }
    }
}

impl TryFrom<station::Outcome> for Outcome {
    /// The run lasts: it has no outcome yet.
    type Error = StillRunning;
    fn try_from(outcome: station::Outcome) -> Result<Self, StillRunning> {
        Ok(match outcome {
            station::Outcome::Unspecified => return Err(StillRunning),
            station::Outcome::Pass => Self::Pass,
            station::Outcome::Fail => Self::Fail,
            station::Outcome::Error => Self::Error,
            station::Outcome::Timeout => Self::Timeout,
            station::Outcome::Aborted => Self::Aborted,
        })
    }
}

/// There is no outcome while the run lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the run has not ended")]
pub struct StillRunning;
