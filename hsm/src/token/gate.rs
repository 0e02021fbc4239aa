//! Knows who is inside the module and since when, and shuts it so that it can be taken away. Knows nothing of PKCS#11.
//!
//! A module must not be finished or unloaded while a call is inside it; and a call that hangs stays inside for ever, so
//! it is only ever looked at, never waited for by one who has to answer.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// In front of a module.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    shut: bool,
    visits: u64,
    inside: BTreeMap<u64, Instant>,
}

/// Somebody who is inside; leaves when dropped.
pub struct Visit<'a> {
    gate: &'a Gate,
    number: u64,
}

/// The gate is shut and nobody else is inside; opens when dropped.
pub struct Shut<'a>(Visit<'a>);

impl Gate {
    /// Goes inside; `None` while it is shut.
    pub fn enter(&self) -> Option<Visit<'_>> {
        let mut state = self.lock();
        if state.shut { None } else { Some(self.visit(&mut state)) }
    }

    /// Shuts it, waits until nobody is inside, and goes in. Only one may do so at a time.
    pub fn shut(&self) -> Shut<'_> {
        let mut state = self.lock();
        state.shut = true;
        while !state.inside.is_empty() {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Shut(self.visit(&mut state))
    }

    /// How long the one who is inside longest has been there by `now`; zero when nobody is.
    pub fn longest(&self, now: Instant) -> Duration {
        let entered = self.lock().inside.values().min().copied();
        entered.map_or(Duration::ZERO, |entered| now.saturating_duration_since(entered))
    }

    fn visit(&self, state: &mut State) -> Visit<'_> {
        state.visits += 1;
        state.inside.insert(state.visits, Instant::now());
        Visit { gate: self, number: state.visits }
    }

    // No step under this lock can fail half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.gate.lock().inside.remove(&self.number);
        self.gate.left.notify_all();
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.0.gate.lock().shut = false;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, thread};

    use super::*;

    #[test]
    fn it_is_shut_when_the_last_one_has_left_and_lets_nobody_in_meanwhile() {
        let gate = Gate::default();
        let visit = gate.enter().unwrap();
        let (shut, is_shut) = channel();
        let (open, may_open) = channel::<()>();
        thread::scope(|scope| {
            let gate = &gate;
            scope.spawn(move || {
                let held = gate.shut();
                shut.send(()).unwrap();
                may_open.recv().unwrap();
                drop(held);
                shut.send(()).unwrap();
            });
            while gate.enter().is_some() {
                thread::yield_now();
            }
            assert!(is_shut.try_recv().is_err(), "somebody is inside");
            drop(visit);
            is_shut.recv().unwrap();
            assert!(gate.enter().is_none());
            open.send(()).unwrap();
            is_shut.recv().unwrap();
            assert!(gate.enter().is_some());
        });
    }

    #[test]
    fn the_one_who_is_inside_longest_is_known() {
        let gate = Gate::default();
        assert_eq!(gate.longest(Instant::now()), Duration::ZERO);
        let first = gate.enter();
        let later = Instant::now() + Duration::from_secs(60);
        let second = gate.enter();
        assert!(gate.longest(later) >= Duration::from_secs(60));
        drop(first);
        drop(second);
        assert_eq!(gate.longest(later), Duration::ZERO);
    }
}
