//! One admission for several processes: each has all of it, and each carries out what any of them has written to one log.
//!
//! Whoever wants something done locks the log, carries out what others have written since it looked last, and writes what it
//! wants as the next record; only then does it happen, everywhere, in the same order. So limits are as exact as in one process,
//! and no process asks another. What is decided under the lock is decided on the last state there is: nobody comes in by
//! a look that is out of date. The time is read there too, so that it does not run backwards in the log.
//!
//! Whoever waits in the room waits at the process that has its connection: only that one may call it, and the others ring
//! for it. A process that has stopped looking for clients says so first ([`Gate::look`]), and is rung for when there is room
//! again. Everything that a process does beyond memory is done by its [`Outside`].
//!
//! One process alone ([`Gate::alone`]) has no log, and pays nothing for it.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use tine_os::ring::{Full, NOTES, Ring, SEATS_MOST};

use super::ledger::{Answer, Client, Op, Record};
use super::{Admit, Fault, Limits, Look, OnFull, Reason, Refusals, Rules, Source, Ticket, Verdict};
use crate::peer::Peer;

/// How many bits of a ticket say whose it is. Those above count the clients of all.
const OWNER_BITS: u32 = SEATS_MOST.trailing_zeros();

/// How long a process waits for another before it asks whether that one is gone.
const PATIENCE: Duration = Duration::from_millis(50);

/// Between two looks at a log that is full.
const PAUSE: Duration = Duration::from_millis(1);

/// Of how many versions of rules the text is kept; older ones are asked for again.
const VERSIONS_MOST: usize = 8;

/// What a process can do for its part of an admission that several have.
pub trait Outside {
    /// The time; of a clock that all share.
    fn now(&mut self) -> Instant {
        Instant::now()
    }

    /// The rules of this number: the same for whoever asks, and as long as there is anybody who may ask. A process that
    /// cannot get them cannot go on.
    fn rules(&mut self, number: u64) -> Rules;

    /// Wakes the process in this seat: it is to call [`Gate::heard`], and to look at everything again.
    fn poke(&mut self, seat: usize);

    /// Whether the process in this seat is no more, which others have been waiting for in vain for a moment. Asked again and
    /// again; a process that cannot know says no, and ends if it is the master that is no more.
    fn is_gone(&mut self, seat: usize) -> bool;
}

/// Admission, alone or shared.
pub struct Gate {
    state: State,
    shared: Option<Shared>,
}

/// Rules that a child was born with, and their number.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// The first are number 0; later ones have higher numbers.
    pub number: u64,
    /// What they say.
    pub rules: Rules,
}

/// What a process has left that has died.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// The slots of its clients, with their processes, as far as it has told of them ([`Gate::bears`]). They are taken until
    /// [`Gate::leaves`]; tickets of another process that had the seat before are among them while they have slots.
    pub slots: Vec<(Ticket, Option<u32>)>,
    /// How many of its clients waited; they wait no more.
    pub waiting: usize,
}

/// What is the same in all processes that have read as much.
#[derive(Clone)]
struct State {
    admit: Admit,
    /// How many clients were given a ticket.
    arrivals: u64,
    /// The number of the rules that hold.
    rules: u64,
    /// The processes of those who have slots, where that has been told.
    pids: BTreeMap<Ticket, u32>,
}

/// What a process has that is not alone.
struct Shared {
    ring: Ring,
    rest: Rest,
}

struct Rest {
    seat: usize,
    outside: Box<dyn Outside>,
    /// The time from which times in the log count.
    base: Instant,
    /// The time of the last record.
    last: u64,
    versions: BTreeMap<u64, Rules>,
    /// Who waits here, and since when.
    mine: BTreeMap<Ticket, Instant>,
    /// Those of them who have to go.
    orders: Vec<Ticket>,
    /// What the last refusal here has earned its source, if that is news.
    penalised: Option<(Source, Duration)>,
}

/// Which client of all a ticket is of: the first is 1.
pub(crate) fn ordinal(ticket: Ticket) -> u64 {
    ticket >> OWNER_BITS
}

/// Whose client a ticket is of, by seat.
pub(crate) fn owner(ticket: Ticket) -> usize {
    (ticket & (SEATS_MOST as u64 - 1)) as usize
}

impl State {
    /// The next client's.
    fn ticket(&self, seat: usize) -> Ticket {
        (self.arrivals + 1) << OWNER_BITS | seat as u64
    }

