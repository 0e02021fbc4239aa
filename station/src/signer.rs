//! The station's side of factory-signerd. Knows its API, and nothing of PKCS#11.

use std::path::{Path, PathBuf};

use factory_proto::{
    head::HeadStatement,
    ids::{EndpointName, OrderId},
    signer::{IssueRequest, SignHeadRequest, signer_client::SignerClient},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use crate::record::HeadSigned;

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
    /// It signed a head of this log that lies ahead of the log.
    #[error(
        "the signer knows a newer head of this log than the log itself, which was rolled back or restored from an old copy; \
         stop the station and restore the newest copy: {0}"
    )]
    Behind(String),
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

    /// Asks for a certificate for the key in `request`, a PKCS#10 request in DER.
    pub async fn issue(
        &self,
        issuance: Uuid,
        order: &OrderId,
        endpoint_name: &EndpointName,
        request: &[u8],
    ) -> Result<Certified, SignerError> {
        let request = IssueRequest {
            issuance_id: issuance.to_string(),
            work_order: order.to_string(),
            endpoint_name: endpoint_name.to_string(),
            certificate_request: request.to_vec(),
            supersedes: String::new(),
        };
        let issued = self.client.clone().issue(request).await.map_err(|status| self.refused(&status))?;
        let issued = issued.into_inner();
        Ok(Certified { certificate: issued.certificate, issuers: issued.issuers })
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
            Code::FailedPrecondition => SignerError::Behind(status.message().to_owned()),
            _ => self.refused(&status),
        })?;
        let signed = signed.into_inner();
        Ok(HeadSigned {
            statement: signed.statement,
            signature: signed.signature,
            certificates: signed.certificates.into_iter().map(Into::into).collect(),
        })
    }

    fn refused(&self, status: &Status) -> SignerError {
        let reason = status.message().to_owned();
        match status.code() {
            Code::Unavailable => SignerError::Unreachable { path: self.path.clone(), reason },
            _ => SignerError::Refused(reason),
        }
    }
}
