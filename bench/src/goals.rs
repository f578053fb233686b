//! The figures to reach, as data: what against what, how it is computed from results, and whether it is met. Pure.
//!
//! "C loop" is the best bare loop of its kind, whether it waits for its dead or has the kernel forget them.

use serde::Serialize;

use crate::results::Results;
use crate::stats::Summary;

/// A figure to reach.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Which row of the table of figures it belongs to, from 1 on.
    pub row: u32,
    /// What is measured.
    pub what: &'static str,
    /// What it is compared with.
    pub against: &'static str,
    /// How it is computed.
    pub value: Value,
    /// What it is to be.
    pub bound: Bound,
    /// What the value is.
    pub unit: Unit,
}

/// How a value is computed from results. Ratios are of medians.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A server's metric by that of the best of others, in the same experiment. The best is the one with the best `chosen`.
    Against {
        /// Ours.
        server: &'static str,
        /// The others.
        others: &'static [&'static str],
        /// In which experiment.
        experiment: &'static str,
        /// Which metric.
        metric: &'static str,
        /// By which metric the best is found.
        chosen: &'static str,
    },
    /// A server's metric in one experiment by the same in another.
    Itself {
        /// The server.
        server: &'static str,
        /// The experiment whose value is divided,
        experiment: &'static str,
        /// and that by whose it is.
        by: &'static str,
        /// Which metric.
        metric: &'static str,
    },
    /// A metric as it is.
    Plain {
        /// The server.
        server: &'static str,
        /// The experiment.
        experiment: &'static str,
        /// Which metric.
        metric: &'static str,
    },
}

/// What a value is to be.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Unit {
    Times,
    Seconds,
    Milliseconds,
    Mebibytes,
    Bytes,
    Count,
}

use Bound::{AtLeast, AtMost};
use Unit::{Bytes, Count, Mebibytes, Milliseconds, Seconds, Times};

/// The peers that a program is compared with first.
const UCSPI: &[&str] = &["tcpserver", "s6-tcpserver", "tcpsvd"];
const C_FORK: &[&str] = &["c-fork", "c-fork-ign"];
const C_VFORK: &[&str] = &["c-vfork", "c-vfork-ign"];