    fn has_room(&self) -> [bool; 2] {
        [false, true].map(|nameless| self.admit.has_room(nameless))
    }
}

impl Gate {
    /// For one process. `held_most`: see [`Admit::new`].
    pub fn alone(limits: Limits, held_most: usize) -> Gate {
        let admit = Admit::new(limits, held_most);
        Gate { state: State { admit, arrivals: 0, rules: 0, pids: BTreeMap::new() }, shared: None }
    }

    /// To be shared from now on, by a log of so many records; this process has seat 0.
    ///
    /// # Errors
    /// As [`Ring::new`].
    pub fn share(&mut self, records: usize, outside: Box<dyn Outside>) -> io::Result<()> {
        let ring = Ring::new(records, 0)?;
        let mut rest = Rest::new(0, outside);
        rest.know(self.state.rules, &self.state.admit.limits.rules);
        self.shared = Some(Shared { ring, rest });
        Ok(())
    }

    /// Whether others have it too.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Takes a seat for a process that is to be forked now, so that it finds everything that happens from here on in the log.
    ///
    /// # Panics
    /// When this is not the process that has made the log, or the seat is none.
    pub fn invite(&self, seat: usize) {
        let shared = self.shared.as_ref().expect("only what is shared has seats");
        assert!(seat != shared.rest.seat && shared.rest.seat == 0, "the host invites others");
        shared.ring.seat(seat);
    }

