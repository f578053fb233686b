//! The environment styles: how a program is told who its client is. tine-environment(7) describes them for its authors.
//!
//! What is not known is left unset, never empty. Whatever a client chose itself (the path of its Unix socket) is passed
//! on only when every character of it is harmless. This runs for each client, and writes into place.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

use tine::proxy::Claim;
use tine::{Addr, Client, Transport, Variables};

use crate::flags::Style;

/// The names that a style sets, none of which an operator may set as well.
pub fn names(style: Style) -> &'static [&'static str] {
    match style {
        Style::Ucspi => &[
            "PROTO",
            "TCPLOCALIP",
            "TCPLOCALPORT",
            "TCPREMOTEIP",
            "TCPREMOTEPORT",
            "TCPCONNNUM",
            "UDPLOCALIP",
            "UDPLOCALPORT",
            "UDPREMOTEIP",
            "UDPREMOTEPORT",
            "IPCREMOTEEUID",
            "IPCREMOTEEGID",
            "IPCREMOTEPATH",
            "IPCLOCALPATH",
            "IPCCONNNUM",
            "VSOCKREMOTECID",
            "VSOCKREMOTEPORT",
            "VSOCKLOCALCID",
            "VSOCKLOCALPORT",
            "SSL_PROTOCOL",
            "SSL_CIPHER",
            "SSL_PEER_CERT_CN",
            "SSL_TLS_SNI_SERVERNAME",
            "REMOTE_ADDR",
            "REMOTE_PORT",
            "TINE_PEER_IP",
            "TINE_PEER_PORT",
            "TINE_ID",
        ],
        Style::Inetd => {
            &["REMOTE_HOST", "REMOTE_ADDR", "REMOTE_PORT", "TINE_PEER_IP", "TINE_PEER_PORT", "TINE_ID"]
        }
        Style::Systemd => &[
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "REMOTE_ADDR",
            "REMOTE_PORT",
            "SO_COOKIE",
            "TINE_PEER_IP",
            "TINE_PEER_PORT",
            "TINE_ID",
        ],
        Style::None => &[],
    }
}

/// Tells the program of one client who that is.
pub fn describe(style: Style, to: &mut Variables<'_>, client: &Client<'_>) {
    match style {
        Style::Ucspi => {
            ucspi(to, client);
            tls(to, client);
            remote(to, client);
        }
        Style::Inetd => {
            if let Addr::Inet(peer) = &client.peer.addr {
                to.set("REMOTE_HOST", Ip(peer));
            }
            remote(to, client);
        }
        Style::Systemd => {
            to.set("LISTEN_FDS", 1);
            to.set_own_pid("LISTEN_PID");
            to.set("LISTEN_FDNAMES", "connection");
            remote(to, client);
            if client.cookie != 0 {
                to.set("SO_COOKIE", client.cookie);
            }
        }
        Style::None => return,
    }
    if let Some(Addr::Inet(balancer)) = client.via.map(|via| &via.addr) {
        to.set("TINE_PEER_IP", Ip(balancer));
        to.set("TINE_PEER_PORT", balancer.port());
    }
    if client.cookie != 0 {
        to.set("TINE_ID", format_args!("{:016x}", client.cookie));
    }
}

fn ucspi(to: &mut Variables<'_>, client: &Client<'_>) {
    match client.local {
        Addr::Inet(local) if client.transport == Transport::Datagram => {
            to.set("PROTO", "UDP");
            to.set("UDPLOCALIP", Ip(local));
            to.set("UDPLOCALPORT", local.port());
            if let Addr::Inet(peer) = &client.peer.addr {
                to.set("UDPREMOTEIP", Ip(peer));
                to.set("UDPREMOTEPORT", peer.port());
            }
        }
        Addr::Inet(local) => {
            to.set("PROTO", "TCP");
            to.set("TCPLOCALIP", Ip(local));
            to.set("TCPLOCALPORT", local.port());
            if let Addr::Inet(peer) = &client.peer.addr {
                to.set("TCPREMOTEIP", Ip(peer));
                to.set("TCPREMOTEPORT", peer.port());
            }
            to.set("TCPCONNNUM", client.from_same);
        }
        Addr::Vsock { cid, port } => {
            to.set("PROTO", "VSOCK");
            to.set("VSOCKLOCALCID", cid);
            to.set("VSOCKLOCALPORT", port);
            if let Addr::Vsock { cid, port } = &client.peer.addr {
                to.set("VSOCKREMOTECID", cid);
                to.set("VSOCKREMOTEPORT", port);
            }
        }
        local => {
            to.set("PROTO", "IPC");
            if let Some(who) = &client.peer.credentials {
                to.set("IPCREMOTEEUID", who.uid);
                to.set("IPCREMOTEEGID", who.gid);
            }
            if let Some(name) = Name::harmless(&client.peer.addr) {
                to.set("IPCREMOTEPATH", name);
            }
            // The operator's own words, whatever characters are in them, unless a header has it.
            let claimed = client.header.is_some_and(|header| header.claim != Claim::Own);
            if let Some(name) = if claimed { Name::harmless(local) } else { Name::of(local) } {
                to.set("IPCLOCALPATH", name);
            }
            to.set("IPCCONNNUM", client.from_same);
        }
    }
}

