//! A report that the controller will never take.

use minicbor::{Decode, Encode};

use super::{RunId, cbor};

/// The controller will never take a report, and it was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReportRefused {
    /// The record that was reported.
    #[n(0)]
    pub sequence: u64,
    /// The run whose result it is; absent for a report that is no result.
    #[cbor(n(1), with = "cbor::optional_text")]
    pub run: Option<RunId>,
    /// The controller's words, at most 500 characters.
    #[n(2)]
    pub reason: String,
}
