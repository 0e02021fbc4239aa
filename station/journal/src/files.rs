//! The segments of a journal as files, for who reads them byte by byte: beyond damage, where the journal itself stops.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::archive::Blocks;
use crate::error::JournalError;
use crate::record::Sequence;
use crate::store::Store;

/// The segments in `dir`, live and archived, oldest first, each with the record that it is named after.
///
/// # Errors
/// The folder cannot be listed.
pub fn segment_files(dir: &Path) -> Result<Vec<(Sequence, PathBuf)>, JournalError> {
    let store = Store::list(dir)?;
    Ok(store.segments().into_iter().map(|first| (first, store.present_path(first))).collect())
}

/// The bytes of one segment, as `segment` describes them, whether it is archived or not.
pub struct SegmentFile(Source);

enum Source {
    Live(BufReader<File>),
    /// At most a segment's size, in memory.
    Archived(Cursor<Vec<u8>>),
}

impl SegmentFile {
    /// Opens a file of [`segment_files`].
    ///
    /// # Errors
    /// It cannot be read; or it is archived, and not what was archived.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if path.extension().is_some_and(|extension| extension == "log") {
            let file = File::open(path).map_err(JournalError::io("open", path))?;
            return Ok(Self(Source::Live(BufReader::new(file))));
        }
        let mut bytes = Vec::new();
        match Blocks::open(path)?.read_to_end(&mut bytes) {
            Ok(_) => Ok(Self(Source::Archived(Cursor::new(bytes)))),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(JournalError::damaged(path, 0, error.to_string()))
            }
            Err(error) => Err(JournalError::io("read", path)(error)),
        }
    }
}

impl Read for SegmentFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::Live(file) => file.read(bytes),
            Source::Archived(memory) => memory.read(bytes),
        }
    }
}

impl Seek for SegmentFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.0 {
            Source::Live(file) => file.seek(to),
            Source::Archived(memory) => memory.seek(to),
        }
    }
}
