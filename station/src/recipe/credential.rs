//! Certificates and keys from files, as far as a device takes them (FCC protocol, sections 3 and 9), and as far as
//! they are what they should be, which the device does not look at. Knows no file by name.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer,
    pem::{self, PemObject},
};
use x509_parser::{
    extensions::ExtendedKeyUsage,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::{FromDer, X509Certificate},
    x509::SubjectPublicKeyInfo,
};
use zeroize::Zeroizing;

use crate::key::{DeviceKey, KeyError};

/// As many certificates as a device takes in one chain.
pub const LONGEST_CHAIN: usize = 5;
/// SubjectPublicKeyInfo of an uncompressed P-256 point.
const PUBLIC_KEY: usize = 91;
/// What the update certificate must live from now on; two leap days more than the device warns at.
const TEN_YEARS: Duration = Duration::from_secs((10 * 365 + 3) * 24 * 3600);

/// What is wrong with a certificate or key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Nothing of the kind.
    #[error("holds no certificate, in PEM or DER")]
    NoCertificate,
    /// Something else, or something behind it.
    #[error("certificate {0} cannot be read: {1}")]
    Unreadable(usize, String),
    /// The device stops there.
    #[error("holds {0} certificates, a device takes at most {LONGEST_CHAIN}; leave out the root")]
    TooMany(usize),
    /// The device refuses it.
    #[error("certificate {0} is not for a P-256 key, the only kind that a device reads; have it issued anew")]
    KeyKind(usize),
    /// The device refuses it.
    #[error(
        "certificate {0} is not signed with ecdsa-with-SHA256, the only algorithm that a device reads; have it issued \
         anew"
    )]
    Algorithm(usize),
    /// The wrong order, or another chain.
    #[error(
        "certificate {0} is not signed by certificate {1}; the leaf comes first, each signed by the next"
    )]
    Link(usize, usize),
    /// It may not sign certificates.
    #[error("certificate {0} is no CA certificate (basicConstraints CA, keyUsage keyCertSign)")]
    NoCa(usize),
    /// Past.
    #[error("certificate {0} has expired on {1}")]
    Expired(usize, String),
    /// Another purpose.
    #[error("{0}")]
    Purpose(&'static str),
    /// No private key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No public key.
    #[error("is no public P-256 key (SubjectPublicKeyInfo of {PUBLIC_KEY} bytes, PEM or DER)")]
    NoPublicKey,
}

use CredentialError::{
    Algorithm, Expired, KeyKind, Link, NoCa, NoCertificate, NoPublicKey, Purpose, TooMany, Unreadable,
};

/// One to five certificates, leaf first, DER, from PEM or from DER: each readable to a device, each signed by the
/// next, none expired.
///
/// # Errors
/// The first thing that is wrong.
pub fn chain(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CredentialError> {
    let ders = certificates(bytes)?;
    if ders.len() > LONGEST_CHAIN {
        return Err(TooMany(ders.len()));
    }
    check_chain(&ders)?;
    Ok(ders)
}

/// Checks what [`chain`] checks.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_chain(ders: &[Vec<u8>]) -> Result<(), CredentialError> {
    let mut parsed = Vec::new();
    for (index, der) in ders.iter().enumerate() {
        let certificate = parse(index + 1, der)?;
        for_device(index + 1, &certificate)?;
        parsed.push(certificate);
    }
    for (index, pair) in parsed.windows(2).enumerate() {
        let [child, parent] = pair else { continue };
        if !is_ca(parent) {
            return Err(NoCa(index + 2));
        }
        if child.issuer().as_raw() != parent.subject().as_raw()
            || child.verify_signature(Some(parent.public_key())).is_err()
        {
            return Err(Link(index + 1, index + 2));
        }
    }
    Ok(())
}

/// One CA certificate, DER, from PEM or DER.
///
/// # Errors
/// The first thing that is wrong.
pub fn authority(bytes: &[u8]) -> Result<Vec<u8>, CredentialError> {
    let [der] = <[Vec<u8>; 1]>::try_from(certificates(bytes)?)
        .map_err(|_| Purpose("holds several certificates, exactly one is needed"))?;
    let certificate = parse(1, &der)?;
    for_device(1, &certificate)?;
    if !is_ca(&certificate) {
        return Err(NoCa(1));
    }
    Ok(der)
}

