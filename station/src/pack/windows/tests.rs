use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    pack::Percent,
    record::{Findings, PackRule, RunOpened, Stopped},
    step::Step,
};

const RULE: Rule = Rule { window: 40, least_units: 4, least_failures: 3, ..Rule::USUAL };
const SURE: Rule = Rule { significance: Percent(1.0), ..RULE };

fn run(nest: &str, recipe: u8, outcome: Outcome) -> RunClosed {
    let opened = RunOpened {
        run: RunId::of_command(Uuid::nil()),
        order: Some("order-1".parse().unwrap()),
        serial: "SN1".parse().unwrap(),
        nest: nest.parse().unwrap(),
        recipe_digest: [recipe; 32],
        ..RunOpened::made_up()
    };
    let stopped = (outcome != Outcome::Pass)
        .then(|| Stopped { step: Some(Step::SelfTest), reason: format!("no answer within 5s in {nest}") });
    let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    RunClosed { opened, ended, outcome, stopped, findings: Findings::default(), quarantine: None }
}

/// A line in the making: each unit is the next record.
struct Line {
    windows: Windows,
    last: u64,
}

impl Line {
    fn of(rule: Rule) -> Self {
        Self { windows: Windows::new(rule), last: 0 }
    }

    fn close(&mut self, closed: &RunClosed, past: Past) {
        self.last += 1;
        if let Some(tried) = Tried::of(closed, past) {
            self.windows.learn(self.last.into(), tried);
        }
    }

    fn make(&mut self, nest: &str, failed: bool) {
        self.close(&run(nest, 0, if failed { Outcome::Fail } else { Outcome::Pass }), Past::New);
    }

    /// A story is units in their order: the nest's letter, small if the unit failed.
    fn tell(&mut self, story: &str) {
        for letter in story.chars() {
            self.make(&letter.to_ascii_uppercase().to_string(), letter.is_ascii_lowercase());
        }
    }

    fn left(&self, nest: &str) -> Option<&NestLeftPack> {
        self.windows.left(&nest.parse().unwrap())
    }

    fn anew(&mut self, nest: &str) {
        self.last += 1;
        self.windows.begin_anew(&nest.parse().unwrap(), self.last.into());
    }
}

fn after(story: &str) -> Line {
    let mut line = Line::of(SURE);
    line.tell(story);
    line
}

#[test]
fn a_nest_leaves_with_the_failure_that_makes_it_clear_and_says_why() {
    let mut line = after(&"ABC".repeat(10));
    line.tell("aBCaBCaBCaBC");
    assert_eq!(line.left("A"), None);
    line.tell("a");
    let left = line.left("A").unwrap();
    let figures = (left.units, left.failed, left.other_units, left.other_failed);
    assert_eq!(figures, (15, 5, 28, 0));
    let PackRule::Others(chance) = left.rule else { panic!("{left:?}") };
    // All five failures among its 15 of 43 units.
    assert!((chance - 3003.0 / 962_598.0).abs() < 1e-12, "{chance}");
    assert_eq!(
        left.to_string(),
        "5 of its newest 15 units failed, 0 of 28 in the other nests meanwhile, p = 3.1e-3; most often self-test: no \
         answer within … in A (5 of 5); see to the nest's fixture, as to its contacts, then `stationctl nest enable A`"
    );
    // The others have not left, and with a unit that passes nobody does.
    assert!(line.left("B").is_none() && line.left("C").is_none() && line.left("Z").is_none());
    line.tell("A");
    assert_eq!(line.left("A"), None);
}

#[test]
fn what_is_wrong_with_the_product_is_not_the_nests() {
    let check = |story: &str, is_left: bool| assert_eq!(after(story).left("A").is_some(), is_left, "{story}");
    check(&"aBC".repeat(9), true);
    // All fail alike, from the beginning or suddenly.
    check(&"abc".repeat(9), false);
    check(&("ABC".repeat(9) + &"abc".repeat(9)), false);
    // The others made good units before, but none of these.
    check(&("BC".repeat(15) + &"a".repeat(15)), false);
    // Alone there is nothing to compare with.
    check(&"a".repeat(30), false);
    check(&("A".repeat(30) + &"a".repeat(30)), false);
}

