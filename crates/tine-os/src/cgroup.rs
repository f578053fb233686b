//! Control groups: a leaf for each connection, so that whatever a child has started can be killed by one write.
//!
//! A [`Parent`] is a directory of ours in the control group that this process was started in; its leaves have numbers and
//! are used again and again. Nobody gets away from a leaf by forking, by a session of its own or by ignoring signals,
//! and unless a limit is asked for no controller need be there. Version 2 of control groups only, which older
//! systems mount beside the first. Nothing here moves this process itself, but [`Delegated`], which limits take.
//!
//! cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5), flock(2); Documentation/admin-guide/cgroup-v2.rst of the
//! kernel.

mod delegated;

use std::ffi::{CStr, CString, OsStr};
use std::fmt::{self, Write};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::process::{PidfdFlags, pidfd_open};

pub use self::delegated::Delegated;
use crate::spawn::With;
use crate::{Forked, Pid, fault, fd, fork, plain, socket, wait};

/// How many groups [`Parent::sweep`] and [`Parent::remove`] remove below one directory.
pub const LEAVES_MOST: usize = 10_000;

/// How many groups beside ours one [`Parent::sweep`] looks into.
pub const SIBLINGS_MOST: usize = 1_000;

/// How many names [`Parent::find_and_make`] tries.
const NAMES_MOST: usize = 9;

/// How deep a program may have made groups within its leaf for us to remove them.
const DEPTH_MOST: usize = 8;

/// The leaf that [`Parent::works`] tries things with.
const PROBE: u32 = u32::MAX;

/// How long the kernel may take over each step of that.
const PATIENCE: Duration = Duration::from_secs(5);

/// What statfs(2) says of version 2.
const CGROUP2_MAGIC: u32 = 0x6367_7270;

/// A control group of this process's own making, with leaves below it.
#[derive(Debug)]
pub struct Parent {
    path: PathBuf,
    /// For finding the leaves only, so that a child that keeps it keeps no lock.
    leaves: OwnedFd,
    /// Locked for as long as this process, or a child that has not closed it, lives.
    _lock: OwnedFd,
}

impl Parent {
    /// Makes a control group in this process's own and locks it, so that others can tell that it is in use.
    ///
    /// Where `name` is taken, by what a process of the same id has left behind for example, it is removed if nobody is in
    /// it; else `name-2` and so on are tried.
    ///
    /// # Errors
    /// Each says what was tried on which path: `NotFound` when version 2 is not mounted or this process's group is not below
    /// the mount, EACCES, EPERM and EROFS when it may not make groups there, EAGAIN when there are as many as are allowed.
    pub fn find_and_make(name: &str) -> io::Result<Parent> {
        Parent::make_in(&find()?, name)
    }

    /// As [`Parent::find_and_make`], in another group than this process's own.
    ///
    /// # Errors
    /// As there.
    pub fn make_in(path: &Path, name: &str) -> io::Result<Parent> {
        let home = open_directory(rustix::fs::CWD, path).map_err(|why| said("open", path, &why))?;
        for n in 1..=NAMES_MOST {
            let name = if n == 1 { name.to_owned() } else { format!("{name}-{n}") };
            if let Some(parent) = Parent::take(&home, &path.join(name))? {
                return Ok(parent);
            }
        }
        let why = format!("make {}: it and {} others are taken", path.join(name).display(), NAMES_MOST - 1);
        Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
    }

