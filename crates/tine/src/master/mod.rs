//! The master: the one process that owns listeners and children. One thread; it reads no byte from a client.
//!
//! It acts; what is to be done is decided by pure parts: `life/admit`, `life/end`, `life/pause`, `change/drain`. Here is what
//! it holds, how it waits and what it is told to do; `arrive.rs` is how clients come in, `leave.rs` how they go.

mod acceptor;
mod arrive;
mod leave;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tine_confine::{Call, Failure};
use tine_os::diag::Diag;
use tine_os::namespace::{self, Namespaces};
use tine_os::ready::Ready;
use tine_os::signal::{self, Signal, Signals};
use tine_os::socket::Addr;
use tine_os::spawn::Nursery;
use tine_os::wait::{Deaths, wait_blocking};
use tine_os::{Pid, apart, fd};

use crate::change::control::Control;
use crate::change::drain::{Action, Drain};
use crate::error::StartError;
use crate::event::{Event, Status};
use crate::front::introduction::Balancers;
use crate::life::admit::{Gate, Limits, Look, OnFull, Reason, Rules, Ticket, Version, Written, ordinal};
use crate::life::bind::{Arrival, Listener, Role};
use crate::life::end::{Deadlines, Ends};
use crate::life::fork::Workplace;
use crate::life::serve::{Service, Start};
use crate::life::slot::Slots;
use crate::life::tree::{Branch, Keep, Orphans, Trees};
use crate::master::arrive::Given;
use crate::master::leave::Guardian;
use crate::master::watch::Watches;
use crate::mode::acceptors::{Common, Crew, seat};
use crate::mode::cell::{Cell, Cells};
use crate::mode::spare::{Parked, Spare};
use crate::mode::stock::Spares;
use crate::mode::template::{Template, Tools};
use crate::mode::worker::Workers;
use crate::peer::Peer;

/// How often children are asked about that no descriptor could be had for.
const ASKING: Duration = Duration::from_millis(50);

