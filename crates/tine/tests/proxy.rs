//! The PROXY parser against its written table, `proxy/vectors.txt`, against headers written at random, and against any bytes.

#![forbid(unsafe_code)]

#[path = "proxy/headers.rs"]
mod headers;
#[path = "proxy/laws.rs"]
mod laws;
#[path = "proxy/table.rs"]
mod table;

use std::collections::{BTreeMap, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample;
use tine::proxy::{Claim, Header, LONGEST, Parsed, parse};

use headers::any_header;
use table::{Verdict, table};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What may stand behind a header, and must change nothing of what is read from it.
const PAYLOADS: [&[u8]; 7] = [
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    &[b'x'; 2 * LONGEST],
];

#[test]
fn every_vector_gets_its_verdict_and_its_payload_is_left_as_it_is() {
    for vector in table() {
        for payload in PAYLOADS {
            let bytes = [&vector.bytes, payload].concat();
            match &vector.verdict {
                Verdict::Accept(expected) => {
                    assert_eq!(accepted(&bytes).as_ref(), Ok(expected), "{vector}");
                    assert!(bytes[expected.length..].ends_with(payload), "{vector}: some payload is gone");
                }
                Verdict::Reject { reason, .. } => {
                    assert_eq!(accepted(&bytes).as_ref(), Err(reason), "{vector}");
                }
                Verdict::Incomplete => {}
            }
        }
    }
}

#[test]
fn every_vector_is_decided_at_its_byte_and_not_before() {
    for vector in table() {
        let decided = match &vector.verdict {
            Verdict::Accept(expected) => expected.length,
            Verdict::Reject { length, .. } => *length,
            Verdict::Incomplete => vector.bytes.len() + 1,
        };
        for end in 0..=vector.bytes.len() {
            let so_far = &vector.bytes[..end];
            let verdict = accepted(so_far);
            match &vector.verdict {
                _ if end < decided => {
                    assert_eq!(parse(so_far), Ok(Parsed::Incomplete), "{vector}, {end} bytes");
                }
                Verdict::Accept(expected) => {
                    assert_eq!(verdict.as_ref(), Ok(expected), "{vector}, {end} bytes");
                }
                Verdict::Reject { reason, .. } => {
                    assert_eq!(verdict.as_ref(), Err(reason), "{vector}, {end} bytes");
                }
                Verdict::Incomplete => unreachable!("it is never decided"),
            }
        }
        laws::hold(&vector.bytes);
    }
}

#[test]
fn the_table_covers_what_it_is_for() {
    let table = table();
    let names: HashSet<&str> = table.iter().map(|vector| vector.name.as_str()).collect();
    assert_eq!(names.len(), table.len(), "each name once");
    assert!(table.len() >= 200, "{} vectors", table.len());
    let reasons: HashSet<&str> = table
        .iter()
        .filter_map(|vector| match &vector.verdict {
            Verdict::Reject { reason, .. } => Some(reason.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons.len(), 16, "every reason there is: {reasons:?}");
}

proptest! {
    /// Writes headers in every way that there is, and reads what was written.
    #[test]
    fn what_is_written_is_read(
        (bytes, expected) in any_header(),
        payload in vec(any::<u8>(), 0..40),
    ) {
        let with_payload = [&bytes[..], &payload].concat();
        prop_assert_eq!(accepted(&with_payload), Ok(expected));
        laws::hold(&with_payload);
    }

    #[test]
    fn headers_that_were_tampered_with_break_no_law(
        (mut bytes, _) in any_header(),
        changes in vec((any::<sample::Index>(), change()), 1..4),
    ) {
        for (at, change) in changes {
            let at = at.index(bytes.len());
            match change {
                Change::Put(byte) => bytes[at] = byte,
                Change::Add(byte) => bytes.insert(at, byte),
                Change::Flip(bit) => bytes[at] ^= 1 << bit,
                Change::Remove => drop(bytes.remove(at)),
            }
        }
        laws::hold(&bytes);
    }

    #[test]
    fn no_bytes_break_a_law(
        beginning in sample::select(BEGINNINGS),
        rest in vec(any::<u8>(), 0..300),
    ) {
        laws::hold(&[beginning, &rest].concat());
    }

    /// Text has the characters that lines are made of, so that it gets further than bytes do.
    #[test]
    fn no_line_breaks_a_law(word in "TCP4 |TCP6 |UNKNOWN", rest in "[0-9a-f:. \r\n]{0,110}") {
        laws::hold(format!("PROXY {word}{rest}").as_bytes());
    }
}

/// What random bytes follow.
const BEGINNINGS: &[&[u8]] = &[
    b"",
    b"PROXY ",
    b"PROXY UNKNOWN ",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 ",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x01\0ssssddddpppp",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x01\0ssssddddpppp\x20\0",
];

#[derive(Clone, Copy, Debug)]
enum Change {
    Put(u8),
    Add(u8),
    Flip(u8),
    Remove,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<u8>().prop_map(Change::Put),
        any::<u8>().prop_map(Change::Add),
        (0..8_u8).prop_map(Change::Flip),
        Just(Change::Remove),
    ]
}

/// What a header tells besides its claim, by the table's names; what is not there it does not tell.
type Told = BTreeMap<&'static str, Vec<u8>>;

/// All that an accepted header says.
#[derive(Clone, Debug, PartialEq)]
struct Accepted {
    version: u8,
    claim: Claim,
    told: Told,
    length: usize,
}

/// What the parser accepts, or why it does not.
fn accepted(bytes: &[u8]) -> Result<Accepted, String> {
    match parse(bytes) {
        Ok(Parsed::Complete { header, length }) => {
            let told = told(&header);
            Ok(Accepted { version: header.version, claim: header.claim, told, length })
        }
        Ok(Parsed::Incomplete) => Err("incomplete".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn told(header: &Header) -> Told {
    let tls = header.tls.clone().unwrap_or_default();
    let marks = [("tls", header.tls.is_some()), ("tls.verified", tls.verified)];
    let values = [
        ("alpn", header.alpn.clone()),
        ("authority", header.authority.clone()),
        ("unique_id", header.unique_id.clone()),
        ("tls.version", tls.version),
        ("tls.cipher", tls.cipher),
        ("tls.common_name", tls.common_name),
    ];
    let marks = marks.into_iter().filter(|(_, is)| *is).map(|(name, _)| (name, Vec::new()));
    marks.chain(values.into_iter().filter_map(|(name, value)| Some((name, value?)))).collect()
}
