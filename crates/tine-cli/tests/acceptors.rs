//! Several processes that accept: clients go to the one of their processor, and whatever becomes of one of them costs no client
//! of another. That limits are the same over all is in `limits.rs`, and what a child sees of itself in `contract.rs`.

#[path = "support/clients.rs"]
mod clients;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clients::{Client, HELLO, on_processor, proxy_v1, uid};
use rustix::process::{Pid, kill_process, kill_process_group};
use support::{Folder, left_out_without_root, number, send, value};
use tine_testkit::client::ask_datagram;
use tine_testkit::groups::members;
use tine_testkit::refusals::{connect_from, counter};
use tine_testkit::server::{tine_command, until};
use tine_testkit::{Baseline, Ready, Server, Signal, Stream, ask, binary, children, echo_line, procfs};

/// A server of `cat` with so many acceptors, who have all begun.
fn server(acceptors: usize, options: &[&str]) -> Server {
    let all = acceptors.to_string();
    let server =
        Server::tine(&[&["127.0.0.1:0", "-v", "--acceptors", &all], options, &["--", "cat"]].concat());
    begun(&server, acceptors);
    server
}

/// Its acceptors, once there are so many.
fn begun(server: &Server, acceptors: usize) -> Vec<u32> {
    let own_session =
        |pid: &u32| procfs::stat(*pid).is_some_and(|stat| stat.fields[6 - 3] == pid.to_string());
    until("all acceptors have begun", || {
        Some(children(server.pid())).filter(|all| all.len() == acceptors && all.iter().all(own_session))
    })
}

/// A client that has arrived at a processor, and has said hello.
fn arrives(server: &Server, processor: usize) -> Client {
    on_processor(processor, || Client::from(Ipv4Addr::LOCALHOST, server.socket(0), HELLO))
}

fn served(server: &Server, processor: usize) -> Client {
    let mut client = arrives(server, processor);
    client.is_served();
    client
}

/// The child of a client that was served. The lines of several acceptors are not in the order in which clients were.
fn child(server: &Server, client: &Client) -> u32 {
    let of = format!("accept peer=127.0.0.1:{} ", client.port());
    number(&server.wait_log(|line| line.starts_with(&of)), "child")
}

fn parent(pid: u32) -> u32 {
    procfs::stat(pid).expect("it lives").ppid
}

/// Whether all of these have ended.
fn nobody_is_left(pids: &[u32]) -> Option<()> {
    let gone = |pid: &u32| procfs::stat(*pid).is_none_or(|stat| stat.state == 'Z');
    pids.iter().all(gone).then_some(())
}

