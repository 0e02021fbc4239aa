//! When a nest is parked and when it is free again: `event × parking → parking`, pure. Knows no instrument and no clock.

/// So many units in a row may suffer from instruments that answer when they are only asked whether they do.
const LAST_STRAW: u8 = 3;

/// What is known of a nest's instruments, and so whether it takes units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parking {
    /// It takes units.
    Open {
        /// Units in a row that ended with an instrument's fault.
        faults: u8,
    },
    /// It takes none.
    Parked {
        /// Units in a row that had ended with an instrument's fault.
        faults: u8,
        /// What is wrong, and what to do.
        reason: String,
    },
}

/// What was learned of the instruments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// They did what a unit needed of them.
    Worked,
    /// A unit did not get what it needed of them.
    Failed(String),
    /// Asked whether they answer, they did.
    Answered,
    /// Asked whether they answer, one of them did not.
    Unanswered(String),
}

impl Default for Parking {
    /// Until something else is known, instruments are taken to work.
    fn default() -> Self {
        Self::Open { faults: 0 }
    }
}

impl Parking {
    /// What is known after this.
    pub fn after(self, news: News) -> Self {
        use Parking::{Open, Parked};
        let (Open { faults } | Parked { faults, .. }) = self;
        match (self, news) {
            (_, News::Worked) => Open { faults: 0 },
            (Open { .. }, News::Failed(reason)) if faults + 1 >= LAST_STRAW => {
                let reason =
                    format!("{LAST_STRAW} units in a row met an instrument's fault, the last: {reason}");
                Parked { faults: LAST_STRAW, reason }
            }
            (Open { .. }, News::Failed(_)) => Open { faults: faults + 1 },
            // A straw that broke it is not forgotten: the next fault parks the nest again.
            (Parked { .. }, News::Answered) => Open { faults: faults.min(LAST_STRAW - 1) },
            (open @ Open { .. }, News::Answered) => open,
            (_, News::Unanswered(reason)) => Parked { faults, reason },
            // A parked nest takes no units, so this is about one that was in it before.
            (parked @ Parked { .. }, News::Failed(_)) => parked,
        }
    }

    /// Why the nest takes no units; `None` when it takes them.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Open { .. } => None,
            Self::Parked { reason, .. } => Some(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// News by a letter: Worked, Failed, Answered, Unanswered.
    fn news(letter: char) -> News {
        match letter {
            'W' => News::Worked,
            'F' => News::Failed("the probe was lost".to_owned()),
            'A' => News::Answered,
            'U' => News::Unanswered("no probe; check its cable".to_owned()),
            other => unreachable!("no news has the letter {other:?}"),
        }
    }

    fn after(letters: &str) -> Parking {
        letters.chars().map(news).fold(Parking::default(), Parking::after)
    }

    #[test]
    fn a_nest_is_parked_by_an_instrument_that_does_not_answer_or_fails_three_units_in_a_row() {
        let check = |letters: &str, parked: Option<&str>| {
            let parking = after(letters);
            let as_said = match (parking.reason(), parked) {
                (Some(reason), Some(part)) => reason.contains(part),
                (reason, part) => reason.is_none() && part.is_none(),
            };
            assert!(as_said, "after {letters:?}: {parking:?}");
        };
        check("", None);
        check("A", None);
        check("U", Some("no probe; check its cable"));
        check("UU", Some("no probe"));
        check("UA", None);
        check("FAFA", None);
        check("FAFAF", Some("3 units in a row met an instrument's fault, the last: the probe was lost"));
        check("FAFAFU", Some("no probe"));
        check("FAFWFAFA", None);
        // It came back, and fails again at once.
        check("FAFAFAF", Some("3 units in a row"));
        check("FAFAFAWFAF", None);
        check("FU", Some("no probe"));
        check("UF", Some("no probe"));
    }

    proptest! {
        #[test]
        fn a_nest_is_free_after_good_news_and_never_after_an_instrument_that_did_not_answer(
            letters in "[WFAU]{0,12}"
        ) {
            let then = |more: &str| after(&(letters.clone() + more));
            prop_assert_eq!(then("W"), Parking::default());
            prop_assert!(then("A").reason().is_none());
            prop_assert!(then("U").reason().is_some());
            prop_assert!(then("FFF").reason().is_some());
        }

        #[test]
        fn a_nest_whose_instruments_answer_when_asked_is_parked_exactly_at_the_third_failure_in_a_row(
            letters in "[WFA]{0,12}"
        ) {
            let failures = letters.chars().filter(|letter| *letter != 'A').rev().take_while(|letter| *letter == 'F');
            let parked = letters.ends_with('F') && failures.count() >= 3;
            prop_assert_eq!(after(&letters).reason().is_some(), parked, "{}", letters);
        }
    }
}
