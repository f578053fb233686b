//! Sends each datagram back to where it came from: `udp_echo ADDR [WORKERS]`.

use std::io::{self, Write};
use tine::{Datagram, Event, Reply, Server};

fn main() -> Result<(), tine::Error> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or("udp://127.0.0.1:0".into());
    let workers = args.next().and_then(|count| count.parse().ok()).unwrap_or(1);
    let server = Server::new().listen(&addr)?.workers(workers).on_event(|event| {
        if let Event::Replaced { worker, how, lost, .. } = event {
            eprintln!("worker pid={worker} {how} lost={}", u8::from(*lost));
        }
    });
    println!("ready {}", server.addrs().join(" "));
    let _ = io::stdout().flush();
    server.serve_datagrams(|datagram: &Datagram, reply: &mut Reply| reply.send(datagram.payload))
}
