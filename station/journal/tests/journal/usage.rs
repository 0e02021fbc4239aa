//! Appending, reading, following, cursors.

use std::fs;
use std::time::{Duration, SystemTime};

use factory_journal::log::Log;
use factory_journal::{JournalError, Sequence};

use crate::support::{Event, append, journal_of, numbers, open, segments};

#[tokio::test]
async fn what_was_appended_is_read_back_in_order_and_with_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    let before = SystemTime::now();
    let sequences = append(&journal, 1..=3).await;
    assert_eq!(sequences, [1, 2, 3].map(Sequence::from));

    let entries: Vec<_> = journal.read(Sequence::START).map(Result::unwrap).collect();
    assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), sequences);
    for (entry, number) in entries.iter().zip(1..) {
        assert_eq!(entry.record, Event::new(number));
        assert!((before..before + Duration::from_secs(60)).contains(&entry.time));
    }
    assert_eq!(numbers(&journal, Sequence::from(2)), [2, 3]);
    assert_eq!(numbers(&journal, Sequence::from(4)), [0; 0]);
}

#[tokio::test]
async fn a_reopened_journal_goes_on_where_it_ended() {
    let dir = journal_of(100).await;
    let journal = open(dir.path()).unwrap();
    assert_eq!(journal.last(), Sequence::from(100));
    append(&journal, 101..=110).await;
    assert!(segments(dir.path()).len() > 3, "there should have been rotations");
    assert!(numbers(&journal, Sequence::START).into_iter().eq(1..=110));
    assert!(numbers(&journal, Sequence::from(57)).into_iter().eq(57..=110));
}

#[tokio::test]
async fn records_are_found_by_their_keys_and_sequence() {
    let dir = journal_of(40).await;
    let journal = open(dir.path()).unwrap();
    let expected = |groups: u64, rest: u64| -> Vec<Sequence> {
        (1..=40).filter(|number| number % groups == rest).map(Sequence::from).collect()
    };
    assert_eq!(journal.by_unit("unit-3").unwrap(), expected(5, 3));
    assert_eq!(journal.by_run("run-6").unwrap(), expected(7, 6));
    assert_eq!(journal.by_order("order-1").unwrap(), expected(2, 1));
    assert_eq!(journal.by_order("order").unwrap(), []);
    for number in 1..=40 {
        assert_eq!(journal.get(number.into()).unwrap().unwrap().record, Event::new(number));
    }
    assert_eq!(journal.get(Sequence::START).unwrap(), None);
    assert_eq!(journal.get(41.into()).unwrap(), None);
}

#[tokio::test]
async fn a_record_can_be_looked_up_as_soon_as_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    let sequence = journal.append(Event::new(3)).await.unwrap();
    assert_eq!(journal.by_unit("unit-3").unwrap(), [sequence]);
    assert_eq!(journal.get(sequence).unwrap().unwrap().record, Event::new(3));
}

#[tokio::test]
async fn records_appended_together_follow_each_other_and_share_one_sync() {
    let dir = journal_of(40).await;
    let journal = open(dir.path()).unwrap();
    let last = journal.append_all((41..=60).map(Event::new).collect()).await.unwrap();
    assert_eq!(last, Sequence::from(60));
    assert_eq!(journal.statistics().syncs, 1);
    assert_eq!(journal.append_all(Vec::new()).await.unwrap(), last);
    assert!(numbers(&journal, Sequence::START).into_iter().eq(1..=60));

    let batches: Vec<_> = Log::open(dir.path()).unwrap().map(|raw| raw.unwrap().frame.batch).collect();
    assert_eq!(batches[39], Sequence::from(40));
    assert_eq!(batches[40..], [Sequence::from(41); 20]);

    let large = Event { number: 62, text: "x".repeat(1 << 20) };
    let refused = journal.append_all(vec![Event::new(61), large]).await;
    assert!(matches!(refused, Err(JournalError::TooLarge { .. })));
    assert_eq!(journal.last(), last, "none of them should be there");
}

