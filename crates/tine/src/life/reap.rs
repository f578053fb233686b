//! Reap: a death becomes an outcome with its bill; the slot is free; the source may earn a penalty.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use tine_confine::{Failure, Step};
use tine_os::wait::Ended;
use tine_os::{Pid, fd};

use crate::event::{Bill, How, Outcome};
use crate::life::admit::Fault;
use crate::life::end::Cause;

/// How children that cannot start say why: one pipe for all of them, closed before any code but ours runs. A message is
/// smaller than PIPE_BUF, so it arrives whole (pipe(7)). A second pipe takes what need not be heard at once, so that
/// nobody is woken for it.
#[derive(Debug)]
pub(crate) struct Reports {
    read: OwnedFd,
    write: OwnedFd,
    read_later: OwnedFd,
    write_later: OwnedFd,
    /// The `/proc` of the master's own pid namespace, by which children in others know who they are there.
    proc: Option<OwnedFd>,
}

/// What a process of ours tells the master about itself.
#[derive(Debug)]
pub(crate) enum Report {
    /// It cannot start.
    Failed(Failure),
    /// It has begun to serve, this long after the fork.
    Ready(Duration),
    /// Behind its header the client had said something.
    Spoken,
    /// A worker has begun; the one before it had a datagram in hand, which is lost, or not.
    Begun {
        /// Whether.
        lost: bool,
    },
    /// A worker has received a datagram that was longer than there was room.
    Truncated,
    /// A worker has dropped datagrams that it had no room for.
    Dropped,
}

/// A message: process id, kind, value, four bytes each. Kinds below 100 are steps that failed, the value their errno.
const MESSAGE: usize = 12;
const BEGUN: i32 = 100;
const TRUNCATED: i32 = 101;
const DROPPED: i32 = 102;
const SET_UP: i32 = 103;
const SPOKEN: i32 = 104;

impl Reports {
    /// `foreign`: children are in pid namespaces of their own.
    pub(crate) fn new(foreign: bool) -> io::Result<Reports> {
        let ((read, write), (read_later, write_later)) = (fd::pipe()?, fd::pipe()?);
        // Out of the way of what is placed in a child.
        let (write, write_later) = (fd::duplicate_low(write)?, fd::duplicate_low(write_later)?);
        let proc = foreign.then(|| fd::directory("/proc").and_then(fd::duplicate_low)).transpose()?;
        Ok(Reports { read, write, read_later, write_later, proc })
    }

    /// Whether children are in pid namespaces of their own.
    pub(crate) fn is_foreign(&self) -> bool {
        self.proc.is_some()
    }

    /// In a child: whether the master is gone.
    pub(crate) fn are_unheard(&self) -> bool {
        fd::is_broken(&self.write)
    }

    /// In a child: its id as the master knows it.
    fn who(&self) -> Pid {
        let seen = self.proc.as_ref().and_then(|proc| Pid::seen_in(proc.as_fd()).ok());
        seen.unwrap_or_else(Pid::own)
    }

    /// The descriptors that a child needs until it has started.
    pub(crate) fn child_ends(&self) -> impl Iterator<Item = RawFd> {
        [Some(&self.write), Some(&self.write_later), self.proc.as_ref()]
            .into_iter()
            .flatten()
            .map(AsRawFd::as_raw_fd)
    }

    /// In a child. A full pipe loses the report; that a set-up failed, the exit status still tells.
    pub(crate) fn send(&self, report: &Report) {
        self.send_of(self.who(), report);
    }

    /// In a child that may know who it is for the master.
    pub(crate) fn send_as(&self, who: Option<Pid>, report: &Report) {
        self.send_of(who.unwrap_or_else(|| self.who()), report);
    }

    fn send_of(&self, who: Pid, report: &Report) {
        let (kind, value) = match report {
            Report::Failed(failure) => (failure.step as i32, failure.error.raw_os_error().unwrap_or(0)),
            Report::Begun { lost } => (BEGUN, i32::from(*lost)),
            Report::Truncated => (TRUNCATED, 0),
            Report::Dropped => (DROPPED, 0),
            Report::Spoken => (SPOKEN, 0),
            Report::Ready(after) => (SET_UP, i32::try_from(after.as_micros()).unwrap_or(i32::MAX)),
        };
        let mut message = [0; MESSAGE];
        for (place, number) in message.as_chunks_mut::<4>().0.iter_mut().zip([who.as_raw(), kind, value]) {
            *place = number.to_ne_bytes();
        }
        let pipe = if matches!(report, Report::Ready(_)) { &self.write_later } else { &self.write };
        let _ = fd::write(pipe, &message);
    }

