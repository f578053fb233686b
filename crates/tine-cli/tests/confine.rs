//! Confinement as an operator meets it: what is in force, what is told when it cannot be, and the templates that children are born
//! from. What a program can get out by is in `escape.rs` and `escape_confined.rs`.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, kill_process};
use support::{Folder, count, left_out_without_root, need, send, value};
use tine_os::pass;
use tine_testkit::procfs::{self, inits, is_called};
use tine_testkit::server::until;
use tine_testkit::{Baseline, Server, Signal, Stream, ask, children, churn, descendants, templates};

/// The processes below a server that have this name.
fn below(server: u32, name: &str) -> Vec<u32> {
    descendants(server).into_iter().filter(|pid| is_called(*pid, name)).collect()
}

/// Waits for the end of many children, and of the namespaces that nobody needs any more: to look at all of them takes a busy machine
/// longer than a server has to become quiet.
fn all_have_gone(server: &Server) {
    until("all have gone", || {
        (children(server.pid()).is_empty() && inits(server.pid()).len() <= 1).then_some(())
    });
}

/// What a program prints of itself.
fn told(server: &Server) -> String {
    String::from_utf8(ask(server.addr(0), b"").expect("an answer")).expect("text")
}

#[test]
fn programs_are_guarded_unless_something_else_is_asked_for() {
    let status = ["--", "grep", "-E", "^(NoNewPrivs|Seccomp|CapEff):", "/proc/self/status"];
    for (options, wanted) in [
        (&[][..], "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"),
        (&["--confine", "guarded"], "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"),
        (&["--confine", "sealed"], "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"),
    ] {
        let server = Server::tine(&[&["127.0.0.1:0"], options, &status].concat());
        assert_eq!(told(&server), wanted, "{options:?}");
        let name = options.last().unwrap_or(&"guarded");
        server.wait_log(|line| line.starts_with("listen ") && value(line, "confine") == Some(name));
        assert!(server.stop().success());
    }
    let server = Server::tine(&[&["127.0.0.1:0", "--confine", "none"][..], &status].concat());
    assert!(told(&server).ends_with("NoNewPrivs:\t0\nSeccomp:\t0\n"));
}

#[test]
fn a_template_that_is_killed_is_replaced_and_nobody_who_comes_after_notices() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "cat"]);
    let baseline = Baseline::of(&server).by_kind();
    let mut long = Stream::connect(server.addr(0)).unwrap();
    // Until it is a program its child is called as the template is.
    long.write_all(b"x").unwrap();
    long.read_exact(&mut [0]).unwrap();
    for round in 1..=5 {
        let before = templates(server.pid());
        assert_eq!(before.len(), 1, "one template: {before:?}");
        send(before[0], Signal::KILL);
        // Its master has waited for it: so it knows.
        let entry = format!("/proc/{}", before[0]);
        until("it was noticed", || (!std::path::Path::new(&entry).exists()).then_some(()));
        assert_eq!(ask(server.addr(0), b"hello\n").unwrap(), b"hello\n", "round {round}");
        until("there is another", || (templates(server.pid()) != before).then_some(()));
    }
    server.wait_log(|line| line.contains("keep a template (another takes its place)"));
    drop(long);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn templates_that_are_killed_under_load_cost_at_most_the_client_in_their_hands() {
    const CLIENTS: u64 = 2_000;
    const KILLS: usize = 10;
    let server = Server::tine(&["127.0.0.1:0", "-c", "64", "-C", "64", "--", "cat"]);
    let baseline = Baseline::of(&server).by_kind();
    let churned = std::thread::scope(|scope| {
        let load = scope.spawn(|| churn(&[server.addr(0)], CLIENTS, 4));
        for _ in 0..KILLS {
            let before = server.status().served;
            // A child that is no program yet is called so too, and may have ended since: then it is another one.
            until("a template is killed", || {
                let victim = Pid::from_raw(*templates(server.pid()).first()? as i32)?;
                kill_process(victim, Signal::KILL).ok()
            });
            // So many are served by the next one, unless all have been.
            until("it goes on", || {
                let served = server.status().served;
                (served > before + 20 || load.is_finished()).then_some(())
            });
        }
        load.join().expect("the load ends")
    });
    assert!(churned.replies_ok + KILLS as u64 >= CLIENTS, "{churned:?}");
    all_have_gone(&server);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_template_that_was_stopped_is_replaced_and_others_are_served() {
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "cat"]);
    assert_eq!(ask(server.addr(0), b"hello\n").unwrap(), b"hello\n");
    let stopped = templates(server.pid())[0];
    send(stopped, Signal::STOP);
    // Nobody knows whether it has given birth to this one's child.
    let _ = ask(server.addr(0), b"lost\n");
    server.wait_log(|line| line.contains("hear from a template (another takes its place)"));
    assert_eq!(ask(server.addr(0), b"hello\n").unwrap(), b"hello\n");
    until("it is gone", || (!templates(server.pid()).contains(&stopped)).then_some(()));
    assert!(server.stop().success());
}

