//! Birth: `fork`, refused in a process with more than one thread. fork(2), _exit(2), proc_pid_task(5).
//!
//! Only the C library's `fork` is used, never a raw `clone`: it also mends the thread id, the list of robust
//! mutexes and the locks of the allocator in the child, which Rust code there relies on.

use std::io;
use std::{error, fmt, process};

use crate::{Pid, check, fault};

/// Which side of the fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The duplicate.
    Child,
    /// The original, with the child's process id.
    Parent(Pid),
}

/// Why there is no child.
#[derive(Debug)]
pub enum ForkError {
    /// The process has this many threads; a fork copies only the one that calls, with every lock as it stood.
    Threads(u64),
    /// The number of threads could not be learned (`/proc` is not mounted, perhaps).
    Unknown(io::Error),
    /// The kernel refused: out of processes (EAGAIN) or memory (ENOMEM).
    System(io::Error),
}

impl fmt::Display for ForkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threads(n) => write!(
                f,
                "fork: this process has {n} threads and a fork copies only one, with the others' locks held: \
                 start the server before the first thread"
            ),
            Self::Unknown(why) => write!(f, "fork: cannot count the threads in /proc/self/task: {why}"),
            Self::System(why) => write!(f, "fork: {why}"),
        }
    }
}

impl error::Error for ForkError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Threads(_) => None,
            Self::Unknown(why) | Self::System(why) => Some(why),
        }
    }
}

/// How many threads this process has: a task directory has a link for each, beside its own two.
///
/// # Errors
/// When `/proc` is not mounted or may not be read.
pub fn threads() -> io::Result<u64> {
    fault::point("stat")?;
    Ok(rustix::fs::stat("/proc/self/task")?.st_nlink.saturating_sub(2))
}

/// Duplicates the process. Both sides return; the child must leave through [`exit`].
///
/// # Errors
/// [`ForkError::Threads`] when there is more than one thread, [`ForkError::System`] when the kernel refuses.
pub fn fork() -> Result<Forked, ForkError> {
    match threads() {
        Ok(1) => {}
        Ok(n) => return Err(ForkError::Threads(n)),
        Err(why) => return Err(ForkError::Unknown(why)),
    }
    fault::point("fork").map_err(ForkError::System)?;
    // SAFETY: the process has one thread, as counted just above by the only thread that could start another, so
    // no lock is held by a thread that the child would lack, and any code may run in the child (fork(2)).
    let pid = check(unsafe { libc::fork() }).map_err(ForkError::System)?;
    Ok(match Pid::from_raw(pid) {
        Some(child) => Forked::Parent(child),
        None => {
            fault::born();
            Forked::Child
        }
    })
}

/// Ends the process at once: no destructor, no `atexit` function, no flushing of what a parent had buffered.
pub fn exit(status: u8) -> ! {
    // SAFETY: `_exit` has no precondition; that nothing is cleaned up is what it is called for (_exit(2)).
    unsafe { libc::_exit(libc::c_int::from(status)) }
}

/// From here on `exit(3)` ends this process at once with its status, running none of the `atexit` functions that a
/// parent registered: they run last registered first, and this one does not return.
///
/// # Errors
/// ENOMEM when the C library cannot note it.
pub fn forget_exit_functions() -> io::Result<()> {
    fault::point("on_exit")?;
    // SAFETY: `leave` has the signature that on_exit(3) calls, touches no memory, and is code that stays mapped.
    match unsafe { on_exit(leave, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::ErrorKind::OutOfMemory.into()),
    }
}

/// A session of this process's own: no controlling terminal, a process group that is its own.
///
/// # Errors
/// EPERM when it leads a group already, which a fresh child never does. setsid(2)
pub fn new_session() -> io::Result<()> {
    fault::point("setsid")?;
    rustix::process::setsid()?;
    Ok(())
}

/// Gives up on an inconsistency of our own making: says what, and ends with status 101.
pub fn internal(what: &str) -> ! {
    eprintln!("tine: internal: {what}");
    process::exit(101)
}

extern "C" fn leave(status: libc::c_int, _: *mut libc::c_void) {
    // SAFETY: `_exit` has no precondition, and this process is ending anyway: exit(3) has called us.
    unsafe { libc::_exit(status) }
}

// SAFETY: the declaration is that of glibc's stdlib.h: int on_exit(void (*)(int, void *), void *).
unsafe extern "C" {
    fn on_exit(
        function: extern "C" fn(libc::c_int, *mut libc::c_void),
        argument: *mut libc::c_void,
    ) -> libc::c_int;
}
