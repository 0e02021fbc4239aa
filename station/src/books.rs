//! What the journal says of orders, of units that are set aside, and of runs that are open: `record × books → books`,
//! pure. Small for ever: what is over is counted, and looked up in the journal's index when it matters.

use std::collections::BTreeMap;

use factory_journal::Sequence;
use factory_proto::{
    ids::{NestName, OrderId, RecipeName, Serial},
    outcome::Outcome,
};

use crate::{
    attestations::Statements,
    line::budget::Budget,
    phase::{IllegalRecord, Phase},
    recipe::RecipeKey,
    record::{
        Checkpoint, Findings, GoldenTried, NestAct, NestCommanded, NestLeftPack, OrderMoved, OrderOpened,
        OrderState, OrderTally, Quarantine, RecipeAct, RecipeCommanded, Record, RegistrationAttested, RunId,
        RunOpened, SetAside,
    },
};

/// A work order and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// As it was opened.
    pub opened: OrderOpened,
    /// Units that passed.
    pub passed: u32,
    /// As it was paused, resumed or closed last; absent when it never was.
    pub moved: Option<OrderMoved>,
}

impl Order {
    /// Whether it starts units.
    pub fn state(&self) -> OrderState {
        self.moved.as_ref().map_or(OrderState::Open, |moved| moved.to)
    }

    /// Why it is as it is; empty when it never was otherwise.
    pub fn reason(&self) -> &str {
        self.moved.as_ref().map_or("", |moved| &moved.reason)
    }
}

/// A run that has no result yet.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenRun {
    /// What it began as.
    pub run: RunOpened,
    /// How far it had come.
    pub phase: Phase,
    /// What it had found out, as far as that is durable.
    pub findings: Findings,
    /// Why it is to stop at the next safe place; absent when nobody has asked for that.
    pub aborted: Option<String>,
}

/// All that must be known of the past to go on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Books {
    /// All orders, by their ids.
    pub orders: BTreeMap<OrderId, Order>,
    /// The units that must not be started.
    pub quarantined: BTreeMap<Serial, Quarantine>,
    /// The runs without a result.
    pub open: BTreeMap<RunId, OpenRun>,
    /// What may be started while the controller is away.
    pub budget: Budget,
    /// The nests that were parked by hand, as they were.
    pub parked: BTreeMap<NestName, NestCommanded>,
    /// The nests that have left the pack, as they did.
    pub left_pack: BTreeMap<NestName, NestLeftPack>,
    /// The recipes that were uploaded, as they were first.
    pub recipes: BTreeMap<RecipeKey, RecipeCommanded>,
    /// What is active of each recipe name, where that was said.
    pub activated: BTreeMap<RecipeName, RecipeCommanded>,
    /// Which CAs are registered where.
    pub attested: Statements,
    /// What the last golden unit in each nest has shown.
    pub golden: BTreeMap<NestName, GoldenTried>,
}

impl Books {
    /// The books as a checkpoint holds them; the records of its open runs are still to be learnt.
    pub fn at(checkpoint: Checkpoint) -> Self {
        let order = |tally: OrderTally| {
            (
                tally.opened.order.clone(),
                Order { opened: tally.opened, passed: tally.passed, moved: tally.moved },
            )
        };
        let aside = |aside: SetAside| (aside.serial, aside.quarantine);
        let attested =
            |stated: RegistrationAttested| ((stated.ca_fingerprint, stated.account.clone()), stated);
        let mut books = Self {
            orders: checkpoint.orders.into_iter().map(order).collect(),
            quarantined: checkpoint.quarantined.into_iter().map(aside).collect(),
            open: BTreeMap::new(),
            budget: Budget::at(checkpoint.budget),
            attested: checkpoint.attested.into_iter().map(attested).collect(),
            parked: checkpoint.parked.into_iter().map(|it| (it.nest.clone(), it)).collect(),
            left_pack: checkpoint.left_pack.into_iter().map(|it| (it.nest.clone(), it)).collect(),
            recipes: BTreeMap::new(),
            activated: BTreeMap::new(),
            golden: checkpoint.golden.into_iter().map(|it| (it.nest.clone(), it)).collect(),
        };
        checkpoint.recipes.into_iter().for_each(|commanded| books.learn_of_recipe(commanded));
        books
    }

