//! A signer below the brand owner's offline root, and whether a token is fit for production.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{
    faulty::Faulty,
    orders::USUAL,
    request::{Csr, issue, p256},
    rig::Rig,
};

const AUTHORITY: [&str; 2] = ["--role", "authority:devices"];
const ROOT: [&str; 2] = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
const CA: &str = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";

fn openssl(rig: &Rig, arguments: &[&str]) -> String {
    let done = Command::new("openssl").args(arguments).current_dir(rig.path("")).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Runs a verb; gives all that it said, and whether it ended well.
fn run(rig: &Rig, verb: &str, arguments: &[&str]) -> (String, bool) {
    let done = rig.command(verb).args(arguments).current_dir(rig.path("")).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap() + &String::from_utf8_lossy(&done.stderr);
    (said, done.status.success())
}

/// A folder with an offline root, `root.pem`, and a request from the signer, `ca.csr`.
fn requested() -> Rig {
    let rig = Rig::new();
    let root =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "12000"];
    openssl(
        &rig,
        &[&root[..], &ROOT, &["-subj", "/O=Brand/CN=Root", "-keyout", "root.key", "-out", "root.pem"]]
            .concat(),
    );
    let (said, good) = run(&rig, "csr", &[&AUTHORITY[..], &["--out", "ca.csr"]].concat());
    assert!(good, "{said}");
    rig
}

/// Has the root sign a request as `out`, with these extensions.
fn sign(rig: &Rig, csr: &str, extensions: &str, days: &str, out: &str) {
    fs::write(rig.path("extensions"), extensions).unwrap();
    let ca = ["x509", "-req", "-in", csr, "-CA", "root.pem", "-CAkey", "root.key", "-extfile", "extensions"];
    openssl(rig, &[&ca[..], &["-days", days, "-out", out]].concat());
}

fn import(rig: &Rig, file: &str) -> (String, bool) {
    run(rig, "import", &[&AUTHORITY[..], &[file]].concat())
}

