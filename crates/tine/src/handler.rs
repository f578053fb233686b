//! What an author writes: what to do with one client, or with one datagram.

use std::io;
use std::net::IpAddr;
use std::process::Termination;

use tine_os::socket::Addr;

use crate::conn::Conn;

/// Serves one client in a process of its own.
///
/// Implemented by every closure `Fn(Conn) -> T` whose result could also be that of `main`: `()`, `ExitCode`,
/// `Result<(), E>`. An `Err` is printed to standard error, which is the log, and the child ends with status 1.
pub trait Handler {
    /// What a client's end is told by; becomes the child's exit status.
    type Ending: Termination;

    /// Called once in each child before its client is looked at: what can fail before anything was said to the client.
    ///
    /// # Errors
    /// An error ends the child with status 1; the client sees the end of the connection.
    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    /// Called once with the client. The process ends when it returns.
    fn serve(&self, conn: Conn) -> Self::Ending;
}

impl<F, T> Handler for F
where
    F: Fn(Conn) -> T,
    T: Termination,
{
    type Ending = T;

    fn serve(&self, conn: Conn) -> T {
        self(conn)
    }
}

/// Handles datagrams, one after the other, in a worker that serves many peers.
///
/// Implemented by every closure `FnMut(&Datagram, &mut Reply)`. A worker that dies is replaced: the datagram in hand is
/// lost, and nothing else.
pub trait DatagramHandler {
    /// Called for each datagram.
    fn handle(&mut self, datagram: &Datagram<'_>, reply: &mut Reply);
}

impl<F: FnMut(&Datagram<'_>, &mut Reply)> DatagramHandler for F {
    fn handle(&mut self, datagram: &Datagram<'_>, reply: &mut Reply) {
        self(datagram, reply)
    }
}

/// One datagram as it arrived.
#[derive(Debug)]
#[non_exhaustive]
pub struct Datagram<'a> {
    /// Its bytes.
    pub payload: &'a [u8],
    /// Who sent it; `None` for a Unix socket without a name, which cannot be answered.
    pub source: Option<&'a Addr>,
    /// The address of this machine that it was sent to.
    pub destination: Option<IpAddr>,
    /// Whether it was longer than there was room, and is cut.
    pub truncated: bool,
}

/// The one reply that a datagram may have; it leaves from the address that the datagram was sent to.
#[derive(Debug, Default)]
pub struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) wanted: bool,
}

impl Reply {
    /// Sends this, in place of anything said before. An empty reply is an empty datagram.
    pub fn send(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.wanted = true;
    }
}

/// Adds to the reply.
impl io::Write for Reply {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.wanted = true;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
