//! The cheap birth of a program: a child that shares this process's memory until it has become the program, while this process
//! goes on with its work. vfork(2), clone3(2), set_tid_address(2).
//!
//! A fork copies page tables, and each page that either side writes to afterwards; here nothing is copied but the table of
//! descriptors, whatever this process's size. And where vfork(2) has the parent sleep until the child has executed, several children
//! are on their way here at once, on as many processors. What it takes is that each has a place of its own, a [`Cot`]: a
//! stack, and all that it reads or writes, which nobody else touches until the kernel says that it has left this memory
//! (CLONE_CHILD_CLEARTID). Nor must it ask for memory, wait for anybody, or panic. It has this thread's `errno`: a call that fails in
//! it at the instant at which one fails here may give that one its own number, and nothing worse.
//!
//! This is not for a child that becomes another user: between that and execve(2) whoever has that user already could trace it,
//! and with it this process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Acquire, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::thread::futex;

use crate::fork::{CLONE_INTO_CGROUP, CloneArgs, exit};
use crate::namespace::Namespaces;
use crate::seccomp::Key;
use crate::{Pid, fault, fd, wait};

/// Where children are born that only become a program. Each needs a `T` for that.
#[derive(Debug)]
pub struct Nursery<T> {
    places: Vec<Place<T>>,
    /// Where the next child is born, if it is free: the one that was used longest ago.
    next: usize,
    /// A place was waited for in vain, and none was free since.
    stuck: bool,
}

/// One of its places.
#[derive(Debug)]
struct Place<T> {
    /// The lowest page cannot be touched, so that a stack that is too small ends the child and harms nobody.
    stack: NonNull<libc::c_void>,
    job: NonNull<Job<T>>,
}

/// What a child finds in this memory.
#[derive(Debug)]
struct Job<T> {
    /// Not 0 while a child is here; the kernel clears it when that has executed a program or ended.
    here: AtomicU32,
    what: T,
    client: RawFd,
    task: Task<T>,
    /// The child's process id as its parent knows it, written by the kernel before the child begins; 0 where it was not asked to.
    pid: AtomicI32,
}

/// What a child does: it is given what it needs, its client's connection, and its process id as its parent knows it, where that could
/// be had for nothing; it ends with this status.
pub type Task<T> = fn(&mut T, BorrowedFd<'_>, Option<Pid>) -> u8;

/// A free place, in which a child can be born once.
#[derive(Debug)]
pub struct Cot<'a, T> {
    place: &'a mut Place<T>,
}

/// What a child is born with.
#[derive(Clone, Copy, Debug, Default)]
pub struct With<'a> {
    /// The control group, by its directory: [`crate::cgroup::Leaf`].
    pub group: Option<BorrowedFd<'a>>,
    /// Whether this process gets a process descriptor.
    pub pidfd: bool,
    /// Namespaces of its own.
    pub namespaces: Namespaces,
    /// Whether it is the child of this process's parent and not of this one: clone(2), CLONE_PARENT.
    pub sibling: bool,
    /// What a filter that this process wears knows it by where clone3(2) is refused to others.
    pub key: Key,
}

impl With<'_> {
    /// Whether nothing is asked for that a plain fork does not give.
    pub fn is_nothing(&self) -> bool {
        self.group.is_none() && !self.pidfd && !self.sibling && self.namespaces.is_empty()
    }

    pub(crate) fn flags(&self) -> u64 {
        let mut flags = self.namespaces.flags();
        flags |= if self.pidfd { libc::CLONE_PIDFD as u64 } else { 0 };
        flags |= if self.group.is_some() { CLONE_INTO_CGROUP } else { 0 };
        flags | if self.sibling { libc::CLONE_PARENT as u64 } else { 0 }
    }

    /// What its parent is told of its end by; whose sibling it is, that one's parent is told of both in the same way.
    pub(crate) fn exit_signal(&self) -> u64 {
        if self.sibling { 0 } else { libc::SIGCHLD as u64 }
    }

    /// Whether it can be asked for by clone(2), which a filter can look at, and which therefore is what a confined process may use.
    pub(crate) fn is_plain(&self) -> bool {
        self.group.is_none() && (self.sibling || !self.namespaces.is_empty())
    }
}

/// A child that was born here.
#[derive(Debug)]
pub struct Newborn {
    /// Its process id.
    pub pid: Pid,
    /// Its process descriptor, if one was asked for.
    pub pidfd: Option<OwnedFd>,
}

