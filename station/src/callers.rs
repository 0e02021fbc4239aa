//! Who calls, and which roles that gives: by the names in a certificate, by user and group on the socket, by being on this
//! host.
//!
//! Knows nothing of what is called.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::CString,
    fmt,
    num::NonZeroU32,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use factory_door::{
    allowance::{Allowance, Limits},
    guest::{Evidence, Guest, House, Identity},
    rate::{Bucket, Rate},
};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist, getuid};

use crate::role::Roles;

/// What a name in a certificate may be long, for the log and the audit.
const LONGEST_NAME: usize = 128;
/// All who have no role share this, so that they fill neither memory nor log.
const STRANGERS: (&str, NonZeroU32) = ("5/s", NonZeroU32::new(20).expect("not zero"));
const STRANGERS_AT_A_TIME: usize = 8;
/// Refusals of one caller that are kept one by one; what goes beyond is counted in the next one. At some 200 bytes each
/// that is less than 2 MB in a day.
const REFUSALS: (&str, NonZeroU32) = ("6/m", NonZeroU32::new(30).expect("not zero"));

/// By what the station file knows somebody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// A name in a certificate, or a user of this host.
    Identity(Identity),
    /// A group of this host: all users that are in it.
    Group(u32),
}

impl FromStr for Proof {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "must be a name such as \"dns:mes.example\", \"uri:spiffe://example/mes\", \"user:alice\" or \
                            \"group:operators\"";
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or(FORM)?;
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("{text:?} holds a space, which no name does"));
        }
        let missing = |what| format!("there is no {what} {name} on this host: make it, or correct the name");
        let failed = |error: nix::Error| format!("the {kind} {name} cannot be looked up: {error}");
        match kind {
            "dns" if name.contains('*') => {
                Err(format!("{text:?}: a certificate must hold the whole name, a * stands for nothing"))
            }
            "dns" => Ok(Self::Identity(Identity::Dns(name.to_ascii_lowercase()))),
            "uri" if name.contains(':') => Ok(Self::Identity(Identity::Uri(name.to_owned()))),
            "uri" => Err(format!("{text:?}: a URI has a scheme, as in \"uri:spiffe://example/mes\"")),
            "user" => {
                let user = User::from_name(name).map_err(failed)?.ok_or_else(|| missing("user"))?;
                Ok(Self::Identity(Identity::User(user.uid.as_raw())))
            }
            "group" => {
                let group = Group::from_name(name).map_err(failed)?.ok_or_else(|| missing("group"))?;
                Ok(Self::Group(group.gid.as_raw()))
            }
            _ => Err(FORM.to_owned()),
        }
    }
}

/// What the station file says of callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerSettings {
    /// Who has which roles.
    pub roles: BTreeMap<Proof, Roles>,
    /// The roles of whoever calls where there is no TLS: nobody can prove there who he is.
    pub plain: Roles,
    /// What each caller has of connections and calls.
    pub limits: Limits,
}

impl CallerSettings {
    /// Whether there is anybody whom a certificate makes known.
    pub fn knows_certificates(&self) -> bool {
        let is_name = |proof: &Proof| matches!(proof, Proof::Identity(Identity::Dns(_) | Identity::Uri(_)));
        self.roles.keys().any(is_name)
    }

    /// Whether there are users of this host beside root and the station's own.
    pub fn knows_users(&self) -> bool {
        let is_user = |proof: &Proof| matches!(proof, Proof::Identity(Identity::User(_)) | Proof::Group(_));
        self.roles.keys().any(is_user)
    }
}

/// Who calls. Clones are the same.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Arc<str>,
    roles: Roles,
    account: Arc<Account>,
}

/// What is kept of a caller, whichever connections it comes by.
#[derive(Debug)]
struct Account {
    allowance: Allowance,
    refusals: Mutex<Bucket>,
}

