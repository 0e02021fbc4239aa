//! Which runs a list asks for, a page at a time: found by the index where it can be asked, looked for in the log where not.
//! A page costs a bounded amount of reading, so it may be shorter than asked for, or empty, and still have a next one.

use std::{
    ops::ControlFlow,
    time::{Duration, SystemTime},
};

use factory_journal::{Entry, JournalError, Sequence};
use factory_proto::{
    ids::{NestName, OrderId, Serial},
    outcome::Outcome,
};

use crate::{
    record::{Record, RunOpened},
    units::{Unit, Units},
};

/// Records that are looked at for one page.
const MOST_RECORDS: usize = 20_000;
/// Runs that are looked up for one page, each some twenty records.
const MOST_RUNS: usize = 2_000;
/// A run is journalled after its start, by at most what a slow disk takes.
const JOURNALLED_AFTER: Duration = Duration::from_secs(60);

/// Which runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of this order.
    pub order: Option<OrderId>,
    /// On this unit.
    pub serial: Option<Serial>,
    /// In this nest.
    pub nest: Option<NestName>,
    /// That ended so; empty for all.
    pub outcomes: Vec<Outcome>,
    /// That have ended, or have not.
    pub ended: Option<bool>,
    /// That began then or later.
    pub started_from: Option<SystemTime>,
    /// That began before then.
    pub started_before: Option<SystemTime>,
}

/// Some of them, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The runs.
    pub units: Vec<Unit>,
    /// Where the next page begins; `None` when there are no more.
    pub next: Option<Sequence>,
}

impl Selection {
    /// At most `size` runs whose first record lies at `from` or later. Blocks.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn page(&self, units: &Units, from: Sequence, size: usize) -> Result<Page, JournalError> {
        let mut page = Page::default();
        let (mut records, mut runs) = (0, 0);
        let mut look_at = |entry: Entry<Record>| {
            records += 1;
            if page.units.len() == size || records > MOST_RECORDS || runs == MOST_RUNS {
                page.next = Some(entry.sequence);
                return Ok(ControlFlow::Break(()));
            }
            if let Record::RunOpened(opened) = entry.record
                && self.began_so(&opened)
            {
                runs += 1;
                page.units.extend(units.find(opened.run)?.filter(|unit| self.ended_so(unit)));
            }
            Ok(ControlFlow::Continue(()))
        };
        let journal = units.journal();
        let of_key = match (&self.serial, &self.order) {
            (Some(serial), _) => Some(journal.by_unit(serial.as_str())?),
            (None, Some(order)) => Some(journal.by_order(order.as_str())?),
            (None, None) => None,
        };
        match of_key {
            Some(sequences) => {
                let found = sequences.into_iter().filter(|sequence| *sequence >= from);
                walk(found.filter_map(|sequence| journal.get(sequence).transpose()), &mut look_at)?;
            }
            None => match (self.started_from, self.started_before) {
                (None, None) => walk(journal.read(from), &mut look_at)?,
                (first, last) => {
                    let first = first.unwrap_or(SystemTime::UNIX_EPOCH);
                    // What is not said is for ever; what is too far away for the clock, too.
                    let last =
                        last.and_then(|last| last.checked_add(JOURNALLED_AFTER)).unwrap_or_else(end_of_time);
                    walk(journal.by_time_from(from, first, last)?, &mut look_at)?;
                }
            },
        }
        Ok(page)
    }

    fn began_so(&self, opened: &RunOpened) -> bool {
        self.order.as_ref().is_none_or(|order| opened.order.as_ref() == Some(order))
            && self.serial.as_ref().is_none_or(|serial| *serial == opened.serial)
            && self.nest.as_ref().is_none_or(|nest| *nest == opened.nest)
            && self.started_from.is_none_or(|first| first <= opened.started)
            && self.started_before.is_none_or(|before| opened.started < before)
    }

    fn ended_so(&self, unit: &Unit) -> bool {
        let outcome = unit.closed.as_ref().map(|closed| closed.outcome);
        self.ended.is_none_or(|ended| ended == outcome.is_some())
            && (self.outcomes.is_empty() || outcome.is_some_and(|outcome| self.outcomes.contains(&outcome)))
    }
}

