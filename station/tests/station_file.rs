//! What people are told about the station file that they wrote.

use std::{fs, path::PathBuf, time::Duration};

use factory_door::guest::Identity;
use factory_station::{
    callers::Proof,
    config::{Config, Listen},
    golden::Rule,
    line::interlock::Interlock,
    place::Place,
    provenance::{Occasions, shift::ShiftEnd},
    role::{Role, Roles},
    signatures::Demand,
};
use tempfile::TempDir;

const STATION: &str = r#"name = "station-1"
state = "state"
recipes = "/etc/factory/recipes"
signer = "/run/factory/signer.sock"
listen = "127.0.0.1:7000"
listen-roles = ["mes"]
socket = "/run/factory/station.sock"
controllers = ["http://localhost:7001"]
signatures.demanded = false
[[nest]]
name = "nest-1"
probe = "1366:0101:1"
console = "/dev/ttyACM0"
tag-reader = "pn532_uart:/dev/ttyUSB0"
"#;

fn station(written: &str) -> (TempDir, Result<Config, String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("station.toml");
    fs::write(&path, written).unwrap();
    let read = Config::read(&path).map_err(|error| error.to_string());
    (folder, read)
}

fn addresses(config: &Config) -> Vec<String> {
    config.controllers.iter().map(ToString::to_string).collect()
}

/// What is written has these complaints.
fn refused(written: &str, expected: &[&str]) {
    let (folder, read) = station(written);
    let complaints = read.expect_err(written).replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(complaints.lines().collect::<Vec<_>>(), expected, "for {written}");
}

/// With these words replaced in the good file, these are the complaints.
fn bad_station(changes: &[(&str, &str)], expected: &[&str]) {
    let mut written = STATION.to_owned();
    for (old, new) in changes {
        assert_eq!(written.matches(old).count(), 1, "{old:?} should be there once");
        written = written.replace(old, new);
    }
    refused(&written, expected);
}

#[test]
fn a_good_station_file_means_what_it_says() {
    let (folder, read) = station(STATION);
    let config = read.unwrap();
    assert_eq!(config.name.as_str(), "station-1");
    assert_eq!(config.state, folder.path().join("state"));
    let listen = Listen { address: "127.0.0.1:7000".parse().unwrap(), tls: None };
    assert_eq!((&config.listen, config.callers.plain), (&Some(listen), Roles::of(&[Role::Mes])));
    assert_eq!(config.callers.limits.at_a_time, 256);
    assert_eq!(addresses(&config), ["http://localhost:7001/"]);
    assert_eq!((config.interlock, config.heartbeat), (Interlock::USUAL, Duration::from_secs(10)));
    assert!(config.interlock.demanded && config.offline_budget_key.is_none());
    assert_eq!(config.drain, Duration::from_secs(60));
    assert_eq!(config.provenance, Occasions::usual());
    let [nest] = &config.nests[..] else { panic!("{:?}", config.nests) };
    assert_eq!((nest.name.as_str(), nest.console.baud), ("nest-1", 115_200));
    for address in ["[::1]:7000", "127.8.8.8:1"] {
        assert!(station(&STATION.replace("127.0.0.1:7000", address)).1.is_ok(), "{address}");
    }
    for address in ["http://[::1]:7001", "http://127.0.0.1"] {
        assert!(station(&STATION.replace("http://localhost:7001", address)).1.is_ok(), "{address}");
    }
}

#[test]
fn golden_units_are_of_a_recipe_and_due_in_each_shift() {
    let written = |section: &str| format!("{STATION}{section}");
    assert_eq!(
        station(STATION).1.unwrap().golden,
        Rule { shift_ends: ShiftEnd::USUAL.into(), ..Rule::default() }
    );
    let unit = "[[golden.unit]]\nserial = \"GOLDEN-1\"\nrecipe = \"sensor\"\n";
    let rule = station(&written(unit)).1.unwrap().golden;
    assert!(rule.required && rule.units[&"GOLDEN-1".parse().unwrap()].as_str() == "sensor");
    assert!(!station(&written(&format!("[golden]\nrequired = false\n{unit}"))).1.unwrap().golden.required);

    let check = |section: &str, expected: &str| {
        let complaints = station(&written(section)).1.unwrap_err();
        assert!(complaints.contains(expected), "{complaints}");
        assert_eq!(complaints.lines().count(), 1, "{complaints}");
    };
    check("[golden]\n", "key `golden.unit`: is missing");
    check(
        "[golden]\nunit = []\n",
        "key `golden.unit`: there must be at least one: without it no nest could be proven",
    );
    check(&format!("{unit}{unit}"), "key `golden.unit`: GOLDEN-1 is there twice");
    check(
        &format!("{unit}colour = 1\n"),
        "key `golden.unit[1].colour`: unknown key, known here: serial, recipe",
    );
    let endless = format!("[provenance]\nshift-ends = []\n{unit}");
    check(&endless, "key `golden`: needs the ends of shifts: name them in `provenance.shift-ends`, or say");
    let voluntary = format!("[provenance]\nshift-ends = []\n[golden]\nrequired = false\n{unit}");
    assert!(station(&written(&voluntary)).1.is_ok());
}

