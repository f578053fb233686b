//! Clients that check every byte of what they are told.
//!
//! An address is what [`crate::Server::addr`] gives: `127.0.0.1:7000`, `[::1]:7000`, `unix:/path`,
//! `unix:@name`, and the same with `tcp://` before it. Every wait has a deadline: a server that goes silent
//! is an error, not a hang.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixDatagram, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::DEADLINE;

/// How long a datagram's answer is waited for before it is asked again.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(2);

/// How much is written or read at once.
const CHUNK: usize = 64 * 1024;

/// A connection of either family.
#[derive(Debug)]
pub enum Stream {
    /// Over IPv4 or IPv6.
    Tcp(TcpStream),
    /// Over a path or an abstract name.
    Unix(UnixStream),
}

impl Stream {
    /// Connects, with [`DEADLINE`] as the time-out of each read and write.
    pub fn connect(address: &str) -> io::Result<Stream> {
        let stream = match unix_name(address) {
            Some(name) => Stream::Unix(UnixStream::connect_addr(&unix_address(name)?)?),
            None => Stream::Tcp(TcpStream::connect_timeout(&ip_address(address)?, DEADLINE)?),
        };
        stream.set_timeout(Some(DEADLINE))?;
        Ok(stream)
    }

    /// How long a read or a write may take; `None` is for ever.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
            Stream::Unix(s) => s.set_read_timeout(timeout).and_then(|()| s.set_write_timeout(timeout)),
        }
    }

    /// Half-closes: the server reads the end, and may go on to answer.
    pub fn finish(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Reads to the end of what the server sends.
    pub fn rest(&self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        (&mut &*self).read_to_end(&mut rest)?;
        Ok(rest)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(buffer),
            Stream::Unix(stream) => (&mut &*stream).write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // sockets keep nothing back
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends `question`, half-closes, and returns all that comes back.
pub fn ask(address: &str, question: &[u8]) -> io::Result<Vec<u8>> {
    let stream = Stream::connect(address)?;
    (&mut &stream).write_all(question)?;
    stream.finish()?;
    stream.rest()
}

/// Sends a line, half-closes, and expects exactly the line and then the end.
pub fn echo_line(address: &str, text: &str) -> io::Result<()> {
    let line = format!("{text}\n");
    let reply = ask(address, line.as_bytes())?;
    expect_same(line.as_bytes(), &reply)
}

/// Sends one datagram and returns the first that comes back. Not repeated: what is lost is an error after
/// [`DEADLINE`].
pub fn ask_datagram(address: &str, question: &[u8]) -> io::Result<Vec<u8>> {
    datagram_within(address, question, DEADLINE)
}

fn datagram_within(address: &str, question: &[u8], wait: Duration) -> io::Result<Vec<u8>> {
    let mut reply = vec![0; CHUNK];
    let got = match unix_name(address) {
        Some(name) => {
            // A name of its own, or the server could not answer.
            let mine = format!(
                "tine-testkit-{}-{:?}-{:?}",
                std::process::id(),
                thread::current().id(),
                Instant::now()
            );
            let socket = UnixDatagram::bind_addr(&unix::SocketAddr::from_abstract_name(mine)?)?;
            socket.connect_addr(&unix_address(name)?)?;
            socket.set_read_timeout(Some(wait))?;
            socket.send(question)?;
            socket.recv(&mut reply)?
        }
        None => {
            let socket = udp_to(ip_address(address)?)?;
            socket.set_read_timeout(Some(wait))?;
            socket.send(question)?;
            socket.recv(&mut reply)?
        }
    };
    reply.truncate(got);
    Ok(reply)
}

/// A UDP socket on the loopback that speaks to one server only.
pub(crate) fn udp_to(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = match server {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.connect(server)?;
    Ok(socket)
}

/// Asks any listener for an echo: of a line where TCP or a Unix stream answers, of a datagram otherwise.
pub(crate) fn probe(address: &str) -> io::Result<()> {
    let ip = address.parse::<SocketAddr>().ok();
    let udp = ip.is_some_and(|ip| {
        let is_it = |socket: &crate::net::Socket| socket.local.port() == ip.port();
        !crate::net::tcp_sockets().iter().any(|s| is_it(s) && s.state == crate::net::LISTEN)
            && crate::net::udp_sockets().iter().any(is_it)
    });
    if !udp && !address.starts_with("unixgram:") {
        return echo_line(address, "probe");
    }
    let deadline = Instant::now() + DEADLINE;
    loop {
        // A datagram may be lost while a worker is being replaced; the probe asks for service, not for no
        // loss.
        match datagram_within(address, b"probe", DATAGRAM_PATIENCE) {
            Ok(reply) => return expect_same(b"probe", &reply),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
    }
}

/// What a [`transfer`] moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes sent, and received: the same, each compared.
    pub bytes: u64,
    /// Digest of what was sent.
    pub sent_digest: u64,
    /// Digest of what was received: the same.
    pub received_digest: u64,
}

/// Pumps `bytes` of a pattern through an echo, both ways at once, half-closes, and checks every byte that
/// comes back up to the end.
pub fn transfer(stream: &Stream, bytes: u64) -> io::Result<Transfer> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_pattern(stream, bytes));
        let received = receive_pattern(stream, bytes);
        if received.is_err() {
            // The sender may wait for a server that waits for us to read.
            let _ = match stream {
                Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
                Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
            };
        }
        let sent = sender.join().expect("the sender does not panic");
        let (received_digest, sent_digest) = (received?, sent?);
        Ok(Transfer { bytes, sent_digest, received_digest })
    })
}

