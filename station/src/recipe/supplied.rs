//! What lies ready for each unit: a folder with one folder per serial number, as the utility reads it.
//!
//! | file | holds |
//! |---|---|
//! | `device-key.pem` or `.der` | the unit's private key, PKCS#8 or SEC1 |
//! | `device-certificate.pem` or `.der` | its certificate; in PEM also those that it is signed by, in their order |
//! | `entropy.bin` | 48 bytes |
//! | `rot.bin` | 16 bytes |

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use factory_proto::ids::{EndpointName, Serial};
use zeroize::Zeroizing;

use super::credential::{self, CredentialError};
use crate::{
    certificate::{CertificateError, check_issued},
    key::DeviceKey,
};

/// Bytes of the seed that a device takes.
pub const ENTROPY: usize = 48;
/// Bytes of the root of trust that a device takes.
pub const ROOT_OF_TRUST: usize = 16;

/// Where what is supplied lies.
#[derive(Debug, Clone)]
pub struct Supplied(pub PathBuf);

/// What a unit's certificate must be.
pub struct WantedChain<'a> {
    /// Who signed it in the end; DER.
    pub authority: &'a [u8],
    /// Whose it is: SubjectPublicKeyInfo, DER.
    pub key: &'a [u8],
    /// Its CN.
    pub endpoint_name: &'a EndpointName,
    /// Its OU, where it has one.
    pub account: Option<&'a str>,
    /// How many certificates the device gets.
    pub depth: usize,
}

/// Why what should lie ready cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuppliedError {
    /// No such file.
    #[error("{} cannot be read; supply it, or take the unit out of the order", path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Two files for one thing.
    #[error("there are {} and the same as .der; remove one of them", .0.display())]
    Twice(PathBuf),
    /// A secret that everybody can read.
    #[error("{} is open to everybody (mode {mode:o}); run chmod o= on it", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not as many bytes as a device takes.
    #[error("{} is {found} bytes long, a device takes exactly {wanted}", path.display())]
    Length {
        /// Which file.
        path: PathBuf,
        /// Its length.
        found: usize,
        /// What it should be.
        wanted: usize,
    },
    /// No key or certificate that a device takes.
    #[error("{} {reason}", path.display())]
    Credential {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: CredentialError,
    },
    /// Not this unit's, or not what its recipe wants.
    #[error("{} {reason}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: CertificateError,
    },
    /// Fewer certificates than the recipe wants.
    #[error("{} holds {found} certificates, the recipe's identity.chain-depth is {wanted}", path.display())]
    Short {
        /// Which file.
        path: PathBuf,
        /// How many it holds.
        found: usize,
        /// How many it should.
        wanted: usize,
    },
}

impl Supplied {
    /// A unit's key.
    ///
    /// # Errors
    /// It does not lie ready, or is none.
    pub fn key(&self, serial: &Serial) -> Result<DeviceKey, SuppliedError> {
        let (path, bytes) = self.either(serial, "device-key")?;
        check_closed(&path)?;
        credential::private_key(&bytes).map_err(|reason| SuppliedError::Credential { path, reason })
    }

    /// A unit's certificate and those that it is signed by, in their order, DER: what the device gets of them.
    ///
    /// # Errors
    /// They do not lie ready, or are not as `wanted`.
    pub fn chain(&self, serial: &Serial, wanted: &WantedChain<'_>) -> Result<Vec<Vec<u8>>, SuppliedError> {
        let (path, bytes) = self.either(serial, "device-certificate")?;
        let unfit = |reason| SuppliedError::Credential { path: path.clone(), reason };
        let mut chain = credential::chain(&bytes).map_err(unfit)?;
        if chain.last().is_some_and(|last| last != wanted.authority) {
            let whole: Vec<Vec<u8>> = chain.iter().cloned().chain([wanted.authority.to_vec()]).collect();
            credential::check_chain(&whole).map_err(unfit)?;
        }
        let issuer = chain.get(1).map_or(wanted.authority, Vec::as_slice).to_vec();
        check_issued(&chain[0], &[issuer], wanted.key, wanted.endpoint_name, wanted.account)
            .map_err(|reason| SuppliedError::Certificate { path: path.clone(), reason })?;
        if chain.len() < wanted.depth {
            return Err(SuppliedError::Short { path, found: chain.len(), wanted: wanted.depth });
        }
        chain.truncate(wanted.depth);
        Ok(chain)
    }

    /// The bytes of a unit's file.
    ///
    /// # Errors
    /// It is not there, or of another length.
    pub fn secret(
        &self,
        serial: &Serial,
        name: &str,
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, SuppliedError> {
        let path = self.0.join(serial.as_str()).join(name);
        let bytes = read(&path)?;
        check_closed(&path)?;
        if bytes.len() != length {
            return Err(SuppliedError::Length { path, found: bytes.len(), wanted: length });
        }
        Ok(bytes)
    }

    fn either(&self, serial: &Serial, name: &str) -> Result<(PathBuf, Zeroizing<Vec<u8>>), SuppliedError> {
        let folder = self.0.join(serial.as_str());
        let (pem, der) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.der")));
        match (pem.exists(), der.exists()) {
            (true, true) => Err(SuppliedError::Twice(pem)),
            (false, true) => Ok((der.clone(), read(&der)?)),
            (_, false) => Ok((pem.clone(), read(&pem)?)),
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SuppliedError> {
    let missing = |source| SuppliedError::Missing { path: path.to_owned(), source };
    fs::read(path).map(Zeroizing::new).map_err(missing)
}

fn check_closed(path: &Path) -> Result<(), SuppliedError> {
    let missing = |source| SuppliedError::Missing { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(missing)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(SuppliedError::Open { path: path.to_owned(), mode });
    }
    Ok(())
}
