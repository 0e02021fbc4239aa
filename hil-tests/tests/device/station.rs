//! The station's side of the protocol against the device: the whole flow, and each way to misbehave.

use std::time::{Duration, Instant};

use factory_fixtures::fcc::{
    FccError,
    frame::FrameError,
    link,
    message::{Answer, Bundle, CertificateItem, CsrRequest, KeyRequest, Parameter, Then, Value},
    outline::{ItemKind, Outline},
    session::{Event, Session},
    status::TransportStatus,
};
use factory_hil_tests::device::{line::BANNER, store::Kind};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
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
        keys: vec![KeyRequest { name: KEY.into(), subject: format!("C=GB,O=Org,CN={ENDPOINT}") }],
    }
}

fn bundle(server_ca: Vec<u8>, device: Vec<u8>) -> Bundle {
    let certificate = |name: &str, der, private_key: Option<&str>| CertificateItem {
        name: name.into(),
        chain: vec![der],
        private_key: private_key.map(Into::into),
    };
    let parameter = |(name, value): (&str, Value)| Parameter { name: format!("mbed.{name}"), value };
    let text = |text: &str| Value::Text(text.into());
    Bundle {
        session: "unit-0001".into(),
        entropy: None,
        root_of_trust: None,
        keys: Vec::new(),
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
        then: Then::Disable,
    }
}

/// The station's conversation with a device over one line, and all text that it hears.
struct Talk<L> {
    session: Session,
    line: L,
    text: Vec<u8>,
}

impl<L: AsyncRead + AsyncWrite + Unpin> Talk<L> {
    fn over(line: L) -> Self {
        Self { session: Session::new(sim::GUARD), line, text: Vec::new() }
    }

    async fn ask(&mut self, payload: &[u8]) -> Result<Answer, FccError> {
        let keep = |piece: &[u8]| self.text.extend_from_slice(piece);
        link::exchange(&mut self.session, &mut self.line, payload, keep).await?.accepted()
    }
}

#[tokio::test]
async fn a_unit_is_provisioned_and_holds_exactly_what_it_was_given() {
    let (_directory, storage) = sim::place();
    let Sim { mut child, line } = Sim::boot(&storage, &["--log-noise"]);
    let mut talk = Talk::over(line);
    let csr = sim::csr(talk.ask(&csr_request().encode()).await.unwrap());

    let (server_ca, device) = certify(&csr);
    let bundle = bundle(server_ca.clone(), device.clone()).encode();
    let answer = talk.ask(&bundle).await.unwrap();
    assert_eq!(
        answer.warnings,
        ["mbed.UpdateAuthCert", "mbed.ClassId", "mbed.VendorId"].map(|name| format!("Item not set:{name}"))
    );
    assert!(talk.text.ends_with(b"by mbed"), "log text may end like a token begins");
    assert_eq!(child.wait().await.unwrap().code(), Some(0));

    let held = sim::held(&storage);
    assert!(held.factory_disabled);
    assert_eq!(held.get(Kind::Certificate, "mbed.BootstrapServerCACert"), Some(server_ca.as_slice()));
    assert_eq!(held.get(Kind::Certificate, "mbed.BootstrapDeviceCert"), Some(device.as_slice()));
    assert_eq!(held.get(Kind::Config, "mbed.EndpointName"), Some(ENDPOINT.as_bytes()));
    assert_eq!(held.get(Kind::Config, "mbed.MemoryTotalKB"), Some([0, 2, 0, 0].as_slice()));
    assert_eq!(held.get(Kind::Config, "mbed.CurrentTime"), None);
    assert!(held.get(Kind::PrivateKey, KEY).is_some());

    // A product keeps its storage and takes no further bundle; the stock program erases and begins again.
    let Sim { mut child, line } = Sim::boot(&storage, &["--keep-storage"]);
    let error = Talk::over(line).ask(&bundle).await.unwrap_err();
    assert!(matches!(error, FccError::Transport(TransportStatus::NotProcessed)), "{error:?}");
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert_eq!(sim::held(&storage), held);

    let Sim { child: _child, line } = Sim::boot(&storage, &[]);
    Talk::over(line).ask(&csr_request().encode()).await.unwrap();
    assert!(!sim::held(&storage).factory_disabled);
}

