//! `tine connect` as a script uses it: what goes in comes out, and the exit code tells how it ended.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tine_testkit::server::{DEADLINE, tine_command, until};
use tine_testkit::{Pattern, Ready, Server};

use support::{Folder, command, fed, need};

/// The command `tine connect` with these arguments.
fn connect(args: &[&str]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_tine"));
    command.arg("connect").args(args);
    command
}

/// What came back; it must have ended well and said nothing.
fn well(output: Output) -> String {
    assert_eq!(said(&output), (Some(0), String::new()));
    String::from_utf8(output.stdout).unwrap()
}

/// The code, and what was said.
fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A server on a socket of the test's own, for one client.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn accepted(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Bytes in a file, so that input is there from the start.
fn file_of(folder: &Folder, length: usize) -> (File, Vec<u8>) {
    let mut bytes = vec![0; length];
    Pattern::new(7).fill(&mut bytes);
    std::fs::write(folder.file("input"), &bytes).unwrap();
    (File::open(folder.file("input")).unwrap(), bytes)
}

#[test]
fn every_family_of_connections() {
    let folder = Folder::new();
    let path = format!("unix:{}", folder.text("s"));
    let name = format!("unix:@tine-connect-{}", std::process::id());
    let server = Server::tine(&["tcp://127.0.0.1:0", ":0", &path, &name, "--", "cat"]);
    let addresses =
        [format!("tcp://{}", server.addr(0)), format!(":{}", server.port(1)), path.clone(), name.clone()];
    for address in addresses {
        assert_eq!(well(fed(&mut connect(&[&address]), b"hello\n")), "hello\n", "{address}");
    }
}

#[test]
fn the_end_of_input_is_passed_on_and_the_answer_after_it_is_read() {
    let server = Server::tine(&["tcp://127.0.0.1:0", "--", "sh", "-c", "wc -c; echo done"]);
    let answer = well(fed(&mut connect(&[server.addr(0)]), &[b'x'; 100_000]));
    assert_eq!(answer.split_whitespace().collect::<Vec<_>>(), ["100000", "done"]);
}

#[test]
fn eight_mebibytes_go_both_ways_at_once() {
    let server = Server::tine(&["tcp://127.0.0.1:0", "--", "cat"]);
    let folder = Folder::new();
    let (input, bytes) = file_of(&folder, 8 << 20);
    // More than the buffers of the whole way hold: a client that sent all before it read would never end.
    let output = connect(&[server.addr(0)]).stdin(input).output().unwrap();
    assert_eq!(said(&output), (Some(0), String::new()));
    assert!(output.stdout == bytes, "{} bytes came back, and not the same", output.stdout.len());
}

#[test]
fn a_server_that_ends_first_is_a_good_end_when_there_is_no_input_left() {
    let server = Server::tine(&["tcp://127.0.0.1:0", "--", "echo", "hello"]);
    assert_eq!(well(connect(&[server.addr(0)]).stdin(Stdio::null()).output().unwrap()), "hello\n");
}

#[test]
fn input_that_may_come_some_day_is_not_waited_for() {
    let server = Server::tine(&["tcp://127.0.0.1:0", "--", "echo", "hello"]);
    let mut client = connect(&[server.addr(0)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tine can be run");
    let _never_written_to = client.stdin.take();
    let status = until("the client ends with the server", || client.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let mut seen = String::new();
    client.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "hello\n");
}

#[test]
fn a_server_that_has_said_all_still_gets_all_the_input() {
    let (listener, address) = listener();
    let folder = Folder::new();
    let (input, bytes) = file_of(&folder, 4 << 20);
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut stream = accepted(&listener);
            stream.write_all(b"bye\n").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut seen = Vec::new();
            stream.read_to_end(&mut seen).unwrap();
            seen
        });
        assert_eq!(well(connect(&[&address]).stdin(input).output().unwrap()), "bye\n");
        assert!(server.join().unwrap() == bytes, "the input was cut");
    });
}

#[test]
fn a_reset_is_told_by_code_1() {
    let (listener, address) = listener();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = accepted(&listener);
            stream.read_exact(&mut [0; 1]).unwrap();
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        });
        let output = fed(&mut connect(&[&address]), b"x");
        let message = format!("tine: connect {address}: receive: Connection reset by peer\n");
        assert_eq!(said(&output), (Some(1), message));
    });
}

