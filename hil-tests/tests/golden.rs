//! Golden units: a nest takes no other unit before one has passed in the present shift, and nothing is made of them.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use factory_hil_tests::{
    device::store::{self, Holdings},
    mes::{
        controller::Controller,
        line::{self, Assembly},
    },
    rig::{RECIPE, Rig, free_address},
};
use factory_journal::{Journal, Options};
use factory_proto::{
    outcome::Outcome as Ending,
    station::{
        DescribeStationRequest, Disposition, GetYieldsRequest, GoldenStanding, ListUnitsRequest,
        OpenWorkOrderRequest, Outcome, OutcomeCount, ReleaseUnitRequest, StartGoldenUnitRequest,
        StartUnitRequest, StartUnitResponse, Unit, WatchEventsRequest, station_client::StationClient,
        watch_events_response::Event,
    },
};
use factory_station::{
    recipe::template::Values,
    record::{Findings, Record, RunClosed, RunId, RunOpened},
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(24 * 3600);

type Station = StationClient<Channel>;

/// A line whose station demands golden units, and whose shift ends in half a day.
fn rig(folder: &Path, nests: &[&str], controller: &str) -> anyhow::Result<Rig> {
    let programs =
        Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a program lies in a folder")?;
    let rig = Rig::build(folder, programs, nests, controller)?;
    let end = humantime::format_rfc3339_seconds(SystemTime::now() + DAY / 2).to_string();
    let end = end.get(11..16).context("a time has hours and minutes")?;
    let unit = |serial: &str| format!("{{ serial = \"{serial}\", recipe = \"{RECIPE}\" }}");
    let golden = format!("unit = [{}, {}]", unit("GOLDEN-1"), unit("GOLDEN-2"));
    let sections = format!("provenance = {{ shift-ends = [\"{end}\"] }}\ngolden = {{ {golden} }}\n");
    rig.edit("station.toml", "drain = \"20s\"\n", &format!("drain = \"20s\"\n{sections}"))?;
    Ok(rig)
}

/// The same, running, with an open order.
async fn line(folder: &Path, nests: &[&str], controller: &str) -> anyhow::Result<(Rig, Station)> {
    let mut rig = rig(folder, nests, controller)?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 9).await?;
    Ok((rig, station))
}

fn nowhere() -> anyhow::Result<String> {
    Ok(format!("http://{}", free_address()?))
}

fn golden_board(number: u32) -> Assembly {
    Assembly { serial: format!("GOLDEN-{number}"), ..Assembly::sound(9000 + number) }
}

fn product(serial: &str, nest: &str) -> StartUnitRequest {
    StartUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: "WO-1".to_owned(),
        serial: serial.to_owned(),
        nest: nest.to_owned(),
        ..StartUnitRequest::default()
    }
}

async fn start(station: &mut Station, serial: &str, nest: &str) -> Result<StartUnitResponse, Status> {
    Ok(station.start_unit(product(serial, nest)).await?.into_inner())
}

async fn start_golden(
    station: &mut Station,
    command: Uuid,
    serial: &str,
    nest: &str,
) -> Result<String, Status> {
    let request = StartGoldenUnitRequest {
        command_id: command.to_string(),
        serial: serial.to_owned(),
        nest: nest.to_owned(),
    };
    Ok(station.start_golden_unit(request).await?.into_inner().run_id)
}

/// Lays a golden unit in, starts it, and gives its result once it has left.
async fn prove(rig: &Rig, station: &mut Station, board: &Assembly, nest: &str) -> anyhow::Result<Unit> {
    line::lay(rig, nest, board)?;
    let run = start_golden(station, Uuid::now_v7(), &board.serial, nest).await?;
    let unit = line::result(station, &run).await?;
    free(station, nest).await?;
    line::take_out(rig, nest, &board.serial)?;
    Ok(unit)
}

/// Waits until no unit is in the nest.
async fn free(station: &mut Station, nest: &str) -> anyhow::Result<()> {
    let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
    loop {
        let nests = station.describe_station(DescribeStationRequest {}).await?.into_inner().nests;
        if nests.iter().any(|it| it.nest == nest && it.run_id.is_empty()) {
            return Ok(());
        }
        events.message().await?.context("the station ended the stream of events")?;
    }
}

