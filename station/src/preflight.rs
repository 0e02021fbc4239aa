//! What must be right before a work order is opened, and what else an engineer wants to know before the line runs: each
//! looked at, and what to do where it is wrong.

use std::time::{Duration, SystemTime};

use factory_journal::{Journal, JournalError};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::{
    contact::Known,
    health::{self, clock::Clock},
    line::Line,
    nest::{Nest, Shared},
    record::Record,
};

/// A signer that is well answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What, as in `clock`, or `nest A`.
    pub name: String,
    /// What was found; where it is wrong, what is wrong and what to do.
    pub found: Result<String, String>,
}

impl Check {
    fn new(name: impl Into<String>, found: Result<String, String>) -> Self {
        Self { name: name.into(), found }
    }
}

/// Looks at everything. Starts and changes nothing.
///
/// # Errors
/// The journal cannot be read.
pub async fn look(shared: &Shared, nests: impl Iterator<Item = &Nest>) -> Result<Vec<Check>, JournalError> {
    let mut checks = vec![
        Check::new("clock", clock(&shared.journal)?.map_or(Ok("is sane".to_owned()), Err)),
        Check::new(
            "disk",
            health::journal_trouble(&shared.journal).map_or(Ok("has room for the journal".to_owned()), Err),
        ),
    ];
    checks.push(Check::new("line", leave(&shared.line)));
    for held in shared.recipes.held().into_iter().filter(|held| held.active) {
        let (name, digest) = (&held.key.0, data_encoding::HEXLOWER.encode(&held.key.1));
        let found = held.complaint.map_or(Ok(format!("has SHA-256 {digest}")), Err);
        checks.push(Check::new(format!("recipe {name}"), found));
    }
    for (serial, recipe) in shared.golden.named() {
        let found = shared.recipes.named(recipe).map(|_| format!("is made by recipe {recipe}"));
        checks.push(Check::new(format!("golden unit {serial}"), found.map_err(|error| error.to_string())));
    }
    checks.extend(signer(shared).await);
    for nest in nests {
        let look = nest.look().await;
        let found = match (look.parked, look.golden.due) {
            (Some(reason), _) => Err(format!("is parked: {reason}")),
            (None, Some(due)) => Err(format!("must have a golden unit first: {}", due.reason)),
            (None, None) => Ok("answers".to_owned()),
        };
        checks.push(Check::new(format!("nest {}", nest.name()), found));
    }
    Ok(checks)
}

/// Why no work order is opened now, whatever it is: it could not start one unit. `None` when one may be.
///
/// # Errors
/// The journal cannot be read.
pub fn trouble(shared: &Shared) -> Result<Option<String>, JournalError> {
    let journal = &shared.journal;
    let trouble = clock(journal)?.or_else(|| health::journal_trouble(journal));
    Ok(trouble.or_else(|| leave(&shared.line).err().map(|wrong| format!("the line {wrong}"))))
}

/// Whose leave a unit could be started with now. A controller that was not called yet may well answer.
fn leave(line: &Line) -> Result<String, String> {
    if !line.interlock.demanded {
        return Ok("starts units without leave".to_owned());
    }
    let address = line.controllers.in_use().address;
    let known = line.controllers.contact().watch().borrow().clone();
    match (known, line.offline.left().left) {
        (Known::Nothing, _) => Ok(format!("has its controller at {address}, which was not called yet")),
        (Known::Answers, _) => Ok(format!("has its controller at {address}, which answers")),
        (Known::Away(reason), 0) => Err(format!(
            "has no controller that answers ({reason}), and nothing is left of an offline budget: see to the controller, or \
             load an allowance with stationctl budget load"
        )),
        (Known::Away(reason), left) => Ok(format!(
            "has no controller that answers ({reason}); {left} units may be started on the offline budget"
        )),
    }
}

async fn signer(shared: &Shared) -> Vec<Check> {
    let described = timeout(PATIENCE, shared.signer.ca_certificate()).await;
    let ca = match described {
        Ok(Ok(ca)) => ca,
        Ok(Err(error)) => return vec![Check::new("signer", Err(error.to_string()))],
        Err(_) => {
            let late = format!("did not answer within {} s; see to it", PATIENCE.as_secs());
            return vec![Check::new("signer", Err(late))];
        }
    };
    let registered = shared.attestations.check(&Sha256::digest(&ca), None);
    let registered = registered.map(|()| "is registered with its account, as was attested".to_owned());
    vec![
        Check::new("signer", Ok("answers".to_owned())),
        Check::new("device CA", registered.map_err(|error| error.to_string())),
    ]
}

fn clock(journal: &Journal<Record>) -> Result<Option<String>, JournalError> {
    let newest = journal.newest()?.map(|entry| entry.time);
    Ok(Clock::since(newest).look(SystemTime::now()))
}
