//! `stationctl fcc inject` as somebody uses it at a desk, with a device that behaves and with others.

use std::{path::Path, process::Command, str};

use factory_hil_tests::{
    device::store::Kind,
    mes::line,
    rig::{RECIPE, Rig, free_address},
};
use factory_proto::station::station_client::StationClient;

use super::{
    desk::{Desk, ENDPOINT},
    sim::{self, TcpSim},
};

#[tokio::test]
async fn a_device_on_a_serial_line_is_provisioned_between_its_log() {
    let desk = Desk::new();
    let logs = "[[fault]]\nwhat = { log = { at-byte = 0, text = \"[INFO] used by mbed\\r\\n\" } }\n";
    let injected = desk.inject_serial(logs, &["--trial", "--log", "--certificate", "device.pem"]).await;
    injected.check_complete();
    assert_eq!(injected.said.matches("[INFO] used by mbed\n").count(), 2, "{}", injected.said);
    let stored = injected.held.get(Kind::Certificate, "mbed.BootstrapDeviceCert").unwrap();
    assert_eq!(desk.certificates("device.pem"), [stored]);
    // Without being asked for, a device's log is not shown.
    let injected = desk.inject_serial(logs, &["--trial"]).await;
    injected.check_complete();
    assert!(!injected.said.contains("[INFO]"), "{}", injected.said);
}

#[tokio::test]
async fn a_device_that_misbehaves_is_told_in_one_sentence() {
    let desk = Desk::new();
    let check = async |scenario: &str, wanted: &str| {
        // Only the deadline itself is waited for.
        let patience = if scenario.contains("silent") { "300ms" } else { "30s" };
        let arguments = ["--trial", "--patience", patience];
        let injected = desk.inject_serial(scenario, &arguments).await;
        assert!(!injected.succeeded && injected.said.contains(wanted), "{scenario}: {}", injected.said);
    };
    let fault = |message, what: &str| format!("[[fault]]\nmessage = {message}\nwhat = {what}\n");
    check(&fault(1, "'silent'"), "the device did not answer within 300ms").await;
    check(&fault(2, "'silent'"), "the device did not answer within 300ms").await;
    check(&fault(1, "'wrong-digest'"), "the digest of a").await;
    check(&fault(2, "{ return-status = 99 }"), "status 99 (not in the protocol)").await;
    check(&fault(2, "{ transport-status = 77 }"), "transport status 77 (not in the protocol)").await;
    check("scheme-version = '0.0.0'", "status 24 (wrong scheme version)").await;
    check("csr.subject = 'CN=somebody-else'", "somebody-else").await;
    check("csr.another-key = true", "status 34").await;
}

#[tokio::test]
async fn what_cannot_be_done_is_said_before_a_device_is_spoken_to() {
    let desk = Desk::new();
    let nobody = free_address().unwrap().to_string();
    let check = async |changes: &str, arguments: &[&str], wanted: &str| {
        let output = desk.run(changes, arguments).await;
        let said = str::from_utf8(&output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(wanted), "{said}");
    };
    let tcp = ["--tcp", &nobody, "--patience", "100ms"];
    let with = |more: &[&'static str]| tcp.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
    check("", &tcp, "give the signer's socket (--signer), or --trial").await;
    check("", &with(&["--trial"]), &format!("no device answers at {nobody}; check its address")).await;
    check("", &["--tcp", "nowhere", "--trial"], "nowhere is no host and port, as in 192.168.7.2:7777").await;
    check("", &["--tty", "/dev/ttyX@0", "--trial"], "must end with bits per second, as in @921600").await;
    check("", &["--tty", "/nowhere", "--trial"], "/nowhere could not be opened").await;
    check("provision.manufacturer = '{lot}'", &with(&["--trial"]), "provision.manufacturer").await;
    check("provision.memory-total-kb = -1", &with(&["--trial"]), "no whole number of KiB from 0").await;
    let supplied = "supplied = 'units'\nidentity.key = 'supplied'\nidentity.supplied-ca = 'supplied-ca.pem'";
    check(supplied, &with(&["--trial"]), "the recipe's certificates are supplied; leave out --signer").await;
    check("", &with(&["--trial", "--signer", "s"]), "cannot be used with").await;
    check("", &["--trial"], "the following required arguments were not provided").await;
}

#[tokio::test]
async fn an_enrolment_id_from_outside_must_be_the_one_computed() {
    let desk = Desk::new();
    let supplied = "supplied = 'units'\nidentity.key = 'supplied'\nidentity.supplied-ca = 'supplied-ca.pem'";
    let injected = desk.inject(supplied, &[]).await;
    let id = injected.said.lines().find_map(|line| line.strip_prefix("enrolment id ")).unwrap();
    desk.inject(supplied, &["--value", &format!("enrolment-id={id}")]).await.check_complete();
    let other = format!("enrolment-id={}", id.replace(&id[2..5], "00:").replace("A-00:00", "A-01:00"));
    let refused = desk.inject(supplied, &["--value", &other]).await;
    assert!(!refused.succeeded && refused.said.contains("which is another's"), "{}", refused.said);
    assert_eq!(refused.held.names().count(), 0, "nothing was sent");
}

#[tokio::test]
async fn a_device_gets_its_certificate_from_the_real_signer() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-device")).parent().unwrap();
    let controller = format!("http://{}", free_address().unwrap());
    let mut rig = Rig::build(folder.path(), programs, &["A"], &controller).unwrap();
    rig.start_signer().unwrap();
    rig.start_station().unwrap();
    let mut station = StationClient::connect(rig.station.clone()).await.unwrap();
    line::open(&rig, &mut station, "WO-1", 1).await.unwrap();

    let (_directory, storage) = sim::place();
    let device = TcpSim::boot(&storage, &[]).await;
    let inject = |address: &str, order: &str| {
        let mut command = Command::new(programs.join("stationctl"));
        command.args(["fcc", "inject", "--tcp", address, "--order", order, "--serial", "SN0001"]);
        command.args(["--signer", "signer.sock", "--certificate", "device.pem"]);
        command.arg("--recipe").arg(format!("recipes/{RECIPE}.toml"));
        command.current_dir(folder.path()).output().unwrap()
    };
    let done = inject(&device.address, "WO-1");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let held = sim::held(&storage);
    assert_eq!(held.get(Kind::Config, "mbed.EndpointName"), Some(ENDPOINT.as_bytes()));
    assert!(held.factory_disabled);
    let verify = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"])
        .arg(rig.ca_certificate())
        .arg(folder.path().join("device.pem"))
        .output()
        .unwrap();
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));

    // The signer keeps its books of these too.
    let (_directory, storage) = sim::place();
    let device = TcpSim::boot(&storage, &[]).await;
    let refused = inject(&device.address, "WO-2");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("WO-2"), "{said}");
    assert!(!sim::held(&storage).factory_disabled);
}
