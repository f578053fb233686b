//! A server under test: started, watched through its log, asked, stopped, and never left behind.
//!
//! A thread reads stderr line by line into a log that tests wait on. Only the process that was started is
//! ever signalled, through its pidfd: its children are its own affair, and whether it leaves some is what tests find
//! out. A test that ends before its server does leaves nobody all the same: see [`Server`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, prlimit,
};

use crate::procfs::Stat;
use crate::{groups, net, procfs, target};

/// How long anything is waited for before the test fails, a server's becoming quiet too, with the whole log as the reason.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How many lines of a log are kept; what comes after them is counted only.
pub const LOG_LINES_MAX: usize = 1_000_000;

/// How a server tells that clients may come.
#[derive(Debug, Clone)]
pub enum Ready {
    /// As `tine serve -1`: a line for each listener on stdout, with its port or empty, then the end of
    /// stdout. Holds the listeners as given to tine, so that [`Server::addr`] can put the ports in.
    Ports(Vec<String>),
    /// As the examples: one line `ready ADDR...` on stdout.
    Line,
    /// Nothing is said (stdout may be closed): the kernel's tables show when these fixed addresses are there.
    Bound(Vec<String>),
}

/// One answer to SIGUSR1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Children that serve now.
    pub open: u64,
    /// How many there may be.
    pub max: u64,
    /// Children that have ended.
    pub served: u64,
    /// Of these, how many ended otherwise than well.
    pub failed: u64,
    /// Listeners that rest.
    pub paused: u64,
    /// Children that wait for clients.
    pub spares: u64,
    waiting: u64,
    refused: u64,
    refused_for: BTreeMap<String, u64>,
}

impl Status {
    /// Reads `status open=0/256 waiting=0 served=6 failed=6 paused=0 refused=1 refused.source=1`; keys may be
    /// missing (0) or more.
    pub fn parse(line: &str) -> Option<Status> {
        let mut words = line.split_whitespace();
        if words.next() != Some("status") {
            return None;
        }
        let mut status = Status::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "open" => {
                    let (open, max) = value.split_once('/')?;
                    (status.open, status.max) = (open.parse().ok()?, max.parse().ok()?);
                }
                "served" => status.served = value.parse().ok()?,
                "failed" => status.failed = value.parse().ok()?,
                "paused" => status.paused = value.parse().ok()?,
                "spares" => status.spares = value.parse().ok()?,
                "waiting" => status.waiting = value.parse().ok()?,
                "refused" => status.refused = value.parse().ok()?,
                _ => {
                    if let Some(reason) = key.strip_prefix("refused.") {
                        status.refused_for.insert(reason.to_owned(), value.parse().ok()?);
                    }
                }
            }
        }
        Some(status)
    }

    /// Clients that were accepted and wait for a slot.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Clients that were refused for this reason (`source`, `full`, ...), since the server began.
    pub fn refused(&self, reason: &str) -> u64 {
        self.refused_for.get(reason).copied().unwrap_or(0)
    }

    /// Clients that were refused for any reason, as the server itself sums them up.
    pub fn refused_in_all(&self) -> u64 {
        self.refused
    }
}

/// A started server. Dropping it kills and reaps the one process that was started, and kills whoever is in its control
/// groups.
#[derive(Debug)]
pub struct Server {
    child: Mutex<Child>,
    pidfd: OwnedFd,
    pid: u32,
    addresses: Vec<String>,
    log: Arc<Log>,
    called: String,
}

impl Server {
    /// Starts `tine serve ARGS` and waits until it listens. `-1` is added when it is absent.
    pub fn tine(args: &[&str]) -> Server {
        let listeners = listeners_among(args);
        Server::start(tine_command(args), Ready::Ports(listeners))
    }

    /// Starts the example `name` of the crate tine and waits until it is ready.
    pub fn example(name: &str, args: &[&str]) -> Server {
        Server::start(example_command(name, args), Ready::Line)
    }

