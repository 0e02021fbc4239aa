//! What belongs to one unit alone, which records tell of it, and where it was seen. Knows not what follows from that.

use std::{fmt, time::SystemTime};

use data_encoding::{HEXLOWER, HEXUPPER};
use factory_proto::ids::{EndpointName, NestName, OrderId, Serial};
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::{Record, RunId, RunOpened, cbor, run::place};
use crate::certificate::{key_of_certificate, key_of_request};

/// What belongs to one unit alone. The numbers are for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Mark {
    /// The name that its certificate gives it.
    #[n(0)]
    EndpointName(#[cbor(n(0), with = "cbor::text")] EndpointName),
    /// SHA-256 of the public half of its key: SubjectPublicKeyInfo, DER.
    #[n(1)]
    DeviceKey(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
    /// Its tag's UID.
    #[n(2)]
    Tag(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

impl Mark {
    /// Of a key: SubjectPublicKeyInfo, DER.
    pub fn of_key(public: &[u8]) -> Self {
        Self::DeviceKey(Sha256::digest(public).into())
    }

    /// As it is written: a name as it is, a digest in small hex, a UID in capital hex.
    pub fn value(&self) -> String {
        match self {
            Self::EndpointName(name) => name.to_string(),
            Self::DeviceKey(digest) => HEXLOWER.encode(digest),
            Self::Tag(uid) => HEXUPPER.encode(uid),
        }
    }

    /// What the journal finds it by. An index that was made of other words finds nothing: see `Record::KEYS`.
    pub fn key(&self) -> String {
        format!("{} {}", self.kind(), self.value())
    }

    /// What it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EndpointName(_) => "endpoint name",
            Self::DeviceKey(_) => "device key",
            Self::Tag(_) => "tag",
        }
    }

    /// Whether another unit may have it when the one that had it was destroyed. A name is only a name; a key or a tag that
    /// turns up again is what was to be destroyed.
    pub fn survives_scrapping(&self) -> bool {
        matches!(self, Self::EndpointName(_))
    }
}

impl Record {
    /// What it tells of that belongs to one unit alone.
    pub fn marks(&self) -> Vec<Mark> {
        let named = |name: &EndpointName, key: Option<Vec<u8>>| {
            let key = key.map(|key| Mark::of_key(&key));
            [Mark::EndpointName(name.clone())].into_iter().chain(key).collect()
        };
        match self {
            Self::IssuanceAsked(asked) => named(&asked.endpoint_name, key_of_request(&asked.request)),
            Self::Issued(issued) => {
                let identity = &issued.identity;
                named(&identity.endpoint_name, key_of_certificate(&identity.certificate))
            }
            Self::TagSeen(seen) => vec![Mark::Tag(seen.uid.clone())],
            // Old stations told of a tag only here.
            Self::RunClosed(closed) => {
                closed.findings.tag.iter().map(|tag| Mark::Tag(tag.uid.clone())).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The tag on the unit has said who it is, and is about to be written.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TagSeen {
    /// In which run.
    #[cbor(n(0), with = "cbor::text")]
    pub run: RunId,
    /// 4, 7 or 10 bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub uid: Vec<u8>,
}

/// Where a mark was seen first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Seen {
    /// What.
    #[n(0)]
    pub mark: Mark,
    /// Whose it is.
    #[cbor(n(1), with = "cbor::text")]
    pub serial: Serial,
    /// For which order that unit was made.
    #[cbor(n(2), with = "cbor::text")]
    pub order: OrderId,
    /// In which run.
    #[cbor(n(3), with = "cbor::text")]
    pub run: RunId,
    /// Where.
    #[cbor(n(4), with = "cbor::text")]
    pub nest: NestName,
    /// When.
    #[cbor(n(5), with = "cbor::time")]
    pub time: SystemTime,
}

impl Seen {
    /// In a run, at a time. A golden unit, which is of no order, has nothing that belongs to one unit alone.
    pub fn in_run(mark: Mark, run: &RunOpened, time: SystemTime) -> Option<Self> {
        let RunOpened { run, order, serial, nest, .. } = run.clone();
        Some(Self { mark, serial, order: order?, run, nest, time })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mark, serial, order, run, nest, time } = self;
        let value = mark.value();
        let place = format!("unit {serial} of {}", place(Some(order), nest, *time, *run));
        match mark {
            Mark::EndpointName(_) => write!(
                f,
                "endpoint name {value} belongs to {place}; give this unit another one, or scrap that unit first"
            ),
            Mark::DeviceKey(_) => write!(
                f,
                "the device's key, SHA-256 {value}, is that of {place}; one of them is a copy, or makes no random \
                 numbers: set this device aside"
            ),
            Mark::Tag(_) => write!(f, "tag {value} was put on {place}; put a fresh tag on this unit"),
        }
    }
}
