//! How clients go: deadlines, dead connections, deaths, and what is left behind.

use std::ffi::CStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use tine_os::fork::exit;
use tine_os::signal::{self, Signal};
use tine_os::socket::Addr;
use tine_os::spawn::With;
use tine_os::wait::{Ended, wait_blocking};
use tine_os::{Pid, apart, fd, init, orphan};

use super::{Child, Master, Standing, mark};
use crate::event::{Bill, Event, How, Outcome};
use crate::life::admit::{Fault, Source};
use crate::life::bind::{Listener, Role};
use crate::life::end::{Act, Cause, Heard};
use crate::life::fork::{Desk, SETUP_FAILED, Workplace, fork};
use crate::life::pause::Omen;
use crate::life::reap::{self, Report};
use crate::life::serve::Service;
use crate::life::tree::{Branch, Trees};
use crate::mode::cell::Cell;
use crate::mode::spare::{Done, Leaving};
use crate::mode::template::KEEPER;

/// A child that a lent socket came back from sooner than this, with datagrams still there, has not done its work.
const TOO_SOON: Duration = Duration::from_millis(100);

/// The signal of a program that was killed.
const SIGKILL: i32 = 9;

/// ECHILD: not a child of this process, or already waited for.
const NO_CHILD: i32 = 10;

impl Master {
    /// The next child that has died, in the order in which the kernel told.
    pub(crate) fn next_dead(&mut self) -> Option<Pid> {
        let asked = std::mem::take(&mut self.heard.death) || self.deaths.must_ask();
        if self.dead.is_empty() && asked {
            let mut told = Vec::new();
            if let Err(error) = self.deaths.collect(&mut told) {
                (self.events)(&Event::Odd { what: "epoll_wait", error: &error });
            }
            self.dead.extend(told);
        }
        self.dead.pop_front()
    }

    /// Takes leave of a child: its slot is free, its outcome is told, whatever it has left behind goes soon.
    pub(crate) fn reap(&mut self, pid: Pid, service: &dyn Service) {
        let now = Instant::now();
        if !self.children.contains_key(&pid) {
            // It may be one that its template has not told of yet.
            self.await_births();
        }
        let ended = match self.deaths.reap(pid) {
            Ok(Some(ended)) => ended,
            Ok(None) => return self.deaths.ask_about(pid),
            Err(error) if error.raw_os_error() == Some(NO_CHILD) => {
                (self.events)(&Event::Odd {
                    what: "wait for a child that somebody else has waited for",
                    error: &error,
                });
                if let Some(child) = self.leave(pid, now) {
                    self.ends.ended(mark(child.ticket, pid));
                    self.leave_cell(child.cell, false, false);
                }
                return;
            }
            Err(error) => {
                (self.events)(&Event::Odd { what: "wait for a child", error: &error });
                return self.deaths.ask_about(pid);
            }
        };
        if self.workplace.trees.buried(pid, now) {
            return;
        }
        if let Some(at) = self.crew.as_ref().and_then(|crew| crew.place(pid)) {
            return self.acceptor_ended(at, ended, now);
        }
        if self.guardian.is(pid) {
            return self.replace_guardian();
        }
        if self.cells.ended(pid) {
            return;
        }
        if self.template.as_ref().is_some_and(|template| template.is(pid)) {
            // Another one is started when there is to be a child.
            self.let_template_go(Some(pid));
            let how = reap::outcome(ended, None, Duration::ZERO).how;
            let error = io::Error::other(format!("it ended: {how}"));
            return (self.events)(&Event::Odd {
                what: "keep a template (another takes its place)",
                error: &error,
            });
        }
        if let Some(place) = self.spares.as_mut().and_then(|spares| spares.ended(pid)) {
            return self.spare_ended(pid, ended, place, now);
        }
        let code = ended.status.code();
        if code == Some(i32::from(SETUP_FAILED)) {
            self.collect_reports();
        }
        let failure = self.failures.remove(&pid);
        if self.workers.has(pid) {
            let outcome = reap::outcome(ended, failure, Duration::ZERO);
            return self.workers.died(pid, outcome.how, now);
        }
        if self.children.get(&pid).is_some_and(|child| child.setup.is_none()) {
            self.collect_later();
        }
        let Some(mut child) = self.leave(pid, now) else { return self.end_lost_cells() };
        self.slots.give_back(child.slot);
        let mut outcome = reap::outcome(ended, failure, now.saturating_duration_since(child.born));
        (outcome.bill.waited, outcome.bill.setup) = (child.waited, child.setup);
        outcome.cause = self.ends.ended(mark(child.ticket, pid));
        outcome.call = self.calls.remove(&pid).filter(|_| matches!(outcome.how, How::Signal(SIGKILL)));
        match self.workplace.trees.memory(child.branch) {
            Ok(memory) => {
                let memory = memory.unwrap_or_default();
                outcome.bill.group_peak_kib = memory.peak.map(|bytes| bytes / 1024);
                outcome.bill.oom_kills = memory.kills;
            }
            Err(error) => {
                (self.events)(&Event::Odd { what: "read the memory of a control group", error: &error })
            }
        }
        self.leave_place((child.branch, child.cell.take()), outcome.cause.is_some(), now);
        self.account_for(pid, &child, &outcome, service);
    }

