//! What `factory-signerd` can be told to do, a file for each; and what several of them are told.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use factory_hsm::{
    ceremony::{Plan, transcript::Transcript},
    config::Config,
    credential::{CredentialError, Pin},
    profile::{Country, Name, YEAR},
};

pub mod check;
pub mod csr;
pub mod export;
pub mod import;
pub mod init;
pub mod ledger;
pub mod reconcile;
pub mod serve;
pub mod sign_image;
pub mod sign_order;

/// What the certificates of a ceremony are to say.
#[derive(Args)]
struct Names {
    /// The CN of the CA.
    #[arg(long, default_value = "Device Identity CA")]
    ca_common_name: Name,
    /// The O of the CA; by default the configuration's.
    #[arg(long)]
    organization: Option<Name>,
    /// The C of the CA; by default the configuration's.
    #[arg(long)]
    country: Option<Country>,
    /// How many years the CA is valid; a root that signs a request decides for itself.
    #[arg(long, default_value_t = 35, value_parser = clap::value_parser!(u16).range(10..=100))]
    ca_years: u16,
}

impl Names {
    fn plan(self, config: &Config) -> Plan {
        let mut subject = config.subject.clone();
        subject.organization = self.organization.or(subject.organization);
        subject.country = self.country.or(subject.country);
        Plan { common_name: self.ca_common_name, subject, lifetime: YEAR * u32::from(self.ca_years) }
    }
}

/// Where the record of a ceremony goes.
#[derive(Args)]
struct Record {
    /// Write the transcript there as well, JSON.
    #[arg(long)]
    transcript: Option<PathBuf>,
}

impl Record {
    /// Before anything is done.
    fn prepare(&self) -> Result<()> {
        match &self.transcript {
            Some(path) if path.exists() => {
                bail!("{} is there already: nothing was done, name another transcript", path.display())
            }
            _ => Ok(()),
        }
    }

    fn keep(&self, transcript: &Transcript) -> Result<()> {
        println!("{transcript}");
        if let Some(path) = &self.transcript {
            fs::write(path, format!("{:#}\n", transcript.json())).with_context(|| {
                format!("all is done, but the transcript cannot be written to {}", path.display())
            })?;
        }
        Ok(())
    }
}

/// The service manager's credentials come first.
fn read_pin(credential: &Path) -> Result<Pin, CredentialError> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Pin::read(credential, directory.as_deref())
}

fn read_so_pin(config: &Config) -> Result<Option<Pin>, CredentialError> {
    config.so_pin_credential.as_deref().map(read_pin).transpose()
}
