//! `stationctl journal` on the files of a real journal.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use factory_journal::{Journal, Options};
use factory_station::record::{OrderOpened, Record};

fn stationctl(verb: &str, state: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stationctl"));
    command.args(["journal", verb, "--state"]).arg(state).args(more).output().unwrap()
}

/// What it printed; it must have succeeded.
fn succeeds(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it complained about; it must have failed.
fn fails(output: Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn open(dir: &Path) -> Journal<Record> {
    let options = Options { segment_size: 1000, reserve: 0, low_space: 0, ..Options::default() };
    Journal::open(dir, options).unwrap()
}

fn order(number: u32) -> Record {
    Record::OrderOpened(OrderOpened {
        order: format!("order-{number}").parse().unwrap(),
        recipe: "sensor".parse().unwrap(),
        recipe_digest: [7; 32],
        quantity: number,
        units: None,
        quota: None,
    })
}

#[tokio::test]
async fn a_journal_is_checked_compacted_taken_away_and_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    let (state, copy, file) = (dir.path().join("state"), dir.path().join("copy"), dir.path().join("export"));
    let journal = open(&state);
    for number in 1..=50 {
        journal.append(order(number)).await.unwrap();
    }
    journal.advance("controller", 30.into()).await.unwrap();
    journal.append(order(51)).await.unwrap();

    // Beside the one that has it open.
    let verified = succeeds(stationctl("verify", &state, &[]));
    assert!(verified.contains(": live, ") && verified.ends_with("52 sound records\n"), "{verified}");
    let lines = succeeds(stationctl("export", &state, &[]));
    assert!(lines.contains("order-51"), "people should be able to read it");
    for verb in ["rebuild-index", "compact"] {
        let more: &[&str] = if verb == "compact" { &["--receiver", "controller"] } else { &[] };
        let refused = fails(stationctl(verb, &state, more));
        assert!(refused.contains("is in use; stop the other process first"), "{refused}");
    }
    drop(journal);

    let compacted = succeeds(stationctl("compact", &state, &["--receiver", "controller"]));
    assert!(!compacted.starts_with("archived 0"), "{compacted}");
    assert!(succeeds(stationctl("verify", &state, &[])).contains(": archived, "));
    assert_eq!(succeeds(stationctl("export", &state, &[])), lines);
    succeeds(stationctl("export", &state, &["--output", file.to_str().unwrap()]));
    assert!(
        fails(stationctl("export", &state, &["--output", file.to_str().unwrap()]))
            .contains("name a new file")
    );
    succeeds(stationctl("import", &copy, &["--input", file.to_str().unwrap()]));
    assert!(
        fails(stationctl("import", &copy, &["--input", file.to_str().unwrap()])).contains("is not empty")
    );
    assert_eq!(succeeds(stationctl("export", &copy, &[])), lines);
    succeeds(stationctl("rebuild-index", &copy, &[]));
    assert_eq!(open(&copy).by_order("order-17").unwrap(), [17.into()]);
}

#[tokio::test]
async fn damage_and_missing_journals_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    journal.append_all((1..=3).map(order).collect()).await.unwrap();
    journal.append(order(4)).await.unwrap();
    drop(journal);
    let segment = dir.path().join("segment-00000000000000000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = stationctl("verify", dir.path(), &[]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("DAMAGED") && shown.contains("is damaged at byte 64"), "{shown}");
    assert!(fails(output).contains("1 segments of the journal"));
    assert!(fails(stationctl("export", dir.path(), &[])).contains("is damaged at byte 64"));

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for (verb, more) in
        [("verify", &[][..]), ("export", &[]), ("compact", &["--all"]), ("rebuild-index", &[])]
    {
        let refused = fails(stationctl(verb, &empty, more));
        assert!(refused.contains("there is no journal in"), "{verb}: {refused}");
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}