    /// A child has ended. What it has left may stay for a moment, or not, when it was ended `by_force`.
    pub(super) fn leave_place(
        &mut self,
        (branch, cell): (Branch, Option<Cell>),
        by_force: bool,
        now: Instant,
    ) {
        let ended = self.workplace.trees.ended(branch, by_force, now);
        self.leave_cell(cell, matches!(ended, Ok(true)), by_force);
        self.tell_unless_killed(ended.map(drop));
    }

    /// A child that serves several clients is done with one: a slot is free, and the child may have another.
    pub(super) fn hear_done(&mut self, pid: Pid, service: &dyn Service) {
        let now = Instant::now();
        let Some(spare) = self.children.get_mut(&pid).and_then(|child| child.again.take()) else { return };
        let _ = self.lines.remove(&spare.line);
        // Whatever else it says, or that it has ended, is no news: its death will be.
        let Some(done) = Done::receive(&spare.line) else { return };
        let Some(child) = self.leave(pid, now) else { return };
        let wall = now.saturating_duration_since(child.born);
        let (user, system) = (done.user.min(wall), done.system.min(wall));
        let bill = Bill { wall, waited: child.waited, setup: child.setup, user, system, ..Bill::default() };
        let cause = self.ends.ended(mark(child.ticket, pid));
        let outcome = Outcome { how: How::Exit(done.status), cause, call: None, bill };
        self.account_for(pid, &child, &outcome, service);
        if let Some(spares) = &mut self.spares {
            // One that was told to end may hear of it yet.
            let fit = outcome.cause.is_none() && self.drain.is_serving();
            if fit { spares.returns(*spare) } else { spares.leaves(*spare, true) }
        }
    }

    /// What the end of a client is told by and teaches.
    fn account_for(&mut self, pid: Pid, child: &Child, outcome: &Outcome, service: &dyn Service) {
        let now = Instant::now();
        if !matches!(child.standing, Standing::Unwelcome) {
            self.served += 1;
            self.failed += u64::from(!outcome.how.is_success());
            let open = self.open_everywhere();
            (self.events)(&Event::Ended { child: pid.id(), peer: &child.peer, outcome, open });
            let faults = [
                reap::fault(outcome, service.panics()),
                (child.silent && outcome.cause != Some(Cause::FirstByte)).then_some(Fault::NoBytes),
            ];
            // Until it is named, nobody knows whose fault it is; and at the end of a server it is ours.
            let fair = self.drain.is_serving() && matches!(child.standing, Standing::Served);
            faults.into_iter().flatten().filter(|_| fair).for_each(|fault| self.punish(child, fault, now));
        }
        self.learn_from(child, outcome, pid);
    }