#[test]
fn a_limit_holds_for_a_nest_alone_and_for_all_of_them() {
    let mut line = Line::of(Rule { max_failure_rate: Some(Percent(50.0)), ..RULE });
    line.tell("AaAa");
    assert_eq!(line.left("A"), None);
    line.tell("a");
    let left = line.left("A").unwrap();
    assert_eq!((left.units, left.failed, left.rule), (5, 3, PackRule::Limit(0.5)));
    assert!(left.to_string().starts_with("3 of its newest 5 units failed, more than 50.0%; "), "{left}");
    line.tell("bbbb");
    assert!(line.left("B").is_some());

    // Of the newest units, and of no others.
    let mut line = Line::of(Rule { window: 10, max_failure_rate: Some(Percent(50.0)), ..RULE });
    line.tell(&("A".repeat(30) + "aaaaa"));
    assert_eq!(line.left("A"), None);
    line.tell("a");
    assert_eq!(line.left("A").map(|left| (left.units, left.failed)), Some((10, 6)));
}

#[test]
fn only_the_first_run_of_a_unit_says_something_of_its_nest() {
    let mut line = after(&"ABC".repeat(10));
    for _ in 0..9 {
        line.close(&run("A", 0, Outcome::Fail), Past::Failed);
        line.close(&run("A", 0, Outcome::Fail), Past::Reworked);
        for outcome in [Outcome::Error, Outcome::Timeout, Outcome::Aborted] {
            line.close(&run("A", 0, outcome), Past::New);
        }
        line.tell("BC");
    }
    let mut golden = run("A", 0, Outcome::Fail);
    golden.opened.golden = Some("sensor".parse().unwrap());
    (0..9).for_each(|_| line.close(&golden, Past::New));
    assert_eq!(line.left("A"), None);
    line.tell("aaaa");
    let left = line.left("A").unwrap();
    assert_eq!((left.units, left.failed), (14, 4));
}

#[test]
fn nests_that_make_something_else_are_no_others() {
    let mut line = Line::of(SURE);
    for _ in 0..20 {
        line.close(&run("A", 1, Outcome::Fail), Past::New);
        line.tell("BC");
    }
    assert_eq!(line.left("A"), None);
    for _ in 0..9 {
        line.close(&run("B", 1, Outcome::Pass), Past::New);
        line.close(&run("A", 1, Outcome::Fail), Past::New);
    }
    let left = line.left("A").unwrap();
    assert_eq!((left.units, left.failed, left.other_units, left.other_failed), (29, 29, 9, 0));
}

#[test]
fn nothing_is_looked_at_when_it_is_switched_off() {
    let mut line = Line::of(Rule { parks: false, max_failure_rate: Some(Percent(1.0)), ..SURE });
    line.tell(&"aBC".repeat(30));
    assert!(line.left("A").is_none() && line.windows.nests.is_empty());
}

/// Units of the other nests between two of nest A, and whether that one fails.
fn stories() -> impl Strategy<Value = Vec<(Vec<char>, bool)>> {
    let others = proptest::collection::vec(proptest::sample::select(vec!['B', 'C', 'D', 'b', 'c']), 0..3);
    proptest::collection::vec((others, proptest::bool::weighted(0.6)), 0..40)
}

fn told(story: &[(Vec<char>, bool)]) -> String {
    story
        .iter()
        .flat_map(|(others, bad)| others.iter().copied().chain([if *bad { 'a' } else { 'A' }]))
        .collect()
}

