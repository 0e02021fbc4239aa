//! `export`: prints a role's certificates for the platform.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use factory_hsm::{
    ceremony::{self, role::RoleName},
    config::Config,
};

/// What `export` may be told.
#[derive(Args)]
pub struct Export {
    /// The configuration file.
    #[arg(long, default_value = "/etc/factory-station/signer.toml")]
    config: PathBuf,
    /// authority:NAME, provenance or firmware.
    #[arg(long)]
    role: RoleName,
}

/// PEM, the root first.
pub fn export(options: &Export) -> Result<()> {
    let config = Config::read(&options.config)?;
    print!("{}", ceremony::export(&ceremony::named(&config, &options.role)?)?);
    Ok(())
}