    /// A child has ended before it had a client.
    fn spare_ended(
        &mut self,
        pid: Pid,
        ended: Ended,
        Leaving { branch, slot, cell, sent, .. }: Leaving,
        now: Instant,
    ) {
        self.slots.give_back(slot);
        self.collect_reports();
        self.leave_place((branch, cell), true, now);
        let outcome = reap::outcome(ended, self.failures.remove(&pid), Duration::ZERO);
        if !sent {
            self.spares.iter_mut().for_each(|spares| spares.stock.fails(now));
            (self.events)(&Event::Lost { spare: pid.id(), how: &outcome.how });
        }
    }

    /// Spares that have waited for too long; how long it took to make them.
    pub(super) fn look_after_spares(&mut self, now: Instant) {
        if self.spares.is_some() {
            self.collect_later();
        }
        let Some(spares) = &mut self.spares else { return };
        if self.drain.is_serving() {
            spares.renew(now);
            spares.stock.counts(spares.len(), now);
        }
        while let Some((pid, branch)) = spares.next_late(now) {
            if let Err(error) = self.workplace.trees.kill(branch, pid) {
                (self.events)(&Event::Odd { what: "end a spare", error: &error });
            }
        }
    }

    /// What time has brought: deadlines that are over, children that do not notice that their client has gone.
    pub(super) fn keep_deadlines(&mut self, now: Instant) {
        if std::mem::take(&mut self.heard.hangup) {
            let mut marks = Vec::new();
            if let Err(error) = self.hangups.collect(&mut marks) {
                (self.events)(&Event::Odd { what: "epoll_wait", error: &error });
            }
            for mark in marks.into_iter().filter(|mark| find(&self.children, *mark).is_some()) {
                self.ends.is_gone(mark, now);
            }
        }
        if std::mem::take(&mut self.heard.first) {
            self.hear_firsts();
        }
        while let Some((mark, act)) = self.ends.next(now) {
            let Some((&pid, child)) = find(&self.children, mark) else {
                self.ends.ended(mark);
                continue;
            };
            let done = match act {
                Act::Ask => {
                    self.ask(pid, now);
                    Ok(())
                }
                Act::Signal(signal) => signal::send_group(pid, signal),
                Act::Kill => self.workplace.trees.kill(child.branch, pid),
            };
            if let Err(error) = done {
                (self.events)(&Event::Odd { what: "end a connection", error: &error });
            }
        }
    }

    /// Listeners whose children fail no more, though none has ended well yet.
    pub(super) fn look_at_breakers(&mut self, now: Instant) {
        for listener in self.listeners.iter_mut().filter(|listener| listener.breaker.is_tripped()) {
            if listener.breaker.is_over(now)
                && let Some(after) = listener.breaker.work(now)
            {
                (self.events)(&Event::Resumed { listener: &listener.name, after });
            }
        }
    }

    /// Somebody has ended whom nobody knows. If it is one who makes cells, what it has made last may be known to nobody either.
    fn end_lost_cells(&mut self) {
        if !self.workplace.plan.wants_init() {
            return;
        }
        self.await_births();
        let mut all = Vec::new();
        if let Err(error) = orphan::children(&mut all) {
            return (self.events)(&Event::Odd { what: "look for lost pid namespaces", error: &error });
        }
        let known =
            |pid| self.cells.has(pid) || self.template.as_ref().is_some_and(|template| template.is(pid));
        let names = [init::NAME, KEEPER].map(CStr::to_bytes);
        let is_one = |pid: Pid| pid.name().is_ok_and(|name| names.contains(&&*name));
        all.retain(|pid| !known(*pid) && is_one(*pid));
        // Not waited for yet, so the numbers are their own.
        all.into_iter().for_each(|lost| _ = signal::send(lost, Signal::KILL));
    }

