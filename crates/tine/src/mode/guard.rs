//! Which replies to datagrams are sent: a source address may be forged. Pure.

use tine_os::socket::Addr;

use crate::handler::Datagram;

/// Which replies are not sent, because a forged source address would make them harm somebody else.
///
/// Two services that answer each other's answers go on for ever (CVE-2024-2169), and an answer much longer than its
/// question multiplies an attacker's traffic. Lengths are counted with the 28 bytes of IP and UDP header on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Whether ports below 1024 are answered: echo, chargen, DNS and others live there.
    pub low_ports: bool,
    /// How many times as long as its question an answer may be; 0 is as long as it likes.
    pub amplification: u32,
    /// The port that this listener has.
    pub own_port: Option<u16>,
}

const HEADERS: usize = 28;

impl Guard {
    /// Whether a reply of so many bytes may go out. Pure.
    pub(crate) fn lets(&self, datagram: &Datagram<'_>, length: usize) -> bool {
        let Some(source) = datagram.source else { return false };
        let Addr::Inet(source) = source else { return true };
        let ours = self.own_port == Some(source.port())
            && (source.ip().is_loopback() || datagram.destination == Some(source.ip().to_canonical()));
        let low = source.port() < 1024 && !self.low_ports;
        let most = self.amplification as usize * (datagram.payload.len() + HEADERS);
        source.port() != 0 && !ours && !low && (self.amplification == 0 || length + HEADERS <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARD: Guard = Guard { low_ports: false, amplification: 3, own_port: Some(7000) };

    fn from(source: &str, payload: &'static [u8]) -> Datagram<'static> {
        let destination = Some("192.0.2.1".parse().unwrap());
        // A test's few bytes may stay.
        let source = Box::leak(Box::new(Addr::Inet(source.parse().unwrap())));
        Datagram { payload, source: Some(source), destination, truncated: false }
    }

    #[test]
    fn services_that_would_answer_back_are_not_answered() {
        for (source, answered) in [
            ("198.51.100.1:5000", true),
            ("198.51.100.1:7", false),
            ("198.51.100.1:19", false),
            ("198.51.100.1:53", false),
            ("198.51.100.1:1023", false),
            ("198.51.100.1:1024", true),
            ("198.51.100.1:0", false),
            ("198.51.100.1:7000", true),
            ("127.0.0.1:7000", false),
            ("192.0.2.1:7000", false),
        ] {
            assert_eq!(GUARD.lets(&from(source, b"four"), 4), answered, "{source}");
        }
        assert!(Guard { low_ports: true, ..GUARD }.lets(&from("198.51.100.1:53", b""), 4));
    }

    #[test]
    fn a_reply_is_at_most_three_times_as_long_as_its_question_headers_included() {
        let most = 3 * (4 + HEADERS) - HEADERS;
        let fine =
            [most - 1, most, most + 1].map(|length| GUARD.lets(&from("198.51.100.1:5000", b"four"), length));
        assert_eq!(fine, [true, true, false]);
        assert!(Guard { amplification: 0, ..GUARD }.lets(&from("198.51.100.1:5000", b""), 60_000));
    }

    #[test]
    fn a_socket_without_a_name_cannot_be_answered() {
        assert!(!GUARD.lets(&Datagram { source: None, ..from("198.51.100.1:5000", b"") }, 0));
    }
}
