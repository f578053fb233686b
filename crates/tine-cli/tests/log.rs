//! The log as tine(8) documents it: the lines, what each verbosity shows, and that it harms nobody when it is gone.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, pipe};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use tine_testkit::server::{listeners_among, tine_command, until};
use tine_testkit::{Ready, Server, Signal, ask, echo_line};

use support::{Folder, count, send};

/// Numbers that differ from run to run, and words that differ from machine to machine, as letters.
const NUMBERS: [(&str, &str); 7] = [
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"(child|pid)=\d+", "$1=PID"),
    (r"(ms|cpu_ms|after_ms|rss_kb|user_us|sys_us|setup_us|wait_ms)=\d+", "$1=N"),
    (r"(faults|switches)=\d+\+\d+", "$1=N+N"),
    // What a machine allows.
    (r"trees=(cgroup|subreaper)", "trees=BY"),
    (r"uid=\d+", "uid=UID"),
    (r"/\S*/tine-test-\d+-\d+/", "/FOLDER/"),
];

/// The whole log of a server that has ended, but for why a machine allows no control groups.
fn ended(server: &Server) -> String {
    assert!(server.stop().success());
    server.wait_log(|line| line.starts_with("stop "));
    let log = server.log();
    log.lines().filter(|line| !line.starts_with("trees ")).collect::<Vec<_>>().join("\n")
}

/// Has one client served, from its greeting to its child's end.
fn serve_one(server: &Server) {
    let served = server.status().served;
    let _ = ask(server.addr(0), b"x"); // what is answered is not the point here
    until("a child has ended", || (server.status().served > served).then_some(()));
}

