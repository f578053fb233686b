//! What one decision of admission costs when somebody does the worst that can be done to its tables.
//!
//! Ten million IPv6 sources come out of one /48, some leave, most of them earn penalties, so that all tables are full; then
//! come keys that are as bad as can be for ordered tables. Each single call is timed. Run it where nothing else runs:
//! `cargo bench -p tine --bench admit [-- SOURCES]`. The exit status is 1 when the median of any kind of decision is
//! above 5 microseconds or its worst above 100.
//!
//! A machine does other things too: the worst of ten million samples is nearly always an interrupt or another process. So each
//! scenario runs three times, each time in a process of its own and with exactly the same calls, and four figures are shown:
//! `worst` is the wall clock's, `own` the worst time that the thread itself had used up then (interrupts count as that),
//! `again` the worst own time of a call that was slow in all three runs, which is what the code is answerable for, and
//! `away` is how often a call took so long because the thread was not running.
//!
//! `-- together` measures something else: what a client costs where several processes share one admission.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs};

use rustix::time::{ClockId, clock_gettime};
use tine::admit::{Admit, Fault, Gate, Look, Mask, Outside, Ticket, Verdict};
use tine::{Addr, Limits, Peer, Penalties, Rules};
use tine_os::signal::{self, Signal};
use tine_os::{Forked, fork, wait};

const SOURCES: u64 = 10_000_000;

/// How often each scenario runs.
const RUNS: usize = 3;

/// What a decision may cost, in nanoseconds: at the median, and the worst.
const MEDIAN_MOST: u64 = 5_000;
const WORST_MOST: u64 = 100_000;

/// From how many nanoseconds on a call is remembered, to be compared with other runs.
const SLOW: u64 = 10_000;

/// How many of those at most; then only slower ones.
const SLOW_MOST: usize = 4_096;

/// One who does the worst to the tables.
struct Scenario {
    name: &'static str,
    about: &'static str,
    limits: fn(&mut Limits),
    /// The client of this number.
    peer: fn(u64) -> Peer,
    /// How many of all sources come.
    share: u64,
    /// Time between two of them.
    step: Duration,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "default",
        about: "default limits, random addresses in one /48: its 65,536 /64",
        limits: |_| {},
        peer: |number| v6(SITE | random(number) >> 48),
        share: 1,
        step: Duration::from_micros(7),
    },
    Scenario {
        name: "addresses",
        about: "single addresses are sources, random in one /48",
        limits: single,
        peer: |number| v6(SITE | random(number) >> 48),
        share: 1,
        step: Duration::from_micros(7),
    },
    Scenario {
        name: "adjacent",
        about: "single addresses, one after the other",
        limits: single,
        peer: |number| v6(SITE | u128::from(number)),
        share: 4,
        step: Duration::from_micros(7),
    },
    Scenario {
        name: "decreasing",
        about: "single addresses, each before the last",
        limits: single,
        peer: |number| v6(SITE | u128::from(u64::MAX - number)),
        share: 4,
        step: Duration::from_micros(7),
    },
    Scenario {
        name: "outwards",
        about: "single addresses, in the middle of all others by turns from below and above",
        limits: single,
        peer: |number| {
            let half = u128::from(number / 2);
            v6(if number.is_multiple_of(2) { SITE | half } else { SITE | ((u128::MAX >> 48) - half) })
        },
        share: 4,
        step: Duration::from_micros(7),
    },
    Scenario {
        name: "expiring",
        about: "single addresses, and all that is remembered is over within a minute, again and again",
        limits: |limits| {
            single(limits);
            limits.penalties =
                "crash=20s,nobytes=40s,refused=1s,max=1m,min=15s".parse().expect("they are penalties");
        },
        peer: |number| v6(SITE | random(number) >> 48),
        share: 4,
        step: Duration::from_micros(900),
    },
    Scenario {
        name: "queue",
        about: "queue:1024:1s, always full",
        limits: |limits| {
            single(limits);
            limits.on_full = "queue:1024:1s".parse().expect("it is a queue");
        },
        peer: |number| v6(SITE | random(number) >> 48),
        share: 4,
        step: Duration::from_micros(100),
    },
    Scenario {
        name: "crowd",
        about: "queue:100000:1m, full of the clients of sixteen sources",
        limits: |limits| {
            limits.children = 40_000;
            limits.reserve = Some(39_744);
            limits.on_full = "queue:100000:1m".parse().expect("it is a queue");
            limits.penalties = Penalties::default();
        },
        peer: |number| v6(SITE | (random(number) & 15) << 64 | u128::from(number)),
        share: 4,
        step: Duration::from_micros(1),
    },
    Scenario {
        name: "shedding",
        about: "the room is full, and one in four that come is of one of 128 other networks: another goes for it",
        limits: single,
        peer: |number| match number % 4 {
            0 => v6((0x2001_0000 + (random(number) & 127)) << 96 | random(number) >> 48),
            _ => v6(SITE | random(number) >> 48),
        },
        share: 4,
        step: Duration::from_micros(7),
    },
    Scenario {
        name: "rules",
        about: "100,000 rules of all lengths and 10,000 exempt prefixes around the same /48",
        limits: |limits| {
            single(limits);
            limits.rules = many_rules();
            let exempt: Vec<_> = (0..10_000)
                .map(|number: u128| {
                    let bits = 49 + (number % 80) as u8;
                    prefix(SITE | random(number as u64 ^ 0xe0e0) >> 48, bits)
                })
                .collect();
            limits.exempt = exempt.join(",").parse().expect("they are networks");
        },
        peer: |number| v6(SITE | random(number) >> 48),
        share: 4,
        step: Duration::from_micros(7),
    },
    Scenario {
        name: "ipv4",
        about: "single IPv4 addresses of 10.0.0.0/8, at random",
        limits: single,
        peer: |number| {
            let ip: IpAddr = Ipv4Addr::from_bits(0x0a00_0000 | (random(number) >> 104) as u32).into();
            Peer { addr: Addr::Inet(SocketAddr::new(ip, 5023)), credentials: None }
        },
        share: 4,
        step: Duration::from_micros(7),
    },
];

