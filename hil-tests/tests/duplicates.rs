//! What belongs to one unit alone is never another's: whichever the order, whatever the nest, however the station ended.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use factory_hil_tests::{
    control,
    device::keys::PrivateKey,
    mes::line::{self, Assembly},
    reader::{self, Dump},
    rig::{RECIPE, Rig, free_address},
};
use factory_proto::station::{
    Disposition, ErrorReason, OpenWorkOrderRequest, Outcome, StartUnitRequest, Unit, WatchEventsRequest,
    station_client::StationClient, watch_events_response::Event,
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;
use uuid::Uuid;

type Station = StationClient<Channel>;

/// A line with two nests, running, and the orders WO-1 and WO-2. Its units are called by `endpoint_name`.
async fn line(folder: &Path, endpoint_name: &str) -> anyhow::Result<(Rig, Station)> {
    let programs =
        Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a program lies in a folder")?;
    let mut rig = Rig::build(folder, programs, &["A", "B"], &format!("http://{}", free_address()?))?;
    rig.edit(&format!("recipes/{RECIPE}.toml"), "\"sensor-{serial}\"", &format!("\"{endpoint_name}\""))?;
    rig.sign_images()?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    for order in ["WO-1", "WO-2"] {
        line::open(&rig, &mut station, order, 10).await?;
    }
    Ok((rig, station))
}

/// Kills the station, throws its index away, and starts it again.
async fn killed_and_forgetful(rig: &mut Rig) -> anyhow::Result<Station> {
    rig.kill_station()?;
    fs::remove_dir_all(rig.folder.join("journal/index"))?;
    rig.start_station()?;
    Ok(StationClient::connect(rig.station.clone()).await?)
}

/// A board with the tag, and the chip, of another one.
fn with_tag_of(number: u32, serial: &str) -> Assembly {
    Assembly { serial: serial.to_owned(), ..Assembly::sound(number) }
}

fn dump(rig: &Rig, nest: &str) -> anyhow::Result<Dump> {
    let control = rig.nest(nest).join("tag/control.sock");
    let dump: Option<Dump> = control::call(&control, &reader::Request::Dump)?;
    dump.context("a tag lies there")
}

/// A unit that has what is another's, of which that is the run.
fn check_seen(unit: &Unit, step: &str, reason: ErrorReason, other: &Unit) {
    assert_eq!((unit.outcome(), unit.failing_step.as_str()), (Outcome::Fail, step), "{}", unit.reason);
    let seen = unit.seen_before.as_ref().expect("it is told where it was seen");
    assert_eq!(seen.reason(), reason);
    let told = (&seen.serial, &seen.work_order, &seen.nest, &seen.run_id);
    assert_eq!(told, (&other.serial, &other.work_order, &other.nest, &other.run_id));
    for word in [&seen.value, &other.serial, &other.work_order, &other.run_id] {
        assert!(unit.reason.contains(word.as_str()), "{} does not tell of {word}", unit.reason);
    }
}

async fn start(
    station: &mut Station,
    order: &str,
    nest: &str,
    serial: &str,
    mac: &str,
) -> Result<String, Status> {
    let request = StartUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: order.to_owned(),
        serial: serial.to_owned(),
        nest: nest.to_owned(),
        values: BTreeMap::from([("mac".to_owned(), mac.to_owned())]),
    };
    Ok(station.start_unit(request).await?.into_inner().run_id)
}

/// A start that is refused, with the reason and metadata for programs.
fn refused(answer: Result<String, Status>, reason: &str, about: &[(&str, &str)]) {
    let status = answer.expect_err("it should be refused");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let details = status.get_error_details();
    let info = details.error_info().expect("a refusal has details");
    assert_eq!(info.reason, reason, "{status}");
    for (what, which) in about {
        assert_eq!(info.metadata.get(*what).map(String::as_str), Some(*which), "{what} of {status:?}");
        assert!(status.message().contains(which), "{which}: {status}");
    }
    assert!(info.metadata.contains_key("seen_time"), "{status:?}");
}

