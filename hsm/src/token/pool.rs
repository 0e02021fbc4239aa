//! A few sessions, each owned by one thread, and the queue in front of them.
//!
//! A PKCS#11 call cannot be cancelled: who asks waits for its answer up to a deadline, the thread stays
//! with the call.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
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
            thread::spawn(move || own(session, &access, &jobs, alive));
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
fn own(mut session: KeySession, access: &Access, jobs: &Mutex<Receiver<Job>>, _alive: Sender<()>) {
    loop {
        let next = jobs.lock().expect("no thread panics while it waits").recv();
        let Ok(job) = next else { return };
        if Instant::now() >= job.given_up {
            continue;
        }
        let result = sign_or_reopen(&mut session, access, job.digest);
        // Nobody waits any more when the deadline has passed.
        let _ = job.answer.send(result);
    }
}

/// Errors of stale sessions differ from module to module: each gets one more try on a fresh session.
fn sign_or_reopen(
    session: &mut KeySession,
    access: &Access,
    digest: [u8; 32],
) -> Result<Vec<u8>, TokenError> {
    let first = match session.sign_digest(digest) {
        Err(error) => error,
        signed => return signed,
    };
    warn!(error = &first as &dyn std::error::Error, "signature failed, opening a fresh session");
    *session = access.open()?;
    session.sign_digest(digest)
}
