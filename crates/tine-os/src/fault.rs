//! The fault point: lets a test fail the n-th system call of a run with a chosen errno.
//!
//! Every wrapper in this crate passes `point` with its call's name before it asks the kernel. Without the
//! `fault` feature that is nothing at all. With it, `TINE_FAULT=n[:ERRNO]` makes the n-th call fail, counted over
//! the process and all it forks; `TINE_FAULT=CALL.n[:ERRNO]` the n-th of those that have this name. SQLite's tests work this way: n = 1, 2, 3 ... until a run passes that the fault never
//! struck.

/// Notes in a fresh child how often memory had been asked for before it was born.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub(crate) fn born() {}

/// Fails when the way from the fork to here has asked for memory.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub(crate) fn frugal() -> std::io::Result<()> {
    Ok(())
}

/// Fails when this is the call that was chosen to fail.
#[cfg(not(feature = "fault"))]
#[inline(always)]
pub(crate) fn point(_call: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "fault")]
pub use armed::{Counting, allocations_since_fork};
#[cfg(feature = "fault")]
pub(crate) use armed::{born, frugal, point};

#[cfg(feature = "fault")]
mod armed {
    use std::alloc::{GlobalAlloc, Layout};
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

    use crate::apart::Apart;

    /// Longer than any such line.
    const LINE: usize = 120;

    /// What parent and children share.
    #[repr(C)]
    struct Shared {
        calls: AtomicU64,
        /// How much of the line there is that could not be told where it was struck: a process may have no log.
        untold: AtomicU64,
        line: [AtomicU8; LINE],
    }

    /// What `TINE_FAULT` asked for, and the count that parent and children share.
    struct Armed {
        /// Which calls are counted; `None`: all.
        call: Option<String>,
        nth: Option<u64>,
        errno: Option<i32>,
        shared: &'static Shared,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    /// The names that `TINE_FAULT=n:NAME` knows.
    const ERRNOS: [(&str, i32); 19] = [
        ("E2BIG", libc::E2BIG),
        ("EAGAIN", libc::EAGAIN),
        ("ECONNABORTED", libc::ECONNABORTED),
        ("EFAULT", libc::EFAULT),
        ("EINTR", libc::EINTR),
        ("EINVAL", libc::EINVAL),
        ("EIO", libc::EIO),
        ("EMFILE", libc::EMFILE),
        ("ENFILE", libc::ENFILE),
        ("ENOBUFS", libc::ENOBUFS),
        ("ENOENT", libc::ENOENT),
        ("ENOMEM", libc::ENOMEM),
        ("ENOPROTOOPT", libc::ENOPROTOOPT),
        ("ENOSPC", libc::ENOSPC),
        ("ENOSYS", libc::ENOSYS),
        ("EOPNOTSUPP", libc::EOPNOTSUPP),
        ("EPERM", libc::EPERM),
        ("EPROTO", libc::EPROTO),
        ("ETOOMANYREFS", libc::ETOOMANYREFS),
    ];

    /// What each call fails with when the walk names no errno.
    fn usual(call: &str) -> i32 {
        match call {
            "fork" => libc::EAGAIN,
            "accept4" | "socket" | "socketpair" | "pipe2" | "open" | "dup" | "epoll_create1" | "signalfd"
            | "pidfd_open" | "memfd_create" => libc::EMFILE,
            "poll" | "epoll_wait" | "wait4" | "read" | "write" | "recvmsg" | "sendmsg" => libc::EINTR,
            "setsockopt" => libc::ENOPROTOOPT,
            "execve" => libc::ENOMEM,
            _ => libc::EPERM,
        }
    }

    fn arm() -> Option<Armed> {
        let wish = std::env::var("TINE_FAULT").ok()?;
        let (nth, name) = wish.split_once(':').map_or((wish.as_str(), None), |(n, name)| (n, Some(name)));
        let (call, nth) = nth.split_once('.').map_or((None, nth), |(call, nth)| (Some(call.to_owned()), nth));
        let errno = name.and_then(|name| ERRNOS.iter().find(|(known, _)| *known == name)).map(|(_, e)| *e);
        Some(Armed { call, nth: nth.parse().ok(), errno, shared: shared() })
    }

    /// Zeroed, in a page that survives `fork` as the same page.
    fn shared() -> &'static Shared {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let flags = MapFlags::SHARED;
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing (mmap(2)).
        let page = unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, both, flags) };
        let page = page.expect("a test run has a page of memory to count in");
        // SAFETY: the page is zeroed, aligned, larger than this, and never unmapped: it holds valid atomics for ever.
        unsafe { &*page.cast::<Shared>() }
    }

    pub(crate) fn point(call: &'static str) -> io::Result<()> {
        let Some(armed) = ARMED.get_or_init(arm) else { return Ok(()) };
        armed.shared.tell();
        if armed.call.as_ref().is_some_and(|counted| counted != call) {
            return Ok(());
        }
        let n = armed.shared.calls.fetch_add(1, Relaxed) + 1;
        if armed.nth != Some(n) {
            return Ok(());
        }
        let errno = armed.errno.unwrap_or_else(|| usual(call));
        let name = ERRNOS.iter().find(|(_, known)| *known == errno).map_or("other", |(name, _)| name);
        armed.shared.keep(format!("fault  n={n} call={call} errno={name}\n").as_bytes());
        armed.shared.tell();
        Err(io::Error::from_raw_os_error(errno))
    }

    impl Shared {
        fn keep(&self, line: &[u8]) {
            self.line.iter().zip(line).for_each(|(place, byte)| place.store(*byte, Relaxed));
            self.untold.store(line.len().min(self.line.len()) as u64, SeqCst);
        }

        /// Tells what is untold, or leaves it to whoever comes next. In one piece, or it would be torn apart by what others write.
        fn tell(&self) {
            let length = self.untold.swap(0, SeqCst) as usize;
            if length == 0 {
                return;
            }
            let line = std::array::from_fn::<u8, LINE, _>(|at| self.line[at].load(Relaxed));
            // Not the library's: to that a log that is closed is one.
            if rustix::io::write(rustix::stdio::stderr(), &line[..length]).is_err() {
                self.untold.store(length as u64, SeqCst);
            }
        }
    }

    static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

    static BEFORE_BIRTH: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn born() {
        BEFORE_BIRTH.store(ALLOCATIONS.load(Relaxed), Relaxed);
    }

    pub(crate) fn frugal() -> io::Result<()> {
        match allocations_since_fork() {
            0 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EOVERFLOW)),
        }
    }

    /// How many times this process has asked for memory since it was forked; zero unless [`Counting`] is the program's
    /// global allocator.
    pub fn allocations_since_fork() -> u64 {
        ALLOCATIONS.load(Relaxed) - BEFORE_BIRTH.load(Relaxed)
    }

    /// [`Apart`] with a count, to show that the way from fork to handler or exec allocates nothing.
    pub struct Counting;

    // SAFETY: every call is handed on unchanged to `Apart`, which keeps the contract of `GlobalAlloc`; the count
    // beside it is an atomic and allocates nothing.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.fetch_add(1, Relaxed);
            // SAFETY: the caller keeps `alloc`'s contract for `layout`, and it is handed on unchanged.
            unsafe { Apart.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: `pointer` came from `Apart.alloc` above with the same `layout`, as the caller promises.
            unsafe { Apart.dealloc(pointer, layout) }
        }
    }
}
