//! Rules: who may come in, what differs for whom, and what happens when they are read again.

#[path = "support/clients.rs"]
mod clients;
mod support;

use std::fs::{self, OpenOptions, Permissions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clients::Family::Unix;
use clients::{Client, HELLO, proxy_v1, proxy_v2, uid};
use support::{Folder, command, is_root, left_out_without_root, run, value};
use tine_testkit::refusals::{counter, counters};
use tine_testkit::server::{DEADLINE, until};
use tine_testkit::{Baseline, Server, Signal, binary};

/// Whether one from there is let in.
fn may_come(server: &Server, source: impl Into<IpAddr>) -> bool {
    Client::from(source, server.socket(0), HELLO).is_served_or_why().is_ok()
}

/// All that one from there hears.
fn hears(server: &Server, source: impl Into<IpAddr>) -> String {
    let mut client = Client::from(source, server.socket(0), "");
    client.finishes();
    client.hears_all()
}

/// A server with a file of rules, and one whose folder it is.
fn with_rules(rules: &str, options: &[&str], program: &[&str]) -> (Folder, Server) {
    let folder = Folder::new();
    fs::write(folder.file("rules"), rules).unwrap();
    let path = folder.text("rules");
    let args = [&["127.0.0.1:0", "-v", "--rules", &path], options, &["--"], program].concat();
    let server = Server::tine(&args);
    (folder, server)
}

/// Writes other rules, and has them read; gives the line of the log that tells what became of them.
fn again(folder: &Folder, server: &Server, rules: &[u8]) -> String {
    fs::write(folder.file("rules"), rules).unwrap();
    reload(server)
}

fn reload(server: &Server) -> String {
    let from = server.cursor();
    server.signal(Signal::HUP);
    server.wait_log_from(from, |line| line.starts_with("reload ")).1
}

#[test]
fn who_is_allowed_comes_in_and_nobody_else() {
    let server =
        Server::tine(&["127.0.0.1:0", "--allow", "127.1.0.0/16,127.2.3.4", "--allow=::1", "--", "cat"]);
    let baseline = Baseline::with(&server, {
        let to = server.socket(0);
        move || Client::from(Ipv4Addr::new(127, 1, 0, 1), to, HELLO).is_served_or_why()
    });
    let cases = [
        ([127, 1, 0, 0], true),
        ([127, 1, 255, 255], true),
        ([127, 2, 3, 4], true),
        ([127, 0, 255, 255], false),
        ([127, 2, 0, 1], false),
        ([127, 2, 3, 3], false),
        ([127, 2, 3, 5], false),
        ([127, 0, 0, 1], false),
    ];
    for (source, comes) in cases {
        assert_eq!(may_come(&server, source), comes, "{source:?}");
    }
    assert_eq!(counter(&server, "refused.denied"), 5);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn who_is_denied_stays_out_and_everybody_else_comes_in() {
    let server = Server::tine(&["127.0.0.1:0", "--deny", "127.1.0.0/16", "--deny=127.2.3.4", "--", "cat"]);
    let cases =
        [([127, 1, 0, 1], false), ([127, 2, 3, 4], false), ([127, 2, 3, 5], true), ([127, 0, 0, 1], true)];
    for (source, comes) in cases {
        assert_eq!(may_come(&server, source), comes, "{source:?}");
    }
    assert!(server.stop().success());
}

#[test]
fn the_most_specific_rule_decides_in_whatever_order_they_stand() {
    let mut rules = [
        ("deny", "all"),
        ("allow", "127.0.0.0/8"),
        ("deny", "127.1.0.0/16"),
        ("allow", "127.1.2.0/24"),
        ("deny", "127.1.2.128/25"),
        ("allow", "127.1.2.200"),
    ];
    let cases = [
        ([127, 0, 0, 1], true),
        ([127, 1, 0, 1], false),
        ([127, 1, 2, 1], true),
        ([127, 1, 2, 127], true),
        ([127, 1, 2, 128], false),
        ([127, 1, 2, 199], false),
        ([127, 1, 2, 200], true),
        ([127, 1, 2, 201], false),
        ([127, 1, 3, 1], false),
        ([127, 2, 2, 200], true),
    ];
    for turn in 0..rules.len() {
        // In the file, and some of them by flags.
        let (flags, lines) = rules.split_at(turn % 4);
        let text: String = lines.iter().map(|(what, who)| format!("{what} {who}\n")).collect();
        let flags: Vec<String> = flags.iter().map(|(what, who)| format!("--{what}={who}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        // --allow alone would deny all others once more, which is a mistake beside the same in the file.
        let said = flags.iter().any(|flag| flag.starts_with("--allow")) && text.contains("deny all");
        let text = if said { text.replace("deny all\n", "") } else { text };
        let (_folder, server) = with_rules(&text, &flags, &["cat"]);
        for (source, comes) in cases {
            assert_eq!(may_come(&server, source), comes, "{source:?} by {flags:?} and\n{text}");
        }
        assert!(server.stop().success());
        rules.rotate_left(1);
    }
}

#[test]
fn an_ipv4_client_is_one_at_a_listener_for_both_and_all_of_ipv6_is_another() {
    let enter = |server: &Server, v6: bool| {
        let (from, to): (IpAddr, IpAddr) = match v6 {
            true => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
            false => (Ipv4Addr::new(127, 1, 0, 1).into(), Ipv4Addr::LOCALHOST.into()),
        };
        let to = SocketAddr::from((to, server.port(0)));
        Client::from(from, to, HELLO).is_served_or_why().is_ok()
    };
    for (rule, v4, v6) in [
        ("--deny=::/0", true, false),
        ("--deny=0.0.0.0/0", false, true),
        ("--allow=::/0", false, true),
        ("--allow=127.1.0.0/16", true, false),
        ("--deny=127.1.0.1", false, true),
        ("--deny=all", false, false),
        ("--deny=unix", true, true),
    ] {
        let server = Server::tine(&[":0", rule, "--", "cat"]);
        assert_eq!([false, true].map(|six| enter(&server, six)), [v4, v6], "{rule}");
        assert!(server.stop().success());
    }
}

#[test]
fn users_are_let_in_by_name_and_by_number() {
    if left_out_without_root("clients that are other users") {
        return;
    }
    let folder = Folder::new();
    let listener = Unix.listener(&folder.text(""));
    let own = |number: u8| uid(number).to_string();
    let cases: [(&[&str], [bool; 3]); 6] = [
        (&["--allow=user:root"], [true, false, false]),
        (&[&format!("--allow=user:{}", own(1))], [false, true, false]),
        (&["--deny=user:0"], [false, true, true]),
        (&["--deny=unix", &format!("--allow=user:root,user:{}", own(2)), "--allow=all"], [true, false, true]),
        (&["--allow=unix", &format!("--deny=user:{}", own(1))], [true, false, true]),
        (&["--allow=127.0.0.0/8"], [false, false, false]),
    ];
    for (flags, expected) in cases {
        let server = Server::tine(&[&[&*listener], flags, &["--", "cat"]].concat());
        let comes = [0, 1, 2].map(|source| Unix.client(server.addr(0), source, HELLO).hears() == HELLO);
        assert_eq!(comes, expected, "{flags:?}");
        assert!(server.stop().success());
    }
}

#[test]
fn a_rule_says_what_differs_for_whom() {
    let folder = Folder::new();
    let other = folder.program("other program", "#!/bin/sh\necho \"other: $0 $# $1\"; printenv GREETING\n");
    let rules = format!(
        "# what differs\n\n\
         allow 127.1.0.0/16 children=1\n\
         allow 127.2.0.0/16 rate=2/h:2 # two\n\
         allow 127.3.0.0/16 env.GREETING=hello env.NAME=\"two words\"\n\
         allow 127.4.0.0/16 exec=\"'{other}' 'an argument'\" env.GREETING=hi\n\
         allow 127.5.0.0/16 exec=\"printenv TCPREMOTEIP\"\n\
         deny  127.6.0.0/16 message=\"Not from there, \\\"friend\\\".\\n\"\n\
         deny  127.7.0.0/16\n"
    );
    let program = ["sh", "-c", r#"printenv GREETING; printenv NAME; cat"#];
    let (_rules, server) = with_rules(&rules, &["-C", "3", "--rate-per-source=1000/s"], &program);
    let to = server.socket(0);
    let baseline =
        Baseline::with(&server, move || Client::from(Ipv4Addr::LOCALHOST, to, HELLO).is_served_or_why());
    for (network, most) in [(1, 1), (9, 3)] {
        // For each source, not for all of them together.
        for host in [1, 2] {
            let source = Ipv4Addr::new(127, network, 0, host);
            let mut here: Vec<Client> = (0..most).map(|_| Client::from(source, to, HELLO)).collect();
            here.iter_mut().for_each(Client::is_served);
            assert!(!may_come(&server, source), "{source}");
        }
        until("they have gone", || (server.status().open == 0).then_some(()));
    }
    assert_eq!(
        [1, 1, 1, 2, 2].map(|host| may_come(&server, [127, 2, 0, host])),
        [true, true, false, true, true]
    );
    assert_eq!(hears(&server, [127, 3, 0, 1]), "hello\ntwo words\n");
    assert_eq!(hears(&server, [127, 4, 0, 1]), format!("other: {other} 1 an argument\nhi\n"));
    assert_eq!(hears(&server, [127, 5, 9, 9]), "127.5.9.9\n");
    assert_eq!(hears(&server, [127, 6, 0, 1]), "Not from there, \"friend\".\n");
    assert_eq!(hears(&server, [127, 7, 0, 1]), "");
    assert_eq!(hears(&server, [127, 8, 0, 1]), "", "nothing differs for others");
    let all = counters(&server);
    assert_eq!((all["refused.source"], all["refused.rate"], all["refused.denied"]), (4, 1, 2), "{all:?}");
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn behind_a_balancer_the_rules_are_about_the_client() {
    let rules = "allow 192.0.2.1 exec=\"echo welcome\" env.GREETING=hello\n\
                 deny 192.0.2.2 message=\"no\"\n\
                 allow 192.0.2.3 children=1\n\
                 deny 2001:db8::/32\n\
                 deny 127.8.0.2\n";
    let proxy = ["--proxy", "required", "--proxy-from", "127.8.0.0/16"];
    let (_folder, server) = with_rules(rules, &proxy, &["cat"]);
    let to = server.socket(0);
    let balancer = Ipv4Addr::new(127, 8, 0, 1);
    let enter = |client: &str| Client::from(balancer, to, &(proxy_v1(client.parse().unwrap()) + HELLO));
    assert_eq!(enter("192.0.2.1").hears(), "welcome\n");
    assert_eq!(enter("192.0.2.2").hears_all(), "no\n");
    let mut here = enter("192.0.2.3");
    here.is_served();
    assert_eq!(enter("192.0.2.3").hears(), "");
    assert_eq!(enter("2001:db8::7").hears(), "");
    assert_eq!(enter("2001:db9::7").hears(), HELLO);
    assert_eq!(enter("192.0.2.4").hears(), HELLO);
    // Of one who speaks for itself, the rule is about itself.
    let own = |host: u8| {
        let from = Ipv4Addr::new(127, 8, 0, host);
        let local = String::from_utf8_lossy(&proxy_v2(None)).into_owned();
        Client::from(from, to, &(local + HELLO)).hears()
    };
    assert_eq!([own(1), own(2)], [HELLO, ""]);
    drop(here);
    until("everybody has gone", || (server.status().open == 0).then_some(()));
    let all = counters(&server);
    assert_eq!((all["refused.denied"], all["refused.source"], all["refused"]), (3, 1, 4), "{all:?}");
    assert!(server.stop().success());
}

#[test]
fn rules_are_read_again_and_who_is_here_stays() {
    let (folder, server) = with_rules(
        "allow 127.1.0.0/16 env.WORD=old\ndeny 127.2.0.0/16\n",
        &[],
        &["sh", "-c", r#"echo "$WORD"; cat"#],
    );
    let to = server.socket(0);
    let baseline = Baseline::with(&server, move || {
        let mut client = Client::from(Ipv4Addr::new(127, 3, 0, 1), to, HELLO);
        client.hears(); // the word, which differs
        client.is_served_or_why()
    })
    .by_kind();
    let (one, two) = (Ipv4Addr::new(127, 1, 0, 1), Ipv4Addr::new(127, 2, 0, 1));
    let mut here = Client::from(one, to, "");
    assert_eq!(here.hears(), "old\n");
    assert_eq!(hears(&server, two), "");

    let told = again(&folder, &server, b"deny 127.1.0.0/16 message=gone\nallow 127.2.0.0/16 env.WORD=new\n");
    assert_eq!(told, "reload rules=2");
    assert!(here.has_heard_nothing());
    assert_eq!([hears(&server, one), hears(&server, two)], ["gone\n", "new\n"]);

    // A mistake changes nothing, whatever stands before and after it, and is told with its line.
    let path = folder.text("rules");
    let mistakes: [(&[u8], &str); 6] = [
        (b"allow all\n\nallow 10.0.0.0/33\n", "line 3"),
        (b"allow 127.1.0.0/16\nallow 127.1.0.0/16\n", "line 2"),
        (b"# fine\nallow 127.1.0.0/16 children=none\ndeny all\n", "line 2"),
        (b"allow 127.1.0.0/16 exec=/nonexistent/program\n", "line 1"),
        (b"allow \xff\n", "line 1"),
        (b"permit all\n", "line 1"),
    ];
    for (rules, place) in mistakes {
        let told = again(&folder, &server, rules);
        let (failed, kept) = (value(&told, "failed").unwrap(), value(&told, "kept"));
        let text = String::from_utf8_lossy(rules);
        assert!(failed.contains(place), "{text}\n{told}");
        assert_eq!(kept, Some("before"), "{told}");
        assert_eq!([hears(&server, one), hears(&server, two)], ["gone\n", "new\n"], "{text}");
    }
    // So does a file that is not there any more, or is none.
    fs::remove_file(folder.file("rules")).unwrap();
    let told = reload(&server);
    assert!(
        told.contains(&path) && told.contains("No such file") && told.ends_with(" kept=before"),
        "{told}"
    );
    fs::create_dir(folder.file("rules")).unwrap();
    let told = reload(&server);
    assert!(told.contains("it is a directory") && told.ends_with(" kept=before"), "{told}");
    fs::remove_dir(folder.file("rules")).unwrap();
    run(Command::new("mkfifo").arg(folder.file("rules")));
    let told = reload(&server);
    assert!(told.contains("it is a FIFO") && told.ends_with(" kept=before"), "{told}");
    fs::remove_file(folder.file("rules")).unwrap();
    assert_eq!([hears(&server, one), hears(&server, two)], ["gone\n", "new\n"]);

    // And then a good one works, by whatever way it comes there.
    fs::write(folder.file("newer"), "allow all env.WORD=newer\n").unwrap();
    symlink(folder.file("newer"), folder.file("rules")).unwrap();
    assert_eq!(reload(&server), "reload rules=1");
    assert_eq!([hears(&server, one), hears(&server, two)], ["newer\n"; 2]);
    // Whoever was here is here, and finds its program as it was.
    assert!(here.has_heard_nothing());
    here.finishes();
    assert_eq!(here.hears(), "");
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn who_waits_and_is_denied_by_newer_rules_goes() {
    let (folder, server) = with_rules("allow all\n", &["-c", "1", "--on-full", "queue:8:1h:wait"], &["cat"]);
    let to = server.socket(0);
    let mut here = Client::from(Ipv4Addr::new(127, 1, 0, 1), to, HELLO);
    here.is_served();
    let waits = |network| {
        let mut client = Client::from(Ipv4Addr::new(127, network, 0, 2), to, HELLO);
        assert_eq!(client.hears(), "wait\n");
        client
    };
    let (mut one, mut two) = (waits(1), waits(2));
    assert_eq!(again(&folder, &server, b"deny 127.1.0.0/16 message=\"not any more\"\n"), "reload rules=1");
    drop(here);
    assert_eq!(one.hears_all(), "not any more\n");
    two.is_served();
    assert_eq!(counter(&server, "refused.denied"), 1);
    drop(two);
    assert!(server.stop().success());
}

#[test]
fn rules_that_are_read_again_and_again_leave_nothing_behind() {
    // Few enough that one lot more or less is nothing beside what may come and go, and many lots of them are.
    const RULES: usize = 500;
    let lot = |network: u8| -> String {
        let host = |n: usize| format!("deny 127.{network}.{}.{} message=\"no {n}\"\n", n / 25, n % 25);
        (0..RULES).map(host).collect()
    };
    let (folder, server) = with_rules(&lot(1), &[], &["cat"]);
    let to = server.socket(0);
    let served = move || Client::from(Ipv4Addr::LOCALHOST, to, HELLO).is_served_or_why();
    again(&folder, &server, lot(2).as_bytes()); // while rules are read there are both, and memory for both
    let baseline = Baseline::with(&server, served).by_kind();
    for turn in 0..200u8 {
        let network = 1 + turn % 2;
        assert_eq!(again(&folder, &server, lot(network).as_bytes()), format!("reload rules={RULES}"));
        assert_eq!(hears(&server, [127, network, 1, 7]), "no 32\n");
        assert!(may_come(&server, [127, 3 - network, 1, 7]));
    }
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_listener_goes_on_while_rules_are_read() {
    let (folder, server) = with_rules("deny 127.2.0.0/16\n", &["-C", "256"], &["cat"]);
    let baseline = Baseline::of(&server).by_kind();
    let (enough, start) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        // They come until rules have been read several times, however long that takes.
        let clients = scope.spawn(|| {
            loop {
                let churn = tine_testkit::churn(&[server.addr(0)], 500, 4);
                assert_eq!((churn.replies_ok, churn.errors.len()), (500, 0), "{churn:?}");
                if enough.load(Ordering::Relaxed) || start.elapsed() > DEADLINE {
                    return;
                }
            }
        });
        let mut turn = 0;
        while !clients.is_finished() {
            turn += 1;
            enough.store(turn > 3, Ordering::Relaxed);
            let good = turn % 3 != 0;
            let told = again(&folder, &server, if good { b"deny 127.2.0.0/16\n" } else { b"nonsense\n" });
            assert_eq!(told.starts_with("reload rules=1"), good, "{told}");
        }
        clients.join().expect("the clients do not panic");
        assert!(turn > 1);
    });
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn hangups_without_a_file_of_rules_change_nothing() {
    let server = Server::tine(&["127.0.0.1:0", "--deny", "127.2.0.0/16", "--", "cat"]);
    for _ in 0..10 {
        server.signal(Signal::HUP);
    }
    server.status();
    assert!(!server.log().lines().any(|line| line.starts_with("reload ")), "{}", server.log());
    assert_eq!([[127, 1, 0, 1], [127, 2, 0, 1]].map(|source| may_come(&server, source)), [true, false]);
    assert!(server.stop().success());
}

#[test]
fn what_is_no_file_of_rules_is_a_mistake_at_once() {
    let folder = Folder::new();
    run(Command::new("mkfifo").arg(folder.file("fifo")));
    fs::create_dir(folder.file("folder")).unwrap();
    let _socket = UnixListener::bind(folder.file("socket")).unwrap();
    fs::write(folder.file("secret"), "allow all\n").unwrap();
    fs::set_permissions(folder.file("secret"), Permissions::from_mode(0o000)).unwrap();
    symlink(folder.file("loop"), folder.file("loop")).unwrap();
    fs::write(folder.file("huge"), "").unwrap();
    OpenOptions::new().write(true).open(folder.file("huge")).unwrap().set_len(101 << 20).unwrap();
    fs::write(folder.file("long"), format!("deny all message={}\n", "x".repeat(5000))).unwrap();
    fs::write(folder.file("wrong"), "allow all\n\ndeny 10.1.2.3/8\n").unwrap();
    let tine = folder.copy(binary("tine"), "tine");
    let cases = [
        ("missing", "No such file or directory"),
        ("fifo", "it is a FIFO; rules are read from a regular file"),
        ("folder", "it is a directory; rules are read from a regular file"),
        ("socket", "it is a socket; rules are read from a regular file"),
        ("/dev/null", "it is a device; rules are read from a regular file"),
        ("secret", "Permission denied"),
        ("loop", "Too many levels of symbolic links"),
        ("huge", "it has more than 100 MiB"),
        ("long", " line 1: a line has at most 4096 bytes"),
        ("wrong", " line 3: "),
    ];
    let mut codes = Vec::new();
    for (name, expected) in cases {
        let path = if name.starts_with('/') { name.to_owned() } else { folder.text(name) };
        let mut command = command(&tine);
        command.args(["serve", "127.0.0.1:0", "--rules", &path, "--", "/bin/cat"]).current_dir("/");
        if is_root() {
            command.uid(65_534).gid(65_534); // for whom there are secrets
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("tine: ") && last.contains(&path) && last.contains(expected),
            "{name}: {said}"
        );
        codes.push((name, output.status.code()));
    }
    // A program that is not there is one too, in whatever rule it stands.
    fs::write(folder.file("rules"), "allow 10.0.0.0/8 exec=/nonexistent/program\n").unwrap();
    let output = command(&tine)
        .args(["serve", "127.0.0.1:0", "--rules", &folder.text("rules"), "--", "/bin/cat"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("line 1") && said.contains("/nonexistent/program: No such file"), "{said}");
    codes.push(("no program", output.status.code()));
    // It is the operator who has named it, and who can mend it.
    let wrong: Vec<_> = codes.iter().filter(|(_, code)| *code != Some(100)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_deadline_of_a_rules_fifo_is_none() {
    // A FIFO in the place of the rules, with nobody who writes, must not stop a server that reads them again.
    let (folder, server) = with_rules("allow all\n", &[], &["cat"]);
    fs::remove_file(folder.file("rules")).unwrap();
    run(Command::new("mkfifo").arg(folder.file("rules")));
    server.signal(Signal::HUP);
    assert!(may_come(&server, [127, 1, 0, 1]));
    let told =
        server.log_within(0, DEADLINE.min(Duration::from_secs(10)), |line| line.starts_with("reload "));
    assert!(told.expect("it is told").1.contains("it is a FIFO"));
    assert!(server.stop().success());
}
