//! How long a nest's simulators are at work: what is left of a unit's time is the station's.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A clock that runs while anything is at work. Clones are the same one.
#[derive(Clone, Default)]
pub struct Work(Arc<Mutex<Clock>>);

#[derive(Default)]
struct Clock {
    at_work: usize,
    since: Option<Instant>,
    total: Duration,
}

/// Something is at work for as long as this lives.
pub struct AtWork(Work);

impl Work {
    /// Something begins.
    pub fn begin(&self) -> AtWork {
        let mut clock = self.clock();
        clock.at_work += 1;
        clock.since.get_or_insert_with(Instant::now);
        AtWork(self.clone())
    }

    /// The time in which something was at work since this was asked last.
    pub fn take(&self) -> Duration {
        let mut clock = self.clock();
        if let Some(since) = &mut clock.since {
            let begun = mem::replace(since, Instant::now());
            clock.total += begun.elapsed();
        }
        mem::take(&mut clock.total)
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut clock = self.0.clock();
        clock.at_work -= 1;
        if clock.at_work == 0
            && let Some(since) = clock.since.take()
        {
            clock.total += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_at_the_same_time_counts_once_and_what_is_asked_twice_is_told_once() {
        let work = Work::default();
        assert_eq!(work.take(), Duration::ZERO);
        let (begun, first) = (Instant::now(), work.begin());
        let second = work.begin();
        drop(first);
        while begun.elapsed() < Duration::from_millis(1) {}
        drop(second);
        let (total, gone) = (work.take(), begun.elapsed());
        assert!(Duration::from_millis(1) <= total && total <= gone, "{total:?} of {gone:?}");
        assert_eq!(work.take(), Duration::ZERO);
    }
}
