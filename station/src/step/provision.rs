use factory_fixtures::fcc::{FccError, status::ReturnStatus};

use crate::{
    record::RunOpened,
    step::{StepContext, StepError, factory},
};

/// Injects the bundle, has the device check it, and closes its factory code for good.
///
/// Irreversible: once the device has answered, no second bundle will be taken.
pub async fn provision(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    let identity = ctx.findings.identity.as_ref().ok_or(StepError::Order("identity"))?;
    let session = session(ctx.run, 2);
    let bundle = ctx.recipe.provision.bundle(&session, identity, ctx.run)?;
    match factory::exchange(ctx, &bundle.encode()).await {
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
