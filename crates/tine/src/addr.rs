//! Where a server listens, as an operator writes it: `tcp://127.0.0.1:7000?backlog=100`, `unix:/run/x?mode=0660`.
//!
//! Parsing only; nothing is opened here. The forms and options are those of tine(8).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::{error, fmt, io};

use tine_os::socket::{Addr, IntOption, NameOption};

/// What arrives at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Connections that carry bytes: TCP, Unix, vsock.
    Stream,
    /// Connections that carry records: Unix seqpacket.
    Packet,
    /// Datagrams: UDP, Unix.
    Datagram,
}

/// A place to listen at, with its options; parsed from a string.
///
/// ```
/// let listen: tine::Listen = "tcp://127.0.0.1:7000?backlog=100&nodelay=1".parse()?;
/// assert_eq!(listen.to_string(), "tcp://127.0.0.1:7000");
/// assert!("tcp://127.0.0.1:7000?backlog=many".parse::<tine::Listen>().is_err());
/// # Ok::<(), tine::AddrError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Listen {
    pub(crate) text: String,
    pub(crate) place: Place,
    pub(crate) transport: Transport,
    pub(crate) options: Options,
}

/// The place itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Each of these; a host name may stand for several.
    At(Vec<Addr>),
    /// Every address of this machine, IPv6 and IPv4, at this port.
    Everywhere(u16),
    /// A descriptor that was inherited under this number.
    Inherited(i32),
    /// The descriptors that systemd passed under this name.
    Systemd(String),
}

/// What may follow the `?`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub backlog: Option<u32>,
    pub mode: Option<u32>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub v6only: bool,
    /// What is set on the socket as it is, with the name that the operator knows it by.
    pub sets: Vec<(&'static str, Set)>,
}

/// An option of the socket and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    Number(IntOption, i32),
    Name(NameOption, String),
}

/// Why a string is no address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrError {
    text: String,
    why: String,
}

impl Listen {
    /// What arrives there. Of an inherited descriptor it is known only when it is bound; `Stream` until then.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The same place with this backlog, unless its options name one. Datagram sockets have none.
    pub fn or_backlog(mut self, backlog: u32) -> Listen {
        self.options.backlog = self.options.backlog.or(Some(backlog));
        self
    }
}

impl FromStr for Listen {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Listen, AddrError> {
        let fail = |why: String| AddrError { text: text.to_owned(), why };
        let (bare, options) = text.split_once('?').unwrap_or((text, ""));
        let (place, transport, family) = place(bare).map_err(fail)?;
        let options = parse_options(options, family, transport).map_err(fail)?;
        Ok(Listen { text: bare.to_owned(), place, transport, options })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address '{}': {}", self.text, self.why)
    }
}

impl error::Error for AddrError {}

/// The family of an address, which decides the options that it takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Inet,
    Path,
    Abstract,
    Vsock,
    Given,
}

const FORMS: &str = "tcp://HOST:PORT, HOST:PORT, :PORT, unix:/PATH, unix:@NAME, seqpacket:/PATH, udp://HOST:PORT, \
                     unixgram:/PATH, vsock:CID:PORT, fd:N or systemd:NAME";

