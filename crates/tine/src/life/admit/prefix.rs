//! Networks of the Internet as an operator writes them, and which of many an address is in.
//!
//! IPv6 addresses and networks that are IPv4 ones mapped (`::ffff:192.0.2.7`, RFC 4291, 2.5.5.2) are those IPv4 ones, so
//! no IPv6 network contains an IPv4 client, `::/0` neither.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: all addresses that begin with the same bits. `192.0.2.0/24`, `2001:db8::/32`; an address alone is the
/// network that has no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    network: IpAddr,
    bits: u8,
}

/// A set of networks, written with commas between: `10.0.0.0/8,::1`. The default is the set of none.
#[derive(Clone, Debug, Default)]
pub struct Prefixes(Networks<()>);

/// The most networks that one list may have.
pub const PREFIXES_MOST: usize = 65_536;

/// What is known of networks, found by the longest that contains an address.
///
/// Ordered maps, no hashing: no choice of addresses makes it slow. A look-up is one search for each length in use at
/// worst, and nearly always one or two in all.
#[derive(Clone, Debug)]
pub(crate) struct Networks<V> {
    v4: Family<V>,
    v6: Family<V>,
}

#[derive(Clone, Debug)]
struct Family<V> {
    entries: BTreeMap<Key, V>,
    lengths: BTreeSet<u8>,
}

/// A network in the order in which they nest: by its first address, and of those that begin alike the wider one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// The first address, its bits at the top.
    first: u128,
    bits: u8,
}

impl Prefix {
    /// The network of this many bits that an address is in; the address alone when there are not that many bits.
    pub fn around(ip: IpAddr, bits: u8) -> Prefix {
        let ip = ip.to_canonical();
        let bits = bits.min(width(ip));
        Prefix { network: cut(ip, bits), bits }
    }

    /// Its first address.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits all its addresses have in common: at most 32 of IPv4, at most 128 of IPv6.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.network.is_ipv4() && (top(ip) ^ top(self.network)) & mask(self.bits) == 0
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefix, String> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip = address(text, ip)?;
        let most = width(ip);
        let bits = match bits {
            None => most,
            Some(bits) => length(text, bits, most)?,
        };
        // A network with part of its length in the mark of mapped addresses is no IPv4 network: it stays IPv6.
        let (ip, bits) = match ip.to_canonical() {
            v4 if ip.is_ipv6() && v4.is_ipv4() && bits >= 96 => (v4, bits - 96),
            _ => (ip, bits),
        };
        let network = cut(ip, bits);
        if network != ip {
            return Err(format!(
                "'{text}' is an address in a network: the network is {network}/{bits}, the address alone {ip}"
            ));
        }
        Ok(Prefix { network, bits })
    }
}

/// As it is read: the length is left out where it is that of an address.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)?;
        if self.bits == width(self.network) { Ok(()) } else { write!(f, "/{}", self.bits) }
    }
}

fn address(text: &str, ip: &str) -> Result<IpAddr, String> {
    if let Some((_, zone)) = ip.split_once('%') {
        return Err(format!(
            "'{text}' has a zone, '%{zone}': networks are the same on every link, leave it out"
        ));
    }
    ip.parse().map_err(|_| {
        format!("'{text}' is no network: those are as 192.0.2.0/24, 2001:db8::/32, 192.0.2.7 or 2001:db8::7")
    })
}

fn length(text: &str, bits: &str, most: u8) -> Result<u8, String> {
    let number = if bits.bytes().all(|byte| byte.is_ascii_digit()) { bits.parse().ok() } else { None };
    number
        .filter(|bits| *bits <= most)
        .ok_or_else(|| format!("'{text}': after the slash is a number of bits, 0 to {most}, not '{bits}'"))
}

