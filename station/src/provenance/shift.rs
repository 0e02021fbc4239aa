//! When a shift ends: times of the day, in UTC, so that no clock change makes a day with two of them.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const DAY: u64 = 24 * 3600;

/// A time of the day, to the minute, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShiftEnd {
    minutes: u16,
}

impl ShiftEnd {
    const fn at(hours: u16) -> Self {
        Self { minutes: hours * 60 }
    }

    /// Three shifts of eight hours.
    pub const USUAL: [Self; 3] = [Self::at(6), Self::at(14), Self::at(22)];

    /// The first time after `now` that the clock shows it.
    fn after(self, now: SystemTime) -> SystemTime {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let today = since / DAY * DAY + u64::from(self.minutes) * 60;
        let next = if today > since { today } else { today + DAY };
        UNIX_EPOCH + Duration::from_secs(next)
    }

    /// The last time up to `now` that the clock has shown it.
    fn before(self, now: SystemTime) -> SystemTime {
        self.after(now) - Duration::from_secs(DAY)
    }
}

/// When the shift began that lasts `now`: with the last end up to then; `None` where no shift ever ends.
pub fn begin(ends: &[ShiftEnd], now: SystemTime) -> Option<SystemTime> {
    ends.iter().map(|end| end.before(now)).max()
}

/// The next of these after `now`; `None` of none.
pub fn next(ends: &[ShiftEnd], now: SystemTime) -> Option<SystemTime> {
    ends.iter().map(|end| end.after(now)).min()
}

impl fmt::Display for ShiftEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

impl FromStr for ShiftEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |digits: &str, below: u16| {
            let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u16>().ok().filter(|number| plain && *number < below)
        };
        text.split_once(':')
            .and_then(|(hours, minutes)| Some((parse(hours, 24)?, parse(minutes, 60)?)))
            .map(|(hours, minutes)| Self { minutes: hours * 60 + minutes })
            .ok_or_else(|| format!("{text:?} is no time of the day in UTC, such as \"06:00\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_day_has_two_digits_for_hours_and_minutes() {
        for text in ["00:00", "06:00", "14:30", "23:59"] {
            assert_eq!(text.parse::<ShiftEnd>().unwrap().to_string(), text);
        }
        for text in ["", "6:00", "24:00", "12:60", "12:5", "12", "+1:00", "12:00:00", " 6:00"] {
            assert!(text.parse::<ShiftEnd>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_next_end_of_a_shift_is_behind_now_and_at_most_a_day_away() {
        let check = |now: u64, expected: Option<u64>, ends: &[ShiftEnd]| {
            let found = next(ends, UNIX_EPOCH + Duration::from_secs(now));
            assert_eq!(found, expected.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)), "{now}");
        };
        let usual = &ShiftEnd::USUAL;
        check(0, Some(6 * 3600), usual);
        check(6 * 3600 - 1, Some(6 * 3600), usual);
        check(6 * 3600, Some(14 * 3600), usual);
        check(22 * 3600, Some(DAY + 6 * 3600), usual);
        check(10 * DAY + 15 * 3600, Some(10 * DAY + 22 * 3600), usual);
        check(0, None, &[]);
    }

    #[test]
    fn a_shift_begins_with_the_end_of_the_one_before() {
        let check = |now: u64, expected: u64| {
            let found = begin(&ShiftEnd::USUAL, UNIX_EPOCH + Duration::from_secs(now));
            assert_eq!(found, Some(UNIX_EPOCH + Duration::from_secs(expected)), "{now}");
        };
        check(6 * 3600, 6 * 3600);
        check(14 * 3600 - 1, 6 * 3600);
        check(14 * 3600, 14 * 3600);
        check(DAY, 22 * 3600);
        check(DAY + 6 * 3600 - 1, 22 * 3600);
        assert_eq!(begin(&[], UNIX_EPOCH), None);
    }
}
