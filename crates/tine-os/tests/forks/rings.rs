//! A log in shared memory has one order, whoever writes to it and whoever dies while it does.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tine_os::ring::{Entry, Full, Ring, WORDS};
use tine_os::signal::{self, Signal};
use tine_os::{Forked, Pid, bell::Bell, fd, fork, wait};

use crate::support::{
    PATIENCE, Test, child, ends, hear, is_silent, keep_only, pair, say, signal_of, stay, tests, until,
};

pub const TESTS: &[Test] = tests![
    a_hundred_thousand_entries_of_four_processes_are_read_in_one_order_by_all,
    a_writer_that_is_killed_at_any_instant_leaves_whole_entries_and_a_lock_that_can_be_freed,
    a_lock_whose_holder_is_stopped_is_waited_for,
    a_child_that_is_no_participant_has_no_log,
    a_participants_children_have_no_log_either,
    a_bell_wakes_another_process,
    whoever_asks_to_be_told_and_then_sleeps_is_woken_for_whatever_comes,
];

const EACH: u64 = 25_000;

/// How long a lock is waited for in one go.
const SHORT: Duration = Duration::from_millis(20);

/// The entry of this number of a seat: whoever reads half of it and half of another sees that.
fn entry(seat: usize, number: u64) -> Entry {
    std::array::from_fn(|at| (seat as u64) << 56 | number << 8 | at as u64)
}

/// What has been read: how many of each seat, and a number that is another one for another order.
#[derive(Default)]
struct Order {
    counts: [u64; 8],
    print: u64,
}

impl Order {
    fn note(&mut self, read: &Entry) {
        let seat = (read[0] >> 56) as usize;
        let number = read[0] << 8 >> 16;
        assert_eq!(*read, entry(seat, number), "an entry is whole");
        assert_eq!(number, self.counts[seat], "each follows the one before it");
        self.counts[seat] += 1;
        self.print = (self.print ^ read[0]).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }

