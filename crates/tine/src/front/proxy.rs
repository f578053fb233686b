//! The PROXY protocol: what a balancer says of the client it speaks for, before that client's first byte.
//!
//! Pure. [`parse`] is given everything that came so far and says whether that is the beginning of a header, a whole one, or
//! none; it makes no system call, guesses nothing, and keeps nothing between two calls. Reading the bytes, waiting for
//! them, and asking whether their sender may be believed is the caller's. A second header behind the first is
//! payload: only the first sender was asked for one.
//!
//! Versions 1 and 2 as in HAProxy's `doc/proxy-protocol.txt`. Where that leaves a choice, or balancers differ:
//!
//! - A byte that no header could have in its place is refused when it comes, so that garbage is never waited on. Whatever
//!   is [`Parsed::Incomplete`] can still become a header. The one exception is the checksum, which speaks of all bytes and is
//!   judged at the last of them.
//! - Datagram transports (`UDP4`, `UDP6`, Unix datagrams) are refused: a stream carries no datagrams, so a balancer that
//!   says so talks of something else than what it sends.
//! - `LOCAL`, `UNKNOWN` and `UNSPEC` are taken and what they carry is passed over unread: where its addresses end is not
//!   known. The socket's own addresses stand.
//! - A field of version 2 that is told to the caller may stand once. Two answers to "who is it" are none.
//! - An IPv6 address may be written with an IPv4 address at its end, as inet_ntop(3) does, within the 39 bytes that the
//!   protocol gives an address. A v4-mapped address stays what it is; whoever counts clients unmaps it.
//! - A Unix path ends at its first NUL, as for the kernel, and has one: a path of 108 bytes is refused, since no address
//!   of ours could hold it. An abstract name ends before the NULs that fill the place.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::{error, fmt};

use tine_os::socket::Addr;

/// The longest header that is taken, in bytes: room for what any balancer sends, and no more memory than that for a
/// stranger. A header of version 1 has at most 107.
pub const LONGEST: usize = 4096;

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one for each connection, and taken apart at once")]
pub enum Parsed {
    /// The beginning of a header that goes on.
    Incomplete,
    /// A whole header, perhaps with payload behind it.
    Complete {
        /// What it says.
        header: Header,
        /// The header's length in bytes; the payload begins there.
        length: usize,
    },
}

/// What a balancer says of a connection.
///
/// The byte strings are passed on as they came, whatever their characters: the client may have chosen them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The protocol's version, 1 or 2. Version 1 tells nothing but the claim.
    pub version: u8,
    /// Whose connection it is.
    pub claim: Claim,
    /// How the client's TLS was, when the balancer ended it: `PP2_TYPE_SSL` with `PP2_CLIENT_SSL` set.
    pub tls: Option<Tls>,
    /// The name that the client asked for, such as TLS's `server_name`: `PP2_TYPE_AUTHORITY`.
    pub authority: Option<Vec<u8>>,
    /// The protocol that the client spoke of, such as `h2`: `PP2_TYPE_ALPN`.
    pub alpn: Option<Vec<u8>>,
    /// What the balancer calls the connection, at most 128 bytes: `PP2_TYPE_UNIQUE_ID`.
    pub unique_id: Option<Vec<u8>>,
}

/// Whose connection it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The balancer's own (`LOCAL`, as for its health checks), or nobody's that it can name (`UNKNOWN`, `UNSPEC`): the
    /// socket's own addresses stand.
    Own,
    /// A client's.
    Ends {
        /// Where the client is.
        source: Addr,
        /// Where the client connected to.
        destination: Addr,
    },
}

/// How the client's TLS was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// The protocol's version, such as `TLSv1.3`.
    pub version: Option<Vec<u8>>,
    /// The cipher's name, such as `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher: Option<Vec<u8>>,
    /// The common name in the client's certificate. It is worth something only when `verified`.
    pub common_name: Option<Vec<u8>>,
    /// Whether the client showed a certificate, on this connection or in its session before, and the balancer verified it.
    /// Balancers also report a successful verification where there was no certificate; that is not one.
    pub verified: bool,
}

