//! An order's books: what the log says of each unit, held against what the signer says of each issuance. Reads only.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use factory_journal::{JournalError, Sequence};
use factory_proto::ids::{OrderId, Serial};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{
    OrderError, Orders,
    tally::{Issuance, Standing, UnitTally},
};
use crate::{
    signer::{IssuancePlace as Place, Signer, SignerBooks},
    unit_list::UnitList,
    units::Units,
};

/// The books of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// What the log comes to.
    pub station: StationBooks,
    /// The signer's, all stations together.
    pub signer: SignerBooks,
    /// Units that are not accounted for, or about which the two differ: first those that only the signer knows, then by
    /// serial number.
    pub unsettled: Vec<Unsettled>,
}

/// Units by what the log says of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StationBooks {
    /// Those with a run.
    pub units: u32,
    /// Those with a run that passed.
    pub passed: u32,
    /// Those with results of which none is a pass.
    pub failed: u32,
    /// Those with a run that has no result.
    pub in_nests: u32,
    /// Those that left the factory.
    pub shipped: u32,
    /// Those that were destroyed.
    pub scrapped: u32,
    /// Those that are set aside.
    pub quarantined: u32,
    /// Those of which nobody has said anything.
    pub open: u32,
    /// Those in the order's list without a run.
    pub not_started: u32,
}

impl StationBooks {
    fn count(&mut self, unit: &UnitTally) {
        let standing = unit.standing();
        *match standing {
            Standing::NotStarted => &mut self.not_started,
            Standing::InNest => &mut self.in_nests,
            Standing::Open => &mut self.open,
            Standing::Shipped => &mut self.shipped,
            Standing::Quarantined => &mut self.quarantined,
            Standing::Scrapped => &mut self.scrapped,
        } += 1;
        if standing != Standing::NotStarted {
            self.units += 1;
        }
        self.passed += u32::from(unit.passed);
        self.failed += u32::from(unit.failed());
    }
}

/// How the station and the signer differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// The station never asked for the issuance.
    StationUnaware,
    /// The unit has a certificate that the signer does not know.
    SignerUnaware,
    /// They have the unit in different places.
    Place,
}

/// A unit that is not accounted for, or about which the two differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// Absent where only the signer knows of it.
    pub serial: Option<Serial>,
    /// What the log says; absent with the serial number.
    pub standing: Option<Standing>,
    /// The issuance, and the name of its device.
    pub issuance: Option<(Uuid, String)>,
    /// Where the signer has the issuance.
    pub signer: Option<Place>,
    /// Absent when they agree.
    pub difference: Option<Difference>,
}

impl Unsettled {
    /// Whether this station has something to say of it before its order is closed: what another one has made, and what
    /// was never begun, does not count.
    pub fn hinders_closing(&self) -> bool {
        self.standing.is_some_and(|standing| standing != Standing::NotStarted)
    }
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.serial {
            Some(serial) => write!(f, "unit {serial}")?,
            None => f.write_str("a unit of another station")?,
        }
        if let Some((id, name)) = &self.issuance {
            write!(f, " ({name}, issuance {id})")?;
        }
        f.write_str(match self.difference {
            None => " is open",
            Some(Difference::StationUnaware) => " is known to the signer only",
            Some(Difference::SignerUnaware) => " has a certificate that the signer does not know",
            Some(Difference::Place) => " is in another place in the signer's books",
        })
    }
}

impl Orders {
    /// Makes the books of an order.
    ///
    /// # Errors
    /// It was never opened here, the signer cannot be asked, or others are being made.
    pub async fn reconcile(&self, order: &OrderId, signer: &Signer) -> Result<Reconciled, OrderError> {
        let _alone = self.reconciling.try_lock().map_err(|_| OrderError::Reconciling)?;
        self.make_books(order, signer).await
    }

    /// As [`Orders::reconcile`], after others were made.
    pub(super) async fn reconcile_patiently(
        &self,
        order: &OrderId,
        signer: &Signer,
    ) -> Result<Reconciled, OrderError> {
        let _alone = self.reconciling.lock().await;
        self.make_books(order, signer).await
    }

    async fn make_books(&self, order: &OrderId, signer: &Signer) -> Result<Reconciled, OrderError> {
        self.get(order)?;
        let list = self.unit_list(order)?;
        // In this order: whatever the signer has, was in the log before.
        let before = self.units.journal().last();
        let books = signer.books(order).await?;
        let (units, order) = (self.units.clone(), order.clone());
        let made = spawn_blocking(move || {
            let tallies = gather(&units, &order, list.as_deref())?;
            let certified = certified(&units, &tallies, &books)?;
            Ok(hold(&tallies, books, &certified, before))
        });
        made.await.map_err(|_| OrderError::Journal(JournalError::Closed))?
    }
}

