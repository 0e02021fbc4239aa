//! Scenarios on the virtual line: real station, real signer, real libraries, simulated nests.

use std::{fs, path::Path, process::Command};

use anyhow::Context as _;
use factory_hil_tests::{
    mes::{
        controller::Controller,
        line::{self, Assembly},
    },
    rig::{Rig, free_address},
    target::FIRMWARE_HEX,
};
use factory_proto::station::{
    AbortUnitRequest, GetUnitRequest, ListUnitsRequest, Outcome, StartUnitRequest,
    station_client::StationClient,
};
use tonic::{Code, transport::Channel};
use uuid::Uuid;

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder")
}

/// A line with one nest, running, and an order of ten; its controller is away.
async fn line(folder: &Path) -> anyhow::Result<(Rig, StationClient<Channel>)> {
    let mut rig = Rig::build(folder, programs(), &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 10).await?;
    Ok((rig, station))
}

fn start(serial: &str, nest: &str) -> StartUnitRequest {
    StartUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: "WO-1".to_owned(),
        serial: serial.to_owned(),
        nest: nest.to_owned(),
        ..StartUnitRequest::default()
    }
}

#[tokio::test]
async fn the_demo_ends_as_planted_and_openssl_agrees_with_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let demo = folder.path().join("demo");
    let run = Command::new(env!("CARGO_BIN_EXE_virtual-line")).arg("--folder").arg(&demo).output()?;
    let said = String::from_utf8(run.stdout)?;
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));

    let mut list = csv::Reader::from_path(demo.join("enrolment.csv"))?;
    let rows: Vec<csv::StringRecord> = list.records().collect::<Result<_, _>>()?;
    assert_eq!(rows.len(), 9);
    for row in rows {
        let certificate = demo.join(format!("certificates/{}.pem", &row[1]));
        let verify = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"])
            .arg(demo.join("device-ca.pem"))
            .arg(&certificate)
            .output()?;
        assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
        let shown = Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(&certificate)
            .output()?;
        let fingerprint = String::from_utf8(shown.stdout)?;
        let (_, fingerprint) = fingerprint.trim().split_once('=').context("openssl prints NAME=HEX")?;
        assert_eq!(&row[0], format!("A-{fingerprint}"));

        // The tag says the same.
        let dump: serde_json::Value =
            serde_json::from_slice(&fs::read(demo.join(format!("tags/{}.json", &row[1])))?)?;
        let pages = dump["pages"].as_array().context("a dump has pages")?;
        let memory: String = pages.iter().filter_map(serde_json::Value::as_str).collect();
        let memory = data_encoding::HEXUPPER.decode(memory.as_bytes())?;
        assert!(memory.windows(97).any(|bytes| bytes == row[0].as_bytes()), "{} is not on its tag", &row[0]);
    }
    Ok(())
}

#[tokio::test]
async fn the_same_command_is_the_same_run_and_a_busy_nest_refuses_others() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path()).await?;
    line::lay(&rig, "A", &Assembly::sound(1))?;

    let command = start("SN0001", "A");
    let run = station.start_unit(command.clone()).await?.into_inner().run_id;
    assert_eq!(station.start_unit(command.clone()).await?.into_inner().run_id, run);
    let busy = station.start_unit(start("SN0002", "A")).await.expect_err("the nest is busy");
    assert_eq!(busy.code(), Code::FailedPrecondition);
    assert!(busy.message().contains(&run), "{}", busy.message());

    let unit = line::result(&mut station, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    assert_eq!(station.start_unit(command.clone()).await?.into_inner().run_id, run);
    let other = StartUnitRequest { serial: "SN0003".to_owned(), ..command };
    assert_eq!(station.start_unit(other).await.expect_err("the id was used").code(), Code::AlreadyExists);
    Ok(())
}

