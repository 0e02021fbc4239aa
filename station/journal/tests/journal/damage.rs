//! Torn tails are cut, and only they; everything else that is wrong is told with its place.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use factory_journal::log::Log;
use factory_journal::segment::{Frame, HEADER_LEN, Header, Kind};
use factory_journal::{Journal, JournalError, Options, Sequence};
use proptest::prelude::*;

use crate::support::{Event, append, delete_index, journal_of, numbers, open, segments};

fn only_segment(dir: &Path) -> PathBuf {
    let segments = segments(dir);
    assert_eq!(segments.len(), 1);
    segments[0].clone()
}

/// The place that opening complains about.
fn damage_at(dir: &Path) -> (PathBuf, u64) {
    match open(dir).map(|journal| journal.last()) {
        Err(JournalError::Damaged { path, offset, .. }) => (path, offset),
        other => panic!("there should be damage, not {other:?}"),
    }
}

/// Where each record of a segment begins, from its length fields.
fn offsets(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = vec![HEADER_LEN];
    while let Some(prefix) = bytes.get(offsets[offsets.len() - 1]..).and_then(|rest| rest.first_chunk()) {
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap();
        offsets.push(offsets[offsets.len() - 1] + 8 + length);
    }
    offsets
}

#[tokio::test]
async fn a_last_record_torn_at_any_byte_is_cut_and_the_journal_goes_on() {
    let dir = journal_of(3).await;
    let path = only_segment(dir.path());
    let whole = fs::read(&path).unwrap();
    let last = offsets(&whole)[2];
    for length in last..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        delete_index(dir.path());
        let journal = open(dir.path()).unwrap();
        assert_eq!(journal.last(), Sequence::from(2), "cut at {length}");
        append(&journal, [4]).await;
        assert_eq!(numbers(&journal, Sequence::START), [1, 2, 4], "cut at {length}");
    }
}

#[tokio::test]
async fn a_last_record_with_any_flipped_byte_is_cut() {
    let dir = journal_of(3).await;
    let path = only_segment(dir.path());
    let whole = fs::read(&path).unwrap();
    let last = offsets(&whole)[2];
    for at in (last..whole.len()).step_by(3) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        delete_index(dir.path());
        assert_eq!(open(dir.path()).unwrap().last(), Sequence::from(2), "flipped at {at}");
        assert_eq!(fs::read(&path).unwrap(), whole[..last]);
    }
}

#[tokio::test]
async fn a_tail_of_zeros_is_cut() {
    let dir = journal_of(3).await;
    let path = only_segment(dir.path());
    let length = fs::metadata(&path).unwrap().len();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(length + 5000).unwrap();
    assert_eq!(open(dir.path()).unwrap().last(), Sequence::from(3));
    assert_eq!(fs::metadata(&path).unwrap().len(), length);
}

