//! Memory apart: what only the master uses, which no child is given a copy of.
//!
//! A fork shares every page of the master with the child until one of them writes to it. The master writes to its books for each
//! client, and so each child would keep old copies of them: pages that it never looks at, for each of which the master pays a
//! page fault, and which the kernel finds by looking through all children there are. [`Apart`] is an allocator that has what is
//! asked for [`inside`] in a mapping whose pages no fork copies (madvise(2), MADV_WIPEONFORK), and hands on the rest to the system's.
//!
//! It has to be the program's global allocator; elsewhere [`inside`] changes nothing. The mapping is made once, and is the
//! thread's that makes it; others have what they ask for from the system. In a child nothing may be looked at that was made
//! inside: it dies of it at once, for the addresses stay taken and nothing is there. Giving it back does nothing, and what is asked for comes from the
//! system.
//!
//! mmap(2), mprotect(2), madvise(2).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};
use std::thread::LocalKey;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use crate::fault;

/// How much there may be. It is addresses only; memory comes as it is used. Beyond that it is the system's.
const MOST: usize = 1 << 30;

/// How much is made usable at a time.
const STEP: usize = 1 << 18;

const PAGE: usize = 4096;

/// The least that is given out; what all of it is aligned to.
const GRAIN: usize = 16;

/// Up to here there is a size for each grain, and above four for each doubling.
const FINE: usize = 512;

const FINE_SIZES: usize = FINE / GRAIN;

const SIZES: usize = FINE_SIZES + 4 * (MOST.trailing_zeros() - FINE.trailing_zeros()) as usize;

/// From here on what is given back is given back to the kernel too, but its addresses.
const LARGE: usize = 1 << 16;

/// The allocator of a program with a server of handlers, for children that are born faster and weigh less.
///
/// What the server alone uses is kept where no child is given a copy of it; everything else is the system's. Without it a server does the
/// same, and each of its children keeps a few pages more that it never looks at.
///
/// ```no_run
/// #[global_allocator]
/// static APART: tine::Apart = tine::Apart;
/// # mod tine { pub use tine_os::apart::Apart; }
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Apart;

thread_local! {
    /// Whether this thread asks for memory apart just now.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Whether what is apart is here, and this thread's.
    static OWNER: Cell<bool> = const { Cell::new(false) };
    /// Whether a child that is born now has all of it too.
    static SHARING: Cell<bool> = const { Cell::new(false) };
    /// An address in the stack of one that is inside, above which it does not write for a client; or 0.
    static STACK: Cell<usize> = const { Cell::new(0) };
}

/// Where it is; null while there is none.
static BASE: AtomicPtr<Books> = AtomicPtr::new(ptr::null_mut());

/// Whether [`Apart`] is the program's allocator.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// What is at its beginning.
struct Books {
    /// What was given out so far ends here.
    next: usize,
    /// What is usable ends here.
    usable: usize,
    /// What was given back, by size.
    free: [Option<NonNull<Free>>; SIZES],
}

/// What was given back says where the next one is.
struct Free {
    next: Option<NonNull<Free>>,
}

/// Does something whose memory is apart; what it makes must not be looked at in a child.
pub fn inside<R>(what: impl FnOnce() -> R) -> R {
    open();
    let here = 0u8;
    let _stack = set(&STACK, &raw const here as usize);
    let _inside = set(&INSIDE, true);
    what()
}

/// Does something, [`inside`], whose memory children are given a copy of.
pub fn outside<R>(what: impl FnOnce() -> R) -> R {
    let _outside = set(&INSIDE, false);
    what()
}

/// Forks a child that is given a copy of all, and may go on as this process does.
///
/// # Errors
/// ENOMEM: madvise(2). Nothing was forked then.
pub fn shared<R>(fork: impl FnOnce() -> R) -> io::Result<R> {
    if !OWNER.get() {
        return Ok(fork());
    }
    advise(Advice::LinuxKeepOnFork)?;
    let sharing = set(&SHARING, true);
    let result = fork();
    drop(sharing);
    // In both processes. It was done before, so it can be done again; should it fail, children weigh more.
    let _ = advise(Advice::LinuxWipeOnFork);
    Ok(result)
}

/// In a fresh child.
pub(crate) fn born() {
    if !SHARING.get() && OWNER.replace(false) {
        INSIDE.set(false);
        let base = BASE.load(Relaxed).cast();
        // SAFETY: what was in this mapping is not copied, so whoever looks there is wrong, and is to die of it rather than find nothing
        // but zeros. Should it fail they are found; nothing else changes (mprotect(2)).
        let _ = unsafe { rustix::mm::mprotect(base, MOST, MprotectFlags::empty()) };
        own_stack();
    }
}

