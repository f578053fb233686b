//! The builder, and the three ways to serve: a handler, a program, datagrams.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tine_confine::{Namespaces, Plan};
use tine_os::datagram::Basket;
use tine_os::limit;
use tine_os::processor::Processors;
use tine_os::socket::{self, Addr, Kind};
use tine_os::spawn::Nursery;
use tine_os::steer::steer;
use tine_os::{Pid, apart, fd, fork, init};

use crate::addr::{AddrError, Listen, Transport};
use crate::change::control::Control;
use crate::error::{BindError, Error, StartError};
use crate::event::Event;
use crate::front::introduction::Balancers;
use crate::handler::{DatagramHandler, Handler};
use crate::life::admit::{Limits, OnFull, Rules};
use crate::life::bind::{self, Listener, Role};
use crate::life::end::Deadlines;
use crate::life::fork::{Birth, Desk, Workplace};
use crate::life::reap::Reports;
use crate::life::serve::{HandlerService, Place, Service, variants};
use crate::life::tree::{Keep, Orphans, Trees};
use crate::master::{Manner, Master, Reader};
use crate::mode::acceptors::{ACCEPTORS_MOST, Crew};
use crate::mode::cell::Cells;
use crate::mode::each;
use crate::mode::guard::Guard;
use crate::mode::peer::Exchange;
use crate::mode::spare::{Bed, Parked};
use crate::mode::steer::steering;
use crate::mode::stock::Spares;
use crate::mode::worker::Work;
use crate::program::{DatagramMode, Program};

/// How long children have to finish when the server ends, unless another time is asked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many children may be on their way to their program at once: enough to keep several processors at it, and the pages of
/// their stacks are few.
const COTS: usize = 8;

/// Descriptors that the master needs beside one for each child and listener.
const DESCRIPTORS: u64 = 64;

/// A server in the making: where it listens, what limits it keeps, what its children are like.
///
/// The ways to serve take the process over and come back when the end was asked for (SIGTERM or SIGINT, a second one
/// means now) and the last child has ended.
pub struct Server {
    listeners: Vec<Listener>,
    limits: Limits,
    deadlines: Deadlines,
    balancers: Option<Balancers>,
    rules_file: Option<PathBuf>,
    keep: Keep,
    orphans: Orphans,
    patience: Duration,
    plan: Plan,
    hooks: Vec<Box<dyn Fn()>>,
    events: Box<dyn FnMut(&Event<'_>)>,
    workers: usize,
    guard: Guard,
    spares: Option<Spares>,
    acceptors: usize,
    clients_per_child: usize,
}

impl Default for Server {
    fn default() -> Server {
        Server::new()
    }
}

impl Server {
    /// A server for 256 children that listens nowhere yet.
    pub fn new() -> Server {
        Server {
            listeners: Vec::new(),
            limits: Limits::default(),
            deadlines: Deadlines::default(),
            balancers: None,
            rules_file: None,
            keep: Keep::default(),
            orphans: Orphans::default(),
            patience: PATIENCE,
            plan: Plan::default(),
            hooks: Vec::new(),
            events: Box::new(|_| {}),
            workers: 1,
            guard: Guard { low_ports: false, amplification: 3, own_port: None },
            spares: None,
            acceptors: 1,
            clients_per_child: 1,
        }
    }

    /// Listens at an address as tine(8) writes it: `tcp://127.0.0.1:7000`, `unix:/run/x?mode=0660`, `udp://[::1]:69`.
    /// May be called again, with addresses of any kind. It is bound now; clients are taken when the server serves.
    ///
    /// # Errors
    /// [`Error::Addr`] when it cannot be understood, [`Error::Bind`] when the system refuses.
    pub fn listen(self, addr: &str) -> Result<Server, Error> {
        let listen: Listen = addr.parse().map_err(|why: AddrError| why)?;
        Ok(self.listen_at(&listen)?)
    }

    /// Listens at an address that was parsed before.
    ///
    /// # Errors
    /// [`BindError`] when the system refuses.
    pub fn listen_at(mut self, listen: &Listen) -> Result<Server, BindError> {
        self.listeners.extend(bind::bind(listen)?);
        Ok(self)
    }