/// Why bytes are no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyError {
    /// They begin neither as a line of version 1 nor as the signature of version 2.
    NoHeader,
    /// Version 1: a protocol other than `TCP4`, `TCP6` and `UNKNOWN`.
    Protocol,
    /// Version 1: an address that is none of its protocol, or not written in the one way that is allowed.
    Address,
    /// Version 1: a port that is no number from 0 to 65535 without sign and leading zeros.
    Port,
    /// Version 1: a line that ends before its last field, goes on behind it, or has a lone CR or LF.
    LineEnd,
    /// Version 1: a line longer than 107 bytes.
    LineLong,
    /// Version 2: the version is another one.
    Version,
    /// Version 2: a command other than `LOCAL` and `PROXY`.
    Command,
    /// Version 2: a transport of datagrams, on a stream.
    Datagrams,
    /// Version 2: an address family or a transport that is not defined.
    Family,
    /// Version 2: too short for the addresses of its family.
    Short,
    /// Version 2: longer than [`LONGEST`].
    Long,
    /// Version 2: a Unix path without its closing NUL.
    Path,
    /// Version 2: a field whose length cannot be: it does not fit, leaves room for no other, or is not its type's.
    Field,
    /// Version 2: a field that may stand once stands twice.
    Twice,
    /// Version 2: the checksum is another one.
    Checksum,
}

/// Reads a header from the first bytes of a connection: all that came so far, from the first one on.
///
/// Answers as early as can be known. What is refused stays refused whatever follows; what is complete stays so, with the
/// same header and length. To wait for more than [`LONGEST`] bytes is never necessary.
///
/// ```
/// use tine::proxy::{Parsed, parse};
///
/// let bytes = b"PROXY TCP4 192.0.2.7 198.51.100.1 5023 80\r\nhello";
/// let Parsed::Complete { length, .. } = parse(bytes)? else { panic!("it is whole") };
/// assert_eq!(&bytes[length..], b"hello");
/// assert_eq!(parse(&bytes[..20])?, Parsed::Incomplete);
/// assert!(parse(b"GET / HTTP/1.1\r\n").is_err());
/// # Ok::<(), tine::proxy::ProxyError>(())
/// ```
///
/// # Errors
/// Why these bytes cannot be the beginning of a header.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    if agree(bytes, LINE) {
        line(bytes)
    } else if agree(bytes, SIGNATURE) {
        binary(bytes)
    } else {
        Err(ProxyError::NoHeader)
    }
}

/// How a header of version 1 begins, and one of version 2.
const LINE: &[u8] = b"PROXY ";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Whether the bytes are this word's beginning, or begin with the word.
fn agree(bytes: &[u8], word: &[u8]) -> bool {
    bytes.iter().zip(word).all(|(one, other)| one == other)
}

/// A line of version 1 has at most this many bytes, CR and LF among them.
const LINE_LONGEST: usize = 107;

