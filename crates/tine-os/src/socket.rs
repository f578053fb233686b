//! Stream and datagram sockets of every family: made, bound, accepted from, asked who is there.
//!
//! socket(2), bind(2), accept4(2), getsockopt(2), ip(7), ipv6(7), tcp(7), udp(7), unix(7), vsock(7).

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{check, fault};

/// An address of any family that tine serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Addr {
    /// TCP or UDP over IPv4 or IPv6.
    Inet(SocketAddr),
    /// A Unix socket bound to a path of the file system.
    Path(PathBuf),
    /// A Unix socket bound to an abstract name.
    Abstract(Vec<u8>),
    /// A Unix socket without a name, as clients usually have.
    Unnamed,
    /// A socket between a virtual machine and its host.
    Vsock {
        /// Context identifier: which machine.
        cid: u32,
        /// Port there.
        port: u32,
    },
}

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, in both directions: SOCK_STREAM.
    Stream,
    /// Datagrams without a connection: SOCK_DGRAM.
    Datagram,
    /// Records over a connection: SOCK_SEQPACKET.
    Packet,
}

/// An address as the kernel writes it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct RawAddr {
    pub(crate) bytes: [u8; RawAddr::ROOM],
    pub(crate) length: u32,
}

impl RawAddr {
    /// The size of `sockaddr_storage`: room for any address.
    pub(crate) const ROOM: usize = 128;

    /// The size of [`RawAddr::to_bytes`].
    pub const WIRE: usize = RawAddr::ROOM + 4;

    pub(crate) const EMPTY: RawAddr = RawAddr { bytes: [0; RawAddr::ROOM], length: 0 };

    /// Writes an address in the kernel's form.
    ///
    /// # Errors
    /// `InvalidInput` when a Unix path or name is longer than the 107 bytes that fit.
    pub fn new(addr: &Addr) -> io::Result<RawAddr> {
        let mut raw = RawAddr::EMPTY;
        match addr {
            Addr::Inet(SocketAddr::V4(v4)) => {
                raw.put(0, &(libc::AF_INET as u16).to_ne_bytes());
                raw.put(2, &v4.port().to_be_bytes());
                raw.put(4, &v4.ip().octets());
                raw.length = 16;
            }
            Addr::Inet(SocketAddr::V6(v6)) => {
                raw.put(0, &(libc::AF_INET6 as u16).to_ne_bytes());
                raw.put(2, &v6.port().to_be_bytes());
                raw.put(4, &v6.flowinfo().to_be_bytes());
                raw.put(8, &v6.ip().octets());
                raw.put(24, &v6.scope_id().to_ne_bytes());
                raw.length = 28;
            }
            Addr::Path(path) => raw.put_unix(path.as_os_str().as_bytes(), 0)?,
            Addr::Abstract(name) => raw.put_unix(name, 1)?,
            Addr::Unnamed => {
                raw.put(0, &(libc::AF_UNIX as u16).to_ne_bytes());
                raw.length = 2;
            }
            Addr::Vsock { cid, port } => {
                raw.put(0, &(libc::AF_VSOCK as u16).to_ne_bytes());
                raw.put(4, &port.to_ne_bytes());
                raw.put(8, &cid.to_ne_bytes());
                raw.length = 16;
            }
        }
        Ok(raw)
    }

