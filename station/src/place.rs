//! Where a server is that the station calls, and with which files: a socket of this host, a server of this host without
//! TLS, or one anywhere that proves who it is and wants to see our certificate.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use factory_door::client::ClientTls;
pub use factory_door::{client::ClientFiles, files::TlsError};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

/// As the other side's own: a connection that is silent for so long is asked whether it is alive.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// A server across the factory answers in a few milliseconds.
const CONNECT: Duration = Duration::from_secs(5);
const HTTPS: u16 = 443;

/// Where somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Its Unix socket.
    Socket(PathBuf),
    /// Its server without TLS, `http://`; on this host.
    Plain(Uri),
    /// Its server, `https://`.
    Tls {
        /// Scheme, host and port.
        uri: Uri,
        /// What both sides show.
        files: ClientFiles,
    },
}

impl Place {
    /// The way there; nothing is connected yet.
    ///
    /// # Errors
    /// One of the files is missing or no good.
    pub fn way(&self) -> Result<Way, TlsError> {
        Ok(match self {
            Self::Socket(path) => {
                let socket = format!("unix:{}", path.display());
                Way::plain(Endpoint::from_shared(socket).expect("tonic takes any path behind unix:"))
            }
            Self::Plain(uri) => Way::plain(Endpoint::from(uri.clone())),
            Self::Tls { uri, files } => {
                let secure = Secure { uri: uri.clone(), tls: ClientTls::load(files.clone())? };
                // tonic would want to do TLS itself, with files that it reads once.
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                let plain: Uri = format!("http://{authority}").parse().expect("it was a URI");
                let endpoint = Endpoint::from(plain).origin(uri.clone());
                Way { secure: Some(Arc::new(secure)), ..Way::plain(endpoint) }
            }
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Plain(uri) | Self::Tls { uri, .. } => write!(f, "{uri}"),
        }
    }
}

/// The way to a place. With TLS, each new connection is made with what is in the files by then.
#[derive(Clone)]
pub struct Way {
    endpoint: Endpoint,
    secure: Option<Arc<Secure>>,
}

struct Secure {
    uri: Uri,
    tls: ClientTls,
}

impl Way {
    fn plain(endpoint: Endpoint) -> Self {
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        Self { endpoint, secure: None }
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody answers there, or one side does not take the other for what it says it is.
    pub async fn connect(&self) -> Result<Channel, Error> {
        match &self.secure {
            None => self.endpoint.connect().await,
            Some(secure) => {
                let secure = secure.clone();
                let connector = service_fn(move |_| secure.clone().connect());
                self.endpoint.connect_with_connector(connector).await
            }
        }
    }

    /// Connects when something is first asked, and again when that connection was lost.
    pub fn connect_lazily(&self) -> Channel {
        match &self.secure {
            None => self.endpoint.connect_lazy(),
            Some(secure) => {
                let secure = secure.clone();
                let connector = service_fn(move |_| secure.clone().connect());
                self.endpoint.connect_with_connector_lazy(connector)
            }
        }
    }
}

impl Secure {
    async fn connect(self: Arc<Self>) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let connected = timeout(CONNECT, self.shake_hands()).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
    }

    async fn shake_hands(&self) -> io::Result<TlsStream<TcpStream>> {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TcpStream::connect((host, self.uri.port_u16().unwrap_or(HTTPS))).await?;
        // Small messages that are waited for.
        stream.set_nodelay(true)?;
        TlsConnector::from(self.tls.config()).connect(name, stream).await
    }
}
