//! The end of the segment that is written: one batch after the other, into space that is prepared in advance.
//! Knows nothing of records.
//!
//! A file that grows with each write has its size to be made durable each time as well. So the file is filled ahead
//! with zeros, which are no record.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// So many zeros are written at a time.
const AHEAD: u64 = 1 << 20;

/// A segment's file and where the next batch goes.
pub(crate) struct Tail {
    file: File,
    end: u64,
    /// The file's length: from `end` up to here there are zeros.
    prepared: u64,
    /// No space is prepared beyond this.
    limit: u64,
}

impl Tail {
    /// A file that ends at `end` and will be written up to about `limit`.
    pub(crate) fn new(file: File, end: u64, limit: u64) -> Self {
        Self { file, end, prepared: end, limit }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Puts a batch at the end, to be made durable by [`Tail::sync`]. With `prepare`, space for later ones as well.
    ///
    /// # Errors
    /// Nothing of the batch is left then: the file ends where it ended.
    pub(crate) fn write(&mut self, batch: &[u8], prepare: bool) -> io::Result<()> {
        let end = self.end + batch.len() as u64;
        if let Err(error) = self.file.write_all_at(batch, self.end) {
            self.cut()?;
            return Err(error);
        }
        self.prepared = self.prepared.max(end);
        let ahead = self.limit.min(end + AHEAD);
        if prepare && self.prepared == end && end < ahead {
            let zeros = vec![0; usize::try_from(ahead - end).expect("it is a MiB at most")];
            match self.file.write_all_at(&zeros, end) {
                Ok(()) => self.prepared = ahead,
                // The batch itself had room.
                Err(_) => self.file.set_len(end)?,
            }
        }
        self.end = end;
        Ok(())
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Cuts off what is prepared, and makes that durable: the segment is finished.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.cut()?;
        self.file.sync_all()
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.prepared = self.end;
        Ok(())
    }
}
