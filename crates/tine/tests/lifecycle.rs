//! The life of a connection, many times over: nothing is lost, nothing leaks, nothing spins.

#![forbid(unsafe_code)]

mod common;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use common::*;
use tine_testkit::server::until;
use tine_testkit::{
    Baseline, Pattern, Ready, Server, Signal, Stream, ask, children, churn, echo_line, example, net,
};

const TCP: &str = "tcp://127.0.0.1:0";

/// How many lines of the log, as far as it has come, are such.
fn count(server: &Server, matches: impl Fn(&str) -> bool) -> usize {
    server.log().lines().filter(|line| matches(line)).count()
}

#[test]
fn fifty_thousand_connections_all_get_exact_replies_and_leave_nothing_behind() {
    const TOTAL: u64 = 50_000;
    let folder = Folder::new();
    let path = format!("unix:{}", folder.at("socket"));
    let name = format!("unix:@tine-test-{}-churn", std::process::id());
    let server = Server::example("watched", &["quiet", TCP, "tcp://[::1]:0", &path, &name]);
    let baseline = Baseline::of(&server);
    let before = server.status().served;
    let addresses: Vec<&str> = (0..4).map(|i| server.addr(i)).collect();
    let churn = churn(&addresses, TOTAL, 4);
    assert_eq!((churn.replies_ok, churn.errors.len()), (TOTAL, 0), "{churn:?}");
    server.quiescent(&baseline);
    let status = server.status();
    let probes = 4; // quiescent() asks each listener once more
    assert_eq!((status.served, status.failed, status.open), (before + TOTAL + probes, 0, 0));
    assert!(server.stop().success());
    assert!(!folder.path().join("socket").exists(), "the path is gone with its server");
}

#[test]
fn the_first_death_does_not_end_the_server() {
    let server = Server::example("echo", &[TCP]);
    let mut stays = Client::served(server.addr(0));
    for _ in 0..3 {
        echo_line(server.addr(0), "and goes").expect("an echo");
        wait_children(&server, 1); // the death has been heard
        assert!(server.running());
        stays.talk().expect("a client that others' deaths do not concern");
    }
    stays.leave().expect("the end");
    assert!(server.stop().success());
}

#[test]
fn a_reaper_with_a_living_child_does_not_spin() {
    let server = Server::example("watched", &[TCP]);
    let mut stays = Client::served(server.addr(0));
    echo_line(server.addr(0), "the first death").expect("an echo");
    // The master has heard of it, which is later than its being dead.
    server.wait_log(|line| line.starts_with("end "));

    // Its child talks on; the master has nothing to do with that. One that spins would use the time that passes.
    let (start, used, woken) = (Instant::now(), cpu(server.pid()), switches(server.pid()));
    for _ in 0..20_000 {
        stays.talk().expect("an echo");
    }
    let (passed, used, woken) = (start.elapsed(), cpu(server.pid()) - used, switches(server.pid()) - woken);
    assert!(used < passed / 50, "the master used {used:?} of {passed:?}, idle");
    // It looks once whether an orphan is left, and may be interrupted at that; one that spins wakes ten thousand times.
    assert!(woken <= 10, "the master woke {woken} times, idle");

    // Fifty deaths are fifty pieces of work, not a loop until the last child has gone.
    let before = cpu(server.pid());
    for n in 0..50 {
        echo_line(server.addr(0), &format!("death {n}")).expect("an echo");
    }
    wait_children(&server, 1);
    let each = (cpu(server.pid()) - before) / 50;
    assert!(each < Duration::from_millis(20), "{each:?} of the master's time for each of 50 clients");
    stays.leave().expect("the end");
    assert!(server.stop().success());
}

