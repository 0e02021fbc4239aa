//! The controller is asked before a unit starts: what it refuses, when it is silent, when there are two of it.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use factory_hil_tests::{
    mes::{
        allowance::Treasury,
        controller::Controller,
        line::{self, Assembly},
        temper::{Answers, Temper},
    },
    rig::{ALLOWANCES, Rig, STATION, free_address},
};
use factory_proto::station::{
    AbortUnitRequest, DescribeStationRequest, DescribeStationResponse, GetUnitRequest, ListUnitsRequest,
    LoadOfflineBudgetRequest, OfflineBudget, Outcome, StartUnitRequest, StartUnitResponse, Unit, Validation,
    WatchEventsRequest, station_client::StationClient, watch_events_response::Event,
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Request, Response, Status, transport::Channel};
use uuid::Uuid;

#[path = "interlock/clock.rs"]
mod clock;
#[path = "interlock/failover.rs"]
mod failover;
#[path = "interlock/meanwhile.rs"]
mod meanwhile;
#[path = "interlock/tls.rs"]
mod tls;

// Ten times what it takes.
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A line with one nest and a controller, and no allowance but what a test gives it.
struct Line {
    rig: Rig,
    station: StationClient<Channel>,
    controller: Controller,
    address: SocketAddr,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl Line {
    /// With these replacements in its station file, and an order for so many units.
    async fn with(folder: &Path, changes: &[(&str, &str)], quantity: u32) -> anyhow::Result<Self> {
        let programs = Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a folder")?;
        let address = free_address()?;
        let mut rig = Rig::build(folder, programs, &["A"], &format!("http://{address}"))?;
        rig.allowance = 0;
        for (from, to) in changes {
            rig.edit("station.toml", from, to)?;
        }
        let controller = Controller::new(&folder.join("results.jsonl"))?;
        let serving = tokio::spawn(controller.clone().serve(address));
        rig.start_signer()?;
        rig.start_station()?;
        let mut station = StationClient::connect(rig.station.clone()).await?;
        line::open(&rig, &mut station, "WO-1", quantity).await?;
        Ok(Self { rig, station, controller, address, serving })
    }

    async fn restart(&mut self, kill: bool) -> anyhow::Result<()> {
        if kill {
            self.rig.kill_station()?;
        } else {
            assert!(self.rig.stop_station()?);
        }
        self.rig.start_station()?;
        self.station = StationClient::connect(self.rig.station.clone()).await?;
        Ok(())
    }

    /// Makes a sound unit.
    async fn make(&mut self, number: u32) -> anyhow::Result<Unit> {
        let made =
            line::make_one(&self.rig, &mut self.station, "WO-1", "A", &Assembly::sound(number)).await?;
        assert_eq!(made.outcome(), Outcome::Pass, "{}", made.reason);
        Ok(made)
    }

    /// Starts a unit that does not lie in the nest.
    async fn start(&mut self, number: u32) -> Result<StartUnitResponse, Status> {
        self.station.start_unit(start(number)).await.map(Response::into_inner)
    }

    async fn describe(&mut self) -> anyhow::Result<DescribeStationResponse> {
        Ok(self.station.describe_station(DescribeStationRequest {}).await?.into_inner())
    }

    async fn budget(&mut self) -> anyhow::Result<OfflineBudget> {
        self.describe().await?.offline_budget.context("a station tells its budget")
    }

    /// The id of what is in the nest, run or not yet; empty when it is free.
    async fn in_nest(&mut self) -> anyhow::Result<String> {
        Ok(self.describe().await?.nests.swap_remove(0).run_id)
    }

    /// Waits until the nest is free.
    async fn free(&mut self) -> anyhow::Result<()> {
        let mut events = self.station.watch_events(WatchEventsRequest::default()).await?.into_inner();
        while !self.in_nest().await?.is_empty() {
            events.message().await?.context("the station ended the stream of events")?;
        }
        Ok(())
    }

    fn treasury(&self) -> anyhow::Result<Treasury> {
        Treasury::open(&self.rig.folder.join(format!("{ALLOWANCES}.key")))
    }

    async fn load(&mut self, allowance: &str) -> Result<OfflineBudget, Status> {
        let request = LoadOfflineBudgetRequest {
            command_id: Uuid::now_v7().to_string(),
            allowance: allowance.to_owned(),
        };
        let answer = self.station.load_offline_budget(request).await?.into_inner();
        answer.offline_budget.ok_or_else(|| Status::internal("an answer has a budget"))
    }
}

fn start(number: u32) -> StartUnitRequest {
    StartUnitRequest {
        command_id: Uuid::from_u128(number.into()).to_string(),
        work_order: "WO-1".to_owned(),
        serial: format!("SN{number:04}"),
        nest: "A".to_owned(),
        values: [("color".to_owned(), "red".to_owned())].into(),
    }
}

/// A call was refused, and said all of this.
fn refused<T>(answer: Result<T, Status>, code: Code, parts: &[&str]) {
    let Err(status) = answer else { panic!("it was not refused with {code:?}") };
    assert_eq!(status.code(), code, "{}", status.message());
    for part in parts {
        assert!(status.message().contains(part), "{:?} does not say {part:?}", status.message());
    }
}

#[tokio::test]
async fn a_unit_that_the_controller_refuses_is_not_begun_and_everybody_is_told_why() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with(folder.path(), &[], 10).await?;
    let objection = |about, reason: &str| vec![(about, reason.to_owned())];
    let objects = [
        ("SN0001", objection(Validation::Route, "it was not assembled")),
        ("SN0002", objection(Validation::Revision, "revision C is to be made")),
        ("SN0003", objection(Validation::Status, "it is on hold")),
        ("SN0004", [objection(Validation::Retest, "enough"), objection(Validation::Route, "lost")].concat()),
    ];
    let objects = objects.map(|(serial, objections)| (serial.to_owned(), objections)).into();
    line.controller.behave(Temper { objects, ..Temper::default() });
    let expected = [
        vec!["ROUTE: it was not assembled"],
        vec!["REVISION: revision C is to be made"],
        vec!["STATUS: it is on hold"],
        vec!["ROUTE: lost", "RETEST: enough"],
    ];