    /// In the process that was forked for it: the same admission, in its own seat. The clients that wait are not its own.
    ///
    /// # Errors
    /// As [`Ring::attach`].
    pub fn join(self, seat: usize, outside: Box<dyn Outside>) -> io::Result<Gate> {
        let Gate { state, shared } = self;
        let old = shared.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Gate { state, shared: Some(old.join(seat, outside)?) })
    }

    /// As [`Gate::join`] after a fork, but in this process: for tests and measurements.
    ///
    /// # Errors
    /// As [`Ring::attach`].
    pub fn copy(&self, seat: usize, outside: Box<dyn Outside>) -> io::Result<Gate> {
        let old = self.shared.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Gate { state: self.state.clone(), shared: Some(old.join(seat, outside)?) })
    }

    /// A process has died that had this seat (to be said as soon as it is known: others wait for it when the log is full, or
    /// when it had the lock): nobody waits for it any more, its clients have left the room, and its slots are
    /// told. Everybody is woken, as it may have died when it was about to do that; this process has to look at everything again.
    pub fn died(&mut self, seat: usize) -> Remains {
        let Some(shared) = &mut self.shared else { return Remains::default() };
        shared.ring.release_of(seat);
        shared.ring.unseat(seat);
        // It may have called this process, and not woken it.
        shared.ring.answer();
        shared.catch_up(&mut self.state);
        let of_it = |ticket: &Ticket| owner(*ticket) == seat;
        let waiting: Vec<_> = self.state.admit.room.tickets().filter(of_it).collect();
        for ticket in &waiting {
            self.act(Op::GivesUp(*ticket), |_| {});
        }
        self.wake_all();
        let State { admit, pids, .. } = &self.state;
        let slots = admit.slots.keys().copied().filter(of_it);
        let slots = slots.map(|ticket| (ticket, pids.get(&ticket).copied())).collect();
        Remains { slots, waiting: waiting.len() }
    }

    /// Carries out what others have done. Everything else here does that first.
    pub fn catch_up(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.catch_up(&mut self.state);
        }
    }

    /// Shows numbers of this process to the others, beside the log: see [`Ring::note`].
    pub(crate) fn notes(&self, numbers: [u64; NOTES]) {
        if let Some(shared) = &self.shared {
            numbers.into_iter().enumerate().for_each(|(place, number)| shared.ring.note(place, number));
        }
    }

    /// What the process in a seat shows, or showed last.
    pub(crate) fn notes_of(&self, seat: usize) -> [u64; NOTES] {
        self.shared.as_ref().map_or([0; NOTES], |shared| shared.ring.notes_of(seat))
    }

    /// How many records have been carried out here.
    pub fn records(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.ring.position())
    }

    /// This process has been poked: to be called after what woke it has been emptied, and before anything else is asked.
    pub fn heard(&mut self) {
        if let Some(shared) = &self.shared {
            shared.ring.answer();
        }
        self.catch_up();
    }

    /// Clients that wait here and have to leave the room ([`Reason::Full`], counted already), because others may come in.
    pub fn orders(&mut self) -> Vec<Ticket> {
        self.catch_up();
        self.shared.as_mut().map(|shared| std::mem::take(&mut shared.rest.orders)).unwrap_or_default()
    }

    /// What it goes by; rules as of the last time that something was asked.
    pub fn limits(&self) -> &Limits {
        self.state.admit.limits()
    }

    /// The rules that hold now.
    pub fn version(&mut self) -> Version {
        self.catch_up();
        Version { number: self.state.rules, rules: self.state.admit.limits.rules.clone() }
    }

    /// Other rules from now on: see [`Admit::set_rules`]. Their number is above that of those before, and from here on
    /// others ask for them by it ([`Outside::rules`]). Everybody is woken.
    pub fn set_rules(&mut self, version: Version) {
        assert!(version.number > self.state.rules, "rules have numbers that grow");
        match &mut self.shared {
            None => {
                self.state.rules = version.number;
                self.state.admit.set_rules(version.rules);
            }
            Some(shared) => {
                shared.rest.know(version.number, &version.rules);
                self.act(Op::SetRules(version.number), |_| {});
                self.wake_all();
            }
        }
    }

    /// How many have a slot.
    pub fn open(&mut self) -> usize {
        self.catch_up();
        self.state.admit.open()
    }

    /// How many wait in the room, wherever.
    pub fn waiting(&mut self) -> usize {
        self.catch_up();
        self.state.admit.waiting()
    }

    /// See [`Admit::remembered`].
    pub fn remembered(&mut self) -> usize {
        self.catch_up();
        self.state.admit.remembered()
    }

    /// How many were refused, and why, wherever.
    pub fn refused(&mut self) -> Refusals {
        self.catch_up();
        self.state.admit.refused()
    }

    /// Whether to look for another client. When that is to be when a slot is free, this process is poked then.
    pub fn look(&mut self, nameless: bool, now: Instant) -> Look {
        self.catch_up();
        loop {
            let now = self.shared.as_ref().map_or(now, |shared| shared.rest.not_before(now));
            let look = self.state.admit.look(nameless, now);
            match &mut self.shared {
                Some(shared) if look == Look::WhenFree && !shared.wishes() => {
                    shared.catch_up(&mut self.state);
                }
                _ => return look,
            }
        }
    }

    /// A client has come: see [`Admit::arrives`]. Gives its ticket too.
    ///
    /// # Errors
    /// When others came in since this process looked, so that nobody is looked for now: nothing has happened; the client is to
    /// be kept, before all who come later, and asked for again when it says. Alone that does not occur.
    pub fn arrives(&mut self, peer: &Peer, now: Instant, chance: u32) -> Result<(Ticket, Verdict), Look> {
        let State { admit, arrivals, .. } = &mut self.state;
        if self.shared.is_none() {
            *arrivals += 1;
            let ticket = *arrivals << OWNER_BITS;
            return Ok((ticket, admit.arrives(ticket, peer, now, chance)));
        }
        let client = Client::of(peer);
        match self.comes(false, |ticket| Op::Arrives { ticket, client, chance })? {
            (ticket, Answer::Verdict(verdict)) => Ok((ticket, verdict)),
            (_, other) => unreachable!("an arrival has a verdict, not {other:?}"),
        }
    }

    /// A client has come that nothing is known of: see [`Admit::arrives_nameless`]. Gives its ticket.
    ///
    /// # Errors
    /// As [`Gate::arrives`].
    pub fn arrives_nameless(&mut self, now: Instant) -> Result<Ticket, Look> {
        let State { admit, arrivals, .. } = &mut self.state;
        if self.shared.is_none() {
            *arrivals += 1;
            let ticket = *arrivals << OWNER_BITS;
            admit.arrives_nameless(ticket, now);
            return Ok(ticket);
        }
        self.comes(true, |ticket| Op::ArrivesNameless { ticket }).map(|(ticket, _)| ticket)
    }

    /// See [`Admit::turns_away`].
    pub fn turns_away(&mut self, chance: u32) -> Option<Reason> {
        let Some(shared) = &mut self.shared else { return self.state.admit.turns_away(chance) };
        let decide = |state: &State, _| match state.admit.is_too_many(chance) {
            Some(_) => Ok(Op::TurnsAway { chance }),
            None => Err(()),
        };
        match shared.act(&mut self.state, decide) {
            Ok(Answer::TurnedAway(why)) => why,
            _ => None,
        }
    }

    /// The process of a client that has a slot, for whoever has to know when this one has died. Alone that is nobody.
    pub fn bears(&mut self, ticket: Ticket, pid: u32) {
        if self.shared.is_some() {
            self.act(Op::Bears { ticket, pid }, |_| {});
        }
    }

    /// One that came nameless has a name now, judged by the rules that its child was born with: see [`Admit::is_named`].
    pub fn is_named(&mut self, ticket: Ticket, peer: &Peer, version: &Version, now: Instant) -> Verdict {
        let op = Op::IsNamed { ticket, client: Client::of(peer), rules: version.number };
        self.judges(op, version, |admit| admit.is_named(ticket, peer, now))
    }

    /// One that came nameless is its balancer's own: see [`Admit::is_own`]; by the same rules as [`Gate::is_named`].
    pub fn is_own(&mut self, peer: &Peer, version: &Version) -> Verdict {
        let op = Op::IsOwn { client: Client::of(peer), rules: version.number };
        self.judges(op, version, |admit| admit.is_own(peer))
    }

    fn judges(&mut self, op: Op, version: &Version, alone: impl FnOnce(&mut Admit) -> Verdict) -> Verdict {
        let Some(shared) = &mut self.shared else {
            return self.state.admit.judged_by(version.rules.clone(), alone);
        };
        shared.rest.know(version.number, &version.rules);
        match shared.act(&mut self.state, |_, _| Ok::<_, ()>(op.clone())) {
            Ok(Answer::Verdict(verdict)) => verdict,
            other => unreachable!("a client with a name has a verdict, not {other:?}"),
        }
    }

    /// The next of those who wait, when there is something to be said to it: see [`Admit::next_waiting`]. `None`, too, when
    /// it waits at another process, which is poked.
    pub fn next_waiting(&mut self, now: Instant) -> Option<(Ticket, Verdict)> {
        let Some(shared) = &mut self.shared else { return self.state.admit.next_waiting(now) };
        shared.catch_up(&mut self.state);
        if self.state.admit.waiting() == 0 {
            return None;
        }
        let seat = shared.rest.seat;
        let decide = |state: &State, now| match state.admit.turn(now) {
            Some((ticket, _)) if owner(ticket) == seat => Ok(Op::NextWaiting),
            other => Err(other.map(|(ticket, _)| owner(ticket))),
        };
        match shared.act(&mut self.state, decide) {
            Ok(Answer::Turn(said)) => said,
            Ok(other) => unreachable!("a turn is somebody's, not {other:?}"),
            Err(whose) => {
                whose.into_iter().for_each(|seat| shared.call(seat));
                None
            }
        }
    }

    /// Who has to leave the room because another may come in: to be asked after each verdict to wait. It may wait at another
    /// process, which is poked, and has it among its [`Gate::orders`].
    pub fn next_shed(&mut self, now: Instant) -> Option<Ticket> {
        let Some(shared) = &mut self.shared else { return self.state.admit.next_shed(now) };
        shared.catch_up(&mut self.state);
        if !self.state.admit.is_crowded() {
            return None;
        }
        let decide = |state: &State, _| if state.admit.is_crowded() { Ok(Op::NextShed) } else { Err(()) };
        let Ok(Answer::Shed(Some(ticket))) = shared.act(&mut self.state, decide) else { return None };
        if owner(ticket) != shared.rest.seat {
            shared.call(owner(ticket));
        }
        Some(ticket)
    }

    /// One that waits has gone. `false`: it does not wait.
    pub fn gives_up(&mut self, ticket: Ticket, now: Instant) -> bool {
        if self.shared.is_none() {
            return self.state.admit.gives_up(ticket, now);
        }
        matches!(self.act(Op::GivesUp(ticket), |_| {}), Some(Answer::Waited(true)))
    }

    /// One that waits is told that the server is ending.
    pub fn closes(&mut self, ticket: Ticket, now: Instant) {
        self.act(Op::Closes(ticket), |admit| admit.closes(ticket, now));
    }

    /// When the one who has waited longest here has waited too long; for this process to look then.
    pub fn until(&mut self) -> Option<Instant> {
        let Some(shared) = &mut self.shared else { return self.state.admit.until() };
        shared.catch_up(&mut self.state);
        let OnFull::Queue { time, .. } = self.state.admit.limits.on_full else { return None };
        let (_, since) = shared.rest.mine.first_key_value()?;
        let until = since.checked_add(time)?;
        // One of another process is late before ours: whoever finds that rings for it, and is rung for after it.
        let first =
            self.state.admit.room.oldest().is_some_and(|(ticket, _)| owner(ticket) == shared.rest.seat);
        let (_, now) = shared.rest.now();
        (first || until > now).then_some(until)
    }

    /// A child has ended, or never came to be: its slot is free. Gives its source. Those who look for clients again are poked.
    pub fn leaves(&mut self, ticket: Ticket, now: Instant) -> Option<Source> {
        if self.shared.is_none() {
            return self.state.admit.leaves(ticket, now);
        }
        match self.act(Op::Leaves(ticket), |_| {}) {
            Some(Answer::Left(source)) => source,
            _ => None,
        }
    }

    /// Whether a rule keeps this client out.
    pub fn denies(&mut self, peer: &Peer) -> bool {
        self.catch_up();
        self.state.admit.denies(peer)
    }

    /// How many children the source of this client has, wherever.
    pub fn count_of(&mut self, peer: &Peer) -> usize {
        self.catch_up();
        self.state.admit.count_of(peer)
    }

    /// The place in the room of one that waits: 1 is the next.
    pub fn place(&mut self, ticket: Ticket) -> usize {
        self.catch_up();
        self.state.admit.place(ticket)
    }

    /// See [`Admit::earns`].
    pub fn earns(&mut self, peer: &Peer, fault: Fault, now: Instant) -> Option<Duration> {
        if self.shared.is_none() {
            return self.state.admit.earns(peer, fault, now);
        }
        if self.limits().penalties.of(fault).is_zero() {
            return None;
        }
        self.keeps_out(Op::Earns { client: Client::of(peer), fault })
    }

    /// Whom the last refusal here keeps out from now on: see [`Admit::penalised`].
    pub fn penalised(&mut self) -> Option<(Source, Duration)> {
        match &mut self.shared {
            None => self.state.admit.penalised(),
            Some(shared) => shared.rest.penalised.take(),
        }
    }

    /// Who is kept out, and for how long still.
    pub fn penalties(&mut self, now: Instant) -> Vec<(Source, Duration)> {
        self.catch_up();
        self.state.admit.penalties(now).collect()
    }

    /// See [`Admit::penalise`].
    pub fn penalise(&mut self, source: Source, time: Duration, now: Instant) -> Option<Duration> {
        if self.shared.is_none() {
            return self.state.admit.penalise(source, time, now);
        }
        self.keeps_out(Op::Penalise { source, time })
    }

    /// Forgets what a source has earned.
    pub fn forgive(&mut self, source: Source, now: Instant) {
        self.act(Op::Forgive(source), |admit| admit.forgive(source, now));
    }

    /// Counts a refusal that was not decided here.
    pub fn count(&mut self, why: Reason) -> Verdict {
        self.act(Op::Count(why), |admit| {
            admit.count(why);
        });
        Verdict::Refuse(why)
    }

    /// What a client is told that is refused, by the rules that hold now.
    pub fn message(&self, peer: &Peer, why: Reason) -> Option<&str> {
        self.state.admit.message(peer, why)
    }

    /// What a client is told that is refused by the rules that its child was born with.
    pub fn message_by<'a>(&'a self, version: &'a Version, peer: &Peer, why: Reason) -> Option<&'a str> {
        match why {
            Reason::Denied => version.rules.of(peer).and_then(|(_, rule)| rule.message.as_deref()),
            _ => self.message(peer, why),
        }
    }

    /// What is done in any case: by the log, or without one.
    fn act(&mut self, op: Op, alone: impl FnOnce(&mut Admit)) -> Option<Answer> {
        match &mut self.shared {
            None => {
                alone(&mut self.state.admit);
                None
            }
            Some(shared) => shared.act(&mut self.state, |_, _| Ok::<_, ()>(op.clone())).ok(),
        }
    }

    fn keeps_out(&mut self, op: Op) -> Option<Duration> {
        match self.act(op, |_| {}) {
            Some(Answer::KeptOut(time)) => time,
            _ => None,
        }
    }

    /// A client comes, if it is looked for by the state that it comes to.
    fn comes(&mut self, nameless: bool, op: impl Fn(Ticket) -> Op) -> Result<(Ticket, Answer), Look> {
        let shared = self.shared.as_mut().expect("only what is shared is asked");
        let seat = shared.rest.seat;
        loop {
            let decide = |state: &State, now| match state.admit.look(nameless, now) {
                Look::Now => Ok(op(state.ticket(seat))),
                other => Err(other),
            };
            match shared.act(&mut self.state, decide) {
                Ok(answer) => return Ok((self.state.arrivals << OWNER_BITS | seat as u64, answer)),
                Err(Look::WhenFree) if !shared.wishes() => {}
                Err(look) => return Err(look),
            }
        }
    }

    fn wake_all(&mut self) {
        let Some(Shared { ring, rest }) = &mut self.shared else { return };
        // Whether it was called already or not: whoever called it may have died before it was woken.
        for seat in ring.seats().filter(|seat| *seat != rest.seat) {
            ring.call(seat);
            rest.outside.poke(seat);
        }
    }
}

