//! How likely it is that one nest fares so badly by chance: Fisher's exact test, one-sided. Pure.

/// Units and those of them that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many there were.
    pub units: u32,
    /// How many of them failed.
    pub failed: u32,
}

impl Tally {
    /// Takes in a unit.
    pub fn count(&mut self, failed: bool) {
        self.units += 1;
        self.failed += u32::from(failed);
    }

    /// What share of them failed; 0 where there are none.
    pub fn rate(self) -> f64 {
        if self.units == 0 { 0.0 } else { f64::from(self.failed) / f64::from(self.units) }
    }
}

/// The probability that at least `here.failed` of all failures fall on the units `here`, were they dealt out to all units
/// alike: the upper tail of the hypergeometric distribution.
///
/// Its terms are summed relative to the largest one, each made from its neighbour by the ratio of the two: no factorial is
/// taken, nothing overflows, and nothing cancels, since all are positive.
pub fn by_chance(here: Tally, there: Tally) -> f64 {
    let (ours, theirs) = (u64::from(here.units), u64::from(there.units));
    let failed = u64::from(here.failed) + u64::from(there.failed);
    let (least, most) = (failed.saturating_sub(theirs), failed.min(ours));
    // Term x + 1 divided by term x, for that many failures here.
    let ratio = |x: u64| {
        let up = (failed - x) as f64 * (ours - x) as f64;
        let down = (x + 1) as f64 * (theirs + x + 1 - failed) as f64;
        up / down
    };
    let mode = ((ours + 1) * (failed + 1) / (ours + theirs + 2)).clamp(least, most);
    let (mut all, mut tail) = (0.0, 0.0);
    let mut add = |x: u64, term: f64| {
        all += term;
        if x >= here.failed.into() {
            tail += term;
        }
    };
    let mut term = 1.0;
    add(mode, term);
    for x in mode..most {
        term *= ratio(x);
        add(x + 1, term);
    }
    term = 1.0;
    for x in (least..mode).rev() {
        term /= ratio(x);
        add(x, term);
    }
    tail / all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(units: u32, failed: u32) -> Tally {
        Tally { units, failed }
    }

    fn choose(n: u32, k: u32) -> u128 {
        if k > n { 0 } else { (0..k).fold(1, |c, i| c * u128::from(n - i) / u128::from(i + 1)) }
    }

    /// The same, counted in whole numbers.
    fn counted(here: Tally, there: Tally) -> f64 {
        let failed = here.failed + there.failed;
        let ways = |x: u32| choose(here.units, x) * choose(there.units, failed - x);
        let tail: u128 = (here.failed..=failed).map(ways).sum();
        tail as f64 / choose(here.units + there.units, failed) as f64
    }

    #[test]
    fn known_chances_are_met() {
        let check = |here, there, expected: f64| {
            let chance = by_chance(here, there);
            assert!((chance - expected).abs() <= 1e-9 * expected, "{here:?} {there:?}: {chance:e}");
        };
        // Fisher's tea: 3 of 4 cups, 17/70; and all of them, 1/70.
        check(tally(4, 3), tally(4, 1), 17.0 / 70.0);
        check(tally(4, 4), tally(4, 0), 1.0 / 70.0);
        check(tally(0, 0), tally(0, 0), 1.0);
        check(tally(9, 0), tally(5, 5), 1.0);
        check(tally(9, 9), tally(5, 5), 1.0);
        // Far out: 100! 900! / 1000!.
        check(tally(100, 100), tally(900, 0), 1.0 / 6.385_051_192_630_51e139);
    }

    proptest! {
        #[test]
        fn it_is_what_is_counted_in_whole_numbers(ours in 0..60_u32, theirs in 0..60_u32, a in 0..=60_u32, b in 0..=60_u32) {
            let (here, there) = (tally(ours, a.min(ours)), tally(theirs, b.min(theirs)));
            let (chance, exact) = (by_chance(here, there), counted(here, there));
            prop_assert!((chance - exact).abs() <= 1e-12 * exact, "{:e} is not {:e}", chance, exact);
        }

        #[test]
        fn one_more_failure_here_is_less_likely_and_one_more_there_more(
            ours in 1..2000_u32, theirs in 1..100_000_u32, a in 0..2000_u32, b in 0..100_000_u32
        ) {
            let (a, b) = (a % ours, b % theirs);
            let chance = by_chance(tally(ours, a), tally(theirs, b));
            prop_assert!((0.0..=1.0 + 1e-12).contains(&chance));
            prop_assert!(by_chance(tally(ours, a + 1), tally(theirs, b)) <= chance * (1.0 + 1e-12));
            prop_assert!(by_chance(tally(ours, a), tally(theirs, b + 1)) >= chance * (1.0 - 1e-12));
        }
    }
}