    let mut events = line.station.watch_events(WatchEventsRequest::default()).await?.into_inner();
    for (number, reasons) in (1..).zip(&expected) {
        let answer = line.start(number).await;
        refused(answer, Code::FailedPrecondition, &[&reasons.join("; "), &line.address.to_string()]);
        let told = loop {
            let event = events.message().await?.context("the station ended the stream of events")?;
            if let Some(Event::UnitRefused(told)) = event.event {
                break told;
            }
        };
        assert_eq!((&told.serial, &told.reasons), (&format!("SN{number:04}"), &to_texts(reasons)));
        refused(
            line.station.get_unit(GetUnitRequest { run_id: told.run_id }).await,
            Code::NotFound,
            &["knows no run"],
        );
    }
    let question = line.controller.gate().questions().swap_remove(0);
    assert_eq!(
        (question.station.as_str(), question.nest.as_str(), question.serial.as_str()),
        (STATION, "A", "SN0001")
    );
    assert_eq!((question.recipe_digest.len(), question.validations.len()), (32, 4));
    assert_eq!((question.earlier_runs, question.values["color"].as_str()), (0, "red"));

    // It is kept, whatever becomes of the station.
    for kill in [false, true] {
        let kept = line.describe().await?.refused_units;
        let kept: Vec<_> = kept.into_iter().rev().map(|unit| unit.reasons).collect();
        assert_eq!(kept, expected.each_ref().map(|reasons| to_texts(reasons)));
        let runs = line.station.list_units(ListUnitsRequest::default()).await?.into_inner();
        assert_eq!(runs.units, []);
        line.restart(kill).await?;
    }

    // When that is seen to, the same command starts it; late, and it says who allowed it.
    line.controller
        .behave(Temper { answers: Answers::After(Duration::from_millis(300)), ..Temper::default() });
    let made = line.make(1).await?;
    assert_eq!(made.validated_by, format!("http://{}/", line.address));
    assert_eq!(made.offline_allowance, "");
    line.controller.wait_for(1).await?;
    assert_eq!(line.controller.results()[0].validated_by, made.validated_by);
    line.serving.abort();
    Ok(())
}

