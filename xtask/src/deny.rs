//! `cargo xtask deny`: what the dependencies are allowed to be (deny.toml), by cargo-deny.
//!
//! Licences, sources and bans need only what the lock file names. The advisory database lives on the network, so it
//! has a switch of its own and is no part of `cargo xtask test`.

use std::process::{Command, Stdio};

use crate::args::Args;
use crate::run::{cargo, status};
use crate::{Result, run};

/// The cargo-deny that deny.toml was written for; later ones of the same minor version read it the same way.
const VERSION: &str = "^0.20";

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let advisories = args.switch("--advisories");
    args.end()?;
    install()?;
    status(&mut command(advisories))
}

/// The check itself: of what can be known without a network, or of known vulnerabilities.
pub fn command(advisories: bool) -> Command {
    let checks: &[&str] = if advisories { &["advisories"] } else { &["bans", "licenses", "sources"] };
    let mut command = cargo(&["deny", "check"]);
    command.args(checks);
    command
}

/// Builds cargo-deny, about two minutes, unless it is there.
pub fn install() -> Result {
    if present() {
        return Ok(());
    }
    run::status(&mut cargo(&["install", "cargo-deny", "--locked", "--version", VERSION]))
}

fn present() -> bool {
    let mut command = cargo(&["deny", "--version"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
