//! What happened, in the words of the wire: every kind of record, and what is not durable. A new kind of record is a
//! line here.

use factory_journal::{Entry, Sequence};
use factory_proto::{
    ids::{NestName, OrderId, Serial},
    outcome::Outcome,
    station::{self as wire, EventKind, WatchEventsResponse, watch_events_response::Event as Told},
};

use super::{allowed, identity, line, outcome, quarantine, refused, resumption, signed_head, stopped, text};
use crate::{
    events::{Event, What},
    record::{NestAct, RecipeAct, Record, RunClosed, RunId, RunOpened},
    step::Step,
};

/// What an event belongs to, as far as it belongs to anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Where.
    pub nest: Option<NestName>,
    /// Which run.
    pub run: Option<RunId>,
    /// Which unit.
    pub serial: Option<Serial>,
    /// Which work order.
    pub order: Option<OrderId>,
}

impl About {
    /// A run and all that it belongs to.
    pub fn run(run: &RunOpened) -> Self {
        let (nest, serial) = (Some(run.nest.clone()), Some(run.serial.clone()));
        Self { nest, run: Some(run.run), serial, order: run.order.clone() }
    }
}

/// A record that became durable. What it belongs to, a record does not always say itself.
pub fn durable(entry: &Entry<Record>, about: &About) -> (EventKind, WatchEventsResponse) {
    let sequence = entry.sequence.get();
    let (kind, told) = record(&entry.record);
    let time = Some(entry.time.into());
    let sequences =
        WatchEventsResponse { sequence: Some(sequence), last_sequence: sequence, ..message(about) };
    (kind, WatchEventsResponse { time, event: Some(told), ..sequences })
}

/// Something that is not durable, told to somebody who was told all up to the record `last`.
pub fn live(event: &Event, about: &About, last: Sequence) -> (EventKind, WatchEventsResponse) {
    let (kind, told) = match &event.what {
        What::Nest { busy } => nest_state(*busy, ""),
        What::Parked { reason } => nest_state(false, reason),
        What::Budget(left) => (EventKind::Order, Told::OfflineBudget(line::budget(left.clone(), None))),
        What::StepStopped(step, outcome) => step_ended(*step, *outcome),
        What::Progress(step, progress) => {
            let (step, phase) = (step.to_string(), progress.phase.clone());
            let (done_bytes, total_bytes) = (progress.done, progress.total);
            let progress = wire::Progress { step, phase, done_bytes, total_bytes };
            (EventKind::Progress, Told::Progress(progress))
        }
    };
    let time = Some(event.time.into());
    (kind, WatchEventsResponse { time, last_sequence: last.get(), event: Some(told), ..message(about) })
}

