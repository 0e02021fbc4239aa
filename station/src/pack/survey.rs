//! What the journal says of the newest units of each nest, when a station starts. Reads backwards, as far as it must.

use std::collections::BTreeMap;

use factory_journal::{Entry, Journal, JournalError, Sequence};
use factory_proto::ids::NestName;

use super::{
    Pack, Rule,
    windows::{Tried, Windows},
};
use crate::{
    record::{NestAct, Record},
    units::Units,
};

/// So many records are read at a time: a tenth of a second.
const STRETCH: u64 = 20_000;
/// A unit takes some 20 records. Were all nests equally busy, their windows would be found twice over in so many for each
/// unit; of a nest that was idle for longer than that, less is known after a restart.
const RECORDS_A_UNIT: usize = 40;

impl Pack {
    /// The newest units of these nests, each since it was enabled or cleared last. Blocks while it reads.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn survey<'a>(
        journal: &Journal<Record>,
        units: &Units,
        rule: Rule,
        nests: impl Iterator<Item = &'a NestName>,
    ) -> Result<Self, JournalError> {
        let mut windows = Windows::new(rule);
        if rule.parks {
            let missing = nests.map(|nest| (nest.clone(), rule.window)).collect();
            let newest_first = find(journal, units, missing, STRETCH)?;
            newest_first.into_iter().rev().for_each(|(sequence, tried)| windows.learn(sequence, tried));
        }
        Ok(Self::of(windows))
    }
}

/// What a record says of a nest.
enum Told {
    Tried(Sequence, Tried),
    Anew(NestName),
}

/// The newest units of nests of which so many are `missing`; the newest first.
fn find(
    journal: &Journal<Record>,
    units: &Units,
    mut missing: BTreeMap<NestName, usize>,
    stretch: u64,
) -> Result<Vec<(Sequence, Tried)>, JournalError> {
    let mut found = Vec::new();
    let mut until = journal.last().next().get();
    let most = missing.values().sum::<usize>().saturating_mul(RECORDS_A_UNIT) as u64;
    let oldest = until.saturating_sub(most).max(1);
    while !missing.is_empty() && until > oldest {
        let from = until.saturating_sub(stretch).max(oldest);
        let mut said = Vec::new();
        for entry in journal.read(from.into()) {
            let entry = entry?;
            if entry.sequence.get() >= until {
                break;
            }
            said.extend(told(&entry, units)?);
        }
        for told in said.into_iter().rev() {
            match told {
                Told::Anew(nest) => drop(missing.remove(&nest)),
                Told::Tried(sequence, tried) => {
                    let Some(left) = missing.get_mut(&tried.nest) else { continue };
                    *left -= 1;
                    if *left == 0 {
                        missing.remove(&tried.nest);
                    }
                    found.push((sequence, tried));
                }
            }
        }
        until = from;
    }
    Ok(found)
}

