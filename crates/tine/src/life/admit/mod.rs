//! Admission: may another client come in? Pure: what is known and the time go in, a verdict comes out.
//!
//! No system call is made here and no clock is read, so that ten million random events can be tried in seconds, and the
//! same ones again. Every limit is a pause that ends by itself: a slot comes free with the next child that ends, a rate
//! refills, a penalty runs out, and whoever waits has a turn or a time at which the waiting ends.
//!
//! The order of questions is: is it allowed in at all ([`Rules`]); does its source have a penalty ([`Penalties`]), too many here, or
//! come too often; and is there a slot, or a place to wait for one ([`OnFull`]). The last slots are kept for networks
//! that have nobody here, so that a flood from ten thousand addresses of one leaves a way in for others.

pub(crate) mod bucket;
mod ledger;
mod penalty;
mod prefix;
mod room;
mod rules;
mod shared;
mod source;
mod sources;
mod span;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod together;
#[cfg(test)]
mod traces;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bucket::Bucket;
use room::Room;
use sources::{Entry, Sources};

pub use penalty::{Fault, Penalties};
pub use prefix::{PREFIXES_MOST, Prefix, Prefixes};
pub use room::Ticket;
#[doc(hidden)]
pub(crate) use rules::Written;
pub use rules::{
    CHILDREN_MOST, FILE_MOST, LINE_MOST, MESSAGE_MOST, RULES_MOST, Rule, RuleError, RuleId, Rules, Who,
};
pub(crate) use shared::ordinal;
pub use shared::{Gate, Outside, Remains, Version};
pub use source::{Mask, Source};
pub use sources::SOURCES_MOST;
pub use span::{Rate, Span};

use crate::peer::Peer;

/// How many clients wait in the room for slots that are not kept, with [`OnFull::Wait`]. More cannot be told from a flood.
pub const HELD_MOST: usize = 1024;

/// What clients are let in by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Children in all. Default 256.
    pub children: usize,
    /// Children of one source, those that wait counted. `None`, the default: a quarter of all, at least one.
    pub per_source: Option<usize>,
    /// What a client is told whose source has too many here.
    pub per_source_message: Option<String>,
    /// How many bits of an address a source has. Default 32 of IPv4, 64 of IPv6.
    pub mask: Mask,
    /// Slots that only networks (IPv4 /16, IPv6 /32) without a child get. `None`, the default: a tenth of all.
    pub reserve: Option<usize>,
    /// How fast clients are taken in all; more wait in the kernel's queue.
    pub rate: Option<Rate>,
    /// How fast the clients of one source may come; more are refused.
    pub rate_per_source: Option<Rate>,
    /// What becomes of clients that there is no slot for.
    pub on_full: OnFull,
    /// What a source earns by how its clients end. Default nothing.
    pub penalties: Penalties,
    /// Who never has a penalty.
    pub exempt: Prefixes,
    /// Who may come in at all, and with what limits of its own.
    pub rules: Rules,
}

/// What becomes of clients that there is no slot for.
///
/// Written `wait`, `queue:N:TIME[:MESSAGE]`, `refuse[:MESSAGE]` or `START:PERCENT:FULL`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// They wait: as many as [`HELD_MOST`] where slots are kept for others, and the rest in the kernel's queue.
    #[default]
    Wait,
    /// So many wait, each for so long at most, source after source; more are refused.
    Queue {
        /// How many.
        most: usize,
        /// For how long.
        time: Duration,
        /// What one that has to wait is told; `%d` is its place.
        message: Option<String>,
    },
    /// They are refused.
    Refuse {
        /// What they are told.
        message: Option<String>,
    },
    /// Refused at random, the more the fuller it is: sshd's MaxStartups.
    Early {
        /// From so many children on.
        start: usize,
        /// So many of a hundred are refused then,
        percent: u8,
        /// and all at so many children.
        full: usize,
    },
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has a slot.
    Admit,
    /// It waits for one: see [`Admit::next_waiting`].
    Wait,
    /// It goes, and why.
    Refuse(Reason),
}

