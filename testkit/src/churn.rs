//! Many clients one after another, a few at a time: each with a line of its own, compared byte for byte.
//!
//! A closed loop: a thread opens its next connection when the last one has ended. An IPv4 loopback client
//! comes from one of 127.0.0.2 to 127.0.0.250 in turn, or its ports would run out: each ends up in TIME-WAIT
//! here for a minute. Over IPv6 the loopback is one address only, and 28,000 connections in a minute are the
//! end of it, unless the kernel reuses (net.ipv4.tcp_tw_reuse=2, its default, does so on the loopback after a
//! second).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::client::{Pattern, Stream, ip_address};
use crate::server::DEADLINE;

/// After this many errors a churn ends: the rest would tell nothing new.
pub const ERRORS_MAX: u64 = 1000;

/// What a churn counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Churn {
    /// Connections whose every byte came back.
    pub replies_ok: u64,
    /// The others, by what went wrong: `connect: connection refused`, `reply: 7 of 20 bytes`.
    pub errors: BTreeMap<String, u64>,
    /// How long it all took.
    pub seconds: f64,
    /// The longest that one client waited, from connect to end. A second and more tells of a dropped SYN.
    pub slowest: Duration,
}

/// Makes `total` connections to the addresses in turn, from `threads` threads.
pub fn churn<A: AsRef<str> + Sync>(addresses: &[A], total: u64, threads: usize) -> Churn {
    let targets: Vec<Target> = addresses.iter().map(|address| Target::of(address.as_ref())).collect();
    let (next, failed, start) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    let work = || {
        let mut churn = Churn::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total || failed.load(Ordering::Relaxed) >= ERRORS_MAX {
                return churn;
            }
            let began = Instant::now();
            match one(&targets[(number % targets.len() as u64) as usize], number) {
                Ok(()) => churn.replies_ok += 1,
                Err(what) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    *churn.errors.entry(what).or_default() += 1;
                }
            }
            churn.slowest = churn.slowest.max(began.elapsed());
        }
    };
    let mut sum = Churn::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            sum.add(worker.join().expect("a client thread does not panic"));
        }
    });
    sum.seconds = start.elapsed().as_secs_f64();
    sum
}

impl Churn {
    fn add(&mut self, part: Churn) {
        self.replies_ok += part.replies_ok;
        self.slowest = self.slowest.max(part.slowest);
        for (what, count) in part.errors {
            *self.errors.entry(what).or_default() += count;
        }
    }
}

/// Where the clients go.
#[derive(Debug)]
enum Target {
    /// By IP, looked up once.
    Ip(SocketAddr),
    /// As [`Stream::connect`] takes it.
    Other(String),
}

impl Target {
    fn of(address: &str) -> Target {
        if address.starts_with("unix") || address.starts_with('/') {
            return Target::Other(address.to_owned());
        }
        Target::Ip(ip_address(address).unwrap_or_else(|error| panic!("{address}: {error}")))
    }
}

/// One client: connects, says its line, half-closes, reads to the end, compares.
fn one(target: &Target, number: u64) -> Result<(), String> {
    let line = line(number);
    let named = |what: &'static str| move |error: io::Error| format!("{what}: {}", kind(&error));
    let stream = match target {
        Target::Ip(address) => connect_from_its_source(*address, number).map_err(named("connect"))?,
        Target::Other(address) => Stream::connect(address).map_err(named("connect"))?,
    };
    (&mut &stream).write_all(&line).map_err(named("write"))?;
    stream.finish().map_err(named("half-close"))?;
    // One byte more than expected is enough to know; a server that sends for ever is not read for ever.
    let mut reply = Vec::with_capacity(line.len() + 1);
    (&mut &stream).take(line.len() as u64 + 1).read_to_end(&mut reply).map_err(named("read"))?;
    match reply {
        reply if reply == line => Ok(()),
        reply if reply.len() < line.len() && line.starts_with(&reply) => Err("reply: cut short".to_owned()),
        _ => Err("reply: other bytes".to_owned()),
    }
}

/// A line of 16 to 200 bytes that no other client sends.
fn line(number: u64) -> Vec<u8> {
    let mut pattern = Pattern::new(number);
    let length = 16 + pattern.next_u64() % (200 - 16 + 1);
    let mut line = format!("{number:014} ").into_bytes(); // 15 bytes, and the end of line
    while (line.len() as u64) < length - 1 {
        line.push(b'a' + (pattern.next_u64() % 26) as u8);
    }
    line.push(b'\n');
    line
}

/// Connects over TCP, from a loopback source that changes with `number` where there are several.
fn connect_from_its_source(to: SocketAddr, number: u64) -> io::Result<Stream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Of a socket that is not connected yet, this is the time-out of connect too: socket(7).
    set_socket_timeout(&socket, Timeout::Send, Some(DEADLINE))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(DEADLINE))?;
    if to.is_ipv4() && to.ip().is_loopback() {
        let source = Ipv4Addr::new(127, 0, 0, 2 + (number % 249) as u8);
        bind(&socket, &SocketAddr::from((source, 0)))?;
    }
    connect(&socket, &to)?;
    Ok(Stream::Tcp(TcpStream::from(socket)))
}

/// The kind of an error, the same for all of its kind.
fn kind(error: &io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::WouldBlock, _) => "timed out".to_owned(), // how the kernel tells a socket's own time-out
        (_, Some(code)) => io::Error::from_raw_os_error(code).to_string(),
        (kind, None) => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpListener;

    use super::*;
    use crate::client::tests::tcp_echo;

    #[test]
    fn five_hundred_clients_each_get_their_line() {
        let addresses = [tcp_echo("127.0.0.1:0"), tcp_echo("[::1]:0")];
        let churn = churn(&addresses, 500, 4);
        assert_eq!((churn.replies_ok, churn.errors.len()), (500, 0), "{churn:?}");
        assert!(churn.seconds > 0.0 && churn.slowest > Duration::ZERO);
    }

    #[test]
    fn clients_come_from_many_sources() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let sources: HashSet<_> = (0..300)
            .map(|number| {
                let _client = connect_from_its_source(here, number).unwrap();
                listener.accept().unwrap().1.ip()
            })
            .collect();
        assert_eq!(sources.len(), 249);
    }

    #[test]
    fn lines_are_distinct_and_of_the_promised_length() {
        let lines: HashSet<_> = (0..5000).map(line).collect();
        assert_eq!(lines.len(), 5000);
        assert!(lines.iter().all(|line| (16..=200).contains(&line.len()) && line.ends_with(b"\n")));
    }

    #[test]
    fn a_server_that_is_not_there_ends_the_churn_early() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let churn = churn(&[address], 100_000, 2);
        let told = churn.errors.get("connect: Connection refused (os error 111)").copied().unwrap_or(0);
        assert!((ERRORS_MAX..ERRORS_MAX + 2).contains(&told), "{churn:?}");
    }

    #[test]
    fn a_wrong_reply_and_a_short_one_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut line = Vec::new();
                stream.read_to_end(&mut line).unwrap();
                let reply = if number == 0 { &line[..5] } else { b"what?" };
                stream.write_all(reply).unwrap();
            }
        });
        let churn = churn(&[address], 2, 1);
        assert_eq!(churn.errors, [("reply: cut short".into(), 1), ("reply: other bytes".into(), 1)].into());
    }
}
