//! What the line's controller is asked and told, and what it answers, in the words of the wire.

use std::collections::BTreeMap;

use factory_proto::{
    ids::NestName,
    station::{self as wire, ValidateUnitRequest, ValidateUnitResponse, Validation, Verdict},
};

use super::{outcome, stopped, text, values};
use crate::{
    golden::Standing,
    line::{budget::Left, controllers::Described, interlock::Question},
    nest::Look,
    record::{BudgetGranted, RunClosed, UnitRefused},
};

/// All that a controller may judge.
const VALIDATIONS: [Validation; 4] =
    [Validation::Route, Validation::Revision, Validation::Status, Validation::Retest];
/// A reason is for people; what is longer is a mistake, or worse.
const LONGEST_REASON: usize = 500;

/// May this unit start?
pub fn question(question: &Question) -> ValidateUnitRequest {
    let Question { station, run, recipe, earlier, newest } = question;
    ValidateUnitRequest {
        station: station.to_string(),
        nest: run.nest.to_string(),
        work_order: text(run.order.as_ref()),
        serial: run.serial.to_string(),
        recipe: recipe.to_string(),
        recipe_digest: run.recipe_digest.to_vec(),
        run_id: run.run.to_string(),
        validations: VALIDATIONS.map(Into::into).to_vec(),
        earlier_runs: u32::try_from(*earlier).unwrap_or(u32::MAX),
        newest_runs: newest.iter().map(earlier_run).collect(),
        values: values(&run.values),
    }
}

fn earlier_run(closed: &RunClosed) -> wire::EarlierRun {
    wire::EarlierRun {
        run_id: closed.opened.run.to_string(),
        work_order: text(closed.opened.order.as_ref()),
        ended: Some(closed.ended.into()),
        outcome: outcome(closed.outcome),
        failing_step: stopped(closed.stopped.as_ref()).0,
    }
}

/// Why the unit may not start; empty when it may, which takes a clear yes to each question. At most 5.
pub fn reasons(answer: &ValidateUnitResponse) -> Vec<String> {
    // Of two verdicts on one thing the worse counts.
    let mut judged = BTreeMap::new();
    for result in &answer.results {
        let passed = result.verdict() == Verdict::Passed;
        judged
            .entry(result.validation)
            .and_modify(|(all, reason)| {
                *all &= passed;
                if !passed {
                    *reason = &result.reason;
                }
            })
            .or_insert((passed, &result.reason));
    }
    let objection = |validation: Validation| {
        let reason = match judged.get(&validation.into()) {
            Some((true, _)) => return None,
            Some((false, reason)) if reason.is_empty() => "refused, without a reason",
            Some((false, reason)) => reason.as_str(),
            None => "the controller did not say",
        };
        let name = validation.as_str_name().trim_start_matches("VALIDATION_");
        Some(shortened(&format!("{name}: {reason}")))
    };
    let failed = answer.results.iter().any(|result| result.verdict() == Verdict::Failed);
    let mut reasons = Vec::new();
    // An answer without any result says all that it says here.
    if answer.overall() != Verdict::Passed && (!failed || !answer.reason.is_empty()) {
        let reason = if answer.reason.is_empty() { "refused, without a reason" } else { &answer.reason };
        reasons.push(shortened(reason));
        if answer.results.is_empty() {
            return reasons;
        }
    }
    reasons.extend(VALIDATIONS.into_iter().filter_map(objection));
    reasons
}

/// A reason as it is kept: at most 500 characters, on one line.
pub fn shortened(reason: &str) -> String {
    reason.chars().take(LONGEST_REASON).map(|it| if it.is_control() { ' ' } else { it }).collect()
}

/// A unit that was refused.
pub fn refused(refused: &UnitRefused) -> wire::UnitRefused {
    wire::UnitRefused {
        run_id: refused.run.to_string(),
        work_order: refused.order.to_string(),
        serial: refused.serial.to_string(),
        nest: refused.nest.to_string(),
        time: Some(refused.time.into()),
        controller: refused.controller.clone(),
        reasons: refused.reasons.clone(),
    }
}

/// What may be started while no controller answers, and why the last allowance was not taken.
pub fn budget(left: Left, trouble: Option<String>) -> wire::OfflineBudget {
    wire::OfflineBudget {
        allowance: left.allowance.map_or_else(String::new, |id| id.to_string()),
        units: left.units,
        units_left: left.left,
        expires: left.expires.map(Into::into),
        trouble: trouble.unwrap_or_default(),
    }
}

/// An allowance that has just come into force.
pub fn granted(granted: &BudgetGranted) -> wire::OfflineBudget {
    wire::OfflineBudget {
        allowance: granted.id.to_string(),
        units: granted.units,
        units_left: granted.units,
        expires: Some(granted.expires.into()),
        trouble: String::new(),
    }
}