    /// Reads it back; `None` for a family that tine does not serve. A v4-mapped IPv6 address stays what it is.
    pub fn get(&self) -> Option<Addr> {
        if self.length < 2 {
            return Some(Addr::Unnamed);
        }
        let port = || u16::from_be_bytes(self.take(2));
        match i32::from(u16::from_ne_bytes(self.take(0))) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(self.take::<4>(4));
                Some(Addr::Inet(SocketAddr::new(IpAddr::V4(ip), port())))
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(self.take::<16>(8));
                let flow = u32::from_be_bytes(self.take(4));
                let scope = u32::from_ne_bytes(self.take(24));
                Some(Addr::Inet(SocketAddr::V6(SocketAddrV6::new(ip, port(), flow, scope))))
            }
            libc::AF_UNIX => Some(self.get_unix()),
            libc::AF_VSOCK => {
                let (port, cid) = (u32::from_ne_bytes(self.take(4)), u32::from_ne_bytes(self.take(8)));
                Some(Addr::Vsock { cid, port })
            }
            _ => None,
        }
    }

    /// The address as bytes, to be sent to another process of ours.
    pub fn to_bytes(&self) -> [u8; RawAddr::WIRE] {
        let mut wire = [0; RawAddr::WIRE];
        wire[..RawAddr::ROOM].copy_from_slice(&self.bytes);
        wire[RawAddr::ROOM..].copy_from_slice(&self.length.to_ne_bytes());
        wire
    }

    /// Reads [`RawAddr::to_bytes`] back; what is too short or says to be too long is no address.
    pub fn from_bytes(wire: &[u8]) -> Option<RawAddr> {
        let (bytes, length) = wire.get(..RawAddr::WIRE)?.split_at(RawAddr::ROOM);
        let length = u32::from_ne_bytes(length.try_into().ok()?);
        let fits = length as usize <= RawAddr::ROOM;
        fits.then_some(RawAddr { bytes: bytes.try_into().ok()?, length })
    }

    fn get_unix(&self) -> Addr {
        let name = &self.bytes[2..(self.length as usize).clamp(2, RawAddr::ROOM)];
        match name.split_first() {
            None => Addr::Unnamed,
            Some((0, rest)) => Addr::Abstract(rest.to_vec()),
            Some(_) => {
                let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                Addr::Path(Path::new(OsStr::from_bytes(&name[..end])).to_path_buf())
            }
        }
    }

    fn put_unix(&mut self, name: &[u8], skip: usize) -> io::Result<()> {
        if name.is_empty() || name.len() > 107 {
            let why = format!("a Unix socket's name has 1 to 107 bytes, this one {}", name.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.put(0, &(libc::AF_UNIX as u16).to_ne_bytes());
        self.put(2 + skip, name);
        // A path's length counts its closing NUL, an abstract name's the NUL before it: unix(7).
        self.length = 2 + 1 + name.len() as u32;
        Ok(())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn take<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.bytes[at + i])
    }
}

impl fmt::Debug for RawAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawAddr").field(&self.get()).finish()
    }
}