/// Everything the master holds.
pub(crate) struct Master {
    pub listeners: Vec<Listener>,
    pub workplace: Workplace,
    /// Where children are born that become programs at once; `None` where they are forked.
    pub nursery: Option<Nursery<Option<Start>>>,
    /// The process that children are born from, where they are confined.
    pub template: Option<Template>,
    /// Not before is another one tried, where one could not be started.
    template_due: Instant,
    /// Calls that children are to be killed for, of this template's and of those before it.
    watches: Watches,
    /// How many of its children may share its memory at once until they are programs.
    pub cots: usize,
    pub slots: Slots,
    /// Where children are born into.
    cells: Cells,
    /// What ends with this process, for the cells to hear; nothing is ever written to it.
    pub lives: Option<OwnedFd>,
    /// Children that wait for a client.
    pub spares: Option<Parked>,
    pub workers: Workers,
    /// Those who accept for this process, where it does not do that itself.
    pub crew: Option<Crew>,
    /// What it has in common with them, or as one of them with the others and their master.
    pub common: Option<Common>,
    /// Which of them it is.
    post: Option<usize>,
    /// The number of the rules that programs are run by here.
    rules_seen: u64,
    pub keep: Keep,
    /// By what the processes of a connection are held together.
    pub trees: &'static str,
    /// Whether children become programs.
    pub programs: bool,
    pub control: Option<Control>,
    pub events: Box<dyn FnMut(&Event<'_>)>,
    manner: Manner,
    /// The slots' children: who is here is alive or not yet waited for. In boxes, for half of what is in an ordered map
    /// whose keys grow is empty.
    children: BTreeMap<Pid, Box<Child>>,
    admit: Gate,
    ends: Ends,
    drain: Drain,
    /// Clients that have a slot and no child yet, because none could be had; with their listener.
    held: VecDeque<(usize, Guest)>,
    /// Clients whose children a template was asked for, in this order, with what those have.
    unborn: VecDeque<(Unborn, Given)>,
    /// Clients that came when others had just taken the last slot, with their listener: they are asked for again before others.
    undecided: VecDeque<(usize, Arrival)>,
    /// Clients that wait for a slot.
    room: BTreeMap<Ticket, (usize, Arrival, Instant)>,
    /// Tells of those who go while they wait.
    room_watch: Ready,
    /// Tells of connections that have died under their child.
    hangups: Ready,
    /// Tells of clients that a child knows the name of by now.
    lines: Ready,
    /// Tells of connections, but TCP ones, that something was said on since the last look.
    signs: Ready,
    /// Tells of the first that a client says, or of its leaving without a word; only if that costs something.
    firsts: Ready,
    /// Asks the kernel about TCP connections, by the interface that a listener is bound to (0 is none); where it is needed.
    diags: BTreeMap<u32, Diag>,
    guardian: Guardian,
    deaths: Deaths,
    signals: Signals,
    dead: VecDeque<Pid>,
    failures: BTreeMap<Pid, Failure>,
    /// For which calls children, or their programs, were killed that have not been reaped yet.
    calls: BTreeMap<Pid, Call>,
    heard: Heard,
    served: u64,
    failed: u64,
}

/// What a master goes by, beside what is asked of each stage.
pub(crate) struct Manner {
    pub limits: Limits,
    pub deadlines: Deadlines,
    pub patience: Duration,
    pub spares: Option<Spares>,
    pub clients_per_child: usize,
    pub balancers: Option<Balancers>,
    /// Reads the rules again; `None` when there is nothing to be read.
    pub reread: Option<Reader>,
}

/// Reads rules, and gives what others need to come to the same.
pub(crate) type Reader = Box<dyn FnMut() -> Result<(Rules, Written), String>>;

/// A client that has a slot.
#[derive(Debug)]
struct Guest {
    ticket: Ticket,
    arrival: Arrival,
    /// How long it has waited for it.
    waited: Duration,
}

/// A client whose child is being born.
struct Unborn {
    at: usize,
    ticket: Ticket,
    waited: Duration,
    arrival: Arrival,
    accepted: bool,
    cookie: u64,
    interface: u32,
    silent: bool,
    born: Instant,
}

/// How many of them at most; more clients are left in the kernel's queue, or wait until these are born. A template's line holds about
/// two hundred orders, and one too many gets EAGAIN, like a limit on processes.
const UNBORN_MOST: usize = 16;

/// How many signals are answered in one turn.
const SIGNALS_MOST: usize = 64;

/// How long it may take until a birth is heard of when nothing else happens. It is seldom so long that nothing does, and then nobody has
/// to be woken for it.
const UNHEARD_MOST: Duration = Duration::from_millis(1);

/// What the last wait has told, so that nothing is asked that has no answer.
#[derive(Clone, Copy, Default)]
struct Heard {
    signal: bool,
    death: bool,
    report: bool,
    left: bool,
    hangup: bool,
    line: bool,
    call: bool,
    first: bool,
    bell: bool,
    wish: bool,
    nothing: bool,
}

/// A child, and what is known of its client.
struct Child {
    ticket: Ticket,
    peer: Peer,
    /// The ends of its socket, whoever the client is.
    socket_peer: Addr,
    local: Addr,
    /// Of a TCP connection: which one, to ask the kernel about.
    cookie: u64,
    interface: u32,
    born: Instant,
    waited: Duration,
    setup: Option<Duration>,
    listener: usize,
    branch: Branch,
    slot: u32,
    cell: Option<Cell>,
    standing: Standing,
    /// How many bytes of what its connection has brought were its balancer's.
    header: u16,
    /// When something was last said, where that is learned by signs.
    sign: Option<Instant>,
    /// It has left, or ended what it has to say, without a byte.
    silent: bool,
    /// What it is when it is done with its client, if it is to serve another one then.
    again: Option<Box<Spare>>,
}

/// How far a child's client has come.
enum Standing {
    /// It is served.
    Served,
    /// It is served as the balancer's own, or has gone before anybody knew whose it was: its end is nobody's fault.
    Faultless,
    /// It came through a balancer and is to be named yet, on this line; by the rules that its child was born with.
    Nameless(OwnedFd, Version),
    /// Its name was not good enough, or never came.
    Unwelcome,
}

impl Master {
    /// Takes the process over: signals and children are the server's from here on.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        workplace: Workplace,
        manner: Manner,
        held_most: usize,
        mut events: Box<dyn FnMut(&Event<'_>)>,
    ) -> Result<Master, StartError> {
        let system = StartError::system;
        let watch = || Ready::new().map_err(system("make a set of connections to watch"));
        Ok(Master {
            listeners,
            workplace,
            nursery: None,
            template: None,
            template_due: Instant::now(),
            watches: Watches::default(),
            cots: 0,
            slots: Slots::of_seat(0),
            cells: Cells::default(),
            lives: None,
            spares: None,
            workers: Workers::new().map_err(system("make a pipe for the workers"))?,
            crew: None,
            common: None,
            post: None,
            rules_seen: 0,
            keep: Keep::default(),
            trees: "",
            programs: false,
            control: None,
            events: Box::new(move |event| apart::outside(|| events(event))),
            children: BTreeMap::new(),
            admit: Gate::alone(manner.limits.clone(), held_most),
            ends: Ends::new(manner.deadlines.clone()),
            drain: Drain::new(manner.patience),
            manner,
            held: VecDeque::new(),
            unborn: VecDeque::new(),
            undecided: VecDeque::new(),
            room: BTreeMap::new(),
            room_watch: watch()?,
            hangups: watch()?,
            lines: watch()?,
            signs: watch()?,
            firsts: watch()?,
            diags: BTreeMap::new(),
            guardian: Guardian::default(),
            deaths: Deaths::new().map_err(system("make a set of processes to watch"))?,
            signals: Signals::take_over().map_err(system("take over the signals"))?,
            dead: VecDeque::new(),
            failures: BTreeMap::new(),
            calls: BTreeMap::new(),
            heard: Heard::default(),
            served: 0,
            failed: 0,
        })
    }

