//! Behind Debian's haproxy: the program sees the real clients, limits and penalties are theirs, and the balancer with its
//! health checks is never kept out.
//!
//! haproxy listens on the loopback, where clients have as many addresses as they like, and says whom it speaks for in
//! each way that it knows: PROXY version 2 and 1 by TCP, and version 2 by a Unix socket.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use tine_testkit::server::{DEADLINE, until};
use tine_testkit::{Baseline, Server, Stream, net, transfer};

use support::{Folder, need, number, value};

/// A haproxy with a frontend for each server behind it.
struct Haproxy {
    process: Child,
    folder: Folder,
    ports: Vec<u16>,
}

impl Haproxy {
    /// Starts it; each backend is a server's address and options as haproxy writes them.
    fn start(backends: &[String]) -> Haproxy {
        need("haproxy", "haproxy");
        // Ports that are free now, and whose numbers nobody is given by the kernel until haproxy has them; if somebody is
        // faster all the same, with others.
        for _ in 0..5 {
            let free: Vec<_> = backends.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let ports: Vec<_> = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
            drop(free);
            if let Some(haproxy) = Haproxy::on(ports, backends) {
                return haproxy;
            }
        }
        panic!("haproxy did not start five times");
    }

    fn on(ports: Vec<u16>, backends: &[String]) -> Option<Haproxy> {
        let folder = Folder::new();
        let mut config = format!(
            "global\n  stats socket {} mode 600 level user\n  maxconn 600\n\
             defaults\n  mode tcp\n  timeout connect 20s\n  timeout client 60s\n  timeout server 60s\n  \
             timeout check 20s\n  retries 0\n",
            folder.text("stats")
        );
        for (at, (port, backend)) in ports.iter().zip(backends).enumerate() {
            config += &format!("listen b{at}\n  bind 127.0.0.1:{port}\n  server s {backend}\n");
        }
        fs::write(folder.file("haproxy.cfg"), config).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(folder.file("haproxy.cfg"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.file("log")).unwrap());
        let process = command.spawn().expect("haproxy can be run");
        let mut haproxy = Haproxy { process, folder, ports };
        let up = until("haproxy has its ports, or has ended", || {
            let ended = haproxy.process.try_wait().unwrap().is_some();
            let sockets = net::tcp_sockets();
            let listens = |port: &u16| {
                sockets.iter().any(|socket| socket.state == net::LISTEN && socket.local.port() == *port)
            };
            (ended || haproxy.ports.iter().all(listens)).then_some(!ended)
        });
        if !up {
            eprintln!("{}", haproxy.log());
        }
        up.then_some(haproxy)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.file("log")).unwrap_or_default()
    }

    /// A client of a frontend, from an address of its own.
    fn dial(&self, at: usize, own: &str) -> TcpStream {
        let own: SocketAddr = format!("{own}:0").parse().unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], self.ports[at]));
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &own).unwrap();
        connect(&socket, &to).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Says something by a frontend and gives all that comes back.
    fn ask(&self, at: usize, own: &str, question: &[u8]) -> Vec<u8> {
        let mut stream = self.dial(at, own);
        // One that is not let in may be gone before it has said anything.
        let _ = stream.write_all(question);
        let _ = stream.shutdown(Shutdown::Write);
        last_words(&stream)
    }

    /// What haproxy knows of the server of each backend: whether its checks find it up, how many it made, and how many of
    /// them failed.
    fn checks(&self) -> Vec<(String, u64)> {
        let mut stats = UnixStream::connect(self.folder.file("stats")).expect("haproxy runs");
        stats.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        stats.read_to_string(&mut table).unwrap();
        let mut lines = table.lines();
        let names: Vec<_> = lines.next().expect("a heading").trim_start_matches("# ").split(',').collect();
        let column =
            |name: &str| names.iter().position(|other| *other == name).expect("a column of haproxy's");
        let (server, status, failed) = (column("svname"), column("status"), column("chkfail"));
        let cells = lines.map(|line| line.split(',').collect::<Vec<_>>());
        let servers = cells.filter(|cells| cells.get(server) == Some(&"s"));
        servers.map(|cells| (cells[status].to_owned(), cells[failed].parse().unwrap_or(0))).collect()
    }

    /// Fails the test unless every server was found up by every check.
    fn all_up(&self) {
        let checks = self.checks();
        let up = |(status, failed): &(String, u64)| status == "UP" && *failed == 0;
        assert!(checks.len() == self.ports.len() && checks.iter().all(up), "{checks:?}\n{}", self.log());
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // It may have ended by itself, and then the test has failed of that.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All that comes until the end, orderly or not.
fn last_words(mut stream: &TcpStream) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut some) {
            Ok(0) => return all,
            Ok(length) => all.extend(&some[..length]),
            Err(why) if why.kind() == ErrorKind::ConnectionReset => return all,
            Err(why) => panic!("no end of a connection that brought {all:?}: {why}"),
        }
    }
}

