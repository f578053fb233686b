//! Processes whose parent has ended: whose they become, what they die with, and who is ours now.
//!
//! PR_SET_CHILD_SUBREAPER(2const), PR_SET_PDEATHSIG(2const), both in prctl(2); proc_tid_children(5).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::process::{Signal, getppid, set_child_subreaper, set_parent_process_death_signal};

use crate::{Pid, fault};

/// From here on whatever descends from this process becomes its child when its own parent ends, whatever it does to get
/// away: fork twice, begin a session of its own. Children do not inherit this.
///
/// Orphans must be waited for like any other child, and are told of by nothing but SIGCHLD and [`children`].
///
/// # Errors
/// None that prctl(2) documents.
pub fn become_subreaper() -> io::Result<()> {
    fault::point("prctl")?;
    Ok(set_child_subreaper(Some(Pid::own().kernel()))?)
}

/// In a child: it is to be killed when `parent`, which has forked it, ends.
///
/// What it starts in turn does not inherit this. The kernel forgets it with a change of user, group or capabilities, and when
/// a program is executed that brings such a change: it comes after those.
///
/// # Errors
/// ESRCH when `parent` has ended already, so that nothing would kill this process, or cannot be seen from this process's pid
/// namespace.
pub fn die_with_parent(parent: Pid) -> io::Result<()> {
    fault::point("prctl")?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Asked after it was set: a parent that ends in between has then either killed us or is not our parent any more.
    if getppid() == Some(parent.kernel()) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

/// Appends the children of this process, adopted orphans and the dead that nobody has waited for among them; in no order
/// that means anything.
///
/// They are those of the calling thread, which are all of them where there is one thread. It costs time in proportion to their
/// number, and one or another may be missing when others end meanwhile: whoever wants all of them gone asks again
/// until there is none.
///
/// # Errors
/// `NotFound` when `/proc` is not mounted or the kernel was built without CONFIG_PROC_CHILDREN; what read(2) says.
pub fn children(into: &mut Vec<Pid>) -> io::Result<()> {
    read_children("/proc/thread-self/children", into)
}

/// Appends all who descend from a process that this one may look at: its children, theirs, and so on. Nothing is below a
/// process that has ended.
///
/// Who is born meanwhile, or loses its parent meanwhile, may be missing.
///
/// # Errors
/// As [`children`]; a process that ends while it is looked at is no error.
pub fn descendants(of: Pid, into: &mut Vec<Pid>) -> io::Result<()> {
    let (mut next, mut parent) = (into.len(), of);
    loop {
        // A child is its parent's thread's.
        fault::point("open")?;
        let threads = std::fs::read_dir(format!("/proc/{parent}/task")).map(Vec::from_iter);
        for thread in ended(threads)?.into_iter().flatten() {
            ended(thread.and_then(|thread| read_children(thread.path().join("children"), into)))?;
        }
        match into.get(next) {
            Some(pid) => (next, parent) = (next + 1, *pid),
            None => return Ok(()),
        }
    }
}

/// What was asked of a process; `None` when it has ended since.
fn ended<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    const ESRCH: i32 = 3;
    match answer {
        Err(why) if why.kind() == io::ErrorKind::NotFound || why.raw_os_error() == Some(ESRCH) => Ok(None),
        other => other.map(Some),
    }
}

fn read_children(path: impl AsRef<Path>, into: &mut Vec<Pid>) -> io::Result<()> {
    fault::point("open")?;
    let mut file = File::open(path)?;
    let (mut bytes, mut number) = ([0; 4096], 0i32);
    loop {
        fault::point("read")?;
        let length = match file.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => length,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(why) => return Err(why),
        };
        // Each number has a space behind it, and may be cut in two between one read and the next.
        for byte in &bytes[..length] {
            if byte.is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
            } else {
                into.extend(Pid::from_raw(std::mem::take(&mut number)));
            }
        }
    }
    into.extend(Pid::from_raw(number));
    Ok(())
}
