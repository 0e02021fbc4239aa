//! Certificates of each profile, judged by those who did not make them: OpenSSL, GnuTLS, and pkilint.

use std::{fs, path::Path, process::Command};

use factory_proto::signer::IssueRequest;
use tonic::{Code, Status};

use crate::{
    orders,
    request::{CN, Csr, issue, p256},
    rig::{Rig, Server},
};

const PROFILES: &str = r#"
[[profile]]
name = "bootstrap"
kind = "bootstrap"

[[profile]]
name = "lwm2m"
kind = "lwm2m"
organizational-unit = "0123456789abcdef0123456789abcdef"
lifetime = "15y"

[[profile]]
name = "idevid"
kind = "idevid"
hardware-type = "1.3.6.1.4.1.99999.7"

[[profile]]
name = "gateway"
kind = "custom"
organization = "Example Gateways"
lifetime = "400d"
key-usages = ["digital-signature", "key-agreement"]
extended-key-usages = ["server-auth", "client-auth"]
"#;

/// A folder whose signer issues by all profiles.
fn rig() -> Rig {
    let rig = Rig::commissioned();
    rig.configure("[subject]", &format!("{PROFILES}\n[subject]"));
    rig
}

async fn open(rig: &Rig, server: &Server, profile: &str) {
    let folder = rig.path("");
    let mut order = orders::generous(&folder, &format!("WO-{profile}"));
    order.profile = profile.parse().unwrap();
    server.open_signed(&orders::sign(&folder, &order)).await.unwrap();
}

/// Has a certificate issued, and leaves it as `PROFILE.pem`.
async fn certify(rig: &Rig, server: &Server, profile: &str, endpoint: &str) -> Result<IssueRequest, Status> {
    let csr = Csr { subject: &[(CN, endpoint)], ..Csr::default() }.signed_by(&p256());
    let work_order = format!("WO-{profile}");
    let request = IssueRequest { work_order, endpoint_name: endpoint.to_owned(), ..issue(csr) };
    let answer = server.ask(request.clone()).await?;
    let der = rig.path(&format!("{endpoint}.der"));
    fs::write(&der, answer.certificate).unwrap();
    run(
        rig,
        "openssl",
        &["x509", "-inform", "DER", "-in", der.to_str().unwrap(), "-out", &format!("{profile}.pem")],
    );
    Ok(request)
}

/// Runs a program that must end well; gives what it said.
fn run(rig: &Rig, program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).current_dir(rig.path("")).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[tokio::test]
async fn each_profile_says_what_it_should_and_is_found_good_by_others() {
    let rig = rig();
    let server = rig.serve();
    let check = async |profile: &str, usage: &str, sentences: &[&str], absent: &[&str]| {
        open(&rig, &server, profile).await;
        certify(&rig, &server, profile, &format!("SN-{profile}")).await.unwrap();
        let file = format!("{profile}.pem");
        let text = run(&rig, "openssl", &["x509", "-in", &file, "-noout", "-text"]);
        for sentence in sentences {
            assert!(text.contains(sentence), "{sentence:?} is not in {text}");
        }
        for sentence in absent {
            assert!(!text.contains(sentence), "{sentence:?} is in {text}");
        }
        for common in ["CA:FALSE", "X509v3 Subject Key Identifier", "X509v3 Authority Key Identifier"] {
            assert!(text.contains(common), "{common:?} is not in {text}");
        }
        run(&rig, "openssl", &["verify", "-x509_strict", "-purpose", usage, "-CAfile", "ca.pem", &file]);
        let verified =
            run(&rig, "certtool", &["--verify", "--load-ca-certificate", "ca.pem", "--infile", &file]);
        assert!(verified.contains("Verified. The certificate is trusted."), "{verified}");
        lint(&rig, &file);
    };
    let client = "TLS Web Client Authentication\n";
    let subject = "Subject: C = DE, O = Example Devices, CN = SN-bootstrap\n";
    check("bootstrap", "sslclient", &[subject, client, "Digital Signature\n"], &["Alternative"]).await;
    let subject =
        "Subject: C = DE, O = Example Devices, OU = 0123456789abcdef0123456789abcdef, CN = SN-lwm2m\n";
    check("lwm2m", "sslclient", &[subject, client], &["Alternative"]).await;
    let subject = "Subject: C = DE, O = Example Devices, CN = SN-idevid, serialNumber = SN-idevid\n";
    let name = "othername: 1.3.6.1.5.5.7.8.4";
    let end = "Not After : Dec 31 23:59:59 9999 GMT";
    check("idevid", "any", &[subject, name, end], &["Extended Key Usage"]).await;
    let module = run(&rig, "openssl", &["asn1parse", "-in", "idevid.pem"]);
    assert!(module.contains("X509v3 Subject Alternative Name"), "{module}");
    let usages = "TLS Web Server Authentication, TLS Web Client Authentication\n";
    let subject = "Subject: C = DE, O = Example Gateways, CN = SN-gateway\n";
    check("gateway", "sslserver", &[subject, usages, "Digital Signature, Key Agreement\n"], &[]).await;
}

