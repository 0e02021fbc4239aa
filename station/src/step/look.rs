use std::time::Duration;

use factory_fixtures::fcc::{
    FccError,
    message::{Answer, Closing, Greeting},
    status::TransportStatus,
};
use tokio::time::timeout;

use crate::{
    recipe::Recipe,
    step::{Bounds, Repeat, Step, StepContext, StepError, boot, identity, provision, self_test},
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
        boot::boot(ctx).await?;
        // The firmware hands its line over only after a self-test; what this one says was judged before.
        self_test::measure(ctx).await?;
        identity::start_factory_code(ctx).await?;
        let session = |message: u8| provision::session(ctx.run, 10 * (1 + u8::from(round > 0)) + message);
        let (greeting, closing) = (session(1), session(2));

        let greeted = Greeting { session: greeting.clone() }.encode();
        match exchange(ctx, &greeting, &greeted).await {
            Ok(_) => {}
            Err(StepError::Fcc(FccError::Transport(TransportStatus::NotProcessed))) => return Ok(true),
            Err(error) => return Err(error),
        }
        let asked = Closing { session: closing.clone() }.encode();
        match exchange(ctx, &closing, &asked).await {
            Ok(_) => return Ok(true),
            Err(StepError::Fcc(FccError::Refused { .. })) => return Ok(false),
            // Closed, or too many warnings to say so: the next round tells.
            Err(StepError::Fcc(FccError::Transport(TransportStatus::NotProcessed))) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StepError::Unknown("the device neither says that it is closed nor why it is not".to_owned()))
}

/// A device that falls silent is not waited for until the whole look is over.
async fn exchange(ctx: &mut StepContext<'_>, session: &str, payload: &[u8]) -> Result<Answer, StepError> {
    let patience = ctx.recipe.deadline(Step::Provision);
    timeout(patience, provision::exchange(ctx, session, payload)).await.unwrap_or_else(|_| {
        let patience = humantime::format_duration(patience);
        Err(StepError::Unknown(format!("the device did not say within {patience} whether it is closed")))
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
