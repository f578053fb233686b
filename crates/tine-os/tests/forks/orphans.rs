//! Processes whose parent has ended.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use tine_os::signal::{self, Signal};
use tine_os::{Pid, fork, orphan};

use crate::support::{
    PATIENCE, Test, child, ends, falls_silent, hear, keep_only, pair, say, signal_of, stay, tests,
};

pub const TESTS: &[Test] = tests![
    a_daemon_becomes_a_child_of_the_subreaper,
    without_a_subreaper_a_daemon_gets_away,
    a_process_dies_with_its_parent,
    a_parent_that_has_ended_already_is_an_error,
    all_children_are_listed_however_many,
    all_who_descend_from_a_process_are_listed_and_nobody_else,
];

fn children() -> Vec<Pid> {
    let mut children = Vec::new();
    orphan::children(&mut children).expect("a list");
    children.sort_unstable();
    children
}

fn tell(mut stream: &UnixStream, pid: Pid) {
    stream.write_all(&pid.as_raw().to_ne_bytes()).expect("somebody who listens");
}

fn told(mut stream: &UnixStream) -> Pid {
    let mut bytes = [0; 4];
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut bytes).expect("a pid");
    Pid::from_raw(i32::from_ne_bytes(bytes)).expect("a pid")
}

/// A child that has ended, and what it has left behind: forked twice, in a session of its own, saying its pid.
fn daemonised() -> (Pid, UnixStream) {
    let (ours, theirs) = pair();
    let starter = child(&[&theirs], || {
        child(&[&theirs], || {
            fork::new_session().expect("a session");
            child(&[&theirs], || {
                tell(&theirs, Pid::own());
                stay(&theirs)
            });
            0
        });
        0
    });
    drop(theirs);
    assert_eq!(signal_of(starter), None);
    (told(&ours), ours)
}

fn a_daemon_becomes_a_child_of_the_subreaper() {
    orphan::become_subreaper().expect("a subreaper");
    let (daemon, _stream) = daemonised();
    // Between the two that have ended, one may not have yet.
    crate::support::until("ours", || {
        let children = children();
        children.iter().filter(|pid| **pid != daemon).for_each(|other| assert_eq!(signal_of(*other), None));
        children.contains(&daemon)
    });
    signal::send(daemon, Signal::KILL).expect("a child");
    assert_eq!(signal_of(daemon), Some(9));
    crate::support::until("alone", || children().into_iter().map(signal_of).count() == 0);
}

fn without_a_subreaper_a_daemon_gets_away() {
    let (daemon, stream) = daemonised();
    assert_eq!(children(), []);
    drop(stream);
    assert!(ends(daemon, PATIENCE));
}

fn a_process_dies_with_its_parent() {
    let (ours, theirs) = pair();
    let (grip, held) = pair();
    let parent = child(&[&theirs, &held], || {
        let parent = Pid::own();
        child(&[&theirs], || {
            orphan::die_with_parent(parent).expect("a parent");
            say(&theirs);
            stay(&theirs)
        });
        keep_only(&[&held]);
        stay(&held)
    });
    drop((theirs, held));
    hear(&ours);
    signal::send(parent, Signal::KILL).expect("a child");
    assert_eq!(signal_of(parent), Some(9));
    assert!(falls_silent(&ours), "it goes on without its parent");
    drop(grip);
}

fn a_parent_that_has_ended_already_is_an_error() {
    let (ours, theirs) = pair();
    child(&[&theirs], || {
        let (_grip, held) = pair();
        let parent = Pid::own();
        child(&[&theirs, &held], || {
            assert!(falls_silent(&held), "the parent goes on");
            crate::support::until("another's child", || {
                rustix::process::getppid().is_none_or(|now| now.as_raw_pid() != parent.as_raw())
            });
            let gone = orphan::die_with_parent(parent).expect_err("a parent that is gone");
            assert_eq!(gone.raw_os_error(), Some(3), "ESRCH: {gone}");
            say(&theirs);
            0
        });
        // Which closes the last descriptor of the pair's other end.
        fork::exit(0)
    });
    drop(theirs);
    hear(&ours);
}

fn all_children_are_listed_however_many() {
    assert_eq!(children(), []);
    let (ours, theirs) = pair();
    let mut born: Vec<_> = (0..1000).map(|_| child(&[&theirs], || stay(&theirs))).collect();
    drop(theirs);
    born.sort_unstable();
    assert_eq!(children(), born);
    drop(ours);
    born.into_iter().for_each(|child| assert_eq!(signal_of(child), None));
    assert_eq!(children(), []);
}

fn all_who_descend_from_a_process_are_listed_and_nobody_else() {
    let (ours, theirs) = pair();
    let other = child(&[&theirs], || stay(&theirs));
    let first = child(&[&theirs], || {
        for _ in 0..2 {
            child(&[&theirs], || {
                fork::new_session().expect("a session");
                child(&[&theirs], || {
                    tell(&theirs, Pid::own());
                    stay(&theirs)
                });
                tell(&theirs, Pid::own());
                stay(&theirs)
            });
        }
        stay(&theirs)
    });
    drop(theirs);
    let mut below: Vec<_> = (0..4).map(|_| told(&ours)).collect();
    let mut found = vec![other];
    orphan::descendants(first, &mut found).expect("a list");
    assert_eq!(found.remove(0), other, "what was there before is kept");
    below.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, below);
    drop(ours);
    [other, first].into_iter().for_each(|child| assert_eq!(signal_of(child), None));
    orphan::descendants(first, &mut found).expect("nobody is below a process that is gone");
    assert_eq!(found, below);
}