fn place(bare: &str) -> Result<(Place, Transport, Family), String> {
    if let Some(rest) = bare.strip_prefix("tcp://") {
        return Ok((inet(rest)?, Transport::Stream, Family::Inet));
    }
    if let Some(rest) = bare.strip_prefix("udp://") {
        return Ok((inet(rest)?, Transport::Datagram, Family::Inet));
    }
    let unix =
        [("unix:", Transport::Stream), ("seqpacket:", Transport::Packet), ("unixgram:", Transport::Datagram)];
    for (scheme, transport) in unix {
        if let Some(rest) = bare.strip_prefix(scheme) {
            let (addr, family) = unix_name(rest)?;
            return Ok((Place::At(vec![addr]), transport, family));
        }
    }
    if let Some(rest) = bare.strip_prefix("vsock:") {
        return Ok((Place::At(vec![vsock(rest)?]), Transport::Stream, Family::Vsock));
    }
    if let Some(rest) = bare.strip_prefix("fd:") {
        let number = rest.parse::<i32>().ok().filter(|n| *n >= 0 && *n != 1 && *n != 2);
        let number = number.ok_or("a descriptor's number follows 'fd:', 0 or from 3 on")?;
        return Ok((Place::Inherited(number), Transport::Stream, Family::Given));
    }
    if let Some(rest) = bare.strip_prefix("systemd:") {
        if rest.is_empty() {
            return Err(
                "the name of a socket unit's descriptor follows 'systemd:' (FileDescriptorName=)".into()
            );
        }
        return Ok((Place::Systemd(rest.to_owned()), Transport::Stream, Family::Given));
    }
    if let Some((scheme, _)) = bare.split_once("://") {
        return Err(format!("'{scheme}' is no scheme that tine knows; the forms are {FORMS}"));
    }
    if bare.starts_with('/') {
        return Err(format!("a Unix socket is written unix:{bare}"));
    }
    if bare.parse::<u16>().is_ok() {
        return Err(format!(
            "a port alone is written :{bare} (all addresses) or 127.0.0.1:{bare} (this machine only)"
        ));
    }
    Ok((inet(bare)?, Transport::Stream, Family::Inet))
}

fn inet(text: &str) -> Result<Place, String> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(Place::At(vec![Addr::Inet(addr)]));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("there is no port; the forms are {FORMS}"));
    };
    let port: u16 =
        port.parse().map_err(|_| format!("'{port}' is no port: a port is a number from 0 to 65535"))?;
    if host.is_empty() || host == "*" {
        return Ok(Place::Everywhere(port));
    }
    if host.parse::<Ipv6Addr>().is_ok() || host.contains(':') {
        return Err(format!("an IPv6 address is written in brackets: [{host}]:{port}"));
    }
    let found = (host, port)
        .to_socket_addrs()
        .map_err(|why| format!("no address for host '{host}': {}", tidy(&why)))?;
    let mut all: Vec<_> = found.map(Addr::Inet).collect();
    all.sort();
    all.dedup();
    Ok(Place::At(all))
}

/// Name look-ups say "failed to lookup address information: " first, which tells nothing here.
fn tidy(why: &io::Error) -> String {
    let text = why.to_string();
    text.rsplit_once(": ").map_or(text.clone(), |(_, last)| last.to_owned())
}

fn unix_name(text: &str) -> Result<(Addr, Family), String> {
    let path = text.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(text);
    let (addr, family) = match path.strip_prefix('@') {
        Some(name) => (Addr::Abstract(name.as_bytes().to_vec()), Family::Abstract),
        None => (Addr::Path(path.into()), Family::Path),
    };
    match path.len() {
        0 => Err("a path, or @ and an abstract name, follows the colon".into()),
        1 if family == Family::Abstract => Err("an abstract name has at least one character".into()),
        n if n - usize::from(family == Family::Abstract) > 107 => {
            Err(format!("a Unix socket's name has at most 107 bytes, this one {n}"))
        }
        _ => Ok((addr, family)),
    }
}

fn vsock(text: &str) -> Result<Addr, String> {
    let form = "a vsock address is vsock:CID:PORT, with * or nothing for any CID";
    let (cid, port) = text.split_once(':').ok_or(form)?;
    // VMADDR_CID_ANY: vsock(7).
    let cid = if cid.is_empty() || cid == "*" { Ok(u32::MAX) } else { cid.parse() }.map_err(|_| form)?;
    Ok(Addr::Vsock { cid, port: port.parse().map_err(|_| form)? })
}