    /// Kills what was left behind and has had its time.
    pub(super) fn look_after_trees(&mut self, now: Instant) {
        if self.workplace.trees.until().is_some_and(|look| look <= now) {
            // A child that its template has not told of yet would be taken for an orphan.
            self.await_births();
        }
        let (children, workers, guardian) = (&self.children, &self.workers, &self.guardian);
        let (spares, crew, template, cells) = (&self.spares, &self.crew, self.template.as_ref(), &self.cells);
        let known = |pid| {
            children.contains_key(&pid)
                || workers.has(pid)
                || guardian.is(pid)
                || template.is_some_and(|template| template.is(pid))
                || cells.has(pid)
                || spares.as_ref().is_some_and(|spares| spares.has(pid))
                || crew.as_ref().is_some_and(|crew| crew.place(pid).is_some())
        };
        let mut orphans = Vec::new();
        let done = self.workplace.trees.tick(now, known, &mut orphans);
        orphans.into_iter().for_each(|orphan| self.deaths.watch(orphan));
        self.tell_unless_killed(done);
    }

    pub(super) fn collect_reports(&mut self) {
        // What is said by a child that is not known yet would be taken for nonsense.
        self.await_births();
        let mut found = Vec::new();
        let spares = self.spares.as_ref();
        let known = |pid| {
            self.children.contains_key(&pid)
                || self.workers.has(pid)
                || spares.is_some_and(|spares| spares.has(pid))
        };
        self.workplace.reports.collect(&mut found, known);
        for (pid, report) in found {
            match report {
                Report::Failed(failure) => {
                    self.failures.insert(pid, failure);
                }
                Report::Begun { lost } => {
                    if let Some((worker, how)) = self.workers.begun(pid) {
                        (self.events)(&Event::Replaced { worker: worker.id(), how: &how, lost });
                    }
                }
                Report::Truncated | Report::Dropped => {
                    let at = self.workers.listener_of(pid);
                    let Some(Listener { name: listener, .. }) = at.and_then(|at| self.listeners.get(at))
                    else {
                        continue;
                    };
                    (self.events)(&match report {
                        Report::Truncated => Event::Truncated { listener },
                        _ => Event::Dropped { listener },
                    });
                }
                Report::Spoken => {
                    if let Some(child) = self.children.get_mut(&pid) {
                        child.sign = Some(Instant::now());
                    }
                }
                Report::Ready(_) => {}
            }
        }
    }

    /// How long children took to begin. What the pipe had no room for is not known of its child.
    fn collect_later(&mut self) {
        self.await_births();
        let mut found = Vec::new();
        let spares = self.spares.as_ref();
        let known = |pid| self.children.contains_key(&pid) || spares.is_some_and(|spares| spares.has(pid));
        self.workplace.reports.collect_later(&mut found, known);
        for (pid, report) in found {
            match (report, self.children.get_mut(&pid), &mut self.spares) {
                (Report::Ready(after), Some(child), _) if child.setup.is_none() => child.setup = Some(after),
                (Report::Ready(after), _, Some(spares)) => spares.stock.made(after),
                _ => {}
            }
        }
    }

    /// Finds out how long a connection has been quiet. Where nobody can tell, it is asked again later.
    fn ask(&mut self, pid: Pid, now: Instant) {
        let Some(child) = self.children.get(&pid) else { return };
        let mark = mark(child.ticket, pid);
        if let (Addr::Inet(local), Some(peer)) = (&child.local, inet(child)) {
            let Some(diag) = self.diags.get_mut(&child.interface) else { return };
            match diag.ask(local, &peer, child.cookie) {
                Ok(Some(found)) => {
                    let quiet = found.sent_ago.min(found.received_ago);
                    let spoken = found.received > u64::from(child.header);
                    self.ends.hears(mark, Heard { spoken, quiet }, now);
                }
                // The kernel knows no such connection any more.
                Ok(None) => self.ends.is_gone(mark, now),
                Err(error) => (self.events)(&Event::Odd { what: "sock_diag", error: &error }),
            }
            return;
        }
        self.collect_signs(now);
        if let Some(child) = self.children.get(&pid) {
            let last = child.sign.unwrap_or(child.born);
            let quiet = now.saturating_duration_since(last);
            self.ends.hears(mark, Heard { spoken: last > child.born, quiet }, now);
        }
    }

