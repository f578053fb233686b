//! Bind: sockets of our own and inherited ones, as listeners.
//!
//! A Unix path served by a live process is refused; a stale one is replaced. ip(7), unix(7), sd_listen_fds(3).

use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use tine_os::Pid;
use tine_os::pass;
use tine_os::socket::{self, Addr, IntOption, Kind, RawAddr};
use tine_os::{fd, identity};

use crate::addr::{Listen, Options, Place, Set, Transport, is_dual};
use crate::error::BindError;
use crate::life::pause::{Breaker, Pause};
use crate::peer::Peer;

/// The queue of clients that the kernel keeps, unless another length is asked for. A SYN that finds it full is dropped,
/// and costs its client a second; the kernel cuts this to net.core.somaxconn.
const BACKLOG: u32 = 4096;

/// EEXIST, EADDRINUSE and EAFNOSUPPORT: errno(3). std has a kind for each, but with words of its own, or none.
const EXISTS: i32 = 17;
const IN_USE: i32 = 98;
const NO_FAMILY: i32 = 97;

/// A bound socket that clients arrive at.
#[derive(Debug)]
pub(crate) struct Listener {
    pub name: String,
    pub fd: OwnedFd,
    pub local: Addr,
    pub transport: Transport,
    pub backlog: u32,
    pub role: Role,
    /// The number of the interface that it is bound to, if it is: SO_BINDTODEVICE in socket(7).
    pub interface: u32,
    /// Rests when accepting or forking fails.
    pub pause: Pause,
    /// Rests when children cannot start.
    pub throttle: Pause,
    /// Slows down when they fail at once.
    pub breaker: Breaker,
    path: Option<BoundPath>,
    /// As what it was bound, where its address can be bound again for further workers.
    again: Option<Listen>,
    /// The sockets of the workers after the first.
    siblings: Vec<OwnedFd>,
}

/// How clients come out of a listener.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// By accepting.
    Accept,
    /// The socket itself is lent to a child, and not looked at until that child ends.
    Lend(Option<Pid>),
    /// A worker of ours sends them: see `mode/peer`.
    Channel,
    /// Not at all: workers read it.
    Workers,
}

/// A client that has arrived.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub fd: OwnedFd,
    pub peer: Peer,
    pub local: Addr,
}

/// A path that was bound, and the file that it was then.
#[derive(Debug)]
struct BoundPath {
    path: PathBuf,
    file: (u64, u64),
}

/// Makes the listeners that an address stands for.
pub(crate) fn bind(listen: &Listen) -> Result<Vec<Listener>, BindError> {
    match &listen.place {
        Place::At(all) => all.iter().map(|addr| own(listen, addr)).collect(),
        Place::Everywhere(port) => everywhere(listen, *port).map(|listener| vec![listener]),
        Place::Inherited(number) => {
            let fd = fd::inherited(*number).map_err(|why| {
                BindError::new("take", listen, why)
                    .advise("no such descriptor was passed to tine, or it is used twice")
            })?;
            adopt(listen, fd).map(|listener| vec![listener])
        }
        Place::Systemd(name) => systemd(listen, name),
    }
}

/// IPv6 and IPv4 by one socket; IPv4 alone where this machine has no IPv6.
fn everywhere(listen: &Listen, port: u16) -> Result<Listener, BindError> {
    let at = |ip: [u8; 4]| Addr::Inet((ip, port).into());
    let both = own(listen, &Addr::Inet((std::net::Ipv6Addr::UNSPECIFIED, port).into()));
    match both {
        Err(why)
            if matches!(why.error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported) =>
        {
            own(listen, &at([0, 0, 0, 0]))
        }
        Err(why) if why.error.raw_os_error() == Some(NO_FAMILY) => own(listen, &at([0, 0, 0, 0])),
        other => other,
    }
}

