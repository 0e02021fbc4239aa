use std::time::SystemTime;

use factory_proto::units::{Limits, Quantity};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::record::{FccAnswer, Findings, Measurement, RunId, RunOpened, Stopped};

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn run(serial: &str, nest: &str, outcome: Outcome) -> RunClosed {
    let opened = RunOpened {
        run: RunId::of_command(Uuid::nil()),
        order: Some("order-1".parse().unwrap()),
        serial: serial.parse().unwrap(),
        nest: nest.parse().unwrap(),
        recipe_digest: [0; 32],
        started: time(0),
        values: crate::recipe::template::Values::default(),
        allowed: None,
        golden: None,
    };
    let stopped = (outcome != Outcome::Pass)
        .then(|| Stopped { step: Some(Step::Tag), reason: format!("unit {serial} has no tag") });
    RunClosed { opened, ended: time(60), outcome, stopped, findings: Findings::default(), quarantine: None }
}

fn outcome(letter: char) -> Outcome {
    match letter {
        'P' => Outcome::Pass,
        'F' => Outcome::Fail,
        'E' => Outcome::Error,
        'T' => Outcome::Timeout,
        'A' => Outcome::Aborted,
        other => unreachable!("no outcome has the letter {other:?}"),
    }
}

/// A story is units by a digit, each followed by how its run ended; `R` is rework. As in `1F 1R 1P`.
fn after(story: &str) -> Yields {
    let mut yields = Yields::default();
    let mut pasts: HashMap<&str, Past> = HashMap::new();
    for word in story.split_whitespace() {
        let (serial, end) = word.split_at(1);
        let past = pasts.entry(serial).or_default();
        if end == "R" {
            *past = Past::Reworked;
            continue;
        }
        let outcome = outcome(end.chars().next().unwrap());
        yields.learn(&run(serial, "nest-1", outcome), *past);
        match outcome {
            Outcome::Pass => *past = Past::Passed,
            Outcome::Fail => *past = Past::Failed,
            _ => {}
        }
    }
    yields
}

#[test]
fn only_what_says_something_of_the_product_counts() {
    let check =
        |story: &str, first: (u64, u64), retests: (u64, u64), reworks: (u64, u64), units: (u64, u64)| {
            let yields = after(story);
            let kinds = [yields.first, yields.retests, yields.reworks, yields.units()];
            let seen = kinds.map(|tries| (tries.passed, tries.runs));
            assert_eq!(seen, [first, retests, reworks, units], "{story}");
        };
    let none = (0, 0);
    check("", none, none, none, none);
    check("1P", (1, 1), none, none, (1, 1));
    check("1F", (0, 1), none, none, (0, 1));
    check("1E 1T 1A", none, none, none, none);
    check("1E 1P", (1, 1), none, none, (1, 1));
    check("1F 1P", (0, 1), (1, 1), none, (1, 1));
    check("1F 1E 1F 1P", (0, 1), (1, 2), none, (1, 1));
    check("1F 1R 1P", (0, 1), none, (1, 1), (1, 1));
    check("1F 1R 1E 1F 1P", (0, 1), (1, 1), (0, 1), (1, 1));
    check("1F 1R", (0, 1), none, none, (0, 1));
    check("1P 2F 3P 2P 4F", (2, 4), (1, 1), none, (3, 4));
}

#[test]
fn what_costs_most_runs_comes_first() {
    let yields = after("1F 2F 2F 3T 4P 5E");
    let pareto: Vec<_> = yields
        .pareto()
        .into_iter()
        .map(|(loss, lost)| (loss.outcome, lost.runs, lost.units, lost.example.as_str()))
        .collect();
    let wanted = [
        (Outcome::Fail, 3, 2, "unit 2 has no tag"),
        (Outcome::Error, 1, 1, "unit 5 has no tag"),
        (Outcome::Timeout, 1, 1, "unit 3 has no tag"),
    ];
    assert_eq!(pareto, wanted);
    assert!(yields.pareto().iter().all(|(loss, _)| loss.cause == "unit … has no tag"));
}