#[tokio::test]
async fn a_ca_below_the_brand_owners_root_issues() {
    let rig = requested();
    openssl(&rig, &["req", "-in", "ca.csr", "-verify", "-noout"]);
    let text = openssl(&rig, &["req", "-in", "ca.csr", "-noout", "-text"]);
    for sentence in ["CN = Device Identity CA", "CA:TRUE, pathlen:0", "Certificate Sign"] {
        assert!(text.contains(sentence), "{sentence:?} is not in {text}");
    }
    // Once more is the same key.
    let (said, good) = run(&rig, "csr", &[&AUTHORITY[..], &["--out", "again.csr"]].concat());
    assert!(good, "{said}");
    let key = |csr| openssl(&rig, &["req", "-in", csr, "-noout", "-pubkey"]);
    assert_eq!(key("ca.csr"), key("again.csr"));

    sign(&rig, "ca.csr", CA, "11000", "signed.pem");
    let chain = openssl(&rig, &["x509", "-in", "signed.pem"]) + &openssl(&rig, &["x509", "-in", "root.pem"]);
    fs::write(rig.path("chain.pem"), &chain).unwrap();
    let (said, good) = import(&rig, "chain.pem");
    assert!(good && said.contains("issuer      O=Brand, CN=Root"), "{said}");
    assert!(import(&rig, "chain.pem").1, "the same once more changes nothing");
    // The rest is made as usual, and the CA left alone.
    assert!(run(&rig, "init", &["--role", "provenance"]).1);

    let (exported, good) = run(&rig, "export", &AUTHORITY);
    let root_first =
        openssl(&rig, &["x509", "-in", "root.pem"]) + &openssl(&rig, &["x509", "-in", "signed.pem"]);
    assert_eq!((exported, good), (root_first, true));

    let server = rig.serve();
    server.open(USUAL).await;
    let answer = server.ask(issue(Csr::default().signed_by(&p256()))).await.unwrap();
    assert_eq!(answer.issuers.len(), 2);
    fs::write(rig.path("device.der"), answer.certificate).unwrap();
    openssl(&rig, &["x509", "-inform", "DER", "-in", "device.der", "-out", "device.pem"]);
    openssl(
        &rig,
        &["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "signed.pem", "device.pem"],
    );
    let (said, good) = run(&rig, "csr", &[&AUTHORITY[..], &["--out", "late.csr"]].concat());
    assert!(!good && said.contains("exists already: nothing was changed"), "{said}");
}

#[test]
fn what_the_root_did_not_mean_is_not_imported() {
    let rig = requested();
    let other = requested();
    sign(&rig, "ca.csr", CA, "11000", "good.pem");
    let check = |file: &str, sentence: &str| {
        let (said, good) = import(&rig, file);
        assert!(!good && said.contains(sentence), "{sentence:?} is not in {said}");
        assert!(!rig.path("ca.pem").exists());
    };
    fs::copy(other.path("ca.csr"), rig.path("other.csr")).unwrap();
    sign(&rig, "other.csr", CA, "11000", "other.pem");
    check(
        "other.pem",
        "it is for another key than \"device-identity-ca\" in the token; send the request that `csr`",
    );
    sign(&rig, "ca.csr", "basicConstraints=CA:FALSE\n", "11000", "leaf.pem");
    check("leaf.pem", "it is no CA");
    sign(&rig, "ca.csr", "basicConstraints=CA:TRUE\nkeyUsage=cRLSign\n", "11000", "usage.pem");
    check("usage.pem", "may not sign certificates");
    sign(&rig, "ca.csr", CA, "3000", "short.pem");
    check("short.pem", "leaves a device less than 10 years");
    check("missing.pem", "it cannot be read");
    fs::write(rig.path("empty.pem"), "").unwrap();
    check("empty.pem", "there is no certificate in it");
    let pem = |file: &str| fs::read_to_string(rig.path(file)).unwrap();
    fs::write(rig.path("order.pem"), pem("root.pem") + &pem("good.pem")).unwrap();
    check("order.pem", "the certificates are in another order");
    // A root of the same name, with another key.
    fs::write(
        rig.path("stranger.pem"),
        pem("good.pem") + &fs::read_to_string(other.path("root.pem")).unwrap(),
    )
    .unwrap();
    check("stranger.pem", "it is not signed by its issuer");
    sign(&rig, "ca.csr", &format!("{CA}extendedKeyUsage=serverAuth\n"), "11000", "server.pem");
    check("server.pem", "its extended key usages leave a device no clientAuth");
    // A root that has ended.
    let old = ["req", "-x509", "-key", "root.key", "-subj", "/O=Brand/CN=Root", "-out", "old.pem"];
    let dates = ["-not_before", "20200101000000Z", "-not_after", "20210101000000Z"];
    if Command::new("openssl")
        .args(old)
        .args(ROOT)
        .args(dates)
        .current_dir(rig.path(""))
        .status()
        .unwrap()
        .success()
    {
        fs::write(rig.path("ended.pem"), pem("good.pem") + &pem("old.pem")).unwrap();
        check("ended.pem", "the certificate of O=Brand, CN=Root is valid from 2020-01-01 to 2021-01-01 only");
    }
    assert!(import(&rig, "good.pem").1);
    let (said, good) = import(&rig, "other.pem");
    assert!(!good && said.contains("for another key"), "{said}");
    fs::write(rig.path("ca.pem"), "damaged").unwrap();
    let (said, good) = import(&rig, "good.pem");
    assert!(
        !good && said.contains("holds something else already: nothing was changed, move it away"),
        "{said}"
    );
}

#[test]
fn one_role_is_made_alone_and_the_transcript_is_for_machines_too() {
    let rig = Rig::new();
    let (said, good) = run(&rig, "init", &["--role", "provenance", "--transcript", "done.json"]);
    assert!(good && !rig.path("ca.pem").exists() && rig.path("provenance.pem").exists(), "{said}");
    let done: Value = serde_json::from_slice(&fs::read(rig.path("done.json")).unwrap()).unwrap();
    assert_eq!((&done["act"], &done["token"]["label"]), (&"init".into(), &"factory".into()));
    assert!(done["token"]["mechanisms"].as_array().unwrap().contains(&"CKM_ECDSA".into()));
    let key = &done["keys"][0];
    assert_eq!((&key["role"], &key["attributes"]["Extractable"]), (&"provenance".into(), &false.into()));
    let fingerprint = openssl(&rig, &["x509", "-in", "provenance.pem", "-noout", "-fingerprint", "-sha256"]);
    let fingerprint = fingerprint.trim().rsplit_once('=').unwrap().1.replace(':', "").to_lowercase();
    assert_eq!(key["certificate"]["sha256"], fingerprint);
    for (role, sentence) in
        [("firmware", "the signer's file has no firmware"), ("ca", "is none of authority:NAME")]
    {
        let (said, good) = run(&rig, "init", &["--role", role]);
        assert!(!good && said.contains(sentence), "{said}");
    }
    let (said, good) = run(&rig, "init", &["--role", "provenance"]);
    assert!(!good && said.contains("exists already: nothing was changed"), "{said}");
    let (said, good) = run(&rig, "init", &["--role", "authority:devices", "--transcript", "done.json"]);
    assert!(!good && said.contains("done.json is there already: nothing was done"), "{said}");
    assert!(!rig.path("ca.pem").exists());
}

#[test]
fn whether_a_token_is_fit_is_said_in_sentences() {
    let check = |rig: &Rig, fit: bool, sentences: &[&str]| {
        let (said, good) = run(rig, "check", &[]);
        for sentence in sentences {
            assert!(said.contains(sentence), "{sentence:?} is not in {said}");
        }
        assert_eq!(good, fit, "{said}");
        let (json, _) = run(rig, "check", &["--json"]);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["fit"], fit);
    };
    // The PIN of all these folders is a short one.
    let rig = Rig::commissioned();
    let good = "ok   authority:devices: its key was made in the token, cannot leave it, and can only sign";
    check(&rig, false, &["BAD  token: the PIN has less than 6 characters", good, "NOT fit for production"]);

    let strong = || {
        let rig = Rig::new();
        rig.write_pin("user-pin", "271828314", 0o600);
        rig
    };
    let rig = strong();
    assert!(rig.init().status.success());
    check(&rig, true, &["ok   token: the PIN is none that everybody knows", good, "\nfit for production"]);
    fs::copy(Rig::commissioned().path("ca.pem"), rig.path("ca.pem")).unwrap();
    check(&rig, false, &["BAD  authority:devices: certificate", "is for another key: correct `key-label`"]);

    let rig = strong();
    assert!(rig.command("init").args(["--ca-years", "10"]).output().unwrap().status.success());
    // A CA of ten years leaves a device less as soon as it is made.
    check(&rig, false, &["which leaves a device less than 10 years: make a new CA"]);

    let rig = strong();
    check_missing(&rig);
    let tool = |arguments: &[&str]| {
        let mut tool = Command::new("pkcs11-tool");
        tool.args([
            "--module",
            crate::rig::SOFTHSM,
            "--token-label",
            "factory",
            "--login",
            "--pin",
            "271828314",
        ]);
        let done = tool.args(arguments).env("SOFTHSM2_CONF", rig.path("softhsm2.conf")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    // A key that could be taken out, and two of one name.
    tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "device-identity-ca", "--extractable"]);
    check(&rig, false, &["BAD  authority:devices: its key can be taken out of the token (CKA Extractable)"]);
    tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "device-identity-ca"]);
    check(&rig, false, &["holds 2 private keys \"device-identity-ca\": remove or rename all but"]);
}

