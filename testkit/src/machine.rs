//! What the machine holds that may outlast who made it: the oracle of what confinement leaves behind.
//!
//! [`quiet`](crate::quiet) looks at a server; here it is the machine that is looked at, whoever made what it holds: processes,
//! namespaces, mounts, control groups, keys, System V objects, message queues, files in memory, temporary files. So it is exact
//! where nobody else makes any, as in pid, mount and IPC namespaces and a control group of one's own, and of no use elsewhere. What the
//! kernel has of all that is counted too ([`Kernel`]), over the whole machine and therefore with some tolerance: a
//! namespace that no process, descriptor or mount shows can be seen by that only.
//!
//! Takes root, and nsenter(1) and unshare(1) to look into other IPC namespaces. See namespaces(7), proc_pid_mountinfo(5),
//! cgroups(7), keyrings(7), sysvipc(7), mq_overview(7), slabinfo(5), proc_meminfo(5).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::{groups, procfs};

/// Where programs put what is for a while.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Kinds of namespaces, as /proc/PID/ns and links to them name them.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// What control groups are called here.
const GROUPS: &str = "cgroups";

/// How many of a kind a message names.
const NAMED_MOST: usize = 8;

/// What there is of each kind, with a name for each: a pid, an inode, a path.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    held: BTreeMap<&'static str, Vec<String>>,
    unseen: BTreeSet<String>,
}

/// How much more there may be than there was, because a server that runs keeps some for its next children.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// Control groups.
    pub groups: usize,
    /// Pid namespaces, with the process that keeps each.
    pub cells: usize,
}

impl Machine {
    /// Everything that can be seen now.
    pub fn look() -> Machine {
        let mut machine = Machine::default();
        let pids = procfs::pids();
        machine.see_processes(&pids);
        machine.see_namespaces(&pids);
        machine.see_groups();
        machine.see_keys();
        for folder in TEMPORARY {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            machine.add("temporary", entries.map(|entry| entry.path().display().to_string()));
        }
        machine
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.held.iter().map(|(kind, names)| (*kind, names.len())).collect()
    }

    /// What could not be looked at, and why.
    pub fn unseen(&self) -> impl Iterator<Item = &str> {
        self.unseen.iter().map(String::as_str)
    }

    /// Kinds of which there is more than there was, each with those that were not there. Counts are compared, since what is
    /// replaced has another name: a spare, a template and their namespaces.
    pub fn grown_since(&self, before: &Machine, kept: Kept) -> Vec<String> {
        let mut grown = Vec::new();
        for (kind, now) in &self.held {
            let then = before.held.get(kind).map(Vec::as_slice).unwrap_or_default();
            let more = match *kind {
                GROUPS => kept.groups,
                "processes" | "namespaces" => kept.cells,
                _ => 0,
            };
            if now.len() <= then.len() + more {
                continue;
            }
            let then_names: BTreeSet<&String> = then.iter().collect();
            let mut new: Vec<&str> =
                now.iter().filter(|name| !then_names.contains(name)).map(String::as_str).collect();
            let more = new.len().saturating_sub(NAMED_MOST);
            new.truncate(NAMED_MOST);
            let more = if more > 0 { format!(" and {more} others") } else { String::new() };
            grown.push(format!("{kind}: {} before, now {}: {}{more}", then.len(), now.len(), new.join(", ")));
        }
        grown
    }

    fn add(&mut self, kind: &'static str, names: impl IntoIterator<Item = String>) {
        self.held.entry(kind).or_default().extend(names);
    }

    fn see_processes(&mut self, pids: &[u32]) {
        for kind in ["processes", "zombies", "memfds"] {
            self.add(kind, []);
        }
        for stat in pids.iter().filter_map(|pid| procfs::stat(*pid)) {
            let kind = if stat.state == 'Z' { "zombies" } else { "processes" };
            let name = fs::read_to_string(format!("/proc/{}/comm", stat.pid)).unwrap_or_default();
            self.add(kind, [format!("{} {}", stat.pid, name.trim_end())]);
            let fds = procfs::fds(stat.pid).unwrap_or_default(); // it may have gone meanwhile
            let memfds = fds.iter().filter(|(_, link)| link.starts_with("/memfd:"));
            self.add("memfds", memfds.map(|(fd, link)| format!("{} {fd} {link}", stat.pid)));
        }
    }