    /// These books, which know of all records up to `covers`, for the journal.
    pub fn checkpoint(&self, covers: Sequence) -> Checkpoint {
        let tally = |order: &Order| OrderTally {
            opened: order.opened.clone(),
            passed: order.passed,
            moved: order.moved.clone(),
        };
        let aside = |(serial, quarantine): (&Serial, &Quarantine)| SetAside {
            serial: serial.clone(),
            quarantine: quarantine.clone(),
        };
        Checkpoint {
            covers,
            orders: self.orders.values().map(tally).collect(),
            quarantined: self.quarantined.iter().map(aside).collect(),
            open: self.open.keys().map(ToString::to_string).collect(),
            budget: self.budget.without(self.open.values().map(|open| &open.run)),
            parked: self.parked.values().cloned().collect(),
            left_pack: self.left_pack.values().cloned().collect(),
            recipes: self.recipes.values().chain(self.activated.values()).cloned().collect(),
            attested: self.attested.values().cloned().collect(),
            golden: self.golden.values().cloned().collect(),
        }
    }

    /// Takes in one more record.
    ///
    /// # Errors
    /// It cannot follow what came before it.
    pub fn learn(&mut self, record: Record) -> Result<(), IllegalRecord> {
        self.follow(&record)?;
        match record {
            Record::OrderOpened(opened) => {
                self.orders.insert(opened.order.clone(), Order { opened, passed: 0, moved: None });
            }
            Record::RunOpened(opened) => self.budget.started(&opened),
            Record::AbortAsked(asked) => {
                // The first reason counts. One that is closed, or never began, needs no more.
                if let Some(open) = self.open.get_mut(&asked.run) {
                    open.aborted.get_or_insert(asked.reason);
                }
            }
            Record::BudgetGranted(granted) => self.budget.granted(granted),
            Record::OrderMoved(moved) => {
                if let Some(order) = self.orders.get_mut(&moved.order)
                    && order.state().may_become(moved.to)
                {
                    order.moved = Some(moved);
                }
            }
            Record::RecipeCommanded(commanded) => self.learn_of_recipe(commanded),
            Record::NestCommanded(commanded) => match commanded.act {
                NestAct::Park => drop(self.parked.insert(commanded.nest.clone(), commanded)),
                NestAct::Enable => {
                    self.parked.remove(&commanded.nest);
                    self.left_pack.remove(&commanded.nest);
                }
                NestAct::Clear => drop(self.left_pack.remove(&commanded.nest)),
                NestAct::Identify => {}
            },
            Record::NestLeftPack(left) => drop(self.left_pack.insert(left.nest.clone(), left)),
            Record::RegistrationAttested(stated) => {
                self.attested.insert((stated.ca_fingerprint, stated.account.clone()), stated);
            }
            Record::UnitReleased(released) => {
                self.quarantined.remove(&released.serial);
            }
            Record::RunClosed(closed) => {
                if let Some(tried) = GoldenTried::by(&closed) {
                    self.golden.insert(tried.nest.clone(), tried);
                }
                if closed.outcome == Outcome::Pass
                    && let Some(order) = &closed.opened.order
                    && let Some(order) = self.orders.get_mut(order)
                {
                    order.passed += 1;
                }
                if let Some(quarantine) = closed.quarantine {
                    self.quarantined.insert(closed.opened.serial, quarantine);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn learn_of_recipe(&mut self, commanded: RecipeCommanded) {
        let key = (commanded.recipe.clone(), commanded.digest);
        match commanded.act {
            RecipeAct::Keep => drop(self.recipes.entry(key).or_insert(commanded)),
            RecipeAct::Activate => drop(self.activated.insert(key.0, commanded)),
            RecipeAct::Remove => drop(self.recipes.remove(&key)),
        }
    }

    /// The part of a record that belongs to its run.
    fn follow(&mut self, record: &Record) -> Result<(), IllegalRecord> {
        let Some(id) = record.run() else { return Ok(()) };
        let (phase, mut findings, aborted) = match self.open.remove(&id) {
            Some(open) => (Some(open.phase), open.findings, open.aborted),
            None => (None, Findings::default(), None),
        };
        let phase = Phase::after(phase, record)?;
        let Some(run) = phase.run().cloned() else { return Ok(()) };
        match record {
            Record::StepPassed(passed) => findings = passed.findings.clone(),
            Record::Issued(issued) => findings.identity = Some(issued.identity.clone()),
            Record::ChipSeen(seen) => findings.chip = Some(seen.chip.clone()),
            Record::RunResumed(resumed) => findings.resumptions.push(resumed.resumption.clone()),
            _ => {}
        }
        self.open.insert(id, OpenRun { run, phase, findings, aborted });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use uuid::Uuid;

    use super::*;
    use crate::{
        orders::moves::moved,
        record::{
            AbortAsked, AllowedBy, BudgetGranted, ChipSeen, PackRule, RegistrationAttested, RunClosed,
            StepPassed, StepStarted, UnitRefused, UnitReleased,
        },
        step::Step,
    };

    fn run(number: u128) -> RunOpened {
        RunOpened {
            run: RunId::of_command(Uuid::from_u128(number)),
            order: Some("order-1".parse().unwrap()),
            serial: format!("SN{number}").parse().unwrap(),
            nest: "nest-1".parse().unwrap(),
            ..RunOpened::made_up()
        }
    }

    fn offline(number: u128, allowance: u128) -> Record {
        Record::RunOpened(RunOpened {
            allowed: Some(AllowedBy::Budget(Uuid::from_u128(allowance))),
            ..run(number)
        })
    }

    fn granted(number: u64) -> Record {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number);
        Record::BudgetGranted(BudgetGranted {
            id: Uuid::from_u128(number.into()),
            units: 9,
            issued: time,
            expires: time,
            time,
            by: "stationctl".to_owned(),
            signed: "a.b.c".to_owned(),
        })
    }

    fn closed(number: u128, outcome: Outcome, quarantine: Option<Quarantine>) -> Record {
        Record::RunClosed(Box::new(RunClosed {
            opened: run(number),
            ended: SystemTime::UNIX_EPOCH,
            outcome,
            stopped: None,
            findings: Findings::default(),
            quarantine,
        }))
    }

    fn of_golden(number: u128, nest: &str) -> RunOpened {
        let (nest, golden) = (nest.parse().unwrap(), Some("sensor".parse().unwrap()));
        RunOpened { order: None, nest, golden, ..run(number) }
    }

    fn golden(number: u128, nest: &str) -> Record {
        Record::RunOpened(of_golden(number, nest))
    }

    fn shown(number: u128, nest: &str, outcome: Outcome) -> Record {
        let Record::RunClosed(closed) = closed(number, outcome, None) else { unreachable!("it is a result") };
        Record::RunClosed(Box::new(RunClosed { opened: of_golden(number, nest), ..*closed }))
    }

    fn commanded(nest: &str, number: u128, act: NestAct) -> Record {
        Record::NestCommanded(NestCommanded {
            command: Uuid::from_u128(number),
            nest: nest.parse().unwrap(),
            act,
            by: "anna".to_owned(),
            reason: String::new(),
            at: SystemTime::UNIX_EPOCH,
        })
    }

    fn left(nest: &str, number: u128) -> Record {
        Record::NestLeftPack(NestLeftPack {
            nest: nest.parse().unwrap(),
            run: run(number).run,
            at: SystemTime::UNIX_EPOCH,
            units: 9,
            failed: 7,
            other_units: 90,
            other_failed: 1,
            rule: PackRule::Others(1e-6),
            mostly: None,
        })
    }

    fn of_recipe(digest: u8, number: u128, act: RecipeAct) -> Record {
        Record::RecipeCommanded(RecipeCommanded {
            command: Uuid::from_u128(number),
            recipe: "sensor".parse().unwrap(),
            digest: [digest; 32],
            act,
            by: "anna".to_owned(),
            at: SystemTime::UNIX_EPOCH,
        })
    }

    fn quarantine() -> Quarantine {
        Quarantine { reason: "it is not known".to_owned(), remedy: "look".to_owned() }
    }

    /// An order; a unit that passed, one that was set aside and released, one that is set aside, and open runs; two
    /// offline allowances, with three runs on the second.
    fn story() -> Vec<Record> {
        let order = OrderOpened {
            order: "order-1".parse().unwrap(),
            recipe: "sensor".parse().unwrap(),
            recipe_digest: [0; 32],
            quantity: 9,
            units: None,
            quota: None,
        };
        let findings = Findings { firmware_version: Some("1.0.0".to_owned()), ..Findings::default() };
        let id = run(4).run;
        vec![
            Record::OrderOpened(order),
            granted(1),
            offline(4, 1),
            offline(5, 1),
            granted(2),
            offline(1, 2),
            Record::RegistrationAttested(RegistrationAttested {
                command: Uuid::nil(),
                ca_fingerprint: [1; 32],
                account: "acme".to_owned(),
                registered: true,
                statement: "uploaded".to_owned(),
                time: SystemTime::UNIX_EPOCH,
            }),
            closed(1, Outcome::Pass, None),
            Record::StepStarted(StepStarted { run: id, step: Step::Flash }),
            Record::OrderMoved(moved(&run(4).order.unwrap(), 5, OrderState::Paused)),
            commanded("nest-1", 20, NestAct::Park),
            commanded("nest-2", 21, NestAct::Park),
            left("nest-1", 1),
            left("nest-2", 2),
            left("nest-3", 3),
            commanded("nest-3", 24, NestAct::Park),
            commanded("nest-2", 22, NestAct::Clear),
            of_recipe(1, 30, RecipeAct::Keep),
            of_recipe(2, 31, RecipeAct::Keep),
            of_recipe(2, 32, RecipeAct::Activate),
            Record::RunOpened(run(2)),
            closed(2, Outcome::Error, Some(quarantine())),
            Record::ChipSeen(ChipSeen { run: id, chip: vec![4] }),
            Record::UnitReleased(UnitReleased {
                command: Uuid::nil(),
                serial: run(2).serial,
                reason: "repaired".to_owned(),
                reworked: true,
            }),
            offline(6, 2),
            // It was under way when the other one came into force.
            offline(7, 1),
            offline(3, 2),
            Record::UnitRefused(UnitRefused {
                run: run(8).run,
                order: run(8).order.unwrap(),
                serial: run(8).serial,
                nest: run(8).nest,
                time: SystemTime::UNIX_EPOCH,
                controller: "http://127.0.0.1:7100/".to_owned(),
                reasons: vec!["ROUTE: it was never assembled".to_owned()],
            }),
            commanded("nest-1", 23, NestAct::Enable),
            of_recipe(1, 33, RecipeAct::Activate),
            of_recipe(2, 34, RecipeAct::Remove),
            // The same again is held since it came first.
            of_recipe(1, 35, RecipeAct::Keep),
            golden(9, "nest-1"),
            shown(9, "nest-1", Outcome::Fail),
            golden(10, "nest-1"),
            shown(10, "nest-1", Outcome::Pass),
            golden(11, "nest-2"),
            shown(11, "nest-2", Outcome::Aborted),
            closed(3, Outcome::Error, Some(quarantine())),
            Record::OrderMoved(moved(&run(4).order.unwrap(), 6, OrderState::Closed)),
            // No station writes this: what is closed stays closed.
            Record::OrderMoved(moved(&run(4).order.unwrap(), 7, OrderState::Open)),
            Record::StepPassed(Box::new(StepPassed { run: id, step: Step::Flash, findings })),
        ]
    }

    fn books_after(records: &[Record]) -> Books {
        let mut books = Books::default();
        records.iter().for_each(|record| books.learn(record.clone()).unwrap());
        books
    }

    #[test]
    fn a_run_remembers_that_it_was_aborted_and_why_at_first() {
        let asked = |number: u128, reason: &str| {
            let RunOpened { run, order, serial, nest, .. } = run(number);
            let (reason, time) = (reason.to_owned(), SystemTime::UNIX_EPOCH);
            Record::AbortAsked(AbortAsked { run, order, serial, nest, reason, time })
        };
        let mut books = Books::default();
        for record in [
            Record::RunOpened(run(1)),
            Record::RunOpened(run(2)),
            asked(1, "it smells"),
            asked(1, "it smokes"),
            Record::StepStarted(StepStarted { run: run(1).run, step: Step::Flash }),
            // Of a start that never was a run, and of one that has its result.
            asked(3, "wrong board"),
            closed(2, Outcome::Pass, None),
            asked(2, "too late"),
        ] {
            books.learn(record).unwrap();
        }
        let open: Vec<_> = books.open.values().map(|open| open.aborted.as_deref()).collect();
        assert_eq!(open, [Some("it smells")]);
    }

    #[test]
    fn the_books_say_what_the_records_told() {
        let books = books_after(&story());
        let passed: Vec<u32> = books.orders.values().map(|order| order.passed).collect();
        assert_eq!(passed, [1]);
        let states: Vec<_> = books.orders.values().map(|order| (order.state(), order.reason())).collect();
        assert_eq!(states, [(OrderState::Closed, "reason 6")]);
        assert_eq!(books.parked.values().map(|it| it.command.as_u128()).collect::<Vec<_>>(), [21, 24]);
        assert_eq!(books.left_pack.keys().map(NestName::as_str).collect::<Vec<_>>(), ["nest-3"]);
        assert_eq!(books.recipes.values().map(|it| it.command.as_u128()).collect::<Vec<_>>(), [30]);
        assert_eq!(books.activated.values().map(|it| it.digest[0]).collect::<Vec<_>>(), [1]);
        let golden: Vec<_> = books.golden.values().map(|it| (it.nest.as_str(), it.outcome)).collect();
        assert_eq!(golden, [("nest-1", Outcome::Pass)]);
        assert_eq!(books.quarantined.keys().collect::<Vec<_>>(), [&run(3).serial]);
        let open = &books.open[&run(4).run];
        let Record::RunOpened(begun) = offline(4, 1) else { unreachable!("it begins a run") };
        assert_eq!(open.phase, Phase::Between { run: begun, done: Some(Step::Flash) });
        assert_eq!(books.open.len(), 4);
        let left = books.budget.left(SystemTime::UNIX_EPOCH);
        assert_eq!((left.allowance, left.left), (Some(Uuid::from_u128(2)), 6));
        assert_eq!(open.findings.firmware_version.as_deref(), Some("1.0.0"));
    }

    #[test]
    fn a_checkpoint_anywhere_and_the_records_behind_it_give_the_same_books() {
        let story = story();
        for at in 0..=story.len() {
            let bytes = minicbor::to_vec(books_after(&story[..at]).checkpoint(7.into())).unwrap();
            let checkpoint: Checkpoint = minicbor::decode(&bytes).unwrap();
            let open = checkpoint.open.clone();
            let mut books = Books::at(checkpoint);
            for record in &story[..at] {
                if record.run().is_some_and(|run| open.contains(&run.to_string())) {
                    books.learn(record.clone()).unwrap();
                }
            }
            story[at..].iter().for_each(|record| books.learn(record.clone()).unwrap());
            assert_eq!(books, books_after(&story), "checkpoint after {at} records");
        }
    }
}
