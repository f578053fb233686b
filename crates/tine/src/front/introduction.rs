//! Introduction: a client that comes through a balancer is somebody else than its socket says. Its child reads the PROXY
//! header, says on a line to the master who it is, and hears whether that one may come in.
//!
//! The header is read to its last byte and not one further: what is peeked at is taken only when it is known to belong to the
//! header. The master reads fixed messages from the child, never a byte of the client's.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use tine_os::fd;
use tine_os::fork::exit;
use tine_os::socket::{self, Addr, RawAddr};

use crate::front::proxy::{self, Claim, Header, Parsed};
use crate::life::admit::{MESSAGE_MOST, Prefixes};
use crate::life::bind::unmapped;
use crate::peer::Peer;

/// Who may speak for others, and how.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Balancers {
    /// Balancers by address.
    pub from: Prefixes,
    /// Whether whoever connects to a Unix socket is one.
    pub unix: bool,
    /// How long they have to say who the client is. Default 10 seconds.
    pub timeout: Option<Duration>,
}

/// What a child says on its line.
#[derive(Debug)]
pub(crate) enum Says {
    /// A header of so many bytes.
    Client {
        /// Whom the balancer speaks for, and where that one has connected to; `None` for itself.
        ends: Option<(Addr, Addr)>,
        /// The header's length in bytes.
        header: u16,
    },
    /// It said nothing that could be understood, and what was wrong with it.
    Nothing(String),
}

/// What a child hears.
#[derive(Debug)]
pub(crate) enum Hears {
    /// The client may come in; so many of its source are here.
    Come { from_same: u32 },
    /// It may not; what to tell it.
    Go { message: Vec<u8> },
}

/// Who the client is, for those who come after this.
#[derive(Debug)]
pub(crate) struct Introduced {
    pub peer: Peer,
    pub local: Addr,
    pub from_same: usize,
    pub header: Header,
}

/// The longest message in either direction.
const MESSAGE: usize = 1 + 2 + 2 * RawAddr::WIRE;

/// The longest that a client is told why it may not come in, in bytes, its line's end included.
const WORDS: usize = MESSAGE_MOST + 1;

/// How long a balancer has to say who its client is. The protocol wants three seconds at least: a lost packet takes as long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

impl Balancers {
    /// Whether this one may speak for others.
    pub(crate) fn trusts(&self, peer: &Peer) -> bool {
        match peer.ip() {
            Some(ip) => self.from.contains(ip),
            None => self.unix && !matches!(peer.addr, Addr::Vsock { .. }),
        }
    }
}

/// In a child: finds out who the client is. A client that may not come in is told so and the process ends; so it does when the
/// master is gone.
///
/// # Errors
/// When the line does not work.
pub(crate) fn introduce(
    conn: BorrowedFd<'_>,
    line: BorrowedFd<'_>,
    timeout: Duration,
    own: (&Peer, &Addr),
) -> io::Result<Introduced> {
    let (says, header) = match read_header(conn, timeout) {
        Ok((header, length)) => {
            let ends = match &header.claim {
                Claim::Ends { source, destination } => Some((source.clone(), destination.clone())),
                _ => None,
            };
            (Says::Client { ends, header: length as u16 }, Some(header))
        }
        Err(why) => (Says::Nothing(why), None),
    };
    socket::send(line, &says.to_bytes()?)?;
    let mut answer = [0; 8 + WORDS];
    let length = socket::receive(line, &mut answer)?;
    match (Hears::read(&answer[..length]), says, header) {
        (Some(Hears::Come { from_same }), Says::Client { ends, .. }, Some(header)) => {
            let (peer, local) = match ends {
                Some((source, destination)) => {
                    (Peer { addr: unmapped(source), credentials: None }, unmapped(destination))
                }
                None => (own.0.clone(), own.1.clone()),
            };
            Ok(Introduced { peer, local, from_same: from_same as usize, header })
        }
        (Some(Hears::Go { message }), ..) => {
            // Whoever is not let in need not hear why.
            let _ = socket::send(conn, &message);
            exit(0)
        }
        _ => exit(0),
    }
}

/// Reads a header, and nothing after it; gives its length as well. What is wrong is told in words.
fn read_header(conn: BorrowedFd<'_>, timeout: Duration) -> Result<(Header, usize), String> {
    let until = Instant::now() + timeout;
    let (mut bytes, mut have) = (vec![0; proxy::LONGEST], 0);
    loop {
        let mut ready = Vec::new();
        let rest = until.saturating_duration_since(Instant::now());
        let waited = fd::wait_readable(&[conn], Some(rest), &mut ready);
        if waited.is_err() || ready != [true] {
            if rest.is_zero() || waited.is_err() {
                return Err(format!("no PROXY header within {} seconds", timeout.as_secs_f32()));
            }
            continue;
        }
        let more = socket::peek(conn, &mut bytes[have..]).map_err(|why| tine_os::plain(&why))?;
        if more == 0 {
            return Err("the connection ended before the PROXY header did".into());
        }
        match proxy::parse(&bytes[..have + more]).map_err(|why| why.to_string())? {
            Parsed::Incomplete => take(conn, &mut bytes[have..have + more])?,
            Parsed::Complete { header, length } => {
                take(conn, &mut bytes[have..length])?;
                return Ok((header, length));
            }
        }
        have += more;
    }
}

