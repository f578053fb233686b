//! The template: a process of a service that wears what all its children give up, and that they are born from.
//!
//! To put a filter of system calls on takes as long as half a birth, a network namespace three; what is inherited takes nothing. So
//! there is one process, forked from the master, that has put on all that is common (`tine_confine::Prepared::wear`) and gives birth when
//! the master says so: to a sibling of itself (clone(2), CLONE_PARENT), which is the master's child like any other. The master accepts,
//! admits, waits and tells as ever; it holds no confinement, and so can change it, and itself, at any time.
//!
//! A template has no listener and no client but the one in its hand, which it closes when the child is born. It ends with its line.
//!
//! Where children are born into pid namespaces that are there ([`Cell`]), it goes into the one that the master names, as far as children are
//! concerned, and cannot come back. So new ones are made by a process that was forked from it before it has gone anywhere, the keeper.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tine_confine::{Failure, Step, Watch};
use tine_os::fork::exit;
use tine_os::namespace::{self, Namespaces};
use tine_os::seccomp::Key;
use tine_os::signal::{self, Signal};
use tine_os::socket::{self, Kind};
use tine_os::spawn::{Nursery, With};
use tine_os::wait::{self, wait_blocking};
use tine_os::{Pid, fd, init, pass};

use crate::life::admit::Rules;
use crate::life::fork::{Birth, Desk, SETUP_FAILED, fork};
use crate::life::serve::{Place, Service, Start, start};
use crate::life::tree::Orphans;
use crate::mode::cell::Cell;
use crate::mode::spare::{Bed, Handover};

/// A template, as the master knows it.
#[derive(Debug)]
pub(crate) struct Template {
    pub pid: Pid,
    /// The process that makes cells for it.
    pub keeper: Option<Pid>,
    line: OwnedFd,
    /// What both count time from.
    since: Instant,
    /// Where it is told, until somebody takes it, of calls that those are to be killed for who are born from it; if that can be had.
    pub watch: Option<Watch>,
}

/// What a template needs for its work.
pub(crate) struct Tools<'a> {
    pub desk: &'a Rc<Desk>,
    pub service: &'a mut dyn Service,
    pub rules: &'a Rules,
    /// Whether children become programs.
    pub programs: bool,
    /// What the master, and children that become no program, are called.
    pub name: CString,
    /// How many children may be on their way at once that share its memory until they are programs; 0: they are forked.
    pub cots: usize,
}

/// Who is to be born.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order<'a> {
    /// A child for this client, who comes with it.
    Client {
        told: &'a Handover,
        /// Whether a balancer is to be asked first, how long, and whether it is to tell of signs.
        asks: Option<(Duration, bool)>,
    },
    /// One that waits for so many clients.
    Spare { clients: usize },
}

/// What each birth has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Particulars {
    pub slot: u32,
    pub inherits: bool,
    pub born: Instant,
}

/// What came of an order.
#[derive(Debug)]
pub(crate) struct Told {
    pub child: io::Result<Pid>,
    /// One that was made for it.
    pub cell: Option<Cell>,
}

/// Where a child is born.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Birthplace<'a> {
    pub group: Option<BorrowedFd<'a>>,
    /// One that nobody is in, where it is to be born into one and there is one.
    pub cell: Option<&'a Cell>,
}

/// Kind, whether it inherits, whether there is a group and a cell, whether it tells of signs; slot; when, in nanoseconds; how many
/// clients, or how long a balancer has, in milliseconds; who, for a client.
const HEAD: usize = 4 + 4 + 8 + 8;
const LONGEST: usize = HEAD + Handover::LENGTH;
/// The longest that it says at first, with why it could not begin; before its words stand the step and the errno.
const WORDS: usize = 1024;
const HEADING: usize = 1 + 4;
/// EMFILE: errno(3).
const FULL: i32 = 24;
const CLIENT: u8 = 0;
const ASKING: u8 = 1;
const SPARE: u8 = 2;
const IN_GROUP: u8 = 1;
const IN_CELL: u8 = 2;

