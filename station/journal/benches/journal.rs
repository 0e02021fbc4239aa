//! What the journal costs: durable appends against the same bytes written and synced by hand, and how it starts with
//! a million records.
//!
//! `cargo bench -p factory-journal`, or with `-- appends` or `-- start` for one part. The disk is that of `TMPDIR`.
//! Ratios are medians of interleaved rounds; absolute figures are for scale only.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use factory_journal::{Journal, Keys, Options, Record, Sequence, compact_offline};
use minicbor::{Decode, Encode};

#[derive(Clone, Encode, Decode)]
struct Event {
    #[n(0)]
    number: u64,
    #[n(1)]
    text: String,
}

impl Event {
    /// About as large as a step's record: 200 bytes in the log with its frame.
    fn new(number: u64) -> Self {
        Self { number, text: format!("step {number} of a run, {}", "told in some words; ".repeat(5)) }
    }
}

impl Record for Event {
    /// 14 records a run.
    fn keys(&self) -> Keys {
        let run = self.number / 14;
        let (unit, order) = (Some(format!("unit-{run:08}")), Some(format!("order-{}", run / 1000)));
        let ends = self.number.is_multiple_of(14);
        Keys {
            unit: unit.filter(|_| ends),
            run: Some(format!("run-{run:08}")),
            order: order.filter(|_| ends),
            // As a unit has: a name and a key, asked for and issued, then a tag, seen and reported.
            marks: match self.number % 14 {
                7 | 8 => [format!("endpoint-name {run}"), format!("device-key {run:064x}")].into(),
                11 | 13 => [format!("tag {run:014x}")].into(),
                _ => BTreeSet::new(),
            },
        }
    }
}

const RECORDS: u64 = 1_000_000;
const ROUNDS: usize = 7;
const PHASE: Duration = Duration::from_millis(600);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let wants = |part: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == part);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        // Started by `start`, as a process of its own, so that its peak memory is that of one start.
        ["open", dir] => return open(Path::new(dir), false),
        ["rebuild", dir] => return open(Path::new(dir), true),
        _ => {}
    }
    if wants("appends") {
        for writers in [1, 8, 64] {
            appends(writers);
        }
    }
    if wants("start") {
        start();
    }
}

fn appends(writers: u64) {
    let dir = tempfile::tempdir().expect("TMPDIR is there");
    let journal = Journal::open(dir.path().join("journal"), Options::default()).expect("a journal");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let size = fs::metadata(dir.path().join("journal/segment-00000000000000000001.log"))
        .map_or(0, |file| file.len());
    assert_eq!(size, 64, "an empty segment is its header");
    let (mut rates, mut ratios, mut raw_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let raw = raw(&dir.path().join("raw"));
        let ours = runtime.block_on(journalled(&journal, writers));
        rates.push(ours);
        raw_rates.push(raw);
        ratios.push(ours / raw);
    }
    let statistics = journal.statistics();
    println!(
        "{writers:2} writers: {:.2} x raw ({:.0}/s against {:.0}/s of one writer by hand), {:.1} records per sync",
        median(ratios),
        median(rates),
        median(raw_rates),
        statistics.records as f64 / statistics.syncs as f64,
    );
}

/// Durable records a second, appended by so many tasks.
async fn journalled(journal: &Journal<Event>, writers: u64) -> f64 {
    let begin = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut count = 0_u64;
            while begin.elapsed() < PHASE {
                journal.append(Event::new(count * writers + writer)).await.expect("it is durable");
                count += 1;
            }
            count
        })
    });
    let mut count = 0;
    for task in tasks.collect::<Vec<_>>() {
        count += task.await.expect("no writer panics");
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

/// The same bytes, each record written and synced by hand.
fn raw(path: &Path) -> f64 {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    let record = vec![7; 66 + minicbor::to_vec(Event::new(1000)).expect("it encodes").len()];
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < PHASE {
        file.write_all(&record).expect("there is space");
        file.sync_data().expect("the disk works");
        count += 1;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

fn start() {
    let dir = tempfile::tempdir().expect("TMPDIR is there");
    let path = dir.path().join("journal");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let journal = Journal::open(&path, Options::default()).expect("a journal");
    let begin = Instant::now();
    runtime.block_on(async {
        for first in (0..RECORDS).step_by(1000) {
            let events = (first..first + 1000).map(Event::new).collect();
            journal.append_all(events).await.expect("they are durable");
        }
    });
    drop(journal);
    println!(
        "{RECORDS} records written in {:.1} s, {} MiB of log",
        begin.elapsed().as_secs_f64(),
        mib(&path)
    );
    run("open, all live", "open", &path);
    run("open, all live, again", "open", &path);
    run("index made anew, all live", "rebuild", &path);

    let begin = Instant::now();
    let done = compact_offline(&path, &[]).expect("they are archived");
    println!(
        "compacted in {:.1} s: {} MiB to {} MiB, {} segments",
        begin.elapsed().as_secs_f64(),
        done.before >> 20,
        done.after >> 20,
        done.segments
    );
    run("open, archived", "open", &path);
    run("open, archived, again", "open", &path);
    run("index made anew, archived", "rebuild", &path);
}

fn mib(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).expect("it is there").map_while(Result::ok);
    let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    logs.map_while(|file| file.metadata().ok()).map(|file| file.len()).sum::<u64>() >> 20
}

fn run(what: &str, part: &str, dir: &Path) {
    let program = env::current_exe().expect("this program");
    let output = Command::new(program).arg(part).arg(dir).output().expect("it starts again");
    assert!(output.status.success(), "{output:?}");
    print!("{what}: {}", String::from_utf8_lossy(&output.stdout));
}

/// Opens a journal, and says how long it took, and how much memory.
fn open(dir: &Path, anew: bool) {
    let begin = Instant::now();
    let journal = if anew {
        Journal::<Event>::rebuild_index(dir, Options::default())
    } else {
        Journal::<Event>::open(dir, Options::default())
    };
    let journal = journal.expect("it opens");
    let opened = begin.elapsed();
    assert_eq!(journal.last(), Sequence::from(RECORDS));
    let look = Instant::now();
    let found = journal.by_unit("unit-00031415").expect("the index answers");
    let entry = journal.get(found[0]).expect("it is read").expect("it is there");
    assert_eq!(entry.record.number, 31415 * 14);
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?").trim();
    println!("{:.2} s, peak {peak}, then one unit's record in {:.1?}", opened.as_secs_f64(), look.elapsed());
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
