//! Who may ask for what, and how much of it: by user, and by certificate over mutual TLS.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
};

use factory_proto::signer::{IssueRequest, OpenOrderRequest, signer_client::SignerClient};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    orders,
    pki::Pki,
    request::{head, unit},
    rig::{Rig, Server},
};

const STATIONS: &str = r#"
[[peer]]
name = "line-1"
subject-alternative-name = "line-1.example"
orders = ["WO-1*"]

[[peer]]
name = "line-2"
subject-alternative-name = "spiffe://example/line-2"
orders = ["WO-2*"]
"#;

fn asking(order: &str, endpoint: &str) -> IssueRequest {
    IssueRequest { work_order: order.to_owned(), ..unit(endpoint) }
}

async fn ask(channel: &Channel, order: &str) -> Result<(), Status> {
    // A device of its own for each.
    let endpoint = Uuid::now_v7().simple().to_string();
    SignerClient::new(channel.clone()).issue(asking(order, &endpoint)).await.map(drop)
}

async fn open(rig: &Rig, channel: &Channel, order: &str) {
    let folder = rig.path("");
    let signed_order = orders::sign(&folder, &orders::generous(&folder, order));
    SignerClient::new(channel.clone()).open_order(OpenOrderRequest { signed_order }).await.unwrap();
}

fn with_tls(peers: &str) -> (Rig, Pki, Server) {
    let (rig, pki) = (Rig::commissioned(), Pki::new());
    pki.configure(&rig, peers);
    let server = rig.serve();
    (rig, pki, server)
}