#[test]
fn a_signer_is_a_socket_or_a_server_with_tls() {
    let written = STATION.replace("\"/run/factory/signer.sock\"", "\"https://signer.example:7443\"");
    let tls = "[signer-tls]\nca = \"ca.pem\"\ncertificate = \"/etc/line-1.pem\"\nkey = \"line-1.key\"\n";
    let (folder, read) = station(&format!("{written}{tls}"));
    let Place::Tls { uri, files } = read.unwrap().signer else { panic!("{written}") };
    assert_eq!(uri.host(), Some("signer.example"));
    assert_eq!(
        (files.ca, files.certificate),
        (folder.path().join("ca.pem"), PathBuf::from("/etc/line-1.pem"))
    );
    let socket = Place::Socket("/run/factory/signer.sock".into());
    assert_eq!(station(STATION).1.unwrap().signer, socket);

    let bare = station(&written).1.unwrap_err();
    assert!(bare.contains("key `signer`: needs [signer-tls]: both sides prove who they are"), "{bare}");
    let idle = station(&format!("{STATION}{tls}")).1.unwrap_err();
    assert!(idle.contains("key `signer-tls`: needs a `signer` with https://"), "{idle}");
}

#[test]
fn controllers_on_other_hosts_are_reached_with_tls() {
    let list = "[\"http://127.0.0.1:7001\", \"https://mes.example:7443\"]";
    let written = STATION.replace("[\"http://localhost:7001\"]", list);
    let tls = "[controller-tls]\nca = \"ca.pem\"\ncertificate = \"/etc/line-1.pem\"\nkey = \"line-1.key\"\n";
    let more = "[interlock]\ndemanded = false\ndeadline = \"2s\"\n[offline-budget]\nkey = \"mes.pem\"\n";
    let (folder, read) = station(&format!("{written}{tls}{more}"));
    let config = read.unwrap();
    assert_eq!(addresses(&config), ["http://127.0.0.1:7001/", "https://mes.example:7443/"]);
    let Place::Tls { files, .. } = &config.controllers[1] else { panic!("{:?}", config.controllers) };
    assert_eq!((files.section, &files.ca), ("controller-tls", &folder.path().join("ca.pem")));
    assert_eq!(config.offline_budget_key, Some(folder.path().join("mes.pem")));
    assert_eq!(config.interlock, Interlock { demanded: false, deadline: Duration::from_secs(2) });
    let idle = station(&format!("{STATION}{tls}")).1.unwrap_err();
    assert!(idle.contains("key `controller-tls`: needs one of `controllers` with https://"), "{idle}");
}

