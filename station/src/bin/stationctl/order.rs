use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use factory_proto::station::{
    CloseWorkOrderRequest, OpenWorkOrderRequest, PauseWorkOrderRequest, ResumeWorkOrderRequest,
    station_client::StationClient,
};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::connect::refused;

#[derive(Args)]
pub struct Open {
    /// The work order's id.
    order: String,
    /// The recipe to make.
    #[arg(long)]
    recipe: String,
    /// SHA-256 of the recipe in hex, where it is not to be the active one.
    #[arg(long, value_parser = crate::shelf::digest)]
    recipe_digest: Option<crate::shelf::Digest>,
    /// How many units may pass.
    #[arg(long)]
    quantity: u32,
    /// The order as the brand owner signed it, a file that `factory-signerd sign-order` wrote.
    #[arg(long)]
    signed_order: PathBuf,
    /// The list of its units and their own values, CSV with a column serial; without one any unit may be made.
    #[arg(long, value_name = "FILE")]
    units: Option<PathBuf>,
}

impl Open {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let signed_order = fs::read_to_string(&self.signed_order)
            .with_context(|| format!("cannot read {}", self.signed_order.display()))?;
        let unit_list = match &self.units {
            Some(file) => fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
            None => Vec::new(),
        };
        let request = OpenWorkOrderRequest {
            command_id: Uuid::now_v7().to_string(),
            work_order: self.order,
            recipe: self.recipe,
            quantity: self.quantity,
            signed_order: signed_order.trim().to_owned(),
            unit_list,
            recipe_digest: self.recipe_digest.map_or_else(Vec::new, |digest| digest.0),
        };
        let answer = station.open_work_order(request).await.map_err(refused)?.into_inner();
        let order = answer.work_order.unwrap_or_default();
        println!("order {} is open: {} of {} passed", order.work_order, order.passed, order.quantity);
        Ok(())
    }
}

/// Which order, and why.
#[derive(Args)]
pub struct Moved {
    /// The work order's id.
    order: String,
    /// Why; is kept and shown.
    #[arg(long)]
    reason: String,
    /// A UUID; the same one does it once.
    #[arg(long)]
    command_id: Option<Uuid>,
}

impl Moved {
    fn command_id(&self) -> String {
        self.command_id.unwrap_or_else(Uuid::now_v7).to_string()
    }
}

#[derive(Args)]
pub struct Pause {
    #[command(flatten)]
    moved: Moved,
}

impl Pause {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let command_id = self.moved.command_id();
        let Moved { order: work_order, reason, .. } = self.moved;
        let request = PauseWorkOrderRequest { command_id, work_order, reason };
        station.pause_work_order(request).await.map_err(refused)?;
        Ok(())
    }
}

#[derive(Args)]
pub struct Resume {
    #[command(flatten)]
    moved: Moved,
}

impl Resume {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let command_id = self.moved.command_id();
        let Moved { order: work_order, reason, .. } = self.moved;
        let request = ResumeWorkOrderRequest { command_id, work_order, reason };
        station.resume_work_order(request).await.map_err(refused)?;
        Ok(())
    }
}

#[derive(Args)]
pub struct Close {
    #[command(flatten)]
    moved: Moved,
    /// Close it though units of it are not accounted for, and without asking the signer.
    #[arg(long)]
    even_if_open: bool,
}

impl Close {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let command_id = self.moved.command_id();
        let Moved { order: work_order, reason, .. } = self.moved;
        let even_if_open = self.even_if_open;
        let request = CloseWorkOrderRequest { command_id, work_order, reason, even_if_open };
        station.close_work_order(request).await.map_err(refused)?;
        Ok(())
    }
}