/// Health checks as they should be: with a header of their own, and often.
const CHECKED: &str = "check check-send-proxy inter 100ms";

/// A server with a listener by TCP and one by a Unix socket, and haproxy before it in all three ways.
fn both(options: &[&str], program: &[&str]) -> (Folder, Server, Haproxy) {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.text("s"));
    let proxy = ["tcp://127.0.0.1:0", &unix, "-v", "--proxy", "required", "--proxy-from", "127.0.0.1,unix"];
    let server = Server::tine(&[&proxy, options, &["--"], program].concat());
    let tcp = server.addr(0);
    let backends = [
        format!("{tcp} send-proxy-v2 {CHECKED}"),
        format!("{tcp} send-proxy {CHECKED}"),
        format!("unix@{} send-proxy-v2 {CHECKED}", folder.text("s")),
    ];
    let haproxy = Haproxy::start(&backends);
    (folder, server, haproxy)
}

/// Asks for the status, and gives a number of its line; 0 for a reason that is not in it.
fn counted(server: &Server, key: &str) -> u32 {
    server.status();
    let log = server.log();
    let line = log.lines().rfind(|line| line.starts_with("status ")).expect("it was asked for");
    value(line, key).map_or(0, |_| number(line, key))
}

/// Waits until the server has served another health check by each listener: it still does, after all that came before.
fn checked(server: &Server) {
    let own = |line: &str| line.starts_with("accept ") && value(line, "peer") == value(line, "via");
    let is_tcp = |line: &str| value(line, "peer").is_some_and(|peer| peer.starts_with("127.0.0.1:"));
    let from = server.cursor();
    server.wait_log_from(from, |line| own(line) && is_tcp(line));
    server.wait_log_from(from, |line| own(line) && !is_tcp(line));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Tells who the client is, and then says back what it says.
const WHO: [&str; 3] =
    ["sh", "-c", r#"echo "$REMOTE_ADDR:$REMOTE_PORT $TCPLOCALPORT $TINE_PEER_IP"; exec cat"#];

#[test]
fn the_program_sees_the_real_clients() {
    let (_folder, server, haproxy) = both(&[], &WHO);
    for (at, balancer) in ["127.0.0.1", "127.0.0.1", ""].into_iter().enumerate() {
        for own in ["127.0.0.2", "127.0.0.3", "127.9.9.9"] {
            let mut stream = haproxy.dial(at, own);
            let (port, here) = (stream.local_addr().unwrap().port(), haproxy.ports[at]);
            stream.write_all(b"hello").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let expected = format!("{own}:{port} {here} {balancer}\nhello");
            assert_eq!(text(&last_words(&stream)), expected, "frontend {at}");
            let peer = format!("{own}:{port}");
            server.wait_log(|line| line.starts_with("accept ") && value(line, "peer") == Some(&peer));
        }
    }
    checked(&server);
    haproxy.all_up();
    assert_eq!(counted(&server, "refused"), 0, "{}", server.log());
}

#[test]
fn a_megabyte_goes_both_ways_and_an_end_of_one_direction_leaves_the_other() {
    let (_folder, _server, haproxy) = both(&[], &["cat"]);
    for at in 0..3 {
        let stream = Stream::Tcp(haproxy.dial(at, "127.0.0.2"));
        assert_eq!(transfer(&stream, 1 << 20).unwrap().bytes, 1 << 20);
    }
    // One that answers only when all has been said, with more than fits in any buffer on the way.
    let count = ["perl", "-e", "my $n = 0; $n += length while <STDIN>; print 'x' x $n"];
    let (_folder, _server, haproxy) = both(&[], &count);
    for at in 0..3 {
        let reply = haproxy.ask(at, "127.0.0.2", &vec![b'\n'; 1 << 20]);
        assert!(reply.len() == 1 << 20 && reply.iter().all(|byte| *byte == b'x'), "{} bytes", reply.len());
    }
}

#[test]
fn the_limit_for_a_source_is_the_clients() {
    let (_folder, server, haproxy) = both(&["-C", "2:Two are enough."], &["cat"]);
    let comes = |at: usize, own: &str| {
        let mut stream = haproxy.dial(at, own);
        stream.write_all(b"here\n").unwrap();
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).unwrap_or_else(|why| server.fail(&format!("{own}: {why}")));
        assert_eq!(&reply, b"here\n");
        stream
    };
    let mut here = Vec::new();
    for own in ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"] {
        // By one frontend or another, it is the same client.
        here.push((own, comes(0, own)));
        here.push((own, comes(2, own)));
        for at in 0..3 {
            // What it is told comes through, though it is refused before it says anything.
            assert_eq!(text(&last_words(&haproxy.dial(at, own))), "Two are enough.\n", "frontend {at}");
        }
    }
    let refused = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!(value(&refused, "reason"), Some("source"));
    assert!(value(&refused, "peer").unwrap().starts_with("127.0.0.2:"), "{refused}");
    assert_eq!((counted(&server, "refused.source"), counted(&server, "refused")), (12, 12));
    // Free again as soon as one has gone.
    let (own, gone) = here.remove(0);
    gone.shutdown(Shutdown::Write).unwrap();
    assert_eq!(last_words(&gone), b"");
    until("the slot of the one that has gone", || {
        (haproxy.ask(1, own, b"here\n") == b"here\n").then_some(())
    });
    checked(&server);
    haproxy.all_up();
}

