//! Penalties: what a client's end costs its source, and nobody else.

#[path = "support/clients.rs"]
mod clients;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use clients::Family::{Mapped, Unix, V4, V6};
use clients::{Client, Family, HELLO, is_inside, proxy_v1, proxy_v2, uid};
use support::{Folder, left_out_without_root, number, value};
use tine_testkit::refusals::{connect_from, counter, counters, reset, to_the_end};
use tine_testkit::server::until;
use tine_testkit::{Baseline, Server, Signal, procfs};

/// Ends as it is told by its client's first line; otherwise it is an echo of that.
const ENDS: &str = r#"
    read line
    case $line in
        crash) kill -SEGV $$;;
        abort) kill -ABRT $$;;
        kill) kill -KILL $$;;
        term) kill -TERM $$;;
        exit*) exit ${line#exit};;
        *) echo "$line"; cat > /dev/null;;
    esac"#;

/// A server whose program ends as its client says.
fn serve(listeners: &[&str], options: &[&str]) -> Server {
    Server::tine(&[listeners, &["-v"], options, &["--", "sh", "-c", ENDS]].concat())
}

/// Nobody comes from there otherwise.
const FRIEND: Ipv4Addr = Ipv4Addr::new(127, 99, 0, 1);

/// The baseline of such a server, whose probe has an address of its own.
fn baseline(server: &Server) -> Baseline {
    let to = server.socket(0);
    Baseline::with(server, move || Client::from(FRIEND, to, HELLO).is_served_or_why())
}

/// A client whose program ends as it says, when nobody else is there; the end has been counted.
fn ends_as(server: &Server, source: impl Into<IpAddr>, says: &str) {
    until("everybody else has gone", || (server.status().open == 0).then_some(()));
    let served = counter(server, "served");
    let mut client = Client::from(source, server.socket(0), &format!("{says}\n"));
    assert_eq!(client.hears(), "", "{says}\n{}", server.log());
    until("the end is counted", || (counter(server, "served") == served + 1).then_some(()));
}

/// Whether one from there is let in.
fn may_come(server: &Server, source: impl Into<IpAddr>) -> bool {
    Client::from(source, server.socket(0), HELLO).is_served_or_why().is_ok()
}

/// Whether one from there is kept out, where those who are let in may not have the time to be served.
fn is_kept_out(server: &Server, source: impl Into<IpAddr>) -> bool {
    let counted = || ["served", "refused.penalty"].map(|name| counter(server, name));
    let before = counted();
    Client::from(source, server.socket(0), "exit0\n").hears_all();
    let after = until("it is counted", || Some(counted()).filter(|now| *now != before));
    assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>() + 1);
    after[1] > before[1]
}

/// For how long the log says that a source is kept out.
fn for_seconds(server: &Server, source: &str) -> u32 {
    let line = server.wait_log(|line| line.starts_with("penalty ") && value(line, "source") == Some(source));
    number(&line, "for_s")
}

/// The log says of a source, which was not there before, that two prices of ten minutes were added up.
fn is_twice_ten_minutes(server: &Server, source: &str, since: Instant) {
    let seconds = for_seconds(server, source);
    let least = 1199 - since.elapsed().as_secs() as u32;
    assert!((least..=1200).contains(&seconds), "twice ten minutes, but for what has passed: {seconds}");
}