    /// Clients that have said something, or have ended without a word: the kernel has counted. One whose child has ended
    /// meanwhile has the benefit of the doubt.
    fn hear_firsts(&mut self) {
        let mut marks = Vec::new();
        if let Err(error) = self.firsts.collect(&mut marks) {
            (self.events)(&Event::Odd { what: "epoll_wait", error: &error });
        }
        for mark in marks {
            let Some((&pid, child)) = find(&self.children, mark) else { continue };
            let diag = self.diags.get_mut(&child.interface);
            let (Addr::Inet(local), Some(peer), Some(diag)) = (&child.local, inet(child), diag) else {
                continue;
            };
            let silent =
                matches!(diag.ask(local, &peer, child.cookie), Ok(Some(found)) if found.received == 0);
            if let Some(child) = self.children.get_mut(&pid) {
                child.silent |= silent;
            }
        }
    }

    /// Notes where something was said since the last look.
    pub(super) fn collect_signs(&mut self, now: Instant) {
        let mut marks = Vec::new();
        loop {
            let before = marks.len();
            if let Err(error) = self.signs.collect(&mut marks) {
                (self.events)(&Event::Odd { what: "epoll_wait", error: &error });
                break;
            }
            if marks.len() == before {
                break;
            }
        }
        for mark in marks {
            if let Some(pid) = find(&self.children, mark).map(|(pid, _)| *pid)
                && let Some(child) = self.children.get_mut(&pid)
            {
                child.sign = Some(now);
            }
        }
    }

    /// Frees the slot.
    fn leave(&mut self, pid: Pid, now: Instant) -> Option<Box<Child>> {
        let child = self.children.remove(&pid)?;
        self.admit.leaves(child.ticket, now);
        Some(child)
    }

    fn punish(&mut self, child: &Child, fault: Fault, now: Instant) {
        if let Some(time) = self.admit.earns(&child.peer, fault, now) {
            let source = Source::of(&child.peer, self.admit.limits().mask);
            (self.events)(&Event::Penalised { peer: &child.peer, source, time });
        }
    }

    /// What a child's end says about the listener that it came from.
    fn learn_from(&mut self, child: &Child, outcome: &Outcome, pid: Pid) {
        // Whatever the system was short of, there is more of it now.
        self.listeners.iter_mut().for_each(|listener| listener.pause.hurry());
        let now = Instant::now();
        let Some(listener) = self.listeners.get_mut(child.listener) else { return };
        let lent = listener.role == Role::Lend(Some(pid));
        if lent {
            listener.role = Role::Lend(None);
        }
        match Omen::of(outcome) {
            Omen::Bad => {
                if listener.breaker.fail(now) {
                    let (what, pause) = ("serve", Duration::from_millis(5));
                    let error =
                        io::Error::other(format!("children fail as soon as they are born: {}", outcome.how));
                    (self.events)(&Event::Paused { listener: &listener.name, what, error: &error, pause });
                }
            }
            Omen::Good => {
                if let Some(after) = listener.breaker.work(now) {
                    (self.events)(&Event::Resumed { listener: &listener.name, after });
                }
            }
            Omen::Neither => {}
        }
        let failure = match &outcome.how {
            How::Setup(_, error) => {
                Some(("start a child", io::Error::new(error.kind(), tine_os::plain(error))))
            }
            how if lent && (outcome.bill.wall < TOO_SOON && reap::is_readable(&listener.fd)) => {
                Some(("wait", io::Error::other(format!("the program ended ({how}) and datagrams are left"))))
            }
            _ => None,
        };
        match failure {
            // Several may fail of one cause before the first of them is heard of: one rest.
            Some(_) if listener.throttle.until(now).is_some() => {}
            Some((what, error)) => {
                if let Some(pause) = listener.throttle.fail(now) {
                    (self.events)(&Event::Paused { listener: &listener.name, what, error: &error, pause });
                }
            }
            None => {
                if let Some(after) = listener.throttle.work(now) {
                    (self.events)(&Event::Resumed { listener: &listener.name, after });
                }
            }
        }
    }

