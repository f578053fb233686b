//! A master that has others accept: starts them, replaces the dead, takes their clients over; and what one of them is.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tine_os::processor::Processors;
use tine_os::signal::{Signal, Signals};
use tine_os::socket::Addr;
use tine_os::spawn::Nursery;
use tine_os::wait::{self, Deaths, Ended};
use tine_os::{ForkError, Forked, Pid, apart, fork, orphan, ready::Ready};

use super::leave::Guardian;
use super::watch::Watches;
use super::{Child, Master, Standing};
use crate::change::drain::Drain;
use crate::event::Event;
use crate::life::admit::{Remains, Ticket};
use crate::life::bind::Role;
use crate::life::end::Ends;
use crate::life::reap::{self, Reports};
use crate::life::serve::Service;
use crate::life::slot::Slots;
use crate::life::tree::Branch;
use crate::mode::acceptors::{Crew, Notes, RECORDS, seat};
use crate::mode::cell::Cells;
use crate::mode::each;
use crate::mode::spare::Parked;
use crate::mode::worker::Workers;
use crate::peer::Peer;

/// The exit status of an acceptor that could not begin.
const CANNOT_BEGIN: u8 = 111;

impl Master {
    /// From here on others accept, and admission is shared with them.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub(crate) fn share(&mut self, crew: Crew) -> io::Result<()> {
        self.admit.share(RECORDS, Box::new(crew.common.clone()))?;
        self.common = Some(crew.common.clone());
        self.crew = Some(crew);
        Ok(())
    }

    /// Starts acceptors where there is to be one and is none.
    pub(crate) fn mend_acceptors(&mut self, service: &mut dyn Service) {
        let now = Instant::now();
        while self.drain.is_serving()
            && let Some(crew) = &mut self.crew
            && let Some(at) = crew.due(now)
        {
            crew.starts(at, now);
            self.admit.invite(seat(at));
            let forked = apart::shared(tine_os::fork).unwrap_or_else(|why| Err(ForkError::System(why)));
            match forked {
                Ok(Forked::Child) => self.accept_for(at, service),
                Ok(Forked::Parent(pid)) => {
                    self.deaths.watch(pid);
                    let before = self.crew.as_mut().and_then(|crew| crew.begun(at, pid));
                    if let Some((acceptor, how)) = before {
                        let acceptor = acceptor.id();
                        (self.events)(&Event::AcceptorReplaced { acceptor, how: &how, by: pid.id() });
                    }
                }
                Err(error) => {
                    self.admit.died(seat(at));
                    let error = io::Error::other(error.to_string());
                    let what = "start an acceptor (it will be tried again)";
                    (self.events)(&Event::Odd { what, error: &error });
                }
            }
        }
    }

    /// An acceptor has ended: its clients go on, and are this process's from now on.
    pub(super) fn acceptor_ended(&mut self, at: usize, ended: Ended, now: Instant) {
        let notes = self.admit.notes_of(seat(at));
        let Remains { slots, .. } = self.admit.died(seat(at));
        let how = reap::outcome(ended, None, Duration::ZERO).how;
        let serving = self.drain.is_serving();
        let Some(crew) = &mut self.crew else { return };
        crew.died(at, how, notes, (serving, now));
        for (ticket, child) in slots {
            match child.and_then(|child| Pid::from_raw(child as i32)) {
                // It came from one that had this place before, and is known.
                Some(child) if self.children.get(&child).is_some_and(|known| known.ticket == ticket) => {}
                Some(child) if wait::is_ours(child) => self.adopt(child, ticket, now),
                // Its acceptor had waited for it, and died before it could free the slot: nobody tells of that child any more.
                Some(_) => _ = self.admit.leaves(ticket, now),
                None => self.crew.iter_mut().for_each(|crew| crew.forsakes(ticket)),
            }
        }
        // Whoever else it has left is ended.
        let kept = self.workplace.trees.ended(Branch::Own, false, now);
        self.tell_unless_killed(kept.map(drop));
    }

    /// Takes a child over whose acceptor has died.
    fn adopt(&mut self, pid: Pid, ticket: Ticket, now: Instant) {
        if !self.workplace.trees.claims(pid) {
            self.deaths.watch(pid);
        }
        let child = Child {
            ticket,
            peer: Peer { addr: Addr::Unnamed, credentials: None },
            socket_peer: Addr::Unnamed,
            local: Addr::Unnamed,
            cookie: 0,
            interface: 0,
            born: now,
            waited: Duration::ZERO,
            setup: Some(Duration::ZERO),
            listener: usize::MAX,
            branch: Branch::Own,
            cell: None,
            slot: Slots::NONE,
            // What its client has done is not known here.
            standing: Standing::Faultless,
            header: 0,
            sign: None,
            silent: false,
            again: None,
        };
        self.children.insert(pid, Box::new(child));
    }

    /// Slots whose children nobody knew are free when none is left who might be one.
    pub(super) fn look_after_crew(&mut self, now: Instant) {
        let Some(crew) = &mut self.crew else { return };
        if self.workplace.trees.is_empty() {
            for ticket in crew.settles() {
                self.admit.leaves(ticket, now);
            }
        }
    }

    /// Tells all acceptors to drain, or that it means now. Each is a request of its own there; they are different signals,
    /// since two of one kind that wait together are one.
    pub(super) fn drain_acceptors(&mut self, now: bool) {
        let signal = if now { Signal::QUIT } else { Signal::TERM };
        self.crew.iter_mut().for_each(|crew| crew.drain(signal));
        self.tell_acceptors();
    }

    /// Sends acceptors what they are to be sent.
    pub(super) fn tell_acceptors(&mut self) {
        if let Some(Err(error)) = self.crew.as_mut().map(Crew::send) {
            (self.events)(&Event::Odd { what: "signal an acceptor (it will be tried again)", error: &error });
        }
    }

    /// What was woken for: rules may be others by now.
    pub(super) fn hear_bell(&mut self, service: &mut dyn Service) {
        if !std::mem::take(&mut self.heard.bell) {
            return;
        }
        if let Some(common) = &self.common {
            let _ = common.bells[self.post.map_or(0, seat)].silence();
        }
        self.admit.heard();
        let version = self.admit.version();
        if self.post.is_some() && version.number != self.rules_seen {
            self.rules_seen = version.number;
            if let Err(why) = apart::outside(|| service.obey(&version.rules)) {
                (self.events)(&Event::NotReloaded { why: &why });
            }
            self.spares.iter_mut().for_each(Parked::dismiss);
            self.dismiss_template();
        }
    }

    /// Shows what is counted here.
    pub(super) fn show_notes(&mut self) {
        if self.post.is_some() {
            let status = self.status();
            let (served, failed) = (status.served, status.failed);
            let (paused, spares) = (status.paused as u64, status.spares as u64);
            self.admit.notes(Notes { served, failed, paused, spares }.numbers());
        }
    }

    /// In a process that was forked for it: is an acceptor, to its end.
    fn accept_for(&mut self, at: usize, service: &mut dyn Service) -> ! {
        if let Err(error) = apart::outside(|| self.become_acceptor(at)) {
            (self.events)(&Event::Odd { what: "begin as an acceptor", error: &error });
            fork::exit(CANNOT_BEGIN);
        }
        let opened = self.open_post(service).and_then(|()| each::run(self, service));
        match opened {
            Ok(()) => {
                self.close();
                fork::exit(0)
            }
            Err(why) => {
                self.give_up();
                let error = io::Error::other(why.to_string());
                (self.events)(&Event::Odd { what: "serve as an acceptor", error: &error });
                fork::exit(CANNOT_BEGIN)
            }
        }
    }

    /// Leaves everything to the master that is the master's, and begins anew with what is an acceptor's.
    fn become_acceptor(&mut self, at: usize) -> io::Result<()> {
        // What a terminal sends is for the master, which tells us.
        fork::new_session()?;
        orphan::die_with_parent(self.workplace.master)?;
        let (Some(crew), Some(common)) = (self.crew.take(), self.common.clone()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // First of all: what is made from here on is made where it is used.
        Processors::one(crew.processor(at)).run_on()?;
        let common = common.of_acceptor();
        let gate = std::mem::replace(&mut self.admit, crate::life::admit::Gate::alone(Default::default(), 0));
        self.admit = gate.join(seat(at), Box::new(common.clone()))?;
        self.rules_seen = self.admit.version().number;
        let processors = common.processors.clone();
        (self.post, self.common, self.control) = (Some(at), Some(common), None);
        self.manner.reread = None;
        let listeners = std::mem::take(&mut self.listeners);
        let accepting = listeners.into_iter().filter(|listener| listener.role == Role::Accept);
        self.listeners = accepting.map(|listener| listener.of_seat(at)).collect();
        // Where clients are for acceptors, no child of the master's reads it.
        let desk = Rc::get_mut(&mut self.workplace.desk).ok_or(io::ErrorKind::ResourceBusy)?;
        let foreign = desk.reports.is_foreign();
        (desk.reports, desk.master) = (Reports::new(foreign)?, Pid::own());
        if desk.alive.is_some() {
            let (alive, lives) = tine_os::fd::pipe()?;
            (desk.alive, self.lives) = (Some(tine_os::fd::duplicate_low(alive)?), Some(lives));
        }
        // Whoever is told of the master's children is the master.
        (self.template, self.watches) = (None, Watches::default());
        self.slots = Slots::of_seat(seat(at));
        self.cells = Cells::default();
        self.workplace.trees = self.workplace.trees.of_another(self.keep, self.programs)?;
        self.nursery.iter().for_each(Nursery::keep_from_forks);
        if self.nursery.is_some() || self.workplace.plan.confines() {
            self.workplace.trees.keep_open();
        }
        self.workers = Workers::new()?;
        self.guardian = Guardian::default();
        let clients = self.manner.clients_per_child;
        self.spares = self.manner.spares.map(|spares| Parked::new(spares, clients));
        (self.ends, self.drain) =
            (Ends::new(self.manner.deadlines.clone()), Drain::new(self.manner.patience));
        for set in
            [&mut self.room_watch, &mut self.hangups, &mut self.lines, &mut self.signs, &mut self.firsts]
        {
            *set = Ready::new()?;
        }
        self.children.clear();
        self.failures.clear();
        self.calls.clear();
        (self.held, self.undecided, self.room) = Default::default();
        (self.dead, self.heard, self.served, self.failed) = Default::default();
        self.deaths = Deaths::new()?;
        self.signals = Signals::take_over()?;
        // What was made is where it is used. From here on the kernel may move us: a child is born where its parent may run, and is put
        // on an idle processor at once if it may be on one.
        processors.run_on()?;
        let mut tell = std::mem::replace(&mut self.events, Box::new(|_| {}));
        self.events = Box::new(move |event| {
            if !is_the_masters(event) {
                tell(event);
            }
        });
        Ok(())
    }
}

/// What the master tells for all.
fn is_the_masters(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::Listening { .. }
            | Event::Trees { .. }
            | Event::Draining { .. }
            | Event::Ending { .. }
            | Event::Stopped { .. }
            | Event::Status(_)
    )
}
