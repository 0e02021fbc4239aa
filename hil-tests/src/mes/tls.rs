//! Who may report across a network, and as which station: whoever has a certificate that the stations' CA vouches for, over
//! mutual TLS 1.3, as a station whose name is among the certificate's DNS names. Whoever shows none is gone before a byte of
//! HTTP is read.

use std::{fmt, sync::Arc};

use factory_door::{
    admission::AdmissionLayer,
    allowance::{Allowance, Limits},
    doors::{Door, Doors},
    guest::{Evidence, Guest, House, Identity},
    tls::Tls,
};
use factory_proto::station::ErrorReason;
use tokio::net::TcpListener;
use tonic::{Code, Extensions, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Of all stations together: a factory has hundreds, each with a connection for results and one for questions.
const LIMITS: Limits = Limits { calls: None, at_a_time: 100_000, connections: 10_000 };
/// Whose reasons they are.
const DOMAIN: &str = "factory.station.v1";

/// A station that has shown its certificate.
#[derive(Debug, Clone)]
pub struct Station {
    names: Arc<[Identity]>,
    allowance: Arc<Allowance>,
}

impl Station {
    /// The station behind a call; absent on this host, where nobody can prove who it is.
    pub fn of(call: &Extensions) -> Option<Self> {
        call.get().cloned()
    }

    /// Whether what comes from it may be this station's.
    ///
    /// # Errors
    /// It is another one: PERMISSION_DENIED, which a station takes for no verdict on a result, so it sets none aside.
    pub fn check(&self, station: &str) -> Result<(), Status> {
        if self.names.contains(&Identity::Dns(station.to_ascii_lowercase())) {
            return Ok(());
        }
        let text = format!(
            "this certificate is of {self}, not of station {station:?}: give the station a certificate with its name as a \
             DNS name"
        );
        let about =
            [("station".to_owned(), station.to_owned()), ("certificate".to_owned(), self.to_string())];
        let reason = ErrorReason::StationNotCertified.as_str_name().trim_start_matches("ERROR_REASON_");
        let details = ErrorDetails::with_error_info(reason, DOMAIN, about);
        Err(Status::with_error_details(Code::PermissionDenied, text, details))
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.iter().filter_map(|name| match name {
            Identity::Dns(name) => Some(name.as_str()),
            Identity::Uri(_) | Identity::User(_) => None,
        });
        match names.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => f.write_str("no DNS name"),
            names => f.write_str(&names),
        }
    }
}

impl Guest for Station {
    fn allowance(&self) -> &Allowance {
        &self.allowance
    }
}

/// Somebody who came by another way than TLS.
#[derive(Debug, Clone, thiserror::Error)]
#[error("only stations with a certificate may report here")]
pub struct NoStation;

/// All stations.
pub struct Stations(Arc<Allowance>);

impl House for Stations {
    type Peer = Station;
    type Stranger = NoStation;

    fn recognise(&self, evidence: &Evidence) -> Result<Station, NoStation> {
        match evidence {
            Evidence::Certificate(names) => {
                Ok(Station { names: names.clone().into(), allowance: self.0.clone() })
            }
            Evidence::Process { .. } | Evidence::Address(_) | Evidence::Nothing => Err(NoStation),
        }
    }
}

/// The connections that come in.
pub fn incoming(listener: TcpListener, tls: Tls) -> Doors<Station, NoStation> {
    Doors::open([Door::Tls(listener, tls)], Stations(Arc::new(Allowance::new(&LIMITS))))
}

/// Gives each call its [`Station`].
pub fn admission() -> AdmissionLayer<Stations> {
    AdmissionLayer::new()
}
