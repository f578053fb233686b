//! `tine completions`: a script for the shell, made from the definitions of the flags.

use clap::CommandFactory;

use crate::exit::{self, Outcome};
use crate::flags::{Cli, Completions};

/// Prints the script.
pub fn print(flags: &Completions) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), "tine", &mut script);
    exit::print(&script)
}
