//! Which processors a process may run on. sched_setaffinity(2), sched_getaffinity(2), cpuset(7).

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::fault;

/// A set of processors, by the kernel's numbers.
#[derive(Clone, Debug)]
pub struct Processors(CpuSet);

impl Processors {
    /// Those that this process may run on.
    ///
    /// # Errors
    /// EINVAL where there are more than 1024 processors.
    pub fn own() -> io::Result<Processors> {
        fault::point("sched_getaffinity")?;
        Ok(Processors(sched_getaffinity(None)?))
    }

    /// This one alone.
    pub fn one(number: usize) -> Processors {
        let mut set = CpuSet::new();
        if number < CpuSet::MAX_CPU {
            set.set(number);
        }
        Processors(set)
    }

    /// Their numbers, in order.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        (0..CpuSet::MAX_CPU).filter(|number| self.0.is_set(*number))
    }

    /// This process, and those that it forks from here on, run on these only.
    ///
    /// # Errors
    /// EINVAL when none of them is there.
    pub fn run_on(&self) -> io::Result<()> {
        fault::point("sched_setaffinity")?;
        Ok(sched_setaffinity(None, &self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_put_on_one_processor_may_run_on_that_one_and_is_put_back() {
        let all = Processors::own().unwrap();
        let first = all.numbers().next().unwrap();
        Processors::one(first).run_on().unwrap();
        assert_eq!(Processors::own().unwrap().numbers().collect::<Vec<_>>(), [first]);
        all.run_on().unwrap();
        assert!(Processors::own().unwrap().numbers().eq(all.numbers()));
    }

    #[test]
    fn there_is_no_processor_with_a_number_that_no_machine_has() {
        assert!(Processors::one(100_000).run_on().is_err());
    }
}
