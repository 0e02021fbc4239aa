use std::time::SystemTime;

use factory_proto::{disposition::Disposition, outcome::Outcome};
use proptest::prelude::*;

use super::*;
use crate::{
    record::{
        Findings, IssuanceAsked, Quarantine, Record, RunClosed, RunId, RunOpened, UnitDisposed, UnitReleased,
    },
    signer::Reckoned,
};

fn order() -> OrderId {
    "WO-1".parse().unwrap()
}

fn run(order: &str, number: u128) -> RunOpened {
    RunOpened {
        run: RunId::of_command(Uuid::from_u128(number)),
        order: Some(order.parse().unwrap()),
        serial: "SN1".parse().unwrap(),
        nest: "A".parse().unwrap(),
        ..RunOpened::made_up()
    }
}

fn closed(order: &str, number: u128, outcome: Outcome, aside: bool) -> Record {
    let quarantine = Quarantine { reason: "it is not known".to_owned(), remedy: "look".to_owned() };
    Record::RunClosed(Box::new(RunClosed {
        opened: run(order, number),
        ended: SystemTime::UNIX_EPOCH,
        outcome,
        stopped: None,
        findings: Findings::default(),
        quarantine: aside.then_some(quarantine),
    }))
}

fn asked(order: &str, number: u128, issuance: u128, supersedes: Option<u128>) -> Record {
    Record::IssuanceAsked(IssuanceAsked {
        run: run(order, number).run,
        issuance: Uuid::from_u128(issuance),
        endpoint_name: "device".parse().unwrap(),
        serial: "SN1".parse().unwrap(),
        order: order.parse().unwrap(),
        request: Vec::new(),
        supersedes: supersedes.map(Uuid::from_u128),
        recipe_digest: [0; 32],
    })
}

/// A story in words: `open 1`, `pass 1`, `fail 1`, `aside 1`, `ask 1 7`, `ask 1 8 for 7`, `ship`, `scrap`, `hold`,
/// `release`; a number with `'` is of another order.
fn record(word: &str) -> Record {
    let words: Vec<&str> = word.split(' ').collect();
    let disposed = |disposition| {
        Record::UnitDisposed(UnitDisposed {
            command: Uuid::nil(),
            serial: "SN1".parse().unwrap(),
            disposition,
        })
    };
    let order = if word.contains('\'') { "WO-2" } else { "WO-1" };
    let number = |at: usize| words[at].trim_end_matches('\'').parse::<u128>().unwrap();
    match words[0] {
        "open" => Record::RunOpened(run(order, number(1))),
        "pass" => closed(order, number(1), Outcome::Pass, false),
        "fail" => closed(order, number(1), Outcome::Fail, false),
        "aside" => closed(order, number(1), Outcome::Error, true),
        "ask" => asked(order, number(1), number(2), words.get(4).map(|_| number(4))),
        "ship" => disposed(Disposition::Shipped),
        "scrap" => disposed(Disposition::Scrapped),
        "hold" => disposed(Disposition::Quarantined),
        "release" => Record::UnitReleased(UnitReleased {
            command: Uuid::nil(),
            serial: "SN1".parse().unwrap(),
            reason: "repaired".to_owned(),
            reworked: false,
        }),
        other => unreachable!("no story holds {other:?}"),
    }
}

fn tally(story: &str) -> UnitTally {
    let mut tally = UnitTally::default();
    for (sequence, word) in (1_u64..).zip(story.split(", ").filter(|word| !word.is_empty())) {
        tally.learn(&order(), sequence.into(), &record(word));
    }
    tally
}

fn books(issuances: &[(u128, Place)]) -> SignerBooks {
    let reckoned = |(id, place): &(u128, Place)| {
        (Uuid::from_u128(*id), Reckoned { endpoint_name: "device".to_owned(), place: *place })
    };
    SignerBooks { issuances: issuances.iter().map(reckoned).collect(), ..SignerBooks::default() }
}

fn held(story: &str, issuances: &[(u128, Place)], certified: &[u128], before: u64) -> Reconciled {
    let tallies = BTreeMap::from([("SN1".parse().unwrap(), tally(story))]);
    let certified = certified.iter().map(|id| Uuid::from_u128(*id)).collect();
    hold(&tallies, books(issuances), &certified, before.into())
}

#[test]
fn a_unit_stands_where_the_log_says() {
    use Standing::{InNest, NotStarted, Open, Quarantined, Scrapped, Shipped};
    let check = |story: &str, standing: Standing| assert_eq!(tally(story).standing(), standing, "{story}");
    check("", NotStarted);
    check("open 1", InNest);
    check("open 1, pass 1", Open);
    check("open 1, fail 1", Open);
    check("open 1, pass 1, ship", Shipped);
    check("open 1, fail 1, scrap", Scrapped);
    check("open 1, aside 1", Quarantined);
    check("open 1, aside 1, release", Open);
    check("open 1, aside 1, scrap", Scrapped);
    check("open 1, fail 1, hold", Quarantined);
    check("open 1, fail 1, hold, open 2", InNest);
    check("open 1, fail 1, hold, open 2, fail 2", Open);
    check("open 1, fail 1, hold, open 2, pass 2, ship", Shipped);
    check("open 1', fail 1'", NotStarted);
}

