//! Certificates that their CA has withdrawn.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use factory_proto::station::{WatchEventsRequest, WatchEventsResponse, station_client::StationClient};
use factory_station::place::ClientFiles;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType, SerialNumber,
};
use tempfile::TempDir;
use tonic::{Streaming, transport::Channel};

use crate::{
    daemon::{Daemon, ROLES, folder, replace},
    pki::{Pki, crl, key, later_crl},
    tls::{let_in, look},
};

/// For ever, as tests go.
const LATER: i32 = 2125;

/// The station's folder, with a list of its clients' withdrawn certificates.
fn equipped(pki: &Pki, list: &str) -> TempDir {
    let section = format!("{ROLES}\n{}client-crl = \"clients.crl\"\n", pki.section());
    let folder = folder("listen = \"127.0.0.1:0\"", &section);
    pki.equip(folder.path());
    replace(&folder.path().join("clients.crl"), list);
    folder
}

/// What a viewer has: the certificate with this number.
fn numbered(pki: &Pki, folder: &Path, serial: u64) -> ClientFiles {
    let place = folder.join(serial.to_string());
    std::fs::create_dir_all(&place).unwrap();
    pki.files_with(&place, "viewer.example", |params| params.serial_number = Some(SerialNumber::from(serial)))
}

async fn connect(daemon: &Daemon, files: &ClientFiles) -> Channel {
    daemon.place_with(files.clone()).way().unwrap().connect().await.unwrap()
}

async fn watch(channel: &Channel) -> Streaming<WatchEventsResponse> {
    let watch = WatchEventsRequest::default();
    StationClient::new(channel.clone()).watch_events(watch).await.unwrap().into_inner()
}

