//! Listeners that tine was started with: by number, and by systemd's names. sd_listen_fds(3).

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use tine_testkit::{Signal, binary, echo_line};

/// Runs `script` in a shell that has a listening socket as standard input and tine's path as `$1`.
fn start(script: &str) -> (Child, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let addr = listener.local_addr().expect("its address").to_string();
    let child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(binary("tine"))
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    (child, addr)
}

fn ends_well(mut child: Child) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).expect("it lives");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn a_listener_on_standard_input_is_taken_over_as_s6_hands_it_over() {
    let (child, addr) = start("exec $1 serve fd:0 -- cat");
    for n in 0..3 {
        echo_line(&addr, &format!("client {n}")).expect("an echo");
    }
    ends_well(child);
}

#[test]
fn a_listener_is_found_by_the_name_that_systemd_gives_it() {
    let variables = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=other:web";
    let (child, addr) =
        start(&format!("{variables} exec $1 serve systemd:web -- cat 3</dev/null 4<&0 0</dev/null"));
    echo_line(&addr, "by name").expect("an echo");
    ends_well(child);
}

#[test]
fn what_was_not_handed_over_is_told_with_what_was() {
    let refusals = [
        ("exec $1 serve fd:7 -- cat", "tine: take fd:7: "),
        ("LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=web exec $1 serve systemd:web -- cat 3<&0", "LISTEN_PID"),
        (
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec $1 serve systemd:mail -- cat 3<&0",
            "named 'web'",
        ),
        ("exec $1 serve fd:0 fd:0 -- cat", "tine: take fd:0: "),
    ];
    for (script, told) in refusals {
        let (mut child, _) = start(script);
        let mut errors = String::new();
        BufReader::new(child.stderr.take().expect("piped")).read_to_string(&mut errors).expect("text");
        assert_eq!(child.wait().expect("it ends").code(), Some(111), "{script}: {errors}");
        assert!(errors.contains(told), "{script}: {errors}");
    }
}

#[test]
fn a_file_is_no_listener() {
    let mut child = Command::new(binary("tine"))
        .args(["serve", "fd:0", "--", "cat"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tine");
    let mut first = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut first).expect("a line");
    assert!(first.starts_with("tine: take fd:0: ") && first.contains("listening"), "{first}");
    assert_eq!(child.wait().expect("it ends").code(), Some(111));
}
