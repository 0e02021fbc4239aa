//! Records are found by when they were committed, whatever the clock did.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use factory_journal::Sequence;
use factory_journal::segment::{Frame, Header, Kind};

use crate::support::{Event, append, delete_index, journal_of, numbers, open, segments};

/// Event `n` is committed at `seconds[n - 1]` after 1970.
fn write(dir: &Path, seconds: &[u64]) {
    let mut previous = [0; 32];
    let mut bytes = Header { first: 1.into(), created: 0, previous }.encode().to_vec();
    for (number, seconds) in (1..).zip(seconds) {
        let payload = minicbor::to_vec(Event::new(number)).unwrap();
        let (sequence, time) = (number.into(), seconds * 1_000_000_000);
        let (batch, kind, version) = (sequence, Kind::Record, 1);
        let frame = Frame { sequence, batch, time, kind, version, previous, payload };
        previous = frame.encode(&mut bytes);
    }
    fs::write(dir.join("segment-00000000000000000001.log"), bytes).unwrap();
}

#[test]
fn the_records_of_a_period_are_exactly_those() {
    let steady: Vec<u64> = (0..200).map(|step| step * 7).collect();
    let set_back: Vec<u64> = (0..200).map(|step| step * 7 % 350).collect();
    let standing = vec![90; 100];
    let mad: Vec<u64> = (0..150).map(|step| step * 7919 % 1000).collect();
    for seconds in [steady, set_back, standing, mad] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &seconds);
        let journal = open(dir.path()).unwrap();
        for (from, until) in
            [(0, 2000), (60, 120), (61, 119), (90, 91), (119, 121), (300, 300), (500, 100), (1500, 1600)]
        {
            let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let found = journal.by_time(at(from), at(until)).unwrap();
            let found: Vec<_> = found.map(|entry| entry.unwrap().record.number).collect();
            let expected = (1..).zip(&seconds).filter(|(_, seconds)| (from..until).contains(*seconds));
            let expected: Vec<u64> = expected.map(|(number, _)| number).collect();
            assert_eq!(found, expected, "{from}..{until} of {seconds:?}");
            for begin in [1, 2, 13, 100, 149, 200, 1000] {
                let found = journal.by_time_from(begin.into(), at(from), at(until)).unwrap();
                let found: Vec<_> = found.map(|entry| entry.unwrap().record.number).collect();
                let expected: Vec<u64> = expected.iter().copied().filter(|number| *number >= begin).collect();
                assert_eq!(found, expected, "{from}..{until} from {begin} on of {seconds:?}");
            }
        }
    }
}

#[tokio::test]
async fn records_of_today_are_found_after_a_restart_and_a_rebuild() {
    let before = SystemTime::now();
    let dir = journal_of(50).await;
    for _ in 0..2 {
        let journal = open(dir.path()).unwrap();
        append(&journal, [51]).await;
        let found = journal.by_time(before, SystemTime::now() + Duration::from_secs(1)).unwrap();
        let found: Vec<_> = found.map(|entry| entry.unwrap().sequence).collect();
        assert!(found.into_iter().eq((1..=journal.last().get()).map(Sequence::from)));
        drop(journal);
        delete_index(dir.path());
    }
}

#[tokio::test]
async fn a_record_of_a_new_day_begins_a_segment_and_one_of_the_same_day_does_not() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[90, 100]);
    let journal = open(dir.path()).unwrap();
    append(&journal, [3]).await;
    assert_eq!(segments(dir.path()).len(), 2);
    append(&journal, [4]).await;
    drop(journal);
    append(&open(dir.path()).unwrap(), [5]).await;
    // Should midnight have come just now, there is one segment more.
    assert!((2..=3).contains(&segments(dir.path()).len()));
    assert_eq!(numbers(&open(dir.path()).unwrap(), Sequence::START), [1, 2, 3, 4, 5]);
}
