//! What the uplink costs while its controller is away for 100 000 results, and how fast it catches up then.
//!
//! The uplink lives in a process of its own, so that the memory measured is its own; the controller's side, in
//! this one, only counts. The bare stream, in the same process as the uplink and in the same run, sends the same
//! messages from memory with the same window: what is left of its speed is what order, journal and cursor cost.
//! Run with `cargo bench -p factory-hil-tests --bench results [-- RESULTS]`.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use factory_hil_tests::rig::free_address;
use factory_journal::{Journal, Options};
use factory_proto::station::line_controller_server::LineControllerServer;
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
use made::closed;
use stream::Counter;

const RESULTS: u64 = 100_000;
const NESTS: u64 = 64;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [role, folder, address, results] if role == "uplink" => {
            uplink(Path::new(folder), address.parse()?, results.parse()?).await
        }
        [role, folder, results] if role == "alone" => {
            let journal = Arc::new(Journal::open(folder, Options::default())?);
            let backlog = Backlog::count(&journal)?;
            make(&journal, &backlog, results.parse()?).await?;
            println!("memory of the same without an uplink       {} KiB", memory("VmRSS")?);
            Ok(())
        }
        [results] => measure(results.parse()?).await,
        _ => measure(RESULTS).await,
    }
}

/// The controller's side, and whoever starts the other.
async fn measure(results: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let address = free_address()?;
    let mut child = Command::new(env::current_exe()?)
        .arg("uplink")
        .arg(folder.path())
        .arg(address.to_string())
        .arg(results.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut go = child.stdin.take().context("it is a pipe")?;
    let said = BufReader::new(child.stdout.take().context("it is a pipe")?);
    for line in said.lines() {
        let line = line?;
        if line == "away" {
            let listener = TcpListener::bind(address).await?;
            let server = Server::builder().add_service(LineControllerServer::new(Counter));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            writeln!(go, "back")?;
        } else {
            println!("{line}");
        }
    }
    ensure!(child.wait()?.success(), "the uplink's process failed");

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let alone = Command::new(env::current_exe()?)
        .arg("alone")
        .arg(folder.path())
        .arg(results.to_string())
        .status()?;
    ensure!(alone.success(), "the process without an uplink failed");
    Ok(())
}

/// The station's side: makes results while the controller is away, waits for its return, delivers.
async fn uplink(folder: &Path, address: SocketAddr, results: u64) -> anyhow::Result<()> {
    let journal = Arc::new(Journal::open(folder, Options::default())?);
    let backlog = Backlog::count(&journal)?;
    let controllers = Controllers::at(&[Place::Plain(format!("http://{address}").parse()?)])?;
    let uplink = || Uplink {
        station: "line-1".parse().expect("it is a name"),
        controllers: controllers.clone(),
        journal: journal.clone(),
        backlog: backlog.clone(),
    };
    let at_rest = memory("VmRSS")?;
    let stop = CancellationToken::new();
    let trying = tokio::spawn(uplink().run(stop.clone()));
    let begun = Instant::now();
    make(&journal, &backlog, results).await?;
    let elapsed = begun.elapsed();
    ensure!(backlog.standing().results == results, "the backlog is wrong: {:?}", backlog.standing());
    println!("results made while the controller is away  {results}, {:.0} /s", rate(results, elapsed));
    println!("journal                                    {} MiB", size(folder)? >> 20);
    println!("memory before, after                       {at_rest} KiB, {} KiB", memory("VmRSS")?);
    let begun = Instant::now();
    let counted = Backlog::count(&journal)?.standing();
    ensure!(counted.results == results, "the journal says otherwise: {counted:?}");
    println!("counted anew, as at a start                in {:.2} s", begun.elapsed().as_secs_f64());
    // Whoever tried meanwhile may be in his longest pause; a fresh one begins at once.
    stop.cancel();
    trying.await?;

    println!("away");
    std::io::stdin().read_line(&mut String::new())?;
    let stop = CancellationToken::new();
    let syncs = journal.statistics().syncs;
    let begun = Instant::now();
    let delivering = tokio::spawn(uplink().run(stop.clone()));
    backlog.delivered().await;
    let delivered = begun.elapsed();
    ensure!(backlog.standing().results == 0, "the backlog is wrong: {:?}", backlog.standing());
    println!("delivered                                  {:.0} /s", rate(results, delivered));
    println!("memory after, at its highest               {} KiB, {} KiB", memory("VmRSS")?, memory("VmHWM")?);
    println!(
        "cursor records, syncs while delivering     {}, {}",
        journal.last().get() - results,
        journal.statistics().syncs - syncs
    );
    stop.cancel();
    delivering.await?;

    let bare = bare_stream(address, results).await?;
    println!("bare stream, same messages, same window    {:.0} /s", rate(results, bare));
    println!(
        "delivered, of the bare stream's speed      {:.2}",
        bare.as_secs_f64() / delivered.as_secs_f64()
    );
    Ok(())
}

/// Nests that close their runs all at once.
async fn make(journal: &Arc<Journal<Record>>, backlog: &Backlog, results: u64) -> anyhow::Result<()> {
    let mut nests = JoinSet::new();
    for nest in 0..NESTS {
        let (journal, backlog) = (journal.clone(), backlog.clone());
        nests.spawn(async move {
            for number in (nest..results).step_by(NESTS as usize) {
                let closed = closed(number);
                let ended = closed.ended;
                let sequence = journal.append(Record::RunClosed(Box::new(closed))).await?;
                backlog.closed(sequence, ended);
            }
            anyhow::Ok(())
        });
    }
    while let Some(nest) = nests.join_next().await {
        nest??;
    }
    Ok(())
}

/// The same messages, made beforehand.
async fn bare_stream(address: SocketAddr, results: u64) -> anyhow::Result<Duration> {
    let unit = wire::result(&"line-1".parse()?, &closed(1));
    stream::send(address, "line-1", &unit, results).await
}

fn rate(results: u64, elapsed: Duration) -> f64 {
    results as f64 / elapsed.as_secs_f64()
}

fn memory(what: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).context("the kernel tells it")?;
    Ok(line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?)
}

fn size(folder: &Path) -> anyhow::Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}
