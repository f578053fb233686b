//! What is made apart is the master's: no child has it, and none misses it.

use std::hint::black_box;

use rustix::process::Signal as Raw;
use tine_os::apart::{inside, outside, shared};
use tine_os::{Forked, fork, wait};

use crate::support::{Test, child, signal_of, tests};

pub const TESTS: &[Test] = tests![
    a_child_has_no_copy_of_what_was_made_inside,
    a_child_has_a_copy_of_what_was_made_outside,
    a_child_asks_for_memory_and_gives_back_as_ever,
    nothing_of_a_childs_own_comes_to_lie_where_the_masters_was,
    a_child_may_be_given_all_and_keep_its_own_apart_again,
    what_was_given_back_is_used_again_and_nothing_overlaps,
    what_grows_keeps_what_is_in_it_wherever_it_is_made,
    a_thread_may_give_back_what_another_has_made,
    what_is_asked_for_as_zero_is_zero_and_is_not_written_to_for_that,
];

fn status(child: tine_os::Pid) -> Option<i32> {
    wait::wait_blocking(child).expect("a child").code()
}

fn a_child_has_no_copy_of_what_was_made_inside() {
    let apart = inside(|| Box::new(7));
    let reads = child(&[], || *black_box(&*apart));
    assert_eq!(signal_of(reads), Some(Raw::SEGV.as_raw()));
    assert_eq!(*apart, 7);
}

fn a_child_has_a_copy_of_what_was_made_outside() {
    let copied = inside(|| outside(|| Box::new(7)));
    assert_eq!(status(child(&[], || *black_box(&*copied))), Some(7));
    let neither = Box::new(8);
    assert_eq!(status(child(&[], || *black_box(&*neither))), Some(8));
}

fn a_child_asks_for_memory_and_gives_back_as_ever() {
    let (apart, mut grows) = inside(|| (Box::new([1; 300]), vec![1u8; 64]));
    let ends = child(&[], || {
        drop(apart);
        // It may be a master itself.
        let own = inside(|| vec![3u8; 100_000]);
        let below = child(&[], || own[99_999]);
        status(below).map_or(0, |status| status as u8 + own[0])
    });
    assert_eq!(status(ends), Some(6));
    inside(|| grows.resize(100_000, 1));
    assert!(grows.iter().all(|byte| *byte == 1));
}

/// It would be taken for the master's, and neither grow nor be given back.
fn nothing_of_a_childs_own_comes_to_lie_where_the_masters_was() {
    let apart = inside(|| Box::new(7));
    // Among the first that were made there.
    let base = std::ptr::from_ref(&*apart).addr() & !0xffff;
    let grows = child(&[], || {
        // From some size on each has a mapping of its own, wherever there is room.
        let all: Vec<Vec<u8>> = (1..100).map(|nth| vec![nth; 200_000 * usize::from(nth)]).collect();
        assert!(all.iter().all(|some| some.as_ptr().addr().wrapping_sub(base) >= 1 << 30));
        let mut grows = Vec::new();
        (0..3_000_000u32).for_each(|nth| grows.push(nth));
        u8::from(grows.iter().copied().eq(0..3_000_000))
    });
    assert_eq!(status(grows), Some(1));
}

fn a_child_may_be_given_all_and_keep_its_own_apart_again() {
    inside(|| {
        let apart = Box::new(7);
        let all = match shared(fork).expect("advice").expect("a fork") {
            Forked::Parent(child) => child,
            Forked::Child => {
                let own = Box::new(*apart + 1);
                let without = child(&[], || *black_box(&*own));
                fork::exit(u8::from(signal_of(without) == Some(Raw::SEGV.as_raw())) + *own);
            }
        };
        assert_eq!(status(all), Some(9));
        let without = child(&[], || *black_box(&*apart));
        assert_eq!(signal_of(without), Some(Raw::SEGV.as_raw()), "the next has none again");
    });
}

fn what_was_given_back_is_used_again_and_nothing_overlaps() {
    let mut number = 1u32;
    let mut random = || {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (number >> 8) as usize
    };
    let mut all: Vec<Vec<u8>> = Vec::new();
    inside(|| {
        for round in 0..20_000 {
            match random() % 4 {
                0 if !all.is_empty() => {
                    let gone = all.swap_remove(random() % all.len());
                    assert!(gone.iter().all(|byte| *byte == gone[0]));
                }
                1 if !all.is_empty() => {
                    let (at, more) = (random() % all.len(), random() % 3_000);
                    let (byte, length) = (all[at][0], all[at].len());
                    all[at].resize(length + more, byte);
                }
                _ => all.push(vec![round as u8; 1 + random() % if round % 100 == 0 { 200_000 } else { 700 }]),
            }
            while all.len() > 500 {
                all.swap_remove(random() % all.len());
            }
        }
        assert!(all.iter().all(|some| some.iter().all(|byte| *byte == some[0])));
        // As often as the mapping has room for.
        (0..3_000).for_each(|_| drop(black_box(vec![1u8; 1 << 20])));
    });
}

fn what_grows_keeps_what_is_in_it_wherever_it_is_made() {
    let mut apart = inside(|| vec![1u8; 10]);
    apart.extend([2; 1_000]);
    let mut other = vec![1u8; 10];
    inside(|| other.extend([2; 1_000]));
    for all in [apart, other] {
        assert!(all[..10].iter().all(|byte| *byte == 1) && all[10..].iter().all(|byte| *byte == 2));
    }
}

fn a_thread_may_give_back_what_another_has_made() {
    let apart = inside(|| vec![1u8; 1_000]);
    let made = std::thread::spawn(move || {
        assert_eq!(apart.len(), 1_000);
        drop(apart);
        inside(|| vec![2u8; 1_000])
    });
    let made = made.join().expect("no panic");
    assert_eq!(made, vec![2; 1_000]);
    assert_eq!(inside(|| vec![3u8; 1_000])[999], 3);
}

fn what_is_asked_for_as_zero_is_zero_and_is_not_written_to_for_that() {
    const MANY: usize = 256 << 20;
    let mut again = inside(|| vec![1u8; 5_000]);
    again.clear();
    drop(again);
    assert!(inside(|| vec![0u8; 5_000]).iter().all(|byte| *byte == 0));
    let before = wait::used().memory_peak_kib;
    assert_eq!(black_box(vec![0u8; MANY])[MANY / 2], 0);
    let grown = wait::used().memory_peak_kib - before;
    assert!(grown < (MANY >> 12) as u64, "{grown} KiB for nothing");
}
