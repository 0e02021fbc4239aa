//! Recipes made from the utility's configuration.

use std::fs;

use crate::folder::Folder;

/// What the portal gives, filled in by a factory.
const CONFIGURATION: &str = r#"
setup-ca-as-intermediate: true
certificate-authority:
  common-name: Factory CA
device-certificate:
  organization: "Acme, Ltd"
  country: GB
  validity-years: 20
device-certificate-chain-depth: 2
use-bootstrap: true
first-to-claim: true
bootstrap-server-uri: coaps://bootstrap.example.com:5684?aid=0123
bootstrap-server-uri-first-to-claim: coaps://bootstrap.example.com:5684
bootstrap-server-ca-certificate-file: bootstrap-ca.pem
time-sync: true
verify-on-device: true
device-info:
  timezone: Europe/London
  manufacturer: Acme
  model-number: M-1
  device-type: sensor
  hardware-version: rev-a
  memory-total-kb: 512
  colour: red
device-key-generation-mode: by_tool
entropy-generation-mode: by_device
update-auth-certificate-file: update.pem
vendor-id: 6f1d5a2e-9b0c-4c0e-8a53-0b7f5f0f7a01
class-id: 0c9a4f0e-55a1-4e0f-9a8c-5d1f1c2b3a02
custom-properties:
  - name: acme.region
    type: config-param
    data: "{eu}"
  - name: acme.limit
    type: config-param
    data: 5
  - name: acme.attest
    type: private-key
    data-file: attest.key
  - name: acme.cert
    type: certificate
    data: |
PEM
  - name: acme.blob
    type: symmetric-key
    data-file: blob.bin
shiny-new-key: 1
"#;

/// What the utility does not know.
const REST: &str = r#"
[flash]
chip = "nRF51822_xxAA"
image = "hilfw.elf"
[boot]
firmware-version = "1.0.0"
[self-test]
limits = {}
[tag]
uri = "https://ex.com/c"
record-type = "ex.com:id"
"#;

#[test]
fn a_configuration_becomes_a_recipe_and_nothing_is_dropped_in_silence() {
    let folder = Folder::new("");
    let pem: String = fs::read_to_string(folder.path("stranger.pem"))
        .unwrap()
        .lines()
        .map(|line| format!("      {line}\n"))
        .collect();
    folder.write("fcu.yml", CONFIGURATION.replace("PEM\n", &pem));
    let (said, good) = folder.stationctl(&["recipe", "import", "fcu.yml", "--out", "lamp.toml"]);
    assert!(good, "{said}");
    assert_eq!(
        said.lines().filter(|line| line.starts_with("not carried over")).collect::<Vec<_>>(),
        [
            "not carried over: device-info.colour: this is not a key that is known here",
            "not carried over: custom-properties \"acme.blob\": its type \"symmetric-key\" is not known here",
            "not carried over: custom-properties \"acme.blob\".data-file: this is not a key that is known here",
            "not carried over: setup-ca-as-intermediate: the CA's key lives in the signer's token; see factory-signerd \
             csr and import",
            "not carried over: certificate-authority: the CA's subject belongs into the signer's file",
            "not carried over: device-certificate.validity-years: this is not a key that is known here; set it in the \
             signer's profile",
            "not carried over: shiny-new-key: this is not a key that is known here",
        ]
    );
    let written = fs::read_to_string(folder.path("lamp.toml")).unwrap();
    let body: Vec<&str> = written.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(
        body,
        [
            "[identity]",
            "endpoint-name = \"{serial}\"",
            "key = \"by-tool\"",
            "chain-depth = 2",
            "organization = \"Acme, Ltd\"",
            "country = \"GB\"",
            "[provision]",
            "connection = \"bootstrap\"",
            "ownership = \"first-to-claim\"",
            "server-uri = \"coaps://bootstrap.example.com:5684\"",
            "server-ca = \"bootstrap-ca.pem\"",
            "manufacturer = \"Acme\"",
            "model-number = \"M-1\"",
            "device-type = \"sensor\"",
            "hardware-version = \"rev-a\"",
            "memory-total-kb = \"512\"",
            "time-sync = true",
            "time-zone = \"Europe/London\"",
            "verify-on-device = true",
            "update-certificate = \"update.pem\"",
            "vendor-id = \"6f1d5a2e-9b0c-4c0e-8a53-0b7f5f0f7a01\"",
            "class-id = \"0c9a4f0e-55a1-4e0f-9a8c-5d1f1c2b3a02\"",
            "entropy = \"by-device\"",
            "[[provision.parameter]]",
            "name = \"acme.region\"",
            "text = \"{{eu}}\"",
            "[[provision.parameter]]",
            "name = \"acme.limit\"",
            "integer = 5",
            "[[provision.key]]",
            "name = \"acme.attest\"",
            "file = \"attest.key\"",
            "[[provision.certificate]]",
            "name = \"acme.cert\"",
            "file = \"acme.cert.pem\"",
        ]
    );
    // With what the utility does not know, and with an organization that fits a subject, it is a recipe.
    folder.write("lamp.toml", format!("{}{REST}", written.replace("Acme, Ltd", "Acme")));
    let (said, good) = folder.stationctl(&["recipe", "check", "lamp.toml"]);
    assert!(good, "{said}");
    let (said, good) = folder.stationctl(&["recipe", "import", "fcu.yml", "--out", "lamp.toml"]);
    assert!(!good && said.contains("it must not be there yet"), "{said}");
}

#[test]
fn what_is_no_configuration_is_refused() {
    let check = |text: &str, sentence: &str| {
        let folder = Folder::new("");
        folder.write("fcu.yml", text);
        let (said, good) = folder.stationctl(&["recipe", "import", "fcu.yml", "--out", "lamp.toml"]);
        assert!(!good && said.contains(sentence), "{text:?}: {said}");
        assert!(!folder.path("lamp.toml").exists());
    };
    check("- a\n", "it holds no keys");
    check("a: [\n", "fcu.yml is no configuration");
    check(
        "device-key-generation-mode: by_hand\n",
        "device-key-generation-mode is \"by_hand\", not by_device, by_tool or externally_supplied",
    );
    check("custom-properties: 1\n", "custom-properties is no list");
    check("custom-properties:\n  - type: certificate\n", "custom-properties[1] has no name");
}

#[test]
fn a_direct_connection_and_supplied_keys_are_carried_over() {
    let folder = Folder::new("");
    folder.write(
        "fcu.yml",
        "use-bootstrap: false\nlwm2m-server-uri: coaps://lwm2m.example.com:5684?aid=0123\n\
         device_key_generation_mode: externally_supplied\ntime-sync: false\n",
    );
    let (said, good) = folder.stationctl(&["recipe", "import", "fcu.yml", "--out", "lamp.toml"]);
    assert!(good, "{said}");
    let written = fs::read_to_string(folder.path("lamp.toml")).unwrap();
    for line in [
        "supplied = \"units\"\n",
        "key = \"supplied\"\n",
        "connection = \"lwm2m\"\nownership = \"pre-assigned\"\naccount-id = \"0123\"\n",
        "server-uri = \"coaps://lwm2m.example.com:5684?aid=0123\"\n",
        "time-sync = false\n",
    ] {
        assert!(written.contains(line), "{line:?} is not in {written}");
    }
    for left in ["set identity.supplied-ca", "set provision.server-ca", "set provision.manufacturer"] {
        assert!(said.contains(left), "{left:?} is not in {said}");
    }
}
