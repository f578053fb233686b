//! The cheap birth of a program: a child that shares this process's memory and table of descriptors until it has become the
//! program, while this process sleeps. vfork(2), clone3(2), close_range(2).
//!
//! A fork copies page tables, and each page that either side writes to afterwards; here nothing is copied, whatever this
//! process's size, and of the descriptors only the lowest few. What it takes is that the child does little before it executes:
//! it must not wait for anybody, for this process waits for it. Nor is it for a child that becomes another user: between
//! that and execve(2) whoever has that user already could stop it, and with it this process.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::fork::{CLONE_INTO_CGROUP, CloneArgs, exit};
use crate::{Pid, check, fault, fd, wait};

/// Where children are born that only become a program.
#[derive(Debug)]
pub struct Nursery {
    /// The lowest page cannot be touched, so that a stack that is too small ends the child and harms nobody.
    stack: NonNull<libc::c_void>,
    /// Where the child finds its client: a number among the lowest, while connections have any.
    cradle: OwnedFd,
    /// What is there otherwise.
    empty: OwnedFd,
}

/// What a child is born with.
#[derive(Clone, Copy, Debug)]
pub struct With<'a> {
    /// The control group, by its directory: [`crate::cgroup::Leaf`].
    pub group: Option<BorrowedFd<'a>>,
    /// Descriptors from here on are not the child's: [`Nursery::first_above`].
    pub first: RawFd,
    /// Whether this process gets a process descriptor.
    pub pidfd: bool,
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

/// What the child is to do.
struct Job<F> {
    task: Option<F>,
    first: RawFd,
}

impl Nursery {
    /// Makes one and tries it, with a child that does nothing: what works now will work for clients.
    ///
    /// # Errors
    /// ENOSYS, EPERM where a filter does not allow clone3(2), `Unsupported` on a processor that this is not written for; ENOMEM,
    /// EMFILE.
    pub fn new() -> io::Result<Nursery> {
        fault::point("mmap")?;
        let (none, flags) = (ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing in this process (mmap(2)).
        let all = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), GUARD + STACK, none, flags)? };
        let both = MprotectFlags::READ | MprotectFlags::WRITE;
        let bottom = all.wrapping_byte_add(GUARD);
        // SAFETY: the pages are the upper part of the mapping made just above, which nobody else knows of.
        unsafe { rustix::mm::mprotect(bottom, STACK, both)? };
        let stack = NonNull::new(all).ok_or(io::ErrorKind::OutOfMemory)?;
        let empty = fd::duplicate_low(fd::null()?)?;
        let cradle = fd::duplicate_low(&empty)?;
        let mut nursery = Nursery { stack, cradle, empty };
        nursery.works()?;
        Ok(nursery)
    }

    /// The highest of the descriptors that a child needs, if those of `others` are all that it needs beside its client's.
    pub fn first_above(&self, others: &[RawFd]) -> RawFd {
        others.iter().copied().chain([self.cradle.as_raw_fd()]).max().unwrap_or(0) + 1
    }

    /// A child is born, `with` these things, and does `task`; this process sleeps until the child has
    /// executed a program or ended, with what `task` returns as its status.
    ///
    /// `task` is given its client's connection, as a descriptor that it may place, and finds all other descriptors below
    /// `first` open; or else why they could not be made its own, and then it must touch none of them. Signals that have a
    /// handler here have none there. What `task` does to memory, this process does: it is as if it had been called here.
    /// What it holds when the program is executed is lost to both.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM when the kernel refuses; EMFILE, ENFILE for want of a process descriptor; EBUSY and others of the control
    /// group's. Nobody was born then.
    pub fn spawn<F>(&mut self, client: BorrowedFd<'_>, with: With<'_>, task: F) -> io::Result<Newborn>
    where
        F: FnOnce(BorrowedFd<'_>, io::Result<()>) -> u8,
    {
        fault::point("dup")?;
        rustix::io::dup3(client, &mut self.cradle, rustix::io::DupFlags::CLOEXEC)?;
        let cradle = self.cradle.as_fd();
        let born = self.born(with, |unshared| task(cradle, unshared));
        // The client must see the end when its child ends. Nothing but a number that is not open can keep this from working.
        let emptied = rustix::io::dup3(&self.empty, &mut self.cradle, rustix::io::DupFlags::CLOEXEC);
        debug_assert!(emptied.is_ok(), "both are open");
        born
    }

    fn born<F>(&self, with: With<'_>, task: F) -> io::Result<Newborn>
    where
        F: FnOnce(io::Result<()>) -> u8,
    {
        fault::point("fork")?;
        // A child that runs `task` may write there, after the kernel and before this process goes on.
        let pidfd = AtomicI32::new(-1);
        let With { group, first, pidfd: wanted } = with;
        let mut flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES) as u64 | CLONE_CLEAR_SIGHAND;
        flags |= if wanted { libc::CLONE_PIDFD as u64 } else { 0 };
        flags |= if group.is_some() { CLONE_INTO_CGROUP } else { 0 };
        let args = CloneArgs {
            flags,
            pidfd: pidfd.as_ptr() as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: self.stack.as_ptr().wrapping_byte_add(GUARD) as u64,
            stack_size: STACK as u64,
            cgroup: group.map_or(0, |group| group.as_raw_fd() as u64),
            ..CloneArgs::default()
        };
        let mut job = ManuallyDrop::new(Job { task: Some(task), first });
        let (begin, job) = (begin::<F> as extern "C" fn(*mut Job<F>) -> !, &raw mut *job);
        // SAFETY: `args` is a live structure, and its stack is one that only the child of this call uses, for `&mut self` of
        // `spawn` (or nobody else's knowing of it, in `new`) keeps others out and CLONE_VFORK keeps this call from
        // returning while the child lives in this memory. `job` lives until then, and `begin` does not return.
        let pid = check(unsafe { clone_and_call(&args, begin as *const (), job.cast()) } as libc::c_int)?;
        let pidfd = wanted.then(|| pidfd.load(Relaxed));
        // SAFETY: the kernel has made this descriptor for us, CLONE_PIDFD; nobody else knows it.
        let pidfd = pidfd.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Newborn { pid, pidfd })
    }

    fn works(&mut self) -> io::Result<()> {
        const FINE: u8 = 7;
        let with = With { group: None, first: self.first_above(&[]), pidfd: true };
        let born = self.born(with, |unshared| if unshared.is_ok() { FINE } else { 1 })?;
        match wait::wait_blocking(born.pid)?.code() {
            Some(status) if status == i32::from(FINE) => Ok(()),
            _ => Err(io::Error::other("a child that shares memory did not end as it was told to")),
        }
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no child uses it: the last one has left it before `born` returned.
        let _ = unsafe { rustix::mm::munmap(self.stack.as_ptr(), GUARD + STACK) };
    }
}

