//! The signer's file: which token, keys and socket it uses, and what its certificates say.
//!
//! Knows nothing of what the values are used for.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use factory_door::{guest::Identity, rate::Rate, tls::TlsFiles};
use factory_proto::ids::{AuthorityName, ProfileName};
use factory_settings::{SettingsError, Table, Value, duration, integer, list, path, table, text};
use humantime::format_duration;

use crate::{
    peer::Entry,
    profile::{
        MINIMUM_LIFETIME, Subject, YEAR,
        device::{Kind, Profile},
    },
    token::module::Library,
};

mod profile;

use profile::profile;

/// What PKCS#11 keeps of a token's label (CK_TOKEN_INFO, PKCS#11 v2.40 section 3.2).
const TOKEN_LABEL_LIMIT: usize = 32;
/// More owner threads than that only fill the token's session table.
const SESSION_LIMIT: usize = 64;

const DEFAULT_SESSIONS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");

/// How the signer is set up, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The Unix socket that is served.
    pub socket: PathBuf,
    /// The PKCS#11 module.
    pub module: Library,
    /// The token's label.
    pub token_label: String,
    /// Where the user PIN is: a credential's name or an absolute path.
    pub pin_credential: PathBuf,
    /// Where the security officer's PIN is; only needed by `init` on a fresh token.
    pub so_pin_credential: Option<PathBuf>,
    /// The CAs for device identities; at least one. The first one issues.
    pub authorities: Vec<AuthorityKey>,
    /// Signs what a station's log was.
    pub provenance: RoleKey,
    /// For firmware images and recipes.
    pub firmware: Option<RoleKey>,
    /// Where the ledger lies.
    pub ledger: PathBuf,
    /// Sessions with the token, each with a thread that owns it.
    pub sessions: NonZeroUsize,
    /// How long one signature may take, waiting in the queue included.
    pub sign_deadline: Duration,
    /// How long a call may hang inside the module before the process ends; not less than [`Config::sign_deadline`].
    pub hang_limit: Duration,
    /// How long the token may be idle before it is seen whether it still signs.
    pub look_every: Duration,
    /// The public keys of those who may sign work orders, PEM.
    pub order_keys: Vec<PathBuf>,
    /// Where stations on other hosts call, if they do.
    pub listen: Option<(SocketAddr, TlsFiles)>,
    /// Who may ask; when nobody is listed, the signer's own user and root.
    pub peers: Vec<Entry>,
    /// What the CAs' subjects hold besides the CN.
    pub subject: Subject,
    /// What devices' certificates may say; at least one.
    pub profiles: Vec<Profile>,
    /// Where the CAs' revocation lists are put, and for how long each is good; `None`: nowhere.
    pub revocation: Option<(PathBuf, Duration)>,
}

/// One of the CAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityKey {
    /// What people call it; no other CA of the signer has the same.
    pub name: AuthorityName,
    /// Its key and certificate.
    pub role: RoleKey,
    /// The profiles that it issues by; `None`: all.
    pub profiles: Option<Vec<ProfileName>>,
}

/// A key pair in the token, and its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleKey {
    /// The label of both halves in the token.
    pub key_label: String,
    /// The certificate, PEM.
    pub certificate: PathBuf,
}