    /// Starts any command as a server and waits until it is ready. Its stdin is /dev/null; stdout and stderr
    /// come here.
    pub fn start(command: Command, ready: Ready) -> Server {
        let (mut server, stdout) = Server::spawn(command);
        server.addresses = server.wait_ready(stdout, ready);
        server
    }

    /// As [`Server::start`] with [`Ready::Ports`], where it may as well not start: with what it ended then, and all that it said.
    ///
    /// # Errors
    /// It has ended before it was ready. Who can still write to its log by then fails the test.
    pub fn attempt(command: Command, listeners: Vec<String>) -> Result<Server, (ExitStatus, String)> {
        let (mut server, stdout) = Server::spawn(command);
        let lines = server.stdout_lines(stdout, usize::MAX);
        if lines.is_empty() {
            let status = server.wait_end();
            if until_within(DEADLINE, || server.log.lock().ended.then_some(())).is_none() {
                server.fail("it did not start, and left somebody behind who can write to its log");
            }
            return Err((status, server.log()));
        }
        if lines.len() != listeners.len() {
            server.fail(&format!("lines {lines:?} on stdout for the listeners {listeners:?}"));
        }
        let both = listeners.iter().zip(&lines);
        server.addresses = both.map(|(listener, port)| client_address(listener, port)).collect();
        Ok(server)
    }

    fn spawn(mut command: Command) -> (Server, ChildStdout) {
        let called = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {called}: {error}"));
        let pid = child.id();
        let pidfd = pidfd_open(pid_of(pid), PidfdFlags::empty()).expect("a pidfd of an own child");
        let log = Arc::new(Log::default());
        log.follow(child.stderr.take().expect("stderr is piped"));
        let stdout = child.stdout.take().expect("stdout is piped");
        (Server { child: Mutex::new(child), pidfd, pid, addresses: Vec::new(), log, called }, stdout)
    }

    /// What the server says on stdout, or where it is bound, becomes its addresses.
    fn wait_ready(&self, stdout: impl Read + Send + 'static, ready: Ready) -> Vec<String> {
        match ready {
            Ready::Ports(listeners) => {
                let lines = self.stdout_lines(stdout, usize::MAX);
                if lines.is_empty() || lines.len() != listeners.len() {
                    self.fail(&format!("lines {lines:?} on stdout for the listeners {listeners:?}"));
                }
                listeners.iter().zip(&lines).map(|(listener, port)| client_address(listener, port)).collect()
            }
            Ready::Line => {
                let lines = self.stdout_lines(stdout, 1);
                let Some(addresses) = lines.first().and_then(|line| line.strip_prefix("ready ")) else {
                    self.fail(&format!("lines {lines:?} on stdout instead of 'ready ADDR'"));
                };
                addresses.split_whitespace().map(|address| client_address(address, "")).collect()
            }
            Ready::Bound(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(|a| client_address(a, "")).collect();
                let ended = || !self.running();
                until(&format!("{} is bound at {addresses:?}", self.called), || {
                    (ended() || addresses.iter().all(|address| bound(address))).then_some(())
                });
                if ended() {
                    self.fail("an end before it was ready");
                }
                addresses
            }
        }
    }

