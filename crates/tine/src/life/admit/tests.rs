//! Each limit at one below, at it, one above, after release and after tenfold overload; and each answer there is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tine_os::identity::Credentials;
use tine_os::socket::Addr;

use super::*;

/// One client of each kind that can be told from others.
const KINDS: [&str; 6] =
    ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "user:1000", "user:1000 abstract", "vsock:3"];

/// One whom nobody can tell from anybody.
const UNKNOWN: &str = "unknown";

fn peer(text: &str) -> Peer {
    let number = |text: &str| text.parse::<u32>().unwrap();
    let unix = |addr: Addr, uid: Option<u32>| Peer {
        addr,
        credentials: uid.map(|uid| Credentials { pid: 7, uid, gid: 7 }),
    };
    if text == UNKNOWN {
        return unix(Addr::Path("/run/client".into()), None);
    }
    if let Some(cid) = text.strip_prefix("vsock:") {
        return Peer { addr: Addr::Vsock { cid: number(cid), port: 1023 }, credentials: None };
    }
    match text.strip_prefix("user:").map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
        Some((uid, "abstract")) => unix(Addr::Abstract(b"name".to_vec()), Some(number(uid))),
        Some((uid, _)) => unix(Addr::Unnamed, Some(number(uid))),
        None => Peer { addr: Addr::Inet(SocketAddr::new(text.parse().unwrap(), 5023)), credentials: None },
    }
}

fn source(text: &str) -> Source {
    Source::of(&peer(text), Mask::CLIENT)
}

/// The client of this number from a network: `10.NETWORK.x.y`.
fn of_network(network: u8, number: u16) -> String {
    let [high, low] = number.to_be_bytes();
    format!("10.{network}.{high}.{low}")
}

/// A server, and what time it is there.
struct House {
    admit: Admit,
    now: Instant,
    ticket: Ticket,
}

/// A house where one source may have all there is and no slot is kept, so that each test says what it is about.
fn house(change: impl FnOnce(&mut Limits)) -> House {
    let mut limits = Limits { children: 100, per_source: Some(100), reserve: Some(0), ..Limits::default() };
    change(&mut limits);
    House { admit: Admit::new(limits, usize::MAX), now: Instant::now(), ticket: 0 }
}

impl House {
    fn comes(&mut self, who: &str) -> Verdict {
        self.comes_by_chance(who, u32::MAX)
    }

    fn comes_by_chance(&mut self, who: &str, chance: u32) -> Verdict {
        self.ticket += 1;
        self.admit.arrives(self.ticket, &peer(who), self.now, chance)
    }

    /// So many come; gives what becomes of the last.
    fn come(&mut self, who: &str, times: usize) -> Verdict {
        (0..times).map(|_| self.comes(who)).last().unwrap()
    }

    fn comes_nameless(&mut self) -> Ticket {
        self.ticket += 1;
        self.admit.arrives_nameless(self.ticket, self.now);
        self.ticket
    }

    fn leaves(&mut self, ticket: Ticket) {
        assert!(self.admit.leaves(ticket, self.now).is_some());
    }

