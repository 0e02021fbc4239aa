//! What a station does for its own journal while it serves, so that it starts fast and stays small after years.

use std::{sync::Arc, time::Duration};

use factory_journal::{Journal, JournalError};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{provenance, record::Record, recovery, results};

// How often it is seen whether there is enough to be worth it.
const EVERY: Duration = Duration::from_secs(600);

/// Keeps the journal in order until it is told to stop; the first time at once.
pub async fn keep(journal: Arc<Journal<Record>>, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = recovery::checkpoint(&journal).await {
            let reason = factory_fixtures::fault::chain(&error);
            warn!(reason, "no checkpoint was made; the next start reads more of the journal");
        }
        if let Err(error) = compact(&journal).await {
            let reason = factory_fixtures::fault::chain(&error);
            warn!(reason, "the journal was not compacted");
        }
    }
}

/// Archives what the controller has, and what a signed head covers.
async fn compact(journal: &Arc<Journal<Record>>) -> Result<(), JournalError> {
    let journal = journal.clone();
    let done = spawn_blocking(move || journal.compact(&[results::RECEIVER, provenance::RECEIVER])).await;
    done.map_err(|_| JournalError::Closed)?.map(drop)
}
