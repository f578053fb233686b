//! How tine ends connections: by a deadline, because the client is gone, in the order that was asked for; and that nothing
//! else is ended.

#[path = "support/puppet.rs"]
mod puppet;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use puppet::{Client, PUPPET, puppets};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Folder, count, left_out_without_root, need, number, run, told, traced, value};
use tine_testkit::server::{DEADLINE, listeners_among, tine_command, until, until_within};
use tine_testkit::{Baseline, Ready, Server, Signal, Stream, ask};

/// A listener of each family that a client can come over, and what its clients' source is called.
fn families(folder: &Folder, name: &str) -> [(String, String); 3] {
    let uid = told(Command::new("id").arg("-u"));
    [
        ("127.0.0.1:0".into(), "127.0.0.1".into()),
        ("[::1]:0".into(), "::".into()),
        (format!("unix:{}", folder.text(name)), format!("user:{}", uid.trim())),
    ]
}

/// Does something with each of these at the same time.
fn all<T: Send>(each: impl IntoIterator<Item = T>, what: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for one in each {
            scope.spawn(|| what(one));
        }
    });
}

/// For how long those are idle whom it ends: time enough for a program to begin and to do what its client says, on a busy machine too.
const IDLE: Duration = Duration::from_secs(6);
const IDLE_TIMEOUT: [&str; 2] = ["--idle-timeout", "6s"];

/// An end that is due after so long comes no sooner, and not much later.
fn is_timely(end: &str, due: Duration) {
    let took = Duration::from_millis(number(end, "ms").into());
    assert!((due..due + Duration::from_secs(15)).contains(&took), "{end}");
}

/// How often something is tried that shows nothing where the machine keeps a program from its processor for a second or two: for as
/// long tine lets it be.
const TRIES: usize = 5;

/// The end of the only child that a server has had and that was ended.
fn the_end(server: &Server) -> String {
    server.wait_log(|line| line.starts_with("end ") && line.contains(" reason="))
}

/// A client that is idle comes to its end by a deadline; the log says by which.
fn idles_to_its_end(server: &Server, reason: &str) {
    let client = Client::of(server);
    if reason == "idle" {
        client.order("hello");
        assert_eq!(client.line(), "hello");
    }
    client.end();
    let end = the_end(server);
    assert_eq!((value(&end, "signal"), value(&end, "reason")), (Some("1"), Some(reason)), "{end}");
    is_timely(&end, IDLE);
}

const DEADLINES: [(&str, &str); 3] =
    [("--first-byte-timeout", "first-byte"), ("--idle-timeout", "idle"), ("--time-limit", "time-limit")];

#[test]
fn each_deadline_shows_its_reason_and_costs_its_source_what_the_penalty_says() {
    let folder = Folder::new();
    let cases = DEADLINES.into_iter().flat_map(|(option, reason)| {
        families(&folder, reason).map(|(address, source)| (option, reason, address, source))
    });
    all(cases, |(option, reason, address, source)| {
        let penalty = ["--penalty", "timeout=20s,min=15s"];
        let server = Server::tine(
            &[&[&address, "-v", option, IDLE_TIMEOUT[1]], &penalty[..], &["--", "cat"]].concat(),
        );
        let where_to = server.addr(0).to_owned();
        let baseline = Baseline::with(&server, move || ask(&where_to, b"").map(drop));
        idles_to_its_end(&server, reason);
        let penalty = server.wait_log(|line| line.starts_with("penalty "));
        assert_eq!((value(&penalty, "source"), number(&penalty, "for_s")), (Some(&*source), 20), "{penalty}");
        Client::of(&server).end();
        let refused = server.wait_log(|line| line.starts_with("refuse "));
        assert_eq!(value(&refused, "reason"), Some("penalty"), "{refused}");
        server.quiescent(&baseline);
        assert!(server.stop().success());
    });
}

#[test]
fn a_deadline_costs_an_exempt_source_nothing_and_a_source_that_has_earned_too_little_nothing_yet() {
    let exempt = ["--penalty", "timeout=20s,min=15s", "--penalty-exempt", "::/0,127.0.0.0/8"];
    let little = ["--penalty", "timeout=10s,min=15s"];
    let cases = [("127.0.0.1:0", &exempt[..]), ("[::1]:0", &exempt), ("127.0.0.1:0", &little)];
    all(cases, |(address, penalty)| {
        let server = Server::tine(&[&[address, "-v"], &IDLE_TIMEOUT[..], penalty, &["--", "cat"]].concat());
        idles_to_its_end(&server, "idle");
        assert_eq!(ask(server.addr(0), b"once more").unwrap(), b"once more");
        assert_eq!(count(&server, |line| line.starts_with("penalty ") || line.starts_with("refuse ")), 0);
        assert!(server.stop().success());
    });
}

