//! Behind a balancer: who comes by `--proxy required` is who its header says, the payload begins where the header ends,
//! and nothing that is asked of clients is asked of their balancer.
//!
//! The test is the balancer. What is a header and what is none is tested with the library, vector by vector; here it
//! is what becomes of either over real sockets.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use tine_testkit::server::{DEADLINE, tine_command, until};
use tine_testkit::{Baseline, Server, Signal, Stream, ask, net, procfs, transfer};

use support::{Folder, need, number, send, value};

/// Two clients, of different networks, and where they connected to.
const CLIENT: &str = "192.0.2.7:5023";
const OTHER: &str = "198.51.100.9:1024";
const HERE: &str = "203.0.113.1:443";
const CLIENT_6: &str = "[2001:db8:0:1::7]:5023";
const HERE_6: &str = "[2001:db8::443]:443";

/// Commands and families of version 2.
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX: u8 = 0x31;

/// Types of fields of version 2.
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;

const UNKNOWN_LINE: &[u8] = b"PROXY UNKNOWN\r\n";

/// A header of version 1 from this client.
fn line(client: &str, here: &str) -> Vec<u8> {
    let (client, here): (SocketAddr, SocketAddr) = (client.parse().unwrap(), here.parse().unwrap());
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (client.ip(), here.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), here.port()).into_bytes()
}

/// A header of version 2.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend(body);
    header
}

/// The addresses of version 2.
fn ends(client: &str, here: &str) -> Vec<u8> {
    let both: [SocketAddr; 2] = [client.parse().unwrap(), here.parse().unwrap()];
    let mut bytes = Vec::new();
    for end in both {
        match end.ip() {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    both.iter().for_each(|end| bytes.extend(end.port().to_be_bytes()));
    bytes
}

/// The addresses of version 2, of Unix sockets.
fn unix_ends(client: &[u8], here: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 216];
    bytes[..client.len()].copy_from_slice(client);
    bytes[108..108 + here.len()].copy_from_slice(here);
    bytes
}

/// A field of version 2.
fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![kind];
    field.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    field.extend(value);
    field
}

/// The field of a TLS connection; `verified` is about a certificate that the client showed.
fn tls(verified: bool, version: &[u8], name: &[u8], cipher: &[u8]) -> Vec<u8> {
    let mut value = vec![1 | 2];
    value.extend(u32::from(!verified).to_be_bytes());
    for (kind, text) in [(SSL_VERSION, version), (SSL_CN, name), (SSL_CIPHER, cipher)] {
        value.extend(field(kind, text));
    }
    field(SSL, &value)
}

/// The same header with a checksum at its end.
fn checked(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = binary(command, family, &[body, &field(CRC32C, &[0; 4])].concat());
    let crc = !header.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    });
    let at = header.len() - 4;
    header[at..].copy_from_slice(&crc.to_be_bytes());
    header
}

/// A header of version 2 with all that balancers are known to add.
fn rich() -> Vec<u8> {
    let fields = [
        field(AUTHORITY, b"mail.example"),
        tls(true, b"TLSv1.3", b"alice@example", b"TLS_AES_128_GCM_SHA256"),
        field(NOOP, &[0; 5]),
    ];
    checked(PROXY, TCP4, &[&ends(CLIENT, HERE)[..], &fields.concat()].concat())
}

/// Headers of every kind.
fn headers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("1, IPv4", line(CLIENT, HERE)),
        ("1, IPv6", line(CLIENT_6, HERE_6)),
        ("1, unknown", UNKNOWN_LINE.to_vec()),
        ("1, unknown with more", b"PROXY UNKNOWN ff:: is no address\r\n".to_vec()),
        ("2, IPv4", binary(PROXY, TCP4, &ends(CLIENT, HERE))),
        ("2, IPv6", binary(PROXY, TCP6, &ends(CLIENT_6, HERE_6))),
        ("2, Unix", binary(PROXY, UNIX, &unix_ends(b"/client", b"/here"))),
        ("2, Unix without names", binary(PROXY, UNIX, &unix_ends(b"", b""))),
        ("2, fields", rich()),
        ("2, local", binary(LOCAL, UNSPEC, b"")),
        ("2, local with addresses", binary(LOCAL, TCP4, &ends(CLIENT, HERE))),
        ("2, unspecified", binary(PROXY, UNSPEC, b"")),
        ("2, unspecified with more", binary(PROXY, UNSPEC, b"whatever")),
        ("2, long", binary(PROXY, TCP4, &[ends(CLIENT, HERE), field(NOOP, &[9; 4000])].concat())),
    ]
}

/// A server behind a balancer on this machine, with these options.
fn behind(listeners: &[&str], options: &[&str], program: &[&str]) -> Server {
    let proxy = ["-v", "--proxy", "required", "--proxy-from", "127.0.0.1,::1,unix"];
    Server::tine(&[listeners, &proxy, options, &["--"], program].concat())
}

const TCP: &str = "tcp://127.0.0.1:0";

/// A connection over which pieces go as they are written.
fn dial(address: &str) -> Stream {
    let stream = Stream::connect(address).expect("the server listens");
    if let Stream::Tcp(tcp) = &stream {
        set_tcp_nodelay(tcp, true).unwrap();
    }
    stream
}

/// A client that is here: it has said a line, and the program has said it back.
fn comes(server: &Server, header: &[u8]) -> Stream {
    let stream = dial(server.addr(0));
    let (mut both, line) = (&stream, b"here I am\n");
    both.write_all(&[header, line].concat()).unwrap();
    let mut reply = [0; 10];
    both.read_exact(&mut reply).unwrap_or_else(|why| {
        server.fail(&format!("no echo for {}: {why}", String::from_utf8_lossy(header)))
    });
    assert_eq!(&reply, line);
    stream
}

/// All that the server says to a connection until it ends it, orderly or not: what a client had sent and nobody has read
/// ends it with a reset.
fn last_words(mut stream: &Stream) -> Vec<u8> {
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

/// Asks for the status, and gives a number of its line; 0 for a reason that is not in it.
fn counted(server: &Server, key: &str) -> u32 {
    server.status();
    let log = server.log();
    let line = log.lines().rfind(|line| line.starts_with("status ")).expect("it was asked for");
    value(line, key).map_or(0, |_| number(line, key))
}

/// Waits until so many have a child.
fn open(server: &Server, count: u64) {
    until(&format!("{count} children"), || (server.status().open == count).then_some(()));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_header_is_taken_away_and_what_follows_is_the_programs_to_the_byte() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.text("s"));
    let server = behind(&[TCP, "tcp://[::1]:0", &unix], &["-C", "64"], &["cat"]);
    let long: Vec<u8> = (0..100_000).map(|n| (n % 251) as u8).collect();
    for at in 0..server.listeners() {
        for (name, header) in headers() {
            // A second header is what the client says, and so is what looks like the end of one.
            let twice = [&header[..], b"behind"].concat();
            for payload in [&b""[..], b"x", b"\r\n", &twice, &long] {
                let reply = ask(server.addr(at), &[&header, payload].concat()).unwrap();
                assert!(reply == payload, "{name} at {}: {:?}", server.addr(at), text(&reply));
            }
        }
    }
    assert_eq!((counted(&server, "refused"), counted(&server, "failed")), (0, 0), "{}", server.log());
    assert!(server.stop().success());
}

