use std::time::SystemTime;

use factory_fixtures::fcc::{
    FccError,
    message::{Answer, Closing},
    status::ReturnStatus,
};

use crate::{
    recipe::Warnings,
    record::RunOpened,
    step::{StepContext, StepError, factory},
};

/// Injects the bundle, has the device check it, and closes its factory code for good: with the bundle, or, where the
/// recipe makes warnings failures, once there was none.
///
/// Irreversible: once the device has answered, no second bundle will be taken.
pub async fn provision(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    let credentials = ctx.credentials.take().ok_or(StepError::Order("identity"))?;
    let (unit, now) = (ctx.unit()?, SystemTime::now());
    let bundle = ctx.recipe.provision.bundle(&session(ctx.run, 2), &unit, &credentials, now)?;
    // The secrets among them are wiped as soon as they are on their way.
    drop(credentials);
    match factory::exchange(ctx, &bundle.encode()).await {
        Ok(answer) => judge_warnings(ctx, &answer)?,
        Err(StepError::Fcc(FccError::Refused { status: ReturnStatus::ItemExists, info, .. })) => {
            return Err(StepError::Unknown(format!("the device keeps a part of an earlier bundle ({info})")));
        }
        Err(error) => return Err(error),
    }
    if ctx.recipe.provision.warnings == Warnings::Fail {
        let closing = Closing { session: session(ctx.run, 3) };
        let answer = factory::exchange(ctx, &closing.encode()).await?;
        judge_warnings(ctx, &answer)?;
    }
    Ok(())
}

/// Where warnings are failures, none may be there.
pub(super) fn judge_warnings(ctx: &StepContext<'_>, answer: &Answer) -> Result<(), StepError> {
    match ctx.recipe.provision.judge(&answer.warnings) {
        None => Ok(()),
        Some(warnings) => Err(StepError::Product(format!(
            "the device warns: {warnings}; the recipe's provision.warnings makes that a failure"
        ))),
    }
}

/// The id of a message: short, since a long one can make the device's answer overflow.
pub(super) fn session(run: &RunOpened, message: u8) -> String {
    format!("{:.26}-{message}", run.run.to_string().replace('-', ""))
}
