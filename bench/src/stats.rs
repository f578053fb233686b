//! Medians, spreads, ratios. Pure.

use serde::{Deserialize, Serialize};

/// What several rounds came to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[expect(missing_docs, reason = "they are what they are called")]
pub struct Summary {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Summary {
    /// Of these values; `None` when there are none.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted[half - 1] + sorted[half]) / 2.0
        } else {
            sorted[half]
        };
        Some(Summary { median, least, most })
    }

    /// A ratio of medians, with the least and the most that single rounds came to. `pairs` are the values of one round each.
    pub fn ratio(this: Summary, that: Summary, pairs: &[(f64, f64)]) -> Summary {
        let median = this.median / that.median;
        let rounds = pairs.iter().map(|(this, that)| this / that).filter(|ratio| ratio.is_finite());
        let (least, most) =
            rounds.fold((median, median), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
        Summary { median, least, most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> (f64, f64, f64) {
        let Summary { median, least, most } = Summary::of(values).expect("there are some");
        (median, least, most)
    }

    #[test]
    fn the_median_is_the_one_in_the_middle_or_between_the_two() {
        assert_eq!(of(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), (2.5, 1.0, 4.0));
        assert_eq!(of(&[7.0]), (7.0, 7.0, 7.0));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        assert_eq!(of(&[f64::NAN, 1.0, f64::INFINITY]), (1.0, 1.0, 1.0));
    }

    #[test]
    fn a_ratio_is_one_of_medians_and_its_spread_is_that_of_rounds() {
        let this = Summary::of(&[10.0, 20.0, 30.0]).expect("there are some");
        let that = Summary::of(&[10.0, 5.0, 10.0]).expect("there are some");
        let ratio = Summary::ratio(this, that, &[(10.0, 10.0), (20.0, 5.0), (30.0, 10.0)]);
        assert_eq!(ratio, Summary { median: 2.0, least: 1.0, most: 4.0 });
    }
}
