//! A part of the tree of control groups in which ours have controllers: memory, pids, cpu.
//!
//! A group hands controllers down to those below it only while no process is in it (cgroups(7), "no internal processes"; the
//! root of all is excepted). So this process moves itself, and whoever below it was started there, into a leaf:
//!
//! ```text
//! HOME                    where this process was started; hands the controllers down
//!   tine-77               [`Delegated`], locked; hands them down too
//!     master              this process, and those that it has made that are no clients'
//!     tine-77, tine-80    a [`Parent`] for each process that bears children, with a leaf for each of these
//! ```
//!
//! Nobody else's process is moved: where there is one, this is refused. At the end all is undone, but for what the root hands
//! down, for others may have begun to rely on that. All is reached by path, so that a process without descriptors can
//! undo it.
//!
//! cgroups(7), cgroup_namespaces(7); Documentation/admin-guide/cgroup-v2.rst of the kernel, "Top-down Constraint" and
//! "Delegation".

use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};

use super::{
    DEPTH_MOST, LEAVES_MOST, Parent, directories, find, make, open_directory, open_file, remove, said,
    uninterrupted, write_file,
};
use crate::{Pid, fault, orphan, plain};

/// The leaf that this process is in itself.
const MASTER: &str = "master";

/// How many processes of a group are looked at; whoever has more beside it has no group of its own.
const MEMBERS_MOST: usize = 1_000;

/// What is to be done where controllers are not handed down, or groups cannot be made.
const DELEGATE: &str = "with systemd, set Delegate=yes in the unit; in a container, give it a writable control group of version 2 \
     of its own; else start tine in a group that is delegated to its user";

/// A group that hands controllers down, with this process in a leaf of it.
#[derive(Debug)]
pub struct Delegated {
    home: PathBuf,
    path: PathBuf,
    controllers: Vec<&'static str>,
    /// What home did not hand down before, and is not to hand down afterwards.
    enabled: Vec<&'static str>,
    owner: Pid,
    /// Another process undoes it; or it is undone.
    settled: Cell<bool>,
    /// Keeps the lock.
    _base: Parent,
}

