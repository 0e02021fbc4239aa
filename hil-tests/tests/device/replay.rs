//! The requests recorded from the real program, sent again.

use std::ops::Range;

use factory_fixtures::fcc::{frame, message::Answer};
use factory_hil_tests::device::{frames, line::BANNER};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{
    recorded::{self, bytes},
    sim::{self, Sim},
};

#[tokio::test]
async fn a_recorded_bundle_gets_the_recorded_answer_byte_for_byte() {
    let (_directory, storage) = sim::place();
    let mut sim = Sim::boot(&storage, &[]);
    sim.send(&frame::encode(&bytes(recorded::KEY_BY_STATION))).await;
    let (mut child, heard) = sim.hang_up().await;
    assert_eq!(heard, [BANNER, &frames::answer(&bytes(recorded::SUCCESS_ANSWER))].concat());
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    assert!(sim::held(&storage).factory_disabled);
}

#[tokio::test]
async fn a_recorded_csr_request_gets_the_recorded_answer_but_for_key_and_signature() {
    let (_directory, storage) = sim::place();
    let mut sim = Sim::boot(&storage, &[]);
    sim.send(&frame::encode(&bytes(recorded::CSR_REQUEST))).await;
    let (_child, heard) = sim.hang_up().await;
    let frame = heard.strip_prefix(BANNER).unwrap();
    let payload = &frame[16..frame.len() - 32];
    assert_eq!(frame, frames::answer(payload));

    let recorded = bytes(recorded::CSR_ANSWER);
    let [ours, theirs] = [payload, &recorded].map(|payload| {
        let der = Answer::decode(payload).unwrap().into_csr(KEY).unwrap().der;
        check_proof_of_possession(&der);
        let at = payload.windows(der.len()).position(|window| window == der).unwrap();
        // The request's length depends on its signature's, as does the two-byte length before it.
        let behind = payload[at + der.len()..].to_vec();
        (payload[..at - 2].to_vec(), der, behind)
    });
    assert_eq!((ours.0, ours.2), (theirs.0, theirs.2));
    assert_eq!(ours.1[4..POINT.start], theirs.1[4..POINT.start]);
    assert_eq!(ours.1[POINT.end..SIGNATURE], theirs.1[POINT.end..SIGNATURE]);
    assert_ne!(ours.1[POINT], theirs.1[POINT], "each device has its own key");
}

#[tokio::test]
async fn a_certificate_for_another_key_is_refused_and_the_session_stays_open() {
    let (_directory, storage) = sim::place();
    let mut sim = Sim::boot(&storage, &[]);
    sim.exchange(&frame::encode(&bytes(recorded::CSR_REQUEST))).await.0.unwrap();
    // The recorded certificate is for the recorded device's key.
    let bundle = frame::encode(&bytes(recorded::BUNDLE_REQUEST));
    let answer = sim.exchange(&bundle).await.0.unwrap();
    assert_eq!(answer.return_status.number(), 34);
    assert_eq!(answer.info, "Self-generated certificate validation failed:mbed.BootstrapDeviceCert");
    // What was stored before stays stored: there is no rollback.
    let answer = sim.exchange(&bundle).await.0.unwrap();
    assert_eq!(answer.return_status.number(), 17);
    assert_eq!(answer.info, "Data already exists:mbed.BootstrapServerCACert");
}

/// Where the public point stands in the recorded request, and where its signature begins.
const POINT: Range<usize> = 118..183;
const SIGNATURE: usize = 250;
const KEY: &str = "mbed.BootstrapDevicePrivateKey";

fn check_proof_of_possession(der: &[u8]) {
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    let (rest, csr) = X509CertificationRequest::from_der(der).unwrap();
    assert!(rest.is_empty());
    assert!(csr.signature_algorithm.parameters.is_some(), "the NULL parameter is there");
    csr.verify_signature().unwrap();
}

#[tokio::test]
async fn over_tcp_the_console_tells_the_port_and_each_message_may_use_its_own_connection() {
    let (_directory, storage) = sim::place();
    let mut child = sim::command(&storage, &["--tcp"]).spawn().unwrap();
    let mut console = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = console.next_line().await.unwrap().unwrap();
    let address = first.strip_prefix("Client IP Address and Port :  ").unwrap().to_owned();
    let second = console.next_line().await.unwrap().unwrap();
    assert_eq!(second, "Client is waiting for incoming connection...");

    drop(TcpStream::connect(&address).await.unwrap());
    for (request, status) in [(recorded::CSR_REQUEST, 0), (recorded::BUNDLE_REQUEST, 34)] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = frame::encode(&bytes(request));
        let answer = factory_fixtures::fcc::exchange(&mut stream, &request, |_| {}).await.unwrap();
        assert_eq!(answer.return_status.number(), status);
    }
    // The session is kept alive: a bad digest now crashes the device, and the connection is dropped.
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let mut request = frame::encode(b"\xa0");
    *request.last_mut().unwrap() ^= 1;
    stream.write_all(&request).await.unwrap();
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    assert_eq!(heard, b"");
    assert_eq!(child.wait().await.unwrap().code(), None);
}

#[tokio::test]
async fn a_bad_frame_on_a_serial_line_gets_its_status_and_ends_the_device() {
    let mut flipped = frame::encode(b"\xa0");
    *flipped.last_mut().unwrap() ^= 1;
    let mut empty = frame::encode(b"");
    empty.truncate(12);
    for (request, status) in [(flipped, 8), (empty, 4)] {
        let (_directory, storage) = sim::place();
        let mut sim = Sim::boot(&storage, &[]);
        let (answer, _) = sim.exchange(&request).await;
        let error = answer.unwrap_err();
        assert!(
            matches!(error, factory_fixtures::fcc::FccError::Transport(s) if s.number() == status),
            "{error:?}"
        );
        assert_eq!(sim.end().await, Some(1));
    }
}

#[tokio::test]
async fn the_devices_scanner_misses_a_frame_behind_part_of_a_token() {
    let request = frame::encode(&bytes(recorded::KEY_BY_STATION));
    for (noise, is_heard) in
        [("", true), ("\r\nlogin: ", true), ("mbeddbap", true), ("mbedpro", false), ("mbed", false)]
    {
        let (_directory, storage) = sim::place();
        let mut sim = Sim::boot(&storage, &[]);
        sim.send(noise.as_bytes()).await;
        sim.send(&request).await;
        let (_child, heard) = sim.hang_up().await;
        assert_eq!(heard.len() > BANNER.len(), is_heard, "{noise:?}");
    }
}