fn to_texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_controller_is_told_of_earlier_runs_and_may_say_that_it_is_enough() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with(folder.path(), &[], 10).await?;
    line.controller.behave(Temper { failures: Some(0), ..Temper::default() });
    let mut board = Assembly::sound(1);
    board.faults.rail_3v3_mv = 3720;
    let failed = line::make_one(&line.rig, &mut line.station, "WO-1", "A", &board).await?;
    assert_eq!(failed.outcome(), Outcome::Fail);
    refused(line.start(1).await, Code::FailedPrecondition, &["RETEST: it has failed 1 times"]);
    let question = line.controller.gate().questions().pop().context("it was asked")?;
    let [earlier] = &question.newest_runs[..] else { panic!("{:?}", question.newest_runs) };
    assert_eq!((question.earlier_runs, &earlier.run_id), (1, &failed.run_id));
    assert_eq!((earlier.outcome(), earlier.failing_step.as_str()), (Outcome::Fail, "self-test"));
    line.serving.abort();
    Ok(())
}

#[tokio::test]
async fn while_the_controller_is_silent_units_start_on_the_budget_until_it_is_used_up() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let changes = [("deadline = \"5s\"", "deadline = \"300ms\""), ("drain =", "heartbeat = \"1s\"\ndrain =")];
    let mut line = Line::with(folder.path(), &changes, 10).await?;
    line.controller.behave(Temper { answers: Answers::Never, ..Temper::default() });
    let silent = format!("http://{}/: no answer in", line.address);
    let none = "this station has no offline allowance";
    refused(line.start(9).await, Code::FailedPrecondition, &[&silent, none]);
    assert_eq!(line.in_nest().await?, "");

    // The next heartbeat brings an allowance; later ones bring it again, and it counts once.
    let allowance = line.treasury()?.issue(STATION, 2, SystemTime::now(), HOUR)?;
    let temper = Temper { answers: Answers::Never, allowance: Some(allowance), ..Temper::default() };
    line.controller.behave(temper.clone());
    let gate = line.controller.gate().clone();
    let left = |left| {
        let gate = gate.clone();
        async move {
            let told = gate.beaten(|beat| {
                beat.offline_budget.as_ref().is_some_and(|it| it.units == 2 && it.units_left == left)
            });
            timeout(PATIENCE, told).await.context("no heartbeat says so")
        }
    };
    let beat = left(2).await?;
    assert_eq!((beat.station.as_str(), beat.nests.len()), (STATION, 1));
    assert_eq!(beat.configuration_digest.len(), 32);

    let first = line.make(1).await?;
    let id = line.budget().await?.allowance;
    assert_eq!((first.validated_by.as_str(), first.offline_allowance.as_str()), ("", id.as_str()));
    left(1).await?;
    line.restart(true).await?;
    assert_eq!(line.budget().await?.units_left, 1);
    line.make(2).await?;
    assert_eq!(line.budget().await?.units_left, 0);
    for kill in [false, true] {
        let used_up = format!("all 2 units of offline allowance {id} are used up");
        refused(
            line.start(3).await,
            Code::FailedPrecondition,
            &[&silent, &used_up, "`stationctl budget load`"],
        );
        line.restart(kill).await?;
        left(0).await?;
    }

    // It is back, and asked again.
    line.controller.behave(Temper { answers: Answers::AtOnce, ..temper });
    let made = line.make(3).await?;
    assert_eq!((made.validated_by.is_empty(), made.offline_allowance.as_str()), (false, ""));
    line.controller.wait_for(3).await?;
    let offline: Vec<_> =
        line.controller.results().into_iter().map(|unit| unit.offline_allowance == id).collect();
    assert_eq!(offline, [true, true, false]);
    line.serving.abort();
    Ok(())
}

