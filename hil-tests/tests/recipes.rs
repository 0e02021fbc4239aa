//! What recipes say, on the virtual line: each unit's own values, where its key comes from, what its warnings mean.

use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Context as _;
use factory_hil_tests::{
    device::store::{self, Holdings, Kind},
    mes::line::{self, Assembly},
    rig::{RECIPE, Rig, free_address},
};
use factory_proto::station::{
    ListUnitsRequest, OpenWorkOrderRequest, Outcome, StartUnitRequest, Unit, station_client::StationClient,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

type Station = StationClient<Channel>;

const KEY: &str = "mbed.BootstrapDevicePrivateKey";
const CERTIFICATE: &str = "mbed.BootstrapDeviceCert";

/// A line with one nest and a recipe with these lines instead of `from`, running; no order is open.
async fn line(folder: &Path, from: &str, to: &str) -> anyhow::Result<(Rig, Station)> {
    let programs =
        Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a program lies in a folder")?;
    let mut rig = Rig::build(folder, programs, &["A"], &format!("http://{}", free_address()?))?;
    rig.edit(&format!("recipes/{RECIPE}.toml"), from, to)?;
    rig.sign_images()?;
    rig.start_signer()?;
    rig.start_station()?;
    let station = StationClient::connect(rig.station.clone()).await?;
    Ok((rig, station))
}

async fn open(rig: &Rig, station: &mut Station, order: &str, unit_list: &str) -> Result<(), Status> {
    line::attest(rig, station).await.expect("it can be said where the CA is registered");
    let opening = line::opening(rig, order, 10).expect("an order can be signed");
    let request = OpenWorkOrderRequest { unit_list: unit_list.as_bytes().to_vec(), ..opening };
    station.open_work_order(request).await.map(drop)
}

async fn start(
    station: &mut Station,
    order: &str,
    serial: &str,
    values: &[(&str, &str)],
) -> Result<String, Status> {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = StartUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: order.to_owned(),
        serial: serial.to_owned(),
        nest: "A".to_owned(),
        values,
    };
    Ok(station.start_unit(request).await?.into_inner().run_id)
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("it should be refused");
    assert!(status.code() == code && status.message().contains(text), "{status}");
}

fn held(rig: &Rig, unit: &Unit) -> anyhow::Result<Holdings> {
    Ok(store::read(&rig.storage("A", &unit.serial))?)
}

fn passed(unit: &Unit) {
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
}

#[tokio::test]
async fn a_unit_has_values_of_its_own_from_its_orders_list_and_from_its_start() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let own = "serial-number = \"{mac}\"\nparameter = [{ name = \"acme.lot\", text = \"{lot}\" }]\n[tag]";
    let (mut rig, mut station) = line(folder.path(), "[tag]", own).await?;
    let check = async |list: &str, wanted: &str| {
        refused(open(&rig, &mut station.clone(), "WO-1", list).await, Code::InvalidArgument, wanted);
    };
    check("mac\n1\n", "unit_list: line 1 names no column serial").await;
    check("serial,mac\nSN0001,1\nSN0001,2\n", "unit SN0001 is there twice").await;
    check("serial,mac\nSN0001,1\nSN 2,2\n", "line 3: serial \"SN 2\"").await;
    check(
        "serial,mac\nSN0001,1\n",
        "unit SN0001: the recipe's provision.parameter \"acme.lot\" needs the value {lot}",
    )
    .await;
    open(&rig, &mut station, "WO-1", "serial,mac,lot\nSN0001,00:11,7\nSN0002,00:22,8\n").await?;

    // Nothing of these begins.
    refused(start(&mut station, "WO-1", "SN0003", &[]).await, Code::FailedPrecondition, "SN0003");
    let other = start(&mut station, "WO-1", "SN0001", &[("mac", "00:33")]).await;
    refused(other, Code::FailedPrecondition, "mac");
    open(&rig, &mut station, "WO-2", "").await?;
    let missing = start(&mut station, "WO-2", "SN0001", &[("mac", "1")]).await;
    refused(missing, Code::FailedPrecondition, "needs the value {lot}");
    let runs = station.list_units(ListUnitsRequest::default()).await?.into_inner().units;
    assert_eq!(runs.len(), 0);

    line::lay(&rig, "A", &Assembly::sound(1))?;
    let run = start(&mut station, "WO-1", "SN0001", &[("mac", "00:11")]).await?;
    let unit = line::result(&mut station, &run).await?;
    passed(&unit);
    let given = [("lot", "7"), ("mac", "00:11")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(unit.values, HashMap::from(given));
    let device = held(&rig, &unit)?;
    assert_eq!(device.get(Kind::Config, "mbed.SerialNumber"), Some(b"00:11".as_slice()));
    assert_eq!(device.get(Kind::Config, "acme.lot"), Some(b"7".as_slice()));
    line::take_out(&rig, "A", "SN0001")?;

    // The list is kept with the order.
    assert!(rig.stop_station()?);
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::lay(&rig, "A", &Assembly::sound(2))?;
    let run = start(&mut station, "WO-1", "SN0002", &[]).await?;
    passed(&line::result(&mut station, &run).await?);
    line::take_out(&rig, "A", "SN0002")?;
    // Without a list a unit has its values from its start.
    line::lay(&rig, "A", &Assembly::sound(3))?;
    let run = start(&mut station, "WO-2", "SN0003", &[("mac", "00:33"), ("lot", "9")]).await?;
    let unit = line::result(&mut station, &run).await?;
    passed(&unit);
    assert_eq!(held(&rig, &unit)?.get(Kind::Config, "acme.lot"), Some(b"9".as_slice()));
    line::take_out(&rig, "A", "SN0003")?;

    let kept = folder.path().join("journal/orders/WO-1.csv");
    let list = fs::read_to_string(&kept)?;
    for (spoil, wanted) in [
        (Some(list.replace("00:11", "00:99")), "is not what the order was opened with: restore it"),
        (None, "cannot be read"),
    ] {
        assert!(rig.stop_station()?);
        match spoil {
            Some(text) => fs::write(&kept, text)?,
            None => fs::remove_file(&kept)?,
        }
        rig.start_station()?;
        let mut station = StationClient::connect(rig.station.clone()).await?;
        let answer = start(&mut station, "WO-1", "SN0001", &[]).await;
        refused(answer, Code::FailedPrecondition, wanted);
    }
    Ok(())
}