/// The /48 that all come from.
const SITE: u128 = 0x2001_0db8_0042 << 80;

/// What is asked of admission, in the order of a client's life.
const DECISIONS: [&str; 8] =
    ["look", "arrives", "place", "next_shed", "next_waiting", "gives_up", "leaves", "earns"];

fn main() -> ExitCode {
    let mut sources = SOURCES;
    let mut only = None;
    if env::args().any(|arg| arg == "together") {
        together();
        return ExitCode::SUCCESS;
    }
    for arg in env::args().skip(1).filter(|arg| arg != "--bench") {
        match (arg.replace(['_', ','], "").parse(), SCENARIOS.iter().find(|scenario| scenario.name == arg)) {
            (Ok(number), _) => sources = number,
            (_, Some(scenario)) => only = Some(scenario),
            _ => {
                eprintln!("admit: '{arg}' is no number of sources and no scenario");
                return ExitCode::from(100);
            }
        }
    }
    if env::var_os(RUN).is_some() {
        only.expect("a run is of one scenario").run(sources);
        return ExitCode::SUCCESS;
    }
    println!("{:<12} {:>10} median_ns  p99_ns p999_ns worst_ns   own_ns again_ns away", "decision", "calls");
    let scenarios = SCENARIOS.iter().filter(|scenario| only.is_none_or(|one| one.name == scenario.name));
    // Each is measured, whatever came of those before.
    match scenarios.filter(|scenario| !scenario.measure(sources)).count() {
        0 => {
            println!(
                "\nok     each median is below {MEDIAN_MOST} ns, each worst that came again below {WORST_MOST}"
            );
            ExitCode::SUCCESS
        }
        bad => {
            println!("\nfail   scenarios={bad}");
            ExitCode::FAILURE
        }
    }
}

/// How many clients come and go where several processes share one admission.
const CLIENTS: u64 = 300_000;

/// How many records their log has room for.
const RECORDS: usize = 16_384;

/// Nobody sleeps here, and nobody dies.
struct Awake;

impl Outside for Awake {
    fn rules(&mut self, _: u64) -> Rules {
        Rules::default()
    }

    fn poke(&mut self, _: usize) {}

    fn is_gone(&mut self, _: usize) -> bool {
        false
    }
}

