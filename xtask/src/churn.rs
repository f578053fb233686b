//! `cargo xtask churn`: very many connections, one short line each, and nothing lost or left behind.
//!
//! The library's `echo` example answers them, or (`--program`, `--confine`) `tine serve` with a program for each; with
//! `--acceptors N` by so many processes that accept. The clients are testkit's: they compare every byte. The server must be as it was
//! before when they have gone. With `--spare MIN:MAX` it has children ready; these are renewed each second, so that at rest there are
//! as many as at the least. `--serve FLAGS` has more flags for `tine serve`, in one argument.
//!
//! As root, all of it is done in a place of its own (`churn/apart.rs`), and there the machine too must have no more than before: when
//! the clients have gone no more than the server at rest, and when the server has gone no more than before it began.

mod apart;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tine_testkit::server::{DEADLINE, until, until_within};
use tine_testkit::{Baseline, Kept, Kernel, Machine, Ready, Server, children, churn, fds, private_dirty_kib};

use crate::Result;
use crate::args::Args;
use crate::run::build;

const CONNECTIONS: u64 = 1_000_000;

/// A line of progress, and a look at errors, after so many.
const LOT: u64 = 50_000;

/// Clients at a time: enough that the server always has the next one waiting.
const CLIENTS: usize = 16;

/// Leaves of its control group that a server may keep for the next children, and groups above them; for each that accepts.
const GROUPS_KEPT_MAX: usize = 128;

/// What is to be served, and how.
struct Options {
    program: Option<Vec<String>>,
    confine: Option<String>,
    serve: Option<String>,
    spare: Option<String>,
    acceptors: Option<u64>,
    total: u64,
    /// It is in a place of its own.
    within: bool,
}

impl Options {
    fn of(args: &[String]) -> Result<Self> {
        let mut args = Args::new(args);
        let program = args.all_after("--program");
        let handler = args.switch("--handler");
        let options = Options {
            program,
            confine: args.value_after("--confine")?,
            serve: args.value_after("--serve")?,
            spare: args.value_after("--spare")?,
            acceptors: args.number_after("--acceptors")?,
            within: args.switch(apart::WITHIN),
            total: args.number().unwrap_or(CONNECTIONS),
        };
        args.end()?;
        if handler && options.serves_program() {
            return Err(
                "--handler serves no program: --program, --confine and --serve are for tine serve".into()
            );
        }
        Ok(options)
    }

    fn serves_program(&self) -> bool {
        self.program.is_some() || self.confine.is_some() || self.serve.is_some()
    }

    /// How many spares there are at rest.
    fn spares_at_rest(&self) -> Result<Option<usize>> {
        let Some(spare) = &self.spare else { return Ok(None) };
        let least = spare.split(':').next().and_then(|least| least.parse().ok());
        least.map(Some).ok_or(format!("--spare {spare}: it is MIN:MAX"))
    }
}

pub fn run(args: &[String]) -> Result {
    let options = Options::of(args)?;
    if !options.within {
        match apart::possible() {
            Ok(()) => return apart::run(args),
            Err(why) => println!("apart  no: {why}; what the machine has left is not looked at"),
        }
    }
    let tine = built(&options)?;
    let before = options.within.then(Seen::of).transpose()?;
    let server = start(tine, &options);
    let baseline = baseline(&server, &options)?;
    let rest = options.within.then(|| at_rest(&server, &options)).transpose()?;
    let master = Figures::of(&server)?;
    let sum = clients(&server, options.total)?;
    server.quiescent(&baseline);
    let after = Figures::of(&server)?;
    let accept = options.acceptors.unwrap_or(1).max(1) as usize;
    // Spares that are renewed are two for a moment, each in one of its own.
    let kept = Kept { groups: GROUPS_KEPT_MAX * accept, cells: options.spares_at_rest()?.unwrap_or(0) };
    let rested = rest.as_ref().map(|rest| rest.settled(kept)).transpose();
    let end = server.stop();
    let ended = before.as_ref().map(|before| before.settled(Kept::default())).transpose();

    println!(
        "churn  connections={} seconds={:.1} per_second={:.0} slowest_ms={}",
        options.total,
        sum.seconds,
        options.total as f64 / sum.seconds,
        sum.slowest.as_millis()
    );
    println!(
        "master private_dirty_kib={}..{} descriptors={}..{}",
        master.memory_kib, after.memory_kib, master.descriptors, after.descriptors
    );
    // Both are told before either is a reason to fail.
    let (rested, ended) = (told("rest ", rest, rested), told("ended", before, ended));
    rested.and(ended)?;
    if end.success() { Ok(()) } else { Err(format!("the server ended with {end}\n{}", server.log())) }
}

