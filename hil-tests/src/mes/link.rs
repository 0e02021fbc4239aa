//! A bad network between a station and its controller: passes connections on, each as its weather has it. Knows
//! nothing of what goes over it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// What becomes of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// How long each piece is on its way, in both directions.
    pub delay: Duration,
    /// Bytes that reach the controller until something happens; all, if nothing does.
    pub up: Option<u64>,
    /// Bytes that come back until something happens.
    pub down: Option<u64>,
    /// What happens then.
    pub then: Then,
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Then {
    /// It is reset, for both sides.
    #[default]
    Reset,
    /// It is half-open: both believe in it, and nothing passes any more.
    Silence,
}

impl Weather {
    /// Cut after some bytes, in one direction or the other, and slow at times; the same for the same number.
    pub fn bad(number: u64, longest: u64) -> Self {
        let [whence, bytes, slow] = [1, 2, 3].map(|of| mixed(number << 2 | of));
        let bytes = Some(bytes % longest);
        Self {
            delay: Duration::from_millis(if slow % 4 == 0 { slow / 4 % 20 } else { 0 }),
            up: bytes.filter(|_| whence % 3 > 0),
            // There is far less to acknowledge than to report.
            down: bytes.filter(|_| whence % 3 == 0).map(|bytes| bytes / 100),
            then: Then::Reset,
        }
    }
}

/// SplitMix64's output function: well mixed bits of a number.
fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A link to a controller. Everything over it ends when it is dropped.
pub struct Link {
    /// Where stations connect.
    pub address: SocketAddr,
    connections: Arc<watch::Sender<u64>>,
    passing: JoinHandle<()>,
}

impl Link {
    /// Opens a link. `weather` is asked for each connection, counted from 0.
    ///
    /// # Errors
    /// There is no port for it.
    pub async fn open(
        controller: SocketAddr,
        weather: impl Fn(u64) -> Weather + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(watch::Sender::new(0));
        let counted = connections.clone();
        let passing = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((station, _)) = listener.accept().await {
                passing.spawn(pass(station, controller, weather(*counted.borrow())));
                counted.send_modify(|count| *count += 1);
                // Those that have ended, with whatever.
                while passing.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, connections, passing })
    }

    /// How many connections there were.
    pub fn connections(&self) -> u64 {
        *self.connections.borrow()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

async fn pass(station: TcpStream, controller: SocketAddr, weather: Weather) -> io::Result<()> {
    let controller = TcpStream::connect(controller).await?;
    for side in [&station, &controller] {
        side.set_nodelay(true)?;
        // A reset, where the kernel would send the rest and say goodbye.
        side.set_zero_linger()?;
    }
    let ((from_station, to_station), (from_controller, to_controller)) =
        (station.into_split(), controller.into_split());
    tokio::select! {
        passed = flow(from_station, to_controller, weather.delay, weather.up, weather.then) => passed,
        passed = flow(from_controller, to_station, weather.delay, weather.down, weather.then) => passed,
    }
}

/// Passes bytes on until one side ends, or something happens.
async fn flow(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    limit: Option<u64>,
    then: Then,
) -> io::Result<()> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut piece = vec![0; 16 * 1024];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let length = from.read(&mut piece[..most]).await?;
        if length == 0 {
            return Ok(());
        }
        sleep(delay).await;
        to.write_all(&piece[..length]).await?;
        left -= length as u64;
    }
    match then {
        Then::Reset => Ok(()),
        Then::Silence => std::future::pending().await,
    }
}
