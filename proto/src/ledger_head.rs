//! The head of a signer's ledger, signed: the signer hands it out with its answers, stations bring it back, and a ledger
//! that does not hold it any more is not the one that they were answered from.
//!
//! The statement is a CBOR map in the order of its keys: 0 the text `factory ledger head 1`, then the fields of
//! [`LedgerHead`] under their numbers, everything of definite length. It travels as gRPC metadata ([`METADATA`]), with its
//! signature.

use minicbor::{Decode, Encode, bytes::ByteVec};

/// The metadata in which it travels, both ways: a [`SignedLedgerHead`].
pub const METADATA: &str = "ledger-head-bin";
/// A signed head has less than half as many bytes; what is longer is not looked at.
pub const LIMIT: usize = 512;

/// What key 0 says.
const KIND: &str = "factory ledger head 1";

/// Up to where a ledger had come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LedgerHead {
    #[n(0)]
    kind: String,
    /// Follows from the ledger's first record.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub log_id: [u8; 16],
    /// Its last record.
    #[n(2)]
    pub sequence: u64,
    /// That record's hash, which holds all those before.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub hash: [u8; 32],
}

/// A head with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedLedgerHead {
    /// As [`LedgerHead::encode`] writes it.
    #[n(0)]
    pub statement: ByteVec,
    /// By the provenance key: ECDSA on P-256 with SHA-256, DER.
    #[n(1)]
    pub signature: ByteVec,
}

/// Why bytes are no head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no signed head of a ledger")]
pub struct NoHead;

impl LedgerHead {
    /// The head of the ledger `log_id`, whose record `sequence` has this hash.
    pub fn new(log_id: [u8; 16], sequence: u64, hash: [u8; 32]) -> Self {
        Self { kind: KIND.to_owned(), log_id, sequence, hash }
    }

    /// The bytes that are signed.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }
}

impl SignedLedgerHead {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Reads what came; the signature is not verified.
    ///
    /// # Errors
    /// It is too long, or something else.
    pub fn decode(bytes: &[u8]) -> Result<(Self, LedgerHead), NoHead> {
        if bytes.len() > LIMIT {
            return Err(NoHead);
        }
        let signed: Self = minicbor::decode(bytes).map_err(|_| NoHead)?;
        let head: LedgerHead = minicbor::decode(&signed.statement).map_err(|_| NoHead)?;
        if head.kind != KIND || head.encode() != signed.statement.as_slice() || signed.encode() != bytes {
            return Err(NoHead);
        }
        Ok((signed, head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signed() -> SignedLedgerHead {
        let statement = LedgerHead::new([1; 16], 2, [3; 32]).encode();
        SignedLedgerHead { statement: statement.into(), signature: vec![4; 70].into() }
    }

    #[test]
    fn a_head_is_read_as_it_was_written_and_in_no_other_way() {
        let bytes = signed().encode();
        assert_eq!(SignedLedgerHead::decode(&bytes), Ok((signed(), LedgerHead::new([1; 16], 2, [3; 32]))));
        for at in 0..bytes.len() {
            assert!(SignedLedgerHead::decode(&bytes[..at]).is_err(), "cut to {at} bytes");
        }
        assert!(SignedLedgerHead::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        let other = LedgerHead {
            kind: "factory provenance head 1".to_owned(),
            ..LedgerHead::new([1; 16], 2, [3; 32])
        };
        let other = SignedLedgerHead { statement: other.encode().into(), ..signed() };
        assert!(SignedLedgerHead::decode(&other.encode()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = SignedLedgerHead::decode(&bytes);
        }
    }
}
