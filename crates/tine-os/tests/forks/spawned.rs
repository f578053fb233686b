//! Children that share our memory until they are a program.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use tine_os::exec::{Argv, Environ, exec};
use tine_os::spawn::{Nursery, With};
use tine_os::{Pid, fd, signal, wait};

use crate::support::{Test, hear, pair, say, signal_of, tests};

pub const TESTS: &[Test] = tests![
    what_a_child_does_with_descriptors_is_its_own,
    what_a_child_does_with_memory_is_seen,
    a_child_becomes_the_program_with_its_client,
    a_child_that_crashes_or_aborts_harms_nobody,
    a_handler_of_ours_is_not_the_childs,
    a_client_sees_the_end_when_its_child_ends,
];

fn with(nursery: &Nursery) -> With<'static> {
    With { group: None, first: nursery.first_above(&[]), pidfd: false }
}

fn status_of(child: Pid) -> Option<i32> {
    wait::wait_blocking(child).expect("a child").code()
}

fn what_a_child_does_with_descriptors_is_its_own() {
    let mut nursery = Nursery::new().expect("a nursery");
    let high: Vec<_> = (0..300).map(|_| fd::null().expect("a descriptor")).collect();
    let (_ours, theirs) = pair();
    let last = high[299].as_raw_fd();
    let born = nursery.spawn(theirs.as_fd(), with(&nursery), |client, unshared| {
        assert!(unshared.is_ok() && client.as_raw_fd() < 20);
        // Those above are gone, those below are ours to close.
        let gone = !Path::new(&format!("/proc/self/fd/{last}")).exists();
        fd::close_from(3, &[]).expect("all closed");
        u8::from(gone)
    });
    assert_eq!(status_of(born.expect("a child").pid), Some(1));
    assert!(high.iter().all(|fd| rustix::io::fcntl_getfd(fd).is_ok()), "one of ours was closed");
}

fn what_a_child_does_with_memory_is_seen() {
    let mut nursery = Nursery::new().expect("a nursery");
    let null = fd::null().expect("a descriptor");
    for n in 0..100 {
        let mut seen = 0;
        let born = nursery.spawn(null.as_fd(), with(&nursery), |_, _| {
            seen = n;
            7
        });
        assert_eq!((status_of(born.expect("a child").pid), seen), (Some(7), n));
    }
}

fn a_child_becomes_the_program_with_its_client() {
    let mut nursery = Nursery::new().expect("a nursery");
    let words = ["sh", "-c", "read line && echo $line $MINE"].map(OsString::from);
    let argv = Argv::new(Path::new("/bin/sh"), &words).expect("words");
    let mut environ = Environ::new();
    environ.set("MINE", "too");
    environ.seal();
    let (ours, theirs) = pair();
    let with = With { pidfd: true, ..with(&nursery) };
    let born = nursery.spawn(theirs.as_fd(), with, |client, unshared| {
        unshared.and_then(|()| fd::place(&[client, client], &[])).expect("places");
        exec(&argv, &mut environ);
        1
    });
    drop(theirs);
    std::io::Write::write_all(&mut &ours, b"hello\n").expect("a program that reads");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut &ours, &mut said).expect("a program that answers");
    assert_eq!(said, "hello too\n");
    let born = born.expect("a child");
    assert!(born.pidfd.is_some());
    assert_eq!(status_of(born.pid), Some(0));
}

fn a_child_that_crashes_or_aborts_harms_nobody() {
    let mut nursery = Nursery::new().expect("a nursery");
    let null = fd::null().expect("a descriptor");
    let mut signal = |task: fn() -> u8| {
        signal_of(nursery.spawn(null.as_fd(), with(&nursery), |_, _| task()).expect("a child").pid)
    };
    assert_eq!(signal(|| std::process::abort()), Some(6));
    // Its stack is its own, and ends in a page that nobody can touch.
    assert_eq!(signal(|| fall(1)), Some(11));
    assert_eq!(
        signal(|| rustix::process::kill_process(rustix::process::getpid(), signal::Signal::KILL)
            .map_or(1, |()| 0)),
        Some(9)
    );
}

#[allow(unconditional_recursion)]
fn fall(depth: u8) -> u8 {
    let room = std::hint::black_box([depth; 4096]);
    fall(room[usize::from(depth)]).wrapping_add(room[1])
}

fn a_handler_of_ours_is_not_the_childs() {
    // The Rust runtime's own, for a stack that overflows.
    assert!(signal::changed().expect("an answer").contains(&11));
    let mut nursery = Nursery::new().expect("a nursery");
    let null = fd::null().expect("a descriptor");
    let born = nursery.spawn(null.as_fd(), with(&nursery), |_, _| {
        signal::changed().map_or(255, |changed| changed.iter().filter(|signal| **signal == 11).count() as u8)
    });
    assert_eq!(status_of(born.expect("a child").pid), Some(0));
}

fn a_client_sees_the_end_when_its_child_ends() {
    let mut nursery = Nursery::new().expect("a nursery");
    let (ours, theirs) = pair();
    let born = nursery.spawn(theirs.as_fd(), with(&nursery), |client, _| {
        let client = client.try_clone_to_owned().expect("another");
        say(&client.into());
        0
    });
    drop(theirs);
    hear(&ours);
    assert_eq!(status_of(born.expect("a child").pid), Some(0));
    assert_eq!(std::io::Read::read(&mut &ours, &mut [0]).expect("an end"), 0);
}
