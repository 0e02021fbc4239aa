//! What a customer puts into a device beside what the device itself looks at: parameters, certificates, keys.

use std::{collections::BTreeSet, path::PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use factory_fixtures::fcc::{
    message::{CertificateItem, KeyHalf, KeyItem, KeyRequest, Parameter, Value},
    names,
};
use factory_proto::ids::EndpointName;
use factory_settings::{Table, integer, list, path, table, text, text_or_integer};
use zeroize::Zeroizing;

use super::{
    UnitError, credential,
    source::Sources,
    template::{Template, Unit},
};

/// A customer's own items. Holds what may be secrets, hence has no `Debug`.
#[derive(Clone, Default)]
pub struct Custom {
    /// Configuration items.
    pub parameters: Vec<CustomParameter>,
    /// Certificates and chains.
    pub certificates: Vec<CertificateItem>,
    /// Keys that every unit gets.
    pub keys: Vec<KeyItem>,
    /// Keys that the device makes, and whose requests go into the result.
    pub requests: Vec<CustomRequest>,
}

/// A configuration item of the customer's own.
#[derive(Debug, Clone)]
pub struct CustomParameter {
    /// What it is stored as.
    pub name: String,
    content: Content,
}

/// A key that the device makes.
#[derive(Debug, Clone)]
pub struct CustomRequest {
    /// What it is stored as.
    pub name: String,
    /// As in `O=Acme,CN={endpoint-name}`.
    pub subject: Template,
}

#[derive(Debug, Clone)]
enum Content {
    Text(Template),
    Hex(Template),
    Integer(Template, Width),
    File(Vec<u8>),
}

/// How an integer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Width {
    bytes: u8,
    big_endian: bool,
}

impl CustomParameter {
    /// The item for one unit.
    ///
    /// # Errors
    /// The unit's values do not make one.
    pub fn item(&self, unit: &Unit<'_>) -> Result<Parameter, UnitError> {
        let refuse = |reason: String| UnitError::new(&format!("provision.parameter {:?}", self.name), reason);
        let fill = |template: &Template| template.fill(unit).map_err(|error| refuse(error.to_string()));
        let value = match &self.content {
            Content::Text(template) => Value::Text(fill(template)?),
            Content::Hex(template) => Value::Bytes(hex(&fill(template)?).map_err(refuse)?),
            Content::Integer(template, width) => width.store(&fill(template)?).map_err(refuse)?,
            Content::File(bytes) => Value::Bytes(bytes.clone()),
        };
        Ok(Parameter { name: self.name.clone(), value })
    }
}

impl CustomRequest {
    /// What the device is asked for.
    ///
    /// # Errors
    /// The unit's values do not make a subject.
    pub fn key(&self, endpoint_name: &EndpointName, unit: &Unit<'_>) -> Result<KeyRequest, UnitError> {
        let refuse = |reason: String| UnitError::new(&format!("provision.key {:?}", self.name), reason);
        let value = |name: &str| match name {
            "endpoint-name" => Some(endpoint_name.as_str()),
            other => unit.value(other),
        };
        let subject = self.subject.fill_with(value).map_err(|error| refuse(error.to_string()))?;
        check_subject(&subject).map_err(refuse)?;
        Ok(KeyRequest { name: self.name.clone(), subject })
    }
}

/// The device answers a subject that it does not understand with a request for nobody.
fn check_subject(subject: &str) -> Result<(), String> {
    // The longest that five requests were seen to be answered with.
    if subject.len() > 200 {
        return Err(format!(
            "asks for a subject of {} bytes, a device answers for at most 200",
            subject.len()
        ));
    }
    let known = ["CN", "C", "O", "OU", "L", "ST", "serialNumber"];
    let sound = |part: &str| {
        part.split_once('=').is_some_and(|(key, value)| known.contains(&key) && !value.is_empty())
    };
    match subject.split(',').find(|part| !sound(part)) {
        None => Ok(()),
        Some(part) => Err(format!(
            "asks for a subject with {part:?}, which a device does not understand: use {} with a value each, \
             joined with commas, as in \"O=Acme,CN={{endpoint-name}}\"",
            known.join(", ")
        )),
    }
}