    /// In the master: what was reported since the last time, believed only where it makes sense.
    pub(crate) fn collect(&self, found: &mut Vec<(Pid, Report)>, known: impl Fn(Pid) -> bool) {
        Reports::drain(&self.read, found, known);
    }

    /// The same of what was not to be heard at once.
    pub(crate) fn collect_later(&self, found: &mut Vec<(Pid, Report)>, known: impl Fn(Pid) -> bool) {
        Reports::drain(&self.read_later, found, known);
    }

    fn drain(pipe: &OwnedFd, found: &mut Vec<(Pid, Report)>, known: impl Fn(Pid) -> bool) {
        let mut bytes = [0; MESSAGE * 64];
        while let Ok(length @ 1..) = fd::read(pipe, &mut bytes) {
            for message in bytes[..length].as_chunks::<MESSAGE>().0 {
                let number = |at: usize| i32::from_ne_bytes(std::array::from_fn(|i| message[at + i]));
                if let Some(pid) = Pid::from_raw(number(0)).filter(|pid| known(*pid)) {
                    found.extend(Report::read(number(4), number(8)).map(|report| (pid, report)));
                }
            }
            if length < bytes.len() {
                return;
            }
        }
    }
}

impl Report {
    fn read(kind: i32, value: i32) -> Option<Report> {
        match kind {
            BEGUN => Some(Report::Begun { lost: value != 0 }),
            TRUNCATED => Some(Report::Truncated),
            DROPPED => Some(Report::Dropped),
            SPOKEN => Some(Report::Spoken),
            SET_UP => Some(Report::Ready(Duration::from_micros(value.try_into().ok()?))),
            step => {
                let step = u8::try_from(step).ok().and_then(Step::from_number)?;
                let error = match value {
                    0 => io::Error::other("not as asked"),
                    errno => io::Error::from_raw_os_error(errno),
                };
                Some(Report::Failed(Failure { step, error }))
            }
        }
    }
}

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// What a death means.
pub(crate) fn outcome(ended: Ended, failure: Option<Failure>, wall: Duration) -> Outcome {
    let how = match (failure, ended.status.signal()) {
        (Some(failure), _) => How::Setup(failure.step, failure.error),
        (None, Some(signal)) => How::Signal(signal),
        (None, None) => How::Exit(ended.status.code().unwrap_or(0) as u8),
    };
    let usage = ended.usage;
    let bill = Bill {
        wall,
        waited: Duration::ZERO,
        setup: None,
        user: usage.user,
        system: usage.system,
        memory_peak_kib: usage.memory_peak_kib,
        group_peak_kib: None,
        oom_kills: 0,
        faults_major: usage.faults_major,
        faults_minor: usage.faults_minor,
        switches_voluntary: usage.switches_voluntary,
        switches_forced: usage.switches_forced,
    };
    Outcome { how, cause: None, call: None, bill }
}

/// The signal of a program that writes to a client that has gone: signal(7).
pub(crate) const SIGPIPE: i32 = 13;

/// What a client did by whose doing its child has ended so; `None` when it is nobody's fault. `panics`: whether status 101
/// is a panic.
pub(crate) fn fault(outcome: &Outcome, panics: bool) -> Option<Fault> {
    // Signals by which a program dies of what it does itself: signal(7).
    const CRASHES: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];
    match (outcome.cause, &outcome.how) {
        (Some(Cause::Gone), _) => None,
        (Some(_), _) => Some(Fault::Timeout),
        (None, How::Exit(0) | How::Setup(..) | How::Signal(SIGPIPE)) => None,
        (None, How::Exit(101)) if panics => Some(Fault::Crash),
        (None, How::Exit(status)) => Some(Fault::Exit(*status)),
        (None, How::Signal(signal)) if CRASHES.contains(signal) => Some(Fault::Crash),
        // What the kernel would have ended with such a signal.
        (None, How::Signal(_)) if outcome.call.is_some() => Some(Fault::Crash),
        (None, How::Signal(_)) => Some(Fault::Signal),
    }
}

/// Whether a lent socket still has datagrams for the next child.
pub(crate) fn is_readable(socket: &OwnedFd) -> bool {
    let mut ready = Vec::new();
    fd::wait_readable(&[socket.as_fd()], Some(Duration::ZERO), &mut ready).is_ok() && ready == [true]
}
