//! Signals: blocked and read as a descriptor in the master, all default and none blocked in a child.
//!
//! No handler is ever installed, so nothing runs between two instructions and no call of the master is cut short:
//! the classic server that ends when its first child dies (an interrupted `accept`) cannot be written this way.
//! Children are signalled through a descriptor of theirs, so that no signal can reach a process that came by the same number.
//! signalfd(2), sigprocmask(2), sigaction(2), pidfd_open(2), pidfd_send_signal(2), signal(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

pub use rustix::process::Signal;
use rustix::process::{PidfdFlags, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::{Pid, check, fault};

/// The signals that do not arrive as data: those that tell of a fault in the code that runs, those of job control, and
/// SIGCHLD, which is read elsewhere (see `wait`).
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
        let mut blocked = set;
        // SAFETY: `blocked` is a copy of that set and outlives the call, the number is a signal's.
        check(unsafe { libc::sigaddset(&mut blocked, libc::SIGCHLD) })?;
        set_mask(&blocked)?;
        for signal in 1..=libc::SIGRTMAX() {
            if !LEFT_ALONE[..7].contains(&signal) {
                set_default(signal)?;
            }
        }
        descriptor(&set).map(Signals)
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

/// The signals whose disposition is not the default now: those that are ignored, and those that have a handler.
///
/// # Errors
/// What sigaction(2) says.
pub fn changed() -> io::Result<Vec<i32>> {
    fault::point("sigaction")?;
    let mut changed = Vec::new();
    for signal in 1..=libc::SIGRTMAX() {
        if disposition(signal)? != libc::SIG_DFL {
            changed.push(signal);
        }
    }
    Ok(changed)
}

/// Blocks SIGCHLD and makes a descriptor that can be read when one has come: some child has died, or several have, for it does
/// not queue. [`Signals::take_over`] leaves it blocked.
///
/// # Errors
/// What sigprocmask(2) and signalfd(2) say.
pub(crate) fn of_deaths() -> io::Result<OwnedFd> {
    let mut set = every_signal();
    // SAFETY: `set` is a set of ours that outlives the call.
    check(unsafe { libc::sigemptyset(&mut set) })?;
    // SAFETY: `set` is emptied just above and outlives the call, the number is a signal's.
    check(unsafe { libc::sigaddset(&mut set, libc::SIGCHLD) })?;
    // SAFETY: `set` is initialised and outlives the call; a null old set is allowed (sigprocmask(2)).
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()) })?;
    descriptor(&set)
}

fn descriptor(set: &libc::sigset_t) -> io::Result<OwnedFd> {
    fault::point("signalfd")?;
    // SAFETY: `set` is initialised and outlives the call; -1 asks for a new descriptor (signalfd(2)).
    let fd = check(unsafe { libc::signalfd(-1, set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// In a child: the dispositions of these default again, SIGPIPE's too if it is among them, and nothing blocked.
///
/// # Errors
/// What sigaction(2) and sigprocmask(2) say.
pub fn reset(changed: &[i32]) -> io::Result<()> {
    set_defaults(changed)?;
    fault::point("sigprocmask")?;
    let mut none = every_signal();
    // SAFETY: `none` is a set of ours that outlives the call.
    check(unsafe { libc::sigemptyset(&mut none) })?;
    set_mask(&none)
}

/// The dispositions of these are default again; what is blocked stays so.
///
/// # Errors
/// What sigaction(2) says.
pub fn set_defaults(changed: &[i32]) -> io::Result<()> {
    fault::point("sigaction")?;
    changed.iter().try_for_each(|signal| set_default(*signal))
}

/// Sends a signal to a child that has not been waited for, so that the id is still its own.
///
/// # Errors
/// EPERM, EMFILE, ENFILE; ESRCH or EINVAL when it has been waited for: pidfd_open(2), pidfd_send_signal(2).
pub fn send(child: Pid, signal: Signal) -> io::Result<()> {
    send_through(&open(child)?, signal)
}

/// Sends a signal to the process of a descriptor.
pub(crate) fn send_through(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    fault::point("pidfd_send_signal")?;
    Ok(pidfd_send_signal(pidfd, signal)?)
}

/// Sends a signal to all in the group that `leader`, a child not yet waited for, leads; it may have ended. Where there is no
/// such group, because the child has not come to that yet or nobody is left, the child alone is sent it, and that it has
/// ended is no error.
///
/// # Errors
/// EPERM when none of them may be signalled, EMFILE, ENFILE; ESRCH or EINVAL when the leader has been waited for, whoever is
/// left in its group: pidfd_open(2), pidfd_send_signal(2).
pub fn send_group(leader: Pid, signal: Signal) -> io::Result<()> {
    let pidfd = open(leader)?;
    fault::point("pidfd_send_signal")?;
    let (fd, number, no_info) = (pidfd.as_raw_fd(), signal.as_raw(), ptr::null::<libc::siginfo_t>());
    // SAFETY: a null `info` makes the kernel fill it in, so that the call reads no memory of ours; the descriptor is open
    // until the end of this function (pidfd_send_signal(2)).
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, no_info, WHOLE_GROUP) };
    let sent = match check(sent as libc::c_int) {
        // A kernel before 6.9 knows no flags. The leader's number is then as good: it has not been waited for, so no
        // other process and no other group can have come by it.
        Err(why) if why.raw_os_error() == Some(libc::EINVAL) => {
            fault::point("kill")?;
            kill_process_group(leader.kernel(), signal).map_err(io::Error::from)
        }
        other => other.map(drop),
    };
    if !sent.as_ref().is_err_and(|why| why.raw_os_error() == Some(libc::ESRCH)) {
        return sent;
    }
    fault::point("pidfd_send_signal")?;
    match pidfd_send_signal(&pidfd, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// PIDFD_SIGNAL_PROCESS_GROUP: the signal is for the group that the process leads. Linux 6.9.
const WHOLE_GROUP: libc::c_uint = 1 << 2;

pub(crate) fn open(child: Pid) -> io::Result<OwnedFd> {
    fault::point("pidfd_open")?;
    Ok(pidfd_open(child.kernel(), PidfdFlags::empty())?)
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

/// What becomes of a signal; asked of the kernel itself, as below.
fn disposition(signal: libc::c_int) -> io::Result<libc::sighandler_t> {
    let mut now = [0usize; 4];
    let (new, old, size) = (ptr::null::<usize>(), now.as_mut_ptr(), size_of::<u64>());
    // SAFETY: a null `new` changes nothing, and `old` has room for the four words that the kernel writes at most, of which the
    // first is the handler (rt_sigaction(2)).
    let done = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old, size) };
    check(done as libc::c_int).map(|_| now[0])
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
