//! A full disk: new units are refused before running ones are harmed, and all goes on when space returns.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use factory_hil_tests::{
    mes::line::{self, Assembly},
    rig::{Rig, free_address},
};
use factory_proto::station::{DescribeStationRequest, Outcome, station_client::StationClient};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// A small filesystem of its own; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where nobody may mount.
    fn mount(path: &Path, size: &str) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(path)?;
        let options = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output()?;
        if !done.status.success() {
            println!("not tested: {}", String::from_utf8_lossy(&done.stderr).trim());
            return Ok(None);
        }
        Ok(Some(Self(path.to_owned())))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_new_units_lets_the_running_one_finish_and_recovers() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let programs =
        Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a program lies in a folder")?;
    let Some(disk) = SmallDisk::mount(&folder.path().join("journal"), "400m")? else { return Ok(()) };
    let mut rig = Rig::build(folder.path(), programs, &["A"], &format!("http://{}", free_address()?))?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 10).await?;

    // The unit that is under way when the disk fills up.
    line::lay(&rig, "A", &Assembly::sound(1))?;
    let run = line::start(&mut station, "WO-1", "A", "SN0001").await?;
    let filler = disk.0.join("somebody-elses");
    let fill = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "count=1000"])
        .arg(format!("of={}", filler.display()))
        .output()?;
    assert!(!fill.status.success(), "the disk should be full");
    let unit = line::result(&mut station, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    line::take_out(&rig, "A", "SN0001")?;

    line::lay(&rig, "A", &Assembly::sound(2))?;
    let refused = line::start(&mut station, "WO-1", "A", "SN0002").await.expect_err("there is no room");
    let status = refused.downcast_ref::<tonic::Status>().context("the station refused it")?;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("make space on it"), "{}", status.message());
    let told = station.describe_station(DescribeStationRequest {}).await?.into_inner();
    // How much is free may differ a moment later.
    let without_figures = |text: &str| text.replace(|letter: char| letter.is_ascii_digit(), "");
    assert_eq!(without_figures(&told.journal_trouble), without_figures(status.message()));

    // The station sees by itself that there is space again.
    fs::remove_file(filler)?;
    let channel = Endpoint::from_shared(rig.station.clone())?.connect().await?;
    let journal = HealthCheckRequest { service: "journal".to_owned() };
    let mut health = HealthClient::new(channel).watch(journal).await?.into_inner();
    while health.message().await?.context("the station ended the watch")?.status() != ServingStatus::Serving {
    }
    let run = line::start(&mut station, "WO-1", "A", "SN0002").await?;
    let unit = line::result(&mut station, &run).await?;
    assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
    drop(rig);
    Ok(())
}
