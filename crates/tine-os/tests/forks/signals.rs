//! A signal reaches whom it is meant for, and nobody else.

use rustix::process::{Signal as Raw, getpgrp};
use tine_os::signal::{self, Signal};
use tine_os::{Pid, fork, wait};

use crate::support::{
    Test, child, falls_silent, hear, is_silent, keep_only, pair, say, signal_of, stay, tests,
};

pub const TESTS: &[Test] = tests![
    a_signal_reaches_the_child_alone,
    a_signal_reaches_the_whole_group_and_not_the_caller,
    a_group_whose_leader_has_ended_is_still_reached,
    a_child_that_leads_no_group_yet_is_reached_alone,
    a_child_that_was_waited_for_is_nobody,
];

const TERM: Option<i32> = Some(Raw::TERM.as_raw());

/// A child that leads a session and group of its own, with another process in it; both stay.
fn family(leader_stays: bool) -> (Pid, std::os::unix::net::UnixStream, std::os::unix::net::UnixStream) {
    let (first, leaders) = pair();
    let (second, members) = pair();
    let leader = child(&[&leaders, &members], || {
        fork::new_session().expect("a session");
        child(&[&members], || {
            say(&members);
            stay(&members)
        });
        keep_only(&[&leaders]);
        say(&leaders);
        if leader_stays { stay(&leaders) } else { 0 }
    });
    drop((leaders, members));
    hear(&first);
    hear(&second);
    (leader, first, second)
}

fn a_signal_reaches_the_child_alone() {
    let (leader, _first, member) = family(true);
    signal::send(leader, Signal::TERM).expect("a child");
    assert_eq!(signal_of(leader), TERM);
    assert!(is_silent(&member), "the other in its group has ended");
}

fn a_signal_reaches_the_whole_group_and_not_the_caller() {
    let (leader, _first, member) = family(true);
    assert_ne!(getpgrp().as_raw_pid(), leader.as_raw());
    signal::send_group(leader, Signal::TERM).expect("a group");
    assert_eq!(signal_of(leader), TERM);
    assert!(falls_silent(&member), "the other in its group goes on");
}

fn a_group_whose_leader_has_ended_is_still_reached() {
    let (leader, first, member) = family(false);
    assert!(falls_silent(&first), "the leader goes on");
    signal::send_group(leader, Signal::KILL).expect("a group");
    assert!(falls_silent(&member), "the other in its group goes on");
    assert_eq!(signal_of(leader), None);
}

fn a_child_that_leads_no_group_yet_is_reached_alone() {
    let (ours, theirs) = pair();
    let (beside, other) = pair();
    let single = child(&[&theirs], || stay(&theirs));
    let sibling = child(&[&other], || stay(&other));
    drop((theirs, other));
    signal::send_group(single, Signal::TERM).expect("a child");
    assert_eq!(signal_of(single), TERM);
    assert!(is_silent(&beside), "the other in our group has ended");
    drop((ours, beside));
    assert_eq!(signal_of(sibling), None);
}

fn a_child_that_was_waited_for_is_nobody() {
    let gone = child(&[], || 0);
    assert!(wait::wait_blocking(gone).expect("a child").success());
    assert!(signal::send(gone, Signal::TERM).is_err());
    assert!(signal::send_group(gone, Signal::TERM).is_err());
}
