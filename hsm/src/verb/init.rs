//! `init`: makes what is missing of the token, its keys and their certificates.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use factory_hsm::{
    ceremony::{self, Ceremony, role::RoleName},
    config::Config,
};
use time::OffsetDateTime;

use crate::verb::{Names, Record, read_pin, read_so_pin};

/// What `init` may be told.
#[derive(Args)]
pub struct Init {
    /// The configuration file.
    #[arg(long, default_value = "/etc/factory-station/signer.toml")]
    config: PathBuf,
    /// Only this one: authority:NAME, provenance or firmware.
    #[arg(long)]
    role: Option<RoleName>,
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    record: Record,
}

/// Prints what was made.
pub fn init(options: Init) -> Result<()> {
    options.record.prepare()?;
    let config = Config::read(&options.config)?;
    let (pin, so_pin) = (read_pin(&config.pin_credential)?, read_so_pin(&config)?);
    let plan = options.names.plan(&config);
    let roles = ceremony::missing(&config, options.role.as_ref(), &plan)?;
    let ceremony = Ceremony::open(&config, &pin, so_pin.as_ref(), OffsetDateTime::now_utc())?;
    options.record.keep(&ceremony.certify(&roles, &plan)?)
}
