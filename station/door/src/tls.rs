//! The server's side of mutual TLS 1.3: its own certificate, the CA of those who may knock, and what that has withdrawn.
//! Reads the files anew when they change.
//!
//! Knows nothing of who is let in.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

pub use crate::files::TlsError;
use crate::{
    files::{Files, Fresh, certificates, key, no_verifier, roots},
    guest::Identity,
    revocation::Newest,
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
    /// What these CAs, and those between them and a client, have withdrawn; `None`: nobody looks. With it, each of them
    /// must have a list here whose time is not over: otherwise whom it vouches for is not let in.
    pub client_crl: Option<PathBuf>,
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
        self.current().config.clone()
    }

    /// The same, and who may be behind a connection.
    pub(crate) fn current(&self) -> Arc<Serving> {
        self.0.config()
    }

    /// Whether anything can be withdrawn here.
    pub(crate) fn revokes(&self) -> bool {
        self.0.files().client_crl.is_some()
    }
}

/// What the files say.
#[derive(Debug)]
pub(crate) struct Serving {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Serving {
    /// Whether the first of these certificates, which was good once, is withdrawn, or one between it and its CA. What else
    /// may be wrong with them by now is seen when they are shown again.
    pub(crate) fn withdraws(&self, shown: &[CertificateDer<'_>]) -> bool {
        let Some((own, between)) = shown.split_first() else { return false };
        let judged = self.verifier.verify_client_cert(own, between, UnixTime::now());
        matches!(judged, Err(rustls::Error::InvalidCertificate(CertificateError::Revoked)))
    }
}

impl Files for TlsFiles {
    type Config = Serving;

    fn paths(&self) -> Vec<&Path> {
        let always = [&self.certificate, &self.key, &self.client_ca];
        always.into_iter().chain(&self.client_crl).map(PathBuf::as_path).collect()
    }

    fn config(&self, newest: &mut Newest) -> Result<Serving, TlsError> {
        let (provider, crl) = (Arc::new(aws_lc_rs::default_provider()), self.client_crl.as_deref());
        let roots = Arc::new(roots(SECTION, &self.client_ca)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(newest.read(SECTION, crl)?)
            .enforce_revocation_expiration()
            .build()
            .map_err(no_verifier(crl))?;
        let pair =
            |source| TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), source };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(certificates(SECTION, &self.certificate)?, key(SECTION, &self.key)?)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each connection proves anew who it is, by what the files say now.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Serving { config: Arc::new(config), verifier })
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