fn send_pattern(mut stream: &Stream, bytes: u64) -> io::Result<u64> {
    let (mut pattern, mut chunk, mut digest) = (Pattern::new(1), vec![0; CHUNK], Digest::default());
    let mut left = bytes;
    while left > 0 {
        let size = left.min(CHUNK as u64) as usize;
        pattern.fill(&mut chunk[..size]);
        digest.add(&chunk[..size]);
        stream.write_all(&chunk[..size])?;
        left -= size as u64;
    }
    stream.finish()?;
    Ok(digest.value())
}

fn receive_pattern(mut stream: &Stream, bytes: u64) -> io::Result<u64> {
    let (mut pattern, mut digest) = (Pattern::new(1), Digest::default());
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut done = 0;
    loop {
        let got = match stream.read(&mut chunk) {
            Ok(0) if done == bytes => return Ok(digest.value()),
            Ok(0) => {
                return Err(Error::new(
                    ErrorKind::UnexpectedEof,
                    format!("end after {done} of {bytes} bytes"),
                ));
            }
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        pattern.fill(&mut expected[..got]);
        if chunk[..got] != expected[..got] {
            let at = (0..got).find(|&at| chunk[at] != expected[at]).unwrap_or(0);
            return Err(Error::new(ErrorKind::InvalidData, format!("byte {} differs", done + at as u64)));
        }
        digest.add(&chunk[..got]);
        done += got as u64;
        if done > bytes {
            return Err(Error::new(ErrorKind::InvalidData, format!("{done} bytes came of {bytes}")));
        }
    }
}

/// A stream of bytes that looks random and is the same for the same seed: xorshift64*, eight bytes a step.
#[derive(Debug, Clone)]
pub struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// The pattern of a seed.
    pub fn new(seed: u64) -> Pattern {
        // An all-zero state would stay zero; nearby seeds should not look alike.
        let state = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1;
        Pattern { state, word: [0; 8], used: 8 }
    }

    /// The next eight bytes as a number.
    pub fn next_u64(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Fills with the bytes that come next. How the stream is cut into pieces does not change it.
    pub fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            if self.used == 8 {
                self.word = self.next_u64().to_le_bytes();
                self.used = 0;
            }
            let size = out.len().min(8 - self.used);
            let (now, later) = out.split_at_mut(size);
            now.copy_from_slice(&self.word[self.used..self.used + size]);
            self.used += size;
            out = later;
        }
    }
}

/// A digest that does not depend on how the bytes were cut: FNV-1a over words of eight, the last one padded.
#[derive(Debug, Default)]
struct Digest {
    hash: u64,
    word: [u8; 8],
    length: u64,
}