    fn passes(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    /// All whose turn it is.
    fn called(&mut self) -> Vec<(Ticket, Verdict)> {
        std::iter::from_fn(|| self.admit.next_waiting(self.now)).collect()
    }

    fn shed(&mut self) -> Vec<Ticket> {
        std::iter::from_fn(|| self.admit.next_shed(self.now)).collect()
    }

    fn penalty(&self, who: &str) -> Option<u64> {
        let mut all = self.admit.penalties(self.now);
        all.find(|(other, _)| *other == source(who)).map(|(_, left)| left.as_millis() as u64)
    }
}

fn queue(most: usize, ms: u64) -> OnFull {
    OnFull::Queue { most, time: Duration::from_millis(ms), message: None }
}

fn refuse() -> OnFull {
    OnFull::Refuse { message: None }
}

fn refused(why: Reason) -> Verdict {
    Verdict::Refuse(why)
}

fn rules(text: &str) -> Rules {
    Rules::parse(text, &|_| None).unwrap()
}

#[test]
fn what_is_not_said_is_a_share_of_all_children() {
    for (children, of_one, kept) in
        [(1, 1, 0), (3, 1, 0), (4, 1, 0), (8, 2, 0), (9, 2, 0), (10, 2, 1), (256, 64, 25)]
    {
        let limits = Limits { children, ..Limits::default() };
        assert_eq!((limits.of_one(), limits.kept()), (of_one, kept), "of {children}");
    }
    let limits = Limits { per_source: Some(0), reserve: Some(300), ..Limits::default() };
    assert_eq!((limits.of_one(), limits.kept()), (1, 255), "a limit that lets nobody in is none");
    assert_eq!(Limits { children: 0, ..Limits::default() }.kept(), 0);
}

#[test]
fn only_where_somebody_may_have_to_wait_are_there_places() {
    let places = |reserve, on_full| Limits { reserve: Some(reserve), on_full, ..Limits::default() }.places();
    assert_eq!(places(0, OnFull::Wait), 0, "the kernel's queue is the room");
    assert_eq!(places(1, OnFull::Wait), HELD_MOST);
    assert_eq!(places(1, queue(7, 1)), 7);
    assert_eq!(places(1, refuse()), 0);
    assert_eq!(places(1, OnFull::Early { start: 1, percent: 1, full: 1 }), 0);
}

#[test]
fn a_source_has_as_many_as_it_may_and_gets_more_when_it_has_fewer() {
    for who in KINDS {
        let mut house = house(|limits| limits.per_source = Some(3));
        assert_eq!(
            [0; 4].map(|_| house.comes(who)),
            [Verdict::Admit, Verdict::Admit, Verdict::Admit, refused(Reason::Source)]
        );
        house.leaves(2);
        assert_eq!(house.comes(who), Verdict::Admit, "{who}");
        assert_eq!(house.come(who, 30), refused(Reason::Source), "{who}");
        assert_eq!((house.admit.open(), house.admit.count_of(&peer(who))), (3, 3));
        assert_eq!(house.admit.refused().of(Reason::Source), 31);
        [1, 3, 5].into_iter().for_each(|ticket| house.leaves(ticket));
        assert_eq!((house.admit.open(), house.admit.remembered()), (0, 0), "{who}");
        assert_eq!(house.come(who, 3), Verdict::Admit, "{who}");
        assert_eq!(house.comes("192.0.2.9"), Verdict::Admit, "others are others");
    }
}

#[test]
fn those_who_cannot_be_told_apart_are_no_source() {
    let mut house = house(|limits| {
        limits.per_source = Some(1);
        limits.rate_per_source = Some("1/h".parse().unwrap());
        limits.penalties = "crash=1h".parse().unwrap();
    });
    assert_eq!(house.admit.earns(&peer(UNKNOWN), Fault::Crash, house.now), None);
    assert_eq!(house.come(UNKNOWN, 100), Verdict::Admit);
    assert_eq!(house.admit.penalise(Source::Unknown, Duration::from_secs(60), house.now), None);
    assert_eq!((house.admit.count_of(&peer(UNKNOWN)), house.admit.remembered()), (0, 0));
    assert_eq!(house.admit.leaves(7, house.now), Some(Source::Unknown));
    assert_eq!(house.comes(UNKNOWN), Verdict::Admit);
}

#[test]
fn a_source_is_an_address_a_prefix_a_user_or_a_machine() {
    let same = |one: &str, other: &str| {
        let mut house = house(|limits| limits.per_source = Some(1));
        assert_eq!(house.comes(one), Verdict::Admit);
        house.comes(other) == refused(Reason::Source)
    };
    assert!(same("10.0.0.1", "::ffff:10.0.0.1"));
    assert!(same("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"));
    assert!(same("user:1000", "user:1000 abstract"));
    for (one, other) in [
        ("10.0.0.1", "10.0.0.2"),
        ("2001:db8::1", "2001:db8:0:1::1"),
        ("user:1000", "user:1001"),
        ("vsock:3", "vsock:4"),
        ("vsock:1000", "user:1000"),
        ("0.0.3.232", "user:1000"),
        ("::a00:1", "10.0.0.1"),
    ] {
        assert!(!same(one, other), "{one} and {other}");
    }
    let mut house = house(|limits| {
        (limits.per_source, limits.mask) = (Some(1), Mask { v4: 24, v6: 48 });
    });
    assert_eq!(house.comes("10.0.0.1"), Verdict::Admit);
    assert_eq!(house.comes("10.0.0.255"), refused(Reason::Source));
    assert_eq!(house.comes("10.0.1.0"), Verdict::Admit);
    assert_eq!(house.comes("2001:db8:7::1"), Verdict::Admit);
    assert_eq!(house.comes("2001:db8:7:ffff::1"), refused(Reason::Source));
    assert_eq!(house.comes("2001:db8:8::1"), Verdict::Admit);
}

#[test]
fn there_are_as_many_children_as_there_may_be() {
    for who in KINDS.into_iter().chain([UNKNOWN]) {
        let mut house = house(|limits| (limits.children, limits.on_full) = (3, refuse()));
        assert_eq!(house.come(who, 3), Verdict::Admit, "{who}");
        assert_eq!(house.comes(who), refused(Reason::Full), "{who}");
        assert_eq!(house.come(who, 30), refused(Reason::Full), "{who}");
        assert_eq!((house.admit.open(), house.admit.refused().of(Reason::Full)), (3, 31));
        house.leaves(1);
        assert_eq!([0; 2].map(|_| house.comes(who)), [Verdict::Admit, refused(Reason::Full)], "{who}");
        assert_eq!(house.admit.refused().sum(), 32);
    }
}

#[test]
fn nobody_is_looked_for_while_all_slots_are_taken() {
    let mut house = house(|limits| limits.children = 3);
    for open in 0..3 {
        assert_eq!(house.admit.look(false, house.now), Look::Now, "{open} of 3");
        assert_eq!(house.comes("10.0.0.1"), Verdict::Admit);
    }
    assert_eq!([false, true].map(|nameless| house.admit.look(nameless, house.now)), [Look::WhenFree; 2]);
    house.leaves(2);
    assert_eq!([false, true].map(|nameless| house.admit.look(nameless, house.now)), [Look::Now; 2]);
}

#[test]
fn who_is_looked_for_depends_on_what_there_is_for_those_without_a_slot() {
    let looks = |held_most, on_full| {
        let limits = Limits { children: 4, reserve: Some(2), on_full, ..Limits::default() };
        let mut admit = Admit::new(limits, held_most);
        let now = Instant::now();
        let mut looks = Vec::new();
        for ticket in 1..=5 {
            looks.push([false, true].map(|nameless| admit.look(nameless, now) == Look::Now));
            admit.arrives_nameless(ticket, now);
        }
        looks
    };
    let all = [true; 2];
    assert_eq!(looks(9, OnFull::Wait), [all, all, [true, false], [true, false], [false; 2]]);
    assert_eq!(
        looks(0, OnFull::Wait),
        [all, all, [false; 2], [false; 2], [false; 2]],
        "no descriptors to hold"
    );
    for on_full in [queue(5, 1000), refuse(), OnFull::Early { start: 1, percent: 50, full: 3 }] {
        assert_eq!(looks(9, on_full.clone()), [all, all, all, all, [true, false]], "{on_full:?}");
    }
}

#[test]
fn the_last_slots_are_for_networks_that_have_nobody_here() {
    let networks = [
        ["10.0.0.1", "10.1.0.1", "10.2.0.1"],
        ["::ffff:10.0.0.1", "10.1.0.1", "2001:db8::1"],
        ["2001:db8::1", "2001:db9::1", "2001:dba::1"],
        ["user:1000", "user:1001 abstract", "user:1002"],
        ["vsock:3", "vsock:4", "user:3"],
    ];
    for [first, second, third] in networks {
        let mut house =
            house(|limits| (limits.children, limits.reserve, limits.on_full) = (4, Some(2), refuse()));
        assert_eq!(house.come(first, 2), Verdict::Admit);
        assert_eq!(house.come(first, 20), refused(Reason::Full), "{first}: the others are kept");
        assert_eq!(house.comes(second), Verdict::Admit, "{second} has nobody here");
        assert_eq!(house.comes(second), refused(Reason::Full), "{second} has somebody here");
        assert_eq!(house.comes(UNKNOWN), refused(Reason::Full), "they have no network");
        assert_eq!(house.comes(third), Verdict::Admit);
        assert_eq!(house.comes("192.0.2.7"), refused(Reason::Full), "all are taken");
        house.leaves(1);
        assert_eq!(house.comes(first), refused(Reason::Full), "one of those that are kept is free");
        assert_eq!(house.comes("192.0.2.7"), Verdict::Admit);
        house.leaves(2);
        assert_eq!(house.comes(first), Verdict::Admit, "it has nobody here any more");
    }
}

#[test]
fn addresses_of_one_network_are_one_network() {
    let mut house =
        house(|limits| (limits.children, limits.reserve, limits.on_full) = (12, Some(10), refuse()));
    for (who, verdict) in [
        ("10.0.0.1", Verdict::Admit),
        ("2001:db8::1", Verdict::Admit),
        ("10.0.255.255", refused(Reason::Full)),
        ("2001:db8:ffff::1", refused(Reason::Full)),
        ("10.1.0.0", Verdict::Admit),
        ("2001:db9::1", Verdict::Admit),
    ] {
        assert_eq!(house.comes(who), verdict, "{who}");
    }
}

#[test]
fn ten_thousand_sources_of_one_network_leave_a_way_in_for_others() {
    for on_full in
        [OnFull::Wait, queue(64, 60_000), refuse(), OnFull::Early { start: 10, percent: 1, full: 40 }]
    {
        let mut house = house(|limits| {
            *limits = Limits { children: 40, on_full: on_full.clone(), ..Limits::default() };
        });
        for number in 0..10_000 {
            house.comes(&of_network(9, number));
            house.shed();
        }
        assert_eq!(house.admit.open(), 36, "{on_full:?}");
        assert_eq!(house.comes("192.0.2.7"), Verdict::Admit, "{on_full:?}");
        assert_eq!(house.comes("2001:db8::1"), Verdict::Admit, "{on_full:?}");
        let counted = house.admit.open() + house.admit.waiting() + house.admit.refused().sum() as usize;
        assert_eq!(counted, 10_002, "{on_full:?}");
    }
}

#[test]
fn a_source_comes_as_fast_as_it_may_and_again_when_its_time_has_come() {
    for who in KINDS {
        let mut house = house(|limits| limits.rate_per_source = Some("2/s:3".parse().unwrap()));
        assert_eq!(house.come(who, 3), Verdict::Admit, "{who}");
        assert_eq!(house.come(who, 30), refused(Reason::Rate), "{who}");
        assert_eq!(house.comes("192.0.2.7"), Verdict::Admit, "others are others");
        house.passes(499);
        assert_eq!(house.comes(who), refused(Reason::Rate), "{who}");
        house.passes(1);
        assert_eq!([0; 2].map(|_| house.comes(who)), [Verdict::Admit, refused(Reason::Rate)], "{who}");
        assert_eq!(house.admit.refused().of(Reason::Rate), 32);
        house.passes(1_500);
        assert_eq!(house.come(who, 3), Verdict::Admit, "{who}: as many as at the beginning");
        assert_eq!(house.comes(who), refused(Reason::Rate), "{who}");
    }
}

#[test]
fn whoever_is_refused_does_not_use_up_a_rate_and_whoever_waits_does() {
    let mut house = house(|limits| {
        limits.children = 1;
        limits.rate_per_source = Some("1/s:2".parse().unwrap());
        limits.on_full = refuse();
    });
    assert_eq!(house.comes("192.0.2.7"), Verdict::Admit);
    assert_eq!(house.come("10.0.0.1", 10), refused(Reason::Full));
    house.leaves(1);
    assert_eq!(house.comes("10.0.0.1"), Verdict::Admit);

    house.admit.limits.on_full = queue(10, 60_000);
    house.admit.held_most = 10;
    assert_eq!(house.comes("10.0.0.1"), Verdict::Wait);
    assert_eq!(house.comes("10.0.0.1"), refused(Reason::Rate));
}

#[test]
fn all_together_come_as_fast_as_they_may() {
    let mut house = house(|limits| limits.rate = Some("10/s:3".parse().unwrap()));
    let kinds = ["10.0.0.1", "2001:db8::1"];
    for who in kinds {
        assert_eq!(house.admit.look(false, house.now), Look::Now);
        assert_eq!(house.comes(who), Verdict::Admit);
    }
    house.comes_nameless();
    let until = house.now + Duration::from_millis(100);
    for nameless in [false, true] {
        assert_eq!(house.admit.look(nameless, house.now), Look::At(until));
        assert_eq!(house.admit.look(nameless, until - Duration::from_nanos(1)), Look::At(until));
        assert_eq!(house.admit.look(nameless, until), Look::Now);
    }
    // Whoever is taken all the same, from another listener at the same moment, makes the pause no longer.
    assert_eq!(house.come("10.0.0.1", 30), Verdict::Admit);
    assert_eq!(house.admit.look(false, until), Look::Now);
    house.passes(300);
    for _ in 0..3 {
        assert_eq!(house.admit.look(true, house.now), Look::Now);
        house.comes_nameless();
    }
    assert_ne!(house.admit.look(true, house.now), Look::Now);
}

#[test]
fn those_who_are_refused_count_against_the_rate_of_all() {
    let mut house = house(|limits| {
        limits.rate = Some("1/s:2".parse().unwrap());
        limits.rules = rules("deny 10.0.0.0/8");
    });
    assert_eq!(house.come("10.0.0.1", 2), refused(Reason::Denied));
    assert_eq!(house.admit.look(false, house.now), Look::At(house.now + Duration::from_secs(1)));
    for _ in 0..100 {
        house.comes_nameless();
    }
    assert_eq!(house.admit.look(false, house.now), Look::WhenFree, "there is no slot either");
}

#[test]
fn the_room_is_for_those_whose_network_is_here_while_slots_are_kept() {
    let mut house = house(|limits| (limits.children, limits.reserve) = (4, Some(2)));
    assert_eq!(house.come("10.0.0.1", 2), Verdict::Admit);
    assert_eq!(house.comes("10.0.0.1"), Verdict::Wait);
    assert_eq!((house.admit.waiting(), house.admit.place(3)), (1, 1));
    assert_eq!(house.called(), [], "its network is here");
    assert_eq!(house.comes("10.1.0.1"), Verdict::Admit);
    house.leaves(4);
    assert_eq!(house.called(), [], "that slot is kept");
    house.leaves(1);
    assert_eq!(house.called(), [(3, Verdict::Admit)]);
    assert_eq!((house.admit.open(), house.admit.waiting()), (2, 0));

    assert_eq!(house.comes("10.0.0.1"), Verdict::Wait);
    [2, 3].into_iter().for_each(|ticket| house.leaves(ticket));
    assert_eq!(house.comes("10.0.0.2"), Verdict::Admit, "a network that has nobody here does not wait");
    assert_eq!(house.called(), [(5, Verdict::Admit)]);
}

#[test]
fn one_who_waits_has_a_kept_slot_once_its_network_has_nobody_here() {
    let mut house =
        house(|limits| (limits.children, limits.reserve, limits.on_full) = (3, Some(1), queue(9, 9_000)));
    assert_eq!(["10.0.0.1", "10.1.0.1", "10.2.0.1"].map(|who| house.comes(who)), [Verdict::Admit; 3]);
    assert_eq!(["10.0.0.1", "10.1.0.1", "10.3.0.1"].map(|who| house.comes(who)), [Verdict::Wait; 3]);
    house.leaves(2);
    assert_eq!(house.called(), [(5, Verdict::Admit)], "10.1 has nobody here, and came before 10.3");
    house.leaves(3);
    assert_eq!(house.called(), [(6, Verdict::Admit)], "10.3 has nobody here, 10.0 has");
    house.leaves(6);
    assert_eq!(house.called(), [], "two are here, the third slot is kept");
    house.leaves(5);
    assert_eq!(house.called(), [(4, Verdict::Admit)]);
    assert_eq!(
        ["10.1.0.1", "10.3.0.1", "10.3.0.2"].map(|who| house.comes(who)),
        [Verdict::Admit, Verdict::Wait, Verdict::Wait]
    );
    house.leaves(7);
    assert_eq!(house.called(), [(8, Verdict::Admit)]);
    house.leaves(1);
    assert_eq!(house.called(), [], "only the first of two: its network is here now, and two slots are taken");
}

#[test]
fn those_who_cannot_be_told_apart_wait_for_slots_that_are_not_kept() {
    let mut house = house(|limits| (limits.children, limits.reserve) = (4, Some(2)));
    assert_eq!(house.come(UNKNOWN, 2), Verdict::Admit);
    assert_eq!(house.comes(UNKNOWN), Verdict::Wait);
    assert_eq!(house.called(), [], "two slots are free, but kept");
    house.leaves(1);
    assert_eq!(house.comes(UNKNOWN), Verdict::Wait, "whoever waits goes before it");
    assert_eq!(house.called(), [(3, Verdict::Admit)]);
    assert!(house.admit.gives_up(4, house.now));
    assert_eq!(house.admit.remembered(), 0);
}

#[test]
fn a_queue_has_as_many_as_it_may() {
    for who in KINDS.into_iter().chain([UNKNOWN]) {
        let mut house = house(|limits| (limits.children, limits.on_full) = (1, queue(3, 60_000)));
        assert_eq!(house.comes(who), Verdict::Admit);
        assert_eq!(house.come(who, 3), Verdict::Wait, "{who}");
        assert_eq!(house.comes(who), refused(Reason::Full), "{who}");
        assert_eq!(house.come(who, 30), refused(Reason::Full), "{who}");
        assert_eq!((house.admit.waiting(), house.admit.refused().of(Reason::Full)), (3, 31));
        assert_eq!([2, 3, 4, 5].map(|ticket| house.admit.place(ticket)), [1, 2, 3, 0]);
        assert_eq!(house.called(), [], "{who}");
        house.leaves(1);
        assert_eq!(house.called(), [(2, Verdict::Admit)], "{who}: only one slot is free");
        assert_eq!(house.comes(who), Verdict::Wait, "{who}: and one place");
        assert_eq!(house.comes(who), refused(Reason::Full), "{who}");
    }
    let mut house = house(|limits| (limits.children, limits.on_full) = (1, queue(0, 60_000)));
    assert_eq!([0; 2].map(|_| house.comes("10.0.0.1")), [Verdict::Admit, refused(Reason::Full)]);
}

#[test]
fn what_may_be_held_open_bounds_a_queue_too() {
    let limits = Limits { children: 1, per_source: Some(9), on_full: queue(5, 1_000), ..Limits::default() };
    let (mut admit, now, who) = (Admit::new(limits, 2), Instant::now(), peer("10.0.0.1"));
    let verdicts: Vec<_> = (1..=4).map(|ticket| admit.arrives(ticket, &who, now, 0)).collect();
    assert_eq!(verdicts, [Verdict::Admit, Verdict::Wait, Verdict::Wait, refused(Reason::Full)]);
}

#[test]
fn those_who_wait_count_as_their_sources() {
    let mut house = house(|limits| {
        (limits.children, limits.per_source, limits.on_full) = (2, Some(3), queue(9, 60_000));
    });
    assert_eq!(house.comes("192.0.2.7"), Verdict::Admit);
    let verdicts = [0; 4].map(|_| house.comes("10.0.0.1"));
    assert_eq!(verdicts, [Verdict::Admit, Verdict::Wait, Verdict::Wait, refused(Reason::Source)]);
    assert!(house.admit.gives_up(3, house.now));
    assert_eq!([0; 2].map(|_| house.comes("10.0.0.1")), [Verdict::Wait, refused(Reason::Source)]);
    house.leaves(1);
    assert_eq!(house.called(), [(4, Verdict::Admit)]);
    assert_eq!(house.comes("10.0.0.1"), refused(Reason::Source), "it was counted before, and is");
    assert_eq!(house.admit.count_of(&peer("10.0.0.1")), 2);
}

#[test]
fn sources_that_wait_take_turns() {
    let mut house = house(|limits| (limits.children, limits.on_full) = (1, queue(9, 60_000)));
    assert_eq!(house.comes("192.0.2.7"), Verdict::Admit);
    let (many, one, mapped) = ("10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1");
    for who in [many, mapped, many, one, "2001:db8::1", one] {
        assert_eq!(house.comes(who), Verdict::Wait);
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        let last = order.last().copied().unwrap_or(1);
        house.leaves(last);
        let called = house.called();
        assert_eq!(called.len(), 1);
        order.extend(called.iter().map(|(ticket, _)| *ticket));
    }
    assert_eq!(order, [2, 5, 6, 3, 7, 4]);
}

#[test]
fn one_who_comes_again_and_again_does_not_keep_others_waiting() {
    let mut house = house(|limits| (limits.children, limits.on_full) = (1, queue(9, 60_000)));
    assert_eq!(house.come("10.0.0.1", 3), Verdict::Wait);
    let mut order = vec![1];
    for _ in 0..6 {
        assert_eq!(house.comes("10.0.0.2"), Verdict::Wait);
        house.leaves(*order.last().unwrap());
        order.extend(house.called().iter().map(|(ticket, _)| *ticket));
    }
    assert_eq!(order, [1, 2, 4, 3, 5, 6, 7]);
}

#[test]
fn nobody_waits_for_longer_than_the_queue_says() {
    let mut house = house(|limits| (limits.children, limits.on_full) = (1, queue(9, 1_000)));
    let start = house.now;
    assert_eq!(house.comes("10.0.0.1"), Verdict::Admit);
    assert_eq!(house.admit.until(), None);
    assert_eq!(house.comes("10.0.0.1"), Verdict::Wait);
    house.passes(600);
    assert_eq!(house.comes("10.0.0.2"), Verdict::Wait);
    assert_eq!(house.admit.until(), Some(start + Duration::from_millis(1_000)));
    house.passes(399);
    assert_eq!(house.called(), []);
    house.passes(1);
    assert_eq!(house.called(), [(2, refused(Reason::Late))]);
    assert_eq!(house.admit.until(), Some(start + Duration::from_millis(1_600)));
    house.passes(600);
    house.leaves(1);
    assert_eq!(house.called(), [(3, refused(Reason::Late))], "a slot is free, but it has been told too late");
    assert_eq!((house.admit.until(), house.admit.refused().of(Reason::Late)), (None, 2));
    assert_eq!((house.admit.remembered(), house.comes("10.0.0.1")), (0, Verdict::Admit));
}

#[test]
fn where_there_is_no_time_nobody_is_late() {
    let mut house = house(|limits| (limits.children, limits.reserve) = (4, Some(2)));
    assert_eq!(house.come("10.0.0.1", 3), Verdict::Wait);
    house.passes(366 * 86_400_000);
    assert_eq!((house.admit.until(), house.called()), (None, vec![]));
    house.leaves(1);
    assert_eq!(house.called(), [(3, Verdict::Admit)]);
}

#[test]
fn one_who_has_gone_has_left_the_room() {
    let mut house = house(|limits| (limits.children, limits.on_full) = (1, queue(2, 1_000)));
    assert_eq!(house.come("10.0.0.1", 3), Verdict::Wait);
    assert!(!house.admit.gives_up(1, house.now), "that one has a slot");
    assert!(house.admit.gives_up(2, house.now));
    assert!(!house.admit.gives_up(2, house.now), "and only once");
    assert_eq!((house.admit.waiting(), house.admit.place(3)), (1, 1));
    assert_eq!(house.comes("10.0.0.1"), Verdict::Wait, "there is a place again");
    house.admit.closes(3, house.now);
    house.admit.closes(3, house.now);
    let counts = house.admit.refused();
    assert_eq!((counts.of(Reason::Left), counts.of(Reason::Ending), counts.sum()), (1, 1, 2));
    house.leaves(1);
    assert_eq!(house.called(), [(4, Verdict::Admit)]);
}

#[test]
fn the_network_with_most_in_the_room_makes_place_for_others() {
    let mut house = house(|limits| (limits.children, limits.on_full) = (1, queue(4, 60_000)));
    assert_eq!(house.comes("192.0.2.7"), Verdict::Admit);
    for host in ["10.0.0.1", "10.0.1.1", "10.0.0.1", "10.0.2.1"] {
        assert_eq!((house.comes(host), house.shed()), (Verdict::Wait, vec![]));
    }
    assert_eq!(house.comes("10.0.3.1"), refused(Reason::Full), "nothing for one of its own");
    assert_eq!((house.comes("10.1.0.1"), house.shed()), (Verdict::Wait, vec![4]), "the last in turn");
    assert_eq!((house.comes("2001:db8::1"), house.shed()), (Verdict::Wait, vec![5]));
    assert_eq!(house.comes("10.1.0.2"), refused(Reason::Full), "two and two would be no gain");
    assert_eq!((house.comes("user:7"), house.shed()), (Verdict::Wait, vec![3]));
    assert_eq!(house.comes("10.0.0.1"), refused(Reason::Full));
    assert_eq!(house.comes("vsock:7"), refused(Reason::Full), "each has one");
    assert_eq!((house.admit.waiting(), house.admit.refused().of(Reason::Full)), (4, 7));
}

#[test]
fn a_room_full_of_those_who_cannot_be_told_apart_makes_place_too() {
    let mut house = house(|limits| (limits.children, limits.on_full) = (1, queue(3, 60_000)));
    assert_eq!(house.come(UNKNOWN, 4), Verdict::Wait);
    assert_eq!((house.comes("10.0.0.1"), house.shed()), (Verdict::Wait, vec![4]));
    assert_eq!((house.admit.waiting(), house.comes(UNKNOWN)), (3, refused(Reason::Full)));
}

#[test]
fn chance_refuses_more_the_fuller_it_is() {
    const QUARTER: u32 = 1 << 30;
    let mut house = house(|limits| {
        (limits.children, limits.on_full) = (9, OnFull::Early { start: 2, percent: 50, full: 4 });
    });
    let early = refused(Reason::Early);
    assert_eq!([0; 2].map(|_| house.comes_by_chance("10.0.0.1", 0)), [Verdict::Admit; 2], "below the start");
    assert_eq!([0, 2 * QUARTER - 1].map(|chance| house.comes_by_chance("10.0.0.1", chance)), [early; 2]);
    assert_eq!(house.comes_by_chance("10.0.0.1", 2 * QUARTER), Verdict::Admit, "50 of a hundred");
    assert_eq!(house.comes_by_chance("10.0.0.1", 3 * QUARTER - 1), early);
    assert_eq!(house.comes_by_chance("10.0.0.1", 3 * QUARTER), Verdict::Admit, "75 of a hundred");
    assert_eq!(house.comes_by_chance("10.0.0.1", u32::MAX), refused(Reason::Full));
    assert_eq!(house.come("10.0.0.1", 40), refused(Reason::Full));
    let counts = house.admit.refused();
    assert_eq!((counts.of(Reason::Early), counts.of(Reason::Full)), (3, 41));
    house.leaves(1);
    assert_eq!(house.comes("10.0.0.1"), Verdict::Admit);
}

#[test]
fn chance_changes_no_other_limit() {
    let early = |start, percent, full| OnFull::Early { start, percent, full };
    let mut small = house(|limits| (limits.children, limits.on_full) = (2, early(3, 1, 9)));
    assert_eq!(
        [0; 3].map(|_| small.comes("10.0.0.1")),
        [Verdict::Admit, Verdict::Admit, refused(Reason::Full)]
    );
    let mut sure = house(|limits| limits.on_full = early(1, 100, 9));
    assert_eq!([0; 2].map(|_| sure.comes("10.0.0.1")), [Verdict::Admit, refused(Reason::Early)]);
    let mut sudden = house(|limits| limits.on_full = early(2, 1, 2));
    assert_eq!(
        [0; 3].map(|_| sudden.comes("10.0.0.1")),
        [Verdict::Admit, Verdict::Admit, refused(Reason::Full)]
    );
    let mut odd = house(|limits| limits.on_full = early(1, 255, 9));
    assert_eq!([0; 2].map(|_| odd.comes("10.0.0.1")), [Verdict::Admit, refused(Reason::Early)]);
    let mut barred = house(|limits| {
        (limits.on_full, limits.rules) = (early(1, 1, 1), rules("deny 10.0.0.0/8"));
    });
    barred.comes_nameless();
    assert_eq!(barred.comes("10.0.0.1"), refused(Reason::Denied), "what is sure is asked first");
}

#[test]
fn one_that_came_without_a_name_is_asked_again_when_it_has_one() {
    for who in KINDS {
        let mut house = house(|limits| (limits.children, limits.per_source) = (9, Some(2)));
        let tickets = [0; 4].map(|_| house.comes_nameless());
        assert_eq!((house.admit.open(), house.admit.count_of(&peer(who))), (4, 0));
        let verdicts = tickets.map(|ticket| house.admit.is_named(ticket, &peer(who), house.now));
        let (yes, no) = (Verdict::Admit, refused(Reason::Source));
        assert_eq!(verdicts, [yes, yes, no, no], "{who}");
        assert_eq!(house.admit.open(), 4, "whoever is refused has its slot until its child has ended");
        assert_eq!((house.admit.count_of(&peer(who)), house.admit.refused().of(Reason::Source)), (2, 2));
        assert_eq!(house.admit.leaves(tickets[3], house.now), Some(Source::Unknown));
        assert_eq!(
            house.admit.leaves(tickets[0], house.now).map(|one| one.to_string()),
            Some(source(who).to_string())
        );
        assert_eq!(house.admit.is_named(tickets[2], &peer(who), house.now), yes, "{who}");
    }
}

#[test]
fn one_that_has_a_name_now_is_refused_for_all_that_others_are() {
    let mut house = house(|limits| {
        limits.rate_per_source = Some("1/s:1".parse().unwrap());
        limits.penalties = "crash=1h".parse().unwrap();
        limits.rules = rules("deny 10.3.0.0/16");
    });
    house.admit.earns(&peer("10.2.0.1"), Fault::Crash, house.now);
    for (who, verdict) in [
        ("10.1.0.1", Verdict::Admit),
        ("10.1.0.1", refused(Reason::Rate)),
        ("10.2.0.1", refused(Reason::Penalty)),
        ("10.3.0.1", refused(Reason::Denied)),
        (UNKNOWN, Verdict::Admit),
    ] {
        let ticket = house.comes_nameless();
        assert_eq!(house.admit.is_named(ticket, &peer(who), house.now), verdict, "{who}");
    }
    assert_eq!((house.admit.open(), house.admit.refused().sum()), (5, 3));
}

#[test]
fn one_that_has_a_name_now_may_have_a_kept_slot_only_for_its_network() {
    let mut house =
        house(|limits| (limits.children, limits.reserve, limits.on_full) = (4, Some(2), refuse()));
    let tickets = [0; 4].map(|_| house.comes_nameless());
    let mut named = |at: usize, who| house.admit.is_named(tickets[at], &peer(who), house.now);
    assert_eq!(named(0, "10.0.0.1"), Verdict::Admit, "its network has nobody here");
    assert_eq!(named(1, "10.0.0.2"), refused(Reason::Full), "four are here, two slots are not kept");
    assert_eq!(named(1, UNKNOWN), refused(Reason::Full));
    assert_eq!(named(1, "10.1.0.1"), Verdict::Admit);
    house.leaves(tickets[3]);
    assert_eq!(
        house.admit.is_named(tickets[2], &peer("10.0.0.2"), house.now),
        refused(Reason::Full),
        "three"
    );
    house.leaves(tickets[1]);
    assert_eq!(house.admit.is_named(tickets[2], &peer("10.0.0.2"), house.now), Verdict::Admit, "two");
}

#[test]
fn a_name_for_one_that_is_gone_changes_nothing() {
    let mut house = house(|_| {});
    let ticket = house.comes_nameless();
    house.leaves(ticket);
    assert_eq!(house.admit.is_named(ticket, &peer("10.0.0.1"), house.now), Verdict::Admit);
    assert_eq!((house.admit.open(), house.admit.remembered()), (0, 0));
    assert_eq!(house.admit.leaves(ticket, house.now), None);
}

#[test]
fn a_balancer_that_speaks_for_itself_is_asked_for_nothing_but_rules() {
    let mut house = house(|limits| {
        (limits.children, limits.per_source) = (1, Some(1));
        limits.rate_per_source = Some("1/h:1".parse().unwrap());
        limits.rules = rules("deny 10.1.0.0/16 message=no\nallow 10.0.0.0/16 rate=1/h:1 children=1");
    });
    house.comes_nameless();
    house.admit.penalise(source("10.0.0.1"), Duration::from_secs(60), house.now);
    assert_eq!([0; 3].map(|_| house.admit.is_own(&peer("10.0.0.1"))), [Verdict::Admit; 3]);
    assert_eq!(house.admit.is_own(&peer("::ffff:10.1.0.1")), refused(Reason::Denied));
    assert_eq!((house.admit.refused().of(Reason::Denied), house.admit.refused().sum()), (1, 1));
    assert_eq!((house.admit.open(), house.admit.count_of(&peer("10.0.0.1"))), (1, 0), "and has its slot");
}

#[test]
fn a_penalty_keeps_a_source_out_until_it_is_over() {
    let faults = [
        (Fault::Crash, 90),
        (Fault::Signal, 30),
        (Fault::Exit(1), 20),
        (Fault::Exit(75), 40),
        (Fault::Timeout, 50),
        (Fault::NoBytes, 60),
        (Fault::Refused, 70),
    ];
    let text = "crash=90s,signal=30s,exit=20s,exit.75=40s,timeout=50s,nobytes=60s,refused=70s";
    for who in KINDS {
        for (fault, seconds) in faults {
            let mut house = house(|limits| limits.penalties = text.parse().unwrap());
            let time = Duration::from_secs(seconds);
            assert_eq!(house.admit.earns(&peer(who), fault, house.now), Some(time), "{who} {fault:?}");
            assert_eq!(house.comes(who), refused(Reason::Penalty), "{who} {fault:?}");
            assert_eq!(house.comes("192.0.2.7"), Verdict::Admit, "others are others");
            house.passes(seconds * 1_000 - 1);
            assert_eq!((house.penalty(who), house.come(who, 10)), (Some(1), refused(Reason::Penalty)));
            house.passes(1);
            assert_eq!((house.penalty(who), house.comes(who)), (None, Verdict::Admit), "{who} {fault:?}");
            assert_eq!(house.admit.refused().of(Reason::Penalty), 11);
        }
    }
}

#[test]
fn penalties_add_up_count_from_the_least_and_end_at_the_most() {
    let mut house = house(|limits| limits.penalties = "crash=6s,max=20s,min=12s".parse().unwrap());
    let earns = |house: &mut House| {
        let told = house.admit.earns(&peer("10.0.0.1"), Fault::Crash, house.now);
        told.map(|time| time.as_secs())
    };
    assert_eq!((earns(&mut house), house.penalty("10.0.0.1")), (None, None));
    assert_eq!(house.comes("10.0.0.1"), Verdict::Admit);
    assert_eq!((earns(&mut house), house.penalty("10.0.0.1")), (Some(12), Some(12_000)));
    assert_eq!((earns(&mut house), house.penalty("10.0.0.1")), (None, Some(18_000)), "no news");
    assert_eq!((earns(&mut house), house.penalty("10.0.0.1")), (None, Some(20_000)));
    house.passes(19_999);
    assert_eq!(
        house.comes("10.0.0.1"),
        refused(Reason::Penalty),
        "to its end, though it is less than the least"
    );
    house.passes(1);
    assert_eq!((earns(&mut house), house.penalty("10.0.0.1")), (None, None), "it begins anew");
}

#[test]
fn penalties_are_listed_added_and_forgotten() {
    let mut house = house(|limits| limits.penalties = "min=0s".parse().unwrap());
    for (who, seconds) in KINDS.into_iter().zip(1..) {
        let time = Duration::from_secs(seconds);
        let news = house.penalty(who).is_none();
        assert_eq!(house.admit.penalise(source(who), time, house.now).is_some(), news, "{who}");
    }
    let mut list: Vec<_> =
        house.admit.penalties(house.now).map(|(who, left)| (who.to_string(), left.as_secs())).collect();
    list.sort();
    let expected = [("10.0.0.1", 3), ("2001:db8::", 3), ("user:1000", 9), ("vsock:3", 6)];
    assert_eq!(list, expected.map(|(who, left)| (who.to_string(), left)));
    assert_eq!(house.admit.penalise(source("10.0.0.2"), Duration::ZERO, house.now), None);
    house.admit.forgive(source("10.0.0.1"), house.now);
    house.admit.forgive(source("10.9.9.9"), house.now);
    assert_eq!((house.penalty("10.0.0.1"), house.admit.remembered()), (None, 3));
    assert_eq!(house.comes("::ffff:10.0.0.1"), Verdict::Admit);
    assert_eq!(
        house.admit.penalise(source("10.0.0.1"), Duration::from_secs(2), house.now).unwrap().as_secs(),
        2
    );
    assert_eq!(
        house.comes("10.0.0.1"),
        refused(Reason::Penalty),
        "whoever is here stays, another does not come"
    );
    assert_eq!(house.admit.open(), 1);
}

#[test]
fn coming_although_one_may_not_costs_what_it_costs() {
    let mut house = house(|limits| {
        limits.per_source = Some(1);
        limits.rate_per_source = Some("1/s:2".parse().unwrap());
        limits.penalties = "refused=10s,min=20s,max=1h".parse().unwrap();
        limits.exempt = "192.0.2.0/24".parse().unwrap();
        (limits.children, limits.on_full) = (2, refuse());
    });
    assert_eq!(house.comes("10.0.0.1"), Verdict::Admit);
    let verdicts = [0; 3].map(|_| house.comes("10.0.0.1"));
    assert_eq!(verdicts, [refused(Reason::Source), refused(Reason::Source), refused(Reason::Penalty)]);
    assert_eq!(house.penalty("10.0.0.1"), Some(20_000), "being kept out costs no more");
    assert_eq!(house.comes("192.0.2.7"), Verdict::Admit);
    assert_eq!(house.come("192.0.2.7", 9), refused(Reason::Source), "it is exempt");
    assert_eq!((house.penalty("192.0.2.7"), house.admit.penalties(house.now).count()), (None, 1));
    assert_eq!(house.come("10.0.0.3", 9), refused(Reason::Full), "that is nobody's fault");
    house.leaves(1);
    assert_eq!(house.comes("10.0.0.4"), Verdict::Admit);
    let last = house.ticket;
    house.leaves(last);
    assert_eq!(house.comes("10.0.0.4"), Verdict::Admit);
    let last = house.ticket;
    house.leaves(last);
    assert_eq!(
        [0; 3].map(|_| house.comes("10.0.0.4")),
        [refused(Reason::Rate), refused(Reason::Rate), refused(Reason::Penalty)]
    );
}

#[test]
fn who_is_exempt_earns_nothing_and_is_not_kept_out() {
    let exempt = ["10.0.0.0/24", "2001:db8::1"].join(",");
    for who in ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "user:1000", "vsock:3", "10.1.0.1"] {
        let mut house = house(|limits| {
            limits.penalties = "crash=90s,refused=90s".parse().unwrap();
            limits.exempt = exempt.parse().unwrap();
            limits.per_source = Some(3);
            limits.rules = rules("allow user:1000 exempt\nallow vsock:3 exempt\nallow 10.1.0.0/16 exempt");
        });
        assert_eq!(house.admit.earns(&peer(who), Fault::Crash, house.now), None, "{who}");
        assert_eq!((house.admit.remembered(), house.comes(who)), (0, Verdict::Admit), "{who}");
        assert!(house.admit.penalise(source(who), Duration::from_secs(60), house.now).is_some());
        assert_eq!(house.comes(who), Verdict::Admit, "{who}: its source may have a penalty, it has not");
        let ticket = house.comes_nameless();
        assert_eq!(house.admit.is_named(ticket, &peer(who), house.now), Verdict::Admit, "{who}");
        assert_eq!(house.come(who, 9), refused(Reason::Source), "{who}: all else holds");
    }
    let mut house = house(|limits| limits.exempt = exempt.parse().unwrap());
    house.admit.penalise(source("2001:db8::2"), Duration::from_secs(60), house.now);
    assert_eq!(house.comes("2001:db8::2"), refused(Reason::Penalty), "its neighbour is not exempt");
}

