//! A log in memory that a few processes share: each appends to it in turn, and each reads all of it in the same order.
//!
//! The memory has a fixed size and the log goes round in it, so that a writer has to know that nobody needs what it writes
//! over: each participant publishes how far it has read. An entry is there when the end of the log is behind it, which is one
//! store: a process that dies at any instant leaves a whole entry or none, and its lock is taken from it by whoever waits
//! for its death. Nothing here decides who takes part, and nobody is waited for for longer than the caller says.
//!
//! The memory is a file without a name, and each participant maps it for itself and out of reach of its children
//! (MADV_DONTFORK), at once: so there is no instant at which a fork for a client would hand it on, and nothing to be undone when
//! something fails half way, which there would be if the mapping itself were inherited by some children and not by others. The
//! descriptor is closed on exec, and only that participant has it that forks others. What an inherited [`Ring`] would reach in
//! a child is nothing, or something else by then; so a ring knows in which process it was mapped, and panics in others.
//!
//! memfd_create(2), mmap(2), madvise(2), futex(2), fcntl(2) (F_ADD_SEALS).

use std::io;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::thread::futex;

use crate::{fault, fork};

/// How many may take part: a bit of a word for each.
pub const SEATS_MOST: usize = 64;

/// How many words an entry has: a cache line.
pub const WORDS: usize = 8;

/// How many numbers each participant may show to the others beside the log.
pub const NOTES: usize = 5;

/// The most entries that a log may have room for.
pub const CAPACITY_MOST: usize = 1 << 24;

/// One entry.
pub type Entry = [u64; WORDS];

/// In the word of the lock beside the holder's number: somebody sleeps until it is free.
const AWAITED: u32 = 1 << 31;

/// How often a lock is looked at before its waiter sleeps. Whoever holds it is done in a microsecond, if it runs.
const SPINS: usize = 100;

/// The longest sleep between two looks at a lock: its holder may have died without a word.
const SLEEP: Duration = Duration::from_millis(5);

/// In a seat's word: it wants to be told when others have changed something that it waits for.
const WISHES: u32 = 1;

/// In a seat's word: it has been told to look, and has not looked yet.
const CALLED: u32 = 2;

/// The log, as one participant has it.
#[derive(Debug)]
pub struct Ring {
    shared: NonNull<Shared>,
    /// What it is mapped from, where others may be let in.
    memory: Option<OwnedFd>,
    capacity: u64,
    seat: usize,
    /// How many entries were read: the next one's number.
    position: u64,
    /// Everybody had read as many when that was last looked at, and only more since: nobody begins before one who is there.
    read_by_all: u64,
    /// Of which process this is: see [`fork::births`].
    births: u64,
}

/// The log, locked: nobody else appends. Dropping it unlocks.
#[derive(Debug)]
pub struct Locked<'a>(&'a mut Ring);

/// There is no room for another entry, because this participant has not read enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full(pub usize);

/// What is at the start of the memory; all entries follow.
#[repr(C)]
struct Shared {
    /// 0: free; or the seat of the holder, counted from one, and perhaps [`AWAITED`].
    lock: Line<AtomicU32>,
    /// How many entries there have ever been.
    tail: Line<AtomicU64>,
    /// A bit for each seat that is taken.
    present: Line<AtomicU64>,
    seats: [Seat; SEATS_MOST],
    /// The first of all entries; there are as many as the capacity says.
    slots: [Slot; 1],
}

/// A cache line for what one processor writes and others read.
#[repr(C, align(64))]
struct Line<T>(T);

#[repr(C, align(64))]
struct Seat {
    position: AtomicU64,
    word: AtomicU32,
    notes: [AtomicU64; NOTES],
}

#[repr(C, align(64))]
struct Slot([AtomicU64; WORDS]);

impl Ring {
    /// An empty log for so many entries, a power of two, and this process in a seat of it.
    ///
    /// # Errors
    /// EINVAL for what is no power of two, above [`CAPACITY_MOST`] or no seat; EMFILE, ENFILE, ENOMEM.
    pub fn new(capacity: usize, seat: usize) -> io::Result<Ring> {
        if !capacity.is_power_of_two() || capacity > CAPACITY_MOST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fault::point("memfd_create")?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create(c"tine-ring", flags)?;
        fault::point("ftruncate")?;
        rustix::fs::ftruncate(&memory, length(capacity as u64) as u64)?;
        // What is mapped stays there: nobody can make the file shorter any more.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fault::point("fcntl")?;
        rustix::fs::fcntl_add_seals(&memory, seals)?;
        let mut ring = Ring::map(&memory, capacity as u64, seat, 0)?;
        ring.memory = Some(memory);
        ring.seat(seat);
        Ok(ring)
    }

