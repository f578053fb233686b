//! For tests (feature `fault`): sends each datagram back, but for `count`: that is answered with how often the worker has
//! asked for memory.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use tine::{Datagram, Reply, Server};

#[global_allocator]
static COUNTING: tine::fault::Counting = tine::fault::Counting;

fn main() -> Result<(), tine::Error> {
    let server = Server::new().listen(&std::env::args().nth(1).unwrap_or("udp://127.0.0.1:0".into()))?;
    println!("ready {}", server.addrs().join(" "));
    let _ = io::stdout().flush();
    server.serve_datagrams(|datagram: &Datagram, reply: &mut Reply| match datagram.payload {
        b"count" => {
            let _ = write!(reply, "{}", tine::fault::allocations_since_fork());
        }
        other => reply.send(other),
    })
}