#[test]
fn the_two_are_held_against_each_other_issuance_by_issuance() {
    use Difference::{SignerUnaware, StationUnaware};
    use Place::{Open, Quarantined, Scrapped, Shipped, Superseded};
    let check = |story: &str, signer: &[(u128, Place)], found: &[(u128, Option<Difference>)]| {
        let books = held(story, signer, &[7], 99);
        let told: Vec<_> = books
            .unsettled
            .iter()
            .map(|it| (it.issuance.as_ref().map_or(0, |(id, _)| id.as_u128()), it.difference))
            .collect();
        assert_eq!(told, found, "{story} / {signer:?}");
    };
    check("", &[], &[(0, None)]);
    check("open 1, fail 1", &[], &[(0, None)]);
    check("open 1, fail 1, scrap", &[], &[]);
    check("open 1, ask 1 7, pass 1", &[(7, Open)], &[(7, None)]);
    check("open 1, ask 1 7, pass 1, ship", &[(7, Shipped)], &[]);
    // Left between the signer's word and the log's, or the other way round.
    check("open 1, ask 1 7, pass 1", &[(7, Shipped)], &[(7, Some(Difference::Place))]);
    check("open 1, ask 1 7, pass 1, ship", &[(7, Open)], &[(7, Some(Difference::Place))]);
    check("open 1, ask 1 7, pass 1, ship", &[], &[(7, Some(SignerUnaware))]);
    // What was asked for and never came to the signer is no certificate.
    check("open 1, ask 1 6, fail 1, scrap", &[], &[]);
    check("open 1, ask 1 7, pass 1, ship", &[(7, Shipped), (9, Open)], &[(9, Some(StationUnaware))]);
    // A key died.
    let again = "open 1, ask 1 7, fail 1, open 2, ask 2 8 for 7, pass 2, ship";
    check(again, &[(7, Superseded), (8, Shipped)], &[]);
    check(again, &[(7, Open), (8, Shipped)], &[(7, Some(Difference::Place))]);
    // The second request never came, so the first certificate counts.
    let lost = "open 1, ask 1 7, fail 1, open 2, ask 2 8 for 7, fail 2, scrap";
    check(lost, &[(7, Scrapped)], &[]);
    // Set aside, and begun again without another certificate.
    check("open 1, ask 1 7, fail 1, hold, open 2, fail 2", &[(7, Quarantined)], &[(7, None)]);
    // Replaced in another order, which this one's books do not show.
    check("open 1, ask 1 7, fail 1, open 2', ask 2' 8 for 7, pass 2'", &[(7, Superseded)], &[(7, None)]);
    check("open 1, ask 1 7, fail 1, open 2', ask 2' 8 for 7, pass 2'", &[(7, Open)], &[(7, None)]);
}

#[test]
fn what_happens_while_the_books_are_made_is_no_difference() {
    let story = "open 1, ask 1 7, pass 1, ship";
    assert_eq!(held(story, &[(7, Place::Open)], &[7], 3).unsettled, []);
    assert_eq!(held(story, &[(7, Place::Open)], &[7], 4).unsettled.len(), 1);
    let inside = held("open 1, ask 1 7", &[], &[7], 99).unsettled;
    assert_eq!(inside.iter().map(|unit| unit.difference).collect::<Vec<_>>(), [None]);
    assert!(inside[0].hinders_closing());
}

proptest! {
    #[test]
    fn every_unit_is_counted_once_whatever_its_story(
        stories in prop::collection::vec(
            prop::collection::vec(prop::sample::select(&["pass", "fail", "aside", "ship", "scrap", "hold", "release", "open"][..]), 0..12),
            0..6,
        )
    ) {
        let units = stories.iter().enumerate().map(|(unit, words)| {
            let mut run = 0;
            let mut inside = false;
            let mut story = Vec::new();
            for word in words {
                match *word {
                    "open" if !inside => {
                        run += 1;
                        story.push(format!("open {run}"));
                        inside = true;
                    }
                    "pass" | "fail" | "aside" if inside => {
                        story.push(format!("{word} {run}"));
                        inside = false;
                    }
                    "ship" | "scrap" | "hold" | "release" if !inside => story.push((*word).to_owned()),
                    _ => {}
                }
            }
            (format!("SN{unit}").parse().unwrap(), tally(&story.join(", ")))
        });
        let tallies: BTreeMap<Serial, UnitTally> = units.collect();
        let books = hold(&tallies, SignerBooks::default(), &HashSet::new(), 99.into()).station;
        prop_assert_eq!(
            books.units,
            books.in_nests + books.shipped + books.scrapped + books.quarantined + books.open
        );
        prop_assert!(books.passed + books.failed <= books.units);
    }
}