#[test]
fn five_hundred_deaths_that_coalesce_are_all_heard() {
    raise_descriptors();
    let server = Server::example("watched", &["children=600", TCP]);
    let baseline = Baseline::of(&server);
    let before = server.status().served;
    let mut clients: Vec<Client> = (0..500).map(|_| Client::served(server.addr(0))).collect();
    let victims = wait_children(&server, 500);
    server.signal(Signal::STOP);
    wait_state(server.pid(), "T");
    for victim in &victims {
        signal_child(&server, *victim, Signal::KILL);
    }
    victims.iter().for_each(|victim| wait_state(*victim, "Z"));
    server.signal(Signal::CONT);
    for victim in &victims {
        assert_eq!(end_of(&server, *victim), "signal=9");
    }
    let status = server.status();
    assert_eq!((status.open, status.served, status.failed), (0, before + 500, 500));
    clients.iter_mut().for_each(Client::expect_gone);
    drop(clients);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_storm_of_kills_hurts_only_the_killed() {
    const KILLS: usize = 300;
    let server = Server::example("watched", &[TCP]);
    let baseline = Baseline::of(&server);
    let others_are_there = AtomicBool::new(true);
    // They are here before it begins, and speak after its end at the latest.
    let mut clients: Vec<Client> = (0..10).map(|_| Client::served(server.addr(0))).collect();
    let (kills, steady_lines, load) = thread::scope(|scope| {
        let steady = scope.spawn(|| {
            let mut lines = 0;
            loop {
                let is_last = !others_are_there.load(Ordering::Relaxed);
                for client in &mut clients {
                    client.talk().expect("a client that nobody was to hurt");
                    lines += 1;
                }
                if is_last {
                    break;
                }
            }
            clients.into_iter().for_each(|client| client.leave().expect("the end"));
            lines
        });
        let load = scope.spawn(|| churn(&[server.addr(0)], 3_000, 2));
        let mut random = Pattern::new(5);
        let mut victims: Vec<Client> = (0..32).map(|_| Client::served(server.addr(0))).collect();
        let mut kills = Vec::new();
        for _ in 0..KILLS {
            let at = (random.next_u64() % victims.len() as u64) as usize;
            let mut victim = std::mem::replace(&mut victims[at], Client::served(server.addr(0)));
            let child = victim.child(&server);
            let (signal, how) =
                [(Signal::KILL, "signal=9"), (Signal::SEGV, "signal=11"), (Signal::ABORT, "signal=6")]
                    [(random.next_u64() % 3) as usize];
            signal_child(&server, child, signal);
            victim.expect_gone();
            kills.push((child, how));
        }
        victims.into_iter().for_each(|client| client.leave().expect("the end"));
        let load = load.join().expect("the load does not panic");
        others_are_there.store(false, Ordering::Relaxed);
        (kills, steady.join().expect("the steady clients do not panic"), load)
    });
    assert_eq!((load.replies_ok, load.errors.len()), (3_000, 0), "{load:?}");
    assert!(steady_lines >= 10, "{steady_lines} lines");
    server.quiescent(&baseline);
    for (child, how) in &kills {
        assert_eq!(end_of(&server, *child), *how);
    }
    let unusual = count(&server, |line| line.starts_with("end ") && !line.contains(" exit=0 "));
    let status = server.status();
    assert_eq!((unusual, status.failed), (KILLS, KILLS as u64));
    assert!(server.stop().success());
}

#[test]
fn clients_that_wait_while_the_master_is_stopped_are_all_served() {
    raise_descriptors();
    let server = Server::example("watched", &[TCP]);
    let baseline = Baseline::of(&server);
    server.signal(Signal::STOP);
    wait_state(server.pid(), "T");
    let clients: Vec<Stream> = (0..500)
        .map(|n| {
            let mut stream = Stream::connect(server.addr(0)).expect("the kernel's queue has room");
            writeln!(stream, "client {n}").expect("the kernel's buffer has room");
            stream.finish().expect("half-close");
            stream
        })
        .collect();
    server.signal(Signal::CONT);
    for (n, stream) in clients.iter().enumerate() {
        assert_eq!(stream.rest().expect("an answer"), format!("client {n}\n").as_bytes());
    }
    drop(clients);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn stopped_children_do_not_keep_a_server_from_ending() {
    let server = Server::example("watched", &["patience=600", TCP]);
    let clients: Vec<Client> = (0..20).map(|_| Client::served(server.addr(0))).collect();
    let stopped = wait_children(&server, 20);
    for child in &stopped {
        signal_child(&server, *child, Signal::STOP);
        wait_state(*child, "T");
    }
    server.signal(Signal::TERM);
    server.wait_log(|line| line.starts_with("drain  open=20 "));
    let asked = Instant::now();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    server.wait_log(|line| line == "stop   served=20"); // the last line
    assert_eq!(count(&server, |line| line.starts_with("end ") && line.contains(" signal=9 ")), 20);
    drop(clients);
}

#[test]
fn at_the_limit_the_next_client_waits_and_is_served_when_one_leaves() {
    let server = Server::example("watched", &["children=3", TCP]);
    let baseline = Baseline::of(&server);
    let mut inside: Vec<Client> = (0..2).map(|_| Client::served(server.addr(0))).collect();
    assert_eq!(server.status().open, 2, "one below the limit");
    inside.push(Client::served(server.addr(0)));
    assert_eq!((server.status().open, server.status().max), (3, 3), "at the limit");

    let mut waits = Client::connect(server.addr(0));
    waits.say("let me in\n").expect("the kernel takes it");
    let here = server.socket(0);
    let queued = || {
        let listener = net::tcp_sockets().into_iter().find(|s| s.local == here && s.state == net::LISTEN);
        listener.map(|socket| socket.receive_queue)
    };
    until("one client in the queue", || (queued() == Some(1)).then_some(()));
    for client in &mut inside {
        client.talk().expect("an echo for those who are inside");
    }
    assert_eq!((server.status().open, queued()), (3, Some(1)), "one above the limit waits");

    inside.remove(0).leave().expect("the end");
    assert_eq!(waits.line().expect("its turn has come"), "let me in\n");
    assert_eq!((server.status().open, queued()), (3, Some(0)));
    assert_eq!(count(&server, |line| line.starts_with("refuse") || line.starts_with("pause")), 0);
    inside.push(waits);
    inside.into_iter().for_each(|client| client.leave().expect("the end"));
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn ten_thousand_clients_of_a_full_server_are_all_served_and_counted() {
    let server = Server::example("watched", &["quiet", "children=4", TCP]);
    let baseline = Baseline::of(&server);
    let mut expected = server.status().served;
    for _ in 0..2 {
        // Full: they come, find nobody, and go. They stay in the kernel's queue, and are accepted when there is room.
        let held: Vec<Client> = (0..4).map(|_| Client::served(server.addr(0))).collect();
        for _ in 0..2_500 {
            drop(Client::connect(server.addr(0)));
        }
        assert_eq!(server.status().open, 4, "full, and still there");
        held.into_iter().for_each(|client| client.leave().expect("the end"));
        expected += 4 + 2_500;
        until("the end of all who gave up", || (server.status().served == expected).then_some(()));

        // One place is left, and more want it at any time than there is room for.
        let held: Vec<Client> = (0..3).map(|_| Client::served(server.addr(0))).collect();
        let churn = churn(&[server.addr(0)], 2_500, 8);
        assert_eq!((churn.replies_ok, churn.errors.len()), (2_500, 0), "{churn:?}");
        held.into_iter().for_each(|client| client.leave().expect("the end"));
        expected += 3 + 2_500;
        until("the end of all who were served", || (server.status().served == expected).then_some(()));
    }
    let status = server.status();
    assert_eq!((status.open, status.served, status.failed, status.paused), (0, expected, 0, 0));
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_thousand_clients_that_stay_and_five_hundred_that_pass_are_all_served_and_accounted_for() {
    raise_descriptors();
    let server = Server::example("watched", &["children=1100", TCP]);
    let baseline = Baseline::of(&server);
    let before = server.status().served;
    let mut stay: Vec<Client> = (0..1_000).map(|_| Client::served(server.addr(0))).collect();
    let first = churn(&[server.addr(0)], 500, 4);
    assert_eq!((first.replies_ok, first.errors.len()), (500, 0), "{first:?}");
    assert!(stay.iter_mut().all(|client| client.talk().is_ok()));
    until("those who passed are gone", || (server.status().open == 1_000).then_some(()));

    // In random order: every third is killed, the others leave; new ones pass in between.
    let mut random = Pattern::new(9);
    let (mut killed, mut pids) = (0, BTreeSet::new());
    while !stay.is_empty() {
        let mut client = stay.swap_remove((random.next_u64() % stay.len() as u64) as usize);
        let child = client.child(&server);
        assert!(pids.insert(child), "a child for each client");
        if random.next_u64().is_multiple_of(3) {
            signal_child(&server, child, Signal::KILL);
            client.expect_gone();
            killed += 1;
        } else {
            client.talk().expect("an echo, however many have gone");
            client.leave().expect("the end");
        }
        if stay.len() % 100 == 50 {
            echo_line(server.addr(0), "passes").expect("an echo");
        }
    }
    until("nobody is left", || (server.status().open == 0).then_some(()));
    let status = server.status();
    assert_eq!((status.served, status.failed), (before + 1_000 + 500 + 10, killed));
    assert!(killed > 200, "{killed}");
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_request_to_end_lets_clients_finish_and_refuses_new_ones() {
    let server = Server::example("watched", &["patience=600", TCP]);
    let mut client = Client::served(server.addr(0));
    server.signal(Signal::TERM);
    server.wait_log(|line| line == "drain  open=1 seconds=600");
    let refused = Stream::connect(server.addr(0)).expect_err("nobody listens any more");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    client.talk().expect("an echo for who was here before");
    client.leave().expect("the end");
    assert!(server.wait().success());
    server.wait_log(|line| line == "stop   served=1");
    assert_eq!(count(&server, |line| line.starts_with("nudge")), 0, "nobody was told to end");
}

#[test]
fn a_second_request_to_end_means_now() {
    let server = Server::example("watched", &["patience=600", TCP]);
    let mut client = Client::served(server.addr(0));
    let child = client.child(&server);
    server.signal(Signal::TERM);
    server.wait_log(|line| line.starts_with("drain "));
    let asked = Instant::now();
    server.signal(Signal::INT);
    client.expect_gone();
    assert!(server.wait().success());
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(end_of(&server, child), "signal=9");
}

#[test]
fn when_patience_is_over_children_are_told_to_end_and_then_killed() {
    let server = Server::example("misbehave", &["patience=1", TCP]);
    let heeds = Client::served(server.addr(0));
    let mut ignores = Client::connect(server.addr(0));
    ignores.say("do ignore TERM\n").expect("a line");
    assert_eq!(ignores.line().expect("an answer"), "ignoring\n");
    let (heeds, ignores) = (heeds.child(&server), ignores.child(&server));

    let asked = Instant::now();
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let took = asked.elapsed();
    assert_eq!((end_of(&server, heeds), end_of(&server, ignores)), ("signal=15".into(), "signal=9".into()));
    let told: Vec<String> = ["drain ", "nudge ", "end ", "nudge ", "end ", "stop "]
        .iter()
        .scan(0, |from, verb| {
            let (next, line) = server.wait_log_from(*from, |line| line.starts_with(verb));
            *from = next;
            Some(line)
        })
        .collect();
    assert_eq!(told[0], "drain  open=2 seconds=1");
    assert_eq!(
        (told[1].as_str(), told[3].as_str()),
        ("nudge  open=2 signal=TERM", "nudge  open=1 signal=KILL")
    );
    assert!((Duration::from_secs(3)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[test]
fn a_path_that_a_live_server_serves_is_refused_and_a_stale_one_is_replaced() {
    let folder = Folder::new();
    let address = format!("unix:{}", folder.at("socket"));
    let first = Server::example("watched", &[&address]);
    let second = Command::new(example("tine", "watched")).arg(&address).output().expect("it can be run");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&address) && said.contains("a live process serves there"), "{said}");
    echo_line(first.addr(0), "the first serves on").expect("an echo");

    // A child has the listener for its first instants, and would keep the path alive.
    wait_children(&first, 0);
    first.signal(Signal::KILL);
    first.wait();
    assert!(folder.path().join("socket").exists(), "killed, it could not take its path away");
    let third = Server::example("watched", &[&address]);
    echo_line(third.addr(0), "in the place of the first").expect("an echo");
    assert!(third.stop().success());
    assert!(!folder.path().join("socket").exists());
}

#[test]
fn a_path_that_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    let path = folder.at("diary");
    fs::write(&path, "dear diary").unwrap();
    let tried =
        Command::new(example("tine", "watched")).arg(format!("unix:{path}")).output().expect("it can be run");
    assert!(!tried.status.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "dear diary");
}

#[test]
fn a_path_that_has_become_somebody_elses_is_not_removed() {
    let folder = Folder::new();
    let path = folder.at("socket");
    let server = Server::example("watched", &[&format!("unix:{path}")]);
    fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    assert!(server.stop().success());
    let _client = Stream::connect(&format!("unix:{path}")).expect("the path leads to the other listener");
    theirs.accept().expect("the other listener serves on");
}

#[test]
fn a_port_alone_serves_both_families_and_calls_ipv4_clients_by_their_ipv4_address() {
    let server = Server::example("misbehave", &[":0"]);
    let port = server.port(0);
    for (address, name) in [(format!("127.0.0.1:{port}"), "127.0.0.1:"), (format!("[::1]:{port}"), "[::1]:")]
    {
        let reply = String::from_utf8(ask(&address, b"do say who\n").expect("an answer")).unwrap();
        assert!(reply.starts_with(name), "{reply}");
        assert!(reply.contains(&format!("Inet({address})")), "the local address too: {reply}");
    }
    assert!(server.stop().success());
}

/// Perl that runs its arguments in a process for which the kernel has no IPv6: a seccomp filter answers `socket` for
/// that family with EAFNOSUPPORT, as a kernel does that was started with `ipv6.disable=1`.
const WITHOUT_IPV6: &str = r#"
    require "syscall.ph";
    my ($socket, $inet6, $eafnosupport) = (SYS_socket(), 10, 97);
    my @program = (
        [0x20, 0, 0, 0], [0x15, 0, 3, $socket],            # the call's number: another one is allowed
        [0x20, 0, 0, 16], [0x15, 0, 1, $inet6],            # its first argument, the low half of it
        [0x06, 0, 0, 0x00050000 | $eafnosupport], [0x06, 0, 0, 0x7fff0000],
    );
    my $code = join "", map { pack "SCCL", @$_ } @program;
    my $filter = pack "S x6 P", scalar @program, $code;
    syscall(SYS_prctl(), 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";
    syscall(SYS_prctl(), 22, 2, $filter) == 0 or die "seccomp: $!";
    exec { $ARGV[0] } @ARGV or die "exec $ARGV[0]: $!";
"#;

#[test]
fn a_machine_without_ipv6_is_served_over_ipv4() {
    let mut command = Command::new("perl");
    command.args(["-e", WITHOUT_IPV6]).arg(example("tine", "watched")).arg(":0");
    let server = Server::start(command, Ready::Line);
    server.wait_log(|line| line.starts_with("listen tcp://0.0.0.0:"));
    let baseline = Baseline::of(&server);
    echo_line(server.addr(0), "over IPv4").expect("an echo");
    server.quiescent(&baseline);
    assert!(children(server.pid()).is_empty() && server.stop().success());
}
