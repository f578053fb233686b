//! Where clients connect to, and where from: each client has a source address and a port that we choose ourselves.
//!
//! The kernel is not asked for a free port. Its range holds 28,000 for one source, it looks for one longer the more are taken,
//! and IP_BIND_ADDRESS_NO_PORT (ip(7)) has no safe wrapper. We go through all ports of all sources in turn, so that a pair
//! comes again only after a million others; servers that close first keep TIME_WAIT on their own side. SO_LINGER is not
//! used anywhere.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, ipproto, socket_with,
};

/// The server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An IPv4 address and port; of datagrams too.
    Inet(SocketAddrV4),
    /// A path, or an abstract name after `@`.
    Unix(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" | "@" => Err("unix: needs a path, or @ and a name".into()),
                path => Ok(Target::Unix(path.into())),
            };
        }
        let inet = text.strip_prefix("tcp://").or(text.strip_prefix("udp://"));
        inet.and_then(|inet| inet.parse().ok())
            .map(Target::Inet)
            .ok_or_else(|| "it is tcp://ADDRESS:PORT, udp://ADDRESS:PORT or unix:/PATH".into())
    }
}

/// Ports that clients come from: none that needs privileges, none that a server of ours listens at.
const PORTS: std::ops::Range<u32> = 20_000..64_000;

/// How many ports that are taken are skipped before we give up: those of a crowd that has just gone stand in a row, and are taken for
/// a minute.
const SKIPPED_MOST: u32 = 50_000;

/// Hands out source addresses and ports, all of them in turn.
#[derive(Debug)]
pub struct Sources {
    count: u32,
    next: u32,
}

impl Sources {
    /// So many addresses; `start` is anything, so that one run does not begin where the last did.
    pub fn new(count: u32, start: u32) -> Sources {
        Sources { count, next: start }
    }

    fn take(&mut self) -> SocketAddrV4 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let source = number % self.count;
        let port = PORTS.start + number / self.count % (PORTS.end - PORTS.start);
        let [_, _, high, low] = (source + 256).to_be_bytes();
        SocketAddrV4::new(Ipv4Addr::new(127, high, low, 1), port as u16)
    }
}

/// What came of an attempt to connect.
#[derive(Debug)]
pub enum Attempt {
    /// It is connected, or about to be.
    Begun(OwnedFd),
    /// A Unix listener's queue is full: to be tried again.
    Full,
}

/// Begins a connection that blocks nowhere.
///
/// # Errors
/// What the kernel said; refused connections among it.
pub fn begin(target: &Target, sources: &mut Sources) -> Result<Attempt, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    match target {
        Target::Inet(to) => {
            let mut skipped = 0;
            loop {
                let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?;
                match bind(&socket, &sources.take()).and_then(|()| connect(&socket, to)) {
                    Ok(()) | Err(Errno::INPROGRESS) => return Ok(Attempt::Begun(socket)),
                    // What is short is ours, and nothing that the server has done.
                    Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) if skipped < SKIPPED_MOST => skipped += 1,
                    Err(why) => return Err(why),
                }
            }
        }
        Target::Unix(path) => {
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
                None => SocketAddrUnix::new(path.as_str())?,
            };
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            match connect(&socket, &address) {
                Ok(()) => Ok(Attempt::Begun(socket)),
                Err(Errno::AGAIN) => Ok(Attempt::Full),
                Err(why) => Err(why),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_written_as_tine_writes_them() {
        assert_eq!(
            "tcp://127.0.0.1:7000".parse(),
            Ok(Target::Inet(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000)))
        );
        assert_eq!("unix:@x".parse(), Ok(Target::Unix("@x".into())));
        assert!("127.0.0.1:7000".parse::<Target>().is_err());
        assert!("unix:".parse::<Target>().is_err());
    }

    #[test]
    fn no_pair_of_source_and_port_comes_twice_before_all_have_come() {
        let mut sources = Sources::new(3, 5);
        let all = 3 * (PORTS.end - PORTS.start);
        let mut seen: Vec<_> = (0..all).map(|_| sources.take()).collect();
        assert!(seen.iter().all(|source| source.ip().is_loopback() && *source.ip() != Ipv4Addr::LOCALHOST));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all as usize);
    }
}
