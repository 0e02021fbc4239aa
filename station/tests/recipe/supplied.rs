//! What lies ready for each unit, and a unit's own values.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

use factory_station::recipe::{
    Recipe,
    bundle::enrolment_id,
    template::{Unit, Values},
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};

use crate::folder::{Folder, RECIPE, authority, key};

/// A recipe whose keys, entropy and root of trust are supplied.
fn supplied() -> String {
    RECIPE
        .replace("[flash]", "supplied = \"units\"\n[flash]")
        .replace("[provision]", "key = \"supplied\"\nsupplied-ca = \"supplied-ca.pem\"\n[provision]\nentropy = \"supplied\"\nroot-of-trust = \"supplied\"")
}

/// A folder in which all lies ready for SN1.
fn ready() -> (Folder, Issuer<'static, KeyPair>, KeyPair) {
    let folder = Folder::new("");
    let (issuer, pem) = authority("Supplied CA", |it| {
        it.not_after = date_time_ymd(2061, 1, 1);
    });
    folder.write("supplied-ca.pem", pem);
    fs::create_dir_all(folder.path("units/SN1")).unwrap();
    folder.write("recipe.toml", supplied());
    let key = key();
    secret(&folder, "device-key.pem", key.serialize_pem());
    folder.write("units/SN1/device-certificate.pem", certificate(&issuer, &key, |_| ()));
    secret(&folder, "entropy.bin", [1; 48]);
    secret(&folder, "rot.bin", [2; 16]);
    (folder, issuer, key)
}

fn secret(folder: &Folder, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.path(&format!("units/SN1/{name}"));
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
}

fn certificate(
    issuer: &Issuer<'static, KeyPair>,
    key: &KeyPair,
    change: impl FnOnce(&mut CertificateParams),
) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "sensor-SN1");
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2060, 1, 1);
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    params.signed_by(key, issuer).unwrap().pem()
}

/// Does something with a unit of a recipe.
fn with_unit<T>(recipe: &Recipe, values: &[(&str, &str)], what: impl FnOnce(&Unit<'_>) -> T) -> T {
    let mut own = Values::default();
    values.iter().for_each(|(name, value)| own.add(name, value).unwrap());
    let (order, serial) = ("WO-1".parse().unwrap(), "SN1".parse().unwrap());
    what(&Unit { product: &recipe.name, order: &order, serial: &serial, values: &own })
}

#[test]
fn what_lies_ready_for_a_unit_is_what_it_gets() {
    let (folder, _, key) = ready();
    let recipe = folder.recipe();
    with_unit(&recipe, &[], |unit| {
        assert!(recipe.key_requests("s", unit).unwrap().is_none(), "the device makes nothing");
        let credentials = recipe.credentials(unit).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(credentials.endpoint_name.as_str(), "sensor-SN1");
        assert_eq!(**credentials.key.unwrap().der(), key.serialize_der());
        assert_eq!(credentials.chain.len(), 1);
        assert_eq!((**credentials.entropy.as_ref().unwrap()).as_slice(), [1; 48]);
        assert_eq!((**credentials.root_of_trust.as_ref().unwrap()).as_slice(), [2; 16]);
    });
}

#[test]
fn an_enrolment_id_from_outside_must_be_the_computed_one() {
    let (folder, ..) = ready();
    let recipe = folder.recipe();
    let computed =
        with_unit(&recipe, &[], |unit| enrolment_id(&recipe.credentials(unit).ok().unwrap().chain[0]));
    let lower = computed.as_str().to_ascii_lowercase().replacen('a', "A", 1);
    for good in [computed.as_str(), &lower] {
        assert!(
            with_unit(&recipe, &[("enrolment-id", good)], |unit| recipe.credentials(unit).is_ok()),
            "{good}"
        );
    }
    let other = computed.as_str().replace(&computed.as_str()[2..5], "00:");
    let other = if other == computed.as_str() { other.replacen("00:", "01:", 1) } else { other };
    let refused =
        with_unit(&recipe, &[("enrolment-id", &other)], |unit| recipe.credentials(unit).err().unwrap());
    assert_eq!(
        refused.to_string(),
        format!(
            "the recipe's enrolment id is computed from the unit's certificate: {computed}; its order says {other}, \
             which is another's"
        )
    );
}

#[test]
fn what_does_not_lie_ready_is_named() {
    type Spoil<'a> = &'a dyn Fn(&Folder, &Issuer<'static, KeyPair>, &KeyPair);
    let check = |spoil: Spoil<'_>, wanted: &str| {
        let (folder, issuer, key) = ready();
        spoil(&folder, &issuer, &key);
        let recipe = folder.recipe();
        let error = with_unit(&recipe, &[], |unit| recipe.credentials(unit).err().unwrap());
        assert_eq!(folder.relative(&error.to_string()), wanted);
    };
    let remove = |name: &'static str| {
        move |folder: &Folder| fs::remove_file(folder.path(&format!("units/SN1/{name}"))).unwrap()
    };
    let missing =
        |name: &str| format!("units/SN1/{name} cannot be read; supply it, or take the unit out of the order");
    for name in ["device-key.pem", "device-certificate.pem", "entropy.bin", "rot.bin"] {
        check(&|folder, _, _| remove(name)(folder), &missing(name));
    }
    check(
        &|folder, _, _| folder.write("units/SN1/device-key.der", ""),
        "there are units/SN1/device-key.pem and the same as .der; remove one of them",
    );
    check(
        &|folder, _, _| {
            let path = folder.path("units/SN1/device-key.pem");
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        },
        "units/SN1/device-key.pem is open to everybody (mode 644); run chmod o= on it",
    );
    check(
        &|folder, _, _| secret(folder, "entropy.bin", [1; 47]),
        "units/SN1/entropy.bin is 47 bytes long, a device takes exactly 48",
    );
    check(
        &|folder, _, _| secret(folder, "rot.bin", [1; 17]),
        "units/SN1/rot.bin is 17 bytes long, a device takes exactly 16",
    );
    check(
        &|folder, _, _| secret(folder, "device-key.pem", "no key"),
        "units/SN1/device-key.pem is no private P-256 key (PKCS#8 or SEC1, PEM or DER)",
    );
    check(
        &|folder, _, _| secret(folder, "device-key.pem", key().serialize_pem()),
        "units/SN1/device-certificate.pem is for another key than the device's",
    );
    let other = |change: fn(&mut CertificateParams)| {
        move |folder: &Folder, issuer: &Issuer<'static, KeyPair>, key: &KeyPair| {
            folder.write("units/SN1/device-certificate.pem", certificate(issuer, key, change));
        }
    };
    check(
        &other(|it| it.distinguished_name.push(DnType::CommonName, "sensor-SN2")),
        "units/SN1/device-certificate.pem names \"CN=sensor-SN2\", not \"sensor-SN1\"",
    );
    check(
        &other(|it| it.not_after = date_time_ymd(2030, 1, 1)),
        "units/SN1/device-certificate.pem lives less than ten years",
    );
    check(
        &other(|it| it.extended_key_usages.clear()),
        "units/SN1/device-certificate.pem is not for clients (extended key usage clientAuth)",
    );
    check(
        &|folder, _, key| {
            let (stranger, _) = authority("Stranger", |_| ());
            folder.write("units/SN1/device-certificate.pem", certificate(&stranger, key, |_| ()));
        },
        "units/SN1/device-certificate.pem certificate 1 is not signed by certificate 2; the leaf comes first, each \
         signed by the next",
    );
    check(
        &|folder, _, _| {
            folder.write("recipe.toml", supplied().replace("supplied-ca =", "chain-depth = 2\nsupplied-ca ="))
        },
        "units/SN1/device-certificate.pem holds 1 certificates, the recipe's identity.chain-depth is 2",
    );
}

