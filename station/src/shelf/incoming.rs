//! The files of a recipe as they come: spooled to the disk, with plain names and bounded in number and length, and moved
//! to where they stay when all of it is good.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use factory_proto::ids::RecipeName;
use tempfile::TempDir;
use tokio::{fs::File, io::AsyncWriteExt, sync::OwnedMutexGuard};
use tracing::warn;

use super::{RecipeKey, ShelfError, disk, place};
use crate::{recipe::Recipe, signatures::Signatures};

/// So many files: the recipe, what it names, and their signatures.
pub const FILES: usize = 64;
/// All of them together, in bytes.
pub const LONGEST: u64 = 64 * 1024 * 1024;
/// The recipe itself, which is parsed as one.
const LONGEST_RECIPE: u64 = 256 * 1024;
/// No file's name is longer.
const LONGEST_NAME: usize = 64;
/// How folders begin that are not kept. No digest does.
const UNFINISHED: &str = ".incoming-";

/// A recipe that comes. What came is gone when this is dropped.
pub struct Incoming {
    name: RecipeName,
    folder: TempDir,
    names: BTreeSet<String>,
    open: Option<(String, File)>,
    length: u64,
    _alone: OwnedMutexGuard<()>,
}

/// Throws away what was not kept before the station ended.
pub(super) fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            let path = entry.path();
            warn!(path = %path.display(), %error, "what is left of an upload cannot be removed");
        }
    }
}

impl Incoming {
    /// In a folder of its own under this one; while this is there, no other one comes.
    ///
    /// # Errors
    /// The disk takes nothing.
    pub fn begin(folder: &Path, name: RecipeName, alone: OwnedMutexGuard<()>) -> Result<Self, ShelfError> {
        fs::create_dir_all(folder).map_err(disk(folder))?;
        let spool = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(folder).map_err(disk(folder))?;
        Ok(Self { name, folder: spool, names: BTreeSet::new(), open: None, length: 0, _alone: alone })
    }

    /// The recipe's name.
    pub fn name(&self) -> &RecipeName {
        &self.name
    }

    /// The next piece of a file; the pieces of one file come one after the other.
    ///
    /// # Errors
    /// What is wrong with it; the upload is over.
    pub async fn add(&mut self, file: &str, bytes: &[u8]) -> Result<(), ShelfError> {
        self.length += bytes.len() as u64;
        if self.length > LONGEST {
            let most = LONGEST >> 20;
            return Err(ShelfError::Refused(format!("the files are longer than {most} MiB together")));
        }
        let path = self.folder.path().join(file);
        if self.open.as_ref().is_none_or(|(open, _)| open != file) {
            self.end().await?;
            self.begin_file(file)?;
            let created = File::options().write(true).create_new(true).open(&path).await;
            self.open = Some((file.to_owned(), created.map_err(disk(&path))?));
        }
        let (_, open) = self.open.as_mut().expect("it was just opened");
        open.write_all(bytes).await.map_err(disk(&path))
    }

    fn begin_file(&mut self, file: &str) -> Result<(), ShelfError> {
        let refuse = |text: String| Err(ShelfError::Refused(text));
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        if file.is_empty() || file.len() > LONGEST_NAME || file.starts_with('.') || !file.chars().all(plain) {
            let shown: String = file.chars().take(LONGEST_NAME).collect();
            return refuse(format!(
                "{shown:?} is no name for a file: 1 to {LONGEST_NAME} of A-Z a-z 0-9 . _ - that do not begin with a dot"
            ));
        }
        if !self.names.insert(file.to_owned()) {
            return refuse(format!("{file} comes twice"));
        }
        if self.names.len() > FILES {
            return refuse(format!("there are more than {FILES} files"));
        }
        Ok(())
    }

    /// The last file is whole.
    ///
    /// # Errors
    /// The disk did not take it.
    pub async fn end(&mut self) -> Result<(), ShelfError> {
        let Some((name, mut file)) = self.open.take() else { return Ok(()) };
        let path = self.folder.path().join(name);
        // What is still in the buffer is written by the flush.
        file.flush().await.map_err(disk(&path))?;
        file.sync_all().await.map_err(disk(&path))
    }

    /// Reads it as the station's own recipes are read, with all that is demanded of them. Blocks.
    ///
    /// # Errors
    /// All its mistakes.
    pub fn check(self, signatures: &Signatures) -> Result<(Self, [u8; 32]), ShelfError> {
        let refuse = |text: String| Err(ShelfError::Refused(text));
        let main = format!("{}.toml", self.name);
        if !self.names.contains(&main) {
            return refuse(format!("{main} did not come"));
        }
        let path = self.folder.path().join(&main);
        if fs::metadata(&path).map_err(disk(&path))?.len() > LONGEST_RECIPE {
            return refuse(format!("{main} is longer than {} KiB", LONGEST_RECIPE >> 10));
        }
        let spool = format!("{}/", self.folder.path().display());
        // People know their files, not where we put them.
        let read = Recipe::read_alone(&path, signatures)
            .map_err(|error| ShelfError::Refused(error.to_string().replace(&spool, "")));
        let (recipe, named) = read?;
        let is_named = |file: &str| file == main || named.contains(&self.folder.path().join(file));
        let odd: Vec<&str> = self
            .names
            .iter()
            .map(String::as_str)
            .filter(|file| !is_named(file) && !file.strip_suffix(".sig").is_some_and(is_named))
            .collect();
        if !odd.is_empty() {
            return refuse(format!("the recipe does not name {}", odd.join(", ")));
        }
        Ok((self, recipe.digest))
    }

    /// Moves it to where it stays, durably. Blocks.
    ///
    /// # Errors
    /// The disk did not take it.
    pub(super) fn settle(self, folder: &Path, key: &RecipeKey) -> Result<(), ShelfError> {
        let by_digest = folder.join(HEXLOWER.encode(&key.1));
        let place = place(folder, key);
        fs::create_dir_all(&by_digest).map_err(disk(&by_digest))?;
        sync(self.folder.path())?;
        if place.exists() {
            // Left by an upload that was never answered, or broken since: what came is known to be good.
            fs::remove_dir_all(&place).map_err(disk(&place))?;
        }
        fs::rename(self.folder.path(), &place).map_err(disk(&place))?;
        // Nothing is there any more that would have to be removed.
        let _: PathBuf = self.folder.keep();
        sync(&by_digest)?;
        sync(folder)
    }
}

fn sync(folder: &Path) -> Result<(), ShelfError> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk(folder))
}
