//! Datagrams in batches, kept where the death of the process that handles them does not lose them.
//!
//! A [`Basket`] is memory without a process: its maker keeps only the descriptor. One worker at a time maps it as
//! a [`Batch`]; `recvmmsg` writes datagrams straight into it and replies wait in it for `sendmmsg`. When the worker
//! dies, the next one maps the same basket and goes on with the datagram after the one that was in hand: the kernel
//! itself has noted in the basket which datagrams have come and which replies have gone.
//!
//! A sender may hand the kernel many datagrams at once, and a socket with UDP_GRO gets them as one message; here they are
//! handed out one by one. Replies to one peer that are equally long leave as one message again, by UDP_SEGMENT.
//!
//! recvmmsg(2), sendmmsg(2), memfd_create(2), mmap(2), cmsg(3), udp(7), ip(7) (IP_PKTINFO), ipv6(7) (IPV6_PKTINFO).

use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use crate::socket::{Addr, RawAddr};
use crate::{check, fault};

/// How many messages one system call receives or sends at most. A message is one datagram, or many of one sender.
pub const BATCH: usize = 64;

/// The longest payload of a datagram over UDP; longer ones exist over Unix sockets and are cut, and said to be.
pub const LONGEST: usize = 65_535;

/// How many replies leave as one message at most: UDP_MAX_SEGMENTS of the kernels before 6.9.
pub const SEGMENTS: usize = 64;

/// How many bytes those have at most: what an IPv4 packet has room for.
pub const TOGETHER: usize = 65_507;

/// Room for the replies that wait to be sent, of which one may be as long as [`LONGEST`].
const ROOM: usize = 1 << 20;

/// From one payload to the next. Not a power of two, so that the beginnings of all do not compete for one line of the cache.
const STRIDE: usize = LONGEST + 1 + 3 * 64;

/// Room for the control messages of either family: what is asked for takes 64 bytes, and an inherited socket may have been
/// told to tell more.
const CONTROL: usize = 192;

/// What the kernel puts where nothing has been received or sent yet; no real length is so large.
const UNTOUCHED: u32 = u32::MAX;

/// After a refusal to send replies of some length together, so many messages leave apart before it is tried again.
const FORGET: u32 = 4096;

/// The memory that a worker's batch lives in, held by the master, which never looks inside.
#[derive(Debug)]
pub struct Basket(OwnedFd);

/// One worker's batch: what has been received, what is in hand, what is to be sent.
///
/// [`Batch::receive`] is for an empty batch ([`Batch::is_empty`]).
#[derive(Debug)]
pub struct Batch {
    shared: NonNull<Shared>,
    /// How many of the incoming headers are as a message has left them.
    used: usize,
    /// What is known of the message that the datagram in hand is a part of.
    known: Known,
    /// The address that all datagrams are sent to, where there is only one.
    local: Option<IpAddr>,
    /// Replies from this length on were refused when they were to leave together, and how many messages ago to forget that.
    refused: (usize, u32),
}

/// One datagram of a batch.
#[derive(Debug)]
pub struct Received<'a> {
    /// The bytes, up to [`LONGEST`].
    pub payload: &'a [u8],
    /// Who sent it; `None` for an unnamed Unix socket, which cannot be answered.
    pub source: Option<&'a Addr>,
    /// The address of ours that it was sent to, where the kernel tells.
    pub destination: Option<IpAddr>,
    /// Whether it was longer than there was room.
    pub truncated: bool,
}

/// The layout of a basket. Every part is plain numbers, so that the zeroes of fresh memory are a valid, empty one. The
/// counts are atomic because the next worker must find them in the order in which this one wrote them.
#[repr(C)]
struct Shared {
    /// The messages received in the current batch, once the kernel has said so.
    received: AtomicU32,
    /// Whether `recvmmsg` may have been under way.
    receiving: AtomicU32,
    /// How many of the replies that wait here have gone.
    sent: AtomicU32,
    /// While `sendmmsg` may be under way: one more than `sent` was when it began.
    sending: AtomicU32,
    /// A [`Place`]: behind what was taken in hand.
    taken: AtomicU32,
    /// A [`Progress`]: what was done with, less than taken while one is in hand, and the replies to that.
    done: AtomicU64,
    incoming: [libc::mmsghdr; BATCH],
    outgoing: [libc::mmsghdr; BATCH],
    envelopes: [Envelope; BATCH],
    answers: [Answer; BATCH],
    parts: [libc::iovec; BATCH],
    bodies: [u8; ROOM],
    payloads: [[u8; STRIDE]; BATCH],
}

/// The parts of one message that its header points to.
#[repr(C)]
struct Envelope {
    part: libc::iovec,
    name: RawAddr,
    control: Control,
}