fn line(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let Some(rest) = bytes.get(LINE.len()..) else { return Ok(Parsed::Incomplete) };
    let words: [&[u8]; 3] = [b"TCP4 ", b"TCP6 ", b"UNKNOWN"];
    let word = words.into_iter().find(|word| agree(rest, word)).ok_or(ProxyError::Protocol)?;
    if rest.len() < word.len() {
        return Ok(Parsed::Incomplete);
    }
    let mut fields = Line { bytes, at: LINE.len() + word.len() };
    let claim = match word {
        b"TCP4 " => fields.ends::<Ipv4Addr>("255.255.255.255".len())?,
        b"TCP6 " => fields.ends::<Ipv6Addr>("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len())?,
        _ => fields.unknown()?,
    };
    let Some(claim) = claim else { return Ok(Parsed::Incomplete) };
    match bytes.get(fields.at) {
        None => Ok(Parsed::Incomplete),
        Some(b'\n') => {
            let header =
                Header { version: 1, claim, tls: None, authority: None, alpn: None, unique_id: None };
            Ok(Parsed::Complete { header, length: fields.at + 1 })
        }
        Some(_) => Err(ProxyError::LineEnd),
    }
}

/// A line that is read from left to right.
struct Line<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Line<'a> {
    /// Reads both ends, up to the CR and with it; `None` while there is more to come.
    fn ends<A: FromStr + Into<IpAddr>>(&mut self, longest: usize) -> Result<Option<Claim>, ProxyError> {
        let address = |text: &[u8]| begins_address::<A>(text, longest);
        let Some(source) = self.field::<A>(b' ', address, ProxyError::Address)? else { return Ok(None) };
        let Some(destination) = self.field::<A>(b' ', address, ProxyError::Address)? else { return Ok(None) };
        let Some(from) = self.field(b' ', begins_port, ProxyError::Port)? else { return Ok(None) };
        let Some(to) = self.field(b'\r', begins_port, ProxyError::Port)? else { return Ok(None) };
        Ok(Some(Claim::Ends {
            source: Addr::Inet(SocketAddr::new(source.into(), from)),
            destination: Addr::Inet(SocketAddr::new(destination.into(), to)),
        }))
    }

    /// Reads a field and the one byte that may end it. The standard library says what the whole field is; `begins` says
    /// whether what came of it can still become one.
    fn field<T: FromStr>(
        &mut self,
        end: u8,
        begins: impl Fn(&[u8]) -> bool,
        wrong: ProxyError,
    ) -> Result<Option<T>, ProxyError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| b" \r\n".contains(byte)).unwrap_or(rest.len());
        let text = &rest[..length];
        if !begins(text) {
            return Err(wrong);
        }
        match rest.get(length) {
            None => Ok(None),
            Some(byte) if *byte == end => {
                self.at += length + 1;
                str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(wrong).map(Some)
            }
            Some(_) => Err(ProxyError::LineEnd),
        }
    }

    /// Passes over whatever stands behind `UNKNOWN`, up to the CR and with it; `None` while there is more to come.
    fn unknown(&mut self) -> Result<Option<Claim>, ProxyError> {
        let most = LINE_LONGEST - "\r\n".len();
        let rest = &self.bytes[self.at..];
        if rest.first().is_some_and(|byte| !b" \r\n".contains(byte)) {
            return Err(ProxyError::Protocol);
        }
        let length = rest.iter().position(|byte| b"\r\n".contains(byte));
        match length {
            _ if self.at + length.unwrap_or(rest.len()) > most => Err(ProxyError::LineLong),
            None => Ok(None),
            Some(length) if rest[length] == b'\r' => {
                self.at += length + 1;
                Ok(Some(Claim::Own))
            }
            Some(_) => Err(ProxyError::LineEnd),
        }
    }
}

/// What can be missing at the end of an address: any beginning of one becomes an address with one of these, shortest
/// first.
const ENDINGS: [&str; 10] = ["", "0", ":", ".0", "::", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0"];

/// Whether this can still become an address of at most `longest` bytes.
fn begins_address<A: FromStr>(text: &[u8], longest: usize) -> bool {
    let mut room = [0; 64]; // no address is longer than 39 bytes, no ending than 7
    text.len() <= longest
        && ENDINGS.iter().take_while(|ending| text.len() + ending.len() <= longest).any(|ending| {
            let whole = &mut room[..text.len() + ending.len()];
            whole[..text.len()].copy_from_slice(text);
            whole[text.len()..].copy_from_slice(ending.as_bytes());
            str::from_utf8(whole).is_ok_and(|whole| whole.parse::<A>().is_ok())
        })
}

/// Whether this can still become a port; nothing at all can.
fn begins_port(text: &[u8]) -> bool {
    let leading_zero = text.len() > 1 && text[0] == b'0';
    let digits = text.iter().all(u8::is_ascii_digit);
    let number = str::from_utf8(text).ok().and_then(|text| text.parse::<u16>().ok());
    text.is_empty() || (digits && !leading_zero && number.is_some())
}

/// The part of a header of version 2 that every one has: signature, command, family, length.
const FIXED: usize = 16;

/// The room for a Unix socket's name, as in `sockaddr_un`: unix(7).
const UNIX_ROOM: usize = 108;

fn binary(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let Some(command) = bytes.get(SIGNATURE.len()) else { return Ok(Parsed::Incomplete) };
    let local = match command {
        0x20 => true,
        0x21 => false,
        other if other >> 4 == 2 => return Err(ProxyError::Command),
        _ => return Err(ProxyError::Version),
    };
    let Some(family) = bytes.get(SIGNATURE.len() + 1) else { return Ok(Parsed::Incomplete) };
    let family = match family {
        _ if local => Family::Unspecified,
        0x00 => Family::Unspecified,
        0x11 => Family::V4,
        0x21 => Family::V6,
        0x31 => Family::Unix,
        0x12 | 0x22 | 0x32 => return Err(ProxyError::Datagrams),
        _ => return Err(ProxyError::Family),
    };

    // The first byte of the length may already say too much.
    let Some(&high) = bytes.get(FIXED - 2) else { return Ok(Parsed::Incomplete) };
    if FIXED + (usize::from(high) << 8) > LONGEST {
        return Err(ProxyError::Long);
    }
    let Some(&low) = bytes.get(FIXED - 1) else { return Ok(Parsed::Incomplete) };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return Err(ProxyError::Long);
    }
    let so_far = &bytes[..bytes.len().min(length)];
    let mut fields = Fields::default();
    if let Some(addresses) = family.room() {
        let room = length.checked_sub(FIXED + addresses).ok_or(ProxyError::Short)?;
        if !fields_fill(room) {
            return Err(ProxyError::Field);
        }
        family.check(&so_far[FIXED..])?;
        fields.read(so_far, FIXED + addresses, length, Level::Outer)?;
    }
    if so_far.len() < length {
        return Ok(Parsed::Incomplete);
    }
    fields.check(so_far)?;
    Ok(Parsed::Complete { header: fields.header(family.claim(&so_far[FIXED..])), length })
}

