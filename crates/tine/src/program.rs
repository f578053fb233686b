//! A program as a server: what is executed for each client, with which descriptors and variables.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::rc::Rc;
use std::time::Duration;
use std::{error, fmt, io};

use tine_os::exec::{self, Argv, Environ};
use tine_os::plain;
use tine_os::socket::Addr;

use crate::addr::Transport;
use crate::front::proxy::Header;
use crate::life::admit::RuleId;
use crate::peer::Peer;

/// A program that serves one client at a time, on its standard input and output.
///
/// ```no_run
/// use tine::{Program, Server};
///
/// Server::new()
///     .listen("tcp://127.0.0.1:7000")?
///     .serve_program(Program::new("cat", [] as [&str; 0])?)?;
/// # Ok::<(), tine::Error>(())
/// ```
pub struct Program {
    pub(crate) argv: Rc<Argv>,
    pub(crate) environ: Environ,
    pub(crate) describe: Option<Describe>,
    pub(crate) places: Places,
    pub(crate) datagrams: Option<DatagramMode>,
    /// Other programs, of the rules that name one; and the rule of the next client.
    pub(crate) variants: BTreeMap<RuleId, Rc<Argv>>,
    pub(crate) variant: Option<RuleId>,
}

/// Sets the variables of one client.
type Describe = Box<dyn FnMut(&mut Variables<'_>, &Client<'_>)>;

/// Where a program finds its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sockets {
    /// On descriptors 0 and 1, as UCSPI and inetd have it.
    #[default]
    InAndOut,
    /// On descriptor 3, as systemd's native protocol has it; 0 is `/dev/null`, 1 the log.
    Third,
}

/// What a program's standard error is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stderr {
    /// The master's own.
    #[default]
    Log,
    /// The client.
    Socket,
    /// Nothing.
    Null,
}

/// What a program finds where.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Places {
    pub sockets: Sockets,
    pub stderr: Stderr,
}

/// How a program serves a listener for datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatagramMode {
    /// It gets the listener itself, reads as many datagrams as it likes, and ends; the next instance is started when the
    /// next datagram comes. inetd's `wait`.
    Wait,
    /// It gets one peer's datagrams as records of a connection, until none has passed either way for this long.
    Peer(Duration),
    /// It gets one datagram as its input; what it writes until it ends is the reply.
    Each,
}

/// What is known of the client that a program is started for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Client<'a> {
    /// Who.
    pub peer: &'a Peer,
    /// The address that it connected to.
    pub local: &'a Addr,
    /// What the listener carries.
    pub transport: Transport,
    /// Children of the same source (address, or user of a Unix socket) alive before this one.
    pub from_same: usize,
    /// A number that no other connection of this machine has: SO_COOKIE in socket(7).
    pub cookie: u64,
    /// The balancer that the client came through, and what else it said of the client.
    pub via: Option<&'a Peer>,
    /// The PROXY header.
    pub header: Option<&'a Header>,
}

/// The environment that a program is started with.
#[derive(Debug)]
pub struct Variables<'a>(pub(crate) &'a mut Environ);

impl Variables<'_> {
    /// Sets a variable; whatever is printed, up to a NUL byte.
    pub fn set(&mut self, name: &str, value: impl fmt::Display) {
        self.0.put(name, value);
    }

    /// Sets a variable to the program's own process id.
    pub fn set_own_pid(&mut self, name: &str) {
        self.0.set_own_pid(name);
    }
}

/// Why a program cannot be run.
#[derive(Debug)]
pub struct ProgramError {
    name: OsString,
    error: io::Error,
}

/// Where programs are looked for, and the only variable that they get of themselves.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Program {
    /// A program by its path or, without a slash, by its name in the PATH of this process; found now, not later.
    ///
    /// # Errors
    /// When there is no such program, or it may not be executed.
    pub fn new<A: AsRef<OsStr>>(
        name: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Program, ProgramError> {
        let name = name.as_ref();
        let fail = |error| ProgramError { name: name.to_owned(), error };
        let search = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        let path = exec::find(name, &search).map_err(fail)?;
        let words: Vec<_> =
            [name.to_owned()].into_iter().chain(args.into_iter().map(|a| a.as_ref().to_owned())).collect();
        let argv = Rc::new(Argv::new(&path, &words).map_err(fail)?);
        let mut environ = Environ::new();
        environ.set("PATH", PATH);
        environ.fix();
        let (places, variants, variant) = (Places::default(), BTreeMap::new(), None);
        Ok(Program { argv, environ, describe: None, places, datagrams: None, variants, variant })
    }

    /// Where it was found.
    pub fn path(&self) -> &std::path::Path {
        self.argv.path()
    }

    /// Sets a variable for every client, in place of one of that name.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Program {
        self.environ.replace(name, value);
        self.environ.fix();
        self
    }

    /// Sets variables that differ from client to client. Called in the master, before the fork. With spares ([`Server::spares`](crate::Server::spares))
    /// it is called in the child: once beforehand for a client that is nobody (0.0.0.0, port 0), so that it is quick when one comes, and
    /// what it sets then is forgotten.
    pub fn describe(mut self, describe: impl FnMut(&mut Variables<'_>, &Client<'_>) + 'static) -> Program {
        self.describe = Some(Box::new(describe));
        self
    }

    /// Where it finds its client.
    pub fn sockets(mut self, sockets: Sockets) -> Program {
        self.places.sockets = sockets;
        self
    }

    /// What its standard error is.
    pub fn stderr(mut self, stderr: Stderr) -> Program {
        self.places.stderr = stderr;
        self
    }

    /// How it serves listeners for datagrams.
    pub fn datagrams(mut self, mode: DatagramMode) -> Program {
        self.datagrams = Some(mode);
        self
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("argv", &self.argv).finish_non_exhaustive()
    }
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {}: {}", self.name.display(), plain(&self.error))
    }
}

impl error::Error for ProgramError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.error)
    }
}
