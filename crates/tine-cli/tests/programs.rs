//! Real programs behind `tine serve`, with real clients: what comes through is what would come without it.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use support::{Folder, command, count, fed, need, perl, run, told, value};
use tine_testkit::server::{tine_command, until};
use tine_testkit::{Baseline, Pattern, Server, Stream, ask, churn, echo_line, transfer};

/// 64 MiB.
const LARGE: u64 = 64 << 20;

/// git without the settings of whoever runs the test.
fn git(folder: &Path, args: &[&str]) -> Command {
    let mut git = command("git");
    git.arg("-C").arg(folder).args(args).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", "/nonexistent");
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "A. Tester").env(format!("GIT_{who}_EMAIL"), "a@example.org");
        git.env(format!("GIT_{who}_DATE"), "2024-01-01T00:00:00Z");
    }
    git
}

/// A repository with branches, a merge, tags, empty, large and binary files.
fn repository(path: &Path) {
    fs::create_dir(path).unwrap();
    run(&mut git(path, &["init", "--quiet", "--initial-branch=main"]));
    let mut pattern = Pattern::new(1);
    let mut commit = |name: &str, size: usize| {
        let mut bytes = vec![0; size];
        pattern.fill(&mut bytes);
        fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
        fs::write(path.join(name), bytes).unwrap();
        run(&mut git(path, &["add", "--all"]));
        run(&mut git(path, &["commit", "--quiet", "--message", name]));
    };
    commit("empty", 0);
    commit("a folder/with blanks", 10);
    run(&mut git(path, &["branch", "side"]));
    for number in 0..10 {
        commit(&format!("many/{number}/file"), 1000 * number);
    }
    run(&mut git(path, &["tag", "light"]));
    run(&mut git(path, &["checkout", "--quiet", "side"]));
    commit("large", 3_000_000);
    run(&mut git(path, &["tag", "--annotate", "--message", "a tag", "heavy"]));
    run(&mut git(path, &["checkout", "--quiet", "main"]));
    run(&mut git(path, &["merge", "--quiet", "--no-edit", "side"]));
}

/// All that a repository holds: its references, every object, and no damage.
fn content(path: &Path) -> (String, BTreeSet<String>) {
    run(&mut git(path, &["fsck", "--full", "--strict"]));
    let references = told(&mut git(path, &["for-each-ref"]));
    let objects = told(&mut git(path, &["rev-list", "--all", "--objects"]));
    (references, objects.lines().map(str::to_owned).collect())
}

#[test]
fn a_clone_from_git_daemon_is_what_a_local_clone_is() {
    need("git", "git");
    let folder = Folder::new();
    repository(&folder.file("origin"));
    let base = format!("--base-path={}", folder.text(""));
    let args =
        ["127.0.0.1:0", "-v", "--", "git", "daemon", "--inetd", "--export-all", &base, &folder.text("")];
    let server = Server::tine(&args);
    let url = format!("git://{}/origin/.git", server.addr(0));
    run(&mut git(folder.path(), &["clone", "--quiet", &url, "far"]));
    run(&mut git(folder.path(), &["clone", "--quiet", "--no-hardlinks", &folder.text("origin"), "near"]));
    let (far, near) = (content(&folder.file("far")), content(&folder.file("near")));
    assert_eq!(far.0, near.0, "references");
    assert_eq!(far.1, near.1, "objects");
    assert!(far.1.len() > 30, "{far:?}");
    let (far, near) = (folder.text("far"), folder.text("near"));
    run(command("diff").args(["--recursive", "--exclude=.git", &far, &near]));
    assert!(Path::new(&far).join("many/9/file").exists());
    server.wait_log(|line| line.starts_with("end") && line.contains(" exit=0 "));
    // By the older protocols too; there is nothing new to fetch.
    for version in ["protocol.version=0", "protocol.version=1"] {
        run(&mut git(Path::new(&far), &["-c", version, "fetch", "--quiet", "--tags", "origin"]));
    }
    assert_eq!(content(Path::new(&far)).1, content(Path::new(&near)).1);
    assert!(server.stop().success());
}

