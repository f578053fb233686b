//! Limits: each lets in exactly as many as it says, whatever the clients' family, says why the others go, and is over by
//! itself. Nobody who has not come too often suffers from those who do. All the same whether one process accepts or several.

#[path = "support/clients.rs"]
mod clients;
mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use clients::Family::{Mapped, Unix, V4, V6};
use clients::{Client, Family, HELLO, is_inside, on_processor};
use support::{Folder, left_out_without_root, value};
use tine_testkit::refusals::{self, connect_from, counter, counters, reset};
use tine_testkit::server::{DEADLINE, until, until_within};
use tine_testkit::{Baseline, Server, Stream, binary};

/// Whose clients come, and how many processes accept them.
#[derive(Clone, Copy)]
struct House {
    family: Family,
    acceptors: usize,
}

impl From<Family> for House {
    fn from(family: Family) -> House {
        House { family, acceptors: 1 }
    }
}

/// How many acceptors are tried; more than there are processors, too.
const ACCEPTORS: [usize; 3] = [2, 3, 5];

/// A server with `cat`, and its clients' way to it.
struct Place {
    family: Family,
    /// How many clients have come: each arrives at another processor than the one before.
    came: AtomicUsize,
    server: Server,
    baseline: Baseline,
    _folder: Folder,
}

impl Place {
    /// Serves with these options, and nobody has been there but the one of the baseline, who came as source 0.
    fn new(house: impl Into<House>, options: &[&str]) -> Place {
        let House { family, acceptors } = house.into();
        let acceptors = acceptors.to_string();
        let options = [options, &["--acceptors", &acceptors]].concat();
        let folder = Folder::new();
        let listener = family.listener(&folder.text(""));
        let server = Server::tine(&[&[&*listener, "-v"], &*options, &["--", "cat"]].concat());
        let address = server.addr(0).to_owned();
        let baseline = Baseline::with(&server, move || family.client(&address, 0, HELLO).is_served_or_why());
        Place { family, came: AtomicUsize::new(0), server, baseline, _folder: folder }
    }

    /// A client of this source: it has said hello.
    fn client(&self, source: u8) -> Client {
        self.comes(|| self.family.client(self.server.addr(0), source, HELLO))
    }

    /// Somebody comes, at another processor than the one before.
    fn comes<T>(&self, who: impl FnOnce() -> T) -> T {
        on_processor(self.came.fetch_add(1, Ordering::Relaxed), who)
    }

    /// A client of this network of IPv4.
    fn of_network(&self, network: u8) -> Client {
        self.comes(|| Client::from(Ipv4Addr::new(127, network, 0, 1), self.server.socket(0), HELLO))
    }

    fn clients(&self, source: u8, count: usize) -> Vec<Client> {
        (0..count).map(|_| self.client(source)).collect()
    }

    /// A client of this source that is served, or the test has failed.
    fn served(&self, source: u8) -> Client {
        let mut client = self.client(source);
        client.is_served_or_why().unwrap_or_else(|why| self.server.fail(&format!("source {source}: {why}")));
        client
    }

    /// A client of this source that hears this instead, and then the end.
    fn refused(&self, source: u8, told: &str) {
        let mut client = self.client(source);
        let heard = [client.hears(), if told.is_empty() { String::new() } else { client.hears() }];
        assert_eq!(heard, [told, ""], "a client of source {source}\n{}", self.server.log());
    }

    /// How many of a counter there are, and nothing that was decided before is missing: the master has gone through its
    /// loop since this was called.
    fn count(&self, name: &str) -> u64 {
        self.server.status();
        counter(&self.server, name)
    }

    fn wait_count(&self, name: &str, expected: u64) {
        let mut seen = 0;
        let reached = until_within(DEADLINE, || {
            seen = counter(&self.server, name);
            (seen == expected).then_some(())
        });
        if reached.is_none() {
            self.server.fail(&format!("{name}={seen}, not {expected}"));
        }
    }