#[test]
fn whoever_waits_is_asked_again_when_its_turn_has_come() {
    let mut house = house(|limits| {
        (limits.children, limits.on_full) = (1, queue(9, 60_000));
        limits.penalties = "crash=90s".parse().unwrap();
        limits.exempt = "2001:db8::1".parse().unwrap();
    });
    assert_eq!(house.comes("192.0.2.7"), Verdict::Admit);
    for who in ["10.0.0.1", "2001:db8::1", "2001:db8::2", "10.0.0.2", "10.0.0.3"] {
        assert_eq!(house.comes(who), Verdict::Wait);
    }
    house.admit.earns(&peer("10.0.0.1"), Fault::Crash, house.now);
    house.admit.earns(&peer("2001:db8::2"), Fault::Crash, house.now);
    house.admit.set_rules(rules("deny 10.0.0.2"));
    assert_eq!(house.called(), [], "nothing is said before");
    house.leaves(1);
    assert_eq!(house.called(), [(2, refused(Reason::Penalty)), (3, Verdict::Admit)], "the other is exempt");
    house.leaves(3);
    assert_eq!(house.called(), [(5, refused(Reason::Denied)), (6, Verdict::Admit)]);
    house.leaves(6);
    assert_eq!(house.called(), [(4, refused(Reason::Penalty))]);
    assert_eq!((house.admit.open(), house.admit.waiting()), (0, 0));
}