/// A controller and whether it is used.
pub fn controller(described: Described) -> wire::ControllerDescription {
    wire::ControllerDescription {
        address: described.address,
        in_use: described.in_use,
        trouble: described.trouble.unwrap_or_default(),
    }
}

/// What a nest is doing now.
pub fn nest(name: &NestName, look: Look) -> wire::NestDescription {
    wire::NestDescription {
        nest: name.to_string(),
        run_id: look.run.map_or_else(String::new, |run| run.to_string()),
        parked_by_hand: look.by_hand.as_ref().map(super::parked_by_hand),
        parked: look.parked.unwrap_or_default(),
        golden: Some(golden(look.golden)),
    }
}

fn golden(Standing { due, last }: Standing) -> wire::GoldenStanding {
    let (due_since, due) = due.map_or_else(Default::default, |due| (Some(due.since.into()), due.reason));
    let last = last.map(|last| wire::GoldenResult {
        run_id: last.run.to_string(),
        serial: last.serial.to_string(),
        ended: Some(last.ended.into()),
        outcome: outcome(last.outcome),
        reason: last.reason,
    });
    wire::GoldenStanding { due_since, due, last }
}

#[cfg(test)]
mod tests {
    use factory_proto::station::ValidationResult;
    use proptest::prelude::*;

    use super::*;

    fn answer(
        overall: Verdict,
        reason: &str,
        results: &[(Validation, Verdict, &str)],
    ) -> ValidateUnitResponse {
        let result = |(validation, verdict, reason): &(Validation, Verdict, &str)| ValidationResult {
            validation: (*validation).into(),
            verdict: (*verdict).into(),
            reason: (*reason).to_owned(),
        };
        ValidateUnitResponse {
            overall: overall.into(),
            results: results.iter().map(result).collect(),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn a_unit_starts_only_on_a_clear_yes_to_each_question() {
        use Validation::{Retest, Revision, Route, Status};
        use Verdict::{Failed, Passed, Unspecified};
        let check = |overall, reason, results: &[(Validation, Verdict, &str)], expected: &[&str]| {
            assert_eq!(reasons(&answer(overall, reason, results)), expected, "{results:?}");
        };
        let yes = |validation| (validation, Passed, "");
        let all = [yes(Route), yes(Revision), yes(Status), yes(Retest)];
        check(Passed, "", &all, &[]);
        check(Passed, "well done", &all, &[]);
        // Nobody else may say yes in the controller's place.
        check(Unspecified, "", &all, &["refused, without a reason"]);
        check(Failed, "line clearance", &all, &["line clearance"]);
        check(Passed, "", &all[..3], &["RETEST: the controller did not say"]);
        check(
            Passed,
            "",
            &[],
            &[
                "ROUTE: the controller did not say",
                "REVISION: the controller did not say",
                "STATUS: the controller did not say",
                "RETEST: the controller did not say",
            ],
        );
        check(Failed, "unknown unit", &[], &["unknown unit"]);
        check(Failed, "", &[], &["refused, without a reason"]);
        let held = [yes(Route), yes(Revision), (Status, Failed, "on hold"), (Retest, Failed, "")];
        let said = ["STATUS: on hold", "RETEST: refused, without a reason"];
        check(Failed, "", &held, &said);
        // Of an answer that contradicts itself the worse half counts.
        check(Passed, "", &held, &said);
        check(Passed, "", &[&all[..], &held[2..3]].concat(), &["STATUS: on hold"]);
        check(Passed, "", &[&held[..], &all[..]].concat(), &said);
        check(
            Passed,
            "",
            &[&all[..3], &[(Retest, Unspecified, "")]].concat(),
            &["RETEST: refused, without a reason"],
        );
    }

    proptest! {
        #[test]
        fn whatever_a_controller_answers_its_reasons_are_few_short_and_on_one_line(
            overall in -1..4, reason in ".{0,900}",
            results in proptest::collection::vec((-1..6, -1..4, ".{0,900}"), 0..9),
        ) {
            let results: Vec<_> = results
                .into_iter()
                .map(|(validation, verdict, reason)| ValidationResult { validation, verdict, reason })
                .collect();
            let passed = |validation: i32| {
                let mut about = results.iter().filter(|it| it.validation == validation).peekable();
                about.peek().is_some() && about.all(|it| it.verdict == 1)
            };
            let clear = overall == 1 && (1..=4).all(passed);
            let reasons = reasons(&ValidateUnitResponse { overall, results: results.clone(), reason });
            prop_assert_eq!(reasons.is_empty(), clear);
            prop_assert!(reasons.len() <= 5);
            for reason in reasons {
                prop_assert!(reason.chars().count() <= LONGEST_REASON && !reason.contains(char::is_control));
            }
        }
    }
}
