//! Whether a CA is registered with an account of the platform, as somebody has said.

use std::time::SystemTime;

use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::cbor;

/// Somebody has said whether the platform knows a device CA.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RegistrationAttested {
    /// The command that said so.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// SHA-256 of the CA's certificate.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub ca_fingerprint: [u8; 32],
    /// The account's id.
    #[n(2)]
    pub account: String,
    /// Whether it is registered there.
    #[n(3)]
    pub registered: bool,
    /// How that is known, for people.
    #[n(4)]
    pub statement: String,
    /// When it was said.
    #[cbor(n(5), with = "cbor::time")]
    pub time: SystemTime,
}
