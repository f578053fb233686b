//! Death: learning which child died at a cost that does not depend on how many live, and losing none.
//!
//! Asking for *any* dead child makes the kernel walk all of them, and SIGCHLD does not queue, so that a burst of deaths is told
//! as one. While there are few children the walk is the cheapest way all the same, and SIGCHLD says when to ask.
//! From [`FEW_MOST`] on each child has a process descriptor (pidfd) in an epoll set, which names the dead one by one. One for each
//! child would lengthen the table that every fork copies, so only the youngest [`YOUNG_MOST`] descriptors stay in our table:
//! older ones are *parked*, that is sent through a socket to ourselves and left in its queue. There they stay open, the
//! epoll set goes on watching them, and a fork does not copy them.
//!
//! waitid(2), signalfd(2), pidfd_open(2), epoll(7), unix(7) (SCM_RIGHTS), wait4(2).

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::event::epoll;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};

use crate::{Pid, check, fault, fd, orphan, pass, signal, socket};

/// Up to how many children the kernel is asked for any of them that has died. It looks at 128 in the time that one process
/// descriptor costs.
pub const FEW_MOST: usize = 128;

/// How many process descriptors may stand in the table that a fork copies before the older half is parked.
pub const YOUNG_MOST: usize = 128;

/// How many descriptors one parked message carries.
const PARKED_TOGETHER: usize = YOUNG_MOST / 2;

/// How many deaths one look at the epoll set may tell.
const TOLD_TOGETHER: usize = 64;

/// How a child ended and what it had cost, from wait4(2).
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Exit status or signal.
    pub status: ExitStatus,
    /// What it and the children that it waited for have used.
    pub usage: Usage,
}

/// What the kernel accounted to a child: getrusage(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// The largest resident set, in KiB.
    pub memory_peak_kib: u64,
    /// Page faults that needed the disk.
    pub faults_major: u64,
    /// Page faults that did not.
    pub faults_minor: u64,
    /// Context switches that the child chose by waiting.
    pub switches_voluntary: u64,
    /// Context switches that the scheduler forced.
    pub switches_forced: u64,
}

/// Watches children until they die.
#[derive(Debug)]
pub struct Deaths {
    /// While they are few; `None`: each has a descriptor.
    few: Option<BTreeSet<Pid>>,
    /// Whether there may be more dead among the few than were told of.
    more: bool,
    /// Whether there were children before us, which are not ours to ask about; then there are never few.
    strangers: bool,
    /// Readable when some child has died.
    signal: OwnedFd,
    epoll: OwnedFd,
    young: VecDeque<(Pid, OwnedFd)>,
    lot: Lot,
    /// Children that no descriptor could be had for: asked about one by one until one can.
    unwatched: Vec<Pid>,
}

/// Where the descriptors of long-lived children are parked: the queue of a socket pair.
#[derive(Debug)]
struct Lot {
    entrance: OwnedFd,
    exit: OwnedFd,
    living: BTreeSet<Pid>,
    /// Descriptors in the queue, those of the dead included.
    parked: usize,
}

