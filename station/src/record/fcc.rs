//! A message to the FCC: what was sent, and what it answered.

use std::time::SystemTime;

use minicbor::{Decode, Encode, bytes::ByteArray};

use super::cbor;

/// A message to the FCC, and what it answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FccAnswer {
    /// The session id that was sent.
    #[n(0)]
    pub session: String,
    /// `ReturnStatus`; 0 is success. Absent when no answer came that could be read.
    #[n(1)]
    pub return_status: Option<u32>,
    /// `InfoMessage`.
    #[n(2)]
    pub info: String,
    /// The lines of `WarningInfo`.
    #[n(3)]
    pub warnings: Vec<String>,
    /// What was sent; absent in records of old stations.
    #[n(4)]
    pub sent: Option<FccSent>,
}

/// What a message to the FCC was.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FccSent {
    /// When it was given to the line.
    #[cbor(n(0), with = "cbor::time")]
    pub at: SystemTime,
    /// What the device was given by it, in its order.
    #[n(1)]
    pub injected: Vec<Injected>,
    /// Microseconds until its answer was whole; absent when none came.
    #[n(2)]
    pub took: Option<u64>,
}

/// One thing that a device was given.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Injected {
    /// As in `certificate` and `private-key`.
    #[n(0)]
    pub kind: String,
    /// What it is stored as.
    #[n(1)]
    pub name: String,
    /// SHA-256 of what is stored; absent for secrets.
    #[n(2)]
    pub digest: Option<ByteArray<32>>,
}
