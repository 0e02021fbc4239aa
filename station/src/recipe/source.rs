//! The files that a recipe names: read once, held against their signatures, and counted into the recipe's digest.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use factory_settings::Table;
use sha2::{Digest, Sha256};

use crate::signatures::Signatures;

/// What is read for a recipe that is uploaded, whose files may have half of it; it may name one of them many times.
const MOST: u64 = 128 * 1024 * 1024;

/// Reads files for one recipe.
pub(super) struct Sources<'a> {
    signatures: &'a Signatures,
    /// Where all of them must lie.
    folder: Option<&'a Path>,
    /// So many bytes may still be read.
    left: Cell<u64>,
    digests: RefCell<Vec<[u8; 32]>>,
    named: RefCell<BTreeSet<PathBuf>>,
}

impl<'a> Sources<'a> {
    /// Files that must be signed as demanded.
    pub(super) fn new(signatures: &'a Signatures) -> Self {
        let left = Cell::new(u64::MAX);
        Self { signatures, folder: None, left, digests: RefCell::default(), named: RefCell::default() }
    }

    /// The same, all in one folder.
    pub(super) fn beside(signatures: &'a Signatures, folder: &'a Path) -> Self {
        Self { folder: Some(folder), left: Cell::new(MOST), ..Self::new(signatures) }
    }

    /// What the file holds, and its SHA-256; or a complaint about `key`.
    pub(super) fn read(&self, file: &Table<'_>, key: &str, path: &Path) -> Option<(Vec<u8>, [u8; 32])> {
        let complain = |error: &dyn Display| file.complain(key, error.to_string());
        // Neither a folder in between nor a way out of it: what is uploaded must not name what else is on the disk.
        if self.folder.is_some_and(|folder| path.parent() != Some(folder) || path.file_name().is_none()) {
            complain(&"must be the name of a file beside the recipe: it is uploaded with it");
            return None;
        }
        let Some(left) = self.left.get().checked_sub(fs::metadata(path).map_or(0, |file| file.len())) else {
            let most = MOST >> 20;
            complain(&format_args!(
                "makes more than {most} MiB that are read: name a file once, or a shorter one"
            ));
            return None;
        };
        self.left.set(left);
        self.named.borrow_mut().insert(path.to_owned());
        let bytes = fs::read(path)
            .inspect_err(|error| complain(&format_args!("{} cannot be read: {error}", path.display())))
            .ok()?;
        self.signatures.check(path, &bytes).inspect_err(|unsigned| complain(unsigned)).ok()?;
        let digest = Sha256::digest(&bytes).into();
        self.digests.borrow_mut().push(digest);
        Some((bytes, digest))
    }

    /// What `parse` makes of what the file holds; or a complaint about `key`.
    pub(super) fn parsed<T, E: Display>(
        &self,
        file: &Table<'_>,
        key: &str,
        path: &Path,
        parse: impl Fn(&[u8]) -> Result<T, E>,
    ) -> Option<T> {
        let (bytes, _) = self.read(file, key, path)?;
        let complain = |error: &E| file.complain(key, format!("{} {error}", path.display()));
        parse(&bytes).inspect_err(complain).ok()
    }

    /// The files that were to be read.
    pub(super) fn named(&self) -> BTreeSet<PathBuf> {
        self.named.borrow().clone()
    }

    /// SHA-256 over the digest of the recipe file's text and those of all files read, in their order.
    pub(super) fn digest(self, text: &str) -> [u8; 32] {
        let mut all = Sha256::new();
        all.update(Sha256::digest(text));
        self.digests.into_inner().iter().for_each(|digest| all.update(digest));
        all.finalize().into()
    }
}
