//! What is kept of each call that would change something.

use factory_proto::station::{
    AuditRecord, ListAuditRecordsRequest, StartUnitRequest, station_client::StationClient,
};
use factory_station::rpc::access::{Kind, RIGHTS, method};
use tonic::{Code, transport::Channel};
use uuid::Uuid;

use crate::{
    daemon::{Daemon, ENGINEER, ROLES},
    pki::Pki,
    raw::call,
};

/// All of it, in pages of this size.
async fn audit(channel: &Channel, page_size: u32) -> Vec<AuditRecord> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListAuditRecordsRequest { page_size, page_token, since: None };
        let answer =
            StationClient::new(channel.clone()).list_audit_records(request).await.unwrap().into_inner();
        assert!(answer.records.len() <= page_size as usize);
        all.extend(answer.records);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

#[tokio::test]
async fn each_call_that_changes_something_is_kept_before_it_is_answered_and_others_are_not() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let (engineer, viewer) = (
        daemon.connect(&pki, ENGINEER).await.unwrap(),
        daemon.connect(&pki, "viewer.example").await.unwrap(),
    );
    let mut expected = Vec::new();
    for right in RIGHTS {
        for (channel, caller, role, denied) in [
            (&engineer, "uri:spiffe://example/engineer", "engineer", false),
            (&viewer, "dns:viewer.example", "viewer", true),
        ] {
            let code = call(channel, right.path, Vec::new())
                .await
                .map_or_else(|status| status.code(), |()| Code::Ok);
            if let Kind::Changes { .. } | Kind::Uploads = right.kind {
                assert_eq!(code, if denied { Code::PermissionDenied } else { Code::InvalidArgument });
                expected.push((method(right.path), caller, role, code as u32));
            }
        }
    }
    let check = |records: &[AuditRecord]| {
        let seen: Vec<_> = records
            .iter()
            .map(|record| {
                assert!(record.from.starts_with("127.0.0.1:") && !record.reason.is_empty(), "{record:?}");
                (record.method.as_str(), record.caller.as_str(), record.roles[0].as_str(), record.code)
            })
            .collect();
        assert_eq!(seen, expected);
    };
    check(&audit(&engineer, 3).await);
    // Each was durable when it was answered: nothing is written at the end of a process that is killed.
    let daemon = Daemon::start(daemon.kill());
    check(&audit(&daemon.connect(&pki, ENGINEER).await.unwrap(), 1000).await);
}

#[tokio::test]
async fn a_record_says_what_the_call_was_about_and_what_came_of_it() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let channel = daemon.connect(&pki, "mes.example").await.unwrap();
    let command_id = Uuid::now_v7().to_string();
    let start = StartUnitRequest {
        command_id: command_id.clone(),
        work_order: "WO-1".to_owned(),
        serial: "x".repeat(1000),
        nest: "nest-9".to_owned(),
        ..StartUnitRequest::default()
    };
    let refused = StationClient::new(channel.clone()).start_unit(start).await.unwrap_err();
    let [record] = &audit(&channel, 10).await[..] else { panic!("there was one") };
    assert_eq!((&record.command_id, record.work_order.as_str()), (&command_id, "WO-1"));
    assert_eq!((record.serial.len(), record.nest.as_str()), (64, "nest-9"));
    assert_eq!(record.code, refused.code() as u32);
    assert!(!record.reason.is_empty() && refused.message().starts_with(&record.reason), "{record:?}");

    let (said, well) = daemon.ctl(|ctl| {
        ctl.arg("--station").arg(daemon.path("station.sock")).args(["audit", "--caller", "dns:mes.example"]);
    });
    let (soon, well_too) = daemon.ctl(|ctl| {
        ctl.arg("--station").arg(daemon.path("station.sock")).args(["audit", "--last", "1h"]);
    });
    assert!(well_too && soon == said, "{soon}");
    let later = ListAuditRecordsRequest {
        since: Some((std::time::SystemTime::now() + std::time::Duration::from_secs(60)).into()),
        ..ListAuditRecordsRequest::default()
    };
    let none = StationClient::new(channel).list_audit_records(later).await.unwrap().into_inner();
    assert!(none.records.is_empty() && none.next_page_token.is_empty(), "{none:?}");
    let line = format!("nest=nest-9 command={command_id}: InvalidArgument: ");
    assert!(well && said.contains(&line) && said.contains("dns:mes.example [mes] from 127.0.0.1:"), "{said}");
}

#[tokio::test]
async fn refusals_of_one_caller_are_kept_up_to_a_number_and_then_counted_in_the_next_record() {
    let pki = Pki::new();
    let daemon = Daemon::with_tls(&pki, ROLES);
    let operator = daemon.connect(&pki, "operator.example").await.unwrap();
    for _ in 0..40 {
        let refused =
            call(&operator, "/factory.station.v1.Station/ReleaseUnit", Vec::new()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let refused = call(&operator, "/factory.station.v1.Station/StartUnit", Vec::new()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let records = audit(&daemon.connect(&pki, ENGINEER).await.unwrap(), 1000).await;
    let (last, kept) = records.split_last().unwrap();
    // One more every ten seconds may have been kept on a slow host.
    assert!((30..=32).contains(&kept.len()), "{} were kept", kept.len());
    assert_eq!((last.method.as_str(), last.turned_away), ("StartUnit", 40 - kept.len() as u64));
}
