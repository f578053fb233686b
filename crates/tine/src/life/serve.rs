//! Serve: what a child does with its client, be it a handler or a program.

use std::any::Any;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ExitCode, Termination};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tine_confine::{Failure, Step};
use tine_os::exec::{Argv, Environ};
use tine_os::fork::exit;
use tine_os::socket::{self, Addr};
use tine_os::wait::{self, Usage};
use tine_os::{Pid, fd};

use crate::addr::Transport;
use crate::conn::Conn;
use crate::front::introduction::introduce;
use crate::handler::Handler;
use crate::life::admit::{Rule, RuleId, Rules};
use crate::life::fork::{Birth, Desk, SETUP_FAILED};
use crate::life::reap::Report;
use crate::mode::spare::{Bed, Handover};
use crate::peer::Peer;
use crate::program::{Client, Places, Program, Sockets, Stderr, Variables};

/// What children do.
pub(crate) trait Service {
    /// In the master, before the fork: lays out what this client's child will need; in the child, where only that finds
    /// out who the client is.
    fn prepare(&mut self, _client: &Client<'_>, _rule: Option<(RuleId, &Rule)>) {}

    /// In the master: takes what rules say of its children, or says why it cannot.
    fn obey(&mut self, rules: &Rules) -> Result<(), String>;

    /// In the child; comes back only to say what failed before it could begin. What it is given is never dropped: its numbers
    /// belong to nobody when the descriptors have been placed.
    fn serve(&mut self, desk: &Desk, place: &Place<'_>, client: BorrowedFd<'_>, birth: &mut Birth)
    -> Failure;

    /// In a spare: does all that can be done before its client comes, waits for it, and serves it; comes back as `serve` does.
    fn park(&mut self, desk: &Desk, rules: &Rules, bed: Bed) -> Failure;

    /// In the master, after `prepare`: what a child needs that does nothing but become a program; nothing where it does more.
    fn start(&self) -> Option<Become<'_>> {
        None
    }

    /// Whether exit status 101 is a panic of our own code's.
    fn panics(&self) -> bool {
        false
    }
}

/// What a child needs to know of the server that it serves for.
pub(crate) struct Place<'a> {
    pub transport: Transport,
    /// The rules of now; `None` where no balancer has to be asked.
    pub rules: Option<&'a Rules>,
    /// How long a balancer has to say who its client is.
    pub timeout: Duration,
    /// Whether the child is to tell that its client had said something when it was named.
    pub signs: bool,
}

/// A handler's children: 0 is `/dev/null`, 1 and 2 the log, 3 the client.
pub(crate) struct HandlerService<H> {
    pub handler: H,
    pub hooks: Vec<Box<dyn Fn()>>,
}

impl<H: Handler> Service for HandlerService<H> {
    fn obey(&mut self, rules: &Rules) -> Result<(), String> {
        match rules.iter().find(|(_, rule)| rule.exec.is_some() || !rule.env.is_empty()) {
            None => Ok(()),
            Some((who, _)) => Err(format!("the rule for {who} has env or exec, and those are for programs")),
        }
    }

    fn panics(&self) -> bool {
        true
    }

    fn serve(
        &mut self,
        desk: &Desk,
        place: &Place<'_>,
        client: BorrowedFd<'_>,
        birth: &mut Birth,
    ) -> Failure {
        let fds = [desk.null.as_fd(), desk.log(), desk.log(), client];
        let line = birth.line.as_ref().map(|line| [line.as_fd(), client]);
        if let Err(failure) =
            desk.begin((birth.inherits, birth.slot), &fds, line.as_ref().map_or(&[], |both| both))
        {
            return failure;
        }
        let mut header = None;
        if let Some(line) = &birth.line {
            match introduce(client, line.as_fd(), place.timeout, (&birth.peer, &birth.local)) {
                Err(why) => return Step::Introduction.failed()(why),
                Ok(known) => {
                    tell_signs(desk, place, client);
                    header = Some(known.header);
                    (birth.peer, birth.local) = (known.peer, known.local);
                }
            }
        }
        let nobody = Peer { addr: Addr::Unnamed, credentials: None };
        let peer = std::mem::replace(&mut birth.peer, nobody);
        let local = std::mem::replace(&mut birth.local, Addr::Unnamed);
        desk.reports.send(&Report::Ready(birth.born.elapsed()));
        match desk.settle(HandlerService::<H>::PLACES, &[]).and_then(|()| fd::placed(3)) {
            Err(why) => Step::Descriptors.failed()(why),
            Ok(fd) => run(|| match self.make_ready() {
                Ok(()) => self.handler.serve(Conn::new(fd, peer, local, header)).report(),
                Err(why) => Err::<Infallible, _>(why).report(),
            }),
        }
    }

