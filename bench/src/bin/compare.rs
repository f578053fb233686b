//! `compare`: runs servers and generator against each other, round after round, and writes what came of it.
//!
//! Called by `cargo xtask bench`, which has built and installed everything. It measures, and judges by [`tine_bench::goals`].

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;
use tine_bench::experiments::{self, EXPERIMENTS, Experiment, Found, Pace};
use tine_bench::goals::Verdict;
use tine_bench::load::hold::allow_descriptors;
use tine_bench::results::{Results, Sample};
use tine_bench::running::Ports;
use tine_bench::servers::{CHILDREN, Place, Server};
use tine_bench::{machine, page};

/// Servers and bare loops against each other.
#[derive(Debug, Parser)]
#[command(name = "compare", version)]
struct Options {
    /// A few minutes: fewer rounds, shorter ones, fewer peers; into target/bench only
    #[arg(long)]
    quick: bool,

    /// Only what has this in its EXPERIMENT/SERVER, such as rate/tine; several with commas; into target/bench only
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,

    /// How many rounds; 5 unless given, 2 for a quick run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// An s6-tcpserver to compare with
    #[arg(long, value_name = "PATH")]
    s6_tcpserver: Option<PathBuf>,

    /// An nsjail to compare with
    #[arg(long, value_name = "PATH")]
    nsjail: Option<PathBuf>,

    /// The performance.json of a run before, to say on the page whether this one agrees with it
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

const ROUNDS: u32 = 5;
const ROUNDS_QUICK: u32 = 2;
const PACE: Pace = Pace { seconds: 0.9, warmup: 0.25 };
const PACE_QUICK: Pace = Pace { seconds: 0.6, warmup: 0.2 };

/// Servers raise their own limit to what they need; most do not.
const DESCRIPTORS: usize = 2 * CHILDREN - 5_000;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("compare: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bench lies in the workspace's root");
    let mut place = place(root, options)?;
    let _ = fs::remove_dir_all(place.logs());
    fs::create_dir_all(place.logs()).map_err(|why| format!("make {}: {why}", place.logs().display()))?;
    allow_descriptors(DESCRIPTORS).map_err(|why| why.to_string())?;

    let before = options.against.as_deref().map(read).transpose()?;
    let pace = if options.quick { PACE_QUICK } else { PACE };
    let rounds = options.rounds.unwrap_or(if options.quick { ROUNDS_QUICK } else { ROUNDS });
    let mut results = Results {
        quick: options.quick,
        only: options.only.clone(),
        rounds,
        seconds: pace.seconds,
        warmup: pace.warmup,
        machine: machine::machine(),
        versions: machine::versions(&place),
        ..Results::default()
    };
    let began = Instant::now();
    measure(options, &mut place, pace, &mut results);
    if results.samples.is_empty() {
        return Err("nothing was measured".into());
    }
    write(root, &place, &results, before.as_ref())?;
    println!("done   minutes={:.1} samples={}", began.elapsed().as_secs_f64() / 60.0, results.samples.len());
    Ok(())
}

fn place(root: &Path, options: &Options) -> Result<Place, String> {
    let own = std::env::current_exe().map_err(|why| format!("find this program: {why}"))?;
    let built = own.parent().expect("a program lies in a folder").to_path_buf();
    let work = built.parent().expect("target/release lies in target").join("bench");
    let help = |program: PathBuf, args: &[&str]| {
        let output = Command::new(&program).args(args).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .map_err(|why| format!("{}: {why}", program.display()))
    };
    Ok(Place {
        tine_help: help(built.join("tine"), &["serve", "--help"])?,
        handler_help: help(work.join("handler"), &["--help"])?,
        scripts: root.join("bench/scripts"),
        s6: options.s6_tcpserver.clone(),
        nsjail: options.nsjail.clone(),
        port: 0,
        program: experiments::TARGET,
        built,
        work,
    })
}

