//! Ends the connections of certificates that were withdrawn after they were shown.
//!
//! Knows nothing of who is behind them.

use std::{
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio::{sync::oneshot, task::spawn_blocking, time::sleep};
use tracing::warn;

use crate::tls::Tls;

/// How soon a new list is seen, at the latest: four looks at files that are in the kernel's memory.
const LOOK: Duration = Duration::from_secs(1);

/// The connections of a door, each with what was shown there. Clones are the same.
#[derive(Clone)]
pub(crate) struct Watched {
    tls: Tls,
    open: Arc<Mutex<Vec<Shown>>>,
}

struct Shown {
    certificates: Vec<CertificateDer<'static>>,
    from: SocketAddr,
    /// Dropped, it ends the connection; closed when that has ended by itself.
    good: oneshot::Sender<()>,
}

/// Ready when a connection is to end.
pub(crate) type Withdrawn = oneshot::Receiver<()>;

impl Watched {
    /// Nobody yet.
    pub(crate) fn new(tls: Tls) -> Self {
        Self { tls, open: Arc::default() }
    }

    /// One more, if what it has shown is not withdrawn by now: its handshake may have begun under an older list.
    pub(crate) fn begin(&self, shown: &[CertificateDer<'_>], from: SocketAddr) -> Option<Withdrawn> {
        let certificates = shown.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let (good, withdrawn) = oneshot::channel();
        let mut open = self.open();
        // Under the lock: a list that comes after this look is a new one for `keep_looking` too, which then sees this one.
        if self.tls.current().withdraws(shown) {
            return None;
        }
        open.push(Shown { certificates, from, good });
        Some(withdrawn)
    }

    /// Ends those whose certificates are withdrawn, whenever there is a new list.
    pub(crate) async fn keep_looking(self) {
        let mut seen = self.tls.current();
        loop {
            sleep(LOOK).await;
            self.open().retain(|shown| !shown.good.is_closed());
            let current = self.tls.current();
            if !Arc::ptr_eq(&seen, &current) {
                let watched = self.clone();
                seen = current.clone();
                // Each chain is verified: ten thousand of them take a second or more.
                let _ = spawn_blocking(move || watched.end(|shown| current.withdraws(shown))).await;
            }
        }
    }

    fn end(&self, withdrawn: impl Fn(&[CertificateDer<'_>]) -> bool) {
        let mut open = mem::take(&mut *self.open());
        open.retain(|Shown { certificates, from, .. }| {
            let ends = withdrawn(certificates);
            if ends {
                warn!(%from, "the certificate of a connection was withdrawn: it ends");
            }
            !ends
        });
        self.open().append(&mut open);
    }

    fn open(&self) -> MutexGuard<'_, Vec<Shown>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
