//! Records and directories for the tests.

use std::fs;
use std::path::{Path, PathBuf};

use factory_journal::{Journal, JournalError, Keys, Options, Record, Sequence};
use minicbor::{Decode, Encode};

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Event {
    #[n(0)]
    pub number: u64,
    #[n(1)]
    pub text: String,
}

impl Event {
    pub fn new(number: u64) -> Self {
        Self { number, text: format!("event {number} ").repeat(usize::try_from(number % 20).unwrap()) }
    }
}

impl Record for Event {
    fn keys(&self) -> Keys {
        let key = |name: &str, groups: u64| Some(format!("{name}-{}", self.number % groups));
        // Some have one mark, some two.
        let marks = [self.number % 3, self.number % 4].map(|mark| format!("mark-{mark}")).into();
        Keys { unit: key("unit", 5), run: key("run", 7), order: key("order", 2), marks }
    }
}

/// Small segments, so that there are several; and no need of a large disk.
pub fn small() -> Options {
    Options { segment_size: 2048, reserve: 64 << 10, low_space: 0, ..Options::default() }
}

pub fn open(dir: &Path) -> Result<Journal<Event>, JournalError> {
    Journal::open(dir, small())
}

/// Appends events `numbers`, each on its own.
pub async fn append(journal: &Journal<Event>, numbers: impl IntoIterator<Item = u64>) -> Vec<Sequence> {
    let mut sequences = Vec::new();
    for number in numbers {
        sequences.push(journal.append(Event::new(number)).await.unwrap());
    }
    sequences
}

/// A closed journal of events `1..=count`, one in each commit.
pub async fn journal_of(count: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    append(&open(dir.path()).unwrap(), 1..=count).await;
    dir
}

pub fn numbers(journal: &Journal<Event>, from: Sequence) -> Vec<u64> {
    journal.read(from).map(|entry| entry.unwrap().record.number).collect()
}

pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

pub fn delete_index(dir: &Path) {
    fs::remove_dir_all(dir.join("index")).unwrap();
}