/// The child's first function: makes the descriptors its own, those from `first` on left out, and does its task.
extern "C" fn begin<F: FnOnce(io::Result<()>) -> u8>(job: *mut Job<F>) -> ! {
    fault::born();
    // SAFETY: the parent, which sleeps, has made `job` and looks at it no more; this runs once for it.
    let job = unsafe { &mut *job };
    let unshared = fault::point("close_range").and_then(|()| {
        let (first, last) = (job.first as libc::c_uint, libc::c_uint::MAX);
        // SAFETY: unshared first, so that what is closed is the child's copy only (close_range(2), CLOSE_RANGE_UNSHARE).
        let done = unsafe { libc::close_range(first, last, libc::CLOSE_RANGE_UNSHARE as libc::c_int) };
        check(done).map(drop)
    });
    exit(job.task.take().map_or(1, |task| task(unshared)))
}

/// clone3(2) with a stack for the child, which calls `begin` with `job` there. Gives the child's id or a negative errno, as -1
/// and `errno`.
///
/// # Safety
/// `args` must name a stack that nobody uses until the child has ended or executed a program, and `begin` must be a function
/// that takes `job` and does not return.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_and_call(args: &CloneArgs, begin: *const (), job: *mut libc::c_void) -> i64 {
    let result: i64;
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
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r12") job,
            in("r13") begin,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    errno_of(result)
}

/// As above.
///
/// # Safety
/// `args` must name a stack that nobody uses until the child has ended or executed a program, and `begin` must be a function
/// that takes `job` and does not return.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_and_call(args: &CloneArgs, begin: *const (), job: *mut libc::c_void) -> i64 {
    let result: i64;
    // SAFETY: as the caller promises. Parent and child leave the call with the same registers but for x0 and the stack pointer;
    // the child stays within these lines and `begin`, so nothing of the parent's frame is touched by it.
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
            in("x8") libc::SYS_clone3,
            inlateout("x0") args => result,
            in("x1") size_of::<CloneArgs>(),
            lateout("x30") _,
        );
    }
    errno_of(result)
}

/// On other processors children are born by fork.
///
/// # Safety
/// Nothing has to hold, for nothing is done; it is unsafe because the others are.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone_and_call(_: &CloneArgs, _: *const (), _: *mut libc::c_void) -> i64 {
    errno_of(-i64::from(libc::ENOSYS))
}

/// From the kernel's convention to the C library's.
fn errno_of(result: i64) -> i64 {
    if !(-4095..0).contains(&result) {
        return result;
    }
    // SAFETY: the place is this thread's own, always valid (errno(3)).
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else writes there while this thread runs.
    unsafe { place.write(-result as libc::c_int) };
    -1
}
