//! The page that shows what a run has found: the template's text with figures in it, and charts. Pure.
//!
//! Whatever is no number is in the template, `bench/performance.md.in`, so that a run writes the whole page anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::chart::{Bar, bars, figure};
use crate::experiments::{ARRIVING, BURST, CLIENTS, CROWD, EVERY, HELD, OPEN};
use crate::goals::{GOALS, Judged, Unit, Verdict, more_is_better};
use crate::repeat::{Repeat, repeats};
use crate::results::Results;
use crate::servers::{Kind, SERVERS, Server, Whose};
use crate::stats::Summary;

const TEMPLATE: &str = include_str!("../performance.md.in");

/// The page, and the charts that it shows by the names of their files.
pub fn render(results: &Results, before: Option<&Results>) -> (String, Vec<(String, String)>) {
    let charts = charts(results);
    let judged = judge(results);
    let met = judged.iter().filter(|goal| goal.verdict == Verdict::Met).count();
    let missed = judged.iter().filter(|goal| goal.verdict == Verdict::Missed).count();
    let parts = BTreeMap::from([
        ("kind", kind(results)),
        ("machine", pairs(&results.machine)),
        ("versions", pairs(&results.versions)),
        ("rounds", results.rounds.to_string()),
        ("seconds", format!("{}", results.seconds)),
        ("warmup", format!("{}", results.warmup)),
        ("count", format!("{met} met, {missed} missed, {} not measured", judged.len() - met - missed)),
        ("goals", goals(&judged)),
        ("charts", shown(&charts)),
        ("programs", streams(results, Kind::Program)),
        ("handlers", streams(results, Kind::Handler)),
        ("confined", streams(results, Kind::Confined)),
        ("open", table(results, Kind::Confined, OPENED)),
        ("open_size", OPEN.to_string()),
        ("open_every", figure(EVERY * 1e3)),
        ("arriving", ARRIVING.to_string()),
        ("idle", table(results, Kind::Program, IDLE) + &rows_only(&table(results, Kind::Handler, IDLE))),
        (
            "crowd",
            table(results, Kind::Program, CROWDED) + &rows_only(&table(results, Kind::Handler, CROWDED)),
        ),
        ("burst", table(results, Kind::Program, BURSTS) + &rows_only(&table(results, Kind::Handler, BURSTS))),
        ("start", table(results, Kind::Program, START)),
        ("datagrams", table(results, Kind::Datagram, DATAGRAMS)),
        ("servers", servers(results)),
        ("missing", missing(results)),
        ("wrong", wrong(results)),
        ("losses", losses(results, &judged)),
        (
            "repeats",
            before.map_or_else(
                || "None was compared with (`--against FILE`).".into(),
                |before| repeated(results, before),
            ),
        ),
        ("crowd_size", figure(CROWD as f64)),
        ("burst_size", figure(BURST as f64)),
    ]);
    (fill(TEMPLATE, &parts), charts)
}

/// All goals, judged.
pub fn judge(results: &Results) -> Vec<Judged> {
    GOALS.iter().map(|goal| goal.judge(results)).collect()
}

/// The goals alone, as lines for a terminal.
pub fn lines<'a>(judged: impl IntoIterator<Item = &'a Judged>) -> String {
    let mut text = String::new();
    for goal in judged {
        let against = if goal.against.is_empty() { String::new() } else { format!(" / {}", goal.against) };
        let note = if goal.note.is_empty() { String::new() } else { format!(" [{}]", goal.note) };
        let _ = writeln!(
            text,
            "goal   row={} {}: {}{against}: {}, measured {}{note}",
            goal.row,
            word(goal.verdict),
            goal.what,
            goal.goal,
            measured(goal)
        );
    }
    text
}

