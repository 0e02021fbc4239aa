//! Instruments whose processes die, hang and come back: what a real station makes of it.

use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use factory_hil_tests::{
    control,
    mes::line::{self, Assembly},
    reader::{self, Dump, WireFault, pn532},
    rig::{Rig, Simulator, free_address},
};
use factory_proto::station::{
    DescribeStationRequest, GetUnitRequest, Outcome, Unit, WatchEventsRequest, WatchEventsResponse,
    station_client::StationClient, watch_events_response::Event,
};
use nix::sys::signal::Signal;
use tokio::time::timeout;
use tonic::{Code, Streaming, transport::Channel};

type Station = StationClient<Channel>;

// What is waited for takes milliseconds of the kernel, and a few seconds of the station.
const PATIENCE: Duration = Duration::from_secs(30);

/// A line with these nests, running, and an order of ten; its controller is away.
async fn line(folder: &Path, nests: &[&str]) -> anyhow::Result<(Rig, Station)> {
    let programs =
        Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a program lies in a folder")?;
    let mut rig = Rig::build(folder, programs, nests, &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 10).await?;
    Ok((rig, station))
}

async fn events(station: &mut Station) -> anyhow::Result<Streaming<WatchEventsResponse>> {
    Ok(station.watch_events(WatchEventsRequest::default()).await?.into_inner())
}

/// The first event of a nest that `wanted` gives something for.
async fn first<T>(
    events: &mut Streaming<WatchEventsResponse>,
    nest: &str,
    wanted: impl Fn(&Event) -> Option<T>,
) -> anyhow::Result<T> {
    let seen = async {
        loop {
            let message = events.message().await?.context("the station ended the stream of events")?;
            let event = message.event.filter(|_| message.nest == nest);
            if let Some(found) = event.as_ref().and_then(&wanted) {
                return Ok(found);
            }
        }
    };
    timeout(PATIENCE, seen).await.context("the station did not tell what was waited for")?
}

/// Why a nest is parked, as soon as it is.
fn parked(event: &Event) -> Option<String> {
    match event {
        Event::NestState(state) if !state.parked.is_empty() => Some(state.parked.clone()),
        _ => None,
    }
}

/// A nest is free.
fn free(event: &Event) -> Option<()> {
    matches!(event, Event::NestState(state) if !state.busy && state.parked.is_empty()).then_some(())
}

/// Flash is at work: the first of its phases has begun.
fn programs(event: &Event) -> Option<()> {
    matches!(event, Event::Progress(_)).then_some(())
}

async fn closed(
    station: &mut Station,
    events: &mut Streaming<WatchEventsResponse>,
    run_id: &str,
) -> anyhow::Result<Unit> {
    first(events, "A", |event| matches!(event, Event::RunClosed(_)).then_some(())).await?;
    let answer = station.get_unit(GetUnitRequest { run_id: run_id.to_owned() }).await?.into_inner();
    answer.unit.context("an answer has a unit")
}

fn spoil(rig: &Rig, nest: &str, what: WireFault) -> anyhow::Result<()> {
    let fault = reader::Request::Fault(reader::Fault { on: Some(pn532::IN_DATA_EXCHANGE), what });
    control::call::<_, Option<Dump>>(&rig.nest(nest).join("tag/control.sock"), &fault)?;
    Ok(())
}

async fn parked_says_the_station(station: &mut Station, nest: &str) -> anyhow::Result<String> {
    let described = station.describe_station(DescribeStationRequest {}).await?.into_inner();
    let nest = described.nests.into_iter().find(|described| described.nest == nest);
    Ok(nest.context("the station has the nest")?.parked)
}

#[tokio::test]
async fn no_instrument_outlives_a_station_that_is_killed() -> anyhow::Result<()> {
    #[derive(Debug, Clone, Copy)]
    enum Moment {
        Idle,
        Flashing,
        Stopped,
        HungInItsLibrary,
        // The end of its standard input would end it; but somebody else holds that open.
        Deaf,
    }
    use Moment::{Deaf, Flashing, HungInItsLibrary, Idle, Stopped};
    for moment in [Idle, Flashing, Stopped, HungInItsLibrary, Deaf] {
        let folder = tempfile::tempdir()?;
        let (mut rig, mut station) = line(folder.path(), &["A"]).await?;
        let mut events = events(&mut station).await?;
        // It starts both processes, and leaves them idle.
        let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
        assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
        first(&mut events, "A", |event| matches!(event, Event::RunClosed(_)).then_some(())).await?;
        if !matches!(moment, Idle | Deaf) {
            line::lay(&rig, "A", &Assembly::sound(2))?;
            line::start(&mut station, "WO-1", "A", "SN0002").await?;
            first(&mut events, "A", programs).await?;
        }
        let mut held = Vec::new();
        match moment {
            Idle | Flashing => {}
            Stopped => rig.instrument("probe")?.signal(Signal::SIGSTOP)?,
            // probe-rs waits for ever for an answer of its network probe.
            HungInItsLibrary => rig.simulator("A", Simulator::Target)?.signal(Signal::SIGSTOP)?,
            Deaf => {
                for instrument in rig.instruments()? {
                    held.push(File::options().write(true).open(format!("/proc/{}/fd/0", instrument.pid))?);
                }
            }
        }
        let instruments = rig.instruments()?;
        assert_eq!(instruments.len(), 2, "{moment:?}");
        rig.kill_station()?;
        for instrument in instruments {
            assert!(
                instrument.has_ended_within(PATIENCE)?,
                "{moment:?}: {instrument:?} outlived its station"
            );
        }
        assert_eq!(rig.instruments()?.len(), 0, "{moment:?}");
        drop(held);
    }
    Ok(())
}

