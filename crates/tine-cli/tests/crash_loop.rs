//! A program that fails as soon as it is born costs little, and is served again by itself when it is mended.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::{Folder, calls, count, traced};
use tine_testkit::server::until;
use tine_testkit::{ask, echo_line};

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_program_that_fails_at_once_is_not_started_as_often_as_clients_come_and_comes_back_when_mended() {
    let folder = Folder::new();
    let program = folder.program("program", "#!/bin/sh\nexit 1\n");
    let trace = folder.file("trace");
    let options = ["-e", "trace=clone,clone3", "-e", "signal=none"];
    // Confined ones are born from a template, whose calls are not the traced process's.
    let server = traced(&trace, &options, &["127.0.0.1:0", "-C", "256", "--confine", "none", "--", &program]);
    let address = server.addr(0).to_owned();
    let slowed =
        |line: &str| line.starts_with("pause") && line.contains("children fail as soon as they are born");

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // The clients come until then, and a test that fails is to end too.
        let _over = Over(&over);
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // Whether it is told the end or a reset is the program's affair, and it is none.
                    let _ = ask(&address, b"");
                }
            });
        }
        server.wait_log(slowed);
        let births = || calls(&trace, "clone3");
        let from = births().last().map_or(0.0, |call| call.at);
        // In three seconds there are so many and no fewer, unless the machine stands still: then some others are looked at.
        let most = until("three seconds with births", || {
            let after: Vec<f64> = births().iter().map(|call| call.at).filter(|at| *at > from).collect();
            let within = |first: &f64| after.iter().filter(|at| *at > first && **at <= first + 3.0).count();
            let is_whole = |first: &&f64| after.last().is_some_and(|last| *last > **first + 3.0);
            [from].iter().chain(&after).take_while(is_whole).map(within).max().filter(|most| *most >= 30)
        });
        // When it has stood still for a second there was no failure for that long, and it takes a hundred more of them.
        let anew = count(&server, |line| line.starts_with("resume"));
        assert!(most <= 350 + 120 * anew, "{most} births in three seconds:\n{}", server.log());
        folder.program("program", "#!/bin/sh\nexec cat\n");
        until("it is served again", || (server.status().paused == 0).then_some(()));
        server.wait_log(|line| line.starts_with("resume"));
    });
    echo_line(&address, "mended").unwrap();
    assert_eq!(server.status().paused, 0);
    assert!(server.stop().success());
}
