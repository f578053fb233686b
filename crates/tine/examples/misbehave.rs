//! A fixture of the tests: a handler that does what the first line of its client says, most of it bad.
//!
//! The lines are in [`act`]; any other line is echoed, and all that follows it. `prepare=FILE` on the command line makes
//! each child append a line to FILE before it looks at its client, and end when FILE is not there. It keeps the file open.

#![forbid(unsafe_code)]

mod common;

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::panic::panic_any;
use std::process::{Command, Stdio, abort, exit};
use std::sync::{Arc, Mutex};
use std::thread;
use tine::{Conn, Handler};

fn main() -> Result<(), tine::Error> {
    let server = common::server()?;
    server.serve(Misbehaves { file: common::value("prepare"), kept: OnceCell::new() })
}

struct Misbehaves {
    file: Option<String>,
    kept: OnceCell<File>,
}

impl Handler for Misbehaves {
    type Ending = io::Result<()>;

    fn prepare(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut file = File::options().append(true).open(file)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())?; // at once: others write there too
        self.kept.set(file).map_err(|_| io::Error::other("prepared twice"))
    }

    fn serve(&self, conn: Conn) -> io::Result<()> {
        let mut line = Vec::new();
        let mut from = BufReader::new(&conn);
        from.read_until(b'\n', &mut line)?;
        if line.starts_with(b"do ") {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            drop(from); // a client says no more before it is answered
            if let ("do use what was prepared", Some(mut file)) = (&*line, self.kept.get()) {
                file.write_all(format!("{} again\n", std::process::id()).as_bytes())?;
                return writeln!(&conn, "used");
            }
            return act(&line["do ".len()..], conn);
        }
        (&conn).write_all(&line)?;
        io::copy(&mut from, &mut &conn).map(drop)
    }
}

fn act(what: &str, conn: Conn) -> io::Result<()> {
    match what {
        "return an error" => Err(io::Error::other("as asked")),
        "panic" => panic!("as asked"),
        "panic with a bomb" => panic_any(Bomb),
        "panic twice" => {
            let _bomb = Bomb;
            panic!("as asked")
        }
        "panic in a thread" => {
            let ended = thread::spawn(|| panic!("as asked")).join();
            writeln!(&conn, "{}", if ended.is_err() { "it panicked" } else { "it did not" })
        }
        "panic with a lock" => {
            let lock = Arc::new(Mutex::new(()));
            let _held = lock.lock();
            panic!("as asked")
        }
        "abort" => abort(),
        "overflow the stack" => {
            let depth = recurse(1);
            writeln!(&conn, "came back from {depth}")
        }
        "exit 7" => exit(7),
        "leak threads" => {
            for _ in 0..4 {
                thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
            writeln!(&conn, "leaked")
        }
        "close every descriptor" => {
            writeln!(&conn, "closing")?;
            // Perl, because it can.
            let script = "use POSIX; POSIX::close($_) for 0..4096; POSIX::_exit(9)";
            Err(keep(&conn, Command::new("perl").args(["-e", script]))?.exec())
        }
        "kill the group" => Ok(rustix::process::kill_current_process_group(rustix::process::Signal::KILL)?),
        "write to nobody" => write_to_nobody(&conn),
        "leave grandchildren" => {
            // Each is told to the client and left alone with its connection.
            let script = "exec 3<&0; for i in 1 2 3; do (sleep 600 & echo $! >&3); done";
            keep(&conn, Command::new("sh").args(["-c", script]))?.status().map(drop)
        }
        "ignore TERM" => {
            let script = "trap '' TERM; echo ignoring >&0; while :; do sleep 600; done";
            Err(keep(&conn, Command::new("sh").args(["-c", script]))?.exec())
        }
        "list descriptors" => list(&conn),
        "split" => split(conn),
        "shut down" => {
            writeln!(&conn, "said all")?;
            conn.shutdown(Shutdown::Write)?;
            told(&format!("heard {} bytes after that", io::copy(&mut &conn, &mut io::sink())?));
            Ok(())
        }
        "convert" => convert(conn),
        "say who" => {
            let who = conn.credentials().map(|who| (who.pid, who.uid, who.gid));
            writeln!(&conn, "{} {:?} {:?}", conn.peer(), conn.local(), who)
        }
        other => writeln!(&conn, "what is '{other}'?"),
    }
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as asked, in a destructor")
    }
}

fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1).max(here[7]) }
}

/// The command with the connection as its standard input; its output is the log.
fn keep<'a>(conn: &Conn, command: &'a mut Command) -> io::Result<&'a mut Command> {
    let connection: OwnedFd = conn.as_fd().try_clone_to_owned()?;
    Ok(command.stdin(Stdio::from(connection)))
}

/// Waits until the client has gone and writes until that is an error, whose kind it tells in the log.
fn write_to_nobody(mut conn: &Conn) -> io::Result<()> {
    let _ = io::copy(&mut conn, &mut io::sink()); // to the end, or a reset
    loop {
        match conn.write_all(&[b'x'; 4096]) {
            Ok(()) => {}
            Err(why) if why.kind() == ErrorKind::ConnectionReset => {}
            Err(why) => {
                told(&format!("writing failed: {:?}", why.kind()));
                return Ok(());
            }
        }
    }
}

/// What is open, and what of the first 4,096 numbers can be opened again.
fn list(mut conn: &Conn) -> io::Result<()> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    // The folder that was just read had a descriptor, which is closed by now.
    let open = |number: &u32| fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    numbers.retain(open);
    numbers.sort_unstable();
    let again = |number: &u32| File::open(format!("/proc/self/fd/{number}")).is_ok();
    let reached: Vec<u32> = (0..4096).filter(again).collect();
    writeln!(conn, "open {numbers:?}, opened again {reached:?}")
}

/// Both directions at once, in two threads: one ends its direction long before the other's is over.
fn split(conn: Conn) -> io::Result<()> {
    let (mut read, mut write) = conn.split();
    let writer = thread::spawn(move || writeln!(write, "one way"));
    let bytes = io::copy(&mut read, &mut io::sink())?;
    told(&format!("the other way {bytes} bytes"));
    writer.join().expect("the writer does not panic")
}

/// Into the standard library's own types, each of which takes its own family only.
fn convert(conn: Conn) -> io::Result<()> {
    let conn = match TcpStream::try_from(conn) {
        Ok(tcp) => return writeln!(&tcp, "tcp to {}", tcp.local_addr()?),
        Err(conn) => conn,
    };
    let mut unix = UnixStream::try_from(conn).expect("what is not TCP here is a Unix socket");
    writeln!(unix, "unix")?;
    unix.shutdown(Shutdown::Write)?;
    let mut rest = String::new();
    unix.read_to_string(&mut rest)?;
    told(&format!("read {rest:?} as std does"));
    Ok(())
}

/// A line in the log, by way of standard output, which a child has there as well.
fn told(text: &str) {
    println!("{text}");
}
