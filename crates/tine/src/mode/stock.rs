//! How many spares to have ready, and when to make more. Pure: arrivals, set-up times and the time go in, a number comes out.
//!
//! There are enough when as many clients as come while one spare is made find one each, four times over; and one more for each
//! client that has found none lately. They are made in batches: nothing is done before half of them are gone, so that most
//! arrivals meet a master that has nothing else to do. When clients come so often that making one for each would take more than
//! half of a processor's time, none is made: it would only be in their way, and a child that is born for its client costs less.

use std::time::{Duration, Instant};

/// How many spares there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spares {
    /// So many at least, whoever comes or not.
    pub least: usize,
    /// So many at most, however many come.
    pub most: usize,
    /// One that has waited for so long is replaced, so that no client gets an address layout and a copy of the master's
    /// memory that is older. Default a minute.
    pub age: Duration,
}

/// What decides how many there are.
#[derive(Debug)]
pub(crate) struct Stock {
    spares: Spares,
    /// Clients a second, lately.
    arrivals: Lately,
    /// Clients that found none, lately.
    misses: Lately,
    /// How long one takes to be ready, smoothed.
    making: Duration,
    /// Whether a batch is being made.
    filling: bool,
    /// Until when none is made, because one could not be, and for how long that was.
    resting: Option<(Instant, Duration)>,
}

/// How many spares are provided for each that is used up while one is made.
const AMPLE: f64 = 4.0;

/// The most of a processor's time that making spares for all who come may take.
const BUSY: f64 = 0.5;

/// How long one is not tried to be made that could not be, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Something that is counted and forgotten again with time.
#[derive(Clone, Copy, Debug)]
struct Lately {
    count: f64,
    at: Option<Instant>,
}

impl Spares {
    /// So many at least and at most.
    ///
    /// ```
    /// let spares = tine::Spares::new(4, 16);
    /// assert_eq!((spares.least, spares.most), (4, 16));
    /// ```
    pub fn new(least: usize, most: usize) -> Spares {
        Spares { least, most: most.max(least), age: Duration::from_secs(60) }
    }

    /// Each is replaced when it has waited for so long.
    pub fn for_at_most(self, age: Duration) -> Spares {
        Spares { age, ..self }
    }
}

impl Lately {
    /// In this time all but a third is forgotten.
    const SPAN: Duration = Duration::from_secs(1);

    const NOTHING: Lately = Lately { count: 0.0, at: None };

    fn happens(&mut self, now: Instant) {
        *self = Lately { count: self.count(now) + 1.0, at: Some(self.at.map_or(now, |at| at.max(now))) };
    }

    fn count(&self, now: Instant) -> f64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.count / growth(passed.as_secs_f64() / Lately::SPAN.as_secs_f64())
    }
}

impl Stock {
    pub(crate) fn new(spares: Spares) -> Stock {
        let making = Duration::from_micros(200);
        Stock {
            spares,
            arrivals: Lately::NOTHING,
            misses: Lately::NOTHING,
            making,
            filling: true,
            resting: None,
        }
    }

    /// The most there ever are.
    pub(crate) fn most(&self) -> usize {
        self.spares.most
    }

    /// A client has come, and has found a spare or not.
    pub(crate) fn arrives(&mut self, found: bool, now: Instant) {
        self.arrivals.happens(now);
        if found {
            self.resting = None;
        } else {
            self.misses.happens(now);
        }
    }

    /// One was ready so long after it was begun.
    pub(crate) fn made(&mut self, took: Duration) {
        // A quarter of each new one, and none counts for more than a second: one that was stopped says nothing of others.
        self.making = (self.making * 3 + took.min(Duration::from_secs(1))) / 4;
    }

    /// One was too old: others take the place of all that are missing.
    pub(crate) fn renews(&mut self) {
        self.filling = true;
    }

    /// One could not be made, or has died before it was of use. Others of the same batch are no further reason, and neither is
    /// what happened long ago; that one was set up says nothing, for an author's own part comes after that.
    pub(crate) fn fails(&mut self, now: Instant) {
        if self.until(now).is_some() {
            return;
        }
        let lately = self.resting.filter(|(until, _)| now < *until + REST.1);
        let rest = lately.map_or(REST.0, |(_, rest)| (rest * 2).min(REST.1));
        self.resting = Some((now + rest, rest));
    }

    /// How many there are to be.
    pub(crate) fn wanted(&self, now: Instant) -> usize {
        let used = self.used(now);
        // A trace of clients that came long ago is nobody.
        let wanted = (used * AMPLE - 0.01).ceil().max(0.0) + self.misses.count(now).round();
        (wanted as usize).clamp(self.spares.least, self.spares.most)
    }

