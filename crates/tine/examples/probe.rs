//! A fixture of the tests: tells each client everything that its child can see about itself.

#![forbid(unsafe_code)]

mod common;

use tine::Conn;

fn main() -> Result<(), tine::Error> {
    let server = common::server()?;
    server.serve(|conn: Conn| tine_testkit::dump(&mut &conn, false))
}
