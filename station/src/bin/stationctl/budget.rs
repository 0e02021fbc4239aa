use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use factory_jws::SigningKey;
use factory_proto::{
    ids::NestName,
    station::{LoadOfflineBudgetRequest, OfflineBudget, station_client::StationClient},
};
use factory_station::line::allowance::Allowance;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::connect::refused;

#[derive(Subcommand)]
pub enum Budget {
    /// Gives the station an allowance that the MES has signed, for when no controller answers.
    Load(Load),
    /// Signs an allowance and prints it; needs no station, but the MES's key.
    Sign(Sign),
}

#[derive(Args)]
pub struct Load {
    /// The file with the signed allowance.
    file: PathBuf,
}

#[derive(Args)]
pub struct Sign {
    /// The private key that is the station file's `offline-budget.key`, P-256, PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The name of the station that it is for.
    #[arg(long)]
    station: NestName,
    /// Runs that may be started on it, 1 to 100000.
    #[arg(long)]
    units: u32,
    /// From now until when, as in 12h; at most 31 days.
    #[arg(long, value_parser = humantime::parse_duration)]
    lifetime: Duration,
}

impl Load {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let allowance = fs::read_to_string(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?
            .trim()
            .to_owned();
        let request = LoadOfflineBudgetRequest { command_id: Uuid::now_v7().to_string(), allowance };
        let answer = station.load_offline_budget(request).await.map_err(refused)?.into_inner();
        println!("{}", told(&answer.offline_budget.unwrap_or_default()));
        Ok(())
    }
}

impl Sign {
    pub fn run(self) -> anyhow::Result<()> {
        let (key, issued) = (SigningKey::read(&self.key)?, SystemTime::now());
        let Self { station, units, lifetime, .. } = self;
        let expires = issued.checked_add(lifetime).context("no lifetime is as long as that")?;
        let allowance = Allowance { id: Uuid::now_v7(), station, units, issued, expires }.check()?;
        println!("{}", allowance.sign(&key));
        Ok(())
    }
}

/// What is left, in a line.
pub fn told(budget: &OfflineBudget) -> String {
    let mut told = match budget.allowance.as_str() {
        "" => "no offline allowance: without a controller no unit starts".to_owned(),
        id => {
            let expires = budget.expires.and_then(|time| SystemTime::try_from(time).ok());
            let expires = expires.map_or_else(String::new, |time| {
                format!(", until {}", humantime::format_rfc3339_seconds(time))
            });
            format!("offline allowance {id}: {} of {} units left{expires}", budget.units_left, budget.units)
        }
    };
    if !budget.trouble.is_empty() {
        told = format!("{told}; the last one was not taken: {}", budget.trouble);
    }
    told
}
