//! How connections, programs and servers end: completely, promptly, and with nothing left.

mod support;

use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Folder, command, count, fed, number, perl, send, session, traced, value};
use tine_testkit::server::{tine_command, until};
use tine_testkit::{Baseline, Server, Signal, Stream, ask, children, echo_line, procfs};

/// Longer than anything that is done at once takes, on a busy machine too, and shorter than anything that is waited for.
const PROMPT: Duration = Duration::from_secs(20);

/// How often something is tried that shows nothing where the machine keeps a program from its processor for a second or two: for as
/// long tine lets it be.
const TRIES: usize = 5;

/// A program that takes no notice of SIGTERM, and says when it does not.
const DEAF: &str = r#"$SIG{TERM} = "IGNORE"; $| = 1; print "deaf\n"; sleep 1 while 1"#;

/// The first bytes that a server sends, as many as asked for.
fn read(mut stream: &Stream, count: usize) -> String {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("the server has more to say");
    String::from_utf8(bytes).expect("text")
}

/// The child of the client that was accepted last. It may have answered before that was told.
fn last_child(server: &Server) -> u32 {
    if server.running() {
        server.status();
    }
    let log = server.log();
    number(log.lines().rfind(|line| line.starts_with("accept")).expect("a client was accepted"), "child")
}

#[test]
fn what_a_program_answers_after_its_clients_end_arrives_whole() {
    let mut lines: Vec<String> = (0..50_000).rev().map(|n| format!("{n:05} line\n")).collect();
    let question = lines.concat();
    let sort = Server::tine(&["127.0.0.1:0", "--", "sort"]);
    let answer = ask(sort.addr(0), question.as_bytes()).unwrap();
    lines.reverse();
    assert!(answer == lines.concat().as_bytes(), "{} bytes of {}", answer.len(), question.len());
    assert!(sort.stop().success());

    let sum = Server::tine(&["127.0.0.1:0", "--", "sha256sum"]);
    let here = fed(&mut command("sha256sum"), question.as_bytes()).stdout;
    assert_eq!(ask(sum.addr(0), question.as_bytes()).unwrap(), here);
    assert!(sum.stop().success());
}

#[test]
fn a_grandchild_that_keeps_the_connection_keeps_neither_the_client_nor_itself() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "sh", "-c", "sleep 1000 & echo done"]);
    let address = server.addr(0).to_owned();
    let baseline = Baseline::with(&server, move || ask(&address, b"").map(drop));
    let start = Instant::now();
    assert_eq!(ask(server.addr(0), b"").unwrap(), b"done\n");
    assert!(start.elapsed() < PROMPT, "the end came after {:?}", start.elapsed());
    let child = last_child(&server);
    until("nothing is left of the child's session", || session(child).is_empty().then_some(()));
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn what_a_program_has_left_behind_may_finish_what_it_has_begun() {
    // As recordio does, whose program is the child: it passes the last answer on when that has ended.
    let mut answers = Vec::new();
    let finishes = |_| {
        let server =
            Server::tine(&["127.0.0.1:0", "-v", "--", "sh", "-c", "(sleep 0.3; echo late) & echo early"]);
        answers = vec![ask(server.addr(0), b"").unwrap()];
        // A drain waits for it too.
        let client = Stream::connect(server.addr(0)).unwrap();
        assert_eq!(read(&client, 6), "early\n");
        server.signal(Signal::TERM);
        answers.push(client.rest().unwrap());
        assert!(server.wait().success());
        assert_eq!(session(last_child(&server)), []);
        answers == [&b"early\nlate\n"[..], b"late\n"]
    };
    assert!((0..TRIES).any(finishes), "{answers:?}");
}

#[test]
fn a_client_that_half_closes_gets_ten_mebibytes_and_a_clean_end() {
    const LENGTH: usize = 10 << 20;
    let script = format!("cat > /dev/null; head -c {LENGTH} /dev/zero | tr '\\0' x");
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "sh", "-c", &script]);
    let stream = Stream::connect(server.addr(0)).unwrap();
    (&mut &stream).write_all(b"all of it, please").unwrap();
    stream.finish().unwrap();
    let answer = stream.rest().expect("an end, and no reset");
    assert_eq!(answer.len(), LENGTH);
    assert!(answer.iter().all(|byte| *byte == b'x'));
    server.wait_log(|line| line.starts_with("end") && line.contains(" exit=0 "));
    assert!(server.stop().success());
}

