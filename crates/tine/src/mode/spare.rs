//! Spares: children that were born, set up and confined before their client came, and wait for it.
//!
//! The master accepts and admits as ever, and then sends the connection down the line of the spare that has waited longest,
//! with what a child must know of its client. A spare hears of one client and of no other, unless it was asked for by name
//! that children serve several ([`Server::clients_per_child`](crate::Server::clients_per_child)): then it says when it is done
//! with one, and is a spare again. When its line breaks, because it is not needed any more or the master is gone, it ends.
//!
//! Nothing that an author wrote runs in it while it could reach anything of the master's: it has closed all that is the
//! master's before it waits, the listeners first of all. How many there are is decided in `mode/stock.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use tine_confine::{Failure, Step};
use tine_os::fork::exit;
use tine_os::identity::Credentials;
use tine_os::socket::{self, Addr, Kind, RawAddr};
use tine_os::spawn::With;
use tine_os::wait::Usage;
use tine_os::{Pid, fd, orphan, pass};

use crate::addr::Transport;
use crate::life::admit::Rules;
use crate::life::fork::{Desk, Workplace, fork};
use crate::life::reap::Report;
use crate::life::serve::Service;
use crate::life::tree::Branch;
use crate::mode::cell::Cell;
use crate::mode::stock::{Spares, Stock};
use crate::mode::template::{Birthplace, Order, Particulars, Template, Told};
use crate::peer::Peer;
use crate::program::Client;

/// A child that waits for its client.
#[derive(Debug)]
pub(crate) struct Spare {
    pub pid: Pid,
    pub branch: Branch,
    /// What tells it from all children that are alive at the same time.
    pub slot: u32,
    /// The pid namespace that it was born into, where that was there before.
    pub cell: Option<Cell>,
    pub born: Instant,
    /// Down which its client comes; it ends when this is dropped.
    pub line: OwnedFd,
}

/// All that wait, the oldest first, and those that were told to go.
#[derive(Debug)]
pub(crate) struct Parked {
    pub stock: Stock,
    waiting: VecDeque<Spare>,
    leaving: BTreeMap<Pid, Leaving>,
    /// How many clients a child serves, one after the other.
    clients: usize,
}

/// One that waits for nobody any more.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub branch: Branch,
    pub slot: u32,
    pub cell: Option<Cell>,
    /// Whether it was sent away; or else it could not be reached.
    pub sent: bool,
    /// When it is killed, if it was not yet.
    until: Option<Instant>,
}

/// How long one that was sent away may take to go: it may be in an author's `prepare`, and never come back from there.
const LEAVE: Duration = Duration::from_secs(2);

/// What a spare is told of its client.
#[derive(Debug)]
pub(crate) struct Handover {
    pub peer: Peer,
    pub local: Addr,
    pub transport: Transport,
    pub from_same: usize,
    pub cookie: u64,
}

/// What a spare finds when it is born.
pub(crate) struct Bed {
    /// Whether it inherits the orphans of what it starts.
    inherits: bool,
    slot: u32,
    born: Instant,
    /// How many clients it serves.
    pub clients: usize,
    line: OwnedFd,
}

/// What a child says of a client that it is done with, when it serves several: gossip, and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub status: u8,
    pub user: Duration,
    pub system: Duration,
}

impl Parked {
    pub(crate) fn new(spares: Spares, clients: usize) -> Parked {
        Parked { stock: Stock::new(spares), waiting: VecDeque::new(), leaving: BTreeMap::new(), clients }
    }

    /// Whether children serve several clients, one after the other.
    pub(crate) fn are_used_again(&self) -> bool {
        self.clients > 1
    }

