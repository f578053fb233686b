//! `tine connect`: a client to try servers with. Both directions at once, the end of input passed on as a half-close,
//! until the server ends.
//!
//! A connection is served by two threads, so that neither direction ever waits for the other: this one receives, the
//! other sends. Datagrams have no end, so for them one loop waits for whatever comes first.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tine::{Listen, Transport};

use crate::exit::{Failure, Outcome};
use crate::flags::Connect;

/// What is read at once.
const CHUNK: usize = 1 << 16;

/// The longest record or datagram that is sent: what UDP over IPv4 has room for.
const RECORD: usize = 65_507;

/// Room for a record: more than the kernel lets anybody send by default.
const RECORD_ROOM: usize = 1 << 20;

/// How often input is looked at after the server has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Connects, and is a client until the end.
pub fn connect(flags: &Connect) -> Outcome {
    let listen: Listen =
        flags.address.parse().map_err(|why| Failure::operator(format_args!("connect: {why}")))?;
    if let Some((bare, options)) = flags.address.split_once('?') {
        return Err(Failure::operator(format_args!(
            "connect: address '{bare}': the options '{options}' are for a server; leave them out"
        )));
    }
    let socket = listen.connect().map_err(|why| refused(&listen, &why))?;
    match listen.transport() {
        Transport::Datagram => datagrams(&listen, &socket, Duration::from_secs_f64(flags.wait)),
        transport => connection(&listen, socket, transport),
    }
}

fn refused(listen: &Listen, why: &io::Error) -> Failure {
    let advice = match why.kind() {
        io::ErrorKind::ConnectionRefused => "; nobody listens there",
        io::ErrorKind::NotFound => "; there is no such socket",
        io::ErrorKind::Unsupported => "; connect to the address that the server was given",
        io::ErrorKind::TimedOut => "; nothing answers there, or a firewall is in between",
        _ if Errno::from_io_error(why) == Some(Errno::PROTOTYPE) => {
            "; it is a socket of another kind: unix:, seqpacket: and unixgram: are three"
        }
        _ => "",
    };
    let message = format_args!("connect {listen}: {why}{advice}").to_string();
    if why.kind() == io::ErrorKind::Unsupported {
        Failure::operator(message)
    } else {
        Failure::system(message)
    }
}

/// A connection of bytes or of records.
fn connection(listen: &Listen, socket: OwnedFd, transport: Transport) -> Outcome {
    let socket = Arc::new(socket);
    let sending = Arc::new(Sending::default());
    let (theirs, state) = (Arc::clone(&socket), Arc::clone(&sending));
    thread::spawn(move || {
        let end = match transport {
            Transport::Stream => send_bytes(theirs.as_fd(), &state),
            _ => send_records(theirs.as_fd(), &state),
        };
        // There will be no more, for whatever reason. A server that has gone needs not be told.
        let _ = shutdown(&*theirs, Shutdown::Write);
        state.set(State::Ended(end));
    });
    receive(listen, socket.as_fd(), transport)?;
    sending.end_of_server().map_err(|stop| match stop {
        Stop::Input(why) => input(&why),
        Stop::Output(why) => Failure::broken(format_args!(
            "connect {listen}: the server ended before all input was sent: {why}"
        )),
    })
}

/// Everything that comes goes to standard output, until the server has said all.
fn receive(listen: &Listen, socket: BorrowedFd<'_>, transport: Transport) -> Outcome {
    let mut bytes = vec![0; if transport == Transport::Stream { CHUNK } else { RECORD_ROOM }];
    let mut out = Out::open()?;
    loop {
        match retry_on_intr(|| recv(socket, &mut bytes[..], RecvFlags::empty())) {
            Ok((_, 0)) => return Ok(()),
            Ok((_, length)) => out.write(&bytes[..length])?,
            Err(why) => {
                return Err(Failure::broken(format_args!(
                    "connect {listen}: receive: {}",
                    io::Error::from(why)
                )));
            }
        }
    }
}

/// Where the sending thread is.
#[derive(Debug, Default)]
struct Sending {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    /// It waits for input.
    #[default]
    Reading,
    /// It has input that is not sent yet.
    Sending,
    /// It is done: all is sent and the end passed on, or not.
    Ended(Result<(), Stop>),
}

/// Why sending stopped too soon.
#[derive(Debug)]
enum Stop {
    /// Standard input cannot be read.
    Input(io::Error),
    /// The server does not take it.
    Output(io::Error),
}

