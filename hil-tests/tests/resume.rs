//! Runs that the station's end left open: each is taken up again, or set aside, before its nest takes another unit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use factory_hil_tests::{
    device::store::{self, Holdings, Kind},
    mes::line::{self, Assembly},
    rig::{Rig, free_address},
};
use factory_proto::station::{
    AbortUnitRequest, GetUnitRequest, Outcome, ReleaseUnitRequest, Unit, WatchEventsRequest,
    WatchEventsResponse, station_client::StationClient, watch_events_response::Event,
};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tonic::{Code, transport::Channel};
use uuid::Uuid;

type Station = StationClient<Channel>;

/// A line with one nest, running, and an order of a hundred; its controller is away.
async fn line(folder: &Path) -> anyhow::Result<(Rig, Station)> {
    let programs =
        Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a program lies in a folder")?;
    let mut rig = Rig::build(folder, programs, &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 100).await?;
    Ok((rig, station))
}

/// A device that takes its bundle and says nothing of it.
const SWALLOWS: &str = "[[fault]]\nmessage = 2\nwhat = 'silent'\n";

/// The same board, whose device keeps what it holds when it is started again.
fn keeping(mut board: Assembly) -> Assembly {
    board.faults.device_args.push("--keep-storage".to_owned());
    board
}

/// Lays a board in, starts it, and gives its run's id once the station says what `seen` waits for.
async fn start_until(
    rig: &Rig,
    station: &mut Station,
    board: &Assembly,
    seen: impl Fn(&Event) -> bool,
) -> anyhow::Result<String> {
    let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
    line::lay(rig, "A", board)?;
    let run = line::start(station, "WO-1", "A", &board.serial).await?;
    loop {
        let message: WatchEventsResponse = events.message().await?.context("the station ended the events")?;
        if message.run_id == run && message.event.as_ref().is_some_and(&seen) {
            return Ok(run);
        }
    }
}

fn begins(step: &str) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::StepStarted(started) if started.step == step)
}

/// Kills the station, lets `meanwhile` happen, starts it, and waits for the run's result.
async fn after_a_crash(
    rig: &mut Rig,
    run: &str,
    meanwhile: impl FnOnce(&Rig) -> anyhow::Result<()>,
) -> anyhow::Result<(Unit, Station)> {
    rig.kill_station()?;
    meanwhile(rig)?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let unit = line::result(&mut station, run).await?;
    Ok((unit, station))
}

fn storage(rig: &Rig, board: &Assembly) -> PathBuf {
    rig.storage("A", &board.serial)
}

/// Waits until what the device holds is as wanted.
async fn holds(rig: &Rig, board: &Assembly, wanted: fn(&Holdings) -> bool) -> anyhow::Result<()> {
    let path = storage(rig, board);
    tokio::task::spawn_blocking(move || {
        let folder = path.parent().context("the storage lies in a folder")?;
        let watch = Inotify::init(InitFlags::empty())?;
        watch.add_watch(folder, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO)?;
        // A file that is being written is no storage yet; the end of the writing is an event.
        while !store::read(&path).is_ok_and(|holdings| wanted(&holdings)) {
            watch.read_events()?;
        }
        Ok(())
    })
    .await?
}

/// Device, tag and result tell of one and the same identity.
fn all_agree(rig: &Rig, board: &Assembly, unit: &Unit) -> anyhow::Result<()> {
    let identity = unit.identity.as_ref().context("a unit that passed has an identity")?;
    let device = store::read(&storage(rig, board))?;
    assert!(device.factory_disabled, "{}: the device is open", board.serial);
    let held = device.get(Kind::Certificate, "mbed.BootstrapDeviceCert");
    assert_eq!(held, Some(identity.certificate.as_slice()), "{}", board.serial);
    let tag = unit.tag.as_ref().context("a unit that passed has a tag")?;
    let carried = tag.ndef.windows(97).any(|bytes| bytes == identity.enrolment_id.as_bytes());
    assert!(carried, "{}: the tag says something else", board.serial);
    Ok(())
}

