//! How much of a line's own speed is left when a device is given its bundle over it: the time that the bytes take at
//! the line's rate, divided by the time from the first byte of the first message to the last of the last answer. The
//! certificate's issuing by a CA in memory, and all that the device does but booting, count as time.
//!
//! The line is a paced one: each byte arrives no sooner than ten bits after the one before it. The bare line, in the
//! same run, carries as many bytes there and back with nothing in between, and shows what the pacing itself leaves.
//! Run with `cargo bench -p factory-hil-tests --bench injecting [-- UNITS]`.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use factory_fixtures::{
    console::Console,
    fcc::{
        link::{self, printed_address},
        message::Answer,
        session::Session,
    },
};
use factory_hil_tests::{child::Child, pty::Pty, target::FIRMWARE_ELF};
use factory_station::{
    recipe::{
        Recipe,
        template::{Unit, Values},
    },
    signatures::{Demand, Signatures},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, date_time_ymd,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const UNITS: u32 = 20;
const RATES: [u32; 2] = [115_200, 921_600];
/// What a UART hands over at once, at most.
const FIFO: usize = 16;
/// A start bit, eight of data, a stop bit.
const BITS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let units = env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(UNITS);
    let desk = Desk::set_up()?;
    println!("{units} units each; share of the line's own speed, in all");
    for baud in RATES {
        let mut totals = [Total::default(), Total::default(), Total::default()];
        for _ in 0..units {
            let serial = desk.over_serial(baud).await?;
            totals[2].add(bare(serial.bytes, baud).await?);
            totals[0].add(serial);
            totals[1].add(desk.over_tcp(baud).await?);
        }
        for (name, total) in ["serial", "TCP", "bare line"].iter().zip(totals) {
            let Total { bytes, took, units } = total;
            println!(
                "{baud:6} baud  {name:9}  {:.3}   {} bytes and {:.1} ms a unit",
                at_line_rate(bytes, baud).div_duration_f64(took),
                bytes / u64::from(units),
                took.as_secs_f64() * 1000.0 / f64::from(units)
            );
        }
    }
    Ok(())
}

/// What a conversation cost.
struct Cost {
    bytes: u64,
    took: Duration,
}

#[derive(Default)]
struct Total {
    bytes: u64,
    took: Duration,
    units: u32,
}

impl Total {
    fn add(&mut self, cost: Cost) {
        self.bytes += cost.bytes;
        self.took += cost.took;
        self.units += 1;
    }
}

fn at_line_rate(bytes: u64, baud: u32) -> Duration {
    Duration::from_secs_f64(bytes as f64 * f64::from(BITS) / f64::from(baud))
}

/// The demo's recipe, and a CA.
struct Desk {
    folder: tempfile::TempDir,
    /// Where devices keep what they are given: the disk of this computer is no part of a device.
    memory: tempfile::TempDir,
    recipe: Recipe,
    issuer: Issuer<'static, KeyPair>,
}