#[tokio::test]
async fn an_allowance_that_is_none_for_here_and_now_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with(folder.path(), &[], 10).await?;
    let (mes, now) = (line.treasury()?, SystemTime::now());
    let brand_owner = Treasury::open(&line.rig.folder.join("orders.key"))?;
    for (allowance, says) in [
        ("rubbish".to_owned(), "the allowance is no JWS in compact form"),
        (line.rig.sign_order("WO-1", 10)?, "must have the header"),
        (brand_owner.issue(STATION, 5, now, HOUR)?, "is not signed by"),
        (mes.issue("other-line", 5, now, HOUR)?, "is for station other-line, this is demo-line"),
        (mes.issue(STATION, 5, now - 2 * HOUR, HOUR)?, "the allowance expired at"),
        // What a station sees whose clock was set back.
        (mes.issue(STATION, 5, now + HOUR, HOUR)?, "see to the clocks of station and MES"),
        (mes.issue(STATION, 5, now, 999 * HOUR)?, "lies more than 31 days after"),
        (mes.issue(STATION, 0, now, HOUR)?, "`units` that is not 1 to 100000"),
    ] {
        refused(line.load(&allowance).await, Code::FailedPrecondition, &[says]);
        let budget = line.budget().await?;
        assert_eq!((budget.units_left, budget.allowance.as_str()), (0, ""));
        assert!(budget.trouble.contains(says), "{}", budget.trouble);
    }
    let older = mes.issue(STATION, 9, now - HOUR / 2, HOUR)?;
    let newer = mes.issue(STATION, 5, now, HOUR)?;
    assert_eq!(line.load(&older).await?.units_left, 9);
    for _ in 0..2 {
        let budget = line.load(&newer).await?;
        assert_eq!((budget.units_left, budget.trouble.as_str()), (5, ""));
        refused(
            line.load(&older).await,
            Code::FailedPrecondition,
            &["not after the one that this station had"],
        );
        line.restart(true).await?;
    }
    line.serving.abort();

    line.rig.edit("station.toml", &format!("offline-budget = {{ key = \"{ALLOWANCES}.pem\" }}"), "")?;
    line.restart(false).await?;
    refused(line.load(&newer).await, Code::FailedPrecondition, &["the station file has no `offline-budget`"]);
    Ok(())
}

#[tokio::test]
async fn a_controller_that_knows_no_interlock_is_named_and_what_to_do() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with(folder.path(), &[], 10).await?;
    let allowance = line.treasury()?.issue(STATION, 5, SystemTime::now(), HOUR)?;
    line.load(&allowance).await?;
    line.controller.behave(Temper { answers: Answers::With(Code::Unimplemented), ..Temper::default() });
    let says =
        [&format!("http://{}/ does not serve ValidateUnit", line.address), "`interlock.demanded = false`"];
    refused(line.start(1).await, Code::FailedPrecondition, &says);
    assert_eq!(line.budget().await?.units_left, 5, "the budget is for a controller that is away");

    // What it answers is an answer; what says that it cannot is none.
    for (code, left) in [(Code::NotFound, 5), (Code::PermissionDenied, 5), (Code::Internal, 4)] {
        line.controller.behave(Temper { answers: Answers::With(code), ..Temper::default() });
        match line.start(1).await {
            Err(status) => assert!(status.message().contains("so it was set"), "{}", status.message()),
            Ok(_) => line.free().await?,
        }
        assert_eq!(line.budget().await?.units_left, left, "{code:?}");
    }

    line.rig.edit("station.toml", "demanded = true", "demanded = false")?;
    line.restart(false).await?;
    let made = line.make(2).await?;
    assert_eq!((made.validated_by.as_str(), made.offline_allowance.as_str()), ("", ""));
    assert_eq!(line.budget().await?.units_left, 4);
    line.serving.abort();
    Ok(())
}

#[tokio::test]
async fn a_nest_answers_while_the_controller_is_asked_and_nothing_is_left_of_a_start_that_was_given_up()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let changes = [("deadline = \"5s\"", "deadline = \"60s\"")];
    // The place in the order is held as long as the question is open, and given back each time.
    let mut line = Line::with(folder.path(), &changes, 1).await?;
    line.controller.behave(Temper { answers: Answers::Never, ..Temper::default() });
    let gate = line.controller.gate().clone();
    let mut asked = 0;
    for end in ["abort", "cancel", "expire", "drain"] {
        let mut station = line.station.clone();
        // What was aborted stays aborted.
        let mut request = Request::new(start(if end == "abort" { 3 } else { 1 }));
        if end == "expire" {
            request.set_timeout(Duration::from_secs(1));
        }
        let starting = tokio::spawn(async move { station.start_unit(request).await });
        asked += 1;
        timeout(PATIENCE, gate.asked(asked)).await.with_context(|| format!("{end}: nobody asked"))?;
        let run_id = line.in_nest().await?;
        assert_eq!(gate.questions()[asked - 1].run_id, run_id, "{end}");
        refused(line.start(2).await, Code::FailedPrecondition, &["nest A is busy with run", &run_id]);
        match end {
            "abort" => {
                let reason = "wrong board".to_owned();
                let abort = AbortUnitRequest { command_id: Uuid::now_v7().to_string(), run_id, reason };
                line.station.abort_unit(abort).await?;
                refused(starting.await?, Code::Aborted, &["wrong board"]);
            }
            "cancel" => starting.abort(),
            "expire" => assert!(starting.await?.is_err()),
            _ => {
                line.restart(false).await?;
                assert!(starting.await?.is_err());
            }
        }
        timeout(PATIENCE, line.free()).await.with_context(|| format!("{end}: the nest is not free"))??;
        let runs = line.station.list_units(ListUnitsRequest::default()).await?.into_inner();
        assert_eq!(runs.units, [], "{end}");
        assert_eq!(line.describe().await?.refused_units, [], "{end}");
    }
    line.controller.behave(Temper::default());
    line.make(2).await?;
    line.serving.abort();
    Ok(())
}

