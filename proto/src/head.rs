//! A signed head: what a station's log was at one point. The bytes that are signed, and how they are read.
//!
//! The statement is a CBOR map in the order of its keys: 0 the text `factory provenance head 1`, then the fields of
//! [`HeadStatement`] under their numbers, nothing else, everything of definite length. Who signs it also signs what
//! kind of statement it is, so that no other message can be taken for it.

use minicbor::{Decode, Encode};

/// The metadata in which a signer that refuses a head says up to which record it has signed one for the same log.
pub const SIGNED_UP_TO: &str = "signed-up-to";

/// What key 0 says.
const KIND: &str = "factory provenance head 1";

/// What a station's log was at one point.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HeadStatement {
    #[n(0)]
    kind: String,
    /// The station's name.
    #[n(1)]
    pub station: String,
    /// Drawn once for each log.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub log_id: [u8; 16],
    /// The first record that the Merkle root covers.
    #[n(3)]
    pub first_sequence: u64,
    /// The last record that it covers, and whose hash is the head of the chain.
    #[n(4)]
    pub last_sequence: u64,
    /// The hash of the last record.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub chain_hash: [u8; 32],
    /// Merkle tree hash (RFC 6962, section 2.1) over the hashes of the records.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub merkle_root: [u8; 32],
    /// Runs that the log has closed up to the last record.
    #[n(7)]
    pub closed_runs: u64,
    /// The station's time, nanoseconds since 1970 UTC.
    #[n(8)]
    pub time: u64,
}

/// Why bytes are no statement.
#[derive(Debug, thiserror::Error)]
#[error("this is no statement about the head of a station's log: {0}")]
pub struct NoStatement(String);

impl HeadStatement {
    /// A statement; the caller has checked the names and the order of its sequences.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        station: String,
        log_id: [u8; 16],
        (first_sequence, last_sequence): (u64, u64),
        chain_hash: [u8; 32],
        merkle_root: [u8; 32],
        closed_runs: u64,
        time: u64,
    ) -> Self {
        let kind = KIND.to_owned();
        Self {
            kind,
            station,
            log_id,
            first_sequence,
            last_sequence,
            chain_hash,
            merkle_root,
            closed_runs,
            time,
        }
    }

    /// The bytes that are signed.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("writing to memory cannot fail")
    }

    /// Reads the bytes that were signed.
    ///
    /// # Errors
    /// They are of another kind, or not exactly as [`HeadStatement::encode`] writes them.
    pub fn decode(bytes: &[u8]) -> Result<Self, NoStatement> {
        let statement: Self = minicbor::decode(bytes).map_err(|error| NoStatement(error.to_string()))?;
        if statement.kind != KIND {
            return Err(NoStatement(format!("it says it is {:?}", statement.kind)));
        }
        if statement.encode() != bytes {
            return Err(NoStatement("it is not written in the one way that is allowed".to_owned()));
        }
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn statement() -> HeadStatement {
        HeadStatement::new("line-1".to_owned(), [1; 16], (2, 3), [4; 32], [5; 32], 6, 7)
    }

    /// Frozen: heads signed years ago must be readable.
    #[test]
    fn the_bytes_of_a_statement_stay_as_they_are() {
        let bytes = statement().encode();
        assert_eq!(
            HEXLOWER.encode(&bytes),
            format!(
                "a900{}01666c696e652d310250{}0302040305\
                 5820{}065820{}07060807",
                "7819666163746f72792070726f76656e616e636520686561642031",
                "01".repeat(16),
                "04".repeat(32),
                "05".repeat(32)
            )
        );
        assert_eq!(HeadStatement::decode(&bytes).unwrap(), statement());
    }

    #[test]
    fn what_is_no_statement_or_written_in_another_way_is_refused() {
        let bytes = statement().encode();
        let other = HeadStatement { kind: "factory order 1".to_owned(), ..statement() }.encode();
        let long_form = [&bytes[..bytes.len() - 1], &[0x18, 0x07]].concat();
        let longer = [&bytes[..], &[0]].concat();
        for wrong in [&other[..], &long_form, &longer, &bytes[..bytes.len() - 1], b""] {
            assert!(HeadStatement::decode(wrong).is_err(), "{}", HEXLOWER.encode(wrong));
        }
    }
}
