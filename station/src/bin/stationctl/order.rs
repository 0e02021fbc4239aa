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
}

impl Open {
    pub async fn run(self, station: &mut StationClient<Channel>) -> anyhow::Result<()> {
        let request = OpenWorkOrderRequest {
            command_id: Uuid::now_v7().to_string(),
            work_order: self.order,
            recipe: self.recipe,
            quantity: self.quantity,
        };
        let answer = station.open_work_order(request).await.map_err(refused)?.into_inner();
        let order = answer.work_order.unwrap_or_default();
        println!("order {} is open: {} of {} passed", order.work_order, order.passed, order.quantity);
        Ok(())
    }
}
