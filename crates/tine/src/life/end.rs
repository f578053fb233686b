//! The end of a connection: deadlines, what is done when one is over, in what order. Pure: what is heard of a connection
//! and the time go in, what to ask and which signals to send come out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use tine_os::signal::Signal;

use crate::life::admit::Span;

/// How long a child has to notice by itself that its client is gone, before it is told.
pub(crate) const NOTICE: Duration = Duration::from_secs(1);

/// How long connections may take, and how they are ended. Without a deadline a connection takes as long as it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadlines {
    /// Until the client has said its first byte.
    pub first_byte: Option<Duration>,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// In all.
    pub whole: Option<Duration>,
    /// What is done when one of them is over, or the client is gone and the child does not notice.
    pub end: Sequence,
}

/// Signals to the child's process group, each with a time to wait until the next, and last of all death to everything that
/// the child has started.
///
/// Written `hup:2s,term:2s,kill`; a signal without a time is followed by the next at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence(Vec<(Signal, Duration)>);

/// Why a connection was ended by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// `first-byte`: the client did not say a byte in time.
    FirstByte,
    /// `idle`: no byte in either direction for too long.
    Idle,
    /// `time-limit`: it took too long in all.
    TimeLimit,
    /// `gone`: the connection is dead, and the child did not notice.
    Gone,
}

/// A connection's number, which is never used again.
pub(crate) type Mark = u64;

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Find out how long nothing has been said, and tell [`Ends::hears`].
    Ask,
    /// To the child's process group.
    Signal(Signal),
    /// The child and all that it has started.
    Kill,
}

/// The connections that may come to an end by time.
#[derive(Debug)]
pub(crate) struct Ends {
    deadlines: Deadlines,
    timers: BTreeMap<Mark, Timer>,
    due: BTreeSet<(Instant, Mark)>,
}

#[derive(Debug)]
struct Timer {
    born: Instant,
    /// What is known of what was said is not known exactly, so it has to be asked for more often.
    coarse: bool,
    spoken: bool,
    quiet_since: Instant,
    asked_at: Option<Instant>,
    gone: Option<Instant>,
    /// What it was heard to be over by, and when.
    over: Option<(Cause, Instant)>,
    /// Why it is being ended, the step that comes next, and when.
    ending: Option<(Cause, usize, Instant)>,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Whether the client has ever said a byte.
    pub spoken: bool,
    /// How long no byte has gone either way.
    pub quiet: Duration,
}

impl Default for Sequence {
    fn default() -> Sequence {
        let pause = Duration::from_secs(2);
        Sequence(vec![(Signal::HUP, pause), (Signal::TERM, pause)])
    }
}

/// The signals that may be sent, by name.
const SIGNALS: [(&str, Signal); 8] = [
    ("hup", Signal::HUP),
    ("int", Signal::INT),
    ("quit", Signal::QUIT),
    ("term", Signal::TERM),
    ("usr1", Signal::USR1),
    ("usr2", Signal::USR2),
    ("cont", Signal::CONT),
    ("kill", Signal::KILL),
];

impl FromStr for Sequence {
    type Err = String;

    fn from_str(text: &str) -> Result<Sequence, String> {
        let mut steps = Vec::new();
        let mut words = text.split(',').peekable();
        while let Some(word) = words.next() {
            let (name, time) = word.split_once(':').map_or((word, "0"), |(name, time)| (name, time));
            let found = SIGNALS.iter().find(|(known, _)| *known == name);
            let (_, signal) = found.ok_or_else(|| {
                let known: Vec<_> = SIGNALS.iter().map(|(name, _)| *name).collect();
                format!("'{name}' is no signal to end with; there are {}", known.join(", "))
            })?;
            let Span(time) = time.parse()?;
            match (*signal == Signal::KILL, words.peek()) {
                (true, None) if time.is_zero() => {}
                (true, _) => {
                    return Err("nothing comes after kill: it is the last step, without a time".into());
                }
                (false, _) => steps.push((*signal, time)),
            }
        }
        Ok(Sequence(steps))
    }
}