impl Width {
    fn store(self, text: &str) -> Result<Value, String> {
        let wrong = || format!("with {text:?} is no integer of {} bytes", self.bytes);
        let number: i64 = text.parse().map_err(|_| wrong())?;
        if (self.bytes, self.big_endian) == (8, false) {
            // As the device stores an integer of its own accord.
            return Ok(Value::Integer(number));
        }
        let bytes = match self.bytes {
            8 => number.to_be_bytes().to_vec(),
            _ => {
                // What a signed or an unsigned number of four bytes can be.
                let low = i32::try_from(number)
                    .map(i32::cast_unsigned)
                    .or_else(|_| u32::try_from(number))
                    .map_err(|_| wrong())?;
                if self.big_endian { low.to_be_bytes().to_vec() } else { low.to_le_bytes().to_vec() }
            }
        };
        Ok(Value::Bytes(bytes))
    }
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ' | '-')).collect();
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| {
        format!("with {text:?} is no hex: two digits a byte, which colons, hyphens or spaces may part")
    })
}

impl Custom {
    pub(super) fn written(file: &mut Table<'_>, sources: &Sources<'_>) -> Option<Self> {
        let parameters = file.or("parameter", Vec::new(), list(table(|it| parameter(it, sources))));
        let keys = file.or("key", Vec::new(), list(table(|it| key(it, sources))));
        let certificates = file.or("certificate", Vec::new(), list(table(|it| certificate(it, sources))));
        let (keys, requests) = split(keys?);
        let custom = Self { parameters: parameters?, certificates: certificates?, keys, requests };
        custom.check(file);
        Some(custom)
    }

    /// All texts that differ from unit to unit.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        let parameters = self.parameters.iter().filter_map(|parameter| match &parameter.content {
            Content::Text(template) | Content::Hex(template) | Content::Integer(template, _) => {
                Some(template)
            }
            Content::File(_) => None,
        });
        parameters.chain(self.requests.iter().map(|request| &request.subject))
    }

    /// What only shows when all items are known.
    fn check(&self, file: &Table<'_>) {
        let private = |key: &KeyItem| key.half == KeyHalf::Private;
        let requested = self.requests.iter().map(|request| &request.name);
        repeated(file, "parameter", self.parameters.iter().map(|parameter| &parameter.name));
        repeated(file, "certificate", self.certificates.iter().map(|certificate| &certificate.name));
        let private_names = self.keys.iter().filter(|key| private(key)).map(|key| &key.name);
        repeated(file, "key", private_names.chain(requested));
        repeated(file, "key", self.keys.iter().filter(|key| !private(key)).map(|key| &key.name));

        for certificate in &self.certificates {
            let Some(wanted) = &certificate.private_key else { continue };
            let key = self.keys.iter().find(|key| private(key) && key.name == *wanted);
            let sound = key.map(|key| credential::private_key(&key.der));
            let reason = match sound {
                None => {
                    format!("names the private key {wanted:?}, which no [[provision.key]] with a file has")
                }
                Some(Ok(key)) if key.public() != credential::certified(&certificate.chain[0]) => {
                    format!("is for another key than {wanted:?}")
                }
                Some(_) => continue,
            };
            file.complain("certificate", format!("{:?} {reason}", certificate.name));
        }
    }
}

fn repeated<'a>(file: &Table<'_>, key: &str, names: impl Iterator<Item = &'a String>) {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            file.complain(key, format!("{name:?} is there twice; a device stores a name once"));
        }
    }
}

/// The name of an item, which must be the customer's own.
fn name(file: &mut Table<'_>) -> Option<String> {
    let name: String = file.required("name", text)?;
    match names::check_custom(&name) {
        Ok(()) => Some(name),
        Err(error) => {
            file.complain("name", format!("{name:?} {error}"));
            None
        }
    }
}

