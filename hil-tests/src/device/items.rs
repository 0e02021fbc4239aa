//! Takes the items of a message's groups, one after the other, and stores each at once: nothing is rolled
//! back when a later one fails (FCC protocol, section 3). Knows nothing of flags and sessions.

use super::{
    cbor::Value,
    csr::{self, Habits, Usages},
    keys::{self, PrivateKey},
    status::{Failure, Status},
    store::{Kind, Store},
};

/// The device's clock, in Unix seconds; 0 until it is set.
pub type Clock = i128;

/// Earlier times are refused.
const EARLIEST_TIME: Clock = 1_483_264_800;
const MAX_CHAIN: usize = 5;
const MAX_REQUESTS: usize = 5;
/// The device writes a request into a buffer; longer subjects do not fit.
const MAX_SUBJECT: usize = 1024;

/// The fields of an item, any other being refused.
struct Fields<'a>(&'a [(String, Value)]);

impl<'a> Fields<'a> {
    fn of(item: &'a Value, known: &[&str]) -> Result<Self, Failure> {
        let pairs = item.map()?;
        match pairs.iter().all(|(key, _)| known.contains(&key.as_str())) {
            true => Ok(Self(pairs)),
            false => Err(Failure::general(Status::NotSupported)),
        }
    }

    fn find(&self, key: &str) -> Option<&'a Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn get(&self, key: &str) -> Result<&'a Value, Failure> {
        self.find(key).ok_or_else(|| Failure::general(Status::Malformed))
    }

    /// DER is the only format; leaving it out passes.
    fn check_format(&self) -> Result<(), Failure> {
        match self.find("Format").map(Value::text).transpose()? {
            None | Some("der") => Ok(()),
            Some(_) => Err(Failure::general(Status::NotSupported)),
        }
    }
}

/// Stores one item of `Keys`.
pub fn store_key(store: &mut Store, item: &Value) -> Result<(), Failure> {
    let fields = Fields::of(item, &["Name", "Type", "Format", "Data"])?;
    let name = fields.get("Name")?.text()?;
    fields.check_format()?;
    let data = fields.get("Data")?.bytes()?;
    let (kind, sound, reason) = match fields.get("Type")?.text()? {
        "ECCPrivate" => (Kind::PrivateKey, PrivateKey::from_der(data).is_some(), "Private key parse failed"),
        "ECCPublic" => (Kind::PublicKey, keys::is_public_key(data), "Public key parse failed"),
        _ => return Err(Failure::general(Status::NotSupported)),
    };
    if !sound {
        return Err(Failure::about(Status::KeyStoreCrypto, reason, name));
    }
    store.put(kind, name, vec![data.to_vec()])
}

/// Stores one item of `Certificates`.
pub fn store_certificate(store: &mut Store, item: &Value) -> Result<(), Failure> {
    let fields = Fields::of(item, &["Name", "Format", "Data", "PrKN"])?;
    let name = fields.get("Name")?.text()?;
    fields.check_format()?;
    let data = fields.get("Data")?.bytes()?;
    check_certificate(store, name, data, fields.find("PrKN"))?;
    store.put(Kind::Certificate, name, vec![data.to_vec()])
}

/// Stores one item of `CertificateChains`, leaf first.
pub fn store_chain(store: &mut Store, item: &Value) -> Result<(), Failure> {
    let fields = Fields::of(item, &["Name", "Format", "DataArray", "PrKN"])?;
    let name = fields.get("Name")?.text()?;
    fields.check_format()?;
    let chain = fields.get("DataArray")?.array()?.iter().map(Value::bytes).collect::<Result<Vec<_>, _>>()?;
    let Some(leaf) = chain.first().filter(|_| chain.len() <= MAX_CHAIN) else {
        return Err(Failure::general(Status::Malformed));
    };
    check_certificate(store, name, leaf, fields.find("PrKN"))?;
    for link in chain.windows(2) {
        let signed = keys::certificate(link[0])
            .zip(keys::certificate(link[1]))
            .is_some_and(|(child, parent)| child.verify_signature(Some(parent.public_key())).is_ok());
        if !signed {
            return Err(Failure::about(Status::KeyStoreCrypto, "Chain validation error", name));
        }
    }
    store.put(Kind::Certificate, name, chain.into_iter().map(<[u8]>::to_vec).collect())
}

