//! The load generator: one thread (and one for sessions that stay open), many connections under way, each byte of each reply checked.
//!
//! It decides nothing about servers and knows none of them. What it finds it hands back as a [`report::Report`].

pub mod cpu;
pub mod datagram;
pub mod hold;
pub mod open;
pub mod options;
pub mod report;
pub mod stream;
pub mod target;

use std::io;

/// Runs what the options say.
///
/// # Errors
/// What keeps it from running at all; what goes wrong with single clients is counted in the report.
pub fn run(options: &options::Options) -> io::Result<report::Report> {
    if options.udp { datagram::run(options) } else { stream::run(options) }
}
