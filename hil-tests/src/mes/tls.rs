//! Who may report across a network: stations with a certificate that their CA vouches for, over mutual TLS 1.3. Whoever
//! shows none is gone before a byte of HTTP is read.

use std::{fmt, sync::Arc};

use factory_door::{
    allowance::{Allowance, Limits},
    doors::{Door, Doors},
    guest::{Evidence, Guest, House},
    tls::Tls,
};
use tokio::net::TcpListener;

/// Of all stations together: a factory has hundreds, each with a connection for results and one for questions.
const LIMITS: Limits = Limits { calls: None, at_a_time: 100_000, connections: 10_000 };

/// A station that has shown its certificate.
#[derive(Debug, Clone)]
pub struct Station(Arc<Allowance>);

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a station")
    }
}

impl Guest for Station {
    fn allowance(&self) -> &Allowance {
        &self.0
    }
}

/// Somebody who came by another way than TLS.
#[derive(Debug, Clone, thiserror::Error)]
#[error("only stations with a certificate may report here")]
pub struct NoStation;

struct Stations(Station);

impl House for Stations {
    type Peer = Station;
    type Stranger = NoStation;

    fn recognise(&self, evidence: &Evidence) -> Result<Station, NoStation> {
        match evidence {
            Evidence::Certificate(_) => Ok(self.0.clone()),
            Evidence::Process { .. } | Evidence::Address(_) | Evidence::Nothing => Err(NoStation),
        }
    }
}

/// The connections that come in.
pub fn incoming(listener: TcpListener, tls: Tls) -> Doors<Station, NoStation> {
    Doors::open([Door::Tls(listener, tls)], Stations(Station(Arc::new(Allowance::new(&LIMITS)))))
}
