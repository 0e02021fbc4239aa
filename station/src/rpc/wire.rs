//! Records in the words of the wire. Nothing else in the station knows both.

use std::collections::HashMap;

use factory_journal::{Entry, Sequence};
use factory_proto::{
    ids::NestName,
    outcome::Outcome,
    station::{self as wire, report_results_request::Report},
};
use prost_types::{Duration, Timestamp};

pub mod line;

use crate::{
    books::Order,
    callers::Caller,
    health::parts::Part,
    preflight::Check,
    recipe::template::Values,
    record::{
        AllowedBy, CallAudited, Findings, HeadSigned, Identity, KeyRequested, NestCommanded, OrderState,
        Quarantine, Quota, Record, RegistrationAttested, ReportRefused, Resumption, RunClosed, RunOpened,
        StepEnded, Stopped,
    },
    step::Step,
    units::Unit,
};

pub mod event;
mod yields;

pub use yields::yields;

/// What was looked at before the line runs.
pub fn check(check: Check) -> wire::PreflightCheck {
    let ok = check.found.is_ok();
    let (Ok(finding) | Err(finding)) = check.found;
    wire::PreflightCheck { name: check.name, ok, finding }
}

/// What was attested of a CA.
pub fn registration(stated: &RegistrationAttested) -> wire::Registration {
    wire::Registration {
        ca_fingerprint: stated.ca_fingerprint.to_vec(),
        account_id: stated.account.clone(),
        registered: stated.registered,
        statement: stated.statement.clone(),
        time: Some(stated.time.into()),
    }
}

/// A run with its result.
pub fn result(station: &NestName, closed: &RunClosed) -> wire::Unit {
    let mut unit = opened(station, &closed.opened);
    unit.ended = Some(closed.ended.into());
    unit.outcome = outcome(closed.outcome);
    (unit.failing_step, unit.reason) = stopped(closed.stopped.as_ref());
    unit.quarantine = closed.quarantine.as_ref().map(quarantine);
    findings(&mut unit, &closed.findings);
    unit
}

/// What the controller is told of a record; `None` of what is the station's own concern.
pub fn report(station: &NestName, entry: &Entry<Record>) -> Option<wire::ReportResultsRequest> {
    let report = match &entry.record {
        Record::RunClosed(closed) => Report::Unit(result(station, closed)),
        Record::HeadSigned(head) => Report::Head(signed_head(head)),
        _ => return None,
    };
    Some(wire::ReportResultsRequest {
        station: station.to_string(),
        sequence: entry.sequence.get(),
        report: Some(report),
    })
}

/// A report that was set aside.
pub fn refused(refused: &ReportRefused) -> wire::RefusedResult {
    wire::RefusedResult {
        sequence: refused.sequence,
        run_id: refused.run.map_or_else(String::new, |run| run.to_string()),
        reason: refused.reason.clone(),
    }
}

/// Who calls.
pub fn caller(caller: &Caller) -> wire::CallerDescription {
    wire::CallerDescription {
        caller: caller.name().to_owned(),
        roles: caller.roles().iter().map(|role| role.to_string()).collect(),
    }
}

/// A call that was kept.
pub fn audited(sequence: Sequence, audited: CallAudited) -> wire::AuditRecord {
    let about = audited.about;
    wire::AuditRecord {
        sequence: sequence.get(),
        time: Some(audited.time.into()),
        caller: audited.caller,
        roles: audited.roles,
        from: audited.from,
        method: audited.method,
        command_id: about.command.unwrap_or_default(),
        work_order: about.order.unwrap_or_default(),
        serial: about.serial.unwrap_or_default(),
        nest: about.nest.unwrap_or_default(),
        run_id: about.run.unwrap_or_default(),
        recipe: about.recipe.unwrap_or_default(),
        code: audited.code,
        reason: audited.reason,
        turned_away: audited.turned_away,
    }
}

/// What is known of a part of the station.
pub fn part((part, known): (String, Part)) -> wire::PartHealth {
    let (trouble, since) = (known.trouble.unwrap_or_default(), Some(known.since.into()));
    wire::PartHealth { part, trouble, since }
}

fn signed_head(head: &HeadSigned) -> wire::SignedHead {
    wire::SignedHead {
        statement: head.statement.clone(),
        signature: head.signature.clone(),
        certificates: head.certificates.iter().map(|certificate| certificate.to_vec()).collect(),
    }
}

/// A run as far as it has come.
pub fn unit(station: &NestName, unit: &Unit) -> wire::Unit {
    match &unit.closed {
        Some(closed) => result(station, closed),
        None => {
            wire::Unit { identity: unit.identity.as_ref().map(identity), ..opened(station, &unit.opened) }
        }
    }
}

/// An order and how far it has come.
pub fn order(order: &Order) -> wire::WorkOrder {
    wire::WorkOrder {
        work_order: order.opened.order.to_string(),
        recipe: order.opened.recipe.to_string(),
        recipe_digest: order.opened.recipe_digest.to_vec(),
        quantity: order.opened.quantity,
        passed: order.passed,
        state: order_state(order.state()).into(),
        state_reason: order.reason().to_owned(),
        state_since: order.moved.as_ref().map(|moved| moved.at.into()),
        quota: order.opened.quota.as_ref().map(quota),
    }
}

fn order_state(state: OrderState) -> wire::WorkOrderState {
    match state {
        OrderState::Open => wire::WorkOrderState::Open,
        OrderState::Paused => wire::WorkOrderState::Paused,
        OrderState::Closed => wire::WorkOrderState::Closed,
    }
}

