//! How clients come in: accepted, admitted, given a child; those who wait, and those who are named by a balancer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use tine_os::socket::{self, Addr, Kind};
use tine_os::spawn::{Newborn, With};
use tine_os::{apart, fd, random};

use super::{Child, Guest, Master, Standing, UNBORN_MOST, Unborn, mark, rests};
use crate::event::Event;
use crate::front::introduction::{Hears, Says, TIMEOUT, words};
use crate::life::admit::{Look, OnFull, Reason, Ticket, Verdict, Version};
use crate::life::bind::{Arrival, Role};
use crate::life::fork::{Birth, Desk, Workplace, fork};
use crate::life::serve::{Place, Service, start};
use crate::life::tree::Branch;
use crate::mode::cell::Cell;
use crate::mode::spare::{Handover, Spare};
use crate::mode::template::{Birthplace, Order, Particulars, Template};
use crate::peer::Peer;

/// The child that a client was given.
#[derive(Debug)]
pub(super) struct Given {
    /// `None`: it is being born, and a template will tell.
    pid: Option<tine_os::Pid>,
    branch: Branch,
    slot: u32,
    cell: Option<Cell>,
    /// On which it names its client, if that is to be asked.
    line: Option<OwnedFd>,
    /// How long it took, where the master knows by itself.
    setup: Option<Duration>,
    /// The child as it was when it waited, if it is to wait again.
    again: Option<Spare>,
}

impl Master {
    /// Whether to look for another client at this listener.
    pub(crate) fn has_room(&mut self, at: usize) -> bool {
        let now = Instant::now();
        let Some(listener) = self.listeners.get(at).filter(|listener| !rests(listener, now)) else {
            return false;
        };
        let nameless = self.waits_for_names(listener);
        self.drain.is_serving()
            && self.undecided.is_empty()
            && self.unborn.len() < UNBORN_MOST
            && self.admit.look(nameless, now) == Look::Now
    }

