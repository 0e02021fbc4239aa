//! An offline allowance, and how much of it is used.

use std::time::SystemTime;

use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::cbor;

/// An offline allowance came into force, in the place of the one before.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BudgetGranted {
    /// Which.
    #[cbor(n(0), with = "cbor::text")]
    pub id: Uuid,
    /// Runs that may be started on it.
    #[n(1)]
    pub units: u32,
    /// When it was issued.
    #[cbor(n(2), with = "cbor::time")]
    pub issued: SystemTime,
    /// The last moment at which a run may be started on it.
    #[cbor(n(3), with = "cbor::time")]
    pub expires: SystemTime,
    /// When it came into force.
    #[cbor(n(4), with = "cbor::time")]
    pub time: SystemTime,
    /// Who brought it: a controller's address, or `stationctl`.
    #[n(5)]
    pub by: String,
    /// As the MES signed it.
    #[n(6)]
    pub signed: String,
}

/// How much of an offline allowance is used.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BudgetTally {
    /// As it came into force.
    #[n(0)]
    pub granted: BudgetGranted,
    /// Runs that were started on it.
    #[n(1)]
    pub used: u32,
}
