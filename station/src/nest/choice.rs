//! Which nest takes a unit that nobody has given one: the one that has been free for longest.

use std::collections::BTreeMap;

use factory_proto::ids::NestName;

use super::{Look, Nest, Start, StartError};
use crate::{record::RunId, units::Units};

/// All nests, of which one is chosen at a time.
pub struct Choice {
    // Held from a look at the nests until the unit is in one, so that the same command twice is one run.
    choosing: tokio::sync::Mutex<()>,
    units: Units,
}

impl Choice {
    /// Knows by `units` which command was carried out.
    pub fn new(units: Units) -> Self {
        Self { choosing: tokio::sync::Mutex::default(), units }
    }

    /// Starts a unit in the nest that has been free for longest. The same command again is the same run in the same nest.
    ///
    /// # Errors
    /// No nest takes it, and why not; or whatever would be wrong with it in any of them.
    pub async fn start(
        &self,
        nests: &BTreeMap<NestName, Nest>,
        start: Start,
    ) -> Result<(NestName, RunId), StartError> {
        let _alone = self.choosing.lock().await;
        if let Some(known) = self.units.find(start.run)? {
            if (&known.opened.order, &known.opened.serial) != (&start.order, &start.serial) {
                return Err(StartError::Reused);
            }
            return Ok((known.opened.nest, start.run));
        }
        let mut looks = Vec::new();
        for nest in nests.values() {
            looks.push((nest, nest.look().await));
        }
        // One whose instruments are being asked is free in a moment, perhaps.
        looks.sort_by_key(|(_, look)| (look.free_since.is_none(), look.free_since));
        let mut refusals = Vec::new();
        for (nest, look) in looks {
            if let Some(reason) = taken(&look) {
                refusals.push(format!("{}: {reason}", nest.name()));
                continue;
            }
            match nest.start(start.clone()).await {
                Ok(run) => return Ok((nest.name().clone(), run)),
                // It was taken, or broke, between the look and the start.
                Err(
                    refusal @ (StartError::Busy { .. }
                    | StartError::Parked { .. }
                    | StartError::ByHand { .. }
                    | StartError::OutOfOrder(_)),
                ) => refusals.push(refusal.to_string()),
                Err(refusal) => return Err(refusal),
            }
        }
        Err(StartError::NoneFree(refusals.join("; ")))
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