impl Caller {
    /// By what it is known, as in `dns:mes.example`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is here.
    pub fn roles(&self) -> Roles {
        self.roles
    }

    /// Whether one more refusal is to be kept; otherwise it is counted.
    pub fn may_be_told_of(&self, now: Instant) -> bool {
        let mut refusals = self.account.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = refusals.take(now).is_ok();
        if !kept {
            self.account.allowance.turn_away();
        }
        kept
    }
}

impl Guest for Caller {
    fn allowance(&self) -> &Allowance {
        &self.account.allowance
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// All who may call, and what is left to each.
#[derive(Debug)]
pub struct Callers {
    settings: CallerSettings,
    own: u32,
    /// By name; those without a role have one in common.
    accounts: Mutex<HashMap<Arc<str>, Arc<Account>>>,
    strangers: Arc<Account>,
}

impl Callers {
    /// As the file says; root and the station's own user have all roles on the socket.
    pub fn new(settings: CallerSettings) -> Self {
        let (rate, burst) = STRANGERS;
        let strangers = Limits {
            calls: Some((rate.parse().expect("a rate"), burst)),
            at_a_time: STRANGERS_AT_A_TIME,
            connections: STRANGERS_AT_A_TIME,
        };
        let strangers = Arc::new(Account::new(&strangers));
        Self { settings, own: getuid().as_raw(), accounts: Mutex::default(), strangers }
    }

    fn caller(&self, name: String, roles: Roles) -> Caller {
        let name = Arc::<str>::from(name);
        if roles == Roles::NONE {
            return Caller { name, roles, account: self.strangers.clone() };
        }
        // Bounded: by the names in the file, and by the users of this host.
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Account::new(&self.settings.limits)))
            .clone();
        Caller { name, roles, account }
    }

    fn roles_of(&self, proof: &Proof) -> Roles {
        self.settings.roles.get(proof).copied().unwrap_or_default()
    }

    fn certified(&self, names: &[Identity]) -> Caller {
        let known = |name: &&Identity| self.roles_of(&Proof::Identity((*name).clone())) != Roles::NONE;
        let roles = names.iter().map(|name| self.roles_of(&Proof::Identity(name.clone())));
        let roles = roles.fold(Roles::NONE, Roles::and);
        let name = match names.iter().find(known).or(names.first()) {
            Some(Identity::Dns(name)) => format!("dns:{name}"),
            Some(Identity::Uri(name)) => format!("uri:{name}"),
            Some(Identity::User(_)) | None => "a certificate without a DNS name or URI".to_owned(),
        };
        self.caller(bounded(&name), roles)
    }

    fn process(&self, uid: u32, gid: u32) -> Caller {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let name = user.as_ref().map_or_else(|| format!("user:{uid}"), |user| format!("user:{}", user.name));
        if uid == 0 || uid == self.own {
            return self.caller(name, Roles::ALL);
        }
        let groups = user.map(|user| groups(&user.name, gid)).unwrap_or_default();
        let groups = groups.into_iter().chain([gid]).map(|gid| self.roles_of(&Proof::Group(gid)));
        let own = self.roles_of(&Proof::Identity(Identity::User(uid)));
        self.caller(name, groups.fold(own, Roles::and))
    }
}

impl House for Callers {
    type Peer = Caller;
    /// Somebody without a role is told so for each call.
    type Stranger = std::convert::Infallible;

    fn recognise(&self, evidence: &Evidence) -> Result<Caller, Self::Stranger> {
        Ok(match evidence {
            Evidence::Process { uid, gid } => self.process(*uid, *gid),
            Evidence::Certificate(names) => self.certified(names),
            Evidence::Address(_) => self.caller("anybody on this host".to_owned(), self.settings.plain),
            Evidence::Nothing => self.caller("nobody known".to_owned(), Roles::NONE),
        })
    }
}

