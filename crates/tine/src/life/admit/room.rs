//! The waiting room: clients that were accepted and have no slot yet.
//!
//! Each source has its turn, one client after the other (start-time fair queueing: a client's turn is one after that of
//! the client of its source before it, and after the turn that is being served). When the room is full the
//! network that has most in it gives up its last for one that has fewer, so that a crowd from one place does not fill it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::source::Source;
use crate::peer::Peer;

/// A client's number: each has its own, later ones have higher ones.
pub type Ticket = u64;

type Place = (u64, Ticket);

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Room {
    clients: BTreeMap<Ticket, Waiting>,
    /// The last turn that each source in the room was given, and how many it has here.
    sources: BTreeMap<Source, (u64, usize)>,
    /// Everybody of a network, in turn.
    networks: BTreeMap<Source, BTreeSet<Place>>,
    /// Each network's first: of those that have a child, and of those that have none.
    present: BTreeSet<(Place, Source)>,
    absent: BTreeSet<(Place, Source)>,
    /// How many of each network wait.
    weights: BTreeSet<(usize, Source)>,
    /// How many have each turn, each 256 turns, and each 65,536: who goes before one is counted in few steps.
    tallies: [BTreeMap<u64, usize>; 3],
    turn: u64,
}

/// By how many bits the steps of the tallies differ.
const STEP: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    peer: Peer,
    pub source: Source,
    pub since: Instant,
    turn: u64,
}