#[test]
fn a_bad_station_file_is_told_what_is_wrong_where() {
    let listen = "station.toml:5: key `listen`: must be a loopback address where there is no [tls] with `certificate`, `key` and `client-ca`";
    let controllers = |complaint: &str| format!("station.toml:8: key `controllers`: {complaint}");
    let address = |uri: &str| {
        controllers(&format!("{uri} must be https://, with [controller-tls], or http:// on loopback"))
    };
    bad_station(&[("station-1", "")], &["station.toml:1: key `name`: must not be empty"]);
    bad_station(
        &[("station-1", "a/b")],
        &["station.toml:1: key `name`: holds '/', only A-Z a-z 0-9 . _ - are allowed"],
    );
    bad_station(&[("state = \"state\"\n", "")], &["station.toml:1: key `state`: is missing"]);
    bad_station(
        &[("127.0.0.1:7000", "localhost")],
        &["station.toml:5: key `listen`: invalid socket address syntax"],
    );
    bad_station(&[("127.0.0.1:7000", "0.0.0.0:7000")], &[listen]);
    let tls = controllers("https://localhost:7001/ needs [controller-tls]: both sides prove who they are");
    bad_station(&[("http://localhost:7001", "https://localhost:7001")], &[&tls]);
    bad_station(&[("http://localhost:7001", "http://10.0.0.1:7001")], &[&address("http://10.0.0.1:7001/")]);
    bad_station(&[("http://localhost:7001", "localhost:7001")], &[&address("localhost:7001")]);
    bad_station(&[("\"http://localhost:7001\"", "")], &[&controllers("must be 1 to 8 addresses")]);
    let twice = "\"http://localhost:7001\", \"http://localhost:7001/\"";
    let complaint = controllers("http://localhost:7001/ is there twice");
    bad_station(&[("\"http://localhost:7001\"", twice)], &[&complaint]);
    bad_station(
        &[("[[nest]]", "heartbeat = \"10ms\"\ninterlock.deadline = \"2h\"\noffline-budget = {}\n[[nest]]")],
        &[
            "station.toml:10: key `heartbeat`: must be 1s to 3600s",
            "station.toml:11: key `interlock.deadline`: must be 100ms to 60s",
            "station.toml:12: key `offline-budget.key`: is missing",
        ],
    );
    bad_station(
        &[("[[nest]]", "drain = 5\n[[nest]]")],
        &["station.toml:10: key `drain`: must be a duration such as \"5s\", not an integer"],
    );
    bad_station(
        &[("[[nest]]", "[provenance]\nevery = 2\nshift-ends = [\"6:00\"]\n[[nest]]")],
        &[
            "station.toml:11: key `provenance.every`: must be 16 to 65536 records",
            "station.toml:12: key `provenance.shift-ends[1]`: \"6:00\" is no time of the day in UTC, such as \"06:00\"",
        ],
    );
    bad_station(
        &[("console = \"/dev/ttyACM0\"\n", "baud = -1\n")],
        &[
            "station.toml:10: key `nest[1].console`: is missing",
            "station.toml:13: key `nest[1].baud`: -1 does not fit: invalid digit found in string",
        ],
    );
    bad_station(
        &[("probe =", "prob =")],
        &[
            "station.toml:10: key `nest[1].probe`: is missing",
            "station.toml:12: key `nest[1].prob`: unknown key, did you mean `probe`?",
        ],
    );
}

#[test]
fn a_station_without_nests_is_refused() {
    let (head, _) = STATION.split_once("[[nest]]").unwrap();
    refused(head, &["station.toml:1: key `nest`: is missing"]);
    refused(&format!("{head}nest = []"), &["station.toml:10: key `nest`: there must be at least one"]);
}

#[test]
fn no_two_nests_share_a_name_or_an_instrument() {
    let (head, nest) = STATION.split_once("[[nest]]").unwrap();
    let twice = format!("{head}[[nest]]{nest}[[nest]]{nest}");
    refused(
        &twice,
        &[
            "station.toml:10: key `nest`: two nests have the name \"nest-1\"",
            "station.toml:10: key `nest`: two nests have the probe \"1366:0101:1\"",
            "station.toml:10: key `nest`: two nests have the console \"/dev/ttyACM0\"",
            "station.toml:10: key `nest`: two nests have the tag-reader \"pn532_uart:/dev/ttyUSB0\"",
        ],
    );
}

#[test]
fn all_mistakes_of_a_station_file_are_told_at_once() {
    bad_station(
        &[
            ("name = \"station-1\"", "name = 1"),
            ("127.0.0.1", "10.0.0.1"),
            ("socket =", "sokcet ="),
            ("\"nest-1\"", "\"..\""),
        ],
        &[
            "station.toml:1: key `name`: must be a string, not an integer",
            "station.toml:1: key `socket`: is missing",
            "station.toml:5: key `listen`: must be a loopback address where there is no [tls] with `certificate`, `key` and `client-ca`",
            "station.toml:7: key `sokcet`: unknown key, did you mean `socket`?",
            "station.toml:11: key `nest[1].name`: must hold a letter or a digit",
        ],
    );
}

#[test]
fn signatures_are_demanded_unless_somebody_says_otherwise() {
    let check = |written: &str, demand: Result<Demand, &str>| {
        let (folder, read) = station(&STATION.replace("signatures.demanded = false\n", written));
        match demand {
            Ok(Demand::By(path)) => {
                assert_eq!(read.unwrap().signatures, Demand::By(folder.path().join(path)));
            }
            Ok(Demand::Nothing) => assert_eq!(read.unwrap().signatures, Demand::Nothing),
            Err(sentence) => {
                let error = read.unwrap_err();
                assert!(error.contains(sentence), "{sentence:?} is not in {error}");
            }
        }
    };
    check("signatures.demanded = false\n", Ok(Demand::Nothing));
    check("signatures.certificate = \"firmware.pem\"\n", Ok(Demand::By("firmware.pem".into())));
    check("", Err("key `signatures`: is missing: give the `certificate` of the signer's firmware key, or"));
    check("signatures.demanded = true\n", Err("key `signatures.certificate`: is missing"));
    check(
        "signatures = { certificate = \"a\", demanded = false }\n",
        Err("key `signatures.demanded`: must not be false beside a `certificate`"),
    );
}

