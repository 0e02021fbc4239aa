//! Eight nests and sixty-four, at a board's pace: what is the station's own of a unit's time, of the processor and of the
//! memory.
//!
//! Station, signer (SoftHSM), reference controller (SQLite), instruments and simulators are processes, as on the
//! virtual line; only that each board has a light chip, so that the processor is not busy with emulation: the same
//! firmware and flash algorithm run on it, and it takes the time that flash, boot and self-test of a real one take.
//! The simulators count in which time a nest's probe was open, its board worked or its reader was spoken with; the rest of
//! a unit's time, from the call of StartUnit until the station says that the nest is free, is the station's own:
//! calls, interlock, journal, certificate, the words to and from the instruments' processes, and waiting for a turn.
//! Run with `cargo bench -p factory-hil-tests --bench nests [-- UNITS [FEW MANY]]`: so many units in each nest, and nests.

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    io::Write as _,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use factory_hil_tests::{
    mes::{
        line::{self, Assembly},
        process::ControllerProcess,
        store::Store,
    },
    rig::{Rig, Running},
    target::Pace,
};
use factory_proto::station::{
    Outcome, WatchEventsRequest, station_client::StationClient, watch_events_response::Event,
};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::Channel;

#[path = "made/cost.rs"]
mod cost;
use cost::Cost;

/// In each nest: two beyond the first, after which memory is looked at.
const UNITS: u32 = 3;
const FEW: u32 = 8;
const MANY: u32 = 64;
const ORDER: &str = "WO-1";
/// As the nRF51822 does by its data sheet (product specification 3.1, table 40), with ten seconds for a unit.
const PACE: Pace = Pace {
    erase: Duration::from_micros(22_300),
    write: Duration::from_micros(46),
    boot: Duration::from_secs(1),
    self_test: Duration::from_secs(8),
};
/// What a station may add to a unit of ten seconds.
const LIMIT: f64 = 0.002;

/// What was seen of one line.
struct Figures {
    nests: u32,
    units: usize,
    /// Of each unit: how long it took, and what of that was the station's own, in order.
    unit: Vec<Duration>,
    own: Vec<Duration>,
    /// What a sync of this disk took meanwhile, in order.
    syncs: Vec<Duration>,
    station: Used,
    instruments: Duration,
    signer: Duration,
    controller: Duration,
    instruments_kib: u64,
}

/// What the daemon used.
struct Used {
    processor: Duration,
    after_first_kib: u64,
    after_last_kib: u64,
    highest_kib: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let numbers = arguments.iter().map(|argument| argument.parse()).collect::<Result<Vec<u32>, _>>()?;
    let (units, few, many) = match numbers[..] {
        [units, few, many] => (units, few, many),
        [units] => (units, FEW, MANY),
        _ => (UNITS, FEW, MANY),
    };
    ensure!(units >= 2, "memory is compared between the first unit of a nest and the last: at least 2");
    ensure!(few < many, "memory is compared between lines of {few} nests and of {many}");
    show(&measure(few, units).await?, &measure(many, units).await?);
    Ok(())
}