impl Delegated {
    /// Has controllers handed down to a group of ours within the one that this process is in, and moves this process, with what
    /// it has started, into a leaf of that. Groups of dead processes whose names begin with `prefix` are removed.
    ///
    /// # Errors
    /// Each says what was tried on what, and what to do: a controller that is not there, or is another version's; a process
    /// of somebody else's in the group; no right to make groups. All is as it was then.
    pub fn take(name: &str, prefix: &str, controllers: &[&'static str]) -> io::Result<Delegated> {
        let home = find().map_err(|why| advise(&why, DELEGATE))?;
        let (own, root) = (read(Path::new("/proc/self/cgroup"))?, is_root(&home)?);
        let there = read(&home.join("cgroup.controllers"))?;
        let missing = lacking(controllers, &there);
        if !missing.is_empty() {
            let why = told_missing(&missing, &home, &own, root);
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let base = Parent::make_in(&home, name).map_err(|why| advise(&why, DELEGATE))?;
        // What others have left is not ours to worry about, should it not go.
        let _ = base.sweep(prefix);
        let handed = read(&home.join("cgroup.subtree_control"))?;
        let delegated = Delegated {
            path: base.path().to_owned(),
            controllers: controllers.to_vec(),
            enabled: if root { Vec::new() } else { lacking(controllers, &handed) },
            home,
            owner: Pid::own(),
            settled: Cell::new(false),
            _base: base,
        };
        // What fails is undone when it is dropped.
        delegated.settle_in(root)?;
        Ok(delegated)
    }

    /// Where a [`Parent`] can be made that has the controllers: [`Parent::make_in`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it to another process to undo this: one that was forked, and is in it too, is not its owner.
    pub fn lend(&self) {
        self.settled.set(true);
    }

    /// Undoes it: removes the groups, has nothing handed down any more, and moves whoever is in the leaf of the master back.
    ///
    /// # Errors
    /// EBUSY when somebody is left in a group below, or others have controllers from there; what was done until then stays
    /// done, and it may be tried again.
    pub fn leave(&self) -> io::Result<()> {
        if self.settled.get() {
            return Ok(());
        }
        let home = open_directory(CWD, &self.home).map_err(|why| said("open", &self.home, &why))?;
        let name = self.path.file_name().unwrap_or_default();
        let base = open_directory(&home, Path::new(name)).map_err(|why| said("open", &self.path, &why))?;
        for below in directories(&base, LEAVES_MOST, |name| name != MASTER)? {
            let below = OsStr::from_bytes(below.to_bytes());
            remove(&base, below, DEPTH_MOST, &mut { LEAVES_MOST + 1 })
                .map_err(|why| said("remove", &self.path.join(below), &why))?;
        }
        write_file(&base, c"cgroup.subtree_control", switch('-', &self.controllers).as_bytes())
            .map_err(|why| said("write", &self.path.join("cgroup.subtree_control"), &why))?;
        if !self.enabled.is_empty() {
            // Should another server have controllers from there, the move says so.
            let _ = write_file(&home, c"cgroup.subtree_control", switch('-', &self.enabled).as_bytes());
        }
        let place = self.path.join(MASTER);
        if place.exists() {
            move_here(&home, None).map_err(|why| said("move back to", &self.home, &why))?;
            for other in members(&place)? {
                let _ = move_here(&home, Some(other)); // it may have ended; else the removal says so
            }
        }
        remove(&home, name, DEPTH_MOST, &mut { LEAVES_MOST + 1 })
            .map_err(|why| said("remove", &self.path, &why))?;
        self.settled.set(true);
        Ok(())
    }

    /// Moves in, and has the controllers handed down.
    fn settle_in(&self, root: bool) -> io::Result<()> {
        let home = open_directory(CWD, &self.home).map_err(|why| said("open", &self.home, &why))?;
        let base = open_directory(CWD, &self.path).map_err(|why| said("open", &self.path, &why))?;
        let at = self.path.join(MASTER);
        let place = make(&base, OsStr::new(MASTER))
            .and_then(|()| open_directory(&base, Path::new(MASTER)))
            .map_err(|why| said("make", &at, &why))?;
        move_here(&place, None).map_err(|why| advise(&said("move into", &at, &why), DELEGATE))?;
        if !root {
            // Whoever was started before this became a server would be in the way there.
            let mut below = Vec::new();
            orphan::descendants(self.owner, &mut below)?;
            let there = members(&self.home)?;
            for ours in below.into_iter().filter(|pid| there.contains(pid)) {
                let _ = move_here(&place, Some(ours)); // it may have ended; else the next step says who is there
            }
        }
        let on = switch('+', &self.controllers);
        for (group, path) in [(&home, &self.home), (&base, &self.path)] {
            write_file(group, c"cgroup.subtree_control", on.as_bytes()).map_err(|why| {
                let others = members(path).unwrap_or_default();
                told_not_enabled(&on, path, &others, &why)
            })?;
        }
        Ok(())
    }
}

impl Drop for Delegated {
    /// A child that was forked meanwhile undoes nothing.
    fn drop(&mut self) {
        if self.owner == Pid::own() {
            let _ = self.leave();
        }
    }
}

/// Moves a process, or this one, into a group.
fn move_here(group: impl AsFd, who: Option<Pid>) -> io::Result<()> {
    let number = who.map_or(0, Pid::id);
    write_file(group, c"cgroup.procs", number.to_string().as_bytes())
}

/// Who is in a group. Whom this process's namespace does not show is left out.
fn members(group: &Path) -> io::Result<Vec<Pid>> {
    let text = read(&group.join("cgroup.procs"))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().take(MEMBERS_MOST).filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect())
}

/// Whether a group is the root of all, which has no type: that of a namespace has one.
fn is_root(group: &Path) -> io::Result<bool> {
    match open_file(open_directory(CWD, group)?, c"cgroup.type", OFlags::PATH) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(true),
        other => other.map(|_| false).map_err(|why| said("look at", &group.join("cgroup.type"), &why)),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fault::point("open")
        .and_then(|()| uninterrupted("read", || std::fs::read(path)))
        .map_err(|why| said("read", path, &why))
}

/// Those that are not among the words of a file.
fn lacking(wanted: &[&'static str], there: &[u8]) -> Vec<&'static str> {
    let is_there =
        |name: &str| there.split(|byte| byte.is_ascii_whitespace()).any(|word| word == name.as_bytes());
    wanted.iter().copied().filter(|name| !is_there(name)).collect()
}

/// What cgroup.subtree_control is told.
pub(super) fn switch(sign: char, controllers: &[&str]) -> String {
    let mut text = String::new();
    for name in controllers {
        let _ = write!(text, "{sign}{name} "); // a String takes whatever is written to it
    }
    text.trim_end().to_owned()
}

/// Which controllers are missing, where, and what to do: `own` is /proc/self/cgroup, whose lines say what version 1 has.
fn told_missing(missing: &[&str], home: &Path, own: &[u8], root: bool) -> String {
    let own = String::from_utf8_lossy(own);
    let version_1: Vec<_> = own
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .flat_map(|names| names.split(','))
        .filter(|name| missing.contains(name))
        .collect();
    let (noun, them) = if missing.len() == 1 { ("controller", "it") } else { ("controllers", "them") };
    let why = if !version_1.is_empty() {
        format!(
            "version 1 of control groups has {} on this machine: boot with systemd.unified_cgroup_hierarchy=1, so that version 2 has {them}",
            version_1.join(" and ")
        )
    } else if root {
        format!(
            "this kernel does not have {them}, or has {them} switched off: see cgroup.controllers there and cgroup_disable= in \
             /proc/cmdline"
        )
    } else {
        format!("the group above it does not hand {them} down: {DELEGATE}")
    };
    format!("no {noun} {} in {}: {why}", missing.join(" and "), home.display())
}

/// Why controllers are not handed down, and what to do.
fn told_not_enabled(on: &str, path: &Path, others: &[Pid], why: &io::Error) -> io::Error {
    let file = path.join("cgroup.subtree_control");
    let what = format!("write {on} to {}: {}", file.display(), plain(why));
    let advice = match others.first() {
        Some(other) if why.kind() == io::ErrorKind::ResourceBusy => format!(
            "process {other} is in {} too, and only a group that nobody is in hands controllers down: start tine in a group \
             of its own (with systemd, a unit with Delegate=yes, or systemd-run --scope -p Delegate=yes), or in that \
             process's place (exec)",
            path.display()
        ),
        _ => DELEGATE.to_owned(),
    };
    io::Error::new(why.kind(), format!("{what}; {advice}"))
}

fn advise(why: &io::Error, advice: &str) -> io::Error {
    io::Error::new(why.kind(), format!("{}; {advice}", plain(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "8:pids:/a\n4:memory:/a\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n";

    fn missing(names: &[&str], own: &str, root: bool) -> String {
        told_missing(names, Path::new("/cg/a"), own.as_bytes(), root)
    }

    #[test]
    fn what_is_missing_is_what_the_file_does_not_name() {
        assert_eq!(lacking(&["memory", "cpu"], b"cpuset cpu io\n"), ["memory"]);
        assert_eq!(lacking(&["cpu"], b"cpuset hugetlb\n"), ["cpu"]);
        assert!(lacking(&["pids"], b"cpuset pids\n").is_empty());
    }

    #[test]
    fn it_is_said_who_has_the_controller_and_what_to_do() {
        let told = missing(&["memory", "cpu"], HYBRID, true);
        assert!(told.starts_with("no controllers memory and cpu in /cg/a: version 1"), "{told}");
        assert!(told.contains("has memory and cpu on this machine"), "{told}");
        assert!(told.contains("systemd.unified_cgroup_hierarchy=1"), "{told}");
        let told = missing(&["pids"], "0::/a\n", false);
        assert!(
            told.starts_with("no controller pids in /cg/a: the group above it does not hand it down"),
            "{told}"
        );
        assert!(told.contains("Delegate=yes"), "{told}");
        assert!(missing(&["pids"], "0::/\n", true).contains("cgroup_disable="));
    }

    #[test]
    fn whoever_is_in_the_way_is_named() {
        let busy = io::Error::from_raw_os_error(16);
        let told = told_not_enabled(
            "+pids",
            Path::new("/cg/a"),
            &Pid::from_raw(7).into_iter().collect::<Vec<_>>(),
            &busy,
        );
        let told = told.to_string();
        assert!(told.starts_with("write +pids to /cg/a/cgroup.subtree_control: "), "{told}");
        assert!(told.contains("process 7 is in /cg/a too"), "{told}");
        let denied = io::Error::from_raw_os_error(13);
        assert!(
            told_not_enabled("+pids", Path::new("/cg/a"), &[], &denied).to_string().contains("Delegate=yes")
        );
    }

    #[test]
    fn controllers_are_switched_by_a_sign_before_each() {
        assert_eq!(switch('+', &["memory", "pids"]), "+memory +pids");
        assert_eq!(switch('-', &[]), "");
    }
}