#[test]
fn two_thousand_files_pulled_from_an_rsync_daemon_are_the_same() {
    need("rsync", "rsync");
    let folder = Folder::new();
    let source = folder.file("source");
    let mut pattern = Pattern::new(2);
    for number in 0..2000 {
        let parent = source.join(format!("{}/{}", number % 13, number % 7));
        fs::create_dir_all(&parent).unwrap();
        let mut bytes = vec![0; (pattern.next_u64() % 4000) as usize];
        pattern.fill(&mut bytes);
        fs::write(parent.join(format!("file {number}")), bytes).unwrap();
    }
    std::os::unix::fs::symlink("file 0", source.join("0/0/link")).unwrap();
    let settings = format!("use chroot = no\n[data]\npath = {}\nread only = yes\n", source.display());
    fs::write(folder.file("rsyncd.conf"), settings).unwrap();
    let config = format!("--config={}", folder.text("rsyncd.conf"));
    // Where it finds itself root it becomes another user, which no confined program can.
    let user: &[&str] = if support::is_root() { &["--user", "nobody"] } else { &[] };
    let program = ["--", "rsync", "--daemon", &config];
    let server = Server::tine(&[&["127.0.0.1:0", "-v"], user, &program].concat());
    let from = format!("rsync://127.0.0.1:{}/data/", server.port(0));
    run(command("rsync").args(["--archive", &from, &folder.text("copy")]));
    run(command("diff").args(["--recursive", "--no-dereference"]).arg(&source).arg(folder.file("copy")));
    let copied = told(command("find").arg(folder.file("copy")).args(["-type", "f", "-o", "-type", "l"]));
    assert_eq!(copied.lines().count(), 2001);
    // Nothing is left to do for a second one.
    let again = told(command("rsync").args(["--archive", "--itemize-changes", &from, &folder.text("copy")]));
    assert_eq!(again, "");
    assert!(server.stop().success());
}

/// Files of many sizes behind busybox's httpd.
fn httpd(folder: &Folder, files: u64) -> Server {
    need("busybox", "busybox");
    need("curl", "curl");
    let site = folder.file("site");
    fs::create_dir(&site).unwrap();
    for number in 1..=files {
        let mut bytes = vec![0; (number * number * 17 % 300_000) as usize];
        Pattern::new(number).fill(&mut bytes);
        fs::write(site.join(format!("{number}.bin")), bytes).unwrap();
    }
    let site = folder.text("site");
    // All come from one address, and may all be here at once.
    Server::tine(&["127.0.0.1:0", "-v", "-C", "128", "--", "busybox", "httpd", "-i", "-h", &site])
}

