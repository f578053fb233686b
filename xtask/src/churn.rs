//! `cargo xtask churn`: very many connections, one short line each, and nothing lost or left behind.
//!
//! The library's `echo` example answers them, or (`--program`) `tine serve` with a program for each; with `--acceptors N` by so
//! many processes that accept. The clients are testkit's: they compare every byte. The server must be as it was before when they
//! have gone. With `--spare MIN:MAX` it has children ready; these are renewed each second, so that at rest there are as many as
//! at the least.

use std::process::Command;
use std::time::Duration;

use tine_testkit::server::until;
use tine_testkit::{Baseline, Ready, Server, children, churn, fds, private_dirty_kib};

use crate::Result;
use crate::args::Args;
use crate::run::build;

const CONNECTIONS: u64 = 1_000_000;

/// A line of progress, and a look at errors, after so many.
const LOT: u64 = 50_000;

/// Clients at a time: enough that the server always has the next one waiting.
const CLIENTS: usize = 16;

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let program = args.all_after("--program");
    args.switch("--handler");
    let spare = args.value_after("--spare")?;
    let acceptors = args.number_after("--acceptors")?;
    let total = args.number().unwrap_or(CONNECTIONS);
    args.end()?;

    let server = match program {
        Some(program) => with_program(program, spare.as_deref(), acceptors)?,
        None => with_handler(spare.as_deref(), acceptors)?,
    };
    let baseline = match &spare {
        Some(spare) => {
            let least = spare.split(':').next().and_then(|least| least.parse().ok());
            let least: usize = least.ok_or(format!("--spare {spare}: it is MIN:MAX"))?;
            if acceptors.is_none() {
                until("the spares are there", || (children(server.pid()).len() == least).then_some(()));
            }
            Baseline::of(&server).by_kind()
        }
        None => Baseline::of(&server),
    };
    let before = Figures::of(&server)?;
    let sum = clients(&server, total)?;
    server.quiescent(&baseline);
    let after = Figures::of(&server)?;
    let end = server.stop();

    println!(
        "churn  connections={total} seconds={:.1} per_second={:.0} slowest_ms={}",
        sum.seconds,
        total as f64 / sum.seconds,
        sum.slowest.as_millis()
    );
    println!(
        "master private_dirty_kib={}..{} descriptors={}..{}",
        before.memory_kib, after.memory_kib, before.descriptors, after.descriptors
    );
    if end.success() { Ok(()) } else { Err(format!("the server ended with {end}\n{}", server.log())) }
}

/// `tine serve` with a program that echoes, `cat` unless told otherwise.
fn with_program(mut program: Vec<String>, spare: Option<&str>, acceptors: Option<u64>) -> Result<Server> {
    if program.is_empty() {
        program.push("/bin/cat".to_string());
    }
    let tine = build(&["--release", "-p", "tine-cli"])?.join("tine");
    let listener = "tcp://127.0.0.1:0";
    let mut command = Command::new(tine);
    // One source with all its clients, which a quarter of the children would be too few for.
    command.args(["serve", listener, "-1", "-c", "64", "-C", "64"]);
    command.args(spare.iter().flat_map(|spare| ["--spare", spare, "--spare-age", "1s"]));
    if let Some(count) = acceptors {
        command.args(["--acceptors", &count.to_string()]);
    }
    command.arg("--").args(program);
    Ok(Server::start(command, Ready::Ports(vec![listener.to_string()])))
}

/// The library's example, which forks and does not exec; with acceptors, the same as a fixture that can be told so.
fn with_handler(spare: Option<&str>, acceptors: Option<u64>) -> Result<Server> {
    let example = if acceptors.is_some() { "watched" } else { "echo" };
    let built = build(&["--release", "-p", "tine", "--example", example])?;
    let mut command = Command::new(built.join("examples").join(example));
    command.args(spare.iter().flat_map(|spare| ["age=1".to_owned(), format!("spares={spare}")]));
    command.arg("tcp://127.0.0.1:0");
    if let Some(count) = acceptors {
        command.args(["quiet".to_owned(), format!("acceptors={count}")]);
    }
    Ok(Server::start(command, Ready::Line))
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
