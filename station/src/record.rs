//! What is journalled: everything that is true of orders and runs, in the order in which it became true.
//!
//! Knows nothing of the wire. Field numbers are for ever: old segments hold them.

use std::{fmt, str::FromStr, time::SystemTime};

use factory_journal::{Keys, Sequence};
use factory_proto::{
    disposition::Disposition,
    ids::{EndpointName, EnrolmentId, NestName, OrderId, RecipeName, Serial},
    outcome::Outcome,
    units::{Limits, Quantity},
};
use minicbor::{
    Decode, Encode,
    bytes::{ByteArray, ByteVec},
};
use uuid::Uuid;

use crate::{recipe::template::Values, step::Step};

mod cbor;
mod command;
mod golden;
mod mark;
mod pack;

pub use command::{NestAct, NestCommanded, OrderMoved, OrderState, Quota, RecipeAct, RecipeCommanded};
pub use golden::GoldenTried;
pub use mark::{Mark, Seen, TagSeen};
pub use pack::{Mostly, NestLeftPack, PackRule};

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
    /// A step did what it should.
    #[n(6)]
    StepPassed(#[n(0)] Box<StepPassed>),
    /// A run that a station's end had left open goes on.
    #[n(7)]
    RunResumed(#[n(0)] RunResumed),
    /// A quarantined unit may be started again.
    #[n(8)]
    UnitReleased(#[n(0)] UnitReleased),
    /// What the log was up to a record, signed.
    #[n(9)]
    HeadSigned(#[n(0)] HeadSigned),
    /// The controller will never take a report, and it was set aside.
    #[n(10)]
    ReportRefused(#[n(0)] ReportRefused),
    /// The chip of the board that lies in the nest has said who it is.
    #[n(11)]
    ChipSeen(#[n(0)] ChipSeen),
    /// What all records up to some point come to.
    #[n(12)]
    Checkpoint(#[n(0)] Box<Checkpoint>),
    /// It was said what became of a unit, and the signer knows.
    #[n(13)]
    UnitDisposed(#[n(0)] UnitDisposed),
    /// An order was paused, resumed or closed.
    #[n(26)]
    OrderMoved(#[n(0)] OrderMoved),
    /// Something is done with a nest by hand.
    #[n(27)]
    NestCommanded(#[n(0)] NestCommanded),
    /// A nest fails more than it should.
    #[n(25)]
    NestLeftPack(#[n(0)] NestLeftPack),
    /// Something is done with a recipe.
    #[n(28)]
    RecipeCommanded(#[n(0)] RecipeCommanded),
    /// The tag on the unit has said who it is, and is about to be written.
    #[n(29)]
    TagSeen(#[n(0)] TagSeen),
    /// Somebody called to change something, and this is what came of it.
    #[n(20)]
    CallAudited(#[n(0)] Box<CallAudited>),
    /// The line's controller did not let a unit start.
    #[n(21)]
    UnitRefused(#[n(0)] UnitRefused),
    /// An offline allowance came into force, in the place of the one before.
    #[n(22)]
    BudgetGranted(#[n(0)] BudgetGranted),
    /// Somebody has said whether a CA is registered with an account.
    #[n(40)]
    RegistrationAttested(#[n(0)] RegistrationAttested),
    /// A run is to stop at the next safe place, or not to begin.
    #[n(32)]
    AbortAsked(#[n(0)] AbortAsked),
    /// A command was carried out; what it did is told by the record before it, where it did anything.
    #[n(31)]
    CommandDone(#[n(0)] CommandDone),
}

/// What checkpoints are found by in the journal's index of runs; no run has such an id.
pub const CHECKPOINTS: &str = "checkpoint";
/// What signed heads are found by there.
pub const HEADS: &str = "head";
/// What refused reports are found by there.
pub const REFUSALS: &str = "refusal";
/// What refused units are found by there.
pub const REFUSED_UNITS: &str = "refused-unit";

/// What a command is found by there.
pub fn command_key(command: Uuid) -> String {
    format!("command {command}")
}

impl Record {
    /// The run whose story it continues.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::OrderOpened(_)
            | Self::UnitReleased(_)
            | Self::UnitDisposed(_)
            | Self::OrderMoved(_)
            | Self::NestCommanded(_)
            | Self::NestLeftPack(_)
            | Self::RecipeCommanded(_)
            | Self::Checkpoint(_)
            | Self::RegistrationAttested(_)
            | Self::HeadSigned(_)
            | Self::CommandDone(_)
            // Of a run, but no part of its story: it may come behind the result, and of a start that never was a run.
            | Self::AbortAsked(_)
            | Self::ReportRefused(_)
            | Self::UnitRefused(_)
            | Self::BudgetGranted(_)
            | Self::CallAudited(_) => None,
            Self::RunOpened(opened) => Some(opened.run),
            Self::StepStarted(started) => Some(started.run),
            Self::IssuanceAsked(asked) => Some(asked.run),
            Self::Issued(issued) => Some(issued.run),
            Self::RunClosed(closed) => Some(closed.opened.run),
            Self::StepPassed(passed) => Some(passed.run),
            Self::RunResumed(resumed) => Some(resumed.run),
            Self::ChipSeen(seen) => Some(seen.run),
            Self::TagSeen(seen) => Some(seen.run),
        }
    }
}

impl factory_journal::Record for Record {
    // Since 2, by what belongs to one unit alone.
    const KEYS: u8 = 2;

    fn keys(&self) -> Keys {
        let marks = self.marks().iter().map(Mark::key).collect();
        let of_run = |opened: &RunOpened| Keys {
            unit: Some(opened.serial.to_string()),
            run: Some(opened.run.to_string()),
            order: opened.order.as_ref().map(OrderId::to_string),
            ..Keys::default()
        };
        let keys = match self {
            Self::OrderOpened(opened) => Keys { order: Some(opened.order.to_string()), ..Keys::default() },
            Self::RunOpened(opened) => of_run(opened),
            Self::RunClosed(closed) => of_run(&closed.opened),
            Self::Checkpoint(_) => Keys { run: Some(CHECKPOINTS.to_owned()), ..Keys::default() },
            Self::UnitReleased(released) => {
                Keys { unit: Some(released.serial.to_string()), ..Keys::default() }
            }
            Self::UnitDisposed(disposed) => {
                Keys { unit: Some(disposed.serial.to_string()), ..Keys::default() }
            }
            Self::IssuanceAsked(asked) => Keys {
                unit: Some(asked.serial.to_string()),
                run: Some(asked.run.to_string()),
                ..Keys::default()
            },
            Self::StepStarted(_)
            | Self::StepPassed(_)
            | Self::Issued(_)
            | Self::RunResumed(_)
            | Self::ChipSeen(_)
            | Self::TagSeen(_) => Keys { run: self.run().map(|run| run.to_string()), ..Keys::default() },
            Self::AbortAsked(asked) => Keys { run: Some(asked.run.to_string()), ..Keys::default() },
            Self::ReportRefused(_) => Keys { run: Some(REFUSALS.to_owned()), ..Keys::default() },
            Self::OrderMoved(moved) => Keys { order: Some(moved.order.to_string()), ..Keys::default() },
            Self::NestCommanded(_) | Self::NestLeftPack(_) | Self::RecipeCommanded(_) => Keys::default(),
            Self::HeadSigned(_) => Keys { run: Some(HEADS.to_owned()), ..Keys::default() },
            Self::UnitRefused(refused) => Keys {
                unit: Some(refused.serial.to_string()),
                run: Some(REFUSED_UNITS.to_owned()),
                order: Some(refused.order.to_string()),
                ..Keys::default()
            },
            Self::BudgetGranted(_) => Keys::default(),
            Self::RegistrationAttested(_) => Keys::default(),
            // Found by going through the log from a time on: an index of what comes with each command would never end.
            Self::CallAudited(_) => Keys::default(),
            Self::CommandDone(done) => Keys { run: Some(command_key(done.command)), ..Keys::default() },
        };
        Keys { marks, ..keys }
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
    /// SHA-256 of the list of its units; absent where any unit may be made.
    #[n(4)]
    pub units: Option<ByteArray<32>>,
    /// What was signed; absent in records of old stations.
    #[n(8)]
    pub quota: Option<Quota>,
}

impl OrderOpened {
    /// Whether the same was to be opened.
    pub fn is_same(&self, other: &Self) -> bool {
        Self { quota: None, ..self.clone() } == Self { quota: None, ..other.clone() }
    }
}

/// A run was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RunOpened {
    /// Which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// For which order; absent for a golden unit, which belongs to none.
    #[cbor(n(1), with = "cbor::optional_text")]
    pub order: Option<OrderId>,
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
    /// What its order gives it beside its serial number.
    #[cbor(n(6), default)]
    pub values: Values,
    /// Who allowed it; absent where nobody had to be asked.
    #[n(7)]
    pub allowed: Option<AllowedBy>,
    /// The recipe whose golden unit it is; absent for a unit that is to become a product.
    #[cbor(n(10), default, with = "cbor::optional_text")]
    pub golden: Option<RecipeName>,
}

#[cfg(test)]
impl RunOpened {
    /// One that a test made up, to say of it only what matters there.
    pub(crate) fn made_up() -> Self {
        Self {
            run: RunId::of_command(Uuid::nil()),
            order: Some("order-1".parse().unwrap()),
            serial: "1".parse().unwrap(),
            nest: "nest-1".parse().unwrap(),
            recipe_digest: [0; 32],
            started: SystemTime::UNIX_EPOCH,
            values: Values::default(),
            allowed: None,
            golden: None,
        }
    }
}

/// Who allowed a run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum AllowedBy {
    /// The line's controller at this address.
    #[n(0)]
    Controller(#[n(0)] String),
    /// Nobody who answered: it is one of the units of this offline allowance.
    #[n(1)]
    Budget(#[cbor(n(0), with = "cbor::text")] Uuid),
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

/// A run is to stop at the next safe place; a start that waits for the controller's leave is not to become one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AbortAsked {
    /// Which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// For which order; absent for a golden unit.
    #[cbor(n(1), with = "cbor::optional_text")]
    pub order: Option<OrderId>,
    /// On which board.
    #[cbor(n(2), with = "cbor::text")]
    pub serial: Serial,
    /// Where.
    #[cbor(n(3), with = "cbor::text")]
    pub nest: NestName,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// When.
    #[cbor(n(5), with = "cbor::time")]
    pub time: SystemTime,
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
    /// For the board with this serial number.
    #[cbor(n(3), with = "cbor::text")]
    pub serial: Serial,
    /// For which order.
    #[cbor(n(4), with = "cbor::text")]
    pub order: OrderId,
    /// The device's certificate request, PKCS#10 in DER: the same id is asked for again with the same bytes.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub request: Vec<u8>,
    /// The issuance that is void from then on, because its key died.
    #[cbor(n(6), with = "cbor::optional_text")]
    pub supersedes: Option<Uuid>,
    /// SHA-256 of the recipe file.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub recipe_digest: [u8; 32],
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
    /// Why the unit must be set aside; absent when it need not.
    #[n(5)]
    pub quarantine: Option<Quarantine>,
}

/// Why a unit must be set aside, and what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Quarantine {
    /// What is not known of the unit.
    #[n(0)]
    pub reason: String,
    /// What an engineer can do.
    #[n(1)]
    pub remedy: String,
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

/// A run that a station's end had left open goes on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RunResumed {
    /// Which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// From where to where.
    #[n(1)]
    pub resumption: Resumption,
}

/// From where to where a run was taken up again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Resumption {
    /// When.
    #[cbor(n(0), with = "cbor::time")]
    pub time: SystemTime,
    /// The step in which, or after which, the run had been left; absent before the first.
    #[cbor(n(1), with = "cbor::optional_text")]
    pub left_in: Option<Step>,
    /// The step with which it goes on; absent when only its result was missing.
    #[cbor(n(2), with = "cbor::optional_text")]
    pub goes_on_with: Option<Step>,
}

/// A unit that was set aside, or was tested as often as it may be, may be started again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UnitReleased {
    /// The command that said so.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// Which unit.
    #[cbor(n(1), with = "cbor::text")]
    pub serial: Serial,
    /// What was done to it.
    #[n(2)]
    pub reason: String,
    /// Whether it was changed: repaired, or a part of it replaced.
    #[cbor(n(3), default)]
    pub reworked: bool,
}

/// It was said what became of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UnitDisposed {
    /// The command that said so.
    #[cbor(n(0), with = "cbor::text")]
    pub command: Uuid,
    /// Which unit.
    #[cbor(n(1), with = "cbor::text")]
    pub serial: Serial,
    /// What became of it.
    #[n(2)]
    pub disposition: Disposition,
}

/// The line's controller did not let a unit start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UnitRefused {
    /// The run that it would have been.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// For which order.
    #[cbor(n(1), with = "cbor::text")]
    pub order: OrderId,
    /// Which board.
    #[cbor(n(2), with = "cbor::text")]
    pub serial: Serial,
    /// Where.
    #[cbor(n(3), with = "cbor::text")]
    pub nest: NestName,
    /// When.
    #[cbor(n(4), with = "cbor::time")]
    pub time: SystemTime,
    /// The controller's address.
    #[n(5)]
    pub controller: String,
    /// Its reasons, 1 to 8, each beginning with what was judged.
    #[n(6)]
    pub reasons: Vec<String>,
}

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

/// The chip of the board that lies in the nest has said who it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ChipSeen {
    /// In which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// The bytes at the recipe's `unique-id`.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub chip: Vec<u8>,
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

/// What all records up to some point come to, so that nobody has to read them again.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Checkpoint {
    /// The last of these records.
    #[n(0)]
    pub covers: Sequence,
    /// All orders.
    #[n(1)]
    pub orders: Vec<OrderTally>,
    /// The units that must not be started.
    #[n(2)]
    pub quarantined: Vec<SetAside>,
    /// The ids of the runs without a result: their records are read again.
    #[n(3)]
    pub open: Vec<String>,
    /// The offline allowance in force, less what the open runs use of it.
    #[n(4)]
    pub budget: Option<BudgetTally>,
    /// The newest statement of each CA and account.
    #[cbor(n(10), default)]
    pub attested: Vec<RegistrationAttested>,
    /// The nests that were parked by hand, as they were.
    #[cbor(n(11), default)]
    pub parked: Vec<NestCommanded>,
    /// What was uploaded, and then what was activated, as it was.
    #[cbor(n(12), default)]
    pub recipes: Vec<RecipeCommanded>,
    /// The nests that have left the pack, as they did.
    #[cbor(n(25), default)]
    pub left_pack: Vec<NestLeftPack>,
    /// What the last golden unit in each nest has shown.
    #[cbor(n(23), default)]
    pub golden: Vec<GoldenTried>,
}

/// How far a work order has come.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OrderTally {
    /// As it was opened.
    #[n(0)]
    pub opened: OrderOpened,
    /// Units that passed.
    #[n(1)]
    pub passed: u32,
    /// As it was paused, resumed or closed last.
    #[n(5)]
    pub moved: Option<OrderMoved>,
}

/// A unit that must not be started.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SetAside {
    /// Which.
    #[cbor(n(0), with = "cbor::text")]
    pub serial: Serial,
    /// Why, and what can be done.
    #[n(1)]
    pub quarantine: Quarantine,
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

/// A key that a device made for somebody else than the platform, and its request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct KeyRequested {
    /// What the key is stored as.
    #[n(0)]
    pub name: String,
    /// PKCS#10, DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub request: Vec<u8>,
}

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