#[test]
fn a_loss_is_named_by_what_was_measured_or_answered() {
    let causes =
        |closed: &RunClosed| cause::losses(closed).into_iter().map(|loss| loss.cause).collect::<Vec<_>>();
    let volts = |text: &str| text.parse::<Quantity>().unwrap();
    let measured = |name: &str, value: &str| Measurement {
        name: name.to_owned(),
        value: volts(value),
        limits: Limits::new(volts("1mV"), volts("9mV")).unwrap(),
    };
    let mut closed = run("1", "nest-1", Outcome::Fail);
    closed.stopped = Some(Stopped { step: Some(Step::SelfTest), reason: "a is 10mV".to_owned() });
    assert_eq!(causes(&closed), ["a is …"]);
    closed.findings.measurements = vec![measured("a", "10mV"), measured("b", "5mV"), measured("c", "0mV")];
    assert_eq!(causes(&closed), ["a beyond its limits", "c beyond its limits"]);

    closed.stopped = Some(Stopped { step: Some(Step::Provision), reason: "refused".to_owned() });
    let answer = |return_status| FccAnswer {
        session: String::new(),
        return_status,
        info: String::new(),
        warnings: Vec::new(),
        sent: None,
    };
    closed.findings.fcc_answers = vec![answer(Some(0)), answer(Some(17))];
    assert_eq!(causes(&closed), ["the device answered with status 17"]);
    closed.findings.fcc_answers = vec![answer(Some(0))];
    assert_eq!(causes(&closed), ["refused"]);
    closed.stopped = None;
    assert!(causes(&closed).is_empty());
}

#[test]
fn steps_are_timed_by_nest_and_the_longest_holds_the_line_up() {
    let step = |step, from, to, outcome| StepEnded { step, started: time(from), ended: time(to), outcome };
    let mut yields = Yields::default();
    assert_eq!(yields.bottleneck(), None);
    let mut one = run("1", "nest-1", Outcome::Pass);
    one.findings.steps = vec![step(Step::Flash, 0, 6, Outcome::Pass), step(Step::Boot, 6, 8, Outcome::Pass)];
    yields.learn(&one, Past::New);
    let mut other = run("2", "nest-2", Outcome::Fail);
    // The second began when the clock was set back.
    other.findings.steps =
        vec![step(Step::Flash, 0, 2, Outcome::Fail), step(Step::Boot, 9, 2, Outcome::Pass)];
    yields.learn(&other, Past::New);

    let steps: Vec<_> =
        yields.steps.iter().map(|((step, nest), times)| (*step, nest.as_str(), times.longest())).collect();
    let wanted = [(Step::Flash, "nest-1", time(6)), (Step::Boot, "nest-1", time(2))];
    let wanted = wanted.map(|(step, nest, took)| (step, nest, took.duration_since(time(0)).unwrap()));
    assert_eq!(steps, wanted);
    assert_eq!(yields.bottleneck(), Some((Step::Flash, 0.8)));
    assert_eq!(yields.runs.values().map(Times::count).collect::<Vec<_>>(), [1]);
}

proptest! {
    #[test]
    fn every_counting_run_is_of_one_kind_and_a_unit_has_one_first(story in "([1-4][PFETAR] ){0,30}") {
        let yields = after(&story);
        let counting = |letters: &str| story.split_whitespace().filter(|word| letters.contains(&word[1..])).count() as u64;
        let kinds = [yields.first, yields.retests, yields.reworks];
        prop_assert_eq!(kinds.iter().map(|tries| tries.runs).sum::<u64>(), counting("PF"));
        prop_assert_eq!(kinds.iter().map(|tries| tries.passed).sum::<u64>(), counting("P"));
        prop_assert!(yields.first.runs <= yields.units().runs);
        prop_assert_eq!(yields.outcomes.values().sum::<u64>(), counting("PFETA"));
        let lost: u64 = yields.pareto().iter().map(|(_, lost)| lost.runs).sum();
        prop_assert_eq!(lost, counting("FETA"));
    }
}
