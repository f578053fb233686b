//! Signals: blocked and read as a descriptor in the master, all default and none blocked in a child.
//!
//! No handler is ever installed, so nothing runs between two instructions and no call of the master is cut short:
//! the classic server that ends when its first child dies (an interrupted `accept`) cannot be written this way.
//! signalfd(2), sigprocmask(2), sigaction(2), signal(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

pub use rustix::process::Signal;
use rustix::process::{kill_process, kill_process_group, test_kill_process_group};

use crate::{Pid, check, fault};

/// The signals that stay as they are: those that tell of a fault in the code that runs, those of job control, and
/// SIGCHLD, whose default is to do nothing (the dead are learned of otherwise: see `wait`).
const LEFT_ALONE: [libc::c_int; 12] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCONT,
    libc::SIGCHLD,
];

/// The signals of a process, arriving as data.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks every signal that can be blocked sensibly and reads them from here on.
    ///
    /// A disposition to ignore, inherited from whoever started us, would throw signals away before they could be
    /// read (and would reap children behind our back in SIGCHLD's case), so all of them are set back to default.
    ///
    /// # Errors
    /// What sigprocmask(2) and signalfd(2) say.
    pub fn take_over() -> io::Result<Signals> {
        let mut set = every_signal();
        for signal in LEFT_ALONE {
            // SAFETY: `set` is an initialised set that outlives the call, the number is a signal's.
            check(unsafe { libc::sigdelset(&mut set, signal) })?;
        }
        set_mask(&set)?;
        for signal in 1..=libc::SIGRTMAX() {
            if !LEFT_ALONE[..7].contains(&signal) {
                set_default(signal)?;
            }
        }
        fault::point("signalfd")?;
        // SAFETY: `set` is initialised and outlives the call; -1 asks for a new descriptor (signalfd(2)).
        let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that waits, if one does; real-time signals mean nothing to us and are passed over.
    ///
    /// # Errors
    /// What read(2) says, but for "nothing there".
    pub fn next(&self) -> io::Result<Option<Signal>> {
        loop {
            fault::point("read")?;
            let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
            match rustix::io::read(&self.0, &mut info) {
                Ok(_) => {
                    // The number is the first field: signalfd(2).
                    let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                    if let Some(signal) = Signal::from_named_raw(number) {
                        return Ok(Some(signal));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(why) => return Err(why.into()),
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

/// In a child: every disposition default, SIGPIPE's too, and nothing blocked.
///
/// # Errors
/// What sigaction(2) and sigprocmask(2) say.
pub fn reset() -> io::Result<()> {
    fault::point("sigaction")?;
    for signal in 1..=libc::SIGRTMAX() {
        set_default(signal)?;
    }
    fault::point("sigprocmask")?;
    let mut none = every_signal();
    // SAFETY: `none` is a set of ours that outlives the call.
    check(unsafe { libc::sigemptyset(&mut none) })?;
    set_mask(&none)
}

/// Sends a signal to a child that has not been waited for, so that the id is still its own.
///
/// # Errors
/// ESRCH, EPERM: kill(2).
pub fn send(child: Pid, signal: Signal) -> io::Result<()> {
    fault::point("kill")?;
    Ok(kill_process(child.kernel(), signal)?)
}

/// Sends a signal to all in the group that `leader`, a child not yet waited for, leads. Nobody there is no error.
///
/// # Errors
/// EPERM: kill(2).
pub fn send_group(leader: Pid, signal: Signal) -> io::Result<()> {
    fault::point("kill")?;
    match kill_process_group(leader.kernel(), signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// Whether there is anybody whom we may signal in the group that `leader`, a child that was waited for, has led. As long as
/// there is, the kernel gives its number to nobody else.
///
/// # Errors
/// None that kill(2) documents.
pub fn is_group(leader: Pid) -> io::Result<bool> {
    fault::point("kill")?;
    match test_kill_process_group(leader.kernel()) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(false),
        Err(why) => Err(why.into()),
    }
}

fn every_signal() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset(3) writes the whole set and cannot fail on a valid pointer.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: sigfillset(3), just above, has written every byte of the set.
    unsafe { set.assume_init() }
}

fn set_mask(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is initialised and outlives the call; a null old set is allowed (sigprocmask(2)).
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, set, ptr::null_mut()) }).map(drop)
}

/// Asks the kernel itself: the C library will not touch the two real-time signals that it uses, and a program that it
/// started by posix_spawn(3) may find them ignored.
fn set_default(signal: libc::c_int) -> io::Result<()> {
    if signal == libc::SIGKILL || signal == libc::SIGSTOP {
        return Ok(());
    }
    // The kernel's `struct sigaction` is at most four words, and all zeroes are SIG_DFL, no flags, no mask.
    let default = [0usize; 4];
    let (new, old, size) = (default.as_ptr(), ptr::null_mut::<usize>(), size_of::<u64>());
    // SAFETY: `new` points to as many zeroes as the kernel reads and a null `old` is allowed; SIG_DFL is a disposition,
    // not a function of ours, so no code can be entered by it (rt_sigaction(2)).
    let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size) };
    check(done as libc::c_int).map(drop)
}
