//! One line for each bad recipe: what is changed in the good one, and the exact words that its author gets.

use std::fs::File;

use factory_station::{
    recipe::Recipe,
    signatures::{Demand, Signatures},
};

use crate::folder::{Folder, RECIPE};

/// With these words replaced in the good recipe, these are the complaints.
fn bad_recipe(changes: &[(&str, &str)], expected: &[&str]) {
    let mut written = RECIPE.to_owned();
    for (old, new) in changes {
        assert_eq!(written.matches(old).count(), 1, "{old:?} should be there once");
        written = written.replace(old, new);
    }
    let folder = Folder::new(&written);
    let complaints = folder.load().err().unwrap_or_else(|| panic!("{changes:?} should be refused"));
    let complaints = folder.relative(&complaints.to_string());
    assert_eq!(complaints.lines().collect::<Vec<_>>(), expected, "for {changes:?}");
}

/// With one thing changed, this is the one complaint; it begins with its line.
fn told(old: &str, new: &str, complaint: &str) {
    bad_recipe(&[(old, new)], &[&format!("recipe.toml:{complaint}")]);
}

#[test]
fn a_bad_recipe_is_told_what_is_wrong_where() {
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
        "9: key `identity.endpoint-name`: must hold {serial}, or a value that differs from unit to unit, so that each has a name of its own",
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
    for uri in [
        "COAPS://bootstrap.example.com",
        "coaps://",
        "coap://?aid=1",
        "coaps://:5684",
        "coaps:///x",
        "bootstrap",
    ] {
        told(
            "coaps://bootstrap.example.com:5684",
            uri,
            "11: key `provision.server-uri`: must begin with coaps:// or coap://, in lower case, and a host",
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
        "12: key `provision.server-ca`: hilfw.elf holds no certificate, in PEM or DER",
    );
    told(
        "bootstrap-ca.pem",
        "none.pem",
        "12: key `provision.server-ca`: none.pem cannot be read: No such file or directory (os error 2)",
    );
    told(
        "memory-total-kb = 256",
        "memory-total-kb = -1",
        "17: key `provision.memory-total-kb`: \"-1\" is no whole number of KiB from 0 to 4294967295",
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
fn the_place_of_a_chips_id_is_checked() {
    let image = RECIPE.lines().find(|line| line.starts_with("image")).unwrap();
    let with = |place: &str| format!("{image}\nunique-id = {place}");
    let bad = |place: &str, expected: &[&str]| bad_recipe(&[(image, &with(place))], expected);
    Folder::new(&RECIPE.replace(image, &with("{ address = 0x10000060, bytes = 8 }"))).recipe();
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
            "recipe.toml:10: key `provision.server-uri`: must begin with coaps:// or coap://, in lower case, and a host",
            "recipe.toml:19: key `tag.record-type`: is missing",
            "recipe.toml:21: key `tag.recordtype`: unknown key, did you mean `record-type`?",
        ],
    );
}

/// Adds lines to the table `[provision]`.
fn provision(lines: &str, complaint: &str) {
    told("[tag]", &format!("{lines}\n[tag]"), complaint);
}

#[test]
fn a_text_must_be_one_that_can_be_filled() {
    told(
        "\"Demo Devices\"",
        "\"Demo {serial\"",
        "13: key `provision.manufacturer`: has a single '{'; a value is written as in {serial}, a brace as {{ or }}",
    );
    told(
        "\"Demo Devices\"",
        "\"Demo {Mac}\"",
        "13: key `provision.manufacturer`: asks for a value {Mac}, which is no name: use a-z, 0-9 and -, beginning with \
         a letter",
    );
    told(
        "\"sensor-{serial}\"",
        "\"{product}-{order}\"",
        "9: key `identity.endpoint-name`: must hold {serial}, or a value that differs from unit to unit, so that each \
         has a name of its own",
    );
}

#[test]
fn a_connection_must_fit_its_owner() {
    provision(
        "connection = \"direct\"",
        "20: key `provision.connection`: must be \"bootstrap\", or \"lwm2m\" (direct)",
    );
    provision(
        "connection = \"lwm2m\"",
        "10: key `provision.ownership`: must be \"pre-assigned\" for a direct connection (lwm2m): a device can only be \
         claimed by way of a bootstrap server",
    );
    provision(
        "ownership = \"mine\"",
        "20: key `provision.ownership`: must be \"first-to-claim\" or \"pre-assigned\"",
    );
    provision(
        "ownership = \"pre-assigned\"",
        "10: key `provision.account-id`: is missing: a pre-assigned device needs the account that it belongs to",
    );
    provision(
        "account-id = \"acme\"",
        "20: key `provision.account-id`: is only for ownership \"pre-assigned\"; leave it out",
    );
    provision(
        "ownership = \"pre-assigned\"\naccount-id = \"a,b\"",
        "21: key `provision.account-id`: must be 1 to 64 letters and digits",
    );
    provision(
        "ownership = \"pre-assigned\"\naccount-id = \"acme\"",
        "11: key `provision.server-uri`: must name the account that the device is assigned to, as in \"…?aid=acme\"",
    );
    for (uri, named) in [("?aid=other", "other"), ("?aid=acme&x=1", "acme&x=1")] {
        bad_recipe(
            &[
                (":5684", &format!(":5684{uri}")),
                ("[tag]", "ownership = \"pre-assigned\"\naccount-id = \"acme\"\n[tag]"),
            ],
            &[&format!(
                "recipe.toml:11: key `provision.server-uri`: ends with the account {named:?}, account-id is \"acme\"; \
                 the account must stand last"
            )],
        );
    }
    told(":5684", ":5684/a b", "11: key `provision.server-uri`: holds ' ', which no address can hold");
}

#[test]
fn a_certificate_must_be_one_that_a_device_reads() {
    let server_ca = |file: &str, complaint: &str| {
        told("bootstrap-ca.pem", file, &format!("12: key `provision.server-ca`: {file} {complaint}"));
    };
    server_ca("no-ca.pem", "certificate 1 is no CA certificate (basicConstraints CA, keyUsage keyCertSign)");
    server_ca("old-ca.pem", "certificate 1 has expired on Jan  1 00:00:00 2020 +00:00");
    server_ca("two.pem", "holds several certificates, exactly one is needed");
    server_ca(
        "p384.pem",
        "certificate 1 is not for a P-256 key, the only kind that a device reads; have it issued anew",
    );
    server_ca("trailing.der", "certificate 1 cannot be read: 1 bytes follow it");
    let update = |file: &str, complaint: &str| {
        provision(
            &format!("update-certificate = {file:?}"),
            &format!("20: key `provision.update-certificate`: {file} {complaint}"),
        );
    };
    update(
        "update-9y.pem",
        "is valid for less than ten years from now, and a device cannot be given another",
    );
    update("update-server.pem", "is not for clientAuth and codeSigning (extended key usage)");
    update("update-later.pem", "is not valid yet");
    update("update-signed.pem", "is not signed by its own key; an update certificate is self-signed");
    bad_recipe(
        &[
            ("[tag]", "update-certificate = \"update.pem\"\n[tag]"),
            ("vendor-id = \"6f1d5a2e-9b0c-4c0e-8a53-0b7f5f0f7a01\"\n", ""),
        ],
        &[
            "recipe.toml:10: key `provision.vendor-id`: is missing: a device with an update certificate needs it, a UUID (RFC 9562)",
        ],
    );
}

#[test]
fn a_clock_is_set_to_a_time_that_there_is() {
    provision(
        "time-zone = \"Europe/Londn\"",
        "20: key `provision.time-zone`: \"Europe/Londn\" is no time zone of the IANA database, as Europe/London is",
    );
    provision(
        "time-zone = \"Asia/Tokyo\"\nutc-offset = \"+01:00\"",
        "21: key `provision.utc-offset`: is never +01:00 in Asia/Tokyo, but +09:00; leave it out to give what holds at \
         the time",
    );
    provision(
        "time-zone = \"Europe/London\"\nutc-offset = \"-01:00\"",
        "21: key `provision.utc-offset`: is never -01:00 in Europe/London, but +00:00 or +01:00; leave it out to give \
         what holds at the time",
    );
    provision(
        "time-sync = false\ntime-zone = \"UTC\"",
        "21: key `provision.time-zone`: is only given with time-sync = true",
    );
}

#[test]
fn a_key_comes_from_where_it_can_come_from() {
    let identity =
        |line: &str, complaint: &str| told("[provision]", &format!("{line}\n[provision]"), complaint);
    identity(
        "key = \"by-hand\"",
        "10: key `identity.key`: must be \"by-device\" (the device makes it), \"by-tool\" (the station makes it), or \
         \"supplied\"",
    );
    identity(
        "key = \"supplied\"",
        "8: key `identity.supplied-ca`: is missing: name the CA that supplied certificates must be signed by",
    );
    identity(
        "supplied-ca = \"bootstrap-ca.pem\"",
        "10: key `identity.supplied-ca`: is only for supplied keys (key = \"supplied\")",
    );
    identity(
        "key = \"supplied\"\nsupplied-ca = \"bootstrap-ca.pem\"",
        "1: key `supplied`: is missing: name the folder where a folder for each serial number holds what is supplied",
    );
    for depth in [0, 6] {
        identity(
            &format!("chain-depth = {depth}"),
            "10: key `identity.chain-depth`: must be 1 to 5, as many as a device takes",
        );
    }
    let secrets =
        "must be \"by-device\" (it has its own), \"by-tool\" (the station draws it), or \"supplied\"";
    provision("entropy = \"none\"", &format!("20: key `provision.entropy`: {secrets}"));
    provision("root-of-trust = \"\"", &format!("20: key `provision.root-of-trust`: {secrets}"));
    provision(
        "entropy = \"supplied\"",
        "1: key `supplied`: is missing: name the folder where a folder for each serial number holds what is supplied",
    );
    told(
        "[flash]",
        "supplied = \".\"\n[flash]",
        "1: key `supplied`: is not needed: neither key nor entropy nor root-of-trust is supplied",
    );
    bad_recipe(
        &[("[flash]", "supplied = \"nowhere\"\n[flash]"), ("[tag]", "entropy = \"supplied\"\n[tag]")],
        &["recipe.toml:1: key `supplied`: nowhere is no folder"],
    );
}

#[test]
fn an_access_key_is_a_public_p256_key_and_there_once() {
    let anchors = |files: &str, complaint: &str| {
        provision(
            &format!("trust-anchors = [{files}]"),
            &format!("20: key `provision.trust-anchors`: {complaint}"),
        );
    };
    let no_key = "is no public P-256 key (SubjectPublicKeyInfo of 91 bytes, PEM or DER)";
    anchors("\"p384-public.der\"", &format!("p384-public.der {no_key}"));
    anchors("\"bootstrap-ca.pem\"", &format!("bootstrap-ca.pem {no_key}"));
    anchors("\"anchor.der\", \"anchor.der\"", "anchor.der is a key that is there already");
}

#[test]
fn a_warning_is_kept_or_is_a_failure() {
    provision(
        "warnings = \"hide\"",
        "20: key `provision.warnings`: must be \"keep\" (they go into the result) or \"fail\" (the unit fails)",
    );
    provision(
        "warnings = \"fail\"\nverify-on-device = false",
        "20: key `provision.warnings`: cannot be \"fail\" while verify-on-device is false: then nothing is warned of",
    );
}

/// Adds an item of the customer's own, in the last lines of the recipe.
fn item(group: &str, lines: &str, complaints: &[&str]) {
    let added = format!("record-type = \"ex.com:id\"\n[[provision.{group}]]\n{lines}");
    let complaints: Vec<String> =
        complaints.iter().map(|complaint| format!("recipe.toml:{complaint}")).collect();
    let complaints: Vec<&str> = complaints.iter().map(String::as_str).collect();
    bad_recipe(&[("record-type = \"ex.com:id\"", &added)], &complaints);
}

#[test]
fn a_customers_item_is_none_of_the_devices() {
    let name = |name: &str, complaint: &str| {
        item(
            "parameter",
            &format!("name = {name:?}\ntext = \"\""),
            &[&format!("24: key `provision.parameter[1].name`: {name:?} {complaint}")],
        );
    };
    name("", "must not be empty");
    name("a b", "holds ' ', a device takes only A-Z a-z 0-9 . _ -");
    name(&"n".repeat(101), "is 101 bytes long, a device takes at most 100");
    for prefix in ["m", "mbed", "mbed."] {
        name(
            prefix,
            "is the beginning of \"mbed.\", and the device takes it for one of its own items; begin it with your \
             company's name",
        );
    }
    name(
        "mbed.CurrentTime",
        "begins with \"mbed\", which is kept for the device's own items; begin it with your company's name",
    );
}

#[test]
fn a_customers_parameter_has_one_value_that_fits() {
    let parameter = |lines: &str, complaint: &str| {
        item("parameter", &format!("name = \"acme.x\"\n{lines}"), &[complaint]);
    };
    let forms = "24: key `provision.parameter[1].name`: needs exactly one of text, hex, integer and file";
    parameter("", forms);
    parameter("text = \"\"\nhex = \"\"", forms);
    parameter(
        "text = \"\"\nbytes = 4",
        "24: key `provision.parameter[1].name`: has bytes or byte-order, which are only for an integer",
    );
    parameter("integer = 1\nbytes = 2", "26: key `provision.parameter[1].bytes`: must be 4 or 8");
    parameter(
        "integer = 1\nbyte-order = \"middle\"",
        "26: key `provision.parameter[1].byte-order`: must be \"little\", as the device's own integers are, or \"big\"",
    );
    for number in ["4294967296", "-2147483649"] {
        parameter(
            &format!("integer = {number}\nbytes = 4"),
            &format!("25: key `provision.parameter[1].integer`: with {number:?} is no integer of 4 bytes"),
        );
    }
    parameter(
        "integer = \"9223372036854775808\"",
        "25: key `provision.parameter[1].integer`: with \"9223372036854775808\" is no integer of 8 bytes",
    );
    parameter(
        "hex = \"0g\"",
        "25: key `provision.parameter[1].hex`: with \"0g\" is no hex: two digits a byte, which colons, hyphens or spaces \
         may part",
    );
    parameter(
        "file = \"none.bin\"",
        "25: key `provision.parameter[1].file`: none.bin cannot be read: No such file or directory (os error 2)",
    );
    parameter(
        "text = \"\"\n[[provision.parameter]]\nname = \"acme.x\"\ntext = \"\"",
        "23: key `provision.parameter`: \"acme.x\" is there twice; a device stores a name once",
    );
    item(
        "parameter",
        "name = \"acme.x\"\ntext = \"\"\nunit = \"s\"",
        &[
            "26: key `provision.parameter[1].unit`: unknown key, known here: name, text, hex, integer, file, bytes, byte-order",
        ],
    );
}

#[test]
fn a_customers_certificate_is_a_chain_that_a_device_takes() {
    let certificate = |lines: &str, complaint: &str| {
        item("certificate", &format!("name = \"acme.c\"\n{lines}"), &[complaint]);
    };
    certificate(
        "file = \"attest-reversed.pem\"",
        "25: key `provision.certificate[1].file`: attest-reversed.pem certificate 2 is no CA certificate \
         (basicConstraints CA, keyUsage keyCertSign)",
    );
    certificate(
        "file = \"two-cas.pem\"",
        "25: key `provision.certificate[1].file`: two-cas.pem certificate 1 is not signed by certificate 2; the leaf \
         comes first, each signed by the next",
    );
    certificate(
        "file = \"six.pem\"",
        "25: key `provision.certificate[1].file`: six.pem holds 6 certificates, a device takes at most 5; leave out the \
         root",
    );
    certificate(
        "file = \"attest.pem\"\nprivate-key = \"acme.k\"",
        "23: key `provision.certificate`: \"acme.c\" names the private key \"acme.k\", which no [[provision.key]] with a \
         file has",
    );
    certificate(
        "file = \"stranger.pem\"\nprivate-key = \"acme.k\"\n[[provision.key]]\nname = \"acme.k\"\nfile = \"attest.key\"",
        "23: key `provision.certificate`: \"acme.c\" is for another key than \"acme.k\"",
    );
}

#[test]
fn a_customers_key_is_one_that_a_device_takes_or_makes() {
    let key =
        |lines: &str, complaint: &str| item("key", &format!("name = \"acme.k\"\n{lines}"), &[complaint]);
    let either = "24: key `provision.key[1].name`: needs either a file with the key, or the subject of the request for one that \
         the device makes";
    key("", either);
    key("file = \"attest.key\"\nsubject = \"CN=x\"", either);
    key(
        "file = \"p384-public.der\"",
        "25: key `provision.key[1].file`: p384-public.der is neither a private nor a public P-256 key, in PEM or DER",
    );
    for (subject, part) in [("nonsense", "nonsense"), ("", ""), ("C=GB,X=Y", "X=Y"), ("CN=", "CN=")] {
        key(
            &format!("subject = {subject:?}"),
            &format!(
                "25: key `provision.key[1].subject`: asks for a subject with {part:?}, which a device does not \
                 understand: use CN, C, O, OU, L, ST, serialNumber with a value each, joined with commas, as in \
                 \"O=Acme,CN={{endpoint-name}}\""
            ),
        );
    }
    key(
        &format!("subject = \"CN={}\"", "x".repeat(198)),
        "25: key `provision.key[1].subject`: asks for a subject of 201 bytes, a device answers for at most 200",
    );
    key(
        "subject = \"CN=x\"\n[[provision.key]]\nname = \"acme.k\"\nfile = \"attest.key\"",
        "23: key `provision.key`: \"acme.k\" is there twice; a device stores a name once",
    );
}

#[test]
fn a_device_must_be_able_to_say_what_came_of_it() {
    bad_recipe(
        &[
            ("[provision]", "chain-depth = 5\n[provision]"),
            ("[tag]", "time-sync = false\n[tag]"),
            ("vendor-id = \"6f1d5a2e-9b0c-4c0e-8a53-0b7f5f0f7a01\"\n", ""),
            ("class-id = \"0c9a4f0e-55a1-4e0f-9a8c-5d1f1c2b3a02\"\n", ""),
        ],
        &[
            "recipe.toml:11: key `provision`: time-sync leaves the device 11 things to warn of, in an answer of up to 636 \
           bytes, and it has 512 for it: set the time, give an update certificate with vendor-id and class-id, or give \
           shorter chains",
        ],
    );
    let keys: String = (1..=5)
        .map(|number| format!("[[provision.key]]\nname = \"acme.{number}\"\nsubject = \"CN=x\"\n"))
        .collect();
    let added = format!("record-type = \"ex.com:id\"\n{keys}");
    bad_recipe(
        &[("record-type = \"ex.com:id\"", &added)],
        &[
            "recipe.toml:10: key `provision`: key has the device make 6 keys and answer with up to 2770 bytes; it makes 5 at \
           most, and has 2560 bytes for the answer: ask for fewer keys, or give them shorter names",
        ],
    );
}

#[test]
fn an_uploaded_recipe_reads_no_more_than_it_could_bring() {
    let read = |count: usize| {
        let parameters = (1..=count).map(|number| {
            format!("[[provision.parameter]]\nname = \"acme.{number}\"\nfile = \"calibration.bin\"\n")
        });
        let folder = Folder::new(&format!("{RECIPE}{}", parameters.collect::<String>()));
        let calibration = File::create(folder.path("calibration.bin")).unwrap();
        calibration.set_len(48 << 20).unwrap();
        let none = Signatures::demanded(&Demand::Nothing).unwrap();
        let refused = Recipe::read_alone(&folder.path("recipe.toml"), &none).err().unwrap();
        folder.relative(&refused.to_string())
    };
    let too_much = "key `provision.parameter[3].file`: makes more than 128 MiB that are read: name a file once, or a shorter one";
    let two = read(2);
    assert!(!two.contains("128 MiB"), "{two}");
    let four = read(4);
    assert!(four.contains(too_much) && !four.contains("parameter[2]"), "{four}");
}