    /// The most children that there ever were at once.
    fn peak(&self) -> u64 {
        let log = self.server.log();
        let open =
            log.lines().filter(|line| line.starts_with("accept ")).filter_map(|line| value(line, "open"));
        open.map(|open| open.split('/').next().unwrap().parse().unwrap()).max().unwrap_or(0)
    }

    /// Everybody has gone, and so many have been refused, for these reasons.
    fn ends(self, refused: &[(&str, u64)]) {
        self.server.quiescent(&self.baseline);
        let expected: BTreeMap<String, u64> =
            refused.iter().map(|(why, count)| (format!("refused.{why}"), *count)).collect();
        let all = counters(&self.server);
        let told =
            all.into_iter().filter(|(name, _)| name.starts_with("refused.")).collect::<BTreeMap<_, _>>();
        assert_eq!(told, expected, "{}", self.server.log());
        assert!(self.server.stop().success());
    }
}

// Each limit by itself, for one family.

fn all_children_taken_is_a_wait(house: House) {
    let place = Place::new(house, &["-c", "4", "-C", "4", "--reserve", "0"]);
    let mut here: Vec<Client> = (0..3).map(|_| place.served(0)).collect();
    assert_eq!(place.server.status().open, 3);
    here.push(place.served(0));
    let mut fifth = place.client(0);
    assert_eq!(
        (place.count("open"), place.count("waiting")),
        (4, 0),
        "the kernel's queue is the waiting room"
    );
    assert!(fifth.has_heard_nothing());
    here.pop();
    fifth.is_served();
    here.push(fifth);
    let mut many = place.clients(0, 40);
    many.iter_mut().for_each(Client::finishes);
    assert_eq!(place.count("open"), 4);
    assert!(many.iter_mut().all(Client::has_heard_nothing));
    here.clear();
    for mut client in many {
        client.is_served();
        assert_eq!(client.hears(), "");
    }
    assert_eq!(place.peak(), 4);
    place.wait_count("served", 46);
    place.ends(&[]);
}

fn a_source_has_as_many_as_it_may_have(house: House) {
    let place = Place::new(house, &["-c", "64", "-C", "3:three are enough"]);
    let mut here: Vec<Client> = (0..3).map(|_| place.served(0)).collect();
    place.refused(0, "three are enough\n");
    let other = place.served(1);
    here.pop();
    until("a slot of the source is free", || (place.server.status().open == 3).then_some(()));
    here.push(place.served(0));
    for _ in 0..30 {
        place.refused(0, "three are enough\n");
    }
    assert_eq!(place.count("open"), 4);
    here.push(place.served(2));
    drop((here, other));
    until("everybody has gone", || (place.server.status().open == 0).then_some(()));
    let all: Vec<Client> = (0..3).map(|_| place.served(0)).collect();
    place.refused(0, "three are enough\n");
    drop(all);
    place.ends(&[("source", 32)]);
}

fn a_source_may_come_so_often(house: House) {
    const EVERY: Duration = Duration::from_secs(2);
    let place = Place::new(house, &["--rate-per-source=30/m:5"]);
    // Not source 0, which has come once already.
    let start = Instant::now();
    let visit = |source: u8| place.client(source).is_served_or_why().is_ok();
    for _ in 0..5 {
        assert!(visit(1));
    }
    let more = (0..50).filter(|_| visit(1)).count();
    let refilled = (start.elapsed().as_secs_f64() / EVERY.as_secs_f64()) as usize;
    assert!(more <= refilled, "{more} more than the five, after {:?}", start.elapsed());
    assert!(visit(2), "another source has a rate of its own");
    // One more after two seconds, at last; it is asked again and again, which costs nothing.
    let mut tries = 0;
    until("the source may come again", || {
        tries += 1;
        visit(1).then_some(())
    });
    assert!(start.elapsed() >= EVERY);
    let refused = 50 - more as u64 + tries - 1;
    // The baseline asks twice, after its first time: never more than its five.
    place.ends(&[("rate", refused)]);
}

