//! Datagrams: a worker's death loses what was in its hand, and nothing else; nobody is answered who should not be.

#![forbid(unsafe_code)]

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::*;
use rustix::process::Signal;
use tine_os::socket::{IntOption, set_int};
use tine_testkit::server::until;
use tine_testkit::target::example;
use tine_testkit::{Baseline, Datagrams, Group, Pattern, Server, net};
use tine_testkit::{ask_datagram, children, grouped_datagrams, udp_drops};

const UDP: &str = "udp://127.0.0.1:0";

/// How long an answer that is expected may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many datagrams the log says were in the hand of a worker that died.
fn lost(server: &Server) -> usize {
    server.log().lines().filter(|line| line.starts_with("worker ") && line.ends_with(" lost=1")).count()
}

/// A client that is bound to an address of this machine.
fn client(at: impl std::net::ToSocketAddrs) -> UdpSocket {
    let socket = UdpSocket::bind(at).expect("a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    socket
}

/// Sends a datagram, and gives the answer and where it came from.
fn exchange(client: &UdpSocket, server: &str, question: &[u8]) -> (String, IpAddr) {
    client.send_to(question, server).expect("it can be sent");
    let mut answer = vec![0; 70_000];
    let (length, from) = client.recv_from(&mut answer).expect("an answer");
    (String::from_utf8_lossy(&answer[..length]).into_owned(), from.ip())
}

/// Whether nothing has come.
fn is_silent(client: &UdpSocket) -> bool {
    client.set_nonblocking(true).expect("a mode");
    let nothing = client.recv_from(&mut [0; 16]).is_err_and(|why| why.kind() == ErrorKind::WouldBlock);
    client.set_nonblocking(false).expect("a mode");
    nothing
}

/// Has the kernel cut the bytes into datagrams of this length.
fn at_once(socket: &UdpSocket, bytes: &[u8], size: usize) -> io::Result<()> {
    set_int(socket, IntOption::SEGMENT, if bytes.len() > size { size as i32 } else { 0 })?;
    socket.send(bytes).map(drop)
}

/// The same, and what comes back is waited for: where nothing is lost, whatever is missing is late.
fn at_once_and_patiently(socket: &UdpSocket, bytes: &[u8], size: usize) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    at_once(socket, bytes, size)
}

/// How long a load that loses some waits for the last answers: those that come later are missing.
const LAST: Duration = Duration::from_secs(4);

/// Has a load that `send` sends go on no faster than workers are killed, twenty in all, and wait for its last answers.
fn while_killing(
    total: u64,
    kills: &AtomicUsize,
    send: impl Fn(&UdpSocket, &[u8], usize) -> io::Result<()>,
) -> impl Fn(&UdpSocket, &[u8], usize) -> io::Result<()> {
    const KILLS: u64 = 20;
    let sent = Cell::new(0);
    move |socket, bytes, size| {
        sent.set(sent.get() + bytes.len().div_ceil(size) as u64);
        let due = (KILLS * sent.get()).div_ceil(total) as usize;
        until("workers are killed", || {
            (kills.load(Ordering::Relaxed) >= due.min(KILLS as usize)).then_some(())
        });
        if sent.get() >= total {
            socket.set_read_timeout(Some(LAST))?;
        }
        send(socket, bytes, size)
    }
}

/// What is sent by turns: alone, equally long, with a shorter last one, and as many as all kernels send at once.
const GROUPS: [Group; 8] = [
    Group { count: 64, size: 64, last: 64 },
    Group { count: 1, size: 900, last: 900 },
    Group { count: 7, size: 1000, last: 11 },
    Group { count: 1, size: 10, last: 10 },
    Group { count: 63, size: 10, last: 10 },
    Group { count: 2, size: 1472, last: 1471 },
    Group { count: 64, size: 100, last: 10 },
    Group { count: 3, size: 200, last: 200 },
];

/// The same, each alone.
const ALONE: [Group; 3] = [
    Group { count: 1, size: 16, last: 16 },
    Group { count: 1, size: 47, last: 47 },
    Group { count: 1, size: 79, last: 79 },
];

