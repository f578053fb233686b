//! Control groups: where none can be had, these tests say why and prove nothing.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use tine_os::cgroup::Parent;
use tine_os::signal;
use tine_os::{Pid, fork, wait};

use crate::support::{
    Test, child, child_in, falls_silent, hear, is_silent, keep_only, pair, say, signal_of, stay, tests, until,
};

pub const TESTS: &[Test] = tests![
    what_is_needed_of_control_groups_works,
    a_leaf_is_killed_with_all_that_its_child_has_started,
    all_leaves_are_killed_at_once_and_we_are_not,
    a_leaf_is_used_again,
    what_a_dead_server_left_is_swept_and_what_lives_is_not,
    a_name_that_is_taken_is_not_fought_over,
    a_program_that_makes_groups_of_its_own_leaves_none,
    a_child_keeps_one_descriptor_and_no_lock,
    a_child_that_is_born_in_a_group_knows_who_it_is,
];

/// A control group of this test's own, or word of why there is none.
fn parent(name: &str) -> Option<Parent> {
    match Parent::find_and_make(&format!("tine-test-{}-{name}", Pid::own())) {
        Ok(parent) => Some(parent),
        Err(why) => {
            eprintln!("skip   no control group can be had: {why}");
            None
        }
    }
}

/// Removes what a test that has failed left behind.
pub fn tidy_up(process: Pid) {
    let Ok(own) = Parent::find_and_make(&format!("tine-test-tidy-{}", Pid::own())) else { return };
    // All that it has started ends with it.
    let ours = format!("tine-test-{process}-");
    let swept = || own.sweep(&ours).is_ok_and(|swept| swept == 0);
    until("tidy", swept);
    remove(&own);
}

/// Removes a group when its last process has ended.
fn remove(parent: &Parent) {
    until("empty", || parent.remove().is_ok());
    assert!(!parent.path().exists());
}

/// A child that is born in a leaf and stays, with a daemon that it has started, which ignores what it can.
fn enter(parent: &Parent, n: u32) -> (Pid, UnixStream, UnixStream) {
    let (first, childs) = pair();
    let (second, daemons) = pair();
    let leaf = parent.open_leaf(n).expect("a leaf");
    let child = child_in(Some(leaf), &[&childs, &daemons], || {
        child(&[&daemons], || {
            fork::new_session().expect("a session");
            child(&[&daemons], || {
                let _signals = signal::Signals::take_over().expect("signals");
                say(&daemons);
                stay(&daemons)
            });
            0
        });
        keep_only(&[&childs]);
        say(&childs);
        stay(&childs)
    });
    drop((childs, daemons));
    hear(&first);
    hear(&second);
    (child, first, second)
}

fn what_is_needed_of_control_groups_works() {
    let Some(parent) = parent("works") else { return };
    for _ in 0..3 {
        parent.works(&[]).expect("all of it");
    }
    assert_eq!(std::fs::read_dir(parent.path()).expect("a directory").filter(is_directory).count(), 0);
    remove(&parent);
    let told = parent.works(&[]).expect_err("it is removed").to_string();
    assert!(told.starts_with("make a control group: "), "{told}");
}

fn is_directory(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| entry.path().is_dir())
}

fn a_leaf_is_killed_with_all_that_its_child_has_started() {
    let Some(parent) = parent("kill") else { return };
    parent.make_leaf(0).expect("a leaf");
    parent.make_leaf(1).expect("a leaf");
    assert!(!parent.is_populated(0).expect("an answer"));
    parent.make_leaf(2).expect("a leaf");
    parent.kill_leaf(2).expect("nobody there is no error");
    let (killed, _stream, daemon) = enter(&parent, 0);
    let (spared, other, others_daemon) = enter(&parent, 1);
    assert!(parent.is_populated(0).expect("an answer"));
    assert!(parent.remove_leaf(0).is_err(), "removed with somebody in it");

    parent.kill_leaf(0).expect("a leaf");
    assert_eq!(signal_of(killed), Some(9));
    assert!(falls_silent(&daemon), "the daemon goes on");
    until("empty", || !parent.is_populated(0).expect("an answer"));
    parent.remove_leaf(0).expect("an empty leaf");
    assert!(parent.is_populated(1).expect("an answer"));
    assert!(is_silent(&other) && is_silent(&others_daemon), "those in another leaf have ended");

    drop((other, others_daemon));
    assert_eq!(signal_of(spared), None);
    remove(&parent);
    for failed in [parent.kill_leaf(1), parent.open_leaf(1).map(drop), parent.is_populated(1).map(drop)] {
        assert!(failed.is_err(), "there is no leaf any more");
    }
}

fn all_leaves_are_killed_at_once_and_we_are_not() {
    let Some(parent) = parent("all") else { return };
    let inside: Vec<_> = (0..5)
        .map(|n| {
            parent.make_leaf(n).expect("a leaf");
            enter(&parent, n)
        })
        .collect();
    parent.kill_all().expect("a group");
    for (child, _, daemon) in &inside {
        assert_eq!(signal_of(*child), Some(9));
        assert!(falls_silent(daemon), "the daemon goes on");
    }
    remove(&parent);
}

