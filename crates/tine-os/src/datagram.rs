//! Datagrams in batches, kept where the death of the process that handles them does not lose them.
//!
//! A [`Basket`] is memory without a process: its maker keeps only the descriptor. One worker at a time maps it as
//! a [`Batch`]; `recvmmsg` writes datagrams straight into it and replies wait in it for `sendmmsg`. When the worker
//! dies, the next one maps the same basket and goes on with the datagram after the one that was in hand: the kernel
//! itself has noted in the basket which datagrams have come and which replies have gone.
//!
//! recvmmsg(2), sendmmsg(2), memfd_create(2), mmap(2), ip(7) (IP_PKTINFO), ipv6(7) (IPV6_PKTINFO).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use crate::socket::{Addr, RawAddr};
use crate::{check, fault};

/// How many datagrams one system call receives at most.
pub const BATCH: usize = 32;

/// The longest payload of a datagram over UDP; longer ones exist over Unix sockets and are cut, and said to be.
pub const LONGEST: usize = 65_535;

/// Room for the packet information of either family.
const CONTROL: usize = 64;

/// What the kernel puts where nothing has been received or sent yet; no real length is so large.
const UNTOUCHED: u32 = u32::MAX;

/// The memory that a worker's batch lives in, held by the master, which never looks inside.
#[derive(Debug)]
pub struct Basket(OwnedFd);

/// One worker's batch: what has been received, what is in hand, what is to be sent.
///
/// [`Batch::receive`] is for an empty batch ([`Batch::is_empty`]).
#[derive(Debug)]
pub struct Batch {
    shared: NonNull<Shared>,
}

/// One datagram of a batch.
#[derive(Debug)]
pub struct Received<'a> {
    /// The bytes, up to [`LONGEST`].
    pub payload: &'a [u8],
    /// Who sent it; `None` for an unnamed Unix socket, which cannot be answered.
    pub source: Option<Addr>,
    /// The address of ours that it was sent to, where the kernel tells.
    pub destination: Option<IpAddr>,
    /// Whether it was longer than there was room.
    pub truncated: bool,
}

/// The layout of a basket. Every part is plain numbers, so that the zeroes of fresh memory are a valid, empty one. The
/// counts are atomic because the next worker must find them in the order in which this one wrote them.
#[repr(C)]
struct Shared {
    /// The datagrams received in the current batch, once the kernel has said so.
    received: AtomicU32,
    /// How many of them were taken in hand.
    taken: AtomicU32,
    /// How many were done with: one fewer than taken while one is in hand.
    done: AtomicU32,
    /// How many of the replies of those have gone.
    sent: AtomicU32,
    /// Whether `recvmmsg` may have been under way.
    receiving: AtomicU32,
    /// Whether `sendmmsg` may have been under way.
    sending: AtomicU32,
    incoming: [libc::mmsghdr; BATCH],
    outgoing: [libc::mmsghdr; BATCH],
    envelopes: [Envelope; BATCH],
    answers: [Envelope; BATCH],
    payloads: [[u8; LONGEST]; BATCH],
    bodies: [[u8; LONGEST]; BATCH],
}

/// The parts of one message that its header points to.
#[repr(C)]
struct Envelope {
    part: libc::iovec,
    /// Of an answer: whether there is one.
    wanted: u32,
    /// Of an answer: the bytes of `control` that are in use.
    control_length: u32,
    name: RawAddr,
    control: [u64; CONTROL / 8],
}

impl Basket {
    /// Empty memory for one worker.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Basket> {
        fault::point("memfd_create")?;
        let memory = rustix::fs::memfd_create(c"tine-datagrams", MemfdFlags::CLOEXEC)?;
        fault::point("ftruncate")?;
        rustix::fs::ftruncate(&memory, size_of::<Shared>() as u64)?;
        Ok(Basket(memory))
    }

    /// Maps it, in a worker; the worker before must have been waited for.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn open(&self) -> io::Result<Batch> {
        fault::point("mmap")?;
        let (both, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing in this process (mmap(2)).
        let memory =
            unsafe { rustix::mm::mmap(ptr::null_mut(), size_of::<Shared>(), both, flags, &self.0, 0)? };
        let shared = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Batch { shared })
    }
}

impl Batch {
    /// Takes stock of what the worker before left: `true` when it had a datagram in hand, which is now lost.
    pub fn recover(&mut self) -> bool {
        let shared = self.shared();
        if shared.receiving.swap(0, SeqCst) != 0 {
            // The kernel fills the batch in order, and notes each message's length last.
            shared.received.store(touched(&shared.incoming) as u32, SeqCst);
        }
        if shared.sending.swap(0, SeqCst) != 0 {
            let from = load(&shared.sent);
            let to = shared.replies().count().max(from);
            shared.sent.store((from + touched(&shared.outgoing[from..to])) as u32, SeqCst);
        }
        let lost = load(&shared.taken) > load(&shared.done);
        shared.done.store(load(&shared.taken) as u32, SeqCst);
        lost
    }

