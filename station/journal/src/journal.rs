//! The journal as others use it: append, read, follow, look up. Knows nothing of bytes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::iter;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use crate::committer::{Committer, Draft, Progress, Request, Statistics, nanos, now};
use crate::compaction::{self, Compaction};
use crate::error::JournalError;
use crate::follower::Follower;
use crate::index::{Content, Index, Topic};
use crate::period::{Period, find_frames};
use crate::reader::Position;
use crate::record::{Cursor, Entry, Record, Sequence};
use crate::recovery::{Head, settle, verify};
use crate::reindex::{catch_up, open_index};
use crate::segment::{HEADER_LEN, Hash, Header, MAX_PAYLOAD};
use crate::space::{Room, Space};
use crate::store::{Frames, Store, sync_dir};
use crate::tail::Tail;

/// Requests that may wait for the committer before the next one has to wait for its place.
const QUEUE: usize = 256;

const CURSOR_VERSION: u8 = 1;

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment that has reached this many bytes is closed, and the next one begun.
    pub segment_size: u64,
    /// So many bytes are kept back, and given up when the disk is full; 0 for none.
    pub reserve: u64,
    /// Room is low when the filesystem has fewer bytes free than this.
    pub low_space: u64,
    /// How often to look for space while nobody writes.
    pub look_for_space: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_size: 16 << 20,
            reserve: 32 << 20,
            low_space: 128 << 20,
            look_for_space: Duration::from_secs(5),
        }
    }
}

/// An open journal of records `R`. Clones are the same journal; it is closed with the last of them.
pub struct Journal<R> {
    shared: Arc<Shared>,
    record: PhantomData<fn() -> R>,
}

struct Shared {
    store: Arc<Store>,
    index: Arc<Index>,
    progress: Arc<Progress>,
    durable: watch::Receiver<Sequence>,
    room: watch::Receiver<Room>,
    /// Held by the one compaction that may run.
    compaction: Mutex<()>,
    cursors: Mutex<BTreeMap<String, Sequence>>,
    /// Both are there until the journal is closed.
    requests: Option<mpsc::Sender<Request>>,
    committer: Option<thread::JoinHandle<()>>,
    /// Held as long as the journal is open.
    _lock: File,
}