    /// The same log for another participant, that begins where this one stands and whose seat was taken by
    /// [`Ring::seat`]: in a process that was forked for it, or in this one. It can let nobody in.
    ///
    /// # Errors
    /// EINVAL for what is no seat; EBADF when this one can let nobody in; ENOMEM.
    pub fn attach(&self, seat: usize) -> io::Result<Ring> {
        let memory = self.memory.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        let mut ring = Ring::map(memory, self.capacity, seat, self.position)?;
        // Others may have read less than the one that it begins as.
        ring.read_by_all = ring.slowest().1;
        // It may have gone on since the seat was taken, and so has the one that begins here.
        ring.publish();
        Ok(ring)
    }

    fn map(memory: &OwnedFd, capacity: u64, seat: usize, position: u64) -> io::Result<Ring> {
        if seat >= SEATS_MOST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (both, flags, length) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, length(capacity));
        fault::point("mmap")?;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing in this process (mmap(2)).
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), length, both, flags, memory, 0)? };
        let shared = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        // From here on its `drop` unmaps it.
        let births = fork::births();
        let ring = Ring { shared, memory: None, capacity, seat, position, read_by_all: position, births };
        fault::point("madvise")?;
        // SAFETY: the range is the whole mapping that was made above and that `ring` owns; this only changes what a fork does
        // with it, and a `Ring` that finds itself in a child of the process touches no memory (`shared`, `drop`).
        unsafe { rustix::mm::madvise(start, length, Advice::LinuxDontFork)? };
        Ok(ring)
    }

    /// Which seat this is.
    pub fn own_seat(&self) -> usize {
        self.seat
    }

    /// For how many entries there is room.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// How many entries this participant has read, its own included.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether all that is there has been read.
    pub fn is_read(&self) -> bool {
        // Acquire, with the Release of `append`: whoever sees the end of the log sees what was done before it.
        self.shared().tail.0.load(Acquire) == self.position
    }

    /// The next entry, if there is one: without the lock, for what is committed does not change.
    ///
    /// # Panics
    /// When this participant was taken for dead, and what it should read next has been written over.
    pub fn read(&mut self) -> Option<Entry> {
        let shared = self.shared();
        // Acquire, with the Release of `append`: the words that were stored before it are seen.
        let tail = shared.tail.0.load(Acquire);
        if tail == self.position {
            return None;
        }
        assert!(tail - self.position <= self.capacity, "the log has gone on without this process");
        // Relaxed: ordered by the tail; no writer comes here before it has seen our position behind this entry.
        let entry = std::array::from_fn(|at| self.slot(self.position).0[at].load(Relaxed));
        self.position += 1;
        self.publish();
        Some(entry)
    }

    /// Locks the log: whoever has it appends, after it has read all. The holder is told that still has it when the time is
    /// over; it may be slow, stopped or dead.
    ///
    /// # Errors
    /// The seat of the holder.
    pub fn lock(&mut self, patience: Duration) -> Result<Locked<'_>, usize> {
        self.acquire(patience)?;
        Ok(Locked(self))
    }

    fn acquire(&self, patience: Duration) -> Result<(), usize> {
        let (lock, own) = (&self.shared().lock.0, self.seat as u32 + 1);
        for _ in 0..SPINS {
            // Acquire, with the Release of whoever had it: what was done under the lock is seen. Looked at before it is
            // tried, so that those who wait do not take the line from each other.
            if lock.load(Relaxed) == 0 && lock.compare_exchange(0, own, Acquire, Relaxed).is_ok() {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        let until = Instant::now() + patience;
        loop {
            let seen = lock.load(Relaxed);
            if seen & !AWAITED == 0 {
                // Others may sleep too; whoever has slept cannot know, and wakes one in vain at worst.
                if lock.compare_exchange(seen, own | AWAITED, Acquire, Relaxed).is_ok() {
                    return Ok(());
                }
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err((seen & !AWAITED) as usize - 1);
            }
            let awaited = seen | AWAITED;
            if seen == awaited || lock.compare_exchange(seen, awaited, Relaxed, Relaxed).is_ok() {
                let sleep = left.min(SLEEP);
                let sleep = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: sleep.subsec_nanos().into() };
                // Woken, over, interrupted or changed meanwhile: it is looked at again whichever it was. Not private: the
                // word is in other processes' memory too (futex(2)).
                let _ = futex::wait(lock, futex::Flags::empty(), awaited, Some(&sleep));
            }
        }
    }

    /// Frees the lock if the holder is this one, which has died. `false`: it is not.
    pub fn release_of(&self, dead: usize) -> bool {
        let lock = &self.shared().lock.0;
        let is_its = |word: u32| (word & !AWAITED == dead as u32 + 1).then_some(0);
        // Release, for whoever acquires it next; Acquire, as this process does for the dead one what it would have done.
        let freed = lock.fetch_update(AcqRel, Relaxed, is_its).is_ok();
        if freed {
            // Nobody to tell if it cannot be told: whoever sleeps looks again by itself.
            let _ = futex::wake(lock, futex::Flags::empty(), u32::MAX >> 1);
        }
        freed
    }

    /// Lets another take part: it will begin where this one stands. By one who takes part itself, for then nobody can
    /// write over what the other is to read: everybody knows already that this one has not read it.
    pub fn seat(&self, seat: usize) {
        let shared = self.shared();
        let other = &shared.seats[seat];
        other.word.store(0, Relaxed);
        other.notes.iter().for_each(|note| note.store(0, Relaxed));
        other.position.store(self.position, Relaxed);
        // Release: whoever sees the bit (Acquire, in `slowest`) sees the position.
        shared.present.0.fetch_or(1 << seat, Release);
    }

    /// Shows a number to the others, in this one's place of that number, beside the log and at no price.
    ///
    /// # Panics
    /// When there are only [`NOTES`] places, and this is none of them.
    pub fn note(&self, place: usize, number: u64) {
        self.shared().seats[self.seat].notes[place].store(number, Relaxed);
    }

    /// What one that takes part shows, or showed last: zeroes at first.
    pub fn notes_of(&self, seat: usize) -> [u64; NOTES] {
        std::array::from_fn(|place| self.shared().seats[seat].notes[place].load(Relaxed))
    }

    /// Takes one out that has ended: it is waited for no more.
    pub fn unseat(&self, seat: usize) {
        // Release: what was done about its end comes before it.
        self.shared().present.0.fetch_and(!(1 << seat), Release);
    }

    /// Who takes part.
    pub fn seats(&self) -> impl Iterator<Item = usize> + use<> {
        let present = self.shared().present.0.load(Acquire);
        (0..SEATS_MOST).filter(move |seat| present & 1 << seat != 0)
    }

    /// Who has read least, and how much.
    pub fn slowest(&self) -> (usize, u64) {
        let seats = &self.shared().seats;
        // Acquire, with the Release of `publish`: what it has read, it has read before it is written over.
        let positions = self.seats().map(|seat| (seats[seat].position.load(Acquire), seat));
        positions.min().map_or((self.seat, self.position), |(position, seat)| (seat, position))
    }

    /// Who has so many entries or more to read.
    pub fn behind(&self, by: u64) -> impl Iterator<Item = usize> {
        let (seats, tail) = (&self.shared().seats, self.shared().tail.0.load(Acquire));
        self.seats().filter(move |seat| tail.saturating_sub(seats[*seat].position.load(Relaxed)) >= by)
    }

    /// Asks to be told ([`Ring::take_wishes`]) when another has changed something. Whoever has asked looks again whether
    /// there is something to be read, and only then waits.
    pub fn wish(&self) {
        self.shared().seats[self.seat].word.fetch_or(WISHES, Relaxed);
        // Either the other sees the wish after it has appended, or we see what it has appended: each stores, has this
        // fence, and then loads what the other stores.
        fence(SeqCst);
    }

    /// Who has asked to be told since it was told last, this one excepted. After what they are to be told has been appended.
    pub fn take_wishes(&self) -> impl Iterator<Item = usize> {
        // As in `wish`.
        fence(SeqCst);
        let seats = &self.shared().seats;
        self.seats().filter(|seat| *seat != self.seat).filter(|seat| {
            let word = &seats[*seat].word;
            word.load(Relaxed) & WISHES != 0 && word.fetch_and(!WISHES, Relaxed) & WISHES != 0
        })
    }

    /// Notes that another is to look at the log. `true`: nobody has noted it since it looked last, so it has to be woken.
    pub fn call(&self, seat: usize) -> bool {
        // AcqRel, with that of `answer`: either it is woken, or it reads what was appended before this.
        self.shared().seats[seat].word.fetch_or(CALLED, AcqRel) & CALLED == 0
    }

    /// Takes the note about this one: after it has emptied what it is woken by, and before it reads.
    pub fn answer(&self) {
        self.shared().seats[self.seat].word.fetch_and(!CALLED, AcqRel);
    }

    fn publish(&self) {
        // Release, with the Acquire of `slowest`: the entry was read before its place is given away.
        self.shared().seats[self.seat].position.store(self.position, Release);
    }

    fn shared(&self) -> &Shared {
        assert!(
            self.births == fork::births(),
            "the log is not there in a child of the process that mapped it"
        );
        // SAFETY: `map` has mapped at least as much, zeroed, which is a `Shared`, all of atomics, aligned to a page; it is
        // unmapped by `drop` alone, it is in the process that mapped it (looked at just above, and told by the only
        // functions that fork), and the seals keep the file as long as it is.
        unsafe { self.shared.as_ref() }
    }

    fn slot(&self, number: u64) -> &Slot {
        self.shared(); // it is there
        let first = self.shared.as_ptr().cast::<u8>().wrapping_add(offset_of!(Shared, slots)).cast::<Slot>();
        let slot = first.wrapping_add((number & (self.capacity - 1)) as usize);
        // SAFETY: the mapping has `capacity` slots from `first` on (`length`), and the mask keeps the number below that; a
        // slot is atomics, zeroed at first; it lives as long as the mapping, as `shared` says, which was called for that.
        unsafe { &*slot }
    }
}

