//! What is journalled: everything that is true of orders and runs, in the order in which it became true.
//!
//! Knows nothing of the wire. Field numbers are for ever: old segments hold them.

use std::{fmt, str::FromStr, time::SystemTime};

use factory_journal::Keys;
use factory_proto::{
    ids::{EndpointName, EnrolmentId, NestName, OrderId, RecipeName, Serial},
    outcome::Outcome,
    units::{Limits, Quantity},
};
use minicbor::{Decode, Encode, bytes::ByteVec};
use uuid::Uuid;

use crate::step::Step;

mod cbor;

/// One attempt on a unit. Follows from the command that started it, so that the same command is the same run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(Uuid);

// Any fixed value will do; this one was drawn once. It keeps our ids apart from everybody else's.
const RUNS: Uuid = Uuid::from_u128(0x6d0d_2c4e_61a5_4f4b_9a51_0f1b_c0de_d00d);

impl RunId {
    /// The run that this command starts.
    pub fn of_command(command: Uuid) -> Self {
        Self(Uuid::new_v5(&RUNS, command.as_bytes()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// One thing that became true.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Record {
    /// A work order may be made from now on.
    #[n(0)]
    OrderOpened(#[n(0)] OrderOpened),
    /// A run was accepted.
    #[n(1)]
    RunOpened(#[n(0)] RunOpened),
    /// A run is about to enter a step.
    #[n(2)]
    StepStarted(#[n(0)] StepStarted),
    /// The signer is about to be asked.
    #[n(3)]
    IssuanceAsked(#[n(0)] IssuanceAsked),
    /// The unit's certificate exists.
    #[n(4)]
    Issued(#[n(0)] Issued),
    /// A run has ended, and this is its result.
    #[n(5)]
    RunClosed(#[n(0)] Box<RunClosed>),
    /// What the log was up to a record, signed.
    #[n(9)]
    HeadSigned(#[n(0)] HeadSigned),
    /// The controller will never take a report, and it was set aside.
    #[n(10)]
    ReportRefused(#[n(0)] ReportRefused),
}

impl Record {
    /// The run whose story it continues.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::OrderOpened(_) | Self::HeadSigned(_) | Self::ReportRefused(_) => None,
            Self::RunOpened(opened) => Some(opened.run),
            Self::StepStarted(started) => Some(started.run),
            Self::IssuanceAsked(asked) => Some(asked.run),
            Self::Issued(issued) => Some(issued.run),
            Self::RunClosed(closed) => Some(closed.opened.run),
        }
    }
}

impl factory_journal::Record for Record {
    fn keys(&self) -> Keys {
        let of_run = |opened: &RunOpened| Keys {
            unit: Some(opened.serial.to_string()),
            run: Some(opened.run.to_string()),
            order: Some(opened.order.to_string()),
        };
        match self {
            Self::OrderOpened(opened) => Keys { order: Some(opened.order.to_string()), ..Keys::default() },
            Self::RunOpened(opened) => of_run(opened),
            Self::RunClosed(closed) => of_run(&closed.opened),
            Self::StepStarted(_) | Self::IssuanceAsked(_) | Self::Issued(_) => {
                Keys { run: self.run().map(|run| run.to_string()), ..Keys::default() }
            }
            Self::ReportRefused(refused) => {
                Keys { run: refused.run.map(|run| run.to_string()), ..Keys::default() }
            }
            Self::HeadSigned(_) => Keys::default(),
        }
    }
}

/// A work order may be made from now on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OrderOpened {
    /// Its id.
    #[cbor(n(0), with = "cbor::text")]
    pub order: OrderId,
    /// What is to be made.
    #[cbor(n(1), with = "cbor::text")]
    pub recipe: RecipeName,
    /// SHA-256 of the recipe file as it was when the order was opened.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub recipe_digest: [u8; 32],
    /// How many units may pass.
    #[n(3)]
    pub quantity: u32,
}

/// A run was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RunOpened {
    /// Which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// For which order.
    #[cbor(n(1), with = "cbor::text")]
    pub order: OrderId,
    /// On which board.
    #[cbor(n(2), with = "cbor::text")]
    pub serial: Serial,
    /// Where.
    #[cbor(n(3), with = "cbor::text")]
    pub nest: NestName,
    /// SHA-256 of the recipe file.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub recipe_digest: [u8; 32],
    /// When.
    #[cbor(n(5), with = "cbor::time")]
    pub started: SystemTime,
}

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

/// The signer is about to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IssuanceAsked {
    /// For which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// By which the signer knows the request again.
    #[cbor(n(1), with = "cbor::text")]
    pub issuance: Uuid,
    /// For whom.
    #[cbor(n(2), with = "cbor::text")]
    pub endpoint_name: EndpointName,
}

/// The unit's certificate exists.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Issued {
    /// For which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// The identity that it gives.
    #[n(1)]
    pub identity: Identity,
}

/// A run has ended, and this is its result.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct RunClosed {
    /// What it began as.
    #[n(0)]
    pub opened: RunOpened,
    /// When it ended.
    #[cbor(n(1), with = "cbor::time")]
    pub ended: SystemTime,
    /// How it ended.
    #[cbor(n(2), with = "cbor::text")]
    pub outcome: Outcome,
    /// Where and why it did not pass; absent on a pass.
    #[n(3)]
    pub stopped: Option<Stopped>,
    /// What was found out on the way.
    #[n(4)]
    pub findings: Findings,
}

/// What the log was up to a record, signed by the signer's provenance key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HeadSigned {
    /// What was signed: see `factory_proto::head`.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// ECDSA on P-256 with SHA-256, DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// The provenance key's certificate first, DER.
    #[n(2)]
    pub certificates: Vec<ByteVec>,
}

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

/// Where and why a run did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Stopped {
    /// The step; absent when it stopped between two.
    #[cbor(n(0), with = "cbor::optional_text")]
    pub step: Option<Step>,
    /// Why, for people.
    #[n(1)]
    pub reason: String,
}

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

/// Who a device is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The CN of its certificate.
    #[cbor(n(0), with = "cbor::text")]
    pub endpoint_name: EndpointName,
    /// Its certificate, DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// SHA-256 of it.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub fingerprint: [u8; 32],
    /// What its owner claims it by.
    #[cbor(n(3), with = "cbor::text")]
    pub enrolment_id: EnrolmentId,
}

/// What the FCC answered to one message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FccAnswer {
    /// The session id that was sent.
    #[n(0)]
    pub session: String,
    /// `ReturnStatus`; 0 is success.
    #[n(1)]
    pub return_status: u32,
    /// `InfoMessage`.
    #[n(2)]
    pub info: String,
    /// The lines of `WarningInfo`.
    #[n(3)]
    pub warnings: Vec<String>,
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