impl Sending {
    fn set(&self, state: State) {
        *self.lock() = state;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server has ended its direction: whatever input there is must still be sent, or the conversation was cut short.
    /// Input that may come some day is not waited for.
    fn end_of_server(&self) -> Result<(), Stop> {
        let mut state = self.lock();
        loop {
            match &mut *state {
                State::Ended(how) => return std::mem::replace(how, Ok(())),
                State::Reading if !is_readable(io::stdin().as_fd()) => return Ok(()),
                _ => {}
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Sends input as it comes.
fn send_bytes(socket: BorrowedFd<'_>, state: &Sending) -> Result<(), Stop> {
    let mut bytes = vec![0; CHUNK];
    loop {
        state.set(State::Reading);
        let length = read(&mut bytes).map_err(Stop::Input)?;
        state.set(State::Sending);
        if length == 0 {
            return Ok(());
        }
        send_all(socket, &bytes[..length])?;
    }
}

/// Sends each line of input as a record.
fn send_records(socket: BorrowedFd<'_>, state: &Sending) -> Result<(), Stop> {
    let (mut bytes, mut records) = (vec![0; CHUNK], Records::default());
    loop {
        state.set(State::Reading);
        let length = read(&mut bytes).map_err(Stop::Input)?;
        state.set(State::Sending);
        records.push(&bytes[..length], length == 0);
        while let Some(record) = records.next() {
            send_some(socket, record)?;
        }
        if length == 0 {
            return Ok(());
        }
    }
}

fn read(bytes: &mut [u8]) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::io::read(io::stdin().as_fd(), &mut *bytes))?)
}

fn send_all(socket: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Stop> {
    while !bytes.is_empty() {
        bytes = &bytes[send_some(socket, bytes)?..];
    }
    Ok(())
}

fn send_some(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Stop> {
    retry_on_intr(|| send(socket, bytes, SendFlags::NOSIGNAL)).map_err(|why| Stop::Output(why.into()))
}

/// Datagrams both ways, until none has come for `wait` after the end of input.
fn datagrams(listen: &Listen, socket: &OwnedFd, wait: Duration) -> Outcome {
    let broken = |what: &str, why: Errno| {
        let advice = if why == Errno::CONNREFUSED { "; nobody listens there" } else { "" };
        Failure::broken(format_args!("connect {listen}: {what}: {}{advice}", io::Error::from(why)))
    };
    let (mut bytes, mut records, mut out) = (vec![0; RECORD_ROOM], Records::default(), Out::open()?);
    let (stdin, mut until) = (io::stdin(), None);
    loop {
        let mut fds = vec![PollFd::new(socket, PollFlags::IN)];
        if until.is_none() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let left = until.map(|until: Instant| until.saturating_duration_since(Instant::now()));
        let found = retry_on_intr(|| poll(&mut fds, left.map(timespec).as_ref()));
        if found.map_err(|why| broken("poll", why))? == 0 {
            return Ok(());
        }
        let [reply, input_ready] = [0, 1].map(|at| fds.get(at).is_some_and(|fd| !fd.revents().is_empty()));
        if reply {
            let (_, length) = retry_on_intr(|| recv(socket, &mut bytes[..], RecvFlags::empty()))
                .map_err(|why| broken("receive", why))?;
            out.write(&bytes[..length])?;
            until = until.map(|_| Instant::now() + wait);
        }
        if input_ready {
            let length = read(&mut bytes[..CHUNK]).map_err(|why| input(&why))?;
            records.push(&bytes[..length], length == 0);
            while let Some(record) = records.next() {
                retry_on_intr(|| send(socket, record, SendFlags::NOSIGNAL))
                    .map_err(|why| broken("send", why))?;
            }
            if length == 0 {
                until = Some(Instant::now() + wait);
            }
        }
    }
}

/// Input cut into records: a line each, with its newline; one that is longer than a record may be is cut.
#[derive(Debug, Default)]
struct Records {
    bytes: Vec<u8>,
    /// Where the next record begins.
    at: usize,
    ended: bool,
}

impl Records {
    fn push(&mut self, bytes: &[u8], ended: bool) {
        self.bytes.drain(..std::mem::take(&mut self.at));
        self.bytes.extend_from_slice(bytes);
        self.ended |= ended;
    }

    fn next(&mut self) -> Option<&[u8]> {
        let rest = &self.bytes[self.at..];
        let line = rest.iter().take(RECORD).position(|byte| *byte == b'\n').map(|at| at + 1);
        let whole = line.or((rest.len() >= RECORD).then_some(RECORD));
        let length = whole.or((self.ended && !rest.is_empty()).then_some(rest.len()))?;
        self.at += length;
        Some(&rest[..length])
    }
}

/// Standard output, without a buffer.
struct Out(std::fs::File);

impl Out {
    fn open() -> Result<Out, Failure> {
        let fd = io::stdout().as_fd().try_clone_to_owned();
        fd.map(|fd| Out(fd.into())).map_err(|why| Failure::system(format_args!("standard output: {why}")))
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome {
        self.0.write_all(bytes).map_err(|why| match why.kind() {
            // As if by SIGPIPE: nobody reads on, and nobody wants to hear of it.
            io::ErrorKind::BrokenPipe => Failure::silent(),
            _ => Failure::system(format_args!("write standard output: {why}")),
        })
    }
}

fn input(why: &io::Error) -> Failure {
    Failure::system(format_args!("read standard input: {why}"))
}

/// Whether something can be read now; the end counts.
fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timespec(Duration::ZERO))).is_ok_and(|ready| ready > 0)
}

fn timespec(duration: Duration) -> Timespec {
    // A wait is a million seconds at most: flags.rs.
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut records, mut found) = (Records::default(), Vec::new());
        for piece in pieces {
            records.push(piece, piece.is_empty());
            found.extend(std::iter::from_fn(|| records.next().map(<[u8]>::to_vec)));
        }
        found
    }

    #[test]
    fn a_record_is_a_line_however_it_was_read() {
        assert_eq!(cut(&[b"a\nb", b"c\n\nd", b""]), [&b"a\n"[..], b"bc\n", b"\n", b"d"]);
        assert_eq!(cut(&[b"a"]), [] as [&[u8]; 0], "the rest of the line may come");
        assert_eq!(cut(&[b""]), [] as [&[u8]; 0]);
    }

    #[test]
    fn a_line_longer_than_a_record_is_cut_and_loses_nothing() {
        let line = vec![b'x'; RECORD * 2 + 5];
        let lengths: Vec<_> = cut(&[&line, b""]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [RECORD, RECORD, 5]);
    }
}
