//! What a device is given: the bundle, as data.

use std::{
    fmt::Display,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use factory_fixtures::fcc::message::{Bundle, CertificateItem, Parameter, Value};
use factory_settings::{Table, integer, path, text};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    record::{Identity, RunOpened},
    signatures::Signatures,
    step::{DEVICE_KEY, StepError},
};

/// What a device is given, in bootstrap mode, to be claimed first by whoever holds its enrolment id.
#[derive(Debug, Clone)]
pub struct Provision {
    /// `coaps://` address of the bootstrap server, without an account id.
    pub server_uri: String,
    /// Its CA certificate, DER.
    pub server_ca: Vec<u8>,
    device: DeviceObject,
    time_zone: String,
    utc_offset: String,
    vendor_id: Uuid,
    class_id: Uuid,
}

/// The LwM2M device object.
#[derive(Debug, Clone)]
struct DeviceObject {
    manufacturer: String,
    model_number: String,
    device_type: String,
    hardware_version: String,
    memory_total_kb: u32,
}

impl Provision {
    pub(super) fn written(file: &mut Table<'_>, signatures: &Signatures) -> Option<Self> {
        let server_uri: Option<String> = file.required("server-uri", text);
        let server_ca = file.required("server-ca", path);
        let device = DeviceObject::written(file);
        let time_zone = file.or("time-zone", "UTC".to_owned(), text);
        let utc_offset: Option<String> = file.or("utc-offset", "+00:00".to_owned(), text);
        let vendor_id = file.required("vendor-id", text);
        let class_id = file.required("class-id", text);

        if server_uri.as_ref().is_some_and(|uri| !is_coaps(uri)) {
            file.complain("server-uri", "must begin with coaps:// and a host");
        }
        if server_uri.as_ref().is_some_and(|uri| uri.contains("?aid=") || uri.contains("&aid=")) {
            file.complain(
                "server-uri",
                "must not name an account (aid): the owner is yet to claim the device",
            );
        }
        if utc_offset.as_deref().is_some_and(|offset| !is_utc_offset(offset)) {
            file.complain("utc-offset", "must be from -12:00 to +14:00, written as in \"+01:00\"");
        }
        let server_ca = server_ca.and_then(|path| read_certificate(file, &path, signatures));
        Some(Self {
            server_uri: server_uri?,
            server_ca: server_ca?,
            device: device?,
            time_zone: time_zone?,
            utc_offset: utc_offset?,
            vendor_id: vendor_id?,
            class_id: class_id?,
        })
    }

    /// The message that gives one device all that it needs, has it check this, and closes its factory code.
    pub fn bundle(&self, session: &str, identity: &Identity, run: &RunOpened) -> Result<Bundle, StepError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|_| StepError::Station("the station's clock is before 1970; set it".to_owned()))?;
        let certificate = |name: &str, der: &[u8], private_key: Option<&str>| CertificateItem {
            name: name.to_owned(),
            der: der.to_vec(),
            private_key: private_key.map(str::to_owned),
        };
        Ok(Bundle {
            session: session.to_owned(),
            certificates: vec![
                certificate("mbed.BootstrapServerCACert", &self.server_ca, None),
                certificate("mbed.BootstrapDeviceCert", &identity.certificate, Some(DEVICE_KEY)),
            ],
            parameters: vec![
                number("mbed.UseBootstrap", 1),
                words("mbed.EndpointName", identity.endpoint_name.as_str()),
                words("mbed.BootstrapServerURI", &self.server_uri),
                words("mbed.Manufacturer", &self.device.manufacturer),
                words("mbed.ModelNumber", &self.device.model_number),
                words("mbed.SerialNumber", run.serial.as_str()),
                words("mbed.DeviceType", &self.device.device_type),
                words("mbed.HardwareVersion", &self.device.hardware_version),
                number("mbed.MemoryTotalKB", self.device.memory_total_kb.into()),
                id("mbed.VendorId", self.vendor_id),
                id("mbed.ClassId", self.class_id),
                number("mbed.CurrentTime", now.as_secs().cast_signed()),
                words("mbed.Timezone", &self.time_zone),
                words("mbed.UTCOffset", &self.utc_offset),
                number("mbed.FirstToClaim", 1),
            ],
            verify: true,
            disable: true,
        })
    }
}

impl DeviceObject {
    fn written(file: &mut Table<'_>) -> Option<Self> {
        let manufacturer = file.required("manufacturer", text);
        let model_number = file.required("model-number", text);
        let device_type = file.required("device-type", text);
        let hardware_version = file.required("hardware-version", text);
        let memory_total_kb = file.required("memory-total-kb", integer);
        Some(Self {
            manufacturer: manufacturer?,
            model_number: model_number?,
            device_type: device_type?,
            hardware_version: hardware_version?,
            memory_total_kb: memory_total_kb?,
        })
    }
}

fn words(name: &str, value: &str) -> Parameter {
    Parameter { name: name.to_owned(), value: Value::Text(value.to_owned()) }
}

fn number(name: &str, value: i64) -> Parameter {
    Parameter { name: name.to_owned(), value: Value::Integer(value) }
}

fn id(name: &str, value: Uuid) -> Parameter {
    Parameter { name: name.to_owned(), value: Value::Bytes(value.as_bytes().to_vec()) }
}

/// One certificate from a PEM file, DER.
fn read_certificate(file: &Table<'_>, path: &Path, signatures: &Signatures) -> Option<Vec<u8>> {
    let no_certificate = |error: &dyn Display| {
        file.complain("server-ca", format!("no certificate in PEM at {}: {error}", path.display()));
    };
    let pem = std::fs::read(path).inspect_err(|error| no_certificate(error)).ok()?;
    if let Err(unsigned) = signatures.check(path, &pem) {
        file.complain("server-ca", unsigned.to_string());
        return None;
    }
    let der = CertificateDer::from_pem_slice(&pem).inspect_err(|error| no_certificate(error)).ok()?;
    X509Certificate::from_der(&der).inspect_err(|error| no_certificate(error)).ok()?;
    Some(der.to_vec())
}

fn is_coaps(uri: &str) -> bool {
    uri.strip_prefix("coaps://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with([':', '/', '?']))
}

/// The device checks the form of this, but not its range.
fn is_utc_offset(text: &str) -> bool {
    let &[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = text.as_bytes() else { return false };
    if ![h1, h2, m1, m2].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let two = |high: u8, low: u8| u32::from(high - b'0') * 10 + u32::from(low - b'0');
    let (minutes, offset) = (two(m1, m2), two(h1, h2) * 60 + two(m1, m2));
    minutes < 60 && offset <= if sign == b'+' { 14 * 60 } else { 12 * 60 }
}
