//! What a recipe says, and what a device then holds, byte for byte: one line for each parameter and each rule.

use std::fs;

use data_encoding::{HEXLOWER, HEXUPPER};
use factory_hil_tests::device::store::Kind::{self, Certificate, Config, PrivateKey, PublicKey};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::desk::{Desk, ENDPOINT, Injected, SERIAL};

/// A recipe with these changes gives a device these items; one without bytes it does not have.
async fn check(desk: &Desk, changes: &str, items: &[(Kind, &str, Option<&[u8]>)]) -> Injected {
    let injected =
        desk.inject(changes, &["--trial", "--value", "mac=00:11:22:AA:BB:CC", "--value", "tail=7f"]).await;
    injected.check_complete();
    for (kind, name, bytes) in items {
        assert_eq!(injected.held.get(*kind, name), *bytes, "{changes}: {name}");
    }
    injected
}

#[tokio::test]
async fn the_device_object_is_stored_as_the_recipe_says_it() {
    let desk = Desk::new();
    let text = async |changes: &str, name: &str, stored: &str| {
        check(&desk, changes, &[(Config, name, Some(stored.as_bytes()))]).await;
    };
    text("", "mbed.EndpointName", ENDPOINT).await;
    text("identity.endpoint-name = '{order}.{serial}'", "mbed.EndpointName", "WO-1.SN0001").await;
    text("identity.endpoint-name = 'x-{tail}'", "mbed.EndpointName", "x-7f").await;
    text("provision.manufacturer = 'Acmé {{Ltd}}'", "mbed.Manufacturer", "Acmé {Ltd}").await;
    text("provision.manufacturer = ''", "mbed.Manufacturer", "").await;
    text("provision.model-number = '{product}/2'", "mbed.ModelNumber", "sensor/2").await;
    text("", "mbed.SerialNumber", SERIAL).await;
    text("provision.serial-number = '{mac}'", "mbed.SerialNumber", "00:11:22:AA:BB:CC").await;
    text("provision.device-type = 'lamp'", "mbed.DeviceType", "lamp").await;
    text("provision.hardware-version = '{order}'", "mbed.HardwareVersion", "WO-1").await;

    let memory = async |changes: &str, stored: [u8; 4]| {
        check(&desk, changes, &[(Config, "mbed.MemoryTotalKB", Some(&stored))]).await;
    };
    memory("", [0, 1, 0, 0]).await;
    memory("provision.memory-total-kb = 4294967295", [0xff; 4]).await;
    memory("provision.memory-total-kb = 0", [0; 4]).await;
}

#[tokio::test]
async fn a_device_is_led_to_its_server_and_its_owner() {
    let desk = Desk::new();
    let server_ca = &desk.certificates("server-ca.pem")[0];
    let uri = "coaps://bootstrap.example.com:5684";
    check(
        &desk,
        "",
        &[
            (Config, "mbed.UseBootstrap", Some(&[1, 0, 0, 0])),
            (Config, "mbed.FirstToClaim", Some(&[1, 0, 0, 0])),
            (Config, "mbed.BootstrapServerURI", Some(uri.as_bytes())),
            (Certificate, "mbed.BootstrapServerCACert", Some(server_ca)),
            (Config, "mbed.AccountID", None),
            (Config, "mbed.LwM2MServerURI", None),
        ],
    )
    .await;
    let owned = "provision.ownership = 'pre-assigned'\nprovision.account-id = 'acc1'\n";
    let uri = "coap://host/path?x=y&aid=acc1";
    let injected = check(
        &desk,
        &format!("{owned}provision.server-uri = '{uri}'"),
        &[
            (Config, "mbed.UseBootstrap", Some(&[1, 0, 0, 0])),
            (Config, "mbed.FirstToClaim", None),
            (Config, "mbed.AccountID", Some(b"acc1")),
            (Config, "mbed.BootstrapServerURI", Some(uri.as_bytes())),
        ],
    )
    .await;
    assert_eq!(unit_of(&injected, "mbed.BootstrapDeviceCert"), ["acc1"]);
    let uri = "coaps://lwm2m.example.com:5684?aid=acc1";
    let injected = check(
        &desk,
        &format!("{owned}provision.connection = 'lwm2m'\nprovision.server-uri = '{uri}'"),
        &[
            (Config, "mbed.UseBootstrap", Some(&[0; 4])),
            (Config, "mbed.FirstToClaim", None),
            (Config, "mbed.AccountID", Some(b"acc1")),
            (Config, "mbed.LwM2MServerURI", Some(uri.as_bytes())),
            (Certificate, "mbed.LwM2MServerCACert", Some(server_ca)),
            (Config, "mbed.BootstrapServerURI", None),
            (Certificate, "mbed.BootstrapDeviceCert", None),
            (PrivateKey, "mbed.BootstrapDevicePrivateKey", None),
        ],
    )
    .await;
    assert_eq!(unit_of(&injected, "mbed.LwM2MDeviceCert"), ["acc1"]);
    assert!(injected.held.get(PrivateKey, "mbed.LwM2MDevicePrivateKey").is_some());
    assert!(injected.said.contains("warning: Bootstrap mode not activated:mbed.UseBootstrap\n"));
}