#[tokio::test]
async fn a_run_is_taken_up_again_whichever_step_it_was_left_in() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let cases = [
        ("flash", &["flash"][..]),
        ("boot", &["flash", "boot"]),
        ("self-test", &["flash", "boot", "self-test"]),
        // A moment later the step may have passed.
        ("identity", &["boot"]),
        ("provision", &["boot", "tag"]),
        ("tag", &["tag", ""]),
    ];
    for ((left_in, goes_on_with), number) in cases.into_iter().zip(1..) {
        let board = Assembly::sound(number);
        let run = start_until(&rig, &mut station, &board, begins(left_in)).await?;
        let (unit, restarted) = after_a_crash(&mut rig, &run, |_| Ok(())).await?;
        station = restarted;
        assert_eq!(unit.outcome(), Outcome::Pass, "left in {left_in}: {}", unit.reason);
        assert_eq!(unit.quarantine, None);
        if let [resumed] = &unit.resumptions[..] {
            let possible = goes_on_with.contains(&resumed.resumed_at.as_str()) || resumed.left_in != left_in;
            assert!(possible, "left in {}, went on with {}", resumed.left_in, resumed.resumed_at);
        } else {
            panic!("left in {left_in}, and taken up again {} times", unit.resumptions.len());
        }
        all_agree(&rig, &board, &unit)?;
        line::take_out(&rig, "A", &board.serial)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_run_that_is_killed_again_and_again_still_ends() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let board = Assembly::sound(1);
    let run = start_until(&rig, &mut station, &board, begins("identity")).await?;
    for _ in 0..3 {
        rig.kill_station()?;
        rig.start_station()?;
        station = StationClient::connect(rig.station.clone()).await?;
        let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
        // Begins with the nest, which is busy with the run, unless that is over.
        events.message().await?.context("the station ended the stream of events")?;
    }
    let unit = line::result(&mut station, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    assert!(!unit.resumptions.is_empty());
    all_agree(&rig, &board, &unit)
}

/// The device has done all that it was asked for, and the station knows nothing of it.
#[tokio::test]
async fn a_device_that_took_its_bundle_is_not_given_another() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let board = keeping(Assembly::misbehaving(&rig, 1, SWALLOWS)?);
    let run = start_until(&rig, &mut station, &board, begins("provision")).await?;
    holds(&rig, &board, |holdings| holdings.factory_disabled).await?;
    let before = fs::read(storage(&rig, &board))?;
    let (unit, _) = after_a_crash(&mut rig, &run, |_| Ok(())).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    let [resumed] = &unit.resumptions[..] else { panic!("{:?}", unit.resumptions) };
    assert_eq!((resumed.left_in.as_str(), resumed.resumed_at.as_str()), ("provision", "tag"));
    assert_eq!(fs::read(storage(&rig, &board))?, before, "the device was changed");
    all_agree(&rig, &board, &unit)
}

#[tokio::test]
async fn a_device_that_took_its_bundle_in_silence_passes_without_a_crash_too() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (rig, mut station) = line(folder.path()).await?;
    let board = keeping(Assembly::misbehaving(&rig, 1, SWALLOWS)?);
    let run = start_until(&rig, &mut station, &board, begins("provision")).await?;
    let unit = line::result(&mut station, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    assert_eq!(unit.resumptions, []);
    all_agree(&rig, &board, &unit)
}

#[tokio::test]
async fn an_abort_that_was_answered_holds_through_a_crash() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    // Silent in a step that no abort breaks off: the station dies before it can do what it was asked.
    let board = keeping(Assembly::misbehaving(&rig, 1, SWALLOWS)?);
    let run = start_until(&rig, &mut station, &board, begins("provision")).await?;
    holds(&rig, &board, |holdings| holdings.factory_disabled).await?;
    let abort = AbortUnitRequest {
        command_id: Uuid::from_u128(7).to_string(),
        run_id: run.clone(),
        reason: "it smells".to_owned(),
    };
    station.abort_unit(abort.clone()).await?;
    let (unit, mut station) = after_a_crash(&mut rig, &run, |_| Ok(())).await?;
    assert_eq!(unit.outcome(), Outcome::Aborted, "{}", unit.reason);
    assert!(unit.reason.contains("stopped before tag: it smells"), "{}", unit.reason);
    let [resumed] = &unit.resumptions[..] else { panic!("{:?}", unit.resumptions) };
    assert_eq!((resumed.left_in.as_str(), resumed.resumed_at.as_str()), ("provision", "tag"));
    assert!(unit.tag.is_none() && unit.quarantine.is_none(), "{unit:?}");
    // The same command once more asks for nothing new.
    station.abort_unit(abort).await?;

    let all = WatchEventsRequest { after_sequence: Some(0), ..WatchEventsRequest::default() };
    let mut events = station.watch_events(all).await?.into_inner();
    let told = loop {
        let message = events.message().await?.context("the station ended the events")?;
        if let Some(Event::AbortAsked(asked)) = message.event {
            break (message.run_id, message.serial, message.nest, asked.reason);
        }
    };
    assert_eq!(told, (run, board.serial, "A".to_owned(), "it smells".to_owned()));
    Ok(())
}

