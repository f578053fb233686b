//! Idle clients: opened before anything is measured, kept open, and ended all at once.
//!
//! The server has taken them when its listener's queue is empty: proc_net_tcp(5), where the receive queue of a listening
//! socket is the number of connections that nobody has accepted yet.

use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::report::Report;
use super::target::{Attempt, Sources, Target, begin};

/// So many are opened before we look whether the server has taken them: less than any queue that is asked for.
const AT_ONCE: usize = 250;

/// How long the server may take for these.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that say nothing.
#[derive(Debug, Default)]
pub struct Held {
    sockets: Vec<OwnedFd>,
}

impl Held {
    /// Opens so many, and waits until the server has taken them.
    ///
    /// # Errors
    /// When one cannot be opened, or the server does not take them.
    pub fn open(count: usize, target: &Target, sources: &mut Sources) -> io::Result<Held> {
        let mut held = Held { sockets: Vec::with_capacity(count) };
        while held.sockets.len() < count {
            let lot = AT_ONCE.min(count - held.sockets.len());
            for _ in 0..lot {
                held.sockets.push(connected(target, sources)?);
            }
            until("the server does not take the idle clients", || queued(target) == 0)?;
        }
        Ok(held)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sockets.len()
    }

    /// How many the server has ended or spoken to.
    pub fn lost(&self) -> usize {
        let mut byte = [0; 1];
        let quiet = |socket: &&OwnedFd| {
            !matches!(recv(socket, &mut byte[..], RecvFlags::DONTWAIT), Err(Errno::AGAIN))
        };
        self.sockets.iter().filter(quiet).count()
    }
}

/// Opens idle clients, says so on standard output, waits for standard input, and ends them all.
///
/// # Errors
/// As [`Held::open`].
pub fn until_told(count: usize, target: &Target, sources: &mut Sources) -> io::Result<Report> {
    let mut report = Report::new("hold");
    let began = Instant::now();
    let held = Held::open(count, target, sources)?;
    report.held = Some(held.count() as u64);
    report.held_seconds = Some(began.elapsed().as_secs_f64());
    println!("{}", serde_json::to_string(&report).map_err(io::Error::other)?);
    io::stdout().flush()?;
    io::stdin().lock().read_line(&mut String::new())?;
    (0..held.lost()).for_each(|_| report.error("idle_lost"));
    let now = clock_gettime(ClockId::Monotonic);
    report.released_at_ns = Some(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs());
    let began = Instant::now();
    drop(held);
    report.released_seconds = Some(began.elapsed().as_secs_f64());
    Ok(report)
}

/// Makes sure that so many descriptors may be open.
///
/// # Errors
/// When that is more than the hard limit, and we may not raise it.
pub fn allow_descriptors(count: usize) -> io::Result<()> {
    let wanted = count as u64 + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .map_err(|why| io::Error::other(format!("open {wanted} descriptors at once: {why}")))
}

/// A client that is connected, and has said nothing.
///
/// # Errors
/// When it cannot be, or the server's queue stays full.
pub fn connected(target: &Target, sources: &mut Sources) -> io::Result<OwnedFd> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match begin(target, sources)? {
            Attempt::Begun(socket) => {
                let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
                poll(&mut fds, Some(&Timespec { tv_sec: 30, tv_nsec: 0 }))?;
                sockopt::socket_error(&socket)??;
                return Ok(socket);
            }
            Attempt::Full if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            Attempt::Full => return Err(io::Error::other("the server's queue stays full")),
        }
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > deadline {
            return Err(io::Error::other(what));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// How many connections wait in the queues of all listeners at the target; of a Unix one nothing is told.
fn queued(target: &Target) -> u64 {
    let Target::Inet(to) = target else { return 0 };
    fs::read_to_string("/proc/net/tcp").map_or(0, |text| queue_of(&text, to.port()))
}

fn queue_of(table: &str, port: u16) -> u64 {
    let port = format!(":{port:04X}");
    let queue = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let here = fields.next()?.ends_with(&port);
        let listening = fields.nth(1)? == "0A";
        let (_, waiting) = fields.next()?.split_once(':')?;
        (here && listening).then(|| u64::from_str_radix(waiting, 16).ok())?
    };
    table.lines().filter_map(queue).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_of_a_listener_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
                     0: 0100007F:1B58 00000000:0000 0A 00000000:0000001F 00:00000000 00000000 0 0 1 1\n\
                     1: 00000000:1B58 00000000:0000 0A 00000000:00000001 00:00000000 00000000 0 0 1 1\n\
                     2: 0100007F:1B58 0100017F:8000 01 00000000:00000007 00:00000000 00000000 0 0 1 1\n\
                     3: 0100007F:1B59 00000000:0000 0A 00000000:00000005 00:00000000 00000000 0 0 1 1\n";
        assert_eq!(queue_of(table, 7000), 32);
        assert_eq!(queue_of(table, 1), 0);
    }
}
