//! From a request to a certificate, over the socket.

use std::{collections::HashSet, fs, path::Path, process::Command};

use factory_proto::signer::{DescribeRequest, IssueRequest, signer_client::SignerClient};
use rcgen::PublicKeyData;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    orders,
    request::{CN, Csr, ENDPOINT, issue, p256},
    rig::Rig,
};

fn openssl(arguments: &[&str], folder: &Path) -> String {
    let done = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_issued_certificate_is_one_that_openssl_agrees_with() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let folder = rig.path("");
    openssl(
        &[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "device.key",
            "-subj",
            &format!("/O=ignored/CN={ENDPOINT}"),
            "-outform",
            "DER",
            "-out",
            "device.csr",
        ],
        &folder,
    );

    let answer = server.issue(issue(fs::read(rig.path("device.csr")).unwrap())).await.unwrap();

    fs::write(rig.path("device.der"), &answer.certificate).unwrap();
    openssl(&["x509", "-inform", "DER", "-in", "device.der", "-out", "device.pem"], &folder);
    openssl(&["verify", "-purpose", "sslclient", "-x509_strict", "-CAfile", "ca.pem", "device.pem"], &folder);
    let text = openssl(&["x509", "-in", "device.pem", "-noout", "-text"], &folder);
    for expected in [
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: C = DE, O = Example Devices, CN = Device Identity CA",
        &format!("Subject: C = DE, O = Example Devices, CN = {ENDPOINT}"),
        "CA:FALSE",
        "Digital Signature\n",
        "TLS Web Client Authentication\n",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    assert_eq!(
        openssl(&["x509", "-in", "device.pem", "-noout", "-pubkey"], &folder),
        openssl(&["pkey", "-in", "device.key", "-pubout"], &folder),
    );
    // 20 years of 365.25 days, less a minute.
    openssl(&["x509", "-in", "device.pem", "-noout", "-checkend", "631151940"], &folder);
    let issuers = answer.issuers.iter().map(|der| der.as_slice()).collect::<Vec<_>>();
    assert_eq!(issuers, [ca_certificate(&rig).as_ref()]);

    let (_, log) = server.terminate();
    assert_eq!(log.lines().filter(|line| line.contains(" issued ")).count(), 1, "{log}");
    for field in ["order=WO-1", "issuance=0", "endpoint=0123456789abcdef", "fingerprint=", "elapsed="] {
        assert!(log.contains(field), "{field:?} is not in {log}");
    }
}

fn ca_certificate(rig: &Rig) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(rig.path("ca.pem")).unwrap()
}

#[tokio::test]
async fn a_request_as_the_device_software_writes_it_is_answered() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let (key, csr) = (p256(), Csr { null_parameter: true, ..Csr::default() });
    let answer = server.issue(issue(csr.signed_by(&key))).await.unwrap();
    let spki = key.subject_public_key_info();
    assert!(answer.certificate.windows(spki.len()).any(|window| window == spki));
}

#[tokio::test]
async fn many_requests_at_once_each_get_a_certificate_of_their_own() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    server.open(orders::USUAL).await;
    let channel = server.connect().await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let mut client = SignerClient::new(channel.clone());
        let endpoint_name = format!("sensor-{number}");
        let csr = Csr { subject: &[(CN, &endpoint_name)], ..Csr::default() }.signed_by(&p256());
        let request = IssueRequest { endpoint_name, ..issue(csr) };
        calls.spawn(async move { client.issue(request).await.unwrap().into_inner().certificate });
    }
    let serials: HashSet<_> = calls.join_all().await.iter().map(|certificate| serial(certificate)).collect();
    assert_eq!(serials.len(), 40);
    assert!(serials.iter().all(|serial| serial.len() == 16 && serial[0] < 0x80));
}

fn serial(certificate: &[u8]) -> Vec<u8> {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    parsed.raw_serial().to_vec()
}

#[tokio::test]
async fn a_bad_request_is_refused_with_the_field_and_its_fault() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let good = || issue(Csr::default().signed_by(&p256()));
    let id_without_hyphens = "0190a8b45f6e7c3d8b2a1f0e9d8c7b6a".to_owned();
    let cases: [(IssueRequest, &str); 8] = [
        (IssueRequest { issuance_id: String::new(), ..good() }, "issuance_id is no UUID"),
        (IssueRequest { issuance_id: id_without_hyphens, ..good() }, "issuance_id is no UUID"),
        (IssueRequest { work_order: String::new(), ..good() }, "work_order must not be empty"),
        (IssueRequest { work_order: "x".repeat(65), ..good() }, "work_order is 65 bytes long"),
        (IssueRequest { endpoint_name: "a/b".to_owned(), ..good() }, "endpoint_name holds '/'"),
        (
            IssueRequest { endpoint_name: "other".to_owned(), ..good() },
            "certificate_request has a common name",
        ),
        (issue(Vec::new()), "certificate_request is no PKCS#10 request"),
        (issue(vec![0x30; 4097]), "certificate_request is 4097 bytes long"),
    ];
    for (request, fault) in cases {
        let refused = server.issue(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(fault), "{refused} does not start with {fault:?}");
    }
}

#[tokio::test]
async fn a_message_of_a_megabyte_is_refused_before_it_is_read() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let refused = server.issue(issue(vec![0x30; 1 << 20])).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let info = refused.get_details_error_info().expect("google.rpc.ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("MESSAGE_TOO_LARGE", "factory.signer.v1"));
    server.issue(issue(Csr::default().signed_by(&p256()))).await.unwrap();
}

#[tokio::test]
async fn describe_names_token_and_ca() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let mut client = SignerClient::new(server.connect().await);
    let described = client.describe(DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!(described.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(described.token_label, "factory");
    assert_eq!(described.token_serial.len(), 16);
    assert_eq!(described.ca_certificate, ca_certificate(&rig).as_ref());
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let rig = Rig::commissioned();
    let server = rig.serve();
    let channel = server.connect().await;

    let service = "factory.signer.v1.Signer".to_owned();
    let mut health = HealthClient::new(channel.clone());
    let status = health.check(HealthCheckRequest { service: service.clone() }).await.unwrap();
    assert_eq!(status.into_inner().status(), ServingStatus::Serving);

    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers = reflection.server_reflection_info(tokio_stream::once(list)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = answer else { panic!("{answer:?}") };
    assert!(listed.service.iter().any(|found| found.name == service), "{listed:?}");
}
