//! The rules, in three groups: results, units that passed, certificates.

use std::collections::{BTreeMap, btree_map::Entry};

use factory_proto::station::Outcome;

use super::{Evidence, Issuance, Report, Rule, State, Violation, short};

/// Each run one result, the same everywhere.
pub(super) fn results(evidence: &Evidence, out: &mut Vec<Violation>) {
    let mut complain = |rule, serial: &str, sentence| {
        out.push(Violation { rule, serial: serial.to_owned(), sentence });
    };
    for pair in evidence.reports.windows(2) {
        let [before, after] = pair else { continue };
        if after.sequence <= before.sequence {
            let sentence = format!("result {} came after {}", after.sequence, before.sequence);
            complain(Rule::InOrder, &after.serial, sentence);
        }
    }
    for report in &evidence.reports {
        if !evidence.runs.iter().any(|run| run.id == report.run && run.serial == report.serial) {
            complain(Rule::NothingInvented, &report.serial, format!("nobody started its run {}", report.run));
        }
    }
    for run in &evidence.runs {
        let reports: Vec<&Report> = evidence.reports.iter().filter(|report| report.run == run.id).collect();
        match reports[..] {
            [] => complain(Rule::NothingLost, &run.serial, format!("the result of run {} is lost", run.id)),
            [_] => {}
            _ => {
                let keys: Vec<u64> = reports.iter().map(|report| report.sequence).collect();
                let sentence = format!("run {} has {} results, {keys:?}", run.id, reports.len());
                complain(Rule::NothingDoubled, &run.serial, sentence);
            }
        }
        for shown in &run.shown {
            let agrees = |report: &&Report| {
                report.outcome == shown.outcome
                    && (shown.certificate.is_none() || report.certificate == shown.certificate)
            };
            if reports.iter().any(agrees) {
                continue;
            }
            let rule = if shown.outcome == Outcome::Pass { Rule::ShownIsDurable } else { Rule::Unchanging };
            let kept: Vec<String> = reports
                .iter()
                .map(|report| format!("{} with {}", report.outcome.as_str_name(), short(report.certificate)))
                .collect();
            let (outcome, certificate) = (shown.outcome.as_str_name(), short(shown.certificate));
            let sentence = format!(
                "run {} was shown as {outcome} with {certificate}, the controller keeps {kept:?}",
                run.id
            );
            complain(rule, &run.serial, sentence);
        }
        if let Some(first) = run.shown.first()
            && run.shown.iter().any(|shown| shown.outcome != first.outcome)
        {
            complain(Rule::Unchanging, &run.serial, format!("run {} was shown as {:?}", run.id, run.shown));
        }
    }
}

/// A unit that passed is whole.
pub(super) fn passes(evidence: &Evidence, out: &mut Vec<Violation>) {
    for (serial, unit) in &evidence.units {
        let mut complain = |rule, sentence| out.push(Violation { rule, serial: serial.clone(), sentence });
        let passes: Vec<&Report> = evidence
            .reports
            .iter()
            .filter(|report| report.serial == *serial && report.outcome == Outcome::Pass)
            .collect();
        for report in evidence.reports.iter().filter(|report| report.serial == *serial) {
            if unit.sound && report.outcome == Outcome::Fail {
                complain(
                    Rule::BlamesNoUnit,
                    format!("it is sound, and its run {} ended as FAIL", report.run),
                );
            }
        }
        let Some(pass) = passes.last() else { continue };
        if passes.iter().any(|other| other.run != pass.run) {
            complain(Rule::PassesOnce, format!("{} of its runs passed", passes.len()));
        }
        let Some(certificate) = pass.certificate else {
            complain(Rule::PassMeansWhole, "it passed without a certificate".to_owned());
            continue;
        };
        let result = short(Some(certificate));
        if unit.certificate != Some(certificate) {
            let sentence = format!("its result names {result}, the device holds {}", short(unit.certificate));
            complain(Rule::PassMeansWhole, sentence);
        }
        if !unit.holds_key {
            complain(Rule::PassMeansWhole, "the device does not hold its certificate's key".to_owned());
        }
        if !unit.closed {
            complain(Rule::PassMeansWhole, "the device's factory code is open".to_owned());
        }
        if !unit.tag_says(certificate) {
            complain(Rule::PassMeansWhole, format!("the tag does not carry the enrolment id of {result}"));
        }
        if let Some(ledger) = &evidence.ledger {
            let live = live(ledger).find(|issuance| issuance.certificate == Some(certificate));
            match live {
                Some(issuance) if issuance.endpoint_name == unit.endpoint_name => {}
                Some(issuance) => {
                    let sentence = format!("the ledger issued {result} for {}", issuance.endpoint_name);
                    complain(Rule::PassMeansWhole, sentence);
                }
                None => complain(Rule::PassMeansWhole, format!("{result} is not live in the ledger")),
            }
        }
    }
}

/// Never two live certificates, never one that nobody knows of.
pub(super) fn certificates(evidence: &Evidence, out: &mut Vec<Violation>) {
    let Some(ledger) = &evidence.ledger else { return };
    let unit_of = |name: &str| {
        let found = evidence.units.iter().find(|(_, unit)| unit.endpoint_name == name);
        found.map(|(serial, _)| serial.clone())
    };
    let (mut names, mut keys) = (BTreeMap::new(), BTreeMap::new());
    for issuance in live(ledger) {
        let Issuance { id, endpoint_name, .. } = issuance;
        let serial = unit_of(endpoint_name);
        let mut complain = |rule, sentence| {
            out.push(Violation { rule, serial: serial.clone().unwrap_or_default(), sentence });
        };
        match names.entry(endpoint_name) {
            Entry::Vacant(place) => drop(place.insert(id)),
            Entry::Occupied(other) => complain(
                Rule::OneLivePerName,
                format!("{endpoint_name} has two live certificates, from {} and {id}", other.get()),
            ),
        }
        if let Some(key) = &issuance.key {
            match keys.entry(key) {
                Entry::Vacant(place) => drop(place.insert(id)),
                Entry::Occupied(other) => complain(
                    Rule::OneLivePerKey,
                    format!("one key has two live certificates, from {} and {id}", other.get()),
                ),
            }
        }
        if serial.is_none() {
            complain(Rule::NoneUnknown, format!("nobody made {endpoint_name}, which has a live certificate"));
        }
        if !evidence.journalled.contains(id) {
            let sentence =
                format!("issuance {id} for {endpoint_name} is live, and not in the station's journal");
            complain(Rule::NoneUnknown, sentence);
        }
    }
}

fn live(ledger: &[Issuance]) -> impl Iterator<Item = &Issuance> {
    ledger.iter().filter(|issuance| issuance.state == State::Issued)
}
