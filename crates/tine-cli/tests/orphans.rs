//! Whatever a program has started ends with its connection, and whatever a server leaves when it is killed is cleared away;
//! and nobody else is touched.

#[path = "support/puppet.rs"]
mod puppet;
mod support;

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use puppet::{Client, PUPPET, Process, Processes, puppets};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Folder, calls, count, fed, left_out_without_root, need, number, value};
use tine_testkit::server::{listeners_among, tine_command, until};
use tine_testkit::{Baseline, Ready, Server, Signal, Stream, ask, binary, children, echo_line, procfs};

/// By what trees are held together. Control groups take root.
fn kinds() -> &'static [&'static str] {
    if left_out_without_root("control groups") { &["subreaper"] } else { &["cgroup", "subreaper"] }
}

/// Ended at once, without a word.
const KILLED: [&str; 2] = ["--end", "kill"];

fn server(kind: &str, args: &[&str]) -> Server {
    puppets(&[&["127.0.0.1:0", "-v", "--trees", kind], args].concat())
}

/// The baseline of a server whose clients need not say anything.
fn baseline(server: &Server) -> Baseline {
    let address = server.addr(0).to_owned();
    Baseline::with(server, move || ask(&address, b"").map(drop))
}

/// The child of a client, who may have been answered before the log tells of it.
fn child_of(server: &Server, client: &Stream) -> u32 {
    let Stream::Tcp(client) = client else { panic!("it has no port to be known by") };
    let peer = client.local_addr().expect("it is connected").to_string();
    let accepted = |line: &str| line.starts_with("accept ") && value(line, "peer") == Some(&peer);
    number(&server.wait_log(accepted), "child")
}

fn end_of(server: &Server, child: u32) -> String {
    server.wait_log(|line| line.starts_with(&format!("end    child={child} ")))
}

/// Waits until all of these have ended, and tells how long that took.
fn all_gone(server: &Server, what: &str, processes: &Processes) -> Duration {
    let start = Instant::now();
    until(&format!("{what}: nobody is left\n{}", server.log()), || (processes.alive() == 0).then_some(()));
    eprintln!("{what}: {} processes were gone {:?} after the child", processes.len(), start.elapsed());
    start.elapsed()
}

/// The goal is 250 ms, on a machine that has nothing else to do. Less than those have who may finish.
const SOON: Duration = Duration::from_millis(1500);

/// As many as a thousand may take longer on a busy machine, and are too many to be tried again.
const FOR_MANY: Duration = Duration::from_secs(10);

/// What those have at least who may finish, which is two seconds.
const GRACE_LEAST: Duration = Duration::from_millis(1900);

/// How often something may be tried that a busy machine can be too slow for.
const TRIES: usize = 5;

/// Does something until it was in time: what always comes too late is not the machine's fault.
///
/// # Errors
/// It never was: why not, each time.
fn in_time(once: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let late: Vec<String> = std::iter::repeat_with(once).take(TRIES).map_while(Result::err).collect();
    if late.len() < TRIES { Ok(()) } else { Err(late.join("\n")) }
}

/// Whether it took less than it may at most.
fn within(what: &str, took: Duration, most: Duration) -> Result<(), String> {
    if took < most { Ok(()) } else { Err(format!("{what}: {took:?}")) }
}

/// The steps that all this takes no notice of.
const STEPS: [&str; 2] = ["--end", "hup:100ms,term:100ms,kill"];

#[test]
fn a_hundred_daemons_end_with_a_connection_that_is_ended() {
    let once = |server: &Server, kind: &str, how: &str| {
        let client = Client::of(server);
        client.have(&["deaf"]);
        let daemons = client.daemons(100);
        assert_eq!(daemons.alive(), 100);
        let child = child_of(server, &client.0);
        if how == "gone" {
            client.order("sleep");
            client.reset();
        } else {
            client.end();
        }
        let end = end_of(server, child);
        assert_eq!((value(&end, "signal"), value(&end, "reason")), (Some("9"), Some(how)), "{end}");
        let took = all_gone(server, &format!("{kind}, {how}"), &daemons);
        within("the daemons went late", took, SOON)
    };
    let all = |kind: &str| {
        // Time enough for the program to begin and to start its daemons, so all wait for it side by side.
        let server = server(kind, &[&["--idle-timeout", "7s"], &STEPS[..]].concat());
        let baseline = baseline(&server);
        let each = |how: &str| {
            in_time(|| once(&server, kind, how)).unwrap_or_else(|why| server.fail(&why));
        };
        thread::scope(|scope| {
            scope.spawn(|| each("idle"));
            each("gone");
        });
        server.quiescent(&baseline);
        assert!(server.stop().success());
    };
    let all = &all;
    thread::scope(|scope| kinds().iter().for_each(|kind| _ = scope.spawn(move || all(kind))));
}

