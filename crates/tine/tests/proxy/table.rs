//! The written table: its head tells the form.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use tine::Addr;
use tine::proxy::Claim;

use crate::{Accepted, SIGNATURE, Told};

const TABLE: &str = include_str!("vectors.txt");

/// An entry of the table.
pub struct Vector {
    pub name: String,
    pub bytes: Vec<u8>,
    pub verdict: Verdict,
}

pub enum Verdict {
    Accept(Accepted),
    Reject { length: usize, reason: String },
    Incomplete,
}

/// What a header can say besides its claim, as the table calls it.
const NAMES: [&str; 8] =
    ["alpn", "authority", "tls", "tls.cipher", "tls.common_name", "tls.verified", "tls.version", "unique_id"];

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vector '{}'", self.name)
    }
}

/// Reads the table.
pub fn table() -> Vec<Vector> {
    let without_comments: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
    let entries = without_comments.split(|line| line.is_empty()).filter(|entry| !entry.is_empty());
    entries.map(|lines| entry(lines).unwrap_or_else(|| panic!("not in the form: {lines:#?}"))).collect()
}

fn entry(lines: &[&str]) -> Option<Vector> {
    let (name, rest) = lines.split_first()?;
    let text: Vec<&str> = rest.iter().map_while(|line| line.strip_prefix('|')).collect();
    let bytes: Vec<u8> = text.iter().flat_map(|text| bytes(text.strip_prefix(' ').unwrap_or(text))).collect();
    let (verdict, with) = rest[text.len()..].split_first()?;
    let words: Vec<&str> = verdict.split(' ').collect();
    let verdict = match words[..] {
        ["accept", ref claim @ .., length] => {
            let claim = match claim {
                ["own"] => Claim::Own,
                [source, destination] => {
                    Claim::Ends { source: addr(source)?, destination: addr(destination)? }
                }
                _ => return None,
            };
            let with = with.iter().flat_map(|line| line.strip_prefix("with ").unwrap_or("?").split(' '));
            let mut told: Told = with.map(tells).collect::<Option<_>>()?;
            if told.keys().any(|name| name.starts_with("tls")) {
                told.entry("tls").or_default();
            }
            let version = if bytes.starts_with(SIGNATURE) { 2 } else { 1 };
            Verdict::Accept(Accepted { version, claim, told, length: length.parse().ok()? })
        }
        ["reject", length, ref reason @ ..] if with.is_empty() => {
            Verdict::Reject { length: length.parse().ok()?, reason: reason.join(" ") }
        }
        ["incomplete"] if with.is_empty() => Verdict::Incomplete,
        _ => return None,
    };
    Some(Vector { name: (*name).to_owned(), bytes, verdict })
}

/// `NAME` or `NAME=VALUE` in a line that begins with `with`.
fn tells(text: &str) -> Option<(&'static str, Vec<u8>)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Some((NAMES.into_iter().find(|known| *known == name)?, bytes(value)))
}

fn addr(text: &str) -> Option<Addr> {
    Some(match text.strip_prefix("unix:") {
        None => Addr::Inet(text.parse().ok()?),
        Some("") => Addr::Unnamed,
        Some(name) => match name.strip_prefix('@') {
            Some(name) => Addr::Abstract(bytes(name)),
            None => Addr::Path(OsString::from_vec(bytes(name)).into()),
        },
    })
}

/// The bytes that a text of the table stands for.
fn bytes(text: &str) -> Vec<u8> {
    const ADDRESSES: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x9f, 0, 80];
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (more, length) = match first {
            '\\' => match &rest[1..2] {
                "r" => (vec![b'\r'], 2),
                "n" => (vec![b'\n'], 2),
                "x" => (vec![u8::from_str_radix(&rest[2..4], 16).expect("two digits")], 4),
                other => panic!("\\{other} in '{text}'"),
            },
            '<' => match rest.split_inclusive('>').next() {
                Some("<sig>") => (SIGNATURE.to_vec(), "<sig>".len()),
                Some("<4>") => (ADDRESSES.to_vec(), "<4>".len()),
                other => panic!("{other:?} in '{text}'"),
            },
            '(' => {
                let end = rest.find(')').expect("it is closed");
                let (what, times) = rest[1..end].rsplit_once('*').expect("how often");
                (self::bytes(what).repeat(times.parse().expect("a number")), end + 1)
            }
            other => (other.to_string().into_bytes(), other.len_utf8()),
        };
        bytes.extend(more);
        rest = &rest[length..];
    }
    bytes
}
