//! The generator against small servers of the test's own: what it counts is what they counted.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rustix::net::{self, AddressFamily, SocketType};
use tine_bench::load::report::Report;
use tine_testkit::server::{DEADLINE, until_within};

/// A server that reads once and lets `answer` do the rest; hands back its address and how many it has served.
fn server(answer: fn(&mut TcpStream, &[u8])) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = format!("tcp://{}", listener.local_addr().expect("it is bound"));
    let served = Arc::new(AtomicU64::new(0));
    let count = served.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("clients come");
            let mut line = [0; 4096];
            // Whoever leaves without a word is served, too.
            if let Ok(length @ 1..) = client.read(&mut line) {
                answer(&mut client, &line[..length]);
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (address, served)
}

fn echo(client: &mut TcpStream, line: &[u8]) {
    client.write_all(line).expect("the client is there");
}

fn load(address: &str, options: &[&str]) -> (Report, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["--to", address, "--warmup", "0.1", "--seconds", "0.5"])
        .args(options)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("load can be started");
    let last =
        output.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).expect("it prints a line");
    (serde_json::from_slice(last).expect("it is a report"), output.status.code())
}

/// Runs that again until there was time for it: a machine that has other things to do may leave a run none of its half second.
fn until_there_was_time<T>(run: impl Fn() -> T, was_there: impl Fn(&T) -> bool) -> T {
    const MOST: usize = 10;
    (1..MOST).map(|_| run()).find(was_there).unwrap_or_else(&run)
}

/// How many a server has served: it counts a client after that has its answer, and is waited for.
fn settled(served: &AtomicU64, expected: u64) -> u64 {
    let now = || served.load(Ordering::SeqCst);
    until_within(DEADLINE, || (now() >= expected).then_some(()));
    now()
}

#[test]
fn every_reply_of_a_closed_loop_is_counted_once() {
    let run = || {
        let (address, served) = server(echo);
        let (report, code) = load(&address, &["--clients", "4"]);
        (report, code, served)
    };
    let (report, code, served) =
        until_there_was_time(run, |(report, _, _)| report.done > 0 || !report.errors.is_empty());
    assert_eq!((report.kind.as_str(), code), ("closed", Some(0)));
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    assert!(0 < report.done && report.done <= report.checked, "{report:?}");
    assert_eq!(report.checked, settled(&served, report.checked));
    let (first, whole) = (report.first_us.expect("there are some"), report.whole_us.expect("there are some"));
    assert!(first.min <= first.p50 && first.p50 <= whole.max, "{report:?}");
}

#[test]
fn every_arrival_of_an_open_loop_is_served_and_counted_once() {
    let (address, served) = server(echo);
    let (report, code) = load(&address, &["--rate", "200"]);
    assert_eq!((report.kind.as_str(), code), ("open", Some(0)));
    // How many had their time within the run is the machine's to say; each of them is served and counted once.
    assert!(report.checked > 0 && report.errors.is_empty(), "{report:?}");
    assert_eq!(report.checked, settled(&served, report.checked));
}

#[test]
fn a_burst_has_exactly_as_many_clients() {
    let (address, served) = server(echo);
    let (report, code) = load(&address, &["--burst", "100"]);
    assert_eq!((report.done, report.checked, code), (100, 100, Some(0)));
    assert!(report.connect_us.is_some());
    assert_eq!(settled(&served, 100), 100);
}

#[test]
fn a_reply_that_is_short_wrong_too_long_or_missing_is_told() {
    type Answer = fn(&mut TcpStream, &[u8]);
    let cases: [(&str, Answer); 4] = [
        ("short_reply", |client, line| echo(client, &line[..1])),
        ("wrong_reply", |client, line| echo(client, &line.to_ascii_uppercase())),
        ("wrong_reply", |client, line| echo(client, &[line, b"!"].concat())),
        ("no_reply", |_, _| {}),
    ];
    for (kind, answer) in cases {
        let (address, _) = server(answer);
        let (report, code) = load(&address, &["--burst", "5"]);
        assert_eq!((report.errors.get(kind), report.checked, code), (Some(&5), 0, Some(1)), "{report:?}");
    }
}

