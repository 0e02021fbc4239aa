//! The station's side of factory-signerd. Knows its API, and nothing of PKCS#11.

use std::path::{Path, PathBuf};

use factory_proto::{
    ids::{EndpointName, OrderId},
    signer::{IssueRequest, signer_client::SignerClient},
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

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
        let issued = self.client.clone().issue(request).await.map_err(|status| match status.code() {
            Code::Unavailable => {
                SignerError::Unreachable { path: self.path.clone(), reason: status.message().to_owned() }
            }
            _ => SignerError::Refused(status.message().to_owned()),
        })?;
        let issued = issued.into_inner();
        Ok(Certified { certificate: issued.certificate, issuers: issued.issuers })
    }
}