    /// `None` when somebody else has the name.
    fn take(home: &OwnedFd, path: &Path) -> io::Result<Option<Parent>> {
        let name = path.file_name().unwrap_or_default();
        let mut made = make(home, name);
        if made.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::AlreadyExists) {
            if !sweep_one(home, name) {
                return Ok(None);
            }
            made = make(home, name);
        }
        match made {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            other => other.map_err(|why| said("make", path, &why))?,
        }
        let parent = Parent::hold(home, path);
        if parent.is_err() {
            // Empty and known to nobody; what cannot be removed is swept one day.
            let _ = rustix::fs::unlinkat(home, name, AtFlags::REMOVEDIR);
        }
        parent
    }

    /// Locks a group that was just made. `None` when somebody else has it.
    fn hold(home: &OwnedFd, path: &Path) -> io::Result<Option<Parent>> {
        let name = path.file_name().unwrap_or_default();
        // Between its making and its locking a sweeper may have held it for stale: then it is gone, or about to go.
        let Some(lock) = lock(home, name).map_err(|why| said("lock", path, &why))? else { return Ok(None) };
        let leaves =
            open_path(home, name).and_then(fd::duplicate_high).map_err(|why| said("open", path, &why))?;
        // That of the group that this process is in, which is above each leaf.
        remember(home).map_err(|why| said("open", path, &why))?;
        Ok(Some(Parent { path: path.to_owned(), leaves, _lock: lock }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands controllers down to its leaves, for [`Parent::set_leaf`]: those that it has been handed down itself, as within a
    /// [`Delegated`].
    ///
    /// # Errors
    /// ENOENT for a controller that it has not, EBUSY when a process is in it.
    pub fn enable(&self, controllers: &[&str]) -> io::Result<()> {
        let on = delegated::switch('+', controllers);
        write_file(&self.leaves, c"cgroup.subtree_control", on.as_bytes())
            .map_err(|why| said(&format!("write {on} to"), &self.path.join("cgroup.subtree_control"), &why))
    }

    /// The descriptor by which all leaves are reached: above 15 and close-on-exec, for a process that looks after them. Whoever
    /// may write there could make leaves of its own.
    pub fn descriptor(&self) -> RawFd {
        self.leaves.as_raw_fd()
    }

    /// Makes a leaf. `u32::MAX` is [`Parent::works`]'s own.
    ///
    /// # Errors
    /// EEXIST when there is one of this number; EAGAIN when there are as many groups as are allowed; mkdir(2).
    pub fn make_leaf(&self, n: u32) -> io::Result<()> {
        fault::point("mkdir")?;
        Ok(rustix::fs::mkdirat(&self.leaves, Name::of_leaf(n).as_c_str(), DIRECTORY_MODE)?)
    }

    /// Sets what a leaf may use.
    ///
    /// # Errors
    /// Which file was written to, and what the kernel said: ENOENT without the controller, EINVAL and ERANGE for a value that
    /// it does not take.
    pub fn set_leaf(&self, n: u32, settings: &[Setting]) -> io::Result<()> {
        for Setting { file, value, required } in settings {
            match self.write(n, file, value.as_bytes()) {
                Err(why) if why.kind() == io::ErrorKind::NotFound && !required => {}
                other => {
                    other.map_err(|why| step(&format!("write {value} to {file} of a control group"), &why))?
                }
            }
        }
        Ok(())
    }

    /// What a leaf with the memory controller has come to.
    ///
    /// # Errors
    /// ENOENT when there is none of this number, or it has not that controller.
    pub fn memory_of_leaf(&self, n: u32) -> io::Result<Memory> {
        let peak = match self.read(n, "memory.peak") {
            // Before Linux 5.19 nobody kept it.
            Err(why) if why.kind() == io::ErrorKind::NotFound => None,
            other => number(&other?),
        };
        let events = self.read(n, "memory.events")?;
        let mut lines = events.split(|byte| *byte == b'\n');
        let kills = lines.find_map(|line| line.strip_prefix(b"oom_kill ")).and_then(number).unwrap_or(0);
        Ok(Memory { peak, kills })
    }

    /// Removes a leaf.
    ///
    /// # Errors
    /// EBUSY when somebody is in it or a program has made groups in it, ENOENT when there is none of this number.
    pub fn remove_leaf(&self, n: u32) -> io::Result<()> {
        fault::point("rmdir")?;
        Ok(rustix::fs::unlinkat(&self.leaves, Name::of_leaf(n).as_c_str(), AtFlags::REMOVEDIR)?)
    }

    /// Removes a leaf with all groups that a program has made in it, as deep as [`Parent::remove`] looks.
    ///
    /// # Errors
    /// EBUSY when somebody is in it or below, ENOENT when there is none of this number.
    pub fn remove_leaf_and_below(&self, n: u32) -> io::Result<()> {
        let name = Name::of_leaf(n);
        remove(&self.leaves, OsStr::from_bytes(name.as_c_str().to_bytes()), DEPTH_MOST, &mut { LEAVES_MOST })
    }

    /// Opens a leaf, for children to be born in: [`fork_with`](crate::fork::fork_with), [`spawn`](crate::spawn).
    ///
    /// A leaf that was killed is of no use for that again: Linux, as of 6.18, compares how often the newborn's group was killed
    /// with how often its parent's was, takes a difference for a kill that came just now, and kills the newborn. So such a
    /// leaf is removed and made anew.
    ///
    /// # Errors
    /// ENOENT when there is none of this number; EMFILE, ENFILE.
    pub fn open_leaf(&self, n: u32) -> io::Result<Leaf> {
        fault::point("open")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.leaves, Name::of_leaf(n).as_c_str(), flags, Mode::empty())?;
        let events = open_file(&directory, c"cgroup.events", OFlags::RDONLY)?;
        remember(&directory)?;
        Ok(Leaf { directory, events })
    }

    /// The leaf that a process is in or below of; `None` when it is elsewhere.
    ///
    /// # Errors
    /// `NotFound` when it is gone; what open(2) and read(2) say.
    pub fn leaf_of(&self, process: Pid) -> io::Result<Option<u32>> {
        fault::point("open")?;
        let groups = std::fs::read(format!("/proc/{process}/cgroup"))?;
        let path = groups.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
        let mut below = path.unwrap_or_default().split(|byte| *byte == b'/');
        let name = self.path.file_name().unwrap_or_default().as_bytes();
        // A group of that name may be in another one of that name.
        let leaf =
            std::iter::from_fn(|| below.find(|part| *part == name).map(|_| below.clone().next())).last();
        Ok(leaf.flatten().and_then(|leaf| str::from_utf8(leaf).ok()?.parse().ok()))
    }

    /// Kills all in a leaf and below, whoever they are; nobody there is no error. They have not ended yet when this
    /// returns.
    ///
    /// # Errors
    /// ENOENT when there is none of this number.
    pub fn kill_leaf(&self, n: u32) -> io::Result<()> {
        self.write(n, "cgroup.kill", b"1")
    }

    /// Whether there is a process in a leaf or below that has not ended; those that only wait to be waited for do not count.
    ///
    /// # Errors
    /// ENOENT when there is none of this number.
    pub fn is_populated(&self, n: u32) -> io::Result<bool> {
        is_populated(&open_file(&self.leaves, Name::of(n, "cgroup.events").as_c_str(), OFlags::RDONLY)?)
    }

    /// Kills all in all leaves. This process is in none of them.
    ///
    /// # Errors
    /// What open(2) and write(2) say.
    pub fn kill_all(&self) -> io::Result<()> {
        write_file(&self.leaves, c"cgroup.kill", b"1")
    }

    /// Removes all leaves and the group itself; it is of no use afterwards.
    ///
    /// # Errors
    /// EBUSY when somebody is left in it, or more than [`LEAVES_MOST`] leaves are.
    pub fn remove(&self) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        open_path(&self.leaves, OsStr::new(".."))
            .and_then(|home| remove(&home, name, DEPTH_MOST, &mut { LEAVES_MOST + 1 }))
            .map_err(|why| said("remove", &self.path, &why))
    }

    /// Removes what others of our kind have left behind: groups beside ours whose names begin with `prefix`, that nobody has
    /// locked, and that hold no process. Whoever is in one is finishing and is left alone. Gives how many were removed;
    /// at most [`SIBLINGS_MOST`] are looked into.
    ///
    /// # Errors
    /// When what is beside ours cannot be listed. What cannot be removed is left.
    pub fn sweep(&self, prefix: &str) -> io::Result<usize> {
        let home = open_directory(&self.leaves, Path::new(".."))?;
        sweep_all(&home, prefix, self.path.file_name().unwrap_or_default())
    }

    /// Tries it out, with a leaf and a child that is killed in it, and with what leaves are to be set to: what works now will work
    /// for clients.
    ///
    /// # Errors
    /// Which step failed, and why.
    pub fn works(&self, settings: &[Setting]) -> io::Result<()> {
        // Of a trial that was broken off, by a fault that has passed since.
        let _ = self.remove_leaf(PROBE);
        self.make_leaf(PROBE).map_err(|why| step("make a control group", &why))?;
        // In this order, so that a child is not measured by what another program needs.
        let tried = self.try_leaf().and_then(|()| self.set_leaf(PROBE, settings));
        let removed = self.remove_leaf(PROBE).map_err(|why| step("remove a control group", &why));
        tried.and(removed)
    }

    fn try_leaf(&self) -> io::Result<()> {
        let (ours, theirs) =
            socket::pair(socket::Kind::Packet).map_err(|why| step("make a pair of sockets", &why))?;
        let leaf = self.open_leaf(PROBE).map_err(|why| step("open a control group", &why))?;
        let child = match fork::fork_with(With { group: Some(leaf.as_fd()), ..With::default() }) {
            Ok(Forked::Child) => {
                drop(ours);
                try_child(&theirs)
            }
            Ok(Forked::Parent(child)) => child,
            Err(fork::ForkError::System(why)) => return Err(step("be born in a control group", &why)),
            Err(why) => return Err(io::Error::other(why)),
        };
        drop(theirs);
        let tried = self.try_kill(child, &ours);
        // A child that was not killed sees the end of this, and ends.
        drop(ours);
        let ended = wait::wait_blocking(child)?;
        tried?;
        if ended.signal() != Some(libc::SIGKILL) {
            return Err(io::Error::other("kill a control group: a process in it ended otherwise"));
        }
        self.await_empty(PROBE).map_err(|why| step("see a control group empty", &why))
    }

    fn try_kill(&self, child: Pid, ours: &OwnedFd) -> io::Result<()> {
        await_event(ours.as_fd(), PollFlags::IN, PATIENCE)
            .and_then(|()| socket::receive(ours, &mut [0]))
            .map_err(|why| step("hear from a child", &why))?;
        match self.is_populated(PROBE) {
            Ok(true) => {}
            Ok(false) => {
                return Err(io::Error::other("see who is in a control group: nobody, but one went in"));
            }
            Err(why) => return Err(step("see who is in a control group", &why)),
        }
        self.kill_leaf(PROBE).map_err(|why| step("kill a control group", &why))?;
        fault::point("pidfd_open")
            .and_then(|()| Ok(pidfd_open(child.kernel(), PidfdFlags::empty())?))
            .and_then(|pidfd| await_event(pidfd.as_fd(), PollFlags::IN, PATIENCE))
            .map_err(|why| step("see a process in a control group end", &why))
    }

    /// Waits until a leaf has nobody in it.
    fn await_empty(&self, n: u32) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        let events = open_file(&self.leaves, Name::of(n, "cgroup.events").as_c_str(), OFlags::RDONLY)?;
        while is_populated(&events)? {
            let rest = until.saturating_duration_since(Instant::now());
            // A change since the last reading is told at once, so none is missed in between.
            await_event(events.as_fd(), PollFlags::PRI, rest)?;
        }
        Ok(())
    }

    fn write(&self, n: u32, file: &str, text: &[u8]) -> io::Result<()> {
        write_file(&self.leaves, Name::of(n, file).as_c_str(), text)
    }

    fn read(&self, n: u32, file: &str) -> io::Result<Vec<u8>> {
        let file = open_file(&self.leaves, Name::of(n, file).as_c_str(), OFlags::RDONLY)?;
        // Some 80 bytes, at most, in Linux 6.18.
        let (text, length) = read_text(&file)?;
        Ok(text[..length].to_vec())
    }
}

