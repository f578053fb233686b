//! What each layer of confinement stops, written down; and what a neighbour feels while somebody uses up all that there is.
//!
//! No tests: `cargo xtask escapes` runs this, as `escapes table FILE [BEGINNING]` and `escapes neighbour PROFILE`.

mod jailbreak;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use jailbreak::table::{Attempt, Open, Shut, attempts};
use jailbreak::{GUARDED, Outcome, SEALED, Scenario};
use support::Folder;
use tine_testkit::Stream;
use tine_testkit::server::until;

fn main() -> ExitCode {
    if !support::is_root() {
        eprintln!("escapes: it takes root");
        return ExitCode::FAILURE;
    }
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["table", to] => write_down(Path::new(to), ""),
        ["table", to, only] => write_down(Path::new(to), only),
        ["neighbour", profile] => return measure_a_neighbour(profile),
        _ => {
            eprintln!("escapes: table FILE [BEGINNING], or neighbour PROFILE");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// All layers, and the limits of `sealed`, each of which is tried alone.
const LAYERS: [&str; 14] = [
    "privileges",
    "files",
    "network",
    "scope",
    "calls",
    "user",
    "pid",
    "mount",
    "net",
    "ipc",
    "uts",
    "cgroup",
    "identity",
    "limits",
];

/// The attempts whose names begin so.
fn wanted(only: &str) -> Vec<Attempt> {
    attempts().into_iter().filter(|attempt| attempt.name.starts_with(only)).collect()
}

// The table of what stops what

/// One column: its name, and under which arguments its attempts are made.
struct Column {
    name: &'static str,
    flags: Vec<String>,
}

/// The parts of a profile that comes with tine which begin so, each with its lines.
fn blocks(profile: &str, begin: &str) -> Vec<String> {
    let path = format!("{}/../tine-confine/profiles/{profile}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}"));
    let all = text.split("\n\n").filter(|block| block.starts_with(begin));
    all.map(|block| format!("{block}\n")).collect()
}

fn columns(folder: &Folder) -> Vec<Column> {
    let owned = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect();
    let (denials, limits) = (blocks("guarded", "[[deny]]"), blocks("sealed", "[[limit]]"));
    let (of_own_users, limits): (Vec<_>, Vec<_>) =
        limits.into_iter().partition(|limit| limit.contains("only = \"identity\""));
    let alone = |layer: &'static str| {
        let profile = folder.file(&format!("{layer}.toml"));
        let head = "about = \"to see what it does alone\"\n";
        let line = format!("[[layer]]\nlayer = \"{layer}\"\nreason = \"to see what it does alone\"\n");
        let text = match layer {
            "calls" => line + &denials.concat(),
            "identity" => line + &of_own_users.concat(),
            "limits" => limits.concat(),
            _ => line,
        };
        fs::write(&profile, format!("name = \"{layer}\"\n{head}{text}")).expect("a folder of our own");
        let path = profile.display().to_string();
        Column { name: layer, flags: owned(&["--confine", &path, "{seen}"]) }
    };
    let mut columns = vec![Column { name: "none", flags: owned(&["--confine", "none"]) }];
    columns.extend(LAYERS.map(alone));
    columns.push(Column { name: "guarded", flags: owned(GUARDED) });
    columns.push(Column { name: "sealed", flags: owned(SEALED) });
    columns
}

/// What stands in a cell.
fn cell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded(_) => "open".into(),
        Outcome::Void(_) => "void".into(),
        // "CALL: ERRNO and more": the errno, or that there was none.
        Outcome::Blocked(text) => {
            let reason = text.rsplit(": ").next().unwrap_or(text).split(' ').next().unwrap_or(text);
            let is_name =
                reason.len() > 2 && reason.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
            if is_name { reason.into() } else { "shut".into() }
        }
        Outcome::Broken(_) => "fails".into(),
    }
}

/// The table of one user.
fn table(heading: &str, user: fn(Scenario) -> Scenario, folder: &Folder, only: &str) -> String {
    let (columns, attempts) = (columns(folder), wanted(only));
    let mut cells: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for column in &columns {
        let flags: Vec<&str> = column.flags.iter().map(String::as_str).collect();
        println!("column {heading}: {}", column.name);
        for (name, outcome) in user(Scenario::new(&flags)).outcomes(&attempts) {
            if let Outcome::Broken(why) = &outcome {
                println!("  {name} under {}: {why}", column.name);
            }
            cells.entry(name).or_default().push(cell(&outcome));
        }
    }
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let mut text =
        format!("## {heading}\n\n| way | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for attempt in &attempts {
        writeln!(text, "| {} | {} |", attempt.name, cells[attempt.name].join(" | "))
            .expect("text can be written to");
    }
    text
}

