//! How long hosts have the reader: from the first byte that one sends until it has the last answer. The port does not
//! tell when it is opened and closed, so that a host is taken to be gone when nothing has come for a while.

use std::{
    mem,
    time::{Duration, Instant},
};

/// libnfc waits less between two commands, and a nest comes back later.
const QUIET: Duration = Duration::from_millis(500);

/// A count of hosts' visits.
#[derive(Debug, Default)]
pub struct Visits {
    /// Of the visits that are over.
    total: Duration,
    /// The newest one, as far as it is known.
    newest: Option<(Instant, Instant)>,
}

impl Visits {
    /// Something comes.
    pub fn begin(&mut self) {
        let now = Instant::now();
        match &mut self.newest {
            Some((_, end)) if now.duration_since(*end) < QUIET => *end = now,
            _ => {
                self.total += self.length();
                self.newest = Some((now, now));
            }
        }
    }

    /// It is answered.
    pub fn go_on(&mut self) {
        if let Some((_, end)) = &mut self.newest {
            *end = Instant::now();
        }
    }

    /// The time of all visits since this was asked last.
    pub fn take(&mut self) -> Duration {
        let total = mem::take(&mut self.total) + self.length();
        if let Some((begin, end)) = &mut self.newest {
            *begin = *end;
        }
        total
    }

    fn length(&self) -> Duration {
        self.newest.map_or(Duration::ZERO, |(begin, end)| end - begin)
    }
}
