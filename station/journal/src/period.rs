//! Finds the records of a period of time. Knows nothing of how the index and the log are stored.
//!
//! A clock may be set back, so times need not rise with the sequence: the index names stretches of records that were
//! committed in the same minute, and what lies in them is read.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::error::JournalError;
use crate::index::{Index, minute_of};
use crate::record::{Entry, Record, Sequence};
use crate::store::{Frames, Store};

/// A walk over the records of a period, oldest first.
pub(crate) struct Period {
    store: Arc<Store>,
    index: Arc<Index>,
    /// Nanoseconds since 1970 UTC.
    times: Range<u64>,
    /// The last record to look at.
    until: Sequence,
    /// Where the stretches begin that were not walked yet.
    starts: VecDeque<Sequence>,
    /// The stretch that is walked.
    frames: Option<Frames>,
    /// Everything before it was looked at.
    next: Sequence,
}

impl Period {
    pub(crate) fn find(
        store: &Arc<Store>,
        index: &Arc<Index>,
        times: Range<u64>,
        records: RangeInclusive<Sequence>,
    ) -> Result<Self, JournalError> {
        let (next, until) = records.into_inner();
        let mut starts =
            if times.is_empty() { Vec::new() } else { index.stretches(times.start, times.end)? };
        // The first record may lie in the last stretch that begins before it.
        let before = starts.partition_point(|start| *start < next);
        if let Some(last) = before.checked_sub(1) {
            starts[last] = next;
        }
        let (store, index) = (Arc::clone(store), Arc::clone(index));
        Ok(Self { store, index, times, until, starts: starts.into(), frames: None, next })
    }

    /// The next record of the period.
    pub(crate) fn step<R: Record>(&mut self) -> Result<Option<Entry<R>>, JournalError> {
        let minutes = minute_of(self.times.start)..=minute_of(self.times.end);
        loop {
            let Some(mut frames) = self.frames.take() else {
                let Some(start) = self.starts.pop_front() else { return Ok(None) };
                if start >= self.next {
                    self.frames = Some(find_frames(&self.store, &self.index, start, self.until)?);
                }
                continue;
            };
            let Some((_, raw)) = frames.step()? else { continue };
            self.next = raw.frame.sequence.next();
            if !minutes.contains(&minute_of(raw.frame.time)) {
                continue;
            }
            self.frames = Some(frames);
            if self.times.contains(&raw.frame.time)
                && let Some(entry) = Entry::from_frame(&raw)?
            {
                return Ok(Some(entry));
            }
        }
    }
}

/// The records `from..=until`, both durable. Begins near them if the index knows the place.
pub(crate) fn find_frames(
    store: &Arc<Store>,
    index: &Index,
    from: Sequence,
    until: Sequence,
) -> Result<Frames, JournalError> {
    let landmark = index.landmark(from).ok().flatten();
    let near = landmark.and_then(|(landmark, position)| {
        store.resume(position, landmark, landmark).ok()?.step().ok()??;
        let mut frames = store.resume(position, landmark, until).ok()?;
        for _ in landmark.get()..from.get() {
            frames.step().ok()??;
        }
        Some(frames)
    });
    // Should the index mislead, the log itself decides.
    near.map_or_else(|| store.read(from, until), Ok)
}
