//! What a device is given, as its recipe says it: read and checked.

use std::path::PathBuf;

use data_encoding::HEXUPPER;
use factory_settings::{Table, flag, list, path, text, text_or_integer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Identity, KeyOrigin,
    answer::Answers,
    connection::{self, Connection},
    credential,
    custom::Custom,
    source::Sources,
    template::Template,
    time::Time,
};

/// What a device is given. Holds what may be secrets, hence has no `Debug`.
#[derive(Clone)]
pub struct Provision {
    /// How it reaches its server, and whose it is.
    pub connection: Connection,
    /// The LwM2M device object.
    pub device: DeviceObject,
    /// Its clock; `None` leaves it unset.
    pub time: Option<Time>,
    /// Who may sign its firmware.
    pub update: Update,
    /// Whose access tokens it takes.
    pub trust_anchors: Vec<TrustAnchor>,
    /// The customer's own items.
    pub custom: Custom,
    /// Where the seed of its random number generator comes from.
    pub entropy: SecretOrigin,
    /// Where the root of its storage encryption comes from.
    pub root_of_trust: SecretOrigin,
    /// Whether it checks its whole configuration.
    pub verify: bool,
    /// What its warnings mean.
    pub warnings: Warnings,
}

/// The LwM2M device object.
#[derive(Debug, Clone)]
pub struct DeviceObject {
    /// Who made it.
    pub manufacturer: Template,
    /// Which model.
    pub model_number: Template,
    /// Which board; `{serial}` where nothing else is said.
    pub serial_number: Template,
    /// Which type.
    pub device_type: Template,
    /// Which hardware.
    pub hardware_version: Template,
    /// KiB, 4 bytes.
    pub memory_total: Template,
}

/// Who may sign a device's firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// A certificate or chain, leaf first, DER; empty where there is none.
    pub certificate: Vec<Vec<u8>>,
    /// 16 bytes on the device.
    pub vendor_id: Option<Uuid>,
    /// 16 bytes on the device.
    pub class_id: Option<Uuid>,
}

/// A public key whose owner may issue tokens for secure device access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchor {
    /// `mbed.ta.` and the SHA-256 of the key in upper-case hex.
    pub name: String,
    /// SubjectPublicKeyInfo, DER.
    pub key: Vec<u8>,
}

/// Where bytes that only the device should know come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretOrigin {
    /// It has its own.
    ByDevice,
    /// The station draws them, and wipes them.
    ByTool,
    /// They lie ready for the unit.
    Supplied,
}

/// What a device's warnings mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warnings {
    /// They are kept in the result.
    Keep,
    /// The unit fails, before its factory code is closed.
    Fail,
}

impl Provision {
    pub(super) fn written(file: &mut Table<'_>, sources: &Sources<'_>) -> Option<Self> {
        let connection = connection::written(file, sources);
        let device = DeviceObject::written(file);
        let time = Time::written(file);
        let update = Update::written(file, sources);
        let trust_anchors = trust_anchors(file, sources);
        let custom = Custom::written(file, sources);
        let entropy = secret(file, "entropy");
        let root_of_trust = secret(file, "root-of-trust");
        let verify = file.or("verify-on-device", true, flag);
        let warnings = file.or("warnings", "keep".to_owned(), text);

        let warnings = match warnings?.as_str() {
            "keep" => Some(Warnings::Keep),
            "fail" => Some(Warnings::Fail),
            _ => {
                file.complain(
                    "warnings",
                    "must be \"keep\" (they go into the result) or \"fail\" (the unit fails)",
                );
                None
            }
        };
        if warnings == Some(Warnings::Fail) && verify == Some(false) {
            file.complain(
                "warnings",
                "cannot be \"fail\" while verify-on-device is false: then nothing is warned of",
            );
        }
        Some(Self {
            connection: connection?,
            device: device?,
            time: time?,
            update: update?,
            trust_anchors: trust_anchors?,
            custom: custom?,
            entropy: entropy?,
            root_of_trust: root_of_trust?,
            verify: verify?,
            warnings: warnings?,
        })
    }