impl Config {
    /// Reads a signer's file; all its mistakes at once.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        factory_settings::read(path, Self::written)
    }

    fn written(file: &mut Table<'_>) -> Option<Self> {
        let socket = file.required("socket", path);
        let module = file.required("module", path);
        let module_arguments = file.optional("module-arguments", module_arguments);
        let token_label = file.required("token-label", token_label);
        let pin_credential = file.required("pin-credential", credential);
        let so_pin_credential = file.optional("so-pin-credential", credential);
        let authorities = file.required("authority", list(table(authority)));
        let provenance = file.required("provenance", table(role));
        let firmware = file.optional("firmware", table(role));
        if let (Some(authorities), Some(provenance), Some(firmware)) = (&authorities, &provenance, &firmware)
        {
            complain_of_shared_keys(file, authorities, provenance, firmware.as_ref());
        }
        let ledger = file.required("ledger", path);
        let certificate_lifetime = file.or("certificate-lifetime", 20 * YEAR, lifetime);
        let sessions = file.or("sessions", DEFAULT_SESSIONS, sessions);
        let sign_deadline = file.or(
            "sign-deadline",
            Duration::from_secs(10),
            within(Duration::from_millis(1)..=Duration::from_secs(600)),
        );
        let hang_limit = file.or(
            "hang-limit",
            Duration::from_secs(60),
            within(Duration::from_millis(1)..=Duration::from_secs(3600)),
        );
        if let (Some(hang_limit), Some(sign_deadline)) = (hang_limit, sign_deadline)
            && hang_limit < sign_deadline
        {
            file.complain("hang-limit", "must not be less than `sign-deadline`");
        }
        let look_every = file.or(
            "look-every",
            Duration::from_secs(30),
            within(Duration::from_millis(100)..=Duration::from_secs(3600)),
        );
        let order_keys = file.required("order-keys", list(path));
        if order_keys.as_ref().is_some_and(Vec::is_empty) {
            file.complain("order-keys", "names no key: nothing could be ordered");
        }
        let listen: Option<Option<SocketAddr>> = file.optional("listen", text);
        let tls = file.optional("tls", table(tls));
        let listen = match (listen, tls) {
            (Some(Some(address)), Some(Some(tls))) => Some(Some((address, tls))),
            (Some(Some(_)), Some(None)) => {
                file.complain("listen", "needs [tls]: stations on other hosts prove who they are");
                None
            }
            (Some(None), Some(Some(_))) => {
                file.complain("tls", "needs `listen`: there is no TLS on the socket");
                None
            }
            (Some(None), Some(None)) => Some(None),
            _ => None,
        };
        let peers = file.or("peer", Vec::new(), list(table(peer)));
        if let Some(peers) = &peers {
            complain_of_same_peers(file, peers);
        }
        let subject = file.or("subject", Subject::default(), table(subject));
        let (common, years) =
            (subject.clone().unwrap_or_default(), certificate_lifetime.unwrap_or(20 * YEAR));
        let usual = || vec![usual_profile(&common, years)];
        let profiles = file.optional("profile", list(table(|table| profile(table, &common, years))));
        let profiles = profiles.map(|profiles| profiles.unwrap_or_else(usual));
        if let Some(profiles) = &profiles {
            complain_of_profiles(file, profiles, authorities.as_deref().unwrap_or_default());
        }
        let crl_directory = file.optional("crl-directory", path);
        let week = Duration::from_secs(7 * 24 * 3600);
        let crl_lifetime = file.or("crl-lifetime", week, within(Duration::from_secs(3600)..=52 * week));
        Some(Self {
            socket: socket?,
            module: Library { path: module?, arguments: module_arguments? },
            token_label: token_label?,
            pin_credential: pin_credential?,
            so_pin_credential: so_pin_credential?,
            authorities: authorities?,
            provenance: provenance?,
            firmware: firmware?,
            ledger: ledger?,
            sessions: sessions?,
            sign_deadline: sign_deadline?,
            hang_limit: hang_limit?,
            look_every: look_every?,
            order_keys: order_keys?,
            listen: listen?,
            peers: peers?,
            subject: subject?,
            profiles: certificate_lifetime.and(profiles)?,
            revocation: crl_directory?.zip(crl_lifetime),
        })
    }
}

fn authority(file: &mut Table<'_>) -> Option<AuthorityKey> {
    let name = file.required("name", text);
    let role = role(file);
    let profiles = file.optional("profiles", list(text));
    Some(AuthorityKey { name: name?, role: role?, profiles: profiles? })
}

fn role(file: &mut Table<'_>) -> Option<RoleKey> {
    let key_label = file.required("key-label", key_label);
    let certificate = file.required("certificate", path);
    Some(RoleKey { key_label: key_label?, certificate: certificate? })
}

/// A key that did two things could be made to sign one as the other.
fn complain_of_shared_keys(
    file: &Table<'_>,
    authorities: &[AuthorityKey],
    provenance: &RoleKey,
    firmware: Option<&RoleKey>,
) {
    if authorities.is_empty() {
        file.complain("authority", "must hold at least one CA");
    }
    let all = authorities.iter().map(|authority| ("authority", &authority.role));
    let all = all.chain([("provenance", provenance)]).chain(firmware.map(|role| ("firmware", role)));
    let mut seen: Vec<&RoleKey> = Vec::new();
    for (key, role) in all {
        if seen.iter().any(|other| other.key_label == role.key_label) {
            file.complain(
                key,
                format!("uses key-label {:?} once more: each key has one role", role.key_label),
            );
        }
        if seen.iter().any(|other| other.certificate == role.certificate) {
            file.complain(key, format!("uses {} once more", role.certificate.display()));
        }
        seen.push(role);
    }
    let mut names: Vec<_> = authorities.iter().map(|authority| &authority.name).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        file.complain("authority", format!("holds two CAs called {}", twice[0]));
    }
}

