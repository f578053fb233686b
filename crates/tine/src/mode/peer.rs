//! Datagrams as connections: a worker that gives each peer, or each datagram, a connection of its own.
//!
//! A program that knows nothing of datagrams reads and writes one end of a socket pair; this worker carries between the
//! other end and the listener, whose queue it alone reads, in order. So there is no moment at which a peer's datagram
//! is refused, goes to another, or overtakes one before it, which there is when a second socket is bound and connected
//! while datagrams arrive (busybox's udpsvd says so of itself). The master takes the program's ends from a channel as it
//! takes clients from any listener: limits, environment, fork and reap are those of streams. Replies leave from the
//! address that the peer had sent to, and since every datagram passes here, idleness is known exactly.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tine_confine::{Failure, Step};
use tine_os::datagram::{Basket, Batch, LONGEST, Received, send_from};
use tine_os::ready::Ready;
use tine_os::socket::{self, Addr, Kind, RawAddr};
use tine_os::{fd, limit, pass};

use crate::handler::Datagram;
use crate::life::fork::Desk;
use crate::life::reap::Report;
use crate::life::serve::run;
use crate::mode::bench::Bench;
use crate::mode::guard::Guard;

/// How many connections one such worker keeps, those included whose child is still to be born. A datagram that would
/// begin one more is dropped, and that is told.
const CONNECTIONS_MOST: usize = 4096;

/// How it is told that datagrams were dropped: once in this time.
const TELLING: Duration = Duration::from_secs(1);

/// What to do with datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    /// A connection for each peer ends when nothing has passed for this long; `None` is a connection for each datagram.
    pub idle: Option<Duration>,
    pub guard: Guard,
}

/// The numbers under which the three fixed descriptors are watched; connections are numbered from 3 on.
const SOCKET: u64 = 0;
const LIFE: u64 = 1;
const CHANNEL: u64 = 2;

struct Worker<'a> {
    exchange: &'a Exchange,
    desk: &'a Desk,
    listener: OwnedFd,
    local: &'a Addr,
    channel: OwnedFd,
    ready: Ready,
    peers: BTreeMap<Peer, u64>,
    connections: BTreeMap<u64, Connection>,
    /// Connections that the channel has no room for yet: what the master is told of them, and the program's end.
    waiting: VecDeque<(u64, Vec<u8>, OwnedFd)>,
    idle: BTreeSet<(Instant, u64)>,
    last: u64,
    told: Option<Instant>,
    buffer: Vec<u8>,
}

/// Where datagrams come from, and where they are sent to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Peer {
    source: Addr,
    destination: Option<IpAddr>,
}

/// Our end of one pair.
struct Connection {
    peer: Peer,
    end: OwnedFd,
    used: Instant,
    /// Of a connection for one datagram: how long that was, and the reply so far.
    asked: usize,
    reply: Vec<u8>,
}

/// A worker's life: it ends when the master tells it to finish, or is gone, and its last connection has ended.
pub(crate) fn carry(bench: &Bench<'_>, channel: &OwnedFd, exchange: &Exchange) -> Failure {
    let mut batch = match Basket::new().and_then(|basket| basket.open()) {
        Ok(batch) => batch,
        Err(why) => return Step::Descriptors.failed()(why),
    };
    if let Some(ip) = bench.listener.only_address() {
        batch.bound_to(ip);
    }
    let mut fds = match bench.enter(&[channel]) {
        Ok(fds) => fds.into_iter(),
        Err(failure) => return failure,
    };
    let (Some(listener), Some(life), Some(channel)) = (fds.next(), fds.next(), fds.next()) else {
        return Step::Descriptors.failed()(io::ErrorKind::NotFound.into());
    };
    let ready = match Ready::new().and_then(|ready| {
        ready.add(&listener, SOCKET)?;
        ready.add(&life, LIFE)?;
        Ok(ready)
    }) {
        Ok(ready) => ready,
        Err(why) => return Step::Descriptors.failed()(why),
    };
    // As many descriptors as the plan lets it have; with fewer, fewer connections are kept.
    let _ = limit::raise_nofile(2 * CONNECTIONS_MOST as u64);
    bench.desk.reports.send(&Report::Begun { lost: false });
    let mut worker = Worker {
        exchange,
        desk: bench.desk,
        listener,
        local: &bench.listener.local,
        channel,
        ready,
        peers: BTreeMap::new(),
        connections: BTreeMap::new(),
        waiting: VecDeque::new(),
        idle: BTreeSet::new(),
        last: CHANNEL,
        told: None,
        buffer: vec![0; LONGEST],
    };
    run(|| {
        worker.run(&mut batch, life);
        ExitCode::SUCCESS
    })
}

