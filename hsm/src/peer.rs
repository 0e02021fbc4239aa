//! Who asks: a user of this host that the kernel vouches for (SO_PEERCRED), or a station that our CA vouches for (mutual TLS).
//!
//! Knows what a peer may use and how much of it at a time. Knows nothing of sockets, nor of what is asked.

use std::{
    num::NonZeroU32,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use factory_proto::ids::{NestName, OrderId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Extensions, Status};

use crate::rate::{Bucket, Rate};

/// Calls of one peer that may be under way at a time: half of what waits for the token at most.
const CALLS: usize = 64;
/// Connections of one peer: a station has one, and another for a moment when that one breaks.
const CONNECTIONS: usize = 16;

/// How a peer proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// Some orders: one, or all that begin alike (`prefix-*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderPattern {
    start: String,
    open: bool,
}

impl FromStr for OrderPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, open) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        // What an order's id cannot hold would match none. With something after it, an empty start is checked as well.
        let sample = if open { format!("{start}0") } else { start.to_owned() };
        sample.parse::<OrderId>().map_err(|fault| format!("{fault}, and a `*` at its end"))?;
        Ok(Self { start: start.to_owned(), open })
    }
}

impl OrderPattern {
    fn matches(&self, order: &OrderId) -> bool {
        if self.open { order.as_str().starts_with(&self.start) } else { order.as_str() == self.start }
    }
}

/// A peer as the signer's file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The station's name.
    pub name: NestName,
    /// How it proves that.
    pub identity: Identity,
    /// Its orders; `None`: all.
    pub orders: Option<Vec<OrderPattern>>,
    /// How often it may call, and how many calls it may save up; `None`: as often as it likes.
    pub rate: Option<(Rate, NonZeroU32)>,
}

/// Who asks, and what it may. Clones are the same.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    name: Option<NestName>,
    orders: Option<Vec<OrderPattern>>,
    calls: Option<Mutex<Bucket>>,
    at_a_time: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// Why a call is not let through at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch {
    /// Worth trying again after this.
    pub after: Duration,
}

impl Peer {
    fn new(entry: Option<Entry>) -> Self {
        let (name, orders, rate) = match entry {
            Some(entry) => (Some(entry.name), entry.orders, entry.rate),
            None => (None, None, None),
        };
        Self(Arc::new(Rules {
            name,
            orders,
            calls: rate.map(|(rate, burst)| Mutex::new(Bucket::new(rate, burst))),
            at_a_time: Arc::new(Semaphore::new(CALLS)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
        }))
    }

    /// The peer behind a call, which [`crate::admission`] has put there.
    pub fn of(call: &Extensions) -> Result<Self, Status> {
        call.get().cloned().ok_or_else(|| Status::internal("nobody has said who calls"))
    }

    /// The station's name; `None` where peers have no names because the signer's file has none.
    pub fn name(&self) -> Option<&NestName> {
        self.0.name.as_ref()
    }

    /// Whether this is one of its orders.
    pub fn may_use(&self, order: &OrderId) -> bool {
        let orders = self.0.orders.as_ref();
        orders.is_none_or(|orders| orders.iter().any(|pattern| pattern.matches(order)))
    }

    /// Whether it may speak for this station.
    pub fn may_speak_for(&self, station: &NestName) -> bool {
        self.name().is_none_or(|name| name == station)
    }

    /// Begins a call, which lasts as long as the permit.
    ///
    /// # Errors
    /// It has called too often, or has too many calls under way.
    pub fn begin_call(&self, now: Instant) -> Result<OwnedSemaphorePermit, TooMuch> {
        // First, so that what is refused does not count as a call.
        let permit = self.0.at_a_time.clone().try_acquire_owned();
        let permit = permit.map_err(|_| TooMuch { after: Duration::from_millis(100) })?;
        if let Some(calls) = &self.0.calls {
            let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.take(now).map_err(|after| TooMuch { after })?;
        }
        Ok(permit)
    }

    /// Begins a connection, which lasts as long as the permit; `None` where there are too many.
    pub fn begin_connection(&self) -> Option<OwnedSemaphorePermit> {
        self.0.connections.clone().try_acquire_owned().ok()
    }
}

/// All who may ask.
#[derive(Debug)]
pub struct Peers(Vec<(Identity, Peer)>);

/// Somebody who may not; the text is for them and for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// A user of this host.
    #[error("user {0} may not use this signer: give it a [[peer]] with uid = {0}")]
    User(u32),
    /// The kernel did not say which one.
    #[error("the caller's user is not known")]
    Unknown,
    /// A certificate that is good, and nobody's.
    #[error("no [[peer]] has one of the certificate's subject alternative names ({0})")]
    Certificate(String),
    /// A certificate that is two peers'.
    #[error(
        "the certificate's subject alternative names ({0}) belong to several peers: it must be one's alone"
    )]
    Several(String),
}

