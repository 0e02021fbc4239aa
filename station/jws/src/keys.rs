//! P-256 keys in files, as `openssl genpkey` and `openssl pkey` write them.

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
pub enum JwsKeyError {
    /// Not there.
    #[error("key {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not the public half of such a key.
    #[error(
        "{} holds no P-256 public key in PEM: write it with `openssl pkey -in KEY -pubout`, from the key of whoever signs",
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

/// The public keys of those who may sign.
#[derive(Debug, Clone)]
pub struct PublicKeys(Vec<Vec<u8>>);

impl PublicKeys {
    /// Reads a public key from each file.
    ///
    /// # Errors
    /// One of them holds none.
    pub fn read(paths: &[PathBuf]) -> Result<Self, JwsKeyError> {
        paths.iter().map(|path| public_point(path)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them made the signature, r‖s, under the message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |point: &Vec<u8>| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
        };
        self.0.iter().any(|point| by(point).is_ok())
    }
}

fn public_point(path: &Path) -> Result<Vec<u8>, JwsKeyError> {
    let pem = read(path)?;
    // A certificate is refused: its key was given it for something else, as a CA's is for certificates.
    let point = SubjectPublicKeyInfoDer::from_pem_slice(&pem).ok().and_then(|der| {
        let (rest, key) = SubjectPublicKeyInfo::from_der(&der).ok()?;
        if rest.is_empty() { point(&key) } else { None }
    });
    point.ok_or_else(|| JwsKeyError::NotPublic(path.to_owned()))
}

fn point(key: &SubjectPublicKeyInfo<'_>) -> Option<Vec<u8>> {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let is_p256 = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256);
    let point = key.subject_public_key.data.to_vec();
    (is_p256 && point.len() == 65).then_some(point)
}

/// The private half, where it is signed. Cannot be printed.
pub struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    /// Reads it from a file.
    ///
    /// # Errors
    /// The file holds none.
    pub fn read(path: &Path) -> Result<Self, JwsKeyError> {
        let not_private = || JwsKeyError::NotPrivate(path.to_owned());
        let key = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?).map_err(|_| not_private())?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der());
        pair.map(Self).map_err(|_| not_private())
    }

    /// The signature under a message, r‖s.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        signature.expect("the system's random numbers do not fail once it has booted").as_ref().to_vec()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, JwsKeyError> {
    fs::read(path).map_err(|source| JwsKeyError::Unreadable { path: path.to_owned(), source })
}
