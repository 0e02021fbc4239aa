//! The brand owner's order keys: P-256, as `openssl ecparam` and `openssl pkey` write them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use x509_parser::{
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY},
    prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum OrderKeyError {
    /// Not there.
    #[error("order key {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not the public half of such a key.
    #[error(
        "{} holds no P-256 public key in PEM: write it with `openssl pkey -in ORDER-KEY -pubout`, from the brand owner's key",
        .0.display()
    )]
    NotPublic(PathBuf),
    /// Not the private half of such a key.
    #[error(
        "{} holds no P-256 private key in PEM (PKCS#8): make one with \
         `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`",
        .0.display()
    )]
    NotPrivate(PathBuf),
}

/// The public keys of those who may order.
#[derive(Debug, Clone)]
pub struct OrderKeys(Vec<Vec<u8>>);

impl OrderKeys {
    /// Reads a public key from each file.
    ///
    /// # Errors
    /// One of them holds none.
    pub fn read(paths: &[PathBuf]) -> Result<Self, OrderKeyError> {
        paths.iter().map(|path| public_point(path)).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |point: &Vec<u8>| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
        };
        self.0.iter().any(|point| by(point).is_ok())
    }
}

fn public_point(path: &Path) -> Result<Vec<u8>, OrderKeyError> {
    let not_public = || OrderKeyError::NotPublic(path.to_owned());
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(&read(path)?).map_err(|_| not_public())?;
    let (rest, key) = SubjectPublicKeyInfo::from_der(&spki).map_err(|_| not_public())?;
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let is_p256 = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256);
    let point = key.subject_public_key.data.to_vec();
    if rest.is_empty() && is_p256 && point.len() == 65 { Ok(point) } else { Err(not_public()) }
}

/// The private half, at the brand owner's. Cannot be printed.
pub struct OrderKey(EcdsaKeyPair);

impl OrderKey {
    /// Reads it from a file.
    ///
    /// # Errors
    /// The file holds none.
    pub fn read(path: &Path) -> Result<Self, OrderKeyError> {
        let not_private = || OrderKeyError::NotPrivate(path.to_owned());
        let key = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?).map_err(|_| not_private())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der());
        pair.map(Self).map_err(|_| not_private())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        signature.expect("the system's random numbers do not fail once it has booted").as_ref().to_vec()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, OrderKeyError> {
    fs::read(path).map_err(|source| OrderKeyError::Unreadable { path: path.to_owned(), source })
}
