//! What is done with a server: closed loops, loops with idle clients held, sessions that stay open while others arrive, a crowd that
//! ends at once, a burst, a start, datagrams.
//!
//! Each experiment starts a server of its own, so that none finds what another has left, and gives samples. All load comes
//! from the generator in a process of its own, so that its processor time is known.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::report::Report;
use crate::load::target::Target;
use crate::procfs::{available, children, monotonic_ns, threads, written};
use crate::running::{Ports, Running};
use crate::servers::{Kind, Place, SERVERS, Server, Whose};

/// Clients of the closed loops.
pub const CLIENTS: [usize; 3] = [1, 8, 64];

/// Idle clients held while a closed loop runs.
pub const HELD: [usize; 3] = [0, 5_000, 10_000];

/// Clients of that loop.
pub const HELD_CLIENTS: usize = 8;

/// Idle clients that end at once.
pub const CROWD: usize = 10_000;

/// Clients that come at once.
pub const BURST: usize = 4_000;

/// How often a server is started to see how long that takes.
pub const STARTS: usize = 9;

/// Sessions that stay open while others arrive.
pub const OPEN: usize = 8;

/// Seconds from one byte of such a session to the next.
pub const EVERY: f64 = 0.004;

/// Those that arrive meanwhile, in a closed loop.
pub const ARRIVING: usize = 4;

/// The program that servers start.
pub const TARGET: &str = "target";

/// The one that stays for as long as its client does.
const SESSION: &str = "session";

/// How long everybody has to become quiet before memory is looked at.
const SETTLE: Duration = Duration::from_millis(700);

/// How long a server has to reap its dead.
const REAPING: Duration = Duration::from_secs(60);

/// How long it is gone by the number of all threads of this machine, before it is counted exactly who is left.
const REAPING_UNSEEN: Duration = Duration::from_secs(5);

/// Threads of others that may have come up meanwhile.
const STRANGERS: u64 = 32;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "they are what they are called")]
pub struct Pace {
    pub seconds: f64,
    pub warmup: f64,
}

/// One thing that is done with servers.
pub struct Experiment {
    /// Its name; samples have finer ones.
    pub name: &'static str,
    /// Whether it is done with this server.
    pub with: fn(&Server) -> bool,
    /// In how many rounds at most.
    pub rounds: u32,
    /// Does it.
    pub run: fn(&Server, &Place, Pace) -> Result<Vec<Found>, String>,
}

/// What came of it: metrics and errors under the name of the experiment as samples have it.
pub struct Found {
    /// `c8`, `idle5000`, `crowd` ...
    pub experiment: String,
    /// By name.
    pub metrics: BTreeMap<String, f64>,
    /// By kind.
    pub errors: BTreeMap<String, u64>,
}

/// All of them, in the order in which a round has them.
#[rustfmt::skip]
pub const EXPERIMENTS: &[Experiment] = &[
    Experiment { name: "rate", with: |server| !matches!(server.kind, Kind::Datagram | Kind::Confined), rounds: u32::MAX, run: rate },
    Experiment { name: "confined", with: |server| server.kind == Kind::Confined, rounds: u32::MAX, run: confined },
    Experiment { name: "confined-open", with: |server| named(server, &["tine-none", "tine-sealed", "tine-sealed-spare", "tine-sealed-net", "tine-sealed-net-spare", "nsjail"]), rounds: u32::MAX, run: open },
    Experiment { name: "udp", with: |server| server.kind == Kind::Datagram, rounds: u32::MAX, run: udp },
    Experiment { name: "start", with: |server| named(server, &["tine", "tine-auto", "tcpserver", "tcpsvd", "s6-tcpserver", "c-vfork"]), rounds: u32::MAX, run: start },
    Experiment { name: "burst", with: |server| named(server, &["tine", "tine-auto", "tcpserver", "tcpsvd", "s6-tcpserver", "c-vfork", "handler", "handler-auto", "c-fork"]), rounds: u32::MAX, run: burst },
    Experiment { name: "idle", with: |server| named(server, &["tine", "tine-auto", "tcpserver", "c-vfork", "c-vfork-ign", "handler", "handler-auto", "c-fork", "c-fork-ign"]), rounds: 2, run: idle },
    Experiment { name: "crowd", with: |server| named(server, &["tine", "tine-auto", "c-vfork", "handler", "handler-auto", "c-fork"]), rounds: 2, run: crowd },
];

