//! What people are told about the station file and the recipes that they wrote.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use data_encoding::HEXLOWER;
use factory_station::{
    config::Config,
    provenance::Occasions,
    recipe::{RecipeError, Recipes},
    signatures::{Demand, Signatures},
    signer::SignerPlace,
    step::Step,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SigningKey};
use tempfile::TempDir;

const STATION: &str = r#"name = "station-1"
state = "state"
recipes = "/etc/factory/recipes"
signer = "/run/factory/signer.sock"
listen = "127.0.0.1:7000"
socket = "/run/factory/station.sock"
controller = "http://localhost:7001"
signatures.demanded = false
[[nest]]
name = "nest-1"
probe = "1366:0101:1"
console = "/dev/ttyACM0"
tag-reader = "pn532_uart:/dev/ttyUSB0"
"#;

const RECIPE: &str = r#"[flash]
chip = "nRF51822_xxAA"
image = "hilfw.elf"
[boot]
firmware-version = "1.0.0"
[self-test.limits]
rail = { min = "3135mV", max = "3465mV" }
[identity]
endpoint-name = "sensor-{serial}"
[provision]
server-uri = "coaps://bootstrap.example.com:5684"
server-ca = "bootstrap-ca.pem"
manufacturer = "Demo Devices"
model-number = "S-1"
device-type = "sensor"
hardware-version = "rev-a"
memory-total-kb = 256
vendor-id = "6f1d5a2e-9b0c-4c0e-8a53-0b7f5f0f7a01"
class-id = "0c9a4f0e-55a1-4e0f-9a8c-5d1f1c2b3a02"
[tag]
uri = "https://ex.com/c"
record-type = "ex.com:id"
"#;

/// A folder with all that a recipe names, and with this recipe.
fn folder(recipe: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ca = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.path().join("bootstrap-ca.pem"), ca.pem()).unwrap();
    fs::write(folder.path().join("hilfw.elf"), "an image").unwrap();
    fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    folder
}

fn station(written: &str) -> (TempDir, Result<Config, String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("station.toml");
    fs::write(&path, written).unwrap();
    let read = Config::read(&path).map_err(|error| error.to_string());
    (folder, read)
}

fn load(folder: &TempDir) -> Result<Recipes, RecipeError> {
    Recipes::load(folder.path(), &Signatures::demanded(&Demand::Nothing).unwrap())
}

fn recipe(written: &str) -> (TempDir, Result<Recipes, String>) {
    let folder = folder(written);
    let read = load(&folder).map_err(|error| error.to_string());
    (folder, read)
}

/// With these words replaced in the good file, these are the complaints.
fn check<T>(
    read: impl Fn(&str) -> (TempDir, Result<T, String>),
    good: &str,
    changes: &[(&str, &str)],
    expected: &[&str],
) {
    let mut written = good.to_owned();
    for (old, new) in changes {
        assert_eq!(written.matches(old).count(), 1, "{old:?} should be there once");
        written = written.replace(old, new);
    }
    let (folder, read) = read(&written);
    let complaints = read.err().unwrap_or_else(|| panic!("{changes:?} should be refused"));
    let complaints = complaints.replace(&format!("{}/", folder.path().display()), "");
    assert_eq!(complaints.lines().collect::<Vec<_>>(), expected, "for {changes:?}");
}

fn bad_station(changes: &[(&str, &str)], expected: &[&str]) {
    check(station, STATION, changes, expected);
}

fn bad_recipe(changes: &[(&str, &str)], expected: &[&str]) {
    check(recipe, RECIPE, changes, expected);
}