/// Writes for ever, whatever write(2) says.
const TALKER: &str = r#"my $much = "y\n" x 10000; syswrite STDOUT, $much while 1"#;

#[test]
fn a_program_that_writes_for_ever_ends_when_its_client_leaves() {
    // What a client has not read when it leaves is told to the first write as a reset, which ends `yes`; the next one
    // would be ended by SIGPIPE, which has its default again, whatever Rust's start-up has made of it.
    let perl: [&str; 3] = ["perl", "-e", TALKER];
    for (program, ends) in [(&["yes"][..], ["exit=1", "signal=13"]), (&perl[..], ["signal=13", "signal=13"])]
    {
        let server = Server::tine(&[&["127.0.0.1:0", "-v", "--"], program].concat());
        let end = |_| {
            let from = server.cursor();
            let stream = Stream::connect(server.addr(0)).unwrap();
            assert_eq!(read(&stream, 65_536), "y\n".repeat(32_768));
            drop(stream);
            let end = server.log_within(from, PROMPT, |line| line.starts_with("end"));
            end.expect("it ends promptly").1
        };
        // One that could not write for a second was told.
        let by_itself = |line: &String| value(line, "reason").is_none();
        let line = (0..TRIES).map(end).find(by_itself).expect("it ends by itself");
        assert!(ends.iter().any(|how| line.contains(&format!(" {how} "))), "{line}");
        assert!(server.stop().success());
    }
}

#[test]
fn sigterm_ends_a_child_and_its_client_hears_of_it() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "sleep", "1000"]);
    let stream = Stream::connect(server.addr(0)).unwrap();
    let child = number(&server.wait_log(|line| line.starts_with("accept")), "child");
    // Before it is the program, a signal is as good as after it.
    send(child, Signal::TERM);
    assert_eq!(stream.rest().unwrap(), b"");
    server.wait_log(|line| line.starts_with(&format!("end    child={child} signal=15 ")));
    assert!(server.stop().success());
}

/// A program that cannot be started: each client gets a clean end, the reason is said once, and the listener rests.
/// With `mend` done, clients are served again without anybody's help.
fn cannot_start(args: &[&str], spoil: impl FnOnce(), error: &str, mend: Option<&dyn Fn()>) {
    let server = Server::tine(args);
    spoil();
    let start = Instant::now();
    for _ in 0..6 {
        let stream = Stream::connect(server.addr(0)).unwrap();
        assert_eq!(stream.rest().expect("an end, and no reset"), b"");
    }
    let failed = |line: &str| line.starts_with("end    child=") && line.contains(" setup=");
    let line = server.wait_log(failed);
    assert_eq!((value(&line, "setup"), value(&line, "error")), (Some("exec"), Some(error)));
    let paused = server.wait_log(|line| line.starts_with("pause "));
    let reason = format!("start a child: {error}");
    assert_eq!(value(&paused, "reason"), Some(&*reason));
    until("all six are counted", || (server.status().failed == 6).then_some(()));
    assert_eq!(server.status().paused, 1);
    // It is said again when ten seconds are over, with how often it was not said.
    let (said, most) = (count(&server, failed), 1 + start.elapsed().as_secs() as usize / 10);
    assert!((1..=most).contains(&said), "{}", server.log());
    assert_eq!(count(&server, |line| line.starts_with("pause ")), 1, "{}", server.log());
    if let Some(mend) = mend {
        mend();
        // What is being written may be so until a process that another test has just started lets go of it.
        until("it serves again", || ask(server.addr(0), b"hello\n").ok().filter(|reply| reply == b"hello\n"));
        server.wait_log(|line| line.starts_with("resume "));
        assert_eq!(server.status().paused, 0);
    }
    assert!(server.stop().success());
}

#[test]
fn a_script_without_an_interpreter_line_cannot_start() {
    let folder = Folder::new();
    let program = folder.program("program", "exec cat\n");
    let mend = || drop(folder.program("program", "#!/bin/sh\nexec cat\n"));
    cannot_start(&["127.0.0.1:0", "--", &program], || (), "Exec format error", Some(&mend));
}

