//! Compares what is true of units in different places: what the MES was shown, what the controller keeps, the signer's
//! ledger, the devices, the tags. Pure: the evidence is collected elsewhere; a place that is not there is not asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use data_encoding::HEXLOWER;
use factory_proto::{ids::EnrolmentId, station::Outcome};

mod rules;

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// All that is to be compared, of one unit or of many.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The runs that the station accepted, in the order in which they were started.
    pub runs: Vec<Run>,
    /// What the controller keeps, in the order in which it came.
    pub reports: Vec<Report>,
    /// What the signer's ledger says of each issuance; `None` while signers have none.
    pub ledger: Option<Vec<Issuance>>,
    /// The issuances that the station's journal knows of.
    pub journalled: BTreeSet<String>,
    /// The units themselves, by serial number.
    pub units: BTreeMap<String, Unit>,
}

/// A run that the station accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// On which unit.
    pub serial: String,
    /// Each result of it that anybody was shown.
    pub shown: Vec<Shown>,
}

/// A result, as somebody was shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// How the run ended.
    pub outcome: Outcome,
    /// Of the unit's certificate; `None` also where certificates are not shown.
    pub certificate: Option<Fingerprint>,
}

/// A result that the controller keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its key at its station.
    pub sequence: u64,
    /// Of which run.
    pub run: String,
    /// Of which unit.
    pub serial: String,
    /// How the run ended.
    pub outcome: Outcome,
    /// Of the certificate that it names.
    pub certificate: Option<Fingerprint>,
    /// Whether the unit is to be set aside.
    pub quarantined: bool,
}

/// What became of an issuance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// Its id.
    pub id: String,
    /// For whom.
    pub endpoint_name: String,
    /// How it stands.
    pub state: State,
    /// Of its certificate, if there is one.
    pub certificate: Option<Fingerprint>,
    /// What tells the certified key from others, if the ledger says so.
    pub key: Option<String>,
}

/// How an issuance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Counted, not signed.
    Asked,
    /// Its certificate is live.
    Issued,
    /// It has no live certificate, and will have none.
    Void,
}

/// What is found in the unit itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// The name that it is to have.
    pub endpoint_name: String,
    /// Whether nothing is wrong with it.
    pub sound: bool,
    /// Of the certificate in the device.
    pub certificate: Option<Fingerprint>,
    /// Whether the device holds the key that its certificate is for.
    pub holds_key: bool,
    /// Whether its factory code is closed.
    pub closed: bool,
    /// All that is readable on its tag.
    pub tag: Vec<u8>,
}

/// Something that must never be, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Which rule is broken.
    pub rule: Rule,
    /// Of which unit; empty when of none.
    pub serial: String,
    /// How.
    pub sentence: String,
}

/// What is always to be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Each accepted run has a result at the controller.
    NothingLost,
    /// And only one.
    NothingDoubled,
    /// No result is of a run that nobody started.
    NothingInvented,
    /// Keys rise in the order in which results come.
    InOrder,
    /// A result is the same wherever and whenever it is shown.
    Unchanging,
    /// A PASS that was shown is kept.
    ShownIsDurable,
    /// A unit that nothing is wrong with is not blamed for what was killed around it: FAIL counts against the yield.
    BlamesNoUnit,
    /// A unit passes once.
    PassesOnce,
    /// Device, tag, result and ledger agree on a unit that passed.
    PassMeansWhole,
    /// An endpoint name has at most one live certificate.
    OneLivePerName,
    /// A key has at most one live certificate.
    OneLivePerKey,
    /// No live certificate is for a unit that nobody made, or from an issuance that the station does not know of.
    NoneUnknown,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, serial, sentence } = self;
        match serial.as_str() {
            "" => write!(f, "{rule:?}: {sentence}"),
            serial => write!(f, "{rule:?}: unit {serial}: {sentence}"),
        }
    }
}

/// Everything that must never be, and is.
pub fn judge(evidence: &Evidence) -> Vec<Violation> {
    let mut violations = Vec::new();
    rules::results(evidence, &mut violations);
    rules::passes(evidence, &mut violations);
    rules::certificates(evidence, &mut violations);
    violations.sort();
    violations.dedup();
    violations
}

fn short(certificate: Option<Fingerprint>) -> String {
    certificate.map_or_else(
        || "no certificate".to_owned(),
        |print| format!("certificate {}", HEXLOWER.encode(&print[..4])),
    )
}

impl Unit {
    fn tag_says(&self, certificate: Fingerprint) -> bool {
        let id = EnrolmentId::of_fingerprint(&certificate);
        self.tag.windows(id.as_str().len()).any(|bytes| bytes == id.as_str().as_bytes())
    }
}

#[cfg(test)]
mod tests;