impl Worker<'_> {
    fn run(&mut self, batch: &mut Batch, life: OwnedFd) {
        let (mut numbers, mut finishing) = (Vec::new(), false);
        while !finishing || !self.connections.is_empty() {
            numbers.clear();
            // Nothing to be done about a failed wait but to wait again.
            let _ = self.ready.wait(self.patience(), &mut numbers);
            for number in &numbers {
                match *number {
                    SOCKET => self.listen(batch, finishing),
                    LIFE => {
                        finishing = true;
                        let _ = self.ready.remove(&life);
                    }
                    CHANNEL => {
                        let _ = self.ready.remove(&self.channel);
                        self.announce();
                    }
                    connection => {
                        self.answer(connection);
                    }
                }
            }
            self.end_idle(Instant::now());
        }
    }

    /// Takes what has come, in the order in which it came.
    fn listen(&mut self, batch: &mut Batch, finishing: bool) {
        if batch.receive(&self.listener).is_err() {
            return;
        }
        while let Some(received) = batch.take() {
            self.deliver(&received, finishing);
            batch.done(None);
        }
    }

    fn deliver(&mut self, received: &Received<'_>, finishing: bool) {
        if received.truncated {
            self.desk.reports.send(&Report::Truncated);
        }
        let Some(source) = received.source.cloned() else { return };
        let peer = Peer { source, destination: received.destination };
        if self.exchange.idle.is_some()
            && let Some(number) = self.peers.get(&peer).copied()
            && self.hand_over(number, received.payload)
        {
            return;
        }
        if !finishing && self.may_begin(&peer, received) {
            match self.begin(peer) {
                Ok(number) => {
                    self.hand_over(number, received.payload);
                }
                Err(_) => self.tell_dropped(),
            }
        }
    }

    /// Gives a connection its next datagram; `false` when its program has gone.
    fn hand_over(&mut self, number: u64, payload: &[u8]) -> bool {
        let Some(connection) = self.connections.get_mut(&number) else { return false };
        let sent = socket::send(&connection.end, payload);
        if self.exchange.idle.is_none() {
            connection.asked = payload.len();
            // One datagram is all of the program's input, and here is its end.
            let _ = socket::shutdown(&connection.end, Shutdown::Write);
        }
        match sent {
            Ok(_) => self.touch(number),
            // A program that does not read: its queue is full, as a socket's would be, and the datagram is dropped.
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => self.tell_dropped(),
            Err(_) => {
                // What the program wrote before it ended is still to be carried.
                while self.answer(number) {}
                self.end(number);
                return false;
            }
        }
        true
    }

    /// Makes a pair, and sends the program's end to the master as a client that has arrived.
    fn begin(&mut self, peer: Peer) -> io::Result<u64> {
        if self.connections.len() >= CONNECTIONS_MOST {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let kind = if self.exchange.idle.is_some() { Kind::Packet } else { Kind::Stream };
        let (ours, theirs) = socket::pair(kind)?;
        fd::set_blocking(&ours, false)?;
        let number = self.last + 1;
        self.ready.add(&ours, number)?;
        let local = match (self.local, peer.destination) {
            (Addr::Inet(bound), Some(ip)) => Addr::Inet((ip, bound.port()).into()),
            (other, _) => other.clone(),
        };
        let message = [RawAddr::new(&peer.source)?.to_bytes(), RawAddr::new(&local)?.to_bytes()].concat();
        self.last = number;
        if self.exchange.idle.is_some() {
            self.peers.insert(peer.clone(), number);
        }
        let used = Instant::now();
        self.idle.insert((used, number));
        self.connections.insert(number, Connection { peer, end: ours, used, asked: 0, reply: Vec::new() });
        self.waiting.push_back((number, message, theirs));
        // What waits already is watched for, and comes first.
        if self.waiting.len() == 1 {
            self.announce();
        }
        Ok(number)
    }

    /// Sends programs' ends to the master, as many as the channel has room for; the others wait here until it has.
    fn announce(&mut self) {
        while let Some((number, message, theirs)) = self.waiting.front() {
            let number = *number;
            match pass::send(&self.channel, message, &[theirs.as_fd()]) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    if self.ready.add_writable(&self.channel, CHANNEL).is_ok() {
                        return;
                    }
                    self.give_up(number);
                }
                Err(_) => self.give_up(number),
                Ok(()) => drop(self.waiting.pop_front()),
            }
        }
    }

    /// The connection that is the first to wait cannot be served.
    fn give_up(&mut self, number: u64) {
        self.waiting.pop_front();
        self.end(number);
        self.tell_dropped();
    }

    /// Carries what a program has written back to its peer; `false` when there was nothing.
    fn answer(&mut self, number: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&number) else { return false };
        let received = match socket::receive(&connection.end, &mut self.buffer) {
            // The program has ended and not read all that it was given. Of records this is told before what it wrote, once.
            Err(why) if why.kind() == io::ErrorKind::ConnectionReset => {
                socket::receive(&connection.end, &mut self.buffer)
            }
            other => other,
        };
        let length = match received {
            Ok(length) => length,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => 0,
        };
        let bytes = &self.buffer[..length];
        match (length, self.exchange.idle) {
            (0, None) => self.reply(number),
            (0, Some(_)) => self.end(number),
            (_, None) => {
                let room = LONGEST - connection.reply.len();
                connection.reply.extend_from_slice(&bytes[..length.min(room)]);
            }
            (_, Some(_)) => {
                let Peer { source, destination } = &connection.peer;
                // What the network will not have is dropped, as any datagram may be.
                let _ = send_from(&self.listener, bytes, source, *destination);
                self.touch(number);
            }
        }
        true
    }

    /// All that a program wrote for one datagram is one reply.
    fn reply(&mut self, number: u64) {
        let Some(Connection { peer, asked, reply, .. }) = self.connections.get(&number) else { return };
        let payload = &self.buffer[..*asked];
        let source = Some(&peer.source);
        let asked = Datagram { payload, source, destination: peer.destination, truncated: false };
        if !reply.is_empty() && self.exchange.guard.lets(&asked, reply.len()) {
            let _ = send_from(&self.listener, reply, &peer.source, peer.destination);
        }
        self.end(number);
    }

    /// Whether a source may have a connection at all: not one that would answer the answers.
    fn may_begin(&self, peer: &Peer, received: &Received<'_>) -> bool {
        let source = Some(&peer.source);
        let Received { payload, destination, .. } = *received;
        let asked = Datagram { payload, source, destination, truncated: false };
        Guard { amplification: 0, ..self.exchange.guard }.lets(&asked, 0)
    }

    fn touch(&mut self, number: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            self.idle.remove(&(connection.used, number));
            connection.used = Instant::now();
            self.idle.insert((connection.used, number));
        }
    }

    fn end(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number) {
            self.idle.remove(&(connection.used, number));
            self.peers.remove(&connection.peer);
            // Before it is closed: the child may still hold a duplicate's other end, but this end is only ours.
            let _ = self.ready.remove(&connection.end);
        }
    }

    fn end_idle(&mut self, now: Instant) {
        let Some(most) = self.exchange.idle else { return };
        while let Some((used, number)) = self.idle.first().copied()
            && now.saturating_duration_since(used) >= most
        {
            self.end(number);
        }
    }

    fn patience(&self) -> Option<Duration> {
        let most = self.exchange.idle?;
        let (used, _) = self.idle.first()?;
        Some((*used + most).saturating_duration_since(Instant::now()))
    }

    fn tell_dropped(&mut self) {
        let now = Instant::now();
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELLING) {
            self.told = Some(now);
            self.desk.reports.send(&Report::Dropped);
        }
    }
}
