//! What must be right before a work order is opened, and what else an engineer wants to know before the line runs: each
//! looked at, and what to do where it is wrong.

use std::time::{Duration, SystemTime};

use factory_journal::{Journal, JournalError, Sequence};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::{
    health,
    nest::{Nest, Shared},
    record::Record,
};

/// 2026-01-01: no station of this kind is older, so a clock before it was never set.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);
/// What a time server may set a clock back at once.
const STEP: Duration = Duration::from_secs(60);
/// Among so many of the newest records there is one of ours.
const NEWEST: u64 = 16;
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
    for held in shared.recipes.held().into_iter().filter(|held| held.active) {
        let (name, digest) = (&held.key.0, data_encoding::HEXLOWER.encode(&held.key.1));
        let found = held.complaint.map_or(Ok(format!("has SHA-256 {digest}")), Err);
        checks.push(Check::new(format!("recipe {name}"), found));
    }
    checks.extend(signer(shared).await);
    for nest in nests {
        let parked = nest.look().await.parked;
        let found = parked.map_or(Ok("answers".to_owned()), |reason| Err(format!("is parked: {reason}")));
        checks.push(Check::new(format!("nest {}", nest.name()), found));
    }
    Ok(checks)
}

/// Why no work order is opened now, whatever it is; `None` when one may be.
///
/// # Errors
/// The journal cannot be read.
pub fn trouble(journal: &Journal<Record>) -> Result<Option<String>, JournalError> {
    Ok(clock(journal)?.or_else(|| health::journal_trouble(journal)))
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
    let from = journal.last().get().saturating_sub(NEWEST);
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in journal.read(Sequence::from(from).next()) {
        newest = newest.max(entry?.time);
    }
    Ok(judge(SystemTime::now(), newest))
}

/// What is wrong with a clock that says `now`, when the log's newest record is from `newest`.
fn judge(now: SystemTime, newest: SystemTime) -> Option<String> {
    let shown = humantime::format_rfc3339_seconds;
    if now < SystemTime::UNIX_EPOCH + EARLIEST {
        return Some(format!(
            "the clock says {} and was never set; have it set by a time server",
            shown(now)
        ));
    }
    if now + STEP < newest {
        return Some(format!(
            "the clock says {}, the journal's newest record is from {}; set the clock right, or wait until it has \
             caught up",
            shown(now),
            shown(newest)
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_sane_when_it_was_set_and_not_set_back() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let check = |now: u64, newest: u64, wanted: Option<&str>| {
            assert_eq!(judge(at(now), at(newest)).as_deref(), wanted, "{now} {newest}");
        };
        check(1_767_225_600, 0, None);
        check(1_800_000_000, 1_799_999_999, None);
        check(1_800_000_000, 1_800_000_060, None);
        check(
            1_767_225_599,
            0,
            Some("the clock says 2025-12-31T23:59:59Z and was never set; have it set by a time server"),
        );
        check(
            1_800_000_000,
            1_800_000_061,
            Some(
                "the clock says 2027-01-15T08:00:00Z, the journal's newest record is from 2027-01-15T08:01:01Z; set the \
                 clock right, or wait until it has caught up",
            ),
        );
    }
}
