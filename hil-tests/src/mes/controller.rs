//! The reference controller: the side that the station calls. Takes results, keeps each once, acknowledges what is
//! on disk.
//!
//! An integrator starts here. What it owes a station is little, and all of it is in `Controller::converse`: take
//! what has come, make it durable in one transaction ([`Store`]), and only then acknowledge the last of it. The
//! station sends again whatever was not acknowledged, so the key (station, sequence) must tell a repetition, and
//! does, in a unique index: nothing of it is in memory, so any number of controllers may serve the same stations
//! over one database, and one may be killed at any time. What can never be taken is refused by name in an answer,
//! and the station goes on with the rest; what cannot be taken now ends the call with UNAVAILABLE, and the station
//! comes again. The [`Temper`] is for tests; leave it out.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use factory_door::tls::Tls;
use factory_proto::station::{
    HeartbeatRequest, HeartbeatResponse, RefusedReport, ReportResultsRequest, ReportResultsResponse,
    SignedHead, Unit, ValidateUnitRequest, ValidateUnitResponse,
    line_controller_server::{LineController, LineControllerServer},
    report_results_request::Report,
};
use prost::Message as _;
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
    store::{Batch, HeadRow, Kept, Place, ResultRow, Store, StoreError, StoredHead},
    temper::{Acknowledges, Temper},
    tls::{self, Station},
};

/// Reports of one call that are made durable together, at most: twice a station's window.
const BATCH: usize = 64;
/// And their bytes, at most, apart from the last one.
const BATCH_BYTES: usize = 1 << 20;

/// A line controller with its state in a store. Clones are the same controller.
#[derive(Clone)]
pub struct Controller {
    store: Store,
    temper: Arc<Mutex<Temper>>,
    count: Arc<watch::Sender<Count>>,
    gate: Gate,
    /// What one that ignores keys tells repetitions by.
    arrivals: Arc<AtomicU64>,
}

/// What a controller got, repetitions included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Reports that came in, each as often as it came.
    pub received: usize,
    /// Results that it kept, and those that were in the file that it was made with.
    pub kept: usize,
    /// Heads that were kept, likewise.
    pub heads: usize,
    /// Calls that the station made.
    pub calls: usize,
}

/// Of one batch: the key of its last report, and what it refuses.
type Answer = ReportResultsResponse;

