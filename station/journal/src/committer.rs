//! The one thread that writes: takes what is waiting, makes it durable with one sync, answers everybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{error, warn};

use crate::error::JournalError;
use crate::index::{Content, Index, Note};
use crate::reader::Position;
use crate::record::Sequence;
use crate::recovery::Head;
use crate::segment::{Frame, HEADER_LEN, Header, Kind};
use crate::space::Space;
use crate::store::Store;
use crate::tail::Tail;

/// A batch is closed when it has this many bytes, so that nobody waits for ever.
const BATCH_BYTES: usize = 4 << 20;

const NANOS_OF_DAY: u64 = 24 * 60 * 60 * 1_000_000_000;

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
    pub space: Space,
    /// The end of the segment that is written to.
    pub tail: Tail,
    pub head: Head,
    pub segment_size: u64,
    /// How often to look for space while nobody writes.
    pub look_for_space: Duration,
}

impl Committer {
    /// Serves requests until nobody can send any more.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            match timeout(self.look_for_space, requests.recv()).await {
                Err(_) => self.space.look(),
                Ok(None) => break,
                Ok(Some(first)) => {
                    self.serve(collect(first, &mut requests));
                    self.space.look();
                }
            }
        }
        if self.progress.check().is_ok()
            && let Err(error) = self.tail.finish()
        {
            // The next start cuts the zeros off.
            warn!(%error, "journal was not closed cleanly");
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

        let committed = self.progress.check().and_then(|()| self.commit(drafts));
        if let Err(failure) = committed
            && !matches!(failure, JournalError::Full { .. } | JournalError::Poisoned { .. })
        {
            error!(%failure, "journal failed and takes no more records");
            self.space.fail(failure.to_string());
            self.progress.failure.get_or_init(|| Arc::new(failure));
        }
        let full = sequence > self.head.sequence.get();
        for (last, done) in waiting {
            let answer = match self.progress.check() {
                Ok(()) if full => Err(JournalError::Full { dir: self.store.dir().to_owned() }),
                checked => checked.map(|()| last),
            };
            // Who has gone away meanwhile finds the record in the log.
            let _ = done.send(answer);
        }
    }

    fn commit(&mut self, drafts: Vec<Draft>) -> Result<(), JournalError> {
        let (batch, time) = (self.head.sequence.next(), now());
        if self.is_finished(time) {
            self.find_room(|this| this.rotate())?;
        }

        let (mut bytes, mut notes, mut head) = (Vec::new(), Vec::with_capacity(drafts.len()), self.head);
        head.time = time;
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

        let path = self.store.path(head.end.segment);
        self.find_room(|this| {
            let prepare = this.space.is_enough();
            this.tail.write(&bytes, prepare).map_err(JournalError::io("append to", &path))
        })?;
        // A failed sync is never tried again, not even for want of space.
        self.tail.sync().map_err(JournalError::io("sync", &path))?;
        self.head = head;
        self.progress.syncs.fetch_add(1, Ordering::Relaxed);
        self.progress.records.fetch_add(notes.len() as u64, Ordering::Relaxed);

        // Who gets an answer may look his record up at once. A failed index has said so itself; the log goes on.
        let _ = self.index.learn(&notes);
        self.durable.send_replace(head.sequence);
        Ok(())
    }

    /// Writes; on a full disk once more without the reserve.
    fn find_room(
        &mut self,
        mut write: impl FnMut(&mut Self) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        match write(self) {
            Err(error) if error.is_for_want_of_space() => {}
            written => return written,
        }
        if self.space.give_up_reserve() {
            match write(self) {
                Err(error) if error.is_for_want_of_space() => {}
                written => return written,
            }
        }
        Err(JournalError::Full { dir: self.store.dir().to_owned() })
    }

    /// Whether the segment is large enough, or the next record belongs to another day.
    fn is_finished(&self, now: u64) -> bool {
        let day = |time: u64| time / NANOS_OF_DAY;
        let is_empty = self.tail.end() <= HEADER_LEN as u64;
        let is_of_the_past = self.head.time > 0 && day(self.head.time) < day(now);
        !is_empty && (self.tail.end() >= self.segment_size || is_of_the_past)
    }

    fn rotate(&mut self) -> Result<(), JournalError> {
        let path = self.store.path(self.head.end.segment);
        self.tail.finish().map_err(JournalError::io("finish", &path))?;
        let first = self.head.sequence.next();
        let file = self.store.create(&Header { first, created: now(), previous: self.head.hash })?;
        self.head.end = Position { segment: first, offset: HEADER_LEN as u64 };
        self.tail = Tail::new(file, self.head.end.offset, self.segment_size);
        Ok(())
    }
}

/// What waits, up to the size of a batch.
fn collect(first: Request, requests: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let mut size = first.size();
    let mut batch = vec![first];
    while size < BATCH_BYTES
        && let Ok(request) = requests.try_recv()
    {
        size += request.size();
        batch.push(request);
    }
    batch
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