/// How this run and one before agree.
pub fn repeated(now: &Results, before: &Results) -> String {
    let all = repeats(now, before);
    let apart: Vec<_> = all.iter().filter(|repeat| !repeat.agrees()).collect();
    let turned = all.iter().filter(|repeat| !repeat.same_verdict).count();
    let mut text = format!(
        "{} of {} figures agree with those of a run before ({} rounds): their spreads touch. If chance alone made rounds differ, {:.0} would: the \
         spreads of three rounds and three of one thing are apart in one case of ten, of two and two in one of three, and one round has none. \
         {turned} are met in one of the two runs and missed in the other.\n",
        all.len() - apart.len(),
        all.len(),
        before.rounds,
        all.iter().map(Repeat::likely).sum::<f64>(),
    );
    if !apart.is_empty() {
        text.push_str("These do not:\n\n| row | what | against | this run | the run before | change |\n|---|---|---|---|---|---|\n");
    }
    for Repeat { row, what, against, unit, now, before, .. } in apart.iter().copied() {
        let change = 100.0 * (now.median / before.median - 1.0);
        let (now, before) = (spread(*unit, *now), spread(*unit, *before));
        let _ = writeln!(text, "| {row} | {what} | {against} | {now} | {before} | {change:+.0} % |");
    }
    text
}

fn fill(template: &str, parts: &BTreeMap<&str, String>) -> String {
    let mut text = template.to_string();
    for (name, value) in parts {
        text = text.replace(&format!("{{{{{name}}}}}"), value.trim_end());
    }
    text
}

fn kind(results: &Results) -> String {
    let mut text = String::new();
    if results.quick {
        text.push_str("**This was a quick run (`--quick`): good for a first look, not for any claim.**\n");
    }
    if let Some(only) = &results.only {
        let _ = writeln!(text, "**Only a part was run (`--only {only}`).**");
    }
    text
}

fn pairs(rows: &[(String, String)]) -> String {
    let rows = rows.iter().map(|(name, value)| format!("| {name} | {} |\n", value.replace('|', "/")));
    format!("| | |\n|---|---|\n{}", rows.collect::<String>())
}

fn goals(judged: &[Judged]) -> String {
    let mut text = String::from(
        "| row | what | against | goal | measured (rounds) | | note |\n|---|---|---|---|---|---|---|\n",
    );
    for goal in judged {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            goal.row,
            goal.what,
            goal.against,
            goal.goal,
            measured(goal),
            word(goal.verdict),
            goal.note
        );
    }
    text
}

fn measured(goal: &Judged) -> String {
    goal.measured.map_or_else(|| "-".into(), |measured| spread(goal.unit, measured))
}

fn spread(unit: Unit, Summary { median, least, most }: Summary) -> String {
    let show = |value| unit.show(value);
    if least == most {
        return show(median);
    }
    format!("{} ({} to {})", show(median), show(least), show(most))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "MISSED",
        Verdict::NotMeasured => "not measured",
    }
}