#[test]
fn each_end_costs_what_its_name_says_and_nothing_else() {
    // By themselves, however long that takes; and those that a deadline ends, which nobody else must have.
    let ends: [(&[&str], &[&str]); 2] = [
        (&["crash", "abort", "kill", "term", "exit75", "exit3", "good"], &[]),
        (&["first byte", "whole time"], &["--first-byte-timeout", "200ms", "--time-limit", "400ms"]),
    ];
    let cases: [(&str, &[&str]); 6] = [
        ("crash", &["crash", "abort"]),
        ("signal", &["kill", "term"]),
        ("exit.75", &["exit75"]),
        ("exit", &["exit75", "exit3"]),
        ("timeout", &["first byte", "whole time"]),
        ("refused", &[]),
    ];
    for (name, costly) in cases {
        let penalty = format!("--penalty={name}=1h,min=1h,max=1h");
        let mut kept_out = Vec::new();
        for (ends, deadlines) in ends {
            let server = serve(&["127.0.0.1:0"], &[&[&penalty, "--end", "kill"], deadlines].concat());
            let to = server.socket(0);
            // All of them together: the deadlines take their time.
            let source = |number: usize| Ipv4Addr::new(127, 30, 0, number as u8 + 1);
            let mut clients: Vec<Client> = Vec::new();
            for (number, end) in ends.iter().enumerate() {
                let says = match *end {
                    "first byte" => String::new(),
                    "whole time" | "good" => HELLO.to_owned(),
                    other => format!("{other}\n"),
                };
                clients.push(Client::from(source(number), to, &says));
                if *end == "good" {
                    clients[number].finishes();
                }
            }
            clients.iter_mut().for_each(|client| drop(client.hears_all()));
            until("all have ended", || (counter(&server, "served") == ends.len() as u64).then_some(()));
            let is_out = |number: usize| match deadlines.is_empty() {
                true => !may_come(&server, source(number)),
                false => is_kept_out(&server, source(number)),
            };
            let out: Vec<&str> =
                ends.iter().enumerate().filter(|(n, _)| is_out(*n)).map(|(_, end)| *end).collect();
            assert_eq!(counter(&server, "refused.penalty"), out.len() as u64, "{penalty}\n{}", server.log());
            assert!(server.stop().success());
            kept_out.extend(out);
        }
        assert_eq!(kept_out, costly, "{penalty}");
    }
}

#[test]
fn a_time_is_as_long_as_its_price_and_a_status_has_its_own() {
    let penalty = "--penalty=crash=90s,signal=30s,exit=20s,exit.75=0,max=10m,min=15s";
    let server = serve(&["127.0.0.1:0"], &[penalty]);
    let ends = [("crash", 90), ("kill", 30), ("exit3", 20)];
    for (number, (end, seconds)) in ends.into_iter().enumerate() {
        let source = Ipv4Addr::new(127, 31, 0, number as u8 + 1);
        ends_as(&server, source, end);
        // At most one such line in ten seconds is written; the first is there.
        if number == 0 {
            assert_eq!(for_seconds(&server, &source.to_string()), seconds);
        }
        assert!(!may_come(&server, source), "{end}");
    }
    for _ in 0..10 {
        ends_as(&server, [127, 31, 1, 1], "exit75");
        ends_as(&server, [127, 31, 1, 1], "exit0");
    }
    assert!(may_come(&server, [127, 31, 1, 1]), "75 has a price of its own, which is nothing");
    assert!(server.stop().success());
}

#[test]
fn small_prices_add_up_until_they_count() {
    let server = serve(&["127.0.0.1:0"], &["--penalty", "exit=6m,min=15m,max=1h"]);
    let (source, other) = (Ipv4Addr::new(127, 32, 0, 1), Ipv4Addr::new(127, 32, 0, 2));
    for _ in 0..2 {
        ends_as(&server, source, "exit1");
        assert!(may_come(&server, source), "less than the least");
    }
    assert_eq!(counter(&server, "refused"), 0);
    ends_as(&server, source, "exit1");
    assert!(!may_come(&server, source));
    let seconds = for_seconds(&server, "127.32.0.1");
    assert!(
        (17 * 60..=18 * 60).contains(&seconds),
        "three times six minutes, but for what has passed: {seconds}"
    );
    assert!(may_come(&server, other));
    assert!(server.stop().success());
}

