//! A folder with a recipe and with all that recipes name.

use std::{fs, path::PathBuf, process::Command};

use factory_station::{
    recipe::{Recipe, RecipeError, Recipes},
    signatures::{Demand, Signatures},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P384_SHA384, PublicKeyData as _, date_time_ymd,
};
use tempfile::TempDir;

pub const RECIPE: &str = r#"[flash]
chip = "nRF51822_xxAA"
image = "hilfw.elf"
[boot]
firmware-version = "1.0.0"
[self-test.limits]
rail = { min = "3135mV", max = "3465mV" }
[identity]
endpoint-name = "sensor-{serial}"
[provision]
server-uri = "coaps://bootstrap.example.com:5684"
server-ca = "bootstrap-ca.pem"
manufacturer = "Demo Devices"
model-number = "S-1"
device-type = "sensor"
hardware-version = "rev-a"
memory-total-kb = 256
vendor-id = "6f1d5a2e-9b0c-4c0e-8a53-0b7f5f0f7a01"
class-id = "0c9a4f0e-55a1-4e0f-9a8c-5d1f1c2b3a02"
[tag]
uri = "https://ex.com/c"
record-type = "ex.com:id"
"#;

/// A folder with a recipe.
pub struct Folder(pub TempDir);

impl Folder {
    pub fn new(recipe: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("hilfw.elf", "an image");
        folder.write("recipe.toml", recipe);
        folder.make_certificates();
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn load(&self) -> Result<Recipes, RecipeError> {
        Recipes::load(self.0.path(), &Signatures::demanded(&Demand::Nothing).unwrap())
    }

    /// The recipe, which is a good one.
    pub fn recipe(&self) -> Recipe {
        let none = Signatures::demanded(&Demand::Nothing).unwrap();
        Recipe::read(&self.path("recipe.toml"), &none).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `stationctl` says in this folder, and whether it ended well.
    pub fn stationctl(&self, arguments: &[&str]) -> (String, bool) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stationctl"));
        let done = command.args(arguments).current_dir(self.0.path()).output().unwrap();
        (
            String::from_utf8(done.stdout).unwrap() + &String::from_utf8_lossy(&done.stderr),
            done.status.success(),
        )
    }

    /// Without this folder's name.
    pub fn relative(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }

    fn make_certificates(&self) {
        let (ca, ca_pem) = authority("Server CA", |_| ());
        self.write("bootstrap-ca.pem", &ca_pem);
        self.write("no-ca.pem", certified(&key(), |it| it.is_ca = IsCa::ExplicitNoCa));
        self.write("old-ca.pem", authority("Old CA", |it| it.not_after = date_time_ymd(2020, 1, 1)).1);
        self.write("two.pem", format!("{ca_pem}{ca_pem}"));
        let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        self.write("p384.pem", certified(&p384, |it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)));
        self.write("trailing.der", [ca_der(&ca_pem), vec![0]].concat());

        self.write("update.pem", certified(&key(), update));
        self.write(
            "update-9y.pem",
            certified(&key(), |it| {
                update(it);
                it.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(9 * 365);
            }),
        );
        self.write(
            "update-server.pem",
            certified(&key(), |it| {
                update(it);
                it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
        );
        self.write(
            "update-later.pem",
            certified(&key(), |it| {
                update(it);
                it.not_before = time::OffsetDateTime::now_utc() + time::Duration::DAY;
            }),
        );
        let mut signed = CertificateParams::default();
        update(&mut signed);
        self.write("update-signed.pem", signed.signed_by(&key(), &ca).unwrap().pem());

        let anchor = key();
        self.write("anchor.der", anchor.subject_public_key_info());
        self.write("p384-public.der", p384.subject_public_key_info());
        self.write("attest.key", anchor.serialize_pem());
        let leaf = CertificateParams::default().signed_by(&anchor, &ca).unwrap().pem();
        self.write("attest.pem", format!("{leaf}{ca_pem}"));
        self.write("attest-reversed.pem", format!("{ca_pem}{leaf}"));
        self.write("stranger.pem", CertificateParams::default().signed_by(&key(), &ca).unwrap().pem());
        self.write("two-cas.pem", format!("{ca_pem}{}", authority("Other CA", |_| ()).1));
        self.write("six.pem", ca_pem.repeat(6));
        self.write("calibration.bin", [7; 40]);
    }
}

fn update(params: &mut CertificateParams) {
    params.distinguished_name.push(DnType::CommonName, "Update");
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2061, 1, 1);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::CodeSigning];
}

pub fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn ca_der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// A self-signed certificate, PEM.
fn certified(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.self_signed(key).unwrap().pem()
}

/// A CA, and its certificate, PEM.
pub fn authority(
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    change(&mut params);
    let key = key();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}
