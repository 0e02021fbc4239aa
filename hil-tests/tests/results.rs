//! Results on their way to controllers of every temper: in order, none lost, none twice, whatever they answer.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Context as _;
use factory_hil_tests::{
    mes::{
        controller::{Controller, Count},
        line::{self, Assembly},
        temper::{Acknowledges, Temper},
    },
    rig::{Rig, free_address},
};
use factory_proto::station::{
    DescribeStationRequest, DescribeStationResponse, station_client::StationClient,
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, transport::Channel};

// Ten times what it takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder")
}

/// A line with one nest that has made units SN0001, SN0002, ... while its controller was away.
struct Line {
    rig: Rig,
    station: StationClient<Channel>,
    address: SocketAddr,
}

impl Line {
    async fn with_results(folder: &Path, units: u32) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut rig = Rig::build(folder, programs(), &["A"], &format!("http://{address}"))?;
        rig.start_signer()?;
        rig.start_station()?;
        let mut station = StationClient::connect(rig.station.clone()).await?;
        line::open(&rig, &mut station, "WO-1", 100).await?;
        let mut line = Self { rig, station, address };
        for number in 1..=units {
            line.make(number).await?;
        }
        Ok(line)
    }

    async fn make(&mut self, number: u32) -> anyhow::Result<()> {
        line::make_one(&self.rig, &mut self.station, "WO-1", "A", &Assembly::sound(number)).await?;
        Ok(())
    }

    /// A controller that keeps its results in the line's folder.
    fn controller(&self, temper: Temper) -> anyhow::Result<Controller> {
        let controller = Controller::new(&self.rig.folder.join("results.db"))?;
        controller.behave(temper);
        Ok(controller)
    }

    fn serve(&self, controller: &Controller) -> JoinHandle<anyhow::Result<()>> {
        tokio::spawn(controller.clone().serve(self.address))
    }

    async fn describe(&mut self) -> anyhow::Result<DescribeStationResponse> {
        Ok(self.station.describe_station(DescribeStationRequest {}).await?.into_inner())
    }

    /// Waits until the station knows that no result waits.
    async fn delivered(&mut self) -> anyhow::Result<DescribeStationResponse> {
        timeout(PATIENCE, self.until_delivered()).await.context("results still wait")?
    }

    async fn until_delivered(&mut self) -> anyhow::Result<DescribeStationResponse> {
        loop {
            let description = self.describe().await?;
            if description.unacknowledged_results == 0 {
                assert!(description.oldest_unacknowledged.is_none());
                return Ok(description);
            }
            tokio::task::yield_now().await;
        }
    }

    /// A new station does not know how long the old one wanted to wait before it calls its controller again.
    async fn kill_and_start(&mut self) -> anyhow::Result<()> {
        self.rig.kill_station()?;
        self.start().await
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        self.rig.start_station()?;
        self.station = StationClient::connect(self.rig.station.clone()).await?;
        Ok(())
    }
}

fn serials(controller: &Controller) -> Vec<String> {
    controller.results().into_iter().map(|unit| unit.serial).collect()
}

#[tokio::test]
async fn a_refused_result_is_set_aside_and_the_rest_goes_on() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with_results(folder.path(), 3).await?;
    let waiting = line.describe().await?;
    assert_eq!(waiting.unacknowledged_results, 3);
    assert!(waiting.oldest_unacknowledged.is_some());

    let controller = line.controller(Temper { refuses: ["SN0002".into()].into(), ..Temper::default() })?;
    let serving = line.serve(&controller);
    let check = |description: DescribeStationResponse| {
        let [refused] = &description.refused_results[..] else { panic!("{:?}", description.refused_results) };
        assert_eq!(refused.reason, "no SN0002 is known");
        refused.run_id.clone()
    };
    let run = check(line.delivered().await?);
    assert_eq!(serials(&controller), ["SN0001", "SN0003"]);

    // It stays aside, and is known after a restart.
    let received = controller.count().received;
    assert!(line.rig.stop_station()?);
    line.start().await?;
    line.make(4).await?;
    controller.wait_for(3).await?;
    assert_eq!(check(line.delivered().await?), run);
    assert_eq!(serials(&controller), ["SN0001", "SN0003", "SN0004"]);
    let heads = controller.count().heads;
    assert_eq!(controller.count().received - heads, received + 1, "nothing was sent again");
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn a_result_that_ends_the_stream_is_found_and_set_aside() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with_results(folder.path(), 4).await?;
    let ends_at = Some(("SN0002".to_owned(), Code::InvalidArgument));
    let controller = line.controller(Temper { ends_at, ..Temper::default() })?;
    let serving = line.serve(&controller);

    let description = line.delivered().await?;
    let [refused] = &description.refused_results[..] else { panic!("{:?}", description.refused_results) };
    assert!(refused.reason.ends_with("result of SN0002 cannot be taken"), "{}", refused.reason);
    assert_eq!(serials(&controller), ["SN0001", "SN0003", "SN0004"]);
    assert!(controller.count().calls >= 3, "once among others and twice alone");
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn a_result_at_which_the_controller_stumbles_is_never_set_aside() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with_results(folder.path(), 2).await?;
    for code in [Code::Internal, Code::Unimplemented] {
        line.kill_and_start().await?;
        let ends_at = Some(("SN0001".to_owned(), code));
        let controller = line.controller(Temper { ends_at, ..Temper::default() })?;
        let serving = line.serve(&controller);
        controller.wait_until(|count| count.calls >= 4).await?;
        let description = line.describe().await?;
        assert_eq!((description.unacknowledged_results, description.refused_results.len()), (2, 0), "{code}");
        serving.abort();
        let _ = serving.await;
    }
    line.kill_and_start().await?;
    let controller = line.controller(Temper::default())?;
    let serving = line.serve(&controller);
    line.delivered().await?;
    assert_eq!(serials(&controller), ["SN0001", "SN0002"]);
    serving.abort();
    Ok(())
}

