//! Spares: children that wait for their clients. Whoever is served by one finds what everybody finds, limits and rules hold as
//! ever, and whatever becomes of a spare, no client but its own notices.

#[path = "support/clients.rs"]
mod clients;
#[path = "support/puppet.rs"]
mod puppet;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use clients::{Client, HELLO};
use puppet::{PUPPET, Process, puppets};
use rustix::process::{Pid, kill_process};
use support::{Folder, left_out_without_root, number, send, value};
use tine_testkit::refusals::{counter, counters};
use tine_testkit::server::{listeners_among, tine_command, until};
use tine_testkit::{Baseline, Ready, Server, Signal, Stream, ask, ask_datagram, children, fds, procfs};

/// Tells its process id, and echoes.
const TELLS: [&str; 4] = ["--", "sh", "-c", "echo $$; exec cat"];

/// The children of a server that are no program yet.
fn waiting(server: &Server) -> BTreeSet<u32> {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children(server.pid()).into_iter().filter(|pid| name(pid) == "tine\n").collect()
}

/// Waits until so many are ready: they have closed all that they do not need.
fn ready(server: &Server, count: usize) -> BTreeSet<u32> {
    // The place of a client at descriptor 3 is taken already.
    let few = |pid: &u32| fds(*pid).is_ok_and(|fds| (6..=7).contains(&fds.len()));
    until("the spares are ready", || {
        Some(waiting(server)).filter(|all| all.len() == count && all.iter().all(few))
    })
}

/// A server with so many spares, which are ready.
fn serve(count: usize, options: &[&str], program: &[&str]) -> Server {
    let spare = format!("--spare={count}:{count}");
    let server = Server::tine(&[options, &["-v", &spare], program].concat());
    ready(&server, count);
    server
}

/// A server at rest, with two spares: the third client from here on would find one again, which others may not rely on.
fn rest(server: &Server) -> Baseline {
    let address = server.addr(0).to_owned();
    Baseline::with(server, move || ask(&address, b"").map(drop)).by_kind()
}

