//! The notary between a real journal and a signer that signs heads and may be away.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use factory_hsm::order::WorkOrder;
use factory_journal::{Journal, Options, Sequence};
use factory_proto::{
    head::HeadStatement,
    signer::{
        DescribeRequest, DescribeResponse, DisposeRequest, DisposeResponse, GetOrderRequest, IssueRequest,
        IssueResponse, ListIssuancesRequest, ListIssuancesResponse, LookupRequest, LookupResponse,
        OpenOrderRequest, Order, SignHeadRequest, SignHeadResponse, signer_server,
    },
};
use factory_station::{
    provenance::{Notary, Occasions, Trouble, audit::audit},
    record::Record,
    results::Backlog,
    signer,
};
use tokio::{net::UnixListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

use super::{
    findings,
    log::{Forger, Signer, closed},
};

/// Signs heads as factory-signerd does; knows nothing else.
#[derive(Clone)]
pub struct SignerDaemon {
    pub signer: Arc<Signer>,
    /// The newest head that it signed.
    newest: Arc<Mutex<Option<HeadStatement>>>,
    asked: Arc<watch::Sender<usize>>,
}

impl SignerDaemon {
    pub fn new() -> Self {
        let (newest, asked) = (Arc::default(), Arc::new(watch::channel(0).0));
        Self { signer: Arc::new(Signer::named("provenance")), newest, asked }
    }

    pub fn serve(&self, socket: &Path) -> JoinHandle<Result<(), tonic::transport::Error>> {
        let _ = std::fs::remove_file(socket);
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let server = Server::builder().add_service(signer_server::SignerServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming))
    }
}

#[tonic::async_trait]
impl signer_server::Signer for SignerDaemon {
    async fn sign_head(
        &self,
        request: Request<SignHeadRequest>,
    ) -> Result<Response<SignHeadResponse>, Status> {
        self.asked.send_modify(|asked| *asked += 1);
        let asked = request.into_inner();
        let head = HeadStatement::new(
            asked.station,
            asked.log_id.try_into().unwrap(),
            (asked.first_sequence, asked.last_sequence),
            asked.chain_hash.try_into().unwrap(),
            asked.merkle_root.try_into().unwrap(),
            asked.closed_runs,
            asked.time,
        );
        let mut newest = self.newest.lock().unwrap();
        let behind = newest
            .as_ref()
            .is_some_and(|newest| head.last_sequence <= newest.last_sequence && head != *newest);
        if behind {
            return Err(Status::failed_precondition("it lies behind one already signed"));
        }
        *newest = Some(head.clone());
        let signed = self.signer.sign(head.encode());
        Ok(Response::new(SignHeadResponse {
            statement: signed.statement,
            signature: signed.signature,
            certificates: signed.certificates.into_iter().map(Into::into).collect(),
        }))
    }

    async fn open_order(&self, request: Request<OpenOrderRequest>) -> Result<Response<Order>, Status> {
        let order = WorkOrder::read(&request.into_inner().signed_order).unwrap();
        Ok(Response::new(Order {
            work_order: order.order.to_string(),
            recipe_digest: order.recipe.into(),
            quantity: order.quantity,
            ca_fingerprint: order.authority.into(),
            ..Order::default()
        }))
    }

    async fn get_order(&self, _: Request<GetOrderRequest>) -> Result<Response<Order>, Status> {
        Err(Status::unimplemented("it signs heads only"))
    }

    async fn list_issuances(
        &self,
        _: Request<ListIssuancesRequest>,
    ) -> Result<Response<ListIssuancesResponse>, Status> {
        Err(Status::unimplemented("it signs heads only"))
    }

    async fn dispose(&self, _: Request<DisposeRequest>) -> Result<Response<DisposeResponse>, Status> {
        Err(Status::unimplemented("it signs heads only"))
    }

    async fn issue(&self, _: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        Err(Status::unimplemented("it signs heads only"))
    }

    async fn lookup(&self, _: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        Err(Status::unimplemented("it signs heads only"))
    }

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        Err(Status::unimplemented("it signs heads only"))
    }
}

/// A station, as far as its notary cares.
struct Station {
    journal: Arc<Journal<Record>>,
    backlog: Backlog,
    trouble: Trouble,
    stop: CancellationToken,
    notary: JoinHandle<()>,
    runs: u128,
}

impl Station {
    fn start(folder: &Path) -> Self {
        let state = folder.join("journal");
        let journal = Arc::new(Journal::open(&state, Options::default()).unwrap());
        let (backlog, trouble) = (Backlog::count(&journal).unwrap(), Trouble::default());
        let notary = Notary {
            station: "line-1".parse().unwrap(),
            state,
            journal: journal.clone(),
            opened_at: journal.last(),
            signer: signer::Signer::at(
                factory_station::place::Place::Socket(folder.join("signer.sock")),
                folder,
            )
            .unwrap(),
            backlog: backlog.clone(),
            occasions: Occasions { every: 16, shift_ends: Vec::new() },
            trouble: trouble.clone(),
        };
        let stop = CancellationToken::new();
        let notary = tokio::spawn(notary.run(stop.clone()));
        Self { journal, backlog, trouble, stop, notary, runs: 0 }
    }