    fn park(&mut self, desk: &Desk, _: &Rules, bed: Bed) -> Failure {
        let null = desk.null.as_fd();
        let fds = [null, desk.log(), desk.log(), null];
        let entered = bed.enter(desk, &fds);
        // From here on nothing of the master's can be reached, and an author's code may run.
        if let Err(failure) = entered.and_then(|()| bed.settle(desk, HandlerService::<H>::PLACES)) {
            return failure;
        }
        run(|| {
            let ended = match self.make_ready() {
                Ok(()) if bed.clients > 1 => self.serve_several(&bed),
                Ok(()) => bed.wait().and_then(|(client, told)| {
                    drop(bed);
                    let conn = fd::put(client, 3).map_err(Step::Descriptors.failed())?;
                    Ok(self.handler.serve(Conn::new(conn, told.peer, told.local, None)).report())
                }),
                Err(why) => Ok(Err::<Infallible, _>(why).report()),
            };
            ended.unwrap_or_else(|failure| {
                eprintln!("Error: {failure}");
                ExitCode::from(SETUP_FAILED)
            })
        })
    }
}

impl<H: Handler> HandlerService<H> {
    /// How many descriptors a handler finds.
    const PLACES: usize = 4;

    /// The author's own part of what is done before a client comes.
    fn make_ready(&self) -> io::Result<()> {
        self.hooks.iter().for_each(|hook| hook());
        self.handler.prepare()
    }

    /// One client after the other, until there were as many as one child serves.
    fn serve_several(&self, bed: &Bed) -> Result<ExitCode, Failure> {
        for _ in 1..bed.clients {
            let before = wait::used();
            let status = number(self.serve_next(bed)?);
            let _ = io::stdout().flush();
            let now = wait::used();
            let used = Usage { user: now.user - before.user, system: now.system - before.system, ..now };
            if !bed.is_done(status, used) {
                return Ok(ExitCode::from(status));
            }
        }
        self.serve_next(bed)
    }

    fn serve_next(&self, bed: &Bed) -> Result<ExitCode, Failure> {
        let (client, told) = bed.wait()?;
        Ok(self.handler.serve(Conn::new(client, told.peer, told.local, None)).report())
    }
}

/// In a child that knows its client: tells whether something came behind the header, where the master cannot know it.
fn tell_signs(desk: &Desk, place: &Place<'_>, conn: BorrowedFd<'_>) {
    let mut ready = Vec::new();
    if place.signs && fd::wait_readable(&[conn], Some(Duration::ZERO), &mut ready).is_ok() && ready == [true]
    {
        desk.reports.send(&Report::Spoken);
    }
}

/// Runs an author's code to the process's end: whatever it does, the master's code is never come back to.
pub(crate) fn run(code: impl FnOnce() -> ExitCode) -> ! {
    let ended = catch_unwind(AssertUnwindSafe(code));
    // What the child itself has written; the master's part was flushed before the fork.
    let _ = io::stdout().flush();
    exit(ended.map_or_else(forget, number))
}

/// The status of a panic, whose message the panic hook has printed. The payload's destructor might panic again.
fn forget(payload: Box<dyn Any + Send>) -> u8 {
    std::mem::forget(payload);
    101
}

