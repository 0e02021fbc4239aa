//! What a run finds out of its unit.

use factory_proto::units::{Limits, Quantity};
use minicbor::{Decode, Encode};

use super::{FccAnswer, Identity, KeyRequested, Resumption, Seen, StepEnded, cbor};

/// Everything that a run finds out, filled step by step.
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
pub struct Findings {
    /// The steps that ended, in their order.
    #[n(0)]
    pub steps: Vec<StepEnded>,
    /// All measurements with their limits.
    #[n(1)]
    pub measurements: Vec<Measurement>,
    /// Which firmware booted.
    #[n(2)]
    pub firmware_version: Option<String>,
    /// What was programmed.
    #[n(3)]
    pub flash: Option<Flash>,
    /// Who the device is now.
    #[n(4)]
    pub identity: Option<Identity>,
    /// What the FCC answered to each message.
    #[n(5)]
    pub fcc_answers: Vec<FccAnswer>,
    /// What the tag holds.
    #[n(6)]
    pub tag: Option<Tag>,
    /// What the unit said on its console; at most 64 KiB.
    #[n(7)]
    pub console_log: String,
    /// The chip's own id, where the recipe says how to read it.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub chip: Option<Vec<u8>>,
    /// How often the run was taken up again after the station had ended in the middle of it.
    #[n(9)]
    pub resumptions: Vec<Resumption>,
    /// The requests for keys that the device made for somebody else than the platform.
    #[cbor(n(10), default)]
    pub requests: Vec<KeyRequested>,
    /// What it has that is another unit's, and where that was seen.
    #[n(11)]
    pub seen_before: Option<Seen>,
}

/// A value that the unit measured, and what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Measurement {
    /// As in the recipe.
    #[n(0)]
    pub name: String,
    /// What was measured.
    #[cbor(n(1), with = "cbor::text")]
    pub value: Quantity,
    /// What passes.
    #[cbor(n(2), with = "cbor::limits")]
    pub limits: Limits,
}

/// What was programmed, as read back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Flash {
    /// Bytes.
    #[n(0)]
    pub bytes: u64,
    /// SHA-256 of the programmed ranges in the order of their addresses.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub digest: [u8; 32],
}

/// What the tag holds, as read back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Tag {
    /// Its UID.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub uid: Vec<u8>,
    /// The NDEF message.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub ndef: Vec<u8>,
}
