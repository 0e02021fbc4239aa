//! The signer's ledger as it lies on its disk: segments as `station/journal/src/segment.rs` has them, records as
//! `hsm/src/ledger/record.rs` has them. Read without any code of the signer's, and while it runs.

use std::{fs, path::Path};

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use factory_hil_tests::judge::{Issuance, State};
use minicbor::{Decoder, data::Type};
use sha2::{Digest, Sha256};

const HEADER: usize = 64;
const PREFIX: usize = 8;
/// Of a record, behind its prefix.
const KIND_AT: usize = 24;
const PAYLOAD_AT: usize = 58;
const PROGRAM_RECORD: u8 = 1;

/// Every issuance, in the order in which they were asked for.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Issuance>> {
    let mut segments: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    let mut issuances = Vec::new();
    for path in segments {
        let bytes = fs::read(&path)?;
        for body in bodies(bytes.get(HEADER..).unwrap_or_default()) {
            if body.get(KIND_AT) == Some(&PROGRAM_RECORD) {
                learn(&mut issuances, &body[PAYLOAD_AT..]).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(issuances)
}

/// What follows each record's prefix, up to a record that is not finished.
fn bodies(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_le_bytes(*rest.first_chunk()?)).ok()?;
        let body = rest.get(PREFIX..PREFIX + length).filter(|body| body.len() >= PAYLOAD_AT)?;
        rest = &rest[PREFIX + length..];
        Some(body)
    })
}

fn learn(issuances: &mut Vec<Issuance>, record: &[u8]) -> anyhow::Result<()> {
    let mut fields = Decoder::new(record);
    fields.array()?;
    let variant = fields.u32()?;
    // The variant's one field, and the fields of that.
    fields.array()?;
    fields.array()?;
    match variant {
        0 => asked(issuances, &mut fields),
        1 => issued(issuances, &mut fields),
        // Heads are no issuances.
        _ => Ok(()),
    }
}

fn asked(issuances: &mut Vec<Issuance>, fields: &mut Decoder<'_>) -> anyhow::Result<()> {
    let id = fields.str()?.to_owned();
    let _order = fields.str()?;
    let endpoint_name = fields.str()?.to_owned();
    let key = Some(HEXLOWER.encode(fields.bytes()?));
    let _request = fields.bytes()?;
    if fields.datatype()? == Type::String {
        let superseded = fields.str()?;
        match issuances.iter_mut().find(|issuance| issuance.id == superseded) {
            Some(issuance) => issuance.state = State::Void,
            None => issuances.push(Issuance {
                id: superseded.to_owned(),
                endpoint_name: endpoint_name.clone(),
                state: State::Void,
                certificate: None,
                key: None,
            }),
        }
    }
    // Records of different issuances may stand in another order than they were decided in.
    if !issuances.iter().any(|issuance| issuance.id == id) {
        issuances.push(Issuance { id, endpoint_name, state: State::Asked, certificate: None, key });
    }
    Ok(())
}

fn issued(issuances: &mut [Issuance], fields: &mut Decoder<'_>) -> anyhow::Result<()> {
    let id = fields.str()?;
    let issuance = issuances.iter_mut().find(|issuance| issuance.id == id);
    let issuance = issuance.with_context(|| format!("{id} was issued and never asked for"))?;
    issuance.certificate = Some(Sha256::digest(fields.bytes()?).into());
    if issuance.state == State::Asked {
        issuance.state = State::Issued;
    }
    Ok(())
}