    /// Namespaces that a process is in, or its children will be, or that a descriptor or a mount keeps; and what is in them.
    fn see_namespaces(&mut self, pids: &[u32]) {
        let (mut seen, mut mounts) = (BTreeMap::new(), BTreeSet::new());
        for pid in pids {
            let folder = format!("/proc/{pid}/ns");
            let links = fs::read_dir(&folder).into_iter().flatten().flatten();
            let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
            let links: BTreeSet<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
            let Some(own) = links.iter().find(|link| link.starts_with("mnt:")).cloned() else { continue };
            let is_new = !seen.contains_key(&own);
            for link in links {
                seen.entry(link).or_insert(Some(*pid));
            }
            let kept = procfs::fds(*pid).unwrap_or_default().into_values().filter(|link| is_namespace(link));
            for link in kept {
                seen.entry(link).or_insert(None);
            }
            let Some(table) =
                is_new.then(|| fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()).flatten()
            else {
                continue;
            };
            for mount in table.lines() {
                let mut words = mount.split(' ');
                let (id, root, point) = (words.next(), words.nth(2), words.next());
                mounts.insert(format!("{own} {} {}", id.unwrap_or_default(), point.unwrap_or_default()));
                if let Some(link) = root.filter(|root| is_namespace(root)) {
                    seen.entry(link.to_owned()).or_insert(None);
                }
            }
        }
        self.add("mounts", mounts);
        for (link, pid) in &seen {
            if let (true, Some(pid)) = (link.starts_with("ipc:"), pid) {
                self.see_ipc(link, *pid);
            }
        }
        self.add("namespaces", seen.into_keys());
    }

    /// What is in the IPC namespace of a process: the kernel shows it to those only who are in it.
    fn see_ipc(&mut self, link: &str, pid: u32) {
        for kind in ["shm", "sem", "msg", "mqueues"] {
            self.add(kind, []);
        }
        // A file system of message queues shows those of the namespace that it was mounted from.
        const SHOW: &str = "cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg && \
                            mount -t mqueue mqueue /dev/shm && cd /dev/shm && for name in * .[!.]*; do \
                            test ! -e \"$name\" || echo \"mqueue /$name\"; done";
        let namespace = format!("/proc/{pid}/ns/ipc");
        let shown = Command::new("nsenter")
            .arg(format!("--ipc={namespace}"))
            .args(["unshare", "--mount", "sh", "-c", SHOW])
            .output();
        let text = match shown {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
            // One that has gone has nothing in it.
            _ if fs::read_link(&namespace).is_ok_and(|now| now.to_string_lossy() != link) => return,
            _ if fs::read_link(&namespace).is_err() => return,
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                self.unseen.insert(format!("shm, sem, msg and mqueues: {}", why.trim_end()));
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
            Err(why) => {
                self.unseen.insert(format!("shm, sem, msg and mqueues: nsenter: {why}"));
                return;
            }
        };
        for (kind, name) in ipc_objects(&text) {
            self.add(kind, [format!("{link} {name}")]);
        }
    }

    /// Control groups below this process's own, and those that were removed and that something keeps yet.
    fn see_groups(&mut self) {
        let Some(own) = groups::group_of("self") else {
            self.unseen.insert("cgroups: no control groups of version 2 are mounted".to_owned());
            return;
        };
        self.add(GROUPS, groups::below(&own).iter().map(|group| group.display().to_string()));
        let stat = fs::read_to_string(own.join("cgroup.stat")).unwrap_or_default();
        match number_after(&stat, "nr_dying_descendants ") {
            Some(dying) => self.add("dying_cgroups", numbered(&own, "dying", dying)),
            None => drop(self.unseen.insert("dying_cgroups: cgroup.stat does not tell".to_owned())),
        }
    }

    /// Keys and keyrings by their users: /proc/keys has only those that we may view.
    fn see_keys(&mut self) {
        let Ok(users) = fs::read_to_string("/proc/key-users") else {
            self.unseen.insert("keys: this kernel keeps none".to_owned());
            return;
        };
        self.add("key_users", key_users(&users).into_iter().map(|(user, _)| format!("user {user}")));
        let each = key_users(&users).into_iter();
        self.add("keys", each.flat_map(|(user, keys)| numbered(Path::new("user"), &user, keys)));
    }
}

