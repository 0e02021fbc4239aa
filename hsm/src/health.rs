//! Whether the signer serves, as grpc.health.v1 tells it: it does while no part of it has a fault.
//!
//! Knows nothing of what the parts are made of.

use std::{collections::BTreeMap, sync::Arc};

use factory_proto::signer::signer_server;
use tokio::sync::Mutex;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use tracing::{info, warn};

/// Whom it tells it of; the empty name is the server as a whole.
const SERVICES: [&str; 2] = ["", signer_server::SERVICE_NAME];

/// What may have a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// It does not sign.
    Token,
    /// A call hangs inside it.
    Module,
    /// It has no room for new issuances.
    Ledger,
    /// The ledger does not hold what was signed of it.
    Memory,
    /// The signer was told to stop.
    Process,
}

/// The signer's health; clones are the same.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    faults: Arc<Mutex<BTreeMap<Part, String>>>,
}

impl Default for Health {
    fn default() -> Self {
        Self { reporter: HealthReporter::new(), faults: Arc::default() }
    }
}

impl Health {
    /// The service that tells it, of the server as a whole (the empty name) and of the signer's API.
    pub async fn service(&self) -> HealthServer<HealthService> {
        self.report(&*self.faults.lock().await).await;
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Says that a part has a fault, or that it has none.
    pub async fn set(&self, part: Part, fault: Option<String>) {
        let mut faults = self.faults.lock().await;
        if faults.get(&part) == fault.as_ref() {
            return;
        }
        match &fault {
            Some(fault) => warn!(?part, fault, "not serving"),
            None => info!(?part, "well again"),
        }
        match fault {
            Some(fault) => _ = faults.insert(part, fault),
            None => _ = faults.remove(&part),
        }
        // Under the lock: what is reported last is what is true.
        self.report(&faults).await;
    }

    /// Says that the signer stops, and lets go of whoever watches.
    pub async fn stop(&self) {
        self.set(Part::Process, Some("it was told to stop".to_owned())).await;
        let mut reporter = self.reporter.clone();
        for service in SERVICES {
            reporter.clear_service_status(service).await;
        }
    }

    async fn report(&self, faults: &BTreeMap<Part, String>) {
        let status = if faults.is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
