//! What the ledger's records come to: `record × accounts → accounts`, and what may be done next. Pure.
//!
//! Records of different issuances may stand in the ledger in another order than they were decided in. So what is void
//! stays void, whatever is learnt of it later.

use std::collections::HashMap;

use factory_journal::Sequence;
use factory_proto::{disposition::Disposition, head::HeadStatement};

use super::{
    batch::Batch,
    orders::{OrderAccount, OrderRefusal, Wanted},
    record::{Asked, Disposed, HeadSigned, Record, Terms},
};
use crate::order::{OrderKeys, WorkOrder};

/// What became of an issuance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Counted, and not signed yet.
    Asked(Terms),
    /// Its certificate is live, and stands in this record.
    Issued(Sequence),
    /// Superseded, or scrapped; its certificate, if there ever was one, stands in this record.
    Void(Option<Sequence>),
}

impl Standing {
    fn void(self) -> Self {
        match self {
            Self::Asked(_) => Self::Void(None),
            Self::Issued(sequence) => Self::Void(Some(sequence)),
            Self::Void(_) => self,
        }
    }
}

/// An issuance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The endpoint name; empty for one that was void before anybody asked.
    pub endpoint_name: String,
    /// The work order; empty for one that was void before anybody asked.
    pub order: String,
    key: [u8; 32],
    request: [u8; 32],
    serial: [u8; 16],
    /// What became of it.
    pub standing: Standing,
    /// When it became void, in seconds since 1970 UTC.
    voided: Option<i64>,
    /// What became of its unit, as far as anybody said.
    pub disposition: Option<Disposition>,
}

impl Account {
    /// Where it is reckoned.
    pub fn place(&self) -> Place {
        match (self.standing, self.disposition) {
            (_, Some(Disposition::Scrapped)) => Place::Scrapped,
            (Standing::Void(_), _) => Place::Superseded,
            (_, Some(Disposition::Shipped)) => Place::Shipped,
            (_, Some(Disposition::Quarantined)) => Place::Quarantined,
            (_, None) => Place::Open,
        }
    }

    fn void(&mut self, time: i64) {
        let void = self.standing.void();
        if void != self.standing {
            (self.standing, self.voided) = (void, Some(time));
        }
    }

    fn is_live(&self) -> bool {
        !matches!(self.standing, Standing::Void(_))
    }
}

/// An issuance whose certificate, if it has one, must not be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voided {
    /// The certificate's serial number.
    pub serial: [u8; 16],
    /// Since when, in seconds since 1970 UTC.
    pub time: i64,
    /// Whether its unit was destroyed; otherwise it was replaced.
    pub scrapped: bool,
}

