//! What only the `fault` feature can show of handlers.

use std::process::Command;

use tine_testkit::server::Ready;
use tine_testkit::target::example_with;
use tine_testkit::{Server, ask};

#[test]
fn the_way_from_fork_to_handler_asks_for_no_memory() {
    let program = example_with("tine", "allocations", "fault");
    let server = Server::start(Command::new(program), Ready::Line);
    for _ in 0..20 {
        let told = ask(server.addr(0), b"").expect("an answer");
        assert_eq!(String::from_utf8_lossy(&told), "0\n");
    }
    assert!(server.stop().success());
}
