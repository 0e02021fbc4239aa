//! Takes connections on Unix sockets, on TLS and without it, and finds out who is behind each, before a byte of HTTP is read.
//!
//! Whoever sends garbage, or nothing, holds one of a few places for a short time and is gone.

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;
use tracing::warn;

use crate::{
    allowance::{Allowance, Limits, Place},
    guest::{Caller, Evidence, Guest, House, Origin},
    rate::{Bucket, Rate},
    tls::{self, Tls},
    withdrawn::{Watched, Withdrawn},
};

/// A station across the factory needs three round trips.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Of which so many may be under way; the oldest ends when another one comes.
const HANDSHAKES: usize = 64;
/// Connections of those who may not ask, kept for the time it takes to tell them.
const STRANGERS: usize = 8;
/// Out of file descriptors: others will end.
const BREATH: Duration = Duration::from_millis(100);

/// One way in.
pub enum Door {
    /// A Unix socket.
    Socket(UnixListener),
    /// Mutual TLS.
    Tls(TcpListener, Tls),
    /// Without TLS: for this host alone.
    Plain(TcpListener),
}

/// A connection of somebody.
pub struct Connection<P, S> {
    stream: Stream,
    caller: Caller<P, S>,
    /// Of a certificate that may be withdrawn.
    withdrawn: Option<Withdrawn>,
    /// One of the places that its peer has.
    _place: Place,
}

enum Stream {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

/// Where connections come in; closed when dropped.
pub struct Doors<P, S> {
    connections: mpsc::Receiver<io::Result<Connection<P, S>>>,
    _doors: JoinSet<()>,
}

impl<P: Guest, S: fmt::Display + Clone + Send + Sync + 'static> Doors<P, S> {
    /// Opens these doors of a house.
    pub fn open<H: House<Peer = P, Stranger = S>>(doors: impl IntoIterator<Item = Door>, house: H) -> Self {
        let (out, connections) = mpsc::channel(1);
        let strangers = Limits { calls: None, at_a_time: 1, connections: STRANGERS };
        let hall = Arc::new(Hall {
            house,
            strangers: Allowance::new(&strangers),
            voice: Mutex::new(Bucket::new(
                "1/s".parse::<Rate>().expect("a rate"),
                20.try_into().expect("not zero"),
            )),
            out,
        });
        let mut open = JoinSet::new();
        for door in doors {
            match door {
                Door::Socket(listener) => open.spawn(unix(listener, hall.clone())),
                Door::Tls(listener, tls) => {
                    let watched = tls.revokes().then(|| Watched::new(tls.clone()));
                    if let Some(watched) = &watched {
                        open.spawn(watched.clone().keep_looking());
                    }
                    open.spawn(tcp(listener, Some((tls, watched)), hall.clone()))
                }
                Door::Plain(listener) => open.spawn(tcp(listener, None, hall.clone())),
            };
        }
        Self { connections, _doors: open }
    }
}

impl<P, S> tokio_stream::Stream for Doors<P, S> {
    type Item = io::Result<Connection<P, S>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context)
    }
}

/// What all doors lead to.
struct Hall<H: House> {
    house: H,
    strangers: Allowance,
    /// So that nobody fills the log.
    voice: Mutex<Bucket>,
    out: mpsc::Sender<io::Result<Connection<H::Peer, H::Stranger>>>,
}

impl<H: House> Hall<H> {
    /// Hands a connection on, if there is a place for it.
    async fn welcome(
        &self,
        stream: Stream,
        who: Result<H::Peer, H::Stranger>,
        from: Origin,
        withdrawn: Option<Withdrawn>,
    ) {
        let place = match &who {
            Ok(peer) => peer.allowance().begin_connection(),
            Err(stranger) => {
                self.say(|| warn!(%stranger, %from, "somebody may not call"));
                self.strangers.begin_connection()
            }
        };
        let Some(_place) = place else {
            let peer = who.as_ref().ok().map(tracing::field::display);
            self.say(|| warn!(peer, %from, "a peer has too many connections"));
            return;
        };
        // Nobody takes it when the server has ended.
        let _ =
            self.out.send(Ok(Connection { stream, caller: Caller { who, from }, withdrawn, _place })).await;
    }

