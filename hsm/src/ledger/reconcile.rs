//! The books of one work order, for people: what was issued, what became of it, and which units nobody has said anything
//! of. Reads without the lock, while the signer works or when it is gone.

use std::{
    io::{self, Write},
    path::Path,
};

use factory_proto::ids::OrderId;

use super::{
    accounts::{Accounts, Place},
    orders::OrderRefusal,
    report::{self, ReportError},
};

/// Why there are no books.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ReportError),
    /// No such order.
    #[error(transparent)]
    Order(#[from] OrderRefusal),
    /// The books could not be written.
    #[error("the books cannot be written")]
    Write(#[from] io::Error),
}

/// Writes the books of an order to `out`; says how many of its issuances are open.
///
/// # Errors
/// The ledger is damaged or holds no such order, or `out` takes nothing more.
pub fn write(dir: &Path, order: &OrderId, out: &mut impl Write) -> Result<u32, ReconcileError> {
    let mut accounts = Accounts::default();
    report::read(dir, |sequence, record, _| accounts.learn(sequence, record))?;
    let id = order.as_str();
    let account = accounts.order(id)?;
    let (order, places) = (&account.order, account.places);
    writeln!(
        out,
        "{id} ({}): {} issued = {} shipped + {} scrapped + {} quarantined + {} superseded + {} open",
        order.product,
        places.sum(),
        places.shipped,
        places.scrapped,
        places.quarantined,
        places.superseded,
        places.open,
    )?;
    writeln!(
        out,
        "{} of {} units counted ({} ordered, {} spare); {} of {} replacements counted",
        account.units,
        order.units(),
        order.quantity,
        order.spare,
        account.replacements,
        order.replacements,
    )?;
    let mut unsettled: Vec<_> = accounts
        .issuances(id)
        .filter_map(|(issuance, it)| {
            let what = match it.place() {
                Place::Open => "open",
                Place::Quarantined => "quarantined",
                Place::Shipped | Place::Scrapped | Place::Superseded => return None,
            };
            Some((what, it.endpoint_name.as_str(), issuance))
        })
        .collect();
    unsettled.sort_unstable();
    for (what, endpoint_name, issuance) in unsettled {
        writeln!(out, "{what}: {endpoint_name}, issuance {issuance}")?;
    }
    Ok(places.open)
}
