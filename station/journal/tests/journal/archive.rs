//! Closed segments move to the archive, and nobody who reads can tell.

use std::fs;
use std::path::{Path, PathBuf};

use factory_journal::log::Log;
use factory_journal::{Entry, Journal, JournalError, Sequence};

use crate::support::{Event, append, delete_index, open, segments};

/// A closed journal of 200 events, of which "mes" has acknowledged 150 and "archive" 120.
async fn acknowledged() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    journal.append_all((1..=100).map(Event::new).collect()).await.unwrap();
    append(&journal, 101..=200).await;
    journal.advance("mes", 150.into()).await.unwrap();
    journal.advance("archive", 120.into()).await.unwrap();
    dir
}

fn archived(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(dir.join("archive")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn first_of(path: &Path) -> u64 {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.trim_start_matches("segment-").split('.').next().unwrap().parse().unwrap()
}

#[derive(Debug, PartialEq)]
struct Answers {
    all: Vec<Entry<Event>>,
    one_by_one: Vec<Option<Entry<Event>>>,
    unit: Vec<Sequence>,
    period: Vec<Entry<Event>>,
    cursor: Sequence,
}

/// Everything that can be asked of a journal of events.
fn ask(journal: &Journal<Event>) -> Answers {
    let all: Vec<_> = journal.read(Sequence::START).map(Result::unwrap).collect();
    let one_by_one: Vec<_> = (1..=201).map(|number| journal.get(number.into()).unwrap()).collect();
    let unit = journal.by_unit("unit-3").unwrap();
    let times = (all[10].time, all[120].time);
    let period: Vec<_> = journal.by_time(times.0, times.1).unwrap().map(Result::unwrap).collect();
    Answers { all, one_by_one, unit, period, cursor: journal.cursor("mes") }
}

#[tokio::test]
async fn only_what_all_receivers_acknowledged_is_archived_and_everything_is_read_as_before() {
    let dir = acknowledged().await;
    let journal = open(dir.path()).unwrap();
    let before = ask(&journal);
    let whole = segments(dir.path());
    let raw: Vec<_> = Log::open(dir.path()).unwrap().map(Result::unwrap).collect();

    assert_eq!(journal.compact(&["mes", "archive", "new"]).unwrap().segments, 0);
    let done = journal.compact(&["mes", "archive"]).unwrap();
    assert!(done.segments > 1 && done.after < done.before, "{done:?}");
    assert_eq!(archived(dir.path()).len() as u64, done.segments);
    let live = segments(dir.path());
    assert_eq!(live, whole[archived(dir.path()).len()..]);
    assert!((110..=121).contains(&first_of(&live[0])), "{live:?}");
    assert_eq!(journal.compact(&["mes", "archive"]).unwrap().segments, 0);
    assert_eq!(ask(&journal), before);

    assert!(journal.compact(&[]).unwrap().segments > 0);
    assert_eq!(segments(dir.path()).len(), 1, "the segment that is written to stays");
    drop(journal);
    let again: Vec<_> = Log::open(dir.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(again, raw);

    for harm in [|_: &Path| {}, delete_index] {
        harm(dir.path());
        assert_eq!(ask(&open(dir.path()).unwrap()), before);
    }
    let journal = open(dir.path()).unwrap();
    let head = append(&journal, [201]).await[0];
    assert_eq!(journal.get(head).unwrap().unwrap().record, Event::new(201));
}

#[tokio::test]
async fn a_crash_between_the_two_places_is_settled() {
    let dir = acknowledged().await;
    let whole: Vec<_> =
        segments(dir.path()).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    let journal = open(dir.path()).unwrap();
    let before = ask(&journal);
    journal.compact(&["mes"]).unwrap();
    drop(journal);
    let archives = archived(dir.path());

    // Both are there, then one is unfinished, then drafts lie about.
    fs::write(&whole[0].1, &whole[0].0).unwrap();
    fs::write(&whole[1].1, &whole[1].0).unwrap();
    let sound = fs::read(&archives[1]).unwrap();
    fs::write(&archives[1], &sound[..sound.len() - 1]).unwrap();
    fs::write(dir.path().join("archive/segment-00000000000000000500.log.zst.new"), b"half").unwrap();
    let walked = Log::open(dir.path()).unwrap().map(Result::unwrap).count();
    let journal = open(dir.path()).unwrap();
    assert_eq!(walked as u64, journal.last().get());
    assert_eq!(ask(&journal), before);
    assert!(!whole[0].1.exists() && archives[0].exists());
    assert!(whole[1].1.exists() && !archives[1].exists());
    assert_eq!(archived(dir.path()).len(), archives.len() - 1);
}

#[tokio::test]
async fn archives_that_are_missing_or_not_ours_are_found_at_open() {
    let (dir, other) = (acknowledged().await, acknowledged().await);
    for dir in [&dir, &other] {
        open(dir.path()).unwrap().compact(&["mes"]).unwrap();
    }
    let (ours, theirs) = (archived(dir.path()), archived(other.path()));
    let check = |harm: &dyn Fn(), place: &Path| {
        let copies: Vec<_> = ours.iter().map(|path| fs::read(path).unwrap()).collect();
        harm();
        match open(dir.path()).map(|journal| journal.last()) {
            Err(JournalError::Damaged { path, .. }) => assert_eq!(path, place),
            other => panic!("there should be damage, not {other:?}"),
        }
        for (path, bytes) in ours.iter().zip(copies) {
            fs::write(path, bytes).unwrap();
        }
        open(dir.path()).unwrap();
    };
    let copy = |from: &Path, to: &Path| assert!(fs::copy(from, to).unwrap() > 0);
    check(&|| fs::remove_file(&ours[0]).unwrap(), &ours[1]);
    check(&|| fs::remove_file(&ours[1]).unwrap(), &ours[0]);
    check(&|| fs::remove_file(ours.last().unwrap()).unwrap(), &ours[ours.len() - 2]);
    check(&|| copy(&ours[0], &ours[1]), &ours[1]);
    check(&|| copy(&theirs[1], &ours[1]), &ours[1]);
    check(&|| copy(&theirs[0], &ours[0]), &ours[1]);
    let cut = |path: &Path| fs::write(path, &fs::read(path).unwrap()[..300]).unwrap();
    check(&|| cut(&ours[2]), &ours[2]);
}

#[tokio::test]
async fn a_damaged_block_is_told_by_who_reads_it() {
    let dir = acknowledged().await;
    open(dir.path()).unwrap().compact(&["mes"]).unwrap();
    let path = archived(dir.path())[1].clone();
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();

    let journal = open(dir.path()).unwrap();
    let damaged = journal.get(first_of(&path).into());
    assert!(
        matches!(&damaged, Err(JournalError::Damaged { path: place, .. }) if *place == path),
        "{damaged:?}"
    );
    assert!(journal.read(Sequence::START).any(|entry| entry.is_err()));
    let message = damaged.unwrap_err().to_string();
    assert!(
        message.ends_with(&format!("stationctl journal verify --state {}", dir.path().display())),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_followers_do_not_notice_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    let mut follower = journal.follow(Sequence::START);
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 1000 {
            seen.push(follower.next().await.unwrap().record.number);
        }
        seen
    });
    let walker = tokio::task::spawn_blocking({
        let (journal, dir) = (journal.clone(), dir.path().to_owned());
        move || {
            while journal.last() < 1000.into() {
                assert!(journal.read(Sequence::START).all(|entry| entry.is_ok()));
                assert!(Log::open(&dir).unwrap().all(|raw| raw.is_ok()));
            }
        }
    });
    for numbers in (1..=1000).collect::<Vec<_>>().chunks(10) {
        journal.append_all(numbers.iter().copied().map(Event::new).collect()).await.unwrap();
        let journal = journal.clone();
        tokio::task::spawn_blocking(move || journal.compact(&[])).await.unwrap().unwrap();
    }
    walker.await.unwrap();
    assert!(seen.await.unwrap().into_iter().eq(1..=1000));
    assert!(archived(dir.path()).len() > 30);
}
