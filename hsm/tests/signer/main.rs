//! `factory-signerd` as it ships, on a real SoftHSM; each test in a folder of its own.

mod ceremony;
mod csr;
mod faults;
mod faulty;
mod issuing;
mod ledger;
mod peers;
mod pki;
mod request;
mod rig;
mod socket;
mod token_lost;