#[test]
fn a_rule_has_limits_of_its_own() {
    let mut house = house(|limits| {
        limits.per_source = Some(2);
        limits.rate_per_source = Some("1/s:4".parse().unwrap());
        limits.rules = rules(
            "allow 10.1.0.0/16 children=1\nallow 10.2.0.0/16 children=5 rate=1/s:100\nallow 10.3.0.0/16 rate=1/m:1\n\
             allow user:1000 children=3\nallow vsock:3 children=1\nallow 2001:db8::/32 children=3",
        );
    });
    for (who, most) in [
        ("10.0.0.1", 2),
        ("10.1.0.1", 1),
        ("10.1.0.2", 1),
        ("10.2.0.1", 5),
        ("::ffff:10.2.0.2", 5),
        ("user:1000", 3),
        ("user:1001", 2),
        ("vsock:3", 1),
        ("vsock:4", 2),
        ("2001:db8::1", 3),
        ("2001:db9::1", 2),
    ] {
        assert_eq!(house.come(who, most), Verdict::Admit, "{who}");
        assert_eq!(house.comes(who), refused(Reason::Source), "{who}");
    }
    assert_eq!([0; 2].map(|_| house.comes("10.3.0.1")), [Verdict::Admit, refused(Reason::Rate)]);
    house.passes(59_999);
    assert_eq!(house.comes("10.3.0.1"), refused(Reason::Rate));
    house.passes(1);
    assert_eq!(house.comes("10.3.0.1"), Verdict::Admit);
}

