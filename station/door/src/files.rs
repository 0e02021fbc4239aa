//! The files of TLS, PEM: what they hold, and whether they are still what they were when they were read.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{RootCertStore, server::VerifierBuilderError};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};
use tracing::{info, warn};
use x509_parser::{
    prelude::{CertificateRevocationList, FromDer as _},
    time::ASN1Time,
};
use zeroize::Zeroizing;

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
    /// Reads them.
    fn config(&self) -> Result<Self::Config, TlsError>;
}

/// What is in some files now.
#[derive(Debug)]
pub(crate) struct Fresh<F: Files> {
    files: F,
    current: Mutex<(Stamp, Arc<F::Config>)>,
}

/// What the files were when they were read.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Vec<Option<(i64, i64, u64, u64)>>);

impl<F: Files> Fresh<F> {
    /// Reads the files.
    pub(crate) fn load(files: F) -> Result<Self, TlsError> {
        let stamp = stamp(&files);
        let config = files.config()?;
        Ok(Self { files, current: Mutex::new((stamp, Arc::new(config))) })
    }

    /// Which files.
    pub(crate) fn files(&self) -> &F {
        &self.files
    }

    /// What is in the files now; as long as that is no good, what was in them before. Reads files, which are small.
    pub(crate) fn config(&self) -> Arc<F::Config> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.files);
        if stamp != current.0 {
            match self.files.config() {
                Ok(config) => {
                    let certificate = self.files.paths()[0].display();
                    info!(%certificate, "took new TLS files");
                    current.1 = Arc::new(config);
                }
                // A certificate is replaced before its key, or after it: the next stamp will do.
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "new TLS files are no good, the old ones stay"
                    );
                }
            }
            current.0 = stamp;
        }
        current.1.clone()
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

/// The lists of withdrawn certificates, where a file of them is named. One whose time is over is taken: it lets nobody in.
pub(crate) fn revocations(
    section: &'static str,
    path: Option<&Path>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let empty = || TlsError::Empty { section, path: path.to_owned(), what: "revocation list" };
    let text = read(section, path)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    let lists = lists.map_err(|_| empty())?;
    for list in &lists {
        let next = CertificateRevocationList::from_der(list).ok().and_then(|(_, list)| list.next_update());
        if let Some(next) = next.filter(|next| *next < ASN1Time::now()) {
            warn!(
                path = %path.display(), %next,
                "a revocation list is past its next update: until there is a new one, nobody whom its CA vouches for is \
                 taken"
            );
        }
    }
    if lists.is_empty() { Err(empty()) } else { Ok(lists) }
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

fn read(section: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { section, path: path.to_owned(), source };
    let file = fs::metadata(path).map_err(unreadable)?;
    if !file.is_file() || file.len() > FILE_LIMIT {
        return Err(unreadable(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    fs::read(path).map(Zeroizing::new).map_err(unreadable)
}
