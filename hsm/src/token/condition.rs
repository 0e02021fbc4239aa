//! Whether the token signs, as the whole process knows it: who has lost it says so, and waits for it to be brought back.
//!
//! Knows nothing of PKCS#11, nor of how a token is brought back.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::TokenError;

/// Between a token that was brought back and the next time: what fails for another reason must not take the module away
/// from everybody again and again.
const SETTLE: Duration = Duration::from_secs(1);

/// Whether the token signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It does, as far as anybody knows.
    Signs,
    /// It was lost a moment ago, and is being brought back for the first time.
    Lost,
    /// It could not be brought back; that is tried again and again.
    Away {
        /// Why, for people.
        reason: String,
    },
    /// Its PIN was refused, or could be its last: nothing is tried until a human has done something.
    Barred {
        /// Why, for people.
        reason: String,
    },
}

/// The one condition of a token, shared by all who use it.
pub struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    told: watch::Sender<Condition>,
}

struct State {
    condition: Condition,
    signed: Instant,
    /// When it was last brought back.
    revived: Option<Instant>,
    ended: bool,
}

/// What its keeper has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nobody has used it for a while: see whether it signs.
    Look,
    /// Bring it back.
    Revive,
    /// Nobody uses it any more.
    End,
}

impl Default for Shared {
    fn default() -> Self {
        let state =
            State { condition: Condition::Signs, signed: Instant::now(), revived: None, ended: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), told: watch::Sender::new(Condition::Signs) }
    }
}

impl Shared {
    /// What is known now, and whatever becomes known.
    pub fn watch(&self) -> watch::Receiver<Condition> {
        self.told.subscribe()
    }

    /// The token has signed.
    pub fn signed(&self) {
        self.lock().signed = Instant::now();
    }

    /// Sets what is known.
    pub fn set(&self, condition: Condition) {
        self.become_known(self.lock(), condition);
    }

    fn become_known(&self, mut state: MutexGuard<'_, State>, condition: Condition) {
        if state.ended || state.condition == condition {
            return;
        }
        if condition == Condition::Signs {
            state.signed = Instant::now();
            state.revived = Some(state.signed);
        }
        state.condition = condition.clone();
        self.told.send_replace(condition);
        self.changed.notify_all();
    }

    /// The token did not sign for somebody who began at `since`: unless that is known already, or it was brought back
    /// after that, its keeper begins to bring it back.
    pub fn lose(&self, since: Instant) {
        let state = self.lock();
        let known = state.condition != Condition::Signs || state.revived.is_some_and(|at| at > since);
        if !known {
            // Under the same lock: it may be brought back at any moment.
            self.become_known(state, Condition::Lost);
        }
    }

    /// Waits until the token is there or known to be away, but not longer than `until`.
    ///
    /// # Errors
    /// It is away, or barred; or nobody knows by then.
    pub fn wait(&self, until: Instant) -> Result<(), TokenError> {
        let mut state = self.lock();
        loop {
            match &state.condition {
                Condition::Signs => return Ok(()),
                Condition::Away { reason } | Condition::Barred { reason } => {
                    return Err(TokenError::Away(reason.clone()));
                }
                Condition::Lost => {}
            }
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|_| !state.ended) else {
                return Err(TokenError::Away("it is being brought back".to_owned()));
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The keeper's wait: for something to do, `pause` after its last attempt where that has failed.
    pub fn duty(&self, look_every: Duration, pause: Duration) -> Duty {
        let begun = Instant::now();
        let mut state = self.lock();
        loop {
            let (due, duty) = match &state.condition {
                Condition::Signs => (state.signed + look_every, Duty::Look),
                Condition::Lost => (state.revived.map_or(begun, |at| at + SETTLE), Duty::Revive),
                Condition::Away { .. } | Condition::Barred { .. } => (begun + pause, Duty::Revive),
            };
            if state.ended {
                return Duty::End;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return duty;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nobody uses the token any more.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    // No step under this lock can fail half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn check(condition: Condition, waits: bool, duty: &Duty) {
        let shared = Shared::default();
        shared.set(condition);
        assert_eq!(shared.wait(Instant::now()).is_ok(), waits);
        assert_eq!(&shared.duty(Duration::ZERO, Duration::ZERO), duty);
    }

    #[test]
    fn whoever_needs_the_token_and_its_keeper_act_on_what_is_known() {
        let reason = || "pulled".to_owned();
        check(Condition::Signs, true, &Duty::Look);
        check(Condition::Lost, false, &Duty::Revive);
        check(Condition::Away { reason: reason() }, false, &Duty::Revive);
        check(Condition::Barred { reason: reason() }, false, &Duty::Revive);
    }

    #[test]
    fn a_loss_is_noticed_once_and_wakes_the_keeper_at_once() {
        let shared = Shared::default();
        shared.lose(Instant::now());
        assert_eq!(shared.duty(LONG, LONG), Duty::Revive);
        shared.set(Condition::Away { reason: "pulled".to_owned() });
        shared.lose(Instant::now());
        assert_eq!(*shared.watch().borrow(), Condition::Away { reason: "pulled".to_owned() });
    }

    #[test]
    fn who_failed_before_it_was_brought_back_does_not_lose_it_again() {
        let shared = Shared::default();
        let before = Instant::now();
        shared.lose(before);
        shared.set(Condition::Signs);
        shared.lose(before);
        assert_eq!(*shared.watch().borrow(), Condition::Signs);
    }

    #[test]
    fn the_keeper_ends_with_the_last_user() {
        let shared = Shared::default();
        shared.end();
        assert_eq!(shared.duty(LONG, LONG), Duty::End);
    }
}
