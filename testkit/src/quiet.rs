//! Quiescence: after all that was done to it, a server is as it was before.
//!
//! A leak is a descriptor, a child, a zombie, a slot, a connection, memory or a process in a child's control group
//! that is still there when the last client has gone, at the server or at a process that works for it: acceptors have
//! clients of their own, and templates have all of them in their hands. What the machine has left of them is
//! [`machine`](crate::machine)'s. A [`Baseline`] is taken of a server that has served one client, and
//! [`Server::quiescent`] waits for the same picture again; what still differs at the deadline fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::server::DEADLINE;
use crate::server::{Server, until_within};
use crate::{client, groups, net, procfs};

/// How much more memory of its own a server may hold than at the baseline, in KiB.
pub const MEMORY_GROWTH_KIB_MAX: u64 = 1024;

/// How long a server that says nothing on SIGUSR1 is listened to before it is taken for one that has no
/// status.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// How many descriptors of its control groups a server may keep open, whoever is in them or is not: two of each leaf.
const LEAVES_OPEN_MAX: usize = 128;

/// How many pid namespaces a server may keep for the next client when it has none.
const EMPTY_MAX: usize = 1;

/// Asks the server something and checks the answer.
type Probe = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A server at rest, to compare with.
pub struct Baseline {
    pid: u32,
    fds: BTreeMap<i32, String>,
    children: usize,
    /// How many children its children have, all together: acceptors have nobody, or a guardian each.
    grandchildren: usize,
    /// What its children and templates hold, by their number.
    held: BTreeMap<u32, BTreeMap<String, usize>>,
    memory_kib: u64,
    asks_status: bool,
    by_kind: bool,
    probe: Probe,
}

impl fmt::Debug for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Baseline")
            .field("pid", &self.pid)
            .field("fds", &self.fds)
            .field("children", &self.children)
            .field("memory_kib", &self.memory_kib)
            .field("asks_status", &self.asks_status)
            .finish_non_exhaustive()
    }
}

impl Baseline {
    /// The baseline of an echoing server: every stream listener is asked to echo a line, every datagram
    /// listener a datagram.
    pub fn of(server: &Server) -> Baseline {
        let addresses: Vec<String> = (0..server.listeners()).map(|i| server.addr(i).to_owned()).collect();
        Baseline::with(server, move || addresses.iter().try_for_each(|address| client::probe(address)))
    }

