//! One client's connection, in the process that is its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tine_os::identity::Credentials;
use tine_os::socket::{self, Addr};

use crate::front::proxy::Header;
use crate::peer::Peer;

/// A connection to one client. Reads and writes go through `&Conn` as well, so that both directions can be used at once.
///
/// Writing to a client that has gone gives `BrokenPipe`, never a signal. The socket is the real one, and blocking.
///
/// ```no_run
/// use std::io::{self, Read, Write};
/// use std::net::Shutdown;
///
/// fn serve(conn: tine::Conn) -> io::Result<()> {
///     let mut question = String::new();
///     (&conn).read_to_string(&mut question)?; // until the client has said all
///     writeln!(&conn, "{} asked for {} bytes", conn.peer(), question.len())?;
///     conn.shutdown(Shutdown::Write)
/// }
/// ```
#[derive(Debug)]
pub struct Conn {
    fd: OwnedFd,
    peer: Peer,
    local: Addr,
    header: Option<Header>,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd, peer: Peer, local: Addr, header: Option<Header>) -> Conn {
        Conn { fd, peer, local, header }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The address that the client connected to.
    pub fn local(&self) -> &Addr {
        &self.local
    }

    /// Of a client that came through a balancer: what that said of it.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Of a Unix socket: the process that connected, as the kernel noted it then.
    pub fn credentials(&self) -> Option<Credentials> {
        self.peer.credentials
    }

    /// Ends one direction or both; ending `Write` tells the client that all has been said, and it can go on sending.
    ///
    /// # Errors
    /// `NotConnected` when the client has gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        socket::shutdown(&self.fd, how)
    }

    /// Two owned halves, to be used by two threads; dropping the write half ends that direction.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        let whole = Arc::new(self);
        (ReadHalf(whole.clone()), WriteHalf(whole))
    }
}

impl Read for &Conn {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        socket::receive(&self.fd, bytes)
    }
}

impl Write for &Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(&self.fd, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Conn {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self).read(bytes)
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Conn {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<Conn> for OwnedFd {
    fn from(conn: Conn) -> OwnedFd {
        conn.fd
    }
}

/// Gives the connection back when it is no TCP connection.
impl TryFrom<Conn> for TcpStream {
    type Error = Conn;

    fn try_from(conn: Conn) -> Result<TcpStream, Conn> {
        // Not `conn.local`: the client of a balancer may have come another way than the balancer.
        if matches!(socket::local_addr(&conn.fd), Ok(Addr::Inet(_))) { Ok(conn.fd.into()) } else { Err(conn) }
    }
}

/// Gives the connection back when it is no connection over a Unix socket.
impl TryFrom<Conn> for UnixStream {
    type Error = Conn;

    fn try_from(conn: Conn) -> Result<UnixStream, Conn> {
        let unix = |addr: &Addr| matches!(addr, Addr::Path(_) | Addr::Abstract(_) | Addr::Unnamed);
        if socket::local_addr(&conn.fd).is_ok_and(|addr| unix(&addr)) {
            Ok(conn.fd.into())
        } else {
            Err(conn)
        }
    }
}

/// The half of a connection that is read from: see [`Conn::split`].
#[derive(Debug)]
pub struct ReadHalf(Arc<Conn>);

/// The half of a connection that is written to; dropping it tells the client that all has been said.
#[derive(Debug)]
pub struct WriteHalf(Arc<Conn>);

impl Read for ReadHalf {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(bytes)
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        // The client may have gone first, and then there is nothing to tell it.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}
