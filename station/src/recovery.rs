//! After a restart: every run that was open ends, before its nest takes another unit.

use std::{collections::BTreeMap, time::SystemTime};

use factory_journal::{Journal, JournalError, Sequence};
use factory_proto::outcome::Outcome;
use tracing::warn;

use crate::{
    phase::{IllegalRecord, Phase},
    record::{Findings, Record, RunClosed, RunId, RunOpened, Stopped},
    step::{Repeat, Step},
};

/// Why the journal's story could not be continued.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// It cannot be read or written.
    #[error("the journal cannot be continued")]
    Journal(#[from] JournalError),
    /// It tells what cannot be.
    #[error("the journal tells what cannot be; keep it, and start with another state folder")]
    Story(#[from] IllegalRecord),
}

/// Closes every run that a station's end left open, and says how many these were.
pub async fn close_open_runs(journal: &Journal<Record>) -> Result<usize, RecoveryError> {
    let open = open_runs(journal)?;
    let found = open.len();
    for (run, step, findings) in open {
        let reason = reason(step);
        warn!(nest = %run.nest, run = %run.run, serial = %run.serial, reason, "closed a run that was left open");
        let closed = RunClosed {
            opened: run,
            ended: SystemTime::now(),
            outcome: Outcome::Error,
            stopped: Some(Stopped { step, reason }),
            findings,
        };
        journal.append(Record::RunClosed(Box::new(closed))).await?;
    }
    Ok(found)
}

fn open_runs(journal: &Journal<Record>) -> Result<Vec<(RunOpened, Option<Step>, Findings)>, RecoveryError> {
    let mut phases: BTreeMap<RunId, (Phase, Findings)> = BTreeMap::new();
    for entry in journal.read(Sequence::START) {
        let record = entry?.record;
        let Some(run) = record.run() else { continue };
        let (phase, mut findings) = phases
            .remove(&run)
            .map_or((None, Findings::default()), |(phase, findings)| (Some(phase), findings));
        let phase = Phase::after(phase, &record)?;
        if phase == Phase::Closed {
            continue;
        }
        if let Record::Issued(issued) = record {
            findings.identity = Some(issued.identity);
        }
        phases.insert(run, (phase, findings));
    }
    Ok(phases
        .into_values()
        .filter_map(|(phase, findings)| match phase {
            Phase::Opened(run) => Some((run, None, findings)),
            Phase::Inside(run, step) => Some((run, Some(step), findings)),
            Phase::Closed => None,
        })
        .collect())
}

fn reason(step: Option<Step>) -> String {
    let advice = match step.map(Step::repeat) {
        None | Some(Repeat::Harmless) => "start the unit again",
        Some(Repeat::OnceCheckable) => {
            "set the unit aside: it may hold a certificate; start it again only after its device was erased"
        }
        Some(Repeat::Irreversible) => {
            "set the unit aside: whether its factory code is closed is not known to the station"
        }
    };
    format!("the station ended while the run was in it; {advice}")
}
