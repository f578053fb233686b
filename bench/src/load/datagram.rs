//! Datagrams: flows with so many under way each, every reply checked, what nobody answers counted as lost.
//!
//! A flow is a connected socket with places for datagrams. Each carries its place and how often the place was used, so a reply
//! that comes late or twice is known as such. Replies are read in batches (recvmmsg(2), UDP_GRO), and what became free is
//! sent again in one call: sendmmsg(2), or with `--gso` one piece that the kernel cuts (UDP_SEGMENT, udp(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};

use super::cpu::Cpu;
use super::options::Options;
use super::report::{Report, Times};
use super::target::Target;

/// After how long without a reply a datagram is lost.
const LOST: Duration = Duration::from_millis(500);

/// The most bytes that one read of coalesced datagrams brings.
const PIECE: usize = 65_536;

/// Room for replies in each socket; the kernel grants what root may have.
const BUFFER: usize = 4 << 20;

/// The most bytes that the kernel takes to cut, a little less than a datagram may have.
const CUT_MOST: usize = 65_000;

/// The most pieces that it cuts one into.
const CUTS_MOST: usize = 64;

/// Runs the flows.
///
/// # Errors
/// When it cannot run at all.
pub fn run(options: &Options) -> io::Result<Report> {
    let Target::Inet(to) = &options.to else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "datagrams go to udp://ADDRESS:PORT"));
    };
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut flows = Vec::new();
    for number in 0..options.flows {
        let flow = Flow::new(SocketAddr::V4(*to), number, options)?;
        epoll::add(&epoll, &flow.socket, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        flows.push(flow);
    }
    let mut load =
        Load { epoll, flows, report: Report::new("udp"), times: Times::default(), lost: 0, measuring: false };
    load.go(Instant::now() + options.warmup)?;
    load.times.clear();
    load.measuring = true;
    let (began, before) = (Instant::now(), Cpu::now());
    load.go(began + options.seconds)?;
    load.report.measured(began.elapsed(), &before, &Cpu::now());
    load.report.first_us = load.times.spread();
    load.report.lost = Some(load.lost);
    Ok(load.report)
}

struct Load {
    epoll: std::os::fd::OwnedFd,
    flows: Vec<Flow>,
    report: Report,
    times: Times,
    lost: u64,
    measuring: bool,
}

impl Load {
    fn go(&mut self, until: Instant) -> io::Result<()> {
        let mut events = Vec::with_capacity(self.flows.len());
        let mut look = Instant::now() + LOST;
        self.flows.iter_mut().try_for_each(Flow::send)?;
        let mut buffers = Buffers::new();
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            if now >= look {
                for flow in &mut self.flows {
                    self.lost += flow.forget(now);
                    flow.send()?;
                }
                look = now + LOST / 4;
            }
            let wait = look.min(until) - now;
            let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
            for event in &events {
                let data = event.data;
                let flow = &mut self.flows[data.u64() as usize];
                let right = flow.receive(&mut buffers, &mut self.report, &mut self.times)?;
                self.report.checked += right;
                self.report.done += if self.measuring { right } else { 0 };
                flow.send()?;
            }
        }
    }
}

/// Where replies are read to, for all flows one after the other.
struct Buffers {
    bytes: Vec<Vec<u8>>,
}

impl Buffers {
    fn new() -> Buffers {
        Buffers { bytes: (0..BATCH_SIZE).map(|_| vec![0; PIECE]).collect() }
    }
}

/// A place for one datagram under way.
#[derive(Clone, Copy)]
struct Place {
    /// How often it was used.
    turn: u32,
    sent: Option<Instant>,
}

struct Flow {
    socket: UdpSocket,
    state: UdpSocketState,
    to: SocketAddr,
    number: u32,
    size: usize,
    gso: bool,
    places: Vec<Place>,
    free: Vec<u32>,
    bytes: Vec<u8>,
}

