//! Work orders from the brand owner's signature to the closed books, on the virtual line.

use std::{fs, path::Path, process::Command};

use factory_hil_tests::{
    mes::line::{self, Assembly},
    rig::{RECIPE, Rig, free_address},
};
use factory_proto::station::{
    CloseWorkOrderRequest, DescribeStationRequest, Disposition, OpenWorkOrderRequest, Outcome,
    PauseWorkOrderRequest, ReconcileWorkOrderRequest, ReconcileWorkOrderResponse, ResumeWorkOrderRequest,
    RunPreflightRequest, UnitDifference, UnitStanding, WorkOrder, WorkOrderState,
    station_client::StationClient,
};
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;

/// A line with one nest, running, and no order.
async fn line(folder: &Path) -> anyhow::Result<(Rig, StationClient<Channel>)> {
    let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder");
    let mut rig = Rig::build(folder, programs, &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let station = StationClient::connect(rig.station.clone()).await?;
    Ok((rig, station))
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.expect_err("it should be refused");
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

#[tokio::test]
async fn the_books_are_closed_when_it_was_said_what_became_of_each_unit() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    line::open(&rig, &mut station, "WO-1", 2).await?;
    let mut bad = Assembly::sound(2);
    bad.tag_locked = true;
    let good = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!(good.outcome(), Outcome::Pass, "{}", good.reason);
    let failed = line::make_one(&rig, &mut station, "WO-1", "A", &bad).await?;
    assert_eq!(failed.failing_step, "tag", "{}", failed.reason);

    let (books, settled) = rig.reconcile("WO-1")?;
    assert!(
        !settled
            && books.contains("2 issued = 0 shipped + 0 scrapped + 0 quarantined + 0 superseded + 2 open")
    );
    let ship = |serial: &'static str, mut station: StationClient<Channel>| async move {
        line::dispose(&mut station, serial, Disposition::Shipped).await
    };
    refused(ship("SN0002", station.clone()).await, Code::FailedPrecondition, "SN0002 has not passed");
    refused(ship("SN0009", station.clone()).await, Code::NotFound, "has never begun to make unit SN0009");
    let nothing = line::dispose(&mut station, "SN0001", Disposition::Unspecified).await;
    refused(nothing, Code::InvalidArgument, "disposition: is none of shipped, quarantined, scrapped");
    // Without the signer nothing is said that it does not know.
    rig.stop_signer()?;
    refused(ship("SN0001", station.clone()).await, Code::Unavailable, "the signer cannot be reached");
    rig.start_signer()?;
    ship("SN0001", station.clone()).await?;
    line::dispose(&mut station, "SN0002", Disposition::Scrapped).await?;
    refused(ship("SN0002", station.clone()).await, Code::FailedPrecondition, "SN0002 was scrapped");

    let (books, settled) = rig.reconcile("WO-1")?;
    let sum = "2 issued = 1 shipped + 1 scrapped + 0 quarantined + 0 superseded + 0 open";
    assert!(settled && books.contains(sum), "{books}");
    line::lay(&rig, "A", &bad)?;
    let again = line::start(&mut station, "WO-1", "A", "SN0002").await.unwrap_err().downcast::<Status>()?;
    refused::<()>(
        Err(again),
        Code::FailedPrecondition,
        "SN0002 was scrapped; its last run was for work order WO-1, in nest A at ",
    );
    Ok(())
}

#[tokio::test]
async fn only_what_the_brand_owner_signed_is_opened() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, station) = line(folder.path()).await?;
    let open = |order: &str, quantity, signed_order: String| OpenWorkOrderRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: order.to_owned(),
        recipe: RECIPE.to_owned(),
        quantity,
        signed_order,
        ..OpenWorkOrderRequest::default()
    };
    let signed = rig.sign_order("WO-1", 2)?;
    let check = async |request, code, text: &str| {
        refused(station.clone().open_work_order(request).await, code, text);
    };
    check(open("WO-1", 2, String::new()), Code::InvalidArgument, "signed_order: is empty").await;
    check(open("WO-1", 2, "a.b.c".to_owned()), Code::FailedPrecondition, "signed_order is no JWS").await;
    check(open("WO-1", 3, signed.clone()), Code::FailedPrecondition, "is for 2 units, not for 3").await;
    check(open("WO-2", 2, signed.clone()), Code::FailedPrecondition, "is for work order WO-1, not for WO-2")
        .await;
    let elsewhere = rig.sign_order_for(&"ab".repeat(32), "WO-3", 2)?;
    let text = "is for a recipe with SHA-256 abab";
    check(open("WO-3", 2, elsewhere), Code::FailedPrecondition, text).await;
    let text = "is registered with its account: upload it there, then say so (stationctl attest)";
    check(open("WO-1", 2, signed.clone()), Code::FailedPrecondition, text).await;
    let preflight = async |text: &str| -> anyhow::Result<()> {
        let checks = station.clone().run_preflight(RunPreflightRequest {}).await?.into_inner().checks;
        let wrong: Vec<_> = checks.iter().filter(|check| !check.ok).map(|check| &check.finding).collect();
        let as_said = match wrong[..] {
            [] => text.is_empty(),
            [finding] => !text.is_empty() && finding.contains(text),
            _ => false,
        };
        assert!(as_said, "{checks:?}");
        Ok(())
    };
    preflight(text).await?;
    line::attest(&rig, &mut station.clone()).await?;
    preflight("").await?;
    station.clone().open_work_order(open("WO-1", 2, signed)).await?;
    Ok(())
}

