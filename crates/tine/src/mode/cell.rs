//! Cells: pid namespaces, each kept by a process of ours, that children are born into and that are used again; with a network of each
//! child's own that too.
//!
//! A namespace needs a first process, and the place is not good for a program (`tine_os::init`). To make one for each client takes
//! longer than all other steps of a confined birth together: a process has to be born, executed and ended. So when nobody is left in
//! one, it has the next client's child; it is empty then, as a new one is, but for the numbers that processes get. So is a network: its
//! only device is down, and nobody in it has the capability to change that, so nothing was ever sent in it that might still be on its way.
//! Whether nobody is
//! left is known of control groups. Where there are none, or somebody might leave his, a cell goes with its child: when it is told
//! to, its first process waits for those who are left, and what remains ends with it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tine_os::signal::{self, Signal};
use tine_os::{Pid, init};

/// A pid namespace that somebody may be born into.
#[derive(Debug)]
pub(crate) struct Cell {
    /// Its first process, a child of the master.
    pub init: Pid,
    /// Which template's children may be born into it: others see it from outside.
    pub of: Pid,
    /// The same process, as setns(2) wants it, unless there are many.
    pub inside: Option<OwnedFd>,
}

/// All of a master.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    free: Vec<Cell>,
    /// First processes that have not been waited for; and when those are killed that were told to go.
    alive: BTreeMap<Pid, Option<Instant>>,
    /// How few were free at any time of a second, and when it ends: nobody needed those.
    unneeded: usize,
    second: Option<Instant>,
}

/// How many are kept that nobody is in, at most.
const FREE_MOST: usize = 128;

/// How long one may take to go that was told to: two seconds are for whoever is left in there.
const LATE: Duration = Duration::from_secs(3);

/// When one is told again that could not be told, for want of a descriptor.
const AGAIN: Duration = Duration::from_millis(100);

/// For how long, when nobody needs them; but one.
const IDLE: Duration = Duration::from_secs(1);

impl Cells {
    /// So many have a descriptor that stays open.
    pub(crate) const OPEN_MOST: usize = 64;

    /// One that nobody is in, for a child of this template.
    pub(crate) fn take(&mut self, template: Pid) -> Option<Cell> {
        let cell = self.free.pop_if(|cell| cell.of == template);
        self.unneeded = self.unneeded.min(self.free.len());
        cell
    }

    /// One was made.
    pub(crate) fn counts(&mut self, cell: &mut Cell) {
        self.alive.insert(cell.init, None);
        if self.alive.len() > Cells::OPEN_MOST {
            cell.inside = None;
        }
    }

    /// Nobody is in it, for certain.
    pub(crate) fn give_back(&mut self, cell: Cell, template: Option<Pid>, now: Instant) {
        let fits = Some(cell.of) == template && self.free.len() < FREE_MOST;
        if fits && self.alive.contains_key(&cell.init) {
            self.free.push(cell);
            if self.second.is_none() {
                self.begin_second(now);
            }
        } else {
            self.close(cell, true);
        }
    }

    /// Of those that nobody is in, all but one that nobody needed for a while go; and whoever was told to go and has not.
    pub(crate) fn tick(&mut self, now: Instant) {
        for (init, until) in
            self.alive.iter_mut().filter(|(_, until)| until.is_some_and(|until| until <= now))
        {
            *until = Some(now + patience(signal::send(*init, Signal::KILL)));
        }
        if self.second.is_some_and(|end| end <= now) {
            // The last one is the first to be taken.
            let surplus = self.unneeded.min(self.free.len()).saturating_sub(1);
            for cell in self.free.drain(..surplus).collect::<Vec<_>>() {
                self.close(cell, true);
            }
            self.begin_second(now);
        }
    }

    fn begin_second(&mut self, now: Instant) {
        self.unneeded = self.free.len();
        self.second = (self.free.len() > 1).then(|| now + IDLE);
    }