const fn rate(server: &'static str, others: &'static [&'static str], experiment: &'static str) -> Value {
    Value::Against { server, others, experiment, metric: "rate", chosen: "rate" }
}

const fn first(server: &'static str, others: &'static [&'static str]) -> Value {
    Value::Against { server, others, experiment: "c1", metric: "first_p50_us", chosen: "first_p50_us" }
}

const fn idle(server: &'static str, experiment: &'static str) -> Value {
    Value::Itself { server, experiment, by: "idle0", metric: "rate" }
}

const fn crowd(server: &'static str, metric: &'static str) -> Value {
    Value::Plain { server, experiment: "crowd", metric }
}

const fn goal(
    row: u32,
    what: &'static str,
    against: &'static str,
    value: Value,
    bound: Bound,
    unit: Unit,
) -> Goal {
    Goal { row, what, against, value, bound, unit }
}

/// The namespaces of nsjail, all of them or all but the network.
const NSJAIL: &[&str] = &["nsjail"];
const NSJAIL_NONET: &[&str] = &["nsjail-nonet"];

/// Peers that now and then end a client without its reply, by a fault of their own. There is nobody else of their kind to be
/// compared with; so they are, as long as that is rare, and it is told.
const LOSING: &[&str] = &["nsjail", "nsjail-nonet"];

/// Of so many right replies one may be wrong or missing for such a peer.
const LOSING_MOST: f64 = 100.0;

const BEST_PEER: &str = "best of tcpserver, s6-tcpserver, tcpsvd";

/// All of them, in the order of the issue that set them.
#[rustfmt::skip]
pub const GOALS: &[Goal] = &[
    goal(1, "program per client, connections/s at 64 clients, `--acceptors auto`", BEST_PEER,
        rate("tine-auto", UCSPI, "c64"), AtLeast(1.6), Times),
    goal(1, "the same, processor time per connection", "that peer",
        Value::Against { server: "tine-auto", others: UCSPI, experiment: "c64", metric: "cpu_us", chosen: "rate" },
        AtMost(0.5), Times),
    goal(2, "the same, connections/s", "C vfork+exec, one loop",
        rate("tine-auto", C_VFORK, "c64"), AtLeast(1.2), Times),
    goal(3, "the same with one acceptor", BEST_PEER,
        rate("tine", UCSPI, "c64"), AtLeast(1.25), Times),
    goal(3, "the same with one acceptor", "C vfork+exec, one loop",
        rate("tine", C_VFORK, "c64"), AtLeast(0.95), Times),
    goal(4, "the same, `--acceptors auto`", "best of xinetd, openbsd-inetd",
        rate("tine-auto", &["xinetd", "openbsd-inetd"], "c64"), AtLeast(3.0), Times),
    goal(4, "the same, `--acceptors auto`", "best of socat, ncat",
        rate("tine-auto", &["socat", "ncat"], "c64"), AtLeast(6.0), Times),
    goal(5, "program, first byte at 1 client, median, with spares", BEST_PEER,
        first("tine-spare", UCSPI), AtMost(0.7), Times),
    goal(6, "handler per client, connections/s at 64 clients, one acceptor", "C fork, one loop",
        rate("handler", C_FORK, "c64"), AtLeast(0.95), Times),
    goal(6, "the same, acceptors auto", "C fork, one loop",
        rate("handler-auto", C_FORK, "c64"), AtLeast(1.1), Times),
    goal(7, "handler per client, connections/s at 8 clients", "Cookbook's recipe, mended, Perl",
        rate("handler", &["perl-recipe"], "c8"), AtLeast(7.0), Times),
    goal(7, "the same", "Python ForkingTCPServer",
        rate("handler", &["python-forking"], "c8"), AtLeast(9.0), Times),
    goal(7, "the same", "Net::Server::Fork",
        rate("handler", &["perl-fork"], "c8"), AtLeast(15.0), Times),
    goal(7, "the same", "Net::Server::PreFork, which uses processes again",
        rate("handler", &["perl-prefork"], "c8"), AtLeast(1.1), Times),
    goal(8, "handler with spares, first byte at 1 client, median", "C thread per connection",
        first("handler-spare", &["c-thread"]), AtMost(1.0), Times),
    goal(8, "the same", "C fork, one loop",
        first("handler-spare", C_FORK), AtMost(0.7), Times),
    goal(9, "program, connections/s at 8 clients with 5,000 idle ones held", "itself with none",
        idle("tine", "idle5000"), AtLeast(0.9), Times),
    goal(9, "the same", "tcpserver with as many",
        rate("tine", &["tcpserver"], "idle5000"), AtLeast(5.0), Times),
    goal(10, "handler, connections/s at 8 clients with 5,000 idle ones held", "itself with none",
        idle("handler", "idle5000"), AtLeast(0.9), Times),
    goal(10, "the same with 10,000", "itself with none",
        idle("handler", "idle10000"), AtLeast(0.9), Times),
    goal(11, "10,000 clients ending at once, all reaped with status: programs", "",
        crowd("tine", "reaped_s"), AtMost(1.0), Seconds),
    goal(11, "the same: handlers", "",
        crowd("handler", "reaped_s"), AtMost(1.0), Seconds),
    goal(12, "memory of one idle client, from MemAvailable: program", "C vfork+exec loop",
        Value::Against { server: "tine", others: &["c-vfork"], experiment: "crowd", metric: "client_kib", chosen: "client_kib" },
        AtMost(1.1), Times),
    goal(12, "the same: handler", "C fork loop",
        Value::Against { server: "handler", others: &["c-fork"], experiment: "crowd", metric: "client_kib", chosen: "client_kib" },
        AtMost(1.1), Times),
    goal(13, "master's memory at 10,000 live children, over the start: programs", "",
        crowd("tine", "master_mib"), AtMost(4.0), Mebibytes),
    goal(13, "the same, a child", "", crowd("tine", "master_bytes"), AtMost(512.0), Bytes),
    goal(13, "the same with acceptors", "", crowd("tine-auto", "master_mib"), AtMost(4.0), Mebibytes),
    goal(13, "the same with acceptors, a child", "", crowd("tine-auto", "master_bytes"), AtMost(512.0), Bytes),
    goal(13, "the same: handlers", "", crowd("handler", "master_mib"), AtMost(4.0), Mebibytes),
    goal(13, "the same: handlers, a child", "", crowd("handler", "master_bytes"), AtMost(512.0), Bytes),
    goal(14, "UDP echo, 64 bytes, 8 flows by 64 in flight", "C recvmmsg loop",
        rate("handler-udp", &["c-mmsg"], "udp"), AtLeast(0.95), Times),
    goal(14, "the same", "Perl", rate("handler-udp", &["perl-udp"], "udp"), AtLeast(1.8), Times),
    goal(14, "the same", "Python", rate("handler-udp", &["python-udp"], "udp"), AtLeast(2.4), Times),
    goal(14, "the same, GSO senders", "C GRO loop",
        rate("handler-udp", &["c-gro"], "udp-gso"), AtLeast(0.9), Times),
    goal(15, "burst of 4,000 connects at once, the longest wait for a first byte: programs", "",
        Value::Plain { server: "tine", experiment: "burst", metric: "first_max_ms" }, AtMost(900.0), Milliseconds),
    goal(15, "the same, refused or failed", "",
        Value::Plain { server: "tine", experiment: "burst", metric: "failed" }, AtMost(0.0), Count),
    goal(15, "the same: handlers, the longest wait", "",
        Value::Plain { server: "handler", experiment: "burst", metric: "first_max_ms" }, AtMost(900.0), Milliseconds),
    goal(15, "the same: handlers, refused or failed", "",
        Value::Plain { server: "handler", experiment: "burst", metric: "failed" }, AtMost(0.0), Count),
    goal(16, "log lines and limits on, connections/s at 64 clients", "itself with both off",
        rate("tine-on", &["tine-off"], "c64"), AtLeast(0.95), Times),
    goal(17, "`tine serve`, start to first client served", "tcpserver",
        Value::Against { server: "tine", others: &["tcpserver"], experiment: "start", metric: "start_ms", chosen: "start_ms" },
        AtMost(2.0), Times),
    goal(18, "sealed program per client with spares, network and mount tree shared, connections/s at 8 clients", "nsjail with all its namespaces",
        rate("tine-sealed-shared-spare", NSJAIL, "c8"), AtLeast(12.0), Times),
    goal(18, "sealed program per client with spares, network and mount tree shared, connections/s at 64 clients", "nsjail with all its namespaces",
        rate("tine-sealed-shared-spare", NSJAIL, "c64"), AtLeast(12.0), Times),
    goal(18, "sealed program per client with spares, network and mount tree shared, connections/s at 8 clients", "nsjail without a network namespace",
        rate("tine-sealed-shared-spare", NSJAIL_NONET, "c8"), AtLeast(7.0), Times),
    goal(18, "sealed program per client with spares, network and mount tree shared, connections/s at 64 clients", "nsjail without a network namespace",
        rate("tine-sealed-shared-spare", NSJAIL_NONET, "c64"), AtLeast(7.0), Times),
    goal(18, "sealed program per client with spares, network and mount tree shared, connections/s at 8 clients", "tine unconfined, with spares",
        rate("tine-sealed-shared-spare", &["tine-none-spare"], "c8"), AtLeast(0.9), Times),
    goal(18, "sealed program per client with spares, network and mount tree shared, connections/s at 64 clients", "tine unconfined, with spares",
        rate("tine-sealed-shared-spare", &["tine-none-spare"], "c64"), AtLeast(0.9), Times),
    goal(19, "sealed program per client with spares, a mount tree and a /tmp of its own, connections/s at 8 clients", "nsjail without a network namespace",
        rate("tine-sealed-spare", NSJAIL_NONET, "c8"), AtLeast(3.5), Times),
    goal(19, "sealed program per client with spares, a mount tree and a /tmp of its own, connections/s at 64 clients", "nsjail without a network namespace",
        rate("tine-sealed-spare", NSJAIL_NONET, "c64"), AtLeast(3.5), Times),
    goal(20, "sealed program per client with spares, a network of its own too, connections/s at 8 clients", "nsjail with all its namespaces",
        rate("tine-sealed-net-spare", NSJAIL, "c8"), AtLeast(2.2), Times),
    goal(20, "sealed program per client with spares, a network of its own too, connections/s at 64 clients", "nsjail with all its namespaces",
        rate("tine-sealed-net-spare", NSJAIL, "c64"), AtLeast(2.2), Times),
    goal(21, "sealed program with spares, first byte at 1 client, median: network and mount tree shared", "nsjail with all its namespaces",
        first("tine-sealed-shared-spare", NSJAIL), AtMost(0.125), Times),
    goal(21, "sealed program with spares, first byte at 1 client, median: a mount tree and a /tmp of its own", "nsjail with all its namespaces",
        first("tine-sealed-spare", NSJAIL), AtMost(0.125), Times),
    goal(21, "sealed program with spares, first byte at 1 client, median: a network of its own too", "nsjail with all its namespaces",
        first("tine-sealed-net-spare", NSJAIL), AtMost(0.125), Times),
];

/// A goal with what was found.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "they are what they are called")]
pub struct Judged {
    pub row: u32,
    pub what: &'static str,
    pub against: &'static str,
    pub goal: String,
    pub measured: Option<Summary>,
    pub verdict: Verdict,
    /// Which one was the best, what was not there, what went wrong.
    pub note: String,
    #[serde(skip)]
    pub unit: Unit,
}

/// Whether a goal is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

impl Value {
    /// In which experiment it is measured.
    pub fn experiment(&self) -> &'static str {
        match self {
            Value::Against { experiment, .. }
            | Value::Itself { experiment, .. }
            | Value::Plain { experiment, .. } => experiment,
        }
    }
}

impl Goal {
    /// What results say of it.
    pub fn judge(&self, results: &Results) -> Judged {
        let mut note = String::new();
        let measured = self.value.of(results, &mut note);
        let verdict = match (measured, self.value.ours_wrong(results)) {
            (_, Some(wrong)) => {
                note = join(&note, &format!("wrong replies: {wrong}"));
                Verdict::Missed
            }
            (None, _) => Verdict::NotMeasured,
            (Some(summary), None) if self.bound.holds(summary.median) => Verdict::Met,
            (Some(_), None) => Verdict::Missed,
        };
        let (word, least_or_most) = match self.bound {
            AtLeast(bound) => ("at least", bound),
            AtMost(bound) => ("at most", bound),
        };
        let goal = format!("{word} {}", self.unit.show(least_or_most));
        let Goal { row, what, against, unit, .. } = *self;
        Judged { row, what, against, goal, measured, verdict, note, unit }
    }
}

impl Bound {
    /// Whether a value is within it.
    pub fn holds(&self, value: f64) -> bool {
        match self {
            AtLeast(bound) => value >= *bound,
            AtMost(bound) => value <= *bound,
        }
    }
}

impl Unit {
    /// A value with its unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Times if value < 0.2 => format!("{value:.3}x"),
            Times => format!("{value:.2}x"),
            Seconds => format!("{value:.2} s"),
            Milliseconds => format!("{value:.0} ms"),
            Mebibytes => format!("{value:.2} MiB"),
            Bytes => format!("{value:.0} bytes"),
            Count => format!("{value:.0}"),
        }
    }
}