fn named(server: &Server, names: &[&str]) -> bool {
    names.contains(&server.name)
}

/// Does an experiment with one server, at a port of its own.
///
/// # Errors
/// What kept it from being done at all.
pub fn run(
    experiment: &Experiment,
    server: &Server,
    place: &mut Place,
    ports: &mut Ports,
    pace: Pace,
) -> Result<Vec<Found>, String> {
    place.port = ports.take()?;
    (experiment.run)(server, place, pace)
}

fn rate(server: &Server, place: &Place, pace: Pace) -> Result<Vec<Found>, String> {
    let running = Running::start(server, place)?;
    let mut found = Vec::new();
    for clients in CLIENTS {
        let report = closed(place, &running.target, clients, 0, pace)?;
        found.push(Found::of(format!("c{clients}"), &report));
    }
    Ok(found)
}

/// For twice as long: the slowest of these answer 64 clients in waves, of which a short time holds few.
fn confined(server: &Server, place: &Place, pace: Pace) -> Result<Vec<Found>, String> {
    rate(server, place, Pace { seconds: 2.0 * pace.seconds, warmup: 2.0 * pace.warmup })
}

fn idle(server: &Server, place: &Place, pace: Pace) -> Result<Vec<Found>, String> {
    let running = Running::start(server, place)?;
    let quiet = children(running.pid());
    let mut found = Vec::new();
    for held in HELD {
        // Ten thousand are asked of handlers only.
        if held == HELD[2] && server.kind == Kind::Program {
            continue;
        }
        let report = closed(place, &running.target, HELD_CLIENTS, held, pace)?;
        found.push(Found::of(format!("idle{held}"), &report));
        reaped(&running, &quiet)?;
    }
    Ok(found)
}

/// Sessions that stay open: how long their bytes take alone, and while others arrive.
fn open(server: &Server, place: &Place, pace: Pace) -> Result<Vec<Found>, String> {
    let place = Place { program: SESSION, ..place.clone() };
    let running = Running::start(server, &place)?;
    let mut command = generator(&place, &running.target, pace);
    command.args(["--open", &OPEN.to_string(), "--every", &EVERY.to_string()]);
    let report = output(command.args(["--clients", &ARRIVING.to_string()]))?;
    Ok(vec![Found::of_sessions(&report)])
}

fn udp(server: &Server, place: &Place, pace: Pace) -> Result<Vec<Found>, String> {
    let running = Running::start(server, place)?;
    let mut found = Vec::new();
    for (name, options) in [("udp", &[][..]), ("udp-gso", &["--gso"])] {
        let mut command = generator(place, &running.target, pace);
        command.args(["--udp", "--flows", "8", "--in-flight", "64", "--size", "64"]).args(options);
        found.push(Found::of(name.into(), &output(&mut command)?));
    }
    Ok(found)
}

fn burst(server: &Server, place: &Place, pace: Pace) -> Result<Vec<Found>, String> {
    let running = Running::start(server, place)?;
    let mut command = generator(place, &running.target, pace);
    let report = output(command.args(["--burst", &BURST.to_string()]))?;
    let mut found = Found::of("burst".into(), &report);
    let longest = |spread: Option<crate::load::report::Spread>| spread.map(|spread| spread.max / 1e3);
    found.note("connect_max_ms", longest(report.connect_us));
    found.note("first_max_ms", longest(report.first_us));
    found.note("failed", Some((BURST as u64 - report.checked) as f64));
    Ok(vec![found])
}

fn start(server: &Server, place: &Place, _: Pace) -> Result<Vec<Found>, String> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        times.push(Running::start(server, place)?.started.as_secs_f64() * 1e3);
    }
    let mut found = Found::new("start");
    found.note("start_ms", crate::stats::Summary::of(&times).map(|summary| summary.median));
    Ok(vec![found])
}