#[test]
fn a_good_station_file_means_what_it_says() {
    let (folder, read) = station(STATION);
    let config = read.unwrap();
    assert_eq!(config.name.as_str(), "station-1");
    assert_eq!(config.state, folder.path().join("state"));
    assert_eq!(config.listen, "127.0.0.1:7000".parse().unwrap());
    assert_eq!(config.controller.uri().to_string(), "http://localhost:7001/");
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
fn a_signer_is_a_socket_or_a_server_with_tls() {
    let written = STATION.replace("\"/run/factory/signer.sock\"", "\"https://signer.example:7443\"");
    let tls = "[signer-tls]\nca = \"ca.pem\"\ncertificate = \"/etc/line-1.pem\"\nkey = \"line-1.key\"\n";
    let (folder, read) = station(&format!("{written}{tls}"));
    let SignerPlace::Server { uri, tls: files } = read.unwrap().signer else { panic!("{written}") };
    assert_eq!(uri.host(), Some("signer.example"));
    assert_eq!(
        (files.ca, files.certificate),
        (folder.path().join("ca.pem"), PathBuf::from("/etc/line-1.pem"))
    );
    let socket = SignerPlace::Socket("/run/factory/signer.sock".into());
    assert_eq!(station(STATION).1.unwrap().signer, socket);

    let bare = station(&written).1.unwrap_err();
    assert!(bare.contains("key `signer`: needs [signer-tls]: both sides prove who they are"), "{bare}");
    let idle = station(&format!("{STATION}{tls}")).1.unwrap_err();
    assert!(idle.contains("key `signer-tls`: needs a `signer` with https://"), "{idle}");
}

#[test]
fn a_bad_station_file_is_told_what_is_wrong_where() {
    let listen =
        "station.toml:5: key `listen`: must be a loopback address: there is no TLS on this listener yet";
    let controller = "station.toml:7: key `controller`: must be an http:// address on loopback: there is no TLS on this connection yet";
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
    bad_station(&[("http://localhost:7001", "https://localhost:7001")], &[controller]);
    bad_station(&[("http://localhost:7001", "http://10.0.0.1:7001")], &[controller]);
    bad_station(&[("http://localhost:7001", "localhost:7001")], &[controller]);
    bad_station(
        &[("[[nest]]", "drain = 5\n[[nest]]")],
        &["station.toml:9: key `drain`: must be a duration such as \"5s\", not an integer"],
    );
    bad_station(
        &[("[[nest]]", "[provenance]\nevery = 2\nshift-ends = [\"6:00\"]\n[[nest]]")],
        &[
            "station.toml:10: key `provenance.every`: must be 16 to 65536 records",
            "station.toml:11: key `provenance.shift-ends[1]`: \"6:00\" is no time of the day in UTC, such as \"06:00\"",
        ],
    );
    bad_station(
        &[("console = \"/dev/ttyACM0\"\n", "baud = -1\n")],
        &[
            "station.toml:9: key `nest[1].console`: is missing",
            "station.toml:12: key `nest[1].baud`: -1 does not fit: invalid digit found in string",
        ],
    );
    bad_station(
        &[("probe =", "prob =")],
        &[
            "station.toml:9: key `nest[1].probe`: is missing",
            "station.toml:11: key `nest[1].prob`: unknown key, did you mean `probe`?",
        ],
    );
}

#[test]
fn a_station_without_nests_is_refused() {
    let (head, _) = STATION.split_once("[[nest]]").unwrap();
    check(station, head, &[], &["station.toml:1: key `nest`: is missing"]);
    check(
        station,
        &format!("{head}nest = []"),
        &[],
        &["station.toml:9: key `nest`: there must be at least one"],
    );
}

#[test]
fn no_two_nests_share_a_name_or_an_instrument() {
    let (head, nest) = STATION.split_once("[[nest]]").unwrap();
    let twice = format!("{head}[[nest]]{nest}[[nest]]{nest}");
    check(
        station,
        &twice,
        &[],
        &[
            "station.toml:9: key `nest`: two nests have the name \"nest-1\"",
            "station.toml:9: key `nest`: two nests have the probe \"1366:0101:1\"",
            "station.toml:9: key `nest`: two nests have the console \"/dev/ttyACM0\"",
            "station.toml:9: key `nest`: two nests have the tag-reader \"pn532_uart:/dev/ttyUSB0\"",
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
            "station.toml:5: key `listen`: must be a loopback address: there is no TLS on this listener yet",
            "station.toml:6: key `sokcet`: unknown key, did you mean `socket`?",
            "station.toml:10: key `nest[1].name`: must hold a letter or a digit",
        ],
    );
}

#[test]
fn the_recipe_of_the_virtual_line_loads() {
    let (_folder, read) = recipe(include_str!("../../hil-tests/scenarios/sensor.toml"));
    let recipes = read.unwrap();
    let recipe = recipes.named(&"recipe".parse().unwrap()).unwrap();
    assert_eq!(recipe.attempts.get(), 2);
    assert_eq!(recipe.self_test.limits.len(), 6);
    assert_eq!(recipe.deadline(Step::Provision), Duration::from_secs(5));
    assert!(recipes.get(&recipe.name, &recipe.digest).is_ok());
    let error = recipes.get(&recipe.name, &[0; 32]).unwrap_err().to_string();
    assert_eq!(error, "recipe recipe is not what it was when the work order was opened; open a new order");
}

#[test]
fn a_short_recipe_takes_its_defaults() {
    let (_folder, read) = recipe(RECIPE);
    let recipes = read.unwrap();
    let recipe = recipes.named(&"recipe".parse().unwrap()).unwrap();
    assert_eq!(recipe.attempts.get(), 1);
    assert_eq!(recipe.deadline(Step::Flash), Duration::from_secs(60));
    assert_eq!(recipe.deadline(Step::Tag), Duration::from_secs(10));
}

#[test]
fn a_recipe_is_another_when_a_file_that_it_names_is() {
    let folder = folder(RECIPE);
    let digest = || {
        let recipes = load(&folder).unwrap();
        recipes.named(&"recipe".parse().unwrap()).unwrap().digest
    };
    let first = digest();
    assert_eq!(digest(), first);
    fs::write(folder.path().join("hilfw.elf"), "another image").unwrap();
    assert_ne!(digest(), first);
}

#[test]
fn a_bad_recipe_is_told_what_is_wrong_where() {
    let told = |old: &str, new: &str, complaint: &str| {
        bad_recipe(&[(old, new)], &[&format!("recipe.toml:{complaint}")]);
    };
    told(
        "hilfw.elf",
        "none.elf",
        "3: key `flash.image`: none.elf cannot be read: No such file or directory (os error 2)",
    );
    told("[boot]", "format = \"srec\"\n[boot]", "4: key `flash.format`: must be \"elf\" or \"hex\"");
    told(
        "[flash]",
        "attempts = 0\n[flash]",
        "1: key `attempts`: 0 does not fit: number would be zero for non-zero type",
    );
    told(
        "[boot]",
        "[deadlines]\nflush = \"1s\"\n[boot]",
        "5: key `deadlines.flush`: unknown key, did you mean `flash`?",
    );
    told(
        "3135mV",
        "3135",
        "7: key `self-test.limits.rail.min`: has the unit \"\", known are mV uA Hz mdegC count",
    );
    told(
        "3135mV",
        "3135V",
        "7: key `self-test.limits.rail.min`: has the unit \"V\", known are mV uA Hz mdegC count",
    );
    told(
        "3135mV",
        "mV",
        "7: key `self-test.limits.rail.min`: must be an integer and a unit, as in \"3300mV\"",
    );
    told("3135mV", "3135uA", "7: key `self-test.limits.rail.min`: min is in uA, max in mV");
    told("3135mV", "3466mV", "7: key `self-test.limits.rail.min`: min is above max");
    told(
        "sensor-{serial}",
        "sensor",
        "9: key `identity.endpoint-name`: must hold {serial}, so that each unit has a name of its own",
    );
    told(
        "sensor-{serial}",
        "{serial}-{serial}",
        "9: key `identity.endpoint-name`: with a serial number of 32 characters it is 65 bytes long, at most 64 are allowed",
    );
    told(
        "sensor-{serial}",
        "sensor {serial}",
        "9: key `identity.endpoint-name`: with a serial number of 32 characters it holds ' ', only A-Z a-z 0-9 . _ - are allowed",
    );
    told(
        "[provision]",
        "country = \"gb\"\n[provision]",
        "10: key `identity.country`: must be two capital letters (ISO 3166)",
    );
    for organization in ["", "A, B", "A=B", &"A".repeat(65)] {
        told(
            "[provision]",
            &format!("organization = {organization:?}\n[provision]"),
            "10: key `identity.organization`: must be 1 to 64 bytes without comma and equals sign",
        );
    }
    for uri in ["coap://bootstrap.example.com", "coaps://", "coaps://:5684", "coaps:///x", "bootstrap"] {
        told(
            "coaps://bootstrap.example.com:5684",
            uri,
            "11: key `provision.server-uri`: must begin with coaps:// and a host",
        );
    }
    told(
        ":5684",
        ":5684?aid=1",
        "11: key `provision.server-uri`: must not name an account (aid): the owner is yet to claim the device",
    );
    told(
        "bootstrap-ca.pem",
        "hilfw.elf",
        "12: key `provision.server-ca`: no certificate in PEM at hilfw.elf: no items found",
    );
    told(
        "bootstrap-ca.pem",
        "none.pem",
        "12: key `provision.server-ca`: no certificate in PEM at none.pem: No such file or directory (os error 2)",
    );
    told(
        "memory-total-kb = 256",
        "memory-total-kb = -1",
        "17: key `provision.memory-total-kb`: -1 does not fit: invalid digit found in string",
    );
    for offset in ["1:00", "+01:60", "+14:01", "-12:01", "+0１:00"] {
        told(
            "[tag]",
            &format!("utc-offset = {offset:?}\n[tag]"),
            "20: key `provision.utc-offset`: must be from -12:00 to +14:00, written as in \"+01:00\"",
        );
    }
    told(
        "6f1d5a2e-9b0c",
        "6f1d5a2e",
        "18: key `provision.vendor-id`: invalid group count: expected 5, found 4",
    );
    told(
        "https://ex.com/c",
        "https://example.com/claim?id={enrolment-id}",
        "21: key `tag.uri`: makes a message of 232 bytes, an NTAG213 holds 136; shorten uri or record-type",
    );
    told(
        "\"ex.com:id\"",
        "\"\"",
        "22: key `tag.record-type`: a record type of 0 bytes does not fit its length byte",
    );
}

#[test]
fn a_server_ca_that_is_pem_and_no_certificate_is_refused() {
    let folder = folder(RECIPE);
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(folder.path().join("bootstrap-ca.pem"), pem).unwrap();
    let error = load(&folder).unwrap_err().to_string();
    assert!(error.contains("recipe.toml:12: key `provision.server-ca`: no certificate in PEM at"), "{error}");
}

#[test]
fn the_mistakes_of_several_recipes_are_told_at_once_in_the_order_of_their_names() {
    let folder = folder(RECIPE);
    for name in ["c", "a", "b"] {
        fs::write(folder.path().join(format!("{name}.toml")), "flash = 1").unwrap();
    }
    let error = load(&folder).unwrap_err().to_string();
    let error = error.replace(&format!("{}/", folder.path().display()), "");
    let mut files: Vec<_> = error.lines().map(|line| line.split(':').next().unwrap()).collect();
    files.dedup();
    assert_eq!(files, ["a.toml", "b.toml", "c.toml"], "{error}");
}

#[test]
fn the_place_of_a_chips_id_is_checked() {
    let image = RECIPE.lines().find(|line| line.starts_with("image")).unwrap();
    let with = |place: &str| format!("{image}\nunique-id = {place}");
    let bad = |place: &str, expected: &[&str]| bad_recipe(&[(image, &with(place))], expected);
    assert!(recipe(&RECIPE.replace(image, &with("{ address = 0x10000060, bytes = 8 }"))).1.is_ok());
    bad("{ address = 0 }", &["recipe.toml:4: key `flash.unique-id.bytes`: is missing"]);
    bad("{ address = 0, bytes = 0 }", &["recipe.toml:4: key `flash.unique-id.bytes`: must be 1 to 64"]);
    bad("{ address = 0, bytes = 65 }", &["recipe.toml:4: key `flash.unique-id.bytes`: must be 1 to 64"]);
    bad("8", &["recipe.toml:4: key `flash.unique-id`: must be a table, not an integer"]);
}

#[test]
fn all_mistakes_of_a_recipe_are_told_at_once() {
    bad_recipe(
        &[
            ("[boot]\n", ""),
            ("3135mV", "9V"),
            ("coaps:", "http:"),
            ("record-type =", "recordtype ="),
            ("endpoint-name = \"sensor-{serial}\"", "country = \"gb\""),
        ],
        &[
            "recipe.toml:1: key `boot`: is missing",
            "recipe.toml:4: key `flash.firmware-version`: unknown key, known here: chip, image, format, unique-id",
            "recipe.toml:6: key `self-test.limits.rail.min`: has the unit \"V\", known are mV uA Hz mdegC count",
            "recipe.toml:7: key `identity.endpoint-name`: is missing",
            "recipe.toml:8: key `identity.country`: must be two capital letters (ISO 3166)",
            "recipe.toml:10: key `provision.server-uri`: must begin with coaps:// and a host",
            "recipe.toml:19: key `tag.record-type`: is missing",
            "recipe.toml:21: key `tag.recordtype`: unknown key, did you mean `record-type`?",
        ],
    );
}

#[test]
fn a_recipe_file_must_be_named_like_a_recipe() {
    let folder = folder(RECIPE);
    fs::rename(folder.path().join("recipe.toml"), folder.path().join("my recipe.toml")).unwrap();
    let error = load(&folder).unwrap_err().to_string();
    let expected =
        "the name of the recipe file FOLDER/my recipe.toml holds ' ', only A-Z a-z 0-9 . _ - are allowed";
    assert_eq!(error, expected.replace("FOLDER", &folder.path().display().to_string()));
}

/// Signs a file as `factory-signerd sign-image` does.
fn sign(folder: &TempDir, name: &str, key: &KeyPair) {
    let signature = key.sign(&fs::read(folder.path().join(name)).unwrap()).unwrap();
    fs::write(folder.path().join(format!("{name}.sig")), signature).unwrap();
}

/// A folder whose files are all signed by the key of `firmware.pem`.
fn signed() -> (TempDir, KeyPair) {
    let (folder, key) = (folder(RECIPE), KeyPair::generate().unwrap());
    fs::write(folder.path().join("firmware.pem"), certificate(&key, |_| ())).unwrap();
    for name in ["recipe.toml", "hilfw.elf", "bootstrap-ca.pem"] {
        sign(&folder, name, &key);
    }
    (folder, key)
}

fn certificate(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    change(&mut params);
    params.self_signed(key).unwrap().pem()
}

fn load_signed(folder: &TempDir) -> Result<Recipes, String> {
    let demand = Demand::By(folder.path().join("firmware.pem"));
    let signatures = Signatures::demanded(&demand).map_err(|error| error.to_string())?;
    Recipes::load(folder.path(), &signatures).map_err(|error| error.to_string())
}

#[test]
fn a_recipe_and_what_it_names_are_what_was_signed_or_refused() {
    let check = |spoil: &dyn Fn(&TempDir), sentences: &[&str]| {
        let (folder, _) = signed();
        load_signed(&folder).unwrap();
        spoil(&folder);
        let error = load_signed(&folder).unwrap_err();
        for sentence in sentences {
            assert!(error.contains(sentence), "{sentence:?} is not in {error}");
        }
    };
    let path = |folder: &TempDir, name: &str| folder.path().join(name);
    let append = |folder: &TempDir, name: &str| {
        let bytes = fs::read(path(folder, name)).unwrap();
        fs::write(path(folder, name), [bytes.as_slice(), b"\n"].concat()).unwrap();
    };
    let differs = "is not what was signed by the key of";
    check(&|folder| append(folder, "recipe.toml"), &["recipe.toml is not what was signed by the key of"]);
    check(
        &|folder| append(folder, "hilfw.elf"),
        &["recipe.toml:3: key `flash.image`: ", "hilfw.elf", differs],
    );
    check(&|folder| append(folder, "bootstrap-ca.pem"), &["key `provision.server-ca`: ", differs]);
    let unsigned = "is not signed (";
    for name in ["recipe.toml", "hilfw.elf", "bootstrap-ca.pem"] {
        let signature = format!("{name}.sig");
        check(
            &|folder| fs::remove_file(path(folder, &signature)).unwrap(),
            &[name, unsigned, "sign it with `factory-signerd sign-image`"],
        );
        check(&|folder| fs::write(path(folder, &signature), "").unwrap(), &[name, differs]);
        check(&|folder| fs::write(path(folder, &signature), [0x30; 100]).unwrap(), &[name, differs]);
        check(&|folder| fs::write(path(folder, &signature), [0; 200]).unwrap(), &[name, "is no signature"]);
        check(&|folder| sign(folder, name, &KeyPair::generate().unwrap()), &[name, differs]);
    }
    // The signature of another file.
    check(
        &|folder| {
            fs::copy(path(folder, "recipe.toml.sig"), path(folder, "hilfw.elf.sig")).unwrap();
        },
        &["hilfw.elf", differs],
    );
}

#[test]
fn a_certificate_that_cannot_stand_for_signatures_is_refused() {
    let check = |pem: &str, sentence: &str| {
        let (folder, _) = signed();
        fs::write(folder.path().join("firmware.pem"), pem).unwrap();
        let error = load_signed(&folder).unwrap_err();
        assert!(error.contains(sentence), "{sentence:?} is not in {error}");
    };
    let key = KeyPair::generate().unwrap();
    check("", "firmware.pem of `signatures` cannot be read as PEM");
    check(&certificate(&key, |it| it.key_usages.clear()), "is not for signing data");
    let ca = |it: &mut CertificateParams| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    check(&certificate(&key, ca), "is not for signing data: give the one of the signer's firmware key");
    let over = |it: &mut CertificateParams| it.not_after = rcgen::date_time_ymd(2020, 1, 1);
    check(&certificate(&key, over), "only: give the one of the signer's firmware key");
    let other_kind = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    check(&certificate(&other_kind, |_| ()), "is not for a P-256 key");
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

/// Runs `stationctl recipe check` on the recipe of a folder; gives what it said, and whether it ended well.
fn recipe_check(folder: &TempDir, arguments: &[&str]) -> (String, bool) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_stationctl"));
    check.args(["recipe", "check"]).arg(folder.path().join("recipe.toml")).args(arguments);
    let done = check.current_dir(folder.path()).output().unwrap();
    (String::from_utf8(done.stdout).unwrap() + &String::from_utf8_lossy(&done.stderr), done.status.success())
}

#[test]
fn what_a_unit_would_get_is_shown_without_a_station() {
    let (folder, _) = signed();
    let (said, good) = recipe_check(&folder, &["--serial", "B-7", "--certificate", "firmware.pem"]);
    assert!(good, "{said}");
    let recipes = load(&folder).unwrap();
    let digest = HEXLOWER.encode(&recipes.named(&"recipe".parse().unwrap()).unwrap().digest);
    for sentence in [
        &format!("recipe recipe: SHA-256 {digest}\nsigned by the key of firmware.pem\n"),
        "  rail                             3135mV to 3465mV\n",
        "it asks for a certificate of CN=sensor-B-7\n",
        "  mbed.BootstrapDeviceCert         the signer's, for its key mbed.BootstrapDevicePrivateKey\n",
        "  mbed.EndpointName                \"sensor-B-7\"\n",
        "  mbed.MemoryTotalKB               256\n",
        "  mbed.VendorId                    6f1d5a2e9b0c4c0e8a530b7f5f0f7a01\n",
        "  mbed.CurrentTime                 the time when it is given\n",
        "its tag leads to https://ex.com/c\n",
    ] {
        assert!(said.contains(sentence), "{sentence:?} is not in {said}");
    }
    fs::write(folder.path().join("hilfw.elf"), "another image").unwrap();
    let (said, good) = recipe_check(&folder, &["--certificate", "firmware.pem"]);
    assert!(!good && said.contains("is not what was signed by the key of"), "{said}");
    let (said, good) = recipe_check(&folder, &[]);
    assert!(good && said.contains("signatures were not looked at"), "{said}");
    fs::write(folder.path().join("recipe.toml"), RECIPE.replace("memory-total-kb = 256\n", "")).unwrap();
    let (said, good) = recipe_check(&folder, &[]);
    assert!(!good && said.contains("key `provision.memory-total-kb`: is missing"), "{said}");
}
