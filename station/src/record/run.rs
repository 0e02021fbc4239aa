//! A run: who it is, that it was opened, resumed or is to stop, and its result. Its steps are in `step`, what they find out
//! in `findings`.

use std::{fmt, str::FromStr, time::SystemTime};

use factory_proto::{
    ids::{NestName, OrderId, RecipeName, Serial},
    outcome::Outcome,
};
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::{Findings, Quarantine, cbor};
use crate::{recipe::template::Values, step::Step};

/// One attempt on a unit. Follows from the command that started it, so that the same command is the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(Uuid);

// Any fixed value will do; this one was drawn once. It keeps our ids apart from everybody else's.
const RUNS: Uuid = Uuid::from_u128(0x6d0d_2c4e_61a5_4f4b_9a51_0f1b_c0de_d00d);

impl RunId {
    /// The run that this command starts.
    pub fn of_command(command: Uuid) -> Self {
        Self(Uuid::new_v5(&RUNS, command.as_bytes()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// A run was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RunOpened {
    /// Which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// For which order; absent for a golden unit, which belongs to none.
    #[cbor(n(1), with = "cbor::optional_text")]
    pub order: Option<OrderId>,
    /// On which board.
    #[cbor(n(2), with = "cbor::text")]
    pub serial: Serial,
    /// Where.
    #[cbor(n(3), with = "cbor::text")]
    pub nest: NestName,
    /// SHA-256 of the recipe file.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub recipe_digest: [u8; 32],
    /// When.
    #[cbor(n(5), with = "cbor::time")]
    pub started: SystemTime,
    /// What its order gives it beside its serial number.
    #[cbor(n(6), default)]
    pub values: Values,
    /// Who allowed it; absent where nobody had to be asked.
    #[n(7)]
    pub allowed: Option<AllowedBy>,
    /// The recipe whose golden unit it is; absent for a unit that is to become a product.
    #[cbor(n(10), default, with = "cbor::optional_text")]
    pub golden: Option<RecipeName>,
}

impl RunOpened {
    /// For people: for which order, and where, as of this time in it.
    pub fn place(&self, time: SystemTime) -> String {
        place(self.order.as_ref(), &self.nest, time, self.run)
    }
}

#[cfg(test)]
impl RunOpened {
    /// One that a test made up, to say of it only what matters there.
    pub(crate) fn made_up() -> Self {
        Self {
            run: RunId::of_command(Uuid::nil()),
            order: Some("order-1".parse().unwrap()),
            serial: "1".parse().unwrap(),
            nest: "nest-1".parse().unwrap(),
            recipe_digest: [0; 32],
            started: SystemTime::UNIX_EPOCH,
            values: Values::default(),
            allowed: None,
            golden: None,
        }
    }
}

/// For people: where something was, as of this time in a run.
pub(super) fn place(order: Option<&OrderId>, nest: &NestName, time: SystemTime, run: RunId) -> String {
    let order = order.map_or("no work order".to_owned(), |order| format!("work order {order}"));
    format!("{order}, in nest {nest} at {}, run {run}", humantime::format_rfc3339_seconds(time))
}

/// Who allowed a run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum AllowedBy {
    /// The line's controller at this address.
    #[n(0)]
    Controller(#[n(0)] String),
    /// Nobody who answered: it is one of the units of this offline allowance.
    #[n(1)]
    Budget(#[cbor(n(0), with = "cbor::text")] Uuid),
}

/// A run that a station's end had left open goes on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RunResumed {
    /// Which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// From where to where.
    #[n(1)]
    pub resumption: Resumption,
}

/// From where to where a run was taken up again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Resumption {
    /// When.
    #[cbor(n(0), with = "cbor::time")]
    pub time: SystemTime,
    /// The step in which, or after which, the run had been left; absent before the first.
    #[cbor(n(1), with = "cbor::optional_text")]
    pub left_in: Option<Step>,
    /// The step with which it goes on; absent when only its result was missing.
    #[cbor(n(2), with = "cbor::optional_text")]
    pub goes_on_with: Option<Step>,
}

/// A run is to stop at the next safe place; a start that waits for the controller's leave is not to become one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AbortAsked {
    /// Which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// For which order; absent for a golden unit.
    #[cbor(n(1), with = "cbor::optional_text")]
    pub order: Option<OrderId>,
    /// On which board.
    #[cbor(n(2), with = "cbor::text")]
    pub serial: Serial,
    /// Where.
    #[cbor(n(3), with = "cbor::text")]
    pub nest: NestName,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// When.
    #[cbor(n(5), with = "cbor::time")]
    pub time: SystemTime,
}

/// A run has ended, and this is its result.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct RunClosed {
    /// What it began as.
    #[n(0)]
    pub opened: RunOpened,
    /// When it ended.
    #[cbor(n(1), with = "cbor::time")]
    pub ended: SystemTime,
    /// How it ended.
    #[cbor(n(2), with = "cbor::text")]
    pub outcome: Outcome,
    /// Where and why it did not pass; absent on a pass.
    #[n(3)]
    pub stopped: Option<Stopped>,
    /// What was found out on the way.
    #[n(4)]
    pub findings: Findings,
    /// Why the unit must be set aside; absent when it need not.
    #[n(5)]
    pub quarantine: Option<Quarantine>,
}

/// Where and why a run did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Stopped {
    /// The step; absent when it stopped between two.
    #[cbor(n(0), with = "cbor::optional_text")]
    pub step: Option<Step>,
    /// Why, for people.
    #[n(1)]
    pub reason: String,
}