/// The stock program forgets everything when it is started: a new key, a new certificate, the old one void.
#[tokio::test]
async fn a_device_that_forgot_its_bundle_gets_a_new_identity() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let board = Assembly::misbehaving(&rig, 1, &format!("at-first = true\n{SWALLOWS}"))?;
    let run = start_until(&rig, &mut station, &board, begins("provision")).await?;
    holds(&rig, &board, |holdings| holdings.factory_disabled).await?;
    let lost = store::read(&storage(&rig, &board))?;
    let (unit, _) = after_a_crash(&mut rig, &run, |_| Ok(())).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    let [resumed] = &unit.resumptions[..] else { panic!("{:?}", unit.resumptions) };
    assert_eq!((resumed.left_in.as_str(), resumed.resumed_at.as_str()), ("provision", "boot"));
    let certificate = unit.identity.as_ref().map(|identity| identity.certificate.as_slice());
    assert_ne!(certificate, lost.get(Kind::Certificate, "mbed.BootstrapDeviceCert"));
    all_agree(&rig, &board, &unit)
}

#[tokio::test]
async fn a_device_that_keeps_its_key_gets_the_same_certificate_again() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let board = keeping(Assembly::sound(1));
    let run = start_until(&rig, &mut station, &board, begins("provision")).await?;
    let issued = station.get_unit(GetUnitRequest { run_id: run.clone() }).await?.into_inner();
    let issued = issued.unit.and_then(|unit| unit.identity).context("a certificate was issued")?;
    let (unit, _) = after_a_crash(&mut rig, &run, |_| Ok(())).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    assert_eq!(unit.identity.as_ref(), Some(&issued));
    all_agree(&rig, &board, &unit)
}

#[tokio::test]
async fn another_board_in_the_nest_is_not_taken_for_the_one_that_was_left() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let board = Assembly::sound(1);
    let run = start_until(&rig, &mut station, &board, begins("provision")).await?;
    let (unit, mut station) =
        after_a_crash(&mut rig, &run, |rig| line::lay(rig, "A", &Assembly::sound(2))).await?;
    assert_eq!(unit.outcome(), Outcome::Error);
    let quarantine = unit.quarantine.context("the unit should be in quarantine")?;
    assert_eq!(quarantine.reason, "another board lies in the nest");
    assert!(quarantine.remedy.contains("release the unit"), "{}", quarantine.remedy);
    assert_eq!(store::read(&storage(&rig, &Assembly::sound(2)))?, Holdings::default());

    // It stays set aside, also after a restart, until somebody has seen to it.
    let refused =
        line::start(&mut station, "WO-1", "A", &board.serial).await.expect_err("it is in quarantine");
    let status = refused.downcast_ref::<tonic::Status>().context("the station refused it")?;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("another board lies in the nest"), "{}", status.message());
    rig.stop_station()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::start(&mut station, "WO-1", "A", &board.serial).await.expect_err("it is in quarantine still");

    let release = ReleaseUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        serial: board.serial.clone(),
        reason: "the right board was found, and its storage erased".to_owned(),
        reworked: false,
    };
    station.release_unit(release.clone()).await?;
    station.release_unit(release.clone()).await?;
    let other = ReleaseUnitRequest { command_id: Uuid::now_v7().to_string(), ..release };
    assert_eq!(station.release_unit(other).await.expect_err("it is released").code(), Code::NotFound);
    let unit = line::make_one(&rig, &mut station, "WO-1", "A", &board).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    Ok(())
}

#[tokio::test]
async fn a_run_whose_nest_is_gone_is_closed_with_the_reason() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut rig, mut station) = line(folder.path()).await?;
    let run = start_until(&rig, &mut station, &Assembly::sound(1), begins("provision")).await?;
    let rename = |rig: &Rig| {
        let file = rig.folder.join("station.toml");
        let text = fs::read_to_string(&file)?;
        Ok(fs::write(file, text.replace("name = \"A\"", "name = \"B\""))?)
    };
    let (unit, _) = after_a_crash(&mut rig, &run, rename).await?;
    assert_eq!(unit.outcome(), Outcome::Error);
    assert!(unit.reason.contains("nest A is gone"), "{}", unit.reason);
    assert!(unit.quarantine.is_some());
    Ok(())
}
