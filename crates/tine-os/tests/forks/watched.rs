//! Connections that only a child has a descriptor of, heard of through a set.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tine_os::ready::Ready;
use tine_os::{Pid, wait};

use crate::support::{PATIENCE, Test, child, hear, pair, say, stay, tests};

pub const TESTS: &[Test] = tests![
    a_client_that_closes_a_unix_connection_is_heard_of,
    a_client_that_resets_is_heard_of_and_one_that_ends_its_direction_is_not,
    the_end_of_a_child_is_not_told_and_empties_the_set,
    what_a_tcp_client_sends_is_a_sign_of_life,
    what_a_unix_client_sends_or_reads_is_a_sign_of_life,
    a_set_can_be_watched_itself,
];

/// A child that has the server's end of a connection, which we have closed; it reads to the end of what it is sent, says
/// so, and stays.
fn reader(connection: impl AsFd) -> (Pid, UnixStream) {
    let (ours, theirs) = pair();
    let fd = connection.as_fd();
    let reader = child(&[&theirs, &fd.as_raw_fd()], || {
        let mut bytes = [0; 64];
        loop {
            match rustix::io::read(fd, &mut bytes) {
                Ok(0) => break,
                Ok(_) => say(&theirs),
                Err(_) => return stay(&theirs),
            }
        }
        say(&theirs);
        stay(&theirs)
    });
    (reader, ours)
}

/// A child that has the server's end of a connection, which we have closed, and does nothing with it.
fn holder(connection: impl AsFd) -> (Pid, UnixStream) {
    let (ours, theirs) = pair();
    let holder = child(&[&theirs, &connection.as_fd().as_raw_fd()], || stay(&theirs));
    (holder, ours)
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (client, listener.accept().expect("a client").0)
}

/// What the set tells next, within the time there is.
fn told(set: &Ready) -> Vec<u64> {
    let mut numbers = Vec::new();
    set.wait(Some(PATIENCE), &mut numbers).expect("an answer");
    numbers
}

/// What the set tells now.
fn told_now(set: &Ready) -> Vec<u64> {
    let mut numbers = Vec::new();
    set.collect(&mut numbers).expect("an answer");
    numbers
}

fn end(child: Pid, stream: UnixStream) {
    drop(stream);
    assert!(wait::wait_blocking(child).expect("a child").success());
}

fn a_client_that_closes_a_unix_connection_is_heard_of() {
    let set = Ready::new().expect("a set");
    let (client, connection) = pair();
    set.add_hangup(&connection, 7).expect("watched");
    let (child, ours) = reader(connection);
    (&client).write_all(b"x").expect("a listener");
    hear(&ours);
    assert_eq!(told_now(&set), [], "of a byte");
    drop(client);
    assert_eq!(told(&set), [7]);
    hear(&ours);
    assert_eq!(told_now(&set), [], "a second time");
    end(child, ours);
}

fn a_client_that_resets_is_heard_of_and_one_that_ends_its_direction_is_not() {
    let set = Ready::new().expect("a set");
    let (client, connection) = tcp();
    set.add_hangup(&connection, 8).expect("watched");
    let (child, ours) = reader(connection);
    client.shutdown(Shutdown::Write).expect("a connection");
    hear(&ours);
    assert_eq!(told_now(&set), [], "of a half close, which the child has seen");
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).expect("a socket");
    drop(client);
    assert_eq!(told(&set), [8]);
    end(child, ours);
}

fn the_end_of_a_child_is_not_told_and_empties_the_set() {
    let set = Ready::new().expect("a set");
    let (mut client, connection) = tcp();
    let (mut unix_client, unix_connection) = pair();
    set.add_hangup(&connection, 1).expect("watched");
    set.add_hangup(&unix_connection, 2).expect("watched");
    let (first, ours) = holder(connection);
    let (second, seconds) = holder(unix_connection);
    end(first, ours);
    end(second, seconds);
    // Both connections have ended by then.
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    assert_eq!(unix_client.read(&mut [0]).expect("an end"), 0);
    drop((client, unix_client));
    assert_eq!(told_now(&set), []);
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", set.as_fd().as_raw_fd()))
        .expect("what the set holds");
    assert!(!about.contains("tfd:"), "{about}");
}

fn what_a_tcp_client_sends_is_a_sign_of_life() {
    let set = Ready::new().expect("a set");
    let (mut client, connection) = tcp();
    set.add_activity(&connection, 3).expect("watched");
    let (child, ours) = reader(connection);
    assert_eq!(told(&set), [3], "room to write");
    for _ in 0..3 {
        assert_eq!(told_now(&set), []);
        client.write_all(b"x").expect("a listener");
        assert_eq!(told(&set), [3]);
        hear(&ours);
    }
    client.shutdown(Shutdown::Write).expect("a connection");
    assert_eq!(told(&set), [3], "the client's end");
    hear(&ours);
    end(child, ours);
}

fn what_a_unix_client_sends_or_reads_is_a_sign_of_life() {
    let set = Ready::new().expect("a set");
    let (mut client, connection) = pair();
    set.add_activity(&connection, 4).expect("watched");
    let (ours, theirs) = pair();
    let child = child(&[&theirs, &connection], || {
        hear(&theirs);
        (&connection).write_all(b"answer").expect("a client");
        say(&theirs);
        stay(&theirs)
    });
    drop((connection, theirs));
    assert_eq!(told(&set), [4], "room to write");
    client.write_all(b"x").expect("a listener");
    assert_eq!(told(&set), [4]);
    say(&ours);
    hear(&ours);
    assert_eq!(told_now(&set), [], "what the child itself sends");
    client.read_exact(&mut [0; 6]).expect("an answer");
    assert_eq!(told(&set), [4], "the client has read");
    end(child, ours);
}

fn a_set_can_be_watched_itself() {
    let (inner, outer) = (Ready::new().expect("a set"), Ready::new().expect("a set"));
    let (client, connection) = pair();
    inner.add_hangup(&connection, 5).expect("watched");
    outer.add(&inner, 6).expect("watched");
    let (child, ours) = holder(connection);
    assert_eq!(told_now(&outer), []);
    drop(client);
    assert_eq!(told(&outer), [6]);
    assert_eq!(told_now(&inner), [5]);
    assert_eq!(told_now(&outer), []);
    end(child, ours);
}
