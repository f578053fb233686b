//! Whether one run of the benchmark says the same as another. Pure.
//!
//! A run states a spread with each figure: the least and the most that single rounds came to. Two runs agree in a figure when what
//! one says lies within what the other does, that is when the spreads touch. A few rounds show little of what there is:
//! of three rounds and three of the same thing the three least are one run's in one case of ten, by chance alone.

use std::collections::BTreeSet;

use crate::goals::{GOALS, Judged, Unit, Verdict};
use crate::results::Results;
use crate::stats::Summary;

/// A figure in two runs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub struct Repeat {
    pub row: u32,
    pub what: &'static str,
    pub against: &'static str,
    pub unit: Unit,
    pub now: Summary,
    pub before: Summary,
    /// How many rounds each has.
    pub rounds: [u32; 2],
    /// Whether both have met their goal or both have missed it.
    pub same_verdict: bool,
}

impl Repeat {
    /// Whether the spreads touch.
    pub fn agrees(&self) -> bool {
        self.now.least <= self.before.most && self.before.least <= self.now.most
    }

    /// How likely the spreads touch when nothing but chance makes rounds differ: they do not when all of one run's are less than all of the
    /// other's, which are two of all ways in which so many rounds can be told apart.
    pub fn likely(&self) -> f64 {
        let [one, other] = self.rounds;
        let ways = (1..=one).map(|nth| f64::from(other + nth) / f64::from(nth)).product::<f64>();
        1.0 - 2.0 / ways
    }
}

/// All figures that both runs have.
pub fn repeats(now: &Results, before: &Results) -> Vec<Repeat> {
    let rounds = [now, before];
    let both = |goal: &'static crate::goals::Goal| {
        let [(this, Some(now)), (that, Some(before))] = [now, before]
            .map(|results| goal.judge(results))
            .map(|judged| (judged.verdict, measured(&judged)))
        else {
            return None;
        };
        let (row, what, against, unit) = (goal.row, goal.what, goal.against, goal.unit);
        let rounds = rounds.map(|results| rounds_of(results, goal.value.experiment()));
        Some(Repeat { row, what, against, unit, now, before, rounds, same_verdict: this == that })
    };
    GOALS.iter().filter_map(both).collect()
}

fn rounds_of(results: &Results, experiment: &str) -> u32 {
    let of_it = results.samples.iter().filter(|sample| sample.experiment == experiment);
    of_it.map(|sample| sample.round).collect::<BTreeSet<_>>().len() as u32
}

fn measured(judged: &Judged) -> Option<Summary> {
    judged.measured.filter(|_| judged.verdict != Verdict::NotMeasured)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    fn run(rounds: &[f64]) -> Results {
        let samples: Vec<_> =
            (1..).zip(rounds).map(|(round, value)| ("tine", "crowd", round, "reaped_s", *value)).collect();
        results(&samples)
    }

    fn repeat(now: &[f64], before: &[f64]) -> Repeat {
        repeats(&run(now), &run(before))[0]
    }

    #[test]
    fn runs_agree_where_their_spreads_touch() {
        assert!(repeat(&[0.5, 0.6], &[0.6, 0.8]).agrees(), "they touch");
        assert!(repeat(&[0.5, 0.9], &[0.6, 0.8]).agrees(), "one holds the other");
        assert!(!repeat(&[0.5, 0.59], &[0.6, 0.8]).agrees());
        assert!(!repeat(&[0.81], &[0.6, 0.8]).agrees(), "one round has no spread");
    }

    #[test]
    fn how_likely_they_agree_by_chance_is_counted() {
        let close = |this: f64, that: f64| (this - that).abs() < 1e-9;
        assert!(close(repeat(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]).likely(), 0.9));
        assert!(close(repeat(&[1.0, 2.0], &[1.0, 2.0]).likely(), 2.0 / 3.0));
        assert!(close(repeat(&[1.0, 2.0], &[1.0, 2.0, 3.0]).likely(), 0.8));
        assert!(close(repeat(&[1.0], &[1.0]).likely(), 0.0));
    }

    #[test]
    fn what_has_become_of_the_verdict_is_told() {
        assert!(!repeat(&[1.5], &[0.75]).same_verdict);
        assert!(repeat(&[0.9], &[0.5]).same_verdict);
    }

    #[test]
    fn what_one_of_them_lacks_is_in_neither() {
        assert_eq!(repeats(&run(&[1.0]), &run(&[])), []);
        assert_eq!(repeats(&run(&[1.0]), &run(&[1.0])).len(), 1);
    }
}
