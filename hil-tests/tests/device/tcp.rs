//! The device on a network: where it is found, who is served, and what is heard after a bad frame: nothing.

use factory_fixtures::fcc::frame;
use factory_hil_tests::device::{
    frames::{TransportStatus, answer, status},
    message::{Device, Reply},
    scenario::Scenario,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    messages::{KEY, Message, text},
    recorded::{self, bytes},
    sim::{self, TcpSim, exchange, to_the_end},
};

fn framed(payload: &str) -> Vec<u8> {
    frame::encode(&bytes(payload))
}

fn with_bad_digest() -> Vec<u8> {
    let mut frame = frame::encode(b"\xa0");
    *frame.last_mut().unwrap() ^= 1;
    frame
}

#[tokio::test]
async fn each_message_may_use_a_connection_of_its_own() {
    let (_directory, storage) = sim::place();
    let mut sim = TcpSim::boot(&storage, &[]).await;
    drop(sim.connect().await);
    sim.waits_for_a_client().await;
    for (request, status) in [(recorded::CSR_REQUEST, 0), (recorded::BUNDLE_REQUEST, 34)] {
        let mut stream = sim.connect().await;
        let answer = exchange(&mut stream, &framed(request), |_| {}).await.unwrap();
        assert_eq!(answer.return_status.number(), status);
        drop(stream);
        sim.waits_for_a_client().await;
    }
}

#[tokio::test]
async fn frames_may_be_pipelined_in_one_write() {
    let (_directory, storage) = sim::place();
    let sim = TcpSim::boot(&storage, &[]).await;
    let mut stream = sim.connect().await;
    let last = Message::bundle().without_item(KEY).without_item("mbed.BootstrapDeviceCert").encode();
    stream.write_all(&[framed(recorded::CSR_REQUEST), frame::encode(&last)].concat()).await.unwrap();
    let heard = to_the_end(&mut stream).await;
    assert_eq!(heard.windows(8).filter(|window| window == b"mbedprov").count(), 2);
    assert_eq!(sim.end().await, Some(0));
}

#[tokio::test]
async fn a_second_client_waits_in_silence_until_the_first_leaves() {
    let (_directory, storage) = sim::place();
    let sim = TcpSim::boot(&storage, &[]).await;
    let mut first = sim.connect().await;
    exchange(&mut first, &framed(recorded::CSR_REQUEST), |_| {}).await.unwrap();

    let mut second = sim.connect().await;
    second.write_all(&framed(recorded::CSR_REQUEST)).await.unwrap();
    // The first is still served, after the second has said all: nobody answered the second meanwhile.
    let again = exchange(&mut first, &framed(recorded::CSR_REQUEST), |_| {}).await.unwrap();
    assert_eq!(again.return_status.number(), 17);
    assert!(second.try_read(&mut [0]).is_err(), "the second client was answered");
    drop(first);
    let mut token = [0; 8];
    second.read_exact(&mut token).await.unwrap();
    assert_eq!(&token, b"mbedprov");
}

#[tokio::test]
async fn a_bad_first_frame_gets_no_answer_and_ends_the_device() {
    let whole = framed(recorded::KEY_BY_STATION);
    let mut endless = b"mbedprov".to_vec();
    endless.extend(u32::MAX.to_le_bytes());
    let cases = [
        ("bad digest", with_bad_digest()),
        ("no length", b"mbedprov\0\0\0\0".to_vec()),
        ("2^31 and more", endless),
        ("cut in its length", whole[..10].to_vec()),
        ("cut behind its token", whole[..8].to_vec()),
        ("cut in its payload", whole[..500].to_vec()),
        ("cut in its digest", whole[..whole.len() - 1].to_vec()),
    ];
    for (name, request) in cases {
        let (_directory, storage) = sim::place();
        let sim = TcpSim::boot(&storage, &[]).await;
        let mut stream = sim.connect().await;
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(to_the_end(&mut stream).await, b"", "{name}");
        assert_eq!(sim.end().await, Some(1), "{name}");
        assert!(!storage.exists(), "{name}: only a well-framed message erases the storage");
    }
}

#[tokio::test]
async fn a_bad_frame_in_a_session_kept_alive_crashes_the_device() {
    for request in [with_bad_digest(), b"mbedprov\0\0\0\0".to_vec(), b"mbedprov".to_vec()] {
        let (_directory, storage) = sim::place();
        let sim = TcpSim::boot(&storage, &[]).await;
        let mut stream = sim.connect().await;
        exchange(&mut stream, &framed(recorded::CSR_REQUEST), |_| {}).await.unwrap();
        stream.write_all(&request).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(to_the_end(&mut stream).await, b"");
        assert_eq!(sim.end().await, None);
    }
}

/// What is heard, and how the device ends, when this is the one thing said.
async fn check(storage: &std::path::Path, switches: &[&str], request: &[u8], heard: &[u8], end: i32) {
    let sim = TcpSim::boot(storage, switches).await;
    let mut stream = sim.connect().await;
    stream.write_all(request).await.unwrap();
    assert_eq!(to_the_end(&mut stream).await, heard);
    assert_eq!(sim.end().await, Some(end));
}

#[tokio::test]
async fn an_answer_of_whatever_return_status_ends_well_and_status_9_does_not() {
    let reply = |message: &Message| {
        let (_directory, storage) = sim::place();
        let Reply::Answer(payload) =
            Device::start(&storage, false, &Scenario::default()).unwrap().handle(&message.encode())
        else {
            panic!("not processed");
        };
        payload
    };
    let not_processed = status(TransportStatus::NotProcessed);

    let (_directory, storage) = sim::place();
    let refused = Message::bundle().set("SchemeVersion", text("0.0.2"));
    check(&storage, &[], &frame::encode(&refused.encode()), &answer(&reply(&refused)), 0).await;
    let outgrown = Message::bundle().set("SID", text("s".repeat(450))).encode();
    check(&storage, &[], &frame::encode(&outgrown), &not_processed, 1).await;
    assert!(sim::held(&storage).factory_disabled);
    check(&storage, &["--keep-storage"], &framed(recorded::KEY_BY_STATION), &not_processed, 1).await;
}

#[tokio::test]
async fn sixteen_mebibytes_of_rubbish_are_read_and_refused() {
    let (_directory, storage) = sim::place();
    let sim = TcpSim::boot(&storage, &[]).await;
    let mut stream = sim.connect().await;
    let rubbish = frame::encode(&vec![0xff; 16 << 20]);
    let answer = exchange(&mut stream, &rubbish, |_| {}).await.unwrap();
    assert_eq!(answer.return_status.number(), 20);
    assert_eq!(sim.end().await, Some(0));
}