fn all_together_may_come_so_often(house: House) {
    let place = Place::new(house, &["--rate=20/s:5", "-C", "64"]);
    // The baseline's probe was one of the first five; it may have been refilled by now.
    let start = Instant::now();
    let clients = place.clients(0, 50);
    let mut times = Vec::new();
    for mut client in clients {
        client.is_served();
        times.push(start.elapsed());
    }
    for (number, time) in times.iter().enumerate().skip(5) {
        let least = Duration::from_millis(50) * (number as u32 - 4);
        assert!(*time >= least, "number {number} after {time:?}");
    }
    // And not much slower than that: they wait for the rate, not for anything else, as a second's rest for each would be.
    assert!(times[49] < DEADLINE, "{:?}", times[49]);
    place.ends(&[]);
}

fn a_full_house_refuses(house: House) {
    let told = "come back later\n";
    let place =
        Place::new(house, &["-c", "4", "-C", "64", "--reserve", "0", "--on-full", "refuse:come back later"]);
    let mut here: Vec<Client> = (0..3).map(|_| place.served(0)).collect();
    here.push(place.served(0));
    place.refused(0, told);
    place.refused(1, told);
    here.pop();
    until("a slot is free", || (place.server.status().open == 3).then_some(()));
    here.push(place.served(1));
    for _ in 0..40 {
        place.refused(0, told);
    }
    here.clear();
    until("everybody has gone", || (place.server.status().open == 0).then_some(()));
    let all: Vec<Client> = (0..4).map(|_| place.served(0)).collect();
    place.refused(0, told);
    drop(all);
    place.ends(&[("full", 43)]);
}

fn so_many_wait_in_the_room(house: House) {
    let options = ["-c", "2", "-C", "64", "--reserve", "0", "--on-full", "queue:3:1h:you are number %d"];
    let place = Place::new(house, &options);
    let mut here: Vec<Client> = (0..2).map(|_| place.served(0)).collect();
    let mut room = Vec::new();
    for number in 1..=3 {
        let mut client = place.client(0);
        assert_eq!(client.hears(), format!("you are number {number}\n"));
        assert_eq!(place.count("waiting"), number);
        room.push(client);
    }
    place.refused(0, "");
    // Whoever leaves the room leaves it at once, and there is place for another.
    room.remove(1).leaves();
    place.wait_count("waiting", 2);
    let mut last = place.client(0);
    assert_eq!(last.hears(), "you are number 3\n");
    room.push(last);
    for _ in 0..30 {
        place.refused(0, "");
    }
    assert!(room.iter_mut().all(Client::has_heard_nothing));
    here.pop();
    room[0].is_served();
    assert_eq!(place.count("waiting"), 2);
    here.clear();
    drop(room.remove(0));
    room.iter_mut().for_each(Client::is_served);
    assert_eq!((place.peak(), place.count("waiting")), (2, 0));
    drop(room);
    place.ends(&[("full", 31), ("left", 1)]);
}

/// All of them, one after the other; those that wait for a rate beside the others.
fn each_limit(house: impl Into<House>) {
    let house = house.into();
    thread::scope(|scope| {
        scope.spawn(|| a_source_may_come_so_often(house));
        scope.spawn(|| all_together_may_come_so_often(house));
        all_children_taken_is_a_wait(house);
        a_source_has_as_many_as_it_may_have(house);
        a_full_house_refuses(house);
        so_many_wait_in_the_room(house);
    });
}

#[test]
fn each_limit_is_exact_and_ends_by_itself_for_ipv4() {
    each_limit(V4);
}

#[test]
fn each_limit_is_exact_and_ends_by_itself_for_ipv6() {
    if is_inside("each_limit_is_exact_and_ends_by_itself_for_ipv6") {
        each_limit(V6);
    }
}

#[test]
fn each_limit_is_exact_and_ends_by_itself_for_ipv4_at_a_listener_for_both() {
    each_limit(Mapped);
}

#[test]
fn each_limit_is_exact_and_ends_by_itself_for_users_of_this_machine() {
    if !left_out_without_root("clients that are other users") {
        each_limit(Unix);
    }
}

/// The same with several that accept.
fn each_limit_over_acceptors(family: Family) {
    ACCEPTORS.into_iter().for_each(|acceptors| each_limit(House { family, acceptors }));
}

