//! What happens, as data. Logs, metrics, status and tests are views of these.

use std::fmt;
use std::io;
use std::time::Duration;

use tine_confine::{Call, Missing, Step};

use crate::life::admit::{Reason, Refusals, Source};
use crate::life::end::Cause;
use crate::peer::Peer;

/// One thing that happened to a server, in the order in which it happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A listener is ready for clients.
    Listening {
        /// Where, with the port that the kernel chose where none was asked for.
        listener: &'a str,
        /// How many children there may be in all.
        children: usize,
        /// How long the queue of clients is that the kernel keeps; 0 for datagrams.
        backlog: u32,
        /// By what the processes of a connection are held together: `cgroup`, `subreaper` or `nothing`.
        trees: &'static str,
        /// How many processes accept; 1 is the master itself.
        acceptors: usize,
        /// By which profile children are confined.
        confine: &'a str,
    },
    /// A client has a child.
    Accepted {
        /// Who.
        peer: &'a Peer,
        /// The balancer that it came through, where one has named it.
        via: Option<&'a Peer>,
        /// The child's process id.
        child: u32,
        /// Children alive, this one included.
        open: usize,
        /// The most there may be.
        most: usize,
    },
    /// A child has ended and is accounted for.
    Ended {
        /// Its process id.
        child: u32,
        /// Whose it was.
        peer: &'a Peer,
        /// How, and at what cost.
        outcome: &'a Outcome,
        /// Children alive.
        open: usize,
    },
    /// A process that a child has started made a call that the plan has it killed for, and was killed. Of a child itself the
    /// outcome tells.
    Forbidden {
        /// Its process id.
        process: u32,
        /// Which call.
        call: Call,
        /// The child that it descends from, if that is known.
        child: Option<u32>,
        /// Whose that is.
        peer: Option<&'a Peer>,
    },
    /// A client that was accepted waits for a slot.
    Waiting {
        /// Who.
        peer: &'a Peer,
        /// Which place it has: 1 is the next.
        place: usize,
    },
    /// A client that was accepted is not served.
    Refused {
        /// Who.
        peer: &'a Peer,
        /// Why.
        why: Reason,
        /// What was wrong, in words, where there is more to be said.
        detail: Option<&'a str>,
    },
    /// A source is kept out from now on.
    Penalised {
        /// Whose client it was.
        peer: &'a Peer,
        /// Which source: an address, the first of its prefix, or a user.
        source: Source,
        /// For how long, if it does nothing more.
        time: Duration,
    },
    /// The processes of a connection cannot be held together by a control group, so it is done otherwise.
    Trees {
        /// `subreaper`, or `nothing` but the child's process group.
        by: &'static str,
        /// Why not by a control group.
        why: &'a io::Error,
    },
    /// The system cannot hold children to all that their plan says; they are served all the same.
    Unconfined {
        /// What is not kept from them, and what can be done about it.
        missing: &'a Missing,
    },
    /// The rules were read again and are in force.
    Reloaded {
        /// How many there are.
        rules: usize,
    },
    /// What was read again has a mistake; everything is as it was.
    NotReloaded {
        /// Which.
        why: &'a str,
    },
    /// The system is short of something: a listener rests and is tried again by itself.
    Paused {
        /// Which.
        listener: &'a str,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: &'a io::Error,
        /// For how long.
        pause: Duration,
    },
    /// A listener that rested works again.
    Resumed {
        /// Which.
        listener: &'a str,
        /// Since the first pause.
        after: Duration,
    },
    /// A worker that handles datagrams has died and another takes its place.
    Replaced {
        /// The dead one's process id.
        worker: u32,
        /// How it ended.
        how: &'a How,
        /// Whether it had a datagram in hand, which is lost.
        lost: bool,
    },
    /// A child that was to wait for a client has died before one came; others are made, after a pause.
    Lost {
        /// Its process id.
        spare: u32,
        /// How it ended.
        how: &'a How,
    },
    /// A process that accepts has died and another takes its place. Its clients go on.
    AcceptorReplaced {
        /// The dead one's process id.
        acceptor: u32,
        /// How it ended.
        how: &'a How,
        /// The other's process id.
        by: u32,
    },
    /// A datagram was longer than there was room, and was cut.
    Truncated {
        /// The listener.
        listener: &'a str,
    },
    /// Datagrams were dropped: too many peers at once, or a program that does not read; told at most once a second.
    Dropped {
        /// The listener.
        listener: &'a str,
    },
    /// How things stand, because somebody asked.
    Status(Status),
    /// No more clients are taken; those that are here may finish.
    Draining {
        /// Children alive.
        open: usize,
        /// How long they have.
        patience: Duration,
    },
    /// Children are told to end: their time is over.
    Ending {
        /// Children alive.
        open: usize,
        /// The signal that they and all in their groups are sent.
        signal: &'static str,
    },
    /// The server has ended; nobody is left.
    Stopped {
        /// Children that were started and have ended.
        served: u64,
    },
    /// Something that must not happen and does no harm: for whoever mends tine.
    Odd {
        /// What was found.
        what: &'static str,
        /// What the kernel said.
        error: &'a io::Error,
    },
}

/// How a server stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Children alive.
    pub open: usize,
    /// The most there may be.
    pub most: usize,
    /// Clients that were accepted and wait for a slot.
    pub waiting: usize,
    /// Clients that were refused, by reason.
    pub refused: Refusals,
    /// Children that have ended.
    pub served: u64,
    /// Those of them that ended otherwise than with exit status 0.
    pub failed: u64,
    /// Listeners that rest.
    pub paused: usize,
    /// Children that wait for a client.
    pub spares: usize,
}

/// How a child ended, and its bill.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// How.
    pub how: How,
    /// Why the server ended it, if it did.
    pub cause: Option<Cause>,
    /// The call that its program was killed for, if it was.
    pub call: Option<Call>,
    /// At what cost.
    pub bill: Bill,
}

/// How a child ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum How {
    /// With this exit status.
    Exit(u8),
    /// By this signal.
    Signal(i32),
    /// It never came to serve: a step of its set-up failed.
    Setup(Step, io::Error),
}

/// What one client cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bill {
    /// From the fork to the end, by the monotonic clock.
    pub wall: Duration,
    /// In the waiting room, before the fork. How long it was in the kernel's queue nobody knows.
    pub waited: Duration,
    /// From the fork to the first instruction that is not the server's, if the child had time to tell.
    pub setup: Option<Duration>,
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The largest resident set, in KiB.
    pub memory_peak_kib: u64,
    /// The most memory that the child and all that it has started came to together, in KiB, as its control group counts it: where
    /// that is limited ([`Group::memory`](crate::Group::memory)), from Linux 5.19 on.
    pub group_peak_kib: Option<u64>,
    /// How many of them were killed since they had come to that limit.
    pub oom_kills: u64,
    /// Page faults that needed the disk.
    pub faults_major: u64,
    /// Page faults that did not.
    pub faults_minor: u64,
    /// Context switches that it chose by waiting.
    pub switches_voluntary: u64,
    /// Context switches that the scheduler forced.
    pub switches_forced: u64,
}

impl How {
    /// Whether it is the end that a good client's child has.
    pub fn is_success(&self) -> bool {
        matches!(self, How::Exit(0))
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Exit(status) => write!(f, "exit={status}"),
            How::Signal(signal) => write!(f, "signal={signal}"),
            How::Setup(step, error) => write!(f, "setup={step} error=\"{}\"", tine_os::plain(error)),
        }
    }
}
