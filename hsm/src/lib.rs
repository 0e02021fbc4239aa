//! The signer: PKCS#11, key ceremony, certificate profiles and CSR policy.
//!
//! The only part of the station that loads a PKCS#11 module, sees a PIN or signs. A request's way:
//! [`door`] (who is it, [`peer`]) → [`admission`] → [`service`] (gRPC, and [`csr`] at the door) → [`registrar`] → [`ledger`], and [`issuer`] ([`profile`], [`authority`])
//! or [`provenance`] → [`token`].
//! [`vigil`] watches token and ledger meanwhile, and tells [`health`].
//! [`ceremony`] makes the token and the CA before that, once.

pub mod admission;
pub mod authority;
pub mod ceremony;
pub mod config;
pub mod credential;
pub mod csr;
pub mod door;
pub mod health;
pub mod issuer;
pub mod ledger;
pub mod peer;
pub mod profile;
pub mod provenance;
pub mod rate;
pub mod registrar;
pub mod service;
pub mod socket;
pub mod tls;
pub mod token;
pub mod vigil;
