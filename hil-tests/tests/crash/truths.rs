//! Collects what is true of units, each truth from where it lies.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::Context as _;
use data_encoding::{HEXLOWER_PERMISSIVE, HEXUPPER};
use factory_hil_tests::{
    control,
    device::{
        keys::{self, PrivateKey},
        store::{self, Kind},
    },
    judge::{Evidence, Fingerprint, Report, Run, Unit},
    mes::store::{Store, StoredResult},
    reader::{self, Dump},
    rig::Rig,
};
use sha2::{Digest, Sha256};

use crate::ledger;

const CERTIFICATE: &str = "mbed.BootstrapDeviceCert";
const KEY: &str = "mbed.BootstrapDevicePrivateKey";

/// The endpoint name that the recipe gives a unit.
pub fn endpoint_name(serial: &str) -> String {
    format!("sensor-{serial}")
}

/// What the controller has in its database, in the order in which it came.
fn reports(store: &Store) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    store.results(|StoredResult { sequence, unit, .. }| {
        let enrolment_id = unit.identity.as_ref().map(|identity| &identity.enrolment_id);
        reports.push(Report {
            sequence,
            outcome: unit.outcome(),
            certificate: enrolment_id.and_then(|id| id.strip_prefix("A-")).map(fingerprint).transpose()?,
            run: unit.run_id,
            serial: unit.serial,
            quarantined: false,
        });
        Ok(())
    })?;
    Ok(reports)
}

fn fingerprint(hex: &str) -> anyhow::Result<Fingerprint> {
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.replace(':', "").as_bytes())?;
    bytes.try_into().ok().with_context(|| format!("{hex} is no fingerprint"))
}

/// Whether the signer keeps a ledger.
pub fn keeps_ledger(rig: &Rig) -> anyhow::Result<bool> {
    Ok(fs::read_to_string(rig.folder.join("signer.toml"))?.lines().any(|line| line.starts_with("ledger")))
}

/// How the journal writes an id: as a CBOR text of 36 bytes.
const ID_BEGINS: [u8; 2] = [0x78, 36];

/// Those of these ids that stand anywhere in the station's journal.
fn journalled(rig: &Rig, ids: &BTreeSet<String>) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(rig.folder.join("journal"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let bytes = fs::read(path)?;
            let texts = bytes.windows(38).filter_map(|window| window.strip_prefix(&ID_BEGINS));
            let written = texts.filter_map(|text| std::str::from_utf8(text).ok());
            found.extend(written.filter(|text| ids.contains(*text)).map(ToOwned::to_owned));
        }
    }
    Ok(found)
}

/// What is found in the unit that lies in a nest.
pub fn unit(rig: &Rig, nest: &str, serial: &str, sound: bool) -> anyhow::Result<Unit> {
    let device = store::read(&rig.nest(nest).join(format!("board-{serial}.fcc")))?;
    let certificate = device.get(Kind::Certificate, CERTIFICATE);
    let key = device.get(Kind::PrivateKey, KEY).and_then(PrivateKey::from_der);
    let holds_key = certificate
        .and_then(keys::certificate)
        .zip(key)
        .is_some_and(|(certificate, key)| keys::certified_point(&certificate) == key.public_point());
    let dump: Option<Dump> = control::call(&rig.nest(nest).join("tag/control.sock"), &reader::Request::Dump)?;
    let pages = dump.context("a tag lies on the reader")?.pages;
    let tag = pages.iter().map(|page| HEXUPPER.decode(page.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    Ok(Unit {
        endpoint_name: endpoint_name(serial),
        sound,
        certificate: certificate.map(|der| Sha256::digest(der).into()),
        holds_key,
        closed: device.factory_disabled,
        tag: tag.concat(),
    })
}

/// Compares all truths of these units, or of the whole line when these are all of them.
pub fn evidence(
    rig: &Rig,
    store: &Store,
    runs: Vec<Run>,
    units: BTreeMap<String, Unit>,
    whole: bool,
) -> anyhow::Result<Evidence> {
    let (mut reports, mut ledger) =
        (reports(store)?, keeps_ledger(rig)?.then(|| ledger::read(&rig.folder.join("ledger"))).transpose()?);
    if !whole {
        reports.retain(|report| units.contains_key(&report.serial));
        let names: BTreeSet<&str> = units.values().map(|unit| unit.endpoint_name.as_str()).collect();
        if let Some(ledger) = &mut ledger {
            ledger.retain(|issuance| names.contains(issuance.endpoint_name.as_str()));
        }
    }
    let ids: BTreeSet<String> = ledger.iter().flatten().map(|issuance| issuance.id.clone()).collect();
    Ok(Evidence { runs, reports, journalled: journalled(rig, &ids)?, ledger, units })
}