    /// Moves what it writes to for each client to where children are given no copy of it: to be called [`apart::inside`].
    pub(crate) fn apart(mut self) -> Box<Master> {
        let mut listeners = Vec::with_capacity(self.listeners.len());
        listeners.append(&mut self.listeners);
        self.listeners = listeners;
        Box::new(self)
    }

    /// Says what is listened at, and starts the workers.
    pub(crate) fn open(&mut self, service: &mut dyn Service) -> Result<(), StartError> {
        service.obey(&self.manner.limits.rules).map_err(StartError::Rules)?;
        self.tell_missing();
        self.open_post(service)?;
        for worker in self.workers.start_all(&self.workplace.desk, &self.listeners)? {
            self.deaths.watch(worker);
        }
        let acceptors = self.crew.as_ref().map_or(1, Crew::len);
        for listener in self.listeners.iter().filter(|listener| listener.role != Role::Channel) {
            let (children, backlog, trees) = (self.admit.limits().children, listener.backlog, self.trees);
            (self.events)(&Event::Listening {
                listener: &listener.name,
                children,
                backlog,
                trees,
                acceptors,
                confine: self.workplace.plan.profile(),
            });
        }
        Ok(())
    }

    /// Makes ready for clients of its own.
    fn open_post(&mut self, service: &mut dyn Service) -> Result<(), StartError> {
        apart::outside(|| self.renew_template(service))
            .map_err(StartError::system("confine the children"))?;
        if self.ends.listens() || self.counts_silence() {
            let system = StartError::system("ask the kernel about connections (sock_diag)");
            self.diags = self.listeners.iter().map(diag).collect::<io::Result<_>>().map_err(system)?;
        }
        if self.workplace.orphans == Orphans::Die {
            let guardian = self.guardian.start(&self.workplace);
            self.deaths.watch(guardian.map_err(StartError::system("start a guardian"))?);
        }
        Ok(())
    }

    /// Says what of the plan this system cannot keep.
    fn tell_missing(&mut self) {
        for missing in self.workplace.plan.missing() {
            (self.events)(&Event::Unconfined { missing });
        }
    }

    /// Sees to it that there is a process that children are born from, if they are to be.
    ///
    /// # Errors
    /// What kept it from wearing what it is to wear.
    pub(super) fn renew_template(&mut self, service: &mut dyn Service) -> io::Result<()> {
        if self.template.is_some() || !self.workplace.plan.confines() {
            return Ok(());
        }
        let programs = self.programs;
        let rules = self.admit.limits().rules.clone();
        // A child can look at nothing of this structure, but at what is on the stack.
        let (desk, cots) = (Rc::clone(&self.workplace.desk), self.cots);
        let tools = Tools { desk: &desk, service, rules: &rules, programs, name: CString::default(), cots };
        let (mut template, cell) = Template::start(tools)?;
        [Some(template.pid), template.keeper].into_iter().flatten().for_each(|pid| self.deaths.watch(pid));
        self.watches.add(template.watch.take());
        self.template = Some(template);
        if let Some(mut cell) = cell {
            self.know_cell(&mut cell);
            self.leave_cell(Some(cell), true, false);
        }
        Ok(())
    }

