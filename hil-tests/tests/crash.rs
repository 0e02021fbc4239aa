//! Killed at any instant, nothing is lost and nothing is done twice: the station, the signer, the instruments and the
//! device are killed at every record and act of a run, alone and in pairs, and all truths are compared.
//!
//! `CRASH_SEED` repeats a run of the suite, `CRASH_CASE` only one case of it, or some (`4-9`); `CRASH_RANDOM_CASES` and `CRASH_LINES` say
//! how many cases follow those of the matrix, and how many lines are killed at the same time.

#[path = "crash/case.rs"]
mod case;
#[path = "crash/controls.rs"]
mod controls;
#[path = "crash/ledger.rs"]
mod ledger;
#[path = "crash/line.rs"]
mod line;
#[path = "crash/plan.rs"]
mod plan;
#[path = "crash/score.rs"]
mod score;
#[path = "crash/suite.rs"]
mod suite;
#[path = "crash/truths.rs"]
mod truths;

use std::path::Path;

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim-target")).parent().expect("a program lies in a folder")
}

#[test]
fn killed_at_any_instant_nothing_is_lost_and_nothing_is_done_twice() {
    let told = suite::run();
    assert!(told.is_ok(), "{:#}", told.expect_err("it was looked"));
}
