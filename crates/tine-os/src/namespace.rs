//! Namespaces: what a process sees of users, processes, mounts, networks. namespaces(7), unshare(2), user_namespaces(7).

use std::cell::Cell;
use std::fs;
use std::io;
use std::ops::BitOr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::seccomp::Key;
use crate::{Forked, Pid, check, fault, fd, fork, mount, wait};

/// Kinds of namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(u32);

impl Namespaces {
    /// None.
    pub const NONE: Namespaces = Namespaces(0);
    /// Users and capabilities: user_namespaces(7).
    pub const USER: Namespaces = Namespaces(libc::CLONE_NEWUSER as u32);
    /// Process ids: pid_namespaces(7).
    pub const PID: Namespaces = Namespaces(libc::CLONE_NEWPID as u32);
    /// Mounts: mount_namespaces(7).
    pub const MOUNT: Namespaces = Namespaces(libc::CLONE_NEWNS as u32);
    /// Interfaces, addresses, ports, abstract sockets: network_namespaces(7).
    pub const NET: Namespaces = Namespaces(libc::CLONE_NEWNET as u32);
    /// System V objects and message queues: ipc_namespaces(7).
    pub const IPC: Namespaces = Namespaces(libc::CLONE_NEWIPC as u32);
    /// Host name: uts_namespaces(7).
    pub const UTS: Namespaces = Namespaces(libc::CLONE_NEWUTS as u32);
    /// The view of control groups: cgroup_namespaces(7).
    pub const CGROUP: Namespaces = Namespaces(libc::CLONE_NEWCGROUP as u32);

    /// As flags of clone(2).
    pub fn flags(self) -> u64 {
        self.0.into()
    }

    /// Whether all of `others` are among these.
    pub fn has(self, others: Namespaces) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether it is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of these that are among `others`.
    pub fn only(self, others: Namespaces) -> Namespaces {
        Namespaces(self.0 & others.0)
    }

    /// These without `others`.
    pub fn without(self, others: Namespaces) -> Namespaces {
        Namespaces(self.0 & !others.0)
    }
}

impl BitOr for Namespaces {
    type Output = Namespaces;

    fn bitor(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 | other.0)
    }
}

/// Gives this process such namespaces of its own; with [`Namespaces::PID`], the children that it has from here on.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN, or where user namespaces are not for everybody; ENOSPC at the limit on their number
/// (/proc/sys/user); EINVAL where the kernel has no such kind.
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    fault::point("unshare")?;
    // SAFETY: takes plain flags, none of which has this process share less memory or fewer descriptors with anybody: the kinds
    // can be built from the constants above only (unshare(2)).
    check(unsafe { libc::unshare(kinds.0 as libc::c_int) }).map(drop)
}

/// Goes into such namespaces of another process; with [`Namespaces::PID`], the children go that this process has from here on. setns(2).
/// `key`: see [`Key`].
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over both; ESRCH when that process has ended; EINVAL before Linux 5.8, and when its namespace is not
/// below this process's.
pub fn join(of: BorrowedFd<'_>, kinds: Namespaces, key: Key) -> io::Result<()> {
    fault::point("setns")?;
    let (fd, kinds, [first, second]) = (of.as_raw_fd(), kinds.0 as libc::c_int, key.words());
    // SAFETY: takes a number that is open and plain flags; the kernel does not look at the others. What it changes are namespaces that
    // can be built from the constants above only (setns(2)).
    check(unsafe { libc::syscall(libc::SYS_setns, fd, kinds, first, second) } as libc::c_int).map(drop)
}

/// What a range of ids in this process's user namespace is outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first, inside.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Gives this process a user namespace of its own, and says who its users and groups are outside of it.
///
/// With privilege they can be anybody; it is a child of this process that says so, since this one has no privilege outside any more then.
/// Without, they can be its own user and group only, and it may not change its groups from then on.
///
/// # Errors
/// As [`unshare`]; EPERM for others' ids without privilege; EINVAL for ranges that overlap.
pub fn enter_user(users: &[Range], groups: &[Range], privileged: bool) -> io::Result<()> {
    let (users, groups) = (lines(users), lines(groups));
    if !privileged {
        unshare(Namespaces::USER)?;
        write("self", "setgroups", "deny")?;
        write("self", "uid_map", &users)?;
        return write("self", "gid_map", &groups);
    }
    let (ready, tell) = fd::pipe()?;
    fd::set_blocking(&ready, true)?;
    let (who, tell) = (Pid::own().to_string(), Cell::new(Some(tell)));
    let written = Asked::of_child(|| {
        // With an end of its own it would never see the end, should this process have nothing to tell.
        drop(tell.take());
        let mut there = [0];
        match fd::read(&ready, &mut there)? {
            1 if there == [1] => {
                write(&who, "uid_map", &users).and_then(|()| write(&who, "gid_map", &groups))
            }
            // There is no namespace to say anything about.
            _ => Ok(()),
        }
    })?;
    let unshared = unshare(Namespaces::USER);
    let told = tell.take().map_or(Ok(0), |tell| fd::write(&tell, &[u8::from(unshared.is_ok())]));
    // In any case: nobody else waits for it.
    let written = written.answer();
    unshared.and(told).and(written)
}

/// Whether all users, and groups, of so many numbers are somebody in this process's user namespace. In one that has been given a
/// few only, root is root over those.
pub fn maps(first: u32, count: u32) -> bool {
    let covers = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| {
            let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
            let (inside, outside, length) = (numbers.next(), numbers.next(), numbers.next());
            let all = inside.zip(outside).zip(length);
            all.is_some_and(|((inside, _), length)| {
                inside <= first.into() && inside + length >= u64::from(first) + u64::from(count)
            })
        })
    };
    covers("/proc/self/uid_map") && covers("/proc/self/gid_map")
}

