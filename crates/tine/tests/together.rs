//! One admission for several processes that are real ones: a main of its own, as libtest's threads forbid to fork.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tine::admit::{Gate, Look, Outside, Ticket, Verdict};
use tine::{Addr, Limits, OnFull, Peer, Rules};
use tine_os::bell::Bell;
use tine_os::signal::{self, Signal};
use tine_os::{Forked, Pid, fd, fork, wait};

/// How long anything that should happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fewer than processes times clients that each would like to have, so that it is always full.
const CHILDREN: usize = 5;

const ACCEPTORS: usize = 3;

fn main() {
    let tests: [(&str, fn()); 2] = [
        (
            "a_limit_holds_exactly_over_processes_and_nobody_sleeps_while_there_is_room",
            a_limit_holds_exactly_over_processes_and_nobody_sleeps_while_there_is_room,
        ),
        (
            "a_process_that_is_killed_at_any_instant_leaves_slots_that_the_master_can_free",
            a_process_that_is_killed_at_any_instant_leaves_slots_that_the_master_can_free,
        ),
    ];
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let list = std::env::args().any(|word| word == "--list");
    let chosen =
        tests.iter().filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(word)));
    let mut passed = 0;
    for (name, test) in chosen {
        if list {
            println!("{name}: test");
            continue;
        }
        test();
        println!("test {name} ... ok");
        passed += 1;
    }
    if !list {
        let others = tests.len() - passed;
        println!(
            "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {others} filtered out"
        );
    }
}

/// What each process has around it.
#[derive(Clone)]
struct Around {
    bells: Rc<Vec<Bell>>,
    /// In the master: who has which seat.
    pids: Rc<RefCell<Vec<Option<Pid>>>>,
}

impl Around {
    fn new() -> Around {
        let bells = (0..=ACCEPTORS).map(|_| Bell::new().expect("a bell")).collect();
        Around { bells: Rc::new(bells), pids: Rc::new(RefCell::new(vec![None; ACCEPTORS + 1])) }
    }
}

impl Outside for Around {
    fn rules(&mut self, _: u64) -> Rules {
        unreachable!("there are no others here")
    }

    fn poke(&mut self, seat: usize) {
        self.bells[seat].ring().expect("a bell");
    }

    fn is_gone(&mut self, seat: usize) -> bool {
        self.pids.borrow()[seat].is_some_and(is_dead)
    }
}