#[test]
fn datagrams_that_are_sent_at_once_and_alone_come_back_each_by_itself() {
    for (listen, host) in
        [("udp://127.0.0.1:0", "127.0.0.1"), ("udp://[::1]:0", "[::1]"), ("udp://:0", "127.0.0.1")]
    {
        for option in ["", "?gro=0"] {
            let server = Server::example("datagrams", &[&format!("{listen}{option}")]);
            let address = format!("{host}:{}", server.port(0));
            let load = grouped_datagrams(&address, 20_000, 64, &GROUPS, at_once_and_patiently);
            let load = load.expect("it can be sent");
            assert_eq!(udp_drops(server.port(0)) + load.own_drops, 0);
            let clean =
                Datagrams { sent: 20_000, received: 20_000, seconds: load.seconds, ..Default::default() };
            assert_eq!(load, clean, "{listen}{option}");
        }
    }
}

#[test]
fn replies_to_what_was_sent_at_once_are_judged_one_by_one() {
    let server = Server::example("datagrams", &[UDP]);
    let client = client("127.0.0.1:0");
    client.connect(server.addr(0)).expect("it can be");
    // Of nine bytes each; 83 are three times as many with headers.
    at_once(&client, b"reply 083reply 084reply 010reply 999reply 083", 9).expect("it can be sent");
    at_once(&client, b"and this", 8).expect("it can be sent");
    for expected in [83, 10, 83, 8] {
        assert_eq!(client.recv(&mut [0; 2048]).expect("an answer"), expected);
    }
    assert!(is_silent(&client));
}