/// Ours, of which a child's steps use a few KiB; and the page that guards it.
const STACK: usize = 64 << 10;
const GUARD: usize = 64 << 10;

/// linux/sched.h; wider than the flags that the C library names.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// How long a place is waited for when none is free: a child takes a tenth of a millisecond, unless somebody has stopped it.
const PATIENCE: Duration = Duration::from_secs(1);

/// After so long all places are looked at again, for only one can be slept at.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

impl<T> Nursery<T> {
    /// One for so many children at once, and tries it, with a child that does nothing: what works now will work for clients.
    ///
    /// # Errors
    /// ENOSYS, EPERM where a filter does not allow clone3(2), `Unsupported` on a processor that this is not written for; ENOMEM,
    /// EMFILE.
    ///
    /// # Panics
    /// When it is for none.
    pub fn new(children: usize, mut what: impl FnMut() -> T) -> io::Result<Nursery<T>> {
        assert!(children > 0, "a nursery is for somebody");
        let places = (0..children).map(|_| Place::new(what())).collect::<io::Result<_>>()?;
        let mut nursery = Nursery { places, next: 0, stuck: false };
        const FINE: u8 = 7;
        let born = nursery.cot()?.bear(
            fd::null()?.as_fd(),
            With { pidfd: true, ..With::default() },
            |_, _, _| FINE,
        )?;
        match wait::wait_blocking(born.pid)?.code() {
            Some(status) if status == i32::from(FINE) && nursery.is_empty() => Ok(nursery),
            _ => Err(io::Error::other("a child that shares memory did not end as it was told to")),
        }
    }

    /// A free place. When there is none, one is waited for, a second at most; after that not again until one is free.
    ///
    /// # Errors
    /// `TimedOut`: somebody has stopped as many children as there are places.
    pub fn cot(&mut self) -> io::Result<Cot<'_, T>> {
        let until = Instant::now() + PATIENCE;
        let count = self.places.len();
        loop {
            let all = (0..count).map(|step| (self.next + step) % count);
            if let Some(at) = all.into_iter().find(|at| self.places[*at].is_free()) {
                (self.next, self.stuck) = ((at + 1) % count, false);
                return Ok(Cot { place: &mut self.places[at] });
            }
            if self.stuck || Instant::now() >= until {
                self.stuck = true;
                let why = "children that were being born do not get on; has somebody stopped them?";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            self.places[self.next].sleep();
        }
    }

    /// Whether no child is here.
    pub fn is_empty(&self) -> bool {
        self.places.iter().all(Place::is_free)
    }

    /// From here on what this process forks has no stacks of it, which would be two mappings for each to copy and to take down again: it
    /// can have nobody born here then. madvise(2), MADV_DONTFORK. Where that fails, they are there, and cost that.
    pub fn keep_from_forks(&self) {
        for place in &self.places {
            // SAFETY: the mapping is ours, `new`, and nothing in it changes. It is missing in a fork of this process, which must not
            // use or drop the nursery: whoever calls this sees to that, by forking only children that execute or exit.
            let _ = unsafe {
                rustix::mm::madvise(place.stack.as_ptr(), GUARD + STACK, rustix::mm::Advice::LinuxDontFork)
            };
        }
    }
}

impl<T> Place<T> {
    fn new(what: T) -> io::Result<Place<T>> {
        fault::point("mmap")?;
        let (none, flags) = (ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing in this process (mmap(2)).
        let all = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), GUARD + STACK, none, flags)? };
        let stack = NonNull::new(all).ok_or(io::ErrorKind::OutOfMemory)?;
        let job =
            Job { here: AtomicU32::new(0), what, client: -1, task: |_, _, _| 0, pid: AtomicI32::new(0) };
        let place = Place { stack, job: NonNull::from(Box::leak(Box::new(job))) };
        let both = MprotectFlags::READ | MprotectFlags::WRITE;
        let bottom = all.wrapping_byte_add(GUARD);
        // SAFETY: the pages are the upper part of the mapping made just above, which nobody else knows of.
        unsafe { rustix::mm::mprotect(bottom, STACK, both)? };
        Ok(place)
    }

    fn here(&self) -> &AtomicU32 {
        // SAFETY: the job lives as long as its place; of it only this word is looked at, which is atomic, whoever else is there.
        unsafe { &(*self.job.as_ptr()).here }
    }

    /// Whether nobody is there. Acquire: then all that a child did to its job is done.
    fn is_free(&self) -> bool {
        self.here().load(Acquire) == 0
    }

    /// Until somebody leaves, or for a moment.
    fn sleep(&self) {
        let here = self.here();
        let seen = here.load(Relaxed);
        if seen != 0 {
            // Whatever it says, it is looked at again. Not private: it is the kernel that wakes, for any process (futex(2)).
            let _ = futex::wait(here, futex::Flags::empty(), seen, Some(&LOOK));
        }
    }
}

