//! Issues each certificate once: into the ledger first, then to the token, then into the ledger, then out.
//!
//! Knows nothing of gRPC. However often a station asks, and whenever this process dies: one issuance is one
//! certificate, and no device has two that are live.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use factory_journal::JournalError;
use factory_proto::{head::HeadStatement, ids::OrderId};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::task::{JoinError, spawn_blocking};
use uuid::Uuid;

use crate::{
    issuer::{IssueError, Issuer, Request},
    issuers::{Issuers, Unfit},
    ledger::{
        Account, Claim, Decision, HeadRefusal, Ledger, OrderAccount, OrderRefusal, Reckoned, Refusal,
        record::{Asked, Disposed, HeadSigned},
    },
    order::{OrderError, OrderKeys, WorkOrder},
    provenance::Provenance,
    token::key::SigningError,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    /// The rules do not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The head does not follow from those before.
    #[error(transparent)]
    Head(#[from] HeadRefusal),
    /// It could not be signed.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The head could not be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The ledger takes nothing more, or cannot be read.
    #[error("the ledger failed")]
    Ledger(#[source] Arc<JournalError>),
    /// An order for another signer.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A defect.
    #[error("the signer failed in the middle of a request")]
    Panicked(#[from] JoinError),
}

impl From<JournalError> for RegistrarError {
    fn from(failure: JournalError) -> Self {
        Self::Ledger(Arc::new(failure))
    }
}

impl From<Arc<JournalError>> for RegistrarError {
    fn from(failure: Arc<JournalError>) -> Self {
        Self::Ledger(failure)
    }
}

/// A certificate, as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// DER.
    pub der: Vec<u8>,
    /// The CA's, and those above it, DER.
    pub issuers: Vec<CertificateDer<'static>>,
    /// Whether it had been issued before.
    pub repeated: bool,
}

/// The issuer, the provenance key and the ledger at work.
pub struct Registrar {
    issuers: Arc<Issuers>,
    provenance: Arc<Provenance>,
    ledger: Arc<Ledger>,
    order_keys: OrderKeys,
    /// Who works on an issuance: a second request for it waits for the first.
    at_work: Mutex<HashMap<Uuid, Weak<tokio::sync::Mutex<()>>>>,
    /// Heads are signed one after the other.
    heads: tokio::sync::Mutex<()>,
}

impl Registrar {
    /// Brings them together.
    pub fn new(
        issuers: Arc<Issuers>,
        provenance: Arc<Provenance>,
        ledger: Arc<Ledger>,
        order_keys: OrderKeys,
    ) -> Self {
        let (at_work, heads) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { issuers, provenance, ledger, order_keys, at_work, heads }
    }

    /// Who issues.
    pub fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Who signs heads.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Opens a work order.
    ///
    /// # Errors
    /// The brand owner did not sign it, this signer cannot follow it, another one is open by its id; or the ledger takes
    /// nothing.
    pub async fn open_order(&self, order: WorkOrder, signed: String) -> Result<OrderAccount, RegistrarError> {
        self.issuers.of(&order)?;
        Ok(self.ledger.open_order(order, signed).await?.map_err(Refusal::from)?)
    }

    /// Reads a signed work order.
    ///
    /// # Errors
    /// It is none, or the brand owner did not sign it.
    pub fn read_order(&self, signed: &str) -> Result<WorkOrder, OrderError> {
        WorkOrder::verify(signed, &self.order_keys)
    }

    /// What is known of a work order.
    ///
    /// # Errors
    /// It is not open.
    pub fn order(&self, id: &OrderId) -> Result<OrderAccount, OrderRefusal> {
        self.ledger.order(id.as_str())
    }

    /// At most `size` of an order's issuances behind the first `from`, as they were counted, and whether there are more.
    ///
    /// # Errors
    /// The order is not open.
    pub fn issuances(
        &self,
        order: &OrderId,
        from: usize,
        size: usize,
    ) -> Result<(Vec<Reckoned>, bool), OrderRefusal> {
        self.ledger.issuances(order.as_str(), from, size)
    }

    /// Keeps what became of an issuance's unit.
    ///
    /// # Errors
    /// It cannot have become that; or the ledger takes nothing.
    pub async fn dispose(&self, disposed: Disposed, now: OffsetDateTime) -> Result<(), RegistrarError> {
        Ok(self.ledger.dispose(disposed, now.unix_timestamp()).await??)
    }

    /// The certificate of an issuance: signed now, or the one that was signed before.
    ///
    /// # Errors
    /// It is refused; or nobody can sign or remember at present, and the same request may be sent again.
    pub async fn issue(&self, request: Request, now: OffsetDateTime) -> Result<Certificate, RegistrarError> {
        let turn = self.turn(request.issuance);
        let _alone = turn.lock().await;
        let order = self.order(&request.order).map_err(Refusal::from)?.order;
        let issuer = self.issuers.of(&order)?;
        let asked = asked(&request, &issuer, now)?;
        let claim = Claim { asked: asked.clone(), recipe: request.recipe, now: now.unix_timestamp() };
        let terms = match self.ledger.count(claim).await?? {
            Decision::New => asked.terms,
            Decision::Again(terms) => terms,
            Decision::Answer(sequence) => {
                let ledger = self.ledger.clone();
                let kept = spawn_blocking(move || ledger.certificate(sequence)).await??;
                let der = kept.ok_or(Refusal::Superseded)?;
                return Ok(Certificate { der, issuers: issuer.chain().to_vec(), repeated: true });
            }
        };
        let (issuing, issuance) = (issuer.clone(), request.issuance);
        let issued = spawn_blocking(move || issuing.issue(&request, terms, now)).await??;
        if !self.ledger.keep(issuance, issued.to_vec()).await? {
            return Err(Refusal::Superseded.into());
        }
        Ok(Certificate { der: issued.to_vec(), issuers: issuer.chain().to_vec(), repeated: false })
    }

    /// What became of an issuance.
    pub fn account(&self, issuance: Uuid) -> Option<Account> {
        self.ledger.account(issuance)
    }

    /// The certificate of an issuance that has one.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn certificate(&self, account: &Account) -> Result<Vec<u8>, RegistrarError> {
        use crate::ledger::Standing::{Asked, Issued, Void};
        let sequence = match account.standing {
            Issued(sequence) | Void(Some(sequence)) => sequence,
            Asked(_) | Void(None) => return Ok(Vec::new()),
        };
        let ledger = self.ledger.clone();
        Ok(spawn_blocking(move || ledger.certificate(sequence)).await??.unwrap_or_default())
    }

    /// Signs the head of a station's log, unless it lies behind one that was signed before.
    ///
    /// # Errors
    /// It is refused; or nobody can sign or remember at present.
    pub async fn sign_head(&self, statement: HeadStatement) -> Result<HeadSigned, RegistrarError> {
        let _alone = self.heads.lock().await;
        if let Some(answer) = self.ledger.decide_head(&statement)? {
            return Ok(answer);
        }
        let (provenance, bytes) = (self.provenance.clone(), statement.encode());
        let message = bytes.clone();
        let signature = spawn_blocking(move || provenance.sign(&message)).await??;
        let signed = HeadSigned { statement: bytes, signature };
        self.ledger.keep_head(statement, signed.clone()).await?;
        Ok(signed)
    }

    fn turn(&self, issuance: Uuid) -> Arc<tokio::sync::Mutex<()>> {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = at_work.get(&issuance).and_then(Weak::upgrade) {
            return turn;
        }
        at_work.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        at_work.insert(issuance, Arc::downgrade(&turn));
        turn
    }
}

/// The request as the ledger keeps it.
fn asked(request: &Request, issuer: &Issuer, now: OffsetDateTime) -> Result<Asked, IssueError> {
    let mut all = Sha256::new();
    let supersedes = request.supersedes.map(|issuance| issuance.to_string());
    let texts =
        [request.order.as_str(), request.endpoint.as_str(), supersedes.as_deref().unwrap_or_default()];
    let bytes = [request.certificate_request.as_slice(), &request.recipe];
    for part in texts.iter().map(|text| text.as_bytes()).chain(bytes) {
        all.update((part.len() as u64).to_be_bytes());
        all.update(part);
    }
    Ok(Asked {
        issuance: request.issuance.to_string(),
        order: request.order.to_string(),
        endpoint_name: request.endpoint.to_string(),
        key: Sha256::digest(request.key.spki()).into(),
        request: all.finalize().into(),
        supersedes,
        terms: issuer.terms(&request.endpoint, now)?,
    })
}
