//! A unit beyond its runs: that it was refused, set aside, released, and what became of it.

use std::time::SystemTime;

use factory_proto::{
    disposition::Disposition,
    ids::{NestName, OrderId, Serial},
};
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::{RunId, cbor};

/// The line's controller did not let a unit start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UnitRefused {
    /// The run that it would have been.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// For which order.
    #[cbor(n(1), with = "cbor::text")]
    pub order: OrderId,
    /// Which board.
    #[cbor(n(2), with = "cbor::text")]
    pub serial: Serial,
    /// Where.
    #[cbor(n(3), with = "cbor::text")]
    pub nest: NestName,
    /// When.
    #[cbor(n(4), with = "cbor::time")]
    pub time: SystemTime,
    /// The controller's address.
    #[n(5)]
    pub controller: String,
    /// Its reasons, 1 to 8, each beginning with what was judged.
    #[n(6)]
    pub reasons: Vec<String>,
}

/// Why a unit must be set aside, and what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Quarantine {
    /// What is not known of the unit.
    #[n(0)]
    pub reason: String,
    /// What an engineer can do.
    #[n(1)]
    pub remedy: String,
}

/// A unit that must not be started.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SetAside {
    /// Which.
    #[cbor(n(0), with = "cbor::text")]
    pub serial: Serial,
    /// Why, and what can be done.
    #[n(1)]
    pub quarantine: Quarantine,
}

/// A unit that was set aside, or was tested as often as it may be, may be started again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UnitReleased {
    /// The command that said so.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// Which unit.
    #[cbor(n(1), with = "cbor::text")]
    pub serial: Serial,
    /// What was done to it.
    #[n(2)]
    pub reason: String,
    /// Whether it was changed: repaired, or a part of it replaced.
    #[cbor(n(3), default)]
    pub reworked: bool,
}

/// It was said what became of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UnitDisposed {
    /// The command that said so.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// Which unit.
    #[cbor(n(1), with = "cbor::text")]
    pub serial: Serial,
    /// What became of it.
    #[n(2)]
    pub disposition: Disposition,
}
