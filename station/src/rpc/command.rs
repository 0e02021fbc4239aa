//! Wire messages as commands: every complaint about every field at once.

mod budget;
mod fields;
mod list;
mod nest;
mod order;
mod recipe;
mod registration;
mod unit;
mod watch;
mod yields;

pub use budget::allowance;
pub use list::{List, ListAudit, Page};
pub use nest::{nest, park};
pub use order::{OpenOrder, Reconcile, close, pause, resume};
pub use recipe::{recipe, upload};
pub use registration::attest;
pub use unit::{Abort, StartUnit, dispose, golden, release, run_id};
pub use yields::yields;
