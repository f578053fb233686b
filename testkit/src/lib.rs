//! What the tests share: servers started and watched, clients that check every byte, and two oracles.
//!
//! A test reads in this order: a [`Server`] is started ([`server`]), clients speak to it ([`client`]), what
//! one of its children sees is written down and compared with a committed file ([`probe`], the golden child),
//! and at the end the server must be as it was before ([`quiet`], quiescence).
//!
//! ```no_run
//! use tine_testkit::{Baseline, Server, echo_line};
//!
//! let server = Server::tine(&["tcp://127.0.0.1:0", "-v", "--", "cat"]);
//! let baseline = Baseline::of(&server); // asks once, so that everything lazy has happened
//! echo_line(server.addr(0), "hello").expect("an echo");
//! server.wait_log(|line| line.starts_with("end") && line.contains("exit=0"));
//! server.quiescent(&baseline);
//! assert!(server.stop().success());
//! ```
//!
//! Nothing here waits for time to pass: everything waits for a line, an end of file or a condition, with a
//! deadline, and says at the deadline what was seen instead. Nothing here knows tine's code: it is seen from
//! outside only.

#![forbid(unsafe_code)]

pub mod churn;
pub mod client;
pub mod datagrams;
pub mod groups;
pub mod hostile;
pub mod machine;
pub mod net;
pub mod probe;
pub mod procfs;
pub mod quiet;
pub mod refusals;
pub mod server;
pub mod target;

pub use churn::{Churn, churn};
pub use client::{Pattern, Stream, Transfer, ask, ask_datagram, echo_line, transfer};
pub use datagrams::{Datagrams, Group, datagrams, grouped_datagrams};
pub use hostile::{Hostile, hostile};
pub use machine::{Kept, Kernel, Machine};
pub use net::udp_drops;
pub use probe::{compare_golden, dump, normalise};
pub use procfs::{children, descendants, fds, keepers, private_dirty_kib, templates, zombies};
pub use quiet::Baseline;
pub use rustix::process::Signal;
pub use server::{Ready, Server, Status};
pub use target::{binary, example};
