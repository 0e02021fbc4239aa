//! A key in a token, as rcgen wants to see it.

use std::cell::RefCell;

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use sha2::{Digest, Sha256};

use super::{TokenError, ecdsa};

/// What has a signature made of a SHA-256 digest: r‖s.
pub trait SignDigest {
    /// Signs one digest.
    fn sign_digest(&self, digest: [u8; 32]) -> Result<Vec<u8>, TokenError>;
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The token did not sign.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// rcgen did not build it.
    #[error("the certificate could not be built")]
    Certificate(#[source] rcgen::Error),
}

/// Signs one certificate: rcgen drops the cause of a failed signature, so it is kept here.
pub struct RemoteKey<'a> {
    signer: &'a dyn SignDigest,
    point: &'a [u8],
    cause: RefCell<Option<TokenError>>,
}

impl<'a> RemoteKey<'a> {
    /// The key behind `signer`, whose public half is `point` (SEC 1, uncompressed).
    pub fn new(signer: &'a dyn SignDigest, point: &'a [u8]) -> Self {
        Self { signer, point, cause: RefCell::new(None) }
    }

    /// Signs `message`; the signature is DER.
    pub fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        // In software: not every token (nor Debian's SoftHSM) offers CKM_ECDSA_SHA256.
        self.sign_digest(Sha256::digest(message).into())
    }

    /// Signs what has this SHA-256; the signature is DER.
    pub fn sign_digest(&self, digest: [u8; 32]) -> Result<Vec<u8>, TokenError> {
        ecdsa::raw_to_der(&self.signer.sign_digest(digest)?)
    }

    /// Runs rcgen with this key, and puts the lost cause back into its error.
    pub fn certify<T>(
        &self,
        build: impl FnOnce(&Self) -> Result<T, rcgen::Error>,
    ) -> Result<T, SigningError> {
        build(self).map_err(|error| match self.cause.take() {
            Some(cause) => SigningError::Token(cause),
            None => SigningError::Certificate(error),
        })
    }
}

impl PublicKeyData for RemoteKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for RemoteKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_message(message).map_err(|error| {
            self.cause.replace(Some(error));
            rcgen::Error::RemoteKeyError
        })
    }
}
