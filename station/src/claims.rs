//! Who has which endpoint name, device key and tag, over the station's whole life: the log says who had it before, memory
//! who is about to. What is another unit's is refused, with where that was seen. Knows no nest and no step.
//!
//! A run claims before it journals, and journals before it uses: of two runs that want the same, one is told so. What it
//! has claimed is held until the run ends, so that a record that is still on its way to the disk counts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factory_journal::{JournalError, Sequence};
use factory_proto::{disposition::Disposition, ids::Serial};

use crate::{
    record::{Mark, RunOpened, Seen},
    units::Units,
};

/// Why a unit may not have something.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is another unit's.
    #[error("{0}")]
    Taken(Box<Seen>),
    /// Whose it is cannot be looked up.
    #[error("the journal cannot say whose it is")]
    Journal(#[from] JournalError),
}

/// All claims; cheap to clone.
#[derive(Clone)]
pub struct Claims {
    units: Units,
    held: Arc<Mutex<HashMap<Mark, Seen>>>,
}

/// A run that may claim. What it holds is let go of when this is dropped.
pub struct Claimant {
    claims: Claims,
    run: RunOpened,
}

/// What the log says of a mark and a unit.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    /// It is another unit's.
    Others(Box<Seen>),
    /// It is this unit's.
    Own,
    /// It may be anybody's.
    Nobodys,
}

impl Claims {
    /// As the journal tells that these units are of.
    pub fn new(units: Units) -> Self {
        Self { units, held: Arc::default() }
    }

    /// For a run that lies in a nest, or is about to.
    pub fn of_run(&self, run: &RunOpened) -> Claimant {
        Claimant { claims: self.clone(), run: run.clone() }
    }

    /// Says whether a unit may have something, as far as the past tells.
    ///
    /// # Errors
    /// It is another unit's.
    pub fn check(&self, mark: &Mark, serial: &Serial) -> Result<(), ClaimError> {
        match self.known(mark, serial)? {
            Known::Others(seen) => Err(ClaimError::Taken(seen)),
            Known::Own | Known::Nobodys => Ok(()),
        }
    }

    fn known(&self, mark: &Mark, serial: &Serial) -> Result<Known, JournalError> {
        let mut sightings = Vec::new();
        for sequence in self.units.journal().by_mark(&mark.key())? {
            sightings.extend(self.sighting(mark, sequence)?);
        }
        let is_scrapped = |serial: &Serial| {
            let disposed = self.units.disposition(serial)?;
            Ok(disposed.is_some_and(|it| it.disposition == Disposition::Scrapped))
        };
        judge(mark, serial, sightings, is_scrapped)
    }

    fn sighting(&self, mark: &Mark, sequence: Sequence) -> Result<Option<Seen>, JournalError> {
        let Some(entry) = self.units.journal().get(sequence)? else { return Ok(None) };
        let Some(run) = entry.record.run() else { return Ok(None) };
        let opened = self.units.opened(run)?;
        Ok(opened.and_then(|opened| Seen::in_run(mark.clone(), &opened, entry.time)))
    }

    // Nothing under this lock can fail half-way.
    fn held(&self) -> MutexGuard<'_, HashMap<Mark, Seen>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claimant {
    /// Claims something for the run's unit, or finds that it has it; says whether the log tells so already.
    ///
    /// # Errors
    /// It is another unit's.
    pub fn claim(&self, mark: Mark) -> Result<bool, ClaimError> {
        let RunOpened { serial, started, .. } = &self.run;
        let mut held = self.claims.held();
        if let Some(other) = held.get(&mark).filter(|seen| seen.serial != *serial) {
            return Err(ClaimError::Taken(Box::new(other.clone())));
        }
        // Looked up while nobody else can claim: what another run no longer holds is in the log, if it was journalled.
        let known = match self.claims.known(&mark, serial)? {
            Known::Others(seen) => return Err(ClaimError::Taken(seen)),
            known => known == Known::Own,
        };
        held.extend(Seen::in_run(mark.clone(), &self.run, *started).map(|seen| (mark, seen)));
        Ok(known)
    }

    /// Claims several things.
    ///
    /// # Errors
    /// The first that is another unit's.
    pub fn claim_all(&self, marks: impl IntoIterator<Item = Mark>) -> Result<(), ClaimError> {
        marks.into_iter().try_for_each(|mark| self.claim(mark).map(drop))
    }
}

impl Drop for Claimant {
    fn drop(&mut self) {
        self.claims.held().retain(|_, seen| seen.run != self.run.run);
    }
}

/// Whose a mark is, as seen from a unit: that of whoever ever had it, but for a name whose unit was destroyed.
fn judge<E>(
    mark: &Mark,
    serial: &Serial,
    sightings: impl IntoIterator<Item = Seen>,
    is_scrapped: impl Fn(&Serial) -> Result<bool, E>,
) -> Result<Known, E> {
    let mut known = Known::Nobodys;
    for seen in sightings {
        if seen.serial == *serial {
            known = Known::Own;
        } else if !(mark.survives_scrapping() && is_scrapped(&seen.serial)?) {
            return Ok(Known::Others(Box::new(seen)));
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests;
