//! What the ledger's records come to: `record × accounts → accounts`, and what may be done next. Pure.
//!
//! Records of different issuances may stand in the ledger in another order than they were decided in. So what is void
//! stays void, whatever is learnt of it later.

use std::collections::HashMap;

use factory_journal::Sequence;
use factory_proto::head::HeadStatement;

use super::record::{Asked, HeadSigned, Record, Terms};

/// What became of an issuance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Counted, and not signed yet.
    Asked(Terms),
    /// Its certificate is live, and stands in this record.
    Issued(Sequence),
    /// Superseded; its certificate, if there ever was one, stands in this record.
    Void(Option<Sequence>),
}

/// An issuance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The endpoint name; empty for one that was void before anybody asked.
    pub endpoint_name: String,
    key: [u8; 32],
    request: [u8; 32],
    /// What became of it.
    pub standing: Standing,
}

/// What is to be done about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nobody asked for this before: journal it, then sign.
    New,
    /// It was counted, and not signed: sign it, on these terms.
    Again(Terms),
    /// Its certificate stands in this record.
    Answer(Sequence),
}

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The same id with other contents.
    #[error("issuance_id was used with another request; a new request needs a new id")]
    Differs,
    /// Superseded, perhaps before it came.
    #[error("issuance_id was superseded: its key has died, and it gets no certificate")]
    Superseded,
    /// One live certificate per device.
    #[error("endpoint_name has a live certificate by issuance {0}; supersede that one if its key has died")]
    EndpointTaken(String),
    /// One live certificate per key.
    #[error("certificate_request holds a key that has a live certificate by issuance {0}")]
    KeyTaken(String),
    /// The superseded issuance belongs to another device.
    #[error("supersedes names an issuance of {0}, another endpoint name")]
    OtherEndpoint(String),
    /// An issuance that replaces itself.
    #[error("supersedes names the issuance itself")]
    Itself,
}

/// Why a head is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadRefusal {
    /// The log went back behind what was signed for it.
    #[error(
        "the log ends at record {asked}, but a head was signed for it up to record {signed}: it was rolled back or \
         copied; restore it, or begin a new one"
    )]
    Behind {
        /// Where it ends now.
        asked: u64,
        /// Where it ended then.
        signed: u64,
    },
    /// Another story up to the same record.
    #[error("another head was signed for this log up to record {0}: its records were changed")]
    Differs(u64),
    /// A gap, or an overlap.
    #[error("the head must begin with record {expected}, where the one before ended, not with {asked}")]
    Gap {
        /// Where it must begin.
        expected: u64,
        /// Where it begins.
        asked: u64,
    },
}

impl HeadRefusal {
    /// The last record of the head that was signed before, if there is one.
    pub fn signed_up_to(&self) -> Option<u64> {
        match *self {
            Self::Behind { signed, .. } | Self::Differs(signed) => Some(signed),
            Self::Gap { expected, .. } => expected.checked_sub(1).filter(|signed| *signed > 0),
        }
    }
}

/// All accounts.
#[derive(Debug, Default)]
pub struct Accounts {
    issuances: HashMap<String, Account>,
    by_endpoint: HashMap<String, String>,
    by_key: HashMap<[u8; 32], String>,
    heads: HashMap<[u8; 16], (HeadStatement, HeadSigned)>,
}

impl Accounts {
    /// Takes in a record. Total: a ledger that its journal has verified is believed.
    pub fn learn(&mut self, sequence: Sequence, record: &Record) {
        match record {
            Record::Asked(asked) => self.ask(asked),
            Record::Issued(issued) => self.issued(&issued.issuance, sequence),
            Record::HeadSigned(signed) => {
                if let Ok(statement) = HeadStatement::decode(&signed.statement) {
                    self.head_signed(statement, signed.clone());
                }
            }
        }
    }

