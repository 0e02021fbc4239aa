//! Whatever happens to the index, the answers stay the same.

use std::fs;
use std::path::{Path, PathBuf};

use factory_journal::{Journal, Keys, Record, Sequence};
use minicbor::{Decode, Encode};

use crate::support::{Event, append, delete_index, open, small};

#[derive(Debug, PartialEq)]
struct Answers {
    units: Vec<Vec<Sequence>>,
    runs: Vec<Vec<Sequence>>,
    orders: Vec<Vec<Sequence>>,
    marks: Vec<Vec<Sequence>>,
    events: Vec<Option<Event>>,
    cursor: Sequence,
}

fn ask(journal: &Journal<Event>) -> Answers {
    let get = |sequence: u64| journal.get(sequence.into()).unwrap().map(|entry| entry.record);
    Answers {
        units: (0..5).map(|unit| journal.by_unit(&format!("unit-{unit}")).unwrap()).collect(),
        runs: (0..7).map(|run| journal.by_run(&format!("run-{run}")).unwrap()).collect(),
        orders: (0..2).map(|order| journal.by_order(&format!("order-{order}")).unwrap()).collect(),
        marks: (0..4).map(|mark| journal.by_mark(&format!("mark-{mark}")).unwrap()).collect(),
        events: (0..320).map(get).collect(),
        cursor: journal.cursor("mes"),
    }
}

async fn check(harm: impl Fn(&Path)) {
    check_from(|_| {}, harm).await;
}

/// Lets `watch` see the closed journal in the middle of its life, and `harm` it at the end.
async fn check_from(watch: impl Fn(&Path), harm: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    append(&open(dir.path()).unwrap(), 0..100).await;
    watch(dir.path());
    let journal = open(dir.path()).unwrap();
    append(&journal, 100..300).await;
    journal.advance("mes", 123.into()).await.unwrap();
    append(&journal, [300]).await;
    let before = ask(&journal);
    assert_eq!(before.events.iter().flatten().count(), 301);
    assert_eq!(before.cursor, Sequence::from(123));
    drop(journal);

    harm(dir.path());
    assert_eq!(ask(&open(dir.path()).unwrap()), before);
    assert_eq!(ask(&open(dir.path()).unwrap()), before, "also when it is opened again");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}

fn copy_files(from: &Path, to: &Path) {
    for path in files(from) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn change_files(dir: &Path, change: impl Fn(&mut Vec<u8>)) {
    let files = files(&dir.join("index"));
    assert!(!files.is_empty());
    for path in files {
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
    }
}

#[tokio::test]
async fn an_untouched_index_answers_the_same() {
    check(|_| {}).await;
}

#[tokio::test]
async fn a_deleted_index_is_rebuilt() {
    check(delete_index).await;
}

#[tokio::test]
async fn an_index_cut_anywhere_is_rebuilt() {
    for part in [0, 1, 2, 5, 9] {
        check(|dir| change_files(dir, |bytes| bytes.truncate(bytes.len() * part / 10))).await;
    }
}

#[tokio::test]
async fn an_index_scrambled_anywhere_is_rebuilt() {
    for (start, stride) in [(0, 1), (0, 101), (3000, 977), (0, 64_000), (20_000, 1_000_000)] {
        let scramble = |bytes: &mut Vec<u8>| {
            bytes.iter_mut().skip(start).step_by(stride).for_each(|byte| *byte ^= 0xA5);
        };
        check(|dir| change_files(dir, scramble)).await;
    }
}

#[tokio::test]
async fn a_torn_snapshot_of_the_index_does_no_harm() {
    check(|dir| {
        fs::write(dir.join("index/snap.0000000000001000"), b"torn").unwrap();
        fs::write(dir.join("index/snap.0000000000002000.generating"), b"torn").unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_index_that_lags_catches_up() {
    let earlier = tempfile::tempdir().unwrap();
    check_from(
        |dir| copy_files(&dir.join("index"), earlier.path()),
        |dir| {
            delete_index(dir);
            fs::create_dir(dir.join("index")).unwrap();
            copy_files(earlier.path(), &dir.join("index"));
        },
    )
    .await;
}

#[tokio::test]
async fn the_index_of_another_journal_is_not_believed() {
    let other = tempfile::tempdir().unwrap();
    append(&open(other.path()).unwrap(), 500..600).await;
    check(|dir| {
        delete_index(dir);
        fs::create_dir(dir.join("index")).unwrap();
        copy_files(&other.path().join("index"), &dir.join("index"));
    })
    .await;
}

/// An event as an older program wrote it, which found it by less.
#[derive(Encode, Decode)]
#[cbor(transparent)]
struct Before(#[n(0)] Event);

impl Record for Before {
    const KEYS: u8 = Event::KEYS - 1;

    fn keys(&self) -> Keys {
        Keys { marks: [].into(), ..self.0.keys() }
    }
}

#[tokio::test]
async fn an_index_that_was_made_for_other_keys_is_rebuilt_once_from_all_that_was_ever_written() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::<Before>::open(dir.path(), small()).unwrap();
    for number in 0..300 {
        journal.append(Before(Event::new(number))).await.unwrap();
    }
    assert_eq!(journal.by_mark("mark-3").unwrap(), []);
    // Also from what lies in the archive.
    journal.advance("mes", 200.into()).await.unwrap();
    assert!(journal.compact(&["mes"]).unwrap().segments > 0);
    drop(journal);

    let was_kept = dir.path().join("index/was-kept");
    fs::write(&was_kept, []).unwrap();
    let journal = open(dir.path()).unwrap();
    assert!(!was_kept.exists());
    let marked: Vec<Sequence> = (3..300).step_by(4).map(|number| (number + 1).into()).collect();
    assert_eq!(journal.by_mark("mark-3").unwrap(), marked);
    drop(journal);

    fs::write(&was_kept, []).unwrap();
    let journal = open(dir.path()).unwrap();
    assert_eq!(journal.by_mark("mark-3").unwrap(), marked);
    drop(journal);
    assert!(was_kept.exists(), "an index that matches is taken as it is");
    // What is lost is noticed by an index that was made for other keys as well.
    drop(Journal::<Before>::rebuild_index(dir.path(), small()).unwrap());
    let newest = crate::support::segments(dir.path()).pop().unwrap();
    fs::write(&newest, &fs::read(&newest).unwrap()[..100]).unwrap();
    let refusal = open(dir.path()).err().unwrap();
    assert!(matches!(refusal, factory_journal::JournalError::Lost { .. }), "{refusal}");
}
