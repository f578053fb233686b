//! What only the `fault` feature can show of programs: with it `exec` fails where the way from the fork to it has asked
//! for memory, which a child of a busy master might not get.

mod support;

use std::process::Command;

use support::left_out_without_root;
use tine_testkit::server::tine_command;
use tine_testkit::{Ready, Server, echo_line, transfer};
use tine_testkit::{Stream, ask_datagram};

/// Serves with the program that was built with the feature, as this test was.
fn serve(args: &[&str]) -> Server {
    let plain = tine_command(args);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tine"));
    command.args(plain.get_args()).env("TINE_FAULT", "count");
    Server::start(command, Ready::Ports(tine_testkit::server::listeners_among(args)))
}

/// Twenty clients one after another and one with much to say: all are served, and no set-up has failed.
fn all_are_served(options: &[&str]) {
    let server = serve(&[&["127.0.0.1:0"], options].concat());
    for number in 0..20 {
        echo_line(server.addr(0), &format!("client {number}"))
            .unwrap_or_else(|why| server.fail(&why.to_string()));
    }
    transfer(&Stream::connect(server.addr(0)).expect("a connection"), 1 << 20).expect("an echo");
    assert!(!server.log().contains(" setup="), "{}", server.log());
    assert!(server.stop().success());
}

#[test]
fn the_way_from_fork_to_exec_asks_for_no_memory_in_any_style() {
    for style in ["ucspi", "inetd", "none"] {
        all_are_served(&["--env", style, "-v", "--", "cat"]);
    }
    all_are_served(&["--env", "systemd", "--", "sh", "-c", "exec cat <&3 >&3"]);
    for stderr in ["log", "socket", "null"] {
        all_are_served(&["--stderr", stderr, "-E", "NAME=value", "--", "cat"]);
    }
}

#[test]
fn the_way_from_fork_to_exec_asks_for_no_memory_with_a_plan() {
    let plan =
        ["--chdir", "/", "--umask", "027", "--rlimit", "nofile=64:128", "--rlimit", "cpu=100", "--", "cat"];
    all_are_served(&plan);
    if !left_out_without_root("another user") {
        all_are_served(&[&["--user", "nobody"], &plan[..]].concat());
    }
}

#[test]
fn the_way_from_fork_to_exec_asks_for_no_memory_for_datagrams() {
    for how in ["peer", "each"] {
        let server = serve(&["udp://127.0.0.1:0", "--drain", "0", "--datagram", how, "--", "cat"]);
        for number in 0..20 {
            let question = format!("datagram {number}");
            let reply = ask_datagram(server.addr(0), question.as_bytes());
            assert_eq!(reply.unwrap_or_else(|why| server.fail(&why.to_string())), question.as_bytes());
        }
        assert!(!server.log().contains(" setup="), "{}", server.log());
        assert!(server.stop().success());
    }
}