    /// Whether nothing is left in it, neither to handle nor to send.
    pub fn is_empty(&self) -> bool {
        // SAFETY: the mapping is as in `shared`, which `&self` keeps from being changed meanwhile; only read here.
        let shared = unsafe { self.shared.as_ref() };
        load(&shared.taken) >= load(&shared.received) && load(&shared.sent) >= shared.replies().count()
    }

    /// Receives a batch, when the last one is handled and its replies are sent. Does not wait.
    ///
    /// # Errors
    /// EAGAIN when nothing has come; what the network reports of earlier replies (ECONNREFUSED).
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        fault::point("recvmmsg")?;
        let shared = self.shared();
        // In this order there is no moment at which a worker that died would leave something to handle or to send.
        for count in [&shared.received, &shared.taken, &shared.done, &shared.sent] {
            count.store(0, SeqCst);
        }
        for (i, header) in shared.incoming.iter_mut().enumerate() {
            let envelope = &mut shared.envelopes[i];
            envelope.part.iov_base = shared.payloads[i].as_mut_ptr().cast();
            envelope.part.iov_len = LONGEST;
            header.msg_len = UNTOUCHED;
            header.msg_hdr = envelope.header(RawAddr::ROOM as u32, CONTROL);
            shared.answers[i].wanted = 0;
        }
        shared.receiving.store(1, SeqCst);
        let (headers, room) = (shared.incoming.as_mut_ptr(), BATCH as u32);
        // SAFETY: each of the `room` headers names parts of the basket with their true lengths, and the basket stays
        // mapped for as long as this process lives (recvmmsg(2)).
        let got = check(unsafe {
            libc::recvmmsg(socket.as_fd().as_raw_fd(), headers, room, libc::MSG_DONTWAIT, ptr::null_mut())
        });
        shared.received.store(got.as_ref().map_or(0, |n| n.unsigned_abs()), SeqCst);
        shared.receiving.store(0, SeqCst);
        got.map(|n| n as usize)
    }

    /// The next datagram to handle, which is in hand until [`Batch::done`]; `None` when all are handled.
    pub fn take(&mut self) -> Option<Received<'_>> {
        let shared = self.shared();
        let i = load(&shared.taken);
        if i >= load(&shared.received) {
            return None;
        }
        shared.taken.store(i as u32 + 1, SeqCst);
        let (header, envelope) = (&shared.incoming[i], &shared.envelopes[i]);
        let source = RawAddr { length: header.msg_hdr.msg_namelen, ..envelope.name }.get();
        Some(Received {
            payload: &shared.payloads[i][..(header.msg_len as usize).min(LONGEST)],
            source: source.filter(|addr| *addr != Addr::Unnamed),
            destination: destination(header),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// The datagram in hand is handled; `reply`, if any, goes to its sender with the next [`Batch::send`], from the
    /// address that it was sent to. What is longer than [`LONGEST`] is cut.
    pub fn done(&mut self, reply: Option<&[u8]>) {
        let shared = self.shared();
        let Some(i) = load(&shared.taken).checked_sub(1) else { return };
        if let Some(reply) = reply {
            let length = reply.len().min(LONGEST);
            shared.bodies[i][..length].copy_from_slice(&reply[..length]);
            let (header, answer) = (&shared.incoming[i], &mut shared.answers[i]);
            answer.name = RawAddr { length: header.msg_hdr.msg_namelen, ..shared.envelopes[i].name };
            answer.part.iov_len = length;
            answer.control_length = put_source(header, &mut answer.control);
            answer.wanted = 1;
        }
        shared.done.store(i as u32 + 1, SeqCst);
    }

    /// Sends the replies, or as many as go out at once; the others stay. Gives how many went.
    ///
    /// # Errors
    /// EAGAIN when there is no room; otherwise what sendmsg(2) says of the first reply, which is dropped.
    pub fn send(&mut self, socket: impl AsFd) -> io::Result<usize> {
        fault::point("sendmmsg")?;
        let shared = self.shared();
        let from = load(&shared.sent);
        let mut to = 0;
        for i in 0..load(&shared.done) {
            if shared.answers[i].wanted != 0 {
                let answer = &mut shared.answers[i];
                answer.part.iov_base = shared.bodies[i].as_mut_ptr().cast();
                let (name, control) = (answer.name.length, answer.control_length as usize);
                shared.outgoing[to].msg_len = UNTOUCHED;
                shared.outgoing[to].msg_hdr = answer.header(name, control);
                to += 1;
            }
        }
        if from >= to {
            return Ok(0);
        }
        shared.sending.store(1, SeqCst);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let headers = shared.outgoing[from..to].as_mut_ptr();
        // SAFETY: each of the headers names parts of the basket with their true lengths, and the basket stays mapped
        // for as long as this process lives (sendmmsg(2)).
        let sent =
            check(unsafe { libc::sendmmsg(socket.as_fd().as_raw_fd(), headers, (to - from) as u32, flags) });
        let gone = match &sent {
            Ok(sent) => *sent as usize,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => 1,
        };
        shared.sent.store((from + gone) as u32, SeqCst);
        shared.sending.store(0, SeqCst);
        sent.map(|n| n as usize)
    }

    fn shared(&mut self) -> &mut Shared {
        // SAFETY: the mapping is as large as `Shared`, page-aligned, of plain numbers only, and lives as long as the
        // process; no other process maps it (`Basket::open` is called after the worker before was waited for), and
        // in this one only this `Batch` leads to it.
        unsafe { self.shared.as_mut() }
    }
}

impl Shared {
    /// The answers that are to be sent or have been, in order.
    fn replies(&self) -> impl Iterator<Item = &Envelope> {
        self.answers[..load(&self.done)].iter().filter(|answer| answer.wanted != 0)
    }
}

impl Envelope {
    fn header(&mut self, name: u32, control: usize) -> libc::msghdr {
        libc::msghdr {
            msg_name: self.name.bytes.as_mut_ptr().cast(),
            msg_namelen: name,
            msg_iov: &mut self.part,
            msg_iovlen: 1,
            msg_control: self.control.as_mut_ptr().cast(),
            msg_controllen: control,
            msg_flags: 0,
        }
    }
}

/// Sends one datagram to `to`, leaving from `from` where that is known. Does not wait.
///
/// # Errors
/// EAGAIN when there is no room, and what the network says: sendmsg(2).
pub fn send_from(socket: impl AsFd, bytes: &[u8], to: &Addr, from: Option<IpAddr>) -> io::Result<()> {
    fault::point("sendmsg")?;
    let mut envelope = Envelope {
        part: libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() },
        wanted: 1,
        control_length: 0,
        name: RawAddr::new(to)?,
        control: [0; CONTROL / 8],
    };
    let scope = if let Addr::Inet(std::net::SocketAddr::V6(v6)) = to { v6.scope_id() } else { 0 };
    envelope.control_length = put_address(from, scope, &mut envelope.control);
    let (name, control) = (envelope.name.length, envelope.control_length as usize);
    let message = envelope.header(name, control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `message` names `bytes`, an address and a control area, all alive here, with their true lengths.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &message, flags) };
    check(sent as libc::c_int).map(drop)
}

