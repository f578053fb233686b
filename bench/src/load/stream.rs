//! Connections: each says one line, reads it back, checks every byte and the end, and makes way for the next.
//!
//! One thread and one epoll set (epoll(7), edges). A line is sent right after connect(2): on loopback the connection stands by
//! then; where it does not, the line follows when it does. Times begin before the socket is made; in an open loop at the
//! moment at which the client was meant to come.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use super::cpu::Cpu;
use super::hold::{self, Held};
use super::open::{Phase, Phases, Sessions};
use super::options::Options;
use super::report::{Report, Times};
use super::target::{Attempt, Sources, Target, begin};

/// How long those that are under way at the end of the time have to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked for clients that wait too long.
const LOOK: Duration = Duration::from_millis(100);

/// Clients under way at most in an open loop; others wait, and their time counts.
const OPEN_MOST: usize = 10_000;

/// A server that refuses so many clients and serves none is not there.
const REFUSED_MOST: u64 = 1_000;

/// Bytes in a line: `tine `, sixteen digits, newline.
const LINE: usize = 22;

/// Runs a closed or open loop or a burst, or holds idle clients.
///
/// # Errors
/// When it cannot run at all.
pub fn run(options: &Options) -> io::Result<Report> {
    let mut sources =
        Sources::new(options.sources, rustix::process::getpid().as_raw_pid().unsigned_abs() * 97);
    let most = options.burst.unwrap_or(if options.rate.is_some() { OPEN_MOST } else { options.clients });
    hold::allow_descriptors(options.hold + options.open + most)?;
    if options.release {
        return hold::until_told(options.hold, &options.to, &mut sources);
    }
    if options.open > 0 {
        return beside_sessions(options, sources);
    }
    let began = Instant::now();
    let held = Held::open(options.hold, &options.to, &mut sources)?;
    let held_seconds = began.elapsed().as_secs_f64();

    let kind = match (options.burst, options.rate) {
        (Some(_), _) => "burst",
        (None, Some(_)) => "open",
        (None, None) => "closed",
    };
    let mut load = Load::new(options, sources, kind)?;
    match (options.burst, options.rate) {
        (Some(count), _) => load.burst(count)?,
        (None, Some(rate)) => {
            let every = Duration::from_secs_f64(1.0 / rate);
            load.timed(Arrivals::Open { every, next: Instant::now() }, |_| {})?
        }
        (None, None) => load.timed(Arrivals::Closed, |_| {})?,
    }
    let mut report = load.finish();
    if options.hold > 0 {
        report.held = Some(held.count() as u64);
        report.held_seconds = Some(held_seconds);
        (0..held.lost()).for_each(|_| report.error("idle_lost"));
    }
    Ok(report)
}

/// Sessions that stay open: alone, then while others arrive in a closed loop.
fn beside_sessions(options: &Options, mut sources: Sources) -> io::Result<Report> {
    let sessions = Sessions::open(options, &options.to, &mut sources)?;
    let phases = Phases::default();
    std::thread::scope(|scope| {
        let found = scope.spawn(|| sessions.run(&phases));
        let looped = (|| -> io::Result<Report> {
            std::thread::sleep(options.warmup);
            phases.enter(Phase::Alone);
            std::thread::sleep(options.seconds);
            phases.enter(Phase::Pause);
            let mut load = Load::new(options, sources, "sessions")?;
            load.timed(Arrivals::Closed, |measuring| {
                phases.enter(if measuring { Phase::Arrivals } else { Phase::Pause });
            })?;
            Ok(load.finish())
        })();
        // Whatever came of the loop: the other thread waits for this.
        phases.enter(Phase::End);
        let found = found.join().map_err(|_| io::Error::other("the sessions' thread has panicked"))??;
        let mut report = looped?;
        found.tell(&mut report);
        Ok(report)
    })
}

/// When the next client comes.
enum Arrivals {
    /// When another has ended.
    Closed,
    /// At its time.
    Open { every: Duration, next: Instant },
}

/// One client under way.
struct Client {
    /// `None` while it waits for a place in a Unix listener's queue.
    socket: Option<OwnedFd>,
    began: Instant,
    connected: Option<Instant>,
    first: Option<Instant>,
    line: [u8; LINE],
    sent: usize,
    got: usize,
}

