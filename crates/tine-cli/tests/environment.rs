//! What a program finds in its environment: every variable, for each style and family, and nothing else.
//!
//! The program is Perl, which adds no variable of its own. tine-environment(7) promises what is held here.

mod support;

use std::io::Read;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, socket};
use tine_testkit::server::{DEADLINE, tine_command};
use tine_testkit::{Ready, Server, Signal};

use support::{Folder, need};

/// Writes each variable, in order, and then its process id, to the descriptor that is its argument; ends when its input
/// does if there is a second argument.
const SHOW: &str = r#"
    open my $to, ">&=", $ARGV[0] or die;
    syswrite $to, join("", map { "$_=$ENV{$_}\n" } sort keys %ENV) . "pid=$$\n";
    1 while $ARGV[1] and <STDIN>;
"#;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A server of [`SHOW`] with these arguments before `--` and after it.
fn server(args: &[&str], to: &[&str]) -> Server {
    need("perl", "perl");
    Server::tine(&[args, &["--", "perl", "-e", SHOW], to].concat())
}

/// Variables as one of the kernel's making is replaced by what it is.
fn known(text: &str) -> Vec<String> {
    let mut lines: Vec<_> =
        text.lines().filter(|line| !line.starts_with("pid=")).map(str::to_owned).collect();
    for line in &mut lines {
        let id = line.strip_prefix("TINE_ID=");
        if id.is_some_and(|id| id.len() == 16 && id.bytes().all(|b| b"0123456789abcdef".contains(&b))) {
            *line = "TINE_ID=<id>".to_owned();
        }
    }
    lines
}

/// What the program wrote to a stream.
fn text(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("variables as text, and then the end");
    text
}

fn tcp(server: &Server) -> (TcpStream, u16) {
    let stream = TcpStream::connect(server.socket(0)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = stream.local_addr().unwrap().port();
    (stream, port)
}

fn unix(address: &SocketAddrUnix, own_name: Option<&SocketAddrUnix>) -> UnixStream {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    if let Some(name) = own_name {
        bind(&socket, name).unwrap();
    }
    connect(&socket, address).unwrap();
    let stream = UnixStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// This process's user and group, as lines.
fn credentials() -> [String; 2] {
    let own = std::fs::metadata("/proc/self").unwrap();
    [format!("IPCREMOTEEGID={}", own.gid()), format!("IPCREMOTEEUID={}", own.uid())]
}

fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        eprintln!("left out, for this machine has no IPv6");
    }
    has
}

fn ucspi_tcp(ip: &str, local: u16, remote: u16) -> Vec<String> {
    vec![
        PATH.to_owned(),
        "PROTO=TCP".to_owned(),
        format!("REMOTE_ADDR={ip}"),
        format!("REMOTE_PORT={remote}"),
        "TCPCONNNUM=0".to_owned(),
        format!("TCPLOCALIP={ip}"),
        format!("TCPLOCALPORT={local}"),
        format!("TCPREMOTEIP={ip}"),
        format!("TCPREMOTEPORT={remote}"),
        "TINE_ID=<id>".to_owned(),
    ]
}

#[test]
fn ucspi_over_ipv4() {
    let server = server(&["tcp://127.0.0.1:0"], &["1"]);
    let (stream, port) = tcp(&server);
    assert_eq!(known(&text(stream)), ucspi_tcp("127.0.0.1", server.port(0), port));
}

#[test]
fn ucspi_over_ipv6_has_no_brackets() {
    if !has_ipv6() {
        return;
    }
    let server = server(&["tcp://[::1]:0"], &["1"]);
    let (stream, port) = tcp(&server);
    assert_eq!(known(&text(stream)), ucspi_tcp("::1", server.port(0), port));
}

#[test]
fn an_ipv4_client_of_a_listener_for_both_families_has_its_ipv4_address() {
    let server = server(&[":0"], &["1"]);
    let stream = TcpStream::connect(("127.0.0.1", server.port(0))).unwrap();
    let port = stream.local_addr().unwrap().port();
    assert_eq!(known(&text(stream)), ucspi_tcp("127.0.0.1", server.port(0), port));
}

