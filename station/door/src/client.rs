//! The client's side of mutual TLS 1.3: the CA of the server, and what we show it. Reads the files anew when they change.
//!
//! Knows nothing of whom it calls.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig,
    client::{Resumption, WebPkiServerVerifier},
    crypto::aws_lc_rs,
    version::TLS13,
};

use crate::{
    files::{Files, Fresh, TlsError, certificates, key, no_verifier, roots},
    revocation::Newest,
};

/// Where they lie, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// Where people name them, for messages, as in `signer-tls`.
    pub section: &'static str,
    /// The CA that the server's certificate is from.
    pub ca: PathBuf,
    /// What that CA has withdrawn; `None`: nobody looks.
    pub crl: Option<PathBuf>,
    /// The client's certificate and what is between it and the CA that the server trusts.
    pub certificate: PathBuf,
    /// Its key; readable for the client's user alone.
    pub key: PathBuf,
}

/// The configuration for each new connection.
pub struct ClientTls(Fresh<ClientFiles>);

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One is missing, or they do not go together.
    pub fn load(files: ClientFiles) -> Result<Self, TlsError> {
        Fresh::load(files).map(Self)
    }

    /// What is in the files now; as long as that is no good, what was in them before. Reads files, which are small.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.config()
    }
}

impl Files for ClientFiles {
    type Config = ClientConfig;

    fn paths(&self) -> Vec<&Path> {
        [&self.certificate, &self.key, &self.ca].into_iter().chain(&self.crl).map(PathBuf::as_path).collect()
    }

    fn config(&self, newest: &mut Newest) -> Result<ClientConfig, TlsError> {
        let pair =
            |source| TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), source };
        let (provider, crl) = (Arc::new(aws_lc_rs::default_provider()), self.crl.as_deref());
        let roots = Arc::new(roots(self.section, &self.ca)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(newest.read(self.section, crl)?)
            .enforce_revocation_expiration()
            .build()
            .map_err(no_verifier(crl))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(
                certificates(self.section, &self.certificate)?,
                key(self.section, &self.key)?,
            )
            .map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each connection proves anew who it is, by what the files say now.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}