async fn standing(station: &mut Station, nest: &str) -> anyhow::Result<GoldenStanding> {
    let nests = station.describe_station(DescribeStationRequest {}).await?.into_inner().nests;
    let described =
        nests.into_iter().find(|described| described.nest == nest).context("there is the nest")?;
    described.golden.context("a nest tells how it stands to its golden unit")
}

/// A call was refused for this reason, about this, and said all of that.
fn refused<T>(answer: Result<T, Status>, reason: &str, about: Option<(&str, &str)>, parts: &[&str]) {
    let Err(status) = answer else { panic!("it was not refused with {reason}") };
    let info = status.get_details_error_info().expect("google.rpc.ErrorInfo");
    assert_eq!((status.code(), info.reason.as_str()), (Code::FailedPrecondition, reason), "{status}");
    let told = about.map(|(what, _)| info.metadata.get(what).map(String::as_str));
    assert_eq!(told, about.map(|(_, which)| Some(which)));
    for part in parts {
        assert!(status.message().contains(part), "{:?} does not say {part:?}", status.message());
    }
}

const LAY: &str =
    "lay GOLDEN-1 or GOLDEN-2 in, and start it as golden unit (StartGoldenUnit, stationctl golden)";

#[tokio::test]
async fn a_nest_takes_no_unit_before_its_golden_unit_and_nothing_is_made_of_that() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let address = free_address()?;
    let controller = Controller::new(&folder.path().join("results.jsonl"))?;
    let serving = tokio::spawn(controller.clone().serve(address));
    let (rig, mut station) = line(folder.path(), &["A", "B"], &format!("http://{address}")).await?;
    let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();

    let due = ["nest A must have a golden unit first: none has passed there since the shift began at ", LAY];
    let first = start(&mut station, "SN0001", "A").await;
    refused(first, "GOLDEN_UNIT_DUE", Some(("nest", "A")), &due);
    let anywhere = start(&mut station, "SN0001", "").await;
    let all = ["every nest must have a golden unit first: ", "A: none has passed", "B: none has passed"];
    refused(anywhere, "GOLDEN_UNIT_DUE", None, &all);
    // Whatever somebody calls it, it is what it is.
    let as_product = start(&mut station, "GOLDEN-1", "A").await;
    refused(as_product, "UNIT_GOLDEN", Some(("serial", "GOLDEN-1")), &["nothing is made of it"]);
    let as_golden = start_golden(&mut station, Uuid::now_v7(), "SN0001", "A").await;
    refused(as_golden, "UNIT_NOT_GOLDEN", Some(("serial", "SN0001")), &["no golden unit of this station"]);
    let unit_list = b"serial\nSN0009\nGOLDEN-2\n".to_vec();
    let listed = OpenWorkOrderRequest { unit_list, ..line::opening(&rig, "WO-2", 1)? };
    let status = station.open_work_order(listed).await.expect_err("nothing is made of a golden unit");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("unit_list: unit GOLDEN-2: it is a golden unit"), "{status}");
    assert_eq!(station.list_units(ListUnitsRequest::default()).await?.into_inner().units, []);
    let before = standing(&mut station, "A").await?;
    assert!(before.due.ends_with(LAY) && before.due_since.is_some() && before.last.is_none(), "{before:?}");

    let command = Uuid::now_v7();
    line::lay(&rig, "A", &golden_board(1))?;
    let run = start_golden(&mut station, command, "GOLDEN-1", "A").await?;
    assert_eq!(start_golden(&mut station, command, "GOLDEN-1", "A").await?, run);
    let unit = line::result(&mut station, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    free(&mut station, "A").await?;
    assert_eq!(start_golden(&mut station, command, "GOLDEN-1", "A").await?, run);
    let steps: Vec<&str> = unit.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(steps, ["flash", "boot", "self-test"]);
    assert!(unit.golden && unit.identity.is_none() && unit.tag.is_none() && unit.fcc_answers.is_empty());
    let nobody = [&unit.work_order, &unit.validated_by, &unit.offline_allowance].map(String::as_str);
    assert!(nobody == [""; 3] && !unit.measurements.is_empty(), "{unit:?}");
    assert_eq!(store::read(&rig.storage("A", "GOLDEN-1")).unwrap_or_default(), Holdings::default());
    line::take_out(&rig, "A", "GOLDEN-1")?;
    let mut told = Vec::new();
    while told.len() < 2 {
        match events.message().await?.context("the station ended the stream of events")?.event {
            Some(Event::RunAccepted(it)) => told.push((it.golden, it.work_order)),
            Some(Event::RunClosed(it)) => told.push((it.golden, String::new())),
            _ => {}
        }
    }
    assert_eq!(told, [(true, String::new()), (true, String::new())]);
    let after = standing(&mut station, "A").await?;
    let last = after.last.context("it was tested")?;
    assert_eq!((after.due.as_str(), after.due_since), ("", None));
    assert_eq!(
        (last.run_id.as_str(), last.serial.as_str(), last.outcome()),
        (&*run, "GOLDEN-1", Outcome::Pass)
    );
    assert_eq!((last.ended, last.reason.as_str()), (unit.ended, ""));

    // The other nest is passed over, and there no unit is started.
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let started = start(&mut station, "SN0001", "").await?;
    assert_eq!(started.nest, "A");
    let made = line::result(&mut station, &started.run_id).await?;
    assert_eq!((made.outcome(), made.golden), (Outcome::Pass, false), "{}", made.reason);
    refused(start(&mut station, "SN0002", "B").await, "GOLDEN_UNIT_DUE", Some(("nest", "B")), &[LAY]);

    // It counts nowhere.
    let order = GetYieldsRequest { work_order: "WO-1".to_owned(), ..Default::default() };
    let nests = GetYieldsRequest { ended_from: Some(SystemTime::UNIX_EPOCH.into()), ..Default::default() };
    for asked in [order, nests] {
        let yields = station.get_yields(asked).await?.into_inner();
        assert_eq!(yields.outcomes, [OutcomeCount { outcome: Outcome::Pass.into(), runs: 1 }]);
        assert_eq!(yields.units.map(|tries| tries.runs), Some(1));
    }
    let orders = station.describe_station(DescribeStationRequest {}).await?.into_inner().work_orders;
    assert_eq!(orders.iter().map(|order| order.passed).collect::<Vec<_>>(), [1]);
    let ship = line::dispose(&mut station, "GOLDEN-1", Disposition::Shipped).await.expect_err("it stays");
    assert!(ship.message().contains("has never begun to make unit GOLDEN-1"), "{ship}");
    line::dispose(&mut station, "SN0001", Disposition::Shipped).await?;
    let (books, settled) = rig.reconcile("WO-1")?;
    assert!(settled, "the signer knows of something else: {books}");

    // The controller was not asked about it, and has its result.
    controller.wait_for(2).await?;
    let asked: Vec<String> = controller.gate().questions().into_iter().map(|it| it.serial).collect();
    assert_eq!(asked, ["SN0001"]);
    let has: Vec<_> = controller.results().into_iter().map(|unit| (unit.serial, unit.golden)).collect();
    assert_eq!(has, [("GOLDEN-1".to_owned(), true), ("SN0001".to_owned(), false)]);
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn a_golden_unit_that_does_not_pass_keeps_its_nest_from_units_until_one_does() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), &["A"], &nowhere()?).await?;
    let mut bad = golden_board(1);
    assert_eq!(prove(&rig, &mut station, &bad, "A").await?.outcome(), Outcome::Pass);
    // What has passed before in the shift is overtaken.
    bad.faults.rail_3v3_mv = 3600;
    let failed = prove(&rig, &mut station, &bad, "A").await?;
    assert_eq!((failed.outcome(), failed.failing_step.as_str()), (Outcome::Fail, "self-test"));
    let why = "golden unit GOLDEN-1 ended there with FAIL (self-test: rail-3v3 is 36";
    for _ in 0..2 {
        let refusal = start(&mut station, "SN0001", "A").await;
        refused(refusal, "GOLDEN_UNIT_DUE", Some(("nest", "A")), &[why, "see to the fixture", LAY]);
        let standing = standing(&mut station, "A").await?;
        let last = standing.last.context("it was tested")?;
        assert_eq!((last.outcome(), last.ended), (Outcome::Fail, standing.due_since));
        rig.kill_station()?;
        rig.start_station()?;
        station = StationClient::connect(rig.station.clone()).await?;
    }
    // It is no product that was tested too often, nor one that a release would help.
    for _ in 0..3 {
        assert_eq!(prove(&rig, &mut station, &bad, "A").await?.outcome(), Outcome::Fail);
    }
    let release = ReleaseUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        serial: "GOLDEN-1".to_owned(),
        reason: "it is good".to_owned(),
        reworked: false,
    };
    assert_eq!(station.release_unit(release).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(prove(&rig, &mut station, &golden_board(2), "A").await?.outcome(), Outcome::Pass);
    let made = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!(made.outcome(), Outcome::Pass, "{}", made.reason);
    // By another station file it is a product's serial number; it stays what it was.
    assert!(rig.stop_station()?);
    rig.edit("station.toml", "GOLDEN-1", "GOLDEN-3")?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let as_product = start(&mut station, "GOLDEN-1", "A").await;
    refused(as_product, "UNIT_GOLDEN", Some(("serial", "GOLDEN-1")), &["or was one"]);
    Ok(())
}

