//! The other end: connecting to an address, for programs that try servers out.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use tine_os::fd;
use tine_os::socket::{self, Addr, Kind};

use crate::addr::{Listen, Place, Transport};

impl Listen {
    /// Connects to this place as a client and gives the socket, blocking. A host with several addresses is tried at each;
    /// a port without a host is this machine. Of the options none is used.
    ///
    /// # Errors
    /// What the kernel said of the last address; `Unsupported` for one that only a server can have (`fd:`, `systemd:`).
    pub fn connect(&self) -> io::Result<OwnedFd> {
        let local = |port| {
            vec![
                Addr::Inet((Ipv6Addr::LOCALHOST, port).into()),
                Addr::Inet((Ipv4Addr::LOCALHOST, port).into()),
            ]
        };
        let all = match &self.place {
            Place::At(all) => all.clone(),
            Place::Everywhere(port) => local(*port),
            Place::Inherited(_) | Place::Systemd(_) => Vec::new(),
        };
        let mut refused =
            io::Error::new(io::ErrorKind::Unsupported, "nothing can be connected to by that name");
        for addr in all {
            match connect(&addr, self.transport) {
                Ok(socket) => return Ok(socket),
                Err(why) => refused = why,
            }
        }
        Err(refused)
    }
}

fn connect(addr: &Addr, transport: Transport) -> io::Result<OwnedFd> {
    let kind = match transport {
        Transport::Stream => Kind::Stream,
        Transport::Packet => Kind::Packet,
        Transport::Datagram => Kind::Datagram,
    };
    let socket = socket::open(addr, kind)?;
    fd::set_blocking(&socket, true)?;
    if kind == Kind::Datagram && matches!(addr, Addr::Path(_) | Addr::Abstract(_)) {
        // A name of the kernel's choice, since a reply to a socket without a name goes nowhere (unix(7), autobind).
        socket::bind(&socket, &Addr::Unnamed)?;
    }
    socket::connect(&socket, addr)?;
    Ok(socket)
}