#[test]
fn curl_gets_files_from_busybox_one_by_one_and_a_hundred_in_parallel() {
    let folder = Folder::new();
    let server = httpd(&folder, 100);
    let address = server.addr(0).to_owned();
    let baseline = Baseline::with(&server, move || ask(&address, b"GET /1.bin HTTP/1.0\r\n\r\n").map(drop));
    let single = |number: u64| format!("http://{}/{number}.bin", server.addr(0));
    let got = run(command("curl").args(["--silent", "--show-error", "--fail", &single(77)])).stdout;
    assert_eq!(got, fs::read(folder.file("site/77.bin")).unwrap());
    let missing = command("curl").args(["--silent", "--fail", &single(101)]).output().unwrap();
    assert_eq!(missing.status.code(), Some(22), "curl's exit code for an answer like 404");

    let (all, into) = (format!("http://{}/[1-100].bin", server.addr(0)), folder.text("got_#1.bin"));
    let how =
        ["--silent", "--show-error", "--fail", "--parallel", "--parallel-immediate", "--parallel-max", "100"];
    run(command("curl").args(how).args([&all, "--output", &into]));
    for number in 1..=100 {
        let (sent, got) = (format!("site/{number}.bin"), format!("got_{number}.bin"));
        assert_eq!(fs::read(folder.file(&sent)).unwrap(), fs::read(folder.file(&got)).unwrap(), "{got}");
    }
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn a_server_that_closes_after_each_answer_gets_a_connection_for_each_url() {
    let folder = Folder::new();
    let server = httpd(&folder, 2);
    let url = |number: u64| format!("http://{}/{number}.bin", server.addr(0));
    let tell = ["--silent", "--fail", "--write-out", "%{num_connects} %{http_code}\n"];
    let files = ["--output", &folder.text("1"), "--output", &folder.text("2")];
    let connects = told(command("curl").args(tell).args(files).args([url(1), url(2)]));
    assert_eq!(connects, "1 200\n1 200\n", "Debian's busybox says Connection: close");
    server.wait_log_from(0, |line| line.starts_with("end"));
    assert_eq!(count(&server, |line| line.starts_with("accept")), 2);
    assert!(server.stop().success());
}

/// An HTTP/1.1 server that keeps the connection: it answers each request with its process id and the path.
const KEEPING: &str = r#"
    $| = 1;
    while (my $request = <STDIN>) {
        my ($path) = $request =~ m{^GET (\S+) HTTP/1.1\r\n} or exit 1;
        while (<STDIN>) { last if $_ eq "\r\n" }
        my $body = "$$ $path\n";
        print "HTTP/1.1 200 OK\r\nContent-Length: ", length $body, "\r\n\r\n", $body;
    }
"#;

#[test]
fn a_connection_that_is_kept_alive_is_one_child() {
    need("curl", "curl");
    need("perl", "perl");
    let server = Server::tine(&["127.0.0.1:0", "-v", "--", "perl", "-e", KEEPING]);
    let url = |name: &str| format!("http://{}/{name}", server.addr(0));
    let tell = ["--silent", "--fail", "--write-out", "%{num_connects}\n"];
    let said = told(command("curl").args(tell).args([url("one"), url("two"), url("three")]));
    let accepted = server.wait_log(|line| line.starts_with("accept"));
    let child = value(&accepted, "child").unwrap();
    assert_eq!(said, format!("{child} /one\n1\n{child} /two\n0\n{child} /three\n0\n"));
    server.wait_log(|line| line.starts_with("end") && line.contains(" exit=0 "));
    assert_eq!(count(&server, |line| line.starts_with("accept")), 1);
    assert!(server.stop().success());
}

#[test]
fn recordio_chain_loads_cat_and_its_record_is_in_the_log() {
    need("recordio", "ucspi-tcp");
    let server = Server::tine(&["127.0.0.1:0", "--", "recordio", "cat"]);
    // The program ends before the recorder has passed its last answer on: each client gets it all the same.
    for _ in 0..20 {
        echo_line(server.addr(0), "for the record").unwrap();
    }
    // "PID < DATA " is what went in, "PID > DATA " what came out.
    for direction in ["<", ">"] {
        server.wait_log(|line| {
            let mut words = line.splitn(3, ' ');
            let pid = words.next().is_some_and(|word| word.parse::<u32>().is_ok());
            pid && words.next() == Some(direction) && words.next() == Some("for the record ")
        });
    }
    assert!(server.stop().success());
}

/// Speaks a line at a time, half-closes, and prints all that came.
const PERL_CLIENT: &str = r#"
    use strict; use warnings; use IO::Socket::INET; use IO::Socket::UNIX;
    my ($family, $where) = @ARGV;
    my $socket = $family eq "tcp" ? IO::Socket::INET->new(PeerAddr => $where, Timeout => 30)
                                  : IO::Socket::UNIX->new(Peer => $where);
    die "connect $where: $@" unless $socket;
    for my $line ("first", "second") {
        print $socket "$line\n" or die "print: $!";
        $socket->flush;
        my $back = <$socket> // die "the end instead of $line";
        print "back: $back";
    }
    shutdown $socket, 1 or die "shutdown: $!";
    print "then: $_" while <$socket>;
    print "the end\n";
"#;

#[test]
fn perls_io_socket_speaks_with_a_perl_program_over_tcp_and_unix() {
    need("perl", "perl");
    let folder = Folder::new();
    let path = folder.text("socket");
    let unix = format!("unix:{path}");
    let program = r#"$| = 1; while (<STDIN>) { print uc } print "bye $ENV{PROTO}\n""#;
    let server = Server::tine(&["127.0.0.1:0", &unix, "--", "perl", "-e", program]);
    let expected = |proto| format!("back: FIRST\nback: SECOND\nthen: bye {proto}\nthe end\n");
    assert_eq!(perl(PERL_CLIENT, &["tcp", server.addr(0)]), expected("TCP"));
    assert_eq!(perl(PERL_CLIENT, &["unix", &path]), expected("IPC"));
    assert!(server.stop().success());
    assert!(!Path::new(&path).exists(), "the path goes with the server");
}

#[test]
fn sixty_four_mebibytes_both_ways_at_once_are_the_same_over_tcp_and_unix() {
    let folder = Folder::new();
    let unix = format!("unix:{}", folder.text("socket"));
    let server = Server::tine(&["127.0.0.1:0", &unix, "--", "cat"]);
    let baseline = Baseline::of(&server);
    for listener in 0..2 {
        let moved = transfer(&Stream::connect(server.addr(listener)).unwrap(), LARGE).unwrap();
        assert_eq!((moved.bytes, moved.sent_digest), (LARGE, moved.received_digest));
    }
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn netcat_half_closes_after_64_mebibytes_and_the_sums_are_the_same_on_both_sides() {
    need("nc", "netcat-openbsd");
    let folder = Folder::new();
    let mut bytes = vec![0; LARGE as usize];
    Pattern::new(64).fill(&mut bytes);
    fs::write(folder.file("large"), &bytes).unwrap();
    let sum = |file: &str| told(command("sha256sum").arg(folder.file(file)))[..64].to_owned();
    let here = sum("large");
    let pipe = r#"nc -N 127.0.0.1 "$1" < "$2" > "$3""#;
    let netcat = |server: &Server, to: &str| {
        let port = server.port(0).to_string();
        let args = ["-c", pipe, "sh", &port, &folder.text("large"), &folder.text(to)];
        run(command("sh").args(args));
    };

    let echo = Server::tine(&["127.0.0.1:0", "--", "cat"]);
    netcat(&echo, "back");
    assert_eq!(sum("back"), here, "there and back");
    assert!(echo.stop().success());

    let digest = Server::tine(&["127.0.0.1:0", "--", "sha256sum"]);
    netcat(&digest, "there");
    assert_eq!(fs::read_to_string(folder.file("there")).unwrap(), format!("{here}  -\n"), "there");
    assert!(digest.stop().success());
}

#[test]
fn one_server_listens_on_tcp_4_tcp_6_a_path_and_an_abstract_name_at_once() {
    let folder = Folder::new();
    let path = format!("unix:{}?mode=0666", folder.text("socket"));
    let name = format!("unix:@tine-test-{}", std::process::id());
    let server = Server::tine(&["127.0.0.1:0", "[::1]:0", &path, &name, "-v", "--", "cat"]);
    assert_eq!(count(&server, |line| line.starts_with("listen ")), 4);
    assert_eq!(server.addr(3), name);
    let baseline = Baseline::of(&server);
    let addresses: Vec<&str> = (0..4).map(|listener| server.addr(listener)).collect();
    let churned = churn(&addresses, 800, 8);
    assert_eq!((churned.replies_ok, churned.errors.len()), (800, 0), "{churned:?}");
    // All at the same time, too: each speaks, waits for its echo, and stays.
    let clients: Vec<Stream> = addresses.iter().map(|address| Stream::connect(address).unwrap()).collect();
    for (number, mut client) in clients.iter().enumerate() {
        client.write_all(&[number as u8; 3]).unwrap();
    }
    for (number, mut client) in clients.iter().enumerate() {
        let mut back = [0; 3];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, [number as u8; 3]);
    }
    until("nobody else is left", || (server.status().open == 4).then_some(()));
    drop(clients);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

/// Sends records, and prints the records that come back, each on a line.
const RECORDS: &str = r#"
    use strict; use warnings; use Socket;
    socket(my $socket, AF_UNIX, SOCK_SEQPACKET, 0) or die "socket: $!";
    connect($socket, pack_sockaddr_un($ARGV[0])) or die "connect: $!";
    my @records = ("one", "twotwo", "x" x 5000);
    send($socket, $_, 0) // die "send: $!" for @records;
    shutdown($socket, 1) or die "shutdown: $!";
    while (1) {
        recv($socket, my $record, 65536, 0) // die "recv: $!";
        last if $record eq "";
        print length($record), " ", substr($record, 0, 3), "\n";
    }
"#;

#[test]
fn records_of_a_seqpacket_listener_stay_records() {
    let folder = Folder::new();
    let address = format!("seqpacket:{}", folder.text("socket"));
    // The test kit knows no such address, so that the listener is named here.
    let server = Server::start(
        tine_command(&[&address, "-v", "--", "cat"]),
        tine_testkit::Ready::Ports(vec![address.clone()]),
    );
    server.wait_log(|line| line.starts_with(&format!("listen {address} ")));
    assert_eq!(perl(RECORDS, &[&folder.text("socket")]), "3 one\n6 two\n5000 xxx\n");
    server.wait_log(|line| line.starts_with("end") && line.contains(" exit=0 "));
    assert!(server.stop().success());
}

/// Connects to a port of this machine over vsock and sends a line; tells what came back, or that there is no way.
const VSOCK: &str = r#"
    use strict; use warnings; use Socket;
    use constant { AF_VSOCK => 40, LOCAL => 1 };
    my $port = shift;
    socket(my $socket, AF_VSOCK, SOCK_STREAM, 0) or die "socket: $!";
    # struct sockaddr_vm: family, reserved, port, cid, four bytes of flags and zeros.
    if (!connect($socket, pack("S S L L x4", AF_VSOCK, 0, $port, LOCAL))) { print "no way: $!\n"; exit }
    syswrite $socket, "over vsock\n" or die "write: $!";
    shutdown $socket, 1 or die "shutdown: $!";
    print while <$socket>;
"#;

#[test]
fn vsock_is_served_or_its_absence_is_said_clearly() {
    let port = 1 << 30 | std::process::id(); // nobody else's
    let address = format!("vsock:*:{port}");
    let command = tine_command(&[&address, "--drain", "1", "--", "cat"]);
    // Linux counts it with the families of the kernel's modules: proc_net_protocols has one line for each.
    let protocols = fs::read_to_string("/proc/net/protocols").unwrap();
    if protocols.lines().any(|line| line.starts_with("AF_VSOCK ") || line.starts_with("VSOCK ")) {
        let server = Server::start(command, tine_testkit::Ready::Ports(vec![address.clone()]));
        server.wait_log(|line| line.starts_with(&format!("listen {address} ")));
        // Whether a machine can reach itself depends on the module vsock_loopback.
        let said = perl(VSOCK, &[&port.to_string()]);
        assert!(said == "over vsock\n" || said.starts_with("no way: "), "{said}");
        assert!(server.stop().success());
    } else {
        let output = fed(&mut { command }, b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(111), "{said}");
        assert!(said.starts_with(&format!("tine: open a socket for {address}: ")), "{said}");
        assert!(said.contains("not supported"), "{said}");
    }
}
