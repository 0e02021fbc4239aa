//! Where a run is, as its records tell: `record × phase → phase`, pure.

use crate::{
    record::{Record, RunOpened},
    step::Step,
};

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Accepted, and not in a step yet.
    Opened(RunOpened),
    /// In a step, or between it and the next.
    Inside(RunOpened, Step),
    /// It has its result.
    Closed,
}

/// A record that cannot follow.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the record {record:?} cannot follow the phase {phase:?}")]
pub struct IllegalRecord {
    phase: Box<Option<Phase>>,
    record: Box<Record>,
}

impl Phase {
    /// The phase after one more record of the same run; `None` is the phase before the first.
    pub fn after(phase: Option<Self>, record: &Record) -> Result<Self, IllegalRecord> {
        use Phase::{Closed, Inside, Opened};
        Ok(match (phase, record) {
            (None, Record::RunOpened(opened)) => Opened(opened.clone()),
            (Some(Opened(run) | Inside(run, _)), Record::StepStarted(started)) => Inside(run, started.step),
            (Some(Inside(run, step)), Record::IssuanceAsked(_) | Record::Issued(_)) => Inside(run, step),
            (Some(Opened(_) | Inside(..)), Record::RunClosed(_)) => Closed,
            (phase, record) => {
                return Err(IllegalRecord { phase: Box::new(phase), record: Box::new(record.clone()) });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use factory_proto::{
        ids::{EndpointName, EnrolmentId},
        outcome::Outcome,
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::record::{
        Findings, Identity, IssuanceAsked, Issued, OrderOpened, RunClosed, RunId, StepStarted,
    };

    /// A record of the one run there is, by a letter: Work order, Opened, Step, Asked, Issued, Closed.
    fn record(letter: char) -> Record {
        let run = RunId::of_command(Uuid::nil());
        let endpoint_name: EndpointName = "sensor-1".parse().unwrap();
        let opened = RunOpened {
            run,
            order: "order-1".parse().unwrap(),
            serial: "1".parse().unwrap(),
            nest: "nest-1".parse().unwrap(),
            recipe_digest: [0; 32],
            started: SystemTime::UNIX_EPOCH,
        };
        match letter {
            'W' => Record::OrderOpened(OrderOpened {
                order: opened.order,
                recipe: "sensor".parse().unwrap(),
                recipe_digest: [0; 32],
                quantity: 1,
            }),
            'O' => Record::RunOpened(opened),
            'S' => Record::StepStarted(StepStarted { run, step: Step::Identity }),
            'A' => Record::IssuanceAsked(IssuanceAsked { run, issuance: Uuid::nil(), endpoint_name }),
            'I' => Record::Issued(Issued {
                run,
                identity: Identity {
                    endpoint_name,
                    certificate: Vec::new(),
                    fingerprint: [0; 32],
                    enrolment_id: EnrolmentId::of_fingerprint(&[0; 32]),
                },
            }),
            'C' => Record::RunClosed(Box::new(RunClosed {
                opened,
                ended: SystemTime::UNIX_EPOCH,
                outcome: Outcome::Pass,
                stopped: None,
                findings: Findings::default(),
            })),
            other => unreachable!("no record has the letter {other:?}"),
        }
    }

    fn phase_after(letters: &str) -> Result<Option<Phase>, IllegalRecord> {
        letters.chars().try_fold(None, |phase, letter| Phase::after(phase, &record(letter)).map(Some))
    }

    /// What [`Phase::after`] should allow, said of the whole: opened, steps, issuances inside steps, closed.
    fn is_lawful(letters: &str) -> bool {
        let Some(rest) = letters.strip_prefix('O') else { return letters.is_empty() };
        let inside = rest.strip_suffix('C').unwrap_or(rest);
        inside.is_empty() || inside.starts_with('S') && inside.chars().all(|letter| "SAI".contains(letter))
    }

    #[test]
    fn a_run_is_opened_then_inside_its_steps_then_closed() {
        let Record::RunOpened(run) = record('O') else { unreachable!() };
        let check = |letters: &str, phase: Option<Phase>| {
            assert_eq!(phase_after(letters), Ok(phase), "after {letters:?}");
        };
        check("", None);
        check("O", Some(Phase::Opened(run.clone())));
        check("OS", Some(Phase::Inside(run.clone(), Step::Identity)));
        check("OSAI", Some(Phase::Inside(run, Step::Identity)));
        check("OC", Some(Phase::Closed));
        check("OSAISC", Some(Phase::Closed));
    }

    #[test]
    fn a_closed_run_accepts_nothing() {
        for letter in "WOSAIC".chars() {
            let error = Phase::after(Some(Phase::Closed), &record(letter)).unwrap_err();
            assert_eq!(*error.phase, Some(Phase::Closed));
            assert_eq!(*error.record, record(letter));
        }
    }

    proptest! {
        #[test]
        fn records_in_any_order_give_a_phase_exactly_when_they_are_lawful(
            letters in prop_oneof!["[WOSAIC]{0,6}", "OS?[SAI]{0,4}C?", "OS[WOSAIC]{0,4}"]
        ) {
            prop_assert_eq!(phase_after(&letters).is_ok(), is_lawful(&letters));
        }
    }
}
