//! The side that the station calls: takes results, keeps each once, acknowledges what is on disk.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use data_encoding::{BASE64, HEXLOWER};
use factory_proto::{
    head::HeadStatement,
    station::{
        HeartbeatRequest, HeartbeatResponse, Outcome, RefusedReport, ReportResultsRequest,
        ReportResultsResponse, SignedHead, Unit, ValidateUnitRequest, ValidateUnitResponse,
        line_controller_server::{LineController, LineControllerServer},
        report_results_request::Report,
    },
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{mpsc, oneshot, watch},
};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    interlock::Gate,
    temper::{Acknowledges, Temper},
};

/// Reports that are made durable together, at most.
const BATCH: usize = 64;

/// A line controller with its results in a file, one JSON object a line. Clones are the same controller.
#[derive(Clone)]
pub struct Controller {
    store: Arc<Mutex<Store>>,
    count: Arc<watch::Sender<Count>>,
    gate: Gate,
}

/// What a controller got, repetitions included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Reports that came in, each as often as it came.
    pub received: usize,
    /// Results that were kept.
    pub kept: usize,
    /// Heads that were kept.
    pub heads: usize,
    /// Calls that the station made.
    pub calls: usize,
}

struct Store {
    file: File,
    /// Where signed heads are kept, one file each.
    heads_folder: PathBuf,
    temper: Temper,
    keys: BTreeSet<(String, u64)>,
    results: Vec<((String, u64), Unit)>,
    heads: Vec<SignedHead>,
}

/// Of one batch: the key of its last report, and what it refuses.
type Answer = ReportResultsResponse;

impl Controller {
    /// A controller that appends to `file`, and keeps signed heads in a folder beside it, `NAME.heads`.
    pub fn new(file: &Path) -> anyhow::Result<Self> {
        let heads_folder = file.with_extension("heads");
        let file = OpenOptions::new().create(true).append(true).open(file)?;
        let store = Store {
            file,
            heads_folder,
            temper: Temper::default(),
            keys: BTreeSet::new(),
            results: Vec::new(),
            heads: Vec::new(),
        };
        let count = Arc::new(watch::channel(Count::default()).0);
        Ok(Self { store: Arc::new(Mutex::new(store)), count, gate: Gate::default() })
    }

    /// What it was asked and told beside results.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Changes how it behaves, from the next batch on.
    pub fn behave(&self, temper: Temper) {
        self.store().temper = temper;
    }

