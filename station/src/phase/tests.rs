use std::time::SystemTime;

use factory_proto::{
    disposition::Disposition,
    ids::{EndpointName, EnrolmentId},
    outcome::Outcome,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::record::{
    AbortAsked, ChipSeen, Findings, Identity, IssuanceAsked, Issued, NestLeftPack, OrderOpened, PackRule,
    RegistrationAttested, Resumption, RunClosed, RunResumed, StepPassed, StepStarted, TagSeen, UnitDisposed,
    UnitReleased,
};

fn run() -> RunOpened {
    RunOpened::made_up()
}

fn started(step: Step) -> Record {
    Record::StepStarted(StepStarted { run: run().run, step })
}

fn passed(step: Step) -> Record {
    Record::StepPassed(Box::new(StepPassed { run: run().run, step, findings: Findings::default() }))
}

fn resumed(goes_on_with: Option<Step>) -> Record {
    let resumption = Resumption { time: SystemTime::UNIX_EPOCH, left_in: None, goes_on_with };
    Record::RunResumed(RunResumed { run: run().run, resumption })
}

fn closed() -> Record {
    Record::RunClosed(Box::new(RunClosed {
        opened: run(),
        ended: SystemTime::UNIX_EPOCH,
        outcome: Outcome::Pass,
        stopped: None,
        findings: Findings::default(),
        quarantine: None,
    }))
}

/// Every record of the one run there is, and some that belong to none, or are no part of its story.
fn all() -> Vec<Record> {
    let endpoint_name: EndpointName = "sensor-1".parse().unwrap();
    let RunOpened { run, order, serial, .. } = run();
    let order = order.unwrap();
    let steps = Step::ALL.into_iter().flat_map(|step| [started(step), passed(step), resumed(Some(step))]);
    let others = [
        Record::OrderOpened(OrderOpened {
            order: order.clone(),
            recipe: "sensor".parse().unwrap(),
            recipe_digest: [0; 32],
            quantity: 1,
            units: None,
            quota: None,
        }),
        Record::UnitReleased(UnitReleased {
            command: Uuid::nil(),
            serial: serial.clone(),
            reason: String::new(),
            reworked: false,
        }),
        Record::NestLeftPack(NestLeftPack {
            nest: "nest-1".parse().unwrap(),
            run,
            at: SystemTime::UNIX_EPOCH,
            units: 9,
            failed: 7,
            other_units: 90,
            other_failed: 1,
            rule: PackRule::Others(1e-6),
            mostly: None,
        }),
        Record::RegistrationAttested(RegistrationAttested {
            command: Uuid::nil(),
            ca_fingerprint: [1; 32],
            account: "acme".to_owned(),
            registered: true,
            statement: "uploaded".to_owned(),
            time: SystemTime::UNIX_EPOCH,
        }),
        Record::AbortAsked(AbortAsked {
            run,
            order: Some(order.clone()),
            serial: serial.clone(),
            nest: "nest-1".parse().unwrap(),
            reason: String::new(),
            time: SystemTime::UNIX_EPOCH,
        }),
        Record::UnitDisposed(UnitDisposed {
            command: Uuid::nil(),
            serial: serial.clone(),
            disposition: Disposition::Shipped,
        }),
        Record::RunOpened(super::tests::run()),
        Record::ChipSeen(ChipSeen { run, chip: vec![1] }),
        Record::TagSeen(TagSeen { run, uid: vec![4] }),
        Record::IssuanceAsked(IssuanceAsked {
            run,
            issuance: Uuid::nil(),
            endpoint_name: endpoint_name.clone(),
            serial,
            order,
            request: Vec::new(),
            supersedes: None,
            recipe_digest: [0; 32],
        }),
        Record::Issued(Issued {
            run,
            identity: Identity {
                endpoint_name,
                certificate: Vec::new(),
                fingerprint: [0; 32],
                enrolment_id: EnrolmentId::of_fingerprint(&[0; 32]),
            },
        }),
        resumed(None),
        closed(),
    ];
    steps.chain(others).collect()
}

fn phase_after(records: &[Record]) -> Result<Option<Phase>, IllegalRecord> {
    records.iter().try_fold(None, |phase, record| Phase::after(phase, record).map(Some))
}

/// The records of a run that goes through all its steps, less its result.
fn whole_run() -> Vec<Record> {
    let steps = Step::ALL.into_iter().flat_map(|step| [started(step), passed(step)]);
    [Record::RunOpened(run())].into_iter().chain(steps).collect()
}

#[test]
fn a_run_goes_through_its_steps_in_their_order_and_is_closed() {
    let records = whole_run();
    let check = |count: usize, phase: Phase| {
        assert_eq!(phase_after(&records[..count]), Ok(Some(phase)), "after {count} records");
    };
    check(1, Phase::Between { run: run(), done: None });
    check(2, Phase::Inside { run: run(), step: Step::Flash });
    check(3, Phase::Between { run: run(), done: Some(Step::Flash) });
    check(13, Phase::Between { run: run(), done: Some(Step::Tag) });
    assert_eq!(phase_after(&[&records[..], &[closed()]].concat()), Ok(Some(Phase::Closed)));
}

#[test]
fn no_step_is_skipped_and_none_passes_that_was_not_begun() {
    for at in 1..whole_run().len() {
        let mut records = whole_run();
        records.remove(at);
        let complete = at == records.len();
        assert_eq!(phase_after(&records).is_ok(), complete, "without record {at}");
    }
}

#[test]
fn a_run_is_resumed_at_an_earlier_step_or_behind_the_one_it_was_left_in_but_never_beyond() {
    let records = whole_run();
    let lawful = |count: usize, next: Option<Step>| {
        phase_after(&[&records[..count], &[resumed(next)]].concat()).is_ok()
    };
    // Left in provisioning: the 10th record of the whole run begins it.
    assert!(lawful(10, Some(Step::Boot)));
    assert!(lawful(10, Some(Step::Provision)));
    assert!(lawful(10, Some(Step::Tag)), "the device had taken its bundle");
    assert!(!lawful(10, None));
    // Left between identity and provisioning.
    assert!(lawful(9, Some(Step::Provision)));
    assert!(!lawful(9, Some(Step::Tag)));
    // Only the result is missing.
    assert!(lawful(13, None));
    let again = [&records[..10], &[resumed(Some(Step::Boot)), started(Step::Boot)]].concat();
    assert_eq!(phase_after(&again), Ok(Some(Phase::Inside { run: run(), step: Step::Boot })));
}

#[test]
fn a_golden_unit_has_the_steps_that_prove_its_fixture_and_no_other() {
    let golden = RunOpened { order: None, golden: Some("sensor".parse().unwrap()), ..run() };
    let steps = [Step::Flash, Step::Boot, Step::SelfTest];
    let records: Vec<Record> = [Record::RunOpened(golden.clone())]
        .into_iter()
        .chain(steps.into_iter().flat_map(|step| [started(step), passed(step)]))
        .collect();
    let proven = Phase::Between { run: golden.clone(), done: Some(Step::SelfTest) };
    assert_eq!(phase_after(&records), Ok(Some(proven.clone())));
    assert_eq!(golden.following(Some(Step::SelfTest)), None);
    for record in all() {
        let lawful = matches!(&record, Record::RunClosed(_) | Record::RunResumed(_));
        assert_eq!(Phase::after(Some(proven.clone()), &record).is_ok(), lawful, "{record:?}");
    }
    // Only the result is missing.
    assert_eq!(Phase::after(Some(proven.clone()), &resumed(None)), Ok(proven.clone()));
    let again = Phase::Between { run: golden.clone(), done: None };
    assert_eq!(Phase::after(Some(proven), &resumed(Some(Step::Flash))), Ok(again));
    let inside = Phase::Inside { run: golden.clone(), step: Step::Boot };
    assert!(Phase::after(Some(inside), &resumed(None)).is_err());
    for next in Step::ALL.into_iter().map(Some).chain([None]) {
        let before = golden.preceding(next);
        let between = next.is_none_or(Step::proves_the_fixture);
        assert!(!between || golden.following(before) == next, "{next:?}");
    }
}

#[test]
fn a_closed_run_accepts_nothing() {
    for record in all() {
        let error = Phase::after(Some(Phase::Closed), &record).unwrap_err();
        assert_eq!((*error.phase, *error.record), (Some(Phase::Closed), record));
    }
}

proptest! {
    /// Whatever the order of the records, a phase that is reached says what they said last.
    #[test]
    fn records_in_any_order_give_a_phase_that_agrees_with_the_last_of_them(
        picks in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        lawful in 0_usize..13,
    ) {
        let all = all();
        let mut records = whole_run()[..lawful].to_vec();
        let mut phase = phase_after(&records).unwrap();
        for pick in picks {
            let record = pick.get(&all).clone();
            let Ok(next) = Phase::after(phase.clone(), &record) else { continue };
            records.push(record.clone());
            match (&record, &next) {
                (Record::StepStarted(started), Phase::Inside { step, .. }) => prop_assert_eq!(started.step, *step),
                (Record::StepPassed(passed), Phase::Between { done, .. }) => prop_assert_eq!(Some(passed.step), *done),
                (Record::RunResumed(resumed), Phase::Between { done, .. }) => {
                    prop_assert_eq!(resumed.resumption.goes_on_with, Step::following(*done));
                }
                (Record::RunClosed(_), Phase::Closed) | (Record::RunOpened(_), Phase::Between { done: None, .. }) => {}
                (Record::ChipSeen(_), Phase::Inside { step: Step::Flash, .. }) => {}
                (Record::TagSeen(_), Phase::Inside { step: Step::Tag, .. }) => {}
                (Record::IssuanceAsked(_) | Record::Issued(_), Phase::Inside { step: Step::Identity, .. }) => {}
                (record, phase) => prop_assert!(false, "{record:?} led to {phase:?}"),
            }
            phase = Some(next);
        }
        prop_assert_eq!(phase_after(&records).unwrap(), phase);
    }
}
