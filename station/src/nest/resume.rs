//! Where a run goes on that the station's end had left open. Asks the unit where the journal cannot tell.

use std::time::SystemTime;

use factory_proto::outcome::Outcome;
use tracing::info;

use crate::{
    phase::Phase,
    record::{Quarantine, Record, Resumption, RunResumed, StepEnded, Stopped},
    step::{self, Aftermath, Bounds, Ended, Repeat, Step, StepContext, StepError, Stop, chip, look},
};

/// What an engineer can do about a unit of which too little is known.
const REMEDY: &str = "see whether the board is whole and its own, erase its storage where it can be erased, \
                      then release the unit and start it again, or scrap it";

/// Finds out where the run goes on, and makes that durable. `None`: only its result is missing.
pub(super) async fn resume(
    ctx: &mut StepContext<'_>,
    phase: &Phase,
    stop: &Stop,
) -> Result<Option<Step>, Ended> {
    let goes_on_with = match phase {
        Phase::Closed => None,
        Phase::Between { run, done } if run.following(*done).is_none() => None,
        Phase::Between { done: Some(Step::Provision), .. } | Phase::Inside { step: Step::Tag, .. } => {
            same_board(ctx, stop, Known::Needed).await?;
            Some(Step::Tag)
        }
        Phase::Inside { step: Step::Provision, .. } => {
            same_board(ctx, stop, Known::Needed).await?;
            Some(if is_provisioned(ctx, stop).await? { Step::Tag } else { Step::Boot })
        }
        // The flash is verified, and what the device knows dies with its reset.
        Phase::Between { done: Some(Step::Identity), .. } | Phase::Inside { step: Step::Identity, .. } => {
            same_board(ctx, stop, Known::IfRead).await?;
            Some(Step::Boot)
        }
        Phase::Between { .. } | Phase::Inside { .. } => {
            same_board(ctx, stop, Known::IfRead).await?;
            Some(Step::Flash)
        }
    };
    let resumption = Resumption { time: SystemTime::now(), left_in: phase.step(), goes_on_with };
    ctx.findings.resumptions.push(resumption.clone());
    info!(left_in = ?resumption.left_in, ?goes_on_with, "run resumed");
    let resumed = RunResumed { run: ctx.run.run, resumption };
    if let Err(error) = ctx.journal(Record::RunResumed(resumed)).await {
        let step = goes_on_with.or(ctx.run.preceding(None)).unwrap_or(Step::Flash);
        return Err(step::failed(step, &StepError::Journal(error), Aftermath::Unsettled));
    }
    Ok(goes_on_with)
}

/// Whether the device took its bundle and closed its factory code: then the step is one that passed.
pub(super) async fn is_provisioned(ctx: &mut StepContext<'_>, stop: &Stop) -> Result<bool, Ended> {
    let (bounds, started) = (look::bounds(ctx.recipe), SystemTime::now());
    let looked = step::bounded(&bounds, ctx, stop, |ctx| Box::pin(look::is_provisioned(ctx))).await;
    let provisioned = looked.map_err(unknown)?;
    if provisioned {
        let (step, ended, outcome) = (Step::Provision, SystemTime::now(), Outcome::Pass);
        ctx.findings.steps.push(StepEnded { step, started, ended, outcome });
    }
    Ok(provisioned)
}

/// Why a unit is set aside.
pub(super) fn quarantine(stopped: &Stopped) -> Quarantine {
    Quarantine { reason: stopped.reason.clone(), remedy: REMEDY.to_owned() }
}

/// How much must be known of the board's identity.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Something irreversible was done to it, so it must be this very board.
    Needed,
    /// Where the chip was read, it must be the same.
    IfRead,
}

/// While the station was away, somebody may have put another board into the nest.
async fn same_board(ctx: &mut StepContext<'_>, stop: &Stop, known: Known) -> Result<(), Ended> {
    if ctx.findings.chip.is_none() {
        return match known {
            Known::IfRead => Ok(()),
            Known::Needed => Err(other_board(
                "whether the board in the nest is still this unit is not known: its recipe has no flash.unique-id",
            )),
        };
    }
    let bounds = Bounds {
        step: Step::Flash,
        deadline: ctx.recipe.deadline(Step::Boot),
        attempts: ctx.recipe.attempts.get(),
        repeat: Repeat::OnceCheckable,
    };
    let found = step::bounded(&bounds, ctx, stop, |ctx| Box::pin(chip(ctx))).await;
    match found {
        Ok(found) if found == ctx.findings.chip => Ok(()),
        Ok(_) => Err(other_board("another board lies in the nest")),
        Err(ended) if known == Known::Needed => Err(unknown(ended)),
        Err(ended) => Err(ended),
    }
}

fn other_board(reason: &str) -> Ended {
    let stopped = Stopped { step: None, reason: reason.to_owned() };
    Ended { outcome: Outcome::Error, stopped, aftermath: Aftermath::Unknown }
}

fn unknown(ended: Ended) -> Ended {
    Ended { outcome: Outcome::Error, aftermath: Aftermath::Unknown, ..ended }
}