/// Replies that may leave as one message. All of them are of one length, but for the last, which may be shorter.
#[repr(C)]
struct Answer {
    /// The received message that they go to the sender of.
    message: u32,
    /// Where in `bodies` they are.
    offset: u32,
    /// The length of each.
    size: u32,
    /// The length of all. Of the last answer it is in [`Progress`].
    length: u32,
    /// Whether they leave one by one, since together they were refused.
    apart: u32,
    /// The bytes of `control` that a single reply needs; more of them have one message more there.
    control_length: u32,
    control: Control,
}

/// Somewhere among the received messages: which one, and how many of its bytes are before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    message: u16,
    offset: u16,
}

/// How far a worker has come. It is one number in the basket, so that a datagram is done with and its reply is there, or
/// neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    place: Place,
    /// How many answers there are.
    answers: u16,
    /// The length of the last.
    length: u16,
}

/// What the datagrams of one message have in common.
#[derive(Debug)]
struct Known {
    message: usize,
    source: Option<Addr>,
    destination: Option<IpAddr>,
    /// The length of each.
    segment: usize,
    /// The control messages of a reply, and their length.
    control: Control,
    control_length: usize,
}

/// One message to be sent: replies of one answer.
struct Parcel {
    answer: usize,
    /// Where in the answer, and how long.
    start: usize,
    length: usize,
    replies: usize,
}

/// An area of control messages, as cmsg(3) lays it out.
#[derive(Clone, Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

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
        let known = Known { message: usize::MAX, ..Known::default() };
        let mut batch = Batch { shared, used: BATCH, known, local: None, refused: (usize::MAX, 0) };
        batch.shared().point();
        Ok(batch)
    }
}

impl Batch {
    /// The socket is bound to one address: that is where its datagrams are sent to and its replies leave from, and the kernel
    /// need not be asked to tell (IP_PKTINFO), which costs time for each message.
    pub fn bound_to(&mut self, local: IpAddr) {
        self.local = Some(local);
    }

    /// Takes stock of what the worker before left: `true` when it had a datagram in hand, which is now lost.
    pub fn recover(&mut self) -> bool {
        let shared = self.shared();
        if shared.receiving.swap(0, SeqCst) != 0 {
            // The kernel fills the batch in order, and notes each message's length last.
            shared.received.store(touched(&shared.incoming) as u32, SeqCst);
        }
        if let Some(from) = shared.sending.swap(0, SeqCst).checked_sub(1) {
            let tried: Vec<_> = shared.parcels(from as usize).map(|parcel| parcel.replies).collect();
            let gone = touched(&shared.outgoing[..tried.len()]);
            shared.sent.store(from + tried[..gone].iter().sum::<usize>() as u32, SeqCst);
        }
        shared.begin_anew_when_all_are_sent();
        let (taken, done) = (shared.taken(), shared.done());
        let lost = taken > done.place;
        if lost {
            shared.done.store(Progress { place: taken, ..done }.into(), SeqCst);
        }
        lost
    }

    /// Whether nothing is left in it, neither to handle nor to send.
    pub fn is_empty(&self) -> bool {
        // SAFETY: the mapping is as in `mapped`, and `&self` keeps it from being changed meanwhile; only read here.
        let shared = unsafe { self.shared.as_ref() };
        let done = shared.done();
        usize::from(done.place.message) >= shared.received() && done.answers == 0
    }

