//! Issues device certificates: checked request in, verified certificate out.
//!
//! Knows the certificate and its checks. Knows nothing of gRPC, and nothing of what was issued before.

use std::sync::Arc;

use factory_proto::ids::{EndpointName, OrderId};
use rcgen::{Issuer as RcgenIssuer, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    authority::{Authority, VerifyError},
    csr::DeviceKey,
    ledger::record::Terms,
    profile::{
        self, Validity,
        device::{Profile, ProfileError},
    },
    token::{
        key::{RemoteKey, SigningError},
        pool::SigningPool,
    },
};

/// Asks for one device certificate; all in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the station; the same id means the same certificate.
    pub issuance: Uuid,
    /// The work order that the unit belongs to.
    pub order: OrderId,
    /// Becomes the CN.
    pub endpoint: EndpointName,
    /// The device's key, proven to be in its possession.
    pub key: DeviceKey,
    /// SHA-256 of the recipe that the unit is made by.
    pub recipe: [u8; 32],
    /// The request it came in, PKCS#10 in DER.
    pub certificate_request: Vec<u8>,
    /// The issuance that is void from then on, because its key died.
    pub supersedes: Option<Uuid>,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The profile has no place for the device, or the CA is too old.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The token did not sign, or the certificate could not be built.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// A certificate was signed and is wrong; it is thrown away.
    #[error("the certificate signed for {endpoint} is wrong and was thrown away")]
    Wrong {
        /// The device it was meant for.
        endpoint: EndpointName,
        /// What is wrong with it.
        source: VerifyError,
    },
}

/// A CA at work, by one of its profiles. Clones are the same.
#[derive(Clone)]
pub struct Issuer {
    authority: Arc<Authority>,
    pool: Arc<SigningPool>,
    profile: Arc<Profile>,
}

impl Issuer {
    /// A CA whose key was seen to be its certificate's, and a profile that it can honour.
    pub fn new(authority: Arc<Authority>, pool: Arc<SigningPool>, profile: Arc<Profile>) -> Self {
        Self { authority, pool, profile }
    }

    /// The CA's certificate and those above it, DER.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.authority.chain()
    }

    /// What a certificate that is asked for now will say.
    ///
    /// # Errors
    /// The profile has no place for the device's name, or the CA is too old.
    pub fn terms(&self, endpoint: &EndpointName, now: OffsetDateTime) -> Result<Terms, IssueError> {
        let validity = self.profile.validity(now, self.authority.validity())?;
        let serial = profile::random_serial();
        self.profile.certificate(endpoint, validity, serial)?;
        Ok(Terms {
            serial,
            not_before: validity.not_before.unix_timestamp(),
            not_after: validity.not_after.unix_timestamp(),
        })
    }

    /// Signs a certificate for the device and verifies it. Blocks until the token has answered.
    ///
    /// # Errors
    /// The token did not sign, or not well.
    pub fn issue(
        &self,
        request: &Request,
        terms: Terms,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let validity =
            Validity { not_before: time_of(terms.not_before), not_after: time_of(terms.not_after) };
        let params = self.profile.certificate(&request.endpoint, validity, terms.serial)?;

        let certificate = RemoteKey::new(&*self.pool, self.authority.point()).certify(|ca_key| {
            let issuer = RcgenIssuer::from_ca_cert_der(self.authority.certificate(), ca_key)?;
            let device_key = SubjectPublicKeyInfo::from_der(request.key.spki())?;
            params.signed_by(&device_key, &issuer)
        })?;

        self.authority
            .verify(certificate.der(), &request.endpoint, &request.key, self.profile.usage(), now)
            .map_err(|source| IssueError::Wrong { endpoint: request.endpoint.clone(), source })?;
        Ok(certificate.der().clone())
    }
}

/// The ledger holds what was a time when it was written.
fn time_of(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