struct Load<'a> {
    options: &'a Options,
    sources: Sources,
    epoll: OwnedFd,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    /// Those that have to be begun again.
    full: Vec<usize>,
    number: u64,
    measuring: bool,
    report: Report,
    first: Times,
    whole: Times,
    connect: Times,
    events: Vec<epoll::Event>,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options, sources: Sources, kind: &str) -> io::Result<Load<'a>> {
        // Unlike in different runs, so that no reply of one is right in another.
        let number = u64::from(rustix::process::getpid().as_raw_pid().unsigned_abs()) << 40;
        Ok(Load {
            options,
            sources,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: Vec::new(),
            free: Vec::new(),
            full: Vec::new(),
            number,
            measuring: false,
            report: Report::new(kind),
            first: Times::default(),
            whole: Times::default(),
            connect: Times::default(),
            events: Vec::with_capacity(256),
        })
    }

    /// Warm-up, the time that is measured, and the end of those under way; says when measuring begins and ends.
    fn timed(&mut self, mut arrivals: Arrivals, measuring: impl Fn(bool)) -> io::Result<()> {
        let warm = Instant::now() + self.options.warmup;
        self.keep_going(&mut arrivals, warm)?;
        self.first.clear();
        self.whole.clear();
        self.measuring = true;
        measuring(true);
        let (began, before) = (Instant::now(), Cpu::now());
        self.keep_going(&mut arrivals, began + self.options.seconds)?;
        self.report.measured(began.elapsed(), &before, &Cpu::now());
        self.measuring = false;
        measuring(false);
        self.let_end(PATIENCE)
    }

    fn keep_going(&mut self, arrivals: &mut Arrivals, until: Instant) -> io::Result<()> {
        let mut look = Instant::now() + LOOK;
        loop {
            let now = Instant::now();
            if now >= until || self.nobody_there() {
                return Ok(());
            }
            if now >= look {
                self.give_up(now);
                look = now + LOOK;
            }
            let wake = match arrivals {
                Arrivals::Closed => {
                    while self.under_way() < self.options.clients && !self.nobody_there() {
                        self.begin(Instant::now());
                    }
                    look.min(until)
                }
                Arrivals::Open { every, next } => {
                    while *next <= now && self.under_way() < OPEN_MOST {
                        self.begin(*next);
                        *next += *every;
                    }
                    (*next).min(look).min(until)
                }
            };
            self.turn(wake)?;
        }
    }

    /// So many at once.
    fn burst(&mut self, count: usize) -> io::Result<()> {
        self.measuring = true;
        let (began, before) = (Instant::now(), Cpu::now());
        for _ in 0..count {
            self.begin(Instant::now());
        }
        self.let_end(self.options.timeout)?;
        self.report.measured(began.elapsed(), &before, &Cpu::now());
        Ok(())
    }

    fn let_end(&mut self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        while self.under_way() > 0 && Instant::now() < deadline {
            self.turn(deadline.min(Instant::now() + LOOK))?;
            self.give_up(Instant::now());
        }
        for at in 0..self.clients.len() {
            if self.clients[at].is_some() {
                self.fail(at, "timeout");
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Report {
        self.report.first_us = self.first.spread();
        self.report.whole_us = self.whole.spread();
        self.report.connect_us = self.connect.spread().filter(|_| self.report.kind == "burst");
        self.report
    }

    fn under_way(&self) -> usize {
        self.clients.len() - self.free.len()
    }

    fn nobody_there(&self) -> bool {
        self.report.checked == 0 && self.report.errors.values().sum::<u64>() >= REFUSED_MOST
    }

    /// One more client, which was meant to come at this time.
    fn begin(&mut self, began: Instant) {
        let mut line = *b"tine 0000000000000000\n";
        let mut number = self.number;
        for digit in line[5..LINE - 1].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(number & 15) as usize];
            number >>= 4;
        }
        self.number += 1;
        let client = Client { socket: None, began, connected: None, first: None, line, sent: 0, got: 0 };
        let at = self.free.pop().unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        self.clients[at] = Some(client);
        self.connect(at);
    }

    fn connect(&mut self, at: usize) {
        match begin(&self.options.to, &mut self.sources) {
            Ok(Attempt::Begun(socket)) => self.greet(at, socket),
            Ok(Attempt::Full) => self.full.push(at),
            Err(why) => self.fail(at, name(why)),
        }
    }

    fn greet(&mut self, at: usize, socket: OwnedFd) {
        let Some(client) = &mut self.clients[at] else { return };
        let socket = client.socket.insert(socket);
        // Where it is not connected yet, the line follows with the first event.
        let sent = send(&*socket, &client.line, SendFlags::NOSIGNAL);
        let events = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let events = match sent {
            Ok(sent) => {
                client.sent = sent;
                client.connected = Some(Instant::now());
                events
            }
            Err(Errno::AGAIN | Errno::NOTCONN) => events | epoll::EventFlags::OUT,
            Err(why) => return self.fail(at, name(why)),
        };
        if let Err(why) = epoll::add(&self.epoll, &*socket, epoll::EventData::new_u64(at as u64), events) {
            self.fail(at, name(why));
        }
    }

    /// Waits until something happens, but no longer than until `wake`, and heeds it.
    fn turn(&mut self, wake: Instant) -> io::Result<()> {
        let mut wait = wake.saturating_duration_since(Instant::now());
        if !self.full.is_empty() {
            wait = wait.min(Duration::from_micros(500));
        }
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        for event in &events {
            let (flags, data) = (event.flags, event.data);
            self.happened(data.u64() as usize, flags);
        }
        self.events = events;
        for at in std::mem::take(&mut self.full) {
            if self.clients[at].is_some() {
                self.connect(at);
            }
        }
        Ok(())
    }

    fn happened(&mut self, at: usize, flags: epoll::EventFlags) {
        let Some(client) = &mut self.clients[at] else { return };
        let Some(socket) = &client.socket else { return };
        if client.sent < LINE {
            match send(socket, &client.line[client.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    client.connected.get_or_insert_with(Instant::now);
                    client.sent += sent;
                }
                Err(Errno::AGAIN) => return,
                Err(why) => {
                    // What a refused connection failed of is told by the socket, once.
                    let why = sockopt::socket_error(socket).ok().and_then(Result::err).unwrap_or(why);
                    return self.fail(at, name(why));
                }
            }
        }
        let ending =
            flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        let mut buffer = [0; 256];
        loop {
            let got = match recv(socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, 0)) if client.got == LINE => return self.done(at),
                Ok((_, 0)) if client.got == 0 => return self.fail(at, "no_reply"),
                Ok((_, 0)) => return self.fail(at, "short_reply"),
                Ok((_, got)) => got,
                Err(Errno::AGAIN) => return,
                Err(why) => return self.fail(at, name(why)),
            };
            client.first.get_or_insert_with(Instant::now);
            if client.line.get(client.got..client.got + got) != Some(&buffer[..got]) {
                return self.fail(at, "wrong_reply");
            }
            client.got += got;
            if !ending {
                return; // there will be another event
            }
        }
    }

    fn done(&mut self, at: usize) {
        let Some(client) = self.clients[at].take() else { return };
        self.free.push(at);
        self.report.checked += 1;
        if self.measuring {
            self.report.done += 1;
            self.whole.note(client.began.elapsed());
            let note = |times: &mut Times, then: Option<Instant>| {
                then.map(|then| times.note(then.saturating_duration_since(client.began)))
            };
            note(&mut self.first, client.first);
            note(&mut self.connect, client.connected);
        }
    }

    fn fail(&mut self, at: usize, kind: &str) {
        if self.clients[at].take().is_some() {
            self.free.push(at);
            self.report.error(kind);
        }
    }

    fn give_up(&mut self, now: Instant) {
        for at in 0..self.clients.len() {
            if let Some(client) = &self.clients[at]
                && now.saturating_duration_since(client.began) > self.options.timeout
            {
                self.fail(at, "timeout");
            }
        }
    }
}

