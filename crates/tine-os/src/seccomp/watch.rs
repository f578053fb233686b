//! Calls that a filter has wait for an answer, and who is told of them. seccomp_unotify(2), pidfd_open(2).
//!
//! A filter that kills tells nobody which call it was for: wait(2) has a signal, and the rest is in the kernel's own log, if at all. One
//! that asks tells, and whoever waits for the answer is held by it meanwhile: so it can be looked at, and killed, before it goes on.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::{ARCHITECTURE, Instruction, filter, i386, name};
use crate::{Pid, check, fault, signal};

/// A system call, by its number among those of an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// AUDIT_ARCH_* of linux/audit.h.
    pub architecture: u32,
    /// Its number.
    pub number: u32,
}

/// A call that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    id: u64,
    /// The thread that has made it; `None` when it is in a pid namespace that cannot be seen from here.
    pub thread: Option<Pid>,
    /// Which.
    pub call: Call,
}

/// Where calls are told of that wait for an answer. When it is closed, they fail as unknown, and so do all that are made later.
///
/// Readable when there is one, or when nobody is left who wears the filter. There must be one reader only.
#[derive(Debug)]
pub struct Watch(OwnedFd);

/// 32-bit x86: AUDIT_ARCH_I386. 32-bit Arm: AUDIT_ARCH_ARM.
const I386: u32 = 0x4000_0003;
const ARM: u32 = 0x4000_0028;

/// The flag of a filter that asks: SECCOMP_FILTER_FLAG_NEW_LISTENER.
pub const NEW_LISTENER: u32 = 1 << 3;
/// Whoever waits and was told of is woken by death only: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19.
const KILLABLE: u32 = 1 << 5;

/// `struct seccomp_notif` with the `struct seccomp_data` in it: linux/seccomp.h.
#[derive(Default)]
#[repr(C)]
struct Notice {
    id: u64,
    thread: u32,
    flags: u32,
    number: u32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// SECCOMP_IOCTL_NOTIF_RECV, _SEND and _ID_VALID, made as _IOWR and _IOW of asm-generic/ioctl.h make them.
const RECEIVE: libc::Ioctl = command(3, size_of::<Notice>(), 0);
const SEND: libc::Ioctl = command(3, size_of::<Response>(), 1);
const IS_VALID: libc::Ioctl = command(1, size_of::<u64>(), 2);

const fn command(direction: u32, size: usize, number: u32) -> libc::Ioctl {
    (direction << 30 | (size as u32) << 16 | (b'!' as u32) << 8 | number) as libc::Ioctl
}

/// As [`super::enter`]: what the program answers with [`super::answer::ASK`] is told of here. Nobody who wears it can have a place
/// of its own where it is told of calls, as long as this one is open.
///
/// # Errors
/// EBUSY when this process wears one already that is watched by somebody; EINVAL before Linux 5.0; EMFILE; as [`super::enter`].
/// Nothing is worn then.
pub fn enter_watched(program: &[Instruction]) -> io::Result<Watch> {
    let entered = filter(program, NEW_LISTENER | KILLABLE);
    let fd = match entered {
        Err(why) if why.raw_os_error() == Some(libc::EINVAL) => filter(program, NEW_LISTENER),
        other => other,
    }?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec; nobody else knows it.
    Ok(Watch(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether that is what [`enter_watched`] says where it cannot be had: where somebody else is asked already about calls of ours, as in some
/// containers, and on a kernel that does not know it.
pub fn is_unwatchable(why: &io::Error) -> bool {
    matches!(why.raw_os_error(), Some(libc::EBUSY | libc::EINVAL))
}

impl Watch {
    /// The next call that waits; `None` when there is none. Never waits itself.
    ///
    /// # Errors
    /// `BrokenPipe` when nobody is left who could make one.
    pub fn next(&self) -> io::Result<Option<Waiting>> {
        fault::point("poll")?;
        let mut polls = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polls, Some(&now))?;
        // Asked first, for the kernel would wait for one; but not when one has been withdrawn since.
        match polls[0].revents() {
            told if told.contains(PollFlags::IN) => {}
            told if told.is_empty() => return Ok(None),
            _ => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        fault::point("ioctl")?;
        // The kernel will have it zeroed.
        let mut notice = Notice::default();
        let place = &raw mut notice;
        // SAFETY: `place` is as large as the command says, alive, and of integers only, which the kernel writes (seccomp_unotify(2)).
        let received = check(unsafe { libc::ioctl(self.0.as_raw_fd(), RECEIVE, place) });
        match received.map_err(|why| (why.raw_os_error(), why)) {
            Ok(_) => {}
            Err((Some(libc::ENOENT | libc::EINTR), _)) => return Ok(None),
            Err((_, why)) => return Err(why),
        }
        let call = Call { architecture: notice.architecture, number: notice.number };
        let thread = i32::try_from(notice.thread).ok().and_then(Pid::from_raw);
        Ok(Some(Waiting { id: notice.id, thread, call }))
    }

    /// Kills the process of a thread that waits.
    ///
    /// # Errors
    /// `NotFound`: it does not wait any more, and the call was not done. EPERM when this process may not kill it, which goes on
    /// waiting then; EMFILE, ENFILE; ESRCH or EINVAL for what is no process.
    pub fn kill(&self, waiting: &Waiting, process: Pid) -> io::Result<()> {
        let pidfd = signal::open(process)?;
        // Whoever still waits has had its ids all the time, and so the descriptor is of its process, and not of one that was given
        // the same id since.
        self.is_valid(waiting)?;
        signal::send_through(&pidfd, Signal::KILL)
    }

    /// Answers a call: it fails, as one that is not permitted.
    ///
    /// # Errors
    /// `NotFound`: it does not wait any more.
    pub fn refuse(&self, waiting: &Waiting) -> io::Result<()> {
        fault::point("ioctl")?;
        let response = Response { id: waiting.id, value: 0, error: -libc::EPERM, flags: 0 };
        let response = &raw const response;
        // SAFETY: `response` is alive and as large as the command says; the kernel reads it (seccomp_unotify(2)).
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), SEND, response) }).map(drop)
    }

