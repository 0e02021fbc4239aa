//! What is under way to the controller, and what its answers mean for it. Pure: no I/O, no clock.

use std::{collections::VecDeque, time::SystemTime};

use factory_journal::Sequence;

use crate::record::RunId;

// Reports under way without an acknowledgement. A bidirectional stream is at its best from 16 to 64.
pub(super) const WINDOW: usize = 32;

/// A report that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub sequence: Sequence,
    /// The run whose result it is, and when that ended; absent for other reports.
    pub result: Option<(RunId, SystemTime)>,
}

/// What the controller is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    /// Everything up to this report.
    pub up_to: Sequence,
    /// Results among them.
    pub results: u64,
}

/// An answer that no honest controller gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Absurd {
    /// It was never sent.
    #[error("acknowledged report {0}, which was not sent")]
    Acknowledged(u64),
    /// It was never sent, or is settled.
    #[error("refused report {0}, which does not wait for an answer")]
    Refused(u64),
}

/// The reports under way on one connection.
pub(super) struct Window {
    sent: VecDeque<(Sent, Refused)>,
    settled: Sequence,
    /// Up to here one report goes at a time, so that an end of the stream tells which one caused it.
    narrow_until: Sequence,
}

type Refused = bool;

impl Window {
    /// Nothing is under way, and everything up to `settled` needs nothing more.
    pub fn new(settled: Sequence, narrow_until: Sequence) -> Self {
        Self { sent: VecDeque::new(), settled, narrow_until }
    }

    /// Whether one more may be sent.
    pub fn is_open(&self) -> bool {
        let size = if self.settled < self.narrow_until { 1 } else { WINDOW };
        self.sent.len() < size
    }

    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// What is under way, oldest first.
    pub fn sent(&self) -> impl DoubleEndedIterator<Item = Sent> + ExactSizeIterator {
        self.sent.iter().map(|(sent, _)| *sent)
    }

    /// When the run of the oldest result under way ended.
    pub fn oldest(&self) -> Option<SystemTime> {
        self.sent().find_map(|sent| sent.result).map(|(_, ended)| ended)
    }

    pub fn push(&mut self, sent: Sent) {
        self.sent.push_back((sent, false));
    }

    /// The controller refuses report `number`: it is settled as soon as everything before it is. Gives the report
    /// that is meant, unless it was refused before.
    pub fn refuse(&mut self, number: u64) -> Result<Option<Sent>, Absurd> {
        let meant = self.sent.iter_mut().find(|(sent, _)| sent.sequence.get() == number);
        let (sent, refused) = meant.ok_or(Absurd::Refused(number))?;
        Ok((!std::mem::replace(refused, true)).then_some(*sent))
    }

    /// The controller has all up to `number`. Late and repeated acknowledgements are harmless.
    pub fn acknowledge(&mut self, number: u64) -> Result<Option<Settled>, Absurd> {
        let newest = self.sent.back().map_or(self.settled, |(sent, _)| sent.sequence);
        if number > newest.get() {
            return Err(Absurd::Acknowledged(number));
        }
        let mut settled: Option<Settled> = None;
        while let Some((sent, _)) =
            self.sent.pop_front_if(|(sent, refused)| *refused || sent.sequence.get() <= number)
        {
            let results = settled.map_or(0, |settled| settled.results) + u64::from(sent.result.is_some());
            settled = Some(Settled { up_to: sent.sequence, results });
            self.settled = sent.sequence;
        }
        Ok(settled)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use uuid::Uuid;

    use super::*;

    fn ended(number: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(number)
    }

    /// Reports 3, 5, 7, 9 are under way; 7 is a head.
    fn window() -> Window {
        let mut window = Window::new(2.into(), Sequence::START);
        for number in [3, 5, 7, 9] {
            let result = (number != 7).then(|| (RunId::of_command(Uuid::nil()), ended(number)));
            window.push(Sent { sequence: number.into(), result });
        }
        window
    }

    /// Which reports are set aside, which is acknowledged, what becomes settled, what is under way afterwards.
    fn check(refused: &[u64], acknowledged: u64, settled: Result<Option<(u64, u64)>, Absurd>, left: &[u64]) {
        let mut window = window();
        for number in refused {
            assert_eq!(window.refuse(*number).unwrap().map(|sent| sent.sequence.get()), Some(*number));
            assert_eq!(window.refuse(*number), Ok(None), "once is enough");
        }
        let settled = settled.map(|it| it.map(|(up_to, results)| Settled { up_to: up_to.into(), results }));
        assert_eq!(window.acknowledge(acknowledged), settled, "{refused:?} {acknowledged}");
        let under_way: Vec<u64> = window.sent().map(|sent| sent.sequence.get()).collect();
        assert_eq!(under_way, left, "{refused:?} {acknowledged}");
        assert_eq!(window.oldest(), left.iter().find(|number| **number != 7).map(|number| ended(*number)));
    }

    #[test]
    fn an_acknowledgement_settles_everything_up_to_it() {
        check(&[], 3, Ok(Some((3, 1))), &[5, 7, 9]);
        check(&[], 6, Ok(Some((5, 2))), &[7, 9]);
        check(&[], 9, Ok(Some((9, 3))), &[]);
    }

    #[test]
    fn a_late_or_repeated_acknowledgement_changes_nothing() {
        check(&[], 0, Ok(None), &[3, 5, 7, 9]);
        check(&[], 2, Ok(None), &[3, 5, 7, 9]);
    }

    #[test]
    fn what_was_never_sent_cannot_be_acknowledged_or_refused() {
        check(&[], 10, Err(Absurd::Acknowledged(10)), &[3, 5, 7, 9]);
        for number in [0, 2, 4, 10] {
            assert_eq!(window().refuse(number), Err(Absurd::Refused(number)));
        }
    }

    #[test]
    fn a_refused_report_is_settled_when_all_before_it_are() {
        check(&[3], 2, Ok(Some((3, 1))), &[5, 7, 9]);
        check(&[5], 2, Ok(None), &[3, 5, 7, 9]);
        check(&[5, 7], 3, Ok(Some((7, 2))), &[9]);
        check(&[3, 5, 7, 9], 9, Ok(Some((9, 3))), &[]);
    }

    #[test]
    fn a_narrow_window_is_wide_again_behind_its_last_report() {
        let mut window = Window::new(2.into(), 5.into());
        for number in [3, 5] {
            assert!(window.is_open());
            window.push(Sent { sequence: number.into(), result: None });
            assert!(!window.is_open(), "one at a time up to report 5");
            window.acknowledge(number).unwrap();
        }
        for number in 0..WINDOW as u64 {
            assert!(window.is_open());
            window.push(Sent { sequence: (6 + number).into(), result: None });
        }
        assert!(!window.is_open());
    }
}