fn address(server: &Server) -> SocketAddr {
    server.address.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_stations_share_a_signer_and_each_has_its_own_orders_and_name() {
    let (rig, pki, server) = with_tls(STATIONS);
    let first = pki.connect(address(&server), &pki.station("line-1.example")).await.unwrap();
    let second = pki.connect(address(&server), &pki.station("spiffe://example/line-2")).await.unwrap();

    open(&rig, &first, "WO-17").await;
    open(&rig, &second, "WO-27").await;
    ask(&first, "WO-17").await.unwrap();
    ask(&second, "WO-27").await.unwrap();
    for (channel, order) in [(&first, "WO-27"), (&second, "WO-17")] {
        let refused = ask(channel, order).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("is none of this station's"), "{refused}");
    }
    let refused = SignerClient::new(first.clone()).sign_head(head("line-2")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    SignerClient::new(first).sign_head(head("line-1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_cannot_prove_who_it_is_is_refused() {
    let (_rig, pki, server) = with_tls(STATIONS);
    let other = Pki::new();
    let certified_by_another = other.station("line-1.example");
    // The handshake of TLS 1.3 ends for the client before the server has seen its certificate.
    let refused = match pki.connect(address(&server), &certified_by_another).await {
        Ok(channel) => ask(&channel, "WO-17").await.unwrap_err().code(),
        Err(_) => Code::Unavailable,
    };
    assert_ne!(refused, Code::Ok);
    let refused = match pki.connect(address(&server), &pki.station("line-3.example")).await {
        Ok(channel) => ask(&channel, "WO-17").await.unwrap_err(),
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("line-3.example"), "{refused}");
    assert!(other.connect(address(&server), &pki.station("line-1.example")).await.is_err());
    // A user of this host, even root, is no peer where others are named.
    let refused = ask(&server.connect().await, "WO-17").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn new_certificates_are_taken_without_a_restart_and_bad_ones_are_not() {
    let (rig, old, server) = with_tls(STATIONS);
    let new = Pki::new();
    let stays = old.connect(address(&server), &old.station("line-1.example")).await.unwrap();
    new.equip(&rig);
    let station = new.station("line-1.example");
    open(&rig, &stays, "WO-17").await;
    ask(&new.connect(address(&server), &station).await.unwrap(), "WO-17").await.unwrap();
    ask(&stays, "WO-17").await.unwrap();

    std::fs::write(rig.path("tls.pem"), "no certificate").unwrap();
    ask(&new.connect(address(&server), &station).await.unwrap(), "WO-17").await.unwrap();
    let (_, log) = server.terminate();
    assert!(log.contains("new TLS files are no good, the old ones stay"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_calls_too_often_is_told_when_to_come_back_and_hurts_nobody_else() {
    let rate = "orders = [\"WO-1*\"]\nrate = \"1/h\"\nburst = 4";
    let (rig, pki, server) = with_tls(&STATIONS.replace("orders = [\"WO-1*\"]", rate));
    let greedy = pki.connect(address(&server), &pki.station("line-1.example")).await.unwrap();
    let other = pki.connect(address(&server), &pki.station("spiffe://example/line-2")).await.unwrap();
    open(&rig, &greedy, "WO-17").await;
    open(&rig, &other, "WO-27").await;
    for _ in 0..3 {
        ask(&greedy, "WO-17").await.unwrap();
    }
    let refused = ask(&greedy, "WO-17").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let wait = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((3500..=3600).contains(&wait.as_secs()), "{wait:?}");
    // On another connection it is the same peer.
    let again = pki.connect(address(&server), &pki.station("line-1.example")).await.unwrap();
    assert_eq!(ask(&again, "WO-17").await.unwrap_err().code(), Code::ResourceExhausted);
    ask(&other, "WO-27").await.unwrap();
}

/// What the other side makes of some bytes: it hangs up at the latest when it has seen all of them.
fn throw(mut stream: impl Read + Write, bytes: &[u8]) {
    // It may have hung up in the middle of it.
    let _ = stream.write_all(bytes);
    let _ = stream.flush();
    let _ = stream.read(&mut [0; 1024]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_huge_frames_hurt_nobody_else() {
    let uid = nix::unistd::getuid();
    let own = format!("{STATIONS}\n[[peer]]\nname = \"here\"\nuid = {uid}\n");
    let (rig, pki, server) = with_tls(&own);
    let station = pki.connect(address(&server), &pki.station("line-1.example")).await.unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0].as_slice();
    let garbage: [Vec<u8>; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        // A frame of 16 MiB, which no setting allows.
        [preface, settings, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], &[0; 100_000]].concat(),
        // Headers that do not end.
        [preface, settings, &[0, 0x40, 0, 1, 0, 0, 0, 0, 1], &[0x40; 0x4000]].concat(),
        // A TLS record of the greatest length, and nothing in it.
        [&[0x16, 3, 3, 0xff, 0xff][..], &[0; 70_000]].concat(),
    ];
    let socket = rig.socket();
    let address = address(&server);
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

    open(&rig, &station, "WO-17").await;
    let mut huge = asking("WO-17", "huge");
    huge.certificate_request = vec![0x30; 1 << 20];
    let refused = SignerClient::new(station.clone()).issue(huge).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    ask(&station, "WO-17").await.unwrap();
    let (status, log) = server.terminate();
    assert!(status.success() && !log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_and_says_nothing_keeps_nobody_out() {
    let (rig, pki, server) = with_tls(STATIONS);
    // As many as may shake hands at a time, and some more; all of them are still there at the end.
    let silent: Vec<_> = (0..80).map(|_| TcpStream::connect(address(&server)).unwrap()).collect();
    let station = pki.connect(address(&server), &pki.station("line-1.example")).await.unwrap();
    open(&rig, &station, "WO-17").await;
    ask(&station, "WO-17").await.unwrap();
    drop(silent);
}

#[test]
fn what_is_wrong_with_the_tls_files_is_said_with_what_to_do() {
    let check = |break_it: &dyn Fn(&Rig), sentence: &str| {
        let rig = Rig::commissioned();
        Pki::new().configure(&rig, STATIONS);
        break_it(&rig);
        let (text, code) = rig.serve_in_vain();
        assert!(text.contains(sentence), "{sentence:?} is not in {text}");
        assert_eq!(code, Some(78), "{text}");
    };
    check(&|rig| std::fs::remove_file(rig.path("tls.pem")).unwrap(), "tls.pem cannot be read: correct `tls`");
    check(
        &|rig| std::fs::write(rig.path("stations.pem"), "").unwrap(),
        "stations.pem holds no certificate in PEM",
    );
    check(
        &|rig| {
            let other = Pki::new().station("x.example");
            std::fs::write(rig.path("tls.key"), other.key).unwrap();
        },
        "cannot be used together: give the key and its own certificate",
    );
    check(
        &|rig| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(rig.path("tls.key"), PermissionsExt::from_mode(0o640)).unwrap();
        },
        "has mode 0640: take it from all others with chmod 600",
    );
}
