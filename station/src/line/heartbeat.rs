//! Tells the line's controller, again and again, that the station lives and how it is. Takes the allowances that come
//! back.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use factory_proto::{
    ids::NestName,
    station::{HeartbeatRequest, HeartbeatResponse},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tracing::{info, warn};

use super::{
    Line,
    controllers::{Client, NoAnswer},
};
use crate::{health, nest::Nest, nest::Shared, provenance::Trouble, rpc::wire::line as wire};

/// A heartbeat that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// What beats.
pub struct Heart {
    /// How often.
    pub every: Duration,
    /// The nests by name.
    pub nests: Arc<BTreeMap<NestName, Nest>>,
    /// What they share.
    pub shared: Shared,
    /// Whether heads of the log are signed.
    pub provenance: Trouble,
    /// SHA-256 of the station file.
    pub configuration: [u8; 32],
}

impl Heart {
    /// Beats until it is told to stop; the first time at once.
    pub async fn beat(self, stop: CancellationToken) {
        let up_since = SystemTime::now();
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_served = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let beaten = async {
                let request = self.request(up_since).await;
                self.tell(request).await
            };
            let beaten = tokio::select! {
                beaten = beaten => beaten,
                () = stop.cancelled() => return,
            };
            match beaten {
                Ok((answer, controller)) => {
                    is_served = true;
                    self.take(answer, &controller).await;
                }
                Err(NoAnswer::Status { controller, status }) if status.code() == Code::Unimplemented => {
                    if std::mem::replace(&mut is_served, false) {
                        info!(controller, "this controller takes no heartbeats");
                    }
                }
                // Which one does not answer was told where that was found out.
                Err(NoAnswer::Away(_)) => {}
                Err(refused) => warn!(reason = %refused, "heartbeat refused"),
            }
        }
    }

    async fn tell(&self, request: HeartbeatRequest) -> Result<(HeartbeatResponse, String), NoAnswer> {
        let call = |mut client: Client, patience| {
            let mut request = Request::new(request.clone());
            request.set_timeout(patience);
            async move { client.heartbeat(request).await }
        };
        let Line { controllers, .. } = &self.shared.line;
        controllers.try_first(PATIENCE, call).await;
        controllers.ask(PATIENCE, call).await
    }

    async fn take(&self, answer: HeartbeatResponse, controller: &str) {
        if answer.offline_allowance.is_empty() {
            return;
        }
        let offline = &self.shared.line.offline;
        let before = offline.trouble();
        if let Err(error) = offline.grant(&answer.offline_allowance, controller).await
            && before != offline.trouble()
        {
            warn!(controller, reason = %error, "offline allowance not taken");
        }
    }

    async fn request(&self, up_since: SystemTime) -> HeartbeatRequest {
        let Shared { journal, backlog, line, .. } = &self.shared;
        let mut nests = Vec::new();
        for (name, nest) in &*self.nests {
            nests.push(wire::nest(name, nest.look().await));
        }
        let standing = backlog.standing();
        HeartbeatRequest {
            station: line.station.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_since: Some(up_since.into()),
            time: Some(SystemTime::now().into()),
            nests,
            unacknowledged_results: standing.results,
            oldest_unacknowledged: standing.oldest.map(Into::into),
            journal_trouble: health::journal_trouble(journal).unwrap_or_default(),
            provenance_trouble: self.provenance.get().unwrap_or_default(),
            offline_budget: Some(wire::budget(line.offline.left(), line.offline.trouble())),
            configuration_digest: self.configuration.to_vec(),
        }
    }
}
