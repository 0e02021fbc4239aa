//! The side that the station calls: takes results, keeps each once, acknowledges what is on disk.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use data_encoding::HEXLOWER;
use factory_proto::station::{
    Outcome, ReportResultsRequest, ReportResultsResponse, Unit,
    line_controller_server::{LineController, LineControllerServer},
    report_results_request::Report,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// A line controller with its results in a file, one JSON object a line.
#[derive(Clone)]
pub struct Controller {
    store: Arc<Mutex<Store>>,
    count: Arc<watch::Sender<usize>>,
}

struct Store {
    file: File,
    results: BTreeMap<(String, u64), Unit>,
}

impl Controller {
    /// A controller that appends to `file`.
    pub fn new(file: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(file)?;
        let store = Store { file, results: BTreeMap::new() };
        Ok(Self { store: Arc::new(Mutex::new(store)), count: Arc::new(watch::channel(0).0) })
    }

    /// Serves until the task is aborted.
    pub async fn serve(self, address: SocketAddr) -> anyhow::Result<()> {
        let listener = TcpListener::bind(address).await?;
        Server::builder()
            .add_service(LineControllerServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await?;
        Ok(())
    }

    /// Waits until there are so many results.
    pub async fn wait_for(&self, results: usize) -> anyhow::Result<()> {
        self.count.subscribe().wait_for(|count| *count >= results).await?;
        Ok(())
    }

    /// The results in the order of their keys.
    pub fn results(&self) -> Vec<Unit> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.results.values().cloned().collect()
    }

    /// Makes a result durable, unless it is a repetition.
    fn keep(&self, request: ReportResultsRequest) -> Result<u64, Status> {
        let Some(Report::Unit(unit)) = request.report else {
            return Err(Status::invalid_argument("report: must be a unit"));
        };
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (request.station, request.sequence);
        if !store.results.contains_key(&key) {
            let mut line = summary(&key, &unit).to_string();
            line.push('\n');
            store.file.write_all(line.as_bytes())?;
            store.file.sync_data()?;
            store.results.insert(key, unit);
            self.count.send_replace(store.results.len());
        }
        Ok(request.sequence)
    }
}

fn summary((station, sequence): &(String, u64), unit: &Unit) -> serde_json::Value {
    let identity = unit.identity.clone().unwrap_or_default();
    let measurements: Vec<_> = unit
        .measurements
        .iter()
        .map(|m| json!({"name": m.name, "value": m.value, "unit": m.unit, "lower-limit": m.lower_limit, "upper-limit": m.upper_limit, "within-limits": m.within_limits}))
        .collect();
    let fcc: Vec<_> = unit
        .fcc_answers
        .iter()
        .map(|a| json!({"session": a.session, "return-status": a.return_status, "info": a.info_message, "warnings": a.warnings}))
        .collect();
    json!({
        "station": station, "sequence": sequence, "run": unit.run_id, "work-order": unit.work_order,
        "serial": unit.serial, "nest": unit.nest,
        "outcome": Outcome::try_from(unit.outcome).map_or("?", |outcome| outcome.as_str_name()),
        "failing-step": unit.failing_step, "reason": unit.reason,
        "firmware": unit.firmware_version,
        "flash-sha256": unit.flash.as_ref().map(|flash| HEXLOWER.encode(&flash.digest)),
        "measurements": measurements, "fcc": fcc,
        "endpoint-name": identity.endpoint_name, "enrolment-id": identity.enrolment_id,
        "tag-uid": unit.tag.as_ref().map(|tag| HEXLOWER.encode(&tag.uid)),
        "recipe-sha256": HEXLOWER.encode(&unit.recipe_digest),
    })
}

#[tonic::async_trait]
impl LineController for Controller {
    type ReportResultsStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<ReportResultsResponse, Status>> + Send>>;

    async fn report_results(
        &self,
        request: Request<Streaming<ReportResultsRequest>>,
    ) -> Result<Response<Self::ReportResultsStream>, Status> {
        let controller = self.clone();
        let keep = move |result: Result<ReportResultsRequest, Status>| {
            let acknowledged_sequence = controller.keep(result?)?;
            Ok(ReportResultsResponse { acknowledged_sequence, ..ReportResultsResponse::default() })
        };
        // As servers in other languages do, it answers the call only when the first message is there.
        let mut results = request.into_inner();
        let first = results.next().await.map(&keep);
        Ok(Response::new(Box::pin(tokio_stream::iter(first).chain(results.map(keep)))))
    }
}
