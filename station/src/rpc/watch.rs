//! One watcher: what is durable, read from the journal at its own pace, and what is not, merged in the order in which it
//! happened. Knows which of it was asked for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use factory_journal::{Entry, Follower, Journal, JournalError, Sequence};
use factory_proto::{
    ids::{NestName, OrderId, Serial},
    station::{ErrorReason, EventKind, WatchEventsResponse},
};
use tokio::{sync::mpsc, task::spawn_blocking};
use tonic::Status;

use super::{
    refusal::{Refusal, refused},
    wire::event::{self, About},
};
use crate::{
    events::{self, Event, Events, Watch},
    nest::Nest,
    record::{Record, RunId, RunOpened},
    units::Units,
};

// Runs that are under way, of which there are as many as nests; a log that leaves more open is read more slowly.
const MOST_RUNS: usize = 1024;

/// Which events are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these nests; empty for all.
    pub nests: BTreeSet<NestName>,
    /// Of this order.
    pub order: Option<OrderId>,
    /// Of these kinds; empty for all.
    pub kinds: BTreeSet<EventKind>,
}

/// What somebody wants to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What comes behind this record; `None`: what happens from now on.
    pub after: Option<Sequence>,
    /// Which of it.
    pub filter: Filter,
}

/// A watcher's place in what happens.
pub struct Watcher {
    log: Follower<Record>,
    live: Watch,
    filter: Filter,
    journal: Arc<Journal<Record>>,
    units: Units,
    /// What runs under way belong to.
    runs: HashMap<RunId, About>,
    /// All up to here was told.
    last: Sequence,
}

/// What is next.
enum Next {
    Durable(Box<Entry<Record>>),
    Live(Event),
    /// Nothing happens any more.
    End,
}

impl Watcher {
    /// Begins where `wanted` says.
    ///
    /// # Errors
    /// Nothing is there yet; or too many watch.
    pub fn new(
        journal: &Arc<Journal<Record>>,
        events: &Events,
        units: &Units,
        wanted: Wanted,
    ) -> Result<Self, Status> {
        // Listening begins first, so that nothing falls between.
        let live = events.watch().ok_or_else(too_many)?;
        let newest = journal.last();
        let last = wanted.after.unwrap_or(newest);
        if last > newest {
            let refusal = Refusal::of(ErrorReason::SequenceBeyondLog).about("last_sequence", newest);
            return Err(refusal.says(&format!(
                "after_sequence is {last}, but this station's log ends at {newest}: it is another log, or was rolled \
                 back; read it from 0"
            )));
        }
        let log = journal.follow(last.next());
        let (journal, units, runs) = (journal.clone(), units.clone(), HashMap::new());
        Ok(Self { log, live, filter: wanted.filter, journal, units, runs, last })
    }

