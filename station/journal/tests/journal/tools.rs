//! What is done to a journal from outside: checking it, taking it away and bringing it back.

use std::fs;
use std::path::Path;

use factory_journal::{
    Audit, Finding, Journal, JournalError, Options, Sequence, compact_offline, export, import,
};
use proptest::prelude::*;

use crate::support::{Event, append, delete_index, journal_of, numbers, open, segments, small};

fn exported(dir: &Path) -> String {
    let mut lines = Vec::new();
    export(dir, &mut lines).unwrap();
    String::from_utf8(lines).unwrap()
}

fn findings(dir: &Path) -> Vec<Finding> {
    Audit::open(dir).unwrap().map(Result::unwrap).collect()
}

async fn journal_with_cursors() -> tempfile::TempDir {
    let dir = journal_of(60).await;
    let journal = open(dir.path()).unwrap();
    journal.advance("mes", 50.into()).await.unwrap();
    journal.append_all((61..=80).map(Event::new).collect()).await.unwrap();
    dir
}

#[tokio::test]
async fn an_export_is_imported_byte_for_byte_also_from_the_archive_and_beside_a_writer() {
    let dir = journal_with_cursors().await;
    let whole: Vec<_> = segments(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    let journal = open(dir.path()).unwrap();
    let lines = exported(dir.path());
    journal.compact(&["mes"]).unwrap();
    assert!(segments(dir.path()).len() < whole.len());
    assert_eq!(exported(dir.path()), lines);

    let copy = tempfile::tempdir().unwrap();
    assert_eq!(import(lines.as_bytes(), copy.path()).unwrap(), journal.last());
    let copied: Vec<_> = segments(copy.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(copied, whole);
    let copy = open(copy.path()).unwrap();
    assert_eq!(numbers(&copy, Sequence::START), numbers(&journal, Sequence::START));
    assert_eq!(copy.cursor("mes"), Sequence::from(50));
}

/// The line that an export is refused for, if it is; and there is no journal then.
fn refused(lines: &str) -> Option<u64> {
    let dir = tempfile::tempdir().unwrap();
    match import(lines.as_bytes(), dir.path()) {
        Ok(_) => None,
        Err(JournalError::BadExport { line, .. }) => {
            assert!(matches!(Audit::open(dir.path()), Err(JournalError::Nothing { .. })));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the lock should be left");
            Some(line)
        }
        Err(other) => panic!("line should be named, not {other:?}"),
    }
}

#[tokio::test]
async fn an_export_that_was_changed_is_refused_with_its_line() {
    let dir = journal_with_cursors().await;
    let text = exported(dir.path());
    let lines: Vec<&str> = text.lines().collect();
    let check = |changed: Vec<&str>, line: usize| {
        assert_eq!(refused(&(changed.join("\n") + "\n")), Some(line as u64), "{:?}", changed.get(line - 1));
    };
    assert_eq!(refused(&text), None);
    for at in (0..lines.len()).step_by(4).chain([1, 17, 18, lines.len() - 1]) {
        // Cut after, dropped, doubled, exchanged with the next.
        check(lines[..at].to_vec(), at + 1);
        let dropped = [&lines[..at], &lines[at + 1..]].concat();
        assert!(refused(&dropped.join("\n")).is_some(), "without line {}", at + 1);
        check([&lines[..=at], &lines[at..]].concat(), at + 2);
        if at + 1 < lines.len() {
            let exchanged = [&lines[..at], &[lines[at + 1], lines[at]], &lines[at + 2..]].concat();
            assert!(refused(&exchanged.join("\n")).is_some(), "line {} exchanged", at + 1);
        }
        // One digit of one field.
        let digits = lines[at].char_indices().filter(|(_, char)| char.is_ascii_digit());
        for (index, digit) in digits.skip(at % 7).step_by(200) {
            let other = if digit == '1' { "2" } else { "1" };
            let edited = [&lines[at][..index], other, &lines[at][index + 1..]].concat();
            let changed = [&lines[..at], &[edited.as_str()], &lines[at + 1..]].concat();
            assert!(refused(&changed.join("\n")).is_some(), "{edited}");
        }
    }
    let middle = lines.len() / 2;
    let rubbish = [&lines[..middle], &["rubbish"], &lines[middle..]].concat();
    check(rubbish, middle + 1);
    check(vec![""], 1);
}

#[tokio::test]
async fn an_import_does_not_touch_what_is_there() {
    let dir = journal_of(3).await;
    let lines = exported(dir.path());
    assert!(matches!(import(lines.as_bytes(), dir.path()), Err(JournalError::Occupied { .. })));
    assert_eq!(exported(dir.path()), lines);
}

#[tokio::test]
async fn an_audit_names_every_segment_and_goes_on_after_damage() {
    let dir = journal_with_cursors().await;
    let journal = open(dir.path()).unwrap();
    journal.compact(&["mes"]).unwrap();
    let sound = findings(dir.path());
    assert!(
        sound.iter().all(|finding| finding.damage.is_none() && finding.torn == 0 && finding.times.is_some())
    );
    assert!(sound.iter().any(|finding| finding.archived) && sound.iter().any(|finding| !finding.archived));
    assert_eq!(sound.iter().map(|finding| finding.records).sum::<u64>(), journal.last().get());

    for (at, victim) in sound.iter().enumerate() {
        let whole = fs::read(&victim.path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        // In the last segment the batch is the last one as well: it might be a torn one.
        let told = at + 1 < sound.len();
        for damaged in [Some(flipped), told.then(|| whole[..whole.len() - 1].to_vec())].into_iter().flatten()
        {
            fs::write(&victim.path, damaged).unwrap();
            let found = findings(dir.path());
            assert_eq!(found.len(), sound.len());
            for (index, finding) in found.iter().enumerate() {
                let expected = index == at;
                assert_eq!(finding.damage.is_some() || finding.torn > 0, expected, "{index}: {finding:?}");
            }
        }
        fs::remove_file(&victim.path).unwrap();
        let found = findings(dir.path());
        assert!(!told || found.iter().any(|finding| finding.damage.is_some()));
        fs::write(&victim.path, whole).unwrap();
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Audit::open(empty.path()), Err(JournalError::Nothing { .. })));
}

#[tokio::test]
async fn a_journal_that_nobody_has_open_is_compacted_and_one_in_use_is_not() {
    let dir = journal_with_cursors().await;
    let before = exported(dir.path());
    let journal = open(dir.path()).unwrap();
    assert!(matches!(compact_offline(dir.path(), &["mes"]), Err(JournalError::Locked { .. })));
    let rebuilt = Journal::<Event>::rebuild_index(dir.path(), small());
    assert!(matches!(rebuilt.map(|journal| journal.last()), Err(JournalError::Locked { .. })));
    drop(journal);
    assert_eq!(compact_offline(dir.path(), &["mes", "nobody"]).unwrap().segments, 0);
    assert!(compact_offline(dir.path(), &["mes"]).unwrap().segments > 1);
    assert_eq!(exported(dir.path()), before);
    assert!(compact_offline(dir.path(), &[]).unwrap().segments > 0);
    assert_eq!(exported(dir.path()), before);

    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(compact_offline(empty.path(), &[]), Err(JournalError::Nothing { .. })));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_rebuilt_index_accepts_that_records_were_lost() {
    let dir = journal_of(60).await;
    let last = segments(dir.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    fs::write(&last, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(open(dir.path()).map(|journal| journal.last()), Err(JournalError::Lost { .. })));
    let journal = Journal::<Event>::rebuild_index(dir.path(), small()).unwrap();
    assert_eq!(journal.last(), Sequence::from(59));
    append(&journal, [60]).await;
    assert_eq!(journal.by_unit("unit-0").unwrap().len(), 12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_journal_survives_the_way_through_an_export(
        batches in proptest::collection::vec((1_usize..20, any::<bool>()), 1..20),
        texts in proptest::collection::vec(".{0,80}", 1..8),
        segment_size in 300_u64..6000,
        compacts in any::<bool>(),
    ) {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = Options { segment_size, reserve: 0, low_space: 0, ..Options::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut count = 0;
        runtime.block_on(async {
            let journal = Journal::open(dir.path(), options).unwrap();
            for (size, acknowledges) in batches {
                let mut event = || {
                    count += 1;
                    Event { number: count, text: texts[usize::try_from(count).unwrap() % texts.len()].clone() }
                };
                let last = journal.append_all((0..size).map(|_| event()).collect()).await.unwrap();
                if acknowledges {
                    journal.advance("mes", last).await.unwrap();
                }
            }
        });
        let whole: Vec<_> = segments(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
        if compacts {
            compact_offline(dir.path(), &["mes"]).unwrap();
            delete_index(dir.path());
        }
        let lines = exported(dir.path());
        import(lines.as_bytes(), copy.path()).unwrap();
        let copied: Vec<_> = segments(copy.path()).iter().map(|path| fs::read(path).unwrap()).collect();
        prop_assert_eq!(copied, whole);
        prop_assert_eq!(exported(copy.path()), lines);
        prop_assert!(numbers(&open(dir.path()).unwrap(), Sequence::START).into_iter().eq(1..=count));
    }
}
