//! What the log was up to a record, signed.

use minicbor::{Decode, Encode, bytes::ByteVec};

/// What the log was up to a record, signed by the signer's provenance key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HeadSigned {
    /// What was signed: see `factory_proto::head`.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// ECDSA on P-256 with SHA-256, DER.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// The provenance key's certificate first, DER.
    #[n(2)]
    pub certificates: Vec<ByteVec>,
}