#[test]
fn clients_of_the_same_source_are_counted_without_the_one_that_comes() {
    let server = server(&["tcp://127.0.0.1:0"], &["1", "stay"]);
    let mut streams = Vec::new();
    for count in 0..3 {
        let (stream, _) = tcp(&server);
        let mut seen = String::new();
        while !seen.contains("pid=") {
            let mut bytes = [0; 4096];
            let length = (&stream).read(&mut bytes).expect("variables");
            assert!(length > 0, "the end instead of variables: {seen:?}");
            seen.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        assert!(seen.contains(&format!("\nTCPCONNNUM={count}\n")), "{seen}");
        streams.push(stream);
    }
}

#[test]
fn ucspi_over_a_unix_path() {
    let folder = Folder::new();
    let path = folder.text("s");
    let server = server(&[&format!("unix:{path}")], &["1"]);
    let stream = unix(&SocketAddrUnix::new(path.as_str()).unwrap(), None);
    let [gid, uid] = credentials();
    let expected =
        [PATH, "IPCCONNNUM=0", &format!("IPCLOCALPATH={path}"), &gid, &uid, "PROTO=IPC", "TINE_ID=<id>"];
    assert_eq!(known(&text(stream)), expected.map(str::to_owned).sorted());
    assert!(server.stop().success());
}

#[test]
fn ucspi_over_an_abstract_name() {
    let name = format!("tine-test-{}", std::process::id());
    let _server = server(&[&format!("unix:@{name}")], &["1"]);
    let stream = unix(&SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap(), None);
    let [gid, uid] = credentials();
    let expected =
        [PATH, "IPCCONNNUM=0", &format!("IPCLOCALPATH=@{name}"), &gid, &uid, "PROTO=IPC", "TINE_ID=<id>"];
    assert_eq!(known(&text(stream)), expected.map(str::to_owned).sorted());
}

/// What a Unix client that has bound itself to this path is shown as.
fn shown_of_path(own: &Path, folder: &Folder) -> Vec<String> {
    let path = folder.text("s");
    let _server = server(&[&format!("unix:{path}")], &["1"]);
    let own = SocketAddrUnix::new(own).unwrap();
    let stream = unix(&SocketAddrUnix::new(path.as_str()).unwrap(), Some(&own));
    let known = known(&text(stream));
    assert!(known.contains(&"PROTO=IPC".to_owned()), "{known:?}");
    known
}

#[test]
fn a_path_that_a_client_chose_is_passed_on() {
    let folder = Folder::new();
    let own = folder.text("client.1:a-b_c@d");
    let shown = shown_of_path(Path::new(&own), &folder);
    assert!(shown.contains(&format!("IPCREMOTEPATH={own}")), "{shown:?}");
    assert!(shown.contains(&format!("REMOTE_ADDR={own}")), "{shown:?}");
}

#[test]
fn a_path_with_a_harmful_character_is_left_out() {
    for name in ["() { :;}", "a b", "a\nLD_PRELOAD=x", "$(id)", "a;b", "\u{e9}", "a\\b", "<a>", "%n"] {
        let folder = Folder::new();
        let shown = shown_of_path(&folder.file(name), &folder);
        let told = |line: &String| line.starts_with("IPCREMOTEPATH") || line.starts_with("REMOTE_ADDR");
        assert!(!shown.iter().any(told), "{name:?} is in {shown:?}");
        assert_eq!(shown.len(), 7, "nothing else came in: {shown:?}");
    }
}

#[test]
fn a_path_that_is_no_text_is_left_out() {
    let folder = Folder::new();
    let own = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    assert_eq!(shown_of_path(&own, &folder).len(), 7);
}

#[test]
fn an_abstract_name_that_a_client_chose_is_passed_on_if_it_is_harmless() {
    let folder = Folder::new();
    let path = folder.text("s");
    let _server = server(&[&format!("unix:{path}")], &["1"]);
    let address = SocketAddrUnix::new(path.as_str()).unwrap();
    for (name, fine) in [(format!("tine-client-{}", std::process::id()), true), ("a b\0c".to_owned(), false)]
    {
        let own = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        let shown = known(&text(unix(&address, Some(&own))));
        assert_eq!(shown.contains(&format!("REMOTE_ADDR=@{name}")), fine, "{shown:?}");
        assert_eq!(shown.contains(&format!("IPCREMOTEPATH=@{name}")), fine, "{shown:?}");
        assert_eq!(shown.len(), if fine { 9 } else { 7 }, "{shown:?}");
    }
}

fn ask_udp(server: &Server) -> (String, u16) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send_to(&[b'?'; 512], server.socket(0)).unwrap();
    let mut bytes = vec![0; 65_536];
    let length = client.recv(&mut bytes).expect("a reply");
    (String::from_utf8(bytes[..length].to_vec()).unwrap(), client.local_addr().unwrap().port())
}

