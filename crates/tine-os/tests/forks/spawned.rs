//! Children that share our memory until they are a program.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use tine_os::exec::{Argv, Environ, exec};
use tine_os::fork::exit;
use tine_os::spawn::{Nursery, Task, With};
use tine_os::{Forked, Pid, fd, fork, signal, wait};

use crate::support::{Test, hear, pair, say, signal_of, tests};

pub const TESTS: &[Test] = tests![
    what_a_child_does_with_descriptors_is_its_own,
    what_a_child_does_with_its_place_is_seen_by_the_next,
    a_child_becomes_the_program_with_its_client,
    as_many_are_born_at_once_as_there_are_places_and_the_next_waits,
    who_is_stopped_keeps_its_place_and_nothing_else,
    a_child_that_crashes_or_aborts_harms_nobody,
    a_handler_of_ours_is_not_the_childs,
    a_client_sees_the_end_when_its_child_ends,
    a_child_is_told_who_it_is_for_its_parent,
    a_fork_has_no_stacks_of_a_nursery_that_is_its_parents_alone,
];

fn nursery<T: Clone>(places: usize, what: T) -> Nursery<T> {
    Nursery::new(places, || what.clone()).expect("a nursery")
}

fn bear<T>(nursery: &mut Nursery<T>, client: impl AsFd, task: Task<T>) -> Pid {
    let cot = nursery.cot().expect("a place");
    cot.bear(client.as_fd(), With::default(), task).expect("a child").pid
}

fn status_of(child: Pid) -> Option<i32> {
    wait::wait_blocking(child).expect("a child").code()
}

fn null() -> std::os::fd::OwnedFd {
    fd::null().expect("a descriptor")
}

fn what_a_child_does_with_descriptors_is_its_own() {
    let high: Vec<_> = (0..300).map(|_| null()).collect();
    let (_ours, theirs) = pair();
    let child = bear(&mut nursery(1, ()), &theirs, |(), client, _| {
        let closed = fd::place(&[client, client], &[]).and_then(|()| fd::close_from(2, &[]));
        u8::from(closed.is_ok() && fd::placed(299).is_err())
    });
    assert_eq!(status_of(child), Some(1));
    assert!(high.iter().all(|fd| rustix::io::fcntl_getfd(fd).is_ok()), "one of ours was closed");
}

fn a_child_is_told_who_it_is_for_its_parent() {
    let child = bear(&mut nursery(1, ()), null(), |(), _, pid| u8::from(pid == Some(Pid::own())));
    assert_eq!(status_of(child), Some(1));
}

fn a_fork_has_no_stacks_of_a_nursery_that_is_its_parents_alone() {
    const PLACES: usize = 4;
    let mappings = || {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("proc_pid_maps(5)");
        u8::try_from(maps.lines().count()).expect("a small process")
    };
    let in_a_fork = || match fork().expect("a child") {
        Forked::Child => exit(mappings()),
        Forked::Parent(child) => status_of(child).expect("it has counted"),
    };
    let mut nursery = nursery(PLACES, 0u32);
    let before = in_a_fork();
    nursery.keep_from_forks();
    assert_eq!(before - in_a_fork(), 2 * PLACES as i32, "a stack and its guard each");
    // And here they still are.
    for _ in 0..2 * PLACES {
        let child = bear(&mut nursery, null(), |count, _, _| {
            *count += 1;
            *count as u8
        });
        assert!(matches!(status_of(child), Some(1 | 2)));
    }
}

fn what_a_child_does_with_its_place_is_seen_by_the_next() {
    let mut nursery = nursery(1, 0u32);
    for n in 0..100 {
        assert_eq!(*nursery.cot().expect("a place").what(), n);
        let child = bear(&mut nursery, null(), |count, _, _| {
            *count += 1;
            7
        });
        assert_eq!(status_of(child), Some(7));
    }
}

/// A program, and what it finds.
struct Becomes {
    argv: Argv,
    environ: Environ,
}

fn a_child_becomes_the_program_with_its_client() {
    let becomes = || {
        let words = ["sh", "-c", "read line && echo $line $MINE"].map(OsString::from);
        let argv = Argv::new(Path::new("/bin/sh"), &words).expect("words");
        let mut environ = Environ::new();
        environ.set("MINE", "too");
        environ.seal();
        Becomes { argv, environ }
    };
    let mut nursery = Nursery::new(2, becomes).expect("a nursery");
    let (ours, theirs) = pair();
    let with = With { pidfd: true, ..With::default() };
    let born =
        nursery.cot().expect("a place").bear(theirs.as_fd(), with, |Becomes { argv, environ }, client, _| {
            if fd::place(&[client, client], &[]).is_ok() {
                exec(argv, environ);
            }
            1
        });
    drop(theirs);
    io::Write::write_all(&mut &ours, b"hello\n").expect("a program that reads");
    let mut said = String::new();
    io::Read::read_to_string(&mut &ours, &mut said).expect("a program that answers");
    assert_eq!(said, "hello too\n");
    let born = born.expect("a child");
    assert!(born.pidfd.is_some());
    assert_eq!(status_of(born.pid), Some(0));
}

