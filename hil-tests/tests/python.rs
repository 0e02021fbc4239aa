//! The Python client that integrators begin with, against the virtual line: made from the `.proto` alone.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use factory_hil_tests::{
    mes::{
        controller::Controller,
        line::{self, ACCOUNT, Assembly},
        temper::Temper,
    },
    python::Python,
    rig::{RECIPE, Rig, free_address},
};
use factory_proto::station::{
    DescribeStationRequest, Outcome, Validation, WatchEventsRequest, WatchEventsResponse, WorkOrderState,
    watch_events_response::Event,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::yield_now, time::timeout};

const NESTS: [&str; 3] = ["A", "B", "C"];
const ORDER: &str = "WO-1";
// Ten times what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A line of three nests with a sound board in each, and its controller.
struct Line {
    rig: Rig,
    controller: Controller,
    python: Python,
}

impl Line {
    /// `None`, which is said, where grpcio is not installed.
    async fn in_folder(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(python) = Python::with_stubs(&folder.join("stubs"))? else {
            println!(
                "the Python client was not run: grpcio is not there, which ./hil-tests/prepare installs"
            );
            return Ok(None);
        };
        let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a folder")?;
        let address = free_address()?;
        let mut rig = Rig::build(folder, programs, &NESTS, &format!("http://{address}"))?;
        // Each start is the controller's.
        rig.allowance = 0;
        let controller = Controller::new(&folder.join("results.db"))?;
        tokio::spawn(controller.clone().serve(address));
        // No order opens at a station whose controller was away when it was asked first.
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                yield_now().await;
            }
        };
        timeout(PATIENCE, listens).await.context("the controller does not listen")?;
        rig.start_signer()?;
        rig.sign_order(ORDER, u32::try_from(NESTS.len())?)?;
        for (nest, number) in NESTS.iter().zip(1..) {
            line::lay(&rig, nest, &Assembly::sound(number))?;
        }
        Ok(Some(Self { rig, controller, python }))
    }

    /// The client, which makes the boards that lie in the nests.
    fn client(&self) -> tokio::process::Command {
        let folder = &self.rig.folder;
        let mut client = self.python.program("python/client.py");
        let (scheme, address) = self.rig.station.split_once("://").expect("an address has a scheme");
        client.args(["--station", address, "--order", ORDER, "--recipe", RECIPE, "--account", ACCOUNT]);
        client.arg("--signed-order").arg(folder.join(format!("{ORDER}.jws")));
        client.arg("--device-ca").arg(self.rig.ca_certificate());
        if scheme == "https" {
            for (option, file) in
                [("--ca", "line-ca.pem"), ("--certificate", "mes.pem"), ("--key", "mes.key")]
            {
                client.arg(option).arg(folder.join(file));
            }
        }
        for (nest, number) in NESTS.iter().zip(1..) {
            client.arg(format!("{nest}={}", Assembly::sound(number).serial));
        }
        let mut client = tokio::process::Command::from(client);
        client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        client
    }

    /// All units have passed, the controller has each once, the books add up and are closed.
    async fn check(&self, said: &Value) -> anyhow::Result<()> {
        let units = json!({ "SN0001": "PASS", "SN0002": "PASS", "SN0003": "PASS" });
        let station = json!({ "units": 3, "passed": 3, "shipped": 3 });
        assert_eq!((&said["units"], &said["station"], &said["closed"]), (&units, &station, &json!(true)));
        // A unit whose key died with the station has been certified anew.
        let books = &said["signer"];
        let count = |place: &str| books[place].as_u64().unwrap_or_default();
        assert_eq!((count("units_counted"), count("shipped"), count("open")), (3, 3, 0), "{books}");
        assert_eq!(count("replacements_counted"), count("superseded"), "{books}");

        timeout(PATIENCE, self.controller.wait_for(NESTS.len())).await.context("results still wait")??;
        let results = self.controller.results();
        let passed = results.iter().filter(|unit| unit.outcome() == Outcome::Pass);
        let serials: BTreeSet<&str> = passed.map(|unit| unit.serial.as_str()).collect();
        assert_eq!((results.len(), serials), (3, BTreeSet::from(["SN0001", "SN0002", "SN0003"])));
        assert!(results.iter().all(|unit| !unit.validated_by.is_empty()), "a unit was not asked for");

        let mut station = self.rig.connect().await?;
        let orders = station.describe_station(DescribeStationRequest {}).await?.into_inner().work_orders;
        let states: Vec<_> = orders.iter().map(|order| (order.state(), order.passed)).collect();
        assert_eq!(states, [(WorkOrderState::Closed, 3)]);
        Ok(())
    }

    /// Waits until the station has told enough, from its first record on.
    async fn told(&self, enough: impl FnMut(&WatchEventsResponse) -> bool) -> anyhow::Result<()> {
        timeout(PATIENCE, self.follow(enough)).await.context("the station does not do what it should")?
    }

    async fn follow(&self, mut enough: impl FnMut(&WatchEventsResponse) -> bool) -> anyhow::Result<()> {
        let mut station = self.rig.connect().await?;
        let all = WatchEventsRequest { after_sequence: Some(0), ..WatchEventsRequest::default() };
        let mut events = station.watch_events(all).await?.into_inner();
        while !enough(&events.message().await?.context("the station ended the stream of events")?) {}
        Ok(())
    }
}