/// What kind of addresses a header of version 2 carries.
#[derive(Clone, Copy)]
enum Family {
    Unspecified,
    V4,
    V6,
    Unix,
}

impl Family {
    /// How many bytes both addresses take; `None` where nobody knows.
    fn room(self) -> Option<usize> {
        match self {
            Family::Unspecified => None,
            Family::V4 => Some(12),
            Family::V6 => Some(36),
            Family::Unix => Some(2 * UNIX_ROOM),
        }
    }

    /// Refuses what no address is, in as much of the addresses as has come. Any bytes are an IP address and a port.
    fn check(self, addresses: &[u8]) -> Result<(), ProxyError> {
        let endless = |name: &[u8]| name.len() == UNIX_ROOM && name[0] != 0 && !name.contains(&0);
        let mut names = addresses.chunks(UNIX_ROOM).take(2);
        match self {
            Family::Unix if names.any(endless) => Err(ProxyError::Path),
            _ => Ok(()),
        }
    }

    /// Reads the addresses, which have all come.
    fn claim(self, addresses: &[u8]) -> Claim {
        let (source, destination) = match self {
            Family::Unspecified => return Claim::Own,
            Family::V4 => inet(Ipv4Addr::from, addresses),
            Family::V6 => inet(Ipv6Addr::from, addresses),
            Family::Unix => {
                let (source, rest) = addresses.split_at(UNIX_ROOM);
                (unix(source), unix(&rest[..UNIX_ROOM]))
            }
        };
        Claim::Ends { source, destination }
    }
}

/// Both addresses, then both ports, in network byte order.
fn inet<const N: usize, A: Into<IpAddr>>(address: fn([u8; N]) -> A, bytes: &[u8]) -> (Addr, Addr) {
    let end = |n: usize| {
        let ip = address(std::array::from_fn(|i| bytes[n * N + i])).into();
        let port = u16::from_be_bytes(std::array::from_fn(|i| bytes[2 * (N + n) + i]));
        Addr::Inet(SocketAddr::new(ip, port))
    };
    (end(0), end(1))
}

/// A Unix socket's name in its place, filled up with NULs: unix(7).
fn unix(name: &[u8]) -> Addr {
    let full = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match name[..full].split_first() {
        None => Addr::Unnamed,
        Some((0, name)) => Addr::Abstract(name.to_vec()),
        Some(_) => {
            let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
            Addr::Path(PathBuf::from(OsStr::from_bytes(path)))
        }
    }
}

/// The types of fields that are read; all others are passed over, `PP2_TYPE_NOOP` among them.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;

/// The types of fields within `SSL`, behind its flags (1 byte) and the result of the verification (4).
const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const SSL_FIXED: usize = 5;

/// `PP2_CLIENT_SSL`; `PP2_CLIENT_CERT_CONN` and `PP2_CLIENT_CERT_SESS`.
const FLAG_SSL: u8 = 1;
const FLAGS_CERTIFICATE: u8 = 2 | 4;

/// What a field's type and length take, before its value.
const FIELD_FIXED: usize = 3;

/// The longest `PP2_TYPE_UNIQUE_ID`.
const UNIQUE_ID_LONGEST: usize = 128;

/// Whether fields can fill exactly this many bytes.
fn fields_fill(room: usize) -> bool {
    room == 0 || room >= FIELD_FIXED
}