/// Lays a golden unit in and starts it, until it begins a step.
async fn left_in(rig: &Rig, station: &mut Station, board: &Assembly, step: &str) -> anyhow::Result<String> {
    let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
    line::lay(rig, "A", board)?;
    let run = start_golden(station, Uuid::now_v7(), &board.serial, "A").await?;
    loop {
        let message = events.message().await?.context("the station ended the stream of events")?;
        if matches!(&message.event, Some(Event::StepStarted(started)) if started.step == step) {
            return Ok(run);
        }
    }
}

#[tokio::test]
async fn a_golden_unit_that_the_station_died_over_is_tested_to_its_end() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), &["A"], &nowhere()?).await?;
    for (number, step) in (1..=2).cycle().zip(["flash", "boot", "self-test"]) {
        let board = golden_board(number);
        let run = left_in(&rig, &mut station, &board, step).await?;
        rig.kill_station()?;
        rig.start_station()?;
        station = StationClient::connect(rig.station.clone()).await?;
        let unit = line::result(&mut station, &run).await?;
        assert_eq!(unit.outcome(), Outcome::Pass, "left in {step}: {}", unit.reason);
        assert!(unit.golden && unit.quarantine.is_none() && unit.identity.is_none(), "left in {step}");
        let resumed = unit.resumptions.first().context("it was taken up again")?;
        // A moment later the last step may have passed, and only the result was missing.
        assert!(["flash", ""].contains(&resumed.resumed_at.as_str()), "left in {step}: {resumed:?}");
        free(&mut station, "A").await?;
        line::take_out(&rig, "A", &board.serial)?;
    }

    // Another board is none that could be trusted; nothing was lost with it, so nothing is set aside.
    let run = left_in(&rig, &mut station, &golden_board(1), "boot").await?;
    rig.kill_station()?;
    line::lay(&rig, "A", &Assembly::sound(7))?;
    rig.start_station()?;
    station = StationClient::connect(rig.station.clone()).await?;
    let unit = line::result(&mut station, &run).await?;
    let why = "another board lies in the nest";
    assert_eq!((unit.outcome(), unit.reason.as_str(), unit.quarantine), (Outcome::Error, why, None));
    free(&mut station, "A").await?;
    refused(start(&mut station, "SN0007", "A").await, "GOLDEN_UNIT_DUE", None, &[why, "see to the fixture"]);
    assert_eq!(prove(&rig, &mut station, &golden_board(1), "A").await?.outcome(), Outcome::Pass);
    let made = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(7)).await?;
    assert_eq!(made.outcome(), Outcome::Pass, "{}", made.reason);
    Ok(())
}