/// The number in an `ExitCode`, which std shows only by comparison.
fn number(code: ExitCode) -> u8 {
    (0..=u8::MAX).find(|status| ExitCode::from(*status) == code).unwrap_or(1)
}

/// What a child needs that does nothing but become a program, as its program knows it.
pub(crate) struct Become<'a> {
    argv: &'a Rc<Argv>,
    environ: &'a Environ,
    places: Places,
}

/// The same, for one child to have while the master goes on: nothing of it is anybody else's.
#[derive(Debug)]
pub(crate) struct Start {
    desk: Rc<Desk>,
    inherits: bool,
    slot: u32,
    argv: Rc<Argv>,
    environ: Environ,
    places: Places,
    born: Instant,
}

impl Become<'_> {
    /// Lays it all out where a child will find it, in the memory that the one before had.
    pub(crate) fn lay_out(
        self,
        start: &mut Option<Start>,
        desk: &Rc<Desk>,
        (inherits, slot): (bool, u32),
        born: Instant,
    ) {
        let Become { argv, environ: own, places } = self;
        let mut environ = start.take().map_or_else(Environ::new, |last| last.environ);
        environ.copy(own);
        let (desk, argv) = (Rc::clone(desk), Rc::clone(argv));
        *start = Some(Start { desk, inherits, slot, argv, environ, places, born });
    }
}

/// What such a child does; it comes back only with the status of one that could not become its program. It shares the master's
/// memory, and asks for none.
pub(crate) fn start(start: &mut Option<Start>, client: BorrowedFd<'_>, pid: Option<Pid>) -> u8 {
    let Some(Start { desk, inherits, slot, argv, environ, places, born }) = start else {
        return SETUP_FAILED;
    };
    let (fds, count) = places.of(desk, client);
    let failure = match desk.begin((*inherits, *slot), &fds[..count], &[]) {
        Err(failure) => failure,
        Ok(()) => {
            desk.reports.send_as(pid, &Report::Ready(born.elapsed()));
            desk.execute(argv, environ)
        }
    };
    desk.reports.send_as(pid, &Report::Failed(failure));
    SETUP_FAILED
}

impl Places {
    /// What a program has at 0, 1, 2 and 3, and how many of them.
    fn of<'a>(self, desk: &'a Desk, client: BorrowedFd<'a>) -> ([BorrowedFd<'a>; 4], usize) {
        let errors = match self.stderr {
            Stderr::Log => desk.log(),
            Stderr::Socket => client,
            Stderr::Null => desk.null.as_fd(),
        };
        match self.sockets {
            Sockets::InAndOut => ([client, client, errors, client], 3),
            Sockets::Third => ([desk.null.as_fd(), desk.log(), errors, client], 4),
        }
    }
}

/// The programs of the rules that name one.
///
/// # Errors
/// Which of them is none.
pub(crate) fn variants(rules: &Rules) -> Result<BTreeMap<RuleId, Rc<Argv>>, String> {
    let mut variants = BTreeMap::new();
    for (who, rule) in rules.iter() {
        let id = rules.about(&who);
        if let Some((name, args)) = rule.exec.as_ref().and_then(|words| words.split_first()) {
            let other = Program::new(name, args)
                .map_err(|why| format!("the rule for {who} (line {}): {why}", rule.line))?;
            variants.extend(id.map(|id| (id, other.argv)));
        }
    }
    Ok(variants)
}

impl Service for Program {
    fn prepare(&mut self, client: &Client<'_>, rule: Option<(RuleId, &Rule)>) {
        self.environ.reset();
        self.variant = rule.map(|(id, _)| id);
        if let Some(describe) = &mut self.describe {
            describe(&mut Variables(&mut self.environ), client);
        }
        for (name, value) in rule.iter().flat_map(|(_, rule)| &rule.env) {
            self.environ.put_over(name, value);
        }
        self.environ.seal();
    }

    fn obey(&mut self, rules: &Rules) -> Result<(), String> {
        self.variants = variants(rules)?;
        Ok(())
    }