impl Deaths {
    /// Watches nobody yet. SIGCHLD is blocked from here on.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Deaths> {
        let mut strangers = Vec::new();
        // Where it cannot be known whether there are any, there might be.
        let alone = orphan::children(&mut strangers).is_ok() && strangers.is_empty();
        let few = alone.then(BTreeSet::new);
        let signal = signal::of_deaths()?;
        fault::point("epoll_create1")?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (entrance, exit) = socket::pair(socket::Kind::Packet)?;
        let lot = Lot { entrance, exit, living: BTreeSet::new(), parked: 0 };
        let young = VecDeque::new();
        Ok(Deaths { few, more: false, strangers: !alone, signal, epoll, young, lot, unwatched: Vec::new() })
    }

    /// Whether a child that is born now had better be born with a process descriptor, to be given to [`Deaths::watch_by`].
    pub fn wants_descriptor(&self) -> bool {
        self.few.as_ref().is_none_or(|few| few.len() >= FEW_MOST)
    }

    /// Watches a child of this process that nobody has waited for. Cannot fail: where there is no descriptor to be had,
    /// the child is asked about at each [`Deaths::collect`] until there is.
    pub fn watch(&mut self, child: Pid) {
        match &mut self.few {
            Some(few) if few.len() < FEW_MOST => {
                few.insert(child);
            }
            _ => self.watch_by(child, open(child)),
        }
    }

    /// As [`Deaths::watch`], by a process descriptor that there is already.
    pub fn watch_by(&mut self, child: Pid, pidfd: io::Result<OwnedFd>) {
        // They are not few any more. Who of those has died meanwhile is told by its descriptor at once.
        for other in self.few.take().into_iter().flatten() {
            self.watch_each(other, open(other));
        }
        self.watch_each(child, pidfd);
    }

    fn watch_each(&mut self, child: Pid, pidfd: io::Result<OwnedFd>) {
        match pidfd.and_then(|pidfd| self.add(child, pidfd)) {
            Ok(pidfd) => self.young.push_back((child, pidfd)),
            Err(_) => self.unwatched.push(child),
        }
        if self.young.len() > YOUNG_MOST {
            self.park();
        }
    }

    /// Asks about this child again, though its death may have been told already.
    pub fn ask_about(&mut self, child: Pid) {
        self.unwatched.push(child);
    }

    /// Whether there are children that no event will tell of, so that [`Deaths::collect`] must be called now and then.
    pub fn must_ask(&self) -> bool {
        !self.unwatched.is_empty() || self.more
    }

    /// Appends children that have died, each exactly once, at most a few dozen a call; they are still to be reaped.
    ///
    /// # Errors
    /// What epoll_wait(2) says; an interruption is no error.
    pub fn collect(&mut self, dead: &mut Vec<Pid>) -> io::Result<()> {
        if self.few.is_some() {
            return self.collect_any(dead);
        }
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; TOLD_TOGETHER];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match fault::point("epoll_wait").and_then(|()| Ok(epoll::wait(&self.epoll, &mut events, Some(&now))?))
        {
            Ok((told, _)) => {
                for event in told {
                    dead.extend(Pid::from_raw(event.data.u64() as i32));
                }
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
        for unwatched in std::mem::take(&mut self.unwatched) {
            if has_ended(unwatched) {
                dead.push(unwatched);
            } else {
                self.forget(unwatched);
                self.watch(unwatched);
            }
        }
        Ok(())
    }

    /// The first of the few that has died. Whether there is another can be asked only when this one was reaped.
    fn collect_any(&mut self, dead: &mut Vec<Pid>) -> io::Result<()> {
        // Before the question: a death after this is signalled anew.
        let mut news = [0u8; size_of::<libc::signalfd_siginfo>()];
        match fd::read(&self.signal, &mut news) {
            Err(why) if !matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Err(why);
            }
            _ => {}
        }
        for unwatched in std::mem::take(&mut self.unwatched) {
            if has_ended(unwatched) {
                dead.push(unwatched);
            } else {
                self.few.iter_mut().for_each(|few| _ = few.insert(unwatched));
            }
        }
        // Until there is an answer, there may be.
        self.more = true;
        let any = any_dead()?;
        // Until this one is reaped, nobody behind it is told.
        self.more = any.is_some();
        dead.extend(any.filter(|any| !dead.contains(any)));
        Ok(())
    }

    /// Takes leave of a dead child: its status and bill, or `None` when it has not ended after all.
    ///
    /// # Errors
    /// ECHILD when it is no child of ours, or somebody else has waited for it.
    pub fn reap(&mut self, child: Pid) -> io::Result<Option<Ended>> {
        let ended = wait(child)?;
        if ended.is_some() {
            self.forget(child);
        }
        Ok(ended)
    }

    fn forget(&mut self, child: Pid) {
        if let Some(few) = &mut self.few {
            few.remove(&child);
            return;
        }
        if let Some(at) = self.young.iter().position(|(pid, _)| *pid == child) {
            self.young.remove(at);
        } else if self.lot.living.remove(&child) && self.lot.living.is_empty() {
            self.lot.clear();
        }
        // Half as many, or one who comes and goes would make us change at each turn.
        let watched = self.young.len() + self.lot.living.len();
        if watched <= FEW_MOST / 2 && self.unwatched.is_empty() && !self.strangers {
            self.lot.clear();
            let parked = std::mem::take(&mut self.lot.living);
            self.few = Some(self.young.drain(..).map(|(pid, _)| pid).chain(parked).collect());
            // What was signalled meanwhile was not looked at.
            self.more = true;
        }
    }

    fn add(&self, child: Pid, pidfd: OwnedFd) -> io::Result<OwnedFd> {
        let data = epoll::EventData::new_u64(child.as_raw() as u64);
        // Once only: a parked descriptor cannot be taken out of the set, and must not go on ringing.
        let when = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        fault::point("epoll_ctl")?;
        epoll::add(&self.epoll, &pidfd, data, when)?;
        Ok(pidfd)
    }

    /// Parks the older half of the young. Where the kernel will not have it, they stay: forks cost a little more, and
    /// nothing else changes.
    fn park(&mut self) {
        let older: Vec<_> = self.young.drain(..PARKED_TOGETHER).collect();
        match self.lot.enter(&older) {
            Ok(()) => self.lot.tidy(),
            Err(_) => older.into_iter().rev().for_each(|one| self.young.push_front(one)),
        }
    }
}

