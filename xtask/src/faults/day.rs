//! One scripted day in the life of a server: started, six clients, asked for its status, told to end.
//!
//! Everything is bounded by a deadline, and everything seen goes into a [`Record`]; nothing is judged here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, wait};
use tine_testkit::quiet::without_inits;
use tine_testkit::server::until_within;
use tine_testkit::{Stream, children, fds, groups, keepers, templates, zombies};

use crate::Result;

/// How long any single thing of a day is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client waits for its next byte: longer than any pause a listener takes.
const CLIENT_PATIENCE: Duration = Duration::from_secs(8);

/// How many descriptors of leaves a master may keep on a day: six clients were there, and those who wait, who had one or another.
const LEAVES_MAX: usize = 2 * (6 + 2);

/// Is this a leaf of the control group of the master?
fn is_leaf(master: u32, link: &str) -> bool {
    let Some((_, rest)) = link.split_once(&format!("/tine-{master}")) else { return false };
    let rest = rest.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
    rest.strip_prefix('/').is_some_and(|leaf| leaf.starts_with(|c: char| c.is_ascii_digit()))
}

/// From now on whatever loses its parent becomes our child, so that nothing can be left behind unseen.
pub fn adopt_orphans() -> Result {
    let here = Pid::from_raw(std::process::id().cast_signed());
    set_child_subreaper(here).map_err(|why| format!("become a child subreaper: {why}"))
}

/// What the program says when the fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub n: u64,
    pub call: String,
    pub errno: String,
}

impl Fault {
    /// Reads `fault  n=12 call=accept4 errno=EMFILE`.
    pub fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("fault ")?;
        let value =
            |key: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        Some(Fault {
            n: value("n")?.parse().ok()?,
            call: value("call")?.to_string(),
            errno: value("errno")?.to_string(),
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n={} call={} errno={}", self.n, self.call, self.errno)
    }
}

/// Kinds of descriptors (`socket`, `pipe`, `/dev/null`) and how many there are of each.
pub type Descriptors = BTreeMap<String, usize>;

/// Everything seen on one day.
#[derive(Debug, Default)]
pub struct Record {
    pub fault: Option<Fault>,
    /// Did the fault strike before the server was told to end?
    pub struck_before_end: bool,
    /// Both listeners were told on stdout.
    pub ready: bool,
    /// Then stdout was closed, which is what whoever starts a server waits for.
    pub stdout_closed: bool,
    /// What went wrong with each client, if anything did.
    pub clients: Vec<std::result::Result<(), String>>,
    pub status_told: bool,
    /// Descriptors of the master when all clients had gone; none if it was gone too.
    pub descriptors: Option<Descriptors>,
    /// Children that were still there then, of acceptors too, the dead ones counted, but those that wait for a client; or
    /// acceptors that were not.
    pub children: usize,
    /// How it ended; none if it had to be killed.
    pub exit: Option<ExitStatus>,
    /// Processes that outlived the server.
    pub left_behind: Vec<u32>,
    /// Control groups that did.
    pub groups: Vec<PathBuf>,
    /// Mounts, seen from outside, that did.
    pub mounts: Vec<String>,
    pub log: Vec<String>,
}

impl Record {
    /// The day as lines for people.
    pub fn told(&self) -> String {
        let mut text = String::new();
        for (at, client) in self.clients.iter().enumerate() {
            if let Err(why) = client {
                text.push_str(&format!("       client {at}: {why}\n"));
            }
        }
        if let Some(descriptors) = &self.descriptors {
            text.push_str(&format!("       descriptors {descriptors:?}\n"));
        }
        let exit = self.exit.map_or("killed, it would not end".to_string(), |exit| exit.to_string());
        text.push_str(&format!("       {exit}\n"));
        for line in &self.log {
            text.push_str(&format!("       | {line}\n"));
        }
        text.pop();
        text
    }
}

/// What kind of server it is that has its day.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Children that wait for clients.
    pub spares: usize,
    /// Processes that accept.
    pub acceptors: u64,
    /// The profile that its children are confined by.
    pub confine: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kind { spares, acceptors, confine } = self;
        write!(f, "spares={spares} acceptors={acceptors} confine={confine}")
    }
}

/// A day that has begun.
pub struct Day {
    server: Child,
    /// The mounts that there were before.
    mounts: BTreeSet<String>,
    name: String,
    /// How many children there are with nobody to serve: spares, or acceptors.
    resident: usize,
    stdout: Lines,
    stderr: Lines,
}

