//! Each certificate once, whatever is asked, how often, and when the signer dies.

use std::{fs, process::Command};

use factory_proto::{
    head::HeadStatement,
    signer::{
        IssuanceState, IssueRequest, LookupRequest, LookupResponse, SignHeadRequest, SignHeadResponse,
        signer_client::SignerClient,
    },
};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::{
    orders,
    request::{Csr, issue, p256, unit},
    rig::{Rig, Server},
};

fn good() -> IssueRequest {
    issue(Csr::default().signed_by(&p256()))
}

fn replacing(old: &IssueRequest, new: IssueRequest) -> IssueRequest {
    IssueRequest { supersedes: old.issuance_id.clone(), ..new }
}

async fn lookup(server: &Server, issuance_id: &str) -> LookupResponse {
    let request = LookupRequest { issuance_id: issuance_id.to_owned() };
    SignerClient::new(server.connect().await).lookup(request).await.unwrap().into_inner()
}

/// The refusal's code, and that it says this.
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("it should be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

#[tokio::test]
async fn the_same_issuance_is_the_same_certificate_also_after_a_kill() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let request = good();
    let first = server.issue(request.clone()).await.unwrap();
    assert_eq!(server.issue(request.clone()).await.unwrap(), first);
    server.kill();
    let server = rig.serve();
    assert_eq!(server.issue(request.clone()).await.unwrap(), first);
    let other = IssueRequest { certificate_request: good().certificate_request, ..request.clone() };
    refused(server.issue(other).await, Code::AlreadyExists, "issuance_id was used with another request");
    let known = lookup(&server, &request.issuance_id).await;
    assert_eq!((known.state(), known.certificate), (IssuanceState::Issued, first.certificate));
}

#[tokio::test]
async fn one_issuance_asked_for_many_times_at_once_is_signed_once() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.open(orders::USUAL).await;
    let channel = server.connect().await;
    let request = good();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let (mut client, request) = (SignerClient::new(channel.clone()), request.clone());
        calls.spawn(async move { client.issue(request).await.unwrap().into_inner().certificate });
    }
    let mut certificates = calls.join_all().await;
    certificates.dedup();
    assert_eq!(certificates.len(), 1);
}

#[tokio::test]
async fn of_many_issuances_for_one_device_at_once_one_is_signed() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.open(orders::USUAL).await;
    let channel = server.connect().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let mut client = SignerClient::new(channel.clone());
        calls.spawn(async move { client.issue(good()).await });
    }
    let (signed, others): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(signed.len(), 1);
    for other in others {
        refused(other, Code::AlreadyExists, "endpoint_name has a live certificate by issuance");
    }
}

#[tokio::test]
async fn a_certificate_is_replaced_only_by_name_and_is_void_then() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let (first, second) = (good(), good());
    server.issue(first.clone()).await.unwrap();
    refused(server.issue(second.clone()).await, Code::AlreadyExists, &first.issuance_id);
    let stranger = replacing(&first, unit("another-device"));
    refused(server.issue(stranger).await, Code::InvalidArgument, "supersedes names an issuance of");
    let itself = IssueRequest { supersedes: second.issuance_id.clone(), ..second.clone() };
    refused(server.issue(itself).await, Code::InvalidArgument, "the issuance itself");

    let second = replacing(&first, second);
    let answer = server.issue(second.clone()).await.unwrap();
    assert_eq!(server.issue(second.clone()).await.unwrap(), answer);
    assert_eq!(lookup(&server, &first.issuance_id).await.state(), IssuanceState::Void);
    refused(server.issue(first.clone()).await, Code::FailedPrecondition, "was superseded");

    server.kill();
    let server = rig.serve();
    assert_eq!(server.issue(second).await.unwrap(), answer);
    refused(server.issue(first).await, Code::FailedPrecondition, "was superseded");
}

#[tokio::test]
async fn an_issuance_that_was_replaced_before_it_came_gets_no_certificate() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let (late, prompt) = (good(), good());
    assert_eq!(lookup(&server, &late.issuance_id).await.state(), IssuanceState::Unknown);
    server.issue(replacing(&late, prompt)).await.unwrap();
    assert_eq!(lookup(&server, &late.issuance_id).await.state(), IssuanceState::Void);
    refused(server.issue(late).await, Code::FailedPrecondition, "was superseded");
}