#[tokio::test]
async fn one_command_sent_to_two_nests_at_once_starts_one_run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let controller = format!("http://{}", free_address()?);
    let mut rig = Rig::build(folder.path(), programs(), &["A", "B"], &controller)?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 10).await?;
    line::lay(&rig, "A", &Assembly::sound(1))?;
    line::lay(&rig, "B", &Assembly::sound(2))?;

    let a = start("SN0001", "A");
    let b = StartUnitRequest { command_id: a.command_id.clone(), ..start("SN0002", "B") };
    let (mut other, other_b) = (station.clone(), b.clone());
    let (a, b) = tokio::join!(station.start_unit(a), other.start_unit(other_b));
    let (started, refused) = match (a, b) {
        (Ok(started), Err(refused)) | (Err(refused), Ok(started)) => (started.into_inner(), refused),
        both => panic!("one of them should start: {both:?}"),
    };
    assert_eq!(refused.code(), Code::AlreadyExists, "{}", refused.message());
    line::result(&mut station, &started.run_id).await?;
    rig.stop_station()?;
    // The journal tells a story that can be continued.
    rig.start_station()
}

#[tokio::test]
async fn an_image_that_changed_since_the_recipe_was_loaded_is_not_programmed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path()).await?;
    fs::write(folder.path().join("recipes/hilfw.elf"), b"another firmware")?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!((unit.outcome(), unit.failing_step.as_str()), (Outcome::Error, "flash"));
    assert!(unit.reason.contains("is not what it was"), "{}", unit.reason);
    Ok(())
}

#[tokio::test]
async fn every_wrong_field_of_a_command_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_rig, mut station) = line(folder.path()).await?;
    let bad = StartUnitRequest {
        command_id: "1".to_owned(),
        work_order: String::new(),
        serial: "a/b".to_owned(),
        nest: "A".to_owned(),
        ..StartUnitRequest::default()
    };
    let refused = station.start_unit(bad).await.expect_err("nothing of it is right");
    assert_eq!(refused.code(), Code::InvalidArgument);
    for field in ["command_id", "work_order", "serial"] {
        assert!(refused.message().contains(field), "{}", refused.message());
    }
    let check = |status: tonic::Status, code| assert_eq!(status.code(), code, "{}", status.message());
    check(station.start_unit(start("SN1", "Z")).await.expect_err("no such nest"), Code::NotFound);
    let strange = StartUnitRequest { work_order: "WO-9".to_owned(), ..start("SN1", "A") };
    check(station.start_unit(strange).await.expect_err("no such order"), Code::NotFound);
    let unknown = GetUnitRequest { run_id: Uuid::now_v7().to_string() };
    check(station.get_unit(unknown).await.expect_err("no such run"), Code::NotFound);
    Ok(())
}