/// How many bytes of a connection the other end has not read yet; `None` when there is no such connection.
fn unread(sockets: &[net::Socket], stream: &Stream) -> Option<u64> {
    let Stream::Tcp(tcp) = stream else { return None };
    let (ours, theirs) = (tcp.local_addr().ok()?, tcp.peer_addr().ok()?);
    let other = sockets.iter().find(|socket| socket.local == theirs && socket.remote == ours)?;
    Some(other.receive_queue)
}

/// Waits until whoever is at the other end has read all.
fn all_is_read(streams: &[&Stream]) {
    until("all that was sent is read", || {
        let sockets = net::tcp_sockets();
        streams.iter().all(|stream| unread(&sockets, stream) == Some(0)).then_some(())
    });
}

#[test]
fn a_header_may_come_in_two_pieces_whatever_they_are() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.text("s"));
    let options = ["-C", "256", "--reserve", "0", "--proxy-timeout", "1h"];
    let server = behind(&[TCP, &unix], &options, &["cat"]);
    let payload = b"\r\n\r\n\0\r\nQUIT\nand more";
    let fields = [ends(CLIENT, HERE), field(AUTHORITY, b"a.example")].concat();
    for header in [line(CLIENT, HERE), checked(PROXY, TCP4, &fields)] {
        let whole = [&header, &payload[..]].concat();
        for at in [0, 1] {
            // One connection for each place to cut, all of them at once.
            let streams: Vec<_> = (1..whole.len()).map(|cut| (cut, dial(server.addr(at)))).collect();
            for (cut, mut stream) in streams.iter().map(|(cut, stream)| (*cut, stream)) {
                stream.write_all(&whole[..cut]).unwrap();
            }
            // Over TCP it can be seen that the first piece was read before the second is sent.
            if at == 0 {
                all_is_read(&streams.iter().map(|(_, stream)| stream).collect::<Vec<_>>());
            }
            for (cut, mut stream) in streams.iter().map(|(cut, stream)| (*cut, stream)) {
                stream.write_all(&whole[cut..]).unwrap();
                stream.finish().unwrap();
            }
            for (cut, stream) in &streams {
                assert_eq!(text(&stream.rest().unwrap()), text(payload), "cut at {cut}");
            }
        }
    }
    assert_eq!(counted(&server, "refused"), 0, "{}", server.log());
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let server = behind(&[TCP], &["--proxy-timeout", "1h"], &["cat"]);
    let fields = [ends(CLIENT, HERE), field(AUTHORITY, b"a.example")].concat();
    let headers = [line(CLIENT_6, HERE_6), checked(PROXY, TCP4, &fields)];
    let streams = [dial(server.addr(0)), dial(server.addr(0))];
    for at in 0..headers[0].len().max(headers[1].len()) {
        for (mut stream, header) in streams.iter().zip(&headers) {
            stream.write_all(header.get(at..=at).unwrap_or_default()).unwrap();
        }
        // Now and then it is waited until all before was read.
        if at % 4 == 0 {
            all_is_read(&[&streams[0], &streams[1]]);
        }
    }
    for mut stream in &streams {
        stream.write_all(b"payload").unwrap();
        stream.finish().unwrap();
        assert_eq!(stream.rest().unwrap(), b"payload");
    }
}

#[test]
fn a_megabyte_goes_both_ways_behind_a_header() {
    let server = behind(&[TCP], &[], &["cat"]);
    for header in [line(CLIENT, HERE), rich()] {
        let stream = dial(server.addr(0));
        (&mut &stream).write_all(&header).unwrap();
        assert_eq!(transfer(&stream, 1 << 20).unwrap().bytes, 1 << 20);
    }
}

#[test]
fn on_a_port_without_a_balancer_a_header_is_what_the_client_says() {
    let server = Server::tine(&[TCP, "--", "cat"]);
    for (name, header) in headers() {
        let all = [&header[..], b"payload"].concat();
        assert_eq!(ask(server.addr(0), &all).unwrap(), all, "{name}");
    }
}

/// The one refusal of a new server that this was said to, and nothing more; the connection was ended by the server.
fn refused_for(options: &[&str], said: &[u8], then: impl Fn(&Stream)) -> (String, Duration) {
    let server = behind(&[TCP], options, &["cat"]);
    let began = Instant::now();
    let stream = dial(server.addr(0));
    (&mut &stream).write_all(said).unwrap();
    then(&stream);
    if matches!(&stream, Stream::Tcp(tcp) if tcp.peer_addr().is_ok()) {
        assert_eq!(text(&last_words(&stream)), "", "to {:?}", text(said));
    }
    let took = began.elapsed();
    let line = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!(value(&line, "reason"), Some("proxy"), "{line}");
    assert!(value(&line, "peer").unwrap().starts_with("127.0.0.1:"), "{line}");
    let detail = value(&line, "detail").unwrap_or_else(|| panic!("no detail in {line}")).to_owned();
    open(&server, 0);
    assert_eq!((counted(&server, "refused"), counted(&server, "refused.proxy")), (1, 1));
    assert_eq!((counted(&server, "served"), counted(&server, "failed")), (0, 0), "nobody was served");
    assert!(!server.log().contains("accept "), "{}", server.log());
    (detail, took)
}

#[test]
fn whatever_is_no_header_is_dropped_at_its_first_wrong_byte() {
    let addresses = ends(CLIENT, HERE);
    let mut wrong_sum = checked(PROXY, TCP4, &addresses);
    *wrong_sum.last_mut().unwrap() ^= 1;
    let twice = [addresses.clone(), field(AUTHORITY, b"a"), field(AUTHORITY, b"b")].concat();
    let version_1 = b"\r\n\r\n\0\r\nQUIT\n\x11";
    let long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec(), vec![0xff]].concat();
    let line_108 = [&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat();
    assert_eq!(line_108.len(), 108);
    for (said, detail) in [
        // All of these could be gone on with for ever; the wrong byte is the last one.
        (&b"G"[..], "no PROXY header"),
        (b"\r\n\r\n\0\r\nQUIZ", "no PROXY header"),
        (b"PROXY TCP5", "none of TCP4, TCP6 and UNKNOWN"),
        (b"PROXY TCP4 192.0.2.256", "no address where one belongs"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536", "no port where one belongs"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", "a space, CR or LF out of place"),
        (&line_108[..106], "longer than 107 bytes"),
        (version_1, "neither version 1 nor 2"),
        (&binary(2, TCP4, b"")[..13], "neither LOCAL nor PROXY"),
        (&binary(PROXY, 0x12, b"")[..14], "datagrams on a stream"),
        (&long, "longer than 4096 bytes"),
        (&wrong_sum, "a wrong checksum"),
        (&binary(PROXY, TCP4, &twice), "a field twice"),
    ] {
        let (why, _) = refused_for(&["--proxy-timeout", "1h"], said, |_| ());
        assert_eq!(why, detail, "{:?}", text(said));
    }
}