impl Prefixes {
    /// Whether an address is in one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.longest(ip).is_some()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

impl FromStr for Prefixes {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefixes, String> {
        let mut all = Networks::default();
        for one in text.split(',').map(str::trim) {
            if one.is_empty() {
                return Err(format!(
                    "'{text}' is no list of networks: each has one before and after its commas"
                ));
            }
            all.insert(one.parse()?, ());
            if all.len() > PREFIXES_MOST {
                return Err(format!("there are more than {PREFIXES_MOST} networks in one list"));
            }
        }
        Ok(Prefixes(all))
    }
}

/// As it is read, in order: IPv4 first, those that are named twice once.
impl fmt::Display for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, prefix) in self.0.prefixes().enumerate() {
            write!(f, "{}{prefix}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl<V> Networks<V> {
    /// Notes what is known of a network, in place of what was.
    pub(crate) fn insert(&mut self, prefix: Prefix, value: V) {
        let family = if prefix.network.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        family.lengths.insert(prefix.bits);
        family.entries.insert(Key::of(&prefix), value);
    }

    /// What is known of exactly this network.
    pub(crate) fn get(&self, prefix: &Prefix) -> Option<&V> {
        self.family(prefix.network).entries.get(&Key::of(prefix))
    }

    /// What is known of the smallest network that contains an address.
    pub(crate) fn longest(&self, ip: IpAddr) -> Option<&V> {
        let ip = ip.to_canonical();
        self.family(ip).longest(top(ip))
    }

    fn len(&self) -> usize {
        self.v4.entries.len() + self.v6.entries.len()
    }

    fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        let v4 = self.v4.entries.keys().map(|key| Prefix { network: ipv4(key.first), bits: key.bits });
        let v6 = self.v6.entries.keys().map(|key| Prefix { network: ipv6(key.first), bits: key.bits });
        v4.chain(v6)
    }

