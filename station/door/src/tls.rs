//! The server's side of mutual TLS 1.3: its own certificate, and the CA of those who may knock. Reads the files anew when
//! they change.
//!
//! Knows nothing of who is let in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

pub use crate::files::TlsError;
use crate::{
    files::{Files, Fresh, certificates, key, roots},
    guest::Identity,
};

/// Where servers name their files.
const SECTION: &str = "tls";

/// Where they lie, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and what is between it and the CA that clients trust.
    pub certificate: PathBuf,
    /// Its key; readable for the server's user alone.
    pub key: PathBuf,
    /// The CAs whose certificates clients show.
    pub client_ca: PathBuf,
}

/// The configuration for each new connection. Clones are the same.
#[derive(Clone)]
pub struct Tls(Arc<Fresh<TlsFiles>>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One is missing, or they do not go together.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        Fresh::load(files).map(|fresh| Self(Arc::new(fresh)))
    }

    /// What is in the files now; as long as that is no good, what was in them before. Reads files, which are small.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.config()
    }
}

impl Files for TlsFiles {
    type Config = ServerConfig;

    fn paths(&self) -> [&Path; 3] {
        [&self.certificate, &self.key, &self.client_ca]
    }

    fn config(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(roots(SECTION, &self.client_ca)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
        let pair =
            |source| TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), source };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(SECTION, &self.certificate)?, key(SECTION, &self.key)?)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each connection proves anew who it is, by what the files say now.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
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