impl Value {
    fn of(&self, results: &Results, note: &mut String) -> Option<Summary> {
        match *self {
            Value::Plain { server, experiment, metric } => {
                let found = results.summary(server, experiment, metric);
                if found.is_none() {
                    *note = absent(results, server);
                }
                found
            }
            Value::Itself { server, experiment, by, metric } => {
                let found = ratio(results, (server, experiment, metric), (server, by, metric));
                if found.is_none() {
                    *note = absent(results, server);
                }
                found
            }
            Value::Against { server, others, experiment, metric, chosen } => {
                let best = best(results, others, experiment, chosen, note);
                if results.summary(server, experiment, metric).is_none() {
                    *note = join(&absent(results, server), note);
                }
                ratio(results, (server, experiment, metric), (best?, experiment, metric))
            }
        }
    }

    /// What went wrong with our own server.
    fn ours_wrong(&self, results: &Results) -> Option<String> {
        match *self {
            // Failures are what is counted here.
            Value::Plain { metric: "failed", .. } => None,
            Value::Plain { server, experiment, .. } | Value::Against { server, experiment, .. } => {
                results.wrong(server, experiment)
            }
            Value::Itself { server, experiment, by, .. } => {
                results.wrong(server, experiment).or_else(|| results.wrong(server, by))
            }
        }
    }
}

