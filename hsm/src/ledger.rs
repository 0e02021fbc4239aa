//! The signer's memory: what was asked, issued, superseded and signed, durable before it has an effect.
//!
//! What is decided about a request is durable before the next one is decided, since that may build on it; and nothing is
//! believed in memory that is not on the disk. Certificates are kept side by side, and share their syncs.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use factory_journal::{Journal, JournalError, Options, Room, Sequence};
use factory_proto::head::HeadStatement;
use tokio::sync::watch;
use uuid::Uuid;

mod accounts;
pub mod record;
pub mod report;

use accounts::Accounts;
pub use accounts::{Account, Decision, HeadRefusal, Refusal, Standing};
use record::{Asked, HeadSigned, Issued, Record};

/// An open ledger.
pub struct Ledger {
    journal: Journal<Record>,
    accounts: Mutex<Accounts>,
    /// Held from a decision until it is durable.
    deciding: tokio::sync::Mutex<()>,
}

impl Ledger {
    /// Opens the ledger in `dir`, or begins one. Blocks: reads all of it.
    ///
    /// # Errors
    /// It is damaged, in use, or cannot be read.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let journal = Journal::<Record>::open(dir, Options::default())?;
        let mut accounts = Accounts::default();
        for entry in journal.read(Sequence::START) {
            let entry = entry?;
            accounts.learn(entry.sequence, &entry.record);
        }
        Ok(Self { journal, accounts: Mutex::new(accounts), deciding: tokio::sync::Mutex::default() })
    }

    /// Counts a request: decided, and durable, before anything is signed for it. Must not be dropped before it ends.
    ///
    /// # Errors
    /// It is refused; or the ledger takes nothing more.
    pub async fn count(&self, asked: Asked) -> Result<Result<Decision, Refusal>, JournalError> {
        let _alone = self.deciding.lock().await;
        let decision = self.lock().decide(&asked);
        if decision == Ok(Decision::New) {
            self.journal.append(Record::Asked(asked.clone())).await?;
            self.lock().ask(&asked);
        }
        Ok(decision)
    }

    /// Keeps a certificate; must not be dropped before it ends. Says whether it may be answered: not when it was superseded while it was signed.
    ///
    /// # Errors
    /// The ledger takes nothing more: the certificate must be forgotten.
    pub async fn keep(&self, issuance: Uuid, certificate: Vec<u8>) -> Result<bool, JournalError> {
        let issuance = issuance.to_string();
        let record = Record::Issued(Issued { issuance: issuance.clone(), certificate });
        let sequence = self.journal.append(record).await?;
        let mut accounts = self.lock();
        accounts.issued(&issuance, sequence);
        Ok(accounts.account(&issuance).is_some_and(|account| matches!(account.standing, Standing::Issued(_))))
    }

    /// A certificate that was kept. Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn certificate(&self, sequence: Sequence) -> Result<Option<Vec<u8>>, JournalError> {
        let record = self.journal.get(sequence)?.map(|entry| entry.record);
        Ok(if let Some(Record::Issued(issued)) = record { Some(issued.certificate) } else { None })
    }

    /// What is known of an issuance.
    pub fn account(&self, issuance: Uuid) -> Option<Account> {
        self.lock().account(&issuance.to_string()).cloned()
    }

    /// The answer to a head that was signed before.
    ///
    /// # Errors
    /// Why it must not be signed.
    pub fn decide_head(&self, asked: &HeadStatement) -> Result<Option<HeadSigned>, HeadRefusal> {
        self.lock().decide_head(asked)
    }

    /// Keeps a signed head.
    ///
    /// # Errors
    /// The ledger takes nothing more: the signature must be forgotten.
    pub async fn keep_head(&self, statement: HeadStatement, signed: HeadSigned) -> Result<(), JournalError> {
        self.journal.append(Record::HeadSigned(signed.clone())).await?;
        self.lock().head_signed(statement, signed);
        Ok(())
    }

    /// Whether there is room for new issuances.
    pub fn room(&self) -> watch::Receiver<Room> {
        self.journal.room()
    }

    // No step under this lock can fail half-way.
    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
