//! A desk with a device on it: a folder with a recipe and all that it names, the real `stationctl fcc inject`, and a
//! device program that is started for it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Output};

use data_encoding::HEXLOWER;
use factory_hil_tests::{
    device::store::{Holdings, Kind},
    pty::Pty,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PublicKeyData as _, date_time_ymd,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};
use toml::{Table, Value};

use super::sim::{self, TcpSim};

/// What a recipe must hold, and nothing beyond that.
const RECIPE: &str = r#"
[flash]
chip = "nRF51822_xxAA"
image = "firmware.elf"
[boot]
firmware-version = "1.0.0"
[self-test.limits]
rail = { min = "3135mV", max = "3465mV" }
[identity]
endpoint-name = "{product}-{serial}"
[provision]
server-uri = "coaps://bootstrap.example.com:5684"
server-ca = "server-ca.pem"
manufacturer = "Demo Devices"
model-number = "S-1"
device-type = "sensor"
hardware-version = "rev-a"
memory-total-kb = 256
[tag]
uri = "https://ex.com/c"
record-type = "ex.com:id"
"#;

/// The device's serial number.
pub const SERIAL: &str = "SN0001";
/// What it is called.
pub const ENDPOINT: &str = "sensor-SN0001";

/// A desk with all that a recipe may name.
pub struct Desk {
    folder: TempDir,
}

/// What came of a device.
pub struct Injected {
    /// What the program printed, errors included.
    pub said: String,
    /// Whether it ended well.
    pub succeeded: bool,
    /// What the device holds.
    pub held: Holdings,
}