/// A client comes and goes, and so on: a look, an arrival, the end of the one that came sixty-four before it.
fn come_and_go(gate: &mut Gate, clients: u64, mut others: impl FnMut()) {
    let mut open = VecDeque::new();
    for number in 0..clients {
        let (peer, now) = (v6(SITE | random(number) >> 48), Instant::now());
        if gate.look(false, now) == Look::Now
            && let Ok((ticket, Verdict::Admit)) = gate.arrives(&peer, now, 0)
        {
            open.push_back(ticket);
        }
        if open.len() > 64 {
            open.pop_front().map(|ticket| gate.leaves(ticket, now));
        }
        others();
    }
    for ticket in open {
        gate.leaves(ticket, Instant::now());
    }
}

/// What a client costs: alone, with a log, with somebody else who replays it, and with others who write to it too.
fn together() {
    let gate = || {
        let mut limits = Limits::default();
        (limits.children, limits.per_source, limits.reserve) = (4_096, Some(4_096), Some(0));
        Gate::alone(limits, usize::MAX)
    };
    let shared = || {
        let mut gate = gate();
        gate.share(RECORDS, Box::new(Awake)).expect("there is memory");
        gate
    };
    let each = |what: &str, began: Instant, count: u64| {
        println!("{what:<56} {:>6} ns", began.elapsed().as_nanos() / u128::from(count));
    };
    for _ in 0..RUNS {
        let (mut alone, began) = (gate(), Instant::now());
        come_and_go(&mut alone, CLIENTS, || {});
        each("alone, a client", began, CLIENTS);

        let (mut one, began) = (shared(), Instant::now());
        come_and_go(&mut one, CLIENTS, || {});
        each("with a log, a client", began, CLIENTS);

        let mut host = shared();
        host.invite(1);
        let mut other = host.copy(1, Box::new(Awake)).expect("there is memory");
        let (mut replay, began, mut number) = (Duration::ZERO, Instant::now(), 0);
        come_and_go(&mut host, CLIENTS, || {
            number += 1;
            if number % 1_024 == 0 {
                let began = Instant::now();
                other.catch_up();
                replay += began.elapsed();
            }
        });
        each("with a log that another reads, a client", began + replay, CLIENTS);
        println!("{:<56} {:>6} ns", "to replay a client of another", replay.as_nanos() / u128::from(CLIENTS));

        let mut host = shared();
        host.invite(1);
        match fork().expect("there are processes") {
            Forked::Child => {
                let mut gate = host.join(1, Box::new(Awake)).expect("there is memory");
                loop {
                    come_and_go(&mut gate, 64, || {});
                }
            }
            Forked::Parent(other) => {
                let began = Instant::now();
                come_and_go(&mut host, CLIENTS, || {});
                each("with another that does the same at once, a client", began, CLIENTS);
                signal::send(other, Signal::KILL).expect("it lives");
                let _ = wait::wait_blocking(other);
            }
        }
    }
}

/// Set where only one run of one scenario is wanted.
const RUN: &str = "TINE_BENCH_RUN";

fn single(limits: &mut Limits) {
    limits.mask = Mask { v4: 32, v6: 128 };
}

fn v6(bits: u128) -> Peer {
    let ip: IpAddr = Ipv6Addr::from_bits(bits).into();
    Peer { addr: Addr::Inet(SocketAddr::new(ip, 5023)), credentials: None }
}

