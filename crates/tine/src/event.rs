//! What happens, as data. Logs, metrics, status and tests are views of these.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tine_confine::Step;
use tine_os::identity::Credentials;
use tine_os::socket::Addr;

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
    },
    /// A client has a child.
    Accepted {
        /// Who.
        peer: &'a Peer,
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
    /// A client that was accepted gets no child: the server is ending.
    Refused {
        /// Who.
        peer: &'a Peer,
        /// Why.
        why: &'static str,
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
    /// Children that have ended.
    pub served: u64,
    /// Those of them that ended otherwise than with exit status 0.
    pub failed: u64,
    /// Listeners that rest.
    pub paused: usize,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; v4-mapped IPv6 is IPv4.
    pub addr: Addr,
    /// Of a Unix socket: the process that connected.
    pub credentials: Option<Credentials>,
}

/// How a child ended, and its bill.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// How.
    pub how: How,
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
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The largest resident set, in KiB.
    pub memory_peak_kib: u64,
    /// Page faults that needed the disk.
    pub faults_major: u64,
    /// Page faults that did not.
    pub faults_minor: u64,
    /// Context switches, chosen and forced.
    pub switches: u64,
}

impl How {
    /// Whether it is the end that a good client's child has.
    pub fn is_success(&self) -> bool {
        matches!(self, How::Exit(0))
    }
}

impl Peer {
    /// The address without its port, where it is one of the Internet.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.addr {
            Addr::Inet(addr) => Some(addr.ip()),
            _ => None,
        }
    }
}

/// `192.0.2.7:5023`, `[::1]:5023`, `unix:uid=0,pid=77`, `vsock:2:1024`, `any` for whoever sends to a socket that was lent:
/// never a byte that a client chose.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.addr, &self.credentials) {
            (Addr::Inet(addr), _) => addr.fmt(f),
            (Addr::Vsock { cid, port }, _) => write!(f, "vsock:{cid}:{port}"),
            (_, Some(who)) => write!(f, "unix:uid={},pid={}", who.uid, who.pid),
            _ => f.write_str("any"),
        }
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