/// Waits for the end of it, which comes within a second or two.
async fn end(events: &mut Streaming<WatchEventsResponse>) {
    let ended = async { while let Ok(Some(_)) = events.message().await {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("the connection goes on");
}

#[tokio::test]
async fn a_withdrawn_certificate_is_refused_and_its_connections_end_while_others_go_on() {
    let pki = Pki::new();
    let daemon = Daemon::start(equipped(&pki, &crl(&pki.issuer, &[7], LATER)));
    let [seven, eight, nine] = [7, 8, 9].map(|serial| numbered(&pki, daemon.folder.path(), serial));
    let is_in = async |files: &ClientFiles| let_in(daemon.place_with(files.clone())).await;
    assert!(!is_in(&seven).await && is_in(&eight).await && is_in(&nine).await);

    let (goes, stays) = (connect(&daemon, &eight).await, connect(&daemon, &nine).await);
    let (mut going, mut staying) = (watch(&goes).await, watch(&stays).await);
    replace(&daemon.path("clients.crl"), &crl(&pki.issuer, &[8], LATER));
    end(&mut going).await;
    assert!(!is_in(&eight).await && is_in(&nine).await);
    // What is no longer on the list is good again.
    assert!(is_in(&seven).await);
    look(&stays).await.unwrap();
    daemon.says("the certificate of a connection was withdrawn").await;

    // Without a list, and with garbage for one, the last good one holds.
    for bad in ["", "no list"] {
        replace(&daemon.path("clients.crl"), bad);
        assert!(!is_in(&eight).await && is_in(&nine).await);
    }
    std::fs::remove_file(daemon.path("clients.crl")).unwrap();
    assert!(!is_in(&eight).await && is_in(&nine).await);
    drop(daemon);
    // It has ended with the station, not before.
    end(&mut staying).await;
}

#[tokio::test]
async fn an_older_list_lets_nobody_in_again() {
    let pki = Pki::new();
    let daemon = Daemon::start(equipped(&pki, &later_crl(&pki.issuer, 10, &[8], LATER)));
    let [eight, nine] = [8, 9].map(|serial| numbered(&pki, daemon.folder.path(), serial));
    let is_in = async |files: &ClientFiles| let_in(daemon.place_with(files.clone())).await;
    replace(&daemon.path("clients.crl"), &later_crl(&pki.issuer, 9, &[], LATER));
    assert!(!is_in(&eight).await && is_in(&nine).await);
    daemon.says("a revocation list is older than the one in force, which stays").await;
    daemon.says("number 9, of ").await;
    replace(&daemon.path("clients.crl"), &later_crl(&pki.issuer, 11, &[9], LATER));
    assert!(is_in(&eight).await && !is_in(&nine).await);
}

#[tokio::test]
async fn where_the_list_says_nothing_of_a_certificate_nobody_is_let_in() {
    let (pki, other) = (Pki::new(), Pki::new());
    let daemon = Daemon::start(equipped(&pki, &crl(&pki.issuer, &[], LATER)));
    let files = numbered(&pki, daemon.folder.path(), 1);
    let open = connect(&daemon, &files).await;
    let mut stranger = CertificateParams::default();
    stranger.distinguished_name.push(rcgen::DnType::CommonName, "another CA");
    let stranger = Issuer::new(stranger, key());
    for (list, why) in [
        (crl(&pki.issuer, &[], 2025), "past its next update"),
        (crl(&other.issuer, &[], LATER), "BadSignature"),
        (crl(&stranger, &[], LATER), "UnknownRevocationStatus"),
    ] {
        replace(&daemon.path("clients.crl"), &list);
        assert!(!let_in(daemon.place_with(files.clone())).await, "{why}");
        // The client hears of it first.
        daemon.says(why).await;
        // It was good when it was shown, and nobody has withdrawn it.
        look(&open).await.unwrap();
    }
    replace(&daemon.path("clients.crl"), &crl(&pki.issuer, &[], LATER));
    assert!(let_in(daemon.place_with(files)).await);
}

#[tokio::test]
async fn a_ca_between_may_be_withdrawn_and_needs_a_list_of_its_own() {
    let pki = Pki::new();
    let daemon = Daemon::start(equipped(&pki, &crl(&pki.issuer, &[], LATER)));
    let mut between = CertificateParams::default();
    between.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    between.serial_number = Some(SerialNumber::from(50_u64));
    between.distinguished_name.push(rcgen::DnType::CommonName, "between");
    let (between_key, own_key) = (key(), key());
    let between_pem = between.clone().signed_by(&between_key, &pki.issuer).unwrap().pem();
    let between = Issuer::new(between, between_key);
    let mut own = CertificateParams::default();
    own.subject_alt_names = vec![SanType::DnsName("viewer.example".try_into().unwrap())];
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let files = numbered(&pki, daemon.folder.path(), 1);
    let chain = own.signed_by(&own_key, &between).unwrap().pem() + &between_pem;
    replace(&files.key, &own_key.serialize_pem());
    replace(&files.certificate, &chain);

    assert!(!let_in(daemon.place_with(files.clone())).await, "nobody says what the CA between has withdrawn");
    let both = |of_root| crl(&pki.issuer, of_root, LATER) + &crl(&between, &[], LATER);
    replace(&daemon.path("clients.crl"), &both(&[]));
    let mut watching = watch(&connect(&daemon, &files).await).await;
    replace(&daemon.path("clients.crl"), &both(&[50]));
    end(&mut watching).await;
    assert!(!let_in(daemon.place_with(files)).await);
}

#[test]
fn without_the_list_that_its_file_names_the_station_does_not_start() {
    let pki = Pki::new();
    let folder = equipped(&pki, "no list");
    let serve = || {
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_factory-stationd"));
        daemon.args(["serve", "--config"]).arg(folder.path().join("station.toml")).stdin(Stdio::null());
        let ended = daemon.output().unwrap();
        assert!(!ended.status.success());
        String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap()
    };
    let said = serve();
    assert!(said.contains("clients.crl holds no revocation list in PEM: correct `tls`"), "{said}");
    std::fs::remove_file(folder.path().join("clients.crl")).unwrap();
    let said = serve();
    assert!(said.contains("clients.crl cannot be read: correct `tls`"), "{said}");
}

#[tokio::test]
async fn a_client_goes_away_from_a_server_whose_certificate_was_withdrawn() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let (certificate, private) = pki.give("localhost", ExtendedKeyUsagePurpose::ServerAuth, |params| {
        params.serial_number = Some(SerialNumber::from(60_u64));
    });
    replace(&daemon.path("tls.key"), &private);
    replace(&daemon.path("tls.pem"), &certificate);
    let mut files = numbered(&pki, daemon.folder.path(), 1);
    let list = daemon.path("servers.crl");
    replace(&list, &crl(&pki.issuer, &[], LATER));
    files.crl = Some(list.clone());
    let way = daemon.place_with(files).way().unwrap();
    look(&way.connect().await.unwrap()).await.unwrap();
    for (list_now, fine) in [
        (crl(&pki.issuer, &[60], LATER), false),
        (crl(&pki.issuer, &[], 2025), false),
        (crl(&pki.issuer, &[], LATER), true),
    ] {
        replace(&list, &list_now);
        assert_eq!(way.connect().await.is_ok(), fine);
    }
}
