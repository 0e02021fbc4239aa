//! A signed head by itself: whose signature it is, what it says, and the file that it is kept in.
//!
//! The file is one JSON object: `statement`, `signature` and a list `certificates`, each in Base64.

use std::{fs, path::Path};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use data_encoding::BASE64;
use factory_proto::head::{HeadStatement, NoStatement};
use minicbor::bytes::ByteVec;
use serde::{Deserialize, Serialize};
use x509_parser::{
    pem::Pem,
    prelude::{FromDer as _, X509Certificate},
};

use super::ProvenanceError;
use crate::record::HeadSigned;

/// Why a head is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// What was signed is no head.
    #[error(transparent)]
    Statement(#[from] NoStatement),
    /// There is no certificate, or none that can be read.
    #[error("the head's certificate cannot be read: {0}")]
    Certificate(String),
    /// The signature is by another key, or of another statement.
    #[error("the head's signature is not by the key of its certificate")]
    Signature,
    /// The key is none that is trusted.
    #[error("the head is signed by a key that the given certificate knows nothing of ({0})")]
    Stranger(String),
}

/// Checks a head's signature with its own certificate, and gives what it says.
///
/// # Errors
/// It is not what its certificate's key signed.
pub fn check(head: &HeadSigned) -> Result<HeadStatement, HeadError> {
    let statement = HeadStatement::decode(&head.statement)?;
    let own = certificate(head.certificates.first().map_or(&[][..], |certificate| certificate))?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &own.public_key().subject_public_key.data);
    key.verify(&head.statement, &head.signature).map_err(|_| HeadError::Signature)?;
    Ok(statement)
}

/// Checks that the head's certificate is one of those `trusted`, or was issued under one of them.
///
/// # Errors
/// It is a stranger's.
pub fn check_trust(head: &HeadSigned, trusted: &[Vec<u8>]) -> Result<(), HeadError> {
    let mut below = certificate(head.certificates.first().map_or(&[][..], |certificate| certificate))?;
    let own_name = below.subject().to_string();
    for index in 0..head.certificates.len() {
        if trusted.iter().any(|trusted| trusted[..] == head.certificates[index][..]) {
            return Ok(());
        }
        for anchor in trusted {
            let anchor = certificate(anchor)?;
            if anchor.is_ca() && below.verify_signature(Some(anchor.public_key())).is_ok() {
                return Ok(());
            }
        }
        let Some(above) = head.certificates.get(index + 1) else { break };
        let above = certificate(above)?;
        if !above.is_ca() || below.verify_signature(Some(above.public_key())).is_err() {
            break;
        }
        below = above;
    }
    Err(HeadError::Stranger(own_name))
}

fn certificate(der: &[u8]) -> Result<X509Certificate<'_>, HeadError> {
    match X509Certificate::from_der(der) {
        Ok((&[], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(HeadError::Certificate(format!("{} bytes too many", rest.len()))),
        Err(error) => Err(HeadError::Certificate(error.to_string())),
    }
}

/// The certificates in a PEM file, DER.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, ProvenanceError> {
    let not_a =
        |why: String| ProvenanceError::NotA { what: "PEM file of certificates", path: path.to_owned(), why };
    let text = fs::read(path).map_err(ProvenanceError::io("read", path))?;
    let mut found = Vec::new();
    for pem in Pem::iter_from_buffer(&text) {
        let pem = pem.map_err(|error| not_a(error.to_string()))?;
        certificate(&pem.contents).map_err(|error| not_a(error.to_string()))?;
        found.push(pem.contents);
    }
    if found.is_empty() {
        return Err(not_a("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

/// A signed head as its file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadFile {
    statement: String,
    signature: String,
    certificates: Vec<String>,
}

impl From<&HeadSigned> for HeadFile {
    fn from(head: &HeadSigned) -> Self {
        Self {
            statement: BASE64.encode(&head.statement),
            signature: BASE64.encode(&head.signature),
            certificates: head.certificates.iter().map(|certificate| BASE64.encode(certificate)).collect(),
        }
    }
}

impl TryFrom<HeadFile> for HeadSigned {
    type Error = data_encoding::DecodeError;

    fn try_from(file: HeadFile) -> Result<Self, Self::Error> {
        let bytes = |text: String| BASE64.decode(text.as_bytes());
        let certificates = file.certificates.into_iter().map(|text| bytes(text).map(ByteVec::from));
        Ok(Self {
            statement: bytes(file.statement)?,
            signature: bytes(file.signature)?,
            certificates: certificates.collect::<Result<_, _>>()?,
        })
    }
}

/// Reads the file of a head, as the reference controller keeps them.
///
/// # Errors
/// It cannot be read, or is no such file.
pub fn read_head(path: &Path) -> Result<HeadSigned, ProvenanceError> {
    let not_a =
        |why: String| ProvenanceError::NotA { what: "file of a signed head", path: path.to_owned(), why };
    let text = fs::read(path).map_err(ProvenanceError::io("read", path))?;
    let file: HeadFile = serde_json::from_slice(&text).map_err(|error| not_a(error.to_string()))?;
    HeadSigned::try_from(file).map_err(|error| not_a(error.to_string()))
}