impl Day {
    /// Starts such a server, with this wish for a fault.
    pub fn new(tine: &Path, kind: &Kind, wish: &str) -> Self {
        static DAYS: AtomicU64 = AtomicU64::new(0);
        let name = format!("tine-faults-{}-{}", std::process::id(), DAYS.fetch_add(1, Ordering::Relaxed));
        let Kind { spares, acceptors, confine } = kind;
        let mounts = mounts();
        let mut server = Command::new(tine)
            .args(["serve", "tcp://127.0.0.1:0", &format!("unix:@{name}"), "-1", "-v"])
            .args((*spares > 0).then(|| format!("--spare={spares}:{spares}")))
            .args(["--confine", confine, "--acceptors", &acceptors.to_string(), "--", "cat"])
            .env("TINE_FAULT", wish)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built a moment ago");
        let stdout = Lines::of(server.stdout.take().expect("stdout was asked to be a pipe"));
        let stderr = Lines::of(server.stderr.take().expect("stderr was asked to be a pipe"));
        let resident = if *acceptors > 1 { *acceptors as usize } else { *spares };
        Day { server, mounts, name, resident, stdout, stderr }
    }

    /// Lives the day to its end, whatever happens in it.
    pub fn pass(mut self) -> Record {
        let mut record = Record::default();
        if let Some(port) = self.ready() {
            record.ready = true;
            record.stdout_closed = until_within(Duration::from_secs(1), || self.stdout.ended()).is_some();
            self.clients(port, &mut record);
            self.status(&mut record);
            self.evening(&mut record);
            record.struck_before_end = self.fault().is_some();
            self.signal(Signal::TERM);
        }
        record.exit = self.end();
        record.left_behind = left_behind();
        record.groups.extend(groups::of(self.server.id()));
        record.groups.retain(|group| group.exists());
        record.mounts = mounts().difference(&self.mounts).cloned().collect();
        // Whoever held the log is gone by now, so its reader comes to the end.
        until_within(PATIENCE, || self.stderr.ended());
        record.fault = self.fault();
        record.log = self.stderr.seen();
        record
    }

    /// The port, once stdout has a line for each listener; nothing if it comes to its end without.
    fn ready(&self) -> Option<u16> {
        let both = || self.stdout.seen().len() == 2;
        until_within(PATIENCE, || (both() || self.stdout.ended().is_some()).then_some(()));
        if both() { self.stdout.seen()[0].parse().ok() } else { None }
    }

    /// Three clients one after the other, and three at once.
    fn clients(&self, port: u16, record: &mut Record) {
        let tcp = format!("127.0.0.1:{port}");
        let unix = format!("unix:@{}", self.name);
        for (at, address) in [&tcp, &unix, &tcp].into_iter().enumerate() {
            record.clients.push(echo(address, at));
        }
        let together: Vec<_> = [tcp.clone(), unix, tcp]
            .into_iter()
            .enumerate()
            .map(|(at, address)| thread::spawn(move || echo(&address, 3 + at)))
            .collect();
        for client in together {
            record.clients.push(client.join().unwrap_or_else(|_| Err("its thread panicked".to_string())));
        }
    }

    fn status(&self, record: &mut Record) {
        self.signal(Signal::USR1);
        let told = || self.stderr.seen().iter().any(|line| line.starts_with("status "));
        record.status_told = until_within(Duration::from_secs(3), || told().then_some(())).is_some();
    }

    /// Waits until nobody is there any more but the master and those who wait, and looks at what it holds.
    fn evening(&self, record: &mut Record) {
        let pid = self.server.id();
        let of = |pid| children(pid).len() + zombies(pid).len();
        let family = || of(pid).abs_diff(self.resident) + children(pid).into_iter().map(of).sum::<usize>();
        // Seen once is seen: a second look may find a spare that is just being replaced.
        let quiet = until_within(PATIENCE, || (family() == 0).then_some(0));
        record.children = quiet.unwrap_or_else(family);
        record.groups = children(pid).into_iter().flat_map(groups::of).collect();
        record.descriptors = fds(pid).ok().map(|fds| {
            let fds = without_inits(pid, fds).into_values();
            let (leaves, others): (Vec<_>, Vec<_>) = fds.partition(|link| is_leaf(pid, link));
            // The name of its control group has its number in it, and one more where that name was taken.
            let own = format!("/tine-{pid}");
            let plain = |link: String| if link.contains(&own) { "control group".to_string() } else { link };
            let mut kinds = kinds(others.into_iter().map(plain));
            // Kept for the next child, two of each, as many as there were at once at most.
            if leaves.len() > LEAVES_MAX {
                kinds.insert("leaf of a control group".to_string(), leaves.len());
            }
            // Where SIGCHLD cannot be relied on, whoever stays is watched by a descriptor.
            if let Some(count) = kinds.get_mut("anon_inode:[pidfd]") {
                *count = count.saturating_sub(self.resident + templates(pid).len() + keepers(pid).len());
            }
            // One of a template that another has taken the place of, for whoever waits still and was born from it.
            if let Some(count) = kinds.get_mut("anon_inode:seccomp notify") {
                *count = count.saturating_sub(self.resident).max(1);
            }
            kinds
        });
    }

