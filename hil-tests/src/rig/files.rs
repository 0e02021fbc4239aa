//! The files of a virtual line: what a test engineer would write for a real one.

use std::{fmt::Write as _, fs};

use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PublicKeyData};

use super::{Rig, SOFTHSM};
use crate::target::FIRMWARE_ELF;

/// The recipe that the line makes.
pub const RECIPE: &str = "sensor";

impl Rig {
    pub(super) fn write_files(&self, controller: &str) -> anyhow::Result<()> {
        let folder = self.folder.display();
        fs::create_dir_all(self.folder.join("tokens"))?;
        fs::write(
            self.folder.join("softhsm2.conf"),
            format!(
                "directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
            ),
        )?;
        self.write_secret("pin", "271828")?;
        self.write_secret("so-pin", "314159265")?;
        self.make_order_key()?;
        fs::write(
            self.folder.join("signer.toml"),
            format!(
                r#"socket = "{folder}/signer.sock"
module = "{SOFTHSM}"
token-label = "demo line"
pin-credential = "{folder}/pin"
so-pin-credential = "{folder}/so-pin"
ledger = "{folder}/ledger"
order-keys = ["{folder}/orders.pem"]
certificate-lifetime = "20y"

[subject]
organization = "Demo Devices"
country = "GB"

[[authority]]
name = "devices"
key-label = "device-identity"
certificate = "{folder}/device-ca.pem"

[provenance]
key-label = "provenance"
certificate = "{folder}/provenance.pem"

[firmware]
key-label = "firmware"
certificate = "{folder}/firmware.pem"
"#
            ),
        )?;
        fs::write(self.folder.join("station.toml"), self.station_file(controller)?)?;
        let recipes = self.folder.join("recipes");
        fs::create_dir_all(&recipes)?;
        fs::write(recipes.join("bootstrap-ca.pem"), server_ca()?)?;
        fs::copy(FIRMWARE_ELF, recipes.join("hilfw.elf"))?;
        fs::write(recipes.join(format!("{RECIPE}.toml")), include_str!("../../scenarios/sensor.toml"))?;
        Ok(())
    }

    /// The brand owner's key, and its public half for the signer.
    fn make_order_key(&self) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        self.write_secret("orders.key", &key.serialize_pem())?;
        let public = BASE64.encode(&key.subject_public_key_info());
        let public = format!("-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n");
        Ok(fs::write(self.folder.join("orders.pem"), public)?)
    }

    fn station_file(&self, controller: &str) -> anyhow::Result<String> {
        let listen = self.station.trim_start_matches("http://");
        let mut file = format!(
            r#"name = "demo-line"
state = "journal"
recipes = "recipes"
signer = "signer.sock"
listen = "{listen}"
listen-roles = ["mes", "engineer"]
socket = "station.sock"
controller = "{controller}"
drain = "20s"
signatures = {{ certificate = "firmware.pem" }}
"#
        );
        for name in &self.nests {
            let nest = self.nest(name);
            let nest = nest.display();
            write!(
                file,
                r#"
[[nest]]
name = "{name}"
probe = "20b7:9db1:unix:{nest}/probe.sock"
console = "{nest}/console"
tag-reader = "pn532_uart:{nest}/tag/reader"
"#
            )?;
        }
        Ok(file)
    }
}

/// What the platform's bootstrap server would be known by.
fn server_ca() -> anyhow::Result<String> {
    let key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "Demo Bootstrap Root");
    ca.not_before = rcgen::date_time_ymd(2026, 1, 1);
    ca.not_after = rcgen::date_time_ymd(2061, 1, 1);
    Ok(ca.self_signed(&key)?.pem())
}
