//! Acceptors: several processes that accept and fork, each for one processor, under one master that keeps their
//! listeners.
//!
//! Each is a master of its own clients: it runs `mode/each.rs` as a master alone does. What they share is admission, so that
//! every limit holds over all of them (`life/admit/shared.rs`), and the listeners: the master has all of them open and never
//! accepts from them, so that the queue of an acceptor that dies waits for the one that takes its place. Those of its
//! clients that it leaves behind become the master's, with their slots.
//!
//! Here is what the master knows of them, and how they wake each other; what they do is in `master/acceptor.rs`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tine_os::bell::Bell;
use tine_os::processor::Processors;
use tine_os::ring::{NOTES, SEATS_MOST};
use tine_os::signal::{self, Signal};
use tine_os::{Pid, apart, fd, wait};

use crate::event::How;
use crate::life::admit::{Outside, Rules, Ticket, Written};

/// How many acceptors there may be; the master has a seat too.
pub const ACCEPTORS_MOST: usize = SEATS_MOST - 1;

/// How many records the log of admission has room for, a power of two: what a fast machine brings in a third of a second. Who
/// sleeps is woken to read long before it is full; its pages count for each process.
pub(crate) const RECORDS: usize = 1 << 13;

/// One that died younger than this waits as long before it is replaced, so that one that cannot live does not spin.
const TOO_SOON: Duration = Duration::from_millis(100);

/// All acceptors, as the master has them.
pub(crate) struct Crew {
    posts: Vec<Post>,
    pub common: Common,
    /// What those had counted that are no more.
    past: [u64; NOTES],
    /// Slots of clients of the dead whose child nobody knows, if there is one: free when all orphans are gone.
    limbo: VecDeque<Ticket>,
}

/// One of them.
struct Post {
    processor: usize,
    pid: Option<Pid>,
    born: Instant,
    due: Option<Instant>,
    before: Option<(Pid, How)>,
    /// What it is to be sent yet.
    signals: VecDeque<Signal>,
}

/// What all of them have in common with the master.
#[derive(Clone)]
pub(crate) struct Common {
    /// By seat; the master's is the first.
    pub bells: Rc<Vec<Bell>>,
    /// What rules were read, each version behind the other, for those who have to judge by it.
    scroll: Rc<File>,
    base: Rules,
    pids: Rc<RefCell<Vec<Option<Pid>>>>,
    /// Those that the master may run on, and with it acceptors and children.
    pub processors: Processors,
    is_master: bool,
}

/// What an acceptor shows to the master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    pub served: u64,
    pub failed: u64,
    pub paused: u64,
    pub spares: u64,
}

impl Notes {
    pub(crate) fn numbers(self) -> [u64; NOTES] {
        [self.served, self.failed, self.paused, self.spares, 0]
    }

    fn of(numbers: [u64; NOTES]) -> Notes {
        let [served, failed, paused, spares, _] = numbers;
        Notes { served, failed, paused, spares }
    }
}