#[test]
fn a_server_that_goes_while_there_is_input_is_told_by_code_1() {
    let server = Server::tine(&["tcp://127.0.0.1:0", "--", "sh", "-c", "dd bs=1 count=1 of=/dev/null 2>&1"]);
    let folder = Folder::new();
    let (input, _) = file_of(&folder, 8 << 20);
    let output = connect(&[server.addr(0)]).stdin(input).output().unwrap();
    let (code, message) = said(&output);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.starts_with(&format!("tine: connect {}: ", server.addr(0))), "{message}");
}

#[test]
fn a_reader_that_has_gone_ends_it_quietly() {
    let server = Server::tine(&["tcp://127.0.0.1:0", "--", "yes"]);
    let mut client = connect(&[server.addr(0)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tine can be run");
    let mut line = [0; 2];
    client.stdout.take().unwrap().read_exact(&mut line).unwrap(); // and then nobody reads
    assert_eq!(&line, b"y\n");
    assert_eq!(said(&client.wait_with_output().unwrap()), (Some(1), String::new()));
}

#[test]
fn an_output_that_is_full_is_told() {
    let server = Server::tine(&["tcp://127.0.0.1:0", "--", "cat"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child =
        connect(&[server.addr(0)]).stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    let message = "tine: write standard output: No space left on device\n".to_owned();
    assert_eq!(said(&child.wait_with_output().unwrap()), (Some(111), message));
}

#[test]
fn an_input_that_cannot_be_read_is_told() {
    let server = Server::tine(&["tcp://127.0.0.1:0", "--", "cat"]);
    let output = connect(&[server.addr(0)]).stdin(File::open("/").unwrap()).output().unwrap();
    assert_eq!(said(&output), (Some(111), "tine: read standard input: Is a directory\n".to_owned()));
}

/// A program that answers each record with its length.
const LENGTHS: &str = r#"while ($n = sysread STDIN, $x, 70_000) { syswrite STDOUT, "$n\n" }"#;

#[test]
fn each_line_is_a_record_of_a_seqpacket_connection() {
    need("perl", "perl");
    let folder = Folder::new();
    let address = format!("seqpacket:{}", folder.text("s"));
    let command = tine_command(&[&address, "--", "perl", "-e", LENGTHS]);
    let _server = Server::start(command, Ready::Ports(vec![address.clone()]));
    assert_eq!(well(fed(&mut connect(&[&address]), b"one\ntwelve\n\nrest")), "4\n7\n1\n4\n");
}

#[test]
fn each_line_is_a_datagram_and_replies_are_waited_for() {
    need("perl", "perl");
    let folder = Folder::new();
    let unix = format!("unixgram:{}", folder.text("s"));
    let server = Server::tine(&[
        "udp://127.0.0.1:0",
        &unix,
        "--datagram",
        "peer",
        "--datagram-idle",
        "60",
        "--",
        "perl",
        "-e",
        LENGTHS,
    ]);
    // Long enough for the first reply, which a program has to be started for; so both wait at the same time.
    thread::scope(|scope| {
        for address in [format!("udp://{}", server.addr(0)), unix] {
            scope.spawn(move || {
                let output = fed(&mut connect(&["-w", "8", &address]), b"one\ntwelve\n\nrest");
                assert_eq!(well(output), "4\n7\n1\n4\n", "{address}");
            });
        }
    });
}

#[test]
fn a_line_longer_than_a_datagram_is_several() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = format!("udp://{}", server.local_addr().unwrap());
    well(fed(&mut connect(&["-w", "0", &address]), &[b'x'; 65_507 + 3]));
    let mut bytes = vec![0; 70_000];
    let lengths = [server.recv(&mut bytes).unwrap(), server.recv(&mut bytes).unwrap()];
    assert_eq!(lengths, [65_507, 3]);
}

#[test]
fn a_port_without_anybody_is_told_of_datagrams_too() {
    // Bound, so that it is nobody else's, and then closed: the kernel answers with an ICMP message.
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = fed(&mut connect(&["-w", "5", &format!("udp://{address}")]), b"x\n");
    let message =
        format!("tine: connect udp://{address}: receive: Connection refused; nobody listens there\n");
    assert_eq!(said(&output), (Some(1), message));
}