#[test]
fn a_units_own_values_must_do() {
    let recipe = RECIPE
        .replace("\"sensor-{serial}\"", "\"{product}-{mac}\"")
        .replace("coaps://bootstrap.example.com:5684", "coaps://{host}:5684")
        .replace("memory-total-kb = 256", "memory-total-kb = \"{memory}\"")
        .replace("[tag]", "[[provision.parameter]]\nname = \"acme.hex\"\nhex = \"{hex}\"\n[[provision.key]]\nname = \"acme.k\"\nsubject = \"O={maker},CN={endpoint-name}\"\n[tag]");
    let folder = Folder::new(&recipe);
    let recipe = folder.recipe();
    let names: Vec<&str> = recipe.value_names().into_iter().collect();
    assert_eq!(names, ["hex", "host", "mac", "maker", "memory", "product", "serial"]);
    let good =
        [("mac", "0011"), ("host", "eu.ex.com"), ("memory", "64"), ("hex", "00:ff"), ("maker", "Acme")];
    with_unit(&recipe, &good, |unit| recipe.check_unit(unit).unwrap());
    let check = |name: &str, value: Option<&str>, wanted: &str| {
        let mut values: BTreeMap<&str, &str> = good.into_iter().collect();
        match value {
            Some(value) => values.insert(name, value),
            None => values.remove(name),
        };
        let values: Vec<(&str, &str)> = values.into_iter().collect();
        let error = with_unit(&recipe, &values, |unit| recipe.check_unit(unit).unwrap_err());
        assert_eq!(error.to_string(), format!("the recipe's {wanted}"));
    };
    check(
        "mac",
        None,
        "identity.endpoint-name needs the value {mac}, which the unit does not have: give it with the order's list of \
         units, or, where the order has none, at the start",
    );
    check(
        "mac",
        Some("00:11"),
        "identity.endpoint-name with \"recipe-00:11\" holds ':', only A-Z a-z 0-9 . _ - are allowed",
    );
    check(
        "host",
        Some("a b"),
        "provision.server-uri with \"coaps://a b:5684\" holds ' ', which no address can hold",
    );
    check(
        "memory",
        Some("much"),
        "provision.memory-total-kb \"much\" is no whole number of KiB from 0 to 4294967295",
    );
    check(
        "hex",
        Some("0"),
        "provision.parameter \"acme.hex\" with \"0\" is no hex: two digits a byte, which colons, hyphens or spaces may part",
    );
    check(
        "maker",
        Some("A,B"),
        "provision.key \"acme.k\" asks for a subject with \"B\", which a device does not understand: use CN, C, O, OU, L, ST, \
         serialNumber with a value each, joined with commas, as in \"O=Acme,CN={endpoint-name}\"",
    );
}