/// A file of a group, and what is to be written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, such as `pids.max`.
    pub file: &'static str,
    /// What it is set to.
    pub value: String,
    /// Whether it is a mistake when there is no such file.
    pub required: bool,
}

/// The memory of all processes of a group, with what the kernel holds for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The most that it was, in bytes, if the kernel keeps that (from Linux 5.19 on).
    pub peak: Option<u64>,
    /// How many processes were killed since there was no more.
    pub kills: u64,
}

/// Tells that it lives, and stays until it is killed; or until its parent has ended.
fn try_child(theirs: &OwnedFd) -> ! {
    let _ = socket::send(theirs, &[0]);
    let _ = socket::receive(theirs, &mut [0]);
    fork::exit(0)
}

/// An open leaf: opening one for each child costs as much as ten other calls.
#[derive(Debug)]
pub struct Leaf {
    directory: OwnedFd,
    events: OwnedFd,
}

impl Leaf {
    /// As [`Parent::is_populated`].
    ///
    /// # Errors
    /// ENODEV when it was removed.
    pub fn is_populated(&self) -> io::Result<bool> {
        is_populated(&self.events)
    }
}

impl AsFd for Leaf {
    /// Its directory.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl AsFd for Parent {
    /// [`Parent::descriptor`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.leaves.as_fd()
    }
}