    /// Takes over a socket that is bound already: a `TcpListener`, a `UnixListener`, a `UdpSocket`.
    ///
    /// # Errors
    /// [`BindError`] when it is a connection, or no socket.
    pub fn adopt(mut self, socket: impl Into<OwnedFd>) -> Result<Server, BindError> {
        let socket = socket.into();
        let text = format!("fd:{}", socket.as_raw_fd());
        let listen = Listen {
            text,
            place: crate::addr::Place::Inherited(socket.as_raw_fd()),
            transport: Transport::Stream,
            options: crate::addr::Options::default(),
        };
        self.listeners.push(bind::adopt(&listen, socket)?);
        Ok(self)
    }

    /// Where it listens, with the ports that the kernel chose.
    pub fn addrs(&self) -> Vec<String> {
        self.listeners.iter().map(|listener| listener.name.clone()).collect()
    }

    /// The ports of the listeners, in order; `None` for one that has none.
    pub fn ports(&self) -> Vec<Option<u16>> {
        let port = |listener: &Listener| match &listener.local {
            Addr::Inet(addr) => Some(addr.port()),
            _ => None,
        };
        self.listeners.iter().map(port).collect()
    }

    /// How many children there may be at once; at the limit clients wait. Default 256, least 1. A tenth of them is kept for
    /// networks that have nobody here, and one source has a quarter at most, unless [`Server::limits`] says otherwise.
    pub fn children(mut self, most: usize) -> Server {
        self.limits.children = most.max(1);
        self
    }

    /// Changes who may come in: see [`Limits`].
    ///
    /// ```no_run
    /// # fn main() -> Result<(), tine::Error> {
    /// let server = tine::Server::new().listen("tcp://127.0.0.1:7000")?.limits(|limits| {
    ///     limits.per_source = Some(4);
    ///     limits.rate_per_source = Some("10/s:20".parse().expect("it is a rate"));
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Server {
        change(&mut self.limits);
        self.limits.children = self.limits.children.max(1);
        self
    }

    /// Reads rules from a file beside those of [`Limits::rules`], and again at each SIGHUP: a file with a mistake changes
    /// nothing then. tine(8) has their form.
    pub fn rules_file(mut self, path: impl Into<PathBuf>) -> Server {
        self.rules_file = Some(path.into());
        self
    }

    /// Changes how long connections may take, and how they are ended: see [`Deadlines`].
    pub fn deadlines(mut self, change: impl FnOnce(&mut Deadlines)) -> Server {
        change(&mut self.deadlines);
        self
    }

    /// Every connection begins with a PROXY header, which only these balancers may send; limits, penalties and deadlines are the
    /// client's that it names.
    pub fn proxy(mut self, from: Balancers) -> Server {
        self.balancers = Some(from);
        self
    }

    /// By what the processes of a connection are held together, so that all of them end with it.
    pub fn keep(mut self, keep: Keep) -> Server {
        self.keep = keep;
        self
    }

    /// What becomes of children when the master is killed. Default: they finish.
    pub fn orphans(mut self, orphans: Orphans) -> Server {
        self.orphans = orphans;
        self
    }

    /// How long children have to finish when the end was asked for; then they get SIGTERM, and 2 seconds later SIGKILL.
    /// Default 30 seconds.
    pub fn patience(mut self, patience: Duration) -> Server {
        self.patience = patience;
        self
    }

    /// What children give up before they meet their client, and what each may use together with all that it starts
    /// ([`Group`](crate::Group), for programs only).
    pub fn confine(mut self, plan: Plan) -> Server {
        self.plan = plan;
        self
    }

    /// How many processes accept, each for one processor, under this one as their master; 0 is as many as there are
    /// processors that this process may run on. Default 1: it accepts itself.
    ///
    /// Every limit holds over all of them. A TCP listener has a socket for each, and a client goes to the one of the processor
    /// that it arrives at; others are shared by all. One that dies is replaced: who waits in its queue is served by the next, and
    /// its clients go on. Events are told in the process in which they happen, by a copy of what was given to
    /// [`Server::on_event`]; spares ([`Server::spares`]) are so many for each.
    ///
    /// It pays where the server itself is what keeps clients waiting: docs/performance.md has numbers.
    pub fn acceptors(mut self, count: usize) -> Server {
        self.acceptors = count;
        self
    }