#[tokio::test]
async fn an_instrument_that_is_killed_in_mid_flash_costs_an_attempt() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), &["A"]).await?;
    let mut events = events(&mut station).await?;
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let run = line::start(&mut station, "WO-1", "A", "SN0001").await?;
    first(&mut events, "A", programs).await?;
    let killed = rig.instrument("probe")?;
    killed.signal(Signal::SIGKILL)?;
    let unit = closed(&mut station, &mut events, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    assert_ne!(rig.instrument("probe")?.pid, killed.pid);
    assert!(log(&rig)?.contains("the probe process ended by signal 9 in mid-request"));
    Ok(())
}

#[tokio::test]
async fn an_instrument_that_is_stopped_is_noticed_long_before_its_steps_deadline() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), &["A"]).await?;
    let mut events = events(&mut station).await?;
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let run = line::start(&mut station, "WO-1", "A", "SN0001").await?;
    first(&mut events, "A", programs).await?;
    let stopped = rig.instrument("probe")?;
    stopped.signal(Signal::SIGSTOP)?;
    assert!(stopped.has_ended_within(PATIENCE)?, "a stopped process is left as it is");
    let unit = closed(&mut station, &mut events, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    // The step has 30 s.
    assert!(log(&rig)?.contains("gave no sign of life for 3 s"));
    Ok(())
}

#[tokio::test]
async fn a_library_that_is_only_slow_is_waited_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), &["A"]).await?;
    let mut events = events(&mut station).await?;
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let run = line::start(&mut station, "WO-1", "A", "SN0001").await?;
    first(&mut events, "A", programs).await?;
    let target = rig.simulator("A", Simulator::Target)?;
    target.signal(Signal::SIGSTOP)?;
    let probe = rig.instrument("probe")?;
    // The library says nothing for longer than its process may be silent.
    assert!(!probe.has_ended_within(Duration::from_secs(4))?, "a process that says it lives was given up");
    target.signal(Signal::SIGCONT)?;
    let unit = closed(&mut station, &mut events, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    assert_eq!(rig.instrument("probe")?.pid, probe.pid);
    Ok(())
}

#[tokio::test]
async fn a_reader_that_is_unplugged_parks_its_nest_until_it_is_plugged_in_again() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), &["A", "B"]).await?;
    let mut events = events(&mut station).await?;
    let (port, unplugged) = (rig.nest("A").join("tag/reader"), rig.nest("A").join("tag/unplugged"));
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let run = line::start(&mut station, "WO-1", "A", "SN0001").await?;
    first(&mut events, "A", programs).await?;
    fs::rename(&port, &unplugged)?;

    // First the unit has its own result, then the nest is parked.
    let unit = closed(&mut station, &mut events, &run).await?;
    assert_eq!((unit.outcome(), unit.failing_step.as_str()), (Outcome::Error, "tag"), "{}", unit.reason);
    let reason = first(&mut events, "A", parked).await?;
    assert!(reason.contains("could not open the reader's port"), "{reason}");
    assert!(reason.contains("check its cable"), "{reason}");
    assert_eq!(parked_says_the_station(&mut station, "A").await?, reason);
    let refused = line::start(&mut station, "WO-1", "A", "SN0002").await.expect_err("the nest is parked");
    let refused = refused.downcast::<tonic::Status>()?;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains(&reason), "{}", refused.message());

    // The other nest goes on meanwhile.
    let other = line::make_one(&rig, &mut station, "WO-1", "B", &Assembly::sound(3)).await?;
    assert_eq!(other.outcome(), Outcome::Pass, "{}", other.reason);

    fs::rename(&unplugged, &port)?;
    first(&mut events, "A", free).await?;
    assert_eq!(parked_says_the_station(&mut station, "A").await?, "");
    let next = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(2)).await?;
    assert_eq!(next.outcome(), Outcome::Pass, "{}", next.reason);
    Ok(())
}

#[tokio::test]
async fn an_abort_of_libnfc_costs_an_attempt_and_three_units_in_a_row_park_the_nest() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), &["A"]).await?;
    // The tag is read first, so it is written again by a fresh reader.
    spoil(&rig, "A", WireFault::Status(0x80))?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(9)).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);

    // With one attempt it costs the unit.
    drop(station);
    rig.stop_station()?;
    let recipe = folder.path().join("recipes/sensor.toml");
    fs::write(&recipe, fs::read_to_string(&recipe)?.replace("attempts = 2", "attempts = 1"))?;
    rig.sign_images()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-2", 10).await?;
    let mut events = events(&mut station).await?;
    for number in 1..=3 {
        spoil(&rig, "A", WireFault::Status(0x80))?;
        let unit = line::make_one(&rig, &mut station, "WO-2", "A", &Assembly::sound(number)).await?;
        assert_eq!((unit.outcome(), unit.failing_step.as_str()), (Outcome::Error, "tag"), "{}", unit.reason);
        assert!(unit.reason.contains("the tag-reader process ended by signal 6"), "{}", unit.reason);
    }
    let reason = first(&mut events, "A", parked).await?;
    assert!(reason.starts_with("3 units in a row"), "{reason}");
    first(&mut events, "A", free).await?;
    let sound = line::make_one(&rig, &mut station, "WO-2", "A", &Assembly::sound(4)).await?;
    assert_eq!(sound.outcome(), Outcome::Pass, "{}", sound.reason);
    Ok(())
}

fn log(rig: &Rig) -> anyhow::Result<String> {
    Ok(fs::read_to_string(rig.folder.join("station.log"))?)
}
