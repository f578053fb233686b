//! What the operator opens up again: files, connections, calls.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tine_os::landlock::ports;
use tine_os::seccomp;

use crate::filter::{Answer, Is, Rule, Test};

/// What is open to children although their profile closes it. Words of the command line have the same names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Opens {
    /// What may be read, with all beneath it. None: everything that the user may, where there is no tree of files of the profile's own.
    pub read: Vec<PathBuf>,
    /// What may be written to, and read, with all beneath it.
    pub write: Vec<PathBuf>,
    /// What may be executed, with all beneath it, beside the program itself. None: everything that may be read.
    pub exec: Vec<PathBuf>,
    /// What may be connected to.
    pub connect: Vec<Connect>,
    /// Whether sockets may be bound and listened at.
    pub listen: bool,
    /// Calls that are not refused, by name.
    pub calls: Vec<String>,
}

/// What may be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Connect {
    /// A TCP port, at any host.
    Port(u16),
    /// A TCP port of one host. No kernel so far can hold a program to that: see [`crate::Missing`].
    Host(String, u16),
    /// Unix sockets.
    Unix,
    /// Everything: TCP and UDP at any address, and Unix sockets.
    All,
}

/// linux/socket.h, linux/net.h, linux/in.h
const UNIX: u32 = 1;
const INET: [u32; 2] = [2, 10];
const STREAM: u32 = 1;
const DATAGRAM: u32 = 2;
const PACKET: u32 = 5;
/// The other bits of a type are SOCK_CLOEXEC and SOCK_NONBLOCK.
const TYPE: u32 = 0xf;
const TCP: u32 = 6;
const UDP: u32 = 17;

impl Opens {
    /// Whether children share the machine's network.
    pub(crate) fn has_network(&self) -> bool {
        self.listen || self.connect.iter().any(|to| *to != Connect::Unix)
    }

    /// Ports over which a right remains, and which rights over ports are given up at all.
    pub(crate) fn ports(&self) -> (u64, Vec<(u16, u64)>) {
        let all = self.connect.contains(&Connect::All);
        let given_up = if self.listen { 0 } else { ports::BIND } | if all { 0 } else { ports::CONNECT };
        let open = self.connect.iter().filter_map(|to| match to {
            Connect::Port(port) | Connect::Host(_, port) if !all => Some((*port, ports::CONNECT)),
            _ => None,
        });
        (given_up, open.collect())
    }

    /// Which calls about sockets are refused. What a filter sees of an address is where it stands in memory, so it decides by kind
    /// of socket; which port, Landlock does.
    pub(crate) fn sockets(&self) -> Vec<Rule> {
        let all = self.connect.contains(&Connect::All);
        let tcp = self.has_network();
        let unix = all || self.connect.contains(&Connect::Unix);
        let mut rules = Vec::new();
        let mut add = |name: &str, when: Vec<Vec<Test>>, answer| {
            rules.extend(seccomp::number(name).map(|call| Rule { call, when, answer }));
        };
        let is = |argument, value| Test::new(argument, Is::Equal, value);
        let is_not = |argument, value| Test::new(argument, Is::Different, value);
        let families: Vec<u32> =
            [UNIX].into_iter().filter(|_| unix).chain(INET.into_iter().filter(|_| tcp)).collect();
        let mut when = Vec::new();
        if !families.is_empty() {
            when.push(families.iter().map(|family| is_not(0, *family)).collect());
        }
        let (kinds, protocols): (&[u32], &[u32]) =
            if all { (&[STREAM, DATAGRAM], &[0, TCP, UDP]) } else { (&[STREAM], &[0, TCP]) };
        for family in INET.into_iter().filter(|_| tcp) {
            let kind = kinds.iter().map(|kind| is_not(1, *kind).of_bits(TYPE));
            when.push([is(0, family)].into_iter().chain(kind).collect());
            // Landlock knows TCP: MPTCP, SMC and SCTP would pass it by.
            let protocol = protocols.iter().map(|protocol| is_not(2, *protocol));
            when.push([is(0, family)].into_iter().chain(protocol).collect());
        }
        add("socket", when, Answer::NoFamily);
        if !unix {
            // An end of a pair of datagram sockets can be connected anew, to whatever has a name.
            let kinds = [is_not(1, STREAM).of_bits(TYPE), is_not(1, PACKET).of_bits(TYPE)];
            add("socketpair", vec![vec![is_not(0, UNIX)], kinds.to_vec()], Answer::NoFamily);
        }
        if !unix && !tcp {
            add("connect", vec![], Answer::NotPermitted);
        }
        if !self.listen {
            for name in ["listen", "accept", "accept4"] {
                add(name, vec![], Answer::NotPermitted);
            }
            if !unix && !all {
                add("bind", vec![], Answer::NotPermitted);
            }
        }
        rules
    }
}

impl FromStr for Connect {
    type Err = String;

    fn from_str(text: &str) -> Result<Connect, String> {
        match text {
            "unix" => return Ok(Connect::Unix),
            "all" => return Ok(Connect::All),
            _ => {}
        }
        if let Ok(port @ 1..) = text.parse() {
            return Ok(Connect::Port(port));
        }
        match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
            Some((host, Ok(port @ 1..))) if !host.is_empty() => Ok(Connect::Host(host.to_owned(), port)),
            _ => Err("it is a port, 1 to 65535, HOST:PORT, unix, or all".into()),
        }
    }
}

impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Connect::Port(port) => port.fmt(f),
            Connect::Host(host, port) => write!(f, "{host}:{port}"),
            Connect::Unix => f.write_str("unix"),
            Connect::All => f.write_str("all"),
        }
    }
}
