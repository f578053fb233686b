//! The master: the one process that owns listeners and children. One thread; it reads no byte from a client.
//!
//! It acts; what is to be done is decided by pure parts: `life/admit`, `life/pause`, `change/drain`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use tine_confine::Failure;
use tine_os::signal::{self, Signal, Signals};
use tine_os::wait::Deaths;
use tine_os::{Pid, fd};

use crate::change::control::Control;
use crate::change::drain::{Action, Drain};
use crate::error::StartError;
use crate::event::{Event, How, Outcome, Peer, Status};
use crate::life::admit::Admit;
use crate::life::bind::{Arrival, Listener, Role};
use crate::life::fork::{SETUP_FAILED, Workplace, fork};
use crate::life::reap::{self, Leftovers, Report};
use crate::life::serve::Service;
use crate::mode::worker::Workers;

/// How often children are asked about that no descriptor could be had for.
const ASKING: Duration = Duration::from_millis(50);

/// A child that a lent socket came back from sooner than this, with datagrams still there, has not done its work.
const TOO_SOON: Duration = Duration::from_millis(100);

/// Everything the master holds.
pub(crate) struct Master {
    pub listeners: Vec<Listener>,
    pub workplace: Workplace,
    pub workers: Workers,
    pub control: Option<Control>,
    pub events: Box<dyn FnMut(&Event<'_>)>,
    /// The slots: what is here is alive or not yet waited for, and its number is the count of children.
    children: BTreeMap<Pid, Child>,
    admit: Admit,
    drain: Drain,
    deaths: Deaths,
    signals: Signals,
    dead: VecDeque<Pid>,
    failures: BTreeMap<Pid, Failure>,
    leftovers: Leftovers,
    heard: Heard,
    served: u64,
    failed: u64,
}

/// What the last wait has told, so that nothing is asked that has no answer.
#[derive(Clone, Copy, Default)]
struct Heard {
    signal: bool,
    death: bool,
    report: bool,
    wish: bool,
}

/// A slot.
struct Child {
    peer: Peer,
    born: Instant,
    listener: usize,
}

impl Master {
    /// Takes the process over: signals and children are the server's from here on.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        workplace: Workplace,
        children_most: usize,
        patience: Duration,
        events: Box<dyn FnMut(&Event<'_>)>,
    ) -> Result<Master, StartError> {
        Ok(Master {
            listeners,
            workplace,
            workers: Workers::new().map_err(StartError::system("make a pipe for the workers"))?,
            control: None,
            events,
            children: BTreeMap::new(),
            admit: Admit::new(children_most),
            drain: Drain::new(patience),
            deaths: Deaths::new().map_err(StartError::system("make a set of processes to watch"))?,
            signals: Signals::take_over().map_err(StartError::system("take over the signals"))?,
            dead: VecDeque::new(),
            failures: BTreeMap::new(),
            leftovers: Leftovers::default(),
            heard: Heard::default(),
            served: 0,
            failed: 0,
        })
    }

    /// Says what is listened at, and starts the workers.
    pub(crate) fn open(&mut self) -> Result<(), StartError> {
        for worker in self.workers.start_all(&self.workplace, &self.listeners)? {
            self.deaths.watch(worker);
        }
        for listener in self.listeners.iter().filter(|listener| listener.role != Role::Channel) {
            let (children, backlog) = (self.admit.most(), listener.backlog);
            (self.events)(&Event::Listening { listener: &listener.name, children, backlog });
        }
        Ok(())
    }

    /// Waits until something is to be done; gives the listeners that clients may have come to, or `None` when the end was
    /// asked for and nobody is left.
    pub(crate) fn wait(&mut self) -> Result<Option<Vec<usize>>, StartError> {
        self.mend_workers();
        let nobody = self.children.is_empty() && self.workers.is_empty() && self.leftovers.is_empty();
        if nobody && !self.drain.is_serving() {
            return Ok(None);
        }
        let now = Instant::now();
        let mut fds = vec![self.signals.as_fd(), self.deaths.as_fd(), self.workplace.reports.as_fd()];
        fds.extend(self.control.as_ref().filter(|control| control.is_alive()).map(AsFd::as_fd));
        let others = fds.len();
        let open: Vec<_> = if self.has_room() { self.open_listeners(now).collect() } else { Vec::new() };
        fds.extend(open.iter().map(|at| self.listeners[*at].as_fd()));
        let mut ready = Vec::new();
        // A client that was accepted and has no child yet does not make its listener readable.
        let held = open.iter().any(|at| self.listeners[*at].held.is_some());
        let patience = if held { Some(Duration::ZERO) } else { self.patience(now) };
        if let Err(error) = fd::wait_readable(&fds, patience, &mut ready) {
            (self.events)(&Event::Odd { what: "poll", error: &error });
            std::thread::sleep(ASKING);
        }
        let at = |number: usize| ready[number];
        self.heard = Heard { signal: at(0), death: at(1), report: at(2), wish: others > 3 && at(3) };
        let ready = open
            .into_iter()
            .zip(&ready[others..])
            .filter(|(at, ready)| **ready || self.listeners[*at].held.is_some());
        Ok(Some(ready.map(|(at, _)| at).collect()))
    }

