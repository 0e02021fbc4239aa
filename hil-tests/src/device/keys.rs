//! The device's P-256 keys and the certificates that it reads: what it accepts, and which belong together.
//! Knows neither names nor storage.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
    },
};
use x509_parser::{
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::{FromDer, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

/// Seeds the random number generator, as a device does when it boots; it takes some time.
pub fn seed() {
    aws_lc_rs::rand::fill(&mut [0]).expect("the system has randomness");
}

/// A private key of the device.
pub struct PrivateKey(EcdsaKeyPair);

impl PrivateKey {
    /// A new key.
    pub fn generate() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("the system has randomness"))
    }

    /// Reads SEC1 or PKCS#8 DER; nothing but P-256 is read.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der).ok().map(Self)
    }

    /// As PKCS#8.
    pub fn to_der(&self) -> Vec<u8> {
        self.0.to_pkcs8v1().expect("a P-256 key can be written").as_ref().to_vec()
    }

    /// The public point, uncompressed: 65 bytes.
    pub fn public_point(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// An ECDSA signature over SHA-256, as DER.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        signature.expect("a P-256 key can sign").as_ref().to_vec()
    }
}

/// Whether this is a SubjectPublicKeyInfo that the device accepts.
pub fn is_public_key(der: &[u8]) -> bool {
    SubjectPublicKeyInfo::from_der(der).is_ok_and(|(_, key)| is_p256(&key))
}

/// Reads a certificate that the device accepts: P-256 and ecdsa-with-SHA256. Bytes behind it are ignored.
pub fn certificate(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let accepted = certificate.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256
        && is_p256(certificate.public_key());
    accepted.then_some(certificate)
}

/// The public point that a certificate is for.
pub fn certified_point<'a>(certificate: &'a X509Certificate<'_>) -> &'a [u8] {
    &certificate.public_key().subject_public_key.data
}

fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == Some(OID_EC_P256)
        && ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &*key.subject_public_key.data).is_ok()
}
