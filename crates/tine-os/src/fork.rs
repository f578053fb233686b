//! Birth: `fork`, refused in a process with more than one thread. fork(2), _exit(2), proc_pid_task(5).
//!
//! The C library's `fork` is used wherever code of an author may follow: it also mends the thread id, the list of robust
//! mutexes and the locks of the allocator in the child, which Rust code there relies on. A child that only becomes a program
//! may be born in a control group instead, by a raw `clone3`: see [`fork_with`].

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{error, fmt, process};

use crate::spawn::With;
use crate::{Pid, apart, check, fault};

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

/// What it takes when the kernel says EAGAIN, which is what it says at any limit on processes.
pub const ADVICE: &str = "room for more processes (ulimit -u or LimitNPROC= for the user, TasksMax= or pids.max for the unit or container)";

/// How many threads this process has: a task directory has a link for each, beside its own two.
///
/// # Errors
/// When `/proc` is not mounted or may not be read.
pub fn threads() -> io::Result<u64> {
    fault::point("stat")?;
    Ok(rustix::fs::stat("/proc/self/task")?.st_nlink.saturating_sub(2))
}

/// Whether no thread can be there whose locks a child would find held.
fn alone() -> Result<(), ForkError> {
    // SAFETY: the C library keeps it there for the whole life of the process, and changes it only in the one thread that then
    // starts another (sys/single_threaded.h); that a thread was never started is all that is read from it.
    if unsafe { __libc_single_threaded } != 0 {
        return Ok(());
    }
    // There are some, or there were.
    match threads() {
        Ok(1) => Ok(()),
        Ok(n) => Err(ForkError::Threads(n)),
        Err(why) => Err(ForkError::Unknown(why)),
    }
}

/// Duplicates the process. Both sides return; the child must leave through [`exit`].
///
/// # Errors
/// [`ForkError::Threads`] when there is more than one thread, [`ForkError::System`] when the kernel refuses.
pub fn fork() -> Result<Forked, ForkError> {
    alone()?;
    fault::point("fork").map_err(ForkError::System)?;
    // SAFETY: the process has one thread, as counted just above by the only thread that could start another, so
    // no lock is held by a thread that the child would lack, and any code may run in the child (fork(2)).
    let pid = check(unsafe { libc::fork() }).map_err(ForkError::System)?;
    Ok(match Pid::from_raw(pid) {
        Some(child) => Forked::Parent(child),
        None => {
            born();
            Forked::Child
        }
    })
}

