//! What was made of each work order, and what may still be made. Pure.

use std::time::{Duration, SystemTime};

use super::{accounts::Place, batch::Counted};
use crate::order::WorkOrder;

/// Why nothing more is signed for a work order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefusal {
    /// Nobody opened it.
    #[error("work_order {0} is not open: open it with the order that the brand owner signed")]
    Unknown(String),
    /// Its key is not in the configuration any more.
    #[error("work_order {0} was signed with a key that is not one of the signer's `order-keys` any more")]
    Withdrawn(String),
    /// Another order by this id.
    #[error("work_order {0} is open with other terms: a changed order needs an id of its own")]
    Differs(String),
    /// Too early.
    #[error("work_order {order} begins at {}, and it is {}", utc(*begins), utc(*now))]
    NotYet {
        /// Which.
        order: String,
        /// When it begins.
        begins: i64,
        /// When it was asked for.
        now: i64,
    },
    /// Too late, by the clock or by what the ledger holds.
    #[error("work_order {order} ended at {}, and it is {}; see that the signer's clock is right", utc(*ended), utc(*now))]
    Expired {
        /// Which.
        order: String,
        /// When it ended.
        ended: i64,
        /// When it was asked for.
        now: i64,
    },
    /// Not what was ordered.
    #[error("recipe_digest is not that of the recipe that work_order {0} is for")]
    OtherRecipe(String),
    /// All units are counted.
    #[error("work_order {order} is used up: {units} units were counted, its quantity and its spare ones")]
    UnitsUsedUp {
        /// Which.
        order: String,
        /// So many.
        units: u32,
    },
    /// Too many keys have died.
    #[error(
        "work_order {order} allows {replacements} certificates for devices that had one, and all are counted"
    )]
    ReplacementsUsedUp {
        /// Which.
        order: String,
        /// So many.
        replacements: u32,
    },
}

/// An order as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderAccount {
    /// What may be made.
    pub order: WorkOrder,
    /// As it was signed.
    pub(super) signed: String,
    /// Whether its key is none of the signer's any more.
    pub(super) withdrawn: bool,
    /// Issuances counted for new units.
    pub units: u32,
    /// Issuances counted for devices that had one.
    pub replacements: u32,
    /// What became of all of them.
    pub places: Places,
}

impl OrderAccount {
    /// Of an order that nothing was made of.
    pub(super) fn new(order: WorkOrder, signed: String) -> Self {
        Self { order, signed, withdrawn: false, units: 0, replacements: 0, places: Places::default() }
    }

    /// Whether one more may be counted.
    pub(super) fn allows(&self, wanted: &Wanted<'_>) -> Result<(), OrderRefusal> {
        let id = || self.order.order.to_string();
        let (begins, ended) = (self.order.not_before, self.order.not_after);
        let counted = wanted.counted;
        if self.withdrawn {
            Err(OrderRefusal::Withdrawn(id()))
        } else if wanted.now < begins {
            Err(OrderRefusal::NotYet { order: id(), begins, now: wanted.now })
        } else if wanted.now > ended {
            Err(OrderRefusal::Expired { order: id(), ended, now: wanted.now })
        } else if wanted.recipe != self.order.recipe {
            Err(OrderRefusal::OtherRecipe(id()))
        } else if wanted.replaces && self.replacements + counted.replacements >= self.order.replacements {
            Err(OrderRefusal::ReplacementsUsedUp { order: id(), replacements: self.order.replacements })
        } else if !wanted.replaces && self.units + counted.units >= self.order.units() {
            Err(OrderRefusal::UnitsUsedUp { order: id(), units: self.order.units() })
        } else {
            Ok(())
        }
    }
}

/// One more issuance of an order.
pub struct Wanted<'a> {
    /// SHA-256 of its recipe.
    pub recipe: [u8; 32],
    /// Whether the device had one in this order.
    pub replaces: bool,
    /// Seconds since 1970 UTC.
    pub now: i64,
    /// What is being counted beside it.
    pub counted: &'a Counted,
}

/// How many of an order's issuances are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Places {
    /// Nobody has said yet.
    pub open: u32,
    /// Left the factory.
    pub shipped: u32,
    /// Set aside.
    pub quarantined: u32,
    /// Destroyed.
    pub scrapped: u32,
    /// Replaced, because their keys died.
    pub superseded: u32,
}

impl Places {
    /// How many there are in all.
    pub fn sum(&self) -> u32 {
        self.open + self.shipped + self.quarantined + self.scrapped + self.superseded
    }

    pub(super) fn enter(&mut self, place: Place) {
        *self.at(place) += 1;
    }

    pub(super) fn leave(&mut self, place: Place) {
        *self.at(place) -= 1;
    }

    fn at(&mut self, place: Place) -> &mut u32 {
        match place {
            Place::Open => &mut self.open,
            Place::Shipped => &mut self.shipped,
            Place::Quarantined => &mut self.quarantined,
            Place::Scrapped => &mut self.scrapped,
            Place::Superseded => &mut self.superseded,
        }
    }
}

fn utc(seconds: i64) -> humantime::Rfc3339Timestamp {
    let since_epoch = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since_epoch)
}
