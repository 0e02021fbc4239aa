use std::time::{Duration, UNIX_EPOCH};

use factory_journal::{Journal, Options};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    record::{Findings, Record, RunClosed, RunId, RunOpened, Stopped},
    step::Step,
};

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 3600;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn rule(shift_ends: &[&str]) -> Rule {
    let units = [("GOLDEN-1", "sensor"), ("GOLDEN-2", "sensor")];
    Rule {
        required: true,
        units: units.map(|(serial, recipe)| (serial.parse().unwrap(), recipe.parse().unwrap())).into(),
        shift_ends: shift_ends.iter().map(|end| end.parse().unwrap()).collect(),
    }
}

fn run(serial: &str, golden: bool) -> RunOpened {
    RunOpened {
        run: RunId::of_command(Uuid::nil()),
        order: (!golden).then(|| "WO-1".parse().unwrap()),
        serial: serial.parse().unwrap(),
        nest: "A".parse().unwrap(),
        golden: golden.then(|| "sensor".parse().unwrap()),
        ..RunOpened::made_up()
    }
}

fn closed(opened: RunOpened, ended: SystemTime, outcome: Outcome) -> RunClosed {
    let reason = "rail-3v3 is 3600mV".to_owned();
    let stopped = (outcome != Outcome::Pass).then_some(Stopped { step: Some(Step::SelfTest), reason });
    RunClosed { opened, ended, outcome, stopped, findings: Findings::default(), quarantine: None }
}

fn tried(seconds: u64, outcome: Outcome) -> GoldenTried {
    GoldenTried::by(&closed(run("GOLDEN-1", true), at(seconds), outcome)).unwrap()
}

#[test]
fn what_is_due_says_since_when_why_and_what_to_do() {
    let rule = rule(&["06:00", "14:00"]);
    let noon = 10 * DAY + 12 * 3600;
    let check = |last: Option<GoldenTried>, since: u64, reason: &str| {
        let due = rule.due(last.as_ref(), at(noon)).expect(reason);
        assert_eq!(due.since, at(since), "{reason}");
        let to_do =
            "; lay GOLDEN-1 or GOLDEN-2 in, and start it as golden unit (StartGoldenUnit, stationctl golden)";
        assert_eq!(due.reason, format!("{reason}{to_do}"));
    };
    let begin = 10 * DAY + 6 * 3600;
    let none = "none has passed there since the shift began at 1970-01-11T06:00:00Z";
    check(None, begin, none);
    check(Some(tried(begin - 1, Outcome::Pass)), begin, none);
    check(Some(tried(begin - 1, Outcome::Fail)), begin, none);
    // The clock was wrong then, or is now.
    check(Some(tried(noon + DAY, Outcome::Pass)), begin, none);
    let failed =
        "golden unit GOLDEN-1 ended there with FAIL (self-test: rail-3v3 is 3600mV): see to the fixture";
    check(Some(tried(begin + 9, Outcome::Fail)), begin + 9, failed);
    let retired = GoldenTried { serial: "GOLDEN-3".parse().unwrap(), ..tried(begin, Outcome::Pass) };
    check(Some(retired), begin, none);
    assert_eq!(rule.due(Some(&tried(begin, Outcome::Pass)), at(noon)), None);
}

#[test]
fn a_golden_unit_that_was_aborted_and_a_product_show_nothing() {
    let by = |golden, outcome| GoldenTried::by(&closed(run("GOLDEN-1", golden), at(1), outcome));
    assert_eq!(by(true, Outcome::Aborted), None);
    for outcome in [Outcome::Pass, Outcome::Fail, Outcome::Error, Outcome::Timeout] {
        assert_eq!(by(true, outcome).map(|tried| tried.outcome), Some(outcome));
        assert_eq!(by(false, outcome), None);
    }
}