/// What the client said in the end.
fn summary(output: &Output) -> anyhow::Result<Value> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test]
async fn the_python_client_makes_an_order_though_the_station_is_killed_twice() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut line) = Line::in_folder(folder.path()).await? else { return Ok(()) };
    line.rig.start_station()?;
    let client = line.client().spawn()?;
    // Once when the first unit is in, and once when all are and one is certified.
    line.told(|told| matches!(told.event, Some(Event::RunAccepted(_)))).await?;
    line.rig.kill_station()?;
    line.rig.start_station()?;
    let (mut accepted, mut issued) = (0, 0);
    line.told(|told| {
        accepted += usize::from(matches!(told.event, Some(Event::RunAccepted(_))));
        issued += usize::from(matches!(told.event, Some(Event::Issued(_))));
        accepted == NESTS.len() && issued > 0
    })
    .await?;
    // It does not see how the units end, and must be told later.
    let process = Pid::from_raw(i32::try_from(client.id().context("nobody waited for it")?)?);
    kill(process, Signal::SIGSTOP)?;
    line.rig.kill_station()?;
    line.rig.start_station()?;
    let mut closed = 0;
    line.told(|told| {
        closed += usize::from(matches!(told.event, Some(Event::RunClosed(_))));
        closed == NESTS.len()
    })
    .await?;
    kill(process, Signal::SIGCONT)?;

    let output = timeout(PATIENCE, client.wait_with_output()).await.context("the client does not end")??;
    let said = summary(&output)?;
    // It may have been between two tries to come back when the station was killed again.
    assert!(said["streams_lost"].as_u64() >= Some(1), "{said}");
    line.check(&said).await
}

#[tokio::test]
async fn the_python_client_that_is_started_again_does_nothing_twice_and_so_over_tls() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut line) = Line::in_folder(folder.path()).await? else { return Ok(()) };
    line.rig.secure()?;
    line.rig.start_station()?;
    // It is killed with the first unit under way.
    let mut client = line.client().spawn()?;
    line.told(|told| matches!(told.event, Some(Event::RunAccepted(_)))).await?;
    client.kill().await?;
    for _ in 0..2 {
        let output = timeout(PATIENCE, line.client().output()).await.context("the client does not end")??;
        line.check(&summary(&output)?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_python_client_leaves_a_unit_that_failed_or_was_refused_to_people() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut line) = Line::in_folder(folder.path()).await? else { return Ok(()) };
    line.rig.start_station()?;
    let objection = (Validation::Route, "was never at the printer".to_owned());
    let objects = [("SN0003".to_owned(), vec![objection])].into();
    line.controller.behave(Temper { objects, ..Temper::default() });
    line::take_out(&line.rig, "B", "SN0002")?;
    line::lay(&line.rig, "B", &Assembly { tag_locked: true, ..Assembly::sound(2) })?;
    let output = timeout(PATIENCE, line.client().output()).await.context("the client does not end")??;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    let said: Value = serde_json::from_slice(&output.stdout).with_context(|| complaint.into_owned())?;
    assert_eq!((&said["units"]["SN0001"], &said["units"]["SN0002"]), (&json!("PASS"), &json!("FAIL")));
    let refusal = said["units"]["SN0003"].as_str().context("a unit has a text")?;
    assert!(refusal.contains("ROUTE: was never at the printer"), "{refusal}");
    let station = json!({ "units": 2, "passed": 1, "failed": 1, "shipped": 1, "open": 1 });
    assert_eq!((&said["station"], &said["closed"]), (&station, &json!(false)));
    Ok(())
}
