//! What clients are counted by: an address cut to a prefix, a user, a machine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tine_os::socket::Addr;

use crate::peer::Peer;

/// Who a client is counted as.
///
/// An IPv6 client can have as many addresses as it likes within the prefix that its network gave it, so single addresses
/// say nothing there; a client of a Unix socket is the user who runs it, unix(7), SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// An IPv4 prefix; v4-mapped addresses are counted here.
    V4(Ipv4Addr),
    /// An IPv6 prefix.
    V6(Ipv6Addr),
    /// A user of this machine, by number.
    User(u32),
    /// A virtual machine, by its context identifier.
    Machine(u32),
    /// Nobody can be told from anybody: a datagram's sender, or one whom a balancer has not named yet.
    Unknown,
}

/// How many bits of an address a source has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Of an IPv4 address: 0 to 32.
    pub v4: u8,
    /// Of an IPv6 address: 0 to 128.
    pub v6: u8,
}

impl Mask {
    /// What one client has: an IPv4 address, an IPv6 /64 (RFC 6177, RFC 7934).
    pub const CLIENT: Mask = Mask { v4: 32, v6: 64 };

    /// What one network has, roughly: the kept slots are for networks that have nobody here.
    pub(crate) const NETWORK: Mask = Mask { v4: 16, v6: 32 };
}

impl Source {
    /// The source of a client.
    pub fn of(peer: &Peer, mask: Mask) -> Source {
        match (&peer.addr, &peer.credentials) {
            (Addr::Inet(addr), _) => Source::of_ip(addr.ip(), mask),
            (Addr::Vsock { cid, .. }, _) => Source::Machine(*cid),
            (_, Some(who)) => Source::User(who.uid),
            _ => Source::Unknown,
        }
    }

    /// The source of an address of the Internet.
    pub fn of_ip(ip: IpAddr, mask: Mask) -> Source {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Source::V4(cut_v4(v4, mask.v4)),
            IpAddr::V6(v6) => Source::V6(cut_v6(v6, mask.v6)),
        }
    }

    /// The network that a source belongs to.
    pub(crate) fn network(self) -> Source {
        match self {
            Source::V4(v4) => Source::V4(cut_v4(v4, Mask::NETWORK.v4)),
            Source::V6(v6) => Source::V6(cut_v6(v6, Mask::NETWORK.v6)),
            other => other,
        }
    }
}

fn cut_v4(address: Ipv4Addr, kept: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(cut(address.to_bits().into(), 32, kept) as u32)
}

fn cut_v6(address: Ipv6Addr, kept: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(cut(address.to_bits(), 128, kept))
}

fn cut(bits: u128, all: u32, kept: u8) -> u128 {
    let dropped = all.saturating_sub(kept.into());
    bits.checked_shr(dropped).map_or(0, |kept| kept << dropped)
}

/// `192.0.2.7`, `2001:db8::`, `user:1000`, `vsock:3`, `any`: the prefix's first address.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::V4(v4) => v4.fmt(f),
            Source::V6(v6) => v6.fmt(f),
            Source::User(uid) => write!(f, "user:{uid}"),
            Source::Machine(cid) => write!(f, "vsock:{cid}"),
            Source::Unknown => f.write_str("any"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(ip: &str, v4: u8, v6: u8) -> String {
        Source::of_ip(ip.parse().unwrap(), Mask { v4, v6 }).to_string()
    }

    #[test]
    fn an_address_is_cut_to_its_mask_and_a_mapped_one_is_ipv4() {
        assert_eq!(source("192.0.2.129", 32, 64), "192.0.2.129");
        assert_eq!(source("192.0.2.129", 24, 64), "192.0.2.0");
        assert_eq!(source("192.0.2.129", 0, 64), "0.0.0.0");
        assert_eq!(source("2001:db8:1:2:3:4:5:6", 32, 64), "2001:db8:1:2::");
        assert_eq!(source("2001:db8:1:2:3:4:5:6", 32, 128), "2001:db8:1:2:3:4:5:6");
        assert_eq!(source("2001:db8:1:2:3:4:5:6", 32, 0), "::");
        assert_eq!(source("::ffff:192.0.2.129", 24, 64), "192.0.2.0");
    }

    #[test]
    fn two_addresses_of_one_64_are_one_source_and_of_two_are_two() {
        let of = |ip: &str| Source::of_ip(ip.parse().unwrap(), Mask::CLIENT);
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("2001:db8:0:1::1").network(), of("2001:db8:9::1").network());
        assert_ne!(of("10.1.0.1").network(), of("10.2.0.1").network());
    }
}
