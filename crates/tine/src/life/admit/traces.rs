//! Traces: millions of random events, and second books that each answer is held against.
//!
//! A trace is lives, one after the other; a life is a server with random limits and some thousand events. All of it comes
//! from a number, so that the same number gives the same trace. What fails prints the number of its life and what
//! happened last; `TINE_SEED=NUMBER cargo test -p tine --lib admit::traces` has that life again. `TINE_EVENTS` is how many
//! events there are in all, `TINE_FROM=NUMBER` makes them others, and `cargo xtask traces` is all of that with optimised code.
//!
//! The books are kept in the plainest way there is: lists, looked through from the front, and times in nanoseconds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tine_os::identity::Credentials;
use tine_os::socket::Addr;

use super::*;

/// Events of all traces together, unless `TINE_EVENTS` says otherwise: half a minute of one core, where nothing is optimised.
const EVENTS: u64 = 10_000_000;

/// What is shown of a life that went wrong.
const SHOWN: usize = 24;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Random numbers from a number: splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, most: usize) -> usize {
        (self.roll() % most as u64) as usize
    }

    pub(super) fn from(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// True one time in so many.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// The first of a list more often than its last.
    pub(super) fn early_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len()).min(self.below(all.len()))].clone()
    }
}

/// What a life is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Wait,
    Queue,
    Refuse,
    Early,
    /// More sources than are remembered.
    Flood,
}

/// What happens.
#[derive(Clone, Debug)]
enum Happens {
    Arrives { peer: Peer, chance: u32 },
    ArrivesNameless,
    IsNamed { ticket: Ticket, peer: Peer },
    Leaves(Ticket),
    GivesUp(Ticket),
    Closes(Ticket),
    NextWaiting,
    Passes(u64),
    Earns { peer: Peer, fault: Fault },
    Penalise { source: Source, time: Duration },
    Forgive(Source),
    SetRules(Vec<(Who, Rule)>),
    Counts(Reason),
}

/// A client in the room, as the books have it.
struct Held {
    ticket: Ticket,
    peer: Peer,
    source: Source,
    since: u64,
    /// How many of its source came before it, since there was one of it last: those are due before it.
    ahead: usize,
    /// How many of each source came after it and went before it, though it could have gone.
    overtook: BTreeMap<Source, usize>,
}

/// What a source has used and earned: until when, and whether that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    full: u64,
    until: u64,
    counts: bool,
}

/// The second books.
struct Books {
    limits: Limits,
    exempt: Vec<Prefix>,
    rules: Vec<(Who, Rule)>,
    held_most: usize,
    slots: BTreeMap<Ticket, Source>,
    room: Vec<Held>,
    /// How many of a source have come to the room since there was none of it last.
    row: BTreeMap<Source, usize>,
    known: BTreeMap<Source, Known>,
    /// Those of them who have nobody here, in the order in which they are forgotten, by family.
    idle: [BTreeSet<(u64, Source)>; 3],
    paced: u64,
    refused: [u64; Reason::ALL.len()],
    came: u64,
    gone: u64,
}

/// One server, from its first client to its last.
struct Life {
    seed: u64,
    kind: Kind,
    dice: Dice,
    admit: Admit,
    books: Books,
    peers: Vec<Peer>,
    nameless: Vec<Ticket>,
    start: Instant,
    now: u64,
    ticket: Ticket,
    last: VecDeque<(u64, Happens, String)>,
    seen: Seen,
    events: u64,
}

/// What was seen in lives: a trace in which something never happens says nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    admitted: u64,
    waited: u64,
    /// Admitted to a slot that is kept.
    reserve: u64,
    refused: [u64; Reason::ALL.len()],
    shed: u64,
    /// Times at which nobody was looked for: all slots taken, all that the rate allows.
    paused: [u64; 2],
    /// Sources kept out.
    penalties: u64,
    /// The most sources that were remembered and had nobody here.
    fullest: usize,
    /// A number that is another one when any answer is.
    print: u64,
}

#[test]
fn whoever_finds_no_slot_waits_and_each_wait_ends() {
    trace(Kind::Wait, 1, &[Reason::Full, Reason::Source, Reason::Rate, Reason::Penalty, Reason::Denied]);
}

#[test]
fn a_queue_is_fair_and_nobody_is_in_it_for_longer_than_it_says() {
    trace(Kind::Queue, 2, &[Reason::Full, Reason::Late, Reason::Left, Reason::Penalty, Reason::Denied]);
}

#[test]
fn whoever_finds_no_slot_is_refused_until_one_is_free() {
    trace(Kind::Refuse, 3, &[Reason::Full, Reason::Source, Reason::Rate, Reason::Penalty, Reason::Denied]);
}

#[test]
fn chance_refuses_as_often_as_it_should() {
    trace(Kind::Early, 4, &[Reason::Early, Reason::Full, Reason::Source, Reason::Rate, Reason::Penalty]);
}

#[test]
fn more_sources_than_are_remembered_change_no_bound() {
    trace(Kind::Flood, 5, &[Reason::Late, Reason::Rate, Reason::Penalty]);
}

#[test]
fn the_same_number_is_the_same_trace() {
    for kind in [Kind::Wait, Kind::Queue, Kind::Refuse, Kind::Early, Kind::Flood] {
        let seen = |seed| Life::new(seed, kind).live(4_000);
        assert_eq!(seen(7), seen(7), "{kind:?}");
        assert_ne!(seen(7).print, seen(8).print, "{kind:?}: a fingerprint of everything tells nothing");
    }
}

