//! Shortage, and floods: the server rests, says so once, loses nobody, and goes on by itself.

mod support;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::{
    Call, Folder, calls, calls_of, count, fed, left_out_without_root, most_in_a_second, need, ticks, traced,
    value, ways_to_keep_trees,
};
use tine_testkit::server::{tine_command, until};
use tine_testkit::{Baseline, Ready, Server, Signal, Stream, binary, churn, echo_line, fds};

/// Sends a line and leaves the connection open.
fn say(mut client: &Stream, line: &str) {
    client.write_all(line.as_bytes()).expect("the connection stands");
}

/// Expects the line back, half-closes, and expects the end.
fn hear(mut client: &Stream, line: &str) {
    let mut back = vec![0; line.len()];
    client.read_exact(&mut back).unwrap_or_else(|why| panic!("no echo of {line:?}: {why}"));
    assert_eq!(String::from_utf8_lossy(&back), line);
    client.finish().expect("the connection stands");
    assert_eq!(client.rest().expect("a clean end"), b"");
}

/// So many clients that each has said its line.
fn clients(server: &Server, count: usize) -> Vec<(Stream, String)> {
    let client = |number| {
        let (stream, line) = (Stream::connect(server.addr(0)).unwrap(), format!("client {number}\n"));
        say(&stream, &line);
        (stream, line)
    };
    (0..count).map(client).collect()
}

fn paused(line: &str) -> bool {
    line.starts_with("pause ")
}

#[test]
fn out_of_descriptors_the_listener_rests_and_all_who_wait_are_served_after() {
    const CLIENTS: usize = 500;
    const SECONDS: u64 = 3;
    let folder = Folder::new();
    let trace = folder.file("trace");
    // Children of a template have their calls there, and descriptors: what is counted here is one process's.
    let args = ["127.0.0.1:0", "-v", "-c", "600", "-C", "600", "--confine", "none", "--", "cat"];
    let server = traced(&trace, &["-e", "trace=accept4,openat,fcntl"], &args);
    let baseline = Baseline::of(&server);
    let most = server.prlimit_nofile(fds(server.pid()).unwrap().len() as u64 + 4);
    let waiting = clients(&server, CLIENTS);
    let line = server.wait_log(paused);
    // A child takes two descriptors: its client's, and for a moment one of the control group that it is born in.
    let reason = value(&line, "reason").unwrap_or_default();
    assert!(["accept: Too many open files", "fork: Too many open files"].contains(&reason), "{line}");
    assert_eq!(server.status().paused, 1);

    // A while of it, by the clock of the trace.
    let tick = ticks(server.pid());
    let refused = || -> Vec<Call> {
        let all = calls_of(&trace, &["accept4", "openat", "fcntl"]);
        all.into_iter().filter(|call| call.text.contains("EMFILE")).collect()
    };
    let refused = until("it has gone on for a while", || {
        let refused = refused();
        let passed = refused.last()?.at - refused.first()?.at;
        (passed >= SECONDS as f64).then_some(refused)
    });
    assert!(most_in_a_second(&refused) <= 50, "{} in a second", most_in_a_second(&refused));
    // A tenth of one processor, in ticks of 10 ms, the tracer's part in it included.
    let used = ticks(server.pid()) - tick;
    assert!(used <= SECONDS * 10, "{used} ticks in {SECONDS} s");
    assert_eq!(count(&server, paused), 1, "said once");

    server.prlimit_nofile(most);
    server.wait_log(|line| line.starts_with("resume "));
    for (client, line) in &waiting {
        hear(client, line);
    }
    drop(waiting);
    server.quiescent(&baseline);
    assert_eq!(server.status().paused, 0);
    assert!(server.stop().success());
}

#[test]
fn more_children_than_descriptors_is_told_before_anything_is_bound() {
    let tine = binary("tine").display().to_string();
    let limit = r#"ulimit -n "$1" && shift && exec "$@""#; // both, soft and hard
    let start = |most: &str, children: &str| {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            limit,
            "sh",
            most,
            &tine,
            "serve",
            "127.0.0.1:0",
            "-1",
            "-c",
            children,
            "--",
            "cat",
        ]);
        command
    };
    let output = fed(&mut start("1000", "5000"), b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(100), "{said}");
    let expected = "tine: 5000 children may need 5065 open descriptors and the hard limit is 1000: \
                    raise it (ulimit -Hn, LimitNOFILE=) or allow fewer children\n";
    assert_eq!(said, expected);
    assert_eq!(output.stdout, b"");
    // At the limit it starts, one above it not.
    assert_eq!(fed(&mut start("1000", "936"), b"").status.code(), Some(100));
    let fits = Server::start(start("1000", "935"), Ready::Ports(vec!["127.0.0.1:0".into()]));
    echo_line(fits.addr(0), "it fits").unwrap();
    assert!(fits.stop().success());
}