fn numbered(of: &Path, what: &str, count: u64) -> Vec<String> {
    (1..=count).map(|n| format!("{} {what} {n}", of.display())).collect()
}

/// Whether a link is that of a namespace: `net:[4026531840]`, or what mountinfo has of one.
fn is_namespace(link: &str) -> bool {
    link.split_once(":[").is_some_and(|(kind, _)| NAMESPACES.contains(&kind))
}

/// The objects of the tables of /proc/sysvipc one after the other, and message queues: each with its kind.
fn ipc_objects(text: &str) -> Vec<(&'static str, String)> {
    let (mut kind, mut found) = (None, Vec::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("mqueue ") {
            found.push(("mqueues", name.to_owned()));
            continue;
        }
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("key"), Some("shmid")) => kind = Some("shm"),
            (Some("key"), Some("semid")) => kind = Some("sem"),
            (Some("key"), Some("msqid")) => kind = Some("msg"),
            (Some(_), Some(id)) => found.extend(kind.map(|kind| (kind, id.to_owned()))),
            _ => {}
        }
    }
    found
}

/// Each user with how many keys: `    0:     9 8/8 3/1000000 40/25000000`.
fn key_users(text: &str) -> Vec<(String, u64)> {
    let each = text.lines().filter_map(|line| {
        let (user, rest) = line.split_once(':')?;
        let (keys, _) = rest.split_whitespace().nth(1)?.split_once('/')?;
        Some((user.trim().to_owned(), keys.parse().ok()?))
    });
    each.collect()
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Objects of the kernel's that a connection has at least one of, or that a sandbox is made of, where it counts them apart.
const OBJECTS: [&str; 16] = [
    "files_cache",
    "filp",
    "key_jar",
    "mem_cgroup",
    "mnt_cache",
    "mqueue_inode_cache",
    "net_namespace",
    "nsproxy",
    "pid",
    "pid_namespace",
    "shmem_inode_cache",
    "signal_cache",
    "sock_inode_cache",
    "task_struct",
    "user_namespace",
    "uts_namespace",
];

/// Memory that the kernel does not give back on demand: what is leaked of anything without a name ends here.
const MEMORY: [&str; 4] = ["Percpu", "SUnreclaim", "Shmem", "VmallocUsed"];

/// How many more of an object there may be: others come and go on the machine, and each processor keeps some that are free.
pub const OBJECTS_GROWTH_MAX: u64 = 2_000;

/// How much more memory the kernel may hold, in KiB.
pub const KERNEL_GROWTH_KIB_MAX: u64 = 64 * 1024;

/// What the kernel holds of all that, over the whole machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// How many of each object.
    pub objects: BTreeMap<String, u64>,
    /// How much memory of each kind, in KiB.
    pub memory_kib: BTreeMap<String, u64>,
}

impl Kernel {
    /// What it holds now.
    ///
    /// # Errors
    /// As reading /proc/slabinfo, which is root's, and /proc/meminfo.
    pub fn look() -> io::Result<Kernel> {
        let (slabs, memory) = (fs::read_to_string("/proc/slabinfo")?, fs::read_to_string("/proc/meminfo")?);
        Ok(Kernel { objects: objects(&slabs), memory_kib: memory_kib(&memory) })
    }

    /// What has grown by more than others explain.
    pub fn grown_since(&self, before: &Kernel) -> Vec<String> {
        let grown = |now: &BTreeMap<String, u64>, then: &BTreeMap<String, u64>, most: u64| {
            let beyond = now.iter().filter_map(|(name, now)| {
                let then = *then.get(name)?;
                (*now > then + most).then(|| format!("the kernel's {name}: {then} before, now {now}"))
            });
            beyond.collect::<Vec<_>>()
        };
        let mut found = grown(&self.objects, &before.objects, OBJECTS_GROWTH_MAX);
        found.extend(grown(&self.memory_kib, &before.memory_kib, KERNEL_GROWTH_KIB_MAX));
        found
    }
}

