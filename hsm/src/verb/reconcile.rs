//! `reconcile`: prints the books of a work order.

use std::{
    io::{BufWriter, stdout},
    path::Path,
    process::ExitCode,
};

use anyhow::Result;
use factory_hsm::{config::Config, ledger::reconcile};
use factory_proto::ids::OrderId;

/// Fails when units are open.
pub fn reconcile(order: &OrderId, config: &Path) -> Result<ExitCode> {
    let config = Config::read(config)?;
    let open = reconcile::write(&config.ledger, order, &mut BufWriter::new(stdout().lock()))?;
    Ok(if open == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
