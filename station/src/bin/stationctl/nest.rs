//! What people do with a nest, from a shell.

use anyhow::ensure;
use clap::{Args, Subcommand};
use factory_proto::station::{
    ClearNestRequest, EnableNestRequest, IdentifyNestRequest, ParkNestRequest, station_client::StationClient,
};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::connect::refused;

#[derive(Subcommand)]
pub enum Verb {
    /// Keeps a nest from taking units until it is enabled; a unit that is in it is finished.
    Park(Park),
    /// Lets a nest that was parked by hand, or for failing more than it should, take units again; its count begins anew.
    Enable(Which),
    /// Forgets the faults of a nest's instruments and the failures of its units, and asks the instruments again; fails
    /// while they do not answer.
    Clear(Which),
    /// Lets the lamp of a nest's probe blink for five seconds.
    Identify(Which),
}

/// Which nest.
#[derive(Args)]
pub struct Which {
    /// The nest's name.
    nest: String,
    /// A UUID; the same one does it once.
    #[arg(long)]
    command_id: Option<Uuid>,
}

#[derive(Args)]
pub struct Park {
    #[command(flatten)]
    which: Which,
    /// Why; is kept and shown.
    #[arg(long)]
    reason: String,
    /// Who parks it, for people.
    #[arg(long, default_value = "")]
    by: String,
}

impl Which {
    fn command_id(&self) -> String {
        self.command_id.unwrap_or_else(Uuid::now_v7).to_string()
    }
}

impl Verb {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        match self {
            Self::Park(Park { which, reason, by }) => {
                let command_id = which.command_id();
                let request = ParkNestRequest { command_id, nest: which.nest, reason, by };
                station.park_nest(request).await.map_err(refused)?;
            }
            Self::Enable(which) => {
                let request = EnableNestRequest { command_id: which.command_id(), nest: which.nest };
                station.enable_nest(request).await.map_err(refused)?;
            }
            Self::Clear(which) => {
                let request = ClearNestRequest { command_id: which.command_id(), nest: which.nest.clone() };
                let parked = station.clear_nest(request).await.map_err(refused)?.into_inner().parked;
                ensure!(parked.is_empty(), "nest {} still takes no units: {parked}", which.nest);
            }
            Self::Identify(which) => {
                let request = IdentifyNestRequest { command_id: which.command_id(), nest: which.nest };
                station.identify_nest(request).await.map_err(refused)?;
            }
        }
        Ok(())
    }
}