/// What an error is counted as.
fn name(why: Errno) -> &'static str {
    match why {
        Errno::CONNREFUSED => "refused",
        Errno::CONNRESET | Errno::PIPE => "reset",
        Errno::TIMEDOUT => "timeout",
        Errno::ADDRINUSE | Errno::ADDRNOTAVAIL => "no_port",
        Errno::MFILE | Errno::NFILE => "no_descriptor",
        Errno::NOENT => "refused",
        _ => "other",
    }
}

/// A client that asks once, waiting for everything: whether a server is there and answers right.
///
/// # Errors
/// What kept it from a right answer.
pub fn ask(target: &Target) -> io::Result<()> {
    use std::io::{Read, Write};
    const LINE: &[u8] = b"are you there?\n";
    fn converse(mut stream: impl Read + Write) -> io::Result<()> {
        stream.write_all(LINE)?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        if reply == LINE { Ok(()) } else { Err(io::Error::other(format!("the reply was {reply:?}"))) }
    }
    let patience = Some(Duration::from_secs(5));
    match target {
        Target::Inet(to) => {
            let stream = std::net::TcpStream::connect(to)?;
            stream.set_read_timeout(patience)?;
            converse(stream)
        }
        Target::Unix(path) => {
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::{SocketAddr, UnixStream};
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(path)?,
            };
            let stream = UnixStream::connect_addr(&address)?;
            stream.set_read_timeout(patience)?;
            converse(stream)
        }
    }
}
