//! Each rule sees its violation when one is planted, and only then.

use super::*;

const ONE: Fingerprint = [1; 32];
const TWO: Fingerprint = [2; 32];

fn run(id: &str, shown: &[Outcome]) -> Run {
    let shown = shown.iter().map(|outcome| Shown { outcome: *outcome, certificate: None }).collect();
    Run { id: id.to_owned(), serial: "SN1".to_owned(), shown }
}

fn report(sequence: u64, run: &str, outcome: Outcome) -> Report {
    Report {
        sequence,
        run: run.to_owned(),
        serial: "SN1".to_owned(),
        outcome,
        certificate: Some(ONE),
        quarantined: false,
    }
}

fn issuance(id: &str, certificate: Fingerprint, state: State) -> Issuance {
    Issuance {
        id: id.to_owned(),
        endpoint_name: "sensor-SN1".to_owned(),
        state,
        certificate: Some(certificate),
        key: Some(format!("the key of {id}")),
    }
}

/// A unit whose first run ended as an error, with a certificate that was superseded, and whose second run passed.
fn as_it_should_be() -> Evidence {
    let unit = Unit {
        endpoint_name: "sensor-SN1".to_owned(),
        sound: true,
        certificate: Some(ONE),
        holds_key: true,
        closed: true,
        tag: format!("..{}..", EnrolmentId::of_fingerprint(&ONE)).into_bytes(),
    };
    Evidence {
        runs: vec![run("first", &[Outcome::Error]), run("second", &[Outcome::Pass, Outcome::Pass])],
        reports: vec![
            Report { certificate: Some(TWO), ..report(3, "first", Outcome::Error) },
            report(9, "second", Outcome::Pass),
        ],
        ledger: Some(vec![issuance("void", TWO, State::Void), issuance("live", ONE, State::Issued)]),
        journalled: BTreeSet::from(["void".to_owned(), "live".to_owned()]),
        units: BTreeMap::from([("SN1".to_owned(), unit)]),
    }
}

/// Plants something, and looks which rules see it.
fn check(expected: &[Rule], plant: impl FnOnce(&mut Evidence)) {
    let mut evidence = as_it_should_be();
    plant(&mut evidence);
    let violations = judge(&evidence);
    let rules: BTreeSet<Rule> = violations.iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, expected.iter().copied().collect(), "{violations:#?}");
}

fn unit(evidence: &mut Evidence) -> &mut Unit {
    evidence.units.get_mut("SN1").expect("it is there")
}

fn ledger(evidence: &mut Evidence) -> &mut Vec<Issuance> {
    evidence.ledger.as_mut().expect("it is there")
}

#[test]
fn what_is_as_it_should_be_is_not_complained_of() {
    check(&[], |_| {});
    check(&[], |all| all.ledger = None);
    check(&[], |all| {
        ledger(all).push(Issuance { certificate: None, ..issuance("asked", TWO, State::Asked) })
    });
}

#[test]
fn a_result_that_is_lost_doubled_invented_or_late_is_seen() {
    check(&[Rule::NothingLost, Rule::Unchanging], |all| drop(all.reports.remove(0)));
    check(&[Rule::NothingLost], |all| all.runs.push(run("third", &[])));
    check(&[Rule::NothingDoubled], |all| all.reports.push(report(11, "second", Outcome::Pass)));
    check(&[Rule::NothingDoubled, Rule::InOrder], |all| all.reports.push(report(9, "second", Outcome::Pass)));
    check(&[Rule::NothingInvented], |all| all.reports.insert(0, report(1, "ghost", Outcome::Error)));
    check(&[Rule::InOrder], |all| all.reports.swap(0, 1));
}

#[test]
fn a_result_that_changes_is_seen() {
    check(&[Rule::Unchanging], |all| all.reports[0].outcome = Outcome::Aborted);
    check(&[Rule::Unchanging, Rule::ShownIsDurable], |all| {
        all.runs[0].shown.push(Shown { outcome: Outcome::Pass, certificate: None });
    });
    check(&[Rule::ShownIsDurable], |all| all.runs[1].shown[0].certificate = Some(TWO));
}

#[test]
fn a_pass_that_was_shown_without_a_durable_result_is_seen() {
    check(&[Rule::ShownIsDurable, Rule::NothingLost], |all| drop(all.reports.pop()));
}

#[test]
fn a_unit_that_passed_and_is_not_whole_is_seen() {
    check(&[Rule::PassMeansWhole], |all| unit(all).certificate = Some(TWO));
    check(&[Rule::PassMeansWhole], |all| unit(all).certificate = None);
    check(&[Rule::PassMeansWhole], |all| unit(all).holds_key = false);
    check(&[Rule::PassMeansWhole], |all| unit(all).closed = false);
    check(&[Rule::PassMeansWhole], |all| unit(all).tag.truncate(80));
    check(&[Rule::PassMeansWhole], |all| all.reports[1].certificate = None);
    check(&[Rule::PassMeansWhole], |all| ledger(all)[1].state = State::Void);
    check(&[Rule::PassMeansWhole, Rule::NoneUnknown], |all| {
        ledger(all)[1].endpoint_name = "sensor-SN2".to_owned();
    });
    check(&[Rule::PassesOnce], |all| {
        all.runs.push(run("third", &[Outcome::Pass]));
        all.reports.push(report(11, "third", Outcome::Pass));
    });
}

#[test]
fn a_sound_unit_that_is_called_a_failure_is_seen() {
    let fails = |all: &mut Evidence| {
        all.reports[0].outcome = Outcome::Fail;
        all.runs[0].shown[0].outcome = Outcome::Fail;
    };
    check(&[Rule::BlamesNoUnit], fails);
    check(&[], |all| {
        fails(all);
        unit(all).sound = false;
    });
}

#[test]
fn two_live_certificates_are_seen() {
    check(&[Rule::OneLivePerName], |all| ledger(all)[0].state = State::Issued);
    check(&[Rule::OneLivePerName, Rule::OneLivePerKey], |all| {
        let key = ledger(all)[1].key.clone();
        ledger(all)[0] = Issuance { key, ..issuance("void", TWO, State::Issued) };
    });
}

#[test]
fn a_live_certificate_that_nobody_knows_of_is_seen() {
    check(&[Rule::NoneUnknown], |all| all.journalled.clear());
    check(&[Rule::NoneUnknown], |all| {
        all.journalled.insert("other".to_owned());
        let endpoint_name = "sensor-SN9".to_owned();
        ledger(all).push(Issuance { endpoint_name, ..issuance("other", TWO, State::Issued) });
    });
}
