use std::{collections::BTreeMap, path::Path, sync::Arc, time::SystemTime};

use factory_journal::{Journal, Options};
use factory_proto::outcome::Outcome;
use proptest::prelude::*;
use rcgen::{DistinguishedName, DnType};
use uuid::Uuid;

use super::*;
use crate::{
    key::DeviceKey,
    record::{Findings, IssuanceAsked, Record, RunClosed, RunId, Tag, TagSeen, UnitDisposed},
};

fn run(unit: u8, number: u128) -> RunOpened {
    RunOpened {
        run: RunId::of_command(Uuid::from_u128(number)),
        order: format!("WO-{}", number % 2).parse().ok(),
        serial: format!("SN{unit}").parse().unwrap(),
        nest: format!("nest-{unit}").parse().unwrap(),
        ..RunOpened::made_up()
    }
}

fn tag(number: u8) -> Mark {
    Mark::Tag(vec![4, number])
}

fn name(number: u8) -> Mark {
    Mark::EndpointName(format!("sensor-{number}").parse().unwrap())
}

fn asked(run: &RunOpened, mark: &Mark) -> Record {
    let Mark::EndpointName(endpoint_name) = mark else { unreachable!("it is a name") };
    Record::IssuanceAsked(IssuanceAsked {
        run: run.run,
        issuance: Uuid::nil(),
        endpoint_name: endpoint_name.clone(),
        serial: run.serial.clone(),
        order: run.order.clone().unwrap(),
        request: Vec::new(),
        supersedes: None,
        recipe_digest: [0; 32],
    })
}

fn seen(run: &RunOpened, mark: &Mark) -> Record {
    let Mark::Tag(uid) = mark else { unreachable!("it is a tag") };
    Record::TagSeen(TagSeen { run: run.run, uid: uid.clone() })
}

fn scrapped(unit: u8) -> Record {
    Record::UnitDisposed(UnitDisposed {
        command: Uuid::nil(),
        serial: run(unit, 0).serial,
        disposition: Disposition::Scrapped,
    })
}

fn open(dir: &Path) -> Claims {
    Claims::new(Units::new(Arc::new(Journal::open(dir, Options::default()).unwrap())))
}

/// Where the other unit had it; `None` when it may be had.
fn other(claimed: Result<bool, ClaimError>) -> Option<Seen> {
    match claimed {
        Ok(_) => None,
        Err(ClaimError::Taken(seen)) => Some(*seen),
        Err(ClaimError::Journal(error)) => panic!("{error}"),
    }
}

/// What may happen to a line with a few units, names and tags.
#[derive(Debug, Clone)]
enum Happens {
    /// A run begins on a unit that lies in no nest, and claims a name.
    Begins { unit: u8, name: u8 },
    /// Its certificate is asked for.
    Asked { unit: u8 },
    /// A tag is seen, and perhaps the station dies before that is journalled.
    Tagged { unit: u8, tag: u8, dies: bool },
    /// The run is over.
    Ends { unit: u8 },
    /// A unit that lies in no nest is destroyed.
    Scrapped { unit: u8 },
    /// The station is killed, and takes up its runs; perhaps somebody has thrown the index away.
    Killed { index: bool },
}

fn happens() -> impl Strategy<Value = Happens> {
    let unit = 0..4_u8;
    prop_oneof![
        4 => (unit.clone(), 0..3_u8).prop_map(|(unit, name)| Happens::Begins { unit, name }),
        4 => unit.clone().prop_map(|unit| Happens::Asked { unit }),
        4 => (unit.clone(), 0..3_u8, any::<bool>())
            .prop_map(|(unit, tag, dies)| Happens::Tagged { unit, tag, dies }),
        3 => unit.clone().prop_map(|unit| Happens::Ends { unit }),
        3 => unit.prop_map(|unit| Happens::Scrapped { unit }),
        1 => any::<bool>().prop_map(|index| Happens::Killed { index }),
    ]
}

/// What must be true, told in the simplest way: nothing but lists.
#[derive(Default)]
struct Model {
    /// Who had a mark durably.
    had: Vec<(Mark, u8)>,
    /// The runs in nests, and what they hold.
    runs: BTreeMap<u8, (RunOpened, Vec<Mark>)>,
    scrapped: Vec<u8>,
}

