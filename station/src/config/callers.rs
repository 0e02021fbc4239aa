//! What the station file says of those who call: where, who may, and how much.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
};

use factory_door::{allowance::Limits, rate::Rate, tls::TlsFiles};
use factory_settings::{Table, integer, list, path, table, text};

use crate::{
    callers::{CallerSettings, Proof},
    role::{Role, Roles},
};

/// A fast MES asks some ten times a second for each of 64 nests.
const RATE: &str = "1000/s";
/// A stream of events for each of a line's screens, and a command for each of 64 nests.
const AT_A_TIME: usize = 256;
/// Clients that make one for each call, and do not close it at once.
const CONNECTIONS: usize = 64;

/// Where calls come from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// What is shown and demanded there; none on loopback.
    pub tls: Option<TlsFiles>,
}

/// Where calls come from the network, if they do; and who may call.
pub fn callers(file: &mut Table<'_>) -> Option<(Option<Listen>, CallerSettings)> {
    let address: Option<Option<SocketAddr>> = file.optional("listen", text);
    let plain: Option<Option<Vec<Role>>> = file.optional("listen-roles", list(text));
    let tls = file.optional("tls", table(tls));
    let roles = file.or("roles", BTreeMap::new(), table(roles));
    let usual = Limits {
        calls: Some((rate(RATE), rate(RATE).of_a_second())),
        at_a_time: AT_A_TIME,
        connections: CONNECTIONS,
    };
    let limits = file.or("limits", usual, table(limits));

    let plain: Option<Roles> = plain?.map(Roles::from_iter);
    let listen = listen(file, address?, plain.is_some(), tls?);
    let callers = CallerSettings { roles: roles?, plain: plain.unwrap_or_default(), limits: limits? };
    let listen = listen?;
    if listen.as_ref().is_some_and(|listen| listen.tls.is_some()) && !callers.knows_certificates() {
        file.complain(
            "tls",
            "lets nobody in: name certificates in [roles], as in mes = [\"dns:mes.example\"]",
        );
        return None;
    }
    if plain == Some(Roles::NONE) {
        file.complain("listen-roles", "names no role: nobody could call there; leave out `listen` as well");
        return None;
    }
    Some((listen, callers))
}

fn listen(
    file: &Table<'_>,
    address: Option<SocketAddr>,
    roles: bool,
    tls: Option<TlsFiles>,
) -> Option<Option<Listen>> {
    let (key, complaint) = match (address, tls, roles) {
        (None, None, false) => return Some(None),
        (Some(address), Some(tls), false) => return Some(Some(Listen { address, tls: Some(tls) })),
        (Some(address), None, true) if address.ip().is_loopback() => {
            return Some(Some(Listen { address, tls: None }));
        }
        (Some(address), None, false) if address.ip().is_loopback() => (
            "listen",
            "needs [tls]; or `listen-roles`, which says what whoever calls there without TLS is, as in [\"mes\"]: nobody \
             can prove there who he is",
        ),
        (Some(_), None, _) => (
            "listen",
            "must be a loopback address where there is no [tls] with `certificate`, `key` and `client-ca`",
        ),
        (Some(_), Some(_), true) => {
            ("listen-roles", "must not be there beside [tls]: name certificates in [roles]")
        }
        (None, Some(_), _) => ("tls", "needs `listen`: there is no TLS on the socket"),
        (None, None, true) => {
            ("listen-roles", "needs `listen`: users and groups of the socket are in [roles]")
        }
    };
    file.complain(key, complaint);
    None
}

fn tls(tls: &mut Table<'_>) -> Option<TlsFiles> {
    let certificate = tls.required("certificate", path);
    let key = tls.required("key", path);
    let client_ca = tls.required("client-ca", path);
    let client_crl = tls.optional("client-crl", path);
    Some(TlsFiles { certificate: certificate?, key: key?, client_ca: client_ca?, client_crl: client_crl? })
}

fn roles(roles: &mut Table<'_>) -> Option<BTreeMap<Proof, Roles>> {
    let mut all = BTreeMap::<Proof, Roles>::new();
    let mut whole = true;
    for role in Role::ALL {
        let names = roles.or(role.as_str(), Vec::new(), list(text::<Proof>));
        whole &= names.is_some();
        let mut seen = BTreeSet::new();
        for proof in names.unwrap_or_default() {
            if !seen.insert(proof.clone()) {
                roles.complain(role.as_str(), "names somebody twice: each once is enough");
            }
            let has = all.entry(proof).or_default();
            *has = has.and(Roles::of(&[role]));
        }
    }
    whole.then_some(all)
}

fn limits(limits: &mut Table<'_>) -> Option<Limits> {
    let calls = limits.or("calls", rate(RATE), text);
    let burst: Option<Option<NonZeroU32>> = limits.optional("burst", integer);
    let at_a_time: Option<usize> =
        limits.or("calls-at-a-time", count(AT_A_TIME), integer).map(NonZeroUsize::get);
    let connections = limits.or("connections", count(CONNECTIONS), integer).map(NonZeroUsize::get);
    let (calls, burst) = (calls?, burst?);
    Some(Limits {
        calls: Some((calls, burst.unwrap_or(calls.of_a_second()))),
        at_a_time: at_a_time?,
        connections: connections?,
    })
}

fn rate(text: &str) -> Rate {
    text.parse().expect("it is a rate")
}

fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("not zero")
}
