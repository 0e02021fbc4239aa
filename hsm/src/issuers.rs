//! All CAs of the signer, and the profiles that each issues by.

use std::sync::Arc;

use factory_proto::ids::{AuthorityName, ProfileName};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::{
    authority::{Authority, AuthorityError},
    issuer::Issuer,
    order::WorkOrder,
    profile::device::{Profile, ProfileError},
    token::{module::Token, pool::SigningPool},
};

/// A CA.
pub struct Ca {
    /// What people call it.
    pub name: AuthorityName,
    /// Its certificate.
    pub authority: Arc<Authority>,
    /// Its key.
    pub pool: Arc<SigningPool>,
    profiles: Vec<Arc<Profile>>,
}

/// Why a CA cannot issue as the signer's file says; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its certificate or its key.
    #[error("CA {ca}")]
    Authority {
        /// Which.
        ca: AuthorityName,
        /// What is wrong with it.
        source: AuthorityError,
    },
    /// Its years.
    #[error("CA {ca} cannot honour profile {profile}")]
    Profile {
        /// Which.
        ca: AuthorityName,
        /// By which profile.
        profile: ProfileName,
        /// Why not.
        source: ProfileError,
    },
    /// Its extended key usages.
    #[error(
        "CA {ca} cannot honour profile {profile}: the CA certificate has extended key usages, and the profile's are not \
         among them; name others in `profiles` of the [[authority]]"
    )]
    Usages {
        /// Which.
        ca: AuthorityName,
        /// By which profile.
        profile: ProfileName,
    },
}

/// Why an order cannot be followed here; each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// None of ours.
    #[error(
        "the order names a CA that does not issue here: give `sign-order` the certificate of one of this signer's CAs"
    )]
    OtherCa,
    /// Not of that CA.
    #[error("the order names profile {profile}, by which CA {ca} does not issue; it does by {has}")]
    OtherProfile {
        /// The CA.
        ca: AuthorityName,
        /// What was ordered.
        profile: ProfileName,
        /// What there is.
        has: String,
    },
}

impl Ca {
    /// Brings certificate, key and profiles together.
    ///
    /// # Errors
    /// They do not go together, `now`.
    pub fn new(
        name: AuthorityName,
        authority: Authority,
        pool: SigningPool,
        profiles: Vec<Arc<Profile>>,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        authority.check_key(&pool).map_err(|source| CaError::Authority { ca: name.clone(), source })?;
        for profile in &profiles {
            let (ca, profile_name) = (name.clone(), profile.name.clone());
            if !authority.may_issue(profile) {
                return Err(CaError::Usages { ca, profile: profile_name });
            }
            profile.validity(now, authority.validity()).map_err(|source| CaError::Profile {
                ca,
                profile: profile_name,
                source,
            })?;
        }
        Ok(Self { name, authority: Arc::new(authority), pool: Arc::new(pool), profiles })
    }

    /// SHA-256 of its certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.authority.certificate()).into()
    }
}

/// All of them; at least one.
pub struct Issuers(Vec<Ca>);

impl Issuers {
    /// The first one is the one that the signer describes.
    pub fn new(cas: Vec<Ca>) -> Self {
        assert!(!cas.is_empty(), "the signer's file names a CA");
        Self(cas)
    }

    /// The CAs.
    pub fn cas(&self) -> &[Ca] {
        &self.0
    }

    /// The token that holds their keys.
    pub fn token(&self) -> &Token {
        self.0[0].pool.token()
    }

    /// Who issues for an order.
    ///
    /// # Errors
    /// Nobody does.
    pub fn of(&self, order: &WorkOrder) -> Result<Issuer, Unfit> {
        let ca = self.0.iter().find(|ca| ca.fingerprint() == order.authority).ok_or(Unfit::OtherCa)?;
        let profile = ca.profiles.iter().find(|profile| profile.name == order.profile);
        let profile = profile.ok_or_else(|| {
            let names: Vec<String> = ca.profiles.iter().map(|profile| profile.name.to_string()).collect();
            Unfit::OtherProfile { ca: ca.name.clone(), profile: order.profile.clone(), has: names.join(", ") }
        })?;
        Ok(Issuer::new(ca.authority.clone(), ca.pool.clone(), profile.clone()))
    }
}
