//! How a TCP connection stands that this process has no descriptor of: the kernel is asked by address.
//!
//! sock_diag(7), netlink(7), tcp(7); `struct inet_diag_req_v2` and `inet_diag_msg` in linux/inet_diag.h, `struct tcp_info` in
//! linux/tcp.h. It takes no privilege. The kernel answers before the question has returned, so nothing here waits.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, netlink, recv, send, socket_with,
};

use crate::fault;

/// A socket for questions to the kernel about connections of its network namespace.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    /// The number of the last question.
    asked: u32,
    interface: u32,
}

/// How a connection stands. All counts and times are from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Which directions are open.
    pub state: State,
    /// Bytes that the peer has sent and that have arrived in order, read or not.
    pub received: u64,
    /// Bytes that the peer has acknowledged.
    pub acked: u64,
    /// Since data was last sent; since the beginning when none was.
    pub sent_ago: Duration,
    /// Since data last arrived; since the beginning when none has.
    pub received_ago: Duration,
    /// Bytes that have arrived and that nobody has read. The peer's end counts as one.
    pub unread: u32,
    /// Bytes that were written and that the peer has not acknowledged. Our end counts as one.
    pub unacked: u32,
}

/// Which directions of a connection are open: the states of RFC 9293 that one with a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both.
    Established,
    /// Ours; the peer has ended its own: CLOSE-WAIT.
    CloseWait,
    /// The peer's; we have ended ours: FIN-WAIT-1 and FIN-WAIT-2.
    FinWait,
    /// None, but what we have sent is not acknowledged yet: CLOSING and LAST-ACK.
    Closing,
}

