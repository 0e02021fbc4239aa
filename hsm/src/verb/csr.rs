//! `csr`: makes a role's key, if there is none, and a request for its certificate.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use factory_hsm::{
    ceremony::{self, Ceremony, role::RoleName},
    config::Config,
};
use time::OffsetDateTime;

use crate::verb::{Names, Record, read_pin, read_so_pin};

/// What `csr` may be told.
#[derive(Args)]
pub struct Csr {
    /// The configuration file.
    #[arg(long, default_value = "/etc/factory-station/signer.toml")]
    config: PathBuf,
    /// authority:NAME, provenance or firmware.
    #[arg(long)]
    role: RoleName,
    /// Where the request goes, PKCS#10 in PEM; must not be there yet.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    record: Record,
}

/// Prints what was made and what was there.
pub fn csr(options: Csr) -> Result<()> {
    options.record.prepare()?;
    let config = Config::read(&options.config)?;
    let (pin, so_pin) = (read_pin(&config.pin_credential)?, read_so_pin(&config)?);
    let plan = options.names.plan(&config);
    let role = ceremony::named(&config, &options.role)?;
    let ceremony = Ceremony::open(&config, &pin, so_pin.as_ref(), OffsetDateTime::now_utc())?;
    options.record.keep(&ceremony.request(&role, &plan, &options.out)?)
}
