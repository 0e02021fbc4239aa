//! What is in a store, for people and other programs: JSON lines, CSV, and the files of heads that
//! `stationctl provenance verify --head` takes.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use data_encoding::{BASE64, HEXLOWER};
use factory_proto::station::Unit;
use serde_json::json;

use super::{Store, StoredHead, StoredResult};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line, with measurements and the device's answers.
    Jsonl,
    /// A table with a header line, without them.
    Csv,
}

/// The columns of the table.
const COLUMNS: [&str; 16] = [
    "station",
    "sequence",
    "run",
    "work_order",
    "serial",
    "nest",
    "outcome",
    "failing_step",
    "reason",
    "started",
    "ended",
    "endpoint_name",
    "enrolment_id",
    "tag_uid",
    "recipe_sha256",
    "golden",
];

/// Writes all results, in the order in which they were kept.
///
/// # Errors
/// The store cannot be read, or `out` not written.
pub fn results(store: &Store, format: Format, mut out: impl Write + Send) -> anyhow::Result<()> {
    match format {
        Format::Jsonl => store.results(|result| Ok(writeln!(out, "{}", object(&result))?))?,
        Format::Csv => {
            let mut table = csv::Writer::from_writer(&mut out);
            table.write_record(COLUMNS)?;
            store.results(|result| Ok(table.write_record(line(&result))?))?;
            table.flush()?;
        }
    }
    Ok(out.flush()?)
}

/// Writes each head into a file of its own, `STATION-RECORD.json`, so that the last by name is a station's newest;
/// gives their paths, in that order.
///
/// # Errors
/// The store cannot be read, or a file not written.
pub fn heads(store: &Store, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let mut paths = Vec::new();
    store.heads(|StoredHead { station, last_sequence, head }| {
        let certificates: Vec<String> = head.certificates.iter().map(|der| BASE64.encode(der)).collect();
        let text = json!({
            "statement": BASE64.encode(&head.statement),
            "signature": BASE64.encode(&head.signature),
            "certificates": certificates,
        });
        let path = folder.join(format!("{station}-{last_sequence:020}.json"));
        fs::write(&path, text.to_string()).with_context(|| format!("write {}", path.display()))?;
        paths.push(path);
        Ok(())
    })?;
    paths.sort();
    Ok(paths)
}

fn object(StoredResult { station, sequence, unit }: &StoredResult) -> serde_json::Value {
    let identity = unit.identity.clone().unwrap_or_default();
    let measurements: Vec<_> = unit
        .measurements
        .iter()
        .map(|m| {
            json!({
                "name": m.name, "value": m.value, "unit": m.unit, "lower-limit": m.lower_limit,
                "upper-limit": m.upper_limit, "within-limits": m.within_limits,
            })
        })
        .collect();
    let fcc: Vec<_> = unit
        .fcc_answers
        .iter()
        .map(|a| {
            let items: Vec<_> = a
                .items
                .iter()
                .map(|item| json!({"kind": item.kind, "name": item.name, "sha256": HEXLOWER.encode(&item.digest)}))
                .collect();
            json!({
                "session": a.session, "return-status": a.return_status, "info": a.info_message,
                "warnings": a.warnings, "items": items,
            })
        })
        .collect();
    json!({
        "station": station, "sequence": sequence, "run": unit.run_id, "work-order": unit.work_order,
        "serial": unit.serial, "nest": unit.nest, "outcome": unit.outcome().as_str_name(),
        "failing-step": unit.failing_step, "reason": unit.reason,
        "started": time(unit.started), "ended": time(unit.ended),
        "firmware": unit.firmware_version,
        "flash-sha256": unit.flash.as_ref().map(|flash| HEXLOWER.encode(&flash.digest)),
        "measurements": measurements, "fcc": fcc,
        "endpoint-name": identity.endpoint_name, "enrolment-id": identity.enrolment_id,
        "tag-uid": unit.tag.as_ref().map(|tag| HEXLOWER.encode(&tag.uid)),
        "recipe-sha256": HEXLOWER.encode(&unit.recipe_digest), "golden": unit.golden,
    })
}

fn line(StoredResult { station, sequence, unit }: &StoredResult) -> [String; COLUMNS.len()] {
    let Unit { run_id, work_order, serial, nest, failing_step, reason, .. } = unit.clone();
    let identity = unit.identity.clone().unwrap_or_default();
    [
        station.clone(),
        sequence.to_string(),
        run_id,
        work_order,
        serial,
        nest,
        unit.outcome().as_str_name().trim_start_matches("OUTCOME_").to_owned(),
        failing_step,
        reason,
        time(unit.started),
        time(unit.ended),
        identity.endpoint_name,
        identity.enrolment_id,
        unit.tag.as_ref().map(|tag| HEXLOWER.encode(&tag.uid)).unwrap_or_default(),
        HEXLOWER.encode(&unit.recipe_digest),
        unit.golden.to_string(),
    ]
}

fn time(stamp: Option<prost_types::Timestamp>) -> String {
    super::row::time(stamp).map(super::row::utc).unwrap_or_default()
}
