//! What a stretch of time cost the machine's processors, and how much of it was our own: proc_stat(5), clock_gettime(2).
//!
//! Busy time is what is left of all processors' time after idle and stolen time, since ticks that sample who is running
//! miss processes that live shorter than a tick. What the kernel does for the server within our own system calls (loopback
//! delivers on the sender's processor) counts as ours; that is so for every server.

use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::time::{ClockId, clock_gettime};

/// The state of the clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    at: Instant,
    idle: Duration,
    own: Duration,
}

impl Cpu {
    /// Now.
    pub fn now() -> Cpu {
        let own = clock_gettime(ClockId::ProcessCPUTime);
        Cpu {
            at: Instant::now(),
            idle: fs::read_to_string("/proc/stat").ok().and_then(|text| idle(&text)).unwrap_or_default(),
            own: Duration::new(own.tv_sec.unsigned_abs(), own.tv_nsec as u32),
        }
    }

    /// What all others used since `before`, and what we did ourselves.
    pub fn since(&self, before: &Cpu) -> (Duration, Duration) {
        let processors = thread::available_parallelism().map_or(1, usize::from) as u32;
        let all = (self.at - before.at) * processors;
        let own = self.own.saturating_sub(before.own);
        (all.saturating_sub(self.idle.saturating_sub(before.idle)).saturating_sub(own), own)
    }
}

/// Idle, waiting and stolen time of all processors.
fn idle(stat: &str) -> Option<Duration> {
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let ticks = fields.get(3)? + fields.get(4)? + fields.get(7).unwrap_or(&0);
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let hertz = rustix::param::clock_ticks_per_second();
        let text = format!("cpu  1 2 3 {} {} 6 7 {} 0 0\ncpu0 9 9 9 9\n", hertz, 2 * hertz, 3 * hertz);
        assert_eq!(idle(&text), Some(Duration::from_secs(6)));
        assert_eq!(idle("cpu 1 2"), None);
    }
}
