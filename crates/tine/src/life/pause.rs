//! What a listener does when the system is short of something: rest, longer each time, and say so once.
//!
//! Pure: the time is given. A pause ends by itself, and at once when a child ends, since that is what makes room.

use std::time::{Duration, Instant};

use crate::event::{How, Outcome};
use crate::life::admit::Rate;
use crate::life::admit::bucket::Bucket;
use crate::life::reap::SIGPIPE;

/// The first rest, and the longest.
pub(crate) const SHORTEST: Duration = Duration::from_millis(10);
pub(crate) const LONGEST: Duration = Duration::from_secs(1);

/// The rests of one listener.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    until: Option<Instant>,
    next: Option<Duration>,
    since: Option<Instant>,
}

impl Pause {
    /// It failed: rest. Tells for how long when this is the first time, so that it is said once.
    pub(crate) fn fail(&mut self, now: Instant) -> Option<Duration> {
        let rest = self.next.unwrap_or(SHORTEST);
        self.until = Some(now + rest);
        self.next = Some((rest * 2).min(LONGEST));
        let first = self.since.is_none();
        self.since.get_or_insert(now);
        first.then_some(rest)
    }

    /// It worked: tells how long the trouble was, when there was some.
    pub(crate) fn work(&mut self, now: Instant) -> Option<Duration> {
        let since = std::mem::take(self).since?;
        Some(now.saturating_duration_since(since))
    }

    /// There may be room again: try now, but rest as long as before if it fails again.
    pub(crate) fn hurry(&mut self) {
        self.until = None;
    }

    /// When to try again, if not now.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Whether there has been trouble and no success since.
    pub(crate) fn is_troubled(&self) -> bool {
        self.since.is_some()
    }
}

/// Slows births down at a listener whose children fail one like the other, as soon as they are born: a program that cannot
/// work is not worth a processor. It goes on being tried, so that it is seen when it works again.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// Failures without anything better in between, and when the last was.
    row: u32,
    last: Option<Instant>,
    since: Option<Instant>,
    pace: Bucket,
}

impl Breaker {
    /// So many in a row are no chance.
    const ROW: u32 = 100;

    /// How many children may be born then.
    const PACE: Rate = Rate { count: 100, per: Duration::from_secs(1), burst: 10 };

    /// Who has lived as long has not failed at once; and when there was no failure for so long, it is over.
    pub(crate) const QUICK: Duration = Duration::from_secs(1);

    /// A child has failed at once. `true` when births are slowed down from now on.
    pub(crate) fn fail(&mut self, now: Instant) -> bool {
        self.row = if self.is_over(now) { 1 } else { self.row.saturating_add(1) };
        self.last = Some(now);
        let trips = self.row >= Breaker::ROW && self.since.is_none();
        if trips {
            self.since = Some(now);
        }
        trips
    }

    /// A child has done better. Tells how long births were slowed down, if they were.
    pub(crate) fn work(&mut self, now: Instant) -> Option<Duration> {
        let since = std::mem::take(self).since?;
        Some(now.saturating_duration_since(since))
    }

    /// A child is about to be born.
    pub(crate) fn birth(&mut self, now: Instant) {
        if self.is_tripped() {
            self.pace.take(Breaker::PACE, now);
        }
    }

    /// When the next child may be born, if not now.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.pace.until(Breaker::PACE, now).filter(|_| self.is_tripped())
    }

    /// Whether births are slowed down.
    pub(crate) fn is_tripped(&self) -> bool {
        self.since.is_some()
    }

    /// Whether nobody has failed for so long that there must be some who do not.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) >= Breaker::QUICK)
    }
}

/// What the end of a child says of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Omen {
    /// It failed at once.
    Bad,
    /// It did what it is there for, or has lived for long enough to.
    Good,
    Neither,
}

