use factory_fixtures::console::Console;

use crate::step::{StepContext, StepError};

// What a stale or chatty bootloader may say before our firmware's first line.
const LINES_BEFORE_BOOT: usize = 64;

/// Resets the unit and listens until its firmware says `boot NAME VERSION …` and `ready`.
pub async fn boot(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    ctx.findings.firmware_version = None;
    ctx.factory = None;
    // An earlier attempt holds the port for itself alone; what was heard then is kept.
    let heard = ctx.console.take().map(Console::close).unwrap_or_default();
    // Listening begins before the reset, so that the first line is not missed.
    let opened = Console::open(&ctx.rig.console.path, ctx.rig.console.baud).await?;
    let console = ctx.console.insert(opened.after(heard));
    ctx.rig.probe.reset(&ctx.recipe.flash.chip).await?;

    for _ in 0..LINES_BEFORE_BOOT {
        let line = console.line().await?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["boot", _, version, ..] => ctx.findings.firmware_version = Some(version.to_owned()),
            ["ready"] => return right_version(ctx),
            _ => {}
        }
    }
    Err(StepError::Product(format!("the firmware did not get ready within {LINES_BEFORE_BOOT} lines")))
}

fn right_version(ctx: &StepContext<'_>) -> Result<(), StepError> {
    let wanted = &ctx.recipe.boot.firmware_version;
    match &ctx.findings.firmware_version {
        Some(version) if version == wanted => Ok(()),
        Some(version) => {
            Err(StepError::Product(format!("firmware {version} booted, the recipe wants {wanted}")))
        }
        None => Err(StepError::Product("the firmware got ready without saying its version".to_owned())),
    }
}