fn parameter(file: &mut Table<'_>, sources: &Sources<'_>) -> Option<CustomParameter> {
    let name = name(file);
    let text: Option<Option<Template>> = file.optional("text", text);
    let digits: Option<Option<Template>> = file.optional("hex", factory_settings::text);
    let number: Option<Option<Template>> = file.optional("integer", text_or_integer);
    let source: Option<Option<PathBuf>> = file.optional("file", path);
    let bytes: Option<Option<u8>> = file.optional("bytes", integer);
    let order: Option<Option<String>> = file.optional("byte-order", factory_settings::text);
    let (text, digits, number, source) = (text?, digits?, number?, source?);
    let (bytes, order) = (bytes?, order?);

    let forms = [text.is_some(), digits.is_some(), number.is_some(), source.is_some()];
    if forms.into_iter().filter(|is_there| *is_there).count() != 1 {
        file.complain("name", "needs exactly one of text, hex, integer and file");
        return None;
    }
    if number.is_none() && (bytes.is_some() || order.is_some()) {
        file.complain("name", "has bytes or byte-order, which are only for an integer");
        return None;
    }
    if bytes.is_some_and(|bytes| !matches!(bytes, 4 | 8)) {
        file.complain("bytes", "must be 4 or 8");
        return None;
    }
    let big_endian = match order.as_deref() {
        None | Some("little") => false,
        Some("big") => true,
        Some(_) => {
            file.complain("byte-order", "must be \"little\", as the device's own integers are, or \"big\"");
            return None;
        }
    };
    let width = Width { bytes: bytes.unwrap_or(8), big_endian };
    let content = if let Some(text) = text {
        Content::Text(text)
    } else if let Some(digits) = digits {
        check_fixed(file, "hex", &digits, |text| hex(text).map(drop))?;
        Content::Hex(digits)
    } else if let Some(number) = number {
        check_fixed(file, "integer", &number, |text| width.store(text).map(drop))?;
        Content::Integer(number, width)
    } else {
        Content::File(sources.read(file, "file", &source?)?.0)
    };
    Some(CustomParameter { name: name?, content })
}

/// Checks a value that is the same for every unit.
fn check_fixed(
    file: &Table<'_>,
    key: &str,
    template: &Template,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<()> {
    let Ok(fixed) = template.fill_with(|_| None) else { return Some(()) };
    check(&fixed).inspect_err(|reason| file.complain(key, reason)).ok()
}

enum CustomKey {
    Item(KeyItem),
    Request(CustomRequest),
}

fn split(keys: Vec<CustomKey>) -> (Vec<KeyItem>, Vec<CustomRequest>) {
    let (mut items, mut requests) = (Vec::new(), Vec::new());
    for key in keys {
        match key {
            CustomKey::Item(item) => items.push(item),
            CustomKey::Request(request) => requests.push(request),
        }
    }
    (items, requests)
}

fn key(file: &mut Table<'_>, sources: &Sources<'_>) -> Option<CustomKey> {
    let name = name(file);
    let source: Option<Option<PathBuf>> = file.optional("file", path);
    let subject: Option<Option<Template>> = file.optional("subject", text);
    match (source?, subject?) {
        (Some(path), None) => {
            let half = |bytes: &[u8]| match credential::public_key(bytes) {
                Ok(der) => Ok((KeyHalf::Public, Zeroizing::new(der))),
                Err(_) => match credential::private_key(bytes) {
                    Ok(key) => Ok((KeyHalf::Private, key.der().clone())),
                    Err(_) => Err("is neither a private nor a public P-256 key, in PEM or DER"),
                },
            };
            let (half, der) = sources.parsed(file, "file", &path, half)?;
            Some(CustomKey::Item(KeyItem { name: name?, half, der }))
        }
        (None, Some(subject)) => {
            if let Ok(fixed) = subject.fill_with(|_| Some("x")) {
                check_subject(&fixed).inspect_err(|reason| file.complain("subject", reason)).ok()?;
            }
            Some(CustomKey::Request(CustomRequest { name: name?, subject }))
        }
        _ => {
            file.complain(
                "name",
                "needs either a file with the key, or the subject of the request for one that the device makes",
            );
            None
        }
    }
}

fn certificate(file: &mut Table<'_>, sources: &Sources<'_>) -> Option<CertificateItem> {
    let name = name(file);
    let source: Option<PathBuf> = file.required("file", path);
    let private_key = file.optional("private-key", text);
    let chain = sources.parsed(file, "file", &source?, credential::chain)?;
    Some(CertificateItem { name: name?, chain, private_key: private_key? })
}
