//! The station's side of factory-signerd. Knows its API, and nothing of PKCS#11.

use std::{error::Error as _, path::Path, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use factory_proto::{
    disposition::Disposition,
    head::{HeadStatement, SIGNED_UP_TO},
    signer::{
        self as messages, DescribeRequest, DisposeRequest, IssuanceState, IssueRequest, LookupRequest,
        OpenOrderRequest, SignHeadRequest, signer_client::SignerClient,
    },
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Response, Status, service::interceptor::InterceptedService, transport::Channel};
use tonic_types::StatusExt;
use tracing::warn;
use uuid::Uuid;

use crate::{
    contact::Contact,
    place::{Place, TlsError},
    record::{HeadSigned, IssuanceAsked, Quota},
};

mod books;
mod kept_head;

pub use books::{Place as IssuancePlace, Reckoned, SignerBooks};
use kept_head::KeptHead;

// Tried again for 3 s in all, which is what a service manager takes to bring a signer back.
const PATIENCE: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_millis(800))
    .with_max_times(6);

// A signer that says nothing for so long hangs; certificates are waited for as long as their step may take.
const ANSWER: Duration = Duration::from_secs(10);

type Client = SignerClient<InterceptedService<Channel, KeptHead>>;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Nobody signs at present.
    #[error(
        "the signer cannot be reached at {place}; see that factory-signerd runs and lets this station in: {reason}"
    )]
    Unreachable {
        /// Where it should be.
        place: String,
        /// What it, or the system, said.
        reason: String,
    },
    /// This station, or everybody, asks for too much at a time.
    #[error(
        "the signer has had enough of this station for the moment; see its `rate` in the signer's file: {0}"
    )]
    TooMuch(String),
    /// It does not do this.
    #[error("the signer refused: {0}")]
    Refused(String),
    /// It answered what no signer does.
    #[error(
        "the signer answered what this station does not understand; see that both are of the same version: {0}"
    )]
    Strange(String),
    /// It signed another head of this log, which does not go with this one.
    #[error(
        "the signer knows another head of this log, which was rolled back, changed, or restored from an old copy; \
         stop the station and restore the newest copy: {reason}"
    )]
    OtherHead {
        /// What the signer said.
        reason: String,
        /// The last record of that head, as far as the signer told.
        signed_up_to: Option<u64>,
    },
}

/// A certificate as it came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The device certificate, DER.
    pub certificate: Vec<u8>,
    /// The CA chain above it, DER, the issuing CA first.
    pub issuers: Vec<Vec<u8>>,
}

/// What the signer knows of the issuances of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The one that counts.
    pub live: Option<Uuid>,
    /// The newest one that it never heard of, newer than the one that counts.
    pub unheard: Option<Uuid>,
}

/// A work order as the signer has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// Its id.
    pub order: String,
    /// SHA-256 of the recipe that it is for.
    pub recipe_digest: Vec<u8>,
    /// What may be made of it.
    pub quota: Quota,
    /// SHA-256 of the certificate of the CA that signs for it.
    pub ca_fingerprint: Vec<u8>,
}

/// A connection to factory-signerd, made when it is first needed and again when it was lost.
#[derive(Clone)]
pub struct Signer {
    place: Arc<Place>,
    client: Client,
    head: KeptHead,
    contact: Contact,
}

impl Signer {
    /// The one in this place. Does not connect yet. The newest head of its ledger is kept in the station's folder `state`.
    ///
    /// # Errors
    /// The files for TLS cannot be used.
    pub fn at(place: Place, state: &Path) -> Result<Self, TlsError> {
        let head = KeptHead::read(state);
        let client = SignerClient::with_interceptor(place.way()?.connect_lazily(), head.clone());
        Ok(Self { place: Arc::new(place), client, head, contact: Contact::default() })
    }

    /// Whether it answers.
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Asks for the certificate of an issuance, again where the signer was away for a moment: the same issuance with
    /// the same request is the same certificate.
    pub async fn issue(&self, asked: &IssuanceAsked) -> Result<Certified, SignerError> {
        let request = IssueRequest {
            issuance_id: asked.issuance.to_string(),
            work_order: asked.order.to_string(),
            endpoint_name: asked.endpoint_name.to_string(),
            certificate_request: asked.request.clone(),
            supersedes: asked.supersedes.map_or_else(String::new, |issuance| issuance.to_string()),
            recipe_digest: asked.recipe_digest.into(),
        };
        let issue = |mut client: Client| {
            let request = request.clone();
            async move { client.issue(request).await }
        };
        let issued = self.patiently(Duration::MAX, issue).await?;
        Ok(Certified { certificate: issued.certificate, issuers: issued.issuers })
    }

    /// What the signer knows of the issuances of a unit, which are given oldest first.
    pub async fn known_of(&self, issuances: &[IssuanceAsked]) -> Result<Known, SignerError> {
        let mut known = Known { live: None, unheard: None };
        for asked in issuances.iter().rev() {
            match self.lookup(asked.issuance).await? {
                IssuanceState::Asked | IssuanceState::Issued => {
                    known.live = Some(asked.issuance);
                    break;
                }
                IssuanceState::Unspecified | IssuanceState::Unknown => {
                    known.unheard.get_or_insert(asked.issuance);
                }
                IssuanceState::Void => {}
            }
        }
        Ok(known)
    }

