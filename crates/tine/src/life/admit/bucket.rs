//! A token bucket, kept as one instant: when it would be full. ITU-T I.371, "virtual scheduling" (GCRA).

use std::time::{Duration, Instant};

use super::span::{LONGEST, Rate};

/// How much of a rate has been used. Without an instant it is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket(Option<Instant>);

impl Bucket {
    /// When the next one may come; `None` for now.
    pub(crate) fn until(&self, rate: Rate, now: Instant) -> Option<Instant> {
        let (one, most) = (interval(rate), emptied(rate));
        let owed = self.full_at(now)?.saturating_duration_since(now);
        // More than can be owed at this rate was taken at another one, before there were other rules: that must not be a
        // pause of hours for a source that may come each second now. It has one, and owes what can be owed.
        (owed + one > most && owed <= most).then(|| now + (owed + one - most))
    }

    /// Takes one; `false` when there is none to be taken, and nothing changes.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        if self.until(rate, now).is_some() {
            return false;
        }
        let owed = self.full_at(now).unwrap_or(now).saturating_duration_since(now);
        self.0 = Some(now + (owed + interval(rate)).min(emptied(rate)));
        true
    }

    /// When it will be full, if it is not.
    pub(crate) fn full_at(&self, now: Instant) -> Option<Instant> {
        self.0.filter(|full| *full > now)
    }
}

fn interval(rate: Rate) -> Duration {
    (rate.per / rate.count.max(1)).min(LONGEST)
}

/// How long an empty one takes to be full.
fn emptied(rate: Rate) -> Duration {
    interval(rate) * rate.burst.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_come_at_once_and_then_as_many_as_the_rate_says() {
        let rate = Rate { count: 10, per: Duration::from_secs(1), burst: 3 };
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!([0, 0, 0, 0].map(|ms| bucket.take(rate, at(ms))), [true, true, true, false]);
        assert_eq!(bucket.until(rate, at(0)), Some(at(100)));
        assert_eq!(
            [99, 100, 100, 199, 200].map(|ms| bucket.take(rate, at(ms))),
            [false, true, false, false, true]
        );
        assert_eq!(bucket.full_at(at(200)), Some(at(500)));
        assert_eq!(bucket.full_at(at(500)), None);
        assert_eq!([9_000; 4].map(|ms| bucket.take(rate, at(ms))), [true, true, true, false]);
    }

    #[test]
    fn over_ten_seconds_no_more_than_rate_and_burst_get_in_however_hard_they_try() {
        for burst in [1, 7, 100] {
            let rate = Rate { count: 7, per: Duration::from_secs(1), burst };
            let (mut bucket, start) = (Bucket::default(), Instant::now());
            let taken =
                (0..10_000).filter(|ms| bucket.take(rate, start + Duration::from_millis(*ms))).count();
            assert!((69..=70).contains(&(taken - burst as usize)), "{taken} with a burst of {burst}");
        }
    }
}
