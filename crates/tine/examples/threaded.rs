//! A program with threads and children of its own beside a server: `threaded ADDR [ACCEPTORS]`.
//!
//! The server is started before the first thread. Commands on standard input: `child` runs `true` and waits for it,
//! `any` waits for any child and says there is none, `threads` says how many there are, `status`, `drain`, `stop`.

use std::io::{self, BufRead, Write};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use tine::{Conn, Server, Status};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let acceptors = std::env::args().nth(2).map_or(Ok(1), |count| count.parse())?;
    let server = Server::new().listen(&addr)?.acceptors(acceptors);
    let mut server = server.start(|conn: Conn| io::copy(&mut &conn, &mut &conn).map(drop))?;

    // From here on the program does as it likes.
    let (say, said) = mpsc::channel::<()>();
    let other = thread::spawn(move || said.recv());
    println!("ready {}", server.addrs().join(" "));
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "child" => println!("child {}", Command::new("true").status()?),
            "any" => match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
                Ok(found) => println!("any {found:?}"),
                Err(why) => println!("any {why}"),
            },
            "second" => match Server::new().listen("127.0.0.1:0")?.serve(|_: Conn| ()) {
                Ok(()) => println!("second served"),
                Err(why) => println!("second {why}"),
            },
            "status" => println!("status {}", told(&server.status()?)),
            "drain" => server.drain()?,
            "stop" => server.stop()?,
            "wait" => {
                println!("wait {}", told(&server.wait()?));
                break;
            }
            other => println!("what is '{other}'?"),
        }
        io::stdout().flush()?;
    }
    drop(say);
    let _ = other.join();
    Ok(())
}

fn told(status: &Status) -> String {
    let Status { open, most, waiting, served, failed, .. } = status;
    format!(
        "open={open}/{most} waiting={waiting} refused={} served={served} failed={failed}",
        status.refused.sum()
    )
}