    /// What is to be done about a request.
    ///
    /// # Errors
    /// Why nothing may be signed for it.
    pub fn decide(&self, asked: &Asked) -> Result<Decision, Refusal> {
        if let Some(known) = self.issuances.get(&asked.issuance) {
            return match known.standing {
                Standing::Void(_) => Err(Refusal::Superseded),
                _ if known.request != asked.request => Err(Refusal::Differs),
                Standing::Asked(terms) => Ok(Decision::Again(terms)),
                Standing::Issued(sequence) => Ok(Decision::Answer(sequence)),
            };
        }
        let supersedes = asked.supersedes.as_ref();
        if supersedes == Some(&asked.issuance) {
            return Err(Refusal::Itself);
        }
        if let Some(old) = supersedes.and_then(|old| self.issuances.get(old))
            && !old.endpoint_name.is_empty()
            && old.endpoint_name != asked.endpoint_name
        {
            return Err(Refusal::OtherEndpoint(old.endpoint_name.clone()));
        }
        match self.by_endpoint.get(&asked.endpoint_name) {
            Some(live) if Some(live) != supersedes => return Err(Refusal::EndpointTaken(live.clone())),
            _ => {}
        }
        match self.by_key.get(&asked.key) {
            Some(live) if Some(live) != supersedes => Err(Refusal::KeyTaken(live.clone())),
            _ => Ok(Decision::New),
        }
    }

    /// A request is counted.
    pub fn ask(&mut self, asked: &Asked) {
        if let Some(old) = &asked.supersedes {
            self.void(old);
        }
        let Asked { issuance, endpoint_name, key, request, terms, .. } = asked;
        // One that was superseded before it came stays void, and now it has a name.
        let standing = match self.issuances.get(issuance).map(|known| known.standing) {
            Some(void @ Standing::Void(_)) => void,
            _ => {
                self.by_endpoint.insert(endpoint_name.clone(), issuance.clone());
                self.by_key.insert(*key, issuance.clone());
                Standing::Asked(*terms)
            }
        };
        let account =
            Account { endpoint_name: endpoint_name.clone(), key: *key, request: *request, standing };
        self.issuances.insert(issuance.clone(), account);
    }

    /// An issuance has its certificate, in the record `sequence`.
    pub fn issued(&mut self, issuance: &str, sequence: Sequence) {
        if let Some(account) = self.issuances.get_mut(issuance) {
            account.standing = match account.standing {
                Standing::Asked(_) => Standing::Issued(sequence),
                Standing::Void(None) => Standing::Void(Some(sequence)),
                settled => settled,
            };
        }
    }

    /// What is known of an issuance.
    pub fn account(&self, issuance: &str) -> Option<&Account> {
        self.issuances.get(issuance)
    }

    /// The answer to a head that was signed before, if this is that one.
    ///
    /// # Errors
    /// Why it must not be signed.
    pub fn decide_head(&self, asked: &HeadStatement) -> Result<Option<HeadSigned>, HeadRefusal> {
        let Some((signed, answer)) = self.heads.get(&asked.log_id) else {
            return match asked.first_sequence {
                1 => Ok(None),
                first => Err(HeadRefusal::Gap { expected: 1, asked: first }),
            };
        };
        // The time is when it was asked for, not what the log was.
        let mut same_time = asked.clone();
        same_time.time = signed.time;
        let same = same_time == *signed;
        match asked.last_sequence {
            _ if same => Ok(Some(answer.clone())),
            last if last < signed.last_sequence => {
                Err(HeadRefusal::Behind { asked: last, signed: signed.last_sequence })
            }
            last if last == signed.last_sequence => Err(HeadRefusal::Differs(last)),
            _ if asked.first_sequence != signed.last_sequence + 1 => {
                Err(HeadRefusal::Gap { expected: signed.last_sequence + 1, asked: asked.first_sequence })
            }
            _ => Ok(None),
        }
    }

    /// A head was signed.
    pub fn head_signed(&mut self, statement: HeadStatement, answer: HeadSigned) {
        self.heads.insert(statement.log_id, (statement, answer));
    }

    fn void(&mut self, issuance: &str) {
        let nobody = || Account {
            endpoint_name: String::new(),
            key: [0; 32],
            request: [0; 32],
            standing: Standing::Void(None),
        };
        let account = self.issuances.entry(issuance.to_owned()).or_insert_with(nobody);
        account.standing = match account.standing {
            Standing::Asked(_) => Standing::Void(None),
            Standing::Issued(sequence) => Standing::Void(Some(sequence)),
            void @ Standing::Void(_) => void,
        };
        if self.by_endpoint.get(&account.endpoint_name).is_some_and(|live| live == issuance) {
            self.by_endpoint.remove(&account.endpoint_name);
        }
        if self.by_key.get(&account.key).is_some_and(|live| live == issuance) {
            self.by_key.remove(&account.key);
        }
    }
}

#[cfg(test)]
mod tests;