    fn is_valid(&self, waiting: &Waiting) -> io::Result<()> {
        fault::point("ioctl")?;
        let id = &raw const waiting.id;
        // SAFETY: `id` is a live number as long as the command says; the kernel reads it (seccomp_unotify(2)).
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), IS_VALID, id) }).map(drop)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Watch {
    /// One that was passed by the process that wears the filter.
    fn from(fd: OwnedFd) -> Watch {
        Watch(fd)
    }
}

impl Call {
    /// Whether it is one by the numbers of another architecture than this program's own.
    pub fn is_foreign(&self) -> bool {
        Some(self.architecture) != ARCHITECTURE
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.architecture {
            _ if !self.is_foreign() => name(self.number),
            I386 => {
                f.write_str("i386:")?;
                i386::name(self.number)
            }
            ARM => {
                f.write_str("arm:")?;
                None
            }
            other => {
                write!(f, "{other:#x}:")?;
                None
            }
        };
        match name {
            Some(name) => f.write_str(name),
            None => self.number.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_by_its_name_where_it_has_one_and_by_its_architecture_where_that_is_another() {
        let here = ARCHITECTURE.unwrap();
        let ptrace = super::super::number("ptrace").unwrap();
        let told = |architecture, number| Call { architecture, number }.to_string();
        assert_eq!(told(here, ptrace), "ptrace");
        assert_eq!(told(here, 9999), "9999");
        assert_eq!(told(I386, 20), "i386:getpid");
        assert_eq!(told(I386, 9999), "i386:9999");
        assert_eq!(told(ARM, 20), "arm:20");
        assert_eq!(told(0x16, 4), "0x16:4");
    }

    #[test]
    fn commands_have_the_numbers_that_the_kernel_gives_them() {
        assert_eq!([RECEIVE, SEND, IS_VALID].map(|one| one as u32), [0xc050_2100, 0xc018_2101, 0x4008_2102]);
    }
}