fn measure(options: &Options, place: &mut Place, pace: Pace, results: &mut Results) {
    let mut ports = Ports::default();
    for round in 1..=results.rounds {
        for experiment in EXPERIMENTS.iter().filter(|experiment| round <= rounds_of(experiment, options)) {
            let mut servers: Vec<&Server> = experiments::servers(options.quick)
                .filter(|server| (experiment.with)(server) && wanted(options, experiment, server))
                .collect();
            // Nobody is always first.
            let turn = (round as usize - 1) * 5 % servers.len().max(1);
            servers.rotate_left(turn);
            for server in servers {
                let name = server.name.to_string();
                if results.missing.contains_key(&name) {
                    continue;
                }
                if let Err(why) = server.command(place) {
                    println!("miss   server={name}: {why}");
                    results.missing.insert(name, why);
                    continue;
                }
                match experiments::run(experiment, server, place, &mut ports, pace) {
                    Ok(found) => found.into_iter().for_each(|found| note(results, &name, round, found)),
                    Err(why) => {
                        println!("fail   round={round} experiment={} server={name}: {why}", experiment.name);
                        let mut found = Found {
                            experiment: experiment.name.into(),
                            metrics: Default::default(),
                            errors: Default::default(),
                        };
                        found.errors.insert(why, 1);
                        note(results, &name, round, found);
                    }
                }
            }
        }
    }
}

fn rounds_of(experiment: &Experiment, options: &Options) -> u32 {
    match experiment.name {
        "idle" | "crowd" if options.quick && options.rounds.is_none() => 1,
        _ => experiment.rounds,
    }
}

fn wanted(options: &Options, experiment: &Experiment, server: &Server) -> bool {
    let Some(only) = &options.only else { return true };
    let name = format!("{}/{}", experiment.name, server.name);
    only.split(',').any(|pattern| name.contains(pattern))
}

fn note(results: &mut Results, server: &str, round: u32, found: Found) {
    let Found { experiment, metrics, errors } = found;
    let mut line = format!("round  {round} {experiment} server={server}");
    for (name, value) in &metrics {
        line.push_str(&format!(" {name}={value:.1}"));
    }
    errors.iter().for_each(|(kind, count)| line.push_str(&format!(" error.{kind}={count}")));
    println!("{line}");
    results.samples.push(Sample { server: server.into(), experiment, round, metrics, errors });
}

/// What a run before has found.
fn read(path: &Path) -> Result<Results, String> {
    #[derive(serde::Deserialize)]
    struct File {
        results: Results,
    }
    let text = fs::read_to_string(path).map_err(|why| format!("read {}: {why}", path.display()))?;
    let file: File = serde_json::from_str(&text)
        .map_err(|why| format!("{} is no performance.json: {why}", path.display()))?;
    Ok(file.results)
}

/// Raw results always go to target/bench; the page to docs when the run was a whole one.
fn write(root: &Path, place: &Place, results: &Results, before: Option<&Results>) -> Result<(), String> {
    let judged = page::judge(results);
    let (text, charts) = page::render(results, before);
    let raw = serde_json::to_string_pretty(&serde_json::json!({ "results": results, "goals": judged }));
    let raw = raw.expect("results are JSON") + "\n";
    let whole = !results.quick && results.only.is_none();
    let docs = if whole { root.join("docs") } else { place.work.clone() };
    fs::create_dir_all(&docs).map_err(|why| format!("make {}: {why}", docs.display()))?;
    let mut files = vec![(place.work.join("results.json"), raw.clone()), (docs.join("performance.md"), text)];
    files.push((docs.join("performance.json"), raw));
    files.extend(charts.into_iter().map(|(name, svg)| (docs.join(name), svg)));
    for (path, text) in files {
        fs::write(&path, text).map_err(|why| format!("write {}: {why}", path.display()))?;
    }
    // Of a part of a run, only the goals that it says something about.
    let told = judged.iter().filter(|goal| results.only.is_none() || goal.verdict != Verdict::NotMeasured);
    print!("{}", page::lines(told));
    if let Some(before) = before {
        print!("{}", page::repeated(results, before));
    }
    println!("wrote  {}", docs.join("performance.md").display());
    if !whole {
        println!(
            "note   this was no whole run: its figures are good for a first look only, and docs/ is as it was"
        );
    }
    Ok(())
}