    fn sum(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Appends one, after all that is there has been read.
fn append(ring: &mut Ring, order: &mut Order) -> bool {
    let seat = ring.own_seat();
    let Ok(mut locked) = ring.lock(SHORT) else { return false };
    while let Some(read) = locked.read() {
        order.note(&read);
    }
    let next = entry(seat, order.counts[seat]);
    match locked.append(&next) {
        Ok(()) => {
            drop(locked);
            order.note(&next);
            true
        }
        Err(Full(slowest)) => {
            assert_ne!(slowest, seat);
            drop(locked);
            std::thread::yield_now();
            false
        }
    }
}

fn read(ring: &mut Ring, order: &mut Order) {
    while let Some(read) = ring.read() {
        order.note(&read);
    }
}

/// A child in a seat that has been taken for it, which does this with its own log.
fn participant(ring: &Ring, seat: usize, keep: &[&dyn AsRawFd], what: impl FnOnce(Ring) -> u8) -> Pid {
    match fork().expect("a fork") {
        Forked::Child => {
            let status = catch_unwind(AssertUnwindSafe(|| {
                let own = ring.attach(seat).expect("a log of its own");
                keep_only(keep);
                what(own)
            }));
            fork::exit(status.unwrap_or(101))
        }
        Forked::Parent(pid) => pid,
    }
}

/// Appends so many, if it is not killed before, and reads until there are so many in all; gives what it has seen.
fn write_and_read(mut ring: Ring, own: u64, all: u64) -> Order {
    let mut order = Order::default();
    let mut written = 0;
    while written < own {
        written += u64::from(append(&mut ring, &mut order));
    }
    while order.sum() < all {
        read(&mut ring, &mut order);
        std::thread::yield_now();
    }
    order
}

fn a_hundred_thousand_entries_of_four_processes_are_read_in_one_order_by_all() {
    let all = 4 * EACH;
    let ring = Ring::new(256, 0).expect("a log");
    (1..5).for_each(|seat| ring.seat(seat));
    let others: Vec<_> = (1..5)
        .map(|seat| {
            let (ours, theirs) = pair();
            let pid = participant(&ring, seat, &[&theirs], |own| {
                let order = write_and_read(own, EACH, all);
                (&theirs).write_all(&order.print.to_ne_bytes()).expect("somebody who listens");
                0
            });
            (pid, ours)
        })
        .collect();
    let order = write_and_read(ring, 0, all);
    assert_eq!(order.counts, [0, EACH, EACH, EACH, EACH, 0, 0, 0]);
    for (pid, mut ours) in others {
        let mut print = [0; 8];
        ours.read_exact(&mut print).expect("what it has seen");
        assert_eq!(u64::from_ne_bytes(print), order.print);
        assert!(wait::wait_blocking(pid).expect("a child").success());
    }
}

fn a_writer_that_is_killed_at_any_instant_leaves_whole_entries_and_a_lock_that_can_be_freed() {
    const ROUNDS: u64 = 300;
    let mut ring = Ring::new(64, 0).expect("a log");
    let mut order = Order::default();
    // One goes on all the time, and has to see the same in the end.
    let (mut ours, theirs) = pair();
    ring.seat(1);
    let constant = participant(&ring, 1, &[&theirs], |mut own| {
        let mut order = Order::default();
        while is_silent(&theirs) {
            append(&mut own, &mut order);
        }
        // Nobody else writes by then.
        read(&mut own, &mut order);
        (&theirs).write_all(&order.print.to_ne_bytes()).expect("somebody who listens");
        0
    });
    drop(theirs);
    let mut freed = 0;
    for round in 0..ROUNDS {
        ring.seat(2);
        let before = order.counts[2];
        let counts = order.counts;
        let victim = participant(&ring, 2, &[], |mut own| {
            let mut order = Order { counts, print: 0 };
            loop {
                append(&mut own, &mut order);
            }
        });
        // It is killed when it has written some more, at an instant that is another one each time.
        let patience = Instant::now() + PATIENCE;
        while order.counts[2] < before + 1 + round % 7 {
            read(&mut ring, &mut order);
            assert!(Instant::now() < patience, "the victim does not write");
        }
        (0..round * 37 % 1_000).for_each(|_| std::hint::spin_loop());
        signal::send(victim, Signal::KILL).expect("it lives");
        // A full log and a lock that is held by the dead: who waits goes on as soon as both are said to be gone.
        while !ends(victim, Duration::ZERO) {
            read(&mut ring, &mut order);
        }
        assert_eq!(signal_of(victim), Some(9));
        freed += u32::from(ring.release_of(2));
        ring.unseat(2);
        let mine = order.counts[0];
        while order.counts[0] == mine {
            append(&mut ring, &mut order);
            assert!(Instant::now() < patience, "nobody goes on");
        }
    }
    assert!(freed > 0, "of {ROUNDS} that were killed nobody had the lock");
    say(&ours);
    let mut print = [0; 8];
    ours.read_exact(&mut print).expect("what it has seen");
    read(&mut ring, &mut order);
    assert_eq!(u64::from_ne_bytes(print), order.print);
    assert!(wait::wait_blocking(constant).expect("a child").success());
}

fn a_lock_whose_holder_is_stopped_is_waited_for() {
    let mut ring = Ring::new(8, 0).expect("a log");
    let (ours, theirs) = pair();
    ring.seat(1);
    let holder = participant(&ring, 1, &[&theirs], |mut own| {
        let mut locked = own.lock(SHORT).expect("nobody else has it");
        say(&theirs);
        stay(&theirs);
        u8::from(locked.append(&[7; WORDS]).is_err())
    });
    drop(theirs);
    hear(&ours);
    signal::send(holder, Signal::STOP).expect("it lives");
    until("stopped", || state(holder) == 'T');
    assert_eq!(ring.lock(SHORT).err(), Some(1));
    signal::send(holder, Signal::CONT).expect("it lives");
    drop(ours);
    let patience = Instant::now() + PATIENCE;
    while ring.lock(SHORT).is_err() {
        assert!(Instant::now() < patience, "it is never free");
    }
    assert_eq!(ring.read(), Some([7; WORDS]), "and what was to be done under it has been done");
    assert!(wait::wait_blocking(holder).expect("a child").success());
}

fn a_child_that_is_no_participant_has_no_log() {
    let mapped = || fs::read_to_string("/proc/self/maps").expect("maps").matches("tine-ring").count();
    let ring = Ring::new(8, 0).expect("a log");
    assert_eq!(mapped(), 1);
    // Its descriptors are those of its parent, so that the log can be dropped.
    let stranger = match fork().expect("a fork") {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            let unmapped = mapped() == 0 && catch_unwind(AssertUnwindSafe(|| ring.is_read())).is_err();
            drop(ring);
            fork::exit(u8::from(!unmapped))
        }
    };
    assert!(wait::wait_blocking(stranger).expect("a child").success());
    assert!(ring.is_read());
}

fn a_participants_children_have_no_log_either() {
    let mapped = || fs::read_to_string("/proc/self/maps").expect("maps").matches("tine-ring").count();
    let ring = Ring::new(8, 0).expect("a log");
    ring.seat(1);
    let participant = participant(&ring, 1, &[], |own| {
        assert_eq!(mapped(), 1);
        let stranger = child(&[], || {
            assert_eq!(mapped(), 0);
            u8::from(catch_unwind(AssertUnwindSafe(|| own.is_read())).is_ok())
        });
        u8::from(!wait::wait_blocking(stranger).expect("a child").success())
    });
    assert!(wait::wait_blocking(participant).expect("a child").success());
}

fn a_bell_wakes_another_process() {
    let bell = Bell::new().expect("a bell");
    let other = child(&[&bell.as_fd()], || {
        let mut ready = Vec::new();
        fd::wait_readable(&[bell.as_fd()], Some(PATIENCE), &mut ready).expect("a poll");
        u8::from(!(ready[0] && bell.silence().expect("a bell")))
    });
    bell.ring().expect("a bell");
    assert!(wait::wait_blocking(other).expect("a child").success());
}

/// The state of a process: proc_pid_stat(5).
fn state(pid: Pid) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).expect("a state")
}

