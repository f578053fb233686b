//! `tine`: puts any program on the network, with a process for every client.
//!
//! One file for each verb, in `command/`. What a verb does with sockets and processes is the library's; here are words:
//! those of the operator ([`flags`]), those for the program ([`environ`]), those for the log ([`log`]).

#![forbid(unsafe_code)]

mod command {
    pub mod completions;
    pub mod connect;
    pub mod doctor;
    pub mod explain;
    pub mod man;
    pub mod serve;
}
mod environ;
mod exit;
mod flags;
mod log;
mod page;

use std::process::ExitCode;

use command::{completions, connect, doctor, explain, man, serve};
use flags::Verb;

#[cfg(not(feature = "fault"))]
#[global_allocator]
static APART: tine::Apart = tine::Apart;

/// The same, and counts, so that `exec` can refuse when the way to it from the fork has asked for memory.
#[cfg(feature = "fault")]
#[global_allocator]
static COUNTING: tine::fault::Counting = tine::fault::Counting;

fn main() -> ExitCode {
    let verb = match flags::parse() {
        Ok(verb) => verb,
        Err(told) => return told,
    };
    exit::report(match verb {
        Verb::Serve(flags) => serve::serve(*flags),
        Verb::Explain(flags) => explain::explain(&flags),
        Verb::Doctor(flags) => doctor::doctor(&flags),
        Verb::Connect(flags) => connect::connect(&flags),
        Verb::Completions(flags) => completions::print(&flags),
        Verb::Man => man::print(),
    })
}