/// How long a connection is kept busy below, and by what pace: for longer than the deadline, and many times within it.
const BUSY: Duration = Duration::from_secs(8);
const PACE: Duration = Duration::from_millis(100);

/// How often something is done at that pace.
fn paces() -> u128 {
    BUSY.as_millis() / PACE.as_millis()
}

#[test]
fn bytes_either_way_outlive_the_idle_timeout_and_so_does_a_client_that_has_half_closed() {
    let folder = Folder::new();
    let talks = ["the client", "the program", "the program, to a client that has half-closed"];
    let cases = families(&folder, "x").into_iter().enumerate().flat_map(|(family, (address, _))| {
        talks.map(|talks| {
            let name = format!("{family}-{}", talks.len());
            (if family == 2 { format!("unix:{}", folder.text(&name)) } else { address.clone() }, talks)
        })
    });
    all(cases, |(address, talks)| {
        let server = puppets(&[&[address.as_str(), "-v"], &IDLE_TIMEOUT[..], &["--end", "kill"]].concat());
        let client = Client::of(&server);
        let start = Instant::now();
        match talks {
            "the client" => {
                client.order("sink");
                client.0.set_timeout(Some(PACE)).unwrap();
                for _ in 0..paces() {
                    let silence = (&mut &client.0).read(&mut [0]);
                    let silence = silence.expect_err("the program says nothing, and is not ended");
                    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
                    client.order("one more line that nobody answers");
                }
                client.0.set_timeout(Some(DEADLINE)).unwrap();
            }
            how => {
                let half = how != "the program";
                client.order(&format!("tick {} {}", PACE.as_millis(), paces()));
                client.order(if half { "exit 9" } else { "say done" });
                if half {
                    client.0.finish().unwrap();
                }
                let mut dots = vec![0; paces() as usize];
                (&mut &client.0)
                    .read_exact(&mut dots)
                    .unwrap_or_else(|why| server.fail(&format!("{talks}: {why}")));
                assert_eq!(dots, b".".repeat(dots.len()));
                if half {
                    client.end();
                    server.wait_log(|line| line.starts_with("end ") && line.contains(" exit=9 "));
                    return;
                }
                assert_eq!(client.line(), "done");
            }
        }
        assert!(start.elapsed() >= BUSY);
        assert_eq!(count(&server, |line| line.starts_with("end ")), 0, "{}", server.log());
        // And now nobody says anything.
        client.end();
        let end = the_end(&server);
        assert_eq!(value(&end, "reason"), Some("idle"), "{end}");
        assert!(u128::from(number(&end, "ms")) >= (BUSY + IDLE).as_millis(), "{end}");
    });
}

#[test]
fn the_time_limit_ends_whoever_talks() {
    let folder = Folder::new();
    all(families(&folder, "x"), |(address, _)| {
        const LIMIT: Duration = Duration::from_secs(8);
        let limits = [&["--time-limit", "8s"], &IDLE_TIMEOUT[..]].concat();
        let server = Server::tine(&[&[address.as_str(), "-v"], &limits[..], &["--", "cat"]].concat());
        let client = Client::of(&server);
        let mut said = 0;
        let why = loop {
            let mut byte = [0];
            let mut stream = &client.0;
            match stream.write_all(b".").and_then(|()| stream.read(&mut byte)) {
                Ok(0) => break None,
                Ok(_) => said += 1,
                Err(why) => break Some(why),
            }
            until_within(PACE / 10, || None::<()>); // the processors are for others too
        };
        // What is said just when the program ends may be answered by a reset.
        let usual = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(why.as_ref().is_none_or(|why| usual.contains(&why.kind())), "{why:?}");
        assert!(said > 10, "only {said} bytes were answered");
        let end = the_end(&server);
        assert_eq!((value(&end, "reason"), value(&end, "signal")), (Some("time-limit"), Some("1")), "{end}");
        is_timely(&end, LIMIT);
    });
}