    async fn close_runs(&mut self, count: usize) {
        for _ in 0..count {
            self.runs += 1;
            let Record::RunClosed(run) = closed(self.runs) else { unreachable!() };
            let ended = run.ended;
            let sequence = self.journal.append(Record::RunClosed(run)).await.unwrap();
            self.backlog.closed(sequence, ended);
        }
    }

    /// Waits until record `sequence` is there, and is a head.
    async fn head_at(&self, sequence: u64) -> HeadStatement {
        let mut news = self.journal.follow(Sequence::from(sequence));
        match news.next().await.unwrap().record {
            Record::HeadSigned(head) => HeadStatement::decode(&head.statement).unwrap(),
            other => panic!("record {sequence} is {other:?}"),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.notary.await.unwrap();
    }

    /// As a crash does: without a last head.
    async fn crash(self) {
        self.notary.abort();
        let _ = self.notary.await;
    }
}

fn verify(folder: &Path, signer: &SignerDaemon) -> Vec<(u64, u64)> {
    let trusted = [signer.signer.certificate.clone()];
    let audit = audit(&folder.join("journal"), &trusted, &[]).unwrap();
    assert_eq!(findings(&audit), [""; 0]);
    audit.heads.iter().map(|head| (head.statement.first_sequence, head.statement.last_sequence)).collect()
}

#[tokio::test]
async fn a_head_is_signed_every_so_many_records_and_when_the_station_stops() {
    let folder = tempfile::tempdir().unwrap();
    let signer = SignerDaemon::new();
    let _serving = signer.serve(&folder.path().join("signer.sock"));
    let mut station = Station::start(folder.path());
    station.close_runs(16).await;
    assert_eq!(station.head_at(17).await.closed_runs, 16);
    station.close_runs(15).await;
    assert_eq!(station.head_at(33).await.closed_runs, 31);
    station.close_runs(3).await;
    station.stop().await;
    assert_eq!(verify(folder.path(), &signer), [(1, 16), (17, 32), (33, 36)]);
    // The next station goes on behind it.
    let mut station = Station::start(folder.path());
    station.close_runs(15).await;
    assert_eq!(station.head_at(54).await.closed_runs, 49);
    station.stop().await;
    let heads = [(1, 16), (17, 32), (33, 36), (37, 37), (38, 53), (54, 54)];
    assert_eq!(verify(folder.path(), &signer), heads);
}

#[tokio::test]
async fn while_the_signer_is_away_units_go_on_and_heads_are_made_later() {
    let folder = tempfile::tempdir().unwrap();
    let signer = SignerDaemon::new();
    let mut station = Station::start(folder.path());
    station.close_runs(40).await;
    while station.trouble.get().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(station.trouble.get().unwrap().contains("see that factory-signerd runs"));
    let _serving = signer.serve(&folder.path().join("signer.sock"));
    assert_eq!(station.head_at(42).await.last_sequence, 32);
    while station.trouble.get().is_some() {
        tokio::task::yield_now().await;
    }
    station.stop().await;
    assert_eq!(verify(folder.path(), &signer), [(1, 16), (17, 32), (33, 42)]);
}

#[tokio::test]
async fn a_crash_after_the_signature_and_before_its_record_leaves_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let signer = SignerDaemon::new();
    let _serving = signer.serve(&folder.path().join("signer.sock"));
    // The signer has signed the head of the first 16, but its answer was lost with the station.
    let mut station = Station::start(folder.path());
    station.close_runs(16).await;
    station.head_at(17).await;
    station.crash().await;
    let journal = folder.path().join("journal");
    let mut forger = Forger::read(&journal);
    forger.frames.truncate(16);
    forger.write(&journal);
    std::fs::remove_dir_all(journal.join("index")).unwrap();

    let station = Station::start(folder.path());
    assert_eq!(station.head_at(17).await.last_sequence, 16);
    assert_eq!(station.trouble.get(), None);
    station.stop().await;
    assert_eq!(verify(folder.path(), &signer), [(1, 16), (17, 17)]);
    assert_eq!(*signer.asked.borrow(), 3);
}

#[tokio::test]
async fn a_log_that_was_rolled_back_is_noticed_and_gets_no_head_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let signer = SignerDaemon::new();
    let _serving = signer.serve(&folder.path().join("signer.sock"));
    let mut station = Station::start(folder.path());
    station.close_runs(32).await;
    station.head_at(34).await;
    station.stop().await;

    let journal = folder.path().join("journal");
    let mut forger = Forger::read(&journal);
    forger.frames.truncate(10);
    forger.write(&journal);
    std::fs::remove_dir_all(journal.join("index")).unwrap();
    let mut station = Station::start(folder.path());
    // It grows fast beyond what was signed.
    station.close_runs(40).await;
    let rolled_back = async {
        while station.trouble.get().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), rolled_back).await.unwrap();
    assert!(station.trouble.get().unwrap().contains("was rolled back"), "{:?}", station.trouble.get());
    let asked = *signer.asked.borrow();
    station.close_runs(40).await;
    station.stop().await;
    assert_eq!(
        *signer.asked.borrow(),
        asked,
        "a log that was rolled back is not signed when it has grown again"
    );
    assert_eq!(verify(folder.path(), &signer), []);
}
