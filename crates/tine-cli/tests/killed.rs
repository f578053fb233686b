//! Calls that a program is killed for: which it was stands in the log, and nobody else is held up by it.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Command;
use std::thread;

use support::{Folder, count, need, run, send, told, value, ways_to_keep_trees};
use tine_testkit::server::{listeners_among, tine_command, until};
use tine_testkit::{Baseline, Ready, Server, Signal, Stream, ask, templates};

/// The program that makes such calls; where a sealed program is seen.
fn caller() -> (Folder, String) {
    need("gcc", "gcc");
    let folder = Folder::outside_tmp();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/killed/caller.c");
    let flags = ["-static", "-pthread", "-O1", "-Wall", "-Werror", "-o"];
    run(Command::new("gcc").args(flags).arg(folder.file("caller")).arg(source));
    let path = folder.text("caller");
    (folder, path)
}

fn server(options: &[&str], caller: &str) -> Server {
    Server::tine(&[&["127.0.0.1:0", "-v"], options, &["--", caller]].concat())
}

/// As it is when a client has come and gone.
fn baseline(server: &Server) -> Baseline {
    let address = server.addr(0).to_owned();
    Baseline::with(server, move || ask(&address, b"hello\n").map(drop)).by_kind()
}

/// What the program answers to one line.
fn answer(client: &Stream, line: &str) -> String {
    let mut client = BufReader::with_capacity(1, client);
    client.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_line(&mut answer).unwrap();
    answer
}

/// Whether this kernel has calls of 32-bit x86, which a filter would end whoever makes.
fn has_int80(caller: &str) -> bool {
    let there = told(Command::new("sh").args(["-c", "echo int80 | $0", caller])).contains("done");
    if !there {
        eprintln!("left out: this kernel has no 32-bit calls");
    }
    there
}

