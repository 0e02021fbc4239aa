//! Has the head of the ledger signed whenever it has moved, for stations to keep, and holds the heads that they bring back
//! against the ledger: one that was rolled back, cut, edited or swapped for another does not hold what was signed of it.
//!
//! From then on the signer does nothing any more: what it would count, it might have counted before.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use factory_journal::JournalError;
use factory_proto::ledger_head::{LedgerHead, SignedLedgerHead};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{error, warn};

pub mod layer;

use crate::{ledger::Ledger, provenance::Provenance};

/// A head is at most so old when it is handed out; a token is not kept busy with it.
const AGE: Duration = Duration::from_millis(200);
/// A token that does not sign is not asked again at once.
const PAUSE: Duration = Duration::from_secs(5);
/// Heads that were verified already: each station brings its own newest one.
const BELIEVED: usize = 256;

/// Why a call that brings a head is not answered; each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// Not one of ours.
    #[error(
        "the ledger head that this station keeps is none that this signer has signed: the station was served by another \
         one; if that was replaced on purpose, move `signer-head` out of the station's state folder"
    )]
    Stranger,
    /// The ledger does not hold it.
    #[error("{0}; the signer does nothing any more: stop it, and restore the newest copy of its ledger")]
    Betrayed(String),
    /// The ledger cannot be read.
    #[error("the ledger cannot be read at present; the signer's log says why")]
    Unread,
}

/// Who sees to it that the ledger is the one that stations were answered from. Clones are the same.
#[derive(Clone)]
pub struct Witness(Arc<State>);

struct State {
    ledger: Arc<Ledger>,
    provenance: Arc<Provenance>,
    /// The newest head, as it travels.
    newest: watch::Sender<Option<Arc<[u8]>>>,
    believed: Mutex<VecDeque<Arc<[u8]>>>,
    betrayed: watch::Sender<Option<String>>,
}

impl Witness {
    /// Watches this ledger; nothing is signed yet.
    pub fn new(ledger: Arc<Ledger>, provenance: Arc<Provenance>) -> Self {
        let (newest, betrayed) = (watch::Sender::default(), watch::Sender::default());
        Self(Arc::new(State { ledger, provenance, newest, believed: Mutex::default(), betrayed }))
    }

    /// The head for an answer; none as long as nothing was signed.
    pub fn newest(&self) -> Option<Arc<[u8]>> {
        self.0.newest.borrow().clone()
    }

    /// What the ledger is found to be, once it is found not to hold what was signed of it.
    pub fn betrayed(&self) -> watch::Receiver<Option<String>> {
        self.0.betrayed.subscribe()
    }

    /// Holds against the ledger what a station has brought.
    ///
    /// # Errors
    /// The call must not be answered.
    pub async fn hear(&self, brought: Option<&[u8]>) -> Result<(), WitnessError> {
        if let Some(how) = &*self.0.betrayed.borrow() {
            return Err(WitnessError::Betrayed(how.clone()));
        }
        let Some(brought) = brought.filter(|bytes| !self.believes(bytes)) else { return Ok(()) };
        let (signed, head) = SignedLedgerHead::decode(brought).map_err(|_| WitnessError::Stranger)?;
        if !self.0.provenance.has_signed(&signed.statement, &signed.signature) {
            return Err(WitnessError::Stranger);
        }
        let (state, bytes) = (self.0.clone(), Arc::from(brought));
        let judged = spawn_blocking(move || state.ledger.contradicts(&head)).await;
        match judged.map_err(|_| WitnessError::Unread)? {
            Ok(None) => {
                self.believe(bytes);
                Ok(())
            }
            Ok(Some(how)) => {
                error!(how, "the ledger is not the one that stations were answered from");
                self.0.betrayed.send_replace(Some(how.clone()));
                Err(WitnessError::Betrayed(how))
            }
            Err(failure) => {
                error!(error = &failure as &dyn std::error::Error, "the ledger cannot be read");
                Err(WitnessError::Unread)
            }
        }
    }

    /// Signs the head, now and whenever it has moved. Ends never.
    pub async fn keep_signing(&self) {
        let mut moments = interval(AGE);
        moments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut signed, mut moves) = (None, self.0.ledger.moves());
        loop {
            moments.tick().await;
            let state = self.0.clone();
            let last = *moves.borrow_and_update();
            if signed == Some(last) {
                // Ends with the ledger, which this one holds.
                let _ = moves.changed().await;
                continue;
            }
            match spawn_blocking(move || sign(&state)).await {
                Ok(Ok(Some(head))) => {
                    signed = Some(last);
                    self.believe(head.clone());
                    self.0.newest.send_replace(Some(head));
                }
                Ok(Ok(None)) => signed = Some(last),
                // Health tells of token and ledger; heads come again with them.
                Ok(Err(reason)) => {
                    warn!(reason, "the head of the ledger is not signed");
                    sleep(PAUSE).await;
                }
                Err(defect) => error!(error = &defect as &dyn std::error::Error, "no head was signed"),
            }
        }
    }

    fn believes(&self, bytes: &[u8]) -> bool {
        self.believed().iter().any(|known| **known == *bytes)
    }

    fn believe(&self, bytes: Arc<[u8]>) {
        let mut believed = self.believed();
        believed.truncate(BELIEVED - 1);
        believed.push_front(bytes);
    }

    fn believed(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<[u8]>>> {
        self.0.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sign(state: &State) -> Result<Option<Arc<[u8]>>, String> {
    let head = state.ledger.head().map_err(|failure: JournalError| failure.to_string())?;
    let Some(statement) = head.as_ref().map(LedgerHead::encode) else { return Ok(None) };
    let signature = state.provenance.sign(&statement).map_err(|failure| failure.to_string())?;
    let signed = SignedLedgerHead { statement: statement.into(), signature: signature.into() };
    Ok(Some(signed.encode().into()))
}
