//! The one thread that writes: takes what is waiting, makes it durable with one sync, answers everybody.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use crate::error::JournalError;
use crate::index::{Content, Index, Note};
use crate::record::Sequence;
use crate::recovery::Head;
use crate::segment::{Frame, HEADER_LEN, Header, Kind};
use crate::store::{Position, Store};

/// A batch is closed when it has this many bytes, so that nobody waits for ever.
const BATCH_BYTES: usize = 4 << 20;

/// A record that has no place in the log yet.
pub(crate) struct Draft {
    pub payload: Vec<u8>,
    pub version: u8,
    pub content: Content,
}

/// Something to be written.
pub(crate) struct Request {
    /// One batch, never empty.
    pub drafts: Vec<Draft>,
    /// Who wants to know when it is durable.
    pub done: Option<oneshot::Sender<Result<Sequence, JournalError>>>,
}

impl Request {
    fn size(&self) -> usize {
        self.drafts.iter().map(|draft| draft.payload.len()).sum()
    }
}

/// What a journal has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Records made durable, the journal's own among them.
    pub records: u64,
    /// Calls of `fdatasync` that it took.
    pub syncs: u64,
}

/// What the committer shares with those who ask it.
#[derive(Default)]
pub(crate) struct Progress {
    records: AtomicU64,
    syncs: AtomicU64,
    /// The first failed write. After a failed sync the kernel forgets what it could not write, so trying again
    /// would pretend; only reading the log anew tells what is there.
    failure: OnceLock<Arc<JournalError>>,
}

impl Progress {
    pub(crate) fn statistics(&self) -> Statistics {
        let (records, syncs) = (&self.records, &self.syncs);
        Statistics { records: records.load(Ordering::Relaxed), syncs: syncs.load(Ordering::Relaxed) }
    }

    pub(crate) fn check(&self) -> Result<(), JournalError> {
        match self.failure.get() {
            Some(source) => Err(JournalError::Poisoned { source: Arc::clone(source) }),
            None => Ok(()),
        }
    }
}

/// The writing end of a journal.
pub(crate) struct Committer {
    pub store: Arc<Store>,
    pub index: Arc<Index>,
    pub progress: Arc<Progress>,
    pub durable: watch::Sender<Sequence>,
    /// The segment that is written to, positioned at its end.
    pub file: File,
    pub head: Head,
    pub segment_size: u64,
}

impl Committer {
    /// Serves requests until nobody can send any more.
    pub(crate) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut size = first.size();
            let mut batch = vec![first];
            while size < BATCH_BYTES
                && let Ok(request) = requests.try_recv()
            {
                size += request.size();
                batch.push(request);
            }
            self.serve(batch);
        }
    }

    fn serve(&mut self, batch: Vec<Request>) {
        let mut sequence = self.head.sequence.get();
        let (mut drafts, mut waiting) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for request in batch {
            sequence += request.drafts.len() as u64;
            drafts.extend(request.drafts);
            waiting.extend(request.done.map(|done| (Sequence::from(sequence), done)));
        }

        if self.progress.check().is_ok()
            && let Err(failure) = self.commit(drafts)
        {
            error!(%failure, "journal failed and takes no more records");
            self.progress.failure.get_or_init(|| Arc::new(failure));
        }
        for (last, done) in waiting {
            // Who has gone away meanwhile finds the record in the log.
            let _ = done.send(self.progress.check().map(|()| last));
        }
    }

    fn commit(&mut self, drafts: Vec<Draft>) -> Result<(), JournalError> {
        if self.head.end.offset >= self.segment_size && self.head.end.offset > HEADER_LEN as u64 {
            self.rotate()?;
        }

        let (batch, time) = (self.head.sequence.next(), now());
        let (mut bytes, mut notes, mut head) = (Vec::new(), Vec::with_capacity(drafts.len()), self.head);
        for Draft { payload, version, content } in drafts {
            let kind = match content {
                Content::Record(_) => Kind::Record,
                Content::Cursor(_) => Kind::Cursor,
            };
            let (sequence, previous) = (head.sequence.next(), head.hash);
            let frame = Frame { sequence, batch, time, kind, version, previous, payload };
            head.hash = frame.encode(&mut bytes);
            notes.push(Note { sequence, hash: head.hash, time, position: head.end, content });
            head.sequence = sequence;
            head.end.offset = self.head.end.offset + bytes.len() as u64;
        }

        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(JournalError::io("append to", &self.store.path(head.end.segment)))?;
        self.head = head;
        self.progress.syncs.fetch_add(1, Ordering::Relaxed);
        self.progress.records.fetch_add(notes.len() as u64, Ordering::Relaxed);

        // Who gets an answer may look his record up at once. A failed index has said so itself; the log goes on.
        let _ = self.index.learn(&notes);
        self.durable.send_replace(head.sequence);
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), JournalError> {
        let first = self.head.sequence.next();
        self.file = self.store.create(&Header { first, created: now(), previous: self.head.hash })?;
        self.head.end = Position { segment: first, offset: HEADER_LEN as u64 };
        Ok(())
    }
}

/// The only clock of the journal: nanoseconds since 1970 UTC.
pub(crate) fn now() -> u64 {
    nanos(SystemTime::now())
}

/// A time as the log holds it: nanoseconds since 1970 UTC, at most those of 2554.
pub(crate) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