/// Idle clients: what they cost while they are there, and how long it takes to reap them when all leave at once.
fn crowd(server: &Server, place: &Place, _: Pace) -> Result<Vec<Found>, String> {
    let running = Running::start(server, place)?;
    let mut found = Found::new("crowd");
    thread::sleep(SETTLE);
    // Those that are here before any client are acceptors: the master and they are what is to stay small.
    let quiet = children(running.pid());
    let masters = || quiet.iter().map(|pid| written(*pid)).sum::<u64>() + written(running.pid());
    let (memory, master, before) = (available(), masters(), threads());
    let served = if server.whose == Whose::Ours { running.served() } else { None };

    let mut crowd = Crowd::open(place, &running.target)?;
    thread::sleep(SETTLE);
    found.note("held_s", crowd.report.held_seconds);
    found.note("client_kib", Some((memory as f64 - available() as f64) / CROWD as f64));
    let grown = masters().saturating_sub(master) as f64;
    found.note("master_mib", Some(grown / f64::from(1 << 20)));
    found.note("master_bytes", Some(grown / CROWD as f64));

    crowd.release()?;
    // Looking for ten thousand children is work that the server would have to share its processors with.
    let look = Instant::now() + REAPING_UNSEEN;
    while threads() > before + STRANGERS && Instant::now() < look {
        thread::sleep(Duration::from_millis(2));
    }
    reaped(&running, &quiet)?;
    let end = monotonic_ns();
    let report = crowd.end()?;
    let since = |at: u64| end.saturating_sub(at) as f64 / 1e9;
    found.note("reaped_s", report.released_at_ns.map(since));
    found.note("released_s", report.released_seconds);
    found.errors.extend(report.errors);
    if let Some(before) = served {
        // With status: the server has counted each one.
        let counted = running.served().map_or(0, |served| served - before);
        if counted != CROWD as u64 {
            found.errors.insert("not_counted".into(), (CROWD as u64).abs_diff(counted));
        }
    }
    Ok(vec![found])
}

