//! Where the signer is: a socket on this host, or a server on another one that wants to see our certificate.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

/// As the signer's own: a connection that is silent for so long is asked whether it is alive.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// A server across the factory answers in a few milliseconds.
const CONNECT: Duration = Duration::from_secs(5);

/// Where the signer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignerPlace {
    /// Its Unix socket.
    Socket(PathBuf),
    /// Its server, `https://`.
    Server {
        /// Scheme, host and port.
        uri: Uri,
        /// What both sides show.
        tls: SignerTls,
    },
}

/// The files for mutual TLS, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerTls {
    /// The CA that the signer's certificate is from.
    pub ca: PathBuf,
    /// The station's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why there can be no connection; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SignerTlsError {
    /// Not there.
    #[error("{} cannot be read: correct `signer-tls`, and see that the station's user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No PEM, no pair.
    #[error(
        "the files of `signer-tls` cannot be used together: give the signer's CA, and the station's certificate with its own key"
    )]
    Unusable(#[source] tonic::transport::Error),
}

impl SignerPlace {
    /// The way there; nothing is connected yet. Reads the files, once.
    ///
    /// # Errors
    /// One of the files is missing or no good.
    pub fn connect_lazily(&self) -> Result<Channel, SignerTlsError> {
        let (uri, tls) = match self {
            Self::Socket(path) => return Ok(to_socket(path)),
            Self::Server { uri, tls } => (uri, tls),
        };
        let config = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read(&tls.ca)?))
            .identity(Identity::from_pem(read(&tls.certificate)?, read(&tls.key)?));
        let endpoint = Endpoint::from(uri.clone())
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        Ok(endpoint.tls_config(config).map_err(SignerTlsError::Unusable)?.connect_lazy())
    }
}

/// The way to a socket.
fn to_socket(path: &Path) -> Channel {
    let socket = format!("unix:{}", path.display());
    Endpoint::from_shared(socket).expect("tonic takes any path behind unix:").connect_lazy()
}

impl fmt::Display for SignerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Server { uri, .. } => write!(f, "{uri}"),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SignerTlsError> {
    fs::read(path).map_err(|source| SignerTlsError::Unreadable { path: path.to_owned(), source })
}
