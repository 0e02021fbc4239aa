use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use factory_proto::station::station_client::StationClient;
use factory_station::place::{ClientFiles, Place};
use tonic::transport::{Channel, Uri};

/// Where the station is, and what it is shown.
#[derive(Args)]
pub struct Reach {
    /// The station: the path of its socket, or an address as in `https://line-1.example:7443`, which needs --ca,
    /// --certificate and --key, or http://127.0.0.1:7400.
    #[arg(long, default_value = "/run/factory-station/station.sock")]
    station: String,
    /// The CA that the station's certificate is from, PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Your certificate, PEM; `roles` of the station file say what it is good for.
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// Its key, PEM; readable for you alone.
    #[arg(long)]
    key: Option<PathBuf>,
}

impl Reach {
    /// Connects.
    pub async fn station(&self) -> anyhow::Result<StationClient<Channel>> {
        let place = self.place()?;
        let channel = place.way()?.connect().await.with_context(|| match place {
            Place::Socket(_) => format!(
                "no station answers at {place}; see that factory-stationd runs and that you may open its socket"
            ),
            Place::Plain(_) => format!("no station answers at {place}; see that factory-stationd runs there"),
            Place::Tls { .. } => format!(
                "no station answers at {place}, or one of you does not take the other for what it says it is; see that \
                 factory-stationd runs there, that --ca is the CA of its certificate, and that --certificate is from its \
                 `client-ca`"
            ),
        })?;
        Ok(StationClient::new(channel))
    }

    fn place(&self) -> anyhow::Result<Place> {
        let uri = || self.station.parse::<Uri>().with_context(|| format!("{} is no address", self.station));
        let files = (&self.ca, &self.certificate, &self.key);
        match (self.station.split_once("://"), files) {
            (Some(("https", _)), (Some(ca), Some(certificate), Some(key))) => {
                let (ca, certificate, key) = (ca.clone(), certificate.clone(), key.clone());
                let section = "--ca, --certificate, --key";
                let files = ClientFiles { section, ca, crl: None, certificate, key };
                Ok(Place::Tls { uri: uri()?, files })
            }
            (Some(("https", _)), _) => {
                bail!("{} needs --ca, --certificate and --key: both sides prove who they are", self.station)
            }
            (_, (Some(_), ..) | (_, Some(_), _) | (.., Some(_))) => {
                bail!("--ca, --certificate and --key are for a --station with https://")
            }
            (Some(("http", _)), _) => Ok(Place::Plain(uri()?)),
            _ => Ok(Place::Socket(self.station.clone().into())),
        }
    }
}

/// What a refusal says, without gRPC's wrapping.
pub fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{} ({:?})", status.message(), status.code())
}