impl Ends {
    pub(crate) fn new(deadlines: Deadlines) -> Ends {
        Ends { deadlines, timers: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// Whether what is said has to be known.
    pub(crate) fn listens(&self) -> bool {
        self.deadlines.first_byte.is_some() || self.deadlines.idle.is_some()
    }

    /// A connection is served from now on.
    pub(crate) fn begins(&mut self, mark: Mark, coarse: bool, now: Instant) {
        if self.listens() || self.deadlines.whole.is_some() {
            self.change(mark, coarse, now, |_| {});
        }
    }

    /// The connection is dead: nobody will ever hear or say anything on it.
    pub(crate) fn is_gone(&mut self, mark: Mark, now: Instant) {
        self.change(mark, false, now, |timer| {
            timer.gone.get_or_insert(now);
        });
    }

    /// The answer to [`Act::Ask`].
    pub(crate) fn hears(&mut self, mark: Mark, heard: Heard, now: Instant) {
        if !self.timers.contains_key(&mark) {
            return;
        }
        let deadlines = self.deadlines.clone();
        self.change(mark, false, now, |timer| {
            timer.spoken |= heard.spoken;
            timer.quiet_since = now.checked_sub(heard.quiet).unwrap_or(timer.born).max(timer.born);
            let is_over = |due: Option<Instant>| due.is_some_and(|due| due <= now);
            if is_over(deadlines.first_byte_at(timer)) {
                timer.over = Some((Cause::FirstByte, now));
            } else if is_over(deadlines.idle_at(timer)) {
                timer.over = Some((Cause::Idle, now));
            }
        });
    }

    /// The child has ended. Tells whether it was told to.
    pub(crate) fn ended(&mut self, mark: Mark) -> Option<Cause> {
        let timer = self.timers.remove(&mark)?;
        self.deadlines.due(&timer).map(|due| self.due.remove(&(due, mark)));
        timer.ending.map(|(cause, ..)| cause)
    }

    /// What is to be done next, if it is to be done now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Mark, Act)> {
        while let Some((due, mark)) = self.due.first().copied()
            && due <= now
        {
            let deadlines = self.deadlines.clone();
            let mut act = None;
            self.change(mark, false, now, |timer| act = deadlines.act(timer, now));
            if let Some(act) = act {
                return Some((mark, act));
            }
        }
        None
    }

    /// When there is something to be done next.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    fn change(&mut self, mark: Mark, coarse: bool, now: Instant, change: impl FnOnce(&mut Timer)) {
        let new = || Timer {
            born: now,
            coarse,
            spoken: false,
            quiet_since: now,
            asked_at: None,
            gone: None,
            over: None,
            ending: None,
        };
        let known = self.timers.contains_key(&mark);
        let timer = self.timers.entry(mark).or_insert_with(new);
        let before = if known { self.deadlines.due(timer) } else { None };
        change(timer);
        let after = self.deadlines.due(timer);
        if before != after || !known {
            before.map(|due| self.due.remove(&(due, mark)));
            after.map(|due| self.due.insert((due, mark)));
        }
    }
}

impl Deadlines {
    /// When something is to be done about a connection.
    fn due(&self, timer: &Timer) -> Option<Instant> {
        if let Some((_, _, until)) = timer.ending {
            return Some(until);
        }
        if let Some((_, since)) = timer.over {
            return Some(since);
        }
        let gone = timer.gone.map(|gone| gone + NOTICE);
        let whole = self.whole.map(|whole| timer.born + whole);
        let quiet = [self.first_byte_at(timer), self.idle_at(timer)].into_iter().flatten().min();
        let asked = quiet.map(|due| match timer.asked_at {
            // Nobody could tell: it is asked again a little later.
            Some(asked) if due <= asked => asked + AGAIN,
            Some(asked) if timer.coarse => due.min(asked + self.coarse_step()),
            None if timer.coarse => due.min(timer.born + self.coarse_step()),
            _ => due,
        });
        [gone, whole, asked].into_iter().flatten().min()
    }

