//! Whatever a handler does stays with its client: it becomes an outcome, and nobody else notices.

#![forbid(unsafe_code)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use tine_testkit::server::until;
use tine_testkit::{Baseline, Ready, Server, Stream, ask, children, echo_line, example, procfs, transfer};

const TCP: &str = "tcp://127.0.0.1:0";

/// A client asks its handler to `what`; another is connected all the time. Gives all that the first was told, and how
/// its child ended, after making sure that nothing else has changed.
fn misdeed(what: &str) -> (String, String, Server) {
    let server = Server::example("misbehave", &[TCP]);
    let baseline = Baseline::of(&server);
    let mut other = Client::served(server.addr(0));
    let failed = server.status().failed;

    let mut client = Client::connect(server.addr(0));
    client.say(&format!("do {what}\n")).expect("a line");
    // To the end: the child's, or else of what it said before it was reset.
    let (mut told, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = client.stream.read(&mut chunk) {
        told.extend_from_slice(&chunk[..length]);
    }
    let how = end_of(&server, client.child(&server));
    drop(client);

    other.talk().expect("an echo for the client that did nothing");
    let status = server.status();
    assert_eq!((status.open, status.failed - failed), (1, u64::from(how != "exit=0")));
    other.leave().expect("the end");
    server.quiescent(&baseline);
    (String::from_utf8_lossy(&told).into_owned(), how, server)
}

/// The same, of a handler that is never heard of again, and the end that is left of it.
fn fatal(what: &str, how: &str) -> Server {
    let (told, ended, server) = misdeed(what);
    assert_eq!((told.as_str(), ended.as_str()), ("", how), "{what}");
    server
}

#[test]
fn an_error_is_printed_and_is_exit_status_1() {
    fatal("return an error", "exit=1").wait_log(|line| line.contains("as asked"));
}

#[test]
fn a_panic_is_printed_and_is_exit_status_101() {
    fatal("panic", "exit=101").wait_log(|line| line == "as asked");
}

#[test]
fn a_panic_whose_payload_panics_when_it_is_dropped_is_exit_status_101() {
    fatal("panic with a bomb", "exit=101");
}

#[test]
fn a_panic_while_panicking_aborts_the_child_only() {
    fatal("panic twice", "signal=6");
}

#[test]
fn a_panic_with_a_lock_held_ends_the_child_only() {
    fatal("panic with a lock", "exit=101");
}

#[test]
fn a_panic_in_a_thread_is_for_the_handler_to_see() {
    let (told, how, _) = misdeed("panic in a thread");
    assert_eq!((told.as_str(), how.as_str()), ("it panicked\n", "exit=0"));
}

#[test]
fn an_abort_ends_the_child_only() {
    fatal("abort", "signal=6");
}

#[test]
fn a_stack_overflow_ends_the_child_only() {
    fatal("overflow the stack", "signal=11");
}

#[test]
fn an_exit_in_a_handler_is_its_childs_exit_status() {
    fatal("exit 7", "exit=7");
}

#[test]
fn threads_that_a_handler_leaves_running_end_with_it() {
    let (told, how, _) = misdeed("leak threads");
    assert_eq!((told.as_str(), how.as_str()), ("leaked\n", "exit=0"));
}

#[test]
fn a_child_that_closes_every_descriptor_harms_nobody() {
    let (told, how, _) = misdeed("close every descriptor");
    assert_eq!((told.as_str(), how.as_str()), ("closing\n", "exit=9"));
}

#[test]
fn a_handler_that_kills_its_process_group_kills_nobody_else() {
    fatal("kill the group", "signal=9");
}

#[test]
fn writing_to_a_client_that_has_gone_is_an_error_and_no_signal() {
    let server = Server::example("misbehave", &[TCP]);
    let baseline = Baseline::of(&server);
    let mut other = Client::served(server.addr(0));
    let mut client = Client::connect(server.addr(0));
    client.say("do write to nobody\n").expect("a line");
    let child = client.child(&server);
    drop(client);
    assert_eq!(end_of(&server, child), "exit=0");
    server.wait_log(|line| line == "writing failed: BrokenPipe");
    other.talk().expect("an echo");
    other.leave().expect("the end");
    server.quiescent(&baseline);
}

#[test]
fn a_client_sees_the_end_though_grandchildren_hold_its_connection() {
    let (told, how, _) = misdeed("leave grandchildren");
    assert_eq!(how, "exit=0");
    let left: Vec<u32> = told.lines().map(|line| line.parse().expect("a pid")).collect();
    assert_eq!(left.len(), 3, "{told}");
    left.into_iter().for_each(wait_gone);
}

#[test]
fn a_child_has_four_descriptors_and_reaches_no_other() {
    let (told, how, _) = misdeed("list descriptors");
    assert_eq!(how, "exit=0");
    // 3 is a socket, which open(2) never opens again; 0 to 2 are the log and /dev/null.
    assert!(told.starts_with("open [0, 1, 2, 3], opened again [0, 1, 2"), "{told}");
    let again = told.rsplit_once('[').expect("a list").1.trim_end().trim_end_matches(']');
    // The folder's own descriptor has taken the lowest number that was free, each time.
    assert!(again.split(", ").all(|number| ["0", "1", "2"].contains(&number)), "{told}");
}

#[test]
fn each_child_prepares_once_and_before_it_looks_at_its_client() {
    let folder = Folder::new();
    let file = folder.at("prepared");
    fs::write(&file, "").unwrap();
    let server = Server::example("misbehave", &[&format!("prepare={file}"), TCP]);
    let mut children = Vec::new();
    for _ in 0..20 {
        let client = Client::connect(server.addr(0)); // and says nothing
        let child = client.child(&server);
        until("the child has prepared", || {
            fs::read_to_string(&file).unwrap().lines().any(|line| line == child.to_string()).then_some(())
        });
        client.leave().expect("the end");
        children.push(child.to_string());
    }
    let prepared = fs::read_to_string(&file).unwrap();
    assert_eq!(prepared.lines().collect::<Vec<_>>(), children, "each once, and the master never");
}

#[test]
fn a_child_that_cannot_prepare_ends_with_status_1_and_its_client_sees_the_end() {
    let folder = Folder::new();
    let file = folder.at("prepared");
    let server = Server::example("misbehave", &[&format!("prepare={file}"), TCP]);
    let mut client = Client::connect(server.addr(0));
    assert_eq!(end_of(&server, client.child(&server)), "exit=1");
    client.expect_gone();
    server.wait_log(|line| line.starts_with("Error: ") && line.contains("No such file"));

    fs::write(&file, "").unwrap();
    echo_line(server.addr(0), "the next one can").expect("an echo");
}

#[test]
fn what_a_master_holds_happens_once_however_a_thousand_children_end() {
    const CHILDREN: usize = 1_000;
    let folder = Folder::new();
    let address = format!("unix:{}", folder.at("socket"));
    // Standard output goes to a file, so that every byte of it can be seen.
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$0" "$@" >"${1#folder=}/out""#]).arg(example("tine", "shared"));
    command.args([&format!("folder={}", folder.path().display()), "quiet", "ready=no", &address]);
    command.env("RUST_BACKTRACE", "0"); // some hundred of them take a while
    let server = Server::start(command, Ready::Bound(vec![address.clone()]));
    for ending in ["return\n", "panic\n", "exit\n"].iter().cycle().take(CHILDREN) {
        let answer = ask(&address, ending.as_bytes()).expect("an answer");
        assert_eq!(answer, b"all is there\n");
    }
    until("the last has gone", || (server.status().served == CHILDREN as u64).then_some(()));
    let exits = CHILDREN / 3;
    assert_eq!(server.status().failed as usize, 2 * exits);
    let read = |name: &str| fs::read_to_string(folder.at(name)).unwrap_or_default();
    assert_eq!(read("out"), "half a line;", "flushed before the first fork");
    assert_eq!((read("buffer"), read("note")), (String::new(), String::new()));
    assert!(folder.path().join("folder").is_dir(), "a child deleted the master's folder");

    assert!(server.stop().success());
    assert_eq!(read("out"), "half a line;the end\n");
    assert_eq!((read("buffer").as_str(), read("note").as_str()), ("buffered\n", "dropped\n"));
    assert!(!folder.path().join("folder").exists(), "the master's own end deletes it");
    // The one exception, which the documentation of the crate names: exit(3) begins with these.
    assert_eq!(read("thread").lines().count(), exits + 1, "destructors of a thread-local value");
    server.wait_log(|line| line.starts_with("stop ")); // the last line
    assert!(!server.log().contains("half a line"), "a child has written what the master said");
}

#[test]
fn ten_thousand_children_draw_different_random_numbers_where_the_book_says_so() {
    const CHILDREN: usize = 10_000;
    let name = format!("unix:@tine-test-{}-random", std::process::id());
    let server = Server::example("random", &["quiet", &name]);
    let mut drawn: [BTreeMap<String, usize>; 4] = Default::default();
    for _ in 0..CHILDREN {
        let line = String::from_utf8(ask(&name, b"").expect("an answer")).expect("hexadecimal");
        let numbers: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(numbers.len(), 4, "{line:?}");
        for (seen, number) in drawn.iter_mut().zip(numbers) {
            *seen.entry(number.to_owned()).or_default() += 1;
        }
    }
    let different = drawn.map(|seen| seen.len());
    // The kernel's, and what a hook has reseeded; then what nobody has, and the keys of maps, which the documentation
    // of the crate says are the same in all children.
    assert_eq!(different, [CHILDREN, CHILDREN, 1, 1]);
    assert!(server.stop().success());
}

#[test]
fn two_threads_use_both_directions_and_end_them_one_by_one() {
    for address in [TCP.to_owned(), format!("unix:@tine-test-{}-split", std::process::id())] {
        let server = Server::example("misbehave", &[&address]);
        let mut client = Client::connect(server.addr(0));
        client.say("do split\n").expect("a line");
        assert_eq!(client.line().expect("the writer's line"), "one way\n");
        assert_eq!(client.line().expect("the writer's end"), "", "while the reader still reads");
        client.stream.write_all(&[b'x'; 1 << 20]).expect("the other direction is open");
        client.stream.finish().expect("half-close");
        server.wait_log(|line| line == "the other way 1048576 bytes");
        server.wait_log(|line| line.starts_with("end ") && line.contains(" exit=0 "));
    }
}

/// What a child shares with its master is copied when the master writes to it: for each client again, and for good if the child
/// stays. Twelve pages without [`tine::Apart`].
#[test]
fn few_pages_of_the_master_are_copied_for_a_client() {
    // For a hundred clients, and some for what is not done for each of them.
    const PAGES_MOST: u64 = 8 * 100 + 50;
    let server = Server::example("misbehave", &["quiet", TCP]);
    let faults = || -> u64 {
        let stat = procfs::stat(server.pid()).expect("it lives");
        stat.fields[10 - 3].parse().expect("minflt of proc_pid_stat(5)")
    };
    let clients = |count: u64| (0..count).for_each(|_| echo_line(server.addr(0), "x").expect("an answer"));
    clients(20);
    // On a busy machine one client comes before the master has done with another: a few more then, and seldom.
    let mut all = Vec::new();
    while all.len() < 10 && all.last().is_none_or(|copied| *copied > PAGES_MOST) {
        let before = faults();
        clients(100);
        all.push(faults() - before);
    }
    assert!(all.last() <= Some(&PAGES_MOST), "{all:?} page faults for a hundred clients each");
    assert!(server.stop().success());
}

#[test]
fn a_handler_that_has_said_all_still_hears_its_client() {
    let server = Server::example("misbehave", &[TCP]);
    let mut client = Client::connect(server.addr(0));
    client.say("do shut down\n").expect("a line");
    assert_eq!(client.line().expect("a line"), "said all\n");
    assert_eq!(client.line().expect("the end of that direction"), "");
    client.say("and yet").expect("the other direction is open");
    client.stream.finish().expect("half-close");
    server.wait_log(|line| line == "heard 7 bytes after that");
    assert_eq!(end_of(&server, client.child(&server)), "exit=0");
}

#[test]
fn a_connection_becomes_a_stream_of_the_standard_librarys_of_its_own_family() {
    let name = format!("unix:@tine-test-{}-convert", std::process::id());
    let server = Server::example("misbehave", &[TCP, &name]);
    let told = ask(server.addr(0), b"do convert\n").expect("an answer");
    assert_eq!(String::from_utf8_lossy(&told), format!("tcp to {}\n", server.addr(0)));

    let mut client = Client::connect(server.addr(1));
    client.say("do convert\n").expect("a line");
    assert_eq!(client.line().expect("a line"), "unix\n");
    client.say("as ever").expect("the other direction is open");
    client.stream.finish().expect("half-close");
    server.wait_log(|line| line == "read \"as ever\" as std does");
}

#[test]
fn a_handler_knows_who_its_client_is() {
    let name = format!("@tine-test-{}-who", std::process::id());
    let server = Server::example("misbehave", &[TCP, &format!("unix:{name}")]);
    let (pid, uid, gid) =
        (std::process::id(), rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let told = String::from_utf8(ask(server.addr(1), b"do say who\n").expect("an answer")).unwrap();
    let local = format!("Abstract({:?})", &name.as_bytes()[1..]);
    assert_eq!(told, format!("unix:uid={uid},pid={pid} {local} Some(({pid}, {uid}, {gid}))\n"));

    let mut client = Client::connect(server.addr(0));
    client.say("do say who\n").expect("a line");
    let Stream::Tcp(stream) = &client.stream else { panic!("a TCP client") };
    let here = stream.local_addr().unwrap();
    let expected = format!("{here} Inet({}) None\n", server.addr(0));
    assert_eq!(client.line().expect("an answer"), expected);
}

#[test]
fn sixteen_mebibytes_go_both_ways_at_once_and_come_back_byte_for_byte() {
    let name = format!("unix:@tine-test-{}-bulk", std::process::id());
    let server = Server::example("echo", &[TCP, "tcp://[::1]:0", &name]);
    let baseline = Baseline::of(&server);
    for i in 0..3 {
        let stream = Stream::connect(server.addr(i)).expect("a connection");
        let done = transfer(&stream, 16 << 20).unwrap_or_else(|why| panic!("{}: {why}", server.addr(i)));
        assert_eq!((done.bytes, done.sent_digest), (16 << 20, done.received_digest));
    }
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn an_answer_after_the_clients_last_word_arrives_whole() {
    let server = Server::example("misbehave", &[TCP]);
    let lines: Vec<u8> = (0..100_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    let client = Stream::connect(server.addr(0)).expect("a connection");
    let reply = std::thread::scope(|scope| {
        scope.spawn(|| -> io::Result<()> {
            (&client).write_all(&lines)?;
            client.finish()
        });
        client.rest().expect("the whole answer")
    });
    assert!(reply == lines, "{} bytes of {}", reply.len(), lines.len());
}

/// The children of a server with this file to prepare with, when there are two spares that have all they need.
fn spares_of(file: &str) -> (Server, Vec<u32>) {
    let server = Server::example("misbehave", &["spares=2", &format!("prepare={file}"), TCP]);
    let spares = wait_children(&server, 2);
    (server, spares)
}

fn lines_of(file: &str) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_spare_has_prepared_before_its_client_comes_and_finds_what_it_has_opened() {
    let folder = Folder::new();
    let file = folder.at("prepared");
    fs::write(&file, "").unwrap();
    let (server, spares) = spares_of(&file);
    until("both have prepared, and nobody has come", || (lines_of(&file).len() == 2).then_some(()));
    let mut client = Client::connect(server.addr(0));
    let child = client.child(&server);
    assert!(spares.contains(&child), "{child} of {spares:?}");
    client.say("do use what was prepared\n").expect("a line");
    assert_eq!(client.line().expect("an answer"), "used\n");
    assert_eq!(end_of(&server, child), "exit=0");
    let lines = lines_of(&file);
    assert_eq!(lines.iter().filter(|line| **line == child.to_string()).count(), 1, "{lines:?}");
    assert!(lines.contains(&format!("{child} again")), "{lines:?}");

    let mut client = Client::connect(server.addr(0));
    client.say("do list descriptors\n").expect("a line");
    let told = client.line().expect("an answer");
    assert!(told.starts_with("open [0, 1, 2, 3, "), "{told}");
    assert!(server.stop().success());
}

#[test]
fn spares_that_cannot_prepare_are_made_more_and_more_seldom_and_clients_fare_as_without() {
    let folder = Folder::new();
    let file = folder.at("prepared");
    let begun = Instant::now();
    let server = Server::example("misbehave", &["spares=2", &format!("prepare={file}"), TCP]);
    let lost = |server: &Server| server.log().lines().filter(|line| line.starts_with("spare ")).count();
    until("four lots of two have died", || (lost(&server) > 6).then_some(()));
    // A hundred, two hundred and four hundred milliseconds are between the lots.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(700), "{took:?}");
    assert!(server.log().contains("Error: "), "{}", server.log());

    let mut client = Client::connect(server.addr(0));
    assert_eq!(end_of(&server, client.child(&server)), "exit=1");
    client.expect_gone();

    fs::write(&file, "").unwrap();
    echo_line(server.addr(0), "the next one can").expect("an echo");
    until("its child is no child any more", || (server.status().open == 0).then_some(()));
    let spares = wait_children(&server, 2);
    assert!(spares.contains(&Client::served(server.addr(0)).child(&server)));
    assert!(server.stop().success());
}

#[test]
fn spares_that_never_come_back_from_their_preparation_are_killed_when_they_are_too_old() {
    let folder = Folder::new();
    let file = folder.at("fifo");
    assert!(Command::new("mkfifo").arg(&file).status().expect("mkfifo can be run").success());
    let begun = Instant::now();
    let server = Server::example("misbehave", &["age=1", "spares=2", &format!("prepare={file}"), TCP]);
    let first = wait_children(&server, 2);
    let mut most = 0;
    until("all of the first are gone", || {
        let now = children(server.pid());
        most = most.max(now.len());
        now.iter().all(|pid| !first.contains(pid)).then_some(())
    });
    // Those who leave are killed after two seconds, and two are made each second: eight, or as many more as there was time for.
    let made = 2 * (1 + begun.elapsed().as_secs() as usize);
    assert!(most <= made, "{most} at once");
    assert!(!server.log().contains("spare "), "they were sent away: {}", server.log());
    assert!(server.stop().success());
}

#[test]
fn a_handler_of_a_confined_server_is_confined_and_so_is_one_that_has_waited() {
    for spares in [&[][..], &["spares=2"]] {
        let told = |profile: &str| {
            let confine = format!("confine={profile}");
            let server = Server::example("probe", &[spares, &[&confine, "127.0.0.1:0"]].concat());
            let text = String::from_utf8(ask(server.addr(0), b"").unwrap()).unwrap();
            assert!(server.stop().success());
            text
        };
        let has = |text: &str, line: &str| text.lines().any(|other| other == line);
        let none = told("none");
        assert!(has(&none, "no-new-privs 0") && has(&none, "seccomp 0"), "{none}");
        for profile in ["guarded", "sealed"] {
            let text = told(profile);
            assert!(has(&text, "no-new-privs 1") && has(&text, "seccomp 2"), "{text}");
            assert!(has(&text, "capabilities.eff 0000000000000000"), "{text}");
            let visible = if profile == "sealed" { "parent invisible" } else { "parent visible" };
            assert!(has(&text, visible), "{text}");
        }
    }
}
