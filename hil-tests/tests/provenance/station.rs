//! The real station: its heads reach the controller, and its state folder cannot be put back unnoticed.

use std::{fs, path::Path};

use factory_hil_tests::{
    mes::{
        controller::Controller,
        line::{self, Assembly},
        store::export,
    },
    rig::{Rig, free_address},
};
use factory_proto::station::{DescribeStationRequest, station_client::StationClient};

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{notary::SignerDaemon, programs, stationctl};

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        // The index is made anew from the log.
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().expect("an entry has a name")))?;
        }
    }
    Ok(())
}

/// Units without a certificate, for this signer signs heads only; each run is closed as ERROR all the same.
async fn make(rig: &Rig, units: std::ops::RangeInclusive<u32>) -> anyhow::Result<()> {
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(rig, &mut station, "WO-1", 10).await?;
    for number in units {
        line::make_one(rig, &mut station, "WO-1", "A", &Assembly::sound(number)).await?;
    }
    Ok(())
}

// The signer must answer while this test waits for a process.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_was_put_back_is_noticed_by_station_and_mes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let address = free_address()?;
    let mut rig = Rig::build(folder.path(), programs(), &["A"], &format!("http://{address}"))?;
    let signer = SignerDaemon::new();
    let _signing = signer.serve(&path("signer.sock"));
    signer.signer.write_certificate(&path("provenance.pem"));
    let controller = Controller::new(&path("results.db"))?;
    let serving = tokio::spawn(controller.clone().serve(address));

    rig.start_station()?;
    make(&rig, 1..=1).await?;
    assert!(rig.stop_station()?);
    copy(&path("journal"), &path("old"))?;
    rig.start_station()?;
    make(&rig, 2..=2).await?;
    assert!(rig.stop_station()?);
    // The last head was delivered before the station ended.
    assert_eq!(controller.results().len(), 2);
    let heads = export::heads(controller.store(), &path("heads"))?;
    assert_eq!(heads.len(), controller.heads().len());
    let newest = heads.last().expect("there are heads").display().to_string();
    let verify = |state: &str| {
        let (state, certificate) = (path(state).display().to_string(), path("provenance.pem"));
        let certificate = certificate.display().to_string();
        stationctl(&["verify", "--state", &state, "--certificate", &certificate, "--head", &newest])
    };
    let (sound, said) = verify("journal");
    assert!(sound && said.contains("2 runs closed") && said.contains("nothing is signed yet: 0"), "{said}");

    // Somebody puts the old folder back.
    let (sound, said) = verify("old");
    assert!(!sound && said.contains("rolled back as a whole"), "{said}");
    fs::remove_dir_all(path("journal"))?;
    copy(&path("old"), &path("journal"))?;
    rig.start_station()?;
    make(&rig, 3..=4).await?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let described = station.describe_station(DescribeStationRequest {}).await?.into_inner();
    assert!(described.provenance_trouble.contains("was rolled back"), "{:?}", described.provenance_trouble);
    let channel = tonic::transport::Endpoint::from_shared(rig.station.clone())?.connect().await?;
    let request = HealthCheckRequest { service: "provenance".to_owned() };
    let health = HealthClient::new(channel).check(request).await?.into_inner();
    assert_eq!(health.status(), ServingStatus::NotServing);
    assert!(rig.stop_station()?);
    let (sound, said) = verify("journal");
    assert!(!sound && said.contains("a head from elsewhere"), "{said}");
    serving.abort();
    Ok(())
}
