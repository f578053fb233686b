//! Sessions that stay open: each says a byte every few milliseconds and gets it back, first alone, then while others arrive.
//!
//! They have a thread of their own, so that beginning and ending the others delays none of their bytes. A byte is sent at its time
//! whether the one before is back or not, so that one long wait is not counted as one alone. Its time counts from right before it
//! was sent: what the machine's scheduler did to this thread before that is no doing of the server's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use super::hold::connected;
use super::options::Options;
use super::report::{Report, Times};
use super::target::{Sources, Target};

/// How long bytes that are under way at the end have to come back, and first ones to be there at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes under way in one session at most: beyond that nothing is sent until some are back.
const UNDER_WAY_MOST: usize = 1024;

/// What is going on: bytes are sent all the time, and counted in two of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing is counted.
    Pause,
    /// The sessions are alone.
    Alone,
    /// Others arrive.
    Arrivals,
    /// No more is sent.
    End,
}

/// Tells the sessions' thread what is going on.
#[derive(Debug, Default)]
pub struct Phases(AtomicU8);

impl Phases {
    /// From now on.
    pub fn enter(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    fn now(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Pause,
            1 => Phase::Alone,
            2 => Phase::Arrivals,
            _ => Phase::End,
        }
    }
}

/// Open sessions.
#[derive(Debug)]
pub struct Sessions {
    all: Vec<Session>,
    every: Duration,
}

#[derive(Debug)]
struct Session {
    /// `None` once it has failed.
    socket: Option<OwnedFd>,
    /// When the next byte is to be sent.
    next: Instant,
    byte: u8,
    /// Those that are not back yet, each with when it was sent, and in which phase.
    under_way: VecDeque<(u8, Instant, Phase)>,
}

/// What they found.
#[derive(Default)]
pub struct Found {
    /// Round trips while they were alone.
    pub alone: Times,
    /// Round trips while others arrived.
    pub arrivals: Times,
    errors: Vec<&'static str>,
}

impl Found {
    /// Adds it to the report.
    pub fn tell(&self, report: &mut Report) {
        report.open_alone_us = self.alone.spread();
        report.open_us = self.arrivals.spread();
        self.errors.iter().for_each(|kind| report.error(kind));
    }
}

impl Sessions {
    /// Opens so many, and waits until each has had a byte back.
    ///
    /// # Errors
    /// When one cannot be opened, or says nothing.
    pub fn open(options: &Options, target: &Target, sources: &mut Sources) -> io::Result<Sessions> {
        let mut all = Vec::with_capacity(options.open);
        for _ in 0..options.open {
            let socket = connected(target, sources)?;
            send(&socket, b"?", SendFlags::NOSIGNAL)?;
            all.push(Session {
                socket: Some(socket),
                next: Instant::now(),
                byte: 0,
                under_way: VecDeque::new(),
            });
        }
        for session in &all {
            let socket = session.socket.as_ref().expect("none has failed yet");
            let mut byte = [0; 2];
            poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timespec(PATIENCE)))?;
            match recv(socket, &mut byte[..], RecvFlags::DONTWAIT) {
                Ok((_, 1)) if byte[0] == b'?' => {}
                Ok(_) => {
                    return Err(io::Error::other("the server's program ends, or echoes no byte by itself"));
                }
                Err(Errno::AGAIN) => return Err(io::Error::other("an open session says nothing")),
                Err(why) => return Err(why.into()),
            }
            sockopt::set_tcp_nodelay(socket, true).or_else(|why| match target {
                Target::Unix(_) => Ok(()),
                Target::Inet(_) => Err(why),
            })?;
        }
        // Not all at once: their times are spread over the interval.
        let now = Instant::now();
        let every = options.every;
        for (number, session) in (0..).zip(&mut all) {
            session.next = now + every * number / options.open.max(1) as u32;
        }
        Ok(Sessions { all, every })
    }

    /// Sends and receives until the phase is the end.
    ///
    /// # Errors
    /// When it cannot wait.
    pub fn run(mut self, phases: &Phases) -> io::Result<Found> {
        let mut found = Found::default();
        let mut deadline = None;
        loop {
            let (now, phase) = (Instant::now(), phases.now());
            if phase == Phase::End {
                let end = *deadline.get_or_insert(now + PATIENCE);
                if self.all.iter().all(Session::is_done) {
                    return Ok(found);
                }
                if now >= end {
                    let late = self.all.iter().filter(|session| !session.is_done()).count();
                    found.errors.extend(std::iter::repeat_n("session_timeout", late));
                    return Ok(found);
                }
            }
            let mut wake = now + Duration::from_millis(20);
            for session in self.all.iter_mut().filter(|_| phase != Phase::End) {
                if session.next <= now && session.socket.is_some() {
                    session.say(phase, &mut found);
                    // Those whose time has gone by unseen are not sent all at once.
                    while session.next <= now {
                        session.next += self.every;
                    }
                }
                wake = wake.min(session.next.max(now));
            }
            self.hear(wake, &mut found)?;
        }
    }

    fn hear(&mut self, until: Instant, found: &mut Found) -> io::Result<()> {
        let alive: Vec<usize> = (0..self.all.len()).filter(|at| self.all[*at].socket.is_some()).collect();
        let mut fds: Vec<PollFd<'_>> = alive
            .iter()
            .filter_map(|at| Some(PollFd::new(self.all[*at].socket.as_ref()?, PollFlags::IN)))
            .collect();
        match poll(&mut fds, Some(&timespec(until.saturating_duration_since(Instant::now())))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        let ready: Vec<usize> =
            fds.iter().zip(&alive).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, at)| *at).collect();
        drop(fds);
        for at in ready {
            self.all[at].hear(found);
        }
        Ok(())
    }
}

impl Session {
    fn is_done(&self) -> bool {
        self.socket.is_none() || self.under_way.is_empty()
    }

    fn say(&mut self, phase: Phase, found: &mut Found) {
        let Some(socket) = &self.socket else { return };
        if self.under_way.len() >= UNDER_WAY_MOST {
            return;
        }
        // The program takes a newline for the end: no byte is one.
        self.byte = if self.byte >= b'z' { b'a' } else { (self.byte + 1).max(b'a') };
        let sent = Instant::now();
        match send(socket, &[self.byte], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => self.under_way.push_back((self.byte, sent, phase)),
            Err(Errno::AGAIN) => {}
            Err(_) => self.fail("session_lost", found),
        }
    }

    fn hear(&mut self, found: &mut Found) {
        let Some(socket) = &self.socket else { return };
        let mut bytes = [0; 256];
        let got = match recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return self.fail("session_lost", found),
            Ok((_, got)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => return self.fail("session_lost", found),
        };
        let now = Instant::now();
        for byte in &bytes[..got] {
            match self.under_way.pop_front() {
                Some((sent, at, phase)) if sent == *byte => match phase {
                    Phase::Alone => found.alone.note(now.saturating_duration_since(at)),
                    Phase::Arrivals => found.arrivals.note(now.saturating_duration_since(at)),
                    Phase::Pause | Phase::End => {}
                },
                _ => return self.fail("session_wrong", found),
            }
        }
    }

    fn fail(&mut self, kind: &'static str, found: &mut Found) {
        self.socket = None;
        found.errors.push(kind);
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}
