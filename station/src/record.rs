//! What is journalled: everything that is true of orders and runs, in the order in which it became true.
//!
//! Knows nothing of the wire. Field numbers are for ever: old segments hold them.

use factory_journal::Keys;
use factory_proto::ids::OrderId;
use minicbor::{Decode, Encode};
use uuid::Uuid;

mod budget;
mod call;
mod cbor;
mod checkpoint;
mod fcc;
mod findings;
mod golden;
mod head;
mod identity;
mod mark;
mod nest;
mod order;
mod pack;
mod recipe;
mod registration;
mod report;
mod run;
mod step;
mod unit;

pub use budget::{BudgetGranted, BudgetTally};
pub use call::{CallAbout, CallAudited, CommandDone};
pub use checkpoint::Checkpoint;
pub use fcc::{FccAnswer, FccSent, Injected};
pub use findings::{Findings, Flash, Measurement, Tag};
pub use golden::GoldenTried;
pub use head::HeadSigned;
pub use identity::{ChipSeen, Identity, IssuanceAsked, Issued, KeyRequested};
pub use mark::{Mark, Seen, TagSeen};
pub use nest::{NestAct, NestCommanded};
pub use order::{OrderMoved, OrderOpened, OrderState, OrderTally, Quota};
pub use pack::{Mostly, NestLeftPack, PackRule};
pub use recipe::{RecipeAct, RecipeCommanded};
pub use registration::RegistrationAttested;
pub use report::ReportRefused;
pub use run::{AbortAsked, AllowedBy, Resumption, RunClosed, RunId, RunOpened, RunResumed, Stopped};
pub use step::{StepEnded, StepPassed, StepStarted};
pub use unit::{Quarantine, SetAside, UnitDisposed, UnitRefused, UnitReleased};

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
