//! Slots: a number for each child that no other has while it is alive, so that what belongs to it alone can be told by it. Pure.

use std::collections::BTreeSet;

/// Numbers that are given out and come back.
#[derive(Debug)]
pub(crate) struct Slots {
    first: u32,
    /// How far the last one given out is from the first.
    last: u32,
    taken: BTreeSet<u32>,
}

impl Slots {
    /// So many for each process that has children.
    const COUNT: u32 = 1 << 16;

    /// That of a child whose own is not known.
    pub(crate) const NONE: u32 = u32::MAX;

    /// Those of one of the processes that have children.
    pub(crate) fn of_seat(seat: usize) -> Slots {
        Slots { first: seat as u32 * Slots::COUNT, last: Slots::COUNT - 1, taken: BTreeSet::new() }
    }

    /// One that nobody has. They are given out in turn, so that one that has come back is not used again soon.
    pub(crate) fn take(&mut self) -> u32 {
        for _ in 0..Slots::COUNT {
            self.last = (self.last + 1) % Slots::COUNT;
            let slot = self.first + self.last;
            if self.taken.insert(slot) {
                return slot;
            }
        }
        // With more children than that in one process, none has anything of its own that it is told by.
        Slots::NONE
    }

    /// Its child is gone, and all that it has started.
    pub(crate) fn give_back(&mut self, slot: u32) {
        self.taken.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_the_slot_of_somebody_who_is_alive_and_one_that_came_back_is_the_last_to_be_given() {
        let mut slots = Slots::of_seat(2);
        let all: Vec<_> = (0..Slots::COUNT).map(|_| slots.take()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.iter().all(|slot| (2 << 16..3 << 16).contains(slot)));
        assert_eq!(slots.take(), Slots::NONE);
        slots.give_back(all[7]);
        slots.give_back(all[3]);
        assert_eq!([slots.take(), slots.take()], [all[3], all[7]]);
        slots.give_back(all[0]);
        slots.give_back(all[9]);
        assert_eq!(slots.take(), all[9], "in turn");
    }
}