impl Locked<'_> {
    /// The next entry that this participant has not read.
    pub fn read(&mut self) -> Option<Entry> {
        self.0.read()
    }

    /// Appends an entry. Who appends has read all; its own entry counts as read.
    ///
    /// # Errors
    /// [`Full`]: somebody has to read first. Nothing is appended.
    ///
    /// # Panics
    /// When not all has been read.
    pub fn append(&mut self, entry: &Entry) -> Result<(), Full> {
        let ring = &mut *self.0;
        assert!(ring.is_read(), "who appends has read what the others have");
        let number = ring.position;
        if number - ring.read_by_all >= ring.capacity {
            let (slowest, position) = ring.slowest();
            ring.read_by_all = position;
            if number - position >= ring.capacity {
                return Err(Full(slowest));
            }
        }
        for (word, value) in ring.slot(number).0.iter().zip(entry) {
            // Relaxed: nobody reads here before the tail says so; and it stands after the Acquire of `slowest`.
            word.store(*value, Relaxed);
        }
        // The one store by which it is there. Release: with it, all its words are.
        ring.shared().tail.0.store(number + 1, Release);
        ring.position = number + 1;
        ring.publish();
        Ok(())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let lock = &self.0.shared().lock.0;
        // Release, with the Acquire of whoever has it next.
        if lock.swap(0, Release) & AWAITED != 0 {
            // Whoever sleeps looks again by itself, if it cannot be woken.
            let _ = futex::wake(lock, futex::Flags::empty(), 1);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.births != fork::births() {
            return;
        }
        let length = length(self.capacity);
        // SAFETY: it is the whole mapping that `map` made in this process (looked at just above), and nothing borrowed from this
        // ring is left when it is dropped. That it cannot be unmapped is nothing that anybody could do something about.
        let _ = unsafe { rustix::mm::munmap(self.shared.as_ptr().cast(), length) };
    }
}

