//! Traces of an admission that several processes share, held against one that one process has alone.
//!
//! A life is a server with a master and some acceptors, which do things in turns that chance chooses: they look for a client
//! and take one later, when others have taken some too; they sleep, and are woken; they are killed at any step, with what they
//! were about to say unsaid, and replaced. All that any of them is told has to be what one [`Admit`] says that is asked the
//! same in the same order. And nobody may sleep while there is something for it to do.
//!
//! `TINE_SEED`, `TINE_FROM` and `TINE_EVENTS` are as in `traces.rs`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::ledger::Client;
use super::shared::owner;
use super::traces::{Dice, Kind, rules, some_limits, some_peer, some_rules};
use super::*;

/// Steps of all traces together, of which a third are written to a log and most others ask, unless `TINE_EVENTS` says otherwise.
const EVENTS: u64 = 2_000_000;

/// Steps in a life.
const LENGTH: u64 = 5_000;

/// How many records a log has room for here: so few that it goes round many times.
const RECORDS: usize = 256;

/// What all processes have around them.
struct World {
    start: Instant,
    /// Nanoseconds since then.
    now: Cell<u64>,
    rung: RefCell<Vec<bool>>,
    dead: RefCell<Vec<bool>>,
    rules: RefCell<Vec<Rules>>,
}

/// One process's outside.
struct Around {
    world: Rc<World>,
    /// It is about to die: what it would say is not said any more.
    mute: Rc<Cell<bool>>,
}

impl Outside for Around {
    fn now(&mut self) -> Instant {
        self.world.instant()
    }

    fn rules(&mut self, number: u64) -> Rules {
        self.world.rules.borrow()[number as usize].clone()
    }

    fn poke(&mut self, seat: usize) {
        if !self.mute.get() {
            self.world.rung.borrow_mut()[seat] = true;
        }
    }

    fn is_gone(&mut self, seat: usize) -> bool {
        let gone = self.world.dead.borrow()[seat];
        assert!(gone, "{seat} lives and is waited for, in one thread");
        gone
    }
}

impl World {
    fn new(seats: usize, rules: Rules) -> Rc<World> {
        Rc::new(World {
            start: Instant::now(),
            now: Cell::new(1_000_000_000),
            rung: RefCell::new(vec![false; seats]),
            dead: RefCell::new(vec![false; seats]),
            rules: RefCell::new(vec![rules]),
        })
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_nanos(self.now.get())
    }

    fn around(self: &Rc<World>, mute: &Rc<Cell<bool>>) -> Box<Around> {
        Box::new(Around { world: Rc::clone(self), mute: Rc::clone(mute) })
    }
}

/// A master or an acceptor.
struct Process {
    gate: Gate,
    mute: Rc<Cell<bool>>,
    slots: BTreeSet<Ticket>,
    nameless: Vec<(Ticket, Version)>,
    room: BTreeSet<Ticket>,
    /// It has looked and was told to take a client, with or without a name.
    looked: Option<bool>,
    /// A client that it has taken and that came too late: it goes first.
    kept: Option<(bool, Peer)>,
    sleep: Option<Sleep>,
}

/// What a process waits for.
#[derive(Clone, Copy, Debug)]
struct Sleep {
    until: Option<Instant>,
    /// Whether it is woken when there is room.
    full: [bool; 2],
}

/// What was seen, so that a trace in which something never happens is no trace.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    admitted: u64,
    waited: u64,
    refused: u64,
    late: u64,
    elsewhere: u64,
    shed: u64,
    slept: u64,
    died: u64,
    named: u64,
    /// What was written to the log.
    records: u64,
}

struct Life {
    seed: u64,
    kind: Kind,
    dice: Dice,
    world: Rc<World>,
    /// The one that is asked the same.
    alone: Admit,
    processes: Vec<Option<Process>>,
    /// Slots whose process has died, with the children that are still there.
    adopted: BTreeMap<Ticket, Option<u32>>,
    pids: BTreeMap<Ticket, u32>,
    peers: Vec<Peer>,
    seen: Seen,
    events: u64,
}

#[test]
fn processes_together_let_wait_whom_one_alone_would() {
    trace(Kind::Wait, 11);
}

#[test]
fn processes_together_have_one_queue_with_the_order_of_one_alone() {
    trace(Kind::Queue, 12);
}

#[test]
fn processes_together_refuse_whom_one_alone_would() {
    trace(Kind::Refuse, 13);
}