/// A child that was asked to do something. What came of it is told through a pipe: where this process was started with SIGCHLD
/// ignored, nobody keeps the status of a child.
struct Asked {
    child: Pid,
    hear: OwnedFd,
}

impl Asked {
    fn of_child(what: impl FnOnce() -> io::Result<()>) -> io::Result<Asked> {
        let (hear, tell) = fd::pipe()?;
        fd::set_blocking(&hear, true)?;
        match fork::fork() {
            Ok(Forked::Parent(child)) => Ok(Asked { child, hear }),
            Ok(Forked::Child) => {
                let errno = what().map_or_else(|why| why.raw_os_error().unwrap_or(libc::EIO), |()| 0);
                let _ = fd::write(&tell, &errno.to_ne_bytes());
                fork::exit(0)
            }
            Err(fork::ForkError::System(why)) => Err(why),
            Err(other) => Err(io::Error::other(other.to_string())),
        }
    }

    fn answer(self) -> io::Result<()> {
        let mut errno = [0; 4];
        let heard = loop {
            match fd::read(&self.hear, &mut errno) {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        // Where its status is kept it is taken; nothing is learned from it.
        let _ = wait::wait_blocking(self.child);
        match heard? {
            4 => match i32::from_ne_bytes(errno) {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            },
            _ => Err(io::Error::other("the child that was to tell was killed")),
        }
    }
}

fn lines(ranges: &[Range]) -> String {
    ranges.iter().map(|Range { inside, outside, count }| format!("{inside} {outside} {count}\n")).collect()
}

fn write(whose: &str, file: &str, text: &str) -> io::Result<()> {
    fault::point("write")?;
    fs::write(format!("/proc/{whose}/{file}"), text)
}

/// Whether this process could make a user namespace and others in it: a child of it tries. Where this process may not fork, which
/// one with threads may not, it is taken to be possible.
///
/// # Errors
/// What the child was told.
pub fn try_user() -> io::Result<()> {
    let all = Namespaces::USER | Namespaces::MOUNT | Namespaces::NET | Namespaces::IPC | Namespaces::UTS;
    try_in_child(|| unshare(all))
}

/// Whether this process could mount a `/proc` that shows the processes of a pid namespace of its own and no others: a child of its
/// child tries. Where a part of the machine's is hidden, as containers have it, the kernel refuses, for the new one would show it.
///
/// # Errors
/// What they were told; [`try_user`] says more of user namespaces.
pub fn try_processes() -> io::Result<()> {
    try_in_child(|| {
        unshare(Namespaces::USER | Namespaces::MOUNT | Namespaces::PID)?;
        mount::separate()?;
        // The first process of the namespace, in which alone it can be mounted.
        try_in_child(|| mount::mount_processes(c"/proc", c"subset=pid,hidepid=invisible"))
    })
}

/// Has a child try something. Where this process may not fork, it is taken to be possible.
fn try_in_child(what: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match fork::threads() {
        Ok(1) => Asked::of_child(what)?.answer(),
        _ => Ok(()),
    }
}

/// Whether there was no room for one more, under a limit or in memory; or else it is not allowed.
pub fn is_shortage(why: &io::Error) -> bool {
    matches!(why.raw_os_error(), Some(libc::ENOSPC | libc::EUSERS | libc::EAGAIN | libc::ENOMEM))
}

/// How many sockets there are in the network of a process, whoever holds them, the kernel's own not counted: one that was passed to
/// somebody outside is still in it. proc_pid_net(5), sockstat.
///
/// # Errors
/// `NotFound` when the process has ended and was waited for, or `/proc` is not mounted; `InvalidData` when the kernel tells no number.
pub fn sockets(of: Pid) -> io::Result<u32> {
    fault::point("open")?;
    let text = fs::read_to_string(format!("/proc/{of}/net/sockstat"))?;
    let number = text.lines().find_map(|line| line.strip_prefix("sockets: used "));
    number.and_then(|number| number.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Kinds that there may be a limited number of, as the limits in `/proc/sys/user` are called: namespaces(7).
const LIMITED: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

/// What stands in the way of user namespaces, or of others in them, as far as can be told, and what to do.
pub fn advice(why: &io::Error) -> String {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let is = |path: &str, value: &str| setting(path).is_some_and(|found| found == value);
    let none_of = |kind: &&&str| is(&format!("/proc/sys/user/max_{kind}_namespaces"), "0");
    if let Some(kind) = LIMITED.iter().find(none_of) {
        return format!("sysctl -w user.max_{kind}_namespaces=15000 (0 is none at all)");
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "sysctl -w kernel.unprivileged_userns_clone=1, or tine as root".into();
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "an AppArmor profile that allows tine userns, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or tine as root".into();
    }
    match why.raw_os_error() {
        Some(libc::ENOSPC | libc::EUSERS) => "room under the limits in /proc/sys/user (sysctl -w user.max_user_namespaces=15000, and its like)".into(),
        Some(libc::EAGAIN) => fork::ADVICE.into(),
        Some(libc::ENOMEM) => "memory".into(),
        _ => "a container whose seccomp profile allows unshare(2) (docker, podman: --security-opt seccomp=FILE or seccomp=unconfined; Kubernetes: \
             hostUsers: false and seccompProfile type Localhost or Unconfined), or a unit without RestrictNamespaces= (systemd: \
             RestrictNamespaces=no), and a root that is not chroot(2)'s".into(),
    }
}
