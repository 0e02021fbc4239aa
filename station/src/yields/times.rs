//! How long something takes that is done again and again.

use std::time::Duration;

/// Durations of the same act.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The shortest for which `percent` of a hundred are no longer; zero where there are none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// The longest; zero where there are none.
    pub fn longest(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_percentile_is_the_least_that_so_many_do_not_exceed(
            millis in prop::collection::vec(0..1000_u64, 1..50), percent in 1..=100_usize
        ) {
            let mut times = Times::default();
            millis.iter().for_each(|took| times.add(Duration::from_millis(*took)));
            let is = times.percentile(percent);
            let within = |bound: Duration| {
                millis.iter().filter(|took| Duration::from_millis(**took) <= bound).count() * 100
            };
            prop_assert!(within(is) >= percent * millis.len());
            prop_assert!(is.is_zero() || within(is - Duration::from_millis(1)) < percent * millis.len());
            prop_assert_eq!(times.percentile(100), times.longest());
        }
    }

    #[test]
    fn nothing_takes_no_time() {
        assert_eq!(Times::default().percentile(50), Duration::ZERO);
        assert_eq!(Times::default().longest(), Duration::ZERO);
    }
}
