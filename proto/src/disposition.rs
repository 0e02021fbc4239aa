//! What became of a unit in the end.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};

use crate::{signer, station};

/// What became of a unit. The numbers are for ever: logs hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Disposition {
    /// Left the factory.
    #[n(0)]
    Shipped,
    /// Set aside.
    #[n(1)]
    Quarantined,
    /// Destroyed, for good.
    #[n(2)]
    Scrapped,
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Shipped => "shipped",
            Self::Quarantined => "quarantined",
            Self::Scrapped => "scrapped",
        })
    }
}

impl FromStr for Disposition {
    type Err = UnknownDisposition;
    fn from_str(text: &str) -> Result<Self, UnknownDisposition> {
        let all = [Self::Shipped, Self::Quarantined, Self::Scrapped];
        all.into_iter().find(|it| it.to_string() == text).ok_or(UnknownDisposition)
    }
}

/// None of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is none of shipped, quarantined, scrapped")]
pub struct UnknownDisposition;

/// Both services have messages of their own for it.
macro_rules! wire {
    ($package:ident) => {
        impl From<Disposition> for $package::Disposition {
            fn from(disposition: Disposition) -> Self {
                match disposition {
                    Disposition::Shipped => Self::Shipped,
                    Disposition::Quarantined => Self::Quarantined,
                    Disposition::Scrapped => Self::Scrapped,
                }
            }
        }
        impl TryFrom<$package::Disposition> for Disposition {
            type Error = UnknownDisposition;
            fn try_from(wire: $package::Disposition) -> Result<Self, UnknownDisposition> {
                match wire {
                    $package::Disposition::Shipped => Ok(Self::Shipped),
                    $package::Disposition::Quarantined => Ok(Self::Quarantined),
                    $package::Disposition::Scrapped => Ok(Self::Scrapped),
                    $package::Disposition::Unspecified => Err(UnknownDisposition),
                }
            }
        }
    };
}

wire!(signer);
wire!(station);
