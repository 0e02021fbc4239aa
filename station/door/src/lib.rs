//! Where calls come in: Unix sockets, mutual TLS 1.3, and plain connections of this host. Finds out who is behind each
//! connection before a byte of HTTP is read, and holds everybody to a share.
//!
//! A call's way: [`doors`] takes the connection, [`tls`] shakes hands, a [`guest::House`] says whose it is, and
//! [`admission`] lets each of its calls in within its [`allowance`]. Knows nothing of what is asked, nor of who may ask
//! for what.

pub mod admission;
pub mod allowance;
pub mod client;
pub mod doors;
pub mod files;
pub mod guest;
mod length;
pub mod rate;
mod revocation;
pub mod socket;
pub mod tls;
mod withdrawn;
