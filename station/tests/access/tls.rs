//! Who is let in by TLS at all, and what others can do to those who are.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::Arc,
};

use factory_station::place::Place;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::io::AsyncReadExt as _;
use tonic::{Code, Status, transport::Channel};

use crate::{
    daemon::{Daemon, ENGINEER, ROLES, replace},
    pki::Pki,
    raw::call,
};

pub async fn look(channel: &Channel) -> Result<(), Status> {
    call(channel, "/factory.station.v1.Station/DescribeStation", Vec::new()).await
}

/// Neither connected nor answered. The handshake of TLS 1.3 ends for the client before the server has seen its certificate.
pub async fn let_in(place: Place) -> bool {
    match place.way().unwrap().connect().await {
        Ok(channel) => look(&channel).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn only_a_certificate_of_the_right_ca_within_its_time_is_let_in() {
    let (pki, other) = (Pki::new(), Pki::new());
    let daemon = Daemon::with_tls(&pki, ROLES);
    let folder = daemon.folder.path();
    assert!(let_in(daemon.place(&pki, "viewer.example")).await);
    let mut foreign = other.files(folder, "viewer.example");
    replace(&folder.join("right-ca"), &pki.pem);
    foreign.ca = folder.join("right-ca");
    assert!(!let_in(daemon.place_with(foreign)).await, "a certificate of another CA");
    let expired = pki.files_with(folder, "viewer.example", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    assert!(!let_in(daemon.place_with(expired)).await, "an expired certificate");
    let of_a_server = pki.files_with(folder, "viewer.example", |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(!let_in(daemon.place_with(of_a_server)).await, "a server's certificate");
    // The other way round: who is shown another CA's certificate goes away.
    let mut trusting = pki.files(folder, "viewer.example");
    replace(&folder.join("wrong-ca"), &other.pem);
    trusting.ca = folder.join("wrong-ca");
    assert!(daemon.place_with(trusting).way().unwrap().connect().await.is_err());

    let stranger = daemon.connect(&pki, "stranger.example").await.unwrap();
    let refused = look(&stranger).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let text = "this caller is taken for dns:stranger.example, whose roles are none: give it one in [roles]";
    assert!(refused.message().contains(text), "{refused}");
}

#[tokio::test]
async fn who_shows_no_certificate_is_told_so_and_gone() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(daemon.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let refused = stream.read(&mut [0; 64]).await.unwrap_err();
    assert!(refused.to_string().contains("CertificateRequired"), "{refused}");
}

#[test]
fn tls_1_2_is_refused() {
    let pki = Pki::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let daemon = Daemon::with_tls(&pki, ROLES);
    // RFC 5246, 7.4.1.2: version 1.2, a random, no session, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression;
    // extensions: the group P-256, and ECDSA on it with SHA-256. Nothing says that it knows 1.3.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    let hello = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x2b], &[1, 0], &[0, 16], &extensions].concat();
    let length = u8::try_from(hello.len()).unwrap();
    let record = [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat();
    let mut stream = TcpStream::connect(daemon.address).unwrap();
    stream.write_all(&record).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    // An alert: fatal, protocol_version.
    assert_eq!((answer[0], &answer[5..]), (0x15, &[2, 70][..]));
}

#[tokio::test]
async fn new_certificates_are_taken_without_a_restart_and_bad_ones_are_not() {
    let (old, new) = (Pki::new(), Pki::new());
    let daemon = Daemon::with_tls(&old, ROLES);
    let stays = daemon.connect(&old, "viewer.example").await.unwrap();
    look(&stays).await.unwrap();
    new.equip(daemon.folder.path());
    assert!(let_in(daemon.place(&new, "viewer.example")).await);
    assert!(!let_in(daemon.place(&old, "viewer.example")).await);
    look(&stays).await.unwrap();

    replace(&daemon.path("tls.pem"), "no certificate");
    assert!(let_in(daemon.place(&new, "viewer.example")).await);
    daemon.says("new TLS files are no good, the old ones stay").await;
}

#[tokio::test]
async fn a_client_shows_its_new_certificate_when_it_connects_again() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let files = pki.files(daemon.folder.path(), "stranger.example");
    let way = daemon.place_with(files.clone()).way().unwrap();
    let before = way.connect().await.unwrap();
    assert_eq!(look(&before).await.unwrap_err().code(), Code::PermissionDenied);
    let (certificate, key) = pki.give(ENGINEER, rcgen::ExtendedKeyUsagePurpose::ClientAuth, |_| {});
    replace(&files.key, &key);
    // Between the two it is no pair: what was there stays.
    assert_eq!(look(&way.connect().await.unwrap()).await.unwrap_err().code(), Code::PermissionDenied);
    replace(&files.certificate, &certificate);
    look(&way.connect_lazily()).await.unwrap();
    look(&way.connect().await.unwrap()).await.unwrap();
    assert_eq!(look(&before).await.unwrap_err().code(), Code::PermissionDenied);
}

/// What the other side makes of some bytes: it hangs up at the latest when it has seen all of them.
fn throw(mut stream: impl Read + Write, bytes: &[u8]) {
    // It may have hung up in the middle of it.
    let _ = stream.write_all(bytes);
    let _ = stream.flush();
    let _ = stream.read(&mut [0; 1024]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_silence_hurt_nobody_else() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let before = daemon.connect(&pki, "viewer.example").await.unwrap();
    // As many as may shake hands at a time, and some more; all of them are still there at the end.
    let silent: Vec<_> = (0..80).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    let garbage: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        // A frame of 16 MiB, which no setting allows.
        [preface, &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], &[0; 100_000]].concat(),
        // A TLS record of the greatest length, and nothing in it.
        [&[0x16, 3, 3, 0xff, 0xff][..], &[0; 70_000]].concat(),
    ];
    let (address, socket) = (daemon.address, daemon.path("station.sock"));
    tokio::task::spawn_blocking(move || {
        for bytes in &garbage {
            throw(TcpStream::connect(address).unwrap(), bytes);
            let stream = UnixStream::connect(&socket).unwrap();
            // A server may well wait for the rest of a frame; this side has said all it had to say.
            stream.shutdown(std::net::Shutdown::Read).unwrap();
            throw(stream, bytes);
        }
    })
    .await
    .unwrap();
    look(&before).await.unwrap();
    look(&daemon.connect(&pki, "mes.example").await.unwrap()).await.unwrap();
    drop(silent);
    let log = daemon.log();
    drop(daemon.stop());
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn stationctl_calls_with_a_certificate_and_says_what_is_missing() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let files = pki.files(daemon.folder.path(), "operator.example");
    let station = format!("https://localhost:{}", daemon.address.port());
    let check = |arguments: &[&str], expected: &str| {
        let (said, _) = daemon.ctl(|ctl| {
            ctl.args(["--station", &station]).args(arguments);
        });
        assert!(said.contains(expected), "{arguments:?}: {expected:?} is not in {said}");
    };
    let [ca, certificate, key] =
        [&files.ca, &files.certificate, &files.key].map(|path| path.to_str().unwrap().to_owned());
    let ours = ["--ca", &ca, "--certificate", &certificate, "--key", &key];
    let ourselves = "you are taken for dns:operator.example, whose roles are operator";
    check(&[&ours[..], &["describe"]].concat(), ourselves);
    let release = ["release", "SN1", "--reason", "looked at"];
    check(&[&ours[..], &release].concat(), "this caller is taken for dns:operator.example");
    check(&["describe"], "needs --ca, --certificate and --key: both sides prove who they are");
    check(
        &["--ca", &certificate, "--certificate", &certificate, "--key", &key, "describe"],
        "that --ca is the CA of",
    );
    check(
        &["--ca", "no-file", "--certificate", &certificate, "--key", &key, "describe"],
        "no-file cannot be read: correct",
    );
}
