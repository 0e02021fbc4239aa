//! Who asks: a user of this host that the kernel vouches for (SO_PEERCRED), or a station that our CA vouches for (mutual TLS).
//!
//! Knows what a peer may use and how much of it at a time. Knows nothing of sockets, nor of what is asked.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc};

use factory_door::{
    admission::AdmissionLayer,
    allowance::{Allowance, Limits},
    doors::Doors,
    guest::{Evidence, Guest, House, Identity},
    rate::Rate,
};
use factory_proto::ids::{NestName, OrderId};
use tonic::{Extensions, Status};

/// Where this signer's peers come in.
pub type PeerDoors = Doors<Peer, Stranger>;
/// What holds them to their share.
pub type PeerAdmission = AdmissionLayer<Peers>;

/// Calls of one peer that may be under way at a time: half of what waits for the token at most.
const CALLS: usize = 64;
/// Connections of one peer: a station has one, and another for a moment when that one breaks.
const CONNECTIONS: usize = 16;

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
    allowance: Allowance,
}

impl Guest for Peer {
    fn allowance(&self) -> &Allowance {
        &self.0.allowance
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => name.fmt(f),
            None => f.write_str("a user of this host"),
        }
    }
}

impl Peer {
    fn new(entry: Option<Entry>) -> Self {
        let (name, orders, rate) = match entry {
            Some(entry) => (Some(entry.name), entry.orders, entry.rate),
            None => (None, None, None),
        };
        let limits = Limits { calls: rate, at_a_time: CALLS, connections: CONNECTIONS };
        Self(Arc::new(Rules { name, orders, allowance: Allowance::new(&limits) }))
    }

    /// The peer behind a call, which [`PeerAdmission`] has put there.
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

impl House for Peers {
    type Peer = Peer;
    type Stranger = Stranger;

    fn recognise(&self, evidence: &Evidence) -> Result<Peer, Stranger> {
        match evidence {
            Evidence::Process { uid, .. } => self.user(*uid),
            Evidence::Certificate(names) => self.certificate(names),
            // This signer listens nowhere without TLS.
            Evidence::Address(_) | Evidence::Nothing => Err(Stranger::Unknown),
        }
    }
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

    fn user(&self, uid: u32) -> Result<Peer, Stranger> {
        self.find(&Identity::User(uid)).ok_or(Stranger::User(uid))
    }

    /// The peer whose certificate holds these names.
    fn certificate(&self, names: &[Identity]) -> Result<Peer, Stranger> {
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
    use std::time::Instant;

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
        let find = || peers.recognise(&Evidence::Process { uid: 7, gid: 7 }).unwrap();
        assert!(find().allowance().begin_call(now).is_ok());
        assert!(find().allowance().begin_call(now).is_err());
    }
}
