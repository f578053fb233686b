//! Fork: the only place where a child is born.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use tine_confine::{Failure, Prepared};
use tine_os::fork::exit;
use tine_os::{Forked, Pid, fd};

use crate::life::reap::{Report, Reports};

/// What every child is given, opened and laid out before the first one.
#[derive(Debug)]
pub(crate) struct Workplace {
    pub plan: Prepared,
    pub null: OwnedFd,
    pub log: OwnedFd,
    pub reports: Reports,
}

/// The exit status of a child that could not start; why is in its report.
pub(crate) const SETUP_FAILED: u8 = 111;

/// Forks. The parent gets the child's id; the child does `task`, which comes back only to say why it could not begin.
///
/// # Errors
/// What the kernel says: EAGAIN or ENOMEM.
pub(crate) fn fork(workplace: &Workplace, task: impl FnOnce(&Workplace) -> Failure) -> io::Result<Pid> {
    // What stands in our buffer would otherwise be written by the child as well. Nobody reads it: nothing to do.
    let _ = io::stdout().flush();
    match tine_os::fork() {
        Ok(Forked::Parent(child)) => Ok(child),
        Ok(Forked::Child) => {
            let failure = task(workplace);
            workplace.reports.send(&Report::Failed(failure));
            exit(SETUP_FAILED)
        }
        Err(tine_os::ForkError::System(why)) => Err(why),
        Err(other) => Err(io::Error::other(other.to_string())),
    }
}

impl Workplace {
    /// In a child: enters the plan with `fds` in the places 0, 1, 2 ... and nothing else open.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn enter(&self, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        self.plan.enter(|| fd::place(fds, &[self.reports.child_end()]))
    }

    /// In a child that runs code of an author: the way to report is closed too, and `exit(3)` runs nothing of the master's.
    ///
    /// # Errors
    /// What close_range(2) and on_exit(3) say.
    pub(crate) fn settle(&self, placed: usize) -> io::Result<()> {
        fd::close_from(placed as RawFd, &[])?;
        tine_os::fork::forget_exit_functions()
    }

    pub(crate) fn log(&self) -> BorrowedFd<'_> {
        self.log.as_fd()
    }
}