#[tokio::test]
async fn two_units_of_a_list_cannot_be_called_the_same() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), "sensor-{serial}", "sensor-{mac}").await?;
    let check = async |list: &str, wanted: &str| {
        refused(open(&rig, &mut station.clone(), "WO-1", list).await, Code::InvalidArgument, wanted);
    };
    check("serial,mac\nSN0001,00\nSN0002,00\n", "sensor-00").await;
    check("serial,mac\nSN0001,00:11\n", "holds ':'").await;
    check("serial\nSN0001\n", "mac").await;
    open(&rig, &mut station, "WO-1", "serial,mac\nSN0001,0011\nSN0002,0022\n").await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_the_station_makes_is_in_the_device_and_nowhere_else() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let by_tool = "key = \"by-tool\"\n[provision]\nentropy = \"by-tool\"\nroot-of-trust = \"by-tool\"";
    let (mut rig, mut station) = line(folder.path(), "[provision]", by_tool).await?;
    open(&rig, &mut station, "WO-1", "").await?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    passed(&unit);
    assert_eq!(unit.fcc_answers.len(), 1, "there was nothing to ask the device for");
    let device = held(&rig, &unit)?;
    let key = device.get(Kind::PrivateKey, KEY).context("the device has a key")?.to_vec();
    let certificate = &unit.identity.as_ref().context("it has an identity")?.certificate;
    assert_eq!(device.get(Kind::Certificate, CERTIFICATE), Some(certificate.as_slice()));
    let pair = KeyPair::try_from(key.clone())?;
    let (_, certificate) = X509Certificate::from_der(certificate)?;
    assert_eq!(*certificate.public_key().subject_public_key.data, *pair.public_key_raw());

    // Sixteen bytes of each secret are looked for in all that the station keeps and says.
    assert!(rig.stop_station()?);
    let scalar = private_scalar(&key)?;
    let entropy = device.entropy.context("the device has entropy")?.0;
    let root = device.root_of_trust.context("the device has a root of trust")?.0;
    for file in files(&folder.path().join("journal"))?.into_iter().chain([folder.path().join("station.log")])
    {
        let bytes = fs::read(&file)?;
        for secret in [&scalar[..16], &entropy[..16], &root[..16]] {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!is_there, "a secret lies in {}", file.display());
        }
    }
    let items = &unit.fcc_answers[0].items;
    for kind in ["private-key", "entropy", "root-of-trust"] {
        let item = items.iter().find(|item| item.kind == kind).with_context(|| kind.to_owned())?;
        assert!(item.digest.is_empty(), "{kind}");
    }
    Ok(())
}

/// The 32 bytes of a P-256 key, which stand behind `04 20` in its PKCS#8.
fn private_scalar(der: &[u8]) -> anyhow::Result<Vec<u8>> {
    let at = der.windows(2).position(|window| window == [4, 0x20]).context("a key has a scalar")? + 2;
    Ok(der.get(at..at + 32).context("it is 32 bytes long")?.to_vec())
}

fn files(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            all.push(path);
        }
    }
    Ok(all)
}