#[test]
fn a_rule_keeps_out_whom_it_is_about() {
    let mut house = house(|limits| {
        limits.rules =
            rules("deny 10.0.0.0/8\nallow 10.1.0.0/16\ndeny user:1000\ndeny vsock:3\ndeny 2001:db8::/32");
    });
    for who in KINDS {
        assert!(house.admit.denies(&peer(who)), "{who}");
        assert_eq!(house.come(who, 10), refused(Reason::Denied), "{who}");
    }
    for who in ["10.1.0.1", "192.0.2.7", "2001:db9::1", "user:1001", "vsock:4", UNKNOWN] {
        assert!(!house.admit.denies(&peer(who)), "{who}");
        assert_eq!(house.comes(who), Verdict::Admit, "{who}");
    }
    assert_eq!((house.admit.refused().of(Reason::Denied), house.admit.refused().sum()), (60, 60));
    house.admit.set_rules(rules("deny all\nallow 10.0.0.1\nallow unix"));
    assert_eq!(house.admit.open(), 6, "whoever is here stays");
    for (who, verdict) in [
        ("10.0.0.1", Verdict::Admit),
        ("10.0.0.2", refused(Reason::Denied)),
        ("192.0.2.7", refused(Reason::Denied)),
        ("user:1000", Verdict::Admit),
        (UNKNOWN, Verdict::Admit),
        ("vsock:4", refused(Reason::Denied)),
    ] {
        assert_eq!(house.comes(who), verdict, "{who}");
    }
}

