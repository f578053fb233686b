//! What a source earns by how its clients end. After sshd_config(5), PerSourcePenalties.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::span::{LONGEST, Span};

/// What a client did that may cost its source something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Its child died by a fault of its own: SEGV, BUS, FPE, ILL, TRAP, ABRT, SYS; or a handler panicked.
    Crash,
    /// Its child died by another signal.
    Signal,
    /// Its child ended with this status, which is not 0.
    Exit(u8),
    /// It let a deadline pass: first byte, idle, whole time.
    Timeout,
    /// It left without having said a byte.
    NoBytes,
    /// It came although it had too many here already, or too often.
    Refused,
}

/// How long a source is kept out for what. Times add up; they count from [`Penalties::min`] on, and to
/// [`Penalties::max`] at most.
///
/// Written `crash=90s,signal=30s,exit=1s,exit.75=10s,timeout=10s,nobytes=1s,refused=1s,max=10m,min=15s`, or
/// `none`. What is not named costs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Penalties {
    /// For a crash.
    pub crash: Duration,
    /// For another signal.
    pub signal: Duration,
    /// For any exit status but 0 that has no time of its own.
    pub exit: Duration,
    /// For single exit statuses.
    pub exits: BTreeMap<u8, Duration>,
    /// For a deadline.
    pub timeout: Duration,
    /// For a client that said nothing.
    pub nobytes: Duration,
    /// For coming although its source was full or over its rate.
    pub refused: Duration,
    /// The longest that a source is kept out. Default 10 minutes.
    pub max: Duration,
    /// What a source may have earned without being kept out. Default 15 seconds.
    pub min: Duration,
}

impl Default for Penalties {
    fn default() -> Penalties {
        let nothing = Duration::ZERO;
        Penalties {
            crash: nothing,
            signal: nothing,
            exit: nothing,
            exits: BTreeMap::new(),
            timeout: nothing,
            nobytes: nothing,
            refused: nothing,
            max: Duration::from_secs(600),
            min: Duration::from_secs(15),
        }
    }
}

impl Penalties {
    /// What a fault costs.
    pub fn of(&self, fault: Fault) -> Duration {
        match fault {
            Fault::Crash => self.crash,
            Fault::Signal => self.signal,
            Fault::Exit(status) => self.exits.get(&status).copied().unwrap_or(self.exit),
            Fault::Timeout => self.timeout,
            Fault::NoBytes => self.nobytes,
            Fault::Refused => self.refused,
        }
    }
}

impl FromStr for Penalties {
    type Err = String;

    fn from_str(text: &str) -> Result<Penalties, String> {
        const NAMES: &str = "crash, signal, exit, exit.STATUS, timeout, nobytes, refused, max and min";
        let mut penalties = Penalties::default();
        if text == "none" {
            return Ok(penalties);
        }
        for pair in text.split(',') {
            let form = || format!("'{pair}' is no penalty: the form is NAME=TIME, as in crash=90s");
            let (name, time) = pair.split_once('=').ok_or_else(form)?;
            let Span(time) = time.parse()?;
            let place = match name {
                "crash" => &mut penalties.crash,
                "signal" => &mut penalties.signal,
                "exit" => &mut penalties.exit,
                "timeout" => &mut penalties.timeout,
                "nobytes" => &mut penalties.nobytes,
                "refused" => &mut penalties.refused,
                "max" => &mut penalties.max,
                "min" => &mut penalties.min,
                other => {
                    let unknown = || format!("there is no penalty for '{other}'; there are {NAMES}");
                    let status = other.strip_prefix("exit.").ok_or_else(unknown)?;
                    let status: u8 = status.parse().ok().filter(|status| *status > 0).ok_or_else(|| {
                        format!("'{status}' is no exit status that could be penalised: 1 to 255")
                    })?;
                    penalties.exits.entry(status).or_default()
                }
            };
            *place = time;
        }
        if penalties.min > penalties.max {
            return Err("min is longer than max, so that nobody would ever be kept out".into());
        }
        Ok(penalties)
    }
}

/// What a source has earned: until when, and whether that was ever enough to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Earned {
    until: Option<Instant>,
    counts: bool,
}

impl Earned {
    /// Adds to it; `true` when the source is kept out from now on and was not before.
    pub(crate) fn add(&mut self, time: Duration, penalties: &Penalties, now: Instant) -> bool {
        if time.is_zero() {
            return false;
        }
        let from = match self.until(now) {
            Some(until) => until,
            None => {
                *self = Earned::default();
                now
            }
        };
        let until = (from + time.min(LONGEST)).min(now + penalties.max.min(LONGEST));
        let news = !self.counts && until.saturating_duration_since(now) >= penalties.min;
        *self = Earned { until: Some(until), counts: self.counts || news };
        news
    }

    /// Until when it is remembered, if it is not over.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Until when the source is kept out.
    pub(crate) fn keeps_out(&self, now: Instant) -> Option<Instant> {
        self.until(now).filter(|_| self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_price() {
        let penalties: Penalties =
            "crash=90s,signal=30s,exit.75=10s,exit=2s,timeout=10s,nobytes=1s,max=10m,min=15s"
                .parse()
                .unwrap();
        let price = |fault| penalties.of(fault).as_secs();
        assert_eq!(
            [Fault::Crash, Fault::Signal, Fault::Exit(75), Fault::Exit(1)].map(price),
            [90, 30, 10, 2]
        );
        assert_eq!([Fault::Timeout, Fault::NoBytes, Fault::Refused].map(price), [10, 1, 0]);
        assert_eq!("none".parse(), Ok(Penalties::default()));
        for wrong in [
            "",
            "crash",
            "crash=",
            "crash=x",
            "krach=1s",
            "exit.0=1s",
            "exit.256=1s",
            "exit.=1s",
            "min=2m,max=1m",
            "crash=1s,",
        ] {
            assert!(wrong.parse::<Penalties>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn small_ones_add_up_until_they_count_and_never_beyond_the_most() {
        let penalties: Penalties = "crash=6s,max=20s,min=15s".parse().unwrap();
        let (mut earned, start) = (Earned::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        let crash = penalties.of(Fault::Crash);
        assert!(!earned.add(crash, &penalties, at(0)));
        assert!(!earned.add(crash, &penalties, at(0)));
        assert_eq!(earned.keeps_out(at(0)), None, "12 of 15 seconds");
        assert!(earned.add(crash, &penalties, at(1)), "17 of 15 seconds");
        assert_eq!(earned.keeps_out(at(1)), Some(at(18)));
        assert!(!earned.add(crash, &penalties, at(2)), "no news");
        assert_eq!(earned.keeps_out(at(2)), Some(at(22)), "24 seconds, of which 20 from now on are the most");
        assert_eq!(earned.keeps_out(at(21)), Some(at(22)), "below the least again, but it counts to its end");
        assert_eq!(earned.keeps_out(at(22)), None);
        assert!(!earned.add(crash, &penalties, at(22)), "after its end everything begins anew");
        assert_eq!(earned.keeps_out(at(22)), None);
    }
}