fn record(record: &Record) -> (EventKind, Told) {
    match record {
        Record::OrderOpened(opened) => {
            let (recipe, recipe_digest) = (opened.recipe.to_string(), opened.recipe_digest.to_vec());
            let opened = wire::OrderOpened { recipe, recipe_digest, quantity: opened.quantity };
            (EventKind::Order, Told::OrderOpened(opened))
        }
        Record::RunOpened(opened) => {
            let (validated_by, offline_allowance) = allowed(opened.allowed.as_ref());
            let (work_order, golden) = (text(opened.order.as_ref()), opened.golden.is_some());
            let accepted = wire::RunAccepted { work_order, validated_by, offline_allowance, golden };
            (EventKind::Run, Told::RunAccepted(accepted))
        }
        Record::StepStarted(started) => {
            (EventKind::Step, Told::StepStarted(wire::StepStarted { step: started.step.to_string() }))
        }
        Record::StepPassed(passed) => step_ended(passed.step, Outcome::Pass),
        Record::IssuanceAsked(asked) => {
            let (issuance_id, endpoint_name) = (asked.issuance.to_string(), asked.endpoint_name.to_string());
            let asked =
                wire::IssuanceAsked { issuance_id, endpoint_name, supersedes: text(asked.supersedes) };
            (EventKind::Identity, Told::IssuanceAsked(asked))
        }
        Record::Issued(issued) => {
            let identity = Some(identity(&issued.identity));
            (EventKind::Identity, Told::Issued(wire::Issued { identity }))
        }
        Record::ChipSeen(seen) => {
            (EventKind::Identity, Told::ChipSeen(wire::ChipSeen { chip: seen.chip.clone() }))
        }
        Record::TagSeen(seen) => {
            (EventKind::Identity, Told::TagSeen(wire::TagSeen { uid: seen.uid.clone() }))
        }
        Record::RunResumed(resumed) => {
            let resumption = Some(resumption(&resumed.resumption));
            (EventKind::Run, Told::RunResumed(wire::RunResumed { resumption }))
        }
        Record::AbortAsked(asked) => {
            (EventKind::Run, Told::AbortAsked(wire::AbortAsked { reason: asked.reason.clone() }))
        }
        Record::RunClosed(closed) => (EventKind::Run, Told::RunClosed(run_closed(closed))),
        Record::CallAudited(audited) => {
            let (method, code) = (audited.method.clone(), audited.code);
            (EventKind::Log, Told::CallAudited(wire::CallAudited { method, code }))
        }
        Record::RegistrationAttested(stated) => {
            (EventKind::Order, Told::RegistrationAttested(super::registration(stated)))
        }
        Record::UnitRefused(refused) => (EventKind::Unit, Told::UnitRefused(line::refused(refused))),
        Record::BudgetGranted(granted) => (EventKind::Order, Told::OfflineBudget(line::granted(granted))),
        Record::OrderMoved(moved) => {
            let (state, reason) = (super::order_state(moved.to).into(), moved.reason.clone());
            let moved = wire::OrderMoved { state, reason, even_if_open: moved.even_if_open };
            (EventKind::Order, Told::OrderMoved(moved))
        }
        Record::NestCommanded(commanded) => {
            let act = match commanded.act {
                NestAct::Park => wire::NestAct::Park,
                NestAct::Enable => wire::NestAct::Enable,
                NestAct::Clear => wire::NestAct::Clear,
                NestAct::Identify => wire::NestAct::Identify,
            };
            let (by, reason) = (commanded.by.clone(), commanded.reason.clone());
            (EventKind::Nest, Told::NestCommanded(wire::NestCommanded { act: act.into(), by, reason }))
        }
        Record::NestLeftPack(left) => (EventKind::Nest, Told::NestLeftPack(line::left_pack(left))),
        Record::RecipeCommanded(commanded) => {
            let act = match commanded.act {
                RecipeAct::Keep => wire::RecipeAct::Keep,
                RecipeAct::Activate => wire::RecipeAct::Activate,
                RecipeAct::Remove => wire::RecipeAct::Remove,
            };
            let (recipe, recipe_digest) = (commanded.recipe.to_string(), commanded.digest.to_vec());
            let by = commanded.by.clone();
            let commanded = wire::RecipeCommanded { act: act.into(), recipe, recipe_digest, by };
            (EventKind::Recipe, Told::RecipeCommanded(commanded))
        }
        Record::UnitReleased(released) => {
            let (reason, reworked) = (released.reason.clone(), released.reworked);
            (EventKind::Unit, Told::UnitReleased(wire::UnitReleased { reason, reworked }))
        }
        Record::UnitDisposed(disposed) => {
            let disposition = wire::Disposition::from(disposed.disposition).into();
            (EventKind::Unit, Told::UnitDisposed(wire::UnitDisposed { disposition }))
        }
        Record::HeadSigned(head) => {
            (EventKind::Log, Told::HeadSigned(wire::HeadSigned { head: Some(signed_head(head)) }))
        }
        Record::ReportRefused(report) => {
            (EventKind::Log, Told::ReportRefused(wire::ReportRefused { report: Some(refused(report)) }))
        }
        Record::CommandDone(done) => {
            let (command_id, call) = (done.command.to_string(), done.call.clone());
            (EventKind::Command, Told::CommandDone(wire::CommandDone { command_id, call }))
        }
        Record::Checkpoint(made) => {
            (EventKind::Log, Told::CheckpointMade(wire::CheckpointMade { covers: made.covers.get() }))
        }
    }
}

fn message(about: &About) -> WatchEventsResponse {
    WatchEventsResponse {
        nest: text(about.nest.as_ref()),
        run_id: text(about.run),
        serial: text(about.serial.as_ref()),
        work_order: text(about.order.as_ref()),
        ..WatchEventsResponse::default()
    }
}

fn nest_state(busy: bool, parked: &str) -> (EventKind, Told) {
    (EventKind::Nest, Told::NestState(wire::NestState { busy, parked: parked.to_owned() }))
}

fn step_ended(step: Step, ended: Outcome) -> (EventKind, Told) {
    let ended = wire::StepEnded { step: step.to_string(), outcome: outcome(ended) };
    (EventKind::Step, Told::StepEnded(ended))
}

fn run_closed(closed: &RunClosed) -> wire::RunClosed {
    let (failing_step, reason) = stopped(closed.stopped.as_ref());
    let quarantine = closed.quarantine.as_ref().map(quarantine);
    let golden = closed.opened.golden.is_some();
    wire::RunClosed { outcome: outcome(closed.outcome), failing_step, reason, quarantine, golden }
}
