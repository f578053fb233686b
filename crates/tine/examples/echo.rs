//! Says back to each client what it says, until it has said all: `echo ADDR...`.

use std::io::{self, Write};
use tine::{Conn, Server};

fn main() -> Result<(), tine::Error> {
    let mut server = Server::new().children(512);
    for addr in std::env::args().skip(1) {
        server = server.listen(&addr)?;
    }
    println!("ready {}", server.addrs().join(" "));
    let _ = io::stdout().flush();
    server.serve(|conn: Conn| io::copy(&mut &conn, &mut &conn).map(drop))
}
