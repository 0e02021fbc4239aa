//! A disk that fills up, and has space again. A real one: a small filesystem in memory.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use factory_journal::log::Log;
use factory_journal::{Journal, JournalError, Options, Room, Sequence};

use crate::support::{Event, numbers};

const MOUNTED: &str = "FACTORY_JOURNAL_SMALL_DISK";
const RESERVE: u64 = 256 << 10;
const LOW: u64 = 512 << 10;

/// Runs this test again, where a small filesystem is mounted that nobody else sees. `None` in the one that started it.
fn on_a_small_disk(test: &str) -> Option<std::path::PathBuf> {
    if let Some(dir) = env::var_os(MOUNTED) {
        return Some(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=2m none "$0" && exec "$1" --exact "$2" --nocapture"#;
    let unshared = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--map-root-user", "sh", "-c"]).args(command);
        unshare
    };
    let mounts = unshared(&[r#"mount -t tmpfs -o size=2m none "$0""#, dir.path().to_str().unwrap()]).output();
    match mounts {
        Ok(output) if output.status.success() => {}
        refused => {
            println!("skipped: this system lets nobody mount a filesystem: {refused:?}");
            return None;
        }
    }
    let (mount, program) = (dir.path().to_str().unwrap(), env::current_exe().unwrap());
    let status = unshared(&[script, mount, program.to_str().unwrap(), test]).env(MOUNTED, mount).status();
    assert!(status.unwrap().success());
    None
}

fn open_here(dir: &Path) -> Journal<Event> {
    let options = Options { segment_size: 128 << 10, reserve: RESERVE, low_space: LOW, ..Options::default() };
    Journal::open(dir.join("journal"), options).unwrap()
}

fn event(number: u64) -> Event {
    Event { number, text: "x".repeat(20_000) }
}

#[tokio::test]
async fn running_work_ends_on_a_full_disk_and_new_work_waits_for_space() {
    let Some(disk) = on_a_small_disk("space::running_work_ends_on_a_full_disk_and_new_work_waits_for_space")
    else {
        return;
    };
    let journal = open_here(&disk);
    let mut room = journal.room();
    assert_eq!(*room.borrow_and_update(), Room::Enough);
    assert_eq!(fs::metadata(disk.join("journal/reserve")).unwrap().len(), RESERVE);

    // Somebody else fills the disk until room is low, long before it is full.
    let filler = disk.join("filler");
    fs::write(&filler, vec![1; 1 << 20]).unwrap();
    let mut count = 0;
    let mut append = async || {
        count += 1;
        journal.append(event(count)).await.map(|sequence| (sequence, count))
    };
    let mut acknowledged = vec![append().await.unwrap()];
    while !room.has_changed().unwrap() {
        acknowledged.push(append().await.unwrap());
    }
    assert!(matches!(*room.borrow_and_update(), Room::Low { free, needed: LOW } if free < LOW));

    // The disk is full: what is under way goes on in the reserve.
    while disk.join("journal/reserve").exists() {
        acknowledged.push(append().await.unwrap());
    }
    for _ in 0..5 {
        acknowledged.push(append().await.unwrap());
    }
    assert!(matches!(*journal.room().borrow(), Room::Low { needed, .. } if needed == LOW + RESERVE));

    // The reserve is used up: records are refused as a whole, and the journal stays sound.
    let refused = loop {
        match append().await {
            Ok(written) => acknowledged.push(written),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, JournalError::Full { .. }), "{refused:?}");
    let three = journal.append_all((0..3).map(event).collect()).await;
    assert!(matches!(three, Err(JournalError::Full { .. })), "{three:?}");
    let mut log = Log::open(disk.join("journal")).unwrap();
    assert_eq!(log.by_ref().map(Result::unwrap).count(), acknowledged.len());
    assert_eq!(log.torn(), 0, "no half batch should stay");

    // There is space again, and nobody writes.
    fs::remove_file(&filler).unwrap();
    room.wait_for(|room| *room == Room::Enough).await.unwrap();
    assert_eq!(fs::metadata(disk.join("journal/reserve")).unwrap().len(), RESERVE);
    acknowledged.push(append().await.unwrap());
    drop(journal);

    let journal = open_here(&disk);
    for (sequence, number) in &acknowledged {
        assert_eq!(journal.get(*sequence).unwrap().unwrap().record, event(*number));
    }
    let expected: Vec<_> = acknowledged.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers(&journal, Sequence::START), expected);
}

#[tokio::test]
async fn a_failed_write_is_seen_by_who_watches_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_size: 1024, reserve: 0, low_space: 0, ..Options::default() };
    let journal = Journal::open(dir.path().join("journal"), options).unwrap();
    journal.append(Event { number: 1, text: "x".repeat(4096) }).await.unwrap();
    let mut room = journal.room();
    // The next record begins a segment, which has nowhere to go.
    fs::rename(dir.path().join("journal"), dir.path().join("moved")).unwrap();
    journal.append(Event::new(2)).await.unwrap_err();
    assert!(matches!(&*room.borrow_and_update(), Room::Failed { reason } if reason.contains("segment-")));
}
