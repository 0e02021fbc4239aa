use factory_fixtures::fcc::{self, FccError, frame, message::Answer, status::ReturnStatus};

use crate::{
    record::{FccAnswer, RunOpened},
    step::{StepContext, StepError},
};

/// Injects the bundle, has the device check it, and closes its factory code for good.
///
/// Irreversible: once the device has answered, no second bundle will be taken.
pub async fn provision(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    let identity = ctx.findings.identity.as_ref().ok_or(StepError::Order("identity"))?;
    let session = session(ctx.run, 2);
    let bundle = ctx.recipe.provision.bundle(&session, identity, ctx.run)?;
    match exchange(ctx, &session, &bundle.encode()).await {
        Ok(_) => Ok(()),
        Err(StepError::Fcc(FccError::Refused { status: ReturnStatus::ItemExists, info, .. })) => {
            Err(StepError::Unknown(format!("the device keeps a part of an earlier bundle ({info})")))
        }
        Err(error) => Err(error),
    }
}

/// The id of a message: short, since a long one can make the device's answer overflow.
pub(super) fn session(run: &RunOpened, message: u8) -> String {
    format!("{:.26}-{message}", run.run.to_string().replace('-', ""))
}

/// Sends one message and keeps what the device answers; an answer that is no success is the product's fault.
pub(super) async fn exchange(
    ctx: &mut StepContext<'_>,
    session: &str,
    payload: &[u8],
) -> Result<Answer, StepError> {
    let console = ctx.console()?;
    let (port, log) = console.split();
    let answer = fcc::exchange(port, &frame::encode(payload), |text| log.keep(text)).await?;
    ctx.findings.fcc_answers.push(FccAnswer {
        session: session.to_owned(),
        return_status: answer.return_status.number(),
        info: answer.info.clone(),
        warnings: answer.warnings.clone(),
    });
    Ok(answer.accepted(session)?)
}
