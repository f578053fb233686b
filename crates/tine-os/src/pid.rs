//! Process ids as values that can be sorted, shown and sent. pid_t in credentials(7).

use std::fmt;
use std::io;
use std::num::NonZeroI32;
use std::os::fd::BorrowedFd;

use crate::fault;

/// The id of a process, greater than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(NonZeroI32);

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
