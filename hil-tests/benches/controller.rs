//! Fifty stations against one reference controller: how fast it takes 100 000 results that wait in their journals,
//! over SQLite and over PostgreSQL, of the speed of a bare stream.
//!
//! The stations are real uplinks over real journals, in this process; the controllers are processes of their own.
//! In the same run, light clients send the same messages from memory, with the same window: to a server that only
//! counts them (the bare stream), to the reference controller (what the stations' side costs is the difference), and
//! to a Python server, which keeps them in SQLite or not at all. Everything lies on one disk.
//! Run with `cargo bench -p factory-hil-tests --bench controller [-- STATIONS RESULTS]`.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use factory_hil_tests::{
    cluster::Cluster,
    mes::{process::ControllerProcess, store::Store},
    python::Python,
};
use factory_journal::{Journal, Options};
use factory_proto::station::{Unit, line_controller_server::LineControllerServer};
use factory_station::{
    line::controllers::Controllers,
    place::Place,
    record::Record,
    results::{Backlog, Uplink},
    rpc::wire,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

#[path = "made/result.rs"]
mod made;
#[path = "made/stream.rs"]
mod stream;
use stream::{Counter, WINDOW};

const STATIONS: u64 = 50;
const RESULTS: u64 = 100_000;
/// What is enough to know Python's speed.
const PYTHON_RESULTS: u64 = 10_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [role] if role == "counter" => count().await,
        [stations, results] => measure(stations.parse()?, results.parse()?).await,
        _ => measure(STATIONS, RESULTS).await,
    }
}

async fn measure(stations: u64, results: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let each = results / stations;
    let results = each * stations;
    let full = folder.path().join("full");
    let made = Instant::now();
    fill(&full, stations, each).await?;
    println!("{stations} stations, {results} results made in {:.1} s", made.elapsed().as_secs_f64());
    let bytes = prost::Message::encoded_len(&unit());
    println!("a message has {bytes} bytes; the window is {WINDOW}; {:27} results/s, of the bare stream", "");

    // Before and after, since the machine's speed drifts.
    let first = bare(stations, each).await?;
    let mut figures = Vec::new();
    for database in ["sqlite", "postgres"] {
        for (sender, uplinks) in [("stations", true), ("light clients", false)] {
            let (ground, store) = ground(folder.path(), database)?;
            let controller = ControllerProcess::start(programs(), "127.0.0.1:0".parse()?, &store)?;
            let elapsed = if uplinks {
                let copy = folder.path().join("stations");
                copy_all(&full, &copy)?;
                let elapsed = deliver(&copy, stations, controller.address).await?;
                fs::remove_dir_all(copy)?;
                elapsed
            } else {
                clients(stations, each, controller.address).await?
            };
            let cost = Cost::of(controller.id())?;
            ensure!(Store::open(store.parse()?)?.count()?.0 as u64 == results, "not everything was kept");
            figures.push((format!("{sender} to {database}"), elapsed, results, Some(cost)));
            controller.kill();
            drop(ground);
        }
    }
    let last = bare(stations, each).await?;
    figures.extend(python(folder.path(), stations).await?);

    let bare = rate(results, (first + last) / 2);
    println!(
        "{:58} {:8.0} and {:.0}",
        "light clients to a counter (bare stream)",
        rate(results, first),
        rate(results, last)
    );
    for (what, elapsed, results, cost) in figures {
        let rate = rate(results, elapsed);
        let cost = cost.map(|cost| cost.per(results)).unwrap_or_default();
        println!("{what:58} {rate:8.0}  {:.3}  {cost}", rate / bare);
    }
    Ok(())
}

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_reference-controller")).parent().expect("a program lies in a folder")
}

/// A database, and its address.
fn ground(folder: &Path, database: &str) -> anyhow::Result<(Option<Cluster>, String)> {
    if database == "postgres" {
        let cluster = Cluster::start(true)?;
        let address = cluster.address();
        return Ok((Some(cluster), address));
    }
    let folder = folder.join("sqlite");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    Ok((None, format!("sqlite:{}", folder.join("results.db").display())))
}

/// Fills the journals of stations with results, many at a time.
async fn fill(folder: &Path, stations: u64, each: u64) -> anyhow::Result<()> {
    let mut filling = JoinSet::new();
    for station in 0..stations {
        let journal = Arc::new(open(folder, station)?);
        for start in 0..WINDOW {
            let journal = journal.clone();
            filling.spawn(async move {
                for number in (start..each).step_by(WINDOW as usize) {
                    let closed = made::closed(station * each + number);
                    journal.append(Record::RunClosed(Box::new(closed))).await?;
                }
                anyhow::Ok(())
            });
        }
    }
    while let Some(filled) = filling.join_next().await {
        filled??;
    }
    Ok(())
}