    /// Receives a batch, when the last one is handled and its replies are sent. Does not wait.
    ///
    /// # Errors
    /// EAGAIN when nothing has come; what the network reports of earlier replies (ECONNREFUSED).
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        fault::point("recvmmsg")?;
        self.known.message = usize::MAX;
        let used = std::mem::replace(&mut self.used, BATCH);
        let shared = self.shared();
        for header in &mut shared.incoming[..used] {
            header.msg_len = UNTOUCHED;
            header.msg_hdr.msg_namelen = RawAddr::ROOM as u32;
            header.msg_hdr.msg_controllen = CONTROL;
        }
        // In this order there is no moment at which a worker that died would leave something to handle or to send.
        shared.received.store(0, SeqCst);
        shared.taken.store(0, SeqCst);
        shared.done.store(0, SeqCst);
        shared.receiving.store(1, SeqCst);
        let (headers, room) = (shared.incoming.as_mut_ptr(), BATCH as u32);
        // SAFETY: each of the `room` headers names parts of the basket with their true lengths (`Shared::point` and
        // above), and the basket stays mapped for as long as this process lives (recvmmsg(2)).
        let got = check(unsafe {
            libc::recvmmsg(socket.as_fd().as_raw_fd(), headers, room, libc::MSG_DONTWAIT, ptr::null_mut())
        });
        let count = got.as_ref().map_or(0, |n| n.unsigned_abs());
        shared.received.store(count, SeqCst);
        shared.receiving.store(0, SeqCst);
        self.used = count as usize;
        got.map(|n| n as usize)
    }

    /// The next datagram to handle, which is in hand until [`Batch::done`]; `None` when all are handled, or when there is
    /// no room for another reply before some are sent.
    pub fn take(&mut self) -> Option<Received<'_>> {
        let shared = mapped(&mut self.shared);
        let done = shared.done();
        let (at, from) = (usize::from(done.place.message), usize::from(done.place.offset));
        if at >= shared.received() || !shared.has_room(done) {
            return None;
        }
        if self.known.message != at {
            self.known = Known::new(shared, at);
        }
        let length = shared.length(at);
        let to = (from + self.known.segment).min(length);
        let is_last = to >= length;
        let behind = if is_last { Place::message(at + 1) } else { Place { offset: to as u16, ..done.place } };
        shared.taken.store(behind.into(), Release);
        Some(Received {
            payload: &shared.payloads[at][from.min(to)..to],
            source: self.known.source.as_ref(),
            destination: self.known.destination.or(self.local),
            truncated: is_last && shared.incoming[at].msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// The datagram in hand is handled; `reply`, if any, goes to its sender with the next [`Batch::send`], from the
    /// address that it was sent to. What is longer than [`LONGEST`] is cut.
    pub fn done(&mut self, reply: Option<&[u8]>) {
        let shared = mapped(&mut self.shared);
        let (taken, done) = (shared.taken(), shared.done());
        if taken <= done.place {
            return; // nothing is in hand
        }
        let mut next = Progress { place: taken, ..done };
        if let Some(reply) = reply.map(|reply| &reply[..reply.len().min(LONGEST)]) {
            let offset = shared.end_of_replies(done);
            shared.bodies[offset..offset + reply.len()].copy_from_slice(reply);
            if shared.joins(done, &self.known, reply.len(), self.refused.0) {
                next.length += reply.len() as u16;
            } else {
                shared.open(done, &self.known, offset, reply.len());
                (next.answers, next.length) = (done.answers + 1, reply.len() as u16);
                self.refused.1 = self.refused.1.saturating_sub(1);
                if self.refused.1 == 0 {
                    self.refused.0 = usize::MAX;
                }
            }
        }
        shared.done.store(next.into(), Release);
    }

    /// Sends the replies, or as many as go out at once; the others stay. Gives how many messages went. What the network
    /// will not take as one message is taken apart, and stays.
    ///
    /// # Errors
    /// EAGAIN when there is no room; otherwise what sendmsg(2) says of the first reply, which is dropped.
    pub fn send(&mut self, socket: impl AsFd) -> io::Result<usize> {
        fault::point("sendmmsg")?;
        let shared = self.shared();
        let from = shared.sent.load(SeqCst);
        let mut replies = [0u16; BATCH];
        let count = shared.pack(from as usize, &mut replies);
        if count == 0 {
            shared.begin_anew_when_all_are_sent();
            return Ok(0);
        }
        shared.sending.store(from + 1, SeqCst);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let headers = shared.outgoing.as_mut_ptr();
        // SAFETY: each of the `count` headers names parts of the basket with their true lengths (`Shared::pack`), and
        // the basket stays mapped for as long as this process lives (sendmmsg(2)).
        let mut sent =
            check(unsafe { libc::sendmmsg(socket.as_fd().as_raw_fd(), headers, count as u32, flags) });
        let gone = match &sent {
            Ok(sent) => *sent as usize,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => 0,
            Err(why) if replies[0] > 1 => {
                let together = shared.parcels(from as usize).next().map(|parcel| parcel.answer);
                let answer = &mut shared.answers[together.unwrap_or_default()];
                answer.apart = 1;
                // A packet longer than the network has room for, or a device that does not do this: udp(7).
                if matches!(why.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE)) {
                    self.refused = (answer.size as usize, FORGET);
                }
                sent = Ok(0);
                0
            }
            Err(_) => 1,
        };
        let shared = self.shared();
        let gone: u32 = replies[..gone].iter().map(|replies| u32::from(*replies)).sum();
        shared.sent.store(from + gone, SeqCst);
        shared.begin_anew_when_all_are_sent();
        shared.sending.store(0, SeqCst);
        sent.map(|n| n as usize)
    }

    fn shared(&mut self) -> &mut Shared {
        mapped(&mut self.shared)
    }
}

/// The memory of the one batch that holds this pointer.
fn mapped(shared: &mut NonNull<Shared>) -> &mut Shared {
    // SAFETY: the mapping is as large as `Shared`, page-aligned, of plain numbers only, and lives as long as the
    // process; no other process maps it (`Basket::open` is called after the worker before was waited for), and in this
    // one only the pointer of its `Batch` leads to it, which is borrowed for as long.
    unsafe { shared.as_mut() }
}