#[test]
fn a_script_whose_interpreter_is_missing_cannot_start() {
    let folder = Folder::new();
    let program = folder.program("program", "#!/nonexistent/interpreter\n");
    let mend = || drop(folder.program("program", "#!/bin/sh\nexec cat\n"));
    cannot_start(&["127.0.0.1:0", "--", &program], || (), "No such file or directory", Some(&mend));
}

#[test]
fn a_program_that_was_removed_cannot_start_until_it_is_back() {
    let folder = Folder::new();
    let program = folder.copy("/bin/cat", "program");
    let spoil = || fs::remove_file(&program).unwrap();
    let mend = || drop(folder.copy("/bin/cat", "program"));
    cannot_start(&["127.0.0.1:0", "--", &program], spoil, "No such file or directory", Some(&mend));
}

#[test]
fn a_program_that_may_not_be_executed_any_more_cannot_start() {
    let folder = Folder::new();
    let program = folder.copy("/bin/cat", "program");
    let mode = |mode| fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
    cannot_start(
        &["127.0.0.1:0", "--", &program],
        || mode(0o644),
        "Permission denied",
        Some(&|| mode(0o755)),
    );
}

#[test]
fn a_program_that_is_being_written_cannot_start() {
    let folder = Folder::new();
    let program = folder.copy("/bin/cat", "program");
    let writer = std::cell::Cell::new(Some(File::options().write(true).open(&program).unwrap()));
    let mend = || drop(writer.take());
    cannot_start(&["127.0.0.1:0", "--", &program], || (), "Text file busy", Some(&mend));
}

#[test]
fn a_program_whose_environment_is_too_long_cannot_start() {
    let [a, b, c] = ["A", "B", "C"].map(|name| format!("{name}={}", "x".repeat(100_000)));
    // What exec may copy is a quarter of the stack.
    let args = ["127.0.0.1:0", "--rlimit", "stack=1M", "-E", &a, "-E", &b, "-E", &c, "--", "cat"];
    cannot_start(&args, || (), "Argument list too long", None);
}

#[test]
fn a_program_that_cannot_start_is_not_tried_for_all_who_come() {
    let folder = Folder::new();
    let program = folder.copy("/bin/cat", "program");
    let server = Server::tine(&["127.0.0.1:0", "--", &program]);
    fs::remove_file(&program).unwrap();
    let start = Instant::now();
    for number in 1..=6 {
        assert_eq!(Stream::connect(server.addr(0)).unwrap().rest().unwrap(), b"");
        // Whoever comes before it is heard of shares the next one's rest.
        until("its end was heard of", || (server.status().failed == number).then_some(()));
    }
    // Rests of 10, 20, 40, 80 and 160 ms lie between them.
    assert!(start.elapsed() >= Duration::from_millis(310), "six in {:?}", start.elapsed());
    assert!(server.stop().success());
}

/// A server that must not come up: its exit code and what it says.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = fed(&mut tine_command(args), b"");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_path_served_by_a_live_process_is_refused_and_a_stale_one_replaced() {
    let folder = Folder::new();
    for scheme in ["unix:", "seqpacket:", "unixgram:"] {
        let path = folder.text("socket");
        let address = format!("{scheme}{path}");
        let mut args = vec![address.as_str(), "--", "cat"];
        if scheme == "unixgram:" {
            args.splice(1..1, ["--datagram", "each"]);
        }
        let start = || {
            let ready = tine_testkit::Ready::Ports(vec![address.clone()]);
            Server::start(tine_command(&args), ready)
        };
        let live = start();
        let (code, said) = refused(&args);
        assert_eq!(code, Some(111), "{said}");
        assert!(said.starts_with(&format!("tine: bind {address}: ")), "{said}");
        assert!(said.ends_with("; a live process serves there\n"), "{said}");
        assert!(live.running());
        if scheme == "unix:" {
            echo_line(live.addr(0), "the first still serves").unwrap();
        }
        live.signal(Signal::KILL);
        live.wait();
        assert!(Path::new(&path).exists(), "nobody was there to remove it");
        // A worker that is still to notice that its master has gone counts as alive.
        until("nobody serves there any more", || (!tine_testkit::net::unix_bound(&path)).then_some(()));
        let next = start();
        if scheme == "unix:" {
            echo_line(next.addr(0), "the next serves").unwrap();
        }
        assert!(next.stop().success());
        assert!(!Path::new(&path).exists(), "removed in good order");
    }
}