/// Readable by all and changed by us alone, as what else there is.
const DIRECTORY_MODE: Mode =
    Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);

/// A leaf's path from its parent, or a file's in it, without a heap.
struct Name {
    bytes: [u8; Name::ROOM],
    length: usize,
}

impl Name {
    /// More than a number's ten digits, the longest file's name and a NUL take.
    const ROOM: usize = 32;

    fn of_leaf(n: u32) -> Name {
        Name::written(format_args!("{n}"))
    }

    fn of(n: u32, file: &str) -> Name {
        Name::written(format_args!("{n}/{file}"))
    }

    fn written(text: fmt::Arguments<'_>) -> Name {
        let mut name = Name { bytes: [0; Name::ROOM], length: 0 };
        name.write_fmt(text).expect("there is room for every file's name that is used here");
        name
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).expect("the last byte is never written to and is zero")
    }
}

impl Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes[..Name::ROOM - 1]
            .get_mut(self.length..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

fn make(home: &OwnedFd, name: &OsStr) -> io::Result<()> {
    fault::point("mkdir")?;
    Ok(rustix::fs::mkdirat(home, name, DIRECTORY_MODE)?)
}

/// Opens a group and locks it; `None` when somebody else has locked it, or it is gone since.
fn lock(home: &OwnedFd, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    let group = match open_directory(home, Path::new(name)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    fault::point("flock")?;
    match rustix::fs::flock(&group, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        other => other?,
    }
    // Whoever had the lock before may have removed it, and the name may be another group's by now.
    fault::point("stat")?;
    let now = match rustix::fs::statat(home, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let same = rustix::fs::fstat(&group)?.st_ino == now.st_ino;
    Ok(same.then_some(group))
}

/// Removes one group if it is stale: not locked, and with nobody in it or below.
fn sweep_one(home: &OwnedFd, name: &OsStr) -> bool {
    let sweep = || -> io::Result<bool> {
        let Some(group) = lock(home, name)? else { return Ok(false) };
        if is_populated(&open_file(&group, c"cgroup.events", OFlags::RDONLY)?)? {
            return Ok(false);
        }
        remove(home, name, DEPTH_MOST, &mut { LEAVES_MOST + 1 })?;
        Ok(true)
    };
    sweep().unwrap_or(false)
}

/// As [`Parent::sweep`], by a process that has made no group: in the one that it is in itself.
///
/// # Errors
/// As [`Parent::sweep`]; `NotFound` when version 2 is not mounted.
pub fn sweep(prefix: &str) -> io::Result<usize> {
    let home = open_directory(rustix::fs::CWD, &find()?)?;
    sweep_all(&home, prefix, OsStr::new(""))
}

fn sweep_all(home: &OwnedFd, prefix: &str, but: &OsStr) -> io::Result<usize> {
    let siblings = directories(home, SIBLINGS_MOST, |name| {
        name.as_bytes().starts_with(prefix.as_bytes()) && name != but
    })?;
    Ok(siblings.iter().filter(|name| sweep_one(home, OsStr::from_bytes(name.as_bytes()))).count())
}

/// Removes a group and those below it, `depth` deep and `room` in all at most.
fn remove(home: impl AsFd, name: &OsStr, depth: usize, room: &mut usize) -> io::Result<()> {
    fault::point("rmdir")?;
    match rustix::fs::unlinkat(&home, name, AtFlags::REMOVEDIR) {
        Err(rustix::io::Errno::BUSY) if depth > 0 => {}
        other => return Ok(other?),
    }
    // Not empty of groups, or not of processes: then the last line says so again.
    let group = open_directory(&home, Path::new(name))?;
    for below in directories(&group, *room, |_| true)? {
        *room = room.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))?;
        remove(&group, OsStr::from_bytes(below.as_bytes()), depth - 1, room)?;
    }
    fault::point("rmdir")?;
    Ok(rustix::fs::unlinkat(home, name, AtFlags::REMOVEDIR)?)
}

/// The names of the directories in a directory that are `wanted`, at most so many.
fn directories(within: impl AsFd, most: usize, wanted: impl Fn(&OsStr) -> bool) -> io::Result<Vec<CString>> {
    fault::point("getdents")?;
    let mut names = Vec::new();
    for entry in Dir::read_from(within)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if entry.file_type() == FileType::Directory && name != "." && name != ".." && wanted(name) {
            names.push(entry.file_name().to_owned());
            if names.len() == most {
                break;
            }
        }
    }
    Ok(names)
}