#[test]
fn ucspi_over_udp_for_a_peer_and_for_a_datagram() {
    for how in ["peer", "each"] {
        let server = server(&["udp://127.0.0.1:0", "--datagram", how], &["1"]);
        let (seen, port) = ask_udp(&server);
        let expected = [
            PATH,
            "PROTO=UDP",
            "REMOTE_ADDR=127.0.0.1",
            &format!("REMOTE_PORT={port}"),
            "TINE_ID=<id>",
            "UDPLOCALIP=127.0.0.1",
            &format!("UDPLOCALPORT={}", server.port(0)),
            "UDPREMOTEIP=127.0.0.1",
            &format!("UDPREMOTEPORT={port}"),
        ];
        assert_eq!(known(&seen), expected, "{how}");
    }
}

#[test]
fn a_socket_that_is_lent_has_no_client_yet() {
    let server = server(&["udp://127.0.0.1:0", "--datagram", "wait"], &["2", "stay"]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"?", server.socket(0)).unwrap();
    server.wait_log(|line| line.starts_with("pid="));
    let log = server.log();
    let seen: Vec<_> = log.lines().skip_while(|line| !line.starts_with("PATH=")).collect();
    let local = format!("UDPLOCALPORT={}", server.port(0));
    let expected = [PATH, "PROTO=UDP", "TINE_ID=<id>", "UDPLOCALIP=127.0.0.1", &local];
    assert_eq!(known(&seen.join("\n")), expected);
    server.signal(Signal::TERM);
    server.wait_log(|line| line.starts_with("drain "));
    assert!(server.stop().success(), "told twice, it does not wait for the program");
}

#[test]
fn inetd_has_the_address_three_times_for_tcp_and_nothing_for_unix() {
    let folder = Folder::new();
    let path = folder.text("s");
    let server = server(&["tcp://127.0.0.1:0", &format!("unix:{path}"), "--env", "inetd"], &["1"]);
    let (stream, port) = tcp(&server);
    let remote = format!("REMOTE_PORT={port}");
    let expected = [PATH, "REMOTE_ADDR=127.0.0.1", "REMOTE_HOST=127.0.0.1", &remote, "TINE_ID=<id>"];
    assert_eq!(known(&text(stream)), expected);
    let stream = unix(&SocketAddrUnix::new(path.as_str()).unwrap(), None);
    assert_eq!(known(&text(stream)), [PATH, "TINE_ID=<id>"]);
}

#[test]
fn systemd_has_the_socket_as_descriptor_3_and_the_programs_own_pid() {
    let server = server(&["tcp://127.0.0.1:0", "--env", "systemd"], &["3"]);
    let (stream, port) = tcp(&server);
    let seen = text(stream);
    let value = |name: &str| {
        let line = seen.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {seen}")).to_owned()
    };
    assert_eq!(value("LISTEN_PID="), value("pid="), "LISTEN_PID is the program's own");
    let cookie: u64 = value("SO_COOKIE=").parse().expect("a decimal number");
    assert_eq!(value("TINE_ID="), format!("{cookie:016x}"), "both are the socket's cookie");
    let expected = [
        "LISTEN_FDNAMES=connection",
        "LISTEN_FDS=1",
        &format!("LISTEN_PID={}", value("pid=")),
        PATH,
        "REMOTE_ADDR=127.0.0.1",
        &format!("REMOTE_PORT={port}"),
        &format!("SO_COOKIE={cookie}"),
        "TINE_ID=<id>",
    ];
    assert_eq!(known(&seen), expected);
}