/// The options that take one number, with the least and the most.
const NUMBERS: [(&str, IntOption, i32, i32); 15] = [
    ("reuseport", IntOption::REUSE_PORT, 0, 1),
    ("freebind", IntOption::FREE_BIND, 0, 1),
    ("transparent", IntOption::TRANSPARENT, 0, 1),
    ("mark", IntOption::MARK, 0, i32::MAX),
    ("priority", IntOption::PRIORITY, 0, 6),
    ("tos", IntOption::TOS, 0, 255),
    ("tclass", IntOption::TRAFFIC_CLASS, 0, 255),
    ("rcvbuf", IntOption::RECEIVE_BUFFER, 1, i32::MAX),
    ("sndbuf", IntOption::SEND_BUFFER, 1, i32::MAX),
    ("nodelay", IntOption::NO_DELAY, 0, 1),
    ("defer-accept", IntOption::DEFER_ACCEPT, 0, 3600),
    ("user-timeout", IntOption::USER_TIMEOUT, 0, i32::MAX),
    ("fastopen", IntOption::FAST_OPEN, 0, 65_535),
    ("keepalive", IntOption::KEEP_ALIVE, 0, i32::MAX),
    ("gro", IntOption::GRO, 0, 1),
];

const NAMES: &str = "backlog, mode, user, group, v6only, device, congestion, keepalive, nodelay, defer-accept, \
                     user-timeout, fastopen, reuseport, freebind, transparent, mark, priority, tos, tclass, rcvbuf, sndbuf, gro";

fn parse_options(text: &str, family: Family, transport: Transport) -> Result<Options, String> {
    let mut options = Options::default();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, "1"));
        belongs(name, family, transport)?;
        match name {
            "backlog" => options.backlog = Some(number(name, value, 1, i32::MAX)? as u32),
            "mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
                options.mode =
                    Some(mode.ok_or_else(|| format!("mode={value}: permissions are octal, 0 to 777"))?);
            }
            "user" => options.user = Some(value.to_owned()),
            "group" => options.group = Some(value.to_owned()),
            "v6only" => options.v6only = number(name, value, 0, 1)? == 1,
            "device" => options.sets.push(("device", Set::Name(NameOption::DEVICE, value.to_owned()))),
            "congestion" => {
                options.sets.push(("congestion", Set::Name(NameOption::CONGESTION, value.to_owned())));
            }
            "keepalive" => keepalive(value, &mut options)?,
            _ => {
                let (name, option, least, most) = NUMBERS
                    .iter()
                    .find(|(known, ..)| *known == name)
                    .ok_or_else(|| format!("there is no option '{name}'; there are {NAMES}"))?;
                options.sets.push((name, Set::Number(*option, number(name, value, *least, *most)?)));
            }
        }
    }
    Ok(options)
}

/// `keepalive=0`, `keepalive=1`, or `keepalive=TIME[,INTERVAL[,PROBES]]` in seconds.
fn keepalive(value: &str, options: &mut Options) -> Result<(), String> {
    let parts: Vec<_> =
        value.split(',').map(|part| number("keepalive", part, 0, 32_767)).collect::<Result<_, _>>()?;
    let mut set = |option, value| options.sets.push(("keepalive", Set::Number(option, value)));
    set(IntOption::KEEP_ALIVE, i32::from(parts[0] > 0));
    if parts.len() == 1 && parts[0] <= 1 {
        return Ok(());
    }
    if parts.len() > 3 || parts.contains(&0) {
        return Err(format!("keepalive={value}: the form is keepalive=TIME,INTERVAL,PROBES, each above 0"));
    }
    let each = [IntOption::KEEP_ALIVE_TIME, IntOption::KEEP_ALIVE_INTERVAL, IntOption::KEEP_ALIVE_PROBES];
    each.into_iter().zip(parts).for_each(|(option, value)| set(option, value));
    Ok(())
}

fn number(name: &str, value: &str, least: i32, most: i32) -> Result<i32, String> {
    let parsed = value.parse::<i32>().ok().filter(|n| (least..=most).contains(n));
    parsed.ok_or_else(|| format!("{name}={value}: {name} is a number from {least} to {most}"))
}

/// Whether an option means anything for such a socket.
fn belongs(name: &str, family: Family, transport: Transport) -> Result<(), String> {
    let tcp = ["nodelay", "defer-accept", "user-timeout", "fastopen", "keepalive", "congestion"];
    let inet = ["v6only", "freebind", "transparent", "tos", "tclass", "device", "reuseport"];
    let path = ["mode", "user", "group"];
    let fine = match name {
        _ if family == Family::Given => !path.contains(&name),
        _ if tcp.contains(&name) => family == Family::Inet && transport == Transport::Stream,
        _ if inet.contains(&name) => family == Family::Inet,
        _ if path.contains(&name) => family == Family::Path,
        "backlog" => transport != Transport::Datagram,
        "gro" => family == Family::Inet && transport == Transport::Datagram,
        _ => true,
    };
    if fine { Ok(()) } else { Err(format!("option '{name}' means nothing for such a socket")) }
}