    /// When to tick next.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.alive.values().flatten().copied().chain(self.second).min()
    }

    /// It is not used again. Whoever is in there has a moment, or not, when it is `by_force`.
    pub(crate) fn close(&mut self, cell: Cell, by_force: bool) {
        if let Some(until) = self.alive.get_mut(&cell.init) {
            // It has not been waited for, so the number is its own.
            let told = signal::send(cell.init, if by_force { Signal::KILL } else { init::GO });
            *until = Some(Instant::now() + patience(told));
        }
    }

    /// Those that nobody is in go, because their template has.
    pub(crate) fn clear(&mut self) {
        while let Some(cell) = self.free.pop() {
            self.close(cell, true);
        }
    }

    /// Whoever is left in those that were told to go has no more time.
    pub(crate) fn hurry(&self) {
        for (init, _) in self.alive.iter().filter(|(_, until)| until.is_some()) {
            let _ = signal::send(*init, Signal::KILL);
        }
    }

    /// Whether it is the first process of one.
    pub(crate) fn has(&self, pid: Pid) -> bool {
        self.alive.contains_key(&pid)
    }

    /// A first process has ended and was waited for. `false`: it was none.
    pub(crate) fn ended(&mut self, pid: Pid) -> bool {
        self.free.retain(|cell| cell.init != pid);
        self.alive.remove(&pid).is_some()
    }

    /// Those that have not been waited for.
    pub(crate) fn living(&self) -> impl Iterator<Item = Pid> {
        self.alive.keys().copied()
    }

    /// Whether somebody may be left in one whose child has ended.
    pub(crate) fn is_empty(&self) -> bool {
        !self.alive.values().any(Option::is_some)
    }
}

/// How long to wait for the end of one that was told to go.
fn patience(told: std::io::Result<()>) -> Duration {
    if told.is_ok() { LATE } else { AGAIN }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    use super::*;

    fn process() -> Child {
        Command::new("sleep").arg("100").spawn().unwrap()
    }

    fn cell(process: &Child, of: Pid) -> Cell {
        Cell { init: Pid::from_raw(process.id() as i32).unwrap(), of, inside: None }
    }

    fn was_killed(process: &mut Child) -> bool {
        process.wait().unwrap().signal() == Some(9)
    }

    #[test]
    fn so_many_are_kept_that_nobody_is_in_and_one_when_nobody_comes() {
        let (mut cells, template, now) = (Cells::default(), Pid::own(), Instant::now());
        let mut all: Vec<_> = (0..=FREE_MOST).map(|_| process()).collect();
        for (at, process) in all.iter().enumerate() {
            let mut cell = cell(process, template);
            cells.counts(&mut cell);
            cells.give_back(cell, Some(template), now);
            assert_eq!(cells.free.len(), (at + 1).min(FREE_MOST));
        }
        assert!(was_killed(all.last_mut().unwrap()));
        assert_eq!(cells.until(), Some(now + IDLE));
        cells.tick(now + IDLE - Duration::from_millis(1));
        assert_eq!(cells.free.len(), FREE_MOST);
        // They have come in the course of this second.
        cells.tick(now + IDLE);
        assert!(cells.free.len() > 1);
        cells.tick(now + IDLE * 2);
        assert_eq!((cells.free.len(), cells.second), (1, None));
        assert!(all[..FREE_MOST - 1].iter_mut().all(was_killed));
        cells.clear();
        assert!(was_killed(&mut all[FREE_MOST - 1]));
    }

    #[test]
    fn those_that_are_needed_are_kept_and_the_others_go_though_somebody_comes() {
        let (mut cells, template, mut now) = (Cells::default(), Pid::own(), Instant::now());
        let mut all: Vec<_> = (0..8).map(|_| process()).collect();
        for process in &all {
            let mut cell = cell(process, template);
            cells.counts(&mut cell);
            cells.give_back(cell, Some(template), now);
        }
        for _ in 0..3 {
            let three = [0; 3].map(|_| cells.take(template).unwrap());
            three.into_iter().for_each(|cell| cells.give_back(cell, Some(template), now));
            now += IDLE;
            cells.tick(now);
        }
        // Three, and one in reserve.
        assert_eq!(cells.free.len(), 4);
        assert!(all[..4].iter_mut().all(was_killed));
        cells.clear();
        assert!(all[4..].iter_mut().all(was_killed));
    }

    #[test]
    fn one_is_for_the_children_of_its_template_and_for_nobody_when_its_first_process_has_ended() {
        let (mut cells, now) = (Cells::default(), Instant::now());
        let mut all: Vec<_> = (0..2).map(|_| process()).collect();
        let (template, other) = (Pid::own(), Pid::from_raw(1).unwrap());
        let [mut first, mut second] = [0, 1].map(|at| cell(&all[at], template));
        let (init, told) = (first.init, second.init);
        cells.counts(&mut first);
        cells.counts(&mut second);
        cells.give_back(first, Some(template), now);
        cells.give_back(second, Some(other), now);
        assert!(was_killed(&mut all[1]) && cells.has(told) && !cells.is_empty());
        assert!(cells.ended(told) && !cells.ended(told) && cells.is_empty());
        assert!(cells.take(other).is_none());
        let first = cells.take(template).unwrap();
        assert!(cells.take(template).is_none());
        cells.give_back(first, Some(template), now);
        all[0].kill().unwrap();
        assert!(was_killed(&mut all[0]) && cells.ended(init));
        assert!(cells.take(template).is_none());
    }
}
