//! A key that signs data, with its certificate: statements about logs, and files. Signs no certificates.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    digest::SHA256,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    profile::Validity,
    token::{
        TokenError,
        key::{RemoteKey, SigningError},
        pool::SigningPool,
    },
};

/// The key with its certificate.
pub struct Provenance {
    certificate: CertificateDer<'static>,
    point: Vec<u8>,
    pool: SigningPool,
}

/// Why the provenance key cannot be used; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    /// Not there.
    #[error(
        "provenance certificate {} cannot be read: make it with `factory-signerd init`, which leaves the CA as it is",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else.
    #[error("{} is no provenance certificate ({fault}): restore what `factory-signerd init` wrote", path.display())]
    Unsuitable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Another key's.
    #[error(
        "the key in the token does not belong to the provenance certificate: \
         correct [provenance] in the configuration"
    )]
    OtherKey,
    /// The token did not sign.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

impl Provenance {
    /// Reads the certificate (PEM) and holds it against the key.
    ///
    /// # Errors
    /// They do not belong together, or one of them cannot be used.
    pub fn open(path: &Path, pool: SigningPool) -> Result<Self, ProvenanceError> {
        let (certificate, point) = certificate_at(path)?;
        let provenance = Self { certificate, point, pool };
        match provenance.sign(b"factory-signerd: is this the provenance certificate's key?") {
            Err(SigningError::Token(TokenError::OtherKey)) => Err(ProvenanceError::OtherKey),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(provenance),
        }
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs a message (ECDSA on P-256 with SHA-256, DER) and verifies the signature. Blocks.
    ///
    /// # Errors
    /// The token did not sign, or with another key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        self.sign_digest(Sha256::digest(message).into())
    }

    /// As [`Provenance::sign`], of what has this SHA-256.
    ///
    /// # Errors
    /// The token did not sign, or with another key.
    pub fn sign_digest(&self, digest: [u8; 32]) -> Result<Vec<u8>, SigningError> {
        let signature = RemoteKey::new(&self.pool, &self.point).sign_digest(digest)?;
        if !self.has_signed_digest(digest, &signature) {
            return Err(SigningError::Token(TokenError::OtherKey));
        }
        Ok(signature)
    }

    /// Whether this is the key's signature of a message.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.has_signed_digest(Sha256::digest(message).into(), signature)
    }

    /// Whether this is the key's signature of what has this SHA-256.
    pub fn has_signed_digest(&self, digest: [u8; 32], signature: &[u8]) -> bool {
        let digest = aws_lc_rs::digest::Digest::import_less_safe(&digest, &SHA256).expect("32 bytes");
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify_digest(&digest, signature).is_ok()
    }
}

/// Reads a certificate that signs data (PEM): its public key, and from when to when it is valid.
///
/// # Errors
/// It is not there, or something else.
pub fn read(path: &Path) -> Result<(Vec<u8>, Validity), ProvenanceError> {
    let (certificate, point) = certificate_at(path)?;
    let unsuitable = |fault| ProvenanceError::Unsuitable { path: path.to_owned(), fault };
    let (_, parsed) =
        X509Certificate::from_der(&certificate).map_err(|_| unsuitable("it cannot be parsed"))?;
    let (not_before, not_after) = (parsed.validity().not_before, parsed.validity().not_after);
    Ok((point, Validity { not_before: not_before.to_datetime(), not_after: not_after.to_datetime() }))
}

fn certificate_at(path: &Path) -> Result<(CertificateDer<'static>, Vec<u8>), ProvenanceError> {
    let text =
        fs::read(path).map_err(|source| ProvenanceError::Unreadable { path: path.to_owned(), source })?;
    let unsuitable = |fault| ProvenanceError::Unsuitable { path: path.to_owned(), fault };
    let certificate =
        CertificateDer::from_pem_slice(&text).map_err(|_| unsuitable("it holds no certificate in PEM"))?;
    let point = point(&certificate).map_err(unsuitable)?;
    Ok((certificate, point))
}

/// The public key of a certificate that signs data; the error says in a few words what is wrong with it.
pub fn point(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, &'static str> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "it cannot be parsed")?;
    if parsed.is_ca() {
        return Err("it is a CA");
    }
    if !matches!(parsed.key_usage(), Ok(Some(usage)) if usage.value.digital_signature()) {
        return Err("it may not sign");
    }
    Ok(parsed.public_key().subject_public_key.data.to_vec())
}
