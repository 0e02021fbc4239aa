//! Reading the raw log beside a writer, and without the lock.

use std::fs::{self, OpenOptions};
use std::io::Write;

use factory_journal::log::Log;
use factory_journal::segment::{Frame, Kind, hash};
use factory_journal::{JournalError, Sequence};

use crate::support::{Event, append, journal_of, open, segments};

#[tokio::test]
async fn the_raw_log_is_the_records_with_what_their_hashes_are_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    append(&journal, 1..=60).await;
    journal.advance("mes", 7.into()).await.unwrap();
    append(&journal, [62]).await;

    let mut previous = [0; 32];
    let mut log = Log::open(dir.path()).unwrap();
    for (raw, number) in log.by_ref().map(Result::unwrap).zip(1..) {
        assert_eq!(raw.frame.sequence, Sequence::from(number));
        assert_eq!(raw.frame.previous, previous);
        assert_eq!(raw.hash, hash(&raw.body));
        assert_eq!(Frame::decode(&raw.body), Ok(raw.frame.clone()));
        let entry = journal.get(raw.frame.sequence).unwrap();
        assert_eq!(entry.is_some(), raw.frame.kind == Kind::Record);
        if let Some(entry) = entry {
            assert_eq!(entry.hash, raw.hash);
            assert_eq!(minicbor::decode::<Event>(&raw.frame.payload).unwrap(), entry.record);
        }
        previous = raw.hash;
    }
    assert_eq!((log.head(), log.torn()), ((62.into(), previous), 0));
}

#[tokio::test]
async fn a_torn_tail_ends_the_raw_log_and_is_counted() {
    let dir = journal_of(60).await;
    let last = segments(dir.path()).pop().unwrap();
    let mut file = OpenOptions::new().append(true).open(last).unwrap();
    for (tail, torn) in [(&[0; 99][..], 0), (b"\x3b\0\0\0torn", 107), (&[0; 50], 107)] {
        file.write_all(tail).unwrap();
        let mut log = Log::open(dir.path()).unwrap();
        assert_eq!(log.by_ref().map(Result::unwrap).count(), 60);
        assert_eq!((log.head().0, log.torn()), (60.into(), torn));
    }
}

#[tokio::test]
async fn damage_ends_the_raw_log_with_its_place() {
    let dir = journal_of(60).await;
    let second = segments(dir.path())[1].clone();
    let whole = fs::read(&second).unwrap();
    let walk = || {
        let mut log = Log::open(dir.path()).unwrap();
        let error = log.find_map(Result::err);
        (error, log.next().is_none(), log.head().0)
    };
    let (sound, ..) = walk();
    assert!(sound.is_none());

    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    fs::write(&second, flipped).unwrap();
    let (error, ended, head) = walk();
    assert!(
        matches!(&error, Some(JournalError::Damaged { path, offset: 64, .. }) if *path == second),
        "{error:?}"
    );
    assert!(ended);
    let name = second.file_stem().unwrap().to_str().unwrap();
    assert_eq!(name, format!("segment-{:020}", head.next().get()));

    fs::remove_file(&second).unwrap();
    assert!(matches!(walk().0, Some(JournalError::Damaged { .. })));
    fs::write(&second, whole).unwrap();
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert!(matches!(walk().0, Some(JournalError::Damaged { .. })), "the beginning is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_raw_log_can_be_read_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    let writer = tokio::spawn({
        let journal = journal.clone();
        async move { append(&journal, 1..=1500).await }
    });
    let path = dir.path().to_owned();
    let reader = tokio::task::spawn_blocking(move || {
        let mut walks = 0;
        while !writer.is_finished() {
            let durable = journal.last();
            let mut log = Log::open(&path).unwrap();
            let count = log.by_ref().map(Result::unwrap).count() as u64;
            assert_eq!(log.head().0.get(), count);
            assert!(count >= durable.get());
            walks += 1;
        }
        walks
    });
    assert!(reader.await.unwrap() > 3);
}
