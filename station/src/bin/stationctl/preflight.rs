//! What must be right before the line runs: looked at, and attested.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use data_encoding::HEXLOWER;
use factory_proto::station::{AttestRegistrationRequest, RunPreflightRequest, station_client::StationClient};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::connect::refused;

#[derive(Args)]
#[command(after_help = "Ends with status 1 when anything is not as it should be.")]
pub struct Preflight {}

impl Preflight {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let answer = station.run_preflight(RunPreflightRequest {}).await.map_err(refused)?.into_inner();
        for check in &answer.checks {
            println!("{:4}  {:20} {}", if check.ok { "ok" } else { "NOT" }, check.name, check.finding);
        }
        for stated in &answer.registrations {
            let not = if stated.registered { "" } else { "not " };
            let fingerprint = HEXLOWER.encode(&stated.ca_fingerprint);
            println!(
                "      CA {fingerprint} is {not}registered with account {}: {}",
                stated.account_id, stated.statement
            );
        }
        match answer.checks.iter().filter(|check| !check.ok).count() {
            0 => Ok(()),
            wrong => bail!("{wrong} of {} are not as they should be", answer.checks.len()),
        }
    }
}

#[derive(Args)]
pub struct Attest {
    /// The device CA's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The account's id.
    #[arg(long)]
    account: String,
    /// How that is known, as in who uploaded it and when; is kept.
    #[arg(long)]
    statement: String,
    /// It is registered there no longer.
    #[arg(long)]
    withdrawn: bool,
}

impl Attest {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let file = self.ca.display();
        let text = fs::read(&self.ca).with_context(|| format!("cannot read {file}"))?;
        let ca = CertificateDer::from_pem_slice(&text)
            .with_context(|| format!("{file} holds no certificate in PEM"))?;
        let request = AttestRegistrationRequest {
            command_id: Uuid::now_v7().to_string(),
            ca_fingerprint: Sha256::digest(&ca).to_vec(),
            account_id: self.account,
            registered: !self.withdrawn,
            statement: self.statement,
        };
        station.attest_registration(request).await.map_err(refused)?;
        Ok(())
    }
}