/// What a station has journalled of a golden unit that passed in a nest so long ago.
fn passed(nest: &str, ago: Duration) -> anyhow::Result<Vec<Record>> {
    let ended = SystemTime::now() - ago;
    let opened = RunOpened {
        run: RunId::of_command(Uuid::now_v7()),
        order: None,
        serial: "GOLDEN-1".parse()?,
        nest: nest.parse()?,
        recipe_digest: [0; 32],
        started: ended,
        values: Values::default(),
        allowed: None,
        golden: Some(RECIPE.parse()?),
    };
    let closed = RunClosed {
        opened: opened.clone(),
        ended,
        outcome: Ending::Pass,
        stopped: None,
        findings: Findings::default(),
        quarantine: None,
    };
    Ok(vec![Record::RunOpened(opened), Record::RunClosed(Box::new(closed))])
}

#[tokio::test]
async fn a_new_shift_makes_golden_units_due_again_and_a_restart_does_not() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut rig = rig(folder.path(), &["A", "B", "C"], &nowhere()?)?;
    // The present shift began half a day ago.
    let journal = Journal::open(folder.path().join("journal"), Options::default())?;
    for (nest, ago) in [("A", DAY * 3 / 4), ("B", DAY / 4)] {
        journal.append_all(passed(nest, ago)?).await?;
    }
    drop(journal);
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 9).await?;
    let none = "none has passed there since the shift began at ";
    for (nest, due, shown) in [("A", none, true), ("B", "", true), ("C", none, false)] {
        let standing = standing(&mut station, nest).await?;
        assert!(standing.due.starts_with(due) && standing.due.is_empty() == due.is_empty(), "{standing:?}");
        assert_eq!((standing.due_since.is_some(), standing.last.is_some()), (!due.is_empty(), shown));
    }
    refused(start(&mut station, "SN0001", "A").await, "GOLDEN_UNIT_DUE", Some(("nest", "A")), &[none, LAY]);
    let made = line::make_one(&rig, &mut station, "WO-1", "B", &Assembly::sound(1)).await?;
    assert_eq!(made.outcome(), Outcome::Pass, "{}", made.reason);

    // Where none is demanded, none is due, and one may be tested all the same.
    assert!(rig.stop_station()?);
    rig.edit("station.toml", "golden = { ", "golden = { required = false, ")?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    assert_eq!(prove(&rig, &mut station, &golden_board(2), "C").await?.outcome(), Outcome::Pass);
    let made = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(2)).await?;
    assert_eq!(made.outcome(), Outcome::Pass, "{}", made.reason);
    Ok(())
}