impl<T> Cot<'_, T> {
    /// What the child will need, as the last one here has left it.
    pub fn what(&mut self) -> &mut T {
        // SAFETY: the place is free, so no child uses its job, and `&mut self` keeps everybody else out.
        unsafe { &mut (*self.place.job.as_ptr()).what }
    }

    /// A child is born, `with` these things, and does `task`, with its client's connection at the
    /// number that it has here: the child has a copy of all descriptors. It ends with what `task` returns as its status. Signals that
    /// have a handler here have none there.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM when the kernel refuses; EMFILE, ENFILE for want of a process descriptor; EBUSY and others of the control
    /// group's. Nobody was born then.
    pub fn bear(self, client: BorrowedFd<'_>, with: With<'_>, task: Task<T>) -> io::Result<Newborn> {
        fault::point("fork")?;
        let place = self.place;
        // SAFETY: the place is free, so no child uses its job, and nobody else has the place.
        let job = unsafe { place.job.as_mut() };
        (job.client, job.task) = (client.as_raw_fd(), task);
        // Relaxed: the child begins after this in any case.
        job.here.store(1, Relaxed);
        let here = job.here.as_ptr();
        let pidfd = AtomicI32::new(-1);
        let wanted = with.pidfd;
        job.pid.store(0, Relaxed);
        let (plain, key) = (with.is_plain(), with.key.words());
        // Handlers that clone(2) would leave in the child belong to signals that are blocked until it has put them back itself.
        let flags = (libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID) as u64
            | WALKED
            | with.flags()
            // The older call has one place for both.
            | if plain && wanted { 0 } else { libc::CLONE_PARENT_SETTID as u64 }
            | if plain { 0 } else { CLONE_CLEAR_SIGHAND };
        let args = CloneArgs {
            flags,
            pidfd: pidfd.as_ptr() as u64,
            child_tid: here as u64,
            parent_tid: job.pid.as_ptr() as u64,
            exit_signal: with.exit_signal(),
            stack: place.stack.as_ptr().wrapping_byte_add(GUARD) as u64,
            stack_size: STACK as u64,
            cgroup: with.group.map_or(0, |group| group.as_raw_fd() as u64),
            ..CloneArgs::default()
        };
        let begin = begin::<T> as extern "C" fn(*mut Job<T>) -> !;
        // SAFETY: `args` is a live structure. Its stack and `job` belong to a place that was free, so no other child uses them; and
        // none will, nor this process, before the kernel has cleared `here`, which it does when the child has left this memory.
        // They are not unmapped before that either (`drop`). `begin` does not return.
        let result =
            unsafe { clone_and_call(&args, plain, key, begin as *const (), place.job.as_ptr().cast()) };
        if result < 0 {
            place.here().store(0, Relaxed);
            return Err(io::Error::from_raw_os_error(-result as i32));
        }
        let pidfd = wanted.then(|| pidfd.load(Relaxed));
        // SAFETY: the kernel has made this descriptor for us, CLONE_PIDFD; nobody else knows it.
        let pidfd = pidfd.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        let pid = Pid::from_raw(result as i32).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Newborn { pid, pidfd })
    }
}

/// A walk through all faults counts calls and allocations of one process after the other: there, this one sleeps while a child is
/// here, as in vfork(2).
const WALKED: u64 = if cfg!(feature = "fault") { libc::CLONE_VFORK as u64 } else { 0 };

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.is_free() && Instant::now() < until {
            self.sleep();
        }
        if !self.is_free() {
            // Somebody has stopped it. What it stands on must stay, for ever.
            return;
        }
        // SAFETY: the mapping is ours alone, and the child that used it has left it.
        let _ = unsafe { rustix::mm::munmap(self.stack.as_ptr(), GUARD + STACK) };
        // SAFETY: it comes from a box, `new`, and nobody uses it any more.
        drop(unsafe { Box::from_raw(self.job.as_ptr()) });
    }
}