#[test]
fn each_limit_is_exact_over_acceptors_for_ipv4() {
    each_limit_over_acceptors(V4);
}

#[test]
fn each_limit_is_exact_over_acceptors_for_ipv6() {
    if is_inside("each_limit_is_exact_over_acceptors_for_ipv6") {
        each_limit_over_acceptors(V6);
    }
}

#[test]
fn each_limit_is_exact_over_acceptors_for_users_of_this_machine() {
    if !left_out_without_root("clients that are other users") {
        each_limit_over_acceptors(Unix);
    }
}

// What a source is.

#[test]
fn an_ipv4_client_is_the_same_source_at_a_listener_for_both() {
    let server = Server::tine(&["127.0.0.1:0", ":0", "-C", "2:two", "--", "cat"]);
    let baseline = Baseline::of(&server);
    let enter = |listener: usize| {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port(listener)));
        V4.client(&to.to_string(), 7, HELLO)
    };
    let mut here: Vec<Client> = [0, 1].map(enter).into();
    here.iter_mut().for_each(Client::is_served);
    assert_eq!([0, 1].map(|listener| enter(listener).hears()), ["two\n", "two\n"]);
    drop(here);
    server.quiescent(&baseline);
    assert_eq!(counter(&server, "refused.source"), 2);
    assert!(server.stop().success());
}

#[test]
fn two_addresses_of_one_ipv6_network_are_one_source() {
    if !is_inside("two_addresses_of_one_ipv6_network_are_one_source") {
        return;
    }
    for (mask, second) in [("32:64", "no more\n"), ("32:128", HELLO)] {
        let server =
            Server::tine(&["[::]:0", "-C", "1:no more", &format!("--source-mask={mask}"), "--", "cat"]);
        let to = SocketAddr::from(([0xfd00, 9, 0, 0, 0, 0, 0, 1], server.port(0)));
        let enter = |from: &str| Client::from(from.parse::<IpAddr>().unwrap(), to, HELLO);
        let mut here = ["fd00:1::1", "fd00:2::1"].map(enter);
        here.iter_mut().for_each(Client::is_served);
        assert_eq!(enter("fd00:1::2").hears(), second, "{mask}");
        assert_eq!(enter("fd00:1::1").hears(), "no more\n", "{mask}");
        drop(here);
        until("everybody has gone", || (server.status().open == 0).then_some(()));
        assert_eq!(enter("fd00:1::2").hears(), HELLO);
        assert!(server.stop().success());
    }
}

