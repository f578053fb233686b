//! What these tests share beside the testkit: clients that stay, the children that serve them, and how those end.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use rustix::process::{getrlimit, pidfd_open, pidfd_send_signal, setrlimit};
use tine_testkit::server::until;
use tine_testkit::{Server, Stream, children, procfs};

/// A client that stays connected and says a line now and then.
#[derive(Debug)]
pub struct Client {
    pub stream: Stream,
    said: u64,
}

impl Client {
    /// Connects; the server may not have noticed yet.
    pub fn connect(address: &str) -> Client {
        let stream = Stream::connect(address).unwrap_or_else(|why| panic!("connect {address}: {why}"));
        Client { stream, said: 0 }
    }

    /// Connects and is served: its child exists.
    pub fn served(address: &str) -> Client {
        let mut client = Client::connect(address);
        client.talk().unwrap_or_else(|why| panic!("the first line at {address}: {why}"));
        client
    }

    /// Says a line that it has not said before and expects exactly that.
    pub fn talk(&mut self) -> io::Result<()> {
        self.said += 1;
        let line = format!("line {} of {:?}\n", self.said, self.name());
        self.say(&line)?;
        let reply = self.line()?;
        if reply == line {
            Ok(())
        } else {
            Err(io::Error::other(format!("expected {line:?}, got {reply:?}")))
        }
    }

    /// Says something, with nothing added.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        self.stream.write_all(text.as_bytes())
    }

    /// The next line that comes, its end included; what comes before an end of file is a line too.
    pub fn line(&mut self) -> io::Result<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\n") && self.stream.read(&mut byte)? == 1 {
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Says that there is nothing more to say, and expects nothing but the end.
    pub fn leave(self) -> io::Result<()> {
        self.stream.finish()?;
        match self.stream.rest()? {
            rest if rest.is_empty() => Ok(()),
            rest => Err(io::Error::other(format!("{} bytes more", rest.len()))),
        }
    }

    /// Expects that there is nobody any more at the other end: the end, or a reset.
    pub fn expect_gone(&mut self) {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Err(why) if why.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("expected the end of the connection, got {other:?} {byte:?}"),
        }
    }

    /// The child that serves this client, which is one of TCP, as the log names it.
    pub fn child(&self, server: &Server) -> u32 {
        let name = self.name().expect("a TCP client has an address");
        let of = format!("accept peer={name} ");
        let line = server.wait_log(|line| line.starts_with(&of));
        value_of(&line, "child").parse().expect("a pid in the log")
    }

    fn name(&self) -> Option<std::net::SocketAddr> {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().ok(),
            Stream::Unix(_) => None,
        }
    }
}

/// The value of `key=value` in a line of the log.
pub fn value_of<'a>(line: &'a str, key: &str) -> &'a str {
    let found = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key} in {line:?}"))
}

/// Waits for the end of a child and tells how it ended: `exit=0`, `signal=9`.
pub fn end_of(server: &Server, child: u32) -> String {
    let of = format!("end    child={child} ");
    let line = server.wait_log(|line| line.starts_with(&of));
    line[of.len()..].split(' ').next().unwrap_or_default().to_owned()
}

/// Signals a child of the server: nothing else, whatever its number.
pub fn signal_child(server: &Server, child: u32, signal: Signal) {
    let pid = Pid::from_raw(child as i32).expect("a pid");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("the child has not been waited for");
    let parent = procfs::stat(child).map(|stat| stat.ppid);
    assert_eq!(parent, Some(server.pid()), "{child} is a child of the server");
    pidfd_send_signal(&pidfd, signal).expect("a child can be signalled");
}

/// Waits until a process is in one of the states that proc_pid_stat(5) has letters for.
pub fn wait_state(pid: u32, states: &str) {
    until(&format!("process {pid} in state {states}"), || {
        procfs::stat(pid).filter(|stat| states.contains(stat.state)).map(drop)
    });
}

/// Waits until a process has ended, whoever is to wait for it.
pub fn wait_gone(pid: u32) {
    until(&format!("the end of process {pid}"), || {
        procfs::stat(pid).is_none_or(|stat| stat.state == 'Z').then_some(())
    });
}

/// Waits until the server has so many children that live.
pub fn wait_children(server: &Server, count: usize) -> Vec<u32> {
    until(&format!("{count} children"), || Some(children(server.pid())).filter(|all| all.len() == count))
}

/// The processor time that a process has used.
pub fn cpu(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("/proc/PID/schedstat is there");
    let nanoseconds = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number of nanoseconds"))
}

/// How often a process has been switched to.
pub fn switches(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc/PID/status is there");
    let count = |name| procfs::value_of(&status, name).and_then(|count| count.parse::<u64>().ok());
    ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"].iter().filter_map(|name| count(name)).sum()
}

/// Lets this process hold as many connections as the hard limit allows.
pub fn raise_descriptors() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    });
}

/// Whether this is root; a test that needs it says so when it is not.
pub fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: {what} needs root");
    }
    root
}

/// A folder of a test's own, gone at its end.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tine-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|why| panic!("make {}: {why}", path.display()));
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of something in it, as text.
    pub fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("temporary folders have names that are text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