fn own(listen: &Listen, addr: &Addr) -> Result<Listener, BindError> {
    let fail = |what| move |why| BindError::new(what, listen, why);
    let kind = match listen.transport {
        Transport::Stream => Kind::Stream,
        Transport::Packet => Kind::Packet,
        Transport::Datagram => Kind::Datagram,
    };
    let fd = socket::open(addr, kind).map_err(fail("open a socket for"))?;
    if let Addr::Inet(inet) = addr {
        if inet.is_ipv6() {
            let v6only = listen.options.v6only || !is_dual(addr);
            socket::set_int(&fd, IntOption::V6_ONLY, v6only.into()).map_err(fail("set v6only on"))?;
        }
        if kind == Kind::Stream {
            socket::set_int(&fd, IntOption::REUSE_ADDRESS, 1).map_err(fail("set SO_REUSEADDR on"))?;
        }
    }
    reclaim_dead_peers(listen, &fd, kind)?;
    set_options(listen, &fd, &listen.options)?;
    let path = match addr {
        Addr::Path(path) => Some(bind_path(listen, &fd, path, kind)?),
        _ => {
            socket::bind(&fd, addr).map_err(fail("bind"))?;
            None
        }
    };
    let listener = ready(listen, fd, kind)?;
    let again = matches!(addr, Addr::Inet(_)).then(|| listen.clone());
    Ok(Listener { path, again, ..listener })
}

/// Binds a path: over a stale socket, never over a live one or over anything that is no socket.
fn bind_path(listen: &Listen, fd: &OwnedFd, path: &Path, kind: Kind) -> Result<BoundPath, BindError> {
    let fail = |what| move |why| BindError::new(what, listen, why);
    let path = std::path::absolute(path).map_err(fail("bind"))?;
    let addr = Addr::Path(path.clone());
    // Before anything is made: a name that nobody has is the operator's mistake.
    let nobody = |what: &str, name: &str| {
        let why = io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} '{name}'"));
        BindError::new("set the owner of", listen, why)
    };
    let (user, group) = (&listen.options.user, &listen.options.group);
    let uid = user.as_ref().map(|name| uid(name).ok_or_else(|| nobody("user", name))).transpose()?;
    let gid = group.as_ref().map(|name| gid(name).ok_or_else(|| nobody("group", name))).transpose()?;
    if let Ok(there) = fs::symlink_metadata(&path) {
        if !there.file_type().is_socket() {
            let why = io::Error::from_raw_os_error(EXISTS);
            return Err(BindError::new("bind", listen, why)
                .advise("what is there is no socket; tine leaves it alone"));
        }
        let probe = socket::open(&addr, kind).map_err(fail("open a socket for"))?;
        match socket::connect(&probe, &addr) {
            Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(&path).map_err(fail("remove the stale socket"))?;
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => return Err(fail("bind")(why)),
            // Connected, or its queue is full, or it is of another type: somebody is there.
            _ => {
                let why = io::Error::from_raw_os_error(IN_USE);
                return Err(BindError::new("bind", listen, why).advise("a live process serves there"));
            }
        }
    }
    if let Some(mode) = listen.options.mode {
        // Before the bind, so that there is no moment at which the path is open to more: the kernel takes the mode from
        // the socket's own file. What our umask takes away is given back after it.
        fs::File::from(fd.try_clone().map_err(fail("bind"))?)
            .set_permissions(Permissions::from_mode(mode))
            .map_err(fail("set the mode of"))?;
    }
    socket::bind(fd, &addr).map_err(|why| {
        let kind = why.kind();
        let error = BindError::new("bind", listen, why);
        match kind {
            io::ErrorKind::NotFound => error.advise("the directory is missing"),
            io::ErrorKind::PermissionDenied => error.advise("tine may not make files in that directory"),
            _ => error,
        }
    })?;
    let made = fs::symlink_metadata(&path).map_err(fail("look at"))?;
    let bound = BoundPath { path, file: (made.dev(), made.ino()) };
    if let Some(mode) = listen.options.mode {
        fs::set_permissions(&bound.path, Permissions::from_mode(mode)).map_err(fail("set the mode of"))?;
    }
    if uid.is_some() || gid.is_some() {
        lchown(&bound.path, uid, gid).map_err(|why| {
            bound.remove();
            fail("set the owner of")(why)
        })?;
    }
    Ok(bound)
}