#[tokio::test]
async fn a_journal_is_open_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(JournalError::Locked { .. })));
    drop(first);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn concurrent_appends_are_all_durable_in_order_and_share_their_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    let tasks = (0..64).map(|task| {
        let journal = journal.clone();
        tokio::spawn(async move { append(&journal, (0..4).map(|step| task * 100 + step)).await })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut acknowledged = Vec::new();
    for (task, handle) in (0..).zip(tasks) {
        let sequences = handle.await.unwrap();
        assert!(sequences.is_sorted());
        acknowledged.extend((0..4).map(|step| task * 100 + step).zip(sequences));
    }

    let statistics = journal.statistics();
    assert_eq!(statistics.records, 256);
    assert!(statistics.syncs < 128, "{statistics:?}");
    drop(journal);
    let journal = open(dir.path()).unwrap();
    assert_eq!(journal.last(), Sequence::from(256));
    for (number, sequence) in acknowledged {
        assert_eq!(journal.get(sequence).unwrap().unwrap().record, Event::new(number));
    }
}

#[tokio::test]
async fn a_follower_sees_everything_in_order_across_rotations() {
    let dir = journal_of(20).await;
    let journal = open(dir.path()).unwrap();
    let mut follower = journal.follow(5.into());
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 296 {
            seen.push(follower.next().await.unwrap().record.number);
        }
        seen
    });
    for number in 21..=300 {
        append(&journal, [number]).await;
        journal.advance("controller", number.into()).await.unwrap_or_default();
    }
    assert!(seen.await.unwrap().into_iter().eq(5..=300));
}

#[tokio::test]
async fn a_follower_may_be_interrupted_and_is_told_when_the_journal_closes() {
    let dir = journal_of(2).await;
    let journal = open(dir.path()).unwrap();
    let mut follower = journal.follow(Sequence::START);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            entry = follower.next() => seen.push(entry.unwrap().record.number),
        }
    }
    assert_eq!(seen, [1, 2]);
    drop(journal);
    assert!(matches!(follower.next().await, Err(JournalError::Closed)));
}

#[tokio::test]
async fn a_cursor_moves_forward_only_and_never_past_the_end() {
    let dir = journal_of(10).await;
    let journal = open(dir.path()).unwrap();
    assert_eq!(journal.cursor("mes"), Sequence::START);
    journal.advance("mes", 7.into()).await.unwrap();
    journal.advance("mes", 3.into()).await.unwrap();
    journal.advance("archive", 2.into()).await.unwrap();
    let beyond = journal.advance("mes", 1000.into()).await;
    assert!(matches!(beyond, Err(JournalError::AheadOfLog { .. })));

    for _ in 0..2 {
        assert_eq!(journal.cursor("mes"), Sequence::from(7));
        assert_eq!(journal.cursor("archive"), Sequence::from(2));
    }
    drop(journal);
    let journal = open(dir.path()).unwrap();
    assert_eq!(journal.cursor("mes"), Sequence::from(7));
    assert_eq!(journal.cursor("archive"), Sequence::from(2));
    assert!(
        numbers(&journal, Sequence::START).into_iter().eq(1..=10),
        "cursors should not be read as records"
    );
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_and_the_next_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    let large = Event { number: 1, text: "x".repeat(1 << 20) };
    assert!(matches!(journal.append(large).await, Err(JournalError::TooLarge { .. })));
    let largest = Event { number: 2, text: "x".repeat((1 << 20) - 8) };
    let sequence = journal.append(largest.clone()).await.unwrap();
    assert_eq!(journal.get(sequence).unwrap().unwrap().record, largest);
}

#[tokio::test]
async fn after_a_failed_write_nothing_more_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("journal")).unwrap();
    let filler = Event { number: 1, text: "x".repeat(4096) };
    let last = journal.append(filler).await.unwrap();

    // The next record begins a segment, which has nowhere to go.
    fs::rename(dir.path().join("journal"), dir.path().join("moved")).unwrap();
    for number in [2, 3] {
        let refused = journal.append(Event::new(number)).await;
        assert!(matches!(refused, Err(JournalError::Poisoned { .. })), "{refused:?}");
    }
    assert!(matches!(journal.advance("mes", last).await, Err(JournalError::Poisoned { .. })));
    assert_eq!(journal.last(), last);
    drop(journal);
    let journal = open(&dir.path().join("moved")).unwrap();
    assert_eq!(numbers(&journal, Sequence::START), [1]);
}

#[tokio::test]
async fn a_follower_hands_out_what_is_there_up_to_a_record_and_waits_for_nothing() {
    let dir = journal_of(100).await;
    let journal = open(dir.path()).unwrap();
    let mut follower = journal.follow(Sequence::from(90));
    let mut up_to = async |until: u64| {
        let mut numbers = Vec::new();
        while let Some(entry) = follower.next_until(until.into()).await.unwrap() {
            numbers.push(entry.sequence.get());
        }
        numbers
    };
    assert_eq!(up_to(80).await, [0; 0]);
    assert_eq!(up_to(92).await, [90, 91, 92]);
    assert_eq!(up_to(92).await, [0; 0]);
    // The journal's own records are none of the reader's, and are passed all the same.
    journal.advance("somebody", 100.into()).await.unwrap();
    append(&journal, 102..=102).await;
    assert_eq!(up_to(101).await, (93..=100).collect::<Vec<_>>());
    assert_eq!(up_to(102).await, [102]);
}
