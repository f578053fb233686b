//! `cargo xtask fuzz`: gives a parser whatever bytes libFuzzer thinks of, for as long as is asked. fuzz/README.md says what
//! is checked.
//!
//! It needs a nightly compiler and cargo-fuzz, and is no part of `cargo xtask test`.

use std::fs;
use std::process::Command;

use crate::Result;
use crate::args::Args;
use crate::run::{root, status};

/// Half an hour.
const SECONDS: u64 = 1800;

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let seconds = args.number_after("--seconds")?.unwrap_or(SECONDS);
    args.end()?;
    let corpus = root().join("fuzz/corpus/proxy");
    fs::create_dir_all(&corpus).map_err(|why| format!("make {}: {why}", corpus.display()))?;
    let mut command = Command::new("rustup");
    command.current_dir(root()).args(["run", "nightly", "cargo", "fuzz", "run", "-s", "none", "proxy"]);
    command.args(["fuzz/corpus/proxy", "fuzz/seeds/proxy", "--", "-dict=fuzz/proxy.dict", "-max_len=4200"]);
    command.arg(format!("-max_total_time={seconds}"));
    status(&mut command)
}
