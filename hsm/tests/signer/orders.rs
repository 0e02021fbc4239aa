//! The brand owner: an order key, and orders signed with it.

use std::{fs, path::Path};

use data_encoding::BASE64;
use factory_hsm::order::{OrderKey, WorkOrder};
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};

/// The order that most requests belong to.
pub const USUAL: &str = "WO-1";
/// SHA-256 of the recipe of all orders here.
pub const RECIPE: [u8; 32] = [0xd1; 32];

/// Writes an order key, `orders.key`, and its public half, `orders.pem`.
pub fn make_keys(folder: &Path) {
    let pair = KeyPair::generate().unwrap();
    let public = BASE64.encode(&pair.subject_public_key_info());
    fs::write(folder.join("orders.key"), pair.serialize_pem()).unwrap();
    fs::write(
        folder.join("orders.pem"),
        format!("-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n"),
    )
    .unwrap();
}

/// An order of the signer in `folder` that allows much.
pub fn generous(folder: &Path, id: &str) -> WorkOrder {
    WorkOrder {
        order: id.parse().unwrap(),
        product: "sensor".to_owned(),
        recipe: RECIPE,
        authority: fingerprint(&folder.join("ca.pem")),
        profile: "bootstrap".parse().unwrap(),
        quantity: 10_000,
        spare: 0,
        replacements: 10_000,
        not_before: 0,
        not_after: 32_503_680_000,
    }
}

/// SHA-256 of the certificate in a file.
pub fn fingerprint(certificate: &Path) -> [u8; 32] {
    Sha256::digest(CertificateDer::from_pem_file(certificate).unwrap()).into()
}

/// Signs an order with the key in `folder`.
pub fn sign(folder: &Path, order: &WorkOrder) -> String {
    order.sign(&OrderKey::read(&folder.join("orders.key")).unwrap())
}
