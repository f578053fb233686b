//! Datagrams: read, handle, read again, in a worker. A fork for each would cost more than the work.

use std::os::fd::AsFd;
use std::process::ExitCode;

use tine_confine::{Failure, Step};
use tine_os::datagram::Basket;
use tine_os::fd;
use tine_os::socket::Addr;

use crate::handler::{Datagram, DatagramHandler, Reply};
use crate::life::reap::Report;
use crate::life::serve::run;
use crate::mode::worker::Bench;

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
        let Some(source) = &datagram.source else { return false };
        let Addr::Inet(source) = source else { return true };
        let ours = self.own_port == Some(source.port())
            && (source.ip().is_loopback() || datagram.destination == Some(source.ip().to_canonical()));
        let low = source.port() < 1024 && !self.low_ports;
        let most = self.amplification as usize * (datagram.payload.len() + HEADERS);
        source.port() != 0 && !ours && !low && (self.amplification == 0 || length + HEADERS <= most)
    }
}

/// A worker's life: it ends when the master tells it to finish, or is gone, and its hands are empty.
pub(crate) fn handle(
    bench: &Bench<'_>,
    basket: &Basket,
    handler: &mut dyn DatagramHandler,
    guard: &Guard,
) -> Failure {
    let mut batch = match basket.open().map_err(Step::Descriptors.failed()) {
        Ok(batch) => batch,
        Err(failure) => return failure,
    };
    let fds = match bench.enter(&[]) {
        Ok(fds) => fds,
        Err(failure) => return failure,
    };
    let lost = batch.recover();
    bench.workplace.reports.send(&Report::Begun { lost });
    if let Err(why) = bench.workplace.settle(3 + fds.len()) {
        return Step::Descriptors.failed()(why);
    }
    run(|| {
        let (socket, life) = (&fds[0], &fds[1]);
        let (mut reply, mut ready) = (Reply::default(), Vec::new());
        loop {
            while let Some(got) = batch.take() {
                let (payload, source) = (got.payload, got.source);
                let datagram =
                    Datagram { payload, source, destination: got.destination, truncated: got.truncated };
                reply.wanted = false;
                reply.bytes.clear();
                handler.handle(&datagram, &mut reply);
                let wanted = reply.wanted && guard.lets(&datagram, reply.bytes.len());
                batch.done(wanted.then_some(&reply.bytes[..]));
            }
            while !batch.is_empty() {
                // A full buffer is waited for; a reply that the network will not have is dropped, as any datagram may be.
                if batch.send(socket).is_err_and(|why| why.kind() == std::io::ErrorKind::WouldBlock) {
                    let _ = fd::wait_writable(socket.as_fd());
                }
            }
            if batch.receive(socket).is_ok_and(|received| received > 0) {
                continue;
            }
            let waited = fd::wait_readable(&[socket.as_fd(), life.as_fd()], None, &mut ready);
            if waited.is_ok() && ready[1] && !ready[0] {
                return ExitCode::SUCCESS;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARD: Guard = Guard { low_ports: false, amplification: 3, own_port: Some(7000) };

    fn from(source: &str, payload: &'static [u8]) -> Datagram<'static> {
        let destination = Some("192.0.2.1".parse().unwrap());
        Datagram { payload, source: Some(Addr::Inet(source.parse().unwrap())), destination, truncated: false }
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
