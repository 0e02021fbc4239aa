use anyhow::Context as _;
use factory_proto::station::station_client::StationClient;
use tonic::transport::{Channel, Endpoint};

/// Connects over a Unix socket, or over TCP when an address is given.
pub async fn station(address: &str) -> anyhow::Result<StationClient<Channel>> {
    let uri = match address.strip_prefix("http://") {
        Some(_) => address.to_owned(),
        None => format!("unix:{address}"),
    };
    let channel = Endpoint::from_shared(uri)?.connect().await;
    let channel = channel.with_context(|| {
        format!(
            "no station answers at {address}; see that factory-stationd runs and that you may open its socket"
        )
    })?;
    Ok(StationClient::new(channel))
}

/// What a refusal says, without gRPC's wrapping.
pub fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{} ({:?})", status.message(), status.code())
}