impl Model {
    /// The units that keep another one from having a mark.
    fn in_the_way(&self, mark: &Mark, unit: u8) -> Vec<u8> {
        let may_be_had = |other: u8| matches!(mark, Mark::EndpointName(_)) && self.scrapped.contains(&other);
        let had = self.had.iter().filter(|(had, by)| had == mark && !may_be_had(*by)).map(|(_, by)| *by);
        let held = self.runs.iter().filter(|(_, (_, held))| held.contains(mark)).map(|(by, _)| *by);
        had.chain(held).filter(|by| *by != unit).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_is_ever_two_units_at_once_and_what_is_refused_says_whose_it_is(
        story in prop::collection::vec(happens(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (mut claims, mut model) = (open(dir.path()), Model::default());
        let mut claimants: BTreeMap<u8, Claimant> = BTreeMap::new();
        for (number, happens) in (1..).zip(story) {
            let append = |claims: &Claims, record| {
                runtime.block_on(claims.units.journal().append(record)).unwrap();
            };
            let agree = |model: &Model, mark: &Mark, unit: u8, claimed: Result<bool, ClaimError>| {
                let (wanted, other) = (model.in_the_way(mark, unit), other(claimed));
                let named = wanted.iter().any(|by| {
                    other.as_ref().is_some_and(|seen| seen.serial == run(*by, 0).serial && seen.mark == *mark)
                });
                assert!(named || (wanted.is_empty() && other.is_none()), "{mark:?}: {wanted:?}, {other:?}");
                wanted.is_empty()
            };
            match happens {
                Happens::Begins { unit, name: wanted } => {
                    if model.runs.contains_key(&unit) || model.scrapped.contains(&unit) {
                        continue;
                    }
                    let (run, mark) = (run(unit, number), name(wanted));
                    let claimant = claims.of_run(&run);
                    if agree(&model, &mark, unit, claimant.claim(mark.clone())) {
                        append(&claims, Record::RunOpened(run.clone()));
                        model.runs.insert(unit, (run, vec![mark]));
                        claimants.insert(unit, claimant);
                    }
                }
                Happens::Asked { unit } => {
                    let Some((run, held)) = model.runs.get(&unit) else { continue };
                    let mark = held[0].clone();
                    prop_assert!(claimants[&unit].claim(mark.clone()).is_ok(), "its own");
                    append(&claims, asked(run, &mark));
                    model.had.push((mark, unit));
                }
                Happens::Tagged { unit, tag: wanted, dies } => {
                    let Some((run, _)) = model.runs.get(&unit) else { continue };
                    let (run, mark) = (run.clone(), tag(wanted));
                    if agree(&model, &mark, unit, claimants[&unit].claim(mark.clone())) && !dies {
                        append(&claims, seen(&run, &mark));
                        model.had.push((mark.clone(), unit));
                    }
                    if model.in_the_way(&mark, unit).is_empty() {
                        model.runs.get_mut(&unit).unwrap().1.push(mark);
                    }
                }
                Happens::Ends { unit } => {
                    claimants.remove(&unit);
                    model.runs.remove(&unit);
                }
                Happens::Scrapped { unit } => {
                    if !model.runs.contains_key(&unit) && !model.scrapped.contains(&unit) {
                        append(&claims, scrapped(unit));
                        model.scrapped.push(unit);
                    }
                }
                Happens::Killed { index } => {
                    claimants.clear();
                    drop(claims);
                    if index {
                        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
                    }
                    claims = open(dir.path());
                    for (unit, (run, held)) in &mut model.runs {
                        held.truncate(1);
                        let claimant = claims.of_run(run);
                        prop_assert!(claimant.claim(held[0].clone()).is_ok(), "its own");
                        claimants.insert(*unit, claimant);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn of_two_runs_at_the_same_instant_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let claims = open(dir.path());
    for mark in [tag(1), name(1), Mark::of_key(b"key")] {
        let start = Arc::new(std::sync::Barrier::new(8));
        let threads: Vec<_> = (0..8)
            .map(|unit| {
                let (claimant, start, mark) =
                    (claims.of_run(&run(unit, u128::from(unit))), start.clone(), mark.clone());
                std::thread::spawn(move || {
                    start.wait();
                    let claimed = other(claimant.claim(mark)).is_none();
                    // Nobody lets go before everybody has tried.
                    start.wait();
                    claimed
                })
            })
            .collect();
        let claimed: usize = threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum();
        assert_eq!(claimed, 1, "{mark:?}");
    }
    assert!(claims.held().is_empty());
}

#[tokio::test]
async fn records_of_old_stations_tell_of_names_keys_and_tags() {
    let dir = tempfile::tempdir().unwrap();
    let claims = open(dir.path());
    let journal = claims.units.journal();
    let (first, key) = (run(1, 1), DeviceKey::generate().unwrap());
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "sensor-1");
    let Record::IssuanceAsked(mut issuance) = asked(&first, &name(1)) else { unreachable!("it is one") };
    issuance.request = key.request(subject);
    journal.append(Record::RunOpened(first.clone())).await.unwrap();
    let asked_at = journal.append(Record::IssuanceAsked(issuance)).await.unwrap();
    let findings = Findings { tag: Some(Tag { uid: vec![4, 1], ndef: Vec::new() }), ..Findings::default() };
    let closed = RunClosed {
        opened: first.clone(),
        ended: SystemTime::UNIX_EPOCH,
        outcome: Outcome::Pass,
        stopped: None,
        findings,
        quarantine: None,
    };
    let closed_at = journal.append(Record::RunClosed(Box::new(closed))).await.unwrap();
    let key = Mark::of_key(&key.public());
    for (mark, at) in [(name(1), asked_at), (key.clone(), asked_at), (tag(1), closed_at)] {
        let told = other(claims.of_run(&run(2, 2)).claim(mark.clone())).unwrap();
        let time = journal.get(at).unwrap().unwrap().time;
        assert_eq!(Some(told.clone()), Seen::in_run(mark.clone(), &first, time));
        let told = told.to_string();
        for word in
            ["unit SN1 of work order WO-1, in nest nest-1 at 2", &first.run.to_string(), &mark.value()]
        {
            assert!(told.contains(word), "{told}");
        }
        assert!(claims.of_run(&run(1, 3)).claim(mark).unwrap(), "the log tells that it has it");
    }
    // Its name may be given again when it is destroyed; what it was known by may not.
    journal.append(scrapped(1)).await.unwrap();
    let check = |mark: Mark| other(claims.check(&mark, &run(2, 2).serial).map(|()| true)).is_none();
    assert_eq!([name(1), key, tag(1)].map(check), [true, false, false]);
}
