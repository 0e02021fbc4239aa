//! What the real daemon tells of itself and its runs, and what it does not take.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Context as _;
use factory_hil_tests::{
    mes::line::{self, Assembly},
    rig::{Rig, free_address},
};
use factory_proto::station::{
    DescribeStationRequest, DescribeStationResponse, Disposition, ListUnitsRequest, OpenWorkOrderRequest,
    Outcome, ReleaseUnitRequest, RunState, StartUnitRequest, station_client::StationClient,
};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

const PATIENCE: Duration = Duration::from_secs(60);

async fn line(folder: &Path) -> anyhow::Result<(Rig, StationClient<Channel>)> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder");
    let mut rig = Rig::build(folder, programs, &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let station = StationClient::connect(rig.station.clone()).await?;
    Ok((rig, station))
}

async fn describe(station: &mut StationClient<Channel>) -> anyhow::Result<DescribeStationResponse> {
    Ok(station.describe_station(DescribeStationRequest {}).await?.into_inner())
}

/// Waits until a part is well, or is not.
async fn health(rig: &Rig, part: &str, wanted: ServingStatus) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(rig.station.clone())?.connect().await?;
    let request = HealthCheckRequest { service: part.to_owned() };
    let mut health = HealthClient::new(channel).watch(request).await?.into_inner();
    loop {
        let told =
            timeout(PATIENCE, health.message()).await.with_context(|| format!("{part} is not {wanted:?}"))?;
        if told?.context("the stream of health lasts")?.status() == wanted {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_station_says_how_each_of_its_parts_is_without_asking_them() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    // Its controller was never there.
    health(&rig, "controller", ServingStatus::NotServing).await?;
    for part in ["journal", "disk", "clock", "provenance", "nest/A"] {
        health(&rig, part, ServingStatus::Serving).await?;
    }
    line::open(&rig, &mut station, "WO-1", 2).await?;
    health(&rig, "signer", ServingStatus::Serving).await?;
    rig.stop_signer()?;
    let again = line::open(&rig, &mut station, "WO-2", 2).await.expect_err("nobody signs");
    assert_eq!(again.downcast::<tonic::Status>()?.code(), Code::Unavailable);
    health(&rig, "signer", ServingStatus::NotServing).await?;

    let told = describe(&mut station).await?;
    let file = fs::read(folder.path().join("station.toml"))?;
    assert_eq!(told.configuration_digest, Sha256::digest(file).to_vec());
    assert!(told.started.is_some() && told.last_sequence > 0);
    let trouble = |part: &str| {
        let part =
            told.parts.iter().find(|known| known.part == part).unwrap_or_else(|| panic!("{part} is told"));
        assert!(part.since.is_some());
        part.trouble.clone()
    };
    assert!(trouble("signer").contains("the signer cannot be reached"), "{}", trouble("signer"));
    assert!(trouble("controller").contains("the controller cannot be reached"), "{}", trouble("controller"));
    for part in ["journal", "disk", "clock", "provenance", "nest/A"] {
        assert_eq!(trouble(part), "");
    }
    rig.start_signer()?;
    line::open(&rig, &mut station, "WO-2", 2).await?;
    health(&rig, "signer", ServingStatus::Serving).await?;
    Ok(())
}

#[tokio::test]
async fn runs_are_listed_by_what_they_are() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path()).await?;
    line::open(&rig, &mut station, "WO-1", 9).await?;
    let mut bad = Assembly::sound(2);
    bad.tag_locked = true;
    for board in [Assembly::sound(1), bad, Assembly::sound(3)] {
        line::make_one(&rig, &mut station, "WO-1", "A", &board).await?;
    }
    let first = ListUnitsRequest {
        work_order: "WO-1".to_owned(),
        outcomes: vec![Outcome::Pass.into()],
        state: RunState::Closed.into(),
        page_size: 1,
        ..ListUnitsRequest::default()
    };
    let page = station.list_units(first.clone()).await?.into_inner();
    let serials = |units: &[factory_proto::station::Unit]| {
        units.iter().map(|unit| unit.serial.clone()).collect::<Vec<_>>()
    };
    assert_eq!(serials(&page.units), ["SN0001"]);
    let next = ListUnitsRequest { page_token: page.next_page_token.clone(), page_size: 9, ..first.clone() };
    let rest = station.list_units(next).await?.into_inner();
    assert_eq!((serials(&rest.units), rest.next_page_token.as_str()), (vec!["SN0003".to_owned()], ""));
    let other = ListUnitsRequest { page_token: page.next_page_token, nest: "A".to_owned(), ..first };
    let refused = station.list_units(other).await.expect_err("it is of another list");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_error_details();
    assert_eq!(details.bad_request().context("it is about a field")?.field_violations[0].field, "page_token");

    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("it lies in a folder")?;
    let list = |arguments: &[&str]| -> anyhow::Result<String> {
        let mut list = Command::new(programs.join("stationctl"));
        list.arg("--station").arg(folder.path().join("station.sock")).arg("list").args(arguments);
        Ok(String::from_utf8(list.output()?.stdout)?)
    };
    assert_eq!(list(&[])?.lines().count(), 3);
    let failed = list(&["--outcome", "FAIL", "--outcome", "ERROR", "--nest", "A", "--closed"])?;
    assert!(failed.lines().count() == 1 && failed.contains("SN0002"), "{failed}");
    assert_eq!(list(&["--open"])?, "");
    assert_eq!(list(&["--serial", "SN0003"])?.lines().count(), 1);
    assert_eq!(list(&["--started-before", "2026-01-01T00:00:00Z"])?, "");
    assert_eq!(list(&["--started-from", "2026-01-01T00:00:00Z"])?.lines().count(), 3);
    Ok(())
}

#[tokio::test]
async fn a_message_longer_than_its_call_needs_is_not_read() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_rig, mut station) = line(folder.path()).await?;
    let long = || "x".repeat(100_000);
    let start = StartUnitRequest { serial: long(), ..StartUnitRequest::default() };
    let refused = station.start_unit(start).await.expect_err("it is too long");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let release = ReleaseUnitRequest { reason: long(), ..ReleaseUnitRequest::default() };
    assert_eq!(station.release_unit(release).await.expect_err("it is too long").code(), Code::OutOfRange);
    // A list of units may be that long, and is read.
    let open = OpenWorkOrderRequest { unit_list: long().into(), ..OpenWorkOrderRequest::default() };
    assert_eq!(station.open_work_order(open).await.expect_err("it is no list").code(), Code::InvalidArgument);
    // And all is well afterwards.
    let refused =
        line::dispose(&mut station, "SN0009", Disposition::Scrapped).await.expect_err("it was never seen");
    assert_eq!(refused.code(), Code::NotFound);
    Ok(())
}
