//! A golden unit in a nest: what it needs to be started, and that others wait for it. It asks nobody's leave.

use std::time::SystemTime;

use factory_proto::ids::Serial;

use super::{Keeper, StartError, ask::Candidate};
use crate::{
    commands::Turn,
    recipe::template::Values,
    record::{RunId, RunOpened},
};

impl Keeper {
    /// A golden unit that may be started. It belongs to no order, so none is asked whether it has a place.
    pub(super) fn golden_candidate(
        &self,
        turn: Turn,
        run: RunId,
        serial: Serial,
    ) -> Result<Candidate, StartError> {
        let recipe = self.shared.golden.recipe(&serial)?;
        let recipe = self.shared.recipes.named(recipe)?;
        let run = RunOpened {
            run,
            order: None,
            serial,
            nest: self.name.clone(),
            recipe_digest: recipe.digest,
            started: SystemTime::now(),
            values: Values::default(),
            allowed: None,
            golden: Some(recipe.name.clone()),
        };
        let place = self.shared.orders.reserve(&run)?;
        Ok(Candidate { turn, run, recipe, place })
    }

    /// Says whether the nest takes a unit that is to become a product.
    ///
    /// # Errors
    /// It must have a golden unit first.
    pub(super) fn check_proven(&self) -> Result<(), StartError> {
        match self.shared.golden.standing(&self.name, SystemTime::now()).due {
            Some(due) => Err(StartError::GoldenDue { nest: self.name.clone(), reason: due.reason }),
            None => Ok(()),
        }
    }
}