fn whoever_asks_to_be_told_and_then_sleeps_is_woken_for_whatever_comes() {
    const ALL: u64 = 30_000;
    let mut ring = Ring::new(1024, 0).expect("a log");
    let bell = Bell::new().expect("a bell");
    ring.seat(1);
    let sleeper = participant(&ring, 1, &[&bell.as_fd()], |mut own| {
        let mut order = Order::default();
        let mut slept = 0;
        while order.sum() < ALL {
            read(&mut own, &mut order);
            own.wish();
            if !own.is_read() || order.sum() == ALL {
                continue;
            }
            let mut ready = Vec::new();
            fd::wait_readable(&[bell.as_fd()], Some(PATIENCE), &mut ready).expect("a poll");
            assert!(ready[0], "nobody has woken it after {} of {ALL}", order.sum());
            // In this order: see `answer`.
            bell.silence().expect("a bell");
            own.answer();
            slept += 1;
        }
        u8::from(slept == 0)
    });
    let mut order = Order::default();
    let mut chance = 1_u64;
    while order.counts[0] < ALL {
        if append(&mut ring, &mut order) {
            for seat in ring.take_wishes().collect::<Vec<_>>() {
                if ring.call(seat) {
                    bell.ring().expect("a bell");
                }
            }
        }
        // Now and then long enough for the other to fall asleep, and now and then just not.
        chance = chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (0..(chance >> 33) % 2_000).for_each(|_| std::hint::spin_loop());
    }
    assert!(wait::wait_blocking(sleeper).expect("a child").success());
}
