//! The template: a process of a service that wears what all its children give up, and that they are born from.
//!
//! To put a filter of system calls on takes as long as half a birth, a network namespace three; what is inherited takes nothing. So
//! there is one process, forked from the master, that has put on all that is common (`tine_confine::Prepared::wear`) and gives birth when
//! the master says so: to a sibling of itself (clone(2), CLONE_PARENT), which is the master's child like any other. The master accepts,
//! admits, waits and tells as ever; it holds no confinement, and so can change it, and itself, at any time.
//!
//! A template has no listener and no client but the one in its hand, which it closes when the child is born. It ends with its line.

use std::ffi::CString;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tine_confine::{Failure, Step};
use tine_os::fork::exit;
use tine_os::signal::{self, Signal};
use tine_os::socket::{self, Kind};
use tine_os::spawn::{Nursery, With};
use tine_os::wait::wait_blocking;
use tine_os::{Pid, fd, pass};

use crate::life::admit::Rules;
use crate::life::fork::{Birth, Desk, SETUP_FAILED, fork};
use crate::life::serve::{Place, Service, Start, start};
use crate::mode::spare::{Bed, Handover};

/// A template, as the master knows it.
#[derive(Debug)]
pub(crate) struct Template {
    pub pid: Pid,
    line: OwnedFd,
    /// What both count time from.
    since: Instant,
}

/// What a template needs for its work.
pub(crate) struct Tools<'a> {
    pub desk: &'a Rc<Desk>,
    pub service: &'a mut dyn Service,
    pub rules: &'a Rules,
    /// Whether children are born in control groups.
    pub groups: bool,
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

/// Kind, whether it inherits, whether there is a group, whether it tells of signs; slot; when, in nanoseconds; how many clients, or how
/// long a balancer has, in milliseconds; who, for a client.
const HEAD: usize = 4 + 4 + 8 + 8;
const LONGEST: usize = HEAD + Handover::LENGTH;
/// The longest that it says of why it could not begin; before that stand a 1, the step and the errno.
const WORDS: usize = 1024;
const HEADING: usize = 2 + 4;
/// EMFILE: errno(3).
const FULL: i32 = 24;
const CLIENT: u8 = 0;
const ASKING: u8 = 1;
const SPARE: u8 = 2;

impl Template {
    /// How long it may take to be born, or to begin as a template. It is a tenth of a millisecond.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

    /// Starts one, and waits until it wears what it is to wear.
    ///
    /// # Errors
    /// What kept it from that, in its own words.
    pub(crate) fn start(mut tools: Tools<'_>) -> io::Result<Template> {
        let (line, theirs) = socket::pair(Kind::Packet)?;
        let theirs = fd::duplicate_low(theirs)?;
        let since = Instant::now();
        let desk = tools.desk;
        let pid = fork(desk, With::default(), |_| tools.begin(&theirs, since))?;
        drop(theirs);
        let template = Template { pid, line, since };
        let mut words = [0; WORDS];
        let why = match template.hear(&mut words) {
            Ok(1..) if words[0] == 0 => return Ok(template),
            Ok(length @ HEADING..) => io::Error::other(told(&words[..length])),
            Ok(_) => io::Error::other("it ended before it said why"),
            Err(why) => why,
        };
        // It may be ready by now, and nobody knows.
        template.end();
        Err(why)
    }