/// Builds what will be served, before anything is looked at: cargo leaves things where it likes.
fn built(options: &Options) -> Result<PathBuf> {
    if options.serves_program() {
        return Ok(build(&["--release", "-p", "tine-cli"])?.join("tine"));
    }
    // The fixture is the same as the example and can be told of acceptors.
    let example = if options.acceptors.is_some() { "watched" } else { "echo" };
    Ok(build(&["--release", "-p", "tine", "--example", example])?.join("examples").join(example))
}

fn start(built: PathBuf, options: &Options) -> Server {
    if options.serves_program() { with_program(built, options) } else { with_handler(built, options) }
}

fn baseline(server: &Server, options: &Options) -> Result<Baseline> {
    let Some(least) = options.spares_at_rest()? else {
        return Ok(Baseline::of(server));
    };
    if options.acceptors.is_none() {
        until("the spares are there", || (children(server.pid()).len() == least).then_some(()));
    }
    Ok(Baseline::of(server).by_kind())
}

/// `tine serve` with a program that echoes, `cat` unless told otherwise.
fn with_program(tine: PathBuf, options: &Options) -> Server {
    let listener = "tcp://127.0.0.1:0";
    let mut command = Command::new(tine);
    // One source with all its clients, which a quarter of the children would be too few for.
    command.args(["serve", listener, "-1", "-c", "64", "-C", "64"]);
    command.args(options.confine.iter().flat_map(|profile| ["--confine", profile]));
    command.args(options.spare.iter().flat_map(|spare| ["--spare", spare, "--spare-age", "1s"]));
    if let Some(count) = options.acceptors {
        command.args(["--acceptors", &count.to_string()]);
    }
    command.args(options.serve.iter().flat_map(|flags| flags.split_whitespace())).arg("--");
    match options.program.as_deref() {
        None | Some([]) => command.arg("/bin/cat"),
        Some(program) => command.args(program),
    };
    Server::start(command, Ready::Ports(vec![listener.to_string()]))
}

/// The library's example, which forks and does not exec.
fn with_handler(example: PathBuf, options: &Options) -> Server {
    let mut command = Command::new(example);
    command.args(options.spare.iter().flat_map(|spare| ["age=1".to_owned(), format!("spares={spare}")]));
    command.arg("tcp://127.0.0.1:0");
    if let Some(count) = options.acceptors {
        command.args(["quiet".to_owned(), format!("acceptors={count}")]);
    }
    Server::start(command, Ready::Line)
}

/// What the clients came to, over all lots.
#[derive(Default)]
struct Sum {
    seconds: f64,
    slowest: Duration,
}

fn clients(server: &Server, total: u64) -> Result<Sum> {
    let addresses = [server.addr(0)];
    let mut sum = Sum::default();
    let mut done = 0;
    while done < total {
        let lot = LOT.min(total - done);
        let part = churn(&addresses, lot, CLIENTS);
        done += lot;
        sum.seconds += part.seconds;
        sum.slowest = sum.slowest.max(part.slowest);
        if part.replies_ok != lot || !part.errors.is_empty() {
            let log = server.log();
            return Err(format!(
                "{} of {lot} replies were right; errors {:?}\n{log}",
                part.replies_ok, part.errors
            ));
        }
        println!(
            "lot    done={done} per_second={:.0} slowest_ms={}",
            lot as f64 / part.seconds,
            part.slowest.as_millis()
        );
    }
    Ok(sum)
}