#[test]
fn no_penalty_is_longer_than_the_most_and_each_ends_by_itself() {
    const MOST: Duration = Duration::from_secs(2);
    let server = serve(&["127.0.0.1:0"], &["--penalty", "crash=1h,min=1s,max=2s"]);
    let baseline = baseline(&server);
    let source = Ipv4Addr::new(127, 33, 0, 1);
    // They are all here before the first of them crashes.
    let to = server.socket(0);
    let before = counter(&server, "served");
    let mut together: Vec<_> = (0..20).map(|_| connect_from(source, to).unwrap()).collect();
    until("all of them are here", || (server.status().open == 20).then_some(()));
    let start = Instant::now();
    for client in &mut together {
        client.write_all(b"crash\n").unwrap();
        assert_eq!(to_the_end(client).unwrap(), b"");
    }
    until("all have crashed", || (counter(&server, "served") == before + 20).then_some(()));
    let last = Instant::now();
    let mut tries = 0;
    until("it is over", || {
        tries += 1;
        may_come(&server, source).then_some(())
    });
    assert!(start.elapsed() >= MOST, "{:?}", start.elapsed());
    // Not forty seconds; on a busy machine each try may take a while.
    assert!(last.elapsed() <= MOST * 10, "twenty hours are cut to two seconds, not to {:?}", last.elapsed());
    assert_eq!(for_seconds(&server, "127.33.0.1"), 2);
    // Everything begins anew; on a busy machine two seconds may be over before one has tried.
    until("it is kept out once more", || {
        ends_as(&server, source, "crash");
        (!may_come(&server, source)).then_some(())
    });
    until("it is over once more", || may_come(&server, source).then_some(()));
    assert!(counter(&server, "refused.penalty") >= tries, "{:?}", counters(&server));
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn who_comes_too_often_earns_a_penalty_for_that() {
    let cases: [(&[&str], &str); 2] = [(&["-C", "1"], "source"), (&["--rate-per-source=1/h:1"], "rate")];
    for (limit, why) in cases {
        let server = serve(&["127.0.0.1:0"], &[limit, &["--penalty", "refused=10m,min=15m,max=1h"]].concat());
        let source = Ipv4Addr::new(127, 34, 0, 1);
        let (to, start) = (server.socket(0), Instant::now());
        let mut here = Client::from(source, to, HELLO);
        here.is_served();
        let refused = |why: &str| counter(&server, &format!("refused.{why}"));
        for expected in [(1, 0), (2, 0), (2, 1), (2, 2)] {
            assert!(!may_come(&server, source));
            assert_eq!((refused(why), refused("penalty")), expected, "after two it is too much");
        }
        // Nobody is refused for another's being refused.
        assert!(may_come(&server, [127, 34, 0, 2]));
        // Being refused for the penalty does not make it longer, or nobody who tries again would ever come in.
        is_twice_ten_minutes(&server, "127.34.0.1", start);
        drop(here);
        assert!(server.stop().success());
    }
}

#[test]
fn a_penalty_ends_though_its_source_tries_all_the_time() {
    let server = serve(&["127.0.0.1:0"], &["-C", "1", "--penalty", "refused=1s,crash=1s,min=1s,max=1h"]);
    let source = Ipv4Addr::new(127, 35, 0, 1);
    ends_as(&server, source, "crash");
    let start = Instant::now();
    let mut tries = 0u64;
    until("it may come again", || {
        tries += 1;
        may_come(&server, source).then_some(())
    });
    assert!(start.elapsed() < Duration::from_secs(20), "after {tries} tries, {:?}", start.elapsed());
    assert_eq!(counter(&server, "refused.penalty"), tries - 1);
    assert!(server.stop().success());
}

#[test]
fn whoever_is_exempt_earns_nothing() {
    let folder = Folder::new();
    fs::write(folder.file("rules"), "allow 127.38.0.0/16 exempt\n").unwrap();
    let rules = folder.text("rules");
    let options = ["-C", "1", "--penalty", "crash=1h,refused=1h,min=1s,max=1h", "--rules", &rules];
    let server = serve(
        &["127.0.0.1:0"],
        &[&options[..], &["--penalty-exempt=127.36.0.0/16,127.37.0.1/32,::1"]].concat(),
    );
    for exempt in [[127, 36, 7, 7], [127, 37, 0, 1], [127, 38, 9, 9]] {
        for _ in 0..5 {
            ends_as(&server, exempt, "crash");
        }
        let mut here = Client::from(exempt, server.socket(0), HELLO);
        here.is_served();
        assert_eq!(
            Client::from(exempt, server.socket(0), HELLO).hears(),
            "",
            "limits hold for it all the same"
        );
        drop(here);
        until("it has gone", || (server.status().open == 0).then_some(()));
        assert!(may_come(&server, exempt));
        until("it has gone", || (server.status().open == 0).then_some(()));
    }
    ends_as(&server, [127, 37, 0, 2], "crash");
    assert!(!may_come(&server, [127, 37, 0, 2]), "a neighbour is not");
    assert_eq!((counter(&server, "refused.source"), counter(&server, "refused.penalty")), (3, 1));
    assert!(server.stop().success());
}

#[test]
fn the_others_are_unharmed_by_one_who_is_kept_out_and_comes_again_and_again() {
    let server = serve(&["127.0.0.1:0"], &["--penalty", "crash=1h,min=1s,max=1h"]);
    let baseline = baseline(&server);
    let source = Ipv4Addr::new(127, 39, 0, 1);
    ends_as(&server, source, "crash");
    for neighbour in 2..=20 {
        for _ in 0..50 {
            assert!(!may_come(&server, source));
        }
        assert!(may_come(&server, [127, 39, 0, neighbour]));
    }
    assert_eq!(counter(&server, "refused.penalty"), 19 * 50);
    assert_eq!(counter(&server, "failed"), 1);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

/// A source that has crashed is kept out, another one is not; for each family.
fn one_of_two_is_kept_out(family: Family) {
    let folder = Folder::new();
    let listener = family.listener(&folder.text(""));
    let server = serve(&[&listener], &["--penalty", "crash=1h,min=1s,max=1h"]);
    let enter = |source: u8, says: &str| family.client(server.addr(0), source, says).hears();
    assert_eq!([1, 2].map(|source| enter(source, HELLO)), [HELLO; 2]);
    assert_eq!(enter(1, "crash\n"), "");
    let expected = match family {
        V6 => "fd00:1::".to_owned(),
        Unix => format!("user:{}", uid(1)),
        V4 | Mapped => "127.1.0.1".to_owned(),
    };
    assert_eq!(for_seconds(&server, &expected), 3600);
    assert_eq!([1, 1, 2].map(|source| enter(source, HELLO)), ["", "", HELLO]);
    let refused = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!(value(&refused, "reason"), Some("penalty"));
    assert_eq!(counter(&server, "refused.penalty"), 2);
    if family == V6 {
        let second: IpAddr = "fd00:1::2".parse().unwrap();
        assert!(!may_come(&server, second), "it has all of its /64");
    }
    assert!(server.stop().success());
}

#[test]
fn an_ipv4_address_is_kept_out_at_all_listeners() {
    one_of_two_is_kept_out(V4);
    one_of_two_is_kept_out(Mapped);
    let server = serve(&["127.0.0.1:0", ":0"], &["--penalty", "crash=1h,min=1s,max=1h"]);
    let source = Ipv4Addr::new(127, 40, 0, 1);
    let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port(1)));
    assert_eq!(Client::from(source, mapped, "crash\n").hears(), "");
    assert_eq!(for_seconds(&server, "127.40.0.1"), 3600);
    assert!(!may_come(&server, source));
    assert_eq!(Client::from(source, mapped, HELLO).hears(), "");
    assert!(server.stop().success());
}