async fn measure(nests: u32, units: u32) -> anyhow::Result<Figures> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let programs =
        Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().context("a program lies in a folder")?;
    let store = format!("sqlite:{}", folder.path().join("results.db").display());
    let controller = ControllerProcess::start(programs, "127.0.0.1:0".parse()?, &store)?;

    let names: Vec<String> = (1..=nests).map(|number| format!("N{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let address = format!("http://{}", controller.address);
    let mut rig = Rig::build(folder.path(), programs, &names, &address)?;
    rig.start_signer()?;
    rig.start_station()?;
    let mut station = rig.connect().await?;
    line::open(&rig, &mut station, ORDER, nests * units).await?;
    let rig = Arc::new(rig);

    let daemon = rig.station_process()?;
    let mut crew = Crew::of(&rig, station, &names).await?;
    crew.make(1, 1).await?;
    let (daemon_then, helpers_then) = (cost(&daemon)?, Helpers::of(&rig, &controller)?);
    crew.made.clear();
    let syncing = Syncing::in_folder(folder.path())?;
    crew.make(2, units).await?;
    let syncs = syncing.end()?;
    let (daemon_now, helpers_now) = (cost(&daemon)?, Helpers::of(&rig, &controller)?);

    let mut results = Vec::new();
    Store::open(store.parse()?)?.results(|result| {
        results.push(result.unit);
        Ok(())
    })?;
    let passed = results.iter().filter(|unit| unit.outcome() == Outcome::Pass).count();
    ensure!(passed == (nests * units) as usize, "{passed} of {} units passed", nests * units);

    let (mut unit, mut own): (Vec<_>, Vec<_>) = crew.made.iter().map(|made| (made.took, made.own())).unzip();
    unit.sort();
    own.sort();
    Ok(Figures {
        nests,
        units: own.len(),
        unit,
        own,
        syncs,
        station: Used {
            processor: daemon_now.processor - daemon_then.processor,
            after_first_kib: daemon_then.resident_kib,
            after_last_kib: daemon_now.resident_kib,
            highest_kib: daemon_now.highest_kib,
        },
        instruments: helpers_now.instruments - helpers_then.instruments,
        signer: helpers_now.signer - helpers_then.signer,
        controller: helpers_now.controller - helpers_then.controller,
        instruments_kib: helpers_now.instruments_kib,
    })
}

fn cost(process: &Running) -> anyhow::Result<Cost> {
    Cost::of(process.pid.as_raw().cast_unsigned())
}

/// What those that help the daemon have used.
struct Helpers {
    instruments: Duration,
    signer: Duration,
    controller: Duration,
    /// What each has for itself, and its share of the rest.
    instruments_kib: u64,
}

impl Helpers {
    fn of(rig: &Rig, controller: &ControllerProcess) -> anyhow::Result<Self> {
        let (mut instruments, mut instruments_kib) = (Duration::ZERO, 0);
        for instrument in rig.instruments()? {
            instruments += cost(&instrument)?.processor;
            let memory = fs::read_to_string(format!("/proc/{}/smaps_rollup", instrument.pid))?;
            let share = memory.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
            instruments_kib += share.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
        let (signer, controller) = (cost(&rig.signer_process()?)?, Cost::of(controller.id())?);
        Ok(Self { instruments, signer: signer.processor, controller: controller.processor, instruments_kib })
    }
}

/// Appends to a file and syncs it, ten times a second: what the station waits for a dozen times a unit.
struct Syncing {
    stop: mpsc::UnboundedSender<()>,
    thread: thread::JoinHandle<anyhow::Result<Vec<Duration>>>,
}

impl Syncing {
    fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let mut file = fs::File::create(folder.join("syncs"))?;
        let (stop, mut stopped) = mpsc::unbounded_channel();
        let thread = thread::spawn(move || {
            let mut syncs = Vec::new();
            while stopped.try_recv() == Err(mpsc::error::TryRecvError::Empty) {
                thread::sleep(Duration::from_millis(100));
                file.write_all(&[0; 1024])?;
                let begun = Instant::now();
                file.sync_data()?;
                syncs.push(begun.elapsed());
            }
            syncs.sort();
            Ok(syncs)
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> anyhow::Result<Vec<Duration>> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow::anyhow!("syncing panicked"))?
    }
}

/// An operator for each nest.
struct Crew {
    rig: Arc<Rig>,
    station: StationClient<Channel>,
    nests: Vec<(String, mpsc::UnboundedReceiver<Instant>)>,
    made: Vec<Made>,
}

/// A unit that was made.
struct Made {
    took: Duration,
    /// How long the simulators were at work.
    work: Duration,
}

impl Made {
    fn own(&self) -> Duration {
        self.took.saturating_sub(self.work)
    }
}

impl Crew {
    /// Waits until all nests are free.
    async fn of(rig: &Arc<Rig>, mut station: StationClient<Channel>, names: &[&str]) -> anyhow::Result<Self> {
        let mut events = station.watch_events(WatchEventsRequest::default()).await?.into_inner();
        let (mut free, mut nests) = (HashMap::new(), Vec::new());
        for name in names {
            let (tell, told) = mpsc::unbounded_channel();
            free.insert((*name).to_owned(), tell);
            nests.push(((*name).to_owned(), told));
        }
        tokio::spawn(async move {
            // A nest is told to be free more than once: it counts at first, and after each run.
            let mut awaited: HashSet<String> = free.keys().cloned().collect();
            while let Ok(Some(event)) = events.message().await {
                match event.event {
                    Some(Event::RunClosed(_)) => {
                        awaited.insert(event.nest);
                    }
                    Some(Event::NestState(state))
                        if !state.busy && state.parked.is_empty() && awaited.remove(&event.nest) =>
                    {
                        // Nobody listens any more at the end.
                        let _ = free[&event.nest].send(Instant::now());
                    }
                    _ => {}
                }
            }
        });
        for (name, told) in &mut nests {
            told.recv().await.with_context(|| format!("nest {name} is never free"))?;
        }
        Ok(Self { rig: rig.clone(), station, nests, made: Vec::new() })
    }

    /// Makes units in all nests, of which each begins a little later than the one before, as operators do.
    async fn make(&mut self, from: u32, to: u32) -> anyhow::Result<()> {
        let between = PACE.self_test / u32::try_from(self.nests.len())?;
        let mut working = JoinSet::new();
        for (number, (nest, free)) in (0..).zip(self.nests.drain(..)) {
            let (rig, station) = (self.rig.clone(), self.station.clone());
            working.spawn(async move {
                tokio::time::sleep(number * between).await;
                operate(rig, station, nest, free, (from..=to).map(|unit| number * 1_000 + unit)).await
            });
        }
        while let Some(done) = working.join_next().await {
            let (nest, free, made) = done??;
            self.nests.push((nest, free));
            self.made.extend(made);
        }
        self.nests.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(())
    }
}

type Shift = (String, mpsc::UnboundedReceiver<Instant>, Vec<Made>);

/// Makes these boards in a nest, one after the other.
async fn operate(
    rig: Arc<Rig>,
    mut station: StationClient<Channel>,
    nest: String,
    mut free: mpsc::UnboundedReceiver<Instant>,
    boards: impl Iterator<Item = u32>,
) -> anyhow::Result<Shift> {
    let mut made = Vec::new();
    for number in boards {
        let board = Assembly { pace: Some(PACE), ..Assembly::sound(number) };
        let hands = (rig.clone(), nest.clone(), board.clone());
        tokio::task::spawn_blocking(move || {
            let (rig, nest, board) = hands;
            line::lay(&rig, &nest, &board)?;
            line::work(&rig, &nest)
        })
        .await??;
        let begun = Instant::now();
        line::start(&mut station, ORDER, &nest, &board.serial).await?;
        let ended = free.recv().await.context("the station ended the stream of events")?;
        let hands = (rig.clone(), nest.clone());
        let work = tokio::task::spawn_blocking(move || {
            let (rig, nest) = hands;
            let work = line::work(&rig, &nest)?;
            line::take_out(&rig, &nest, &board.serial)?;
            anyhow::Ok(work)
        })
        .await??;
        made.push(Made { took: ended.duration_since(begun), work });
    }
    Ok((nest, free, made))
}

fn show(few: &Figures, many: &Figures) {
    println!("{:58} {:>10} {:>10} {:>7}", "nests", few.nests, many.nests, "ratio");
    let line = |what: &str, figure: &dyn Fn(&Figures) -> f64, digits: usize| {
        let (few, many) = (figure(few), figure(many));
        println!("{what:58} {few:10.digits$} {many:10.digits$} {:7.2}", many / few);
    };
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let each = |time: Duration, figures: &Figures| milliseconds(time) / figures.units as f64;
    let at = |times: &[Duration], part: f64| milliseconds(times[(times.len() as f64 * part) as usize]);
    line("units that were measured", &|it| it.units as f64, 0);
    line("a unit takes, ms (median)", &|it| at(&it.unit, 0.5), 0);
    line("of that the station's own, ms (median)", &|it| at(&it.own, 0.5), 1);
    line("the same, 95 of 100 units, ms", &|it| at(&it.own, 0.95), 1);
    line("its share of a unit, %", &|it| 100.0 * at(&it.own, 0.5) / at(&it.unit, 0.5), 2);
    line("a sync of 1 KiB on this disk meanwhile, ms (median)", &|it| at(&it.syncs, 0.5), 1);
    line("processor a unit: the daemon, ms", &|it| each(it.station.processor, it), 1);
    line("                  its instruments' processes, ms", &|it| each(it.instruments, it), 1);
    line("                  the signer, ms", &|it| each(it.signer, it), 1);
    line("                  the reference controller, ms", &|it| each(it.controller, it), 1);
    let mib = |kib: u64| kib as f64 / 1024.0;
    line("the daemon's memory after the first unit a nest, MiB", &|it| mib(it.station.after_first_kib), 1);
    line("                    after the last, MiB", &|it| mib(it.station.after_last_kib), 1);
    line("                    at its highest, MiB", &|it| mib(it.station.highest_kib), 1);
    line("its instruments' processes, MiB", &|it| mib(it.instruments_kib), 1);
    let more = many.station.after_last_kib.saturating_sub(few.station.after_last_kib)
        / u64::from(many.nests - few.nests);
    println!(
        "a nest more takes {more} KiB of the daemon; the limit of its share of a unit is {} %",
        100.0 * LIMIT
    );
}
