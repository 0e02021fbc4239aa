use std::fs;

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PublicKeyData};

use super::*;

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

/// The public keys that are read from this text.
fn read(text: &str) -> Result<PublicKeys, JwsKeyError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    fs::write(&path, text).unwrap();
    PublicKeys::read(&[path])
}

fn signing(pair: &KeyPair) -> SigningKey {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    fs::write(&path, pair.serialize_pem()).unwrap();
    SigningKey::read(&path).unwrap()
}

fn verified(text: &str, keys: &PublicKeys) -> Option<Vec<u8>> {
    let parts = split("test+jws", text).ok()?;
    keys.verify(parts.message, &parts.signature).then_some(parts.payload)
}

#[test]
fn a_key_is_read_from_its_file() {
    let pair = KeyPair::generate().unwrap();
    let text = sign("test+jws", b"{}", &signing(&pair));
    let own = read(&pem("PUBLIC KEY", &pair.subject_public_key_info())).unwrap();
    assert_eq!(verified(&text, &own).as_deref(), Some(b"{}".as_slice()));
    let other = KeyPair::generate().unwrap();
    let other = read(&pem("PUBLIC KEY", &other.subject_public_key_info())).unwrap();
    assert_eq!(verified(&text, &other), None);
}

#[test]
fn a_key_of_another_kind_is_refused() {
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let own = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&own).unwrap().pem();
    for file in [
        pem("PUBLIC KEY", &other.subject_public_key_info()),
        certificate,
        own.serialize_pem(),
        pem("CERTIFICATE", b"none"),
        String::new(),
    ] {
        assert!(matches!(read(&file), Err(JwsKeyError::NotPublic(_))), "{file}");
    }
}

#[test]
fn what_was_signed_as_one_type_is_not_read_as_another() {
    let text = sign("test+jws", b"{}", &signing(&KeyPair::generate().unwrap()));
    assert!(split("test+jws", &text).is_ok());
    assert_eq!(split("other+jws", &text).err(), Some(JwsError::Header("other+jws")));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,300}") {
        let _ = split("test+jws", &text);
    }
}