#[test]
fn processes_together_are_as_full_as_one_alone() {
    trace(Kind::Early, 14);
}

/// A quarter of all events, in lives of one kind.
fn trace(kind: Kind, seed: u64) {
    let number = |name: &str| {
        let text = env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|why| panic!("{name}={text}: {why}")))
    };
    if let Some(seed) = number("TINE_SEED") {
        println!("life   kind={kind:?} seed={seed} {:?}", Life::new(seed, kind).live(LENGTH));
        return;
    }
    let lives = (number("TINE_EVENTS").unwrap_or(EVENTS) / 4).div_ceil(LENGTH);
    let mut dice = Dice(number("TINE_FROM").unwrap_or(0).wrapping_mul(64).wrapping_add(seed));
    let mut all = Seen::default();
    for _ in 0..lives {
        let seen = Life::new(dice.roll(), kind).live(LENGTH);
        all.admitted += seen.admitted;
        all.waited += seen.waited;
        all.refused += seen.refused;
        all.late += seen.late;
        all.elsewhere += seen.elsewhere;
        all.shed += seen.shed;
        all.slept += seen.slept;
        all.died += seen.died;
        all.named += seen.named;
        all.records += seen.records;
    }
    println!("trace  kind={kind:?} seed={seed} events={} lives={lives} {all:?}", lives * LENGTH);
    if lives >= 20 {
        let waits = matches!(kind, Kind::Wait | Kind::Queue);
        assert!(
            all.admitted > 0 && all.refused > 0 && all.late > 0 && all.slept > 0 && all.died > 0,
            "{all:?}"
        );
        assert!(all.named > 0, "{all:?}");
        assert!([all.waited, all.elsewhere, all.shed].iter().all(|times| (*times > 0) == waits), "{all:?}");
    }
}

impl Process {
    fn new(gate: Gate, mute: Rc<Cell<bool>>) -> Process {
        Process {
            gate,
            mute,
            slots: BTreeSet::new(),
            nameless: Vec::new(),
            room: BTreeSet::new(),
            looked: None,
            kept: None,
            sleep: None,
        }
    }
}

impl Life {
    fn new(seed: u64, kind: Kind) -> Life {
        let mut dice = Dice(seed);
        let peers: Vec<_> = (0..dice.from(3, 30)).map(|_| some_peer(&mut dice)).collect();
        let mut limits = some_limits(&mut dice, kind);
        if dice.once_in(2) {
            limits.rules = rules(&some_rules(&mut dice, &peers));
        }
        let held_most = dice.one_of(&[0, 1, 3, 6, 20, 100]);
        let seats = dice.from(2, 6);
        let world = World::new(seats, limits.rules.clone());
        let alone = Admit::new(limits.clone(), held_most);
        let mute = Rc::new(Cell::new(false));
        let mut gate = Gate::alone(limits, held_most);
        gate.share(RECORDS, world.around(&mute)).unwrap();
        let mut processes: Vec<Option<Process>> = (0..seats).map(|_| None).collect();
        processes[0] = Some(Process::new(gate, mute));
        Life {
            seed,
            kind,
            dice,
            world,
            alone,
            processes,
            adopted: BTreeMap::new(),
            pids: BTreeMap::new(),
            peers,
            seen: Seen::default(),
            events: 0,
        }
    }

    fn live(mut self, events: u64) -> Seen {
        while self.events < events {
            self.events += 1;
            self.step();
            self.nobody_oversleeps();
            if self.events.is_multiple_of(64) {
                self.all_agree();
            }
        }
        self.everything_ends();
        self.seen.records = self.process(0).gate.records();
        self.seen
    }

    fn step(&mut self) {
        match self.dice.below(64) {
            0..4 => {
                let step = self.dice.one_of(&[0, 1, 1_000_000, 100_000_000, 1_000_000_000, 60_000_000_000]);
                self.world.now.set(self.world.now.get() + step);
            }
            8 => self.replaces(),
            9 if self.dice.once_in(16) => self.kills(),
            10 if self.dice.once_in(8) => self.reloads(),
            11 => self.buries(),
            _ => {
                let seat = self.dice.below(self.processes.len());
                if self.processes[seat].is_some() {
                    self.acts(seat);
                }
            }
        }
    }

    fn process(&mut self, seat: usize) -> &mut Process {
        self.processes[seat].as_mut().expect("it lives")
    }

    fn peer(&mut self) -> Peer {
        self.dice.early_of(&self.peers)
    }