fn walk(
    entries: impl Iterator<Item = Result<Entry<Record>, JournalError>>,
    look_at: &mut impl FnMut(Entry<Record>) -> Result<ControlFlow<()>, JournalError>,
) -> Result<(), JournalError> {
    for entry in entries {
        if look_at(entry?)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// The last time that a record can have.
pub(crate) fn end_of_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use factory_journal::{Journal, Options};
    use uuid::Uuid;

    use super::*;
    use crate::{
        record::{Findings, RunClosed, RunId, StepStarted},
        step::Step,
    };

    fn run(number: u32) -> RunOpened {
        RunOpened {
            run: RunId::of_command(Uuid::from_u128(number.into())),
            order: Some(format!("WO-{}", number % 2).parse().unwrap()),
            serial: format!("SN{}", number % 7).parse().unwrap(),
            nest: format!("N{}", number % 3).parse().unwrap(),
            started: SystemTime::now(),
            ..RunOpened::made_up()
        }
    }

    fn closed(opened: RunOpened, outcome: Outcome) -> Record {
        Record::RunClosed(Box::new(RunClosed {
            opened,
            ended: SystemTime::now(),
            outcome,
            stopped: None,
            findings: Findings::default(),
            quarantine: None,
        }))
    }

    /// Run 0 passed, 1 failed, 2 lasts, and so on.
    async fn journal(dir: &std::path::Path, runs: u32) -> (Units, Vec<RunOpened>) {
        let journal = Arc::new(Journal::open(dir, Options::default()).unwrap());
        let (mut all, mut records) = (Vec::new(), Vec::new());
        for number in 0..runs {
            let opened = run(number);
            let step = Record::StepStarted(StepStarted { run: opened.run, step: Step::Flash });
            let outcome = [Some(Outcome::Pass), Some(Outcome::Fail), None][number as usize % 3];
            let end = outcome.map(|outcome| closed(opened.clone(), outcome));
            records.extend([Record::RunOpened(opened.clone()), step].into_iter().chain(end));
            all.push(opened);
        }
        journal.append_all(records).await.unwrap();
        (Units::new(journal), all)
    }

    /// All pages of a selection, each of this size; runs by their numbers.
    fn pages(units: &Units, all: &[RunOpened], selection: &Selection, size: usize) -> Vec<Vec<usize>> {
        let (mut pages, mut from) = (Vec::new(), Some(Sequence::START));
        while let Some(begins) = from {
            let page = selection.page(units, begins, size).unwrap();
            let number = |unit: &Unit| all.iter().position(|run| run.run == unit.opened.run).unwrap();
            pages.push(page.units.iter().map(number).collect());
            from = page.next;
        }
        pages
    }

    #[tokio::test]
    async fn a_selection_gives_its_runs_and_no_others_whatever_the_pages() {
        let dir = tempfile::tempdir().unwrap();
        let (units, all) = journal(dir.path(), 40).await;
        let everything = Selection::default;
        let (order, serial, nest) =
            (Some("WO-1".parse().unwrap()), Some("SN3".parse().unwrap()), Some("N2".parse().unwrap()));
        let middle = all[20].started;
        let check = |selection: Selection, wanted: &dyn Fn(usize) -> bool| {
            let wanted: Vec<usize> = (0..40).filter(|number| wanted(*number)).collect();
            for size in [1, 7, 1000] {
                let pages = pages(&units, &all, &selection, size);
                assert!(pages.iter().all(|page| page.len() <= size));
                assert_eq!(pages.concat(), wanted, "{selection:?} by {size}");
            }
        };
        check(everything(), &|_| true);
        check(Selection { order: order.clone(), ..everything() }, &|number| number % 2 == 1);
        check(Selection { serial: serial.clone(), ..everything() }, &|number| number % 7 == 3);
        check(Selection { order, serial, ..everything() }, &|number| number % 14 == 3);
        check(Selection { nest, ..everything() }, &|number| number % 3 == 2);
        let outcomes = vec![Outcome::Fail, Outcome::Aborted];
        check(Selection { outcomes, ..everything() }, &|number| number % 3 == 1);
        check(Selection { ended: Some(false), ..everything() }, &|number| number % 3 == 2);
        check(Selection { ended: Some(true), ..everything() }, &|number| number % 3 != 2);
        let outcomes = vec![Outcome::Pass];
        check(Selection { outcomes, ended: Some(false), ..everything() }, &|_| false);
        check(Selection { started_from: Some(middle), ..everything() }, &|number| number >= 20);
        check(Selection { started_before: Some(middle), ..everything() }, &|number| number < 20);
        let (started_from, started_before) = (Some(middle), Some(all[30].started));
        check(Selection { started_from, started_before, ..everything() }, &|number| {
            (20..30).contains(&number)
        });
        let never = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        check(Selection { started_before: never, ..everything() }, &|_| false);
    }

    #[tokio::test]
    async fn a_page_that_would_take_too_much_reading_ends_early() {
        let dir = tempfile::tempdir().unwrap();
        let (units, all) = journal(dir.path(), 2 * u32::try_from(MOST_RUNS).unwrap() + 10).await;
        let outcomes = vec![Outcome::Aborted];
        let none = Selection { outcomes, ..Selection::default() };
        assert_eq!(pages(&units, &all, &none, 1000), [[0; 0]; 3]);
    }
}
