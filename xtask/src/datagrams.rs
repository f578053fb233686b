//! `cargo xtask datagrams`: very many datagrams echoed while workers are killed, and an account of each one.
//!
//! In lots, so that every lot has one kill in it: while a lot is under way, one of the workers gets SIGKILL. What does
//! not come back must be the datagram that a killed worker had in hand, as the server says (`worker pid=... signal=9
//! lost=1`), or one that the kernel says it dropped before anybody read it. A worker killed between its answer and its
//! note of it is said to have lost what in fact arrived, so the account may have one too many for each kill, never one
//! too few.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tine_testkit::server::{DEADLINE, until_within};
use tine_testkit::{Baseline, Datagrams, Ready, Server, ask_datagram, children, datagrams, udp_drops};

use crate::Result;
use crate::args::Args;
use crate::run::build;

const DATAGRAMS: u64 = 1_000_000;

/// Datagrams in a lot, and so between two kills.
const KILL_EVERY: u64 = 10_000;

/// Datagrams under way: enough to keep both workers busy, too few to fill a socket's buffer.
const WINDOW: usize = 64;

/// Peers that send at once: each stays with one worker, and no worker is to be idle.
const PEERS: u64 = 4;

/// How many workers the example has.
const WORKERS: usize = 2;

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let every = args.number_after("--kill-every")?.unwrap_or(KILL_EVERY).max(1);
    let total = args.number().unwrap_or(DATAGRAMS);
    args.end()?;

    let server = start()?;
    let address = server.addr(0).to_string();
    workers(&server)?; // they are started after the server says that it is ready
    let baseline =
        Baseline::with(&server, move || ask_datagram(&address, b"are you there?").map(drop)).by_kind();
    let drops_before = udp_drops(server.port(0));
    let mut account = Account::default();
    while account.sent < total {
        let lot = every.min(total - account.sent);
        account.lot(&server, lot)?;
        if account.kills % 10 == 0 {
            println!("lot    sent={} kills={} missing={}", account.sent, account.kills, account.missing);
        }
    }
    account.kernel_drops += udp_drops(server.port(0)) - drops_before;
    server.quiescent(&baseline);
    let end = server.stop();

    println!(
        "sent   datagrams={} seconds={:.1} per_second={:.0} kills={} under_load={}",
        account.sent,
        account.seconds,
        account.sent as f64 / account.seconds,
        account.kills,
        account.kills_under_load
    );
    println!(
        "came   received={} late={} missing={} lost_in_hand={} kernel_drops={}",
        account.received, account.late, account.missing, account.lost_in_hand, account.kernel_drops
    );
    account.adds_up().map_err(|why| format!("{why}\n{}", server.log()))?;
    if end.success() { Ok(()) } else { Err(format!("the server ended with {end}\n{}", server.log())) }
}

fn start() -> Result<Server> {
    let echo = build(&["--release", "-p", "tine", "--example", "udp_echo"])?.join("examples/udp_echo");
    let mut command = Command::new(echo);
    command.args(["udp://127.0.0.1:0", &WORKERS.to_string()]);
    Ok(Server::start(command, Ready::Line))
}

/// The workers, once all are there.
fn workers(server: &Server) -> Result<Vec<u32>> {
    let all = || Some(children(server.pid())).filter(|workers| workers.len() == WORKERS);
    until_within(DEADLINE, all).ok_or_else(|| {
        let found = children(server.pid());
        format!("{WORKERS} workers there should be, not {found:?}\n{}", server.log())
    })
}

/// Where every datagram went.
#[derive(Debug, Default)]
struct Account {
    sent: u64,
    received: u64,
    late: u64,
    missing: u64,
    duplicates: u64,
    strays: u64,
    refused: u64,
    kills: u64,
    /// Of these, how many were done before their lot had come to its end.
    kills_under_load: u64,
    /// As the server tells, over all workers that were killed.
    lost_in_hand: u64,
    /// As the kernel tells, of the server's socket and of the clients'.
    kernel_drops: u64,
    seconds: f64,
}

impl Account {
    /// Sends a lot and kills a worker while it is under way.
    fn lot(&mut self, server: &Server, lot: u64) -> Result {
        let from = server.cursor();
        let workers = workers(server)?;
        let victim = workers[self.kills as usize % WORKERS];
        let pause = self.pause(lot);
        let (load, under_load) = thread::scope(|scope| {
            let share = |peer| (lot + peer) / PEERS;
            let load = |peer| move || datagrams(server.addr(0), share(peer), WINDOW / PEERS as usize);
            let loads: Vec<_> = (0..PEERS).map(|peer| scope.spawn(load(peer))).collect();
            thread::sleep(pause); // any moment of the lot will do, and not always the same one
            kill(victim);
            let under_load = loads.iter().any(|load| !load.is_finished());
            (loads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>(), under_load)
        });
        self.kills_under_load += u64::from(under_load);
        let mut longest = 0.0;
        for load in load {
            let load = load.map_err(|_| "the thread that sends panicked".to_string())?;
            let load = load.map_err(|why| format!("send datagrams: {why}"))?;
            longest = f64::max(longest, load.seconds);
            self.add(&load);
        }
        self.seconds += longest;
        self.kills += 1;

        let told = format!("worker pid={victim} ");
        let (_, line) = server.wait_log_from(from, |line| line.starts_with(&told));
        self.lost_in_hand += lost(&line)?;
        Ok(())
    }

