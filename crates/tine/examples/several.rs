//! A handler whose children serve several clients, one after the other: `several [clients=N] ADDR...`. It says its process id and
//! how many clients that has had; asked for it, it panics, or leaves a process behind.

mod common;

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::process::Command;

use tine::Conn;

fn main() -> Result<(), tine::Error> {
    let clients = common::value("clients").and_then(|count| count.parse().ok()).unwrap_or(1);
    let had = Cell::new(0);
    common::server()?.clients_per_child(clients).serve(move |conn: Conn| {
        let mut line = String::new();
        BufReader::new(&conn).read_line(&mut line)?;
        had.set(had.get() + 1);
        match line.trim() {
            "panic" => panic!("as asked"),
            "leave" => drop(Command::new("sleep").arg("1000").spawn()?),
            _ => {}
        }
        writeln!(&conn, "{} {}", std::process::id(), had.get())
    })
}
