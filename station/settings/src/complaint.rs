//! What is wrong with a file, said to the person who wrote it. Knows nothing of TOML.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// As many as people read. A file that somebody else sends may hold one in every other byte.
pub(crate) const MOST: usize = 100;

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The line it is on, counted from 1.
    pub line: usize,
    /// The key from the root of the file on, such as `nest[2].console` (elements count from 1); none for a syntax error.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub text: String,
    /// The key should be there and is not.
    pub(crate) missing: bool,
}

/// Everything that is wrong with one file, up to a hundred mistakes: one line each, in the order of the file.
#[derive(Clone, Debug)]
pub struct Complaints {
    file: PathBuf,
    list: Vec<Complaint>,
    is_cut: bool,
}

impl Complaints {
    /// Merges both kinds; a syntax error silences what merely follows from it.
    ///
    /// A line that cannot be parsed hides its key: that key is not missing, and its made-up value is not wrong.
    pub(crate) fn new(file: &Path, syntax: Vec<Complaint>, mut meaning: Vec<Complaint>) -> Self {
        if syntax.len() > MOST {
            meaning.clear();
        } else if !syntax.is_empty() {
            let broken: BTreeSet<usize> = syntax.iter().map(|complaint| complaint.line).collect();
            meaning.retain(|complaint| !complaint.missing && !broken.contains(&complaint.line));
        }
        let mut list = syntax;
        list.append(&mut meaning);
        list.sort_by_key(|complaint| complaint.line);
        let is_cut = list.len() > MOST;
        list.truncate(MOST);
        Self { file: file.to_owned(), list, is_cut }
    }

    /// The complaints in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Complaint> {
        self.list.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl std::error::Error for Complaints {}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        if self.list.is_empty() {
            return write!(f, "{file}: refused without a reason");
        }
        for (index, Complaint { line, key, text, .. }) in self.list.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            match key {
                Some(key) => write!(f, "{separator}{file}:{line}: key `{key}`: {text}")?,
                None => write!(f, "{separator}{file}:{line}: {text}")?,
            }
        }
        if self.is_cut {
            write!(f, "\n{file}: and more")?;
        }
        Ok(())
    }
}
