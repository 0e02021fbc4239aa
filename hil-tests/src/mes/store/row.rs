//! A report as a row: what an integrator asks for in columns, the rest as JSON, and the message as it came.

use std::{borrow::Cow, time::SystemTime};

use data_encoding::HEXLOWER;
use factory_proto::{
    head::HeadStatement,
    ids::NestName,
    station::{FccAnswer, Measurement, Outcome, SignedHead, StepResult, Unit},
};
use prost::Message as _;
use serde::Serialize;

/// Bytes of a text that rows are found by. PostgreSQL's indices take 2,700.
const LONGEST: usize = 1_000;

/// The row of a result. Digests, UIDs and chip ids are in lower-case hex; empty fields of the message are `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRow {
    /// The station's name.
    pub station: String,
    /// The station's number for the report.
    pub sequence: i64,
    /// The run's id: what tells a repetition from another result under the same key.
    pub run: String,
    pub(super) work_order: String,
    pub(super) serial: String,
    pub(super) nest: String,
    /// As in `PASS`.
    pub(super) outcome: &'static str,
    pub(super) failing_step: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) started: Option<SystemTime>,
    pub(super) ended: Option<SystemTime>,
    pub(super) endpoint_name: Option<String>,
    pub(super) enrolment_id: Option<String>,
    pub(super) tag_uid: Option<String>,
    pub(super) chip: Option<String>,
    pub(super) recipe_sha256: Option<String>,
    pub(super) flash_sha256: Option<String>,
    pub(super) firmware_version: Option<String>,
    pub(super) station_version: Option<String>,
    /// Why the unit must be set aside.
    pub(super) quarantine: Option<String>,
    /// JSON arrays of objects, and for the unit's own values an object.
    pub(super) steps: String,
    pub(super) measurements: String,
    pub(super) fcc: String,
    pub(super) own_values: String,
    /// The `Unit`, encoded.
    pub(super) message: Vec<u8>,
    /// Whether it is a golden unit, and no product.
    pub(super) golden: bool,
}

/// The row of a signed head.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadRow {
    /// The station's name.
    pub station: String,
    /// The station's number for the report.
    pub sequence: i64,
    pub(super) log_id: String,
    pub(super) first_sequence: i64,
    pub(super) last_sequence: i64,
    pub(super) closed_runs: i64,
    /// The statement, signed.
    pub(super) statement: Vec<u8>,
    /// The `SignedHead`, encoded.
    pub(super) message: Vec<u8>,
}