/// A column of a table: its head, experiment and metric.
type Column = (&'static str, &'static str, &'static str);

const STREAMS: &[Column] = &[
    ("1 client, /s", "c1", "rate"),
    ("8, /s", "c8", "rate"),
    ("64, /s", "c64", "rate"),
    ("first byte at 1, us", "c1", "first_p50_us"),
    ("at 64, us", "c64", "first_p50_us"),
    ("99 % at 8, us", "c8", "first_p99_us"),
    ("processor time at 8, us", "c8", "cpu_us"),
    ("at 64, us", "c64", "cpu_us"),
];

const IDLE: &[Column] = &[
    ("none held, /s", "idle0", "rate"),
    ("5,000 held, /s", "idle5000", "rate"),
    ("10,000 held, /s", "idle10000", "rate"),
    ("processor time at 5,000, us", "idle5000", "cpu_us"),
];

const CROWDED: &[Column] = &[
    ("a client, KiB", "crowd", "client_kib"),
    ("master grown by, MiB", "crowd", "master_mib"),
    ("a child, bytes", "crowd", "master_bytes"),
    ("all reaped after, s", "crowd", "reaped_s"),
    ("of that: closing them, s", "crowd", "released_s"),
    ("taking them before, s", "crowd", "held_s"),
];

const BURSTS: &[Column] = &[
    ("longest wait for the connection, ms", "burst", "connect_max_ms"),
    ("longest wait for the first byte, ms", "burst", "first_max_ms"),
    ("refused or failed", "burst", "failed"),
];

const OPENED: &[Column] = &[
    ("alone, median, us", "open", "alone_p50_us"),
    ("99 %, us", "open", "alone_p99_us"),
    ("while others arrive, median, us", "open", "open_p50_us"),
    ("99 %, us", "open", "open_p99_us"),
    ("median by that alone", "open", "p50_ratio"),
    ("99 % by that alone", "open", "p99_ratio"),
    ("arrivals, /s", "open", "rate"),
];

const START: &[Column] = &[("to the first client served, ms", "start", "start_ms")];

const DATAGRAMS: &[Column] = &[
    ("one by one, /s", "udp", "rate"),
    ("processor time, us", "udp", "cpu_us"),
    ("lost", "udp", "lost"),
    ("GSO senders, /s", "udp-gso", "rate"),
    ("processor time, us", "udp-gso", "cpu_us"),
    ("lost", "udp-gso", "lost"),
];

fn streams(results: &Results, kind: Kind) -> String {
    table(results, kind, STREAMS)
}

fn table(results: &Results, kind: Kind, columns: &[Column]) -> String {
    let mut text = String::from("| server |");
    columns.iter().for_each(|(head, _, _)| text.push_str(&format!(" {head} |")));
    text.push_str("\n|---|");
    columns.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    for server in SERVERS.iter().filter(|server| server.kind == kind) {
        let cells: Vec<Option<String>> = columns.iter().map(|column| cell(results, server, column)).collect();
        if cells.iter().all(Option::is_none) {
            // A server that was to be there has its row, with the reason.
            if let Some(why) = results.missing.get(server.name)
                && columns == STREAMS
            {
                let _ =
                    writeln!(text, "| {} | missing: {why} |{}", server.name, " |".repeat(columns.len() - 1));
            }
            continue;
        }
        let _ = write!(text, "| {} |", server.name);
        for cell in cells {
            let _ = write!(text, " {} |", cell.unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

/// A figure with its spread; struck where replies were wrong.
fn cell(results: &Results, server: &Server, (_, experiment, metric): &Column) -> Option<String> {
    let Summary { median, least, most } = results.summary(server.name, experiment, metric)?;
    let text = if least == most {
        figure(median)
    } else {
        format!("{} ({}-{})", figure(median), figure(least), figure(most))
    };
    let struck = *metric != "failed" && *metric != "lost" && results.wrong(server.name, experiment).is_some();
    Some(if struck { format!("~~{text}~~ wrong") } else { text })
}

fn rows_only(table: &str) -> String {
    table.split_inclusive('\n').skip(2).collect()
}

fn servers(results: &Results) -> String {
    let mut text = String::from("| server | what it is, and what is unfair |\n|---|---|\n");
    for server in SERVERS {
        let there = match results.missing.get(server.name) {
            Some(why) => format!(" **Missing here: {why}.**"),
            None => String::new(),
        };
        let _ = writeln!(text, "| {} | {}.{there} |", server.name, server.about);
    }
    text
}

fn missing(results: &Results) -> String {
    if results.missing.is_empty() {
        return "None was missing.".into();
    }
    results.missing.iter().map(|(name, why)| format!("- {name}: {why}\n")).collect()
}

fn wrong(results: &Results) -> String {
    let mut text = String::new();
    for server in SERVERS {
        for experiment in results.experiments(server.name) {
            if let Some(wrong) = results.wrong(server.name, experiment) {
                let _ = writeln!(text, "- {} in {experiment}: {wrong}", server.name);
            }
        }
    }
    if text.is_empty() { "Every reply of every server was right.".into() } else { text }
}

/// What it is compared with where it is said that tine is slower.
const OURS: [(Kind, &str); 4] = [
    (Kind::Program, "tine"),
    (Kind::Handler, "handler"),
    (Kind::Datagram, "handler-udp"),
    (Kind::Confined, "tine-sealed"),
];

fn losses(results: &Results, judged: &[Judged]) -> String {
    let mut text = String::new();
    for goal in judged.iter().filter(|goal| goal.verdict == Verdict::Missed) {
        let against =
            if goal.against.is_empty() { String::new() } else { format!(", against {}", goal.against) };
        let _ = writeln!(text, "- Goal missed: {}{against}: {}, {}.", goal.what, goal.goal, measured(goal));
    }
    for (kind, ours) in OURS {
        for experiment in experiments() {
            let Some(own) = results.summary(ours, &experiment, "rate") else { continue };
            let mut faster: Vec<(f64, &str)> = SERVERS
                .iter()
                .filter(|server| server.kind == kind && server.whose != Whose::Ours)
                .filter(|server| results.wrong(server.name, &experiment).is_none())
                .filter_map(|server| {
                    Some((
                        results.summary(server.name, &experiment, "rate")?.median / own.median,
                        server.name,
                    ))
                })
                .filter(|(ratio, _)| *ratio > 1.0)
                .collect();
            faster.sort_by(|one, other| other.0.total_cmp(&one.0));
            if !faster.is_empty() {
                let list: Vec<String> =
                    faster.iter().map(|(ratio, name)| format!("{name} {ratio:.2}x")).collect();
                let _ = writeln!(text, "- Faster than `{ours}` in {experiment}: {}.", list.join(", "));
            }
        }
    }
    if text.is_empty() { "Nowhere in this run.".into() } else { text }
}

fn experiments() -> Vec<String> {
    let streams = CLIENTS.iter().map(|clients| format!("c{clients}"));
    let idle = HELD.iter().map(|held| format!("idle{held}"));
    streams.chain(idle).chain(["udp".into(), "udp-gso".into()]).collect()
}

/// What a chart shows.
struct Chart {
    file: &'static str,
    title: &'static str,
    about: &'static str,
    kinds: &'static [Kind],
    experiment: &'static str,
    metric: &'static str,
}

const CHARTS: &[Chart] = &[
    Chart {
        file: "performance-programs.svg",
        title: "A program for each client",
        about: "connections a second, 64 clients",
        kinds: &[Kind::Program],
        experiment: "c64",
        metric: "rate",
    },
    Chart {
        file: "performance-handlers.svg",
        title: "A handler for each client",
        about: "connections a second, 64 clients",
        kinds: &[Kind::Handler],
        experiment: "c64",
        metric: "rate",
    },
    Chart {
        file: "performance-first-byte.svg",
        title: "First byte at one client",
        about: "median, microseconds; shorter is better",
        kinds: &[Kind::Program, Kind::Handler],
        experiment: "c1",
        metric: "first_p50_us",
    },
    Chart {
        file: "performance-idle.svg",
        title: "With 5,000 idle clients held",
        about: "connections a second, 8 clients",
        kinds: &[Kind::Program, Kind::Handler],
        experiment: "idle5000",
        metric: "rate",
    },
    Chart {
        file: "performance-confined.svg",
        title: "A confined program for each client",
        about: "connections a second, 64 clients",
        kinds: &[Kind::Confined],
        experiment: "c64",
        metric: "rate",
    },
    Chart {
        file: "performance-datagrams.svg",
        title: "Datagrams of 64 bytes echoed",
        about: "a second, 8 flows by 64 under way",
        kinds: &[Kind::Datagram],
        experiment: "udp",
        metric: "rate",
    },
];

/// The charts of which there is something to be shown, the best bar first.
fn charts(results: &Results) -> Vec<(String, String)> {
    let drawn = |chart: &Chart| {
        let Chart { experiment, metric, .. } = *chart;
        let mut found: Vec<Bar> = SERVERS
            .iter()
            .filter(|server| {
                chart.kinds.contains(&server.kind) && !matches!(server.name, "tine-on" | "tine-off")
            })
            .filter(|server| results.wrong(server.name, experiment).is_none())
            .filter_map(|server| {
                Some(Bar {
                    name: server.name.into(),
                    value: results.summary(server.name, experiment, metric)?,
                    ours: server.whose == Whose::Ours,
                    bare: server.whose == Whose::Bare,
                })
            })
            .collect();
        found.sort_by(|one, other| one.value.median.total_cmp(&other.value.median));
        if more_is_better(metric) {
            found.reverse();
        }
        (!found.is_empty()).then(|| (chart.file.to_string(), bars(chart.title, chart.about, &found)))
    };
    CHARTS.iter().filter_map(drawn).collect()
}

fn shown(charts: &[(String, String)]) -> String {
    let title = |file: &str| CHARTS.iter().find(|chart| chart.file == file).map_or("", |chart| chart.title);
    charts.iter().map(|(file, _)| format!("![{}]({file})\n\n", title(file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::results;

    #[test]
    fn the_template_is_filled_whole() {
        let (page, _) = render(&results(&[("tine", "c8", 1, "rate", 5_000.0)]), None);
        assert!(!page.contains("{{") && !page.contains("}}"), "{page}");
        assert!(page.contains("| tine |  | 5,000 |"), "{page}");
        for goal in GOALS {
            assert!(page.contains(goal.what), "{}", goal.what);
        }
    }

    #[test]
    fn a_figure_with_wrong_replies_is_struck_and_told() {
        let mut results = results(&[("socat", "c8", 1, "rate", 100.0), ("socat", "c8", 2, "rate", 300.0)]);
        assert!(table(&results, Kind::Program, STREAMS).contains("200 (100-300)"));
        results.samples[0].errors.insert("no_reply".into(), 7);
        let (page, charts) = render(&results, None);
        assert!(page.contains("~~200 (100-300)~~ wrong"), "{page}");
        assert!(page.contains("- socat in c8: no_reply 7"), "{page}");
        assert!(charts.is_empty());
    }

    #[test]
    fn what_is_confined_has_tables_of_its_own() {
        let results = results(&[
            ("tine-sealed", "c8", 1, "rate", 2_000.0),
            ("tine-sealed", "open", 1, "p99_ratio", 1.5),
            ("tine", "c8", 1, "rate", 5_000.0),
        ]);
        let (page, _) = render(&results, None);
        let of =
            |head: &str| page.split(head).nth(1).and_then(|rest| rest.split("\n##").next()).unwrap_or("");
        let (confined, open) =
            (of("### A confined program for each client"), of("### Sessions that stay open"));
        assert!(
            confined.contains("| tine-sealed |  | 2,000 |") && !confined.contains("| tine |"),
            "{confined}"
        );
        assert!(open.contains("| tine-sealed |  |  |  |  |  | 1.50 |"), "{open}");
    }

    #[test]
    fn whatever_is_missing_has_its_row() {
        let mut results = results(&[("tine", "c8", 1, "rate", 5_000.0)]);
        results.missing.insert("xinetd".into(), "not installed (package xinetd)".into());
        let table = table(&results, Kind::Program, STREAMS);
        assert!(table.contains("| xinetd | missing: not installed (package xinetd) |"), "{table}");
        let columns = |line: &str| line.matches('|').count();
        assert!(
            table.lines().all(|line| columns(line) == columns(table.lines().next().unwrap_or(""))),
            "{table}"
        );
    }

    #[test]
    fn where_others_are_faster_is_told() {
        let mut results = results(&[
            ("tine", "c8", 1, "rate", 1_000.0),
            ("tcpserver", "c8", 1, "rate", 1_500.0),
            ("tcpsvd", "c8", 1, "rate", 900.0),
            ("c-vfork", "c8", 1, "rate", 2_000.0),
        ]);
        let told = losses(&results, &[]);
        assert_eq!(told, "- Faster than `tine` in c8: c-vfork 2.00x, tcpserver 1.50x.\n");
        results.samples[0].metrics.insert("rate".into(), 3_000.0);
        assert_eq!(losses(&results, &[]), "Nowhere in this run.");
    }

    #[test]
    fn charts_have_the_best_bar_first() {
        let results = results(&[
            ("tine", "c64", 1, "rate", 1_000.0),
            ("tcpserver", "c64", 1, "rate", 1_500.0),
            ("tine-on", "c64", 1, "rate", 1.0),
        ]);
        let charts = charts(&results);
        assert_eq!(charts.len(), 1);
        let at = |name: &str| charts[0].1.find(&format!(">{name}</text>"));
        assert!(at("tcpserver") < at("tine") && at("tine-on").is_none());
    }
}