    fn family(&self, ip: IpAddr) -> &Family<V> {
        if ip.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

impl<V> Default for Networks<V> {
    fn default() -> Networks<V> {
        let empty = || Family { entries: BTreeMap::new(), lengths: BTreeSet::new() };
        Networks { v4: empty(), v6: empty() }
    }
}

impl<V> Family<V> {
    /// Of the networks up to a length, the last one that begins at or before the address: if it contains the address, it
    /// is the smallest that does, since a smaller one would come later. If not, the address has left it after `common`
    /// bits, and so has every network between them: what contains the address is no longer than that.
    fn longest(&self, ip: u128) -> Option<&V> {
        let mut common = u128::BITS as u8;
        loop {
            let bits = *self.lengths.range(..=common).next_back()?;
            let (key, value) = self.entries.range(..=Key { first: ip & mask(bits), bits }).next_back()?;
            common = (ip ^ key.first).leading_zeros() as u8;
            if common >= key.bits {
                return Some(value);
            }
        }
    }
}

impl Key {
    fn of(prefix: &Prefix) -> Key {
        Key { first: top(prefix.network), bits: prefix.bits }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        #[cfg(test)]
        tests::COMPARISONS.with(|count| count.set(count.get() + 1));
        (self.first, self.bits).cmp(&(other.first, other.bits))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An address as a number, its bits at the top.
fn top(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The IPv4 address that is this number.
fn ipv4(top: u128) -> IpAddr {
    Ipv4Addr::from_bits((top >> 96) as u32).into()
}

/// The IPv6 address that is this number.
fn ipv6(top: u128) -> IpAddr {
    Ipv6Addr::from_bits(top).into()
}

/// The first of the addresses that begin with the same bits.
fn cut(ip: IpAddr, bits: u8) -> IpAddr {
    let first = top(ip) & mask(bits);
    if ip.is_ipv4() { ipv4(first) } else { ipv6(first) }
}

/// So many ones at the top.
fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(u128::BITS - u32::from(bits)).unwrap_or(0)
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    thread_local! {
        /// How often keys were compared.
        pub(crate) static COMPARISONS: Cell<u64> = const { Cell::new(0) };
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    /// Addresses of few different parts, so that they share long beginnings: IPv4, IPv6 and mapped ones.
    pub(crate) fn some_ip() -> impl Strategy<Value = IpAddr> {
        let v4 =
            vec(select(vec![0u8, 1, 127, 128, 255]), 4).prop_map(|o| Ipv4Addr::new(o[0], o[1], o[2], o[3]));
        let v6 = vec(select(vec![0u16, 1, 0x7fff, 0x8000, 0xffff]), 8);
        let v6 = v6.prop_map(|s| Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]));
        prop_oneof![
            2 => v4.clone().prop_map(IpAddr::V4),
            2 => v6.prop_map(IpAddr::V6),
            1 => v4.prop_map(|v4| IpAddr::V6(v4.to_ipv6_mapped())),
        ]
    }

    /// Networks of every length around such addresses.
    pub(crate) fn some_prefix() -> impl Strategy<Value = Prefix> {
        (some_ip(), prop_oneof![0u8..=32, 0u8..=128]).prop_map(|(ip, bits)| Prefix::around(ip, bits))
    }

    /// An address in or beside a network: its first one, with one bit turned.
    pub(crate) fn near(prefix: Prefix, bit: u8) -> IpAddr {
        match prefix.network {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ (1 << (bit % 32))).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ (1 << (bit % 128))).into(),
        }
    }

    /// Whether an address is in a network, bit by bit.
    pub(crate) fn is_in(prefix: &Prefix, ip: IpAddr) -> bool {
        fn bits(ip: IpAddr) -> Vec<bool> {
            let octets = match ip {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            octets.iter().flat_map(|octet| (0..8).rev().map(move |at| octet >> at & 1 == 1)).collect()
        }
        let ip = match ip {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
            v4 => v4,
        };
        let (one, other, most) = (bits(prefix.network()), bits(ip), usize::from(prefix.bits()));
        one.len() == other.len() && one[..most] == other[..most]
    }

    #[test]
    fn networks_are_read_as_they_are_written() {
        for (text, network, bits) in [
            ("192.0.2.0/24", "192.0.2.0", 24),
            ("10.1.2.3", "10.1.2.3", 32),
            ("10.1.2.3/32", "10.1.2.3", 32),
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("128.0.0.0/1", "128.0.0.0", 1),
            ("2001:db8::/32", "2001:db8::", 32),
            ("2001:DB8::/032", "2001:db8::", 32),
            ("::1", "::1", 128),
            ("::/0", "::", 0),
            ("::ffff:10.1.2.3", "10.1.2.3", 32),
            ("::ffff:10.0.0.0/104", "10.0.0.0", 8),
            ("::ffff:0:0/96", "0.0.0.0", 0),
            ("::fffe:0:0/95", "::fffe:0:0", 95),
        ] {
            let found = prefix(text);
            assert_eq!((found.network(), found.bits()), (ip(network), bits), "{text}");
        }
        for text in ["192.0.2.0/24", "10.1.2.3", "0.0.0.0/0", "2001:db8::/32", "::1", "::/0"] {
            assert_eq!(prefix(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_would_be_right() {
        let forms = "those are as 192.0.2.0/24, 2001:db8::/32, 192.0.2.7 or 2001:db8::7";
        for (text, message) in [
            ("", format!("'' is no network: {forms}")),
            ("10", format!("'10' is no network: {forms}")),
            ("10.0.0.0.0/8", format!("'10.0.0.0.0/8' is no network: {forms}")),
            ("010.0.0.0/8", format!("'010.0.0.0/8' is no network: {forms}")),
            ("[::1]", format!("'[::1]' is no network: {forms}")),
            ("10.1.2.3:80", format!("'10.1.2.3:80' is no network: {forms}")),
            (" 10.1.2.3", format!("' 10.1.2.3' is no network: {forms}")),
            ("/8", format!("'/8' is no network: {forms}")),
            ("fe80::1%2", "'fe80::1%2' has a zone, '%2': networks are the same on every link, leave it out".into()),
            ("10.0.0.0/33", "'10.0.0.0/33': after the slash is a number of bits, 0 to 32, not '33'".into()),
            ("10.0.0.0/", "'10.0.0.0/': after the slash is a number of bits, 0 to 32, not ''".into()),
            ("10.0.0.0/+8", "'10.0.0.0/+8': after the slash is a number of bits, 0 to 32, not '+8'".into()),
            ("10.0.0.0/8/8", "'10.0.0.0/8/8': after the slash is a number of bits, 0 to 32, not '8/8'".into()),
            (
                "10.0.0.0/255.0.0.0",
                "'10.0.0.0/255.0.0.0': after the slash is a number of bits, 0 to 32, not '255.0.0.0'".into(),
            ),
            ("::/129", "'::/129': after the slash is a number of bits, 0 to 128, not '129'".into()),
            ("::/256", "'::/256': after the slash is a number of bits, 0 to 128, not '256'".into()),
            (
                "10.1.2.3/8",
                "'10.1.2.3/8' is an address in a network: the network is 10.0.0.0/8, the address alone 10.1.2.3".into(),
            ),
            (
                "1.0.0.0/0",
                "'1.0.0.0/0' is an address in a network: the network is 0.0.0.0/0, the address alone 1.0.0.0".into(),
            ),
            (
                "2001:db8::1/32",
                "'2001:db8::1/32' is an address in a network: the network is 2001:db8::/32, the address alone \
                 2001:db8::1"
                    .into(),
            ),
            (
                "::ffff:10.1.2.3/104",
                "'::ffff:10.1.2.3/104' is an address in a network: the network is 10.0.0.0/8, the address alone \
                 10.1.2.3"
                    .into(),
            ),
            (
                "::ffff:0:0/95",
                "'::ffff:0:0/95' is an address in a network: the network is ::fffe:0:0/95, the address alone \
                 ::ffff:0.0.0.0"
                    .into(),
            ),
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(message));
        }
    }

    #[test]
    fn a_network_ends_where_its_bits_say_and_mapped_addresses_are_ipv4() {
        for (text, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.0", "192.0.1.255"),
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.0/24", "::ffff:192.0.2.7", "::192.0.2.7"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("0.0.0.0/0", "::ffff:1.2.3.4", "::fffe:1.2.3.4"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("::/0", "::", "::ffff:1.2.3.4"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
        ] {
            assert!(prefix(text).contains(ip(inside)), "{text} {inside}");
            assert!(!prefix(text).contains(ip(outside)), "{text} {outside}");
        }
    }

    #[test]
    fn around_an_address_is_the_network_that_it_is_in() {
        for (address, bits, network) in [
            ("10.1.2.3", 8, "10.0.0.0/8"),
            ("10.1.2.3", 0, "0.0.0.0/0"),
            ("10.1.2.3", 64, "10.1.2.3"),
            ("::ffff:10.1.2.3", 24, "10.1.2.0/24"),
            ("2001:db8::1", 64, "2001:db8::/64"),
            ("2001:db8::1", 255, "2001:db8::1"),
        ] {
            assert_eq!(Prefix::around(ip(address), bits).to_string(), network);
        }
    }

    #[test]
    fn a_list_holds_what_is_between_its_commas() {
        let list: Prefixes = "10.0.0.0/8, ::1,192.0.2.7,10.0.0.0/8,::ffff:172.16.0.0/108".parse().unwrap();
        assert_eq!(list.to_string(), "10.0.0.0/8,172.16.0.0/12,192.0.2.7,::1");
        for (address, inside) in [
            ("10.255.0.1", true),
            ("::1", true),
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.0.2.8", false),
            ("::2", false),
        ] {
            assert_eq!(list.contains(ip(address)), inside, "{address}");
        }
        assert!(!list.is_empty() && Prefixes::default().is_empty());
        assert!(!Prefixes::default().contains(ip("::1")));
        for text in ["", ",", "::1,", ",::1", "::1,,::2"] {
            let message =
                format!("'{text}' is no list of networks: each has one before and after its commas");
            assert_eq!(text.parse::<Prefixes>().err(), Some(message));
        }
        let error = "::1,10.1.2.3/8".parse::<Prefixes>().unwrap_err();
        assert!(error.starts_with("'10.1.2.3/8' is an address in a network"), "{error}");
    }

    #[test]
    fn a_list_has_an_end() {
        let some =
            |count: u32| (0..count).map(|i| Ipv4Addr::from_bits(i).to_string()).collect::<Vec<_>>().join(",");
        let most = PREFIXES_MOST as u32;
        assert!([most - 1, most].iter().all(|count| some(*count).parse::<Prefixes>().is_ok()));
        let error = some(most + 1).parse::<Prefixes>().unwrap_err();
        assert_eq!(error, "there are more than 65536 networks in one list");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(prefix in some_prefix()) {
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }

        #[test]
        fn a_network_contains_what_begins_as_it_does(prefix in some_prefix(), ip in some_ip(), bit in any::<u8>()) {
            for ip in [ip, near(prefix, bit)] {
                prop_assert_eq!(prefix.contains(ip), is_in(&prefix, ip), "{} {}", prefix, ip);
            }
        }

        #[test]
        fn a_list_contains_what_one_of_its_networks_does(
            all in vec(some_prefix(), 1..40), others in vec((some_ip(), any::<u8>()), 20)
        ) {
            let text: Vec<_> = all.iter().map(Prefix::to_string).collect();
            let list: Prefixes = text.join(",").parse().unwrap();
            prop_assert_eq!(list.to_string().parse::<Prefixes>().unwrap().to_string(), list.to_string());
            for (i, (ip, bit)) in others.into_iter().enumerate() {
                for ip in [ip, near(all[i % all.len()], bit)] {
                    prop_assert_eq!(list.contains(ip), all.iter().any(|one| is_in(one, ip)), "{}", ip);
                }
            }
        }
    }
}