    /// One thing that a process does, or has happen to it.
    fn acts(&mut self, seat: usize) {
        if let Some(sleep) = self.process(seat).sleep {
            let due = sleep.until.is_some_and(|until| until <= self.world.instant());
            if self.world.rung.borrow()[seat] {
                self.wakes(seat);
            } else if !due && self.dice.once_in(4) {
                return;
            }
            self.process(seat).sleep = None;
        }
        match self.dice.below(16) {
            0..7 => self.comes(seat),
            7 => self.calls(seat),
            8..11 => self.leaves(seat),
            11 => self.gives_up(seat),
            12 => self.is_named(seat),
            13 => self.others(seat),
            _ => self.sleeps(seat),
        }
    }

    fn wakes(&mut self, seat: usize) {
        self.world.rung.borrow_mut()[seat] = false;
        self.process(seat).gate.heard();
        self.obeys(seat);
    }

    fn obeys(&mut self, seat: usize) {
        let process = self.process(seat);
        for ticket in process.gate.orders() {
            assert!(process.room.remove(&ticket), "{ticket} does not wait at {seat}");
        }
        assert!(self.processes[seat].iter().all(|process| process.room.len() <= self.alone.waiting()));
    }

    /// A client is taken by a look that may be out of date by then.
    fn comes(&mut self, seat: usize) {
        let now = self.world.instant();
        let (kept, looked) = (self.process(seat).kept.take(), self.process(seat).looked.take());
        let (nameless, peer) = match (kept, looked) {
            (Some(kept), looked) => {
                self.process(seat).looked = looked;
                kept
            }
            (None, Some(nameless)) => (nameless, self.peer()),
            (None, None) => {
                let nameless = self.dice.once_in(5);
                let look = self.process(seat).gate.look(nameless, now);
                assert_eq!(look, self.alone.look(nameless, now));
                if look == Look::Now {
                    self.process(seat).looked = Some(nameless);
                    // Others come between, or nobody.
                    if self.dice.once_in(2) {
                        self.comes(seat);
                    }
                }
                return;
            }
        };
        let chance = self.dice.roll() as u32;
        let look = self.alone.look(nameless, now);
        if nameless {
            if self.dice.once_in(4) {
                let why = self.process(seat).gate.turns_away(chance);
                assert_eq!(why, self.alone.turns_away(chance));
            }
            match self.process(seat).gate.arrives_nameless(now) {
                Ok(ticket) => {
                    assert_eq!(look, Look::Now);
                    self.alone.arrives_nameless(ticket, now);
                    let version = self.process(seat).gate.version();
                    self.process(seat).nameless.push((ticket, version));
                    self.enters(seat, ticket);
                }
                Err(why) => self.comes_late(seat, (nameless, peer), look, why),
            }
            return;
        }
        match self.process(seat).gate.arrives(&peer, now, chance) {
            Ok((ticket, verdict)) => {
                assert_eq!((look, owner(ticket)), (Look::Now, seat));
                // Whoever waits is remembered as it is recorded.
                let peer = Client::of(&peer).peer();
                assert_eq!(verdict, self.alone.arrives(ticket, &peer, now, chance));
                self.told_penalised(seat);
                match verdict {
                    Verdict::Admit => self.enters(seat, ticket),
                    Verdict::Wait => {
                        self.process(seat).room.insert(ticket);
                        self.seen.waited += 1;
                        assert_eq!(self.process(seat).gate.place(ticket), self.alone.place(ticket));
                        self.sheds(seat);
                    }
                    Verdict::Refuse(_) => self.seen.refused += 1,
                }
            }
            Err(why) => self.comes_late(seat, (nameless, peer), look, why),
        }
    }

    fn comes_late(&mut self, seat: usize, client: (bool, Peer), expected: Look, told: Look) {
        assert_eq!(told, expected);
        assert_ne!(told, Look::Now);
        self.process(seat).kept = Some(client);
        self.seen.late += 1;
    }

    fn enters(&mut self, seat: usize, ticket: Ticket) {
        self.seen.admitted += 1;
        self.process(seat).slots.insert(ticket);
        // A process may die before it has told of its child.
        if !self.dice.once_in(8) {
            let pid = self.dice.roll() as u32;
            self.process(seat).gate.bears(ticket, pid);
            self.pids.insert(ticket, pid);
        }
    }

    fn told_penalised(&mut self, seat: usize) {
        assert_eq!(self.process(seat).gate.penalised(), self.alone.penalised());
    }