#[test]
fn systemd_over_a_unix_path_has_no_address_of_a_client_without_one() {
    let folder = Folder::new();
    let path = folder.text("s");
    let _server = server(&[&format!("unix:{path}"), "--env", "systemd"], &["3"]);
    let seen = known(&text(unix(&SocketAddrUnix::new(path.as_str()).unwrap(), None)));
    let names: Vec<_> = seen.iter().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert_eq!(names, ["LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "PATH", "SO_COOKIE", "TINE_ID"]);
}

#[test]
fn none_has_nothing_but_the_path_and_what_is_named() {
    let server = server(&["tcp://127.0.0.1:0", "--env", "none", "-E", "PROTO=mine"], &["1"]);
    assert_eq!(known(&text(tcp(&server).0)), [PATH, "PROTO=mine"]);
}

#[test]
fn nothing_is_inherited_but_what_is_taken_over() {
    need("perl", "perl");
    let args = [
        &["tcp://127.0.0.1:0", "-E", "TAKEN", "-E", "SET=two words", "-E", "SET=the last = holds"][..],
        &["-E", "EMPTY=", "-E", "PATH=/bin", "--", "perl", "-e", SHOW, "1"],
    ]
    .concat();
    let mut command = tine_command(&args);
    for (name, value) in [
        ("LD_PRELOAD", ""),
        ("LD_LIBRARY_PATH", "/nonexistent"),
        ("BASH_ENV", "/nonexistent"),
        ("PERL5OPT", "-w"),
        ("IFS", "x"),
        ("HOME", "/nonexistent"),
        ("TCPREMOTEIP", "192.0.2.1"),
        ("TCPREMOTEHOST", "forged.example"),
        ("TINE_ID", "forged"),
        ("LISTEN_FDS", "3"),
        ("NOTIFY_SOCKET", "/nonexistent"),
        ("TAKEN", "over\twith care"),
    ] {
        command.env(name, value);
    }
    let server = Server::start(command, Ready::Ports(vec!["tcp://127.0.0.1:0".to_owned()]));
    let (stream, port) = tcp(&server);
    let mut expected = ucspi_tcp("127.0.0.1", server.port(0), port);
    expected.retain(|line| line != PATH);
    let more = ["EMPTY=", "PATH=/bin", "SET=the last = holds", "TAKEN=over\twith care"];
    expected.extend(more.map(str::to_owned));
    expected.sort();
    assert_eq!(known(&text(stream)), expected);
}

#[test]
fn no_two_connections_have_the_same_id() {
    let server = server(&["tcp://127.0.0.1:0"], &["1"]);
    let mut ids: Vec<_> = (0..20)
        .map(|_| {
            let seen = text(tcp(&server).0);
            seen.lines().find(|line| line.starts_with("TINE_ID=")).expect("an id").to_owned()
        })
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[test]
fn a_variable_of_one_client_is_not_left_for_the_next() {
    let folder = Folder::new();
    let path = folder.text("s");
    let _server = server(&[&format!("unix:{path}")], &["1"]);
    let address = SocketAddrUnix::new(path.as_str()).unwrap();
    let own = SocketAddrUnix::new(folder.text("client").as_str()).unwrap();
    assert_eq!(known(&text(unix(&address, Some(&own)))).len(), 9);
    let next = unix(&address, None);
    next.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(known(&text(next)).len(), 7, "the second client has no name");
}

/// An array, sorted.
trait Sorted {
    fn sorted(self) -> Self;
}

impl<const N: usize> Sorted for [String; N] {
    fn sorted(mut self) -> Self {
        self.sort();
        self
    }
}