impl AsFd for Deaths {
    /// Readable when [`Deaths::collect`] has something to tell. Another one after a child was watched or reaped.
    fn as_fd(&self) -> BorrowedFd<'_> {
        if self.few.is_some() { self.signal.as_fd() } else { self.epoll.as_fd() }
    }
}

impl Lot {
    fn enter(&mut self, some: &[(Pid, OwnedFd)]) -> io::Result<()> {
        let pids: Vec<u8> = some.iter().flat_map(|(pid, _)| pid.as_raw().to_ne_bytes()).collect();
        let fds: Vec<_> = some.iter().map(|(_, pidfd)| pidfd.as_fd()).collect();
        pass::send(&self.entrance, &pids, &fds)?;
        self.living.extend(some.iter().map(|(pid, _)| *pid));
        self.parked += some.len();
        Ok(())
    }

    /// Looks through the two oldest messages when more than half of what is parked belongs to the dead: the descriptors
    /// of those are closed, the others go to the end of the queue. So the queue stays within twice the living, for a
    /// constant price at each parking.
    fn tidy(&mut self) {
        for _ in 0..2 {
            if self.parked <= 2 * self.living.len() + YOUNG_MOST {
                return;
            }
            let Some(oldest) = self.leave() else { return };
            let living: Vec<_> = oldest.into_iter().filter(|(pid, _)| self.living.contains(pid)).collect();
            if !living.is_empty() && self.enter(&living).is_err() {
                // There was room a moment ago and more has been taken out than goes in; were it otherwise, the
                // descriptors must stay open all the same, or their deaths would go unheard.
                living.into_iter().for_each(|(_, pidfd)| std::mem::forget(pidfd));
            }
        }
    }

    fn leave(&mut self) -> Option<Vec<(Pid, OwnedFd)>> {
        let (mut bytes, mut fds) = ([0; PARKED_TOGETHER * 4], Vec::new());
        let length = pass::receive(&self.exit, &mut bytes, &mut fds).ok()?;
        let pids =
            bytes[..length].as_chunks::<4>().0.iter().filter_map(|b| Pid::from_raw(i32::from_ne_bytes(*b)));
        self.parked -= fds.len();
        Some(pids.zip(fds).collect())
    }

