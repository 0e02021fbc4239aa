//! The signer's ledger when the power is cut: every certificate that was answered is in it.

use std::{
    collections::HashSet,
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use factory_hil_tests::{
    child::Child,
    power_cut::{Outcome, Plan, Writer, cut_power, unavailable},
    rig::{Rig, free_address},
};
use factory_hsm::ledger::record::Record;
use factory_journal::{Journal, Options, Sequence};
use factory_proto::signer::{IssueRequest, OpenOrderRequest, signer_client::SignerClient};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tonic::transport::Endpoint;
use uuid::Uuid;

const ORDER: &str = "WO-1";
/// SHA-256 of a recipe; the signer sees no more of it.
const RECIPE: [u8; 32] = [0xd1; 32];

/// Of an issuance that was answered.
type Answered = (String, Vec<u8>);

/// Starts the signer with its ledger on the disk, and eight clients.
fn start(rig: &Rig, programs: &Path, disk: &Path) -> anyhow::Result<Writer<Answered>> {
    let file = rig.folder.join("signer.toml");
    let text = fs::read_to_string(&file)?;
    let line = text.lines().find(|line| line.starts_with("ledger = ")).context("the file names a ledger")?;
    let ledger = format!("ledger = \"{}\"", disk.join("ledger").display());
    fs::write(&file, text.replacen(line, &ledger, 1))?;

    let socket = rig.folder.join("signer.sock");
    let _ = fs::remove_file(&socket);
    let mut serve = Command::new(programs.join("factory-signerd"));
    serve.arg("serve").arg("--config").arg(&file).env("SOFTHSM2_CONF", rig.folder.join("softhsm2.conf"));
    serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let child = Child::spawn(serve, Vec::new())?;
    let order = rig.sign_order_for(&HEXLOWER.encode(&RECIPE), ORDER, 100_000)?;
    let (sender, acknowledged) = mpsc::channel();
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?;
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let clients =
                (0..8).map(|_| tokio::spawn(issue(endpoint.clone(), order.clone(), sender.clone())));
            for client in clients.collect::<Vec<_>>() {
                // It ends when the signer does.
                let _ = client.await;
            }
        });
    });
    Ok(Writer { child, acknowledged })
}

/// Asks for certificates of new devices until the signer is gone.
async fn issue(
    endpoint: Endpoint,
    signed_order: String,
    answered: mpsc::Sender<Answered>,
) -> anyhow::Result<()> {
    let channel = loop {
        match endpoint.connect().await {
            Ok(channel) => break channel,
            // The socket has no other way to tell that it is there.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let mut signer = SignerClient::new(channel);
    signer.open_order(OpenOrderRequest { signed_order }).await?;
    loop {
        let issuance_id = Uuid::now_v7().to_string();
        let endpoint_name = Uuid::now_v7().simple().to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, endpoint_name.clone());
        let request = IssueRequest {
            issuance_id: issuance_id.clone(),
            work_order: ORDER.to_owned(),
            endpoint_name,
            certificate_request: params.serialize_request(&KeyPair::generate()?)?.der().to_vec(),
            supersedes: String::new(),
            recipe_digest: RECIPE.to_vec(),
        };
        let certificate = signer.issue(request).await?.into_inner().certificate;
        answered.send((issuance_id, certificate))?;
    }
}

fn count_lost(disk: &Path, answered: &[Answered]) -> anyhow::Result<u64> {
    let options = Options { reserve: 0, low_space: 0, ..Options::default() };
    let ledger: Journal<Record> = Journal::open(disk.join("ledger"), options)?;
    let mut held = HashSet::new();
    for entry in ledger.read(Sequence::START) {
        if let Record::Issued(issued) = entry?.record {
            held.insert((issued.issuance, issued.certificate));
        }
    }
    Ok(answered.iter().filter(|answer| !held.contains(*answer)).count() as u64)
}

#[test]
fn every_certificate_that_was_answered_is_in_the_ledger_after_power_cuts() {
    if let Some(reason) = unavailable() {
        println!("skipped: {reason}");
        return;
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder");
    let folder = tempfile::tempdir().unwrap();
    let controller = format!("http://{}", free_address().unwrap());
    let rig = Rig::build(&folder.path().join("rig"), programs, &[], &controller).unwrap();
    let disk = folder.path().join("power");
    fs::create_dir(&disk).unwrap();
    let plan = Plan { acknowledgements: 1..=60, ..crate::plan(10) };
    let Outcome { acknowledged, lost } =
        cut_power(&disk, &plan, |disk| start(&rig, programs, disk), count_lost).unwrap();
    println!("{} power cuts, {acknowledged} certificates answered, {lost} lost", plan.rounds);
    assert_eq!(lost, 0);
}