/// Why a client is refused. Its name, as logs and counters have it, is its `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// `full`: there is no slot and no place to wait.
    Full,
    /// `early`: there is hardly a slot, and chance was against it.
    Early,
    /// `source`: its source has too many here.
    Source,
    /// `rate`: its source comes too often.
    Rate,
    /// `penalty`: its source is kept out.
    Penalty,
    /// `denied`: a rule says so.
    Denied,
    /// `late`: it has waited as long as one may.
    Late,
    /// `left`: it went away while it waited.
    Left,
    /// `untrusted`: it is no balancer that may speak for others.
    Untrusted,
    /// `proxy`: what a balancer said of it was no PROXY header, or came too late.
    Proxy,
    /// `ending`: the server is ending.
    Ending,
}

/// How often clients were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; Reason::ALL.len()]);

/// Whether to look for another client now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Yes.
    Now,
    /// When a child has ended.
    WhenFree,
    /// At this time: clients are taken as fast as they may be.
    At(Instant),
}

/// The state of admission.
#[derive(Clone, Debug)]
pub struct Admit {
    limits: Limits,
    held_most: usize,
    /// Whoever has a slot: the count of children is the number of entries.
    slots: BTreeMap<Ticket, Source>,
    /// How many children each network has.
    networks: BTreeMap<Source, u32>,
    sources: Sources,
    room: Room,
    pace: Bucket,
    refused: Refusals,
    /// Whom the last refusal keeps out from now on.
    penalised: Option<(Source, Duration)>,
}

/// What is asked of one client.
#[derive(Clone, Copy, Debug)]
struct Terms {
    source: Source,
    allowed: bool,
    exempt: bool,
    most: usize,
    rate: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            children: 256,
            per_source: None,
            per_source_message: None,
            mask: Mask::CLIENT,
            reserve: None,
            rate: None,
            rate_per_source: None,
            on_full: OnFull::Wait,
            penalties: Penalties::default(),
            exempt: Prefixes::default(),
            rules: Rules::default(),
        }
    }
}

impl Limits {
    /// Children of one source.
    pub fn of_one(&self) -> usize {
        self.per_source.unwrap_or(self.children / 4).max(1)
    }

    /// Slots that only networks without a child get.
    pub fn kept(&self) -> usize {
        self.reserve.unwrap_or(self.children / 10).min(self.children.saturating_sub(1))
    }

    /// How many may wait in the room.
    pub(crate) fn places(&self) -> usize {
        match self.on_full {
            OnFull::Wait if self.kept() > 0 => HELD_MOST,
            OnFull::Queue { most, .. } => most,
            _ => 0,
        }
    }
}

impl Admit {
    /// Nobody is here yet. `held_most`: how many connections may be held open that have no child.
    pub fn new(limits: Limits, held_most: usize) -> Admit {
        let held_most = limits.places().min(held_most);
        Admit {
            limits,
            held_most,
            slots: BTreeMap::new(),
            networks: BTreeMap::new(),
            sources: Sources::default(),
            room: Room::default(),
            pace: Bucket::default(),
            refused: Refusals::default(),
            penalised: None,
        }
    }

    /// What it goes by.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Other rules from now on. Whoever has a slot keeps it; whoever waits is asked again when its turn has come.
    pub fn set_rules(&mut self, rules: Rules) {
        self.limits.rules = rules;
    }

    /// How many have a slot.
    pub fn open(&self) -> usize {
        self.slots.len()
    }

    /// How many wait in the room.
    pub fn waiting(&self) -> usize {
        self.room.len()
    }

    /// How many sources something is remembered of: at most [`SOURCES_MOST`] of a family that have nobody here, and those
    /// that have.
    pub fn remembered(&self) -> usize {
        self.sources.len()
    }

    /// How many were refused, and why.
    pub fn refused(&self) -> Refusals {
        self.refused
    }

    /// Whether to look for another client. `nameless`: at a listener whose clients cannot be told apart yet.
    pub fn look(&self, nameless: bool, now: Instant) -> Look {
        let pace = self.limits.rate.and_then(|rate| self.pace.until(rate, now));
        match pace {
            _ if !self.has_room(nameless) => Look::WhenFree,
            Some(until) => Look::At(until),
            None => Look::Now,
        }
    }