/// A fifth of all events, in lives of one kind; all these reasons to refuse have to occur.
fn trace(kind: Kind, seed: u64, reasons: &[Reason]) {
    let number = |name: &str| {
        let text = env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|why| panic!("{name}={text}: {why}")))
    };
    if let Some(seed) = number("TINE_SEED") {
        println!("life   kind={kind:?} seed={seed} {:?}", Life::new(seed, kind).live(length(kind)));
        return;
    }
    let events = number("TINE_EVENTS").unwrap_or(EVENTS) / 5;
    let seed = number("TINE_FROM").unwrap_or(0).wrapping_mul(8).wrapping_add(seed);
    let (mut dice, mut done, mut lives, mut seen) = (Dice(seed), 0, 0, Seen::default());
    while done < events {
        let length = length(kind).min(events - done);
        seen.add(&Life::new(dice.roll(), kind).live(length));
        (done, lives) = (done + length, lives + 1);
    }
    println!("trace  kind={kind:?} seed={seed} events={done} lives={lives} {seen:?}");
    // Few lives may well have no client that is too late.
    if done >= 10 * length(Kind::Flood) {
        seen.has_all(kind, reasons);
    }
}

/// Events in a life.
fn length(kind: Kind) -> u64 {
    if kind == Kind::Flood { 100_000 } else { 2_500 }
}

fn inet(ip: impl Into<IpAddr>) -> Peer {
    Peer { addr: Addr::Inet(SocketAddr::new(ip.into(), 5023)), credentials: None }
}

fn unix(addr: Addr, uid: Option<u32>) -> Peer {
    Peer { addr, credentials: uid.map(|uid| Credentials { pid: 7, uid, gid: uid }) }
}

/// A client of any kind: few networks with few addresses each, so that they meet.
pub(super) fn some_peer(dice: &mut Dice) -> Peer {
    let v4 =
        |dice: &mut Dice| Ipv4Addr::new(10, dice.below(4) as u8, dice.below(2) as u8, dice.from(1, 4) as u8);
    match dice.below(16) {
        0..6 => inet(v4(dice)),
        6..8 => inet(v4(dice).to_ipv6_mapped()),
        8..12 => {
            let network = 0x2001_0db8 + dice.below(3) as u128;
            let subnet = dice.below(4) as u128;
            inet(Ipv6Addr::from_bits(network << 96 | subnet << 64 | dice.from(1, 3) as u128))
        }
        12 => unix(Addr::Unnamed, Some(1000 + dice.below(4) as u32)),
        13 => unix(Addr::Abstract(b"client".to_vec()), Some(1000 + dice.below(4) as u32)),
        14 => Peer { addr: Addr::Vsock { cid: 3 + dice.below(3) as u32, port: 1023 }, credentials: None },
        _ => unix(Addr::Path("/run/client".into()), None),
    }
}

fn some_rate(dice: &mut Dice) -> Rate {
    let per = Duration::from_secs(dice.one_of(&[1, 1, 60, 3600]));
    Rate { count: dice.from(1, 20) as u32, per, burst: dice.from(1, 6) as u32 }
}

fn some_prefix(dice: &mut Dice, peers: &[Peer]) -> Option<Prefix> {
    let ip = dice.one_of(peers).ip()?;
    Some(Prefix::around(ip, dice.one_of(&[8, 16, 24, 30, 32, 48, 64, 128])))
}

fn some_who(dice: &mut Dice, peers: &[Peer]) -> Who {
    match dice.below(8) {
        0 => Who::All,
        1 => Who::Unix,
        2 => Who::User(1000 + dice.below(4) as u32),
        3 => Who::Machine(3 + dice.below(3) as u32),
        _ => some_prefix(dice, peers).map_or(Who::All, Who::Network),
    }
}

pub(super) fn some_rules(dice: &mut Dice, peers: &[Peer]) -> Vec<(Who, Rule)> {
    let mut rules: Vec<(Who, Rule)> = Vec::new();
    for _ in 0..dice.below(8) {
        let who = some_who(dice, peers);
        if rules.iter().any(|(other, _)| *other == who) {
            continue;
        }
        let mut rule = if dice.once_in(4) { Rule::deny() } else { Rule::allow() };
        if rule.allow {
            rule.children = dice.once_in(2).then(|| dice.from(1, 9) as u32);
            rule.rate = dice.once_in(3).then(|| some_rate(dice));
            rule.exempt = dice.once_in(3);
        }
        rules.push((who, rule));
    }
    rules
}

pub(super) fn rules(list: &[(Who, Rule)]) -> Rules {
    let mut rules = Rules::default();
    for (who, rule) in list {
        rules.add(*who, rule.clone()).unwrap();
    }
    rules
}

fn some_penalties(dice: &mut Dice) -> Penalties {
    let mut penalties = Penalties::default();
    if dice.once_in(4) {
        return penalties;
    }
    let mut time = || Duration::from_millis(dice.one_of(&[0, 250, 1_000, 5_000, 20_000, 90_000]));
    penalties.crash = time();
    penalties.signal = time();
    penalties.exit = time();
    penalties.exits.insert(75, time());
    penalties.timeout = time();
    penalties.nobytes = time();
    penalties.refused = time();
    penalties.min = Duration::from_millis(dice.one_of(&[0, 1, 1_000, 15_000]));
    penalties.max = penalties.min + Duration::from_millis(dice.one_of(&[0, 10, 10_000, 600_000]));
    penalties
}