/// Says lines back, and dies of a line `crash`; of a client that says nothing, with 1.
const FRAGILE: [&str; 3] =
    ["sh", "-c", r#"read -r line || exit 1; [ "$line" = crash ] && kill -SEGV $$; echo "$line"; exec cat"#];

#[test]
fn a_client_that_crashes_its_program_is_kept_out_and_others_go_on() {
    let options = ["--penalty", "crash=10m,signal=10m,exit=10m,min=15s"];
    let (_folder, server, haproxy) = both(&options, &FRAGILE);
    for (at, own) in ["127.0.0.2", "127.0.0.3", "127.0.0.4"].into_iter().enumerate() {
        assert_eq!(text(&haproxy.ask(at, own, b"crash\n")), "");
        let source = |line: &str| line.starts_with("penalty ") && value(line, "source") == Some(own);
        server.wait_log(|line| line.starts_with("end ") && line.contains(" signal=11 "));
        until(&format!("{own} is kept out"), || {
            (haproxy.ask(at, own, b"hello\n") != b"hello\n").then_some(())
        });
        // The log tells of one penalty in ten seconds.
        if at == 0 {
            server.wait_log(source);
        }
    }
    for at in 0..3 {
        for own in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
            assert_eq!(text(&haproxy.ask(at, own, b"hello\n")), "", "{own} by frontend {at}");
        }
        assert_eq!(text(&haproxy.ask(at, "127.0.0.5", b"hello\n")), "hello\n", "by frontend {at}");
    }
    // Every health check has ended in a failure of the program, and nobody is kept out for that.
    checked(&server);
    let kept_out = |line: &str| line.starts_with("refuse ") && value(line, "peer") == value(line, "via");
    assert!(!server.log().lines().any(kept_out), "{}", server.log());
    let penalised = |line: &&str| line.starts_with("penalty ");
    let sources: Vec<_> = server
        .log()
        .lines()
        .filter(penalised)
        .filter_map(|line| value(line, "source").map(str::to_owned))
        .collect();
    assert!(
        !sources.iter().any(|source| source == "127.0.0.1" || source.starts_with("user:")),
        "{sources:?}"
    );
    haproxy.all_up();
}

#[test]
fn two_hundred_clients_come_and_go_by_haproxy_and_nothing_is_left() {
    // Without health checks the server can be quiet.
    let options =
        ["-v", "--proxy", "required", "--proxy-from", "127.0.0.1", "-c", "256", "-C", "4", "--reserve", "0"];
    let server = Server::tine(&[&["tcp://127.0.0.1:0"], &options[..], &["--", "cat"]].concat());
    let haproxy = Haproxy::start(&[format!("{} send-proxy-v2", server.addr(0))]);
    let address = server.addr(0).to_owned();
    let probe = move || tine_testkit::ask(&address, b"PROXY UNKNOWN\r\n").map(drop);
    let baseline = Baseline::with(&server, probe);
    let mut streams: Vec<_> = (0..200).map(|n| haproxy.dial(0, &format!("127.1.{}.1", n % 50 + 1))).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.write_all(format!("client {n}").as_bytes()).unwrap();
    }
    for (n, stream) in streams.iter().enumerate() {
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(text(&last_words(stream)), format!("client {n}"));
    }
    drop(streams);
    server.quiescent(&baseline);
    assert_eq!((counted(&server, "served"), counted(&server, "refused")), (202, 0), "{}", server.log());
    assert!(server.stop().success());
}