fn quota(quota: &Quota) -> wire::SignedQuota {
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    wire::SignedQuota {
        product: quota.product.clone(),
        quantity: quota.quantity,
        spare: quota.spare,
        replacements: quota.replacements,
        not_before: time(quota.not_before),
        not_after: time(quota.not_after),
    }
}

/// How a nest was parked by hand.
pub fn parked_by_hand(parked: &NestCommanded) -> wire::ParkedByHand {
    let NestCommanded { by, reason, at, .. } = parked;
    wire::ParkedByHand { by: by.clone(), reason: reason.clone(), since: Some((*at).into()) }
}

fn opened(station: &NestName, run: &RunOpened) -> wire::Unit {
    let (validated_by, offline_allowance) = allowed(run.allowed.as_ref());
    wire::Unit {
        station: station.to_string(),
        run_id: run.run.to_string(),
        work_order: text(run.order.as_ref()),
        serial: run.serial.to_string(),
        nest: run.nest.to_string(),
        started: Some(run.started.into()),
        recipe_digest: run.recipe_digest.to_vec(),
        station_version: env!("CARGO_PKG_VERSION").to_owned(),
        values: values(&run.values),
        validated_by,
        offline_allowance,
        golden: run.golden.is_some(),
        ..wire::Unit::default()
    }
}

/// The controller's address, or the offline allowance's id; both are empty where nobody was asked.
fn allowed(by: Option<&AllowedBy>) -> (String, String) {
    match by {
        None => Default::default(),
        Some(AllowedBy::Controller(address)) => (address.clone(), String::new()),
        Some(AllowedBy::Budget(allowance)) => (String::new(), allowance.to_string()),
    }
}

fn values(values: &Values) -> HashMap<String, String> {
    values.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn findings(unit: &mut wire::Unit, found: &Findings) {
    unit.steps = found.steps.iter().map(step).collect();
    unit.measurements = found.measurements.iter().map(measurement).collect();
    unit.identity = found.identity.as_ref().map(identity);
    unit.fcc_answers = found.fcc_answers.iter().map(fcc_answer).collect();
    unit.flash = found
        .flash
        .as_ref()
        .map(|flash| wire::FlashResult { bytes: flash.bytes, digest: flash.digest.to_vec() });
    unit.tag = found.tag.as_ref().map(|tag| wire::TagResult { uid: tag.uid.clone(), ndef: tag.ndef.clone() });
    unit.firmware_version = found.firmware_version.clone().unwrap_or_default();
    unit.resumptions = found.resumptions.iter().map(resumption).collect();
    unit.chip = found.chip.clone().unwrap_or_default();
    unit.key_requests = found.requests.iter().map(key_request).collect();
}

fn key_request(requested: &KeyRequested) -> wire::KeyRequest {
    wire::KeyRequest { name: requested.name.clone(), request: requested.request.clone() }
}

fn resumption(resumption: &Resumption) -> wire::Resumption {
    let name = |step: Option<Step>| step.map_or_else(String::new, |step| step.to_string());
    wire::Resumption {
        time: Some(resumption.time.into()),
        left_in: name(resumption.left_in),
        resumed_at: name(resumption.goes_on_with),
    }
}

fn quarantine(quarantine: &Quarantine) -> wire::Quarantine {
    wire::Quarantine { reason: quarantine.reason.clone(), remedy: quarantine.remedy.clone() }
}

fn step(ended: &StepEnded) -> wire::StepResult {
    let elapsed = ended.ended.duration_since(ended.started).unwrap_or_default();
    wire::StepResult {
        step: ended.step.to_string(),
        started: Some(Timestamp::from(ended.started)),
        // Fails beyond 10 000 years.
        elapsed: Duration::try_from(elapsed).ok(),
        outcome: outcome(ended.outcome),
    }
}

fn measurement(measured: &crate::record::Measurement) -> wire::Measurement {
    wire::Measurement {
        name: measured.name.clone(),
        value: measured.value.value,
        unit: measured.value.unit.to_string(),
        lower_limit: measured.limits.min().value,
        upper_limit: measured.limits.max().value,
        within_limits: measured.limits.hold(measured.value),
    }
}

fn identity(identity: &Identity) -> wire::Identity {
    wire::Identity {
        endpoint_name: identity.endpoint_name.to_string(),
        certificate: identity.certificate.clone(),
        fingerprint: identity.fingerprint.to_vec(),
        enrolment_id: identity.enrolment_id.to_string(),
    }
}

fn fcc_answer(answer: &crate::record::FccAnswer) -> wire::FccAnswer {
    let sent = answer.sent.as_ref();
    let took = sent.and_then(|sent| sent.took).map(std::time::Duration::from_micros);
    wire::FccAnswer {
        session: answer.session.clone(),
        return_status: answer.return_status,
        info_message: answer.info.clone(),
        warnings: answer.warnings.clone(),
        sent: sent.map(|sent| sent.at.into()),
        took: took.and_then(|took| took.try_into().ok()),
        items: sent.iter().flat_map(|sent| &sent.injected).map(fcc_item).collect(),
    }
}

fn fcc_item(item: &crate::record::Injected) -> wire::FccItem {
    wire::FccItem {
        kind: item.kind.clone(),
        name: item.name.clone(),
        digest: item.digest.map_or_else(Vec::new, |digest| digest.to_vec()),
    }
}

fn stopped(stopped: Option<&Stopped>) -> (String, String) {
    stopped.map_or_else(Default::default, |stopped| {
        (stopped.step.map_or_else(String::new, |step| step.to_string()), stopped.reason.clone())
    })
}

fn text(what: Option<impl ToString>) -> String {
    what.map_or_else(String::new, |what| what.to_string())
}

fn outcome(outcome: Outcome) -> i32 {
    wire::Outcome::from(outcome).into()
}
