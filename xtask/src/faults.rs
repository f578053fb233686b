//! `cargo xtask faults`: lets each system call of a scripted day fail once, and looks at what becomes of the day.
//!
//! The program is built with its feature `fault`: `TINE_FAULT=12:EMFILE` fails the twelfth call, counted over master
//! and children. The walk asks for n = 1, 2, 3 ... and for each n first for the errno that is usual for the call, then
//! for the others that the kernel may answer there ([`ERRNOS`]). It ends when days pass that the fault never struck. Then all
//! of it once more, with a child that is born before its client comes (`--spares`: only that).
//! Children are confined as those of `tine serve` are where nothing else is asked for, or by another profile (`--confine`).
//! With `--acceptors N` calls of several processes come in another order each time: the n-th may be another one, and what is
//! tried at each n is what comes there.
//! A run is a [`day`]; whether it was a good one is decided apart, by [`verdict`].

mod day;
mod verdict;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Result;
use crate::args::Args;
use crate::run::build;

use day::{Day, Fault, Kind, Record};
use verdict::{Baseline, Ending};

/// What else the kernel may answer to each call; the rest gets [`OTHERWISE`].
const ERRNOS: &[(&str, &[&str])] = &[
    (
        "accept4",
        &["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "ECONNABORTED", "EPROTO", "EPERM", "EINTR", "EAGAIN"],
    ),
    ("fork", &["EAGAIN", "ENOMEM", "ENOSPC"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("socket", &["EMFILE", "ENFILE", "ENOBUFS"]),
    ("socketpair", &["EMFILE", "ENFILE"]),
    ("epoll_create1", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    ("epoll_wait", &["EINTR"]),
    ("poll", &["EINTR", "ENOMEM"]),
    ("wait4", &["EINTR"]),
    ("waitid", &["EINTR"]),
    ("signalfd", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("pidfd_open", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("open", &["EMFILE", "ENFILE", "EINTR"]),
    ("dup", &["EMFILE"]),
    ("dup2", &["EMFILE", "EINTR"]),
    ("read", &["EINTR", "EIO", "EAGAIN"]),
    ("write", &["EINTR", "EIO", "EAGAIN"]),
    ("recvmsg", &["EINTR", "ENOMEM", "EAGAIN"]),
    ("sendmsg", &["EINTR", "ENOBUFS", "ENOMEM", "ETOOMANYREFS"]),
    ("setsockopt", &["ENOMEM", "ENOPROTOOPT"]),
    ("mkdir", &["EAGAIN", "ENOENT", "ENOMEM"]),
    ("rmdir", &["EAGAIN", "ENOENT", "EINTR"]),
    ("flock", &["EAGAIN", "EINTR", "ENOMEM"]),
    ("execve", &["ENOMEM", "EIO", "EAGAIN", "ENOENT"]),
    ("memfd_create", &["EMFILE", "ENOMEM"]),
    ("unshare", &["ENOSPC", "ENOMEM"]),
    ("mount", &["ENOMEM", "ENOSPC"]),
    ("landlock_create_ruleset", &["ENOSYS", "EOPNOTSUPP", "ENOMEM"]),
    ("landlock_restrict_self", &["E2BIG", "ENOMEM"]),
    ("seccomp", &["ENOMEM", "EINVAL"]),
    ("setresuid", &["EAGAIN", "EINVAL"]),
];

const OTHERWISE: &[&str] = &["ENOMEM", "EPERM"];

/// So many days in a row that no fault struck end the walk: one alone may have been a few calls shorter than the next.
const QUIET_DAYS_TO_END: u32 = 3;

/// A walk that gets this far does not come nearer to its end.
const RUNS_MAX: u64 = 3_000;

const SECONDS_MAX: u64 = 3_600;

/// A walk that finds this many bad days has found enough for once.
const BAD_DAYS_MAX: usize = 25;

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let only = args.number_after("--only")?;
    let from = args.number_after("--from")?.or(only);
    let spares = args.switch("--spares");
    let acceptors = args.number_after("--acceptors")?.unwrap_or(1);
    let confine = args.value_after("--confine")?.unwrap_or("guarded".to_string());
    let seconds = args.number_after("--seconds")?.unwrap_or(SECONDS_MAX);
    args.end()?;

    day::adopt_orphans()?;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let kinds: &[usize] = match (spares, from) {
        (true, _) => &[1],
        (false, None) if acceptors == 1 => &[0, 1],
        (false, _) => &[0],
    };
    kinds.iter().try_for_each(|spares| {
        let kind = Kind { spares: *spares, acceptors, confine: confine.clone() };
        walk(kind, only, from.unwrap_or(1), deadline)
    })
}

/// Lets one call after the other fail, in such a server.
fn walk(kind: Kind, only: Option<u64>, from: u64, deadline: Instant) -> Result {
    let mut walk = Walk::prepare(only.is_some(), kind)?;
    let mut quiet_days = 0;
    let mut n = from;
    loop {
        let struck = walk.step(n)?;
        quiet_days = if struck { 0 } else { quiet_days + 1 };
        if only.is_some() || quiet_days == QUIET_DAYS_TO_END {
            break;
        }
        if walk.runs >= RUNS_MAX || Instant::now() >= deadline || walk.bad.len() >= BAD_DAYS_MAX {
            walk.report();
            let found = walk.bad.len();
            return Err(format!(
                "stopped at n={n} after {} runs, {found} of them bad; go on with --from {n}",
                walk.runs
            ));
        }
        n += 1;
    }
    walk.report();
    match walk.bad.len() {
        0 if only.is_some() => Ok(()),
        0 => {
            let steps = n - u64::from(QUIET_DAYS_TO_END);
            println!("clean  {} steps={steps} runs={}", walk.kind, walk.runs);
            Ok(())
        }
        bad => Err(format!("{bad} of {} runs were bad: {}", walk.runs, walk.bad.join(", "))),
    }
}

/// The walk so far.
struct Walk {
    tine: PathBuf,
    kind: Kind,
    baseline: Baseline,
    talkative: bool,
    runs: u64,
    bad: Vec<String>,
    table: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

impl Walk {
    /// Builds the program, and has one day without any fault: what it looks like at its end is the baseline.
    fn prepare(talkative: bool, kind: Kind) -> Result<Self> {
        let built = build(&["-p", "tine-cli", "--features", "fault"])?;
        // A copy: the next build of anything would put the program without the feature back in its place.
        let tine = built.join("tine-fault");
        std::fs::copy(built.join("tine"), &tine).map_err(|why| format!("copy {}: {why}", tine.display()))?;
        let record = Day::new(&tine, &kind, "count").pass();
        let baseline = Baseline::of(&record)
            .map_err(|why| format!("a day without a fault is not good already: {why}\n{}", record.told()))?;
        println!("day    faults=none {kind} descriptors={}", baseline.descriptors());
        let (bad, table) = (Vec::new(), BTreeMap::new());
        Ok(Walk { tine, kind, baseline, talkative, runs: 0, bad, table })
    }

    /// The days on which the n-th call fails; false if there was no such call.
    fn step(&mut self, n: u64) -> Result<bool> {
        let Some(usual) = self.day(n, None)? else { return Ok(false) };
        for errno in errnos(&usual.call).iter().filter(|errno| **errno != usual.errno) {
            self.day(n, Some(errno))?;
        }
        Ok(true)
    }

    fn day(&mut self, n: u64, errno: Option<&str>) -> Result<Option<Fault>> {
        let wish = errno.map_or(n.to_string(), |errno| format!("{n}:{errno}"));
        let record = Day::new(&self.tine, &self.kind, &wish).pass();
        self.runs += 1;
        let verdict = verdict::of(&record, &self.baseline);
        let name = record.fault.as_ref().map_or(format!("n={n} struck=no"), Fault::to_string);
        if self.talkative || verdict.is_err() {
            println!("{}", record.told());
        }
        if let (Some(errno), Some(fault)) = (errno, &record.fault)
            && errno != fault.errno
        {
            return Err(format!(
                "asked for {errno} and got {}: is the name known to tine_os::fault?",
                fault.errno
            ));
        }
        match verdict {
            Ok(ending) => {
                println!("good   {name} {ending}");
                self.count(&record, ending.word());
            }
            Err(why) => {
                println!("bad    {name} why={why:?}");
                self.count(&record, "bad");
                self.bad.push(name);
            }
        }
        Ok(record.fault)
    }

    fn count(&mut self, record: &Record, word: &'static str) {
        let call = record.fault.as_ref().map_or("(not struck)", |fault| &fault.call);
        *self.table.entry(call.to_string()).or_default().entry(word).or_default() += 1;
    }

    fn report(&self) {
        print!("\n{:<16}", "call");
        for word in Ending::WORDS {
            print!("{word:>16}");
        }
        println!();
        for (call, row) in &self.table {
            print!("{call:<16}");
            for word in Ending::WORDS {
                match row.get(word) {
                    Some(times) => print!("{times:>16}"),
                    None => print!("{:>16}", "."),
                }
            }
            println!();
        }
    }
}

fn errnos(call: &str) -> &'static [&'static str] {
    ERRNOS.iter().find(|(name, _)| *name == call).map_or(OTHERWISE, |(_, errnos)| errnos)
}

#[cfg(test)]
mod tests {
    use super::{ERRNOS, errnos};

    #[test]
    fn each_call_is_listed_once_and_any_other_has_errnos_too() {
        for (at, (call, list)) in ERRNOS.iter().enumerate() {
            assert!(!list.is_empty(), "{call}");
            assert!(ERRNOS[..at].iter().all(|(earlier, _)| earlier != call), "{call}");
        }
        assert_eq!(errnos("epoll_wait"), ["EINTR"]);
        assert_eq!(errnos("umask"), ["ENOMEM", "EPERM"]);
    }
}
