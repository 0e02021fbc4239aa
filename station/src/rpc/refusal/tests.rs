use std::{io, path::PathBuf};

use factory_proto::station::{
    AbortUnitRequest, DisposeUnitRequest, ListUnitsRequest, OpenWorkOrderRequest, ReleaseUnitRequest,
    StartUnitRequest,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    record::{Quarantine, RunId},
    rpc::command,
};

const PROTO: &str = include_str!("../../../../proto/factory/station/v1/station.proto");

#[test]
fn each_reason_has_the_code_that_the_proto_says() {
    let (_, table) = PROTO.split_once("\nenum ErrorReason {\n").unwrap();
    let (table, _) = table.split_once("\n}").unwrap();
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let mut told = 0;
    for pair in lines.windows(2).filter(|pair| pair[0].starts_with("//")) {
        let Some((reason, _)) = pair[1].split_once(" = ") else { continue };
        let code = pair[0].trim_start_matches("// ").split(':').next().unwrap();
        let reason = ErrorReason::from_str_name(reason).unwrap();
        let spelled = format!("{:?}", terms(reason).0).to_uppercase();
        assert_eq!(spelled, code.replace('_', ""), "{reason:?}");
        told += 1;
    }
    // Their numbers have gaps.
    let reasons = (1..1000).filter(|number| ErrorReason::try_from(*number).is_ok()).count();
    assert_eq!(told, reasons, "each reason stands in the proto with its code");
}

fn run() -> RunId {
    RunId::of_command(Uuid::from_u128(1))
}

#[test]
fn an_error_says_its_reason_what_it_is_about_and_when_to_try_again() {
    let check = |status: Status, reason: &str, about: &[(&str, &str)], again: Option<u64>| {
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "factory.station.v1"));
        let about = about.iter().map(|(what, which)| (what.to_string(), which.to_string())).collect();
        assert_eq!(info.metadata, about, "{reason}");
        let after = details.retry_info().and_then(|info| info.retry_delay);
        assert_eq!(after, again.map(Duration::from_secs), "{reason}");
        let is_quota = details.quota_failure().is_some();
        assert_eq!(is_quota, status.code() == Code::ResourceExhausted, "{reason}");
        let reason = ErrorReason::from_str_name(&format!("ERROR_REASON_{reason}")).unwrap();
        assert_eq!(terms(reason).0, status.code());
    };
    let (order, serial, nest) =
        (|| "WO-1".parse().unwrap(), || "SN1".parse().unwrap(), || "A".parse().unwrap());
    let run_text = run().to_string();

    let busy = StartError::Busy { nest: nest(), run: run() };
    check(refused(busy), "NEST_BUSY", &[("nest", "A"), ("run", &run_text)], Some(5));
    let parked = StartError::Parked { nest: nest(), reason: "no probe".to_owned() };
    check(refused(parked), "NEST_PARKED", &[("nest", "A")], Some(10));
    let left = StartError::LeftPack { nest: nest(), reason: "7 of 50".to_owned() };
    check(refused(left), "NEST_LEFT_PACK", &[("nest", "A")], None);
    check(refused(StartError::Draining), "SHUTTING_DOWN", &[], Some(5));
    check(refused(StartError::Reused), "COMMAND_ID_REUSED", &[], None);
    check(refused(StartError::NoRoom("full".to_owned())), "JOURNAL_FULL", &[], Some(30));

    let full = || OrderError::Full { order: order(), passed: 1, running: 1, quantity: 2 };
    check(refused(full()), "ORDER_FULL", &[("order", "WO-1")], None);
    check(refused(StartError::Order(full())), "ORDER_FULL", &[("order", "WO-1")], None);
    let quarantine = Quarantine { reason: "it is not known".to_owned(), remedy: "look".to_owned() };
    let aside = OrderError::Quarantined { serial: serial(), quarantine };
    check(refused(aside), "UNIT_QUARANTINED", &[("serial", "SN1")], None);
    let last = || Box::new(RunOpened::made_up());
    let last_run = last().run.to_string();
    let mut seen = vec![
        ("serial", "1"),
        ("seen_order", "order-1"),
        ("seen_run", &last_run),
        ("seen_nest", "nest-1"),
        ("seen_time", "1970-01-01T00:00:00Z"),
    ];
    let scrapped = OrderError::Scrapped { serial: "1".parse().unwrap(), last: Some(last()) };
    check(refused(scrapped), "UNIT_SCRAPPED", &seen, None);
    seen.push(("run", &last_run));
    check(refused(OrderError::Running(last())), "UNIT_RUNNING", &seen, Some(5));
    let other = OrderError::OtherValue { serial: serial(), name: "mac".to_owned() };
    check(refused(other), "UNIT_VALUES", &[("serial", "SN1"), ("value", "mac")], None);
    let recipe = RecipeError::NotHeld { name: "sensor".parse().unwrap(), digest: "00".to_owned() };
    check(refused(recipe), "RECIPE_NOT_HELD", &[("recipe", "sensor")], None);
    let away = SignerError::Unreachable { place: "there".to_owned(), reason: "away".to_owned() };
    check(refused(OrderError::Signer(away)), "SIGNER_UNREACHABLE", &[], Some(1));
    let full = || JournalError::Full { dir: PathBuf::from("journal") };
    check(refused(OrderError::Journal(full())), "JOURNAL_FULL", &[], Some(30));
    let source = io::Error::other("gone");
    let io = JournalError::Io { act: "read", path: PathBuf::from("segment"), source };
    check(refused(io), "JOURNAL_FAILED", &[], None);
    let source = io::Error::from(io::ErrorKind::NotFound);
    let gone = JournalError::Io { act: "open", path: PathBuf::from("segment"), source };
    check(refused(gone), "JOURNAL_DAMAGED", &[], None);
    let damaged = JournalError::Damaged { path: "s".into(), offset: 1, what: "it is not whole".to_owned() };
    check(refused(damaged), "JOURNAL_DAMAGED", &[], None);
}

