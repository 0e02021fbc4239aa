//! Two addresses of one MES, of which one after the other dies while results flow and questions are asked.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration, time::SystemTime};

use anyhow::Context as _;
use factory_hil_tests::{
    mes::{
        controller::Controller,
        temper::{Answers, Temper},
    },
    rig::free_address,
};
use factory_journal::{Journal, Options};
use factory_proto::outcome::Outcome;
use factory_station::{
    line::{
        controllers::Controllers,
        interlock::{self, Answer, Question},
    },
    place::Place,
    recipe::template::Values,
    record::{Findings, Record, RunClosed, RunId, RunOpened},
    results::{Backlog, Uplink},
};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::PATIENCE;

const RESULTS: usize = 300;
const DEADLINE: Duration = Duration::from_secs(5);

fn run(number: usize) -> anyhow::Result<RunOpened> {
    Ok(RunOpened {
        run: RunId::of_command(Uuid::from_u128(number as u128)),
        order: Some("WO-1".parse()?),
        serial: format!("SN{number:04}").parse()?,
        nest: "A".parse()?,
        recipe_digest: [0; 32],
        started: SystemTime::now(),
        values: Values::default(),
        allowed: None,
        golden: None,
    })
}

fn closed(number: usize) -> anyhow::Result<Record> {
    Ok(Record::RunClosed(Box::new(RunClosed {
        opened: run(number)?,
        ended: SystemTime::now(),
        outcome: Outcome::Pass,
        stopped: None,
        findings: Findings::default(),
        quarantine: None,
    })))
}

fn question(number: usize) -> anyhow::Result<Question> {
    let (run, recipe, station) = (run(number)?, "sensor".parse()?, "line-1".parse()?);
    Ok(Question { station, run, recipe, earlier: 0, newest: Vec::new() })
}

fn addresses() -> anyhow::Result<[SocketAddr; 2]> {
    Ok([free_address()?, free_address()?])
}

fn controllers(addresses: &[SocketAddr]) -> anyhow::Result<Controllers> {
    let place = |address: &SocketAddr| Ok(Place::Plain(format!("http://{address}").parse()?));
    Ok(Controllers::at(&addresses.iter().map(place).collect::<anyhow::Result<Vec<_>>>()?)?)
}

/// Returns when somebody listens there.
async fn listening(address: SocketAddr) -> anyhow::Result<()> {
    let knock = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, knock).await.context("nobody listens")
}

/// A controller with its file in this folder.
fn controller(folder: &Path, name: &str, temper: Temper) -> anyhow::Result<Controller> {
    let controller = Controller::new(&folder.join(name))?;
    controller.behave(temper);
    Ok(controller)
}

