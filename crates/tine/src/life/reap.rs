//! Reap: a death becomes an outcome with its bill; the slot is free; what the child started is gone too.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use tine_confine::{Failure, Step};
use tine_os::signal::{self, Signal};
use tine_os::wait::Ended;
use tine_os::{Pid, fd};

use crate::event::{Bill, How, Outcome};

/// How children that cannot start say why: one pipe for all of them, written before any client's byte is read and
/// closed before any other code runs. A message is smaller than PIPE_BUF, so it arrives whole (pipe(7)).
#[derive(Debug)]
pub(crate) struct Reports {
    read: OwnedFd,
    write: OwnedFd,
}

/// What a process of ours tells the master about itself.
#[derive(Debug)]
pub(crate) enum Report {
    /// It cannot start.
    Failed(Failure),
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

impl Reports {
    pub(crate) fn new() -> io::Result<Reports> {
        let (read, write) = fd::pipe()?;
        // Out of the way of what is placed in a child.
        let write = fd::duplicate_high(write)?;
        Ok(Reports { read, write })
    }

    /// The descriptor that a child needs until it has started.
    pub(crate) fn child_end(&self) -> RawFd {
        self.write.as_raw_fd()
    }

    /// In a child. A full pipe loses the report; that a set-up failed, the exit status still tells.
    pub(crate) fn send(&self, report: &Report) {
        let (kind, value) = match report {
            Report::Failed(failure) => (failure.step as i32, failure.error.raw_os_error().unwrap_or(0)),
            Report::Begun { lost } => (BEGUN, i32::from(*lost)),
            Report::Truncated => (TRUNCATED, 0),
            Report::Dropped => (DROPPED, 0),
        };
        let mut message = [0; MESSAGE];
        for (place, number) in
            message.as_chunks_mut::<4>().0.iter_mut().zip([Pid::own().as_raw(), kind, value])
        {
            *place = number.to_ne_bytes();
        }
        let _ = fd::write(self.write.as_fd(), &message);
    }

    /// In the master: what was reported since the last time, believed only where it makes sense.
    pub(crate) fn collect(&self, found: &mut Vec<(Pid, Report)>, known: impl Fn(Pid) -> bool) {
        let mut bytes = [0; MESSAGE * 64];
        while let Ok(length @ 1..) = fd::read(self.read.as_fd(), &mut bytes) {
            for message in bytes[..length].as_chunks::<MESSAGE>().0 {
                let number = |at: usize| i32::from_ne_bytes(std::array::from_fn(|i| message[at + i]));
                if let Some(pid) = Pid::from_raw(number(0)).filter(|pid| known(*pid)) {
                    found.extend(Report::read(number(4), number(8)).map(|report| (pid, report)));
                }
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

/// Process groups that children have left somebody in when they ended.
///
/// Who is left may be finishing: ucspi-tcp's `recordio` has its program as the child, and passes the last answer on when
/// that has ended. So a group is killed a little later, not at once.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    groups: VecDeque<(Pid, Instant)>,
    asked: Option<Instant>,
}

impl Leftovers {
    /// How long those who are left may take.
    const GRACE: Duration = Duration::from_secs(2);

    /// How often they are asked about. A group's number is its own for as long as it has a member, and so soon after the
    /// last one has ended no other process has come by it.
    const ASKING: Duration = Duration::from_millis(50);

    /// How many groups are waited for; the one that has waited longest is killed for another.
    const MOST: usize = 256;

    /// Notes the group of a child that was just waited for, if somebody is left in it.
    pub(crate) fn note(&mut self, leader: Pid, now: Instant) -> io::Result<()> {
        if matches!(signal::is_group(leader), Ok(false)) {
            return Ok(());
        }
        self.groups.push_back((leader, now + Leftovers::GRACE));
        if self.groups.len() > Leftovers::MOST { self.kill_first() } else { Ok(()) }
    }

    /// Forgets those who have finished, and kills those whose time is over.
    pub(crate) fn tick(&mut self, now: Instant) -> io::Result<()> {
        if self.until(now).is_none_or(|until| until > now) {
            return Ok(());
        }
        self.asked = Some(now);
        self.groups.retain(|(leader, _)| !matches!(signal::is_group(*leader), Ok(false)));
        while self.groups.front().is_some_and(|(_, until)| *until <= now) {
            self.kill_first()?;
        }
        Ok(())
    }

    /// Kills all of them now.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        while !self.groups.is_empty() {
            self.kill_first()?;
        }
        Ok(())
    }

    /// When to tick next.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        let (_, until) = self.groups.front()?;
        let asking = self.asked.map_or(now, |asked| asked + Leftovers::ASKING);
        Some((*until).min(asking))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn kill_first(&mut self) -> io::Result<()> {
        let Some((leader, _)) = self.groups.pop_front() else { return Ok(()) };
        match signal::send_group(leader, Signal::KILL) {
            // All that is left belongs to somebody else: a program that became another user.
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }
}

/// What a death means.
pub(crate) fn outcome(ended: Ended, failure: Option<Failure>, born: Instant, now: Instant) -> Outcome {
    let how = match (failure, ended.status.signal()) {
        (Some(failure), _) => How::Setup(failure.step, failure.error),
        (None, Some(signal)) => How::Signal(signal),
        (None, None) => How::Exit(ended.status.code().unwrap_or(0) as u8),
    };
    let usage = ended.usage;
    let bill = Bill {
        wall: now.saturating_duration_since(born),
        user: usage.user,
        system: usage.system,
        memory_peak_kib: usage.memory_peak_kib,
        faults_major: usage.faults_major,
        faults_minor: usage.faults_minor,
        switches: usage.switches_voluntary + usage.switches_forced,
    };
    Outcome { how, bill }
}

/// Whether a lent socket still has datagrams for the next child.
pub(crate) fn is_readable(socket: &OwnedFd) -> bool {
    let mut ready = Vec::new();
    fd::wait_readable(&[socket.as_fd()], Some(Duration::ZERO), &mut ready).is_ok() && ready == [true]
}
