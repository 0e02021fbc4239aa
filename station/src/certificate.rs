//! What must be true of a device's request and of the certificate that came back for it.
//!
//! The device checks neither issuer nor constraints, so whatever is let pass here goes to the customer.

use std::time::{Duration, SystemTime};

use factory_proto::ids::EndpointName;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY},
    prelude::{FromDer, X509Certificate},
    x509::{SubjectPublicKeyInfo, X509Name},
};

// The platform and the device want ten years at least; two leap days more than needed.
const SHORTEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600 + 3 * 24 * 3600);
// Requests of one P-256 key with a subject are below 500 bytes.
const LARGEST_REQUEST: usize = 4096;

/// What is wrong with a request or a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No DER of the right kind, or something behind it.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Too many bytes.
    #[error("is {0} bytes long, at most {LARGEST_REQUEST} are allowed")]
    TooLong(usize),
    /// The subject is not the one that was asked for.
    #[error("names {found:?}, not {wanted:?}")]
    Name {
        /// What it should say.
        wanted: String,
        /// What it says.
        found: String,
    },
    /// Another kind of key.
    #[error("is not for a P-256 key")]
    KeyKind,
    /// The signature is not by the key that should have made it.
    #[error("is not signed by {0}")]
    Signature(&'static str),
    /// The key of somebody else.
    #[error("is for another key than the device's")]
    OtherKey,
    /// It may sign certificates, or may not be used by a client.
    #[error("{0}")]
    Profile(&'static str),
    /// The CA is not there.
    #[error("comes without its issuer")]
    NoIssuer,
}

/// Checks a PKCS#10 request: its subject's one CN, its key's kind, and that it was signed with that key.
/// Returns its SubjectPublicKeyInfo, DER.
pub fn check_request(der: &[u8], name: &EndpointName) -> Result<Vec<u8>, CertificateError> {
    if der.len() > LARGEST_REQUEST {
        return Err(CertificateError::TooLong(der.len()));
    }
    let request = whole(X509CertificationRequest::from_der(der))?;
    let info = &request.certification_request_info;
    check_name(&info.subject, name)?;
    check_key_kind(&info.subject_pki)?;
    request.verify_signature().map_err(|_| CertificateError::Signature("the key that it carries"))?;
    Ok(info.subject_pki.raw.to_vec())
}

/// Checks that a certificate is what was asked for: name, key, issuer, profile and life.
pub fn check_issued(
    der: &[u8],
    issuers: &[Vec<u8>],
    key: &[u8],
    name: &EndpointName,
) -> Result<(), CertificateError> {
    let certificate = whole(X509Certificate::from_der(der))?;
    check_name(certificate.subject(), name)?;
    if certificate.public_key().raw != key {
        return Err(CertificateError::OtherKey);
    }
    let issuer = whole(X509Certificate::from_der(issuers.first().ok_or(CertificateError::NoIssuer)?))?;
    if !issuer.is_ca() || issuer.subject().as_raw() != certificate.issuer().as_raw() {
        return Err(CertificateError::Signature("the CA that came with it"));
    }
    certificate
        .verify_signature(Some(issuer.public_key()))
        .map_err(|_| CertificateError::Signature("the CA that came with it"))?;
    check_profile(&certificate)
}

fn check_profile(certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    if certificate.is_ca() {
        return Err(CertificateError::Profile("is a CA certificate"));
    }
    let usage = certificate.extended_key_usage().ok().flatten();
    if !usage.is_some_and(|usage| usage.value.client_auth) {
        return Err(CertificateError::Profile("is not for clients (extended key usage clientAuth)"));
    }
    let validity = certificate.validity();
    let now = SystemTime::now();
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
    };
    if validity.not_before.timestamp() > seconds(now) {
        return Err(CertificateError::Profile("is not valid yet; check the clocks of station and signer"));
    }
    if validity.not_after.timestamp() < seconds(now + SHORTEST_LIFE) {
        return Err(CertificateError::Profile("lives less than ten years"));
    }
    Ok(())
}

fn whole<T>(
    parsed: Result<(&[u8], T), x509_parser::asn1_rs::Err<x509_parser::error::X509Error>>,
) -> Result<T, CertificateError> {
    match parsed {
        Ok((&[], value)) => Ok(value),
        Ok((rest, _)) => Err(CertificateError::Unreadable(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(CertificateError::Unreadable(error.to_string())),
    }
}

fn check_name(subject: &X509Name<'_>, wanted: &EndpointName) -> Result<(), CertificateError> {
    let names: Vec<&str> = subject.iter_common_name().map(|cn| cn.as_str().unwrap_or("?")).collect();
    if names == [wanted.as_str()] {
        return Ok(());
    }
    Err(CertificateError::Name { wanted: wanted.to_string(), found: subject.to_string() })
}

fn check_key_kind(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CertificateError> {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) {
        return Ok(());
    }
    Err(CertificateError::KeyKind)
}