    /// Reads signals and the host program's wishes, and does what time has brought.
    pub(crate) fn heed_signals(&mut self) {
        while self.heard.signal {
            match self.signals.next() {
                Ok(Some(Signal::TERM | Signal::INT | Signal::QUIT)) => self.end(),
                Ok(Some(Signal::USR1)) => {
                    let status = self.status();
                    (self.events)(&Event::Status(status));
                }
                // Everything else has no meaning, and does no harm.
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    (self.events)(&Event::Odd { what: "read a signal", error: &error });
                    break;
                }
            }
        }
        if self.heard.wish {
            let status = self.status();
            let ends = self.control.as_mut().map_or(0, |control| control.heed(status));
            (0..ends).for_each(|_| self.end());
        }
        if self.heard.report {
            self.collect_reports();
        }
        let now = Instant::now();
        let killed = self.leftovers.tick(now);
        self.tell_unless_killed(killed);
        let action = self.drain.tick(now);
        self.carry_out(action);
    }

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

    /// Takes leave of a child: its slot is free, its outcome is told, whatever is left of its group goes soon.
    pub(crate) fn reap(&mut self, pid: Pid) {
        let ended = match self.deaths.reap(pid) {
            Ok(Some(ended)) => ended,
            Ok(None) => return self.deaths.ask_about(pid),
            Err(error) if error.raw_os_error() == Some(NO_CHILD) => {
                (self.events)(&Event::Odd {
                    what: "wait for a child that somebody else has waited for",
                    error: &error,
                });
                self.leave(pid);
                return;
            }
            Err(error) => {
                (self.events)(&Event::Odd { what: "wait for a child", error: &error });
                return self.deaths.ask_about(pid);
            }
        };
        // What it started and left behind may hold the connection open, and its client would wait for ever.
        let noted = self.leftovers.note(pid, Instant::now());
        self.tell_unless_killed(noted);
        if ended.status.code() == Some(i32::from(SETUP_FAILED)) {
            self.collect_reports();
        }
        let failure = self.failures.remove(&pid);
        if self.workers.has(pid) {
            let outcome = reap::outcome(ended, failure, Instant::now(), Instant::now());
            return self.workers.died(pid, outcome.how, Instant::now());
        }
        let Some(child) = self.leave(pid) else { return };
        let outcome = reap::outcome(ended, failure, child.born, Instant::now());
        self.served += 1;
        self.failed += u64::from(!outcome.how.is_success());
        let open = self.children.len();
        (self.events)(&Event::Ended { child: pid.id(), peer: &child.peer, outcome: &outcome, open });
        self.learn_from(&child, &outcome, pid);
    }

    /// Whether another child may be born.
    pub(crate) fn has_room(&self) -> bool {
        self.drain.is_serving() && self.admit.has_room(self.children.len())
    }

    /// Takes the next client of a listener. When the system is short of something, the listener rests.
    pub(crate) fn accept(&mut self, at: usize) -> Option<Arrival> {
        // The client before got no child: it is kept and comes first, but not before the rest is over.
        if self.listeners.get(at)?.pause.until(Instant::now()).is_some() {
            return None;
        }
        // A connection that was given up while it waited is skipped, but not for ever in one go.
        for _ in 0..16 {
            match self.listeners.get_mut(at)?.next() {
                Ok(arrival) => return arrival,
                Err(why) if is_clients_own(&why) => {}
                Err(why) => {
                    self.rest(at, "accept", &why);
                    return None;
                }
            }
        }
        None
    }

    /// Gives a client a child. When there can be none now, the client is kept and its listener rests.
    pub(crate) fn fork(&mut self, at: usize, client: Arrival, service: &mut dyn Service) {
        let from_same = self.admit.count_of(&client.peer);
        service.prepare(&client, self.listeners[at].transport, from_same);
        let mut client = Some(client);
        let born = Instant::now();
        let forked = fork(&self.workplace, |workplace| match client.take() {
            Some(client) => service.serve(workplace, client),
            None => tine_os::fork::internal("a child without a client"),
        });
        let client = client.take().expect("only the child takes it, and the child does not come back");
        match forked {
            Err(why) => {
                self.listeners[at].held = Some(client);
                self.rest(at, "fork", &why);
            }
            Ok(pid) => {
                self.deaths.watch(pid);
                self.work(at);
                if let Role::Lend(to) = &mut self.listeners[at].role {
                    *to = Some(pid);
                }
                self.admit.enters(&client.peer);
                self.children.insert(pid, Child { peer: client.peer.clone(), born, listener: at });
                let (open, most) = (self.children.len(), self.admit.most());
                (self.events)(&Event::Accepted { peer: &client.peer, child: pid.id(), open, most });
            }
        }
    }

    /// The end of a server that nobody is left in.
    pub(crate) fn close(&mut self) -> Status {
        (self.events)(&Event::Stopped { served: self.served });
        self.status()
    }