    /// The first lines of stdout, at most `count`; the rest is read and thrown away, so that the server never
    /// blocks on it.
    fn stdout_lines(&self, stdout: impl Read + Send + 'static, count: usize) -> Vec<String> {
        let (to, from) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = to.send(line); // nobody listens once the server is ready
            }
        });
        let deadline = Instant::now() + DEADLINE;
        let mut lines = Vec::new();
        while lines.len() < count {
            match from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.fail(&format!("only {lines:?} on stdout in time"))
                }
            }
        }
        lines
    }

    /// How it was started.
    pub fn called(&self) -> &str {
        &self.called
    }

    /// The process that was started.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How many listeners the server has.
    pub fn listeners(&self) -> usize {
        self.addresses.len()
    }

    /// Where a client finds the listener `i`: `127.0.0.1:40123` (TCP or UDP), `unix:/path`, `unix:@name`,
    /// `unixgram:/path`.
    pub fn addr(&self, i: usize) -> &str {
        self.addresses.get(i).unwrap_or_else(|| self.fail(&format!("no listener {i}")))
    }

    /// The address of the listener `i`, which has one.
    pub fn socket(&self, i: usize) -> SocketAddr {
        let address = self.addr(i);
        address.parse().unwrap_or_else(|_| self.fail(&format!("no port in the address {address}")))
    }

    /// The port of the listener `i`, which has one.
    pub fn port(&self, i: usize) -> u16 {
        self.socket(i).port()
    }

    /// All that the server has logged so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// The number of the line that will be logged next: where [`Server::wait_log_from`] starts to see what
    /// comes from now on.
    pub fn cursor(&self) -> usize {
        self.log.lock().lines.len()
    }

    /// The first line of the whole log that matches, waited for. Panics with the log at the deadline.
    pub fn wait_log(&self, matches: impl Fn(&str) -> bool) -> String {
        self.wait_log_from(0, matches).1
    }

    /// The first line that matches, from line `from` on, and the number of the line after it, to go on from.
    pub fn wait_log_from(&self, from: usize, matches: impl Fn(&str) -> bool) -> (usize, String) {
        self.log_within(from, DEADLINE, matches).unwrap_or_else(|why| self.fail(&why))
    }

    /// As [`Server::wait_log_from`], with a deadline of one's own and an answer instead of a panic.
    pub fn log_within(
        &self,
        from: usize,
        wait: Duration,
        matches: impl Fn(&str) -> bool,
    ) -> Result<(usize, String), String> {
        self.log.wait(from, Instant::now() + wait, matches)
    }

    /// Sends a signal to the process that was started; one that has ended is left alone.
    pub fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => self.fail(&format!("signal {signal:?}: {error}")),
        }
    }

    /// Asks with SIGUSR1 and returns the status line that follows.
    pub fn status(&self) -> Status {
        self.status_within(DEADLINE).unwrap_or_else(|why| self.fail(&why))
    }

    /// As [`Server::status`], with a deadline of one's own and an answer instead of a panic.
    pub fn status_within(&self, wait: Duration) -> Result<Status, String> {
        let from = self.cursor();
        self.signal(Signal::USR1);
        let (_, line) = self.log_within(from, wait, |line| line.starts_with("status "))?;
        Status::parse(&line).ok_or_else(|| format!("a status that cannot be read: {line}"))
    }

    /// Sets how many descriptors the running server may have, and tells how many it might have before.
    pub fn prlimit_nofile(&self, soft: u64) -> u64 {
        let pid = pid_of(self.pid);
        // The hard limit stays; prlimit(2) wants it told, and the server's may differ from our own.
        let hard = self.hard_nofile().or(getrlimit(Resource::Nofile).maximum);
        let limit = Rlimit { current: Some(soft), maximum: hard };
        let old = prlimit(Some(pid), Resource::Nofile, limit)
            .unwrap_or_else(|error| self.fail(&format!("prlimit {soft}: {error}")));
        old.current.unwrap_or(u64::MAX)
    }

    fn hard_nofile(&self) -> Option<u64> {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.pid)).ok()?;
        let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
        line.split_whitespace().nth(4)?.parse().ok()
    }

    /// Whether the process that was started still runs.
    pub fn running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Waits for the process to end by itself; one that ends well must have left nothing behind: no process, no control
    /// group, nobody who could still write to its log. Panics with the log at the deadline.
    pub fn wait(&self) -> ExitStatus {
        let family = self.family();
        let status = self.wait_end();
        if status.success() {
            let mut left = Vec::new();
            let nothing = until_within(DEADLINE, || {
                left = self.left_behind(&family);
                left.is_empty().then_some(())
            });
            if nothing.is_none() {
                self.fail(&format!("it has ended and left behind:\n    {}", left.join("\n    ")));
            }
        }
        status
    }

    fn wait_end(&self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        while self.running() {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => self.fail("no end in time"),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => self.fail(&format!("poll: {error}")),
            }
        }
        self.child().wait().expect("an own child can be waited for")
    }

    /// All processes that the server or its children have started, as far as they can be found.
    fn family(&self) -> Vec<Stat> {
        let mut pids = procfs::descendants(self.pid);
        pids.extend(self.groups().iter().flat_map(|group| groups::members(group)));
        pids.into_iter().filter_map(procfs::stat).collect()
    }

    /// The control groups of the server, and of the acceptors that it has or had.
    fn groups(&self) -> Vec<PathBuf> {
        let log = self.log.lock();
        let told = |line: &String| line.strip_prefix("acceptor pid=")?.split(' ').next()?.parse().ok();
        let mut owners: Vec<u32> = log.lines.iter().filter_map(told).collect();
        owners.extend(procfs::children(self.pid));
        owners.push(self.pid);
        owners.into_iter().flat_map(groups::of).collect()
    }

    /// What is left of a server that has ended.
    fn left_behind(&self, family: &[Stat]) -> Vec<String> {
        const START: usize = 22 - 3; // a field of proc_pid_stat(5), counted from the third
        let is_same = |stat: &Stat| {
            let now = procfs::stat(stat.pid).filter(|now| now.state != 'Z');
            now.is_some_and(|now| now.fields.get(START) == stat.fields.get(START))
        };
        let processes = family.iter().filter(|stat| is_same(stat));
        let mut left: Vec<String> = processes.map(|stat| format!("the process {}", stat.pid)).collect();
        let owned = family.iter().flat_map(|stat| groups::of(stat.pid));
        left.extend(owned.chain(self.groups()).map(|group| {
            format!("the control group {}, with {:?} in it", group.display(), groups::members(&group))
        }));
        if !self.log.lock().ended {
            left.push("somebody who can write to its log".to_owned());
        }
        left
    }

    /// Asks the server to end (TERM) and waits until it has: see [`Server::wait`].
    pub fn stop(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Ends the test with all that is known of this server.
    pub fn fail(&self, why: &str) -> ! {
        let end = self.child().try_wait().ok().flatten();
        if end.is_some() {
            // Its last words may still be in the pipe; a child that holds the pipe open is not waited for.
            until_within(Duration::from_secs(1), || self.log.lock().ended.then_some(()));
        }
        panic!("{}\n  saw: {why}\n  pid: {}, ended: {end:?}\n  log:\n{}", self.called, self.pid, self.log());
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child();
        if let Ok(None) = child.try_wait() {
            let helpers = procfs::children(self.pid);
            let _ = child.kill(); // it may have ended already: std then does nothing
            // Until it is waited for nobody else has its number, and with it the names of its groups.
            groups::kill(self.pid);
            // Its acceptors' own, which end with it.
            helpers.into_iter().for_each(groups::kill);
        }
        let _ = child.wait();
    }
}

