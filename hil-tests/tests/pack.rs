//! A nest that fails more than the others takes no more units, on the virtual line.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Context as _;
use factory_hil_tests::{
    mes::line::{self, Assembly},
    moment::log::{Edge, Kind, LogWatch},
    rig::{Rig, free_address},
};
use factory_proto::station::{ClearNestRequest, DescribeStationRequest};
use factory_proto::station::{
    EnableNestRequest, GetUnitRequest, NestDescription, NestLeftPack, Outcome, StartUnitRequest,
    WatchEventsRequest, WatchEventsResponse, station_client::StationClient, watch_events_response::Event,
};
use nix::sys::signal::Signal;
use tokio::time::timeout;
use tonic::{Code, Streaming, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

type Station = StationClient<Channel>;

const PATIENCE: Duration = Duration::from_secs(60);
/// Quick to judge: 5 failures here and 4 good units there meanwhile are 1 of 126 by chance.
const QUICK: &str = "pack = { window = 10, least-units = 4, least-failures = 3, significance = \"1%\" }";

/// A line, running, with an order of thirty; its controller is away. The station file says this of the pack.
async fn line(folder: &Path, nests: &[&str], pack: &str) -> anyhow::Result<(Rig, Station)> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder");
    let mut rig = Rig::build(folder, programs, nests, &format!("http://{}", free_address()?))?;
    rig.edit("station.toml", "drain = \"20s\"", &format!("drain = \"20s\"\n{pack}"))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = rig.connect().await?;
    line::open(&rig, &mut station, "WO-1", 30).await?;
    Ok((rig, station))
}

fn board(number: u32, fails: bool) -> Assembly {
    let mut board = Assembly::sound(number);
    if fails {
        board.faults.rail_3v3_mv = 3600;
    }
    board
}

async fn make(rig: &Rig, station: &mut Station, nest: &str, number: u32, fails: bool) -> anyhow::Result<()> {
    let unit = line::make_one(rig, station, "WO-1", nest, &board(number, fails)).await?;
    let wanted = if fails { Outcome::Fail } else { Outcome::Pass };
    anyhow::ensure!(unit.outcome() == wanted, "unit {number} in {nest}: {}", unit.reason);
    Ok(())
}

/// Four units in each of two nests: those in A fail.
async fn make_eight(rig: &Rig, station: &mut Station) -> anyhow::Result<()> {
    for number in 1..=4 {
        make(rig, station, "A", number, true).await?;
        make(rig, station, "B", 10 + number, false).await?;
        assert_eq!(described(station, "A").await?.parked, "");
    }
    Ok(())
}

async fn described(station: &mut Station, nest: &str) -> anyhow::Result<NestDescription> {
    let nests = station.describe_station(DescribeStationRequest {}).await?.into_inner().nests;
    nests.into_iter().find(|described| described.nest == nest).context("the station has the nest")
}

async fn watch(station: &mut Station, after: Option<u64>) -> anyhow::Result<Streaming<WatchEventsResponse>> {
    let request = WatchEventsRequest { after_sequence: after, ..WatchEventsRequest::default() };
    Ok(station.watch_events(request).await?.into_inner())
}

/// What nest A left the pack by, and what it was told to be then, and its sequence.
async fn left(events: &mut Streaming<WatchEventsResponse>) -> anyhow::Result<(NestLeftPack, u64, String)> {
    let mut left = None;
    let told = async {
        while let Some(message) = events.message().await? {
            match message.event {
                Some(Event::NestLeftPack(it)) => {
                    assert_eq!((message.nest.as_str(), message.serial.is_empty()), ("A", false));
                    left = message.sequence.map(|sequence| (it, sequence));
                }
                Some(Event::NestState(state)) if message.nest == "A" && !state.parked.is_empty() => {
                    if let Some((left, sequence)) = left {
                        return Ok((left, sequence, state.parked));
                    }
                }
                _ => {}
            }
        }
        anyhow::bail!("the station ended the stream of events")
    };
    timeout(PATIENCE, told).await.context("nothing was told of a nest that left the pack")?
}

