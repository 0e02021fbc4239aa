//! Certificates per second of the signer as it ships, with its durable ledger, against raw C_Sign on the same token in the
//! same run, against `openssl ca` with the PKCS#11 engine, and on a token that takes 20 ms for a signature.
//!
//! Run with `cargo build --release -p factory-hsm --examples && cargo bench -p factory-hsm --bench issuing`. What counts are the ratios: of three rounds, the medians.
#![allow(dead_code)]

#[path = "../tests/signer/faulty.rs"]
mod faulty;
#[path = "../tests/signer/orders.rs"]
mod orders;
#[path = "../tests/signer/request.rs"]
mod request;
#[path = "../tests/signer/rig.rs"]
mod rig;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, ObjectClass},
    session::UserType,
    types::AuthPin,
};
use factory_proto::signer::{IssueRequest, signer_client::SignerClient};
use faulty::Faulty;
use orders::USUAL;
use request::unit;
use rig::{PIN, Rig, SOFTHSM, Server};
use tokio::task::JoinSet;
use uuid::Uuid;

const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(3);
const CLIENTS: [usize; 5] = [1, 2, 4, 8, 16];
/// More than a round of the fastest signs.
const REQUESTS: usize = 12_000;
/// Signatures of one run of openssl, whose start-up is then of little weight.
const OPENSSL: usize = 300;

/// Of a device that nobody else asks for.
fn device(number: usize) -> IssueRequest {
    unit(&format!("{}-{number}", Uuid::now_v7().simple()))
}

/// Requests that were made before the clock runs.
struct Stock {
    requests: Vec<IssueRequest>,
    next: AtomicUsize,
}

impl Stock {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { requests: (0..count).map(device).collect(), next: AtomicUsize::new(0) })
    }

    fn take(&self) -> Option<IssueRequest> {
        self.requests.get(self.next.fetch_add(1, Ordering::Relaxed)).cloned()
    }
}

/// Certificates per second with so many clients, each on a connection of its own; and the signer's CPU time for one, in µs.
async fn issue_for(server: &Server, clients: usize, stock: &Arc<Stock>) -> (f64, f64) {
    let mut tasks = JoinSet::new();
    let before = cpu(server);
    let begun = Instant::now();
    for _ in 0..clients {
        let (mut client, stock) = (SignerClient::new(server.connect().await), stock.clone());
        tasks.spawn(async move {
            let mut count = 0_u32;
            while begun.elapsed() < TIME {
                let request = stock.take().expect("there are more requests than can be signed");
                client.issue(request).await.unwrap();
                count += 1;
            }
            count
        });
    }
    let count: u32 = tasks.join_all().await.into_iter().sum();
    let elapsed = begun.elapsed().as_secs_f64();
    (f64::from(count) / elapsed, (cpu(server) - before) / f64::from(count))
}

/// What the signer's process has used of processors, in µs.
fn cpu(server: &Server) -> f64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap() as f64;
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<f64> = fields.split(' ').map(|field| field.parse().unwrap_or_default()).collect();
    (fields[11] + fields[12]) * 1e6 / ticks
}

