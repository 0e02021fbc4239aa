//! The words everybody speaks: the wire messages generated from the `.proto` files, ids, units and limits.
//!
//! No behaviour, and no knowledge of who sends what to whom.

pub mod command;
pub mod disposition;
pub mod head;
pub mod ids;
pub mod ledger_head;
pub mod outcome;
pub mod page;
pub mod units;

/// `factory.station.v1`: the MES and the station.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod station {
    tonic::include_proto!("factory.station.v1");
}

/// `factory.signer.v1`: the station and the signer.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod signer {
    tonic::include_proto!("factory.signer.v1");
}

/// The file descriptor set of all of the above, encoded: what the reflection services serve.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The same, decoded.
pub fn descriptors() -> prost_types::FileDescriptorSet {
    prost::Message::decode(DESCRIPTORS).expect("our own build has encoded them")
}
