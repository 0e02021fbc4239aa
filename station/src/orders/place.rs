//! A unit's place in its order while it is in a nest: which unit may take one, for how long its order is held open for it,
//! and that it is given back.

use std::sync::{Arc, Mutex, MutexGuard};

use factory_journal::JournalError;
use factory_proto::{
    disposition::Disposition,
    ids::{OrderId, Serial},
};
use tokio::sync::{Notify, OwnedRwLockReadGuard};

use super::{OrderError, Orders, State, lock};
use crate::{
    claims::Claimant,
    record::{Quarantine, RunOpened},
};

/// A unit's place in its order while it is in a nest; given back when dropped.
pub struct Place {
    state: Arc<Mutex<State>>,
    left: Arc<Notify>,
    order: Option<OrderId>,
    claims: Arc<Claimant>,
    serial: Serial,
}

impl Place {
    /// What the unit may claim by, as long as it is there.
    pub fn claims(&self) -> &Arc<Claimant> {
        &self.claims
    }

    /// The unit passed: the place is taken for good.
    pub fn keep(self) {
        if let Some(order) = &self.order
            && let Some(order) = lock(&self.state).orders.get_mut(order)
        {
            order.passed += 1;
        }
    }

    /// The unit is set aside: it is not taken again before it is released.
    pub fn quarantine(self, quarantine: Quarantine) {
        lock(&self.state).quarantined.insert(self.serial.clone(), quarantine);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.state).running.remove(&self.serial);
        self.left.notify_waiters();
    }
}

/// An order that starts units, and goes on doing so until this is dropped.
pub struct HeldOpen(#[expect(dead_code, reason = "it is given back when dropped")] OwnedRwLockReadGuard<()>);

impl Orders {
    /// Takes a place in the order for a new run, until the place is dropped or kept. A golden unit, which is of no order,
    /// is only kept from being in two nests.
    pub fn reserve(&self, run: &RunOpened) -> Result<Place, OrderError> {
        let state = self.lock();
        if let Some(order) = &run.order {
            state.starts_units(order)?;
        }
        self.place(state, run)
    }

    /// Keeps an order as it is for as long as what comes back is there, if it starts units; a golden unit is of none.
    ///
    /// # Errors
    /// It does not any more: it was moved since the run's place was taken.
    pub async fn hold_open(&self, order: Option<&OrderId>) -> Result<HeldOpen, OrderError> {
        let held = self.moving.clone().read_owned().await;
        if let Some(order) = order {
            self.lock().starts_units(order)?;
        }
        Ok(HeldOpen(held))
    }

    /// Takes a place for a run that was begun before, also in an order that starts no more units.
    pub fn take_up(&self, run: &RunOpened) -> Result<Place, OrderError> {
        self.place(self.lock(), run)
    }

    fn place(&self, mut state: MutexGuard<'_, State>, run: &RunOpened) -> Result<Place, OrderError> {
        if state.running.values().any(|other| other.run == run.run) {
            return Err(OrderError::RunTaken(run.run));
        }
        if let Some(other) = state.running.get(&run.serial) {
            return Err(OrderError::Running(Box::new(other.clone())));
        }
        if let Some(order) = &run.order {
            self.check_place(&state, order, &run.serial)?;
        }
        state.running.insert(run.serial.clone(), run.clone());
        let (state, left) = (self.state.clone(), self.left.clone());
        let claims = Arc::new(self.claims.of_run(run));
        Ok(Place { state, left, claims, order: run.order.clone(), serial: run.serial.clone() })
    }

    /// Whether the order has a place left, and the unit may take it.
    fn check_place(&self, state: &State, id: &OrderId, serial: &Serial) -> Result<(), OrderError> {
        let order = state.orders.get(id).ok_or_else(|| OrderError::Unknown(id.clone()))?;
        let (passed, quantity) = (order.passed, order.opened.quantity);
        // Asked while nobody else can take or leave a place: a run that has just passed is in the index.
        if let Some(passed) = self.units.passed(serial)? {
            return Err(OrderError::Passed(Box::new(passed)));
        }
        if self.units.disposition(serial)?.is_some_and(|it| it.disposition == Disposition::Scrapped) {
            return Err(self.scrapped(serial)?);
        }
        if let Some(quarantine) = state.quarantined.get(serial) {
            return Err(OrderError::Quarantined { serial: serial.clone(), quarantine: quarantine.clone() });
        }
        let running = state.running_of(id).count();
        if passed as usize + running >= quantity as usize {
            return Err(OrderError::Full { order: id.clone(), passed, running, quantity });
        }
        Ok(())
    }

    /// What is said of a unit that was destroyed.
    pub(super) fn scrapped(&self, serial: &Serial) -> Result<OrderError, JournalError> {
        let last = self.units.last_opened(serial, None)?.map(Box::new);
        Ok(OrderError::Scrapped { serial: serial.clone(), last })
    }

    /// Says whether a unit may be tested again: it did not fail, or was not tested `limit` times since.
    ///
    /// # Errors
    /// [`OrderError::Exhausted`]
    pub fn check_retests(&self, serial: &Serial, limit: u32) -> Result<(), OrderError> {
        let history = self.units.history(serial, None)?;
        if history.is_exhausted(limit) {
            return Err(OrderError::Exhausted { serial: serial.clone(), retests: history.retests });
        }
        Ok(())
    }
}
