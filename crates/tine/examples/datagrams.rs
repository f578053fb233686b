//! A fixture of the tests: datagrams that say what their worker is to do.
//!
//! `panic`, `abort` and `exit` end it, `reply N` is answered with N bytes, `about` with what the handler is told of
//! the datagram, `who` with the worker's process id, everything else with itself; what is cut, with its length.

#![forbid(unsafe_code)]

mod common;

use std::io::Write;
use tine::{Datagram, Reply};

fn main() -> Result<(), tine::Error> {
    let server = common::server()?;
    server.serve_datagrams(|datagram: &Datagram, reply: &mut Reply| {
        if datagram.truncated {
            let _ = write!(reply, "cut to {}", datagram.payload.len());
            return;
        }
        let text = String::from_utf8_lossy(datagram.payload);
        match text.split_once(' ').unwrap_or((&text, "")) {
            ("panic", _) => panic!("as asked"),
            ("abort", _) => std::process::abort(),
            ("exit", status) => std::process::exit(status.parse().unwrap_or(0)),
            ("reply", length) => reply.send(&vec![b'x'; length.parse().unwrap_or(0)]),
            ("about", _) => {
                let _ = write!(reply, "from {:?} to {:?}", datagram.source, datagram.destination);
            }
            ("who", _) => {
                let _ = write!(reply, "{}", std::process::id());
            }
            _ => reply.send(datagram.payload),
        }
    })
}
