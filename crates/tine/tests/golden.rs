//! The golden child of a handler: all that it can see about itself, the same whatever its master was started with.
//!
//! The files are in `golden/`; `TINE_BLESS=1` rewrites them.

#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use common::*;
use rustix::process::{getgid, getgroups, getuid};
use tine_testkit::server::until;
use tine_testkit::{Hostile, Ready, Server, ask, children, compare_golden, example, hostile, normalise};

/// The user that has no privileges, on every system.
const NOBODY: u32 = 65_534;

/// How a server is started.
#[derive(Clone, Copy, Debug)]
enum Start {
    Fresh,
    By(Hostile),
}

const STARTS: [Start; 3] = [Start::Fresh, Start::By(Hostile::Full), Start::By(Hostile::Closed)];

/// How a child comes to be: when its client comes, before, or of one of several acceptors.
const HOW: [&str; 3] = ["", "spares=2", "acceptors=2"];

/// What the child of a client sees, in a server that was started in this way, by root or by nobody: one that was born when the
/// client came, or one that has waited for it.
fn seen(start: Start, by_root: bool, how: &str) -> String {
    let spares = how.starts_with("spares");
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.at("probe");
    // Where nobody can reach it, too. By another process: a file that is open for writing here cannot be executed.
    let copied = Command::new("cp").arg(example("tine", "probe")).arg(&program).status();
    assert!(copied.expect("cp can be run").success());
    let name = format!("unix:@{program}");

    let mut command = Command::new(&program);
    command.arg(&name);
    command.args(Some(how).filter(|how| !how.is_empty()));
    let (mut command, ready) = match start {
        Start::Fresh => (command, Ready::Line),
        Start::By(how @ Hostile::Full) => (hostile(command, how), Ready::Line),
        // Nothing can be read from it.
        Start::By(how @ Hostile::Closed) => (hostile(command, how), Ready::Bound(vec![name.clone()])),
    };
    command.current_dir("/");
    if !by_root && getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY); // and no other groups
    }
    let server = Server::start(command, ready);
    let before = if spares { wait_children(&server, 2) } else { Vec::new() };
    let text = String::from_utf8(ask(&name, b"").expect("an answer")).expect("text");
    if spares {
        // One of them has served, and another has taken its place.
        until("there are two again", || {
            let now = children(server.pid());
            (now.len() == 2 && now != before).then_some(())
        });
    }
    match start {
        // Its log is /dev/null, which it has put in the place of what was closed.
        Start::By(Hostile::Closed) => normalise(&text, &[(LOG_CLOSED, LOG), (SAME_CLOSED, SAME)]),
        _ => text,
    }
}

const LOG: &str = "\nfd.1 pipe write blocking\nfd.2 pipe write blocking\n";
const LOG_CLOSED: &str = "\nfd.1 /dev/null read+write blocking\nfd.2 /dev/null read+write blocking\n";
const SAME: &str = "\nsame.0.1 no\nsame.0.2 no\n";
const SAME_CLOSED: &str = "\nsame.0.1 yes\nsame.0.2 yes\n";

/// Who has no privileges here: nobody, or whoever runs the tests; as the text names them.
fn without_names(text: &str) -> String {
    let (uid, gid) = (getuid(), getgid());
    let (uid, gid, groups) = if uid.is_root() {
        (NOBODY, NOBODY, String::new())
    } else {
        let mut groups: Vec<u32> =
            getgroups().expect("own groups").into_iter().map(|group| group.as_raw()).collect();
        groups.sort_unstable();
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        (uid.as_raw(), gid.as_raw(), groups.join(" "))
    };
    let all_four = |name: &str, id: u32| format!("\n{name} {id} {id} {id} {id}\n");
    let groups = if groups.is_empty() { "\"\"".to_owned() } else { groups };
    normalise(
        text,
        &[
            (&all_four("uid", uid), &all_four("uid", NOBODY)),
            (&all_four("gid", gid), &all_four("gid", NOBODY)),
            (&format!("\ngroups {groups}\n"), "\ngroups none\n"),
        ],
    )
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn a_handlers_child_of_root_is_the_same_whatever_its_master_inherited() {
    if !is_root("a server of root's") {
        return;
    }
    for (start, how) in STARTS.into_iter().flat_map(|start| HOW.map(|how| (start, how))) {
        eprintln!("{start:?} {how}");
        compare_golden(golden("handler-root.txt"), &seen(start, true, how));
    }
}

#[test]
fn a_handlers_child_of_nobody_is_the_same_whatever_its_master_inherited() {
    for (start, how) in STARTS.into_iter().flat_map(|start| HOW.map(|how| (start, how))) {
        eprintln!("{start:?} {how}");
        compare_golden(golden("handler-nobody.txt"), &without_names(&seen(start, false, how)));
    }
}
