//! What can go wrong before a server serves, one small type for each stage.

use std::{error, fmt, io};

use tine_confine::{Group, PlanError};
use tine_os::{ForkError, plain};

use crate::addr::AddrError;
use crate::program::ProgramError;

/// Why a server did not start, by the stage at which it failed.
///
/// Its `Debug` form is its message, so that `fn main() -> Result<(), tine::Error>` ends with something to read.
#[non_exhaustive]
pub enum Error {
    /// An address that cannot be understood.
    Addr(AddrError),
    /// An address that cannot be listened at.
    Bind(BindError),
    /// A program that cannot be run.
    Program(ProgramError),
    /// The master could not be set up.
    Start(StartError),
}

/// Why an address cannot be listened at: what was tried, where, and what the kernel said.
#[derive(Debug)]
pub struct BindError {
    pub(crate) what: String,
    pub(crate) listen: String,
    pub(crate) error: io::Error,
    pub(crate) advice: Option<String>,
}

/// Why the master could not be set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// There is nothing to listen at: [`Server::listen`](crate::Server::listen) was not called.
    NoListener,
    /// The process cannot fork, because it has threads or the kernel refuses.
    Fork(ForkError),
    /// A listener carries what this way of serving cannot take.
    Transport {
        /// The listener.
        listen: String,
        /// What to do.
        advice: &'static str,
    },
    /// The limit on open descriptors is too low for the children asked for.
    Descriptors {
        /// Children asked for.
        children: usize,
        /// Descriptors that takes.
        needed: u64,
        /// Descriptors that the hard limit allows.
        allowed: u64,
    },
    /// More acceptors than there can be.
    Acceptors {
        /// So many at most.
        most: usize,
    },
    /// A listener that not every acceptor can have a socket of.
    Listener {
        /// Which.
        listen: String,
        /// Why.
        why: BindError,
    },
    /// Rules that say what cannot be done.
    Rules(String),
    /// A plan for the children that cannot be carried out.
    Plan(PlanError),
    /// Limits of all that a connection's child starts, which take control groups that cannot be had.
    Group {
        /// Which limits.
        group: Group,
        /// Why, and what to do.
        error: io::Error,
    },
    /// The master was forked off and could not begin; what it said.
    Master(String),
    /// A system call.
    System {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// What the kernel says at a limit on processes, EAGAIN: errno(3).
const NO_PROCESS: i32 = 11;

impl BindError {
    /// What the kernel said.
    pub fn io(&self) -> &io::Error {
        &self.error
    }

    pub(crate) fn new(what: impl Into<String>, listen: impl fmt::Display, error: io::Error) -> BindError {
        let port = || listen.to_string().rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied if port().is_some_and(|port| port < 1024) => {
                Some("ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned())
            }
            io::ErrorKind::StorageFull => Some("the file system of that path is full (df, df -i)".to_owned()),
            io::ErrorKind::AddrInUse => {
                Some("another process serves there (ss -ltnup shows which)".to_owned())
            }
            io::ErrorKind::AddrNotAvailable => {
                Some("this machine does not have that address (?freebind=1 binds anyway)".to_owned())
            }
            _ => None,
        };
        BindError { what: what.into(), listen: listen.to_string(), error, advice }
    }

    pub(crate) fn advise(mut self, advice: &str) -> BindError {
        self.advice = Some(advice.to_owned());
        self
    }
}

impl StartError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
        move |error| StartError::System { what, error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(why) => why.fmt(f),
            Self::Bind(why) => why.fmt(f),
            Self::Program(why) => why.fmt(f),
            Self::Start(why) => why.fmt(f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Addr(why) => Some(why),
            Self::Bind(why) => Some(why),
            Self::Program(why) => Some(why),
            Self::Start(why) => Some(why),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.what, self.listen, plain(&self.error))?;
        self.advice.as_ref().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl error::Error for BindError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoListener => write!(f, "there is no address to listen at"),
            Self::Fork(why) => why.fmt(f),
            Self::Transport { listen, advice } => write!(f, "{listen}: {advice}"),
            Self::Descriptors { children, needed, allowed } => write!(
                f,
                "{children} children may need {needed} open descriptors and the hard limit is {allowed}: \
                 raise it (ulimit -Hn, LimitNOFILE=) or allow fewer children"
            ),
            Self::Acceptors { most } => write!(f, "there can be {most} acceptors at most"),
            Self::Listener { listen, why } => write!(f, "a socket of {listen} for each acceptor: {why}"),
            Self::Plan(why) => why.fmt(f),
            Self::Group { group, error } => write!(f, "limit each connection ({group}): {}", plain(error)),
            Self::Master(why) | Self::Rules(why) => f.write_str(why),
            Self::System { what, error } => {
                write!(f, "{what}: {}", plain(error))?;
                let no_process = error.raw_os_error() == Some(NO_PROCESS);
                if no_process { write!(f, " (it takes: {})", tine_os::fork::ADVICE) } else { Ok(()) }
            }
        }
    }
}

impl error::Error for StartError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Fork(why) => Some(why),
            Self::Plan(why) => Some(why),
            Self::Listener { why, .. } => Some(why),
            Self::System { error, .. } | Self::Group { error, .. } => Some(error),
            _ => None,
        }
    }
}

macro_rules! stage {
    ($($stage:ident($error:ty)),*) => {
        $(impl From<$error> for Error {
            fn from(why: $error) -> Error {
                Error::$stage(why)
            }
        })*
    };
}

stage!(Addr(AddrError), Bind(BindError), Program(ProgramError), Start(StartError));
