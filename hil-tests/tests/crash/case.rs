//! One case from the board that is laid into the nest to the verdict: what the operator and the MES do around a kill.

use std::{
    error::Error,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use factory_hil_tests::judge::Violation;
use factory_proto::station::{
    Outcome, ReleaseUnitRequest, StartUnitRequest, Unit, station_client::StationClient,
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Channel};
use uuid::Uuid;

use crate::{
    line::{Line, NESTS, ORDER, PATIENCE},
    plan::{Case, Victim},
};

/// How a run that was disturbed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// As if nothing had happened.
    Passed,
    /// As no pass; the unit could be started again at once, and passed.
    Failed,
    /// The unit was set aside.
    Quarantined,
}

/// The run went on without the moment at which somebody was to be killed: nothing was tested, and nothing is wrong.
#[derive(Debug)]
pub struct NeverCame;

impl fmt::Display for NeverCame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the moment never came")
    }
}

impl Error for NeverCame {}

/// What came of a case.
#[derive(Debug)]
pub struct Done {
    pub kills: u32,
    pub endings: Vec<(Ending, String)>,
    pub violations: Vec<Violation>,
    /// Where everything lies.
    pub folder: String,
    pub elapsed: Duration,
}

/// One unit in one nest.
struct Job {
    nest: &'static str,
    start: StartUnitRequest,
}

/// Carries a case out.
///
/// # Errors
/// Something else went on than a crash may lead to; the sentence says what.
pub async fn carry_out(line: &mut Line, case: &Case) -> anyhow::Result<Done> {
    let begun = Instant::now();
    let nests = if case.neighbour { &NESTS[..] } else { &NESTS[..1] };
    let mut jobs = Vec::new();
    for (at, nest) in (0..).zip(nests) {
        line.wait_until_free(nest).await?;
        let serial = line.lay(nest, 2 * case.number + at + 1, case.keeps_storage)?;
        jobs.push(Job { nest, start: start(nest, &serial) });
    }

    let held = line.arm(NESTS[0], case.moment)?;
    let starting: Vec<_> =
        jobs.iter().map(|job| tokio::spawn(try_start(line.station().cloned(), job.start.clone()))).collect();
    let held = timeout(PATIENCE, held).await.map_err(|_| NeverCame)?.context("it is told")?;
    let mut held = Some(held);
    if let Some(late) = case.late {
        held = None;
        sleep(late).await;
    }
    let kills = line.kill(case.victims, NESTS[0])?;
    drop(held);
    line.bury(case.victims)?;
    let mut accepted = Vec::new();
    for (job, starting) in jobs.iter().zip(starting) {
        let answer = starting.await?;
        if let Ok(run) = &answer {
            line.accepted(run, &job.start.serial);
        }
        accepted.push(answer);
    }
    sleep(case.pause).await;
    start_again(line, case).await?;

    let mut endings = Vec::new();
    for (job, accepted) in jobs.iter().zip(accepted) {
        let ending = see_to(line, case, job, accepted).await?;
        line.look(job.nest, &job.start.serial, !case.keeps_storage)?;
        line.take_out(job.nest, &job.start.serial)?;
        endings.push(ending);
    }
    line.check_alive()?;
    let serials: Vec<String> = jobs.into_iter().map(|job| job.start.serial).collect();
    let violations = line.judge(Some(&serials))?;
    let folder = line.rig.folder.display().to_string();
    Ok(Done { kills, endings, violations, folder, elapsed: begun.elapsed() })
}

pub fn start(nest: &str, serial: &str) -> StartUnitRequest {
    StartUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        work_order: ORDER.to_owned(),
        serial: serial.to_owned(),
        nest: nest.to_owned(),
        ..StartUnitRequest::default()
    }
}

async fn try_start(
    station: anyhow::Result<StationClient<Channel>>,
    start: StartUnitRequest,
) -> Result<String, Status> {
    let mut station = station.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(station.start_unit(start).await?.into_inner().run_id)
}

async fn start_again(line: &mut Line, case: &Case) -> anyhow::Result<()> {
    let signer = case.victims.contains(&Victim::Signer);
    if signer && !case.station_first {
        line.start_signer().context("the signer does not start again")?;
    }
    if case.victims.contains(&Victim::Station) {
        line.start_station().await.context("the station does not start again")?;
    }
    if signer && case.station_first {
        line.start_signer().context("the signer does not start again")?;
    }
    Ok(())
}

/// What the operator does when the line is up again: the same command, until the unit is made or set aside.
async fn see_to(
    line: &mut Line,
    case: &Case,
    job: &Job,
    accepted: Result<String, Status>,
) -> anyhow::Result<(Ending, String)> {
    let run = match (accepted, line.start(job.start.clone()).await) {
        (Ok(first), Ok(again)) => {
            ensure!(first == again, "the command was run {first} before, and is run {again} after");
            again
        }
        (Err(_), Ok(run)) => run,
        (Err(_), Err(_)) => line.start_when_free(job.start.clone()).await?,
        (Ok(_), Err(refused)) => {
            bail!("the command is refused when it is repeated: {}", refused.message())
        }
    };
    let unit = line.wait_until_closed(&run).await?;
    let told = format!("{} {}: {}", unit.outcome().as_str_name(), unit.failing_step, unit.reason);
    if let Some(quarantine) = &unit.quarantine {
        let told = format!("{told}; {}; {}", quarantine.reason, quarantine.remedy);
        release(line, job).await.context(told.clone())?;
        let again = make_again(line, job).await?;
        // A product whose factory code is closed takes no second bundle, and says so.
        ensure!(
            again.outcome() == Outcome::Pass || case.keeps_storage,
            "a unit that was released does not pass: {} {} (it was set aside: {told})",
            again.failing_step,
            again.reason
        );
        return Ok((Ending::Quarantined, told));
    }
    if unit.outcome() == Outcome::Pass {
        return Ok((Ending::Passed, told));
    }
    let again = make_again(line, job).await.context(told.clone())?;
    ensure!(
        again.outcome() == Outcome::Pass || case.keeps_storage,
        "the second run does not pass: {} {} (the first: {told})",
        again.failing_step,
        again.reason
    );
    Ok((Ending::Failed, told))
}

async fn make_again(line: &mut Line, job: &Job) -> anyhow::Result<Unit> {
    let run = line.start_when_free(start(job.nest, &job.start.serial)).await?;
    line.wait_until_closed(&run).await
}

/// A unit that is set aside is refused, until an engineer has seen to it.
async fn release(line: &mut Line, job: &Job) -> anyhow::Result<()> {
    match line.start(start(job.nest, &job.start.serial)).await {
        Err(refused) if refused.code() == Code::FailedPrecondition => {}
        other => bail!("a unit that is set aside was started again: {other:?}"),
    }
    let release = ReleaseUnitRequest {
        command_id: Uuid::now_v7().to_string(),
        serial: job.start.serial.clone(),
        reason: "looked at it by hand".to_owned(),
        reworked: false,
    };
    line.station()?.release_unit(release).await.context("the unit cannot be released")?;
    Ok(())
}