fn open_directory(within: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    fault::point("open")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(within, path, flags, Mode::empty())?)
}

fn open_path(within: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    fault::point("open")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(within, name, flags, Mode::empty())?)
}

fn open_file(within: impl AsFd, name: &CStr, how: OFlags) -> io::Result<OwnedFd> {
    fault::point("open")?;
    let flags = how | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(within, name, flags, Mode::empty())?)
}

/// Looks a group's `cgroup.procs` up, and leaves it in the kernel's cache: at each birth into the group or one below it the kernel
/// asks whether that may be written to, and where it has forgotten the file it makes it anew for that, which costs as much as
/// five system calls.
fn remember(group: impl AsFd) -> io::Result<()> {
    open_file(group, c"cgroup.procs", OFlags::PATH).map(drop)
}

fn write_file(within: impl AsFd, name: &CStr, text: &[u8]) -> io::Result<()> {
    let file = open_file(within, name, OFlags::WRONLY)?;
    uninterrupted("write", || Ok(rustix::io::write(&file, text)?)).map(drop)
}

/// Makes a system call, again if it is interrupted.
fn uninterrupted<T>(call: &'static str, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match fault::point(call).and_then(|()| make()) {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// What an open `cgroup.events` says now.
fn is_populated(events: &OwnedFd) -> io::Result<bool> {
    // Some 50 bytes in Linux 6.18.
    let (text, length) = read_text(events)?;
    let mut lines = text[..length].split(|byte| *byte == b'\n');
    let populated = lines.find_map(|line| line.strip_prefix(b"populated "));
    populated.map(|value| value != b"0").ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What an open file of a group says now, as far as there is room.
fn read_text(file: &OwnedFd) -> io::Result<([u8; 256], usize)> {
    uninterrupted("read", || {
        let mut text = [0; 256];
        let length = rustix::io::pread(file, &mut text[..], 0)?;
        Ok((text, length))
    })
}

/// The number that a file of a group has.
fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text.trim_ascii_end()).ok()?.parse().ok()
}