impl Account {
    fn new(limits: &Limits) -> Self {
        let (rate, burst) = REFUSALS;
        let rate: Rate = rate.parse().expect("a rate");
        Self { allowance: Allowance::new(limits), refusals: Mutex::new(Bucket::new(rate, burst)) }
    }
}

/// The groups of a user of this host; none where they cannot be found out.
fn groups(name: &str, gid: u32) -> Vec<u32> {
    let Ok(name) = CString::new(name) else { return Vec::new() };
    let groups = getgrouplist(&name, Gid::from_raw(gid)).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

/// A name from outside, fit for log and records.
fn bounded(name: &str) -> String {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    name.chars().take(LONGEST_NAME).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;

    fn callers(roles: &[(&str, &[Role])]) -> Callers {
        let roles = roles.iter().map(|(proof, roles)| (proof.parse().unwrap(), Roles::of(roles)));
        Callers::new(CallerSettings {
            roles: roles.collect(),
            plain: Roles::of(&[Role::Viewer]),
            limits: Limits { calls: None, at_a_time: 9, connections: 9 },
        })
    }

    fn check(callers: &Callers, evidence: Evidence, name: &str, roles: &[Role]) {
        let Ok(caller) = callers.recognise(&evidence);
        assert_eq!((caller.name(), caller.roles()), (name, Roles::of(roles)), "{evidence:?}");
    }

    #[test]
    fn roles_come_from_names_users_and_groups() {
        use Role::{Engineer, Mes, Operator, Viewer};
        let callers = callers(&[
            ("dns:MES.example", &[Mes]),
            ("uri:spiffe://example/desk", &[Engineer, Viewer]),
            // Debian has had these for ever: user 7, whose group is 7, and user 65534.
            ("group:lp", &[Operator]),
            ("user:nobody", &[Viewer]),
        ]);
        let names =
            |names: &[&str]| Evidence::Certificate(names.iter().map(|name| Identity::named(name)).collect());
        check(&callers, names(&["other.example", "mes.EXAMPLE"]), "dns:mes.example", &[Mes]);
        let both = names(&["mes.example", "spiffe://example/desk"]);
        check(&callers, both, "dns:mes.example", &[Mes, Engineer, Viewer]);
        check(&callers, names(&["sub.mes.example"]), "dns:sub.mes.example", &[]);
        check(&callers, names(&[]), "a certificate without a DNS name or URI", &[]);
        check(&callers, Evidence::Process { uid: 7, gid: 7 }, "user:lp", &[Operator]);
        check(&callers, Evidence::Process { uid: 65534, gid: 65534 }, "user:nobody", &[Viewer]);
        check(&callers, Evidence::Process { uid: 65534, gid: 7 }, "user:nobody", &[Operator, Viewer]);
        check(&callers, Evidence::Process { uid: 4_000_000, gid: 8 }, "user:4000000", &[]);
        check(&callers, Evidence::Process { uid: 0, gid: 0 }, "user:root", &Role::ALL);
        let here = Evidence::Address("127.0.0.1:9".parse().unwrap());
        check(&callers, here, "anybody on this host", &[Viewer]);
        check(&callers, Evidence::Nothing, "nobody known", &[]);
    }

    #[test]
    fn strangers_have_one_allowance_in_common_and_their_names_are_short() {
        let callers = callers(&[]);
        let stranger = |name: &str| {
            let Ok(caller) = callers.recognise(&Evidence::Certificate(vec![Identity::named(name)]));
            caller
        };
        let now = Instant::now();
        let (first, second) = (stranger("a.example"), stranger("b.example"));
        let places: Vec<_> = (0..STRANGERS_AT_A_TIME).map(|_| first.allowance().begin_call(now)).collect();
        assert!(places.iter().all(Result::is_ok) && second.allowance().begin_call(now).is_err());
        let long = stranger(&format!("{}\n", "x".repeat(200)));
        assert_eq!(long.name().chars().count(), LONGEST_NAME);
    }
}