fn tls(tls: &mut Table<'_>) -> Option<TlsFiles> {
    let certificate = tls.required("certificate", path);
    let key = tls.required("key", path);
    let client_ca = tls.required("client-ca", path);
    let client_crl = tls.optional("client-crl", path);
    Some(TlsFiles { certificate: certificate?, key: key?, client_ca: client_ca?, client_crl: client_crl? })
}

fn peer(peer: &mut Table<'_>) -> Option<Entry> {
    let name = peer.required("name", text);
    let uid = peer.optional("uid", integer);
    let subject = peer.optional("subject-alternative-name", text::<String>);
    let orders = peer.optional("orders", list(text));
    let rate: Option<Option<Rate>> = peer.optional("rate", text);
    let burst: Option<Option<NonZeroU32>> = peer.optional("burst", integer);
    let identity = match (uid?, subject?) {
        (Some(uid), None) => Identity::User(uid),
        (None, Some(name)) if !name.is_empty() => Identity::named(&name),
        (None, Some(_)) => {
            peer.complain("subject-alternative-name", "must not be empty");
            return None;
        }
        _ => {
            peer.complain("name", "needs either `uid` or `subject-alternative-name`, to be known by");
            return None;
        }
    };
    let rate = match (rate?, burst?) {
        (Some(rate), burst) => Some((rate, burst.unwrap_or(rate.of_a_second()))),
        (None, None) => None,
        (None, Some(_)) => {
            peer.complain("burst", "needs `rate`");
            return None;
        }
    };
    Some(Entry { name: name?, identity, orders: orders?, rate })
}

/// Whoever asks is one peer, and a station is one peer.
fn complain_of_same_peers(file: &Table<'_>, peers: &[Entry]) {
    for (index, peer) in peers.iter().enumerate() {
        let others = &peers[..index];
        if others.iter().any(|other| other.name == peer.name) {
            file.complain("peer", format!("holds two peers called {}", peer.name));
        }
        if others.iter().any(|other| other.identity == peer.identity) {
            file.complain("peer", format!("{} is known by what another peer is known by", peer.name));
        }
    }
}

/// What devices get when the file says nothing else.
fn usual_profile(subject: &Subject, lifetime: Duration) -> Profile {
    let name = "bootstrap".parse().expect("it is a name");
    Profile { name, subject: subject.clone(), kind: Kind::Client { lifetime } }
}

fn complain_of_profiles(file: &Table<'_>, profiles: &[Profile], authorities: &[AuthorityKey]) {
    if profiles.is_empty() {
        file.complain("profile", "holds no profile: leave it out for the usual one, called bootstrap");
    }
    for (index, profile) in profiles.iter().enumerate() {
        if profiles[..index].iter().any(|other| other.name == profile.name) {
            file.complain("profile", format!("holds two profiles called {}", profile.name));
        }
    }
    for authority in authorities {
        for name in authority.profiles.iter().flatten() {
            if !profiles.iter().any(|profile| profile.name == *name) {
                let ca = &authority.name;
                file.complain(
                    "authority",
                    format!("has CA {ca} issue by {name}, and there is no such [[profile]]"),
                );
            }
        }
    }
}

fn lifetime(value: &Value<'_>) -> Option<Duration> {
    within(MINIMUM_LIFETIME..=100 * YEAR)(value)
}

fn subject(subject: &mut Table<'_>) -> Option<Subject> {
    let organization = subject.optional("organization", text);
    let country = subject.optional("country", text);
    Some(Subject { organization: organization?, organizational_unit: None, country: country? })
}

fn module_arguments(value: &Value<'_>) -> Option<String> {
    let arguments: String = text(value)?;
    if arguments.contains('\0') { value.complain("must not hold a NUL") } else { Some(arguments) }
}

fn token_label(value: &Value<'_>) -> Option<String> {
    let label: String = text(value)?;
    match label.len() {
        1..=TOKEN_LABEL_LIMIT => Some(label),
        length => value.complain(format!("is {length} bytes long, 1 to {TOKEN_LABEL_LIMIT} are allowed")),
    }
}

