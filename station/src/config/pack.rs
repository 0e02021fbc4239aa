//! What the station file says of nests that fail more than others.

use std::ops::RangeInclusive;

use factory_settings::{Table, flag, integer, text};

use crate::pack::{Percent, Rule};

const WINDOW: RangeInclusive<usize> = 10..=1000;
// Beyond it, nests would be parked by chance every day.
const LEAST_SURE: Percent = Percent(1.0);

/// The section `[pack]`.
pub fn pack(pack: &mut Table<'_>) -> Option<Rule> {
    let usual = Rule::USUAL;
    let parks = pack.or("parks", usual.parks, flag);
    let window = pack.or("window", usual.window, integer);
    let least_units = pack.or("least-units", usual.least_units, integer);
    let least_failures = pack.or("least-failures", usual.least_failures, integer);
    let least_excess = pack.or("least-excess", usual.least_excess, text);
    let significance = pack.or("significance", usual.significance, text);
    let max_failure_rate = pack.optional("max-failure-rate", text);

    if window.is_some_and(|window| !WINDOW.contains(&window)) {
        let (least, most) = WINDOW.into_inner();
        pack.complain("window", format!("must be {least} to {most} units"));
    }
    let (window, least_units, least_failures) = (window?, least_units?, least_failures?);
    if least_units < 2 || least_units as usize > window {
        pack.complain("least-units", format!("must be 2 to {window}, as many as the `window` holds"));
    }
    if least_failures < 1 || least_failures > least_units {
        pack.complain("least-failures", format!("must be 1 to {least_units}, which are the `least-units`"));
    }
    if significance.is_some_and(|it| it <= Percent(0.0) || it > LEAST_SURE) {
        pack.complain("significance", format!("must be above 0% and at most {LEAST_SURE}"));
    }
    if max_failure_rate.flatten().is_some_and(|it| it <= Percent(0.0) || it >= Percent(100.0)) {
        pack.complain("max-failure-rate", "must be above 0% and below 100%; leave it out for no limit");
    }
    Some(Rule {
        parks: parks?,
        window,
        least_units,
        least_failures,
        least_excess: least_excess?,
        significance: significance?,
        max_failure_rate: max_failure_rate?,
    })
}