/// OU of a stored certificate's subject.
fn unit_of(injected: &Injected, name: &str) -> Vec<String> {
    let der = injected.held.get(Certificate, name).unwrap();
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let units = certificate.subject().iter_organizational_unit();
    units.map(|unit| unit.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_devices_clock_is_set_or_left_alone() {
    let desk = Desk::new();
    let zone = "provision.time-zone = 'Asia/Kathmandu'";
    let stored = [
        (Config, "mbed.Timezone", Some(b"Asia/Kathmandu".as_slice())),
        (Config, "mbed.UTCOffset", Some(b"+05:45")),
        // Sets the clock instead.
        (Config, "mbed.CurrentTime", None),
    ];
    check(&desk, zone, &stored).await;
    check(&desk, &format!("{zone}\nprovision.utc-offset = '+05:45'"), &stored).await;
    let utc =
        [(Config, "mbed.Timezone", Some(b"UTC".as_slice())), (Config, "mbed.UTCOffset", Some(b"+00:00"))];
    check(&desk, "", &utc).await;
    let none = [(Config, "mbed.Timezone", None), (Config, "mbed.UTCOffset", None)];
    let injected = check(&desk, "provision.time-sync = false", &none).await;
    for warning in [
        "Item not set:mbed.CurrentTime",
        "Item not set:mbed.Timezone",
        "Item not set:mbed.UTCOffset",
        "Certificate validity cannot be checked:mbed.BootstrapDeviceCert",
    ] {
        assert!(injected.said.contains(&format!("warning: {warning}\n")), "{}", injected.said);
    }
}

#[tokio::test]
async fn a_device_learns_who_may_sign_its_firmware_and_who_may_access_it() {
    let desk = Desk::new();
    let update = r#"
provision.update-certificate = "update.pem"
provision.vendor-id = "6f1d5a2e-9b0c-4c0e-8a53-0b7f5f0f7a01"
provision.class-id = "0c9a4f0e-55a1-4e0f-9a8c-5d1f1c2b3a02""#;
    let vendor = HEXLOWER.decode(b"6f1d5a2e9b0c4c0e8a530b7f5f0f7a01").unwrap();
    let class = HEXLOWER.decode(b"0c9a4f0e55a14e0f9a8c5d1f1c2b3a02").unwrap();
    let injected = check(
        &desk,
        update,
        &[
            (Certificate, "mbed.UpdateAuthCert", Some(&desk.certificates("update.pem")[0])),
            (Config, "mbed.VendorId", Some(&vendor)),
            (Config, "mbed.ClassId", Some(&class)),
        ],
    )
    .await;
    assert!(!injected.said.contains("warning"), "{}", injected.said);

    let anchor = fs::read(desk.path("attest.pub")).unwrap();
    let name = format!("mbed.ta.{}", HEXUPPER.encode(&Sha256::digest(&anchor)));
    check(&desk, "provision.trust-anchors = ['attest.pub']", &[(PublicKey, &name, Some(&anchor))]).await;
}

#[tokio::test]
async fn custom_items_are_stored_as_they_are_given() {
    let desk = Desk::new();
    let parameter = async |form: &str, stored: &[u8]| {
        let changes = format!("provision.parameter = [{{ name = 'acme.it', {form} }}]");
        check(&desk, &changes, &[(Config, "acme.it", Some(stored))]).await;
    };
    parameter("text = '{serial} at {mac}'", b"SN0001 at 00:11:22:AA:BB:CC").await;
    parameter("text = ''", b"").await;
    parameter("hex = '00ff7F'", &[0, 0xff, 0x7f]).await;
    parameter("hex = '{mac}'", &[0, 0x11, 0x22, 0xaa, 0xbb, 0xcc]).await;
    parameter("integer = 258", &[2, 1, 0, 0, 0, 0, 0, 0]).await;
    parameter("integer = -2", &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).await;
    parameter("integer = 258, byte-order = 'big'", &[0, 0, 0, 0, 0, 0, 1, 2]).await;
    parameter("integer = 258, bytes = 4", &[2, 1, 0, 0]).await;
    parameter("integer = 258, bytes = 4, byte-order = 'big'", &[0, 0, 1, 2]).await;
    parameter("integer = 4294967295, bytes = 4", &[0xff; 4]).await;
    parameter("integer = -2147483648, bytes = 4", &[0, 0, 0, 0x80]).await;
    parameter("file = 'calibration.bin'", &[7; 40]).await;

    let chain = desk.certificates("attest.pem");
    let key = desk.private_key("attest.key");
    let public = fs::read(desk.path("attest.pub")).unwrap();
    let certificates = r#"
provision.certificate = [
  { name = "acme.ca", file = "server-ca.pem" },
  { name = "acme.attest", file = "attest.pem", private-key = "acme.key" },
]
provision.key = [
  { name = "acme.key", file = "attest.key" },
  { name = "acme.public", file = "attest.pub" },
]"#;
    let injected = check(
        &desk,
        certificates,
        &[
            (Certificate, "acme.ca", Some(&desk.certificates("server-ca.pem")[0])),
            (Certificate, "acme.attest", Some(&chain[0])),
            (PrivateKey, "acme.key", Some(&key)),
            (PublicKey, "acme.public", Some(&public)),
        ],
    )
    .await;
    let stored = injected.held.chain(Certificate, "acme.attest").unwrap();
    assert_eq!(stored.iter().map(|part| &part.0).collect::<Vec<_>>(), chain.iter().collect::<Vec<_>>());
    assert!(!injected.said.contains(&HEXLOWER.encode(&Sha256::digest(&key))), "not even the digest of a key");
}

#[tokio::test]
async fn a_device_makes_as_many_keys_as_it_is_asked_for() {
    let desk = Desk::new();
    let keys = r#"
provision.key = [
  { name = "acme.a", subject = "O=Acme,CN={endpoint-name}" },
  { name = "acme.b", subject = "CN={mac}" },
  { name = "acme.c", subject = "C=GB,CN=c" },
  { name = "acme.d", subject = "CN=d" },
]"#;
    let injected = check(&desk, keys, &[]).await;
    for name in ["acme.a", "acme.b", "acme.c", "acme.d", "mbed.BootstrapDevicePrivateKey"] {
        assert!(injected.held.get(PrivateKey, name).is_some(), "{name}");
    }
    assert_eq!(injected.said.matches("-----BEGIN CERTIFICATE REQUEST-----").count(), 4);
}

#[tokio::test]
async fn a_devices_key_comes_from_where_the_recipe_says() {
    let desk = Desk::new();
    let (key, name) = ("mbed.BootstrapDevicePrivateKey", "mbed.BootstrapDeviceCert");
    for depth in 1..=5 {
        for origin in ["by-device", "by-tool"] {
            let changes = format!("identity.key = '{origin}'\nidentity.chain-depth = {depth}");
            let injected = check(&desk, &changes, &[]).await;
            assert_eq!(injected.held.chain(Certificate, name).unwrap().len(), depth);
            assert_eq!(injected.said.contains("private-key"), origin == "by-tool");
        }
    }
    let supplied =
        "supplied = 'units'\nidentity.key = 'supplied'\nidentity.supplied-ca = 'supplied-ca.pem'\n";
    let ready = desk.certificates(&format!("units/{SERIAL}/device-certificate.pem"));
    let ready_key = desk.private_key(&format!("units/{SERIAL}/device-key.pem"));
    for depth in 1..=2 {
        let injected = desk.inject(&format!("{supplied}identity.chain-depth = {depth}"), &[]).await;
        injected.check_complete();
        let stored = injected.held.chain(Certificate, name).unwrap();
        assert_eq!(stored.iter().map(|part| part.0.as_slice()).collect::<Vec<_>>(), ready[..depth]);
        assert_eq!(injected.held.get(PrivateKey, key), Some(ready_key.as_slice()));
    }
}

#[tokio::test]
async fn entropy_and_root_of_trust_come_from_where_the_recipe_says() {
    let desk = Desk::new();
    let secrets = async |origin: &str| {
        let changes = format!(
            "supplied = 'units'\nprovision.entropy = '{origin}'\nprovision.root-of-trust = '{origin}'"
        );
        let held = check(&desk, &changes, &[]).await.held;
        (held.entropy.map(|bytes| bytes.0), held.root_of_trust.map(|bytes| bytes.0))
    };
    assert_eq!(secrets("supplied").await, (Some(vec![1; 48]), Some(vec![2; 16])));
    let held = check(&desk, "", &[]).await.held;
    assert_eq!((held.entropy, held.root_of_trust), (None, None));
    let drawn = "provision.entropy = 'by-tool'\nprovision.root-of-trust = 'by-tool'";
    let [first, second] = [check(&desk, drawn, &[]).await.held, check(&desk, drawn, &[]).await.held];
    assert_eq!(first.entropy.as_ref().map(|bytes| bytes.0.len()), Some(48));
    assert_eq!(first.root_of_trust.as_ref().map(|bytes| bytes.0.len()), Some(16));
    assert_ne!((first.entropy, first.root_of_trust), (second.entropy, second.root_of_trust));
}

#[tokio::test]
async fn a_device_checks_itself_unless_the_recipe_says_otherwise() {
    let desk = Desk::new();
    let injected = check(&desk, "provision.verify-on-device = false", &[]).await;
    assert!(!injected.said.contains("warning"), "{}", injected.said);
    let injected = check(&desk, "", &[]).await;
    assert!(injected.said.contains("warning: Item not set:mbed.UpdateAuthCert\n"), "{}", injected.said);

    // The device was not told to close its factory code yet.
    let refused = desk.inject("provision.warnings = 'fail'", &["--trial"]).await;
    assert!(!refused.succeeded && !refused.held.factory_disabled, "{}", refused.said);
    let warned = "the device warns: Item not set:mbed.UpdateAuthCert, Item not set:mbed.ClassId, Item not \
                  set:mbed.VendorId; the recipe's provision.warnings makes that a failure";
    assert!(refused.said.contains(warned), "{}", refused.said);
    let quiet = r#"
provision.warnings = "fail"
provision.update-certificate = "update.pem"
provision.vendor-id = "6f1d5a2e-9b0c-4c0e-8a53-0b7f5f0f7a01"
provision.class-id = "0c9a4f0e-55a1-4e0f-9a8c-5d1f1c2b3a02""#;
    check(&desk, quiet, &[]).await;
}
