//! The factory station: commanded by the line, it turns bare boards into devices with an identity.
//!
//! Begin at [`app`], go down to [`nest`] and its worker, then to [`step`]; one unit's way through the code
//! reads top to bottom.

pub mod app;
pub mod attestations;
pub mod books;
pub mod callers;
pub mod certificate;
pub mod commands;
pub mod config;
pub mod contact;
pub mod events;
pub mod golden;
pub mod health;
pub mod history;
pub mod key;
pub mod line;
pub mod listing;
pub mod nest;
pub mod orders;
pub mod phase;
pub mod place;
pub mod preflight;
pub mod provenance;
pub mod recipe;
pub mod record;
pub mod recovery;
pub mod results;
pub mod rig;
pub mod role;
pub mod rpc;
pub mod shelf;
pub mod signatures;
pub mod signer;
pub mod step;
pub mod telemetry;
pub mod unit_list;
pub mod units;
pub mod upkeep;
pub mod yields;
