//! The signer's memory: what was asked, issued, superseded and signed, durable before it has an effect.
//!
//! What is decided about a request is durable before one is decided that may build on it; and nothing is believed in
//! memory that is not on the disk. Requests that wait for each other are counted together and share a sync.

use std::{
    mem,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use factory_journal::{Journal, JournalError, Options, Room, Sequence};
use factory_proto::{head::HeadStatement, ledger_head::LedgerHead};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

mod accounts;
mod batch;
mod orders;
pub mod reconcile;
pub mod record;
pub mod report;

use accounts::Accounts;
pub use accounts::{Account, Decision, HeadRefusal, Place, Refusal, Standing, Voided};
use batch::Batch;
pub use orders::{OrderAccount, OrderRefusal};
use record::{Asked, Disposed, HeadSigned, Issued, OrderOpened, Record};

use crate::order::{OrderKeys, WorkOrder};

/// So many requests share a sync at most; a lookup in them is a walk.
const TOGETHER: usize = 64;

type Answer = Result<Result<Decision, Refusal>, Arc<JournalError>>;

/// A request to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// As the ledger keeps it.
    pub asked: Asked,
    /// SHA-256 of the recipe that the unit is made by.
    pub recipe: [u8; 32],
    /// Seconds since 1970 UTC.
    pub now: i64,
}

/// Where an issuance is reckoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reckoned {
    /// Its id.
    pub issuance: String,
    /// The name of its device.
    pub endpoint_name: String,
    /// In its order's books.
    pub place: Place,
}

/// An open ledger.
pub struct Ledger {
    journal: Journal<Record>,
    accounts: Mutex<Accounts>,
    /// Held from a decision until it is durable.
    deciding: tokio::sync::Mutex<()>,
    moves: watch::Sender<Sequence>,
    /// Requests that wait for that.
    waiting: Mutex<Vec<(Claim, oneshot::Sender<Answer>)>>,
}

impl Ledger {
    /// Opens the ledger in `dir`, or begins one. Orders in it that `keys` have not signed are no longer followed. Blocks:
    /// reads all of it.
    ///
    /// # Errors
    /// It is damaged, in use, or cannot be read.
    pub fn open(dir: &Path, keys: &OrderKeys) -> Result<Self, JournalError> {
        let journal = Journal::<Record>::open(dir, Options::default())?;
        let mut accounts = Accounts::default();
        for entry in journal.read(Sequence::START) {
            let entry = entry?;
            accounts.see(seconds(entry.time));
            accounts.learn(entry.sequence, &entry.record);
        }
        accounts.trust(keys);
        let moves = watch::Sender::new(journal.last());
        Ok(Self {
            journal,
            moves,
            accounts: Mutex::new(accounts),
            deciding: tokio::sync::Mutex::default(),
            waiting: Mutex::default(),
        })
    }

    /// Counts a request: decided, and durable, before anything is signed for it. Must not be dropped before it ends.
    ///
    /// # Errors
    /// It is refused; or the ledger takes nothing more.
    pub async fn count(&self, claim: Claim) -> Result<Result<Decision, Refusal>, Arc<JournalError>> {
        let (answer, mut answered) = oneshot::channel();
        self.waiting().push((claim, answer));
        loop {
            // Whoever has the turn decides for all who wait.
            let _alone = self.deciding.lock().await;
            match answered.try_recv() {
                Ok(answer) => return answer,
                Err(oneshot::error::TryRecvError::Empty) => self.count_together().await,
                // Whoever had this one was cut off in the middle of it.
                Err(oneshot::error::TryRecvError::Closed) => return Err(Arc::new(JournalError::Closed)),
            }
        }
    }

    /// Counts some of those who wait, the first one among them.
    async fn count_together(&self) {
        let (mut batch, mut new, mut later) = (Batch::default(), Vec::new(), Vec::new());
        for (claim, answer) in mem::take(&mut *self.waiting()) {
            if new.len() == TOGETHER || batch.meets(&claim.asked) {
                later.push((claim, answer));
                continue;
            }
            let mut accounts = self.lock();
            accounts.see(claim.now);
            match accounts.decide(&claim.asked, claim.recipe, claim.now, &batch) {
                Ok(Decision::New) => {
                    batch.add(&claim.asked, accounts.replaces(&claim.asked));
                    new.push((claim.asked, answer));
                }
                settled => tell(answer, Ok(settled)),
            }
        }
        self.waiting().splice(..0, later);
        let records = new.iter().map(|(asked, _)| Record::Asked(asked.clone())).collect();
        match self.append_all(records).await {
            Ok(_) => {
                for (asked, answer) in new {
                    self.lock().ask(&asked);
                    tell(answer, Ok(Ok(Decision::New)));
                }
            }
            Err(failure) => {
                let failure = Arc::new(failure);
                for (_, answer) in new {
                    tell(answer, Err(failure.clone()));
                }
            }
        }
    }

    /// Opens a work order; one that is open already stays as it is. Must not be dropped before it ends.
    ///
    /// # Errors
    /// Another one is open by its id; or the ledger takes nothing more.
    pub async fn open_order(
        &self,
        order: WorkOrder,
        signed: String,
    ) -> Result<Result<OrderAccount, OrderRefusal>, JournalError> {
        let _alone = self.deciding.lock().await;
        let decision = self.lock().decide_order(&order);
        match decision {
            Ok(true) => {}
            Ok(false) => return Ok(self.order(order.order.as_str())),
            Err(refusal) => return Ok(Err(refusal)),
        }
        let opened = OrderOpened { order: order.order.to_string(), signed: signed.clone() };
        self.append(Record::OrderOpened(opened)).await?;
        let id = order.order.clone();
        self.lock().order_opened(order, signed);
        Ok(self.order(id.as_str()))
    }

