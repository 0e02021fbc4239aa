//! `factory-signerd init`.

use std::{fs, process::Command};

use crate::rig::{Rig, said};

fn openssl(arguments: &[&str], rig: &Rig) -> String {
    let done = Command::new("openssl").args(arguments).current_dir(rig.path("")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn the_ceremony_makes_a_ca_that_openssl_agrees_with() {
    let rig = Rig::new();
    let done = rig.init();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let text = openssl(&["x509", "-in", "ca.pem", "-noout", "-text"], &rig);
    for expected in [
        "Subject: C = DE, O = Example Devices, CN = Device Identity CA",
        "ASN1 OID: prime256v1",
        "CA:TRUE, pathlen:0",
        "Digital Signature, Certificate Sign, CRL Sign",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    openssl(&["verify", "-CAfile", "ca.pem", "-check_ss_sig", "ca.pem"], &rig);

    let transcript = String::from_utf8(done.stdout).unwrap();
    let fingerprint = openssl(&["x509", "-in", "ca.pem", "-noout", "-fingerprint", "-sha256"], &rig);
    for expected in [
        fingerprint.trim().rsplit_once('=').unwrap().1,
        "token         \"factory\", serial ",
        "Sensitive(true) AlwaysSensitive(true) Extractable(false) NeverExtractable(true)",
    ] {
        assert!(transcript.contains(expected), "{expected:?} is not in {transcript}");
    }
}

#[test]
fn names_and_years_come_from_the_command_line() {
    let rig = Rig::new();
    let done = rig
        .command("init")
        .args([
            "--ca-common-name",
            "Line 3 CA",
            "--organization",
            "OEM",
            "--country",
            "FR",
            "--ca-years",
            "40",
        ])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let subject = openssl(&["x509", "-in", "ca.pem", "-noout", "-subject"], &rig);
    assert_eq!(subject.trim(), "subject=C = FR, O = OEM, CN = Line 3 CA");
    // Still valid in 39 years.
    openssl(&["x509", "-in", "ca.pem", "-noout", "-checkend", "1230000000"], &rig);
}

#[test]
fn a_second_ceremony_is_refused_and_changes_nothing() {
    let rig = Rig::commissioned();
    let before = rig.stored();
    let (text, _) = said(rig.init());
    assert!(text.contains("ca.pem exists already: nothing was changed"), "{text}");
    assert_eq!(rig.stored(), before);
}

/// Adds a table that says where a key and its certificate are.
fn add_role(rig: &Rig, header: &str, name: &str) {
    let certificate = rig.path(&format!("{name}.pem"));
    let role = format!(
        "{header}\nkey-label = \"{name}\"\ncertificate = \"{}\"\n\n[provenance]",
        certificate.display()
    );
    rig.configure("[provenance]", &role);
}

#[test]
fn what_is_added_later_is_made_and_what_was_there_is_left_as_it_is() {
    let rig = Rig::commissioned();
    let before = fs::read(rig.path("ca.pem")).unwrap();
    add_role(&rig, "[[authority]]\nname = \"second\"", "second");
    add_role(&rig, "[firmware]", "firmware");
    let made = rig.command("init").args(["--ca-common-name", "Second CA"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    assert_eq!(fs::read(rig.path("ca.pem")).unwrap(), before);
    let text = |name: &str| openssl(&["x509", "-in", name, "-noout", "-text"], &rig);
    assert!(text("second.pem").contains("CN = Second CA") && text("second.pem").contains("CA:TRUE"));
    assert!(text("firmware.pem").contains("CN = Firmware Integrity"));
    assert!(text("firmware.pem").contains("CA:FALSE"));
    let transcript = String::from_utf8(made.stdout).unwrap();
    let roles: Vec<_> = transcript.lines().filter_map(|line| line.strip_prefix("role          ")).collect();
    assert_eq!(roles, ["authority:second", "firmware"]);
    rig.serve().terminate();
}

#[test]
fn a_ca_that_could_not_be_told_from_another_is_refused_and_nothing_is_made() {
    let rig = Rig::commissioned();
    let before = rig.stored();
    add_role(&rig, "[[authority]]\nname = \"second\"", "second");
    let (text, _) = said(rig.init());
    assert!(text.contains("ca.pem has the common name \"Device Identity CA\" already"), "{text}");
    add_role(&rig, "[[authority]]\nname = \"third\"", "third");
    let (text, _) = said(rig.init());
    assert!(text.contains("2 CAs are missing, and each needs a name of its own"), "{text}");
    assert_eq!(rig.stored(), before);
}

#[test]
fn a_key_label_in_use_is_refused_and_changes_nothing() {
    let rig = Rig::commissioned();
    fs::rename(rig.path("ca.pem"), rig.path("kept.pem")).unwrap();
    let (text, _) = said(rig.init());
    assert!(text.contains("holds objects labelled \"device-identity-ca\" already"), "{text}");
    fs::rename(rig.path("kept.pem"), rig.path("ca.pem")).unwrap();
    rig.serve().terminate();
}

#[test]
fn a_ceremony_that_cannot_write_its_certificate_leaves_no_key() {
    let rig = Rig::new();
    rig.configure("/ca.pem", "/missing/ca.pem");
    let (text, _) = said(rig.init());
    assert!(text.contains("its folder must exist"), "{text}");
    fs::create_dir(rig.path("missing")).unwrap();
    let again = rig.init();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
}

#[test]
fn a_blank_token_needs_the_security_officers_pin() {
    let rig = Rig::new();
    rig.configure("so-pin-credential", "# ");
    let (text, _) = said(rig.init());
    assert!(text.contains("set `so-pin-credential`"), "{text}");
}