#[test]
fn each_wrong_field_is_a_violation_with_its_path() {
    let check = |status: Status, fields: &[&str]| {
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "FIELD_INVALID");
        let violations = &details.bad_request().unwrap().field_violations;
        let named: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, fields);
        for violation in violations {
            assert!(
                status.message().contains(&format!("{}: {}", violation.field, violation.description)),
                "{status}"
            );
        }
    };
    let no_start = |values: &[(&str, &str)]| {
        let own = values.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let request = StartUnitRequest { values: own.collect(), ..StartUnitRequest::default() };
        command::StartUnit::try_from(request).map(drop).unwrap_err()
    };
    check(no_start(&[]), &["command_id", "work_order", "serial"]);
    let named = ["command_id", "work_order", "serial", "values[\"Mac\"]"];
    check(no_start(&[("Mac", "1"), ("colour", "red")]), &named);
    let open = command::OpenOrder::try_from(OpenWorkOrderRequest {
        command_id: Uuid::nil().to_string(),
        work_order: "WO-1".to_owned(),
        recipe: "sensor".to_owned(),
        unit_list: b"mac\n".to_vec(),
        ..OpenWorkOrderRequest::default()
    });
    check(open.map(drop).unwrap_err(), &["quantity", "signed_order", "unit_list"]);
    let abort =
        command::Abort::try_from(AbortUnitRequest { reason: "x".repeat(201), ..AbortUnitRequest::default() });
    check(abort.map(drop).unwrap_err(), &["command_id", "run_id", "reason"]);
    let release = command::release(ReleaseUnitRequest::default());
    check(release.map(drop).unwrap_err(), &["command_id", "serial", "reason"]);
    let dispose = command::dispose(DisposeUnitRequest::default());
    check(dispose.map(drop).unwrap_err(), &["command_id", "serial", "disposition"]);
    let list = command::List::try_from(ListUnitsRequest {
        page_size: 1001,
        page_token: "x".to_owned(),
        ..ListUnitsRequest::default()
    });
    check(list.map(drop).unwrap_err(), &["page_token", "page_size"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_refusal_is_longer_than_clients_take(
        complaints in prop::collection::vec((".{0,40}", ".{0,300}"), 0..100)
    ) {
        let status = Refusal::of_fields(complaints);
        // As trailers: percent-encoded, and in base64.
        let percent: usize =
            status.message().bytes().map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 }).sum();
        let base64 = status.details().len().div_ceil(3) * 4;
        prop_assert!(percent + base64 < 9 * 1024, "{} and {}", percent, base64);
    }
}
