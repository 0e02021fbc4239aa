//! What a unit went through at this station, as far as it decides on its next run: `record × history → history`, pure.
//!
//! A run **counts** when it ended with PASS or FAIL: what the station, an instrument or a person broke off says nothing
//! of the product. **Rework** changes a unit, a **retest** does not.

use factory_proto::outcome::Outcome;

use crate::record::Record;

/// What is known of a unit before a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Past {
    /// No run of it counted.
    #[default]
    New,
    /// Its last run that counted failed; it was not reworked since.
    Failed,
    /// Its last run that counted passed.
    Passed,
    /// It was reworked after its last run that counted.
    Reworked,
}

/// What a unit went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// How its last counting run ended, and whether it was reworked since.
    pub past: Past,
    /// Counting runs of it as it was, after one that had failed: since it came, was reworked, or was released.
    pub retests: u32,
}

impl History {
    /// Takes in one more record that is about the unit.
    pub fn learn(&mut self, record: &Record) {
        match record {
            Record::RunClosed(closed) if closed.opened.golden.is_none() => self.close(closed.outcome),
            Record::UnitReleased(released) => {
                self.retests = 0;
                if released.reworked && self.past != Past::New {
                    self.past = Past::Reworked;
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, outcome: Outcome) {
        let past = match outcome {
            Outcome::Pass => Past::Passed,
            Outcome::Fail => Past::Failed,
            Outcome::Error | Outcome::Timeout | Outcome::Aborted => return,
        };
        if self.past == Past::Failed {
            self.retests += 1;
        }
        self.past = past;
    }

    /// Whether the unit failed, and was tested again unchanged as often as it may be.
    pub fn is_exhausted(&self, retests: u32) -> bool {
        self.past == Past::Failed && self.retests >= retests
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::record::UnitReleased;

    /// A story is how runs ended, by their letters; `r` is a release and `R` one after rework.
    fn after(story: &str) -> History {
        let mut history = History::default();
        for letter in story.chars() {
            let release = |reworked| {
                Record::UnitReleased(UnitReleased {
                    command: Uuid::nil(),
                    serial: "1".parse().unwrap(),
                    reason: String::new(),
                    reworked,
                })
            };
            match letter {
                'P' => history.close(Outcome::Pass),
                'F' => history.close(Outcome::Fail),
                'E' => history.close(Outcome::Error),
                'T' => history.close(Outcome::Timeout),
                'A' => history.close(Outcome::Aborted),
                'r' => history.learn(&release(false)),
                'R' => history.learn(&release(true)),
                other => unreachable!("nothing has the letter {other:?}"),
            }
        }
        history
    }

    #[test]
    fn a_unit_is_tested_again_unchanged_so_often_and_no_more() {
        let check = |story: &str, past: Past, retests: u32| {
            assert_eq!(after(story), History { past, retests }, "{story}");
        };
        check("", Past::New, 0);
        check("ETA", Past::New, 0);
        check("F", Past::Failed, 0);
        check("FF", Past::Failed, 1);
        check("FEFTFA", Past::Failed, 2);
        check("FP", Past::Passed, 1);
        check("FFr", Past::Failed, 0);
        check("FFrF", Past::Failed, 1);
        check("FFR", Past::Reworked, 0);
        check("FFRF", Past::Failed, 0);
        check("R", Past::New, 0);
        check("ER", Past::New, 0);

        let exhausted = |story: &str, limit: u32| after(story).is_exhausted(limit);
        assert!(!exhausted("F", 1) && exhausted("FF", 1) && exhausted("F", 0));
        assert!(!exhausted("FFr", 1) && !exhausted("FFR", 0) && !exhausted("FFP", 0));
    }

    proptest! {
        #[test]
        fn a_release_lets_a_unit_go_on_and_what_does_not_count_changes_nothing(
            story in "[PFETArR]{0,12}", noise in "[ETA]{0,4}", limit in 1..4_u32
        ) {
            prop_assert!(!after(&(story.clone() + "r")).is_exhausted(limit));
            prop_assert!(!after(&(story.clone() + "R")).is_exhausted(0));
            prop_assert_eq!(after(&(story.clone() + &noise)), after(&story));
        }
    }
}
