//! `factory-signerd` as it ships, on a real SoftHSM; each test in a folder of its own.

mod ceremony;
mod crl;
mod csr;
mod faults;
mod faulty;
mod image;
mod issuing;
mod ledger;
mod modules;
mod orders;
mod peers;
mod pki;
mod profiles;
mod quota;
mod request;
mod rig;
mod root;
mod socket;
mod token_lost;
mod witness;
