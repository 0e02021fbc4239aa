//! Yields in the words of the wire.

use std::time::Duration;

use factory_proto::station as wire;

use crate::yields::{Loss, Lost, Times, Tries, survey::Survey};

/// As many ways to lose a unit as anybody reads.
const WAYS: usize = 100;

/// The figures of some runs.
pub fn yields(survey: &Survey) -> wire::GetYieldsResponse {
    let yields = &survey.yields;
    let outcome =
        |(outcome, runs): (_, &u64)| wire::OutcomeCount { outcome: super::outcome(outcome), runs: *runs };
    let steps = yields.steps.iter().map(|((step, nest), times)| cycle(step.name(), nest.as_str(), times));
    let runs = yields.runs.iter().map(|(nest, times)| cycle("", nest.as_str(), times));
    let (bottleneck, bottleneck_share) =
        yields.bottleneck().map_or_else(Default::default, |(step, share)| (step.to_string(), share));
    wire::GetYieldsResponse {
        outcomes: yields.outcomes.iter().map(|(name, runs)| outcome((*name, runs))).collect(),
        units: Some(tries(yields.units())),
        first: Some(tries(yields.first)),
        retests: Some(tries(yields.retests)),
        reworks: Some(tries(yields.reworks)),
        pareto: yields.pareto().into_iter().take(WAYS).map(|(loss, lost)| self::loss(loss, lost)).collect(),
        cycle_times: steps.chain(runs).collect(),
        bottleneck,
        bottleneck_share,
        left_out: survey.left_out as u64,
    }
}

fn tries(tries: Tries) -> wire::Tries {
    wire::Tries { runs: tries.runs, passed: tries.passed }
}

fn loss(loss: &Loss, lost: &Lost) -> wire::Loss {
    wire::Loss {
        outcome: super::outcome(loss.outcome),
        step: loss.step.map_or_else(String::new, |step| step.to_string()),
        cause: loss.cause.clone(),
        runs: lost.runs,
        units: lost.units,
        example: lost.example.clone(),
    }
}

fn cycle(step: &str, nest: &str, times: &Times) -> wire::CycleTime {
    // Longer than the wire can say is longer than any unit was ever made.
    let wire = |took: Duration| took.try_into().ok();
    wire::CycleTime {
        step: step.to_owned(),
        nest: nest.to_owned(),
        count: times.count() as u64,
        median: wire(times.percentile(50)),
        percentile_95: wire(times.percentile(95)),
        longest: wire(times.longest()),
    }
}