fn told(entry: &Entry<Record>, units: &Units) -> Result<Option<Told>, JournalError> {
    match &entry.record {
        Record::NestCommanded(commanded) if matches!(commanded.act, NestAct::Enable | NestAct::Clear) => {
            Ok(Some(Told::Anew(commanded.nest.clone())))
        }
        Record::RunClosed(closed) => {
            let past = units.past(&closed.opened, Some(entry.sequence))?;
            Ok(Tried::of(closed, past).map(|tried| Told::Tried(entry.sequence, tried)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use factory_journal::Options;
    use factory_proto::outcome::Outcome;
    use uuid::Uuid;

    use super::*;
    use crate::{
        record::{Findings, NestCommanded, RunClosed, RunId, RunOpened, StepStarted},
        step::Step,
    };

    fn closed(nest: char, serial: usize, outcome: Outcome) -> Record {
        let opened = RunOpened {
            run: RunId::of_command(Uuid::now_v7()),
            order: Some("order-1".parse().unwrap()),
            serial: format!("SN{serial}").parse().unwrap(),
            nest: nest.to_string().parse().unwrap(),
            ..RunOpened::made_up()
        };
        let (ended, findings) = (SystemTime::UNIX_EPOCH, Findings::default());
        Record::RunClosed(Box::new(RunClosed {
            opened,
            ended,
            outcome,
            stopped: None,
            findings,
            quarantine: None,
        }))
    }

    fn commanded(nest: char, act: NestAct) -> Record {
        Record::NestCommanded(NestCommanded {
            command: Uuid::nil(),
            nest: nest.to_string().parse().unwrap(),
            act,
            by: String::new(),
            reason: String::new(),
            at: SystemTime::UNIX_EPOCH,
        })
    }

    /// A story by letters: a unit that passes in a nest `A` or fails in it `a`, the unit before once more `r`, one that the
    /// station fails `E`; `+` enables nest A, `!` clears it, `-` parks it; a dot is something else.
    fn records(story: &str) -> Vec<Record> {
        let run = RunId::of_command(Uuid::nil());
        let record = |(number, letter): (usize, char)| match letter {
            'r' => closed('A', number - 1, Outcome::Fail),
            'E' => closed('A', number, Outcome::Error),
            '+' => commanded('A', NestAct::Enable),
            '!' => commanded('A', NestAct::Clear),
            '-' => commanded('A', NestAct::Park),
            '.' => Record::StepStarted(StepStarted { run, step: Step::Boot }),
            nest if nest.is_ascii_lowercase() => closed(nest.to_ascii_uppercase(), number, Outcome::Fail),
            nest => closed(nest, number, Outcome::Pass),
        };
        story.chars().enumerate().map(record).collect()
    }

    #[tokio::test]
    async fn the_newest_units_of_each_nest_are_found_however_the_log_is_read() {
        let check = async |story: &str, window: usize, marks: &str| {
            let dir = tempfile::tempdir().unwrap();
            let journal = Arc::new(Journal::open(dir.path(), Options::default()).unwrap());
            journal.append_all(records(story)).await.unwrap();
            let units = Units::new(journal.clone());
            let wanted: Vec<u64> = (1..).zip(marks.chars()).filter(|it| it.1 == '^').map(|it| it.0).collect();
            for stretch in [1, 2, 3, 7, 1000] {
                let missing = ["A", "B"].map(|nest| (nest.parse().unwrap(), window)).into();
                let found = find(&journal, &units, missing, stretch).unwrap();
                let found: Vec<u64> = found.iter().rev().map(|(sequence, _)| sequence.get()).collect();
                assert_eq!(found, wanted, "{story}, {stretch} at a time");
            }
        };
        check("", 3, "").await;
        check("AaBbAaBb", 3, " ^ ^^^^^").await;
        check("AaBbAaBb", 2, "    ^^^^").await;
        // Neither retests nor what does not count, nor nests that are gone.
        check("arEBar.C", 9, "^  ^^   ").await;
        check("Er", 9, " ^").await;
        check("aB+aB!BaB-a.B", 9, " ^  ^ ^^^ ^ ^").await;
        // A nest that was idle for longer than others need to fill their windows is given up.
        check(&("a".to_owned() + &".".repeat(200)), 2, "").await;
    }

    #[tokio::test]
    async fn a_station_that_starts_finds_what_it_had_found_before() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::open(dir.path(), Options::default()).unwrap());
        let units = Units::new(journal.clone());
        let (a, b): (NestName, NestName) = ("A".parse().unwrap(), "B".parse().unwrap());
        let pack = || Pack::survey(&journal, &units, Rule::USUAL, [&a, &b].into_iter()).unwrap();
        let story = "AB".repeat(40) + &"aB".repeat(15);
        journal.append_all(records(&story)).await.unwrap();
        assert_eq!(pack().left(&a), None);
        journal.append_all(records("a")).await.unwrap();
        // The same serial numbers again are retests.
        assert_eq!(pack().left(&a), None);
        journal.append(closed('A', 1000, Outcome::Fail)).await.unwrap();
        let left = pack().left(&a);
        assert_eq!(left.map(|left| (left.units, left.failed, left.other_units)), Some((56, 16, 55)));
        assert_eq!(pack().left(&b), None);
        journal.append(commanded('A', NestAct::Enable)).await.unwrap();
        assert_eq!(pack().left(&a), None);
    }
}
