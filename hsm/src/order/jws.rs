//! JSON Web Signature, compact serialisation (RFC 7515, section 7.1), for one algorithm and one type.
//!
//! Stricter than the libraries at hand: exactly one header is allowed, so that neither `crit`, nor an embedded key, nor
//! another algorithm can mean anything.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

use super::{LIMIT, OrderError};

const HEADER: &str = r#"{"alg":"ES256","typ":"factory-work-order+jws"}"#;

/// What a header may say, in whatever order and spacing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
}

/// A JWS taken apart.
pub struct Parts<'a> {
    /// What the signature is over.
    pub message: &'a [u8],
    /// What it says.
    pub payload: Vec<u8>,
    /// r‖s.
    pub signature: Vec<u8>,
}

/// Writes the signed text; `sign` gives r‖s.
pub fn sign(payload: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message =
        format!("{}.{}", BASE64URL_NOPAD.encode(HEADER.as_bytes()), BASE64URL_NOPAD.encode(payload));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// Takes a text apart. Its signature is not verified.
///
/// # Errors
/// It is no JWS, or one of another kind.
pub fn split(text: &str) -> Result<Parts<'_>, OrderError> {
    if text.len() > LIMIT {
        return Err(OrderError::TooLong(text.len()));
    }
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| OrderError::Form);
    let (message, signature) = text.rsplit_once('.').ok_or(OrderError::Form)?;
    let (header, payload) = message.split_once('.').ok_or(OrderError::Form)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| OrderError::Header)?;
    if (header.alg.as_str(), header.typ.as_str()) != ("ES256", "factory-work-order+jws") {
        return Err(OrderError::Header);
    }
    Ok(Parts { message: message.as_bytes(), payload: decode(payload)?, signature: decode(signature)? })
}