impl Diag {
    /// A socket to ask with.
    ///
    /// # Errors
    /// EPROTONOSUPPORT when the kernel has no sock_diag, ENOENT when it has none for TCP; EMFILE, ENFILE.
    pub fn new() -> io::Result<Diag> {
        fault::point("socket")?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
        // Connected to the kernel: from then on nobody else's messages are let in.
        fault::point("connect")?;
        connect(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
        let mut diag = Diag { socket, asked: 0, interface: 0 };
        diag.try_out()?;
        Ok(diag)
    }

    /// Asks about connections that came in through this network interface (its index, see if_nametoindex(3)) because their
    /// listener was bound to it: the kernel finds these under no other. 0 is none.
    pub fn through(self, interface: u32) -> Diag {
        Diag { interface, ..self }
    }

    /// Asks about one connection. `cookie` is its socket's, see [`crate::socket::cookie`], so that no other connection
    /// between the same two addresses is taken for it. A connection that a listener of IPv6 has accepted from a client of
    /// IPv4 is found by addresses of either form.
    ///
    /// `None` when there is no such connection any more: closed, reset, or nothing of it left but the waiting that TCP
    /// does after its end. Also when it never was in this network namespace.
    ///
    /// # Errors
    /// ENOBUFS, ENOMEM; `InvalidData` and `WouldBlock` for an answer that is none.
    pub fn ask(
        &mut self,
        local: &SocketAddr,
        peer: &SocketAddr,
        cookie: u64,
    ) -> io::Result<Option<Connection>> {
        let (source, target) = (local.ip().to_canonical(), peer.ip().to_canonical());
        let mut id = [0; 48];
        id[..2].copy_from_slice(&local.port().to_be_bytes());
        id[2..4].copy_from_slice(&peer.port().to_be_bytes());
        let family = match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                id[4..8].copy_from_slice(&source.octets());
                id[20..24].copy_from_slice(&target.octets());
                libc::AF_INET
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                id[4..20].copy_from_slice(&source.octets());
                id[20..36].copy_from_slice(&target.octets());
                libc::AF_INET6
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        id[36..40].copy_from_slice(&scope(local, peer).unwrap_or(self.interface).to_ne_bytes());
        // Two words, the lower first, each in the machine's order.
        id[40..44].copy_from_slice(&(cookie as u32).to_ne_bytes());
        id[44..].copy_from_slice(&((cookie >> 32) as u32).to_ne_bytes());
        let mut answer = [0; ANSWER_ROOM];
        match self.put(Question { family, id, states: u32::MAX, flags: NLM_F_REQUEST }, &mut answer) {
            Ok(message) => connection(message),
            Err(why) if matches!(why.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Asks for a list of connections in no state at all, which is empty: a kernel that cannot answer at all says ENOENT to
    /// everything, and would have every connection be gone.
    fn try_out(&mut self) -> io::Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answer = [0; ANSWER_ROOM];
        self.put(Question { family: libc::AF_INET, id: [0; 48], states: 0, flags }, &mut answer).map(drop)
    }

    /// Puts a question and gives what is in the message that answers it, behind its header.
    fn put<'a>(&mut self, question: Question, answer: &'a mut [u8; ANSWER_ROOM]) -> io::Result<&'a [u8]> {
        self.asked = self.asked.wrapping_add(1);
        fault::point("sendmsg")?;
        send(&self.socket, &question.to_bytes(self.asked), SendFlags::DONTWAIT)?;
        for _ in 0..LATE_MOST {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let got = fault::point("recvmsg").and_then(|()| Ok(recv(&self.socket, &mut answer[..], flags)?));
            let length = match got {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
                other => other?.1,
            };
            if length > ANSWER_ROOM {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let header = Header::read(&answer[..length]).ok_or(io::ErrorKind::InvalidData)?;
            if header.sequence != self.asked {
                // To an earlier question, which was cut short before it had read this.
                continue;
            }
            let body = HEADER..header.length;
            match header.kind {
                NLMSG_ERROR | NLMSG_DONE => match number(&answer[body.clone()], 0).map(i32::from_ne_bytes) {
                    Some(0) => return Ok(&answer[body]),
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
                    None => return Err(io::ErrorKind::InvalidData.into()),
                },
                SOCK_DIAG_BY_FAMILY => return Ok(&answer[body]),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// linux/netlink.h and linux/sock_diag.h.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// `tcp_info` is an attribute of this number: linux/inet_diag.h.
const INET_DIAG_INFO: u16 = 2;

/// Room for a `struct nlmsghdr`.
const HEADER: usize = 16;

/// Room for an answer: some 500 bytes in Linux 6.18.
const ANSWER_ROOM: usize = 4096;

/// How many answers to earlier questions may be waiting: each leaves one at most.
const LATE_MOST: usize = 16;

/// What is asked, as `struct inet_diag_req_v2` has it.
struct Question {
    family: libc::c_int,
    id: [u8; 48],
    states: u32,
    flags: u16,
}

impl Question {
    const LENGTH: usize = HEADER + 56;

    fn to_bytes(&self, sequence: u32) -> [u8; Question::LENGTH] {
        let mut bytes = [0; Question::LENGTH];
        bytes[..4].copy_from_slice(&(Question::LENGTH as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        let body = &mut bytes[HEADER..];
        body[0] = self.family as u8;
        body[1] = libc::IPPROTO_TCP as u8;
        body[2] = 1 << (INET_DIAG_INFO - 1);
        body[4..8].copy_from_slice(&self.states.to_ne_bytes());
        body[8..].copy_from_slice(&self.id);
        bytes
    }
}

/// What a message says of itself: `struct nlmsghdr`.
struct Header {
    length: usize,
    kind: u16,
    sequence: u32,
}

impl Header {
    /// `None` when the message is shorter than it says, or than a header.
    fn read(message: &[u8]) -> Option<Header> {
        let length = u32::from_ne_bytes(number(message, 0)?) as usize;
        let header = Header {
            length,
            kind: u16::from_ne_bytes(number(message, 4)?),
            sequence: u32::from_ne_bytes(number(message, 8)?),
        };
        (HEADER..=message.len()).contains(&length).then_some(header)
    }
}

/// The interface that a link-local address is of.
fn scope(local: &SocketAddr, peer: &SocketAddr) -> Option<u32> {
    let scope = |addr: &SocketAddr| match addr {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => Some(v6.scope_id()),
        _ => None,
    };
    scope(local).or_else(|| scope(peer))
}

/// Reads a `struct inet_diag_msg` and the `tcp_info` behind it; `None` where there is nothing of a connection left to have one.
fn connection(message: &[u8]) -> io::Result<Option<Connection>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let state = *message.get(1).ok_or_else(invalid)?;
    let queue = |at| number(message, at).map(u32::from_ne_bytes).ok_or_else(invalid);
    let (unread, unacked) = (queue(56)?, queue(60)?);
    let Some(info) = attribute(message.get(72..).ok_or_else(invalid)?, INET_DIAG_INFO) else {
        return Ok(None);
    };
    // In the kernel's counts an end that was received, or acknowledged, is a byte.
    let (state, end_received, end_acked) = match state {
        // 3 is a connection of which the client's first segment, with data, was accepted already.
        1 | 3 => (State::Established, 0, 0),
        4 => (State::FinWait, 0, 0),
        5 => (State::FinWait, 0, 1),
        8 => (State::CloseWait, 1, 0),
        9 | 11 => (State::Closing, 1, 0),
        _ => return Ok(None),
    };
    let word = |at| number(info, at).map(u32::from_ne_bytes).ok_or_else(invalid);
    let count = |at| number(info, at).map(u64::from_ne_bytes).ok_or_else(invalid);
    Ok(Some(Connection {
        state,
        received: count(128)?.saturating_sub(end_received),
        acked: count(120)?.saturating_sub(end_acked),
        sent_ago: Duration::from_millis(word(44)?.into()),
        received_ago: Duration::from_millis(word(52)?.into()),
        unread,
        unacked,
    }))
}

/// The value of an attribute, from a row of them: `struct rtattr`, each at a multiple of four.
fn attribute(mut row: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(number(row, 0)?));
        let kind = u16::from_ne_bytes(number(row, 2)?);
        let value = row.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        row = row.get(length.next_multiple_of(4)..)?;
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;
    use crate::socket;

    /// A connection: the client's end, the server's, and what is known of the latter.
    struct Pair {
        diag: Diag,
        client: TcpStream,
        server: TcpStream,
        local: SocketAddr,
        peer: SocketAddr,
        cookie: u64,
    }

    impl Pair {
        fn new(listen: &str, reach: &str) -> Pair {
            let listener = TcpListener::bind(listen).unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect(format!("{reach}:{port}")).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let (local, cookie) = (server.local_addr().unwrap(), socket::cookie(&server).unwrap());
            Pair { diag: Diag::new().unwrap(), client, server, local, peer, cookie }
        }

        fn ask(&mut self) -> Option<Connection> {
            self.diag.ask(&self.local, &self.peer, self.cookie).unwrap()
        }

        /// Asks until it is as it should be: loopback is quick, but not instant.
        fn until(&mut self, what: &str, good: impl Fn(Option<Connection>) -> bool) {
            let until = Instant::now() + Duration::from_secs(10);
            loop {
                let now = self.ask();
                if good(now) {
                    return;
                }
                assert!(Instant::now() < until, "never {what}: {now:?}");
                std::thread::yield_now();
            }
        }
    }

    fn follow(mut pair: Pair) {
        let fresh = pair.ask().expect("a connection");
        assert_eq!((fresh.state, fresh.received, fresh.acked), (State::Established, 0, 0));
        assert_eq!((fresh.unread, fresh.unacked), (0, 0));

        pair.client.write_all(&[7; 1000]).unwrap();
        pair.until("1000 bytes, none read", |now| {
            now.is_some_and(|c| (c.received, c.unread) == (1000, 1000))
        });
        pair.server.read_exact(&mut [0; 400]).unwrap();
        pair.until("400 read", |now| now.is_some_and(|c| (c.received, c.unread) == (1000, 600)));
        pair.server.write_all(&[7; 30]).unwrap();
        pair.until("30 bytes acknowledged", |now| now.is_some_and(|c| (c.acked, c.unacked) == (30, 0)));

        pair.client.shutdown(Shutdown::Write).unwrap();
        pair.until("the client's end", |now| {
            now.is_some_and(|c| (c.state, c.received, c.unread) == (State::CloseWait, 1000, 601))
        });
        pair.server.read_to_end(&mut Vec::new()).unwrap();
        let read = pair.ask().expect("a connection");
        assert_eq!((read.received, read.unread, read.acked), (1000, 0, 30));
        let known = pair.cookie;
        pair.cookie ^= 1;
        assert_eq!(pair.ask(), None, "a connection under another's cookie");
        pair.cookie = known ^ (1 << 32);
        assert_eq!(pair.ask(), None, "a connection under another's cookie");
        pair.cookie = known;
        pair.server.shutdown(Shutdown::Write).unwrap();
        pair.until("gone, when both have ended", |now| now.is_none());
    }

    #[test]
    fn a_connection_of_ipv4_is_followed_from_its_beginning_to_its_end() {
        follow(Pair::new("127.0.0.1:0", "127.0.0.1"));
    }

    #[test]
    fn a_connection_of_ipv6_is_followed_from_its_beginning_to_its_end() {
        follow(Pair::new("[::1]:0", "[::1]"));
    }

    #[test]
    fn a_client_of_ipv4_at_a_listener_of_ipv6_is_found_by_either_form_of_its_address() {
        let mapped = Pair::new("[::]:0", "127.0.0.1");
        assert!(mapped.peer.is_ipv6(), "a listener for both");
        follow(mapped);
        let mut plain = Pair::new("[::]:0", "127.0.0.1");
        plain.local.set_ip(plain.local.ip().to_canonical());
        plain.peer.set_ip(plain.peer.ip().to_canonical());
        assert!(plain.peer.is_ipv4());
        follow(plain);
    }

    #[test]
    fn a_server_that_ends_first_is_told_from_a_client_that_does() {
        let mut pair = Pair::new("127.0.0.1:0", "127.0.0.1");
        pair.server.write_all(b"bye").unwrap();
        pair.server.shutdown(Shutdown::Write).unwrap();
        pair.until("all acknowledged", |now| {
            now.is_some_and(|c| (c.state, c.acked, c.unacked) == (State::FinWait, 3, 0))
        });
        pair.client.write_all(b"later").unwrap();
        pair.until("what comes after", |now| now.is_some_and(|c| (c.received, c.unread) == (5, 5)));
    }

    #[test]
    fn a_connection_that_its_client_resets_is_gone_though_the_server_holds_it() {
        let mut pair = Pair::new("127.0.0.1:0", "127.0.0.1");
        pair.server.write_all(b"unread").unwrap();
        pair.client.read_exact(&mut [0; 1]).unwrap();
        let other = Pair::new("127.0.0.1:0", "127.0.0.1");
        // Closed with bytes unread, TCP resets.
        pair.client = other.client;
        pair.until("gone", |now| now.is_none());
    }

    #[test]
    fn the_time_since_data_passed_grows_until_data_passes() {
        let mut pair = Pair::new("127.0.0.1:0", "127.0.0.1");
        let began = Instant::now();
        let least = Duration::from_millis(60);
        pair.until("silent for long enough", |now| {
            now.is_some_and(|c| c.received_ago >= least && c.sent_ago >= least)
        });
        assert!(began.elapsed() + Duration::from_millis(20) >= least, "no time had passed");
        pair.client.write_all(b"x").unwrap();
        pair.until("a byte, just now", |now| {
            now.is_some_and(|c| c.received == 1 && c.received_ago < c.sent_ago)
        });
        pair.server.write_all(b"x").unwrap();
        pair.until("an answer, just now", |now| now.is_some_and(|c| c.sent_ago <= c.received_ago));
    }

    #[test]
    fn a_listener_that_is_bound_to_an_interface_passes_that_on() {
        use socket::{Addr, IntOption, Kind, NameOption};
        let addr = Addr::Inet("127.0.0.1:0".parse().unwrap());
        let listener = socket::open(&addr, Kind::Stream).unwrap();
        socket::set_int(&listener, IntOption::REUSE_ADDRESS, 1).unwrap();
        socket::set_name(&listener, NameOption::DEVICE, "lo").unwrap();
        socket::bind(&listener, &addr).unwrap();
        socket::listen(&listener, 1).unwrap();
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(false).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let (local, cookie) = (client.peer_addr().unwrap(), socket::cookie(&server).unwrap());
        let mut diag = Diag::new().unwrap();
        assert_eq!(diag.ask(&local, &peer, cookie).unwrap(), None, "found without its interface");
        // The loopback device is the first of every network namespace.
        let found = diag.through(1).ask(&local, &peer, cookie).unwrap();
        assert_eq!(found.map(|c| c.state), Some(State::Established));
    }

    #[test]
    fn a_late_answer_is_not_taken_for_the_one_that_is_wanted() {
        let mut pair = Pair::new("127.0.0.1:0", "127.0.0.1");
        let late = Question { family: libc::AF_INET, id: [0; 48], states: u32::MAX, flags: NLM_F_REQUEST };
        for _ in 0..LATE_MOST - 1 {
            send(&pair.diag.socket, &late.to_bytes(pair.diag.asked), SendFlags::DONTWAIT).unwrap();
        }
        assert_eq!(pair.ask().map(|c| c.state), Some(State::Established));
    }

    #[test]
    fn an_answer_cut_short_anywhere_is_refused() {
        let info = [1; 232];
        let mut whole = vec![0; 72];
        whole[1] = 1;
        for (kind, value) in [(8u16, &[0; 1][..]), (INET_DIAG_INFO, &info[..])] {
            whole.extend((value.len() as u16 + 4).to_ne_bytes());
            whole.extend(kind.to_ne_bytes());
            whole.extend(value);
            whole.resize(whole.len().next_multiple_of(4), 0);
        }
        assert!(connection(&whole).unwrap().is_some());
        for length in 0..whole.len() {
            let cut = connection(&whole[..length]);
            assert!(!matches!(cut, Ok(Some(_))), "taken at {length}: {cut:?}");
        }
        // One of an older kernel, whose tcp_info ends before the counts.
        let mut old = whole[..80].to_vec();
        old.extend(108u16.to_ne_bytes());
        old.extend(INET_DIAG_INFO.to_ne_bytes());
        old.extend([1; 104]);
        assert_eq!(connection(&old).unwrap_err().kind(), io::ErrorKind::InvalidData);
        for length in 0..HEADER + 8 {
            assert!(Header::read(&[255; HEADER + 8][..length]).is_none(), "a header that claims more");
        }
    }
}