impl Shared {
    fn join(&self, seat: usize, outside: Box<dyn Outside>) -> io::Result<Shared> {
        let ring = self.ring.attach(seat)?;
        let Rest { base, last, versions, .. } = &self.rest;
        let rest = Rest { base: *base, last: *last, versions: versions.clone(), ..Rest::new(seat, outside) };
        Ok(Shared { ring, rest })
    }

    fn catch_up(&mut self, state: &mut State) {
        while let Some(entry) = self.ring.read() {
            self.rest.replay(state, &entry);
        }
    }

    /// Does what is decided on the last state there is, or nothing; and wakes those whom that concerns.
    fn act<R>(
        &mut self,
        state: &mut State,
        decide: impl Fn(&State, Instant) -> Result<Op, R>,
    ) -> Result<Answer, R> {
        let (record, now) = loop {
            // Most of it before the lock, so that it is held for a moment only.
            self.catch_up(state);
            let Shared { ring, rest } = &mut *self;
            let full = match ring.lock(PATIENCE) {
                Ok(mut locked) => {
                    while let Some(entry) = locked.read() {
                        rest.replay(state, &entry);
                    }
                    let (nanos, now) = rest.now();
                    let record = Record { seat: rest.seat as u8, now: nanos, op: decide(state, now)? };
                    match locked.append(&record.encode()) {
                        Ok(()) => break (record, now),
                        Err(Full(slowest)) => Ok(slowest),
                    }
                }
                Err(holder) => Err(holder),
            };
            self.wait_for(full);
        };
        let before = state.has_room();
        let answer = self.rest.carry_out(state, &record);
        self.tell(state, before, now);
        Ok(answer)
    }