/// Makes a socket for `addr`'s family, close-on-exec and not blocking.
///
/// # Errors
/// EAFNOSUPPORT when the kernel has no such family; EMFILE, ENFILE.
pub fn open(addr: &Addr, kind: Kind) -> io::Result<OwnedFd> {
    let family = match addr {
        Addr::Inet(SocketAddr::V4(_)) => libc::AF_INET,
        Addr::Inet(SocketAddr::V6(_)) => libc::AF_INET6,
        Addr::Vsock { .. } => libc::AF_VSOCK,
        _ => libc::AF_UNIX,
    };
    fault::point("socket")?;
    let kind = number(kind) | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket(2) takes plain numbers and reads or writes no memory of ours.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Two Unix sockets connected to each other, close-on-exec and blocking.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pair(kind: Kind) -> io::Result<(OwnedFd, OwnedFd)> {
    fault::point("socketpair")?;
    let mut fds = [-1; 2];
    let kind = number(kind) | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two numbers that are written (socketpair(2)).
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    let first = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: the kernel has made both at once, and nobody else knows the other one either.
    let second = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    Ok((first, second))
}

/// Gives a socket its address.
///
/// # Errors
/// EADDRINUSE, EACCES, EADDRNOTAVAIL: bind(2).
pub fn bind(socket: impl AsFd, addr: &Addr) -> io::Result<()> {
    let raw = RawAddr::new(addr)?;
    fault::point("bind")?;
    let (pointer, fd) = (raw.bytes.as_ptr().cast(), socket.as_fd().as_raw_fd());
    // SAFETY: `pointer` is to `length` initialised bytes of an aligned address (bind(2)).
    check(unsafe { libc::bind(fd, pointer, raw.length) }).map(drop)
}

/// Lets clients queue for [`accept`].
///
/// # Errors
/// EADDRINUSE, EOPNOTSUPP: listen(2).
pub fn listen(socket: impl AsFd, backlog: u32) -> io::Result<()> {
    fault::point("listen")?;
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: takes plain numbers, and the descriptor is borrowed, so open (listen(2)).
    check(unsafe { libc::listen(socket.as_fd().as_raw_fd(), backlog) }).map(drop)
}

/// Connects a socket.
///
/// # Errors
/// ECONNREFUSED, ENOENT and the rest of connect(2).
pub fn connect(socket: impl AsFd, addr: &Addr) -> io::Result<()> {
    let raw = RawAddr::new(addr)?;
    fault::point("connect")?;
    let (pointer, fd) = (raw.bytes.as_ptr().cast(), socket.as_fd().as_raw_fd());
    // SAFETY: `pointer` is to `length` initialised bytes of an aligned address (connect(2)).
    check(unsafe { libc::connect(fd, pointer, raw.length) }).map(drop)
}

/// Takes the next client from a listener's queue: its connection, close-on-exec and blocking, and its address.
///
/// # Errors
/// EAGAIN when nobody waits; EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED and the network's own: accept(2).
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Addr)> {
    fault::point("accept4")?;
    let mut raw = RawAddr { length: RawAddr::ROOM as u32, ..RawAddr::EMPTY };
    let (pointer, fd) = (raw.bytes.as_mut_ptr().cast(), listener.as_fd().as_raw_fd());
    // SAFETY: `pointer` is to `length` writable bytes, both alive here (accept4(2)).
    let fd = check(unsafe { libc::accept4(fd, pointer, &mut raw.length, libc::SOCK_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    let connection = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((connection, raw.get().unwrap_or(Addr::Unnamed)))
}

/// The address of our end.
///
/// # Errors
/// ENOTSOCK: getsockname(2).
pub fn local_addr(socket: impl AsFd) -> io::Result<Addr> {
    fault::point("getsockname")?;
    let mut raw = RawAddr { length: RawAddr::ROOM as u32, ..RawAddr::EMPTY };
    let (pointer, fd) = (raw.bytes.as_mut_ptr().cast(), socket.as_fd().as_raw_fd());
    // SAFETY: `pointer` is to `length` writable bytes, both alive here (getsockname(2)).
    check(unsafe { libc::getsockname(fd, pointer, &mut raw.length) })?;
    raw.get().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// What an inherited descriptor is: what it carries, and whether it listens.
///
/// # Errors
/// ENOTSOCK when it is no socket, `Unsupported` when of a kind that tine does not serve.
pub fn describe(socket: impl AsFd) -> io::Result<(Kind, bool)> {
    let fd = socket.as_fd();
    let kind = match get_int(fd, IntOption(libc::SOL_SOCKET, libc::SO_TYPE))? {
        libc::SOCK_STREAM => Kind::Stream,
        libc::SOCK_DGRAM => Kind::Datagram,
        libc::SOCK_SEQPACKET => Kind::Packet,
        other => return Err(io::Error::new(io::ErrorKind::Unsupported, format!("a socket of type {other}"))),
    };
    Ok((kind, get_int(fd, IntOption(libc::SOL_SOCKET, libc::SO_ACCEPTCONN))? != 0))
}

/// A number that no other socket of this machine has had since it started: SO_COOKIE in socket(7).
///
/// # Errors
/// ENOTSOCK.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    fault::point("getsockopt")?;
    let (mut cookie, mut length) = (0u64, size_of::<u64>() as libc::socklen_t);
    let (fd, value) = (socket.as_fd().as_raw_fd(), (&raw mut cookie).cast());
    // SAFETY: `value` is to `length` writable bytes, both alive here (getsockopt(2)).
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, value, &mut length) })?;
    Ok(cookie)
}