/// A token without the CA's key: only that is missing.
fn check_missing(rig: &Rig) {
    assert!(run(rig, "init", &["--role", "provenance"]).1);
    let (said, good) = run(rig, "check", &[]);
    assert!(
        !good && said.contains("BAD  authority:devices: token \"factory\" holds no private key"),
        "{said}"
    );
}

#[test]
fn a_key_that_signs_data_is_imported_with_what_stands_above_it() {
    let rig = requested();
    let role = ["--role", "provenance"];
    let (said, good) = run(&rig, "csr", &[&role[..], &["--out", "provenance.csr"]].concat());
    assert!(good, "{said}");
    let import = |file: &str| run(&rig, "import", &[&role[..], &[file]].concat());
    let pem = |file: &str| fs::read_to_string(rig.path(file)).unwrap();
    sign(&rig, "provenance.csr", "keyUsage=critical,digitalSignature\n", "4000", "signed.pem");
    fs::write(rig.path("stranger.pem"), pem("signed.pem") + &pem_of(&requested(), "root.pem")).unwrap();
    let (said, good) = import("stranger.pem");
    assert!(!good && said.contains("it is not signed by its issuer"), "{said}");
    fs::write(rig.path("chain.pem"), pem("signed.pem") + &pem("root.pem")).unwrap();
    assert!(import("chain.pem").1);
}

fn pem_of(rig: &Rig, file: &str) -> String {
    fs::read_to_string(rig.path(file)).unwrap()
}

#[test]
fn two_halves_that_are_no_pair_are_found_out() {
    let rig = Rig::commissioned();
    let tool = |arguments: &[&str]| {
        let mut tool = Command::new("pkcs11-tool");
        tool.args([
            "--module",
            crate::rig::SOFTHSM,
            "--token-label",
            "factory",
            "--login",
            "--pin",
            crate::rig::PIN,
        ]);
        let done = tool.args(arguments).env("SOFTHSM2_CONF", rig.path("softhsm2.conf")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    // Of another pair, the private half takes the CA's place.
    tool(&["--delete-object", "--type", "privkey", "--label", "device-identity-ca"]);
    let (said, _) = run(&rig, "check", &[]);
    assert!(said.contains("holds no private key \"device-identity-ca\""), "{said}");
    tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", "device-identity-ca", "--id", "01"]);
    tool(&["--delete-object", "--type", "pubkey", "--id", "01"]);
    let sentence =
        "the private key \"device-identity-ca\" in token \"factory\" does not belong to the public key";
    let (said, good) = run(&rig, "check", &[]);
    assert!(!good && said.contains(sentence), "{said}");
    fs::remove_file(rig.path("ca.pem")).unwrap();
    let (said, good) = run(&rig, "csr", &[&AUTHORITY[..], &["--out", "ca.csr"]].concat());
    assert!(!good && said.contains(sentence) && !rig.path("ca.csr").exists(), "{said}");
}

#[test]
fn a_wrong_pin_is_tried_once_however_many_roles_there_are() {
    let faulty = Faulty::commissioned();
    faulty.rig.write_pin("user-pin", "161803398", 0o600);
    let mut check = faulty.command_of("check");
    let done = check.output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(!done.status.success() && said.contains("refused the PIN, which is not tried again"), "{said}");
    assert_eq!(faulty.calls("C_Login"), 1);
}