    /// How many clients a child of a handler serves, one after the other. Default 1, and what makes a server of this kind: a
    /// process of its own for each client.
    ///
    /// **More gives that up.** What a handler leaves in its process, the next client's finds: memory, the working directory,
    /// threads, files. In return there is no fork for most clients. A child that panics, crashes or has a process running that it
    /// started ends with its client all the same, and others take its place; so does one that has served as many as this, or is as
    /// old as spares may be ([`Spares::age`]). The client sees the end of its connection when the handler has dropped it.
    ///
    /// It works with spares, and without [`Server::spares`] there are up to 32 that have served already. Behind a balancer
    /// ([`Server::proxy`]), and for programs, it does nothing.
    pub fn clients_per_child(mut self, count: usize) -> Server {
        self.clients_per_child = count.max(1);
        self
    }

    /// Has children ready that are born and set up before their client comes. A handler's [`Handler::prepare`] and the hooks of
    /// [`Server::after_fork`] have run in them by then.
    ///
    /// Spares are no children by any limit until they have a client, and never have a second one. Where every child has to ask a
    /// balancer first ([`Server::proxy`]) there are none.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), tine::Error> {
    /// let server = tine::Server::new().listen("tcp://127.0.0.1:7000")?.spares(tine::Spares::new(8, 32));
    /// # Ok(())
    /// # }
    /// ```
    pub fn spares(mut self, spares: Spares) -> Server {
        self.spares = Some(spares);
        self
    }

    /// Called in each child, before [`Handler::prepare`]: the place to reseed random state that was copied by the fork.
    pub fn after_fork(mut self, hook: impl Fn() + 'static) -> Server {
        self.hooks.push(Box::new(hook));
        self
    }

    /// Called in the master for everything that happens. It must not wait for anything.
    pub fn on_event(mut self, sink: impl FnMut(&Event<'_>) + 'static) -> Server {
        self.events = Box::new(sink);
        self
    }

    /// How many workers each listener for datagrams has with [`Server::serve_datagrams`], and with
    /// [`Server::serve_program`] where it carries them to children ([`DatagramMode::Peer`], [`DatagramMode::Each`]). Default 1.
    ///
    /// Each has a socket of its own at the same address (SO_REUSEPORT), which outlives it, and the kernel keeps a peer with one
    /// of them: its datagrams stay in order. An inherited socket and a Unix socket cannot be bound twice: handlers' workers
    /// share it, and a program has one worker there.
    pub fn workers(mut self, count: usize) -> Server {
        self.workers = count.max(1);
        self
    }

    /// Whether datagrams from ports below 1024 are answered. Default no: services that answer answers live there.
    pub fn reply_to_low_ports(mut self, yes: bool) -> Server {
        self.guard.low_ports = yes;
        self
    }

    /// How many times as long as its question, headers included, a reply to a datagram may be; 0 is no limit. Default 3,
    /// so that a forged source address gains an attacker little.
    pub fn amplification(mut self, most: u32) -> Server {
        self.guard.amplification = most;
        self
    }

    /// Serves with a handler: each client in a process of its own.
    ///
    /// # Errors
    /// What keeps the server from starting; a process with more than one thread ([`StartError::Fork`]) among it.
    pub fn serve<H: Handler>(self, handler: H) -> Result<(), Error> {
        Ok(self.serve_as_master(handler, None, |_| {})?)
    }

    /// Serves with a program: each client has an instance of its own.
    ///
    /// # Errors
    /// As [`Server::serve`].
    pub fn serve_program(mut self, mut program: Program) -> Result<(), Error> {
        self.plan.programs.push(program.argv.path().to_owned());
        let (mut exchanges, workers) = (Vec::new(), self.workers);
        let mut events = self.take_events();
        for (at, listener) in self.listeners.iter_mut().enumerate() {
            if listener.transport != Transport::Datagram {
                continue;
            }
            let idle = match program.datagrams {
                Some(DatagramMode::Wait) => {
                    // Only looked at here; what the program does with it may block.
                    fd::set_blocking(&listener.fd, true)
                        .map_err(StartError::system("set up a datagram socket"))?;
                    listener.role = Role::Lend(None);
                    continue;
                }
                Some(DatagramMode::Peer(idle)) => Some(idle),
                Some(DatagramMode::Each) => None,
                None => {
                    let advice =
                        "a program serves datagrams in one of three ways: --datagram wait, peer or each";
                    return Err(StartError::Transport { listen: listener.name.clone(), advice }.into());
                }
            };
            let guard = guard_of(listener, self.guard);
            seat(listener, workers, &mut events)?;
            for number in 0..listener.seats() {
                let (ours, theirs) =
                    socket::pair(Kind::Packet).map_err(StartError::system("make a channel for a worker"))?;
                let channel = Listener::channel(listener, ours);
                exchanges.push(((at, number), theirs, Exchange { idle, guard }, channel));
            }
        }
        let mut master = self.master(true, events)?;
        for (seat, channel, exchange, listener) in exchanges {
            master.workers.add(seat, Work::Exchange { channel, exchange });
            master.listeners.push(listener);
        }
        Ok(serve(master, &mut program, |_| {})?)
    }

    /// Serves datagrams with a handler, in workers that read, handle and reply in batches.
    ///
    /// # Errors
    /// As [`Server::serve`].
    pub fn serve_datagrams<H: DatagramHandler + 'static>(mut self, handler: H) -> Result<(), Error> {
        if let Some(other) = self.listeners.iter().find(|listener| listener.transport != Transport::Datagram)
        {
            let advice = "it carries connections: serve them with Server::serve";
            return Err(StartError::Transport { listen: other.name.clone(), advice }.into());
        }
        let (workers, guard, mut events) = (self.workers, self.guard, self.take_events());
        for listener in &mut self.listeners {
            seat(listener, workers, &mut events)?;
        }
        let mut master = self.master(false, events)?;
        let handler = Rc::new(RefCell::new(handler));
        for at in 0..master.listeners.len() {
            for number in 0..workers {
                let basket = Basket::new().map_err(StartError::system("make memory for a worker"))?;
                let guard = guard_of(&master.listeners[at], guard);
                let work = Work::Handle { basket, handler: handler.clone(), guard };
                master.workers.add((at, number), work);
            }
        }
        Ok(serve(master, &mut Nobody, |_| {})?)
    }