    /// Opens a work order as the brand owner signed it; one that is open already is answered as it stands.
    pub async fn open_order(&self, signed_order: &str) -> Result<Ordered, SignerError> {
        let request = OpenOrderRequest { signed_order: signed_order.to_owned() };
        let open = |mut client: Client| {
            let request = request.clone();
            async move { client.open_order(request).await }
        };
        let order = self.patiently(ANSWER, open).await?;
        let quota = Quota {
            product: order.product,
            quantity: order.quantity,
            spare: order.spare,
            replacements: order.replacements,
            not_before: order.not_before,
            not_after: order.not_after,
        };
        Ok(Ordered {
            order: order.work_order,
            recipe_digest: order.recipe_digest,
            quota,
            ca_fingerprint: order.ca_fingerprint,
        })
    }

    /// The certificate of the CA that signs here, DER.
    pub async fn ca_certificate(&self) -> Result<Vec<u8>, SignerError> {
        let describe = |mut client: Client| async move { client.describe(DescribeRequest {}).await };
        Ok(self.patiently(ANSWER, describe).await?.ca_certificate)
    }

    /// Tells what became of the unit of an issuance.
    pub async fn dispose(&self, issuance: Uuid, disposition: Disposition) -> Result<(), SignerError> {
        let wire = messages::Disposition::from(disposition);
        let request = DisposeRequest { issuance_id: issuance.to_string(), disposition: wire.into() };
        let dispose = |mut client: Client| {
            let request = request.clone();
            async move { client.dispose(request).await }
        };
        self.patiently(ANSWER, dispose).await.map(drop)
    }

    /// What became of an issuance.
    async fn lookup(&self, issuance: Uuid) -> Result<IssuanceState, SignerError> {
        let request = LookupRequest { issuance_id: issuance.to_string() };
        let lookup = |mut client: Client| {
            let request = request.clone();
            async move { client.lookup(request).await }
        };
        Ok(self.patiently(ANSWER, lookup).await?.state())
    }

    /// Asks for a signature under what the log is. What comes back is not checked.
    pub async fn sign_head(&self, head: &HeadStatement) -> Result<HeadSigned, SignerError> {
        let request = SignHeadRequest {
            station: head.station.clone(),
            log_id: head.log_id.to_vec(),
            first_sequence: head.first_sequence,
            last_sequence: head.last_sequence,
            chain_hash: head.chain_hash.to_vec(),
            merkle_root: head.merkle_root.to_vec(),
            closed_runs: head.closed_runs,
            time: head.time,
        };
        let signed = self.client.clone().sign_head(request).await.map_err(|status| match status.code() {
            Code::FailedPrecondition => {
                self.contact.answered();
                let (reason, signed_up_to) = (status.message().to_owned(), signed_up_to(&status));
                SignerError::OtherHead { reason, signed_up_to }
            }
            _ => self.refused(&status),
        })?;
        let signed = self.learn(signed).await;
        Ok(HeadSigned {
            statement: signed.statement,
            signature: signed.signature,
            certificates: signed.certificates.into_iter().map(Into::into).collect(),
        })
    }

    /// Calls again where the signer was away for a moment; gives up one that does not answer.
    async fn patiently<T, F>(&self, patience: Duration, call: impl Fn(Client) -> F) -> Result<T, SignerError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut pauses = PATIENCE.build();
        loop {
            let refused = match timeout(patience, call(self.client.clone())).await {
                Ok(Ok(answer)) => return Ok(self.learn(answer).await),
                Ok(Err(status)) => self.refused(&status),
                Err(_) => return Err(self.silent()),
            };
            let (SignerError::Unreachable { reason, .. } | SignerError::TooMuch(reason)) = &refused else {
                return Err(refused);
            };
            let Some(pause) = pauses.next() else { return Err(refused) };
            warn!(reason, retry_in = ?pause, "the signer is away");
            sleep(pause).await;
        }
    }

    fn silent(&self) -> SignerError {
        let reason = format!("it did not answer within {} s", ANSWER.as_secs());
        let silent = SignerError::Unreachable { place: self.place.to_string(), reason };
        self.contact.is_away(&silent.to_string());
        silent
    }

    async fn learn<T>(&self, answer: Response<T>) -> T {
        self.contact.answered();
        self.head.learn(answer.metadata()).await;
        answer.into_inner()
    }

    fn refused(&self, status: &Status) -> SignerError {
        let refused = self.refusal(status);
        match &refused {
            SignerError::Unreachable { .. } => self.contact.is_away(&refused.to_string()),
            _ => self.contact.answered(),
        }
        refused
    }

    fn refusal(&self, status: &Status) -> SignerError {
        let reason = status.message().to_owned();
        // What did not come from the signer has a cause: the connection, which may have broken in mid-call.
        if status.code() == Code::Unavailable || status.source().is_some() {
            SignerError::Unreachable { place: self.place.to_string(), reason }
        } else if status.code() == Code::ResourceExhausted && status.get_details_retry_info().is_some() {
            SignerError::TooMuch(reason)
        } else {
            SignerError::Refused(reason)
        }
    }
}

fn signed_up_to(status: &Status) -> Option<u64> {
    status.metadata().get(SIGNED_UP_TO)?.to_str().ok()?.parse().ok()
}