impl Peers {
    /// Those only; when nobody is named, the signer's own user and root, who may use all orders.
    pub fn new(entries: Vec<Entry>) -> Self {
        if entries.is_empty() {
            let own = nix::unistd::getuid().as_raw();
            let nameless = Peer::new(None);
            return Self([0, own].map(|uid| (Identity::User(uid), nameless.clone())).into());
        }
        Self(entries.into_iter().map(|entry| (entry.identity.clone(), Peer::new(Some(entry)))).collect())
    }

    /// The peer that a process of this user is.
    pub fn user(&self, uid: u32) -> Result<Peer, Stranger> {
        self.find(&Identity::User(uid)).ok_or(Stranger::User(uid))
    }

    /// The peer whose certificate holds these names.
    pub fn certificate(&self, names: &[Identity]) -> Result<Peer, Stranger> {
        let mut found = names.iter().filter_map(|name| self.find(name));
        let listed = || {
            let names = names.iter().map(|name| match name {
                Identity::User(uid) => format!("user {uid}"),
                Identity::Dns(name) | Identity::Uri(name) => format!("{name:?}"),
            });
            names.collect::<Vec<_>>().join(", ")
        };
        let peer = found.next().ok_or_else(|| Stranger::Certificate(listed()))?;
        if found.all(|other| Arc::ptr_eq(&other.0, &peer.0)) {
            Ok(peer)
        } else {
            Err(Stranger::Several(listed()))
        }
    }

    fn find(&self, identity: &Identity) -> Option<Peer> {
        self.0.iter().find(|(known, _)| known == identity).map(|(_, peer)| peer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, identity: Identity) -> Entry {
        let rate = Some(("1/s".parse().unwrap(), NonZeroU32::MIN));
        Entry { name: name.parse().unwrap(), identity, orders: None, rate }
    }

    fn check(pattern: &str, order: &str, matches: bool) {
        let pattern: OrderPattern = pattern.parse().unwrap();
        assert_eq!(pattern.matches(&order.parse().unwrap()), matches, "{pattern:?} {order}");
    }

    #[test]
    fn a_pattern_is_an_order_or_its_beginning() {
        check("WO-1", "WO-1", true);
        check("WO-1", "WO-10", false);
        check("WO-1*", "WO-10", true);
        check("WO-1*", "WO-1", true);
        check("WO-1*", "XWO-1", false);
        check("*", "WO-1", true);
        for bad in ["", "a*b", "**", "a b", "WO/*"] {
            assert!(bad.parse::<OrderPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_certificate_is_one_peers_alone() {
        let peers = Peers::new(vec![
            entry("a", Identity::named("A.example")),
            entry("b", Identity::named("spiffe://example/b")),
            entry("c", Identity::User(7)),
        ]);
        let named = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| Identity::named(name)).collect();
            peers.certificate(&names).map(|peer| peer.name().unwrap().to_string())
        };
        assert_eq!(named(&["a.EXAMPLE", "other.example"]).as_deref(), Ok("a"));
        assert_eq!(named(&["spiffe://example/b"]).as_deref(), Ok("b"));
        assert!(matches!(named(&["a.example", "spiffe://example/b"]), Err(Stranger::Several(_))));
        assert!(matches!(named(&["sub.a.example"]), Err(Stranger::Certificate(_))));
        assert!(matches!(named(&[]), Err(Stranger::Certificate(_))));
        assert_eq!(peers.user(8).unwrap_err(), Stranger::User(8));
    }

    #[test]
    fn a_peer_has_one_allowance_however_it_is_found() {
        let peers = Peers::new(vec![entry("c", Identity::User(7))]);
        let now = Instant::now();
        assert!(peers.user(7).unwrap().begin_call(now).is_ok());
        let after = Duration::from_secs(1);
        assert_eq!(peers.user(7).unwrap().begin_call(now).unwrap_err(), TooMuch { after });
    }

    #[test]
    fn more_calls_than_allowed_wait_for_others_to_end() {
        let peer = Peer::new(None);
        let now = Instant::now();
        let mut under_way: Vec<_> = (0..CALLS).map(|_| peer.begin_call(now).unwrap()).collect();
        assert!(peer.begin_call(now).is_err());
        under_way.pop();
        assert!(peer.begin_call(now).is_ok());
    }
}
