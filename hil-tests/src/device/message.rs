//! One message from its bytes to its answer's bytes, in the order of the real program (FCC protocol,
//! section 4). Knows nothing of frames.

use std::{io, path::Path};

use super::{
    answer::Findings,
    cbor::{self, Value},
    csr::Habits,
    items::{self, Clock, is_prefix_of},
    scenario::Scenario,
    status::{Failure, Status},
    store::{Bytes, Holdings, Store},
    verify,
};

/// The one that every released client knows.
const SCHEME_VERSION: &str = "0.0.1";
const ENTROPY_LENGTH: usize = 48;
const ROOT_OF_TRUST_LENGTH: usize = 16;

/// What a message leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// An answer's payload.
    Answer(Vec<u8>),
    /// Transport status 9: the device is disabled, or the answer outgrew its buffer.
    NotProcessed,
}

/// A device from its start to its end.
#[derive(Debug)]
pub struct Device {
    store: Store,
    /// Whether the storage is still to be erased, as the stock program does at the first message.
    erase: bool,
    scheme: String,
    csr: Habits,
    clock: Clock,
    alive: bool,
}

/// The flags of one message.
struct Flags<'a> {
    keep_alive: bool,
    verify: bool,
    disable: bool,
    requests: Option<&'a Value>,
}

impl Device {
    /// A device that has just started, and what is odd about it.
    pub fn start(storage: &Path, keep_storage: bool, scenario: &Scenario) -> io::Result<Self> {
        Ok(Self {
            store: Store::open(storage)?,
            erase: !keep_storage,
            scheme: scenario.scheme_version.clone().unwrap_or_else(|| SCHEME_VERSION.to_owned()),
            csr: scenario.csr.clone(),
            clock: 0,
            alive: false,
        })
    }

    /// Whether the session goes on behind the last answer.
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// Does what a well-framed payload asks for.
    pub fn handle(&mut self, payload: &[u8]) -> Reply {
        let mut findings = Findings::default();
        let outcome = self.process(payload, &mut findings);
        if outcome.as_ref().is_err_and(|failure| failure.status == Status::FactoryDisabled) {
            return Reply::NotProcessed;
        }
        findings.answer(outcome).map_or(Reply::NotProcessed, Reply::Answer)
    }

    fn process(&mut self, payload: &[u8], findings: &mut Findings) -> Result<(), Failure> {
        if self.erase {
            self.store.wipe()?;
            self.erase = false;
        }
        let pairs = cbor::top_map(payload)?;
        let find = |key: &str| pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        self.check_scheme(find("SchemeVersion"))?;
        self.inject(find("Entropy"), ENTROPY_LENGTH, Status::EntropyExists, |h| &mut h.entropy)?;
        self.inject(find("ROT"), ROOT_OF_TRUST_LENGTH, Status::RootOfTrustExists, |h| &mut h.root_of_trust)?;
        if self.store.holdings().factory_disabled {
            return Err(Failure::general(Status::FactoryDisabled));
        }

        let flags = self.take_groups(&pairs, findings)?;
        self.alive = flags.keep_alive;
        if flags.keep_alive && flags.disable {
            return Err(Failure::general(Status::SessionFlag));
        }
        if let Some(requests) = flags.requests {
            if findings.session.is_none() || flags.verify || flags.disable {
                return Err(Failure::general(Status::Malformed));
            }
            findings.has_large_buffer = true;
            findings.csrs = items::make_requests(&mut self.store, requests, &self.csr)?;
        }
        if !flags.keep_alive {
            self.trust_time_server()?;
        }
        if flags.verify {
            verify::verify(self.store.holdings(), self.clock, &mut findings.warnings)?;
        }
        if flags.disable {
            self.store.change(|holdings| holdings.factory_disabled = true)?;
        }
        Ok(())
    }

    fn check_scheme(&self, value: Option<&Value>) -> Result<(), Failure> {
        match value {
            Some(Value::Text(text)) if *text == self.scheme => Ok(()),
            Some(Value::Bytes(bytes)) if bytes == self.scheme.as_bytes() => Ok(()),
            _ => Err(Failure::general(Status::WrongScheme)),
        }
    }

    /// Write-once bytes of a fixed length.
    fn inject(
        &mut self,
        value: Option<&Value>,
        length: usize,
        exists: Status,
        place: impl Fn(&mut Holdings) -> &mut Option<Bytes>,
    ) -> Result<(), Failure> {
        let Some(value) = value else { return Ok(()) };
        let bytes = value.bytes()?.to_vec();
        if bytes.len() != length {
            return Err(Failure::general(Status::BadParameter));
        }
        let mut before = None;
        self.store.change(|holdings| {
            let place = place(holdings);
            before = place.clone();
            place.get_or_insert(Bytes(bytes));
        })?;
        match before {
            None => Ok(()),
            Some(_) => Err(Failure::general(exists)),
        }
    }

    /// Goes through the groups in the order they were sent. Names are compared as prefixes.
    fn take_groups<'a>(
        &mut self,
        pairs: &'a [(String, Value)],
        findings: &mut Findings,
    ) -> Result<Flags<'a>, Failure> {
        let mut flags = Flags { keep_alive: false, verify: true, disable: false, requests: None };
        let groups = [
            "SchemeVersion",
            "Entropy",
            "ROT",
            "Keys",
            "Certificates",
            "CertificateChains",
            "ConfigParams",
            "Verify",
            "Disable",
            "KpAlvSess",
            "SID",
            "CsrReqs",
        ];
        for (key, value) in pairs {
            let Some(group) = groups.into_iter().find(|group| is_prefix_of(group, key)) else {
                return Err(Failure::general(Status::UnknownGroup));
            };
            match group {
                "Keys" => each(value, |item| items::store_key(&mut self.store, item))?,
                "Certificates" => each(value, |item| items::store_certificate(&mut self.store, item))?,
                "CertificateChains" => each(value, |item| items::store_chain(&mut self.store, item))?,
                "ConfigParams" => {
                    each(value, |item| items::store_parameter(&mut self.store, &mut self.clock, item))?;
                }
                "Verify" => flags.verify = flag(value)?,
                "Disable" => flags.disable = flag(value)?,
                "KpAlvSess" => {
                    let invalid = |_| Failure::general(Status::SessionFlag);
                    flags.keep_alive = flag(value).map_err(invalid)?;
                }
                "SID" => findings.session = Some(value.text()?.to_owned()),
                "CsrReqs" => flags.requests = Some(value),
                // The scheme, the entropy and the root of trust were taken before.
                _ => {}
            }
        }
        Ok(flags)
    }

    /// Only the last message of a session does this, and only the first such message has an effect.
    fn trust_time_server(&mut self) -> Result<(), Failure> {
        if !verify::uses_bootstrap(self.store.holdings())? {
            return Ok(());
        }
        let key = verify::time_server(self.store.holdings())?;
        self.store.change(|holdings| {
            holdings.time_server.get_or_insert(Bytes(key));
        })
    }
}

fn each(group: &Value, take: impl FnMut(&Value) -> Result<(), Failure>) -> Result<(), Failure> {
    group.array()?.iter().try_for_each(take)
}

fn flag(value: &Value) -> Result<bool, Failure> {
    match value.integer()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::general(Status::Malformed)),
    }
}
