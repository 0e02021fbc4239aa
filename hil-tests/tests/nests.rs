//! Nests in people's hands: parked, enabled, cleared, found, and chosen, on the virtual line.

use std::{path::Path, time::Duration};

use factory_hil_tests::{
    mes::line::{self, Assembly},
    rig::{Rig, Simulator, free_address},
    target,
};
use factory_proto::station::{
    ClearNestRequest, CloseWorkOrderRequest, DescribeStationRequest, EnableNestRequest, IdentifyNestRequest,
    NestDescription, Outcome, ParkNestRequest, PauseWorkOrderRequest, StartUnitRequest, StartUnitResponse,
    WatchEventsRequest, station_client::StationClient, watch_events_response::Event,
};
use nix::sys::signal::Signal;
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;

type Station = StationClient<Channel>;

/// A line, running, with an open order.
async fn line(folder: &Path, nests: &[&str]) -> anyhow::Result<(Rig, Station)> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder");
    let mut rig = Rig::build(folder, programs, nests, &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = connect(&rig).await?;
    line::open(&rig, &mut station, "WO-1", 9).await?;
    Ok((rig, station))
}

/// A client, when the instruments have answered for the first time.
async fn connect(rig: &Rig) -> anyhow::Result<Station> {
    let mut station = StationClient::connect(rig.station.clone()).await?;
    for nest in &rig.nests {
        clear(&mut station, nest, Uuid::now_v7()).await?;
    }
    Ok(station)
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("it should be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

async fn park(station: &mut Station, nest: &str, command: Uuid, reason: &str) -> Result<(), Status> {
    let request = ParkNestRequest {
        command_id: command.to_string(),
        nest: nest.to_owned(),
        reason: reason.to_owned(),
        by: "anna".to_owned(),
    };
    station.park_nest(request).await.map(drop)
}

async fn enable(station: &mut Station, nest: &str, command: Uuid) -> Result<(), Status> {
    let request = EnableNestRequest { command_id: command.to_string(), nest: nest.to_owned() };
    station.enable_nest(request).await.map(drop)
}

async fn clear(station: &mut Station, nest: &str, command: Uuid) -> Result<String, Status> {
    let request = ClearNestRequest { command_id: command.to_string(), nest: nest.to_owned() };
    Ok(station.clear_nest(request).await?.into_inner().parked)
}

async fn identify(station: &mut Station, nest: &str) -> Result<(), Status> {
    let request = IdentifyNestRequest { command_id: Uuid::now_v7().to_string(), nest: nest.to_owned() };
    station.identify_nest(request).await.map(drop)
}

async fn start(
    station: &mut Station,
    command: Uuid,
    nest: &str,
    serial: &str,
) -> Result<StartUnitResponse, Status> {
    let request = StartUnitRequest {
        command_id: command.to_string(),
        work_order: "WO-1".to_owned(),
        serial: serial.to_owned(),
        nest: nest.to_owned(),
        ..StartUnitRequest::default()
    };
    Ok(station.start_unit(request).await?.into_inner())
}

async fn described(station: &mut Station, nest: &str) -> anyhow::Result<NestDescription> {
    let nests = station.describe_station(DescribeStationRequest {}).await?.into_inner().nests;
    Ok(nests.into_iter().find(|described| described.nest == nest).expect("the station has the nest"))
}

#[tokio::test]
async fn a_nest_that_was_parked_by_hand_stays_so_until_it_is_enabled_also_by_a_station_that_is_killed()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), &["A"]).await?;
    let [parked, enabled] = [Uuid::now_v7(), Uuid::now_v7()];
    refused(park(&mut station, "B", parked, "why").await, Code::NotFound, "this station has no nest B");
    refused(park(&mut station, "A", parked, "").await, Code::InvalidArgument, "reason: must say why");
    park(&mut station, "A", parked, "its lid is broken").await?;
    rig.kill_station()?;
    rig.start_station()?;
    let mut station = connect(&rig).await?;
    let nest = described(&mut station, "A").await?;
    let by_hand = nest.parked_by_hand.expect("it was parked by hand");
    assert_eq!((by_hand.by.as_str(), by_hand.reason.as_str()), ("anna", "its lid is broken"));
    assert!(by_hand.since.is_some() && nest.parked.contains("parked by anna: its lid is broken"));
    let text = "nest A was parked by anna: its lid is broken; enable it first";
    refused(start(&mut station, Uuid::now_v7(), "A", "SN0001").await, Code::FailedPrecondition, text);
    // To clear it is not to enable it.
    assert!(clear(&mut station, "A", Uuid::now_v7()).await?.contains("parked by anna"));

    enable(&mut station, "A", enabled).await?;
    // A command that comes late changes nothing, and one that is used for something else is refused.
    park(&mut station, "A", parked, "its lid is broken").await?;
    let text = "was used before, for ParkNest or with other contents";
    refused(park(&mut station, "A", parked, "another").await, Code::AlreadyExists, text);
    refused(enable(&mut station, "A", parked).await, Code::AlreadyExists, text);
    // Whatever the call is that it is used for.
    refused(start(&mut station, parked, "A", "SN0001").await, Code::AlreadyExists, text);
    rig.kill_station()?;
    rig.start_station()?;
    let mut station = connect(&rig).await?;
    assert_eq!(described(&mut station, "A").await?.parked, "");
    enable(&mut station, "A", enabled).await?;

    // A unit that is in it is finished.
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
    start(&mut station, Uuid::now_v7(), "A", "SN0001").await?;
    park(&mut station, "A", Uuid::now_v7(), "lunch").await?;
    let mut passed = false;
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::RunClosed(closed)) => passed = closed.outcome() == Outcome::Pass,
            Some(Event::NestState(state)) if passed => {
                assert!(state.parked.contains("parked by anna: lunch"), "{state:?}");
                break;
            }
            _ => {}
        }
    }
    assert!(passed);
    Ok(())
}