    /// Waits for the server to end; kills it if it does not.
    fn end(&mut self) -> Option<ExitStatus> {
        let ended = until_within(PATIENCE, || self.server.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.server.kill();
            let _ = self.server.wait();
        }
        ended
    }

    fn signal(&self, signal: Signal) {
        // The server is our own child and not waited for yet, so the pid is still its own.
        if let Some(pid) = Pid::from_raw(self.server.id().cast_signed()) {
            let _ = kill_process(pid, signal);
        }
    }

    fn fault(&self) -> Option<Fault> {
        self.stderr.seen().iter().find_map(|line| Fault::parse(line))
    }
}

/// What comes out of a pipe, line by line, read by a thread of its own.
struct Lines {
    reader: JoinHandle<()>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let written = seen.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(io::Result::ok) {
                written.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Lines { reader, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something, once the last writer has closed the pipe.
    fn ended(&self) -> Option<()> {
        self.reader.is_finished().then_some(())
    }
}

/// What is mounted, seen from here; but namespaces, which other tests on this machine mount to give them names.
fn mounts() -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| !line.contains(" - nsfs ")).map(str::to_owned).collect()
}

/// Reaps all children we have; hands back those that would not end by themselves, after killing them.
fn left_behind() -> Vec<u32> {
    if until_within(Duration::from_secs(3), all_reaped).is_some() {
        return Vec::new();
    }
    let own = std::process::id();
    let left = [children(own), templates(own)].concat();
    for pid in &left {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    until_within(PATIENCE, all_reaped);
    left
}

/// Waits for what has ended; something if there is nobody left to wait for.
fn all_reaped() -> Option<()> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Some(()), // ECHILD
        }
    }
}

/// A client: sends a line, reads it back, closes one way and reads the end.
fn echo(address: &str, client: usize) -> std::result::Result<(), String> {
    let told = |step: &'static str| move |why: io::Error| format!("{step}: {why}");
    let sent = format!("line of client {client}\n");
    let stream = Stream::connect(address).map_err(told("connect"))?;
    stream.set_timeout(Some(CLIENT_PATIENCE)).map_err(told("set a timeout"))?;
    (&stream).write_all(sent.as_bytes()).map_err(told("write"))?;
    let mut reader = BufReader::new(&stream);
    let mut received = String::new();
    reader.read_line(&mut received).map_err(told("read"))?;
    if received != sent {
        return Err(format!("read {received:?} instead of {sent:?}"));
    }
    stream.finish().map_err(told("half-close"))?;
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).map_err(told("read to the end"))?;
    if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes nobody asked for", rest.len())) }
}

/// Counts descriptors by kind: `socket:[4711]` is a socket like any other.
fn kinds(links: impl Iterator<Item = String>) -> Descriptors {
    let mut kinds = Descriptors::new();
    for link in links {
        let kind = match link.split_once(":[") {
            Some((kind, _)) if kind != "anon_inode" => kind.to_string(),
            _ => link,
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::{Fault, is_leaf, kinds};

    #[test]
    fn the_line_of_a_fault_is_read() {
        let fault = Fault::parse("fault  n=12 call=accept4 errno=EMFILE").unwrap();
        assert_eq!((fault.n, fault.call.as_str(), fault.errno.as_str()), (12, "accept4", "EMFILE"));
        assert_eq!(fault.to_string(), "n=12 call=accept4 errno=EMFILE");
        assert_eq!(Fault::parse("fault  calls=57"), None);
        assert_eq!(Fault::parse("accept peer=x call=1 n=2 errno=3"), None);
    }

    #[test]
    fn a_leaf_is_what_is_in_a_group_of_the_masters() {
        for (link, leaf) in [
            ("/sys/fs/cgroup/tine-7/0", true),
            ("/sys/fs/cgroup/tine-7-2/12/cgroup.procs", true),
            ("/sys/fs/cgroup/tine-7", false),
            ("/sys/fs/cgroup/tine-7/cgroup.procs", false),
            ("pipe:[7]", false),
        ] {
            assert_eq!(is_leaf(7, link), leaf, "{link}");
        }
    }

    #[test]
    fn descriptors_are_counted_by_kind() {
        let links = ["socket:[1]", "socket:[22]", "anon_inode:[eventpoll]", "/dev/null", "pipe:[3]"];
        let kinds = kinds(links.into_iter().map(str::to_string));
        assert_eq!(kinds["socket"], 2);
        assert_eq!((kinds["anon_inode:[eventpoll]"], kinds["/dev/null"], kinds["pipe"]), (1, 1, 1));
    }
}