/// What is inherited: looked at, not believed.
pub(crate) fn adopt(listen: &Listen, fd: OwnedFd) -> Result<Listener, BindError> {
    let fail =
        |why| BindError::new("take", listen, why).advise("it must be a listening or a datagram socket");
    let (kind, listens) = socket::describe(&fd).map_err(fail)?;
    if kind != Kind::Datagram && !listens {
        return Err(fail(io::Error::other("a connection, not a listener")));
    }
    if socket::get_int(&fd, IntOption::KEEP_ALIVE).is_ok_and(|on| on == 0) {
        reclaim_dead_peers(listen, &fd, kind)?;
    }
    set_options(listen, &fd, &listen.options)?;
    ready(listen, fd, kind)
}

fn systemd(listen: &Listen, name: &str) -> Result<Vec<Listener>, BindError> {
    let fail = |why: String| BindError::new("take", listen, io::Error::other(why));
    let variable = |name: &str| env::var(name).unwrap_or_default();
    if variable("LISTEN_PID") != Pid::own().to_string() {
        return Err(fail("systemd has passed no descriptors to this process (LISTEN_PID)".into()));
    }
    let count: usize = variable("LISTEN_FDS").parse().unwrap_or(0);
    let names = variable("LISTEN_FDNAMES");
    let mine: Vec<_> = names.split(':').take(count).enumerate().filter(|(_, n)| *n == name).collect();
    if mine.is_empty() {
        return Err(fail(format!(
            "systemd has passed {count} descriptors, named '{names}', none of them so"
        )));
    }
    mine.into_iter()
        .map(|(i, _)| {
            let fd = fd::inherited(3 + i as i32).map_err(|why| BindError::new("take", listen, why))?;
            adopt(listen, fd)
        })
        .collect()
}

/// How a TCP connection whose client is gone without a word is found out: after so many seconds of silence it is asked so
/// often, each so many seconds after the other; and what was sent may go unacknowledged for so many milliseconds. Connections
/// take these from their listener. tcp(7), RFC 1122 4.2.3.6, RFC 5482.
const KEEP_ALIVE: [(IntOption, i32); 5] = [
    (IntOption::KEEP_ALIVE, 1),
    (IntOption::KEEP_ALIVE_TIME, 60),
    (IntOption::KEEP_ALIVE_INTERVAL, 10),
    (IntOption::KEEP_ALIVE_PROBES, 3),
    (IntOption::USER_TIMEOUT, 90_000),
];

/// The defaults, which options may change.
fn reclaim_dead_peers(listen: &Listen, fd: &OwnedFd, kind: Kind) -> Result<(), BindError> {
    let inet = matches!(socket::local_addr(fd), Ok(Addr::Inet(_)));
    for (option, value) in KEEP_ALIVE.iter().filter(|_| kind == Kind::Stream && inet) {
        socket::set_int(fd, *option, *value)
            .map_err(|why| BindError::new("set keepalive on", listen, why))?;
    }
    Ok(())
}

fn set_options(listen: &Listen, fd: &OwnedFd, options: &Options) -> Result<(), BindError> {
    for (name, set) in &options.sets {
        let done = match set {
            Set::Number(option, value) => socket::set_int(fd, *option, *value),
            Set::Name(option, value) => socket::set_name(fd, *option, value),
        };
        done.map_err(|why| {
            let denied = why.kind() == io::ErrorKind::PermissionDenied;
            let error = BindError::new(format!("set {name} on"), listen, why);
            if denied { error.advise("it needs CAP_NET_ADMIN or CAP_NET_RAW") } else { error }
        })?;
    }
    Ok(())
}

