//! The station's side of the protocol against the device: the whole flow, and each way to misbehave.

use std::time::Duration;

use factory_fixtures::fcc::{
    self, FccError, frame,
    frame::FrameError,
    message::{Bundle, CertificateItem, CsrRequest, Parameter, Value},
    session::{Event, Session},
    status::TransportStatus,
};
use factory_hil_tests::device::{line::BANNER, store::Kind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, join, sink},
    time::timeout,
};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::{
    messages::{KEY, certify},
    sim::{self, Sim},
};

const ENDPOINT: &str = "0123456789abcdef0123456789abcdef";

fn csr_request() -> CsrRequest {
    CsrRequest {
        session: "unit-0001".into(),
        key_name: KEY.into(),
        subject: format!("C=GB,O=Org,CN={ENDPOINT}"),
    }
}

fn bundle(server_ca: Vec<u8>, device: Vec<u8>) -> Bundle {
    let certificate = |name: &str, der, private_key: Option<&str>| CertificateItem {
        name: name.into(),
        der,
        private_key: private_key.map(Into::into),
    };
    let parameter = |(name, value): (&str, Value)| Parameter { name: format!("mbed.{name}"), value };
    let text = |text: &str| Value::Text(text.into());
    Bundle {
        session: "unit-0001".into(),
        certificates: vec![
            certificate("mbed.BootstrapServerCACert", server_ca, None),
            certificate("mbed.BootstrapDeviceCert", device, Some(KEY)),
        ],
        parameters: [
            ("UseBootstrap", Value::Integer(1)),
            ("EndpointName", text(ENDPOINT)),
            ("BootstrapServerURI", text("coaps://bootstrap.example.test:5684")),
            ("Manufacturer", text("Maker")),
            ("ModelNumber", text("M-1")),
            ("SerialNumber", text("SN0001")),
            ("DeviceType", text("sensor")),
            ("HardwareVersion", text("rev-a")),
            ("MemoryTotalKB", Value::Integer(512)),
            ("CurrentTime", Value::Integer(1_795_343_915)),
            ("Timezone", text("Europe/London")),
            ("UTCOffset", text("+00:00")),
            ("FirstToClaim", Value::Integer(1)),
        ]
        .map(parameter)
        .into(),
        verify: true,
        disable: true,
    }
}

#[tokio::test]
async fn a_unit_is_provisioned_and_holds_exactly_what_it_was_given() {
    let (_directory, storage) = sim::place();
    let mut sim = Sim::boot(&storage, &["--log-noise"]);
    let (answer, _) = sim.exchange(&frame::encode(&csr_request().encode())).await;
    let csr = answer.unwrap().accepted("unit-0001").unwrap().into_csr(KEY).unwrap();

    let (server_ca, device) = certify(&csr.der);
    let bundle = bundle(server_ca.clone(), device.clone());
    let (answer, text) = sim.exchange(&frame::encode(&bundle.encode())).await;
    let answer = answer.unwrap().accepted("unit-0001").unwrap();
    assert_eq!(
        answer.warnings,
        ["mbed.UpdateAuthCert", "mbed.ClassId", "mbed.VendorId"].map(|name| format!("Item not set:{name}"))
    );
    assert!(text.ends_with(b"by mbed"), "log text may end like a token begins");
    assert_eq!(sim.end().await, Some(0));

    let held = sim::held(&storage);
    assert!(held.factory_disabled);
    assert_eq!(held.get(Kind::Certificate, "mbed.BootstrapServerCACert"), Some(server_ca.as_slice()));
    assert_eq!(held.get(Kind::Certificate, "mbed.BootstrapDeviceCert"), Some(device.as_slice()));
    assert_eq!(held.get(Kind::Config, "mbed.EndpointName"), Some(ENDPOINT.as_bytes()));
    assert_eq!(held.get(Kind::Config, "mbed.MemoryTotalKB"), Some([0, 2, 0, 0].as_slice()));
    assert_eq!(held.get(Kind::Config, "mbed.CurrentTime"), None);
    assert!(held.get(Kind::PrivateKey, KEY).is_some());

    // A product keeps its storage and takes no further bundle; the stock program erases and begins again.
    let mut sim = Sim::boot(&storage, &["--keep-storage"]);
    let (answer, _) = sim.exchange(&frame::encode(&bundle.encode())).await;
    let error = answer.unwrap_err();
    assert!(matches!(error, FccError::Transport(TransportStatus::NotProcessed)), "{error:?}");
    assert_eq!(sim.end().await, Some(1));
    assert_eq!(sim::held(&storage), held);

    let mut sim = Sim::boot(&storage, &[]);
    sim.exchange(&frame::encode(&csr_request().encode())).await.0.unwrap();
    assert!(!sim::held(&storage).factory_disabled);
}