#[test]
fn another_rate_begins_with_what_it_can_owe_at_most() {
    let mut house = house(|limits| limits.rules = rules("allow all rate=1/h:20"));
    assert_eq!(house.come("10.0.0.1", 20), Verdict::Admit);
    assert_eq!(house.comes("10.0.0.1"), refused(Reason::Rate));
    house.admit.set_rules(rules("allow all rate=10/s:2"));
    assert_eq!(house.comes("10.0.0.1"), Verdict::Admit, "not in twenty hours");
    assert_eq!(house.comes("10.0.0.1"), refused(Reason::Rate));
    house.passes(100);
    assert_eq!([0; 2].map(|_| house.comes("10.0.0.1")), [Verdict::Admit, refused(Reason::Rate)]);
    house.admit.set_rules(rules(""));
    assert_eq!(house.come("10.0.0.1", 30), Verdict::Admit, "no rate, no limit");
}

#[test]
fn what_one_is_told_depends_on_why_it_is_refused() {
    let told = |on_full: OnFull, who: &str, why| {
        let house = house(|limits| {
            limits.on_full = on_full;
            limits.per_source_message = Some("too many".into());
            limits.rules = rules("deny 10.0.0.0/8 message=\"not you\"\ndeny 10.1.0.0/16\nallow 10.2.0.0/16");
        });
        house.admit.message(&peer(who), why).map(str::to_owned)
    };
    let full = || OnFull::Refuse { message: Some("full".into()) };
    let wait = || OnFull::Queue { most: 1, time: Duration::ZERO, message: Some("place %d".into()) };
    for on_full in [OnFull::Wait, full(), wait()] {
        let told = |who, why| told(on_full.clone(), who, why);
        assert_eq!(told("192.0.2.7", Reason::Source).as_deref(), Some("too many"));
        assert_eq!(told("10.0.0.1", Reason::Denied).as_deref(), Some("not you"));
        assert_eq!(told("::ffff:10.0.0.1", Reason::Denied).as_deref(), Some("not you"));
        for who in ["10.1.0.1", "10.2.0.1", "192.0.2.7"] {
            assert_eq!(told(who, Reason::Denied), None, "{who}");
        }
        for why in Reason::ALL {
            if !matches!(why, Reason::Source | Reason::Denied | Reason::Full) {
                assert_eq!(told("10.0.0.1", why), None, "{why}");
            }
        }
    }
    assert_eq!(told(full(), "10.0.0.1", Reason::Full).as_deref(), Some("full"));
    assert_eq!(told(wait(), "10.0.0.1", Reason::Full), None);
    let silent = house(|_| {});
    assert_eq!(silent.admit.message(&peer("10.0.0.1"), Reason::Source), None);
}