    /// One is done with its client, and waits for another if there are not too many.
    pub(crate) fn returns(&mut self, spare: Spare) {
        if self.waiting.len() < self.stock.most() {
            self.waiting.push_back(spare);
        } else {
            self.leaves(spare, true);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none is left, not even one that is leaving.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.leaving.is_empty()
    }

    pub(crate) fn has(&self, pid: Pid) -> bool {
        self.leaving.contains_key(&pid) || self.waiting.iter().any(|spare| spare.pid == pid)
    }

    /// Has one born, in the master, by a template where there is one. It waits here when it is put among those who do
    /// ([`Parked::park`]); its line is what is given beside it.
    ///
    /// # Errors
    /// What socketpair(2) and fork(2) say.
    pub(crate) fn make(
        &self,
        workplace: &Workplace,
        (rules, branch, slot): (&Rules, Branch, u32),
        born: Instant,
        (template, cell): (Option<&Template>, Option<&Cell>),
        service: &mut dyn Service,
    ) -> io::Result<(Told, OwnedFd)> {
        let (line, theirs) = socket::pair(Kind::Packet)?;
        let theirs = fd::duplicate_low(theirs)?;
        let (clients, inherits) = (self.clients, workplace.trees.inherits(branch));
        let group = workplace.trees.group(branch);
        let told = match template {
            Some(template) => {
                let with = Particulars { slot, inherits, born };
                let place = Birthplace { group, cell };
                template.bear(Order::Spare { clients }, with, &[theirs.as_fd()], place)?
            }
            None => {
                let child = fork(&workplace.desk, With { group, ..With::default() }, move |desk| {
                    service.park(desk, rules, Bed::new(theirs, (inherits, slot), born, clients))
                })?;
                Told { child: Ok(child), cell: None }
            }
        };
        Ok((told, line))
    }

    /// One more waits.
    pub(crate) fn park(&mut self, spare: Spare) {
        self.waiting.push_back(spare);
    }

    /// Hands a client to the one that has waited longest; one that cannot be reached any more is passed over. `None` when
    /// there is none.
    pub(crate) fn hand_over(&mut self, client: BorrowedFd<'_>, handover: &Handover) -> Option<Spare> {
        let message = handover.to_bytes().ok()?;
        while let Some(spare) = self.waiting.pop_front() {
            match pass::send(&spare.line, &message, &[client]) {
                Ok(()) => return Some(spare),
                // It has died, and that is heard of in its turn.
                Err(_) => self.leaves(spare, false),
            }
        }
        None
    }

    /// Sends those away that have waited for too long.
    pub(crate) fn renew(&mut self, now: Instant) {
        while let Some(oldest) = self.waiting.front()
            && self.stock.stale_at(oldest.born) <= now
            && let Some(spare) = self.waiting.pop_front()
        {
            self.stock.renews();
            self.leaves(spare, true);
        }
    }

    /// Sends all away.
    pub(crate) fn dismiss(&mut self) {
        while let Some(spare) = self.waiting.pop_front() {
            self.leaves(spare, true);
        }
    }

    /// Those who are not gone yet, with their places.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = (Pid, Branch)> {
        self.leaving.iter().map(|(pid, leaving)| (*pid, leaving.branch))
    }

    /// One that should have gone by now, once.
    pub(crate) fn next_late(&mut self, now: Instant) -> Option<(Pid, Branch)> {
        let late = |leaving: &Leaving| leaving.until.is_some_and(|until| until <= now);
        let (pid, leaving) = self.leaving.iter_mut().find(|(_, leaving)| late(leaving))?;
        leaving.until = None;
        Some((*pid, leaving.branch))
    }

    /// A child has ended: what it had, if it was one of these.
    pub(crate) fn ended(&mut self, pid: Pid) -> Option<Leaving> {
        self.leaving.remove(&pid).or_else(|| {
            let at = self.waiting.iter().position(|spare| spare.pid == pid)?;
            let Spare { branch, slot, cell, .. } = self.waiting.remove(at)?;
            Some(Leaving { branch, slot, cell, sent: false, until: None })
        })
    }

    /// When one has waited or stayed for too long, or another may be made again.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        let stale = self.waiting.front().map(|oldest| self.stock.stale_at(oldest.born));
        let late = self.leaving.values().filter_map(|leaving| leaving.until);
        let calm = self.stock.calm_at(self.waiting.len(), now);
        stale.into_iter().chain(self.stock.until(now)).chain(calm).chain(late).min()
    }

    /// Its line breaks with it.
    pub(crate) fn leaves(&mut self, Spare { pid, branch, slot, cell, .. }: Spare, sent: bool) {
        self.leaving.insert(pid, Leaving { branch, slot, cell, sent, until: Some(Instant::now() + LEAVE) });
    }
}

impl Bed {
    pub(crate) fn new(line: OwnedFd, (inherits, slot): (bool, u32), born: Instant, clients: usize) -> Bed {
        Bed { inherits, slot, born, clients, line }
    }