    fn replace_guardian(&mut self) {
        match self.guardian.start(&self.workplace) {
            Ok(guardian) => self.deaths.watch(guardian),
            Err(error) => (self.events)(&Event::Odd { what: "start another guardian", error: &error }),
        }
    }

    pub(super) fn tell_unless_killed(&mut self, killed: io::Result<()>) {
        if let Err(error) = killed {
            (self.events)(&Event::Odd { what: "kill what a child left behind", error: &error });
        }
    }
}

/// The child that a mark is of: one that bears its number now may be another.
fn find(children: &std::collections::BTreeMap<Pid, Box<Child>>, of: u64) -> Option<(&Pid, &Child)> {
    let (pid, child) = children.get_key_value(&Pid::from_raw(of as u32 as i32)?)?;
    (mark(child.ticket, *pid) == of).then_some((pid, child))
}

/// The socket's own peer: not whom a balancer speaks for.
fn inet(child: &Child) -> Option<SocketAddr> {
    match &child.socket_peer {
        Addr::Inet(peer) => Some(*peer),
        _ => None,
    }
}

/// A process that waits for the master's death, and kills all children then: [`Orphans::Die`](crate::Orphans::Die).
#[derive(Debug, Default)]
pub(super) struct Guardian {
    pid: Option<Pid>,
    /// The pipe that breaks with the master.
    life: Option<OwnedFd>,
}

impl Guardian {
    pub(super) fn start(&mut self, workplace: &Workplace) -> io::Result<Pid> {
        let (ended, life) = fd::pipe()?;
        fd::set_blocking(&ended, true)?;
        let watch = |_: &Desk| Guardian::watch(&workplace.trees, ended);
        let pid = apart::shared(|| fork(&workplace.desk, With::default(), watch))??;
        (self.pid, self.life) = (Some(pid), Some(life));
        Ok(pid)
    }

    pub(super) fn is(&self, pid: Pid) -> bool {
        self.pid == Some(pid)
    }

    /// Nobody is left to be guarded.
    pub(super) fn dismiss(&mut self) {
        if let Some(life) = self.life.take() {
            // One that is not told kills whoever is left, who is nobody.
            let _ = fd::write(life, &[0]);
        }
        if let Some(pid) = self.pid.take() {
            // If it has ended before, that is what was wanted.
            let _ = wait_blocking(pid);
        }
    }

    /// In the guardian, which has nothing open but the pipe and the groups.
    fn watch(trees: &Trees, ended: OwnedFd) -> tine_confine::Failure {
        let ended = std::mem::ManuallyDrop::new(ended);
        let mut keep: Vec<_> = trees.descriptor().into_iter().chain([ended.as_raw_fd()]).collect();
        keep.sort_unstable();
        // A session of its own: what a terminal sends is for the master.
        let _ = tine_os::fork::new_session();
        if let Err(why) = fd::close_from(0, &keep) {
            return tine_confine::Step::Descriptors.failed()(why);
        }
        if let Ok(1..) = fd::read(&*ended, &mut [0]) {
            exit(0) // dismissed
        }
        // There is nobody to tell if it does not work.
        let _ = trees.fell();
        for _ in 0..100 {
            if trees.clear().is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        exit(0)
    }
}
