//! How much somebody may do: connections, calls at a time, and calls in a time, whichever connections they come by.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rate::{Bucket, Rate};

/// Too many calls at a time: one of them will soon have ended.
const SOON: Duration = Duration::from_millis(100);

/// What an allowance is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How often it may call, and how many calls it may save up; `None`: as often as it likes.
    pub calls: Option<(Rate, NonZeroU32)>,
    /// Calls under way at a time; a stream is one for as long as it lasts.
    pub at_a_time: usize,
    /// Connections at a time.
    pub connections: usize,
}

/// What is left to somebody.
#[derive(Debug)]
pub struct Allowance {
    calls: Option<Mutex<Bucket>>,
    at_a_time: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    turned_away: AtomicU64,
}

/// A place that is taken, until all its clones are dropped.
#[derive(Debug, Clone)]
pub struct Place(#[expect(dead_code, reason = "it is given back when dropped")] Arc<OwnedSemaphorePermit>);

/// Why a call is not let through at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch {
    /// Worth trying again after this.
    pub after: Duration,
}

impl Allowance {
    /// All of it.
    pub fn new(limits: &Limits) -> Self {
        Self {
            calls: limits.calls.map(|(rate, burst)| Mutex::new(Bucket::new(rate, burst))),
            at_a_time: Arc::new(Semaphore::new(limits.at_a_time)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            turned_away: AtomicU64::new(0),
        }
    }

    /// Begins a call, which lasts as long as the place.
    ///
    /// # Errors
    /// It has called too often, or has too many calls under way.
    pub fn begin_call(&self, now: Instant) -> Result<Place, TooMuch> {
        self.try_begin(now).inspect_err(|_| self.turn_away())
    }

    fn try_begin(&self, now: Instant) -> Result<Place, TooMuch> {
        // First, so that what is refused does not count as a call.
        let place = take(&self.at_a_time).ok_or(TooMuch { after: SOON })?;
        if let Some(calls) = &self.calls {
            let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.take(now).map_err(|after| TooMuch { after })?;
        }
        Ok(place)
    }

    /// Counts a call that nobody will hear of one by one.
    pub fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// How many calls were turned away since this was asked last.
    pub fn take_turned_away(&self) -> u64 {
        self.turned_away.swap(0, Ordering::Relaxed)
    }

    /// Begins a connection, which lasts as long as the place; `None` where there are too many.
    pub fn begin_connection(&self) -> Option<Place> {
        take(&self.connections)
    }
}

fn take(places: &Arc<Semaphore>) -> Option<Place> {
    places.clone().try_acquire_owned().ok().map(|permit| Place(Arc::new(permit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_calls_than_allowed_wait_for_others_to_end() {
        let allowance = Allowance::new(&Limits { calls: None, at_a_time: 3, connections: 1 });
        let now = Instant::now();
        let mut under_way: Vec<_> = (0..3).map(|_| allowance.begin_call(now).unwrap()).collect();
        assert_eq!(allowance.begin_call(now).unwrap_err(), TooMuch { after: SOON });
        // A clone is the same place.
        let clone = under_way.pop().unwrap().clone();
        drop(clone);
        assert!(allowance.begin_call(now).is_ok());
    }

    #[test]
    fn a_call_that_is_refused_for_its_rate_leaves_its_place() {
        let calls = Some(("1/s".parse().unwrap(), NonZeroU32::MIN));
        let allowance = Allowance::new(&Limits { calls, at_a_time: 2, connections: 1 });
        let now = Instant::now();
        let _first = allowance.begin_call(now).unwrap();
        for _ in 0..9 {
            assert_eq!(allowance.begin_call(now).unwrap_err(), TooMuch { after: Duration::from_secs(1) });
        }
        assert!(allowance.begin_call(now + Duration::from_secs(1)).is_ok());
    }
}
