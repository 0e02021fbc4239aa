//! What is void is on the CA's revocation list, as OpenSSL reads it.

use std::{fs, process::Command};

use factory_proto::signer::{DisposeRequest, Disposition, IssueRequest, signer_client::SignerClient};

use crate::{
    orders::USUAL,
    request::unit,
    rig::{Rig, Server},
};

/// Has a certificate issued, and leaves it as `NAME.pem`.
async fn certify(rig: &Rig, server: &Server, name: &str, request: &IssueRequest) {
    let der = server.ask(request.clone()).await.unwrap().certificate;
    fs::write(rig.path("new.der"), der).unwrap();
    openssl(rig, &["x509", "-inform", "DER", "-in", "new.der", "-out", &format!("{name}.pem")]).unwrap();
}

/// What it printed, or what it complained of.
fn openssl(rig: &Rig, arguments: &[&str]) -> Result<String, String> {
    let done = Command::new("openssl").args(arguments).current_dir(rig.path("")).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stdout) + &text(&done.stderr)) }
}

/// Waits for a list that is signed by the CA and has so many entries; leaves it as `list.pem`, and gives what it says.
async fn list(rig: &Rig, entries: usize) -> String {
    loop {
        let read = ["crl", "-inform", "DER", "-in", "lists/devices.crl", "-CAfile", "ca.pem", "-verify"];
        let write = ["-noout", "-text", "-out", "list.txt"];
        if openssl(rig, &[&read[..], &write[..]].concat()).is_ok() {
            let text = fs::read_to_string(rig.path("list.txt")).unwrap();
            if text.matches("Serial Number:").count() == entries {
                openssl(rig, &["crl", "-inform", "DER", "-in", "lists/devices.crl", "-out", "list.pem"])
                    .unwrap();
                return text;
            }
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_was_replaced_or_scrapped_is_revoked_and_nothing_else() {
    let rig = Rig::commissioned();
    fs::create_dir(rig.path("lists")).unwrap();
    let directory = rig.path("lists");
    rig.configure("[subject]", &format!("crl-directory = \"{}\"\n\n[subject]", directory.display()));
    let server = rig.serve();
    let first = list(&rig, 0).await;
    assert!(first.contains("No Revoked Certificates"), "{first}");
    server.open(USUAL).await;
    let (good, dead, scrapped) = (unit("good"), unit("dead"), unit("scrapped"));
    certify(&rig, &server, "good", &good).await;
    certify(&rig, &server, "dead", &dead).await;
    certify(&rig, &server, "scrapped", &scrapped).await;
    let anew = IssueRequest { supersedes: dead.issuance_id, ..unit("dead") };
    certify(&rig, &server, "anew", &anew).await;
    let dispose =
        DisposeRequest { issuance_id: scrapped.issuance_id, disposition: Disposition::Scrapped.into() };
    SignerClient::new(server.connect().await).dispose(dispose).await.unwrap();

    let text = list(&rig, 2).await;
    for sentence in
        ["Superseded", "Cessation Of Operation", "X509v3 Authority Key Identifier", "X509v3 CRL Number"]
    {
        assert!(text.contains(sentence), "{sentence:?} is not in {text}");
    }
    for (name, revoked) in [("good", false), ("anew", false), ("dead", true), ("scrapped", true)] {
        let file = format!("{name}.pem");
        let judged =
            openssl(&rig, &["verify", "-crl_check", "-CRLfile", "list.pem", "-CAfile", "ca.pem", &file]);
        match judged {
            Ok(_) => assert!(!revoked, "{name}"),
            Err(why) => assert!(revoked && why.contains("certificate revoked"), "{name}: {why}"),
        }
    }
    // After a kill the ledger says the same.
    server.kill();
    fs::remove_file(rig.path("lists/devices.crl")).unwrap();
    let _server = rig.serve();
    list(&rig, 2).await;
}

#[test]
fn lists_have_a_folder_and_a_sane_lifetime() {
    let rig = Rig::commissioned();
    rig.configure("[subject]", "crl-lifetime = \"1m\"\n\n[subject]");
    let (text, code) = rig.serve_in_vain();
    assert!(text.contains("key `crl-lifetime`: must be 1h to") && code == Some(78), "{text}");
}