    fn first_byte_at(&self, timer: &Timer) -> Option<Instant> {
        self.first_byte.filter(|_| !timer.spoken).map(|time| timer.born + time)
    }

    fn idle_at(&self, timer: &Timer) -> Option<Instant> {
        self.idle.map(|idle| timer.quiet_since + idle)
    }

    /// How often those are asked about of whom it is only known that they have said something since the last time.
    fn coarse_step(&self) -> Duration {
        let shortest = [self.first_byte, self.idle].into_iter().flatten().min().unwrap_or(AGAIN);
        (shortest / 4).max(Duration::from_millis(50))
    }

    /// What is to be done about a connection whose time has come.
    fn act(&self, timer: &mut Timer, now: Instant) -> Option<Act> {
        if let Some((cause, step, _)) = timer.ending {
            return Some(self.step(timer, cause, step, now));
        }
        let is_over = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let cause = if let Some((cause, _)) = timer.over {
            cause
        } else if is_over(timer.gone.map(|gone| gone + NOTICE)) {
            Cause::Gone
        } else if is_over(self.whole.map(|whole| timer.born + whole)) {
            Cause::TimeLimit
        } else {
            timer.asked_at = Some(now);
            return Some(Act::Ask);
        };
        Some(self.step(timer, cause, 0, now))
    }

    fn step(&self, timer: &mut Timer, cause: Cause, step: usize, now: Instant) -> Act {
        match self.end.0.get(step) {
            Some((signal, wait)) => {
                timer.ending = Some((cause, step + 1, now + *wait));
                Act::Signal(*signal)
            }
            None => {
                // Should anything survive that, it is tried again.
                timer.ending = Some((cause, step, now + AGAIN));
                Act::Kill
            }
        }
    }
}

/// How soon something is tried again that did not work.
const AGAIN: Duration = Duration::from_secs(1);

impl Cause {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Cause::FirstByte => "first-byte",
            Cause::Idle => "idle",
            Cause::TimeLimit => "time-limit",
            Cause::Gone => "gone",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Mark = 1;

    fn ends(first_byte: u64, idle: u64, whole: u64) -> Ends {
        let some = |s: u64| (s > 0).then_some(Duration::from_secs(s));
        let end = "hup:2s,term:3s,kill".parse().unwrap();
        Ends::new(Deadlines { first_byte: some(first_byte), idle: some(idle), whole: some(whole), end })
    }

    /// Lets time pass second by second; gives what was to be done when, with the answers of `heard`.
    fn pass(ends: &mut Ends, start: Instant, seconds: u64, heard: impl Fn(u64) -> Heard) -> Vec<(u64, Act)> {
        let mut done = Vec::new();
        for second in 0..=seconds {
            let now = start + Duration::from_secs(second);
            while let Some((mark, act)) = ends.next(now) {
                match act {
                    Act::Ask => ends.hears(mark, heard(second), now),
                    act => done.push((second, act)),
                }
            }
        }
        done
    }

    fn quiet(since: u64) -> impl Fn(u64) -> Heard {
        move |now| Heard { spoken: since > 0, quiet: Duration::from_secs(now - since) }
    }

    #[test]
    fn whoever_says_nothing_is_hung_up_on_told_to_end_and_killed() {
        let (mut ends, start) = (ends(5, 0, 0), Instant::now());
        ends.begins(ONE, false, start);
        let done = pass(&mut ends, start, 10, quiet(0));
        assert_eq!(done, [(5, Act::Signal(Signal::HUP)), (7, Act::Signal(Signal::TERM)), (10, Act::Kill)]);
        assert_eq!(ends.ended(ONE), Some(Cause::FirstByte));
        assert_eq!(ends.until(), None);
    }

