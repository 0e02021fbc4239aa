use std::{collections::BTreeMap, time::UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::{
    books::Books,
    record::{Checkpoint, Record, RunId},
};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn here() -> NestName {
    "line-1".parse().unwrap()
}

/// Number `issued`, of so many units, for so long.
fn allowance(issued: u64, units: u32, life: u64) -> Allowance {
    let id = Uuid::from_u128(issued.into());
    Allowance { id, station: here(), units, issued: at(issued), expires: at(issued + life) }
}

fn granted(allowance: &Allowance, time: SystemTime) -> BudgetGranted {
    let Allowance { id, units, issued, expires, .. } = *allowance;
    BudgetGranted { id, units, issued, expires, time, by: "a test".to_owned(), signed: String::new() }
}

/// Number 1000, 2 units, until 2000, and how many of them were taken.
fn budget(taken: u32) -> Budget {
    let mut budget = Budget::default();
    budget.granted(granted(&allowance(1000, 2, 1000), at(1000)));
    for _ in 0..taken {
        budget.take(at(1000)).unwrap();
    }
    budget
}

#[test]
fn a_station_without_an_allowance_starts_nothing() {
    assert_eq!(Budget::default().take(at(1)), Err(Exhausted::None));
    assert_eq!(Budget::default().left(at(1)), Left::default());
}

#[test]
fn an_allowance_ends_with_its_last_unit_or_its_last_second() {
    let check = |taken, now, left: u32, error: &str| {
        let mut budget = budget(taken);
        assert_eq!(budget.left(at(now)).left, left, "{taken} {now}");
        match budget.take(at(now)) {
            Ok(_) => assert_eq!(error, "", "{taken} {now}"),
            Err(exhausted) => {
                let told = exhausted.to_string();
                assert!(!error.is_empty() && told.contains(error), "{told} does not say {error:?}");
            }
        }
        assert_eq!(budget.left(at(now)).left, left.saturating_sub(1), "{taken} {now}");
    };
    check(0, 1000, 2, "");
    check(1, 2000, 1, "");
    check(2, 1500, 0, "all 2 units of offline allowance 00000000-0000-0000-0000-0000000003e8 are used up");
    check(0, 2001, 0, "expired at 1970-01-01T00:33:20Z, and it is 1970-01-01T00:33:21Z");
    // Clocks differ a little; beyond that this one is wrong.
    check(0, 700, 2, "");
    check(0, 699, 0, "set the station's clock right");
}

#[test]
fn only_a_newer_allowance_for_this_station_and_this_time_comes_into_force() {
    let check =
        |allowance: Allowance, now, expected: &str| match budget(1).is_new(&allowance, &here(), at(now)) {
            Ok(new) => assert_eq!(if new { "new" } else { "known" }, expected),
            Err(error) => assert!(error.to_string().contains(expected), "{error} does not say {expected:?}"),
        };
    check(allowance(1001, 5, 100), 1050, "new");
    check(allowance(1000, 2, 1000), 1050, "known");
    // It changes nothing, so it does not matter that it is over.
    check(allowance(1000, 2, 1000), 5000, "known");
    check(allowance(1000, 3, 1000), 1050, "known here with other contents");
    check(allowance(999, 5, 1000), 1050, "not after the one that this station had last");
    check(Allowance { id: Uuid::max(), ..allowance(1000, 2, 1000) }, 1050, "not after the one");
    check(allowance(1001, 5, 100), 1102, "expired at");
    check(allowance(2000, 5, 100), 1050, "see to the clocks");
    check(allowance(1300, 5, 100), 1000, "new");
    let other = Allowance { station: "line-2".parse().unwrap(), ..allowance(1001, 5, 100) };
    check(other, 1050, "is for station line-2, this is line-1");
}

#[test]
fn a_new_allowance_does_not_add_to_the_old_one() {
    let mut budget = budget(1);
    budget.granted(granted(&allowance(1500, 3, 100), at(1500)));
    assert_eq!(budget.left(at(1500)).left, 3);
    // A run whose record came later than the new allowance is none of its own.
    budget.started(&run(1, Uuid::from_u128(1000)));
    assert_eq!(budget.left(at(1500)).left, 3);
}

fn run(number: u128, allowance: Uuid) -> RunOpened {
    RunOpened {
        run: RunId::of_command(Uuid::from_u128(number)),
        order: Some("order-1".parse().unwrap()),
        serial: format!("SN{number}").parse().unwrap(),
        nest: "nest-1".parse().unwrap(),
        allowed: Some(AllowedBy::Budget(allowance)),
        ..RunOpened::made_up()
    }
}

/// What may happen to a station.
#[derive(Debug, Clone)]
enum Event {
    /// The MES signs an allowance by its own clock and the station is brought it.
    Grant { units: u32, life: u64 },
    /// Somebody brings an old one once more, the n-th from the end.
    Replay(usize),
    /// A unit is to be started.
    Start,
    /// A unit is counted, and the station ends before its record is durable.
    Torn,
    /// The station ends and reads its journal.
    Restart,
    /// A checkpoint is made, the station ends, and starts from that.
    Checkpoint,
    /// Time goes by.
    Pass(u64),
    /// Somebody sets the station's clock back.
    SetBack(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1_u32..6, 1_u64..2000).prop_map(|(units, life)| Event::Grant { units, life }),
        1 => (0_usize..4).prop_map(Event::Replay),
        8 => Just(Event::Start),
        1 => Just(Event::Torn),
        1 => Just(Event::Restart),
        1 => Just(Event::Checkpoint),
        2 => (1_u64..800).prop_map(Event::Pass),
        1 => (1_u64..3000).prop_map(Event::SetBack),
    ]
}