    /// Whether to make one now, of which there are so many.
    pub(crate) fn makes(&self, have: usize, now: Instant) -> bool {
        let wanted = self.wanted(now);
        let filling = have < wanted && (self.filling || have <= wanted / 2);
        filling && self.used(now) <= BUSY && self.until(now).is_none()
    }

    /// How many are used up while one is made.
    fn used(&self, now: Instant) -> f64 {
        // Lately is a second: the count of it is a rate.
        self.arrivals.count(now) / Lately::SPAN.as_secs_f64() * self.making.as_secs_f64()
    }

    /// When clients come so much less often that one may be made again, if it is that which keeps it from being made.
    pub(crate) fn calm_at(&self, have: usize, now: Instant) -> Option<Instant> {
        let used = self.used(now);
        let waits = used > BUSY && have < self.wanted(now);
        waits.then(|| now + Lately::SPAN.mul_f64(growing(used / BUSY) + 0.01))
    }

    /// There are so many now: a batch begins with half of those that are wanted, and goes on until there are all.
    pub(crate) fn counts(&mut self, have: usize, now: Instant) {
        let wanted = self.wanted(now);
        self.filling = have < wanted && (self.filling || have <= wanted / 2);
    }

    /// Until when none is made.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.resting.map(|(until, _)| until).filter(|until| *until > now)
    }

    /// When one that was born then is too old.
    pub(crate) fn stale_at(&self, born: Instant) -> Instant {
        born + self.spares.age
    }
}

// By hand, and to three digits: with a library of mathematics there would be five mappings more for each fork to copy, and for each
// child to take down when it executes its program.

/// e to the power of what is not negative.
fn growth(time: f64) -> f64 {
    let whole = time.min(700.0) as i32;
    let rest = (time - f64::from(whole)).min(1.0);
    let series = (1..=6).rev().fold(1.0, |sum, at| 1.0 + rest / f64::from(at) * sum);
    std::f64::consts::E.powi(whole) * series
}