/// C_Sign per second, on the CA's key, with so many sessions and threads, SHA-256 in software included.
fn raw(module: &Pkcs11, threads: usize) -> f64 {
    let slot = module.get_slots_with_token().unwrap()[0];
    let begun = Instant::now();
    let count: u32 = std::thread::scope(|scope| {
        let sign = || {
            let session = module.open_ro_session(slot).unwrap();
            // The first session has done it for all.
            let _ = session.login(UserType::User, Some(&AuthPin::new(PIN.into())));
            let wanted =
                [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label("device-identity-ca".into())];
            let key = session.find_objects(&wanted).unwrap()[0];
            let mut count = 0_u32;
            while begun.elapsed() < TIME {
                session.sign(&Mechanism::Ecdsa, key, &[0xa5; 32]).unwrap();
                count += 1;
            }
            count
        };
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(sign)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// Certificates per second of one `openssl ca`, whose index is a text file that nobody syncs; `None` where there is no
/// engine.
fn openssl(rig: &Rig) -> Option<f64> {
    let folder = rig.path("openssl");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("new")).unwrap();
    for number in 0..OPENSSL {
        fs::write(folder.join(format!("{number}.der")), device(number).certificate_request).unwrap();
        let file = |end: &str| folder.join(format!("{number}.{end}"));
        let mut convert = Command::new("openssl");
        convert.args(["req", "-inform", "DER", "-in"]).arg(file("der")).arg("-out").arg(file("csr"));
        assert!(convert.status().unwrap().success());
    }
    fs::write(folder.join("index"), "").unwrap();
    let config = format!(
        "[ca]\ndefault_ca=d\n[d]\ndir={0}\nnew_certs_dir={0}/new\ndatabase={0}/index\nrand_serial=yes\n\
         default_md=sha256\npolicy=p\ncertificate={1}\ndefault_days=7300\nunique_subject=no\nx509_extensions=e\n\
         [p]\ncommonName=supplied\n[e]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
         extendedKeyUsage=clientAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
        folder.display(),
        rig.path("ca.pem").display()
    );
    fs::write(folder.join("config"), config).unwrap();
    let mut ca = Command::new("openssl");
    ca.args(["ca", "-batch", "-notext", "-engine", "pkcs11", "-keyform", "engine", "-keyfile"]);
    ca.arg(format!("pkcs11:token=factory;object=device-identity-ca;type=private;pin-value={PIN}"));
    ca.arg("-config").arg(folder.join("config")).arg("-infiles");
    ca.args((0..OPENSSL).map(|number| folder.join(format!("{number}.csr"))));
    ca.env("SOFTHSM2_CONF", rig.path("softhsm2.conf")).env("PKCS11_MODULE_PATH", SOFTHSM);
    let begun = Instant::now();
    let done = ca.output().unwrap();
    if !done.status.success() {
        println!("no openssl: {}", String::from_utf8_lossy(&done.stderr).lines().next().unwrap_or_default());
        return None;
    }
    Some(OPENSSL as f64 / begun.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn against_the_token(sessions: usize) {
    let rig = Rig::commissioned();
    rig.configure("[subject]", &format!("sessions = {sessions}\n\n[subject]"));
    // SAFETY: nothing else runs in this process yet that reads its environment.
    unsafe { std::env::set_var("SOFTHSM2_CONF", rig.path("softhsm2.conf")) };
    let module = Pkcs11::new(Path::new(SOFTHSM)).unwrap();
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let server = rig.serve();
    server.open(USUAL).await;

    let (mut limit, mut ours, mut theirs) = (Vec::new(), vec![Vec::new(); CLIENTS.len()], Vec::new());
    for round in 0..ROUNDS {
        limit.push(raw(&module, 1).max(raw(&module, 2)));
        for (clients, rates) in CLIENTS.into_iter().zip(&mut ours) {
            rates.push(issue_for(&server, clients, &Stock::new(REQUESTS)).await);
        }
        if round == 0 {
            theirs.extend(openssl(&rig));
        }
    }
    let limit = median(limit);
    println!("raw C_Sign, 1 or 2 threads      {limit:8.0} a second   1.00");
    for (clients, rates) in CLIENTS.into_iter().zip(ours) {
        let (rates, cpus) = rates.into_iter().unzip();
        let rate = median(rates);
        println!(
            "the signer, {clients} clients           {rate:8.0} a second   {:.2}   {:.0} µs CPU each",
            rate / limit,
            median(cpus)
        );
    }
    if let Some(rate) = theirs.first() {
        println!("openssl ca, PKCS#11 engine      {rate:8.0} a second   {:.2}", rate / limit);
    }
}

async fn with_a_slow_token() {
    println!("\na token that takes 20 ms for a signature, 16 clients; ideal is 50 a second for each session");
    for sessions in [1_usize, 2, 4, 8] {
        let faulty = Faulty::commissioned();
        faulty.rig.configure("[subject]", &format!("sessions = {sessions}\n\n[subject]"));
        let server = faulty.serve();
        server.open(USUAL).await;
        faulty.order("C_Sign delay 20");
        let (rate, _) = issue_for(&server, 16, &Stock::new(3_000)).await;
        let ideal = 50.0 * sessions as f64;
        println!(
            "{sessions} sessions                      {rate:8.0} a second   {:.2} of ideal",
            rate / ideal
        );
    }
}

#[tokio::main]
async fn main() {
    against_the_token(2).await;
    with_a_slow_token().await;
}
