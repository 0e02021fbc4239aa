//! The signer is killed -9 at the writes of its ledger, hundreds of times under load: eight clients ask for certificates,
//! replace some, and say what became of the units, and none of it is lost, doubled or miscounted.
//!
//! `LEDGER_KILLS` says how often it is killed.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use factory_hil_tests::{
    moment::log::{Edge, Kind, LogWatch},
    rig::{Rig, free_address},
};
use factory_proto::signer::{
    DisposeRequest, Disposition, GetOrderRequest, IssueRequest, OpenOrderRequest, Order,
    signer_client::SignerClient,
};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

const ORDER: &str = "WO-LOAD";
const CLIENTS: u64 = 8;
/// A thousand times what a write takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// SHA-256 of a recipe; the signer sees no more of it.
const RECIPE: [u8; 32] = [0xd1; 32];

/// A request that was answered, and what became of its unit.
struct Answered {
    request: IssueRequest,
    certificate: Vec<u8>,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Superseded,
    Disposed(Disposition),
}

/// What all clients know.
type Known = Arc<Mutex<BTreeMap<String, Answered>>>;

fn request(endpoint_name: &str, supersedes: &str) -> anyhow::Result<IssueRequest> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, endpoint_name);
    Ok(IssueRequest {
        issuance_id: Uuid::now_v7().to_string(),
        work_order: ORDER.to_owned(),
        endpoint_name: endpoint_name.to_owned(),
        certificate_request: params.serialize_request(&KeyPair::generate()?)?.der().to_vec(),
        supersedes: supersedes.to_owned(),
        recipe_digest: RECIPE.to_vec(),
    })
}

/// Sends the same until it is answered, whoever dies meanwhile.
async fn persist<T, F>(
    client: &SignerClient<Channel>,
    call: impl Fn(SignerClient<Channel>) -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    loop {
        match call(client.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            // The connection broke, or there is nobody to connect to.
            Err(status) if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {
                sleep(Duration::from_millis(2)).await;
            }
            Err(status) => bail!("{status}"),
        }
    }
}

/// A station that never rests, until it is told that it is over.
async fn station(
    number: u64,
    client: SignerClient<Channel>,
    known: Known,
    over: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let issue = |request: IssueRequest| {
        let client = &client;
        async move {
            let certificate = persist(client, |mut client| {
                let request = request.clone();
                async move { client.issue(request).await }
            });
            Ok::<_, anyhow::Error>((certificate.await?.certificate, request))
        }
    };
    let keep = |(certificate, request): (Vec<u8>, IssueRequest)| {
        let answered = Answered { request, certificate, fate: Fate::Open };
        known.lock().unwrap().insert(answered.request.issuance_id.clone(), answered);
    };
    for unit in 0_u64.. {
        if *over.borrow() {
            return Ok(());
        }
        let name = format!("unit-{number}-{unit}");
        let first = request(&name, "")?;
        let mut newest = first.issuance_id.clone();
        keep(issue(first).await?);
        if unit % 3 == 0 {
            let next = request(&name, &newest)?;
            let id = next.issuance_id.clone();
            keep(issue(next).await?);
            known.lock().unwrap().get_mut(&newest).context("it was kept")?.fate = Fate::Superseded;
            newest = id;
        }
        let disposition = match unit % 4 {
            0 => Disposition::Shipped,
            1 => Disposition::Scrapped,
            2 => Disposition::Quarantined,
            _ => continue,
        };
        let dispose = DisposeRequest { issuance_id: newest.clone(), disposition: disposition.into() };
        persist(&client, |mut client| {
            let dispose = dispose.clone();
            async move { client.dispose(dispose).await }
        })
        .await?;
        known.lock().unwrap().get_mut(&newest).context("it was kept")?.fate = Fate::Disposed(disposition);
    }
    Ok(())
}

/// What the signer's books must say of all that was answered.
fn expected(known: &BTreeMap<String, Answered>, order: Order) -> Order {
    let count = |what: &dyn Fn(&Answered) -> bool| {
        u32::try_from(known.values().filter(|answered| what(answered)).count()).unwrap()
    };
    let fate = |fate: Fate| count(&|answered| answered.fate == fate);
    Order {
        units_counted: count(&|answered| answered.request.supersedes.is_empty()),
        replacements_counted: count(&|answered| !answered.request.supersedes.is_empty()),
        open: fate(Fate::Open),
        superseded: fate(Fate::Superseded),
        shipped: fate(Fate::Disposed(Disposition::Shipped)),
        quarantined: fate(Fate::Disposed(Disposition::Quarantined)),
        scrapped: fate(Fate::Disposed(Disposition::Scrapped)),
        ..order
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_write_under_load_the_signer_loses_doubles_and_miscounts_nothing()
-> anyhow::Result<()> {
    let kills: u32 = env::var("LEDGER_KILLS").map_or(Ok(300), |kills| kills.parse())?;
    let programs =
        Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a program lies in a folder")?;
    let folder = tempfile::tempdir()?;
    let mut rig = Rig::build(folder.path(), programs, &[], &format!("http://{}", free_address()?))?;
    let recipe = data_encoding::HEXLOWER.encode(&RECIPE);
    let signed_order = rig.sign_order_for(&recipe, ORDER, 200_000)?;
    let socket = Endpoint::from_shared(format!("unix:{}/signer.sock", folder.path().display()))?;
    let client = SignerClient::new(socket.connect_lazy());

    rig.start_signer()?;
    client.clone().open_order(OpenOrderRequest { signed_order }).await?;
    let known = Known::default();
    let (over, is_over) = watch::channel(false);
    let mut stations = JoinSet::new();
    for number in 0..CLIENTS {
        let client = SignerClient::new(socket.connect_lazy());
        stations.spawn(station(number, client, known.clone(), is_over.clone()));
    }
    for kill in 0..kills {
        let edge = Edge::ALL[kill as usize % Edge::ALL.len()];
        let write = LogWatch::of(rig.signer_process()?.pid)?.arm(Kind::Program, 1 + kill / 3 % 31, edge);
        let held = tokio::select! {
            held = timeout(PATIENCE, write) => held.context("it writes nothing")?.context("it is told")?,
            Some(ended) = stations.join_next() => bail!("a station gave up: {:?}", ended?),
        };
        // Held, it cannot end.
        rig.signer_process()?.signal(Signal::SIGKILL)?;
        drop(held);
        rig.kill_signer()?;
        rig.start_signer()?;
    }
    over.send(true)?;
    while let Some(station) = stations.join_next().await {
        station??;
    }

    let known = std::mem::take(&mut *known.lock().unwrap());
    let order =
        client.clone().get_order(GetOrderRequest { work_order: ORDER.to_owned() }).await?.into_inner();
    assert_eq!(order, expected(&known, order.clone()));
    let mut serials = HashSet::new();
    for answered in known.values() {
        let (_, parsed) = x509_parser::parse_x509_certificate(&answered.certificate)?;
        ensure!(serials.insert(parsed.raw_serial().to_vec()), "two certificates have one serial number");
        let again = client.clone().issue(answered.request.clone()).await;
        match answered.fate {
            Fate::Superseded | Fate::Disposed(Disposition::Scrapped) => {
                let refused = again.expect_err("it is void");
                assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            }
            Fate::Open | Fate::Disposed(_) => {
                assert_eq!(again?.into_inner().certificate, answered.certificate)
            }
        }
    }
    println!(
        "{kills} kills at the ledger's writes, {} certificates, none lost, doubled or miscounted",
        known.len()
    );
    Ok(())
}