    /// Takes the next client of a listener. When the system is short of something, the listener rests.
    pub(crate) fn accept(&mut self, at: usize) -> Option<Arrival> {
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

    /// Asks whether a client may come in, and gives it a child, lets it wait or sends it away.
    pub(crate) fn admit(&mut self, at: usize, arrival: Arrival, service: &mut dyn Service) {
        let now = Instant::now();
        let Some(listener) = self.listeners.get(at) else { return };
        let nameless = self.is_nameless(listener);
        let accepted = listener.role == Role::Accept;
        let chance = self.chance();
        if nameless {
            let trusted =
                self.manner.balancers.as_ref().is_none_or(|all| !accepted || all.trusts(&arrival.peer));
            let why = match trusted {
                false => Some(Reason::Untrusted),
                true => (!accepted && self.admit.denies(&arrival.peer)).then_some(Reason::Denied),
            };
            let counted = why.inspect(|why| {
                self.admit.count(*why);
            });
            if let Some(why) = counted.or_else(|| accepted.then(|| self.admit.turns_away(chance)).flatten()) {
                return self.refuse(&arrival, why);
            }
        }
        let verdict = match nameless {
            true => self.admit.arrives_nameless(now).map(|ticket| (ticket, Verdict::Admit)),
            false => self.admit.arrives(&arrival.peer, now, chance),
        };
        match verdict {
            Ok((ticket, Verdict::Admit)) => {
                self.fork(at, Guest { ticket, arrival, waited: Default::default() }, service);
            }
            Ok((ticket, Verdict::Wait)) => self.let_wait(at, ticket, arrival, now),
            Ok((_, Verdict::Refuse(why))) => self.refuse(&arrival, why),
            Err(_) => self.undecided.push_back((at, arrival)),
        }
    }

    /// Any number, where one is asked for.
    fn chance(&self) -> u32 {
        match self.admit.limits().on_full {
            // Without chance nobody is refused early: at the limit there is still the limit.
            OnFull::Early { .. } => random::number().unwrap_or(u32::MAX),
            _ => 0,
        }
    }

    /// Gives children to those who have waited and whose turn it is.
    pub(crate) fn call_waiting(&mut self, service: &mut dyn Service) {
        if std::mem::take(&mut self.heard.left) {
            self.let_go();
        }
        let now = Instant::now();
        for ticket in self.admit.orders() {
            if let Some((_, arrival, _)) = self.room.remove(&ticket) {
                self.refuse(&arrival, Reason::Full);
            }
        }
        for _ in 0..self.undecided.len() {
            let Some((at, arrival)) = self.undecided.pop_front() else { break };
            self.admit(at, arrival, service);
        }
        for _ in 0..self.held.len() {
            let Some((at, guest)) = self.held.pop_front() else { break };
            if self.listeners.get(at).is_some_and(|listener| rests(listener, now)) {
                self.held.push_back((at, guest));
            } else {
                self.fork(at, guest, service);
            }
        }
        // Whoever is held comes first: there would be no child for others either.
        while self.held.is_empty()
            && self.drain.is_serving()
            && let Some((ticket, verdict)) = self.admit.next_waiting(now)
        {
            let Some((at, arrival, since)) = self.room.remove(&ticket) else { continue };
            // The child has the connection too, and would go on being told of here.
            let _ = self.room_watch.remove(&arrival.fd);
            match verdict {
                Verdict::Refuse(why) => self.refuse(&arrival, why),
                _ => {
                    let waited = now.saturating_duration_since(since);
                    self.fork(at, Guest { ticket, arrival, waited }, service);
                }
            }
        }
    }

    /// Hears from children who their clients are, and says whether those may come in; and from those who serve several that they
    /// are done with one.
    pub(crate) fn hear_names(&mut self, service: &dyn Service) {
        if !std::mem::take(&mut self.heard.line) {
            return;
        }
        let mut pids = Vec::new();
        if let Err(error) = self.lines.collect(&mut pids) {
            (self.events)(&Event::Odd { what: "epoll_wait", error: &error });
        }
        for pid in pids.into_iter().filter_map(|pid| tine_os::Pid::from_raw(pid as i32)) {
            if self.children.get(&pid).is_some_and(|child| child.again.is_some()) {
                self.hear_done(pid, service);
                continue;
            }
            let nameless = |child: &&mut Box<Child>| matches!(child.standing, Standing::Nameless(..));
            let Some(child) = self.children.get_mut(&pid).filter(nameless) else { continue };
            let Standing::Nameless(line, version) =
                std::mem::replace(&mut child.standing, Standing::Unwelcome)
            else {
                continue;
            };
            let says = Says::receive(&line);
            if matches!(says, Ok(None)) {
                child.standing = Standing::Nameless(line, version); // nothing yet after all
                continue;
            }
            let _ = self.lines.remove(&line);
            match says {
                Ok(Some(Says::Client { ends, header })) => {
                    child.header = header;
                    // What its child knows of rules it knows from its birth, and so they are the ones that hold for it.
                    self.name(pid, ends, &line, &version);
                }
                Ok(Some(Says::Nothing(why))) => {
                    Hears::Go { message: Vec::new() }.send(&line);
                    self.admit.count(Reason::Proxy);
                    let peer = &self.children[&pid].peer;
                    (self.events)(&Event::Refused { peer, why: Reason::Proxy, detail: Some(&why) });
                }
                // It has ended, or makes no sense: it will be reaped, and its end is told then, and is nobody's fault.
                _ => child.standing = Standing::Faultless,
            }
        }
    }

    /// Gives a client a child. When there can be none now, the client is kept and its listener rests.
    fn fork(&mut self, at: usize, guest: Guest, service: &mut dyn Service) {
        let Some(listener) = self.listeners.get(at) else { return };
        let (transport, accepted) = (listener.transport, listener.role == Role::Accept);
        let interface = listener.interface;
        let asks = accepted && self.manner.balancers.is_some();
        let Guest { ticket, arrival, waited } = guest;
        // It has its slot already, and does not count itself.
        let from_same = self.admit.count_of(&arrival.peer).saturating_sub(usize::from(accepted && !asks));
        let cookie = socket::cookie(&arrival.fd).unwrap_or(0);
        // Asked before there is a child, which reads what has come, and then nothing would be left to see.
        let silent = accepted && !asks && self.counts_silence() && socket::has_left(&arrival.fd);
        let born = Instant::now();
        self.listeners[at].breaker.birth(born);
        let Arrival { fd, peer, local } = arrival;
        let told = Handover { peer, local, transport, from_same, cookie };
        let given = match self.hand_over(&fd, &told, asks, born) {
            Some(given) => Ok(given),
            // Only one that waits for its client can wait for another.
            None if self.spares.as_ref().is_some_and(|spares| !asks && spares.are_used_again()) => {
                let gone = || io::Error::other("a child that was just born is gone");
                self.bear_spare(service)
                    .and_then(|()| self.hand_over(&fd, &told, asks, born).ok_or_else(gone))
            }
            None => self.bear(&fd, &told, (at, asks, born), service),
        };
        let Handover { peer, local, .. } = told;
        let arrival = Arrival { fd, peer, local };
        match given {
            Ok(given) => {
                let unborn =
                    Unborn { at, ticket, waited, arrival, accepted, cookie, interface, silent, born };
                match given.pid {
                    Some(pid) => self.settle(unborn, given, pid),
                    None => self.unborn.push_back((unborn, given)),
                }
                if self.listeners.get(at).is_some_and(|listener| matches!(listener.role, Role::Lend(_))) {
                    // Until it is known who has the socket, it would be lent again.
                    self.await_births();
                }
            }
            Err(why) => {
                self.held.push_back((at, Guest { ticket, arrival, waited }));
                self.rest(at, "fork", &why);
            }
        }
    }

    /// Hears from a template of the children that it was asked for.
    pub(crate) fn hear_births(&mut self) {
        self.hear_births_or_wait(false);
    }

    /// As above, until all are born.
    pub(super) fn await_births(&mut self) {
        self.hear_births_or_wait(true);
    }

    fn hear_births_or_wait(&mut self, waits: bool) {
        while !self.unborn.is_empty() {
            let heard = match &self.template {
                Some(template) => template.hear_birth(waits),
                None => Err(io::ErrorKind::BrokenPipe.into()),
            };
            let birth = match heard {
                Ok(None)
                    if self
                        .unborn
                        .front()
                        .is_some_and(|(unborn, _)| unborn.born.elapsed() > Template::PATIENCE) =>
                {
                    let why = io::Error::new(
                        io::ErrorKind::TimedOut,
                        "it does not answer; has somebody stopped it?",
                    );
                    return self.lose_template(&why);
                }
                Ok(None) => return,
                Ok(Some(birth)) => birth,
                Err(why) => return self.lose_template(&why),
            };
            let Some((unborn, mut given)) = self.unborn.pop_front() else { return };
            if let Some(mut made) = birth.cell {
                self.know_cell(&mut made);
                given.cell = Some(made);
            }
            match birth.child {
                Ok(pid) => {
                    self.deaths.watch(pid);
                    self.settle(unborn, given, pid);
                }
                Err(why) => self.miscarry(unborn, given, &why),
            }
        }
    }

    /// A template did not answer: another one takes its place. The child that it had in hand may be there, and not known, and
    /// would share its client with another one; so that client is lost. The others it had not come to yet.
    fn lose_template(&mut self, why: &io::Error) {
        self.let_template_go(None);
        (self.events)(&Event::Odd { what: "hear from a template (another takes its place)", error: why });
        let now = Instant::now();
        for (number, (unborn, given)) in std::mem::take(&mut self.unborn).into_iter().enumerate() {
            if number > 0 {
                self.miscarry(unborn, given, why);
            } else {
                self.admit.leaves(unborn.ticket, now);
                // Others have it only when all have been given out once.
                self.slots.give_back(given.slot);
                // Whoever is in there has no client and is ended.
                self.leave_place((given.branch, given.cell), true, now);
            }
        }
    }

    /// There is no child: the client is kept, and its listener rests.
    fn miscarry(&mut self, unborn: Unborn, given: Given, why: &io::Error) {
        self.workplace.trees.spare(given.branch);
        self.slots.give_back(given.slot);
        // It may be what is to blame.
        self.leave_cell(given.cell, false, true);
        let Unborn { at, ticket, waited, arrival, .. } = unborn;
        self.held.push_back((at, Guest { ticket, arrival, waited }));
        self.rest(at, "fork", why);
    }

    /// A client has a child.
    fn settle(&mut self, unborn: Unborn, given: Given, pid: tine_os::Pid) {
        let Unborn { at, ticket, waited, arrival, accepted, cookie, interface, silent, born } = unborn;
        let Given { branch, slot, cell, line: ours, setup, again, .. } = given;
        self.admit.bears(ticket, pid.id());
        self.work(at);
        if let Some(Role::Lend(to)) = self.listeners.get_mut(at).map(|listener| &mut listener.role) {
            *to = Some(pid);
        }
        let watched = if accepted { self.watch(ticket, pid, &arrival) } else { Ok(()) };
        let standing = match ours {
            Some(line) => Standing::Nameless(line, self.admit.version()),
            None => Standing::Served,
        };
        let Arrival { fd, peer, local } = arrival;
        // Before it is told that there is a child: its end is the client's from now on.
        drop(fd);
        let sign = (!matches!(local, Addr::Inet(_))).then_some(born);
        let (socket_peer, listener) = (peer.addr.clone(), at);
        let child = Child {
            ticket,
            peer,
            socket_peer,
            local,
            cookie,
            interface,
            born,
            waited,
            setup,
            listener,
            branch,
            slot,
            cell,
            standing,
            header: 0,
            sign,
            silent,
            again: again.map(Box::new),
        };
        if let Some(Err(error)) =
            child.again.as_ref().map(|spare| self.lines.add(&spare.line, pid.id().into()))
        {
            (self.events)(&Event::Odd { what: "watch a child", error: &error });
        }
        if let Err(error) = watched {
            (self.events)(&Event::Odd { what: "watch a connection", error: &error });
        }
        match &child.standing {
            Standing::Nameless(line, _) => {
                if let Err(error) = self.lines.add(line, pid.id().into()) {
                    (self.events)(&Event::Odd { what: "watch a child", error: &error });
                }
            }
            _ => {
                // It is among them elsewhere already.
                let own = usize::from(!self.admit.is_shared());
                let (open, most) = (self.open_everywhere() + own, self.admit.limits().children);
                (self.events)(&Event::Accepted { peer: &child.peer, via: None, child: pid.id(), open, most });
                if accepted {
                    self.ends.begins(mark(ticket, pid), child.sign.is_some(), born);
                }
            }
        }
        self.children.insert(pid, Box::new(child));
    }

    /// Gives a client to a child that has waited for one, where there is one.
    fn hand_over(&mut self, client: &OwnedFd, told: &Handover, asks: bool, born: Instant) -> Option<Given> {
        let spares = self.spares.as_mut().filter(|_| !asks)?;
        let spare = spares.hand_over(client.as_fd(), told);
        spares.stock.arrives(spare.is_some(), born);
        let mut spare = spare?;
        let (pid, branch, slot, cell) = (spare.pid, spare.branch, spare.slot, spare.cell.take());
        let again = spares.are_used_again().then_some(spare);
        Some(Given { pid: Some(pid), branch, slot, cell, line: None, setup: Some(born.elapsed()), again })
    }

    /// A child is born for a client.
    fn bear(
        &mut self,
        client: &OwnedFd,
        told: &Handover,
        (at, asks, born): (usize, bool, Instant),
        service: &mut dyn Service,
    ) -> io::Result<Given> {
        if self.unborn.len() >= UNBORN_MOST {
            self.await_births();
        }
        apart::outside(|| self.renew_template(service))?;
        let (ours, theirs) = line(asks)?;
        if !asks && self.template.is_none() {
            let rule = self.admit.limits().rules.of(&told.peer);
            apart::outside(|| service.prepare(&told.client(), rule));
        }
        let timeout = self.manner.balancers.as_ref().and_then(|all| all.timeout).unwrap_or(TIMEOUT);
        let signs = asks && self.ends.listens() && !matches!(told.local, Addr::Inet(_));
        let rules = asks.then(|| self.admit.limits().rules.clone());
        let place = Place { transport: self.listeners[at].transport, rules: rules.as_ref(), timeout, signs };
        let branch = self.workplace.trees.grow()?;
        let (slot, cell) = (self.slot(), self.take_cell());
        let (Workplace { desk, trees }, pidfd) = (&self.workplace, self.deaths.wants_descriptor());
        let (group, inherits) = (trees.group(branch), trees.inherits(branch));
        // Whoever has to ask a balancer first needs memory for that. Where nobody gets on in the nursery, a fork does the same.
        let becomes = if asks { None } else { service.start() };
        let cot = becomes.zip(self.nursery.as_mut()).and_then(|(becomes, nursery)| match nursery.cot() {
            Ok(mut cot) => {
                becomes.lay_out(cot.what(), desk, (inherits, slot), born);
                Some(cot)
            }
            Err(error) => {
                let what = "bear a child without a copy of the master (it is forked)";
                (self.events)(&Event::Odd { what, error: &error });
                None
            }
        });
        let forked = match (cot, &self.template) {
            (_, Some(template)) => {
                let order = Order::Client { told, asks: asks.then_some((timeout, signs)) };
                let both = [client.as_fd(), theirs.as_ref().map_or(client.as_fd(), AsFd::as_fd)];
                let fds = &both[..1 + usize::from(theirs.is_some())];
                let place = Birthplace { group, cell: cell.as_ref() };
                template.order(order, Particulars { slot, inherits, born }, fds, place).map(|()| None)
            }
            (Some(cot), None) => {
                cot.bear(client.as_fd(), With { group, pidfd, ..With::default() }, start).map(Some)
            }
            (None, None) => {
                let (peer, local) = apart::outside(|| (told.peer.clone(), told.local.clone()));
                let mut birth = Birth { peer, local, inherits, slot, line: theirs, born };
                let task = |desk: &Desk| service.serve(desk, &place, client.as_fd(), &mut birth);
                fork(desk, With { group, ..With::default() }, task)
                    .map(|pid| Some(Newborn { pid, pidfd: None }))
            }
        };
        match forked {
            Ok(newborn) => {
                let pid = newborn.as_ref().map(|newborn| newborn.pid);
                match newborn {
                    Some(Newborn { pid, pidfd: Some(pidfd) }) => self.deaths.watch_by(pid, Ok(pidfd)),
                    Some(Newborn { pid, pidfd: None }) => self.deaths.watch(pid),
                    None => {}
                }
                Ok(Given { pid, branch, slot, cell, line: ours, setup: None, again: None })
            }
            Err(why) => {
                self.not_born((branch, cell), slot, &why);
                Err(why)
            }
        }
    }

    /// Has one more child ready for a client that comes later, if that is wanted and there is nothing else to do.
    pub(crate) fn make_spare(&mut self, service: &mut dyn Service) {
        let now = Instant::now();
        if !self.heard.nothing || !self.unborn.is_empty() || !self.makes_spare(now) {
            return;
        }
        if let Err(error) = self.bear_spare(service) {
            self.spares.iter_mut().for_each(|spares| spares.stock.fails(now));
            (self.events)(&Event::Odd { what: "make a spare (it will be tried again)", error: &error });
        }
    }

    /// A child is born that waits for a client.
    fn bear_spare(&mut self, service: &mut dyn Service) -> io::Result<()> {
        self.await_births();
        apart::outside(|| self.renew_template(service))?;
        if self.spares.is_none() {
            return Ok(());
        }
        let branch = self.workplace.trees.grow()?;
        let (slot, mut cell) = (self.slot(), self.take_cell());
        let (rules, born) = (self.admit.limits().rules.clone(), Instant::now());
        let (spares, template) = (self.spares.as_ref(), self.template.as_ref());
        let made = spares.map(|spares| {
            spares.make(&self.workplace, (&rules, branch, slot), born, (template, cell.as_ref()), service)
        });
        let made = made.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into())).and_then(|(told, line)| {
            if let Some(mut made) = told.cell {
                self.know_cell(&mut made);
                cell = Some(made);
            }
            Ok((told.child?, line))
        });
        match made {
            Ok((pid, line)) => {
                if let Some(spares) = &mut self.spares {
                    spares.park(Spare { pid, branch, slot, cell, born, line });
                    spares.stock.counts(spares.len(), Instant::now());
                }
                self.deaths.watch(pid);
                Ok(())
            }
            Err(why) => {
                self.not_born((branch, cell), slot, &why);
                Err(why)
            }
        }
    }

    /// Where the next child is born, if there is a place that is there already.
    fn take_cell(&mut self) -> Option<Cell> {
        self.template.as_ref().and_then(|template| self.cells.take(template.pid))
    }

    /// What belongs to the next child alone, where something does.
    fn slot(&mut self) -> u32 {
        if self.workplace.plan.has_own_users() { self.slots.take() } else { 0 }
    }

    /// A child was not born. A template that did not answer is not asked again: another one takes its place.
    fn not_born(&mut self, (branch, cell): (Branch, Option<Cell>), slot: u32, why: &io::Error) {
        self.slots.give_back(slot);
        if matches!(
            why.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        ) {
            self.dismiss_template();
            // It may be there all the same, for nobody.
            self.leave_place((branch, cell), true, Instant::now());
        } else {
            self.workplace.trees.spare(branch);
            self.leave_cell(cell, false, true);
        }
    }

    /// Says so, and closes the connection; nobody waits for a client to hear it.
    pub(super) fn refuse(&mut self, arrival: &Arrival, why: Reason) {
        let message = words(self.admit.message(&arrival.peer, why));
        if !message.is_empty() {
            let _ = socket::send_now(&arrival.fd, &message);
        }
        (self.events)(&Event::Refused { peer: &arrival.peer, why, detail: None });
        self.tell_penalised(&arrival.peer);
    }

    /// Being refused may be what a source is kept out for.
    fn tell_penalised(&mut self, peer: &Peer) {
        if let Some((source, time)) = self.admit.penalised() {
            (self.events)(&Event::Penalised { peer, source, time });
        }
    }

    fn let_wait(&mut self, at: usize, ticket: Ticket, arrival: Arrival, now: Instant) {
        if let Err(error) = self.room_watch.add_activity(&arrival.fd, ticket) {
            (self.events)(&Event::Odd { what: "watch a client that waits", error: &error });
        }
        let place = self.admit.place(ticket);
        if let OnFull::Queue { message: Some(message), .. } = &self.admit.limits().on_full {
            let message = words(Some(&message.replace("%d", &place.to_string())));
            let _ = socket::send_now(&arrival.fd, &message);
        }
        (self.events)(&Event::Waiting { peer: &arrival.peer, place });
        self.room.insert(ticket, (at, arrival, now));
        // One that waits elsewhere is told there.
        while let Some(other) = self.admit.next_shed(now) {
            if let Some((_, arrival, _)) = self.room.remove(&other) {
                self.refuse(&arrival, Reason::Full);
            }
        }
    }

    /// Those who have gone while they waited.
    fn let_go(&mut self) {
        let (mut tickets, now) = (Vec::new(), Instant::now());
        if let Err(error) = self.room_watch.collect(&mut tickets) {
            (self.events)(&Event::Odd { what: "epoll_wait", error: &error });
        }
        for ticket in tickets {
            if !self.room.get(&ticket).is_some_and(|(_, arrival, _)| socket::has_gone(&arrival.fd)) {
                continue;
            }
            if let Some((_, arrival, _)) = self.room.remove(&ticket) {
                self.admit.gives_up(ticket, now);
                (self.events)(&Event::Refused { peer: &arrival.peer, why: Reason::Left, detail: None });
            }
        }
    }

    /// A child knows who its client is: the second verdict.
    fn name(&mut self, pid: tine_os::Pid, ends: Option<(Addr, Addr)>, line: &OwnedFd, version: &Version) {
        let now = Instant::now();
        let Some(child) = self.children.get_mut(&pid) else { return };
        let (ticket, via) = (child.ticket, child.peer.clone());
        // Its own, too, when it names its own socket: health checks of haproxy by version 1 do.
        let own = ends.as_ref().is_none_or(|(source, _)| *source == child.peer.addr);
        if let Some((source, _)) = ends {
            child.peer = Peer { addr: source, credentials: None };
        }
        let (peer, coarse) = (child.peer.clone(), child.sign.is_some());
        let from_same = self.admit.count_of(&peer) as u32;
        let (verdict, standing) = match own {
            false => (self.admit.is_named(ticket, &peer, version, now), Standing::Served),
            true => (self.admit.is_own(&peer, version), Standing::Faultless),
        };
        // Signs so far were the header's. What comes behind it is a sign, or is told of by the child, which looks later.
        if coarse && self.ends.listens() {
            self.collect_signs(now);
            if let Some(child) = self.children.get_mut(&pid) {
                child.sign = Some(child.born);
            }
        }
        match verdict {
            Verdict::Refuse(why) => {
                let message = words(self.admit.message_by(version, &peer, why));
                Hears::Go { message }.send(line);
                (self.events)(&Event::Refused { peer: &peer, why, detail: None });
                self.tell_penalised(&peer);
            }
            _ => {
                Hears::Come { from_same }.send(line);
                if let Some(child) = self.children.get_mut(&pid) {
                    child.standing = standing;
                }
                self.ends.begins(mark(ticket, pid), coarse, now);
                let (open, most) = (self.open_everywhere(), self.admit.limits().children);
                (self.events)(&Event::Accepted { peer: &peer, via: Some(&via), child: pid.id(), open, most });
            }
        }
    }

    /// Hears of the connection's death from now on, and of signs of life where the kernel counts no bytes.
    fn watch(&mut self, ticket: Ticket, pid: tine_os::Pid, arrival: &Arrival) -> io::Result<()> {
        self.hangups.add_hangup(&arrival.fd, mark(ticket, pid))?;
        if self.counts_silence() && self.manner.balancers.is_none() && matches!(arrival.local, Addr::Inet(_))
        {
            self.firsts.add_first(&arrival.fd, mark(ticket, pid))?;
        }
        if self.ends.listens() && !matches!(arrival.local, Addr::Inet(_)) {
            self.signs.add_activity(&arrival.fd, mark(ticket, pid))?;
            // That there is room to write is no sign of life, and it is told once, of a child that is not known yet.
            self.collect_signs(Instant::now());
        }
        Ok(())
    }

    pub(super) fn rest(&mut self, at: usize, what: &'static str, error: &io::Error) {
        let Some(listener) = self.listeners.get_mut(at) else { return };
        if let Some(pause) = listener.pause.fail(Instant::now()) {
            (self.events)(&Event::Paused { listener: &listener.name, what, error, pause });
        }
    }

    fn work(&mut self, at: usize) {
        let Some(listener) = self.listeners.get_mut(at) else { return };
        if let Some(after) = listener.pause.work(Instant::now()) {
            (self.events)(&Event::Resumed { listener: &listener.name, after });
        }
    }
}

/// A line for a child to name its client on, where that has to be asked: the master's end and the child's.
fn line(asked: bool) -> io::Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if !asked {
        return Ok((None, None));
    }
    let (ours, theirs) = socket::pair(Kind::Packet)?;
    fd::set_blocking(&ours, false)?;
    // Out of the way of what is placed in the child.
    Ok((Some(ours), Some(fd::duplicate_high(theirs)?)))
}

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