/// The last step for every kind: listening, or told where datagrams were sent to; never blocking.
fn ready(listen: &Listen, fd: OwnedFd, kind: Kind) -> Result<Listener, BindError> {
    let fail = |what| move |why| BindError::new(what, listen, why);
    let local = socket::local_addr(&fd).map_err(fail("ask the address of"))?;
    fd::set_blocking(&fd, false).map_err(fail("set up"))?;
    let mut backlog = 0;
    if kind == Kind::Datagram {
        if let Addr::Inet(inet) = &local
            && only(&local).is_none()
        {
            let option = if inet.is_ipv6() { IntOption::PACKET_INFO_V6 } else { IntOption::PACKET_INFO };
            socket::set_int(&fd, option, 1).map_err(fail("set packet information on"))?;
        }
    } else {
        backlog = listen.options.backlog.unwrap_or(BACKLOG);
        socket::listen(&fd, backlog).map_err(fail("listen at"))?;
    }
    let transport = match kind {
        Kind::Stream => Transport::Stream,
        Kind::Packet => Transport::Packet,
        Kind::Datagram => Transport::Datagram,
    };
    Ok(Listener {
        name: name(&local, transport),
        local,
        transport,
        backlog,
        interface: socket::interface(&fd).unwrap_or(0),
        fd,
        role: if transport == Transport::Datagram { Role::Workers } else { Role::Accept },
        pause: Pause::default(),
        throttle: Pause::default(),
        breaker: Breaker::default(),
        path: None,
        again: None,
        siblings: Vec::new(),
    })
}

/// The one address that all datagrams for a socket are sent to, and that its replies leave from.
fn only(local: &Addr) -> Option<IpAddr> {
    let Addr::Inet(inet) = local else { return None };
    let ip = inet.ip().to_canonical();
    let several = ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    (!several).then_some(ip)
}

/// The address as an operator would write it, with the port that it has now.
fn name(local: &Addr, transport: Transport) -> String {
    let scheme = match transport {
        Transport::Stream => "unix:",
        Transport::Packet => "seqpacket:",
        Transport::Datagram => "unixgram:",
    };
    match local {
        Addr::Inet(addr) if transport == Transport::Datagram => format!("udp://{addr}"),
        Addr::Inet(addr) => format!("tcp://{addr}"),
        Addr::Path(path) => format!("{scheme}{}", path.display()),
        Addr::Abstract(name) => format!("{scheme}@{}", String::from_utf8_lossy(name).escape_default()),
        Addr::Vsock { cid: u32::MAX, port } => format!("vsock:*:{port}"),
        Addr::Vsock { cid, port } => format!("vsock:{cid}:{port}"),
        _ => scheme.to_owned(),
    }
}

impl Listener {
    /// A listener whose clients a worker of ours sends through `channel`.
    pub(crate) fn channel(of: &Listener, channel: OwnedFd) -> Listener {
        Listener {
            name: of.name.clone(),
            fd: channel,
            local: of.local.clone(),
            transport: of.transport,
            backlog: 0,
            role: Role::Channel,
            interface: 0,
            pause: Pause::default(),
            throttle: Pause::default(),
            breaker: Breaker::default(),
            path: None,
            again: None,
            siblings: Vec::new(),
        }
    }

    /// Makes it ready for so many workers: each has a socket of its own, all bound to one address, and datagrams that were
    /// sent together are received together. A socket that was not bound here is left as it is, since others may read it
    /// later, and neither can that of a Unix path be bound twice: workers share it.
    ///
    /// The first was bound when nobody else could share the address; only then it is opened to the others.
    ///
    /// # Errors
    /// Of the kernel, when it will not have one more. Those that there are can be used.
    pub(crate) fn seat(&mut self, workers: usize) -> Result<(), BindError> {
        let Some(mut listen) = self.again.clone() else { return Ok(()) };
        if workers > 1 {
            socket::set_int(&self.fd, IntOption::REUSE_PORT, 1)
                .map_err(|why| BindError::new("set reuseport on", &listen, why))?;
            listen.options.sets.push(("reuseport", Set::Number(IntOption::REUSE_PORT, 1)));
        }
        let grouped = self.transport == Transport::Datagram
            && !listen.options.sets.iter().any(|(name, _)| *name == "gro");
        for seat in 0..workers {
            if seat > self.siblings.len() {
                self.siblings.push(own(&listen, &self.local)?.fd);
            }
            if grouped {
                // A kernel that does not know this delivers them one by one.
                let _ = socket::set_int(self.socket(seat), IntOption::GRO, 1);
            }
        }
        Ok(())
    }

