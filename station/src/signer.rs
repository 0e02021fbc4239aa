//! The station's side of factory-signerd. Knows its API, and nothing of PKCS#11.

use std::{error::Error as _, path::Path, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use factory_proto::{
    head::{HeadStatement, SIGNED_UP_TO},
    signer::{IssuanceState, IssueRequest, LookupRequest, SignHeadRequest, signer_client::SignerClient},
};
use tokio::time::sleep;
use tonic::{Code, Status, transport::Channel};
use tracing::warn;
use uuid::Uuid;

use crate::record::{HeadSigned, IssuanceAsked};

mod place;

use place::to_socket;
pub use place::{SignerPlace, SignerTls, SignerTlsError};

// Tried again for 3 s in all, which is what a service manager takes to bring a signer back.
const PATIENCE: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_millis(800))
    .with_max_times(6);

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
    /// It does not sign this.
    #[error("the signer refused: {0}")]
    Refused(String),
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

/// A connection to factory-signerd, made when it is first needed and again when it was lost.
#[derive(Clone)]
pub struct Signer {
    place: Arc<SignerPlace>,
    client: SignerClient<Channel>,
}

impl Signer {
    /// `path` is its Unix socket. Does not connect yet.
    pub fn new(path: &Path) -> Self {
        let place = Arc::new(SignerPlace::Socket(path.to_owned()));
        Self { place, client: SignerClient::new(to_socket(path)) }
    }

    /// The one in this place. Does not connect yet.
    ///
    /// # Errors
    /// The files for TLS cannot be used.
    pub fn at(place: SignerPlace) -> Result<Self, SignerTlsError> {
        let client = SignerClient::new(place.connect_lazily()?);
        Ok(Self { place: Arc::new(place), client })
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
        };
        let issue = |mut client: SignerClient<Channel>| {
            let request = request.clone();
            async move { client.issue(request).await }
        };
        let issued = self.patiently(issue).await?.into_inner();
        Ok(Certified { certificate: issued.certificate, issuers: issued.issuers })
    }

    /// What became of an issuance.
    pub async fn lookup(&self, issuance: Uuid) -> Result<IssuanceState, SignerError> {
        let request = LookupRequest { issuance_id: issuance.to_string() };
        let lookup = |mut client: SignerClient<Channel>| {
            let request = request.clone();
            async move { client.lookup(request).await }
        };
        Ok(self.patiently(lookup).await?.into_inner().state())
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
            Code::FailedPrecondition => SignerError::OtherHead {
                reason: status.message().to_owned(),
                signed_up_to: signed_up_to(&status),
            },
            _ => self.refused(&status),
        })?;
        let signed = signed.into_inner();
        Ok(HeadSigned {
            statement: signed.statement,
            signature: signed.signature,
            certificates: signed.certificates.into_iter().map(Into::into).collect(),
        })
    }

    async fn patiently<T, F>(&self, call: impl Fn(SignerClient<Channel>) -> F) -> Result<T, SignerError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut pauses = PATIENCE.build();
        loop {
            let refused = match call(self.client.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => self.refused(&status),
            };
            let (SignerError::Unreachable { reason, .. } | SignerError::TooMuch(reason)) = &refused else {
                return Err(refused);
            };
            let Some(pause) = pauses.next() else { return Err(refused) };
            warn!(reason, retry_in = ?pause, "the signer is away");
            sleep(pause).await;
        }
    }

    fn refused(&self, status: &Status) -> SignerError {
        let reason = status.message().to_owned();
        // What did not come from the signer has a cause: the connection, which may have broken in mid-call.
        if status.code() == Code::Unavailable || status.source().is_some() {
            SignerError::Unreachable { place: self.place.to_string(), reason }
        } else if status.code() == Code::ResourceExhausted {
            SignerError::TooMuch(reason)
        } else {
            SignerError::Refused(reason)
        }
    }
}

fn signed_up_to(status: &Status) -> Option<u64> {
    status.metadata().get(SIGNED_UP_TO)?.to_str().ok()?.parse().ok()
}