/// Writes to the pages of the stack that the master writes to for each client, so that they are this process's own: else it
/// would keep the master's old ones.
fn own_stack() {
    let here = 0u8;
    let (low, high) = (&raw const here as usize, STACK.get());
    for at in (low.next_multiple_of(PAGE)..high).step_by(PAGE).chain([high]).filter(|at| *at > low) {
        let place = ptr::with_exposed_provenance_mut::<u8>(at);
        // SAFETY: it is between two variables in this thread's stack, or the upper of them, so it is mapped, and no other thread is there.
        let byte = unsafe { place.read_volatile() };
        // SAFETY: as above; what is there stays as it was.
        unsafe { place.write_volatile(byte) };
    }
}

/// Sets something of this thread's, until what this gives is dropped.
fn set<T: Copy>(what: &'static LocalKey<Cell<T>>, to: T) -> impl Drop {
    struct Back<T: Copy + 'static>(&'static LocalKey<Cell<T>>, T);
    impl<T: Copy> Drop for Back<T> {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    Back(what, what.replace(to))
}

/// Makes the mapping, once. Where there is none to be had, all memory is the system's.
fn open() {
    static ONCE: Once = Once::new();
    if IN_USE.load(Relaxed) {
        ONCE.call_once(make);
    }
}

fn make() {
    let (none, flags) = (ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE);
    // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing in this process (mmap(2)).
    let Ok(base) = (unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), MOST, none, flags) }) else {
        return;
    };
    // SAFETY: the mapping was made just above, and nobody else knows of it (madvise(2)).
    let apart = unsafe { rustix::mm::madvise(base, MOST, Advice::LinuxWipeOnFork) };
    // Large pages would be more memory than is used. SAFETY: as above; a kernel that has none need not know of it.
    let _ = unsafe { rustix::mm::madvise(base, MOST, Advice::LinuxNoHugepage) };
    let both = MprotectFlags::READ | MprotectFlags::WRITE;
    // SAFETY: as above; it is the first part of it (mprotect(2)).
    let usable = unsafe { rustix::mm::mprotect(base, STEP, both) };
    if apart.and(usable).is_err() {
        return;
    }
    let books = base.cast::<Books>();
    let next = size_of::<Books>().next_multiple_of(GRAIN);
    // SAFETY: the first part is usable, larger than this, aligned to a page, and nobody else's.
    unsafe { books.write(Books { next, usable: STEP, free: [None; SIZES] }) };
    BASE.store(books, Relaxed);
    OWNER.set(true);
}

fn advise(advice: Advice) -> io::Result<()> {
    fault::point("madvise")?;
    let base = BASE.load(Relaxed).cast();
    // SAFETY: the mapping is this thread's and stays; whether children have a copy changes nothing in this process (madvise(2)).
    unsafe { rustix::mm::madvise(base, MOST, advice)? };
    Ok(())
}

fn is_here(pointer: *mut u8) -> bool {
    let base = BASE.load(Relaxed);
    !base.is_null() && (pointer as usize).wrapping_sub(base as usize) < MOST
}

/// The number of a size, and how much that is.
fn size(wanted: usize) -> Option<(usize, usize)> {
    if wanted <= FINE {
        let grains = wanted.div_ceil(GRAIN).max(1);
        return Some((grains - 1, grains * GRAIN));
    }
    // From 512 on: each doubling in four.
    let doubling = (usize::BITS - 1 - (wanted - 1).leading_zeros()) as usize;
    let quarter = 1 << (doubling - 2);
    let size = wanted.next_multiple_of(quarter);
    let nth = (size - (1 << doubling)) / quarter;
    let number = FINE_SIZES + 4 * (doubling - FINE.trailing_zeros() as usize) + nth - 1;
    (number < SIZES).then_some((number, size))
}

impl Books {
    fn take(&mut self, base: *mut u8, wanted: usize) -> Option<NonNull<u8>> {
        let (number, size) = size(wanted)?;
        if let Some(free) = self.free[number] {
            // SAFETY: who is in this list was given back, is large enough for this, and is nobody's.
            self.free[number] = unsafe { free.read() }.next;
            return Some(free.cast());
        }
        let (at, next) = (self.next, self.next.checked_add(size)?);
        if next > MOST {
            return None;
        }
        if next > self.usable {
            let more = (next - self.usable).next_multiple_of(STEP).min(MOST - self.usable);
            let both = MprotectFlags::READ | MprotectFlags::WRITE;
            let end = base.wrapping_add(self.usable);
            // SAFETY: it is the next part of the mapping, which was given to nobody yet (mprotect(2)).
            unsafe { rustix::mm::mprotect(end.cast(), more, both) }.ok()?;
            self.usable += more;
        }
        self.next = next;
        NonNull::new(base.wrapping_add(at))
    }