#[test]
fn a_shorter_mask_makes_one_source_of_a_network() {
    let server = Server::tine(&["127.0.0.1:0", "-C", "2", "--source-mask=24:64", "--", "cat"]);
    let baseline = Baseline::of(&server);
    let enter = |host: [u8; 4]| Client::from(Ipv4Addr::from(host), server.socket(0), HELLO);
    let mut here = [[127, 3, 3, 1], [127, 3, 3, 255]].map(enter);
    here.iter_mut().for_each(Client::is_served);
    assert_eq!(enter([127, 3, 3, 7]).hears(), "");
    assert_eq!(enter([127, 3, 4, 1]).hears(), HELLO);
    drop(here);
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

// What happens at a limit.

fn sources_in_the_room_take_turns_with(house: House) {
    let place = Place::new(house, &["-c", "1", "-C", "64", "--on-full", "queue:64:1h:number %d"]);
    let holder = place.served(9);
    let (mut told, mut room) = (Vec::new(), Vec::new());
    // Source 1 comes with many, one after the other; then sources 2 and 3.
    for (number, source) in [1, 1, 1, 1, 2, 3, 2].into_iter().enumerate() {
        let mut client = place.client(source);
        // Who will say no more waits like others: here it is the one who is served last.
        if number == 3 {
            client.finishes();
        }
        told.push(client.hears());
        room.push((source, client));
    }
    let places = [1, 2, 3, 4, 2, 3, 5].map(|place| format!("number {place}\n"));
    assert_eq!(told, places, "who comes is told how many go before, as far as it is known");
    let is_accept = |line: &str, client: &Client| {
        let port = format!(":{}", client.port());
        line.starts_with("accept ") && value(line, "peer").is_some_and(|peer| peer.ends_with(&port))
    };
    let (mut from, _) = place.server.wait_log_from(0, |line| is_accept(line, &holder));
    drop(holder);
    // Each makes place for the next when it has been told of: whichever process accepts them, the log has them in their order.
    let mut accepted = Vec::new();
    while !room.is_empty() {
        let (next, line) = place.server.wait_log_from(from, |line| line.starts_with("accept "));
        let at = room.iter().position(|(_, client)| is_accept(&line, client)).expect("one of the room");
        let (source, mut client) = room.remove(at);
        client.is_served();
        if !room.is_empty() {
            client.finishes();
        }
        assert_eq!(client.hears(), "");
        accepted.push(source);
        from = next;
    }
    assert_eq!(accepted, [1, 2, 3, 1, 2, 1, 1]);
    place.ends(&[]);
}

#[test]
fn sources_in_the_room_take_turns() {
    sources_in_the_room_take_turns_with(V4.into());
}

#[test]
fn sources_in_the_room_of_several_acceptors_take_turns_as_in_one() {
    ACCEPTORS
        .into_iter()
        .for_each(|acceptors| sources_in_the_room_take_turns_with(House { family: V4, acceptors }));
}

fn a_full_room_takes_from_the_network_that_has_most_in_it_with(house: House) {
    let place = Place::new(house, &["-c", "1", "-C", "64", "--on-full", "queue:4:1h"]);
    let enter = |network| place.of_network(network);
    let mut holder = enter(1);
    holder.is_served();
    let in_turn = |waiting| {
        let client = enter(2);
        place.wait_count("waiting", waiting);
        client
    };
    let mut crowd: Vec<Client> = (1..=4).map(in_turn).collect();
    assert_eq!(enter(2).hears(), "", "its own network has most already");
    let mut other = enter(3);
    assert_eq!(crowd.pop().unwrap().hears(), "", "the last of the crowd goes");
    let mut second = enter(3);
    assert_eq!(crowd.pop().unwrap().hears(), "");
    assert_eq!(enter(3).hears(), "", "two and two: nobody gains by a change");
    assert_eq!(place.count("waiting"), 4);
    drop(holder);
    crowd[0].is_served();
    drop(crowd.remove(0));
    other.is_served();
    drop(other);
    crowd[0].is_served();
    drop(crowd);
    second.is_served();
    drop(second);
    place.ends(&[("full", 4)]);
}

#[test]
fn a_full_room_takes_from_the_network_that_has_most_in_it() {
    a_full_room_takes_from_the_network_that_has_most_in_it_with(V4.into());
}

#[test]
fn a_full_room_of_several_acceptors_takes_from_the_network_that_has_most_in_all_of_it() {
    ACCEPTORS.into_iter().for_each(|acceptors| {
        a_full_room_takes_from_the_network_that_has_most_in_it_with(House { family: V4, acceptors })
    });
}

fn who_has_waited_too_long_goes_with(house: House) {
    const TIME: Duration = Duration::from_secs(1);
    const TRIES: u64 = 10;
    let place = Place::new(house, &["-c", "1", "-C", "64", "--on-full", "queue:8:1s"]);
    let mut holder = place.served(9);
    let start = Instant::now();
    let mut room = place.clients(1, 8);
    for client in &mut room {
        assert_eq!(client.hears(), "");
    }
    assert!(start.elapsed() >= TIME, "after {:?}", start.elapsed());
    assert_eq!((place.count("refused.late"), place.count("waiting")), (8, 0));
    // There is place again, and who has a turn in time is served. A busy machine may take longer over it, but not each time.
    let mut late = 8;
    loop {
        let mut next = place.client(1);
        until("it waits, or has waited too long", || {
            (place.count("waiting") == 1 || place.count("refused.late") > late).then_some(())
        });
        drop(holder);
        if next.hears() == HELLO {
            break;
        }
        late += 1;
        assert!(late < 8 + TRIES, "nobody has a turn in time\n{}", place.server.log());
        place.wait_count("open", 0);
        holder = place.served(9);
    }
    place.ends(&[("late", late)]);
}

#[test]
fn who_has_waited_too_long_goes() {
    who_has_waited_too_long_goes_with(V4.into());
}

#[test]
fn who_has_waited_too_long_goes_at_whichever_acceptor() {
    ACCEPTORS
        .into_iter()
        .for_each(|acceptors| who_has_waited_too_long_goes_with(House { family: V4, acceptors }));
}

#[test]
fn who_leaves_the_room_leaves_it_at_once_however_it_leaves() {
    for family in [V4, Mapped, Unix] {
        let place = Place::new(family, &["-c", "1", "-C", "64", "--on-full", "queue:8:1h"]);
        let holder = place.served(0);
        let mut closed = place.client(0);
        let to = place.server.addr(0);
        let silent = Stream::connect(to).unwrap();
        let harsh = Stream::connect(to).unwrap();
        place.wait_count("waiting", 3);
        // Who will say no more still listens.
        closed.finishes();
        assert_eq!(place.count("waiting"), 3, "a half-close is not a leave");
        drop(silent);
        place.wait_count("waiting", 2);
        match harsh {
            Stream::Tcp(stream) => reset(stream).unwrap(),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both).unwrap(),
        }
        place.wait_count("waiting", 1);
        drop(holder);
        closed.is_served();
        assert_eq!(closed.hears(), "");
        place.ends(&[("left", 2)]);
    }
}