impl<R: Record> Journal<R> {
    /// Opens the journal in `dir`, or begins one. Verifies every live record first, and that the archive
    /// leads up to them. Blocks.
    ///
    /// # Errors
    /// It is in use; it is damaged, or lost what was acknowledged (then nothing was changed); the system refuses
    /// something.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, JournalError> {
        let dir = dir.as_ref();
        Self::open_locked(lock(dir)?, dir, options)
    }

    /// Opens the journal in `dir` with an index that is made anew, whatever the old one remembers. Blocks.
    ///
    /// # Errors
    /// As with [`Journal::open`], but that acknowledged records are missing is not known any more; and where there is
    /// no journal.
    pub fn rebuild_index(dir: impl AsRef<Path>, options: Options) -> Result<Self, JournalError> {
        let dir = dir.as_ref();
        let lock = lock_existing(dir)?;
        compaction::settle(dir)?;
        // A damaged log teaches no index; then the old one may still be of use.
        verify(&Store::list(dir)?)?;
        Index::remove(&dir.join("index"))?;
        Self::open_locked(lock, dir, options)
    }

    fn open_locked(lock: File, dir: &Path, options: Options) -> Result<Self, JournalError> {
        compaction::settle(dir)?;
        let store = Arc::new(Store::list(dir)?);
        let verified = verify(&store)?;
        let index =
            Arc::new(open_index::<R>(&dir.join("index"), &store, verified.as_ref().map(|log| log.head))?);
        let (head, file) = match verified {
            Some(log) => (log.head, settle(&store, &log)?),
            None => begin(&store)?,
        };
        catch_up::<R>(&index, &store, head.sequence)?;

        let space = Space::find(dir, options.reserve, options.low_space);
        let room = space.watch();
        let progress = Arc::new(Progress::default());
        let cursors = Mutex::new(index.cursors()?);
        let (durable_sender, durable) = watch::channel(head.sequence);
        let (requests, queue) = mpsc::channel(QUEUE);
        let committer = Committer {
            store: Arc::clone(&store),
            index: Arc::clone(&index),
            progress: Arc::clone(&progress),
            durable: durable_sender,
            tail: Tail::new(file, head.end.offset, options.segment_size),
            space,
            head,
            segment_size: options.segment_size,
            look_for_space: options.look_for_space,
        };
        let start = || JournalError::io("start the committer of", dir);
        let runtime = runtime::Builder::new_current_thread().enable_time().build().map_err(start())?;
        let thread = thread::Builder::new().name("journal".to_owned());
        let committer = thread.spawn(move || runtime.block_on(committer.run(queue))).map_err(start())?;

        let (requests, committer) = (Some(requests), Some(committer));
        let compaction = Mutex::new(());
        let shared = Shared {
            store,
            index,
            progress,
            durable,
            room,
            compaction,
            cursors,
            requests,
            committer,
            _lock: lock,
        };
        Ok(Self { shared: Arc::new(shared), record: PhantomData })
    }

    /// Adds a record; it is durable when this returns.
    ///
    /// Dropped while it waits, the record may still be committed.
    ///
    /// # Errors
    /// The record is too large or cannot be encoded; or this or an earlier write failed, and the journal takes
    /// nothing more.
    pub async fn append(&self, record: R) -> Result<Sequence, JournalError> {
        self.append_all(vec![record]).await
    }

    /// Adds several records in one batch, with one sync; gives the sequence of the last. They follow each other
    /// without a gap and are durable when this returns. Of no records at all, gives [`Journal::last`].
    ///
    /// Who crashes before the answer may find the first few of them in the log and not the rest.
    ///
    /// # Errors
    /// As with [`Journal::append`]; then none of them was committed, unless the failure was that of the disk.
    pub async fn append_all(&self, records: Vec<R>) -> Result<Sequence, JournalError> {
        if records.is_empty() {
            return Ok(self.last());
        }
        let drafts = records.iter().map(draft).collect::<Result<_, _>>()?;
        let (done, answer) = oneshot::channel();
        let request = Request { drafts, done: Some(done) };
        self.shared.requests().send(request).await.map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }

    /// The durable records from `from` on, oldest first. Blocks while it reads; ends at the first error in the log.
    pub fn read(&self, from: Sequence) -> impl Iterator<Item = Result<Entry<R>, JournalError>> {
        let Shared { store, index, .. } = &*self.shared;
        let (mut frames, mut failure) = match find_frames(store, index, from, self.last()) {
            Ok(frames) => (Some(frames), None),
            Err(failure) => (None, Some(Err(failure))),
        };
        iter::from_fn(move || failure.take().or_else(|| next_entry(frames.as_mut()?).transpose()))
    }

    /// Hands out the records from `from` on, and waits for those to come. Needs a tokio runtime.
    pub fn follow(&self, from: Sequence) -> Follower<R> {
        Follower::new(Arc::clone(&self.shared.store), self.shared.durable.clone(), from)
    }

    /// One record; `None` where there is none of yours. Blocks.
    ///
    /// # Errors
    /// Reading fails.
    pub fn get(&self, sequence: Sequence) -> Result<Option<Entry<R>>, JournalError> {
        let last = self.last();
        if sequence == Sequence::START || sequence > last {
            return Ok(None);
        }
        let Shared { store, index, .. } = &*self.shared;
        let found = find_frames(store, index, sequence, sequence)?.step()?.map(|(_, raw)| raw);
        let found = found.filter(|raw| raw.frame.sequence == sequence);
        found.map_or(Ok(None), |raw| Entry::from_frame(&raw))
    }

    /// The newest record; `None` where there is none of yours. Blocks.
    ///
    /// # Errors
    /// Reading fails.
    pub fn newest(&self) -> Result<Option<Entry<R>>, JournalError> {
        // Those of the journal's own stand between.
        let backwards = (1..=self.last().get()).rev().map(|sequence| self.get(sequence.into()));
        backwards.filter_map(Result::transpose).next().transpose()
    }

    /// The records about a unit, oldest first. Blocks.
    ///
    /// # Errors
    /// Reading fails.
    pub fn by_unit(&self, unit: &str) -> Result<Vec<Sequence>, JournalError> {
        self.find(Topic::Unit, unit)
    }

    /// The records of a run, oldest first. Blocks.
    ///
    /// # Errors
    /// Reading fails.
    pub fn by_run(&self, run: &str) -> Result<Vec<Sequence>, JournalError> {
        self.find(Topic::Run, run)
    }

    /// The records of a work order, oldest first. Blocks.
    ///
    /// # Errors
    /// Reading fails.
    pub fn by_order(&self, order: &str) -> Result<Vec<Sequence>, JournalError> {
        self.find(Topic::Order, order)
    }

    /// The records that tell of a mark, oldest first. Blocks.
    ///
    /// # Errors
    /// Reading fails.
    pub fn by_mark(&self, mark: &str) -> Result<Vec<Sequence>, JournalError> {
        self.find(Topic::Mark, mark)
    }

    /// What the index says; where it has failed, what the log says, which takes longer.
    fn find(&self, topic: Topic, key: &str) -> Result<Vec<Sequence>, JournalError> {
        match self.shared.index.find(topic, key) {
            Err(JournalError::Index { .. }) => {}
            found => return found,
        }
        let mut found = Vec::new();
        for entry in self.read(Sequence::START) {
            let entry = entry?;
            if topic.of(&entry.record.keys()).any(|known| known == key) {
                found.push(entry.sequence);
            }
        }
        Ok(found)
    }

    /// The records committed from `from` on and before `until`, by this machine's clock, oldest sequence first.
    /// Reads little more than these. Blocks while it reads; ends at the first error in the log.
    ///
    /// # Errors
    /// Reading fails.
    pub fn by_time(
        &self,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<impl Iterator<Item = Result<Entry<R>, JournalError>>, JournalError> {
        self.by_time_from(Sequence::START, from, until)
    }

    /// Of the records of a period, those from `begin` on; else as [`Journal::by_time`].
    ///
    /// # Errors
    /// Reading fails.
    pub fn by_time_from(
        &self,
        begin: Sequence,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<impl Iterator<Item = Result<Entry<R>, JournalError>>, JournalError> {
        let Shared { store, index, .. } = &*self.shared;
        let mut period = Period::find(store, index, nanos(from)..nanos(until), begin..=self.last())?;
        Ok(iter::from_fn(move || period.step().transpose()))
    }

    /// How far a receiver got: the last sequence it acknowledged, [`Sequence::START`] for a new one.
    pub fn cursor(&self, receiver: &str) -> Sequence {
        self.shared.cursors().get(receiver).copied().unwrap_or(Sequence::START)
    }

    /// Moves a receiver's cursor up to `sequence`; never back.
    ///
    /// The move is written in the log but not waited for: after a crash the cursor may stand where it stood a
    /// moment before, and the receiver gets some records again.
    ///
    /// # Errors
    /// There is no such record yet; or the journal takes nothing more.
    pub async fn advance(&self, receiver: &str, sequence: Sequence) -> Result<(), JournalError> {
        let last = self.last();
        if sequence > last {
            return Err(JournalError::AheadOfLog { receiver: receiver.to_owned(), sequence, last });
        }
        let cursor = Cursor { receiver: receiver.to_owned(), sequence };
        let payload = encode(&cursor)?;
        let place = self.shared.requests().reserve().await.map_err(|_| JournalError::Closed)?;
        self.shared.progress.check()?;

        // Moves reach the log in the order in which they are made here.
        let mut cursors = self.shared.cursors();
        let stands = cursors.entry(cursor.receiver.clone()).or_insert(Sequence::START);
        if *stands < sequence {
            *stands = sequence;
            let draft = Draft { payload, version: CURSOR_VERSION, content: Content::Cursor(cursor) };
            place.send(Request { drafts: vec![draft], done: None });
        }
        Ok(())
    }

    /// Moves the closed segments that all of these receivers have acknowledged to the archive; without any receivers,
    /// all closed segments. Every record can be read as before. Blocks.
    ///
    /// # Errors
    /// A segment is damaged or the system refuses something; then what was not archived is where it was.
    pub fn compact(&self, receivers: &[&str]) -> Result<Compaction, JournalError> {
        let acknowledged = receivers.iter().map(|receiver| self.cursor(receiver)).min();
        let _running = self.shared.compaction.lock().unwrap_or_else(PoisonError::into_inner);
        compaction::compact(&self.shared.store, acknowledged.unwrap_or(self.last()))
    }

    /// Whether the disk has room for the records that new work would bring.
    pub fn room(&self) -> watch::Receiver<Room> {
        self.shared.room.clone()
    }

    /// The last durable sequence, [`Sequence::START`] in an empty journal.
    pub fn last(&self) -> Sequence {
        *self.shared.durable.borrow()
    }

    /// What the journal has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        self.shared.progress.statistics()
    }
}

