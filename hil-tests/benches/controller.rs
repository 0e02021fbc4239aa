//! Fifty stations against one reference controller: how fast it takes 100 000 results that wait in their journals,
//! over SQLite and over PostgreSQL, of the speed of a bare stream.
//!
//! The stations are real uplinks over real journals, in this process; the controllers are processes of their own.
//! In the same run, light clients send the same messages from memory, with the same window: to a server that only
//! counts them (the bare stream), to one that appends them to a file and syncs that (what durability costs here), to the
//! reference controller (what the stations' side costs is the difference), and to a Python server, which keeps them in
//! SQLite or not at all. Everything lies on one disk.
//! Run with `cargo bench -p factory-hil-tests --bench controller [-- STATIONS RESULTS]`.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{self, Command},
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
use factory_proto::station::{
    Unit,
    line_controller_server::{LineController, LineControllerServer},
};
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

#[path = "made/cost.rs"]
mod cost;
#[path = "made/keeper.rs"]
mod keeper;
#[path = "made/result.rs"]
mod made;
#[path = "made/stream.rs"]
mod stream;
use cost::Cost;
use keeper::Keeper;
use stream::{Counter, WINDOW};

const STATIONS: u64 = 50;
const RESULTS: u64 = 100_000;
/// What is enough to know Python's speed.
const PYTHON_RESULTS: u64 = 10_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [role] if role == "counter" => serve(Counter).await,
        [role, file] if role == "keeper" => serve(Keeper::create(Path::new(file))?).await,
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
    println!("a message has {bytes} bytes; the window is {WINDOW}");
    println!(
        "{:58} results/s, of the bare stream; µs of processor a result: senders + controller + database",
        ""
    );

    // Before and after, since the machine's speed drifts.
    let first = bare(stations, each).await?;
    let mut figures = vec![durable(folder.path(), stations, each).await?];
    for database in ["sqlite", "postgres"] {
        for (sender, uplinks) in [("stations", true), ("light clients", false)] {
            let (ground, store) = ground(folder.path(), database)?;
            let controller = ControllerProcess::start(programs(), "127.0.0.1:0".parse()?, &store)?;
            let server = || ground.as_ref().map_or(Ok(Duration::ZERO), database_cost);
            let copy = folder.path().join("stations");
            if uplinks {
                copy_all(&full, &copy)?;
            }
            let server_then = server()?;
            let taken = if uplinks {
                Taken::by(deliver(&copy, stations, controller.address)).await?
            } else {
                Taken::by(clients(stations, each, controller.address)).await?
            };
            let (cost, server) = (Cost::of(controller.id())?, server()? - server_then);
            ensure!(Store::open(store.parse()?)?.count()?.0 as u64 == results, "not everything was kept");
            figures.push(Figure { what: format!("{sender} to {database}"), taken, results, cost, server });
            if uplinks {
                fs::remove_dir_all(copy)?;
            }
            controller.kill();
            drop(ground);
        }
    }
    let last = bare(stations, each).await?;
    figures.extend(python(folder.path(), stations).await?);

    let bare = rate(results, (first.taken.elapsed + last.taken.elapsed) / 2);
    for figure in [vec![first], figures, vec![last]].concat() {
        let Figure { what, taken, results, cost, server } = figure;
        let rate = rate(results, taken.elapsed);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / results as f64;
        println!(
            "{what:58} {rate:8.0}  {:.3}  {:3.0} + {:3.0} + {:3.0}  {} MiB, {} at its highest",
            rate / bare,
            each(taken.here),
            each(cost.processor),
            each(server),
            cost.resident_kib >> 10,
            cost.highest_kib >> 10
        );
    }
    Ok(())
}

/// What sending took.
#[derive(Clone, Copy)]
struct Taken {
    elapsed: Duration,
    /// Of the processor, in this process.
    here: Duration,
}

impl Taken {
    async fn by(sending: impl Future<Output = anyhow::Result<Duration>>) -> anyhow::Result<Self> {
        let before = Cost::of(process::id())?.processor;
        let elapsed = sending.await?;
        Ok(Self { elapsed, here: Cost::of(process::id())?.processor - before })
    }
}

/// What one controller did.
#[derive(Clone)]
struct Figure {
    what: String,
    taken: Taken,
    results: u64,
    cost: Cost,
    /// Of the processor, in the processes of the database.
    server: Duration,
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

/// The processor time of a database's processes.
fn database_cost(cluster: &Cluster) -> anyhow::Result<Duration> {
    let server = cluster.id()?;
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
    children.split_whitespace().map(|child| Ok(Cost::of(child.parse()?)?.processor)).sum()
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

async fn bare(stations: u64, each: u64) -> anyhow::Result<Figure> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("counter");
    light("light clients to a counter (bare stream)", command, stations, each).await
}

async fn durable(folder: &Path, stations: u64, each: u64) -> anyhow::Result<Figure> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("keeper").arg(folder.join("kept"));
    light("light clients to a file", command, stations, each).await
}

/// Light clients to a server of one's own.
async fn light(what: &str, server: Command, stations: u64, each: u64) -> anyhow::Result<Figure> {
    let server = ControllerProcess::spawn(server)?;
    let taken = Taken::by(clients(stations, each, server.address)).await?;
    let cost = Cost::of(server.id())?;
    Ok(Figure { what: what.to_owned(), taken, results: stations * each, cost, server: Duration::ZERO })
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

/// Serves until it is killed.
async fn serve(controller: impl LineController) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let server = Server::builder().add_service(LineControllerServer::new(controller));
    Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

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
        let what = format!("light clients to Python grpcio, which {what}");
        figures.push(light(&what, command, stations, each).await?);
    }
    Ok(figures)
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
