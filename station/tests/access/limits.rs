//! How much somebody may ask: in bytes, and in a time.

use factory_station::rpc::access::LARGE;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    daemon::{Daemon, ROLES},
    pki::Pki,
    raw::call,
};

#[tokio::test]
async fn a_message_is_as_long_as_its_method_needs_at_most() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let channel = daemon.connect(&pki, "mes.example").await.unwrap();
    let check = async |path, length: usize, code| {
        let refused: Status = call(&channel, path, vec![0; length]).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        if code == Code::ResourceExhausted {
            let info = refused.get_details_error_info().expect("google.rpc.ErrorInfo");
            assert_eq!(
                (info.reason.as_str(), &info.metadata["length"]),
                ("MESSAGE_TOO_LARGE", &length.to_string())
            );
        }
    };
    // Zeros are no message: whoever reads them says so.
    check("/factory.station.v1.Station/StartUnit", 64 * 1024, Code::Internal).await;
    check("/factory.station.v1.Station/StartUnit", 64 * 1024 + 1, Code::ResourceExhausted).await;
    check("/factory.station.v1.Station/GetUnit", 64 * 1024 + 1, Code::ResourceExhausted).await;
    check("/factory.station.v1.Station/OpenWorkOrder", 64 * 1024 + 1, Code::Internal).await;
    check("/factory.station.v1.Station/OpenWorkOrder", LARGE + 1, Code::ResourceExhausted).await;
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_back_and_hurts_nobody_else() {
    let pki = Pki::new();
    let limits = format!("{ROLES}\n[limits]\ncalls = \"1/h\"\nburst = 3\n");
    let daemon = Daemon::with_tls(&pki, &limits);
    let greedy = daemon.connect(&pki, "viewer.example").await.unwrap();
    let look = "/factory.station.v1.Station/DescribeStation";
    for _ in 0..3 {
        call(&greedy, look, Vec::new()).await.unwrap();
    }
    // On another connection it is the same caller.
    for channel in [greedy.clone(), daemon.connect(&pki, "viewer.example").await.unwrap()] {
        let refused = call(&channel, look, Vec::new()).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let wait = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!((3500..=3600).contains(&wait.as_secs()), "{wait:?}");
    }
    call(&daemon.connect(&pki, "mes.example").await.unwrap(), look, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn streams_are_under_way_as_long_as_they_last() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, &format!("{ROLES}\n[limits]\ncalls-at-a-time = 2\n"));
    let mut station = factory_proto::station::station_client::StationClient::new(
        daemon.connect(&pki, "viewer.example").await.unwrap(),
    );
    let watch = factory_proto::station::WatchEventsRequest::default;
    let first = station.watch_events(watch()).await.unwrap();
    let _second = station.watch_events(watch()).await.unwrap();
    // Of its own, for the other one has no stream left.
    let other = daemon.connect(&pki, "viewer.example").await.unwrap();
    let look = "/factory.station.v1.Station/DescribeStation";
    let refused = call(&other, look, Vec::new()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    drop(first);
    // It is told of the end when it next writes, or by the reset.
    while call(&other, look, Vec::new()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn all_strangers_together_have_little() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let mut refused = Vec::new();
    for name in ["a.example", "b.example", "c.example"] {
        let channel = daemon.connect(&pki, name).await.unwrap();
        for _ in 0..50 {
            refused.push(
                call(&channel, "/factory.station.v1.Station/StartUnit", Vec::new()).await.unwrap_err().code(),
            );
        }
    }
    assert!(refused.iter().all(|code| matches!(code, Code::PermissionDenied | Code::ResourceExhausted)));
    assert!(refused.contains(&Code::ResourceExhausted), "{refused:?}");
    let viewer = daemon.connect(&pki, "viewer.example").await.unwrap();
    call(&viewer, "/factory.station.v1.Station/DescribeStation", Vec::new()).await.unwrap();
}
