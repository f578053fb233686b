//! Who is at the other end of a connection.

use std::fmt;
use std::net::IpAddr;

use tine_os::identity::Credentials;
use tine_os::socket::Addr;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; v4-mapped IPv6 is IPv4.
    pub addr: Addr,
    /// Of a Unix socket: the process that connected.
    pub credentials: Option<Credentials>,
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
