//! `init`: makes what is missing of the token, its keys and their certificates.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::Args;
use factory_hsm::{
    ceremony::{self, Plan},
    config::Config,
    profile::{Country, Name, YEAR},
};
use time::OffsetDateTime;

use crate::verb::read_pin;

/// What `init` may be told.
#[derive(Args)]
pub struct Init {
    /// The configuration file.
    #[arg(long, default_value = "/etc/factory-station/signer.toml")]
    config: PathBuf,
    /// The CN of the CA.
    #[arg(long, default_value = "Device Identity CA")]
    ca_common_name: Name,
    /// The O of the CA; by default the configuration's.
    #[arg(long)]
    organization: Option<Name>,
    /// The C of the CA; by default the configuration's.
    #[arg(long)]
    country: Option<Country>,
    /// How many years the CA is valid.
    #[arg(long, default_value_t = 35, value_parser = clap::value_parser!(u16).range(10..=100))]
    ca_years: u16,
}

/// Prints what was made and what was there.
pub fn init(options: Init) -> Result<()> {
    let config = Config::read(&options.config)?;
    let user_pin = read_pin(&config.pin_credential)?;
    let so_pin = config.so_pin_credential.as_deref().map(read_pin).transpose()?;

    let mut subject = config.subject.clone();
    subject.organization = options.organization.or(subject.organization);
    subject.country = options.country.or(subject.country);
    let plan = Plan { common_name: options.ca_common_name, subject, lifetime: years(options.ca_years) };

    let transcript =
        ceremony::initialise(&config, &plan, &user_pin, so_pin.as_ref(), OffsetDateTime::now_utc())?;
    println!("{transcript}");
    Ok(())
}

fn years(years: u16) -> Duration {
    YEAR * u32::from(years)
}
