//! Whether this machine's clock can be believed: `time × clock → trouble`, pure.

use std::time::{Duration, SystemTime};

/// It may be set back by so much without anybody being told: that is what time servers do.
const TOLERANCE: Duration = Duration::from_secs(2);
/// No station of this kind was built before, 2026-01-01; a clock without a battery begins in 1970.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// The newest time that the clock has shown.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    newest: SystemTime,
}

impl Clock {
    /// It once showed this time.
    pub fn since(newest: Option<SystemTime>) -> Self {
        let earliest = SystemTime::UNIX_EPOCH + EARLIEST;
        Self { newest: newest.map_or(earliest, |newest| newest.max(earliest)) }
    }

    /// What is wrong with it, and what to do, when it shows `now`.
    pub fn look(&mut self, now: SystemTime) -> Option<String> {
        let behind = self.newest.duration_since(now).unwrap_or_default();
        self.newest = self.newest.max(now);
        let time = |time| humantime::format_rfc3339_seconds(time);
        (behind > TOLERANCE).then(|| {
            format!(
                "this machine's clock shows {}, and has shown {}; set it right, and see to its time server",
                time(now),
                time(self.newest)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_is_noticed_until_it_has_caught_up() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + EARLIEST + Duration::from_secs(seconds);
        let check = |newest: Option<u64>, shown: &[u64], wanted: &[bool]| {
            let mut clock = Clock::since(newest.map(at));
            let well: Vec<bool> = shown.iter().map(|seconds| clock.look(at(*seconds)).is_none()).collect();
            assert_eq!(well, wanted, "{shown:?} after {newest:?}");
        };
        check(None, &[0, 10, 10, 20], &[true; 4]);
        check(None, &[100, 98, 97, 90, 99, 100], &[true, true, false, false, true, true]);
        check(Some(50), &[40, 49, 60], &[false, true, true]);
        let mut clock = Clock::since(None);
        let trouble = clock.look(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(
            trouble,
            "this machine's clock shows 1970-01-01T00:00:00Z, and has shown 2026-01-01T00:00:00Z; set it right, and see \
             to its time server"
        );
    }
}
