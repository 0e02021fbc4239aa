//! The station's offline budget: takes allowances durably, counts the runs that are started on them.
//!
//! A run is counted in memory before its record is journalled, and by its record after a restart: it is never started
//! without being counted, and one that was counted and never begun is given back by the restart.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use factory_journal::{Journal, JournalError};
use factory_jws::PublicKeys;
use factory_proto::ids::NestName;
use tracing::info;
use uuid::Uuid;

use super::{
    allowance::{Allowance, AllowanceError},
    budget::{Budget, Exhausted, Left, NotTaken},
};
use crate::record::{BudgetGranted, Record};

/// Why an allowance does not come into force.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is no key to verify it with.
    #[error("the station file has no `offline-budget` with the `key` that allowances are signed with")]
    NoKey,
    /// It is none.
    #[error(transparent)]
    Allowance(#[from] AllowanceError),
    /// It is none for now and here.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// Nothing more can be made durable.
    #[error("the journal took nothing more")]
    Journal(#[from] JournalError),
}

/// The budget; clones share it.
#[derive(Clone)]
pub struct Offline(Arc<Inner>);

struct Inner {
    station: NestName,
    keys: Option<PublicKeys>,
    journal: Arc<Journal<Record>>,
    state: Mutex<State>,
    // Held while an allowance comes into force, so that two of them do so one after the other.
    granting: tokio::sync::Mutex<()>,
}

struct State {
    budget: Budget,
    trouble: Option<String>,
}

impl Offline {
    /// Goes on with what the journal's books say. Without a key it takes no allowance.
    pub fn new(
        station: NestName,
        keys: Option<PublicKeys>,
        journal: Arc<Journal<Record>>,
        budget: Budget,
    ) -> Self {
        let (state, granting) = (Mutex::new(State { budget, trouble: None }), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { station, keys, journal, state, granting }))
    }

    /// Brings a signed allowance into force, durably; `by` says who brought it. The one that is in force is left as it
    /// is.
    ///
    /// # Errors
    /// It is forged, or none for now and here; that is also told with what is left.
    pub async fn grant(&self, signed: &str, by: &str) -> Result<Left, OfflineError> {
        let granted = self.try_grant(signed.trim(), by).await;
        self.state().trouble = granted.as_ref().err().map(ToString::to_string);
        granted
    }

    async fn try_grant(&self, signed: &str, by: &str) -> Result<Left, OfflineError> {
        let Inner { station, keys, journal, .. } = &*self.0;
        let allowance = Allowance::verify(signed, keys.as_ref().ok_or(OfflineError::NoKey)?)?;
        let _alone = self.0.granting.lock().await;
        let now = self.now();
        if !self.state().budget.is_new(&allowance, station, now)? {
            return Ok(self.left());
        }
        let Allowance { id, units, issued, expires, .. } = allowance;
        let (by, signed) = (by.to_owned(), signed.to_owned());
        let granted = BudgetGranted { id, units, issued, expires, time: now, by, signed };
        journal.append(Record::BudgetGranted(granted.clone())).await?;
        info!(allowance = %id, units, by = granted.by, "offline allowance in force");
        self.state().budget.granted(granted);
        Ok(self.left())
    }

    /// Counts one run that is about to be journalled, and gives the allowance that it is started on.
    ///
    /// # Errors
    /// None may be started.
    pub fn take(&self) -> Result<Uuid, Exhausted> {
        let now = self.now();
        self.state().budget.take(now)
    }

    /// What is left.
    pub fn left(&self) -> Left {
        let now = self.now();
        self.state().budget.left(now)
    }

    /// Why the last allowance that came is not in force.
    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// The clock may have been set back; it was never earlier than the newest record.
    fn now(&self) -> SystemTime {
        let newest = self.0.journal.newest().ok().flatten();
        newest.map_or_else(SystemTime::now, |newest| newest.time.max(SystemTime::now()))
    }

    // No step under this lock can fail half-way, so what a panicking holder left behind is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
