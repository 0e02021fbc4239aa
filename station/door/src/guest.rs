//! Who is behind a connection: what is known of it, and who decides by that whose it is.

use std::{fmt, net::SocketAddr};

use crate::allowance::Allowance;

/// How somebody proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// The user that its process runs as, on this host.
    User(u32),
    /// A DNS name in its certificate, in lower case.
    Dns(String),
    /// A URI in its certificate.
    Uri(String),
}

impl Identity {
    /// A name as a certificate has it: of a URI when there is a colon in it.
    pub fn named(text: &str) -> Self {
        if text.contains(':') { Self::Uri(text.to_owned()) } else { Self::Dns(text.to_ascii_lowercase()) }
    }
}

/// What is known of whoever is behind a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A process of this host, on a Unix socket: its user and its group, as the kernel says (SO_PEERCRED).
    Process {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// The names in a certificate that one of the client CAs vouches for.
    Certificate(Vec<Identity>),
    /// Only where it is, on a listener without TLS.
    Address(SocketAddr),
    /// Not even that.
    Nothing,
}

/// Where a connection came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The Unix socket.
    Socket,
    /// The network.
    Address(SocketAddr),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket => f.write_str("socket"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Somebody who may come in; clones are the same. Shown in the log.
pub trait Guest: fmt::Display + Clone + Send + Sync + 'static {
    /// What it has of connections and calls.
    fn allowance(&self) -> &Allowance;
}

/// Who knows the guests.
pub trait House: Send + Sync + 'static {
    /// Who may come in.
    type Peer: Guest;
    /// Who may not; its text is for it and for the log.
    type Stranger: fmt::Display + Clone + Send + Sync + 'static;

    /// Whose connection this is. May look into the host's user database, and so block for a moment.
    fn recognise(&self, evidence: &Evidence) -> Result<Self::Peer, Self::Stranger>;
}

/// Who is behind a connection; each of its calls carries it.
#[derive(Debug, Clone)]
pub struct Caller<P, S> {
    /// Whose connection it is.
    pub who: Result<P, S>,
    /// Where it came from.
    pub from: Origin,
}
