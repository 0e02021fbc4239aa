//! What is said, and not done, when module, token, PIN, key or certificate are missing or wrong.

use std::{env::consts::ARCH, fs};

use tonic::Code;

use crate::{
    request::{Csr, issue, p256},
    rig::{Rig, SOFTHSM, said},
};

/// EX_CONFIG: systemd must not start it again by itself.
const NEEDS_A_HUMAN: Option<i32> = Some(78);

fn check(break_it: impl FnOnce(&Rig), sentence: &str) {
    let rig = Rig::commissioned();
    break_it(&rig);
    let (text, code) = rig.serve_in_vain();
    assert!(text.contains(sentence), "{sentence:?} is not in {text}");
    assert!(code.is_some_and(|code| code != 101), "it panicked: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!rig.socket().exists());
}

#[test]
fn whatever_is_missing_is_said_in_one_sentence_with_what_to_do() {
    check(
        |rig| rig.configure(SOFTHSM, "/usr/lib/missing.so"),
        "PKCS#11 module /usr/lib/missing.so cannot be loaded: install the token's driver or correct `module`",
    );
    check(
        |rig| rig.configure("\"factory\"", "\"fabrik\""),
        "no token with label \"fabrik\" (found: \"factory\"): plug it in, correct `token-label`, or make it with `factory-signerd init`",
    );
    check(
        |rig| rig.configure("\"device-identity-ca\"", "\"other\""),
        "token \"factory\" holds no private key \"other\": correct its `key-label`, or make the key with `factory-signerd init`",
    );
    check(
        |rig| fs::remove_file(rig.path("ca.pem")).unwrap(),
        "ca.pem cannot be read: make the CA with `factory-signerd init`, or restore the certificate that it wrote",
    );
    check(
        |rig| fs::write(rig.path("ca.pem"), "-----BEGIN").unwrap(),
        "ca.pem does not hold certificates in PEM, the CA's own first",
    );
    check(
        |rig| fs::remove_file(rig.path("user-pin")).unwrap(),
        "user-pin cannot be read: create it with mode 0600",
    );
    check(
        |rig| rig.write_pin("user-pin", "4321", 0o640),
        "user-pin has mode 0640: take it from all others with chmod 600",
    );
    check(
        |rig| rig.configure("so-pin-credential", "so-pin-credentail"),
        "signer.toml:5: key `so-pin-credentail`: unknown key, did you mean `so-pin-credential`?",
    );
}

#[test]
fn a_ca_that_ends_before_its_devices_would_is_refused_at_the_start() {
    let rig = Rig::new();
    assert!(rig.command("init").args(["--ca-years", "10"]).output().unwrap().status.success());
    let (text, _) = rig.serve_in_vain();
    assert!(text.contains("leaves a device less than 10 years: make a new CA"), "{text}");
}

#[test]
fn the_certificate_of_another_ca_is_refused() {
    let other = Rig::commissioned();
    check(
        |rig| _ = fs::copy(other.path("ca.pem"), rig.path("ca.pem")).unwrap(),
        "the key in the token does not belong to the CA certificate: correct `key-label` or `certificate` of the [[authority]]",
    );
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let rig = Rig::commissioned();
    rig.write_pin("user-pin", "1111", 0o600);
    // OpenSC's spy passes every call on to SoftHSM and writes it down.
    rig.configure(SOFTHSM, &format!("/usr/lib/{ARCH}-linux-gnu/pkcs11-spy.so"));
    let mut command = rig.command("serve");
    command.env("PKCS11SPY", SOFTHSM).env("PKCS11SPY_OUTPUT", rig.path("calls"));

    let (text, code) = said(command.output().unwrap());

    assert!(text.contains("refused the PIN, which is not tried again: correct the credential"), "{text}");
    assert!(!text.contains("1111"), "{text}");
    assert_eq!(code, NEEDS_A_HUMAN);
    let calls = fs::read_to_string(rig.path("calls")).unwrap();
    assert_eq!(calls.matches("C_Login").count(), 1, "{calls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_token_that_is_gone_makes_calls_unavailable_and_not_the_signer() {
    let rig = Rig::commissioned();
    let server = rig.serve();
    let request = issue(Csr::default().signed_by(&p256()));

    fs::rename(rig.path("tokens"), rig.path("gone")).unwrap();
    let refused = server.issue(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(refused.message().contains("send the same request again"), "{refused}");
    let (status, _) = server.terminate();
    assert!(status.success());

    // What was counted and not signed is signed when the token is back.
    fs::rename(rig.path("gone"), rig.path("tokens")).unwrap();
    rig.serve().issue(request).await.unwrap();
}

#[tokio::test]
async fn a_user_who_is_not_listed_is_refused() {
    let rig = Rig::commissioned();
    rig.configure("[subject]", "[[peer]]\nname = \"line-1\"\nuid = 4294967294\n\n[subject]");
    let refused = rig.serve().ask(issue(Csr::default().signed_by(&p256()))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

#[test]
fn no_pin_is_ever_logged() {
    let rig = Rig::commissioned();
    let mut command = rig.command("serve");
    command.env("RUST_LOG", "trace");
    rig.write_pin("user-pin", "98761234", 0o600);
    let (text, _) = said(command.output().unwrap());
    assert!(!text.contains("98761234"), "{text}");
}