    fn give_back(&mut self, pointer: NonNull<u8>, wanted: usize) {
        let Some((number, size)) = size(wanted) else { return };
        if size >= LARGE {
            let from = (pointer.as_ptr() as usize).next_multiple_of(PAGE);
            let to = (pointer.as_ptr() as usize + size) / PAGE * PAGE;
            // SAFETY: it was given back, so nobody minds what is in it (madvise(2)).
            let _ = unsafe { rustix::mm::madvise(from as *mut _, to - from, Advice::LinuxDontNeed) };
        }
        let free = pointer.cast::<Free>();
        // SAFETY: it was given back, is of this size and so large enough for this, and aligned.
        unsafe { free.write(Free { next: self.free[number] }) };
        self.free[number] = Some(free);
    }
}

// SAFETY: what is not apart is handed on to `System`, unchanged. What is apart is given out once until it is given back, as
// large as was asked for, aligned to `GRAIN`, and by one thread alone: the mapping's owner. Another thread that gives back
// something of it leaves it be.
unsafe impl GlobalAlloc for Apart {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if INSIDE.get() && layout.align() <= GRAIN && OWNER.get() {
            let books = BASE.load(Relaxed);
            // SAFETY: the books are the owner's, who is this thread, and is not in them already.
            if let Some(place) = unsafe { &mut *books }.take(books.cast(), layout.size()) {
                return place.as_ptr();
            }
        }
        if !IN_USE.load(Relaxed) {
            IN_USE.store(true, Relaxed);
        }
        // SAFETY: the caller keeps `alloc`'s contract for `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !INSIDE.get() {
            // The system's is fresh from the kernel where it is large, and zero without anybody's writing that.
            // SAFETY: the caller keeps `alloc_zeroed`'s contract for `layout`.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller keeps `alloc_zeroed`'s contract for `layout`, and `alloc`'s is the same.
        let place = unsafe { self.alloc(layout) };
        if !place.is_null() {
            // SAFETY: it was given out just now, and is as large as that.
            unsafe { place.write_bytes(0, layout.size()) };
        }
        place
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !is_here(pointer) {
            // SAFETY: it came from `System` then, with this layout, as the caller promises.
            return unsafe { System.dealloc(pointer, layout) };
        }
        if OWNER.get() {
            // SAFETY: not null, as the allocator has given it out.
            let pointer = unsafe { NonNull::new_unchecked(pointer) };
            // SAFETY: the books are the owner's, who is this thread, and is not in them already.
            unsafe { &mut *BASE.load(Relaxed) }.give_back(pointer, layout.size());
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, wanted: usize) -> *mut u8 {
        if !is_here(pointer) && !INSIDE.get() {
            // SAFETY: it came from `System`, with this layout, as the caller promises.
            return unsafe { System.realloc(pointer, layout, wanted) };
        }
        if is_here(pointer) && size(layout.size()) == size(wanted) && size(wanted).is_some() {
            return pointer;
        }
        // SAFETY: the caller promises that this is a layout.
        let other = unsafe { Layout::from_size_align_unchecked(wanted, layout.align()) };
        // SAFETY: its size is not zero, as the caller promises.
        let place = unsafe { self.alloc(other) };
        if !place.is_null() {
            // SAFETY: both are as large as the lesser of the two, and apart from each other.
            unsafe { ptr::copy_nonoverlapping(pointer, place, layout.size().min(wanted)) };
            // SAFETY: as the caller promises; it is not used any more.
            unsafe { self.dealloc(pointer, layout) };
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_enough_and_each_has_its_own_number() {
        let mut last = (0, GRAIN);
        assert_eq!(size(0), Some(last));
        for wanted in (1..100_000).chain((100_000..MOST).step_by(99_991)).chain([MOST - 1, MOST]) {
            let (number, given) = size(wanted).unwrap_or_else(|| panic!("{wanted} has a size"));
            assert!(given >= wanted && given % GRAIN == 0, "{wanted}: {given}");
            assert!(
                given <= wanted.max(GRAIN) + (wanted / 4).max(GRAIN - 1),
                "{wanted}: {given} is much more"
            );
            assert!(number < SIZES && (number == last.0) == (given == last.1), "{wanted}: {number}");
            assert!(number >= last.0 && given >= last.1, "{wanted}");
            last = (number, given);
        }
        assert_eq!(last, (SIZES - 1, MOST));
        assert_eq!(size(MOST + 1), None);
    }
}
