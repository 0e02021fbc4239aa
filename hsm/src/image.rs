//! Signs files, detached: ECDSA on P-256 with SHA-256, DER, as `openssl dgst -sha256 -verify` takes it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{provenance::Provenance, token::key::SigningError};

/// What was done about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Where the signature lies.
    pub signature: PathBuf,
    /// Whether it was made now.
    pub new: bool,
}

/// Why a file is not signed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not there.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The signature has no place to go.
    #[error("{} cannot be written", path.display())]
    Unwritable {
        /// The signature's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A signature of something else.
    #[error("{} is there, and is not this key's signature of the file: nothing was changed, say --force to replace it", .0.display())]
    Occupied(PathBuf),
    /// The token did not sign.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

/// Signs the file `path`, as `path` and `.sig`. A signature that is good stays; another one only goes by `force`.
///
/// # Errors
/// It cannot be read, signed or written.
pub fn sign(key: &Provenance, path: &Path, force: bool) -> Result<Signed, ImageError> {
    let unreadable = |source| ImageError::Unreadable { path: path.to_owned(), source };
    let mut digest = Sha256::new();
    io::copy(&mut File::open(path).map_err(unreadable)?, &mut digest).map_err(unreadable)?;
    let digest: [u8; 32] = digest.finalize().into();

    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    let signature = PathBuf::from(name);
    match fs::read(&signature) {
        Ok(there) if key.has_signed_digest(digest, &there) => return Ok(Signed { signature, new: false }),
        Ok(_) if !force => return Err(ImageError::Occupied(signature)),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(ImageError::Unwritable { path: signature, source }),
    }
    let bytes = key.sign_digest(digest)?;
    let new = signature.with_extension("sig.new");
    let written = File::create(&new)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&new, &signature));
    written.map_err(|source| ImageError::Unwritable { path: signature.clone(), source })?;
    Ok(Signed { signature, new: true })
}
