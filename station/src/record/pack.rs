//! That a nest fails more than it should.

use std::time::SystemTime;

use factory_proto::ids::NestName;
use minicbor::{Decode, Encode};

use super::{RunId, cbor};

/// A nest's failure rate has left that of the others, or is beyond its limit: it takes no units until somebody has enabled
/// or cleared it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct NestLeftPack {
    /// Which nest.
    #[cbor(n(0), with = "cbor::text")]
    pub nest: NestName,
    /// The run after which it was found.
    #[cbor(n(1), with = "cbor::text")]
    pub run: RunId,
    /// When that run ended.
    #[cbor(n(2), with = "cbor::time")]
    pub at: SystemTime,
    /// The nest's newest units that were looked at.
    #[n(3)]
    pub units: u32,
    /// How many of them failed.
    #[n(4)]
    pub failed: u32,
    /// Units that the other nests had made since the first of these.
    #[n(5)]
    pub other_units: u32,
    /// How many of them failed.
    #[n(6)]
    pub other_failed: u32,
    /// By which of the rules.
    #[n(7)]
    pub rule: PackRule,
    /// What its failures had in common most often, and how many had it; absent where nothing is known of any.
    #[n(8)]
    pub mostly: Option<Mostly>,
}

/// The rule that a nest's failure rate broke. The numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Encode, Decode)]
pub enum PackRule {
    /// It is so unlikely by chance, 0 to 1, beside the other nests.
    #[n(0)]
    Others(#[n(0)] f64),
    /// It is above this share, 0 to 1, whatever the others do.
    #[n(1)]
    Limit(#[n(0)] f64),
}

/// What most failures of a nest were.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Mostly {
    /// Step and cause, for people.
    #[n(0)]
    pub what: String,
    /// How many units failed so.
    #[n(1)]
    pub units: u32,
}