/// Waits for one event of one descriptor.
fn await_event(fd: BorrowedFd<'_>, event: PollFlags, patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let rest = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: rest.subsec_nanos().into() };
        let mut polls = [PollFd::from_borrowed_fd(fd, event)];
        match fault::point("poll").and_then(|()| Ok(poll(&mut polls, Some(&rest))?)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
}

/// Where this process stands among control groups of version 2, and what can be had there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its group, in the file system.
    pub path: PathBuf,
    /// Controllers that are handed down to it.
    pub controllers: Vec<String>,
    /// Whether it may make groups in it, and hand controllers down to them.
    pub delegated: bool,
    /// How many other processes are in it: only a group that nobody is in hands controllers down, but for the root of all.
    pub others: usize,
    /// Whether it is the root of all.
    pub root: bool,
}

/// Looks where this process stands, and changes nothing.
///
/// # Errors
/// As those of [`Parent::find_and_make`] that are not about making.
pub fn standing() -> io::Result<Standing> {
    let path = find()?;
    let words = |name: &str| {
        let file = path.join(name);
        let text = fault::point("open").and_then(|()| std::fs::read_to_string(&file));
        let text = text.map_err(|why| said("read", &file, &why))?;
        Ok::<Vec<_>, io::Error>(text.split_whitespace().map(str::to_owned).collect())
    };
    let may_write = |name: &str| {
        rustix::fs::accessat(rustix::fs::CWD, path.join(name), rustix::fs::Access::WRITE_OK, AtFlags::EACCESS)
            .is_ok()
    };
    let delegated = ["", "cgroup.procs", "cgroup.subtree_control"].into_iter().all(may_write);
    let own = Pid::own().id().to_string();
    let others = words("cgroup.procs")?.iter().filter(|pid| **pid != own).count();
    let root = !path.join("cgroup.type").exists();
    Ok(Standing { controllers: words("cgroup.controllers")?, delegated, others, root, path })
}