pub(super) fn some_limits(dice: &mut Dice, kind: Kind) -> Limits {
    let children = dice.one_of(&[1, 2, 3, 5, 8, 10, 13, 20, 40]);
    let mask = match kind {
        Kind::Flood => Mask { v4: 32, v6: 128 },
        _ => Mask {
            v4: dice.one_of(&[32, 32, 32, 24, 16, 8, 0]),
            v6: dice.one_of(&[64, 64, 64, 128, 48, 32, 0]),
        },
    };
    let on_full = match kind {
        Kind::Wait => OnFull::Wait,
        Kind::Refuse => OnFull::Refuse { message: None },
        Kind::Early => {
            let full = dice.from(1, children + 2);
            OnFull::Early { start: dice.from(1, full), percent: dice.from(1, 100) as u8, full }
        }
        Kind::Queue | Kind::Flood => {
            let time = Duration::from_millis(dice.one_of(&[0, 1, 50, 1_000, 60_000]));
            OnFull::Queue { most: dice.one_of(&[1, 2, 5, 12, 30]), time, message: None }
        }
    };
    let mut penalties = some_penalties(dice);
    if kind == Kind::Flood {
        (penalties.min, penalties.max) = (Duration::ZERO, Duration::from_secs(600));
    }
    Limits {
        children,
        per_source: (!dice.once_in(3)).then(|| dice.below(children + 2)),
        per_source_message: None,
        mask,
        reserve: dice.once_in(2).then(|| dice.below(children + 2)),
        rate: dice.once_in(4).then(|| some_rate(dice)),
        rate_per_source: dice.once_in(2).then(|| some_rate(dice)),
        on_full,
        penalties,
        exempt: Prefixes::default(),
        rules: Rules::default(),
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

fn interval(rate: Rate) -> u64 {
    nanos(rate.per) / u64::from(rate.count)
}

/// Until when none of this rate can be had; `full`: when all of it can.
fn waits(full: u64, rate: Rate, now: u64) -> Option<u64> {
    let owed = full.saturating_sub(now);
    let (one, most) = (interval(rate), interval(rate) * u64::from(rate.burst));
    // More is owed than this rate could ever lend: that was another rate.
    (owed + one > most && owed <= most).then(|| full + one - most)
}

/// One is had of this rate: when all of it can be had again.
fn had(full: u64, rate: Rate, now: u64) -> u64 {
    let most = interval(rate) * u64::from(rate.burst);
    now + (full.saturating_sub(now) + interval(rate)).min(most)
}

fn family(source: Source) -> usize {
    match source {
        Source::V4(_) => 0,
        Source::V6(_) => 1,
        _ => 2,
    }
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.admitted += other.admitted;
        self.waited += other.waited;
        self.reserve += other.reserve;
        self.refused.iter_mut().zip(other.refused).for_each(|(sum, one)| *sum += one);
        self.shed += other.shed;
        self.paused.iter_mut().zip(other.paused).for_each(|(sum, one)| *sum += one);
        self.penalties += other.penalties;
        self.fullest = self.fullest.max(other.fullest);
        self.print = self.print.rotate_left(7) ^ other.print;
    }

    fn has_all(&self, kind: Kind, reasons: &[Reason]) {
        for why in reasons {
            assert!(self.refused[*why as usize] > 0, "nobody was refused because of {why}: {self:?}");
        }
        let waits = matches!(kind, Kind::Wait | Kind::Queue | Kind::Flood);
        assert!(self.admitted > 0 && self.reserve > 0 && self.penalties > 0, "{self:?}");
        assert!((self.waited > 0) == waits && (self.shed > 0) == waits, "{self:?}");
        assert!(kind == Kind::Flood || self.paused.iter().all(|times| *times > 0), "{self:?}");
        assert!(kind != Kind::Flood || self.fullest == SOURCES_MOST, "{self:?}");
    }
}

impl Books {
    fn source(&self, peer: &Peer) -> Source {
        Source::of(peer, self.limits.mask)
    }

    /// The rule with the most to say about a client.
    fn rule(&self, peer: &Peer) -> Option<&Rule> {
        let says = |who: &Who| match who {
            Who::All => Some(0),
            Who::Network(prefix) => {
                let ip = peer.ip()?.to_canonical();
                let inside = Prefix::around(ip, prefix.bits()) == *prefix;
                inside.then_some(1 + u32::from(prefix.bits()))
            }
            Who::Unix => is_unix(peer).then_some(1),
            Who::User(uid) => {
                (is_unix(peer) && peer.credentials.is_some_and(|who| who.uid == *uid)).then_some(2)
            }
            Who::Machine(cid) => {
                matches!(&peer.addr, Addr::Vsock { cid: own, .. } if own == cid).then_some(1)
            }
        };
        let fitting = self.rules.iter().filter_map(|(who, rule)| Some((says(who)?, rule)));
        fitting.max_by_key(|(weight, _)| *weight).map(|(_, rule)| rule)
    }

    fn is_exempt(&self, peer: &Peer) -> bool {
        let listed = |ip: IpAddr| self.exempt.iter().any(|prefix| prefix.contains(ip));
        self.rule(peer).is_some_and(|rule| rule.exempt) || peer.ip().is_some_and(listed)
    }

    fn is_denied(&self, peer: &Peer) -> bool {
        self.rule(peer).is_some_and(|rule| !rule.allow)
    }

    fn rate(&self, peer: &Peer) -> Option<Rate> {
        self.rule(peer).and_then(|rule| rule.rate).or(self.limits.rate_per_source)
    }

    fn most(&self, peer: &Peer) -> usize {
        let common = self.limits.per_source.unwrap_or(self.limits.children / 4).max(1);
        self.rule(peer).and_then(|rule| rule.children).map_or(common, |most| most as usize)
    }

    fn children(&self, source: Source) -> usize {
        self.slots.values().filter(|other| **other == source).count()
    }

    fn waiting(&self, source: Source) -> usize {
        self.room.iter().filter(|held| held.source == source).count()
    }

    /// How many of a network wait.
    fn weight(&self, network: Source) -> usize {
        self.room.iter().filter(|held| held.source.network() == network).count()
    }

    /// Whether a network is one that slots are kept for. Those who cannot be told from anybody have none.
    fn is_absent(&self, source: Source) -> bool {
        source != Source::Unknown && self.slots.values().all(|other| other.network() != source.network())
    }

    fn common(&self) -> usize {
        let children = self.limits.children;
        children - self.limits.reserve.unwrap_or(children / 10).min(children - 1)
    }

    fn is_kept_out(&self, source: Source, now: u64) -> bool {
        self.known.get(&source).is_some_and(|known| known.counts && known.until > now)
    }

    fn may_come(&self, peer: &Peer, now: u64) -> Result<(), Reason> {
        let source = self.source(peer);
        if self.is_denied(peer) {
            return Err(Reason::Denied);
        }
        if source == Source::Unknown {
            return Ok(());
        }
        if self.is_kept_out(source, now) && !self.is_exempt(peer) {
            return Err(Reason::Penalty);
        }
        if self.children(source) + self.waiting(source) >= self.most(peer) {
            return Err(Reason::Source);
        }
        let full = self.known.get(&source).map_or(0, |known| known.full);
        match self.rate(peer) {
            Some(rate) if waits(full, rate, now).is_some() => Err(Reason::Rate),
            _ => Ok(()),
        }
    }

    /// What is to become of a client that comes now.
    fn verdict(&self, peer: &Peer, now: u64, chance: u32) -> Verdict {
        if let Err(why) = self.may_come(peer, now) {
            return Verdict::Refuse(why);
        }
        let (open, source) = (self.slots.len(), self.source(peer));
        if let OnFull::Early { start, percent, full } = self.limits.on_full {
            if open >= full {
                return Verdict::Refuse(Reason::Full);
            }
            let hundred = f64::from(chance) / 4_294_967_296.0 * 100.0;
            let percent = usize::from(percent);
            if open >= start
                && (hundred as usize) < percent + (100 - percent) * (open - start) / (full - start)
            {
                return Verdict::Refuse(Reason::Early);
            }
        }
        let absent = self.is_absent(source);
        if open < self.common() && (absent || self.room.is_empty()) || absent && open < self.limits.children {
            return Verdict::Admit;
        }
        let own = self.weight(source.network());
        let heavier = self.room.iter().any(|held| self.weight(held.source.network()) > own + 1);
        if self.held_most > 0 && (self.room.len() < self.held_most || heavier) {
            return Verdict::Wait;
        }
        Verdict::Refuse(Reason::Full)
    }

    /// Whether one that waits may have a slot that is free now.
    fn is_eligible(&self, held: &Held) -> bool {
        let open = self.slots.len();
        open < self.common() || open < self.limits.children && self.is_absent(held.source)
    }

    fn look(&self, nameless: bool, now: u64) -> (bool, Option<u64>) {
        let open = self.slots.len();
        let room = match self.limits.on_full {
            OnFull::Wait if nameless || self.held_most == 0 => open < self.common(),
            OnFull::Wait => open < self.limits.children,
            _ => !nameless || open < self.limits.children,
        };
        (room, self.limits.rate.and_then(|rate| waits(self.paced, rate, now)))
    }

    fn refuse(&mut self, why: Reason) {
        self.refused[why as usize] += 1;
    }

    /// Changes what is known of a source, and forgets whoever there is no place for any more.
    fn know(&mut self, source: Source, now: u64, change: impl FnOnce(&mut Known)) {
        let here = self.children(source) + self.waiting(source) > 0;
        let known = self.known.entry(source).or_default();
        let before = (known.full.max(known.until), source);
        change(known);
        let after = (known.full.max(known.until), source);
        let idle = &mut self.idle[family(source)];
        idle.remove(&before);
        if after.0 <= now {
            self.known.remove(&source);
        } else if !here {
            idle.insert(after);
        }
        while let Some((time, other)) = idle.first().copied() {
            if time > now && idle.len() <= SOURCES_MOST {
                break;
            }
            idle.pop_first();
            self.known.remove(&other);
        }
    }

    /// Gives whether it is news that the source is kept out.
    fn earn(&mut self, source: Source, time: Duration, now: u64) -> bool {
        if time.is_zero() || source == Source::Unknown {
            return false;
        }
        let (min, max) = (nanos(self.limits.penalties.min), nanos(self.limits.penalties.max));
        let before = self.is_kept_out(source, now);
        self.know(source, now, |known| {
            let over = known.until <= now;
            let until = (known.until.max(now) + nanos(time)).min(now + max);
            known.counts = (!over && known.counts) || until - now >= min;
            known.until = until;
        });
        !before && self.is_kept_out(source, now)
    }

    fn comes(&mut self, peer: &Peer, now: u64) {
        let source = self.source(peer);
        if let Some(rate) = self.rate(peer)
            && source != Source::Unknown
        {
            self.know(source, now, |known| known.full = had(known.full, rate, now));
        }
    }

    /// Its slot or its place in the room is not counted any more, or is from now on.
    fn moved(&mut self, source: Source, now: u64) {
        if source != Source::Unknown {
            self.know(source, now, |_| {});
        }
    }
}

fn is_unix(peer: &Peer) -> bool {
    !matches!(peer.addr, Addr::Inet(_) | Addr::Vsock { .. })
}

impl Life {
    fn new(seed: u64, kind: Kind) -> Life {
        let mut dice = Dice(seed);
        let peers: Vec<_> = (0..dice.from(3, 40)).map(|_| some_peer(&mut dice)).collect();
        let mut limits = some_limits(&mut dice, kind);
        let exempt: Vec<_> = (0..dice.below(3)).filter_map(|_| some_prefix(&mut dice, &peers)).collect();
        if !exempt.is_empty() {
            let list: Vec<_> = exempt.iter().map(ToString::to_string).collect();
            limits.exempt = list.join(",").parse().unwrap();
        }
        let list = if dice.once_in(2) { some_rules(&mut dice, &peers) } else { Vec::new() };
        limits.rules = rules(&list);
        let allowed = dice.one_of(&[0, 1, 3, 6, 20, 100]);
        let held_most = match limits.on_full {
            OnFull::Wait if limits.kept() > 0 => allowed,
            OnFull::Queue { most, .. } => most.min(allowed),
            _ => 0,
        };
        let books = Books {
            limits: limits.clone(),
            exempt,
            rules: list,
            held_most,
            slots: BTreeMap::new(),
            room: Vec::new(),
            row: BTreeMap::new(),
            known: BTreeMap::new(),
            idle: Default::default(),
            paced: 0,
            refused: Default::default(),
            came: 0,
            gone: 0,
        };
        Life {
            seed,
            kind,
            dice,
            admit: Admit::new(limits, allowed),
            books,
            peers,
            nameless: Vec::new(),
            start: Instant::now(),
            now: SECOND,
            ticket: 0,
            last: VecDeque::new(),
            seen: Seen::default(),
            events: 0,
        }
    }

    /// Lives through so many events and its end.
    fn live(mut self, events: u64) -> Seen {
        while self.events < events {
            let what = self.choose();
            self.happens(what);
        }
        self.everything_ends();
        self.seen.refused = self.books.refused;
        std::mem::take(&mut self.seen)
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_nanos(self.now)
    }

    fn peer(&mut self) -> Peer {
        match self.dice.below(16) {
            // A flood is ten times the sources that are remembered, in two families.
            0..14 if self.kind == Kind::Flood => {
                let number = self.dice.below(10 * SOURCES_MOST) as u128;
                if number.is_multiple_of(4) {
                    inet(Ipv4Addr::from_bits(0x0a00_0000 | number as u32))
                } else {
                    inet(Ipv6Addr::from_bits(0x2001_0db8 << 96 | number))
                }
            }
            0 => some_peer(&mut self.dice),
            _ => self.dice.early_of(&self.peers),
        }
    }

    fn some_ticket(&mut self) -> Option<Ticket> {
        let count = self.books.slots.len();
        let at = if count > 0 { self.dice.below(count) } else { return None };
        self.books.slots.keys().nth(at).copied()
    }

    fn some_waiting(&mut self) -> Option<Ticket> {
        let count = self.books.room.len();
        let at = if count > 0 { self.dice.below(count) } else { return None };
        Some(self.books.room[at].ticket)
    }

    fn choose(&mut self) -> Happens {
        if self.kind == Kind::Flood && self.dice.once_in(2) {
            let time = Duration::from_secs(self.dice.from(60, 600) as u64);
            return Happens::Penalise { source: self.some_source(), time };
        }
        loop {
            let chosen = match self.dice.below(64) {
                0..24 => self.an_arrival(),
                24..36 => self.some_ticket().map(Happens::Leaves),
                36..42 => Some(Happens::NextWaiting),
                42..50 => Some(Happens::Passes(self.some_time())),
                50..54 => Some(Happens::Earns { peer: self.peer(), fault: self.some_fault() }),
                54 => {
                    let time = Duration::from_millis(self.dice.one_of(&[0, 100, 5_000, 100_000, 10_000_000]));
                    Some(Happens::Penalise { source: self.some_source(), time })
                }
                55 => Some(Happens::Forgive(self.some_source())),
                56..58 => self.some_waiting().map(Happens::GivesUp),
                58 if self.dice.once_in(20) => self.some_waiting().map(Happens::Closes),
                59 if self.dice.once_in(20) => {
                    Some(Happens::SetRules(some_rules(&mut self.dice, &self.peers)))
                }
                60 => self.books.look(true, self.now).0.then_some(Happens::ArrivesNameless),
                61..63 => {
                    let ticket = self.nameless.pop();
                    ticket.map(|ticket| Happens::IsNamed { ticket, peer: self.peer() })
                }
                63 => Some(Happens::Counts(Reason::Untrusted)),
                _ => None,
            };
            if let Some(chosen) = chosen {
                return chosen;
            }
        }
    }

    /// Nobody is taken where nobody is looked for, or hardly ever.
    fn an_arrival(&mut self) -> Option<Happens> {
        let looked_for = self.books.look(false, self.now) == (true, None);
        let happens = Happens::Arrives { peer: self.peer(), chance: self.dice.roll() as u32 };
        (looked_for || self.dice.once_in(16)).then_some(happens)
    }

    fn some_time(&mut self) -> u64 {
        let steps = [0, 1, MS, 20 * MS, 100 * MS, SECOND, 7 * SECOND, 100 * SECOND];
        let steps = if self.kind == Kind::Flood { &steps[..3] } else { &steps[..] };
        self.dice.one_of(steps) * self.dice.from(1, 3) as u64
    }

    fn some_fault(&mut self) -> Fault {
        let status = self.dice.one_of(&[1, 75]);
        let all = [
            Fault::Crash,
            Fault::Signal,
            Fault::Exit(status),
            Fault::Timeout,
            Fault::NoBytes,
            Fault::Refused,
        ];
        self.dice.one_of(&all)
    }

    fn some_source(&mut self) -> Source {
        let peer = self.peer();
        self.books.source(&peer)
    }

    /// One event: what the machine says has to be what the books say, and both have to be in order after it.
    fn happens(&mut self, what: Happens) {
        self.events += 1;
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back((self.now, what.clone(), String::new()));
        let now = self.instant();
        match what {
            Happens::Arrives { peer, chance } => self.arrives(&peer, chance),
            Happens::ArrivesNameless => {
                let ticket = self.next_ticket();
                self.paces();
                self.books.slots.insert(ticket, Source::Unknown);
                self.admit.arrives_nameless(ticket, now);
                self.nameless.push(ticket);
            }
            Happens::IsNamed { ticket, peer } => self.is_named(ticket, &peer),
            Happens::Leaves(ticket) => self.leaves(ticket),
            Happens::GivesUp(ticket) => {
                let held = self.books.room.iter().any(|held| held.ticket == ticket);
                assert_eq!(self.admit.gives_up(ticket, now), held);
                self.quits(ticket);
                self.books.refuse(Reason::Left);
            }
            Happens::Closes(ticket) => {
                self.admit.closes(ticket, now);
                self.quits(ticket);
                self.books.refuse(Reason::Ending);
            }
            Happens::NextWaiting => drop(self.next_waiting()),
            Happens::Passes(time) => self.now += time,
            Happens::Earns { peer, fault } => {
                let (source, exempt) = (self.books.source(&peer), self.books.is_exempt(&peer));
                let time = self.books.limits.penalties.of(fault);
                let time = if exempt { Duration::ZERO } else { time };
                let news = self.books.earn(source, time, self.now);
                let told = self.admit.earns(&peer, fault, now);
                self.is_told(source, news, told);
            }
            Happens::Penalise { source, time } => {
                let news = self.books.earn(source, time, self.now);
                let told = self.admit.penalise(source, time, now);
                self.is_told(source, news, told);
            }
            Happens::Forgive(source) => {
                self.books.know(source, self.now, |known| (known.until, known.counts) = (0, false));
                self.admit.forgive(source, now);
                self.answer(0);
            }
            Happens::SetRules(list) => {
                self.admit.set_rules(rules(&list));
                self.books.rules = list;
            }
            Happens::Counts(why) => {
                self.books.refuse(why);
                assert_eq!(self.admit.count(why), Verdict::Refuse(why));
            }
        }
        self.is_in_order();
    }

    fn arrives(&mut self, peer: &Peer, chance: u32) {
        let (ticket, now, open) = (self.next_ticket(), self.instant(), self.books.slots.len());
        let source = self.books.source(peer);
        self.paces();
        let verdict = self.books.verdict(peer, self.now, chance);
        assert_eq!(self.admit.arrives(ticket, peer, now, chance), verdict);
        match &verdict {
            Verdict::Admit => {
                self.is_welcome(peer, open);
                self.books.comes(peer, self.now);
                self.enters(ticket, source);
            }
            Verdict::Wait => {
                self.books.comes(peer, self.now);
                if self.books.waiting(source) == 0 {
                    self.books.row.remove(&source);
                }
                let row = self.books.row.entry(source).or_default();
                let (ahead, since) = (*row, self.now);
                *row += 1;
                let held =
                    Held { ticket, peer: peer.clone(), source, since, ahead, overtook: BTreeMap::new() };
                self.books.room.push(held);
                self.books.moved(source, self.now);
                self.seen.waited += 1;
                assert!((1..=self.books.room.len()).contains(&self.admit.place(ticket)));
                self.sheds(ticket);
            }
            Verdict::Refuse(why) => {
                self.books.refuse(*why);
                self.books.gone += 1;
                self.pays(peer, *why);
            }
        }
        self.answer(verdict_number(&verdict));
    }

    /// Whoever is refused for coming too often pays for that.
    fn pays(&mut self, peer: &Peer, why: Reason) {
        if matches!(why, Reason::Source | Reason::Rate) && !self.books.is_exempt(peer) {
            let (source, time) = (self.books.source(peer), self.books.limits.penalties.refused);
            self.books.earn(source, time, self.now);
        }
    }

    fn is_named(&mut self, ticket: Ticket, peer: &Peer) {
        let (now, source) = (self.instant(), self.books.source(peer));
        let verdict = match self.books.may_come(peer, self.now) {
            Err(why) => Verdict::Refuse(why),
            Ok(()) if self.books.slots.len() > self.books.common() && !self.books.is_absent(source) => {
                Verdict::Refuse(Reason::Full)
            }
            Ok(()) => Verdict::Admit,
        };
        assert_eq!(self.admit.is_named(ticket, peer, now), verdict);
        match &verdict {
            Verdict::Refuse(why) => {
                self.books.refuse(*why);
                self.pays(peer, *why);
            }
            _ => {
                self.books.slots.remove(&ticket);
                self.is_welcome(peer, self.books.slots.len());
                self.books.comes(peer, self.now);
                self.enters(ticket, source);
            }
        }
        self.answer(verdict_number(&verdict));
    }

    fn leaves(&mut self, ticket: Ticket) {
        let source = self.books.slots.remove(&ticket);
        assert_eq!(self.admit.leaves(ticket, self.instant()), source);
        assert_eq!(self.admit.leaves(ticket, self.instant()), None, "once is enough");
        self.nameless.retain(|other| *other != ticket);
        self.books.gone += 1;
        self.books.moved(source.unwrap(), self.now);
        self.answer(ticket);
    }

    /// Gives whether anything was said to anybody.
    fn next_waiting(&mut self) -> bool {
        let now = self.instant();
        let late = match self.books.limits.on_full {
            OnFull::Queue { time, .. } => {
                let waited = |held: &&Held| self.now - held.since >= nanos(time);
                self.books.room.first().filter(waited).map(|held| held.ticket)
            }
            _ => None,
        };
        let said = self.admit.next_waiting(now);
        let Some((ticket, verdict)) = said else {
            assert_eq!(late, None, "that one has waited too long");
            let eligible = self.books.room.iter().find(|held| self.books.is_eligible(held));
            assert!(eligible.is_none(), "there is a slot for {:?}", eligible.map(|held| held.ticket));
            self.answer(0);
            return false;
        };
        let held = self.books.room.iter().position(|held| held.ticket == ticket);
        let held = &self.books.room[held.expect("it waits")];
        let (peer, source, since) = (held.peer.clone(), held.source, held.since);
        let expected = match late {
            Some(_) => Verdict::Refuse(Reason::Late),
            None if self.books.is_denied(&peer) => Verdict::Refuse(Reason::Denied),
            None if self.books.is_kept_out(source, self.now) && !self.books.is_exempt(&peer) => {
                Verdict::Refuse(Reason::Penalty)
            }
            None => Verdict::Admit,
        };
        assert_eq!(verdict, expected, "of {ticket}");
        if late.is_none() {
            assert!(self.books.is_eligible(held), "there is no slot for {ticket}");
            self.is_its_turn(ticket, source);
        }
        if let OnFull::Queue { time, .. } = self.books.limits.on_full {
            assert!(
                late.is_some() == (self.now - since >= nanos(time)),
                "the oldest is the first to be late"
            );
        }
        let open = self.books.slots.len();
        self.leaves_the_room(ticket);
        match verdict {
            Verdict::Refuse(why) => {
                self.books.gone += 1;
                self.books.refuse(why);
            }
            _ => {
                self.keeps_the_reserve(source, open);
                self.enters(ticket, source);
            }
        }
        self.answer(ticket ^ verdict_number(&expected));
        true
    }

    /// Of its source it was the first; and of those who came before it, nobody is overtaken by one source more often than
    /// others of their own source were before them.
    fn is_its_turn(&mut self, ticket: Ticket, source: Source) {
        let first = self.books.room.iter().find(|held| held.source == source).map(|held| held.ticket);
        assert_eq!(first, Some(ticket), "the first of a source is the first");
        let mut room = std::mem::take(&mut self.books.room);
        for held in room.iter_mut().take_while(|held| held.ticket < ticket) {
            if self.books.is_eligible(held) {
                let times = held.overtook.entry(source).or_default();
                *times += 1;
                let (other, ahead) = (held.ticket, held.ahead);
                assert!(
                    *times <= ahead,
                    "{source} goes before {other} for the {times}th time, {ahead} were due"
                );
            }
        }
        self.books.room = room;
    }

    /// The last of the network with most in the room goes for the one that came.
    fn sheds(&mut self, came: Ticket) {
        while let Some(shed) = self.admit.next_shed(self.instant()) {
            assert!(self.books.room.len() > self.books.held_most, "there was a place for {shed}");
            assert_ne!(shed, came, "whoever may wait is not the one who has to go");
            let held = self.books.room.iter().find(|held| held.ticket == shed).expect("it waits");
            let (source, network) = (held.source, held.source.network());
            let heaviest = self.books.room.iter().map(|held| self.books.weight(held.source.network())).max();
            assert_eq!(Some(self.books.weight(network)), heaviest);
            let last = self.books.room.iter().rfind(|held| held.source == source).map(|held| held.ticket);
            assert_eq!(last, Some(shed), "the last of its source is the first to go");
            self.quits(shed);
            self.books.refuse(Reason::Full);
            self.seen.shed += 1;
        }
        assert!(self.books.room.len() <= self.books.held_most);
    }

    /// Nobody is let in whom a rule, a penalty or the limit of its source keeps out, or who would have a slot that is kept.
    fn is_welcome(&mut self, peer: &Peer, open: usize) {
        let source = self.books.source(peer);
        assert!(!self.books.is_denied(peer) && !self.admit.denies(peer));
        self.keeps_the_reserve(source, open);
        if source != Source::Unknown {
            assert!(!self.books.is_kept_out(source, self.now) || self.books.is_exempt(peer));
            assert!(self.books.children(source) + self.books.waiting(source) < self.books.most(peer));
        }
    }

    fn keeps_the_reserve(&mut self, source: Source, open: usize) {
        assert!(open < self.books.limits.children);
        assert!(open < self.books.common() || self.books.is_absent(source), "{source} has a kept slot");
        self.seen.admitted += 1;
        self.seen.reserve += u64::from(open >= self.books.common());
    }

    fn enters(&mut self, ticket: Ticket, source: Source) {
        self.books.slots.insert(ticket, source);
        self.books.moved(source, self.now);
    }

    /// One leaves the room without a slot.
    fn quits(&mut self, ticket: Ticket) {
        self.leaves_the_room(ticket);
        self.books.gone += 1;
        self.answer(ticket);
    }

    fn leaves_the_room(&mut self, ticket: Ticket) {
        let at = self.books.room.iter().position(|held| held.ticket == ticket).expect("it waits");
        let source = self.books.room.remove(at).source;
        self.books.moved(source, self.now);
    }

    fn paces(&mut self) {
        if let Some(rate) = self.books.limits.rate
            && waits(self.books.paced, rate, self.now).is_none()
        {
            self.books.paced = had(self.books.paced, rate, self.now);
        }
    }

    fn next_ticket(&mut self) -> Ticket {
        (self.ticket, self.books.came) = (self.ticket + 1, self.books.came + 1);
        self.ticket
    }

    fn is_told(&mut self, source: Source, news: bool, told: Option<Duration>) {
        let until = self.books.known.get(&source).map_or(0, |known| known.until);
        assert_eq!(told.map(nanos), news.then(|| until - self.now));
        self.seen.penalties += u64::from(news);
        self.answer(told.map_or(0, nanos));
    }

    /// What was said is part of what this life is recognised by.
    fn answer(&mut self, number: u64) {
        let print = self.seen.print ^ number ^ self.now.rotate_left(32);
        self.seen.print = print.wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        if let Some((_, _, said)) = self.last.back_mut() {
            *said = format!("{said} {number:#x}");
        }
    }

    fn is_in_order(&mut self) {
        let (admit, books, now) = (&self.admit, &self.books, self.instant());
        assert_eq!(admit.open(), books.slots.len());
        assert!(admit.open() <= books.limits.children);
        assert_eq!(admit.waiting(), books.room.len());
        assert!(admit.waiting() <= books.held_most && books.held_most <= admit.limits().places());
        assert_eq!(admit.refused().0, books.refused);
        assert_eq!(books.came, books.gone + (books.slots.len() + books.room.len()) as u64);
        self.seen.fullest = self.seen.fullest.max(admit.sources.idle_most());
        assert!(self.seen.fullest <= SOURCES_MOST);
        let until = match books.limits.on_full {
            OnFull::Queue { time, .. } => books.room.first().map(|held| held.since + nanos(time)),
            _ => None,
        };
        assert_eq!(admit.until(), until.map(|until| self.start + Duration::from_nanos(until)));
        for nameless in [false, true] {
            let expected = match books.look(nameless, self.now) {
                (false, _) => Look::WhenFree,
                (true, None) => Look::Now,
                (true, Some(until)) => Look::At(self.start + Duration::from_nanos(until)),
            };
            assert_eq!(admit.look(nameless, now), expected);
            match expected {
                Look::WhenFree => {
                    assert!(!books.slots.is_empty(), "there is nobody to wait for");
                    self.seen.paused[0] += 1;
                }
                Look::At(until) => {
                    assert_eq!(admit.look(nameless, until), Look::Now);
                    self.seen.paused[1] += 1;
                }
                Look::Now => {}
            }
        }
        if !books.room.is_empty() {
            assert!(admit.room.holds_together(|network| admit.is_here(network)));
        }
        if self.events.is_multiple_of(50 + 4 * books.known.len() as u64) {
            self.is_in_order_everywhere();
        }
    }

    /// Each source, each network, each place.
    fn is_in_order_everywhere(&self) {
        let (admit, books, now) = (&self.admit, &self.books, self.instant());
        let (mut sources, mut networks) = (BTreeMap::new(), BTreeMap::new());
        for source in books.slots.values().filter(|source| **source != Source::Unknown) {
            sources.entry(*source).or_insert((0, 0)).0 += 1;
            *networks.entry(source.network()).or_insert(0) += 1;
        }
        books.room.iter().for_each(|held| sources.entry(held.source).or_insert((0, 0)).1 += 1);
        assert_eq!(admit.networks, networks);
        assert_eq!(admit.slots, books.slots);
        for (source, entry) in admit.sources.iter() {
            let here = sources.remove(&source).unwrap_or_default();
            assert_eq!((entry.children, entry.waiting), here, "{source}");
            let known = books.known.get(&source).copied().unwrap_or_default();
            let time = |until: u64| (until > self.now).then(|| self.start + Duration::from_nanos(until));
            assert_eq!(entry.bucket.full_at(now), time(known.full), "{source}");
            assert_eq!(entry.earned.until(now), time(known.until), "{source}");
            let counts = time(known.until).filter(|_| known.counts);
            assert_eq!(entry.earned.keeps_out(now), counts, "{source}");
        }
        assert!(sources.is_empty(), "nothing is known of {sources:?}, who are here");
        let max = books.limits.penalties.max;
        let penalties: Vec<_> = admit.penalties(now).collect();
        assert!(penalties.iter().all(|(_, left)| !left.is_zero() && *left <= max));
        let kept_out = books.known.keys().filter(|source| books.is_kept_out(**source, self.now)).count();
        assert_eq!(penalties.len(), kept_out);
        let mut places: Vec<_> = books.room.iter().map(|held| admit.place(held.ticket)).collect();
        places.sort_unstable();
        assert!(places.into_iter().eq(1..=books.room.len()));
    }

    /// Children end, time passes, and nothing is left that anybody has to wait for.
    fn everything_ends(&mut self) {
        loop {
            while self.next_waiting() {}
            let Some(ticket) = self.some_ticket() else { break };
            self.leaves(ticket);
            self.is_in_order();
        }
        assert_eq!((self.admit.open(), self.admit.waiting()), (0, 0));
        self.is_in_order();
        self.is_in_order_everywhere();
        let longest = |rate: Option<Rate>| rate.map_or(0, |rate| interval(rate) * u64::from(rate.burst));
        let rates = [self.books.limits.rate_per_source, self.books.limits.rate];
        let pause = rates.map(longest).into_iter().max().unwrap_or(0).max(6 * 3600 * SECOND);
        for at in 0..self.peers.len() {
            self.now += pause.max(nanos(self.books.limits.penalties.max));
            let (peer, ticket, now) = (self.peers[at].clone(), self.next_ticket(), self.instant());
            let verdict = self.admit.arrives(ticket, &peer, now, u32::MAX);
            if self.books.is_denied(&peer) {
                assert_eq!(verdict, Verdict::Refuse(Reason::Denied));
            } else {
                assert_eq!(verdict, Verdict::Admit, "whatever {peer:?} did, it is over");
                self.admit.leaves(ticket, now);
            }
        }
        assert!(self.admit.sources.iter().all(|(_, entry)| entry.earned.until(self.instant()).is_none()));
    }
}

fn verdict_number(verdict: &Verdict) -> u64 {
    match verdict {
        Verdict::Admit => 1 << 32,
        Verdict::Wait => 2 << 32,
        Verdict::Refuse(why) => (3 + *why as u64) << 32,
    }
}

/// Says how to have a life again that went wrong.
impl Drop for Life {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("kind={:?} held_most={} {:#?}", self.kind, self.books.held_most, self.books.limits);
        eprintln!("exempt {:?}\nrules {:#?}", self.books.exempt, self.books.rules);
        for (now, what, said) in &self.last {
            eprintln!("{now:>20} {what:?}{said}");
        }
        eprintln!("after {} events; again with TINE_SEED={} ({:?})", self.events, self.seed, self.kind);
    }
}