/// Whether a child has died that was not waited for yet: proc_pid_stat(5).
fn is_dead(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it was not waited for");
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

fn gate(around: &Around) -> Gate {
    let mut limits = Limits::default();
    (limits.children, limits.per_source, limits.reserve) = (CHILDREN, Some(CHILDREN), Some(0));
    limits.on_full = OnFull::Wait;
    let mut gate = Gate::alone(limits, 0);
    gate.share(512, Box::new(around.clone())).expect("there is memory");
    gate
}

/// A process that takes clients, so many at most.
struct Acceptor {
    gate: Gate,
    seat: usize,
    around: Around,
    /// As many bytes as there may be clients: whoever has come in finds one.
    tokens: Option<(OwnedFd, OwnedFd)>,
    open: VecDeque<Ticket>,
    chance: u64,
}

impl Acceptor {
    fn works(&mut self, most: u64) {
        let mut came = 0;
        while came < most {
            came += u64::from(self.turn());
        }
        while !self.open.is_empty() {
            self.leaves();
        }
    }

    /// Takes a client, lets one go or waits; tells whether one has come.
    fn turn(&mut self) -> bool {
        self.chance = self.chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        if (self.chance >> 33).is_multiple_of(3) {
            self.leaves();
        }
        let now = Instant::now();
        match self.gate.look(false, now) {
            Look::Now => {
                let ip = Ipv4Addr::from_bits((self.chance >> 32) as u32);
                let peer = Peer { addr: Addr::Inet(SocketAddr::new(ip.into(), 5023)), credentials: None };
                match self.gate.arrives(&peer, now, 0) {
                    Ok((ticket, Verdict::Admit)) => {
                        self.takes_token();
                        self.gate.bears(ticket, Pid::own().id());
                        self.open.push_back(ticket);
                        assert!(self.gate.open() <= CHILDREN);
                        return true;
                    }
                    Ok((_, other)) => panic!("nobody is kept out, and one is: {other:?}"),
                    // Another was quicker.
                    Err(look) => assert_ne!(look, Look::Now),
                }
            }
            _ if self.open.is_empty() => self.sleeps(),
            _ => self.leaves(),
        }
        false
    }

    fn takes_token(&self) {
        if let Some((takes, _)) = &self.tokens {
            let token = fd::read(takes, &mut [0]);
            assert_eq!(token.expect("more have come in than may, for there is no token left"), 1);
        }
    }

    fn leaves(&mut self) {
        let Some(ticket) = self.open.pop_front() else { return };
        if let Some((_, gives)) = &self.tokens {
            assert_eq!(fd::write(gives, b".").expect("room for it"), 1);
        }
        assert!(self.gate.leaves(ticket, Instant::now()).is_some());
    }

    fn sleeps(&mut self) {
        let mut ready = Vec::new();
        let bell = &self.around.bells[self.seat];
        fd::wait_readable(&[bell.as_fd()], Some(PATIENCE), &mut ready).expect("a poll");
        assert!(ready[0], "{} is not told that there is room", self.seat);
        bell.silence().expect("a bell");
        self.gate.heard();
    }
}

/// A process in this seat that does something with its own part of the admission.
fn acceptor(gate: Gate, seat: usize, around: &Around, what: impl FnOnce(&mut Acceptor)) -> (Pid, Gate) {
    gate.invite(seat);
    match fork().expect("a fork") {
        Forked::Parent(pid) => {
            around.pids.borrow_mut()[seat] = Some(pid);
            (pid, gate)
        }
        Forked::Child => {
            let done = catch_unwind(AssertUnwindSafe(|| {
                around.pids.borrow_mut().fill(None);
                let gate = gate.join(seat, Box::new(around.clone())).expect("there is memory");
                let chance = u64::from(Pid::own().id());
                what(&mut Acceptor {
                    gate,
                    seat,
                    around: around.clone(),
                    tokens: None,
                    open: VecDeque::new(),
                    chance,
                });
            }));
            fork::exit(u8::from(done.is_err()))
        }
    }
}

fn a_limit_holds_exactly_over_processes_and_nobody_sleeps_while_there_is_room() {
    const CLIENTS: u64 = 10_000;
    let around = Around::new();
    let mut gate = gate(&around);
    let tokens = || fd::pipe().expect("a pipe");
    let (takes, gives) = tokens();
    for end in [&takes, &gives] {
        fd::set_blocking(end, false).expect("a pipe");
    }
    assert_eq!(fd::write(&gives, &[b'.'; CHILDREN]).expect("room for them"), CHILDREN);
    let share = || (takes.try_clone().expect("descriptors"), gives.try_clone().expect("descriptors"));
    let mut all = Vec::new();
    for seat in 1..=ACCEPTORS {
        let (pid, same) = acceptor(gate, seat, &around, |acceptor| {
            acceptor.tokens = Some(share());
            acceptor.works(CLIENTS);
        });
        gate = same;
        all.push((seat, pid));
    }
    // The master reads, and says of each that it has ended as soon as it has: until then others may have to wait for it.
    let until = Instant::now() + 3 * PATIENCE;
    while !all.is_empty() {
        gate.catch_up();
        std::thread::yield_now();
        assert!(Instant::now() < until, "{} have not ended", all.len());
        for (seat, pid) in all.extract_if(.., |(_, pid)| is_dead(*pid)) {
            assert!(wait::wait_blocking(pid).expect("a child").success());
            assert_eq!(gate.died(seat), Default::default(), "it has let all go");
            around.pids.borrow_mut()[seat] = None;
        }
    }
    assert_eq!((gate.open(), gate.waiting(), gate.refused().sum()), (0, 0, 0));
    assert_eq!(fd::read(&takes, &mut [0; 2 * CHILDREN]).expect("they are back"), CHILDREN);
}

fn a_process_that_is_killed_at_any_instant_leaves_slots_that_the_master_can_free() {
    const ROUNDS: u64 = 100;
    let around = Around::new();
    let mut gate = gate(&around);
    for seat in 1..=ACCEPTORS {
        gate = acceptor(gate, seat, &around, |acceptor| acceptor.works(u64::MAX)).1;
    }
    let mut freed = 0;
    for round in 0..ROUNDS + ACCEPTORS as u64 {
        let seat = 1 + round as usize % ACCEPTORS;
        let victim = around.pids.borrow()[seat].expect("it lives");
        // Others go on all the time, and this is no time that they would know of.
        let goes_on = gate.records() + 50 + round % 13;
        let patience = Instant::now() + PATIENCE;
        while round < ROUNDS && gate.records() < goes_on {
            gate.catch_up();
            assert!(Instant::now() < patience, "nobody goes on");
        }
        signal::send(victim, Signal::KILL).expect("it lives");
        while !is_dead(victim) {
            gate.catch_up();
        }
        let remains = gate.died(seat);
        assert!(!wait::wait_blocking(victim).expect("a child").success());
        around.pids.borrow_mut()[seat] = None;
        for (ticket, pid) in remains.slots {
            assert!(pid.is_none_or(|pid| pid == victim.id()));
            assert!(gate.leaves(ticket, Instant::now()).is_some());
            freed += 1;
        }
        // In the end there is nobody left.
        if round < ROUNDS {
            gate = acceptor(gate, seat, &around, |acceptor| acceptor.works(u64::MAX)).1;
        }
    }
    assert!(freed > 0, "whoever was killed had nobody");
    assert_eq!((gate.open(), gate.waiting()), (0, 0));
}