/// The issuer is never looked at; the key only when one is named.
fn check_certificate(
    store: &Store,
    name: &str,
    data: &[u8],
    key_name: Option<&Value>,
) -> Result<(), Failure> {
    let certificate = keys::certificate(data)
        .ok_or_else(|| Failure::about(Status::KeyStoreCrypto, "Certificate parse failed", name))?;
    let Some(key_name) = key_name.map(Value::text).transpose()? else { return Ok(()) };
    let key = store
        .holdings()
        .get(Kind::PrivateKey, key_name)
        .and_then(PrivateKey::from_der)
        .ok_or_else(|| Failure::about(Status::ItemMissing, "Item does not exist", name))?;
    if keys::certified_point(&certificate) != key.public_point() {
        let reason = "Self-generated certificate validation failed";
        return Err(Failure::about(Status::KeyMismatch, reason, name));
    }
    Ok(())
}

/// Stores one item of `ConfigParams`; the current time sets the clock instead.
pub fn store_parameter(store: &mut Store, clock: &mut Clock, item: &Value) -> Result<(), Failure> {
    let fields = Fields::of(item, &["Name", "Data"])?;
    let name = fields.get("Name")?.text()?;
    let data = fields.get("Data")?;
    if is_prefix_of("mbed.CurrentTime", name) {
        let time = data.integer()?;
        if time < EARLIEST_TIME {
            return Err(Failure::general(Status::Unspecified));
        }
        *clock = time;
        return Ok(());
    }
    let bytes = match data {
        Value::Text(text) => text.as_bytes().to_vec(),
        Value::Bytes(bytes) => bytes.clone(),
        Value::Integer(number) => {
            let own = ["mbed.UseBootstrap", "mbed.FirstToClaim", "mbed.MemoryTotalKB"];
            let width = if own.iter().any(|own| is_prefix_of(own, name)) { 4 } else { 8 };
            number.to_le_bytes()[..width].to_vec()
        }
        Value::Array(_) | Value::Map(_) | Value::Other => {
            return Err(Failure::general(Status::Malformed));
        }
    };
    store.put(Kind::Config, name, vec![bytes])
}

/// The device compares with the length of what it was sent.
pub fn is_prefix_of(reserved: &str, sent: &str) -> bool {
    reserved.starts_with(sent)
}

/// Makes a key for each of `CsrReqs`, and the request for it.
pub fn make_requests(
    store: &mut Store,
    requests: &Value,
    habits: &Habits,
) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let requests = requests.array()?;
    match requests.len() {
        0 => Err(Failure::general(Status::Malformed)),
        1..=MAX_REQUESTS => requests.iter().map(|request| make_request(store, request, habits)).collect(),
        _ => Err(Failure::general(Status::TooManyRequests)),
    }
}

fn make_request(store: &mut Store, request: &Value, habits: &Habits) -> Result<(String, Vec<u8>), Failure> {
    let fields = Fields::of(request, &["PrKN", "Subj", "MD", "Ext", "SM"])?;
    let name = fields.get("PrKN")?.text()?;
    let asked = fields.get("Subj")?.text()?;
    if fields.get("MD")?.integer()? != 1 || asked.len() > MAX_SUBJECT {
        return Err(Failure::about(Status::KeyStoreCrypto, "General error", name));
    }
    let mut usages = Usages::default();
    if let Some(extensions) = fields.find("Ext") {
        let extensions = Fields::of(extensions, &["KU", "EKU"])?;
        usages.key = extensions.find("KU").map(Value::integer).transpose()?;
        usages.extended = extensions.find("EKU").map(Value::integer).transpose()?;
    }
    let same = habits.same_key.as_ref().and_then(|der| PrivateKey::from_der(&der.0));
    let key = same.unwrap_or_else(PrivateKey::generate);
    store.put(Kind::PrivateKey, name, vec![key.to_der()])?;
    let key = if habits.another_key { PrivateKey::generate() } else { key };
    Ok((name.to_owned(), csr::make(&key, habits.subject.as_deref().unwrap_or(asked), usages)))
}