    fn sheds(&mut self, seat: usize) {
        let now = self.world.instant();
        loop {
            let shed = self.process(seat).gate.next_shed(now);
            assert_eq!(shed, self.alone.next_shed(now));
            let Some(ticket) = shed else { return };
            self.seen.shed += 1;
            if owner(ticket) == seat {
                assert!(self.process(seat).room.remove(&ticket));
            } else {
                let whose = owner(ticket);
                assert!(self.world.rung.borrow()[whose] || self.processes[whose].is_none());
            }
        }
    }

    /// Calls those who wait here and whose turn it is.
    fn calls(&mut self, seat: usize) {
        let now = self.world.instant();
        loop {
            let expected = self.alone.turn(now);
            let said = self.process(seat).gate.next_waiting(now);
            let Some((ticket, verdict)) = said else {
                if let Some((ticket, _)) = expected {
                    let whose = owner(ticket);
                    assert_ne!(whose, seat, "it is the turn of {ticket}");
                    assert!(self.world.rung.borrow()[whose], "{whose} is not told that it has a turn");
                    self.seen.elsewhere += 1;
                }
                return;
            };
            assert_eq!(owner(ticket), seat);
            assert_eq!(self.alone.next_waiting(now), Some((ticket, verdict)));
            assert!(self.process(seat).room.remove(&ticket));
            match verdict {
                Verdict::Refuse(_) => self.seen.refused += 1,
                _ => self.enters(seat, ticket),
            }
        }
    }

    fn leaves(&mut self, seat: usize) {
        let count = self.process(seat).slots.len();
        let at = if count > 0 { self.dice.below(count) } else { return };
        let ticket = self.process(seat).slots.iter().nth(at).copied().unwrap();
        self.process(seat).slots.remove(&ticket);
        self.process(seat).nameless.retain(|(other, _)| *other != ticket);
        self.ends(seat, ticket);
    }

    fn ends(&mut self, seat: usize, ticket: Ticket) {
        let now = self.world.instant();
        self.pids.remove(&ticket);
        let source = self.process(seat).gate.leaves(ticket, now);
        assert_eq!(source, self.alone.leaves(ticket, now));
        assert!(source.is_some());
    }

    fn gives_up(&mut self, seat: usize) {
        self.obeys(seat);
        let now = self.world.instant();
        let Some(ticket) = self.process(seat).room.pop_last() else { return };
        if self.dice.once_in(8) {
            self.process(seat).gate.closes(ticket, now);
            self.alone.closes(ticket, now);
        } else {
            assert!(self.process(seat).gate.gives_up(ticket, now));
            assert!(self.alone.gives_up(ticket, now));
        }
    }

    fn is_named(&mut self, seat: usize) {
        let now = self.world.instant();
        let Some((ticket, version)) = self.process(seat).nameless.pop() else { return };
        let peer = self.peer();
        let rules = version.rules.clone();
        let gate = &mut self.process(seat).gate;
        if ticket % 3 == 0 {
            let verdict = gate.is_own(&peer, &version);
            assert_eq!(verdict, self.alone.judged_by(rules, |alone| alone.is_own(&peer)));
            return;
        }
        let verdict = gate.is_named(ticket, &peer, &version, now);
        assert_eq!(verdict, self.alone.judged_by(rules, |alone| alone.is_named(ticket, &peer, now)));
        self.told_penalised(seat);
        self.seen.named += 1;
    }

    /// What is rare, and what only asks.
    fn others(&mut self, seat: usize) {
        let (now, peer) = (self.world.instant(), self.peer());
        let source = Source::of(&peer, self.alone.limits().mask);
        let which = self.dice.below(6);
        let Life { processes, alone, .. } = self;
        let gate = &mut processes[seat].as_mut().expect("it lives").gate;
        match which {
            0 => assert_eq!(gate.earns(&peer, Fault::Crash, now), alone.earns(&peer, Fault::Crash, now)),
            1 => {
                let time = Duration::from_secs(7);
                assert_eq!(gate.penalise(source, time, now), alone.penalise(source, time, now));
            }
            2 => {
                gate.forgive(source, now);
                alone.forgive(source, now);
            }
            3 => assert_eq!(gate.count(Reason::Untrusted), alone.count(Reason::Untrusted)),
            4 => {
                assert_eq!(gate.count_of(&peer), alone.count_of(&peer));
                assert_eq!(gate.denies(&peer), alone.denies(&peer));
                assert_eq!(gate.penalties(now), alone.penalties(now).collect::<Vec<_>>());
            }
            _ => {
                assert_eq!((gate.open(), gate.waiting()), (alone.open(), alone.waiting()));
                assert_eq!((gate.refused(), gate.remembered()), (alone.refused(), alone.remembered()));
            }
        }
    }

