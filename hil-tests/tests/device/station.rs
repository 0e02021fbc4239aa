//! The station's side of the protocol against the device: the whole flow, and each way to misbehave.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use factory_fixtures::fcc::{
    FccError, link,
    message::{
        Answer, Bundle, CertificateItem, CsrRequest, KeyHalf, KeyItem, KeyRequest, Parameter, Then, Value,
    },
    outline::{ItemKind, Outline},
    session::{Event, Exchange, Session},
    status::TransportStatus,
};
use factory_hil_tests::device::{
    cbor::{self, top_map},
    line::BANNER,
    store::Kind,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use zeroize::Zeroizing;

use super::{
    messages::{KEY, Message, certify},
    recorded::{self, bytes},
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

/// The recorded bundle of a unit whose key the station made, read as a tree and written by the station.
#[test]
fn the_recorded_bundle_with_a_key_is_written_byte_for_byte() {
    let recorded = bytes(recorded::KEY_BY_STATION);
    let message = Message(top_map(&recorded).unwrap());
    let items = |group: &str| {
        let (_, items) = message.0.iter().find(|(name, _)| name == group).unwrap();
        items.array().unwrap().iter().map(|item| item.map().unwrap().to_vec())
    };
    let text = |value: &cbor::Value| value.text().unwrap().to_owned();
    let key = |item: Vec<(String, cbor::Value)>| {
        assert_eq!(item[1].1, cbor::Value::Text("ECCPrivate".into()));
        let der = Zeroizing::new(item[3].1.bytes().unwrap().to_vec());
        KeyItem { name: text(&item[0].1), half: KeyHalf::Private, der }
    };
    let certificate = |item: Vec<(String, cbor::Value)>| CertificateItem {
        name: text(&item[0].1),
        chain: vec![item[2].1.bytes().unwrap().to_vec()],
        private_key: item.get(3).map(|(_, name)| text(name)),
    };
    let parameter = |item: Vec<(String, cbor::Value)>| Parameter {
        name: text(&item[0].1),
        value: match &item[1].1 {
            cbor::Value::Text(text) => Value::Text(text.clone()),
            cbor::Value::Bytes(bytes) => Value::Bytes(bytes.clone()),
            cbor::Value::Integer(number) => Value::Integer(i64::try_from(*number).unwrap()),
            other => panic!("{other:?}"),
        },
    };
    let bundle = Bundle {
        session: "unit-0001".into(),
        entropy: None,
        root_of_trust: None,
        keys: items("Keys").map(key).collect(),
        certificates: items("Certificates").map(certificate).collect(),
        parameters: items("ConfigParams").map(parameter).collect(),
        verify: true,
        then: Then::Disable,
    };
    assert_eq!(*bundle.encode(), recorded);
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
    // Ends like a token begins, as log text may.
    let log = "[INFO][fcc ]: message taken, 18312 bytes of heap used by mbed";
    let log = fault(&format!("{{ log = {{ at-byte = 0, text = '{log}' }} }}"));
    let Sim { mut child, line } = Sim::misbehaving(&storage, &log);
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

/// What a request for a CSR leads to on a device with this scenario, whose line ends behind the request.
async fn misbehave(scenario: &str) -> (Result<Exchange, FccError>, Vec<u8>) {
    let (_directory, storage) = sim::place();
    let Sim { child: _child, line } = Sim::misbehaving(&storage, scenario);
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
    let mut answered = None;
    loop {
        match session.next_event(Instant::now()) {
            Ok(Some(Event::Text(piece))) => text.extend(piece),
            Ok(Some(Event::Answered(exchange))) => answered = Some(exchange),
            Ok(None) => {
                let answered = answered.expect("a line that ended has an answer, or an error");
                return (Ok(answered), [text, session.finish()].concat());
            }
            Err(error) => return (Err(error), [text, session.finish()].concat()),
        }
    }
}

/// With all that led to it.
fn told(error: FccError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// A scenario of one fault.
fn fault(what: &str) -> String {
    format!("[[fault]]\nwhat = {what}\n")
}

#[tokio::test]
async fn each_misbehaviour_has_its_own_error() {
    let check = async |what: &str, wanted: &str, text: Range<usize>| {
        let (answer, heard) = misbehave(&fault(what)).await;
        let error = answer.and_then(Exchange::accepted).expect_err(what);
        let error = told(error);
        assert!(error.contains(wanted), "{what}: {error}");
        assert!(text.contains(&heard.len()), "{what}: {} bytes of text", heard.len());
    };
    let closed = FccError::Closed.to_string();
    let banner = BANNER.len()..BANNER.len() + 1;
    check("'silent'", &closed, banner.clone()).await;
    check("'wrong-token'", &closed, 500..700).await;
    check("'rubbish'", &closed, 64 * 1024..70 * 1024).await;
    check("'wrong-digest'", "digest", banner.clone()).await;
    check("'huge-length'", &u32::MAX.to_string(), 500..700).await;
    check("{ transport-status = 42 }", "42", banner.clone()).await;
    check("{ return-status = 99 }", "99", banner.clone()).await;
    check("{ return-status = 14 }", "14", banner).await;
}

#[tokio::test]
async fn log_text_is_kept_wherever_it_comes_and_in_a_frame_it_is_an_error() {
    let check = async |at: usize, log: &str, wanted: Option<&str>| {
        let scenario = fault(&format!("{{ log = {{ at-byte = {at}, text = '{log}' }} }}"));
        let (answer, text) = misbehave(&scenario).await;
        match (answer, wanted) {
            (Ok(exchange), None) => {
                exchange.accepted().unwrap();
                assert_eq!(text, [BANNER, log.as_bytes()].concat(), "{at} {log}");
            }
            (Err(error), Some(wanted)) => {
                let error = told(error);
                assert!(error.contains(wanted), "{at} {log}: {error}");
            }
            (answer, _) => panic!("{at} {log}: {answer:?}"),
        }
    };
    // Before the frame and behind it, also with what looks like a token.
    for log in ["[INFO] 18312 bytes of heap", "used by mbed", "mbedprombedpro", "mbeddbap"] {
        check(0, log, None).await;
        check(usize::MAX >> 1, log, None).await;
    }
    let closed = FccError::Closed.to_string();
    // A token with text in it or behind it is one that a log mentions.
    check(4, "noise", Some(&closed)).await;
    check(8, "noise", Some(&closed)).await;
    check(12, "noise", Some("the answer claims 1936289646 bytes")).await;
    check(40, "noise", Some("digest")).await;
}

#[tokio::test]
async fn a_slow_device_is_waited_for() {
    let (_directory, storage) = sim::place();
    let Sim { child: _child, line } = Sim::misbehaving(&storage, &fault("{ slow = '100us' }"));
    let csr = sim::csr(Talk::over(line).ask(&csr_request().encode()).await.unwrap());
    certify(&csr);
}

#[tokio::test]
async fn an_old_firmware_says_that_it_does_not_know_the_scheme() {
    let (_directory, storage) = sim::place();
    let Sim { child: _child, line } = Sim::misbehaving(&storage, "scheme-version = '0.0.0'");
    let error = Talk::over(line).ask(&csr_request().encode()).await.unwrap_err();
    assert!(matches!(&error, FccError::Refused { status, .. } if status.number() == 24), "{error}");
}

#[tokio::test]
async fn a_device_may_ask_for_another_subject_than_it_was_told() {
    let (_directory, storage) = sim::place();
    let Sim { child: _child, line } = Sim::misbehaving(&storage, "csr.subject = 'C=GB,CN=somebody-else'");
    let csr = sim::csr(Talk::over(line).ask(&csr_request().encode()).await.unwrap());
    let (_, csr) = X509CertificationRequest::from_der(&csr).unwrap();
    assert_eq!(csr.certification_request_info.subject.to_string(), "C=GB, CN=somebody-else");
}

#[tokio::test]
async fn a_device_that_asks_for_another_key_than_it_holds_refuses_the_certificate() {
    let (_directory, storage) = sim::place();
    let Sim { child: _child, line } = Sim::misbehaving(&storage, "csr.another-key = true");
    let mut talk = Talk::over(line);
    let (server_ca, device) = certify(&sim::csr(talk.ask(&csr_request().encode()).await.unwrap()));
    let error = talk.ask(&bundle(server_ca, device).encode()).await.unwrap_err();
    assert!(matches!(&error, FccError::Refused { status, .. } if status.number() == 34), "{error}");
}

#[tokio::test]
async fn a_device_that_hangs_in_mid_bundle_answers_nothing_and_stores_nothing_of_it() {
    let (_directory, storage) = sim::place();
    let hangs = "[[fault]]\nmessage = 2\nwhat = { hang-after-bytes = 100 }\n";
    let Sim { mut child, mut line } = Sim::misbehaving(&storage, hangs);
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
