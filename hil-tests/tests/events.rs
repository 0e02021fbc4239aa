//! Events from the real daemon: whoever was cut off goes on where it was, whatever became of the station meanwhile.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Context as _;
use factory_hil_tests::{
    mes::line::{self, Assembly},
    rig::{Rig, free_address},
};
use factory_journal::{Journal, Options, Sequence};
use factory_proto::station::{
    EventKind, WatchEventsRequest, WatchEventsResponse, station_client::StationClient,
    watch_events_response::Event,
};
use factory_station::record::Record;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming, transport::Channel};

const PATIENCE: Duration = Duration::from_secs(60);

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder")
}

async fn watch(rig: &Rig, after: u64) -> anyhow::Result<Streaming<WatchEventsResponse>> {
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let request = WatchEventsRequest { after_sequence: Some(after), ..WatchEventsRequest::default() };
    Ok(station.watch_events(request).await?.into_inner())
}

/// Takes events until one is `wanted`; keeps those that are durable.
async fn take_until(
    events: &mut Streaming<WatchEventsResponse>,
    told: &mut Vec<WatchEventsResponse>,
    wanted: impl Fn(&WatchEventsResponse) -> bool,
) -> anyhow::Result<u64> {
    loop {
        let event = timeout(PATIENCE, events.message()).await?;
        let event = event?.context("the station ended the stream of events")?;
        let (last, is_wanted) = (event.last_sequence, wanted(&event));
        if event.sequence.is_some() {
            told.push(event);
        }
        if is_wanted {
            return Ok(last);
        }
    }
}

async fn ended(events: &mut Streaming<WatchEventsResponse>) -> Status {
    loop {
        match timeout(PATIENCE, events.message()).await.expect("the stream ends") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn over_restarts_of_the_station_a_watcher_is_told_its_log_once_and_in_order() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut rig = Rig::build(folder.path(), programs(), &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station: StationClient<Channel> = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 9).await?;
    let mut told = Vec::new();

    // Killed while the unit is flashed; the run goes on when the station is back.
    let mut events = watch(&rig, 0).await?;
    line::lay(&rig, "A", &Assembly::sound(1))?;
    line::start(&mut station, "WO-1", "A", "SN0001").await?;
    let is_progress = |event: &WatchEventsResponse| matches!(event.event, Some(Event::Progress(_)));
    let last = take_until(&mut events, &mut told, is_progress).await?;
    assert_eq!(told.last().map(|event| event.last_sequence), Some(last));
    rig.kill_station()?;
    ended(&mut events).await;
    rig.start_station()?;
    let mut events = watch(&rig, last).await?;
    let is_closed = |event: &WatchEventsResponse| matches!(event.event, Some(Event::RunClosed(_)));
    let last = take_until(&mut events, &mut told, is_closed).await?;
    assert!(told.iter().any(|event| matches!(event.event, Some(Event::RunResumed(_)))));

    // Stopped as it should be, it says so.
    let stop = tokio::task::spawn_blocking(move || rig.stop_station().map(|ended_well| (rig, ended_well)));
    let status = ended(&mut events).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let (mut rig, ended_well) = stop.await??;
    assert!(ended_well);
    rig.start_station()?;
    let refused = watch(&rig, last + 1_000_000).await.expect_err("there is no such record");
    assert_eq!(refused.downcast::<Status>()?.code(), Code::OutOfRange);
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let mut events = watch(&rig, last).await?;
    line::take_out(&rig, "A", "SN0001")?;
    line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(2)).await?;
    let last = take_until(&mut events, &mut told, is_closed).await?;

    // The same from a shell.
    let program = programs().join("stationctl");
    let socket = rig.folder.join("station.sock");
    let listed = |kind: &str| {
        let mut watch = Command::new(&program);
        watch
            .arg("--station")
            .arg(&socket)
            .args(["watch", "--after", "0", "--json", "--order", "WO-1", "--kind", kind]);
        watch
    };
    let mut listing = listed("order").stdout(std::process::Stdio::piped()).spawn()?;
    let mut line = String::new();
    let output = listing.stdout.take().context("it is piped")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
    listing.kill()?;
    listing.wait()?;
    let line: serde_json::Value = serde_json::from_str(&line)?;
    assert_eq!((&line["event"], &line["order"]), (&"order_opened".into(), &"WO-1".into()));
    assert!(line["sequence"].as_u64().is_some_and(|sequence| sequence <= last), "{line}");
    let unknown = listed("weather").output()?;
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("must be run, step, progress"));

    assert!(rig.stop_station()?);
    let journal = Journal::<Record>::open(rig.folder.join("journal"), Options::default())?;
    let log: Vec<u64> = journal
        .read(Sequence::START)
        .map(|entry| entry.map(|entry| entry.sequence.get()))
        .take_while(|sequence| sequence.as_ref().map_or(true, |sequence| *sequence <= last))
        .collect::<Result<_, _>>()?;
    let sequences: Vec<u64> = told.iter().filter_map(|event| event.sequence).collect();
    assert_eq!(sequences, log);
    // All that a unit goes through is told with its nest, its serial number and its order.
    let of_units = told.iter().filter(|event| !event.run_id.is_empty());
    assert!(of_units.clone().count() > 20);
    for event in of_units {
        assert_eq!((event.nest.as_str(), event.work_order.as_str()), ("A", "WO-1"), "{event:?}");
        assert!(event.serial.starts_with("SN000"), "{event:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_watcher_is_told_only_of_the_kinds_it_asked_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut rig = Rig::build(folder.path(), programs(), &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station: StationClient<Channel> = StationClient::connect(rig.station.clone()).await?;
    let kinds = vec![EventKind::Nest.into(), EventKind::Order.into()];
    let request = WatchEventsRequest { kinds, ..WatchEventsRequest::default() };
    let mut events = station.watch_events(request).await?.into_inner();
    // Without a place to begin, the present state of each nest comes first.
    let state = events.message().await?.context("there is a nest")?;
    assert!(matches!(state.event, Some(Event::NestState(_))), "{state:?}");
    line::open(&rig, &mut station, "WO-1", 9).await?;
    let mut told = Vec::new();
    take_until(&mut events, &mut told, |event| matches!(event.event, Some(Event::OrderOpened(_)))).await?;
    // The order, behind what belongs to none: where its CA is registered, and perhaps an offline budget.
    let (opened, before) = told.split_last().context("it was opened")?;
    assert_eq!(opened.work_order, "WO-1");
    assert!(before.iter().all(|event| event.work_order.is_empty()), "{before:?}");
    Ok(())
}