#[test]
fn chance_refuses_nobody_below_the_start_all_at_the_end_and_some_between() {
    let place = Place::new(V4, &["-c", "64", "-C", "64", "--reserve", "0", "--on-full=10:30:40"]);
    let fill = |up_to: usize, here: &mut Vec<Client>| {
        let mut refused = 0;
        while here.len() < up_to {
            let mut client = place.client(1);
            match client.hears().as_str() {
                HELLO => here.push(client),
                "" => refused += 1,
                other => panic!("heard {other:?}"),
            }
        }
        refused
    };
    let mut here = Vec::new();
    assert_eq!(fill(10, &mut here), 0, "nobody below the start");
    // At the start 30 of 100 are refused: of 300 some 90, and with a chance of one in many millions less than 40 or more
    // than 150.
    let mut refused = 0;
    for _ in 0..300 {
        let mut client = place.client(1);
        if client.hears().is_empty() {
            refused += 1;
        } else {
            drop(client);
            until("there are ten again", || (place.server.status().open == 10).then_some(()));
        }
    }
    assert!((40..=150).contains(&refused), "{refused} of 300");
    // From there to the end ever more are: some 140 until it is full, and ten times as many would be no chance.
    let rising = fill(40, &mut here);
    assert!((30..=1400).contains(&rising), "{rising} on the way from 10 to 40");
    let all = (0..50).filter(|_| place.client(1).hears().is_empty()).count();
    assert_eq!(all, 50, "nobody at the end");
    assert_eq!(place.count("open"), 40);
    here.clear();
    until("everybody has gone", || (place.server.status().open == 0).then_some(()));
    assert_eq!(fill(10, &mut here), 0, "and then it is as it was");
    here.clear();
    place.ends(&[("early", refused + rising), ("full", 50)]);
}

