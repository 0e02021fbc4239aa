//! Asks a nest's instruments whether they answer: when the nest opens, when a unit leaves it after trouble,
//! and, ever more patiently, while it is parked. Never while a unit is in it.

use std::{mem, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use factory_proto::outcome::Outcome;
use tokio::{
    sync::oneshot,
    task::JoinError,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use super::{
    HandError, Keeper, Left, Look, Start, State,
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
    /// Who wants to know what comes of it.
    asking: Vec<oneshot::Sender<Result<Look, HandError>>>,
    /// Who sees the lamp blink.
    watching: Vec<oneshot::Sender<Result<Look, HandError>>>,
    /// Who wants to see it blink afterwards.
    looking: Vec<oneshot::Sender<Result<Look, HandError>>>,
    /// Ends what need not be done.
    hurry: CancellationToken,
}

impl Check {
    /// Waits until it is done. May be given up and called again.
    pub(super) async fn done(&mut self) -> Result<Checked, JoinError> {
        (&mut self.task).await
    }

    /// Answers a start when it is done.
    pub(super) fn wait(&mut self, start: Start, reply: Reply) {
        self.hurry.cancel();
        self.waiting.push((start, reply));
    }

    /// Tells somebody what comes of it.
    pub(super) fn tell(&mut self, reply: oneshot::Sender<Result<Look, HandError>>) {
        self.asking.push(reply);
    }

    /// Tells somebody who sees the lamp blink when that is over, and whether it did.
    pub(super) fn watch(&mut self, reply: oneshot::Sender<Result<Look, HandError>>) {
        self.watching.push(reply);
    }

    /// Lets the lamp blink for somebody when it is done.
    pub(super) fn blink_then(&mut self, reply: oneshot::Sender<Result<Look, HandError>>) {
        self.looking.push(reply);
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
        self.free_since = std::time::Instant::now();
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
        self.begin_check(left, false);
    }

    /// The same, after its lamp has blinked.
    pub(super) fn blink_and_check(&mut self) {
        self.begin_check(None, true);
    }

    fn begin_check(&mut self, left: Option<RunId>, blinks: bool) {
        let hurry = CancellationToken::new();
        let state = mem::replace(&mut self.state, State::OutOfOrder(None));
        self.state = match state {
            State::Free(mut rig) => {
                let hurried = hurry.clone();
                let task = tokio::spawn(async move {
                    let blinked = if blinks { rig.blink(&hurried).await } else { Ok(()) };
                    let answer = match blinked {
                        Ok(()) => rig.check().await,
                        silent => silent,
                    };
                    (rig, answer)
                });
                let task = AbortOnDropHandle::new(task);
                State::Checking(Check {
                    task,
                    left,
                    waiting: Vec::new(),
                    asking: Vec::new(),
                    watching: Vec::new(),
                    looking: Vec::new(),
                    hurry,
                })
            }
            other => other,
        };
    }

    pub(super) async fn checked(&mut self, checked: Result<Checked, JoinError>) {
        let State::Checking(Check { left, waiting, asking, watching, looking, .. }) =
            mem::replace(&mut self.state, State::OutOfOrder(None))
        else {
            unreachable!("a check ends in the state that it began")
        };
        let before = self.health.parked().map(str::to_owned);
        let dark = checked.as_ref().ok().and_then(|(_, answer)| answer.clone().err());
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
        for reply in asking {
            // An asker that went away does not want the answer.
            let _ = reply.send(Ok(self.look()));
        }
        for reply in watching {
            let answer = match dark.clone() {
                None => Ok(self.look()),
                Some(reason) => Err(HandError::Dark { nest: self.name.clone(), reason }),
            };
            let _ = reply.send(answer);
        }
        for (start, reply) in waiting {
            self.start(start, reply).await;
        }
        for reply in looking {
            self.identify(reply);
        }
    }

    /// Tells watchers that the nest is free, or parked.
    pub(super) fn tell(&self) {
        match self.parked() {
            None => {
                info!(nest = %self.name, "nest is free");
                self.shared.events.tell_nest(&self.name, false);
            }
            Some(reason) => {
                warn!(nest = %self.name, reason, "nest is parked");
                self.shared.events.tell_parked(&self.name, &reason);
            }
        }
    }
}
