//! Work orders from the brand owner's signature to the closed books, on the virtual line.

use std::{fs, path::Path, process::Command};

use factory_hil_tests::{
    mes::line::{self, Assembly},
    rig::{RECIPE, Rig, free_address},
};
use factory_proto::station::{
    Disposition, OpenWorkOrderRequest, Outcome, RunPreflightRequest, station_client::StationClient,
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
    refused(ship("SN0009", station.clone()).await, Code::NotFound, "has never seen unit SN0009");
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
    refused::<()>(Err(again), Code::FailedPrecondition, "SN0002 was scrapped");
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