/// Two process ids: the child's, or a negative errno; and that of a new cell's first process, or 0.
const ANSWER: usize = 8;

impl Template {
    /// How long it may take to be born, or to begin as a template. It is a tenth of a millisecond.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

    /// Starts one, and waits until it wears what it is to wear. Gives a cell, where children are born into such.
    ///
    /// # Errors
    /// What kept it from that, in its own words.
    pub(crate) fn start(mut tools: Tools<'_>) -> io::Result<(Template, Option<Cell>)> {
        let (line, theirs) = socket::pair(Kind::Packet)?;
        let theirs = fd::duplicate_low(theirs)?;
        let since = Instant::now();
        let desk = tools.desk;
        let pid = fork(desk, With::default(), |_| tools.begin(&theirs, since))?;
        drop(theirs);
        let mut template = Template { pid, keeper: None, line, since, watch: None };
        let (mut words, mut fds) = ([0; WORDS], Vec::new());
        let mut others = Vec::new();
        let why = match template.hear(&mut words, &mut fds) {
            Ok(length @ BEGUN..) => {
                let number = |at: usize| i32::from_ne_bytes(std::array::from_fn(|i| words[at + i]));
                template.keeper = Pid::from_raw(number(1));
                let cell = template.cell(Pid::from_raw(number(5)), &mut fds);
                template.watch = fds.pop().map(Watch::from);
                if words[0] == 0 {
                    return Ok((template, cell));
                }
                // Nobody is there yet.
                others.extend(cell.map(|cell| cell.init));
                others.iter().for_each(|init| _ = signal::send(*init, Signal::KILL));
                io::Error::other(told(&words[BEGUN..length]))
            }
            Ok(_) => io::Error::other("it ended before it said why"),
            Err(why) => why,
        };
        // It may be ready by now, and nobody knows.
        template.end();
        others.into_iter().for_each(|pid| _ = wait_blocking(pid));
        Err(why)
    }

