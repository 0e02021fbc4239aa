//! What the station does that is not durable, told to whoever watches, as it happens: the state of each nest, and how
//! far its step has come. What is durable is told from the journal; each event here says behind which record it belongs.
//!
//! A slow watcher costs no memory: of a nest, the newest of a kind waits for it, and takes the place of an older one.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use factory_fixtures::instrument::Progress;
use factory_journal::{Journal, Sequence};
use factory_proto::{ids::NestName, outcome::Outcome};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::{
    record::{Record, RunId, RunOpened},
    step::Step,
};

/// As many may watch at a time. Each costs the journal's reading buffer, 256 KiB, while it catches up.
pub const MOST_WATCHERS: usize = 64;

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub time: SystemTime,
    /// The last record that was durable then.
    pub after: Sequence,
    /// Where.
    pub nest: NestName,
    /// To which run.
    pub run: Option<About>,
    /// What.
    pub what: What,
}

/// The run that an event is about.
#[derive(Debug, Clone)]
pub enum About {
    /// Only its id is at hand.
    Id(RunId),
    /// What it began as.
    Run(Box<RunOpened>),
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
    /// A step goes on.
    Progress(Step, Progress),
    /// A step ended and did not pass. The result that follows is durable, and says so too.
    StepStopped(Step, Outcome),
}

impl What {
    /// Whether the newer of two about one nest makes the older one pointless.
    fn overtakes(&self, older: &Self) -> bool {
        let kind = |what: &Self| match what {
            Self::Nest { .. } | Self::Parked { .. } => 0,
            Self::Progress(..) => 1,
            Self::StepStopped(..) => 2,
        };
        kind(self) == kind(older)
    }
}

/// Where events go; clones share it.
#[derive(Clone)]
pub struct Events(Arc<Hub>);

struct Hub {
    journal: Arc<Journal<Record>>,
    watchers: Mutex<Vec<Arc<Inbox>>>,
    closed: CancellationToken,
}

/// What waits for one watcher.
#[derive(Default)]
struct Inbox {
    /// The station's own are not among those that are limited.
    is_ours: bool,
    waiting: Mutex<VecDeque<Event>>,
    news: Notify,
}

/// All events from its beginning on; ends when dropped.
pub struct Watch {
    hub: Arc<Hub>,
    inbox: Arc<Inbox>,
}

impl Events {
    /// About what happens beside this journal.
    pub fn new(journal: Arc<Journal<Record>>) -> Self {
        let (watchers, closed) = (Mutex::default(), CancellationToken::new());
        Self(Arc::new(Hub { journal, watchers, closed }))
    }

    /// All events from now on; `None` when too many watch already.
    pub fn watch(&self) -> Option<Watch> {
        let mut watchers = lock(&self.0.watchers);
        if watchers.iter().filter(|inbox| !inbox.is_ours).count() >= MOST_WATCHERS {
            return None;
        }
        let inbox = Arc::<Inbox>::default();
        watchers.push(inbox.clone());
        Some(Watch { hub: self.0.clone(), inbox })
    }

    /// The same for a part of the station itself.
    pub fn watch_ourselves(&self) -> Watch {
        let inbox = Arc::new(Inbox { is_ours: true, ..Inbox::default() });
        lock(&self.0.watchers).push(inbox.clone());
        Watch { hub: self.0.clone(), inbox }
    }

    /// Nothing more happens: lets all watchers end.
    pub fn close(&self) {
        self.0.closed.cancel();
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
        self.send(&run.nest, Some(run), what);
    }

    fn send(&self, nest: &NestName, run: Option<&RunOpened>, what: What) {
        let watchers = lock(&self.0.watchers);
        if watchers.is_empty() {
            return;
        }
        let (time, after) = (SystemTime::now(), self.0.journal.last());
        let run = run.map(|run| About::Run(Box::new(run.clone())));
        let event = Event { time, after, nest: nest.clone(), run, what };
        for inbox in watchers.iter() {
            inbox.put(event.clone());
        }
    }
}