/// The first line that a client is told.
fn line(stream: &Stream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

fn accepted(server: &Server, nth: usize) -> u32 {
    let nth = until("one more was accepted", || {
        server.log().lines().filter(|line| line.starts_with("accept ")).nth(nth).map(str::to_owned)
    });
    number(&nth, "child")
}

#[test]
fn a_client_is_served_by_a_child_that_was_born_before_it_came() {
    let start = Instant::now();
    let server = serve(2, &["127.0.0.1:0"], &TELLS);
    let baseline = rest(&server);
    let before = ready(&server, 2);
    let waits = |pid: &u32| procfs::stat(*pid).is_some_and(|stat| stat.state == 'S');
    until("they wait for their clients", || before.iter().all(waits).then_some(()));
    // As long again, so that the time in which one waits cannot be taken for that in which it was set up.
    let made = start.elapsed();
    until("that time has passed", || (start.elapsed() >= 2 * made).then_some(()));
    let client = Stream::connect(server.addr(0)).unwrap();
    let pid: u32 = line(&client).parse().unwrap();
    assert!(before.contains(&pid), "{pid} is none of {before:?}");
    assert_eq!(accepted(&server, 1), pid);
    drop(client);
    let end = server.wait_log(|line| line.starts_with(&format!("end    child={pid} exit=0 ")));
    assert!(u128::from(number(&end, "setup_us")) <= made.as_micros(), "{end}, in {made:?}");
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_spare_has_its_line_and_the_ways_to_report_and_no_listener() {
    let server = serve(2, &["127.0.0.1:0", "[::1]:0"], &TELLS);
    let listeners: BTreeSet<String> = fds(server.pid()).unwrap().into_values().collect();
    for pid in ready(&server, 2) {
        let all = until("it has closed all else", || fds(pid).ok().filter(|all| all.len() == 6));
        let kinds: Vec<&str> = all.values().map(|link| link.split(":[").next().unwrap()).collect();
        let (standard, others) = kinds.split_at(3);
        assert_eq!(standard, ["/dev/null", "/dev/null", "pipe"], "{all:?}");
        let mut others = others.to_vec();
        others.sort_unstable();
        assert_eq!(others, ["pipe", "pipe", "socket"], "{all:?}");
        let sockets = all.values().filter(|link| link.starts_with("socket:"));
        assert!(sockets.clone().all(|socket| !listeners.contains(socket)), "the master's own: {all:?}");
    }
    assert!(server.stop().success());
}

/// What `env` tells of a client's environment, with names for what differs from client to client, each after it was compared.
fn environment(spares: bool, listener: &str, style: &str, program: &[&str]) -> Vec<String> {
    let options = [listener, "--env", style, "-E", "OWN=a value"];
    let server = if spares {
        serve(2, &options, program)
    } else {
        Server::tine(&[&options[..], &["-v"], program].concat())
    };
    let before = waiting(&server);
    let client = Stream::connect(server.addr(0)).unwrap();
    let told = String::from_utf8(client.rest().unwrap()).unwrap();
    let child = accepted(&server, 0);
    assert_eq!(before.contains(&child), spares);
    let remote = match &client {
        Stream::Tcp(tcp) => tcp.local_addr().unwrap().port().to_string(),
        Stream::Unix(_) => "none".to_owned(),
    };
    let local = server.addr(0).rsplit(':').next().unwrap().to_owned();
    let named = |line: &str| {
        let (name, value) = line.split_once('=').unwrap();
        match name {
            "TCPREMOTEPORT" | "REMOTE_PORT" => assert_eq!(value, remote, "{name}"),
            "TCPLOCALPORT" => assert_eq!(value, local, "{name}"),
            "LISTEN_PID" => assert_eq!(value, child.to_string(), "{name}"),
            "TINE_ID" => assert_eq!(value.len(), 16, "{name}"),
            "SO_COOKIE" => assert!(value.parse::<u64>().is_ok_and(|cookie| cookie > 0), "{name}"),
            _ => return line.to_owned(),
        }
        format!("{name}=<{name}>")
    };
    let mut lines: Vec<_> = told.lines().map(named).collect();
    lines.sort_unstable();
    assert!(server.stop().success());
    lines
}

#[test]
fn a_program_of_a_spare_finds_its_own_client_in_its_environment_in_every_style_and_family() {
    let folder = Folder::new();
    let socket = format!("unix:{}", folder.text("s"));
    let mut listeners = vec!["127.0.0.1:0", socket.as_str()];
    listeners.extend(TcpListener::bind("[::1]:0").is_ok().then_some("[::1]:0"));
    for listener in listeners {
        for style in ["ucspi", "inetd", "systemd", "none"] {
            let program: &[&str] = match style {
                "systemd" => &["--", "sh", "-c", "exec env >&3"],
                _ => &["--", "env"],
            };
            let [plain, spare] = [false, true].map(|spares| environment(spares, listener, style, program));
            assert_eq!(spare, plain, "{listener} {style}");
            assert!(spare.contains(&"OWN=a value".to_owned()), "{spare:?}");
            if style == "ucspi" {
                let has = |name| spare.iter().any(|line: &String| line.starts_with(name));
                let name = if listener == socket { "IPCREMOTEEUID=" } else { "TCPREMOTEIP=" };
                assert!(has(name), "{spare:?}");
            }
        }
    }
}

#[test]
fn rules_hold_for_who_is_served_by_a_spare_and_new_ones_replace_all_spares() {
    let folder = Folder::new();
    let rules = |greeting: &str| {
        let text = format!(
            "allow 127.1.0.0/16 children=1 env.GREETING={greeting}\n\
             allow 127.2.0.0/16 exec=\"printenv TCPREMOTEIP\"\n\
             deny 127.3.0.0/16\n"
        );
        fs::write(folder.file("rules"), text).unwrap();
    };
    rules("hello");
    let path = folder.text("rules");
    let program = ["--", "sh", "-c", "echo $GREETING; exec cat"];
    let server = serve(2, &["127.0.0.1:0", "--rules", &path], &program);
    let says = |source: [u8; 4]| {
        ready(&server, 2);
        Client::from(Ipv4Addr::from(source), server.socket(0), "")
    };
    for greeting in ["hello", "good-day"] {
        let mut first = says([127, 1, 0, 1]);
        assert_eq!(first.hears(), format!("{greeting}\n"));
        assert_eq!(says([127, 1, 0, 1]).hears(), "", "one child for each of that network");
        assert_eq!(says([127, 2, 0, 1]).hears_all(), "127.2.0.1\n");
        assert_eq!(says([127, 3, 0, 1]).hears_all(), "");
        assert_eq!(says([127, 0, 0, 1]).hears(), "\n");
        drop(first);
        until("all have ended", || (server.status().open == 0).then_some(()));
        let before = ready(&server, 2);
        rules("good-day");
        let from = server.cursor();
        server.signal(Signal::HUP);
        server.wait_log_from(from, |line| line.starts_with("reload "));
        until("others have taken their places", || waiting(&server).is_disjoint(&before).then_some(()));
    }
    assert!(server.stop().success());
}

#[test]
fn limits_are_exact_with_spares_and_spares_are_no_children() {
    let options = ["127.0.0.1:0", "-c", "4", "-C", "8", "--reserve", "0", "--on-full", "refuse:full"];
    let server = serve(2, &options, &["--", "cat"]);
    let baseline = rest(&server);
    // The answer to this, and not one of before: it would be taken for that to the next question.
    let from = server.cursor();
    server.signal(Signal::USR1);
    server.wait_log_from(from, |line| line.starts_with("status open=0/4 ") && line.contains(" spares=2 "));
    let here: Vec<Client> = (1..=4)
        .map(|count| {
            let mut client = Client::from(Ipv4Addr::LOCALHOST, server.socket(0), HELLO);
            client.is_served();
            assert_eq!(server.status().open, count);
            client
        })
        .collect();
    for _ in 0..4 {
        assert_eq!(Client::from(Ipv4Addr::LOCALHOST, server.socket(0), "").hears().trim_end(), "full");
    }
    assert_eq!(counter(&server, "refused.full"), 4);
    drop(here);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_sources_limit_and_a_penalty_hold_with_spares() {
    let server = serve(
        2,
        &["127.0.0.1:0", "-C", "2", "--penalty", "exit=1h,min=1h,max=1h"],
        &["--", "sh", "-c", "read line; echo $line; read line && exit 7; exit 0"],
    );
    let from = |source: [u8; 4]| Client::from(Ipv4Addr::from(source), server.socket(0), HELLO);
    let mut here: Vec<Client> = (0..2).map(|_| from([127, 0, 0, 1])).collect();
    here.iter_mut().for_each(Client::is_served);
    assert_eq!(from([127, 0, 0, 1]).hears(), "");
    from([127, 0, 0, 2]).is_served();
    let mut bad = Client::from(Ipv4Addr::new(127, 0, 0, 3), server.socket(0), "hello\nagain\n");
    bad.is_served();
    assert_eq!(bad.hears(), "");
    server.wait_log(|line| line.starts_with("penalty ") && value(line, "source") == Some("127.0.0.3"));
    ready(&server, 2);
    assert_eq!(from([127, 0, 0, 3]).hears(), "");
    let all = counters(&server);
    assert_eq!((all.get("refused.source"), all.get("refused.penalty")), (Some(&1), Some(&1)), "{all:?}");
    drop(here);
    assert!(server.stop().success());
}

/// Asks so many clients, a few at a time, what `TELLS` tells them; some may hear nothing.
fn pids(server: &Server, clients: usize) -> Vec<Option<u32>> {
    let heard = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..clients / 8 {
                    let told = ask(server.addr(0), b"").unwrap_or_default();
                    heard.lock().unwrap().push(String::from_utf8_lossy(&told).trim().parse().ok());
                }
            });
        }
    });
    heard.into_inner().unwrap()
}