#[test]
fn what_is_refused_elsewhere_is_counted_here() {
    let mut house = house(|_| {});
    for (times, why) in (1..).zip(Reason::ALL) {
        (0..times).for_each(|_| assert_eq!(house.admit.count(why), refused(why)));
    }
    let counts = house.admit.refused();
    let each: Vec<_> = Reason::ALL.iter().map(|why| counts.of(*why)).collect();
    assert_eq!(each, (1..=11).collect::<Vec<_>>());
    assert_eq!((counts.sum(), counts), (66, Refusals::new([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])));
    let names = Reason::ALL.map(|why| why.to_string());
    let expected = "full early source rate penalty denied late left untrusted proxy ending"
        .split(' ')
        .map(str::to_owned);
    assert!(names.into_iter().eq(expected));
    assert!(Reason::ALL.iter().enumerate().all(|(at, why)| *why as usize == at));
}

#[test]
fn no_more_sources_are_remembered_than_there_may_be_and_each_family_has_its_own() {
    let mut house = house(|limits| limits.penalties = "crash=60s,nobytes=61s".parse().unwrap());
    let v6 = |number: usize| {
        let ip: IpAddr = Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | (number as u128) << 64).into();
        Peer { addr: Addr::Inet(SocketAddr::new(ip, 1)), credentials: None }
    };
    let v4 = |number: usize| {
        let ip: IpAddr = Ipv4Addr::from_bits(0x0a00_0000 | number as u32).into();
        Peer { addr: Addr::Inet(SocketAddr::new(ip, 1)), credentials: None }
    };
    let now = house.now;
    assert!(house.admit.earns(&v4(0), Fault::Crash, now).is_some());
    assert!(house.admit.earns(&v6(0), Fault::NoBytes, now).is_some(), "this one is remembered for longest");
    assert_eq!(house.admit.arrives(1_000_000, &v6(SOURCES_MOST * 4), now, 0), Verdict::Admit);
    for number in 1..3 * SOURCES_MOST {
        assert!(house.admit.earns(&v6(number), Fault::Crash, now).is_some(), "{number}");
        assert_eq!(house.admit.sources.idle_most(), (number + 1).min(SOURCES_MOST));
    }
    assert_eq!(house.admit.remembered(), SOURCES_MOST + 2, "one more is here, one more is of IPv4");
    let mut kept_out = |peer: &Peer| {
        house.ticket += 1;
        house.admit.arrives(house.ticket, peer, now, 0) == refused(Reason::Penalty)
    };
    assert!(kept_out(&v6(0)) && kept_out(&v4(0)) && kept_out(&v6(3 * SOURCES_MOST - 1)));
    assert!(!kept_out(&v6(1)), "it made room for others");
    assert_eq!(house.admit.count_of(&v6(SOURCES_MOST * 4)), 1, "whoever is here is not forgotten");
    let remembered = SOURCES_MOST + 3;
    assert!(house.admit.remembered() <= remembered);
    house.passes(61_000);
    for number in 1..=SOURCES_MOST {
        house.admit.forgive(Source::of(&v6(number + 5 * SOURCES_MOST), Mask::CLIENT), house.now);
    }
    house.admit.forgive(Source::of(&v4(7), Mask::CLIENT), house.now);
    assert_eq!(house.admit.remembered(), house.admit.open(), "what is over is forgotten as things happen");
}