    #[test]
    fn whoever_has_said_something_has_no_first_byte_to_say_any_more() {
        let (mut ends, start) = (ends(5, 0, 0), Instant::now());
        ends.begins(ONE, false, start);
        assert_eq!(pass(&mut ends, start, 100, quiet(1)), []);
        assert_eq!(ends.until(), None);
        assert_eq!(ends.ended(ONE), None);
    }

    #[test]
    fn idle_is_counted_from_the_last_byte_and_asked_about_no_sooner_than_it_may_be_over() {
        let (mut ends, start) = (ends(0, 10, 0), Instant::now());
        ends.begins(ONE, false, start);
        let asked = std::cell::RefCell::new(Vec::new());
        let done = pass(&mut ends, start, 19, |now| {
            asked.borrow_mut().push(now);
            quiet(8.min(now))(now)
        });
        assert_eq!(*asked.borrow(), [10, 18]);
        assert_eq!(done, [(18, Act::Signal(Signal::HUP))]);
        assert_eq!(ends.ended(ONE), Some(Cause::Idle));
    }

    #[test]
    fn where_only_signs_of_life_are_known_they_are_asked_for_four_times_as_often() {
        let (mut ends, start) = (ends(0, 8, 0), Instant::now());
        ends.begins(ONE, true, start);
        let asked = std::cell::RefCell::new(Vec::new());
        pass(&mut ends, start, 9, |now| {
            asked.borrow_mut().push(now);
            quiet(2)(now)
        });
        assert_eq!(*asked.borrow(), [2, 4, 6, 8]);
    }

    #[test]
    fn the_time_limit_needs_no_question_and_nobody_escapes_it_by_talking() {
        let (mut ends, start) = (ends(3, 4, 20), Instant::now());
        ends.begins(ONE, false, start);
        let done =
            pass(&mut ends, start, 20, |now| Heard { spoken: true, quiet: Duration::from_secs(now % 2) });
        assert_eq!(done, [(20, Act::Signal(Signal::HUP))]);
        assert_eq!(ends.ended(ONE), Some(Cause::TimeLimit));
    }

    #[test]
    fn a_dead_connection_is_ended_when_its_child_had_time_to_notice() {
        let (mut ends, start) = (ends(0, 0, 0), Instant::now());
        ends.begins(ONE, false, start);
        assert_eq!(ends.until(), None, "without a deadline there is nothing to be kept");
        ends.is_gone(ONE, start);
        ends.is_gone(ONE, start + Duration::from_secs(9));
        let done = pass(&mut ends, start, 8, quiet(0));
        assert_eq!(
            done,
            [
                (1, Act::Signal(Signal::HUP)),
                (3, Act::Signal(Signal::TERM)),
                (6, Act::Kill),
                (7, Act::Kill),
                (8, Act::Kill)
            ]
        );
        assert_eq!(ends.ended(ONE), Some(Cause::Gone));
        assert_eq!((ends.until(), ends.next(start + Duration::from_secs(99))), (None, None));
    }

    #[test]
    fn an_answer_that_does_not_come_ends_nobody_and_is_asked_for_again() {
        let (mut ends, start) = (ends(0, 5, 0), Instant::now());
        ends.begins(ONE, false, start);
        let asks =
            (0..=8).filter(|s| ends.next(start + Duration::from_secs(*s)) == Some((ONE, Act::Ask))).count();
        assert_eq!(asks, 4);
    }

    #[test]
    fn steps_are_signals_with_times_and_kill_is_the_last() {
        let steps = |text: &str| text.parse::<Sequence>().map(|sequence| sequence.0.len());
        assert_eq!(steps("hup,term:2s,kill"), Ok(2));
        assert_eq!(steps("term:500ms"), Ok(1));
        assert_eq!(steps("kill"), Ok(0));
        for wrong in ["", "kill,term", "kill:1s", "stop", "term:x", "term,,kill", "TERM"] {
            assert!(steps(wrong).is_err(), "{wrong}");
        }
    }
}
