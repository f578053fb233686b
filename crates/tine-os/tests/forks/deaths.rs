//! Every death is told, once, however many children there are.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use tine_os::wait::{Deaths, FEW_MOST, YOUNG_MOST};
use tine_os::{Pid, fd};

use crate::support::{PATIENCE, Test, child, pair, stay, tests};

pub const TESTS: &[Test] = tests![
    all_deaths_are_told_whether_they_are_few_or_not,
    one_more_than_few_and_one_fewer_again_lose_nobody,
    children_that_were_there_before_are_left_alone,
    a_child_that_nobody_has_heard_of_is_told_of_too,
];

/// So many children, who stay until the stream is dropped that comes with them.
fn some(count: usize, deaths: &mut Deaths) -> (BTreeSet<Pid>, UnixStream) {
    let (ours, theirs) = pair();
    let all = (0..count).map(|_| child(&[&theirs], || stay(&theirs))).collect::<BTreeSet<_>>();
    all.iter().for_each(|child| deaths.watch(*child));
    (all, ours)
}

/// Reaps whoever is told of until so many are.
fn reap(deaths: &mut Deaths, count: usize) -> BTreeSet<Pid> {
    let (mut reaped, mut ready) = (BTreeSet::new(), Vec::new());
    while reaped.len() < count {
        let mut dead = Vec::new();
        deaths.collect(&mut dead).expect("an answer");
        if dead.is_empty() && !deaths.must_ask() {
            fd::wait_readable(&[deaths.as_fd()], Some(PATIENCE), &mut ready).expect("a wait");
            assert_eq!(ready, [true], "{} of {count} were told of", reaped.len());
        }
        for child in dead {
            assert!(deaths.reap(child).expect("a child").is_some(), "{child} has not ended");
            assert!(reaped.insert(child), "{child} was told of twice");
        }
    }
    let mut dead = Vec::new();
    deaths.collect(&mut dead).expect("an answer");
    assert!(dead.is_empty() && !deaths.must_ask(), "{dead:?} have died too");
    reaped
}

fn all_deaths_are_told_whether_they_are_few_or_not() {
    let mut deaths = Deaths::new().expect("a set");
    for count in [1, 2, FEW_MOST - 1, FEW_MOST, FEW_MOST + 1, 2 * YOUNG_MOST + 1, 700] {
        let (all, stop) = some(count, &mut deaths);
        assert_eq!(deaths.wants_descriptor(), count >= FEW_MOST);
        drop(stop);
        assert_eq!(reap(&mut deaths, count), all);
        assert!(!deaths.wants_descriptor(), "they are few again");
    }
}

fn one_more_than_few_and_one_fewer_again_lose_nobody() {
    let mut deaths = Deaths::new().expect("a set");
    let (mut old, stop) = some(FEW_MOST / 2, &mut deaths);
    for _ in 0..20 {
        let (others, others_stop) = some(FEW_MOST / 2 + 1, &mut deaths);
        drop(others_stop);
        assert_eq!(reap(&mut deaths, FEW_MOST / 2 + 1), others);
    }
    drop(stop);
    let reaped = reap(&mut deaths, old.len());
    old.retain(|child| !reaped.contains(child));
    assert_eq!(old, BTreeSet::new());
}

fn children_that_were_there_before_are_left_alone() {
    let stranger = child(&[], || 42);
    assert!(crate::support::ends(stranger, PATIENCE));
    let mut deaths = Deaths::new().expect("a set");
    assert!(deaths.wants_descriptor());
    let (ours, stop) = some(3, &mut deaths);
    drop(stop);
    assert_eq!(reap(&mut deaths, 3), ours);
    assert_eq!(tine_os::wait::wait_blocking(stranger).expect("still ours to wait for").code(), Some(42));
}

fn a_child_that_nobody_has_heard_of_is_told_of_too() {
    let mut deaths = Deaths::new().expect("a set");
    let orphan = child(&[], || 0);
    assert_eq!(reap(&mut deaths, 1), BTreeSet::from([orphan]));
}
