//! Request payloads that can be changed, and certificates made to order.

use factory_hil_tests::device::cbor::{Value, top_map};
use minicbor::Encoder;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};

use super::recorded::{self, bytes};

pub const CERTIFICATE: &str = "mbed.BootstrapDeviceCert";
pub const KEY: &str = "mbed.BootstrapDevicePrivateKey";
pub const URI: &str = "mbed.BootstrapServerURI";

/// A request payload that can be changed.
#[derive(Clone)]
pub struct Message(pub Vec<(String, Value)>);

impl Message {
    /// The recorded bundle of a unit whose key the station made.
    pub fn bundle() -> Self {
        Self(top_map(&bytes(recorded::KEY_BY_STATION)).unwrap())
    }

    /// The recorded request for a CSR.
    pub fn csr() -> Self {
        Self(top_map(&bytes(recorded::CSR_REQUEST)).unwrap())
    }

    pub fn set(mut self, key: &str, value: Value) -> Self {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, place)) => *place = value,
            None => self.0.push((key.into(), value)),
        }
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.0.retain(|(name, _)| name != key);
        self
    }

    fn group(&mut self, key: &str) -> &mut Vec<Value> {
        let at = self.0.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            self.0.insert(2, (key.into(), Value::Array(Vec::new())));
            2
        });
        let Value::Array(items) = &mut self.0[at].1 else { panic!("{key} is no group") };
        items
    }

    pub fn add(mut self, group: &str, item: &[(&str, Value)]) -> Self {
        self.group(group).push(map(item));
        self
    }

    /// Sets a field of the item with this name, wherever that is.
    pub fn item(mut self, name: &str, field: &str, value: Value) -> Self {
        for group in ["Keys", "Certificates", "ConfigParams"] {
            for item in self.group(group) {
                let Value::Map(pairs) = item else { panic!("an item is a map") };
                if pairs[0].1 == text(name) {
                    pairs.retain(|(key, _)| key != field);
                    pairs.push((field.into(), value.clone()));
                }
            }
        }
        self
    }

    pub fn without_item(mut self, name: &str) -> Self {
        for group in ["Keys", "Certificates", "ConfigParams"] {
            self.group(group).retain(|item| item.map().unwrap()[0].1 != text(name));
        }
        self
    }

    pub fn parameter(self, name: &str, value: Value) -> Self {
        let changed = self.without_item(name);
        changed.add("ConfigParams", &[("Name", text(name)), ("Data", value)])
    }

    /// Another identity: a certificate made by `change`, and its key.
    pub fn identity(self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (der, key) = certificate(&KeyPair::generate().unwrap(), change);
        self.item(CERTIFICATE, "Data", Value::Bytes(der)).item(KEY, "Data", Value::Bytes(key))
    }

    pub fn encode(&self) -> Vec<u8> {
        encoded(&Value::Map(self.0.clone()))
    }
}

pub fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Encoder::new(Vec::new());
    write(value, &mut out);
    out.into_writer()
}

fn write(value: &Value, out: &mut Encoder<Vec<u8>>) {
    match value {
        Value::Integer(number) => drop(out.i64(i64::try_from(*number).unwrap()).unwrap()),
        Value::Bytes(bytes) => drop(out.bytes(bytes).unwrap()),
        Value::Text(text) => drop(out.str(text).unwrap()),
        Value::Other => drop(out.bool(true).unwrap()),
        Value::Array(values) => {
            out.array(values.len() as u64).unwrap();
            values.iter().for_each(|value| write(value, out));
        }
        Value::Map(pairs) => {
            out.map(pairs.len() as u64).unwrap();
            for (key, value) in pairs {
                out.str(key).unwrap();
                write(value, out);
            }
        }
    }
}

pub fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

pub fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Map(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

/// A self-signed certificate for the recorded endpoint, changed, and its key as PKCS#8.
pub fn certificate(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> (Vec<u8>, Vec<u8>) {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("0123456789abcdef0123456789abcdef");
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2046, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    (params.self_signed(key).unwrap().der().to_vec(), key.serialize_der())
}

pub fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// A CA of its own, and the certificate that it gives for a request.
pub fn certify(csr: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "test ca");
    let certificate = ca.self_signed(&key).unwrap();
    let mut device = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
    device.params.not_before = date_time_ymd(2026, 1, 1);
    device.params.not_after = date_time_ymd(2046, 1, 1);
    device.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let device = device.signed_by(&Issuer::new(ca, key)).unwrap();
    (certificate.der().to_vec(), device.der().to_vec())
}