/// Whether more of a metric is better.
pub fn more_is_better(metric: &str) -> bool {
    metric == "rate"
}

/// The best of several servers, of those whose replies were all right.
fn best<'a>(
    results: &Results,
    others: &[&'a str],
    experiment: &str,
    metric: &str,
    note: &mut String,
) -> Option<&'a str> {
    let mut found: Option<(&str, f64)> = None;
    for &other in others {
        let Some(summary) = results.summary(other, experiment, metric) else {
            *note = join(note, &absent(results, other));
            continue;
        };
        if let Some(wrong) = results.wrong(other, experiment) {
            if !loses_few(results, other, experiment) {
                *note = join(note, &format!("{other} is struck: {wrong}"));
                continue;
            }
            *note = join(note, &format!("{other} had wrong replies: {wrong}"));
        }
        let better = |than: f64| {
            if more_is_better(metric) { summary.median > than } else { summary.median < than }
        };
        if found.is_none_or(|(_, value)| better(value)) {
            found = Some((other, summary.median));
        }
    }
    let (best, _) = found?;
    if others.len() > 1 {
        *note = join(&format!("the best is {best}"), note);
    }
    Some(best)
}

/// Whether it is one of those that are compared with although they lose a reply now and then.
fn loses_few(results: &Results, server: &str, experiment: &str) -> bool {
    LOSING.contains(&server)
        && results.errors(server, experiment) * LOSING_MOST <= results.done(server, experiment)
}