/// The command `tine serve ARGS`, with `-1` added when it is absent.
pub fn tine_command(args: &[&str]) -> Command {
    let mut command = Command::new(target::binary("tine"));
    command.arg("serve");
    if !args.iter().take_while(|arg| **arg != "--").any(|arg| *arg == "-1") {
        command.arg("-1");
    }
    command.args(args);
    command
}

/// The command that runs the example `name` of the crate tine.
pub fn example_command(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(target::example("tine", name));
    command.args(args);
    command
}

/// The listeners among the arguments of `tine serve`: what looks like an address, before `--`.
pub fn listeners_among(args: &[&str]) -> Vec<String> {
    const SCHEMES: [&str; 7] = ["tcp://", "udp://", "unix:", "unixgram:", "vsock:", "fd:", "systemd:"];
    let address = |arg: &str| {
        let plain = arg.split('?').next().unwrap_or(arg);
        let port = plain.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let bare = port.is_some() && !plain.starts_with('-') && !plain.contains('=');
        bare || SCHEMES.iter().any(|scheme| arg.starts_with(scheme))
    };
    let own = args.iter().take_while(|arg| **arg != "--");
    own.filter(|arg| address(arg)).map(|arg| (*arg).to_owned()).collect()
}

/// The address that a client connects to, of a listener and the port that it got (empty if none was told).
fn client_address(listener: &str, port: &str) -> String {
    let bare = listener.split('?').next().unwrap_or(listener);
    let bare = bare.strip_prefix("tcp://").or(bare.strip_prefix("udp://")).unwrap_or(bare);
    let Some((host, given)) = bare.rsplit_once(':').filter(|(host, _)| !host.starts_with("unix")) else {
        return bare.to_owned();
    };
    let port = if port.is_empty() { given } else { port };
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => format!("[{}]:{port}", Ipv6Addr::LOCALHOST),
        Err(_) if host.is_empty() || host == "localhost" => format!("{}:{port}", Ipv4Addr::LOCALHOST),
        _ => format!("{host}:{port}"),
    }
}