impl Flow {
    fn new(to: SocketAddr, number: usize, options: &Options) -> io::Result<Flow> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(to)?;
        // As root without asking the limit, else as much as there is.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
        }
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        if options.gso && state.max_gso_segments() < 2 {
            return Err(io::Error::other("this kernel has no UDP_SEGMENT"));
        }
        let count = options.in_flight;
        Ok(Flow {
            socket,
            state,
            to,
            number: number as u32,
            size: options.size as usize,
            gso: options.gso,
            places: vec![Place { turn: 0, sent: None }; count as usize],
            free: (0..count).collect(),
            bytes: Vec::new(),
        })
    }

    /// Sends a datagram from each free place.
    fn send(&mut self) -> io::Result<()> {
        if self.free.is_empty() {
            return Ok(());
        }
        self.bytes.clear();
        let now = Instant::now();
        for &at in &self.free {
            let place = &mut self.places[at as usize];
            place.turn = place.turn.wrapping_add(1);
            place.sent = Some(now);
            write(&mut self.bytes, self.number, at, place.turn, self.size);
        }
        self.free.clear();
        if self.gso {
            let most = (CUT_MOST / self.size).min(CUTS_MOST) * self.size;
            self.bytes.chunks(most).try_for_each(|piece| self.send_piece(piece))
        } else {
            self.send_each()
        }
    }

    fn send_piece(&self, piece: &[u8]) -> io::Result<()> {
        let segment_size = (piece.len() > self.size).then_some(self.size);
        let transmit =
            Transmit { destination: self.to, ecn: None, contents: piece, segment_size, src_ip: None };
        match self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            // What the kernel has no room for is lost, as any datagram may be.
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    fn send_each(&self) -> io::Result<()> {
        let slices: Vec<[IoSlice<'_>; 1]> =
            self.bytes.chunks(self.size).map(|bytes| [IoSlice::new(bytes)]).collect();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
            slices.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<MMsgHdr<'_>> =
            slices.iter().zip(&mut controls).map(|(slice, control)| MMsgHdr::new(slice, control)).collect();
        let mut from = 0;
        while from < messages.len() {
            match sendmmsg(&self.socket, &mut messages[from..], SendFlags::DONTWAIT) {
                Ok(0) | Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(()),
                Ok(sent) => from += sent,
                Err(Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }

    /// Reads one batch of replies; gives how many were right.
    fn receive(&mut self, buffers: &mut Buffers, report: &mut Report, times: &mut Times) -> io::Result<u64> {
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = {
            let mut bytes = buffers.bytes.iter_mut();
            std::array::from_fn(|_| IoSliceMut::new(bytes.next().expect("there are as many")))
        };
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let count = match self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut meta) {
            Ok(count) => count,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
                report.error("refused");
                return Ok(0);
            }
            Err(why) => return Err(why),
        };
        let now = Instant::now();
        let mut right = 0;
        for (slice, meta) in slices.iter().zip(&meta[..count]) {
            for reply in slice[..meta.len].chunks(meta.stride.max(1)) {
                match read(reply, self.number, self.size) {
                    Some((at, turn)) => {
                        let Some(place) = self.places.get_mut(at as usize) else {
                            report.error("wrong_reply");
                            continue;
                        };
                        match place.sent {
                            Some(sent) if place.turn == turn => {
                                times.note(now - sent);
                                place.sent = None;
                                self.free.push(at);
                                right += 1;
                            }
                            // It was given up before.
                            _ => report.error("late_or_twice"),
                        }
                    }
                    None => report.error("wrong_reply"),
                }
            }
        }
        Ok(right)
    }

    /// Gives up what was sent too long ago; gives how many these are.
    fn forget(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        for (at, place) in self.places.iter_mut().enumerate() {
            if place.sent.is_some_and(|sent| now - sent > LOST) {
                place.sent = None;
                self.free.push(at as u32);
                lost += 1;
            }
        }
        lost
    }
}

/// A datagram: flow, place, turn, and bytes that follow from these.
fn write(to: &mut Vec<u8>, flow: u32, place: u32, turn: u32, size: usize) {
    let end = to.len() + size;
    to.extend_from_slice(&flow.to_be_bytes());
    to.extend_from_slice(&place.to_be_bytes());
    to.extend_from_slice(&turn.to_be_bytes());
    to.resize(end, filling(place, turn));
}

/// Place and turn of a reply, if every byte of it is right.
fn read(reply: &[u8], flow: u32, size: usize) -> Option<(u32, u32)> {
    let number = |at: usize| reply.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let (place, turn) = (number(4)?, number(8)?);
    let filling = filling(place, turn);
    let right = reply.len() == size && number(0)? == flow && reply[12..].iter().all(|byte| *byte == filling);
    right.then_some((place, turn))
}

fn filling(place: u32, turn: u32) -> u8 {
    (place ^ turn) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_right_only_when_every_byte_is() {
        let mut bytes = Vec::new();
        write(&mut bytes, 3, 17, 9, 64);
        assert_eq!(read(&bytes, 3, 64), Some((17, 9)));
        assert_eq!(read(&bytes, 4, 64), None);
        assert_eq!(read(&bytes[..63], 3, 64), None);
        for at in 0..64 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            assert_ne!(read(&bytes, 3, 64), Some((17, 9)), "{at}");
        }
    }
}