fn the_last_slots_are_for_networks_that_have_nobody_here_with(house: House) {
    let place = Place::new(house, &["-c", "10", "-C", "10", "--reserve", "3"]);
    let enter = |network| place.of_network(network);
    let served = |network: u8| {
        let mut client = enter(network);
        client.is_served();
        client
    };
    let mut crowd: Vec<Client> = (0..7).map(|_| served(1)).collect();
    let mut eighth = enter(1);
    place.wait_count("waiting", 1);
    assert!(eighth.has_heard_nothing());
    let second = served(2);
    let mut again = enter(2);
    place.wait_count("waiting", 2);
    let (third, fourth) = (served(3), served(4));
    assert_eq!(place.count("open"), 10);
    // All are taken now, and nobody is looked at.
    let mut fifth = enter(5);
    assert_eq!((place.count("open"), place.count("waiting")), (10, 2));
    assert!([&mut eighth, &mut again, &mut fifth].into_iter().all(Client::has_heard_nothing));
    // The first slot is for the one whose network has nobody, and not for those who have waited longer.
    drop(crowd.pop());
    fifth.is_served();
    // Then one network after the other has gone, and there are slots for all.
    drop((third, fourth));
    place.wait_count("open", 8);
    assert!(eighth.has_heard_nothing() && again.has_heard_nothing(), "seven are for all");
    drop(fifth);
    place.wait_count("open", 7);
    assert!(eighth.has_heard_nothing() && again.has_heard_nothing());
    drop(crowd.pop());
    eighth.is_served();
    drop(crowd.pop());
    again.is_served();
    assert_eq!(place.peak(), 10);
    drop((crowd, eighth, again, second));
    place.ends(&[]);
}

#[test]
fn the_last_slots_are_for_networks_that_have_nobody_here() {
    the_last_slots_are_for_networks_that_have_nobody_here_with(V4.into());
}

#[test]
fn the_last_slots_are_kept_over_acceptors_too() {
    ACCEPTORS.into_iter().for_each(|acceptors| {
        the_last_slots_are_for_networks_that_have_nobody_here_with(House { family: V4, acceptors })
    });
}

#[test]
fn a_flood_from_ten_thousand_addresses_leaves_a_way_in_for_others() {
    const FLOOD: usize = 10_000;
    // Much less, on a machine that has time; who is kept out is so for as long as the flood stays.
    const PROMISE: Duration = Duration::from_secs(15);
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
        .expect("the soft limit may be raised");
    let server = Server::tine(&["127.0.0.1:0", "--", "cat"]);
    let to = server.socket(0);
    // Its books stay as large as they ever had to be, about 1 MiB for so many: the baseline is of a house that was full once, and the
    // flood may not leave more than that.
    let address = |n: usize| Ipv4Addr::new(127, 9, (n / 250) as u8 + 1, (n % 250) as u8 + 1);
    let full: Vec<_> = (0..231 + 1024).map(|n| connect_from(address(n), to).unwrap()).collect();
    until("the house is full", || (server.status().waiting() == 1024).then_some(()));
    drop(full);
    let house_is_empty = || {
        let here = || counter(&server, "open") + counter(&server, "waiting");
        until("the house is empty", || (here() == 0).then_some(()));
    };
    house_is_empty();
    let refused = counter(&server, "refused.full");
    let baseline = Baseline::of(&server);
    let exchange = |source: Ipv4Addr| {
        let served = counter(&server, "served");
        let start = Instant::now();
        let mut client = Client::from(source, to, HELLO);
        client.is_served();
        client.finishes();
        assert_eq!(client.hears(), "");
        let took = start.elapsed();
        // The next one is of the same network, and would have to wait while this one is there.
        until("its child has ended", || (counter(&server, "served") == served + 1).then_some(()));
        took
    };
    // While they come, and when all are here.
    let mut longest = [Duration::ZERO; 2];
    let flood = thread::scope(|scope| {
        let flood =
            scope.spawn(|| (0..FLOOD).map(|n| connect_from(address(n), to).unwrap()).collect::<Vec<_>>());
        let mut times = 0;
        while !flood.is_finished() || times < 3 {
            longest[0] = longest[0].max(exchange(Ipv4Addr::new(127, 10, 1, times % 200 + 1)));
            times = times.wrapping_add(1);
        }
        flood.join().expect("all of the flood can connect")
    });
    // 256 children, 25 of them kept, and 1024 in the room.
    let expected = [("open", 231), ("waiting", 1024), ("refused.full", refused + FLOOD as u64 - 231 - 1024)];
    let decided = || expected.map(|(name, _)| (name, counter(&server, name)));
    until("the flood is decided about", || (decided() == expected).then_some(()));
    for fresh in 1..=10 {
        longest[1] = longest[1].max(exchange(Ipv4Addr::new(127, 10, 0, fresh)));
    }
    // Of networks that are all different there may be as many at once as slots are kept.
    until("the last one has gone", || (server.status().open == 231).then_some(()));
    let other = |network| {
        let mut client = Client::from(Ipv4Addr::new(127, network, 0, 1), to, HELLO);
        client.is_served();
        client
    };
    let others: Vec<Client> = (20..45).map(other).collect();
    assert_eq!(server.status().open, 256);
    drop(others);
    println!(
        "the longest exchange of a fresh source: {:?} while they came, {:?} after",
        longest[0], longest[1]
    );
    assert!(longest.iter().all(|time| *time < PROMISE), "{longest:?}");
    drop(flood);
    house_is_empty();
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

#[test]
fn slots_of_a_source_are_free_again_whatever_became_of_its_children() {
    let folder = Folder::new();
    let removed = folder.copy("/bin/cat", "removed");
    let crash = ["perl", "-e", "kill SEGV => $$; sleep 1"];
    let timeout = ["--first-byte-timeout", "50ms", "--end", "kill"];
    let limit = ["--time-limit", "50ms", "--end", "kill"];
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("crashes", &[], &crash),
        ("lets the first byte's time pass", &timeout, &["cat"]),
        ("lets its whole time pass", &limit, &["cat"]),
        ("cannot be started", &[], &[&removed]),
    ];
    for (what, options, program) in cases {
        let args = [&["127.0.0.1:0", "-C", "2:too many"], options, &["--"], program].concat();
        let server = Server::tine(&args);
        if program == [&removed] {
            fs::remove_file(&removed).unwrap();
        }
        for round in 1..=10 {
            // Two at once are as many as there may be: one slot that is not given back would show.
            let pair = [1, 2].map(|_| connect_from(Ipv4Addr::LOCALHOST, server.socket(0)).unwrap());
            for client in &pair {
                assert_eq!(
                    refusals::to_the_end(client).unwrap(),
                    b"",
                    "a client whose child {what}, {round}"
                );
            }
            until("both have been counted", || (server.status().served == round * 2).then_some(()));
        }
        let all = counters(&server);
        assert_eq!((all["open"], all["failed"], all["refused"]), (0, 20, 0), "{what}");
        assert!(server.stop().success());
    }
}

