//! Who may call what, at a real daemon: over real TLS, on its socket, and on loopback.

mod audit;
mod controller;
mod daemon;
mod limits;
mod pki;
mod raw;
mod revocation;
mod rights;
mod socket;
mod storm;
mod tls;