    /// Tells everything, the present state of each nest first or, to those who have something to catch up with, then;
    /// until the watcher or the station goes.
    pub async fn tell<'a>(
        mut self,
        nests: impl Iterator<Item = &'a Nest>,
        to_watcher: mpsc::Sender<Result<WatchEventsResponse, Status>>,
    ) {
        for nest in nests {
            let look = nest.look().await;
            self.live.add_state(nest.name(), look.run, look.state());
        }
        // Only when there is place for it, what is next is looked for: until then, the newest overtakes.
        while let Ok(place) = to_watcher.reserve().await {
            let told = tokio::select! {
                told = self.next_told() => told,
                () = to_watcher.closed() => return,
            };
            match told {
                Ok(Some(message)) => place.send(Ok(message)),
                Ok(None) => return place.send(Err(ended())),
                Err(error) => return place.send(Err(refused(error))),
            }
        }
    }

    /// The next that was asked for; `None` at the end.
    async fn next_told(&mut self) -> Result<Option<WatchEventsResponse>, JournalError> {
        loop {
            let (about, (kind, message)) = match self.next().await? {
                Next::Durable(entry) => {
                    self.last = entry.sequence;
                    let about = self.about(&entry).await?;
                    let told = event::durable(&entry, &about);
                    (about, told)
                }
                Next::Live(live) => {
                    let about = about_live(&live);
                    let told = event::live(&live, &about, self.last);
                    (about, told)
                }
                Next::End => return Ok(None),
            };
            if self.filter.takes(kind, &about) {
                return Ok(Some(message));
            }
        }
    }

    async fn next(&mut self) -> Result<Next, JournalError> {
        loop {
            // What is durable comes before what happened behind it.
            let until = match self.live.waits_for() {
                Some(after) => Some(after),
                None if self.live.is_closed() => Some(self.journal.last()),
                None => None,
            };
            if let Some(until) = until {
                match self.log.next_until(until).await? {
                    Some(entry) => return Ok(Next::Durable(Box::new(entry))),
                    None => match self.live.take() {
                        Some(event) => return Ok(Next::Live(event)),
                        None => return Ok(Next::End),
                    },
                }
            }
            tokio::select! {
                entry = self.log.next() => return Ok(Next::Durable(Box::new(entry?))),
                () = self.live.news() => {}
                () = self.live.closed() => {}
            }
        }
    }

    /// What a record belongs to. What it does not say itself is looked up in the log, once for each run.
    async fn about(&mut self, entry: &Entry<Record>) -> Result<About, JournalError> {
        match &entry.record {
            Record::OrderOpened(opened) => {
                Ok(About { order: Some(opened.order.clone()), ..About::default() })
            }
            Record::RunOpened(opened) => {
                let about = About::run(opened);
                self.remember(opened.run, about.clone());
                Ok(about)
            }
            Record::RunClosed(closed) => {
                self.runs.remove(&closed.opened.run);
                Ok(About::run(&closed.opened))
            }
            Record::StepStarted(_)
            | Record::StepPassed(_)
            | Record::IssuanceAsked(_)
            | Record::Issued(_)
            | Record::RunResumed(_)
            | Record::ChipSeen(_)
            | Record::TagSeen(_) => match entry.record.run() {
                Some(run) => self.of_run(run).await,
                None => Ok(About::default()),
            },
            Record::NestLeftPack(left) => {
                let run = left.run;
                self.look_up(move |units| units.opened(run)).await
            }
            Record::ReportRefused(refused) => match refused.run {
                Some(run) => self.look_up(move |units| units.opened(run)).await,
                None => Ok(About::default()),
            },
            Record::UnitReleased(released) => self.of_unit(&released.serial, entry.sequence).await,
            Record::UnitDisposed(disposed) => self.of_unit(&disposed.serial, entry.sequence).await,
            Record::UnitRefused(refused) => Ok(About {
                nest: Some(refused.nest.clone()),
                run: Some(refused.run),
                serial: Some(refused.serial.clone()),
                order: Some(refused.order.clone()),
            }),
            Record::AbortAsked(asked) => Ok(About {
                nest: Some(asked.nest.clone()),
                run: Some(asked.run),
                serial: Some(asked.serial.clone()),
                order: asked.order.clone(),
            }),
            Record::OrderMoved(moved) => Ok(About { order: Some(moved.order.clone()), ..About::default() }),
            Record::NestCommanded(it) => Ok(About { nest: Some(it.nest.clone()), ..About::default() }),
            Record::Checkpoint(_)
            | Record::RecipeCommanded(_)
            | Record::HeadSigned(_)
            | Record::BudgetGranted(_)
            | Record::RegistrationAttested(_)
            | Record::CommandDone(_)
            | Record::CallAudited(_) => Ok(About::default()),
        }
    }

    async fn of_run(&mut self, run: RunId) -> Result<About, JournalError> {
        if let Some(about) = self.runs.get(&run) {
            return Ok(about.clone());
        }
        let about = self.look_up(move |units| units.opened(run)).await?;
        let about = About { run: Some(run), ..about };
        self.remember(run, about.clone());
        Ok(about)
    }

    /// A unit that lies in no nest, and the order of its last run.
    async fn of_unit(&self, serial: &Serial, before: Sequence) -> Result<About, JournalError> {
        let unit = serial.clone();
        let last = self.look_up(move |units| units.last_opened(&unit, Some(before))).await?;
        Ok(About { serial: Some(serial.clone()), order: last.order, ..About::default() })
    }

    async fn look_up(
        &self,
        question: impl FnOnce(Units) -> Result<Option<RunOpened>, JournalError> + Send + 'static,
    ) -> Result<About, JournalError> {
        let units = self.units.clone();
        let found = spawn_blocking(move || question(units)).await.map_err(|_| JournalError::Closed)??;
        Ok(found.as_ref().map(About::run).unwrap_or_default())
    }

    fn remember(&mut self, run: RunId, about: About) {
        if self.runs.len() >= MOST_RUNS {
            self.runs.clear();
        }
        self.runs.insert(run, about);
    }
}

impl Filter {
    fn takes(&self, kind: EventKind, about: &About) -> bool {
        let of_nest =
            self.nests.is_empty() || about.nest.as_ref().is_some_and(|nest| self.nests.contains(nest));
        let of_order = self.order.is_none() || self.order == about.order;
        of_nest && of_order && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }
}

fn about_live(event: &Event) -> About {
    let about = match &event.run {
        Some(events::About::Run(run)) => About::run(run),
        Some(events::About::Id(run)) => About { run: Some(*run), ..About::default() },
        None => About::default(),
    };
    About { nest: Some(event.nest.clone()), ..about }
}

fn too_many() -> Status {
    let text = format!("{} clients watch this station already; end some of them", events::MOST_WATCHERS);
    Refusal::of(ErrorReason::TooManyWatchers).says(&text)
}

fn ended() -> Status {
    Refusal::of(ErrorReason::ShuttingDown)
        .says("the station shuts down; watch again, after last_sequence, when it is up")
}

#[cfg(test)]
mod tests;