/// Waits until a server and its acceptors have no children but those they had when they were quiet.
fn reaped(running: &Running, quiet: &[u32]) -> Result<(), String> {
    let deadline = Instant::now() + REAPING;
    let left = || {
        let own = children(running.pid()).iter().filter(|pid| !quiet.contains(pid)).count();
        own + quiet.iter().map(|pid| children(*pid).len()).sum::<usize>()
    };
    while left() > 0 {
        if Instant::now() > deadline {
            return Err(format!("{} children are left a minute after their clients have gone", left()));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn closed(place: &Place, target: &Target, clients: usize, held: usize, pace: Pace) -> Result<Report, String> {
    let mut command = generator(place, target, pace);
    output(command.args(["--clients", &clients.to_string(), "--hold", &held.to_string()]))
}

fn generator(place: &Place, target: &Target, pace: Pace) -> Command {
    let mut command = Command::new(place.built.join("load"));
    let to = match target {
        Target::Inet(to) => format!("tcp://{to}"),
        Target::Unix(path) => format!("unix:{path}"),
    };
    command.args(["--to", &to, "--seconds", &pace.seconds.to_string(), "--warmup", &pace.warmup.to_string()]);
    command.stdin(Stdio::null());
    command
}

/// The generator's report; its exit status only says whether there are errors in it.
fn output(command: &mut Command) -> Result<Report, String> {
    let output = command.output().map_err(|why| format!("load: {why}"))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("load: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The generator with idle clients that wait to be let go.
struct Crowd {
    load: Child,
    said: BufReader<std::process::ChildStdout>,
    report: Report,
}

impl Crowd {
    fn open(place: &Place, target: &Target) -> Result<Crowd, String> {
        let mut command = generator(place, target, Pace { seconds: 0.0, warmup: 0.0 });
        command
            .args(["--hold", &CROWD.to_string(), "--release"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut load = command.stderr(Stdio::inherit()).spawn().map_err(|why| format!("load: {why}"))?;
        let mut said = BufReader::new(load.stdout.take().expect("stdout was asked to be a pipe"));
        match next(&mut said) {
            Ok(report) => Ok(Crowd { load, said, report }),
            Err(why) => {
                let _ = load.wait();
                Err(why)
            }
        }
    }

    fn release(&mut self) -> Result<(), String> {
        let mut stdin = self.load.stdin.take().expect("stdin was asked to be a pipe");
        stdin.write_all(b"\n").map_err(|why| format!("tell load: {why}"))
    }

    fn end(mut self) -> Result<Report, String> {
        let report = next(&mut self.said);
        let _ = self.load.wait();
        report
    }
}

fn next(said: &mut impl BufRead) -> Result<Report, String> {
    let mut line = String::new();
    said.read_line(&mut line).map_err(|why| format!("load: {why}"))?;
    serde_json::from_str(&line).map_err(|_| "load could not hold its clients".to_string())
}

impl Found {
    fn new(experiment: &str) -> Found {
        Found { experiment: experiment.into(), metrics: BTreeMap::new(), errors: BTreeMap::new() }
    }

    fn of(experiment: String, report: &Report) -> Found {
        let mut found = Found::new(&experiment);
        found.errors.clone_from(&report.errors);
        found.note("done", Some(report.done as f64));
        found.note("rate", (report.done > 0).then_some(report.per_second));
        found.note("first_p50_us", report.first_us.map(|spread| spread.p50));
        found.note("first_p99_us", report.first_us.map(|spread| spread.p99));
        found.note("whole_p50_us", report.whole_us.map(|spread| spread.p50));
        found.note("whole_p99_us", report.whole_us.map(|spread| spread.p99));
        found.note("cpu_us", report.cpu_us);
        found.note("own_cpu_us", report.own_cpu_us);
        found.note("lost", report.lost.map(|lost| lost as f64));
        found.note("held_s", report.held_seconds);
        found
    }

    fn of_sessions(report: &Report) -> Found {
        let mut found = Found::new("open");
        found.errors.clone_from(&report.errors);
        let (alone, arrivals) = (report.open_alone_us, report.open_us);
        found.note("done", Some(report.done as f64));
        found.note("rate", (report.done > 0).then_some(report.per_second));
        found.note("alone_p50_us", alone.map(|spread| spread.p50));
        found.note("alone_p99_us", alone.map(|spread| spread.p99));
        found.note("open_p50_us", arrivals.map(|spread| spread.p50));
        found.note("open_p99_us", arrivals.map(|spread| spread.p99));
        found.note("p50_ratio", arrivals.zip(alone).map(|(this, that)| this.p50 / that.p50));
        found.note("p99_ratio", arrivals.zip(alone).map(|(this, that)| this.p99 / that.p99));
        found
    }

    fn note(&mut self, metric: &str, value: Option<f64>) {
        self.metrics.extend(value.map(|value| (metric.to_string(), value)));
    }
}

/// The servers that a run has: all, or those of a quick one.
pub fn servers(quick: bool) -> impl Iterator<Item = &'static Server> {
    SERVERS.iter().filter(move |server| server.quick || !quick)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::report::Spread;

    fn spread(p50: f64, p99: f64) -> Option<Spread> {
        Some(Spread { min: 1.0, mean: p50, p50, p90: p99, p99, p999: p99, max: p99 })
    }

    #[test]
    fn sessions_are_compared_with_themselves_alone() {
        let report = Report {
            done: 9,
            open_alone_us: spread(20.0, 40.0),
            open_us: spread(30.0, 400.0),
            ..Report::new("sessions")
        };
        let found = Found::of_sessions(&report);
        let ratios = ["p50_ratio", "p99_ratio"].map(|metric| found.metrics[metric]);
        assert_eq!((found.experiment.as_str(), ratios), ("open", [1.5, 10.0]));
        let nothing = Found::of_sessions(&Report::new("sessions")).metrics;
        assert_eq!(nothing.into_keys().collect::<Vec<_>>(), ["done"]);
    }

    #[test]
    fn what_is_confined_is_measured_apart_and_asked_for_by_one_word() {
        for server in SERVERS {
            let names: Vec<_> =
                EXPERIMENTS.iter().filter(|one| (one.with)(server)).map(|one| one.name).collect();
            assert!(!names.is_empty(), "{} is in none", server.name);
            let confined = names.iter().all(|name| name.contains("confined"));
            assert_eq!(confined, server.kind == Kind::Confined, "{}", server.name);
            assert!(
                !server.name.contains("confined"),
                "--only confined is to ask for these experiments alone"
            );
        }
    }
}
