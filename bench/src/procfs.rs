//! What the kernel tells of processes and memory: proc_pid_children(5), proc_pid_smaps_rollup(5), proc_meminfo(5),
//! proc_loadavg(5).

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// The living and unreaped children of a process with one thread.
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Memory that a process has written to, in bytes. What it shares with children that were forked from it counts in full, and so
/// this is never less than its private memory.
pub fn written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    1024 * (field(&text, "Private_Dirty") + field(&text, "Shared_Dirty"))
}

/// What could be had without swapping, in KiB.
pub fn available() -> u64 {
    field(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable")
}

/// All threads of this machine that have not been reaped, which is cheap to ask.
pub fn threads() -> u64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let count = || text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok();
    count().unwrap_or(0)
}

/// CLOCK_MONOTONIC in nanoseconds, which all processes share.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

fn field(text: &str, name: &str) -> u64 {
    let value =
        |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "Shared_Dirty:  4 kB\nPrivate_Dirty:      132 kB\n";
        assert_eq!((field(text, "Private_Dirty"), field(text, "Dirty")), (132, 0));
    }

    #[test]
    fn this_machine_tells_all_of_it() {
        let own = std::process::id();
        assert!(written(own) > 0 && available() > 0 && threads() > 0 && monotonic_ns() > 0);
    }
}
