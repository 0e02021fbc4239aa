//! The station's health, as gRPC clients ask for it: the station itself, and by name the parts that can be in trouble
//! while it goes on.

use std::sync::Arc;

use factory_journal::{Journal, Room};
use tokio::sync::watch;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{provenance::Trouble, record::Record};

/// Not served while no heads of the log are signed.
const PROVENANCE: &str = "provenance";
/// Not served while no new unit is started for want of room.
const JOURNAL: &str = "journal";

/// Why the journal takes no new work, and what to do; `None` when it does.
pub fn journal_trouble(journal: &Journal<Record>) -> Option<String> {
    told(&journal.room().borrow())
}

/// Keeps the named parts' health up to date for as long as the station lives.
pub fn tell(reporter: HealthReporter, journal: &Arc<Journal<Record>>, provenance: Trouble) {
    tokio::spawn(tell_of_room(reporter.clone(), journal.room()));
    tokio::spawn(tell_of_provenance(reporter, provenance));
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

async fn tell_of_room(reporter: HealthReporter, mut room: watch::Receiver<Room>) {
    loop {
        let trouble = told(&room.borrow_and_update());
        reporter.set_service_status(JOURNAL, status(trouble.is_none())).await;
        if room.changed().await.is_err() {
            return;
        }
    }
}

async fn tell_of_provenance(reporter: HealthReporter, trouble: Trouble) {
    let mut known = trouble.get();
    loop {
        reporter.set_service_status(PROVENANCE, status(known.is_none())).await;
        known = trouble.other_than(&known).await;
    }
}

fn status(well: bool) -> ServingStatus {
    if well { ServingStatus::Serving } else { ServingStatus::NotServing }
}