#[tokio::test]
async fn a_bad_device_costs_its_own_unit_and_nothing_else() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path()).await?;
    let device = |number, scenario: &str| Assembly::misbehaving(&rig, number, scenario);
    let fault = |what: &str| format!("[[fault]]\nwhat = {what}\n");
    let mut garbage = Assembly::sound(1);
    garbage.faults.garbage = true;
    let cases = [
        (garbage, Outcome::Fail, "boot"),
        (device(2, &fault("'wrong-digest'"))?, Outcome::Fail, "identity"),
        (device(3, &fault("'huge-length'"))?, Outcome::Fail, "identity"),
        (device(4, "csr.subject = 'CN=somebody-else'")?, Outcome::Fail, "identity"),
        (device(5, &fault("'wrong-token'"))?, Outcome::Timeout, "identity"),
    ];
    for (board, outcome, step) in cases {
        let unit = line::make_one(&rig, &mut station, "WO-1", "A", &board).await?;
        assert_eq!((unit.outcome(), unit.failing_step.as_str()), (outcome, step), "{}", unit.reason);
        assert!(!unit.reason.is_empty());
    }
    let sound = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(6)).await?;
    assert_eq!(sound.outcome(), Outcome::Pass, "{}", sound.reason);
    assert!(
        sound.measurements.iter().all(|measured| measured.within_limits) && sound.measurements.len() == 6
    );
    assert_eq!(sound.fcc_answers.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_controller_that_was_away_gets_everything_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let address = free_address()?;
    let mut rig = Rig::build(folder.path(), programs(), &["A"], &format!("http://{address}"))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 10).await?;
    for number in [1, 2] {
        let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(number)).await?;
        assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    }

    let first = Controller::new(&folder.path().join("first.db"))?;
    let serving = tokio::spawn(first.clone().serve(address));
    first.wait_for(2).await?;
    let serials: Vec<String> = first.results().into_iter().map(|unit| unit.serial).collect();
    assert_eq!(serials, ["SN0001", "SN0002"]);

    // A controller that forgot everything is sent only what it has not acknowledged.
    assert!(rig.stop_station()?);
    serving.abort();
    let _ = serving.await;
    let second = Controller::new(&folder.path().join("second.db"))?;
    let serving = tokio::spawn(second.clone().serve(address));
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(3)).await?;
    second.wait_for(1).await?;
    assert_eq!(second.results().iter().map(|unit| unit.serial.as_str()).collect::<Vec<_>>(), ["SN0003"]);
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn a_missing_instrument_is_said_in_one_sentence_with_what_to_do() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut rig = Rig::build(folder.path(), programs(), &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    let cases = [
        ("20b7:9db1:unix:", "1366:1015:", "the probe 1366:1015:", "check its cable"),
        (
            "/console",
            "/no-console",
            "/no-console could not be opened",
            "check its cable, its name in the station file and who may use it",
        ),
        (
            "/tag/reader",
            "/tag/no-reader",
            "could not open the reader's port",
            "check its cable, its name in the station file and who may use it",
        ),
    ];
    for (from, to, what, remedy) in cases {
        rig.edit("station.toml", from, to)?;
        rig.start_station()?;
        let mut station = StationClient::connect(rig.station.clone()).await?;
        line::open(&rig, &mut station, "WO-1", 10).await?;
        line::lay(&rig, "A", &Assembly::sound(1))?;
        let refused = station.start_unit(start("SN0001", "A")).await.expect_err("an instrument is missing");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{}", refused.message());
        assert!(refused.message().starts_with("nest A is parked: "), "{}", refused.message());
        for part in [what, remedy] {
            assert!(refused.message().contains(part), "{}", refused.message());
        }
        assert!(!refused.message().contains('\n'), "{}", refused.message());
        // It was refused before it began: no run, and no mark on the unit.
        let runs = station.list_units(ListUnitsRequest::default()).await?.into_inner().units;
        assert_eq!(runs.len(), 0);
        drop(station);
        rig.stop_station()?;
        rig.edit("station.toml", to, from)?;
    }
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    Ok(())
}

#[tokio::test]
async fn a_recipe_may_hold_its_image_as_intel_hex() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut rig = Rig::build(folder.path(), programs(), &["A"], &format!("http://{}", free_address()?))?;
    fs::copy(FIRMWARE_HEX, folder.path().join("recipes/hilfw.hex"))?;
    rig.edit("recipes/sensor.toml", "image = \"hilfw.elf\"", "image = \"hilfw.hex\"\nformat = \"hex\"")?;
    rig.sign_images()?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 1).await?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    // The order is full now.
    let full = station.start_unit(start("SN0002", "A")).await.expect_err("one was ordered");
    assert_eq!(full.code(), Code::ResourceExhausted);
    Ok(())
}

#[tokio::test]
async fn an_aborted_run_ends_at_the_next_safe_place_with_its_reason() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path()).await?;
    let mut silent = Assembly::sound(1);
    silent.faults.silent = true;
    line::lay(&rig, "A", &silent)?;
    let run_id = line::start(&mut station, "WO-1", "A", &silent.serial).await?;
    let command_id = Uuid::now_v7().to_string();
    let reason = "the operator saw smoke".to_owned();
    station
        .abort_unit(AbortUnitRequest { command_id, run_id: run_id.clone(), reason: reason.clone() })
        .await?;
    let unit = line::result(&mut station, &run_id).await?;
    assert_eq!(unit.outcome(), Outcome::Aborted);
    assert!(unit.reason.ends_with(&reason), "{}", unit.reason);
    Ok(())
}

#[tokio::test]
async fn a_unit_without_a_signer_is_an_error_and_the_next_one_passes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    assert!(rig.stop_signer()?);
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!((unit.outcome(), unit.failing_step.as_str()), (Outcome::Error, "identity"));
    assert!(unit.reason.contains("see that factory-signerd runs"), "{}", unit.reason);

    rig.start_signer()?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    Ok(())
}

#[tokio::test]
async fn a_station_that_is_told_to_stop_finishes_its_unit() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let run = station.start_unit(start("SN0001", "A")).await?.into_inner().run_id;
    assert!(rig.stop_station()?);
    assert!(!folder.path().join("station.sock").exists());

    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let unit = line::result(&mut station, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    Ok(())
}