#[tokio::test]
async fn a_signers_ledger_that_was_put_back_is_noticed_by_what_the_station_keeps() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let exchange = |from: &str, to: &str| {
        let (from, to) = (folder.path().join(from), folder.path().join(to));
        assert!(Command::new("cp").arg("-a").arg(&from).arg(&to).status().unwrap().success());
    };
    line::open(&rig, &mut station, "WO-1", 9).await?;
    rig.stop_signer()?;
    exchange("ledger", "ledger-before");
    rig.start_signer()?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    // Each call brings home the newest head, at the latest the next one.
    line::dispose(&mut station, "SN0001", Disposition::Shipped).await?;
    rig.stop_signer()?;
    fs::rename(folder.path().join("ledger"), folder.path().join("ledger-newest"))?;
    exchange("ledger-before", "ledger");
    rig.start_signer()?;
    // Also after the station was away.
    assert!(rig.stop_station()?);
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(2)).await?;
    assert_eq!((unit.outcome(), unit.failing_step.as_str()), (Outcome::Error, "identity"));
    assert!(unit.reason.contains("stop it, and restore the newest copy of its ledger"), "{}", unit.reason);

    rig.stop_signer()?;
    fs::remove_dir_all(folder.path().join("ledger"))?;
    exchange("ledger-newest", "ledger");
    rig.start_signer()?;
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(3)).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    Ok(())
}

fn pause(command: Uuid, reason: &str) -> PauseWorkOrderRequest {
    PauseWorkOrderRequest {
        command_id: command.to_string(),
        work_order: "WO-1".to_owned(),
        reason: reason.to_owned(),
    }
}

fn resume(command: Uuid) -> ResumeWorkOrderRequest {
    let (work_order, reason) = ("WO-1".to_owned(), "seen to".to_owned());
    ResumeWorkOrderRequest { command_id: command.to_string(), work_order, reason }
}

fn close(command: Uuid, even_if_open: bool) -> CloseWorkOrderRequest {
    let (work_order, reason) = ("WO-1".to_owned(), "all are made".to_owned());
    CloseWorkOrderRequest { command_id: command.to_string(), work_order, reason, even_if_open }
}

async fn books(station: &mut StationClient<Channel>) -> Result<ReconcileWorkOrderResponse, Status> {
    let request = ReconcileWorkOrderRequest { work_order: "WO-1".to_owned(), ..Default::default() };
    Ok(station.reconcile_work_order(request).await?.into_inner())
}

async fn described(station: &mut StationClient<Channel>) -> anyhow::Result<WorkOrder> {
    let orders = station.describe_station(DescribeStationRequest {}).await?.into_inner().work_orders;
    Ok(orders.into_iter().next().expect("there is an order"))
}

async fn start_refused(station: &mut StationClient<Channel>, serial: &str, text: &str) {
    let refusal = line::start(station, "WO-1", "A", serial).await.unwrap_err().downcast::<Status>().unwrap();
    refused::<()>(Err(refusal), Code::FailedPrecondition, text);
}

