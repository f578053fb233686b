//! Workers: processes that handle the datagrams of a listener, started by the master and replaced when they die.
//!
//! Sockets stay in the master, with their queues, so a worker's death loses at most the datagram in its hand. Each worker
//! of a listener has a socket of its own where the address can be bound again; the kernel keeps a peer with one of them.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tine_confine::Failure;
use tine_os::signal::{self, Signal};
use tine_os::spawn::With;
use tine_os::{Pid, apart, datagram::Basket, fd};

use crate::error::StartError;
use crate::event::How;
use crate::handler::DatagramHandler;
use crate::life::bind::Listener;
use crate::life::fork::{Desk, fork};
use crate::mode::bench::Bench;
use crate::mode::datagram::handle;
use crate::mode::guard::Guard;
use crate::mode::peer::{Exchange, carry};

/// A worker that died younger than this waits as long before it is replaced, so that one that cannot live does not spin.
const TOO_SOON: Duration = Duration::from_millis(10);

/// All workers, and the pipe whose end tells them to finish: when they are to, and when the master is gone.
pub(crate) struct Workers {
    all: Vec<Worker>,
    life: (OwnedFd, Option<OwnedFd>),
}

struct Worker {
    listener: usize,
    /// The number of its socket among those of the listener.
    seat: usize,
    work: Work,
    pid: Option<Pid>,
    born: Instant,
    due: Option<Instant>,
    before: Option<(Pid, How)>,
}

/// What a worker does.
pub(crate) enum Work {
    /// Calls a handler for each datagram.
    Handle { basket: Basket, handler: Rc<RefCell<dyn DatagramHandler>>, guard: Guard },
    /// Turns datagrams into connections, which the master takes from the other end of `channel`.
    Exchange { channel: OwnedFd, exchange: Exchange },
}

impl Workers {
    pub(crate) fn new() -> io::Result<Workers> {
        let (read, write) = fd::pipe()?;
        Ok(Workers { all: Vec::new(), life: (read, Some(write)) })
    }

    /// Adds a worker for a listener; it is started by [`Workers::start_all`].
    pub(crate) fn add(&mut self, (listener, seat): (usize, usize), work: Work) {
        let born = Instant::now();
        self.all.push(Worker { listener, seat, work, pid: None, born, due: None, before: None });
    }

    pub(crate) fn start_all(&mut self, desk: &Desk, listeners: &[Listener]) -> Result<Vec<Pid>, StartError> {
        let now = Instant::now();
        let started =
            (0..self.all.len()).map(|at| self.start(at, desk, listeners, now)).collect::<io::Result<_>>();
        started.map_err(StartError::system("start a worker"))
    }

    /// Starts a worker; when that fails, it is due again a little later.
    pub(crate) fn start(
        &mut self,
        at: usize,
        desk: &Desk,
        listeners: &[Listener],
        now: Instant,
    ) -> io::Result<Pid> {
        let worker = &mut self.all[at];
        (worker.born, worker.due) = (now, Some(now + TOO_SOON * 10));
        let (listener, life) = (&listeners[worker.listener], &self.life.0);
        let socket = listener.socket(worker.seat);
        let work = |desk: &Desk| worker.work.begin(&Bench { desk, listener, socket, life });
        let pid = apart::shared(|| fork(desk, With::default(), work))??;
        (worker.pid, worker.due) = (Some(pid), None);
        Ok(pid)
    }

    /// A worker that is to be started now.
    pub(crate) fn due(&self, now: Instant, serving: bool) -> Option<usize> {
        self.all.iter().position(|worker| serving && worker.due.is_some_and(|due| due <= now))
    }

    /// When one is to be started next.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.all.iter().filter_map(|worker| worker.due).min()
    }

    pub(crate) fn has(&self, pid: Pid) -> bool {
        self.all.iter().any(|worker| worker.pid == Some(pid))
    }

    pub(crate) fn listener_of(&self, pid: Pid) -> Option<usize> {
        self.all.iter().find(|worker| worker.pid == Some(pid)).map(|worker| worker.listener)
    }

    /// A worker has died.
    pub(crate) fn died(&mut self, pid: Pid, how: How, now: Instant) {
        let finishing = self.life.1.is_none();
        if let Some(worker) = self.all.iter_mut().find(|worker| worker.pid == Some(pid)) {
            let young = now.saturating_duration_since(worker.born) < TOO_SOON;
            worker.pid = None;
            worker.before = Some((pid, how));
            worker.due = (!finishing).then_some(if young { now + TOO_SOON } else { now });
        }
    }

    /// A worker has begun: tells of the one that it replaces.
    pub(crate) fn begun(&mut self, pid: Pid) -> Option<(Pid, How)> {
        self.all.iter_mut().find(|worker| worker.pid == Some(pid))?.before.take()
    }

    /// They are to finish what they have, and none is replaced any more.
    pub(crate) fn drain(&mut self) {
        self.life.1 = None;
        self.all.iter_mut().for_each(|worker| worker.due = None);
    }

    pub(crate) fn kill(&self) {
        for pid in self.all.iter().filter_map(|worker| worker.pid) {
            // It is not waited for yet, so the id is its own; that it may be dead already is no matter.
            let _ = signal::send(pid, Signal::KILL);
        }
    }

    /// Whether none is alive.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.iter().all(|worker| worker.pid.is_none())
    }
}

impl Work {
    /// In the worker; comes back only to say why it cannot begin.
    fn begin(&mut self, bench: &Bench<'_>) -> Failure {
        match self {
            Work::Handle { basket, handler, guard } => {
                handle(bench, basket, &mut *handler.borrow_mut(), guard)
            }
            Work::Exchange { channel, exchange } => carry(bench, channel, exchange),
        }
    }
}