    fn start(&self) -> Option<Become<'_>> {
        Some(Become { argv: self.chosen(), environ: &self.environ, places: self.places })
    }

    fn serve(
        &mut self,
        desk: &Desk,
        place: &Place<'_>,
        client: BorrowedFd<'_>,
        birth: &mut Birth,
    ) -> Failure {
        let (fds, count) = self.places.of(desk, client);
        let line = birth.line.as_ref().map(|line| [line.as_fd(), client]);
        if let Err(failure) =
            desk.begin((birth.inherits, birth.slot), &fds[..count], line.as_ref().map_or(&[], |both| both))
        {
            return failure;
        }
        if let Some(line) = &birth.line {
            let known = match introduce(client, line.as_fd(), place.timeout, (&birth.peer, &birth.local)) {
                Err(why) => return Step::Introduction.failed()(why),
                Ok(known) => known,
            };
            tell_signs(desk, place, client);
            let rule = place.rules.and_then(|rules| rules.of(&known.peer));
            let client = Client {
                peer: &known.peer,
                local: &known.local,
                transport: place.transport,
                from_same: known.from_same,
                cookie: socket::cookie(client).unwrap_or(0),
                via: Some(&birth.peer),
                header: Some(&known.header),
            };
            self.prepare(&client, rule);
            // Who the client is takes memory, which this process has of its own; from here to exec nothing does.
            tine_os::fork::counts_anew();
        }
        desk.reports.send(&Report::Ready(birth.born.elapsed()));
        self.execute(desk)
    }

    fn park(&mut self, desk: &Desk, rules: &Rules, bed: Bed) -> Failure {
        let null = desk.null.as_fd();
        // Where the client is to be there is nothing yet.
        let errors = if self.places.stderr == Stderr::Log { desk.log() } else { null };
        let in_and_out = [null, null, errors];
        let third = [null, desk.log(), errors, null];
        let fds: &[_] = match self.places.sockets {
            Sockets::InAndOut => &in_and_out,
            Sockets::Third => &third,
        };
        // Their numbers are closed with all others when the client has been placed, and must not be closed again.
        let bed = ManuallyDrop::new(bed);
        let entered = bed.enter(desk, fds).map(|()| self.rehearse(rules));
        let (client, told) = match entered.and_then(|()| bed.wait()) {
            Ok((client, told)) => (ManuallyDrop::new(client), told),
            Err(failure) => return failure,
        };
        self.prepare(&told.client(), rules.of(&told.peer));
        // Taking down who the client is asks for memory, which it may in a process with memory of its own. From here to exec
        // nothing does.
        tine_os::fork::counts_anew();
        let [input, output, errors] = fd::standard();
        let errors = if self.places.stderr == Stderr::Socket { client.as_fd() } else { errors };
        let in_and_out = [client.as_fd(), client.as_fd(), errors];
        let third = [input, output, errors, client.as_fd()];
        let fds: &[_] = match self.places.sockets {
            Sockets::InAndOut => &in_and_out,
            Sockets::Third => &third,
        };
        match desk.place(fds) {
            Ok(()) => self.execute(desk),
            Err(failure) => failure,
        }
    }
}

impl Program {
    /// What is executed for this client: the rule that holds for it may name another program.
    fn chosen(&self) -> &Rc<Argv> {
        self.variant.and_then(|id| self.variants.get(&id)).unwrap_or(&self.argv)
    }

    /// In a spare: does for nobody what it will do for its client. The memory that this takes is its own then, and the code is there:
    /// what a fork shares is copied page by page, and not while somebody waits.
    fn rehearse(&mut self, rules: &Rules) {
        let nobody = Handover::of_nobody();
        self.prepare(&nobody.client(), rules.of(&nobody.peer));
        drop(Rc::clone(self.chosen()));
    }

    /// In a child: becomes the program, or says why not.
    fn execute(&mut self, desk: &Desk) -> Failure {
        let argv = Rc::clone(self.chosen());
        desk.execute(&argv, &mut self.environ)
    }
}
