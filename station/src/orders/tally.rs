//! What the log says of one unit of an order: `record × unit → unit`, pure.

use factory_journal::Sequence;
use factory_proto::{disposition::Disposition, ids::OrderId, outcome::Outcome};
use uuid::Uuid;

use crate::record::{IssuanceAsked, Record, RunId};

/// Where a unit is, as far as the log knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is in the order's list only.
    NotStarted,
    /// It has a run without a result.
    InNest,
    /// Nobody has said what became of it.
    Open,
    /// It left the factory.
    Shipped,
    /// It is set aside.
    Quarantined,
    /// It was destroyed.
    Scrapped,
}

/// A unit of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitTally {
    /// The last record about it.
    pub last: Sequence,
    /// Whether a run of it in this order has passed.
    pub passed: bool,
    /// All issuances that were asked for it, in all orders, oldest first.
    pub issuances: Vec<Issuance>,
    runs: u32,
    results: u32,
    /// What was said since its last run began.
    said: Option<Disposition>,
    set_aside: bool,
}

/// An issuance of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// By which the signer knows it.
    pub id: Uuid,
    /// The device's name.
    pub endpoint_name: String,
    /// In which run it was asked for.
    pub run: RunId,
    /// Whether it belongs to the order.
    pub of_order: bool,
    /// The one that was asked for in its place.
    pub superseded_by: Option<Uuid>,
    /// What became of its unit since it was asked for.
    pub said: Option<Disposition>,
}

impl UnitTally {
    /// Takes in a record about the unit; `order` is the one whose books are made.
    pub fn learn(&mut self, order: &OrderId, sequence: Sequence, record: &Record) {
        self.last = sequence;
        match record {
            Record::RunOpened(opened) if opened.order.as_ref() == Some(order) => {
                self.runs += 1;
                self.said = None;
            }
            Record::RunClosed(closed) if closed.opened.order.as_ref() == Some(order) => {
                self.results += 1;
                self.passed |= closed.outcome == Outcome::Pass;
                self.set_aside |= closed.quarantine.is_some();
            }
            Record::IssuanceAsked(asked) => self.asked(order, asked),
            Record::UnitReleased(_) => self.set_aside = false,
            Record::UnitDisposed(disposed) => {
                self.said = Some(disposed.disposition);
                self.issuances.iter_mut().for_each(|issuance| issuance.said = self.said);
            }
            _ => {}
        }
    }

    fn asked(&mut self, order: &OrderId, asked: &IssuanceAsked) {
        // The same issuance is asked for again when its answer was lost.
        if self.issuances.iter().any(|issuance| issuance.id == asked.issuance) {
            return;
        }
        if let Some(old) = self.issuances.iter_mut().find(|issuance| Some(issuance.id) == asked.supersedes) {
            old.superseded_by = Some(asked.issuance);
        }
        self.issuances.push(Issuance {
            id: asked.issuance,
            endpoint_name: asked.endpoint_name.to_string(),
            run: asked.run,
            of_order: asked.order == *order,
            superseded_by: None,
            said: None,
        });
    }

    /// Where it is.
    pub fn standing(&self) -> Standing {
        match self.said {
            _ if self.runs > self.results => Standing::InNest,
            Some(Disposition::Shipped) => Standing::Shipped,
            Some(Disposition::Scrapped) => Standing::Scrapped,
            Some(Disposition::Quarantined) => Standing::Quarantined,
            None if self.set_aside => Standing::Quarantined,
            None if self.runs > 0 => Standing::Open,
            None => Standing::NotStarted,
        }
    }

    /// Whether it has a result, and none of them is a pass.
    pub fn failed(&self) -> bool {
        self.results > 0 && !self.passed
    }
}
