//! What only the `fault` feature can show of handlers.

use std::net::UdpSocket;
use std::process::Command;

use tine_testkit::server::{DEADLINE, Ready};
use tine_testkit::target::example_with;
use tine_testkit::{Group, Server, ask, ask_datagram, grouped_datagrams};

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

#[test]
fn ten_thousand_datagrams_through_a_worker_ask_for_no_memory() {
    // Nothing is lost here: what does not come at once is waited for.
    let alone = |socket: &UdpSocket, bytes: &[u8], _: usize| {
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.send(bytes).map(drop)
    };
    let at_once = |socket: &UdpSocket, bytes: &[u8], size: usize| {
        socket.set_read_timeout(Some(DEADLINE))?;
        tine_os::socket::set_int(socket, tine_os::socket::IntOption::SEGMENT, size as i32)?;
        socket.send(bytes).map(drop)
    };
    let single = [16, 47, 79].map(|size| Group { count: 1, size, last: size });
    let group = Group { count: 40, size: 90, last: 20 };
    for listen in ["udp://127.0.0.1:0", "udp://[::]:0"] {
        let mut command = Command::new(example_with("tine", "allocations_datagrams", "fault"));
        command.arg(listen);
        let server = Server::start(command, Ready::Line);
        let address = format!("127.0.0.1:{}", server.port(0));
        let count = || ask_datagram(&address, b"count").expect("an answer");
        // The longest reply of all, for which room is made once.
        ask_datagram(&address, &[b'x'; 100]).expect("an answer");
        let before = count();
        let plain = grouped_datagrams(&address, 5_000, 64, &single, alone).expect("the load can be sent");
        let grouped =
            grouped_datagrams(&address, 5_000, 64, &[group], at_once).expect("the load can be sent");
        assert_eq!((plain.received, grouped.received), (5_000, 5_000));
        assert_eq!(count(), before, "{listen}");
        assert!(server.stop().success());
    }
}
