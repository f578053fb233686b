//! Process ids as values that can be sorted, shown and sent. pid_t in credentials(7).

use std::fmt;
use std::num::NonZeroI32;

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