#[test]
fn times_that_no_clock_knows_are_no_trouble() {
    let forever = Duration::MAX;
    let mut house = house(|limits| {
        limits.children = 1;
        limits.on_full = OnFull::Queue { most: 9, time: forever, message: None };
        let penalties = &mut limits.penalties;
        (penalties.crash, penalties.max) = (forever, forever);
    });
    assert_eq!(house.come("10.0.0.1", 2), Verdict::Wait);
    assert_eq!((house.admit.until(), house.called()), (None, vec![]));
    assert!(house.admit.earns(&peer("10.0.0.1"), Fault::Crash, house.now).is_some());
    assert!(house.admit.penalise(source("10.0.0.1"), forever, house.now).is_none());
    assert_eq!(house.comes("10.0.0.1"), refused(Reason::Penalty));
    for rate in [
        Rate { count: 0, per: Duration::from_secs(1), burst: 0 },
        Rate { count: 1, per: forever, burst: u32::MAX },
        Rate { count: u32::MAX, per: Duration::ZERO, burst: 1 },
    ] {
        let mut house =
            self::house(|limits| (limits.rate, limits.rate_per_source) = (Some(rate), Some(rate)));
        assert_eq!(
            (house.admit.look(false, house.now), house.comes("10.0.0.1")),
            (Look::Now, Verdict::Admit)
        );
        house.comes("10.0.0.1");
    }
}

#[test]
fn what_to_do_when_it_is_full_is_read_as_it_is_written() {
    let read = |text: &str| text.parse::<OnFull>();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(read("wait"), Ok(OnFull::Wait));
    assert_eq!(read("refuse"), Ok(refuse()));
    assert_eq!(read("refuse:"), Ok(refuse()), "no words are no message");
    assert_eq!(read("refuse:Full."), Ok(OnFull::Refuse { message: some("Full.") }));
    assert_eq!(read("refuse:a:b:c:d"), Ok(OnFull::Refuse { message: some("a:b:c:d") }));
    assert_eq!(read("queue:5:90s"), Ok(queue(5, 90_000)));
    assert_eq!(read("queue:1000000:250ms:"), Ok(queue(1_000_000, 250)));
    let time = Duration::from_secs(60);
    assert_eq!(
        read("queue:5:1m:Place: %d:\n"),
        Ok(OnFull::Queue { most: 5, time, message: some("Place: %d:\n") })
    );
    assert_eq!(read("10:30:60"), Ok(OnFull::Early { start: 10, percent: 30, full: 60 }));
    assert_eq!(read("10:100:10"), Ok(OnFull::Early { start: 10, percent: 100, full: 10 }));
    let form = "it is wait, queue:N:TIME[:MESSAGE], refuse[:MESSAGE] or START:PERCENT:FULL";
    for wrong in [
        "",
        "Wait",
        "wait:",
        "queue",
        "queue:5",
        "10",
        "10:30",
        "10:30:60:x",
        "0:30:60",
        "10:0:60",
        "10:101:60",
        "10:30:1000001",
        "-1:30:60",
        "a:b:c",
    ] {
        assert_eq!(read(wrong).unwrap_err(), form, "{wrong}");
    }
    assert_eq!(read("queue:0:1s").unwrap_err(), "'0' is no number of clients that wait");
    assert_eq!(read("queue:x:1s").unwrap_err(), "'x' is no number of clients that wait");
    assert!(read("queue:5:soon").unwrap_err().starts_with("'soon' is no time"));
    assert_eq!(read("9:30:8").unwrap_err(), "9 children to begin with are more than 8 to end with");
}
