//! The station's health: what is known of each part is kept up to date, and served as gRPC clients ask for it, the station
//! itself and its parts by name.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use factory_journal::{Journal, Room};
use factory_proto::ids::NestName;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    contact::{Contact, Known},
    events::{Watch, What},
    nest::Nest,
    provenance::Trouble,
    record::Record,
};

pub mod clock;
pub mod parts;

use clock::Clock;
use parts::{Part, Parts};

/// Not well while no heads of the log are signed.
const PROVENANCE: &str = "provenance";
/// Not well while no new unit is started for want of room, or because a write failed.
const JOURNAL: &str = "journal";
/// Not well while the journal's disk has little room.
const DISK: &str = "disk";
/// Not well while the clock stands before a time that it has shown.
const CLOCK: &str = "clock";
/// Not well while the signer does not answer.
const SIGNER: &str = "signer";
/// Not well while the controller does not answer.
const CONTROLLER: &str = "controller";

const GLANCE: Duration = Duration::from_secs(10);

/// Why the journal takes no new work, and what to do; `None` when it does.
pub fn journal_trouble(journal: &Journal<Record>) -> Option<String> {
    told(&journal.room().borrow())
}

/// Where what is known of the parts comes from.
pub struct Sources {
    /// Its room and its writes.
    pub journal: Arc<Journal<Record>>,
    /// The states of the nests, from before they were opened.
    pub states: Watch,
    /// The nests.
    pub nests: Arc<BTreeMap<NestName, Nest>>,
    /// Whether heads are signed.
    pub provenance: Trouble,
    /// Whether the signer answers.
    pub signer: Contact,
    /// Whether the controller does.
    pub controller: Contact,
}

/// Keeps the parts up to date for as long as the station lives.
pub fn watch(parts: &Parts, sources: Sources) {
    let Sources { journal, states, nests, provenance, signer, controller } = sources;
    tokio::spawn(watch_room(parts.clone(), journal.room()));
    tokio::spawn(watch_clock(parts.clone(), journal));
    tokio::spawn(watch_provenance(parts.clone(), provenance));
    tokio::spawn(watch_contact(parts.clone(), SIGNER, signer));
    tokio::spawn(watch_contact(parts.clone(), CONTROLLER, controller));
    tokio::spawn(watch_nests(parts.clone(), states, nests));
}

/// Serves the parts' health by their names for as long as the station lives; UNKNOWN as long as nothing is known of one.
pub async fn serve<'a>(reporter: HealthReporter, parts: &Parts, nests: impl Iterator<Item = &'a NestName>) {
    let names = [PROVENANCE, JOURNAL, DISK, CLOCK, SIGNER, CONTROLLER].map(str::to_owned);
    for name in names.into_iter().chain(nests.map(of_nest)) {
        reporter.set_service_status(name, ServingStatus::Unknown).await;
    }
    let mut news = parts.watch();
    tokio::spawn(async move {
        loop {
            let parts = news.borrow_and_update().clone();
            for (name, Part { trouble, .. }) in parts {
                reporter.set_service_status(name, status(trouble.is_none())).await;
            }
            if news.changed().await.is_err() {
                return;
            }
        }
    });
}

fn of_nest(nest: &NestName) -> String {
    format!("nest/{nest}")
}

fn told(room: &Room) -> Option<String> {
    match room {
        Room::Enough => None,
        Room::Low { free, needed } => Some(format!(
            "the journal's disk has {} MiB free, {} MiB are needed before a new unit is started; make space on it",
            free >> 20,
            needed >> 20
        )),
        Room::Failed { reason } => Some(format!(
            "a write of the journal failed ({reason}); see to its disk, then restart the station"
        )),
    }
}

async fn watch_room(parts: Parts, mut room: watch::Receiver<Room>) {
    loop {
        let room_now = room.borrow_and_update().clone();
        let trouble = told(&room_now);
        let low = trouble.clone().filter(|_| matches!(room_now, Room::Low { .. }));
        parts.tell(DISK, low);
        parts.tell(JOURNAL, trouble);
        if room.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_provenance(parts: Parts, trouble: Trouble) {
    let mut known = trouble.get();
    loop {
        parts.tell(PROVENANCE, known.clone());
        known = trouble.other_than(&known).await;
    }
}

async fn watch_contact(parts: Parts, name: &str, contact: Contact) {
    let mut news = contact.watch();
    loop {
        match news.borrow_and_update().clone() {
            Known::Nothing => {}
            Known::Answers => parts.tell(name, None),
            Known::Away(reason) => parts.tell(name, Some(reason)),
        }
        if news.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_clock(parts: Parts, journal: Arc<Journal<Record>>) {
    let read = tokio::task::spawn_blocking(move || journal.newest()).await;
    // What cannot be read is told elsewhere.
    let newest = read.ok().and_then(Result::ok).flatten().map(|entry| entry.time);
    let mut clock = Clock::since(newest);
    let mut ticks = interval(GLANCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        parts.tell(CLOCK, clock.look(SystemTime::now()));
    }
}

async fn watch_nests(parts: Parts, watch: Watch, nests: Arc<BTreeMap<NestName, Nest>>) {
    for nest in nests.values() {
        let look = nest.look().await;
        watch.add_state(nest.name(), look.run, look.state());
    }
    loop {
        while let Some(event) = watch.take() {
            let name = of_nest(&event.nest);
            match event.what {
                What::Nest { .. } => parts.tell(&name, None),
                What::Parked { reason } => parts.tell(&name, Some(reason)),
                What::Progress(..) | What::StepStopped(..) | What::Budget(_) => {}
            }
        }
        tokio::select! {
            () = watch.news() => {}
            () = watch.closed() => return,
        }
    }
}

fn status(well: bool) -> ServingStatus {
    if well { ServingStatus::Serving } else { ServingStatus::NotServing }
}
