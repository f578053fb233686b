//! Whether a day with a fault was a good one: decided from its record alone.
//!
//! Good is: the server did not start, and said why; or service went on, at most one client was not served, the log tells
//! of it, and nothing is left over. What must never be: a hang, a leak, a client that lost its reply unsaid, a process
//! that stays, an exit that is not documented.

use std::fmt;

use super::day::{Descriptors, Record};

/// Exit codes that tine documents for a start, or an end, that failed: the operator erred, the system refused.
const DOCUMENTED: [i32; 2] = [100, 111];

/// What a master holds at the end of a day without faults.
#[derive(Debug)]
pub struct Baseline {
    descriptors: Descriptors,
}

impl Baseline {
    /// Takes it from a day that must have been good, with no fault in it.
    pub fn of(record: &Record) -> Result<Self, String> {
        if let Some(fault) = &record.fault {
            return Err(format!("a fault struck: {fault}"));
        }
        let descriptors = record.descriptors.clone().ok_or("the server did not get through the day")?;
        let baseline = Baseline { descriptors };
        match of(record, &baseline)? {
            Ending::Served => Ok(baseline),
            other => Err(format!("it ended as {other}")),
        }
    }

    pub fn descriptors(&self) -> usize {
        self.descriptors.values().sum()
    }
}

/// The good ways for a day to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All clients were served.
    Served,
    /// All but one were, and the log says so.
    OneLost,
    /// The server did not start and said why.
    NotStarted,
    /// All clients were served, and the end was told to have failed.
    EndFailed,
}

impl Ending {
    /// The columns of the table.
    pub const WORDS: [&str; 5] = ["served", "one-lost", "not-started", "end-failed", "bad"];

