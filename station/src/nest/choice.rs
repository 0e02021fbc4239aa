//! Which nest takes a unit that nobody has given one: the one that has been free for longest.

use std::collections::BTreeMap;

use factory_proto::ids::{NestName, OrderId, Serial};

use super::{Look, Nest, Purpose, Start, StartError};
use crate::{
    commands::{Command, CommandError, Commands},
    recipe::template::Values,
    record::RunId,
    units::Units,
};

/// Chooses among nests. Two units may want the same one: the second is told that it is busy, and tries the next.
pub struct Choice {
    commands: Commands,
    units: Units,
}

/// A unit is to be made in whichever nest.
pub struct Wanted {
    /// The command.
    pub command: Command,
    /// The run, which follows from the command.
    pub run: RunId,
    /// For which order.
    pub order: OrderId,
    /// Which board.
    pub serial: Serial,
    /// What it is given for itself, beside what its order's list says.
    pub values: Values,
}

/// Why a unit is not started in any nest.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// The command cannot be carried out, whatever it asks for.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// No nest takes it, or something is wrong with it.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Choice {
    /// Knows by these which command was carried out, and where.
    pub fn new(commands: Commands, units: Units) -> Self {
        Self { commands, units }
    }

    /// Starts a unit in the nest that has been free for longest. The same command again is the same run in the same nest.
    ///
    /// # Errors
    /// No nest takes it, and why not; or whatever would be wrong with it in any of them.
    pub async fn start(
        &self,
        nests: &BTreeMap<NestName, Nest>,
        wanted: Wanted,
    ) -> Result<NestName, ChoiceError> {
        let mut looks = Vec::new();
        for nest in nests.values() {
            looks.push((nest, nest.look().await));
        }
        // One whose instruments are being asked is free in a moment, perhaps.
        looks.sort_by_key(|(_, look)| (look.free_since.is_none(), look.free_since));
        // Told by name, in whatever order they were tried.
        let (mut refusals, mut unproven) = (BTreeMap::new(), 0);
        for (nest, look) in looks {
            // The same command may be carried out at this moment, or have been: each attempt has its own turn.
            let turn = self.commands.begin(wanted.command.clone()).await?;
            if let Some(known) = self.units.find(wanted.run).map_err(StartError::from)? {
                turn.commit(None).await.map_err(StartError::from)?;
                return Ok(known.opened.nest);
            }
            if let Some(reason) = taken(&look) {
                refusals.insert(nest.name(), format!("{}: {reason}", nest.name()));
                continue;
            }
            if let Some(due) = look.golden.due {
                refusals.insert(nest.name(), format!("{}: {}", nest.name(), due.reason));
                unproven += 1;
                continue;
            }
            let purpose = Purpose::Product { order: wanted.order.clone(), values: wanted.values.clone() };
            let start = Start { turn, run: wanted.run, serial: wanted.serial.clone(), purpose };
            match nest.start(start).await {
                Ok(_) => return Ok(nest.name().clone()),
                // It was taken, or broke, between the look and the start.
                Err(
                    refusal @ (StartError::Busy { .. }
                    | StartError::Parked { .. }
                    | StartError::ByHand { .. }
                    | StartError::LeftPack { .. }
                    | StartError::GoldenDue { .. }
                    | StartError::OutOfOrder(_)),
                ) => {
                    refusals.insert(nest.name(), refusal.to_string());
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
        let all_unproven = unproven == refusals.len();
        let reasons = refusals.into_values().collect::<Vec<_>>().join("; ");
        Err(if all_unproven { StartError::NoneProven(reasons) } else { StartError::NoneFree(reasons) }.into())
    }
}

/// Why a nest takes no unit, as far as can be seen.
fn taken(look: &Look) -> Option<String> {
    match (look.run, &look.parked) {
        (_, Some(reason)) => Some(reason.clone()),
        (Some(run), None) => Some(format!("busy with run {run}")),
        (None, None) => None,
    }
}
