//! Where a worker works: the child contract, with its socket and a line that breaks when the master is gone.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tine_confine::{Failure, Step};
use tine_os::fd;

use crate::life::bind::Listener;
use crate::life::fork::Desk;

/// What a worker needs beside its work.
pub(crate) struct Bench<'a> {
    pub desk: &'a Desk,
    pub listener: &'a Listener,
    /// Of the listener's sockets the one that this worker reads.
    pub socket: BorrowedFd<'a>,
    pub life: &'a OwnedFd,
}

impl Bench<'_> {
    /// In the worker: the child contract, with the datagram socket as descriptor 3, the end of the master's life as 4 and
    /// `others` from 5 on.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn enter(&self, others: &[&OwnedFd]) -> Result<Vec<OwnedFd>, Failure> {
        let null = &self.desk.null;
        let log = self.desk.log();
        let mut fds = vec![null.as_fd(), log, log, self.socket, self.life.as_fd()];
        fds.extend(others.iter().map(|fd| fd.as_fd()));
        // Numbers above those that are written to, or placing one would overwrite another that is still to be placed.
        let moved: Vec<_> = fds[3..]
            .iter()
            .map(fd::duplicate_high)
            .collect::<io::Result<_>>()
            .map_err(Step::Descriptors.failed())?;
        // Their numbers are closed with all others, so nobody may close them again.
        let moved = ManuallyDrop::new(moved);
        let fds: Vec<_> = fds[..3].iter().copied().chain(moved.iter().map(AsFd::as_fd)).collect();
        self.desk.enter(0, &fds, &[])?;
        let placed = (3..fds.len()).map(|number| fd::placed(number as i32)).collect::<io::Result<_>>();
        placed.map_err(Step::Descriptors.failed())
    }
}
