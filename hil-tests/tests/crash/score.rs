//! Watches a run that nobody disturbs, to know at which moments others can be.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use factory_hil_tests::moment::{Held, log::Edge};
use factory_proto::station::{Outcome, Unit};
use tokio::sync::oneshot;

use crate::{
    case,
    line::{Line, NESTS},
    plan::{Moment, Score, Written},
};

/// Makes two units, and says what a run consists of.
pub async fn score(line: &mut Line, number: u32) -> anyhow::Result<Score> {
    let mut score = Score::default();
    let one = Moment::Journal(1, Edge::AfterSync);
    let mut before = Instant::now();
    let unit = watch(line, number, one, |line| {
        if let Some(record) = score.records.last_mut() {
            record.gap = before.elapsed();
        }
        before = Instant::now();
        let device = line.rig.device_program(NESTS[0])?.is_some();
        score.records.push(Written { device, gap: Duration::ZERO });
        Ok(())
    })
    .await?;
    score.messages = u32::try_from(unit.fcc_answers.len())?;
    let writes = Moment::TagPage(1);
    watch(line, number + 1, writes, |_| count(&mut score.pages)).await?;
    if line.keeps_ledger() {
        watch(line, number + 2, Moment::Ledger(1, Edge::AfterSync), |_| count(&mut score.ledger)).await?;
    }
    Ok(score)
}

/// Makes a unit, and holds it each time that this moment comes.
async fn watch(
    line: &mut Line,
    number: u32,
    moment: Moment,
    mut at: impl FnMut(&mut Line) -> anyhow::Result<()>,
) -> anyhow::Result<Unit> {
    let nest = NESTS[0];
    let serial = line.lay(nest, number, false)?;
    let mut held = line.arm(nest, moment)?;
    let mut station = line.station()?.clone();
    let start = case::start(nest, &serial);
    let starting = tokio::spawn(async move { station.start_unit(start).await });
    // The result is the last record, and who is held there has not shown it.
    let mut result = std::pin::pin!(async {
        let run = starting.await??.into_inner().run_id;
        anyhow::Ok(run)
    });
    let run = loop {
        tokio::select! {
            holds = &mut held => held = go_on(line, nest, moment, holds, &mut at)?,
            run = &mut result => break run?,
        }
    };
    line.accepted(&run, &serial);
    let mut station = line.station()?.clone();
    let mut closing = tokio::spawn({
        let run = run.clone();
        async move { crate::line::closed(&mut station, &run).await }
    });
    let unit = loop {
        tokio::select! {
            holds = &mut held => held = go_on(line, nest, moment, holds, &mut at)?,
            unit = &mut closing => break unit??,
        }
    };
    anyhow::ensure!(unit.outcome() == Outcome::Pass, "an undisturbed unit does not pass: {}", unit.reason);
    line.wait_until_closed(&run).await?;
    line.look(nest, &serial, true)?;
    line.take_out(nest, &serial)?;
    Ok(unit)
}

fn go_on(
    line: &mut Line,
    nest: &str,
    moment: Moment,
    holds: Result<Held, oneshot::error::RecvError>,
    at: &mut impl FnMut(&mut Line) -> anyhow::Result<()>,
) -> anyhow::Result<oneshot::Receiver<Held>> {
    let holds = holds.context("who is held is told")?;
    at(line)?;
    let next = line.arm(nest, moment)?;
    drop(holds);
    Ok(next)
}

fn count(times: &mut u32) -> anyhow::Result<()> {
    *times += 1;
    Ok(())
}
