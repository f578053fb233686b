//! Fork: the only place where a child is born.

use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Instant;

use tine_confine::{Failure, Prepared, Step};
use tine_os::exec::{Argv, Environ, exec};
use tine_os::fork::exit;
use tine_os::socket::Addr;
use tine_os::spawn::With;
use tine_os::{Forked, Pid, apart, fd, orphan};

use crate::life::reap::{Report, Reports};
use crate::life::tree::{Orphans, Trees};
use crate::peer::Peer;

/// What every child is given, and where its processes are held together.
#[derive(Debug)]
pub(crate) struct Workplace {
    pub desk: Rc<Desk>,
    pub trees: Trees,
}

/// What every child is given: opened and laid out before the first one, and changed no more. Children that share the master's
/// memory until they are a program read it there.
#[derive(Debug)]
pub(crate) struct Desk {
    pub plan: Prepared,
    pub null: OwnedFd,
    pub log: OwnedFd,
    pub reports: Reports,
    /// What becomes of children when this process, the master, is killed.
    pub orphans: Orphans,
    pub master: Pid,
    /// What keeps the pid namespaces that children are born into, where there are such.
    pub init: Option<OwnedFd>,
    /// By which they know, as long as nothing can be read from it, that the master is there, who has the other end.
    pub alive: Option<OwnedFd>,
}

/// What a child knows of its client, beside the connection.
#[derive(Debug)]
pub(crate) struct Birth {
    pub peer: Peer,
    pub local: Addr,
    /// Whether it inherits the orphans of what it starts.
    pub inherits: bool,
    /// What tells it from all children that are alive at the same time.
    pub slot: u32,
    /// The child's end of a line on which it says who its client is, where a balancer has to be asked first.
    pub line: Option<OwnedFd>,
    /// When the child was about to be born.
    pub born: Instant,
}

/// The exit status of a child that could not start; why is in its report.
pub(crate) const SETUP_FAILED: u8 = 111;

/// Forks, with a control group, namespaces or another parent where they are given. The parent gets the child's id; the child does
/// `task`, which comes back only to say why it could not begin.
///
/// # Errors
/// What the kernel says: EAGAIN or ENOMEM.
pub(crate) fn fork(desk: &Desk, with: With<'_>, task: impl FnOnce(&Desk) -> Failure) -> io::Result<Pid> {
    // What stands in our buffer would otherwise be written by the child as well. Nobody reads it: nothing to do.
    let _ = apart::outside(|| io::stdout().flush());
    let forked = if with.is_nothing() { tine_os::fork() } else { tine_os::fork::fork_with(with) };
    match forked {
        Ok(Forked::Parent(child)) => Ok(child),
        Ok(Forked::Child) => {
            // Each flush of the master's writes to its lock, and the child would keep the old page of it: with this it is the child's own.
            drop(io::stdout().lock());
            let failure = task(desk);
            desk.reports.send(&Report::Failed(failure));
            exit(SETUP_FAILED)
        }
        Err(tine_os::ForkError::System(why)) => Err(why),
        Err(other) => Err(io::Error::other(other.to_string())),
    }
}

/// Numbers in their order. In an array, not a vector: nothing on the way from fork to exec asks for memory.
fn sorted<'a>(
    room: &'a mut [RawFd; 8],
    some: impl IntoIterator<Item = RawFd>,
    others: &[BorrowedFd<'_>],
) -> &'a [RawFd] {
    let all = some.into_iter().chain(others.iter().map(|fd| fd.as_raw_fd()));
    let count = room.iter_mut().zip(all).map(|(place, number)| *place = number).count();
    room[..count].sort_unstable();
    &room[..count]
}

impl Deref for Workplace {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.desk
    }
}

impl Desk {
    /// In a child: takes its place among the trees, where it inherits the orphans of what it starts or not, and enters the plan, with
    /// `fds` in the places 0, 1, 2 ..., the way to report, and what is still needed; nothing else is open.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn begin(
        &self,
        (inherits, slot): (bool, u32),
        fds: &[BorrowedFd<'_>],
        needed: &[BorrowedFd<'_>],
    ) -> Result<(), Failure> {
        if inherits {
            orphan::become_subreaper().map_err(Step::Tree.failed())?;
        }
        self.enter(slot, fds, needed)?;
        match self.orphans {
            Orphans::Finish => Ok(()),
            // All that are in its pid namespace go then, for the first of them does.
            Orphans::Die if self.init.is_some() => Ok(()),
            // After the change of identity, which would undo it: prctl(2), PR_SET_PDEATHSIG.
            Orphans::Die => match orphan::die_with_parent(self.master) {
                // From a pid namespace of its own nobody sees a parent; but the master would read our reports.
                Err(_) if self.reports.is_foreign() && !self.reports.are_unheard() => Ok(()),
                set => set.map_err(Step::Parent.failed()),
            },
        }
    }

    /// In a child: enters the plan with `fds` in the places 0, 1, 2 ..., the way to report and `kept`; nothing else is open.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn enter(
        &self,
        slot: u32,
        fds: &[BorrowedFd<'_>],
        kept: &[BorrowedFd<'_>],
    ) -> Result<(), Failure> {
        let reports = self.child_ends().chain(self.plan.kept());
        self.plan.enter(slot, || fd::place(fds, sorted(&mut [RawFd::MAX; 8], reports, kept)))
    }

    /// In a spare whose client has come: puts `fds` in the places 0, 1, 2 ..., and closes all but the way to report.
    ///
    /// # Errors
    /// What dup2(2) and close_range(2) say.
    pub(crate) fn place(&self, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let placed = fd::place(fds, sorted(&mut [RawFd::MAX; 8], self.child_ends(), &[]));
        placed.map_err(Step::Descriptors.failed())
    }

    /// In a child that has entered the plan and waits: what was needed for that is closed.
    ///
    /// # Errors
    /// What close_range(2) says.
    pub(crate) fn let_go(&self, placed: usize, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
        fd::close_from(placed as RawFd, sorted(&mut [RawFd::MAX; 8], self.child_ends(), kept))
    }

    /// In a child that runs code of an author: the way to report is closed too, all but `kept`, and `exit(3)` runs nothing of
    /// the master's.
    ///
    /// # Errors
    /// What close_range(2) and on_exit(3) say.
    pub(crate) fn settle(&self, placed: usize, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
        fd::close_from(placed as RawFd, sorted(&mut [RawFd::MAX; 8], [], kept))?;
        tine_os::fork::forget_exit_functions()
    }

    /// In a child: becomes a program, or says why not.
    pub(crate) fn execute(&self, argv: &Argv, environ: &mut Environ) -> Failure {
        Step::Exec.failed()(exec(argv, environ))
    }

    /// What a child needs open until it serves.
    pub(crate) fn child_ends(&self) -> impl Iterator<Item = RawFd> {
        self.reports.child_ends()
    }

    pub(crate) fn log(&self) -> BorrowedFd<'_> {
        self.log.as_fd()
    }
}