    /// Asks for a birth. It is told of by [`Template::hear_birth`], in the order in which they were asked for, and the child is ours.
    ///
    /// # Errors
    /// As [`Template::hear_birth`].
    pub(crate) fn order(
        &self,
        order: Order<'_>,
        with: Particulars,
        fds: &[BorrowedFd<'_>],
        group: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let (bytes, length) = self.message(order, with, group.is_some())?;
        let (mut all, mut count) = ([self.line.as_fd(); 3], 0);
        for fd in fds.iter().copied().chain(group) {
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
    pub(crate) fn hear_birth(&self, waits: bool) -> io::Result<Option<io::Result<Pid>>> {
        let mut answer = [0; 4];
        let length = match waits {
            true => self.hear(&mut answer)?,
            false => match pass::receive(&self.line, &mut answer, &mut Vec::new()) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                other => other?,
            },
        };
        if length != 4 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(Some(match i32::from_ne_bytes(answer) {
            errno @ ..0 => Err(unborn(io::Error::from_raw_os_error(-errno))),
            pid => Pid::from_raw(pid).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        }))
    }

    /// A birth that is waited for, when none is being waited for.
    ///
    /// # Errors
    /// What the kernel said to it, or as [`Template::hear_birth`].
    pub(crate) fn bear(
        &self,
        order: Order<'_>,
        with: Particulars,
        fds: &[BorrowedFd<'_>],
        group: Option<BorrowedFd<'_>>,
    ) -> io::Result<Pid> {
        self.order(order, with, fds, group)?;
        match self.hear_birth(true) {
            Ok(birth) => birth.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into())),
            // What it says next is of this birth, and would be taken for that of another.
            Err(why) => Err(io::Error::new(io::ErrorKind::BrokenPipe, tine_os::plain(&why))),
        }
    }

    /// It is not needed any more: it is gone, and was waited for, when this returns.
    pub(crate) fn end(self) {
        let pid = self.pid;
        self.dismiss();
        // If it was waited for before, that is what was wanted.
        let _ = wait_blocking(pid);
    }

    /// It is not needed any more, or not fit; its death is heard of like any other.
    pub(crate) fn dismiss(self) {
        let Template { pid, line, .. } = self;
        drop(line);
        // It has nothing to finish.
        let _ = signal::send(pid, Signal::KILL);
    }

    pub(crate) fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    fn hear(&self, words: &mut [u8]) -> io::Result<usize> {
        let until = Instant::now() + Template::PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the template does not answer; has somebody stopped it?",
                ));
            }
            match pass::receive_within(&self.line, words, left) {
                Err(why) if matches!(why.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                other => return other,
            }
        }
    }

    fn message(
        &self,
        order: Order<'_>,
        with: Particulars,
        group: bool,
    ) -> io::Result<([u8; LONGEST], usize)> {
        let mut bytes = [0; LONGEST];
        let (kind, number, signs, told) = match order {
            Order::Client { told, asks: None } => (CLIENT, 0, false, Some(told)),
            Order::Client { told, asks: Some((timeout, signs)) } => {
                (ASKING, timeout.as_millis() as u64, signs, Some(told))
            }
            Order::Spare { clients } => (SPARE, clients as u64, false, None),
        };
        bytes[..4].copy_from_slice(&[kind, with.inherits.into(), group.into(), signs.into()]);
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

/// Why a template could not begin, with what to do where it is known: here, for in a user namespace of its own it sees other settings.
fn told(words: &[u8]) -> String {
    let (heading, text) = words.split_at(HEADING);
    let text = String::from_utf8_lossy(text);
    let text = text.split(" (os error").next().unwrap_or_default();
    match Step::from_number(heading[1]) {
        Some(Step::Users | Step::Namespaces) => {
            let why =
                io::Error::from_raw_os_error(i32::from_ne_bytes(std::array::from_fn(|i| heading[2 + i])));
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
        let nursery = match self.make_ready(line) {
            Ok(nursery) => nursery,
            Err(failure) => {
                let errno = failure.error.raw_os_error().unwrap_or(0).to_ne_bytes();
                let heading = [&[1, failure.step as u8], &errno[..]].concat();
                let words = [&heading, failure.to_string().as_bytes()].concat();
                let _ = pass::send(line, &words[..words.len().min(WORDS)], &[]);
                exit(SETUP_FAILED)
            }
        };
        if pass::send(line, &[0], &[]).is_err() {
            exit(0);
        }
        self.work(line, since, nursery)
    }

    fn make_ready(&mut self, line: &OwnedFd) -> Result<Option<Nursery<Option<Start>>>, Failure> {
        self.name = tine_os::fork::name().unwrap_or_default();
        tine_os::fork::set_name(c"tine-template");
        // What a terminal sends is for the master.
        tine_os::fork::new_session().map_err(Step::Session.failed())?;
        let desk = self.desk;
        let mut kept = vec![line.as_raw_fd(), desk.null.as_raw_fd(), desk.log.as_raw_fd()];
        kept.extend(desk.child_ends());
        kept.sort_unstable();
        // Whoever reads the master's standard output sees its end when the master says so.
        let null = desk.null.as_fd();
        fd::place(&[null, null, desk.log()], &kept).map_err(Step::Descriptors.failed())?;
        // Tried before the filter is on: where there is none, children are forked.
        let nursery = if self.cots > 0 { Nursery::new(self.cots, || None).ok() } else { None };
        desk.plan.wear(self.groups)?;
        self.try_out()?;
        Ok(nursery)
    }

    /// Whether a child can enter what it is to enter: tried now, what does not work is told to the operator and not to a client.
    fn try_out(&self) -> Result<(), Failure> {
        let (hear, tell) = fd::pipe()
            .and_then(|(hear, tell)| Ok((hear, fd::duplicate_low(tell)?)))
            .map_err(Step::Descriptors.failed())?;
        let desk = self.desk;
        let with = With { namespaces: desk.plan.own_namespaces(), ..With::default() };
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

    fn work(&mut self, line: &OwnedFd, since: Instant, mut nursery: Option<Nursery<Option<Start>>>) -> ! {
        let mut fds = Vec::with_capacity(4);
        loop {
            let mut bytes = [0; LONGEST];
            let length = match pass::await_one(line, &mut bytes, &mut fds) {
                Ok(length @ HEAD..) => length,
                _ => exit(0),
            };
            let answer = match self.obey(&bytes[..length], &fds, since, nursery.as_mut()) {
                Ok(pid) => pid.as_raw(),
                Err(why) => -why.raw_os_error().unwrap_or(5),
            };
            // Before the answer: the client is to see the end when its child ends.
            fds.clear();
            if pass::send(line, &answer.to_ne_bytes(), &[]).is_err() {
                exit(0);
            }
        }
    }

    /// One birth.
    fn obey(
        &mut self,
        bytes: &[u8],
        fds: &[OwnedFd],
        since: Instant,
        nursery: Option<&mut Nursery<Option<Start>>>,
    ) -> io::Result<Pid> {
        let nonsense = || io::Error::from(io::ErrorKind::InvalidData);
        let number = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        let [kind, inherits, grouped, signs] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let (inherits, grouped, signs) = (inherits != 0, grouped != 0, signs != 0);
        let slot = u32::from_ne_bytes(std::array::from_fn(|i| bytes[4 + i]));
        let born = since + Duration::from_nanos(number(8));
        if fds.len() < 1 + usize::from(kind == ASKING) + usize::from(grouped) {
            // They came, and there was no room for them: unix(7), SCM_RIGHTS.
            return Err(io::Error::from_raw_os_error(FULL));
        }
        let (group, fds) = match fds.split_last() {
            Some((group, others)) if grouped => (Some(group.as_fd()), others),
            _ => (None, fds),
        };
        let desk = self.desk;
        let with = With { group, namespaces: desk.plan.own_namespaces(), sibling: true, pidfd: false };
        let [first, others @ ..] = fds else { return Err(nonsense()) };
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
        let cot = match (self.service.start().filter(|_| asks.is_none()), nursery) {
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
