//! Commands to the real daemon: again, at the same time, after a restart, under an id that was used, and given up.

use std::{fs, path::Path, time::Duration};

use factory_hil_tests::{
    mes::line::{self, Assembly},
    rig::{Rig, Simulator, free_address},
};
use factory_proto::station::{
    AbortUnitRequest, DisposeUnitRequest, Disposition, ListUnitsRequest, OpenWorkOrderRequest,
    ReleaseUnitRequest, StartUnitRequest, station_client::StationClient,
};
use nix::sys::signal::Signal;
use tokio::{net::UnixListener, time::timeout};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

async fn line(folder: &Path) -> anyhow::Result<(Rig, StationClient<Channel>)> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder");
    let mut rig = Rig::build(folder, programs, &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::attest(&rig, &mut station).await?;
    Ok((rig, station))
}

fn open(rig: &Rig, command: Uuid, order: &str, quantity: u32) -> anyhow::Result<OpenWorkOrderRequest> {
    Ok(OpenWorkOrderRequest { command_id: command.to_string(), ..line::opening(rig, order, quantity)? })
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map_or_else(String::new, |info| info.reason.clone())
}

fn reused<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.expect_err("the id was used");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "COMMAND_ID_REUSED"),
        "{status}"
    );
}

#[tokio::test]
async fn a_command_is_carried_out_once_whoever_sends_it_again_and_when() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let [opening, starting, aborting, disposing, releasing] = [1, 2, 3, 4, 5].map(Uuid::from_u128);
    let order = open(&rig, opening, "WO-1", 9)?;
    let opened = station.open_work_order(order.clone()).await?.into_inner();
    let start = StartUnitRequest {
        command_id: starting.to_string(),
        work_order: "WO-1".to_owned(),
        serial: "SN0001".to_owned(),
        nest: "A".to_owned(),
        ..StartUnitRequest::default()
    };

    // The same start ten times at the same time is one run.
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let starts = (0..10).map(|_| {
        let (mut station, start) = (station.clone(), start.clone());
        tokio::spawn(async move { station.start_unit(start).await.map(|answer| answer.into_inner().run_id) })
    });
    let mut runs = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        runs.push(start.await??);
    }
    runs.dedup();
    let [run] = &runs[..] else { panic!("{runs:?}") };
    let abort = AbortUnitRequest {
        command_id: aborting.to_string(),
        run_id: run.clone(),
        reason: "it smells".to_owned(),
    };
    station.abort_unit(abort.clone()).await?;
    line::result(&mut station, run).await?;
    let dispose = DisposeUnitRequest {
        command_id: disposing.to_string(),
        serial: "SN0001".to_owned(),
        disposition: Disposition::Scrapped.into(),
    };
    station.dispose_unit(dispose.clone()).await?;
    // What was refused is not remembered.
    let release = ReleaseUnitRequest {
        command_id: releasing.to_string(),
        serial: "SN0001".to_owned(),
        reason: "washed".to_owned(),
        reworked: false,
    };
    let refused = station.release_unit(release.clone()).await.expect_err("it is not set aside");
    assert_eq!(reason(&refused), "UNIT_NOT_HELD");

    for restarted in [false, true] {
        if restarted {
            rig.kill_station()?;
            rig.start_station()?;
            station = StationClient::connect(rig.station.clone()).await?;
        }
        assert_eq!(station.open_work_order(order.clone()).await?.into_inner(), opened);
        assert_eq!(station.start_unit(start.clone()).await?.into_inner().run_id, *run);
        station.abort_unit(abort.clone()).await?;
        station.dispose_unit(dispose.clone()).await?;

        let other = AbortUnitRequest { reason: "it smokes".to_owned(), ..abort.clone() };
        reused(station.abort_unit(other).await);
        reused(station.open_work_order(open(&rig, opening, "WO-2", 9)?).await);
        reused(station.start_unit(StartUnitRequest { serial: "SN0002".to_owned(), ..start.clone() }).await);
        let shipped = DisposeUnitRequest { disposition: Disposition::Shipped.into(), ..dispose.clone() };
        reused(station.dispose_unit(shipped).await);
        // Of another call.
        let release = ReleaseUnitRequest { command_id: starting.to_string(), ..release.clone() };
        reused(station.release_unit(release).await);
        reused(
            station.start_unit(StartUnitRequest { command_id: opening.to_string(), ..start.clone() }).await,
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_is_given_up_while_the_signer_says_nothing_leaves_nothing_behind() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    rig.stop_signer()?;
    let socket = folder.path().join("signer.sock");
    let _ = fs::remove_file(&socket);
    // It lets everybody in, and answers nobody.
    let mute = UnixListener::bind(&socket)?;
    let hanging = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = mute.accept().await {
            held.push(stream);
        }
    });

    let order = open(&rig, Uuid::from_u128(1), "WO-1", 9)?;
    let mut request = Request::new(order.clone());
    request.set_timeout(Duration::from_millis(500));
    let late = station.open_work_order(request).await.expect_err("nobody signs");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
    // Nobody waits behind it: neither the same command nor another.
    let release = ReleaseUnitRequest {
        command_id: Uuid::from_u128(2).to_string(),
        serial: "SN0001".to_owned(),
        reason: "washed".to_owned(),
        reworked: false,
    };
    let refused = timeout(Duration::from_secs(5), station.release_unit(release)).await?;
    assert_eq!(refused.expect_err("it is not set aside").code(), Code::NotFound);
    let start = line::start(&mut station, "WO-1", "A", "SN0001").await.expect_err("the order is not open");
    assert_eq!(reason(&start.downcast::<Status>()?), "ORDER_UNKNOWN");

    // Who waits for longer than the signer may take is told so.
    let late = timeout(Duration::from_secs(30), station.open_work_order(order.clone())).await?;
    let late = late.expect_err("nobody signs");
    assert_eq!((late.code(), reason(&late).as_str()), (Code::Unavailable, "SIGNER_UNREACHABLE"), "{late}");
    assert!(late.get_details_retry_info().is_some());

    hanging.abort();
    let _ = hanging.await;
    fs::remove_file(&socket)?;
    rig.start_signer()?;
    let opened = station.open_work_order(order).await?.into_inner();
    assert_eq!(opened.work_order.map(|order| order.work_order).as_deref(), Some("WO-1"));
    Ok(())
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_any_more_is_not_begun() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder");
    let mut rig = Rig::build(folder.path(), programs, &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    // The station looks at its instruments first, and one of them is slow.
    let reader = rig.simulator("A", Simulator::Reader)?;
    reader.signal(Signal::SIGSTOP)?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 9).await?;
    let start = |number: u128| StartUnitRequest {
        command_id: Uuid::from_u128(number).to_string(),
        work_order: "WO-1".to_owned(),
        serial: format!("SN{number:04}"),
        nest: "A".to_owned(),
        ..StartUnitRequest::default()
    };
    let mut request = Request::new(start(1));
    request.set_timeout(Duration::from_millis(300));
    let late = station.start_unit(request).await.expect_err("the reader is slow");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
    reader.signal(Signal::SIGCONT)?;
    line::lay(&rig, "A", &Assembly::sound(2))?;
    station.start_unit(start(2)).await?;
    let units = station.list_units(ListUnitsRequest::default()).await?.into_inner().units;
    assert_eq!(units.iter().map(|unit| unit.serial.as_str()).collect::<Vec<_>>(), ["SN0002"]);
    Ok(())
}