fn start(nest: &str, number: u32) -> StartUnitRequest {
    StartUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: "WO-1".to_owned(),
        serial: format!("SN{number:04}"),
        nest: nest.to_owned(),
        ..StartUnitRequest::default()
    }
}

/// What the tool prints.
fn said(mut command: Command) -> anyhow::Result<String> {
    let output = command.output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn a_nest_that_fails_more_than_the_other_is_parked_after_its_unit_until_somebody_enables_it()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), &["A", "B"], QUICK).await?;
    make_eight(&rig, &mut station).await?;
    // A unit that failed is tested again, and says nothing new.
    make(&rig, &mut station, "A", 1, true).await?;
    assert_eq!(described(&mut station, "A").await?.left_pack, None);

    let mut events = watch(&mut station, None).await?;
    make(&rig, &mut station, "A", 5, true).await?;
    let (figures, sequence, parked) = left(&mut events).await?;
    let counted = (figures.units, figures.failed, figures.other_units, figures.other_failed);
    assert_eq!(counted, (5, 5, 4, 0));
    assert!((figures.chance() - 1.0 / 126.0).abs() < 1e-9 && figures.max_failure_rate.is_none());
    let text = "5 of its newest 5 units failed, 0 of 4 in the other nests meanwhile, p = 7.9e-3; most often self-test: \
                rail-3v3 beyond its limits (5 of 5); see to the nest's fixture, as to its contacts, then `stationctl \
                nest enable A`";
    assert_eq!((figures.reason.as_str(), parked.as_str()), (text, text));

    let refusal = station.start_unit(start("A", 6)).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.message()),
        (Code::FailedPrecondition, &*format!("nest A is parked: {text}"))
    );
    let info = refusal.get_details_error_info().context("it has a reason")?;
    assert_eq!((info.reason.as_str(), info.metadata["nest"].as_str()), ("NEST_LEFT_PACK", "A"));
    line::lay(&rig, "B", &board(20, false))?;
    let run = station.start_unit(start("", 20)).await?.into_inner();
    assert_eq!(run.nest, "B");
    assert_eq!(line::result(&mut station, &run.run_id).await?.outcome(), Outcome::Pass);
    assert_eq!(described(&mut station, "B").await?.parked, "");

    // Also by a station that was killed, which says it once.
    rig.kill_station()?;
    rig.start_station()?;
    let mut station = rig.connect().await?;
    let nest = described(&mut station, "A").await?;
    assert_eq!((nest.left_pack, nest.parked.contains(text)), (Some(figures), true));
    let mut describe = rig.stationctl()?;
    describe.arg("describe");
    assert!(said(describe)?.contains(&format!("nest A: parked: {text}")));

    let mut enable = rig.stationctl()?;
    enable.args(["nest", "enable", "A"]);
    said(enable)?;
    assert_eq!(described(&mut station, "A").await?.left_pack, None);
    // Nothing older counts any more, neither now nor after a restart.
    make(&rig, &mut station, "A", 7, true).await?;
    rig.kill_station()?;
    rig.start_station()?;
    let mut station = rig.connect().await?;
    make(&rig, &mut station, "A", 8, true).await?;
    make(&rig, &mut station, "A", 9, false).await?;
    let nest = described(&mut station, "A").await?;
    assert_eq!((nest.left_pack, nest.parked.as_str()), (None, ""));

    assert_eq!(found(&mut station).await?, [sequence]);
    Ok(())
}

/// Where the log says that a nest has left the pack.
async fn found(station: &mut Station) -> anyhow::Result<Vec<u64>> {
    let mut events = watch(station, Some(0)).await?;
    let mut found = Vec::new();
    while let Some(message) = events.message().await? {
        match message.event {
            Some(Event::NestLeftPack(_)) => found.extend(message.sequence),
            // It is told behind all that is in the log.
            Some(Event::NestState(_)) => break,
            _ => {}
        }
    }
    Ok(found)
}

