//! A load of numbered datagrams, with a bound on how many are under way, that tells which did not come back.
//!
//! An echo is counted once, by its number and its bytes. When nothing comes for [`PATIENCE`] while some are
//! under way, those are missing and the load goes on; should one of them come after all, it is late and not
//! missing any more.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::client::{Pattern, ip_address, udp_to};
use crate::net;

/// How long nothing may come before what is under way counts as missing.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// How many missing in a row, with no echo between them, end a load: nobody is there.
pub const SILENCE_MAX: u64 = 20_000;

/// How much the client's own buffer is asked to hold; the kernel gives as much of it as net.core.rmem_max allows. A small
/// datagram takes more than 1 KiB of a buffer, so the usual 208 KiB hold fewer than 200, in the server as well.
const OWN_BUFFER: usize = 1 << 20;

/// What a load counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Datagrams {
    /// Datagrams sent.
    pub sent: u64,
    /// Different datagrams whose echo came, byte for byte.
    pub received: u64,
    /// Echoes that had come before.
    pub duplicates: u64,
    /// Replies that are no echo of anything sent.
    pub strays: u64,
    /// Echoes that had been given up; they count as received.
    pub late: u64,
    /// Times that the kernel said that nobody is bound at the server's port.
    pub refused: u64,
    /// The numbers of those that never came.
    pub missing: BTreeSet<u64>,
    /// Echoes that the kernel dropped because this client's own buffer was full.
    pub own_drops: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Datagrams that are sent at once.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// How many.
    pub count: usize,
    /// How long each is, from [`SHORTEST`] on.
    pub size: usize,
    /// How long the last is; at most as long as the others.
    pub last: usize,
}

/// Room for the number and the length of a datagram.
pub const SHORTEST: usize = 10;

/// Sends `total` datagrams to `address`, at most `window` under way, and counts what comes back.
pub fn datagrams(address: &str, total: u64, window: usize) -> io::Result<Datagrams> {
    load(address, total, window, |socket, number, _| socket.send(&payload(number)).map(|_| 1))
}

/// The same in groups, one kind after the other, each begun when fewer than `window` are under way. `send` sends the bytes
/// of a group as datagrams of the length that it is given, the last of them maybe shorter.
pub fn grouped_datagrams(
    address: &str,
    total: u64,
    window: usize,
    groups: &[Group],
    send: impl Fn(&UdpSocket, &[u8], usize) -> io::Result<()>,
) -> io::Result<Datagrams> {
    let (mut turn, mut bytes) = (groups.iter().cycle(), Vec::new());
    load(address, total, window, |socket, number, left| {
        let Group { count, size, last } = *turn.next().unwrap_or(&Group { count: 1, size: 64, last: 64 });
        let count = (count as u64).min(left);
        bytes.clear();
        for at in 0..count {
            bytes.extend(payload_of(number + at, if at + 1 == count { last } else { size }));
        }
        send(socket, &bytes, size.max(last)).map(|()| count)
    })
}