/// Takes what was peeked at.
fn take(conn: BorrowedFd<'_>, mut bytes: &mut [u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        match socket::receive(conn, bytes).map_err(|why| tine_os::plain(&why))? {
            0 => return Err("the connection ended".into()),
            taken => bytes = &mut bytes[taken..],
        }
    }
    Ok(())
}

impl Says {
    const OWN: u8 = 0;
    const CLIENT: u8 = 1;
    const NOTHING: u8 = 2;

    fn to_bytes(&self) -> io::Result<Vec<u8>> {
        Ok(match self {
            Says::Client { ends: None, header } => [&[Says::OWN][..], &header.to_ne_bytes()].concat(),
            Says::Client { ends: Some((source, destination)), header } => {
                let (source, destination) = (RawAddr::new(source)?, RawAddr::new(destination)?);
                let (source, destination) = (source.to_bytes(), destination.to_bytes());
                [&[Says::CLIENT][..], &header.to_ne_bytes(), &source, &destination].concat()
            }
            Says::Nothing(why) => {
                let why = why.as_bytes();
                [&[Says::NOTHING], &why[..why.len().min(MESSAGE - 1)]].concat()
            }
        })
    }

    /// In the master: what a child says is gossip, and believed only where it makes sense.
    pub(crate) fn receive(line: &OwnedFd) -> io::Result<Option<Says>> {
        let mut bytes = [0; MESSAGE];
        let length = match socket::receive(line, &mut bytes) {
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        let addr = |wire: &[u8]| RawAddr::from_bytes(wire).and_then(|raw| raw.get()).map(unmapped);
        let says = match bytes[..length].split_first() {
            Some((&Says::OWN, &[a, b])) => {
                Some(Says::Client { ends: None, header: u16::from_ne_bytes([a, b]) })
            }
            Some((&Says::CLIENT, &[a, b, ref ends @ ..])) if ends.len() == 2 * RawAddr::WIRE => {
                let (source, destination) = ends.split_at(RawAddr::WIRE);
                let header = u16::from_ne_bytes([a, b]);
                let ends = addr(source).zip(addr(destination));
                ends.map(|ends| Says::Client { ends: Some(ends), header })
            }
            Some((&Says::NOTHING, why)) => Some(Says::Nothing(String::from_utf8_lossy(why).into_owned())),
            _ => None,
        };
        says.map(Some).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Hears {
    const COME: u8 = 1;
    const GO: u8 = 0;

    /// In the master. A child that does not listen has its reasons, and is not waited for.
    pub(crate) fn send(&self, line: &OwnedFd) {
        let bytes = match self {
            Hears::Come { from_same } => [&[Hears::COME][..], &from_same.to_ne_bytes()].concat(),
            Hears::Go { message } => [&[Hears::GO][..], &message[..message.len().min(WORDS)]].concat(),
        };
        let _ = socket::send(line, &bytes);
    }

    fn read(bytes: &[u8]) -> Option<Hears> {
        match bytes.split_first()? {
            (&Hears::COME, count) => {
                Some(Hears::Come { from_same: u32::from_ne_bytes(count.try_into().ok()?) })
            }
            (&Hears::GO, message) => Some(Hears::Go { message: message.to_vec() }),
            _ => None,
        }
    }
}

/// The line of a client that has said something to be counted as.
pub(crate) fn words(message: Option<&str>) -> Vec<u8> {
    let Some(message) = message else { return Vec::new() };
    let end = if message.ends_with('\n') { "" } else { "\n" };
    format!("{message}{end}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_and_heard_survives_the_line_and_nonsense_does_not() {
        let (ours, theirs) = socket::pair(socket::Kind::Packet).unwrap();
        let ends =
            (Addr::Inet("192.0.2.1:7".parse().unwrap()), Addr::Inet("[2001:db8::1]:9".parse().unwrap()));
        socket::send(&theirs, &Says::Client { ends: Some(ends.clone()), header: 47 }.to_bytes().unwrap())
            .unwrap();
        assert!(
            matches!(Says::receive(&ours), Ok(Some(Says::Client { ends: Some(heard), header: 47 })) if heard == ends)
        );
        socket::send(&theirs, &Says::Client { ends: None, header: 16 }.to_bytes().unwrap()).unwrap();
        assert!(matches!(Says::receive(&ours), Ok(Some(Says::Client { ends: None, header: 16 }))));
        for nonsense in [&[9][..], &[1, 2, 3], &[0, 0], &[1; MESSAGE]] {
            socket::send(&theirs, nonsense).unwrap();
            assert!(Says::receive(&ours).is_err(), "{nonsense:?}");
        }
        Hears::Go { message: words(Some("Later.")) }.send(&ours);
        let mut bytes = [0; 100];
        let length = socket::receive(&theirs, &mut bytes).unwrap();
        assert!(
            matches!(Hears::read(&bytes[..length]), Some(Hears::Go { message }) if message == b"Later.\n")
        );
        drop(theirs);
        assert!(Says::receive(&ours).is_err(), "nobody is there");
    }
}