/// Starts a unit that fails in nest A, and kills the station when the run's result is durable and nothing else is.
async fn kill_behind_the_result(rig: &mut Rig, station: &mut Station, number: u32) -> anyhow::Result<()> {
    let log = LogWatch::of(rig.station_process()?.pid)?;
    line::lay(rig, "A", &board(number, true))?;
    let run_id = station.start_unit(start("A", number)).await?.into_inner().run_id;
    let mut held = timeout(PATIENCE, log.arm(Kind::Program, 1, Edge::BeforeWrite)).await??;
    // Held before each record in its turn, until the result is behind it.
    loop {
        let unit = station.get_unit(GetUnitRequest { run_id: run_id.clone() }).await?.into_inner().unit;
        if unit.is_some_and(|unit| unit.outcome() == Outcome::Fail) {
            rig.station_process()?.signal(Signal::SIGKILL)?;
            drop(held);
            return rig.kill_station();
        }
        let next = log.arm(Kind::Program, 1, Edge::BeforeWrite);
        drop(held);
        held = timeout(PATIENCE, next).await??;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_station_that_was_killed_between_a_result_and_what_follows_from_it_parks_the_nest_when_it_is_back()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), &["A", "B"], QUICK).await?;
    make_eight(&rig, &mut station).await?;
    let mut before = watch(&mut station, None).await?;
    kill_behind_the_result(&mut rig, &mut station, 5).await?;
    while let Ok(Some(message)) = before.message().await {
        assert!(!matches!(message.event, Some(Event::NestLeftPack(_))), "it was not found yet");
    }

    rig.start_station()?;
    let mut station = rig.connect().await?;
    let nest = described(&mut station, "A").await?;
    let figures = nest.left_pack.context("it is parked")?;
    assert_eq!((figures.units, figures.failed, figures.other_units), (5, 5, 4));
    assert_eq!(found(&mut station).await?.len(), 1);
    let refusal = station.start_unit(start("A", 6)).await.unwrap_err();
    assert!(refusal.message().contains("nest A is parked: 5 of its newest 5 units failed"), "{refusal}");
    // To clear it is to enable it, as far as that goes.
    let request = ClearNestRequest { command_id: Uuid::now_v7().to_string(), nest: "A".to_owned() };
    assert_eq!(station.clear_nest(request).await?.into_inner().parked, "");
    make(&rig, &mut station, "A", 6, false).await
}

#[tokio::test]
async fn a_nest_alone_has_a_limit_and_what_both_have_in_common_parks_none() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), &["A", "B"], QUICK).await?;
    for number in 1..=5 {
        make(&rig, &mut station, "A", number, true).await?;
        make(&rig, &mut station, "B", 10 + number, true).await?;
    }
    for nest in ["A", "B"] {
        assert_eq!(described(&mut station, nest).await?.parked, "");
    }
    // It is said with the next start what would have been said with the last units, had the file said it then.
    assert!(rig.stop_station()?);
    rig.edit("station.toml", "window = 10,", "window = 10, max-failure-rate = \"90%\",")?;
    rig.start_station()?;
    let mut station = rig.connect().await?;
    for nest in ["A", "B"] {
        let left = described(&mut station, nest).await?.left_pack.context("it is beyond the limit")?;
        assert_eq!((left.max_failure_rate(), left.chance), (0.9, None));
        assert!(
            left.reason.starts_with("5 of its newest 5 units failed, more than 90.0%; "),
            "{}",
            left.reason
        );
    }
    let refusal = station.start_unit(start("", 6)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    let text = "no nest takes a unit: A: 5 of its newest 5 units failed";
    assert!(refusal.message().contains(text), "{refusal}");
    let request = EnableNestRequest { command_id: Uuid::now_v7().to_string(), nest: "B".to_owned() };
    station.enable_nest(request).await?;
    make(&rig, &mut station, "B", 16, false).await
}
