//! The station's side of factory-signerd. Knows its API, and nothing of PKCS#11.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use factory_proto::signer::{IssuanceState, IssueRequest, LookupRequest, signer_client::SignerClient};
use tokio::time::sleep;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tracing::warn;
use uuid::Uuid;

use crate::record::IssuanceAsked;

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
        "the signer cannot be reached at {path}; see that factory-signerd runs and that the station's user may open its socket: {reason}"
    )]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// What it, or the system, said.
        reason: String,
    },
    /// It does not sign this.
    #[error("the signer refused: {0}")]
    Refused(String),
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
    path: PathBuf,
    client: SignerClient<Channel>,
}

impl Signer {
    /// `path` is its Unix socket. Does not connect yet.
    pub fn new(path: &Path) -> Self {
        let socket = format!("unix:{}", path.display());
        let endpoint = Endpoint::from_shared(socket).expect("tonic takes any path behind unix:");
        Self { path: path.to_owned(), client: SignerClient::new(endpoint.connect_lazy()) }
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

    async fn patiently<T, F>(&self, call: impl Fn(SignerClient<Channel>) -> F) -> Result<T, SignerError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut pauses = PATIENCE.build();
        loop {
            let status = match call(self.client.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            if status.code() != Code::Unavailable {
                return Err(SignerError::Refused(status.message().to_owned()));
            }
            let Some(pause) = pauses.next() else {
                let reason = status.message().to_owned();
                return Err(SignerError::Unreachable { path: self.path.clone(), reason });
            };
            warn!(reason = status.message(), retry_in = ?pause, "the signer is away");
            sleep(pause).await;
        }
    }
}
