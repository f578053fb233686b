//! A fixture of the tests: the echo of `echo.rs`, with limits from the command line and its events in the log.

#![forbid(unsafe_code)]

mod common;

use std::io;
use tine::Conn;

fn main() -> Result<(), tine::Error> {
    let server = common::server()?;
    server.serve(|conn: Conn| io::copy(&mut &conn, &mut &conn).map(drop))
}
