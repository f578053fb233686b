//! A server that gives every client a process of its own.
//!
//! Accept; fork a duplicate to talk over that stream; accept again. The child closes the listener, the parent closes the
//! client, the dead are reaped. Datagrams are read and handled in a loop instead, because a fork for each would cost
//! more than the work. It is the oldest model of a server in Unix, and this crate is what makes it hold up: nothing is
//! lost, nothing leaks, nothing spins, and whatever a client does stays with that client.
//!
//! ```no_run
//! use std::io;
//! use tine::{Conn, Server};
//!
//! fn main() -> Result<(), tine::Error> {
//!     Server::new()
//!         .listen("tcp://127.0.0.1:7000")?
//!         .children(512)
//!         .serve(|conn: Conn| io::copy(&mut &conn, &mut &conn).map(drop))
//! }
//!
//! /// What the server keeps of its clients is not copied into their processes.
//! #[global_allocator]
//! static APART: tine::Apart = tine::Apart;
//! ```
//!
//! # What a child is
//!
//! A child inherits a copy of everything that the master's memory holds when it is forked: configuration, keys, the
//! state of random number generators; but for what the server itself keeps of other clients, if [`Apart`] is the program's
//! allocator. Do not hold in the master what a client's process must not read, and give
//! [`Server::after_fork`] a hook for every generator that does not ask the kernel each time; `HashMap`'s keys are the
//! same in all children. Descriptors are not inherited: a child has the connection, the log and `/dev/null`. A file that
//! was opened before is closed there, whoever holds it: a handler opens what it needs itself.
//!
//! A handler that panics, overflows its stack, calls `process::exit` or leaves threads behind ends its own client and
//! becomes an [`Outcome`]. No destructor of the master's values runs in a child, but for one that is the C library's doing:
//! a handler that calls `process::exit` runs those of thread-local values, copies of the master's among them. Return instead.
//!
//! # Threads
//!
//! The master has one thread, and says so with an error otherwise: a fork copies only the thread that calls. A program
//! with threads calls [`Server::start`] before its first one; the master is then a process of its own, and the program's
//! own children stay its own. Children may start threads as they like.
//!
//! The stages of a connection's life are the modules of this crate: bind, admit, fork, (confine, a crate of its own),
//! serve, reap. `mode/each.rs` puts them together and is the file to read first.

#![forbid(unsafe_code)]

mod addr;
mod change;
mod conn;
mod connect;
mod error;
mod event;
mod front;
mod handler;
mod host;
mod life;
mod master;
mod mode;
mod peer;
mod program;
mod server;

pub use addr::{AddrError, Listen, Transport};
pub use conn::{Conn, ReadHalf, WriteHalf};
pub use error::{BindError, Error, StartError};
pub use event::{Bill, Event, How, Outcome, Status};
pub use front::introduction::Balancers;
pub use front::proxy;
pub use handler::{Datagram, DatagramHandler, Handler, Reply};
pub use host::{Gone, Handle};
pub use life::admit;
pub use life::admit::{Limits, OnFull, Penalties, Prefix, Prefixes, Rate, Rules, Span};
pub use life::end::{Cause, Deadlines, Sequence};
pub use life::tree::{Keep, Orphans};
pub use mode::acceptors::ACCEPTORS_MOST;
pub use mode::stock::Spares;
pub use peer::Peer;
pub use program::{Client, DatagramMode, Program, ProgramError, Sockets, Stderr, Variables};
pub use server::Server;
pub use tine_confine::{
    Abilities, Bind, By, Call, Connect, Enforced, Explained, Explanation, Group, GroupError, Identity, Item,
    Layer, Limit, Memory, Missing, Opens, Plan, PlanError, Profile, ProfileError, Step, WhenMissing, World,
};
pub use tine_os::apart::Apart;
pub use tine_os::identity::Credentials;
pub use tine_os::socket::Addr;

/// Ends this process's standard output for whoever reads it: `/dev/null` takes its place. For a server that has printed
/// its ports there and will print nothing more.
///
/// # Errors
/// What open(2) and dup2(2) say.
pub fn silence_stdout() -> std::io::Result<()> {
    tine_os::fd::silence_stdout()
}

/// For tests of tine itself: see `tine_os::fault`.
#[cfg(feature = "fault")]
pub use tine_os::fault;