/// How many messages from the first on the kernel has been through.
fn touched(headers: &[libc::mmsghdr]) -> usize {
    headers.iter().position(|header| header.msg_len == UNTOUCHED).unwrap_or(headers.len())
}

fn load(count: &AtomicU32) -> usize {
    (count.load(SeqCst) as usize).min(BATCH)
}

/// The local address in a received message's packet information.
fn destination(header: &libc::mmsghdr) -> Option<IpAddr> {
    // SAFETY: the control area of a received header is inside the basket, as long as the kernel said.
    let first = unsafe { libc::CMSG_FIRSTHDR(&header.msg_hdr) };
    if first.is_null() {
        return None;
    }
    // SAFETY: not null, so it points to a whole header inside the control area (cmsg(3)).
    let head = unsafe { first.read_unaligned() };
    // SAFETY: as above; the data begins right behind the header.
    let data = unsafe { libc::CMSG_DATA(first) };
    match (head.cmsg_level, head.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: the kernel has written one `in_pktinfo` there, as the type says (ip(7)).
            let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: the kernel has written one `in6_pktinfo` there, as the type says (ipv6(7)).
            let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
        }
        _ => None,
    }
}

/// Writes the control message that makes a reply leave from where `header`'s datagram was sent to; gives its length, 0
/// where the kernel had not told.
fn put_source(header: &libc::mmsghdr, control: &mut [u64; CONTROL / 8]) -> u32 {
    let from = destination(header);
    let scope = if from.is_some_and(|ip| ip.is_ipv6()) { interface(header) } else { 0 };
    put_address(from, scope, control)
}