/// Where a field stands: in the header, or in its `SSL` field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Outer,
    Ssl,
}

impl Level {
    /// The fields that are read here, each at most once.
    fn read(self) -> &'static [u8] {
        match self {
            Level::Outer => &[ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL],
            Level::Ssl => &[SSL_VERSION, SSL_COMMON_NAME, SSL_CIPHER],
        }
    }

    /// Whether a field of this type may have this length, as far as its type goes.
    fn allows(self, kind: u8, length: usize) -> bool {
        match (self, kind) {
            (Level::Outer, CRC32C) => length == 4,
            (Level::Outer, UNIQUE_ID) => length <= UNIQUE_ID_LONGEST,
            (Level::Outer, SSL) => length.checked_sub(SSL_FIXED).is_some_and(fields_fill),
            _ => true,
        }
    }
}

/// What was found behind the addresses.
#[derive(Default)]
struct Fields<'a> {
    /// One bit for each type that was read; all of them are below 64.
    seen: u64,
    alpn: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    unique_id: Option<&'a [u8]>,
    /// Where the checksum stands in the header.
    checksum: Option<usize>,
    ssl: Option<&'a [u8]>,
    ssl_version: Option<&'a [u8]>,
    ssl_common_name: Option<&'a [u8]>,
    ssl_cipher: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    /// Reads what has come of the fields that stand from `at` to `end`, a room that fields can fill.
    fn read(&mut self, header: &'a [u8], mut at: usize, end: usize, level: Level) -> Result<(), ProxyError> {
        while at < end {
            let Some(&kind) = header.get(at) else { return Ok(()) };
            self.once(kind, level)?;
            let most = end - at - FIELD_FIXED;
            let lengths = lengths(&header[at + 1..]);
            let fits = |length: usize| fields_fill(most - length) && level.allows(kind, length);
            if !lengths.clone().take_while(|length| *length <= most).any(fits) {
                return Err(ProxyError::Field);
            }
            if lengths.start() != lengths.end() {
                return Ok(());
            }
            let (from, to) = (at + FIELD_FIXED, at + FIELD_FIXED + lengths.start());
            if (level, kind) == (Level::Outer, SSL) {
                self.read(header, from + SSL_FIXED, to, Level::Ssl)?;
            }
            let Some(value) = header.get(from..to) else { return Ok(()) };
            self.keep(kind, level, value, from);
            at = to;
        }
        Ok(())
    }

    /// Refuses the second field of a type that is read.
    fn once(&mut self, kind: u8, level: Level) -> Result<(), ProxyError> {
        if !level.read().contains(&kind) {
            return Ok(());
        }
        let bit = 1 << kind;
        if self.seen & bit != 0 {
            return Err(ProxyError::Twice);
        }
        self.seen |= bit;
        Ok(())
    }

    fn keep(&mut self, kind: u8, level: Level, value: &'a [u8], from: usize) {
        match (level, kind) {
            (Level::Outer, ALPN) => self.alpn = Some(value),
            (Level::Outer, AUTHORITY) => self.authority = Some(value),
            (Level::Outer, CRC32C) => self.checksum = Some(from),
            (Level::Outer, UNIQUE_ID) => self.unique_id = Some(value),
            (Level::Outer, SSL) => self.ssl = Some(value),
            (Level::Ssl, SSL_VERSION) => self.ssl_version = Some(value),
            (Level::Ssl, SSL_COMMON_NAME) => self.ssl_common_name = Some(value),
            (Level::Ssl, SSL_CIPHER) => self.ssl_cipher = Some(value),
            _ => {}
        }
    }

    /// Compares the checksum, if there is one, with that of the whole header, in which zeros stand for it.
    fn check(&self, header: &[u8]) -> Result<(), ProxyError> {
        let Some(from) = self.checksum else { return Ok(()) };
        let (before, rest) = header.split_at(from);
        let (said, after) = rest.split_at(4);
        let whole = before.iter().chain(&[0; 4]).chain(after);
        if crc32c(whole).to_be_bytes() == said { Ok(()) } else { Err(ProxyError::Checksum) }
    }

    fn header(&self, claim: Claim) -> Header {
        let own = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
        // The field also comes from balancers that report on connections without TLS.
        let tls = self.ssl.filter(|ssl| ssl[0] & FLAG_SSL != 0).map(|ssl| Tls {
            version: own(self.ssl_version),
            cipher: own(self.ssl_cipher),
            common_name: own(self.ssl_common_name),
            verified: ssl[0] & FLAGS_CERTIFICATE != 0 && ssl[1..SSL_FIXED] == [0; 4],
        });
        let (authority, alpn) = (own(self.authority), own(self.alpn));
        Header { version: 2, claim, tls, authority, alpn, unique_id: own(self.unique_id) }
    }
}

