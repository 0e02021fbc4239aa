//! What happens to a start while the controller is asked whether it may be.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use factory_hil_tests::mes::{
    line,
    temper::{Answers, Temper},
};
use factory_proto::station::{
    AbortUnitRequest, ListUnitsRequest, OpenWorkOrderRequest, PauseWorkOrderRequest, ResumeWorkOrderRequest,
    RunPreflightRequest, StartUnitRequest, StartUnitResponse,
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::{HOUR, Line, PATIENCE, STATION, refused, start};

impl Line {
    /// Starts a unit, and gives its answer to come once the controller is asked for the `questions`th time.
    async fn ask(
        &mut self,
        number: u32,
        questions: usize,
    ) -> anyhow::Result<JoinHandle<Result<Response<StartUnitResponse>, Status>>> {
        let mut station = self.station.clone();
        let starting = tokio::spawn(async move { station.start_unit(start(number)).await });
        timeout(PATIENCE, self.controller.gate().asked(questions)).await?;
        Ok(starting)
    }

    async fn pause(&mut self) -> anyhow::Result<()> {
        let command_id = Uuid::now_v7().to_string();
        let (work_order, reason) = ("WO-1".to_owned(), "a bad reel".to_owned());
        let pause = PauseWorkOrderRequest { command_id, work_order, reason };
        self.station.pause_work_order(pause).await?;
        Ok(())
    }

    async fn resume(&mut self) -> anyhow::Result<()> {
        let command_id = Uuid::now_v7().to_string();
        let (work_order, reason) = ("WO-1".to_owned(), "another reel".to_owned());
        let resume = ResumeWorkOrderRequest { command_id, work_order, reason };
        self.station.resume_work_order(resume).await?;
        Ok(())
    }

    /// Nothing was begun.
    async fn has_no_run(&mut self) -> anyhow::Result<()> {
        timeout(PATIENCE, self.free()).await??;
        let runs = self.station.list_units(ListUnitsRequest::default()).await?.into_inner();
        assert_eq!(runs.units, []);
        Ok(())
    }
}

#[tokio::test]
async fn an_order_that_is_paused_meanwhile_starts_no_unit() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with(folder.path(), &[("deadline = \"5s\"", "deadline = \"2s\"")], 1).await?;
    let allowance = line.treasury()?.issue(STATION, 1, SystemTime::now(), HOUR)?;
    line.load(&allowance).await?;
    // With the controller's leave, and then on the budget, of which nothing is used for it.
    for (asked, answers) in [(1, Answers::After(Duration::from_secs(1))), (2, Answers::Never)] {
        line.controller.behave(Temper { answers, ..Temper::default() });
        let starting = line.ask(1, asked).await?;
        line.pause().await?;
        refused(starting.await?, Code::FailedPrecondition, &["work order WO-1 is paused: a bad reel"]);
        line.has_no_run().await?;
        assert_eq!(line.budget().await?.units_left, 1);
        line.resume().await?;
    }
    // Its place in the order was given back.
    line.start(1).await?;
    assert_eq!(line.budget().await?.units_left, 0);
    line.serving.abort();
    Ok(())
}

#[tokio::test]
async fn no_order_is_opened_while_no_unit_of_it_could_start() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with(folder.path(), &[("deadline = \"5s\"", "deadline = \"300ms\"")], 10).await?;
    let opening = |order: &str, command: u128| -> anyhow::Result<OpenWorkOrderRequest> {
        let command_id = Uuid::from_u128(command).to_string();
        Ok(OpenWorkOrderRequest { command_id, ..line::opening(&line.rig, order, 1)? })
    };
    let [second, third] = [opening("WO-2", 200)?, opening("WO-3", 300)?];
    let mut station = line.station.clone();
    let mut preflight = async || -> anyhow::Result<(bool, String)> {
        let checks = station.run_preflight(RunPreflightRequest {}).await?.into_inner().checks;
        let found = checks.into_iter().find(|check| check.name == "line").context("it looks at the line")?;
        Ok((found.ok, found.finding))
    };
    line.controller.behave(Temper { answers: Answers::Never, ..Temper::default() });
    let away = ["no work order is opened: the line has no controller that answers", "load an allowance"];
    refused(line.start(9).await, Code::FailedPrecondition, &["this station has no offline allowance"]);
    let answer = line.station.open_work_order(second.clone()).await;
    refused(answer, Code::FailedPrecondition, &away);
    let (fine, found) = preflight().await?;
    assert!(!fine && found.contains("nothing is left of an offline budget"), "{found}");

    let allowance = line.treasury()?.issue(STATION, 1, SystemTime::now(), HOUR)?;
    line.load(&allowance).await?;
    let (fine, found) = preflight().await?;
    assert!(fine && found.contains("1 units may be started on the offline budget"), "{found}");
    let opened = line.station.open_work_order(second.clone()).await?.into_inner();
    line.start(1).await?;
    refused(line.station.open_work_order(third.clone()).await, Code::FailedPrecondition, &away);
    // What was done is answered as it was.
    assert_eq!(line.station.open_work_order(second).await?.into_inner(), opened);

    line.controller.behave(Temper::default());
    timeout(PATIENCE, line.free()).await??;
    let next = StartUnitRequest { work_order: "WO-2".to_owned(), ..start(2) };
    line.station.start_unit(next).await?;
    let (fine, found) = preflight().await?;
    assert!(fine && found.contains("which answers"), "{found}");
    line.station.open_work_order(third).await?;
    line.serving.abort();
    Ok(())
}

#[tokio::test]
async fn a_start_that_was_aborted_is_aborted_for_good() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = Line::with(folder.path(), &[("deadline = \"5s\"", "deadline = \"60s\"")], 1).await?;
    line.controller.behave(Temper { answers: Answers::Never, ..Temper::default() });
    let starting = line.ask(1, 1).await?;
    let abort = AbortUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        run_id: line.in_nest().await?,
        reason: "wrong board".to_owned(),
    };
    line.station.abort_unit(abort.clone()).await?;
    refused(starting.await?, Code::Aborted, &["wrong board"]);
    line.controller.behave(Temper::default());
    for restarted in [false, true] {
        if restarted {
            line.restart(true).await?;
        }
        let again = line.start(1).await.unwrap_err();
        assert_eq!(again.get_details_error_info().map(|info| info.reason).as_deref(), Some("START_ABORTED"));
        refused::<()>(Err(again), Code::Aborted, &["wrong board", "takes a new command id"]);
        line.station.abort_unit(abort.clone()).await?;
        line.has_no_run().await?;
    }
    assert_eq!(line.controller.gate().questions().len(), 1);
    // With another command it may be.
    line.start(2).await?;
    line.serving.abort();
    Ok(())
}
