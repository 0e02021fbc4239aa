//! A device that waits to be provisioned: the Factory Configurator Client as observed on the real program,
//! unpleasant habits included. Written from the protocol, not from the station's code, so that the two can
//! disagree.
//!
//! Left out: memory and storage running full, secure elements (`SM` is read and ignored), CRLs.

mod answer;
pub mod cbor;
pub mod csr;
pub mod frames;
mod items;
pub mod keys;
pub mod line;
pub mod message;
pub mod scenario;
mod status;
pub mod store;
pub mod tcp;
mod verify;
