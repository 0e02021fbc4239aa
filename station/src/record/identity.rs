//! Who a device is: what its chip has said, which certificates were asked for it, and what it got.

use factory_proto::ids::{EndpointName, EnrolmentId, OrderId, Serial};
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::{RunId, cbor};

/// The chip of the board that lies in the nest has said who it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ChipSeen {
    /// In which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// The bytes at the recipe's `unique-id`.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub chip: Vec<u8>,
}

/// The signer is about to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IssuanceAsked {
    /// For which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// By which the signer knows the request again.
    #[cbor(n(1), with = "cbor::text")]
    pub issuance: Uuid,
    /// For whom.
    #[cbor(n(2), with = "cbor::text")]
    pub endpoint_name: EndpointName,
    /// For the board with this serial number.
    #[cbor(n(3), with = "cbor::text")]
    pub serial: Serial,
    /// For which order.
    #[cbor(n(4), with = "cbor::text")]
    pub order: OrderId,
    /// The device's certificate request, PKCS#10 in DER: the same id is asked for again with the same bytes.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub request: Vec<u8>,
    /// The issuance that is void from then on, because its key died.
    #[cbor(n(6), with = "cbor::optional_text")]
    pub supersedes: Option<Uuid>,
    /// SHA-256 of the recipe file.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub recipe_digest: [u8; 32],
}

/// The unit's certificate exists.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Issued {
    /// For which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// The identity that it gives.
    #[n(1)]
    pub identity: Identity,
}

/// Who a device is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// The CN of its certificate.
    #[cbor(n(0), with = "cbor::text")]
    pub endpoint_name: EndpointName,
    /// Its certificate, DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// SHA-256 of it.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub fingerprint: [u8; 32],
    /// What its owner claims it by.
    #[cbor(n(3), with = "cbor::text")]
    pub enrolment_id: EnrolmentId,
}

/// A key that a device made for somebody else than the platform, and its request for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct KeyRequested {
    /// What the key is stored as.
    #[n(0)]
    pub name: String,
    /// PKCS#10, DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub request: Vec<u8>,
}