#[test]
fn a_program_that_is_killed_for_a_call_is_told_with_it_and_the_next_client_is_served() {
    let (folder, caller) = caller();
    let mut calls = vec![("ptrace", "ptrace"), ("thread", "ptrace")];
    calls.extend(has_int80(&caller).then_some(("int80", "i386:getpid")));
    let own = folder.text("own.toml");
    let lines = "name = \"own\"\nabout = \"guarded, and accepts nobody\"\nextends = \"guarded\"\n\n\
                 [[deny]]\ncalls = [\"accept\"]\nanswer = \"kill\"\nreason = \"a test\"\n";
    std::fs::write(&own, lines).unwrap();
    for options in [
        &["--confine", "guarded"][..],
        &["--confine", "guarded", "--spare=1:2"],
        &["--confine", "guarded", "--acceptors", "2"],
        &["--confine", "sealed"],
        &["--confine", "sealed", "--init", "no"],
        &["--confine", &own],
    ] {
        let server = server(options, &caller);
        // How many spares there are depends on who has come.
        let baseline = (!options.contains(&"--spare=1:2")).then(|| baseline(&server));
        let mine = (options[1] == own).then_some(("accept", "accept"));
        for (line, call) in calls.iter().copied().chain(mine) {
            let from = server.cursor();
            let client = Stream::connect(server.addr(0)).unwrap();
            assert_eq!(answer(&client, line), "", "{options:?} {line}");
            let ended = |line: &str| line.starts_with("end ") && value(line, "exit") != Some("0");
            let (_, end) = server.wait_log_from(from, ended);
            assert_eq!(
                (value(&end, "signal"), value(&end, "call")),
                (Some("9"), Some(call)),
                "{options:?}: {end}"
            );
            assert!(value(&end, "peer").is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{end}");
            assert_eq!(ask(server.addr(0), b"hello\n").unwrap(), b"hello: done\n", "{options:?}");
        }
        baseline.iter().for_each(|baseline| server.quiescent(baseline));
        assert!(server.stop().success());
    }
}

#[test]
fn a_process_that_a_program_has_started_is_killed_alone_and_told_with_its_client() {
    let (_folder, caller) = caller();
    let trees = ways_to_keep_trees();
    for (profile, trees) in ["guarded", "sealed"].iter().flat_map(|one| trees.iter().map(move |by| (one, by)))
    {
        let server = server(&["--confine", profile, "--trees", trees], &caller);
        let client = Stream::connect(server.addr(0)).unwrap();
        assert_eq!(answer(&client, "hello"), "hello: done\n");
        let accepted = server.wait_log(|line| line.starts_with("accept "));
        assert_eq!(answer(&client, "away"), "away: done\n", "{profile}");
        let line = server.wait_log(|line| line.starts_with("kill "));
        assert_eq!(value(&line, "call"), Some("ptrace"), "{line}");
        assert_eq!(value(&line, "child"), value(&accepted, "child"), "{line}");
        assert_eq!(value(&line, "peer"), value(&accepted, "peer"), "{line}");
        assert_ne!(value(&line, "pid"), value(&line, "child"), "{line}");
        assert_eq!(answer(&client, "hello"), "hello: done\n", "{profile}");
        drop(client);
        assert!(server.stop().success());
    }
}

#[test]
fn a_flood_of_calls_that_kill_does_not_stop_a_neighbour() {
    const KILLED: usize = 200;
    let (_folder, caller) = caller();
    for profile in ["guarded", "sealed"] {
        let server = server(&["--confine", profile], &caller);
        let baseline = baseline(&server);
        let floods: Vec<_> = (0..4).map(|_| Stream::connect(server.addr(0)).unwrap()).collect();
        for mut flood in &floods {
            flood.write_all(b"flood\n").unwrap();
            // It has begun.
            flood.read_exact(&mut [0]).unwrap();
        }
        thread::scope(|scope| {
            let counts: Vec<_> = floods
                .iter()
                .map(|mut flood| {
                    scope.spawn(move || {
                        let mut said = [0; KILLED];
                        flood.read_exact(&mut said).unwrap();
                        assert_eq!(said, [b'.'; KILLED], "each was killed");
                    })
                })
                .collect();
            let mut served = 0;
            while counts.iter().any(|count| !count.is_finished()) || served < 50 {
                assert_eq!(ask(server.addr(0), b"hello\n").unwrap(), b"hello: done\n");
                served += 1;
            }
        });
        // Not a line for each.
        let lines = count(&server, |line| line.starts_with("kill "));
        assert!((1..20).contains(&lines), "{lines} lines");
        drop(floods);
        server.quiescent(&baseline);
        assert!(server.stop().success());
    }
}

#[test]
fn children_of_a_template_that_is_gone_are_killed_and_told_as_before() {
    let (_folder, caller) = caller();
    let server = server(&["--confine", "guarded"], &caller);
    let baseline = baseline(&server);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = Stream::connect(server.addr(0)).unwrap();
        assert_eq!(answer(&client, "hello"), "hello: done\n");
        clients.push(client);
        let before = templates(server.pid());
        send(before[0], Signal::KILL);
        // Its master has waited for it: so it knows.
        let entry = format!("/proc/{}", before[0]);
        until("it was noticed", || (!Path::new(&entry).exists()).then_some(()));
    }
    for client in &clients {
        let from = server.cursor();
        assert_eq!(answer(client, "ptrace"), "");
        let ended = |line: &str| line.starts_with("end ") && value(line, "exit") != Some("0");
        let (_, end) = server.wait_log_from(from, ended);
        assert_eq!(value(&end, "call"), Some("ptrace"), "{end}");
    }
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_call_that_kills_is_a_crash_to_whoever_counts_crashes() {
    let (_folder, caller) = caller();
    let server = server(&["--penalty", "crash=60s,signal=0,exit=0"], &caller);
    assert_eq!(answer(&Stream::connect(server.addr(0)).unwrap(), "ptrace"), "");
    server.wait_log(|line| line.starts_with("penalty "));
    assert!(server.stop().success());
}

/// Nobody has a place of its own where it is told of such calls, and could let them be done: not while the master is there, and not after.
#[test]
fn a_call_that_kills_is_not_done_when_the_master_is_gone_nor_can_it_be_let_through() {
    let (_folder, caller) = caller();
    for profile in ["guarded", "sealed"] {
        let server = server(&["--confine", profile], &caller);
        let client = Stream::connect(server.addr(0)).unwrap();
        assert_eq!(answer(&client, "supervise"), "supervise: EBUSY\n", "{profile}");
        server.signal(Signal::KILL);
        server.wait();
        assert_eq!(answer(&client, "supervise"), "supervise: EBUSY\n", "{profile}");
        assert_eq!(answer(&client, "ptrace"), "ptrace: ENOSYS\n", "{profile}");
        assert_eq!(answer(&client, "hello"), "hello: done\n", "{profile}");
    }
}

/// As in a container whose runtime is told of calls: the kernel has room for one who is.
#[test]
fn where_somebody_else_is_told_of_calls_already_the_kernel_kills() {
    let (_folder, caller) = caller();
    let tine = tine_command(&["127.0.0.1:0", "-v", "--", &caller]);
    let mut command = Command::new(&caller);
    command.arg(tine.get_program()).args(tine.get_args());
    let server = Server::start(command, Ready::Ports(listeners_among(&["127.0.0.1:0"])));
    let client = Stream::connect(server.addr(0)).unwrap();
    assert_eq!(answer(&client, "ptrace"), "");
    let end = server.wait_log(|line| line.starts_with("end "));
    assert_eq!((value(&end, "signal"), value(&end, "call")), (Some("31"), None), "{end}");
    assert_eq!(ask(server.addr(0), b"hello\n").unwrap(), b"hello: done\n");
    assert!(server.stop().success());
}