    /// The lock is another's (`Err`), or another has to read first (`Ok`).
    fn wait_for(&mut self, whom: Result<usize, usize>) {
        let (Ok(seat) | Err(seat)) = whom;
        if whom.is_ok() {
            self.call(seat);
            std::thread::sleep(PAUSE);
        }
        if self.rest.outside.is_gone(seat) {
            self.ring.release_of(seat);
            self.ring.unseat(seat);
        }
    }

    /// After something has happened: wakes whoever looks for clients again, whoever has a client whose turn it is, and whoever
    /// has not read for long.
    fn tell(&mut self, state: &State, before: [bool; 2], now: Instant) {
        let after = state.has_room();
        if before.iter().zip(after).any(|(before, after)| !before && after) {
            self.ring.take_wishes().for_each(|seat| call(&self.ring, &mut self.rest, seat));
        }
        if let Some((ticket, _)) = state.admit.turn(now)
            && owner(ticket) != self.rest.seat
        {
            self.call(owner(ticket));
        }
        let (capacity, position) = (self.ring.capacity() as u64, self.ring.position());
        if position.is_multiple_of((capacity / 8).max(1)) {
            // This one has read all.
            self.ring.behind((capacity / 2).max(1)).for_each(|seat| call(&self.ring, &mut self.rest, seat));
        }
    }