/// Whether pkilint finds no error; where it is not installed, that is said.
fn lint(rig: &Rig, file: &str) {
    let linter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/pkilint/bin/lint_pkix_cert");
    if !linter.exists() {
        println!("not judged by pkilint, which ./hil-tests/prepare installs: {file}");
        return;
    }
    let found = run(rig, linter.to_str().unwrap(), &["lint", "-s", "ERROR", file]);
    assert_eq!(found.trim(), "", "{file}");
}

#[tokio::test]
async fn what_a_profile_has_no_place_for_is_refused() {
    let rig = rig();
    let server = rig.serve();
    open(&rig, &server, "idevid").await;
    let refused = certify(&rig, &server, "idevid", "SN_1").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("endpoint_name holds a character that the serialNumber"), "{refused}");
    let mut order = orders::generous(&rig.path(""), "WO-9");
    order.profile = "other".parse().unwrap();
    let refused = server.open_signed(&orders::sign(&rig.path(""), &order)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let text = "the order names profile other, by which CA devices does not issue; it does by bootstrap, lwm2m, idevid";
    assert!(refused.message().starts_with(text), "{refused}");
}

#[test]
fn a_profile_that_the_ca_cannot_honour_is_refused_at_the_start() {
    let check = |years: &str, profile: &str, sentence: &str| {
        let rig = Rig::new();
        assert!(rig.command("init").args(["--ca-years", years]).output().unwrap().status.success());
        rig.configure("[subject]", &format!("{profile}\n[subject]"));
        let (text, _) = rig.serve_in_vain();
        assert!(text.contains(sentence), "{sentence:?} is not in {text}");
    };
    let custom = "[[profile]]\nname = \"long\"\nkind = \"custom\"\nlifetime = \"30y\"\n";
    check("20", custom, "CA devices cannot honour profile long: the CA certificate is valid until");
    check("20", custom, "sooner than the lifetime of profile long ends: give the profile a shorter one");
}

#[tokio::test]
async fn each_order_is_served_by_the_ca_that_it_names() {
    let rig = Rig::commissioned();
    let folder = rig.path("");
    let second = format!(
        "[[authority]]\nname = \"gateways\"\nkey-label = \"gateway-ca\"\ncertificate = \"{}\"\nprofiles = [\"gateway\"]\n",
        rig.path("gateways.pem").display()
    );
    rig.configure("[provenance]", &format!("{second}\n[provenance]"));
    rig.configure("[subject]", &format!("{PROFILES}\n[subject]"));
    let made = rig.command("init").args(["--ca-common-name", "Gateway CA"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = rig.serve();
    open(&rig, &server, "bootstrap").await;
    let mut order = orders::generous(&folder, "WO-gateway");
    order.profile = "gateway".parse().unwrap();
    order.authority = orders::fingerprint(&folder.join("gateways.pem"));
    server.open_signed(&orders::sign(&folder, &order)).await.unwrap();
    certify(&rig, &server, "bootstrap", "one").await.unwrap();
    certify(&rig, &server, "gateway", "two").await.unwrap();
    run(&rig, "openssl", &["verify", "-x509_strict", "-CAfile", "ca.pem", "bootstrap.pem"]);
    run(&rig, "openssl", &["verify", "-x509_strict", "-CAfile", "gateways.pem", "gateway.pem"]);
    order.order = "WO-other".parse().unwrap();
    order.profile = "bootstrap".parse().unwrap();
    let refused = server.open_signed(&orders::sign(&folder, &order)).await.unwrap_err();
    assert!(refused.message().contains("by which CA gateways does not issue"), "{refused}");
}