#[test]
fn a_line_has_107_bytes_and_not_one_more() {
    let server = behind(&[TCP], &[], &["cat"]);
    let line = |length: usize| {
        let line = [&b"PROXY UNKNOWN "[..], &vec![b'x'; length - 16], b"\r\n"].concat();
        assert_eq!(line.len(), length);
        line
    };
    assert_eq!(ask(server.addr(0), &[&line(107)[..], b"payload"].concat()).unwrap(), b"payload");
    let stream = dial(server.addr(0));
    (&mut &stream).write_all(&[&line(108)[..], b"payload"].concat()).unwrap();
    assert_eq!(text(&last_words(&stream)), "");
    let refused = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!(value(&refused, "detail"), Some("longer than 107 bytes"));
    // The longest that the protocol knows of has 104.
    let full = format!("[{}ffff]:65535", "ffff:".repeat(7));
    let longest = self::line(&full, &full);
    assert_eq!(longest.len(), 104);
    assert_eq!(ask(server.addr(0), &[&longest[..], b"payload"].concat()).unwrap(), b"payload");
    server.wait_log(|line| line.starts_with("accept ") && value(line, "peer") == Some(&full));
}

#[test]
fn a_balancer_that_ends_before_its_header_does_is_refused() {
    let end = "the connection ended before the PROXY header did";
    for said in [&b""[..], b"P", &line(CLIENT, HERE)[..40], &rich()[..100]] {
        let (why, _) = refused_for(&[], said, |stream| stream.finish().unwrap());
        assert_eq!(why, end);
    }
    let (why, _) = refused_for(&[], b"PROXY ", |stream| {
        all_is_read(&[stream]);
        let Stream::Tcp(tcp) = stream else { unreachable!("the listener is one of TCP") };
        set_socket_linger(tcp, Some(Duration::ZERO)).unwrap();
        tcp.shutdown(std::net::Shutdown::Write).unwrap();
    });
    assert_eq!(why, end);
}

#[test]
fn a_balancer_that_says_nothing_more_is_refused_at_the_timeout() {
    for said in [&b""[..], b"PROXY TCP4 192.0.2.1 ", &rich()[..60]] {
        let (why, took) = refused_for(&["--proxy-timeout", "300ms"], said, |_| ());
        assert_eq!(why, "no PROXY header within 0.3 seconds");
        assert!(took >= Duration::from_millis(300), "{took:?}");
    }
}

#[test]
fn a_balancer_that_goes_on_slowly_is_refused_at_the_timeout_all_the_same() {
    let server = behind(&[TCP], &["--proxy-timeout", "300ms"], &["cat"]);
    let stream = dial(server.addr(0));
    let header = binary(PROXY, UNSPEC, &[0; 4000]);
    let mut bytes = header.iter().cycle();
    // A byte at each look, more than the timeout has room for.
    until("the server ends it", || {
        let byte = bytes.next().expect("there is always another one");
        (&mut &stream).write_all(&[*byte]).err()
    });
    let line = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!(value(&line, "detail"), Some("no PROXY header within 0.3 seconds"));
}

/// A TCP connection from an address of this machine.
fn dial_from(own: &str, to: SocketAddr) -> TcpStream {
    let own: SocketAddr = format!("{own}:0").parse().unwrap();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &own).unwrap();
    connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Page faults of all children that a process has waited for: none, or every child has some.
fn faults_of_children(pid: u32) -> u64 {
    const CMINFLT: usize = 11 - 3; // the eleventh field of proc_pid_stat(5), counted from the third
    procfs::stat(pid).expect("it runs").fields[CMINFLT].parse().expect("a number")
}

#[test]
fn whoever_is_no_balancer_is_refused_and_costs_no_child() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.text("s"));
    for (listener, from) in [(TCP, "127.0.0.2,::1,unix"), (TCP, "unix"), (&unix[..], "0.0.0.0/0,::/0")] {
        let server = Server::tine(&[listener, "--proxy", "required", "--proxy-from", from, "--", "cat"]);
        let before = faults_of_children(server.pid());
        let stream = dial(server.addr(0));
        // It may be refused before it has said anything.
        let _ = (&mut &stream).write_all(&[&line(CLIENT, HERE)[..], b"payload"].concat());
        assert_eq!(text(&last_words(&stream)), "", "--proxy-from {from}");
        let refused = server.wait_log(|line| line.starts_with("refuse "));
        assert_eq!(value(&refused, "reason"), Some("untrusted"), "{refused}");
        assert!(!refused.contains("192.0.2.7"), "what it says does not count: {refused}");
        assert_eq!((counted(&server, "refused.untrusted"), counted(&server, "refused")), (1, 1));
        assert_eq!(faults_of_children(server.pid()), before, "--proxy-from {from}: there was a child");
    }
    // And the balancer beside it is served.
    let server = Server::tine(&[TCP, "--proxy", "required", "--proxy-from", "127.0.0.2", "--", "cat"]);
    let mut balancer = dial_from("127.0.0.2", server.socket(0));
    balancer.write_all(&[&line(CLIENT, HERE)[..], b"payload"].concat()).unwrap();
    balancer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = Vec::new();
    balancer.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"payload");
}

/// Writes each variable, in order, and then which descriptors are open.
const SHOW: &str = r#"
    open my $to, ">&=", $ARGV[0] or die;
    opendir my $folder, "/proc/self/fd" or die;
    my @open = sort grep { /^\d/ and $_ != fileno $to and readlink "/proc/self/fd/$_" } readdir $folder;
    pop @open; # the folder itself
    syswrite $to, join("", map { "$_=$ENV{$_}\n" } sort keys %ENV) . "open=@open\n";
"#;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the program shows to a client with this header, with what only the kernel knows replaced; and the port that
/// the balancer had.
fn shown(server: &Server, header: &[u8]) -> (Vec<String>, u16) {
    open(server, 0); // the one before is not counted any more
    let stream = dial(server.addr(0));
    let port = match &stream {
        Stream::Tcp(tcp) => tcp.local_addr().unwrap().port(),
        Stream::Unix(_) => 0,
    };
    (&mut &stream).write_all(header).unwrap();
    stream.finish().unwrap();
    let seen = String::from_utf8(stream.rest().unwrap()).expect("variables as text");
    let known = |line: &str| match line.split_once('=') {
        Some((name @ ("TINE_ID" | "SO_COOKIE" | "LISTEN_PID"), value)) if value.len() > 1 => {
            format!("{name}=<known>")
        }
        _ => line.to_owned(),
    };
    let mut lines: Vec<_> = seen.lines().map(known).collect();
    let descriptors = lines.pop().unwrap_or_default();
    assert!(["open=0 2", "open=0 1 2"].contains(&&descriptors[..]), "{descriptors}");
    (lines, port)
}