/// Whether something is bound at a client's address.
fn bound(address: &str) -> bool {
    if let Some(path) = address.strip_prefix("unix:").or(address.strip_prefix("unixgram:")) {
        return net::unix_bound(path);
    }
    let Ok(address) = address.parse::<SocketAddr>() else { return false };
    let tcp = net::tcp_sockets().into_iter().filter(|socket| socket.state == net::LISTEN);
    tcp.chain(net::udp_sockets()).any(|socket| {
        socket.local.port() == address.port()
            && (socket.local.ip() == address.ip() || socket.local.ip().is_unspecified())
    })
}

/// Polls a condition until it gives a value. Panics with `what` at the deadline.
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_within(DEADLINE, condition).unwrap_or_else(|| panic!("not in {} s: {what}", DEADLINE.as_secs()))
}

/// Polls a condition until it gives a value or `wait` has passed.
pub fn until_within<T>(wait: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + wait;
    loop {
        let value = condition();
        if value.is_some() || Instant::now() >= deadline {
            return value;
        }
        thread::sleep(Duration::from_millis(5)); // between two looks; nothing relies on how long
    }
}

fn pid_of(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid of the kernel's")
}

/// The lines of stderr, growing.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    beyond: usize,
    ended: bool,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread that reads until the last holder of the pipe has closed it.
    fn follow(self: &Arc<Log>, stderr: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while matches!(stderr.read_until(b'\n', &mut line), Ok(1..)) {
                log.push(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned());
                line.clear();
            }
            log.lock().ended = true;
            log.more.notify_all();
        });
    }

    fn push(&self, line: String) {
        let mut lines = self.lock();
        if lines.lines.len() < LOG_LINES_MAX {
            lines.lines.push(line);
        } else {
            lines.beyond += 1;
        }
        drop(lines);
        self.more.notify_all();
    }

    fn text(&self) -> String {
        let lines = self.lock();
        let mut text = lines.lines.join("\n");
        if lines.beyond > 0 {
            text.push_str(&format!("\n({} more lines were not kept)", lines.beyond));
        }
        text
    }

    fn wait(
        &self,
        from: usize,
        deadline: Instant,
        matches: impl Fn(&str) -> bool,
    ) -> Result<(usize, String), String> {
        let mut lines = self.lock();
        let mut next = from;
        loop {
            while let Some(line) = lines.lines.get(next) {
                next += 1;
                if matches(line) {
                    return Ok((next, line.clone()));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended {
                return Err(format!("the end of the log and no such line from line {from} on"));
            }
            if left.is_zero() {
                return Err(format!("no such line in the log from line {from} on, in time"));
            }
            lines = self.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// A server that says what tine says, without serving anybody.
    const ACTOR: &str = r#"
        $| = 1;
        $SIG{USR1} = sub { print STDERR "status open=1/256 waiting=3 served=7 failed=2 paused=0" .
            " refused=5 refused.full=1 refused.source=4\n" };
        $SIG{TERM} = sub { print STDERR "stop   served=7\n"; exit 0 };
        print STDERR "listen tcp://127.0.0.1:7000 children=256\n";
        print "7000\n\n";
        close STDOUT;
        select undef, undef, undef, 0.02 while 1; # a signal just before a longer sleep would wait for its end
    "#;

    fn actor() -> Server {
        let mut command = Command::new("perl");
        command.args(["-e", ACTOR]);
        let listeners = ["tcp://0.0.0.0:0?backlog=9", "unix:/run/x?mode=0660"];
        Server::start(command, Ready::Ports(listeners.map(str::to_owned).to_vec()))
    }

    #[test]
    fn ports_become_addresses() {
        let server = actor();
        assert_eq!((server.addr(0), server.port(0)), ("127.0.0.1:7000", 7000));
        assert_eq!((server.addr(1), server.listeners()), ("unix:/run/x", 2));
    }

    #[test]
    fn a_status_is_the_one_asked_for_and_stop_is_clean() {
        let server = actor();
        server.wait_log(|line| line.starts_with("listen"));
        let asked = server.status();
        assert_eq!((asked.open, asked.max, asked.served, asked.failed, asked.paused), (1, 256, 7, 2, 0));
        assert_eq!((asked.waiting(), asked.refused_in_all()), (3, 5));
        assert_eq!((asked.refused("source"), asked.refused("full"), asked.refused("rate")), (4, 1, 0));
        let from = server.cursor();
        assert_eq!(server.status(), asked, "a new line, not the old one");
        assert!(server.cursor() > from);
        assert!(server.stop().success());
        assert_eq!(server.wait_log_from(from, |line| line.starts_with("stop")).1, "stop   served=7");
        assert!(!server.running());
    }

    #[test]
    fn the_limit_of_descriptors_is_set_from_outside() {
        let server = actor();
        let old = server.prlimit_nofile(77);
        assert!(old > 77);
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(line.split_whitespace().nth(3), Some("77"));
        assert_eq!(server.prlimit_nofile(old), 77);
    }

    #[test]
    fn what_outlives_a_server_is_seen() {
        let script = "trap 'exit 0' TERM; sleep 1000 & echo ready unix:@nowhere; wait";
        let server = Server::start(shell(script), Ready::Line);
        let family = server.family();
        server.signal(Signal::TERM);
        assert!(server.wait_end().success());
        let left = server.left_behind(&family);
        let [sleeper] = &family[..] else { panic!("one child, not {family:?}") };
        let expected =
            [format!("the process {}", sleeper.pid), "somebody who can write to its log".to_owned()];
        assert_eq!(left, expected);
        let pidfd = pidfd_open(pid_of(sleeper.pid), PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&pidfd, Signal::KILL).unwrap();
        until("nothing is left", || server.left_behind(&family).is_empty().then_some(()));
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let server = actor();
        let pid = server.pid();
        drop(server);
        assert_eq!(crate::procfs::stat(pid), None);
    }

    #[test]
    fn a_ready_line_and_a_bound_port_are_both_ways_to_be_ready() {
        let server = Server::start(shell("echo ready tcp://[::]:81; read x <&2"), Ready::Line);
        assert_eq!(server.addr(0), "[::1]:81");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let server = Server::start(Command::new("yes"), Ready::Bound(vec![address]));
        assert_eq!(server.socket(0), listener.local_addr().unwrap());
    }

    #[test]
    #[should_panic(expected = "cannot bind the moon")]
    fn a_server_that_ends_early_fails_with_its_log() {
        Server::start(shell("echo cannot bind the moon >&2; read x; exit 111"), Ready::Line);
    }

    #[test]
    fn listeners_are_told_from_options_and_programs() {
        let args =
            ["-c", "40", "[::1]:7000", "unix:/x", ":80", "-E", "A=b:1", "udp://h:1", "--", "tcp://x:1"];
        assert_eq!(listeners_among(&args), ["[::1]:7000", "unix:/x", ":80", "udp://h:1"]);
        assert_eq!(client_address(":80", ""), "127.0.0.1:80");
        assert_eq!(client_address("tcp://[::]:0", "81"), "[::1]:81");
        assert_eq!(client_address("unix:@a:1?x=y", ""), "unix:@a:1");
    }
}
