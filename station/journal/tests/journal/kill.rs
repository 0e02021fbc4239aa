//! The process is killed while it writes: what it acknowledged is there.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::Path;
use std::process::{Command, Stdio};

use factory_journal::Sequence;

use crate::support::{Event, delete_index, open};

const VICTIM: &str = "FACTORY_JOURNAL_VICTIM";
const ROUNDS: u64 = 30;

/// The test runs itself again as the victim.
#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(dir) = env::var_os(VICTIM) {
        append_until_killed(Path::new(&dir));
    }

    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        // Between the first acknowledgement and some while later, at another point of a batch each time.
        acknowledged.extend(kill_after(dir.path(), 1 + round * 37 % 211));
        if round % 3 == 0 {
            delete_index(dir.path());
        }
        let journal = open(dir.path()).unwrap();
        for (sequence, number) in &acknowledged {
            let entry = journal.get(*sequence).unwrap();
            assert_eq!(entry.map(|entry| entry.record), Some(Event::new(*number)), "round {round}");
        }
        assert!(journal.read(Sequence::START).all(|entry| entry.is_ok()));
    }
    assert!(acknowledged.len() as u64 > 30 * ROUNDS);
}

/// Lets a victim acknowledge `count` events, kills it, and gives all that it acknowledged.
fn kill_after(dir: &Path, count: u64) -> Vec<(Sequence, u64)> {
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "kill::what_was_acknowledged_survives_kill_9", "--nocapture"])
        .env(VICTIM, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = Vec::new();
    while (acknowledged.len() as u64) < count {
        acknowledged.extend(parse(&lines.next().expect("the victim should write until it is killed")));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    acknowledged.extend(lines.filter_map(|line| parse(&line)));
    acknowledged
}

/// An acknowledgement is a whole line; the test harness prints lines of its own.
fn parse(line: &str) -> Option<(Sequence, u64)> {
    let (sequence, number) = line.strip_prefix("acknowledged ")?.strip_suffix('.')?.split_once(' ')?;
    Some((sequence.parse::<u64>().ok()?.into(), number.parse().ok()?))
}

/// Eight writers, so that batches hold several records. Ends by itself when nobody listens any more.
fn append_until_killed(dir: &Path) -> ! {
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
                        std::process::exit(1);
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