fn a_leaf_is_used_again() {
    let Some(parent) = parent("again") else { return };
    parent.make_leaf(7).expect("a leaf");
    assert!(parent.make_leaf(7).is_err(), "there is one");
    for _ in 0..20 {
        let (child, _stream, daemon) = enter(&parent, 7);
        parent.kill_leaf(7).expect("a leaf");
        assert_eq!(signal_of(child), Some(9));
        assert!(falls_silent(&daemon));
        until("empty", || !parent.is_populated(7).expect("an answer"));
        // Whoever is born in a group that was killed once is killed too.
        parent.remove_leaf(7).expect("an empty leaf");
        parent.make_leaf(7).expect("a leaf");
    }
    for _ in 0..20 {
        let (child, stream, daemon) = enter(&parent, 7);
        drop((stream, daemon));
        assert_eq!(signal_of(child), None);
        until("empty", || !parent.is_populated(7).expect("an answer"));
    }
    remove(&parent);
}

fn what_a_dead_server_left_is_swept_and_what_lives_is_not() {
    let prefix = format!("tine-test-{}-sweep", Pid::own());
    let Some(ours) = parent("sweep-ours") else { return };
    let dead = parent("sweep-dead").expect("another");
    (0..20).for_each(|n| dead.make_leaf(n).expect("a leaf"));
    let crowded = parent("sweep-crowded").expect("another");
    crowded.make_leaf(3).expect("a leaf");
    let (finishing, stream, daemon) = enter(&crowded, 3);
    let living = parent("sweep-living").expect("another");
    let paths = [&dead, &crowded, &living].map(|parent| parent.path().to_owned());
    let there = || paths.each_ref().map(|path| path.exists());

    drop((dead, crowded));
    assert_eq!(ours.sweep(&prefix).expect("a sweep"), 1);
    assert_eq!(there(), [false, true, true]);
    drop((stream, daemon));
    assert_eq!(signal_of(finishing), None);
    until("swept", || ours.sweep(&prefix).expect("a sweep") == 1);
    assert_eq!(there(), [false, false, true]);
    assert_eq!(ours.sweep(&prefix).expect("a sweep"), 0);
    drop(living);
    assert_eq!(ours.sweep(&format!("{prefix}-no-such")).expect("a sweep"), 0);
    assert_eq!(ours.sweep(&prefix).expect("a sweep"), 1);
    remove(&ours);
}

fn a_name_that_is_taken_is_not_fought_over() {
    let Some(first) = parent("taken") else { return };
    let second = parent("taken").expect("another name");
    let name =
        |parent: &Parent| parent.path().file_name().expect("a name").to_str().expect("text").to_owned();
    assert_eq!(name(&second), format!("{}-2", name(&first)));
    remove(&second);

    // Left behind with somebody in it, as by a server that had the same pid.
    first.make_leaf(0).expect("a leaf");
    let (finishing, stream, daemon) = enter(&first, 0);
    let taken = first.path().to_owned();
    drop(first);
    let third = parent("taken").expect("another name");
    assert_ne!(third.path(), taken);
    remove(&third);
    drop((stream, daemon));
    assert_eq!(signal_of(finishing), None);

    // And with nobody in it.
    let again = || parent("taken").expect("a group");
    until("its name again", || {
        let fourth = again();
        remove(&fourth);
        fourth.path() == taken
    });
}

fn a_program_that_makes_groups_of_its_own_leaves_none() {
    let Some(parent) = parent("nested") else { return };
    parent.make_leaf(0).expect("a leaf");
    let below: PathBuf = parent.path().join("0").join("of").join("its").join("own");
    std::fs::create_dir_all(&below).expect("groups");
    let (ours, theirs) = pair();
    let inside = child(&[&theirs], || {
        std::fs::write(below.join("cgroup.procs"), "0").expect("entered");
        say(&theirs);
        stay(&theirs)
    });
    drop(theirs);
    hear(&ours);
    assert!(parent.is_populated(0).expect("an answer"));
    assert!(parent.remove().is_err(), "removed with somebody in it");
    parent.kill_leaf(0).expect("a leaf");
    assert_eq!(signal_of(inside), Some(9));
    remove(&parent);
}

fn a_child_keeps_one_descriptor_and_no_lock() {
    let Some(held) = parent("held") else { return };
    assert!(held.descriptor() > 15);
    held.make_leaf(0).expect("a leaf");
    let (ours, theirs) = pair();
    // It has what the group is entered by, and never leaves go of it.
    let keeper = child(&[&theirs, &held.descriptor()], || {
        say(&theirs);
        stay(&theirs)
    });
    drop(theirs);
    hear(&ours);
    let path = held.path().to_owned();
    drop(held);
    let other = parent("held-other").expect("another");
    assert_eq!(other.sweep(&path.file_name().expect("a name").to_string_lossy()).expect("a sweep"), 1);
    assert!(!path.exists());
    drop(ours);
    assert!(wait::wait_blocking(keeper).expect("a child").success());
    remove(&other);
}

fn a_child_that_is_born_in_a_group_knows_who_it_is() {
    let Some(parent) = parent("born") else { return };
    parent.make_leaf(0).expect("a leaf");
    let leaf = || Some(parent.open_leaf(0).expect("a leaf"));
    // abort(3) raises a signal in the thread that the C library takes for the child's own.
    assert_eq!(signal_of(child_in(leaf(), &[], || std::process::abort())), Some(6));
    let status =
        wait::wait_blocking(child_in(leaf(), &[], || u8::from(Pid::own().id() == std::process::id())));
    assert_eq!(status.expect("a child").code(), Some(1));
    remove(&parent);
}