impl Inbox {
    fn put(&self, event: Event) {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|older| older.nest != event.nest || !event.what.overtakes(&older.what));
        waiting.push_back(event);
        drop(waiting);
        self.news.notify_one();
    }
}

impl Watch {
    /// Adds what the state of a nest was when the watch had begun, unless a newer one waits already.
    pub fn add_state(&self, nest: &NestName, run: Option<RunId>, what: What) {
        let mut waiting = lock(&self.inbox.waiting);
        if !waiting.iter().any(|newer| newer.nest == *nest && newer.what.overtakes(&what)) {
            let (time, after) = (SystemTime::now(), self.hub.journal.last());
            waiting.push_back(Event { time, after, nest: nest.clone(), run: run.map(About::Id), what });
        }
    }

    /// Behind which record the next event belongs; `None` when none waits.
    pub fn waits_for(&self) -> Option<Sequence> {
        lock(&self.inbox.waiting).front().map(|event| event.after)
    }

    /// The next event that waits.
    pub fn take(&self) -> Option<Event> {
        lock(&self.inbox.waiting).pop_front()
    }

    /// Returns when there may be more. May be given up and called again.
    pub async fn news(&self) {
        self.inbox.news.notified().await;
    }

    /// Returns when nothing more happens.
    pub fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.hub.closed.cancelled()
    }

    /// Whether nothing more happens.
    pub fn is_closed(&self) -> bool {
        self.hub.closed.is_cancelled()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.hub.watchers).retain(|inbox| !Arc::ptr_eq(inbox, &self.inbox));
        // Whoever tells an event just now has its own hold of the inbox.
        drop(mem::take(&mut *lock(&self.inbox.waiting)));
    }
}

// Nothing under these locks can fail half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use factory_journal::Options;

    use super::*;

    fn events(dir: &std::path::Path) -> Events {
        Events::new(Arc::new(Journal::open(dir, Options::default()).unwrap()))
    }

    fn told(watch: &Watch) -> Vec<String> {
        let text = |event: Event| match event.what {
            What::Nest { busy } => format!("{} {}", event.nest, if busy { "busy" } else { "free" }),
            What::Parked { reason } => format!("{} parked: {reason}", event.nest),
            What::Progress(step, progress) => format!("{} {step} {}", event.nest, progress.done),
            What::StepStopped(step, outcome) => format!("{} {step} {outcome}", event.nest),
        };
        std::iter::from_fn(|| watch.take()).map(text).collect()
    }

    #[tokio::test]
    async fn a_watcher_that_is_slow_gets_the_newest_of_each_kind() {
        let dir = tempfile::tempdir().unwrap();
        let events = events(dir.path());
        let (a, b) = ("A".parse().unwrap(), "B".parse().unwrap());
        let watch = events.watch().unwrap();
        events.tell_nest(&a, true);
        events.tell_nest(&b, true);
        events.tell_nest(&a, false);
        watch.news().await;
        assert_eq!(told(&watch), ["B busy", "A free"]);
        events.tell_parked(&a, "no probe");
        events.tell_nest(&b, false);
        assert_eq!(told(&watch), ["A parked: no probe", "B free"]);
        // What was looked up may be older than what waits.
        events.tell_nest(&a, true);
        watch.add_state(&a, None, What::Nest { busy: false });
        watch.add_state(&b, None, What::Nest { busy: false });
        assert_eq!(told(&watch), ["A busy", "B free"]);
    }

    #[tokio::test]
    async fn so_many_may_watch_and_who_goes_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let events = events(dir.path());
        let mut all: Vec<Watch> = (0..MOST_WATCHERS).map(|_| events.watch().unwrap()).collect();
        assert!(events.watch().is_none());
        all.pop();
        all.push(events.watch().unwrap());
        assert!(events.watch().is_none());
        events.close();
        assert!(all.iter().all(Watch::is_closed));
    }
}