fn ratio(results: &Results, this: (&str, &str, &str), that: (&str, &str, &str)) -> Option<Summary> {
    let of = |(server, experiment, metric): (&str, &str, &str)| results.summary(server, experiment, metric);
    let (these, those) = (results.values(this.0, this.1, this.2), results.values(that.0, that.1, that.2));
    let pairs: Vec<(f64, f64)> = these
        .iter()
        .filter_map(|(round, this)| {
            Some((*this, those.iter().find(|(other, _)| other == round).map(|(_, that)| *that)?))
        })
        .collect();
    Some(Summary::ratio(of(this)?, of(that)?, &pairs))
}

fn absent(results: &Results, server: &str) -> String {
    match results.missing.get(server) {
        Some(why) => format!("{server}: {why}"),
        None => format!("{server} was not run"),
    }
}

fn join(one: &str, other: &str) -> String {
    match (one, other) {
        ("", only) | (only, "") => only.to_string(),
        (one, other) => format!("{one}; {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    const AGAINST: Goal = goal(1, "x", "y", rate("ours", &["one", "other"], "c8"), AtLeast(1.5), Times);

    #[test]
    fn the_best_of_those_that_are_there_is_what_counts() {
        let mut results = results(&[
            ("ours", "c8", 1, "rate", 300.0),
            ("one", "c8", 1, "rate", 100.0),
            ("other", "c8", 1, "rate", 150.0),
        ]);
        let judged = AGAINST.judge(&results);
        assert_eq!(judged.verdict, Verdict::Met);
        assert_eq!(judged.measured.map(|summary| summary.median), Some(2.0));
        assert_eq!((judged.goal.as_str(), judged.note.as_str()), ("at least 1.50x", "the best is other"));

        // A server that answers wrong is no measure.
        results.samples[2].errors.insert("wrong_reply".into(), 1);
        let judged = AGAINST.judge(&results);
        assert_eq!(judged.measured.map(|summary| summary.median), Some(3.0));
        assert_eq!(judged.note, "the best is one; other is struck: wrong_reply 1");

        results.samples[2].errors.clear();
        results.samples[2].metrics.insert("rate".into(), 201.0);
        assert_eq!(AGAINST.judge(&results).verdict, Verdict::Missed);
    }

    #[test]
    fn wrong_replies_of_our_own_miss_any_goal() {
        let mut results = results(&[("ours", "c8", 1, "rate", 300.0), ("one", "c8", 1, "rate", 100.0)]);
        results.samples[0].errors.insert("short_reply".into(), 2);
        let judged = AGAINST.judge(&results);
        assert_eq!(judged.verdict, Verdict::Missed);
        assert!(judged.note.ends_with("wrong replies: short_reply 2"), "{}", judged.note);
    }

    #[test]
    fn what_is_missing_is_said_and_judged_by_nobody() {
        let mut results = results(&[("one", "c8", 1, "rate", 100.0)]);
        results.missing.insert("ours".into(), "not in this build".into());
        let judged = AGAINST.judge(&results);
        assert_eq!(judged.verdict, Verdict::NotMeasured);
        assert_eq!(judged.note, "ours: not in this build; the best is one; other was not run");
    }

    #[test]
    fn least_is_best_where_it_is_a_time() {
        let goal = goal(1, "x", "y", first("ours", &["one", "other"]), AtMost(0.7), Times);
        let results = results(&[
            ("ours", "c1", 1, "first_p50_us", 60.0),
            ("one", "c1", 1, "first_p50_us", 100.0),
            ("other", "c1", 1, "first_p50_us", 200.0),
        ]);
        let judged = goal.judge(&results);
        assert_eq!((judged.verdict, judged.note.as_str()), (Verdict::Met, "the best is one"));
    }

    #[test]
    fn a_peer_that_loses_a_reply_now_and_then_is_a_measure_where_there_is_no_other() {
        let goal = goal(1, "x", "y", rate("ours", NSJAIL, "c8"), AtLeast(2.0), Times);
        let mut results = results(&[("ours", "c8", 1, "rate", 300.0), ("nsjail", "c8", 1, "rate", 100.0)]);
        results.samples[1].metrics.insert("done".into(), 200.0);
        results.samples[1].errors.insert("no_reply".into(), 2);
        let judged = goal.judge(&results);
        assert_eq!(
            (judged.verdict, judged.note.as_str()),
            (Verdict::Met, "nsjail had wrong replies: no_reply 2")
        );
        results.samples[1].errors.insert("no_reply".into(), 3);
        let judged = goal.judge(&results);
        assert_eq!(
            (judged.verdict, judged.note.as_str()),
            (Verdict::NotMeasured, "nsjail is struck: no_reply 3")
        );
    }

    #[test]
    fn an_eighth_is_shown_as_what_it_is() {
        assert_eq!([0.125, 0.9, 12.0].map(|value| Times.show(value)), ["0.125x", "0.90x", "12.00x"]);
    }

    #[test]
    fn the_cost_is_compared_with_that_of_the_fastest() {
        let value = Value::Against {
            server: "ours",
            others: &["one", "other"],
            experiment: "c8",
            metric: "cpu_us",
            chosen: "rate",
        };
        let mut results = results(&[
            ("ours", "c8", 1, "cpu_us", 50.0),
            ("one", "c8", 1, "rate", 100.0),
            ("other", "c8", 1, "rate", 150.0),
        ]);
        results.samples[1].metrics.insert("cpu_us".into(), 10.0);
        results.samples[2].metrics.insert("cpu_us".into(), 100.0);
        let judged = goal(1, "x", "y", value, AtMost(0.5), Times).judge(&results);
        assert_eq!(judged.measured.map(|summary| summary.median), Some(0.5));
        assert_eq!(judged.verdict, Verdict::Met);
    }

    #[test]
    fn every_row_is_there_in_order() {
        let mut rows: Vec<u32> = GOALS.iter().map(|goal| goal.row).collect();
        assert!(rows.is_sorted());
        rows.dedup();
        assert_eq!(rows, (1..=21).collect::<Vec<_>>());
    }
}
