use crate::{
    events::What,
    record::Flash,
    step::{Step, StepContext, StepError},
};

/// Programs the recipe's firmware, verified, and keeps the checksum of what the flash holds then.
pub async fn flash(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    let (events, run, firmware) = (ctx.events, ctx.run, &ctx.recipe.flash);
    let progress = |progress| events.tell(run, What::Progress(Step::Flash, progress));
    let flashed = ctx.rig.probe.flash(&firmware.chip, &firmware.image, progress).await?;
    ctx.findings.flash = Some(Flash { bytes: flashed.bytes, digest: flashed.digest });
    Ok(())
}