/// What the master holds.
struct Figures {
    memory_kib: u64,
    descriptors: usize,
}

impl Figures {
    fn of(server: &Server) -> Result<Self> {
        let look = || Ok((private_dirty_kib(server.pid())?, fds(server.pid())?.len()));
        let (memory_kib, descriptors) = look()
            .map_err(|why: std::io::Error| format!("look at the master, pid {}: {why}", server.pid()))?;
        Ok(Figures { memory_kib, descriptors })
    }
}

/// What the machine has, and what the kernel has for it.
#[derive(Clone)]
struct Seen {
    machine: Machine,
    kernel: Kernel,
}

impl Seen {
    fn of() -> Result<Self> {
        let kernel = Kernel::look().map_err(|why| format!("look at what the kernel holds: {why}"))?;
        Ok(Seen { machine: Machine::look(), kernel })
    }

    /// Waits until there is no more than here, but what is kept; otherwise what there is more of comes with it.
    fn settled(&self, kept: Kept) -> Result<(Seen, Vec<String>)> {
        let mut last = None;
        until_within(DEADLINE, || {
            let now = Seen::of();
            let clean = now.as_ref().map_or(true, |now| self.grown(now, kept).is_empty());
            last = Some(now);
            clean.then_some(())
        });
        let now = last.expect("one look at least is taken")?;
        let grown = self.grown(&now, kept);
        Ok((now, grown))
    }

    fn grown(&self, now: &Seen, kept: Kept) -> Vec<String> {
        let mut grown = now.machine.grown_since(&self.machine, kept);
        grown.extend(now.kernel.grown_since(&self.kernel));
        grown
    }
}

/// A look at the server's machine while nobody is there. Spares are replaced all the time: it is a look at which nothing was
/// being replaced.
fn at_rest(server: &Server, options: &Options) -> Result<Seen> {
    let least = options.spares_at_rest()?.filter(|_| options.acceptors.is_none());
    let is_whole = || least.is_none_or(|least| children(server.pid()).len() == least);
    until("two looks are alike", || {
        let whole = is_whole();
        let (first, second) = (Seen::of(), Seen::of());
        match (first, second) {
            (Ok(first), Ok(second)) => {
                let alike = first.machine.counts() == second.machine.counts();
                (whole && is_whole() && alike).then_some(Ok(second))
            }
            (Err(why), _) | (_, Err(why)) => Some(Err(why)),
        }
    })
}

/// Says how much of everything there was and is; an error if there is more.
fn told(when: &str, before: Option<Seen>, after: Result<Option<(Seen, Vec<String>)>>) -> Result {
    let (Some(before), Some((after, grown))) = (before, after?) else { return Ok(()) };
    let (then, now) = (before.machine.counts(), after.machine.counts());
    let of = |counts: &BTreeMap<&str, usize>, kind| counts.get(kind).copied().unwrap_or(0);
    let kinds: BTreeSet<_> = then.keys().chain(now.keys()).copied().collect();
    let each: Vec<_> =
        kinds.iter().map(|kind| format!("{kind}={}..{}", of(&then, kind), of(&now, kind))).collect();
    println!("{when}  {}", each.join(" "));
    let pairs = |then: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>| -> Vec<String> {
        let each = now.iter().filter_map(|(name, now)| Some(format!("{name}={}..{now}", then.get(name)?)));
        each.collect()
    };
    println!("kernel objects {}", pairs(&before.kernel.objects, &after.kernel.objects).join(" "));
    println!("kernel kib {}", pairs(&before.kernel.memory_kib, &after.kernel.memory_kib).join(" "));
    for what in after.machine.unseen() {
        println!("unseen {what}");
    }
    if grown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "left behind ({}), {} s later:\n    {}",
        when.trim(),
        DEADLINE.as_secs(),
        grown.join("\n    ")
    ))
}