impl Shared {
    /// Has all headers of received messages point to their parts, in the process that has just mapped them.
    fn point(&mut self) {
        for (i, header) in self.incoming.iter_mut().enumerate() {
            let envelope = &mut self.envelopes[i];
            envelope.part.iov_base = self.payloads[i].as_mut_ptr().cast();
            envelope.part.iov_len = LONGEST;
            header.msg_hdr.msg_name = envelope.name.bytes.as_mut_ptr().cast();
            header.msg_hdr.msg_iov = &mut envelope.part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = envelope.control.0.as_mut_ptr().cast();
        }
    }

    fn received(&self) -> usize {
        (self.received.load(Acquire) as usize).min(BATCH)
    }

    fn taken(&self) -> Place {
        self.taken.load(Acquire).into()
    }

    fn done(&self) -> Progress {
        let done = Progress::from(self.done.load(Acquire));
        Progress { answers: done.answers.min(BATCH as u16), ..done }
    }

    /// How many bytes a received message has.
    fn length(&self, message: usize) -> usize {
        (self.incoming[message].msg_len as usize).min(LONGEST)
    }

    /// Whether there is room for one more reply, however long.
    fn has_room(&self, done: Progress) -> bool {
        usize::from(done.answers) < BATCH && self.end_of_replies(done) + LONGEST <= ROOM
    }

    /// Where in `bodies` the next reply goes.
    fn end_of_replies(&self, done: Progress) -> usize {
        let last = usize::from(done.answers).checked_sub(1);
        last.map_or(0, |last| self.answers[last].offset as usize + usize::from(done.length))
    }

    /// Whether a reply of so many bytes may leave with those before it.
    fn joins(&self, done: Progress, known: &Known, length: usize, refused: usize) -> bool {
        let Some(last) = usize::from(done.answers).checked_sub(1) else { return false };
        let (answer, whole) = (&self.answers[last], usize::from(done.length));
        let (size, of) = (answer.size as usize, answer.message as usize);
        let fits = (1..=size).contains(&length)
            && whole.is_multiple_of(size)
            && whole / size < SEGMENTS
            && whole + length <= TOGETHER;
        fits && answer.apart == 0
            && size < refused
            && matches!(known.source, Some(Addr::Inet(_)))
            && (of == known.message || self.is_same_peer(answer, known))
    }

    /// Whether replies to a message go the same way as those of an answer.
    fn is_same_peer(&self, answer: &Answer, known: &Known) -> bool {
        let control = &known.control.0[..known.control_length];
        self.name(answer.message as usize) == self.name(known.message)
            && answer.control.0.get(..answer.control_length as usize) == Some(control)
    }

    fn name(&self, message: usize) -> &[u8] {
        let length = (self.incoming[message].msg_hdr.msg_namelen as usize).min(RawAddr::ROOM);
        &self.envelopes[message].name.bytes[..length]
    }

    /// Begins another answer; it counts when the progress says so.
    fn open(&mut self, done: Progress, known: &Known, offset: usize, size: usize) {
        let next = usize::from(done.answers);
        if let Some(last) = next.checked_sub(1) {
            self.answers[last].length = done.length.into();
        }
        let answer = &mut self.answers[next];
        answer.message = known.message as u32;
        (answer.offset, answer.size, answer.apart) = (offset as u32, size as u32, 0);
        answer.control_length = known.control_length as u32;
        answer.control.0[..known.control_length].copy_from_slice(&known.control.0[..known.control_length]);
        let segment = (size as u16).to_ne_bytes();
        answer.control.put(known.control_length, libc::SOL_UDP, libc::UDP_SEGMENT, &segment);
    }

    /// The messages that replies are sent in, from the reply of this number on.
    fn parcels(&self, from: usize) -> impl Iterator<Item = Parcel> {
        parcels(&self.answers, self.done(), from)
    }

    /// Writes the headers of what is to be sent next, and how many replies each of them has; gives how many there are.
    fn pack(&mut self, from: usize, replies: &mut [u16; BATCH]) -> usize {
        let mut count = 0;
        for parcel in parcels(&self.answers, self.done(), from) {
            let answer = &self.answers[parcel.answer];
            let of = (answer.message as usize).min(BATCH - 1);
            let begin = (answer.offset as usize + parcel.start).min(ROOM - LONGEST);
            let part = &mut self.parts[count];
            part.iov_base = self.bodies[begin..].as_mut_ptr().cast();
            part.iov_len = parcel.length;
            let segments = if parcel.replies > 1 { Control::space(size_of::<u16>()) } else { 0 };
            let control = (answer.control_length as usize + segments).min(CONTROL);
            let header = &mut self.outgoing[count];
            header.msg_len = UNTOUCHED;
            header.msg_hdr.msg_name = self.envelopes[of].name.bytes.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = self.incoming[of].msg_hdr.msg_namelen.min(RawAddr::ROOM as u32);
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = answer.control.0.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_controllen = control;
            replies[count] = parcel.replies as u16;
            count += 1;
        }
        count
    }

