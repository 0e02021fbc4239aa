//! Takes connections on the Unix socket and on TLS, and finds out who is behind each, before a byte of HTTP is read.
//!
//! Whoever sends garbage, or nothing, holds one of a few places for a short time and is gone.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;
use tracing::warn;

use crate::{
    peer::{Peer, Peers, Stranger},
    rate::{Bucket, Rate},
    tls::{self, Tls},
};

/// A station across the factory needs three round trips.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Of which so many may be under way; the oldest ends when another one comes.
const HANDSHAKES: usize = 64;
/// Connections of those who may not ask, kept for the time it takes to tell them.
const STRANGERS: usize = 8;
/// Out of file descriptors: others will end.
const BREATH: Duration = Duration::from_millis(100);

/// Who is behind a connection; each of its calls carries it.
#[derive(Debug, Clone)]
pub struct Caller(pub Result<Peer, Stranger>);

/// A connection of somebody.
pub struct Connection {
    stream: Stream,
    caller: Caller,
    /// One of the places that its peer has.
    _place: OwnedSemaphorePermit,
}

enum Stream {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where connections come in; closed when dropped.
pub struct Doors {
    connections: mpsc::Receiver<io::Result<Connection>>,
    _doors: JoinSet<()>,
}

impl Doors {
    /// Opens the socket's door, and the one with TLS if there is one.
    pub fn open(socket: UnixListener, tls: Option<(TcpListener, Tls)>, peers: Peers) -> Self {
        let (out, connections) = mpsc::channel(1);
        let hall = Arc::new(Hall {
            peers,
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            voice: Mutex::new(Bucket::new(
                "1/s".parse::<Rate>().expect("a rate"),
                20.try_into().expect("not zero"),
            )),
            out,
        });
        let mut doors = JoinSet::new();
        doors.spawn(unix(socket, hall.clone()));
        if let Some((listener, tls)) = tls {
            doors.spawn(tcp(listener, Arc::new(tls), hall));
        }
        Self { connections, _doors: doors }
    }
}

impl tokio_stream::Stream for Doors {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context)
    }
}

/// What all doors lead to.
struct Hall {
    peers: Peers,
    strangers: Arc<Semaphore>,
    /// So that nobody fills the log.
    voice: Mutex<Bucket>,
    out: mpsc::Sender<io::Result<Connection>>,
}

impl Hall {
    /// Hands a connection on, if there is a place for it; `false` when nobody takes any more.
    async fn welcome(&self, stream: Stream, caller: Result<Peer, Stranger>) -> bool {
        let place = match &caller {
            Ok(peer) => peer.begin_connection(),
            Err(stranger) => {
                self.say(|| warn!(%stranger, "somebody may not use this signer"));
                self.strangers.clone().try_acquire_owned().ok()
            }
        };
        let Some(_place) = place else {
            let peer = caller.as_ref().ok().and_then(Peer::name).map(tracing::field::display);
            self.say(|| warn!(peer, "a peer has too many connections"));
            return !self.out.is_closed();
        };
        self.out.send(Ok(Connection { stream, caller: Caller(caller), _place })).await.is_ok()
    }

    fn say(&self, what: impl FnOnce()) {
        let mut voice = self.voice.lock().unwrap_or_else(PoisonError::into_inner);
        if voice.take(Instant::now()).is_ok() {
            what();
        }
    }
}

async fn unix(listener: UnixListener, hall: Arc<Hall>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                hall.say(|| warn!(error = &error as &dyn std::error::Error, "no connection was taken"));
                sleep(BREATH).await;
                continue;
            }
        };
        let caller = match stream.peer_cred() {
            Ok(credentials) => hall.peers.user(credentials.uid()),
            Err(_) => Err(Stranger::Unknown),
        };
        if !hall.welcome(Stream::Unix(stream), caller).await {
            return;
        }
    }
}

async fn tcp(listener: TcpListener, tls: Arc<Tls>, hall: Arc<Hall>) {
    let mut handshakes = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                hall.say(|| warn!(error = &error as &dyn std::error::Error, "no connection was taken"));
                sleep(BREATH).await;
                continue;
            }
        };
        if hall.out.is_closed() {
            return;
        }
        while handshakes.try_join_next().is_some() {}
        by_age.retain(|handshake| !handshake.is_finished());
        if by_age.len() >= HANDSHAKES {
            // Who has said nothing for longest; an honest one is done in a few milliseconds.
            by_age.pop_front().expect("there are some").abort();
        }
        let (hall, acceptor) = (hall.clone(), TlsAcceptor::from(tls.config()));
        let handshake = handshakes.spawn(async move {
            // Small messages that are waited for.
            let _ = stream.set_nodelay(true);
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let names = shown.first().map(tls::names).unwrap_or_default();
                    let caller = hall.peers.certificate(&names);
                    hall.welcome(Stream::Tls(Box::new(stream)), caller).await;
                }
                Ok(Err(error)) => {
                    hall.say(
                        || warn!(%from, error = &error as &dyn std::error::Error, "no TLS with somebody"),
                    );
                }
                Err(_) => hall.say(|| warn!(%from, "somebody connected and said nothing")),
            }
        });
        by_age.push_back(handshake);
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