#[test]
fn what_a_program_leaves_may_finish_for_two_seconds_and_then_all_of_it_is_gone() {
    for kind in kinds() {
        let server = server(kind, &[]);
        let baseline = baseline(&server);
        let once = || {
            let client = Client::of(&server);
            let daemons = client.daemons(100);
            let child = child_of(&server, &client.0);
            client.order("late 700");
            let before = Instant::now();
            client.order("exit 3");
            let end = end_of(&server, child);
            assert_eq!((value(&end, "exit"), value(&end, "reason")), (Some("3"), None), "{end}");
            let ended = Instant::now();
            let mut said = [0; 5];
            let heard = (&mut &client.0).read_exact(&mut said);
            let alive = daemons.alive();
            // After that they may have gone, and the one that is late with them.
            within("nothing was heard until then", before.elapsed(), GRACE_LEAST)?;
            heard.expect("it may finish");
            assert_eq!((&said, alive), (b"late\n", 100));
            // Those who keep the connection keep it no longer than they may stay themselves.
            client.end();
            all_gone(&server, &format!("{kind}, left behind"), &daemons);
            assert!(before.elapsed() >= GRACE_LEAST, "{:?}", before.elapsed());
            within("they went late", ended.elapsed(), Duration::from_secs(2) + SOON)
        };
        in_time(once).unwrap_or_else(|why| server.fail(&why));
        server.quiescent(&baseline);
        assert!(server.stop().success());
    }
}

#[test]
fn the_end_of_one_connection_is_no_other_connections() {
    for kind in kinds() {
        let server = server(kind, &KILLED);
        let baseline = baseline(&server);
        let (ended, stays) = (Client::of(&server), Client::of(&server));
        let (his, hers) = (ended.daemons(20), stays.daemons(20));
        ended.order("sleep");
        ended.reset();
        let end = server.wait_log(|line| line.starts_with("end ") && line.contains(" reason=gone "));
        assert_eq!(value(&end, "signal"), Some("9"));
        all_gone(&server, &format!("{kind}, one of two"), &his);
        stays.have(&[]);
        assert_eq!(hers.alive(), 20);
        drop(stays);
        all_gone(&server, &format!("{kind}, the other"), &hers);
        server.quiescent(&baseline);
        assert!(server.stop().success());
    }
}

#[test]
fn who_is_killed_does_not_hurry_what_others_have_left_to_finish() {
    for kind in kinds() {
        let server = server(kind, &KILLED);
        // One that leaves somebody behind who says something before two seconds are over; on a busy machine it may not come to that.
        let leaves = |client: &Client, late: &str, when: &str| {
            let before = Instant::now();
            client.order(late);
            client.order("exit 0");
            let (said, took) = (client.0.rest().unwrap(), before.elapsed());
            if said != b"late\n" {
                within("nothing was heard until then", took, GRACE_LEAST)?;
                server.fail(&format!("{kind}: one that ended {when} the kill was heard to say {said:?}"));
            }
            Ok(())
        };
        let once = || {
            let from = server.cursor();
            let (first, killed) = (Client::of(&server), Client::of(&server));
            first.have(&[]);
            let daemons = killed.daemons(5);
            killed.order("sleep");
            killed.reset(); // and is ended in a second
            let (first, second) = thread::scope(|scope| {
                let first = scope.spawn(|| leaves(&first, "late 1500", "before"));
                server.wait_log_from(from, |line| line.starts_with("end ") && line.contains(" reason=gone "));
                let second = Client::of(&server);
                second.have(&[]);
                let second = leaves(&second, "late 500", "after");
                (first.join().expect("it has not failed"), second)
            });
            all_gone(&server, &format!("{kind}, not hurried"), &daemons);
            first.and(second)
        };
        in_time(once).unwrap_or_else(|why| server.fail(&why));
        assert!(server.stop().success());
    }
}

