//! An offline allowance as the MES signs it: so many units at one station until some moment.
//!
//! The outer form is a JWS in compact serialisation, signed with ES256; its payload is a JSON object with the keys of
//! `Claims` and no others. Knows nothing of what was started on it.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use factory_jws::{JwsError, PublicKeys, SigningKey};
use factory_proto::ids::{IdError, NestName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const TYPE: &str = "factory-allowance+jws";
const UNITS: RangeInclusive<u32> = 1..=100_000;
/// A line whose MES is away for longer has other worries; and what is signed for longer is a key left under the mat.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);
/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// What the MES allows a station to do on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// By which it is known again.
    pub id: Uuid,
    /// The one station that it is for.
    pub station: NestName,
    /// Runs that may be started on it; 1 to 100 000.
    pub units: u32,
    /// When it was issued, to the second.
    pub issued: SystemTime,
    /// The last moment at which a run may be started on it, to the second; at most 31 days later.
    pub expires: SystemTime,
}

/// As written; the names are those of RFC 7519 where it has one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    jti: String,
    station: String,
    units: u32,
    iat: u64,
    exp: u64,
}

/// Why a text is no allowance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowanceError {
    /// Nothing that somebody signed for us, or something else.
    #[error("the allowance {0}")]
    Jws(#[from] JwsError),
    /// Altered, or signed by somebody else.
    #[error("the allowance is not signed by the station file's `offline-budget.key`")]
    Signature,
    /// Not the keys that an allowance has.
    #[error("the allowance does not say what an allowance says: {0}")]
    Claims(String),
    /// A bad name.
    #[error("the allowance has a `station` that {0}")]
    Station(IdError),
    /// A value that no allowance may have.
    #[error("the allowance has a `{key}` that {fault}")]
    Value {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl Allowance {
    /// The text to be handed to the station, signed.
    pub fn sign(&self, key: &SigningKey) -> String {
        let claims = Claims {
            jti: self.id.to_string(),
            station: self.station.to_string(),
            units: self.units,
            iat: seconds(self.issued),
            exp: seconds(self.expires),
        };
        let payload = serde_json::to_vec(&claims).expect("texts and numbers can be written as JSON");
        factory_jws::sign(TYPE, &payload, key)
    }

    /// Reads a signed allowance.
    ///
    /// # Errors
    /// None of `keys` signed it, or it says something that no allowance may say.
    pub fn verify(text: &str, keys: &PublicKeys) -> Result<Self, AllowanceError> {
        let parts = factory_jws::split(TYPE, text)?;
        if !keys.verify(parts.message, &parts.signature) {
            return Err(AllowanceError::Signature);
        }
        let claims: Claims = serde_json::from_slice(&parts.payload)
            .map_err(|error| AllowanceError::Claims(error.to_string()))?;
        let fault = |key, fault| AllowanceError::Value { key, fault };
        let time = |key, seconds| match seconds {
            0..=LAST_SECOND => Ok(UNIX_EPOCH + Duration::from_secs(seconds)),
            _ => Err(fault(key, "lies after the year 9999")),
        };
        let allowance = Self {
            id: claims.jti.parse().map_err(|_| fault("jti", "is no UUID"))?,
            station: claims.station.parse().map_err(AllowanceError::Station)?,
            units: claims.units,
            issued: time("iat", claims.iat)?,
            expires: time("exp", claims.exp)?,
        };
        allowance.check()
    }

    /// Checks values, for whoever is about to sign them.
    ///
    /// # Errors
    /// The first value that no allowance may have.
    pub fn check(self) -> Result<Self, AllowanceError> {
        let fault = |key, fault| Err(AllowanceError::Value { key, fault });
        if !UNITS.contains(&self.units) {
            return fault("units", "is not 1 to 100000");
        }
        match self.expires.duration_since(self.issued) {
            Ok(life) if life > LONGEST => fault("exp", "lies more than 31 days after its `iat`"),
            Ok(_) => Ok(self),
            Err(_) => fault("exp", "lies before its `iat`"),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