/// What a balancer says of the TLS that it has ended: s6's names.
fn tls(to: &mut Variables<'_>, client: &Client<'_>) {
    let Some(header) = client.header else { return };
    let tls = header.tls.as_ref();
    let known = [
        ("SSL_PROTOCOL", tls.and_then(|tls| tls.version.as_deref())),
        ("SSL_CIPHER", tls.and_then(|tls| tls.cipher.as_deref())),
        ("SSL_PEER_CERT_CN", tls.filter(|tls| tls.verified).and_then(|tls| tls.common_name.as_deref())),
        ("SSL_TLS_SNI_SERVERNAME", header.authority.as_deref()),
    ];
    for (name, value) in known {
        if let Some(value) = value.and_then(|bytes| harmless(bytes)) {
            to.set(name, value);
        }
    }
}

/// The text, when no character of it could be more than a character to whoever reads it carelessly.
fn harmless(bytes: &[u8]) -> Option<&str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || ".:_/@-".contains(c);
    str::from_utf8(bytes).ok().filter(|text| !text.is_empty() && text.chars().all(fine))
}

/// The address of the client as CGI, xinetd and systemd have it.
fn remote(to: &mut Variables<'_>, client: &Client<'_>) {
    match &client.peer.addr {
        Addr::Inet(peer) => {
            to.set("REMOTE_ADDR", Ip(peer));
            to.set("REMOTE_PORT", peer.port());
        }
        Addr::Vsock { cid, port } => {
            to.set("REMOTE_ADDR", format_args!("vsock:{cid}"));
            to.set("REMOTE_PORT", port);
        }
        addr => {
            if let Some(name) = Name::harmless(addr) {
                to.set("REMOTE_ADDR", name);
            }
        }
    }
}

/// An address by numbers: no brackets, no port, a zone only where it is a part of the address.
struct Ip<'a>(&'a SocketAddr);

impl Display for Ip<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SocketAddr::V6(v6) if v6.scope_id() != 0 && is_link_local(v6.ip()) => {
                write!(f, "{}%{}", v6.ip(), v6.scope_id())
            }
            other => match other.ip() {
                IpAddr::V4(v4) => v4.fmt(f),
                IpAddr::V6(v6) => v6.fmt(f),
            },
        }
    }
}

fn is_link_local(ip: &Ipv6Addr) -> bool {
    ip.is_unicast_link_local()
}

/// The name of a Unix socket: its path, or `@` and its abstract name.
struct Name<'a> {
    before: &'static str,
    text: &'a str,
}

impl Name<'_> {
    /// `None` for a socket without a name, and for a name that is no text.
    fn of(addr: &Addr) -> Option<Name<'_>> {
        let (before, bytes) = match addr {
            Addr::Path(path) => ("", path.as_os_str()),
            Addr::Abstract(name) => ("@", OsStr::from_bytes(name)),
            _ => return None,
        };
        bytes.to_str().map(|text| Name { before, text })
    }

    /// As [`Name::of`], and `None` for a name that could be more than a name to whoever reads it carelessly.
    fn harmless(addr: &Addr) -> Option<Name<'_>> {
        Name::of(addr).filter(|name| harmless(name.text.as_bytes()).is_some())
    }
}

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.before)?;
        f.write_str(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_with_a_zone_only_where_it_belongs() {
        let ip = |addr: SocketAddr| Ip(&addr).to_string();
        assert_eq!(ip("192.0.2.1:7".parse().unwrap()), "192.0.2.1");
        assert_eq!(ip("[2001:db8::1]:7".parse().unwrap()), "2001:db8::1");
        assert_eq!(ip("[fe80::1%2]:7".parse().unwrap()), "fe80::1%2");
        assert_eq!(ip("[2001:db8::1%2]:7".parse().unwrap()), "2001:db8::1");
    }

    #[test]
    fn a_name_with_a_character_that_does_harm_somewhere_is_none() {
        let harmless = |path: &str| Name::harmless(&Addr::Path(path.into())).is_some();
        assert!(harmless("/run/user/1000/a-b_c.sock:1@x"));
        for character in " \n\t\r()$`;&|<>*?![]{}'\"\\=%~#^,+\u{7f}é".chars() {
            assert!(!harmless(&format!("/tmp/{character}")), "{character:?}");
        }
        assert_eq!(Name::harmless(&Addr::Abstract(b"x".to_vec())).unwrap().to_string(), "@x");
        assert!(Name::harmless(&Addr::Abstract(b"x\0".to_vec())).is_none());
        assert!(Name::harmless(&Addr::Unnamed).is_none());
    }
}