/// The number of the network interface that a socket is bound to; 0 for none. SO_BINDTOIFINDEX in linux/socket.h.
///
/// # Errors
/// ENOTSOCK.
pub fn interface(socket: impl AsFd) -> io::Result<u32> {
    /// Has no name in the C library yet; the same number everywhere but on sparc and parisc.
    const SO_BINDTOIFINDEX: libc::c_int = 62;
    get_int(socket, IntOption(libc::SOL_SOCKET, SO_BINDTOIFINDEX)).map(|number| number as u32)
}

/// A socket option whose value is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntOption(libc::c_int, libc::c_int);

/// The options that take a number, by what they do.
impl IntOption {
    /// A local address may be bound while old connections of it linger.
    pub const REUSE_ADDRESS: Self = Self(libc::SOL_SOCKET, libc::SO_REUSEADDR);
    /// Several sockets share one local address, the kernel spreads clients over them.
    pub const REUSE_PORT: Self = Self(libc::SOL_SOCKET, libc::SO_REUSEPORT);
    /// IPv6 only, not v4-mapped addresses too.
    pub const V6_ONLY: Self = Self(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
    /// Bind to an address that this machine does not have yet.
    pub const FREE_BIND: Self = Self(libc::IPPROTO_IP, libc::IP_FREEBIND);
    /// Take clients meant for any address, and answer from there.
    pub const TRANSPARENT: Self = Self(libc::IPPROTO_IP, libc::IP_TRANSPARENT);
    /// The mark that routing and filters see.
    pub const MARK: Self = Self(libc::SOL_SOCKET, libc::SO_MARK);
    /// Queueing priority, 0 to 6.
    pub const PRIORITY: Self = Self(libc::SOL_SOCKET, libc::SO_PRIORITY);
    /// Type of service, the DSCP byte of IPv4.
    pub const TOS: Self = Self(libc::IPPROTO_IP, libc::IP_TOS);
    /// The same of IPv6.
    pub const TRAFFIC_CLASS: Self = Self(libc::IPPROTO_IPV6, libc::IPV6_TCLASS);
    /// Bytes of receive buffer.
    pub const RECEIVE_BUFFER: Self = Self(libc::SOL_SOCKET, libc::SO_RCVBUF);
    /// Bytes of send buffer.
    pub const SEND_BUFFER: Self = Self(libc::SOL_SOCKET, libc::SO_SNDBUF);
    /// Probe a silent peer.
    pub const KEEP_ALIVE: Self = Self(libc::SOL_SOCKET, libc::SO_KEEPALIVE);
    /// Seconds of silence before the first probe.
    pub const KEEP_ALIVE_TIME: Self = Self(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE);
    /// Seconds between probes.
    pub const KEEP_ALIVE_INTERVAL: Self = Self(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL);
    /// Probes without an answer before the connection is dead.
    pub const KEEP_ALIVE_PROBES: Self = Self(libc::IPPROTO_TCP, libc::TCP_KEEPCNT);
    /// Milliseconds that sent data may stay unacknowledged.
    pub const USER_TIMEOUT: Self = Self(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
    /// Send small segments at once.
    pub const NO_DELAY: Self = Self(libc::IPPROTO_TCP, libc::TCP_NODELAY);
    /// Seconds to wait for a client's first byte before it counts as arrived.
    pub const DEFER_ACCEPT: Self = Self(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
    /// Clients that may send data with their first segment, queued at most.
    pub const FAST_OPEN: Self = Self(libc::IPPROTO_TCP, libc::TCP_FASTOPEN);
    /// Tell which local address a datagram was sent to (IPv4).
    pub const PACKET_INFO: Self = Self(libc::IPPROTO_IP, libc::IP_PKTINFO);
    /// The same of IPv6.
    pub const PACKET_INFO_V6: Self = Self(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO);
    /// Datagrams that their sender sent at once are received as one message, with the length of each.
    pub const GRO: Self = Self(libc::SOL_UDP, libc::UDP_GRO);
    /// What is sent is datagrams of so many bytes each, the last of them maybe fewer.
    pub const SEGMENT: Self = Self(libc::SOL_UDP, libc::UDP_SEGMENT);
    /// Send datagrams without a checksum (IPv4).
    #[cfg(test)]
    pub(crate) const NO_CHECK: Self = Self(libc::SOL_SOCKET, libc::SO_NO_CHECK);
}

/// Sets an option that takes a number.
///
/// # Errors
/// ENOPROTOOPT, EPERM, EINVAL: setsockopt(2).
pub fn set_int(socket: impl AsFd, option: IntOption, value: i32) -> io::Result<()> {
    fault::point("setsockopt")?;
    let (fd, pointer) = (socket.as_fd().as_raw_fd(), (&raw const value).cast());
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `pointer` is to a live integer of `length` bytes (setsockopt(2)).
    check(unsafe { libc::setsockopt(fd, option.0, option.1, pointer, length) }).map(drop)
}

/// An option whose value is a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameOption(libc::c_int, libc::c_int);

/// The options that take a name.
impl NameOption {
    /// Only what arrives by this network device.
    pub const DEVICE: Self = Self(libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    /// The congestion control algorithm of TCP.
    pub const CONGESTION: Self = Self(libc::IPPROTO_TCP, libc::TCP_CONGESTION);
}

/// Sets an option that takes a name.
///
/// # Errors
/// ENODEV, ENOENT, EPERM: setsockopt(2).
pub fn set_name(socket: impl AsFd, option: NameOption, value: &str) -> io::Result<()> {
    fault::point("setsockopt")?;
    let (fd, pointer) = (socket.as_fd().as_raw_fd(), value.as_ptr().cast());
    // SAFETY: `pointer` is to the `len` bytes of a live string (setsockopt(2)).
    check(unsafe { libc::setsockopt(fd, option.0, option.1, pointer, value.len() as libc::socklen_t) })
        .map(drop)
}

/// Asks for an option that is a number.
///
/// # Errors
/// ENOPROTOOPT, ENOTSOCK: getsockopt(2).
pub fn get_int(socket: impl AsFd, option: IntOption) -> io::Result<i32> {
    fault::point("getsockopt")?;
    let (mut value, mut length) = (0i32, size_of::<i32>() as libc::socklen_t);
    let (fd, pointer) = (socket.as_fd().as_raw_fd(), (&raw mut value).cast());
    // SAFETY: `pointer` is to a live integer of `length` bytes (getsockopt(2)).
    check(unsafe { libc::getsockopt(fd, option.0, option.1, pointer, &mut length) })?;
    Ok(value)
}

/// Reads what has arrived; blocks when nothing has, unless the socket is set otherwise. 0 is the end.
///
/// # Errors
/// recv(2).
pub fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
    fault::point("recv")?;
    let (pointer, fd) = (bytes.as_mut_ptr().cast(), socket.as_fd().as_raw_fd());
    // SAFETY: `pointer` is to `len` writable bytes (recv(2)).
    let got = unsafe { libc::recv(fd, pointer, bytes.len(), 0) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got as usize) }
}

/// Looks at what has arrived and leaves it there, as [`receive`] would take it.
///
/// # Errors
/// recv(2).
pub fn peek(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
    let (pointer, fd) = (bytes.as_mut_ptr().cast(), socket.as_fd().as_raw_fd());
    // SAFETY: `pointer` is to `len` writable bytes (recv(2)).
    let got = unsafe { libc::recv(fd, pointer, bytes.len(), libc::MSG_PEEK) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got as usize) }
}

/// Whether the other end has said that nothing more will come, and nothing that it said before is still to be read. Reads
/// nothing: poll(2), POLLRDHUP; ioctl(2), FIONREAD.
pub fn has_left(socket: impl AsFd) -> bool {
    let fd = socket.as_fd();
    !ended(fd).is_empty() && rustix::io::ioctl_fionread(fd).is_ok_and(|unread| unread == 0)
}

/// Whether nobody is there any more to be answered: it has left, or it has closed or reset the connection, whatever it said
/// before. (An end of TCP with something unread before it may be a question whose answer is waited for.) poll(2), POLLHUP.
pub fn has_gone(socket: impl AsFd) -> bool {
    let fd = socket.as_fd();
    ended(fd).intersects(PollFlags::HUP | PollFlags::ERR) || has_left(fd)
}

fn ended(fd: BorrowedFd<'_>) -> PollFlags {
    let mut polls = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
    match poll(&mut polls, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => polls[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

/// Sends bytes; a peer that has gone is an error, never a SIGPIPE.
///
/// # Errors
/// EPIPE, ECONNRESET: send(2).
pub fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    fault::point("send")?;
    let (pointer, fd) = (bytes.as_ptr().cast(), socket.as_fd().as_raw_fd());
    // SAFETY: `pointer` is to `len` readable bytes (send(2)).
    let sent = unsafe { libc::send(fd, pointer, bytes.len(), libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Sends bytes as far as there is room now, whether the socket blocks or not.
///
/// # Errors
/// EAGAIN when there is no room, EPIPE, ECONNRESET: send(2).
pub fn send_now(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let (pointer, fd) = (bytes.as_ptr().cast(), socket.as_fd().as_raw_fd());
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: `pointer` is to `len` readable bytes (send(2)).
    let sent = unsafe { libc::send(fd, pointer, bytes.len(), flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Ends one or both directions.
///
/// # Errors
/// ENOTCONN: shutdown(2).
pub fn shutdown(socket: impl AsFd, how: std::net::Shutdown) -> io::Result<()> {
    let how = match how {
        std::net::Shutdown::Read => libc::SHUT_RD,
        std::net::Shutdown::Write => libc::SHUT_WR,
        std::net::Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: takes plain numbers, and the descriptor is borrowed, so open (shutdown(2)).
    check(unsafe { libc::shutdown(socket.as_fd().as_raw_fd(), how) }).map(drop)
}

fn number(kind: Kind) -> libc::c_int {
    match kind {
        Kind::Stream => libc::SOCK_STREAM,
        Kind::Datagram => libc::SOCK_DGRAM,
        Kind::Packet => libc::SOCK_SEQPACKET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_reads_back_as_it_was_written() {
        let all = [
            Addr::Inet("192.0.2.7:5023".parse().unwrap()),
            Addr::Inet("[fe80::1%3]:7".parse().unwrap()),
            Addr::Path("/run/x".into()),
            Addr::Abstract(b"name".to_vec()),
            Addr::Unnamed,
            Addr::Vsock { cid: 2, port: 9000 },
        ];
        for addr in all {
            let raw = RawAddr::new(&addr).unwrap();
            assert_eq!(RawAddr::from_bytes(&raw.to_bytes()).unwrap().get(), Some(addr.clone()));
            assert_eq!(raw.get(), Some(addr));
        }
        assert!(RawAddr::from_bytes(&[0; RawAddr::WIRE - 1]).is_none());
        assert!(RawAddr::from_bytes(&[255; RawAddr::WIRE]).is_none(), "a length beyond the room");
    }

    #[test]
    fn a_unix_name_of_107_bytes_fits_and_one_of_108_does_not() {
        for make in [|n| Addr::Path("x".repeat(n).into()), |n| Addr::Abstract(vec![b'x'; n])] {
            assert_eq!(RawAddr::new(&make(107)).unwrap().get(), Some(make(107)));
            assert_eq!(RawAddr::new(&make(108)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
