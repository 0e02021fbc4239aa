//! The signer's side of mutual TLS 1.3: its own certificate, and the CA of those who may knock. Reads the files anew when
//! they change.
//!
//! Knows nothing of who is let in.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tracing::{info, warn};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};
use zeroize::Zeroizing;

use crate::peer::Identity;

/// No chain or CA bundle of ours is larger; a larger file is something else.
const FILE_LIMIT: u64 = 1024 * 1024;

/// Where they lie, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The signer's certificate and what is between it and the CA that stations trust.
    pub certificate: PathBuf,
    /// Its key; readable for the signer's user alone.
    pub key: PathBuf,
    /// The CAs whose certificates stations show.
    pub client_ca: PathBuf,
}

/// Why there is no TLS; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there.
    #[error("{} cannot be read: correct `tls`, and see that the signer's user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else.
    #[error("{} holds no {what} in PEM: correct `tls`", path.display())]
    Empty {
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
    #[error("{} holds a certificate that is no CA: give the CA of the stations' certificates", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// No verifier.
    #[error("certificates of stations cannot be verified")]
    Verifier(#[from] VerifierBuilderError),
}

/// What a file was when it was read.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([Option<(i64, i64, u64, u64)>; 3]);

/// The configuration for each new connection.
pub struct Tls {
    files: TlsFiles,
    current: Mutex<(Stamp, Arc<ServerConfig>)>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One is missing, or they do not go together.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let stamp = files.stamp();
        let config = files.config()?;
        Ok(Self { files, current: Mutex::new((stamp, Arc::new(config))) })
    }

    /// What is in the files now; as long as that is no good, what was in them before. Reads files, which are small.
    pub fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if stamp != current.0 {
            match self.files.config() {
                Ok(config) => {
                    info!(certificate = %self.files.certificate.display(), "took new TLS files");
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

impl TlsFiles {
    fn stamp(&self) -> Stamp {
        Stamp([&self.certificate, &self.key, &self.client_ca].map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.mtime(), file.mtime_nsec(), file.ino(), file.len()))
        }))
    }

    fn config(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for ca in certificates(&self.client_ca)? {
            roots.add(ca).map_err(|source| TlsError::ClientCa { path: self.client_ca.clone(), source })?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let pair =
            |source| TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), source };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.certificate)?, key(&self.key)?)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each connection proves anew who it is, by what the files say now.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let empty = || TlsError::Empty { path: path.to_owned(), what: "certificate" };
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|_| empty())?;
    if all.is_empty() { Err(empty()) } else { Ok(all) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = fs::metadata(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })?;
    let mode = file.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.to_owned(), mode });
    }
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| TlsError::Empty { path: path.to_owned(), what: "private key" })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), source };
    let file = fs::metadata(path).map_err(unreadable)?;
    if !file.is_file() || file.len() > FILE_LIMIT {
        return Err(unreadable(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    fs::read(path).map(Zeroizing::new).map_err(unreadable)
}

/// The DNS names and URIs that a certificate is for; none where it cannot be read.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<Identity> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter();
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(Identity::Dns(name.to_ascii_lowercase())),
        GeneralName::URI(uri) => Some(Identity::Uri((*uri).to_owned())),
        _ => None,
    });
    names.collect()
}
