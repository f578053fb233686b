//! `cargo xtask escapes`: every way out, tried under each layer of confinement alone and under the profiles, written down in
//! docs/escapes.md; or (`--neighbour`) how long a neighbour waits while somebody uses up all that there is.
//!
//! The attempts and what they are made on are the tests' own (crates/tine-cli/tests/jailbreak), and what is run here is
//! crates/tine-cli/tests/escapes.rs. Takes root.

use crate::Result;
use crate::args::Args;
use crate::run::{cargo, root, status};

const DOCUMENT: &str = "docs/escapes.md";

/// The profile that must keep neighbours apart, unless another is asked for.
const PROFILE: &str = "sealed";

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let neighbour = args.switch("--neighbour");
    let profile = args.value_after("--confine")?;
    let only = args.value_after("--only")?;
    let to = args.value_after("--to")?;
    args.end()?;

    // Times of a program that is not optimised would be its own.
    let mut command = cargo(&["test", "--quiet", "--release", "-p", "tine-cli", "--test", "escapes", "--"]);
    if neighbour {
        return status(command.args(["neighbour", profile.as_deref().unwrap_or(PROFILE)]));
    }
    if profile.is_some() {
        return Err("--confine is for --neighbour: the table has all profiles".to_string());
    }
    if only.is_some() && to.is_none() {
        return Err(format!("with --only the table is not {DOCUMENT}: say where with --to FILE"));
    }
    command.arg("table").arg(root().join(to.as_deref().unwrap_or(DOCUMENT))).args(only);
    status(&mut command)
}