#[tokio::test]
async fn the_session_runs_over_any_line_without_a_stream_of_its_own() {
    let (_directory, storage) = sim::place();
    let mut sim = Sim::boot(&storage, &["--log-noise"]);
    let (mut session, frame) = Session::begin(&csr_request());
    sim.send(&frame).await;
    let mut byte = [0];
    loop {
        sim.line.read_exact(&mut byte).await.unwrap();
        session.receive(&byte);
        match session.next_event().unwrap() {
            None | Some(Event::Text(_)) => {}
            Some(Event::Csr(csr)) => {
                let (server_ca, device) = certify(&csr.der);
                sim.send(&session.provision(&bundle(server_ca, device)).unwrap()).await;
            }
            Some(Event::Provisioned(answer)) => break assert_eq!(answer.session.unwrap(), "unit-0001"),
        }
    }
}

/// What a request for a CSR leads to on a device with this switch, whose line ends behind the request.
async fn misbehave(switch: &str) -> (FccError, Vec<u8>) {
    let (_directory, storage) = sim::place();
    let Sim { child: _child, line } = Sim::boot(&storage, &[switch]);
    let (output, mut input) = line.into_inner();
    input.write_all(&frame::encode(&csr_request().encode())).await.unwrap();
    drop(input);
    let mut text = Vec::new();
    let mut line = join(output, sink());
    let exchange = fcc::exchange(&mut line, b"", |piece| text.extend_from_slice(piece));
    let answer = timeout(sim::GUARD, exchange).await.expect("an exchange does not hang");
    (answer.unwrap_err(), text)
}

#[tokio::test]
async fn each_misbehaviour_has_its_own_error() {
    let (error, _) = misbehave("--bad-digest").await;
    assert!(matches!(error, FccError::Frame(FrameError::Digest { .. })), "{error:?}");
    let (error, _) = misbehave("--huge-length").await;
    assert!(matches!(error, FccError::Frame(FrameError::TooLong { length: u32::MAX })), "{error:?}");
    for switch in ["--silent", "--wrong-token", "--rubbish"] {
        let (error, text) = misbehave(switch).await;
        assert!(matches!(error, FccError::Closed), "{switch}: {error:?}");
        let wanted = match switch {
            "--silent" => BANNER.len()..BANNER.len() + 1,
            "--wrong-token" => 500..700,
            _ => 64 * 1024..70 * 1024,
        };
        assert!(wanted.contains(&text.len()), "{switch}: {} bytes of text", text.len());
    }
}

#[tokio::test]
async fn a_device_may_ask_for_another_subject_than_it_was_told() {
    let (_directory, storage) = sim::place();
    let mut sim = Sim::boot(&storage, &["--csr-subject", "C=GB,CN=somebody-else"]);
    let (answer, _) = sim.exchange(&frame::encode(&csr_request().encode())).await;
    let csr = answer.unwrap().into_csr(KEY).unwrap();
    let (_, csr) = X509CertificationRequest::from_der(&csr.der).unwrap();
    assert_eq!(csr.certification_request_info.subject.to_string(), "C=GB, CN=somebody-else");
}

#[tokio::test]
async fn a_device_that_hangs_in_mid_bundle_answers_nothing_and_stores_nothing_of_it() {
    let (_directory, storage) = sim::place();
    let mut sim = Sim::boot(&storage, &["--hang-after-bytes", "100"]);
    let (answer, _) = sim.exchange(&frame::encode(&csr_request().encode())).await;
    let (server_ca, device) = certify(&answer.unwrap().into_csr(KEY).unwrap().der);
    let frame = frame::encode(&bundle(server_ca, device).encode());
    // An answer takes a few milliseconds; here the deadline is the thing that is waited for.
    let exchange = fcc::exchange(&mut sim.line, &frame, |_| {});
    assert!(timeout(Duration::from_millis(300), exchange).await.is_err());
    assert_eq!(sim.child.try_wait().unwrap(), None, "the device is still there");
    assert_eq!(sim::held(&storage).names().collect::<Vec<_>>(), [(Kind::PrivateKey, KEY)]);
}
