use std::time::Duration;

use factory_fixtures::fcc::{
    FccError,
    message::{Answer, Closing, Greeting},
    status::TransportStatus,
};

use crate::{
    recipe::Recipe,
    step::{Bounds, Repeat, Step, StepContext, StepError, factory, provision},
};

// Each round resets the device. A second one is needed when an answer did not fit the device's buffer.
const ROUNDS: usize = 2;

/// Establishes whether a device that may have taken its bundle did so, and closed its factory code.
///
/// Repeatable. It asks a device that was just reset for nothing: a closed one answers with transport status 9,
/// and an answer that short cannot overflow, which is the other meaning of 9. One that is open is asked to check
/// what it holds and to close itself: it does both, or neither.
pub(crate) async fn is_provisioned(ctx: &mut StepContext<'_>) -> Result<bool, StepError> {
    for round in 0..ROUNDS {
        let patience = ctx.recipe.deadline(Step::Provision);
        factory::restart(ctx, patience).await?;
        let session = |message: u8| provision::session(ctx.run, 10 * (1 + u8::from(round > 0)) + message);

        let greeting = Greeting { session: session(1) };
        match exchange(ctx, &greeting.encode()).await {
            Ok(_) => {}
            Err(StepError::Fcc(FccError::Transport(TransportStatus::NotProcessed))) => return Ok(true),
            Err(error) => return Err(error),
        }
        let closing = Closing { session: session(2) };
        match exchange(ctx, &closing.encode()).await {
            Ok(answer) => {
                provision::judge_warnings(ctx, &answer)?;
                return Ok(true);
            }
            Err(StepError::Fcc(FccError::Refused { .. })) => return Ok(false),
            // Closed, or too many warnings to say so: the next round tells.
            Err(StepError::Fcc(FccError::Transport(TransportStatus::NotProcessed))) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StepError::Unknown("the device neither says that it is closed nor why it is not".to_owned()))
}

/// A device that falls silent says nothing about itself.
async fn exchange(ctx: &mut StepContext<'_>, payload: &[u8]) -> Result<Answer, StepError> {
    factory::exchange(ctx, payload).await.map_err(|error| match error {
        StepError::Fcc(FccError::Late(patience)) => {
            let patience = humantime::format_duration(patience);
            StepError::Unknown(format!("the device did not say within {patience} whether it is closed"))
        }
        error => error,
    })
}

/// What looking may take.
pub(crate) fn bounds(recipe: &Recipe) -> Bounds {
    let rounds = u32::try_from(ROUNDS).unwrap_or(u32::MAX);
    let steps = [Step::Boot, Step::SelfTest, Step::Provision];
    let round: Duration = steps.into_iter().map(|step| recipe.deadline(step)).sum();
    Bounds {
        step: Step::Provision,
        deadline: round * rounds,
        attempts: recipe.attempts.get(),
        repeat: Repeat::OnceCheckable,
    }
}