    /// Starts one where there is to be one and is none; whoever needs a child before that starts one too.
    fn mend_template(&mut self, service: &mut dyn Service, now: Instant) {
        let wanted = self.drain.is_serving() && self.template.is_none() && self.workplace.plan.confines();
        if wanted
            && self.template_due <= now
            && let Err(error) = apart::outside(|| self.renew_template(service))
        {
            self.template_due = now + Duration::from_secs(1);
            (self.events)(&Event::Odd { what: "start a template (it will be tried again)", error: &error });
        }
    }

    /// It is not fit any more, or not needed. Those whom it was asked for are born first.
    pub(super) fn dismiss_template(&mut self) {
        self.await_births();
        self.let_template_go(None);
    }

    /// Its cells nobody else can use. Of it and its keeper one may be `dead`, and waited for.
    pub(super) fn let_template_go(&mut self, dead: Option<Pid>) {
        self.template.take().into_iter().for_each(|template| template.dismiss(dead));
        self.cells.clear();
    }

    /// A cell was made.
    pub(super) fn know_cell(&mut self, cell: &mut Cell) {
        self.cells.counts(cell);
        self.deaths.watch(cell.init);
    }

    /// Nobody is to be in a cell any more, and perhaps nobody `is`.
    pub(super) fn leave_cell(&mut self, cell: Option<Cell>, is_empty: bool, by_force: bool) {
        match cell {
            Some(cell) if is_empty && self.is_as_new(&cell) => {
                let template = self.template.as_ref().map(|template| template.pid);
                self.cells.give_back(cell, template, Instant::now());
            }
            Some(cell) => self.cells.close(cell, by_force),
            None => {}
        }
    }

    /// Whether a cell whose control group is empty is as a new one would be.
    fn is_as_new(&self, cell: &Cell) -> bool {
        let plan = &self.workplace.plan;
        // A program may have passed a socket to somebody who lives on, and who would be in the next client's network with it.
        let asked = plan.own_namespaces_to_use_again().has(Namespaces::NET) && plan.has_sockets();
        plan.stays_in_group() && (!asked || namespace::sockets(cell.init).is_ok_and(|count| count == 0))
    }

    /// Waits until something is to be done; gives the listeners that clients may have come to, or `None` when the end was
    /// asked for and nobody is left.
    pub(crate) fn wait(&mut self) -> Result<Option<Vec<usize>>, StartError> {
        self.mend_workers();
        self.show_notes();
        let nobody = self.children.is_empty()
            && self.unborn.is_empty()
            && self.workers.is_empty()
            && self.workplace.trees.is_empty()
            && self.cells.is_empty()
            && self.spares.as_ref().is_none_or(Parked::is_empty)
            && self.crew.as_ref().is_none_or(Crew::is_empty);
        if nobody && !self.drain.is_serving() {
            return Ok(None);
        }
        let now = Instant::now();
        let open = self.open_listeners(now);
        let patience = self.patience(now);
        let mut fds = vec![
            self.signals.as_fd(),
            self.deaths.as_fd(),
            self.workplace.reports.as_fd(),
            self.room_watch.as_fd(),
            self.hangups.as_fd(),
            self.lines.as_fd(),
            self.firsts.as_fd(),
        ];
        let before_bell = fds.len();
        fds.extend(self.common.as_ref().map(|common| common.bells[self.post.map_or(0, seat)].as_fd()));
        let before_wish = fds.len();
        fds.extend(self.control.as_ref().filter(|control| control.is_alive()).map(AsFd::as_fd));
        let before_line = fds.len();
        fds.extend(self.template.as_ref().filter(|_| self.unborn.len() >= UNBORN_MOST).map(Template::line));
        let before_watch = fds.len();
        fds.extend(self.watches.open(now));
        let others = fds.len();
        fds.extend(open.iter().map(|at| self.listeners[*at].as_fd()));
        let mut ready = Vec::new();
        if let Err(error) = fd::wait_readable(&fds, patience, &mut ready) {
            (self.events)(&Event::Odd { what: "poll", error: &error });
            std::thread::sleep(ASKING);
        }
        let at = |number: usize| number < others && ready[number];
        self.heard = Heard {
            signal: at(0),
            death: at(1),
            report: at(2),
            left: at(3),
            hangup: at(4),
            line: at(5),
            first: at(6),
            bell: before_wish > before_bell && at(before_bell),
            wish: before_line > before_wish && at(before_wish),
            call: (before_watch..others).any(at),
            nothing: !ready.contains(&true),
        };
        Ok(Some(
            open.into_iter().zip(&ready[others..]).filter(|(_, ready)| **ready).map(|(at, _)| at).collect(),
        ))
    }