#[tokio::test]
async fn the_ledger_is_told_a_line_an_issuance_while_the_signer_works() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let first = good();
    let second = replacing(&first, good());
    server.issue(first.clone()).await.unwrap();
    server.issue(second.clone()).await.unwrap();
    sign_head(&server, head(1, 9, 1)).await.unwrap();
    let told = rig.command("ledger").output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let text = String::from_utf8(told.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [old, new, head] = lines[..] else { panic!("{text}") };
    for (line, expected) in [
        (old, format!("\"issuance\":\"{}\"", first.issuance_id)),
        (old, "\"state\":\"void\"".to_owned()),
        (new, "\"state\":\"issued\"".to_owned()),
        (new, format!("\"supersedes\":\"{}\"", first.issuance_id)),
        (head, "\"last\":9".to_owned()),
    ] {
        assert!(line.contains(&expected), "{expected} is not in {line}");
    }
}

#[tokio::test]
async fn a_damaged_ledger_is_told_and_nothing_is_signed() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    for number in 0..3 {
        server.issue(unit(&format!("sensor-{number}"))).await.unwrap();
    }
    server.kill();
    let segment = rig.path("ledger/segment-00000000000000000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[200] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (text, _) = rig.serve_in_vain();
    assert!(text.contains("the ledger cannot be opened") && text.contains("is damaged at byte"), "{text}");
}

fn head(first_sequence: u64, last_sequence: u64, chain: u8) -> SignHeadRequest {
    SignHeadRequest {
        station: "line-1".to_owned(),
        log_id: vec![7; 16],
        first_sequence,
        last_sequence,
        chain_hash: vec![chain; 32],
        merkle_root: vec![2; 32],
        closed_runs: 1,
        time: 5,
    }
}

async fn sign_head(server: &Server, request: SignHeadRequest) -> Result<SignHeadResponse, Status> {
    SignerClient::new(server.connect().await).sign_head(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_head_is_signed_so_that_openssl_agrees_and_never_behind_one_before() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let signed = sign_head(&server, head(1, 9, 1)).await.unwrap();
    let statement = HeadStatement::decode(&signed.statement).unwrap();
    assert_eq!((statement.station.as_str(), statement.last_sequence), ("line-1", 9));

    fs::write(rig.path("statement"), &signed.statement).unwrap();
    fs::write(rig.path("signature"), &signed.signature).unwrap();
    fs::write(rig.path("signer.der"), &signed.certificates[0]).unwrap();
    let openssl = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).current_dir(rig.path("")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    };
    let key = openssl(&["x509", "-inform", "DER", "-in", "signer.der", "-noout", "-pubkey"]);
    fs::write(rig.path("key.pem"), key).unwrap();
    openssl(&["dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "statement"]);

    // A station that lost the answer asks again, later.
    let again = sign_head(&server, SignHeadRequest { time: 6, ..head(1, 9, 1) }).await.unwrap();
    assert_eq!(again, signed);
    server.kill();
    let server = rig.serve();
    assert_eq!(sign_head(&server, head(1, 9, 1)).await.unwrap(), signed);
    refused(
        sign_head(&server, head(1, 8, 1)).await,
        Code::FailedPrecondition,
        "it was rolled back or copied",
    );
    refused(sign_head(&server, head(1, 9, 3)).await, Code::FailedPrecondition, "its records were changed");
    refused(sign_head(&server, head(11, 12, 1)).await, Code::FailedPrecondition, "must begin with record 10");
    sign_head(&server, head(10, 12, 1)).await.unwrap();

    let bad = |change: fn(&mut SignHeadRequest)| {
        let mut request = head(13, 14, 1);
        change(&mut request);
        request
    };
    for (request, text) in [
        (bad(|request| request.station.clear()), "station must not be empty"),
        (bad(|request| request.log_id = vec![1]), "log_id is 1 bytes long, must be 16"),
        (bad(|request| request.merkle_root.clear()), "merkle_root is 0 bytes long, must be 32"),
        (bad(|request| request.last_sequence = 12), "last_sequence must not be less"),
        (bad(|request| request.closed_runs = 15), "closed_runs must not be more"),
    ] {
        refused(sign_head(&server, request).await, Code::InvalidArgument, text);
    }
}

#[tokio::test]
async fn a_bad_id_is_named_by_its_field() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let request = IssueRequest { supersedes: Uuid::nil().simple().to_string(), ..good() };
    refused(server.issue(request).await, Code::InvalidArgument, "supersedes is no UUID");
    let answer = SignerClient::new(server.connect().await).lookup(LookupRequest::default()).await;
    refused(answer, Code::InvalidArgument, "issuance_id is no UUID");
}
