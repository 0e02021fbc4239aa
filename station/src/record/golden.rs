//! Runs on golden units: which steps they have, and what one has shown of its nest.

use std::time::SystemTime;

use factory_proto::{
    ids::{NestName, Serial},
    outcome::Outcome,
};
use minicbor::{Decode, Encode};

use super::{RunClosed, RunId, RunOpened, cbor};
use crate::step::Step;

/// How a golden unit did in a nest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GoldenTried {
    /// Where.
    #[cbor(n(0), with = "cbor::text")]
    pub nest: NestName,
    /// Its run.
    #[cbor(n(1), with = "cbor::text")]
    pub run: RunId,
    /// Which unit.
    #[cbor(n(2), with = "cbor::text")]
    pub serial: Serial,
    /// When it ended.
    #[cbor(n(3), with = "cbor::time")]
    pub ended: SystemTime,
    /// How.
    #[cbor(n(4), with = "cbor::text")]
    pub outcome: Outcome,
    /// Why it did not pass; empty when it did.
    #[n(5)]
    pub reason: String,
}

impl GoldenTried {
    /// What a run has shown; `None` of one that was no golden unit's, or that somebody broke off.
    pub fn by(closed: &RunClosed) -> Option<Self> {
        let RunClosed { opened, ended, outcome, stopped, .. } = closed;
        opened.golden.as_ref().filter(|_| *outcome != Outcome::Aborted)?;
        let reason = stopped.as_ref().map(|stopped| match stopped.step {
            Some(step) => format!("{step}: {}", stopped.reason),
            None => stopped.reason.clone(),
        });
        Some(Self {
            nest: opened.nest.clone(),
            run: opened.run,
            serial: opened.serial.clone(),
            ended: *ended,
            outcome: *outcome,
            reason: reason.unwrap_or_default(),
        })
    }
}

impl RunOpened {
    /// The step after those up to `done`; `None` when there is none left. A golden unit has those alone that prove the
    /// fixture: nothing is made of it.
    pub fn following(&self, done: Option<Step>) -> Option<Step> {
        Step::following(done).filter(|next| self.golden.is_none() || next.proves_the_fixture())
    }

    /// The last step before `next`, where `None` stands behind them all; `None` when there is none.
    pub fn preceding(&self, next: Option<Step>) -> Option<Step> {
        let all = || Step::ALL.into_iter().rev();
        match next {
            Some(next) => all().find(|step| *step < next),
            None => all().find(|step| self.golden.is_none() || step.proves_the_fixture()),
        }
    }
}

#[cfg(test)]
mod tests {
    use minicbor::bytes::ByteArray;
    use uuid::Uuid;

    use super::*;
    use crate::recipe::template::Values;

    /// As stations wrote it before there were golden units.
    #[derive(Encode)]
    struct Before {
        #[n(0)]
        run: String,
        #[n(1)]
        order: &'static str,
        #[n(2)]
        serial: &'static str,
        #[n(3)]
        nest: &'static str,
        #[n(4)]
        recipe_digest: ByteArray<32>,
        #[n(5)]
        started: u64,
        #[n(6)]
        values: Values,
        #[n(7)]
        allowed: Option<bool>,
    }

    #[test]
    fn a_run_of_an_older_station_is_one_of_its_order_and_of_no_golden_unit() {
        let run = RunId::of_command(Uuid::nil());
        let before = Before {
            run: run.to_string(),
            order: "WO-1",
            serial: "SN1",
            nest: "A",
            recipe_digest: [7; 32].into(),
            started: 0,
            values: Values::default(),
            allowed: None,
        };
        let opened: RunOpened = minicbor::decode(&minicbor::to_vec(before).unwrap()).unwrap();
        assert_eq!((opened.run, opened.golden.as_ref()), (run, None));
        assert_eq!(opened.order.as_ref().unwrap().as_str(), "WO-1");
        let golden = RunOpened { order: None, golden: Some("sensor".parse().unwrap()), ..opened.clone() };
        for run in [opened, golden] {
            assert_eq!(minicbor::decode::<RunOpened>(&minicbor::to_vec(&run).unwrap()).unwrap(), run);
        }
    }
}