    fn status(&self) -> Status {
        let resting = |listener: &&Listener| listener.pause.is_troubled() || listener.throttle.is_troubled();
        Status {
            open: self.children.len(),
            most: self.admit.most(),
            served: self.served,
            failed: self.failed,
            paused: self.listeners.iter().filter(resting).count(),
        }
    }

    /// Which listeners are looked at.
    fn open_listeners(&self, now: Instant) -> impl Iterator<Item = usize> {
        let listeners = self.listeners.iter().enumerate().filter(move |(_, listener)| {
            listener.is_open()
                && listener.pause.until(now).is_none()
                && listener.throttle.until(now).is_none()
        });
        listeners.map(|(at, _)| at)
    }

    /// How long nothing may happen before there is something to do all the same.
    fn patience(&self, now: Instant) -> Option<Duration> {
        let rests = self
            .listeners
            .iter()
            .flat_map(|listener| [listener.pause.until(now), listener.throttle.until(now)]);
        let rests = rests.flatten().filter(|_| self.has_room());
        let asking = self.deaths.must_ask().then(|| now + ASKING);
        let until = rests
            .chain(self.drain.until())
            .chain(asking)
            .chain(self.workers.until())
            .chain(self.leftovers.until(now))
            .min()?;
        Some(until.saturating_duration_since(now))
    }

    fn rest(&mut self, at: usize, what: &'static str, error: &io::Error) {
        let listener = &mut self.listeners[at];
        if let Some(pause) = listener.pause.fail(Instant::now()) {
            (self.events)(&Event::Paused { listener: &listener.name, what, error, pause });
        }
    }

    fn work(&mut self, at: usize) {
        let listener = &mut self.listeners[at];
        if let Some(after) = listener.pause.work(Instant::now()) {
            (self.events)(&Event::Resumed { listener: &listener.name, after });
        }
    }

    /// Frees the slot.
    fn leave(&mut self, pid: Pid) -> Option<Child> {
        let child = self.children.remove(&pid)?;
        self.admit.leaves(&child.peer);
        Some(child)
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

    fn collect_reports(&mut self) {
        let mut found = Vec::new();
        let known = |pid| self.children.contains_key(&pid) || self.workers.has(pid);
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
            }
        }
    }

    fn mend_workers(&mut self) {
        let now = Instant::now();
        while let Some(at) = self.workers.due(now, self.drain.is_serving()) {
            match self.workers.start(at, &self.workplace, &self.listeners, now) {
                Ok(worker) => self.deaths.watch(worker),
                Err(error) => (self.events)(&Event::Odd {
                    what: "start a worker (it will be tried again)",
                    error: &error,
                }),
            }
        }
    }

    /// The end was asked for.
    fn end(&mut self) {
        let action = self.drain.asked(Instant::now());
        self.carry_out(action);
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Close => self.stop_accepting(),
            Action::Nudge => self.tell_all(Signal::TERM, "TERM"),
            Action::Kill => {
                self.tell_all(Signal::KILL, "KILL");
                self.workers.kill();
                let killed = self.leftovers.kill();
                self.tell_unless_killed(killed);
            }
        }
    }

    fn stop_accepting(&mut self) {
        let (open, patience) = (self.children.len(), self.drain.patience());
        // Closed before it is told, so that whoever hears it finds nobody listening.
        let close = |mut listener: Listener| {
            listener.remove_path();
            listener.held.take()
        };
        let held: Vec<_> = self.listeners.drain(..).filter_map(close).collect();
        self.workers.drain();
        (self.events)(&Event::Draining { open, patience });
        for client in held {
            (self.events)(&Event::Refused { peer: &client.peer, why: "the server is ending" });
        }
    }

    fn tell_unless_killed(&mut self, killed: io::Result<()>) {
        if let Err(error) = killed {
            (self.events)(&Event::Odd { what: "kill what a child left behind", error: &error });
        }
    }

    fn tell_all(&mut self, signal: Signal, name: &'static str) {
        let open = self.children.len();
        (self.events)(&Event::Ending { open, signal: name });
        for pid in self.children.keys() {
            if let Err(error) = signal::send_group(*pid, signal) {
                (self.events)(&Event::Odd { what: "signal a child", error: &error });
            }
        }
    }
}

/// ECHILD: not a child of this process, or already waited for.
const NO_CHILD: i32 = 10;

/// Errors of accept that are about the one client that would have come next: Linux passes on what the network has
/// already to say about its connection, accept(2).
fn is_clients_own(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        TimedOut,
    };
    const EPROTO: i32 = 71;
    const ENOPROTOOPT: i32 = 92;
    const EHOSTDOWN: i32 = 112;
    const ENONET: i32 = 64;
    let kinds = [
        ConnectionAborted,
        ConnectionReset,
        HostUnreachable,
        Interrupted,
        NetworkDown,
        NetworkUnreachable,
        TimedOut,
    ];
    kinds.contains(&error.kind())
        || error.raw_os_error().is_some_and(|errno| [EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET].contains(&errno))
}
