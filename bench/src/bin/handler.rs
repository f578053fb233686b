//! `handler`: servers made with the library, to be measured. A client is read from once, what came is written back; a
//! datagram is its own reply.
//!
//! Limits are as wide as they go. When asked with SIGUSR1, it says on standard error how it stands.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::ExitCode;

use clap::Parser;
use tine::{Conn, Datagram, Event, Reply, Server, Spares};

#[global_allocator]
static APART: tine::Apart = tine::Apart;

/// A server made with the library.
#[derive(Debug, Parser)]
#[command(name = "handler", version)]
struct Options {
    /// Where to listen: tcp://127.0.0.1:PORT, unix:/PATH; udp://127.0.0.1:PORT
    listen: String,

    /// Children at once
    #[arg(long, default_value_t = 12_000)]
    children: usize,

    /// Workers for datagrams
    #[arg(long, default_value_t = 1)]
    workers: usize,

    /// Processes that accept, or as many as there are processors
    #[arg(long, default_value = "1", value_name = "N|auto")]
    acceptors: String,

    /// Children to have ready, at least and at most
    #[arg(long, value_name = "MIN:MAX")]
    spare: Option<String>,
}

impl Options {
    /// The server that they ask for. What the library learns to do is asked for here and nowhere else; the benchmark looks
    /// into `handler --help` for what this build can do.
    fn server(&self) -> Result<Server, tine::Error> {
        let server = Server::new()
            .listen(&self.listen)?
            .limits(|limits| {
                limits.children = self.children;
                limits.per_source = Some(self.children);
                limits.reserve = Some(0);
            })
            .workers(self.workers)
            .amplification(0)
            .acceptors(self.acceptors.parse().unwrap_or(0))
            .on_event(tell);
        let spares = self.spare.as_ref().and_then(|text| text.split_once(':'));
        let spares = spares.and_then(|(least, most)| Some((least.parse().ok()?, most.parse().ok()?)));
        Ok(match spares {
            Some((least, most)) => server.spares(Spares::new(least, most)),
            None => server,
        })
    }
}

/// Says how the server stands, in the words of `tine serve`; of the rest only what should not happen.
fn tell(event: &Event<'_>) {
    match event {
        Event::Status(status) => {
            eprintln!("status open={} served={} failed={}", status.open, status.served, status.failed);
        }
        Event::Paused { .. } | Event::Odd { .. } | Event::Replaced { .. } => eprintln!("{event:?}"),
        _ => {}
    }
}

/// One read, one write, the end.
fn echo(conn: Conn) -> std::io::Result<()> {
    let mut line = [0; 4096];
    let length = (&conn).read(&mut line)?;
    (&conn).write_all(&line[..length])
}

fn main() -> ExitCode {
    let options = Options::parse();
    let served = options.server().and_then(|server| {
        if options.listen.starts_with("udp:") {
            server.serve_datagrams(|datagram: &Datagram<'_>, reply: &mut Reply| reply.send(datagram.payload))
        } else {
            server.serve(echo)
        }
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("handler: {why}");
            ExitCode::from(111)
        }
    }
}