    /// In an acceptor: with its own socket in place of all. The path, if it has one, stays the master's.
    pub(crate) fn of_seat(mut self, seat: usize) -> Listener {
        if seat > 0 && seat <= self.siblings.len() {
            self.fd = self.siblings.swap_remove(seat - 1);
        }
        Listener { path: None, again: None, siblings: Vec::new(), ..self }
    }

    /// The one address that all of its datagrams are sent to, if it has no other.
    pub(crate) fn only_address(&self) -> Option<IpAddr> {
        only(&self.local)
    }

    /// How many sockets it has.
    pub(crate) fn seats(&self) -> usize {
        1 + self.siblings.len()
    }

    /// The socket of a worker; where there are not so many, they share the first.
    pub(crate) fn socket(&self, seat: usize) -> BorrowedFd<'_> {
        seat.checked_sub(1).and_then(|at| self.siblings.get(at)).unwrap_or(&self.fd).as_fd()
    }

    /// The next client; `None` when nobody waits.
    pub(crate) fn next(&mut self) -> io::Result<Option<Arrival>> {
        let arrival = match self.role {
            Role::Accept => self.accept(),
            Role::Channel => self.receive(),
            Role::Lend(None) => fd::duplicate(&self.fd).map(|fd| Some(self.nobody(fd))),
            Role::Lend(Some(_)) | Role::Workers => Ok(None),
        };
        match arrival {
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other,
        }
    }

    fn accept(&self) -> io::Result<Option<Arrival>> {
        let (fd, addr) = socket::accept(&self.fd)?;
        let credentials = match self.local {
            Addr::Inet(_) | Addr::Vsock { .. } => None,
            _ => identity::peer_credentials(&fd).ok(),
        };
        let local = match &self.local {
            // Bound to one address, the connection has that one; otherwise only the connection knows.
            Addr::Inet(all) if all.ip().is_unspecified() => unmapped(socket::local_addr(&fd)?),
            one => one.clone(),
        };
        Ok(Some(Arrival { fd, peer: Peer { addr: unmapped(addr), credentials }, local }))
    }

    fn receive(&self) -> io::Result<Option<Arrival>> {
        let (mut bytes, mut fds) = ([0; 2 * RawAddr::WIRE], Vec::new());
        pass::receive(&self.fd, &mut bytes, &mut fds)?;
        let addr = |wire| RawAddr::from_bytes(wire).and_then(|raw| raw.get()).map(unmapped);
        let (peer, local) = bytes.split_at(RawAddr::WIRE);
        Ok(fds.pop().map(|fd| Arrival {
            fd,
            peer: Peer { addr: addr(peer).unwrap_or(Addr::Unnamed), credentials: None },
            local: addr(local).unwrap_or_else(|| self.local.clone()),
        }))
    }

    fn nobody(&self, fd: OwnedFd) -> Arrival {
        Arrival { fd, peer: Peer { addr: Addr::Unnamed, credentials: None }, local: self.local.clone() }
    }

    /// Whether it is to be looked at when a client may come in.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.role, Role::Lend(Some(_)) | Role::Workers)
    }

    /// Takes the path away, if it is still ours.
    pub(crate) fn remove_path(&self) {
        self.path.iter().for_each(BoundPath::remove);
    }
}

impl BoundPath {
    fn remove(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file) {
            // Nobody to tell, and the next start replaces what is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A v4-mapped address is an IPv4 client, and is called so everywhere.
pub(crate) fn unmapped(addr: Addr) -> Addr {
    match addr {
        Addr::Inet(SocketAddr::V6(v6)) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => Addr::Inet((v4, v6.port()).into()),
            None => Addr::Inet(v6.into()),
        },
        other => other,
    }
}

fn uid(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| uzers::get_user_by_name(name).map(|user| user.uid()))
}

fn gid(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| uzers::get_group_by_name(name).map(|group| group.gid()))
}
