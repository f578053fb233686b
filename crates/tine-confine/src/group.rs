//! What all processes of one connection may use together: limits of a control group, as data. What is done about them is the
//! caller's, who makes the groups.

use std::{error, fmt};

use tine_os::cgroup::Setting;

/// Limits for a child and all that it starts, counted together; `None` is none. Any of them takes a control group (version 2)
/// of its own for each child, with the controllers: see [`Group::controllers`].
///
/// A program that runs as the user who owns the groups may change their limits: they hold against mistakes then, and
/// against malice only where the child becomes somebody else ([`Plan::identity`](crate::Plan::identity)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Memory, in bytes: what the processes have, what the kernel holds for them, and files that they have read. There is no swap
    /// beside it, and all of the group is killed when it is exceeded.
    pub memory: Option<u64>,
    /// Processes and threads at once.
    pub pids: Option<u64>,
    /// Processor time, in hundredths of one processor; more than 100 is more than one.
    pub cpu: Option<u32>,
}

/// A limit that nobody could keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupError {
    /// Less memory than a program begins in.
    Memory(u64),
    /// No process at all, or more than there can be.
    Pids(u64),
    /// No time at all, or more than any machine has.
    Cpu(u32),
}

/// The least memory: the kernel's own of a process that has executed takes most of it.
const MEMORY_LEAST: u64 = 256 << 10;

/// More processes than any Linux has: PID_MAX_LIMIT in proc_sys_kernel(5).
const PIDS_MOST: u64 = 4_194_304;

/// More processors than Linux runs on (NR_CPUS is 8192).
const CPU_MOST: u32 = 1_000_000;

/// In what time the processor time is counted, in microseconds; the kernel's own default.
const PERIOD: u32 = 100_000;

impl Group {
    /// Whether there is any limit.
    pub fn is_limited(&self) -> bool {
        *self != Group::default()
    }

    /// Checks that a program could keep to them.
    ///
    /// # Errors
    /// The first that none could.
    pub fn check(&self) -> Result<(), GroupError> {
        match *self {
            Group { memory: Some(bytes), .. } if bytes < MEMORY_LEAST => Err(GroupError::Memory(bytes)),
            Group { pids: Some(count), .. } if !(1..=PIDS_MOST).contains(&count) => {
                Err(GroupError::Pids(count))
            }
            Group { cpu: Some(percent), .. } if !(1..=CPU_MOST).contains(&percent) => {
                Err(GroupError::Cpu(percent))
            }
            _ => Ok(()),
        }
    }

    /// The controllers that these take.
    pub fn controllers(&self) -> Vec<&'static str> {
        let all =
            [("memory", self.memory.is_some()), ("pids", self.pids.is_some()), ("cpu", self.cpu.is_some())];
        all.into_iter().filter(|(_, taken)| *taken).map(|(name, _)| name).collect()
    }

    /// What is written to which file of each child's group.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        let mut set = |file, value: String, required| settings.push(Setting { file, value, required });
        if let Some(bytes) = self.memory {
            set("memory.max", bytes.to_string(), true);
            // A kernel without swap has no such file; with it a program would be slow where it is to end.
            set("memory.swap.max", "0".to_owned(), false);
            // One process killed of several leaves the others waiting for it.
            set("memory.oom.group", "1".to_owned(), false);
        }
        if let Some(count) = self.pids {
            set("pids.max", count.to_string(), true);
        }
        if let Some(percent) = self.cpu {
            let quota = u64::from(percent) * u64::from(PERIOD / 100);
            set("cpu.max", format!("{quota} {PERIOD}"), true);
        }
        settings
    }
}

impl fmt::Display for Group {
    /// As on a command line, without the dashes: `memory 64M, pids 32, cpu 50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.memory.map(|bytes| format!("memory {}", amount(bytes)));
        let pids = self.pids.map(|count| format!("pids {count}"));
        let cpu = self.cpu.map(|percent| format!("cpu {percent}"));
        let all: Vec<_> = [memory, pids, cpu].into_iter().flatten().collect();
        f.write_str(&if all.is_empty() { "nothing".to_owned() } else { all.join(", ") })
    }
}