/// The certificate that says who may sign firmware, leaf first, DER, from PEM or DER (FCU facts, 3.1). A device cannot
/// be given another one later.
///
/// # Errors
/// The first thing that is wrong.
pub fn update_certificate(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CredentialError> {
    let ders = chain(bytes)?;
    let leaf = parse(1, &ders[0])?;
    if leaf.issuer().as_raw() != leaf.subject().as_raw() || leaf.verify_signature(None).is_err() {
        return Err(Purpose("is not signed by its own key; an update certificate is self-signed"));
    }
    let usage = leaf.extended_key_usage().ok().flatten().map(|extension| extension.value);
    if !usage.is_some_and(|usage: &ExtendedKeyUsage<'_>| usage.client_auth && usage.code_signing) {
        return Err(Purpose("is not for clientAuth and codeSigning (extended key usage)"));
    }
    if leaf.validity().not_before.timestamp() > now() {
        return Err(Purpose("is not valid yet"));
    }
    if leaf.validity().not_after.timestamp() < now() + TEN_YEARS.as_secs().cast_signed() {
        return Err(Purpose(
            "is valid for less than ten years from now, and a device cannot be given another",
        ));
    }
    Ok(ders)
}

/// A private key from PEM or DER.
///
/// # Errors
/// [`CredentialError::Key`]
pub fn private_key(bytes: &[u8]) -> Result<DeviceKey, CredentialError> {
    let der = match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => key.secret_der().to_vec(),
        Err(_) => bytes.to_vec(),
    };
    Ok(DeviceKey::from_der(Zeroizing::new(der))?)
}

/// A public key, SubjectPublicKeyInfo in DER, from PEM or DER.
///
/// # Errors
/// [`CredentialError::NoPublicKey`]
pub fn public_key(bytes: &[u8]) -> Result<Vec<u8>, CredentialError> {
    let der = match SubjectPublicKeyInfoDer::from_pem_slice(bytes) {
        Ok(key) => key.to_vec(),
        Err(_) => bytes.to_vec(),
    };
    match SubjectPublicKeyInfo::from_der(&der) {
        Ok((&[], key)) if der.len() == PUBLIC_KEY && is_p256(&key) => Ok(der),
        _ => Err(NoPublicKey),
    }
}

/// The public key of a certificate that was read before: SubjectPublicKeyInfo, DER.
pub fn certified(der: &[u8]) -> Vec<u8> {
    X509Certificate::from_der(der).map_or_else(|_| Vec::new(), |(_, it)| it.public_key().raw.to_vec())
}

fn certificates(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CredentialError> {
    let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
    let read = read.map_err(|error| Unreadable(1, error.to_string()))?;
    if !read.is_empty() {
        return Ok(read.iter().map(|der| der.to_vec()).collect());
    }
    // DER begins with a SEQUENCE; anything else is neither.
    if bytes.first() == Some(&0x30) { Ok(vec![bytes.to_vec()]) } else { Err(NoCertificate) }
}

fn parse(number: usize, der: &[u8]) -> Result<X509Certificate<'_>, CredentialError> {
    match X509Certificate::from_der(der) {
        Ok((&[], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(Unreadable(number, format!("{} bytes follow it", rest.len()))),
        Err(_) => Err(Unreadable(number, "it is no X.509 certificate".to_owned())),
    }
}

fn for_device(number: usize, certificate: &X509Certificate<'_>) -> Result<(), CredentialError> {
    if !is_p256(certificate.public_key()) {
        return Err(KeyKind(number));
    }
    if certificate.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return Err(Algorithm(number));
    }
    let end = certificate.validity().not_after;
    if end.timestamp() < now() {
        return Err(Expired(number, end.to_string()));
    }
    Ok(())
}

fn is_ca(certificate: &X509Certificate<'_>) -> bool {
    let signs = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    certificate.is_ca() && signs
}

fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256)
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}