/// A server of [`SHOW`] in this style.
fn showing(listener: &str, style: &str) -> Server {
    need("perl", "perl");
    let to = if style == "systemd" { "3" } else { "1" };
    behind(&[listener], &["--env", style], &["perl", "-e", SHOW, to])
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// What a program in the style of UCSPI is shown of a client by TCP, all but the balancer.
fn ucspi(client: &str, here: &str) -> Vec<String> {
    let (client, here): (SocketAddr, SocketAddr) = (client.parse().unwrap(), here.parse().unwrap());
    vec![
        PATH.to_owned(),
        "PROTO=TCP".to_owned(),
        format!("REMOTE_ADDR={}", client.ip()),
        format!("REMOTE_PORT={}", client.port()),
        "TCPCONNNUM=0".to_owned(),
        format!("TCPLOCALIP={}", here.ip()),
        format!("TCPLOCALPORT={}", here.port()),
        format!("TCPREMOTEIP={}", client.ip()),
        format!("TCPREMOTEPORT={}", client.port()),
        "TINE_ID=<known>".to_owned(),
    ]
}

/// The same with the balancer, and with more.
fn through(port: u16, variables: Vec<String>, more: &[&str]) -> Vec<String> {
    let balancer = ["TINE_PEER_IP=127.0.0.1".to_owned(), format!("TINE_PEER_PORT={port}")];
    sorted(
        [&variables[..], &balancer, &more.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()].concat(),
    )
}

#[test]
fn ucspi_has_the_client_and_the_balancer_has_names_of_its_own() {
    let server = showing(TCP, "ucspi");
    let of_tls = [
        "SSL_CIPHER=TLS_AES_128_GCM_SHA256",
        "SSL_PEER_CERT_CN=alice@example",
        "SSL_PROTOCOL=TLSv1.3",
        "SSL_TLS_SNI_SERVERNAME=mail.example",
    ];
    // One after the other, so that whatever is left of one is in the next.
    for (header, client, here, more) in [
        (rich(), CLIENT, HERE, &of_tls[..]),
        (binary(PROXY, TCP4, &ends(OTHER, HERE)), OTHER, HERE, &[]),
        (line(CLIENT, HERE), CLIENT, HERE, &[]),
        (line(CLIENT_6, HERE_6), CLIENT_6, HERE_6, &[]),
        (binary(PROXY, TCP6, &ends(CLIENT_6, HERE_6)), CLIENT_6, HERE_6, &[]),
        // A v4-mapped client is one of IPv4.
        (
            binary(PROXY, TCP6, &ends("[::ffff:192.0.2.7]:5023", "[::ffff:203.0.113.1]:443")),
            CLIENT,
            HERE,
            &[],
        ),
    ] {
        let (lines, port) = shown(&server, &header);
        assert_eq!(lines, through(port, ucspi(client, here), more), "{:?}", text(&header));
    }
    // The balancer's own connections have the socket's own ends, and nothing of the client before.
    for header in
        [binary(LOCAL, TCP4, &ends(CLIENT, HERE)), UNKNOWN_LINE.to_vec(), binary(PROXY, UNSPEC, b"")]
    {
        let (lines, port) = shown(&server, &header);
        let (own, here) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", server.port(0)));
        assert_eq!(lines, through(port, ucspi(&own, &here), &[]), "{:?}", text(&header));
    }
    // A client of the balancer's by a Unix socket.
    let (lines, port) = shown(&server, &binary(PROXY, UNIX, &unix_ends(b"/run/client", b"\0here")));
    let unix = [PATH, "IPCCONNNUM=0", "IPCLOCALPATH=@here", "IPCREMOTEPATH=/run/client", "PROTO=IPC"];
    let unix = [&unix[..], &["REMOTE_ADDR=/run/client", "TINE_ID=<known>"]].concat();
    assert_eq!(lines, through(port, unix.into_iter().map(str::to_owned).collect(), &[]));
}

#[test]
fn ucspi_of_a_balancer_by_a_unix_socket_has_the_clients_tcp() {
    let folder = Folder::new();
    let path = folder.text("s");
    let server = showing(&format!("unix:{path}"), "ucspi");
    assert_eq!(shown(&server, &line(CLIENT, HERE)).0, sorted(ucspi(CLIENT, HERE)));
    let own = std::fs::metadata("/proc/self").unwrap();
    let unix = [
        PATH.to_owned(),
        "IPCCONNNUM=0".to_owned(),
        format!("IPCLOCALPATH={path}"),
        format!("IPCREMOTEEGID={}", own.gid()),
        format!("IPCREMOTEEUID={}", own.uid()),
        "PROTO=IPC".to_owned(),
        "TINE_ID=<known>".to_owned(),
    ];
    assert_eq!(shown(&server, &binary(LOCAL, UNSPEC, b"")).0, sorted(unix.to_vec()));
}

#[test]
fn inetd_and_systemd_have_the_client_too() {
    let client = ["REMOTE_ADDR=192.0.2.7", "REMOTE_PORT=5023", PATH, "TINE_ID=<known>"];
    let systemd = ["LISTEN_FDNAMES=connection", "LISTEN_FDS=1", "LISTEN_PID=<known>", "SO_COOKIE=<known>"];
    for (style, more) in [("inetd", &["REMOTE_HOST=192.0.2.7"][..]), ("systemd", &systemd)] {
        let server = showing(TCP, style);
        let (lines, port) = shown(&server, &rich());
        assert_eq!(lines, through(port, client.map(str::to_owned).to_vec(), more), "{style}");
    }
    let server = showing(TCP, "none");
    assert_eq!(shown(&server, &rich()).0, [PATH]);
}

/// What a client might like to see in the environment of a program.
const HARMFUL: [&[u8]; 14] = [
    b"() { :;}; touch /tmp/x",
    b"a\nLD_PRELOAD=/tmp/x.so",
    b"LD_PRELOAD=/tmp/x.so",
    b"x\0LD_PRELOAD=/tmp/x.so",
    b"$(id)",
    b"`id`",
    b"a b",
    b"a;b",
    b"<b>",
    b"%n%n",
    b"..\\x",
    b"",
    b"\xff\xfe",
    "\u{e9}".as_bytes(),
];

#[test]
fn what_a_client_chose_is_shown_only_when_every_character_is_harmless() {
    let server = showing(TCP, "ucspi");
    for harm in HARMFUL {
        let fields = [ends(CLIENT, HERE), field(AUTHORITY, harm), tls(true, harm, harm, harm)];
        let (lines, port) = shown(&server, &binary(PROXY, TCP4, &fields.concat()));
        assert_eq!(lines, through(port, ucspi(CLIENT, HERE), &[]), "{:?}", text(harm));
    }
    // One that is harmful does not take the others with it.
    let fields = [ends(CLIENT, HERE), field(AUTHORITY, b"a b"), tls(true, b"TLSv1.2", b"a\nb", b"x-y_z:1/2")];
    let (lines, port) = shown(&server, &binary(PROXY, TCP4, &fields.concat()));
    assert_eq!(lines, through(port, ucspi(CLIENT, HERE), &["SSL_CIPHER=x-y_z:1/2", "SSL_PROTOCOL=TLSv1.2"]));
}

#[test]
fn a_unix_name_that_a_client_chose_is_shown_only_when_every_character_is_harmless() {
    let server = showing(TCP, "ucspi");
    let nothing = [PATH, "IPCCONNNUM=0", "PROTO=IPC", "TINE_ID=<known>"].map(str::to_owned).to_vec();
    for harm in HARMFUL.into_iter().filter(|harm| !harm.contains(&0)) {
        let ends = unix_ends(&[b"/", harm].concat(), &[b"/", harm].concat());
        // A slash alone is the name of no socket, and no harm.
        let more: &[&str] = match harm {
            b"" => &["IPCLOCALPATH=/", "IPCREMOTEPATH=/", "REMOTE_ADDR=/"],
            _ => &[],
        };
        let (lines, port) = shown(&server, &binary(PROXY, UNIX, &ends));
        assert_eq!(lines, through(port, nothing.clone(), more), "{:?}", text(harm));
    }
}

#[test]
fn the_name_in_a_certificate_is_shown_only_when_the_balancer_has_verified_it() {
    let server = showing(TCP, "ucspi");
    let header = |verified| {
        let fields = [ends(CLIENT, HERE), tls(verified, b"TLSv1.3", b"admin", b"AES")];
        binary(PROXY, TCP4, &fields.concat())
    };
    let others = ["SSL_CIPHER=AES", "SSL_PROTOCOL=TLSv1.3"];
    let (lines, port) = shown(&server, &header(true));
    let all = [&others[..], &["SSL_PEER_CERT_CN=admin"]].concat();
    assert_eq!(lines, through(port, ucspi(CLIENT, HERE), &all));
    let (lines, port) = shown(&server, &header(false));
    assert_eq!(lines, through(port, ucspi(CLIENT, HERE), &others), "anybody may call himself admin");
}

#[test]
fn clients_of_the_same_source_are_counted_as_the_balancer_has_them() {
    let server = behind(&[TCP], &[], &["sh", "-c", "echo $TCPCONNNUM; exec cat"]);
    let mut streams = Vec::new();
    for (client, count) in [(CLIENT, b'0'), (OTHER, b'0'), (CLIENT, b'1'), (CLIENT, b'2'), (OTHER, b'1')] {
        let stream = dial(server.addr(0));
        (&mut &stream).write_all(&line(client, HERE)).unwrap();
        let mut seen = [0; 2];
        (&mut &stream).read_exact(&mut seen).unwrap();
        assert_eq!(seen, [count, b'\n'], "{client}");
        streams.push(stream);
    }
}

#[test]
fn a_handler_sees_the_client_and_the_header() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.text("s"));
    let server = Server::example("proxied", &["from=127.0.0.1,unix", TCP, &unix]);
    let told = |at: usize, header: &[u8]| {
        let stream = dial(server.addr(at));
        let own = match &stream {
            Stream::Tcp(tcp) => tcp.local_addr().unwrap().to_string(),
            Stream::Unix(_) => String::new(),
        };
        (&mut &stream).write_all(&[header, b"payload"].concat()).unwrap();
        stream.finish().unwrap();
        (String::from_utf8(stream.rest().unwrap()).expect("text"), own)
    };
    let (seen, own) = told(0, &rich());
    let client = format!("peer={CLIENT} local=Inet({HERE})\n");
    let header = "version=2 own=false name=Some(\"mail.example\") verified=Some(true)\n";
    assert_eq!(seen, format!("{client}{header}tcp from={own}\npayload"));
    let (seen, own) = told(0, UNKNOWN_LINE);
    let here = format!("peer={own} local=Inet({})\n", server.addr(0));
    assert_eq!(seen, format!("{here}version=1 own=true name=None verified=None\ntcp from={own}\npayload"));
    let (seen, own) = told(0, &binary(PROXY, UNIX, &unix_ends(b"/a", b"/b")));
    let header = "version=2 own=false name=None verified=None\n";
    assert_eq!(seen, format!("peer=any local=Path(\"/b\")\n{header}tcp from={own}\npayload"));
    // Whoever the client is, a Unix socket is no TCP connection.
    let (seen, _) = told(1, &line(CLIENT, HERE));
    assert_eq!(seen, format!("{client}version=1 own=false name=None verified=None\nunix\npayload"));
    assert!(server.stop().success());
}

