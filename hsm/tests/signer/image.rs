//! `factory-signerd sign-image`.

use std::{fs, process::Command};

use crate::rig::Rig;

fn rig() -> Rig {
    let rig = Rig::new();
    let firmware = format!(
        "[firmware]\nkey-label = \"firmware\"\ncertificate = \"{}\"\n",
        rig.path("firmware.pem").display()
    );
    rig.configure("[provenance]", &format!("{firmware}\n[provenance]"));
    assert!(rig.init().status.success());
    fs::write(rig.path("image.bin"), vec![0xa5; 3_000_000]).unwrap();
    rig
}

fn sign(rig: &Rig, arguments: &[&str]) -> (String, bool) {
    let done = rig.command("sign-image").args(arguments).current_dir(rig.path("")).output().unwrap();
    (String::from_utf8(done.stdout).unwrap() + &String::from_utf8_lossy(&done.stderr), done.status.success())
}

fn openssl_agrees(rig: &Rig, file: &str) -> bool {
    let openssl = |arguments: &[&str]| {
        Command::new("openssl").args(arguments).current_dir(rig.path("")).output().unwrap().status.success()
    };
    assert!(openssl(&["x509", "-in", "firmware.pem", "-noout", "-pubkey", "-out", "public.pem"]));
    openssl(&["dgst", "-sha256", "-verify", "public.pem", "-signature", &format!("{file}.sig"), file])
}

#[test]
fn a_signature_is_one_that_openssl_verifies_and_is_made_once() {
    let rig = rig();
    fs::write(rig.path("empty"), "").unwrap();
    let (said, good) = sign(&rig, &["image.bin", "empty"]);
    assert!(good && said.contains("image.bin.sig: signed") && said.contains("empty.sig: signed"), "{said}");
    assert!(openssl_agrees(&rig, "image.bin") && openssl_agrees(&rig, "empty"));
    let before = fs::read(rig.path("image.bin.sig")).unwrap();
    let (said, good) = sign(&rig, &["image.bin"]);
    assert!(good && said.contains("is good already"), "{said}");
    assert_eq!(fs::read(rig.path("image.bin.sig")).unwrap(), before);

    fs::write(rig.path("image.bin"), "another image").unwrap();
    assert!(!openssl_agrees(&rig, "image.bin"));
    let (said, good) = sign(&rig, &["image.bin"]);
    assert!(!good && said.contains("nothing was changed, say --force to replace it"), "{said}");
    assert_eq!(fs::read(rig.path("image.bin.sig")).unwrap(), before);
    assert!(sign(&rig, &["--force", "image.bin"]).1 && openssl_agrees(&rig, "image.bin"));
}

#[test]
fn what_is_missing_is_said() {
    let rig = rig();
    let (said, good) = sign(&rig, &["no-such-file"]);
    assert!(!good && said.contains("no-such-file cannot be read"), "{said}");
    let (said, good) = sign(&Rig::commissioned(), &["image.bin"]);
    assert!(
        !good && said.contains("has no [firmware] key: add it, and run `factory-signerd init`"),
        "{said}"
    );
}
