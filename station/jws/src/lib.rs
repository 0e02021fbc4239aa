//! JSON Web Signature, compact serialisation (RFC 7515, section 7.1), for ES256 (RFC 7518, section 3.4) and one type at a
//! time.
//!
//! Stricter than the libraries at hand: exactly one header is allowed, so that neither `crit`, nor an embedded key, nor
//! another algorithm can mean anything, and nothing that was signed as one type passes as another. Knows nothing of what
//! the payload says.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

mod keys;

pub use keys::{JwsKeyError, PublicKeys, SigningKey};

/// More than anything that is signed for us needs; a longer text is not looked at.
pub const LIMIT: usize = 4096;

/// What a header may say, in whatever order and spacing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
}

/// Why a text is nothing that somebody signed for us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// More than [`LIMIT`] bytes.
    #[error("is {0} bytes long, at most {LIMIT} are allowed")]
    TooLong(usize),
    /// Not three parts in base64url.
    #[error("is no JWS in compact form")]
    Form,
    /// Another algorithm, another type, or more.
    #[error(r#"must have the header {{"alg":"ES256","typ":"{0}"}} and nothing else"#)]
    Header(&'static str),
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

/// Writes the signed text. `typ` is a media type without its `application/`, and needs no escaping in JSON.
pub fn sign(typ: &str, payload: &[u8], key: &SigningKey) -> String {
    let header = format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#);
    let message =
        format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(payload));
    let signature = key.sign(message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// Takes a text apart that must be of this type. Its signature is not verified.
///
/// # Errors
/// It is no JWS, or one of another kind.
pub fn split<'a>(typ: &'static str, text: &'a str) -> Result<Parts<'a>, JwsError> {
    if text.len() > LIMIT {
        return Err(JwsError::TooLong(text.len()));
    }
    let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| JwsError::Form);
    let (message, signature) = text.rsplit_once('.').ok_or(JwsError::Form)?;
    let (header, payload) = message.split_once('.').ok_or(JwsError::Form)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::Header(typ))?;
    if (header.alg.as_str(), header.typ.as_str()) != ("ES256", typ) {
        return Err(JwsError::Header(typ));
    }
    Ok(Parts { message: message.as_bytes(), payload: decode(payload)?, signature: decode(signature)? })
}

#[cfg(test)]
mod tests;