fn objects(slabs: &str) -> BTreeMap<String, u64> {
    let each = slabs.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().filter(|name| OBJECTS.contains(name))?;
        Some((name.to_owned(), words.next()?.parse().ok()?))
    });
    each.collect()
}

fn memory_kib(text: &str) -> BTreeMap<String, u64> {
    let each = MEMORY.into_iter().filter_map(|name| {
        let size = procfs::value_of(text, name)?.split(' ').next()?.parse().ok()?;
        Some((name.to_owned(), size))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    //! Tests run beside each other and make things of all kinds: names are looked for, counts are not compared.

    use std::io::Write;
    use std::process::{Child, Stdio};

    use super::*;
    use crate::server::until;

    fn groups(groups: usize) -> Kept {
        Kept { groups, cells: 0 }
    }

    /// Not for everybody: namespaces, groups and the kernel's counts.
    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// A shell that does this, says so, and waits for the end of its input.
    fn shell(words: &[&str], script: &str) -> Child {
        let script = format!("{script}; echo done; read line");
        let (program, rest) = words.split_first().unwrap_or((&"sh", &[]));
        let mut command = Command::new(program);
        command.args(rest).args(if words.is_empty() { &[][..] } else { &["sh"] }).args(["-c", &script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line).unwrap();
        assert_eq!(line, "done\n", "{script}");
        child
    }

    fn end(mut child: Child) {
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_namespace_and_its_mounts_and_objects_are_seen_while_a_process_is_in_it() {
        if !is_root() {
            eprintln!("left out: namespaces take root");
            return;
        }
        let made = "mount -t tmpfs left /mnt && ipcmk -M 4096 >&2 && ipcmk -S 1 >&2 && ipcmk -Q >&2";
        let child = shell(&["unshare", "--mount", "--ipc", "--net"], made);
        let namespace = |kind: &str| {
            let link = fs::read_link(format!("/proc/{}/ns/{kind}", child.id())).unwrap();
            link.display().to_string()
        };
        let (mnt, ipc) = (namespace("mnt"), namespace("ipc"));
        let now = Machine::look();
        let has = |kind: &str, name: &str| now.held[kind].iter().any(|held| held == name);
        assert!(["mnt", "ipc", "net"].into_iter().all(|kind| has("namespaces", &namespace(kind))), "{now:?}");
        assert!(["shm", "sem", "msg"].into_iter().all(|kind| has(kind, &format!("{ipc} 0"))), "{now:?}");
        let mounted = |name: &String| name.starts_with(&mnt) && name.ends_with(" /mnt");
        assert!(now.held["mounts"].iter().any(mounted), "{now:?}");
        assert!(has("processes", &format!("{} sh", child.id())), "{now:?}");
        end(child);
    }

    #[test]
    fn a_namespace_that_only_a_descriptor_keeps_is_seen() {
        if !is_root() {
            eprintln!("left out: namespaces take root");
            return;
        }
        let child = shell(&["unshare", "--uts"], ":");
        let link = fs::read_link(format!("/proc/{}/ns/uts", child.id())).unwrap().display().to_string();
        let kept = fs::File::open(format!("/proc/{}/ns/uts", child.id())).unwrap();
        end(child);
        let has = || Machine::look().held["namespaces"].contains(&link);
        assert!(has());
        drop(kept);
        // A program that another test starts just now may have it for a moment.
        until("nobody keeps it", || (!has()).then_some(()));
    }

    #[test]
    fn a_temporary_file_a_memfd_and_a_zombie_are_seen() {
        let before = Machine::look();
        let left = Path::new("/dev/shm").join(format!("tine-testkit-left-{}", std::process::id()));
        fs::write(&left, "").unwrap();
        let memfd = rustix::fs::memfd_create("left", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut child = shell(&[], ":");
        let zombie = format!("{} sh", child.id());
        drop(child.stdin.take());
        until("the child is a zombie", || Machine::look().held["zombies"].contains(&zombie).then_some(()));
        let now = Machine::look();
        let of_ours =
            format!("{} {} /memfd:left", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&memfd));
        assert!(now.held["memfds"].iter().any(|name| name.starts_with(&of_ours)), "{:?}", now.held["memfds"]);
        assert!(now.held["temporary"].contains(&left.display().to_string()));
        assert!(!before.held["temporary"].contains(&left.display().to_string()));
        fs::remove_file(&left).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_control_group_is_seen() {
        let Some(own) = groups::group_of("self").filter(|_| is_root()) else {
            eprintln!("left out: no control group of version 2 that we may make others in");
            return;
        };
        let left = own.join(format!("testkit-left-{}", std::process::id()));
        fs::create_dir_all(left.join("below")).unwrap();
        let now = Machine::look();
        fs::remove_dir(left.join("below")).unwrap();
        fs::remove_dir(&left).unwrap();
        for group in [left.clone(), left.join("below")] {
            assert!(now.held["cgroups"].contains(&group.display().to_string()), "{:?}", now.held["cgroups"]);
        }
        assert!(now.held.contains_key("dying_cgroups") || now.unseen().count() > 0);
    }

    fn machine(kind: &'static str, names: &[&str]) -> Machine {
        let mut machine = Machine::default();
        machine.add(kind, names.iter().map(|name| (*name).to_owned()));
        machine
    }

    #[test]
    fn what_is_replaced_has_not_grown_and_what_is_new_is_named() {
        let before = machine("processes", &["1 sh", "7 tine"]);
        assert!(machine("processes", &["1 sh", "8 tine"]).grown_since(&before, Kept::default()).is_empty());
        let grown = machine("processes", &["1 sh", "7 tine", "9 cat"]).grown_since(&before, groups(1));
        assert_eq!(grown, ["processes: 2 before, now 3: 9 cat"]);
        let many: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let grown = machine("keys", &many).grown_since(&before, groups(1));
        assert_eq!(grown, ["keys: 0 before, now 10: 0, 1, 2, 3, 4, 5, 6, 7 and 2 others"]);
    }

    #[test]
    fn a_server_that_runs_may_keep_so_many_groups_and_no_more() {
        let before = machine(GROUPS, &["/tine-7"]);
        let now = machine(GROUPS, &["/tine-7", "/tine-7/0", "/tine-7/1"]);
        assert!(now.grown_since(&before, groups(2)).is_empty());
        assert_eq!(now.grown_since(&before, groups(1)), ["cgroups: 1 before, now 3: /tine-7/0, /tine-7/1"]);
    }

    #[test]
    fn tables_of_objects_and_keys_are_read() {
        let text = "       key      shmid perms  size\n         0          5   600  4096\n       \
                    key      semid perms\n         0          6   644 1\n       key      msqid perms\nmqueue /x y\n";
        let expected = [("shm", "5"), ("sem", "6"), ("mqueues", "/x y")];
        assert_eq!(ipc_objects(text), expected.map(|(kind, name)| (kind, name.to_owned())));
        let users = "    0:     9 8/8 3/1000000 40/25000000\n 1000:     2 2/2 2/200 20/20000\n";
        assert_eq!(key_users(users), [("0".to_owned(), 8), ("1000".to_owned(), 2)]);
        assert!(is_namespace("net:[4026531840]") && !is_namespace("socket:[7]") && !is_namespace("/"));
    }

    #[test]
    fn the_kernel_may_hold_a_little_more_and_not_one_for_each_connection() {
        let of = |count: u64, kib: u64| Kernel {
            objects: objects(&format!(
                "slabinfo - version: 2.1\nmnt_cache {count} 9999 320 12 1 :\nother 7 7\n"
            )),
            memory_kib: memory_kib(&format!("MemTotal: 9 kB\nPercpu: {kib} kB\n")),
        };
        let before = of(210, 1_000);
        assert_eq!((before.objects.len(), before.memory_kib["Percpu"]), (1, 1_000));
        assert!(of(210 + OBJECTS_GROWTH_MAX, 1_000 + KERNEL_GROWTH_KIB_MAX).grown_since(&before).is_empty());
        let grown = of(100_210, 1_001 + KERNEL_GROWTH_KIB_MAX).grown_since(&before);
        assert_eq!(grown[0], "the kernel's mnt_cache: 210 before, now 100210");
        assert_eq!(grown.len(), 2);
        if is_root() {
            assert!(Kernel::look().is_ok());
        }
    }
}