#[test]
fn the_limit_for_a_source_is_the_clients_and_not_the_balancers() {
    let server = behind(&[TCP], &["-c", "32", "-C", "2:Two are enough."], &["cat"]);
    let address = server.addr(0).to_owned();
    let baseline = Baseline::with(&server, move || ask(&address, UNKNOWN_LINE).map(drop));
    let (mut here, mut refused) = (Vec::new(), 0);
    for client in [CLIENT, OTHER, "203.0.113.99:7", CLIENT_6, "[2001:db8:0:2::1]:7"] {
        here.push(comes(&server, &line(client, here_of(client))));
        here.push(comes(&server, &binary(PROXY, family(client), &ends(client, here_of(client)))));
        let Stream::Tcp(tcp) = &here[here.len() - 1] else { unreachable!("the listener is one of TCP") };
        let via = tcp.local_addr().unwrap().to_string();
        let accepted =
            server.wait_log(|line| line.starts_with("accept ") && value(line, "via") == Some(&via));
        assert_eq!(value(&accepted, "peer"), Some(client));
        assert_eq!(value(&accepted, "open"), Some(&format!("{}/32", here.len())[..]));
        // The third, whether it has said something already or not.
        for payload in [&b""[..], b"here I am\n"] {
            let stream = dial(server.addr(0));
            (&mut &stream).write_all(&[&line(client, here_of(client)), payload].concat()).unwrap();
            assert_eq!(text(&last_words(&stream)), "Two are enough.\n", "{client}");
            refused += 1;
        }
        open(&server, here.len() as u64);
    }
    let line_of = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!((value(&line_of, "peer"), value(&line_of, "reason")), (Some(CLIENT), Some("source")));
    // The addresses of one /64 are one source, and a mapped address is the one that it maps.
    let mapped = ends("[::ffff:192.0.2.7]:1", HERE_6);
    for header in [line("[2001:db8:0:1:ffff::1]:9", HERE_6), binary(PROXY, TCP6, &mapped)] {
        let stream = dial(server.addr(0));
        (&mut &stream).write_all(&header).unwrap();
        assert_eq!(text(&last_words(&stream)), "Two are enough.\n");
        refused += 1;
    }
    assert_eq!((counted(&server, "refused.source"), counted(&server, "refused")), (refused, refused));
    // A slot that is free again is free again, for that source only.
    let gone = here.swap_remove(0);
    gone.finish().unwrap();
    assert_eq!(gone.rest().unwrap(), b"");
    open(&server, here.len() as u64);
    here.push(comes(&server, &line(CLIENT, HERE)));
    let stream = dial(server.addr(0));
    (&mut &stream).write_all(&line(CLIENT, HERE)).unwrap();
    assert_eq!(text(&last_words(&stream)), "Two are enough.\n");
    drop(here);
    server.quiescent(&baseline);
    assert_eq!(counted(&server, "refused"), refused + 1);
    // The probes of the baseline are two.
    assert_eq!((counted(&server, "served"), counted(&server, "failed")), (11 + 2, 0), "{}", server.log());
    assert!(server.stop().success());
}

/// Where a client of this family has connected to.
fn here_of(client: &str) -> &'static str {
    if client.starts_with('[') { HERE_6 } else { HERE }
}

fn family(client: &str) -> u8 {
    if client.starts_with('[') { TCP6 } else { TCP4 }
}

#[test]
fn a_balancer_is_not_limited_for_what_it_says_of_itself() {
    let server = behind(&[TCP], &["-c", "32", "-C", "2", "--rate-per-source=1/h:2"], &["cat"]);
    let own = [binary(LOCAL, UNSPEC, b""), UNKNOWN_LINE.to_vec(), binary(PROXY, UNSPEC, b"")];
    let here: Vec<_> = own.iter().cycle().take(9).map(|header| comes(&server, header)).collect();
    assert_eq!((counted(&server, "refused"), server.status().open), (0, here.len() as u64));
}