#[test]
fn a_path_that_is_no_socket_or_somebody_elses_by_now_is_left_alone() {
    let folder = Folder::new();
    let path = folder.text("socket");
    let address = format!("unix:{path}");
    fs::write(&path, "precious").unwrap();
    let (code, said) = refused(&[&address, "--", "cat"]);
    assert_eq!(code, Some(111), "{said}");
    assert!(said.contains("is no socket"), "{said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    fs::remove_file(&path).unwrap();
    let server = Server::tine(&[&address, "--", "cat"]);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "put there since").unwrap();
    assert!(server.stop().success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "put there since");
}

#[test]
fn a_drain_lets_children_finish_and_takes_nobody_new() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "cat"]);
    let client = Stream::connect(server.addr(0)).unwrap();
    (&mut &client).write_all(b"before\n").unwrap();
    assert_eq!(read(&client, 7), "before\n");
    server.signal(Signal::TERM);
    let drain = server.wait_log(|line| line.starts_with("drain "));
    assert_eq!((value(&drain, "open"), value(&drain, "seconds")), (Some("1"), Some("30")));
    let late = Stream::connect(server.addr(0)).expect_err("nobody new");
    assert_eq!(late.kind(), ErrorKind::ConnectionRefused);
    (&mut &client).write_all(b"and after\n").unwrap();
    assert_eq!(read(&client, 10), "and after\n");
    assert!(server.running());
    client.finish().unwrap();
    assert_eq!(client.rest().unwrap(), b"");
    assert!(server.wait().success());
    server.wait_log(|line| line == "stop   served=1");
}

#[test]
fn a_program_that_takes_no_notice_of_sigterm_is_killed_two_seconds_later() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--drain", "1", "--", "perl", "-e", DEAF]);
    let client = Stream::connect(server.addr(0)).unwrap();
    assert_eq!(read(&client, 5), "deaf\n");
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(client.rest().unwrap(), b"");
    assert!(server.wait().success());
    // One second of patience and two of grace.
    assert!((3..20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    for line in ["signal sent=TERM open=1", "signal sent=KILL open=1"] {
        server.wait_log(|said| said == line);
    }
    server.wait_log(|line| line.starts_with("end") && line.contains(" signal=9 "));
    assert_eq!(session(last_child(&server)), []);
}

#[test]
fn a_program_that_heeds_sigterm_ends_by_it_when_patience_is_over() {
    let killed = |_| {
        let server = Server::tine(&["127.0.0.1:0", "-v", "--drain", "1", "--", "sleep", "1000"]);
        let client = Stream::connect(server.addr(0)).unwrap();
        server.wait_log(|line| line.starts_with("accept"));
        server.signal(Signal::TERM);
        assert_eq!(client.rest().unwrap(), b"");
        assert!(server.wait().success());
        let killed = count(&server, |line| line.starts_with("signal sent=KILL")) > 0;
        let by = if killed { [" signal=15 ", " signal=9 "] } else { [" signal=15 "; 2] };
        server.wait_log(|line| line.starts_with("end") && by.iter().any(|by| line.contains(by)));
        killed
    };
    assert!(!(0..TRIES).all(killed), "it is always killed");
}

#[test]
fn a_second_request_to_end_means_now() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT)] {
        let server = Server::tine(&["127.0.0.1:0", "-v", "--", "perl", "-e", DEAF]);
        let client = Stream::connect(server.addr(0)).unwrap();
        assert_eq!(read(&client, 5), "deaf\n");
        let start = Instant::now();
        server.signal(first);
        server.wait_log(|line| line == "drain  open=1 seconds=30");
        server.signal(second);
        assert!(server.wait().success());
        assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
        server.wait_log(|line| line.starts_with("end") && line.contains(" signal=9 "));
        assert_eq!(client.rest().unwrap(), b"");
    }
}