impl Desk {
    pub fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        desk.write("firmware.elf", "an image");
        let (ca, pem) = authority("Server CA");
        desk.write("server-ca.pem", &pem);
        let update = certificate("Update", |it| {
            it.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::CodeSigning];
        });
        desk.write("update.pem", update.self_signed(&key()).unwrap().pem());
        let attest = key();
        desk.write("attest.key", attest.serialize_pem());
        desk.write("attest.pub", attest.subject_public_key_info());
        let leaf = certificate("Attest", |_| ()).signed_by(&attest, &ca).unwrap().pem();
        desk.write("attest.pem", format!("{leaf}{pem}"));
        desk.write("calibration.bin", [7; 40]);
        desk.supply();
        desk
    }

    /// All that may lie ready for the one device.
    fn supply(&self) {
        let (issuer, pem) = authority("Supplied CA");
        self.write("supplied-ca.pem", &pem);
        let key = key();
        let device = certificate(ENDPOINT, |it| {
            it.is_ca = IsCa::ExplicitNoCa;
            it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        let device = device.signed_by(&key, &issuer).unwrap().pem();
        fs::create_dir_all(self.path("units").join(SERIAL)).unwrap();
        self.write(&format!("units/{SERIAL}/device-certificate.pem"), format!("{device}{pem}"));
        self.secret("device-key.pem", key.serialize_pem());
        self.secret("entropy.bin", [1; 48]);
        self.secret("rot.bin", [2; 16]);
    }

    fn secret(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let name = format!("units/{SERIAL}/{name}");
        self.write(&name, bytes);
        fs::set_permissions(self.path(&name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The certificates of a file, DER.
    pub fn certificates(&self, name: &str) -> Vec<Vec<u8>> {
        use rustls_pki_types::{CertificateDer, pem::PemObject};
        let read = CertificateDer::pem_file_iter(self.path(name)).unwrap();
        read.map(|certificate| certificate.unwrap().to_vec()).collect()
    }

    /// The private key of a file, PKCS#8.
    pub fn private_key(&self, name: &str) -> Vec<u8> {
        KeyPair::from_pem(&fs::read_to_string(self.path(name)).unwrap()).unwrap().serialize_der()
    }

    /// Provisions a new device over TCP. `changes` are lines of a recipe that stand for those of the smallest one, as
    /// in `provision.manufacturer = "Acme"`.
    pub async fn inject(&self, changes: &str, arguments: &[&str]) -> Injected {
        let (_directory, storage) = sim::place();
        let sim = TcpSim::boot(&storage, &[]).await;
        let line = ["--tcp", &sim.address];
        let output = self.run(changes, &[&line, arguments].concat()).await;
        Injected::of(output, sim::held(&storage))
    }

    /// The same on a serial line, with a device that misbehaves as a scenario says.
    pub async fn inject_serial(&self, scenario: &str, arguments: &[&str]) -> Injected {
        let (_directory, storage) = sim::place();
        let port = self.path("tty");
        let pty = Pty::open(&port).unwrap();
        self.write("scenario.toml", scenario);
        let scenario = self.path("scenario.toml");
        let mut device = sim::command(&storage, &["--scenario", scenario.to_str().unwrap()]);
        device.stdin(pty.master.try_clone().unwrap()).stdout(pty.master.try_clone().unwrap());
        let _device = device.spawn().unwrap();
        let output = self.run("", &[&["--tty", port.to_str().unwrap()], arguments].concat()).await;
        Injected::of(output, sim::held(&storage))
    }

    /// Runs `stationctl fcc inject` with the changed recipe.
    pub async fn run(&self, changes: &str, arguments: &[&str]) -> Output {
        let mut recipe: Table = RECIPE.parse().unwrap();
        merge(&mut recipe, changes.parse().unwrap());
        self.write("sensor.toml", toml::to_string(&recipe).unwrap());
        let programs = PathBuf::from(env!("CARGO_BIN_EXE_sim-device"));
        let mut command = Command::new(programs.with_file_name("stationctl"));
        command.args(["fcc", "inject", "--recipe"]).arg(self.path("sensor.toml"));
        command.args(["--serial", SERIAL, "--order", "WO-1"]).args(arguments);
        command.current_dir(self.folder.path()).kill_on_drop(true);
        timeout(sim::GUARD, command.output()).await.expect("the program ends").unwrap()
    }
}

impl Injected {
    fn of(output: Output, held: Holdings) -> Self {
        let said = [output.stdout, output.stderr].concat();
        Self { said: String::from_utf8(said).unwrap(), succeeded: output.status.success(), held }
    }

    /// The device holds exactly what the program says that it sent, and its factory code is closed.
    pub fn check_complete(&self) {
        assert!(self.succeeded, "{}", self.said);
        assert!(self.held.factory_disabled, "{}", self.said);
        let sent = self.said.lines().filter_map(|line| line.strip_prefix("  "));
        let mut sent: Vec<(Kind, &str)> = sent.filter_map(|line| self.check_sent(line)).collect();
        sent.dedup();
        // What the device made by itself, it was not sent.
        let held: Vec<(Kind, &str)> =
            self.held.names().filter(|held| held.0 != Kind::PrivateKey || sent.contains(held)).collect();
        sent.sort_by_key(|(kind, name)| (*kind as u8, *name));
        let mut held = held;
        held.sort_by_key(|(kind, name)| (*kind as u8, *name));
        assert_eq!(sent, held);
    }

    /// The stored item that a printed line tells of, once its digest is right; `None` for what is not stored as one.
    fn check_sent<'a>(&self, line: &'a str) -> Option<(Kind, &'a str)> {
        let mut words = line.split_whitespace();
        let (kind, name, digest) = (words.next()?, words.next()?, words.next()?);
        let kind = match kind {
            "private-key" => return Some((Kind::PrivateKey, name)),
            "public-key" => Kind::PublicKey,
            "certificate" | "chain-link" => Kind::Certificate,
            "parameter" if name == "mbed.CurrentTime" => return None,
            "parameter" => Kind::Config,
            _ => return None,
        };
        let stored = self.held.chain(kind, name).unwrap_or_else(|| panic!("{name} is not there"));
        let is_there = stored.iter().any(|part| HEXLOWER.encode(&Sha256::digest(&part.0)) == digest);
        assert!(is_there, "{line}");
        Some((kind, name))
    }
}

fn merge(into: &mut Table, changes: Table) {
    for (key, value) in changes {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(changes)) => merge(into, changes),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn certificate(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2061, 1, 1);
    change(&mut params);
    params
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let params = certificate(name, |it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let key = key();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}