    /// Asks for a birth. It is told of by [`Template::hear_birth`], in the order in which they were asked for, and the child is ours.
    ///
    /// # Errors
    /// As [`Template::hear_birth`]; EMFILE.
    pub(crate) fn order(
        &self,
        order: Order<'_>,
        with: Particulars,
        fds: &[BorrowedFd<'_>],
        place: Birthplace<'_>,
    ) -> io::Result<()> {
        let opened = match place.cell {
            Some(Cell { inside: None, init, .. }) => Some(wait::open(*init)?),
            _ => None,
        };
        let inside = place.cell.and_then(|cell| cell.inside.as_ref()).or(opened.as_ref());
        let marks = place.group.map_or(0, |_| IN_GROUP) | inside.map_or(0, |_| IN_CELL);
        let (bytes, length) = self.message(order, with, marks)?;
        let (mut all, mut count) = ([self.line.as_fd(); 4], 0);
        for fd in fds.iter().copied().chain(place.group).chain(inside.map(AsFd::as_fd)) {
            all[count] = fd;
            count += 1;
        }
        pass::send(&self.line, &bytes[..length], &all[..count])
    }

    /// The next child that was asked for, or why it was not born; `None` when that is not known yet, which it always is to whoever
    /// `waits`.
    ///
    /// # Errors
    /// The template is gone or does not answer: there is to be another one.
    pub(crate) fn hear_birth(&self, waits: bool) -> io::Result<Option<Told>> {
        let (mut answer, mut fds) = ([0; ANSWER], Vec::new());
        let length = match waits {
            true => self.hear(&mut answer, &mut fds)?,
            false => match pass::receive(&self.line, &mut answer, &mut fds) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                other => other?,
            },
        };
        if length != ANSWER {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let number = |at: usize| i32::from_ne_bytes(std::array::from_fn(|i| answer[at + i]));
        let child = match number(0) {
            errno @ ..0 => Err(unborn(io::Error::from_raw_os_error(-errno))),
            pid => Pid::from_raw(pid).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        };
        Ok(Some(Told { child, cell: self.cell(Pid::from_raw(number(4)), &mut fds) }))
    }

    /// One that was made; its descriptor comes first, and may have found no room here.
    fn cell(&self, init: Option<Pid>, fds: &mut Vec<OwnedFd>) -> Option<Cell> {
        let init = init?;
        let inside = if fds.is_empty() { None } else { Some(fds.remove(0)) };
        Some(Cell { init, of: self.pid, inside })
    }

    /// A birth that is waited for, when none is being waited for.
    ///
    /// # Errors
    /// As [`Template::hear_birth`].
    pub(crate) fn bear(
        &self,
        order: Order<'_>,
        with: Particulars,
        fds: &[BorrowedFd<'_>],
        place: Birthplace<'_>,
    ) -> io::Result<Told> {
        self.order(order, with, fds, place)?;
        match self.hear_birth(true) {
            Ok(birth) => birth.ok_or_else(|| io::ErrorKind::WouldBlock.into()),
            // What it says next is of this birth, and would be taken for that of another.
            Err(why) => Err(io::Error::new(io::ErrorKind::BrokenPipe, tine_os::plain(&why))),
        }
    }

    /// It is not needed any more: it is gone, and was waited for, when this returns.
    pub(crate) fn end(self) {
        let both = [Some(self.pid), self.keeper];
        self.dismiss(None);
        // If it was waited for before, that is what was wanted.
        both.into_iter().flatten().for_each(|pid| _ = wait_blocking(pid));
    }

    /// It is not needed any more, or not fit; its death is heard of like any other. One of the two may have been waited for already.
    pub(crate) fn dismiss(self, dead: Option<Pid>) {
        let Template { pid, keeper, line, .. } = self;
        drop(line);
        // They have nothing to finish.
        let both = [Some(pid), keeper].into_iter().flatten().filter(|pid| Some(*pid) != dead);
        both.for_each(|pid| _ = signal::send(pid, Signal::KILL));
    }

    pub(crate) fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// Whether it is this one, or its keeper.
    pub(crate) fn is(&self, pid: Pid) -> bool {
        self.pid == pid || self.keeper == Some(pid)
    }

    fn hear(&self, words: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let until = Instant::now() + Template::PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the template does not answer; has somebody stopped it?",
                ));
            }
            match pass::receive_within(&self.line, words, fds, left) {
                Err(why) if matches!(why.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                other => return other,
            }
        }
    }

    fn message(&self, order: Order<'_>, with: Particulars, marks: u8) -> io::Result<([u8; LONGEST], usize)> {
        let mut bytes = [0; LONGEST];
        let (kind, number, signs, told) = match order {
            Order::Client { told, asks: None } => (CLIENT, 0, false, Some(told)),
            Order::Client { told, asks: Some((timeout, signs)) } => {
                (ASKING, timeout.as_millis() as u64, signs, Some(told))
            }
            Order::Spare { clients } => (SPARE, clients as u64, false, None),
        };
        bytes[..4].copy_from_slice(&[kind, with.inherits.into(), marks, signs.into()]);
        bytes[4..8].copy_from_slice(&with.slot.to_ne_bytes());
        let born = with.born.saturating_duration_since(self.since).as_nanos() as u64;
        bytes[8..16].copy_from_slice(&born.to_ne_bytes());
        bytes[16..24].copy_from_slice(&number.to_ne_bytes());
        let length = match told {
            Some(told) => {
                bytes[HEAD..].copy_from_slice(&told.to_bytes()?);
                LONGEST
            }
            None => HEAD,
        };
        Ok((bytes, length))
    }
}

/// How long the first message is: whether it can begin, and an answer; then why not.
const BEGUN: usize = 1 + ANSWER;

/// What a template works with.
struct Outfit {
    watch: Option<Watch>,
    nursery: Option<Nursery<Option<Start>>>,
    key: Key,
    /// On which cells are asked for.
    keeper: Option<OwnedFd>,
}