#[test]
fn who_calls_from_the_network_proves_who_he_is_or_has_the_roles_that_the_file_says() {
    let tls = "[tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\nclient-ca = \"clients.pem\"\n";
    let plain = "listen = \"127.0.0.1:7000\"\nlisten-roles = [\"mes\"]\n";
    /// With these lines instead of `listen`, and these behind everything.
    fn check(listen: &str, rest: &str, complaint: Option<&str>) -> Option<Config> {
        let plain = "listen = \"127.0.0.1:7000\"\nlisten-roles = [\"mes\"]\n";
        let (_, read) = station(&format!("{}{rest}", STATION.replace(plain, listen)));
        match complaint {
            None => Some(read.unwrap_or_else(|error| panic!("{listen} {rest}: {error}"))),
            Some(complaint) => {
                let error = read.expect_err(rest);
                assert!(error.contains(complaint), "{complaint:?} is not in {error}");
                None
            }
        }
    }
    let roles = "[roles]\nmes = [\"dns:MES.example\"]\nengineer = [\"dns:mes.example\", \"group:root\"]\n";
    let config = check("listen = \"0.0.0.0:7443\"\n", &format!("{tls}{roles}"), None).unwrap();
    let files = config.listen.unwrap().tls.unwrap();
    assert!(files.client_ca.ends_with("clients.pem") && files.client_crl.is_none());
    let revoking = format!("{tls}client-crl = \"clients.crl\"\n{roles}");
    let revoking =
        check("listen = \"0.0.0.0:7443\"\n", &revoking, None).unwrap().listen.unwrap().tls.unwrap();
    assert!(revoking.client_crl.unwrap().ends_with("clients.crl"));
    let mes = Proof::Identity(Identity::Dns("mes.example".to_owned()));
    let root = Proof::Group(0);
    let (both, one) = (Roles::of(&[Role::Mes, Role::Engineer]), Roles::of(&[Role::Engineer]));
    assert_eq!(config.callers.roles, [(mes, both), (root, one)].into());
    assert_eq!(check("", "", None).unwrap().listen, None);
    let limits = "[limits]\ncalls = \"10/s\"\nburst = 3\ncalls-at-a-time = 4\nconnections = 5\n";
    let limits = check("", limits, None).unwrap().callers.limits;
    assert_eq!((limits.calls.unwrap().1.get(), limits.at_a_time, limits.connections), (3, 4, 5));

    check(
        "listen = \"127.0.0.1:1\"\n",
        "",
        Some("needs [tls]; or `listen-roles`, which says what whoever calls"),
    );
    check(
        "listen = \"127.0.0.1:1\"\nlisten-roles = []\n",
        "",
        Some("names no role: nobody could call there"),
    );
    check("listen = \"127.0.0.1:1\"\nlisten-roles = [\"boss\"]\n", "", Some("is no role: the roles are mes"));
    check("listen-roles = [\"mes\"]\n", "", Some("key `listen-roles`: needs `listen`"));
    check("", &format!("{tls}{roles}"), Some("key `tls`: needs `listen`: there is no TLS on the socket"));
    check(plain, &format!("{tls}{roles}"), Some("key `listen-roles`: must not be there beside [tls]"));
    check("listen = \"0.0.0.0:1\"\n", tls, Some("lets nobody in: name certificates in [roles], as in mes ="));
    let mapped = |names: &str, complaint: &str| {
        check("", &format!("[roles]\nviewer = [{names}]\n"), Some(complaint));
    };
    mapped("\"mes.example\"", "key `roles.viewer[1]`: must be a name such as \"dns:mes.example\"");
    mapped("\"dns:\"", "must be a name such as");
    mapped("\"dns:*.example\"", "a certificate must hold the whole name, a * stands for nothing");
    mapped("\"uri:mes\"", "a URI has a scheme, as in");
    mapped("\"dns:a b\"", "holds a space, which no name does");
    mapped("\"user:nobody-of-that-name\"", "there is no user nobody-of-that-name on this host: make it, or");
    mapped("\"group:none-of-that-name\"", "there is no group none-of-that-name on this host");
    mapped("\"dns:a\", \"dns:A\"", "key `roles.viewer`: names somebody twice: each once is enough");
    check("", "[roles]\nadmin = []\n", Some("key `roles.admin`: unknown key"));
    check("", "[limits]\ncalls = \"0/s\"\n", Some("must be a rate such as"));
}
