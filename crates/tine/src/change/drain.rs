//! Drain: stop accepting, wait, nudge, kill. Pure: requests and the time go in, what to do comes out.

use std::time::{Duration, Instant};

/// How long children have between SIGTERM and SIGKILL.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Nobody new; children may finish until then.
    Waiting(Instant),
    /// They were asked to end, and have until then.
    Nudged(Instant),
    Killed,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    /// Close the listeners.
    Close,
    /// SIGTERM to every child's group.
    Nudge,
    /// SIGKILL to every child's group.
    Kill,
}

/// The end of a server.
#[derive(Debug)]
pub(crate) struct Drain {
    phase: Phase,
    patience: Duration,
}

impl Drain {
    pub(crate) fn new(patience: Duration) -> Drain {
        Drain { phase: Phase::Serving, patience }
    }

    /// How long children have before they are asked to end.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether clients are still taken.
    pub(crate) fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// TERM or INT came: the first time nobody new is taken, the second time it means now.
    pub(crate) fn asked(&mut self, now: Instant) -> Action {
        match self.phase {
            Phase::Serving => {
                self.phase = Phase::Waiting(now + self.patience);
                Action::Close
            }
            Phase::Waiting(_) | Phase::Nudged(_) => {
                self.phase = Phase::Killed;
                Action::Kill
            }
            Phase::Killed => Action::Nothing,
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) -> Action {
        match self.phase {
            Phase::Waiting(until) if now >= until => {
                self.phase = Phase::Nudged(now + GRACE);
                Action::Nudge
            }
            Phase::Nudged(until) if now >= until => {
                self.phase = Phase::Killed;
                Action::Kill
            }
            _ => Action::Nothing,
        }
    }

    /// When to tick next.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(until) | Phase::Nudged(until) => Some(until),
            Phase::Serving | Phase::Killed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_then_a_nudge_then_grace_then_death() {
        let start = Instant::now();
        let mut drain = Drain::new(Duration::from_secs(30));
        assert_eq!(drain.tick(start + Duration::from_secs(999)), Action::Nothing, "nothing ends unasked");
        assert_eq!(drain.asked(start), Action::Close);
        let nudge = start + Duration::from_secs(30);
        assert_eq!(drain.until(), Some(nudge));
        assert_eq!(drain.tick(nudge - Duration::from_millis(1)), Action::Nothing);
        assert_eq!(drain.tick(nudge), Action::Nudge);
        assert_eq!(drain.tick(nudge), Action::Nothing, "one nudge");
        assert_eq!(drain.tick(nudge + GRACE), Action::Kill);
        assert_eq!(drain.until(), None);
    }

    #[test]
    fn a_second_request_means_now_and_a_third_nothing_more() {
        let now = Instant::now();
        let mut drain = Drain::new(Duration::from_secs(30));
        assert_eq!(
            [drain.asked(now), drain.asked(now), drain.asked(now)],
            [Action::Close, Action::Kill, Action::Nothing]
        );
    }
}
