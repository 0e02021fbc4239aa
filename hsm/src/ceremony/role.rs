//! What a key of the signer's file is for, and how people name it.

use std::{fmt, str::FromStr};

use factory_proto::ids::AuthorityName;

use crate::{
    config::{Config, RoleKey},
    profile::{self, Name, Subject, Validity},
};
use rcgen::CertificateParams;

/// How a role is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleName {
    /// `authority:NAME`
    Authority(AuthorityName),
    /// `provenance`
    Provenance,
    /// `firmware`
    Firmware,
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is none of authority:NAME, provenance, firmware")]
pub struct NoRole;

impl FromStr for RoleName {
    type Err = NoRole;
    fn from_str(text: &str) -> Result<Self, NoRole> {
        match text {
            "provenance" => Ok(Self::Provenance),
            "firmware" => Ok(Self::Firmware),
            _ => {
                let name = text.strip_prefix("authority:").and_then(|name| name.parse().ok());
                name.map(Self::Authority).ok_or(NoRole)
            }
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(name) => write!(f, "authority:{name}"),
            Self::Provenance => f.write_str("provenance"),
            Self::Firmware => f.write_str("firmware"),
        }
    }
}

/// A role as the signer's file has it.
#[derive(Debug, Clone)]
pub struct Role<'a> {
    /// How it is named.
    pub name: RoleName,
    /// Its key and certificate.
    pub key: &'a RoleKey,
}

impl<'a> Role<'a> {
    /// All of a signer's file.
    pub fn all(config: &'a Config) -> Vec<Self> {
        let authorities = config.authorities.iter().map(|authority| Self {
            name: RoleName::Authority(authority.name.clone()),
            key: &authority.role,
        });
        authorities
            .chain([Self { name: RoleName::Provenance, key: &config.provenance }])
            .chain(config.firmware.as_ref().map(|key| Self { name: RoleName::Firmware, key }))
            .collect()
    }

    /// The one of that name.
    pub fn named(config: &'a Config, name: &RoleName) -> Option<Self> {
        Self::all(config).into_iter().find(|role| role.name == *name)
    }

    /// Whether certificates are signed with it.
    pub fn is_authority(&self) -> bool {
        matches!(self.name, RoleName::Authority(_))
    }

    /// The CN of its certificate: the CA's is chosen.
    pub fn common_name(&self, of_ca: &Name) -> Name {
        match self.name {
            RoleName::Authority(_) => of_ca.clone(),
            RoleName::Provenance => "Station Provenance".parse().expect("it is a name"),
            RoleName::Firmware => "Firmware Integrity".parse().expect("it is a name"),
        }
    }

    /// What its certificate says.
    pub fn certificate(
        &self,
        common_name: &Name,
        subject: &Subject,
        validity: Validity,
        serial: [u8; 16],
    ) -> CertificateParams {
        if self.is_authority() {
            profile::authority(common_name, subject, validity, serial)
        } else {
            profile::signature(common_name, subject, validity, serial)
        }
    }
}