/// A station and its journal: as the daemon does it, less the files.
#[derive(Default)]
struct Station {
    journal: Vec<Record>,
    newest: u64,
    budget: Budget,
    issued: Vec<Allowance>,
    starts: Vec<(Uuid, u64)>,
}

impl Station {
    fn now(&self, clock: u64) -> u64 {
        clock.max(self.newest)
    }

    fn append(&mut self, record: Record, clock: u64) {
        self.newest = self.newest.max(clock);
        self.journal.push(record);
    }

    fn bring(&mut self, allowance: &Allowance, clock: u64) {
        let now = at(self.now(clock));
        if self.budget.is_new(allowance, &here(), now) == Ok(true) {
            let granted = granted(allowance, now);
            self.append(Record::BudgetGranted(granted.clone()), clock);
            self.budget.granted(granted);
        }
    }

    fn start(&mut self, clock: u64, durable: bool) {
        let now = self.now(clock);
        if let Ok(allowance) = self.budget.take(at(now))
            && durable
        {
            self.starts.push((allowance, now));
            let number = self.starts.len() as u128;
            self.append(Record::RunOpened(run(number, allowance)), clock);
        }
    }

    fn restart(&mut self, checkpoint: bool) {
        let mut books = Books::default();
        self.journal.iter().for_each(|record| books.learn(record.clone()).unwrap());
        if checkpoint {
            let bytes = minicbor::to_vec(books.checkpoint(1.into())).unwrap();
            let checkpoint: Checkpoint = minicbor::decode(&bytes).unwrap();
            let open = checkpoint.open.clone();
            books = Books::at(checkpoint);
            for record in &self.journal {
                if record.run().is_some_and(|run| open.contains(&run.to_string())) {
                    books.learn(record.clone()).unwrap();
                }
            }
        }
        self.budget = books.budget;
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_unit_is_started_beyond_an_allowance_or_after_it(
        events in proptest::collection::vec(event(), 0..60)
    ) {
        let (mut station, mut mes_clock, mut set_back) = (Station::default(), 10_000_u64, 0_u64);
        for event in events {
            let clock = mes_clock.saturating_sub(set_back);
            match event {
                Event::Grant { units, life } => {
                    // An MES issues no two in one second.
                    mes_clock += 1;
                    let allowance = allowance(mes_clock, units, life);
                    station.issued.push(allowance.clone());
                    station.bring(&allowance, clock);
                }
                Event::Replay(back) => {
                    if let Some(allowance) = station.issued.iter().rev().nth(back).cloned() {
                        station.bring(&allowance, clock);
                    }
                }
                Event::Start => station.start(clock, true),
                Event::Torn => {
                    station.start(clock, false);
                    station.restart(false);
                }
                Event::Restart => station.restart(false),
                Event::Checkpoint => station.restart(true),
                Event::Pass(seconds) => mes_clock += seconds,
                Event::SetBack(seconds) => set_back += seconds,
            }
        }
        let mut used: BTreeMap<Uuid, u32> = BTreeMap::new();
        for (allowance, time) in &station.starts {
            *used.entry(*allowance).or_default() += 1;
            let issued = station.issued.iter().find(|it| it.id == *allowance).unwrap();
            prop_assert!(at(*time) <= issued.expires);
        }
        for allowance in &station.issued {
            prop_assert!(used.get(&allowance.id).copied().unwrap_or_default() <= allowance.units);
        }
        // And what is left is what a restart finds, exactly.
        let now = at(station.newest);
        let left = station.budget.left(now);
        for checkpoint in [false, true] {
            station.restart(checkpoint);
            prop_assert_eq!(station.budget.left(now), left.clone());
        }
    }

    #[test]
    fn every_unit_of_an_allowance_can_be_started(units in 1_u32..50) {
        let mut budget = Budget::default();
        budget.granted(granted(&allowance(1000, units, 10), at(1000)));
        let started = (0..100).filter(|_| budget.take(at(1005)).is_ok()).count();
        prop_assert_eq!(started, units as usize);
    }
}