fn name(station: u64) -> String {
    format!("line-{station}")
}

fn open(folder: &Path, station: u64) -> anyhow::Result<Journal<Record>> {
    let folder = folder.join(name(station));
    fs::create_dir_all(&folder)?;
    Ok(Journal::open(&folder, Options::default())?)
}

/// What real uplinks take until their journals know that everything is acknowledged.
async fn deliver(folder: &Path, stations: u64, controller: SocketAddr) -> anyhow::Result<Duration> {
    let mut ready = Vec::new();
    for station in 0..stations {
        let journal = Arc::new(open(folder, station)?);
        let backlog = Backlog::count(&journal)?;
        let place = Place::Plain(format!("http://{controller}").parse()?);
        let controllers = Controllers::at(&[place])?;
        ready.push(Uplink { station: name(station).parse()?, controllers, journal, backlog });
    }
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let mut delivering = JoinSet::new();
    let backlogs: Vec<Backlog> = ready.iter().map(|uplink| uplink.backlog.clone()).collect();
    for uplink in ready {
        delivering.spawn(uplink.run(stop.clone()));
    }
    for backlog in backlogs {
        backlog.delivered().await;
        ensure!(backlog.standing().results == 0, "the backlog is wrong: {:?}", backlog.standing());
    }
    let elapsed = begun.elapsed();
    stop.cancel();
    while let Some(ended) = delivering.join_next().await {
        ended?;
    }
    Ok(elapsed)
}

async fn bare(stations: u64, each: u64) -> anyhow::Result<Duration> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("counter");
    let counter = ControllerProcess::spawn(command)?;
    clients(stations, each, counter.address).await
}

/// What clients take that send the same message again and again, from memory.
async fn clients(stations: u64, each: u64, controller: SocketAddr) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut sending = JoinSet::new();
    for station in 0..stations {
        sending.spawn(client(station, each, controller));
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(begun.elapsed())
}

async fn client(station: u64, each: u64, controller: SocketAddr) -> anyhow::Result<()> {
    stream::send(controller, &name(station), &unit(), each).await.map(drop)
}

/// They differ in nothing but their number.
fn unit() -> Unit {
    wire::result(&"line-1".parse().expect("it is a name"), &made::closed(1))
}

/// A controller that is done with a result as soon as it has it.
async fn count() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let server = Server::builder().add_service(LineControllerServer::new(Counter));
    Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

type Figure = (String, Duration, u64, Option<Cost>);

/// The same messages to a server in Python, if it is installed.
async fn python(folder: &Path, stations: u64) -> anyhow::Result<Vec<Figure>> {
    let Some(python) = Python::with_stubs(&folder.join("stubs"))? else {
        println!("no target/grpcio: run hil-tests/prepare for figures of a Python server");
        return Ok(Vec::new());
    };
    let each = PYTHON_RESULTS / stations;
    let mut figures = Vec::new();
    for (what, file) in [("keeps nothing", ""), ("keeps them in SQLite", "python.db")] {
        let mut command = python.program("benches/controller.py");
        if !file.is_empty() {
            command.arg(folder.join(file));
        }
        let server = ControllerProcess::spawn(command)?;
        let elapsed = clients(stations, each, server.address).await?;
        let cost = Cost::of(server.id())?;
        figures.push((
            format!("light clients to Python grpcio, which {what}"),
            elapsed,
            each * stations,
            Some(cost),
        ));
    }
    Ok(figures)
}

/// What a process has used.
struct Cost {
    processor: Duration,
    highest_kib: u64,
}

impl Cost {
    fn of(process: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // Behind the name in brackets, the 12th and 13th: in ticks, of which a second has 100.
        let fields = stat.rsplit_once(") ").context("it has a name")?.1.split(' ').skip(11).take(2);
        let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let highest = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let highest_kib = highest.trim().trim_end_matches(" kB").parse()?;
        Ok(Self { processor: Duration::from_millis(ticks * 10), highest_kib })
    }

    fn per(&self, results: u64) -> String {
        let each = self.processor.as_secs_f64() * 1e6 / results as f64;
        format!(
            "its process: {each:.0} µs of processor a result, {} MiB at its highest",
            self.highest_kib >> 10
        )
    }
}

fn rate(results: u64, elapsed: Duration) -> f64 {
    results as f64 / elapsed.as_secs_f64()
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target: PathBuf = to.join(path.file_name().context("an entry has a name")?);
        if path.is_dir() {
            copy_all(&path, &target)?;
        } else {
            fs::copy(&path, target)?;
        }
    }
    Ok(())
}