#[tokio::test]
async fn what_lies_ready_for_a_unit_is_what_its_device_gets() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let supplied = "key = \"supplied\"\nsupplied-ca = \"supplied-ca.pem\"\nchain-depth = 2\n[provision]\n\
                    entropy = \"supplied\"\nroot-of-trust = \"supplied\"";
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("it lies in a folder")?;
    let mut rig = Rig::build(folder.path(), programs, &["A"], &format!("http://{}", free_address()?))?;
    let recipe = format!("recipes/{RECIPE}.toml");
    rig.edit(&recipe, "[provision]", supplied)?;
    rig.edit(&recipe, "attempts = 2", "attempts = 2\nsupplied = \"../units\"")?;
    let (key, chain) = supply(folder.path(), "SN0001")?;
    rig.sign_images()?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    open(&rig, &mut station, "WO-1", "").await?;

    let missing = start(&mut station, "WO-1", "SN0002", &[]).await;
    refused(missing, Code::FailedPrecondition, "SN0002/entropy.bin cannot be read; supply it");

    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    passed(&unit);
    let device = held(&rig, &unit)?;
    assert_eq!(device.get(Kind::PrivateKey, KEY), Some(key.as_slice()));
    let stored = device.chain(Kind::Certificate, CERTIFICATE).context("it has a certificate")?;
    assert_eq!(stored.iter().map(|part| &part.0).collect::<Vec<_>>(), chain.iter().collect::<Vec<_>>());
    assert_eq!(device.entropy.map(|bytes| bytes.0), Some(vec![1; 48]));
    assert_eq!(device.root_of_trust.map(|bytes| bytes.0), Some(vec![2; 16]));
    let identity = unit.identity.context("it has an identity")?;
    assert_eq!(identity.certificate, chain[0]);
    let tag = unit.tag.context("it has a tag")?.ndef;
    assert!(tag.windows(97).any(|bytes| bytes == identity.enrolment_id.as_bytes()));
    Ok(())
}

/// Lays all ready for a unit: its key, PKCS#8, and its chain, DER.
fn supply(folder: &Path, serial: &str) -> anyhow::Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2061, 1, 1);
        params
    };
    let ca_key = KeyPair::generate()?;
    let mut ca = params("Supplied CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let key = KeyPair::generate()?;
    let mut device = params(&format!("sensor-{serial}"));
    device.is_ca = IsCa::ExplicitNoCa;
    device.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let device = device.signed_by(&key, &Issuer::new(ca, ca_key))?;

    fs::write(folder.join("recipes/supplied-ca.pem"), ca_certificate.pem())?;
    let unit = folder.join("units").join(serial);
    fs::create_dir_all(&unit)?;
    fs::write(unit.join("device-certificate.pem"), format!("{}{}", device.pem(), ca_certificate.pem()))?;
    for (name, bytes) in [
        ("device-key.pem", key.serialize_pem().into_bytes()),
        ("entropy.bin", vec![1; 48]),
        ("rot.bin", vec![2; 16]),
    ] {
        fs::write(unit.join(name), bytes)?;
        fs::set_permissions(unit.join(name), fs::Permissions::from_mode(0o600))?;
    }
    Ok((key.serialize_der(), vec![device.der().to_vec(), ca_certificate.der().to_vec()]))
}

#[tokio::test]
async fn a_warning_can_be_a_failure_and_then_the_device_stays_open() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), "[provision]", "[provision]\nwarnings = \"fail\"").await?;
    open(&rig, &mut station, "WO-1", "").await?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!((unit.outcome(), unit.failing_step.as_str()), (Outcome::Fail, "provision"));
    assert!(unit.reason.contains("Item not set:mbed.UpdateAuthCert"), "{}", unit.reason);
    assert!(unit.fcc_answers[1].warnings.contains(&"Item not set:mbed.UpdateAuthCert".to_owned()));
    assert!(!held(&rig, &unit)?.factory_disabled);
    Ok(())
}

#[tokio::test]
async fn the_requests_of_a_devices_other_keys_are_in_its_result() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = "key = [{ name = \"acme.a\", subject = \"O=Acme,CN={endpoint-name}\" }, \
                { name = \"acme.b\", subject = \"CN=b\" }]\n[tag]";
    let (rig, mut station) = line(folder.path(), "[tag]", keys).await?;
    open(&rig, &mut station, "WO-1", "").await?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    passed(&unit);
    let device = held(&rig, &unit)?;
    let wanted = [("acme.a", "O=Acme, CN=sensor-SN0001"), ("acme.b", "CN=b")];
    assert_eq!(unit.key_requests.len(), wanted.len());
    for (request, (name, subject)) in unit.key_requests.iter().zip(wanted) {
        assert_eq!(request.name, name);
        let (_, csr) = X509CertificationRequest::from_der(&request.request)?;
        csr.verify_signature()?;
        let info = &csr.certification_request_info;
        assert_eq!(info.subject.to_string(), subject);
        let key = KeyPair::try_from(device.get(Kind::PrivateKey, name).context("it has the key")?)?;
        assert_eq!(*info.subject_pki.subject_public_key.data, *key.public_key_raw());
    }
    Ok(())
}
