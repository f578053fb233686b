//! `cargo xtask refusals`: very many clients that are not served, of each kind, counted exactly, and nothing left behind.
//!
//! The kinds are testkit's, where the tests have them too, with fewer clients.

use tine_testkit::refusals::{self, KINDS};

use crate::Result;
use crate::args::Args;
use crate::run::build;

const CLIENTS: u64 = 100_000;

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let count = args.number_after("--count")?.unwrap_or(CLIENTS);
    let mut kinds: Vec<_> = args.all_after("--only").unwrap_or_default();
    if kinds.is_empty() {
        kinds = KINDS.iter().map(|kind| kind.name.to_owned()).collect();
    }
    args.end()?;
    let kinds: Vec<_> =
        kinds.iter().map(|name| refusals::kind(name).ok_or_else(|| unknown(name))).collect::<Result<_>>()?;
    let tine = build(&["--release", "-p", "tine-cli"])?.join("tine");

    for kind in kinds {
        let seen = kind.run(&tine, count)?;
        let counted: Vec<_> = seen.counters.iter().map(|(name, count)| format!("{name}={count}")).collect();
        println!(
            "{:9}  refused={count} seconds={:.1} per_second={:.0} log_lines={} {}",
            kind.name,
            seen.seconds,
            count as f64 / seen.seconds,
            seen.log_lines,
            counted.join(" ")
        );
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    let known: Vec<_> = KINDS.iter().map(|kind| format!("\n  {:9}  {}", kind.name, kind.about)).collect();
    format!("there is no kind {name:?}; there are{}", known.concat())
}