    /// When no reply waits any more, there is room for as many again.
    fn begin_anew_when_all_are_sent(&mut self) {
        if self.parcels(self.sent.load(SeqCst) as usize).next().is_none() {
            // In this order: replies without a count of those that have gone would be sent again.
            let place = self.done().place;
            self.done.store(Progress { place, answers: 0, length: 0 }.into(), SeqCst);
            self.sent.store(0, SeqCst);
        }
    }
}

impl Place {
    fn message(message: usize) -> Place {
        Place { message: message as u16, offset: 0 }
    }
}

impl From<u32> for Place {
    fn from(number: u32) -> Place {
        Place { message: (number >> 16) as u16, offset: number as u16 }
    }
}

impl From<Place> for u32 {
    fn from(place: Place) -> u32 {
        u32::from(place.message) << 16 | u32::from(place.offset)
    }
}

impl From<u64> for Progress {
    fn from(number: u64) -> Progress {
        let (answers, length) = ((number >> 16) as u16, number as u16);
        Progress { place: Place::from((number >> 32) as u32), answers, length }
    }
}

impl From<Progress> for u64 {
    fn from(progress: Progress) -> u64 {
        let Progress { place, answers, length } = progress;
        u64::from(u32::from(place)) << 32 | u64::from(answers) << 16 | u64::from(length)
    }
}

impl Known {
    /// Looks at a message that was received.
    fn new(shared: &Shared, message: usize) -> Known {
        let (header, envelope) = (&shared.incoming[message].msg_hdr, &shared.envelopes[message]);
        let source = RawAddr { length: header.msg_namelen, ..envelope.name }.get();
        let mut known = Known {
            message,
            source: source.filter(|addr| *addr != Addr::Unnamed),
            segment: LONGEST,
            ..Known::default()
        };
        let mut interface = 0;
        for (level, kind, data) in envelope.control.messages(header.msg_controllen) {
            match (level, kind) {
                // struct in_pktinfo: interface, local address, address in the header (ip(7)).
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let ip: Option<&[u8; 4]> = data.last_chunk();
                    known.destination = ip.map(|ip| IpAddr::V4(Ipv4Addr::from(*ip)));
                }
                // struct in6_pktinfo: address, interface (ipv6(7)).
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let ip: Option<&[u8; 16]> = data.first_chunk();
                    known.destination = ip.map(|ip| IpAddr::V6(Ipv6Addr::from(*ip)));
                    interface = data.last_chunk().map_or(0, |number| u32::from_ne_bytes(*number));
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = data.first_chunk().map_or(0, |size| i32::from_ne_bytes(*size));
                    known.segment = usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(LONGEST);
                }
                _ => {}
            }
        }
        known.control_length = known.control.put_source(known.destination, interface);
        known
    }
}

impl Default for Known {
    fn default() -> Known {
        Known {
            message: 0,
            source: None,
            destination: None,
            segment: LONGEST,
            control: Control([0; CONTROL]),
            control_length: 0,
        }
    }
}

impl Control {
    /// Where the data of a control message begins.
    const HEAD: usize = size_of::<libc::cmsghdr>();

    /// The room that a control message takes with so many bytes of data: CMSG_SPACE in cmsg(3).
    const fn space(data: usize) -> usize {
        (Control::HEAD + data).next_multiple_of(size_of::<usize>())
    }