    pub(crate) fn serve_as_master<H: Handler>(
        mut self,
        handler: H,
        control: Option<Control>,
        ready: impl FnOnce(&Control),
    ) -> Result<(), StartError> {
        if let Some(other) = self.listeners.iter().find(|listener| listener.transport == Transport::Datagram)
        {
            let advice = "it carries datagrams: serve them with Server::serve_datagrams";
            return Err(StartError::Transport { listen: other.name.clone(), advice });
        }
        let (hooks, events) = (std::mem::take(&mut self.hooks), self.take_events());
        let mut master = self.master(false, events)?;
        master.control = control;
        serve(master, &mut HandlerService { handler, hooks }, ready)
    }

    fn take_events(&mut self) -> Box<dyn FnMut(&Event<'_>)> {
        std::mem::replace(&mut self.events, Box::new(|_| {}))
    }

    /// Checks all that can be checked and opens all that children will need, before the first of them.
    fn master(mut self, programs: bool, events: Box<dyn FnMut(&Event<'_>)>) -> Result<Master, StartError> {
        if self.listeners.is_empty() {
            return Err(StartError::NoListener);
        }
        match fork::threads() {
            Ok(1) => {}
            Ok(n) => return Err(StartError::Fork(tine_os::ForkError::Threads(n))),
            Err(why) => return Err(StartError::Fork(tine_os::ForkError::Unknown(why))),
        }
        let base = self.check()?;
        if programs {
            let named = variants(&self.limits.rules).map_err(StartError::Rules)?;
            for program in named.values().map(|program| program.path()) {
                if !self.plan.programs.iter().any(|known| known == program) {
                    self.plan.programs.push(program.to_owned());
                }
            }
        }
        let system = StartError::system;
        fd::fill_standard().map_err(system("open /dev/null in the place of a closed descriptor"))?;
        self.plan.answers_abstract |= self.listeners.iter().any(|listener| {
            listener.transport == Transport::Datagram && !matches!(listener.local, Addr::Inet(_))
        });
        // Before any limit of our own is raised: what was inherited is what children are measured by.
        let plan = self.plan.prepare().map_err(StartError::Plan)?;
        let places = self.limits.places();
        let lines = if self.balancers.is_some() { self.limits.children } else { 0 };
        let queued = if matches!(self.limits.on_full, OnFull::Wait) { 0 } else { places };
        if programs {
            self.clients_per_child = 1;
        }
        let again = (self.clients_per_child > 1).then(|| Spares::new(0, 32));
        let spares = self.spares.or(again).filter(|_| self.balancers.is_none());
        let init = programs && plan.wants_init();
        let lines = lines + spares.map_or(0, |spares| spares.most) + if init { Cells::OPEN_MOST } else { 0 };
        // A worker beside the first has its socket, and its memory or both ends of its channel.
        let seats: usize = self.listeners.iter().map(|listener| 3 * listener.seats() - 2).sum();
        let needed = (self.limits.children + lines + queued + seats) as u64 + DESCRIPTORS;
        let allowed = limit::raise_nofile(needed + (places - queued + 4 * Trees::OPEN_MOST) as u64)
            .map_err(system("raise the limit on open descriptors"))?;
        if allowed < needed {
            return Err(StartError::Descriptors { children: self.limits.children, needed, allowed });
        }
        // Where nobody asked for a waiting room, it is as large as there is room for.
        let held_most = queued + (allowed - needed).min((places - queued) as u64) as usize;
        let reports = Reports::new(plan.own_namespaces().has(Namespaces::PID))
            .map_err(system("make a pipe for reports"))?;
        let null = fd::null().and_then(fd::duplicate_low).map_err(system("open /dev/null"))?;
        let log = fd::duplicate_low(std::io::stderr()).map_err(system("duplicate standard error"))?;
        // Whoever becomes another user could be traced by that user before it is a program, and the master's memory with it; and
        // where the kernel does not allow such births, a fork does the same for more.
        let cots = if programs && !plan.becomes_known_user() { COTS } else { 0 };
        // What is confined is born from a template, which has a nursery of its own.
        let nursery = if cots > 0 && !plan.confines() { Nursery::new(cots, || None).ok() } else { None };
        let group = self.plan.group;
        let trees = Trees::new(self.keep, programs, group);
        let (mut trees, why) = trees.map_err(|error| match group.is_limited() {
            true => StartError::Group { group, error },
            false => {
                let advice = "--trees auto (Keep::Auto) does without control groups";
                let error =
                    std::io::Error::new(error.kind(), format!("{}; {advice}", tine_os::plain(&error)));
                system("hold the processes of a connection together")(error)
            }
        })?;
        let mut events = events;
        if let Some(why) = &why {
            events(&Event::Trees { by: trees.name(), why });
        }
        // A template copies none of the master's.
        let copies_few = nursery.is_some() || plan.confines();
        if copies_few && allowed >= needed + (places - queued) as u64 + 4 * Trees::OPEN_MOST as u64 {
            trees.keep_open();
        }
        let (orphans, master, held_together) = (self.orphans, Pid::own(), trees.name());
        let crew = self.crew(&base)?;
        if let Some(crew) = &crew {
            // Each acceptor has its own; what is left by one that dies comes to its parent.
            trees = trees.left_to_others(programs).map_err(system("become the parent of orphans"))?;
            self.seat(crew, &mut events)?;
        }
        let init = init.then(init::file).transpose();
        let init = init.map_err(system(
            "make an init for the children's pid namespaces (sysctl vm.memfd_noexec, or --init no)",
        ))?;
        let alive = init.as_ref().map(|_| fd::pipe()).transpose();
        let alive = alive.map_err(system("make a pipe for the children's pid namespaces"))?;
        let (alive, lives) = alive.unzip();
        let alive = alive.map(fd::duplicate_low).transpose().map_err(system("duplicate a pipe"))?;
        let desk = Rc::new(Desk { plan, null, log, reports, orphans, master, init, alive });
        let workplace = Workplace { desk, trees };
        let reread = self.rules_file.map(|path| reader(path, base));
        let manner = Manner {
            limits: self.limits,
            deadlines: self.deadlines,
            patience: self.patience,
            spares,
            clients_per_child: self.clients_per_child,
            balancers: self.balancers,
            reread,
        };
        let mut master = Master::new(self.listeners, workplace, manner, held_most, events)?;
        master.nursery = nursery;
        master.lives = lives;
        master.cots = cots;
        (master.keep, master.programs, master.trees) = (self.keep, programs, held_together);
        match crew {
            // Whoever accepts has them.
            Some(crew) => {
                let share = master.share(crew);
                share.map_err(system("make memory that acceptors share"))?;
            }
            None => {
                master.nursery.iter().for_each(Nursery::keep_from_forks);
                master.spares = spares.map(|spares| Parked::new(spares, self.clients_per_child));
            }
        }
        Ok(master)
    }

    /// Those who are to accept, if it is not this process itself.
    fn crew(&self, base: &Rules) -> Result<Option<Crew>, StartError> {
        let system = StartError::system;
        let count = match self.acceptors {
            0 => {
                Processors::own().map_err(system("ask for processors"))?.numbers().count().min(ACCEPTORS_MOST)
            }
            count if count > ACCEPTORS_MOST => return Err(StartError::Acceptors { most: ACCEPTORS_MOST }),
            count => count,
        };
        let any = self.listeners.iter().any(|listener| listener.role == Role::Accept);
        let crew = (count > 1 && any).then(|| Crew::new(count, base.clone())).transpose();
        crew.map_err(system("make ready for acceptors"))
    }

    /// Gives each acceptor a socket of its own where that can be, and steers clients among them.
    fn seat(&mut self, crew: &Crew, events: &mut dyn FnMut(&Event<'_>)) -> Result<(), StartError> {
        let steps = steering(&crew.processors());
        for listener in self.listeners.iter_mut().filter(|listener| listener.role == Role::Accept) {
            let name = listener.name.clone();
            let failed = |why: BindError| StartError::Listener { listen: name, why };
            seat(listener, crew.len(), events).map_err(failed)?;
            // Where several are on one processor, and where this cannot be, the kernel spreads clients by a hash.
            if listener.seats() == crew.len()
                && crew.is_apart()
                && let Err(error) = steer(&listener.fd, &steps)
            {
                let what = "steer clients to the acceptor of their processor";
                events(&Event::Odd { what, error: &error });
            }
        }
        Ok(())
    }

    /// What cannot go together.
    fn check(&mut self) -> Result<Rules, StartError> {
        if self.balancers.is_some() {
            let no_stream = |listener: &&Listener| listener.transport != Transport::Stream;
            if let Some(other) = self.listeners.iter().find(no_stream) {
                let advice = match other.transport {
                    Transport::Packet => "a PROXY header begins a stream, and this carries records",
                    _ => "a PROXY header begins a stream, and this carries datagrams",
                };
                return Err(StartError::Transport { listen: other.name.clone(), advice });
            }
        }
        let base = self.limits.rules.clone();
        if let Some(path) = &self.rules_file {
            self.limits.rules = reader(path.clone(), base.clone())().map_err(StartError::Rules)?.0;
        }
        Ok(base)
    }
}

/// Reads rules from a file, to be added to those that are given otherwise.
fn reader(path: PathBuf, base: Rules) -> Reader {
    Box::new(move || {
        let read =
            Rules::read_whole(&path).and_then(|(rules, written)| Ok((base.clone().and(&rules)?, written)));
        read.map_err(|why| why.at(&path).to_string())
    })
}

fn serve(master: Master, service: &mut dyn Service, ready: impl FnOnce(&Control)) -> Result<(), StartError> {
    let mut master = apart::inside(|| master.apart());
    if let Err(why) = master.open(service) {
        master.give_up();
        return Err(why);
    }
    if let Some(control) = &master.control {
        ready(control);
    }
    apart::inside(|| each::run(&mut master, service))?;
    let status = master.close();
    if let Some(control) = &master.control {
        control.end(status);
    }
    Ok(())
}

/// Gives each worker of a listener a socket of its own. Whoever has given up its rights since it listened may not bind the
/// address again; then workers share what there is.
fn seat(
    listener: &mut Listener,
    workers: usize,
    events: &mut dyn FnMut(&Event<'_>),
) -> Result<(), BindError> {
    use std::io::ErrorKind::{AddrInUse, PermissionDenied};
    match listener.seat(workers) {
        Err(why) if matches!(why.io().kind(), AddrInUse | PermissionDenied) => {
            events(&Event::Odd { what: "bind a socket for each worker (they share one)", error: why.io() });
            Ok(())
        }
        other => other,
    }
}

fn guard_of(listener: &Listener, guard: Guard) -> Guard {
    let own_port = if let Addr::Inet(addr) = &listener.local { Some(addr.port()) } else { None };
    Guard { own_port, ..guard }
}

/// The service of a server whose listeners all have workers: there are no children.
struct Nobody;

impl Service for Nobody {
    fn obey(&mut self, _: &Rules) -> Result<(), String> {
        Ok(())
    }

    fn serve(&mut self, _: &Desk, _: &Place<'_>, _: BorrowedFd<'_>, _: &mut Birth) -> tine_confine::Failure {
        fork::internal("a child for a server that has only workers")
    }

    fn park(&mut self, _: &Desk, _: &Rules, _: Bed) -> tine_confine::Failure {
        fork::internal("a spare for a server that has only workers")
    }
}
