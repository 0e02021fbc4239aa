//! What a device holds: items by kind and name, and its write-once flags, in a file that is rewritten on
//! every change and so survives the process. Knows nothing of messages.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::status::{Failure, Status};

const LONGEST_NAME: usize = 100;

/// The separate name spaces of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// DER as it was sent; PKCS#8 for a key that the device made.
    PrivateKey,
    /// SubjectPublicKeyInfo DER.
    PublicKey,
    /// One certificate, or a chain with its leaf first.
    Certificate,
    /// A configuration parameter.
    Config,
}

/// Bytes that are hex in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        HEXLOWER.decode(text.as_bytes()).map(Self).map_err(de::Error::custom)
    }
}

/// All that a device holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holdings {
    /// Set by `Disable`, for good.
    pub factory_disabled: bool,
    /// The injected seed.
    pub entropy: Option<Bytes>,
    /// The injected root of trust.
    pub root_of_trust: Option<Bytes>,
    /// The public key of the server CA, trusted for time.
    pub time_server: Option<Bytes>,
    items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    kind: Kind,
    name: String,
    data: Vec<Bytes>,
}

impl Holdings {
    /// The bytes of an item; of a chain, the leaf.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&[u8]> {
        self.chain(kind, name)?.first().map(|bytes| bytes.0.as_slice())
    }

    /// All parts of an item; only a chain has several.
    pub fn chain(&self, kind: Kind, name: &str) -> Option<&[Bytes]> {
        let item = self.items.iter().find(|item| item.kind == kind && item.name == name)?;
        Some(&item.data)
    }

    /// The kind and the name of every item, in the order they were stored.
    pub fn names(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.items.iter().map(|item| (item.kind, item.name.as_str()))
    }
}

/// What the device whose storage is at `path` holds; nothing if it never ran.
pub fn read(path: &Path) -> io::Result<Holdings> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Holdings::default()),
        Err(error) => Err(error),
    }
}

/// The device's own view of its storage.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    holdings: Holdings,
}

impl Store {
    /// Opens the storage at `path`; there need not be one yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), holdings: read(path)? })
    }

    /// What it holds.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Forgets everything, flags included.
    pub fn wipe(&mut self) -> Result<(), Failure> {
        self.change(|holdings| *holdings = Holdings::default())
    }

    /// Sets flags.
    pub fn change(&mut self, change: impl FnOnce(&mut Holdings)) -> Result<(), Failure> {
        change(&mut self.holdings);
        self.save().map_err(|_| Failure::general(Status::InternalStorage))
    }

    /// Stores an item, once: there is no overwriting.
    pub fn put(&mut self, kind: Kind, name: &str, data: Vec<Vec<u8>>) -> Result<(), Failure> {
        if name.len() > LONGEST_NAME {
            return Err(Failure::about(Status::KeyStoreStorage, "File name too long", name));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(Failure::about(Status::KeyStoreStorage, "File name corrupted", name));
        }
        if self.holdings.get(kind, name).is_some() {
            return Err(Failure::about(Status::ItemExists, "Data already exists", name));
        }
        let data = data.into_iter().map(Bytes).collect();
        self.change(|holdings| holdings.items.push(Item { kind, name: name.to_owned(), data }))
    }

    fn save(&self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&self.holdings)?)?;
        fs::rename(&new, &self.path)
    }
}