/// Whether an address takes clients of both IPv6 and IPv4.
pub(crate) fn is_dual(addr: &Addr) -> bool {
    matches!(addr, Addr::Inet(addr) if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Place {
        text.parse::<Listen>().unwrap().place
    }

    #[test]
    fn every_form_of_an_address_is_understood() {
        let inet = |text: &str| Place::At(vec![Addr::Inet(text.parse().unwrap())]);
        assert_eq!(at(":7000"), Place::Everywhere(7000));
        assert_eq!(at("tcp://*:7000"), Place::Everywhere(7000));
        assert_eq!(at("127.0.0.1:7000"), inet("127.0.0.1:7000"));
        assert_eq!(at("[::1]:7000"), inet("[::1]:7000"));
        assert_eq!(at("tcp://[::1]:0"), inet("[::1]:0"));
        assert_eq!(at("udp://127.0.0.1:69"), inet("127.0.0.1:69"));
        assert_eq!(at("unix:/run/x"), Place::At(vec![Addr::Path("/run/x".into())]));
        assert_eq!(at("unix:///run/x"), Place::At(vec![Addr::Path("/run/x".into())]));
        assert_eq!(at("unixgram:x"), Place::At(vec![Addr::Path("x".into())]));
        assert_eq!(at("seqpacket:@x"), Place::At(vec![Addr::Abstract(b"x".to_vec())]));
        assert_eq!(at("vsock:2:9000"), Place::At(vec![Addr::Vsock { cid: 2, port: 9000 }]));
        assert_eq!(at("vsock:*:9000"), Place::At(vec![Addr::Vsock { cid: u32::MAX, port: 9000 }]));
        assert_eq!(at("fd:0"), Place::Inherited(0));
        assert_eq!(at("systemd:web"), Place::Systemd("web".into()));
        assert!(matches!(at("localhost:7000"), Place::At(all) if !all.is_empty()));
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        let refused = [
            "",
            "7000",
            "/run/x",
            "http://x",
            "127.0.0.1",
            "127.0.0.1:70000",
            "::1:7000",
            "unix:",
            "unix:@",
            "vsock:2",
            "fd:x",
            "fd:-1",
            "fd:2",
            "systemd:",
            "127.0.0.1:x",
        ];
        for text in refused {
            let error = text.parse::<Listen>().expect_err(text);
            assert!(error.to_string().starts_with(&format!("address '{text}': ")), "{error}");
        }
    }

    #[test]
    fn options_belong_to_families_and_have_ranges() {
        for (text, fine) in [
            ("127.0.0.1:1?backlog=1", true),
            ("127.0.0.1:1?backlog=0", false),
            ("127.0.0.1:1?mode=0600", false),
            ("unix:/x?mode=0600&user=root", true),
            ("unix:/x?mode=888", false),
            ("unix:/x?nodelay", false),
            ("127.0.0.1:1?nodelay&keepalive=60,10,3&user-timeout=90000", true),
            ("127.0.0.1:1?keepalive=60,0", false),
            ("udp://127.0.0.1:1?backlog=4", false),
            ("udp://127.0.0.1:1?rcvbuf=1000000", true),
            ("udp://127.0.0.1:1?gro=0", true),
            ("udp://127.0.0.1:1?gro=2", false),
            ("127.0.0.1:1?gro=0", false),
            ("unixgram:/x?gro=0", false),
            ("fd:3?gro=1", true),
            ("127.0.0.1:1?priority=6", true),
            ("127.0.0.1:1?priority=7", false),
            ("127.0.0.1:1?nosuch=1", false),
        ] {
            assert_eq!(text.parse::<Listen>().is_ok(), fine, "{text}");
        }
    }
}