/// A number that looks like chance and is always the same: splitmix64, twice.
fn random(number: u64) -> u128 {
    let mix = |number: u64| {
        let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    u128::from(mix(number + 1)) << 64 | u128::from(mix(!number))
}

fn prefix(bits: u128, length: u8) -> String {
    let first = bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    format!("{}/{length}", Ipv6Addr::from_bits(first))
}

/// Rules about networks within each other, so that a look-up finds many that nearly contain an address.
fn many_rules() -> Rules {
    let mut text = String::new();
    for number in 0..100_000_u64 {
        let bits = 49 + (number % 79) as u8;
        let network = prefix(SITE | random(number) >> 48, bits);
        let _ = match number % 3 {
            0 => writeln!(text, "deny {network}"),
            1 => writeln!(text, "allow {network} children=3 rate=5/s:20"),
            _ => writeln!(text, "allow {network} exempt"),
        };
    }
    // Two random networks may be the same: the first counts.
    let mut seen = BTreeMap::new();
    let lines = text.lines().filter(|line| seen.insert(line.split(' ').nth(1), ()).is_none());
    Rules::parse(&lines.collect::<Vec<_>>().join("\n"), &|_| None).expect("they are rules")
}

/// A list whose memory is all there already, so that it does not count as what the tables need.
fn touched<T: Clone>(length: usize, value: T) -> Vec<T> {
    std::iter::repeat_with(|| value.clone()).take(length).collect()
}

/// The times of all calls of one kind.
struct Times {
    /// How many calls took so many times ten nanoseconds; the last are all that took longer.
    counts: Vec<u32>,
    calls: u64,
    worst: u64,
    own: u64,
    away: u64,
    slow: Vec<(u64, u64)>,
}

impl Times {
    fn new() -> Times {
        let mut times = Times {
            counts: touched(20_000, 0),
            calls: 0,
            worst: 0,
            own: 0,
            away: 0,
            slow: touched(2 * SLOW_MOST, (0, 0)),
        };
        times.slow.clear();
        times
    }

    fn note(&mut self, wall: u64, cpu: u64) {
        let own = wall.min(cpu);
        let last = self.counts.len() - 1;
        self.counts[((wall / 10) as usize).min(last)] += 1;
        self.worst = self.worst.max(wall);
        self.own = self.own.max(own);
        self.away += u64::from(wall > WORST_MOST && own < wall / 2);
        if own >= SLOW {
            self.slow.push((own, self.calls));
            if self.slow.len() == 2 * SLOW_MOST {
                self.slow.sort_unstable_by(|one, other| other.cmp(one));
                self.slow.truncate(SLOW_MOST);
            }
        }
        self.calls += 1;
    }

    fn percentile(&self, share: f64) -> u64 {
        let wanted = (self.calls as f64 * share) as u64;
        let mut sum = 0;
        let at = self.counts.iter().position(|count| {
            sum += u64::from(*count);
            sum > wanted
        });
        at.map_or(0, |at| at as u64 * 10 + 5)
    }

    fn print(&self, name: &str) {
        let [median, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.percentile(share));
        let Times { calls, worst, own, away, .. } = self;
        let slow: String = self.slow.iter().map(|(own, call)| format!(" {call}:{own}")).collect();
        println!("{name} {calls} {median} {p99} {p999} {worst} {own} {away}{slow}");
    }
}

/// One server, and the times of what is asked of it.
struct Run {
    admit: Admit,
    now: Instant,
    ticket: Ticket,
    open: VecDeque<(Ticket, Peer)>,
    room: BTreeMap<Ticket, Peer>,
    times: [Times; DECISIONS.len()],
}

fn cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Run {
    /// One call, timed. The clock of the thread is read outside of what the wall clock sees.
    fn timed<R>(&mut self, decision: &str, ask: impl FnOnce(&mut Admit, Instant) -> R) -> R {
        let at = DECISIONS.iter().position(|name| *name == decision).expect("it is in the list");
        let used = cpu();
        let began = Instant::now();
        let answer = ask(&mut self.admit, self.now);
        let wall = began.elapsed();
        let used = cpu() - used;
        self.times[at].note(wall.as_nanos() as u64, used);
        answer
    }

    /// A client comes, as the master has it: only if somebody is looked for.
    fn comes(&mut self, peer: Peer, number: u64) {
        if self.timed("look", |admit, now| admit.look(false, now)) != Look::Now {
            self.ends(number);
        }
        self.ticket += 1;
        let ticket = self.ticket;
        match self.timed("arrives", |admit, now| admit.arrives(ticket, &peer, now, 1 << 31)) {
            Verdict::Admit => self.open.push_back((ticket, peer)),
            Verdict::Wait => {
                self.timed("place", |admit, _| admit.place(ticket));
                self.room.insert(ticket, peer);
                while let Some(shed) = self.timed("next_shed", |admit, now| admit.next_shed(now)) {
                    self.room.remove(&shed);
                }
            }
            Verdict::Refuse(_) => {}
        }
    }

    /// The child that has been here longest ends, mostly in a way that costs its source something.
    fn ends(&mut self, number: u64) {
        let Some((ticket, peer)) = self.open.pop_front() else { return };
        self.timed("leaves", |admit, now| admit.leaves(ticket, now));
        let fault = if number.is_multiple_of(3) { Fault::NoBytes } else { Fault::Crash };
        if !number.is_multiple_of(8) {
            self.timed("earns", |admit, now| admit.earns(&peer, fault, now));
        }
        while let Some((ticket, verdict)) = self.timed("next_waiting", |admit, now| admit.next_waiting(now)) {
            let peer = self.room.remove(&ticket).expect("it waits");
            if verdict == Verdict::Admit {
                self.open.push_back((ticket, peer));
            }
        }
    }
}

impl Scenario {
    /// In a process of its own: all calls, and a line for each kind of them.
    fn run(&self, sources: u64) {
        let mut limits = Limits::default();
        limits.penalties =
            "crash=90s,nobytes=5m,refused=20s,max=10m,min=15s".parse().expect("they are penalties");
        (self.limits)(&mut limits);
        let mut run = Run {
            admit: Admit::new(limits, usize::MAX),
            now: Instant::now(),
            ticket: 0,
            open: VecDeque::with_capacity(1_024),
            room: BTreeMap::new(),
            times: std::array::from_fn(|_| Times::new()),
        };
        let before = resident();
        let (mut remembered, mut waiting) = (0, 0);
        for number in 0..sources / self.share {
            run.comes((self.peer)(number), number);
            if number.is_multiple_of(2) {
                run.ends(number);
            }
            if number.is_multiple_of(64)
                && let Some((ticket, _)) = run.room.pop_last()
            {
                run.timed("gives_up", |admit, now| admit.gives_up(ticket, now));
            }
            run.now += self.step;
            remembered = remembered.max(run.admit.remembered());
            waiting = waiting.max(run.admit.waiting());
        }
        let grown = resident().saturating_sub(before);
        let refused = run.admit.refused().sum();
        println!(
            "sources={} remembered={remembered} waiting={waiting} refused={refused} grown_kb={grown}",
            sources / self.share
        );
        DECISIONS
            .iter()
            .zip(&run.times)
            .filter(|(_, times)| times.calls > 0)
            .for_each(|(name, times)| times.print(name));
    }

    /// Runs it several times and shows what came of it; gives whether that is within bounds.
    fn measure(&self, sources: u64) -> bool {
        let runs: Vec<_> = (0..RUNS).map(|_| self.output(sources)).collect();
        println!("\n{}: {}\n{}", self.name, self.about, runs[0].lines().next().unwrap_or_default());
        let mut well = true;
        for name in DECISIONS {
            let lines: Vec<Vec<&str>> = runs
                .iter()
                .filter_map(|run| run.lines().skip(1).find(|line| line.split(' ').next() == Some(name)))
                .map(|line| line.split(' ').skip(1).collect())
                .collect();
            if lines.len() < RUNS {
                continue;
            }
            let most =
                |at: usize| lines.iter().filter_map(|line| line[at].parse::<u64>().ok()).max().unwrap_or(0);
            let [calls, median, p99, p999, worst, own, away] = [0, 1, 2, 3, 4, 5, 6].map(most);
            let again = again(&lines.iter().map(|line| &line[7..]).collect::<Vec<_>>());
            let bad = median > MEDIAN_MOST || again > WORST_MOST;
            well &= !bad;
            println!(
                "{name:<12} {calls:>10} {median:>9} {p99:>7} {p999:>7} {worst:>8} {own:>8} {again:>8} {away:>4}{}",
                if bad { "  too slow" } else { "" }
            );
        }
        well
    }

    fn output(&self, sources: u64) -> String {
        let program = env::current_exe().expect("this program is somewhere");
        let output = Command::new(program).args([self.name, &sources.to_string()]).env(RUN, "1").output();
        let output = output.expect("this program can be started");
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text")
    }
}

/// The worst call that was slow in all runs; below [`SLOW`] nothing is known, which is 0.
fn again(runs: &[&[&str]]) -> u64 {
    let mut slow: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for (call, own) in runs.iter().flat_map(|run| run.iter()).filter_map(|entry| entry.split_once(':')) {
        let own = own.parse().unwrap_or(u64::MAX);
        let (times, least) = slow.entry(call).or_insert((0, u64::MAX));
        (*times, *least) = (*times + 1, own.min(*least));
    }
    slow.values().filter(|(times, _)| *times == runs.len()).map(|(_, own)| *own).max().unwrap_or(0)
}

/// Resident memory of this process, in KiB: proc_pid_statm(5).
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").expect("there is /proc");
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("proc_pid_statm(5)");
    pages * rustix::param::page_size() as u64 / 1024
}
