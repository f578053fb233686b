//! What /proc tells about a process: descriptors, children, memory. Reads only.
//!
//! See proc_pid_stat(5), proc_pid_status(5), proc_pid_smaps(5), proc_pid_fd(5).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;

/// Every open descriptor of a process with what readlink says of it: `socket:[4711]`, `/dev/null`,
/// `anon_inode:[eventpoll]`.
pub fn fds(pid: u32) -> io::Result<BTreeMap<i32, String>> {
    let folder = format!("/proc/{pid}/fd");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(&folder)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    // The folder is closed by now: of our own process its descriptor is not there any more and is left out.
    let link =
        |fd: i32| Some((fd, fs::read_link(format!("{folder}/{fd}")).ok()?.to_string_lossy().into_owned()));
    Ok(numbers.into_iter().filter_map(link).collect())
}

/// The fields of /proc/PID/stat that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub pid: u32,
    /// `R`, `S`, `Z` and the like.
    pub state: char,
    /// The parent.
    pub ppid: u32,
    /// All fields from the state on: `fields[0]` is the third of proc_pid_stat(5).
    pub fields: Vec<String>,
}

/// Reads /proc/PID/stat; `None` when there is no such process.
pub fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&text))
}

/// The name in the second field may hold blanks and brackets, so the fields count from the last bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, tail) = text.rsplit_once(')')?;
    let fields: Vec<String> = tail.split_whitespace().map(str::to_owned).collect();
    Some(Stat {
        pid: head.split_whitespace().next()?.parse().ok()?,
        state: fields.first()?.chars().next()?,
        ppid: fields.get(1)?.parse().ok()?,
        fields,
    })
}

/// The number of every process that there is, as far as this one's pid namespace shows them.
pub fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Every process of the machine.
fn processes() -> Vec<Stat> {
    pids().into_iter().filter_map(stat).collect()
}

/// The living children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    family(pid).0
}

/// The children of a process that are dead and not waited for.
pub fn zombies(pid: u32) -> Vec<u32> {
    family(pid).1
}

/// How processes are called that have no client and only give birth: tine's templates.
pub const TEMPLATE: &str = "tine-template";

/// The templates that a process has.
pub fn templates(pid: u32) -> Vec<u32> {
    called(pid, TEMPLATE)
}

/// The processes that make pid namespaces for the templates that a process has.
pub fn keepers(pid: u32) -> Vec<u32> {
    called(pid, KEEPER)
}

/// How the first processes of tine's pid namespaces are called, which have no client either.
pub const INIT: &str = "tine-init";

/// The first processes of pid namespaces that a process has.
pub fn inits(pid: u32) -> Vec<u32> {
    called(pid, INIT)
}

/// Whether a process has this name.
pub fn is_called(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
}

/// How processes are called that make such namespaces for a template.
pub const KEEPER: &str = "tine-keeper";

/// The children of a process that may be clients', so not its templates, nor what those have beside them: the living and the dead, each
/// sorted, of one look.
pub fn family(pid: u32) -> (Vec<u32>, Vec<u32>) {
    let mut mine: Vec<Stat> = processes().into_iter().filter(|stat| stat.ppid == pid).collect();
    mine.retain(|stat| ![TEMPLATE, KEEPER, INIT].iter().any(|name| is_called(stat.pid, name)));
    mine.sort_by_key(|stat| stat.pid);
    let (dead, alive): (Vec<Stat>, Vec<Stat>) = mine.into_iter().partition(|stat| stat.state == 'Z');
    (alive.iter().map(|stat| stat.pid).collect(), dead.iter().map(|stat| stat.pid).collect())
}

fn called(of: u32, name: &str) -> Vec<u32> {
    let all = processes().into_iter().filter(|stat| stat.ppid == of && stat.state != 'Z');
    all.map(|stat| stat.pid).filter(|pid| is_called(*pid, name)).collect()
}

/// The children of a process, their children, and so on; zombies too.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut by_parent: HashMap<u32, Vec<u32>> = HashMap::new();
    for stat in processes() {
        by_parent.entry(stat.ppid).or_default().push(stat.pid);
    }
    let (mut found, mut next) = (Vec::new(), vec![pid]);
    while let Some(parent) = next.pop() {
        let born = by_parent.remove(&parent).unwrap_or_default(); // removed: a loop is not possible
        found.extend(&born);
        next.extend(born);
    }
    found.sort_unstable();
    found
}

/// How many mounts there are in the mount namespace of a process; `None` where that is ours too, and anybody may mount something.
pub fn mounts_apart(pid: u32) -> Option<usize> {
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt")).ok();
    let apart = namespace(&pid.to_string())? != namespace("self")?;
    Some(fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?.lines().count()).filter(|_| apart)
}

/// Memory that a process has written and shares with nobody, in KiB.
///
/// Of its writable mappings only: the pages of a program that was built a moment ago are dirty as well, until the kernel
/// has written the file, and private whenever no other process runs it.
pub fn private_dirty_kib(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut writable, mut sum) = (false, None);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Private_Dirty:"), Some(size)) if writable => {
                *sum.get_or_insert(0) += size.parse::<u64>().unwrap_or(0);
            }
            // A mapping begins with its addresses and permissions, and has lines of `Name: value` after it.
            (Some(first), Some(permissions)) if !first.ends_with(':') => writable = permissions.contains('w'),
            _ => {}
        }
    }
    sum.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no writable memory: a zombie"))
}

/// The value of a `Name:   value` line, as /proc/PID/status and many others have them.
pub fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = parse_stat("17 (a) b (c) Z 4 17 17 0 -1").unwrap();
        assert_eq!((stat.pid, stat.state, stat.ppid), (17, 'Z', 4));
        assert_eq!(stat.fields[2], "17");
    }

    #[test]
    fn descriptors_are_told_with_what_they_are() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut child = Command::new("sleep").arg("infinity").stdin(reader).spawn().unwrap();
        let fds = fds(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(fds.unwrap()[&0].starts_with("pipe:["));
    }

    #[test]
    fn a_child_is_a_child_then_a_zombie_then_nothing() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let me = process::id();
        assert!(children(me).contains(&child.id()));
        assert!(descendants(me).contains(&child.id()));
        assert!(private_dirty_kib(child.id()).unwrap() > 0);
        drop(child.stdin.take());
        crate::server::until("the child is a zombie", || zombies(me).contains(&child.id()).then_some(()));
        child.wait().unwrap();
        assert!(!zombies(me).contains(&child.id()) && !children(me).contains(&child.id()));
    }
}