/// Says that it is there, and ends when it is told to.
fn stays(_: &mut (), client: BorrowedFd<'_>, _: Option<Pid>) -> u8 {
    let mut word = [0];
    let there = rustix::io::write(client, b"x").is_ok();
    u8::from(!(there && rustix::io::read(client, &mut word) == Ok(1)))
}

fn as_many_are_born_at_once_as_there_are_places_and_the_next_waits() {
    for places in [1, 2, 5] {
        let mut nursery = nursery(places, ());
        let pairs: Vec<_> = (0..places).map(|_| pair()).collect();
        let born: Vec<_> = pairs.iter().map(|(_, theirs)| bear(&mut nursery, theirs, stays)).collect();
        // All of them are here, and so are we.
        pairs.iter().for_each(|(ours, _)| hear(ours));
        assert!(!nursery.is_empty());
        // One more waits for a place: that of the one who was born last, and goes first.
        say(&pairs[places - 1].0);
        let last = bear(&mut nursery, &pairs[places - 1].1, stays);
        hear(&pairs[places - 1].0);
        // Where nobody goes, it is not waited for ever, and only once.
        for _ in 0..1_000 {
            assert_eq!(nursery.cot().expect_err("all are taken").kind(), io::ErrorKind::TimedOut);
        }
        pairs.iter().for_each(|(ours, _)| say(ours));
        assert!(born.into_iter().chain([last]).all(|child| status_of(child) == Some(0)));
        assert_eq!(status_of(bear(&mut nursery, null(), |(), _, _| 9)), Some(9), "there is room again");
        assert!(nursery.is_empty());
    }
}

fn who_is_stopped_keeps_its_place_and_nothing_else() {
    let mut nursery = nursery(2, ());
    let (ours, theirs) = pair();
    let child = bear(&mut nursery, &theirs, stays);
    hear(&ours);
    signal::send(child, signal::Signal::STOP).expect("a signal");
    for _ in 0..10 {
        assert_eq!(status_of(bear(&mut nursery, null(), |(), _, _| 3)), Some(3));
    }
    signal::send(child, signal::Signal::KILL).expect("a signal");
    assert_eq!(signal_of(child), Some(9));
    assert!(nursery.is_empty(), "the dead have no place");
}

fn a_child_that_crashes_or_aborts_harms_nobody() {
    let mut nursery = nursery(2, ());
    let mut signal = |task: Task<()>| signal_of(bear(&mut nursery, null(), task));
    assert_eq!(signal(|(), _, _| std::process::abort()), Some(6));
    // Its stack is its own, and ends in a page that nobody can touch.
    assert_eq!(signal(|(), _, _| fall(1)), Some(11));
    let kill = |_: &mut (), _: BorrowedFd<'_>, _: Option<Pid>| {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, signal::Signal::KILL).map_or(1, |()| 0)
    };
    assert_eq!(signal(kill), Some(9));
}

#[allow(unconditional_recursion)]
fn fall(depth: u8) -> u8 {
    let room = std::hint::black_box([depth; 4096]);
    fall(room[usize::from(depth)]).wrapping_add(room[1])
}

fn a_handler_of_ours_is_not_the_childs() {
    // The Rust runtime's own, for a stack that overflows.
    assert!(signal::changed().expect("an answer").contains(&11));
    let child = bear(&mut nursery(1, ()), null(), |(), _, _| {
        signal::changed().map_or(255, |changed| changed.iter().filter(|signal| **signal == 11).count() as u8)
    });
    assert_eq!(status_of(child), Some(0));
}

fn a_client_sees_the_end_when_its_child_ends() {
    let (ours, theirs) = pair();
    let child = bear(&mut nursery(1, ()), &theirs, |(), client, _| {
        u8::from(rustix::io::write(client, b"x").is_err())
    });
    drop(theirs);
    hear(&ours);
    assert_eq!(status_of(child), Some(0));
    assert_eq!(io::Read::read(&mut &ours, &mut [0]).expect("an end"), 0);
}