/// A cell that was just made: its first process, and the same for setns(2).
struct Made {
    init: Pid,
    inside: OwnedFd,
}

/// Why a template could not begin, with what to do where it is known: here, for in a user namespace of its own it sees other settings.
fn told(words: &[u8]) -> String {
    let (heading, text) = words.split_at(HEADING.min(words.len()));
    let text = String::from_utf8_lossy(text);
    let text = text.split(" (os error").next().unwrap_or_default();
    match Some(heading).filter(|heading| heading.len() == HEADING).and_then(|all| Step::from_number(all[0])) {
        Some(Step::Users | Step::Namespaces) => {
            let why =
                io::Error::from_raw_os_error(i32::from_ne_bytes(std::array::from_fn(|i| heading[1 + i])));
            format!("{text} (it takes: {})", tine_os::namespace::advice(&why))
        }
        _ => text.to_owned(),
    }
}

/// Why a child was not born; at a limit on namespaces also which, for nobody would think of those.
fn unborn(why: io::Error) -> io::Error {
    match why.kind() {
        io::ErrorKind::StorageFull => {
            let advice = tine_os::namespace::advice(&why);
            io::Error::new(why.kind(), format!("{} (it takes: {advice})", tine_os::plain(&why)))
        }
        _ => why,
    }
}

