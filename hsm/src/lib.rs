//! The signer: PKCS#11, key ceremony, certificate profiles and CSR policy.
//!
//! The only part of the station that loads a PKCS#11 module, sees a PIN or signs. A request's way:
//! the doors of `factory-door` (who is it, [`peer`]) → [`service`] (gRPC, and [`csr`] at the door) → [`registrar`] → [`ledger`], and [`issuers`] ([`issuer`], [`profile`], [`authority`])
//! or [`provenance`] → [`token`].
//! [`crl`] publishes what is void; [`witness`] sees to it that the ledger is the one that stations were answered from.
//! [`vigil`] watches token and ledger meanwhile, and tells [`health`].
//! [`ceremony`] makes the token and the CA before that, once; [`image`] signs files.

pub mod authority;
pub mod ceremony;
pub mod chain;
pub mod config;
pub mod credential;
pub mod crl;
pub mod csr;
pub mod health;
pub mod image;
pub mod issuer;
pub mod issuers;
pub mod ledger;
pub mod order;
pub mod peer;
pub mod profile;
pub mod provenance;
pub mod registrar;
pub mod service;
pub mod token;
pub mod vigil;
pub mod witness;