/// Where an issuance is reckoned when an order's books are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nobody has said what became of its unit.
    Open,
    /// Its unit left the factory.
    Shipped,
    /// Its unit is set aside.
    Quarantined,
    /// Its unit was destroyed.
    Scrapped,
    /// Its key died, and it was replaced.
    Superseded,
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
    /// Its work order does not allow it.
    #[error(transparent)]
    Order(#[from] OrderRefusal),
    /// There is nothing whose unit could be anywhere.
    #[error("issuance_id has no certificate")]
    NothingIssued,
    /// It cannot come back.
    #[error("issuance_id is void, and its unit cannot be {0} any more")]
    Gone(Disposition),
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
    orders: HashMap<String, OrderAccount>,
    /// The issuances of each order, as they were counted.
    counted: HashMap<String, Vec<String>>,
    latest: i64,
    /// In the order in which they became void.
    voided: Vec<String>,
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
            Record::OrderOpened(opened) => {
                if let Ok(order) = WorkOrder::read(&opened.signed) {
                    self.order_opened(order, opened.signed.clone());
                }
            }
            Record::Disposed(disposed) => self.disposed(disposed),
        }
    }

    /// No time that comes later is believed to be earlier than this one, in seconds since 1970 UTC.
    pub fn see(&mut self, time: i64) {
        self.latest = self.latest.max(time);
    }

    /// Marks the orders that none of these keys has signed; they stay, and nothing more is made of them.
    pub fn trust(&mut self, keys: &OrderKeys) {
        for account in self.orders.values_mut() {
            account.withdrawn = WorkOrder::verify(&account.signed, keys).is_err();
        }
    }

    /// What is to be done about a request.
    ///
    /// # Errors
    /// Why nothing may be signed for it.
    pub fn decide(
        &self,
        asked: &Asked,
        recipe: [u8; 32],
        now: i64,
        beside: &Batch,
    ) -> Result<Decision, Refusal> {
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
        let taken =
            |by: Option<&String>| by.filter(|id| Some(*id) != supersedes && self.is_live(id)).cloned();
        if let Some(live) = taken(self.by_endpoint.get(&asked.endpoint_name)) {
            return Err(Refusal::EndpointTaken(live));
        }
        if let Some(live) = taken(self.by_key.get(&asked.key)) {
            return Err(Refusal::KeyTaken(live));
        }
        let order = self.order(&asked.order)?;
        order.allows(&Wanted {
            recipe,
            replaces: self.replaces(asked),
            now: now.max(self.latest),
            counted: &beside.counted(&asked.order),
        })?;
        Ok(Decision::New)
    }

    /// Whether the device had a certificate in the same order.
    pub fn replaces(&self, asked: &Asked) -> bool {
        let before = self.by_endpoint.get(&asked.endpoint_name).and_then(|id| self.issuances.get(id));
        before.is_some_and(|account| account.order == asked.order)
    }

    /// A request is counted.
    pub fn ask(&mut self, asked: &Asked) {
        if let Some(old) = &asked.supersedes {
            self.void(old);
        }
        let replaces = self.replaces(asked);
        self.counted.entry(asked.order.clone()).or_default().push(asked.issuance.clone());
        if let Some(order) = self.orders.get_mut(&asked.order) {
            if replaces {
                order.replacements += 1;
            } else {
                order.units += 1;
            }
        }
        let Asked { issuance, endpoint_name, order, key, request, terms, .. } = asked;
        // One that was superseded before it came stays void, and now it has a name.
        let standing = match self.issuances.get(issuance).map(|known| known.standing) {
            Some(void @ Standing::Void(_)) => void,
            _ => {
                self.by_endpoint.insert(endpoint_name.clone(), issuance.clone());
                self.by_key.insert(*key, issuance.clone());
                Standing::Asked(*terms)
            }
        };
        let account = Account {
            endpoint_name: endpoint_name.clone(),
            order: order.clone(),
            key: *key,
            request: *request,
            serial: terms.serial,
            voided: matches!(standing, Standing::Void(_)).then_some(self.latest),
            standing,
            disposition: None,
        };
        self.settle(issuance, account);
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

    /// Whether it may be said of an issuance's unit; `false` when it was said already.
    ///
    /// # Errors
    /// Why not.
    pub fn decide_disposal(&self, disposed: &Disposed) -> Result<bool, Refusal> {
        let account = self.issuances.get(&disposed.issuance).ok_or(Refusal::NothingIssued)?;
        match account.standing {
            _ if account.disposition == Some(disposed.disposition) => Ok(false),
            Standing::Issued(_) => Ok(true),
            // A board may well be destroyed before its certificate is there.
            Standing::Asked(_) if disposed.disposition == Disposition::Scrapped => Ok(true),
            Standing::Asked(_) => Err(Refusal::NothingIssued),
            Standing::Void(_) => Err(Refusal::Gone(disposed.disposition)),
        }
    }

    /// It was said what became of a unit.
    pub fn disposed(&mut self, disposed: &Disposed) {
        if let Some(account) = self.issuances.get(&disposed.issuance) {
            let mut account = account.clone();
            account.disposition = Some(disposed.disposition);
            if disposed.disposition == Disposition::Scrapped {
                account.void(self.latest);
            }
            self.settle(&disposed.issuance, account);
        }
    }

    /// What is known of a work order.
    ///
    /// # Errors
    /// It is not open.
    pub fn order(&self, id: &str) -> Result<&OrderAccount, OrderRefusal> {
        self.orders.get(id).ok_or_else(|| OrderRefusal::Unknown(id.to_owned()))
    }

    /// Whether an order is to be opened; `false` when it is open.
    ///
    /// # Errors
    /// Another one is open by this id.
    pub fn decide_order(&self, order: &WorkOrder) -> Result<bool, OrderRefusal> {
        match self.orders.get(order.order.as_str()) {
            None => Ok(true),
            Some(known) if known.order != *order => Err(OrderRefusal::Differs(order.order.to_string())),
            // Signed anew with a key that counts.
            Some(known) => Ok(known.withdrawn),
        }
    }

    /// An order was opened, or signed anew.
    pub fn order_opened(&mut self, order: WorkOrder, signed: String) {
        match self.orders.get_mut(order.order.as_str()) {
            Some(known) => (known.signed, known.withdrawn) = (signed, false),
            None => {
                self.orders.insert(order.order.to_string(), OrderAccount::new(order, signed));
            }
        }
    }

    /// How many issuances that were asked for are void.
    pub fn voided_count(&self) -> usize {
        self.voided.len()
    }

    /// The issuances of a CA that are void, oldest first: all that might have a certificate, also one that was lost before
    /// it could be kept. And the time that this is true at: `now`, or when the newest record was seen.
    pub fn voided(&self, authority: [u8; 32], now: i64) -> (i64, Vec<Voided>) {
        let of_ca = |account: &&Account| {
            self.orders.get(&account.order).is_some_and(|order| order.order.authority == authority)
        };
        let all = self.voided.iter().filter_map(|id| self.issuances.get(id)).filter(of_ca);
        let voided = |account: &Account| Voided {
            serial: account.serial,
            time: account.voided.unwrap_or(self.latest),
            scrapped: account.place() == Place::Scrapped,
        };
        (now.max(self.latest), all.map(voided).collect())
    }

    /// The issuances of an order, as they were counted.
    pub fn issuances(&self, order: &str) -> impl Iterator<Item = (&str, &Account)> {
        let counted = self.counted.get(order).map_or(&[][..], Vec::as_slice);
        counted.iter().filter_map(|id| Some((id.as_str(), self.issuances.get(id)?)))
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
            order: String::new(),
            key: [0; 32],
            request: [0; 32],
            serial: [0; 16],
            voided: None,
            standing: Standing::Void(None),
            disposition: None,
        };
        let mut account = self.issuances.get(issuance).cloned().unwrap_or_else(nobody);
        account.void(self.latest);
        self.settle(issuance, account);
    }

    /// Writes an account down, and reckons it where it now belongs.
    fn settle(&mut self, issuance: &str, account: Account) {
        let was_void = self.issuances.get(issuance).is_some_and(|before| before.voided.is_some());
        if account.voided.is_some() && !was_void {
            self.voided.push(issuance.to_owned());
        }
        if let Some(order) = self.orders.get_mut(&account.order) {
            order.places.enter(account.place());
        }
        let before = self.issuances.insert(issuance.to_owned(), account);
        if let Some(before) = before
            && let Some(order) = self.orders.get_mut(&before.order)
        {
            order.places.leave(before.place());
        }
    }

    fn is_live(&self, issuance: &str) -> bool {
        self.issuances.get(issuance).is_some_and(Account::is_live)
    }
}

#[cfg(test)]
mod tests;