    /// In a spare: gives up what its plan says, with `fds` in the places 0, 1, 2 ..., and tells that it is ready. What it can
    /// reach after that is its line, and the way to report.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn enter(&self, desk: &Desk, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        desk.begin((self.inherits, self.slot), fds, &[self.line.as_fd()])?;
        desk.let_go(fds.len(), &[self.line.as_fd()]).map_err(Step::Descriptors.failed())?;
        desk.reports.send(&Report::Ready(self.born.elapsed()));
        Ok(())
    }

    /// In a spare that runs code of an author: the way to report is closed too.
    ///
    /// # Errors
    /// As [`crate::life::fork::Desk::settle`].
    pub(crate) fn settle(&self, desk: &Desk, placed: usize) -> Result<(), Failure> {
        desk.settle(placed, &[self.line.as_fd()]).map_err(Step::Descriptors.failed())
    }

    /// In a spare: waits for its client. The process ends when there is none to come.
    ///
    /// # Errors
    /// When the line does not work.
    pub(crate) fn wait(&self) -> Result<(OwnedFd, Handover), Failure> {
        let (mut bytes, mut fds) = ([0; Handover::LENGTH], Vec::with_capacity(1));
        let length = pass::await_one(&self.line, &mut bytes, &mut fds).map_err(Step::Client.failed())?;
        if length == 0 {
            exit(0);
        }
        let told = Handover::from_bytes(&bytes[..length]);
        fds.pop().zip(told).ok_or_else(|| Step::Client.failed()(io::ErrorKind::InvalidData.into()))
    }

    /// In a child that serves several: says that it is done with this one, and what that took. `false`: it had better end,
    /// because it has started something that still runs, or cannot say so.
    pub(crate) fn is_done(&self, status: u8, used: Usage) -> bool {
        let mut left = Vec::new();
        if !orphan::children(&mut left).is_ok_and(|()| left.is_empty()) {
            return false;
        }
        let (user, system) = (used.user, used.system);
        pass::send(&self.line, &Done { status, user, system }.to_bytes(), &[]).is_ok()
    }
}

impl Done {
    const LENGTH: usize = 1 + 8 + 8;

    /// What a child has said; `None` when that makes no sense, or it has ended.
    pub(crate) fn receive(line: &OwnedFd) -> Option<Done> {
        let mut bytes = [0; Done::LENGTH];
        let length = pass::receive(line, &mut bytes, &mut Vec::new()).ok()?;
        let (status, times) = bytes.split_first().filter(|_| length == Done::LENGTH)?;
        let micros = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| times[at + i]));
        let [user, system] = [0, 8].map(|at| Duration::from_micros(micros(at)));
        Some(Done { status: *status, user, system })
    }

    fn to_bytes(self) -> [u8; Done::LENGTH] {
        let mut bytes = [self.status; Done::LENGTH];
        bytes[1..9].copy_from_slice(&(self.user.as_micros() as u64).to_ne_bytes());
        bytes[9..].copy_from_slice(&(self.system.as_micros() as u64).to_ne_bytes());
        bytes
    }
}

impl Handover {
    /// Transport, whether there are credentials; how many of the same source, the cookie; credentials; both addresses.
    pub(crate) const LENGTH: usize = 2 + 4 + 8 + 12 + 2 * RawAddr::WIRE;

    /// That of a client that is not there, as it comes out of the line.
    pub(crate) fn of_nobody() -> Handover {
        let addr = || Addr::Inet((Ipv4Addr::UNSPECIFIED, 0).into());
        let peer = Peer { addr: addr(), credentials: None };
        let nobody = Handover { peer, local: addr(), transport: Transport::Stream, from_same: 0, cookie: 0 };
        nobody.to_bytes().ok().and_then(|bytes| Handover::from_bytes(&bytes)).unwrap_or(nobody)
    }