impl Omen {
    pub(crate) fn of(outcome: &Outcome) -> Omen {
        let quick = outcome.bill.wall < Breaker::QUICK;
        match &outcome.how {
            How::Exit(0) => Omen::Good,
            // One that never began says nothing of the next, however long that took.
            How::Setup(..) => Omen::Neither,
            _ if !quick => Omen::Good,
            // A program whose client has gone ends like one that fails.
            How::Signal(SIGPIPE) => Omen::Neither,
            _ if outcome.cause.is_some() => Omen::Neither,
            _ => Omen::Bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::event::Bill;
    use crate::life::end::Cause;

    use super::*;

    #[test]
    fn only_who_fails_at_once_and_by_himself_is_a_bad_omen_and_whose_client_has_gone_is_no_good_one() {
        let omen = |how, cause, ms| {
            let bill = Bill { wall: Duration::from_millis(ms), ..Bill::default() };
            Omen::of(&Outcome { how, cause, call: None, bill })
        };
        assert_eq!(omen(How::Exit(1), None, 999), Omen::Bad);
        assert_eq!(omen(How::Signal(11), None, 0), Omen::Bad);
        assert_eq!(omen(How::Exit(1), None, 1000), Omen::Good);
        assert_eq!(omen(How::Exit(0), None, 0), Omen::Good);
        assert_eq!(omen(How::Exit(0), Some(Cause::Gone), 0), Omen::Good);
        assert_eq!(omen(How::Exit(1), Some(Cause::Gone), 0), Omen::Neither);
        assert_eq!(omen(How::Signal(SIGPIPE), None, 0), Omen::Neither);
    }

    #[test]
    fn who_never_began_is_no_omen_however_long_that_took() {
        for ms in [0, 999, 1000, 60_000] {
            let (step, error) = (tine_confine::Step::Exec, std::io::Error::from_raw_os_error(2));
            let bill = Bill { wall: Duration::from_millis(ms), ..Bill::default() };
            let how = How::Setup(step, error);
            assert_eq!(Omen::of(&Outcome { how, cause: None, call: None, bill }), Omen::Neither, "{ms}");
        }
    }

    #[test]
    fn rests_double_up_to_a_second_and_are_said_once() {
        let (mut pause, mut now, mut rests) = (Pause::default(), Instant::now(), Vec::new());
        for n in 0..10 {
            assert_eq!(pause.fail(now).is_some(), n == 0);
            let until = pause.until(now).expect("it rests");
            rests.push((until - now).as_millis());
            now = until;
            assert_eq!(pause.until(now), None, "every rest ends by itself");
        }
        assert_eq!(rests, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
        assert!(pause.work(now).is_some() && pause.work(now).is_none());
        assert_eq!(pause.fail(now), Some(SHORTEST), "after a success it is news again");
    }

    #[test]
    fn a_hundred_failures_in_a_row_slow_births_down_and_one_success_ends_that() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!((1..Breaker::ROW).all(|_| !breaker.fail(at(0))), "99 are chance");
        assert_eq!(breaker.work(at(0)), None);
        assert!((1..Breaker::ROW).all(|_| !breaker.fail(at(0))), "99 again");
        assert!(!breaker.is_tripped() && breaker.until(at(0)).is_none());
        assert!(breaker.fail(at(0)) && !breaker.fail(at(0)), "the hundredth is news, and no other");
        let births = (0..1000).filter(|ms| {
            let free = breaker.until(at(*ms)).is_none();
            if free {
                breaker.birth(at(*ms));
                breaker.fail(at(*ms));
            }
            free
        });
        assert!((100..=110).contains(&births.count()));
        assert_eq!(breaker.work(at(1000)), Some(Duration::from_secs(1)));
        assert_eq!(breaker.until(at(1000)), None);
    }

    #[test]
    fn failures_that_are_long_ago_do_not_count() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for n in 0..1000 {
            assert!(!breaker.fail(start + Breaker::QUICK * n));
        }
        assert!(breaker.is_over(start + Breaker::QUICK * 1000));
    }

    #[test]
    fn hurrying_tries_at_once_and_does_not_start_over() {
        let (mut pause, now) = (Pause::default(), Instant::now());
        pause.fail(now);
        pause.hurry();
        assert_eq!(pause.until(now), None);
        pause.fail(now);
        assert_eq!(pause.until(now), Some(now + SHORTEST * 2));
    }
}