    /// Whether there is something to look for another client for.
    fn has_room(&self, nameless: bool) -> bool {
        match self.limits.on_full {
            OnFull::Wait if nameless || self.held_most == 0 => self.open() < self.common(),
            OnFull::Wait => self.open() < self.limits.children,
            _ if nameless => self.open() < self.limits.children,
            _ => true,
        }
    }

    /// A client has come. `chance`: any number, each as likely as any other.
    pub fn arrives(&mut self, ticket: Ticket, peer: &Peer, now: Instant, chance: u32) -> Verdict {
        self.pace(now);
        let terms = self.terms(peer);
        let source = terms.source;
        if let Err(why) = self.may_come(&terms, now) {
            return self.refuse(&terms, why, now);
        }
        if let Some(why) = self.is_early(chance) {
            return self.count(why);
        }
        let here = self.is_here(source.network());
        let free = self.open() < self.common() && self.room.is_empty();
        if free || (!here && self.open() < self.limits.children) {
            self.comes(&terms, now);
            self.enters(ticket, source, now);
            return Verdict::Admit;
        }
        if self.held_most == 0 || !self.makes_place(source) {
            return self.count(Reason::Full);
        }
        self.comes(&terms, now);
        self.sources.change(source, now, |entry| entry.waiting += 1);
        self.room.enter(ticket, peer, source, here, now);
        Verdict::Wait
    }

    /// Whether one that a balancer is to name yet is turned away, so that no child has to find out who it is.
    pub fn turns_away(&mut self, chance: u32) -> Option<Reason> {
        let why = self.is_too_many(chance)?;
        self.count(why);
        Some(why)
    }

    fn is_too_many(&self, chance: u32) -> Option<Reason> {
        match self.limits.on_full {
            OnFull::Refuse { .. } if self.open() >= self.limits.children => Some(Reason::Full),
            _ => self.is_early(chance),
        }
    }

    /// A client has come that nothing is known of: a balancer that will name it, whoever sends to a socket that is lent.
    /// It has a slot; there is one, for otherwise nobody would have looked.
    pub fn arrives_nameless(&mut self, ticket: Ticket, now: Instant) {
        self.pace(now);
        self.enters(ticket, Source::Unknown, now);
    }

    /// One that came nameless has a name now: the second verdict, never to wait, for it has a slot.
    pub fn is_named(&mut self, ticket: Ticket, peer: &Peer, now: Instant) -> Verdict {
        let terms = self.terms(peer);
        if let Err(why) = self.may_come(&terms, now) {
            return self.refuse(&terms, why, now);
        }
        if self.open() > self.common() && self.is_here(terms.source.network()) {
            return self.count(Reason::Full);
        }
        if self.leaves(ticket, now).is_some() {
            self.comes(&terms, now);
            self.enters(ticket, terms.source, now);
        }
        Verdict::Admit
    }

    /// One that came nameless is its balancer's own: rules hold for it as for others, and what is asked of clients does not.
    pub fn is_own(&mut self, peer: &Peer) -> Verdict {
        if self.denies(peer) { self.count(Reason::Denied) } else { Verdict::Admit }
    }

    /// The next of those who wait, when there is something to be said to it: a slot is free, it has waited too long, or its
    /// source has a penalty by now, or a new rule keeps it out.
    pub fn next_waiting(&mut self, now: Instant) -> Option<(Ticket, Verdict)> {
        let (ticket, late) = self.turn(now)?;
        if late {
            self.quits(ticket, now);
            return Some((ticket, self.count(Reason::Late)));
        }
        let terms = self.terms(self.room.peer(ticket)?);
        let barred = self.bars(&terms, now);
        self.room.serve(ticket);
        self.quits(ticket, now);
        if let Err(why) = barred {
            return Some((ticket, self.count(why)));
        }
        self.enters(ticket, terms.source, now);
        Some((ticket, Verdict::Admit))
    }

