//! A call: what came of it, and that its command was carried out.

use std::time::SystemTime;

use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::cbor;

/// Somebody called to change something.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CallAudited {
    /// When it came.
    #[cbor(n(0), with = "cbor::time")]
    pub time: SystemTime,
    /// Who called, as in `dns:mes.example` or `user:alice`; at most 128 characters.
    #[n(1)]
    pub caller: String,
    /// Its roles by then.
    #[n(2)]
    pub roles: Vec<String>,
    /// `socket`, or address and port.
    #[n(3)]
    pub from: String,
    /// The method, as in `StartUnit`.
    #[n(4)]
    pub method: String,
    /// What its message says that it is about; nothing of a call that was not let through.
    #[n(5)]
    pub about: CallAbout,
    /// The gRPC status code that it was answered with; 0 is OK.
    #[n(6)]
    pub code: u32,
    /// Why not OK; at most 200 characters.
    #[n(7)]
    pub reason: String,
    /// Calls of the same caller since its last record that were turned away without one, because there were too many.
    #[n(8)]
    pub turned_away: u64,
}

/// What a call is about, in the caller's own words, which need not be true; each at most 64 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct CallAbout {
    /// The command's id.
    #[n(0)]
    pub command: Option<String>,
    /// A work order.
    #[n(1)]
    pub order: Option<String>,
    /// A unit.
    #[n(2)]
    pub serial: Option<String>,
    /// A nest.
    #[n(3)]
    pub nest: Option<String>,
    /// A run.
    #[n(4)]
    pub run: Option<String>,
    /// A recipe.
    #[n(5)]
    pub recipe: Option<String>,
}

/// A command was carried out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CommandDone {
    /// Its id, chosen by the caller.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// The call that brought it, as in `StartUnit`.
    #[n(1)]
    pub call: String,
    /// SHA-256 of what it asked for: the call's message without the id, encoded.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub digest: [u8; 32],
}