/// The signals that a program has told of, with their times in milliseconds since the first.
fn heeded(server: &Server) -> Vec<(String, u64)> {
    let (mut all, log) = (Vec::<(String, f64)>::new(), server.log());
    for line in log.lines().filter_map(|line| line.strip_prefix("got ")) {
        let (name, at) = line.split_once(" at ").expect("when");
        all.push((name.to_owned(), at.parse().expect("seconds")));
    }
    let first = all.first().map_or(0.0, |(_, at)| *at);
    all.into_iter().map(|(name, at)| (name, ((at - first) * 1000.0).round() as u64)).collect()
}

#[test]
fn the_steps_of_an_end_come_in_their_order_and_with_their_pauses() {
    // A program that is late to hear of the first hears of the others when they come all the same.
    const PAUSE: Duration = Duration::from_secs(4);
    let end = ["--end", "hup:4s,int,term:4s,kill"];
    let server = puppets(&[&["127.0.0.1:0", "-v"], &IDLE_TIMEOUT[..], &end].concat());
    let client = Client::of(&server);
    client.have(&["heed"]);
    client.end();
    let end = the_end(&server);
    assert_eq!((value(&end, "signal"), value(&end, "reason")), (Some("9"), Some("idle")), "{end}");
    // Silence, and the pauses of the sequence.
    is_timely(&end, IDLE + 2 * PAUSE);
    let heeded = heeded(&server);
    let (first, rest) = heeded.split_first().expect("signals came");
    assert_eq!(first.0, "HUP");
    // Two that come at once are taken in any order.
    let mut names: Vec<_> = rest.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["INT", "TERM"]);
    assert!(rest.iter().all(|(_, ms)| (395..12_000).contains(ms)), "{rest:?}");
    assert!(server.stop().success());
}

#[test]
fn an_end_by_kill_alone_is_one_and_whoever_ends_at_a_step_is_spared_the_next() {
    let cases = [
        ("kill", "heed to death", "signal", "9", &[][..]),
        ("hup:200ms,term:20s,kill", "heed to death", "exit", "7", &["HUP", "TERM"]),
        ("term:20s,kill", "heed to death", "exit", "7", &["TERM"]),
        ("usr1:20s,kill", "heed to death", "signal", "10", &[]),
    ];
    all(cases, |(sequence, order, how, code, signals)| {
        let server = puppets(&[&["127.0.0.1:0", "-v", "--end", sequence], &IDLE_TIMEOUT[..]].concat());
        let client = Client::of(&server);
        client.have(&[order]);
        client.end();
        let end = the_end(&server);
        assert_eq!((value(&end, how), value(&end, "reason")), (Some(code), Some("idle")), "{end}");
        is_timely(&end, IDLE);
        let heeded = heeded(&server);
        let names: Vec<_> = heeded.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, signals, "{sequence}");
        assert!(server.stop().success());
    });
}

const QUICK_END: [&str; 2] = ["--end", "hup:100ms,term:100ms,kill"];

#[test]
fn a_program_that_takes_no_notice_is_ended_when_its_client_is_gone() {
    let folder = Folder::new();
    all(families(&folder, "x"), |(address, _)| {
        let server = puppets(&[&[address.as_str(), "-v"], &QUICK_END[..]].concat());
        let where_to = server.addr(0).to_owned();
        let baseline = Baseline::with(&server, move || ask(&where_to, b"").map(drop));
        let client = Client::of(&server);
        client.have(&["deaf"]);
        client.order("sleep");
        client.reset();
        let end = the_end(&server);
        assert_eq!((value(&end, "signal"), value(&end, "reason")), (Some("9"), Some("gone")), "{end}");
        // A second to notice, and the pauses of the sequence.
        is_timely(&end, Duration::from_millis(1200));
        server.quiescent(&baseline);
        assert!(server.stop().success());
    });
}

#[test]
fn a_connection_that_both_sides_have_ended_is_over_whoever_sleeps() {
    let folder = Folder::new();
    all(families(&folder, "x"), |(address, _)| {
        let server = puppets(&[&[address.as_str(), "-v"], &QUICK_END[..]].concat());
        let client = Client::of(&server);
        client.have(&["deaf"]);
        client.order("shut");
        client.order("sleep");
        client.end();
        assert!(server.log_within(0, Duration::from_millis(1500), |line| line.starts_with("end ")).is_err());
        client.0.finish().unwrap();
        let end = the_end(&server);
        assert_eq!((value(&end, "signal"), value(&end, "reason")), (Some("9"), Some("gone")), "{end}");
        assert!(server.stop().success());
    });
}

