//! Each step of a child is made to fail for want of memory, wherever it is taken: in what is tried before anybody is served, in a child
//! with its client, and in a template that takes another's place. It is named then, costs one client at most, and leaves nothing.
//!
//! [`what_fails`] is the table: whoever adds a step adds what makes it fail. `cargo xtask faults` has every other call fail too, with
//! every other answer that the kernel has.

mod support;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, kill_process};
use support::left_out_without_root;
use tine::Step;
use tine_testkit::procfs::inits;
use tine_testkit::server::{DEADLINE, listeners_among, tine_command, until, until_within};
use tine_testkit::{Baseline, Server, Signal, ask, children, templates};

/// Where a step is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// By a server that does not start.
    Start,
    /// By the end of a child, with its client or before one came.
    Child,
    /// By a server that has nobody to bear children while it goes on: its clients wait meanwhile.
    Template,
}
use Place::{Child, Start, Template};

/// What makes a step fail.
#[derive(Debug)]
struct Cause {
    /// The system call.
    call: &'static str,
    /// What has the step taken, and this call made in it.
    options: &'static [&'static str],
    /// Where it is told of at least.
    told: &'static [Place],
}

/// What is tried before it is done for a client.
const EVERYWHERE: &[Place] = &[Start, Child, Template];

/// What children inherit.
const WORN: &[Place] = &[Start, Template];

/// What makes this step fail; nothing can make one.
fn what_fails(step: Step) -> Option<Cause> {
    let (call, options, told): (_, &[_], _) = match step {
        Step::Session => ("setsid", &[], EVERYWHERE),
        Step::Descriptors => ("close_range", &[], EVERYWHERE),
        Step::Limits => ("setrlimit", &[], EVERYWHERE),
        Step::Identity => ("setresuid", &["--user", "nobody"], EVERYWHERE),
        Step::Directory => ("chdir", &["--chdir", "/"], EVERYWHERE),
        Step::Signals => ("sigprocmask", &[], EVERYWHERE),
        Step::Exec => ("execve", &[], &[Child]),
        Step::Tree => ("prctl", &["--trees", "subreaper", "--confine", "none"], &[Child]),
        Step::Parent => ("prctl", &["--orphans", "die", "--confine", "none"], &[Child]),
        Step::Introduction => {
            ("send", &["--proxy", "required", "--proxy-from", "127.0.0.0/8", "--confine", "none"], &[Child])
        }
        Step::Client => ("recvmsg", &["--spare=1:1"], &[Child]),
        Step::Users => ("unshare", &["--confine", "sealed"], WORN),
        Step::Namespaces => ("unshare", &["--confine", "sealed"], WORN),
        Step::World => ("pivot_root", &["--confine", "sealed"], WORN),
        Step::Privileges => ("prctl", &[], WORN),
        Step::Rules => ("landlock_create_ruleset", &[], WORN),
        Step::Calls => ("seccomp", &[], WORN),
        Step::Mounts => ("mount", &["--confine", "sealed"], EVERYWHERE),
        Step::Capabilities => ("capset", &["--user", "root"], EVERYWHERE),
        Step::Domain => ("landlock_restrict_self", &[], EVERYWHERE),
        // umask(2): "This system call always succeeds".
        Step::Umask => return None,
        unknown => panic!("nothing makes the step {unknown} fail: write down here what does"),
    };
    Some(Cause { call, options, told })
}

/// So many calls of one name are more than any of these servers makes.
const CALLS_MOST: u32 = 200;

/// What a server says and does whose n-th call of a name fails.
struct Day {
    struck: bool,
    /// Whether it was ready for clients.
    started: bool,
    log: String,
}

