//! Which of the line's controllers is used: `news × standing → standing`, pure; time from outside.
//!
//! The list is a ring. The one in use stays in use until it does not answer; then it is the next one's turn. The first is
//! preferred only so far: when another has been in use for [`HOMESICK`], the first is asked whether it answers again,
//! and used again if it does. So a controller that comes and goes cannot make the station swing between two.

use std::time::Duration;

use tokio::time::Instant;

/// Long enough for a restart and what follows it, short enough for a shift to end where it began.
pub const HOMESICK: Duration = Duration::from_secs(600);

/// What is known of the controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    in_use: usize,
    since: Instant,
    /// Of each, why it did not answer last; `None` if it did, and before it was asked.
    troubles: Vec<Option<String>>,
}

impl Standing {
    /// Of so many controllers, at least one, nothing is known.
    pub fn new(controllers: usize, now: Instant) -> Self {
        Self { in_use: 0, since: now, troubles: vec![None; controllers] }
    }

    /// The one that is used.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// Why this one did not answer last.
    pub fn trouble(&self, which: usize) -> Option<&str> {
        self.troubles[which].as_deref()
    }

    /// Whether the one in use answered last, or was not asked yet.
    pub fn is_well(&self) -> bool {
        self.trouble(self.in_use).is_none()
    }

    /// Whether it is time to see whether the first answers again.
    pub fn first_is_due(&self, now: Instant) -> bool {
        self.in_use != 0 && now.duration_since(self.since) >= HOMESICK
    }

    /// This one did not answer. Says whether there is news in that.
    pub fn failed(&mut self, which: usize, trouble: String, now: Instant) -> bool {
        let before = self.clone();
        self.troubles[which] = Some(trouble);
        if which == self.in_use {
            self.use_instead((which + 1) % self.troubles.len(), now);
        } else if which == 0 && self.first_is_due(now) {
            // It had its chance; the next one comes as late.
            self.since = now;
        }
        *self != before
    }

    /// This one answered. Says whether there is news in that.
    pub fn answered(&mut self, which: usize, now: Instant) -> bool {
        let before = self.clone();
        self.troubles[which] = None;
        if !self.is_well() || (which == 0 && self.first_is_due(now)) {
            self.use_instead(which, now);
        }
        *self != before
    }

    fn use_instead(&mut self, which: usize, now: Instant) {
        if which != self.in_use {
            (self.in_use, self.since) = (which, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// News by letters: `a` `b` `c` a controller failed, `A` `B` `C` it answered, `+` half of [`HOMESICK`] passes.
    fn after(letters: &str) -> Standing {
        let mut now = Instant::now();
        let mut standing = Standing::new(3, now);
        for letter in letters.chars() {
            match letter {
                'a'..='c' => drop(standing.failed(letter as usize - 'a' as usize, "gone".to_owned(), now)),
                'A'..='C' => drop(standing.answered(letter as usize - 'A' as usize, now)),
                _ => now += HOMESICK / 2,
            }
        }
        standing
    }

    #[test]
    fn the_one_in_use_stays_until_it_fails_and_the_first_comes_back_late() {
        let check = |letters: &str, in_use: usize| assert_eq!(after(letters).in_use(), in_use, "{letters:?}");
        check("", 0);
        check("A++A", 0);
        check("a", 1);
        check("aB", 1);
        check("ab", 2);
        check("abc", 0);
        // Word of one that is not used changes nothing.
        check("b", 0);
        check("aBc", 1);
        // All are gone; whoever answers first is used.
        check("abcC", 2);
        check("abcB", 1);
        // The first is not used again just because it answers,
        check("aBA", 1);
        check("aB+A", 1);
        // but after a long time, or when the others are gone.
        check("aB++A", 0);
        check("aBb", 2);
        check("aBbCc", 0);
        // One that does not answer then is left alone for as long again.
        check("aB++aA", 1);
        check("aB++a+A", 1);
        check("aB++a++A", 0);
    }

    #[test]
    fn a_station_with_one_controller_uses_it_whatever_happens() {
        let now = Instant::now();
        let mut standing = Standing::new(1, now);
        assert!(standing.failed(0, "gone".to_owned(), now));
        assert_eq!((standing.in_use(), standing.is_well()), (0, false));
        assert!(standing.answered(0, now));
        assert!(!standing.answered(0, now), "the same again is no news");
        assert_eq!((standing.in_use(), standing.is_well()), (0, true));
    }

    proptest! {
        #[test]
        fn a_controller_that_answers_is_used_whenever_it_is_the_only_one_that_does(letters in "[a-cA-C+]{0,20}") {
            let standing = after(&(letters + "acB"));
            prop_assert!(standing.in_use() == 1 && standing.is_well(), "{:?}", standing);
        }
    }
}