#[test]
fn a_client_that_only_half_closes_is_answered_whenever_the_program_is_ready() {
    const MUCH: usize = 1 << 20;
    let folder = Folder::new();
    all(families(&folder, "x"), |(address, _)| {
        let server = puppets(&[&[address.as_str(), "-v"], &QUICK_END[..]].concat());
        let client = Client::of(&server);
        // Longer than a client may be gone before its child is told.
        ["sleep 2500", &format!("much {MUCH}"), "exit 4"].iter().for_each(|what| client.order(what));
        client.0.finish().unwrap();
        let answer = client.0.rest().expect("an end, and no reset");
        assert!(answer == b"x".repeat(MUCH), "{} bytes", answer.len());
        let end = server.wait_log(|line| line.starts_with("end "));
        assert_eq!((value(&end, "exit"), value(&end, "reason")), (Some("4"), None), "{end}");
        assert!(server.stop().success());
    });
}

#[test]
fn a_program_that_notices_by_itself_that_its_client_is_gone_was_not_ended() {
    let folder = Folder::new();
    all(families(&folder, "x"), |(address, _)| {
        let server = Server::tine(&[&address, "-v", "--", "cat"]);
        let end = |_| {
            let from = server.cursor();
            let client = Client::of(&server);
            client.order("hello");
            assert_eq!(client.line(), "hello");
            client.reset();
            server.wait_log_from(from, |line| line.starts_with("end ")).1
        };
        // It has a second, and is told then.
        let by_itself = |end: &String| value(end, "reason").is_none();
        let end = (0..TRIES).map(end).find(by_itself).unwrap_or_else(|| server.fail("it is always ended"));
        assert!(number(&end, "ms") < 1000 || value(&end, "signal").is_none(), "{end}");
        assert!(server.stop().success());
    });
}

#[test]
fn a_drain_ends_whoever_heeds_sigterm_by_sigterm() {
    const ASLEEP: &str = r#"$| = 1; print "ready\n"; sleep 1 while 1"#;
    const LEAVES: &str = r#"$| = 1; $SIG{TERM} = sub { exit 3 }; print "ready\n"; sleep 1 while 1"#;
    let programs: [(&[&str], bool); 4] = [
        (&["sleep", "1000"], false),
        (&["sh", "-c", "sleep 1000; echo not said"], false),
        (&["perl", "-e", ASLEEP], true),
        (&["perl", "-e", LEAVES], true),
    ];
    all(programs, |(program, says)| {
        let is_prompt = |_| {
            let server = Server::tine(&[&["127.0.0.1:0", "-v", "--drain", "0", "--"], program].concat());
            let client = Client::of(&server);
            let child = number(&server.wait_log(|line| line.starts_with("accept ")), "child");
            if says {
                assert_eq!(client.line(), "ready");
            }
            let start = Instant::now();
            server.signal(Signal::TERM);
            client.end();
            assert!(server.wait().success());
            let took = start.elapsed();
            assert_eq!(support::session(child), []);
            let is_prompt = took < Duration::from_secs(2) && !was_killed(&server);
            let end = server.wait_log(|line| line.starts_with("end "));
            assert!(
                value(&end, "signal") == Some("15") || value(&end, "exit") == Some("3") || !is_prompt,
                "{program:?}: {end}"
            );
            is_prompt
        };
        assert!((0..TRIES).any(is_prompt), "{program:?} takes two seconds to end, always");
    });
}

/// Whether somebody has not ended by SIGTERM in the two seconds that a drain waits for it.
fn was_killed(server: &Server) -> bool {
    count(server, |line| line.starts_with("signal sent=KILL")) > 0
}