/// Where control groups of version 2 are mounted.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn places() -> io::Result<Vec<PathBuf>> {
    fault::point("open")?;
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    Ok(mounts.split(|byte| *byte == b'\n').filter_map(cgroup2).map(|(_, point)| point).collect())
}

/// Where this process's group of version 2 is in the file system.
fn find() -> io::Result<PathBuf> {
    let read = |path: &str| {
        fault::point("open")
            .and_then(|()| std::fs::read(path))
            .map_err(|why| said("read", Path::new(path), &why))
    };
    let (own, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    let candidates = candidates(&own, &mounts)?;
    let mut failed = None;
    for path in &candidates {
        // Another file system may be mounted over it.
        match fault::point("statfs").and_then(|()| Ok(rustix::fs::statfs(path)?)) {
            Ok(what) if what.f_type == CGROUP2_MAGIC as _ => return Ok(path.clone()),
            Ok(_) => {}
            Err(why) => failed = Some(said("look at", path, &why)),
        }
    }
    Err(failed.unwrap_or_else(|| {
        let paths: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        missing(format!(
            "find this process's control group: something else is mounted on {}",
            paths.join(" and ")
        ))
    }))
}

/// Where this process's group may be: below each mount of version 2 that shows it, the one mounted last first. Both the
/// group's name and the mounts' roots are told as seen from this process's cgroup namespace.
fn candidates(own: &[u8], mounts: &[u8]) -> io::Result<Vec<PathBuf>> {
    let own =
        own.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::")).ok_or_else(|| {
            missing("find this process's control group: /proc/self/cgroup names none of version 2".to_owned())
        })?;
    let mounts: Vec<_> = mounts.split(|byte| *byte == b'\n').rev().filter_map(cgroup2).collect();
    if mounts.is_empty() {
        return Err(missing("find control groups: /proc/self/mountinfo has no cgroup2 mount".to_owned()));
    }
    let own = Path::new(OsStr::from_bytes(own));
    let found: Vec<_> = mounts.iter().filter_map(|(root, point)| below(own, root, point)).collect();
    if found.is_empty() {
        let (root, point) = &mounts[0];
        return Err(missing(format!(
            "find this process's control group: {} is not below {}, which is what is mounted on {}",
            own.display(),
            root.display(),
            point.display()
        )));
    }
    Ok(found)
}

/// Root and mount point, if a line of mountinfo is about version 2: "36 35 98:0 ROOT POINT OPTIONS TAGS... - TYPE ...".
fn cgroup2(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let mut words = line.split(|byte| *byte == b' ');
    let (root, point) = (words.nth(3)?, words.next()?);
    words.find(|word| *word == b"-")?;
    (words.next()? == b"cgroup2").then(|| (unescaped(root), unescaped(point)))
}

/// The path of a group below a mount, if the mount shows it. What is above the namespace's root has no name here but "..", so
/// that two such paths can only be compared from the left.
fn below(group: &Path, root: &Path, point: &Path) -> Option<PathBuf> {
    let rest = group.strip_prefix(root).ok()?;
    let named = rest.components().all(|part| part.as_os_str() != "..");
    named.then(|| if rest.as_os_str().is_empty() { point.to_owned() } else { point.join(rest) })
}

