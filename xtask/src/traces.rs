//! `cargo xtask traces`: random events for the machine that decides who may come in, ten million of them unless told otherwise.
//!
//! The same tests as in `cargo test` (`life/admit/traces.rs`), with optimised code, so that a hundred million take minutes.
//! `--from N` is the same with other events; `--seed N` has one life again, as a failure names it.

use crate::Result;
use crate::args::Args;
use crate::run::{cargo, status, words};

const EVENTS: u64 = 10_000_000;

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let mut command = cargo(&["test", "--release", "--package", "tine", "--lib", "admit::traces"]);
    command.args(["--", "--nocapture"]);
    command.env("TINE_EVENTS", args.number_after("--events")?.unwrap_or(EVENTS).to_string());
    for (name, variable) in [("--from", "TINE_FROM"), ("--seed", "TINE_SEED")] {
        if let Some(number) = args.number_after(name)? {
            command.env(variable, number.to_string());
        }
    }
    args.end()?;
    println!("run    {}", words(&command));
    status(&mut command)
}