impl Controller {
    /// A controller with its state in a SQLite file, which it makes if it is not there. Counts what is in it.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(file: &Path) -> anyhow::Result<Self> {
        let controller = Self::over(Store::open(Place::Sqlite(file.to_owned()))?);
        let (kept, heads) = controller.store.count()?;
        controller.count.send_replace(Count { kept, heads, ..Count::default() });
        Ok(controller)
    }

    /// A controller with its state in a store, which others may use at the same time.
    pub fn over(store: Store) -> Self {
        let count = Arc::new(watch::Sender::new(Count::default()));
        Self { store, temper: Arc::default(), count, gate: Gate::default(), arrivals: Arc::default() }
    }

    /// What it was asked and told beside results.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Changes how it behaves, from the next batch on.
    pub fn behave(&self, temper: Temper) {
        *self.temper() = temper;
    }

    /// Its store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Serves until the task is aborted, which also ends the calls that are under way.
    ///
    /// In a thread of its own, so that it answers also while a test blocks.
    ///
    /// # Errors
    /// The address is taken.
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
        self.serve_on(TcpListener::bind(address).await?, None).await
    }

    /// Serves whoever connects, with `tls` only stations that have a certificate, until it is dropped.
    ///
    /// # Errors
    /// Nobody can connect any more.
    pub async fn serve_on(self, listener: TcpListener, tls: Option<Tls>) -> anyhow::Result<()> {
        let service = LineControllerServer::new(self);
        match tls {
            Some(tls) => {
                let server = Server::builder().layer(tls::admission()).add_service(service);
                server.serve_with_incoming(tls::incoming(listener, tls)).await?;
            }
            None => {
                let server = Server::builder().add_service(service);
                server.serve_with_incoming(TcpListenerStream::new(listener)).await?;
            }
        }
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
    ///
    /// # Panics
    /// The store cannot be read.
    pub fn results(&self) -> Vec<Unit> {
        let mut results = Vec::new();
        let read = self.store.results(|result| {
            results.push(result);
            Ok(())
        });
        read.expect("a test's store can be read");
        results.sort_by(|a, b| (&a.station, a.sequence).cmp(&(&b.station, b.sequence)));
        results.into_iter().map(|result| result.unit).collect()
    }

    /// The ids of the runs that it has more than one result of: there must be none.
    ///
    /// # Panics
    /// The store cannot be read.
    pub fn doubled_runs(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let runs = self.results().into_iter().map(|unit| unit.run_id);
        runs.filter(|run| !seen.insert(run.clone())).collect()
    }

    /// The signed heads, as they came.
    ///
    /// # Panics
    /// The store cannot be read.
    pub fn heads(&self) -> Vec<SignedHead> {
        let mut heads = Vec::new();
        let read = self.store.heads(|StoredHead { head, .. }| {
            heads.push(head);
            Ok(())
        });
        read.expect("a test's store can be read");
        heads
    }

    fn temper(&self) -> MutexGuard<'_, Temper> {
        self.temper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one call: takes what is there, makes it durable in one transaction, answers once.
    async fn converse(
        &self,
        caller: Option<Station>,
        first: ReportResultsRequest,
        mut reports: Streaming<ReportResultsRequest>,
        answers: mpsc::Sender<Result<Answer, Status>>,
    ) {
        let mut next = Some(first);
        while let Some(report) = next {
            let mut length = report.encoded_len();
            let mut batch = vec![report];
            while batch.len() < BATCH && length < BATCH_BYTES {
                tokio::select! {
                    biased;
                    report = reports.next() => match report {
                        Some(Ok(report)) => {
                            length += report.encoded_len();
                            batch.push(report);
                        }
                        Some(Err(_)) | None => break,
                    },
                    () = std::future::ready(()) => break,
                }
            }
            for answer in self.take(caller.as_ref(), batch).await {
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
            next = reports.next().await.and_then(Result::ok);
        }
    }

    /// Makes a batch durable, and gives the answers to it.
    async fn take(
        &self,
        caller: Option<&Station>,
        batch: Vec<ReportResultsRequest>,
    ) -> Vec<Result<Answer, Status>> {
        let [Some(first), Some(last)] =
            [batch.first(), batch.last()].map(|report| report.map(|report| report.sequence))
        else {
            return Vec::new();
        };
        let temper = self.temper().clone();
        let refused = match self.keep(caller, batch, &temper).await {
            Ok(refused) => refused,
            Err(status) => return vec![Err(status)],
        };
        // Even no sleep lasts until the clock's next millisecond.
        if !temper.pace.is_zero() {
            tokio::time::sleep(temper.pace).await;
        }
        let answer = |acknowledged_sequence, refused| Ok(Answer { acknowledged_sequence, refused });
        match temper.acknowledges {
            Acknowledges::Once => vec![answer(last, refused)],
            Acknowledges::Twice => vec![answer(last, refused), answer(last, Vec::new())],
            Acknowledges::Backwards => {
                vec![answer(last, refused), answer(first.saturating_sub(1), Vec::new())]
            }
            Acknowledges::Behind(reports) => vec![answer(last.saturating_sub(reports), refused)],
            Acknowledges::Never => Vec::new(),
            Acknowledges::Absurdly => vec![answer(last + 1_000_000, refused)],
            Acknowledges::RefusesAbsurdly => {
                let unsent = RefusedReport { sequence: last + 1_000_000, reason: String::new() };
                vec![answer(last, vec![unsent])]
            }
        }
    }

    /// Makes durable what is new in a batch; gives what is refused, or the end of the stream.
    async fn keep(
        &self,
        caller: Option<&Station>,
        reports: Vec<ReportResultsRequest>,
        temper: &Temper,
    ) -> Result<Vec<RefusedReport>, Status> {
        let received = reports.len();
        let (mut batch, mut refused, mut ended) = (Batch::default(), Vec::new(), Ok(()));
        let mut refuse = |sequence, reason| refused.push(RefusedReport { sequence, reason });
        for ReportResultsRequest { station, sequence, report } in reports {
            ended = check(caller, &station);
            if ended.is_err() {
                break;
            }
            let key = if temper.ignores_keys {
                sequence << 20 | self.arrivals.fetch_add(1, Ordering::Relaxed)
            } else {
                sequence
            };
            match report {
                Some(Report::Unit(unit)) if temper.refuses.contains(&unit.serial) => {
                    refuse(sequence, format!("no {} is known", unit.serial));
                }
                Some(Report::Unit(unit)) => {
                    if let Some((serial, code)) = &temper.ends_at
                        && *serial == unit.serial
                    {
                        ended = Err(Status::new(*code, format!("result of {serial} cannot be taken")));
                        break;
                    }
                    match ResultRow::new(&station, key, unit) {
                        Ok(row) => batch.results.push(row),
                        Err(unfit) => refuse(sequence, unfit.to_string()),
                    }
                }
                Some(Report::Head(head)) => match HeadRow::new(&station, key, head) {
                    Ok(row) => batch.heads.push(row),
                    Err(unfit) => refuse(sequence, unfit.to_string()),
                },
                None => refuse(sequence, "no known report".to_owned()),
            }
        }
        let count = self.count.clone();
        let counted = move |kept: &Kept| {
            count.send_modify(|count| {
                count.received += received;
                count.kept += kept.results;
                count.heads += kept.heads;
            });
        };
        let kept = self.store.keep(batch, counted).await?;
        for other in kept.others {
            let reason = "another report has this number: does another station have the same name, or did this one \
                          lose its log?";
            refuse(u64::try_from(other).unwrap_or_default(), reason.to_owned());
        }
        ended.map(|()| refused)
    }
}

/// Whether this caller may speak for this station; on this host anybody may.
fn check(caller: Option<&Station>, station: &str) -> Result<(), Status> {
    caller.map_or(Ok(()), |caller| caller.check(station))
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match &error {
            // The station finds out which report it is, and sets that aside.
            StoreError::Refused(_) => Status::invalid_argument(error.to_string()),
            StoreError::Away(_) => Status::unavailable(error.to_string()),
        }
    }
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
        let caller = Station::of(request.extensions());
        // As servers in other languages do, it answers the call only when the first message is there.
        let mut reports = request.into_inner();
        let Some(first) = reports.next().await.transpose()? else {
            return Ok(Response::new(Box::pin(tokio_stream::empty())));
        };
        self.count.send_modify(|count| count.calls += 1);
        // An answer waits until the station has taken the one before.
        let (answers, stream) = mpsc::channel(1);
        let controller = self.clone();
        tokio::spawn(async move { controller.converse(caller, first, reports, answers).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn validate_unit(
        &self,
        request: Request<ValidateUnitRequest>,
    ) -> Result<Response<ValidateUnitResponse>, Status> {
        check(Station::of(request.extensions()).as_ref(), &request.get_ref().station)?;
        let temper = self.temper().clone();
        Ok(Response::new(self.gate.validate(request.into_inner(), &temper).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        check(Station::of(request.extensions()).as_ref(), &request.get_ref().station)?;
        let temper = self.temper().clone();
        Ok(Response::new(self.gate.beat(request.into_inner(), &temper)))
    }
}