#[tokio::test]
async fn a_tag_is_one_units_for_ever() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), "sensor-{serial}").await?;
    let first = line::make_one(&rig, &mut station, "WO-1", "A", &Assembly::sound(1)).await?;
    assert_eq!(first.outcome(), Outcome::Pass, "{}", first.reason);

    line::lay(&rig, "B", &with_tag_of(1, "SN0002"))?;
    let before = dump(&rig, "B")?;
    let run = line::start(&mut station, "WO-2", "B", "SN0002").await?;
    let second = line::result(&mut station, &run).await?;
    check_seen(&second, "tag", ErrorReason::TagSeenBefore, &first);
    assert!(second.reason.contains("put a fresh tag on this unit"), "{}", second.reason);
    assert_eq!(dump(&rig, "B")?, before, "nothing was written");

    let mut station = killed_and_forgetful(&mut rig).await?;
    line::dispose(&mut station, "SN0001", Disposition::Scrapped).await?;
    let third = line::make_one(&rig, &mut station, "WO-1", "A", &with_tag_of(1, "SN0003")).await?;
    check_seen(&third, "tag", ErrorReason::TagSeenBefore, &first);

    // The unit itself is as good as any; with a tag of its own it passes.
    let second = line::make_one(&rig, &mut station, "WO-2", "A", &with_tag_of(2, "SN0002")).await?;
    assert_eq!(second.outcome(), Outcome::Pass, "{}", second.reason);
    Ok(())
}

#[tokio::test]
async fn a_station_killed_before_it_writes_a_tag_writes_it_afterwards_and_nobody_else_does()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), "sensor-{serial}").await?;
    let board = Assembly::sound(1);
    let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
    line::lay(&rig, "A", &board)?;
    let run = line::start(&mut station, "WO-1", "A", &board.serial).await?;
    loop {
        let message = events.message().await?.context("the station ended the events")?;
        if matches!(message.event, Some(Event::TagSeen(_))) {
            assert_eq!(message.run_id, run);
            break;
        }
    }
    let mut station = killed_and_forgetful(&mut rig).await?;
    let thief = line::make_one(&rig, &mut station, "WO-2", "B", &with_tag_of(1, "SN0002")).await?;
    let first = line::result(&mut station, &run).await?;
    assert_eq!(first.outcome(), Outcome::Pass, "{}", first.reason);
    check_seen(&thief, "tag", ErrorReason::TagSeenBefore, &first);
    Ok(())
}

#[tokio::test]
async fn of_two_nests_with_one_tag_one_goes_on() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path(), "sensor-{serial}").await?;
    let mut runs = Vec::new();
    for (nest, serial) in [("A", "SN0001"), ("B", "SN0002")] {
        line::lay(&rig, nest, &with_tag_of(7, serial))?;
        runs.push(line::start(&mut station, "WO-1", nest, serial).await?);
    }
    let mut units = Vec::new();
    for run in &runs {
        units.push(line::result(&mut station, run).await?);
    }
    units.sort_by_key(|unit| unit.outcome() != Outcome::Pass);
    let [passed, failed] = &units[..] else { panic!("two units were made") };
    assert_eq!(passed.outcome(), Outcome::Pass, "{}", passed.reason);
    check_seen(failed, "tag", ErrorReason::TagSeenBefore, passed);
    Ok(())
}

#[tokio::test]
async fn a_device_with_the_key_of_another_one_gets_no_certificate() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), "sensor-{serial}").await?;
    let key = HEXLOWER.encode(&PrivateKey::generate().to_der());
    let scenario = format!("csr.same-key = \"{key}\"");
    let board = Assembly::misbehaving(&rig, 1, &scenario)?;
    let first = line::make_one(&rig, &mut station, "WO-1", "A", &board).await?;
    assert_eq!(first.outcome(), Outcome::Pass, "{}", first.reason);

    let mut station = killed_and_forgetful(&mut rig).await?;
    let board = Assembly::misbehaving(&rig, 2, &scenario)?;
    let second = line::make_one(&rig, &mut station, "WO-2", "B", &board).await?;
    check_seen(&second, "identity", ErrorReason::DeviceKeySeenBefore, &first);
    assert!(second.quarantine.is_some(), "an engineer has to see to it");
    assert_eq!(second.identity, None);
    let (books, _) = rig.reconcile("WO-2")?;
    assert!(books.contains("0 issued"), "the signer was asked: {books}");
    // Nor is it started before somebody has.
    let again = line::start(&mut station, "WO-2", "B", "SN0002").await.unwrap_err().downcast::<Status>()?;
    assert!(again.message().contains("is in quarantine: the device's key"), "{again}");
    Ok(())
}