    fn call(&mut self, seat: usize) {
        call(&self.ring, &mut self.rest, seat);
    }

    /// Asks to be woken; `false` when something has happened meanwhile that is to be looked at first.
    fn wishes(&self) -> bool {
        self.ring.wish();
        self.ring.is_read()
    }
}

/// Wakes another, unless it has been woken and has not looked yet.
fn call(ring: &Ring, rest: &mut Rest, seat: usize) {
    if ring.call(seat) {
        rest.outside.poke(seat);
    }
}

impl Rest {
    fn new(seat: usize, mut outside: Box<dyn Outside>) -> Rest {
        Rest {
            seat,
            base: outside.now(),
            outside,
            last: 0,
            versions: BTreeMap::new(),
            mine: BTreeMap::new(),
            orders: Vec::new(),
            penalised: None,
        }
    }

    /// Keeps rules by their number.
    fn know(&mut self, number: u64, rules: &Rules) {
        self.versions.entry(number).or_insert_with(|| rules.clone());
        if self.versions.len() > VERSIONS_MOST {
            self.versions.pop_first();
        }
    }

    /// The time, not before that of the last record.
    fn now(&mut self) -> (u64, Instant) {
        let since = self.outside.now().saturating_duration_since(self.base);
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(self.last);
        (nanos, self.base + Duration::from_nanos(nanos))
    }