#[tokio::test]
async fn the_same_command_twice_is_one_question_and_one_run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with(folder.path(), &[], 10).await?;
    line.controller
        .behave(Temper { answers: Answers::After(Duration::from_millis(500)), ..Temper::default() });
    let starting = || {
        let mut station = line.station.clone();
        tokio::spawn(async move { station.start_unit(start(1)).await })
    };
    let (first, second) = (starting(), starting());
    let (first, second) = (first.await??.into_inner(), second.await??.into_inner());
    assert_eq!(first, second);
    assert_eq!(line.controller.gate().questions().len(), 1);
    let mut other = start(1);
    other.serial = "SN0002".to_owned();
    refused(line.station.start_unit(other).await, Code::AlreadyExists, &["was used before"]);
    line.serving.abort();
    Ok(())
}

#[tokio::test]
async fn when_one_of_two_controllers_is_killed_the_other_one_goes_on_with_everything() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let second = free_address()?;
    let changes =
        [("controllers = [", "controllers = [\"http://SECOND\", "), ("SECOND", &second.to_string() as &str)];
    // The one that is named first here is the line's own.
    let mut line = Line::with(folder.path(), &changes, 20).await?;
    let first = line.address;
    // Both are one MES: what one keeps the other one knows.
    let mut serving_second = tokio::spawn(line.controller.clone().serve(second));
    let in_use = |description: DescribeStationResponse| {
        let used: Vec<_> = description.controllers.into_iter().filter(|it| it.in_use).collect();
        used.into_iter().map(|it| it.address).collect::<Vec<_>>()
    };
    let mut made = 0;
    for round in 1..=2 {
        // In the middle of a run, with results under way.
        line.make(made + 1).await?;
        line::lay(&line.rig, "A", &Assembly::sound(made + 2))?;
        let run = line::start(&mut line.station, "WO-1", "A", &format!("SN{:04}", made + 2)).await?;
        let used = in_use(line.describe().await?);
        let kill_second = used == [format!("http://{second}/")];
        let killed = if kill_second { &mut serving_second } else { &mut line.serving };
        killed.abort();
        let _ = killed.await;
        let unit = line::result(&mut line.station, &run).await?;
        assert_eq!(unit.outcome(), Outcome::Pass, "{}", unit.reason);
        line.free().await?;
        line::take_out(&line.rig, "A", &unit.serial)?;
        let unit = line.make(made + 3).await?;
        let survivor = if kill_second { first } else { second };
        assert_eq!(unit.validated_by, format!("http://{survivor}/"), "round {round}");
        made += 3;
        timeout(PATIENCE, line.controller.wait_for(made as usize)).await.context("results wait")??;
        assert_eq!(in_use(line.describe().await?), [format!("http://{survivor}/")], "round {round}");
        // It comes back, and is not used before the other one is gone.
        let back = tokio::spawn(line.controller.clone().serve(if kill_second { second } else { first }));
        *if kill_second { &mut serving_second } else { &mut line.serving } = back;
    }
    let serials: Vec<_> = line.controller.results().into_iter().map(|unit| unit.serial).collect();
    assert_eq!(serials, (1..=made).map(|number| format!("SN{number:04}")).collect::<Vec<_>>());
    assert_eq!(line.controller.doubled_runs(), [""; 0]);
    line.serving.abort();
    serving_second.abort();
    Ok(())
}
