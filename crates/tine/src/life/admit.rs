//! Admission: may another client come in? Pure: what is known goes in, a verdict comes out.
//!
//! The limit is on children in all. At the limit nothing is refused: the master stops looking at its listeners, and the
//! kernel's queue is the waiting room. So every wait ends by itself, with the next child that does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tine_os::socket::Addr;

use crate::event::Peer;

/// What admission keeps count of. Its table has an entry for each source with a child, so never more than children.
#[derive(Debug)]
pub(crate) struct Admit {
    most: usize,
    sources: BTreeMap<Source, usize>,
}

/// What clients are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Ip(IpAddr),
    User(u32),
    Machine(u32),
    Unknown,
}

impl Admit {
    pub(crate) fn new(most: usize) -> Admit {
        Admit { most, sources: BTreeMap::new() }
    }

    /// The most children there may be.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Whether there is room for another beside so many.
    pub(crate) fn has_room(&self, open: usize) -> bool {
        open < self.most
    }

    /// How many children the source of this client has.
    pub(crate) fn count_of(&self, peer: &Peer) -> usize {
        self.sources.get(&Source::of(peer)).copied().unwrap_or(0)
    }

    /// A client has a child.
    pub(crate) fn enters(&mut self, peer: &Peer) {
        *self.sources.entry(Source::of(peer)).or_insert(0) += 1;
    }

    /// Its child has ended.
    pub(crate) fn leaves(&mut self, peer: &Peer) {
        if let Some(count) = self.sources.get_mut(&Source::of(peer)) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&Source::of(peer));
            }
        }
    }
}

impl Source {
    fn of(peer: &Peer) -> Source {
        match (&peer.addr, &peer.credentials) {
            (Addr::Inet(addr), _) => Source::Ip(addr.ip()),
            (Addr::Vsock { cid, .. }, _) => Source::Machine(*cid),
            (_, Some(who)) => Source::User(who.uid),
            _ => Source::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peer(last: u8) -> Peer {
        Peer { addr: Addr::Inet(([127, 0, 0, last], 1).into()), credentials: None }
    }

    #[test]
    fn there_is_room_below_the_limit_and_none_at_it_or_above() {
        let admit = Admit::new(3);
        assert_eq!([2, 3, 4].map(|open| admit.has_room(open)), [true, false, false]);
    }

    proptest! {
        #[test]
        fn a_source_counts_as_many_as_it_has_and_an_empty_house_keeps_no_entry(
            moves in proptest::collection::vec((0u8..4, any::<bool>()), 0..200)
        ) {
            let mut admit = Admit::new(usize::MAX);
            let mut here = [0usize; 4];
            for (who, enters) in moves {
                if enters {
                    admit.enters(&peer(who));
                    here[usize::from(who)] += 1;
                } else if here[usize::from(who)] > 0 {
                    admit.leaves(&peer(who));
                    here[usize::from(who)] -= 1;
                }
                for one in 0..4 {
                    prop_assert_eq!(admit.count_of(&peer(one)), here[usize::from(one)]);
                }
            }
            prop_assert_eq!(admit.sources.len(), here.iter().filter(|count| **count > 0).count());
        }
    }
}
