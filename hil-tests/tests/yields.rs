//! What a station says of its yield, and when it does not test a unit again.

use std::path::Path;

use factory_hil_tests::{
    mes::line::{self, Assembly},
    rig::{Rig, free_address},
};
use factory_proto::station::{
    GetYieldsRequest, Outcome, ReleaseUnitRequest, Tries, station_client::StationClient,
};
use tonic::{Code, Status};
use uuid::Uuid;

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder")
}

fn release(serial: &str, reworked: bool) -> ReleaseUnitRequest {
    ReleaseUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        serial: serial.to_owned(),
        reason: "the contact was cleaned".to_owned(),
        reworked,
    }
}

#[tokio::test]
async fn a_unit_is_tested_so_often_and_yields_say_what_came_of_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut rig = Rig::build(folder.path(), programs(), &["A"], &format!("http://{}", free_address()?))?;
    rig.edit("recipes/sensor.toml", "attempts = 2", "attempts = 2\nretests = 1")?;
    rig.sign_images()?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    line::open(&rig, &mut station, "WO-1", 10).await?;

    let (good, mut bad) = (Assembly::sound(1), Assembly::sound(2));
    bad.faults.rail_3v3_mv = 3600;
    let nothing = station.release_unit(release("SN0001", false)).await.unwrap_err();
    assert_eq!((nothing.code(), nothing.message()), (Code::NotFound, NOTHING_TO_RELEASE));
    for (board, outcome) in [(&good, Outcome::Pass), (&bad, Outcome::Fail), (&bad, Outcome::Fail)] {
        let unit = line::make_one(&rig, &mut station, "WO-1", "A", board).await?;
        assert_eq!(unit.outcome(), outcome, "{}", unit.reason);
    }
    let refused = line::start(&mut station, "WO-1", "A", "SN0002").await.unwrap_err();
    let refused = refused.downcast::<Status>()?;
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, EXHAUSTED));

    // Also after a restart; released it is tested again, and reworked it is as good as new.
    assert!(rig.stop_station()?);
    rig.start_station()?;
    let mut station = StationClient::connect(rig.station.clone()).await?;
    let refused = line::start(&mut station, "WO-1", "A", "SN0002").await.unwrap_err();
    assert_eq!(refused.downcast::<Status>()?.message(), EXHAUSTED);
    station.release_unit(release("SN0002", false)).await?;
    assert_eq!(line::make_one(&rig, &mut station, "WO-1", "A", &bad).await?.outcome(), Outcome::Fail);
    station.release_unit(release("SN0002", true)).await?;
    bad.faults.rail_3v3_mv = good.faults.rail_3v3_mv;
    assert_eq!(line::make_one(&rig, &mut station, "WO-1", "A", &bad).await?.outcome(), Outcome::Pass);

    let order = |order: &str| GetYieldsRequest { work_order: order.to_owned(), ..Default::default() };
    let yields = station.get_yields(order("WO-1")).await?.into_inner();
    let kinds = [yields.units, yields.first, yields.retests, yields.reworks];
    let kinds = kinds.map(|tries| tries.map(|Tries { passed, runs }| (passed, runs)));
    assert_eq!(kinds, [Some((2, 2)), Some((1, 2)), Some((0, 2)), Some((1, 1))]);
    let [loss] = &yields.pareto[..] else { panic!("{:?}", yields.pareto) };
    assert_eq!(
        (loss.step.as_str(), loss.cause.as_str(), loss.runs, loss.units),
        ("self-test", "rail-3v3 beyond its limits", 3, 1)
    );
    assert!(loss.example.starts_with("rail-3v3 is 36"), "{}", loss.example);
    let whole = yields
        .cycle_times
        .iter()
        .find(|time| time.step.is_empty())
        .map(|time| (time.nest.as_str(), time.count));
    assert_eq!(whole, Some(("A", 2)));
    assert!(yields.bottleneck_share > 0.0 && !yields.bottleneck.is_empty());

    let empty = station.get_yields(order("WO-2")).await?.into_inner();
    assert_eq!((empty.first, empty.pareto.len()), (Some(Tries::default()), 0));
    let all = station.get_yields(order("")).await.unwrap_err();
    assert_eq!((all.code(), all.message()), (Code::InvalidArgument, ALL));
    Ok(())
}

const NOTHING_TO_RELEASE: &str = "unit SN0001 is not in quarantine at this station, and its last run did not fail: nothing keeps it from a start";
const EXHAUSTED: &str = "unit SN0002 failed, and was tested again 1 times without being changed, as often as its recipe \
                         allows; have an engineer see to it and release it";
const ALL: &str = "ended_from: is missing: give it, or a work_order";