/// The child's first function.
extern "C" fn begin<T>(job: *mut Job<T>) -> ! {
    fault::born();
    // SAFETY: the parent has made `job` for this child alone, and until that has left it looks at nothing of it but `here`, which is
    // not borrowed here.
    let what = unsafe { &mut (*job).what };
    // SAFETY: the job is live and this child's alone, as said above; a function pointer is copied out of it.
    let task = unsafe { (*job).task };
    // SAFETY: the job is live and this child's alone, as said above; a number is copied out of it.
    let client = unsafe { (*job).client };
    // SAFETY: the parent had it open when it called `bear`, and this process's descriptors are a copy of that moment's.
    let client = unsafe { BorrowedFd::borrow_raw(client) };
    // SAFETY: the job is live and this child's alone, as said above; the kernel has written the number before the child began.
    let pid = unsafe { (*job).pid.load(Relaxed) };
    exit(task(what, client, Pid::from_raw(pid)))
}

/// clone3(2), or the older clone(2) where it is asked for `plain`ly, with a stack for the child, which calls `begin` with `job`
/// there. Gives the child's id or a negative errno. `key`: see [`Key`].
///
/// # Safety
/// `args` must name a stack that nobody uses until the child has ended or executed a program, and `begin` must be a function
/// that takes `job` and does not return.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_and_call(
    args: &CloneArgs,
    plain: bool,
    key: [u64; 2],
    begin: *const (),
    job: *mut libc::c_void,
) -> i64 {
    let result: i64;
    let [number, first, second, third, fourth] = match plain {
        false => [
            libc::SYS_clone3 as u64,
            ptr::from_ref(args) as u64,
            size_of::<CloneArgs>() as u64,
            key[0],
            key[1],
        ],
        true => {
            let (flags, top) = (args.flags | args.exit_signal, args.stack + args.stack_size);
            let told = if flags & libc::CLONE_PIDFD as u64 != 0 { args.pidfd } else { args.parent_tid };
            [libc::SYS_clone as u64, flags, top, told, args.child_tid]
        }
    };
    // SAFETY: as the caller promises. Parent and child leave the call with the same registers but for rax and the stack pointer;
    // the child stays within these lines and `begin`, so nothing of the parent's frame is touched by it. The stack's top is
    // a multiple of 16, as a call wants it.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r12") job,
            in("r13") begin,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// As above.
///
/// # Safety
/// `args` must name a stack that nobody uses until the child has ended or executed a program, and `begin` must be a function
/// that takes `job` and does not return.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_and_call(
    args: &CloneArgs,
    plain: bool,
    key: [u64; 2],
    begin: *const (),
    job: *mut libc::c_void,
) -> i64 {
    let result: i64;
    let [number, first, second, third, fourth, fifth] = match plain {
        false => [
            libc::SYS_clone3 as u64,
            ptr::from_ref(args) as u64,
            size_of::<CloneArgs>() as u64,
            key[0],
            key[1],
            0,
        ],
        true => {
            let (flags, top) = (args.flags | args.exit_signal, args.stack + args.stack_size);
            let told = if flags & libc::CLONE_PIDFD as u64 != 0 { args.pidfd } else { args.parent_tid };
            [libc::SYS_clone as u64, flags, top, told, 0, args.child_tid]
        }
    };
    // SAFETY: as the caller promises. Parent and child leave the call with the same registers but for x0 and the stack pointer;
    // the child stays within these lines and `begin`, so nothing of the parent's frame is touched by it. There the fourth
    // argument is what thread-local memory is found by, which stays as it is without CLONE_SETTLS, and the fifth the child's id.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {job}",
            "blr {begin}",
            "brk 1",
            "2:",
            job = in(reg) job,
            begin = in(reg) begin,
            in("x8") number,
            inlateout("x0") first => result,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            in("x4") fifth,
            lateout("x30") _,
        );
    }
    result
}

/// On other processors children are born by fork.
///
/// # Safety
/// Nothing has to hold, for nothing is done; it is unsafe because the others are.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone_and_call(_: &CloneArgs, _: bool, _: [u64; 2], _: *const (), _: *mut libc::c_void) -> i64 {
    -i64::from(libc::ENOSYS)
}