impl Tools<'_> {
    /// In the template: lets go of the master's, puts on what is common, and gives birth until the line breaks.
    fn begin(&mut self, line: &OwnedFd, since: Instant) -> Failure {
        let (mut keeper, mut cell) = (None, None);
        let (said, ready) = match self.make_ready(line, &mut keeper, &mut cell) {
            Ok(outfit) => (Vec::new(), Some(outfit)),
            Err(failure) => {
                let errno = failure.error.raw_os_error().unwrap_or(0).to_ne_bytes();
                let said = [&[failure.step as u8], &errno[..], failure.to_string().as_bytes()].concat();
                (said, None)
            }
        };
        let number = |pid: Option<Pid>| pid.map_or(0, Pid::as_raw).to_ne_bytes();
        let who = [number(keeper), number(cell.as_ref().map(|cell: &Made| cell.init))].concat();
        let words = [&[u8::from(ready.is_none())], &who[..], &said].concat();
        let fds = cell.iter().map(|cell| cell.inside.as_fd());
        let fds: Vec<_> = fds.chain(ready.iter().flat_map(|outfit| &outfit.watch).map(AsFd::as_fd)).collect();
        let sent = pass::send(line, &words[..words.len().min(WORDS)], &fds);
        let Some(mut outfit) = ready else { exit(SETUP_FAILED) };
        if sent.is_err() {
            exit(0);
        }
        // Before anybody is born: whoever has it could let calls be done that it is to be killed for.
        outfit.watch = None;
        drop(cell);
        self.work(line, since, outfit)
    }

    fn make_ready(
        &mut self,
        line: &OwnedFd,
        keeper: &mut Option<Pid>,
        cell: &mut Option<Made>,
    ) -> Result<Outfit, Failure> {
        self.name = tine_os::fork::name().unwrap_or_default();
        tine_os::fork::set_name(c"tine-template");
        // What a terminal sends is for the master.
        tine_os::fork::new_session().map_err(Step::Session.failed())?;
        let desk = self.desk;
        let mut kept = vec![line.as_raw_fd(), desk.null.as_raw_fd(), desk.log.as_raw_fd()];
        kept.extend(desk.child_ends());
        kept.extend([&desk.init, &desk.alive].into_iter().flatten().map(AsRawFd::as_raw_fd));
        kept.sort_unstable();
        // Whoever reads the master's standard output sees its end when the master says so.
        let null = desk.null.as_fd();
        fd::place(&[null, null, desk.log()], &kept).map_err(Step::Descriptors.failed())?;
        // Tried before the filter is on: where there is none, children are forked.
        let nursery = if self.cots > 0 { Nursery::new(self.cots, || None).ok() } else { None };
        // Whoever is forked here is a child, or the keeper, which has a crib.
        nursery.iter().for_each(Nursery::keep_from_forks);
        let crib = desk.init.as_ref().map(|_| Nursery::new(1, || None).ok());
        let (key, watch) = desk.plan.wear_watched(self.programs)?;
        let mut outfit = Outfit { nursery, key, keeper: None, watch };
        if let Some(crib) = crib {
            let (ours, theirs) = socket::pair(Kind::Packet)
                .and_then(|(ours, theirs)| Ok((fd::duplicate_low(ours)?, fd::duplicate_low(theirs)?)))
                .map_err(Step::Namespaces.failed())?;
            // The master waits for it, as for all that are born from a template.
            let with = With { sibling: true, ..With::default() };
            let born = fork(desk, with, |_| keep(desk, &theirs, crib));
            *keeper = Some(born.map_err(Step::Namespaces.failed())?);
            let made = ask(&ours).map_err(Step::Namespaces.failed())?;
            namespace::join(made.inside.as_fd(), desk.plan.own_namespaces_to_use_again(), key)
                .map_err(Step::Namespaces.failed())?;
            (*cell, outfit.keeper) = (Some(made), Some(ours));
        }
        self.try_out(&outfit)?;
        Ok(outfit)
    }

    /// Whether a child can enter what it is to enter: tried now, what does not work is told to the operator and not to a client.
    fn try_out(&self, outfit: &Outfit) -> Result<(), Failure> {
        let (hear, tell) = fd::pipe()
            .and_then(|(hear, tell)| Ok((hear, fd::duplicate_low(tell)?)))
            .map_err(Step::Descriptors.failed())?;
        let desk = self.desk;
        let with = With { namespaces: outfit.own_namespaces(desk), ..With::default() };
        let child = fork(desk, with, |desk| {
            let null = desk.null.as_fd();
            let failure = match desk.enter(0, &[null, null, desk.log()], &[tell.as_fd()]) {
                Ok(()) => exit(0),
                Err(failure) => failure,
            };
            let errno = failure.error.raw_os_error().unwrap_or(0);
            let _ = fd::write(&tell, &[&[failure.step as u8][..], &errno.to_ne_bytes()].concat());
            exit(SETUP_FAILED)
        });
        let ended = child.and_then(wait_blocking).map_err(Step::Namespaces.failed())?;
        if ended.code() == Some(0) {
            return Ok(());
        }
        let mut said = [0; 5];
        let step = match fd::read(&hear, &mut said) {
            Ok(5) => Step::from_number(said[0]),
            _ => None,
        };
        let errno = i32::from_ne_bytes([said[1], said[2], said[3], said[4]]);
        Err(step.unwrap_or(Step::Domain).failed()(io::Error::from_raw_os_error(errno)))
    }

    fn work(&mut self, line: &OwnedFd, since: Instant, mut outfit: Outfit) -> ! {
        let mut fds = Vec::with_capacity(4);
        loop {
            let mut bytes = [0; LONGEST];
            let length = match pass::await_one(line, &mut bytes, &mut fds) {
                Ok(length @ HEAD..) => length,
                _ => exit(0),
            };
            let mut cell = None;
            let child = match self.obey(&bytes[..length], &mut fds, since, &mut outfit, &mut cell) {
                Ok(pid) => pid.as_raw(),
                Err(why) => -why.raw_os_error().unwrap_or(5),
            };
            // Before the answer: the client is to see the end when its child ends.
            fds.clear();
            let init = cell.as_ref().map_or(0, |cell| cell.init.as_raw());
            let mut answer = [0; ANSWER];
            answer[..4].copy_from_slice(&child.to_ne_bytes());
            answer[4..].copy_from_slice(&init.to_ne_bytes());
            let inside = cell.as_ref().map(|cell| [cell.inside.as_fd()]);
            if pass::send(line, &answer, inside.as_ref().map_or(&[], |fds| fds)).is_err() {
                exit(0);
            }
        }
    }

    /// One birth; `cell` is where it was, if it was made for it.
    fn obey(
        &mut self,
        bytes: &[u8],
        fds: &mut Vec<OwnedFd>,
        since: Instant,
        outfit: &mut Outfit,
        cell: &mut Option<Made>,
    ) -> io::Result<Pid> {
        let nonsense = || io::Error::from(io::ErrorKind::InvalidData);
        let number = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        let [kind, inherits, marks, signs] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let (inherits, signs) = (inherits != 0, signs != 0);
        let slot = u32::from_ne_bytes(std::array::from_fn(|i| bytes[4 + i]));
        let born = since + Duration::from_nanos(number(8));
        let awaited = usize::from(kind == ASKING)
            + [IN_GROUP, IN_CELL].map(|mark| usize::from(marks & mark != 0)).iter().sum::<usize>();
        if fds.len() < 1 + awaited {
            // They came, and there was no room for them: unix(7), SCM_RIGHTS.
            return Err(io::Error::from_raw_os_error(FULL));
        }
        let inside = if marks & IN_CELL != 0 { fds.pop() } else { None };
        let group = if marks & IN_GROUP != 0 { fds.pop() } else { None };
        if let Some(keeper) = &outfit.keeper {
            let inside = match &inside {
                Some(inside) => inside,
                None => &cell.insert(ask(keeper)?).inside,
            };
            namespace::join(inside.as_fd(), self.desk.plan.own_namespaces_to_use_again(), outfit.key)?;
        }
        // It is no child's.
        drop(inside);
        let desk = self.desk;
        let (namespaces, key) = (outfit.own_namespaces(desk), outfit.key);
        let with =
            With { group: group.as_ref().map(AsFd::as_fd), namespaces, sibling: true, pidfd: false, key };
        let [first, others @ ..] = &fds[..] else { return Err(nonsense()) };
        if kind == SPARE {
            // The child's copy of the line is the child's to close.
            let theirs = ManuallyDrop::new(fd::duplicate_low(first)?);
            let bed = Bed::new(ManuallyDrop::into_inner(theirs), (inherits, slot), born, number(16) as usize);
            let (service, rules, name) = (&mut *self.service, self.rules, &self.name);
            return fork(desk, with, move |desk| {
                tine_os::fork::set_name(name);
                service.park(desk, rules, bed)
            });
        }
        let told = bytes.get(HEAD..).and_then(Handover::from_bytes).ok_or_else(nonsense)?;
        let asks = (kind == ASKING).then(|| Duration::from_millis(number(16)));
        if asks.is_none() {
            let rule = self.rules.of(&told.peer);
            self.service.prepare(&told.client(), rule);
        }
        let cot = match (self.service.start().filter(|_| asks.is_none()), outfit.nursery.as_mut()) {
            // Where nobody gets on, a fork does the same.
            (Some(becomes), Some(nursery)) => nursery.cot().ok().map(|mut cot| {
                becomes.lay_out(cot.what(), desk, (inherits, slot), born);
                cot
            }),
            _ => None,
        };
        if let Some(cot) = cot {
            return cot.bear(first.as_fd(), with, start).map(|newborn| newborn.pid);
        }
        let line = others.first().map(fd::duplicate_low).transpose()?;
        let place = Place {
            transport: told.transport,
            rules: asks.map(|_| self.rules),
            timeout: asks.unwrap_or_default(),
            signs,
        };
        let mut birth = Birth { peer: told.peer, local: told.local, inherits, slot, line, born };
        let (service, name) = (&mut *self.service, &self.name);
        fork(desk, with, |desk| {
            tine_os::fork::set_name(name);
            service.serve(desk, &place, first.as_fd(), &mut birth)
        })
    }
}