/// Why a report makes no row, however often it comes.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The station's name is none.
    #[error("the name of the station {0}")]
    Station(#[from] factory_proto::ids::IdError),
    /// A database counts to 2^63.
    #[error("{what} {number} is larger than any that a log reaches")]
    Number {
        /// What it numbers.
        what: &'static str,
        /// The number.
        number: u64,
    },
    /// Longer than any name, and than a database finds rows by.
    #[error("its {what} is {length} bytes long, at most {LONGEST} are kept")]
    Long {
        /// Which text.
        what: &'static str,
        /// Its length.
        length: usize,
    },
    /// The head says nothing.
    #[error("the head's statement cannot be read: {0}")]
    Statement(#[from] factory_proto::head::NoStatement),
}

fn number(what: &'static str, number: u64) -> Result<i64, Unfit> {
    i64::try_from(number).map_err(|_| Unfit::Number { what, number })
}

impl ResultRow {
    /// The row of a unit's result.
    ///
    /// # Errors
    /// It has no key that a database could hold.
    pub fn new(station: &str, sequence: u64, unit: Unit) -> Result<Self, Unfit> {
        station.parse::<NestName>()?;
        for (what, text) in
            [("run id", &unit.run_id), ("work order", &unit.work_order), ("serial", &unit.serial)]
        {
            if text.len() > LONGEST {
                return Err(Unfit::Long { what, length: text.len() });
            }
        }
        let message = unit.encode_to_vec();
        let outcome = Outcome::try_from(unit.outcome).unwrap_or_default();
        let (endpoint_name, enrolment_id) = match unit.identity {
            Some(identity) => (identity.endpoint_name, identity.enrolment_id),
            None => Default::default(),
        };
        Ok(Self {
            station: station.to_owned(),
            sequence: number("report", sequence)?,
            run: text(unit.run_id),
            work_order: text(unit.work_order),
            serial: text(unit.serial),
            nest: text(unit.nest),
            outcome: outcome.as_str_name().trim_start_matches("OUTCOME_"),
            failing_step: filled(unit.failing_step),
            reason: filled(unit.reason),
            started: time(unit.started),
            ended: time(unit.ended),
            endpoint_name: filled(endpoint_name),
            enrolment_id: filled(enrolment_id),
            tag_uid: unit.tag.and_then(|tag| hex(&tag.uid)),
            chip: hex(&unit.chip),
            recipe_sha256: hex(&unit.recipe_digest),
            flash_sha256: unit.flash.and_then(|flash| hex(&flash.digest)),
            firmware_version: filled(unit.firmware_version),
            station_version: filled(unit.station_version),
            quarantine: unit.quarantine.map(|quarantine| text(quarantine.reason)),
            steps: json(unit.steps.iter().map(Step::from).collect::<Vec<_>>()),
            measurements: json(unit.measurements.iter().map(Measured::from).collect::<Vec<_>>()),
            fcc: json(unit.fcc_answers.iter().map(Answered::from).collect::<Vec<_>>()),
            own_values: json(
                unit.values
                    .iter()
                    .map(|(name, value)| (clean(name), clean(value)))
                    .collect::<std::collections::BTreeMap<_, _>>(),
            ),
            message,
            golden: unit.golden,
        })
    }
}

impl HeadRow {
    /// The row of a signed head. Whether the signature is right is for whoever knows the key to find out.
    ///
    /// # Errors
    /// It has no key that a database could hold, or its statement cannot be read.
    pub fn new(station: &str, sequence: u64, head: SignedHead) -> Result<Self, Unfit> {
        station.parse::<NestName>()?;
        let statement = HeadStatement::decode(&head.statement)?;
        Ok(Self {
            station: station.to_owned(),
            sequence: number("report", sequence)?,
            log_id: HEXLOWER.encode(&statement.log_id),
            first_sequence: number("record", statement.first_sequence)?,
            last_sequence: number("record", statement.last_sequence)?,
            closed_runs: number("run", statement.closed_runs)?,
            message: head.encode_to_vec(),
            statement: head.statement,
        })
    }
}

/// A time that both databases can write down: from 1970 until the year 9999.
pub(super) fn time(stamp: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    stamp.filter(|stamp| (0..253_402_300_800).contains(&stamp.seconds))?.try_into().ok()
}

/// As in `2026-11-25T09:30:00.123456Z`.
pub(super) fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

/// PostgreSQL's texts hold no NUL, and a device may have said one.
fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

fn text(text: String) -> String {
    match clean(&text) {
        Cow::Owned(cleaned) => cleaned,
        Cow::Borrowed(_) => text,
    }
}

fn filled(field: String) -> Option<String> {
    (!field.is_empty()).then(|| text(field))
}

fn hex(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| HEXLOWER.encode(bytes))
}

fn json(value: impl Serialize) -> String {
    serde_json::to_string(&value).expect("texts and numbers are JSON")
}

#[derive(Serialize)]
struct Step<'a> {
    step: Cow<'a, str>,
    outcome: &'static str,
    seconds: f64,
}

impl<'a> From<&'a StepResult> for Step<'a> {
    fn from(step: &'a StepResult) -> Self {
        let elapsed = step.elapsed.unwrap_or_default();
        Self {
            step: clean(&step.step),
            outcome: Outcome::try_from(step.outcome)
                .unwrap_or_default()
                .as_str_name()
                .trim_start_matches("OUTCOME_"),
            seconds: elapsed.seconds as f64 + f64::from(elapsed.nanos) / 1e9,
        }
    }
}

#[derive(Serialize)]
struct Measured<'a> {
    name: Cow<'a, str>,
    value: i64,
    unit: Cow<'a, str>,
    lower: i64,
    upper: i64,
    within: bool,
}

impl<'a> From<&'a Measurement> for Measured<'a> {
    fn from(measured: &'a Measurement) -> Self {
        Self {
            name: clean(&measured.name),
            value: measured.value,
            unit: clean(&measured.unit),
            lower: measured.lower_limit,
            upper: measured.upper_limit,
            within: measured.within_limits,
        }
    }
}

#[derive(Serialize)]
struct Answered<'a> {
    session: Cow<'a, str>,
    return_status: Option<u32>,
    info: Cow<'a, str>,
    warnings: Vec<Cow<'a, str>>,
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    kind: Cow<'a, str>,
    name: Cow<'a, str>,
    sha256: String,
}

impl<'a> From<&'a FccAnswer> for Answered<'a> {
    fn from(answer: &'a FccAnswer) -> Self {
        let item = |item: &'a factory_proto::station::FccItem| Item {
            kind: clean(&item.kind),
            name: clean(&item.name),
            sha256: HEXLOWER.encode(&item.digest),
        };
        Self {
            session: clean(&answer.session),
            return_status: answer.return_status,
            info: clean(&answer.info_message),
            warnings: answer.warnings.iter().map(|warning| clean(warning)).collect(),
            items: answer.items.iter().map(item).collect(),
        }
    }
}
