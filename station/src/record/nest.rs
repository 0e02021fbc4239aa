//! What people do with a nest.

use std::time::SystemTime;

use factory_proto::ids::NestName;
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::cbor;

/// What people do with a nest. The numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum NestAct {
    /// It takes no units until it is enabled.
    #[n(0)]
    Park,
    /// It takes units again.
    #[n(1)]
    Enable,
    /// The faults of its instruments are forgotten.
    #[n(2)]
    Clear,
    /// It shows which one it is.
    #[n(3)]
    Identify,
}

/// Something is done with a nest by hand.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NestCommanded {
    /// The command that said so.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// Which nest.
    #[cbor(n(1), with = "cbor::text")]
    pub nest: NestName,
    /// What.
    #[n(2)]
    pub act: NestAct,
    /// Who.
    #[n(3)]
    pub by: String,
    /// Why it is parked; empty for the rest.
    #[n(4)]
    pub reason: String,
    /// When.
    #[cbor(n(5), with = "cbor::time")]
    pub at: SystemTime,
}
