//! Whether files are the ones that the brand owner has signed: each recipe, and each file that it names, has its
//! signature beside it, in a file of the same name and `.sig` (`factory-signerd sign-image`).
//!
//! Judges bytes that were read already, so that what was verified is what is used.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{
    oid_registry::OID_EC_P256,
    prelude::{FromDer, X509Certificate},
};

/// A P-256 signature in DER is shorter; what is longer is not read.
const LONGEST: u64 = 128;

/// What the station file demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Signatures by the key of this certificate, PEM.
    By(PathBuf),
    /// None.
    Nothing,
}

/// Who must have signed.
#[derive(Debug)]
pub struct Signatures(Option<Certificate>);

#[derive(Debug)]
struct Certificate {
    path: PathBuf,
    point: Vec<u8>,
}

/// Why a certificate or a file is not trusted; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The certificate cannot be used.
    #[error("certificate {} of `signatures` {fault}: give the one of the signer's firmware key", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// There is no signature.
    #[error("{} is not signed ({reason}): sign it with `factory-signerd sign-image`", path.display())]
    Unsigned {
        /// The file.
        path: PathBuf,
        /// Why there is none.
        reason: String,
    },
    /// A signature of something else, or by somebody else.
    #[error(
        "{} is not what was signed by the key of {}: restore it, or sign it again if the change was meant",
        path.display(),
        certificate.display()
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// Whose key it was held against.
        certificate: PathBuf,
    },
}

impl Signatures {
    /// Reads the certificate that is demanded.
    ///
    /// # Errors
    /// It is not there, or cannot stand for signatures.
    pub fn demanded(demand: &Demand) -> Result<Self, SignatureError> {
        let Demand::By(path) = demand else { return Ok(Self(None)) };
        let fault = |fault: String| SignatureError::Certificate { path: path.clone(), fault };
        let der = CertificateDer::from_pem_file(path)
            .map_err(|error| fault(format!("cannot be read as PEM ({error})")))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|_| fault("cannot be parsed".to_owned()))?;
        if parsed.is_ca() || !matches!(parsed.key_usage(), Ok(Some(usage)) if usage.value.digital_signature())
        {
            return Err(fault("is not for signing data".to_owned()));
        }
        if !parsed.validity().is_valid() {
            let (from, to) = (parsed.validity().not_before, parsed.validity().not_after);
            return Err(fault(format!("is valid from {from} to {to} only")));
        }
        let key = parsed.public_key();
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        if curve != Some(OID_EC_P256) {
            return Err(fault("is not for a P-256 key".to_owned()));
        }
        let point = key.subject_public_key.data.to_vec();
        Ok(Self(Some(Certificate { path: path.clone(), point })))
    }

    /// Whose signatures are demanded.
    pub fn certificate(&self) -> Option<&Path> {
        self.0.as_ref().map(|certificate| certificate.path.as_path())
    }

    /// Holds `bytes`, which were read from the file `path`, against the signature beside it.
    ///
    /// # Errors
    /// They are not what was signed.
    pub fn check(&self, path: &Path, bytes: &[u8]) -> Result<(), SignatureError> {
        let Some(certificate) = &self.0 else { return Ok(()) };
        let signature =
            beside(path).map_err(|reason| SignatureError::Unsigned { path: path.to_owned(), reason })?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &certificate.point)
            .verify_digest(&digest(&SHA256, bytes), &signature)
            .map_err(|_| SignatureError::Differs {
                path: path.to_owned(),
                certificate: certificate.path.clone(),
            })
    }
}

/// The signature of a file.
fn beside(path: &Path) -> Result<Vec<u8>, String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    let path = PathBuf::from(name);
    let reason = |error: io::Error| format!("{}: {error}", path.display());
    let file = fs::metadata(&path).map_err(reason)?;
    if !file.is_file() || file.len() > LONGEST {
        return Err(format!("{} is no signature", path.display()));
    }
    fs::read(&path).map_err(reason)
}
