use crate::{
    events::What,
    record::{ChipSeen, Flash, Record},
    step::{Step, StepContext, StepError},
};

/// Programs the recipe's firmware, verified, and keeps the checksum of what the flash holds then.
///
/// Before that, the chip says who it is, so that after a crash nobody takes another board for this one.
pub async fn flash(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    if ctx.findings.chip.is_none()
        && let Some(chip) = chip(ctx).await?
    {
        ctx.findings.chip = Some(chip.clone());
        ctx.journal(Record::ChipSeen(ChipSeen { run: ctx.run.run, chip })).await?;
    }
    let (events, run, firmware) = (ctx.events, ctx.run, &ctx.recipe.flash);
    let progress = |progress| events.tell(run, What::Progress(Step::Flash, progress));
    let flashed = ctx.rig.probe.flash(&firmware.chip, &firmware.image, progress).await?;
    ctx.findings.flash = Some(Flash { bytes: flashed.bytes, digest: flashed.digest });
    Ok(())
}

/// The id of the chip that is in the nest now; `None` where the recipe does not say how to read it.
pub(crate) async fn chip(ctx: &mut StepContext<'_>) -> Result<Option<Vec<u8>>, StepError> {
    let firmware = &ctx.recipe.flash;
    match &firmware.unique_id {
        Some(place) => Ok(Some(ctx.rig.probe.read(&firmware.chip, place).await?)),
        None => Ok(None),
    }
}