fn lines(server: &Server, start: &str) -> Vec<String> {
    server.log().lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

/// A client that is to go now: it ends what it says, and hears the end.
fn finish(mut client: Client) {
    client.finishes();
    assert_eq!(client.hears(), "");
}

#[test]
fn a_client_is_served_by_the_acceptor_of_the_processor_that_it_arrives_at() {
    let server = server(2, &[]);
    let baseline = Baseline::of(&server);
    let acceptors = children(server.pid());
    let clients: Vec<Client> = (0..8).map(|nth| served(&server, nth)).collect();
    let parents: Vec<u32> = clients.iter().map(|client| parent(child(&server, client))).collect();
    if thread::available_parallelism().unwrap().get() > 1 {
        let (even, odd) = (parents[0], parents[1]);
        assert_ne!(even, odd);
        assert_eq!(parents, [even, odd].repeat(4));
    }
    assert!(parents.iter().all(|parent| acceptors.contains(parent)), "{parents:?} of {acceptors:?}");
    drop(clients);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn there_may_be_more_acceptors_than_processors_and_all_of_them_serve() {
    let server = server(5, &["-c", "200", "-C", "200", "--reserve", "0"]);
    let baseline = Baseline::of(&server);
    let clients: Vec<Client> = (0..100).map(|nth| served(&server, nth)).collect();
    let parents = children(server.pid()).into_iter().map(|acceptor| children(acceptor).len());
    let parents: Vec<usize> = parents.collect();
    assert!(parents.iter().all(|count| *count > 0), "{parents:?}");
    assert_eq!(parents.iter().sum::<usize>(), 100);
    assert_eq!(server.status().open, 100);
    drop(clients);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn with_auto_there_are_as_many_as_there_are_processors_and_each_may_run_where_the_master_may() {
    let server = Server::tine(&["127.0.0.1:0", "--acceptors", "auto", "--", "cat"]);
    let processors = thread::available_parallelism().unwrap().get();
    if processors > 1 {
        let allowed = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            procfs::value_of(&status, "Cpus_allowed_list").unwrap().to_owned()
        };
        let all = allowed(server.pid());
        for acceptor in begun(&server, processors) {
            // It begins on one of them.
            until("it may run on all", || (allowed(acceptor) == all).then_some(()));
        }
        assert!(
            server
                .wait_log(|line| line.starts_with("listen "))
                .ends_with(&format!(" acceptors={processors}"))
        );
    }
    assert!(server.stop().success());
}

// What becomes of an acceptor.

#[test]
fn an_acceptor_that_is_killed_at_rest_is_replaced_again_and_again() {
    let server = server(2, &[]);
    let baseline = Baseline::of(&server).by_kind();
    for round in 0..6 {
        // What the last one had begun and nobody has given a name yet is its master's child for a moment, and no acceptor.
        let victim = begun(&server, 2)[round % 2];
        let from = server.cursor();
        send(victim, Signal::KILL);
        let (_, line) = server.wait_log_from(from, |line| line.starts_with("acceptor "));
        assert!(line.starts_with(&format!("acceptor pid={victim} signal=9 by=")), "{line}");
        let next = number(&line, "by");
        assert!(begun(&server, 2).contains(&next));
        for processor in 0..2 {
            finish(served(&server, processor));
        }
    }
    server.quiescent(&baseline);
    assert_eq!(lines(&server, "acceptor ").len(), 6);
    assert!(server.stop().success());
}

#[test]
fn the_clients_of_an_acceptor_that_is_killed_go_on_with_their_slots_and_its_queue_is_served_by_the_next() {
    let server = server(2, &["-c", "64", "-C", "64", "--reserve", "0"]);
    let baseline = Baseline::of(&server).by_kind();
    let mut here: Vec<Client> = (0..10).map(|nth| served(&server, nth)).collect();
    let children_of: Vec<u32> = here.iter().map(|client| child(&server, client)).collect();
    let victim = parent(children_of[0]);
    send(victim, Signal::STOP);
    let mut queued: Vec<Client> = (0..20).map(|_| arrives(&server, 0)).collect();
    assert!(queued.iter_mut().all(Client::has_heard_nothing) || victim != parent(children_of[0]));
    send(victim, Signal::KILL);
    server.wait_log(|line| line.starts_with(&format!("acceptor pid={victim} signal=9 by=")));
    queued.iter_mut().for_each(Client::is_served);
    assert_eq!(server.status().open, 30, "ten of before count on");
    // Those of the dead are the master's own by now, and all go on.
    let of_dead: Vec<u32> =
        children_of.iter().copied().filter(|child| parent(*child) == server.pid()).collect();
    assert!(!of_dead.is_empty());
    drop(queued);
    until("those have gone", || (server.status().open == 10).then_some(()));
    for nth in (0..10).rev() {
        finish(here.remove(nth));
        until("its slot is free", || (server.status().open == nth as u64).then_some(()));
    }
    for child in of_dead {
        server.wait_log(|line| line.starts_with(&format!("end    child={child} exit=0 ")));
    }
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn slots_of_the_clients_of_a_killed_acceptor_keep_the_limit_exact() {
    let server = server(2, &["-c", "4", "-C", "64", "--reserve", "0", "--on-full", "refuse:full"]);
    let baseline = Baseline::of(&server).by_kind();
    for _ in 0..3 {
        let mut here: Vec<Client> = (0..4).map(|nth| served(&server, nth)).collect();
        let acceptors = children(server.pid());
        let with_clients =
            *acceptors.iter().find(|pid| !children(**pid).is_empty()).expect("one has clients");
        let from = server.cursor();
        send(with_clients, Signal::KILL);
        server.wait_log_from(from, |line| line.starts_with("acceptor "));
        for nth in 0..8 {
            assert_eq!(arrives(&server, nth).hears(), "full\n");
        }
        finish(here.pop().unwrap());
        until("one has gone", || (server.status().open == 3).then_some(()));
        here.push(served(&server, 0));
        assert_eq!(arrives(&server, 1).hears(), "full\n");
        drop(here);
        until("all have gone", || (server.status().open == 0).then_some(()));
    }
    server.quiescent(&baseline);
    assert_eq!(counter(&server, "refused.full"), 27);
    assert!(server.stop().success());
}

/// Between hearing that a child is dead and freeing its slot an acceptor may die too: then nobody will tell of that child again.
#[test]
fn acceptors_that_are_killed_while_their_clients_go_leave_no_slot_taken() {
    let server = server(2, &["-c", "64", "-C", "64", "--reserve", "0"]);
    for round in 0..24 {
        let clients: Vec<Client> = (0..48).map(|nth| served(&server, nth)).collect();
        let acceptors = begun(&server, 2);
        let from = server.cursor();
        drop(clients);
        // Somewhere among them.
        let is_end = |line: &str| line.starts_with("end ");
        (0..=round).fold(from, |from, _| server.wait_log_from(from, is_end).0);
        acceptors.iter().for_each(|acceptor| send(*acceptor, Signal::KILL));
        until("all have gone", || (server.status().open == 0).then_some(()));
    }
    begun(&server, 2);
    assert!(server.stop().success());
}

#[test]
fn killings_at_random_under_load_cost_nobody_but_the_clients_of_killed_programs_and_counts_are_exact() {
    // It takes its time, so that there is somebody to be killed.
    let program = ["--", "sh", "-c", "head -n 1; sleep 0.02"];
    for options in [&[][..], &["--spare=2:4"]] {
        let args = ["127.0.0.1:0", "-v", "--acceptors", "2", "-c", "64", "-C", "64", "--reserve", "0"];
        let server = Server::tine(&[&args[..], options, &program].concat());
        let address = server.addr(0).to_owned();
        let (over, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut killed = [0, 0];
        let (good, cut) = thread::scope(|scope| {
            let load = (0..4).map(|nth| {
                let (server, over, passed) = (&server, &over, &passed);
                scope.spawn(move || {
                    let (mut good, mut cut) = (0, 0);
                    while !over.load(Ordering::Relaxed) {
                        let client =
                            on_processor(nth, || connect_from(Ipv4Addr::LOCALHOST, server.socket(0)));
                        let stream = Stream::Tcp(client.expect("somebody listens always"));
                        let said = (&mut &stream).write_all(HELLO.as_bytes());
                        match said.and_then(|()| stream.rest()) {
                            Ok(reply) if reply == HELLO.as_bytes() => good += 1,
                            _ => cut += 1,
                        }
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                    (good, cut)
                })
            });
            let load: Vec<_> = load.collect();
            // Acceptors, and every other time whoever is below one: a program with a client, or a spare.
            for round in 0..40 {
                let before = passed.load(Ordering::Relaxed);
                until("five more have gone", || (passed.load(Ordering::Relaxed) >= before + 5).then_some(()));
                let acceptors = children(server.pid());
                let Some(acceptor) = acceptors.get(round / 2 % acceptors.len().max(1)) else { continue };
                let below = children(*acceptor);
                let victim = if round % 2 == 0 { Some(acceptor) } else { below.first() };
                let Some(pid) = victim.and_then(|pid| Pid::from_raw(*pid as i32)) else { continue };
                // It may end by itself just now; nobody else has its number so soon.
                if kill_process(pid, Signal::KILL).is_ok() {
                    killed[round % 2] += 1;
                }
            }
            over.store(true, Ordering::Relaxed);
            let sums = load.into_iter().map(|load| load.join().expect("clients do not panic"));
            sums.fold((0, 0), |(good, cut), (more, lost)| (good + more, cut + lost))
        });
        eprintln!("{killed:?} acceptors and programs or spares killed; {good} served, {cut} cut off");
        // An acceptor may have one client in its hands that it has accepted and that has no child yet.
        assert!(cut <= killed[0] + killed[1], "{cut} clients were cut off by {killed:?} killings");
        assert!(good > 100, "{good} were served");
        until("all have gone", || (server.status().open == 0).then_some(()));
        begun(&server, 2);
        // How many spares there are is another matter.
        if options.is_empty() {
            let baseline = Baseline::with(&server, move || ask(&address, HELLO.as_bytes()).map(drop));
            server.quiescent(&baseline);
        }
        assert!(server.stop().success());
    }
}

#[test]
fn while_an_acceptor_stands_still_others_go_on_and_the_end_comes_all_the_same() {
    let server = server(2, &[]);
    if thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    finish(served(&server, 0));
    let first = served(&server, 0);
    let victim = parent(child(&server, &first));
    send(victim, Signal::STOP);
    for _ in 0..50 {
        finish(served(&server, 1));
    }
    finish(first);
    assert!(server.stop().success(), "it is woken for the end");
}

#[test]
fn an_acceptor_that_cannot_begin_does_not_spin() {
    let server = server(2, &[]);
    let start = Instant::now();
    // One that is young waits a tenth of a second before it is replaced.
    for _ in 0..5 {
        // Whom it had just begun to have beside it is the master's child for a moment, and no acceptor.
        let victim = begun(&server, 2)[0];
        let from = server.cursor();
        send(victim, Signal::KILL);
        server.wait_log_from(from, |line| line.starts_with("acceptor "));
    }
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert!(server.stop().success());
}

// The end.

#[test]
fn when_the_master_is_killed_acceptors_end_sockets_are_free_and_programs_finish() {
    let first = server(2, &[]);
    let acceptors = begun(&first, 2);
    let mut here: Vec<Client> = (0..6).map(|nth| served(&first, nth)).collect();
    let programs: Vec<u32> = here.iter().map(|client| child(&first, client)).collect();
    let address = first.addr(0).to_owned();
    first.signal(Signal::KILL);
    first.wait();
    until("the acceptors have ended", || nobody_is_left(&acceptors));
    let second = Server::tine(&[&address, "-v", "--acceptors", "2", "--", "cat"]);
    echo_line(second.addr(0), "the next serves").unwrap();
    for client in here.drain(..) {
        finish(client);
    }
    let baseline = Baseline::of(&second);
    second.quiescent(&baseline);
    // It takes away what groups are left when it ends, if nobody is in them.
    until("the programs of the first have ended", || nobody_is_left(&programs));
    assert!(second.stop().success());
    for acceptor in acceptors {
        assert!(tine_testkit::groups::of(acceptor).is_empty(), "the group of {acceptor} is left");
    }
}

/// What became of a client in the load of the next test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its program spoke, heard it and answered.
    Served,
    /// It was accepted or stood in the queue, and its connection ended before its program said a word.
    Unserved,
    /// Nobody listens any more.
    Refused,
}

/// A client whose program speaks first: from then on it is served to its end, whatever becomes of the server.
fn spoken_to(server: &Server, processor: usize) -> Fate {
    let client = on_processor(processor, || connect_from(Ipv4Addr::LOCALHOST, server.socket(0)));
    let Ok(stream) = client.map(Stream::Tcp) else { return Fate::Refused };
    let mut word = [0; 5];
    if (&mut &stream).read_exact(&mut word).is_err() {
        return Fate::Unserved;
    }
    assert_eq!(&word, b"here\n");
    (&mut &stream).write_all(HELLO.as_bytes()).expect("its program listens");
    assert_eq!(stream.rest().expect("its program answers"), HELLO.as_bytes());
    Fate::Served
}

#[test]
fn a_master_that_is_killed_under_load_cuts_off_nobody_whose_program_runs_and_leaves_its_port_free() {
    let program = ["--", "sh", "-c", "echo here; head -n 1; sleep 0.01"];
    let mut address = "127.0.0.1:0".to_owned();
    let mut victims = Vec::new();
    for (round, options) in [&["--acceptors=2"][..], &["--acceptors=2", "--spare=2:4"], &["--spare=2:4"], &[]]
        .iter()
        .cycle()
        .take(12)
        .enumerate()
    {
        // The one before has this port until it is dead, and no longer.
        let server = Server::tine(&[&[&address, "-v"][..], options, &program].concat());
        address = server.addr(0).to_owned();
        let (dead, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
        let fates = thread::scope(|scope| {
            let load = (0..6).map(|nth| {
                let (server, dead, passed) = (&server, &dead, &passed);
                scope.spawn(move || {
                    let mut fates = Vec::new();
                    while fates.last() != Some(&Fate::Refused) {
                        let alive = !dead.load(Ordering::Relaxed);
                        let fate = spoken_to(server, nth);
                        assert!(
                            fate == Fate::Served || !alive || dead.load(Ordering::Relaxed),
                            "{fate:?} in life"
                        );
                        fates.push(fate);
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                    fates
                })
            });
            let load: Vec<_> = load.collect();
            // At an instant that is another one each time.
            until("some have gone", || (passed.load(Ordering::Relaxed) >= 10 + 7 * round).then_some(()));
            victims.extend(children(server.pid()).into_iter().chain([server.pid()]));
            dead.store(true, Ordering::Relaxed);
            server.signal(Signal::KILL);
            server.wait();
            load.into_iter().flat_map(|load| load.join().expect("clients do not panic")).collect::<Vec<_>>()
        });
        let many = |which| fates.iter().filter(|fate| **fate == which).count();
        eprintln!("{options:?}: {} served, {} unserved", many(Fate::Served), many(Fate::Unserved));
        assert!(many(Fate::Served) >= 10, "{fates:?}");
    }
    // Whoever waited for clients notices that nobody will come any more; the next server takes away what groups nobody is in.
    until("the dead are dead, and nobody is in their groups", || {
        let mut groups = victims.iter().flat_map(|pid| tine_testkit::groups::of(*pid));
        nobody_is_left(&victims).filter(|()| groups.all(|group| members(&group).is_empty()))
    });
    let last = Server::tine(&[&address, "-v", "--", "cat"]);
    let baseline = Baseline::of(&last);
    last.quiescent(&baseline);
    assert!(last.stop().success());
    until("of the dead nothing is left", || {
        victims.iter().all(|pid| tine_testkit::groups::of(*pid).is_empty()).then_some(())
    });
}

#[test]
fn when_the_master_is_killed_programs_die_if_that_was_asked_for() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--acceptors", "2", "--orphans", "die", "--", "cat"]);
    begun(&server, 3); // with the master's own guardian
    let mut here: Vec<Client> = (0..6).map(|nth| served(&server, nth)).collect();
    let programs: Vec<u32> = here.iter().map(|client| child(&server, client)).collect();
    server.signal(Signal::KILL);
    for client in &mut here {
        assert_eq!(client.hears(), "");
    }
    until("nobody is left", || nobody_is_left(&programs));
    server.wait();
}

#[test]
fn a_drain_lets_the_clients_of_all_acceptors_finish_and_takes_nobody_new() {
    let server = server(2, &[]);
    let mut here: Vec<Client> = (0..4).map(|nth| served(&server, nth)).collect();
    server.signal(Signal::TERM);
    assert_eq!(server.wait_log(|line| line.starts_with("drain ")), "drain  open=4 seconds=30");
    until("nobody listens", || Stream::connect(server.addr(0)).is_err().then_some(()));
    assert!(here.iter_mut().all(Client::has_heard_nothing));
    for client in here {
        finish(client);
    }
    assert!(server.wait().success());
    assert_eq!(lines(&server, "drain "), ["drain  open=4 seconds=30"]);
    assert_eq!(lines(&server, "stop "), ["stop   served=4"]);
    assert_eq!(lines(&server, "odd "), [""; 0]);
}

/// An acceptor that did not hear of it would go on for ever, and so would its master.
#[test]
fn a_drain_that_cannot_be_told_to_acceptors_at_once_is_told_them_later() {
    let server = server(2, &[]);
    let clients = [served(&server, 0), served(&server, 1)];
    let acceptors = begun(&server, 2);
    let limit = |descriptors: usize| {
        let args = ["--pid", &server.pid().to_string(), &format!("--nofile={descriptors}:")];
        assert!(Command::new("prlimit").args(args).status().expect("util-linux is there").success());
    };
    // Less than there are, as those of the listeners are free by then.
    limit(3);
    server.signal(Signal::TERM);
    server.wait_log(|line| line.starts_with("odd    what=\"signal an acceptor (it will be tried again)\""));
    server.wait_log(|line| line.starts_with("drain "));
    assert_eq!(begun(&server, 2), acceptors, "they have not heard of it");
    limit(1024);
    clients.into_iter().for_each(finish);
    assert!(server.wait().success());
    for acceptor in acceptors {
        assert!(tine_testkit::groups::of(acceptor).is_empty(), "the group of {acceptor} is left");
    }
}

#[test]
fn a_second_sigterm_means_now_and_a_drain_is_over_in_its_time() {
    for (seconds, signals) in [("30", 2), ("1", 1)] {
        let args = ["127.0.0.1:0", "-v", "--acceptors", "2", "--drain", seconds, "--"];
        let deaf = ["perl", "-e", "$SIG{TERM} = 'IGNORE'; $| = 1; print scalar <STDIN>; sleep 1000"];
        let server = Server::tine(&[&args[..], &deaf].concat());
        begun(&server, 2);
        let mut here: Vec<Client> = (0..4).map(|nth| served(&server, nth)).collect();
        server.signal(Signal::TERM);
        server.wait_log(|line| line.starts_with("drain "));
        (1..signals).for_each(|_| server.signal(Signal::TERM));
        for client in &mut here {
            assert_eq!(client.hears(), "");
        }
        assert!(server.wait().success());
        assert_eq!((lines(&server, "drain ").len(), lines(&server, "stop ").len()), (1, 1));
    }
}

#[test]
fn what_a_terminal_sends_to_all_is_one_request_and_not_two() {
    let mut command = tine_command(&["127.0.0.1:0", "-v", "--acceptors", "2", "--", "cat"]);
    command.process_group(0);
    let server = Server::start(command, Ready::Ports(vec!["127.0.0.1:0".to_owned()]));
    begun(&server, 2);
    let here: Vec<Client> = (0..4).map(|nth| served(&server, nth)).collect();
    let group = Pid::from_raw(server.pid() as i32).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    server.wait_log(|line| line.starts_with("drain "));
    for client in here {
        finish(client);
    }
    assert!(server.wait().success());
    assert_eq!((lines(&server, "drain ").len(), lines(&server, "nudge ").len()), (1, 0));
}

#[test]
fn an_acceptor_that_is_told_to_end_by_somebody_else_lets_its_clients_finish_and_is_replaced() {
    let server = server(2, &[]);
    let here = served(&server, 0);
    let acceptor = parent(child(&server, &here));
    send(acceptor, Signal::TERM);
    finish(here);
    let line = server.wait_log(|line| line.starts_with(&format!("acceptor pid={acceptor} exit=0 by=")));
    assert!(begun(&server, 2).contains(&number(&line, "by")));
    finish(served(&server, 0));
    assert!(server.stop().success());
}

// What is told and read.

#[test]
fn the_status_is_the_sum_of_all_and_the_dead_count_too() {
    let server = server(2, &["-c", "4", "-C", "64", "--reserve", "0", "--on-full", "refuse"]);
    for nth in 0..10 {
        finish(served(&server, nth));
    }
    let here: Vec<Client> = (0..4).map(|nth| served(&server, nth)).collect();
    for nth in 0..6 {
        assert_eq!(arrives(&server, nth).hears(), "");
    }
    until("all have been counted", || {
        let now = server.status();
        ((now.open, now.served, now.failed, now.refused("full")) == (4, 10, 0, 6)).then_some(())
    });
    let from = server.cursor();
    send(children(server.pid())[0], Signal::KILL);
    server.wait_log_from(from, |line| line.starts_with("acceptor "));
    drop(here);
    until("all have gone", || {
        let now = server.status();
        ((now.open, now.served, now.failed) == (0, 14, 0)).then_some(())
    });
    assert!(server.stop().success());
    assert_eq!(lines(&server, "stop "), ["stop   served=14"]);
}

#[test]
fn the_lines_of_all_count_those_of_all() {
    let server = server(2, &[]);
    let told_and_served = |nth| {
        let client = served(&server, nth);
        child(&server, &client);
        client
    };
    let here: Vec<Client> = (0..6).map(told_and_served).collect();
    let open: Vec<String> =
        lines(&server, "accept ").iter().map(|line| value(line, "open").unwrap().to_owned()).collect();
    assert_eq!(open, (1..=6).map(|count| format!("{count}/256")).collect::<Vec<_>>());
    drop(here);
    assert!(server.stop().success());
}

#[test]
fn rules_that_are_read_again_hold_at_all_acceptors_at_once() {
    let folder = Folder::new();
    let (path, with) = (folder.text("rules"), |text: &str| fs::write(folder.file("rules"), text).unwrap());
    with("allow 127.1.0.0/16 children=2\n");
    let args = [
        "127.0.0.1:0",
        "-v",
        "--acceptors",
        "2",
        "--rules",
        &path,
        "-C",
        "64:two",
        "--",
        "sh",
        "-c",
        "echo \"$KIND\"; cat",
    ];
    let server = Server::tine(&args);
    begun(&server, 2);
    let comes = |processor: usize| {
        on_processor(processor, || Client::from(Ipv4Addr::new(127, 1, 0, 1), server.socket(0), ""))
    };
    let reload = || {
        let from = server.cursor();
        server.signal(Signal::HUP);
        server.wait_log_from(from, |line| line.starts_with("reload ")).1
    };
    // A rule's limit is one over all.
    let mut here = [comes(0), comes(1)];
    here.iter_mut().for_each(|client| assert_eq!(client.hears(), "\n"));
    assert_eq!([comes(0).hears(), comes(1).hears()], ["two\n", "two\n"]);
    for round in 0..20 {
        with(&format!("allow 127.1.0.0/16 children=64 env.KIND={round}\n"));
        assert!(reload().contains("rules=1"));
        // Nobody comes in by rules that do not hold any more, at whichever acceptor.
        for processor in 0..2 {
            assert_eq!(comes(processor).hears(), format!("{round}\n"));
        }
    }
    with("allow 127.1.0.0/16 children=many\n");
    let told = reload();
    assert!(!told.contains("rules="), "{told}");
    assert_eq!([comes(0).hears(), comes(1).hears()], ["19\n", "19\n"]);
    with("deny 127.1.0.0/16 message=\"no more\\n\"\n");
    reload();
    assert_eq!([comes(0).hears(), comes(1).hears()], ["no more\n", "no more\n"]);
    drop(here);
    until("they have gone", || (server.status().open == 0).then_some(()));
    // An acceptor that begins later knows them too.
    let from = server.cursor();
    send(children(server.pid())[0], Signal::KILL);
    server.wait_log_from(from, |line| line.starts_with("acceptor "));
    begun(&server, 2);
    assert_eq!([comes(0).hears(), comes(1).hears()], ["no more\n", "no more\n"]);
    assert!(server.stop().success());
}

#[test]
fn rules_may_name_users_at_every_acceptor() {
    if left_out_without_root("clients that are other users") {
        return;
    }
    let folder = Folder::new();
    fs::write(folder.file("rules"), "allow user:root env.KIND=root\ndeny all message=\"no\\n\"\n").unwrap();
    let (listener, rules) = (format!("unix:{}?mode=0666", folder.text("socket")), folder.text("rules"));
    let program = ["--", "sh", "-c", "echo \"$KIND\"; cat"];
    let args = [&[&listener, "-v", "--acceptors", "3", "--rules", &rules], &program[..]].concat();
    let server = Server::tine(&args);
    begun(&server, 3);
    let kinds = |expected: &str| {
        for _ in 0..9 {
            let stream = Stream::connect(server.addr(0)).unwrap();
            stream.finish().unwrap();
            assert_eq!(String::from_utf8(stream.rest().unwrap()).unwrap(), expected);
        }
    };
    kinds("root\n");
    assert_eq!(Client::of_user(uid(1), server.addr(0), "").hears(), "no\n");
    fs::write(folder.file("rules"), "allow user:root env.KIND=toor\ndeny all message=\"no\\n\"\n").unwrap();
    server.signal(Signal::HUP);
    server.wait_log(|line| line.starts_with("reload "));
    kinds("toor\n");
    assert!(server.stop().success());
}

#[test]
fn a_penalty_that_was_earned_at_one_acceptor_keeps_out_at_all() {
    let args = ["127.0.0.1:0", "-v", "--acceptors", "2", "--penalty", "crash=1h", "--"];
    let server = Server::tine(&[&args[..], &["perl", "-e", "<STDIN>; kill SEGV => $$; sleep 9"]].concat());
    begun(&server, 2);
    for (source, processor) in [(1, 0), (2, 1)] {
        let comes = |processor: usize| {
            on_processor(processor, || {
                Client::from(Ipv4Addr::new(127, source, 0, 1), server.socket(0), HELLO)
            })
        };
        let from = server.cursor();
        assert_eq!(comes(processor).hears(), "");
        server.wait_log_from(from, |line| line.starts_with("penal"));
        let before = counter(&server, "refused.penalty");
        for nth in 0..4 {
            assert_eq!(comes(nth).hears(), "");
        }
        assert_eq!(counter(&server, "refused.penalty"), before + 4);
    }
    assert!(server.stop().success());
}

#[test]
fn behind_a_balancer_the_limits_of_its_clients_hold_over_acceptors() {
    for acceptors in [2, 3] {
        let options = ["--proxy", "required", "--proxy-from", "127.0.0.0/8", "-C", "2:two"];
        let server = server(acceptors, &options);
        let comes = |nth: usize, client: u8| {
            let says = proxy_v1(Ipv4Addr::new(192, 0, 2, client).into()) + HELLO;
            on_processor(nth, || Client::from(Ipv4Addr::LOCALHOST, server.socket(0), &says))
        };
        let mut here: Vec<Client> = (0..2).map(|nth| comes(nth, 1)).collect();
        here.iter_mut().for_each(Client::is_served);
        for nth in 0..4 {
            assert_eq!(comes(nth, 1).hears(), "two\n");
        }
        let mut others: Vec<Client> = (2..6).map(|client| comes(client.into(), client)).collect();
        others.iter_mut().for_each(Client::is_served);
        finish(here.pop().unwrap());
        until("it has gone", || (server.status().open == 5).then_some(()));
        let mut next = comes(1, 1);
        next.is_served();
        assert_eq!(comes(0, 1).hears(), "two\n");
        drop((here, others, next));
        until("all have gone", || (server.status().open == 0).then_some(()));
        assert!(server.stop().success());
    }
}

// Sockets.

#[test]
fn one_port_is_told_and_unix_sockets_and_datagrams_are_served_beside_it() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.text("socket"));
    let args = ["127.0.0.1:0", &unix, "udp://127.0.0.1:0", "--datagram", "each", "-v", "--drain", "0"];
    let server = Server::tine(&[&args[..], &["--acceptors", "2", "--", "cat"]].concat());
    begun(&server, 3);
    for nth in 0..10 {
        on_processor(nth, || echo_line(server.addr(0), "by tcp")).unwrap();
        on_processor(nth, || echo_line(server.addr(1), "by path")).unwrap();
        assert_eq!(ask_datagram(server.addr(2), b"by datagram").unwrap(), b"by datagram");
    }
    assert!(server.stop().success());
    assert!(!folder.file("socket").exists());
}

#[test]
fn sockets_that_were_inherited_are_shared_by_all_acceptors() {
    let named = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec $1 serve systemd:web --acceptors 2 -v -- cat 3<&0";
    for script in ["exec $1 serve fd:0 --acceptors 2 -v -- cat", named] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(binary("tine"));
        let child = shell.stdin(Stdio::from(OwnedFd::from(listener))).stderr(Stdio::piped()).spawn().unwrap();
        for nth in 0..20 {
            on_processor(nth, || echo_line(&address, "hello")).unwrap();
        }
        // One of them may have served all before the other was there.
        until("both are there", || (children(child.id()).len() == 2).then_some(()));
        send(child.id(), Signal::TERM);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_port_that_another_server_has_is_refused_with_acceptors_on_either_side() {
    for (first, second) in [("1", "2"), ("2", "1"), ("2", "2")] {
        let here = Server::tine(&["127.0.0.1:0", "--acceptors", first, "--", "cat"]);
        let mut other = Command::new(binary("tine"));
        other.args(["serve", here.addr(0), "--acceptors", second, "--", "cat"]);
        let output = other.stdin(Stdio::null()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(111), "{told}");
        assert!(told.contains("in use"), "{told}");
        echo_line(here.addr(0), "the first serves").unwrap();
        assert!(here.stop().success());
    }
}