#[test]
fn two_thousand_clients_have_a_process_each_and_none_that_another_had() {
    let options = ["127.0.0.1:0", "-c", "64", "-C", "64", "--spare=2:32"];
    let server = Server::tine(&[&options[..], &TELLS].concat());
    let heard = pids(&server, 2_000);
    let different: BTreeSet<u32> = heard.iter().flatten().copied().collect();
    assert_eq!((heard.len(), different.len()), (2_000, 2_000));
    until("all have ended", || (server.status().served == 2_000).then_some(()));
    assert_eq!(server.status().failed, 0);
    assert!(server.stop().success());
}

#[test]
fn a_spare_that_is_killed_while_it_waits_is_told_and_replaced_and_nobody_is_lost() {
    let server = serve(2, &["127.0.0.1:0"], &TELLS);
    let baseline = rest(&server);
    for round in 0..5 {
        let before = ready(&server, 2);
        let dying: Vec<Process> = before.iter().copied().map(Process::of).collect();
        before.iter().for_each(|pid| send(*pid, Signal::KILL));
        until("they have died", || dying.iter().all(|spare| !spare.lives()).then_some(()));
        let pid: u32 = line(&Stream::connect(server.addr(0)).unwrap()).parse().unwrap();
        assert!(!before.contains(&pid), "round {round}");
        if round == 0 {
            // Of the same kind one line is written in ten seconds.
            let told = server.wait_log(|line| line.starts_with("spare ") && line.ends_with(" signal=9"));
            assert!(before.contains(&number(&told, "pid")), "{told}");
        }
        let now = ready(&server, 2);
        assert!(now.is_disjoint(&before), "round {round}");
    }
    server.quiescent(&baseline);
    assert_eq!(server.status().failed, 0);
    assert!(server.stop().success());
}