#[test]
fn daemons_are_killed_at_once_however_many_others_come_and_go() {
    for kind in kinds() {
        let server = server(kind, &KILLED);
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    Client::of(&server).have(&[]);
                }
            });
            let once = || {
                let client = Client::of(&server);
                let daemons = client.daemons(20);
                let child = child_of(&server, &client.0);
                client.order("sleep");
                client.reset();
                let end = end_of(&server, child);
                assert_eq!(value(&end, "reason"), Some("gone"), "{end}");
                let took = all_gone(&server, &format!("{kind}, among others"), &daemons);
                // Not after the time that the others' leftovers have.
                within("the daemons went late", took, SOON)
            };
            let all = in_time(once);
            ended.store(true, Ordering::Relaxed);
            all.unwrap_or_else(|why| server.fail(&why));
        });
        assert!(server.stop().success());
    }
}

#[test]
fn who_is_replaced_by_a_child_of_its_own_has_no_more_time_than_others() {
    for kind in kinds() {
        let server = server(kind, &[]);
        let baseline = baseline(&server);
        let once = || {
            let client = Client::of(&server);
            client.have(&["hop 300"]);
            let child = child_of(&server, &client.0);
            let before = Instant::now();
            client.order("exit 0");
            end_of(&server, child);
            let ended = Instant::now();
            client.end();
            assert!(before.elapsed() >= GRACE_LEAST, "{kind}: {:?}", before.elapsed());
            within("it went late", ended.elapsed(), Duration::from_secs(2) + SOON)
        };
        in_time(once).unwrap_or_else(|why| server.fail(&why));
        server.quiescent(&baseline);
        assert!(server.stop().success());
    }
}

/// As many descriptors for this process as it may have.
fn many_descriptors() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("up to the hard limit");
}

/// A program that leaves a daemon behind and then echoes.
fn with_daemon(sleep: &str, cat: &str) -> String {
    format!("(setsid {sleep} 1000 &); exec {cat}")
}

/// So many clients, each of whom has been answered.
fn crowd(server: &Server, count: usize) -> Vec<Stream> {
    let clients: Vec<_> =
        (0..count).map(|_| Stream::connect(server.addr(0)).expect("a connection")).collect();
    clients.iter().for_each(|client| converse(client, "before\n"));
    clients
}

fn converse(mut client: &Stream, line: &str) {
    client.write_all(line.as_bytes()).expect("the connection stands");
    let mut answer = vec![0; line.len()];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, line.as_bytes());
}

/// The control group of a server, found by one of its children.
fn group_of(child: u32) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("there is one, as it is used");
    let mount = mount.split(' ').nth(4).expect("the place of the mount");
    let groups = fs::read_to_string(format!("/proc/{child}/cgroup")).unwrap();
    let leaf = groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("version 2");
    Path::new(mount).join(leaf).parent().expect("a leaf is below the server's group").to_owned()
}

/// All who are in the leaves of a server's group. The group may be gone.
fn members(group: &Path) -> Vec<Process> {
    let leaves = fs::read_dir(group).into_iter().flatten().filter_map(Result::ok).map(|leaf| leaf.path());
    let procs = leaves.filter_map(|leaf| fs::read_to_string(leaf.join("cgroup.procs")).ok());
    let pids = procs.flat_map(|procs| Vec::from_iter(procs.lines().map(|pid| pid.parse().expect("a pid"))));
    pids.filter_map(Process::find).collect()
}

/// The address of the first listener, to listen at again.
fn again(server: &Server) -> String {
    format!("tcp://{}", server.addr(0))
}