impl Desk {
    fn set_up() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "Bench CA");
        let key = KeyPair::generate()?;
        fs::write(folder.path().join("bootstrap-ca.pem"), ca.self_signed(&key)?.pem())?;
        fs::copy(FIRMWARE_ELF, folder.path().join("hilfw.elf"))?;
        let recipe = folder.path().join("sensor.toml");
        fs::write(&recipe, include_str!("../scenarios/sensor.toml"))?;
        let recipe = Recipe::read(&recipe, &Signatures::demanded(&Demand::Nothing)?)?;
        let memory = tempfile::tempdir_in("/dev/shm")?;
        Ok(Self { folder, memory, recipe, issuer: Issuer::new(ca, key) })
    }

    async fn over_serial(&self, baud: u32) -> anyhow::Result<Cost> {
        let path = self.folder.path().join("console");
        let pty = Pty::open(&path)?;
        let mut console = Console::open(path.to_str().context("a path is text")?, baud).await?;
        let mut device = self.device(&[])?;
        let (stdin, stdout) = (device.stdin.take(), device.stdout.take());
        let bytes = Arc::new(AtomicU64::new(0));
        pace(pty.master.try_clone()?, stdin.context("it is a pipe")?, baud, &bytes);
        pace(stdout.context("it is a pipe")?, pty.master.try_clone()?, baud, &bytes);
        while !console.line().await?.contains("waiting for data") {}
        let line = console.split().0;
        self.provision(line, &bytes).await
    }

    async fn over_tcp(&self, baud: u32) -> anyhow::Result<Cost> {
        let mut device = self.device(&["--tcp"])?;
        let mut console = String::new();
        let stdout = device.stdout.as_mut().context("it is a pipe")?;
        BufReader::new(stdout).read_line(&mut console)?;
        let address = printed_address(&console).context("the device tells where it is")?;
        let bytes = Arc::new(AtomicU64::new(0));
        let mut line = paced_connection(address, baud, &bytes).await?;
        self.provision(&mut line, &bytes).await
    }

    fn device(&self, switches: &[&str]) -> anyhow::Result<Child> {
        let mut device = Command::new(env!("CARGO_BIN_EXE_sim-device"));
        device.arg("--storage").arg(self.memory.path().join("storage.json")).args(switches);
        device.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Child::spawn(device, Vec::new())?)
    }

    /// The daemon's own way to give a device its identity and its bundle.
    async fn provision(
        &self,
        line: &mut (impl AsyncRead + AsyncWrite + Unpin),
        bytes: &AtomicU64,
    ) -> anyhow::Result<Cost> {
        let (order, serial, values) = ("WO-1".parse()?, "SN0001".parse()?, Values::default());
        let unit = Unit { product: &self.recipe.name, order: &order, serial: &serial, values: &values };
        let mut credentials = self.recipe.credentials(&unit)?;
        let request = self.recipe.key_requests("bench-1", &unit)?.context("the device makes its key")?;
        let mut session = Session::new(PATIENCE);
        let (before, begun) = (bytes.load(Ordering::Relaxed), Instant::now());
        let mut ask = async |payload: &[u8]| -> anyhow::Result<Answer> {
            Ok(link::exchange(&mut session, line, payload, |_| {}).await?.accepted()?)
        };
        let answer = ask(&request.encode()).await?;
        let csr = &answer.csrs.first().context("one request was asked for")?.der;
        credentials.chain = vec![self.certify(csr)?];
        let bundle = self.recipe.provision.bundle("bench-2", &unit, &credentials, SystemTime::now())?;
        ask(&bundle.encode()).await?;
        Ok(Cost { bytes: bytes.load(Ordering::Relaxed) - before, took: begun.elapsed() })
    }

    fn certify(&self, csr: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut device = CertificateSigningRequestParams::from_der(&csr.into())?;
        device.params.not_before = date_time_ymd(2026, 1, 1);
        device.params.not_after = date_time_ymd(2056, 1, 1);
        device.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(device.signed_by(&self.issuer)?.der().to_vec())
    }
}

/// As many bytes, half of them there and half of them back, when the first half has arrived.
async fn bare(bytes: u64, baud: u32) -> anyhow::Result<Cost> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let std::net::SocketAddr::V4(address) = listener.local_addr()? else { unreachable!("bound to IPv4") };
    let half = usize::try_from(bytes / 2)?;
    thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut there = vec![0; half];
        stream.read_exact(&mut there)?;
        stream.write_all(&there)
    });
    let mut line = paced_connection(address, baud, &Arc::default()).await?;
    let begun = Instant::now();
    let mut all = vec![0; half];
    line.write_all(&all).await?;
    line.read_exact(&mut all).await?;
    Ok(Cost { bytes: 2 * u64::try_from(half)?, took: begun.elapsed() })
}

/// A connection whose bytes take as long as on a serial line.
async fn paced_connection(
    to: SocketAddrV4,
    baud: u32,
    bytes: &Arc<AtomicU64>,
) -> anyhow::Result<tokio::net::TcpStream> {
    let far = TcpStream::connect(to)?;
    let middle = TcpListener::bind("127.0.0.1:0")?;
    let near = tokio::net::TcpStream::connect(middle.local_addr()?).await?;
    let (middle, _) = middle.accept()?;
    for stream in [&far, &middle] {
        stream.set_nodelay(true)?;
    }
    near.set_nodelay(true)?;
    pace(middle.try_clone()?, far.try_clone()?, baud, bytes);
    pace(far, middle, baud, bytes);
    Ok(near)
}

/// Carries bytes until one end is gone, each no sooner than the line could.
fn pace(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    baud: u32,
    bytes: &Arc<AtomicU64>,
) {
    // What waits to be sent waits here, so that the line's schedule depends on nobody's being late.
    let (sent, waiting) = mpsc::channel();
    thread::spawn(move || -> std::io::Result<()> {
        let mut chunk = [0; FIFO];
        loop {
            let count = from.read(&mut chunk)?;
            if count == 0 || sent.send((Instant::now(), chunk[..count].to_vec())).is_err() {
                return Ok(());
            }
        }
    });
    let bytes = bytes.clone();
    thread::spawn(move || -> std::io::Result<()> {
        let mut free = Instant::now();
        for (since, chunk) in waiting {
            free = free.max(since) + at_line_rate(chunk.len() as u64, baud);
            thread::sleep(free.saturating_duration_since(Instant::now()));
            bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            to.write_all(&chunk)?;
            to.flush()?;
        }
        Ok(())
    });
}
