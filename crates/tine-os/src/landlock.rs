//! Landlock: a process gives up rights over files, TCP ports and other processes, for itself and all that it starts. landlock(7).
//!
//! A ruleset is made once, where paths can be opened and mistakes told; entering it is one call that asks for no memory. Whoever
//! enters it is in a domain of its own, and by that out of the reach of ptrace(2), and of what is asked like it (process_vm_readv(2),
//! pidfd_getfd(2), most of /proc/PID), of everybody in another domain; and, from ABI 6 on and where asked for, of their signals.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{check, fault, fd};

/// Rights over files. LANDLOCK_ACCESS_FS_* of linux/landlock.h.
pub mod files {
    /// To execute a file.
    pub const EXECUTE: u64 = 1;
    /// To open a file for writing.
    pub const WRITE_FILE: u64 = 1 << 1;
    /// To open a file for reading.
    pub const READ_FILE: u64 = 1 << 2;
    /// To list a directory.
    pub const READ_DIR: u64 = 1 << 3;
    /// To remove an empty directory, or rename one.
    pub const REMOVE_DIR: u64 = 1 << 4;
    /// To remove a file, or rename one.
    pub const REMOVE_FILE: u64 = 1 << 5;
    /// To make character devices, directories, regular files, sockets, fifos, block devices and symbolic links.
    pub const MAKE: u64 = 0b111_1111 << 6;
    /// To make character devices, alone of those.
    pub const MAKE_CHAR: u64 = 1 << 6;
    /// To make block devices, alone of those.
    pub const MAKE_BLOCK: u64 = 1 << 11;
    /// To link or rename from one directory into another; from ABI 2 on, and refused before that.
    pub const REFER: u64 = 1 << 13;
    /// To truncate; from ABI 3 on, and always allowed before that.
    pub const TRUNCATE: u64 = 1 << 14;
    /// To use ioctl(2) on a device that was opened afterwards; from ABI 5 on, and always allowed before that.
    pub const IOCTL_DEV: u64 = 1 << 15;

    /// All that this ABI knows.
    pub fn all(abi: u32) -> u64 {
        let bits = match abi {
            0 => 0,
            1 => 13,
            2 => 14,
            3 | 4 => 15,
            _ => 16,
        };
        (1 << bits) - 1
    }

    /// Those that mean something for what is not a directory.
    pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
}

/// Rights over TCP ports, from ABI 4 on. LANDLOCK_ACCESS_NET_* of linux/landlock.h.
pub mod ports {
    /// To bind to one.
    pub const BIND: u64 = 1;
    /// To connect to one.
    pub const CONNECT: u64 = 1 << 1;
}

/// What can be kept within the domain, from ABI 6 on. LANDLOCK_SCOPE_* of linux/landlock.h.
pub mod scopes {
    /// No connection to an abstract Unix socket that somebody outside has made.
    pub const ABSTRACT_SOCKETS: u64 = 1;
    /// No signal to anybody outside.
    pub const SIGNALS: u64 = 1 << 1;
}

/// What a ruleset is about: rights that are not named here are left as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct About {
    /// Rights over files that nobody has unless a rule gives them.
    pub files: u64,
    /// Rights over TCP ports, likewise.
    pub ports: u64,
    /// What is kept within the domain.
    pub scopes: u64,
}

/// Rights that are given up by whoever enters it.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct Port {
    allowed: u64,
    port: u64,
}

const CREATE_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const RULE_NET_PORT: u32 = 2;

/// What the kernel can do, as a number that grows: 0 is nothing, because it was built or started without Landlock.
pub fn abi() -> u32 {
    let (nothing, none) = (std::ptr::null::<About>(), 0usize);
    // SAFETY: with this flag and a null pointer of no length the kernel reads nothing and answers with a number
    // (landlock_create_ruleset(2)).
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, none, CREATE_VERSION) };
    u32::try_from(abi).unwrap_or(0)
}

impl Ruleset {
    /// One without a rule: nothing of what it is about is allowed.
    ///
    /// # Errors
    /// ENOSYS, EOPNOTSUPP without Landlock; EINVAL when this kernel's ABI does not know a right; ENOMSG when it is about nothing.
    pub fn new(about: &About) -> io::Result<Ruleset> {
        fault::point("landlock_create_ruleset")?;
        // What is not asked for is not named, so that an older kernel need not know of it.
        let size = match about {
            About { ports: 0, scopes: 0, .. } => 8,
            About { scopes: 0, .. } => 16,
            _ => size_of::<About>(),
        };
        let attributes = &raw const *about;
        // SAFETY: `attributes` is a live structure of at least `size` bytes, with the layout of the kernel's
        // (landlock_create_ruleset(2)).
        let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attributes, size, 0u32) };
        let fd = check(fd as libc::c_int)?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows it. It is close-on-exec.
        Ok(Ruleset(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Gives rights over a file, or over a directory and all beneath it. They are the file's own: another name of it has them too,
    /// and a file system that is mounted over it later has not.
    ///
    /// # Errors
    /// EINVAL when the ruleset is not about one of these rights, or the file is none that can have it.
    pub fn allow_path(&self, file: BorrowedFd<'_>, rights: u64) -> io::Result<()> {
        let rule = Beneath { allowed: rights, parent: file.as_raw_fd() };
        self.add(RULE_PATH_BENEATH, (&raw const rule).cast())
    }

    /// Gives rights over a TCP port, at any address.
    ///
    /// # Errors
    /// EINVAL as above.
    pub fn allow_port(&self, port: u16, rights: u64) -> io::Result<()> {
        let rule = Port { allowed: rights, port: port.into() };
        self.add(RULE_NET_PORT, (&raw const rule).cast())
    }

    fn add(&self, kind: u32, rule: *const libc::c_void) -> io::Result<()> {
        fault::point("landlock_add_rule")?;
        let fd = self.0.as_raw_fd();
        // SAFETY: both callers hand over a live structure with the layout that the kernel has for its `kind`
        // (landlock_add_rule(2)).
        let done = unsafe { libc::syscall(libc::SYS_landlock_add_rule, fd, kind, rule, 0u32) };
        check(done as libc::c_int).map(drop)
    }

    /// The same under a number that nothing is placed at in a child: [`fd::duplicate_low`].
    ///
    /// # Errors
    /// EMFILE.
    pub fn low(self) -> io::Result<Ruleset> {
        fd::duplicate_low(self.0).map(Ruleset)
    }

    /// Gives up, for good: a domain of this process's own, which what it starts is in too. Asks for no memory of this process.
    ///
    /// # Errors
    /// EPERM without no_new_privs or CAP_SYS_ADMIN; E2BIG in the seventeenth domain within another.
    pub fn enter(&self) -> io::Result<()> {
        fault::point("landlock_restrict_self")?;
        let fd = self.0.as_raw_fd();
        // SAFETY: takes plain numbers; the descriptor is owned, so open (landlock_restrict_self(2)).
        let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, 0u32) };
        check(done as libc::c_int).map(drop)
    }
}

impl AsFd for Ruleset {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