#[test]
fn a_balancer_that_names_its_own_socket_is_itself() {
    // As haproxy's health checks do with version 1.
    let options = ["-c", "32", "-C", "2", "--penalty", "crash=20s,min=15s"];
    let server = behind(&[TCP], &options, &FRAGILE);
    let own = |payload: &[u8]| {
        let stream = dial(server.addr(0));
        let Stream::Tcp(tcp) = &stream else { unreachable!("the listener is one of TCP") };
        let header = line(&tcp.local_addr().unwrap().to_string(), server.addr(0));
        (&mut &stream).write_all(&[&header, payload].concat()).unwrap();
        stream
    };
    assert_eq!(text(&last_words(&own(b"crash\n"))), "");
    server.wait_log(|line| line.starts_with("end ") && line.contains(" signal=11 "));
    let here: Vec<_> = (0..4).map(|_| own(b"x\n")).collect();
    for mut stream in &here {
        let mut reply = [0; 2];
        stream.read_exact(&mut reply).unwrap_or_else(|why| server.fail(&why.to_string()));
    }
    assert_eq!(counted(&server, "refused"), 0);
    // Another process of the balancer's machine is a client like others.
    let neighbour = || comes(&server, &line("127.0.0.1:1", HERE));
    let both = [neighbour(), neighbour()];
    let stream = dial(server.addr(0));
    (&mut &stream).write_all(&line("127.0.0.1:1", HERE)).unwrap();
    assert_eq!(text(&last_words(&stream)), "");
    assert_eq!(counted(&server, "refused.source"), 1);
    drop((here, both));
}

#[test]
fn a_rate_is_the_clients_and_not_the_balancers() {
    let server = behind(&[TCP], &["--rate-per-source=1/h:2"], &["cat"]);
    for client in [CLIENT, OTHER, CLIENT_6] {
        let header = line(client, here_of(client));
        for _ in 0..2 {
            assert_eq!(ask(server.addr(0), &[&header[..], b"payload"].concat()).unwrap(), b"payload");
        }
        let stream = dial(server.addr(0));
        (&mut &stream).write_all(&header).unwrap();
        assert_eq!(text(&last_words(&stream)), "", "{client} comes a third time");
    }
    let refused = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!((value(&refused, "peer"), value(&refused, "reason")), (Some(CLIENT), Some("rate")));
    assert_eq!((counted(&server, "refused.rate"), counted(&server, "refused")), (3, 3));
}

