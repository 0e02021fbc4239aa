//! Takes one unit from its first step to its result.

use std::{sync::Arc, time::SystemTime};

use tracing::{Instrument as _, error, info, info_span};

use crate::{
    events::What,
    nest::Shared,
    orders::Place,
    recipe::Recipe,
    record::{Findings, Record, RunClosed, RunOpened},
    rig::Rig,
    step::{self, Ended, Step, StepContext, Stop},
};
use factory_proto::outcome::Outcome;

/// Everything that is done to a unit, in order. The instruments come back, whatever happened.
pub(super) async fn work(
    run: RunOpened,
    recipe: Arc<Recipe>,
    place: Place,
    mut rig: Box<Rig>,
    shared: Shared,
    stop: Stop,
) -> Box<Rig> {
    let span = info_span!("run", nest = %run.nest, run = %run.run, serial = %run.serial);
    async {
        let mut ctx = StepContext {
            run: &run,
            recipe: &recipe,
            rig: &mut rig,
            console: None,
            signer: &shared.signer,
            journal: &shared.journal,
            events: &shared.events,
            findings: Findings::default(),
        };
        let ended = walk(&mut ctx, &stop).await;
        let mut findings = ctx.findings;
        if let Some(console) = ctx.console {
            console.log().clone_into(&mut findings.console_log);
        }
        close(&run, ended, findings, place, &shared).await;
    }
    .instrument(span)
    .await;
    rig
}

async fn walk(ctx: &mut StepContext<'_>, stop: &Stop) -> Result<(), Ended> {
    for step in Step::ALL {
        step::perform(step, ctx, stop).await?;
    }
    Ok(())
}

/// Makes the result durable; only then shows it.
async fn close(run: &RunOpened, ended: Result<(), Ended>, findings: Findings, place: Place, shared: &Shared) {
    let (outcome, stopped) = match ended {
        Ok(()) => (Outcome::Pass, None),
        Err(ended) => (ended.outcome, Some(ended.stopped)),
    };
    let ended = SystemTime::now();
    let closed = RunClosed { opened: run.clone(), ended, outcome, stopped: stopped.clone(), findings };
    match shared.journal.append(Record::RunClosed(Box::new(closed))).await {
        Ok(sequence) => shared.backlog.closed(sequence, ended),
        // Without a durable result nobody is shown anything; recovery closes the run after a restart.
        Err(error) => return error!(%error, "the result could not be made durable"),
    }
    match outcome {
        Outcome::Pass => place.keep(),
        _ => drop(place),
    }
    info!(%outcome, "run closed");
    shared.events.tell(run, What::Closed(outcome, stopped));
}