    /// Serves until the task is aborted, which also ends the calls that are under way.
    ///
    /// In a thread of its own, so that it answers also while a test blocks.
    pub async fn serve(self, address: SocketAddr) -> anyhow::Result<()> {
        let stop = CancellationToken::new();
        let (done, ended) = oneshot::channel();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let ended = Runtime::new().map_err(anyhow::Error::from).and_then(|runtime| {
                runtime.block_on(stopped.run_until_cancelled(self.serve_here(address))).unwrap_or(Ok(()))
            });
            // Nobody listens any more after an abort.
            let _ = done.send(ended);
        });
        let _serving = Serving { stop, thread: Some(thread) };
        ended.await?
    }

    async fn serve_here(self, address: SocketAddr) -> anyhow::Result<()> {
        let listener = TcpListener::bind(address).await?;
        Server::builder()
            .add_service(LineControllerServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await?;
        Ok(())
    }

    /// Waits until there are so many results.
    pub async fn wait_for(&self, results: usize) -> anyhow::Result<()> {
        self.wait_until(|count| count.kept >= results).await
    }

    /// Waits until something is true of what it got.
    pub async fn wait_until(&self, mut wanted: impl FnMut(&Count) -> bool) -> anyhow::Result<()> {
        self.count.subscribe().wait_for(|count| wanted(count)).await?;
        Ok(())
    }

    /// What it got until now.
    pub fn count(&self) -> Count {
        *self.count.borrow()
    }

    /// The results in the order of their keys.
    pub fn results(&self) -> Vec<Unit> {
        let mut results = self.store().results.clone();
        results.sort_by(|(a, _), (b, _)| a.cmp(b));
        results.into_iter().map(|(_, unit)| unit).collect()
    }

    /// The ids of the runs that it has more than one result of: there must be none.
    pub fn doubled_runs(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let runs = self.store().results.iter().map(|(_, unit)| unit.run_id.clone()).collect::<Vec<_>>();
        runs.into_iter().filter(|run| !seen.insert(run.clone())).collect()
    }

    /// The signed heads, as they came.
    pub fn heads(&self) -> Vec<SignedHead> {
        self.store().heads.clone()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one call: takes what is there, makes it durable with one sync, answers once.
    async fn converse(
        &self,
        mut batch: Vec<ReportResultsRequest>,
        mut reports: Streaming<ReportResultsRequest>,
        answers: mpsc::Sender<Result<Answer, Status>>,
    ) {
        loop {
            while batch.len() < BATCH {
                tokio::select! {
                    biased;
                    report = reports.next() => match report {
                        Some(Ok(report)) => batch.push(report),
                        Some(Err(_)) | None => break,
                    },
                    () = std::future::ready(()) => break,
                }
            }
            for answer in self.take(std::mem::take(&mut batch)).await {
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
            match reports.next().await {
                Some(Ok(report)) => batch.push(report),
                Some(Err(_)) | None => return,
            }
        }
    }

    /// Makes a batch durable, and gives the answers to it.
    async fn take(&self, batch: Vec<ReportResultsRequest>) -> Vec<Result<Answer, Status>> {
        let Some(last) = batch.last().map(|report| report.sequence) else { return Vec::new() };
        let kept = self.keep(batch);
        let temper = self.store().temper.clone();
        let refused = match kept {
            Ok(refused) => refused,
            Err(status) => return vec![Err(status)],
        };
        tokio::time::sleep(temper.pace).await;
        let answer = |acknowledged_sequence, refused| Ok(Answer { acknowledged_sequence, refused });
        match temper.acknowledges {
            Acknowledges::Once => vec![answer(last, refused)],
            Acknowledges::Twice => vec![answer(last, refused), answer(last, Vec::new())],
            Acknowledges::Behind(reports) => vec![answer(last.saturating_sub(reports), refused)],
            Acknowledges::Never => Vec::new(),
            Acknowledges::Absurdly => vec![answer(last + 1_000_000, refused)],
            Acknowledges::RefusesAbsurdly => {
                let unsent = RefusedReport { sequence: last + 1_000_000, reason: String::new() };
                vec![answer(last, vec![unsent])]
            }
        }
    }

    /// Makes durable what is new in a batch, with one sync; gives what is refused, or the end of the stream.
    fn keep(&self, batch: Vec<ReportResultsRequest>) -> Result<Vec<RefusedReport>, Status> {
        let mut store = self.store();
        let received = batch.len();
        let (mut lines, mut refused, mut ended) = (String::new(), Vec::new(), Ok(()));
        for ReportResultsRequest { station, sequence, report } in batch {
            let key = (station, sequence);
            match report {
                Some(Report::Unit(unit)) if store.temper.refuses.contains(&unit.serial) => {
                    refused.push(RefusedReport { sequence, reason: format!("no {} is known", unit.serial) });
                }
                Some(Report::Unit(unit)) => {
                    if let Some((serial, code)) = &store.temper.ends_at
                        && *serial == unit.serial
                    {
                        ended = Err(Status::new(*code, format!("result of {serial} cannot be taken")));
                        break;
                    }
                    if store.is_new(&key) {
                        lines.push_str(&summary(&key, &unit).to_string());
                        lines.push('\n');
                        store.results.push((key, unit));
                    }
                }
                Some(Report::Head(head)) => {
                    if store.is_new(&key) {
                        store.keep_head(head)?;
                    }
                }
                None => refused.push(RefusedReport { sequence, reason: "no known report".to_owned() }),
            }
        }
        if !lines.is_empty() {
            store.file.write_all(lines.as_bytes())?;
            store.file.sync_data()?;
        }
        let (kept, heads) = (store.results.len(), store.heads.len());
        drop(store);
        self.count.send_modify(|count| {
            *count = Count { received: count.received + received, kept, heads, ..*count };
        });
        ended.map(|()| refused)
    }
}

impl Store {
    fn is_new(&mut self, key: &(String, u64)) -> bool {
        self.keys.insert(key.clone()) || self.temper.ignores_keys
    }

    /// Keeps a head in a file of its own, which `stationctl provenance verify --head` takes.
    fn keep_head(&mut self, head: SignedHead) -> Result<(), Status> {
        let statement = HeadStatement::decode(&head.statement)
            .map_err(|error| Status::invalid_argument(format!("head.statement: {error}")))?;
        let name = format!("{}-{:020}.json", statement.station, statement.last_sequence);
        let certificates: Vec<String> = head.certificates.iter().map(|der| BASE64.encode(der)).collect();
        let text = json!({
            "statement": BASE64.encode(&head.statement),
            "signature": BASE64.encode(&head.signature),
            "certificates": certificates,
        });
        fs::create_dir_all(&self.heads_folder)?;
        let mut file = File::create(self.heads_folder.join(name))?;
        file.write_all(text.to_string().as_bytes())?;
        file.sync_all()?;
        self.heads.push(head);
        Ok(())
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
        .map(|a| {
            let items: Vec<_> = a
                .items
                .iter()
                .map(|item| json!({"kind": item.kind, "name": item.name, "sha256": HEXLOWER.encode(&item.digest)}))
                .collect();
            json!({
                "session": a.session, "return-status": a.return_status, "info": a.info_message,
                "warnings": a.warnings, "items": items,
            })
        })
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

/// Ends a controller's thread, and with it its port and its connections, when it is dropped.
struct Serving {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
        // A thread that panicked has said so.
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

#[tonic::async_trait]
impl LineController for Controller {
    type ReportResultsStream = Pin<Box<dyn Stream<Item = Result<ReportResultsResponse, Status>> + Send>>;

    async fn report_results(
        &self,
        request: Request<Streaming<ReportResultsRequest>>,
    ) -> Result<Response<Self::ReportResultsStream>, Status> {
        // As servers in other languages do, it answers the call only when the first message is there.
        let mut reports = request.into_inner();
        let first = reports.next().await.transpose()?;
        self.count.send_modify(|count| count.calls += 1);
        // An answer waits until the station has taken the one before.
        let (answers, stream) = mpsc::channel(1);
        let controller = self.clone();
        tokio::spawn(async move { controller.converse(first.into_iter().collect(), reports, answers).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn validate_unit(
        &self,
        request: Request<ValidateUnitRequest>,
    ) -> Result<Response<ValidateUnitResponse>, Status> {
        let temper = self.store().temper.clone();
        Ok(Response::new(self.gate.validate(request.into_inner(), &temper).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let temper = self.store().temper.clone();
        Ok(Response::new(self.gate.beat(request.into_inner(), &temper)))
    }
}