    fn not_before(&self, now: Instant) -> Instant {
        now.max(self.base + Duration::from_nanos(self.last))
    }

    fn replay(&mut self, state: &mut State, entry: &[u64; tine_os::ring::WORDS]) {
        let record = Record::decode(entry).expect("all who write to the log are the same program");
        self.carry_out(state, &record);
    }

    fn carry_out(&mut self, state: &mut State, record: &Record) -> Answer {
        self.last = record.now;
        let own = usize::from(record.seat) == self.seat;
        let now = self.base + Duration::from_nanos(record.now);
        let Rest { versions, outside, .. } = self;
        let rules = |number| versions.get(&number).cloned().unwrap_or_else(|| outside.rules(number));
        let answer = record.op.carry_out(&mut state.admit, now, rules);
        match (&record.op, &answer) {
            (Op::Arrives { ticket, .. }, Answer::Verdict(verdict)) => {
                state.arrivals = ticket >> OWNER_BITS;
                if own && *verdict == Verdict::Wait {
                    self.mine.insert(*ticket, now);
                }
            }
            (Op::ArrivesNameless { ticket }, _) => state.arrivals = ticket >> OWNER_BITS,
            (Op::NextWaiting, Answer::Turn(Some((ticket, _)))) => {
                self.mine.remove(ticket);
            }
            (Op::NextShed, Answer::Shed(Some(ticket))) => {
                let waited = self.mine.remove(ticket).is_some();
                // Who has it done here hears of it as the answer.
                self.orders.extend((waited && !own).then_some(*ticket));
            }
            (Op::GivesUp(ticket) | Op::Closes(ticket), _) => {
                self.mine.remove(ticket);
            }
            (Op::Leaves(ticket), _) => {
                state.pids.remove(ticket);
            }
            (Op::Bears { ticket, pid }, _) if state.admit.slots.contains_key(ticket) => {
                state.pids.insert(*ticket, *pid);
            }
            (Op::SetRules(number), _) => {
                state.rules = *number;
                let rules = state.admit.limits.rules.clone();
                self.know(*number, &rules);
            }
            _ => {}
        }
        let penalised = state.admit.penalised();
        if own && penalised.is_some() {
            self.penalised = penalised;
        }
        answer
    }
}

/// What only tests ask.
#[cfg(test)]
impl Gate {
    /// Whether two are in the same state, whoever they are.
    pub(super) fn is_same(&self, other: &Gate) -> bool {
        let parts = |state: &State| (state.arrivals, state.rules, state.pids.clone());
        self.has_state_of(&other.state.admit) && parts(&self.state) == parts(&other.state)
    }

    pub(super) fn has_state_of(&self, admit: &Admit) -> bool {
        self.state.admit.is_same(admit)
    }

    /// Who has so much to read.
    pub(super) fn behind(&self, by: u64) -> Vec<usize> {
        self.shared.iter().flat_map(|shared| shared.ring.behind(by)).collect()
    }

    /// It is gone from one instant to the next, when it was about to write.
    pub(super) fn dies_with_the_lock(mut self) {
        if let Some(shared) = &mut self.shared {
            std::mem::forget(shared.ring.lock(PATIENCE));
        }
    }
}
