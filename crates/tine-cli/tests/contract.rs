//! The golden child: what a program sees of itself is what was promised, byte for byte, whoever starts the server.
//!
//! Each file in `golden/` is compared with what a program sees behind a server that was started as usual, by the worst
//! parent there is, and by one that closed descriptors 0 to 2 as well; each time by a child that is born when its client comes,
//! by one that has waited for it, and by one of an acceptor: nine times the same.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use support::{Folder, left_out_without_root, value};
use tine_testkit::server::{tine_command, until};
use tine_testkit::{
    Hostile, Ready, Server, Stream, binary, children, compare_golden, example, hostile, normalise, probe,
};

/// How a child comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Birth {
    /// When its client comes.
    Plain,
    /// Before.
    Spare,
    /// When its client comes, of one of two acceptors.
    Acceptor,
}

impl Birth {
    const ALL: [Birth; 3] = [Birth::Plain, Birth::Spare, Birth::Acceptor];
}

/// The user whom everybody knows to be nobody.
const NOBODY: u32 = 65_534;

/// How the server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Fresh,
    Hostile(Hostile),
}

const STARTS: [Start; 3] = [Start::Fresh, Start::Hostile(Hostile::Full), Start::Hostile(Hostile::Closed)];

/// What lets a program that writes to standard output answer a client on descriptor 3; standard output is 9 then.
const THIRD: [&str; 4] = ["sh", "-c", r#"exec "$@" 9>&1 >&3"#, "sh"];

/// A case: who starts the server, with which options, and what is before the program.
struct Case {
    golden: &'static str,
    nobody: bool,
    options: &'static [&'static str],
    chain: &'static [&'static str],
}

impl Case {
    /// Compares all starts with the golden file.
    fn check(&self) {
        if left_out_without_root(self.golden) {
            return;
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(self.golden);
        // Where everybody may execute them: the folder of the build may be somebody's own.
        let sealed = self.options.contains(&"sealed");
        let folder = if sealed { Folder::outside_tmp() } else { Folder::new() };
        folder.copy(binary("tine"), "tine");
        folder.copy(example("tine-testkit", "golden"), "golden");
        for by in STARTS.into_iter().flat_map(|start| Birth::ALL.map(|birth| (start, birth))) {
            println!("{} {by:?}", self.golden);
            let dump = self.served(&folder, by, &[&folder.text("golden"), "an argument", ""]);
            let status = self.served(&folder, by, &["cat", "/proc/self/status"]);
            let text =
                format!("{dump}# signals, by a program that changes none\n{}", probe::signals(&status));
            compare_golden(&path, &text);
        }
    }

    /// What the program tells its client, with a name for all that differs from run to run.
    fn served(&self, folder: &Folder, (start, birth): (Start, Birth), program: &[&str]) -> String {
        let spares = birth == Birth::Spare;
        let (server, address) = self.start(folder, (start, birth), program);
        let before = if spares { waiting(&server) } else { BTreeSet::new() };
        let client = Stream::connect(&address.to_string()).expect("a connection");
        let Stream::Tcp(tcp) = &client else { panic!("{address} is of TCP") };
        let remote = tcp.local_addr().expect("it has one");
        let text = String::from_utf8(client.rest().expect("an answer")).expect("text");
        if start == (Start::Hostile(Hostile::Closed)) {
            assert!(server.stop().success());
        } else {
            let accepted = server.wait_log(|line| line.starts_with("accept"));
            let child = value(&accepted, "child").unwrap();
            server.wait_log(|line| line.starts_with(&format!("end    child={child} exit=0 ")));
            assert_eq!(env(&text, "LISTEN_PID").unwrap_or(child), child);
            assert_eq!(before.contains(&child.parse().unwrap()), spares, "{child} of {before:?}");
            assert!(server.stop().success());
        }
        let text = if start == Start::Hostile(Hostile::Closed) { self.with_log(&text) } else { text };
        named(&text, address, remote, folder)
    }

    /// Where the log was closed, tine has put /dev/null in its place, and the program sees that; all else is the same.
    fn with_log(&self, text: &str) -> String {
        let (null, pipe) = ("/dev/null read+write blocking", "pipe write blocking");
        let log = if self.options.contains(&"systemd") {
            "fd.9" // see `THIRD`
        } else if self.options.contains(&"--stderr") {
            return text.to_owned();
        } else {
            "fd.2"
        };
        normalise(text, &[(&format!("{log} {null}\n"), &format!("{log} {pipe}\n"))])
    }

    fn start(
        &self,
        folder: &Folder,
        (start, birth): (Start, Birth),
        program: &[&str],
    ) -> (Server, SocketAddr) {
        let address = free_address();
        let listener = address.to_string();
        let mut args = vec![listener.as_str(), "-v"];
        args.extend(self.options);
        args.extend(match birth {
            Birth::Plain => None,
            Birth::Spare => Some("--spare=2:2"),
            Birth::Acceptor => Some("--acceptors=2"),
        });
        args.push("--");
        args.extend(self.chain.iter().chain(program));
        let plain = tine_command(&args);
        let mut command = Command::new(folder.file("tine"));
        command.args(plain.get_args());
        if let Start::Hostile(how) = start {
            command = hostile(command, how);
        }
        command.current_dir(folder.path());
        if self.nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        let listeners = vec![listener];
        let ready = match start {
            Start::Hostile(Hostile::Closed) => Ready::Bound(listeners),
            _ => Ready::Ports(listeners),
        };
        (Server::start(command, ready), address)
    }
}

/// Both spares of a server, once they are there.
fn waiting(server: &Server) -> BTreeSet<u32> {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let own = || children(server.pid()).into_iter().filter(|pid| name(pid) == "tine\n").collect();
    until("there are two spares", || Some(own()).filter(|all: &BTreeSet<u32>| all.len() == 2))
}

/// An address of the loopback that no other test listens at: with descriptors closed, a server cannot tell its port.
fn free_address() -> SocketAddr {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) as u8;
    // A port that the kernel never chooses: the 28 listeners among what a hostile start leaves have such of its choice.
    SocketAddr::from(([127, high | 1, low, number + 1], 7000))
}

