//! A work order as the brand owner signs it: what may be made, how often, until when.
//!
//! The outer form is a JWS in compact serialisation, signed with ES256; its payload is a JSON object with the keys of
//! `Claims` and no others. Knows nothing of what was made already.

use std::ops::RangeInclusive;

use data_encoding::HEXLOWER;
use factory_jws::JwsError;
/// The brand owner's order keys.
pub use factory_jws::{JwsKeyError as OrderKeyError, PublicKeys as OrderKeys, SigningKey as OrderKey};
use factory_proto::ids::{IdError, OrderId, ProfileName};
use serde::{Deserialize, Serialize};

const TYPE: &str = "factory-work-order+jws";

const QUANTITY: RangeInclusive<u32> = 1..=1_000_000;
const ALLOWANCE: RangeInclusive<u32> = 0..=1_000_000;
/// The last second of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;
const LONGEST_PRODUCT: usize = 64;

/// What may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkOrder {
    /// Its id.
    pub order: OrderId,
    /// What people call the product; 1 to 64 characters.
    pub product: String,
    /// SHA-256 of the one recipe that it may be made by.
    pub recipe: [u8; 32],
    /// SHA-256 of the certificate of the one CA that may sign for it.
    pub authority: [u8; 32],
    /// The profile that its certificates follow, as the signer calls it.
    pub profile: ProfileName,
    /// Units to be made; 1 to 1 000 000.
    pub quantity: u32,
    /// Units that may be begun beyond that, since some fail.
    pub spare: u32,
    /// Certificates that may be issued again to a device that had one, because its key died.
    pub replacements: u32,
    /// The first second in which a unit may be counted, since 1970 UTC.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
}

/// As written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    order: String,
    product: String,
    /// 64 hex digits.
    recipe: String,
    /// 64 hex digits.
    ca: String,
    profile: String,
    quantity: u32,
    #[serde(default)]
    spare: u32,
    #[serde(default)]
    replacements: u32,
    nbf: i64,
    exp: i64,
}

/// Why a text is no work order, or none that may be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nothing that somebody signed for us, or something else.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// Altered, or signed by somebody else.
    #[error("is not signed by any of the signer's `order-keys`")]
    Signature,
    /// Not the keys that an order has.
    #[error("does not say what a work order says: {0}")]
    Claims(String),
    /// A bad id.
    #[error("has a name in `{key}` that {fault}")]
    Name {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        fault: IdError,
    },
    /// A value that no order may have.
    #[error("has a `{key}` that {fault}")]
    Value {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl WorkOrder {
    /// The text to be handed to the MES, signed.
    pub fn sign(&self, key: &OrderKey) -> String {
        let claims = Claims {
            order: self.order.to_string(),
            product: self.product.clone(),
            recipe: HEXLOWER.encode(&self.recipe),
            ca: HEXLOWER.encode(&self.authority),
            profile: self.profile.to_string(),
            quantity: self.quantity,
            spare: self.spare,
            replacements: self.replacements,
            nbf: self.not_before,
            exp: self.not_after,
        };
        let payload = serde_json::to_vec(&claims).expect("texts and numbers can be written as JSON");
        factory_jws::sign(TYPE, &payload, key)
    }

    /// Reads a signed order.
    ///
    /// # Errors
    /// None of `keys` signed it, or it says something that no order may say.
    pub fn verify(text: &str, keys: &OrderKeys) -> Result<Self, OrderError> {
        let parts = factory_jws::split(TYPE, text)?;
        if !keys.verify(parts.message, &parts.signature) {
            return Err(OrderError::Signature);
        }
        Self::written(&parts.payload)
    }

    /// Checks values, for whoever is about to sign them.
    ///
    /// # Errors
    /// The first value that no order may have.
    pub fn check(self) -> Result<Self, OrderError> {
        let fault = |key, fault| Err(OrderError::Value { key, fault });
        if !(1..=LONGEST_PRODUCT).contains(&self.product.chars().count())
            || self.product.contains(char::is_control)
        {
            return fault("product", "is not 1 to 64 printable characters");
        }
        if !QUANTITY.contains(&self.quantity) {
            return fault("quantity", "is not 1 to 1000000");
        }
        for (key, allowance) in [("spare", self.spare), ("replacements", self.replacements)] {
            if !ALLOWANCE.contains(&allowance) {
                return fault(key, "is more than 1000000");
            }
        }
        if self.not_before < 0 {
            return fault("nbf", "lies before 1970");
        }
        if self.not_after < self.not_before {
            return fault("exp", "lies before its `nbf`");
        }
        if self.not_after > LAST_SECOND {
            return fault("exp", "lies after the year 9999");
        }
        Ok(self)
    }

    /// Reads an order whose signature was verified when the ledger took it.
    ///
    /// # Errors
    /// It says something that no order may say.
    pub fn read(text: &str) -> Result<Self, OrderError> {
        Self::written(&factory_jws::split(TYPE, text)?.payload)
    }

    /// Units that may be begun.
    pub fn units(&self) -> u32 {
        self.quantity + self.spare
    }

    fn written(payload: &[u8]) -> Result<Self, OrderError> {
        let claims: Claims =
            serde_json::from_slice(payload).map_err(|error| OrderError::Claims(error.to_string()))?;
        let digest = |key, text: &str| {
            let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
            bytes.ok_or(OrderError::Value { key, fault: "is not 64 lower-case hex digits" })
        };
        let name = |key| move |fault| OrderError::Name { key, fault };
        let order = Self {
            order: claims.order.parse().map_err(name("order"))?,
            product: claims.product,
            recipe: digest("recipe", &claims.recipe)?,
            authority: digest("ca", &claims.ca)?,
            profile: claims.profile.parse().map_err(name("profile"))?,
            quantity: claims.quantity,
            spare: claims.spare,
            replacements: claims.replacements,
            not_before: claims.nbf,
            not_after: claims.exp,
        };
        order.check()
    }
}

#[cfg(test)]
mod tests;