    /// Level, type and data of each of the control messages in the first `length` bytes.
    fn messages(&self, length: usize) -> impl Iterator<Item = (i32, i32, &[u8])> {
        let mut rest = &self.0[..length.min(CONTROL)];
        iter::from_fn(move || {
            let length = usize::from_ne_bytes(*rest.first_chunk()?);
            let data = rest.get(Control::HEAD..length)?;
            let number = |at: usize| Some(i32::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
            let (level, kind) = (number(size_of::<usize>())?, number(size_of::<usize>() + 4)?);
            rest = rest.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
            Some((level, kind, data))
        })
    }

    /// Writes a control message; gives where the next one goes.
    fn put(&mut self, at: usize, level: i32, kind: i32, data: &[u8]) -> usize {
        let length = Control::HEAD + data.len();
        let parts = [&length.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data];
        let mut to = at;
        for part in parts {
            self.0[to..to + part.len()].copy_from_slice(part);
            to += part.len();
        }
        at + Control::space(data.len())
    }

    /// Writes what makes a message leave from this address; gives its length, 0 where it is not known.
    fn put_source(&mut self, from: Option<IpAddr>, interface: u32) -> usize {
        match from {
            None => 0,
            Some(IpAddr::V4(ip)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                self.put(0, libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
            }
            Some(IpAddr::V6(ip)) => {
                // A link-local address means nothing without its interface; any other is looked up by the route.
                let interface = if ip.is_unicast_link_local() { interface } else { 0 };
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                info[16..].copy_from_slice(&interface.to_ne_bytes());
                self.put(0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
            }
        }
    }
}

/// Sends one datagram to `to`, leaving from `from` where that is known. Does not wait.
///
/// # Errors
/// EAGAIN when there is no room, and what the network says: sendmsg(2).
pub fn send_from(socket: impl AsFd, bytes: &[u8], to: &Addr, from: Option<IpAddr>) -> io::Result<()> {
    fault::point("sendmsg")?;
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let (mut name, mut control) = (RawAddr::new(to)?, Control([0; CONTROL]));
    let scope = if let Addr::Inet(std::net::SocketAddr::V6(v6)) = to { v6.scope_id() } else { 0 };
    let message = libc::msghdr {
        msg_name: name.bytes.as_mut_ptr().cast(),
        msg_namelen: name.length,
        msg_iov: &mut part,
        msg_iovlen: 1,
        msg_controllen: control.put_source(from, scope),
        msg_control: control.0.as_mut_ptr().cast(),
        msg_flags: 0,
    };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `message` names `bytes`, an address and a control area, all alive here, with their true lengths.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &message, flags) };
    check(sent as libc::c_int).map(drop)
}

/// Waits until one of the two can be read; says which. Asks for no memory, unlike [`crate::fd::wait_readable`].
///
/// # Errors
/// EINTR, ENOMEM: poll(2).
pub fn wait_for_either(fds: [BorrowedFd<'_>; 2]) -> io::Result<[bool; 2]> {
    fault::point("poll")?;
    let mut polls = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    rustix::event::poll(&mut polls, None)?;
    Ok(polls.map(|poll| !poll.revents().is_empty()))
}

/// The messages that replies are sent in, at most a batch of them, from the reply of this number on.
fn parcels(answers: &[Answer; BATCH], done: Progress, from: usize) -> impl Iterator<Item = Parcel> {
    let all = usize::from(done.answers);
    let parcels = answers[..all].iter().enumerate().flat_map(move |(at, answer)| {
        let last = at + 1 == all;
        let length = if last { usize::from(done.length) } else { (answer.length as usize).min(LONGEST) };
        let replies = length.div_ceil(answer.size.max(1) as usize).max(1);
        let (pieces, step) = if answer.apart != 0 { (replies, answer.size as usize) } else { (1, length) };
        (0..pieces).map(move |piece| Parcel {
            answer: at,
            start: piece * step,
            length: step.min(length - piece * step),
            replies: replies / pieces,
        })
    });
    let numbered = parcels.scan(0, |number, parcel| {
        *number += parcel.replies;
        Some((*number, parcel))
    });
    numbered.skip_while(move |(number, _)| *number <= from).map(|(_, parcel)| parcel).take(BATCH)
}

/// How many messages from the first on the kernel has been through.
fn touched(headers: &[libc::mmsghdr]) -> usize {
    headers.iter().position(|header| header.msg_len == UNTOUCHED).unwrap_or(headers.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    use crate::socket::IntOption;

    fn server_at(host: &str) -> (UdpSocket, UdpSocket) {
        let (server, client) = (UdpSocket::bind(host).unwrap(), UdpSocket::bind(host).unwrap());
        let v4 = server.local_addr().unwrap().is_ipv4();
        let option = if v4 { IntOption::PACKET_INFO } else { IntOption::PACKET_INFO_V6 };
        crate::socket::set_int(&server, option, 1).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        (server, client)
    }

    fn server() -> (UdpSocket, UdpSocket) {
        server_at("127.0.0.1:0")
    }

    /// A server that receives as one message what its client has sent at once.
    fn grouping(host: &str) -> (UdpSocket, UdpSocket) {
        let (server, client) = server_at(host);
        crate::socket::set_int(&server, IntOption::GRO, 1).unwrap();
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
        assert_eq!(second.send(&server).unwrap(), 1, "both, as one message");
        assert!(second.is_empty() && !second.recover());
        let mut room = [0; 4];
        for answer in [b"A", b"D"] {
            let n = client.recv(&mut room).unwrap();
            assert_eq!(&room[..n], answer);
        }
    }

    /// Sends `bytes` at once, as datagrams of `size` each.
    fn send_in_segments(client: &UdpSocket, bytes: &[u8], size: i32) {
        crate::socket::set_int(client, IntOption::SEGMENT, size).unwrap();
        assert_eq!(client.send(bytes).unwrap(), bytes.len());
        crate::socket::set_int(client, IntOption::SEGMENT, 0).unwrap();
    }

    /// Bytes of which no two parts are alike.
    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
    }

    /// All datagrams of the batch, each answered by `answer`.
    fn handle(batch: &mut Batch, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(got) = batch.take() {
            let (bytes, answer) = (got.payload.to_vec(), answer(got.payload));
            all.push(bytes);
            batch.done(answer.as_deref());
        }
        all
    }

    fn receive_all(client: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let mut room = vec![0; LONGEST];
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        (0..count)
            .map(|_| {
                let length = client.recv(&mut room).unwrap();
                room[..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn what_was_sent_at_once_is_handed_out_one_by_one_and_answered_at_once() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (server, client) = grouping(host);
            for (length, size) in [
                (64 * 64, 64),
                (63 * 64 + 1, 64),
                (3, 1),
                (1472 * 44, 1472),
                (1472 * 43 + 9, 1472),
                (100, 99),
            ] {
                let sent = pattern(length);
                send_in_segments(&client, &sent, size);
                let mut batch = Basket::new().unwrap().open().unwrap();
                assert_eq!(batch.receive(&server).unwrap(), 1, "one message of {length} by {size}");
                let expected: Vec<_> = sent.chunks(size as usize).map(<[u8]>::to_vec).collect();
                assert_eq!(handle(&mut batch, |bytes| Some(bytes.to_vec())), expected);
                assert_eq!(batch.send(&server).unwrap(), 1, "{length} by {size}");
                assert!(batch.is_empty());
                assert_eq!(receive_all(&client, expected.len()), expected);
            }
        }
    }

    #[test]
    fn replies_leave_together_up_to_a_number_and_a_length() {
        // How many replies of which length there are, and how many messages that makes.
        for (count, size, messages) in [
            (SEGMENTS - 1, 8, 1),
            (SEGMENTS, 8, 1),
            (SEGMENTS + 1, 8, 2),
            (2 * SEGMENTS, 8, 2),
            (TOGETHER / 1400, 1400, 1),
            (TOGETHER / 1400 + 1, 1400, 2),
            (7, TOGETHER / 7, 1),
            (7, TOGETHER / 7 + 1, 2),
        ] {
            let (server, client) = grouping("127.0.0.1:0");
            for _ in 0..count.div_ceil(SEGMENTS) {
                let now = SEGMENTS.min(count);
                send_in_segments(&client, &vec![0; now], 1);
            }
            let mut batch = Basket::new().unwrap().open().unwrap();
            batch.receive(&server).unwrap();
            for n in 0..count {
                batch.take().expect("so many were sent");
                batch.done(Some(&vec![n as u8; size]));
            }
            assert_eq!(batch.send(&server).unwrap(), messages, "{count} replies of {size} bytes");
            let replies = receive_all(&client, count);
            assert!(replies.iter().enumerate().all(|(n, reply)| *reply == vec![n as u8; size]));
        }
    }

    #[test]
    fn only_the_last_reply_of_a_message_is_shorter_and_none_is_empty() {
        let (server, client) = grouping("127.0.0.1:0");
        let lengths = [4, 4, 2, 2, 4, 0, 0, 5, 1];
        send_in_segments(&client, &[0; 9], 1);
        let mut batch = Basket::new().unwrap().open().unwrap();
        batch.receive(&server).unwrap();
        for length in lengths {
            batch.take().unwrap();
            batch.done(Some(&vec![7; length]));
        }
        assert_eq!(batch.send(&server).unwrap(), 6, "4 4 2, 2, 4, empty, empty, 5 1");
        let replies = receive_all(&client, lengths.len());
        assert_eq!(replies.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    }

    #[test]
    fn replies_to_different_peers_or_from_different_addresses_do_not_leave_together() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        crate::socket::set_int(&server, IntOption::PACKET_INFO, 1).unwrap();
        let port = server.local_addr().unwrap().port();
        let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        for (client, to) in [(0, 1), (1, 1), (1, 1), (1, 2), (0, 2)] {
            clients[client].send_to(&[to], (Ipv4Addr::new(127, 0, 0, to), port)).unwrap();
        }
        let mut batch = Basket::new().unwrap().open().unwrap();
        assert_eq!(batch.receive(&server).unwrap(), 5);
        handle(&mut batch, |bytes| Some(bytes.to_vec()));
        assert_eq!(batch.send(&server).unwrap(), 4);
        for (client, expected) in clients.iter().zip([&[1, 2][..], &[1, 1, 2]]) {
            for to in expected {
                let mut byte = [0];
                let (_, from) = client.recv_from(&mut byte).unwrap();
                assert_eq!((byte, from.ip()), ([*to], IpAddr::from([127, 0, 0, *to])));
            }
        }
    }

    #[test]
    fn what_the_network_will_not_take_together_leaves_one_by_one() {
        let (server, client) = grouping("127.0.0.1:0");
        // Without checksums the kernel does not cut a message into datagrams: EINVAL.
        crate::socket::set_int(&server, IntOption::NO_CHECK, 1).unwrap();
        let mut batch = Basket::new().unwrap().open().unwrap();
        let sent = pattern(64 * 10 + 3);
        for round in 0..2 {
            send_in_segments(&client, &sent, 10);
            batch.receive(&server).unwrap();
            handle(&mut batch, |bytes| Some(bytes.to_vec()));
            if round == 0 {
                assert_eq!(batch.send(&server).unwrap(), 0, "refused, and taken apart");
            }
            let mut messages = 0;
            while !batch.is_empty() {
                messages += batch.send(&server).unwrap();
                // Apart they are more than a batch has room for.
                handle(&mut batch, |bytes| Some(bytes.to_vec()));
            }
            assert_eq!(messages, 65, "and the next time they are not even tried together");
            let expected: Vec<_> = sent.chunks(10).map(<[u8]>::to_vec).collect();
            assert_eq!(receive_all(&client, 65), expected);
        }
    }

    #[test]
    fn a_worker_that_dies_amid_a_message_loses_the_part_in_its_hand() {
        let (server, client) = grouping("127.0.0.1:0");
        send_in_segments(&client, b"AaBbCcDdE", 2);
        send_in_segments(&client, b"xyz", 1);
        let basket = Basket::new().unwrap();
        let mut batch = basket.open().unwrap();
        assert_eq!(batch.receive(&server).unwrap(), 2);
        for (answered, in_hand) in [(b"Aa", &b"Bb"[..]), (b"Cc", b"Dd")] {
            assert_eq!(batch.take().unwrap().payload, answered);
            batch.done(Some(answered));
            assert_eq!(batch.take().unwrap().payload, in_hand);
            batch = basket.open().unwrap();
            assert!(batch.recover());
        }
        assert_eq!(handle(&mut batch, |bytes| Some(bytes.to_vec())), [&b"E"[..], b"x", b"y", b"z"]);
        assert!(!batch.recover(), "nothing is in hand");
        let mut messages = 0;
        while !batch.is_empty() {
            messages += batch.send(&server).unwrap();
            // Whatever was going on when a worker died, the next one sends what has not gone, and that once.
            batch = basket.open().unwrap();
            batch.recover();
        }
        assert_eq!(messages, 2, "Aa Cc E, x y z");
        assert_eq!(receive_all(&client, 6), [&b"Aa"[..], b"Cc", b"E", b"x", b"y", b"z"]);
    }

    #[test]
    fn more_replies_than_there_is_room_for_leave_in_between() {
        let (server, client) = grouping("127.0.0.1:0");
        let mut batch = Basket::new().unwrap().open().unwrap();
        for _ in 0..2 {
            send_in_segments(&client, &[7; SEGMENTS], 1);
        }
        batch.receive(&server).unwrap();
        let (mut handled, mut rounds, mut came) = (0, 0, 0);
        while !batch.is_empty() {
            handled += handle(&mut batch, |_| Some(vec![1; 60_000])).len();
            rounds += 1;
            while batch.send(&server).unwrap() > 0 {}
            client.set_nonblocking(true).unwrap();
            while client.recv(&mut [0; 1]).is_ok() {
                came += 1;
            }
        }
        assert_eq!(handled, 2 * SEGMENTS);
        assert!(rounds > 2, "{rounds}");
        assert!(came > 0);
    }

    #[test]
    fn replies_over_unix_sockets_are_never_put_together() {
        use std::os::unix::net::UnixDatagram;
        let (first, second) = UnixDatagram::pair().unwrap();
        for text in [b"a", b"b"] {
            first.send(text).unwrap();
        }
        let mut batch = Basket::new().unwrap().open().unwrap();
        batch.receive(&second).unwrap();
        assert_eq!(handle(&mut batch, |bytes| Some(bytes.to_vec())).len(), 2);
        assert_eq!(batch.send(&second).unwrap(), 2);
        let mut room = [0; 4];
        assert_eq!((first.recv(&mut room).unwrap(), first.recv(&mut room).unwrap()), (1, 1));
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
        assert_eq!(asked.source, Some(&Addr::Inet(client.local_addr().unwrap())));
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