/// What may be open all the same, and why; what is void on some kernels.
fn reasons() -> String {
    let mut text = String::from(
        "## What is open on purpose\n\n| way | guarded | sealed, a user for each child | sealed, one user |\n\
         |---|---|---|---|\n",
    );
    let why = |shut: Shut| match shut {
        Shut::Blocked => "shut".to_owned(),
        Shut::May(why) => why.to_owned(),
    };
    for attempt in attempts() {
        let all = [attempt.guarded, attempt.sealed, attempt.sealed_alike];
        if all.iter().all(|shut| matches!(shut, Shut::Blocked)) {
            continue;
        }
        writeln!(text, "| {} | {} |", attempt.name, all.map(why).join(" | "))
            .expect("text can be written to");
    }
    text.push_str("\n## What needs no confinement to be shut, or is not there\n\n| way | why |\n|---|---|\n");
    for attempt in attempts() {
        let why = match attempt.root {
            Open::Contract(how) => format!("the child contract: {how}"),
            Open::MayBeRefused(how) => format!("the machine, perhaps: {how}"),
            Open::MayBeVoid(lacks) => format!("void where the kernel has no such thing: {lacks}"),
            Open::Succeeds | Open::AsRoot => continue,
        };
        writeln!(text, "| {} | {why} |", attempt.name).expect("text can be written to");
    }
    text
}

const PREFACE: &str = "# What stops what\n\n\
    Written by `cargo xtask escapes`. Each row is a way out that was really tried, each column a layer of confinement that was in\n\
    force alone, or a profile. `open`: it led out. A name such as `EPERM`: the call was refused so. `shut`: refused, or nothing was\n\
    found. `void`: this kernel has no such thing. `fails`: no program can be run so.\n\n";

fn write_down(to: &Path, only: &str) {
    let folder = Folder::new();
    let root = table("Programs of root", |scenario| scenario, &folder, only);
    let nobody = table("Programs of an ordinary user", Scenario::by_nobody, &folder, only);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    let text = format!("{PREFACE}Linux {}.\n\n{root}\n{nobody}\n{}", release.trim(), reasons());
    fs::write(to, text).unwrap_or_else(|why| panic!("write {}: {why}", to.display()));
}

// What a neighbour feels

/// How long a neighbour is measured, idle and under each attack.
const MEASURED: Duration = Duration::from_secs(3);

/// The attacks on what all share, of the catalogue's S23 to S28; each goes on for as long as it is told.
const ATTACKS: [&str; 14] = [
    "S23.fork-bomb",
    "S23.fork-storm",
    "S24.memory",
    "S24.memfd",
    "S24.sysv",
    "S24.pipes",
    "S24.in-flight",
    "S25.descriptors",
    "S26.spin",
    "S26.spins",
    "S27.disk",
    "S27.inodes",
    "S27.log",
    "S28.pty",
];

/// The 99th of a hundred round trips of one byte, and how many there were, until `over` says so.
fn p99(stream: &mut Stream, over: impl Fn() -> bool) -> (Duration, usize) {
    let mut times = Vec::new();
    while !over() {
        let began = Instant::now();
        stream.write_all(b"x").expect("the neighbour is served");
        stream.read_exact(&mut [0]).expect("the neighbour is served");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    (times[(times.len() * 99 / 100).min(times.len() - 1)], times.len())
}

fn idle_p99(stream: &mut Stream) -> Duration {
    let begin = Instant::now();
    p99(stream, || begin.elapsed() > MEASURED).0
}

/// The part of the machine's memory that is free, in hundredths.
fn free_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let kib = |name: &str| {
        let value = tine_testkit::procfs::value_of(&text, name);
        value.and_then(|value| value.split(' ').next()?.parse::<u64>().ok()).expect("a number of meminfo")
    };
    kib("MemAvailable") * 100 / kib("MemTotal")
}

fn measure_a_neighbour(profile: &str) -> ExitCode {
    let flags = match profile {
        "none" => vec!["--confine", "none"],
        // As it is without a word about it.
        "nothing" => Vec::new(),
        "guarded" => GUARDED.to_vec(),
        "sealed" => SEALED.to_vec(),
        other => panic!("no such profile: {other}"),
    };
    let mut slow = Vec::new();
    println!(
        "| attack | idle p99 | p99 meanwhile | times | round trips | least memory free | what came of it |"
    );
    println!("|---|---|---|---|---|---|---|");
    for attempt in attempts().into_iter().filter(|attempt| ATTACKS.contains(&attempt.name)) {
        let over = AtomicBool::new(false);
        let scenario = Scenario::new(&flags);
        let (idle, busy, trips, free, outcome) = scenario.with_neighbour(&attempt, |neighbour, attack| {
            let before = idle_p99(neighbour);
            let (busy, trips, free, outcome) = thread::scope(|scope| {
                let attacker = scope.spawn(|| {
                    let outcome = attack(MEASURED);
                    over.store(true, Ordering::Relaxed);
                    outcome
                });
                let free = scope.spawn(|| {
                    let mut least = 100;
                    until("the attack is over", || {
                        least = free_memory().min(least);
                        over.load(Ordering::Relaxed).then_some(())
                    });
                    least
                });
                let (busy, trips) = p99(neighbour, || over.load(Ordering::Relaxed));
                let outcome = attacker.join().expect("the attacker did not panic");
                (busy, trips, free.join().expect("it only reads"), outcome)
            });
            // The slower of two, for a machine that others use as well is not idle when we are.
            (before.max(idle_p99(neighbour)), busy, trips, free, outcome)
        });
        let times = busy.as_secs_f64() / idle.as_secs_f64();
        println!("| {} | {idle:?} | {busy:?} | {times:.1} | {trips} | {free} % | {outcome} |", attempt.name);
        if times >= 2.0 || free < 20 {
            slow.push(format!("{}: {idle:?} idle, {busy:?} meanwhile, {free} % free", attempt.name));
        }
    }
    slow.iter().for_each(|line| eprintln!("escapes: {line}"));
    if slow.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
