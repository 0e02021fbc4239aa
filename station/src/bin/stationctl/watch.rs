use std::time::SystemTime;

use clap::Args;
use data_encoding::{HEXLOWER, HEXUPPER};
use factory_proto::station::{
    Disposition, EventKind, WatchEventsRequest, WatchEventsResponse, station_client::StationClient,
    watch_events_response::Event,
};
use tonic::transport::Channel;

use crate::{budget, connect::refused, unit::outcome};

#[derive(Args)]
pub struct Watch {
    /// First what happened behind this record of the log, 0 for all that the station ever did; then what happens.
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
    /// Only of this nest; once for each.
    #[arg(long = "nest", value_name = "NEST")]
    nests: Vec<String>,
    /// Only of this work order.
    #[arg(long, default_value = "")]
    order: String,
    /// Only of this kind: run, step, progress, nest, order, unit, identity, log, recipe or command; once for each.
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    kinds: Vec<EventKind>,
    /// Prints each event as a line of JSON.
    #[arg(long)]
    json: bool,
}

impl Watch {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let request = WatchEventsRequest {
            after_sequence: self.after,
            nests: self.nests,
            work_order: self.order,
            kinds: self.kinds.into_iter().map(Into::into).collect(),
        };
        let mut events = station.watch_events(request).await.map_err(refused)?.into_inner();
        while let Some(message) = events.message().await.map_err(refused)? {
            let Some(event) = &message.event else {
                // A newer station tells something that this tool does not know.
                continue;
            };
            if self.json {
                println!("{}", json(&message, event));
            } else {
                let sequence =
                    message.sequence.map_or_else(|| "-".to_owned(), |sequence| sequence.to_string());
                println!("{sequence:>8} {} {} {}", message.nest, message.serial, text(event));
            }
        }
        Ok(())
    }
}

fn kind(name: &str) -> Result<EventKind, String> {
    let known = EventKind::from_str_name(&format!("EVENT_KIND_{}", name.to_uppercase()));
    known.filter(|kind| *kind != EventKind::Unspecified).ok_or_else(|| {
        "must be run, step, progress, nest, order, unit, identity, log, recipe or command".to_owned()
    })
}

fn text(event: &Event) -> String {
    match event {
        Event::NestState(state) if !state.parked.is_empty() => format!("parked: {}", state.parked),
        Event::NestState(state) => if state.busy { "busy" } else { "free" }.to_owned(),
        Event::RunAccepted(accepted) if accepted.golden => "accepted as golden unit".to_owned(),
        Event::RunAccepted(accepted) => format!("accepted for {}", accepted.work_order),
        Event::StepStarted(step) => format!("{} …", step.step),
        Event::StepEnded(step) => format!("{} {}", step.step, outcome(step.outcome)),
        Event::Progress(progress) => {
            let (done, total) = (progress.done_bytes, progress.total_bytes);
            format!("{} {} {done}/{total}", progress.step, progress.phase)
        }
        Event::RunClosed(closed) => {
            let set_aside = if closed.quarantine.is_some() { "QUARANTINE " } else { "" };
            format!("{} {set_aside}{} {}", outcome(closed.outcome), closed.failing_step, closed.reason)
        }
        Event::RunResumed(resumed) => {
            let resumption = resumed.resumption.clone().unwrap_or_default();
            format!("left in {:?}, goes on with {:?}", resumption.left_in, resumption.resumed_at)
        }
        Event::AbortAsked(asked) => format!("abort asked for: {}", asked.reason),
        Event::OrderOpened(opened) => format!("order opened: {} of {}", opened.quantity, opened.recipe),
        Event::OrderMoved(moved) => {
            let state = moved.state().as_str_name().trim_start_matches("WORK_ORDER_STATE_").to_lowercase();
            format!("order is {state}: {}", moved.reason)
        }
        Event::NestCommanded(it) => {
            let act = it.act().as_str_name().trim_start_matches("NEST_ACT_").to_lowercase();
            format!("{act} by {} {}", it.by, it.reason)
        }
        Event::NestLeftPack(left) => format!("left the pack: {}", left.reason),
        Event::RecipeCommanded(it) => {
            let act = it.act().as_str_name().trim_start_matches("RECIPE_ACT_").to_lowercase();
            format!("{act} recipe {} {} by {}", it.recipe, HEXLOWER.encode(&it.recipe_digest), it.by)
        }
        Event::IssuanceAsked(asked) => format!("certificate asked for {}", asked.endpoint_name),
        Event::Issued(issued) => {
            let identity = issued.identity.clone().unwrap_or_default();
            format!("certificate of {} is there", identity.endpoint_name)
        }
        Event::ChipSeen(seen) => format!("chip {}", HEXLOWER.encode(&seen.chip)),
        Event::TagSeen(seen) => format!("tag {}", HEXUPPER.encode(&seen.uid)),
        Event::UnitRefused(unit) => {
            format!("REFUSED by {}: {}", unit.controller, unit.reasons.join("; "))
        }
        Event::OfflineBudget(budget) => budget::told(budget),
        Event::UnitReleased(released) => format!("released: {}", released.reason),
        Event::UnitDisposed(disposed) => disposition(disposed.disposition).to_owned(),
        Event::HeadSigned(_) => "head of the log signed".to_owned(),
        Event::ReportRefused(refused) => {
            let report = refused.report.clone().unwrap_or_default();
            format!("report {} set aside: {}", report.sequence, report.reason)
        }
        Event::RegistrationAttested(stated) => {
            let not = if stated.registered { "" } else { "not " };
            format!("CA attested to be {not}registered with account {}", stated.account_id)
        }
        Event::CallAudited(call) => format!("call of {}, status {}", call.method, call.code),
        Event::CommandDone(done) => format!("{} carried out, command {}", done.call, done.command_id),
        Event::CheckpointMade(made) => format!("checkpoint up to {}", made.covers),
    }
}

