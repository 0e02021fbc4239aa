//! What the ledger holds: every request before it is signed, every certificate before it is answered, every head
//! before it is handed out. Field numbers are for ever.

use factory_journal::Keys;
use factory_proto::disposition::Disposition;
use minicbor::{Decode, Encode};

/// One thing that became true.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// A certificate is about to be signed. From here on it counts.
    #[n(0)]
    Asked(#[n(0)] Asked),
    /// A certificate exists.
    #[n(1)]
    Issued(#[n(0)] Issued),
    /// The head of a station's log was signed.
    #[n(2)]
    HeadSigned(#[n(0)] HeadSigned),
    /// A work order was opened.
    #[n(3)]
    OrderOpened(#[n(0)] OrderOpened),
    /// It was said what became of a unit.
    #[n(4)]
    Disposed(#[n(0)] Disposed),
}

impl factory_journal::Record for Record {
    fn keys(&self) -> Keys {
        match self {
            Self::Asked(asked) => Keys {
                unit: Some(asked.endpoint_name.clone()),
                run: Some(asked.issuance.clone()),
                order: Some(asked.order.clone()),
                ..Keys::default()
            },
            Self::Issued(issued) => Keys { run: Some(issued.issuance.clone()), ..Keys::default() },
            Self::HeadSigned(_) => Keys::default(),
            Self::OrderOpened(opened) => Keys { order: Some(opened.order.clone()), ..Keys::default() },
            Self::Disposed(disposed) => Keys { run: Some(disposed.issuance.clone()), ..Keys::default() },
        }
    }
}

/// A certificate is about to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Asked {
    /// The station's id of it, a UUID in text form.
    #[n(0)]
    pub issuance: String,
    /// The work order.
    #[n(1)]
    pub order: String,
    /// For whom.
    #[n(2)]
    pub endpoint_name: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// SHA-256 over all that was asked for.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub request: [u8; 32],
    /// The issuance that is void from here on, a UUID in text form.
    #[n(5)]
    pub supersedes: Option<String>,
    /// What the certificate will say.
    #[n(6)]
    pub terms: Terms,
}

/// What is decided for a certificate once: signed again after a crash, it says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Terms {
    /// Its serial number.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub serial: [u8; 16],
    /// Its first second, since 1970 UTC.
    #[n(1)]
    pub not_before: i64,
    /// Its last second, since 1970 UTC.
    #[n(2)]
    pub not_after: i64,
}

/// A certificate exists.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Issued {
    /// Of which issuance.
    #[n(0)]
    pub issuance: String,
    /// The certificate, DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
}

/// The head of a station's log was signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HeadSigned {
    /// As `factory_proto::head` encodes it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// ECDSA on P-256 with SHA-256, DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// A work order was opened.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OrderOpened {
    /// Its id.
    #[n(0)]
    pub order: String,
    /// As the brand owner signed it: a JWS in compact form.
    #[n(1)]
    pub signed: String,
}

/// It was said what became of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Disposed {
    /// By its issuance.
    #[n(0)]
    pub issuance: String,
    /// What became of it.
    #[n(1)]
    pub disposition: Disposition,
}