#[test]
fn a_master_that_is_killed_takes_a_thousand_programs_and_their_daemons_with_it() {
    const CLIENTS: usize = 1000;
    if left_out_without_root("control groups") {
        return;
    }
    many_descriptors();
    let most = (CLIENTS + 100).to_string();
    let script = with_daemon("sleep", "cat");
    let limits = ["-c", &most, "-C", &most, "--reserve", "0", "--orphans", "die"];
    let program = ["--", "sh", "-c", &script];
    let start = |address: &str| Server::tine(&[&[address, "-v"], &limits[..], &program].concat());
    let server = start("127.0.0.1:0");
    let clients = crowd(&server, CLIENTS);
    let group = group_of(child_of(&server, &clients[0]));
    let all = until("every program has its daemon", || {
        Some(members(&group)).filter(|all| all.len() == 2 * CLIENTS)
    });
    let all = Processes(all);
    let began = Instant::now();
    server.signal(Signal::KILL);
    until("nobody is left", || (all.alive() == 0).then_some(()));
    eprintln!("{} processes were gone {:?} after their master", all.len(), began.elapsed());
    assert!(began.elapsed() < FOR_MANY, "{:?}", began.elapsed());
    for client in &clients {
        assert_eq!(client.rest().expect("an end, and no reset"), b"");
    }
    server.wait();
    until("the group is cleared away", || (!group.exists()).then_some(()));
    let next = start(&again(&server));
    echo_line(next.addr(0), "the next serves").unwrap();
    drop(next); // and takes its daemon with it
}

#[test]
fn a_master_that_is_killed_while_it_is_stopped_or_whose_programs_change_user_takes_them_along_too() {
    if left_out_without_root("control groups, and programs that change user") {
        return;
    }
    let folder = Folder::new();
    let setuid = |name: &str| {
        let copy = folder.copy(format!("/bin/{name}"), name);
        fs::set_permissions(&copy, Permissions::from_mode(0o4755)).unwrap();
        copy
    };
    let script = with_daemon(&setuid("sleep"), &setuid("cat"));
    let once = |user: &[&str]| {
        // Nothing that a guarded program executes changes its user.
        let orphans = ["--orphans", "die", "--confine", "none"];
        let server =
            Server::tine(&[&["127.0.0.1:0", "-v"], user, &orphans, &["--", "sh", "-c", &script]].concat());
        let clients = crowd(&server, 20);
        let child = child_of(&server, &clients[0]);
        let group = group_of(child);
        let all =
            until("every program has its daemon", || Some(members(&group)).filter(|all| all.len() == 40));
        let all = Processes(all);
        if !user.is_empty() {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
            let users: Vec<_> = procfs::value_of(&status, "Uid").unwrap().split_whitespace().collect();
            assert_eq!(users[1..], ["0", "0", "0"], "it has not changed its user");
            assert_ne!(users[0], "0");
        }
        server.signal(Signal::STOP);
        until("it is stopped", || (procfs::stat(server.pid())?.state == 'T').then_some(()));
        let began = Instant::now();
        server.signal(Signal::KILL);
        until("nobody is left", || (all.alive() == 0).then_some(()));
        let took = began.elapsed();
        eprintln!("{user:?}: {} processes were gone {took:?} after their master", all.len());
        until("the group is cleared away", || (!group.exists()).then_some(()));
        within("they went late", took, SOON)
    };
    for user in [&[][..], &["--user", "nobody"]] {
        in_time(|| once(user)).unwrap_or_else(|why| panic!("{user:?}: {why}"));
    }
}