/// What a field's length can be, from as much as has come of its two bytes.
fn lengths(bytes: &[u8]) -> RangeInclusive<usize> {
    let (low, high) = match *bytes {
        [] => (0, u16::MAX),
        [first] => (u16::from_be_bytes([first, 0]), u16::from_be_bytes([first, u8::MAX])),
        [first, second, ..] => (u16::from_be_bytes([first, second]), u16::from_be_bytes([first, second])),
    };
    usize::from(low)..=usize::from(high)
}

/// The CRC-32C (Castagnoli) of RFC 3720, appendix B.4, a bit at a time: a header is short.
fn crc32c<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc));
    !bytes.into_iter().fold(!0, byte)
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyError::NoHeader => "no PROXY header",
            ProxyError::Protocol => "none of TCP4, TCP6 and UNKNOWN",
            ProxyError::Address => "no address where one belongs",
            ProxyError::Port => "no port where one belongs",
            ProxyError::LineEnd => "a space, CR or LF out of place",
            ProxyError::LineLong => "longer than 107 bytes",
            ProxyError::Version => "neither version 1 nor 2",
            ProxyError::Command => "neither LOCAL nor PROXY",
            ProxyError::Datagrams => "datagrams on a stream",
            ProxyError::Family => "an unknown address family or transport",
            ProxyError::Short => "too short for its addresses",
            ProxyError::Long => "longer than 4096 bytes",
            ProxyError::Path => "a Unix path without an end",
            ProxyError::Field => "a field of impossible length",
            ProxyError::Twice => "a field twice",
            ProxyError::Checksum => "a wrong checksum",
        })
    }
}

impl error::Error for ProxyError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4; the last is the check value that catalogues of checksums give.
    #[test]
    fn checksums_are_those_of_the_rfc() {
        let up: Vec<u8> = (0..32).collect();
        let down: Vec<u8> = (0..32).rev().collect();
        let mut read = [0; 48];
        for (at, byte) in
            [(0, 0x01), (1, 0xc0), (16, 0x14), (22, 0x04), (27, 0x14), (31, 0x18), (32, 0x28), (40, 0x02)]
        {
            read[at] = byte;
        }
        for (bytes, expected) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&up, 0x46dd_794e),
            (&down, 0x113f_db5c),
            (&read, 0xd996_3a56),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(bytes), expected, "{bytes:02x?}");
        }
    }

    /// What is taken for a beginning is one, since an ending completes it; here, that no beginning is missed.
    #[test]
    fn every_beginning_of_an_address_is_one() {
        let v4 = ["0.0.0.0", "255.255.255.255", "1.20.249.250", "10.0.0.1"];
        let v6 = [
            "::",
            "1::",
            "::1",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1::3:4:5:6:7:8",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "FFFF:0000:0:00:000:abCD::",
            "::ffff:192.0.2.1",
            "::1.2.3.4",
            "0:0:0:0:0:ffff:255.255.255.255",
            "1:2:3:4:5:6:1.2.3.4",
            "1:2:3:4:5::1.2.3.4",
        ];
        for text in v4 {
            for end in 0..=text.len() {
                assert!(begins_address::<Ipv4Addr>(&text.as_bytes()[..end], 15), "{}", &text[..end]);
            }
        }
        for text in v6 {
            for end in 0..=text.len() {
                assert!(begins_address::<Ipv6Addr>(&text.as_bytes()[..end], 39), "{}", &text[..end]);
            }
        }
    }

    #[test]
    fn a_message_is_a_short_phrase() {
        assert_eq!(parse(b"GET / HTTP/1.1").unwrap_err().to_string(), "no PROXY header");
        assert!(ProxyError::LineLong.to_string().contains(&LINE_LONGEST.to_string()));
        assert!(ProxyError::Long.to_string().contains(&LONGEST.to_string()));
    }
}
