//! What a run of the generator found, as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::cpu::Cpu;

/// Everything that is printed at the end of a run. What does not apply to it is not there.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// `closed`, `open`, `burst`, `hold`, `sessions` or `udp`.
    pub kind: String,
    /// Right replies in the time that was measured.
    pub done: u64,
    /// Right replies in all, warm-up and those that were under way at the end included.
    pub checked: u64,
    /// How long it was measured.
    pub seconds: f64,
    /// `done` by `seconds`.
    pub per_second: f64,
    /// What went wrong at any time, by kind. Empty is what a server is to reach.
    pub errors: BTreeMap<String, u64>,
    /// From the beginning to the first byte of the reply, in microseconds. For datagrams: to the reply.
    pub first_us: Option<Spread>,
    /// From the beginning to the end of the connection.
    pub whole_us: Option<Spread>,
    /// From the beginning to the moment at which the line could be sent; for bursts.
    pub connect_us: Option<Spread>,
    /// Processor time of everything but the generator, for each right reply.
    pub cpu_us: Option<f64>,
    /// The generator's own.
    pub own_cpu_us: Option<f64>,
    /// Idle clients that were open meanwhile.
    pub held: Option<u64>,
    /// How long it took until the server had taken all of them.
    pub held_seconds: Option<f64>,
    /// When the idle clients began to end, in nanoseconds of CLOCK_MONOTONIC.
    pub released_at_ns: Option<u64>,
    /// How long it took to close them all.
    pub released_seconds: Option<f64>,
    /// Round trips of single bytes in sessions that stay open, while nobody else was there.
    pub open_alone_us: Option<Spread>,
    /// The same while others arrived.
    pub open_us: Option<Spread>,
    /// Datagrams that nobody answered in time.
    pub lost: Option<u64>,
}

impl Report {
    /// An empty report.
    pub fn new(kind: &str) -> Report {
        Report { kind: kind.into(), ..Report::default() }
    }

    /// Counts one thing that went wrong.
    pub fn error(&mut self, kind: &str) {
        match self.errors.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(self.errors.insert(kind.into(), 1)),
        }
    }

    /// Sums up the time that was measured.
    pub fn measured(&mut self, time: Duration, before: &Cpu, after: &Cpu) {
        self.seconds = time.as_secs_f64();
        self.per_second = self.done as f64 / self.seconds.max(1e-9);
        if self.done > 0 {
            let (others, own) = after.since(before);
            self.cpu_us = Some(others.as_secs_f64() * 1e6 / self.done as f64);
            self.own_cpu_us = Some(own.as_secs_f64() * 1e6 / self.done as f64);
        }
    }
}

/// A distribution of times in microseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[expect(missing_docs, reason = "they are what they are called")]
pub struct Spread {
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Times from a microsecond or less to ten minutes, three digits of each.
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Times {
        Times(Histogram::new_with_bounds(10, 600_000_000_000, 3).expect("the bounds are in order"))
    }
}

impl Times {
    /// Adds one.
    pub fn note(&mut self, time: Duration) {
        self.0.saturating_record(time.as_nanos() as u64);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// What they look like; `None` when there are none.
    pub fn spread(&self) -> Option<Spread> {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |share: f64| us(self.0.value_at_quantile(share));
        (!self.0.is_empty()).then(|| Spread {
            min: us(self.0.min()),
            mean: self.0.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(self.0.max()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_three_digits() {
        let mut times = Times::default();
        assert_eq!(times.spread(), None);
        (1..=1000).for_each(|us| times.note(Duration::from_micros(us)));
        let spread = times.spread().expect("there are some");
        assert!((spread.p50 - 500.0).abs() < 1.0 && (spread.p99 - 990.0).abs() < 2.0, "{spread:?}");
        assert!((spread.max - 1000.0).abs() < 2.0, "{spread:?}");
    }

    #[test]
    fn errors_are_counted_by_kind() {
        let mut report = Report::new("closed");
        ["refused", "reset", "refused"].iter().for_each(|kind| report.error(kind));
        assert_eq!(report.errors, BTreeMap::from([("refused".into(), 2), ("reset".into(), 1)]));
    }
}