/// A number of bytes with the largest suffix that leaves it whole.
fn amount(bytes: u64) -> String {
    let suffix = [("G", 30), ("M", 20), ("K", 10)]
        .into_iter()
        .find(|(_, bits)| bytes > 0 && bytes.is_multiple_of(1 << bits));
    suffix.map_or(bytes.to_string(), |(suffix, bits)| format!("{}{suffix}", bytes >> bits))
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => {
                write!(
                    f,
                    "no program begins in {} of memory; the least is {}",
                    Bytes(*bytes),
                    amount(MEMORY_LEAST)
                )
            }
            Self::Pids(_) => write!(f, "it is a number from 1, the program itself, to {PIDS_MOST}"),
            Self::Cpu(_) => write!(f, "it is a number from 1 to {CPU_MOST}, in hundredths of one processor"),
        }
    }
}

/// Bytes in words where they are few: the suffix was forgotten then.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1024 { write!(f, "{} bytes", self.0) } else { f.write_str(&amount(self.0)) }
    }
}

impl error::Error for GroupError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(group: Group) -> Vec<(&'static str, String)> {
        group.settings().into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    #[test]
    fn nothing_is_asked_for_unless_it_is() {
        let nothing = Group::default();
        assert!(!nothing.is_limited() && nothing.check().is_ok());
        assert!(nothing.controllers().is_empty() && nothing.settings().is_empty());
        assert_eq!(nothing.to_string(), "nothing");
    }

    #[test]
    fn each_limit_takes_its_controller_and_no_other() {
        let pids = Group { pids: Some(32), ..Group::default() };
        assert_eq!((pids.controllers(), written(pids)), (vec!["pids"], vec![("pids.max", "32".to_owned())]));
        let all = Group { memory: Some(64 << 20), pids: Some(1), cpu: Some(50) };
        assert_eq!(all.controllers(), ["memory", "pids", "cpu"]);
        assert_eq!(all.to_string(), "memory 64M, pids 1, cpu 50");
        let files: Vec<_> = written(all).into_iter().map(|(file, _)| file).collect();
        assert_eq!(files, ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"]);
    }

    #[test]
    fn a_hundred_of_processor_time_is_one_processor() {
        for (percent, text) in [(1, "1000 100000"), (50, "50000 100000"), (250, "250000 100000")] {
            let cpu = Group { cpu: Some(percent), ..Group::default() };
            assert_eq!(written(cpu), [("cpu.max", text.to_owned())]);
        }
    }

    #[test]
    fn each_limit_is_checked_below_at_and_above() {
        let memory = |bytes| Group { memory: Some(bytes), ..Group::default() }.check();
        assert_eq!(memory(MEMORY_LEAST - 1), Err(GroupError::Memory(MEMORY_LEAST - 1)));
        assert!(memory(MEMORY_LEAST).is_ok() && memory(u64::MAX).is_ok());
        let pids = |count| Group { pids: Some(count), ..Group::default() }.check();
        assert!(
            pids(0).is_err() && pids(1).is_ok() && pids(PIDS_MOST).is_ok() && pids(PIDS_MOST + 1).is_err()
        );
        let cpu = |percent| Group { cpu: Some(percent), ..Group::default() }.check();
        assert!(cpu(0).is_err() && cpu(1).is_ok() && cpu(CPU_MOST).is_ok() && cpu(CPU_MOST + 1).is_err());
    }

    #[test]
    fn a_forgotten_suffix_is_seen_in_the_message() {
        let told = GroupError::Memory(64).to_string();
        assert_eq!(told, "no program begins in 64 bytes of memory; the least is 256K");
        assert_eq!(
            GroupError::Memory(64 << 10).to_string(),
            "no program begins in 64K of memory; the least is 256K"
        );
    }
}
