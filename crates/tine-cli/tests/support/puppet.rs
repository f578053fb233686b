//! A program that does what its client says, and clients of it: see `puppet.pl` beside this file.

#![allow(dead_code)] // each test program uses its part

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Pid, kill_process};
use tine_testkit::server::DEADLINE;
use tine_testkit::{Server, Signal, Stream, procfs};

/// How a command line of `tine serve` ends.
pub const PUPPET: [&str; 3] = ["--", "perl", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/puppet.pl")];

/// The arguments, and the program after them.
pub fn with_puppet<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &PUPPET].concat()
}

/// A server of the program.
pub fn puppets(args: &[&str]) -> Server {
    Server::tine(&with_puppet(args))
}

/// A client of the program.
pub struct Client(pub Stream);

impl Client {
    pub fn of(server: &Server) -> Client {
        Client(Stream::connect(server.addr(0)).unwrap_or_else(|why| server.fail(&format!("connect: {why}"))))
    }

    /// Gives an order.
    pub fn order(&self, what: &str) {
        (&mut &self.0).write_all(format!("{what}\n").as_bytes()).expect("the connection stands");
    }

    /// Gives orders, and waits until they have been carried out.
    pub fn have(&self, what: &[&str]) {
        what.iter().for_each(|what| self.order(what));
        self.order("say done");
        assert_eq!(self.line(), "done");
    }

    /// The next line of the program's.
    pub fn line(&self) -> String {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while byte != *b"\n" {
            (&mut &self.0).read_exact(&mut byte).unwrap_or_else(|why| {
                panic!("{why} after {:?}", String::from_utf8_lossy(&line));
            });
            line.push(byte[0]);
        }
        line.pop();
        String::from_utf8(line).expect("text")
    }

    /// Has so many daemons started.
    pub fn daemons(&self, count: usize) -> Processes {
        self.order(&format!("daemons {count}"));
        let pids = self.line();
        let daemons = pids.split(' ').map(|pid| Process::of(pid.parse().expect("a pid")));
        let daemons = Processes(daemons.collect());
        assert_eq!(daemons.len(), count);
        daemons
    }

    /// The end, when the server has not broken the connection, and nothing before it.
    pub fn end(&self) {
        assert_eq!(self.0.rest().expect("an end, and no reset"), b"");
    }

    /// Resets the connection; a Unix socket is only closed.
    pub fn reset(self) {
        if let Stream::Tcp(stream) = &self.0 {
            reset_at_close(stream);
        }
    }
}

/// Connects over TCP from one of this machine's own addresses.
pub fn connect_from(source: &str, to: &str) -> io::Result<Stream> {
    let (source, to): (IpAddr, SocketAddr) =
        (source.parse().expect("an address"), to.parse().expect("an address and a port"));
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    connect(&socket, &to)?;
    let stream = Stream::Tcp(TcpStream::from(socket));
    stream.set_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Has a connection reset by being closed.
pub fn reset_at_close(stream: &TcpStream) {
    set_socket_linger(stream, Some(Duration::ZERO)).expect("a socket can linger");
}

/// A process, not to be taken for another that has its number later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    start: String,
}

impl Process {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Process {
        Process::find(pid).unwrap_or_else(|| panic!("there is no process {pid}"))
    }

    /// The same, if there is one that has not ended.
    pub fn find(pid: u32) -> Option<Process> {
        const START_TIME: usize = 22 - 3; // the twenty-second field of proc_pid_stat(5), counted from the third
        let stat = procfs::stat(pid).filter(|stat| stat.state != 'Z')?;
        Some(Process { pid, start: stat.fields[START_TIME].clone() })
    }

    /// Whether it has not ended.
    pub fn lives(&self) -> bool {
        Process::find(self.pid).as_ref() == Some(self)
    }
}

/// Processes that are expected to end. A test that fails does not leave them behind.
#[derive(Debug)]
pub struct Processes(pub Vec<Process>);

impl Processes {
    /// How many of them have not ended.
    pub fn alive(&self) -> usize {
        self.iter().filter(|process| process.lives()).count()
    }
}

impl Deref for Processes {
    type Target = [Process];

    fn deref(&self) -> &[Process] {
        &self.0
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.iter().filter(|process| process.lives()) {
            // It may end by itself just now.
            let _ = kill_process(
                Pid::from_raw(process.pid as i32).expect("no process is number 0"),
                Signal::KILL,
            );
        }
    }
}