#[test]
fn without_control_groups_programs_die_with_their_master_too() {
    let once = || {
        let server = server("subreaper", &["--orphans", "die"]);
        let clients: Vec<_> = (0..10).map(|_| Client::of(&server)).collect();
        clients.iter().for_each(|client| client.have(&["deaf"]));
        let all = clients.iter().map(|client| Process::of(child_of(&server, &client.0)));
        let all = Processes(all.collect());
        let began = Instant::now();
        server.signal(Signal::KILL);
        until("nobody is left", || (all.alive() == 0).then_some(()));
        let took = began.elapsed();
        clients.iter().for_each(Client::end);
        within("they went late", took, SOON)
    };
    in_time(once).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn a_guardian_that_is_killed_is_replaced() {
    if left_out_without_root("control groups") {
        return;
    }
    let server = server("cgroup", &["--orphans", "die"]);
    let [first] = children(server.pid())[..] else { panic!("no guardian: {:?}", children(server.pid())) };
    support::send(first, Signal::KILL);
    until("there is another", || {
        server.status();
        matches!(children(server.pid())[..], [other] if other != first).then_some(())
    });
    let client = Client::of(&server);
    let mut all = client.daemons(3);
    all.0.push(Process::of(child_of(&server, &client.0)));
    server.signal(Signal::KILL);
    until("nobody is left", || (all.alive() == 0).then_some(()));
    client.end();
}

#[test]
fn a_guardian_of_a_server_that_ends_in_order_does_nothing() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--orphans", "die", "--", "cat"]);
    echo_line(server.addr(0), "before").unwrap();
    assert!(server.stop().success());
    let odd: Vec<_> =
        server.log().lines().filter(|line| line.starts_with("odd ")).map(str::to_owned).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn a_master_that_is_killed_leaves_a_thousand_programs_that_finish_and_no_trace_of_itself() {
    const CLIENTS: usize = 1000;
    many_descriptors();
    let most = (CLIENTS + 100).to_string();
    let limits = ["-c", &most, "-C", &most, "--reserve", "0"];
    let start = |address: &str| Server::tine(&[&[address, "-v"], &limits[..], &["--", "cat"]].concat());
    let first = start("127.0.0.1:0");
    let clients = crowd(&first, CLIENTS);
    let group = support::is_root().then(|| group_of(child_of(&first, &clients[0])));
    first.signal(Signal::KILL);
    first.wait();

    let second = start(&again(&first));
    echo_line(second.addr(0), "the second serves").unwrap();
    assert!(group.as_ref().is_none_or(|group| members(group).len() == CLIENTS), "they are left alone");
    for client in &clients {
        converse(client, "and after\n");
        client.finish().unwrap();
        assert_eq!(client.rest().expect("an end, and no reset"), b"");
    }
    let stays = Stream::connect(second.addr(0)).unwrap();
    converse(&stays, "to the second\n");
    if let Some(group) = &group {
        let events = group.join("cgroup.events");
        let empty = || fs::read_to_string(&events).is_ok_and(|events| events.contains("populated 0\n"));
        until("they have ended", || empty().then_some(()));
        let others = group_of(child_of(&second, &stays));
        let third = Server::tine(&["127.0.0.1:0", "-v", "--", "cat"]);
        assert!(!group.exists(), "the third has not cleared away what the first left");
        assert!(others.exists(), "the second is still there");
        assert!(third.stop().success());
    }
    converse(&stays, "to the second again\n");
    drop(stays);
    assert!(second.stop().success());
}

#[test]
fn numbers_that_others_have_by_now_get_no_signal() {
    if left_out_without_root("a pid namespace") {
        return;
    }
    need("strace", "strace");
    thread::scope(|scope| {
        for kind in kinds() {
            scope.spawn(|| decoys(kind));
        }
    });
}

/// How many clients come and go among the decoys.
const VISITORS: usize = 120;

fn decoys(kind: &str) {
    let folder = Folder::new();
    let (trace, stop) = (folder.file("trace"), folder.file("stop"));
    // An address that nobody else has, for others than the server hold what it tells its port on.
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let address = format!("tcp://127.{high}.{low}.{}:7007", kind.len());
    let options = [&[&address, "-v", "--trees", kind, "--idle-timeout", "10s"], &STEPS[..]].concat();
    let args = [&options[..], &PUPPET].concat();
    let serve = tine_command(&args);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount", "--mount-proc", "--kill-child", "perl"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/decoys.pl")).arg(&stop);
    command.args(["strace", "-D", "-qq", "-ttt", "-e", "trace=kill,tkill,tgkill,pidfd_send_signal", "-o"]);
    command.arg(&trace).arg(serve.get_program()).args(serve.get_args());
    let server = Server::start(command, Ready::Bound(vec![address.clone()]));

    // Time enough for those who do something, so those who do nothing wait for it side by side.
    let idle = |number: &usize| number % 6 == 3;
    let visit = |number: usize| {
        let client = Client::of(&server);
        match number % 6 {
            _ if idle(&number) => client.end(),
            0 => {
                client.have(&["deaf"]);
                client.reset(); // heard of by the program, at once
            }
            1 => {
                client.have(&["deaf"]);
                client.order("sleep");
                client.reset(); // and this one is not
            }
            2 => {
                client.order("daemons 2");
                client.line();
                client.order("exit 0");
            }
            _ => {
                client.order("exit 0");
                client.end();
            }
        }
    };
    let visit = &visit;
    thread::scope(|scope| {
        for number in (0..VISITORS).filter(idle) {
            scope.spawn(move || visit(number));
        }
        for first in 0..3 {
            let busy = (first..VISITORS).step_by(3).filter(|number| !idle(number));
            scope.spawn(move || busy.for_each(visit));
        }
    });
    fs::write(&stop, "").unwrap();
    server.wait_log(|line| line == "server ended 0");
    server.wait_log(|line| line == format!("stop   served={VISITORS}"));

    let (log, mut children, mut taken) = (server.log(), HashSet::new(), 0);
    for line in log.lines() {
        if line.starts_with("accept ") {
            children.insert(number(line, "child"));
        } else if let Some(decoys) = line.strip_prefix("decoys ") {
            let decoys = decoys.split(' ').map(|decoy| decoy.parse().expect("a number"));
            taken += decoys.filter(|decoy| children.contains(decoy)).count();
        }
        assert!(!line.starts_with("hit "), "{kind}: {line}");
        assert!(!line.starts_with("odd "), "{kind}: {line}");
    }
    assert!(taken > 100, "{kind}: decoys had a number that a child had had {taken} times only");
    for call in ["kill", "tkill", "tgkill"] {
        let calls = calls(&trace, call);
        assert!(calls.is_empty(), "{kind}: {calls:?}");
    }
    let sent = calls(&trace, "pidfd_send_signal").len();
    eprintln!("{kind}: {taken} decoys with numbers of children, {sent} signals");
    assert!(sent > 30, "{kind}: {sent} signals");
}