#[test]
fn spares_that_are_killed_at_random_under_load_lose_only_their_own_clients() {
    const CLIENTS: usize = 800;
    // A template bears children for those who come before it makes spares, and then there would be none to kill.
    let options = ["127.0.0.1:0", "-c", "64", "-C", "64", "--confine", "none"];
    let server = serve(2, &options, &TELLS);
    let baseline = rest(&server);
    let (done, killed) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    let heard = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // It may be a program by now, or have ended: that is what random means here. It is a child of the server's
                // that has not been waited for, or was a moment ago.
                for pid in waiting(&server).into_iter().take(1) {
                    let process = Pid::from_raw(pid as i32).unwrap();
                    if kill_process(process, Signal::KILL).is_ok() {
                        killed.lock().unwrap().insert(pid);
                    }
                }
            }
        });
        let heard = pids(&server, CLIENTS);
        // On a machine that has other things to do, none may have been met in time: they wait again now.
        until("one was killed", || (!killed.lock().unwrap().is_empty()).then_some(()));
        done.store(true, Ordering::Relaxed);
        heard
    });
    let killed = killed.into_inner().unwrap();
    // Those that were killed one after the other are replaced more and more seldom.
    ready(&server, 2);
    server.quiescent(&baseline);
    let log = server.log();
    let ends: Vec<&str> = log.lines().filter(|line| line.starts_with("end ")).collect();
    let harmed = ends.iter().filter(|line| line.contains(" signal=9 ")).count();
    let lost = heard.iter().filter(|pid| pid.is_none()).count();
    assert!(
        lost <= harmed && harmed <= killed.len(),
        "{lost} lost, {harmed} harmed, {} killed",
        killed.len()
    );
    assert!(ends.iter().all(|line| {
        line.contains(" exit=0 ") || (line.contains(" signal=9 ") && killed.contains(&number(line, "child")))
    }));
    let accepted = log.lines().filter(|line| line.starts_with("accept ")).count();
    assert_eq!((accepted, ends.len() as u64), (ends.len(), server.status().served));
    assert!(accepted >= CLIENTS, "{accepted}, and those of the oracle");
    eprintln!("{} killed, {lost} lost", killed.len());
    assert!(server.stop().success());
}

#[test]
fn spares_end_when_the_master_is_killed_and_when_it_drains() {
    let server = serve(2, &["127.0.0.1:0"], &TELLS);
    let spares: Vec<Process> = ready(&server, 2).into_iter().map(Process::of).collect();
    server.signal(Signal::KILL);
    server.wait();
    until("they have ended", || spares.iter().all(|spare| !spare.lives()).then_some(()));

    let server = serve(2, &["127.0.0.1:0"], &TELLS);
    let client = Stream::connect(server.addr(0)).unwrap();
    line(&client);
    let spares: Vec<Process> = ready(&server, 2).into_iter().map(Process::of).collect();
    server.signal(Signal::TERM);
    server.wait_log(|line| line.starts_with("drain "));
    until("they have ended", || spares.iter().all(|spare| !spare.lives()).then_some(()));
    until("no other was made", || waiting(&server).is_empty().then_some(()));
    client.finish().unwrap();
    assert_eq!(client.rest().unwrap(), b"", "who is here may finish");
    assert!(server.wait().success());
    assert!(!server.log().contains("\nspare "), "that was no accident: {}", server.log());
}