#[test]
fn an_ipv6_network_is_kept_out() {
    if is_inside("an_ipv6_network_is_kept_out") {
        one_of_two_is_kept_out(V6);
    }
}

#[test]
fn a_user_is_kept_out() {
    if !left_out_without_root("clients that are other users") {
        one_of_two_is_kept_out(Unix);
    }
}

#[test]
fn who_waits_in_the_room_when_its_source_is_kept_out_goes() {
    let options = ["-c", "1", "--on-full", "queue:8:1h:wait", "-C", "8"];
    let server = serve(&["127.0.0.1:0"], &[&options[..], &["--penalty", "crash=1h,min=1s,max=1h"]].concat());
    let to = server.socket(0);
    let mut first = connect_from(Ipv4Addr::new(127, 41, 0, 1), to).unwrap();
    until("it is here", || (server.status().open == 1).then_some(()));
    let mut second = Client::from(Ipv4Addr::new(127, 41, 0, 1), to, HELLO);
    let mut other = Client::from(Ipv4Addr::new(127, 41, 0, 2), to, HELLO);
    assert_eq!([second.hears(), other.hears()], ["wait\n"; 2]);
    first.write_all(b"crash\n").unwrap();
    assert_eq!(second.hears(), "");
    other.is_served();
    assert_eq!(counter(&server, "refused.penalty"), 1);
    drop(other);
    assert!(server.stop().success());
}