#[tokio::test]
async fn results_and_questions_go_on_over_whichever_of_two_addresses_lives() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let addresses = addresses()?;
    let temper = Temper { pace: Duration::from_millis(5), ..Temper::default() };
    let mes = controller(folder.path(), "results.jsonl", temper)?;
    let serve = |which: usize| tokio::spawn(mes.clone().serve(addresses[which]));
    let mut serving = [serve(0), serve(1)];
    listening(addresses[0]).await?;
    listening(addresses[1]).await?;
    let controllers = controllers(&addresses)?;

    let journal = Arc::new(Journal::open(folder.path().join("state"), Options::default())?);
    let backlog = Backlog::count(&journal)?;
    let stop = CancellationToken::new();
    let uplink = Uplink {
        station: "line-1".parse()?,
        controllers: controllers.clone(),
        journal: journal.clone(),
        backlog: backlog.clone(),
    };
    let uplink = tokio::spawn(uplink.run(stop.clone()));
    let asking: JoinHandle<anyhow::Result<usize>> = tokio::spawn({
        let (controllers, stop) = (controllers.clone(), stop.clone());
        async move {
            let mut asked = 0;
            while !stop.is_cancelled() {
                asked += 1;
                let answer = interlock::ask(controllers.clone(), DEADLINE, question(asked)?).await;
                anyhow::ensure!(matches!(answer, Answer::Allowed { .. }), "question {asked}: {answer:?}");
            }
            Ok(asked)
        }
    });
    let making = tokio::spawn({
        let (journal, backlog) = (journal.clone(), backlog.clone());
        async move {
            for number in 1..=RESULTS {
                let sequence = journal.append(closed(number)?).await?;
                backlog.closed(sequence, SystemTime::now());
            }
            anyhow::Ok(())
        }
    });

    for round in 1..=6 {
        let wanted = round * RESULTS / 8;
        let kept = mes.wait_until(|count| count.kept >= wanted);
        timeout(PATIENCE, kept).await.with_context(|| format!("round {round}: results wait"))??;
        let used = controllers.in_use().address;
        let which = usize::from(used != format!("http://{}/", addresses[0]));
        serving[which].abort();
        let _ = (&mut serving[which]).await;
        // Nobody is told: what is under way breaks.
        let moved = controllers.in_use();
        if moved.address == used {
            timeout(PATIENCE, controllers.left(&moved)).await.context("nobody noticed")?;
        }
        serving[which] = serve(which);
        listening(addresses[which]).await?;
    }
    making.await??;
    timeout(PATIENCE, mes.wait_for(RESULTS)).await.context("results wait")??;
    timeout(PATIENCE, backlog.delivered()).await.context("results wait for an acknowledgement")?;
    stop.cancel();
    uplink.await?;
    let asked = asking.await??;
    assert!(asked > 6, "questions were asked all the time: {asked}");
    let serials: Vec<_> = mes.results().into_iter().map(|unit| unit.serial).collect();
    assert_eq!(serials, (1..=RESULTS).map(|number| format!("SN{number:04}")).collect::<Vec<_>>());
    assert_eq!(mes.doubled_runs(), [""; 0]);
    assert!(mes.count().calls >= 7, "each death cost a call: {:?}", mes.count());
    serving.iter().for_each(JoinHandle::abort);
    Ok(())
}

/// Of "1.5s" or "999.9ms".
fn seconds(duration: &str) -> f64 {
    let (number, unit) = match duration.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (duration.trim_end_matches('s'), 1.0),
    };
    number.parse::<f64>().unwrap_or_else(|_| panic!("{duration}")) * unit
}

#[tokio::test]
async fn a_controller_that_takes_questions_and_says_nothing_is_left_for_the_next_in_time()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let addresses = addresses()?;
    let silent = Temper { answers: Answers::Never, ..Temper::default() };
    let silent = controller(folder.path(), "silent.jsonl", silent)?;
    let good = controller(folder.path(), "good.jsonl", Temper::default())?;
    let serving =
        [tokio::spawn(silent.clone().serve(addresses[0])), tokio::spawn(good.clone().serve(addresses[1]))];
    let controllers = controllers(&addresses)?;
    for address in addresses {
        listening(address).await?;
    }
    let deadline = Duration::from_secs(2);
    let allowed = Answer::Allowed { controller: format!("http://{}/", addresses[1]) };
    assert_eq!(interlock::ask(controllers.clone(), deadline, question(1)?).await, allowed);
    // From then on the silent one is left alone.
    let asked = silent.gate().questions().len();
    for number in 2..5 {
        assert_eq!(interlock::ask(controllers.clone(), deadline, question(number)?).await, allowed);
    }
    assert_eq!(silent.gate().questions().len(), asked);
    let trouble: Vec<_> = controllers.describe().into_iter().map(|it| it.trouble).collect();
    assert!(trouble[0].is_some() && trouble[1].is_none(), "{trouble:?}");

    // When both are silent, both have had their share of the time, and no more.
    good.behave(Temper { answers: Answers::Never, ..Temper::default() });
    let begun = std::time::Instant::now();
    let answer = interlock::ask(controllers.clone(), deadline, question(9)?).await;
    assert!(begun.elapsed() >= deadline, "{:?}", begun.elapsed());
    let Answer::Away(why) = answer else { panic!("{answer:?}") };
    // Whichever was asked first.
    let share = |address| {
        let told = format!("http://{address}/: no answer in ");
        let share = why.split("; ").find_map(|trouble| trouble.strip_prefix(&told));
        seconds(share.unwrap_or_else(|| panic!("{why}")))
    };
    assert!(addresses.into_iter().map(share).sum::<f64>() <= 2.0, "{why}");
    serving.iter().for_each(JoinHandle::abort);
    Ok(())
}