impl Crew {
    /// So many acceptors at most, each for one processor; they are started by the master. `base`: rules that hold
    /// beside those that are read.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub(crate) fn new(count: usize, base: Rules) -> io::Result<Crew> {
        let processors = Processors::own()?;
        let numbers: Vec<_> = processors.numbers().collect();
        let now = Instant::now();
        let post = |at: usize| Post {
            processor: numbers[at % numbers.len()],
            pid: None,
            born: now,
            due: Some(now),
            before: None,
            signals: VecDeque::new(),
        };
        let posts: Vec<_> = (0..count).map(post).collect();
        let bells = (0..=count).map(|_| Bell::new()).collect::<io::Result<_>>()?;
        let common = Common {
            bells: Rc::new(bells),
            scroll: Rc::new(fd::memory()?.into()),
            base,
            pids: Rc::new(RefCell::new(vec![None; count])),
            processors,
            is_master: true,
        };
        Ok(Crew { posts, common, past: [0; NOTES], limbo: VecDeque::new() })
    }

    /// The processors whose clients they have.
    pub(crate) fn processors(&self) -> Vec<usize> {
        self.posts.iter().map(|post| post.processor).collect()
    }

    /// Whether each has a processor of its own.
    pub(crate) fn is_apart(&self) -> bool {
        self.posts.len() <= self.common.processors.numbers().count()
    }

    pub(crate) fn len(&self) -> usize {
        self.posts.len()
    }

    /// The place of one that is to be started now.
    pub(crate) fn due(&self, now: Instant) -> Option<usize> {
        self.posts.iter().position(|post| post.due.is_some_and(|due| due <= now))
    }

    /// When one is to be started next.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.posts.iter().filter_map(|post| post.due).min()
    }

    /// It is being started; if that does not work, it is due again a little later.
    pub(crate) fn starts(&mut self, at: usize, now: Instant) {
        let post = &mut self.posts[at];
        (post.born, post.due) = (now, Some(now + TOO_SOON));
    }

    /// It has begun; tells of the one that it replaces.
    pub(crate) fn begun(&mut self, at: usize, pid: Pid) -> Option<(Pid, How)> {
        let post = &mut self.posts[at];
        (post.pid, post.due) = (Some(pid), None);
        self.common.pids.borrow_mut()[at] = Some(pid);
        post.before.take()
    }

    /// The processor of one.
    pub(crate) fn processor(&self, at: usize) -> usize {
        self.posts[at].processor
    }

    /// The place of a process that is one of them.
    pub(crate) fn place(&self, pid: Pid) -> Option<usize> {
        self.posts.iter().position(|post| post.pid == Some(pid))
    }

    /// One has died, and what it showed last. It is replaced, if there is still something to be accepted.
    pub(crate) fn died(&mut self, at: usize, how: How, notes: [u64; NOTES], (serving, now): (bool, Instant)) {
        let post = &mut self.posts[at];
        let young = now.saturating_duration_since(post.born) < TOO_SOON;
        post.before = post.pid.take().map(|pid| (pid, how));
        post.signals.clear();
        post.due = serving.then_some(if young { now + TOO_SOON } else { now });
        self.common.pids.borrow_mut()[at] = None;
        // What it had counted stays; that something of it rests, or waits, does not.
        let Notes { served, failed, .. } = Notes::of(notes);
        (self.past[0], self.past[1]) = (self.past[0] + served, self.past[1] + failed);
    }

    /// None is replaced any more, and all that live are to be sent this signal. One that is stopped hears of it too.
    pub(crate) fn drain(&mut self, signal: Signal) {
        for post in &mut self.posts {
            post.due = None;
            post.signals.extend(post.pid.iter().flat_map(|_| [signal, Signal::CONT]));
        }
    }

    /// Sends what is to be sent yet. What fails is sent with the next call, before what comes behind it: an acceptor has to be
    /// asked twice to end at once, and must not take a second request for the first.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        let mut sent = Ok(());
        for post in &mut self.posts {
            let Some(pid) = post.pid else { continue };
            while let Some(signal) = post.signals.front() {
                // It is not waited for yet, so the number is its own.
                if let Err(why) = signal::send(pid, *signal) {
                    sent = Err(why);
                    break;
                }
                post.signals.pop_front();
            }
        }
        sent
    }

    /// Whether something is to be sent yet.
    pub(crate) fn must_send(&self) -> bool {
        self.posts.iter().any(|post| !post.signals.is_empty())
    }

    /// A client of the dead has a slot, and whether it has a child nobody knows.
    pub(crate) fn forsakes(&mut self, ticket: Ticket) {
        self.limbo.push_back(ticket);
    }

    /// Nobody is left of whom it is not known whose child it was.
    pub(crate) fn settles(&mut self) -> impl Iterator<Item = Ticket> {
        std::mem::take(&mut self.limbo).into_iter()
    }

    /// Whether none is alive.
    pub(crate) fn is_empty(&self) -> bool {
        self.posts.iter().all(|post| post.pid.is_none()) && self.limbo.is_empty()
    }

    /// What all together have counted, those that are no more among them. `of`: what the one in a seat shows.
    pub(crate) fn sum(&self, of: impl Fn(usize) -> [u64; NOTES]) -> Notes {
        let living = self.posts.iter().enumerate().filter(|(_, post)| post.pid.is_some());
        let all = living.map(|(at, _)| of(seat(at))).chain([self.past]);
        Notes::of(all.fold([0; NOTES], |sum, one| std::array::from_fn(|at| sum[at] + one[at])))
    }

    /// Writes a version of the rules down for all; gives its number.
    ///
    /// # Errors
    /// ENOSPC, ENOMEM.
    pub(crate) fn write_down(&self, rules: &Written) -> io::Result<u64> {
        let (scroll, bytes) = (&self.common.scroll, rules.to_bytes());
        let at = scroll.metadata()?.len();
        scroll.write_all_at(&bytes, at + 8)?;
        scroll.write_all_at(&(bytes.len() as u64).to_ne_bytes(), at)?;
        Ok(at + 1)
    }
}

/// The seat of an acceptor.
pub(crate) fn seat(at: usize) -> usize {
    at + 1
}

impl Common {
    /// The same in an acceptor.
    pub(crate) fn of_acceptor(self) -> Common {
        Common { is_master: false, ..self }
    }

    fn read(&self, number: u64) -> io::Result<Rules> {
        let at = number.checked_sub(1).ok_or(io::ErrorKind::NotFound)?;
        let mut length = [0; 8];
        self.scroll.read_exact_at(&mut length, at)?;
        let mut bytes = vec![0; u64::from_ne_bytes(length) as usize];
        self.scroll.read_exact_at(&mut bytes, at + 8)?;
        let rules = Written::from_bytes(&bytes).and_then(|written| written.rules().ok());
        let both = rules.and_then(|rules| self.base.clone().and(&rules).ok());
        both.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Outside for Common {
    fn rules(&mut self, number: u64) -> Rules {
        apart::outside(|| self.read(number))
            .expect("the master has read these rules before it wrote them down")
    }

    fn poke(&mut self, seat: usize) {
        // A bell that cannot be rung would be ours, and broken: whoever has it looks again at its next client.
        let _ = self.bells[seat].ring();
    }

    fn is_gone(&mut self, seat: usize) -> bool {
        // An acceptor is nobody's parent but its clients', and ends with the master.
        let pid = seat.checked_sub(1).and_then(|at| self.pids.borrow().get(at).copied().flatten());
        self.is_master && pid.is_some_and(wait::has_ended)
    }
}
