//! What a listener does when the system is short of something: rest, longer each time, and say so once.
//!
//! Pure: the time is given. A pause ends by itself, and at once when a child ends, since that is what makes room.

use std::time::{Duration, Instant};

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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn hurrying_tries_at_once_and_does_not_start_over() {
        let (mut pause, now) = (Pause::default(), Instant::now());
        pause.fail(now);
        pause.hurry();
        assert_eq!(pause.until(now), None);
        pause.fail(now);
        assert_eq!(pause.until(now), Some(now + SHORTEST * 2));
    }
}