    /// Whom [`Admit::next_waiting`] is about, and whether it is that it has waited too long.
    fn turn(&self, now: Instant) -> Option<(Ticket, bool)> {
        if let OnFull::Queue { time, .. } = self.limits.on_full
            && let Some((ticket, since)) = self.room.oldest()
            && now.saturating_duration_since(since) >= time
        {
            return Some((ticket, true));
        }
        if self.open() >= self.limits.children {
            return None;
        }
        let ticket = self.room.next(self.open() >= self.common())?;
        Some((ticket, false))
    }

    /// Who has to leave the room because another may come in: to be asked after each verdict to wait.
    pub fn next_shed(&mut self, now: Instant) -> Option<Ticket> {
        if !self.is_crowded() {
            return None;
        }
        let ticket = self.room.last_of_heaviest()?;
        self.quits(ticket, now);
        self.count(Reason::Full);
        Some(ticket)
    }

    /// One that waits has gone. `false`: it does not wait.
    pub fn gives_up(&mut self, ticket: Ticket, now: Instant) -> bool {
        let waits = self.quits(ticket, now).is_some();
        if waits {
            self.count(Reason::Left);
        }
        waits
    }

    /// One that waits is told that the server is ending.
    pub(crate) fn closes(&mut self, ticket: Ticket, now: Instant) {
        if self.quits(ticket, now).is_some() {
            self.count(Reason::Ending);
        }
    }

    /// When the one who has waited longest has waited too long.
    pub fn until(&self) -> Option<Instant> {
        let OnFull::Queue { time, .. } = self.limits.on_full else { return None };
        self.room.oldest().and_then(|(_, since)| since.checked_add(time))
    }

