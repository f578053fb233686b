//! The examples do what they say: the others are in the tests that they are the fixtures of.

#![forbid(unsafe_code)]

mod common;

use std::fs;

use common::*;
use tine_testkit::{Server, ask};

const TCP: &str = "tcp://127.0.0.1:0";

#[test]
fn the_file_server_serves_files_below_its_folder_and_nothing_else() {
    let folder = Folder::new();
    let page: Vec<u8> = (0..100_000).map(|n| (n % 251) as u8).collect();
    fs::create_dir_all(folder.path().join("root/sub")).unwrap();
    fs::write(folder.at("root/sub/page"), &page).unwrap();
    fs::write(folder.at("secret"), "secret").unwrap();
    let server = Server::example("httpd", &[TCP, &folder.at("root")]);
    let get = |request: &str| {
        let reply = ask(server.addr(0), request.as_bytes()).expect("an answer");
        let end = reply.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        (String::from_utf8_lossy(&reply[..end]).into_owned(), reply[end + 4..].to_vec())
    };
    let status = |request: &str| get(request).0.split("\r\n").next().unwrap_or_default().to_owned();

    let (head, body) = get("GET /sub/page HTTP/1.0\r\nHost: here\r\n\r\n");
    assert_eq!(head, "HTTP/1.0 200 OK\r\nContent-Length: 100000\r\nConnection: close");
    assert!(body == page, "{} bytes", body.len());
    assert_eq!(get("HEAD /sub/page?now HTTP/1.0\r\n\r\n"), (head, Vec::new()));
    for (request, expected) in [
        ("GET /nothing HTTP/1.0\r\n\r\n", "HTTP/1.0 404 Not Found"),
        ("GET /sub HTTP/1.0\r\n\r\n", "HTTP/1.0 404 Not Found"),
        ("GET /../secret HTTP/1.0\r\n\r\n", "HTTP/1.0 400 Bad Request"),
        ("GET /sub/../../secret HTTP/1.0\r\n\r\n", "HTTP/1.0 400 Bad Request"),
        ("GET //etc/passwd HTTP/1.0\r\n\r\n", "HTTP/1.0 400 Bad Request"),
        ("POST /sub/page HTTP/1.0\r\n\r\n", "HTTP/1.0 501 Not Implemented"),
        ("\r\n\r\n", "HTTP/1.0 501 Not Implemented"),
    ] {
        assert_eq!(status(request), expected, "{request:?}");
    }
    assert!(server.stop().success());
}

#[test]
fn each_client_of_the_chat_has_a_conversation_of_its_own() {
    let server = Server::example("chat", &[TCP]);
    let mut clients = [Client::connect(server.addr(0)), Client::connect(server.addr(0))];
    for (n, client) in clients.iter_mut().enumerate() {
        assert!(client.line().expect("a greeting").starts_with("hello 127.0.0.1:"));
        client.say(&format!("say I am {n}\nsay and nobody else\n")).expect("two lines");
    }
    for (n, client) in clients.iter_mut().enumerate() {
        client.say("list\nshout\nquit\n").expect("three lines");
        for expected in
            [&format!("1 I am {n}\n"), "2 and nobody else\n", ".\n", "what is 'shout'?\n", "bye\n", ""]
        {
            assert_eq!(client.line().expect("a line"), expected);
        }
    }
    assert!(server.stop().success());
}
