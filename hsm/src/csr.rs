//! Which certificate requests (PKCS#10, RFC 2986) are good enough to be answered.
//!
//! A total function over bytes from a device. Only the public key is taken from the request; everything
//! else in it is checked and then forgotten.

use factory_proto::ids::EndpointName;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::ParsedExtension,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256, OID_X509_COMMON_NAME,
        OID_X509_COUNTRY_NAME, OID_X509_ORGANIZATION_NAME, OID_X509_ORGANIZATIONAL_UNIT,
    },
    prelude::FromDer,
    x509::{SubjectPublicKeyInfo, X509Name, X509Version},
};

/// The largest request that is looked at, in bytes.
pub const LIMIT: usize = 4096;

/// An uncompressed P-256 point: 0x04, x, y (SEC 1, section 2.3.3).
const P256_POINT_LENGTH: usize = 65;

/// A public key whose private half signed the request it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey {
    spki: Vec<u8>,
}

impl DeviceKey {
    /// The SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// More bytes than [`LIMIT`].
    #[error("is {0} bytes long, at most {LIMIT} are allowed")]
    TooLong(usize),
    /// No PKCS#10 in DER.
    #[error("is no PKCS#10 request in DER")]
    Malformed,
    /// A request, and then more.
    #[error("is followed by {0} bytes that are no part of it")]
    Trailing(usize),
    /// Only version 1 (0) exists.
    #[error("has a version other than 1")]
    Version,
    /// Any other kind of key.
    #[error("does not carry an uncompressed P-256 key")]
    KeyType,
    /// Any other signature algorithm.
    #[error("is not signed with ECDSA and SHA-256")]
    SignatureAlgorithm,
    /// Whoever made it does not hold the private key, or it was damaged on the way.
    #[error("is not signed by the key it carries")]
    Signature,
    /// None, or several.
    #[error("has {0} common names, exactly one is needed")]
    CommonNames(usize),
    /// A request of another device.
    #[error("has a common name other than the endpoint name")]
    CommonName,
    /// Something that our profile has no place for.
    #[error("has subject attribute {0}, only C, O, OU and CN are allowed")]
    SubjectAttribute(String),
    /// Anything but one extension request.
    #[error("has attribute {0}, only one extension request is allowed")]
    Attribute(String),
    /// An extension that our profile would not give.
    #[error("asks for extension {0}, only key usages and CA:false are allowed")]
    Extension(String),
}

/// Checks that `der` is a request of `endpoint`, made by the holder of the key in it.
pub fn check(der: &[u8], endpoint: &EndpointName) -> Result<DeviceKey, CsrError> {
    if der.len() > LIMIT {
        return Err(CsrError::TooLong(der.len()));
    }
    let (trailing, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !trailing.is_empty() {
        return Err(CsrError::Trailing(trailing.len()));
    }
    let info = &request.certification_request_info;
    if info.version != X509Version::V1 {
        return Err(CsrError::Version);
    }
    check_key(&info.subject_pki)?;
    check_subject(&info.subject, endpoint)?;
    check_attributes(&request)?;

    // Its parameters are not looked at: mbed TLS on the device writes a NULL there (RFC 5758 wants none).
    if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return Err(CsrError::SignatureAlgorithm);
    }
    request.verify_signature().map_err(|_| CsrError::Signature)?;
    Ok(DeviceKey { spki: info.subject_pki.raw.to_vec() })
}

fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), CsrError> {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let point = key.subject_public_key.data.as_ref();
    let is_p256 = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == Some(OID_EC_P256)
        && key.subject_public_key.unused_bits == 0
        && point.len() == P256_POINT_LENGTH
        && point[0] == 0x04;
    if is_p256 { Ok(()) } else { Err(CsrError::KeyType) }
}

fn check_subject(subject: &X509Name<'_>, endpoint: &EndpointName) -> Result<(), CsrError> {
    let allowed = [
        OID_X509_COMMON_NAME,
        OID_X509_COUNTRY_NAME,
        OID_X509_ORGANIZATION_NAME,
        OID_X509_ORGANIZATIONAL_UNIT,
    ];
    if let Some(odd) = subject.iter_attributes().find(|part| !allowed.contains(part.attr_type())) {
        return Err(CsrError::SubjectAttribute(odd.attr_type().to_id_string()));
    }
    let mut names = subject.iter_common_name();
    match (names.next(), names.count()) {
        (Some(name), 0) if name.as_str() == Ok(endpoint.as_str()) => Ok(()),
        (Some(_), 0) => Err(CsrError::CommonName),
        (None, _) => Err(CsrError::CommonNames(0)),
        (Some(_), more) => Err(CsrError::CommonNames(1 + more)),
    }
}

fn check_attributes(request: &X509CertificationRequest<'_>) -> Result<(), CsrError> {
    let mut seen = false;
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else {
            return Err(CsrError::Attribute(attribute.oid.to_id_string()));
        };
        if std::mem::replace(&mut seen, true) {
            return Err(CsrError::Attribute(attribute.oid.to_id_string()));
        }
        for extension in &requested.extensions {
            match extension.parsed_extension() {
                ParsedExtension::KeyUsage(_) | ParsedExtension::ExtendedKeyUsage(_) => {}
                ParsedExtension::BasicConstraints(constraints) if !constraints.ca => {}
                _ => return Err(CsrError::Extension(extension.oid.to_id_string())),
            }
        }
    }
    Ok(())
}