    /// A child has ended, or never came to be: its slot is free. Gives its source.
    pub fn leaves(&mut self, ticket: Ticket, now: Instant) -> Option<Source> {
        let source = self.slots.remove(&ticket)?;
        if source != Source::Unknown {
            self.sources.change(source, now, |entry| entry.children -= 1);
            let network = source.network();
            if let Some(count) = self.networks.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    self.networks.remove(&network);
                    self.room.shift(network, false);
                }
            }
        }
        Some(source)
    }

    /// Whether a rule keeps this client out.
    pub fn denies(&self, peer: &Peer) -> bool {
        self.limits.rules.of(peer).is_some_and(|(_, rule)| !rule.allow)
    }

    /// How many children the source of this client has.
    pub fn count_of(&self, peer: &Peer) -> usize {
        self.sources.get(Source::of(peer, self.limits.mask)).children as usize
    }

    /// The place in the room of one that waits: 1 is the next.
    pub fn place(&self, ticket: Ticket) -> usize {
        self.room.place(ticket)
    }

    /// The source of a client has earned what this fault costs; tells for how long it is kept out if that is news.
    pub fn earns(&mut self, peer: &Peer, fault: Fault, now: Instant) -> Option<Duration> {
        let Terms { source, exempt, .. } = self.terms(peer);
        if exempt { None } else { self.earn(source, self.limits.penalties.of(fault), now) }
    }

    /// Whom the last refusal keeps out from now on, and for how long, if that is news: to be asked after each refusal.
    pub fn penalised(&mut self) -> Option<(Source, Duration)> {
        self.penalised.take()
    }

    /// Who is kept out, and for how long still.
    pub fn penalties(&self, now: Instant) -> impl Iterator<Item = (Source, Duration)> {
        let kept_out =
            move |(source, entry): (Source, &Entry)| Some((source, entry.earned.keeps_out(now)? - now));
        self.sources.iter().filter_map(kept_out)
    }

    /// Keeps a source out for so long, added to what it has earned itself.
    pub fn penalise(&mut self, source: Source, time: Duration, now: Instant) -> Option<Duration> {
        self.earn(source, time, now)
    }

    /// Forgets what a source has earned.
    pub fn forgive(&mut self, source: Source, now: Instant) {
        self.sources.change(source, now, |entry| entry.earned = Default::default());
    }

    /// Counts a refusal that was not decided here.
    pub fn count(&mut self, why: Reason) -> Verdict {
        self.refused.0[why as usize] += 1;
        Verdict::Refuse(why)
    }

    /// What a client is told that is refused, if anything.
    pub fn message(&self, peer: &Peer, why: Reason) -> Option<&str> {
        match (why, &self.limits.on_full) {
            (Reason::Source, _) => self.limits.per_source_message.as_deref(),
            (Reason::Denied, _) => self.limits.rules.of(peer).and_then(|(_, rule)| rule.message.as_deref()),
            (Reason::Full, OnFull::Refuse { message }) => message.as_deref(),
            _ => None,
        }
    }

    fn is_crowded(&self) -> bool {
        self.room.len() > self.held_most
    }

    /// Asks something by other rules than those that hold now.
    fn judged_by<R>(&mut self, rules: Rules, ask: impl FnOnce(&mut Admit) -> R) -> R {
        let current = std::mem::replace(&mut self.limits.rules, rules);
        let answer = ask(self);
        self.limits.rules = current;
        answer
    }

    /// Whether two are in the same state, by whatever limits.
    #[cfg(test)]
    fn is_same(&self, other: &Admit) -> bool {
        let parts = |admit: &Admit| (admit.held_most, admit.pace, admit.refused, admit.penalised);
        parts(self) == parts(other)
            && self.slots == other.slots
            && self.networks == other.networks
            && self.sources == other.sources
            && self.room == other.room
    }

    /// Slots that anybody may have.
    fn common(&self) -> usize {
        self.limits.children - self.limits.kept()
    }

    fn pace(&mut self, now: Instant) {
        if let Some(rate) = self.limits.rate {
            self.pace.take(rate, now);
        }
    }

    /// What is asked of this client: by the rule about it, or else by what holds for all. Looked up once.
    fn terms(&self, peer: &Peer) -> Terms {
        let limits = &self.limits;
        let rule = limits.rules.of(peer).map(|(_, rule)| rule);
        let own = rule.and_then(|rule| rule.children).map(|most| most as usize);
        Terms {
            source: Source::of(peer, limits.mask),
            allowed: rule.is_none_or(|rule| rule.allow),
            exempt: rule.is_some_and(|rule| rule.exempt)
                || peer.ip().is_some_and(|ip| limits.exempt.contains(ip)),
            most: own.unwrap_or_else(|| limits.of_one()),
            rate: rule.and_then(|rule| rule.rate).or(limits.rate_per_source),
        }
    }

    /// Whether a rule or a penalty keeps it out, wherever it stands.
    fn bars(&self, terms: &Terms, now: Instant) -> Result<(), Reason> {
        if !terms.allowed {
            return Err(Reason::Denied);
        }
        let kept_out = !terms.exempt && self.sources.get(terms.source).earned.keeps_out(now).is_some();
        if kept_out { Err(Reason::Penalty) } else { Ok(()) }
    }

    fn may_come(&self, terms: &Terms, now: Instant) -> Result<(), Reason> {
        self.bars(terms, now)?;
        if terms.source == Source::Unknown {
            return Ok(());
        }
        let known = self.sources.get(terms.source);
        if (known.children + known.waiting) as usize >= terms.most {
            return Err(Reason::Source);
        }
        match terms.rate {
            Some(rate) if known.bucket.until(rate, now).is_some() => Err(Reason::Rate),
            _ => Ok(()),
        }
    }

    /// It has come in, or waits: that counts against its rate.
    fn comes(&mut self, terms: &Terms, now: Instant) {
        if let Some(rate) = terms.rate
            && terms.source != Source::Unknown
        {
            self.sources.change(terms.source, now, |entry| entry.bucket.take(rate, now));
        }
    }

    /// Whether chance is against one more: from `start` children on `percent` of a hundred are refused, then ever more, and
    /// all from `full` on.
    fn is_early(&self, chance: u32) -> Option<Reason> {
        let OnFull::Early { start, percent, full } = self.limits.on_full else { return None };
        let open = self.open();
        if open < start || open >= full {
            return (open >= full).then_some(Reason::Full);
        }
        let rising = 100_u64.saturating_sub(percent.into()) * (open - start) as u64 / (full - start) as u64;
        let drawn = (u64::from(chance) * 100) >> 32;
        (drawn < u64::from(percent) + rising).then_some(Reason::Early)
    }

    fn enters(&mut self, ticket: Ticket, source: Source, now: Instant) {
        self.slots.insert(ticket, source);
        if source != Source::Unknown {
            self.sources.change(source, now, |entry| entry.children += 1);
            let network = source.network();
            let count = self.networks.entry(network).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.room.shift(network, true);
            }
        }
    }

    fn quits(&mut self, ticket: Ticket, now: Instant) -> Option<Source> {
        let source = self.room.source(ticket)?;
        self.room.leave(ticket, self.is_here(source.network()))?;
        self.sources.change(source, now, |entry| entry.waiting -= 1);
        Some(source)
    }

    /// Whether a network is none that slots are kept for. Those who cannot be told from anybody have none.
    fn is_here(&self, network: Source) -> bool {
        network == Source::Unknown || self.networks.contains_key(&network)
    }

    /// Whether one more may wait. Where the room is full, that is so if another has to go for it: [`Admit::next_shed`].
    fn makes_place(&self, source: Source) -> bool {
        self.room.len() < self.held_most || self.room.heaviest(source.network()).is_some()
    }

    fn refuse(&mut self, terms: &Terms, why: Reason, now: Instant) -> Verdict {
        if matches!(why, Reason::Source | Reason::Rate) && !terms.exempt {
            let time = self.earn(terms.source, self.limits.penalties.refused, now);
            self.penalised = time.map(|time| (terms.source, time));
        }
        self.count(why)
    }

    fn earn(&mut self, source: Source, time: Duration, now: Instant) -> Option<Duration> {
        if time.is_zero() || source == Source::Unknown {
            return None;
        }
        let penalties = &self.limits.penalties;
        let news = self.sources.change(source, now, |entry| entry.earned.add(time, penalties, now));
        let until = self.sources.get(source).earned.keeps_out(now).filter(|_| news)?;
        Some(until - now)
    }
}