#[test]
fn when_the_master_is_killed_its_sockets_are_free_at_once_and_its_children_finish() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.text("socket"));
    let first = Server::tine(&["127.0.0.1:0", "[::1]:0", &unix, "-v", "--", "cat"]);
    let clients: Vec<Stream> = (0..3).map(|i| Stream::connect(first.addr(i)).unwrap()).collect();
    for client in &clients {
        (&mut &*client).write_all(b"before\n").unwrap();
        assert_eq!(read(client, 7), "before\n");
    }
    let served = children(first.pid());
    assert_eq!(served.len(), 3);
    first.signal(Signal::KILL);
    assert!(!first.wait().success());

    let addresses: Vec<String> = (0..2).map(|i| format!("tcp://{}", first.addr(i))).collect();
    let second = Server::tine(&[&addresses[0], &addresses[1], &unix, "-v", "--", "cat"]);
    for listener in 0..3 {
        echo_line(second.addr(listener), "of the second").unwrap();
    }
    for client in &clients {
        (&mut &*client).write_all(b"and after\n").unwrap();
        assert_eq!(read(client, 10), "and after\n");
    }
    drop(clients);
    until("the children of the first have ended", || {
        served.iter().all(|child| session(*child).is_empty()).then_some(())
    });
    assert!(second.stop().success());
}

#[test]
fn when_the_master_is_killed_its_workers_end_and_their_sockets_are_free() {
    for how in ["wait", "peer", "each"] {
        let first = Server::tine(&["udp://127.0.0.1:0", "--datagram", how, "--", "cat"]);
        let workers = children(first.pid());
        first.signal(Signal::KILL);
        assert!(!first.wait().success());
        // One that has no session of its own yet is waited for like any other.
        let gone = |worker: &u32| procfs::stat(*worker).is_none_or(|stat| stat.state == 'Z');
        until("the workers have ended", || workers.iter().all(gone).then_some(()));
        let address = format!("udp://{}", first.addr(0));
        let second = Server::tine(&[&address, "--datagram", how, "--", "cat"]);
        assert_eq!(second.port(0), first.port(0));
        assert!(second.stop().success());
    }
}

/// Prints the environment variable that tells who the client is.
const WHO: [&str; 4] = ["--", "sh", "-c", "echo $PROTO $TCPLOCALIP $TCPREMOTEIP $REMOTE_ADDR"];

#[test]
fn a_port_alone_serves_both_families_and_a_mapped_client_is_an_ipv4_one() {
    let server = Server::tine(&[&[":0"], &WHO[..]].concat());
    let ask =
        |host: &str| String::from_utf8(ask(&format!("{host}:{}", server.port(0)), b"").unwrap()).unwrap();
    assert_eq!(ask("127.0.0.1"), "TCP 127.0.0.1 127.0.0.1 127.0.0.1\n");
    assert_eq!(ask("127.0.0.9"), "TCP 127.0.0.9 127.0.0.1 127.0.0.1\n");
    assert_eq!(ask("[::1]"), "TCP ::1 ::1 ::1\n");
    let listens = format!("listen tcp://[::]:{} children=256 backlog=4096 trees=", server.port(0));
    server.wait_log(|line| line.starts_with(&listens));
    assert_eq!(count(&server, |line| line.starts_with("listen ")), 1);
    assert!(server.stop().success());
}

#[test]
fn a_port_alone_serves_a_machine_without_ipv6() {
    // Not compiled in or switched off at boot; no address of that family.
    for inject in ["inject=socket:error=EAFNOSUPPORT:when=1", "inject=bind:error=EADDRNOTAVAIL:when=1"] {
        let folder = Folder::new();
        let options = ["-e", "trace=socket,bind", "-e", inject];
        let server = traced(&folder.file("trace"), &options, &[&[":0"], &WHO[..]].concat());
        let there = format!("listen tcp://0.0.0.0:{} ", server.port(0));
        server.wait_log(|line| line.starts_with(&there));
        let told = ask(server.addr(0), b"").unwrap();
        assert_eq!(told, b"TCP 127.0.0.1 127.0.0.1 127.0.0.1\n");
        assert!(server.stop().success());
    }
}

/// A client that resets its connection: it closes with SO_LINGER at zero.
const RESET: &str = r#"
    use strict; use warnings; use Socket; use IO::Socket::INET;
    for my $n (1 .. 20) {
        my $socket = IO::Socket::INET->new(PeerAddr => $ARGV[0], Timeout => 30) or die "connect: $@";
        setsockopt($socket, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0)) or die "linger: $!";
        syswrite $socket, "unread" or die "write: $!" if $n % 2;
        close $socket;
    }
    print "reset\n";
"#;

#[test]
fn clients_that_reset_their_connections_leave_nothing() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "cat"]);
    let baseline = Baseline::of(&server);
    assert_eq!(perl(RESET, &[server.addr(0)]), "reset\n");
    server.quiescent(&baseline);
    assert!(server.stop().success());
}
