//! A step of a run: that it is about to be entered, that it passed, and how it ended.

use std::time::SystemTime;

use factory_proto::outcome::Outcome;
use minicbor::{Decode, Encode};

use super::{Findings, RunId, cbor};
use crate::step::Step;

/// A run is about to enter a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct StepStarted {
    /// Which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// Which step.
    #[cbor(n(1), with = "cbor::text")]
    pub step: Step,
}

/// A step did what it should.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct StepPassed {
    /// In which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// Which step.
    #[cbor(n(1), with = "cbor::text")]
    pub step: Step,
    /// All that the run has found out by then, less the console log.
    #[n(2)]
    pub findings: Findings,
}

/// A step that ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StepEnded {
    /// Which.
    #[cbor(n(0), with = "cbor::text")]
    pub step: Step,
    /// When it began.
    #[cbor(n(1), with = "cbor::time")]
    pub started: SystemTime,
    /// When it ended.
    #[cbor(n(2), with = "cbor::time")]
    pub ended: SystemTime,
    /// How.
    #[cbor(n(3), with = "cbor::text")]
    pub outcome: Outcome,
}