/// A word of mountinfo: blanks, newlines and backslashes are written as three octal digits.
fn unescaped(word: &[u8]) -> PathBuf {
    let (mut plain, mut rest) = (Vec::with_capacity(word.len()), word);
    while let [first, more @ ..] = rest {
        let octal = more
            .first_chunk::<3>()
            .filter(|d| *first == b'\\' && d.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                plain.push(digits.iter().fold(0u8, |value, d| value.wrapping_mul(8).wrapping_add(d - b'0')));
                rest = &more[3..];
            }
            None => {
                plain.push(*first);
                rest = more;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

fn missing(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, what)
}

/// What was tried on which path, and what the kernel said.
fn said(verb: &str, path: &Path, why: &io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("{verb} {}: {}", path.display(), plain(why)))
}

/// Which step of the trial failed, and what the kernel said.
fn step(what: &str, why: &io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("{what}: {}", plain(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw\n";

    fn found(own: &str, mounts: &str) -> Vec<String> {
        let found = candidates(own.as_bytes(), mounts.as_bytes()).unwrap();
        found.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    fn one(own: &str, root: &str) -> Option<String> {
        let path = below(Path::new(own), Path::new(root), Path::new("/cg"))?;
        Some(path.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_own_group_is_found_below_the_mount_of_version_2() {
        assert_eq!(found("8:pids:/a\n0::/\n", HYBRID), ["/sys/fs/cgroup/unified"]);
        assert_eq!(
            found("0::/system.slice/tine.service\n", HYBRID),
            ["/sys/fs/cgroup/unified/system.slice/tine.service"]
        );
        let twice = format!("{HYBRID}50 31 0:38 /a /mnt/with\\040blank rw - cgroup2 none rw\n");
        assert_eq!(found("0::/a/b\n", &twice), ["/mnt/with blank/b", "/sys/fs/cgroup/unified/a/b"]);
        assert_eq!(found("0::/b\n", &twice), ["/sys/fs/cgroup/unified/b"]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let why =
            |own: &str, mounts: &str| candidates(own.as_bytes(), mounts.as_bytes()).unwrap_err().to_string();
        assert!(why("8:pids:/a\n", HYBRID).contains("/proc/self/cgroup names none"));
        assert!(why("0::/\n", "").contains("has no cgroup2 mount"));
        let elsewhere = "41 31 0:38 /a /cg rw - cgroup2 none rw\n";
        let told = why("0::/b\n", elsewhere);
        assert!(told.contains("/b is not below /a, which is what is mounted on /cg"), "{told}");
    }

    #[test]
    fn only_what_a_namespace_names_is_found_below_a_mount() {
        for (own, root, path) in [
            ("/", "/", Some("/cg")),
            ("/a", "/a", Some("/cg")),
            ("/a/b", "/a", Some("/cg/b")),
            ("/ab", "/a", None),
            // The mount was made outside the namespace: its root is above all that we can name.
            ("/", "/..", None),
            // The process was moved out of the namespace: beside its root, or above.
            ("/../x", "/", None),
            ("/../x", "/..", Some("/cg/x")),
            ("/..", "/../..", None),
        ] {
            assert_eq!(one(own, root).as_deref(), path, "{own} below {root}");
        }
    }

    #[test]
    fn words_of_mountinfo_are_read_as_they_were_written() {
        let read = |word: &str| unescaped(word.as_bytes()).to_str().unwrap().to_owned();
        assert_eq!(read("/a\\040b\\134c\\012"), "/a b\\c\n");
        assert_eq!(read("/a\\04"), "/a\\04");
        assert_eq!(read("\\"), "\\");
    }

    #[test]
    fn the_longest_name_has_room() {
        assert_eq!(Name::of(u32::MAX, "cgroup.events").as_c_str(), c"4294967295/cgroup.events");
        assert_eq!(Name::of(u32::MAX, "memory.oom.group").as_c_str(), c"4294967295/memory.oom.group");
        assert_eq!(Name::of_leaf(0).as_c_str(), c"0");
    }
}
