use factory_proto::station::{DescribeStationRequest, station_client::StationClient};
use tonic::transport::Channel;

use crate::connect::refused;

pub async fn describe(station: &mut StationClient<Channel>) -> anyhow::Result<()> {
    let answer = station.describe_station(DescribeStationRequest {}).await.map_err(refused)?.into_inner();
    println!("station {} {}", answer.station, answer.version);
    println!("results without acknowledgement: {}", answer.unacknowledged_results);
    println!("recipes: {}", answer.recipes.join(", "));
    for nest in answer.nests {
        let state = match (nest.run_id.as_str(), nest.parked.as_str()) {
            ("", "") => "free".to_owned(),
            ("", reason) => format!("parked: {reason}"),
            (run, _) => run.to_owned(),
        };
        println!("nest {}: {state}", nest.nest);
    }
    for order in answer.work_orders {
        println!(
            "order {}: {} of {} passed, recipe {}",
            order.work_order, order.passed, order.quantity, order.recipe
        );
    }
    Ok(())
}