    /// As whoever describes the client to a program sees it.
    pub(crate) fn client(&self) -> Client<'_> {
        let Handover { peer, local, transport, from_same, cookie } = self;
        let (transport, from_same, cookie) = (*transport, *from_same, *cookie);
        Client { peer, local, transport, from_same, cookie, via: None, header: None }
    }

    pub(crate) fn to_bytes(&self) -> io::Result<[u8; Handover::LENGTH]> {
        let mut bytes = [0; Handover::LENGTH];
        let mut rest = &mut bytes[..];
        let mut put = |part: &[u8]| {
            let (place, others) = std::mem::take(&mut rest).split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = others;
        };
        let transport = match self.transport {
            Transport::Stream => 0,
            Transport::Packet => 1,
            Transport::Datagram => 2,
        };
        let who = self.peer.credentials.unwrap_or(Credentials { pid: 0, uid: 0, gid: 0 });
        put(&[transport, u8::from(self.peer.credentials.is_some())]);
        put(&u32::try_from(self.from_same).unwrap_or(u32::MAX).to_ne_bytes());
        put(&self.cookie.to_ne_bytes());
        [who.pid, who.uid, who.gid].iter().for_each(|number| put(&number.to_ne_bytes()));
        put(&RawAddr::new(&self.peer.addr)?.to_bytes());
        put(&RawAddr::new(&self.local)?.to_bytes());
        Ok(bytes)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Handover> {
        let mut rest = bytes;
        let mut take = |length: usize| rest.split_off(..length);
        let [transport, known] = take(2)?.try_into().ok()?;
        let from_same = u32::from_ne_bytes(take(4)?.try_into().ok()?) as usize;
        let cookie = u64::from_ne_bytes(take(8)?.try_into().ok()?);
        let mut number = || Some(u32::from_ne_bytes(take(4)?.try_into().ok()?));
        let (pid, uid, gid) = (number()?, number()?, number()?);
        let mut addr = || RawAddr::from_bytes(take(RawAddr::WIRE)?)?.get();
        let (peer, local) = (addr()?, addr()?);
        let transport = match transport {
            0 => Transport::Stream,
            1 => Transport::Packet,
            2 => Transport::Datagram,
            _ => return None,
        };
        let credentials = (known != 0).then_some(Credentials { pid, uid, gid });
        Some(Handover { peer: Peer { addr: peer, credentials }, local, transport, from_same, cookie })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spare_is_told_survives_the_line() {
        let inet = |text: &str| Addr::Inet(text.parse().unwrap());
        let who = Credentials { pid: 7, uid: 1000, gid: 100 };
        for (addr, credentials, transport) in [
            (inet("192.0.2.1:5"), None, Transport::Stream),
            (inet("[2001:db8::1%3]:9"), None, Transport::Stream),
            (Addr::Unnamed, Some(who), Transport::Packet),
            (Addr::Vsock { cid: 3, port: 4 }, None, Transport::Stream),
            (Addr::Path("/run/x".into()), Some(who), Transport::Datagram),
        ] {
            let peer = Peer { addr, credentials };
            let told = Handover { peer, local: inet("[::1]:80"), transport, from_same: 3, cookie: u64::MAX };
            let heard = Handover::from_bytes(&told.to_bytes().unwrap()).unwrap();
            assert_eq!(format!("{heard:?}"), format!("{told:?}"));
        }
    }

    #[test]
    fn what_a_child_says_that_is_done_survives_the_line_and_nonsense_does_not() {
        let (ours, theirs) = socket::pair(Kind::Packet).unwrap();
        let done = Done { status: 3, user: Duration::from_micros(7), system: Duration::from_secs(9) };
        pass::send(&theirs, &done.to_bytes(), &[]).unwrap();
        assert_eq!(Done::receive(&ours), Some(done));
        for nonsense in [&[1][..], &[0; Done::LENGTH - 1]] {
            pass::send(&theirs, nonsense, &[]).unwrap();
            assert_eq!(Done::receive(&ours), None);
        }
        assert_eq!(Done::receive(&ours), None, "nothing yet");
        drop(theirs);
        assert_eq!(Done::receive(&ours), None, "nobody is there");
    }

    #[test]
    fn what_is_cut_or_of_no_kind_is_nothing() {
        let peer = Peer { addr: Addr::Unnamed, credentials: None };
        let told =
            Handover { peer, local: Addr::Unnamed, transport: Transport::Stream, from_same: 0, cookie: 0 };
        let mut bytes = told.to_bytes().unwrap();
        for length in 0..Handover::LENGTH {
            assert!(Handover::from_bytes(&bytes[..length]).is_none(), "{length}");
        }
        bytes[0] = 9;
        assert!(Handover::from_bytes(&bytes).is_none());
    }
}