impl Reason {
    /// All there are, in the order of their numbers.
    pub const ALL: [Reason; 11] = [
        Reason::Full,
        Reason::Early,
        Reason::Source,
        Reason::Rate,
        Reason::Penalty,
        Reason::Denied,
        Reason::Late,
        Reason::Left,
        Reason::Untrusted,
        Reason::Proxy,
        Reason::Ending,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Full => "full",
            Reason::Early => "early",
            Reason::Source => "source",
            Reason::Rate => "rate",
            Reason::Penalty => "penalty",
            Reason::Denied => "denied",
            Reason::Late => "late",
            Reason::Left => "left",
            Reason::Untrusted => "untrusted",
            Reason::Proxy => "proxy",
            Reason::Ending => "ending",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Refusals {
    pub(crate) fn new(counts: [u64; Reason::ALL.len()]) -> Refusals {
        Refusals(counts)
    }

    /// How many for this reason.
    pub fn of(&self, why: Reason) -> u64 {
        self.0[why as usize]
    }

    /// How many in all.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl FromStr for OnFull {
    type Err = String;

    fn from_str(text: &str) -> Result<OnFull, String> {
        const FORM: &str = "it is wait, queue:N:TIME[:MESSAGE], refuse[:MESSAGE] or START:PERCENT:FULL";
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| (1..=1_000_000).contains(n));
        let words: Vec<_> = text.splitn(4, ':').collect();
        let message = |words: &[&str]| Some(words.join(":")).filter(|message| !message.is_empty());
        match words[..] {
            ["wait"] => Ok(OnFull::Wait),
            ["refuse", ref rest @ ..] => Ok(OnFull::Refuse { message: message(rest) }),
            ["queue", most, time, ref rest @ ..] => {
                let most =
                    number(most).ok_or_else(|| format!("'{most}' is no number of clients that wait"))?;
                let Span(time) = time.parse()?;
                Ok(OnFull::Queue { most, time, message: message(rest) })
            }
            [start, percent, full] => {
                let form = || FORM.to_owned();
                let (start, full) = number(start).zip(number(full)).ok_or_else(form)?;
                let percent: u8 = percent.parse().ok().filter(|n| (1..=100).contains(n)).ok_or_else(form)?;
                if start > full {
                    return Err(format!("{start} children to begin with are more than {full} to end with"));
                }
                Ok(OnFull::Early { start, percent, full })
            }
            _ => Err(FORM.into()),
        }
    }
}