#[test]
fn whatever_accept_fails_with_nobody_is_lost_and_nothing_spins() {
    const CLIENTS: u64 = 30;
    let errors =
        ["ENFILE", "ENOMEM", "ENOBUFS", "ECONNABORTED", "EPERM", "EPROTO", "EINTR", "EAGAIN", "ENETDOWN"];
    for error in errors {
        let folder = Folder::new();
        let trace = folder.file("trace");
        let inject = format!("inject=accept4:error={error}:when=1+2");
        let options = ["-e", "trace=accept4", "-e", &inject];
        let server = traced(&trace, &options, &["127.0.0.1:0", "-v", "--", "cat"]);
        let address = [server.addr(0)];
        for threads in [1, 4] {
            let churned = churn(&address, CLIENTS, threads);
            let all = (churned.replies_ok, churned.errors.len());
            assert_eq!(all, (CLIENTS, 0), "{error}: {churned:?}\n{}", server.log());
        }
        until("all are counted", || (server.status().served == 2 * CLIENTS).then_some(()));
        assert!(server.stop().success());
        let all = calls(&trace, "accept4");
        let injected = all.iter().filter(|call| call.text.contains("INJECTED")).count();
        assert!(injected >= CLIENTS as usize, "{error}: {injected}");
        // Each client is worth one that works, one that says there is nobody else, and as many that were made to fail.
        assert!(all.len() <= CLIENTS as usize * 2 * 4 + 10, "{error}: {} calls", all.len());
    }
}

/// The calls that make a child: glibc forks by clone(2), and into a control group goes clone3(2).
const BIRTHS: [&str; 2] = ["clone", "clone3"];

#[test]
fn a_client_whose_fork_fails_is_kept_and_served_when_forks_work_again() {
    const FAILURES: usize = 10;
    for trees in ways_to_keep_trees() {
        // The first two forks work; before them a control group is tried out with one.
        let inject = match trees {
            "cgroup" => "inject=clone,clone3,fork,vfork:error=EAGAIN:when=4..13",
            _ => "inject=clone,clone3,fork,vfork:error=EAGAIN:when=3..12",
        };
        let folder = Folder::new();
        let trace = folder.file("trace");
        let options = ["-e", "trace=accept4,clone,clone3,fork,vfork", "-e", inject];
        let args = ["127.0.0.1:0", "-v", "--trees", trees, "--confine", "none", "--", "cat"];
        let server = traced(&trace, &options, &args);
        let baseline = Baseline::of(&server); // the first fork
        echo_line(server.addr(0), "the second").unwrap();
        // A child that ends makes room, and a rest is cut short; here none is to be.
        until("both have ended", || (server.status().served == 2).then_some(()));
        let waiting = clients(&server, 20);
        let line = server.wait_log(paused);
        assert_eq!(value(&line, "reason"), Some("fork: Resource temporarily unavailable"));
        for (client, line) in &waiting {
            hear(client, line);
        }
        server.wait_log(|line| line.starts_with("resume "));
        assert_eq!(count(&server, paused), 1, "said once");
        drop(waiting);
        server.quiescent(&baseline);
        assert!(server.stop().success());

        // Each failure was followed by a rest, at least as long as the one before.
        let failed: Vec<Call> =
            calls_of(&trace, &BIRTHS).into_iter().filter(|call| call.text.contains("EAGAIN")).collect();
        assert_eq!(failed.len(), FAILURES, "{trees}");
        let rests: Vec<f64> = failed.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        for (rest, least) in rests.iter().zip([0.010, 0.020, 0.040, 0.080, 0.160, 0.320, 0.640, 1.0, 1.0]) {
            assert!(*rest >= least - 0.002, "{rests:?}");
        }
        assert!(most_in_a_second(&failed[4..]) <= 10);
        // The one client that waited in our hands, and not twenty.
        let calls = std::fs::read_to_string(&trace).unwrap();
        let mut held = 0;
        let taken = calls.lines().skip_while(|line| !line.contains("(INJECTED)"));
        for line in taken.take_while(|line| !line.contains(" clone") || line.contains("(INJECTED)")) {
            held += usize::from(line.contains(" accept4(") && !line.contains(" = -1 "));
        }
        assert_eq!(held, 0, "nobody else was accepted meanwhile");
    }
}

