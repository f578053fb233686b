//! Tests in a process with one thread, each in a fork of its own: what it makes of itself dies with it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use tine_os::cgroup::Leaf;
use tine_os::signal::{self, Signal};
use tine_os::socket::{self, Kind};
use tine_os::spawn::With;
use tine_os::{Forked, Pid, fd, fork, wait};

/// How long anything that should happen may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long a test may take.
const TEST_PATIENCE: Duration = Duration::from_secs(60);

/// A test: its name and what it does.
pub type Test = (&'static str, fn());

/// Functions as tests, by their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}
pub(crate) use tests;

/// Runs those whose names contain one of the words of the command line, or all, and prints what libtest would. Ends with its
/// status too when some have failed, after it has tidied up after each of their processes.
pub fn main(tests: &[Test], tidy_up: fn(Pid)) {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let list = words.iter().any(|word| word == "--list");
    let words: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in tests.iter().filter(|(name, _)| chosen(name)) {
        if list {
            println!("{name}: test");
            continue;
        }
        let failure = failure(*test);
        println!("test {name} ... {}", if failure.is_none() { "ok" } else { "FAILED" });
        match failure {
            None => passed += 1,
            Some(process) => failed.push(process),
        }
    }
    if !list {
        let word = if failed.is_empty() { "ok" } else { "FAILED" };
        let (failed, others) = (failed.len(), tests.len() - passed - failed.len());
        println!(
            "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {others} filtered out"
        );
    }
    if !failed.is_empty() {
        failed.into_iter().for_each(tidy_up);
        std::process::exit(101);
    }
}

/// The process that has failed, if it has.
fn failure(test: fn()) -> Option<Pid> {
    let child = match fork().expect("a fork") {
        // What panicked has been printed by then.
        Forked::Child => fork::exit(catch_unwind(test).map_or(101, |()| 0)),
        Forked::Parent(child) => child,
    };
    if !ends(child, TEST_PATIENCE) {
        eprintln!("no end after {TEST_PATIENCE:?}");
        signal::send(child, Signal::KILL).expect("it lives");
    }
    (!wait::wait_blocking(child).expect("a child").success()).then_some(child)
}

/// Forks; the child, which has no descriptors but these and the standard three, does this and ends with its status.
pub fn child(keep: &[&dyn AsRawFd], what: impl FnOnce() -> u8) -> Pid {
    child_in(None, keep, what)
}

/// As [`child`], born in a control group.
pub fn child_in(group: Option<Leaf>, keep: &[&dyn AsRawFd], what: impl FnOnce() -> u8) -> Pid {
    let forked = group
        .as_ref()
        .map_or_else(fork, |group| fork::fork_with(With { group: Some(group.as_fd()), ..With::default() }));
    match forked.expect("a fork") {
        Forked::Child => {
            let status = catch_unwind(AssertUnwindSafe(|| {
                keep_only(keep);
                what()
            }));
            fork::exit(status.unwrap_or(101))
        }
        Forked::Parent(child) => child,
    }
}

/// In a child: closes all descriptors but these and the standard three; their owners are never dropped here.
pub fn keep_only(keep: &[&dyn AsRawFd]) {
    let mut keep: Vec<_> = keep.iter().map(|fd| fd.as_raw_fd()).collect();
    keep.sort_unstable();
    fd::close_from(3, &keep).expect("all others closed");
}

/// Whether a process, of which only the pid is known, ends in time.
pub fn ends(process: Pid, patience: Duration) -> bool {
    let pid = rustix::process::Pid::from_raw(process.as_raw()).expect("a pid");
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => is_readable(&pidfd, patience),
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => true,
        Err(why) => panic!("pidfd_open of {process}: {why}"),
    }
}

fn is_readable(fd: &OwnedFd, patience: Duration) -> bool {
    let patience = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
    let mut polls = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut polls, Some(&patience)).expect("a poll") == 1
}

/// A pair of connected streams, to talk with a child.
pub fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = socket::pair(Kind::Stream).expect("a pair");
    (one.into(), other.into())
}

/// Says one byte.
pub fn say(mut stream: &UnixStream) {
    stream.write_all(b".").expect("somebody who listens");
}

/// Hears one byte, in time.
pub fn hear(mut stream: &UnixStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0]).expect("a word from a child");
}

/// Whether everybody who has the other end has ended, in time.
pub fn falls_silent(mut stream: &UnixStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(why) if why.kind() == io::ErrorKind::ConnectionReset => return true,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return false,
            Err(why) => panic!("{why}"),
        }
    }
}

/// Whether nobody has ended or said anything, though there was time to.
pub fn is_silent(stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).expect("a stream");
    let silent =
        matches!((&mut &*stream).read(&mut [0]), Err(why) if why.kind() == io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("a stream");
    silent
}

/// In a child: stays until whoever has the other end ends.
pub fn stay(mut stream: &UnixStream) -> u8 {
    let _ = stream.read(&mut [0]);
    0
}

/// Asks until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "never {what}");
        std::thread::yield_now();
    }
}

/// How a child ended, by signal.
pub fn signal_of(child: Pid) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt;
    assert!(ends(child, PATIENCE), "{child} did not end");
    wait::wait_blocking(child).expect("a child").signal()
}
