//! Programs that serve datagrams, in each of the three ways: nothing refused, reordered or lost on the way to them.

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use support::{Folder, count, need, number, send, session, value};
use tine_testkit::server::{DEADLINE, until};
use tine_testkit::{Baseline, Server, Signal, ask_datagram, children, net, udp_drops};

/// A client that speaks with one server only, and hears of it when the kernel refuses for it.
fn client(server: impl Into<SocketAddr>) -> UdpSocket {
    let server = server.into();
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Sends without waiting for anything. ECONNREFUSED would be told here, or at the next call.
fn say(client: &UdpSocket, text: &str) {
    client.send(text.as_bytes()).unwrap_or_else(|why| panic!("send {text:?}: {why}"));
}

/// The next datagram that comes back.
fn hear(client: &UdpSocket) -> String {
    let mut bytes = vec![0; 65_536];
    let length = client.recv(&mut bytes).unwrap_or_else(|why| panic!("nothing came back: {why}"));
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

fn ended(line: &str) -> bool {
    line.starts_with("end ")
}

/// How often a process has been switched to.
fn switches(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

/// The worker of a server with one listener for datagrams that are handed to children.
fn worker(server: &Server) -> u32 {
    until("there is a worker", || children(server.pid()).first().copied())
}

/// Serves three datagrams that the socket itself gives, then ends. Says so when the socket would not block.
const THREE: &str = r#"
    use strict; use warnings; use Fcntl;
    my $blocking = fcntl(STDIN, F_GETFL, 0) & O_NONBLOCK ? "nonblocking" : "blocking";
    for (1 .. 3) {
        my $peer = recv(STDIN, my $datagram, 65536, 0) // die "recv: $!";
        send(STDOUT, "$$ $blocking $datagram", 0, $peer) // die "send: $!";
    }
"#;

#[test]
fn with_wait_one_instance_after_another_reads_the_socket_itself() {
    need("perl", "perl");
    let server = Server::tine(&["udp://127.0.0.1:0", "-v", "--datagram", "wait", "--", "perl", "-e", THREE]);
    let client = client(server.socket(0));
    let mut instances = Vec::new();
    for datagram in 0..9 {
        say(&client, &format!("number {datagram}"));
        let reply = hear(&client);
        let (pid, rest) = reply.split_once(' ').unwrap();
        assert_eq!(rest, format!("blocking number {datagram}"));
        instances.push(pid.parse::<u32>().unwrap());
    }
    let born: Vec<u32> = instances.chunks(3).map(|three| three[0]).collect();
    assert_eq!(instances, born.iter().flat_map(|pid| [*pid; 3]).collect::<Vec<_>>());
    assert_eq!(born.iter().collect::<BTreeSet<_>>().len(), 3, "{instances:?}");
    for pid in born {
        server.wait_log(|line| line.starts_with(&format!("end    child={pid} exit=0 ")));
    }
    assert!(server.stop().success());
}

#[test]
fn with_wait_datagrams_that_come_at_once_are_all_served_in_order() {
    need("perl", "perl");
    let server = Server::tine(&["udp://127.0.0.1:0", "-v", "--datagram", "wait", "--", "perl", "-e", THREE]);
    let client = client(server.socket(0));
    for datagram in 0..12 {
        say(&client, &datagram.to_string());
    }
    for datagram in 0..12 {
        let reply = hear(&client);
        assert_eq!(reply.rsplit(' ').next(), Some(&*datagram.to_string()), "{reply}");
    }
    until("all four have ended", || (server.status().served == 4).then_some(()));
    assert_eq!(server.status().open, 0, "nobody is started before a datagram comes");
    assert!(server.stop().success());
}

#[test]
fn with_wait_an_instance_that_never_ends_ends_with_the_server() {
    need("perl", "perl");
    let forever = THREE.replace("for (1 .. 3)", "while (1)");
    let args = ["udp://127.0.0.1:0", "--drain", "0", "--datagram", "wait", "--", "perl", "-e", &forever];
    let server = Server::tine(&args);
    let client = client(server.socket(0));
    say(&client, "hello");
    let reply = hear(&client);
    let instance: u32 = reply.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(server.status().open, 1);
    assert!(server.stop().success());
    assert_eq!(session(instance), []);
}

#[test]
fn with_wait_a_program_that_reads_nothing_is_not_started_again_and_again() {
    let tried = || {
        let server = Server::tine(&["udp://127.0.0.1:0", "-v", "--datagram", "wait", "--", "true"]);
        let client = client(server.socket(0));
        let start = Instant::now();
        say(&client, "nobody reads this");
        let paused = server.wait_log(|line| line.starts_with("pause "));
        assert!(value(&paused, "reason").unwrap().contains("datagrams are left"), "{paused}");
        let status = until("it was tried eight times", || {
            let status = server.status();
            (status.served >= 8).then_some(status)
        });
        let elapsed = start.elapsed();
        // What takes a tenth of a second, on a busy machine, may have done something: then the rests begin anew.
        let takes_long = |line: &str| ended(line) && number(line, "ms") >= 100;
        let shows = count(&server, takes_long) == 0;
        if shows {
            // Rests of 10, 20, 40 ... 640 ms lie between eight.
            assert!(elapsed >= Duration::from_millis(1270), "eight in {elapsed:?}");
            assert!(status.served < 16, "{status:?}");
            assert_eq!(count(&server, |line| line.starts_with("pause ")), 1);
        }
        assert!(server.stop().success());
        shows
    };
    assert!((0..10).any(|_| tried()), "a program that does nothing takes a tenth of a second, always");
}

/// A child for each peer, with `cat` in it.
fn peers(options: &[&str]) -> Server {
    let args = ["udp://127.0.0.1:0", "-v", "--datagram", "peer"];
    // Peers stay for a minute unless the options say otherwise; no test waits for that.
    let drain: &[&str] = if options.contains(&"--drain") { &[] } else { &["--drain", "0"] };
    Server::tine(&[&args, drain, options, &["--", "cat"]].concat())
}

/// As a server of [`peers`] is when one has come and gone. An empty datagram is the end of input to `cat`, as it is to any
/// program that reads records: nobody waits until that peer is idle.
fn baseline(server: &Server) -> Baseline {
    let address = server.socket(0);
    Baseline::with(server, move || {
        let client = client(address);
        say(&client, "probe");
        assert_eq!(hear(&client), "probe");
        say(&client, "");
        Ok(())
    })
}

/// So many children have ended by now, or will, and each of them well.
fn all_end(server: &Server, all: usize) {
    until("all have ended", || (server.status().served == all as u64).then_some(()));
    until("and it was told", || (count(server, ended) == all).then_some(()));
    assert!(server.log().lines().filter(|line| ended(line)).all(|line| line.contains(" exit=0 ")));
}

#[test]
fn with_peer_fifty_peers_at_once_have_a_child_each_and_all_their_datagrams_in_order() {
    const PEERS: usize = 50;
    const EACH: usize = 20;
    let server = peers(&[]);
    let baseline = baseline(&server);
    let before = count(&server, |line| line.starts_with("accept"));
    let clients: Vec<UdpSocket> = (0..PEERS).map(|_| client(server.socket(0))).collect();
    for datagram in 0..EACH {
        for (peer, client) in clients.iter().enumerate() {
            say(client, &format!("{peer} {datagram}"));
        }
        // Round by round, so that no buffer is ever too small.
        for (peer, client) in clients.iter().enumerate() {
            assert_eq!(hear(client), format!("{peer} {datagram}"));
        }
    }
    assert_eq!(udp_drops(server.port(0)), 0);
    for client in &clients {
        let address = client.local_addr().unwrap();
        let accepted = format!("accept peer={address} ");
        server.wait_log(|line| line.starts_with(&accepted));
    }
    assert_eq!(count(&server, |line| line.starts_with("accept")), before + PEERS, "a child for each peer");
    clients.iter().for_each(|client| say(client, ""));
    all_end(&server, before + PEERS);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn with_peer_a_child_ends_by_the_end_of_its_input_when_its_peer_has_been_silent_for_a_while() {
    const PEERS: usize = 50;
    // Its answer may come when its peer is idle already, and is nobody's then.
    let args = ["udp://127.0.0.1:0", "-v", "--drain", "0", "--datagram", "peer", "--datagram-idle", "1"];
    let server = Server::tine(&[&args[..], &["--", "sh", "-c", "cat; exit 0"]].concat());
    let baseline = Baseline::of(&server);
    let before = count(&server, |line| line.starts_with("accept"));
    let clients: Vec<UdpSocket> = (0..PEERS).map(|_| client(server.socket(0))).collect();
    let start = Instant::now();
    clients.iter().for_each(|client| say(client, "no more than this"));
    all_end(&server, before + PEERS);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(count(&server, |line| line.starts_with("accept")), before + PEERS, "a child for each peer");
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn with_several_workers_each_peer_stays_with_one_and_its_datagrams_in_order() {
    const WORKERS: usize = 3;
    const PEERS: usize = 60;
    for how in ["peer", "each"] {
        let args =
            ["udp://127.0.0.1:0", "-v", "--datagram", how, "--workers", "3", "--drain", "0", "--", "cat"];
        let server = Server::tine(&args);
        let workers =
            until("there are workers", || Some(children(server.pid())).filter(|all| all.len() == WORKERS));
        let bound = net::udp_sockets().into_iter().filter(|socket| socket.local.port() == server.port(0));
        assert_eq!(bound.count(), WORKERS, "each has a socket of its own");
        let clients: Vec<UdpSocket> = (0..PEERS).map(|_| client(server.socket(0))).collect();
        // A few times when it began, and at least once for each of its peers; more of them at a time on a busy machine.
        let all_worked = || workers.iter().all(|worker| switches(*worker) > 5);
        let mut rounds = 0;
        while rounds < 5 || (rounds < 50 && !all_worked()) {
            let datagram = rounds;
            rounds += 1;
            for (peer, client) in clients.iter().enumerate() {
                say(client, &format!("{peer} {datagram}"));
            }
            for (peer, client) in clients.iter().enumerate() {
                assert_eq!(hear(client), format!("{peer} {datagram}"));
            }
        }
        let children = if how == "peer" { PEERS } else { rounds * PEERS };
        until("all were told", || {
            (count(&server, |line| line.starts_with("accept")) == children).then_some(())
        });
        assert!(all_worked(), "all have had work");
        assert!(server.stop().success());
    }
}

#[test]
fn a_second_server_at_a_port_of_datagrams_is_refused_however_many_workers_either_has() {
    let with = |workers: &str, address: &str| {
        let all = ["serve", address, "--datagram", "peer", "--workers", workers, "--", "cat"];
        all.map(str::to_owned)
    };
    for workers in ["1", "3"] {
        let args = with(workers, "udp://127.0.0.1:0");
        let server = Server::tine(&args[1..].iter().map(String::as_str).collect::<Vec<_>>());
        let address = format!("udp://{}", server.socket(0));
        for others in ["1", "3"] {
            let second =
                Command::new(tine_testkit::target::binary("tine")).args(with(others, &address)).output();
            let said = second.unwrap();
            assert_eq!(said.status.code(), Some(111));
            let said = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(said.contains(&format!("bind {address}: Address already in use")), "{said}");
        }
        assert!(server.stop().success());
    }
}

#[test]
fn with_peer_a_flood_from_a_new_peer_is_neither_refused_nor_reordered_nor_lost() {
    const FLOOD: usize = 200;
    let server = peers(&[]);
    for round in 0..5 {
        let client = client(server.socket(0)); // a new peer each time
        for datagram in 0..FLOOD {
            say(&client, &format!("{round} {datagram}"));
        }
        // Drops of a socket whose buffer is full are the kernel's, and counted by it; whatever else came is in order.
        let drops = udp_drops(server.port(0)) + udp_drops(client.local_addr().unwrap().port());
        assert_eq!(drops, 0, "200 small datagrams fit into the usual buffers");
        for datagram in 0..FLOOD {
            assert_eq!(hear(&client), format!("{round} {datagram}"));
        }
        say(&client, "the last");
        assert_eq!(hear(&client), "the last");
    }
    assert_eq!(count(&server, |line| line.starts_with("accept")), 5, "one child for each new peer");
    assert!(server.stop().success());
}

/// Serves two datagrams and ends by itself.
const TWO: &str = r#"for (1 .. 2) { sysread STDIN, my $b, 65536 or last; syswrite STDOUT, "$$ $b" }"#;

#[test]
fn with_peer_a_peer_that_comes_back_after_its_child_has_ended_gets_another() {
    need("perl", "perl");
    let server = Server::tine(&["udp://127.0.0.1:0", "-v", "--datagram", "peer", "--", "perl", "-e", TWO]);
    let client = client(server.socket(0));
    let mut instances = BTreeSet::new();
    for datagram in 0..6 {
        say(&client, &datagram.to_string());
        let reply = hear(&client);
        let (pid, back) = reply.split_once(' ').unwrap();
        assert_eq!(back, datagram.to_string());
        if instances.insert(pid.to_owned()) {
            continue;
        }
        // It has had its two. Its end is waited for: what is sent to a program while it ends is lost with it, as it
        // would be with a socket of its own.
        server.wait_log(|line| line.starts_with(&format!("end    child={pid} exit=0 ")));
    }
    assert_eq!(instances.len(), 3);
    assert!(server.stop().success());
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    for how in ["peer", "each"] {
        let args = ["udp://0.0.0.0:0", "udp://[::]:0", "-v", "--drain", "0", "--datagram", how, "--", "cat"];
        let server = Server::tine(&args);
        let port = |listener: usize| server.port(listener);
        let asked: [SocketAddr; 5] = [
            ([127, 0, 0, 1], port(0)).into(),
            ([127, 0, 0, 77], port(0)).into(),
            ([127, 200, 0, 1], port(0)).into(),
            ([127, 0, 0, 77], port(1)).into(),
            (std::net::Ipv6Addr::LOCALHOST, port(1)).into(),
        ];
        for address in asked {
            let client = client(address); // hears nothing that comes from another address
            say(&client, "who is there?");
            assert_eq!(hear(&client), "who is there?", "{how} {address}");
        }
        // One client, two addresses: with a child for each.
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        one.set_read_timeout(Some(DEADLINE)).unwrap();
        for address in &asked[..2] {
            one.send_to(b"and you?", address).unwrap();
            let mut bytes = [0; 20];
            assert_eq!(one.recv_from(&mut bytes).unwrap(), (8, *address));
        }
        assert!(server.stop().success());
    }
}

#[test]
fn with_peer_the_children_limit_makes_the_third_wait_until_another_has_ended() {
    need("perl", "perl");
    let args = ["udp://127.0.0.1:0", "-v", "-c", "2", "--datagram", "peer", "--", "perl", "-e", TWO];
    let server = Server::tine(&args);
    let clients: Vec<UdpSocket> = (0..4).map(|_| client(server.socket(0))).collect();
    let back = |reply: String| reply.split_once(' ').expect("a process id and an echo").1.to_owned();
    for (peer, client) in clients.iter().enumerate() {
        say(client, &format!("first of {peer}"));
        if peer < 2 {
            assert_eq!(back(hear(client)), format!("first of {peer}"));
        }
    }
    assert_eq!(server.status().open, 2);
    assert_eq!(count(&server, |line| line.starts_with("accept")), 2, "the others wait");
    // The second datagram ends a child of TWO, and one of those who wait is served.
    for (ends, begins) in [(0, 2), (1, 3)] {
        say(&clients[ends], "second");
        assert_eq!(back(hear(&clients[ends])), "second");
        assert_eq!(back(hear(&clients[begins])), format!("first of {begins}"));
    }
    // A child may have answered before it is in the log.
    let open = until("the fourth is in the log", || {
        let log = server.log();
        let accepted = log.lines().filter(|line| line.starts_with("accept"));
        let open: Vec<_> = accepted.map(|line| value(line, "open").unwrap().to_owned()).collect();
        (open.len() == 4).then_some(open)
    });
    assert_eq!(open, ["1/2", "2/2", "2/2", "2/2"]);
    for client in &clients[2..] {
        say(client, "second");
        assert_eq!(back(hear(client)), "second");
    }
    until("all have ended", || (server.status().served == 4).then_some(()));
    assert!(server.stop().success());
}

#[test]
fn with_peer_more_new_peers_at_once_than_there_may_be_children_are_all_served() {
    const PEERS: usize = 300;
    // None is idle before it is its turn; each says that it has no more to say.
    let server = peers(&["-c", "20"]);
    let baseline = baseline(&server);
    let queued = || {
        let sockets = net::udp_sockets().into_iter().filter(|s| s.local == server.socket(0));
        sockets.map(|socket| socket.receive_queue).sum::<u64>()
    };
    let clients: Vec<UdpSocket> = (0..PEERS).map(|_| client(server.socket(0))).collect();
    for (peer, client) in clients.iter().enumerate() {
        say(client, &format!("peer {peer}"));
        say(client, "");
        if peer % 50 == 0 {
            until("the kernel's queue is empty", || (queued() == 0).then_some(()));
        }
    }
    assert_eq!(udp_drops(server.port(0)), 0);
    for (peer, client) in clients.iter().enumerate() {
        assert_eq!(hear(client), format!("peer {peer}"));
    }
    assert_eq!(count(&server, |line| line.starts_with("drop ")), 0);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

/// A child for each datagram.
fn each(options: &[&str], program: &[&str]) -> Server {
    let args = ["udp://127.0.0.1:0", "-v", "--datagram", "each"];
    Server::tine(&[&args, options, &["--"], program].concat())
}

#[test]
fn with_each_two_hundred_datagrams_of_twenty_peers_get_a_reply_of_their_own_each() {
    const PEERS: usize = 20;
    const EACH: usize = 10;
    let server = each(&[], &["tr", "a-z", "A-Z"]);
    let clients: Vec<UdpSocket> = (0..PEERS).map(|_| client(server.socket(0))).collect();
    for datagram in 0..EACH {
        for (peer, client) in clients.iter().enumerate() {
            say(client, &format!("peer {peer} datagram {datagram}"));
        }
    }
    for (peer, client) in clients.iter().enumerate() {
        let expected: BTreeSet<String> = (0..EACH).map(|d| format!("PEER {peer} DATAGRAM {d}")).collect();
        let got: BTreeSet<String> = (0..EACH).map(|_| hear(client)).collect();
        assert_eq!(got, expected);
    }
    let all = (PEERS * EACH) as u64;
    let status = until("all are counted", || Some(server.status()).filter(|status| status.served == all));
    assert_eq!((status.open, status.failed), (0, 0));
    assert!(server.stop().success());
}

#[test]
fn with_each_no_output_is_no_reply_and_an_empty_datagram_is_an_empty_input() {
    let script = r#"x=$(cat); case "$x" in quiet) ;; "") printf nothing ;; *) printf %s "$x" ;; esac"#;
    let server = each(&[], &["sh", "-c", script]);
    let client = client(server.socket(0));
    say(&client, "quiet");
    server.wait_log(|line| ended(line) && line.contains(" exit=0 "));
    say(&client, "");
    assert_eq!(hear(&client), "nothing", "the first reply of all");
    say(&client, "loud");
    assert_eq!(hear(&client), "loud");
    assert!(server.stop().success());
}

/// Writes as many bytes as it was told.
const LONG: [&str; 3] = ["sh", "-c", r#"head -c "$(cat)" /dev/zero | tr '\0' x"#];

#[test]
fn with_each_a_reply_three_times_as_long_as_its_question_is_the_longest() {
    const HEADERS: usize = 28;
    let server = each(&[], &LONG);
    let client = client(server.socket(0));
    for length in [10, 50] {
        let most = 3 * (length + HEADERS) - HEADERS;
        let question = |answer: usize| format!("{answer:0length$}");
        // One more than the most is not sent; the first reply is that to the second question.
        let ends = count(&server, ended);
        say(&client, &question(most + 1));
        until("it was handled", || (count(&server, ended) > ends).then_some(()));
        say(&client, &question(most));
        assert_eq!(hear(&client).len(), most);
    }
    assert!(server.stop().success());
}

#[test]
fn with_each_a_reply_longer_than_any_datagram_is_dropped_and_service_goes_on() {
    const LONGEST: usize = 65_507; // of UDP over IPv4
    let server = each(&["--amplification", "0"], &LONG);
    let client = client(server.socket(0));
    for length in [LONGEST, LONGEST + 1, 70_000, 1_000_000] {
        let ends = count(&server, ended);
        say(&client, &length.to_string());
        if length <= LONGEST {
            assert_eq!(hear(&client).len(), length);
        }
        until("it was handled", || (count(&server, ended) > ends).then_some(()));
    }
    say(&client, "7");
    assert_eq!(hear(&client), "xxxxxxx", "nothing came of those that were too long");
    assert!(server.stop().success());
}

#[test]
fn a_drain_lets_datagrams_in_hand_be_answered_and_leaves_no_worker() {
    let folder = Folder::new();
    let go = folder.text("go");
    let script = format!(r#"x=$(cat); until [ -e {go} ]; do sleep 0.02; done; echo "$x""#);
    let server = each(&[], &["sh", "-c", &script]);
    let worker = worker(&server);
    let client = client(server.socket(0));
    say(&client, "take your time");
    server.wait_log(|line| line.starts_with("accept"));
    server.signal(Signal::TERM);
    server.wait_log(|line| line == "drain  open=1 seconds=30");
    std::fs::write(&go, "").unwrap();
    assert_eq!(hear(&client), "take your time\n");
    assert!(server.wait().success());
    assert_eq!(session(worker), []);
    assert_eq!(server.wait_log(|line| line.starts_with("stop ")), "stop   served=1");
}

#[test]
fn a_drain_ends_peers_when_they_are_idle_or_their_time_is_over() {
    let drained = |(idle, drain): (&str, &str)| {
        let server = peers(&["--datagram-idle", idle, "--drain", drain]);
        let worker = worker(&server);
        let client = client(server.socket(0));
        say(&client, "before");
        assert_eq!(hear(&client), "before");
        server.signal(Signal::TERM);
        server.wait_log(|line| line.starts_with("drain  open=1 "));
        let start = Instant::now();
        assert!(server.wait().success());
        // Long before the other of the two times is over.
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert_eq!(session(worker), []);
    };
    // Not idle before its program has answered and the drain has begun; so both wait at the same time.
    thread::scope(|scope| {
        for times in [("8", "30"), ("600", "1")] {
            scope.spawn(move || drained(times));
        }
    });
}

/// The kernel tells of a connection whose program ended with datagrams unread by an error, before what it has still said.
#[test]
fn what_a_program_says_that_ends_without_reading_is_carried_back_all_the_same() {
    for (how, again) in [("peer", false), ("peer", true), ("each", false)] {
        let folder = Folder::new();
        let go = folder.text("go");
        let script = format!("until [ -e {go} ]; do sleep 0.02; done; echo last words");
        let args = ["udp://127.0.0.1:0", "-v", "--datagram", how, "--", "sh", "-c", &script];
        let server = Server::tine(&args);
        let (worker, client) = (worker(&server), client(server.socket(0)));
        say(&client, "unread");
        server.wait_log(|line| line.starts_with("accept"));
        // The worker looks when all is over, and in one case finds a datagram for the program that has gone.
        send(worker, Signal::STOP);
        std::fs::write(&go, "").unwrap();
        server.wait_log(ended);
        if again {
            say(&client, "for another");
        }
        send(worker, Signal::CONT);
        for _ in 0..1 + usize::from(again) {
            assert_eq!(hear(&client), "last words\n", "{how}, again: {again}");
        }
        assert!(server.stop().success());
    }
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_service_goes_on() {
    for how in ["peer", "each"] {
        let args = ["udp://127.0.0.1:0", "-v", "--datagram", how];
        let server = Server::tine(&[&args[..], &["--", "cat"]].concat());
        let baseline = if how == "peer" { baseline(&server) } else { Baseline::of(&server) }.by_kind();
        let client = client(server.socket(0));
        for _ in 0..3 {
            say(&client, "before");
            assert_eq!(hear(&client), "before");
            if how == "peer" {
                say(&client, ""); // the end of input to its `cat`
            }
            until("the worker alone is left", || (children(server.pid()).len() == 1).then_some(()));
            let (from, killed) = (server.cursor(), worker(&server));
            send(killed, Signal::KILL);
            let replaced = format!("worker pid={killed} signal=9 lost=0");
            server.wait_log_from(from, |line| line == replaced);
            assert_ne!(worker(&server), killed);
        }
        server.quiescent(&baseline);
        assert!(server.stop().success());
    }
}

#[test]
fn when_its_worker_is_killed_a_peers_program_hears_the_end_and_the_peer_gets_another() {
    let server = peers(&[]);
    let client = client(server.socket(0));
    say(&client, "to the first");
    assert_eq!(hear(&client), "to the first");
    let first = number(&server.wait_log(|line| line.starts_with("accept")), "child");
    let killed = children(server.pid()).into_iter().find(|child| *child != first).unwrap();
    send(killed, Signal::KILL);
    server.wait_log(|line| line.starts_with(&format!("end    child={first} exit=0 ")));
    server.wait_log(|line| line.starts_with(&format!("worker pid={killed} signal=9 ")));
    say(&client, "to the second");
    assert_eq!(hear(&client), "to the second");
    assert!(server.stop().success());
}

#[test]
fn programs_serve_unix_datagrams_in_each_of_the_three_ways() {
    need("perl", "perl");
    let folder = Folder::new();
    let forever =
        r#"while (defined(my $peer = recv(STDIN, my $d, 65536, 0))) { send(STDOUT, $d, 0, $peer) }"#;
    for how in ["wait", "peer", "each"] {
        let path = format!("unixgram:{}", folder.text(how));
        let name = format!("unixgram:@tine-test-{}-{how}", std::process::id());
        for address in [path, name] {
            let program: &[&str] = if how == "wait" { &["perl", "-e", forever] } else { &["cat"] };
            let options = [address.as_str(), "-v", "--drain", "0", "--datagram", how, "--"];
            let server = Server::tine(&[&options, program].concat());
            for round in 0..3 {
                let question = format!("{how} {round}");
                let reply = ask_datagram(server.addr(0), question.as_bytes()).unwrap();
                assert_eq!(String::from_utf8_lossy(&reply), question);
            }
            // A client without a name cannot be answered, and harms nobody.
            let nobody = UnixDatagram::unbound().unwrap();
            let there = address.strip_prefix("unixgram:").unwrap();
            match there.strip_prefix('@') {
                Some(name) => nobody.connect_addr(&UnixAddr::from_abstract_name(name).unwrap()).unwrap(),
                None => nobody.connect(there).unwrap(),
            }
            if how != "wait" {
                nobody.send(b"no name").unwrap();
                assert_eq!(ask_datagram(server.addr(0), b"still there").unwrap(), b"still there");
            }
            assert!(server.stop().success());
        }
    }
}

#[test]
fn a_datagram_that_is_too_long_is_cut_and_that_is_told() {
    const ROOM: usize = 65_535;
    let folder = Folder::new();
    let address = format!("unixgram:{}", folder.text("socket"));
    let server = Server::tine(&[&address, "-v", "--datagram", "each", "--", "wc", "-c"]);
    let start = Instant::now();
    for (length, counted) in [(ROOM, ROOM), (ROOM + 1, ROOM), (100_000, ROOM)] {
        let reply = ask_datagram(server.addr(0), &vec![b'x'; length]).unwrap();
        assert_eq!(String::from_utf8_lossy(&reply).trim(), counted.to_string());
        // The reply may come before that is told; and it is told again in ten seconds, with how many there were meanwhile.
        let cut = || count(&server, |line| line.starts_with("cut "));
        if length > ROOM {
            server.wait_log(|line| line.starts_with("cut "));
        }
        let most = usize::from(length > ROOM) + start.elapsed().as_secs() as usize / 10;
        assert!((usize::from(length > ROOM)..=most).contains(&cut()), "{}", server.log());
    }
    assert!(server.stop().success());
}

#[test]
fn nothing_answers_where_a_server_was() {
    // What ECONNREFUSED looks like, so that the other tests are known to hear it.
    let server = peers(&[]);
    let client = client(server.socket(0));
    say(&client, "somebody");
    assert_eq!(hear(&client), "somebody");
    assert!(server.stop().success());
    let refused =
        until("the kernel refuses", || client.send(b"nobody").and_then(|_| client.recv(&mut [0; 9])).err());
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
