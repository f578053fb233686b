//! Children that serve several clients, where that was asked for by name.

use std::collections::BTreeMap;

use tine_testkit::server::until;
use tine_testkit::{Server, ask};

/// The process that answers, and which of its clients this one was.
fn served(server: &Server, word: &str) -> Option<(u32, u32)> {
    let answer = ask(server.addr(0), format!("{word}\n").as_bytes()).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (pid, count) = answer.trim().split_once(' ')?;
    Some((pid.parse().ok()?, count.parse().ok()?))
}

fn start(clients: u32) -> Server {
    Server::example("several", &[&format!("clients={clients}"), "tcp://127.0.0.1:0"])
}

#[test]
fn a_child_serves_as_many_clients_as_it_may_and_no_more() {
    for clients in [2, 3, 7] {
        let server = start(clients);
        let mut had = BTreeMap::new();
        for _ in 0..4 * clients {
            let (pid, count) = served(&server, "hello").expect("an answer");
            *had.entry(pid).or_insert(0) += 1;
            assert_eq!(had[&pid], count, "clients of {pid}");
            // Its client sees the end before the master hears that it is done.
            let ends = format!("child={pid} exit=0");
            let told = |log: String| {
                log.lines().filter(|line| line.starts_with("end ") && line.contains(&ends)).count()
            };
            until("it is done with each of them", || (told(server.log()) == count as usize).then_some(()));
        }
        assert!(had.values().all(|count| *count <= clients), "{had:?}");
        assert!(had.values().any(|count| *count == clients), "{had:?}");
        assert!(server.stop().success());
    }
}

#[test]
fn without_being_asked_a_child_has_one_client() {
    let server = start(1);
    let pids: Vec<_> = (0..20).map(|_| served(&server, "hello").expect("an answer")).collect();
    assert!(pids.iter().all(|(_, count)| *count == 1));
    assert!(server.stop().success());
}

#[test]
fn one_that_panics_or_leaves_a_process_behind_serves_nobody_else_and_all_is_accounted_for() {
    let server = start(100);
    let (first, _) = served(&server, "hello").expect("an answer");
    assert_eq!(served(&server, "panic"), None);
    let (second, _) = served(&server, "leave").expect("an answer");
    let after: Vec<_> = (0..20).map(|_| served(&server, "hello").expect("an answer").0).collect();
    assert!(!after.contains(&second), "{second} had left a process behind");
    server.wait_log(|line| line.contains("exit=101"));
    assert!(first != second || !after.contains(&first));
    // The last client has its answer before the master hears that its child is done with it.
    let status = until("all have ended", || Some(server.status()).filter(|status| status.open == 0));
    assert_eq!((status.served, status.failed), (23, 1), "{status:?}");
    assert!(server.stop().success());
}