#[test]
fn a_rest_that_is_over_before_it_was_told_of_ends_all_the_same() {
    let folder = Folder::new();
    let trace = folder.file("trace");
    // The line of the pause takes longer to write than the pause, as on a busy machine.
    let options = [
        "-e",
        "trace=clone,clone3,fork,vfork,write",
        "-e",
        "inject=clone,clone3,fork,vfork:error=EAGAIN:when=3",
        "-e",
        "inject=write:delay_exit=50000",
    ];
    let args = ["127.0.0.1:0", "-v", "--trees", "subreaper", "--confine", "none", "--", "cat"];
    let server = traced(&trace, &options, &args);
    // One after the other: nobody who comes later, and no death, wakes the server for one that waits.
    for number in 0..4 {
        let (from, line) = (server.cursor(), format!("client {number}"));
        echo_line(server.addr(0), &line).unwrap_or_else(|why| server.fail(&why.to_string()));
        server.wait_log_from(from, |line| line.starts_with("end "));
    }
    assert_eq!(count(&server, paused), 1);
    assert!(server.stop().success());
}

#[test]
fn a_user_with_no_more_processes_serves_one_after_another() {
    const OWN: u32 = 54_321; // so that nobody else's processes count
    if left_out_without_root("a user of its own, whose processes are few") {
        return;
    }
    need("prlimit", "util-linux"); // Debian's shell cannot set this one
    let folder = Folder::new();
    let tine = folder.copy(binary("tine"), "tine");
    // One of the six processes is the master; another a template, where there is one.
    for (confine, children) in [("none", 5), ("guarded", 4)] {
        let mut command = Command::new("prlimit");
        command.args(["--nproc=6", &tine]);
        command.args(tine_command(&["127.0.0.1:0", "-v", "--confine", confine, "--", "cat"]).get_args());
        command.uid(OWN).gid(OWN);
        let server = Server::start(command, Ready::Ports(vec!["127.0.0.1:0".into()]));
        let baseline = Baseline::of(&server);
        let waiting = clients(&server, 20);
        let line = server.wait_log(paused);
        assert_eq!(value(&line, "reason"), Some("fork: Resource temporarily unavailable"));
        assert_eq!(server.status().open, children, "{confine}");
        // Whoever is tried when a process has just ended comes first, so none waits for another here.
        std::thread::scope(|scope| {
            for (client, line) in &waiting {
                scope.spawn(move || hear(client, line));
            }
        });
        drop(waiting);
        server.wait_log(|line| line.starts_with("resume "));
        server.quiescent(&baseline);
        assert!(server.stop().success());
    }
}

#[test]
fn a_flood_of_signals_disturbs_nobody() {
    const SIGNALS: usize = 100_000;
    const CLIENTS: u64 = 300;
    let server = Server::tine(&["127.0.0.1:0", "--", "cat"]);
    let baseline = Baseline::of(&server);
    let long = Stream::connect(server.addr(0)).unwrap();
    say(&long, "here all the time\n");
    let before = server.status().served;
    let served = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let all = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::CHILD, Signal::WINCH];
            let mut sent = 0;
            while sent < SIGNALS || !served.load(Ordering::Relaxed) {
                server.signal(all[sent % all.len()]);
                sent += 1;
            }
            sent
        });
        let churned = churn(&[server.addr(0)], CLIENTS, 4);
        served.store(true, Ordering::Relaxed);
        assert_eq!((churned.replies_ok, churned.errors.len()), (CLIENTS, 0), "{churned:?}");
        flood.join().expect("the flood ends")
    });
    assert!(sent >= SIGNALS);
    assert!(server.running());
    hear(&long, "here all the time\n");
    drop(long);
    until("all are counted", || (server.status().served == before + CLIENTS + 1).then_some(()));
    assert_eq!(server.status().failed, 0);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn no_end_is_lost_of_children_that_end_before_the_master_knows_them() {
    const CLIENTS: u64 = 100;
    let folder = Folder::new();
    // The child runs, and ends, while its parent is still in the call that makes it.
    let inject = "inject=clone,clone3,fork,vfork:delay_exit=20000";
    let options = ["-e", "trace=clone,clone3,fork,vfork", "-e", inject];
    let server =
        traced(&folder.file("trace"), &options, &["127.0.0.1:0", "-v", "--confine", "none", "--", "true"]);
    let clients: Vec<Stream> = (0..CLIENTS).map(|_| Stream::connect(server.addr(0)).unwrap()).collect();
    for client in &clients {
        assert_eq!(client.rest().unwrap(), b"");
    }
    let status = until("all ends are heard of", || {
        let status = server.status();
        (status.served == CLIENTS).then_some(status)
    });
    assert_eq!((status.open, status.failed), (0, 0));
    let ends = |line: &str| line.starts_with("end ") && line.contains(" exit=0 ");
    until("and told", || (count(&server, ends) == CLIENTS as usize).then_some(()));
    let slow = calls_of(&folder.file("trace"), &BIRTHS);
    assert!(slow.iter().filter(|call| call.text.contains("(DELAYED)")).count() >= CLIENTS as usize);
    assert!(server.stop().success());
}
