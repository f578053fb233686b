//! What an operator reads after a mistake: each message whole, with the code that tine ends with.
//!
//! The forms are `tine: what was tried: on what: what the kernel said; what to do` and, for flags, clap's. Code 100 is the
//! operator's mistake, 111 the system's refusal.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use rustix::net::{AddressFamily, SocketType, bind, socket};

use support::{Folder, command, is_root};

/// A user without any privilege.
const NOBODY: u32 = 65_534;

/// Runs tine with these arguments in a folder; gives all that it says, and its code.
fn said_in(folder: &Folder, command: &mut Command) -> String {
    let output = command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("tine can be run");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "a mistake is told on standard error");
    let said = String::from_utf8(output.stderr).expect("messages are text");
    format!("{said}-> {:?}", output.status.code().expect("tine is not killed by a mistake"))
}

fn said(args: &[&str]) -> String {
    said_in(&Folder::new(), command(env!("CARGO_BIN_EXE_tine")).args(args))
}

/// As [`said`], by somebody without privilege, whoever runs the tests.
fn said_to_nobody(args: &[&str]) -> String {
    let folder = Folder::new();
    let mut tine = command(folder.copy(env!("CARGO_BIN_EXE_tine"), "tine"));
    if is_root() {
        tine.uid(NOBODY).gid(NOBODY);
    }
    said_in(&folder, tine.args(args))
}

/// As [`said`], with a port in it that differs from run to run.
fn said_of_port(port: u16, args: &[&str]) -> String {
    said(args).replace(&port.to_string(), "PORT")
}

