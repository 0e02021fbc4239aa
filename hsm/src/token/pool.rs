//! A few sessions, each owned by one thread, and the queue in front of them.
//!
//! A PKCS#11 call cannot be cancelled: who asks waits for its answer up to a deadline, the thread stays
//! with the call.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{
    TokenError,
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
        let opened = (0..sessions.get()).map(|_| access.open()).collect::<Result<Vec<_>, _>>()?;

        let (queue, jobs) = sync_channel(QUEUE);
        let (alive, owners) = channel();
        let (access, jobs) = (Arc::new(access), Arc::new(Mutex::new(jobs)));
        for session in opened {
            let (access, jobs, alive) = (access.clone(), jobs.clone(), alive.clone());
            thread::spawn(move || {
                own(session, &access, &jobs);
                // In this order: whoever waits for the end must find the module closed.
                drop((access, alive));
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
fn own(mut session: KeySession, access: &Access, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let next = jobs.lock().expect("no thread panics while it waits").recv();
        let Ok(job) = next else { return };
        if Instant::now() >= job.given_up {
            continue;
        }
        let result = sign_or_reopen(&mut session, || access.open(), job.digest);
        // Nobody waits any more when the deadline has passed.
        let _ = job.answer.send(result);
    }
}

/// Errors of stale sessions differ from module to module: each gets one more try on a fresh session.
fn sign_or_reopen<S: SignDigest>(
    session: &mut S,
    reopen: impl FnOnce() -> Result<S, TokenError>,
    digest: [u8; 32],
) -> Result<Vec<u8>, TokenError> {
    let first = match session.sign_digest(digest) {
        Err(error) => error,
        signed => return signed,
    };
    warn!(error = &first as &dyn std::error::Error, "signature failed, opening a fresh session");
    *session = reopen()?;
    session.sign_digest(digest)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A session that is stale, or signs.
    struct Scripted<'a> {
        stale: bool,
        tries: &'a Cell<u32>,
    }

    impl SignDigest for Scripted<'_> {
        fn sign_digest(&self, _: [u8; 32]) -> Result<Vec<u8>, TokenError> {
            self.tries.set(self.tries.get() + 1);
            if self.stale { Err(TokenError::Busy) } else { Ok(vec![0; 64]) }
        }
    }

    fn check(first_is_stale: bool, second_is_stale: bool, signs: bool, expected_tries: u32) {
        let tries = Cell::new(0);
        let mut session = Scripted { stale: first_is_stale, tries: &tries };
        let reopen = || Ok(Scripted { stale: second_is_stale, tries: &tries });
        assert_eq!(sign_or_reopen(&mut session, reopen, [0; 32]).is_ok(), signs);
        assert_eq!(tries.get(), expected_tries);
    }

    #[test]
    fn a_signature_is_tried_once_more_on_a_fresh_session_and_no_more() {
        check(false, false, true, 1);
        check(true, false, true, 2);
        check(true, true, false, 2);
    }
}