#[test]
fn a_spare_that_has_waited_for_too_long_is_replaced_though_nobody_came() {
    let server = serve(2, &["127.0.0.1:0", "--spare-age", "1s"], &TELLS);
    let first = waiting(&server);
    until("all are others", || {
        Some(waiting(&server)).filter(|now| now.len() == 2 && now.is_disjoint(&first))
    });
    assert_eq!(line(&Stream::connect(server.addr(0)).unwrap()).parse::<u32>().map(drop), Ok(()));
    assert!(!server.log().contains("\nspare "), "that was no accident: {}", server.log());
    assert!(server.stop().success());
}

#[test]
fn clients_who_find_no_spare_are_given_a_child_at_once() {
    let server = serve(1, &["127.0.0.1:0", "-c", "64", "-C", "64"], &TELLS);
    let baseline = rest(&server);
    let before = ready(&server, 1);
    let here: Vec<Stream> = (0..40).map(|_| Stream::connect(server.addr(0)).unwrap()).collect();
    let pids: BTreeSet<u32> = here.iter().map(|client| line(client).parse().unwrap()).collect();
    assert_eq!(pids.len(), 40);
    assert!(!pids.is_disjoint(&before));
    drop(here);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn what_a_spares_program_has_started_ends_with_its_connection() {
    let kinds: &[&str] =
        if left_out_without_root("control groups") { &["subreaper"] } else { &["cgroup", "subreaper"] };
    // Each waits once until its client has been idle for as long as a program may take to begin: both together.
    thread::scope(|scope| {
        for kind in kinds {
            scope.spawn(|| what_a_spares_program_has_started_ends(kind));
        }
    });
}

fn what_a_spares_program_has_started_ends(kind: &str) {
    let steps = ["--idle-timeout", "6s", "--end", "hup:100ms,term:100ms,kill"];
    let options = ["127.0.0.1:0", "-v", "--trees", kind, "--spare=2:2"];
    let server = puppets(&[&options, &steps[..]].concat());
    ready(&server, 2);
    let baseline = rest(&server);
    for (nth, (how, reason)) in [("deadline", "idle"), ("reset", "gone")].into_iter().enumerate() {
        let before = ready(&server, 2);
        let client = puppet::Client::of(&server);
        client.have(&["deaf"]);
        let daemons = client.daemons(20);
        let child = accepted(&server, nth + 1);
        assert!(before.contains(&child), "{kind} {how}");
        if how == "reset" {
            client.order("sleep");
            client.reset();
        } else {
            client.end();
        }
        let end = server.wait_log(|line| line.starts_with(&format!("end    child={child} ")));
        assert_eq!((value(&end, "signal"), value(&end, "reason")), (Some("9"), Some(reason)), "{end}");
        until("nobody is left", || (daemons.alive() == 0).then_some(()));
    }
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn with_orphans_die_a_spares_program_ends_with_the_master() {
    let args = [&["127.0.0.1:0", "-v", "--orphans", "die", "--spare=2:2"], &PUPPET[..]].concat();
    let server = Server::start(tine_command(&args), Ready::Ports(listeners_among(&args)));
    let before = ready_but_guardian(&server);
    let client = puppet::Client::of(&server);
    let daemons = client.daemons(6);
    let child = accepted(&server, 0);
    assert!(before.contains(&child));
    let child = Process::of(child);
    server.signal(Signal::KILL);
    server.wait();
    until("nobody is left", || (daemons.alive() == 0 && !child.lives()).then_some(()));
}

/// Both spares, and the guardian.
fn ready_but_guardian(server: &Server) -> BTreeSet<u32> {
    until("two spares and a guardian", || Some(waiting(server)).filter(|all| all.len() == 3))
}

#[test]
fn datagrams_for_programs_are_served_by_spares_too() {
    for how in ["peer", "each"] {
        let args = ["udp://127.0.0.1:0", "-v", "--drain", "0", "--datagram", how, "--spare=2:2"];
        let server = Server::tine(&[&args[..], &["--", "cat"]].concat());
        // The worker of the listener is a child too.
        let before = until("two spares and a worker", || Some(waiting(&server)).filter(|all| all.len() == 3));
        for number in 0..20 {
            let question = format!("datagram {number}");
            let reply = ask_datagram(server.addr(0), question.as_bytes());
            assert_eq!(reply.unwrap_or_else(|why| server.fail(&why.to_string())), question.as_bytes());
        }
        assert!(before.contains(&accepted(&server, 0)), "{how}");
        assert!(!server.log().contains(" setup="), "{}", server.log());
        assert!(server.stop().success());
    }
}