/// What the log says of each unit of the order.
fn gather(
    units: &Units,
    order: &OrderId,
    list: Option<&UnitList>,
) -> Result<BTreeMap<Serial, UnitTally>, OrderError> {
    let mut tallies = BTreeMap::new();
    for serial in units.serials(order)? {
        let mut tally = UnitTally::default();
        for entry in units.story(&serial)? {
            tally.learn(order, entry.sequence, &entry.record);
        }
        tallies.insert(serial, tally);
    }
    for (serial, _) in list.iter().flat_map(|list| list.iter()) {
        tallies.entry(serial.clone()).or_default();
    }
    Ok(tallies)
}

/// The issuances that the signer does not know, though their certificates are in the log.
fn certified(
    units: &Units,
    tallies: &BTreeMap<Serial, UnitTally>,
    books: &SignerBooks,
) -> Result<HashSet<Uuid>, JournalError> {
    let mut certified = HashSet::new();
    for unit in tallies.values() {
        for (index, issuance) in unit.issuances.iter().enumerate() {
            // The certificate of a run is that of the last issuance that was asked for in it.
            let is_last = !unit.issuances[index + 1..].iter().any(|later| later.run == issuance.run);
            if issuance.of_order
                && is_last
                && !books.issuances.contains_key(&issuance.id)
                && units.find(issuance.run)?.is_some_and(|unit| unit.identity.is_some())
            {
                certified.insert(issuance.id);
            }
        }
    }
    Ok(certified)
}

/// Holds one against the other. What is said in the log behind `before` may be news to the signer.
fn hold(
    tallies: &BTreeMap<Serial, UnitTally>,
    mut signer: SignerBooks,
    certified: &HashSet<Uuid>,
    before: Sequence,
) -> Reconciled {
    let mut station = StationBooks::default();
    let mut unsettled = Vec::new();
    for (serial, unit) in tallies {
        station.count(unit);
        let standing = unit.standing();
        let moves = standing == Standing::InNest || unit.last > before;
        let found = |issuance: Option<&Issuance>, place, difference| Unsettled {
            serial: Some(serial.clone()),
            standing: Some(standing),
            issuance: issuance.map(|it| (it.id, it.endpoint_name.clone())),
            signer: place,
            difference,
        };
        let (mut last, mut differs) = (None, false);
        for issuance in unit.issuances.iter().filter(|issuance| issuance.of_order) {
            let place = signer.issuances.get(&issuance.id).map(|reckoned| reckoned.place);
            let difference = match place {
                None if certified.contains(&issuance.id) => Some(Difference::SignerUnaware),
                Some(place) if !agrees(issuance, unit, place, &signer) => Some(Difference::Place),
                _ => None,
            };
            if difference.is_some() && !moves {
                unsettled.push(found(Some(issuance), place, difference));
                differs = true;
            }
            last = Some((issuance, place));
        }
        if !differs && matches!(standing, Standing::NotStarted | Standing::InNest | Standing::Open) {
            let (issuance, place) = last.unzip();
            unsettled.push(found(issuance, place.flatten(), None));
        }
    }
    for issuance in tallies.values().flat_map(|unit| &unit.issuances) {
        signer.issuances.remove(&issuance.id);
    }
    let mut foreign: Vec<_> = signer.issuances.drain().collect();
    foreign.sort_unstable_by_key(|(id, _)| *id);
    let foreign = foreign.into_iter().map(|(id, reckoned)| Unsettled {
        serial: None,
        standing: None,
        issuance: Some((id, reckoned.endpoint_name)),
        signer: Some(reckoned.place),
        difference: Some(Difference::StationUnaware),
    });
    Reconciled { station, signer, unsettled: foreign.chain(unsettled).collect() }
}

/// Whether the signer has an issuance where the log says that it should be.
fn agrees(issuance: &Issuance, unit: &UnitTally, place: Place, signer: &SignerBooks) -> bool {
    let by = issuance.superseded_by.and_then(|id| unit.issuances.iter().find(|other| other.id == id));
    let as_said = place == Place::of(issuance.said);
    match by {
        // Where the next one is in another order, this order's books do not tell whether it ever came.
        Some(by) if !by.of_order => as_said || place == Place::Superseded,
        Some(by) if signer.issuances.contains_key(&by.id) => place == Place::Superseded,
        _ => as_said,
    }
}

#[cfg(test)]
mod tests;
