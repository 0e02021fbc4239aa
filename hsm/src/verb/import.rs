//! `import`: takes the certificate that the brand owner's root has signed.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use factory_hsm::{
    ceremony::{self, Ceremony, role::RoleName},
    config::Config,
};
use time::OffsetDateTime;

use crate::verb::{Record, read_pin};

/// What `import` may be told.
#[derive(Args)]
pub struct Import {
    /// The configuration file.
    #[arg(long, default_value = "/etc/factory-station/signer.toml")]
    config: PathBuf,
    /// authority:NAME, provenance or firmware.
    #[arg(long)]
    role: RoleName,
    /// The certificate and those above it, PEM, the role's own first.
    file: PathBuf,
    #[command(flatten)]
    record: Record,
}

/// Prints what was taken.
pub fn import(options: Import) -> Result<()> {
    options.record.prepare()?;
    let config = Config::read(&options.config)?;
    let pin = read_pin(&config.pin_credential)?;
    let role = ceremony::named(&config, &options.role)?;
    let ceremony = Ceremony::open(&config, &pin, None, OffsetDateTime::now_utc())?;
    options.record.keep(&ceremony.import(&role, &options.file)?)
}