#[tokio::test]
async fn what_was_golden_once_never_becomes_a_product_nor_the_other_way_round() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::open(folder.path(), Options::default()).unwrap());
    let golden = Golden::new(rule(&["06:00"]), Units::new(journal.clone()), BTreeMap::new());
    let serial = |serial: &str| serial.parse::<Serial>().unwrap();
    let may =
        |name: &str| (golden.recipe(&serial(name)).is_ok(), golden.check_product(&serial(name)).is_ok());
    assert_eq!((may("GOLDEN-1"), may("SN0001")), ((true, false), (false, true)));
    // By an older station file.
    for opened in [run("GOLDEN-2", false), run("SN0002", true)] {
        journal.append(Record::RunOpened(opened)).await.unwrap();
    }
    assert!(matches!(golden.recipe(&serial("GOLDEN-2")), Err(GoldenError::Product(_))));
    assert_eq!((may("GOLDEN-2"), may("SN0002")), ((false, false), (false, false)));
}

/// When the shift began, by looking at the clock each minute back in time.
fn begin(ends: &[u64], now: u64) -> Option<u64> {
    let minutes = (0..=DAY / MINUTE).map(|back| now / MINUTE * MINUTE - back * MINUTE);
    minutes.into_iter().find(|minute| ends.contains(&(minute % DAY / MINUTE)))
}

proptest! {
    #[test]
    fn a_nest_is_due_until_the_last_golden_unit_of_the_shift_has_passed(
        ends in prop::collection::vec(0..DAY / MINUTE, 0..5),
        now in 10 * DAY..12 * DAY,
        runs in prop::collection::vec((0..2 * DAY, "[PFETA]"), 0..6),
        required: bool,
    ) {
        let written: Vec<String> =
            ends.iter().map(|minutes| format!("{:02}:{:02}", minutes / 60, minutes % 60)).collect();
        let written: Vec<&str> = written.iter().map(String::as_str).collect();
        let rule = Rule { required, ..rule(&written) };
        let mut runs: Vec<(u64, Outcome)> = runs
            .iter()
            .map(|(ago, letter)| (now - ago, match letter.as_str() {
                "P" => Outcome::Pass,
                "F" => Outcome::Fail,
                "E" => Outcome::Error,
                "T" => Outcome::Timeout,
                _ => Outcome::Aborted,
            }))
            .collect();
        runs.sort_by_key(|(ended, _)| *ended);
        let mut last = None;
        for (ended, outcome) in &runs {
            last = GoldenTried::by(&closed(run("GOLDEN-1", true), at(*ended), *outcome)).or(last);
        }
        let due = rule.due(last.as_ref(), at(now));

        let since = begin(&ends, now).filter(|_| required);
        let counts = |(ended, outcome): &&(u64, Outcome)| {
            *outcome != Outcome::Aborted && since.is_some_and(|begin| *ended >= begin)
        };
        let shown = runs.iter().rev().find(counts);
        let proven = shown.is_some_and(|(_, outcome)| *outcome == Outcome::Pass);
        prop_assert_eq!(due.is_some(), since.is_some() && !proven);
        if let (Some(due), Some(begin)) = (&due, since) {
            prop_assert_eq!(due.since, at(shown.map_or(begin, |(ended, _)| *ended)));
        }
    }

    #[test]
    fn a_nest_that_has_passed_one_is_free_to_the_end_of_its_shift_and_no_longer(
        end in 0..DAY / MINUTE, passed in 10 * DAY..12 * DAY, later in 0..DAY
    ) {
        let rule = rule(&[&format!("{:02}:{:02}", end / 60, end % 60)]);
        let last = tried(passed, Outcome::Pass);
        let ends = shift::next(&rule.shift_ends, at(passed)).unwrap();
        prop_assert!(rule.due(Some(&last), at(passed)).is_none());
        prop_assert!(rule.due(Some(&last), ends - Duration::from_secs(1)).is_none());
        prop_assert!(rule.due(Some(&last), ends + Duration::from_secs(later)).is_some());
    }
}
