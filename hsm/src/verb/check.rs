//! `check`: says whether the token is fit for production.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use factory_hsm::{ceremony::fitness, config::Config};
use time::OffsetDateTime;

use crate::verb::read_pin;

/// What `check` may be told.
#[derive(Args)]
pub struct Check {
    /// The configuration file.
    #[arg(long, default_value = "/etc/factory-station/signer.toml")]
    config: PathBuf,
    /// For machines.
    #[arg(long)]
    json: bool,
}

/// Fails when something is not as it must be.
pub fn check(options: &Check) -> Result<ExitCode> {
    let config = Config::read(&options.config)?;
    let pin = read_pin(&config.pin_credential)?;
    let report = fitness::judge(&config, &pin, OffsetDateTime::now_utc())?;
    if options.json {
        println!("{:#}", report.json());
    } else {
        println!("{report}");
    }
    Ok(if report.is_fit() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