fn put_address(from: Option<IpAddr>, scope: u32, control: &mut [u64; CONTROL / 8]) -> u32 {
    let place: *mut libc::cmsghdr = control.as_mut_ptr().cast();
    match from {
        None => 0,
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(ip).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put_control(place, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        Some(IpAddr::V6(ip)) => {
            // A link-local address means nothing without its interface; any other is looked up by the route.
            let scope = if ip.is_unicast_link_local() { scope } else { 0 };
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: scope };
            put_control(place, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn interface(header: &libc::mmsghdr) -> u32 {
    // SAFETY: the caller has found an IPv6 packet information here by `destination`.
    let first = unsafe { libc::CMSG_FIRSTHDR(&header.msg_hdr) };
    // SAFETY: as above; the data begins right behind the header.
    let data = unsafe { libc::CMSG_DATA(first) };
    // SAFETY: as above: one `in6_pktinfo` that the kernel wrote (ipv6(7)).
    unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() }.ipi6_ifindex
}

fn put_control<T>(place: *mut libc::cmsghdr, level: libc::c_int, kind: libc::c_int, info: T) -> u32 {
    const { assert!(size_of::<libc::cmsghdr>() + size_of::<T>() <= CONTROL) };
    let size = size_of::<T>() as u32;
    // SAFETY: a plain computation on a number (cmsg(3)).
    let length = unsafe { libc::CMSG_LEN(size) } as usize;
    // SAFETY: `place` is aligned and has room for a header and a `T` (asserted above).
    unsafe { place.write(libc::cmsghdr { cmsg_len: length, cmsg_level: level, cmsg_type: kind }) };
    // SAFETY: as above; the data begins right behind the header.
    let data = unsafe { libc::CMSG_DATA(place) };
    // SAFETY: as above: behind the header there is room for one `T`, of whatever alignment.
    unsafe { data.cast::<T>().write_unaligned(info) };
    // SAFETY: a plain computation on a number (cmsg(3)).
    unsafe { libc::CMSG_SPACE(size) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn server() -> (UdpSocket, UdpSocket) {
        let (server, client) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        crate::socket::set_int(&server, crate::socket::IntOption::PACKET_INFO, 1).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        (server, client)
    }

    #[test]
    fn what_a_dead_worker_left_is_handled_by_the_next_but_for_the_one_in_hand() {
        let (server, client) = server();
        let basket = Basket::new().unwrap();
        for text in [b"a", b"b", b"c", b"d"] {
            client.send(text).unwrap();
        }
        let mut first = basket.open().unwrap();
        assert_eq!(first.receive(&server).unwrap(), 4);
        assert_eq!(first.take().unwrap().payload, b"a");
        first.done(Some(b"A"));
        assert_eq!(first.take().unwrap().payload, b"b");
        // Here the first worker dies, its basket as it stands.
        let mut second = basket.open().unwrap();
        assert!(second.recover(), "one was in hand");
        assert_eq!(second.take().unwrap().payload, b"c");
        second.done(None);
        assert_eq!(second.take().unwrap().payload, b"d");
        second.done(Some(b"D"));
        assert!(!second.is_empty());
        assert_eq!(second.send(&server).unwrap(), 2);
        assert!(second.is_empty() && !second.recover());
        let mut room = [0; 4];
        for answer in [b"A", b"D"] {
            let n = client.recv(&mut room).unwrap();
            assert_eq!(&room[..n], answer);
        }
    }

    #[test]
    fn a_reply_leaves_from_the_address_that_was_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        crate::socket::set_int(&server, crate::socket::IntOption::PACKET_INFO, 1).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"?", ("127.0.0.7", server.local_addr().unwrap().port())).unwrap();
        let mut batch = Basket::new().unwrap().open().unwrap();
        batch.receive(&server).unwrap();
        let asked = batch.take().unwrap();
        assert_eq!(asked.destination, Some("127.0.0.7".parse().unwrap()));
        assert_eq!(asked.source, Some(Addr::Inet(client.local_addr().unwrap())));
        batch.done(Some(b"!"));
        batch.send(&server).unwrap();
        let (_, from) = client.recv_from(&mut [0; 4]).unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.7");
    }

    #[test]
    fn a_datagram_longer_than_there_is_room_is_said_to_be_cut() {
        use std::os::unix::net::UnixDatagram;
        let (here, there) = UnixDatagram::pair().unwrap();
        for length in [LONGEST, LONGEST + 1] {
            here.send(&vec![7; length]).unwrap();
            let mut batch = Basket::new().unwrap().open().unwrap();
            batch.receive(&there).unwrap();
            let got = batch.take().unwrap();
            assert_eq!((got.payload.len(), got.truncated), (LONGEST, length > LONGEST));
        }
    }
}