    /// The device's answers to what it is given with this identity.
    pub(super) fn answers(&self, identity: &Identity) -> Answers<'_> {
        let requests_key = identity.key == KeyOrigin::ByDevice;
        Answers { provision: self, chain_depth: identity.chain_depth, requests_key }
    }

    /// All texts that differ from unit to unit.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        let device = &self.device;
        let fixed = [
            &self.connection.server_uri,
            &device.manufacturer,
            &device.model_number,
            &device.serial_number,
            &device.device_type,
            &device.hardware_version,
            &device.memory_total,
        ];
        fixed.into_iter().chain(self.custom.templates())
    }

    /// What of a device's warnings makes it fail, for people; `None` when nothing does.
    pub fn judge(&self, warnings: &[String]) -> Option<String> {
        // In a message that is not the last of its session the device cannot have set this yet.
        let early = format!("CA identifier wasn't set properly:{}", self.connection.names().server_ca);
        let told: Vec<&str> =
            warnings.iter().map(String::as_str).filter(|warning| *warning != early).collect();
        (self.warnings == Warnings::Fail && !told.is_empty()).then(|| told.join(", "))
    }

    /// Whether anything must lie ready for each unit.
    pub fn is_supplied(&self) -> bool {
        [self.entropy, self.root_of_trust].contains(&SecretOrigin::Supplied)
    }
}

impl DeviceObject {
    fn written(file: &mut Table<'_>) -> Option<Self> {
        let manufacturer = file.required("manufacturer", text);
        let model_number = file.required("model-number", text);
        let own: Template = "{serial}".parse().expect("this is a template");
        let serial_number = file.or("serial-number", own, text);
        let device_type = file.required("device-type", text);
        let hardware_version = file.required("hardware-version", text);
        let memory_total: Option<Template> = file.required("memory-total-kb", text_or_integer);
        let memory_total = memory_total.and_then(|template| check_memory(file, template));
        Some(Self {
            manufacturer: manufacturer?,
            model_number: model_number?,
            serial_number: serial_number?,
            device_type: device_type?,
            hardware_version: hardware_version?,
            memory_total: memory_total?,
        })
    }
}

/// Checks a size that is the same for every unit.
fn check_memory(file: &Table<'_>, template: Template) -> Option<Template> {
    if let Ok(fixed) = template.fill_with(|_| None) {
        memory(&fixed).inspect_err(|reason| file.complain("memory-total-kb", reason)).ok()?;
    }
    Some(template)
}

/// The device keeps four bytes of it.
pub(super) fn memory(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no whole number of KiB from 0 to {}", u32::MAX))
}

impl Update {
    fn written(file: &mut Table<'_>, sources: &Sources<'_>) -> Option<Self> {
        let certificate: Option<Option<PathBuf>> = file.optional("update-certificate", path);
        let vendor_id = file.optional("vendor-id", text);
        let class_id = file.optional("class-id", text);
        let certificate = match certificate? {
            None => Some(Vec::new()),
            Some(path) => sources.parsed(file, "update-certificate", &path, credential::update_certificate),
        };
        let update = Self { certificate: certificate?, vendor_id: vendor_id?, class_id: class_id? };
        if !update.certificate.is_empty() {
            for (key, id) in [("vendor-id", update.vendor_id), ("class-id", update.class_id)] {
                if id.is_none() {
                    file.complain(
                        key,
                        "is missing: a device with an update certificate needs it, a UUID (RFC 9562)",
                    );
                }
            }
        }
        Some(update)
    }
}

fn trust_anchors(file: &mut Table<'_>, sources: &Sources<'_>) -> Option<Vec<TrustAnchor>> {
    let paths: Vec<PathBuf> = file.or("trust-anchors", Vec::new(), list(path))?;
    let mut anchors: Vec<TrustAnchor> = Vec::new();
    for path in paths {
        let key = sources.parsed(file, "trust-anchors", &path, credential::public_key)?;
        let name = format!("mbed.ta.{}", HEXUPPER.encode(&Sha256::digest(&key)));
        if anchors.iter().any(|anchor| anchor.name == name) {
            file.complain("trust-anchors", format!("{} is a key that is there already", path.display()));
        }
        anchors.push(TrustAnchor { name, key });
    }
    Some(anchors)
}

fn secret(file: &mut Table<'_>, key: &'static str) -> Option<SecretOrigin> {
    match file.or(key, "by-device".to_owned(), text)?.as_str() {
        "by-device" => Some(SecretOrigin::ByDevice),
        "by-tool" => Some(SecretOrigin::ByTool),
        "supplied" => Some(SecretOrigin::Supplied),
        _ => {
            file.complain(
                key,
                "must be \"by-device\" (it has its own), \"by-tool\" (the station draws it), or \"supplied\"",
            );
            None
        }
    }
}