/// As [`fork()`], with the child in a control group from its first instruction on (clone3(2), CLONE_INTO_CGROUP), in namespaces of
/// its own, or as a sibling of this process.
///
/// Moving a process into a group afterwards waits for every processor to pass a quiet state, ten to twenty milliseconds on a
/// machine that is not busy; being born there waits for nothing. The C library's `fork` can do none of it, so the kernel is asked
/// directly, in the way in which that function asks it: the child's thread id is put where the library keeps it. What it
/// does not do is to run the functions of pthread_atfork(3).
///
/// # Errors
/// As [`fork()`]; ENOSYS, EOPNOTSUPP, EBUSY where the kernel or a filter does not allow it.
///
/// # Panics
/// When a process descriptor is asked for: there is nobody to give it to.
pub fn fork_with(with: With<'_>) -> Result<Forked, ForkError> {
    assert!(!with.pidfd, "a fork gives no process descriptor");
    alone()?;
    fault::point("fork").map_err(ForkError::System)?;
    let place = thread_id_address().map_err(ForkError::System)?;
    let same_place = (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as u64;
    let flags = with.flags() | same_place;
    let pid = if with.is_plain() {
        let (flags, none) = (flags | with.exit_signal(), 0usize);
        #[cfg(target_arch = "x86_64")]
        let [fourth, fifth] = [place, none];
        #[cfg(not(target_arch = "x86_64"))]
        let [fourth, fifth] = [none, place];
        // SAFETY: asks for a copy of this process, as fork(2) makes it: no shared memory, no stack of its own. The process has one
        // thread, as counted just above, so no lock is held by a thread that the child would lack. `place` is where the C
        // library has told the kernel that it keeps the thread id; which argument that is differs between architectures (clone(2)).
        unsafe { libc::syscall(libc::SYS_clone, flags, none, none, fourth, fifth) }
    } else {
        let args = CloneArgs {
            flags,
            child_tid: place as u64,
            exit_signal: with.exit_signal(),
            cgroup: with.group.map_or(0, |group| group.as_raw_fd() as u64),
            ..CloneArgs::default()
        };
        let (pointer, size, [first, second]) = (&raw const args, size_of::<CloneArgs>(), with.key.words());
        // SAFETY: `args` is a live structure of `size` bytes that asks for the same as above; the kernel does not look at the others.
        unsafe { libc::syscall(libc::SYS_clone3, pointer, size, first, second) }
    };
    let pid = check(pid as libc::c_int).map_err(ForkError::System)?;
    Ok(match Pid::from_raw(pid) {
        Some(child) => Forked::Parent(child),
        None => {
            born();
            Forked::Child
        }
    })
}

/// How often this process and those that it comes from were forked here: what was made for one process only knows by it
/// whether it is there still.
pub(crate) fn births() -> u64 {
    // Relaxed: it changes in a process that has one thread and has just begun.
    BIRTHS.load(Relaxed)
}

static BIRTHS: AtomicU64 = AtomicU64::new(0);

/// In a fresh child.
fn born() {
    apart::born();
    BIRTHS.store(births() + 1, Relaxed);
    fault::born();
}

/// `struct clone_args` of linux/sched.h in its third version, which has the control group.
#[derive(Default)]
#[repr(C)]
pub(crate) struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// linux/sched.h; wider than the flags that the C library names.
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where the C library keeps the id of this thread: it has told the kernel, set_tid_address(2), which tells it again.
fn thread_id_address() -> io::Result<usize> {
    fault::point("prctl")?;
    let mut address = 0usize;
    // SAFETY: the kernel writes one word to `address`, which is live and as large (prctl(2), PR_GET_TID_ADDRESS).
    check(unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut address) })?;
    if address == 0 { Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)) } else { Ok(address) }
}

/// Ends the process at once: no destructor, no `atexit` function, no flushing of what a parent had buffered.
pub fn exit(status: u8) -> ! {
    // SAFETY: `_exit` has no precondition; that nothing is cleaned up is what it is called for (_exit(2)).
    unsafe { libc::_exit(libc::c_int::from(status)) }
}

/// In a child: what it asks for memory from here on counts as asked since the fork, where that is looked at (feature `fault`).
pub fn counts_anew() {
    fault::born();
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

/// In a child: its working directory from here on. Asks for no memory, as std's function does for a long path.
///
/// # Errors
/// EACCES, ENOENT and others: chdir(2).
pub fn enter_directory(path: &CStr) -> io::Result<()> {
    fault::point("chdir")?;
    Ok(rustix::process::chdir(path)?)
}

/// What this process is called, as ps(1) shows it: PR_GET_NAME(2const).
///
/// # Errors
/// None that it documents.
pub fn name() -> io::Result<CString> {
    Ok(rustix::thread::name()?)
}

/// What it is called from here on, and what is forked from it; a program has its own name. Asks for no memory.
pub fn set_name(name: &CStr) {
    // It cannot fail with a name that can be read, which a reference is to; and nothing depends on it.
    let _ = rustix::thread::set_name(name);
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

// SAFETY: the declaration is that of glibc's sys/single_threaded.h: extern char __libc_single_threaded.
unsafe extern "C" {
    /// sys/single_threaded.h, from glibc 2.32 on.
    static __libc_single_threaded: libc::c_char;
}

// SAFETY: the declaration is that of glibc's stdlib.h: int on_exit(void (*)(int, void *), void *).
unsafe extern "C" {
    fn on_exit(
        function: extern "C" fn(libc::c_int, *mut libc::c_void),
        argument: *mut libc::c_void,
    ) -> libc::c_int;
}
