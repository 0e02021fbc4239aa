//! The files of TLS, PEM: what they hold, and whether they are still what they were when they were read.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{RootCertStore, server::VerifierBuilderError};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::revocation::Newest;

/// No chain or CA bundle of ours is larger; a larger file is something else.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Why there is no TLS; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there.
    #[error("{} cannot be read: correct `{section}`, and see that this user may read it", path.display())]
    Unreadable {
        /// Where the file is named.
        section: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else.
    #[error("{} holds no {what} in PEM: correct `{section}`", path.display())]
    Empty {
        /// Where the file is named.
        section: &'static str,
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Others may read the key.
    #[error("TLS key {} has mode {mode:04o}: take it from all others with chmod 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// They are no pair, or no good.
    #[error("{} and {} cannot be used together: give the key and its own certificate", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// No CA.
    #[error("{} holds a certificate that is no CA: give the CA of those on the other side", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// No list of withdrawn certificates, or one of a kind that nobody can use.
    #[error("{} holds a revocation list that cannot be used: give whole ones, version 2, with a next update", path.display())]
    Revocation {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// No verifier.
    #[error("certificates of the other side cannot be verified")]
    Verifier(#[source] VerifierBuilderError),
}

/// What is made of some files.
pub(crate) trait Files {
    /// What it is.
    type Config;
    /// Where they lie, the certificate first.
    fn paths(&self) -> Vec<&Path>;
    /// Reads them, where no revocation list is followed that is older than one that was.
    fn config(&self, newest: &mut Newest) -> Result<Self::Config, TlsError>;
}

/// What is in some files now.
#[derive(Debug)]
pub(crate) struct Fresh<F: Files> {
    files: F,
    current: Mutex<Current<F::Config>>,
}

#[derive(Debug)]
struct Current<C> {
    stamp: Stamp,
    newest: Newest,
    config: Arc<C>,
}

/// What the files were when they were read.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Vec<Option<(i64, i64, u64, u64)>>);

impl<F: Files> Fresh<F> {
    /// Reads the files.
    pub(crate) fn load(files: F) -> Result<Self, TlsError> {
        let (stamp, mut newest) = (stamp(&files), Newest::default());
        let config = Arc::new(files.config(&mut newest)?);
        Ok(Self { files, current: Mutex::new(Current { stamp, newest, config }) })
    }

    /// Which files.
    pub(crate) fn files(&self) -> &F {
        &self.files
    }

    /// What is in the files now; as long as that is no good, what was in them before. Reads files, which are small.
    pub(crate) fn config(&self) -> Arc<F::Config> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.files);
        if stamp != current.stamp {
            // A list that is no good in the end does not stay.
            let mut newest = current.newest.clone();
            match self.files.config(&mut newest) {
                Ok(config) => {
                    let certificate = self.files.paths()[0].display();
                    info!(%certificate, "took new TLS files");
                    current.config = Arc::new(config);
                    current.newest = newest;
                }
                // A certificate is replaced before its key, or after it: the next stamp will do.
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "new TLS files are no good, the old ones stay"
                    );
                }
            }
            current.stamp = stamp;
        }
        current.config.clone()
    }
}

fn stamp(files: &impl Files) -> Stamp {
    let of = |path| {
        let file = fs::metadata(path).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.ino(), file.len()))
    };
    Stamp(files.paths().into_iter().map(of).collect())
}

pub(crate) fn roots(section: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(section, path)? {
        roots.add(ca).map_err(|source| TlsError::Ca { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

pub(crate) fn certificates(
    section: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let empty = || TlsError::Empty { section, path: path.to_owned(), what: "certificate" };
    let text = read(section, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|_| empty())?;
    if all.is_empty() { Err(empty()) } else { Ok(all) }
}

/// Why there is no verifier: for its lists, which are in this file, if there is one.
pub(crate) fn no_verifier(path: Option<&Path>) -> impl FnOnce(VerifierBuilderError) -> TlsError {
    move |error| match (error, path) {
        (VerifierBuilderError::InvalidCrl(list), Some(path)) => {
            TlsError::Revocation { path: path.to_owned(), source: list.into() }
        }
        (error, _) => TlsError::Verifier(error),
    }
}

pub(crate) fn key(section: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = fs::metadata(path).map_err(|source| TlsError::Unreadable {
        section,
        path: path.to_owned(),
        source,
    })?;
    let mode = file.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.to_owned(), mode });
    }
    PrivateKeyDer::from_pem_slice(&read(section, path)?).map_err(|_| TlsError::Empty {
        section,
        path: path.to_owned(),
        what: "private key",
    })
}

pub(crate) fn read(section: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { section, path: path.to_owned(), source };
    let file = fs::metadata(path).map_err(unreadable)?;
    if !file.is_file() || file.len() > FILE_LIMIT {
        return Err(unreadable(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    fs::read(path).map(Zeroizing::new).map_err(unreadable)
}
