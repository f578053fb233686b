//! The Time Protocol over datagrams (RFC 868): any datagram is answered with the seconds since 1900, in four bytes.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use tine::{Datagram, Reply, Server};

/// From 1900 to 1970.
const SECONDS_BEFORE_UNIX: u64 = 2_208_988_800;

fn main() -> Result<(), tine::Error> {
    let addr = std::env::args().nth(1).unwrap_or("udp://127.0.0.1:0".into());
    let server = Server::new().listen(&addr)?;
    println!("ready {}", server.addrs().join(" "));
    let _ = io::stdout().flush();
    server.serve_datagrams(|_: &Datagram, reply: &mut Reply| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        // Four bytes, as the protocol has it: they begin again from zero in 2036.
        reply.send(&((now + SECONDS_BEFORE_UNIX) as u32).to_be_bytes());
    })
}