fn env<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix("env.")?.strip_prefix(name)?.strip_prefix(' '))
}

/// The text with names for the values that differ, each after it was compared with what it must be.
fn named(text: &str, local: SocketAddr, remote: SocketAddr, folder: &Folder) -> String {
    let port = |addr: SocketAddr| addr.port().to_string();
    let expected = [
        ("TCPLOCALIP", local.ip().to_string()),
        ("TCPLOCALPORT", port(local)),
        ("TCPREMOTEIP", remote.ip().to_string()),
        ("TCPREMOTEPORT", port(remote)),
        ("REMOTE_ADDR", remote.ip().to_string()),
        ("REMOTE_HOST", remote.ip().to_string()),
        ("REMOTE_PORT", port(remote)),
    ];
    let mut lines = Vec::new();
    for line in text.lines() {
        // Whether it is one or two depends on where a control group can be had; what they refuse together does not.
        if line.starts_with("seccomp-filters") {
            continue;
        }
        // One of its own, which no other child has.
        if let Some((what @ ("uid" | "gid"), ids)) = line.split_once(' ') {
            let own = |id: &str| id.parse::<u32>().is_ok_and(|id| (0x7000_0000..0x7080_0000).contains(&id));
            let ids: Vec<_> = ids.split(' ').map(|id| if own(id) { "OWN" } else { id }).collect();
            lines.push(format!("{what} {}", ids.join(" ")));
            continue;
        }
        let Some((key, value)) = line.strip_prefix("env.").and_then(|line| line.split_once(' ')) else {
            lines.push(line.to_owned());
            continue;
        };
        if let Some((_, right)) = expected.iter().find(|(name, _)| *name == key) {
            assert_eq!(value, right, "{key}");
        }
        let volatile = match key {
            "TINE_ID" => value.len() == 16 && value.bytes().all(|b| b.is_ascii_hexdigit()),
            "LISTEN_PID" | "SO_COOKIE" => value.parse::<u64>().is_ok_and(|number| number > 0),
            _ => expected.iter().any(|(name, _)| *name == key),
        };
        lines.push(if volatile { format!("env.{key} {key}") } else { line.to_owned() });
    }
    lines.push(String::new());
    normalise(&lines.join("\n"), &[(&folder.path().display().to_string(), "FOLDER")])
}

#[test]
fn a_program_served_by_root_sees_what_was_promised() {
    Case { golden: "program-root.txt", nobody: false, options: &[], chain: &[] }.check();
}

#[test]
fn a_program_that_is_not_confined_sees_what_was_promised() {
    let options = &["--confine", "none"];
    Case { golden: "program-none-root.txt", nobody: false, options, chain: &[] }.check();
}

#[test]
fn a_sealed_program_sees_what_was_promised() {
    let options = &["--confine", "sealed"];
    Case { golden: "program-sealed-root.txt", nobody: false, options, chain: &[] }.check();
}

#[test]
fn a_program_that_nobody_seals_sees_what_was_promised() {
    // What these are otherwise depends on how much memory the machine has, and no parent is in sight to be compared with.
    let options = &["--confine", "sealed", "--rlimit", "sigpending=1000", "--rlimit", "nproc=1000"];
    Case { golden: "program-sealed-nobody.txt", nobody: true, options, chain: &[] }.check();
}

#[test]
fn a_program_served_by_nobody_sees_what_was_promised() {
    Case { golden: "program-nobody.txt", nobody: true, options: &[], chain: &[] }.check();
}

#[test]
fn a_program_that_root_serves_as_nobody_sees_what_was_promised() {
    let options = &["--user", "nobody"];
    Case { golden: "program-user-nobody.txt", nobody: false, options, chain: &[] }.check();
}

#[test]
fn a_program_with_its_client_on_descriptor_3_sees_what_was_promised() {
    let options = &["--env", "systemd", "--stderr", "null"];
    Case { golden: "program-systemd-root.txt", nobody: false, options, chain: &THIRD }.check();
}

#[test]
fn a_program_of_inetds_kind_sees_what_was_promised() {
    let options = &["--env", "inetd", "--stderr", "socket"];
    Case { golden: "program-inetd-root.txt", nobody: false, options, chain: &[] }.check();
}

#[test]
fn a_program_that_was_chain_loaded_sees_what_was_promised_and_what_the_chain_has_changed() {
    let chain = &["env", "-u", "TINE_ID", "CHAINED=yes", "nice", "-n", "5"];
    Case { golden: "program-chained-root.txt", nobody: false, options: &[], chain }.check();
}

#[test]
fn a_program_with_everything_asked_for_sees_just_that() {
    let options = &[
        "--env",
        "none",
        "-E",
        "NAME=a value",
        "-E",
        "PATH=/bin",
        "--umask",
        "027",
        "--chdir",
        "/",
        "--rlimit",
        "nofile=64:128",
        "--rlimit",
        "cpu=100",
        "--rlimit",
        "core=0",
    ];
    Case { golden: "program-options-root.txt", nobody: false, options, chain: &[] }.check();
}
