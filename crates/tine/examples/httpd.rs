//! A file server for HTTP/1.0 (RFC 1945): `httpd ADDR DIRECTORY`. One request a client, GET and HEAD.
//!
//! What a hostile request could do is done to its own process only.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};
use tine::{Conn, Server};

/// The longest request line and header lines that are read, in bytes.
const REQUEST_MOST: u64 = 16 << 10;

fn main() -> Result<(), tine::Error> {
    let mut args = std::env::args().skip(1);
    let addr = args.next().unwrap_or("127.0.0.1:0".into());
    let root = PathBuf::from(args.next().unwrap_or(".".into()));
    let server = Server::new().listen(&addr)?;
    println!("ready {}", server.addrs().join(" "));
    let _ = io::stdout().flush();
    server.serve(move |conn: Conn| answer(&conn, &root))
}

fn answer(conn: &Conn, root: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(conn.take(REQUEST_MOST)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the head means nothing to us, but it must be read, or the client would see a reset.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !matches!(method, "GET" | "HEAD") {
        return head(conn, "501 Not Implemented", 0);
    }
    let Some(path) = inside(root, target) else { return head(conn, "400 Bad Request", 0) };
    match File::open(path).and_then(|file| Ok((file.metadata()?, file))) {
        Ok((meta, mut file)) if meta.is_file() => {
            head(conn, "200 OK", meta.len())?;
            if method == "GET" {
                io::copy(&mut file, &mut &*conn)?;
            }
            Ok(())
        }
        _ => head(conn, "404 Not Found", 0),
    }
}

fn head(mut conn: &Conn, status: &str, length: u64) -> io::Result<()> {
    write!(conn, "HTTP/1.0 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
}

/// The file that a target names, if it is one below the root.
fn inside(root: &Path, target: &str) -> Option<PathBuf> {
    let path = Path::new(target.split('?').next()?.strip_prefix('/')?);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| root.join(path))
}