impl<R> Clone for Journal<R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), record: PhantomData }
    }
}

impl Shared {
    fn requests(&self) -> &mpsc::Sender<Request> {
        self.requests.as_ref().expect("requests are taken only when nobody is left to ask for them")
    }

    fn cursors(&self) -> MutexGuard<'_, BTreeMap<String, Sequence>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    /// Lets the committer finish what was accepted, so that whoever opens the journal next finds it.
    fn drop(&mut self) {
        self.requests.take();
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            error!("journal committer panicked");
        }
    }
}

/// Takes a journal that is there for this process alone.
pub(crate) fn lock_existing(dir: &Path) -> Result<File, JournalError> {
    if !dir.is_dir() || Store::list(dir)?.segments().is_empty() {
        return Err(JournalError::Nothing { dir: dir.to_owned() });
    }
    lock(dir)
}

/// Makes the directory, durably, and takes it for this process alone.
pub(crate) fn lock(dir: &Path) -> Result<File, JournalError> {
    fs::create_dir_all(dir).map_err(JournalError::io("create", dir))?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent).map_err(JournalError::io("sync", parent))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.map_err(JournalError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(JournalError::io("lock", &path)(source)),
    }
}

/// Begins the log with an empty segment.
fn begin(store: &Store) -> Result<(Head, File), JournalError> {
    let (first, previous) = (Sequence::START.next(), Hash::default());
    let file = store.create(&Header { first, created: now(), previous })?;
    let end = Position { segment: first, offset: HEADER_LEN as u64 };
    Ok((Head { sequence: Sequence::START, hash: previous, time: 0, end }, file))
}

fn draft<R: Record>(record: &R) -> Result<Draft, JournalError> {
    let content = Content::Record(record.keys());
    Ok(Draft { payload: encode(record)?, version: R::VERSION, content })
}

fn encode(value: &impl minicbor::Encode<()>) -> Result<Vec<u8>, JournalError> {
    let payload = minicbor::to_vec(value).map_err(|source| JournalError::Encode { source })?;
    if payload.len() > MAX_PAYLOAD {
        return Err(JournalError::TooLarge { size: payload.len() });
    }
    Ok(payload)
}

fn next_entry<R: Record>(frames: &mut Frames) -> Result<Option<Entry<R>>, JournalError> {
    while let Some((_, raw)) = frames.step()? {
        if let Some(entry) = Entry::from_frame(&raw)? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}