/// Says lines back, and dies of a line `crash`.
const FRAGILE: [&str; 3] =
    ["sh", "-c", r#"while read -r line; do [ "$line" = crash ] && kill -SEGV $$; echo "$line"; done"#];

/// Has a program crash, and gives the line that tells of its end.
fn crashes(server: &Server, header: &[u8]) -> String {
    let from = server.cursor();
    let stream = dial(server.addr(0));
    (&mut &stream).write_all(&[header, b"crash\n"].concat()).unwrap();
    assert_eq!(text(&last_words(&stream)), "");
    let end = server.wait_log_from(from, |line| line.starts_with("end ") && line.contains(" signal=11 ")).1;
    open(server, 0);
    end
}

#[test]
fn a_penalty_keeps_the_client_out_and_not_the_balancer() {
    let server = behind(&[TCP], &["--penalty", "crash=10m,min=15s"], &FRAGILE);
    let end = crashes(&server, &line(CLIENT, HERE));
    assert_eq!(value(&end, "peer"), Some(CLIENT));
    let penalty = server.wait_log(|line| line.starts_with("penalty "));
    assert_eq!(penalty, format!("penalty peer={CLIENT} source=192.0.2.7 for_s=600"));
    for payload in [&b""[..], b"here I am\n"] {
        let stream = dial(server.addr(0));
        (&mut &stream).write_all(&[&rich()[..], payload].concat()).unwrap();
        assert_eq!(text(&last_words(&stream)), "");
    }
    let refused = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!((value(&refused, "peer"), value(&refused, "reason")), (Some(CLIENT), Some("penalty")));
    // Others come in by the same balancer, and so does the balancer.
    for header in
        [line(OTHER, HERE), line(CLIENT_6, HERE_6), binary(LOCAL, UNSPEC, b""), UNKNOWN_LINE.to_vec()]
    {
        drop(comes(&server, &header));
    }
    assert_eq!((counted(&server, "refused.penalty"), counted(&server, "refused")), (2, 2));
    assert_eq!(server.log().lines().filter(|line| line.starts_with("penalty ")).count(), 1);
}

#[test]
fn a_balancer_earns_nothing_for_its_own_connections() {
    let server = behind(&[TCP], &["--penalty", "crash=20s,exit=20s,signal=20s,min=15s"], &FRAGILE);
    for header in [binary(LOCAL, UNSPEC, b""), UNKNOWN_LINE.to_vec(), binary(PROXY, UNSPEC, b"")] {
        let end = crashes(&server, &header);
        assert!(value(&end, "peer").unwrap().starts_with("127.0.0.1:"), "{end}");
        // Nor is it kept out of its next health check.
        drop(comes(&server, &binary(LOCAL, UNSPEC, b"")));
        drop(comes(&server, &line(CLIENT, HERE)));
    }
    assert_eq!(counted(&server, "refused"), 0);
    assert!(!server.log().contains("penalty "), "{}", server.log());
}

#[test]
fn a_child_that_is_killed_before_it_knows_its_client_is_nobodys_fault() {
    let penalty = ["--penalty", "crash=20s,exit=20s,signal=20s,min=15s", "--proxy-timeout", "1h"];
    let server = behind(&[TCP], &penalty, &["cat"]);
    let address = server.addr(0).to_owned();
    let baseline = Baseline::with(&server, move || ask(&address, UNKNOWN_LINE).map(drop));
    let served = counted(&server, "served");
    for count in 1..=8 {
        let stream = dial(server.addr(0));
        (&mut &stream).write_all(&line(CLIENT, HERE)[..20]).unwrap();
        all_is_read(&[&stream]);
        open(&server, 1);
        let children = procfs::children(server.pid());
        assert_eq!(children.len(), 1, "{children:?}");
        let from = server.cursor();
        send(children[0], Signal::KILL);
        assert_eq!(text(&last_words(&stream)), "");
        let end = server.wait_log_from(from, |line| line.starts_with("end ")).1;
        assert_eq!((number(&end, "child"), value(&end, "signal")), (children[0], Some("9")), "{end}");
        assert!(value(&end, "peer").unwrap().starts_with("127.0.0.1:"), "{end}");
        open(&server, 0);
        assert_eq!((counted(&server, "served"), counted(&server, "failed")), (served + count, count));
    }
    drop(comes(&server, &binary(LOCAL, UNSPEC, b"")));
    drop(comes(&server, &line(CLIENT, HERE)));
    assert!(!server.log().contains("penalty "), "{}", server.log());
    server.quiescent(&baseline);
}

#[test]
fn rules_are_about_clients_and_about_the_balancer_only_where_it_speaks_for_itself() {
    let server = behind(&[TCP], &["--deny", "192.0.2.0/24,127.0.0.1"], &["cat"]);
    for header in [line(OTHER, HERE), line(CLIENT_6, HERE_6)] {
        assert_eq!(ask(server.addr(0), &[&header[..], b"payload"].concat()).unwrap(), b"payload");
    }
    for header in [line(CLIENT, HERE), rich(), binary(LOCAL, UNSPEC, b""), UNKNOWN_LINE.to_vec()] {
        let stream = dial(server.addr(0));
        (&mut &stream).write_all(&header).unwrap();
        assert_eq!(text(&last_words(&stream)), "", "{:?}", text(&header));
    }
    let refused = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!((value(&refused, "peer"), value(&refused, "reason")), (Some(CLIENT), Some("denied")));
    assert_eq!((counted(&server, "refused.denied"), counted(&server, "refused")), (4, 4));
}

#[test]
fn a_rule_for_a_client_gives_it_its_own_limit_message_variable_and_program() {
    let folder = Folder::new();
    let rules = folder.text("rules");
    let write = |text: &str| std::fs::write(&rules, text).unwrap();
    write(
        "deny 192.0.2.8 message=\"Not you.\"\n\
         allow 192.0.2.9 children=1 env.GREETING=hello\n\
         allow 192.0.2.10 exec=\"sh -c 'echo other $REMOTE_ADDR'\"\n",
    );
    let program = ["sh", "-c", "echo ${GREETING:-nothing} $REMOTE_ADDR; exec cat"];
    let server = behind(&[TCP], &["--rules", &rules], &program);
    let said = |header: &[u8]| text(&ask(server.addr(0), header).unwrap());
    let from = |ip: &str| line(&format!("{ip}:7"), HERE);
    assert_eq!(said(&from("192.0.2.7")), "nothing 192.0.2.7\n");
    assert_eq!(said(&from("192.0.2.8")), "Not you.\n");
    assert_eq!(said(&from("192.0.2.9")), "hello 192.0.2.9\n");
    assert_eq!(said(&from("192.0.2.10")), "other 192.0.2.10\n");
    assert_eq!(said(&from("192.0.2.7")), "nothing 192.0.2.7\n", "what one has the next has not");
    open(&server, 0); // nor is the child of one counted any more
    let one = dial(server.addr(0));
    (&mut &one).write_all(&from("192.0.2.9")).unwrap();
    let mut greeting = [0; 16];
    (&mut &one).read_exact(&mut greeting).unwrap();
    assert_eq!(said(&from("192.0.2.9")), "", "it may have one child");
}

#[test]
fn rules_that_come_while_a_client_has_no_name_are_not_mixed_with_those_before() {
    let folder = Folder::new();
    let rules = folder.text("rules");
    let write = |text: &str| std::fs::write(&rules, text).unwrap();
    write("deny 192.0.2.8 message=\"Not you.\"\n");
    let program = ["sh", "-c", "echo ${GREETING:-nothing} $REMOTE_ADDR; exec cat"];
    let server = behind(&[TCP], &["--rules", &rules], &program);
    let from = |ip: &str| line(&format!("{ip}:7"), HERE);
    let nameless = [dial(server.addr(0)), dial(server.addr(0))];
    for mut stream in &nameless {
        stream.write_all(b"PROXY ").unwrap();
    }
    all_is_read(&[&nameless[0], &nameless[1]]);
    write("deny 192.0.2.7 message=\"Not you either.\"\nallow 192.0.2.8 env.GREETING=welcome\n");
    server.signal(Signal::HUP);
    server.wait_log(|line| line.starts_with("reload rules=2"));
    let before = ["nothing 192.0.2.7\n", "Not you.\n"];
    let after = ["Not you either.\n", "welcome 192.0.2.8\n"];
    let seen = ["192.0.2.7", "192.0.2.8"].map(|ip| {
        let mut stream = &nameless[usize::from(ip == "192.0.2.8")];
        stream.write_all(&from(ip)[6..]).unwrap();
        stream.finish().unwrap();
        text(&stream.rest().unwrap())
    });
    assert!(seen == before || seen == after, "{seen:?}");
}

#[test]
fn of_five_hundred_the_silent_half_is_ended_at_the_timeout_and_the_others_are_served() {
    // Enough for those that say who they are, on a machine that five hundred processes keep busy.
    const TIMEOUT: Duration = Duration::from_secs(8);
    let options = ["-c", "512", "--reserve", "0", "-C", "2", "--proxy-timeout", "8s"];
    let server = behind(&[TCP], &options, &["cat"]);
    let address = server.addr(0).to_owned();
    let baseline = Baseline::with(&server, move || ask(&address, UNKNOWN_LINE).map(drop));
    let header = |n: usize| line(&format!("198.51.100.{}:7", n % 250), HERE);
    let began = Instant::now();
    let streams: Vec<_> = (0..500)
        .map(|n| {
            let stream = dial(server.addr(0));
            let header = header(n);
            let said = match n % 4 {
                0 => &b""[..],
                1 => &header[..n % 30],
                _ => &header,
            };
            (&mut &stream).write_all(said).unwrap();
            stream
        })
        .collect();
    let (silent, served): (Vec<_>, Vec<_>) = streams.iter().enumerate().partition(|(n, _)| n % 4 < 2);
    // All of those that have a name are here at the same time, and answered while the others are waited for.
    for &(n, mut stream) in &served {
        let word = format!("{n:03}");
        stream.write_all(word.as_bytes()).unwrap();
        let mut reply = [0; 3];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(text(&reply), word);
    }
    for &(_, stream) in &silent {
        assert_eq!(text(&last_words(stream)), "");
    }
    assert!(began.elapsed() >= TIMEOUT);
    assert_eq!((counted(&server, "refused.proxy"), counted(&server, "refused")), (250, 250));
    assert_eq!(counted(&server, "served"), 1, "the baseline's; nobody else is gone");
    for &(_, mut stream) in &served {
        stream.write_all(b".").unwrap();
        stream.finish().unwrap();
        assert_eq!(text(&stream.rest().unwrap()), ".");
    }
    drop(streams);
    server.quiescent(&baseline);
    assert_eq!((counted(&server, "served"), counted(&server, "failed")), (252, 0));
    assert!(server.stop().success());
}

#[test]
fn a_drain_waits_for_those_who_have_no_name_yet_as_for_others() {
    // The late one has so long for all that happens before it says who it is; the silent one waits for its end.
    let server = behind(&[TCP], &["--drain", "600", "--proxy-timeout", "6s"], &["cat"]);
    let named = comes(&server, &line(OTHER, HERE));
    let [late, silent] = [dial(server.addr(0)), dial(server.addr(0))];
    for mut stream in [&late, &silent] {
        stream.write_all(b"PROXY ").unwrap();
    }
    all_is_read(&[&late, &silent]);
    open(&server, 3); // what is on its way yet is not unread either
    server.signal(Signal::TERM);
    server.wait_log(|line| line.starts_with("drain  open=3 "));
    // It was accepted before the end was asked for.
    (&mut &late).write_all(&[&line(CLIENT, HERE)[6..], b"payload"].concat()).unwrap();
    late.finish().unwrap();
    assert_eq!(late.rest().unwrap(), b"payload");
    assert_eq!(text(&last_words(&silent)), "");
    named.finish().unwrap();
    assert_eq!(named.rest().unwrap(), b"");
    assert!(server.wait().success());
    let refused = server.wait_log(|line| line.starts_with("refuse "));
    assert_eq!(value(&refused, "reason"), Some("proxy"));
    assert_eq!(server.wait_log(|line| line.starts_with("stop ")), "stop   served=2");
}

#[test]
fn the_second_request_to_end_ends_those_who_have_no_name_yet() {
    let server = behind(&[TCP], &["--drain", "600", "--proxy-timeout", "1h"], &["cat"]);
    let silent = dial(server.addr(0));
    (&mut &silent).write_all(b"PROXY ").unwrap();
    all_is_read(&[&silent]);
    open(&server, 1);
    server.signal(Signal::TERM);
    server.wait_log(|line| line.starts_with("drain  open=1 "));
    server.signal(Signal::TERM);
    assert_eq!(text(&last_words(&silent)), "");
    assert!(server.wait().success());
}

#[test]
fn a_child_whose_master_is_killed_ends_whether_it_waits_for_a_header_or_for_its_verdict() {
    // Without control groups: what a master that is killed leaves of those is not looked at here.
    let server = behind(&[TCP], &["--trees", "subreaper", "--proxy-timeout", "1h"], &["cat"]);
    let [asks, reads] = [dial(server.addr(0)), dial(server.addr(0))];
    for mut stream in [&asks, &reads] {
        stream.write_all(b"PROXY ").unwrap();
    }
    all_is_read(&[&asks, &reads]);
    open(&server, 2);
    let children = procfs::children(server.pid());
    assert_eq!(children.len(), 2, "{children:?}");
    server.signal(Signal::STOP);
    until("the master stands still", || {
        procfs::stat(server.pid()).is_some_and(|stat| stat.state == 'T').then_some(())
    });
    (&mut &asks).write_all(&line(CLIENT, HERE)[6..]).unwrap();
    // The header was taken, so the child has asked, or is about to.
    all_is_read(&[&asks]);
    server.signal(Signal::KILL);
    assert_eq!(text(&last_words(&asks)), "");
    // The other one has nobody to ask when it knows.
    (&mut &reads).write_all(&[&line(OTHER, HERE)[6..], b"payload"].concat()).unwrap();
    assert_eq!(text(&last_words(&reads)), "");
    until("both are gone", || children.iter().all(|pid| procfs::stat(*pid).is_none()).then_some(()));
    assert!(!server.wait().success());
}

#[test]
fn the_first_byte_is_the_clients_and_no_header() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.text("s"));
    let options = ["--first-byte-timeout", "400ms", "--penalty", "timeout=20s,min=15s"];
    for listener in [TCP, &unix] {
        let server = behind(&[listener], &options, &["cat"]);
        // Said at once, or later: both have said something.
        let spoken = [comes(&server, &line(OTHER, HERE)), comes(&server, &line(OTHER, HERE))];
        let silent = dial(server.addr(0));
        (&mut &silent).write_all(&line(CLIENT, HERE)).unwrap();
        assert_eq!(text(&last_words(&silent)), "");
        let end = server.wait_log(|line| line.starts_with("end "));
        assert_eq!((value(&end, "reason"), value(&end, "peer")), (Some("first-byte"), Some(CLIENT)), "{end}");
        let penalty = server.wait_log(|line| line.starts_with("penalty "));
        assert_eq!(value(&penalty, "source"), Some("192.0.2.7"));
        open(&server, 2);
        drop(spoken);
    }
}