fn disposition(number: i32) -> &'static str {
    let known = Disposition::try_from(number).map_or("unknown", |known| known.as_str_name());
    known.trim_start_matches("DISPOSITION_")
}

/// A flat object: what every event has, its kind, and the text that people get.
fn json(message: &WatchEventsResponse, event: &Event) -> serde_json::Value {
    let time = message.time.and_then(|time| SystemTime::try_from(time).ok());
    serde_json::json!({
        "time": time.map(|time| humantime::format_rfc3339_millis(time).to_string()),
        "sequence": message.sequence,
        "last-sequence": message.last_sequence,
        "nest": message.nest,
        "run": message.run_id,
        "serial": message.serial,
        "order": message.work_order,
        "event": name(event),
        "text": text(event),
    })
}

/// The event's name in the API.
fn name(event: &Event) -> &'static str {
    match event {
        Event::NestState(_) => "nest_state",
        Event::RunAccepted(_) => "run_accepted",
        Event::StepStarted(_) => "step_started",
        Event::StepEnded(_) => "step_ended",
        Event::Progress(_) => "progress",
        Event::RunClosed(_) => "run_closed",
        Event::RunResumed(_) => "run_resumed",
        Event::AbortAsked(_) => "abort_asked",
        Event::OrderOpened(_) => "order_opened",
        Event::OrderMoved(_) => "order_moved",
        Event::NestCommanded(_) => "nest_commanded",
        Event::NestLeftPack(_) => "nest_left_pack",
        Event::RecipeCommanded(_) => "recipe_commanded",
        Event::IssuanceAsked(_) => "issuance_asked",
        Event::Issued(_) => "issued",
        Event::ChipSeen(_) => "chip_seen",
        Event::TagSeen(_) => "tag_seen",
        Event::UnitRefused(_) => "unit_refused",
        Event::OfflineBudget(_) => "offline_budget",
        Event::UnitReleased(_) => "unit_released",
        Event::UnitDisposed(_) => "unit_disposed",
        Event::HeadSigned(_) => "head_signed",
        Event::ReportRefused(_) => "report_refused",
        Event::RegistrationAttested(_) => "registration_attested",
        Event::CallAudited(_) => "call_audited",
        Event::CommandDone(_) => "command_done",
        Event::CheckpointMade(_) => "checkpoint_made",
    }
}