#[test]
fn without_control_groups_the_log_says_why_and_daemons_are_killed_all_the_same() {
    if left_out_without_root("to give up being root") {
        return;
    }
    let folder = Folder::new();
    let tine = folder.copy(binary("tine"), "tine");
    let script = folder.copy(PUPPET[2], "puppet.pl");
    let as_nobody = |args: &[&str]| {
        let serve = tine_command(args);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &tine]).args(serve.get_args());
        command.current_dir("/");
        command
    };
    let program = ["--", "perl", &script];
    let args = [&["127.0.0.1:0", "-v", "--idle-timeout", "7s"], &KILLED[..], &program].concat();
    let server = Server::start(as_nobody(&args), Ready::Ports(listeners_among(&args)));
    server.wait_log(|line| line.starts_with("listen "));
    let log = server.log();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].starts_with("trees  by=subreaper reason=\"make "), "{log}");
    assert!(lines[0].ends_with(": Permission denied\""), "{log}");
    assert_eq!((&lines[1][..7], value(lines[1], "trees")), ("listen ", Some("subreaper")), "{log}");
    let client = Client::of(&server);
    let daemons = client.daemons(10);
    client.end();
    all_gone(&server, "nobody's", &daemons);
    assert!(server.stop().success());

    let mut refuses = as_nobody(&["127.0.0.1:0", "--trees", "cgroup", "--", "cat"]);
    let output = fed(&mut refuses, b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(111), "{said}");
    assert!(said.starts_with("tine: ") && said.contains(": Permission denied; --trees auto "), "{said}");
}

#[test]
fn with_control_groups_the_log_says_so() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "cat"]);
    let expected = if support::is_root() { "cgroup" } else { "subreaper" };
    let listen = server.wait_log(|line| line.starts_with("listen "));
    assert_eq!(value(&listen, "trees"), Some(expected));
    assert_eq!(count(&server, |line| line.starts_with("trees ")), usize::from(!support::is_root()));
    assert!(server.stop().success());
}
