//! Whatever is uploaded as a recipe: it is one, of files with plain names, or a refusal of a bounded length that does not say
//! where it was put; and nothing of it stays.
#![no_main]

use std::{
    fs,
    sync::{Arc, LazyLock},
};

use factory_station::{
    shelf::{
        ShelfError,
        incoming::{FILES, Incoming},
    },
    signatures::{Demand, Signatures},
};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Mutex,
};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("it needs nothing"));
/// In memory, where there is such a place.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("there is room")
});
static UNSIGNED: LazyLock<Signatures> =
    LazyLock::new(|| Signatures::demanded(&Demand::Nothing).expect("nothing is read"));

/// The digest of what comes: names and pieces of files in turn, parted by NUL.
async fn upload(bytes: &[u8]) -> Result<[u8; 32], ShelfError> {
    let alone = Arc::new(Mutex::new(())).lock_owned().await;
    let name = "recipe".parse().expect("it is a name");
    let mut incoming = Incoming::begin(FOLDER.path(), name, alone)?;
    let mut parts = bytes.split(|byte| *byte == 0);
    let mut names = Vec::new();
    while let (Some(name), Some(piece)) = (parts.next(), parts.next()) {
        let name = String::from_utf8_lossy(name);
        incoming.add(&name, piece).await?;
        assert!(!name.starts_with('.') && !name.contains('/') && name.len() <= 64);
        names.push(name);
    }
    incoming.end().await?;
    names.dedup();
    assert!(names.len() <= FILES);
    let (incoming, digest) = incoming.check(&UNSIGNED)?;
    let (_, again) = incoming.check(&UNSIGNED)?;
    assert_eq!(again, digest);
    Ok(digest)
}

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = RUNTIME.block_on(upload(bytes)) {
        let ShelfError::Refused(text) = error else { panic!("{error:?}") };
        let folder = FOLDER.path().display().to_string();
        // The fuzzer may have looked on and found it.
        let is_given = bytes.windows(folder.len()).any(|part| part == folder.as_bytes());
        assert!(is_given || !text.contains(&folder), "{text}");
        assert!(text.len() <= 256 * bytes.len() + 8192, "{} for {} bytes", text.len(), bytes.len());
    }
    assert_eq!(fs::read_dir(FOLDER.path()).expect("it is there").count(), 0);
});