    /// The baseline of a server that answers `probe`, which is asked now, for warm-up, and again at each
    /// check.
    pub fn with(server: &Server, probe: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Baseline {
        Baseline::of_process(server, server.pid(), probe)
    }

    /// The baseline of `pid`, the master below a host program that is `server`'s own process.
    pub fn of_process(
        server: &Server,
        pid: u32,
        probe: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Baseline {
        Baseline::within(server, pid, probe, DEADLINE).unwrap_or_else(|why| server.fail(&why))
    }

    fn within(
        server: &Server,
        pid: u32,
        probe: impl Fn() -> io::Result<()> + Send + Sync + 'static,
        wait: Duration,
    ) -> Result<Baseline, String> {
        // Twice, so that it has gone on meanwhile to what comes after answers: a template that takes another's place is called one then,
        // and is no client's child.
        let asks_status = pid == server.pid() && answers_status(server) && answers_status(server);
        let least = spares_at_least(server.called());
        if asks_status {
            // They are children, and are made one after the other.
            until_within(wait, || (server.status().spares >= least).then_some(()));
        }
        // Workers, acceptors, what those have beside clients; or nobody.
        let (children, grandchildren) = helpers(server, pid, wait)?;
        probe().map_err(|error| format!("no answer to the first probe: {error}"))?;
        settle(server, pid, (children, grandchildren), asks_status, wait)?;
        let unreadable = |error| format!("read /proc/{pid}: {error}");
        Ok(Baseline {
            pid,
            fds: without_inits(pid, without_leaves(pid, procfs::fds(pid).map_err(unreadable)?).0),
            children,
            grandchildren,
            held: held(pid),
            memory_kib: procfs::private_dirty_kib(pid).map_err(unreadable)?,
            asks_status,
            // One that was replaced has another line.
            by_kind: least > 0,
            probe: Box::new(probe),
        })
    }

    /// Whether the server tells its open slots, so that they are compared too. `tine` does, unless it is `-q`.
    pub fn has_status(&self) -> bool {
        self.asks_status
    }

    /// Compares descriptors by kind, not by inode: for servers that have replaced a worker, a pidfd or a pipe
    /// since.
    pub fn by_kind(mut self) -> Baseline {
        self.by_kind = true;
        self
    }

    /// What differs from the baseline now, one item for each; nothing of it is waited for.
    pub fn differences(&self, server: &Server) -> Vec<String> {
        let mut found = Vec::new();
        let (alive, dead) = procfs::family(self.pid);
        if alive.len() != self.children {
            found.push(format!("{} children at the baseline, now {alive:?}", self.children));
        }
        if !dead.is_empty() {
            found.push(format!("zombies {dead:?}"));
        }
        for process in procfs::children(self.pid).into_iter().chain([self.pid]) {
            let inits = procfs::inits(process);
            // Those who wait for clients are in one each, and so were those whose place they have taken.
            if inits.len() > EMPTY_MAX + 2 * procfs::children(process).len() {
                found.push(format!("pid namespaces of {process}: {inits:?}"));
            }
        }
        let (below, dead) = grandchildren(self.pid);
        if below.len() != self.grandchildren {
            found.push(format!("{} grandchildren at the baseline, now {below:?}", self.grandchildren));
        }
        if !dead.is_empty() {
            found.push(format!("zombies of its children {dead:?}"));
        }
        for (child, now) in held(self.pid) {
            match self.held.get(&child) {
                // Less is no leak: at the baseline a template may have been about to close what was the first client's.
                Some(before)
                    if now.iter().any(|(kind, count)| before.get(kind).is_none_or(|had| count > had)) =>
                {
                    found.push(format!("its child {child} had {before:?}, now {now:?}"));
                }
                _ => {}
            }
        }
        match procfs::fds(self.pid) {
            Ok(now) => {
                let (now, leaves) = without_leaves(self.pid, now);
                found.extend(self.descriptors_differ(&without_inits(self.pid, now)));
                if leaves > LEAVES_OPEN_MAX {
                    found.push(format!("{leaves} descriptors of leaves of its control group"));
                }
            }
            Err(error) => found.push(format!("/proc/{}/fd: {error}", self.pid)),
        }
        for leaf in alive.iter().chain([&self.pid]).flat_map(|pid| groups::populated(*pid)) {
            // A child that waits for its client has its leaf already, and was counted above.
            let members = groups::members(&leaf);
            if members.is_empty() || !members.iter().all(|member| alive.contains(member)) {
                found.push(format!("somebody in the control group {}: {members:?}", leaf.display()));
            }
        }
        match procfs::private_dirty_kib(self.pid) {
            Ok(now) if now > self.memory_kib + MEMORY_GROWTH_KIB_MAX => {
                found.push(format!("private memory {} KiB at the baseline, now {now}", self.memory_kib));
            }
            Ok(_) => {}
            Err(error) => found.push(format!("/proc/{}/smaps: {error}", self.pid)),
        }
        found.extend(left_on_ports(server));
        if self.asks_status {
            match server.status_within(DEADLINE) {
                Ok(status) if status.open == 0 => {}
                Ok(status) => found.push(format!("open slots: {status:?}")),
                Err(why) => found.push(format!("no status: {why}")),
            }
        }
        found
    }

    fn descriptors_differ(&self, now: &BTreeMap<i32, String>) -> Vec<String> {
        if self.by_kind {
            let (before, now) = (kinds(&self.fds), kinds(now));
            return if before == now {
                Vec::new()
            } else {
                vec![format!("descriptors {before:?}, now {now:?}")]
            };
        }
        let numbers: BTreeSet<&i32> = self.fds.keys().chain(now.keys()).collect();
        let differing = numbers.into_iter().filter(|fd| self.fds.get(fd) != now.get(fd));
        differing
            .map(|fd| {
                let or_closed = |link: Option<&String>| link.map_or("closed".to_owned(), String::clone);
                format!("descriptor {fd}: {}, now {}", or_closed(self.fds.get(fd)), or_closed(now.get(fd)))
            })
            .collect()
    }
}

impl Server {
    /// Waits until the server is as at the baseline and still answers, and is so again after that.
    ///
    /// Panics with what differs, and the log, when it does not become so in time.
    pub fn quiescent(&self, baseline: &Baseline) {
        self.settled_as(baseline);
        if let Err(error) = (baseline.probe)() {
            self.fail(&format!("quiet, but no answer to the probe: {error}"));
        }
        self.settled_as(baseline);
    }

    fn settled_as(&self, baseline: &Baseline) {
        let start = Instant::now();
        let mut last = Vec::new();
        let quiet = until_within(DEADLINE, || {
            last = baseline.differences(self);
            last.is_empty().then_some(())
        });
        if quiet.is_none() {
            let seconds = start.elapsed().as_secs();
            self.fail(&format!("not quiet in {seconds} s:\n    {}", last.join("\n    ")));
        }
    }
}

/// Waits until the child of the warm-up has gone.
fn settle(
    server: &Server,
    pid: u32,
    (children, below): (usize, usize),
    asks_status: bool,
    wait: Duration,
) -> Result<(), String> {
    let settled = until_within(wait, || {
        let (alive, dead) = procfs::family(pid);
        let open = if asks_status { server.status().open } else { 0 };
        let quiet = alive.len() == children && dead.is_empty() && open == 0;
        let (alive, dead) = grandchildren(pid);
        (quiet && alive.len() == below && dead.is_empty()).then_some(())
    });
    settled.ok_or_else(|| {
        let (alive, dead) = procfs::family(pid);
        format!(
            "no rest after the first probe: {children} children before it, now {alive:?}, zombies {dead:?}"
        )
    })
}

/// The children of a process's children, the living and the dead.
fn grandchildren(pid: u32) -> (Vec<u32>, Vec<u32>) {
    let families = procfs::children(pid).into_iter().map(procfs::family);
    families.fold(Default::default(), |(alive, dead), (more, gone)| {
        ([alive, more].concat(), [dead, gone].concat())
    })
}

/// How many spares a server is to have whoever comes, by how it was called (`Server::called` quotes each word).
fn spares_at_least(called: &str) -> u64 {
    let after = called.split("\"--spare\" \"").nth(1).or_else(|| called.split("\"--spare=").nth(1));
    after.and_then(|rest| rest.split([':', '"']).next()?.parse().ok()).unwrap_or(0)
}

/// How many children a server has that nobody has come to yet, and how many those have: once all have begun that it says.
fn helpers(server: &Server, pid: u32, wait: Duration) -> Result<(usize, usize), String> {
    let mut acceptors = 1;
    if server.called().contains("acceptors") {
        let (_, line) = server.log_within(0, wait, |line| line.starts_with("listen "))?;
        let told = line.split(" acceptors=").nth(1).and_then(|count| count.split(' ').next()?.parse().ok());
        acceptors = told.unwrap_or(acceptors);
    }
    let least = if acceptors > 1 { acceptors } else { 0 };
    let begun = || {
        let (children, below) = (procfs::children(pid), grandchildren(pid).0.len());
        let sleeps = |child: &u32| procfs::stat(*child).is_some_and(|stat| stat.state == 'S');
        // Each has as many as the others.
        let all = acceptors == 1 || below.is_multiple_of(acceptors) && children.iter().all(sleeps);
        (children.len() >= least && all).then_some((children.len(), below))
    };
    until_within(wait, begun)
        .ok_or_else(|| format!("{acceptors} acceptors, and only {:?}", procfs::children(pid)))
}

/// What its children hold that could be a client's, or could tell of one: how many of each. Of a template, through whose hands
/// every client goes, all that it holds, and how much is mounted in its mount namespace, where that is not everybody's.
fn held(pid: u32) -> BTreeMap<u32, BTreeMap<String, usize>> {
    const KINDS: [&str; 2] = ["socket", "anon_inode:[pidfd]"];
    let children = procfs::children(pid);
    let of_child = |child: &u32| {
        let mut kinds = kinds(&without_inits(*child, procfs::fds(*child).ok()?));
        kinds.retain(|kind, _| KINDS.contains(&kind.as_str()));
        Some((*child, kinds))
    };
    let of_template = |(mother, template): (u32, u32)| {
        let mut kinds = kinds(&without_leaves(mother, procfs::fds(template).ok()?).0);
        kinds.extend(procfs::mounts_apart(template).map(|mounts| ("mount".to_owned(), mounts)));
        Some((template, kinds))
    };
    let mothers = children.iter().chain([&pid]);
    let templates =
        mothers.flat_map(|mother| procfs::templates(*mother).into_iter().map(|template| (*mother, template)));
    children.iter().filter_map(of_child).chain(templates.filter_map(of_template)).collect()
}

/// Whether SIGUSR1 is something the server expects (else it would die of it) and answers.
fn answers_status(server: &Server) -> bool {
    const USR1: u64 = 1 << (10 - 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap_or_default();
    let set = |name| procfs::value_of(&status, name).and_then(|set| u64::from_str_radix(set, 16).ok());
    let expected = ["SigBlk", "SigCgt"].into_iter().filter_map(set).any(|set| set & USR1 != 0);
    expected && server.status_within(STATUS_PATIENCE).is_ok()
}

/// Connections on the server's ports that it has not accepted, or accepted and not closed.
fn left_on_ports(server: &Server) -> Vec<String> {
    let addresses: Vec<SocketAddr> =
        (0..server.listeners()).filter_map(|i| server.addr(i).parse().ok()).collect();
    let here = |socket: &net::Socket| {
        addresses.iter().any(|address| {
            socket.local.port() == address.port()
                && (socket.local.ip() == address.ip() || socket.local.ip().is_unspecified())
        })
    };
    let sockets = net::tcp_sockets().into_iter().filter(here);
    let told = sockets.filter_map(|socket| match socket.state {
        net::LISTEN if socket.receive_queue > 0 => {
            Some(format!("{} clients not accepted on {}", socket.receive_queue, socket.local))
        }
        net::CLOSE_WAIT => {
            Some(format!("CLOSE-WAIT: {} has gone, {} not closed", socket.remote, socket.local))
        }
        net::ESTABLISHED | net::SYN_RECV => {
            Some(format!("{} still connected to {}", socket.remote, socket.local))
        }
        _ => None,
    });
    told.collect()
}

/// Descriptors but those of leaves of a server's control group, which it keeps for the next child; and how many those are.
fn without_leaves(pid: u32, mut fds: BTreeMap<i32, String>) -> (BTreeMap<i32, String>, usize) {
    let (before, own) = (fds.len(), format!("/tine-{pid}"));
    let is_leaf = |link: &str| {
        // With limits there are two such names, one in the other.
        let Some((_, rest)) = link.rsplit_once(&own) else { return false };
        // The name may have a number more, where it was taken; what comes below it is a leaf.
        let rest = rest.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
        rest.strip_prefix('/').is_some_and(|leaf| leaf.starts_with(|c: char| c.is_ascii_digit()))
    };
    fds.retain(|_, link| !is_leaf(link));
    let leaves = before - fds.len();
    (fds, leaves)
}

/// Descriptors but those of the first processes of pid namespaces, which a server keeps for the next client.
pub fn without_inits(pid: u32, mut fds: BTreeMap<i32, String>) -> BTreeMap<i32, String> {
    let inits = procfs::inits(pid);
    let is_one = |fd: &i32| {
        let about = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let of = procfs::value_of(&about, "Pid").and_then(|of| of.parse().ok());
        of.is_some_and(|of| inits.contains(&of))
    };
    fds.retain(|fd, link| !(link.contains("pidfd") && is_one(fd)));
    fds
}

/// How many descriptors of each kind there are: `socket:[4711]` is a `socket`.
fn kinds(fds: &BTreeMap<i32, String>) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for link in fds.values() {
        let kind = link.split(":[").next().unwrap_or(link);
        let kind = if kind == "anon_inode" { link } else { kind };
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_least_number_of_spares_is_in_the_call() {
        for (called, least) in [
            ("\"tine\" \"serve\" \"--spare\" \"4:16\" \"--\" \"cat\"", 4),
            ("\"tine\" \"--spare=2:2\" \"--spare-age\" \"1s\"", 2),
            ("\"tine\" \"--spare-age\" \"1s\"", 0),
        ] {
            assert_eq!(super::spares_at_least(called), least, "{called}");
        }
    }

    use std::process::Command;

    use super::*;
    use crate::Ready;

    /// A server of a few lines that forks for each client, answers SIGUSR1, and can be told to leak.
    const SERVER: &str = r#"
        use Socket; use IO::Handle; use POSIX ":sys_wait_h";
        my ($open, %kids, @leaked, $fat) = (0); my $leak = shift // "";
        socket(L, PF_INET, SOCK_STREAM, 0); setsockopt(L, SOL_SOCKET, SO_REUSEADDR, 1);
        bind(L, pack_sockaddr_in(0, INADDR_LOOPBACK)) or die $!; listen(L, 128);
        my ($port) = unpack_sockaddr_in(getsockname(L));
        $SIG{USR1} = sub { syswrite(STDERR, "status open=$open/9 served=0 failed=0 paused=0\n") };
        $SIG{CHLD} = sub {
            return if $leak eq "zombie";
            while ((my $pid = waitpid(-1, WNOHANG)) > 0) { $open-- unless $leak eq "slot" && $served > 1 }
        };
        if ($leak eq "template") {
            pipe(my $told, TELL); pipe(my $named, my $name);
            if (!fork) {
                $0 = "tine-template"; close TELL; close $name;
                while (sysread($told, my $byte, 1)) { open(my $null, "<", "/dev/null"); push @leaked, $null }
                POSIX::_exit(0);
            }
            close $name; sysread($named, my $byte, 1);
        }
        STDOUT->autoflush(1); print "ready 127.0.0.1:$port\n";
        vec(my $listening, fileno L, 1) = 1;
        while (1) {
            # In short turns: a signal just before a longer wait would be handled at its end only.
            next unless select(my $ready = $listening, undef, undef, 0.02) > 0;
            accept(my $c, L) or next;
            $served++; $open++;
            my $pid = fork;
            if (!$pid) { $SIG{CHLD} = "DEFAULT"; print $c $_ while <$c>; close $c; POSIX::_exit(0) }
            syswrite(TELL, "x") if $leak eq "template" && $served > 1;
            push @leaked, $c if $leak eq "fd" && $served > 1;
            $fat .= "x" x 3_000_000 if $leak eq "memory" && $served > 1;
        }
    "#;

    fn server(leak: &str) -> Server {
        let mut command = Command::new("perl");
        command.args(["-e", SERVER, leak]);
        Server::start(command, Ready::Line)
    }

    #[test]
    fn a_server_that_leaks_nothing_is_quiet() {
        let server = server("");
        let baseline = Baseline::of(&server);
        assert!(baseline.has_status());
        for _ in 0..20 {
            client::echo_line(server.addr(0), "hello").unwrap();
        }
        server.quiescent(&baseline);
    }

    #[test]
    fn a_slot_and_memory_and_what_a_template_keeps_are_seen() {
        for (leak, expected) in
            [("slot", "open slots"), ("memory", "private memory"), ("template", "its child ")]
        {
            let server = server(leak);
            let baseline = Baseline::of(&server);
            client::echo_line(server.addr(0), "one more").unwrap();
            let what = format!("the child is gone, and nothing but {expected:?} differs");
            crate::server::until(&what, || {
                let found = baseline.differences(&server);
                (found.len() == 1 && found[0].starts_with(expected)).then_some(())
            });
        }
    }

    #[test]
    fn a_descriptor_left_open_is_seen_on_both_sides() {
        let server = server("fd");
        let baseline = Baseline::of(&server);
        let client = client::Stream::connect(server.addr(0)).unwrap();
        client.finish().unwrap();
        let found = crate::server::until("the leak shows", || {
            let found = baseline.differences(&server);
            let has = |what: &str| found.iter().any(|line| line.starts_with(what));
            (has("descriptor") && has("CLOSE-WAIT")).then_some(found)
        });
        drop(client);
        assert!(found.iter().any(|line| line.contains("closed, now socket:[")), "{found:?}");
    }

    #[test]
    fn a_server_that_does_not_reap_gives_no_baseline() {
        let server = server("zombie");
        let address = server.addr(0).to_owned();
        let probe = move || client::echo_line(&address, "hello");
        // So long its child has to end.
        let why = Baseline::within(&server, server.pid(), probe, Duration::from_secs(4)).unwrap_err();
        let zombie = procfs::zombies(server.pid());
        assert_eq!(zombie.len(), 1);
        assert!(why.ends_with(&format!("zombies {zombie:?}")), "{why}");
    }

    #[test]
    fn leaves_that_are_kept_are_counted_apart_and_the_group_is_not() {
        let links = ["/x/tine-7", "/x/tine-7/0", "/x/tine-7/0/cgroup.events", "/x/tine-8/0", "socket:[1]"];
        let (others, leaves) = without_leaves(7, (0..).zip(links.map(str::to_owned)).collect());
        assert_eq!((others.into_keys().collect::<Vec<_>>(), leaves), (vec![0, 3, 4], 2));
    }

    #[test]
    fn kinds_forget_inodes_only() {
        let fds = [(0, "socket:[1]"), (1, "socket:[2]"), (2, "anon_inode:[eventpoll]"), (3, "/dev/null")];
        let kinds = kinds(&fds.map(|(fd, link)| (fd, link.to_owned())).into());
        let expected = [("socket", 2), ("anon_inode:[eventpoll]", 1), ("/dev/null", 1)];
        assert_eq!(kinds, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    }
}
