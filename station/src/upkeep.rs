//! What a station does for its own journal while it serves, so that it starts fast after years.

use std::time::Duration;

use factory_journal::Journal;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{record::Record, recovery};

// How often it is seen whether there is enough to be worth it.
const EVERY: Duration = Duration::from_secs(600);

/// Keeps the journal in order until it is told to stop; the first time at once.
pub async fn keep(journal: Journal<Record>, stop: CancellationToken) {
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
    }
}
