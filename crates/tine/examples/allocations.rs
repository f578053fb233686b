//! For tests (feature `fault`): tells each client how often its child asked for memory on the way from the fork to here.

use std::io::{self, Write};
use tine::{Conn, Server};

#[global_allocator]
static COUNTING: tine::fault::Counting = tine::fault::Counting;

fn main() -> Result<(), tine::Error> {
    let server = Server::new().listen(&std::env::args().nth(1).unwrap_or("127.0.0.1:0".into()))?;
    println!("ready {}", server.addrs().join(" "));
    let _ = io::stdout().flush();
    server.serve(|conn: Conn| {
        let count = tine::fault::allocations_since_fork();
        writeln!(&conn, "{count}")
    })
}
