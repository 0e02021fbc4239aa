//! What the station does, told to whoever watches, as it happens. Nothing durable: that is the journal.

use std::time::SystemTime;

use factory_fixtures::instrument::Progress;
use factory_proto::{
    ids::{NestName, OrderId, Serial},
    outcome::Outcome,
};
use tokio::sync::broadcast;

use crate::{
    line::budget::Left,
    record::{Quarantine, Resumption, RunId, RunOpened, Stopped, UnitRefused},
    step::Step,
};

// A watcher that is this far behind misses the oldest and is told how many.
const BACKLOG: usize = 1024;

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub time: SystemTime,
    /// Where; absent where it is about the whole station.
    pub nest: Option<NestName>,
    /// To which run on which unit.
    pub run: Option<(RunId, Serial)>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// The nest is busy, or free.
    Nest {
        /// Whether a run is in it.
        busy: bool,
    },
    /// The nest takes no units: an instrument of it does not answer.
    Parked {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A run was durably accepted.
    Accepted {
        /// For this order.
        order: OrderId,
    },
    /// A step began.
    StepStarted(Step),
    /// A step ended.
    StepEnded(Step, Outcome),
    /// A step goes on.
    Progress(Step, Progress),
    /// A run that the station's end had left open goes on.
    Resumed(Resumption),
    /// The line's controller did not let a unit start.
    Refused(UnitRefused),
    /// What is left of the offline budget has changed.
    Budget(Left),
    /// A run ended, and its result is durable.
    Closed(Outcome, Option<Stopped>, Option<Quarantine>),
}

/// Where events go.
#[derive(Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Events {
    /// All events from now on.
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }

    /// Tells of a nest.
    pub fn tell_nest(&self, nest: &NestName, busy: bool) {
        self.send(nest, None, What::Nest { busy });
    }

    /// Tells that a nest is parked, and why.
    pub fn tell_parked(&self, nest: &NestName, reason: &str) {
        self.send(nest, None, What::Parked { reason: reason.to_owned() });
    }

    /// Tells of a run.
    pub fn tell(&self, run: &RunOpened, what: What) {
        self.send(&run.nest, Some((run.run, run.serial.clone())), what);
    }

    /// Tells that a unit was refused.
    pub fn tell_refused(&self, refused: UnitRefused) {
        let run = Some((refused.run, refused.serial.clone()));
        self.send(&refused.nest.clone(), run, What::Refused(refused));
    }

    /// Tells what is left of the offline budget now that a new allowance is in force.
    pub fn tell_budget(&self, left: Left) {
        self.send(None, None, What::Budget(left));
    }

    fn send<'a>(&self, nest: impl Into<Option<&'a NestName>>, run: Option<(RunId, Serial)>, what: What) {
        // An error says that nobody watches.
        let _ = self.0.send(Event { time: SystemTime::now(), nest: nest.into().cloned(), run, what });
    }
}
