//! `ledger`: prints what was signed.

use std::{
    io::{BufWriter, stdout},
    path::Path,
};

use anyhow::Result;
use factory_hsm::{config::Config, ledger::report};

/// A JSON line for each issuance and each signed head.
pub fn ledger(config: &Path) -> Result<()> {
    let config = Config::read(config)?;
    Ok(report::write(&config.ledger, &mut BufWriter::new(stdout().lock()))?)
}