    pub fn word(self) -> &'static str {
        match self {
            Ending::Served => "served",
            Ending::OneLost => "one-lost",
            Ending::NotStarted => "not-started",
            Ending::EndFailed => "end-failed",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The verdict: how the day went, or what was bad about it.
pub fn of(record: &Record, baseline: &Baseline) -> Result<Ending, String> {
    if !record.left_behind.is_empty() {
        return Err(format!("processes outlived the server: {:?}", record.left_behind));
    }
    if let Some(group) = record.groups.first()
        && !record.log.iter().any(|line| line.contains("control group"))
    {
        return Err(format!(
            "a control group outlived the server, and nothing tells of it: {}",
            group.display()
        ));
    }
    if let Some(mount) = record.mounts.first() {
        return Err(format!("a mount outlived the server: {mount}"));
    }
    let Some(exit) = record.exit else { return Err("the server hung and had to be killed".to_string()) };
    let Some(code) = exit.code() else { return Err(format!("the server died: {exit}")) };
    if !record.ready {
        return not_started(record, code);
    }

    if let Some(line) = record.log.iter().find(|line| tells_of_a_bug(line)) {
        return Err(format!("tine itself erred: {line}"));
    }
    if !record.stdout_closed && !says_why(record) {
        return Err("stdout was not closed when the server was ready, and nothing says why".to_string());
    }
    let lost = lost(record)?;
    quiescent(record, baseline)?;
    if !record.status_told {
        return Err("no status was told".to_string());
    }
    match code {
        0 if lost == 0 => Ok(Ending::Served),
        0 => Ok(Ending::OneLost),
        111 if record.fault.is_some() && !record.struck_before_end && says_why(record) => {
            Ok(Ending::EndFailed)
        }
        _ => Err(format!("exit code {code} after a day of service")),
    }
}

fn not_started(record: &Record, code: i32) -> Result<Ending, String> {
    if record.fault.is_none() {
        return Err(format!("not ready without any fault, exit code {code}"));
    }
    if !DOCUMENTED.contains(&code) {
        return Err(format!("not ready, and exit code {code} is not among {DOCUMENTED:?}"));
    }
    if !says_why(record) {
        return Err("not ready, and nothing on stderr says why".to_string());
    }
    Ok(Ending::NotStarted)
}

/// How many clients were not served; an error if it is more than the fault explains, or nothing tells of it.
fn lost(record: &Record) -> Result<usize, String> {
    let lost: Vec<&String> = record.clients.iter().filter_map(|client| client.as_ref().err()).collect();
    match lost.len() {
        0 => Ok(0),
        1 if record.fault.is_none() => Err(format!("a client was not served without any fault: {}", lost[0])),
        1 if !record.log.iter().any(|line| tells_of_trouble(line)) => {
            Err(format!("a client was not served and the log does not say so: {}", lost[0]))
        }
        1 => Ok(1),
        many => Err(format!("{many} clients were not served: {lost:?}")),
    }
}

/// Is this a line that tells an operator of a client not served? Lines of everyday life do not.
fn tells_of_trouble(line: &str) -> bool {
    match line.split_whitespace().next() {
        None | Some("fault" | "listen" | "trees" | "accept" | "status" | "drain" | "stop" | "resume") => {
            false
        }
        Some("end") => !line.split_whitespace().any(|word| word == "exit=0"),
        Some(_) => true,
    }
}

/// Is this a line that no refusal of the kernel excuses? `cat` ends well or is not started; any other end is ours.
fn tells_of_a_bug(line: &str) -> bool {
    let odd_end = line.starts_with("end ") && !line.contains(" exit=0") && !line.contains(" setup=");
    odd_end || line.contains("panicked at") || line.contains("fatal runtime error")
}

/// Does a line say what was tried and what the kernel answered?
fn says_why(record: &Record) -> bool {
    record.log.iter().any(|line| tells_of_trouble(line) && line.contains(": "))
}

/// Nobody is left, and the master holds nothing more than on a day without faults. It may hold less.
fn quiescent(record: &Record, baseline: &Baseline) -> Result<(), String> {
    if record.children > 0 {
        return Err(format!("{} children were left when all clients had gone", record.children));
    }
    let Some(descriptors) = &record.descriptors else {
        return Err("the server was gone before its end".to_string());
    };
    for (kind, count) in descriptors {
        let stdout = usize::from(kind == "pipe" && !record.stdout_closed);
        let usual = baseline.descriptors.get(kind).copied().unwrap_or(0) + stdout;
        if *count > usual {
            return Err(format!("descriptors leaked: {count} of {kind}, {usual} on other days"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::{Baseline, Ending, of};
    use crate::faults::day::{Descriptors, Fault, Record};

    fn exit(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    fn holds(sockets: usize) -> Descriptors {
        Descriptors::from([("socket".to_string(), sockets), ("pipe".to_string(), 1)])
    }

    fn baseline() -> Baseline {
        Baseline { descriptors: holds(2) }
    }

    /// A day on which a fault struck and nobody felt it.
    fn day() -> Record {
        Record {
            fault: Fault::parse("fault  n=1 call=accept4 errno=EMFILE"),
            struck_before_end: true,
            ready: true,
            stdout_closed: true,
            clients: vec![Ok(()); 6],
            status_told: true,
            descriptors: Some(holds(2)),
            exit: exit(0),
            log: ["listen tcp://127.0.0.1:1 children=256", "end    child=7 exit=0 ms=1", "stop   served=6"]
                .map(str::to_string)
                .to_vec(),
            ..Record::default()
        }
    }

    fn bad(record: &Record) -> String {
        of(record, &baseline()).expect_err("this day was not good")
    }

    #[test]
    fn a_day_that_nobody_felt_is_good() {
        assert_eq!(of(&day(), &baseline()), Ok(Ending::Served));
        assert_eq!(of(&Record { descriptors: Some(holds(1)), ..day() }, &baseline()), Ok(Ending::Served));
    }

    #[test]
    fn one_client_may_be_lost_if_the_log_says_so() {
        let mut record = day();
        record.clients[2] = Err("read \"\"".to_string());
        assert!(bad(&record).contains("does not say so"));
        record.log.push("end    child=9 setup=dup2 error=\"Too many open files\"".to_string());
        assert_eq!(of(&record, &baseline()), Ok(Ending::OneLost));
        record.clients[3] = Err("read \"\"".to_string());
        assert!(bad(&record).contains("2 clients"));
    }

    #[test]
    fn a_child_that_dies_otherwise_is_a_bug_of_ours() {
        for line in
            ["end    child=9 signal=6 ms=1", "end    child=9 exit=101 ms=1", "thread 'main' panicked at x:1:"]
        {
            let mut record = day();
            record.log.push(line.to_string());
            assert!(bad(&record).contains("erred"), "{line}");
        }
    }

    #[test]
    fn stdout_stays_open_only_if_the_log_says_why() {
        let mut record = Record { stdout_closed: false, ..day() };
        assert!(bad(&record).contains("stdout"));
        record.log.push("tine: -1: close standard output: Too many open files".to_string());
        assert_eq!(of(&record, &baseline()), Ok(Ending::Served));
    }

    #[test]
    fn without_a_fault_no_client_may_be_lost() {
        let mut record = day();
        record.fault = None;
        record.log.push("pause  listener=x reason=\"accept: y\"".to_string());
        record.clients[0] = Err("read \"\"".to_string());
        assert!(bad(&record).contains("without any fault"));
    }

    #[test]
    fn a_server_may_fail_to_start_if_it_says_why() {
        let mut record = Record { ready: false, exit: exit(111), ..day() };
        assert!(bad(&record).contains("says why"));
        record.log.push("tine: signalfd: Too many open files".to_string());
        assert_eq!(of(&record, &baseline()), Ok(Ending::NotStarted));
        record.exit = exit(101);
        assert!(bad(&record).contains("101"));
    }

    #[test]
    fn what_is_left_over_is_bad() {
        assert!(bad(&Record { left_behind: vec![7], ..day() }).contains("outlived"));
        let mut record = Record { groups: vec!["/sys/fs/cgroup/tine-7".into()], ..day() };
        assert!(bad(&record).contains("a control group outlived"));
        record.log.push("odd    what=\"remove the control groups\" error=\"x\"".to_string());
        assert_eq!(of(&record, &baseline()), Ok(Ending::Served));
        assert!(bad(&Record { children: 1, ..day() }).contains("children were left"));
        assert!(
            bad(&Record { mounts: vec!["tmpfs /tmp".to_string()], ..day() }).contains("a mount outlived")
        );
        assert!(bad(&Record { descriptors: Some(holds(3)), ..day() }).contains("leaked"));
    }

    #[test]
    fn hanging_dying_and_leaving_early_are_bad() {
        assert!(bad(&Record { exit: None, ..day() }).contains("hung"));
        assert!(bad(&Record { exit: Some(ExitStatus::from_raw(9)), ..day() }).contains("died"));
        assert!(bad(&Record { descriptors: None, exit: exit(111), ..day() }).contains("gone before"));
    }

    #[test]
    fn the_end_itself_may_fail_if_the_fault_struck_there() {
        let mut record = Record { exit: exit(111), ..day() };
        record.log.push("tine: wait4: Operation not permitted".to_string());
        assert!(bad(&record).contains("exit code 111"));
        record.struck_before_end = false;
        assert_eq!(of(&record, &baseline()), Ok(Ending::EndFailed));
    }

    #[test]
    fn a_baseline_needs_a_day_without_fault() {
        assert!(Baseline::of(&day()).is_err());
        assert_eq!(Baseline::of(&Record { fault: None, ..day() }).map(|b| b.descriptors()), Ok(3));
    }
}
