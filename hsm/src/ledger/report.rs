//! The ledger for people and other programs: a JSON line for each issuance and each head. Reads without the lock, while
//! the signer works or when it is gone.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use data_encoding::HEXLOWER;
use factory_journal::{JournalError, Sequence, log::Log, segment::Kind};
use factory_proto::head::HeadStatement;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    accounts::{Accounts, Standing},
    record::{Asked, Record},
};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The ledger is not there, or damaged.
    #[error("the ledger cannot be read")]
    Ledger(#[from] JournalError),
    /// A record is none of this program's.
    #[error("record {sequence} of the ledger cannot be read; use the program that wrote it, or a newer one")]
    Record {
        /// Which.
        sequence: u64,
        /// Why not.
        source: minicbor::decode::Error,
    },
    /// The report could not be written.
    #[error("the report cannot be written")]
    Write(#[from] io::Error),
}

/// Goes through the whole ledger, oldest first; times are nanoseconds since 1970 UTC.
pub(super) fn read(dir: &Path, mut each: impl FnMut(Sequence, &Record, u64)) -> Result<(), ReportError> {
    for raw in Log::open(dir)? {
        let frame = raw?.frame;
        if frame.kind != Kind::Record {
            continue;
        }
        let sequence = frame.sequence.get();
        let record =
            minicbor::decode(&frame.payload).map_err(|source| ReportError::Record { sequence, source })?;
        each(frame.sequence, &record, frame.time);
    }
    Ok(())
}

/// Writes the whole ledger to `out`: issuances in the order of their requests, then heads.
///
/// # Errors
/// The ledger is damaged, or `out` takes nothing more.
pub fn write(dir: &Path, out: &mut impl Write) -> Result<(), ReportError> {
    let mut accounts = Accounts::default();
    let (mut requests, mut certificates, mut heads) =
        (Vec::<(Asked, u64)>::new(), BTreeMap::new(), Vec::new());
    read(dir, |sequence, record, time| {
        accounts.learn(sequence, record);
        match record {
            Record::Asked(asked) => requests.push((asked.clone(), time)),
            Record::Issued(issued) => {
                let fingerprint: [u8; 32] = Sha256::digest(&issued.certificate).into();
                certificates.insert(issued.issuance.clone(), fingerprint);
            }
            Record::HeadSigned(head) => heads.extend(HeadStatement::decode(&head.statement).ok()),
            Record::OrderOpened(_) | Record::Disposed(_) => {}
        }
    })?;
    for (asked, time) in requests {
        let state = match accounts.account(&asked.issuance).map(|account| account.standing) {
            Some(Standing::Issued(_)) => "issued",
            Some(Standing::Void(_)) => "void",
            Some(Standing::Asked(_)) | None => "asked",
        };
        let disposition = accounts.account(&asked.issuance).and_then(|account| account.disposition);
        let line = json!({
            "issuance": asked.issuance, "order": asked.order, "endpoint-name": asked.endpoint_name,
            "state": state, "disposition": disposition.map(|it| it.to_string()), "supersedes": asked.supersedes,
            "serial": HEXLOWER.encode(&asked.terms.serial),
            "fingerprint": certificates.get(&asked.issuance).map(|it| HEXLOWER.encode(it)),
            "asked-nanoseconds": time,
        });
        writeln!(out, "{line}")?;
    }
    for head in heads {
        let line = json!({
            "head": head.station, "log": HEXLOWER.encode(&head.log_id),
            "first": head.first_sequence, "last": head.last_sequence, "closed-runs": head.closed_runs,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}