/// The natural logarithm of what is not less than 1.
fn growing(size: f64) -> f64 {
    let (mut size, mut doublings) = (size.min(f64::MAX), 0);
    while size > 2.0 {
        (size, doublings) = (size / 2.0, doublings + 1);
    }
    let part = (size - 1.0) / (size + 1.0);
    let series = 2.0 * part * (1.0 + part * part * (1.0 / 3.0 + part * part / 5.0));
    std::f64::consts::LN_2 * f64::from(doublings) + series
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn makes(stock: &mut Stock, have: usize, now: Instant) -> bool {
        stock.counts(have, now);
        stock.makes(have, now)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn without_clients_there_are_the_least_and_they_are_made_at_once() {
        let (mut stock, now) = (Stock::new(Spares::new(4, 16)), Instant::now());
        for have in 0..4 {
            assert!(makes(&mut stock, have, now), "{have}");
        }
        assert!(!makes(&mut stock, 4, now));
    }

    #[test]
    fn growth_is_that_of_mathematics_to_three_digits() {
        for step in 0..5_000 {
            let time = f64::from(step) / 100.0;
            assert!(
                (growth(time) / time.exp() - 1.0).abs() < 1e-3,
                "{time}: {} {}",
                growth(time),
                time.exp()
            );
            assert!((growing(time.exp()) - time).abs() < 1e-3, "{time}: {}", growing(time.exp()));
        }
        assert!(growth(1e9) > 1e300 && growing(f64::INFINITY) > 700.0);
    }

    #[test]
    fn nothing_is_made_before_half_are_gone_and_then_all_are() {
        let (mut stock, now) = (Stock::new(Spares::new(8, 8)), Instant::now());
        assert!(!makes(&mut stock, 8, now));
        for have in [7, 6, 5] {
            assert!(!makes(&mut stock, have, now), "{have}");
        }
        for have in [4, 5, 6, 7] {
            assert!(makes(&mut stock, have, now), "{have}");
        }
        assert!(!makes(&mut stock, 8, now) && !makes(&mut stock, 7, now));
    }

    #[test]
    fn a_rate_that_uses_up_more_than_the_least_while_one_is_made_is_provided_for_and_forgotten() {
        let (mut stock, mut now) = (Stock::new(Spares::new(2, 1000)), Instant::now());
        stock.made(ms(100));
        (0..60).for_each(|_| stock.made(ms(100)));
        for _ in 0..5_000 {
            now += ms(1);
            stock.arrives(true, now);
        }
        // A thousand a second, and a tenth of a second each: a hundred are used up, and there are to be four times as many.
        assert!((380..=420).contains(&stock.wanted(now)), "{}", stock.wanted(now));
        assert_eq!(stock.wanted(now + Duration::from_secs(20)), 2);
    }

    #[test]
    fn each_client_that_finds_none_is_one_more_for_a_while() {
        let (mut stock, now) = (Stock::new(Spares::new(0, 64)), Instant::now());
        (0..10).for_each(|_| stock.arrives(false, now));
        assert_eq!(stock.wanted(now), 10);
        assert_eq!(stock.wanted(now + Duration::from_secs(10)), 0);
    }

    #[test]
    fn none_is_made_while_clients_come_faster_than_spares_could_be_made_and_then_again() {
        let (mut stock, mut now) = (Stock::new(Spares::new(8, 32)), Instant::now());
        (0..60).for_each(|_| stock.made(ms(1)));
        for _ in 0..4_000 {
            now += ms(1);
            stock.arrives(false, now);
        }
        // A thousand a second and a millisecond each would take all of a processor.
        assert!(!makes(&mut stock, 0, now));
        let calm = stock.calm_at(0, now).unwrap();
        assert!((600..800).contains(&(calm - now).as_millis()), "{:?}", calm - now);
        assert!(makes(&mut stock, 0, calm) && stock.calm_at(0, calm).is_none());
    }

    #[test]
    fn what_cannot_be_made_is_tried_again_later_and_later() {
        let (mut stock, start) = (Stock::new(Spares::new(4, 4)), Instant::now());
        let (mut now, mut rests) = (start, Vec::new());
        for _ in 0..9 {
            assert!(makes(&mut stock, 0, now));
            stock.fails(now);
            assert!(!makes(&mut stock, 0, now));
            let until = stock.until(now).unwrap();
            rests.push((until - now).as_millis());
            now = until;
        }
        assert_eq!(rests, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        stock.fails(now);
        stock.made(ms(1));
        assert!(!makes(&mut stock, 0, now), "it was set up, and has met nobody yet");
        stock.arrives(true, now);
        assert!(makes(&mut stock, 0, now) && stock.until(now).is_none());
    }

    #[test]
    fn a_batch_that_dies_is_one_failure_and_what_was_long_ago_is_none() {
        let (mut stock, now) = (Stock::new(Spares::new(8, 8)), Instant::now());
        (0..8).for_each(|_| stock.fails(now));
        assert_eq!(stock.until(now), Some(now + REST.0));
        let later = now + Duration::from_secs(60);
        stock.fails(later);
        assert_eq!(stock.until(later), Some(later + REST.0));
    }

    proptest! {
        #[test]
        fn there_are_never_fewer_than_the_least_nor_more_than_the_most(
            (least, more) in (0usize..50, 0usize..50),
            steps in prop::collection::vec((0u64..400, 0u8..4, 0u64..2_000), 0..200),
        ) {
            let spares = Spares::new(least, least + more);
            let (mut stock, mut now, mut have) = (Stock::new(spares), Instant::now(), 0usize);
            for (passes, what, took) in steps {
                now += ms(passes);
                match what {
                    0 => { stock.arrives(have > 0, now); have = have.saturating_sub(1); }
                    1 => stock.made(ms(took)),
                    2 => stock.fails(now),
                    _ => {}
                }
                let wanted = stock.wanted(now);
                prop_assert!((least..=least + more).contains(&wanted));
                // A master that has nothing else to do makes one after the other.
                let mut made = 0;
                while makes(&mut stock, have, now) {
                    have += 1;
                    made += 1;
                    prop_assert!(made <= spares.most, "without end");
                }
                prop_assert!(have <= spares.most.max(wanted));
                let busy = stock.calm_at(have, now).is_some();
                prop_assert!(busy || stock.until(now).is_some() || have > wanted / 2 || wanted == 0);
            }
        }

        #[test]
        fn more_clients_and_longer_making_never_mean_fewer(
            (clients, more) in (0u32..300, 0u32..300),
            (took, longer) in (0u64..1_000, 0u64..1_000),
        ) {
            let wanted = |clients: u32, took: u64| {
                let (mut stock, now) = (Stock::new(Spares::new(0, 1_000_000)), Instant::now());
                stock.made(ms(took));
                (0..clients).for_each(|_| stock.arrives(true, now));
                stock.wanted(now)
            };
            prop_assert!(wanted(clients, took) <= wanted(clients + more, took + longer));
        }
    }
}