fn key_label(value: &Value<'_>) -> Option<String> {
    let label: String = text(value)?;
    if label.is_empty() { value.complain("must not be empty") } else { Some(label) }
}

/// Reads where a PIN is. A name stays one: it does not start from the file's folder.
fn credential(value: &Value<'_>) -> Option<PathBuf> {
    let credential: PathBuf = text(value)?;
    let is_name = credential.file_name() == Some(credential.as_os_str());
    if is_name || credential.is_absolute() {
        Some(credential)
    } else {
        value.complain("must be a credential's name or an absolute path")
    }
}

fn sessions(value: &Value<'_>) -> Option<NonZeroUsize> {
    let sessions = integer(value)?;
    match NonZeroUsize::new(sessions) {
        Some(some) if sessions <= SESSION_LIMIT => Some(some),
        _ => value.complain(format!("must be 1 to {SESSION_LIMIT}")),
    }
}

/// Reads a duration that has to be one of those `allowed`.
fn within(allowed: RangeInclusive<Duration>) -> impl Fn(&Value<'_>) -> Option<Duration> {
    move |value| {
        let duration = duration(value)?;
        if allowed.contains(&duration) {
            return Some(duration);
        }
        let (least, most) = (format_duration(*allowed.start()), format_duration(*allowed.end()));
        value.complain(format!("must be {least} to {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"socket = "/run/factory-signerd/signer.sock"
module = "/usr/lib/softhsm/libsofthsm2.so"
token-label = "factory"
pin-credential = "user-pin"
ledger = "ledger"
provenance = { key-label = "provenance", certificate = "provenance.pem" }
order-keys = ["orders.pem"]
authority = [{ name = "devices", key-label = "device-identity-ca", certificate = "ca.pem" }]
"#;

    fn parse(text: &str) -> Result<Config, String> {
        factory_settings::parse("/etc/signer.toml", text, Config::written)
            .map_err(|complaints| complaints.to_string())
    }

    /// Each complaint must start as expected, and there must be no others.
    fn check(text: &str, starts: &[&str]) {
        let complaints = parse(text).expect_err("must be refused");
        let found: Vec<&str> = complaints.lines().collect();
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (found, start) in found.iter().zip(starts) {
            let said = found.strip_prefix("/etc/signer.toml:").expect("each names the file");
            assert!(said.starts_with(start), "{said:?} does not start with {start:?}");
        }
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.sessions.get(), 2);
        assert_eq!(config.profiles, [usual_profile(&Subject::default(), 20 * YEAR)]);
        assert_eq!(config.revocation, None);
        assert_eq!(config.sign_deadline, Duration::from_secs(10));
        assert_eq!((config.so_pin_credential, config.listen), (None, None));
        assert_eq!(config.peers, []);
        assert_eq!(config.subject, Subject::default());
    }

    #[test]
    fn what_is_written_is_meant() {
        let config = parse(&format!(
            "{GOOD}certificate-lifetime = \"12y\"\nsessions = 64\nsign-deadline = \"1ms\"\n\
             hang-limit = \"1h\"\n[subject]\ncountry = \"DE\"\n"
        ))
        .unwrap();
        assert_eq!(config.profiles, [usual_profile(&config.subject, 12 * YEAR)]);
        assert_eq!(config.sessions.get(), SESSION_LIMIT);
        assert_eq!(config.sign_deadline, Duration::from_millis(1));
        assert_eq!(config.hang_limit, Duration::from_secs(3600));
        assert_eq!(config.subject.country, Some("DE".parse().unwrap()));
    }

    #[test]
    fn a_path_starts_from_the_folder_of_the_file_and_a_credential_does_not() {
        let config = parse(&format!("{GOOD}so-pin-credential = \"/root/so-pin\"\n")).unwrap();
        assert_eq!(config.authorities[0].role.certificate, Path::new("/etc/ca.pem"));
        assert_eq!(config.pin_credential, Path::new("user-pin"));
        assert_eq!(config.so_pin_credential.as_deref(), Some(Path::new("/root/so-pin")));
    }

    #[test]
    fn a_credential_is_a_name_or_an_absolute_path() {
        for bad in ["", ".", "..", "../user-pin", "pins/user", "user/"] {
            let text = GOOD.replace("\"user-pin\"", &format!("{bad:?}"));
            check(&text, &["4: key `pin-credential`: must be a credential's name or an absolute path"]);
        }
    }

    #[test]
    fn a_peer_is_known_by_one_thing_and_limited_as_written() {
        let config = parse(&format!(
            "{GOOD}listen = \"127.0.0.1:7443\"\n\
             tls = {{ certificate = \"tls.pem\", key = \"/etc/tls.key\", client-ca = \"stations.pem\", \
             client-crl = \"stations.crl\" }}\n\
             [[peer]]\nname = \"line-1\"\nuid = 4294967294\n\
             [[peer]]\nname = \"line-2\"\nsubject-alternative-name = \"Line-2.example\"\n\
             orders = [\"WO-*\"]\nrate = \"600/m\"\n"
        ))
        .unwrap();
        let (address, tls) = config.listen.unwrap();
        assert_eq!((address.port(), tls.client_ca.as_path()), (7443, Path::new("/etc/stations.pem")));
        assert_eq!(tls.client_crl.as_deref(), Some(Path::new("/etc/stations.crl")));
        assert_eq!(config.peers[0].identity, Identity::User(4_294_967_294));
        assert_eq!((&config.peers[0].orders, config.peers[0].rate), (&None, None));
        assert_eq!(config.peers[1].identity, Identity::Dns("line-2.example".to_owned()));
        assert_eq!(config.peers[1].orders, Some(vec!["WO-*".parse().unwrap()]));
        let ten = NonZeroU32::new(10).unwrap();
        assert_eq!(config.peers[1].rate, Some(("600/m".parse().unwrap(), ten)));
    }

    #[test]
    fn peers_that_cannot_be_told_apart_are_refused() {
        let both = "[[peer]]\nname = \"a\"\nuid = 1\nsubject-alternative-name = \"a\"\n";
        check(&format!("{GOOD}{both}"), &["10: key `peer[1].name`: needs either `uid` or `subj"]);
        let none = "[[peer]]\nname = \"a\"\n";
        check(&format!("{GOOD}{none}"), &["10: key `peer[1].name`: needs either `uid` or `subj"]);
        let twice = "[[peer]]\nname = \"a\"\nuid = 1\n[[peer]]\nname = \"a\"\nuid = 1\n";
        check(
            &format!("{GOOD}{twice}"),
            &["9: key `peer`: holds two peers called a", "9: key `peer`: a is known by what another"],
        );
        let odd = "[[peer]]\nname = \"a\"\nuid = -1\norders = [\"a*b\"]\nrate = \"fast\"\nburst = 0\n";
        check(
            &format!("{GOOD}{odd}"),
            &[
                "11: key `peer[1].uid`: -1 does not fit",
                "12: key `peer[1].orders[1]`: holds '*', only",
                "13: key `peer[1].rate`: must be a rate such as",
                "14: key `peer[1].burst`: ",
            ],
        );
    }

    #[test]
    fn a_listener_has_tls_and_tls_has_a_listener() {
        check(&format!("{GOOD}listen = \"127.0.0.1:7443\"\n"), &["9: key `listen`: needs [tls]"]);
        let tls = "[tls]\ncertificate = \"a\"\nkey = \"b\"\nclient-ca = \"c\"\n";
        check(&format!("{GOOD}{tls}"), &["9: key `tls`: needs `listen`"]);
    }

    #[test]
    fn a_call_does_not_hang_before_its_deadline() {
        check(
            &format!("{GOOD}sign-deadline = \"2s\"\nhang-limit = \"1s\"\n"),
            &["10: key `hang-limit`: must not be less than `sign-deadline`"],
        );
    }

    #[test]
    fn profiles_say_what_they_are_and_take_the_rest_from_the_file() {
        let config = parse(&format!(
            "{GOOD}certificate-lifetime = \"12y\"\nsubject = {{ organization = \"Example\" }}\n\
             [[profile]]\nname = \"b\"\nkind = \"bootstrap\"\n\
             [[profile]]\nname = \"l\"\nkind = \"lwm2m\"\norganizational-unit = \"acc\"\nlifetime = \"15y\"\n\
             [[profile]]\nname = \"i\"\nkind = \"idevid\"\nhardware-type = \"1.3.6.1.4.1.99999.1\"\n\
             [[profile]]\nname = \"c\"\nkind = \"custom\"\nlifetime = \"30d\"\ncountry = \"DE\"\n\
             extended-key-usages = [\"server-auth\"]\n"
        ))
        .unwrap();
        let organization: Option<crate::profile::Name> = Some("Example".parse().unwrap());
        assert!(config.profiles.iter().all(|profile| profile.subject.organization == organization));
        assert_eq!(config.profiles[0].kind, Kind::Client { lifetime: 12 * YEAR });
        assert_eq!(config.profiles[1].kind, Kind::Client { lifetime: 15 * YEAR });
        assert_eq!(config.profiles[1].subject.organizational_unit, Some("acc".parse().unwrap()));
        assert_eq!(config.profiles[2].kind, Kind::IDevId { hardware_type: vec![1, 3, 6, 1, 4, 1, 99999, 1] });
        assert_eq!(config.profiles[3].subject.country, Some("DE".parse().unwrap()));
        let bad = format!(
            "{GOOD}[[profile]]\nname = \"b\"\nkind = \"boot\"\n\
             [[profile]]\nname = \"l\"\nkind = \"lwm2m\"\nlifetime = \"9y\"\n\
             [[profile]]\nname = \"i\"\nkind = \"idevid\"\nhardware-type = \"3.1\"\n\
             [[profile]]\nname = \"c\"\nkind = \"custom\"\nlifetime = \"1y\"\nkey-usages = [\"cert-sign\"]\n"
        );
        check(
            &bad,
            &[
                "11: key `profile[1].kind`: is none of bootstrap, lwm2m, idevid, custom",
                "12: key `profile[2].organizational-unit`: is missing: it must be the account id",
                "15: key `profile[2].lifetime`: must be 10years to 100years",
                "19: key `profile[3].hardware-type`: must be an object identifier",
                "24: key `profile[4].key-usages[1]`: must be digital-signature, content-commitment or",
            ],
        );
        let twice = "[[profile]]\nname = \"b\"\nkind = \"bootstrap\"\n".repeat(2);
        check(&format!("{GOOD}{twice}"), &["9: key `profile`: holds two profiles called b"]);
        let unknown = GOOD.replace("name = \"devices\"", "name = \"devices\", profiles = [\"x\"]");
        check(&unknown, &["8: key `authority`: has CA devices issue by x, and there is no such [[profile]]"]);
    }

    #[test]
    fn somebody_can_order() {
        let without = GOOD.replace("order-keys = [\"orders.pem\"]\n", "");
        check(&without, &["1: key `order-keys`: is missing"]);
        let nobody = GOOD.replace("[\"orders.pem\"]", "[]");
        check(&nobody, &["7: key `order-keys`: names no key"]);
    }

    #[test]
    fn a_key_has_one_role() {
        let text = GOOD.replace("\"provenance\"", "\"device-identity-ca\"");
        check(&text, &["6: key `provenance`: uses key-label \"device-identity-ca\" once more"]);
        let text = GOOD.replace(
            "authority = [",
            "authority = [{ name = \"devices\", key-label = \"x\", certificate = \"x.pem\" }, ",
        );
        check(&text, &["8: key `authority`: holds two CAs called devices"]);
        check(
            &GOOD.replace(
                "{ name = \"devices\", key-label = \"device-identity-ca\", certificate = \"ca.pem\" }",
                "",
            ),
            &["8: key `authority`: must hold at least one CA"],
        );
    }

    #[test]
    fn a_missing_and_an_unknown_key_are_named() {
        let text = GOOD.replace("module", "modul");
        check(&text, &["1: key `module`: is missing", "2: key `modul`: unknown key, did you mean `module`?"]);
    }

    #[test]
    fn every_wrong_value_is_reported_at_once_in_the_order_of_lines() {
        let labels_wrong =
            GOOD.replace("\"factory\"", &format!("{:?}", "x".repeat(33))).replace("device-identity-ca", "");
        check(
            &format!(
                "{labels_wrong}certificate-lifetime = \"9y\"\nsessions = 0\nsign-deadline = \"soon\"\n\
                 hang-limit = \"2h\"\n\n[subject]\ncountry = \"Germany\"\norganization = \"\"\n"
            ),
            &[
                "3: key `token-label`: is 33 bytes long, 1 to 32 are allowed",
                "8: key `authority[1].key-label`: must not be empty",
                "9: key `certificate-lifetime`: must be 10years to 100years",
                "10: key `sessions`: must be 1 to 64",
                "11: key `sign-deadline`: must be a duration such as \"5s\"",
                "12: key `hang-limit`: must be 1ms to 1h",
                "15: key `subject.country`: must be two capital letters",
                "16: key `subject.organization`: must be 1 to 64 printable characters",
            ],
        );
    }
}
