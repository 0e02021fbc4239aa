use crate::{
    record::Tag,
    step::{StepContext, StepError},
};

/// Writes the enrolment id to the unit's tag, so that whoever holds the unit can claim it.
///
/// Once, checkable: a tag that already says so is only read.
pub async fn tag(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    let identity = ctx.findings.identity.as_ref().ok_or(StepError::Order("identity"))?;
    let message = ctx.recipe.tag.message(&identity.enrolment_id)?;
    let written = ctx.rig.tag_writer.write(&message).await?;
    ctx.findings.tag = Some(Tag { uid: written.uid, ndef: written.message });
    Ok(())
}