#[tokio::test]
async fn a_nest_shows_which_one_it_is_and_a_unit_need_not_wait_for_that() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), &["A", "B"]).await?;
    let hosts = |nest: &str| target::Client::new(&rig.nest(nest)).state().map(|state| state.probe_hosts);
    let (a, b) = (hosts("A")?, hosts("B")?);
    identify(&mut station, "A").await?;
    // Ten times lit, and then asked whether it answers.
    assert_eq!((hosts("A")? - a, hosts("B")? - b), (11, 0));

    line::lay(&rig, "A", &Assembly::sound(1))?;
    let before = hosts("A")?;
    let mut beside = station.clone();
    let blinks = tokio::spawn(async move { identify(&mut beside, "A").await });
    while hosts("A")? == before {
        tokio::task::yield_now().await;
    }
    let run = start(&mut station, Uuid::now_v7(), "A", "SN0001").await?.run_id;
    let answer = timeout(Duration::from_secs(60), blinks).await??;
    // By the time of the answer the unit may be in the nest, or not yet.
    assert!(answer.is_ok() || answer.is_err_and(|status| status.code() == Code::FailedPrecondition));
    refused(identify(&mut station, "A").await, Code::FailedPrecondition, "nest A is busy with run");
    refused(
        clear(&mut station, "A", Uuid::now_v7()).await,
        Code::FailedPrecondition,
        "nest A is busy with run",
    );
    let unit = line::result(&mut station, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    Ok(())
}

#[tokio::test]
async fn a_nest_is_cleared_when_its_instruments_answer_again() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), &["A"]).await?;
    let probe = rig.nest("A").join("probe.sock");
    let away = rig.nest("A").join("probe.away");
    std::fs::rename(&probe, &away)?;
    let refusal = identify(&mut station, "A").await;
    refused(refusal, Code::FailedPrecondition, "nest A cannot show which one it is: ");
    assert!(clear(&mut station, "A", Uuid::now_v7()).await?.contains("probe"));
    let text = "nest A is parked: ";
    refused(start(&mut station, Uuid::now_v7(), "A", "SN0001").await, Code::FailedPrecondition, text);
    std::fs::rename(&away, &probe)?;
    // At once, not when the station would have looked again.
    assert_eq!(clear(&mut station, "A", Uuid::now_v7()).await?, "");
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let run = start(&mut station, Uuid::now_v7(), "A", "SN0001").await?.run_id;
    assert_eq!(line::result(&mut station, &run).await?.outcome(), Outcome::Pass);
    Ok(())
}

#[tokio::test]
async fn a_unit_without_a_nest_goes_into_the_one_that_has_been_free_for_longest() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), &["A", "B", "C"]).await?;
    // Whichever they are in.
    for (nest, number) in [("B", 1), ("C", 2), ("A", 3)] {
        let unit = line::make_one(&rig, &mut station, "WO-1", nest, &Assembly::sound(number)).await?;
        assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    }
    park(&mut station, "C", Uuid::now_v7(), "its lid is broken").await?;
    for (nest, number) in [("B", 4), ("A", 5)] {
        line::lay(&rig, nest, &Assembly::sound(number))?;
    }
    let [first, second] = [Uuid::now_v7(), Uuid::now_v7()];
    // They stand still, so that the nests stay busy.
    for nest in ["B", "A"] {
        rig.simulator(nest, Simulator::Target)?.signal(Signal::SIGSTOP)?;
    }
    let started = start(&mut station, first, "", "SN0004").await?;
    assert_eq!(started.nest, "B");
    // The same command is the same run in the same nest, also beside another one.
    let (again, other) =
        tokio::join!(async { start(&mut station.clone(), first, "", "SN0004").await }, async {
            start(&mut station.clone(), second, "", "SN0005").await
        });
    let other = other?;
    assert_eq!((again?, other.nest.as_str()), (started.clone(), "A"));
    refused(
        start(&mut station, first, "", "SN0005").await,
        Code::AlreadyExists,
        "was used before, for StartUnit or with other contents",
    );
    let refusal = start(&mut station, Uuid::now_v7(), "", "SN0006").await;
    // By their names, though the parked one was tried first.
    let text = format!(
        "no nest takes a unit: A: busy with run {}; B: busy with run {}; C: parked by anna: its lid is broken; enable it",
        other.run_id, started.run_id
    );
    refused(refusal, Code::FailedPrecondition, &text);
    // Neither is an order closed over units that are being made, nor do they end with a pause.
    let request = CloseWorkOrderRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: "WO-1".to_owned(),
        reason: "enough".to_owned(),
        even_if_open: true,
    };
    let text = "WO-1 cannot be closed: 2 of its units are in nests: SN0004 (run ";
    refused(station.close_work_order(request).await, Code::FailedPrecondition, text);
    let request = PauseWorkOrderRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: "WO-1".to_owned(),
        reason: "enough".to_owned(),
    };
    station.pause_work_order(request).await?;
    rig.kill_station()?;
    for nest in ["B", "A"] {
        rig.simulator(nest, Simulator::Target)?.signal(Signal::SIGCONT)?;
    }
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    assert_eq!(start(&mut station, first, "", "SN0004").await?, started);
    let refusal = start(&mut station, first, "B", "SN0004").await;
    refused(refusal, Code::AlreadyExists, "was used before, for StartUnit or with other contents");
    assert_eq!(line::result(&mut station, &started.run_id).await?.outcome(), Outcome::Pass);
    Ok(())
}