/// The writer prepares space, and the power goes before it is used.
#[tokio::test]
async fn a_crash_in_prepared_space_loses_nothing_and_is_read_by_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_size: 4 << 20, reserve: 0, low_space: 0, ..Options::default() };
    let journal = Journal::open(dir.path(), options.clone()).unwrap();
    append(&journal, 1..=3).await;
    let path = only_segment(dir.path());
    let prepared = fs::read(&path).unwrap();
    assert!(prepared.len() > 1 << 20, "space should be prepared");
    assert_eq!(numbers(&journal, Sequence::START), [1, 2, 3]);
    drop(journal);
    let closed = fs::read(&path).unwrap();
    assert_eq!(closed, prepared[..closed.len()], "closing should cut off what is prepared");

    let mut torn = prepared.clone();
    torn[closed.len() + 300..closed.len() + 320].fill(7);
    for crashed in [&prepared, &torn] {
        fs::write(&path, crashed).unwrap();
        delete_index(dir.path());
        let mut log = Log::open(dir.path()).unwrap();
        assert_eq!(log.by_ref().map(Result::unwrap).count(), 3);
        assert_eq!(log.torn(), if *crashed == torn { 320 } else { 0 });
        let journal = Journal::open(dir.path(), options.clone()).unwrap();
        append(&journal, [4]).await;
        assert_eq!(numbers(&journal, Sequence::START), [1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn a_flipped_byte_in_an_earlier_record_is_damage_at_that_record() {
    let dir = journal_of(4).await;
    let path = only_segment(dir.path());
    let whole = fs::read(&path).unwrap();
    let offsets = offsets(&whole);
    for record in 0..3 {
        for at in (offsets[record]..offsets[record + 1]).step_by(5) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x01;
            fs::write(&path, &flipped).unwrap();
            assert_eq!(damage_at(dir.path()), (path.clone(), offsets[record] as u64), "flipped at {at}");
            assert_eq!(fs::read(&path).unwrap(), flipped, "damage should be left as it is");
        }
    }
}

#[tokio::test]
async fn an_edited_record_with_a_correct_checksum_breaks_the_chain_at_the_next_one() {
    let dir = journal_of(4).await;
    let path = only_segment(dir.path());
    let mut edited = fs::read(&path).unwrap();
    let offsets = offsets(&edited);
    let (crc_at, body_at, end) = (offsets[1] + 4, offsets[1] + 8, offsets[2]);
    edited[end - 1] ^= 1;
    let crc = crc32fast::hash(&edited[body_at..end]);
    edited[crc_at..body_at].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, edited).unwrap();
    assert_eq!(damage_at(dir.path()), (path, offsets[2] as u64));
}

#[tokio::test]
async fn damage_in_a_closed_segment_is_told_with_its_place() {
    let dir = journal_of(60).await;
    let first = segments(dir.path())[0].clone();
    let whole = fs::read(&first).unwrap();
    let last = offsets(&whole).into_iter().rev().nth(1).unwrap();

    fs::write(&first, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(damage_at(dir.path()), (first.clone(), last as u64));
    fs::write(&first, &whole[..last]).unwrap();
    assert_eq!(damage_at(dir.path()), (first.clone(), last as u64));
    let mut header = whole.clone();
    header[30] ^= 1;
    fs::write(&first, header).unwrap();
    assert_eq!(damage_at(dir.path()), (first.clone(), 0));
    fs::write(&first, whole).unwrap();
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_missing_segment_is_damage() {
    let dir = journal_of(60).await;
    let segments = segments(dir.path());
    fs::remove_file(&segments[1]).unwrap();
    assert_eq!(damage_at(dir.path()).0, segments[0]);
}

#[tokio::test]
async fn a_segment_from_another_journal_is_damage() {
    let (dir, other) = (journal_of(60).await, journal_of(60).await);
    let (ours, theirs) = (segments(dir.path()), segments(other.path()));
    fs::copy(&theirs[1], &ours[1]).unwrap();
    assert_eq!(damage_at(dir.path()), (ours[1].clone(), 0));
}

#[tokio::test]
async fn a_half_made_segment_is_swept_away() {
    let dir = journal_of(3).await;
    let draft = dir.path().join("segment-00000000000000000004.log.new");
    fs::write(&draft, b"FACT").unwrap();
    assert_eq!(open(dir.path()).unwrap().last(), Sequence::from(3));
    assert!(!draft.exists());
}

#[tokio::test]
async fn an_acknowledged_record_that_vanished_is_an_error_until_somebody_accepts_the_loss() {
    let dir = journal_of(3).await;
    let path = only_segment(dir.path());
    let whole = fs::read(&path).unwrap();
    let cut = &whole[..offsets(&whole)[2] + 10];
    fs::write(&path, cut).unwrap();
    let lost = open(dir.path()).map(|journal| journal.last());
    let Err(JournalError::Lost { acknowledged, found, .. }) = lost else { panic!("{lost:?}") };
    assert_eq!((acknowledged, found), (3.into(), 2.into()));
    assert_eq!(fs::read(&path).unwrap(), cut, "nothing should be cut before somebody decided");

    delete_index(dir.path());
    assert_eq!(open(dir.path()).unwrap().last(), Sequence::from(2));
}

/// A journal of three records, of which the second is broken; opened.
fn with_broken_second(batches: [u64; 3]) -> Result<Sequence, JournalError> {
    let dir = tempfile::tempdir().unwrap();
    let mut previous = [0; 32];
    let mut bytes = Header { first: 1.into(), created: 0, previous }.encode().to_vec();
    let mut second = 0;
    for (sequence, batch) in (1..).zip(batches) {
        let payload = minicbor::to_vec(Event::new(sequence)).unwrap();
        let (sequence, batch) = (Sequence::from(sequence), Sequence::from(batch));
        if sequence == 2.into() {
            second = bytes.len();
        }
        let frame = Frame { sequence, batch, time: 0, kind: Kind::Record, version: 1, previous, payload };
        previous = frame.encode(&mut bytes);
    }
    bytes[second + 20] ^= 1;
    fs::write(dir.path().join("segment-00000000000000000001.log"), bytes).unwrap();
    open(dir.path()).map(|journal| journal.last())
}

#[test]
fn a_batch_torn_in_its_middle_is_cut_as_a_whole() {
    assert_eq!(with_broken_second([1, 2, 2]).unwrap(), Sequence::from(1));
}

#[test]
fn a_broken_record_before_a_later_batch_is_damage() {
    assert!(matches!(with_broken_second([1, 2, 3]), Err(JournalError::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_in_a_segment_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        sound in proptest::option::of(0_usize..400),
    ) {
        let dir = tempfile::tempdir().unwrap();
        // A sound beginning gets the bytes past the header.
        let mut file = Header { first: 1.into(), created: 0, previous: [0; 32] }.encode().to_vec();
        let payload = minicbor::to_vec(Event::new(1)).unwrap();
        let (sequence, batch, previous) = (1.into(), 1.into(), [0; 32]);
        Frame { sequence, batch, time: 0, kind: Kind::Record, version: 1, previous, payload }.encode(&mut file);
        file.truncate(sound.unwrap_or(0));
        file.extend(bytes);
        fs::write(dir.path().join("segment-00000000000000000001.log"), file).unwrap();
        if let Ok(journal) = open(dir.path()) {
            prop_assert!(journal.read(Sequence::START).all(|entry| entry.is_ok()));
        }
    }
}