#[tokio::test]
async fn an_endpoint_name_is_one_units_until_that_is_scrapped() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path(), "sensor-{mac}").await?;
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let run = start(&mut station, "WO-1", "A", "SN0001", "1").await?;
    // Also while nobody has asked for a certificate yet.
    let about = [
        ("value", "sensor-1"),
        ("seen_serial", "SN0001"),
        ("seen_order", "WO-1"),
        ("seen_run", run.as_str()),
    ];
    let inside = [("seen_order", "WO-1"), ("seen_run", run.as_str()), ("seen_nest", "A")];
    refused(start(&mut station, "WO-2", "B", "SN0001", "9").await, "UNIT_RUNNING", &inside);
    let reason = "ENDPOINT_NAME_SEEN_BEFORE";
    refused(start(&mut station, "WO-2", "B", "SN0002", "1").await, reason, &about);
    let first = line::result(&mut station, &run).await?;
    assert_eq!(first.outcome(), Outcome::Pass, "{}", first.reason);
    refused(start(&mut station, "WO-2", "B", "SN0002", "1").await, reason, &about);
    let mut station = killed_and_forgetful(&mut rig).await?;
    refused(start(&mut station, "WO-2", "B", "SN0002", "1").await, reason, &about);
    let about = [("seen_order", "WO-1"), ("seen_run", run.as_str()), ("seen_nest", "A")];
    refused(start(&mut station, "WO-2", "B", "SN0001", "9").await, "UNIT_PASSED", &about);

    // Nor is an order opened of which one unit would have it.
    let unit_list = b"serial,mac\nSN0008,8\nSN0009,1\n".to_vec();
    let listed = OpenWorkOrderRequest { unit_list, ..line::opening(&rig, "WO-3", 2)? };
    let refusal = station.open_work_order(listed).await.unwrap_err();
    let text = "unit_list: unit SN0009: endpoint name sensor-1 belongs to unit SN0001 of work order WO-1";
    assert!(refusal.code() == Code::InvalidArgument && refusal.message().contains(text), "{refusal}");

    line::dispose(&mut station, "SN0001", Disposition::Scrapped).await?;
    line::take_out(&rig, "A", "SN0001")?;
    line::lay(&rig, "B", &Assembly::sound(2))?;
    let run = start(&mut station, "WO-2", "B", "SN0002", "1").await?;
    let second = line::result(&mut station, &run).await?;
    assert_eq!(second.outcome(), Outcome::Pass, "{}", second.reason);
    let about = [("seen_serial", "SN0002"), ("seen_order", "WO-2"), ("seen_nest", "B")];
    refused(start(&mut station, "WO-1", "A", "SN0003", "1").await, reason, &about);
    Ok(())
}

#[tokio::test]
async fn of_two_starts_with_one_endpoint_name_one_is_accepted_also_by_a_station_that_is_killed()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, station) = line(folder.path(), "sensor-{mac}").await?;
    line::lay(&rig, "A", &Assembly::sound(1))?;
    line::lay(&rig, "B", &Assembly::sound(2))?;
    let (mut to_a, mut to_b) = (station.clone(), station);
    let (a, b) = tokio::join!(
        start(&mut to_a, "WO-1", "A", "SN0001", "1"),
        start(&mut to_b, "WO-2", "B", "SN0002", "1"),
    );
    let accepted: Vec<&String> = [&a, &b].into_iter().flatten().collect();
    let [run] = accepted[..] else { panic!("one should be accepted: {a:?}, {b:?}") };
    let (other, order, nest) = if a.is_ok() { ("SN0002", "WO-2", "B") } else { ("SN0001", "WO-1", "A") };
    let mut station = killed_and_forgetful(&mut rig).await?;
    let refusal = start(&mut station, order, nest, other, "1").await;
    refused(refusal, "ENDPOINT_NAME_SEEN_BEFORE", &[("seen_run", run.as_str())]);
    let unit = line::result(&mut station, run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    Ok(())
}
