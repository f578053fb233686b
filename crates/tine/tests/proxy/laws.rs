//! What holds for the PROXY parser whatever bytes it is given. The fuzz target checks the same.

use std::net::{IpAddr, SocketAddr};

use tine::Addr;
use tine::proxy::{Claim, Header, LONGEST, Parsed, ProxyError, parse};

/// Gives the parser these bytes one by one, then checks that what it said of each beginning fits together.
pub fn hold(bytes: &[u8]) {
    let mut decided = None;
    for end in 0..=bytes.len() {
        match parse(&bytes[..end]) {
            Ok(Parsed::Incomplete) => assert!(end < LONGEST, "{end} bytes are waited on"),
            verdict => {
                decided = Some((end, verdict));
                break;
            }
        }
    }
    let Some((end, verdict)) = decided else { return goes_on(bytes) };
    for more in [1, 2, 16, 300, usize::MAX] {
        let longer = &bytes[..end.saturating_add(more).min(bytes.len())];
        assert_eq!(parse(longer), verdict, "more bytes, another verdict");
    }
    match verdict {
        Ok(Parsed::Complete { header, length }) => {
            assert_eq!(length, end, "complete with its last byte, neither before nor after");
            sound(&header, &bytes[..length]);
        }
        Err(_) => goes_on(&bytes[..end - 1]),
        Ok(Parsed::Incomplete) => unreachable!("that decides nothing"),
    }
}

/// What is waited on can still become a header: there is a next byte that is not refused. The checksum alone depends on
/// all bytes, so it may be a wrong one.
fn goes_on(bytes: &[u8]) {
    let mut longer = bytes.to_vec();
    longer.push(0);
    let possible = (0..=u8::MAX).any(|byte| {
        *longer.last_mut().expect("it has just been pushed") = byte;
        matches!(parse(&longer), Ok(_) | Err(ProxyError::Checksum))
    });
    assert!(possible, "nothing can follow these {} bytes, and they are waited on", bytes.len());
}

/// What a header can say at all, and that a line says what was read from it.
fn sound(header: &Header, bytes: &[u8]) {
    assert!(bytes.len() <= LONGEST);
    assert!(header.unique_id.as_ref().is_none_or(|id| id.len() <= 128));
    if let Claim::Ends { source, destination } = &header.claim {
        holdable(source);
        holdable(destination);
    }
    match (header.version, &header.claim) {
        (2, _) => {}
        (1, Claim::Own) => assert!(bytes.len() <= 107 && bytes.ends_with(b"\r\n")),
        (1, Claim::Ends { source: Addr::Inet(source), destination: Addr::Inet(destination) }) => {
            assert_eq!(fields(bytes), Some((*source, *destination)), "{header:?}");
        }
        _ => panic!("{header:?}"),
    }
}

/// An address that a socket can have.
fn holdable(addr: &Addr) {
    match addr {
        Addr::Path(path) => {
            let bytes = path.as_os_str().as_encoded_bytes();
            assert!((1..=107).contains(&bytes.len()) && !bytes.contains(&0), "{path:?}");
        }
        Addr::Abstract(name) => assert!((1..=107).contains(&name.len()), "{name:?}"),
        Addr::Inet(_) | Addr::Unnamed => {}
        other => panic!("{other:?}"),
    }
}

/// Reads a line's addresses once more, in the simplest way.
fn fields(line: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let line = str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let [_, word, source, destination, from, to] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let address = |text: &str, port: &str| {
        let ip: IpAddr = text.parse().ok()?;
        let port: u16 = port.parse().ok()?;
        (ip.is_ipv4() == (word == "TCP4") && ip.is_ipv6() == (word == "TCP6")).then_some((ip, port).into())
    };
    Some((address(source, from)?, address(destination, to)?))
}
