//! Connections of stations over mutual TLS 1.3: whoever shows no certificate of the stations' CA is gone before a
//! byte of HTTP is read.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier, version::TLS13};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;
use tracing::warn;

/// A station across the factory needs three round trips.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Of which so many may be under way; others wait for their turn.
const HANDSHAKES: usize = 64;
/// Out of file descriptors: others will end.
const BREATH: Duration = Duration::from_millis(100);

/// Where keys and certificates lie, PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The controller's certificate, and what is between it and the CA that stations trust.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CAs of the stations' certificates.
    pub client_ca: PathBuf,
}

impl TlsFiles {
    /// Reads them.
    ///
    /// # Errors
    /// One cannot be read, or they do not go together.
    pub fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut stations = RootCertStore::empty();
        for ca in certificates(&self.client_ca)? {
            let naming = || format!("{} holds a certificate that is no CA", self.client_ca.display());
            stations.add(ca).with_context(naming)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(stations.into(), provider.clone()).build()?;
        let reading = || format!("the key in {} cannot be read", self.key.display());
        let key = PrivateKeyDer::from_pem_file(&self.key).with_context(reading)?;
        let pairing = || format!("{} and {} are no pair", self.certificate.display(), self.key.display());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.certificate)?, key)
            .with_context(pairing)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let reading = || format!("the certificates in {} cannot be read", path.display());
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).with_context(reading)?.collect();
    let read = read.with_context(reading)?;
    ensure!(!read.is_empty(), "{} holds no certificate in PEM", path.display());
    Ok(read)
}

/// A connection of a station that has shown its certificate.
pub struct Connection(TlsStream<TcpStream>);

/// The connections that come in.
pub fn incoming(listener: TcpListener, acceptor: TlsAcceptor) -> impl Stream<Item = io::Result<Connection>> {
    let (connected, connections) = mpsc::channel(1);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        while let Ok(place) = places.clone().acquire_owned().await {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(_) => {
                        sleep(BREATH).await;
                        continue;
                    }
                },
                () = connected.closed() => return,
            };
            let (acceptor, connected) = (acceptor.clone(), connected.clone());
            tokio::spawn(async move {
                let shaken = timeout(HANDSHAKE, acceptor.accept(stream)).await;
                drop(place);
                match shaken {
                    // Nobody takes it when the controller ends.
                    Ok(Ok(stream)) => drop(connected.send(Ok(Connection(stream))).await),
                    Ok(Err(error)) => warn!(%peer, %error, "a connection is refused"),
                    Err(_) => warn!(%peer, "a connection says nothing"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