impl Room {
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// All who wait, the oldest first.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.clients.keys().copied()
    }

    pub(crate) fn source(&self, ticket: Ticket) -> Option<Source> {
        self.clients.get(&ticket).map(|waiting| waiting.source)
    }

    pub(crate) fn peer(&self, ticket: Ticket) -> Option<&Peer> {
        self.clients.get(&ticket).map(|waiting| &waiting.peer)
    }

    /// A client comes in. `here`: whether its network has a child.
    pub(crate) fn enter(&mut self, ticket: Ticket, peer: &Peer, source: Source, here: bool, now: Instant) {
        let last = self.sources.entry(source).or_insert((self.turn, 0));
        // After the turn that is being served: otherwise that one would not end as long as somebody comes.
        *last = (last.0.max(self.turn) + 1, last.1 + 1);
        let turn = last.0;
        self.clients.insert(ticket, Waiting { peer: peer.clone(), source, since: now, turn });
        self.alter(source.network(), here, |line| line.insert((turn, ticket)));
        self.tally(turn, |count| *count += 1);
    }

    /// A client goes, for whatever reason. `here`: whether its network has a child.
    pub(crate) fn leave(&mut self, ticket: Ticket, here: bool) -> Option<Waiting> {
        let waiting = self.clients.remove(&ticket)?;
        if let Some(last) = self.sources.get_mut(&waiting.source) {
            last.1 -= 1;
            if last.1 == 0 {
                self.sources.remove(&waiting.source);
            }
        }
        self.alter(waiting.source.network(), here, |line| line.remove(&(waiting.turn, ticket)));
        self.tally(waiting.turn, |count| *count -= 1);
        Some(waiting)
    }

    /// Whose turn it is: of everybody, or only of networks that have no child.
    pub(crate) fn next(&self, absent_only: bool) -> Option<Ticket> {
        let absent = self.absent.first();
        let present = self.present.first().filter(|_| !absent_only);
        let ((_, ticket), _) = absent.into_iter().chain(present).min()?;
        Some(*ticket)
    }

    /// Its turn has come: later ones do not go before it any more.
    pub(crate) fn serve(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.clients.get(&ticket) {
            self.turn = self.turn.max(waiting.turn);
        }
    }

    /// A network has a child now, or has none any more.
    pub(crate) fn shift(&mut self, network: Source, here: bool) {
        self.alter(network, here, |_| true);
    }

    /// Who is to go so that one of this network may come in, when the room is full: the last of the network that has most
    /// here, if that is more than this one would have then.
    pub(crate) fn heaviest(&self, network: Source) -> Option<Ticket> {
        let (most, _) = self.weights.last()?;
        let own = self.networks.get(&network).map_or(0, BTreeSet::len);
        self.last_of_heaviest().filter(|_| own + 1 < *most)
    }

    /// The last of the network that has most here.
    pub(crate) fn last_of_heaviest(&self) -> Option<Ticket> {
        let (_, heavy) = self.weights.last()?;
        self.networks.get(heavy)?.last().map(|(_, ticket)| *ticket)
    }

    /// Who has waited longest.
    pub(crate) fn oldest(&self) -> Option<(Ticket, Instant)> {
        self.clients.first_key_value().map(|(ticket, waiting)| (*ticket, waiting.since))
    }

    /// The place of this one, if nobody else comes: 1 is the next, 0 does not wait. Few steps for one that has just come, for
    /// it is the last of its turn; others look at all that came after them.
    pub(crate) fn place(&self, ticket: Ticket) -> usize {
        let Some(own) = self.clients.get(&ticket) else { return 0 };
        let later = self.clients.range(ticket + 1..).filter(|(_, other)| other.turn == own.turn).count();
        let steps = self.tallies.iter().enumerate().map(|(level, tally)| {
            let end = (own.turn + 1) >> (STEP * level);
            let start = if level + 1 == self.tallies.len() { 0 } else { end >> STEP << STEP };
            tally.range(start..end).map(|(_, count)| count).sum::<usize>()
        });
        steps.sum::<usize>() - later
    }

    fn tally(&mut self, turn: u64, change: impl Fn(&mut usize)) {
        for (level, tally) in self.tallies.iter_mut().enumerate() {
            let key = turn >> (STEP * level);
            let count = tally.entry(key).or_default();
            change(count);
            if *count == 0 {
                tally.remove(&key);
            }
        }
    }

    fn alter(&mut self, network: Source, here: bool, change: impl FnOnce(&mut BTreeSet<Place>) -> bool) {
        let line = self.networks.entry(network).or_default();
        if let Some(first) = line.first() {
            self.present.remove(&(*first, network));
            self.absent.remove(&(*first, network));
            self.weights.remove(&(line.len(), network));
        }
        change(line);
        let Some(first) = line.first() else {
            self.networks.remove(&network);
            return;
        };
        let front = if here { &mut self.present } else { &mut self.absent };
        front.insert((*first, network));
        self.weights.insert((line.len(), network));
    }

    /// Whether all its parts tell the same.
    #[cfg(test)]
    pub(crate) fn holds_together(&self, here: impl Fn(Source) -> bool) -> bool {
        let lines: usize = self.networks.values().map(BTreeSet::len).sum();
        let counts: usize = self.sources.values().map(|(_, count)| count).sum();
        let fronts = self.present.iter().all(|(_, network)| here(*network))
            && self.absent.iter().all(|(_, network)| !here(*network));
        lines == self.clients.len()
            && counts == lines
            && fronts
            && self.present.len() + self.absent.len() == self.networks.len()
            && self.weights.len() == self.networks.len()
            && self.tallies.iter().all(|tally| tally.values().sum::<usize>() == lines)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tine_os::socket::Addr;

    use super::*;

    fn source(network: u32, host: u32) -> Source {
        Source::V4(Ipv4Addr::from_bits(network << 16 | host))
    }

    fn enter(room: &mut Room, ticket: Ticket, source: Source, here: bool) {
        let peer = Peer { addr: Addr::Unnamed, credentials: None };
        room.enter(ticket, &peer, source, here, Instant::now());
    }

    fn served(room: &mut Room) -> Vec<Ticket> {
        let mut order = Vec::new();
        while let Some(ticket) = room.next(false) {
            room.serve(ticket);
            room.leave(ticket, false);
            order.push(ticket);
        }
        order
    }

    #[test]
    fn sources_take_turns_and_within_a_source_the_first_is_first() {
        let mut room = Room::default();
        for (ticket, host) in [(1, 7), (2, 7), (3, 7), (4, 8), (5, 9), (6, 8)] {
            enter(&mut room, ticket, source(10, host), false);
        }
        assert_eq!((room.place(1), room.place(4), room.place(5), room.place(2)), (1, 2, 3, 4));
        assert_eq!(served(&mut room), [1, 4, 5, 2, 6, 3]);
        assert!(room.holds_together(|_| false) && room.is_empty());
    }

    #[test]
    fn whoever_comes_late_does_not_wait_for_turns_that_others_were_given_before() {
        let mut room = Room::default();
        (1..=5).for_each(|ticket| enter(&mut room, ticket, source(10, 7), false));
        for expected in 1..=3 {
            let ticket = room.next(false).unwrap();
            assert_eq!(ticket, expected);
            room.serve(ticket);
            room.leave(ticket, false);
        }
        enter(&mut room, 6, source(10, 8), false);
        assert_eq!(
            served(&mut room),
            [4, 6, 5],
            "nor does it go before one who has waited for this very turn"
        );
    }

    #[test]
    fn one_source_that_comes_again_as_soon_as_it_was_served_does_not_starve_another() {
        let mut room = Room::default();
        (1..=3).for_each(|ticket| enter(&mut room, ticket, source(10, 7), false));
        enter(&mut room, 4, source(11, 1), false);
        let mut order = Vec::new();
        for again in 5..9 {
            let ticket = room.next(false).unwrap();
            room.serve(ticket);
            room.leave(ticket, false);
            order.push(ticket);
            if ticket >= 4 {
                enter(&mut room, again, source(11, 1), false);
            }
        }
        assert_eq!(order, [1, 4, 2, 6]);
        assert_eq!(room.next(false), Some(3));
    }

    #[test]
    fn a_place_is_known_however_many_turns_there_are() {
        let mut room = Room::default();
        for ticket in 1..=70_000 {
            enter(&mut room, ticket, source(10, 7), false);
            if matches!(ticket, 1 | 255..=258 | 65_534..=65_538 | 70_000) {
                assert_eq!(room.place(ticket), ticket as usize);
            }
        }
        enter(&mut room, 70_001, source(10, 8), false);
        assert_eq!((room.place(70_001), room.place(1), room.place(70_000)), (2, 1, 70_001));
        for ticket in 1..=300 {
            room.serve(ticket);
            room.leave(ticket, false);
        }
        assert_eq!((room.place(70_001), room.place(300), room.place(301)), (1, 0, 2));
        enter(&mut room, 70_002, source(10, 9), false);
        assert_eq!((room.place(70_002), room.place(302), room.place(70_000)), (3, 4, 69_702));
        assert!(room.holds_together(|_| false));

        let mut room = Room { turn: (1 << 24) - 4, ..Room::default() };
        for ticket in 1..=9 {
            enter(&mut room, ticket, source(10, 7), false);
            assert_eq!(room.place(ticket), ticket as usize);
        }
    }

    #[test]
    fn a_network_without_a_child_is_found_among_those_that_have_one() {
        let mut room = Room::default();
        (1..=3).for_each(|ticket| enter(&mut room, ticket, source(10, ticket as u32), true));
        assert_eq!(room.next(true), None);
        enter(&mut room, 4, source(11, 1), false);
        assert_eq!((room.next(true), room.next(false)), (Some(4), Some(1)));
        room.shift(source(11, 0), true);
        assert_eq!(room.next(true), None);
        room.shift(source(10, 0), false);
        assert_eq!(room.next(true), Some(1));
    }

    #[test]
    fn the_heaviest_network_gives_up_its_last_for_one_that_has_fewer() {
        let mut room = Room::default();
        (1..=3).for_each(|ticket| enter(&mut room, ticket, source(10, ticket as u32), false));
        assert_eq!(room.heaviest(source(10, 0)), None, "not for one of its own");
        assert_eq!(room.heaviest(source(11, 0)), Some(3));
        room.leave(3, false);
        enter(&mut room, 4, source(11, 1), false);
        assert_eq!(room.heaviest(source(11, 0)), None, "two and one, and then one and two: nobody gains");
        assert_eq!((room.heaviest(source(12, 0)), room.last_of_heaviest()), (Some(2), Some(2)));
    }
}
