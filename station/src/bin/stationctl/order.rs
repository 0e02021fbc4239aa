use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use factory_proto::station::{OpenWorkOrderRequest, station_client::StationClient};
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
        };
        let answer = station.open_work_order(request).await.map_err(refused)?.into_inner();
        let order = answer.work_order.unwrap_or_default();
        println!("order {} is open: {} of {} passed", order.work_order, order.passed, order.quantity);
        Ok(())
    }
}
