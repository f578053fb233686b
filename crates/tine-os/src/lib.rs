//! Every system call of tine, and all of its `unsafe`.
//!
//! One kernel object a file; each file's header names the man pages it leans on. What is decided is decided
//! elsewhere: nothing here chooses, retries or logs. Wrappers give back [`std::io::Error`] with the kernel's own
//! errno, so that callers can say what was tried and on what.
//!
//! The safe functions are safe because of one rule that [`fork()`] enforces: a process that forks has one thread.

#![cfg(target_os = "linux")]

pub mod apart;
pub mod bell;
pub mod cgroup;
pub mod datagram;
pub mod diag;
pub mod exec;
pub mod fault;
pub mod fd;
pub mod fork;
pub mod identity;
pub mod init;
pub mod landlock;
pub mod limit;
pub mod mount;
pub mod namespace;
pub mod orphan;
pub mod pass;
mod pid;
pub mod privilege;
pub mod processor;
pub mod random;
pub mod ready;
pub mod ring;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod steer;
pub mod wait;

pub use fork::{ForkError, Forked, fork};
pub use pid::{Kin, Pid};

use std::io;

/// Turns the C convention (minus one and `errno`) into a `Result`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What the kernel says, without the number that std appends.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