#[tokio::test]
async fn what_a_session_says_that_it_sent_is_what_the_device_stores() {
    let (_directory, storage) = sim::place();
    let Sim { child: _child, line } = Sim::boot(&storage, &[]);
    let mut talk = Talk::over(line);
    let (server_ca, device) = certify(&sim::csr(talk.ask(&csr_request().encode()).await.unwrap()));
    let bundle = bundle(server_ca, device).encode();
    talk.ask(&bundle).await.unwrap();
    let held = sim::held(&storage);
    for item in Outline::read(&bundle).unwrap().items {
        let kind = match item.kind {
            ItemKind::Certificate => Kind::Certificate,
            // Sets the clock and is not stored.
            ItemKind::Parameter if item.name == "mbed.CurrentTime" => continue,
            ItemKind::Parameter => Kind::Config,
            other => panic!("no {other:?} was sent"),
        };
        let stored = held.get(kind, &item.name).unwrap();
        assert_eq!(item.digest, Some(Sha256::digest(stored).into()), "{}", item.name);
    }
}

/// What a request for a CSR leads to on a device with this switch, whose line ends behind the request.
async fn misbehave(switch: &str) -> (FccError, Vec<u8>) {
    let (_directory, storage) = sim::place();
    let Sim { child: _child, line } = Sim::boot(&storage, &[switch]);
    let (mut output, mut input) = line.into_inner();
    let mut session = Session::new(sim::GUARD);
    session.ask(&csr_request().encode(), Instant::now()).unwrap();
    input.write_all(session.outgoing()).await.unwrap();
    session.sent(usize::MAX);
    drop(input);
    let mut heard = Vec::new();
    timeout(sim::GUARD, output.read_to_end(&mut heard)).await.expect("the device ends").unwrap();
    session.receive(&heard);
    session.hang_up();
    let mut text = Vec::new();
    loop {
        match session.next_event(Instant::now()) {
            Ok(Some(Event::Text(piece))) => text.extend(piece),
            Err(error) => return (error, [text, session.finish()].concat()),
            other => panic!("{switch}: {other:?}"),
        }
    }
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
    let Sim { child: _child, line } = Sim::boot(&storage, &["--csr-subject", "C=GB,CN=somebody-else"]);
    let csr = sim::csr(Talk::over(line).ask(&csr_request().encode()).await.unwrap());
    let (_, csr) = X509CertificationRequest::from_der(&csr).unwrap();
    assert_eq!(csr.certification_request_info.subject.to_string(), "C=GB, CN=somebody-else");
}

#[tokio::test]
async fn a_device_that_hangs_in_mid_bundle_answers_nothing_and_stores_nothing_of_it() {
    let (_directory, storage) = sim::place();
    let Sim { mut child, mut line } = Sim::boot(&storage, &["--hang-after-bytes", "100"]);
    // An answer takes a few milliseconds; here the deadline is the thing that is waited for.
    let mut session = Session::new(Duration::from_millis(300));
    let asked = csr_request().encode();
    let answer = link::exchange(&mut session, &mut line, &asked, |_| {}).await.unwrap().accepted();
    let (server_ca, device) = certify(&sim::csr(answer.unwrap()));
    let bundle = bundle(server_ca, device).encode();
    let late = link::exchange(&mut session, &mut line, &bundle, |_| {}).await.unwrap_err();
    assert!(matches!(late, FccError::Late(_)), "{late:?}");
    assert_eq!(child.try_wait().unwrap(), None, "the device is still there");
    assert_eq!(sim::held(&storage).names().collect::<Vec<_>>(), [(Kind::PrivateKey, KEY)]);
}