proptest! {
    #[test]
    fn a_nest_that_fails_no_more_than_the_others_never_leaves(story in stories()) {
        let mut line = Line::of(SURE);
        for letter in told(&story).chars() {
            line.tell(&letter.to_string());
            let nest = letter.to_ascii_uppercase().to_string();
            if let Some(left) = line.left(&nest) {
                prop_assert!(letter.is_ascii_lowercase());
                prop_assert!(left.failed * left.other_units > left.other_failed * left.units, "{:?}", left);
            }
        }
    }

    #[test]
    fn in_which_order_the_others_made_their_units_and_in_which_nests_does_not_matter(
        story in stories(), turn in 0..3_usize
    ) {
        let mut other = story.clone();
        for (others, _) in &mut other {
            let turn = turn.min(others.len());
            others.rotate_left(turn);
            others.iter_mut().for_each(|it| *it = if it.is_ascii_lowercase() { 'e' } else { 'E' });
        }
        // One nest holds as much as the three did.
        let rule = Rule { window: 1000, ..SURE };
        let [mut these, mut those] = [Line::of(rule), Line::of(rule)];
        these.tell(&told(&story));
        those.tell(&told(&other));
        prop_assert_eq!(these.left("A"), those.left("A"));
    }

    #[test]
    fn who_begins_anew_is_as_one_that_has_just_begun(before in stories(), since in stories()) {
        let mut line = Line::of(SURE);
        line.tell(&told(&before));
        line.anew("A");
        prop_assert_eq!(line.left("A"), None);
        line.tell(&told(&since));
        // The others' newest units are what they were made since its first.
        let mut fresh = Line::of(SURE);
        fresh.tell(&told(&since));
        prop_assert_eq!(line.left("A"), fresh.left("A"));
    }
}

/// Numbers that look drawn, the same in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn falls(&mut self, chance: f64) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((mixed ^ (mixed >> 31)) >> 11) as f64) < chance * (1_u64 << 53) as f64
    }
}

const UNITS_A_MONTH: usize = 15_000;

/// Nests that take turns, each failing so often.
struct Shift {
    line: Line,
    dice: Dice,
    /// How each nest's units end.
    ends: Vec<[RunClosed; 2]>,
}

impl Shift {
    fn of(nests: usize, seed: u64) -> Self {
        let ends = |nest: usize| [Outcome::Pass, Outcome::Fail].map(|end| run(&format!("n{nest}"), 0, end));
        Self { line: Line::of(Rule::USUAL), dice: Dice(seed), ends: (0..nests).map(ends).collect() }
    }

    /// One unit of a nest: whether it left with it.
    fn make(&mut self, nest: usize, rate: f64) -> bool {
        let closed = &self.ends[nest][usize::from(self.dice.falls(rate))];
        self.line.close(closed, Past::New);
        self.line.windows.left(&closed.opened.nest).is_some()
    }

    /// How often nests that are alike leave in a month; each begins anew then.
    fn false_alarms(&mut self, rate: f64) -> usize {
        let mut alarms = 0;
        let nests = self.ends.len();
        for nest in (0..UNITS_A_MONTH).flat_map(|_| 0..nests) {
            if self.make(nest, rate) {
                alarms += 1;
                self.line.anew(&format!("n{nest}"));
            }
        }
        alarms
    }

    /// After how many units a nest leaves that has become bad among good ones.
    fn delay(&mut self, good: f64, bad: f64) -> usize {
        let nests = self.ends.len();
        for nest in (0..200).flat_map(|_| 0..nests) {
            self.make(nest, good);
        }
        for units in 1.. {
            if self.make(0, bad) {
                return units;
            }
            for nest in 1..nests {
                self.make(nest, good);
            }
        }
        unreachable!("it leaves some time")
    }
}

/// The figures of `Rule::USUAL`. With `PACK_MONTHS=60` and `--nocapture` they are what README has.
#[test]
fn the_usual_figures_park_no_good_nest_and_a_bad_one_soon() {
    let months: u64 = std::env::var("PACK_MONTHS").map_or(1, |months| months.parse().unwrap());
    for rate in [0.02, 0.2] {
        let alarms: usize = (0..months).map(|month| Shift::of(8, month).false_alarms(rate)).sum();
        println!("8 nests that fail {rate} of 15 000 units a month each: {alarms} parked in {months} months");
        assert!(alarms as f64 <= 0.3 * months as f64, "{alarms} in {months} months at {rate}");
    }
    let check = |nests: usize, bad: f64, at_most: usize| {
        let mut delays: Vec<usize> = (0..50).map(|seed| Shift::of(nests, seed).delay(0.02, bad)).collect();
        delays.sort_unstable();
        println!(
            "{nests} nests, one fails {bad}, the others 0.02: {} units, 95%: {}",
            delays[25], delays[47]
        );
        assert!(delays[25] <= at_most, "{nests} nests, {bad}: {delays:?}");
    };
    check(8, 1.0, 12);
    check(8, 0.5, 26);
    check(8, 0.2, 65);
    check(2, 1.0, 22);
    check(2, 0.5, 45);
}
