//! A few sessions, each owned by one thread, and the queue in front of them.
//!
//! A PKCS#11 call cannot be cancelled: who asks waits for its answer up to a deadline, the thread stays
//! with the call.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{error, warn};

use super::{
    TokenError,
    condition::Condition,
    keeper::said,
    key::SignDigest,
    module::Token,
    session::{Access, KeySession},
};

/// Signatures that may wait: at 163 a second (a TPM, the slowest token measured) they fit into a second.
const QUEUE: usize = 128;
/// How long a token may take over its last signature when the pool is dropped.
const FAREWELL: Duration = Duration::from_secs(2);

struct Job {
    digest: [u8; 32],
    given_up: Instant,
    answer: SyncSender<Result<Vec<u8>, TokenError>>,
}

/// A pool's sessions: each its thread's, and within reach of whoever has to close them all.
pub(super) struct Seats {
    access: Access,
    sessions: Vec<Mutex<Option<KeySession>>>,
}

impl Seats {
    /// Signs with the session of one seat, opening one where there is none; one that fails is closed.
    pub(super) fn sign(&self, seat: usize, digest: [u8; 32]) -> Result<Vec<u8>, TokenError> {
        let login = self.access.login();
        let _inside = login.enter()?;
        let mut held = self.hold(seat);
        let session = match held.take() {
            Some(session) => session,
            None => self.access.open_inside()?,
        };
        let signature = session.sign_digest(digest)?;
        *held = Some(session);
        login.shared().signed();
        Ok(signature)
    }

    /// Closes all sessions; whoever calls is alone inside the module.
    pub(super) fn close_all(&self) {
        for seat in 0..self.sessions.len() {
            self.hold(seat).take();
        }
    }

    fn hold(&self, seat: usize) -> MutexGuard<'_, Option<KeySession>> {
        // A session whose owner has panicked was not put back.
        self.sessions[seat].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signs with the one key, from any thread.
pub struct SigningPool {
    token: Token,
    deadline: Duration,
    /// `None` only while it is dropped.
    queue: Option<SyncSender<Job>>,
    /// Says nothing; hangs up when the last owner thread has ended.
    owners: Mutex<Receiver<()>>,
}

impl SigningPool {
    /// Opens `sessions` sessions and starts their threads.
    pub fn open(access: Access, sessions: NonZeroUsize, deadline: Duration) -> Result<Self, TokenError> {
        let token = access.token()?;
        let opened = (0..sessions.get())
            .map(|_| Ok(Mutex::new(Some(access.open()?))))
            .collect::<Result<Vec<_>, TokenError>>()?;
        let seats = Arc::new(Seats { access, sessions: opened });
        seats.access.login().keep_for(&seats);

        let (queue, jobs) = sync_channel(QUEUE);
        let (alive, owners) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for seat in 0..sessions.get() {
            let (seats, jobs, alive) = (seats.clone(), jobs.clone(), alive.clone());
            thread::spawn(move || {
                own(seat, &seats, &jobs);
                // In this order: whoever waits for the end must find the module closed.
                drop((seats, alive));
            });
        }
        Ok(Self { token, deadline, queue: Some(queue), owners: Mutex::new(owners) })
    }

    /// The token, as it was when the pool was opened.
    pub fn token(&self) -> &Token {
        &self.token
    }
}

impl SignDigest for SigningPool {
    fn sign_digest(&self, digest: [u8; 32]) -> Result<Vec<u8>, TokenError> {
        let (answer, answered) = sync_channel(1);
        let job = Job { digest, given_up: Instant::now() + self.deadline, answer };
        let queue = self.queue.as_ref().expect("it is there until the pool is dropped");
        queue.try_send(job).map_err(|_| TokenError::Busy)?;
        match answered.recv_timeout(self.deadline) {
            Ok(answer) => answer,
            // A thread that gives a job up has noticed the deadline a moment earlier.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(TokenError::Deadline(self.deadline))
            }
        }
    }
}

impl Drop for SigningPool {
    fn drop(&mut self) {
        // The module must not be unloaded under a session, nor may a hanging token keep us here.
        self.queue = None;
        if let Ok(owners) = self.owners.get_mut() {
            let _ = owners.recv_timeout(FAREWELL);
        }
    }
}

/// The life of an owner thread: it ends when the queue does.
fn own(seat: usize, seats: &Seats, jobs: &Mutex<Receiver<Job>>) {
    let condition = seats.access.login().shared();
    loop {
        let next = jobs.lock().expect("no thread panics while it waits").recv();
        let Ok(job) = next else { break };
        if Instant::now() >= job.given_up {
            continue;
        }
        let sign = |_| {
            condition.wait(job.given_up)?;
            seats.sign(seat, job.digest)
        };
        let result = persist(sign, |since| condition.lose(since));
        if let Err(fault) = &result
            && fault.is_about_pin()
        {
            error!(error = fault as &dyn std::error::Error, "the token is left alone");
            condition.set(Condition::Barred { reason: said(fault) });
        }
        // Nobody waits any more when the deadline has passed.
        let _ = job.answer.send(result);
    }
    // While the module is taken away, the one who does it closes the session.
    if let Ok(_inside) = seats.access.login().enter() {
        seats.hold(seat).take();
    }
}

/// Errors of stale sessions differ from module to module: each gets one more try on a fresh session, then one more once the
/// token was brought back.
///
/// The same digest may be signed several times by that, which does no harm: it is that of one certificate, with one serial
/// number, which the ledger counted before. Of its signatures one at most leaves this process, and the others are lost.
fn persist(
    mut sign: impl FnMut(u8) -> Result<Vec<u8>, TokenError>,
    lose: impl FnOnce(Instant),
) -> Result<Vec<u8>, TokenError> {
    let since = Instant::now();
    let first = match sign(1) {
        Err(fault) if fault.may_pass() => fault,
        done => return done,
    };
    warn!(error = &first as &dyn std::error::Error, "signature failed, opening a fresh session");
    let second = match sign(2) {
        Err(fault) if fault.may_pass() => fault,
        done => return done,
    };
    warn!(
        error = &second as &dyn std::error::Error,
        "a fresh session did not help, loading the module again"
    );
    lose(since);
    sign(3)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    type Fault = fn() -> TokenError;

    /// `faults`: what the tries come to, one after the other; what is not listed signs.
    fn check(faults: &[Fault], signs: bool, expected_tries: u8, revived: bool) {
        let tries = Cell::new(0);
        let lost = Cell::new(false);
        let sign = |attempt: u8| {
            tries.set(attempt);
            faults.get(usize::from(attempt) - 1).map_or(Ok(vec![0; 64]), |fault| Err(fault()))
        };
        assert_eq!(persist(sign, |_| lost.set(true)).is_ok(), signs);
        assert_eq!((tries.get(), lost.get()), (expected_tries, revived));
    }

    #[test]
    fn a_signature_is_tried_on_a_fresh_session_then_on_a_fresh_module_and_no_more() {
        let stale: Fault = || TokenError::OtherKey;
        check(&[], true, 1, false);
        check(&[stale], true, 2, false);
        check(&[stale, stale], true, 3, true);
        check(&[stale, stale, stale], false, 3, true);
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        let refused: Fault = || TokenError::PinRefused { label: "factory".to_owned(), source: None };
        let away: Fault = || TokenError::Away("pulled".to_owned());
        let stale: Fault = || TokenError::OtherKey;
        check(&[refused], false, 1, false);
        check(&[away], false, 1, false);
        check(&[stale, refused], false, 2, false);
    }
}
