//! Asks a nest's instruments whether they answer: when the nest opens, when a unit leaves it after trouble,
//! and, ever more patiently, while it is parked. Never while a unit is in it.

use std::{mem, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use factory_proto::outcome::Outcome;
use tokio::{
    task::JoinError,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{
    Keeper, Left, Start, State,
    ask::Reply,
    parking::{News, Parking},
};
use crate::{
    record::{RunId, RunOpened},
    rig::Rig,
};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// What a check gives: the instruments, and what those that do not answer say.
type Checked = (Box<Rig>, Result<(), String>);

/// A check that goes on. Dropped, it is broken off.
pub(super) struct Check {
    task: AbortOnDropHandle<Checked>,
    /// The run that was in the nest until now, if its unit's leaving waits for this to be told.
    pub(super) left: Option<RunId>,
    /// Who wants to start a unit.
    waiting: Vec<(Start, Reply)>,
}

impl Check {
    /// Waits until it is done. May be given up and called again.
    pub(super) async fn done(&mut self) -> Result<Checked, JoinError> {
        (&mut self.task).await
    }

    /// Answers a start when it is done.
    pub(super) fn wait(&mut self, start: Start, reply: Reply) {
        self.waiting.push((start, reply));
    }
}

/// What is known of the instruments, and when they are asked next.
pub(super) struct Health {
    parking: Parking,
    pauses: ExponentialBackoff,
    due: Instant,
}

impl Default for Health {
    fn default() -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(SHORTEST)
            .with_max_delay(LONGEST)
            .with_jitter()
            .without_max_times();
        Self { parking: Parking::default(), pauses: pauses.build(), due: Instant::now() }
    }
}

impl Health {
    /// Why the nest takes no units; `None` when it takes them.
    pub(super) fn parked(&self) -> Option<&str> {
        self.parking.reason()
    }

    /// Waits until the instruments of a parked nest are to be asked again; for ever if it is not parked.
    pub(super) async fn due(&self) {
        match self.parking {
            Parking::Parked { .. } => sleep_until(self.due).await,
            Parking::Open { .. } => std::future::pending().await,
        }
    }

    fn learn(&mut self, news: News) {
        // Patience ends with proof that they work; that they answer is less.
        if news == News::Worked {
            *self = Self::default();
        }
        self.parking = mem::take(&mut self.parking).after(news);
        if self.parked().is_some() {
            self.due = Instant::now() + self.pauses.next().unwrap_or(LONGEST);
        }
    }
}

impl Keeper {
    /// A worker has ended: what its run tells of the instruments, and whether they are to be asked.
    pub(super) fn empty(&mut self, run: &RunOpened, rig: Box<Rig>) {
        let closed = self.shared.units.find(run.run).ok().flatten().and_then(|unit| unit.closed);
        let trouble = rig.trouble();
        self.state = State::Free(rig);
        match (closed.map(|closed| closed.outcome), trouble) {
            (Some(Outcome::Pass), _) => self.health.learn(News::Worked),
            (Some(Outcome::Error | Outcome::Timeout), None) | (Some(Outcome::Aborted), Some(_)) => {
                return self.check(Some(run.run));
            }
            (_, None) => {}
            (_, Some(trouble)) => {
                self.health.learn(News::Failed(trouble));
                if self.health.parked().is_none() {
                    return self.check(Some(run.run));
                }
            }
        }
        self.tell();
    }

    /// Has the instruments of a free nest say whether they answer.
    pub(super) fn check(&mut self, left: Option<RunId>) {
        let state = mem::replace(&mut self.state, State::OutOfOrder);
        self.state = match state {
            State::Free(mut rig) => {
                let task = tokio::spawn(async move {
                    let answer = rig.check().await;
                    (rig, answer)
                });
                State::Checking(Check { task: AbortOnDropHandle::new(task), left, waiting: Vec::new() })
            }
            other => other,
        };
    }

    pub(super) async fn checked(&mut self, checked: Result<Checked, JoinError>) {
        let State::Checking(Check { left, waiting, .. }) = mem::replace(&mut self.state, State::OutOfOrder)
        else {
            unreachable!("a check ends in the state that it began")
        };
        let before = self.health.parked().map(str::to_owned);
        match checked {
            Ok((rig, answer)) => {
                self.state = State::Free(rig);
                self.health.learn(answer.map_or_else(News::Unanswered, |()| News::Answered));
            }
            Err(error) => self.break_down(&error),
        }
        if self.health.parked().is_none()
            && let Some(Left { open, recipe, place }) = self.left.take()
        {
            self.occupy(open, true, recipe, place);
        } else if left.is_some() || self.health.parked() != before.as_deref() {
            self.tell();
        }
        for (start, reply) in waiting {
            self.start(start, reply).await;
        }
    }

    /// Tells watchers that the nest is free, or parked.
    pub(super) fn tell(&self) {
        match self.health.parked() {
            None => {
                info!(nest = %self.name, "nest is free");
                self.shared.events.tell_nest(&self.name, false);
            }
            Some(reason) => {
                warn!(nest = %self.name, reason, "nest is parked");
                self.shared.events.tell_parked(&self.name, reason);
            }
        }
    }
}