    /// A process does all that there is for it to do, and sleeps.
    fn sleeps(&mut self, seat: usize) {
        self.obeys(seat);
        self.calls(seat);
        let now = self.world.instant();
        let mut full = [false; 2];
        for nameless in [false, true] {
            let look = self.process(seat).gate.look(nameless, now);
            assert_eq!(look, self.alone.look(nameless, now));
            full[usize::from(nameless)] = look == Look::WhenFree;
        }
        let until = self.process(seat).gate.until();
        assert!(until.is_none_or(|until| until > now), "it would not sleep");
        self.process(seat).sleep = Some(Sleep { until, full });
        self.seen.slept += 1;
    }

    /// Whoever sleeps has been woken when there is something for it to do.
    fn nobody_oversleeps(&mut self) {
        let now = self.world.instant();
        for (seat, process) in self.processes.iter().enumerate() {
            let Some((process, sleep)) = process.as_ref().and_then(|process| Some((process, process.sleep?)))
            else {
                continue;
            };
            if self.world.rung.borrow()[seat] || sleep.until.is_some_and(|until| until <= now) {
                continue;
            }
            for nameless in [false, true] {
                let misses = sleep.full[usize::from(nameless)] && self.alone.has_room(nameless);
                assert!(!misses, "{seat} does not know that there is room again");
            }
            let turn = self.alone.turn(now).filter(|(ticket, _)| owner(*ticket) == seat);
            assert_eq!(turn, None, "{seat} does not know that it has a turn");
            let waits = |ticket: &Ticket| self.alone.room.source(*ticket).is_some();
            assert!(process.room.iter().all(waits), "{seat} does not know who has to leave the room");
        }
        // Whoever has read little is woken before others have to wait for it.
        let behind = {
            let master = self.processes[0].as_ref().expect("the master lives");
            master.gate.behind((RECORDS * 3 / 4) as u64)
        };
        for seat in behind {
            assert!(self.world.rung.borrow()[seat] || seat == 0 || self.processes[seat].is_none(), "{seat}");
            if self.processes[seat].is_some() {
                self.wakes(seat);
            }
        }
    }

    /// A process is killed, with what it was about to say unsaid; and the master hears of it.
    fn kills(&mut self) {
        let seat = self.dice.from(1, self.processes.len() - 1);
        if self.processes[seat].is_none() {
            return;
        }
        // Not only between two steps: after what is in the log, before anybody is told.
        self.process(seat).mute.set(true);
        match self.dice.below(4) {
            0 => self.leaves(seat),
            1 => self.gives_up(seat),
            _ => {}
        }
        let process = self.processes[seat].take().expect("it lives");
        if self.dice.once_in(100) {
            process.gate.dies_with_the_lock();
        }
        self.seen.died += 1;
        self.world.dead.borrow_mut()[seat] = true;
        let remains = self.process(0).gate.died(seat);
        self.world.dead.borrow_mut()[seat] = false;
        let now = self.world.instant();
        let waiting = process.room.iter().filter(|ticket| self.alone.room.source(**ticket).is_some()).count();
        assert_eq!(remains.waiting, waiting);
        for ticket in process.room {
            self.alone.gives_up(ticket, now);
        }
        for ticket in process.slots {
            self.adopted.insert(ticket, self.pids.get(&ticket).copied());
        }
        let expected = self.adopted.iter().filter(|(ticket, _)| owner(**ticket) == seat);
        assert!(remains.slots.into_iter().eq(expected.map(|(ticket, pid)| (*ticket, *pid))));
        // The master does all this awake, and looks again.
        self.process(0).sleep = None;
    }

    /// A child has ended that came by a process that has died.
    fn buries(&mut self) {
        if let Some((ticket, _)) = self.adopted.pop_first() {
            self.process(0).sleep = None;
            self.ends(0, ticket);
        }
    }

