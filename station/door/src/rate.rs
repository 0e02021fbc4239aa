//! How often somebody may do something: a bucket of tokens that fills at a steady rate. Time is passed in.

use std::{
    num::NonZeroU32,
    str::FromStr,
    time::{Duration, Instant},
};

/// So many in so long; as text `50/s`, `600/m` or `1000/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    period: Duration,
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be a rate such as \"50/s\", \"600/m\" or \"1000/h\"";
        let (count, period) = text.split_once('/').ok_or(FORM)?;
        let period = match period {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(FORM),
        };
        // FromStr would take a leading plus.
        if !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FORM);
        }
        Ok(Self { count: count.parse().map_err(|_| FORM)?, period: Duration::from_secs(period) })
    }
}

impl Rate {
    /// As many as come in a second, and one at least.
    pub fn of_a_second(self) -> NonZeroU32 {
        let seconds = u32::try_from(self.period.as_secs()).expect("an hour at most");
        NonZeroU32::new(self.count.get() / seconds).unwrap_or(NonZeroU32::MIN)
    }

    /// From one to the next.
    fn pause(self) -> Duration {
        self.period / self.count.get()
    }
}

/// What is left to somebody. Kept as the time at which the bucket will be full again (GCRA), so nothing has to tick.
#[derive(Debug, Clone)]
pub struct Bucket {
    pause: Duration,
    burst: u32,
    full_at: Option<Instant>,
}

impl Bucket {
    /// Full: `burst` may be taken at once, and `rate` from then on.
    pub fn new(rate: Rate, burst: NonZeroU32) -> Self {
        Self { pause: rate.pause(), burst: burst.get(), full_at: None }
    }

    /// Takes one at `now`.
    ///
    /// # Errors
    /// It is empty; there is one more after this time.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let missing = full_at.saturating_duration_since(now);
        let most = self.pause * (self.burst - 1);
        if missing > most {
            return Err(missing - most);
        }
        self.full_at = Some(full_at + self.pause);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rate_is_refused() {
        for bad in ["", "50", "/s", "0/s", "-1/s", "+1/s", "1/d", "1/s ", "4294967296/s", "1.5/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?}");
        }
        assert_eq!("50/s".parse::<Rate>().unwrap().of_a_second().get(), 50);
        assert_eq!("600/m".parse::<Rate>().unwrap().of_a_second().get(), 10);
        assert_eq!("1/h".parse::<Rate>().unwrap().of_a_second().get(), 1);
    }

    /// At these milliseconds one is taken, or the bucket says for how many more it is empty.
    fn check(rate: &str, burst: u32, steps: &[(u64, Result<(), u64>)]) {
        let mut bucket = Bucket::new(rate.parse().unwrap(), NonZeroU32::new(burst).unwrap());
        let start = Instant::now();
        for (at, expected) in steps {
            let taken = bucket.take(start + Duration::from_millis(*at));
            assert_eq!(taken, expected.map_err(Duration::from_millis), "at {at} ms");
        }
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_one_after_the_other() {
        check(
            "10/s",
            2,
            &[(0, Ok(())), (0, Ok(())), (0, Err(100)), (60, Err(40)), (100, Ok(())), (100, Err(100))],
        );
        check("10/s", 1, &[(0, Ok(())), (50, Err(50)), (100, Ok(())), (5000, Ok(())), (5000, Err(100))]);
        check("1/h", 1, &[(0, Ok(())), (0, Err(3_600_000))]);
    }
}