impl Digest {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = (self.length % 8) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(8 - used));
            self.word[used..used + now.len()].copy_from_slice(now);
            self.length += now.len() as u64;
            if used + now.len() == 8 {
                self.step(u64::from_le_bytes(self.word));
            }
            bytes = later;
        }
    }

    fn step(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    fn value(mut self) -> u64 {
        let used = (self.length % 8) as usize;
        self.word[used..].fill(0);
        self.step(u64::from_le_bytes(self.word));
        self.step(self.length);
        self.hash
    }
}

/// The host and port of an address, looked up where it is a name.
pub(crate) fn ip_address(address: &str) -> io::Result<SocketAddr> {
    let bare = address.strip_prefix("tcp://").or(address.strip_prefix("udp://")).unwrap_or(address);
    let found = bare.to_socket_addrs()?.next();
    found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no address for {address}")))
}

/// The path, or `@name`, of a Unix address.
fn unix_name(address: &str) -> Option<&str> {
    let name = address.strip_prefix("unix:").or(address.strip_prefix("unixgram:"));
    name.or(address.starts_with('/').then_some(address))
}

fn unix_address(name: &str) -> io::Result<unix::SocketAddr> {
    match name.strip_prefix('@') {
        Some(abstract_name) => unix::SocketAddr::from_abstract_name(abstract_name),
        None => unix::SocketAddr::from_pathname(name),
    }
}

fn expect_same(expected: &[u8], got: &[u8]) -> io::Result<()> {
    if expected == got {
        return Ok(());
    }
    let show = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let text = format!("expected {:?}, got {:?} ({} bytes)", show(expected), show(got), got.len());
    Err(Error::new(ErrorKind::InvalidData, text))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    /// An echo on a thread for each client, for as long as the test process lives.
    pub(crate) fn tcp_echo(host: &str) -> String {
        let listener = TcpListener::bind(host).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    #[test]
    fn every_family_echoes() {
        let name = format!("tine-testkit-echo-{}", std::process::id());
        let listener = UnixListener::bind_addr(&unix_address(&format!("@{name}")).unwrap()).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        for address in [tcp_echo("127.0.0.1:0"), tcp_echo("[::1]:0"), format!("unix:@{name}")] {
            echo_line(&address, "hello").unwrap();
            assert_eq!(ask(&address, b"").unwrap(), b"");
            let moved = transfer(&Stream::connect(&address).unwrap(), 3_000_001).unwrap();
            assert_eq!((moved.bytes, moved.sent_digest), (3_000_001, moved.received_digest));
        }
    }

    #[test]
    fn a_byte_changed_lost_or_added_fails_the_transfer() {
        let spoil: [fn(&mut Vec<u8>); 3] = [|b| b[70_000] ^= 1, |b| b.truncate(99_999), |b| b.push(7)];
        for (spoil, kind) in
            spoil.into_iter().zip([ErrorKind::InvalidData, ErrorKind::UnexpectedEof, ErrorKind::InvalidData])
        {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let echo = thread::spawn(move || {
                let mut bytes = Vec::new();
                (&mut &theirs).read_to_end(&mut bytes).unwrap();
                spoil(&mut bytes);
                let _ = (&mut &theirs).write_all(&bytes); // the client leaves at the first wrong byte
            });
            let stream = Stream::Unix(ours);
            assert_eq!(transfer(&stream, 100_000).unwrap_err().kind(), kind);
            drop(stream);
            echo.join().unwrap();
        }
    }

    #[test]
    fn a_pattern_does_not_depend_on_its_pieces() {
        let mut whole = [0; 1000];
        Pattern::new(3).fill(&mut whole);
        let (mut pattern, mut pieces) = (Pattern::new(3), [0; 1000]);
        for piece in pieces.chunks_mut(7) {
            pattern.fill(piece);
        }
        assert_eq!(whole, pieces);
        let mut other = [0; 1000];
        Pattern::new(4).fill(&mut other);
        assert_ne!(whole, other);
    }

    #[test]
    fn a_wrong_echo_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"goodbye\n").unwrap();
            io::copy(&mut stream, &mut io::sink()).unwrap();
        });
        let error = echo_line(&address, "hello").unwrap_err().to_string();
        assert!(error.contains(r#"expected "hello\n", got "goodbye\n""#), "{error}");
    }
}
