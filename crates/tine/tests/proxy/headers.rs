//! Headers as balancers write them, in every way that there is, each with what is to be read from it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStringExt;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tine::Addr;
use tine::proxy::Claim;

use crate::{Accepted, SIGNATURE, Told};

/// A header of either version.
pub fn any_header() -> impl Strategy<Value = (Vec<u8>, Accepted)> {
    prop_oneof![line(), unknown(), own(), claimed()]
}

/// `TCP4` and `TCP6`.
fn line() -> impl Strategy<Value = (Vec<u8>, Accepted)> {
    let v4 = any::<[(Ipv4Addr, u16); 2]>().prop_map(|ends| ends.map(SocketAddr::from));
    let v6 = any::<[(Ipv6Addr, u16); 2]>().prop_map(|ends| ends.map(SocketAddr::from));
    prop_oneof![v4, v6].prop_map(|[from, to]| {
        let word = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        let text = format!("PROXY {word} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
        whole(text.into_bytes(), 1, ends(from, to), Told::new())
    })
}

/// `UNKNOWN`, with whatever is passed over.
fn unknown() -> impl Strategy<Value = (Vec<u8>, Accepted)> {
    let byte = any::<u8>().prop_filter("it ends no line", |byte| !b"\r\n".contains(byte));
    option::of(vec(byte, 0..=91)).prop_map(|rest| {
        let rest = rest.map(|rest| [b" ", &rest[..]].concat()).unwrap_or_default();
        whole([b"PROXY UNKNOWN", &rest[..], b"\r\n"].concat(), 1, Claim::Own, Told::new())
    })
}

/// `LOCAL` of any family, and `UNSPEC`, with whatever is passed over.
fn own() -> impl Strategy<Value = (Vec<u8>, Accepted)> {
    let kind = prop_oneof![any::<u8>().prop_map(|family| [0x20, family]), Just([0x21, 0x00])];
    (kind, vec(any::<u8>(), 0..600)).prop_map(|(kind, rest)| {
        whole([SIGNATURE, &kind, &two(rest.len()), &rest].concat(), 2, Claim::Own, Told::new())
    })
}

/// Addresses of every family of version 2, with fields.
fn claimed() -> impl Strategy<Value = (Vec<u8>, Accepted)> {
    let v4 = any::<[(Ipv4Addr, u16); 2]>().prop_map(|[from, to]| {
        let bytes = [from.0.octets(), to.0.octets(), join(from.1, to.1)].concat();
        (0x11, bytes, ends(from.into(), to.into()))
    });
    let v6 = any::<[(Ipv6Addr, u16); 2]>().prop_map(|[from, to]| {
        let bytes = [&from.0.octets()[..], &to.0.octets(), &join(from.1, to.1)].concat();
        (0x21, bytes, ends(from.into(), to.into()))
    });
    let unix = (unix(), unix()).prop_map(|((from, source), (to, destination))| {
        (0x31, [from, to].concat(), Claim::Ends { source, destination })
    });
    (prop_oneof![v4, v6, unix], fields()).prop_map(|((family, addresses, claim), (fields, told))| {
        let length = addresses.len() + fields.iter().map(|(_, value)| 3 + value.len()).sum::<usize>();
        let mut bytes = [SIGNATURE, &[0x21, family], &two(length), &addresses].concat();
        let mut checksum = None;
        for (kind, value) in fields {
            bytes.push(kind);
            bytes.extend(two(value.len()));
            if kind == CRC32C {
                checksum = Some(bytes.len());
            }
            bytes.extend(value);
        }
        if let Some(at) = checksum {
            let sum = crc32c(&bytes).to_be_bytes();
            bytes[at..at + 4].copy_from_slice(&sum);
        }
        whole(bytes, 2, claim, told)
    })
}

/// A Unix socket's name in its 108 bytes.
fn unix() -> impl Strategy<Value = (Vec<u8>, Addr)> {
    let place = |name: &[u8]| [name, &vec![0; 108 - name.len()]].concat();
    let path = vec(1..=u8::MAX, 1..=107)
        .prop_map(move |path| (place(&path), Addr::Path(OsString::from_vec(path).into())));
    // A name may have NULs, but not at its end: those fill the place.
    let name = (vec(any::<u8>(), 0..=106), 1..=u8::MAX).prop_map(move |(mut name, last)| {
        name.push(last);
        (place(&[&[0], &name[..]].concat()), Addr::Abstract(name))
    });
    prop_oneof![path, name, Just((vec![0; 108], Addr::Unnamed))]
}

/// Type and value.
type Field = (u8, Vec<u8>);

/// The checksum's type. Its value is zeros until the header is whole.
const CRC32C: u8 = 0x03;

/// Fields in any order, each that is read at most once.
fn fields() -> impl Strategy<Value = (Vec<Field>, Told)> {
    let alpn = known("alpn", 0x01, 60);
    let authority = known("authority", 0x02, 60);
    let unique_id = known("unique_id", 0x05, 128);
    let checksum = option::of(Just(((CRC32C, vec![0; 4]), Told::new())));
    let all =
        (alpn, authority, unique_id, checksum, option::of(tls()), others(&[0x01, 0x02, 0x03, 0x05, 0x20]));
    all.prop_flat_map(|(alpn, authority, unique_id, checksum, tls, others)| {
        mixed([alpn, authority, unique_id, checksum, tls].into_iter().flatten(), others)
    })
}

/// TLS's field: flags, the verification's result, fields.
fn tls() -> impl Strategy<Value = (Field, Told)> {
    let version = known("tls.version", 0x21, 10);
    let common_name = known("tls.common_name", 0x22, 60);
    let cipher = known("tls.cipher", 0x23, 30);
    let fields = (version, common_name, cipher, others(&[0x21, 0x22, 0x23])).prop_flat_map(
        |(version, common_name, cipher, others)| {
            mixed([version, common_name, cipher].into_iter().flatten(), others)
        },
    );
    let verify = prop_oneof![Just(0), any::<u32>()];
    (any::<u8>(), verify, fields).prop_map(|(flags, verify, (fields, mut told))| {
        let mut value = [&[flags][..], &verify.to_be_bytes()].concat();
        for (kind, inner) in fields {
            value.push(kind);
            value.extend(two(inner.len()));
            value.extend(inner);
        }
        if flags & 6 != 0 && verify == 0 {
            told.insert("tls.verified", Vec::new());
        }
        told.insert("tls", Vec::new());
        ((0x20, value), if flags & 1 == 1 { told } else { Told::new() })
    })
}

/// Perhaps a field that is read.
fn known(name: &'static str, kind: u8, longest: usize) -> impl Strategy<Value = Option<(Field, Told)>> {
    let value = vec(any::<u8>(), 0..=longest);
    option::of(value.prop_map(move |value| ((kind, value.clone()), Told::from([(name, value)]))))
}

/// Fields that are passed over: of any type but these.
fn others(but: &'static [u8]) -> impl Strategy<Value = Vec<Field>> {
    let kind = any::<u8>().prop_filter("it is passed over", |kind| !but.contains(kind));
    vec((kind, vec(any::<u8>(), 0..20)), 0..4)
}

/// All of them in any order, and what they tell together.
fn mixed(
    known: impl Iterator<Item = (Field, Told)>,
    mut fields: Vec<Field>,
) -> impl Strategy<Value = (Vec<Field>, Told)> {
    let mut told = BTreeMap::new();
    for (field, tells) in known {
        fields.push(field);
        told.extend(tells);
    }
    (Just(fields).prop_shuffle(), Just(told))
}

fn whole(bytes: Vec<u8>, version: u8, claim: Claim, told: Told) -> (Vec<u8>, Accepted) {
    let length = bytes.len();
    (bytes, Accepted { version, claim, told, length })
}

fn ends(source: SocketAddr, destination: SocketAddr) -> Claim {
    Claim::Ends { source: Addr::Inet(source), destination: Addr::Inet(destination) }
}

/// Two ports, in network byte order.
fn join(one: u16, other: u16) -> [u8; 4] {
    (u32::from(one) << 16 | u32::from(other)).to_be_bytes()
}

/// A length in two bytes.
fn two(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("no header is as long").to_be_bytes()
}

/// RFC 3720's checksum, in another way than the parser's: the bytes are mirrored, and divided from the top.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut rest = u32::MAX;
    for byte in bytes {
        rest ^= u32::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            rest = rest << 1 ^ if rest >> 31 == 1 { 0x1edc_6f41 } else { 0 };
        }
    }
    !rest.reverse_bits()
}
