//! A chat with yourself: a line protocol with a state that is one client's alone, which costs nothing here: it is a
//! local variable. `chat ADDR`
//!
//! `say TEXT` remembers a line, `list` shows what was said, `quit` ends.

use std::io::{self, BufRead, BufReader, Write};
use tine::{Conn, Server};

fn main() -> Result<(), tine::Error> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let server = Server::new().listen(&addr)?;
    println!("ready {}", server.addrs().join(" "));
    let _ = io::stdout().flush();
    server.serve(chat)
}

fn chat(conn: Conn) -> io::Result<()> {
    let mut said = Vec::new();
    writeln!(&conn, "hello {}", conn.peer())?;
    for line in BufReader::new(&conn).lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("say", text) => said.push(text.to_owned()),
            ("list", _) => {
                for (n, text) in said.iter().enumerate() {
                    writeln!(&conn, "{} {text}", n + 1)?;
                }
                writeln!(&conn, ".")?;
            }
            ("quit", _) => return writeln!(&conn, "bye"),
            (other, _) => writeln!(&conn, "what is '{other}'?")?,
        }
    }
    Ok(())
}
