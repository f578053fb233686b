//! A server beside a program of its own: the master is another process, and this is the line to it.
//!
//! The master is forked off twice, so that it is no child of the program's: the program's own waiting for children never
//! meets it, nor it theirs. When the program ends, in whatever way, the line breaks and the server drains.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::{error, fmt};

use tine_os::fork::exit;
use tine_os::socket::{self, Kind};
use tine_os::{Forked, wait};

use crate::change::control::{ASK_STATUS, Control, DRAIN, ENDED, FAILED, MESSAGE, READY, STOP, status};
use crate::error::{Error, StartError};
use crate::event::Status;
use crate::handler::Handler;
use crate::server::Server;

impl Server {
    /// Starts the server in a process of its own and gives a handle to it, so that this program may have threads and
    /// children of its own. To be called before the first thread.
    ///
    /// # Errors
    /// As [`Server::serve`].
    pub fn start<H: Handler>(self, handler: H) -> Result<Handle, Error> {
        Ok(start(self, handler)?)
    }
}

/// A server that was started with [`Server::start`]. Dropping it drains the server without waiting for it.
#[derive(Debug)]
pub struct Handle {
    line: UnixStream,
    addrs: Vec<String>,
}

/// The master is gone without having said how it stands.
#[derive(Debug)]
pub struct Gone(io::Error);

impl Handle {
    /// Where the server listens, with the ports that the kernel chose.
    pub fn addrs(&self) -> &[String] {
        &self.addrs
    }

    /// How the server stands.
    ///
    /// # Errors
    /// [`Gone`] when its master has ended or was killed.
    pub fn status(&mut self) -> Result<Status, Gone> {
        self.say(ASK_STATUS)?;
        self.hear().map(|(_, status)| status)
    }

    /// Takes no more clients; those that are here may finish.
    ///
    /// # Errors
    /// [`Gone`] as above.
    pub fn drain(&mut self) -> Result<(), Gone> {
        self.say(DRAIN)
    }

    /// Ends it now: children are killed.
    ///
    /// # Errors
    /// [`Gone`] as above.
    pub fn stop(&mut self) -> Result<(), Gone> {
        self.say(STOP)
    }

    /// Waits until the server has ended, which somebody must have asked for; tells how it stood then.
    ///
    /// # Errors
    /// [`Gone`] when the master was killed.
    pub fn wait(mut self) -> Result<Status, Gone> {
        loop {
            if let (ENDED, status) = self.hear()? {
                return Ok(status);
            }
        }
    }

    fn say(&mut self, what: u8) -> Result<(), Gone> {
        self.line.write_all(&[what]).map_err(Gone)
    }

    fn hear(&mut self) -> Result<(u8, Status), Gone> {
        let mut message = [0; MESSAGE];
        self.line.read_exact(&mut message).map_err(Gone)?;
        Ok((message[0], status(&message)))
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server's master is gone: {}", self.0)
    }
}

impl error::Error for Gone {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Forks the master off and waits until it is ready.
fn start<H: Handler>(server: Server, handler: H) -> Result<Handle, StartError> {
    let addrs = server.addrs();
    let (ours, theirs) =
        socket::pair(Kind::Stream).map_err(StartError::system("make a line to the master"))?;
    match tine_os::fork().map_err(StartError::Fork)? {
        Forked::Child => {
            drop(ours);
            // The child in between ends at once, and its child is nobody's but the system's.
            match tine_os::fork() {
                Ok(Forked::Parent(_)) => exit(0),
                Ok(Forked::Child) => master(server, handler, theirs),
                Err(_) => exit(1),
            }
        }
        Forked::Parent(between) => {
            drop(theirs);
            drop(server);
            wait::wait_blocking(between).map_err(StartError::system("wait for the master to begin"))?;
            let mut line = UnixStream::from(ours);
            let mut first = [0];
            match line.read_exact(&mut first).map(|()| first[0]) {
                Ok(READY) => Ok(Handle { line, addrs }),
                Ok(_) => {
                    let mut why = String::new();
                    let _ = line.read_to_string(&mut why);
                    Err(StartError::Master(why))
                }
                Err(why) => Err(StartError::Master(why.to_string())),
            }
        }
    }
}

fn master<H: Handler>(server: Server, handler: H, line: OwnedFd) -> ! {
    // A session of its own: what a terminal sends to the program is the program's to pass on.
    let _ = tine_os::fork::new_session();
    let told = line.try_clone();
    match server.serve_as_master(handler, Some(Control::new(line)), Control::begin) {
        Ok(()) => exit(0),
        Err(why) => {
            if let Ok(line) = told {
                let _ = socket::send(&line, format!("{}{why}", FAILED as char).as_bytes());
            }
            exit(111)
        }
    }
}