impl Outfit {
    /// What each child is to be born with.
    fn own_namespaces(&self, desk: &Desk) -> Namespaces {
        let own = desk.plan.own_namespaces();
        if self.keeper.is_some() { own.without(desk.plan.own_namespaces_to_use_again()) } else { own }
    }
}

/// In the template: has the keeper make a cell.
fn ask(keeper: &OwnedFd) -> io::Result<Made> {
    pass::send(keeper, &[0], &[])?;
    let (mut answer, mut fds) = ([0; 4], Vec::with_capacity(1));
    if pass::await_one(keeper, &mut answer, &mut fds)? != 4 {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe));
    }
    match (i32::from_ne_bytes(answer), fds.pop()) {
        (errno @ ..0, _) => Err(io::Error::from_raw_os_error(-errno)),
        (pid, Some(inside)) => {
            let init = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
            Ok(Made { init, inside })
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What the keeper calls itself.
pub(crate) const KEEPER: &CStr = c"tine-keeper";

/// In the keeper: makes cells until its line breaks.
fn keep(desk: &Rc<Desk>, line: &OwnedFd, mut crib: Option<Nursery<Option<First>>>) -> Failure {
    tine_os::fork::set_name(KEEPER);
    let Some((init, alive)) = desk.init.as_ref().zip(desk.alive.as_ref()) else { exit(0) };
    let mut kept = [line.as_raw_fd(), init.as_raw_fd(), alive.as_raw_fd()];
    kept.sort_unstable();
    let null = desk.null.as_fd();
    if let Err(why) = fd::place(&[null, null, desk.log()], &kept) {
        return Step::Descriptors.failed()(why);
    }
    loop {
        let Ok(1) = pass::await_one(line, &mut [0], &mut Vec::new()) else { exit(0) };
        let told = match born_first(desk, crib.as_mut(), alive.as_fd()) {
            Ok((pid, inside)) => pass::send(line, &pid.as_raw().to_ne_bytes(), &[inside.as_fd()]),
            Err(why) => pass::send(line, &(-why.raw_os_error().unwrap_or(5)).to_ne_bytes(), &[]),
        };
        if told.is_err() {
            exit(0);
        }
    }
}

/// What the first process of a cell needs, and why it could not become that.
struct First {
    desk: Rc<Desk>,
    failed: Option<i32>,
}

/// In the keeper: a process is born that keeps a namespace, as long as the master is `alive`.
fn born_first(
    desk: &Rc<Desk>,
    crib: Option<&mut Nursery<Option<First>>>,
    alive: BorrowedFd<'_>,
) -> io::Result<(Pid, OwnedFd)> {
    let with = With { namespaces: desk.plan.own_namespaces_to_use_again(), sibling: true, ..With::default() };
    if let Some(crib) = crib {
        let mut cot = crib.cot()?;
        *cot.what() = Some(First { desk: Rc::clone(desk), failed: None });
        let born = cot.bear(alive, With { pidfd: true, ..with }, become_init)?;
        // It is here until it is what it is to be. Who is born beside one that cannot be that would end with it.
        if let Some(errno) = crib.cot()?.what().as_ref().and_then(|first| first.failed) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        return born.pidfd.map(|pidfd| (born.pid, pidfd)).ok_or_else(|| io::ErrorKind::NotFound.into());
    }
    let pid = fork(desk, with, |_| {
        exit(become_init(&mut Some(First { desk: Rc::clone(desk), failed: None }), alive, None))
    })?;
    Ok((pid, wait::open(pid)?))
}

/// In the first process of a cell; comes back only when it cannot be that. It shares the keeper's memory, and asks for none.
fn become_init(first: &mut Option<First>, alive: BorrowedFd<'_>, _: Option<Pid>) -> u8 {
    if let Some(First { desk, failed }) = first
        && let Some(init) = &desk.init
    {
        let placed = fd::place(&[alive], &[init.as_raw_fd()])
            .and_then(|()| desk.plan.keep().map_err(|failure| failure.error));
        let why = placed.err().unwrap_or_else(|| init::execute(init, desk.orphans == Orphans::Die));
        *failed = Some(why.raw_os_error().unwrap_or(5));
    }
    SETUP_FAILED
}