#[test]
fn a_server_that_is_not_there_is_found_out_soon() {
    // Bound and not listening: nobody else gets the port, and nobody answers.
    let bound = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("there are sockets");
    net::bind(&bound, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = SocketAddrV4::try_from(net::getsockname(&bound).expect("it is bound")).expect("it is IPv4");
    let (report, code) = load(&format!("tcp://{address}"), &["--clients", "3000"]);
    assert_eq!((report.checked, code), (0, Some(1)));
    assert!(report.errors.get("refused").is_some_and(|count| *count >= 1000), "{report:?}");
}

#[test]
fn idle_clients_are_held_while_others_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = format!("tcp://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("clients come");
            thread::spawn(move || {
                let mut line = [0; 4096];
                let length = client.read(&mut line).unwrap_or(0);
                echo(&mut client, &line[..length]);
            });
        }
    });
    let run = || load(&address, &["--hold", "40", "--clients", "2"]);
    let (report, code) =
        until_there_was_time(run, |(report, _)| report.done > 0 || !report.errors.is_empty());
    assert_eq!((report.held, code), (Some(40), Some(0)));
    assert!(report.done > 0 && report.errors.is_empty(), "{report:?}");
    let (report, code) = load(&address, &["--hold", "40", "--release"]);
    assert_eq!((report.kind.as_str(), report.held, code), ("hold", Some(40), Some(0)));
    assert!(report.released_at_ns.is_some());
}

/// Echoes to each client in a thread of its own, until a newline or the end.
fn sessions(answer: fn(&mut TcpStream, &[u8])) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = format!("tcp://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("clients come");
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = client.read(&mut bytes) {
                    answer(&mut client, &bytes[..length]);
                    if bytes[length - 1] == b'\n' {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn sessions_stay_open_alone_and_while_others_arrive() {
    let address = sessions(echo);
    let run = || load(&address, &["--open", "3", "--every", "0.002", "--clients", "2"]);
    let (report, code) = until_there_was_time(run, |(report, _)| {
        let all = report.done > 0 && report.open_alone_us.is_some() && report.open_us.is_some();
        all || !report.errors.is_empty()
    });
    assert_eq!((report.kind.as_str(), code), ("sessions", Some(0)), "{report:?}");
    assert!(report.done > 0 && report.errors.is_empty(), "{report:?}");
    let (alone, arrivals) =
        (report.open_alone_us.expect("there are some"), report.open_us.expect("there are some"));
    assert!(alone.p50 <= alone.p99 && arrivals.min <= arrivals.p50, "{report:?}");
}

#[test]
fn a_session_that_is_answered_wrong_or_ended_is_told() {
    type Answer = fn(&mut TcpStream, &[u8]);
    /// What a session says after its first byte; that and lines are answered right.
    fn later(bytes: &[u8]) -> bool {
        bytes != b"?" && !bytes.ends_with(b"\n")
    }
    let cases: [(&str, Answer); 3] = [
        ("session_wrong", |client, bytes| match later(bytes) {
            true => echo(client, &bytes.to_ascii_uppercase()),
            false => echo(client, bytes),
        }),
        ("session_lost", |client, bytes| match later(bytes) {
            true => client.shutdown(std::net::Shutdown::Both).expect("it is connected"),
            false => echo(client, bytes),
        }),
        ("session_timeout", |client, bytes| match later(bytes) {
            true => {}
            false => echo(client, bytes),
        }),
    ];
    for (kind, answer) in cases {
        let address = sessions(answer);
        let run = || load(&address, &["--open", "2", "--clients", "1"]);
        let (report, code) =
            until_there_was_time(run, |(report, _)| report.errors.values().sum::<u64>() >= 2);
        assert_eq!(
            (report.errors.get(kind), report.errors.len(), code),
            (Some(&2), 1, Some(1)),
            "{report:?}"
        );
    }
}

#[test]
fn datagrams_are_counted_and_checked_one_by_one_and_in_pieces() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = format!("udp://{}", socket.local_addr().expect("it is bound"));
    let replies = Arc::new(AtomicU64::new(0));
    let count = replies.clone();
    thread::spawn(move || {
        let mut bytes = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).expect("datagrams come");
            count.fetch_add(1, Ordering::SeqCst);
            // Those that come after the generator has gone reach nobody.
            let _ = socket.send_to(&bytes[..length], from);
        }
    });
    for options in [&["--udp", "--flows", "2", "--in-flight", "8"][..], &["--udp", "--flows", "2", "--gso"]] {
        let run = || {
            let before = replies.load(Ordering::SeqCst);
            let (report, code) = load(&address, options);
            (report, code, before)
        };
        let (report, code, before) =
            until_there_was_time(run, |(report, _, _)| report.done > 0 || !report.errors.is_empty());
        assert_eq!((report.kind.as_str(), code), ("udp", Some(0)), "{report:?}");
        assert!(report.done > 0 && report.errors.is_empty(), "{report:?}");
        assert!(report.checked <= replies.load(Ordering::SeqCst) - before, "{report:?}");
    }
}