    /// Reads signals and the host program's wishes, and does what time has brought.
    pub(crate) fn heed_signals(&mut self, service: &mut dyn Service) {
        // The others are there in the next turn, and whoever sends them without end is not all that there is.
        let most = if self.heard.signal { SIGNALS_MOST } else { 0 };
        for _ in 0..most {
            match self.signals.next() {
                Ok(Some(Signal::TERM | Signal::INT | Signal::QUIT)) => self.end(),
                Ok(Some(Signal::USR1)) => {
                    // Whoever asks may have been answered by a child already.
                    self.await_births();
                    let status = self.status();
                    (self.events)(&Event::Status(status));
                }
                Ok(Some(Signal::HUP)) => self.reread(service),
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
            self.await_births();
            let status = self.status();
            let ends = self.control.as_mut().map_or(0, |control| control.heed(status));
            (0..ends).for_each(|_| self.end());
        }
        if self.heard.report {
            self.collect_reports();
        }
        self.hear_calls();
        self.hear_bell(service);
        self.tell_acceptors();
        self.mend_acceptors(service);
        let now = Instant::now();
        self.keep_deadlines(now);
        self.look_after_trees(now);
        self.cells.tick(now);
        self.look_after_crew(now);
        self.look_at_breakers(now);
        self.look_after_spares(now);
        self.mend_template(service, now);
        let action = self.drain.tick(now);
        self.carry_out(action);
    }

    /// The end of a server that nobody is left in.
    pub(crate) fn close(&mut self) -> Status {
        self.guardian.dismiss();
        self.end_template();
        if let Err(error) = self.workplace.trees.clear() {
            (self.events)(&Event::Odd { what: "remove the control groups", error: &error });
        }
        if self.crew.is_some() {
            Trees::sweep();
        }
        self.show_notes();
        let status = self.status();
        (self.events)(&Event::Stopped { served: status.served });
        status
    }

    /// It is not needed any more, nor are its cells: nothing of them is left then.
    fn end_template(&mut self) {
        self.cells.clear();
        for init in self.cells.living() {
            // Whoever cannot be told, for want of a descriptor, goes with this process.
            if signal::send(init, Signal::KILL).is_ok() {
                let _ = wait_blocking(init);
            }
        }
        self.template.take().into_iter().for_each(Template::end);
    }

    /// A mistake before serving has begun: nothing of ours is to be left.
    pub(crate) fn give_up(&mut self) {
        self.workers.kill();
        self.guardian.dismiss();
        self.end_template();
        // It is being told already why the server does not start.
        let _ = self.workplace.trees.clear();
    }

    fn status(&mut self) -> Status {
        let resting = |listener: &&Listener| {
            listener.pause.is_troubled() || listener.throttle.is_troubled() || listener.breaker.is_tripped()
        };
        let paused = self.listeners.iter().filter(resting).count();
        let spares = self.spares.as_ref().map_or(0, Parked::len);
        let others = self.crew.as_ref().map(|crew| crew.sum(|seat| self.admit.notes_of(seat)));
        let others = others.unwrap_or_default();
        // Of an acceptor, what it has itself.
        let open = if self.crew.is_some() { self.admit.open() } else { self.children.len() };
        Status {
            open,
            most: self.admit.limits().children,
            waiting: self.admit.waiting(),
            refused: self.admit.refused(),
            served: self.served + others.served,
            failed: self.failed + others.failed,
            paused: paused + others.paused as usize,
            spares: spares + others.spares as usize,
        }
    }

    /// How many children there are, or slots taken, here and at all others that admission is shared with.
    fn open_everywhere(&mut self) -> usize {
        if self.admit.is_shared() { self.admit.open() } else { self.children.len() }
    }

    /// Which listeners are looked at.
    fn open_listeners(&mut self, now: Instant) -> Vec<usize> {
        // Who came while others took the last slot is asked again first.
        let serving = self.drain.is_serving() && self.undecided.is_empty();
        let looks = [false, true].map(|nameless| serving && self.admit.look(nameless, now) == Look::Now);
        let listeners = self.listeners.iter().enumerate().filter(|(_, listener)| {
            let here = self.crew.is_none() || listener.role != Role::Accept;
            here && listener.is_open()
                && looks[usize::from(self.waits_for_names(listener))]
                && !rests(listener, now)
        });
        listeners.map(|(at, _)| at).collect()
    }

    /// Whether nothing is known yet of who comes in at a listener.
    fn is_nameless(&self, listener: &Listener) -> bool {
        listener.role != Role::Accept || self.manner.balancers.is_some()
    }

    /// Whether its clients are left in the kernel's queue while there is no child: none is refused there before it is named.
    fn waits_for_names(&self, listener: &Listener) -> bool {
        let refuses = matches!(self.admit.limits().on_full, OnFull::Refuse { .. } | OnFull::Early { .. });
        listener.role != Role::Accept || (self.manner.balancers.is_some() && !refuses)
    }

    /// Whether a client that says nothing does not go for nothing.
    fn counts_silence(&self) -> bool {
        !self.manner.limits.penalties.nobytes.is_zero()
    }

    /// How long nothing may happen before there is something to do all the same.
    fn patience(&mut self, now: Instant) -> Option<Duration> {
        let wakings = |listener: &Listener| {
            [listener.pause.until(now), listener.throttle.until(now), listener.breaker.until(now)]
        };
        let serving = self.drain.is_serving();
        let rests = self.listeners.iter().filter(|_| serving).flat_map(wakings).flatten();
        let rests = rests.min();
        // A rest that was over before it came to this is no event any more; who waits for its end is looked after at once.
        let rested = |at: usize| self.listeners.get(at).is_some_and(|listener| !self::rests(listener, now));
        let held = serving && self.held.iter().any(|(at, _)| rested(*at));
        let pace = [false, true].map(|nameless| match self.admit.look(nameless, now) {
            Look::At(until) if serving => Some(until),
            _ => None,
        });
        let late = self.admit.until().filter(|_| self.held.is_empty());
        let untold = self.crew.as_ref().is_some_and(Crew::must_send);
        let asking = (self.deaths.must_ask() || untold).then(|| now + ASKING);
        // What has come of it may wait a little for what else is to be done; but whoever is asked for a child may have been stopped.
        let unborn = self.unborn.front().map(|(unborn, _)| match unborn.born + UNHEARD_MOST {
            soon if soon > now => soon,
            _ => now + UNHEARD_MOST,
        });
        let spares = self.spares.as_ref();
        let until = rests
            .into_iter()
            .chain(pace.into_iter().flatten())
            // While there are some who could not be given a child, nobody else is looked after either.
            .chain(late)
            .chain(self.ends.until())
            .chain(self.drain.until())
            .chain(unborn)
            .chain(self.watches.until(now))
            .chain(asking)
            .chain(held.then_some(now))
            .chain(self.workers.until())
            .chain(self.workplace.trees.until())
            .chain(self.cells.until())
            .chain(spares.and_then(|spares| spares.until(now)))
            .chain(self.makes_spare(now).then_some(now))
            .chain(self.crew.as_ref().filter(|_| serving).and_then(Crew::until))
            .min()?;
        Some(until.saturating_duration_since(now))
    }

    /// Whether there are to be more spares; and nobody is in need of what there is, or it would be tried for nothing.
    fn makes_spare(&self, now: Instant) -> bool {
        let Some(spares) = &self.spares else { return false };
        let troubled = self.listeners.iter().all(|listener| rests(listener, now));
        self.drain.is_serving() && self.held.is_empty() && !troubled && spares.stock.makes(spares.len(), now)
    }

    /// Reads the rules again, checks all, and only then switches.
    fn reread(&mut self, service: &mut dyn Service) {
        let Some(reread) = &mut self.manner.reread else { return };
        let number = |crew: Option<&Crew>, written: &Written, now: u64| match crew {
            Some(crew) => crew.write_down(written).map_err(|why| why.to_string()),
            None => Ok(now + 1),
        };
        let (crew, now) = (self.crew.as_ref(), self.admit.version().number);
        let read = apart::outside(reread).and_then(|(rules, written)| {
            apart::outside(|| service.obey(&rules))?;
            Ok(Version { number: number(crew, &written, now)?, rules })
        });
        match read {
            Ok(version) => {
                let count = version.rules.len();
                self.admit.set_rules(version);
                // What they know of rules they know from their birth.
                self.spares.iter_mut().for_each(Parked::dismiss);
                self.dismiss_template();
                (self.events)(&Event::Reloaded { rules: count });
            }
            Err(why) => (self.events)(&Event::NotReloaded { why: &why }),
        }
    }

    fn mend_workers(&mut self) {
        let now = Instant::now();
        while let Some(at) = self.workers.due(now, self.drain.is_serving()) {
            match self.workers.start(at, &self.workplace.desk, &self.listeners, now) {
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
        self.await_births();
        let action = self.drain.asked(Instant::now());
        self.carry_out(action);
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Close => self.stop_accepting(),
            Action::Nudge => self.tell_all(Signal::TERM, "TERM"),
            Action::Kill => {
                self.drain_acceptors(true);
                self.tell_all(Signal::KILL, "KILL");
                self.workers.kill();
                self.workplace.trees.hurry(Instant::now());
                self.cells.hurry();
            }
        }
    }

    fn stop_accepting(&mut self) {
        let (open, patience) = (self.status().open, self.drain.patience());
        // Closed before it is told, so that whoever hears it finds nobody listening.
        self.listeners.drain(..).for_each(|listener| listener.remove_path());
        self.workers.drain();
        self.drain_acceptors(false);
        self.spares.iter_mut().for_each(Parked::dismiss);
        (self.events)(&Event::Draining { open, patience });
        let now = Instant::now();
        for (_, guest) in std::mem::take(&mut self.held) {
            self.admit.leaves(guest.ticket, now);
            self.admit.count(Reason::Ending);
            self.refuse(&guest.arrival, Reason::Ending);
        }
        for (_, arrival) in std::mem::take(&mut self.undecided) {
            self.admit.count(Reason::Ending);
            self.refuse(&arrival, Reason::Ending);
        }
        for (ticket, (_, arrival, _)) in std::mem::take(&mut self.room) {
            self.admit.closes(ticket, now);
            self.refuse(&arrival, Reason::Ending);
        }
    }

    fn tell_all(&mut self, signal: Signal, name: &'static str) {
        self.await_births();
        let open = self.status().open;
        (self.events)(&Event::Ending { open, signal: name });
        let spares = self.spares.iter().flat_map(Parked::leaving);
        let children = self.children.iter().map(|(pid, child)| (*pid, child.branch));
        for (pid, branch) in children.chain(spares) {
            let told = match signal {
                Signal::KILL => self.workplace.trees.kill(branch, pid),
                other => signal::send_group(pid, other),
            };
            if let Err(error) = told {
                (self.events)(&Event::Odd { what: "signal a child", error: &error });
            }
        }
    }
}

/// What a child's connection is watched under: an open file that outlives its child may be told of when the child's number
/// has been given to another.
fn mark(ticket: Ticket, pid: Pid) -> u64 {
    ordinal(ticket) << 32 | u64::from(pid.id())
}

/// Through what the kernel is asked about a listener's connections.
fn diag(listener: &Listener) -> io::Result<(u32, Diag)> {
    Ok((listener.interface, Diag::new()?.through(listener.interface)))
}

fn rests(listener: &Listener, now: Instant) -> bool {
    listener.pause.until(now).is_some()
        || listener.throttle.until(now).is_some()
        || listener.breaker.until(now).is_some()
}