/// The log without the answers to the questions that [`serve_one`] asks.
fn without_status(log: &str) -> String {
    log.lines().filter(|line| !line.starts_with("status")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_life_of_a_server_and_of_two_clients() {
    let folder = Folder::new();
    let path = format!("unix:{}?backlog=9", folder.text("s"));
    let args = ["127.0.0.1:0", &path, "-v", "-c", "40", "--backlog", "7", "--", "sh", "-c", "cat; exit 3"];
    let server = Server::tine(&args);
    for at in [0, 1] {
        let from = server.cursor();
        assert_eq!(ask(server.addr(at), b"x").unwrap(), b"x");
        server.wait_log_from(from, |line| line.starts_with("end"));
    }
    server.status();
    insta::with_settings!({ filters => NUMBERS }, {
        assert_snapshot!(ended(&server), @r"
        listen tcp://127.0.0.1:PORT children=40 backlog=7 trees=BY confine=guarded
        listen unix:/FOLDER/s children=40 backlog=9 trees=BY confine=guarded
        accept peer=127.0.0.1:PORT child=PID open=1/40
        end    child=PID exit=3 ms=N cpu_ms=N rss_kb=N user_us=N sys_us=N faults=N+N switches=N+N setup_us=N wait_ms=N
        accept peer=unix:uid=UID,pid=PID child=PID open=1/40
        end    child=PID exit=3 ms=N cpu_ms=N rss_kb=N user_us=N sys_us=N faults=N+N switches=N+N setup_us=N wait_ms=N
        status open=0/40 waiting=0 served=2 failed=2 paused=0 refused=0
        drain  open=0 seconds=30
        stop   served=2
        ");
    });
}

#[test]
fn without_v_clients_are_not_told_but_for_those_whose_child_a_signal_ends() {
    let server = Server::tine(&["127.0.0.1:0", "--", "sh", "-c", r#"read -r x; kill "-$x" $$"#]);
    // The signal 0 is none: that child ends by itself.
    for signal in ["PIPE\n", "SEGV\n", "KILL\n", "0\n"] {
        let served = server.status().served;
        let _ = ask(server.addr(0), signal.as_bytes()); // there is no answer
        until("a child has ended", || (server.status().served > served).then_some(()));
    }
    insta::with_settings!({ filters => NUMBERS }, {
        assert_snapshot!(without_status(&ended(&server)), @r"
        listen tcp://127.0.0.1:PORT children=256 backlog=4096 trees=BY confine=guarded
        end    child=PID signal=11 ms=N cpu_ms=N rss_kb=N user_us=N sys_us=N faults=N+N switches=N+N setup_us=N wait_ms=N peer=127.0.0.1:PORT
        end    child=PID signal=9 ms=N cpu_ms=N rss_kb=N user_us=N sys_us=N faults=N+N switches=N+N setup_us=N wait_ms=N peer=127.0.0.1:PORT
        drain  open=0 seconds=30
        stop   served=4
        ");
    });
}

#[test]
fn with_v_a_client_that_has_gone_is_an_end_like_others() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "sh", "-c", "kill -PIPE $$"]);
    serve_one(&server);
    let (_, line) = server.wait_log_from(0, |line| line.starts_with("end"));
    assert!(line.contains(" signal=13 "), "{line}");
}

/// A program that is there and cannot be executed, since its interpreter is not.
fn unstartable(folder: &Folder) -> String {
    folder.program("unstartable", "#!/no/such/interpreter\n")
}

#[test]
fn a_program_that_cannot_start_is_told_once_with_step_and_reason() {
    let folder = Folder::new();
    let program = unstartable(&folder);
    // What is the same is told once in ten seconds, and a busy machine may take longer than that.
    let in_time = (0..5).find_map(|_| {
        let server = Server::tine(&["127.0.0.1:0", "--", &program]);
        let start = Instant::now();
        for _ in 0..6 {
            serve_one(&server);
        }
        (start.elapsed() < Duration::from_secs(10)).then_some(server)
    });
    let server = in_time.expect("six clients come within ten seconds");
    assert_eq!(server.status().failed, 6);
    assert_eq!(server.status().paused, 1, "the listener rests between them");
    insta::with_settings!({ filters => NUMBERS }, {
        assert_snapshot!(without_status(&ended(&server)), @r#"
        listen tcp://127.0.0.1:PORT children=256 backlog=4096 trees=BY confine=guarded
        end    child=PID setup=exec error="No such file or directory" ms=N peer=127.0.0.1:PORT
        pause  listener=tcp://127.0.0.1:PORT reason="start a child: No such file or directory" ms=N
        drain  open=0 seconds=30
        stop   served=6
        "#);
    });
}

#[test]
fn q_tells_errors_only() {
    let folder = Folder::new();
    let program = unstartable(&folder);
    let server = Server::tine(&["127.0.0.1:0", "-q", "--", &program]);
    serve_one(&server);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    insta::with_settings!({ filters => NUMBERS }, {
        assert_snapshot!(without_status(&server.log()), @r#"
        end    child=PID setup=exec error="No such file or directory" ms=N peer=127.0.0.1:PORT
        pause  listener=tcp://127.0.0.1:PORT reason="start a child: No such file or directory" ms=N
        "#);
    });
}

#[test]
fn a_drain_is_told_with_each_of_its_steps() {
    let server =
        Server::tine(&["127.0.0.1:0", "--drain", "0", "--", "sh", "-c", "trap '' TERM; echo up; cat"]);
    let stream = tine_testkit::Stream::connect(server.addr(0)).unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n", "the program ignores SIGTERM by now");
    insta::with_settings!({ filters => NUMBERS }, {
        assert_snapshot!(ended(&server), @r"
        listen tcp://127.0.0.1:PORT children=256 backlog=4096 trees=BY confine=guarded
        drain  open=1 seconds=0
        signal sent=TERM open=1
        signal sent=KILL open=1
        end    child=PID signal=9 ms=N cpu_ms=N rss_kb=N user_us=N sys_us=N faults=N+N switches=N+N setup_us=N wait_ms=N peer=127.0.0.1:PORT
        stop   served=1
        ");
    });
}

#[test]
fn a_name_with_a_blank_is_quoted() {
    let folder = Folder::new();
    let path = format!("unix:{}", folder.text("a b\n\"c\""));
    let server = Server::tine(&[&path, "--", "cat"]);
    insta::with_settings!({ filters => NUMBERS }, {
        assert_snapshot!(ended(&server), @r#"
        listen "unix:/FOLDER/a b\n\"c\"" children=256 backlog=4096 trees=BY confine=guarded
        drain  open=0 seconds=30
        stop   served=0
        "#);
    });
}

#[test]
fn a_line_is_one_write() {
    support::need("strace", "strace");
    let folder = Folder::new();
    let trace = folder.file("trace");
    let server = support::traced(&trace, &["-e", "trace=write"], &["127.0.0.1:0", "-v", "--", "true"]);
    serve_one(&server);
    ended(&server);
    let lines = server.log().lines().count();
    let told = until("strace has written all", || {
        std::fs::read_to_string(&trace).ok().filter(|told| told.contains("write(2, \"stop "))
    });
    let writes = told.lines().filter(|call| call.contains("write(2, ")).count();
    assert_eq!(writes, lines, "writes to standard error and lines of the log:\n{told}");
}

/// Starts a server whose standard error is what the shell makes of it.
fn with_stderr(redirection: &str) -> Server {
    let args = ["127.0.0.1:0", "-v", "--", "cat"];
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")]);
    let tine = tine_command(&args);
    command.arg(tine.get_program()).args(tine.get_args());
    Server::start(command, Ready::Ports(listeners_among(&args)))
}

#[test]
fn a_standard_error_that_is_closed_or_full_changes_nothing_else() {
    for redirection in ["2>&-", "2>/dev/full"] {
        let server = with_stderr(redirection);
        for n in 0..5 {
            echo_line(server.addr(0), &format!("line {n}")).unwrap();
        }
        server.signal(Signal::USR1); // asked in vain
        echo_line(server.addr(0), "and served on").unwrap();
        assert!(server.stop().success(), "{redirection}");
        assert_eq!(server.log(), "", "{redirection}");
    }
}

#[test]
fn a_reader_of_the_log_that_has_gone_changes_nothing_else() {
    let (reader, writer) = pipe().unwrap();
    let mut tine = tine_command(&["127.0.0.1:0", "-v", "--", "cat"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .expect("tine can be run");
    let mut log = BufReader::new(reader);
    let mut line = String::new();
    // Before the first there may be why no control group can be had here.
    while !line.starts_with("listen ") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it says where it listens");
    }
    drop(log);
    line.clear();
    BufReader::new(tine.stdout.take().unwrap()).read_line(&mut line).unwrap();
    for n in 0..5 {
        echo_line(&format!("127.0.0.1:{}", line.trim_end()), &format!("line {n}")).unwrap();
    }
    send(tine.id(), Signal::TERM);
    let status = until("the end", || tine.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

#[test]
fn what_a_program_says_comes_where_it_was_told_to() {
    let says = ["--", "sh", "-c", "echo oops >&2"];
    for (place, in_log, in_answer) in [("log", 1, ""), ("socket", 0, "oops\n"), ("null", 0, "")] {
        let server = Server::tine(&[&["127.0.0.1:0", "--stderr", place][..], &says].concat());
        let answer = ask(server.addr(0), b"").unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), in_answer, "{place}");
        ended(&server);
        assert_eq!(count(&server, |line| line == "oops"), in_log, "{place}");
    }
}

#[test]
fn ports_are_printed_in_order_and_then_standard_output_ends() {
    let folder = Folder::new();
    let path = format!("unix:{}", folder.text("s"));
    let mut tine = tine_command(&["127.0.0.1:0", &path, "127.0.0.1:0", "--", "cat"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::options().write(true).open("/dev/null").unwrap())
        .spawn()
        .expect("tine can be run");
    // Until the end, which comes while tine serves.
    let lines: Vec<_> = BufReader::new(tine.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    let [first, second, third] = &lines[..] else { panic!("three lines, not {lines:?}") };
    assert_eq!(second, "", "a path has no port");
    for port in [first, third] {
        echo_line(&format!("127.0.0.1:{port}"), "hello").unwrap();
    }
    send(tine.id(), Signal::TERM);
    assert!(until("the end", || tine.try_wait().unwrap()).success());
}

#[test]
fn whoever_asks_for_the_status_without_end_keeps_no_client_waiting() {
    let server = Server::tine(&["127.0.0.1:0", "--", "cat"]);
    let is_answered = AtomicBool::new(false);
    thread::scope(|scope| {
        let asks = || {
            while !is_answered.load(Ordering::Relaxed) {
                send(server.pid(), Signal::USR1)
            }
        };
        (0..4).for_each(|_| _ = scope.spawn(asks));
        let answer = (0..20).try_for_each(|n| echo_line(server.addr(0), &format!("line {n}")));
        is_answered.store(true, Ordering::Relaxed);
        answer.unwrap();
    });
    assert!(server.stop().success());
}