#[test]
fn more_births_at_once_than_a_template_has_room_for_are_no_reason_to_pause() {
    const MANY: usize = 360; // of 400, for a tenth of the slots is kept for other networks
    let server = Server::tine(&["127.0.0.1:0", "-c", "400", "-C", "1000", "--", "cat"]);
    let baseline = Baseline::of(&server);
    let template = templates(server.pid())[0];
    let come = || -> Vec<Stream> { (0..MANY).map(|_| Stream::connect(server.addr(0)).unwrap()).collect() };
    let first = come();
    until("all slots are taken", || (server.status().open == MANY as u64).then_some(()));
    let mut second = come();
    until("as many wait", || (server.status().waiting() == MANY as u64).then_some(()));
    // It hears of all ends in the same turn, and has one more child to ask for for each.
    server.signal(Signal::STOP);
    drop(first);
    until("all have ended", || (procfs::zombies(server.pid()).len() == MANY).then_some(()));
    send(template, Signal::STOP);
    server.signal(Signal::CONT);
    until("it waits for the template", || {
        let sleeps = procfs::stat(server.pid())?.state == 'S';
        (sleeps && procfs::zombies(server.pid()).len() < MANY).then_some(())
    });
    send(template, Signal::CONT);
    for client in &mut second {
        client.write_all(b"hello\n").unwrap();
        client.finish().unwrap();
        assert_eq!(client.rest().unwrap(), b"hello\n");
    }
    assert!(!server.log().contains("pause "), "{}", server.log());
    all_have_gone(&server);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn the_status_of_a_sealed_program_is_its_own_though_an_init_is_before_it() {
    if left_out_without_root("programs with users of their own") {
        return;
    }
    let server = Server::tine(&[
        "127.0.0.1:0",
        "-v",
        "--confine",
        "sealed",
        "--",
        "sh",
        "-c",
        "read what; eval \"$what\"",
    ]);
    let baseline = Baseline::with(&server, {
        let address = server.addr(0).to_owned();
        move || ask(&address, b"exit 0\n").map(drop)
    });
    for (what, wanted) in [
        ("exit 7", " exit=7 "),
        ("exit 137", " exit=137 "),
        ("kill -TERM $$", " signal=15 "),
        ("kill -SEGV $$", " signal=11 "),
        ("test $$ -gt 1 && test $PPID = 0 && exit 42", " exit=42 "),
        // An orphan may finish, and its program's status is kept meanwhile.
        ("(sleep 0.1; echo late) & exit 9", " exit=9 "),
    ] {
        // An orphan has two seconds, and on a busy machine may not have begun by then: another one has.
        let (late, tries) = if what.contains("late") { (&b"late\n"[..], 5) } else { (&b""[..], 1) };
        let mut answers = (0..tries).map(|_| ask(server.addr(0), format!("{what}\n").as_bytes()).unwrap());
        assert!(answers.any(|answer| answer == late), "{what}\n{}", server.log());
        server.wait_log(|line| line.starts_with("end ") && line.contains(wanted));
    }
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn sealed_programs_of_root_have_a_user_each_and_a_tmp_and_see_nobody() {
    if left_out_without_root("programs with users of their own") {
        return;
    }
    let script = "id -u; ls /tmp; touch /tmp/here; ls -d /proc/[0-9]* | wc -l; cat";
    let server = Server::tine(&["127.0.0.1:0", "-v", "--confine", "sealed", "--", "sh", "-c", script]);
    let clients: Vec<_> = (0..5).map(|_| Stream::connect(server.addr(0)).unwrap()).collect();
    let mut users = BTreeSet::new();
    for client in &clients {
        let mut lines = String::new();
        let mut byte = [0];
        while lines.matches('\n').count() < 2 {
            std::io::Read::read_exact(&mut &*client, &mut byte).unwrap();
            lines.push(byte[0].into());
        }
        let mut lines = lines.lines();
        let user: u32 = lines.next().unwrap().parse().unwrap();
        assert!(user >= 0x7000_0000, "{user}");
        assert!(users.insert(user), "{user} twice");
        // Its init, its shell, and those that count: nobody else's file was in /tmp, or there would be a name here.
        assert!(lines.next().unwrap().trim().parse::<u32>().unwrap() <= 5);
    }
    drop(clients);
    assert!(server.stop().success());
}

#[test]
fn two_thousand_sealed_clients_leave_nothing_behind() {
    const CLIENTS: u64 = 2_000;
    if left_out_without_root("programs with users of their own") {
        return;
    }
    for spares in [&[][..], &["--spare=2:8"]] {
        let sealed = ["127.0.0.1:0", "-c", "64", "-C", "64", "--confine", "sealed"];
        let server = Server::tine(&[&sealed, spares, &["--", "cat"]].concat());
        let baseline = spares.is_empty().then(|| Baseline::of(&server).by_kind());
        let churned = churn(&[server.addr(0)], CLIENTS, 4);
        assert_eq!((churned.replies_ok, churned.errors.len()), (CLIENTS, 0), "{churned:?}");
        if let Some(baseline) = baseline {
            all_have_gone(&server);
            server.quiescent(&baseline);
        }
        assert!(server.stop().success());
    }
}

#[test]
fn later_clients_have_the_limits_and_signals_that_the_first_had() {
    for confine in ["none", "guarded", "sealed"] {
        let script = "ulimit -a; grep ^Sig[BI] /proc/self/status";
        let server = Server::tine(&["127.0.0.1:0", "--confine", confine, "--", "sh", "-c", script]);
        let all: BTreeSet<_> = (0..4).map(|_| ask(server.addr(0), b"").unwrap()).collect();
        assert_eq!(
            all.len(),
            1,
            "{confine}: {:?}",
            all.iter().map(|one| String::from_utf8_lossy(one)).collect::<Vec<_>>()
        );
        assert!(server.stop().success());
    }
}

#[test]
fn a_namespace_is_used_again_when_nobody_is_left_in_it_and_no_sooner() {
    if left_out_without_root("programs with users of their own") {
        return;
    }
    let script = "read what; eval \"$what\"";
    let server = Server::tine(&["127.0.0.1:0", "-v", "--confine", "sealed", "--", "sh", "-c", script]);
    let say = |what: &str| {
        let answer = ask(server.addr(0), format!("{what}\n").as_bytes()).unwrap();
        String::from_utf8(answer).unwrap().trim().to_owned()
    };
    let number = |what: &str| say(what).parse::<u32>().unwrap();
    // Numbers go on where the client before has had the same namespace.
    let first = number("echo $$");
    until("it is used again", || (number("echo $$") > first).then_some(()));
    // Whoever stays behind is seen by nobody who comes after, and is where no other client is.
    say("setsid sleep 1000 >/dev/null 2>&1 </dev/null &");
    for _ in 0..3 {
        let seen = say("cat /proc/[0-9]*/comm");
        assert!(seen.contains("sh") && !seen.contains("sleep"), "{seen}");
    }
    server.wait_log(|line| line.starts_with("end "));
    until("whoever has stayed is ended", || below(server.pid(), "sleep").is_empty().then_some(()));
    assert!(server.stop().success());
}

#[test]
fn a_network_of_a_clients_own_is_used_again_and_nothing_can_be_sent_in_it() {
    if left_out_without_root("programs with users of their own") {
        return;
    }
    let script = "read what; eval \"$what\"";
    let own = ["127.0.0.1:0", "--confine", "sealed", "--own", "pid,mount,net"];
    let server = Server::tine(&[&own, &["--", "sh", "-c", script][..]].concat());
    let say = |what: &str| {
        let answer = ask(server.addr(0), format!("{what}\n").as_bytes()).unwrap();
        String::from_utf8(answer).unwrap().trim().to_owned()
    };
    let network = || say("readlink /proc/self/ns/net");
    let first = network();
    assert_ne!(first, std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
    until("one is used again", || (network() == network()).then_some(()));
    // As long as somebody is in it, nobody else is.
    let mut stays = Stream::connect(server.addr(0)).unwrap();
    stays.write_all(b"readlink /proc/self/ns/net; read end\n").unwrap();
    let mut his = [0; 64];
    let length = stays.read(&mut his).unwrap();
    let his = String::from_utf8_lossy(&his[..length]).trim().to_owned();
    assert!((0..4).all(|_| network() != his), "{his}");
    drop(stays);
    let tries = "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0) or print $!'";
    assert_eq!(say(tries), "Address family not supported by protocol");
    assert!(server.stop().success());
}

/// Tells which network it is in, and passes a socket of that to its client when that is wanted.
const LEAKS: &str = r#"
import os, socket
client = socket.socket(fileno=0)
if client.recv(1) == b"L":
    own = socket.socket(socket.AF_UNIX)
    socket.send_fds(client, [os.readlink("/proc/self/ns/net").encode()], [own.fileno()])
else:
    client.send(os.readlink("/proc/self/ns/net").encode())
"#;

#[test]
fn a_network_that_somebody_outside_has_a_socket_of_is_no_other_clients() {
    if left_out_without_root("programs with users of their own") {
        return;
    }
    need("python3", "python3");
    let folder = Folder::new();
    let listener = format!("unix:{}", folder.text("socket"));
    let own = [&*listener, "--confine", "sealed", "--own", "pid,mount,net", "--connect", "unix"];
    let server = Server::tine(&[&own, &["--", "/usr/bin/python3", "-c", LEAKS][..]].concat());
    let network = || String::from_utf8(ask(server.addr(0), b"-").unwrap()).unwrap();
    let mut stays = Vec::new();
    let mut leak = || {
        let client = UnixStream::connect(folder.file("socket")).unwrap();
        (&client).write_all(b"L").unwrap();
        let (mut words, mut fds) = ([0; 64], Vec::new());
        let length = pass::await_one(&client, &mut words, &mut fds).unwrap();
        assert_eq!(fds.len(), 1, "a socket came with it");
        stays.append(&mut fds);
        String::from_utf8_lossy(&words[..length]).into_owned()
    };
    until("one is used again", || (network() == network()).then_some(()));
    let leaked = BTreeSet::from([0; 4].map(|_| leak()));
    assert_eq!(leaked.len(), 4, "nobody is where somebody has left a socket: {leaked:?}");
    for _ in 0..8 {
        let network = network();
        assert!(!leaked.contains(&network), "{network}, of {leaked:?}");
    }
    assert!(server.stop().success());
}

#[test]
fn where_a_program_could_leave_its_control_group_no_namespace_is_used_again() {
    if left_out_without_root("control groups") {
        return;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 mount");
    let point = line.split(' ').nth(4).unwrap();
    let sealed = ["127.0.0.1:0", "-v", "--confine", "sealed"];
    let script = ["--", "sh", "-c", "echo $$"];
    let numbers = |flags: &[&str]| {
        let server = Server::tine(&[&sealed, flags, &script].concat());
        let numbers: Vec<_> = (0..4).map(|_| ask(server.addr(0), b"").unwrap()).collect();
        assert!(server.stop().success());
        numbers.into_iter().map(|text| String::from_utf8(text).unwrap().trim().to_owned()).collect::<Vec<_>>()
    };
    let numbers = numbers(&["--bind", &format!("{point}:/groups:rw")]);
    // The first process is 1, whoever has tried the first namespace out is 2.
    assert!(numbers.iter().all(|number| number == "2" || number == "3"), "{numbers:?}");
}

#[test]
fn the_first_process_of_a_namespace_that_is_killed_takes_its_client_with_it_and_no_other() {
    if left_out_without_root("programs with users of their own") {
        return;
    }
    let server = Server::tine(&["127.0.0.1:0", "-v", "--confine", "sealed", "--", "cat"]);
    let mut clients: Vec<_> = (0..3).map(|_| Stream::connect(server.addr(0)).unwrap()).collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    let inits = inits(server.pid());
    assert!(inits.len() >= clients.len(), "{inits:?}");
    // There may be one that waits for a client, or goes because none has come.
    let namespace = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).expect("it lives");
    let of_clients: BTreeSet<_> = children(server.pid()).iter().map(namespace).collect();
    let with_client = |init: &&u32| {
        std::fs::read_link(format!("/proc/{init}/ns/pid")).is_ok_and(|own| of_clients.contains(&own))
    };
    send(*inits.iter().find(with_client).expect("clients have one each"), Signal::KILL);
    server.wait_log(|line| line.starts_with("end ") && line.contains(" signal=9 "));
    let mut alive = 0;
    for client in &mut clients {
        let said = client.write_all(b"y").and_then(|()| client.read_exact(&mut [0]));
        alive += usize::from(said.is_ok());
    }
    assert_eq!(alive, 2, "one is gone, and no other");
    drop(clients);
    assert_eq!(ask(server.addr(0), b"hello\n").unwrap(), b"hello\n");
    assert!(server.stop().success());
}

#[test]
fn a_program_that_may_not_be_read_by_its_user_is_told_with_its_step() {
    if left_out_without_root("programs with users of their own") {
        return;
    }
    let folder = support::Folder::outside_tmp();
    let program = folder.program("program", "#!/bin/sh\nexec cat\n");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let server = Server::tine(&["127.0.0.1:0", "--confine", "sealed", "--", &program]);
    assert_eq!(ask(server.addr(0), b"").unwrap(), b"");
    let line = server.wait_log(|line| line.contains(" setup="));
    assert_eq!((value(&line, "setup"), value(&line, "error")), (Some("exec"), Some("Permission denied")));
    assert_eq!(count(&server, |line| line.contains(" setup=")), 1);
    assert!(server.stop().success());
}
