//! A server that is started beside a program: each has its own children, and neither outlives what it should.

#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use common::*;
use rustix::process::{Pid, Signal};
use tine_testkit::server::until;
use tine_testkit::{Stream, children, churn, echo_line, example, net, procfs, zombies};

const PATIENCE: Duration = Duration::from_secs(30);

/// The example `threaded`, which takes commands on its standard input and answers on its standard output.
struct Host {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    address: String,
}

impl Host {
    /// Starts it and waits until its server is ready.
    fn start() -> Host {
        Host::with_acceptors(1)
    }

    /// The same, with so many processes that accept.
    fn with_acceptors(acceptors: usize) -> Host {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // A name that no other process has among its arguments: see `master`.
        let address = format!("unix:@tine-test-{}-host-{number}", std::process::id());
        let mut process = Command::new(example("tine", "threaded"))
            .arg(&address)
            .arg(acceptors.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example can be run");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let input = process.stdin.take();
        let host = Host { process, input, lines, address };
        assert_eq!(host.line(), format!("ready {}", host.address));
        host
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the host says something in time")
    }

    fn say(&mut self, command: &str) {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{command}").expect("the host listens");
    }

    fn ask(&mut self, command: &str) -> String {
        self.say(command);
        self.line()
    }

    /// The server's master: it has the host's arguments, as its children have.
    fn master(&self) -> u32 {
        let entries = fs::read_dir("/proc").expect("/proc is mounted");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let named = |pid: &u32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == self.address.as_bytes())
        };
        let all: Vec<u32> = pids.filter(named).filter(|pid| *pid != self.process.id()).collect();
        let parent = |pid: u32| procfs::stat(pid).map(|stat| stat.ppid);
        let masters: Vec<u32> =
            all.iter().copied().filter(|pid| parent(*pid).is_some_and(|of| !all.contains(&of))).collect();
        assert_eq!(masters.len(), 1, "of {all:?}");
        masters[0]
    }

    /// Closes its input, so that it ends.
    fn finish(&mut self) -> ExitStatus {
        self.input = None;
        until("the host's end", || self.process.try_wait().expect("an own child"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended already: std then does nothing
        let _ = self.process.wait();
    }
}

/// Waits until nobody listens there any more. Not by connecting: those who come just before are served.
fn expect_refused(address: &str) {
    let name = address.strip_prefix("unix:").expect("a Unix address");
    until("nobody listens", || (!net::unix_bound(name)).then_some(()));
    Stream::connect(address).expect_err("nobody listens");
}

#[test]
fn a_threaded_program_that_starts_a_server_keeps_reaping_its_own_children_itself() {
    let mut host = Host::start();
    let address = host.address.clone();
    let load = thread::spawn(move || churn(&[address], 2_000, 2));
    for _ in 0..50 {
        assert_eq!(host.ask("child"), "child exit status: 0", "its own child, and its own to wait for");
        assert_eq!(host.ask("any"), "any No child processes (os error 10)", "the server's are not its own");
    }
    let load = load.join().expect("the load does not panic");
    assert_eq!((load.replies_ok, load.errors.len()), (2_000, 0), "{load:?}");
    assert_eq!(host.ask("child"), "child exit status: 0");
    assert!(children(host.process.id()).is_empty() && zombies(host.process.id()).is_empty());
    let master = host.master();
    until("the last client's child, which is waited for, too", || {
        (children(master).is_empty() && zombies(master).is_empty()).then_some(())
    });
    assert_eq!(host.ask("status"), "status open=0/256 waiting=0 refused=0 served=2000 failed=0");
    assert!(host.finish().success());
    wait_gone(master);
}

#[test]
fn serving_in_a_process_with_threads_is_an_error_that_says_so() {
    let mut host = Host::start();
    assert_eq!(
        host.ask("second"),
        "second fork: this process has 2 threads and a fork copies only one, with the others' locks held: \
         start the server before the first thread"
    );
    echo_line(&host.address, "the first server does not mind").expect("an echo");
}

#[test]
fn a_started_server_has_a_process_and_a_session_of_its_own() {
    let host = Host::start();
    let master = host.master();
    let stat = procfs::stat(master).expect("the master lives");
    assert_ne!(stat.ppid, host.process.id(), "it is no child of the host's");
    assert_eq!(stat.fields[3], master.to_string(), "the session is its own");
    let status = fs::read_to_string(format!("/proc/{master}/status")).unwrap();
    assert_eq!(procfs::value_of(&status, "Threads"), Some("1"));
}

#[test]
fn draining_by_the_handle_lets_clients_finish_and_wait_tells_how_it_ended() {
    for acceptors in [1, 2] {
        let mut host = Host::with_acceptors(acceptors);
        let mut client = Client::served(&host.address);
        assert_eq!(host.ask("status"), "status open=1/256 waiting=0 refused=0 served=0 failed=0");
        host.say("drain");
        expect_refused(&host.address);
        client.talk().expect("an echo for who was here before");
        client.leave().expect("the end");
        assert_eq!(host.ask("wait"), "wait open=0/256 waiting=0 refused=0 served=1 failed=0");
        assert!(host.finish().success());
    }
}

#[test]
fn stopping_by_the_handle_ends_clients_at_once() {
    for acceptors in [1, 2] {
        let mut host = Host::with_acceptors(acceptors);
        let mut client = Client::served(&host.address);
        host.say("stop");
        client.expect_gone();
        assert_eq!(host.ask("wait"), "wait open=0/256 waiting=0 refused=0 served=1 failed=1");
        assert!(host.finish().success());
    }
}

#[test]
fn a_signal_to_the_master_drains_it_too_and_the_host_learns_of_it() {
    for acceptors in [1, 2] {
        let mut host = Host::with_acceptors(acceptors);
        let master = Pid::from_raw(host.master() as i32).expect("a pid");
        rustix::process::kill_process(master, Signal::TERM).expect("the master lives");
        assert_eq!(host.ask("wait"), "wait open=0/256 waiting=0 refused=0 served=0 failed=0");
    }
}

#[test]
fn a_host_that_is_killed_leaves_a_server_that_drains_and_ends() {
    for acceptors in [1, 2] {
        let mut host = Host::with_acceptors(acceptors);
        let mut client = Client::served(&host.address);
        let master = host.master();
        host.process.kill().expect("it lives");
        host.process.wait().expect("an own child");
        expect_refused(&host.address);
        client.talk().expect("an echo for who was here before");
        assert!(procfs::stat(master).is_some_and(|stat| stat.state != 'Z'), "it waits for its client");
        client.leave().expect("the end");
        wait_gone(master);
    }
}

#[test]
fn a_handle_that_is_dropped_drains_the_server() {
    let mut host = Host::start();
    let mut client = Client::served(&host.address);
    let master = host.master();
    assert!(host.finish().success(), "the host does not wait for its server");
    expect_refused(&host.address);
    client.talk().expect("an echo for who was here before");
    client.leave().expect("the end");
    wait_gone(master);
}

#[test]
fn a_master_that_is_killed_is_an_error_for_who_asks_it() {
    for acceptors in [1, 2] {
        let mut host = Host::with_acceptors(acceptors);
        let master = host.master();
        rustix::process::kill_process(Pid::from_raw(master as i32).expect("a pid"), Signal::KILL)
            .expect("the master lives");
        wait_gone(master);
        host.say("status");
        let ended = until("the host's end", || host.process.try_wait().expect("an own child"));
        assert!(!ended.success(), "it did not expect this");
    }
}

#[test]
fn what_keeps_a_server_from_starting_is_told_to_the_program() {
    let mut tried = Command::new(example("tine", "threaded"))
        .arg("udp://127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example can be run");
    let mut said = String::new();
    tried.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
    assert!(!tried.wait().expect("an own child").success());
    assert!(said.contains("serve them with Server::serve_datagrams"), "{said}");
}
