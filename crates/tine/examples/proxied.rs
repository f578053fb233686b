//! Behind a balancer: tells each client who it is, as the balancer has it, and then says back what it says.
//! `proxied from=127.0.0.1,unix ADDR...`

#![forbid(unsafe_code)]

mod common;

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use tine::proxy::Claim;
use tine::{Balancers, Conn};

fn main() -> Result<(), tine::Error> {
    let from = common::value("from").unwrap_or("127.0.0.1,::1,unix".into());
    let (unix, networks): (Vec<_>, Vec<_>) = from.split(',').partition(|who| *who == "unix");
    let mut balancers = Balancers::default();
    balancers.unix = !unix.is_empty();
    balancers.from = networks.join(",").parse().expect("networks, as in 127.0.0.0/8,::1");
    common::server()?.proxy(balancers).serve(tell)
}

fn tell(conn: Conn) -> io::Result<()> {
    writeln!(&conn, "peer={} local={:?}", conn.peer(), conn.local())?;
    if let Some(header) = conn.header() {
        let own = header.claim == Claim::Own;
        let name = header.authority.as_deref().map(String::from_utf8_lossy);
        let verified = header.tls.as_ref().map(|tls| tls.verified);
        writeln!(&conn, "version={} own={own} name={name:?} verified={verified:?}", header.version)?;
    }
    // Whoever it is that the balancer speaks for, the socket stays what it is.
    match TcpStream::try_from(conn) {
        Ok(tcp) => writeln!(&tcp, "tcp from={}", tcp.peer_addr()?).and_then(|()| echo(&tcp)),
        Err(conn) => match UnixStream::try_from(conn) {
            Ok(unix) => writeln!(&unix, "unix").and_then(|()| echo(&unix)),
            Err(_) => Err(io::Error::other("a connection over neither TCP nor a Unix socket")),
        },
    }
}

fn echo<S>(stream: S) -> io::Result<()>
where
    S: io::Read + io::Write + Copy,
{
    io::copy(&mut { stream }, &mut { stream }).map(drop)
}