#[test]
fn no_verb_is_answered_with_help() {
    assert_snapshot!(said(&[]), @r"
    Puts any program on the network, with a process for every client

    Usage: tine <COMMAND>

    Commands:
      serve        Serve a program: each client that connects gets an instance of its own
      explain      Show what the program would give up, step by step, with the reasons: takes what serve
                   takes, and changes nothing
      doctor       Show what this system can do, layer by layer, and which profiles work on it
      connect      Be a client: standard input goes there, what comes back goes to standard output
      completions  Print a script that completes tine's words in a shell
      man          Print the manual page, tine(8); read it with: tine man | man -l -

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Try it:  tine serve 127.0.0.1:7000 -v -- cat    and    tine connect 127.0.0.1:7000
    -> 100
    ");
}

#[test]
fn an_unknown_verb() {
    assert_snapshot!(said(&["server", ":7000"]), @r"
    error: unrecognized subcommand 'server'

      tip: a similar subcommand exists: 'serve'

    Usage: tine <COMMAND>

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn an_unknown_flag_is_told_with_the_one_that_was_meant() {
    assert_snapshot!(said(&["serve", ":7000", "--childern", "3", "--", "cat"]), @r"
    error: unexpected argument '--childern' found

      tip: a similar argument exists: '--children'
      tip: to pass '--childern' as a value, use '-- --childern'

    Usage: tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn two_flags_that_contradict_each_other() {
    assert_snapshot!(said(&["serve", ":7000", "-v", "-q", "--", "cat"]), @r"
    error: the argument '--verbose' cannot be used with '--quiet'

    Usage: tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn no_address() {
    assert_snapshot!(said(&["serve", "--", "cat"]), @r"
    tine: serve: no address to listen at; the form is: tine serve ADDR... -- PROGRAM, as in: tine serve 127.0.0.1:7000 -- cat
    -> 100
    ");
}

#[test]
fn no_program() {
    assert_snapshot!(said(&["serve", ":7000"]), @r"
    tine: serve: no program to run for the clients; it follows '--': tine serve :7000 -- PROGRAM
    -> 100
    ");
}

#[test]
fn the_two_hyphens_forgotten() {
    assert_snapshot!(said(&["serve", ":7000", "cat"]), @r"
    tine: serve: 'cat' is no address; the program and its arguments follow '--': tine serve :7000 -- cat
    -> 100
    ");
}

#[test]
fn the_two_hyphens_forgotten_before_a_program_with_arguments() {
    assert_snapshot!(said(&["serve", ":7000", "unix:x", "sh", "script"]), @r"
    tine: serve: 'sh' is no address; the program and its arguments follow '--': tine serve :7000 unix:x -- sh script
    -> 100
    ");
}

#[test]
fn the_two_hyphens_forgotten_before_a_program_with_flags() {
    assert_snapshot!(said(&["serve", ":7000", "cat", "-n"]), @r"
    error: unexpected argument '-n' found

      tip: to pass '-n' as a value, use '-- -n'

    Usage: tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]

    For more information, try '--help'.
    The program that is to be served, and its own options, follow '--'.
    -> 100
    ");
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    assert_snapshot!(said_of_port(port, &["serve", &format!("127.0.0.1:{port}"), "--", "cat"]), @r"
    tine: bind 127.0.0.1:PORT: Address already in use; another process serves there (ss -ltnup shows which)
    -> 111
    ");
}

#[test]
fn a_port_that_takes_privilege() {
    let from = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if from.trim() == "0" {
        eprintln!("left out, for here every port is anybody's: net.ipv4.ip_unprivileged_port_start");
        return;
    }
    assert_snapshot!(said_to_nobody(&["serve", "127.0.0.1:1", "--", "cat"]), @r"
    tine: bind 127.0.0.1:1: Permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE
    -> 111
    ");
}

#[test]
fn an_address_of_another_machine() {
    assert_snapshot!(said(&["serve", "203.0.113.1:7000", "--", "cat"]), @r"
    tine: bind 203.0.113.1:7000: Cannot assign requested address; this machine does not have that address (?freebind=1 binds anyway)
    -> 111
    ");
}

#[test]
fn a_host_that_is_none() {
    // What the resolver says depends on the network.
    let resolver = (r"(no address for host '[^']*'): .*", "$1: <the resolver>");
    insta::with_settings!({ filters => [resolver] }, {
        assert_snapshot!(said(&["serve", "no-such.invalid:7000", "--", "cat"]), @r"
        tine: serve: address 'no-such.invalid:7000': no address for host 'no-such.invalid': <the resolver>
        -> 100
        ");
    });
}

#[test]
fn an_address_without_a_port() {
    assert_snapshot!(said(&["serve", "127.0.0.1", "--", "cat"]), @r"
    tine: serve: address '127.0.0.1': there is no port; the forms are tcp://HOST:PORT, HOST:PORT, :PORT, unix:/PATH, unix:@NAME, seqpacket:/PATH, udp://HOST:PORT, unixgram:/PATH, vsock:CID:PORT, fd:N or systemd:NAME
    -> 100
    ");
}

#[test]
fn a_port_that_is_no_number() {
    assert_snapshot!(said(&["serve", "127.0.0.1:http", "--", "cat"]), @r"
    tine: serve: address '127.0.0.1:http': 'http' is no port: a port is a number from 0 to 65535
    -> 100
    ");
}

#[test]
fn a_port_alone() {
    assert_snapshot!(said(&["serve", "7000", "--", "cat"]), @r"
    tine: serve: address '7000': a port alone is written :7000 (all addresses) or 127.0.0.1:7000 (this machine only)
    -> 100
    ");
}

#[test]
fn an_ipv6_address_without_brackets() {
    assert_snapshot!(said(&["serve", "::1:7000", "--", "cat"]), @r"
    tine: serve: address '::1:7000': an IPv6 address is written in brackets: [::1]:7000
    -> 100
    ");
}

#[test]
fn a_scheme_that_tine_does_not_know() {
    assert_snapshot!(said(&["serve", "http://127.0.0.1:80", "--", "cat"]), @r"
    tine: serve: address 'http://127.0.0.1:80': 'http' is no scheme that tine knows; the forms are tcp://HOST:PORT, HOST:PORT, :PORT, unix:/PATH, unix:@NAME, seqpacket:/PATH, udp://HOST:PORT, unixgram:/PATH, vsock:CID:PORT, fd:N or systemd:NAME
    -> 100
    ");
}

#[test]
fn an_option_of_an_address_that_does_not_exist() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0?colour=red", "--", "cat"]), @r"
    tine: serve: address '127.0.0.1:0?colour=red': there is no option 'colour'; there are backlog, mode, user, group, v6only, device, congestion, keepalive, nodelay, defer-accept, user-timeout, fastopen, reuseport, freebind, transparent, mark, priority, tos, tclass, rcvbuf, sndbuf, gro
    -> 100
    ");
}

#[test]
fn an_option_that_means_nothing_for_such_an_address() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0?mode=0660", "--", "cat"]), @r"
    tine: serve: address '127.0.0.1:0?mode=0660': option 'mode' means nothing for such a socket
    -> 100
    ");
}

#[test]
fn a_mode_that_is_not_octal() {
    assert_snapshot!(said(&["serve", "unix:x?mode=rw", "--", "cat"]), @r"
    tine: serve: address 'unix:x?mode=rw': mode=rw: permissions are octal, 0 to 777
    -> 100
    ");
}

#[test]
fn a_path_alone() {
    assert_snapshot!(said(&["serve", "/run/x", "--", "cat"]), @r"
    tine: serve: address '/run/x': a Unix socket is written unix:/run/x
    -> 100
    ");
}

#[test]
fn a_path_that_a_live_server_has() {
    let folder = Folder::new();
    let _live = UnixListener::bind(folder.file("x")).unwrap();
    let mut tine = command(env!("CARGO_BIN_EXE_tine"));
    assert_snapshot!(said_in(&folder, tine.args(["serve", "unix:x", "--", "cat"])), @r"
    tine: bind unix:x: Address already in use; a live process serves there
    -> 111
    ");
}

#[test]
fn a_path_that_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    let file = folder.program("x", "precious");
    let mut tine = command(env!("CARGO_BIN_EXE_tine"));
    assert_snapshot!(said_in(&folder, tine.args(["serve", "unix:x", "--", "cat"])), @r"
    tine: bind unix:x: File exists; what is there is no socket; tine leaves it alone
    -> 111
    ");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn a_path_whose_directory_is_missing() {
    assert_snapshot!(said(&["serve", "unix:no/such/x", "--", "cat"]), @r"
    tine: bind unix:no/such/x: No such file or directory; the directory is missing
    -> 111
    ");
}

#[test]
fn a_path_in_a_directory_of_somebody_else() {
    assert_snapshot!(said_to_nobody(&["serve", "unix:/usr/x", "--", "cat"]), @r"
    tine: bind unix:/usr/x: Permission denied; tine may not make files in that directory
    -> 111
    ");
}

#[test]
fn a_path_that_is_too_long() {
    let path = format!("unix:/{}", "x".repeat(107));
    assert_snapshot!(said(&["serve", &path, "--", "cat"]).replace(&"x".repeat(107), "XXX"), @r"
    tine: serve: address 'unix:/XXX': a Unix socket's name has at most 107 bytes, this one 108
    -> 100
    ");
}

#[test]
fn an_owner_of_a_path_that_does_not_exist() {
    assert_snapshot!(said(&["serve", "unix:x?user=no-such-user", "--", "cat"]), @r"
    tine: set the owner of unix:x: there is no user 'no-such-user'
    -> 111
    ");
}

#[test]
fn a_descriptor_that_is_not_open() {
    assert_snapshot!(said(&["serve", "fd:99", "--", "cat"]), @r"
    tine: take fd:99: Bad file descriptor; no such descriptor was passed to tine, or it is used twice
    -> 111
    ");
}

#[test]
fn a_descriptor_that_is_no_socket() {
    assert_snapshot!(said(&["serve", "fd:0", "--", "cat"]), @r"
    tine: take fd:0: Socket operation on non-socket; it must be a listening or a datagram socket
    -> 111
    ");
}

#[test]
fn systemd_has_passed_nothing() {
    assert_snapshot!(said(&["serve", "systemd:web", "--", "cat"]), @r"
    tine: take systemd:web: systemd has passed no descriptors to this process (LISTEN_PID)
    -> 111
    ");
}

#[test]
fn a_program_that_is_missing() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--", "no-such-program"]), @r"
    tine: program no-such-program: not found in PATH (/usr/bin:/bin)
    -> 100
    ");
}

#[test]
fn a_program_that_is_missing_by_its_path() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--", "./no-such-program"]), @r"
    tine: program ./no-such-program: No such file or directory
    -> 100
    ");
}

#[test]
fn a_program_that_is_not_executable() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--", "/etc/passwd"]), @r"
    tine: program /etc/passwd: no execute permission (chmod +x it, or name its interpreter)
    -> 100
    ");
}

#[test]
fn a_program_that_is_a_directory() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--", "/tmp"]), @r"
    tine: program /tmp: it is a directory
    -> 100
    ");
}

#[test]
fn no_children() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "-c", "0", "--", "cat"]), @r"
    error: invalid value '0' for '--children <N>': without a child nobody can be served; the least is 1

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn children_that_are_no_number() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "-c", "many", "--", "cat"]), @r"
    error: invalid value 'many' for '--children <N>': it is a number from 1 to 4194304

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn more_children_than_there_may_be_descriptors() {
    let folder = Folder::new();
    let mut shell = command("sh");
    let limited = r#"ulimit -n 200 && exec "$0" serve 127.0.0.1:0 -c 500 -- cat"#;
    assert_snapshot!(said_in(&folder, shell.args(["-c", limited, env!("CARGO_BIN_EXE_tine")])), @r"
    tine: 500 children may need 565 open descriptors and the hard limit is 200: raise it (ulimit -Hn, LimitNOFILE=) or allow fewer children
    -> 100
    ");
}

#[test]
fn an_environment_style_that_does_not_exist() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--env", "cgi", "--", "cat"]), @r"
    error: invalid value 'cgi' for '--env <STYLE>'
      [possible values: ucspi, inetd, systemd, none]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_variable_to_be_taken_over_that_is_not_set() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "-E", "LANG", "--", "cat"]), @r"
    tine: -E LANG: LANG is not set in the environment of tine; set it there, or write -E LANG=VALUE
    -> 100
    ");
}

#[test]
fn a_variable_without_a_name() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "-E", "=x", "--", "cat"]), @r"
    tine: -E =x: a variable has a name; the form is NAME=VALUE or NAME
    -> 100
    ");
}

#[test]
fn a_variable_that_tine_sets_itself() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "-E", "TCPREMOTEIP=127.0.0.1", "--", "cat"]), @r"
    tine: -E TCPREMOTEIP=127.0.0.1: tine sets TCPREMOTEIP itself, from what it knows of the client; --env none leaves it to you
    -> 100
    ");
}

#[test]
fn a_user_that_does_not_exist() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--user", "no-such-user", "--", "cat"]), @r"
    tine: --user no-such-user: there is no user 'no-such-user' in the user database (getent passwd)
    -> 100
    ");
}

#[test]
fn a_group_that_does_not_exist() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--user", "root:no-such-group", "--", "cat"]), @r"
    tine: --user root:no-such-group: there is no group 'no-such-group' in the group database (getent group)
    -> 100
    ");
}

#[test]
fn a_user_by_number_who_is_in_no_database_and_so_has_no_group() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--user", "4000000", "--", "cat"]), @r"
    tine: --user 4000000: user 4000000 is not in the user database, so the group must be named too: 4000000:GROUP
    -> 100
    ");
}

#[test]
fn a_user_that_only_root_can_become() {
    assert_snapshot!(said_to_nobody(&["serve", "127.0.0.1:0", "--user", "root", "--", "cat"]), @r"
    tine: --user root: becoming user 0 needs root: start tine as root, or as that user
    -> 100
    ");
}

#[test]
fn a_group_that_only_root_can_leave() {
    if !is_root() {
        eprintln!("left out, for it takes root to be somebody in a known group");
        return;
    }
    let args = ["serve", "127.0.0.1:0", "--user", "65534:4000000", "--", "cat"];
    assert_snapshot!(said_to_nobody(&args), @r"
    tine: --user 65534:4000000: leaving group 65534 needs root: start tine as root, or with the groups asked for
    -> 100
    ");
}

#[test]
fn a_directory_that_is_missing() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--chdir", "/nonexistent", "--", "cat"]), @r"
    tine: --chdir /nonexistent: No such file or directory
    -> 100
    ");
}

#[test]
fn a_directory_that_is_a_file() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--chdir", "/etc/passwd", "--", "cat"]), @r"
    tine: --chdir /etc/passwd: Not a directory
    -> 100
    ");
}

#[test]
fn a_umask_that_is_not_octal() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--umask", "089", "--", "cat"]), @r"
    error: invalid value '089' for '--umask <OCTAL>': a mask is octal, 0 to 777

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_resource_that_does_not_exist() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--rlimit", "files=10", "--", "cat"]), @r"
    tine: --rlimit files=10: no resource limit is called 'files'; there are as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, sigpending, stack
    -> 100
    ");
}

#[test]
fn a_resource_limit_without_a_number() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--rlimit", "nofile", "--", "cat"]), @r"
    tine: --rlimit nofile: the form is NAME=SOFT[:HARD], as in nofile=1024:4096, as=512M or core=unlimited
    -> 100
    ");
}

#[test]
fn a_resource_limit_that_is_no_number() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--rlimit", "as=1T", "--", "cat"]), @r"
    tine: --rlimit as=1T: '1T' is no limit: a number, with K, M or G if it is large, or unlimited
    -> 100
    ");
}

#[test]
fn a_soft_limit_above_its_hard_one() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--rlimit", "nofile=20:10", "--", "cat"]), @r"
    tine: --rlimit nofile=20:10: limit nofile: the soft limit is above the hard one
    -> 100
    ");
}

#[test]
fn a_limit_above_the_one_that_was_inherited() {
    let folder = Folder::new();
    let tine = folder.copy(env!("CARGO_BIN_EXE_tine"), "tine");
    let mut shell = command("sh");
    if is_root() {
        shell.uid(NOBODY).gid(NOBODY);
    }
    let limited = r#"ulimit -n 400 && exec "$0" serve 127.0.0.1:0 --rlimit nofile=500 -- cat"#;
    assert_snapshot!(said_in(&folder, shell.args(["-c", limited, &tine])), @r"
    tine: --rlimit: limit nofile: above the hard limit of 400 that tine was started with, and tine may not raise it (CAP_SYS_RESOURCE, fs.nr_open)
    -> 100
    ");
}

#[test]
fn a_backlog_of_nobody() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--backlog", "0", "--", "cat"]), @r"
    error: invalid value '0' for '--backlog <N>': it is a number from 1 on

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_drain_that_is_no_number() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--drain", "long", "--", "cat"]), @r"
    error: invalid value 'long' for '--drain <SECONDS>': it is a number of seconds from 0 to 1000000

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn datagrams_without_a_way_to_serve_them() {
    assert_snapshot!(said(&["serve", "udp://127.0.0.1:0", "--", "cat"]), @r"
    tine: serve: udp://127.0.0.1:0 carries datagrams; say how the program serves them:
      --datagram wait (it reads the socket itself), peer (a child for each peer) or each (a child for each datagram)
    -> 100
    ");
}

#[test]
fn a_way_to_serve_datagrams_without_any() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--datagram", "wait", "--", "cat"]), @r"
    tine: --datagram: none of the addresses carries datagrams; those are written udp://HOST:PORT or unixgram:/PATH
    -> 100
    ");
}

#[test]
fn a_way_to_serve_datagrams_that_does_not_exist() {
    assert_snapshot!(said(&["serve", "udp://127.0.0.1:0", "--datagram", "all", "--", "cat"]), @r"
    error: invalid value 'all' for '--datagram <HOW>'
      [possible values: wait, peer, each]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn an_idle_time_that_nothing_would_heed() {
    let args = ["serve", "udp://127.0.0.1:0", "--datagram", "each", "--datagram-idle", "3", "--", "cat"];
    assert_snapshot!(said(&args), @r"
    tine: --datagram-idle: it means something with --datagram peer only
    -> 100
    ");
}

#[test]
fn a_guard_that_nothing_would_heed() {
    let args = ["serve", "udp://127.0.0.1:0", "--datagram", "wait", "--reply-to-low-ports", "--", "cat"];
    assert_snapshot!(said(&args), @r"
    tine: --reply-to-low-ports: it means something with --datagram peer or each only
    -> 100
    ");
}

#[test]
fn workers_of_datagrams_that_the_program_reads_itself() {
    let args = ["serve", "udp://127.0.0.1:0", "--datagram", "wait", "--workers", "2", "--", "cat"];
    assert_snapshot!(said(&args), @r"
    tine: --workers: it means something with --datagram peer or each only
    -> 100
    ");
}

#[test]
fn workers_of_a_socket_that_cannot_be_bound_twice() {
    let args = ["serve", "unixgram:/tmp/never-bound", "--datagram", "each", "--workers", "2", "--", "cat"];
    assert_snapshot!(said(&args), @r"
    tine: --workers: each has a socket of its own at one address, and that is possible with udp://HOST:PORT only
    -> 100
    ");
}

#[test]
fn workers_without_datagrams() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--workers", "2", "--", "cat"]), @r"
    error: the following required arguments were not provided:
      --datagram <HOW>

    Usage: tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn no_workers_at_all() {
    let args = ["serve", "udp://127.0.0.1:0", "--datagram", "each", "--workers", "0", "--", "cat"];
    assert_snapshot!(said(&args), @r"
    error: invalid value '0' for '--workers <N>': it is a number from 1 to 256

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn acceptors_that_are_no_number_of_them() {
    let told = |value: &str| said(&["serve", "127.0.0.1:0", "--acceptors", value, "--", "cat"]);
    assert_snapshot!(told("0"), @r"
    error: invalid value '0' for '--acceptors <N|auto>': it is a number from 1 to 63, or auto

    For more information, try '--help'.
    -> 100
    ");
    assert_snapshot!(told("64"), @r"
    error: invalid value '64' for '--acceptors <N|auto>': it is a number from 1 to 63, or auto

    For more information, try '--help'.
    -> 100
    ");
    assert_snapshot!(told("all"), @r"
    error: invalid value 'all' for '--acceptors <N|auto>': it is a number from 1 to 63, or auto

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_guard_without_datagrams() {
    assert_snapshot!(said(&["serve", "127.0.0.1:0", "--amplification", "5", "--", "cat"]), @r"
    error: the following required arguments were not provided:
      --datagram <HOW>

    Usage: tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn connecting_where_nobody_listens() {
    // Bound and not listening: nobody else can take the port meanwhile.
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let held = TcpListener::from(socket);
    let port = held.local_addr().unwrap().port();
    assert_snapshot!(said_of_port(port, &["connect", &format!("127.0.0.1:{port}")]), @r"
    tine: connect 127.0.0.1:PORT: Connection refused; nobody listens there
    -> 111
    ");
}

#[test]
fn connecting_to_a_path_that_is_missing() {
    assert_snapshot!(said(&["connect", "unix:no-such-socket"]), @r"
    tine: connect unix:no-such-socket: No such file or directory; there is no such socket
    -> 111
    ");
}

#[test]
fn connecting_to_a_socket_of_another_kind() {
    let folder = Folder::new();
    let _live = UnixListener::bind(folder.file("x")).unwrap();
    let mut tine = command(env!("CARGO_BIN_EXE_tine"));
    assert_snapshot!(said_in(&folder, tine.args(["connect", "seqpacket:x"])), @r"
    tine: connect seqpacket:x: Protocol wrong type for socket; it is a socket of another kind: unix:, seqpacket: and unixgram: are three
    -> 111
    ");
}

#[test]
fn connecting_to_a_descriptor() {
    assert_snapshot!(said(&["connect", "fd:3"]), @r"
    tine: connect fd:3: nothing can be connected to by that name; connect to the address that the server was given
    -> 100
    ");
}

#[test]
fn connecting_with_the_options_of_a_server() {
    assert_snapshot!(said(&["connect", "unix:x?mode=0660"]), @r"
    tine: connect: address 'unix:x': the options 'mode=0660' are for a server; leave them out
    -> 100
    ");
}

#[test]
fn completions_for_a_shell_that_there_are_none_for() {
    assert_snapshot!(said(&["completions", "csh"]), @r"
    error: invalid value 'csh' for '<SHELL>'
      [possible values: bash, zsh, fish]

      tip: a similar value exists: 'zsh'

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn help_and_version_are_no_mistakes() {
    for flag in ["--help", "--version"] {
        let output = Command::new(env!("CARGO_BIN_EXE_tine")).arg(flag).output().unwrap();
        assert!(output.status.success(), "{flag}");
        assert!(output.stdout.starts_with(b"tine ") || output.stdout.starts_with(b"Puts "), "{flag}");
        assert!(output.stderr.is_empty(), "{flag}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_tine")).args(["serve", "--help"]).output().unwrap();
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--children <N>"));
}
