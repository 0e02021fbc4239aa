use factory_fixtures::tag::Uid;

use crate::{
    record::{Mark, Record, Tag, TagSeen},
    step::{StepContext, StepError},
};

/// Writes the enrolment id to the unit's tag, so that whoever holds the unit can claim it.
///
/// Once, checkable: a tag that already says so is only read. One that was put on another unit is not written; that this
/// unit has it is durable before it is.
pub async fn tag(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    let identity = ctx.findings.identity.as_ref().ok_or(StepError::Order("identity"))?;
    let message = ctx.recipe.tag.message(&identity.enrolment_id)?;
    let uid = ctx.rig.tag_writer.look().await?;
    if let Err(error) = take(ctx, &uid).await {
        ctx.rig.tag_writer.let_go();
        return Err(error);
    }
    let written = ctx.rig.tag_writer.write(&uid, &message).await?;
    ctx.findings.tag = Some(Tag { uid: written.uid.as_bytes().to_vec(), ndef: written.message });
    Ok(())
}

/// Makes it durable that the tag is this unit's.
async fn take(ctx: &mut StepContext<'_>, uid: &Uid) -> Result<(), StepError> {
    let uid = uid.as_bytes().to_vec();
    if !ctx.claim(Mark::Tag(uid.clone()))? {
        ctx.journal(Record::TagSeen(TagSeen { run: ctx.run.run, uid })).await?;
    }
    Ok(())
}
