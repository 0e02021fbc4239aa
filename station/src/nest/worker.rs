//! Takes one unit from its first step, or from where a dead station left it, to its result.

use std::{sync::Arc, time::SystemTime};

use tracing::{Instrument as _, error, info, info_span, warn};

use super::resume;
use crate::{
    books::OpenRun,
    nest::Shared,
    orders::Place,
    pack::Tried,
    recipe::Recipe,
    record::{GoldenTried, Quarantine, Record, RunClosed, RunOpened, Stopped},
    rig::Rig,
    step::{self, Aftermath, Ended, Step, StepContext, Stop},
};
use factory_proto::outcome::Outcome;

/// What a worker is given with the instruments.
pub(super) struct Work {
    /// The run, as far as it had come.
    pub open: OpenRun,
    /// Whether a station's end had left it open.
    pub left: bool,
    /// What its product needs.
    pub recipe: Arc<Recipe>,
    /// Its place in its order.
    pub place: Place,
    /// How it is ended from outside.
    pub stop: Stop,
}

/// Everything that is done to a unit, in order. The instruments come back, whatever happened.
pub(super) async fn work(work: Work, mut rig: Box<Rig>, shared: Shared) -> Box<Rig> {
    let Work { open: OpenRun { run, phase, findings, .. }, left, recipe, place, stop } = work;
    let span = info_span!("run", nest = %run.nest, run = %run.run, serial = %run.serial);
    async {
        let mut ctx = StepContext {
            run: &run,
            recipe: &recipe,
            rig: &mut rig,
            console: None,
            factory: None,
            credentials: None,
            signer: &shared.signer,
            journal: &shared.journal,
            units: &shared.units,
            claims: place.claims().clone(),
            events: &shared.events,
            findings,
            passed: None,
        };
        let first =
            if left { resume::resume(&mut ctx, &phase, &stop).await } else { Ok(run.following(None)) };
        let ended = match first {
            Ok(first) => walk(first, &mut ctx, &stop).await,
            Err(ended) => Err(ended),
        };
        if stop.is_now() && ended.as_ref().is_err_and(|ended| ended.aftermath != Aftermath::Known) {
            return warn!("the run stays open: the next start of the station looks at the unit");
        }
        close(&run, ended, ctx, place, &shared).await;
    }
    .instrument(span)
    .await;
    rig
}

async fn walk(first: Option<Step>, ctx: &mut StepContext<'_>, stop: &Stop) -> Result<(), Ended> {
    let mut next = first;
    while let Some(step) = next {
        match step::perform(step, ctx, stop).await {
            Err(ended) if ended.aftermath == Aftermath::Unsettled && !stop.is_now() => {
                settle(step, ended, ctx, stop).await?;
            }
            ended => ended?,
        }
        next = ctx.run.following(Some(step));
    }
    Ok(())
}

/// Looks whether a step that ended badly has changed the unit for good: then it passed after all.
async fn settle(step: Step, ended: Ended, ctx: &mut StepContext<'_>, stop: &Stop) -> Result<(), Ended> {
    match resume::is_provisioned(ctx, stop).await {
        Ok(true) => {
            info!(%step, reason = ended.stopped.reason, "the device has done it nevertheless");
            ctx.passed = Some(step);
            Ok(())
        }
        Ok(false) => Err(Ended { aftermath: Aftermath::Known, ..ended }),
        Err(blind) => {
            let reason = format!("{}; then {}", ended.stopped.reason, blind.stopped.reason);
            Err(Ended { aftermath: blind.aftermath, stopped: Stopped { step: Some(step), reason }, ..ended })
        }
    }
}

/// Makes the result durable; only then shows it.
async fn close(
    run: &RunOpened,
    ended: Result<(), Ended>,
    mut ctx: StepContext<'_>,
    place: Place,
    shared: &Shared,
) {
    let (outcome, stopped, quarantine) = verdict(run, ended);
    let mut findings = ctx.findings.clone();
    if let Some(console) = &ctx.console {
        console.log().clone_into(&mut findings.console_log);
    }
    let ended = SystemTime::now();
    let closed = RunClosed {
        opened: run.clone(),
        ended,
        outcome,
        stopped: stopped.clone(),
        findings,
        quarantine: quarantine.clone(),
    };
    let golden = GoldenTried::by(&closed);
    let tried = match shared.units.past(run, None) {
        Ok(past) => Tried::of(&closed, past),
        Err(error) => {
            warn!(%error, "the unit is not counted for its nest");
            None
        }
    };
    match ctx.journal(Record::RunClosed(Box::new(closed))).await {
        Ok(sequence) => {
            shared.backlog.closed(sequence, ended);
            if let Some(tried) = tried {
                shared.pack.learn(sequence, tried);
            }
        }
        // Without a durable result nobody is shown anything; the run is taken up again after a restart.
        Err(error) => return error!(%error, "the result could not be made durable"),
    }
    shared.golden.learn(golden);
    match (outcome, &quarantine) {
        (Outcome::Pass, _) => place.keep(),
        (_, Some(quarantine)) => place.quarantine(quarantine.clone()),
        (_, None) => drop(place),
    }
    info!(%outcome, quarantined = quarantine.is_some(), "run closed");
}

fn verdict(run: &RunOpened, ended: Result<(), Ended>) -> (Outcome, Option<Stopped>, Option<Quarantine>) {
    match ended {
        Ok(()) => (Outcome::Pass, None, None),
        Err(Ended { outcome, stopped, aftermath }) => {
            // A golden unit has nothing of its own that could be lost or doubled.
            let is_open = aftermath != Aftermath::Known && run.golden.is_none();
            let quarantine = is_open.then(|| resume::quarantine(&stopped));
            (outcome, Some(stopped), quarantine)
        }
    }
}
