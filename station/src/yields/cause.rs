//! Why a run did not pass, in words that are the same for every run that ended so.

use factory_proto::outcome::Outcome;

use super::Loss;
use crate::{record::RunClosed, step::Step};

/// Longer ones differ only in what does not matter.
const LONGEST: usize = 160;

/// What a run was lost by: each measurement beyond its limits, what is another unit's, what the device answered, or else the reason without its
/// numbers. Nothing where it passed.
pub fn losses(closed: &RunClosed) -> Vec<Loss> {
    let Some(stopped) = &closed.stopped else { return Vec::new() };
    let loss = |cause: String| Loss { outcome: closed.outcome, step: stopped.step, cause };
    if closed.outcome == Outcome::Fail && stopped.step == Some(Step::SelfTest) {
        let measurements = closed.findings.measurements.iter();
        let beyond: Vec<Loss> = measurements
            .filter(|measurement| !measurement.limits.hold(measurement.value))
            .map(|measurement| loss(format!("{} beyond its limits", measurement.name)))
            .collect();
        if !beyond.is_empty() {
            return beyond;
        }
    }
    if let Some(seen) = &closed.findings.seen_before {
        return vec![loss(format!("its {} is another unit's", seen.mark.kind()))];
    }
    let refused = closed.findings.fcc_answers.last().and_then(|answer| answer.return_status);
    match (stopped.step, refused) {
        (Some(Step::Identity | Step::Provision), Some(status)) if status != 0 => {
            vec![loss(format!("the device answered with status {status}"))]
        }
        _ => vec![loss(without_numbers(&stopped.reason))],
    }
}

/// Each word with a digit in it becomes an ellipsis.
fn without_numbers(reason: &str) -> String {
    let words = reason.split_whitespace().map(|word| {
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        if core.contains(|c: char| c.is_ascii_digit()) { word.replace(core, "…") } else { word.to_owned() }
    });
    words.collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_make_reasons_differ() {
        let check = |reason: &str, wanted: &str| assert_eq!(without_numbers(reason), wanted, "{reason}");
        check("", "");
        check("the tag was taken away", "the tag was taken away");
        check("firmware 1.0.1 booted, the recipe wants 1.0.0", "firmware … booted, the recipe wants …");
        check("did not end within 5s", "did not end within …");
        check("page 0x00001000: no ACK (try 3)", "page …: no ACK (try …)");
        check("lost \"SN0001\"; look", "lost \"…\"; look");
        assert_eq!(without_numbers(&"ä".repeat(1000)).chars().count(), LONGEST);
    }
}
