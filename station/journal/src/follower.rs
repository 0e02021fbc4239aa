//! Waits for records and hands them out in order. Reads the files, so a slow follower costs no memory.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::error::JournalError;
use crate::reader::Position;
use crate::record::{Entry, Record, Sequence};
use crate::store::{Frames, Store};

/// A chunk of records is read at once; it ends with the record that exceeds this.
const CHUNK_BYTES: usize = 256 << 10;

/// One reader of a journal that waits at its end for more.
pub struct Follower<R> {
    store: Arc<Store>,
    durable: watch::Receiver<Sequence>,
    place: Place,
    ready: VecDeque<Entry<R>>,
}

/// Where to read on.
#[derive(Clone, Copy)]
struct Place {
    next: Sequence,
    /// Unknown before the first read.
    position: Option<Position>,
}

impl<R: Record> Follower<R> {
    pub(crate) fn new(store: Arc<Store>, durable: watch::Receiver<Sequence>, next: Sequence) -> Self {
        // There is no record 0, and waiting for it would wait for nothing.
        let place = Place { next: next.max(Sequence::START.next()), position: None };
        Self { store, durable, place, ready: VecDeque::new() }
    }

    /// The next record, as soon as it is durable.
    ///
    /// May be dropped while it waits: no record is lost by that.
    ///
    /// # Errors
    /// [`JournalError::Closed`] once the journal is closed and everything in it was handed out, else what reading
    /// said; the next call tries the same record again.
    pub async fn next(&mut self) -> Result<Entry<R>, JournalError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(entry);
            }
            self.read().await?;
        }
    }

    /// The next record, unless it is behind `until`: `None` once all up to there were handed out. Waits for none when
    /// `until` is durable.
    ///
    /// May be dropped like [`Follower::next`].
    ///
    /// # Errors
    /// As with [`Follower::next`].
    pub async fn next_until(&mut self, until: Sequence) -> Result<Option<Entry<R>>, JournalError> {
        loop {
            if let Some(entry) = self.ready.pop_front_if(|entry| entry.sequence <= until) {
                return Ok(Some(entry));
            }
            if !self.ready.is_empty() || self.place.next > until {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    /// Waits for more, and reads some of it.
    async fn read(&mut self) -> Result<(), JournalError> {
        let next = self.place.next;
        let until =
            *self.durable.wait_for(|durable| next <= *durable).await.map_err(|_| JournalError::Closed)?;
        let (store, place) = (Arc::clone(&self.store), self.place);
        let read = spawn_blocking(move || read_chunk(&store, place, until)).await;
        (self.ready, self.place) = read.map_err(|_| JournalError::Closed)??;
        Ok(())
    }
}

fn read_chunk<R: Record>(
    store: &Arc<Store>,
    mut place: Place,
    until: Sequence,
) -> Result<(VecDeque<Entry<R>>, Place), JournalError> {
    let mut frames = match place.position {
        Some(position) => store.resume(position, place.next, until)?,
        None => store.read(place.next, until)?,
    };
    let (mut entries, mut size) = (VecDeque::new(), 0);
    while size < CHUNK_BYTES {
        match read_one(&mut frames) {
            Ok(Some((entry, length, after))) => {
                entries.extend(entry);
                size += length;
                place = after;
            }
            Ok(None) => break,
            // What came before it is handed out first; the next call meets the error again.
            Err(_) if !entries.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok((entries, place))
}

type One<R> = (Option<Entry<R>>, usize, Place);

fn read_one<R: Record>(frames: &mut Frames) -> Result<Option<One<R>>, JournalError> {
    let Some((_, raw)) = frames.step()? else { return Ok(None) };
    let entry = Entry::from_frame(&raw)?;
    let after = Place { next: raw.frame.sequence.next(), position: frames.position() };
    Ok(Some((entry, raw.body.len(), after)))
}
