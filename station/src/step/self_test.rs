use factory_proto::units::Quantity;

use crate::{
    record::Measurement,
    step::{StepContext, StepError},
};

// A self-test that says more than this is broken.
const LONGEST_REPORT: usize = 256;

/// Lets the firmware measure, and holds each value against the recipe's limits.
pub async fn self_test(ctx: &mut StepContext<'_>) -> Result<(), StepError> {
    ctx.findings.measurements.clear();
    let measured = measure(ctx).await?;

    let mut complaints = Vec::new();
    for (name, limits) in &ctx.recipe.self_test.limits {
        let Some((_, value)) = measured.iter().find(|(measured, _)| measured == name) else {
            complaints.push(format!("{name} was not measured"));
            continue;
        };
        if !limits.hold(*value) {
            complaints.push(format!("{name} is {value}, limits {} to {}", limits.min(), limits.max()));
        }
        let measurement = Measurement { name: name.clone(), value: *value, limits: *limits };
        ctx.findings.measurements.push(measurement);
    }
    match complaints[..] {
        [] => Ok(()),
        _ => Err(StepError::Product(complaints.join("; "))),
    }
}

/// The named values up to `selftest done`.
pub(super) async fn measure(ctx: &mut StepContext<'_>) -> Result<Vec<(String, Quantity)>, StepError> {
    let console = ctx.console()?;
    console.send("selftest").await?;
    let mut measured: Vec<(String, Quantity)> = Vec::new();
    for _ in 0..LONGEST_REPORT {
        let line = console.line().await?;
        if line == "selftest done" {
            return Ok(measured);
        }
        if let Some(trouble) = line.strip_prefix("error ") {
            return Err(StepError::Product(format!("the self-test says: {trouble}")));
        }
        let Some((name, value)) = line.strip_prefix("measure ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let value = value
            .parse()
            .map_err(|error| StepError::Product(format!("the measurement {name:?} of {value:?} {error}")))?;
        if measured.iter().any(|(known, _)| known == name) {
            return Err(StepError::Product(format!("{name} was measured twice")));
        }
        measured.push((name.to_owned(), value));
    }
    Err(StepError::Product(format!("the self-test did not end within {LONGEST_REPORT} lines")))
}
