//! Bad links and odd controllers: whatever happens between a station and its controller, each result is in the
//! database exactly once, and in order.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use factory_hil_tests::{
    mes::{
        controller::Controller,
        link::{Link, Then, Weather},
        temper::{Acknowledges, Temper},
    },
    rig::free_address,
};
use factory_journal::{Journal, Options};
use factory_station::{
    line::controllers::Controllers,
    place::Place,
    record::Record,
    results::{Backlog, Uplink},
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

#[path = "../benches/made/result.rs"]
mod made;

// A controller is silent for 30 s before a station gives it up.
const PATIENCE: Duration = Duration::from_secs(150);
/// A second half follows while the first is on its way.
const RESULTS: u64 = 400;

/// A station that is nothing but its journal and its uplink.
struct Station {
    journal: Arc<Journal<Record>>,
    backlog: Backlog,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Station {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let journal = Arc::new(Journal::open(folder.join("journal"), Options::default())?);
        let backlog = Backlog::count(&journal)?;
        Ok(Self { journal, backlog, running: None })
    }

    fn start(&mut self, controller: SocketAddr) -> anyhow::Result<()> {
        let uplink = Uplink {
            station: "line-1".parse()?,
            controllers: Controllers::at(&[Place::Plain(format!("http://{controller}").parse()?)])?,
            journal: self.journal.clone(),
            backlog: self.backlog.clone(),
        };
        let stop = CancellationToken::new();
        self.running = Some((tokio::spawn(uplink.run(stop.clone())), stop));
        Ok(())
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        let (running, stop) = self.running.take().context("it runs")?;
        stop.cancel();
        Ok(running.await?)
    }

    async fn make(&self, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
        for number in numbers {
            let closed = made::closed(number);
            let ended = closed.ended;
            let sequence = self.journal.append(Record::RunClosed(Box::new(closed))).await?;
            self.backlog.closed(sequence, ended);
        }
        Ok(())
    }
}

/// Results go over this link to this controller; those that it leaves without an acknowledgement follow when both
/// are well again.
async fn check(weather: impl Fn(u64) -> Weather + Send + 'static, temper: Temper) -> anyhow::Result<u64> {
    let folder = tempfile::tempdir()?;
    let controller = Controller::new(&folder.path().join("results.db"))?;
    let acknowledges_all =
        matches!(temper.acknowledges, Acknowledges::Once | Acknowledges::Twice | Acknowledges::Backwards);
    controller.behave(temper);
    let address = free_address()?;
    let serving = tokio::spawn(controller.clone().serve(address));
    let mut station = Station::open(folder.path())?;
    station.make(0..RESULTS / 2).await?;
    let link = Link::open(address, weather).await?;
    station.start(link.address)?;
    station.make(RESULTS / 2..RESULTS).await?;

    if !acknowledges_all {
        // As far as it gets: a window, and no further.
        timeout(PATIENCE, controller.wait_for(32)).await.context("nothing arrives")??;
        station.stop().await?;
        controller.behave(Temper::default());
        station.start(link.address)?;
    }
    timeout(PATIENCE, station.backlog.delivered()).await.context("results still wait")?;
    station.stop().await?;
    serving.abort();

    let (mut kept, mut before) = (Vec::new(), 0);
    controller.store().results(|result| {
        assert!(result.sequence > before, "{} came after {before}", result.sequence);
        before = result.sequence;
        kept.push(result.unit.serial);
        Ok(())
    })?;
    let made: Vec<String> = (0..RESULTS).map(|number| format!("SN{number:06}")).collect();
    assert!(kept == made, "{} of {RESULTS} are kept", kept.len());
    assert_eq!(station.backlog.standing().results, 0);
    Ok(link.connections())
}

fn clear(_: u64) -> Weather {
    Weather::default()
}

#[tokio::test]
async fn over_a_link_that_breaks_at_any_byte_each_result_arrives_once_and_in_order() -> anyhow::Result<()> {
    // A result has about 1,700.
    let connections = check(|number| Weather::bad(number, 25_000), Temper::default()).await?;
    assert!(connections > 8, "it broke only {connections} times");
    Ok(())
}

#[tokio::test]
async fn over_a_link_that_breaks_to_a_controller_that_is_late_each_result_arrives_once() -> anyhow::Result<()>
{
    let temper = Temper { pace: Duration::from_millis(30), ..Temper::default() };
    let connections = check(|number| Weather::bad(number + 1_000, 50_000), temper).await?;
    assert!(connections > 5, "it broke only {connections} times");
    Ok(())
}

#[tokio::test]
async fn over_a_slow_link_each_result_arrives_once() -> anyhow::Result<()> {
    let slow = |_| Weather { delay: Duration::from_millis(15), ..Weather::default() };
    assert_eq!(check(slow, Temper::default()).await?, 1, "slow is not lost");
    Ok(())
}

#[tokio::test]
async fn a_connection_that_nobody_answers_is_given_up() -> anyhow::Result<()> {
    let silent = Weather { up: Some(0), down: Some(0), then: Then::Silence, ..Weather::default() };
    let connections =
        check(move |number| if number == 0 { silent } else { Weather::default() }, Temper::default());
    assert_eq!(connections.await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_falls_silent_halfway_is_given_up() -> anyhow::Result<()> {
    let falls_silent = Weather { up: Some(200_000), then: Then::Silence, ..Weather::default() };
    let weather = move |number| if number == 0 { falls_silent } else { Weather::default() };
    assert_eq!(check(weather, Temper::default()).await?, 2);
    Ok(())
}

#[tokio::test]
async fn acknowledgements_twice_out_of_order_behind_or_never_double_and_lose_nothing() -> anyhow::Result<()> {
    for acknowledges in
        [Acknowledges::Twice, Acknowledges::Backwards, Acknowledges::Behind(3), Acknowledges::Never]
    {
        let temper = Temper { acknowledges, ..Temper::default() };
        check(clear, temper.clone()).await.with_context(|| format!("{acknowledges:?}"))?;
        let bad = |number| Weather::bad(number + 2_000, 100_000);
        check(bad, temper).await.with_context(|| format!("{acknowledges:?} over a bad link"))?;
    }
    Ok(())
}