#[tokio::test]
async fn stationctl_starts_a_golden_unit_and_shows_how_each_nest_stands() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), &["A"], &nowhere()?).await?;
    let say = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = rig.stationctl()?.args(arguments).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    // It fails while something is wrong.
    let preflight = rig.stationctl()?.arg("preflight").output()?;
    let preflight = String::from_utf8(preflight.stdout)?;
    let made_by = format!("golden unit GOLDEN-2 is made by recipe {RECIPE}");
    assert!(preflight.contains(&made_by), "{preflight}");
    assert!(preflight.contains("must have a golden unit first: none has passed"), "{preflight}");
    let described = say(&["describe"])?;
    assert!(described.contains("golden unit due for ") && described.contains(LAY), "{described}");
    line::lay(&rig, "A", &golden_board(1))?;
    let run = say(&["golden", "GOLDEN-1", "--nest", "A"])?.trim().to_owned();
    assert_eq!(line::result(&mut station, &run).await?.outcome(), Outcome::Pass);
    let described = say(&["describe"])?;
    assert!(!described.contains("golden unit due"), "{described}");
    assert!(described.contains("last golden unit: GOLDEN-1 PASS, "), "{described}");
    let listed = say(&["list"])?;
    assert!(listed.starts_with(&format!("{run} (golden) GOLDEN-1 A PASS")), "{listed}");
    Ok(())
}