    fn clear(&mut self) {
        while self.parked > 0 && self.leave().is_some() {}
    }
}

/// What this process has used so far: getrusage(2).
pub fn used() -> Usage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to live memory of ours of the right type; nothing else can fail (getrusage(2)).
    unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: zeroed above, and zero is a valid `rusage`; the kernel has filled it in since.
    Usage::from(unsafe { usage.assume_init() })
}

/// Waits for one child by its id; `None` when it has not ended.
///
/// # Errors
/// ECHILD when it is no child of ours.
pub fn wait(child: Pid) -> io::Result<Option<Ended>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let pid = child.as_raw();
    loop {
        let asked = fault::point("wait4").and_then(|()| {
            // SAFETY: both pointers are to live memory of ours of the right type (wait4(2)).
            check(unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, usage.as_mut_ptr()) })
        });
        match asked {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    // SAFETY: zeroed above, and zero is a valid `rusage`; the kernel has filled it in since.
    let usage = unsafe { usage.assume_init() };
    Ok(Some(Ended { status: ExitStatus::from_raw(status), usage: Usage::from(usage) }))
}

/// A process descriptor of a process that nobody waits for meanwhile.
///
/// # Errors
/// EMFILE, ENFILE; ESRCH when there is no such process.
pub fn open(child: Pid) -> io::Result<OwnedFd> {
    fault::point("pidfd_open")?;
    Ok(pidfd_open(child.kernel(), PidfdFlags::empty())?)
}

/// A child that has died, without reaping it.
fn any_dead() -> io::Result<Option<Pid>> {
    let mut found = MaybeUninit::<libc::siginfo_t>::zeroed();
    let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        let asked = fault::point("waitid").and_then(|()| {
            // SAFETY: the pointer is to live memory of ours of the right type (waitid(2)).
            check(unsafe { libc::waitid(libc::P_ALL, 0, found.as_mut_ptr(), look) })
        });
        match asked {
            Ok(_) => break,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) if why.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            Err(why) => return Err(why),
        }
    }
    // SAFETY: zeroed above, and zero is a valid `siginfo_t`; the kernel has filled it in since, if anybody has died.
    let found = unsafe { found.assume_init() };
    // SAFETY: waitid(2) has written the fields of SIGCHLD, or none, and then the id is zero still.
    Ok(Pid::from_raw(unsafe { found.si_pid() }))
}

/// Whether a child has died, or is none of ours, without reaping it.
pub fn has_ended(child: Pid) -> bool {
    !matches!(look(child), Ok(None))
}

/// Whether it is a child of ours that nobody has waited for, alive or dead.
pub fn is_ours(child: Pid) -> bool {
    look(child).is_ok()
}

/// Looks at a child without reaping it: `None` while it lives.
fn look(child: Pid) -> io::Result<Option<WaitIdStatus>> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(child.kernel()), look)?)
}

impl From<libc::rusage> for Usage {
    fn from(usage: libc::rusage) -> Usage {
        let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
        Usage {
            user: time(usage.ru_utime),
            system: time(usage.ru_stime),
            memory_peak_kib: usage.ru_maxrss as u64,
            faults_major: usage.ru_majflt as u64,
            faults_minor: usage.ru_minflt as u64,
            switches_voluntary: usage.ru_nvcsw as u64,
            switches_forced: usage.ru_nivcsw as u64,
        }
    }
}

/// Waits for one child, however long it takes.
///
/// # Errors
/// ECHILD when it is no child of ours.
pub fn wait_blocking(child: Pid) -> io::Result<ExitStatus> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live integer of ours (waitpid(2)).
        match check(unsafe { libc::waitpid(child.as_raw(), &mut status, 0) }) {
            Ok(_) => return Ok(ExitStatus::from_raw(status)),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
}