#[test]
fn a_time_limit_is_the_clients_and_its_penalty_too() {
    // Enough for its program to begin and to say a line.
    let options = ["--time-limit", "5s", "--penalty", "timeout=20s,min=15s"];
    let server = behind(&[TCP], &options, &["cat"]);
    let stream = comes(&server, &line(CLIENT, HERE));
    assert_eq!(text(&last_words(&stream)), "");
    let end = server.wait_log(|line| line.starts_with("end "));
    assert_eq!((value(&end, "reason"), value(&end, "peer")), (Some("time-limit"), Some(CLIENT)), "{end}");
    server.wait_log(|line| line.starts_with("penalty ") && value(line, "source") == Some("192.0.2.7"));
    assert_eq!(ask(server.addr(0), &line(OTHER, HERE)).unwrap(), b"");
    assert_eq!(counted(&server, "refused"), 0);
}

/// What a command that does not serve says, and the code that it ends with.
fn fails(command: &mut Command) -> (Option<i32>, String) {
    let mut bounded = Command::new("timeout");
    bounded.args(["--kill-after=1", "30"]).arg(command.get_program()).args(command.get_args());
    let output = bounded.output().unwrap();
    (output.status.code(), text(&output.stderr))
}

#[test]
fn what_cannot_be_behind_a_balancer_is_refused_at_the_start() {
    let folder = Folder::new();
    let (records, stream) = (format!("seqpacket:{}", folder.text("r")), format!("unix:{}", folder.text("s")));
    let from = ["--proxy", "required", "--proxy-from", "127.0.0.1,unix"];
    let serve = |args: &[&str]| fails(&mut tine_command(&[args, &["--", "cat"]].concat()));
    let (code, said) = serve(&[&[&stream[..], &records], &from[..]].concat());
    assert_eq!(code, Some(100), "{said}");
    assert!(said.contains(&records) && said.contains("records") && said.contains("PROXY header"), "{said}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "nothing listens at {left:?}");
    for args in [
        &[TCP, "--proxy", "required"][..],
        &[TCP, "--proxy-from", "127.0.0.1"],
        &[TCP, "--proxy-timeout", "5s"],
        &[TCP, "--proxy", "required", "--proxy-from", "127.0.0.1/33"],
        &[TCP, "--proxy", "required", "--proxy-from", ""],
    ] {
        let (code, said) = serve(args);
        assert_eq!(code, Some(100), "{args:?}: {said}");
        assert!(said.contains("--proxy"), "{args:?}: {said}");
    }
}

#[test]
fn a_header_that_nobody_could_send_in_time_is_refused_at_the_start() {
    let args = [TCP, "--proxy", "required", "--proxy-from", "127.0.0.1", "--proxy-timeout", "0", "--", "cat"];
    let (code, said) = fails(&mut tine_command(&args));
    assert_eq!(code, Some(100), "{said}");
    assert!(said.contains("--proxy-timeout"), "{said}");
}

#[test]
fn datagrams_have_no_balancer_and_so_are_refused_at_the_start() {
    let from = ["--proxy", "required", "--proxy-from", "127.0.0.1"];
    for how in ["wait", "peer", "each"] {
        let args = [&["udp://127.0.0.1:0", "--datagram", how], &from[..], &["--", "cat"]].concat();
        let (code, said) = fails(&mut tine_command(&args));
        assert_eq!(code, Some(100), "{how}: {said}");
        assert!(said.contains("udp://127.0.0.1:0"), "{said}");
    }
}

#[test]
fn a_full_house_says_so_before_anybody_is_named() {
    let server = behind(&[TCP], &["-c", "1", "--on-full", "refuse:Full."], &["cat"]);
    let one = comes(&server, &line(CLIENT, here_of(CLIENT)));
    for _ in 0..3 {
        assert_eq!(text(&last_words(&dial(server.addr(0)))), "Full.\n");
    }
    assert_eq!(server.status().refused("full"), 3);
    drop(one);
    open(&server, 0);
    drop(comes(&server, &line(OTHER, here_of(OTHER))));
    assert!(server.stop().success());
}