    /// Into a lot, from a tenth to eight tenths of the time that lots of this size have taken so far.
    fn pause(&self, lot: u64) -> Duration {
        let usual = if self.sent == 0 { 0.0 } else { self.seconds / self.sent as f64 * lot as f64 };
        Duration::from_secs_f64(usual * (1 + self.kills % 8) as f64 / 10.0)
    }

    fn add(&mut self, load: &Datagrams) {
        self.sent += load.sent;
        self.received += load.received;
        self.late += load.late;
        self.missing += load.missing.len() as u64;
        self.duplicates += load.duplicates;
        self.strays += load.strays;
        self.refused += load.refused;
        self.kernel_drops += load.own_drops;
    }

    fn adds_up(&self) -> Result {
        let wrong = BTreeMap::from([
            ("came twice", self.duplicates),
            ("are no echo of anything", self.strays),
            ("were refused, as if nobody were bound", self.refused),
        ]);
        if let Some((what, count)) = wrong.iter().find(|(_, count)| **count > 0) {
            return Err(format!("{count} datagrams {what}"));
        }
        if self.sent != self.received + self.missing {
            return Err(format!(
                "{} sent, but {} received and {} missing",
                self.sent, self.received, self.missing
            ));
        }
        if self.kills_under_load * 2 < self.kills {
            return Err(format!(
                "{} of {} kills came too late to mean anything",
                self.kills - self.kills_under_load,
                self.kills
            ));
        }
        let explained = self.lost_in_hand + self.kernel_drops;
        if self.missing > explained {
            return Err(format!("{} are missing and only {explained} are explained", self.missing));
        }
        if explained - self.missing > self.kills {
            return Err(format!("{explained} are said to be lost and only {} are missing", self.missing));
        }
        Ok(())
    }
}

/// Kills one worker: a child of our own child the server, seen a moment ago, and only ever killed here.
fn kill(worker: u32) {
    if let Some(pid) = Pid::from_raw(worker.cast_signed()) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// How many datagrams a killed worker took with it, by the server's own word: never more than the one in hand.
fn lost(line: &str) -> Result<u64> {
    let value =
        |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    if value("signal") != Some("9") {
        return Err(format!("a killed worker ended otherwise: {line}"));
    }
    match value("lost").and_then(|lost| lost.parse().ok()) {
        Some(lost @ 0..=1) => Ok(lost),
        Some(more) => Err(format!("{more} datagrams were in hand, one at most may be: {line}")),
        None => Err(format!("nothing is said of what was lost: {line}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, lost};

    fn account() -> Account {
        Account {
            sent: 1000,
            received: 997,
            missing: 3,
            lost_in_hand: 2,
            kernel_drops: 1,
            kills: 4,
            kills_under_load: 4,
            ..Account::default()
        }
    }

    #[test]
    fn an_account_adds_up_or_says_what_does_not() {
        assert_eq!(account().adds_up(), Ok(()));
        assert!(
            Account { kernel_drops: 0, ..account() }.adds_up().unwrap_err().contains("only 2 are explained")
        );
        assert!(Account { received: 996, ..account() }.adds_up().unwrap_err().contains("but 996 received"));
        assert!(Account { duplicates: 1, ..account() }.adds_up().unwrap_err().contains("twice"));
        assert!(Account { kills_under_load: 1, ..account() }.adds_up().unwrap_err().contains("too late"));
        assert!(Account { refused: 1, ..account() }.adds_up().unwrap_err().contains("refused"));
    }

    #[test]
    fn a_worker_may_die_after_its_answer_once_for_each_kill() {
        let answered = Account { received: 1000, missing: 0, lost_in_hand: 4, kernel_drops: 0, ..account() };
        assert_eq!(answered.adds_up(), Ok(()));
        assert!(Account { kills: 3, ..answered }.adds_up().is_err());
    }

    #[test]
    fn what_was_lost_is_read_from_the_servers_word() {
        assert_eq!(lost("worker pid=12 signal=9 lost=1"), Ok(1));
        assert_eq!(lost("worker pid=12 signal=9 lost=0"), Ok(0));
        assert!(lost("worker pid=12 signal=9 lost=2").is_err());
        assert!(lost("worker pid=12 signal=9").is_err());
        assert!(lost("worker pid=12 exit=101 lost=1").is_err());
    }
}