#[tokio::test]
async fn an_order_is_paused_resumed_and_closed_for_good_also_by_a_station_that_is_killed()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let refusal = station.pause_work_order(pause(Uuid::now_v7(), "too early")).await;
    refused(refusal, Code::NotFound, "work order WO-1 is not open at this station");
    line::open(&rig, &mut station, "WO-1", 2).await?;
    let quota = described(&mut station).await?.quota.expect("the signer told it");
    assert_eq!((quota.quantity, quota.spare, quota.replacements), (2, 2, 8));
    assert!(quota.not_before.unwrap().seconds < quota.not_after.unwrap().seconds);

    let [paused, resumed, closed] = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
    let refusal = station.pause_work_order(pause(paused, " ")).await;
    refused(refusal, Code::InvalidArgument, "reason: must say why");
    let told =
        station.pause_work_order(pause(paused, "no more boards")).await?.into_inner().work_order.unwrap();
    assert_eq!(told.state(), WorkOrderState::Paused);
    rig.kill_station()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let order = described(&mut station).await?;
    assert_eq!((order.state(), order.state_reason.as_str()), (WorkOrderState::Paused, "no more boards"));
    assert!(order.state_since.is_some());
    start_refused(&mut station, "SN0001", "WO-1 is paused: no more boards; resume it first").await;

    station.resume_work_order(resume(resumed)).await?;
    // A command that comes late changes nothing, and one that is used for something else is refused.
    station.pause_work_order(pause(paused, "no more boards")).await?;
    assert_eq!(described(&mut station).await?.state(), WorkOrderState::Open);
    let refusal = station.pause_work_order(pause(paused, "another reason")).await;
    let text = "was used before, for PauseWorkOrder or with other contents";
    refused(refusal, Code::AlreadyExists, text);
    refused(station.resume_work_order(resume(paused)).await, Code::AlreadyExists, text);

    station.close_work_order(close(closed, false)).await?;
    rig.kill_station()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    assert_eq!(described(&mut station).await?.state(), WorkOrderState::Closed);
    station.close_work_order(close(closed, false)).await?;
    let text = "WO-1 was closed: all are made; open another one";
    refused(station.resume_work_order(resume(Uuid::now_v7())).await, Code::FailedPrecondition, text);
    line::open(&rig, &mut station, "WO-1", 2).await?;
    start_refused(&mut station, "SN0001", text).await;
    Ok(())
}

#[tokio::test]
async fn the_stations_books_and_the_signers_are_held_against_each_other() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    line::open(&rig, &mut station, "WO-1", 3).await?;
    let mut bad = Assembly::sound(2);
    bad.tag_locked = true;
    for board in [Assembly::sound(1), bad, Assembly::sound(3)] {
        line::make_one(&rig, &mut station, "WO-1", "A", &board).await?;
    }
    line::dispose(&mut station, "SN0001", Disposition::Shipped).await?;
    let told = books(&mut station).await?;
    let (here, signer) = (told.station.unwrap(), told.signer.unwrap());
    assert_eq!((here.units, here.passed, here.failed, here.shipped, here.open), (3, 2, 1, 1, 2));
    assert_eq!((signer.units_counted, signer.shipped, signer.open), (3, 1, 2));
    let open: Vec<_> = told
        .unsettled
        .iter()
        .map(|unit| (unit.serial.as_str(), unit.station(), unit.signer.as_str(), unit.difference()))
        .collect();
    let agreed = UnitDifference::Unspecified;
    let standing = UnitStanding::Open;
    assert_eq!(open, [("SN0002", standing, "OPEN", agreed), ("SN0003", standing, "OPEN", agreed)]);
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_sim-target").replace("sim-target", "stationctl"));
    let shown = ctl.arg("--station").arg(&rig.station).args(["reconcile", "WO-1"]).output()?;
    let text = String::from_utf8(shown.stdout)? + &String::from_utf8_lossy(&shown.stderr);
    assert!(!shown.status.success() && text.contains("SN0003: open; not accounted for"), "{text}");

    let refusal = station.close_work_order(close(Uuid::now_v7(), false)).await;
    refused(refusal, Code::FailedPrecondition, "WO-1 has 2 units that are not accounted for: unit SN0002 (");
    line::dispose(&mut station, "SN0002", Disposition::Scrapped).await?;

    // A station whose log was put back: the signer knows more than it does.
    let copy = |from: &str, to: &str| {
        let (from, to) = (folder.path().join(from), folder.path().join(to));
        assert!(Command::new("cp").arg("-a").arg(&from).arg(&to).status().unwrap().success());
    };
    assert!(rig.stop_station()?);
    copy("journal", "journal-before");
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::dispose(&mut station, "SN0003", Disposition::Shipped).await?;
    assert_eq!(books(&mut station).await?.unsettled, []);
    assert!(rig.stop_station()?);
    fs::remove_dir_all(folder.path().join("journal"))?;
    copy("journal-before", "journal");
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let told = books(&mut station).await?;
    let [unit] = &told.unsettled[..] else { panic!("{:?}", told.unsettled) };
    assert_eq!((unit.serial.as_str(), unit.difference()), ("SN0003", UnitDifference::Place));
    assert_eq!((unit.station(), unit.signer.as_str()), (UnitStanding::Open, "SHIPPED"));

    rig.stop_signer()?;
    refused(books(&mut station).await, Code::Unavailable, "the signer cannot be reached");
    refused(
        station.close_work_order(close(Uuid::now_v7(), false)).await,
        Code::Unavailable,
        "the signer cannot be reached",
    );
    station.close_work_order(close(Uuid::now_v7(), true)).await?;
    assert_eq!(described(&mut station).await?.state(), WorkOrderState::Closed);
    // What became of a unit can still be said.
    rig.start_signer()?;
    line::dispose(&mut station, "SN0003", Disposition::Shipped).await?;
    assert_eq!(books(&mut station).await?.unsettled, []);
    Ok(())
}
