//! What a run of the benchmark found: the samples, one for each server, experiment and round, and what they come to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::stats::Summary;

/// Everything that is written to `results.json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Results {
    /// Whether it was a quick run, whose figures are good for nothing but a first look.
    pub quick: bool,
    /// What was asked for with `--only`.
    pub only: Option<String>,
    /// How many rounds there were at most.
    pub rounds: u32,
    /// How long each closed loop was measured, in seconds.
    pub seconds: f64,
    /// How long it went on before that.
    pub warmup: f64,
    /// The machine, as names and values in the order in which they are shown.
    pub machine: Vec<(String, String)>,
    /// Versions of what was measured, likewise.
    pub versions: Vec<(String, String)>,
    /// Servers that were not there, and why.
    pub missing: BTreeMap<String, String>,
    /// What was measured.
    pub samples: Vec<Sample>,
}

/// What one server came to in one experiment of one round.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[expect(missing_docs, reason = "they are what they are called")]
pub struct Sample {
    pub server: String,
    pub experiment: String,
    pub round: u32,
    pub metrics: BTreeMap<String, f64>,
    /// What went wrong, by kind.
    pub errors: BTreeMap<String, u64>,
}

/// More datagrams lost than one in so many, and the server's figure is struck. Others may be lost: that is what datagrams are.
const LOST_MOST: f64 = 1_000.0;

impl Results {
    /// The values of a metric, each with its round.
    pub fn values(&self, server: &str, experiment: &str, metric: &str) -> Vec<(u32, f64)> {
        self.of(server, experiment)
            .filter_map(|sample| Some((sample.round, *sample.metrics.get(metric)?)))
            .collect()
    }

    /// What a metric came to over all rounds.
    pub fn summary(&self, server: &str, experiment: &str, metric: &str) -> Option<Summary> {
        let values: Vec<f64> =
            self.values(server, experiment, metric).into_iter().map(|(_, value)| value).collect();
        Summary::of(&values)
    }

    /// What went wrong in an experiment over all rounds, in words; `None` when every reply was right.
    pub fn wrong(&self, server: &str, experiment: &str) -> Option<String> {
        let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut lost, mut done) = (0.0, 0.0);
        for sample in self.of(server, experiment) {
            sample.errors.iter().for_each(|(kind, count)| *errors.entry(kind).or_default() += count);
            lost += sample.metrics.get("lost").unwrap_or(&0.0);
            done += sample.metrics.get("done").unwrap_or(&0.0);
        }
        if lost * LOST_MOST > done {
            errors.insert("lost", lost as u64);
        }
        let words: Vec<String> = errors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// How many replies were wrong or missing in an experiment over all rounds.
    pub fn errors(&self, server: &str, experiment: &str) -> f64 {
        self.of(server, experiment).flat_map(|sample| sample.errors.values()).sum::<u64>() as f64
    }

    /// How many were right, in the time that was measured.
    pub fn done(&self, server: &str, experiment: &str) -> f64 {
        self.of(server, experiment).filter_map(|sample| sample.metrics.get("done")).sum()
    }

    /// The experiments of which there is a sample of this server.
    pub fn experiments(&self, server: &str) -> BTreeSet<&str> {
        let own = self.samples.iter().filter(|sample| sample.server == server);
        own.map(|sample| sample.experiment.as_str()).collect()
    }

    fn of(&self, server: &str, experiment: &str) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.server == server && sample.experiment == experiment)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Results with these samples: server, experiment, round, metric, value.
    pub(crate) fn results(samples: &[(&str, &str, u32, &str, f64)]) -> Results {
        let sample = |(server, experiment, round, metric, value): &(&str, &str, u32, &str, f64)| Sample {
            server: server.to_string(),
            experiment: experiment.to_string(),
            round: *round,
            metrics: BTreeMap::from([(metric.to_string(), *value)]),
            errors: BTreeMap::new(),
        };
        Results { samples: samples.iter().map(sample).collect(), ..Results::default() }
    }

    #[test]
    fn a_summary_is_of_all_rounds_of_one_experiment() {
        let results = results(&[
            ("a", "c8", 1, "rate", 10.0),
            ("a", "c8", 2, "rate", 30.0),
            ("a", "c64", 1, "rate", 99.0),
            ("b", "c8", 1, "rate", 99.0),
        ]);
        assert_eq!(
            results.summary("a", "c8", "rate"),
            Some(Summary { median: 20.0, least: 10.0, most: 30.0 })
        );
        assert_eq!(results.summary("c", "c8", "rate"), None);
        assert_eq!(results.experiments("a").into_iter().collect::<Vec<_>>(), ["c64", "c8"]);
    }

    #[test]
    fn whatever_went_wrong_in_any_round_is_told() {
        let mut results = results(&[("a", "c8", 1, "rate", 10.0), ("a", "c8", 2, "rate", 30.0)]);
        assert_eq!(results.wrong("a", "c8"), None);
        results.samples[1].errors.insert("no_reply".into(), 3);
        assert_eq!(results.wrong("a", "c8").as_deref(), Some("no_reply 3"));
    }

    #[test]
    fn a_few_datagrams_may_be_lost() {
        let mut results = results(&[("a", "udp", 1, "done", 100_000.0)]);
        results.samples[0].metrics.insert("lost".into(), 100.0);
        assert_eq!(results.wrong("a", "udp"), None);
        results.samples[0].metrics.insert("lost".into(), 101.0);
        assert_eq!(results.wrong("a", "udp").as_deref(), Some("lost 101"));
    }
}