/// What a controller of this temper has in the end, if it is lost once in the middle of a window.
struct Had {
    serials: Vec<String>,
    doubled_runs: Vec<String>,
    count: Count,
}

async fn after_a_lost_connection(temper: Temper) -> anyhow::Result<Had> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with_results(folder.path(), 3).await?;
    let controller = line.controller(Temper { acknowledges: Acknowledges::Never, ..temper.clone() })?;
    let serving = line.serve(&controller);
    controller.wait_for(3).await?;
    assert_eq!(line.describe().await?.unacknowledged_results, 3);
    serving.abort();
    let _ = serving.await;

    controller.behave(temper);
    let serving = line.serve(&controller);
    line.make(4).await?;
    line.delivered().await?;
    serving.abort();
    let (serials, doubled_runs) = (serials(&controller), controller.doubled_runs());
    Ok(Had { serials, doubled_runs, count: controller.count() })
}

#[tokio::test]
async fn what_was_under_way_when_the_line_was_lost_comes_again_and_is_kept_once() -> anyhow::Result<()> {
    let Had { serials, doubled_runs, count } = after_a_lost_connection(Temper::default()).await?;
    assert_eq!(serials, ["SN0001", "SN0002", "SN0003", "SN0004"]);
    assert_eq!(doubled_runs, [""; 0]);
    assert!(count.received >= count.kept + 3, "the three were sent again: {count:?}");
    Ok(())
}

/// The negative control: without it, nothing would tell that the tests could see a doubled result.
#[tokio::test]
async fn a_controller_that_ignores_the_key_has_results_twice() -> anyhow::Result<()> {
    let temper = Temper { ignores_keys: true, ..Temper::default() };
    let Had { serials, doubled_runs, .. } = after_a_lost_connection(temper).await?;
    assert_eq!(serials, ["SN0001", "SN0001", "SN0002", "SN0002", "SN0003", "SN0003", "SN0004"]);
    assert_eq!(doubled_runs.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_controller_that_is_slow_or_repeats_itself_gets_everything_once_and_in_order() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut line = Line::with_results(folder.path(), 2).await?;
    let pace = Duration::from_millis(200);
    let controller =
        line.controller(Temper { pace, acknowledges: Acknowledges::Twice, ..Temper::default() })?;
    let serving = line.serve(&controller);
    line.make(3).await?;
    line.make(4).await?;
    line.delivered().await?;
    assert_eq!(serials(&controller), ["SN0001", "SN0002", "SN0003", "SN0004"]);
    assert_eq!(controller.count().calls, 1, "a slow controller is waited for");
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn an_absurd_answer_costs_the_connection_and_no_result() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with_results(folder.path(), 1).await?;
    for (acknowledges, says) in
        [(Acknowledges::Absurdly, "acknowledged report"), (Acknowledges::RefusesAbsurdly, "refused report")]
    {
        line.kill_and_start().await?;
        let controller = line.controller(Temper { acknowledges, ..Temper::default() })?;
        let serving = line.serve(&controller);
        controller.wait_until(|count| count.calls >= 2).await?;
        let description = line.describe().await?;
        assert_eq!((description.unacknowledged_results, description.refused_results.len()), (1, 0));
        let log = std::fs::read_to_string(folder.path().join("station.log"))?;
        assert!(log.contains(&format!("the controller {says}")), "{log}");
        serving.abort();
        let _ = serving.await;
    }
    line.kill_and_start().await?;
    let controller = line.controller(Temper::default())?;
    let serving = line.serve(&controller);
    line.delivered().await?;
    assert_eq!(serials(&controller), ["SN0001"]);
    serving.abort();
    Ok(())
}
