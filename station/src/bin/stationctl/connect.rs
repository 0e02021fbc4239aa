use anyhow::Context as _;
use factory_proto::station::station_client::StationClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Connects over a Unix socket, or over TCP when an address is given.
pub async fn station(address: &str) -> anyhow::Result<StationClient<Channel>> {
    let channel = if address.starts_with("http://") {
        Endpoint::from_shared(address.to_owned())?.connect().await
    } else {
        let path = address.to_owned();
        // The URI only fills HTTP's :authority; the connector knows where the station is.
        let endpoint = Endpoint::from_static("http://station");
        endpoint
            .connect_with_connector(service_fn(move |_| {
                let path = path.clone();
                async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
            }))
            .await
    };
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