impl Cause {
    /// A server whose `n`-th such call fails has clients, loses its template, and has clients.
    fn day(&self, n: u32) -> Day {
        let args = [&["127.0.0.1:0", "-v"], self.options, &["--", "cat"]].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tine"));
        command.args(tine_command(&args).get_args()).env("TINE_FAULT", format!("{}.{n}:ENOMEM", self.call));
        let struck = |log: &str| log.lines().any(|line| line.starts_with("fault "));
        let server = match Server::attempt(command, listeners_among(&args)) {
            Ok(server) => server,
            Err((status, log)) => {
                let told = log.lines().any(|line| line.starts_with("tine: ") && line.contains(": "));
                assert!(status.code() == Some(111) && told, "{self:?} {n}: {status}\n{log}");
                return Day { struck: struck(&log), started: false, log };
            }
        };
        let proxied = self.options.contains(&"--proxy");
        let served = |line: &str| {
            let header = if proxied { "PROXY TCP4 192.0.2.7 192.0.2.1 7 1\r\n" } else { "" };
            let answer = ask(server.addr(0), format!("{header}{line}").as_bytes());
            answer.is_ok_and(|answer| answer == line.as_bytes())
        };
        let mut lost = 0;
        lost += u32::from(!served("first\n"));
        if let Some(template) = templates(server.pid()).first() {
            // It may be one that has failed, and is gone by now.
            let _ =
                kill_process(Pid::from_raw(*template as i32).expect("a pid of the kernel's"), Signal::KILL);
            let entry = format!("/proc/{template}");
            until("it was noticed", || (!Path::new(&entry).exists()).then_some(()));
        }
        lost += u32::from(!served("second\n"));
        lost += u32::from(!served("third\n"));
        // The answer comes after all that was said before.
        let spare = self.options.contains(&"--spare=1:1");
        let guardian = self.options.contains(&"die");
        let quiet = || {
            let seen = until_within(DEADLINE, || {
                let (status, log) = (server.status(), server.log());
                let waits = log.lines().rfind(|line| line.starts_with("status "))?.contains(" spares=1 ");
                // One that was just born still has its template's name, and is taken for no child.
                let born = children(server.pid()).len() == usize::from(spare) + usize::from(guardian);
                // One pid namespace is kept for who comes next.
                let kept = inits(server.pid()).len() <= 1;
                (status.open == 0 && waits == spare && born && kept).then_some(())
            });
            if seen.is_none() {
                server.fail(&format!(
                    "{self:?} {n}: others than who waits for a client: {:?}",
                    children(server.pid())
                ));
            }
        };
        quiet();
        let late = struck(&server.log());
        // One that has failed while it waited may be gone when its client is handed over, and not before.
        lost += u32::from(late && !served("fourth\n"));
        if lost > u32::from(late) {
            server.fail(&format!("{self:?} {n}: {lost} clients were lost"));
        }
        if late {
            quiet();
            // Now nothing is left of it, and all are served.
            let words = if proxied { "PROXY UNKNOWN\r\nprobe\n" } else { "probe\n" };
            let address = server.addr(0).to_owned();
            let probe = move || match ask(&address, words.as_bytes())? {
                answer if answer == b"probe\n" => Ok(()),
                other => Err(io::Error::other(format!("answered {:?}", String::from_utf8_lossy(&other)))),
            };
            let baseline = Baseline::with(&server, probe).by_kind();
            assert!(served("fifth\n") && served("sixth\n"), "{self:?} {n}\n{}", server.log());
            server.quiescent(&baseline);
        }
        let status = server.stop();
        let log = server.log();
        let said = log.lines().any(|line| line.starts_with("tine: ") || line.starts_with("odd "));
        assert!(status.success() || struck(&log) && said, "{self:?} {n}: {status}\n{log}");
        Day { struck: struck(&log), started: true, log }
    }

    /// One day after the other, until one has no such call any more: where this step was told of, and how.
    fn told_of(&self, step: Step) -> BTreeSet<Place> {
        let mut places = BTreeSet::new();
        for n in 1..=CALLS_MOST {
            let Day { struck, started, log } = self.day(n);
            if !struck {
                return places;
            }
            for line in log.lines() {
                let named = |before: &str| line.contains(&format!("{before}{step}: Cannot allocate memory"));
                if !started && line.starts_with("tine: confine the children: ") && named("children: ") {
                    places.insert(Start);
                } else if line.contains(&format!(" setup={step} error=\"Cannot allocate memory\"")) {
                    places.insert(Child);
                } else if line.starts_with("pause ") && named("fork: ")
                    || line.starts_with("odd ") && named("error=\"")
                {
                    places.insert(Template);
                }
            }
        }
        panic!("{self:?}: more than {CALLS_MOST} calls")
    }
}

fn is_told_wherever_it_fails(steps: &[Step]) {
    for step in steps {
        let Some(cause) = what_fails(*step) else { continue };
        if cause.options.contains(&"--user") && left_out_without_root("another user") {
            continue;
        }
        let found = cause.told_of(*step);
        let missing: Vec<_> = cause.told.iter().filter(|place| !found.contains(place)).collect();
        assert!(missing.is_empty(), "{step} is not told of at {missing:?}, only at {found:?}");
    }
}

/// All steps there are, a part for each of the tests below: those that the table does not have as well.
fn steps(part: usize) -> Vec<Step> {
    let all: Vec<_> = (0..=u8::MAX).filter_map(Step::from_number).collect();
    all.into_iter().skip(part).step_by(PARTS).collect()
}

const PARTS: usize = 4;

#[test]
fn each_step_that_fails_for_want_of_memory_is_named_and_leaves_nothing_1_of_4() {
    is_told_wherever_it_fails(&steps(0));
}

#[test]
fn each_step_that_fails_for_want_of_memory_is_named_and_leaves_nothing_2_of_4() {
    is_told_wherever_it_fails(&steps(1));
}

#[test]
fn each_step_that_fails_for_want_of_memory_is_named_and_leaves_nothing_3_of_4() {
    is_told_wherever_it_fails(&steps(2));
}

#[test]
fn each_step_that_fails_for_want_of_memory_is_named_and_leaves_nothing_4_of_4() {
    is_told_wherever_it_fails(&steps(3));
}

#[test]
fn who_cannot_tell_who_its_users_are_leaves_nobody_waiting_for_it() {
    // A child of the template's waits to write them down, and holds the log meanwhile.
    let cause = Cause { call: "write", options: &["--confine", "sealed"], told: &[Start] };
    assert!(
        left_out_without_root("users of each child's own") || cause.told_of(Step::Users).contains(&Start)
    );
}

#[test]
fn a_pid_namespace_that_nobody_hears_of_is_ended() {
    // One that was made, and its maker or its template could not say so. `day` looks for what is left.
    let cause = Cause { call: "sendmsg", options: &["--confine", "sealed"], told: &[] };
    assert!(left_out_without_root("users of each child's own") || cause.told_of(Step::Client).is_empty());
}

#[test]
fn a_server_ends_whomever_it_cannot_signal() {
    let cause = Cause { call: "pidfd_send_signal", options: &["--confine", "sealed"], told: &[] };
    assert!(left_out_without_root("users of each child's own") || cause.told_of(Step::Client).is_empty());
}