    /// What is known of a work order.
    ///
    /// # Errors
    /// It is not open.
    pub fn order(&self, id: &str) -> Result<OrderAccount, OrderRefusal> {
        self.lock().order(id).cloned()
    }

    /// At most `size` of an order's issuances behind the first `from`, as they were counted, and whether there are more.
    ///
    /// # Errors
    /// The order is not open.
    pub fn issuances(
        &self,
        order: &str,
        from: usize,
        size: usize,
    ) -> Result<(Vec<Reckoned>, bool), OrderRefusal> {
        let accounts = self.lock();
        accounts.order(order)?;
        let mut behind = accounts.issuances(order).skip(from);
        let reckoned = |(id, account): (&str, &Account)| Reckoned {
            issuance: id.to_owned(),
            endpoint_name: account.endpoint_name.clone(),
            place: account.place(),
        };
        let page = behind.by_ref().take(size).map(reckoned).collect();
        Ok((page, behind.next().is_some()))
    }

    /// Keeps what became of an issuance's unit. Must not be dropped before it ends.
    ///
    /// # Errors
    /// It is refused; or the ledger takes nothing more.
    pub async fn dispose(&self, disposed: Disposed, now: i64) -> Result<Result<(), Refusal>, JournalError> {
        let _alone = self.deciding.lock().await;
        self.lock().see(now);
        let decision = self.lock().decide_disposal(&disposed);
        match decision {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(())),
            Err(refusal) => return Ok(Err(refusal)),
        }
        self.append(Record::Disposed(disposed.clone())).await?;
        self.lock().disposed(&disposed);
        Ok(Ok(()))
    }

    /// Keeps a certificate; must not be dropped before it ends. Says whether it may be answered: not when it was superseded while it was signed.
    ///
    /// # Errors
    /// The ledger takes nothing more: the certificate must be forgotten.
    pub async fn keep(&self, issuance: Uuid, certificate: Vec<u8>) -> Result<bool, JournalError> {
        let issuance = issuance.to_string();
        let record = Record::Issued(Issued { issuance: issuance.clone(), certificate });
        let sequence = self.append(record).await?;
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
        self.append(Record::HeadSigned(signed.clone())).await?;
        self.lock().head_signed(statement, signed);
        Ok(())
    }

    /// Its last record.
    pub fn last(&self) -> Sequence {
        self.journal.last()
    }

    /// Its head; none as long as nothing is in it. Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn head(&self) -> Result<Option<LedgerHead>, JournalError> {
        let (first, last) =
            (self.journal.get(Sequence::START.next())?, self.journal.get(self.journal.last())?);
        Ok(first
            .zip(last)
            .map(|(first, last)| LedgerHead::new(log_id(&first.hash), last.sequence.get(), last.hash)))
    }

    /// How it contradicts a head that was signed of it, if it does. Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn contradicts(&self, head: &LedgerHead) -> Result<Option<String>, JournalError> {
        let Some(first) = self.journal.get(Sequence::START.next())? else {
            return Ok(Some(format!(
                "the ledger is empty, and its head was signed at record {}",
                head.sequence
            )));
        };
        if log_id(&first.hash) != head.log_id {
            return Ok(Some("the ledger is another one than its head was signed of".to_owned()));
        }
        let last = self.journal.last().get();
        if head.sequence > last {
            let signed = head.sequence;
            return Ok(Some(format!(
                "the ledger ends at record {last}, and its head was signed at record {signed}: it was rolled back or cut"
            )));
        }
        let same = self.journal.get(head.sequence.into())?.is_some_and(|entry| entry.hash == head.hash);
        let sequence = head.sequence;
        Ok((!same).then(|| {
            format!("record {sequence} of the ledger is another one than its head was signed at: it was rolled back or edited")
        }))
    }

    /// Tells its last record whenever there is another one.
    pub fn moves(&self) -> watch::Receiver<Sequence> {
        self.moves.subscribe()
    }

    /// How many issuances are void.
    pub fn voided_count(&self) -> usize {
        self.lock().voided_count()
    }

    /// The void issuances of the CA with this fingerprint, and when this is true: `now`, or when the newest record was
    /// seen; seconds since 1970 UTC.
    pub fn voided(&self, authority: [u8; 32], now: i64) -> (i64, Vec<Voided>) {
        self.lock().voided(authority, now)
    }

    /// Whether there is room for new issuances.
    pub fn room(&self) -> watch::Receiver<Room> {
        self.journal.room()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<(Claim, oneshot::Sender<Answer>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&self, record: Record) -> Result<Sequence, JournalError> {
        self.append_all(vec![record]).await
    }

    async fn append_all(&self, records: Vec<Record>) -> Result<Sequence, JournalError> {
        let sequence = self.journal.append_all(records).await?;
        self.moves.send_replace(sequence);
        Ok(sequence)
    }

    // No step under these locks can fail half-way.
    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever waited may have been cut off.
fn tell(answer: oneshot::Sender<Answer>, what: Answer) {
    let _ = answer.send(what);
}

fn seconds(time: SystemTime) -> i64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

/// A ledger is known by its first record, whose time no other one has.
fn log_id(first: &[u8; 32]) -> [u8; 16] {
    *first.first_chunk().expect("a hash is longer than an id")
}