/// Kills workers for as long as the load lasts; counts how many.
fn kill_under(server: &Server, workers: usize, loading: &AtomicBool, kills: &AtomicUsize) {
    let mut random = Pattern::new(3);
    while loading.load(Ordering::Relaxed) {
        let all = wait_children(server, workers);
        let victim = all[(random.next_u64() % workers as u64) as usize];
        let from = server.cursor();
        signal_child(server, victim, Signal::KILL);
        let replaced = format!("worker pid={victim} signal=9 ");
        server.wait_log_from(from, |line| line.starts_with(&replaced));
        kills.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn killed_workers_lose_one_datagram_each_of_those_that_were_sent_at_once() {
    const TOTAL: u64 = 100_000;
    for workers in [1, 2] {
        let server = Server::example("datagrams", &[&format!("workers={workers}"), UDP]);
        let baseline = Baseline::of(&server).by_kind();
        let (loading, kills) = (AtomicBool::new(true), AtomicUsize::new(0));
        let loads = thread::scope(|scope| {
            let killer = scope.spawn(|| kill_under(&server, workers, &loading, &kills));
            // Two peers, as two workers may both have work.
            let load = || {
                let send = while_killing(TOTAL, &kills, at_once);
                grouped_datagrams(server.addr(0), TOTAL, 64, &GROUPS, send)
            };
            let loads = [scope.spawn(load), scope.spawn(load)].map(|load| load.join());
            loading.store(false, Ordering::Relaxed);
            killer.join().expect("the killer does not panic");
            loads.map(|load| load.expect("no panic").expect("the load can be sent"))
        });
        let kills = kills.into_inner();
        let sum = |count: fn(&Datagrams) -> u64| loads.iter().map(count).sum::<u64>();
        assert_eq!((sum(|load| load.duplicates), sum(|load| load.strays)), (0, 0), "{loads:?}");
        let missing = sum(|load| load.missing.len() as u64);
        let (dropped, lost) = (udp_drops(server.port(0)) + sum(|load| load.own_drops), lost(&server) as u64);
        assert!(missing <= lost + dropped, "{missing} missing, {lost} lost in hand, {dropped} dropped");
        assert!(missing + kills as u64 >= lost, "{missing} missing, and {lost} are said to be");
        assert!(kills >= 20 && lost <= kills as u64, "{kills} kills, {lost} lost");
        assert!(sum(|load| load.received) > TOTAL * 2 * 9 / 10, "{loads:?}");
        server.quiescent(&baseline);
        assert!(server.stop().success());
    }
}

#[test]
fn each_worker_has_a_socket_whose_queue_outlives_it() {
    const WORKERS: usize = 3;
    let server = Server::example("datagrams", &["workers=3", UDP]);
    let mut workers = BTreeMap::<u32, Vec<UdpSocket>>::new();
    for _ in 0..100 {
        let client = client("127.0.0.1:0");
        let who = exchange(&client, server.addr(0), b"who").0;
        assert_eq!(exchange(&client, server.addr(0), b"who").0, who, "a peer stays with its worker");
        workers.entry(who.parse().expect("a pid")).or_default().push(client);
    }
    let pids: BTreeSet<u32> = wait_children(&server, WORKERS).into_iter().collect();
    assert_eq!(workers.keys().copied().collect::<BTreeSet<_>>(), pids, "all get work");
    let sockets = net::udp_sockets();
    let bound = sockets.iter().filter(|socket| socket.local.port() == server.port(0)).count();
    assert_eq!(bound, WORKERS, "one each, at one port");
    for (worker, clients) in &workers {
        signal_child(&server, *worker, Signal::STOP);
        wait_state(*worker, "T");
        for client in clients {
            client.send_to(b"who", server.addr(0)).expect("it can be sent");
        }
        let from = server.cursor();
        signal_child(&server, *worker, Signal::KILL);
        let (_, told) = server.wait_log_from(from, |line| line.starts_with("worker "));
        assert_eq!(told, format!("worker pid={worker} signal=9 lost=0"));
        let answers: BTreeSet<String> = clients
            .iter()
            .map(|client| {
                let mut answer = [0; 16];
                let length = client.recv(&mut answer).expect("an answer");
                String::from_utf8_lossy(&answer[..length]).into_owned()
            })
            .collect();
        assert_eq!(answers.len(), 1, "all of them by one worker");
        let successor: u32 = answers.first().expect("one").parse().expect("a pid");
        assert!(!pids.contains(&successor), "which is the dead one's successor");
    }
    assert!(server.stop().success());
}

#[test]
fn a_port_that_another_server_has_is_refused_however_many_workers_either_has() {
    for workers in ["workers=1", "workers=3"] {
        let first = Server::example("datagrams", &[workers, UDP]);
        let address = format!("udp://{}", first.addr(0));
        for others in ["workers=1", "workers=3"] {
            let second = Command::new(example("tine", "datagrams")).args([others, &address]).output();
            let second = second.expect("it can be run");
            assert!(!second.status.success());
            let said = String::from_utf8_lossy(&second.stderr);
            assert!(said.contains("Address already in use"), "{workers} {others}: {said}");
        }
        assert_eq!(exchange(&client("127.0.0.1:0"), first.addr(0), b"still here?").0, "still here?");
        assert!(first.stop().success());
    }
}

#[test]
fn workers_share_a_socket_that_cannot_be_bound_twice() {
    let folder = Folder::new();
    let server = Server::example("datagrams", &["workers=2", &format!("unixgram:{}", folder.at("socket"))]);
    let workers = wait_children(&server, 2);
    for worker in workers {
        signal_child(&server, worker, Signal::STOP);
        wait_state(worker, "T");
        assert_eq!(ask_datagram(server.addr(0), b"hello").expect("an answer of the other"), b"hello");
        signal_child(&server, worker, Signal::CONT);
    }
    assert!(server.stop().success());
}

#[test]
fn a_hundred_thousand_datagrams_come_back_but_for_those_in_the_hands_of_killed_workers() {
    const TOTAL: u64 = 100_000;
    const WORKERS: usize = 2;
    let server = Server::example("datagrams", &["workers=2", UDP]);
    let baseline = Baseline::of(&server).by_kind();
    let (loading, kills) = (AtomicBool::new(true), AtomicUsize::new(0));
    let load = thread::scope(|scope| {
        let killer = scope.spawn(|| kill_under(&server, WORKERS, &loading, &kills));
        let load = scope.spawn(|| {
            let send = while_killing(TOTAL, &kills, |socket, bytes, _| socket.send(bytes).map(drop));
            grouped_datagrams(server.addr(0), TOTAL, 64, &ALONE, send)
        });
        let load = load.join();
        loading.store(false, Ordering::Relaxed);
        killer.join().expect("the killer does not panic");
        load.expect("no panic").expect("the load can be sent")
    });
    let kills = kills.into_inner();
    let dropped = udp_drops(server.port(0)) + load.own_drops;
    assert_eq!((load.sent, load.duplicates, load.strays, load.refused), (TOTAL, 0, 0, 0), "{load:?}");
    assert_eq!(
        load.missing.len() as u64,
        lost(&server) as u64 + dropped,
        "{kills} kills, {} lost in hand, {dropped} dropped by the kernel: {load:?}",
        lost(&server)
    );
    assert!(kills >= 20 && load.received > TOTAL * 9 / 10, "{kills} kills, {load:?}");
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_reply_leaves_from_the_address_that_its_datagram_was_sent_to() {
    for (listen, here, to) in [
        ("udp://0.0.0.0:0", "127.0.0.1:0", "127.0.0.7"),
        ("udp://0.0.0.0:0", "127.0.0.1:0", "127.0.0.1"),
        ("udp://[::]:0", "[::1]:0", "::1"),
        ("udp://:0", "127.0.0.1:0", "127.0.0.9"), // one socket for both families
        ("udp://:0", "[::1]:0", "::1"),
    ] {
        let server = Server::example("udp_echo", &[listen]);
        let to: IpAddr = to.parse().unwrap();
        let address = std::net::SocketAddr::new(to, server.port(0));
        let (answer, from) = exchange(&client(here), &address.to_string(), b"who are you?");
        assert_eq!((answer.as_str(), from), ("who are you?", to), "{listen}");
    }
}

#[test]
fn a_handler_that_ends_its_worker_loses_its_own_datagram_only() {
    let server = Server::example("datagrams", &[UDP]);
    let baseline = Baseline::of(&server).by_kind();
    let client = client("127.0.0.1:0");
    for (bad, how) in
        [("panic", "exit=101"), ("abort", "signal=6"), ("exit 7", "exit=7"), ("exit 0", "exit=0")]
    {
        let from = server.cursor();
        // One batch, if they come fast enough, with the bad one in the middle.
        let worker = wait_children(&server, 1)[0];
        signal_child(&server, worker, Signal::STOP);
        for question in ["one", "two", bad, "four", "five"] {
            client.send_to(question.as_bytes(), server.addr(0)).expect("it can be sent");
        }
        signal_child(&server, worker, Signal::CONT);
        for expected in ["one", "two", "four", "five"] {
            let mut answer = [0; 64];
            let length = client.recv(&mut answer).expect("an answer");
            assert_eq!(std::str::from_utf8(&answer[..length]), Ok(expected), "after {bad}");
        }
        let (_, told) = server.wait_log_from(from, |line| line.starts_with("worker "));
        assert_eq!(told, format!("worker pid={worker} {how} lost=1"));
    }
    assert_eq!(lost(&server), 4);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_datagram_that_is_cut_is_said_to_be() {
    let folder = Folder::new();
    let server = Server::example("datagrams", &[&format!("unixgram:{}", folder.at("socket"))]);
    let answer = |length: usize| {
        let question = vec![b'x'; length];
        String::from_utf8(ask_datagram(server.addr(0), &question).expect("an answer")).expect("text")
    };
    assert_eq!(answer(65_535), "x".repeat(65_535));
    assert_eq!(answer(65_536), "cut to 65535");
    assert_eq!(answer(70_000), "cut to 65535");
    assert_eq!(answer(1), "x", "and the next is whole");
}

#[test]
fn a_unix_client_without_a_name_is_heard_and_not_answered() {
    let folder = Folder::new();
    let path = folder.at("socket");
    let server = Server::example("datagrams", &[&format!("unixgram:{path}")]);
    let nameless = UnixDatagram::unbound().expect("a socket");
    nameless.send_to(b"exit 7", &path).expect("it can be sent");
    server.wait_log(|line| line.starts_with("worker ") && line.ends_with("exit=7 lost=1"));
    nameless.send_to(b"hello?", &path).expect("it can be sent");
    assert_eq!(ask_datagram(server.addr(0), b"hello!").expect("an answer"), b"hello!");
    nameless.set_nonblocking(true).expect("a mode");
    assert_eq!(nameless.recv(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn ports_of_services_that_answer_answers_get_no_reply() {
    if !is_root("sending from ports below 1024") {
        return;
    }
    // One worker, which takes them in order: when the last has its answer, the others will have none any more.
    let server = Server::example("datagrams", &[UDP]);
    let fine = client("127.0.0.1:0");
    for port in [7, 19, 53, 1023] {
        let service = client(("127.0.0.9", port));
        service.send_to(b"who is first?", server.addr(0)).expect("it can be sent");
        assert_eq!(exchange(&fine, server.addr(0), b"and I?").0, "and I?");
        assert!(is_silent(&service), "port {port} was answered");
    }
    assert_eq!(exchange(&client("127.0.0.9:1024"), server.addr(0), b"and I?").0, "and I?");
}

#[test]
fn a_datagram_that_seems_to_come_from_the_server_itself_gets_no_reply() {
    let server = Server::example("datagrams", &[UDP]);
    let fine = client("127.0.0.1:0");
    let disguised = client(("127.0.0.9", server.port(0)));
    disguised.send_to(b"hello, me", server.addr(0)).expect("it can be sent");
    assert_eq!(exchange(&fine, server.addr(0), b"and I?").0, "and I?");
    assert!(is_silent(&disguised), "it was answered");
}

#[test]
fn a_reply_is_at_most_three_times_its_question_headers_counted() {
    let server = Server::example("datagrams", &[UDP]);
    let client = client("127.0.0.1:0");
    // "reply NNN": 9 bytes and 28 of headers, so 111 with headers, 83 without.
    assert_eq!(exchange(&client, server.addr(0), b"reply 083").0.len(), 83);
    client.send_to(b"reply 084", server.addr(0)).expect("it can be sent");
    assert_eq!(exchange(&client, server.addr(0), b"reply 010").0.len(), 10, "the one before has no answer");
    assert!(is_silent(&client));
}

#[test]
fn an_empty_datagram_is_answered_with_the_time() {
    const SECONDS_FROM_1900_TO_1970: u64 = 2_208_988_800;
    let server = Server::example("udp_time", &[UDP]);
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    let answer = ask_datagram(server.addr(0), b"").expect("an answer");
    let told = u32::from_be_bytes(answer.try_into().expect("four bytes"));
    let known = [before, now()].map(|seconds| (seconds + SECONDS_FROM_1900_TO_1970) as u32);
    assert!((known[0]..=known[1]).contains(&told), "{told}, {known:?}");
}

#[test]
fn a_request_to_end_is_heeded_when_what_has_come_is_answered() {
    let server = Server::example("datagrams", &["workers=2", UDP]);
    let client = client("127.0.0.1:0");
    let workers = wait_children(&server, 2);
    for worker in &workers {
        signal_child(&server, *worker, Signal::STOP);
        wait_state(*worker, "T");
    }
    for n in 0..100 {
        client.send_to(format!("{n}").as_bytes(), server.addr(0)).expect("it can be sent");
    }
    server.signal(Signal::TERM);
    server.wait_log(|line| line.starts_with("drain "));
    for worker in &workers {
        signal_child(&server, *worker, Signal::CONT);
    }
    let mut answers: Vec<u32> = (0..100)
        .map(|_| {
            let mut answer = [0; 8];
            let length = client.recv(&mut answer).expect("an answer");
            String::from_utf8_lossy(&answer[..length]).parse().expect("a number")
        })
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, (0..100).collect::<Vec<_>>());
    assert!(server.wait().success());
    workers.into_iter().for_each(wait_gone);
}

#[test]
fn workers_end_by_themselves_when_their_master_is_killed() {
    let server = Server::example("datagrams", &["workers=2", UDP, UDP]);
    let workers = wait_children(&server, 4);
    for i in 0..2 {
        assert_eq!(exchange(&client("127.0.0.1:0"), server.addr(i), b"hello").0, "hello");
    }
    server.signal(Signal::KILL);
    server.wait();
    workers.into_iter().for_each(wait_gone);
}

#[test]
fn a_second_request_to_end_kills_workers_that_do_not_finish() {
    let server = Server::example("datagrams", &["workers=2", UDP]);
    let workers = wait_children(&server, 2);
    for worker in &workers {
        signal_child(&server, *worker, Signal::STOP);
        wait_state(*worker, "T");
    }
    server.signal(Signal::TERM);
    server.wait_log(|line| line.starts_with("drain "));
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(children(server.pid()).is_empty());
    workers.into_iter().for_each(wait_gone);
}
