//! The control groups that a server holds its clients' processes together by, as the file system shows them.
//!
//! A server makes `tine-PID` (or `tine-PID-2` and so on) in the control group that it was started in, which is that of the
//! test, with a leaf for each child below it. Where there is no version 2 of control groups, or the server may not make
//! any, there is nothing to be seen here. With limits for each connection the server itself is in `tine-PID/master`, and the leaves are
//! one further down, in `tine-PID/tine-PID`. See cgroups(7), proc_pid_mountinfo(5).

use std::fs;
use std::path::{Path, PathBuf};

/// The control groups that the server `pid` has made and not removed.
pub fn of(pid: u32) -> Vec<PathBuf> {
    let (name, numbered) = (format!("tine-{pid}"), format!("tine-{pid}-"));
    let own = |name_of: &str| name_of == name || name_of.starts_with(&numbered);
    let home = home_of(pid).or_else(|| group_of("self")).map(|home| folders(&home)).unwrap_or_default();
    home.into_iter().filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(own)).collect()
}

/// The leaves of the server `pid` that somebody is in.
pub fn populated(pid: u32) -> Vec<PathBuf> {
    let within = |group: PathBuf| {
        folders(&group).into_iter().flat_map(|below| match kind(&below) {
            Kind::Leaf => vec![below],
            Kind::Leaves => folders(&below),
            Kind::Master => Vec::new(),
        })
    };
    of(pid).into_iter().flat_map(within).filter(|leaf| is_populated(leaf)).collect()
}

/// What a group below a server's is.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// One child's.
    Leaf,
    /// That of the leaves of one process, where leaves have limits.
    Leaves,
    /// The server's own, there.
    Master,
}

fn kind(path: &Path) -> Kind {
    match path.file_name().and_then(|name| name.to_str()).unwrap_or_default() {
        "master" => Kind::Master,
        name if name.starts_with("tine-") => Kind::Leaves,
        _ => Kind::Leaf,
    }
}

/// The group that a server was started in: where it is, unless it has moved into one of its own.
fn home_of(pid: u32) -> Option<PathBuf> {
    let now = group_of(&pid.to_string())?;
    let moved = kind(&now) == Kind::Master && kind(now.parent()?) == Kind::Leaves;
    Some(if moved { now.parent()?.parent()?.to_owned() } else { now })
}

/// Who is in a group or in one below it; the dead that only wait to be waited for are not.
pub fn members(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend(folders(group).iter().flat_map(|below| members(below)));
    pids
}

/// Kills whoever is in the groups of the server `pid`, which has been killed: nobody else looks after them any more.
/// What it has made is removed by the next server.
pub fn kill(pid: u32) {
    for group in of(pid) {
        let _ = fs::write(group.join("cgroup.kill"), "1"); // who may make groups may do this, and it is tidiness only
    }
}

/// A group that has gone meanwhile has nobody in it.
fn is_populated(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// All groups below a group, each before those below it.
pub fn below(group: &Path) -> Vec<PathBuf> {
    folders(group).into_iter().flat_map(|group| [vec![group.clone()], below(&group)].concat()).collect()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let entries = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Where the control group of a process is, if version 2 is mounted so that it can be seen.
pub fn group_of(process: &str) -> Option<PathBuf> {
    let own = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    located(&own, &mounts)
}

/// The path of the group that `own` names, by the last mount of `mounts` that shows it.
fn located(own: &str, mounts: &str) -> Option<PathBuf> {
    let own = Path::new(own.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.lines().rev().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        let rest = own.strip_prefix(root).ok().filter(|_| kind.starts_with("cgroup2 "))?;
        Some(Path::new(point).join(rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_below_the_mount_that_shows_it() {
        let mounts = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 /a /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";
        let found = |own| located(own, mounts).and_then(|path| Some(path.to_str()?.to_owned()));
        assert_eq!(found("4:memory:/x\n0::/a/b\n").as_deref(), Some("/sys/fs/cgroup/unified/b"));
        assert_eq!(found("0::/b\n"), None, "it is not below what is mounted");
        assert_eq!(found("4:memory:/x\n"), None, "there is no version 2");
    }

    #[test]
    fn a_server_with_limits_has_its_leaves_one_further_down_and_itself_beside_them() {
        let kinds = ["tine-7", "master", "12"].map(|name| kind(&Path::new("/cg").join(name)));
        assert_eq!(kinds, [Kind::Leaves, Kind::Master, Kind::Leaf]);
    }

    #[test]
    fn what_is_in_a_folder_of_groups_is_told() {
        let home = std::env::temp_dir().join(format!("tine-testkit-groups-{}", std::process::id()));
        for (leaf, events, procs) in [("0", "populated 0\nfrozen 0\n", ""), ("1", "populated 1\n", "7\n8\n")]
        {
            fs::create_dir_all(home.join(leaf)).unwrap();
            fs::write(home.join(leaf).join("cgroup.events"), events).unwrap();
            fs::write(home.join(leaf).join("cgroup.procs"), procs).unwrap();
        }
        let leaves = folders(&home);
        let populated: Vec<bool> = leaves.iter().map(|leaf| is_populated(leaf)).collect();
        assert_eq!((populated, members(&home)), (vec![false, true], vec![7, 8]));
        fs::remove_dir_all(&home).unwrap();
        assert!(!is_populated(&home) && members(&home).is_empty());
    }
}
