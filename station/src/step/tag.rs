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
    let uid = ctx.rig.tag_writer.look().await?;
    let written = ctx.rig.tag_writer.write(&uid, &message).await?;
    ctx.findings.tag = Some(Tag { uid: written.uid.as_bytes().to_vec(), ndef: written.message });
    Ok(())
}
