//! What an MES signs so that a station may run on while it is away: a JWS in compact form, as the comment of
//! `HeartbeatResponse.offline_allowance` in the `.proto` says.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use factory_jws::SigningKey;
use serde_json::json;
use uuid::Uuid;

/// Who may issue allowances: holds the key whose public half is in the stations' files.
pub struct Treasury(SigningKey);

impl Treasury {
    /// With the P-256 private key, PEM, in this file.
    ///
    /// # Errors
    /// It holds none.
    pub fn open(key: &Path) -> anyhow::Result<Self> {
        Ok(Self(SigningKey::read(key)?))
    }

    /// So many units for one station, from a moment on and for so long.
    ///
    /// # Errors
    /// The moment lies before 1970.
    pub fn issue(
        &self,
        station: &str,
        units: u32,
        issued: SystemTime,
        lifetime: Duration,
    ) -> anyhow::Result<String> {
        let issued = issued.duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "jti": Uuid::now_v7().to_string(), "station": station, "units": units,
            "iat": issued, "exp": issued + lifetime.as_secs(),
        });
        Ok(factory_jws::sign("factory-allowance+jws", claims.to_string().as_bytes(), &self.0))
    }
}