// Refusals, very many of each kind: nothing is left behind, every one is counted once.

fn very_many(kind: &str, count: u64) {
    let kind = refusals::kind(kind).expect("there is such a kind");
    let seen = kind.run(&binary("tine"), count).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(seen.count, count);
}

const MANY: u64 = 5_000;

#[test]
fn ten_thousand_refused_by_a_full_house_switch_nothing_off() {
    very_many("full", 10_000);
}

#[test]
fn ten_thousand_refused_of_one_source_switch_nothing_off() {
    very_many("source", 10_000);
}

#[test]
fn ten_thousand_refused_by_rate_switch_nothing_off() {
    very_many("rate", 10_000);
}

#[test]
fn very_many_are_refused_by_chance() {
    very_many("early", MANY);
}

#[test]
fn very_many_are_refused_for_a_penalty() {
    very_many("penalty", MANY);
}

#[test]
fn very_many_are_denied() {
    very_many("denied", MANY);
}

#[test]
fn very_many_have_waited_too_long() {
    very_many("late", MANY);
}

#[test]
fn very_many_leave_while_they_wait() {
    very_many("left", MANY);
}

#[test]
fn very_many_speak_for_others_and_may_not() {
    very_many("untrusted", MANY);
}

#[test]
fn very_many_headers_are_none() {
    very_many("header", MANY);
}

#[test]
fn very_many_balancers_name_nobody() {
    very_many("absent", MANY);
}

#[test]
fn very_many_are_gone_before_they_are_accepted() {
    very_many("gone", MANY);
}

#[test]
fn very_many_wait_for_a_process() {
    if !left_out_without_root("a user of its own, who may have no more processes") {
        very_many("fork", MANY);
    }
}

#[test]
fn very_many_have_no_program() {
    very_many("exec", MANY);
}