    fn say(&self, what: impl FnOnce()) {
        let mut voice = self.voice.lock().unwrap_or_else(PoisonError::into_inner);
        if voice.take(Instant::now()).is_ok() {
            what();
        }
    }

    async fn no_connection(&self, error: io::Error) {
        self.say(|| warn!(error = &error as &dyn std::error::Error, "no connection was taken"));
        sleep(BREATH).await;
    }
}

async fn unix<H: House>(listener: UnixListener, hall: Arc<Hall<H>>) {
    let mut greetings = Greetings::default();
    while !hall.out.is_closed() {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                hall.no_connection(error).await;
                continue;
            }
        };
        let evidence = match stream.peer_cred() {
            Ok(credentials) => Evidence::Process { uid: credentials.uid(), gid: credentials.gid() },
            Err(_) => Evidence::Nothing,
        };
        let hall = hall.clone();
        greetings.begin(async move {
            let known = hall.clone();
            // Looks into the host's user database, where it must.
            let who = spawn_blocking(move || known.house.recognise(&evidence)).await;
            let Ok(who) = who else { return };
            hall.welcome(Stream::Unix(stream), who, Origin::Socket, None).await;
        });
    }
}

async fn tcp<H: House>(listener: TcpListener, tls: Option<(Tls, Option<Watched>)>, hall: Arc<Hall<H>>) {
    let mut greetings = Greetings::default();
    while !hall.out.is_closed() {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                hall.no_connection(error).await;
                continue;
            }
        };
        // Small messages that are waited for.
        let _ = stream.set_nodelay(true);
        let (hall, tls) = (hall.clone(), tls.as_ref().map(|(tls, watched)| (tls.config(), watched.clone())));
        greetings.begin(async move {
            let Some((config, watched)) = tls else {
                let who = hall.house.recognise(&Evidence::Address(from));
                return hall.welcome(Stream::Plain(stream), who, Origin::Address(from), None).await;
            };
            match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
                Ok(Ok(stream)) => {
                    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let names = shown.first().map(tls::names).unwrap_or_default();
                    let who = hall.house.recognise(&Evidence::Certificate(names));
                    let withdrawn = match watched.map(|watched| watched.begin(shown, from)) {
                        Some(None) => return hall.say(|| warn!(%from, "a withdrawn certificate was shown")),
                        Some(Some(withdrawn)) => Some(withdrawn),
                        None => None,
                    };
                    hall.welcome(Stream::Tls(Box::new(stream)), who, Origin::Address(from), withdrawn).await;
                }
                Ok(Err(error)) => {
                    hall.say(
                        || warn!(%from, error = &error as &dyn std::error::Error, "no TLS with somebody"),
                    );
                }
                Err(_) => hall.say(|| warn!(%from, "somebody connected and said nothing")),
            }
        });
    }
}

/// Those who are being asked who they are.
#[derive(Default)]
struct Greetings {
    tasks: JoinSet<()>,
    by_age: VecDeque<AbortHandle>,
}

impl Greetings {
    fn begin(&mut self, greeting: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.by_age.retain(|greeting| !greeting.is_finished());
        if self.by_age.len() >= HANDSHAKES {
            // Who has said nothing for longest; an honest one is done in a few milliseconds.
            self.by_age.pop_front().expect("there are some").abort();
        }
        self.by_age.push_back(self.tasks.spawn(greeting));
    }
}

impl<P: Guest, S: Clone + Send + Sync + 'static> Connected for Connection<P, S> {
    type ConnectInfo = Caller<P, S>;

    fn connect_info(&self) -> Caller<P, S> {
        self.caller.clone()
    }
}

impl<P, S> Connection<P, S> {
    /// # Errors
    /// Its certificate was withdrawn. Woken by that as long as it is read from, which it is all the time.
    fn still_good(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(withdrawn) = &mut self.withdrawn else { return Ok(()) };
        if !withdrawn.is_terminated() && Pin::new(withdrawn).poll(context).is_pending() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "its certificate was withdrawn"))
    }
}

impl<P: Unpin, S: Unpin> AsyncRead for Connection<P, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.still_good(context)?;
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl<P: Unpin, S: Unpin> AsyncWrite for Connection<P, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
