//! Names of things that cross a wire: checked once, at the door.

use std::{fmt, str::FromStr};

use data_encoding::HEXUPPER;
use serde::{Deserialize, Serialize};

/// Why a text is not the id that it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Longer than allowed.
    #[error("is {length} bytes long, at most {limit} are allowed")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// A character that could do harm in a file name, a subject or a query.
    #[error("holds {0:?}, only A-Z a-z 0-9 . _ - are allowed")]
    Character(char),
    /// `.` and `..` are no file names.
    #[error("must hold a letter or a digit")]
    OnlyDots,
    /// Not what an enrolment id looks like.
    #[error("is no enrolment id (A- and 32 bytes in hex, joined with colons)")]
    Enrolment,
}

fn checked(text: &str, limit: usize) -> Result<String, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > limit {
        return Err(IdError::TooLong { length: text.len(), limit });
    }
    if let Some(odd) =
        text.chars().find(|c| !matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
    {
        return Err(IdError::Character(odd));
    }
    if !text.contains(|c: char| c.is_ascii_alphanumeric()) {
        return Err(IdError::OnlyDots);
    }
    Ok(text.to_owned())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $limit:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                checked(text, $limit).map(Self)
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A holding position of the fixture; 1 to 32 characters.
    NestName, 32
);
name!(
    /// The serial number of a board; 1 to 32 characters.
    Serial, 32
);
name!(
    /// A work order's id; 1 to 64 characters.
    OrderId, 64
);
name!(
    /// A recipe's name; 1 to 64 characters.
    RecipeName, 64
);
name!(
    /// The name a device has on the platform, and the CN of its certificate; 1 to 64 characters (X.520).
    EndpointName, 64
);

name!(
    /// What a signer calls one of its CAs; 1 to 64 characters.
    AuthorityName, 64
);
name!(
    /// What a signer calls one of its certificate profiles; 1 to 64 characters.
    ProfileName, 64
);

/// What a first-to-claim device is claimed by: `A-` and the SHA-256 of its bootstrap certificate (DER)
/// in upper-case hex with colons; 97 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnrolmentId(String);

impl EnrolmentId {
    /// The id that belongs to a certificate's SHA-256 fingerprint.
    pub fn of_fingerprint(fingerprint: &[u8; 32]) -> Self {
        let pairs: Vec<String> = fingerprint.iter().map(|byte| HEXUPPER.encode(&[*byte])).collect();
        Self(format!("A-{}", pairs.join(":")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnrolmentId {
    type Err = IdError;
    /// Accepts either case, keeps upper case.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let hex = text.strip_prefix("A-").ok_or(IdError::Enrolment)?;
        let bytes: Vec<&str> = hex.split(':').collect();
        let byte = |pair: &&str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
        if bytes.len() != 32 || !bytes.iter().all(byte) {
            return Err(IdError::Enrolment);
        }
        Ok(Self(format!("A-{}", hex.to_ascii_uppercase())))
    }
}

impl fmt::Display for EnrolmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_enrolment_id_is_what_openssl_prints_as_fingerprint() {
        let mut fingerprint = [0u8; 32];
        fingerprint[0] = 0xab;
        fingerprint[31] = 0x01;
        let id = EnrolmentId::of_fingerprint(&fingerprint);
        assert!(id.as_str().starts_with("A-AB:00:") && id.as_str().ends_with(":01"));
        assert_eq!(id.as_str().len(), 97);
        assert_eq!(id.as_str().to_ascii_lowercase().replacen('a', "A", 1).parse(), Ok(id));
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for bad in ["", "..", "a/b", "a b", "a\n", "ä", "x'; rm"] {
            assert!(bad.parse::<Serial>().is_err(), "{bad:?}");
        }
        assert_eq!("x".repeat(33).parse::<Serial>(), Err(IdError::TooLong { length: 33, limit: 32 }));
        assert!("x".repeat(32).parse::<Serial>().is_ok());
    }

    proptest! {
        #[test]
        fn every_fingerprint_survives_its_text(fingerprint: [u8; 32]) {
            let id = EnrolmentId::of_fingerprint(&fingerprint);
            prop_assert_eq!(id.as_str().parse(), Ok(id));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,200}") {
            let _ = text.parse::<EnrolmentId>();
            let _ = text.parse::<EndpointName>();
        }
    }
}