// Behind a balancer: the client pays, never the balancer.

/// Where the balancer is.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 8, 0, 1);

/// One who comes through the balancer with this header, and says this.
fn through(server: &Server, header: impl AsRef<[u8]>, says: &str) -> String {
    let mut stream = connect_from(BALANCER, server.socket(0)).unwrap();
    // Together, as balancers send them; a connection that has ended by now tells its reason all the same.
    let _ = stream.write_all(&[header.as_ref(), says.as_bytes()].concat());
    let mut line = Vec::new();
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        line.push(byte[0]);
        if byte[0] == b'\n' {
            break;
        }
    }
    String::from_utf8(line).unwrap()
}

/// A balancer has so long for its header: who does not mean to wait for that should be far from it.
fn behind(time: &str, options: &[&str]) -> Server {
    let proxy = ["--proxy", "required", "--proxy-from", "127.8.0.0/16", "--proxy-timeout", time];
    serve(&["127.0.0.1:0"], &[&proxy[..], options].concat())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn behind_a_balancer_the_client_is_kept_out_and_never_the_balancer() {
    let server = behind("5s", &["--penalty", "crash=1h,timeout=1h,exit=1h,signal=1h,min=1s,max=1h"]);
    let to = server.socket(0);
    let baseline = Baseline::with(&server, move || {
        let says = format!("PROXY UNKNOWN\r\n{HELLO}");
        Client::from(BALANCER, to, &says).is_served_or_why()
    });
    let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!(through(&server, proxy_v1(bad), "crash\n"), "");
    assert_eq!(for_seconds(&server, "192.0.2.1"), 3600);
    assert_eq!(through(&server, proxy_v1(bad), HELLO), "");
    assert_eq!(through(&server, proxy_v2(Some(bad)), HELLO), "", "in whatever words it is named");
    assert_eq!(through(&server, proxy_v2(Some(ip("::ffff:192.0.2.1"))), HELLO), "");
    assert_eq!(through(&server, proxy_v1(good), HELLO), HELLO);
    // The balancer itself, which asks how the server is; whatever becomes of that.
    for end in ["crash\n", "exit1\n", "kill\n"] {
        assert_eq!(through(&server, proxy_v2(None), end), "");
        assert_eq!(through(&server, "PROXY UNKNOWN\r\n", end), "");
    }
    assert_eq!(through(&server, proxy_v2(None), HELLO), HELLO);
    assert_eq!(through(&server, "PROXY UNKNOWN\r\n", HELLO), HELLO);
    // This one says nothing, and has time for that while others come.
    let silent = connect_from(BALANCER, to).unwrap();
    // A hundred clients of one balancer, each of which earns a penalty.
    for client in 1..=100 {
        let client = IpAddr::from([198, 51, 100, client]);
        let end = ["crash\n", "exit1\n", "kill\n"][usize::from(client.is_ipv4()) % 3];
        assert_eq!(through(&server, proxy_v2(Some(client)), end), "");
    }
    // A balancer that speaks no PROXY, or nothing at all, has done nothing but waste a child.
    for _ in 0..20 {
        assert_eq!(through(&server, "GET / HTTP/1.0\r\n\r\n", ""), "");
    }
    assert_eq!(to_the_end(&silent).unwrap(), b"", "its time is over");
    assert_eq!(through(&server, proxy_v1(good), HELLO), HELLO);
    // Of IPv6 it is the /64.
    assert_eq!(through(&server, proxy_v2(Some(ip("2001:db8:1::1"))), "crash\n"), "");
    until("it has crashed", || (server.status().open == 0).then_some(()));
    assert_eq!(through(&server, proxy_v1(ip("2001:db8:1::2")), HELLO), "");
    assert_eq!(through(&server, proxy_v1(ip("2001:db8:1:1::1")), HELLO), HELLO);
    until("everybody has gone", || (server.status().open == 0).then_some(()));
    let all = counters(&server);
    assert_eq!((all["refused.penalty"], all["refused.proxy"], all["refused"]), (4, 21, 25), "{all:?}");
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn behind_a_balancer_each_client_has_its_own_limits() {
    let server = behind("1h", &["-C", "2:two are enough", "--rate-per-source=5/h:5"]);
    let to = server.socket(0);
    let enter = |client: &str| {
        let says = proxy_v1(ip(client)) + HELLO;
        Client::from(BALANCER, to, &says)
    };
    let clients =
        ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2", "2001:db8::1", "2001:db8::2", "192.0.2.3"];
    let mut here = clients.map(enter);
    here.iter_mut().for_each(Client::is_served);
    for third in ["192.0.2.1", "192.0.2.2", "2001:db8::3"] {
        let mut third = enter(third);
        assert_eq!([third.hears(), third.hears()], ["two are enough\n", ""]);
    }
    // The balancer's own are no client's: no limit holds for those who ask how the server is.
    let mut own: Vec<Client> =
        (0..10).map(|_| Client::from(BALANCER, to, &format!("PROXY UNKNOWN\r\n{HELLO}"))).collect();
    own.iter_mut().for_each(Client::is_served);
    drop((here, own));
    until("everybody has gone", || (server.status().open == 0).then_some(()));
    // Two have been taken of five, those refused not counted.
    let mut came = 0;
    for _ in 0..6 {
        came += usize::from(through(&server, proxy_v2(Some(ip("192.0.2.2"))), HELLO) == HELLO);
        until("it has gone", || (server.status().open == 0).then_some(()));
    }
    assert_eq!(came, 3);
    assert_eq!(through(&server, proxy_v1(ip("192.0.2.4")), HELLO), HELLO);
    let all = counters(&server);
    assert_eq!((all["refused.source"], all["refused.rate"], all["refused"]), (3, 3, 6), "{all:?}");
    // The log names the client, and whom it came through.
    let line = server.wait_log(|line| line.starts_with("accept ") && line.contains("192.0.2.3:"));
    assert!(value(&line, "via").is_some_and(|via| via.starts_with("127.8.0.1:")), "{line}");
    assert!(server.stop().success());
}

#[test]
fn who_says_nothing_and_leaves_earns_a_penalty_for_that() {
    let server = serve(&["127.0.0.1:0"], &["--penalty", "nobytes=10m,min=15m,max=1h"]);
    let baseline = baseline(&server);
    let to = server.socket(0);
    let (source, start) = (Ipv4Addr::new(127, 42, 0, 1), Instant::now());
    let says = |source: Ipv4Addr, bytes: &[u8]| {
        until("everybody has gone", || (server.status().open == 0).then_some(()));
        let served = counter(&server, "served");
        let mut stream = connect_from(source, to).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        to_the_end(&stream).unwrap();
        drop(stream);
        until("it has gone", || (counter(&server, "served") == served + 1).then_some(()));
    };
    // Whose program is quick has read the byte by the time that the master is at work again.
    for _ in 0..40 {
        says(Ipv4Addr::new(127, 42, 0, 2), b"\n");
    }
    assert!(may_come(&server, [127, 42, 0, 2]), "one byte is enough");
    says(source, b"");
    assert!(may_come(&server, source), "ten minutes are less than fifteen");
    says(source, b"");
    assert!(!may_come(&server, source));
    is_twice_ten_minutes(&server, "127.42.0.1", start);
    // Gone before it is accepted, or with a byte before that. (Gone for good while it is served, nothing can be known of.)
    for (source, word, comes) in [([127, 42, 0, 3], "", false), ([127, 42, 0, 4], "x", true)] {
        for _ in 0..2 {
            until("everybody has gone", || (server.status().open == 0).then_some(()));
            let served = counter(&server, "served");
            server.signal(Signal::STOP);
            until("the master stands still", || {
                procfs::stat(server.pid()).is_some_and(|stat| stat.state == 'T').then_some(())
            });
            let mut stream = connect_from(Ipv4Addr::from(source), to).unwrap();
            stream.write_all(word.as_bytes()).unwrap();
            reset(stream).unwrap();
            server.signal(Signal::CONT);
            until("it has gone", || (counter(&server, "served") == served + 1).then_some(()));
        }
        assert_eq!(may_come(&server, source), comes, "{word:?}");
    }
    server.quiescent(&baseline);
    assert!(server.stop().success());
}
