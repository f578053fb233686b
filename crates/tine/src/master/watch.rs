//! Calls that children are killed for: whoever has made one is found out, killed, and told of.
//!
//! The kernel asks before it lets such a call be done ([`tine_confine::Watch`]), and the answer is never that it may. Whoever has asked
//! for it waits meanwhile; so a flood of such calls costs whoever makes it time, and this process a bounded part of its own.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use tine_confine::{Call, Watch};
use tine_os::seccomp::Waiting;
use tine_os::{Kin, Pid};

use super::Master;
use crate::event::Event;

/// How many templates' children are watched. Those of an older one find such calls unknown, and live.
const WATCHES_MOST: usize = 16;

/// How many calls are heard of before others are looked after.
const CALLS_A_TURN: usize = 8;

/// And how long none is heard of when there were so many.
const REST: Duration = Duration::from_millis(10);

/// How many ancestors of a process are looked at for the child that it descends from.
const ANCESTORS_MOST: usize = 8;

/// Where calls are told of: a place for each template that somebody is left of.
#[derive(Debug, Default)]
pub(super) struct Watches {
    all: VecDeque<Watch>,
    rests_until: Option<Instant>,
}

impl Watches {
    pub(super) fn add(&mut self, watch: Option<Watch>) {
        if watch.is_some() && self.all.len() == WATCHES_MOST {
            self.all.pop_front();
        }
        self.all.extend(watch);
    }

    /// Those to be looked at now.
    pub(super) fn open(&self, now: Instant) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.iter().filter(move |_| self.until(now).is_none()).map(AsFd::as_fd)
    }

    /// Until when none is.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|until| *until > now)
    }
}

impl Master {
    /// Calls that processes wait to be killed for.
    pub(super) fn hear_calls(&mut self) {
        if !std::mem::take(&mut self.heard.call) {
            return;
        }
        // Who makes them may be a child that its template has not told of yet.
        self.await_births();
        let mut left = CALLS_A_TURN;
        for _ in 0..self.watches.all.len() {
            let Some(watch) = self.watches.all.pop_front() else { break };
            if self.hear_calls_of(&watch, &mut left) {
                self.watches.all.push_back(watch);
            }
        }
        if left == 0 {
            // Another one is the first to be heard of next time.
            if let Some(first) = self.watches.all.pop_front() {
                self.watches.all.push_back(first);
            }
            self.watches.rests_until = Some(Instant::now() + REST);
        }
    }

    /// So many at most. Gives whether there may be more later.
    fn hear_calls_of(&mut self, watch: &Watch, left: &mut usize) -> bool {
        while *left > 0 {
            match watch.next() {
                Ok(Some(waiting)) => self.forbid(watch, &waiting),
                Ok(None) => break,
                Err(why) if why.kind() == io::ErrorKind::BrokenPipe => return false,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    (self.events)(&Event::Odd { what: "hear of a call", error: &error });
                    *left = 0;
                    break;
                }
            }
            *left -= 1;
        }
        true
    }

    fn forbid(&mut self, watch: &Watch, waiting: &Waiting) {
        let kin = waiting.thread.and_then(|thread| thread.kin().ok());
        let process = kin.map(|kin| kin.process).or(waiting.thread);
        // The dead descend from nobody.
        let child = process.and_then(|process| self.child_of(process, kin));
        let killed = process.map_or(Err(io::ErrorKind::Unsupported.into()), |process| {
            watch.kill(waiting, process).map(|()| process)
        });
        match killed {
            Ok(process) => self.tell_forbidden(process, child, waiting.call),
            // It is not done in any case. Where nobody waits any more there is nothing to be told: it has ended by itself meanwhile.
            Err(error) if watch.refuse(waiting).is_ok() => {
                let error = io::Error::other(format!("{}: {}", waiting.call, tine_os::plain(&error)));
                let what = "kill a process for its call (which was refused)";
                (self.events)(&Event::Odd { what, error: &error });
            }
            Err(_) => {}
        }
    }

    fn tell_forbidden(&mut self, process: Pid, child: Option<Pid>, call: Call) {
        match child {
            // Its end will tell.
            Some(pid) if pid == process => _ = self.calls.insert(pid, call),
            _ => {
                let peer = child.and_then(|pid| self.children.get(&pid)).map(|child| &child.peer);
                let child = child.map(Pid::id);
                (self.events)(&Event::Forbidden { process: process.id(), call, child, peer });
            }
        }
    }

    /// The child that a process is or descends from. One whose parents have gone is in its group, or in its session still, which each
    /// child begins.
    fn child_of(&self, process: Pid, mut kin: Option<Kin>) -> Option<Pid> {
        let mut pid = process;
        for _ in 0..ANCESTORS_MOST {
            let known = kin.take().or_else(|| pid.kin().ok());
            let session = known.and_then(|kin| kin.session);
            let all = [Some(pid), session].into_iter().flatten();
            if let Some(child) = all.into_iter().find(|pid| self.children.contains_key(pid)) {
                return Some(child);
            }
            match known.and_then(|kin| kin.parent).filter(|parent| *parent != Pid::own()) {
                Some(parent) => pid = parent,
                None => break,
            }
        }
        let branch = self.workplace.trees.branch_of(process)?;
        self.children.iter().find(|(_, child)| child.branch == branch).map(|(pid, _)| *pid)
    }
}
