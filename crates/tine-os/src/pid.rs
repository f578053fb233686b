//! Process ids as values that can be sorted, shown and sent. pid_t in credentials(7).

use std::fmt;
use std::fs;
use std::io;
use std::num::NonZeroI32;
use std::os::fd::BorrowedFd;

use crate::fault;

/// The id of a process, greater than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(NonZeroI32);

/// Whose a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kin {
    /// Its process.
    pub process: Pid,
    /// That one's parent, if it can be seen from here.
    pub parent: Option<Pid>,
    /// The session that it is in, by whoever has begun it, who may be gone; if that can be seen from here.
    pub session: Option<Pid>,
    /// Its process's id in its own pid namespace.
    pub inner: Option<Pid>,
}

impl Kin {
    /// Whether it is the first process of its pid namespace.
    pub fn is_first(&self) -> bool {
        self.inner.is_some_and(|inner| inner.as_raw() == 1)
    }
}

impl Pid {
    /// `None` for anything that is no process's id.
    pub fn from_raw(number: i32) -> Option<Pid> {
        NonZeroI32::new(number).filter(|n| n.get() > 0).map(Pid)
    }

    /// The id as the kernel writes it.
    pub fn as_raw(self) -> i32 {
        self.0.get()
    }

    /// The id as std's `Child::id` gives it.
    pub fn id(self) -> u32 {
        self.0.get().unsigned_abs()
    }

    /// This process.
    pub fn own() -> Pid {
        Pid(rustix::process::getpid().as_raw_nonzero())
    }

    /// This process, as it is seen in the pid namespace of a `/proc` that is open: in a namespace of its own it cannot know
    /// otherwise what it is to its parent. Asks for no memory.
    ///
    /// # Errors
    /// ENOENT when it is not seen there; what readlink(2) says.
    pub fn seen_in(proc: BorrowedFd<'_>) -> io::Result<Pid> {
        fault::point("readlink")?;
        let mut room = [0u8; 16];
        let length = rustix::fs::readlinkat_raw(proc, c"self", &mut room[..])?;
        let number = str::from_utf8(&room[..length]).ok().and_then(|text| text.parse().ok());
        number.and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// What the process calls itself, PR_SET_NAME(2const): at most 15 bytes, and any.
    ///
    /// # Errors
    /// `NotFound` when it has ended and was waited for, or `/proc` is not mounted.
    pub fn name(self) -> io::Result<Vec<u8>> {
        fault::point("open")?;
        let mut name = fs::read(format!("/proc/{self}/comm"))?;
        name.pop_if(|last| *last == b'\n');
        Ok(name)
    }

    /// Whose this thread, or process, is: proc_pid_status(5).
    ///
    /// # Errors
    /// `NotFound` when it is gone, or may not be looked at; what open(2) and read(2) say.
    pub fn kin(self) -> io::Result<Kin> {
        fault::point("open")?;
        // It has the name of a program in it, which may be any bytes.
        let status = fs::read(format!("/proc/{self}/status"))?;
        let numbers = |key: &str| {
            let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(key.as_bytes()));
            let words = line.and_then(|line| str::from_utf8(line).ok()).unwrap_or_default();
            words.split_ascii_whitespace().map(|word| word.parse().ok().and_then(Pid::from_raw))
        };
        // Of several the first is the one that is seen from where this `/proc` is, and the last its own.
        let first = |key| numbers(key).next().flatten();
        let process = first("Tgid:").ok_or(io::ErrorKind::InvalidData)?;
        let (parent, session) = (first("PPid:"), first("NSsid:"));
        Ok(Kin { process, parent, session, inner: numbers("NStgid:").next_back().flatten() })
    }

    pub(crate) fn kernel(self) -> rustix::process::Pid {
        let same = rustix::process::Pid::from_raw(self.0.get());
        same.expect("both types hold the same range of numbers: those above zero")
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
