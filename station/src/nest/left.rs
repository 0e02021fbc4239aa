//! A run that a station's end had left open: found again with all that it needs, or given up.

use std::{sync::Arc, time::SystemTime};

use factory_journal::JournalError;
use factory_proto::outcome::Outcome;
use tracing::warn;

use super::{Shared, resume};
use crate::{
    books::OpenRun,
    orders::Place,
    recipe::Recipe,
    record::{GoldenTried, Record, RunClosed, Stopped},
    step::Step,
};

/// A run that a station's end had left open, and what is needed to go on with it.
pub struct Left {
    /// How far it had come.
    pub open: OpenRun,
    /// What its product needs.
    pub recipe: Arc<Recipe>,
    /// Its place in its order.
    pub place: Place,
}

impl Left {
    /// Finds what the run needs.
    ///
    /// # Errors
    /// Why nobody can go on with it.
    pub fn find(open: OpenRun, shared: &Shared) -> Result<Self, String> {
        let (recipe, digest) = match (&open.run.order, &open.run.golden) {
            (Some(order), None) => shared.orders.recipe(order).map_err(|error| error.to_string())?,
            (_, Some(recipe)) => (recipe.clone(), open.run.recipe_digest),
            (None, None) => return Err("it belongs to no order".to_owned()),
        };
        let recipe = shared.recipes.get(&recipe, &digest).map_err(|error| error.to_string())?;
        let place = shared.orders.take_up(&open.run).map_err(|error| error.to_string())?;
        Ok(Self { open, recipe, place })
    }

    /// Closes a run that nobody can go on with. Its unit is set aside when it may hold its bundle.
    ///
    /// # Errors
    /// The result could not be made durable.
    pub async fn give_up(open: OpenRun, reason: &str, shared: &Shared) -> Result<(), JournalError> {
        let step = open.phase.step();
        let stopped = Stopped {
            step,
            reason: format!("the run was left open, and nobody can go on with it: {reason}"),
        };
        let quarantine = (step >= Some(Step::Identity)).then(|| resume::quarantine(&stopped));
        let OpenRun { run, findings, .. } = open;
        warn!(nest = %run.nest, run = %run.run, serial = %run.serial, reason, "closed a run that was left open");
        let closed = RunClosed {
            opened: run.clone(),
            ended: SystemTime::now(),
            outcome: Outcome::Error,
            stopped: Some(stopped.clone()),
            findings,
            quarantine: quarantine.clone(),
        };
        let tried = GoldenTried::by(&closed);
        shared.journal.append(Record::RunClosed(Box::new(closed))).await?;
        shared.golden.learn(tried);
        if let Some(quarantine) = quarantine {
            shared.orders.quarantine(run.serial, quarantine);
        }
        Ok(())
    }
}
