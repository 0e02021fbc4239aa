//! The requests recorded from the real program, sent again.

use std::ops::Range;

use factory_fixtures::fcc::{frame, message::Answer};
use factory_hil_tests::device::{
    cbor::{Value, top_map},
    frames,
    line::BANNER,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    messages::{CERTIFICATE, Message, certify},
    recorded::{self, bytes},
    sim::{self, Sim, TcpSim},
};

/// Sends a recorded request over whatever line, and gives the answer's payload, once its frame is as the protocol
/// says.
async fn say(line: &mut (impl AsyncRead + AsyncWrite + Unpin), payload: &[u8]) -> Vec<u8> {
    line.write_all(&frame::encode(payload)).await.unwrap();
    line.flush().await.unwrap();
    let mut head = [0; 16];
    line.read_exact(&mut head).await.unwrap();
    let length = u32::from_le_bytes(head[12..].try_into().unwrap());
    let mut rest = vec![0; length as usize + 32];
    line.read_exact(&mut rest).await.unwrap();
    let answer = rest[..length as usize].to_vec();
    assert_eq!([&head[..], &rest].concat(), frames::answer(&answer));
    answer
}

/// The session in which the station made the key.
async fn one_message(mut line: impl AsyncRead + AsyncWrite + Unpin) {
    let answer = say(&mut line, &bytes(recorded::KEY_BY_STATION)).await;
    assert_eq!(answer, bytes(recorded::SUCCESS_ANSWER));
    assert_eq!(line.read(&mut [0]).await.unwrap(), 0, "nothing follows");
}

/// The session in which the device made the key: ours makes another, so that its request, and the certificate for
/// it, differ from what was recorded there and only there.
async fn two_messages(mut line: impl AsyncRead + AsyncWrite + Unpin) {
    let answer = say(&mut line, &bytes(recorded::CSR_REQUEST)).await;
    let request = compare_but_for_the_key(&answer, &bytes(recorded::CSR_ANSWER));
    let (_, certificate) = certify(&request);
    let bundle = Message(top_map(&bytes(recorded::BUNDLE_REQUEST)).unwrap());
    assert_eq!(
        bundle.encode(),
        bytes(recorded::BUNDLE_REQUEST),
        "but for the certificate it is the recorded one"
    );
    let bundle = bundle.item(CERTIFICATE, "Data", Value::Bytes(certificate));
    let answer = say(&mut line, &bundle.encode()).await;
    assert_eq!(answer, bytes(recorded::SUCCESS_ANSWER));
    assert_eq!(line.read(&mut [0]).await.unwrap(), 0, "nothing follows");
}

fn compare_but_for_the_key(ours: &[u8], theirs: &[u8]) -> Vec<u8> {
    let [ours, theirs] = [ours, theirs].map(|payload| {
        let der = sim::csr(Answer::decode(payload).unwrap());
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
    ours.1
}

#[tokio::test]
async fn both_recorded_sessions_happen_again_on_a_serial_line() {
    for is_csr in [false, true] {
        let (_directory, storage) = sim::place();
        let Sim { mut child, mut line } = Sim::boot(&storage, &[]);
        let mut banner = vec![0; BANNER.len()];
        line.read_exact(&mut banner).await.unwrap();
        assert_eq!(banner, BANNER);
        if is_csr {
            two_messages(line).await
        } else {
            one_message(line).await
        }
        assert_eq!(child.wait().await.unwrap().code(), Some(0));
        assert!(sim::held(&storage).factory_disabled);
    }
}

#[tokio::test]
async fn both_recorded_sessions_happen_again_over_tcp() {
    for is_csr in [false, true] {
        let (_directory, storage) = sim::place();
        let sim = TcpSim::boot(&storage, &[]).await;
        let stream = sim.connect().await;
        if is_csr {
            two_messages(stream).await
        } else {
            one_message(stream).await
        }
        assert_eq!(sim.end().await, Some(0));
        assert!(sim::held(&storage).factory_disabled);
    }
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

fn check_proof_of_possession(der: &[u8]) {
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    let (rest, csr) = X509CertificationRequest::from_der(der).unwrap();
    assert!(rest.is_empty());
    assert!(csr.signature_algorithm.parameters.is_some(), "the NULL parameter is there");
    csr.verify_signature().unwrap();
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
