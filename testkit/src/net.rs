//! What the kernel's tables tell about sockets: states, queues, drops. Reads only.
//!
//! The tables are those of the network namespace of the reader; a server under test shares it. See
//! proc_pid_net(5).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One line of /proc/net/{tcp,tcp6,udp,udp6}.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// The own end; a v4-mapped address counts as v4.
    pub local: SocketAddr,
    /// The other end; all zero when there is none.
    pub remote: SocketAddr,
    /// The state, as the numbers of the kernel's tcp_states.h.
    pub state: u8,
    /// Bytes not read yet; of a listening socket: clients not accepted yet.
    pub receive_queue: u64,
    /// Datagrams thrown away because the socket's buffer was full, since it was opened; of UDP only.
    pub drops: u64,
}

/// The connection stands.
pub const ESTABLISHED: u8 = 0x01;
/// The first half of the handshake is done.
pub const SYN_RECV: u8 = 0x03;
/// The other end has closed, this one has not: what a leaked connection looks like.
pub const CLOSE_WAIT: u8 = 0x08;
/// The socket waits for clients.
pub const LISTEN: u8 = 0x0a;

/// A connection that has ended, whose numbers may not be used again yet, as the table writes it.
const TIME_WAIT: &str = "06";

/// All TCP sockets of both families, but for those in TIME-WAIT.
pub fn tcp_sockets() -> Vec<Socket> {
    tables(&["/proc/net/tcp", "/proc/net/tcp6"], None)
}

/// All UDP sockets, of both families.
pub fn udp_sockets() -> Vec<Socket> {
    tables(&["/proc/net/udp", "/proc/net/udp6"], Some(12))
}

/// Datagrams that the kernel dropped because the buffer of a UDP socket bound to `port` was full.
pub fn udp_drops(port: u16) -> u64 {
    udp_sockets().iter().filter(|socket| socket.local.port() == port).map(|socket| socket.drops).sum()
}

/// Whether a Unix socket of any type is bound at `path` (`@name` for an abstract one), and, of streams,
/// listens.
pub fn unix_bound(path: &str) -> bool {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table.lines().skip(1).any(|line| {
        // Num RefCount Protocol Flags Type St Inode Path; datagram sockets (type 2) never listen.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ready = fields.len() > 7 && (fields[4] == "0002" || fields[3] == "00010000");
        ready && fields[7..].join(" ") == path
    })
}

/// A kernel without one of the families has no such file: then there is no such socket either.
fn tables(paths: &[&str], drops: Option<usize>) -> Vec<Socket> {
    let read = |path: &&str| fs::read_to_string(path).unwrap_or_default();
    let parse = |table: String| -> Vec<Socket> {
        // After many connections there are tens of thousands that only wait for their time to pass; nobody asks for them.
        let lasting = |line: &&str| line.split_whitespace().nth(3) != Some(TIME_WAIT);
        table.lines().skip(1).filter(lasting).filter_map(|line| parse_line(line, drops)).collect()
    };
    paths.iter().map(read).flat_map(parse).collect()
}

/// `drops` is the column of the drops, in a table that has one.
fn parse_line(line: &str, drops: Option<usize>) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some(Socket {
        local: parse_address(fields.get(1)?)?,
        remote: parse_address(fields.get(2)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        receive_queue: u64::from_str_radix(fields.get(4)?.split_once(':')?.1, 16).ok()?,
        drops: drops.map_or(Some(0), |column| fields.get(column)?.parse().ok())?,
    })
}

/// `0100007F:1F90`: words of the address as the machine stores them in memory, then the port as a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_listener_and_its_waiting_client_are_in_the_table() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(host).unwrap();
            let here = listener.local_addr().unwrap();
            let client = TcpStream::connect(here).unwrap();
            let sockets = tcp_sockets();
            let listening = sockets.iter().find(|s| s.local == here && s.state == LISTEN).unwrap();
            assert_eq!(listening.receive_queue, 1, "one client waits");
            let remote = client.local_addr().unwrap();
            assert!(sockets.iter().any(|s| s.local == here && s.remote == remote && s.state == ESTABLISHED));
        }
    }

    #[test]
    fn drops_of_a_full_buffer_are_counted() {
        let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = deaf.local_addr().unwrap().port();
        assert_eq!(udp_drops(port), 0);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..20_000 {
            client.send_to(&[0; 1000], ("127.0.0.1", port)).unwrap();
        }
        assert!(udp_drops(port) > 0);
    }

    #[test]
    fn a_bound_unix_name_is_found() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("tine-testkit-{}", std::process::id());
        assert!(!unix_bound(&format!("@{name}")));
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        assert!(unix_bound(&format!("@{name}")));
    }
}