#[test]
fn a_drain_ends_a_child_that_leads_no_group_yet_by_sigterm_too() {
    let folder = Folder::new();
    let delay = ["-f", "-e", "trace=setsid", "-e", "inject=setsid:delay_enter=1000000"];
    let args = ["127.0.0.1:0", "-v", "--drain", "0", "--", "sleep", "1000"];
    let is_heeded = |_| {
        let server = traced(&folder.file("trace"), &delay, &args);
        let client = Client::of(&server);
        server.wait_log(|line| line.starts_with("accept "));
        server.signal(Signal::TERM);
        client.end();
        assert!(server.wait().success());
        let (end, killed) = (server.wait_log(|line| line.starts_with("end ")), was_killed(&server));
        assert!(value(&end, "signal") == Some("15") || killed, "{end}");
        !killed
    };
    assert!((0..TRIES).any(is_heeded), "it is always killed");
}

/// Answers all but a client's first line, and sends much to whoever asks for that.
const READER: &str = r#"read -r line; [ "$line" = much ] && head -c 400000 /dev/zero; exec cat"#;

#[test]
fn two_thousand_slow_clients_come_to_their_end_and_others_are_served_meanwhile() {
    const SLOW: usize = 2000;
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("up to the hard limit");

    let limits = ["-c", "550", "--reserve", "50", "-C", "2000", "--end", "term:1s,kill"];
    // Time enough for a program to begin and answer, for those who are not slow have the same.
    let deadlines = ["--first-byte-timeout", "3s", "--idle-timeout", "4500ms", "--time-limit", "30s"];
    let server = Server::tine(
        &[&["127.0.0.1:0", "-v"], &limits[..], &deadlines, &["--", "sh", "-c", READER]].concat(),
    );
    let address = server.addr(0).to_owned();
    let fast = move || ask_from("127.1.0.1", &address, b"\nhello\n");
    assert_eq!(fast(), b"hello\n");
    // Its child must have gone, or it would be one of those that the server has at rest.
    server.wait_log(|line| line.starts_with("end "));
    let warm = fast.clone();
    let baseline = Baseline::with(&server, move || {
        (warm() == b"hello\n").then_some(()).ok_or_else(|| ErrorKind::InvalidData.into())
    });

    let start = Instant::now();
    let kinds: [(&[u8], usize); 3] = [(b"", SLOW / 2), (b"a", SLOW / 2 - 200), (b"much\n", 200)];
    let mut slow = Vec::new();
    for (bytes, count) in kinds {
        for _ in 0..count {
            let stream = Stream::connect(server.addr(0)).unwrap();
            (&mut &stream).write_all(bytes).unwrap();
            slow.push(stream);
        }
    }
    let (mut served, mut worst) = (0, Duration::ZERO);
    let reclaimed = || {
        let status = server.status();
        assert!(status.open <= 550, "{status:?}");
        // Those of the slow who found no room to wait in were sent away.
        (status.open == 0).then_some(())
    };
    until("all slots are free", || {
        let begun = Instant::now();
        assert_eq!(fast(), b"hello\n");
        (served, worst) = (served + 1, worst.max(begun.elapsed()));
        reclaimed()
    });
    eprintln!(
        "{SLOW} slow clients: {:?}; {served} others were served meanwhile, in {worst:?} at most",
        start.elapsed()
    );
    assert!(served > 10, "{served}");
    assert!(worst < Duration::from_secs(9), "{worst:?}");
    for reason in ["first-byte", "idle"] {
        server.wait_log(|line| line.starts_with("end ") && value(line, "reason") == Some(reason));
    }
    // Each has heard of its end, and none stands in the kernel's tables any more.
    for stream in &slow {
        match stream.rest() {
            Ok(answer) => assert!(answer.len() <= 400_000),
            Err(why) => assert_eq!(why.kind(), ErrorKind::ConnectionReset),
        }
    }
    drop(slow);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

/// Sends a question from one of this machine's own addresses, half-closes, and gives the answer.
fn ask_from(source: &str, address: &str, question: &[u8]) -> Vec<u8> {
    let stream = puppet::connect_from(source, address).expect("a connection");
    (&mut &stream).write_all(question).expect("it stands");
    stream.finish().expect("it stands");
    stream.rest().expect("an end, and no reset")
}

/// Two network namespaces and a wire between them, at whose ends are 198.18.0.1 and 198.18.0.2 (RFC 2544: for such tests).
struct Wire {
    server: String,
    client: String,
}

impl Wire {
    fn new() -> Wire {
        need("ip", "iproute2");
        let name = |end: &str| format!("tine-test-{}-{end}", process::id());
        let wire = Wire { server: name("server"), client: name("client") };
        for namespace in [&wire.server, &wire.client] {
            run(Command::new("ip").args(["netns", "add", namespace]));
        }
        let ends = ["name", "tine0", "netns", &wire.server, "type", "veth", "peer", "name", "tine0", "netns"];
        run(Command::new("ip").args(["link", "add"]).args(ends).arg(&wire.client));
        for (namespace, address) in [(&wire.server, "198.18.0.1/30"), (&wire.client, "198.18.0.2/30")] {
            run(Command::new("ip").args(["-n", namespace, "address", "add", address, "dev", "tine0"]));
            run(Command::new("ip").args(["-n", namespace, "link", "set", "tine0", "up"]));
        }
        wire
    }

    /// A command in a namespace, with the file systems of this process: ip-netns(8) would mount another /sys.
    fn within(namespace: &str, command: &Command) -> Command {
        let mut within = Command::new("nsenter");
        within
            .arg(format!("--net=/run/netns/{namespace}"))
            .arg(command.get_program())
            .args(command.get_args());
        within
    }

    /// From here on whatever is sent is lost, and nobody is told.
    fn cut(&self) {
        run(Command::new("ip").args(["-n", &self.client, "link", "set", "tine0", "down"]));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// Connects, says what it is told to, reads a line, and stays.
const STAYS: &str = r#"
    use strict; use warnings; use IO::Socket::INET;
    my ($to, @lines) = @ARGV;
    my $socket = IO::Socket::INET->new(PeerAddr => $to, Timeout => 20) or die "connect: $@";
    print $socket "$_\n" for @lines;
    $socket->flush;
    defined(my $answer = <$socket>) or die "no answer: $!";
    $| = 1;
    print $answer;
    sleep 1 while 1;
"#;

/// A client beyond the wire, killed when it is dropped.
struct Remote(Child);

impl Remote {
    fn new(wire: &Wire, server: &Server, lines: &[&str]) -> Remote {
        let mut client = Command::new("perl");
        client.args(["-e", STAYS, server.addr(0)]).args(lines);
        let mut child = Wire::within(&wire.client, &client).stdout(Stdio::piped()).spawn().expect("nsenter");
        let stdout = child.stdout.take().expect("it is piped");
        let remote = Remote(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "hello\n");
        remote
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_whose_network_is_lost_is_reclaimed_in_time() {
    if left_out_without_root("a network of one's own") {
        return;
    }
    // A program that is kept from its processor for a second does not notice by itself.
    assert!((0..TRIES).any(|_| all_notice_in_time()), "one that could notice is always ended");
}

/// Loses the network of three clients, who are reclaimed in time; gives whether both programs that could have noticed that by themselves.
fn all_notice_in_time() -> bool {
    let wire = Wire::new();
    let listener = "198.18.0.1:0?keepalive=1,1,2&user-timeout=3000";
    let start = |args: &[&str]| {
        let args = [&[listener, "-v", "--end", "hup:100ms,kill"], args].concat();
        let server = Server::start(
            Wire::within(&wire.server, &tine_command(&args)),
            Ready::Ports(listeners_among(&args)),
        );
        let (pid, listen) = (server.pid(), server.wait_log(|line| line.starts_with("listen ")));
        assert_eq!(value(&listen, "trees"), Some("cgroup"), "{pid}: {listen}");
        server
    };
    let (cat, sleeper, talker) = (start(&["--", "cat"]), start(&PUPPET), start(&PUPPET));
    let _clients = [
        Remote::new(&wire, &cat, &["hello"]),
        Remote::new(&wire, &sleeper, &["say hello", "deaf", "sleep"]),
        Remote::new(&wire, &talker, &["say hello", "deaf", "tick 50 1000000"]),
    ];
    wire.cut();
    let cut = Instant::now();
    // Keepalive takes three seconds, the user timeout too; a program has one more to notice.
    let bound = Duration::from_secs(25);
    let mut all = true;
    for (server, name, how, reason) in [
        (&cat, "a reader", "exit", None),
        (&talker, "a writer", "signal", None),
        (&sleeper, "a sleeper", "signal", Some("gone")),
    ] {
        let end = server.wait_log(|line| line.starts_with("end "));
        eprintln!("{name} was reclaimed {:?} after the network was lost", cut.elapsed());
        let is_told = value(&end, "reason") == Some("gone") && reason.is_none();
        all &= !is_told;
        let expected = (value(&end, how).is_some(), value(&end, "reason")) == (true, reason);
        assert!(expected || is_told, "{name}: {end}");
        assert!(cut.elapsed() < bound, "{name}: {:?}", cut.elapsed());
        assert_eq!(server.status().open, 0);
        assert!(server.stop().success());
    }
    all
}

/// A library that gives a program another time than the clock on the wall, from faketime(1).
fn libfaketime() -> String {
    need("faketime", "faketime");
    let folders = fs::read_dir("/usr/lib").expect("a system has libraries");
    let library = |folder: fs::DirEntry| folder.path().join("faketime/libfaketime.so.1");
    let found = folders.filter_map(|folder| folder.ok().map(library)).find(|library| library.exists());
    found.expect("the package libfaketime has it").into_os_string().into_string().expect("a plain name")
}

#[test]
fn a_clock_that_jumps_ends_nobody_and_neither_lengthens_nor_forgets_a_penalty() {
    let library = libfaketime();
    // Each of them long enough for what has to be done before it is over; so they wait for that side by side.
    all([("+0", "+1d", 1), ("+1d", "-1d", -2), ("-1d", "+0", 1)], |(from, to, days)| {
        jumps(&library, from, to, days)
    });
}

/// A clock jumps from one of its times to another, so many days later.
fn jumps(library: &str, from: &str, to: &str, days: i64) {
    const PENALTY: Duration = Duration::from_secs(10);
    let folder = Folder::new();
    let file = folder.file("time");
    let jump = |to: &str| {
        fs::write(folder.file("next"), to).unwrap();
        fs::rename(folder.file("next"), &file).unwrap(); // so that nobody reads half of it
    };
    let faked = |command: &mut Command| {
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &file)
            .env("FAKETIME_NO_CACHE", "1");
        // The clock that is not on the wall never jumps.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    };
    let wall = || {
        let mut date = Command::new("date");
        faked(date.arg("+%s"));
        told(&mut date).trim().parse::<i64>().expect("seconds")
    };
    jump(from);
    let deadlines = ["--first-byte-timeout", "10m", "--idle-timeout", "10m", "--time-limit", "10m"];
    let penalty = ["--penalty", "exit=10s,min=10s"];
    let args = [&["127.0.0.1:0", "-v", "-C", "100"], &deadlines[..], &penalty, &PUPPET].concat();
    let mut command = tine_command(&args);
    faked(&mut command);
    let server = Server::start(command, Ready::Ports(listeners_among(&args)));
    let loaded = fs::read_to_string(format!("/proc/{}/maps", server.pid())).unwrap();
    assert!(loaded.contains("libfaketime"), "the library is not in use");

    let clients: Vec<_> = (0..10).map(|_| Client::of(&server)).collect();
    let all_are_there = || clients.iter().for_each(|client| client.have(&[]));
    all_are_there();
    let before = wall();
    // It is kept out by what its program ends with, on one side of the jump; and let in again on the other.
    let source = "127.0.0.2";
    let earned = Instant::now();
    let bad = Client(puppet::connect_from(source, server.addr(0)).unwrap());
    let cursor = server.cursor();
    bad.order("exit 1");
    server.wait_log_from(cursor, |line| line.starts_with("end ") && line.contains(" exit=1 "));
    jump(to);
    let is_refused = || {
        // What has been sent to it already may be answered by a reset.
        let client = puppet::connect_from(source, server.addr(0)).unwrap();
        let _ = (&mut &client).write_all(b"say welcome\nexit 0\n");
        !client.rest().is_ok_and(|answer| answer == b"welcome\n")
    };
    assert!(is_refused(), "the penalty is forgotten after {to}");
    assert!((wall() - before - days * 86_400).abs() < 60, "the clock does not jump");
    all_are_there();
    until("it is let in again", || (!is_refused()).then_some(()));
    let kept_out = earned.elapsed();
    // The clock on the wall is not what it was measured by.
    let due = PENALTY - Duration::from_millis(100)..PENALTY + Duration::from_secs(20);
    assert!(due.contains(&kept_out), "{to}: {kept_out:?}");
    all_are_there();
    assert_eq!(
        count(&server, |line| line.starts_with("end ") && line.contains(" reason=")),
        0,
        "{}",
        server.log()
    );
    drop(clients);
    assert!(server.stop().success());
}