/// How many bytes a log has.
fn length(capacity: u64) -> usize {
    offset_of!(Shared, slots) + capacity as usize * size_of::<Slot>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(20);

    fn append(ring: &mut Ring, number: u64) -> Result<(), Full> {
        let mut locked = ring.lock(PATIENCE).expect("nobody else has it");
        while locked.read().is_some() {}
        locked.append(&[number; WORDS])
    }

    #[test]
    fn a_capacity_is_a_power_of_two_and_a_seat_is_one_of_64() {
        for (capacity, seat) in [(0, 0), (3, 0), (2 * CAPACITY_MOST, 0), (8, SEATS_MOST)] {
            assert!(Ring::new(capacity, seat).is_err(), "{capacity} {seat}");
        }
        let ring = Ring::new(1, SEATS_MOST - 1).unwrap();
        assert_eq!((ring.capacity(), ring.own_seat(), ring.position()), (1, SEATS_MOST - 1, 0));
        assert!(ring.attach(SEATS_MOST).is_err());
        let other = ring.attach(3).unwrap();
        assert!(other.attach(4).is_err(), "only one lets others in");
    }

    #[test]
    fn a_full_log_tells_who_is_slowest_until_that_one_has_read() {
        let mut ring = Ring::new(8, 0).unwrap();
        let mut others = [5, 9].map(|seat| {
            ring.seat(seat);
            ring.attach(seat).unwrap()
        });
        assert_eq!(ring.seats().collect::<Vec<_>>(), [0, 5, 9]);
        (0..7).for_each(|number| {
            assert_eq!(append(&mut ring, number), Ok(()), "one less than there is room for")
        });
        assert_eq!(others[0].read(), Some([0; WORDS]));
        assert_eq!(append(&mut ring, 7), Ok(()), "as many as there is room for");
        assert_eq!(ring.slowest(), (9, 0));
        assert_eq!(ring.behind(7).collect::<Vec<_>>(), [5, 9]);
        assert_eq!(ring.behind(8).collect::<Vec<_>>(), [9]);
        assert_eq!(append(&mut ring, 8), Err(Full(9)), "one more");
        assert_eq!(append(&mut ring, 8), Err(Full(9)), "and again nothing has changed");
        assert_eq!(others[1].read(), Some([0; WORDS]));
        assert_eq!(append(&mut ring, 8), Ok(()), "each has read one");
        assert!(append(&mut ring, 9).is_err());
        for other in &mut others {
            let rest: Vec<_> = std::iter::from_fn(|| other.read()).map(|entry| entry[0]).collect();
            assert_eq!(rest, [1, 2, 3, 4, 5, 6, 7, 8]);
        }
        assert_eq!(append(&mut others[0], 9), Ok(()));
        assert_eq!(ring.read(), Some([9; WORDS]));
        assert_eq!(ring.read(), None);
    }

    #[test]
    fn who_is_taken_out_is_not_waited_for_and_who_is_let_in_later_begins_where_its_host_stands() {
        let mut ring = Ring::new(4, 0).unwrap();
        ring.seat(1);
        (0..4).for_each(|number| append(&mut ring, number).unwrap());
        assert_eq!(append(&mut ring, 4), Err(Full(1)));
        ring.unseat(1);
        (4..1_000).for_each(|number| append(&mut ring, number).unwrap());
        ring.seat(1);
        append(&mut ring, 1_000).unwrap();
        let mut other = ring.attach(1).unwrap();
        assert_eq!(other.read(), None, "its host has read that one for it");
        append(&mut ring, 1_001).unwrap();
        assert_eq!(other.read(), Some([1_001; WORDS]));
    }

    #[test]
    fn a_lock_is_one_holders_until_it_lets_go_or_is_dead() {
        let mut ring = Ring::new(4, 0).unwrap();
        ring.seat(1);
        let mut other = ring.attach(1).unwrap();
        let locked = ring.lock(PATIENCE).unwrap();
        assert_eq!(other.lock(PATIENCE).err(), Some(0));
        drop(locked);
        // It is forgotten as if its process had died.
        std::mem::forget(other.lock(PATIENCE).unwrap());
        assert_eq!(ring.lock(PATIENCE).err(), Some(1));
        assert!(!ring.release_of(0) && !ring.release_of(2), "it is not theirs");
        assert!(ring.release_of(1));
        assert!(!ring.release_of(1), "once is enough");
        append(&mut ring, 0).unwrap();
        append(&mut other, 1).unwrap();
    }

    #[test]
    fn a_wish_is_told_once_and_a_call_wakes_once_until_it_is_answered() {
        let ring = Ring::new(4, 0).unwrap();
        ring.seat(1);
        let other = ring.attach(1).unwrap();
        assert_eq!(ring.take_wishes().count(), 0);
        other.wish();
        ring.wish();
        assert_eq!(ring.take_wishes().collect::<Vec<_>>(), [1], "not its own");
        assert_eq!(ring.take_wishes().count(), 0);
        assert!(ring.call(1));
        assert!(!ring.call(1), "it has not looked yet");
        other.answer();
        assert!(ring.call(1));
    }
}
