//! The station as a client: it calls its controller over mutual TLS, with the certificate that it has by then.

use std::{convert::Infallible, fmt, sync::Arc, time::SystemTime};

use factory_door::{
    allowance::{Allowance, Limits},
    doors::{Door, Doors},
    guest::{Evidence, Guest, House, Identity},
    tls::{Tls, TlsFiles},
};
use factory_journal::{Journal, Options};
use factory_proto::outcome::Outcome;
use factory_station::{
    recipe::template::Values,
    record::{Findings, Record, RunClosed, RunId, RunOpened},
};
use tokio::{net::TcpListener, sync::mpsc};
use tonic::{service::Routes, transport::Server};
use uuid::Uuid;

use crate::{
    daemon::{Daemon, folder, replace},
    pki::Pki,
};

/// Tells who comes; each may.
struct Reception(mpsc::UnboundedSender<Evidence>);

#[derive(Clone)]
struct Station(Arc<Allowance>);

impl Guest for Station {
    fn allowance(&self) -> &Allowance {
        &self.0
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a station")
    }
}

impl House for Reception {
    type Peer = Station;
    type Stranger = Infallible;

    fn recognise(&self, evidence: &Evidence) -> Result<Station, Infallible> {
        let _ = self.0.send(evidence.clone());
        let limits = Limits { calls: None, at_a_time: 9, connections: 9 };
        Ok(Station(Arc::new(Allowance::new(&limits))))
    }
}

/// A result that waits for the controller.
fn result() -> [Record; 2] {
    let opened = RunOpened {
        run: RunId::of_command(Uuid::nil()),
        order: Some("WO-1".parse().unwrap()),
        serial: "SN0001".parse().unwrap(),
        nest: "nest-1".parse().unwrap(),
        recipe_digest: [0; 32],
        started: SystemTime::UNIX_EPOCH,
        values: Values::default(),
        allowed: None,
        golden: None,
    };
    let closed = RunClosed {
        opened: opened.clone(),
        ended: SystemTime::UNIX_EPOCH,
        outcome: Outcome::Fail,
        stopped: None,
        findings: Findings::default(),
        quarantine: None,
    };
    [Record::RunOpened(opened), Record::RunClosed(Box::new(closed))]
}

#[tokio::test]
async fn a_controller_sees_the_stations_certificate_and_a_new_one_when_it_calls_again() {
    let pki = Pki::new();
    let (listener, theirs) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), tempfile::tempdir().unwrap());
    pki.equip(theirs.path());
    let path = |name: &str| theirs.path().join(name);
    let files = TlsFiles {
        certificate: path("tls.pem"),
        key: path("tls.key"),
        client_ca: path("clients.pem"),
        client_crl: None,
    };
    let port = listener.local_addr().unwrap().port();
    let (seen, mut visitors) = mpsc::unbounded_channel();
    let doors = Doors::open([Door::Tls(listener, Tls::load(files).unwrap())], Reception(seen));
    // It knows no method, so the station comes again and again.
    tokio::spawn(Server::builder().add_routes(Routes::default()).serve_with_incoming(doors));

    let tls = "[controller-tls]\nca = \"line-1.ca\"\ncertificate = \"line-1.pem\"\nkey = \"line-1.key\"\n";
    let folder = folder("", tls);
    let station_file = folder.path().join("station.toml");
    let file = std::fs::read_to_string(&station_file).unwrap();
    let file = file.replace("http://127.0.0.1:9", &format!("https://localhost:{port}"));
    std::fs::write(&station_file, file).unwrap();
    let files = pki.files(folder.path(), "line-1");
    let journal = Journal::open(folder.path().join("state"), Options::default()).unwrap();
    journal.append_all(result().into()).await.unwrap();
    drop(journal);
    let _daemon = tokio::task::spawn_blocking(|| Daemon::start(folder)).await.unwrap();

    let named = |name: &str| Evidence::Certificate(vec![Identity::Dns(name.to_owned())]);
    assert_eq!(visitors.recv().await, Some(named("line-1")));
    let (certificate, key) = pki.give("line-2", rcgen::ExtendedKeyUsagePurpose::ClientAuth, |_| {});
    replace(&files.key, &key);
    replace(&files.certificate, &certificate);
    while visitors.recv().await != Some(named("line-2")) {}
}
