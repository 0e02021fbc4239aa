//! How long a nest's simulators are at work: what is left of a unit's time is the station's.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A clock that runs while anything is at work. Clones are the same one.
#[derive(Clone, Default)]
pub struct Work(Arc<Mutex<Clock>>);

/// The time is handed in, so that what it counts can be told exactly.
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
        self.clock().begin(Instant::now());
        AtWork(self.clone())
    }

    /// The time in which something was at work since this was asked last.
    pub fn take(&self) -> Duration {
        self.clock().take(Instant::now())
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.clock().end(Instant::now());
    }
}

impl Clock {
    fn begin(&mut self, now: Instant) {
        self.at_work += 1;
        self.since.get_or_insert(now);
    }

    fn end(&mut self, now: Instant) {
        self.at_work -= 1;
        if self.at_work == 0
            && let Some(since) = self.since.take()
        {
            self.total += now.saturating_duration_since(since);
        }
    }

    fn take(&mut self, now: Instant) -> Duration {
        if let Some(since) = &mut self.since {
            self.total += now.saturating_duration_since(mem::replace(since, now));
        }
        mem::take(&mut self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_at_the_same_time_counts_once_and_what_is_asked_twice_is_told_once() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut clock = Clock::default();
        assert_eq!(clock.take(start), Duration::ZERO);
        clock.begin(start);
        clock.begin(start + ms(2));
        clock.end(start + ms(3));
        assert_eq!(clock.take(start + ms(5)), ms(5));
        assert_eq!(clock.take(start + ms(5)), Duration::ZERO);
        clock.end(start + ms(6));
        // Nothing is at work here.
        clock.begin(start + ms(10));
        clock.end(start + ms(14));
        assert_eq!(clock.take(start + ms(20)), ms(1) + ms(4));
        assert_eq!(clock.take(start + ms(30)), Duration::ZERO);
    }

    #[test]
    fn a_unit_of_work_ends_when_it_is_dropped() {
        let work = Work::default();
        let (first, second) = (work.begin(), work.begin());
        drop(first);
        assert!(work.clock().since.is_some());
        drop(second);
        let clock = work.clock();
        assert_eq!((clock.at_work, clock.since), (0, None));
    }
}