/// `send` is given the number of the next datagram and how many are left, and gives how many it has sent.
fn load(
    address: &str,
    total: u64,
    window: usize,
    mut send: impl FnMut(&UdpSocket, u64, u64) -> io::Result<u64>,
) -> io::Result<Datagrams> {
    let socket = udp_to(ip_address(address)?)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    sockopt::set_socket_recv_buffer_size(&socket, OWN_BUFFER)?;
    let start = Instant::now();
    let mut counts = Datagrams::default();
    let mut under_way: HashSet<u64> = HashSet::new();
    let mut silent = 0;
    let mut buffer = vec![0; 65_536];
    while (counts.sent < total && silent < SILENCE_MAX) || !under_way.is_empty() {
        if counts.sent < total && under_way.len() < window.max(1) && silent < SILENCE_MAX {
            match send(&socket, counts.sent, total - counts.sent) {
                Ok(count) => {
                    under_way.extend(counts.sent..counts.sent + count);
                    counts.sent += count;
                    continue;
                }
                // An answer to an earlier one, told here; this one was not sent.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => counts.refused += 1,
                Err(error) => return Err(error),
            }
        }
        match socket.recv(&mut buffer) {
            Ok(size) => {
                silent = 0;
                counts.note(&buffer[..size], &mut under_way);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                silent += under_way.len() as u64;
                counts.missing.extend(under_way.drain());
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => counts.refused += 1,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    counts.own_drops = net::udp_drops(socket.local_addr()?.port());
    counts.seconds = start.elapsed().as_secs_f64();
    Ok(counts)
}

impl Datagrams {
    fn note(&mut self, reply: &[u8], under_way: &mut HashSet<u64>) {
        let number = reply.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let is_whole = |number: &u64| *number < self.sent && payload_of(*number, reply.len()) == reply;
        let Some(number) = number.filter(is_whole) else {
            self.strays += 1;
            return;
        };
        if under_way.remove(&number) {
            self.received += 1;
        } else if self.missing.remove(&number) {
            self.received += 1;
            self.late += 1;
        } else {
            self.duplicates += 1;
        }
    }
}

/// The datagram of a number, 16 to 79 bytes long.
fn payload(number: u64) -> Vec<u8> {
    payload_of(number, 16 + (Pattern::new(number).next_u64() % 64) as usize)
}

/// The datagram of a number and a length: both of them, then bytes that follow from the number.
fn payload_of(number: u64, length: usize) -> Vec<u8> {
    let mut payload = vec![0; length.max(SHORTEST)];
    Pattern::new(number).fill(&mut payload[SHORTEST..]);
    payload[..8].copy_from_slice(&number.to_be_bytes());
    payload[8..SHORTEST].copy_from_slice(&(length as u16).to_be_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::thread;

    use super::*;

    /// An echo that lets `answer` decide what goes back for each datagram, numbered from zero.
    fn udp_echo(host: &str, answer: fn(u64, &[u8]) -> Vec<Vec<u8>>) -> String {
        let socket = UdpSocket::bind(host).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            for number in 0.. {
                let (size, from) = socket.recv_from(&mut buffer).unwrap();
                for reply in answer(number, &buffer[..size]) {
                    socket.send_to(&reply, from).unwrap();
                }
            }
        });
        address
    }

    /// As [`datagrams`], with so much patience: an echo may be kept from its work for a while.
    fn patiently(address: &str, total: u64, window: usize, patience: u64) -> Datagrams {
        let send = |socket: &UdpSocket, number, _| {
            socket.set_read_timeout(Some(Duration::from_secs(patience)))?;
            socket.send(&payload(number)).map(|_| 1)
        };
        load(address, total, window, send).unwrap()
    }

    #[test]
    fn all_come_back() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let counts = patiently(&udp_echo(host, |_, bytes| vec![bytes.to_vec()]), 20_000, 64, 30);
            let clean =
                Datagrams { sent: 20_000, received: 20_000, seconds: counts.seconds, ..Default::default() };
            assert_eq!(counts, clean);
        }
    }

    #[test]
    fn lost_doubled_and_spoiled_ones_are_told_apart() {
        let address = udp_echo("127.0.0.1:0", |number, bytes| match number {
            7 | 500 => vec![],
            9 => vec![bytes.to_vec(), bytes.to_vec()],
            11 => vec![bytes[..12].to_vec()],
            _ => vec![bytes.to_vec()],
        });
        let counts = patiently(&address, 1000, 16, 4);
        assert_eq!(counts.missing, BTreeSet::from([7, 11, 500]));
        assert_eq!((counts.sent, counts.received, counts.duplicates, counts.strays), (1000, 997, 1, 1));
    }

    #[test]
    fn a_load_on_nobody_ends() {
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let counts = datagrams(&address, 10, 4).unwrap();
        assert_eq!((counts.received, counts.missing.len() as u64), (0, counts.sent));
        assert!(counts.refused > 0);
    }

    #[test]
    fn datagrams_are_known_by_number_and_bytes() {
        assert_ne!(payload(1)[8..], payload(2)[8..]);
        assert!((0..1000).all(|number| (16..80).contains(&payload(number).len())));
    }
}