    /// A process is forked where there is none.
    fn replaces(&mut self) {
        let seat = self.dice.from(1, self.processes.len() - 1);
        if self.processes[seat].is_some() {
            return;
        }
        let mute = Rc::new(Cell::new(false));
        let around = self.world.around(&mute);
        let master = self.process(0);
        master.gate.invite(seat);
        let gate = master.gate.copy(seat, around).unwrap();
        self.world.rung.borrow_mut()[seat] = false;
        self.processes[seat] = Some(Process::new(gate, mute));
    }

    fn reloads(&mut self) {
        let rules = rules(&some_rules(&mut self.dice, &self.peers));
        let number = self.world.rules.borrow().len() as u64;
        self.world.rules.borrow_mut().push(rules.clone());
        self.process(0).gate.set_rules(Version { number, rules: rules.clone() });
        self.alone.set_rules(rules);
        let told = |seat: usize| self.world.rung.borrow()[seat];
        assert!((1..self.processes.len()).all(|seat| self.processes[seat].is_none() || told(seat)));
    }

    /// All have the same, which is what one alone has, and no limit is passed.
    fn all_agree(&mut self) {
        let Life { processes, alone, adopted, .. } = self;
        let (mut slots, mut waiting) = (adopted.len(), 0);
        for process in processes.iter_mut().flatten() {
            process.gate.catch_up();
            assert!(process.gate.has_state_of(alone));
            slots += process.slots.len();
            waiting += process.room.iter().filter(|ticket| alone.room.source(**ticket).is_some()).count();
        }
        let (first, others) = processes.split_first().expect("there is a master");
        let first = first.as_ref().expect("the master lives");
        assert!(others.iter().flatten().all(|other| other.gate.is_same(&first.gate)));
        assert_eq!((slots, waiting), (alone.open(), alone.waiting()));
        assert!(alone.open() <= alone.limits().children);
    }

    fn everything_ends(&mut self) {
        while !self.adopted.is_empty() {
            self.buries();
        }
        for _ in 0..10_000 {
            if self.alone.open() + self.alone.waiting() == 0 {
                break;
            }
            for seat in 0..self.processes.len() {
                if self.processes[seat].is_some() {
                    self.wakes(seat);
                    self.calls(seat);
                    self.leaves(seat);
                }
            }
            self.world.now.set(self.world.now.get() + 1_000_000_000);
        }
        assert_eq!((self.alone.open(), self.alone.waiting()), (0, 0), "nobody waits for ever");
        self.all_agree();
    }
}

/// Says how to have a life again that went wrong.
impl Drop for Life {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Life { seed, kind, events, .. } = self;
            eprintln!("after {events} events; again with TINE_SEED={seed} ({kind:?})");
        }
    }
}

#[test]
fn whoever_does_not_read_is_waited_for_until_it_is_gone() {
    let world = World::new(3, Rules::default());
    let mute = Rc::new(Cell::new(false));
    let mut gate = Gate::alone(Limits::default(), 0);
    gate.share(8, world.around(&mute)).unwrap();
    gate.invite(1);
    gate.invite(2);
    let mut second = gate.copy(2, world.around(&mute)).unwrap();
    for _ in 0..8 {
        gate.count(Reason::Proxy);
        second.catch_up();
    }
    // It is full because of 1, which has been called, and is said to be gone.
    assert!(world.rung.borrow()[1]);
    world.dead.borrow_mut()[1] = true;
    gate.count(Reason::Proxy);
    second.catch_up();
    assert_eq!(gate.died(1), Remains::default());
    assert_eq!(second.refused().of(Reason::Proxy), 9);
    assert!(gate.is_same(&second));
}

#[test]
fn a_ticket_says_whose_it_is_and_later_ones_are_higher_whoevers_they_are() {
    let world = World::new(3, Rules::default());
    let mute = Rc::new(Cell::new(false));
    let mut gates = vec![Gate::alone(Limits::default(), 0)];
    gates[0].share(64, world.around(&mute)).unwrap();
    for seat in [1, 2] {
        gates[0].invite(seat);
        let gate = gates[0].copy(seat, world.around(&mute)).unwrap();
        gates.push(gate);
    }
    let mut last = 0;
    for number in 0..30 {
        let seat = number * 7 % 3;
        let ticket = gates[seat].arrives_nameless(world.instant()).unwrap();
        assert!(ticket > last && owner(ticket) == seat);
        assert_eq!(ticket >> 6, number as u64 + 1);
        last = ticket;
    }
    let mut alone = Gate::alone(Limits::default(), 0);
    assert_eq!(alone.arrives_nameless(world.instant()), Ok(1 << 6));
}
