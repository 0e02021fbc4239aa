//! The power is cut under a journal that is written: what it acknowledged is there. And the test itself is tested:
//! the same writer without its syncs must lose records.
//!
//! By hand: `POWER_CUT_ROUNDS=50 cargo test -p factory-hil-tests --test power_cut -- --nocapture`, with
//! `POWER_CUT_SEED` for the cuts of an earlier run.

#[path = "power_cut/ledger.rs"]
mod ledger;

use std::{
    env,
    io::{BufRead, BufReader, Write, stdout},
    os::unix::process::CommandExt,
    path::Path,
    process::{self, Command, Stdio},
    sync::mpsc,
    thread,
    time::SystemTime,
};

use factory_hil_tests::{
    child::Child,
    power_cut::{Outcome, Plan, Writer, cut_power, unavailable},
};
use factory_journal::{Audit, Journal, JournalError, Keys, Options, Sequence};
use minicbor::{Decode, Encode};

const WRITES_TO: &str = "POWER_CUT_WRITES_TO";

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
struct Event {
    #[n(0)]
    number: u64,
    #[n(1)]
    text: String,
}

impl Event {
    fn new(number: u64) -> Self {
        let length = usize::try_from(number * 7919 % 900).expect("it is below 900");
        Self { number, text: "x".repeat(length) }
    }
}

impl factory_journal::Record for Event {
    fn keys(&self) -> Keys {
        Keys { unit: Some(format!("unit-{}", self.number / 14)), ..Keys::default() }
    }
}

/// A record that was acknowledged: its sequence and its number.
type Acknowledgement = (Sequence, u64);

fn open(dir: &Path) -> Result<Journal<Event>, JournalError> {
    let options = Options { segment_size: 256 << 10, reserve: 1 << 20, low_space: 0, ..Options::default() };
    Journal::open(dir.join("journal"), options)
}

/// Eight writers, cursors that move, segments that are finished and archived. Ends when nobody listens any more.
fn write(dir: &Path) -> ! {
    let journal = open(dir).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let base = journal.last().get() * 10;
        let writers = (0..8).map(|writer| {
            let journal = journal.clone();
            tokio::task::spawn(async move {
                for step in 0.. {
                    let number = base + step * 8 + writer;
                    let sequence = journal.append(Event::new(number)).await.unwrap();
                    if writeln!(stdout(), "acknowledged {sequence} {number}.").is_err() {
                        process::exit(1);
                    }
                    if writer == 0 && step % 16 == 15 {
                        journal.advance("controller", sequence).await.unwrap();
                        journal.compact(&["controller"]).unwrap();
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
    unreachable!("the writers never end");
}

/// Starts `test` of this program as the writer, below `wrapper` if there is one.
fn start(test: &str, wrapper: &[&str], dir: &Path) -> anyhow::Result<Writer<Acknowledgement>> {
    let program = env::current_exe()?;
    let (first, rest) = match wrapper.split_first() {
        Some((first, rest)) => (Path::new(first), [rest, &[program.to_str().unwrap()]].concat()),
        None => (program.as_path(), Vec::new()),
    };
    let mut command = Command::new(first);
    command.args(rest).args(["--exact", test, "--nocapture"]).env(WRITES_TO, dir).stdout(Stdio::piped());
    command.process_group(0);
    let mut child = Child::spawn(command, Vec::new())?;
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let (sender, acknowledged) = mpsc::channel();
    thread::spawn(move || lines.filter_map(|line| parse(&line)).try_for_each(|known| sender.send(known)));
    Ok(Writer { child, acknowledged })
}

/// An acknowledgement is a whole line; the test harness prints lines of its own.
fn parse(line: &str) -> Option<Acknowledgement> {
    let (sequence, number) = line.strip_prefix("acknowledged ")?.strip_suffix('.')?.split_once(' ')?;
    Some((sequence.parse::<u64>().ok()?.into(), number.parse().ok()?))
}

/// How many acknowledged records the journal does not hold.
fn count_lost(dir: &Path, acknowledged: &[Acknowledgement]) -> anyhow::Result<u64> {
    let journal = match open(dir) {
        Ok(journal) => journal,
        Err(error) => {
            println!("the journal does not open: {error}");
            return Ok(acknowledged.len() as u64);
        }
    };
    let is_lost = |(sequence, number): &&Acknowledgement| {
        let entry = journal.get(*sequence).ok().flatten();
        entry.map(|entry| entry.record) != Some(Event::new(*number))
    };
    Ok(acknowledged.iter().filter(is_lost).count() as u64)
}

/// So many rounds, or as many as somebody asks for by hand.
fn plan(rounds: u32) -> Plan {
    let asked = env::var("POWER_CUT_ROUNDS").map(|rounds| rounds.parse().expect("a number of rounds"));
    let rounds = asked.unwrap_or(rounds);
    let given = env::var("POWER_CUT_SEED").ok().and_then(|seed| seed.parse().ok());
    let drawn = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| u64::from(since.subsec_nanos()));
    let seed = given.unwrap_or(drawn);
    println!("POWER_CUT_SEED={seed}");
    Plan { rounds, seed, acknowledgements: 1..=400 }
}

/// Becomes the writer if it was started as such; says whether the test can be made here.
fn is_possible() -> bool {
    if let Some(dir) = env::var_os(WRITES_TO) {
        write(Path::new(&dir));
    }
    let reason = unavailable();
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_none()
}

#[test]
fn what_a_journal_acknowledged_survives_power_cuts() {
    if !is_possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let start = |disk: &Path| start("what_a_journal_acknowledged_survives_power_cuts", &[], disk);
    let check = |disk: &Path, acknowledged: &[Acknowledgement]| {
        let lost = count_lost(disk, acknowledged)?;
        for finding in Audit::open(disk.join("journal"))? {
            let finding = finding?;
            anyhow::ensure!(finding.damage.is_none(), "{finding:?}");
        }
        Ok(lost)
    };
    let plan = plan(10);
    let Outcome { acknowledged, lost } = cut_power(dir.path(), &plan, start, check).unwrap();
    let rounds = plan.rounds;
    println!("{rounds} power cuts, {acknowledged} records acknowledged, {lost} lost");
    assert_eq!(lost, 0);
    assert!(acknowledged >= u64::from(rounds));
}

#[test]
fn a_journal_whose_syncs_are_left_out_loses_what_it_acknowledged() {
    const SYNCS: &str = "fdatasync,fsync,sync_file_range,syncfs,sync,msync";
    if !is_possible() {
        return;
    }
    let (trace, inject) = (format!("trace={SYNCS}"), format!("inject={SYNCS}:retval=0"));
    let strace =
        ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    if let Err(error) = Command::new("strace").arg("-V").output() {
        println!("skipped: strace: {error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "a_journal_whose_syncs_are_left_out_loses_what_it_acknowledged";
    let start = |disk: &Path| start(test, &strace, disk);
    let plan = Plan { rounds: 1, acknowledgements: 200..=400, ..plan(1) };
    let Outcome { acknowledged, lost } = cut_power(dir.path(), &plan, start, count_lost).unwrap();
    println!("{acknowledged} records acknowledged without a sync, {lost} lost");
    assert!(lost > 0, "a power cut that loses nothing without syncs proves nothing with them");
}
